"""Properties of the simulated wildfires: symmetry, containment, probabilities, population."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from ambiseg.data.sample import Sample
from ambiseg.data.simulators.wildfire import (
    CHANNELS,
    WIND_DIRECTIONS,
    burned_after,
    simulate_wildfire,
    simulate_wildfires,
)

FIRE, LOAD = CHANNELS.index("fire"), CHANNELS.index("fuel_load")


@functools.cache
def scenarios(count: int = 60) -> tuple[Sample, ...]:
    return tuple(simulate_wildfires(count))


# Scenarios


def test_several_winds_in_one_call_equal_one_call_each() -> None:
    image = scenarios()[0].image
    together = burned_after(image, WIND_DIRECTIONS)
    np.testing.assert_array_equal(together, [burned_after(image, d) for d in WIND_DIRECTIONS])


@pytest.mark.parametrize("index", range(6))
def test_turning_the_scene_and_the_wind_turns_the_fire(index: int) -> None:
    sample = scenarios()[index]
    turned = burned_after(np.rot90(sample.image, axes=(1, 2)), np.array(WIND_DIRECTIONS) + 90.0)
    np.testing.assert_array_equal(turned, np.rot90(sample.masks, axes=(1, 2)))


def test_mirroring_the_scene_and_the_wind_mirrors_the_fire() -> None:
    sample = scenarios()[1]
    mirrored = burned_after(sample.image[:, :, ::-1], 180.0 - np.array(WIND_DIRECTIONS))
    np.testing.assert_array_equal(mirrored, sample.masks[:, :, ::-1])


def test_samples_are_well_formed() -> None:
    for index, sample in enumerate(scenarios()):
        assert sample.id == f"fire-{index:05d}"
        assert sample.image.shape == (7, 64, 64) and sample.image.dtype == np.float32
        assert sample.masks.shape == (8, 64, 64) and sample.masks.dtype == np.uint8
        assert np.isfinite(sample.image).all() and set(np.unique(sample.masks)) == {0, 1}
        assert sample.annotators == tuple(f"wind-{d:03d}" for d in range(0, 360, 45))


def test_outcomes_follow_from_image_and_direction() -> None:
    for sample in scenarios()[:10]:
        np.testing.assert_array_equal(sample.masks, burned_after(sample.image, WIND_DIRECTIONS))


def test_outcomes_contain_the_first_fire_and_no_bare_ground() -> None:
    for sample in scenarios():
        assert np.all(sample.masks >= sample.image[FIRE])
        assert not sample.masks[:, sample.image[LOAD] == 0].any()


def test_skewed_and_uniform_probabilities() -> None:
    skewed = simulate_wildfire(0, 0, size=16).weights
    np.testing.assert_allclose(255 * skewed, [1, 2, 4, 8, 16, 32, 64, 128])
    assert skewed.sum() == pytest.approx(1.0, abs=1e-12)
    even = simulate_wildfire(0, 0, size=16, probabilities="uniform").weights
    np.testing.assert_array_equal(even, np.full(8, 1 / 8))


def test_prevailing_probabilities_can_be_read_off_the_ramp() -> None:
    angles = []
    for sample in simulate_wildfires(5, size=24, probabilities="prevailing"):
        assert sample.image.shape == (8, 24, 24)
        ramp = sample.image[7].astype(float)
        east, north = np.diff(ramp, axis=1) * 12, -np.diff(ramp, axis=0) * 12
        np.testing.assert_allclose(np.hypot(east.mean(), north.mean()), 1.0, atol=1e-5)
        assert np.ptp(east) < 1e-4 and np.ptp(north) < 1e-4
        angles.append(np.arctan2(north.mean(), east.mean()))
        density = np.exp(2.0 * np.cos(np.radians(WIND_DIRECTIONS) - angles[-1]))
        np.testing.assert_allclose(sample.weights, density / density.sum(), atol=1e-5)
    assert np.ptp(angles) > 0.5


def test_probabilities_leave_the_fires_alone() -> None:
    plain, prevailing = simulate_wildfire(3, 5), simulate_wildfire(3, 5, probabilities="prevailing")
    np.testing.assert_array_equal(plain.image, prevailing.image[:7])
    np.testing.assert_array_equal(plain.masks, prevailing.masks)


def same(a: Sample, b: Sample) -> bool:
    arrays = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("image", "masks", "weights"))
    return arrays and a.id == b.id


def test_scenarios_are_a_function_of_seed_and_index() -> None:
    assert same(simulate_wildfire(1, 4), simulate_wildfire(1, 4))
    assert not same(simulate_wildfire(1, 4), simulate_wildfire(2, 4))
    assert not same(simulate_wildfire(1, 4), simulate_wildfire(1, 5))
    assert same(list(simulate_wildfires(2, seed=1, start=3))[1], simulate_wildfire(1, 4))


def test_workers_change_nothing() -> None:
    alone, pool = (list(simulate_wildfires(5, size=32, seed=7, workers=n)) for n in (1, 2))
    assert len(alone) == len(pool) == 5
    assert all(map(same, alone, pool))


@pytest.mark.parametrize("size", [16, 33, 96])
def test_any_size(size: int) -> None:
    sample = simulate_wildfire(0, 1, size=size)
    assert sample.masks.shape == (8, size, size)
    assert sample.image[FIRE].any()


def test_population() -> None:
    """Fires, outcomes and their overlap lie in the ranges that the defaults aim at."""
    masks = np.array([s.masks for s in scenarios()]) > 0
    first = np.array([s.image[FIRE].mean() for s in scenarios()])
    assert first.min() > 0.009 and first.max() < 0.065
    assert 0.05 < np.median(masks.mean(axis=(2, 3))) < 0.20

    def overlap(turn: int) -> float:
        other = np.roll(masks, turn, axis=1)
        return float(np.median((masks & other).sum(axis=(2, 3)) / (masks | other).sum(axis=(2, 3))))

    assert 0.5 < overlap(1) < 0.75
    assert 0.2 < overlap(4) < 0.45
    distinct = np.array([len({m.tobytes() for m in outcomes}) for outcomes in masks])
    assert 0.03 <= (distinct < 8).mean() <= 0.25
    border = masks[:, :, [0, -1], :].any(axis=(2, 3)) | masks[:, :, :, [0, -1]].any(axis=(2, 3))
    assert border.mean() < 0.25


# Mistakes


def test_mistakes_name_what_was_received() -> None:
    with pytest.raises(ValueError, match="8 is too small: ask for 16"):
        simulate_wildfire(0, 0, size=8)
    with pytest.raises(ValueError, match="'skewd': did you mean 'skewed'"):
        simulate_wildfires(3, probabilities="skewd")
    with pytest.raises(ValueError, match="index must not be negative, received -1"):
        simulate_wildfire(0, -1)
    with pytest.raises(ValueError, match="workers must be 1 or more, received 0"):
        simulate_wildfires(3, workers=0)
    with pytest.raises(ValueError, match=r"received \(3, 64, 64\)"):
        burned_after(np.zeros((3, 64, 64), np.float32), 0.0)
