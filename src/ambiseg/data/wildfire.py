r"""Simulated wildfires: one landscape, eight equally lawful futures.

A scenario shows a landscape and the area that a first fire period has burned; its masks are the areas burned
at the end of a second period under eight winds that differ in *direction* alone. The direction is not in the
image, so all eight masks are right answers of known probability: a test bed for ambiguous segmentation with
complete ground truth and no download, in the manner of MMFire (Gerard & Sullivan 2025). The second period is
a deterministic function of the seven channels and the wind direction (`burned_after`).

Physics:

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
minimum travel time methods, Can. J. Forest Research 32, 1420-1424; Gerard & Sullivan (2025), Wildfire Spread
Scenarios.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter  # type: ignore[import-untyped, unused-ignore]
from scipy.sparse import csr_array  # type: ignore[import-untyped, unused-ignore]
from scipy.sparse.csgraph import dijkstra  # type: ignore[import-untyped, unused-ignore]

from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError, UnknownNameError

Array = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

CHANNELS: tuple[str, ...] = (
    "fuel_moisture", "fuel_depth", "elevation", "surface_to_volume", "fuel_load", "wind_speed", "fire",
)  # fmt: skip
PREVAILING_CHANNEL = "prevailing_wind"
PROBABILITIES: tuple[str, ...] = ("skewed", "uniform", "prevailing")
WIND_DIRECTIONS: tuple[float, ...] = tuple(45.0 * j for j in range(8))
CELL_SIZE = 50.0  # m
EXTINCTION = 0.25  # moisture at which no fuel burns; the same for all, since no channel tells it
SECOND_PERIOD = 1800.0  # s, in a scene of 64 cells; it grows in proportion to the scene
PREVAILING_KAPPA = 2.0  # concentration of the winds around the prevailing one

_DEPTH, _SIGMA, _LOAD, _FIRE = map(CHANNELS.index, ("fuel_depth", "surface_to_volume", "fuel_load", "fire"))
_REFERENCE_SIZE, _MINIMUM_SIZE, _ATTEMPTS, _REACH = 64, 16, 1000, 4
_FOOT, _POUND = 0.3048, 0.45359237
_POUND_PER_SQUARE_FOOT = _POUND / _FOOT**2
_TON_PER_ACRE = 2000.0 * _POUND / (43560.0 * _FOOT**2)

# Fine dead fuel of the standard models 1, 3, 6, 9, 10, 11 (Albini 1976), one a column: load, depth, sigma.
_FUEL_MODELS = np.array(
    [
        np.multiply([0.74, 3.01, 1.50, 2.92, 3.01, 1.50], _TON_PER_ACRE),
        np.multiply([1.0, 2.5, 2.5, 0.2, 1.0, 1.0], _FOOT),
        np.divide([3500, 1500, 1750, 2500, 2000, 1500], _FOOT),
    ]
)


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
    s = np.where(fuel, s * _FOOT, 1000.0)
    bulk_density = w0 / np.where(fuel, delta / _FOOT, 1.0)
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
    base = reaction_intensity * flux_ratio / heat_sink * (_FOOT / 60.0)

    wind_power = 0.02526 * s**0.54
    per_foot_per_minute = 7.47 * np.exp(-0.133 * s**0.55) * relative ** (-0.715 * np.exp(-3.59e-4 * s))
    wind_scale = per_foot_per_minute * (60.0 / _FOOT) ** wind_power
    return FuelBed(*(np.where(fuel, v, 0.0) for v in (base, wind_scale, wind_power, 5.275 * packing**-0.3)))


def rate_of_spread(
    load: ArrayLike, depth: ArrayLike, sigma: ArrayLike, moisture: ArrayLike, wind: ArrayLike = 0.0,
    slope: ArrayLike = 0.0, extinction: float = EXTINCTION,
) -> Array:  # fmt: skip
    r"""Head rate of spread in m/s, of the broadcast shape, with the wind blowing straight up the slope.

    :math:`R = R_0 (1 + \phi_w + \phi_s)`, :math:`\phi_w = C U^B (\beta / \beta_*)^{-E}`,
    :math:`\phi_s = 5.275 \beta^{-0.3} \,\text{slope}^2` (Rothermel 1972, eq. 52), without his cap on the
    wind. Raises AmbisegError for a negative wind or an ``extinction`` that is not positive.

    >>> rate_of_spread(0.166, 0.3, 11500.0, 0.08, wind=[0.0, 2.0], extinction=0.12).round(3).tolist()
    [0.02, 0.359]
    """
    bed = fuel_bed(load, depth, sigma, moisture, extinction)
    factor = bed.wind_scale * _speed(wind) ** bed.wind_power + bed.slope_scale * np.square(slope)
    return np.asarray(bed.base * (1.0 + factor), np.float64)


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
    unit_x, unit_y = _unit_vector(direction)
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


def _unit_vector(direction: ArrayLike) -> tuple[Array, Array]:
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


def burned_after(image: NDArray[np.generic], direction: ArrayLike) -> NDArray[np.uint8]:
    """Area burned at the end of the second period, from the image and a wind direction alone.

    ``image`` is (C, H, W), its first channels being `CHANNELS`; ``direction`` is one angle in degrees or K of
    them. Returns 0 and 1, (H, W) or (K, H, W). Raises AmbisegError for an image of another shape.

    >>> sample = simulate_wildfire(seed=0, index=0)
    >>> bool((burned_after(sample.image, 45.0) == sample.masks[1]).all())
    True
    """
    if image.ndim != 3 or len(image) < len(CHANNELS):
        raise AmbisegError(f"image must be (C, H, W) with C >= {len(CHANNELS)}, received {image.shape}")
    fields = image.astype(np.float64)
    return np.isfinite(_arrival(fields, direction, fields[_FIRE] > 0.5)).astype(np.uint8)


def _arrival(fields: Array, direction: ArrayLike, sources: Mask) -> Array:
    """Arrival times within one period from ``sources``, (H, W) or (K, H, W) for K directions."""
    moisture, depth, elevation, sigma, load, wind = fields[:_FIRE]
    bed = fuel_bed(load, depth, sigma, moisture)
    slope_south, slope_east = np.gradient(elevation, CELL_SIZE)
    angles = np.asarray(direction, np.float64)[..., None, None]
    ellipse = spread_ellipse(bed, wind, angles, slope_east, -slope_south)
    period = SECOND_PERIOD * len(elevation) / _REFERENCE_SIZE
    return arrival_times(ellipse, bed.base > 0, sources, limit=period)


def von_mises_weights(angle: float, kappa: float = PREVAILING_KAPPA) -> Array:
    r"""Probabilities (8,) of `WIND_DIRECTIONS` around a prevailing direction in degrees.

    :math:`p_j \propto \exp(\kappa \cos(\alpha_j - \alpha))`, the von Mises density scaled to sum 1.

    >>> von_mises_weights(90.0).round(3).tolist()
    [0.055, 0.226, 0.405, 0.226, 0.055, 0.013, 0.007, 0.013]
    """
    density = np.exp(kappa * np.cos(np.radians(np.array(WIND_DIRECTIONS) - angle)))
    return np.asarray(density / density.sum(), np.float64)


def prevailing_ramp(angle: float, size: int) -> Image:
    r"""The channel (size, size) that tells a prevailing wind: a plane whose gradient is its unit vector.

    :math:`z = x \cos\alpha + y \sin\alpha` over the scene as [-1, 1] x [-1, 1], at cell centres
    :math:`x = (2 c + 1) / W - 1`, :math:`y = 1 - (2 r + 1) / H`: an angle without a jump at 360 degrees.

    >>> prevailing_ramp(90.0, 4)[:, 0].tolist()
    [0.75, 0.25, -0.25, -0.75]
    """
    centre = (2.0 * np.arange(size) + 1.0) / size - 1.0
    unit_x, unit_y = _unit_vector(angle)
    return (unit_x * centre - unit_y * centre[:, None]).astype(np.float32)


def _noise(rng: np.random.Generator, size: int, scale: float) -> Array:
    """A smooth random (size, size) field of mean 0, deviation 1; ``scale`` is the blur over the scene."""
    field = gaussian_filter(rng.standard_normal((size, size)), scale * size)
    return np.asarray((field - field.mean()) / field.std(), np.float64)


def _bare_ground(rng: np.random.Generator, size: int) -> Mask:
    """Cells without fuel: in half of the scenes none, else lakes or rivers (level sets of a random field)."""
    kind = rng.choice(["none", "lakes", "rivers"], p=[0.5, 0.25, 0.25])
    if kind == "none":
        return np.zeros((size, size), bool)
    field = _noise(rng, size, rng.uniform(0.05, 0.08))
    if kind == "lakes":
        return np.asarray(field > np.quantile(field, rng.uniform(0.4, 0.9)), bool)
    return np.asarray(np.abs(field - rng.uniform(-1.0, 1.0)) < rng.uniform(0.15, 0.3), bool)


def _control_line(rng: np.random.Generator, fire: Mask) -> Mask:
    """Ground cleared around the fire, most often with a gap: what makes outcomes coincide."""
    distance = distance_transform_edt(~fire)
    near = rng.choice([1.0, 1.5])
    y, x = (at - at[fire].mean() for at in np.mgrid[: fire.shape[0], : fire.shape[1]])
    bearing = np.arctan2(-y, x)
    from_gap = np.abs((bearing - rng.uniform(0.0, 2.0 * np.pi)) % (2.0 * np.pi) - np.pi)
    band = (distance > near) & (distance <= near + 1.5)
    return np.asarray(band & (from_gap > rng.uniform(-0.3, 0.9)), bool)


def _landscape(rng: np.random.Generator, size: int) -> Image:
    """A (7, size, size) image without fire."""
    models = rng.permutation(_FUEL_MODELS, axis=1)[:, :3]
    patches = np.argmax([_noise(rng, size, 0.09) for _ in range(3)], axis=0)
    load, depth, sigma = np.where(_bare_ground(rng, size), 0.0, np.take(models, patches, axis=1))
    moisture = np.clip(rng.uniform(0.06, 0.12) + 0.02 * _noise(rng, size, 0.1), 0.03, 0.20)
    relief = rng.uniform(10.0, 60.0) * size / _REFERENCE_SIZE * _noise(rng, size, 0.12)
    wind = rng.uniform(1.9, 3.2) * np.clip(1.0 + 0.1 * _noise(rng, size, 0.15), 0.6, 1.4)
    channels = [moisture, depth, relief - relief.min(), sigma, load, wind, np.zeros_like(wind)]
    return np.stack(channels).astype(np.float32)


def _first_fire(rng: np.random.Generator, image: Image) -> Mask | None:
    """Area of the first period: three winds in turn until 1 to 6 % have burned; None if it cannot."""
    size = image.shape[1]
    central = np.abs(np.arange(size) - (size - 1) / 2) <= size / 16
    candidates = np.flatnonzero((image[_LOAD] > 0) & central & central[:, None])
    if candidates.size == 0:
        return None
    fields = image.astype(np.float64)
    fire: Mask = np.arange(size * size).reshape(size, size) == rng.choice(candidates)
    goal, direction = rng.uniform(0.01, 0.06) * size * size, rng.uniform(0.0, 360.0)
    for spell in (1, 2, 3):
        times = _arrival(fields, direction, fire)
        last = np.sort(times, axis=None)[math.ceil(goal * spell / 3) - 1]
        if not np.isfinite(last):
            return None
        fire = np.asarray(times <= last)
        direction += rng.normal(0.0, 70.0)
    return fire


def _scenario(rng: np.random.Generator, size: int) -> tuple[Image, NDArray[np.uint8]]:
    """Draw until a fire starts, grows by 15 % on average and leaves half of the scene in every outcome."""
    for _ in range(_ATTEMPTS):
        image = _landscape(rng, size)
        fire = _first_fire(rng, image)
        if fire is None:
            continue
        image[_FIRE] = fire
        if rng.random() < 0.25:
            image[[_DEPTH, _SIGMA, _LOAD]] *= ~_control_line(rng, fire)
        masks = burned_after(image, WIND_DIRECTIONS)
        area = masks.mean(axis=(1, 2))
        if area.mean() > 1.15 * fire.mean() and area.max() < 0.5:
            return image, masks
    raise RuntimeError(f"no fire took hold in {_ATTEMPTS} landscapes of size {size}")


def simulate_wildfire(seed: int, index: int, size: int = 64, probabilities: str = "skewed") -> Sample:
    r"""Scenario ``index`` of the data set ``seed``: a pure function of its arguments.

    Returns a Sample of image (7, size, size), masks (8, size, size) of 0 and 1 in the order of
    `WIND_DIRECTIONS` (coinciding outcomes are kept), and weights by ``probabilities``: "skewed"
    :math:`2^j / 255`; "uniform"; or "prevailing", `von_mises_weights` around a random direction told by an
    eighth channel, `prevailing_ramp`. Raises AmbisegError for a size below 16, an unknown option, or a
    negative seed or index.

    >>> sample = simulate_wildfire(seed=0, index=3, size=32)
    >>> sample.id, sample.image.shape, sample.masks.shape, sample.annotators[1]
    ('fire-00003', (7, 32, 32), (8, 32, 32), 'wind-045')
    """
    _check(size, probabilities, seed=seed, index=index)
    rng = np.random.default_rng([seed, index])
    image, masks = _scenario(rng, size)
    weights = np.full(8, 1.0 / 8.0)
    if probabilities == "skewed":
        weights = 2.0 ** np.arange(8) / 255.0
    elif probabilities == "prevailing":
        angle = rng.uniform(0.0, 360.0)
        weights = von_mises_weights(angle)
        image = np.concatenate([image, prevailing_ramp(angle, size)[None]])
    names = tuple(f"wind-{direction:03.0f}" for direction in WIND_DIRECTIONS)
    return Sample(f"fire-{index:05d}", image, masks, weights, names)


def simulate_wildfires(
    count: int, *, size: int = 64, seed: int = 0, probabilities: str = "skewed", start: int = 0,
    workers: int = 1,
) -> Iterator[Sample]:  # fmt: skip
    """Scenarios ``start`` to ``start + count - 1`` in order, the same for any number of worker processes.

    Processes are spawned, so a script that asks for ``workers`` > 1 must guard its main part with
    ``if __name__ == "__main__"``. Raises AmbisegError at the call, as `simulate_wildfire` does, and for a
    negative count or fewer than one worker.

    >>> [sample.id for sample in simulate_wildfires(2, size=16, start=7)]
    ['fire-00007', 'fire-00008']
    """
    _check(size, probabilities, seed=seed, start=start, count=count)
    if workers < 1:
        raise AmbisegError(f"workers must be 1 or more, received {workers}")
    make = functools.partial(simulate_wildfire, seed, size=size, probabilities=probabilities)
    indices = range(start, start + count)
    return map(make, indices) if workers == 1 else _in_processes(make, indices, workers)


def _in_processes(make: functools.partial[Sample], indices: range, workers: int) -> Iterator[Sample]:
    """``make`` of each index, in blocks so that no more than a few samples per worker wait for the reader."""
    block = 32 * workers
    context, ignore = multiprocessing.get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    with context.Pool(workers, initializer=signal.signal, initargs=ignore) as pool:
        for first in range(0, len(indices), block):
            yield from pool.map(make, indices[first : first + block])


def _check(size: int, probabilities: str, **counts: int) -> None:
    if size < _MINIMUM_SIZE:
        raise AmbisegError(f"wildfire size {size} is too small: ask for {_MINIMUM_SIZE} cells or more")
    if probabilities not in PROBABILITIES:
        raise UnknownNameError("wildfire probabilities", probabilities, PROBABILITIES)
    for name, value in counts.items():
        if value < 0:
            raise AmbisegError(f"{name} must not be negative, received {value}")
