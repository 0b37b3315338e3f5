"""Flow-SSN: densities of its own samples, likelihoods that are distributions, a flow that ends where it
should."""

from __future__ import annotations

import math

import pytest
import torch

from ambiseg import memory_budget
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy_per_pixel
from ambiseg.maskset import MaskSet
from ambiseg.methods.flow_ssn import FlowSSNSettings
from ambiseg.methods.flow_ssn import model as flow_ssn
from ambiseg.methods.flow_ssn.model import Base, FlowSSN
from ambiseg.metrics import hm_iou_unique
from ambiseg.nested_settings import from_values
from ambiseg.networks.settings import UNetSettings
from ambiseg.testing import problem, train_on_problem
from model_helpers import check_likelihoods_sum_to_one, perturbed

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(3)
SMALL = UNetSettings(width=8, depth=2)
SPACES = pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
BODIES = {
    "transformer": {"body": {"kind": "transformer", "strip_height": 1, "strip_width": 2, "width": 16}},
    "linear": {"body": {"kind": "linear", "height": 3, "width": 4}},
}


SECOND_MODEL = {"kind": "autoregressive", "against_collapse": {"kind": "maf"}, "estimator": "mean-log"}


def strips(width):
    """A transformer over strips of so many pixels."""
    return {"kind": "transformer", "strip_width": width}


def make(labels=BINARY, seed=0, samples=16, likelihood_samples=512, **flow):
    torch.manual_seed(seed)
    values = {"samples": samples, "likelihood_samples": likelihood_samples}
    settings = from_values(FlowSSNSettings, {**values, "flow": {"kind": "continuous", **flow}}, "settings")
    return FlowSSN(3, labels, SMALL, settings).eval()


@SPACES
@pytest.mark.parametrize("body", BODIES)
def test_samples_of_the_inverse_flow_know_their_density(labels, body):
    """Against inverting the flow step by step and the density of an independent normal distribution."""
    model, images = (
        perturbed(make(labels, kind="autoregressive", **BODIES[body]), 0.15),
        torch.randn(2, 3, 3, 4),
    )
    with torch.no_grad():
        eta, log_prob = model.draw_logits(images, 5)
        u, log_det = model.flow.inverse(eta.flatten(0, 1))
        base = model.distribution(images)
        normal = torch.distributions.Normal(base.mu[:, None], base.log_sigma.exp()[:, None])
        expected = normal.log_prob(u.view(eta.shape)).flatten(2).sum(2) + log_det.view(2, 5)
    assert base.log_sigma.abs().max() > 0.1 and log_det.abs().max() > 0.05
    torch.testing.assert_close(log_prob, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "flow",
    [
        {"kind": "autoregressive", "body": strips(1)},
        {"kind": "autoregressive", "body": strips(1), "against_collapse": {"kind": "entropy"}},
        {"steps": 3},
    ],
    ids=["autoregressive", "dual", "continuous"],
)
@pytest.mark.parametrize("labels, size", [(BINARY, (2, 2)), (MULTI, (1, 2))], ids=["binary", "multi-class"])
def test_likelihoods_of_all_label_maps_sum_to_one(labels, size, flow):
    check_likelihoods_sum_to_one(perturbed(make(labels, likelihood_samples=7, **flow)), size)


@pytest.mark.parametrize("drift", ["initial", "conditional"])
@pytest.mark.parametrize("sampler", ["euler", "midpoint", "heun", "rk4"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_likelihood_stands_on_the_path_of_the_samples(steps, sampler, drift, monkeypatch):
    """With the same draws ``log_prob`` asks the flow where ``predict`` does, up to the start of the last
    step."""
    model = perturbed(make(steps=steps, sampler=sampler, drift=drift, samples=5, likelihood_samples=5))
    image, mask = torch.randn(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.uint8)
    original, asked = model.logits, []

    def remember(images, state, time):
        asked.append((time.max(), state))
        return original(images, state, time)

    monkeypatch.setattr(model, "logits", remember)
    torch.manual_seed(2)
    model.predict(image)
    path, asked[:] = list(asked), []
    torch.manual_seed(2)
    model.log_prob(image, mask)
    assert float(asked[-1][0]) == pytest.approx(1 - 1 / steps, abs=1e-6)
    for (time, state), (expected, where) in zip(asked, path, strict=False):
        torch.testing.assert_close(time, expected)
        torch.testing.assert_close(state, where)
    assert len(asked) <= len(path)


def test_the_likelihood_of_one_pixel_is_an_integral():
    """Without a flow the logit of a single pixel is the base itself: against a sum over a grid."""
    model = make(kind="autoregressive", body=strips(1), likelihood_samples=400_000)
    image = torch.randn(1, 3, 1, 1)
    with torch.no_grad():
        model.base.mu.bias += 0.7
        model.base.log_sigma.bias += 0.4
        base = model.distribution(image)
    z = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    logit = base.mu.double().item() + base.log_sigma.double().exp().item() * z
    share = float((torch.sigmoid(logit) * density).sum() / density.sum())
    mask = torch.ones(1, 1, 1, dtype=torch.uint8)
    assert float(model.log_prob(image, mask).exp()) == pytest.approx(share, abs=0.002)


@SPACES
def test_the_discrete_loss_is_the_likelihood_of_all_annotations(labels):
    model = perturbed(make(labels, kind="autoregressive", draws=6, likelihood_samples=6, body=strips(3)))
    images, masks = torch.randn(2, 3, 4, 5), torch.randint(0, labels.classes, (2, 3, 4, 5)).to(torch.uint8)
    masks[0, 1, :2] = labels.void
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])
    torch.manual_seed(3)
    loss = model.loss(images, MaskSet(masks, weights, labels))["loss"]
    expected = 0.0
    for n in range(3):
        torch.manual_seed(3)
        nats = -model.log_prob(images, masks[:, n]) / labels.valid(masks[:, n]).flatten(1).sum(1)
        expected = expected + (weights[:, n] * nats).mean()
    torch.testing.assert_close(loss.detach(), expected)


def test_the_entropy_of_the_dual_objective_is_that_of_the_logits():
    """The linear flow at its start is a normal distribution, whose entropy is known."""
    model = make(
        kind="autoregressive",
        draws=20_000,
        against_collapse={"kind": "entropy", "weight": 0.3},
        **BODIES["linear"],
    )
    image, masks = torch.randn(1, 3, 3, 4), torch.zeros(1, 1, 3, 4, dtype=torch.uint8)
    with torch.no_grad():
        model.base.log_sigma.bias += 0.8
        losses = model.loss(image, MaskSet.uniform(masks, BINARY))
        base = model.distribution(image)
    sigma = base.log_sigma.exp().flatten()
    entropy = torch.distributions.Normal(torch.zeros_like(sigma), sigma).entropy().mean()
    assert float(losses["entropy"]) == pytest.approx(float(entropy), abs=0.01)
    torch.testing.assert_close(losses["loss"], losses["nats"] - 0.3 * losses["entropy"])


def test_the_dual_objective_is_per_pixel_that_is_not_void():
    """The likelihood, the entropy of these pixels and the divergence of all: of two annotations with other
    void pixels, by weight."""
    masks = torch.zeros(1, 2, 3, 4, dtype=torch.uint8)
    masks[0, 0, 0], masks[0, 1, :, 1:] = BINARY.void, BINARY.void
    truth = MaskSet(masks, torch.tensor([[0.25, 0.75]]), BINARY)
    valid = truth.labels.valid(masks)[0].flatten(1).float()
    bonus = perturbed(
        make(kind="autoregressive", draws=40_000, against_collapse={"kind": "entropy"}, **BODIES["linear"])
    )
    second = make(**SECOND_MODEL, draws=4, **BODIES["linear"])
    images = torch.randn(1, 3, 3, 4)
    with torch.no_grad():
        for parameter in [
            *bonus.flow.parameters(),
            *second.flow.parameters(),
            *second.second_flow.parameters(),
        ]:
            parameter.zero_()  # the flow leaves u as it is
        sigma = bonus.distribution(images).log_sigma.exp().flatten()
        each = torch.distributions.Normal(torch.zeros(12), sigma).entropy()
        expected = float(truth.weights[0] @ ((valid @ each) / valid.sum(1)))
        assert expected != pytest.approx(float(each.mean()), abs=0.05)
        assert float(bonus.loss(images, truth)["entropy"]) == pytest.approx(expected, abs=0.02)

        second.second.load_state_dict(second.base.state_dict())
        torch.manual_seed(1)
        nothing = second.loss(images, truth)
        second.second.log_sigma.bias += 1.0
        torch.manual_seed(1)
        found = second.loss(images, truth)
        torch.manual_seed(1)
        whole = second.loss(images, MaskSet.uniform(torch.zeros_like(masks), BINARY))
    assert float(nothing["kl"]) == pytest.approx(0, abs=1e-6)
    share = float(truth.weights[0] @ (12 / valid.sum(1)))
    torch.testing.assert_close(found["kl"], whole["kl"] * share)
    torch.testing.assert_close(found["loss"], found["nats"] + found["kl"])


@pytest.mark.parametrize("kind", ["entropy", "maf"])
def test_an_annotation_that_is_all_void_has_no_part_in_the_dual_objective(kind):
    model = perturbed(make(**{**SECOND_MODEL, "against_collapse": {"kind": kind}}, body=strips(4)))
    images, modes = problem(BINARY)
    void = MaskSet.uniform(torch.full_like(modes.masks, BINARY.void), BINARY)
    model.loss(images, void)["loss"].backward()
    assert not any(bool(p.grad.any()) for p in model.parameters() if p.grad is not None)


def test_the_divergence_of_the_dual_objective_is_zero_for_equal_laws_and_above_for_others():
    model = make(**SECOND_MODEL, draws=4000, **BODIES["linear"])
    image, masks = torch.randn(1, 3, 3, 4), torch.zeros(1, 1, 3, 4, dtype=torch.uint8)
    with torch.no_grad():
        for flow in (model.flow, model.second_flow):
            flow.bodies[0].weight.zero_()
        model.second.load_state_dict(model.base.state_dict())
        equal = model.loss(image, MaskSet.uniform(masks, BINARY))
        assert abs(float(equal["kl"])) < 1e-6
        model.second.mu.bias += 0.5
        other = model.loss(image, MaskSet.uniform(masks, BINARY))
        sigma = model.distribution(image).log_sigma.exp()
    # KL of normal distributions of equal variances: half the squared distance over the variance.
    assert float(other["kl"]) == pytest.approx(float((0.125 / sigma.square()).mean()), abs=0.01)


@pytest.mark.parametrize("mean, scale", [(0.0, 1.0), (0.5, 1.0), (1.0, 0.8), (2.0, 0.5)])
def test_the_dual_objective_with_a_second_model_bounds_its_likelihood(mean, scale):
    """One pixel, of which the second model knows nothing: the likelihood is one half by symmetry, whatever
    the first model is. Where the first is the second the bound is E[-log sigmoid(u)]."""
    one = {"kind": "linear", "height": 1, "width": 1}
    model = make(**SECOND_MODEL, draws=40_000, body=one)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.base.mu.bias += mean
        model.base.log_sigma.bias += math.log(scale)
        loss = float(
            model.loss(
                torch.zeros(1, 3, 1, 1), MaskSet.uniform(torch.ones(1, 1, 1, 1, dtype=torch.uint8), BINARY)
            )["loss"]
        )
    assert loss > math.log(2)
    u = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    density = torch.distributions.Normal(mean, scale).log_prob(u)
    nats = -torch.nn.functional.logsigmoid(u) + density - torch.distributions.Normal(0.0, 1.0).log_prob(u)
    assert loss == pytest.approx(float((density.exp() * nats).sum() * 0.005), abs=0.02)


@SPACES
def test_the_continuous_loss_leads_gradients_through_the_interpolant_to_the_base(labels):
    model = make(labels)
    masks = torch.randint(0, labels.classes, (2, 1, 4, 4)).to(torch.uint8)
    model.loss(torch.randn(2, 3, 4, 4), MaskSet.uniform(masks, labels))["loss"].backward()
    assert model.base.log_sigma is None and bool(model.base.mu.weight.grad.any())


class Oracle(torch.nn.Module):
    """Knows a distribution of label maps: the mean of y given y_t where u is N(mu, 1) (16), as logits."""

    def __init__(self, masks, weights, mu):
        super().__init__()
        self.y, self.log_weights, self.mu = masks.float(), weights.log(), mu

    def forward(self, state, time):
        t = time[:, None, None]
        e = (state[:, None] - t[..., None, None] * self.y[None]) / (1 - t[..., None, None]) - self.mu
        share = (self.log_weights - 0.5 * e.square().flatten(2).sum(2)).softmax(1)
        mean = torch.einsum("nk,kchw->nchw", share, self.y).clamp(1e-7, 1 - 1e-7)
        return torch.logit(mean)


@pytest.mark.parametrize("drift", ["initial", "conditional"])
def test_the_flow_of_the_exact_mean_ends_in_the_label_maps(drift):
    """With ``drift="conditional"`` each as often as its probability; (17) as printed ends in label maps as
    well, not as often."""
    masks = torch.tensor([[[[0, 0, 1, 1]]], [[[1, 1, 0, 0]]], [[[1, 1, 1, 1]]]])
    weights, mu = torch.tensor([0.2, 0.3, 0.5]), 0.5
    model = make(steps=200, drift=drift)
    model.eta, model.head = Oracle(masks, weights, mu), torch.nn.Identity()
    model.distribution = lambda images: Base(
        torch.full((len(images), 1, 1, 4), mu), torch.zeros(len(images), 1, 1, 4)
    )
    found = model.predict(torch.zeros(1, 3, 1, 4), 4000, torch.Generator().manual_seed(0)).masks[0]
    share = torch.stack([(found == m[0]).flatten(1).all(1).float().mean() for m in masks])
    assert share.sum() > 0.97
    if drift == "conditional":
        torch.testing.assert_close(share, weights, atol=0.03, rtol=0)


@SPACES
def test_log_softmax_makes_a_log_logistic_normal_base(labels):
    model = make(labels, pushforward="log-softmax")
    pushed = model._pushed(torch.randn(2, 3, labels.channels, 2, 2)).exp()
    assert pushed.max() < 1
    if not labels.is_binary:
        torch.testing.assert_close(pushed.sum(2), torch.ones(2, 3, 2, 2))
    both = torch.randn(5, 2, 1, 1)
    torch.testing.assert_close(
        make(pushforward="log-softmax")._pushed((both[:, 1:] - both[:, :1])[None]),
        both.log_softmax(1)[None, :, 1:],
    )


def test_a_void_pixel_stays_as_it_was_drawn(monkeypatch):
    model, seen = make(), []
    monkeypatch.setattr(model, "logits", lambda images, state, time: seen.append(state) or state)
    masks = torch.ones(1, 1, 2, 2, dtype=torch.uint8)
    masks[0, 0, 0] = BINARY.void
    for mask in (masks, torch.full_like(masks, BINARY.void)):
        torch.manual_seed(0)
        model.loss(torch.zeros(1, 3, 2, 2), MaskSet.uniform(mask, BINARY))
    torch.testing.assert_close(seen[0][:, :, 0], seen[1][:, :, 0])
    assert not torch.equal(seen[0][:, :, 1], seen[1][:, :, 1])


def test_the_base_network_runs_once_and_the_flow_sees_no_image():
    model, calls = make(steps=4), []
    model.base.g.register_forward_hook(lambda *_: calls.append("base"))
    model.eta.register_forward_hook(lambda *_: calls.append("flow"))
    model.predict(torch.zeros(2, 3, 8, 8), 16)
    assert calls == ["base"] + ["flow"] * 4
    assert model.eta.in_channels == 1
    fixed = make(prior="fixed")
    assert fixed.base is None and fixed.eta.in_channels == 4


def test_parts_of_a_sample_do_not_change_how_many_there_are(monkeypatch):
    monkeypatch.setattr(memory_budget, "ELEMENTS", 200)
    for settings in ({"steps": 2}, {"kind": "autoregressive"}):
        assert make(**settings).predict(torch.zeros(2, 3, 5, 5), 7).masks.shape == (2, 7, 5, 5)


def test_a_fixed_prior_learns_as_well():
    model = make(prior="fixed", steps=10).train()
    images, modes = problem(BINARY)
    before = float(model.loss(images, modes)["loss"])
    train_on_problem(model, BINARY, "full", 60)
    assert float(model.loss(images, modes)["loss"]) < 0.5 * before


def test_a_model_that_gives_nan_is_named_by_its_step():
    model = make(steps=3)
    with torch.no_grad():
        model.head.bias.fill_(torch.nan)
    with pytest.raises(AmbisegError, match="image 0 of the batch is not finite after step 1 of 3"):
        model.predict(torch.zeros(1, 3, 4, 4), 2)


def test_mistakes_are_named():
    for wrong, match in [
        ({"kind": "autoregressive", "draws": 0}, "draws must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"tolerance": 0.0}, "tolerance is above 0"),
        (
            {"kind": "autoregressive", "against_collapse": {"kind": "entropy", "weight": 0.0}},
            "against_collapse.weight is above 0",
        ),
        (
            {"kind": "autoregressive", "against_collapse": {"kind": "maf"}},
            "maf needs flow.estimator=mean-log, received log-mean",
        ),
        ({"network": {"width": 8}, "width": 8}, "flow.network has a width and a depth of its own"),
        (
            {"network": {"kind": "adm"}, "prior": "fixed"},
            "flow.network=adm has no effect with flow.prior=fixed",
        ),
        ({"kind": "autoregressive", "prior": "fixed"}, "unknown key of settings: flow 'prior'"),
        (
            {"kind": "autoregressive", "pushforward": "log-softmax"},
            "autoregressive has no such setting, continuous has",
        ),
        ({"kind": "continuous", "draws": 4}, "continuous has no such setting, autoregressive has"),
        ({"prior": "fixed", "width": 32}, "flow.width=32 has no effect with flow.prior=fixed"),
        ({"prior": "fixed", "depth": 2}, "flow.depth=2 has no effect with flow.prior=fixed"),
        ({"prior": "fixed", "base_scale": "learned"}, "base_scale=learned has no effect"),
        ({"kind": "autoregressive", "body": {"kind": "linear", "height": 4}}, "width must be set"),
        ({"kind": "autoregressive", "body": strips(0)}, "strip_width must be at least 1"),
    ]:
        with pytest.raises(AmbisegError, match=match):
            make(**wrong)
    with pytest.raises(AmbisegError, match="use predict"):
        make().draw_logits(torch.zeros(1, 3, 4, 4), 2)
    with pytest.raises(UnknownNameError, match="did you mean 'euler'"):
        make(sampler="eulr")


def test_gradient_reaches_both_models_of_the_dual_objective():
    model = perturbed(make(**SECOND_MODEL, body=strips(4)))
    model.loss(*problem(BINARY))["loss"].backward()
    assert all(bool(p.grad.any()) for p in model.parameters())


@pytest.mark.slow
def test_the_dual_objective_with_a_second_model_learns():
    model = make(**SECOND_MODEL, body=strips(4), samples=24).train()
    images, modes = problem(BINARY)
    train_on_problem(model, BINARY, "full", 450, 3e-3)
    found = model.eval().predict(images, generator=torch.Generator().manual_seed(0))
    assert hm_iou_unique(found, modes).mean() > 0.6


def test_the_mean_of_logarithms_is_a_choice():
    """It is what (14) prints, and above the logarithm of the mean by Jensen's inequality."""
    images, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 2, (2, 1, 4, 4)).to(torch.uint8)
    losses = []
    for estimator in ("log-mean", "mean-log"):
        model = perturbed(make(kind="autoregressive", body=strips(2), estimator=estimator))
        torch.manual_seed(1)
        losses.append(float(model.loss(images, MaskSet.uniform(masks, BINARY))["loss"].detach()))
    assert losses[1] > losses[0] + 0.01


def test_log_scales_of_the_base_are_bounded():
    model = make(kind="autoregressive", body=strips(2))
    with torch.no_grad():
        model.base.log_sigma.bias.fill_(1e4)
        assert model.distribution(torch.zeros(1, 3, 4, 4)).log_sigma.max() == flow_ssn.MOST_LOG_SCALE


@SPACES
def test_the_continuous_loss_is_the_cross_entropy_of_the_interpolant(labels, monkeypatch):
    model = perturbed(make(labels))
    images, masks = torch.randn(2, 3, 4, 4), torch.randint(0, labels.classes, (2, 4, 4)).to(torch.uint8)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([0.25, 0.75]))
    monkeypatch.setattr(flow_ssn, "standard_normal", lambda shape, *_: torch.ones(shape))
    with torch.no_grad():
        loss = model.loss(images, MaskSet.uniform(masks[:, None], labels))["loss"]
        u, y = model.distribution(images).mu + 1, labels.one_hot(masks, dim=1)
        time = torch.tensor([0.25, 0.75])
        state = (1 - time[:, None, None, None]) * u + time[:, None, None, None] * y
        expected = cross_entropy_per_pixel(model.logits(images, state, time), masks, labels).mean()
    torch.testing.assert_close(loss, expected)


def test_the_flow_can_be_another_network_with_attention_in_its_middle():
    network = {"kind": "adm", "width": 8, "depth": 2, "max_width": 8, "attention": True}
    model, plain = make(network=network), make(network={**network, "attention": False})
    assert type(model.eta).__name__ == "ADM" and not any(bool(p.any()) for p in model.head.parameters())
    attention = sum(p.numel() for n, p in model.eta.named_parameters() if n.startswith("middle.1."))
    count, other = (sum(p.numel() for p in net.eta.parameters()) for net in (model, plain))
    assert attention == 4 * (8 * 8 + 8) + 2 * 8 and count > other + attention
    images, masks = problem(BINARY)
    perturbed(model).loss(images, masks)["loss"].backward()
    assert all(bool(p.grad.any()) for p in model.parameters())
