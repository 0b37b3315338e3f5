"""Nodules and masks of LIDC-IDRI from the outlines of its readers.

1. `nodules` finds which annotations mean the same nodule: two are linked where their outlines come as close as a tolerance, and a
   nodule is a connected component. The tolerance is the slice thickness, times 0.9 while a component has more than four
   annotations, down to 0.1 mm.
2. `fill` turns the outlines of one annotation in one slice into pixels. By the reading protocol an outline runs through the
   first pixels *outside* the nodule, so its own pixels do not belong to it; the inside of an exclusion, its outline included,
   is a hole.

Reference: Hancock and Magnan (2016), Lung nodule malignancy classification using only radiologist-quantified
image features as inputs to statistical learning algorithms, whose package pylidc made these rules common.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from ambiseg.data.importers.lidc_annotations import Annotation, Contour, Scan

READERS = 4
"""Readers of a scan, and so the most annotations that one nodule should have."""

_SHRINK, _LEAST_TOLERANCE = 0.9, 0.1


@dataclass(frozen=True)
class Nodule:
    """Annotations that mean the same nodule, of different readers as far as one can tell."""

    annotations: tuple[Annotation, ...]

    def slices(self) -> list[float]:
        """Positions at which at least one reader marked it, ascending."""
        return sorted(set().union(*(annotation.slices() for annotation in self.annotations)))

    def centre(self) -> tuple[float, float]:
        """Row and column in the middle of the rectangle around all inclusions."""
        points = [c.points for a in self.annotations for c in a.contours if c.inclusion]
        low = np.min([p.min(axis=0) for p in points], axis=0)
        high = np.max([p.max(axis=0) for p in points], axis=0)
        row, column = (low + high) / 2
        return float(row), float(column)


def nodules(scan: Scan) -> list[Nodule]:
    """Which annotations mean the same nodule, in the order of their first annotations.

    Distances are in mm where the source tells the pixel spacing. Where it does not, pixels count 1 and the
    tolerance is the distance of slices.

    Args:
        scan: with its annotations.

    Returns:
        All nodules; one has more than `READERS` annotations where outlines overlap too much to be told apart.
    """
    annotations = scan.annotations
    count = len(annotations)
    scale = np.array([scan.pixel_spacing or 1.0, scan.pixel_spacing or 1.0, 1.0])
    tolerance = scan.slice_thickness or _slice_distance(annotations)
    clouds = [_cloud(annotation) * scale for annotation in annotations]
    low, high = (np.array([f(cloud, axis=0) for cloud in clouds]).reshape(-1, 3) for f in (np.min, np.max))
    gap = np.maximum(low[:, None] - high, low - high[:, None]).clip(min=0)
    near = (gap**2).sum(axis=-1) <= tolerance**2
    trees = {i: KDTree(clouds[i]) for i in range(count) if near[i].sum() > 1}
    distance = np.where(np.eye(count, dtype=bool), 0.0, np.inf)
    for i, j in np.argwhere(np.triu(near, 1)):
        distance[i, j] = distance[j, i] = trees[i].query(clouds[j])[0].min()
    labels = _components(distance, tolerance)
    while np.bincount(labels, minlength=1).max() > READERS and tolerance * _SHRINK >= _LEAST_TOLERANCE:
        tolerance *= _SHRINK
        labels = _components(distance, tolerance)
    members: dict[int, list[Annotation]] = {}
    for label, annotation in zip(labels.tolist(), annotations, strict=True):
        members.setdefault(label, []).append(annotation)
    return [Nodule(tuple(found)) for found in members.values()]


def _cloud(annotation: Annotation) -> NDArray[np.float64]:
    """All points ``(P, 3)``: row, column, position."""
    return np.concatenate(
        [np.insert(c.points.astype(np.float64), 2, c.z, axis=1) for c in annotation.contours]
    )


def _components(distance: NDArray[np.float64], tolerance: float) -> NDArray[np.int64]:
    return np.asarray(connected_components(distance <= tolerance, directed=False)[1], np.int64)


def _slice_distance(annotations: Sequence[Annotation]) -> float:
    """The least distance between two slices of one annotation; 1 mm if none has two."""
    gaps = [np.diff(sorted({c.z for c in annotation.contours})) for annotation in annotations]
    return float(min((gap.min() for gap in gaps if gap.size), default=1.0))


def fill(
    annotation: Annotation, z: float, origin: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """The pixels that an annotation marks in the slice at ``z``.

    A pixel is marked if it lies strictly inside an inclusion, and neither inside an exclusion nor on its
    outline. Inside means an odd number of crossings.

    Args:
        annotation: of one reader.
        z: position of the slice, exactly as the contours have it.
        origin: row and column of the first pixel of the window.
        shape: height and width of the window.

    Returns:
        ``shape``, of which only what lies in the window is filled.

    Example:
        >>> from ambiseg.data.importers.lidc_annotations import Contour
        >>> square = np.array([[0, 0], [0, 3], [3, 3], [3, 0]])
        >>> marked = Annotation((Contour(5.0, True, square),))
        >>> fill(marked, 5.0, (0, 0), (4, 4)).astype(int)
        array([[0, 0, 0, 0],
               [0, 1, 1, 0],
               [0, 1, 1, 0],
               [0, 0, 0, 0]])
    """
    mask = np.zeros(shape, bool)
    for wanted, combine in ((True, np.logical_or), (False, _without)):
        for contour in annotation.contours:
            if contour.inclusion is wanted and contour.z == z:
                _paint(mask, contour, origin, combine)
    return mask


def _without(mask: NDArray[np.bool_], hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~hole


def _paint(
    mask: NDArray[np.bool_],
    contour: Contour,
    origin: tuple[int, int],
    combine: Callable[[NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.bool_]],
) -> None:
    """Combine the part of ``mask`` around a contour with its inside; its outline counts as inside where it is
    a hole."""
    low = contour.points.min(axis=0)
    inside = _inside(contour.points - low)
    inside[tuple(_outline(contour.points - low).T)] = not contour.inclusion
    top, left = low - origin
    rows = slice(max(top, 0), max(top + inside.shape[0], 0))
    columns = slice(max(left, 0), max(left + inside.shape[1], 0))
    window = mask[rows, columns]
    part = inside[max(-top, 0) :, max(-left, 0) :][: window.shape[0], : window.shape[1]]
    window[:] = combine(window, part)


def _edges(points: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start of each edge of the closed polygon, and the step to its end."""
    return points, np.roll(points, -1, axis=0) - points


def _outline(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every pixel that lies exactly on an edge."""
    start, step = _edges(points)
    parts = np.maximum(np.gcd(step[:, 0], step[:, 1]), 1)
    if parts.max() == 1:
        return points
    edge = np.repeat(np.arange(len(points)), parts)
    along = np.arange(len(edge)) - np.repeat(np.cumsum(parts) - parts, parts)
    return np.asarray(start[edge] + along[:, None] * (step // parts[:, None])[edge])


def _inside(points: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether an odd number of edges is crossed on the way left; pixels on an edge may be either.

    Each edge covers the rows from its upper end, inclusive, to its lower one, exclusive, so that a row meets
    every corner once.
    """
    start, step = _edges(points)
    height, width = points.max(axis=0) + 1
    upper = np.where(step[:, :1] < 0, start + step, start)
    rows = np.abs(step[:, 0])
    edge = np.repeat(np.arange(len(points)), rows)
    down = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows)
    slope = step[edge, 1] * np.sign(step[edge, 0])
    column = upper[edge, 1] - (-down * slope) // rows[edge]  # the crossing, rounded up, in whole numbers
    crossings = np.bincount((upper[edge, 0] + down) * (width + 1) + column, minlength=height * (width + 1))
    return np.asarray(crossings.reshape(height, width + 1).cumsum(axis=1)[:, :width] % 2 == 1)
