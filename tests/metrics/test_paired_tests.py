"""The permutation test against closed forms, SciPy, and its own level; exchanges of groups; Holm's correction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import PairedTest, holm, metric_collection
from ambiseg.metrics.pooling import Pooling


def mean_of(total, count):
    return total / count


POOLED_MEAN = Pooling(lambda pair, _: (), mean_of, {"total": torch.zeros(()), "count": torch.zeros(())})
LISTED_MEAN = Pooling(lambda pair, _: (), lambda values, _: values.mean(), lists=("values", "entries"))


@pytest.mark.parametrize("images", [2, 5, 10])
def test_all_exchanges_of_few_images_are_those_of_scipy(images):
    rng = np.random.default_rng(images)
    first, second = rng.normal(size=(2, images))
    found = PairedTest().mean(first, second)
    other = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert found == pytest.approx(other.pvalue, abs=1e-12)


def test_closed_forms():
    ones = np.ones(8)
    assert PairedTest().mean(ones, 0 * ones) == 2 / 2**8
    assert PairedTest().mean(ones, ones) == 1
    assert PairedTest().mean([1.0], [0.0]) == 1
    assert np.isnan(PairedTest().mean([np.nan], [0.0])) and np.isnan(PairedTest().mean([np.inf, 1], [0, 0]))
    assert PairedTest().mean([*ones, np.nan], [*0 * ones, 5]) == 2 / 2**8


def test_drawn_exchanges_keep_the_level():
    """Of systems that are alike, p below 0.1 is found in a tenth of the cases; a real difference is seen."""
    rng = np.random.default_rng(0)
    found = np.array([PairedTest(199, seed=i).mean(*rng.normal(size=(2, 30))) for i in range(600)])
    assert abs((found <= 0.1).mean() - 0.1) < 3 * np.sqrt(0.09 / 600) and found.min() >= 1 / 200
    first = rng.normal(size=200)
    assert PairedTest().mean(first + 1, first + rng.normal(size=200) / 5) == 1 / 2000


def test_groups_are_exchanged_as_a_whole():
    rng = np.random.default_rng(1)
    gap, groups = rng.normal(size=9), list("aabbbcddd")
    sums = [gap[[g == name for g in groups]].sum() for name in "abcd"]
    all_sums = [np.dot(signs, sums) for signs in itertools.product((1, -1), repeat=4)]
    expected = np.mean(np.abs(all_sums) >= abs(sum(sums)) - 1e-12)
    assert PairedTest().mean(gap, np.zeros(9), groups) == expected
    assert PairedTest().mean(gap, np.zeros(9), ["one"] * 9) == 1
    with pytest.raises(AmbisegError, match="3 groups for 9 images"):
        PairedTest().mean(gap, np.zeros(9), ["a"] * 3)


@pytest.mark.parametrize("images", [7, 40])
@pytest.mark.parametrize("kind", ["sums", "lists"])
def test_a_pooled_mean_is_tested_as_a_mean(images, kind):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, images)) + [[0.3], [0.0]]
    groups = [str(i // 2) for i in range(images)] if images > 10 else None
    expected = PairedTest(499).mean(first, second, groups)
    ones = torch.ones(images, dtype=torch.int64)
    parts = [[torch.from_numpy(values), ones] for values in (first, second)]
    pooling = POOLED_MEAN if kind == "sums" else LISTED_MEAN
    assert PairedTest(499).pooled(pooling, *parts, groups) == expected


def test_what_does_not_fit_is_refused():
    with pytest.raises(AmbisegError, match="not paired"):
        PairedTest().mean([1.0, 2.0], [1.0])
    with pytest.raises(AmbisegError, match="at least one exchange"):
        PairedTest(0)
    with pytest.raises(AmbisegError, match="parts of 2 and 1 images"):
        PairedTest().pooled(POOLED_MEAN, [torch.ones(2)], [torch.ones(1)])


def test_holm_multiplies_the_smallest_by_the_number_left():
    found = holm({"a": 0.04, "b": 0.001, "c": 0.03, "d": float("nan")})
    assert (
        found["b"] == pytest.approx(0.003) and found["c"] == pytest.approx(0.06) and found["a"] == found["c"]
    )
    assert np.isnan(found["d"]) and holm({"a": 0.7}) == {"a": 0.7}
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_rounding_is_no_difference():
    rng = np.random.default_rng(3)
    values = rng.random(40)
    assert PairedTest().mean(values, values + 1e-12) == 1
    assert PairedTest().mean(values, values + 1e-7) == 1 / 2000
    assert PairedTest().mean(values, values + 1e-7, rounding=1e-6) == 1
    assert PairedTest().mean(1e-9 * values, 2e-9 * values) == 1 / 2000


@pytest.mark.parametrize("name", ["precision_at", "ged", "ece", "brier_skill_nearest"])
def test_masks_twice_with_half_their_weights_are_no_difference(name):
    """Sums of 10 x 0.1 and 5 x 0.2 round differently, in every image the same way."""
    rng = np.random.default_rng(4)
    labels = LabelSpace.binary()
    masks, truth = (torch.from_numpy(rng.random((20, n, 8, 8)) < 0.7).to(torch.uint8) for n in (5, 3))
    weights = torch.tensor([0.2, 0.3, 0.5]).expand(20, 3)
    single, double = (metric_collection([name], keep_images=True)[name] for _ in range(2))
    annotations = MaskSet(truth, weights, labels)
    single.update(MaskSet.uniform(masks, labels), annotations)
    double.update(MaskSet.uniform(masks.repeat(1, 2, 1, 1), labels), annotations)
    assert double.p_value(single, PairedTest(99)) == 1
