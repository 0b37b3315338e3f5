"""Solvers converge with the order that they declare, towards flows that are known in closed form."""

from __future__ import annotations

import importlib.util
import math
import sys

import numpy as np
import pytest
import torch

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.flows.paths import PATHS, VarianceExploding
from ambiseg.flows.solvers import EVALUATIONS, ORDER, TABLEAUS, integrate, noise_levels

MEAN, SPREAD = 0.7, 0.4
INSTALLED = importlib.util.find_spec("torchdiffeq") is not None
ADAPTIVE = pytest.param(
    "dopri5", marks=pytest.mark.skipif(not INSTALLED, reason="torchdiffeq is not installed")
)
ALL = [*TABLEAUS, ADAPTIVE]


def gaussian_flow(path):
    """Marginal velocity of masks N(MEAN, SPREAD^2), by their posterior mean."""

    def velocity(z, t):
        a, s = (f(t).reshape(-1, *[1] * (z.dim() - 1)) for f in (path.alpha, path.sigma))
        mean = (s**2 * MEAN + a * SPREAD**2 * z) / (s**2 + a**2 * SPREAD**2)
        return path.velocity(z, mean, t)

    return velocity


def exact(path, z, t0, t1):
    """The flow of `gaussian_flow`: it keeps ``(z - alpha MEAN)`` in units of the standard deviation of
    p_t."""
    times = torch.tensor([t0, t1], dtype=torch.float64)
    (a0, a1), (s0, s1) = path.alpha(times), path.sigma(times)
    scale = ((a1 * SPREAD).square() + s1.square()).sqrt() / ((a0 * SPREAD).square() + s0.square()).sqrt()
    return a1 * MEAN + scale * (z - a0 * MEAN)


def start(count=7):
    return torch.randn(count, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Counted:
    """A velocity that remembers when it was asked."""

    def __init__(self, velocity):
        self.velocity, self.times = velocity, []

    def __call__(self, z, t):
        assert t.shape == (len(z),) and t.dtype == z.dtype and t.device == z.device
        self.times.append(float(t[0]))
        return self.velocity(z, t)


def convergence(velocity, z, truth, method, t0, t1):
    """Slope of log error against log h."""
    steps = np.array([40, 80, 160, 320])
    errors = [float((integrate(velocity, z, int(n), method, t0, t1) - truth).abs().max()) for n in steps]
    return np.polyfit(np.log(1 / steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("method", TABLEAUS)
def test_order_of_convergence(method, path):
    """Towards the exact flow of a Gaussian. The end is left out: some errors change their sign on the way to
    it.

    The flow is ``z' = lambda z`` with ``lambda = q'/2q``, q the variance of p_t. On the linear path q is
    quadratic, so that ``lambda'' + 6 lambda lambda' + 4 lambda^3 = 0``: the leading error of the midpoint
    method is 0 and its order 3.
    """
    z = start()
    order = 3 if (method, path) == ("midpoint", "linear") else ORDER[method]
    slope = convergence(gaussian_flow(PATHS[path]), z, exact(PATHS[path], z, 0.0, 0.8), method, 0.0, 0.8)
    assert slope == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("method", TABLEAUS)
def test_order_of_convergence_where_the_velocity_is_not_linear(method):
    """``dz/dt = -2 t z^2``, from z at 0 to ``z/(1 + z t^2)``."""
    z = start().abs() + 0.5

    def velocity(z, t):
        return -2 * t[:, None, None, None] * z.square()

    assert convergence(velocity, z, z / (1 + z), method, 0.0, 1.0) == pytest.approx(ORDER[method], abs=0.15)


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("method", TABLEAUS)
def test_from_noise_to_masks(method, path):
    """The exact flow is z_1 = MEAN + SPREAD z_0."""
    z = start()
    torch.testing.assert_close(exact(PATHS[path], z, 0.0, 1.0), MEAN + SPREAD * z)
    error = (integrate(gaussian_flow(PATHS[path]), z, 200, method) - (MEAN + SPREAD * z)).abs().max()
    assert error < 0.03 ** ORDER[method]


@pytest.mark.parametrize("method", TABLEAUS)
def test_tableaus_are_consistent(method):
    tableau = TABLEAUS[method]
    assert sum(tableau.weights) == pytest.approx(1)
    assert [sum(row) for row in tableau.rows] == pytest.approx(tableau.nodes)
    assert [len(row) for row in tableau.rows] == list(range(len(tableau.nodes)))


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("tolerance", [1e-5, 1e-7, 1e-10])
def test_dopri5_keeps_its_tolerance(path, tolerance):
    pytest.importorskip("torchdiffeq")
    z = start()
    velocity = Counted(gaussian_flow(PATHS[path]))
    found = integrate(velocity, z, method="dopri5", rtol=tolerance, atol=tolerance)
    assert (found - (MEAN + SPREAD * z)).abs().max() < 10 * tolerance
    assert min(velocity.times) == 0 and max(velocity.times) <= 1


def test_two_modes_get_their_shares():
    """Masks -1 (one quarter) and 1 (three quarters), each with a spread of 0.1, in one dimension."""
    weights, centres, spread = torch.tensor([0.25, 0.75]), torch.tensor([-1.0, 1.0]), 0.1
    path = PATHS["linear"]

    def velocity(z, t):
        a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
        variance = s**2 + a**2 * spread**2
        w = (weights.log() - (z - a * centres).square() / variance / 2).softmax(1)
        means = (s**2 * centres + a * spread**2 * z) / variance
        return path.velocity(z, (w * means).sum(1, keepdim=True), t)

    z = torch.randn(40_000, 1, generator=torch.Generator().manual_seed(0))
    found = integrate(velocity, z, 100, "heun")
    right = found > 0
    assert float(right.float().mean()) == pytest.approx(0.75, abs=0.01)
    assert float(found[right].mean()) == pytest.approx(1.0, abs=0.01)
    assert float(found[right].std()) == pytest.approx(spread, abs=0.01)
    assert float(found[~right].mean()) == pytest.approx(-1.0, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ALL)
def test_no_velocity_no_change(method, dtype):
    z = start().to(dtype)
    found = integrate(lambda z, t: torch.zeros_like(z), z, 3, method)
    torch.testing.assert_close(found, z)


@pytest.mark.parametrize("path", ["linear", "cosine"])
@pytest.mark.parametrize("method", ["rk4", ADAPTIVE])
def test_there_and_back(method, path):
    velocity, z = gaussian_flow(PATHS[path]), start()
    options = {"steps": 200, "method": method, "rtol": 1e-9, "atol": 1e-9}
    end = integrate(velocity, z, **options)
    assert (end - z).abs().max() > 0.1
    torch.testing.assert_close(integrate(velocity, end, t0=1.0, t1=0.0, **options), z, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ALL)
def test_gradients_flow_through(method):
    z = start().requires_grad_()
    found = integrate(gaussian_flow(PATHS["linear"]), z, 100, method)
    (slope,) = torch.autograd.grad(found.sum(), z)
    torch.testing.assert_close(slope, torch.full_like(z, SPREAD), atol=0.01, rtol=0)
    with torch.no_grad():
        assert not integrate(gaussian_flow(PATHS["linear"]), z, 2, method).requires_grad


@pytest.mark.parametrize("method", TABLEAUS)
def test_evaluations_are_counted(method):
    for last in (None, "euler"):
        velocity = Counted(gaussian_flow(PATHS["cosine"]))
        integrate(velocity, start(), 7, method, last=last)
        saved = 0 if last is None else EVALUATIONS[method] - EVALUATIONS[last]
        assert len(velocity.times) == 7 * EVALUATIONS[method] - saved


def test_a_grid_takes_the_place_of_steps():
    z, velocity = start(), gaussian_flow(PATHS["linear"])
    even = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(
        integrate(velocity, z, method="heun", grid=even), integrate(velocity, z, 8, "heun", 0.1, 0.9)
    )
    uneven = Counted(velocity)
    integrate(uneven, z, method="euler", grid=torch.tensor([0.0, 0.5, 0.75]))
    assert uneven.times == [0.0, 0.5]


def test_an_euler_step_last_ends_in_the_posterior_mean():
    """Where it is not known at t = 1, Heun would otherwise use a velocity that is not there."""
    path = PATHS["linear"]
    mask = torch.ones(3, 1, dtype=torch.float64)
    z = start(3)[:, :, 0, 0]
    velocity = Counted(lambda z, t: path.velocity(z, mask, t))
    torch.testing.assert_close(integrate(velocity, z, 10, "heun", last="euler"), mask)
    assert max(velocity.times) < 1
    assert (integrate(velocity, z, 10, "heun") - mask).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [3, 7, 10, 49])
def test_the_last_time_is_exactly_the_end(steps, dtype):
    velocity = Counted(lambda z, t: torch.zeros_like(z))
    integrate(velocity, start().to(dtype), steps, "heun")
    assert velocity.times[-1] == 1 and max(velocity.times) == 1


def test_noise_levels_of_known_limits():
    """rho = 1: equally far apart; rho to infinity: equal ratios; between them the published formula."""
    equal = noise_levels(9, 1.0, 0.5, 80.0)
    torch.testing.assert_close(equal[:-1], torch.linspace(80.0, 0.5, 9, dtype=torch.float64))
    ratios = noise_levels(9, 1e6, 0.5, 80.0)[:-1].log().diff()
    torch.testing.assert_close(ratios, ratios.mean().expand(8), rtol=1e-3, atol=0)
    published = [(80 ** (1 / 7) + i / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(10)]
    assert noise_levels(10).tolist() == pytest.approx([*published, 0.0])
    assert noise_levels(1).tolist() == pytest.approx([80.0, 0.0])


def mixture_of_masks(x, level):
    """The mean of masks -1 (one quarter) and 1 (three quarters) given ``x = y + level e``, elementwise."""
    return torch.tanh(x / column(level).square() + math.log(3.0) / 2)


def gaussian_masks(x, level):
    """The mean of masks N(MEAN, SPREAD^2)."""
    variance = column(level).square()
    return (variance * MEAN + SPREAD**2 * x) / (variance + SPREAD**2)


def column(level):
    return level.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("denoiser", [gaussian_masks, mixture_of_masks])
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_of_steps_between_noise_levels_falls_with_their_order(denoiser, method, order):
    """From level 80 to 0.5, where a mixture of masks still has states between them."""
    z = 80 * start()

    def ends_at(steps, method):
        levels = noise_levels(steps, 7.0, 0.5, 80.0)[:-1]
        path = VarianceExploding()
        return integrate(
            lambda x, level: path.velocity(x, denoiser(x, level), level), z, method=method, grid=levels
        )

    truth = ends_at(400, "rk4")
    if denoiser is gaussian_masks:
        scale = ((0.5**2 + SPREAD**2) / (80.0**2 + SPREAD**2)) ** 0.5
        torch.testing.assert_close(truth, MEAN + scale * (z - MEAN), rtol=1e-6, atol=1e-6)
    steps = np.array([80, 160, 320])
    errors = [float((ends_at(int(n), method) - truth).abs().max()) for n in steps]
    assert np.polyfit(np.log(1 / steps), np.log(errors), 1)[0] == pytest.approx(order, abs=0.2)


def test_ten_steps_between_noise_levels_end_in_masks_with_their_frequencies():
    path = VarianceExploding()
    z = torch.randn(20_000, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = noise_levels(10)
    found = integrate(
        lambda x, level: path.velocity(x, mixture_of_masks(x, level), level),
        levels[0] * z, method="heun", grid=levels, last="euler",
    )  # fmt: skip
    assert float((found.abs() - 1).abs().max()) < 1e-3
    assert float((found > 0).double().mean()) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(("counted", "moved"), [(3.0, 2.0), (1.0, 1.0)])
def test_a_push_acts_at_the_start_of_each_step_alone(counted, moved):
    """Heun's first slope of 1 becomes 3 on the way to the second state, and what is given in the sum."""
    z, seen, asked = start(), [], []

    def velocity(z, t):
        seen.append((float(t[0]), z))
        return torch.ones_like(z)

    def push(z, v, t):
        asked.append(float(t[0]))
        return 3 * v, counted * v

    found = integrate(velocity, z, 4, "heun", push=push)
    torch.testing.assert_close(found, z + moved)
    assert asked == [0.0, 0.25, 0.5, 0.75]
    torch.testing.assert_close(seen[1][1], z + 3 * 0.25)


def test_mistakes_are_named(monkeypatch):
    still, z = (lambda z, t: torch.zeros_like(z)), start()
    with pytest.raises(UnknownNameError, match="did you mean 'heun'"):
        integrate(still, z, 3, "huen")
    with pytest.raises(UnknownNameError):
        integrate(still, z, 3, "heun", last="dopri5")
    for steps in (0, -2):
        with pytest.raises(AmbisegError, match="at least 1"):
            integrate(still, z, steps)
    with pytest.raises(AmbisegError, match="leave it out"):
        integrate(still, z, 3, "dopri5", last="euler")
    with pytest.raises(AmbisegError, match="leave it out"):
        integrate(still, z, 3, "dopri5", push=lambda z, v, t: (v, v))
    for wrong in (
        {"steps": 0},
        {"steps": 3, "rho": 0.0},
        {"steps": 3, "sigma_min": 0.0},
        {"steps": 3, "sigma_max": 0.001},
    ):
        with pytest.raises(AmbisegError, match="noise levels"):
            noise_levels(**wrong)
    for grid in ([0.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.5], [0.0, math.nan]):
        with pytest.raises(AmbisegError, match="rise or all fall"):
            integrate(still, z, grid=torch.tensor(grid))
    with pytest.raises(AmbisegError, match="one axis"):
        integrate(still, z, grid=torch.zeros(2, 2))
    with pytest.raises(AmbisegError, match="must agree"):
        integrate(lambda z, t: z[:, :, :1], z, 3)
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(AmbisegError, match="torchdiffeq, which is not installed"):
        integrate(still, z, 3, "dopri5")


def test_dopri5_says_when_it_cannot_go_on():
    pytest.importorskip("torchdiffeq")
    with pytest.raises(AmbisegError, match="cannot follow"):
        integrate(lambda z, t: z.sign() / (0.5 - t).abs().clamp(min=1e-30)[0], start(), method="dopri5")
    for tolerances in ({"rtol": 0.0}, {"atol": 0.0}, {"rtol": -1.0}):
        with pytest.raises(AmbisegError, match="tolerances are above 0"):
            integrate(lambda z, t: z, start(), method="dopri5", **tolerances)


@pytest.mark.parametrize("method", ["heun", ADAPTIVE])
def test_a_state_that_is_not_finite_is_named_with_its_step_and_image(method):
    where = "at t = " if method == "dopri5" else r"after step 3 of 4 \(t = 0.75\)"

    def velocity(z, t):
        broken = torch.zeros_like(z)
        broken[2] = math.nan if float(t[0]) > 0.6 else 0.0
        return broken

    with pytest.raises(AmbisegError, match=f"image 2 of the batch is not finite {where}"):
        integrate(velocity, torch.zeros(4, 1, 2, 2), 4, method)
