"""Paths keep their equations: derivatives, ends, velocity and posterior mean, preconditioning with closed
forms."""

from __future__ import annotations

import math

import pytest
import torch

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.flows.paths import (
    FLOOR,
    PATHS,
    VarianceExploding,
    VariancePreserving,
    c_in,
    c_noise,
    c_out,
    c_skip,
    edm_loss_weight,
    edm_posterior_mean,
    edm_sigma,
    path_named,
)
from ambiseg.methods.flow_matching import FlowMatchingSettings, KarrasGrid, NoiseLevelTimes, UniformTimes
from ambiseg.methods.mode_proposals import ModeProposalsSettings, proposals_from_flow

T = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
WHOLE = torch.linspace(0, 1, 101, dtype=torch.float64)


def draws(count=25, seed=0):
    """Masks in {-1, 1} and noise, ``(count, 2, 3, 5)``."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 2, 3, 5, generator=g, dtype=torch.float64)
    return 2 * (torch.rand(noise.shape, generator=g) < 0.4).double() - 1, noise


def column(value):
    return value[:, None, None, None]


@pytest.fixture(params=PATHS)
def path(request):
    return PATHS[request.param]


def test_derivatives_are_those_of_the_schedules(path):
    t = T.clone().requires_grad_()
    for schedule, derivative in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        (slope,) = torch.autograd.grad(schedule(t).sum(), t)
        torch.testing.assert_close(derivative(T), slope)


def test_from_noise_to_mask(path):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    nearly = math.exp(-5.025) if isinstance(path, VariancePreserving) else 0.0
    assert path.alpha(ends).tolist() == pytest.approx([nearly, 1.0])
    assert path.sigma(ends).tolist() == pytest.approx([math.sqrt(1 - nearly**2), 0.0])
    assert path.sigma(ends.float())[1] == 0
    assert (path.alpha(WHOLE).diff() > 0).all() and (path.sigma(WHOLE).diff() < 0).all()


def test_cosine_and_diffusion_keep_the_variance():
    for name in ("cosine", "variance-preserving"):
        path = PATHS[name]
        torch.testing.assert_close(
            path.alpha(WHOLE).square() + path.sigma(WHOLE).square(), torch.ones_like(WHOLE)
        )


def test_the_target_is_the_velocity_of_its_own_state(path):
    y, noise = draws()
    z = path.sample(y, noise, T)
    torch.testing.assert_close(path.velocity(z, y, T), path.target(y, noise, T))
    by_hand = torch.stack(
        [path.alpha(t) * a + path.sigma(t) * e for t, a, e in zip(T, y, noise, strict=True)]
    )
    torch.testing.assert_close(z, by_hand)


def test_velocity_as_printed(path):
    y, noise = draws()
    a, s, da, ds = (column(f(T)) for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma))
    printed = (da - a * ds / s) * y + ds / s * noise
    torch.testing.assert_close(path.velocity(noise, y, T), printed)


def test_posterior_mean_and_velocity_are_inverse(path):
    z, v = draws()
    torch.testing.assert_close(path.velocity(z, path.posterior_mean(z, v, T), T), v)
    torch.testing.assert_close(path.posterior_mean(z, path.velocity(z, v, T), T), v)


def test_mixture_of_masks(path):
    """The marginal velocity (19) and the posterior mean have the same weights."""
    modes = draws(3, seed=1)[0][:, 0, 0]
    p = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    z = draws(len(T), seed=2)[1][:, 0, 0]
    a, s = path.alpha(T)[:, None, None], path.sigma(T)[:, None, None]
    log_density = -((z[:, None] - a * modes) / s).square().sum(-1) / 2
    w = (log_density + p.log()).softmax(1)
    each = torch.stack([path.velocity(z, m.expand_as(z), T) for m in modes], 1)
    marginal = (w[:, :, None] * each).sum(1)
    torch.testing.assert_close(path.posterior_mean(z, marginal, T), w @ modes)
    torch.testing.assert_close(path.velocity(z, w @ modes, T), marginal)


def test_velocity_at_the_start_is_the_mean_minus_the_noise():
    y, noise = draws()
    t = torch.zeros(len(y), dtype=torch.float64)
    torch.testing.assert_close(PATHS["linear"].velocity(noise, y, t), y - noise)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_breaks_at_the_ends(path, dtype):
    near = torch.tensor([0.0, 1e-7, 1e-4, 0.5, 1 - 1e-4, 1 - 1e-7, 1.0], dtype=dtype)
    y, noise = (v.to(dtype) for v in draws(len(near)))
    z = path.sample(y, noise, near)
    for value in (
        z,
        path.target(y, noise, near),
        path.velocity(z, y, near),
        path.posterior_mean(z, noise, near),
    ):
        assert torch.isfinite(value).all() and value.dtype == dtype
    one = torch.ones(len(near), dtype=dtype)
    torch.testing.assert_close(path.posterior_mean(z, 7 * noise, one), z)
    torch.testing.assert_close(path.velocity(z, y, one), column(path.d_alpha(one)) * y)
    for level in (path.alpha, path.sigma, path.d_alpha, path.d_sigma):
        assert torch.isfinite(level(near)).all()


def test_one_time_for_all_and_the_type_of_the_state(path):
    y, noise = (v.float() for v in draws())
    one = torch.tensor(0.3, dtype=torch.float64)
    many = one.expand(len(y))
    for f in (path.sample, path.target, path.velocity, path.posterior_mean):
        assert torch.equal(f(y, noise, one), f(y, noise, many)) and f(y, noise, one).dtype == torch.float32


def test_names():
    assert all(path_named(name) is path for name, path in PATHS.items())
    with pytest.raises(UnknownNameError, match="did you mean 'cosine'"):
        path_named("cosin")
    with pytest.raises(AmbisegError, match="beta_min"):
        VariancePreserving(beta_min=0.0)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_the_best_network_of_a_gaussian_law(path, sigma_data):
    """Masks N(0, sigma_data^2): D is the linear estimate and F has nothing to add."""
    z = draws()[1]
    a, s = column(path.alpha(T)), column(path.sigma(T))
    truth = a * sigma_data**2 / (a**2 * sigma_data**2 + s**2) * z
    found = edm_posterior_mean(lambda x, noise: torch.zeros_like(x), z, T, path, sigma_data)
    torch.testing.assert_close(found, truth)


def test_a_network_that_knows_the_mean(path):
    """Masks N(m, r^2) with m^2 + r^2 = sigma_data^2: F in closed form from what it is given, and nothing
    else."""
    m, r = 0.6, 0.8
    sigma_data = math.hypot(m, r)

    def network(x, noise):
        level = column((4 * noise).exp())
        state = x * (level**2 + sigma_data**2).sqrt()
        mean = (level**2 * m + r**2 * state) / (level**2 + r**2)
        skipped = sigma_data**2 / (level**2 + sigma_data**2) * state
        return (mean - skipped) * (level**2 + sigma_data**2).sqrt() / (level * sigma_data)

    z = draws()[1]
    a, s = column(path.alpha(T)), column(path.sigma(T))
    truth = (s**2 * m + a * r**2 * z) / (s**2 + a**2 * r**2)
    torch.testing.assert_close(edm_posterior_mean(network, z, T, path, sigma_data), truth)


def test_input_and_target_of_the_network_have_unit_variance(path):
    """For balanced masks in {-1, 1}, far from Gaussian; exact, as the variances of mask and noise are
    known."""
    sigma_data = 1.0
    level = edm_sigma(T, path)
    seen = c_in(level, sigma_data).square() * (sigma_data**2 + level.square())
    torch.testing.assert_close(seen, torch.ones_like(T))
    mask, noise = 1 - c_skip(level, sigma_data), c_skip(level, sigma_data) * level
    target = (mask.square() * sigma_data**2 + noise.square()) / c_out(level, sigma_data).square()
    torch.testing.assert_close(target, torch.ones_like(T))
    torch.testing.assert_close(
        edm_loss_weight(T, path, sigma_data) * c_out(level, sigma_data).square(), torch.ones_like(T)
    )
    assert torch.allclose(c_noise(level), level.log() / 4)


def test_preconditioning_at_the_ends(path):
    z, said = (v.float() for v in draws(2))
    t = torch.tensor([0.0, 1.0])
    given = []

    def network(x, noise):
        given.append((x, noise))
        return said

    found = edm_posterior_mean(network, z, t, path, 0.7)
    torch.testing.assert_close(found[1], z[1])
    if path.alpha(t)[0] == 0:
        torch.testing.assert_close(found[0], 0.7 * said[0], atol=10 * FLOOR, rtol=1e-4)
    assert torch.isfinite(found).all() and given[0][1].shape == (2,)
    assert all(torch.isfinite(value).all() for value in given[0])
    assert torch.isfinite(edm_loss_weight(t, path, 0.7)).all()


def test_times_and_noise_levels_are_inverse(path):
    t = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    torch.testing.assert_close(path.time(edm_sigma(t, path)), t)
    ends = path.time(torch.tensor([math.inf, 0.0], dtype=torch.float64))
    assert ends.tolist() == [0.0, 1.0]
    times = path.time(torch.tensor([80.0, 1.0, 0.002]))
    assert bool((times.diff() > 0).all()) and times.dtype == torch.float32


def test_a_variance_exploding_model_is_a_model_of_every_path(path):
    """Masks y + sigma e seen by the denoiser of Karras et al. at sigma, and the state of the same mask and
    noise seen on a path at the time of sigma: the same mean, the same weight, the same law of the state."""
    exploding, level = VarianceExploding(), torch.tensor([60.0, 1.3, 0.01], dtype=torch.float64)
    y, noise = draws(3)
    t = path.time(level)

    def network(x, told):
        return torch.tanh(x) * column(told.sin())

    x, z = exploding.sample(y, noise, level), path.sample(y, noise, t)
    torch.testing.assert_close(z / column(path.alpha(t)), x)
    expected = edm_posterior_mean(network, x, level, exploding, 0.15)
    torch.testing.assert_close(edm_posterior_mean(network, z, t, path, 0.15), expected)
    weight = (level**2 + 0.15**2) / (level * 0.15) ** 2
    torch.testing.assert_close(edm_loss_weight(t, path, 0.15), weight)
    torch.testing.assert_close(edm_loss_weight(level, exploding, 0.15), weight)


def test_a_euler_step_between_noise_levels_is_one_of_the_straight_path():
    """Between the same two noise levels; on other paths, and for Heun, it is another."""
    levels = torch.tensor([5.0, 2.0], dtype=torch.float64)
    mean, x = draws(2)
    straight, exploding = PATHS["linear"], VarianceExploding()
    t, then = straight.time(levels)
    z = straight.alpha(t) * x
    stepped = z + (then - t) * straight.velocity(z, mean, t)
    by_level = x + (levels[1] - levels[0]) * exploding.velocity(x, mean, levels[0])
    torch.testing.assert_close(stepped / straight.alpha(then), by_level)


def test_the_variance_exploding_flow_and_its_mean():
    """Equation 1 of Karras et al.: dx/dsigma = -sigma score = (x - D)/sigma, and D back from it."""
    x, mean = draws(2)
    level = torch.tensor([3.0, 0.5], dtype=torch.float64)
    v = VarianceExploding().velocity(x, mean, level)
    torch.testing.assert_close(v, (x - mean) / column(level))
    torch.testing.assert_close(VarianceExploding().posterior_mean(x, v, level), mean)
    torch.testing.assert_close(VarianceExploding().target(mean, x, level), x)


@pytest.mark.parametrize("times", [UniformTimes(), NoiseLevelTimes()])
def test_what_proposals_tell_an_edm_network_is_its_word_for_noise(times):
    flow = FlowMatchingSettings(parameterisation="edm", times=times, grid=KarrasGrid(sigma_max=80.0))
    noise = torch.tensor(80.0 if isinstance(times, NoiseLevelTimes) else math.inf)
    told = proposals_from_flow(ModeProposalsSettings(), flow).flow_time
    assert pytest.approx(float(c_noise(noise))) == told
