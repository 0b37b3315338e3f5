"""Properties of fire spread: published rates, circle and ellipse in closed form, water as a barrier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ambiseg.data.simulators.fire_spread import (
    SpreadEllipse,
    arrival_times,
    fuel_bed,
    length_to_breadth,
    spread_ellipse,
)

GRASS: dict[str, float] = {"load": 0.166, "depth": 0.305, "sigma": 11483.0, "moisture": 0.08}


def rate_of_spread(
    load: float,
    depth: float,
    sigma: float,
    moisture: Any,
    wind: Any = 0.0,
    slope: Any = 0.0,
    **options: float,
) -> Any:
    """Head rate with the wind blowing straight up the slope."""
    bed = fuel_bed(load, depth, sigma, moisture, **options)
    return spread_ellipse(bed, wind, direction=90.0, slope_y=slope).head


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


def test_no_source_no_fire() -> None:
    nothing = np.zeros((9, 9), bool)
    assert np.isinf(arrival_times(uniform(9, 1.0, 0.0), ~nothing, nothing)).all()


# Mistakes


def test_mistakes_name_what_was_received() -> None:
    with pytest.raises(ValueError, match="extinction must be a positive"):
        rate_of_spread(**GRASS, extinction=0.0)
    with pytest.raises(ValueError, match="wind must not be negative"):
        length_to_breadth(-1.0)
    ground = np.ones((9, 9), bool)
    with pytest.raises(ValueError, match="the grids must agree"):
        arrival_times(uniform(9, 1.0, 0.0), ground, spot(11))
    with pytest.raises(ValueError, match="no positive head rate"):
        arrival_times(uniform(9, 1.0, 0.0)._replace(head=np.zeros((9, 9))), ground, spot(9))
