"""Scores of volumes equal their integrals; overlaps of volumes are those of one long image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import evaluate_all, expected_dice, ged
from ambiseg.metrics.volumes import (
    cramer_distance,
    crps,
    crps_curvas,
    dice_of_most_probable,
    quantiles,
    volume_errors,
)


def step(values, weights, t):
    """Distribution function of weighted values at the times ``t``."""
    return (np.asarray(weights)[:, None] * (np.asarray(values)[:, None] <= t)).sum(0)


def integral(values, weights, others, other_weights):
    """``integral (F - G)^2`` of two step functions: exact, piece by piece."""
    ends = np.sort(np.concatenate([values, others]))
    middles = (ends[1:] + ends[:-1]) / 2
    return float(
        ((step(values, weights, middles) - step(others, other_weights, middles)) ** 2 * np.diff(ends)).sum()
    )


@pytest.fixture(params=range(4))
def drawn(request):
    """Predicted volumes and weights, observed ones and weights; some are equal."""
    rng = np.random.default_rng(request.param)
    m, n = rng.integers(1, 7, 2)
    return (
        rng.integers(0, 6, m) * 1.5,
        rng.dirichlet(np.ones(m)),
        rng.integers(0, 6, n) * 1.5,
        rng.dirichlet(np.ones(n)),
    )


def test_crps_is_the_integral(drawn):
    x, u, y, v = drawn
    expected = sum(w * integral(x, u, [one], [1.0]) for one, w in zip(y, v, strict=True))
    assert crps(x, y, u, v) == pytest.approx(expected)


def test_distance_is_the_integral_and_what_crps_has_above_the_truth(drawn):
    x, u, y, v = drawn
    assert cramer_distance(x, y, u, v) == pytest.approx(integral(x, u, y, v), abs=1e-12)
    assert crps(x, y, u, v) - crps(y, y, v, v) == pytest.approx(cramer_distance(x, y, u, v), abs=1e-12)
    assert cramer_distance(y, y, v, v) == 0


def test_crps_is_proper():
    """No other probabilities of the same volumes have a lower expectation than the true ones."""
    rng = np.random.default_rng(0)
    y, v = np.array([1.0, 2.0, 5.0]), np.array([0.5, 0.3, 0.2])
    assert all(crps(y, y, v, v) < crps(y, y, other, v) for other in rng.dirichlet([1, 1, 1], 50))


@pytest.mark.parametrize("predicted", [4.0, 10.0, 17.5])
def test_crps_of_curvas_is_the_integral_over_a_normal_distribution(predicted):
    y, v = np.array([8.0, 9.0, 13.0]), np.array([0.5, 0.25, 0.25])
    mean = v @ y
    deviation = math.sqrt(v @ (y - mean) ** 2)

    def squared(t):
        return (norm.cdf(t, mean, deviation) - (t >= predicted)) ** 2

    expected = quad(squared, -60, predicted, limit=200)[0] + quad(squared, predicted, 90, limit=200)[0]
    assert crps_curvas(predicted, y, v) == pytest.approx(expected, rel=1e-6)
    assert crps_curvas(predicted, [9.0, 9.0]) == abs(predicted - 9)


def test_quantiles_have_their_probability(drawn):
    x, u, *_ = drawn
    for level, found in zip((0.05, 0.5, 0.95), quantiles(x, u, [0.05, 0.5, 0.95]), strict=True):
        assert u[x <= found].sum() >= level - 1e-6 and u[x < found].sum() <= level + 1e-6


def test_errors_of_one_class(drawn):
    x, u, y, v = drawn
    found = volume_errors(x, y, u, v)
    assert found.bias == pytest.approx(u @ x - v @ y)
    assert (
        found.relative_bias == pytest.approx((u @ x - v @ y) / (v @ y))
        if v @ y
        else math.isnan(found.relative_bias)
    )
    assert (found.crps, found.distance) == (crps(x, y, u, v), cramer_distance(x, y, u, v))
    assert found.crps_curvas == pytest.approx(crps_curvas(u @ x, y, v))


def test_wrong_volumes_are_refused():
    with pytest.raises(AmbisegError, match="give at least one"):
        crps([], [1.0])
    with pytest.raises(AmbisegError, match="finite"):
        crps([math.nan], [1.0])
    with pytest.raises(AmbisegError, match="divide them by their sum"):
        crps([1.0, 2.0], [1.0], [0.5, 0.7])


@pytest.fixture
def pair():
    """Sets of volumes with void in an annotation, and unequal weights."""
    random = torch.Generator().manual_seed(0)
    labels = LabelSpace.of_classes(3, ignore_value=255)
    ours = torch.randint(0, 3, (2, 4, 3, 5, 2), generator=random).to(torch.uint8)
    theirs = torch.randint(0, 3, (2, 3, 3, 5, 2), generator=random).to(torch.uint8)
    theirs[:, 1, 0, :2] = 255
    weights = [torch.rand(2, n, generator=random) for n in (4, 3)]
    u, v = (w / w.sum(1, keepdim=True) for w in weights)
    return MaskSet(ours, u, labels), MaskSet(theirs, v, labels)


def flat(one):
    """The volumes as images of one line."""
    return MaskSet(one.masks.flatten(2)[:, :, None], one.weights, one.labels)


def test_metrics_of_volumes_are_those_of_the_flat_image(pair):
    ours, theirs = pair
    names = ["ged", "max_dice_matching", "dice_of_mean", "hm_iou_unique", "m_iou"]
    volumes, images = evaluate_all(ours, theirs, names), evaluate_all(flat(ours), flat(theirs), names)
    for name in names:
        assert torch.equal(volumes[name], images[name]), name
    assert torch.equal(ged(ours, theirs), volumes["ged"])


def test_dice_of_the_most_probable_is_that_of_this_mask_alone(pair):
    ours, theirs = pair
    torch.testing.assert_close(dice_of_most_probable(ours, theirs), expected_dice(ours.top(1), theirs))
