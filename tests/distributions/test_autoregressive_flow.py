"""The flow is inverted by its inverse, its log-determinants are those of autograd, and proposition 5.1
holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from ambiseg.distributions.autoregressive_flow import LOG_SCALE_BOUND, AffineAutoregressive
from ambiseg.errors import AmbisegError
from ambiseg.networks.autoregressive import CausalTransformer, MaskedLinear
from model_helpers import perturbed

SHAPES = [(1, 3, 5), (3, 2, 3), (1, 1, 1)]
BODIES = {
    "linear": lambda shape: [MaskedLinear(*shape)],
    "two linear": lambda shape: [MaskedLinear(*shape), MaskedLinear(*shape)],
    "strips": lambda shape: [CausalTransformer(shape[0], (1, 2), 8)],
    "two layers": lambda shape: [CausalTransformer(shape[0], (2, 3), 8, layers=2, heads=2)],
    "wide strips": lambda shape: [CausalTransformer(shape[0], (1, 8), 8, within_strip=True)],
    "mixed": lambda shape: [CausalTransformer(shape[0], (1, 2), 8, within_strip=True), MaskedLinear(*shape)],
}


def stirred(bodies, by=0.2):
    """The flow in float64, with no weight at zero."""
    torch.manual_seed(0)
    return perturbed(AffineAutoregressive(bodies), by).double()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", BODIES)
def test_log_determinants_are_those_of_autograd(kind, shape):
    flow = stirred(BODIES[kind](shape))
    x = torch.randn(2, *shape, dtype=torch.float64)
    for way in (flow, flow.inverse):
        _, found = way(x)
        for one, log_det in zip(x, found, strict=True):
            full = jacobian(lambda part, way=way: way(part[None])[0][0], one).reshape(one.numel(), -1)
            sign, expected = torch.linalg.slogdet(full)
            assert sign > 0
            torch.testing.assert_close(log_det, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", BODIES)
def test_each_direction_undoes_the_other(kind, shape):
    flow = stirred(BODIES[kind](shape))
    x = torch.randn(3, *shape, dtype=torch.float64)
    for there, back in ((flow, flow.inverse), (flow.inverse, flow)):
        y, log_det = there(x)
        again, minus = back(y)
        assert log_det.shape == (3,) and (y - x).abs().max() > 0.01
        torch.testing.assert_close(again, x)
        torch.testing.assert_close(minus, -log_det)


@pytest.mark.parametrize(("by", "passes"), [(0.2, 9), (0.0, 2)])
def test_the_inverse_takes_as_many_passes_as_there_are_strips_and_two_at_the_start(by, passes):
    flow = stirred([CausalTransformer(2, (1, 4), 8)], by)
    x = torch.randn(2, 2, 3, 10, dtype=torch.float64)
    calls = []
    with torch.no_grad():
        y, _ = flow(x)
        flow.bodies[0].register_forward_hook(lambda *_: calls.append(1))
        torch.testing.assert_close(flow.inverse(y)[0], x)
    assert len(calls) == passes


def test_the_inverse_is_exact_where_its_iterates_grow_beyond_all_bounds():
    """Sums of all earlier variables: undone by differences, while plain iterates reach the binomials of
    200."""
    layer = MaskedLinear(1, 10, 20)
    with torch.no_grad():
        layer.weight[0].fill_(1.0)
    x = torch.randint(-3, 4, (2, 1, 10, 20)).float()
    y = x.flatten(1).cumsum(1).view_as(x)
    flow = AffineAutoregressive([layer]).requires_grad_(False)
    torch.testing.assert_close(flow(x)[0], y)
    assert torch.equal(flow.inverse(y)[0], x)


def test_gradients_pass_the_inverse_also_where_its_values_are_right_at_once():
    flow = stirred([MaskedLinear(1, 2, 3)], by=0.0)
    with torch.no_grad():
        flow.bodies[0].weight[0].normal_()
    full = jacobian(lambda y: flow.inverse(y)[0], torch.zeros(1, 1, 2, 3, dtype=torch.float64)).reshape(6, 6)
    expected = torch.eye(6, dtype=torch.float64) + flow.bodies[0].weight[0].detach().tril(-1)
    torch.testing.assert_close(full, expected.inverse())


def test_a_linear_flow_gives_any_full_covariance():
    """Proposition 5.1: from N(mu, diag(sigma^2)) to any N(m, Sigma), Sigma = L L^T, with scales L_ii /
    sigma_i."""
    torch.manual_seed(0)
    shape, count = (2, 2, 3), 12
    body = MaskedLinear(*shape).double()
    order = body.order(2, 3)
    root = torch.randn(count, count, dtype=torch.float64)
    covariance = root @ root.T + 0.1 * torch.eye(count, dtype=torch.float64)
    mean = torch.randn(count, dtype=torch.float64)
    mu, sigma = torch.randn(count, dtype=torch.float64), torch.rand(count, dtype=torch.float64) + 0.5
    sequence = torch.linalg.cholesky(covariance[order][:, order]) / sigma[order]
    with torch.no_grad():
        body.weight.zero_()
        body.weight[0] = sequence
        body.bias[0] = mean[order] - sequence @ mu[order]
        body.bias[1] = LOG_SCALE_BOUND * torch.atanh(sequence.diagonal().log() / LOG_SCALE_BOUND)
    flow = AffineAutoregressive([body])
    a = jacobian(lambda u: flow(u)[0], mu.view(1, *shape)).reshape(count, count)
    assert (a @ torch.diag(sigma**2) @ a.T - covariance).abs().max() < 1e-10
    torch.testing.assert_close(flow(mu.view(1, *shape))[0].flatten(), mean)
    _, log_det = flow(mu.view(1, *shape))
    torch.testing.assert_close(2 * (log_det[0] + sigma.log().sum()), torch.logdet(covariance))


def test_scales_that_depend_on_variables_leave_the_gaussians():
    """eta_2 = exp(v u_1) u_2 has kurtosis 3 exp(4 v^2), with V = 0 it has 3; by Gauss-Hermite quadrature."""
    nodes, weights = (torch.tensor(a) for a in np.polynomial.hermite_e.hermegauss(40))
    u = torch.cartesian_prod(nodes, nodes).view(-1, 1, 1, 2)
    weight = torch.outer(weights, weights).flatten() / (2 * math.pi)
    for v in (0.0, 0.2):
        body = MaskedLinear(1, 1, 2).double()
        with torch.no_grad():
            body.weight.copy_(torch.tensor([0.0, v]).view(2, 1, 1).expand(2, 2, 2))
            eta = AffineAutoregressive([body])(u)[0][:, 0, 0, 1]
        kurtosis = (weight * eta**4).sum() / (weight * eta**2).sum() ** 2
        assert kurtosis.item() == pytest.approx(3 * math.exp(4 * v**2), rel=0.01)


def test_the_density_of_a_masked_flow_integrates_to_one():
    """p(eta) = N(phi(eta); 0, I) |det d phi / d eta| over the plane."""
    flow = stirred([MaskedLinear(1, 1, 2)], by=0.5)
    axis = torch.linspace(-14, 14, 701, dtype=torch.float64)
    with torch.no_grad():
        u, log_det = flow(torch.cartesian_prod(axis, axis).view(-1, 1, 1, 2))
    log_prob = -0.5 * u.square().flatten(1).sum(1) - math.log(2 * math.pi) + log_det
    assert (log_prob.exp().sum() * (axis[1] - axis[0]) ** 2).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", BODIES)
def test_flows_start_near_the_identity(kind):
    torch.manual_seed(0)
    u = torch.randn(16, 2, 4, 6)
    eta, log_det = AffineAutoregressive(BODIES[kind]((2, 4, 6)))(u)
    assert (eta - u).std() < 0.2 and log_det.abs().max() == 0


def test_scales_are_bounded_and_still_trainable():
    body = MaskedLinear(1, 2, 2)
    flow = AffineAutoregressive([body])
    with torch.no_grad():
        body.bias[1].fill_(20.0)
    eta, _ = flow(torch.ones(1, 1, 2, 2))
    eta.sum().backward()
    assert eta.max() <= math.exp(LOG_SCALE_BOUND) * 1.5 and (body.bias.grad[1] > 0).all()


@pytest.mark.parametrize("kind", BODIES)
def test_every_parameter_gets_a_gradient_within_three_steps(kind):
    torch.manual_seed(0)
    flow = AffineAutoregressive(BODIES[kind]((2, 3, 5)))
    optimiser = torch.optim.Adam(flow.parameters(), 1e-3)
    reached = set()
    for _ in range(3):
        optimiser.zero_grad()
        eta, log_det = flow(torch.randn(8, 2, 3, 5))
        ((eta - torch.randn(2, 3, 5)).square().sum() - log_det.sum()).backward()
        reached |= {name for name, p in flow.named_parameters() if p.grad is not None and p.grad.any()}
        optimiser.step()
    assert reached == {name for name, _ in flow.named_parameters()}


@pytest.mark.parametrize("kind", BODIES)
def test_bfloat16_stays_near(kind):
    flow = stirred(BODIES[kind]((2, 3, 5)), by=0.1).float()
    u = torch.randn(4, 2, 3, 5)
    eta, log_det = flow(u)
    with torch.autocast("cpu", torch.bfloat16):
        low, low_det = flow(u)
        back, _ = flow.inverse(low)
    assert low.dtype == low_det.dtype == back.dtype == torch.float32
    assert (low - eta).abs().max() < 0.05 * eta.abs().max() and (low_det - log_det).abs().max() < 0.2
    assert (back - u).abs().max() < 0.1


def test_a_flow_without_networks_is_an_error():
    with pytest.raises(AmbisegError, match="at least one network"):
        AffineAutoregressive([])
