"""Shapes of COCO annotations as pixels: polygons and run lengths.

`fill_polygons` marks the pixels whose centres lie inside by the even-odd rule; run lengths go down the
columns, as the format has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import MAX_PIXELS

MAX_CORNERS = 1_000_000
"""Most corners of a polygon that is filled."""


def polygon_corners(polygons: Any) -> list[NDArray[np.float64]]:
    """Corners ``(P, 2)``, x and y, of each polygon ``x1 y1 x2 y2 ...``.

    Raises:
        ValueError: no list of polygons of three or more finite corners.
    """
    found = []
    for polygon in polygons:
        if not isinstance(polygon, (list, tuple)):
            raise ValueError("no list of polygons, each a list x1, y1, x2, y2, ...")
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or len(corners) % 2:
            raise ValueError(f"a polygon of {len(polygon)} numbers")
        if not 6 <= len(corners) <= 2 * MAX_CORNERS or not np.isfinite(corners).all():
            raise ValueError(
                f"a polygon of {len(corners) // 2} corners, where three or more finite ones belong"
            )
        found.append(corners.reshape(-1, 2))
    return found


def fill_polygons(polygons: Sequence[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie in any of the polygons of corners ``(P, 2)``, ``(H, W)``; corners may lie
    outside.

    Example:
        >>> fill_polygons(polygon_corners([[1, 0, 3, 0, 3, 1, 1, 1]]), (2, 4)).astype(int).tolist()
        [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    inside = np.zeros(size, bool)
    for corners in polygons:
        x, y = corners.T
        next_x, next_y = np.roll(x, -1), np.roll(y, -1)
        first, last = np.clip([np.floor(y.min()), np.ceil(y.max())], 0, size[0]).astype(int)
        for row in range(first, last):
            crosses = (y <= row + 0.5) != (next_y <= row + 0.5)
            share = (row + 0.5 - y[crosses]) / (next_y[crosses] - y[crosses])
            at = np.sort(x[crosses] + share * (next_x[crosses] - x[crosses]))
            before = np.searchsorted(at, np.arange(size[1]) + 0.5)
            inside[row] |= before % 2 == 1
    return inside


def run_lengths(shape: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels of a run-length shape, plain or compressed, ``(H, W)``.

    Raises:
        ValueError: of another size, or with runs that do not fill it.

    Example:
        >>> run_lengths({"size": [2, 2], "counts": [1, 2, 1]}, (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    if not {"size", "counts"} <= shape.keys():
        raise ValueError("no size and counts")
    height, width = (int(n) for n in shape["size"])
    if (height, width) != size or height * width > MAX_PIXELS:
        raise ValueError(f"its size is {height} x {width}, the image's {size[0]} x {size[1]}")
    counts, pixels = shape["counts"], height * width
    runs = np.asarray(_uncompressed(counts, pixels) if isinstance(counts, str) else counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or ((runs < 0) | (runs > pixels)).any():
        raise ValueError(f"its runs do not fill the {pixels} pixels")
    if runs.sum(dtype=np.int64) != pixels:
        raise ValueError(f"its runs fill {int(runs.sum(dtype=np.int64))} of {pixels} pixels")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def runs_of(mask: NDArray[Any]) -> dict[str, Any]:
    """The inverse of `run_lengths`: size and runs down the columns.

    Example:
        >>> runs_of(np.array([[0, 1], [1, 0]]))
        {'size': [2, 2], 'counts': [1, 2, 1]}
    """
    flat = np.asarray(mask).T.ravel() != 0
    ends = np.concatenate([np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    counts = np.diff(ends, prepend=0).tolist()
    return {"size": list(np.shape(mask)), "counts": [0, *counts] if flat.size and flat[0] else counts}


def _uncompressed(text: str, pixels: int) -> list[int]:
    """Run lengths of COCO's compressed text: five bits a character from 48 up, sixth: more follow; from the
    third on, differences to the one before the last. It ends where a run is none."""
    runs: list[int] = []
    place = total = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[place]) - 48
            if not 0 <= code < 64 or shift > 40:
                raise ValueError("its run lengths are damaged")
            value |= (code & 31) << shift
            more, place, shift = bool(code & 32), place + 1, shift + 5
            if place == len(text) and more:
                raise ValueError("its run lengths are truncated")
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        total += runs[-1]
        if runs[-1] < 0 or total > pixels:
            raise ValueError(f"its runs do not fill the {pixels} pixels")
    return runs
