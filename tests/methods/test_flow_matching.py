"""Flow matching: targets and means agree with the path, a known distribution is learnt, samples follow it, proposals
start from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ambiseg.engine.presets import resolve
from ambiseg.errors import AmbisegError
from ambiseg.flows.paths import VarianceExploding, edm_posterior_mean
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS
from ambiseg.methods.flow_matching import (
    FlowMatchingSettings,
    KarrasGrid,
    LogitNormalTimes,
    NoiseLevelTimes,
    ParticleGuidanceSettings,
    SpellSettings,
)
from ambiseg.methods.flow_matching.model import FlowMatching
from ambiseg.methods.mode_proposals import ModeProposalsSettings, SelectionSettings, proposals_from_flow
from ambiseg.methods.mode_proposals.model import ModeProposals
from ambiseg.mode_probabilities.velocity_decomposition import estimate_mean
from ambiseg.networks.settings import UNetSettings

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)
SMALL = UNetSettings(width=8, depth=2)


def make(labels=BINARY, seed=0, **settings):
    torch.manual_seed(seed)
    return FlowMatching(3, labels, SMALL, FlowMatchingSettings(**settings)).eval()


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_masks_are_plus_and_minus_one_and_void_is_zero(labels):
    masks = torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8)
    y, valid = make(labels).encode(masks)
    assert valid.tolist() == [[[True, True], [True, False]]]
    assert y.shape == (1, labels.channels, 2, 2) and y[..., 1, 1].abs().sum() == 0
    assert bool((y[valid[:, None].expand_as(y)].abs() == 1).all())
    assert torch.equal((y[:, -1 if labels.is_binary else 1] == 1)[0], masks[0] == 1)


@pytest.mark.parametrize("path", ["linear", "cosine", "variance-preserving"])
@pytest.mark.parametrize("parameterisation", ["velocity", "edm"])
def test_velocity_and_mean_say_the_same(path, parameterisation):
    """Equation 17 is linear in y, so the mean of the conditional velocities is the velocity of the mean."""
    model = make(path=path, parameterisation=parameterisation)
    images, z, time = torch.randn(2, 3, 8, 8), torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        mean = model.posterior_mean(images, z, time)
        velocity = model.velocity(images, z, time)
    torch.testing.assert_close(model.path.velocity(z, mean, time), velocity, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parameterisation", ["velocity", "edm"])
def test_the_loss_is_the_weighted_error_of_what_is_predicted(parameterisation):
    """A model that knows the mask has no error: with the true mean put in its place, the loss is 0."""
    model = make(parameterisation=parameterisation)
    images = torch.randn(4, 3, 8, 8)
    masks = torch.randint(0, 2, (4, 1, 8, 8), dtype=torch.uint8)
    y, _ = model.encode(masks[:, 0])
    if parameterisation == "edm":
        model.posterior_mean = lambda images, z, time: y
    else:
        model.network = lambda images, z, time: model.path.velocity(z, y, time)
    assert float(model.loss(images, MaskSet.uniform(masks, BINARY))["loss"]) < 1e-6


def test_void_pixels_have_no_error():
    model = make(LabelSpace.binary(ignore_value=255))
    masks = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    assert model.loss(torch.randn(2, 3, 8, 8), MaskSet.uniform(masks, model.labels))["loss"].item() == 0


@pytest.mark.parametrize("labels", ["full", "single"])
def test_samples_follow_the_law_of_the_annotations(labels):
    """One image of three half planes with probabilities .6, .3, .1: frequencies and mean of many samples."""
    torch.manual_seed(0)
    masks = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    masks[0, 0, :4], masks[0, 1, :, :4], masks[0, 2, 4:] = 1, 1, 1
    truth = MaskSet(masks, torch.tensor([[0.6, 0.3, 0.1]]), BINARY)
    model = FlowMatching(1, BINARY, UNetSettings(width=16, depth=3), FlowMatchingSettings(steps=8)).train()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    image = torch.zeros(32, 1, 8, 8)
    stacked = MaskSet.stack([truth] * 32)
    for step in range(250):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / 250)
        optimiser.zero_grad()
        model.loss(image, stacked if labels == "full" else stacked.sample_one())["loss"].backward()
        optimiser.step()
    samples = model.eval().predict(image[:1], 200, torch.Generator().manual_seed(0)).masks[0]
    agreement = (samples[:, None] == masks[0]).float().mean((2, 3))
    frequency = torch.bincount(agreement.argmax(1), minlength=3) / 200
    assert float(agreement.amax(1).mean()) > 0.97
    assert float((frequency - truth.weights[0]).abs().max()) < 0.12


def test_many_samples_are_integrated_in_parts():
    model, images = make(samples=3, steps=2), torch.randn(2, 3, 8, 8)
    assert model.predict(images).masks.shape == (2, 3, 8, 8)
    many = model.predict(images, 70, torch.Generator().manual_seed(1))
    assert many.masks.shape == (2, 70, 8, 8) and many.weights.sum(1).allclose(torch.ones(2))


@pytest.mark.parametrize(
    "guidance", [ParticleGuidanceSettings(strength=5.0), SpellSettings(strength=5.0, radius=30.0)]
)
def test_guidance_spreads_the_samples(guidance):
    images = torch.randn(1, 3, 8, 8)

    def spread(**settings):
        model = make(steps=6, sampler="euler", **settings)
        found = model.predict(images, 6, torch.Generator().manual_seed(0)).probabilities
        return float(torch.pdist(found[0].flatten(1)).mean())

    assert spread(guidance=guidance) > spread() + 0.01


@pytest.mark.parametrize("kind", ["unet", "ncsnpp"])
def test_proposals_start_from_a_flow_model(kind):
    """A.2: the network as it is at one noise and one time, its last convolution as every head up to a factor
    near 1."""
    torch.manual_seed(0)
    backbone = UNetSettings(width=8, depth=2, kind=kind)
    flow = FlowMatching(3, MULTI, backbone, FlowMatchingSettings()).eval()
    settings = ModeProposalsSettings(proposals=5, flow_input=True, flow_time=0.3, head_init_jitter=0.1)
    proposals = ModeProposals(3, MULTI, backbone, settings).eval()
    proposals.start_from(flow)
    images = torch.randn(2, 3, 9, 8)
    draw = torch.Generator().manual_seed(int(proposals.noise_seed))
    noise = torch.randn(4, 9, 8, generator=draw).expand(2, -1, -1, -1)
    with torch.no_grad():
        wanted = flow.network(images, noise, torch.full((2,), 0.3))
        found = proposals(images)[0]
    ratio = found / wanted[:, None]
    factor = ratio.flatten(2).median(2).values
    torch.testing.assert_close(ratio, factor[..., None, None, None].expand_as(ratio), rtol=1e-3, atol=1e-3)
    assert bool(((factor - 1).abs() <= 0.1 + 1e-4).all()) and float(factor.std()) > 0.01
    assert torch.equal(proposals(images)[0], found)


@pytest.mark.parametrize(
    ("path", "time"), [("linear", 0.0), ("linear", 0.4), ("cosine", 0.0), ("cosine", 0.5)]
)
def test_proposals_of_a_velocity_flow_start_as_its_mean_mask(path, time):
    """(17), (20): the outputs are the posterior mean of the mask at the fixed noise, up to one positive factor."""
    torch.manual_seed(0)
    backbone = UNetSettings(width=8, depth=2)
    flow = FlowMatching(3, MULTI, backbone, FlowMatchingSettings(path=path)).eval()
    settings = proposals_from_flow(
        ModeProposalsSettings(proposals=2, flow_time=time, head_init_jitter=0.0), flow.settings
    )
    assert settings.flow_path == path
    proposals = ModeProposals(3, MULTI, backbone, settings).eval()
    proposals.start_from(flow)
    images = torch.randn(2, 3, 9, 8)
    draw = torch.Generator().manual_seed(int(proposals.noise_seed))
    noise = torch.randn(4, 9, 8, generator=draw).expand(2, -1, -1, -1)
    with torch.no_grad():
        mean = flow.posterior_mean(images, noise, torch.full((2,), time))
        found = proposals(images)[0][:, 0]
    factor = (found * mean).sum() / mean.square().sum()
    assert float(factor) > 0
    torch.testing.assert_close(found, factor * mean, rtol=1e-3, atol=1e-4)


def test_frozen_parts_do_not_learn():
    def learning(part):
        model = ModeProposals(
            3, BINARY, SMALL, ModeProposalsSettings(proposals=4, selection=SelectionSettings(head_width=8))
        )
        model.freeze(part)
        return {
            n.split(".")[1] if n.startswith("g.") else n.split(".")[0]
            for n, p in model.named_parameters()
            if p.requires_grad
        }

    everything = learning("nothing")
    assert everything - learning("encoder") == {"stem", "encoder", "down"}
    assert learning("all-but-last") == {"h", "sel"}


def test_no_start_from_a_stranger():
    torch.manual_seed(0)
    with pytest.raises(AmbisegError, match="FlowMatching cannot start from the weights of ModeProposals"):
        make().start_from(ModeProposals(3, BINARY, SMALL, ModeProposalsSettings()))


def test_shifted_times_are_early_and_keep_their_ends():
    """Of uniform times u, those with ``t < x`` are the ``u < s x / (1 - x + s x)``, the inverse of the
    shift."""
    shift, limit = 8.0, torch.tensor([0.02, 0.1, 0.5])
    model = make(time_shift=shift)
    times = model._times(200_000, torch.device("cpu"))
    share = (times[:, None] < limit).double().mean(0)
    torch.testing.assert_close(
        share, shift * limit / (1 - limit + shift * limit), atol=0.005, rtol=0, check_dtype=False
    )
    assert model._shifted(torch.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]
    torch.testing.assert_close(make(time_shift=1.0)._shifted(times), times)
    with pytest.raises(AmbisegError, match="time_shift is above 0"):
        make(time_shift=0.0)


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_the_posterior_is_that_of_bayes(labels):
    """Equation 19 in double precision; near t = 0 it is the mean of the annotations, near t = 1 the mask that
    was drawn."""
    model = make(labels)
    masks = torch.randint(labels.classes, (2, 3, 3, 4), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    annotations = MaskSet(masks, torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.5, 0.0]]), labels)
    y = torch.stack([model.encode(m)[0] for m in masks]).double()
    for t in (1e-6, 0.2, 0.999):
        time = torch.full((2,), t)
        z = t * y[:, 1] + (1 - t) * torch.randn(y[:, 1].shape, dtype=torch.float64)
        likelihood = torch.distributions.Normal(t * y, 1 - t).log_prob(z[:, None]).flatten(2).sum(2)
        share = (annotations.weights.double().log() + likelihood).softmax(1)
        expected = (share[:, :, None, None, None] * y).sum(1)
        found = model._posterior_of(annotations, z.float(), time)
        torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=0)
        limit = (annotations.weights[:, :, None, None, None] * y).sum(1) if t < 0.1 else y[:, 1]
        assert t == 0.2 or (found - limit).abs().max() < 0.01


@pytest.mark.parametrize("parameterisation", ["velocity", "edm"])
def test_both_targets_have_the_same_expectation(parameterisation):
    """Given images, states and times the error against the posterior is the expected error: same gradient,
    less variance."""
    model = make(parameterisation=parameterisation)
    sharp = make(parameterisation=parameterisation, target="posterior")
    one = MaskSet.uniform(torch.randint(2, (2, 1, 8, 8)).to(torch.uint8), BINARY)
    values = []
    for m in (model, sharp):
        torch.manual_seed(3)
        values.append(m.loss(torch.ones(2, 3, 8, 8), one)["loss"])
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)  # one mask: nothing to average
    many = MaskSet(
        torch.randint(2, (1, 4, 4, 4)).to(torch.uint8), torch.tensor([[0.4, 0.3, 0.2, 0.1]]), BINARY
    )
    gradients = {}
    for name, m in (("sample", model), ("posterior", sharp)):
        torch.manual_seed(5)
        draws = []
        for _ in range(300):
            m.zero_grad()
            m.loss(torch.ones(1, 3, 4, 4), many)["loss"].backward()
            draws.append(m.h.bias.grad.clone())
        gradients[name] = torch.stack(draws)
    error = gradients["sample"].std(0) / 300**0.5
    assert ((gradients["sample"].mean(0) - gradients["posterior"].mean(0)).abs() < 5 * error).all()
    assert (gradients["posterior"].var(0) < gradients["sample"].var(0)).all()


EDM_NOISE = {
    "parameterisation": "edm",
    "sigma_data": 0.15,
    "times": NoiseLevelTimes(log_mean=0.5, log_std=1.2),
    "grid": KarrasGrid(),
}


@pytest.mark.parametrize("path", ["linear", "cosine", "variance-preserving"])
def test_noise_levels_of_training_are_log_normal(path):
    model = make(path=path, **EDM_NOISE)
    times = model._times(100_000, torch.device("cpu"))
    log = (model.path.sigma(times) / model.path.alpha(times)).log()
    assert float(log.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(log.std()) == pytest.approx(1.2, abs=0.02)


def test_logit_normal_times():
    log_odds = make(times=LogitNormalTimes(mean=-1.0, std=0.5))._times(100_000, torch.device("cpu")).logit()
    assert float(log_odds.mean()) == pytest.approx(-1.0, abs=0.01)
    assert float(log_odds.std()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("path", ["linear", "cosine", "variance-preserving"])
def test_the_loss_is_that_of_karras(path):
    """``(sigma^2 + sigma_data^2)/(sigma sigma_data)^2 |D(y + sigma e, sigma) - y|^2``, without any path."""
    model, images = make(path=path, **EDM_NOISE), torch.randn(4, 3, 8, 8)
    torch.nn.init.normal_(model.h.weight)
    masks = torch.randint(0, 2, (4, 1, 8, 8), dtype=torch.uint8)
    torch.manual_seed(7)
    found = model.loss(images, MaskSet.uniform(masks, BINARY))["loss"]
    y, _ = model.encode(masks[:, 0])
    torch.manual_seed(7)
    MaskSet.uniform(masks, BINARY).sample_one()
    noise, sigma = torch.randn_like(y), (0.5 + 1.2 * torch.randn(4)).exp()
    s = sigma[:, None, None, None]
    mean = edm_posterior_mean(
        lambda x, told: model.network(images, x, told), y + s * noise, sigma, VarianceExploding(), 0.15
    )
    expected = ((s**2 + 0.15**2) / (s * 0.15) ** 2 * (mean - y) ** 2).mean()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def sampled_by_hand(model, images, noise, guide=lambda x, mean, sigma: mean):
    """Algorithm 1 of Karras et al. (2022); ``guide`` changes the mean at the start of a step."""
    levels = [(80 ** (1 / 7) + i / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(10)] + [0.0]

    def denoise(x, sigma):
        flat = edm_posterior_mean(
            lambda x, told: model.network(images, x, told),
            x.flatten(0, 1), torch.full((x.shape[1],), sigma), VarianceExploding(), 0.15,
        )  # fmt: skip
        return flat.reshape(x.shape)

    x = levels[0] * noise
    for sigma, after in zip(levels[:-1], levels[1:], strict=True):
        slope = (x - guide(x, denoise(x, sigma), sigma)) / sigma
        ahead = x + (after - sigma) * slope
        if after > 0:
            ahead = x + (after - sigma) * (slope + (ahead - denoise(ahead, after)) / after) / 2
        x = ahead
    return x


@pytest.mark.parametrize("path", ["linear", "cosine", "variance-preserving"])
@pytest.mark.parametrize("guidance", [None, SpellSettings(radius=12.0, times_noise=True, least_noise=40.0)])
def test_the_sampler_is_that_of_karras(path, guidance):
    """On every path; and SPELL as in the public code of Gerard and Sullivan, at the start of two steps."""
    model = make(path=path, guidance=guidance, **EDM_NOISE)
    torch.nn.init.normal_(model.h.weight, std=0.3)
    images, noise = torch.randn(1, 3, 8, 8), torch.randn(1, 5, 1, 8, 8)

    def guide(x, mean, sigma):
        if guidance is None or sigma < 40:
            return mean
        masks = (mean[0].flatten(1) + 1) / 2
        moved = torch.zeros_like(masks)
        for i in range(5):
            for j in range(5):
                gap = masks[i] - masks[j]
                if i != j:
                    moved[i] += gap * max(0.0, 6.0 / float(gap.norm()) - 1)
        return mean + sigma * 2 * moved.reshape(mean.shape)

    with torch.no_grad():
        expected = sampled_by_hand(model, images.repeat(5, 1, 1, 1), noise, guide)
        found = model._integrate(images, noise)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_a_flow_of_noise_levels_starts_where_it_samples():
    """Velocity decomposition asks it as its sampler does: sigma = 80, not time 0, which training never saw."""
    model = make(**EDM_NOISE)
    assert model.start == pytest.approx(1 / 81) and make().start == 0
    asked = []

    def posterior_mean(images, z, time):
        asked.append((z / time[:, None, None, None], time))
        return z

    model.posterior_mean = posterior_mean
    estimate_mean(model, torch.zeros(2, 3, 64, 64), draws=1, generator=torch.Generator().manual_seed(0))
    assert asked[0][1].tolist() == pytest.approx([1 / 81] * 2)
    assert float(asked[0][0].std()) == pytest.approx(80, rel=0.02)


def test_particle_guidance_of_mean_masks():
    """It leaves no gradients, changes the samples, and nothing where its window is never reached."""
    images = torch.randn(1, 3, 8, 8)

    def sample(**settings):
        model = make(**EDM_NOISE, **settings)
        torch.nn.init.normal_(model.h.weight)
        return model, model.predict(images, 4, torch.Generator().manual_seed(0)).probabilities

    preset = resolve(METHODS["flow-matching"], "mmfire-particle")[2].guidance
    model, pushed = sample(guidance=preset)
    assert not pushed.requires_grad and all(p.grad is None for p in model.parameters())
    assert not torch.equal(pushed, sample()[1])
    for form in ("published", "mean-masks"):
        never = ParticleGuidanceSettings(form=form, least_noise=90.0)
        assert torch.equal(sample(guidance=never)[1], sample()[1])


@pytest.mark.parametrize("kind", ["particle", "spell"])
def test_guidance_of_the_presets_spreads_samples_of_two_masks(kind):
    """The best denoiser of two masks, 95 and 5 %: guided samples cover both more often."""
    model = make(**EDM_NOISE)
    images, masks = torch.zeros(200, 3, 8, 8), torch.ones(2, 1, 8, 8)
    masks[1, :, :, :3] = -1

    def posterior_mean(images, z, time):
        alpha, sigma = model.path.alpha(time), model.path.sigma(time)
        far = (z[:, None] - alpha[:, None, None, None, None] * masks).square().flatten(2).sum(2)
        share = (torch.tensor([0.95, 0.05]).log() - far / (2 * sigma.square())[:, None]).softmax(1)
        return torch.einsum("bn,nchw->bchw", share, masks)

    def covered(guidance):
        model.posterior_mean = posterior_mean
        model.settings = replace(model.settings, guidance=guidance)
        found = model.predict(images, 4, torch.Generator().manual_seed(0)).masks
        rare = (found[:, :, :, :3] == 0).flatten(2).float().mean(2) > 0.5
        return float((rare.any(1) & ~rare.all(1)).float().mean())

    assert covered(None) == pytest.approx(1 - 0.95**4, abs=0.06)
    guidance = resolve(METHODS["flow-matching"], f"mmfire-{kind}")[2].guidance
    assert covered(guidance) > covered(None) + 0.02


def test_presets_of_guidance_differ_by_their_guidance_alone():
    presets = METHODS["flow-matching"].presets
    for data, log_mean, radius in (("mmfire", 0.5, 19.2), ("cityscapes", 1.5, 19.05), ("lidc", 1.0, 12.0)):
        plain = resolve(METHODS["flow-matching"], data)
        assert plain[2].times == NoiseLevelTimes(log_mean=log_mean, log_std=1.2)
        assert plain[2].grid == KarrasGrid(rho=7.0, sigma_min=0.002, sigma_max=80.0)
        assert plain[2].guidance is None
        for kind in ("particle", "spell"):
            train, backbone, settings = resolve(METHODS["flow-matching"], f"{data}-{kind}")
            assert (train, backbone) == plain[:2] and settings.guidance.kind == kind
            assert {**presets[f"{data}-{kind}"].settings, "guidance": 0} == {
                **presets[data].settings,
                "guidance": 0,
            }
        assert settings.guidance.radius == pytest.approx(radius)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"times": NoiseLevelTimes(), "grid": KarrasGrid()}, "set parameterisation=edm and grid=karras"),
        ({"times": NoiseLevelTimes(), "parameterisation": "edm"}, "set parameterisation=edm and grid=karras"),
        ({**EDM_NOISE, "time_shift": 2.0}, "time_shift has no effect on grid=karras"),
        ({"grid": KarrasGrid(), "sampler": "dopri5"}, "chooses its own steps"),
        ({"grid": KarrasGrid(rho=0.0)}, "give rho above 0"),
        ({"time_shift": 2.0, "grid": KarrasGrid()}, "time_shift has no effect on grid=karras"),
        ({"guidance": SpellSettings(times_noise=True)}, "set grid=karras"),
        ({"guidance": ParticleGuidanceSettings(form="mean-masks")}, "set sampler=heun and grid=karras"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(AmbisegError, match=message):
        make(**settings)
