r"""How fire spreads over a grid: rate of spread, the ellipse in wind and slope, arrival by minimum travel
 time.

* Head rate of spread :math:`R = R_0 (1 + \phi)` by Rothermel (1972) with the net load of Albini (1976) and
  one size class; :math:`\phi` is the length of the vector sum of the wind factor and the slope factor.
* The wind that alone would give :math:`\phi` is the effective wind. It fixes the length-to-breadth ratio
  :math:`LB` of the fire (Anderson 1983) and :math:`e = \sqrt{1 - LB^{-2}}`. In a uniform bed the fire is an
  ellipse with the ignition in its rear focus: :math:`R(\theta) = R (1 - e) / (1 - e \cos\theta)` at the angle
  :math:`\theta` from its heading.
* Arrival by minimum travel time (Finney 2002): shortest paths on a grid graph that joins cells by the 48
  coprime moves of up to four cells. An edge takes the sum of length / speed over the cells that it crosses,
  and exists only if every cell that it crosses or touches burns. Between the directions of the moves fire
  comes late by at most 1 % of the time in calm air and 6 % at :math:`LB = 1.9` (a wind of 3 m/s).

Units: load kg/m2, depth m, surface-to-volume ratio 1/m, moisture as fraction of dry weight, elevation m, wind
m/s at midflame height, slope m/m, rates m/s, times s. Rothermel's regressions hold in feet, pounds, British
thermal units and minutes; `fuel_bed` converts. Row 0 is the north edge. Directions are where the wind blows
*to*, degrees counter-clockwise from east (0 right, 90 up); x is east, y is north.

References: Rothermel (1972), A mathematical model for predicting fire spread in wildland fuels, USDA FS
INT-115; Albini (1976), Estimating wildfire behavior and effects, USDA FS INT-GTR-30; Anderson (1983),
Predicting wind-driven wild land fire size and shape, USDA FS INT-305; Finney (2002), Fire growth using
minimum travel time methods, Can. J. Forest Research 32, 1420-1424.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped, unused-ignore]
from scipy.sparse.csgraph import dijkstra  # type: ignore[import-untyped, unused-ignore]

from ambiseg.errors import AmbisegError

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CELL_SIZE = 50.0  # m
EXTINCTION = 0.25  # moisture at which no fuel burns
FOOT, POUND = 0.3048, 0.45359237

_POUND_PER_SQUARE_FOOT = POUND / FOOT**2
_REACH = 4


class FuelBed(NamedTuple):
    r"""What fuel adds to the spread: :math:`R = r (1 + w U^b + s \,\text{slope}^2)`; 0 without fuel."""

    base: Array  # r, m/s
    wind_scale: Array  # w, the wind factor at 1 m/s
    wind_power: Array  # b
    slope_scale: Array  # s, the slope factor at a gradient of 1


class SpreadEllipse(NamedTuple):
    """Fire ellipse of each cell: head rate (m/s), eccentricity in [0, 1), and unit vector to the head."""

    head: Array
    eccentricity: Array
    heading_x: Array
    heading_y: Array


def fuel_bed(
    load: ArrayLike, depth: ArrayLike, sigma: ArrayLike, moisture: ArrayLike, extinction: float = EXTINCTION
) -> FuelBed:
    r"""Rothermel's terms that depend on the fuel alone; the arguments broadcast.

    With bulk density :math:`\rho_b = w_0 / \delta`, packing ratio :math:`\beta = \rho_b / 32` and its optimum
    :math:`\beta_* = 3.348 \sigma^{-0.8189}` (Rothermel 1972; :math:`A`, :math:`w_n` by Albini 1976):

    .. math:: r = \frac{I_R \xi}{\rho_b \varepsilon Q}, \quad I_R = \Gamma' w_n h \eta_M \eta_S, \quad
              \Gamma' = \Gamma'_{\max} (\beta / \beta_*)^A e^{A (1 - \beta / \beta_*)}

    All terms are 0 where load, depth or sigma is not positive, and the base rate is 0 at and above the
    moisture of extinction. Raises AmbisegError if ``extinction`` is not positive.

    >>> fuel_bed(load=0.166, depth=0.3, sigma=11500.0, moisture=[0.05, 0.30]).base.round(4).tolist()
    [0.0291, 0.0]
    """
    if not extinction > 0:
        raise AmbisegError(f"extinction must be a positive moisture fraction, received {extinction!r}")
    arrays = (np.asarray(v, np.float64) for v in (load, depth, sigma, moisture))
    w0, delta, s, m = np.broadcast_arrays(*arrays)
    fuel = (w0 > 0) & (delta > 0) & (s > 0)
    w0 = np.where(fuel, w0 / _POUND_PER_SQUARE_FOOT, 1.0)
    s = np.where(fuel, s * FOOT, 1000.0)
    bulk_density = w0 / np.where(fuel, delta / FOOT, 1.0)
    packing = bulk_density / 32.0
    relative = packing / (3.348 * s**-0.8189)

    exponent = 133.0 * s**-0.7913
    velocity = s**1.5 / (495.0 + 0.0594 * s**1.5) * relative**exponent * np.exp(exponent * (1.0 - relative))
    dryness = m / extinction
    moisture_damping = 1.0 - 2.59 * dryness + 5.11 * dryness**2 - 3.52 * dryness**3
    moisture_damping = np.where(dryness < 1.0, moisture_damping, 0.0)
    net_load, mineral_damping = w0 * (1.0 - 0.0555), 0.174 * 0.010**-0.19
    reaction_intensity = velocity * net_load * 8000.0 * moisture_damping * mineral_damping
    flux_ratio = np.exp((0.792 + 0.681 * np.sqrt(s)) * (packing + 0.1)) / (192.0 + 0.2595 * s)
    heat_sink = bulk_density * np.exp(-138.0 / s) * (250.0 + 1116.0 * m)
    base = reaction_intensity * flux_ratio / heat_sink * (FOOT / 60.0)

    wind_power = 0.02526 * s**0.54
    per_foot_per_minute = 7.47 * np.exp(-0.133 * s**0.55) * relative ** (-0.715 * np.exp(-3.59e-4 * s))
    wind_scale = per_foot_per_minute * (60.0 / FOOT) ** wind_power
    return FuelBed(*(np.where(fuel, v, 0.0) for v in (base, wind_scale, wind_power, 5.275 * packing**-0.3)))


def length_to_breadth(wind: ArrayLike) -> Array:
    r"""Length-to-breadth ratio, 1 to 8, of a fire in a midflame wind of ``wind`` m/s; any shape.

    :math:`LB = 0.936 e^{0.2566 U} + 0.461 e^{-0.1548 U} - 0.397` (Anderson 1983, shifted as is customary so
    that calm air gives a circle, and capped). Raises AmbisegError for a negative wind.

    >>> length_to_breadth([0.0, 3.0, 50.0]).round(2).tolist()
    [1.0, 1.91, 8.0]
    """
    speed = np.minimum(_speed(wind), 20.0)
    return np.clip(0.936 * np.exp(0.2566 * speed) + 0.461 * np.exp(-0.1548 * speed) - 0.397, 1.0, 8.0)


def _speed(wind: ArrayLike) -> Array:
    speed = np.asarray(wind, np.float64)
    if np.any(speed < 0):
        raise AmbisegError(f"wind must not be negative, received {speed.min()}: turn its direction instead")
    return speed


def spread_ellipse(
    bed: FuelBed, wind: ArrayLike, direction: ArrayLike, slope_x: ArrayLike = 0.0, slope_y: ArrayLike = 0.0
) -> SpreadEllipse:
    r"""Fire ellipses in a wind (m/s, to ``direction``) on a slope (elevation gradient); arguments broadcast.

    The factors add as vectors, :math:`\phi = |\phi_w \hat u + \phi_s \hat g|`; the effective wind solves
    :math:`w U^b = \phi` and gives the eccentricity through `length_to_breadth`. Where :math:`\phi = 0` the
    heading is the null vector. Raises AmbisegError for a negative wind.

    >>> fire = spread_ellipse(fuel_bed(0.166, 0.3, 11500.0, 0.08), wind=2.0, direction=90.0)
    >>> float(fire.head.round(3)), float(fire.heading_y), float(fire.eccentricity.round(2))
    (0.415, 1.0, 0.75)
    """
    unit_x, unit_y = unit_vector(direction)
    gradient_x, gradient_y = np.asarray(slope_x, np.float64), np.asarray(slope_y, np.float64)
    wind_factor = bed.wind_scale * _speed(wind) ** bed.wind_power
    slope_factor = bed.slope_scale * np.sqrt(gradient_x**2 + gradient_y**2)
    x = wind_factor * unit_x + slope_factor * gradient_x
    y = wind_factor * unit_y + slope_factor * gradient_y
    factor = np.sqrt(x**2 + y**2)
    scale, power = (np.where(v > 0, v, 1.0) for v in (bed.wind_scale, bed.wind_power))
    eccentricity = np.sqrt(1.0 - length_to_breadth((factor / scale) ** (1.0 / power)) ** -2.0)
    length = np.where(factor > 0, factor, 1.0)
    return SpreadEllipse(bed.base * (1.0 + factor), eccentricity, x / length, y / length)


def unit_vector(direction: ArrayLike) -> tuple[Array, Array]:
    """Components of unit vectors, rounded so that quarter turns map them onto each other exactly."""
    angle = np.radians(np.asarray(direction, np.float64))
    x, y = (np.asarray(np.round(turn(angle), 12), np.float64) for turn in (np.cos, np.sin))
    return x, y


@functools.cache
def _moves() -> dict[tuple[int, int], list[tuple[int, int, float]]]:
    """Straight steps (rows, columns) between cell centres, with the cells that they cross."""
    steps = range(-_REACH, _REACH + 1)
    return {(r, c): _crossed_cells(r, c) for r in steps for c in steps if math.gcd(r, c) == 1}


def _crossed_cells(rows: int, columns: int) -> list[tuple[int, int, float]]:
    """Cells (row, column, share of length) along the segment from (0, 0), then those touched at a corner."""
    walls = {(k + 0.5) / abs(n) for n in (rows, columns) for k in range(abs(n))}
    stops = [0.0, *sorted(walls), 1.0]
    crossed = [(round((a + b) / 2 * rows), round((a + b) / 2 * columns), b - a) for a, b in pairwise(stops)]
    turns = [(p, q) for p, q in pairwise(crossed) if p[0] != q[0] and p[1] != q[1]]
    return crossed + [cell for p, q in turns for cell in ((p[0], q[1], 0.0), (q[0], p[1], 0.0))]


@functools.lru_cache(maxsize=8)
def _grid_graph(height: int, width: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Sparse pattern of the grid: row pointers, neighbours, place of each edge in a (moves, H, W) array."""
    cells = np.arange(height * width)[:, None]
    rows, columns = np.transpose(list(_moves()))
    row, column = cells // width + rows, cells % width + columns
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    pointers = np.concatenate([[0], np.cumsum(inside.sum(axis=1))]).astype(np.int32)
    places = np.arange(len(_moves())) * (height * width) + cells
    return pointers, (row * width + column)[inside].astype(np.int32), places[inside]


def _edge_times(ellipse: SpreadEllipse, burnable: Mask, cell_size: float) -> Array:
    r"""Travel time of every move out of every cell, (..., moves, H, W); infinite where fire cannot pass.

    The slowness :math:`1 / R(\theta) = a - b \cdot d` is linear in the unit vector :math:`d` of the move,
    with :math:`a = 1 / (R (1 - e))` and :math:`b = a e` along the heading.
    """
    round_slowness = 1.0 / np.where(burnable, ellipse.head * (1.0 - ellipse.eccentricity), 1.0)
    along_x = round_slowness * ellipse.eccentricity * ellipse.heading_x
    along_y = round_slowness * ellipse.eccentricity * ellipse.heading_y
    times = np.full((*round_slowness.shape[:-2], len(_moves()), *burnable.shape), np.inf)
    for k, ((rows, columns), cells) in enumerate(_moves().items()):
        length = math.hypot(rows, columns)
        slowness = round_slowness - (along_x * (columns / length) - along_y * (rows / length))
        shifted = functools.partial(_window, burnable.shape, rows, columns)
        passable = np.logical_and.reduce([burnable[shifted(r, c)] for r, c, _ in cells])
        metres = length * cell_size
        parts = [slowness[..., *shifted(r, c)] * (share * metres) for r, c, share in cells if share > 0]
        times[..., k, *shifted(0, 0)] = np.where(passable, functools.reduce(np.add, parts), np.inf)
    return times


def _window(shape: tuple[int, ...], rows: int, columns: int, row: int, column: int) -> tuple[slice, slice]:
    """Cells at offset (row, column) from those out of which the move (rows, columns) stays on the grid."""
    top, left = max(0, -rows) + row, max(0, -columns) + column
    tall, wide = max(0, shape[0] - abs(rows)), max(0, shape[1] - abs(columns))
    return slice(top, top + tall), slice(left, left + wide)


def arrival_times(
    ellipse: SpreadEllipse, burnable: Mask, sources: Mask, cell_size: float = CELL_SIZE, limit: float = np.inf
) -> Array:
    """Time in s at which fire reaches each cell, by minimum travel time (Finney 2002).

    ``ellipse`` holds fields (H, W), or (K, H, W) for K winds; ``burnable`` and ``sources`` are (H, W), the
    latter burning at time 0; ``cell_size`` is in m. Returns times of the shape of the fields, infinite where
    fire does not come by ``limit`` s. Raises AmbisegError if shapes disagree or a burnable cell has no
    positive rate.

    >>> zero, start = np.zeros((3, 6)), np.arange(18).reshape(3, 6) == 6
    >>> calm = SpreadEllipse(zero + 2.0, zero, zero, zero)
    >>> arrival_times(calm, zero == 0, start, cell_size=10.0)[1].tolist()
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    """
    head = np.asarray(ellipse.head)
    if not head.shape[-2:] == burnable.shape == sources.shape:
        shapes = f"ellipse {head.shape}, burnable {burnable.shape}, sources {sources.shape}"
        raise AmbisegError(f"the grids must agree, received {shapes}: give all of them the same (H, W)")
    if not np.all(head[..., burnable] > 0):
        raise AmbisegError("a burnable cell has no positive head rate: leave it out of burnable")
    pointers, neighbours, places = _grid_graph(*burnable.shape)
    cells, start = burnable.size, np.flatnonzero(sources)
    times = np.full((head.size // cells, cells), np.inf)
    if start.size:
        edges = _edge_times(ellipse, burnable, cell_size).reshape(len(times), -1)
        for out, weights in zip(times, edges, strict=True):
            graph = csr_array((weights[places], neighbours, pointers), shape=(cells, cells))
            out[:] = dijkstra(graph, indices=start, min_only=True, limit=limit)
    return times.reshape(head.shape)
