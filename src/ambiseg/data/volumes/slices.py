"""Slices of a volume as images: along which axis, and with how many neighbours as channels (2.5-D)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import canonical_image
from ambiseg.data.volumes.volume import PLANE_NAMES, Volume
from ambiseg.errors import AmbisegError

Keep = Literal["all", "foreground"]
MOST_NEIGHBOURS = 50


@dataclass(frozen=True)
class SliceSettings:
    """How volumes are read slice by slice: the entry ``slices`` of ``dataset.yaml``.

    Attributes:
        axis: the axis that slices cross: axial, coronal or sagittal, as the affine of a volume says, or 0, 1 or 2 of
            the array as it is stored.
        neighbours: slices on each side whose channels are added. The outermost slice is repeated at the border.
        keep: all slices, or those of which a mask has foreground.
        reorder: put masks whose voxels are stored in another order than those of their image in its order, where
            their affines say that they lie at the same place; such masks are refused otherwise.
    """

    axis: str | int = "axial"
    neighbours: int = 0
    keep: Keep = "all"
    reorder: bool = False

    def __post_init__(self) -> None:
        if self.axis not in (*PLANE_NAMES, 0, 1, 2) or isinstance(self.axis, bool):
            raise AmbisegError(f"axis of slices is {self.axis!r}: use {', '.join(PLANE_NAMES)}, 0, 1 or 2")
        whole = isinstance(self.neighbours, int) and not isinstance(self.neighbours, bool)
        if not whole or not 0 <= self.neighbours <= MOST_NEIGHBOURS:
            raise AmbisegError(
                f"neighbours of slices is {self.neighbours!r}: use a whole number, 0 to {MOST_NEIGHBOURS}"
            )
        if self.keep not in ("all", "foreground"):
            raise AmbisegError(f"keep of slices is {self.keep!r}: use all or foreground")
        if not isinstance(self.reorder, bool):
            raise AmbisegError(f"reorder of slices is {self.reorder!r}: use true or false")

    @property
    def planes(self) -> int:
        """Slices whose channels make one image."""
        return 2 * self.neighbours + 1


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
    count, n = volume.shape[axis], settings.neighbours
    if not 0 <= index < count:
        raise IndexError(f"{volume.path}: no slice {index} of {count}")
    wanted = [min(max(index + step, 0), count - 1) for step in range(-n, n + 1)]
    planes = {i: volume.plane(axis, i) for i in set(wanted)}
    return canonical_image(np.concatenate([planes[i] for i in wanted]), volume.path)
