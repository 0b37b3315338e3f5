"""ATFM: distributions of its states, a flow that ends in the masks, two stages that leave each other alone, a Dice
with a gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ambiseg import memory_budget
from ambiseg.distributions.low_rank import LowRankNormal
from ambiseg.engine.curve import training_curve
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import WEIGHTS, RunConfig
from ambiseg.engine.settings import AdamW, TrainSettings
from ambiseg.engine.train import fit
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import pairwise_mask_loss
from ambiseg.maskset import MaskSet
from ambiseg.methods.atfm import ATFMSettings
from ambiseg.methods.atfm.model import ATFM, _flow_backbone, dice_loss
from ambiseg.methods.ssn import SSNSettings
from ambiseg.methods.ssn.model import SSN
from ambiseg.networks.backbone import NETWORKS, WITH_TIME, build_backbone
from ambiseg.networks.settings import UNetSettings
from model_helpers import perturbed

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(3)
SMALL = UNetSettings(width=8, depth=2)
SPACES = pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])


def make(labels=BINARY, seed=0, **settings):
    torch.manual_seed(seed)
    return ATFM(3, labels, SMALL, ATFMSettings(**{"rank": 2, **settings}))


def annotated(labels, images=2, count=3, size=(4, 5), seed=1):
    """Random images of three channels with equally probable annotations."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, labels.classes, (images, count, *size), generator=g).to(torch.uint8)
    return torch.randn(images, 3, *size, generator=g), MaskSet.uniform(masks, labels)


def some_normal(pixels, seed=2):
    g = torch.Generator().manual_seed(seed)
    mean, factor = torch.randn(1, pixels, generator=g), torch.randn(1, pixels, 2, generator=g)
    return LowRankNormal(mean, 0.2 + torch.rand(1, pixels, generator=g), factor)


def gradients(model, part):
    return [p.grad for n, p in model.named_parameters() if n.startswith(part)]


# -- the truncation point ------------------------------------------------------------------------------------


def test_a_diffused_normal_distribution_keeps_its_form():
    """Theorem 1: of ``a x + s e`` with x ~ N(mu, D D^T + L), in closed form and by sampling."""
    normal, (a, s) = some_normal(4), (0.8, 0.6)
    diffused = LowRankNormal(a * normal.mean, a**2 * normal.diagonal + s**2, a * normal.factor)
    torch.testing.assert_close(diffused.covariance(), a**2 * normal.covariance() + s**2 * torch.eye(4))
    g = torch.Generator().manual_seed(0)
    x = normal.sample(200_000, g)[0]
    x = a * x + s * torch.randn(x.shape, generator=g)
    torch.testing.assert_close(x.mean(0), diffused.mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(x.T.cov(), diffused.covariance()[0], atol=0.04, rtol=0)


def test_a_normal_distribution_is_met_by_a_diffusion_whose_noise_fits_in_it():
    """Theorem 2, as far as it holds: up to the step at which the noise has the least variance of the given
    distribution, some distribution of the data leads exactly to it; beyond, none does, for the data would need a
    variance below 0."""
    given = some_normal(4)
    least = float(torch.linalg.eigvalsh(given.covariance()[0])[0])
    for s2, possible in ((0.9 * least, True), (1.1 * least, False)):
        a2 = 1 - s2
        needed = (given.covariance()[0] - s2 * torch.eye(4)) / a2
        assert bool(torch.linalg.eigvalsh(needed)[0] > 0) == possible
        if possible:
            data = LowRankNormal(
                given.mean / a2**0.5, torch.full((1, 4), 1e-9), torch.linalg.cholesky(needed)[None]
            )
            met = LowRankNormal(a2**0.5 * data.mean, a2 * data.diagonal + s2, a2**0.5 * data.factor)
            x = given.sample(5, torch.Generator().manual_seed(0))
            torch.testing.assert_close(met.log_prob(x), given.log_prob(x), atol=1e-3, rtol=1e-4)


def test_states_of_the_flow_are_normal_around_each_mask(monkeypatch):
    """``x_t`` given ``x_1`` and t is N(t x_1 + (1 - t) mu, (1 - t)^2 Sigma) where the source is logits."""
    model, (image, truth) = perturbed(make(source="logits", prior_share=0.0)), annotated(BINARY, 1, 1, (2, 2))
    normal, count, seen = model.truncation(image), 40_000, []
    monkeypatch.setattr(model, "truncation", lambda _: repeated(normal, count))
    monkeypatch.setattr(model, "velocity", lambda _, state, __: seen.append(state) or torch.zeros_like(state))
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, 0.3))
    model.loss(
        image.expand(count, -1, -1, -1), MaskSet.uniform(truth.masks.expand(count, -1, -1, -1), BINARY)
    )
    x = seen[0].flatten(1)
    mean = 0.3 * truth.masks[0, 0].flatten() + 0.7 * normal.mean[0]
    torch.testing.assert_close(x.mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(x.T.cov(), 0.49 * normal.covariance()[0], atol=0.05, rtol=0.03)


def repeated(normal, count):
    """The distribution of one image for a batch of equal images."""
    return LowRankNormal(
        *(v.expand(count, *v.shape[1:]) for v in (normal.mean, normal.diagonal, normal.factor))
    )


def test_the_exact_velocity_ends_in_the_masks_with_their_probabilities(monkeypatch):
    """A distribution that is frozen before the flow learns is no limit to what the flow can reach."""
    model, normal = make(source="logits", steps=50), some_normal(6)
    masks = torch.tensor([[0, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    weights = torch.tensor([0.5, 0.3, 0.2])

    def exact(_, state, time):
        t = time[0]
        x = state.flatten(1)[:, None]
        source = (x - t * masks) / (1 - t)
        share = (weights.log() + normal.log_prob(source.flatten(0, 1)[None]).view(-1, 3)).softmax(1)
        return ((share @ masks.float() - x[:, 0]) / (1 - t)).view(state.shape)

    monkeypatch.setattr(model, "velocity", exact)
    monkeypatch.setattr(model, "truncation", lambda _: normal)
    found = model.predict(torch.zeros(1, 3, 2, 3), 4000, torch.Generator().manual_seed(0))
    hits = (found.masks[0].flatten(1)[:, None] == masks).all(2)
    assert hits.any(1).float().mean() > 0.99
    torch.testing.assert_close(hits.float().mean(0), weights, atol=0.03, rtol=0)


@SPACES
def test_a_new_flow_leaves_the_samples_of_its_prior_as_they_are(labels):
    model, images = make(labels).eval(), torch.randn(2, 3, 4, 5)
    one, other = (m.predict(images, 7, torch.Generator().manual_seed(1)) for m in (model, model.prior))
    torch.testing.assert_close(one.probabilities, other.probabilities, atol=1e-5, rtol=0)


def test_the_prior_runs_once_for_any_number_of_samples(monkeypatch):
    monkeypatch.setattr(
        memory_budget, "ELEMENTS", 2 * 4 * 64 * 8
    )  # four masks of 64 pixels at the width of the flow
    model, calls = make(steps=3).eval(), []
    model.prior.g.register_forward_hook(lambda *_: calls.append("prior"))
    model.g.register_forward_hook(lambda *_: calls.append("flow"))
    assert model.predict(torch.randn(1, 3, 8, 8), 10).masks.shape == (1, 10, 8, 8)
    assert calls == ["prior", *9 * ["flow"]]


# -- losses --------------------------------------------------------------------------------------------------


@SPACES
def test_the_first_stage_is_an_ssn(labels):
    model, batch = perturbed(make(labels)), annotated(labels)
    torch.manual_seed(3)
    ours = model.loss(*batch)["loss"]
    torch.manual_seed(3)
    torch.testing.assert_close(ours, model.prior.loss(*batch)["loss"])
    torch.manual_seed(3)
    printed = replace(model.settings, estimator="mean-log")
    model.settings = printed
    assert model.loss(*batch)["loss"] > ours, "the mean of the logarithms is a bound (Jensen)"


@SPACES
@pytest.mark.parametrize("start", ["prior", "noise"])
def test_the_loss_is_the_mean_of_those_of_single_annotations(labels, start):
    """By weight, for the same draws; three annotations, one void in part, one that is not there."""
    model = perturbed(make(labels, prior_share=0.0, alpha=0.3, start=start), 0.1)
    images, truth = annotated(labels)
    truth.masks[0, 1, :2] = labels.void
    truth = replace(truth, weights=torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]]))

    def loss(annotations):
        torch.manual_seed(5)
        return model.loss(images, annotations)["loss"]

    expected = 0.0
    for b, n in torch.nonzero(truth.present).tolist():
        ones = MaskSet.uniform(truth.masks[:, n : n + 1], labels)
        only = replace(
            ones, masks=torch.where(torch.arange(2).view(2, 1, 1, 1) == b, ones.masks, labels.void)
        )
        # The other image is all void, which costs nothing.
        expected = expected + truth.weights[b, n] * loss(only)
    torch.testing.assert_close(loss(truth), expected)
    thirds = replace(truth, weights=torch.full((2, 3), 1 / 3))
    three = [loss(MaskSet.uniform(truth.masks[:, n : n + 1], labels)) for n in range(3)]
    torch.testing.assert_close(loss(thirds), torch.stack(three).mean())


@SPACES
def test_the_soft_dice_is_that_of_probabilities(labels):
    images, truth = annotated(labels)
    truth.masks[0, 0, :2] = labels.void
    logits = torch.randn(2, labels.channels, 4, 5)
    expected = pairwise_mask_loss("dice", logits[:, None], truth.masks[:, :1], labels)[:, 0, 0]
    masks = truth.masks[:, 0]
    x1, valid = labels.one_hot(masks, dim=1), labels.valid(masks)[:, None]
    torch.testing.assert_close(dice_loss(labels.probabilities(logits), x1, valid, labels), expected)


@SPACES
def test_the_soft_dice_has_a_gradient_and_the_hard_one_none(labels):
    images, truth = annotated(labels)

    def gradient(dice, alpha):
        model = perturbed(make(labels, prior_share=0.0, dice=dice, alpha=alpha), 0.1)
        torch.manual_seed(4)
        losses = model.loss(images, truth)
        losses["loss"].backward()
        return losses, torch.cat([g.flatten() for g in gradients(model, ("g.", "h."))])

    (with_dice, soft), (without, none), (_, hard) = (
        gradient("soft", 1.0),
        gradient("soft", 0.0),
        gradient("hard", 1.0),
    )
    assert not soft.allclose(none) and torch.equal(hard, none)
    torch.testing.assert_close(with_dice["loss"], without["loss"] + with_dice["dice"])


def test_evaluation_measures_both_stages_at_any_time():
    model, batch = perturbed(make(), 0.1), annotated(BINARY)

    def total(progress):
        model.progress = progress
        torch.manual_seed(0)
        return model.eval().loss(*batch)

    early, late = total(0.0), total(0.9)
    assert early == late and set(early) == {"loss", "prior", "flow", "dice"}
    torch.testing.assert_close(early["loss"], early["prior"] + early["flow"] + 1e-3 * early["dice"])


# -- two stages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "progress, trained, kept", [(0.0, "prior.", ("g.", "h.")), (0.5, ("g.", "h."), "prior.")]
)
def test_a_stage_leaves_the_other_in_every_bit(progress, trained, kept):
    """Also where an optimiser has momentum and weight decay for all weights."""
    model, batch = perturbed(make(), 0.1), annotated(BINARY)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.1)
    for model.progress in (0.0, 0.9, progress):  # momentum for all
        optimiser.zero_grad()
        model.loss(*batch)["loss"].backward()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimiser.step()
    assert all(g is None for g in gradients(model, kept))
    assert all(bool(g.ne(0).any()) for g in gradients(model, trained))
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if n.startswith(trained)}


def test_the_frozen_prior_has_no_dropout_and_the_trained_one_has():
    model = ATFM(3, BINARY, replace(SMALL, dropout=0.5), ATFMSettings(rank=2)).train()
    model.loss(*annotated(BINARY))
    assert model.prior.training
    model.progress = 0.6
    model.loss(*annotated(BINARY))
    assert not model.prior.training and model.training and model.g.training
    model.progress = 0.0
    model.eval().loss(*annotated(BINARY))
    assert not model.prior.training


def test_both_stages_in_one_training_and_a_prior_that_is_there_already(fires, tmp_path):
    """The weights of an SSN run come through a whole training, its moving average and its weight decay, in
    every bit."""
    train = TrainSettings(
        epochs=2, batch_size=4, warmup=2, validations=2, precision="32", optimiser=AdamW(weight_decay=0.1)
    )
    run = {"train": train, "backbone": SMALL, "quiet": True}
    both = fit("atfm", fires, tmp_path / "both", settings=ATFMSettings(rank=3), **run)
    curve = training_curve(both.run)
    assert both.metric == "loss" and both.value is not None and "val_loss" in curve[-1]
    ssn = fit("ssn", fires, tmp_path / "ssn", settings=SSNSettings(rank=3, samples=2), **run)
    later = {**run, "train": replace(train, init=str(ssn.run))}
    with pytest.raises(AmbisegError, match="leave those of --set backbone out"):
        fit("atfm", fires, tmp_path / "no", **{**later, "backbone": replace(SMALL, width=16)})
    with pytest.raises(AmbisegError, match="no prior"):
        fit("atfm", fires, tmp_path / "no", settings=ATFMSettings(start="noise"), **later)
    assert not (tmp_path / "no").exists()
    found = fit("atfm", fires, tmp_path / "flow", settings=ATFMSettings(flow_width=12), **later)
    chosen = RunConfig.load(found.run).settings
    assert (chosen.prior_share, chosen.rank, chosen.flow_width) == (0.0, 3, 12)
    ours, theirs = load_file(found.run / WEIGHTS), load_file(ssn.run / WEIGHTS)
    assert all(torch.equal(ours[f"prior.{name}"], value) for name, value in theirs.items())
    assert bool(ours["h.weight"].any()) and ours["g.stem.weight"].shape[0] == 12


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_flow_of_a_backbone_that_accepts_no_time_is_a_unet_of_its_size(kind):
    settings = UNetSettings(kind=kind, width=8, depth=3, max_width=16)
    if kind not in WITH_TIME:
        with pytest.raises(AmbisegError, match="no place for a time"):
            build_backbone(3, settings, time=True)
    chosen = _flow_backbone(settings, ATFMSettings(flow_depth=2))
    expected = kind if kind in WITH_TIME else "unet"
    assert chosen == UNetSettings(kind=expected, width=8, depth=2, max_width=16)
    build_backbone(3, chosen, time=True)


def test_a_prior_of_phiseg_can_be_started_from(fires, tmp_path):
    train = TrainSettings(updates=2, batch_size=4, validations=1, precision="32")
    run = {"quiet": True, "fit_filter": False}
    network = UNetSettings(kind="phiseg", width=8, depth=3)
    ssn = fit(
        "ssn",
        fires,
        tmp_path / "ssn",
        train=train,
        backbone=network,
        settings={"rank": 2, "samples": 2},
        **run,
    )
    found = fit("atfm", fires, tmp_path / "flow", train=replace(train, init=str(ssn.run)), **run)
    assert RunConfig.load(found.run).backbone == network
    ours, theirs = load_file(found.run / WEIGHTS), load_file(ssn.run / WEIGHTS)
    assert all(torch.equal(ours[f"prior.{name}"], value) for name, value in theirs.items())
    assert load(found.run).model.g.widths == (8, 16, 32)


@pytest.mark.parametrize(
    "what, other",
    [
        ("channels", SSN(1, BINARY, SMALL, SSNSettings(rank=2))),
        ("classes", SSN(3, MULTI, SMALL, SSNSettings(rank=2))),
        ("network", SSN(3, BINARY, UNetSettings(width=16), SSNSettings(rank=2))),
        ("rank", SSN(3, BINARY, SMALL, SSNSettings(rank=5))),
    ],
)
def test_an_ssn_that_does_not_fit_is_refused(what, other):
    with pytest.raises(AmbisegError, match=f"SSN of other {what}"):
        make().start_from(other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"alpha": -1.0},
        {"alpha": float("nan")},
        {"prior_share": 1.0},
        {"rank": 0},
        {"flow_width": 0},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(AmbisegError, match=next(iter(wrong))):
        make(**wrong)


def test_a_prior_that_is_not_trained_needs_the_weights_of_another_run():
    assert make(prior_share=0.0).needs_init
    assert not make(prior_share=0.1).needs_init and not make(prior_share=0.0, start="noise").needs_init


def test_the_flow_from_noise_has_no_prior():
    model = make(start="noise", steps=3)
    assert model.prior is None and model.truncation(torch.zeros(1, 3, 4, 5)) is None
    assert set(model.loss(*annotated(BINARY))) == {"loss", "flow", "dice"}
    x0 = model.draw(torch.zeros(2, 3, 40, 50), None, 20, torch.Generator().manual_seed(0))
    assert abs(float(x0.mean())) < 0.02 and float(x0.std()) == pytest.approx(1, abs=0.02)


def test_prior_and_flow_may_be_different_networks():
    """The prior's needs no place for a time, the flow's does."""
    flow = UNetSettings(kind="ddpm", width=8, depth=2, attention=True)
    settings = ATFMSettings(rank=2, flow_network=flow, steps=2)
    model = ATFM(3, BINARY, UNetSettings(kind="phiseg", width=4, depth=2), settings)
    assert type(model.prior.g).__name__ == "PHiSegUNet" and type(model.g).__name__ == "DDPM"
    assert model.predict(torch.zeros(1, 3, 6, 7), samples=3).masks.shape == (1, 3, 6, 7)
    with pytest.raises(AmbisegError, match="flow_network has a size of its own: leave flow_depth out"):
        make(flow_network=flow, flow_depth=2)


def test_a_grey_image_is_a_weighted_sum_of_its_channels():
    model, images = perturbed(make(grey=True)), torch.randn(2, 3, 4, 5)
    state, time = torch.rand(2, 1, 4, 5), torch.rand(2)
    assert model.g.in_channels == 2
    grey = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    expected = model.h(model.g(torch.cat([grey, state], 1), time))
    torch.testing.assert_close(model.velocity(images, state, time), expected)
    with pytest.raises(AmbisegError, match="grey is made of 3 channels, the images have 1"):
        ATFM(1, BINARY, SMALL, ATFMSettings(rank=2, grey=True))


@SPACES
def test_lines_one_by_one_and_together_have_the_same_loss_and_gradient(labels, monkeypatch):
    model = perturbed(make(labels)).train()
    model.progress = 1.0
    images, annotations = annotated(labels)
    found = []
    for values in (1, 2**30):
        monkeypatch.setattr("ambiseg.methods.atfm.model.VALUES_ON_CPU", values)
        torch.manual_seed(5)
        model.zero_grad()
        losses = model.loss(images, annotations)
        losses["loss"].backward()
        found.append((losses, gradients(model, "g"), gradients(model, "h")))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
