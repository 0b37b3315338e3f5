"""Outlines of masks along the edges of pixels, without holes, so that every program fills them alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ambiseg.exchange.packages import package

Polygon = list[tuple[int, int]]
"""Corners ``(x, y)`` in pixels; the first one is not repeated at the end."""


def polygons(mask: NDArray[Any]) -> list[Polygon]:
    """Polygons that cover the pixels of a mask and no others; none if the mask is empty.

    Corners lie on corners of pixels: pixel ``(row, column)`` is the square from ``(column, row)`` to
    ``(column + 1, row + 1)``. A region with holes is cut into pieces above the first row of each hole, since
    the formats know no holes. Pixels that meet at a corner only are regions of their own.

    Args:
        mask: ``(H, W)``; what is not 0 counts.

    Raises:
        AmbisegError: rasterio is missing.

    Example:
        >>> polygons(np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]]))
        [[(0, 0), (0, 1), (2, 1), (2, 0)], [(2, 2), (2, 3), (3, 3), (3, 2)]]
        >>> len(polygons(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])))  # a ring
        2
    """
    inside = np.asarray(mask) != 0
    regions, count = ndimage.label(inside)
    pieces = regions.astype(np.int32)
    cuts = {int(value): sorted({_top(ring) for ring in rings[1:]}) for value, rings in _rings(pieces, inside)}
    boxes = ndimage.find_objects(regions)
    for region, rows in cuts.items():
        if rows:
            box = boxes[region - 1]
            band = np.searchsorted(rows, np.arange(box[0].start, box[0].stop), side="right").astype(np.int32)
            numbers = np.where(band > 0, count + band, region)[:, None]
            own = regions[box] == region
            pieces[box][own] = np.broadcast_to(numbers, own.shape)[own]
            count += len(rows)
    return [_corners(rings[0]) for _, rings in _rings(pieces, inside)]


def _rings(numbers: NDArray[np.int32], inside: NDArray[np.bool_]) -> list[tuple[float, list[Any]]]:
    """Number, and outline and holes, of every region of pixels of one number that share edges."""
    if not inside.any():
        return []
    shapes = package("rasterio.features", "formats", "Polygons need").shapes
    return [(value, shape["coordinates"]) for shape, value in shapes(numbers, mask=inside, connectivity=4)]


def _top(ring: list[Any]) -> int:
    return int(min(y for _, y in ring))


def _corners(ring: list[Any]) -> Polygon:
    return [(int(x), int(y)) for x, y in ring[:-1]]
