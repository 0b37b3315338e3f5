"""Masks to draw, and decoders of the formats, written from their descriptions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from matplotlib.path import Path as Outline

RING = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0]], np.uint8)
NESTED = np.array(
    [[1] * 7, [1, 0, 0, 0, 0, 0, 1], [1, 0, 1, 1, 1, 0, 1], [1, 0, 1, 0, 1, 0, 1], [1] * 7], np.uint8
)
CORNERS = np.eye(4, dtype=np.uint8)
SPECIAL = (
    np.zeros((3, 4), np.uint8),
    np.ones((3, 4), np.uint8),
    np.ones((1, 1), np.uint8),
    np.zeros((1, 1), np.uint8),
    np.array([[0, 0, 0], [0, 1, 0]], np.uint8),
    RING,
    NESTED,
    CORNERS,
    CORNERS[:, ::-1].copy(),
    np.arange(30).reshape(5, 6).astype(np.uint8) % 2,
    np.pad(np.zeros((1, 3), np.uint8), 1, constant_values=1),
)
"""Empty, full, single pixels, holes, holes in holes, pixels that meet at corners."""

MASKS = stn.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 1))


def filled(polygons, size):
    """Pixels whose centre lies in one of the polygons ``(n, 2)`` of corners ``(x, y)``."""
    height, width = size
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1).reshape(-1, 2)
    found = np.zeros(height * width, bool)
    for corners in polygons:
        closed = np.concatenate([corners, corners[:1]])
        found |= Outline(closed, closed=True).contains_points(centres)
    return found.reshape(size).astype(np.uint8)


def brush_picture(values, size):
    """The alpha of the picture that packed run lengths of Label Studio hold, ``(H, W)``; rle-pack's description."""
    bits = "".join(f"{value:08b}" for value in values)
    place = 0

    def read(count):
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out = []
    while len(out) < total:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        out += [read(word)] * length if is_run else [read(word) for _ in range(length)]
    assert len(out) == total and len(bits) - place < 8
    picture = np.array(out, np.uint8).reshape(*size, 4)
    assert (picture == picture[..., 3:]).all()
    return picture[..., 3]


def cvat_mask(attributes, size):
    """The mask ``(H, W)`` of the attributes of a ``<mask>``; run lengths by rows in the box, zeros first."""
    left, top, width, height = (int(attributes[key]) for key in ("left", "top", "width", "height"))
    counts = [int(word) for word in attributes["rle"].split(",")]
    flat = np.concatenate([np.full(count, i % 2, np.uint8) for i, count in enumerate(counts)])
    mask = np.zeros(size, np.uint8)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask
