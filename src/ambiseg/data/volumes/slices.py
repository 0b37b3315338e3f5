"""Slices of a volume as images, with their neighbours as channels (2.5-D)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import canonical_image
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.volume import Volume


def neighbourhood(index: int, count: int, neighbours: int) -> list[int]:
    """The slices whose channels make one image, the outermost ones repeated.

    Example:
        >>> neighbourhood(1, 4, 2)
        [0, 0, 1, 2, 3]
    """
    return [min(max(index + step, 0), count - 1) for step in range(-neighbours, neighbours + 1)]


def slice_count(volume: Volume, settings: SliceSettings) -> int:
    """How many slices a volume has along the axis."""
    return volume.shape[volume.axis(settings.axis)]


def read_slice(volume: Volume, settings: SliceSettings, index: int) -> NDArray[np.generic]:
    """Slice ``index`` as an image ``(planes * C, H, W)``: all channels of the first neighbour, of the next one, ...

    Raises:
        IndexError: no such slice.
        FileProblem: the volume is truncated or damaged, or holds NaN.
    """
    axis = volume.axis(settings.axis)
    count = volume.shape[axis]
    if not 0 <= index < count:
        raise IndexError(f"{volume.path}: no slice {index} of {count}")
    planes = [volume.plane(axis, i) for i in neighbourhood(index, count, settings.neighbours)]
    return canonical_image(np.concatenate(planes), f"{volume.path}, slice {index}")
