r"""Lesions: a small problem for examples and first tries, whose probabilities can be seen in the image.

An image shows a bright lesion with a faint rim, and a satellite beside it. Four readers mark it each in one way:

* ``strict``: the bright core;
* ``generous``: the core with its rim;
* ``all``: the core with its rim, and the satellite;
* ``none``: nothing.

The fainter the lesion, the more often nothing is marked. With the contrast :math:`c`, drawn from 0.25 to 1 for each
image, the probabilities of the four are

.. math:: 0.4 q, \quad 0.35 q, \quad 0.25 q, \quad 1 - q, \qquad q = \min(0.96, 0.1 + 1.1 c).

A network of a few thousand weights learns this in a hundred steps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped, unused-ignore]

from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError

Array = NDArray[np.float64]

READERS: tuple[str, ...] = ("strict", "generous", "all", "none")
CHANNELS: tuple[str, ...] = ("intensity",)

_SHARES = np.array([0.4, 0.35, 0.25])  # of those who mark something
_SMALLEST = 16


def reader_probabilities(contrast: float) -> Array:
    """Probability of the masks of `READERS` ``(4,)`` at a contrast from 0 to 1.

    Example:
        >>> reader_probabilities(0.5).round(4).tolist()
        [0.26, 0.2275, 0.1625, 0.35]
    """
    marked = min(0.96, 0.1 + 1.1 * contrast)
    return np.append(marked * _SHARES, 1 - marked)


def simulate_lesion(seed: int, index: int, size: int = 32) -> Sample:
    """Image ``index`` of the data set ``seed``: a pure function of its arguments.

    Returns:
        A sample of image (1, size, size) float32, masks (4, size, size) of 0 and 1 in the order of `READERS`, and
        weights by `reader_probabilities`.

    Raises:
        AmbisegError: a size below 16, or a negative seed or index.

    Example:
        >>> sample = simulate_lesion(seed=0, index=3)
        >>> sample.id, sample.image.shape, sample.masks.sum((1, 2)).tolist(), sample.annotators[0]
        ('lesion-00003', (1, 32, 32), [47, 101, 127, 0], 'strict')
    """
    _check(size, seed=seed, index=index)
    rng = np.random.default_rng([seed, index])
    contrast = rng.uniform(0.25, 1.0)
    y, x = rng.uniform(0.42, 0.58, 2) * size
    radius = rng.uniform(0.09, 0.13) * size
    angle, small = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 0.95) * radius
    rows, columns = np.mgrid[:size, :size]
    uneven = 1 + 0.12 * _smooth(rng, size, 0.12)
    main = np.hypot(rows - y, columns - x) * uneven / radius
    away = 1.5 * radius + 1.5 * small
    satellite = np.hypot(rows - y - away * np.sin(angle), columns - x - away * np.cos(angle)) * uneven / small
    core, rim, spot = main < 1, main < 1.55, satellite < 1
    bright = 0.5 * core + 0.5 * rim + 0.75 * spot
    image = contrast * gaussian_filter(bright, 0.02 * size) + 0.1 * _smooth(rng, size, 0.03)
    masks = np.stack([core, rim, rim | spot, np.zeros_like(core)]).astype(np.uint8)
    return Sample(
        f"lesion-{index:05d}", image[None].astype(np.float32), masks, reader_probabilities(contrast), READERS
    )


def simulate_lesions(count: int, *, size: int = 32, seed: int = 0, start: int = 0) -> Iterator[Sample]:
    """Images ``start`` to ``start + count - 1`` in order.

    Raises:
        AmbisegError: at the call, as `simulate_lesion` does, and for a negative count.

    Example:
        >>> [sample.id for sample in simulate_lesions(2, start=7)]
        ['lesion-00007', 'lesion-00008']
    """
    _check(size, seed=seed, start=start, count=count)
    return (simulate_lesion(seed, index, size) for index in range(start, start + count))


def _smooth(rng: np.random.Generator, size: int, scale: float) -> Array:
    """A smooth random field (size, size) of mean 0 and deviation 1; ``scale`` is the blur over the image."""
    field = gaussian_filter(rng.standard_normal((size, size)), scale * size)
    return np.asarray((field - field.mean()) / field.std(), np.float64)


def _check(size: int, **counts: int) -> None:
    if size < _SMALLEST:
        raise AmbisegError(f"lesions of size {size} are too small: ask for {_SMALLEST} pixels or more")
    for name, value in counts.items():
        if value < 0:
            raise AmbisegError(f"{name} must not be negative, received {value}")
