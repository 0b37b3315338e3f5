"""The losses are equations 5 to 12 computed by hand, heads never bend the masks, sharing has its limits."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.energy_score import energy_score
from ambiseg.losses.mask_losses import pairwise_mask_loss
from ambiseg.maskset import MaskSet
from ambiseg.methods.mode_proposals import (
    ModeProposalsSettings,
    SelectionSettings,
    single_label,
)
from ambiseg.methods.mode_proposals.energy import energy_loss
from ambiseg.methods.mode_proposals.model import ModeProposals
from ambiseg.methods.mode_proposals.selection import positive_unlabelled_risk
from ambiseg.methods.mode_proposals.single_label import LEAST_COUNTED_PROBABILITY, importance, propensity
from ambiseg.nested_settings import merged, replaced
from ambiseg.networks.settings import UNetSettings
from ambiseg.overlap import pairwise_overlap

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(3)
M = 4


def make(labels=BINARY, seed=0, **settings):
    torch.manual_seed(seed)
    values = {"proposals": M, "selection": {"head_width": 8}}
    for path, value in settings.items():  # "selection__weight" is the weight in the settings of the selection
        part, _, name = path.partition("__")
        values = merged(values, {part: {name: value}} if name else {part: value})
    chosen = replaced(ModeProposalsSettings(), values, "settings")
    return ModeProposals(3, labels, UNetSettings(width=8, depth=2), chosen)


def batch(labels=BINARY, n=3, seed=0, size=8, count=2):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, size, size, generator=g)
    masks = torch.randint(labels.classes, (count, n, size, size), generator=g).to(torch.uint8)
    weights = torch.rand(count, n, generator=g) + 0.1
    return images, MaskSet(masks, weights / weights.sum(1, keepdim=True), labels)


def outputs(model, images):
    """Logits, score logits, probability logits as float64 numpy."""
    with torch.no_grad():
        return [None if value is None else value.double().numpy() for value in model(images)]


def losses(model, images, annotations):
    """The named losses as plain numbers."""
    return {name: value.item() for name, value in model.loss(images, annotations).items()}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def mask_loss(kind, z, y, labels):
    """One proposal ``(C, H, W)`` against one label map ``(H, W)``."""
    if labels.is_binary:
        m, target = sigmoid(z), (y == 1)[None]
        q = np.where(y == 1, m[0], 1 - m[0])
    else:
        m = np.exp(z) / np.exp(z).sum(0)
        target = np.stack([y == c for c in range(labels.classes)])
        q = (m * target).sum(0)
    if kind == "mse":
        return ((m - target) ** 2).mean()
    if kind == "signed-mse":
        return ((z - (2.0 * target - 1)) ** 2).mean()
    dice = np.mean(
        [1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(m, target, strict=True)]
    )
    return dice if kind == "dice" else dice + ((1 - q) ** 2 * -np.log(q)).mean()


def bce(z, target):
    """Cross-entropy of a score with the logit z."""
    return -math.log(sigmoid(z)) if target else -math.log(1 - sigmoid(z))


def log_softmax(z):
    return z - np.log(np.exp(z).sum())


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
@pytest.mark.parametrize("kind", ["mse", "signed-mse", "dice", "dice-focal"])
def test_full_labels_by_hand(kind, labels):
    """Equations 5 to 8, matching by trying every permutation, and the cross-entropy of the probabilities."""
    model = make(labels, mask_loss=kind, selection__weight=0.3, probability__weight=0.7)
    images, annotations = batch(labels)
    logits, scores, probability = outputs(model, images)
    mask, selection, likelihood = [], [], []
    for b in range(len(images)):
        ys = annotations.masks[b].numpy()
        cost = [[mask_loss(kind, z, y, labels) for y in ys] for z in logits[b]]
        best = min(permutations(range(M), 3), key=lambda a: sum(cost[k][i] for i, k in enumerate(a)))
        mask.append(sum(cost[k][i] for i, k in enumerate(best)) / 3)
        selection.append(sum(bce(scores[b, k], k in best) for k in range(M)) / M)
        logp = log_softmax(probability[b])
        likelihood.append(-sum(float(annotations.weights[b, i]) * logp[k] for i, k in enumerate(best)))
    found = losses(model, images, annotations)
    assert found["mask"] == pytest.approx(np.mean(mask), rel=1e-5)
    assert found["selection"] == pytest.approx(np.mean(selection), rel=1e-5)
    assert found["probability"] == pytest.approx(np.mean(likelihood), rel=1e-5)
    expected = np.mean(mask) + 0.3 * np.mean(selection) + 0.7 * np.mean(likelihood)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("pu", ["clamp", "kiryo"])
@pytest.mark.parametrize("sure", [False, True])
def test_single_labels_by_hand(pu, sure):
    """Equations 9 to 12; where scores are sure of the winners, the negative risk is below 0."""
    prior = 0.4
    model = make(
        selection__expected_modes=prior * M,
        selection__gradient=pu,
        selection__weight=0.3,
        probability__weight=0.7,
    )
    images, annotations = batch(n=1)
    if sure:
        cost = pairwise_mask_loss("dice-focal", model(images)[0], annotations.masks, BINARY)[..., 0]
        with torch.no_grad():
            model.sel.sel.out.bias[:M] = torch.full((M,), -3.0).index_fill(0, cost.argmin(1), 3.0)
    logits, scores, probability = outputs(model, images)
    cost = np.array([[mask_loss("dice-focal", z, y[0], BINARY) for z in zs] for zs, y in
                     zip(logits, annotations.masks.numpy(), strict=True)])  # fmt: skip
    winner, images_of = cost.argmin(1), range(len(images))
    positive = np.mean([bce(scores[b, winner[b]], 1) for b in images_of])
    as_negative = np.mean([bce(scores[b, winner[b]], 0) for b in images_of])
    others = [bce(scores[b, k], 0) for b in images_of for k in range(M) if k != winner[b]]
    negative = np.sum(others) / (len(images) * (M - 1)) - prior * as_negative
    assert (negative < 0) == sure
    selection = prior * positive + max(0, negative)
    if pu == "kiryo" and negative < 0:
        selection = -negative
    likelihood = -np.mean([log_softmax(probability[b])[winner[b]] for b in images_of])
    found = losses(model, images, annotations)
    assert found["mask"] == pytest.approx(cost.min(1).mean(), rel=1e-5)
    assert found["selection"] == pytest.approx(selection, rel=1e-4)
    assert found["probability"] == pytest.approx(likelihood, rel=1e-5)
    total = cost.min(1).mean() + 0.3 * selection + 0.7 * likelihood
    assert found["loss"] == pytest.approx(total, rel=1e-4)


def test_where_the_negative_risk_is_negative_only_kiryo_goes_back():
    """Scores of the losers: clamp leaves them alone, Kiryo et al. raise them until the risk is 0 again."""
    scores = torch.tensor([[2.0, -4.0, -4.0, -4.0]])
    won = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    gradient = {}
    for pu in ("clamp", "kiryo"):
        leaf = scores.clone().requires_grad_()
        settings = SelectionSettings(gradient=pu)
        positive_unlabelled_risk(leaf, won, settings).backward()
        gradient[pu] = leaf.grad[0]
    assert gradient["clamp"][0] < 0 and (gradient["clamp"][1:] == 0).all()
    assert (gradient["kiryo"][1:] < 0).all() and gradient["kiryo"][0] > 0


def test_where_it_is_positive_both_variants_agree():
    scores, won = torch.tensor([[-1.0, 1.0, 2.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    values = [
        positive_unlabelled_risk(scores, won, make(selection__gradient=pu).settings.selection)
        for pu in ("clamp", "kiryo")
    ]
    assert values[0] == values[1]


def test_inverse_propensities_weigh_every_mode_alike():
    """Modes of probability 1/2, 1/4, 1/4, drawn in these shares, pi = N / M: mask loss and positives are
    means over modes."""
    drawn = torch.tensor([0, 0, 1, 2])
    masks = torch.eye(4, dtype=torch.uint8)[None, :3, :, None]
    logits = 4 * torch.eye(M)[None, :, None, :, None].expand(4, -1, -1, -1, -1)
    model = make(inverse_propensity_power=1.0, selection__gradient="clamp", selection__expected_modes=3.0)
    with torch.no_grad():
        cost = pairwise_mask_loss("dice-focal", logits[:1], masks, BINARY)[0]
        winner = cost.argmin(0)
        assert len(set(winner.tolist())) == 3
        chance = torch.full((1, M), 1e-9).index_put(
            (torch.tensor([0]), winner), torch.tensor([0.5, 0.25, 0.25])
        )
        scores = torch.randn(1, M).expand(4, -1)
        found = model._single_label_loss(
            cost.T[drawn], logits, masks[0, drawn, None], scores, chance.log().expand(4, -1)
        )
    assert float(found["mask"]) == pytest.approx(float(cost.amin(0).mean()), rel=1e-5)
    positive = functional.softplus(-scores[0, winner]).mean()
    as_negative = functional.softplus(scores[0, winner]).mean()
    others = torch.stack(
        [functional.softplus(scores[0, k]) for i in drawn for k in range(M) if k != winner[i]]
    )
    expected = 3 / M * positive + (others.mean() - 3 / M * as_negative).clamp(min=0)
    assert float(found["selection"]) == pytest.approx(float(expected), rel=1e-5)


def test_a_winner_without_probability_is_balanced_as_if_it_had_a_little():
    winner, chance = torch.tensor([[0], [1]]), torch.tensor([[-90.0, 0.0, -90.0, -90.0]] * 2).softmax(1)
    assert propensity(winner, chance, 0.0) is None
    found = propensity(winner, chance, 1.0)
    assert found.flatten().tolist() == pytest.approx([LEAST_COUNTED_PROBABILITY, 1.0])
    weight = importance(found, 0.5)
    assert float(weight[0] / weight[1]) == pytest.approx(LEAST_COUNTED_PROBABILITY**-0.5)
    assert float(weight.mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("asked", [{"inverse_propensity_power": 0.5}, {"competition__start": 0.7}])
def test_what_needs_probabilities_is_refused_without_them(asked):
    with pytest.raises(AmbisegError, match="need the probability head"):
        make(probability=None, **asked)


@pytest.mark.parametrize("n", [1, 3])
def test_the_energy_score_joins_after_its_start_and_bends_masks_and_probabilities(n):
    images, annotations = batch(n=n)
    plain, model = losses(make(), images, annotations), make(energy__weight=2.0, energy__start=0.5)
    model.progress = 0.4
    assert losses(model, images, annotations) == plain
    model.progress = 0.5
    found = losses(model, images, annotations)
    logits, _, probability = model(images)
    energy = energy_score((logits > 0).float(), probability.softmax(1), annotations).mean().item()
    assert found["energy"] == pytest.approx(energy, rel=1e-5)
    assert found["loss"] == pytest.approx(plain["loss"] + 2 * energy, rel=1e-5)
    # A spread above 1 parts the masks: probabilities of masks that are decided alike have no gradient.
    alone = make(energy__weight=1e6, probability__weight=0.0, selection__weight=0.0, head_init_jitter=3.0)
    alone.loss(images, annotations)["loss"].backward()
    for part in (alone.h, alone.sel):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


@pytest.mark.parametrize("n", [1, 3])
def test_the_mask_loss_has_another_weight_beside_the_energy_score(n):
    images, annotations = batch(n=n)
    whole, less = (
        losses(make(energy__weight=1.0, energy__mask_loss_weight=w), images, annotations) for w in (1.0, 0.3)
    )
    assert whole["loss"] - less["loss"] == pytest.approx(0.7 * whole["mask"], rel=1e-5)


@pytest.mark.parametrize("target", ["masks", "probabilities"])
def test_the_energy_score_trains_what_it_is_asked_to(target):
    images, annotations = batch()

    def gradients(**settings):
        model = make(selection__weight=0.0, probability__weight=0.0, energy__uniform_share=0.0, **settings)
        model.loss(images, annotations)["loss"].backward()
        return {name: p.grad for name, p in model.named_parameters()}

    without, one, both = (
        gradients(energy__weight=0.0),
        gradients(energy__weight=1.0, energy__trains=target),
        gradients(energy__weight=1.0),
    )
    for name, gradient in one.items():
        expected = both if name.startswith("sel") == (target == "probabilities") else without
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize(
    "asked, copies",
    [({}, M), ({"energy__reserved_proposals": 1}, M - 1), ({"energy__mask_loss_weight": 0.0}, 0)],
)
def test_heads_that_the_energy_score_alone_trains_start_on_their_own(asked, copies):
    heads = make(energy__weight=1.0, **asked).h.weight.detach().flatten(1)
    alike = functional.cosine_similarity(heads[:, None], heads, dim=2) > 0.999
    assert alike.sum() == copies**2 + M - copies


@pytest.mark.parametrize("n", [1, 3])
def test_proposals_of_the_energy_score_win_nothing_and_alone_learn_from_it(n):
    """The heads of the winner loss have its gradient as if there were no others, the others that of the
    energy score."""
    images, annotations = batch(n=n)
    alone = dict(selection__weight=0.0, probability__weight=0.0)
    energy_alone = {**alone, "energy__weight": 1.0, "energy__uniform_share": 0.0}
    e = 1 if n == 3 else 2  # as many winners as modes at least
    split = make(energy__reserved_proposals=e, **energy_alone)
    winners = make(proposals=M - e, **alone)
    energy = make(energy__mask_loss_weight=0.0, **energy_alone)
    energy.load_state_dict(split.state_dict())
    winners.g.load_state_dict(split.g.state_dict())
    for ours, theirs in zip(winners.h.parameters(), split.h.parameters(), strict=True):
        ours.data.copy_(theirs.data[: M - e])
    for model in (split, winners, energy):
        model.loss(images, annotations)["loss"].backward()
    torch.testing.assert_close(split.h.weight.grad[: M - e], winners.h.weight.grad, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        split.h.weight.grad[M - e :], energy.h.weight.grad[M - e :], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("floor", [0.0, 0.3, 1.0])
def test_masks_learn_at_probabilities_that_have_a_floor(floor):
    images, annotations = batch()
    model = make(energy__weight=1.0, energy__uniform_share=floor, energy__trains="masks")
    logits, _, chance = model(images)
    logits, p = logits.detach().requires_grad_(), chance.softmax(1).detach()
    found = energy_loss(logits.sigmoid(), annotations, chance, model.settings.energy)
    decided = (logits > 0).float()
    assert found.item() == pytest.approx(energy_score(decided, p, annotations).mean().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, logits)
    score = energy_score(logits.sigmoid(), (1 - floor) * p + floor / M, annotations).mean()
    torch.testing.assert_close(gradient, torch.autograd.grad(score, logits)[0])


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("case", ["one proposal", "identical", "empty", "collapsed"])
def test_the_energy_score_of_degenerate_sets_trains_on(n, case):
    images, annotations = batch(n=n)
    model = make(energy__weight=1.0, proposals=1 if case == "one proposal" else M, head_init_jitter=0.0)
    if case == "empty":
        annotations.masks[:] = 0
    if case == "collapsed":
        images = images * 1e4  # the heads' logits grow with the image
    found = model.loss(images, annotations)
    found["loss"].backward()
    assert all(torch.isfinite(value) for value in found.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "asked, why",
    [
        ({"energy__reserved_proposals": M, "energy__weight": 1.0}, "not all: received 4"),
        (
            {"energy__reserved_proposals": 2, "energy__weight": 1.0, "assignment": {"kind": "relaxed"}},
            "lets all proposals learn",
        ),
        (
            {"energy__weight": 1.0, "energy__trains": "probabilities", "probability": None},
            "probability head",
        ),
    ],
)
def test_settings_of_the_energy_score_that_contradict_are_refused(asked, why):
    with pytest.raises(AmbisegError, match=why):
        make(**asked)


@pytest.mark.parametrize("n", [1, 3])
def test_the_total_is_the_weighted_sum(n):
    images, annotations = batch(n=n)
    parts = losses(make(), images, annotations)
    for selection, probability in [(0.0, 0.0), (0.01, 0.1), (2.0, 3.0)]:
        model = make(selection__weight=selection, probability__weight=probability)
        expected = parts["mask"] + selection * parts["selection"] + probability * parts["probability"]
        assert losses(model, images, annotations)["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n", [1, 3])
def test_heads_never_bend_the_masks(n):
    """Network and mask head get the same gradient whatever the heads' weight; at 0 the heads get none."""
    images, annotations = batch(n=n)

    def gradients(weight):
        model = make(selection__weight=weight, probability__weight=weight)
        model.loss(images, annotations)["loss"].backward()
        return {name: p.grad for name, p in model.named_parameters()}

    without, heavy = gradients(0.0), gradients(100.0)
    for name, gradient in heavy.items():
        if name.startswith("sel."):
            assert gradient.abs().sum() > 0 and (without[name] == 0).all(), name
        else:
            torch.testing.assert_close(gradient, without[name], rtol=1e-4, atol=1e-6)


def test_without_probability_head():
    model, (images, annotations) = make(probability=None), batch()
    with torch.no_grad():
        found = model.predict(images)
    assert torch.equal(found.weights, torch.full((2, M), 1 / M)) and found.scores is not None
    assert model.sel.sel.out.out_features == M and make().sel.sel.out.out_features == 2 * M
    assert set(model.loss(images, annotations)) == {"loss", "mask", "selection"}


def test_probabilities_stay_above_zero():
    model = make()
    with torch.no_grad():
        model.sel.sel.out.bias[M] = 200.0
        found = model.predict(batch()[0]).validate()
    assert (found.weights > 0).all() and (found.weights[:, 0] > 0.999).all()


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_heads_start_as_scaled_copies(labels):
    """Appendix A.2: one convolution repeated, each copy scaled by a factor within the spread."""
    spread, channels = 0.2, labels.channels
    model = make(labels, head_init_jitter=spread)
    weights = model.h.weight.detach().reshape(M, -1)
    biases = model.h.bias.detach().reshape(M, channels)
    ratios = torch.cat([weights, biases], 1) / torch.cat([weights, biases], 1)[:1]
    torch.testing.assert_close(ratios, ratios[:, :1].expand_as(ratios))
    factors = ratios[:, 0]
    assert len(set(factors.tolist())) == M
    assert factors.max() / factors.min() <= (1 + spread) / (1 - spread) + 1e-6
    same = make(labels, head_init_jitter=0.0).h.weight.detach().reshape(M, -1)
    assert torch.equal(same, same[:1].expand_as(same))


def test_every_weight_of_the_heads_may_have_its_own_factor():
    """Appendix A.2: each weight is scaled; factors are within the spread, and no two are equal."""
    spread = 0.2
    model = make(head_init_jitter=spread, head_init_scales="per-weight")
    torch.manual_seed(0)
    first = make(head_init_jitter=0.0).h.weight.detach()[0].flatten()
    ratios = model.h.weight.detach().reshape(M, -1) / first
    assert ((ratios - 1).abs() <= spread + 1e-5).all()
    assert len(ratios.flatten().round(decimals=6).unique()) > 0.95 * ratios.numel()
    assert float(ratios.std()) == pytest.approx(spread / 3**0.5, rel=0.1)


@pytest.mark.parametrize("n", [1, 3], ids=["single", "full"])
def test_the_selection_loss_reaches_network_and_masks_where_asked_for(n):
    """The gradient is that of equation (8): of the mask loss and lambda times that of the selection loss."""
    images, annotations = batch(n=n)

    def gradients(**selection):
        model = make(probability=None, **{f"selection__{key}": value for key, value in selection.items()})
        model.loss(images, annotations)["loss"].backward()
        return model.g.stem.weight.grad, model.h.weight.grad

    alone = gradients(weight=0.0)
    beside = gradients(weight=0.5)
    whole, twice = gradients(weight=0.5, reaches_network=True), gradients(weight=1.0, reaches_network=True)
    for mask, detached, reached, double in zip(alone, beside, whole, twice, strict=True):
        torch.testing.assert_close(detached, mask)
        assert (reached - mask).abs().max() > 1e-5
        torch.testing.assert_close(double - mask, 2 * (reached - mask), rtol=1e-3, atol=1e-7)


def test_half_of_the_proposals_are_expected_modes_unless_told_otherwise():
    scores, won = torch.randn(3, M, generator=torch.Generator().manual_seed(0)), torch.eye(M)[:3]

    def risk(expected):
        settings = SelectionSettings(expected_modes=expected)
        return positive_unlabelled_risk(scores, won, settings)

    assert risk(None) == risk(M / 2) != risk(1.0)
    assert risk(3.0 * M) == risk(float(M))


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_signed_outputs_are_masks_from_minus_one_to_one(labels):
    """Decided at 0 as logits are; a pixel's probability is half of the output plus one."""
    torch.manual_seed(1)
    model = make(labels, mask_loss="signed-mse")
    images, _ = batch(labels)
    outputs = model(images)[0].detach()
    predicted = model.predict(images)
    decided = outputs[:, :, 0] > 0 if labels.is_binary else outputs.argmax(2)
    assert torch.equal(predicted.masks, decided.to(torch.uint8))
    pixels = (
        model._pixels(torch.tensor([-3.0, 0.0, 0.5, 2.0]).view(1, 1, 1, 2, 2)) if labels.is_binary else None
    )
    if pixels is not None:
        assert pixels.flatten().tolist() == [0.0, 0.5, 0.75, 1.0]


def test_order_of_annotations_does_not_matter():
    model, (images, annotations) = make(), batch()
    expected = losses(model, images, annotations)
    for order in permutations(range(3)):
        other = annotations.gather(torch.tensor([order, order]))
        assert losses(model, images, other) == pytest.approx(expected, rel=1e-6)


def shares(model, cost):
    """Who learns how much, with arbitrary probabilities of the proposals."""
    won = torch.zeros_like(cost).scatter(1, cost.argmin(1, keepdim=True), 1.0)
    return single_label.shares(cost, won, model.settings.assignment, model.progress)


def competition_of(model):
    """The competition, if it has begun."""
    competition = model.settings.competition
    return competition if model.progress >= competition.start else None


def winner_of(model, cost, probability):
    """Who learns from each mask."""
    return single_label.winner(cost, probability.softmax(1), competition_of(model))


def target_of(model, cost, won, probability):
    """What the probability head learns."""
    return single_label.probability_target(cost, won, probability.softmax(1), competition_of(model))


@pytest.mark.parametrize("sharing", ["closest", "relaxed", "annealed"])
def test_shares_of_a_mask_sum_to_one(sharing):
    cost = torch.rand(5, M, generator=torch.Generator().manual_seed(1))
    model = make(assignment={"kind": sharing})
    for model.progress in (0.0, 0.3, 0.6, 1.0):
        found = shares(model, cost)
        assert (found >= 0).all() and found.sum(1).allclose(torch.ones(5))


def test_annealed_sharing_becomes_winner():
    """Shares of the winner only grow; from half the training on the loss is that of the winner alone."""
    images, annotations = batch(n=1)
    cost = torch.rand(5, M, generator=torch.Generator().manual_seed(1))
    annealed, winner = (
        make(assignment={"kind": "annealed"}),
        make(assignment={"kind": "closest"}),
    )
    top = []
    for annealed.progress in (0.0, 0.2, 0.4, 0.49, 0.5, 0.9, 1.0):
        found = shares(annealed, cost)
        assert torch.equal(found.argmax(1), cost.argmin(1))
        top.append(found.amax(1))
    assert all((b >= a).all() for a, b in zip(top, top[1:], strict=False))
    assert (top[-3] == 1).all()
    goal = losses(winner, images, annotations)
    assert losses(annealed, images, annotations) == goal
    annealed.progress = 0.0
    assert losses(annealed, images, annotations)["mask"] > goal["mask"]


def test_relaxed_sharing_by_hand():
    epsilon = 0.3
    images, annotations = batch(n=1)
    model = make(assignment={"kind": "relaxed", "share_of_others": epsilon})
    logits = outputs(model, images)[0]
    expected = []
    for z, y in zip(logits, annotations.masks.numpy(), strict=True):
        cost = np.sort([mask_loss("dice-focal", one, y[0], BINARY) for one in z])
        expected.append((1 - epsilon) * cost[0] + epsilon * cost[1:].mean())
    assert losses(model, images, annotations)["mask"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_more_modes_than_proposals():
    """The M cheapest disjoint pairs learn, all proposals count as matched, probabilities are renormalised."""
    model, (images, annotations) = make(proposals=2), batch(n=3)
    logits, scores, probability = outputs(model, images)
    mask, likelihood = [], []
    for b in range(2):
        ys, w = annotations.masks[b].numpy(), annotations.weights[b].double().numpy()
        cost = [[mask_loss("dice-focal", z, y, BINARY) for y in ys] for z in logits[b]]
        i, j = min(permutations(range(3), 2), key=lambda a: cost[0][a[0]] + cost[1][a[1]])
        mask.append((cost[0][i] + cost[1][j]) / 2)
        likelihood.append(-np.dot([w[i], w[j]], log_softmax(probability[b])) / (w[i] + w[j]))
    found = losses(model, images, annotations)
    assert found["mask"] == pytest.approx(np.mean(mask), rel=1e-5)
    assert found["selection"] == pytest.approx(np.mean([bce(z, 1) for z in scores.ravel()]), rel=1e-5)
    assert found["probability"] == pytest.approx(np.mean(likelihood), rel=1e-5)


def test_one_proposal():
    model = make(proposals=1, assignment={"kind": "relaxed"})
    for n in (1, 3):
        assert all(math.isfinite(value) for value in losses(model, *batch(n=n)).values())


def test_samples_are_the_proposals_of_highest_score():
    model, images = make(), batch()[0]
    with torch.no_grad():
        every, two = model.predict(images), model.predict(images, 2)
    best = every.scores.argsort(1, descending=True)[:, :2]
    assert torch.equal(two.masks, every.gather(best).masks)
    torch.testing.assert_close(two.weights, every.gather(best).normalised().weights)


def test_competition_is_the_assignment_of_classification_em():
    """Closest: 0, 0, 1. With tau = .1 and log-odds of log 4 the second wins where it is behind by less than
    .1 log 4 = .139."""
    cost = torch.tensor([[0.10, 0.23, 0.9], [0.10, 0.25, 0.9], [0.30, 0.20, 0.9], [0.9, 0.9, 0.2]])
    probability = torch.tensor([0.2, 0.8, 0.0]).log().expand(4, 3)
    model = make(competition__start=0.5, competition__temperature=0.1, proposals=3)
    model.progress = 0.4
    assert winner_of(model, cost, probability).flatten().tolist() == cost.argmin(1).tolist()
    model.progress = 0.5
    assert winner_of(model, cost, probability).flatten().tolist() == [1, 0, 1, 2]
    alone = torch.tensor([0.0, 0.0, 1.0]).log().expand(4, 3)
    bound = [0.1 * math.log(1000)] * 4  # the handicap of a proposal that never won is limited
    far = torch.where(
        torch.arange(3) < 2, cost, cost[:, :2].amin(1, keepdim=True) + torch.tensor(bound)[:, None] + 0.01
    )
    assert winner_of(model, far, alone).flatten().tolist() == cost[:, :2].argmin(1).tolist()


def test_the_posterior_shares_a_mask_by_likelihood_and_probability():
    """Equal losses: the probabilities themselves; loss behind by tau log 4 and four times as probable:
    halves; none: nothing."""
    tau = 0.1
    cost = torch.tensor([[0.3, 0.3, 0.3], [0.2, 0.2 + tau * math.log(4), 9.0], [0.2, 0.2, torch.inf]])
    probability = torch.tensor([[0.2, 0.3, 0.5], [0.2, 0.8, 0.0], [0.5, 0.25, 0.25]]).log()
    won = torch.eye(3)
    model = make(
        competition__start=0.5,
        competition__temperature=tau,
        competition__probability_target="posterior",
        proposals=3,
    )
    model.progress = 0.4
    assert torch.equal(target_of(model, cost, won, probability), won)
    model.progress = 0.5
    expected = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0], [2 / 3, 1 / 3, 0.0]])
    torch.testing.assert_close(target_of(model, cost, won, probability), expected, atol=1e-5, rtol=0)
    winner = make(competition__start=0.0, competition__temperature=tau, proposals=3)
    assert torch.equal(target_of(winner, cost, won, probability), won)


def test_a_competition_needs_a_temperature_above_0():
    with pytest.raises(AmbisegError, match="competition.temperature is above 0, received 0.0"):
        make(competition__temperature=0.0)


def test_the_loss_lets_duplicates_compete_from_the_start_that_is_set():
    """One temperature so high that only probabilities count: from ``start`` on the most probable wins."""
    images, annotations = batch(n=1)
    model = make(competition={"start": 0.5, "temperature": 1e9}, selection__weight=0.0)
    logits, _, probability = outputs(model, images)
    cost = np.array(
        [
            [mask_loss("dice-focal", z, y[0], BINARY) for z in one]
            for one, y in zip(logits, annotations.masks.numpy(), strict=True)
        ]
    )
    most_probable = cost[np.arange(len(images)), probability.argmax(1)].mean()
    for model.progress, expected in ((0.49, cost.min(1).mean()), (0.5, most_probable)):
        assert losses(model, images, annotations)["mask"] == pytest.approx(expected, rel=1e-5)
    assert most_probable > cost.min(1).mean()


def test_score_cost_breaks_ties_for_the_higher_score_only():
    """Copies of one proposal tie: the one with the higher score is matched; a large loss is never
    outweighed."""
    model, (images, annotations) = make(head_init_jitter=0.0, matching_score_weight=0.1), batch(n=1)
    annotations = annotations.padded(2)
    logits, scores, _ = outputs(model, images)
    cost = np.array(
        [
            [mask_loss("dice-focal", z, y[0], BINARY) for z in one]
            for one, y in zip(logits, annotations.masks.numpy(), strict=True)
        ]
    )
    assert np.ptp(cost, axis=1).max() < 1e-6
    matched = scores.argmax(1)
    target = np.zeros_like(scores)
    target[np.arange(2), matched] = 1
    expected = np.mean([bce(z, t) for z, t in zip(scores.ravel(), target.ravel(), strict=True)])
    assert losses(model, images, annotations)["selection"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_the_duplicate_cue_is_the_closeness_of_every_two_proposals(labels):
    model, (images, annotations) = make(labels, selection__duplicate_cue=True), batch(labels)
    masks = model.predict(images).masks
    iou = pairwise_overlap(masks, masks, labels).iou()
    closeness = model.sel._closeness(labels.probabilities(model(images)[0], dim=2))
    torch.testing.assert_close(closeness, (1.01 - iou).log() / math.log(0.01), atol=1e-5, rtol=0)
    torch.testing.assert_close(closeness.diagonal(dim1=1, dim2=2), torch.ones(2, masks.shape[1]))
    model.loss(images, annotations)["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.sel.duplicates.parameters())


def test_the_duplicate_cue_reaches_the_heads_and_bends_no_mask():
    model, (images, annotations) = make(selection__duplicate_cue=True), batch()
    _, scores, _ = outputs(model, images)
    model.sel.duplicates.out.bias.data += 1
    np.testing.assert_allclose(outputs(model, images)[1], scores + 1, atol=1e-5)
    plain = make()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".duplicates." not in k})
    for one in (model, plain):
        one.loss(images, annotations)["loss"].backward()
    for a, b in zip(model.g.parameters(), plain.g.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert make(selection__duplicate_cue=True, proposals=1).sel.duplicates is None
