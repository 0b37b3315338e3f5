"""SSN: its likelihood is an integral and a distribution, samples follow the distribution of the logits, nothing
overflows."""

from __future__ import annotations

import pytest
import torch

from ambiseg import memory_budget
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.ssn import SSNSettings
from ambiseg.methods.ssn.model import SSN
from ambiseg.networks.settings import UNetSettings
from ambiseg.testing import BACKBONE, CHANNELS, problem, train_on_problem
from model_helpers import check_likelihoods_sum_to_one

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)
SMALL = UNetSettings(width=8, depth=2)


def make(labels=BINARY, seed=0, **settings):
    torch.manual_seed(seed)
    return SSN(3, labels, SMALL, SSNSettings(**{"rank": 2, **settings})).eval()


def strengthened(model, factor):
    """The same model with a larger factor, so that its samples differ."""
    with torch.no_grad():
        for parameter in model.p.parameters():
            parameter *= factor
    return model


def test_the_likelihood_of_one_pixel_is_an_integral():
    """Against a sum over a grid of the one logit; drawn in parts."""
    model, image = (
        strengthened(make(rank=1, likelihood_samples=400_000), 5),
        torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(4)),
    )
    with torch.no_grad():
        normal = model.distribution(image)
    mean, scale = normal.mean.double().item(), normal.covariance().double().sqrt().item()
    assert scale > 0.5
    z = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    share = float((torch.sigmoid(mean + scale * z) * density).sum() / density.sum())
    for value, probability in ((1, share), (0, 1 - share)):
        mask = torch.full((1, 1, 1), value, dtype=torch.uint8)
        assert float(model.log_prob(image, mask).exp()) == pytest.approx(probability, abs=0.002)


@pytest.mark.parametrize("labels, size", [(BINARY, (2, 2)), (MULTI, (1, 2))], ids=["binary", "multi-class"])
def test_likelihoods_of_all_label_maps_sum_to_one(labels, size):
    check_likelihoods_sum_to_one(strengthened(make(labels, likelihood_samples=7), 3), size)


@pytest.mark.parametrize("antithetic", [False, True])
def test_parts_do_not_change_the_likelihood(antithetic, monkeypatch):
    model = strengthened(make(likelihood_samples=20_000, antithetic=antithetic), 2)
    image, mask = torch.randn(1, 3, 2, 2), torch.tensor([[[0, 1], [1, 1]]], dtype=torch.uint8)
    whole = model.log_prob(image, mask)
    monkeypatch.setattr(memory_budget, "ELEMENTS", 8000)
    torch.testing.assert_close(model.log_prob(image, mask), whole, rtol=0, atol=0.05)


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_the_loss_is_the_likelihood_per_pixel(labels):
    model = make(labels, draws=6, likelihood_samples=6)
    images = torch.randn(2, 3, 4, 5)
    masks = torch.randint(0, labels.classes, (2, 4, 5)).to(torch.uint8)
    masks[0, :2] = labels.void
    annotations = MaskSet.uniform(masks[:, None], labels)
    torch.manual_seed(3)
    expected = -model.log_prob(images, masks) / torch.tensor([10, 20])
    torch.manual_seed(3)
    torch.testing.assert_close(model.loss(images, annotations)["loss"], expected.mean())


def test_the_mean_may_be_trained_first():
    model = make(mean_pretraining=0.3).train()
    images, masks = torch.randn(2, 3, 4, 4), torch.randint(0, 2, (2, 1, 4, 4)).to(torch.uint8)
    annotations = MaskSet.uniform(masks, BINARY)
    first = model.loss(images, annotations)["loss"]
    with torch.no_grad():
        mean = model.distribution(images).mean.view(2, 1, 4, 4)
    torch.testing.assert_close(first, (cross_entropy(mean, masks[:, 0], BINARY) / 16).mean())
    first.backward()
    assert all(p.grad is None or not p.grad.any() for h in (model.d, model.p) for p in h.parameters())
    model.zero_grad()
    model.progress = 0.3
    model.loss(images, annotations)["loss"].backward()
    assert all(bool(p.grad.any()) for h in (model.mu, model.d, model.p) for p in h.parameters())
    # what validates the weights is the same measure from beginning to end
    model.eval().progress = 0.0
    assert not torch.equal(model.loss(images, annotations)["loss"], first)


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_samples_follow_the_law_of_the_logits(labels):
    """Mean and covariance of the probabilities of a few pixels, against draws of the dense distribution."""
    model, images = strengthened(make(labels, rank=3), 3), torch.randn(1, 3, 2, 2)
    with torch.no_grad():
        normal = model.distribution(images)
    dense = torch.distributions.MultivariateNormal(normal.mean[0], normal.covariance()[0])
    torch.manual_seed(5)
    expected = labels.probabilities(dense.sample((40_000,)).view(1, -1, labels.channels, 2, 2), dim=2)
    found = model.predict(images, 40_000, torch.Generator().manual_seed(0)).probabilities
    moments = [(v.flatten(2)[0].mean(0), torch.cov(v.flatten(2)[0].T)) for v in (found, expected)]
    torch.testing.assert_close(moments[0], moments[1], rtol=0, atol=0.01)


def test_temperature_and_rank_of_samples():
    images = torch.randn(2, 3, 6, 5)

    def spread(**settings):
        model = strengthened(make(rank=4, **settings), 3)
        found = model.predict(images, 200, torch.Generator().manual_seed(0)).probabilities
        return found.logit(1e-6)

    full, cool, mean = spread(), spread(temperature=0.5), spread(temperature=0.0)
    assert torch.equal(spread(sample_rank=4), full)
    assert bool((mean == mean[:, :1]).all())
    torch.testing.assert_close(cool - mean, (full - mean) / 2, rtol=1e-3, atol=1e-3)
    cut = spread(sample_rank=1)
    assert float((cut - mean).square().mean()) < float((full - mean).square().mean())


def test_the_network_runs_once_for_many_samples(monkeypatch):
    model, calls = make(), []
    model.g.register_forward_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(memory_budget, "ELEMENTS", 200)
    found = model.predict(torch.randn(2, 3, 5, 5), 101)
    assert found.masks.shape == (2, 101, 5, 5) and len(calls) == 1
    model.log_prob(torch.randn(2, 3, 5, 5), found.masks[:, 0])
    assert len(calls) == 2


def test_a_new_model_starts_gently():
    """Variances of about one, whatever the rank."""
    images = torch.randn(4, 3, 16, 16)
    for rank in (1, 10, 100):
        with torch.no_grad():
            normal = make(rank=rank).distribution(images)
        assert float(normal.diagonal.min()) > 0.05 and float(normal.diagonal.max()) < 0.2
        assert 1e-3 < float(normal.factor.square().sum(2).mean()) < 2


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("scale", [1, 1e3, 1e8])
def test_no_mask_and_no_parameter_gives_nan(labels, precision, scale):
    masks = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    masks[1], masks[2, 0, 3, 3] = 1, 1
    model = make(labels)
    with torch.no_grad():
        for head in (model.mu, model.d, model.p):
            for parameter in head.parameters():
                parameter *= scale
    images = torch.randn(3, 3, 8, 8)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = model.loss(images, MaskSet.uniform(masks, labels))["loss"]
        found = model.predict(images, 4).validate()
        assert torch.isfinite(model.log_prob(images, masks[:, 0])).all()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(found.probabilities).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_mistakes_are_named():
    with pytest.raises(AmbisegError, match=r"rank 10 is above the 8 logits .*2 pixels x 4"):
        make(MULTI, rank=10).predict(torch.zeros(1, 3, 1, 2))
    with pytest.raises(AmbisegError, match="rank 10 is above the 4 logits"):
        masks = MaskSet.uniform(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), BINARY)
        make(rank=10).loss(torch.zeros(1, 3, 2, 2), masks)
    for settings, words in (
        ({"rank": 0}, "rank is 1 or more, received 0"),
        ({"draws": 0}, "draws is 1 or more, received 0"),
        ({"likelihood_samples": 0}, "likelihood_samples is 1 or more"),
        ({"temperature": -0.1}, "temperature is 0 or more, received -0.1"),
        ({"sample_rank": 3}, "sample_rank is 1 to the rank of the model, 2, received 3"),
        ({"mean_pretraining": 1.0}, "mean_pretraining is a share"),
    ):
        with pytest.raises(AmbisegError, match=words):
            make(**settings)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
def test_long_training_stays_finite_and_above_the_entropy(labels):
    """2,000 steps at a high learning rate; no model's expected loss is below the entropy of the
    annotations."""
    model = SSN(CHANNELS, labels, BACKBONE, SSNSettings(rank=8, samples=24, likelihood_samples=2000)).train()
    train_on_problem(model, labels, "single", 2000)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    images, annotations = problem(labels)
    likelihood = torch.stack([model.eval().log_prob(images, m) for m in annotations.masks.unbind(1)], 1)
    entropy = torch.special.entr(annotations.weights).sum(1)
    expected = -(annotations.weights * likelihood).sum(1)
    assert bool((expected > entropy - 0.05).all()) and bool((expected < 40).all())
