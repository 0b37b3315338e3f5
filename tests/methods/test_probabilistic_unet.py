"""Probabilistic U-Net: divergences and likelihoods agree with closed forms and integrals, schedules do what
they say, nothing is computed twice, and samples take the modes of the training set."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from ambiseg import memory_budget
from ambiseg.distributions.latent import Gaussian
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.probabilistic_unet import ProbabilisticUNetSettings
from ambiseg.methods.probabilistic_unet.model import Combination, ProbabilisticUNet
from ambiseg.mode_probabilities.velocity_decomposition import assignment_counts
from ambiseg.networks.settings import UNetSettings

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)
SMALL = UNetSettings(width=8, depth=2)


def make(labels=BINARY, seed=0, **settings):
    torch.manual_seed(seed)
    return ProbabilisticUNet(3, labels, SMALL, ProbabilisticUNetSettings(**settings)).eval()


def gaussian(count=2, size=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(count, size, generator=g), 2 * torch.randn(count, size, generator=g))


def known(model, prior, posterior):
    """Put known distributions in the place of what the latent nets say."""
    model.prior.forward = lambda images: prior
    model.posterior.forward = lambda images: posterior
    return model


def batch(labels=BINARY, count=2, size=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, labels.classes, (count, 1, size, size), dtype=torch.uint8, generator=g)
    return torch.randn(count, 3, size, size, generator=g), MaskSet.uniform(masks, labels)


def value(model, images, annotations, seed=0):
    torch.manual_seed(seed)
    return model.loss(images, annotations)


# -- distributions -------------------------------------------------------------------------------------------


def test_gaussians_agree_with_torch():
    one, other = gaussian(seed=1), gaussian(seed=2)
    p, q = (Normal(d.mean, (d.log_variance / 2).exp()) for d in (one, other))
    torch.testing.assert_close(one.kl(other), kl_divergence(p, q))
    assert float(one.kl(one).abs().max()) == 0
    z = one.place(torch.randn(2, 5, 3))
    torch.testing.assert_close(other.log_prob(z), q.log_prob(z.movedim(1, 0)).sum(2).T)
    assert torch.equal(one.place(torch.zeros(2, 1, 3))[:, 0], one.mean)


def test_log_variances_are_bounded_smoothly():
    model = make(log_variance_bound=3.0)
    with torch.no_grad():
        model.prior.out.weight.zero_()
        model.prior.out.bias[6:] = torch.tensor([-1e6, -0.1, 0.0, 0.1, 50.0, 1e6])
    found = model.prior(torch.zeros(1, 3, 8, 8)).log_variance[0]
    torch.testing.assert_close(found, torch.tensor([-3.0, -0.1, 0.0, 0.1, 3.0, 3.0]), atol=1e-4, rtol=0)
    free = make(log_variance_bound=0.0)
    free.load_state_dict(model.state_dict())
    assert torch.equal(free.prior(torch.zeros(1, 3, 8, 8)).log_variance[0], model.prior.out.bias[6:])


# -- combination ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_split_convolution_is_one_over_the_concatenation(layers):
    """Equation (2) as the paper draws it: broadcast, concatenate, 1x1 convolutions."""
    combine = Combination(8, 5, 4, layers)
    f, z = torch.randn(2, 8, 6, 7), torch.randn(2, 3, 5)
    weight = torch.cat([combine.from_features.weight, combine.from_latent.weight[..., None, None]], 1)
    for k in range(3):
        both = torch.cat([f, z[:, k, :, None, None].expand(-1, -1, 6, 7)], 1)
        expected = combine.rest(functional.conv2d(both, weight, combine.from_features.bias))
        found = combine(combine.from_features(f), z)[:, k]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    convolutions = 1 + sum(isinstance(layer, torch.nn.Conv2d) for layer in combine.rest)
    assert convolutions == layers


def test_unet_and_prior_run_once(monkeypatch):
    """However many samples there are, and into however many chunks they fall; chunks change nothing."""
    model, (images, annotations) = make(), batch()
    calls = {"g": 0, "prior": 0, "map": 0, "combine": 0}
    parts = {
        "g": model.g,
        "prior": model.prior,
        "map": model.combine.from_features,
        "combine": model.combine,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))

    def found():
        calls.update(dict.fromkeys(calls, 0))
        return model.predict(images, 16, torch.Generator().manual_seed(0)).probabilities

    whole = found()
    assert calls == {"g": 1, "prior": 1, "map": 1, "combine": 1}
    monkeypatch.setattr(memory_budget, "ELEMENTS", 5 * images[:, :1].numel() * 8)
    torch.testing.assert_close(found(), whole)
    assert calls == {"g": 1, "prior": 1, "map": 1, "combine": 4}
    model.log_prob(images, annotations.masks[:, 0], 16), model.mode_probabilities(images, annotations, 16)
    model.latent_grid(images, 4)
    assert calls["g"] == calls["prior"] == calls["map"] == 4


# -- loss ----------------------------------------------------------------------------------------------------


def test_the_loss_is_equation_4_per_pixel_that_counts():
    model, (images, annotations) = make(beta=0.3), batch()
    annotations.masks[0, 0, :3] = 255
    prior, posterior = gaussian(2, 6, seed=1), gaussian(2, 6, seed=2)
    losses = value(known(model, prior, posterior), images, annotations)
    torch.manual_seed(0)
    annotations.sample_one()
    z = posterior.place(torch.randn(2, 6)[:, None])
    nats = cross_entropy(model.combine(model.features(images), z)[:, 0], annotations.masks[:, 0], BINARY)
    total = nats.sum() + 0.3 * posterior.kl(prior).sum()
    torch.testing.assert_close(losses["loss"], total / (64 + 40))
    torch.testing.assert_close(losses["cross_entropy"], nats.mean().detach())
    torch.testing.assert_close(losses["kl"], posterior.kl(prior).sum(1).mean())


def test_an_image_of_nothing_but_void_adds_nothing():
    model, (images, annotations) = make(), batch()
    annotations.masks[1] = 255
    images.requires_grad_()
    losses = value(model, images, annotations)
    losses["loss"].backward()
    assert bool(images.grad[0].any()) and not bool(images.grad[1].any())
    prior, posterior = (
        net(images) for net in (model.prior, lambda x: model.posterior_of(x, annotations.masks[:, 0]))
    )
    torch.testing.assert_close(losses["kl"], posterior.kl(prior)[0].sum().detach())
    annotations.masks[:] = 255
    assert float(value(model, images, annotations)["loss"].detach()) == 0


def test_beta_rises_over_the_warm_up():
    model, (images, annotations) = make(beta=2.0, kl_warmup=0.5), batch()
    found = []
    for progress in (0.0, 0.25, 0.5, 1.0):
        model.progress = progress
        losses = value(model, images, annotations)
        rest = 128 * losses["loss"].detach() - 2 * losses["cross_entropy"]
        found.append(float(rest / (2 * losses["kl"])))
    assert found == pytest.approx([0, 1, 2, 2], abs=1e-3)
    model.progress = 0.0
    start, none = (value(m, images, annotations)["loss"] for m in (model, make(beta=0.0)))
    assert torch.equal(start, none)
    assert make(beta=2.0).beta == 2.0


def test_free_bits_cost_nothing_and_pull_nothing():
    """Only dimensions whose mean over the batch is above the free nats have a gradient."""
    images, annotations = batch()
    prior = Gaussian(torch.zeros(2, 2), torch.zeros(2, 2))
    means = torch.tensor(
        [[0.1, 2.0], [0.1, 0.0]], requires_grad=True
    )  # KL of dimensions: 0.005, 1 on average
    posterior = Gaussian(means, torch.zeros(2, 2))
    model = known(make(latent_size=2, free_bits=0.5, beta=1.0), prior, posterior)
    torch.nn.init.zeros_(model.combine.from_latent.weight)
    losses = value(model, images, annotations)
    torch.testing.assert_close(
        128 * losses["loss"] - 2 * losses["cross_entropy"], torch.tensor(3.0), atol=1e-3, rtol=0
    )
    assert float(losses["kl"]) == pytest.approx(1.005)
    losses["loss"].backward()
    torch.testing.assert_close(means.grad * 128, torch.tensor([[0.0, 2.0], [0.0, 0.0]]))


@pytest.mark.parametrize(("target", "sign"), [(1e-3, 1), (10.0, -1)])
def test_the_multiplier_follows_the_constraint(target, sign):
    """It grows while the cross-entropy is above its bound, falls below it, and rests outside training."""
    model, (images, annotations) = make(constraint="geco", geco_target=target), batch()
    first = value(model, images, annotations)
    assert float(model.geco.multiplier) == 1
    expected = (2 * first["kl"] + 2 * first["cross_entropy"]) / 128 - target
    torch.testing.assert_close(first["loss"].detach(), expected)
    before = 0.0
    model.train()
    for _ in range(50):
        value(model, images, annotations)["loss"].backward()
        after = math.log(float(model.geco.multiplier)) * sign
        assert before < after < before + 0.011
        before = after
    model.geco.multiplier.fill_(5.0)
    after = value(model.eval(), images, annotations)
    excess = 2 * after["cross_entropy"] / 128 - target
    torch.testing.assert_close(after["loss"].detach(), 2 * after["kl"] / 128 + 5 * excess)
    assert float(model.geco.multiplier) == 5
    assert {"geco.multiplier", "geco.violation"} <= set(model.state_dict())


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("extreme", [0.0, 1e4, -1e4])
def test_extremes_stay_finite(labels, half, extreme):
    """Empty, full and one-pixel masks, with log-variances driven apart as far as they go."""
    masks = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    masks[1], masks[2, 0, 3, 4] = 1, 1
    model, images = make(labels).train(), torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        model.prior.out.bias[6:] += extreme
        model.posterior.out.bias[6:] -= extreme
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        losses = value(model, images, MaskSet.uniform(masks, labels))
    losses["loss"].backward()
    assert all(bool(v.isfinite()) and v.dtype == torch.float32 for v in losses.values())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


# -- likelihood ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    """A model with a latent of one dimension, its image, mask, and exact log-likelihood by integration over
    z."""
    model = make(latent_size=1)
    with torch.no_grad():
        model.combine.from_latent.weight.mul_(4)
        model.combine.rest[-1].weight.mul_(8)
    prior = Gaussian(torch.tensor([[0.3]]), torch.tensor([[0.5]]))
    posterior = Gaussian(torch.tensor([[-0.5]]), torch.tensor([[0.8]]))
    images, annotations = batch(count=1, size=4)
    mask = annotations.masks[:, 0].clone()
    mask[0, 0, 0] = 255
    grid = torch.linspace(-12, 12, 4001)
    with torch.no_grad():
        logits = known(model, prior, posterior).combine(model.features(images), grid[None, :, None])[0]
        joint = prior.log_prob(grid[None, :, None])[0] - cross_entropy(
            logits, mask.expand(4001, -1, -1), BINARY
        )
    exact = joint.double().logsumexp(0) + math.log(24 / 4000)
    return model, images, mask, float(exact)


def test_the_bound_meets_the_integral(tiny):
    model, images, mask, exact = tiny
    many = 20_000
    found = model.log_prob(images, mask, many, torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx(exact, abs=0.05)


def test_the_bound_rises_with_the_samples(tiny):
    model, images, mask, exact = tiny
    repeated = images.expand(4000, -1, -1, -1), mask.expand(4000, -1, -1)
    features = model.g(images).detach()
    model.g.forward = lambda x: features.expand(len(x), -1, -1, -1)
    means = []
    for count in (1, 2, 8, 32):
        found = model.log_prob(*repeated, count, torch.Generator().manual_seed(count))
        error = float(found.std()) / math.sqrt(len(found))
        assert float(found.mean()) < exact + 4 * error
        means.append(float(found.mean()))
    assert means[0] + 0.05 < means[1] < means[2] - 0.02 and means[2] < means[3]
    posterior, prior = model.posterior(images), model.prior(images)
    noise = torch.randn(1, 20_000, 1, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        logits = model.combine(model.features(images), posterior.place(noise))[0]
    expected = -cross_entropy(logits, mask.expand(20_000, -1, -1), BINARY).mean() - posterior.kl(prior).sum()
    assert means[0] == pytest.approx(float(expected), abs=0.15)


# -- what it learns ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """Two images with two masks each, of unequal probability."""
    masks = torch.zeros(2, 2, 8, 8, dtype=torch.uint8)
    masks[0, 0, :4], masks[0, 1, 4:] = 1, 1
    masks[1, 0, :, :4] = 1  # its other mask is empty
    annotations = MaskSet(masks, torch.tensor([[0.7, 0.3], [0.4, 0.6]]), BINARY)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = make(latent_size=2).train()
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(250):
        optimiser.zero_grad()
        model.loss(images, annotations)["loss"].backward()
        optimiser.step()
    return model.eval(), images, annotations


def test_samples_take_all_modes(trained):
    model, images, annotations = trained
    samples = model.predict(images, 32, torch.Generator().manual_seed(0))
    for b in range(2):
        for mask in annotations.masks[b]:
            agreement = (samples.masks[b] == mask).flatten(1).float().mean(1)
            assert float(agreement.max()) > 0.9
    found = model.mode_probabilities(images, annotations, 500, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.float(), annotations.weights, atol=0.2, rtol=0)


def test_mode_probabilities_count_samples(trained, monkeypatch):
    model, images, annotations = trained
    samples = model.predict(images, 50, torch.Generator().manual_seed(3))
    monkeypatch.setattr(memory_budget, "ELEMENTS", 7 * images[:, :1].numel() * 8)
    found = model.mode_probabilities(images, annotations, 50, torch.Generator().manual_seed(3))
    torch.testing.assert_close(found, assignment_counts(samples, annotations), atol=1e-6, rtol=0)


def test_a_mask_passes_the_latent_and_is_likelier_than_another(trained):
    model, images, annotations = trained
    noise = torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    unlikely = model.log_prob(images, noise, generator=torch.Generator().manual_seed(0))
    for k in range(2):
        mask = annotations.masks[:, k]
        assert float((model.reconstruct(images, mask).masks[:, 0] == mask).float().mean()) > 0.95
        likely = model.log_prob(images, mask, generator=torch.Generator().manual_seed(0))
        assert bool((likely > unlikely + 10).all()) and bool((likely < 0).all())


def test_the_grid_is_a_slice_of_the_latent_space():
    model, images = make(MULTI, latent_size=3), torch.randn(2, 3, 8, 6)
    grid = model.latent_grid(images, size=3, radius=1.5, axes=(2, 0))
    assert grid.shape == (2, 3, 3, 4, 8, 6)
    prior = model.prior(images)
    z = prior.mean.clone()
    z[:, 2] += 1.5 * (prior.log_variance[:, 2] / 2).exp()
    with torch.no_grad():
        corner = MULTI.probabilities(model.combine(model.features(images), z[:, None])[:, 0])
        middle = MULTI.probabilities(model.combine(model.features(images), prior.mean[:, None])[:, 0])
    torch.testing.assert_close(grid[:, 2, 1], corner)
    torch.testing.assert_close(grid[:, 1, 1], middle)


@pytest.mark.parametrize("axes", [(0, 0), (0, 6), (-1, 0), (0,), (0, 1, 2)])
def test_bad_axes_are_refused(axes):
    with pytest.raises(AmbisegError, match="two different coordinates.*0 to 5"):
        make().latent_grid(torch.zeros(1, 3, 8, 8), axes=axes)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("latent_size", 0),
        ("beta", -1.0),
        ("beta", math.nan),
        ("combine_layers", 0),
        ("free_bits", -0.1),
        ("log_variance_bound", -1.0),
        ("kl_warmup", 1.5),
        ("geco_target", 0.0),
        ("samples", 0),
        ("likelihood_samples", 0),
    ],
)
def test_settings_out_of_range_are_refused(name, wrong):
    with pytest.raises(AmbisegError, match=f"{name} is .*received {wrong}"):
        make(**{name: wrong})


def test_counts_below_one_are_refused():
    model, (images, annotations) = make(), batch()
    with pytest.raises(AmbisegError, match="samples is 1 or more, received 0"):
        model.log_prob(images, annotations.masks[:, 0], 0)
    with pytest.raises(AmbisegError, match="samples is 1 or more, received 0"):
        model.mode_probabilities(images, annotations, 0)
    with pytest.raises(AmbisegError, match="2 steps.*received size 1"):
        model.latent_grid(images, 1)
