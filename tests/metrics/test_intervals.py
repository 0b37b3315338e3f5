"""Bootstrap intervals: closed forms, groups as units, pooling again, and what they do not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import t

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, Bootstrap, MeanOverImages, PooledOverImages, metric_collection

MANY = Bootstrap(resamples=4000)
POOLED = [name for name, info in METRICS.items() if info.pooling is not None]


def sets(images: int, seed: int = 0) -> tuple[MaskSet, MaskSet]:
    """Random proposals with scores and annotations with weights."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (images, 7, 3, 3), generator=g, dtype=torch.uint8)
    weights = torch.rand(images, 7, generator=g) + 0.1
    labels = LabelSpace.binary()
    guess = MaskSet(masks[:, :4], weights[:, :4], labels, torch.rand(images, 4, generator=g)).normalised()
    return guess, MaskSet(masks[:, 4:], weights[:, 4:], labels).normalised()


def test_the_interval_of_a_mean_is_that_of_student() -> None:
    """n = 400 normal values: both ends within a tenth of the width."""
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = MANY.mean(values)
    expected = t.interval(0.95, 399, values.mean(), values.std(ddof=1) / 20)
    width = expected[1] - expected[0]
    assert found.low == pytest.approx(expected[0], abs=width / 10)
    assert found.high == pytest.approx(expected[1], abs=width / 10)


def test_it_covers_as_often_as_it_says() -> None:
    """400 experiments of 50 normal values; by the t distribution 94.4 % are expected."""
    random = np.random.default_rng(2)
    found = [Bootstrap(resamples=400).mean(random.normal(1, 1, 50)) for _ in range(400)]
    assert np.mean([low <= 1 <= high for low, high in found]) == pytest.approx(0.944, abs=0.03)


def test_it_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).exponential(size=40)
    other = scipy_bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    )
    found = MANY.mean(values)
    assert found == pytest.approx(tuple(other.confidence_interval), abs=0.02)


def test_identical_images_give_no_width() -> None:
    assert Bootstrap().mean([0.1] * 7) == (0.1, 0.1)
    guess, truth = sets(1)
    for name in POOLED:
        pooled = PooledOverImages(name, keep_images=True)
        for _ in range(5):
            pooled.update(guess, truth)
        low, high = pooled.interval(Bootstrap())
        assert low == pytest.approx(high, abs=1e-6), name
        assert low == pytest.approx(float(pooled.compute()), rel=1e-6, abs=1e-6), name


def test_order_does_not_matter() -> None:
    """Exactly where the units have names, else but for the draws."""
    values, names = np.random.default_rng(4).normal(size=300), [f"{i:03}" for i in range(300)]
    order = np.random.default_rng(5).permutation(300)
    found = MANY.mean(values, names)
    assert MANY.mean(values[order], [names[i] for i in order]) == pytest.approx(found, abs=1e-12)
    assert MANY.mean(values[order]) == pytest.approx(found, abs=0.1 * (found.high - found.low))
    assert MANY.mean(values) == found and Bootstrap(seed=1).mean(values) != found


def test_groups_are_the_units() -> None:
    """Copies of an image in its group change nothing; without groups they would halve the width."""
    values = np.random.default_rng(6).normal(size=60)
    alone, copied = MANY.mean(values), np.repeat(values, 4)
    groups = [f"{i // 4:02}" for i in range(240)]
    assert MANY.mean(copied, groups) == pytest.approx(alone, abs=1e-12)
    low, high = MANY.mean(copied)
    assert (high - low) / (alone.high - alone.low) == pytest.approx(0.5, rel=0.1)


def test_groups_of_different_size_weigh_their_images() -> None:
    """Two groups: half of the resamples hold both, the others one of them twice."""
    assert Bootstrap().mean([0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]) == (0, 1)
    found = Bootstrap(level=0.1).mean([0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"])
    assert found == pytest.approx((0.75, 0.75))


def test_images_without_a_value_are_left_out() -> None:
    values = np.array([0.2, np.nan, 0.5, 0.9, np.nan])
    assert Bootstrap().mean(values) == Bootstrap().mean([0.2, 0.5, 0.9])
    assert Bootstrap().mean(values, list("aabcc")) == Bootstrap().mean([0.2, 0.5, 0.9], list("abc"))
    paired = Bootstrap().difference(values, [0.1, 0.3, np.nan, 0.5, 0.1])
    assert paired.mean == pytest.approx(0.25)
    for undefined in ([0.5], [], [np.nan, 0.5], [np.inf, 0.5, 0.4]):
        assert all(math.isnan(end) for end in Bootstrap().mean(undefined))


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    random = np.random.default_rng(7)
    image, gain = random.normal(size=200), random.normal(0.1, 0.1, 200)
    found = MANY.difference(image + gain, image)
    assert found.mean == pytest.approx(gain.mean())
    assert found.interval == pytest.approx(tuple(MANY.mean(gain)), abs=1e-9)
    back = MANY.difference(image, image + gain)
    assert (back.interval.low, back.interval.high) == pytest.approx(
        (-found.interval.high, -found.interval.low)
    )
    assert found.interval.low > 0 and MANY.mean(image).high - MANY.mean(image).low > 0.2


@pytest.mark.parametrize("name", POOLED)
def test_metrics_that_pool_are_pooled_again(name: str) -> None:
    """Every resample equals an accumulator that saw the drawn images."""
    guess, truth = sets(6)
    pooled = PooledOverImages(name, keep_images=True)
    pooled.update(guess[:4], truth[:4])
    pooled.update(guess[4:], truth[4:])
    draws = [[0, 0, 3, 5, 5, 5], [1, 2, 3, 4, 5, 0]]
    again = []
    for draw in draws:
        other = PooledOverImages(name)
        for i in draw:
            other.update(guess[i], truth[i])
        again.append(float(other.compute()))
    counts = torch.stack([torch.bincount(torch.tensor(draw), minlength=6) for draw in draws]).double()
    info = METRICS[name].pooling
    assert info is not None
    names = [*(f"{part}_of_images" for part in info.sums), *info.lists]
    parts = [torch.cat(getattr(pooled, part)) for part in names]
    assert info.resampled(parts, counts).tolist() == pytest.approx(again, rel=1e-4, abs=1e-6)
    assert again[1] == pytest.approx(float(pooled.compute()), rel=1e-4, abs=1e-6)


def test_intervals_of_accumulators_hold_their_values() -> None:
    guess, truth = sets(40)
    names = [name for name, info in METRICS.items() if "probabilities" not in info.needs]
    kept, plain = metric_collection(names, keep_images=True), metric_collection(names)
    for collection in (kept, plain):
        collection.update(guess, truth)
    for name, value in plain.compute().items():
        assert torch.equal(kept.compute()[name], value), name
        low, high = kept[name].interval(Bootstrap())
        if math.isinf(value):
            assert math.isnan(low) and math.isnan(high)
            continue
        assert low <= float(value) + 1e-6 and float(value) - 1e-6 <= high, name
    mean = kept["ged"]
    assert isinstance(mean, MeanOverImages)
    torch.testing.assert_close(mean.per_image(), METRICS["ged"].function(guess, truth))
    mean.reset()
    assert len(mean.per_image()) == 0


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("level between 0 and 1", lambda: Bootstrap(level=95)),
        ("at least one resample", lambda: Bootstrap(resamples=0)),
        ("2 groups for 3 images", lambda: Bootstrap().mean([1, 2, 3], ["a", "b"])),
        ("2 and 3 values are not paired", lambda: Bootstrap().difference([1, 2], [1, 2, 3])),
        ("one value for each image", lambda: Bootstrap().mean(np.zeros((2, 2)))),
        ("keep_images=True", lambda: MeanOverImages("ged").interval(Bootstrap())),
    ],
)
def test_mistakes_are_named(message, wrong) -> None:
    with pytest.raises(AmbisegError, match=message):
        wrong()
