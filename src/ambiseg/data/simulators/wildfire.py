r"""Simulated wildfires: one landscape, eight possible futures.

A scenario shows a landscape and the area that a first fire period has burned; its masks are the areas burned
at the end of a second period under eight winds that differ in *direction* alone. The direction is not in the
image, so all eight masks are right answers of known probability: a test bed for ambiguous segmentation with
complete ground truth and no download, in the manner of MMFire (Gerard & Sullivan 2025). The second period is
a deterministic function of the seven channels and the wind direction (`burned_after`).

How fire spreads is in `ambiseg.data.simulators.fire_spread`, with units and directions: rates by Rothermel
(1972), ellipses by Anderson (1983), arrival by minimum travel time (Finney 2002).

Reference: Gerard & Sullivan (2025), Wildfire Spread Scenarios.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import signal
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter  # type: ignore[import-untyped, unused-ignore]

from ambiseg.data.sample import Sample
from ambiseg.data.simulators.fire_spread import (
    CELL_SIZE,
    FOOT,
    POUND,
    Array,
    Mask,
    arrival_times,
    fuel_bed,
    spread_ellipse,
    unit_vector,
)
from ambiseg.errors import AmbisegError, UnknownNameError

Image = NDArray[np.float32]

CHANNELS: tuple[str, ...] = (
    "fuel_moisture", "fuel_depth", "elevation", "surface_to_volume", "fuel_load", "wind_speed", "fire",
)  # fmt: skip
PREVAILING_CHANNEL = "prevailing_wind"
PROBABILITIES: tuple[str, ...] = ("skewed", "uniform", "prevailing")
WIND_DIRECTIONS: tuple[float, ...] = tuple(45.0 * j for j in range(8))
SECOND_PERIOD = 1800.0  # s, in a scene of 64 cells; it grows in proportion to the scene
PREVAILING_KAPPA = 2.0  # concentration of the winds around the prevailing one

_DEPTH, _SIGMA, _LOAD, _FIRE = map(CHANNELS.index, ("fuel_depth", "surface_to_volume", "fuel_load", "fire"))
_REFERENCE_SIZE, _MINIMUM_SIZE, _ATTEMPTS = 64, 16, 1000
_TON_PER_ACRE = 2000.0 * POUND / (43560.0 * FOOT**2)

# Fine dead fuel of the standard models 1, 3, 6, 9, 10, 11 (Albini 1976), one a column: load, depth, sigma.
_FUEL_MODELS = np.array(
    [
        np.multiply([0.74, 3.01, 1.50, 2.92, 3.01, 1.50], _TON_PER_ACRE),
        np.multiply([1.0, 2.5, 2.5, 0.2, 1.0, 1.0], FOOT),
        np.divide([3500, 1500, 1750, 2500, 2000, 1500], FOOT),
    ]
)


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
    bed = fuel_bed(load, depth, sigma, moisture)  # the same extinction for all: no channel tells it
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
    unit_x, unit_y = unit_vector(angle)
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
