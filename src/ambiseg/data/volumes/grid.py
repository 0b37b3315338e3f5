"""Whether a mask lies voxel by voxel on its image, and in which order its voxels are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.geometry import TOLERANCE, distance, voxel_order
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.volume import Volume

_RESAMPLE = "resample it on the grid of its image"


@dataclass(frozen=True)
class PlacedMask:
    """A mask in the voxel order of its image.

    Attributes:
        volume: the mask.
        order: for each of its axes, the axis of the image and whether it runs in the same direction.
    """

    volume: Volume
    order: tuple[tuple[int, bool], ...] = ((0, True), (1, True), (2, True))

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        """The plane ``(H, W)`` that lies on this plane of the image; errors as of `Volume.plane`."""
        own = next(i for i, (other, _) in enumerate(self.order) if other == axis)
        if not self.order[own][1]:
            index = self.volume.shape[own] - 1 - index
        plane: NDArray[Any] = self.volume.plane(own, index)[0]
        rest = [entry for i, entry in enumerate(self.order) if i != own]
        for side, (_, same) in enumerate(rest):
            if not same:
                plane = np.flip(plane, side)
        return plane.T if rest[0][0] > rest[1][0] else plane


def place(mask: Volume, image: Volume, axis: int, reorder: bool) -> PlacedMask:
    """The mask as it lies on its image.

    Args:
        mask: of one annotator.
        image: that it belongs to.
        axis: of the image that slices cross, for messages.
        reorder: accept another order of voxels.

    Raises:
        FileProblem: several channels, another number of voxels, another orientation, or another place.
    """
    if mask.channels != 1:
        raise FileProblem(
            mask.path, f"the mask has {mask.channels} channels", "save one label map for each annotator"
        )
    if sorted(mask.shape) != sorted(image.shape):
        raise _other_shape(mask, image, axis)
    if mask.placed != image.placed:
        without, other = (mask, image) if image.placed else (image, mask)
        raise FileProblem(
            without.path,
            f"its header does not say where it lies, but that of {other.path.name!r} does",
            "save it with the affine of the scan",
        )
    inside = np.linalg.inv(image.affine) @ mask.affine
    if mask.shape == image.shape and (not mask.placed or distance(inside, image.shape) <= TOLERANCE):
        return PlacedMask(mask)
    order = voxel_order(inside, mask.shape, image.shape) if mask.placed else None
    if order is not None and reorder:
        return PlacedMask(mask, tuple((int(other), bool(way > 0)) for other, way in order))
    ours, theirs = orientation(mask), orientation(image)
    if mask.placed and ours != theirs:
        known = (
            ""
            if order is None
            else ", or add 'reorder: true' to 'slices' in dataset.yaml to do so in reading"
        )
        raise FileProblem(
            mask.path,
            f"its orientation is {ours}, that of its image {image.path.name!r} {theirs}",
            f"store it in the orientation of its image{known}",
        )
    if mask.shape != image.shape:
        raise _other_shape(mask, image, axis)
    first = (inside @ [0, 0, 0, 1])[:3].round(2).tolist()
    raise FileProblem(
        mask.path,
        f"its affine places it elsewhere than its image {image.path.name!r}: its first voxel is voxel"
        f" {tuple(first)} there",
        f"{_RESAMPLE}, or correct the affine",
    )


def require_one_grid(channels: tuple[Volume, ...]) -> None:
    """Raise `FileProblem` unless the volumes that hold the channels of an image lie voxel by voxel on the first."""
    first = channels[0]
    for other in channels[1:]:
        away = distance(np.linalg.inv(first.affine) @ other.affine, first.shape)
        if other.shape != first.shape or away > TOLERANCE:
            raise FileProblem(
                other.path,
                f"this channel has {_size(other)} voxels, orientation {orientation(other)}; {first.path.name!r} has"
                f" {_size(first)}, {orientation(first)}, or lies elsewhere",
                "resample it on the grid of the others",
            )


@dataclass(frozen=True)
class _Together:
    """Planes of several volumes, their channels one after the other."""

    parts: tuple[Volume, ...]

    def plane(self, axis: int, index: int) -> NDArray[Any]:
        return np.concatenate([part.plane(axis, index) for part in self.parts])

    def unpacked_bytes(self, axis: int) -> int:
        return sum(part.unpacked_bytes(axis) for part in self.parts)


def together(channels: tuple[Volume, ...]) -> Volume:
    """One volume of volumes that hold some of its channels each; `FileProblem` unless they lie on the first."""
    require_one_grid(channels)
    if len(channels) == 1:
        return channels[0]
    return replace(channels[0], channels=sum(one.channels for one in channels), planes=_Together(channels))


def orientation(volume: Volume) -> str:
    """Letters of the directions in which the axes of a volume run, such as RAS."""
    from nibabel.orientations import aff2axcodes

    return "".join(map(str, aff2axcodes(volume.affine)))


def slice_directions(volume: Volume, settings: SliceSettings) -> str:
    """Letters of the directions in which rows and columns of the slices of a volume run, such as LP; with neighbours
    also that of the slices themselves, such as LPS."""
    letters, axis = orientation(volume), volume.axis(settings.axis)
    plane = letters[:axis] + letters[axis + 1 :]
    return plane + letters[axis] if settings.neighbours else plane


def _size(volume: Volume) -> str:
    return " x ".join(map(str, volume.shape))


def _other_shape(mask: Volume, image: Volume, axis: int) -> FileProblem:
    rest = [i for i in range(3) if i != axis]
    if all(mask.shape[i] == image.shape[i] for i in rest):
        ours, theirs = (f"{volume.shape[axis]} slices" for volume in (mask, image))
    else:
        ours, theirs = (f"{_size(volume)} voxels" for volume in (mask, image))
    return FileProblem(
        mask.path, f"the mask has {ours} but its image {image.path.name!r} {theirs}", _RESAMPLE
    )
