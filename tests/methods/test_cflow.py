"""cFlow: log-determinants are those of autograd, steps can be undone, densities integrate to 1, without steps it is the
probabilistic U-Net, and the likelihood meets an integral."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import softplus

from ambiseg.distributions.latent import Gaussian
from ambiseg.distributions.latent_flows import FLOWS, Pulled, Pushed
from ambiseg.distributions.latent_steps import Planar, Radial
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.evidence import evidence_loss
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.cflow import CFlowSettings
from ambiseg.methods.cflow.model import CFlow
from ambiseg.methods.probabilistic_unet import ProbabilisticUNetSettings
from ambiseg.methods.probabilistic_unet.model import ProbabilisticUNet
from ambiseg.nested_settings import number_problems
from ambiseg.networks.settings import UNetSettings

BINARY = LabelSpace.binary()
SMALL = UNetSettings(width=8, depth=2)
KINDS = list(FLOWS)


def make(seed=0, **settings):
    torch.manual_seed(seed)
    return CFlow(3, BINARY, SMALL, CFlowSettings(**settings)).eval()


def drawn_flow(kind, size, steps=2, std=0.4, seed=0):
    """A flow in double precision that is far from the identity."""
    torch.manual_seed(seed)
    flow = FLOWS[kind](size, 3, steps).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return flow


def batch(count=2, size=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (count, 1, size, size), dtype=torch.uint8, generator=g)
    return torch.randn(count, 3, size, size, generator=g), MaskSet.uniform(masks, BINARY)


# -- steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_log_determinants_are_those_of_autograd(kind, size):
    flow = drawn_flow(kind, size)
    z, context = torch.randn(2, 3, size).double(), torch.randn(2, 3).double()
    _, found = flow(z, context)
    for b in range(2):
        for k in range(3):
            jacobian = torch.autograd.functional.jacobian(
                lambda v, b=b: flow(v[None, None], context[b : b + 1])[0][0, 0], z[b, k]
            )
            sign, expected = torch.linalg.slogdet(jacobian)
            assert float(sign) == 1
            torch.testing.assert_close(found[b, k].detach(), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_can_be_undone_and_begin_as_the_identity(kind):
    flow = drawn_flow(kind, 6, steps=4, std=0.2)
    z, context = torch.randn(2, 50, 6).double(), torch.randn(2, 3).double()
    moved, _ = flow(z, context)
    assert float((moved - z).detach().abs().max()) > 0.01
    torch.testing.assert_close(flow.inverse(moved, context), z, atol=1e-8, rtol=0)
    new = FLOWS[kind](6, 3, 4).double()
    same, log_det = new(z, context)
    torch.testing.assert_close(same, z)
    torch.testing.assert_close(log_det, torch.zeros_like(log_det))


@pytest.mark.parametrize("factor", [1e-6, 1.0, 10.0, -10.0])
def test_a_planar_step_is_that_of_the_paper_for_any_u(factor):
    """Rezende and Mohamed, appendix A.1: of what a network says only the part of u along w changes."""
    torch.manual_seed(0)
    w, b, z = torch.randn(4, 3).double(), torch.randn(4).double(), torch.randn(4, 5, 3).double()
    step = Planar(factor * w + torch.randn(4, 3).double(), w, b)
    moved, log_det = step.forward(z)
    for i in range(4):
        product = step.u[i] @ w[i]
        wanted = softplus(product + math.log(math.e - 1)) - 1
        constrained = step.u[i] + (wanted - product) * w[i] / (w[i] @ w[i])
        assert float(w[i] @ constrained) > -1 - 1e-9
        for k in range(5):
            h = torch.tanh(w[i] @ z[i, k] + b[i])
            torch.testing.assert_close(moved[i, k], z[i, k] + constrained * h)
            torch.testing.assert_close(log_det[i, k], (1 + w[i] @ constrained * (1 - h**2)).log())
    torch.testing.assert_close(step.inverse(moved), z, atol=1e-6, rtol=0)


def test_steps_without_a_direction_change_nothing():
    """w = 0 or nearly so, and latents at the very centre: no division by 0, also not of gradients."""
    z = torch.zeros(1, 2, 3)
    for w in (0.0, 1e-20, 1e-8):
        u, direction = torch.ones(1, 3, requires_grad=True), torch.full((1, 3), w, requires_grad=True)
        moved, log_det = Planar(u, direction, torch.zeros(1)).forward(z + 1)
        (moved.sum() + log_det.sum()).backward()
        assert bool(u.grad.isfinite().all()) and bool(direction.grad.isfinite().all())
        torch.testing.assert_close(moved.detach(), z + 1, atol=1e-6, rtol=0)
    centre = torch.zeros(1, 3, requires_grad=True)
    moved, log_det = Radial(centre, torch.zeros(1), torch.ones(1)).forward(z)
    (moved.sum() + log_det.sum()).backward()
    assert torch.equal(moved.detach(), z) and bool(centre.grad.isfinite().all())


@pytest.mark.parametrize(("kind", "size"), [("planar", 1), ("radial", 1), ("coupling", 2)])
def test_densities_integrate_to_one_and_are_those_of_the_samples(kind, size):
    flow, context = drawn_flow(kind, size), torch.ones(1, 3).double()
    base = Gaussian(torch.zeros(1, size).double(), torch.full((1, size), -0.5).double())
    pulled, pushed = Pulled(base, flow, context), Pushed(base, flow, context)
    line = torch.linspace(-20, 20, 4001 if size == 1 else 401).double()
    grid = torch.cartesian_prod(*[line] * size).view(1, -1, size)
    cell = float(line[1] - line[0]) ** size
    assert float(pulled.log_prob(grid).exp().sum().detach()) * cell == pytest.approx(1, abs=2e-3)
    noise = torch.randn(1, 20, size).double()
    z, density = pushed.sampled(noise)
    moved, log_det = flow(base.place(noise), context)
    torch.testing.assert_close(z, moved)
    torch.testing.assert_close(density, base.log_prob(base.place(noise)) - log_det)
    torch.testing.assert_close(flow(pulled.place(noise), context)[0], base.place(noise))


# -- the model -----------------------------------------------------------------------------------------------


def test_without_steps_it_is_the_probabilistic_unet():
    images, annotations = batch()
    with_free_bits = {"free_bits": 0.3, "kl_warmup": 0.2}
    plain = ProbabilisticUNet(3, BINARY, SMALL, ProbabilisticUNetSettings(**with_free_bits)).eval()
    model = make(steps=0, **with_free_bits)
    model.load_state_dict(plain.state_dict())

    def everything(one):
        torch.manual_seed(0)
        losses, g = one.loss(images, annotations), torch.Generator().manual_seed(0)
        losses["loss"].backward()
        drawn, mask = one.predict(images, 5, g), annotations.masks[:, 0]
        gradients = [p.grad for p in one.parameters()]
        found = [
            drawn.probabilities,
            one.log_prob(images, mask, 3, g),
            one.reconstruct(images, mask).probabilities,
        ]
        return [*losses.values(), *gradients, *found]

    for pair in zip(everything(plain), everything(model), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-6)  # threads sum in any order


@pytest.mark.parametrize("kind", KINDS)
def test_the_divergence_of_identities_is_the_closed_form_on_average(kind):
    model, (images, annotations) = make(flow=kind, prior_steps=2), batch()
    posterior, prior = model.posterior_of(images, annotations.masks[:, 0]), model.prior_of(images)
    noise = torch.randn(2, 20_000, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z, density = posterior.sampled(noise)
        found = (density - prior.log_prob(z)).mean(1)
        torch.testing.assert_close(found, posterior.base.kl(prior.base).sum(1), atol=0.05, rtol=0.02)


def test_the_loss_has_the_divergence_of_the_sample_it_decodes():
    model, (images, annotations) = make(beta=0.3, prior_steps=1), batch()
    for flow in (model.flow, model.prior_flow):
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    torch.manual_seed(0)
    losses = model.loss(images, annotations)
    torch.manual_seed(0)
    masks = annotations.sample_one().masks[:, 0]
    posterior, prior = model.posterior_of(images, masks), model.prior_of(images)
    start = posterior.base.place(torch.randn(2, 6)[:, None])
    z, log_det = model.flow(start, posterior.context)
    divergence = (posterior.base.log_prob(start) - log_det - prior.log_prob(z))[:, 0]
    nats = cross_entropy(model.combine(model.features(images), z)[:, 0], masks, BINARY)
    torch.testing.assert_close(losses["loss"], (nats + 0.3 * divergence).sum() / 128)
    torch.testing.assert_close(losses["kl"], divergence.mean().detach())


def test_an_estimate_below_zero_keeps_its_gradient():
    divergence = torch.full((1, 1), -2.0, requires_grad=True)
    found = evidence_loss(torch.tensor([8.0]), divergence, torch.tensor([4]), beta=2.0)
    found["loss"].backward()
    assert float(found["loss"].detach()) == 1.0 and float(divergence.grad) == 0.5


@pytest.mark.parametrize("kind", ["planar", "radial"])
def test_the_likelihood_meets_the_integral(kind):
    """Of a latent of one dimension, with flows of both distributions."""
    model, (images, annotations) = make(flow=kind, latent_size=1, prior_steps=2), batch(1, size=4)
    with torch.no_grad():
        for flow in (model.flow, model.prior_flow):
            for parameter in flow.parameters():
                torch.nn.init.normal_(parameter, std=0.4)
        model.combine.from_latent.weight.mul_(4)
        mask, line = annotations.masks[:, 0], torch.linspace(-12, 12, 2001)
        prior = model.prior_of(images).log_prob(line[None, :, None])[0]
        logits = model.combine(model.features(images), line[None, :, None])[0]
        joint = prior - cross_entropy(logits, mask.expand(2001, -1, -1), BINARY)
        exact = float(joint.double().logsumexp(0)) + math.log(24 / 2000)
        found = model.log_prob(images, mask, 5000, torch.Generator().manual_seed(0))
    assert float(found) == pytest.approx(exact, abs=0.05)


def test_spread_scales_the_samples():
    images, _ = batch()
    still, whole = make(spread=0.0), make()
    masks = still.predict(images, 4, torch.Generator().manual_seed(0)).probabilities
    torch.testing.assert_close(masks, masks[:, :1].expand_as(masks))
    torch.testing.assert_close(still.latent_grid(images, 3)[:, 1, 1], masks[:, 0])
    half = make(spread=0.5)
    logits = [
        next(m.drawn(m.encode(images), 8, torch.Generator().manual_seed(0))).detach()
        for m in (still, half, whole)
    ]
    assert float((logits[1] - logits[0]).norm()) < 0.8 * float((logits[2] - logits[0]).norm())


@pytest.mark.parametrize("kind", KINDS)
def test_extremes_stay_finite(kind):
    """Empty, full and one-pixel masks, with flows that a network drives far away."""
    masks = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    masks[1], masks[2, 0, 3, 4] = 1, 1
    model, images = make(flow=kind, prior_steps=2).train(), torch.randn(3, 3, 8, 8)
    for flow in (model.flow, model.prior_flow):
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=1.0 if kind == "coupling" else 3.0)
    losses = model.loss(images, MaskSet.uniform(masks, BINARY))
    losses["loss"].backward()
    assert all(bool(v.isfinite()) for v in losses.values())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert bool(model.eval().predict(images, 3).probabilities.isfinite().all())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": -1}, "steps is 0 or more, received -1"),
        ({"prior_steps": -2}, "prior_steps is 0 or more, received -2"),
        ({"spread": float("nan")}, "spread is 0 or more, received nan"),
        ({"flow": "coupling", "latent_size": 1}, "2 dimensions or more, received latent_size=1"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(AmbisegError, match=words):
        make(**settings)


def test_settings_without_steps_are_no_problem():
    assert number_problems(CFlowSettings(steps=0)) == []
    assert number_problems(CFlowSettings(steps=-1)) == ["steps must be at least 0, received -1"]


@pytest.mark.parametrize("kind", FLOWS)
def test_a_prior_with_a_flow_is_drawn_from_in_bfloat16(kind):
    model, images = make(flow=kind, prior_steps=2), torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = model.predict(images, 3, torch.Generator().manual_seed(0))
    whole = model.predict(images, 3, torch.Generator().manual_seed(0))
    assert torch.allclose(masks.probabilities.float(), whole.probabilities, atol=0.05)
