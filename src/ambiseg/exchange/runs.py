"""Run lengths of masks, as COCO, CVAT and Label Studio count them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def run_lengths(values: NDArray[Any]) -> NDArray[np.int64]:
    """Lengths of the runs of zeros and ones in turn; the first one is of zeros and may be 0.

    Args:
        values: ``(n,)``; what is not 0 counts as 1.

    Example:
        >>> run_lengths(np.array([0, 0, 1, 1, 1, 0])), run_lengths(np.array([1, 0]))
        (array([2, 3, 1]), array([0, 1, 1]))
    """
    marked = np.asarray(values) != 0
    edges = np.flatnonzero(marked[1:] != marked[:-1]) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(marked)]])).astype(np.int64)
    return np.concatenate([[0], lengths]) if len(marked) and marked[0] else lengths


def bounding_box(mask: NDArray[Any]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the pixels that are not 0; all 0 if there are none.

    Example:
        >>> bounding_box(np.array([[0, 0, 0], [0, 1, 1]]))
        (1, 1, 2, 1)
    """
    inside = np.asarray(mask) != 0
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
