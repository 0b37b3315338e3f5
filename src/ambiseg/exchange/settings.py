"""Choices of a conversion, and what every format does with a mask of several classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import value_counts
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace


@dataclass(frozen=True)
class ConvertSettings:
    """Choices of a conversion.

    Attributes:
        polygons: outlines in place of run lengths, for ``coco``, ``label-studio`` and ``cvat``.
        image_url: what Label Studio finds images with, before the name of the file.
        allow_no_georeference: write GeoTIFF without georeference of images that have none.
        image_suffix: suffix of the names of images in place of their own, such as ``.png``, for ``coco``,
            ``label-studio`` and ``cvat``.

    Raises:
        AmbisegError: ``image_suffix`` is no suffix.
    """

    polygons: bool = False
    image_url: str = "/data/local-files/?d="
    allow_no_georeference: bool = False
    image_suffix: str | None = None

    def __post_init__(self) -> None:
        if self.image_suffix is not None and not re.fullmatch(r"(\.[A-Za-z0-9]+)+", self.image_suffix):
            raise AmbisegError(f"{self.image_suffix!r} is no suffix of file names: give one such as .png")


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
