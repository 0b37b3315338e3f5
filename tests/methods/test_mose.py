"""MoSE: costs and loss as plain loops give them, a gating network that learns what experts received, weights
that add up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from ambiseg import memory_budget
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.energy_score import energy_score
from ambiseg.maskset import MaskSet
from ambiseg.methods.mose import MixtureEnergySettings, MoSESettings
from ambiseg.methods.mose import model as mose
from ambiseg.methods.mose.model import MoSE, codes, divergence, pairwise_cost
from ambiseg.networks.settings import BatchNormSettings, UNetSettings
from model_helpers import perturbed

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)
SPACES = pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
SMALL = UNetSettings(width=8, depth=3)


def make(labels=BINARY, backbone=SMALL, **settings):
    """A model whose gating network has an opinion."""
    torch.manual_seed(0)
    model = MoSE(3, labels, backbone, MoSESettings(**{"gating_width": 8, **settings}))
    if model.gating is not None:
        torch.nn.init.normal_(model.gating[-1].bias)
    return model


def annotated(labels=BINARY, count=3, masks=4, size=8):
    """Random masks with void pixels and unequal weights; the first image has one mask fewer."""
    g = torch.Generator().manual_seed(1)
    y = torch.randint(0, labels.classes, (count, masks, size, size), generator=g).to(torch.uint8)
    y[:, 1, :2] = 255
    v = torch.rand(count, masks, generator=g) + 0.1
    v[0, -1], y[0, -1] = 0, 255
    return torch.randn(count, 3, size, size, generator=g), MaskSet(y, v / v.sum(1, keepdim=True), labels)


def test_the_energy_score_of_the_compact_set_is_added():
    images, annotations = annotated()
    torch.manual_seed(1)
    plain = make(stochastic=False).loss(images, annotations)
    model = make(stochastic=False, energy=MixtureEnergySettings(2.0, "dice"), samples=4)
    found = model.loss(images, annotations)
    pi = model.expert_probabilities(images)
    encoded, u, _ = model._encoded(images)
    masks = BINARY.probabilities(
        model._logits(encoded, u, model.latents(torch.arange(4).expand(3, -1))), dim=2
    )
    energy = energy_score((masks > 0.5).float(), pi, annotations, "dice").mean()
    torch.testing.assert_close(found["energy"], energy.detach())
    torch.testing.assert_close(found["loss"], plain["loss"] + 2 * energy)


# -- costs ---------------------------------------------------------------------------------------------------


def iou_cost(p, y, labels):
    """One sample ``(C, H, W)`` against one annotation."""
    valid, costs = y != 255, []
    for c in range(1, labels.classes):
        soft, hard = p[0 if labels.is_binary else c][valid], (y[valid] == c).float()
        inter = (soft * hard).sum()
        costs.append(1 - (inter + 1) / (soft.sum() + hard.sum() - inter + 1))
    return torch.stack(costs).mean()


@SPACES
@pytest.mark.parametrize("void", [False, True])
def test_the_costs_equal_a_loop_over_pairs(labels, void):
    _, annotations = annotated(labels)
    y = annotations.masks if void else annotations.masks.where(annotations.masks != 255, 0)
    logits = 2 * torch.randn(3, 5, labels.channels, 8, 8)
    p = labels.probabilities(logits, dim=2)
    iou, nats = (pairwise_cost(kind, logits, y, labels) for kind in ("iou", "cross-entropy"))
    for b in range(3):
        for j in range(4):
            pixels = max(1, int((y[b, j] != 255).sum()))
            for i in range(5):
                torch.testing.assert_close(iou[b, i, j], iou_cost(p[b, i], y[b, j], labels))
                expected = labels.cross_entropy(logits[b, i][None], y[b, j][None]).sum() / pixels
                torch.testing.assert_close(nats[b, i, j], expected)


def test_the_soft_iou_of_hard_masks_is_their_iou_up_to_the_smoothing():
    _, annotations = annotated(size=64)
    y = annotations.masks[1:, 2:]
    cost = pairwise_cost("iou", 200 * (y[:, :, None].float() - 0.5), y, BINARY)
    assert cost[0].diagonal().abs().max() < 1e-5
    a, b = y[0, 0] == 1, y[0, 1] == 1
    assert float(cost[0, 0, 1]) == pytest.approx(1 - float((a & b).sum() / (a | b).sum()), abs=1e-3)


# -- the loss of the gating network --------------------------------------------------------------------------


def test_the_divergence_is_that_of_torch():
    received, log_pi = torch.rand(7, 5), torch.randn(7, 5).log_softmax(1)
    received /= received.sum(1, keepdim=True)
    expected = kl_divergence(Categorical(received), Categorical(logits=log_pi))
    torch.testing.assert_close(divergence(received, log_pi), expected)
    groups = torch.tensor([[0, 1, 0, 3, 1]]).expand(7, -1)
    sums = [
        torch.stack([x[:, [0, 2]].sum(1), x[:, [1, 4]].sum(1), x[:, 3]], 1) for x in (received, log_pi.exp())
    ]
    expected = kl_divergence(Categorical(sums[0]), Categorical(sums[1]))
    torch.testing.assert_close(divergence(received, log_pi, groups), expected)


def test_totals_of_experts_have_the_gradient_of_the_samples():
    """Equation 6 is over samples of weight ``pi_k / S``; what differs is a number that does not depend on
    pi."""
    o = torch.rand(3, 4, 5)
    o /= o.sum((1, 2), keepdim=True)
    z = torch.randn(3, 4, requires_grad=True)
    log_pi = z.log_softmax(1)
    samples = (o * (o.log() - (log_pi - math.log(5))[..., None])).sum((1, 2))
    (whole,) = torch.autograd.grad(samples.sum(), z, retain_graph=True)
    (found,) = torch.autograd.grad(divergence(o.sum(2), log_pi).sum(), z)
    torch.testing.assert_close(found, whole)


def test_merged_experts_share_the_soft_gradient_of_algorithm_2():
    u = torch.tensor([[0.1, 0.2, 0.3, 0.4]], requires_grad=True)
    o = torch.tensor([[0.5, 0.1, 0.0, 0.4]])
    (found,) = torch.autograd.grad(divergence(o, u.log(), torch.tensor([[0, 1, 0, 3]])).sum(), u)
    together = -(0.5 + 0.0) / (0.1 + 0.3)
    torch.testing.assert_close(found, torch.tensor([[together, -0.5, together, -1.0]]))


def test_the_gating_network_learns_what_the_experts_received():
    torch.manual_seed(0)
    received, z = (
        torch.tensor([[0.5, 0.2, 0.3, 0.0], [0.25, 0.25, 0.1, 0.4]]),
        torch.zeros(2, 4, requires_grad=True),
    )
    optimiser = torch.optim.Adam([z], 0.1)
    for _ in range(300):
        optimiser.zero_grad()
        divergence(received, z.log_softmax(1)).sum().backward()
        optimiser.step()
    torch.testing.assert_close(z.softmax(1), received, atol=2e-3, rtol=0)


def test_identical_experts_are_merged_and_others_are_not():
    model = make(MULTI, merge_threshold=0.9)
    logits = 5 * torch.randn(2, 8, 4, 8, 8)
    logits[:, 4:6] = logits[:, 0:2]
    assert model._groups(logits, 2).tolist() == [[0, 1, 0, 3]] * 2
    assert make()._groups(logits, 2) is None


# -- experts -------------------------------------------------------------------------------------------------


def test_one_batch_is_a_loop_over_experts():
    experts = mose.Experts(6, 6, 3, 2)
    u, z = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 3)
    together = experts(u, z).view(2, 4, 2, 5, 7)
    for n in range(4):
        shift, scale = experts.shift(z[:, n]), experts.scale(z[:, n])
        alone = experts.head((u + shift[..., None, None]) * scale[..., None, None])
        torch.testing.assert_close(together[:, n], alone, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        experts.head(experts.fuse(u, z)).view_as(together), together, atol=1e-5, rtol=1e-4
    )


def test_normalised_experts_are_the_layers_of_the_public_code_one_by_one():
    """A convolution that adds the latent's channels, three with batch normalisation and ReLU, a last one."""
    torch.manual_seed(0)
    norm = BatchNormSettings(eps=1e-3, momentum=0.01)
    experts = perturbed(mose.NormalisedExperts(6, 6, 3, 2, norm)).train()
    u, z = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 3)
    x = experts.first(experts.fuse(u, z))
    assert x.shape == (8, 6 + 3, 5, 7)
    for i in (0, 3, 6):
        x = experts.rest[i](x)
        mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        weight, bias = (p.detach()[:, None, None] for p in experts.rest[i + 1].parameters())
        x = ((x - mean) / (variance + 1e-3).sqrt() * weight + bias).relu()
    torch.testing.assert_close(experts(u, z), experts.rest[9](x), atol=1e-5, rtol=1e-4)
    assert len(experts.rest) == 10


def test_latents_follow_the_priors_of_their_experts():
    model = make(experts=3, latent_size=2)
    with torch.no_grad():
        model.m.copy_(torch.tensor([[0.0, 5.0], [-3.0, 0.0], [1.0, 1.0]]))
        model.log_sigma.copy_(torch.tensor([[0.5], [1.0], [2.0]]).log())
    z = model.latents(torch.arange(3).repeat_interleave(20000)[None], torch.Generator().manual_seed(0))
    z = z.detach().view(3, 20000, 2)
    torch.testing.assert_close(z.mean(1), model.m.detach(), atol=0.06, rtol=0)
    torch.testing.assert_close(z.std(1), model.log_sigma.detach().exp().expand(3, 2), atol=0.03, rtol=0.02)


@pytest.mark.parametrize(("experts", "size"), [(1, 1), (2, 1), (7, 1), (4, 2), (9, 2), (35, 5)])
def test_means_start_apart_in_the_unit_cube(experts, size):
    found = codes(experts, size)
    assert found.shape == (experts, size) and len(found.unique(dim=0)) == experts
    assert found.min() >= 0 and found.max() <= 1
    if experts <= 2**size:
        assert torch.equal(found, found.round())


# -- the whole loss ------------------------------------------------------------------------------------------


@SPACES
@pytest.mark.parametrize("cost", ["iou", "cross-entropy"])
def test_the_loss_without_a_cap_equals_a_plain_loop(labels, cost):
    """Every annotation goes to its nearest sample, and the gating network is told how much each expert
    got."""
    images, annotations = annotated(labels)
    model = make(labels, cost=cost, cap=1.0, beta=3.0, stochastic=False)
    encoded, u, log_pi = model._encoded(images)
    logits, expected = model._logits(encoded, u, model.m.expand(3, -1, -1)), []
    for b in range(3):
        received, fit = torch.zeros(4), torch.tensor(0.0)
        for v, y in zip(annotations.weights[b], annotations.masks[b], strict=True):
            costs = pairwise_cost(cost, logits[b][None], y[None, None], labels)[0, :, 0]
            received[costs.argmin()] += v
            fit = fit + v * costs.min()
        expected.append(fit + 3 * kl_divergence(Categorical(received), Categorical(logits=log_pi[b])))
    torch.testing.assert_close(model.loss(images, annotations)["loss"], torch.stack(expected).mean())


def test_the_mean_of_the_divergence_counts_one_over_the_samples_of_its_sum():
    """The authors' code averages the divergence of (6) over K S samples: beta acts as beta / (K S)."""
    images, annotations = annotated(BINARY)

    def found(**settings):
        torch.manual_seed(2)
        return make(**settings).loss(images, annotations)

    summed, mean = found(beta=10.0), found(beta=10.0, gating_loss="mean")
    samples = MoSESettings().experts * MoSESettings().draws
    assert float(mean["kl"]) == pytest.approx(float(summed["kl"]) / samples, rel=1e-5)
    assert mean["loss"].item() == pytest.approx(found(beta=10 / samples)["loss"].item(), rel=1e-6)


@pytest.mark.parametrize("stochastic", [True, False])
def test_drawn_experts_follow_the_gating_network_and_teach_it(stochastic):
    """Appendix A.1: the latents are those of experts drawn from pi, and the cost alone has a gradient to pi."""
    images, annotations = annotated(BINARY)
    model = make(experts=3, draws=200, latent_size=2, gumbel_temperature=0.5, stochastic=stochastic, cap=0.5)
    with torch.no_grad():
        model.log_sigma.fill_(-9.0)
        model.m.copy_(torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]]))
    pi = torch.tensor([[0.5, 0.3, 0.2]]).expand(3, -1)
    torch.manual_seed(0)
    counts = torch.zeros(3, 3)
    for _ in range(1 if stochastic else 200):
        z = model._gumbel_latents(pi.log(), 0.5)
        nearest = torch.cdist(z, model.m.expand(3, -1, -1)).argmin(2)
        counts += functional.one_hot(nearest, 3).sum(1)
    share = counts / counts.sum(1, keepdim=True)
    assert (share - pi).abs().max() < 4 * (0.25 / counts.sum(1).min()) ** 0.5
    small = make(gumbel_temperature=0.5, stochastic=stochastic, cap=0.5)
    parts = small.loss(images, annotations)
    parts["loss"].backward()
    assert parts["kl"] == 0 and parts["loss"].item() == pytest.approx(parts["cost"].item())
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in small.gating.parameters())


def test_greedy_and_exact_couplings_agree_where_the_cap_does_not_bind():
    images, annotations = annotated()
    found = [
        make(coupling=name, cap=1.0, stochastic=False).loss(images, annotations)
        for name in ("greedy", "exact")
    ]
    torch.testing.assert_close(found[0]["loss"], found[1]["loss"])


def test_the_exact_coupling_is_never_dearer():
    images, annotations = annotated()
    costs = {}
    for name in ("greedy", "exact"):
        torch.manual_seed(0)
        costs[name] = make(coupling=name, cap=0.25).loss(images, annotations)["cost"]
    assert costs["exact"] <= costs["greedy"] + 1e-6


def test_ablations_of_table_2():
    images, annotations = annotated()
    plain = make(coupling="independent", stochastic=False)
    encoded, u, log_pi = plain._encoded(images)
    cost = pairwise_cost(
        "iou", plain._logits(encoded, u, plain.m.expand(3, -1, -1)), annotations.masks, BINARY
    )
    expected = (log_pi.exp()[:, :, None] * cost * annotations.weights[:, None]).sum((1, 2)).mean()
    torch.testing.assert_close(plain.loss(images, annotations)["loss"], expected)
    uniform = make(expert_weights="uniform")
    assert uniform.gating is None and uniform.expert_probabilities(images).eq(0.25).all()
    losses = uniform.loss(images, annotations)
    assert losses["loss"].detach() == losses["cost"]
    assert uniform.predict(images, 8).weights.allclose(torch.tensor(1 / 8))


def test_one_expert_has_nothing_to_choose():
    images, annotations = annotated()
    model = make(experts=1)
    losses = model.loss(images, annotations)
    assert float(losses["kl"]) == pytest.approx(0, abs=1e-6)
    losses["loss"].backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.predict(images, 5).weights.allclose(torch.tensor(0.2))


@pytest.mark.parametrize("cap", [0.5, 1.0])
def test_an_image_of_nothing_but_void_has_no_influence(cap):
    images, annotations = annotated()
    masks = annotations.masks.clone()
    masks[2] = 255
    images.requires_grad_()
    model = make(cap=cap, cap_until=0.0, stochastic=False)
    loss = model.loss(images, replace(annotations, masks=masks))["loss"]
    torch.testing.assert_close(loss, model.loss(images[:2], annotations[:2])["loss"])
    (gradient,) = torch.autograd.grad(loss, images)
    assert not gradient[2].any() and gradient[0].any()
    nothing = model.loss(images, replace(annotations, masks=torch.full_like(masks, 255)))["loss"]
    assert float(nothing.detach()) == 0 and nothing.requires_grad


def test_an_annotation_of_nothing_but_void_counts_as_if_it_were_not_there():
    images, annotations = annotated()
    model, weights = make(stochastic=False), annotations.weights.clone()
    masks = annotations.masks.clone()
    masks[:, 0] = 255
    weights[:, 0] = 0
    there = MaskSet(masks, annotations.weights, BINARY)
    gone = MaskSet(masks, weights / weights.sum(1, keepdim=True), BINARY)
    torch.testing.assert_close(model.loss(images, there)["loss"], model.loss(images, gone)["loss"])


def test_schedules_run_in_straight_lines():
    model = make(cap=0.25, cap_until=0.5, merge_threshold=0.8, uniform_until=0.4)
    _, annotations = annotated()
    seen = []
    for model.progress in (0.0, 0.25, 0.5, 1.0):
        seen.append((model.cap, model.merge_threshold))
    assert seen == [pytest.approx(pair) for pair in [(0.25, 1.0), (0.625, 0.95), (1.0, 0.9), (1.0, 0.8)]]
    model.progress = 0.0
    assert model._marginals(annotations)[0][0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    model.progress = 0.2
    half = model._marginals(annotations)[0]
    torch.testing.assert_close(half[1], (annotations.weights[1] + 0.25) / 2)
    model.progress = 0.4
    torch.testing.assert_close(model._marginals(annotations)[0], annotations.weights)


# -- prediction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 3, 4, 6, 16])
def test_compact_weights_are_the_probabilities_of_the_experts(samples):
    model, images = make(), annotated()[0]
    pi = model.expert_probabilities(images)
    expert, weights = model._chosen(pi, samples, None)
    assert expert.shape == weights.shape == (3, samples)
    assert weights.sum(1).allclose(torch.ones(3))
    for b in range(3):
        counts = expert[b].bincount(minlength=4)
        assert counts.max() - counts.min() <= 1
        assert (
            pi[b][counts == counts.max()].min() >= pi[b][counts < counts.max()].max() if samples % 4 else True
        )
        total = torch.zeros(4).scatter_add(0, expert[b], weights[b])
        there = pi[b] * (counts > 0)
        torch.testing.assert_close(total, there / there.sum())


def test_both_representations_have_the_same_mean():
    """Of deterministic experts the compact mean is exact, and 8000 drawn experts are near it."""
    images = annotated()[0]
    compact = make(stochastic=False).eval()
    standard = make(stochastic=False, representation="standard").eval()
    exact = compact.predict(images, 4).mean()
    many = standard.predict(images, 8000, torch.Generator().manual_seed(0))
    assert many.weights.allclose(torch.tensor(1 / 8000))
    torch.testing.assert_close(many.mean(), exact, atol=0.02, rtol=0)


def test_stochastic_experts_have_the_same_mean_in_both_representations():
    images = annotated(count=1)[0]
    found = [
        make(representation=name).predict(images, 6000, torch.Generator().manual_seed(0)).mean()
        for name in ("compact", "standard")
    ]
    torch.testing.assert_close(found[0], found[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("layer", [None, 1])
def test_the_encoder_runs_once_and_parts_change_nothing(layer, monkeypatch):
    model, images = make(noise_layer=layer).eval(), annotated()[0]
    whole = model.predict(images, 10, torch.Generator().manual_seed(0))
    monkeypatch.setattr(memory_budget, "ELEMENTS", 3 * 3 * 8 * 8 * 8)
    calls, encode = [], model.g.encode
    monkeypatch.setattr(model.g, "encode", lambda x, *a: calls.append(1) or encode(x, *a))
    parts = model.predict(images, 10, torch.Generator().manual_seed(0))
    assert len(calls) == 1
    torch.testing.assert_close(parts.probabilities, whole.probabilities)
    assert torch.equal(parts.weights, whole.weights)


# -- other layers and networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [(1, 1), (2, None), (None, 1)])
@pytest.mark.parametrize("kind", ["unet", "ncsnpp", "phiseg"])
def test_latent_and_gating_at_other_layers(kind, layers):
    images, annotations = annotated(size=9)
    model = make(
        backbone=UNetSettings(width=4, depth=3, kind=kind), noise_layer=layers[0], gating_layer=layers[1]
    )
    model.loss(images, annotations)["loss"].backward()
    for module in (model.experts.shift, model.experts.scale, model.gating[0]):
        assert bool(module.weight.grad.ne(0).any())
    assert model.eval().predict(images, 5).masks.shape == (3, 5, 9, 9)


def test_on_the_network_of_monai():
    pytest.importorskip("monai")
    images, annotations = annotated(size=9)
    model = make(backbone=UNetSettings(width=4, depth=3, kind="monai"), noise_layer=1)
    model.loss(images, annotations)["loss"].backward()
    assert model.predict(images, 5).masks.shape == (3, 5, 9, 9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cap": 0.05}, "1/16.*received 0.05"),
        ({"cap": 1.5}, "to 1, received 1.5"),
        ({"experts": 1, "stochastic": False}, "1/1 "),
        ({"experts": 0}, "experts is 1 or more"),
        ({"cap_until": 1.5}, "cap_until is from 0 to 1"),
        ({"noise_layer": 3}, "from 1 to 2.*received 3"),
        ({"gating_layer": 0}, "gating_layer counts"),
        ({"gumbel_temperature": 0.0}, "gumbel_temperature is above 0"),
        ({"gumbel_temperature": 1.0, "merge_threshold": 0.9}, "leave expert_weights"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(AmbisegError, match=message):
        make(**settings)
