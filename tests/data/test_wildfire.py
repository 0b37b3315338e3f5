"""Laws of the simulated wildfires: closed forms, symmetry, containment, probabilities, population."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.typing import NDArray

from ambiseg.data.sample import Sample
from ambiseg.data.wildfire import (
    CHANNELS,
    WIND_DIRECTIONS,
    SpreadEllipse,
    arrival_times,
    burned_after,
    fuel_bed,
    length_to_breadth,
    rate_of_spread,
    simulate_wildfire,
    simulate_wildfires,
    spread_ellipse,
)

FIRE, LOAD = CHANNELS.index("fire"), CHANNELS.index("fuel_load")
GRASS: dict[str, float] = {"load": 0.166, "depth": 0.305, "sigma": 11483.0, "moisture": 0.08}


@functools.cache
def scenarios(count: int = 60) -> tuple[Sample, ...]:
    return tuple(simulate_wildfires(count))


def uniform(size: int, wind: float, direction: float) -> SpreadEllipse:
    return spread_ellipse(fuel_bed(**GRASS), np.full((size, size), wind), direction)


def spot(size: int) -> NDArray[np.bool_]:
    start = np.zeros((size, size), bool)
    start[size // 2, size // 2] = True
    return start


def polar(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.arange(size) - size // 2
    return np.hypot(x, x[:, None]), np.arctan2(-x[:, None], x)


# Rothermel 1972, Anderson 1983


@pytest.mark.parametrize(
    ("tons_per_acre", "feet", "per_foot", "extinction", "chains_per_hour"),
    [(0.74, 1.0, 3500.0, 0.12, 78.0), (3.01, 2.5, 1500.0, 0.25, 104.0)],
    ids=["short grass", "tall grass"],
)
def test_published_rates(
    tons_per_acre: float, feet: float, per_foot: float, extinction: float, chains_per_hour: float
) -> None:
    """Models 1 and 3 at 8 % moisture and 5 mi/h midflame wind, as Anderson (1982, INT-122) lists them."""
    fuel = (tons_per_acre * 0.22417, feet * 0.3048, per_foot / 0.3048)
    rate = rate_of_spread(*fuel, moisture=0.08, wind=5 * 0.44704, extinction=extinction)
    assert float(rate) * 3600.0 / 20.1168 == pytest.approx(chains_per_hour, rel=0.05)


def test_rate_grows_with_wind_and_slope_and_falls_with_moisture() -> None:
    assert np.all(np.diff(rate_of_spread(**GRASS, wind=np.linspace(0, 8, 30))) > 0)
    assert np.all(np.diff(rate_of_spread(**GRASS, slope=np.linspace(0, 1, 30))) > 0)
    wet = rate_of_spread(0.166, 0.305, 11483.0, np.linspace(0.01, 0.25, 30), wind=3.0, extinction=0.25)
    assert np.all(np.diff(wet) < 0)
    assert wet[-1] == 0.0


@pytest.mark.parametrize("absent", ["load", "depth", "sigma"])
def test_nothing_spreads_without_fuel(absent: str) -> None:
    assert rate_of_spread(**{**GRASS, absent: 0.0}, wind=3.0, slope=0.5) == 0.0


def test_length_to_breadth_is_one_in_calm_air_and_grows() -> None:
    assert length_to_breadth(0.0) == pytest.approx(1.0)
    assert np.all(np.diff(length_to_breadth(np.linspace(0, 8, 30))) > 0)


def test_slope_acts_as_the_wind_of_the_same_factor() -> None:
    bed = fuel_bed(**GRASS)
    wind = float((bed.slope_scale * 0.3**2 / bed.wind_scale) ** (1 / bed.wind_power))
    uphill, blown = spread_ellipse(bed, 0.0, 0.0, slope_y=0.3), spread_ellipse(bed, wind, 90.0)
    np.testing.assert_allclose(np.array(uphill), np.array(blown), rtol=1e-9, atol=1e-9)


def test_wind_against_the_slope_cancels() -> None:
    bed = fuel_bed(**GRASS)
    wind = float((bed.slope_scale * 0.3**2 / bed.wind_scale) ** (1 / bed.wind_power))
    fire = spread_ellipse(bed, wind, 180.0, slope_x=0.3)
    assert fire.head == pytest.approx(float(bed.base))
    assert fire.eccentricity == pytest.approx(0.0, abs=1e-3)


# Minimum travel time


def test_calm_fire_is_a_circle() -> None:
    """Times against distance / rate: never early, at most 1 % late."""
    size = 81
    fire = uniform(size, 0.0, 0.0)
    times = arrival_times(fire, np.ones((size, size), bool), spot(size), cell_size=30.0)
    distance, _ = polar(size)
    away = distance > 0
    ratio = times[away] * fire.head[away] / (30.0 * distance[away])
    assert ratio.min() > 1 - 1e-9
    assert ratio.max() < 1.01


@pytest.mark.parametrize("direction", range(0, 180, 15))
def test_wind_makes_an_ellipse_with_the_ignition_in_its_focus(direction: float) -> None:
    """Times against r (1 - e cos theta) / (R (1 - e)): never early, at most 6 % late at LB = 1.9."""
    size = 71
    fire = uniform(size, 3.0, direction)
    times = arrival_times(fire, np.ones((size, size), bool), spot(size), cell_size=30.0)
    distance, angle = polar(size)
    head, e = fire.head[0, 0], fire.eccentricity[0, 0]
    exact = 30.0 * distance * (1 - e * np.cos(angle - np.radians(direction))) / (head * (1 - e))
    ratio = times[distance > 0] / exact[distance > 0]
    assert ratio.min() > 1 - 1e-9
    assert ratio.max() < 1.06


def test_burned_area_has_the_stated_length_to_breadth() -> None:
    size = 161
    fire = uniform(size, 3.0, 0.0)
    times = arrival_times(fire, np.ones((size, size), bool), spot(size), cell_size=10.0)
    burned = times <= 70 * 10.0 / fire.head[0, 0] * (1 + 1e-9)
    columns, rows = np.flatnonzero(burned.any(axis=0)), np.flatnonzero(burned.any(axis=1))
    assert len(columns) / len(rows) == pytest.approx(float(length_to_breadth(3.0)), rel=0.05)
    e = fire.eccentricity[0, 0]
    back = 70 * (1 - e) / (1 + e)
    assert columns[-1] - size // 2 == 70
    assert size // 2 - columns[0] == int(back)


def test_time_limit_only_cuts() -> None:
    fire, ground = uniform(41, 2.0, 30.0), np.ones((41, 41), bool)
    full = arrival_times(fire, ground, spot(41))
    areas = []
    for limit in (0.0, 300.0, 600.0, 1200.0):
        cut = arrival_times(fire, ground, spot(41), limit=limit)
        np.testing.assert_array_equal(cut, np.where(full <= limit, full, np.inf))
        areas.append(np.isfinite(cut).sum())
    assert areas[0] == 1
    assert np.all(np.diff(areas) > 0)


@pytest.mark.parametrize("ring", ["square", "diamond", "disc"])
def test_water_is_never_crossed(ring: str) -> None:
    """A closed ring one cell wide holds the fire, also where its cells meet at corners only."""
    size = 31
    y, x = np.mgrid[:size, :size] - size // 2
    if ring == "disc":
        inside = np.hypot(x, y) < 8
        grown = np.zeros_like(inside)
        for step, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            grown |= np.roll(inside, step, axis)
        water = grown & ~inside
    else:
        norm = np.maximum(abs(x), abs(y)) if ring == "square" else abs(x) + abs(y)
        water, inside = norm == 8, norm < 8
    times = arrival_times(uniform(size, 3.0, 20.0), ~water, spot(size))
    np.testing.assert_array_equal(np.isfinite(times), inside)


def test_several_winds_in_one_call_equal_one_call_each() -> None:
    image = scenarios()[0].image
    together = burned_after(image, WIND_DIRECTIONS)
    np.testing.assert_array_equal(together, [burned_after(image, d) for d in WIND_DIRECTIONS])


def test_no_source_no_fire() -> None:
    nothing = np.zeros((9, 9), bool)
    assert np.isinf(arrival_times(uniform(9, 1.0, 0.0), ~nothing, nothing)).all()


# Scenarios


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
    with pytest.raises(ValueError, match="extinction must be a positive"):
        rate_of_spread(**GRASS, extinction=0.0)
    with pytest.raises(ValueError, match="wind must not be negative"):
        length_to_breadth(-1.0)
    ground = np.ones((9, 9), bool)
    with pytest.raises(ValueError, match="the grids must agree"):
        arrival_times(uniform(9, 1.0, 0.0), ground, spot(11))
    with pytest.raises(ValueError, match="no positive head rate"):
        arrival_times(uniform(9, 1.0, 0.0)._replace(head=np.zeros((9, 9))), ground, spot(9))
