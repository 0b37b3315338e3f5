"""Choices of a conversion, and what every format does with a mask of several classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import value_counts
from ambiseg.labels import LabelSpace


@dataclass(frozen=True)
class ConvertSettings:
    """Choices of a conversion.

    Attributes:
        polygons: outlines in place of run lengths, for ``coco``, ``label-studio`` and ``cvat``.
        image_url: what Label Studio finds images with, before the name of the file.
        allow_no_georeference: write GeoTIFF without georeference of images that have none.
    """

    polygons: bool = False
    image_url: str = "/data/local-files/?d="
    allow_no_georeference: bool = False


def objects(mask: NDArray[np.uint8], labels: LabelSpace) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Class and pixels ``(H, W)`` of each class that a mask holds, without the background and void.

    Example:
        >>> mask = np.array([[0, 1, 1]], np.uint8)
        >>> [(c, int(found.sum())) for c, found in objects(mask, LabelSpace.binary())]
        [(1, 2)]
    """
    present = value_counts(mask)
    for c in foreground(labels):
        if present[c]:
            yield c, mask == c


def foreground(labels: LabelSpace) -> list[int]:
    """All classes but the background."""
    return [c for c in range(labels.classes) if c != labels.background]
