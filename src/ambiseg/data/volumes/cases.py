"""The volumes of a split as a sequence of slices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import VOLUME_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem, canonical_image, canonical_mask, check_name
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SplitFiles, stays_inside
from ambiseg.data.volumes.dicom import Series
from ambiseg.data.volumes.grid import PlacedMask, place, require_one_grid
from ambiseg.data.volumes.settings import SliceSettings, slice_id
from ambiseg.data.volumes.slices import neighbourhood
from ambiseg.data.volumes.unpacked import UNPACKED
from ambiseg.data.volumes.volume import Volume, open_volume
from ambiseg.errors import AmbisegError


def holds_volume(path: Path) -> bool:
    """Whether a file of a data set with ``slices`` is a volume; others are images that were cut before."""
    return suffix_of(path) in VOLUME_SUFFIXES or path.is_dir()


def _require_inside(path: Path, base: Path) -> None:
    """Refuse a series with a file that is a link out of the data, as `listing` refuses such files."""
    for entry in os.scandir(path) if path.is_dir() else ():
        if entry.is_symlink() and not stays_inside(Path(entry.path), base):
            raise FileProblem(entry.path, "the link leads out of the data", "copy what it points to")


@dataclass(frozen=True)
class Case:
    """One volume with its masks, none of whose values are read yet.

    Attributes:
        id: of the volume.
        channels: one volume, or several that hold some of the channels each.
        masks: files by annotator.
        info: what the data set says about itself.
        slices: how it is read.
    """

    id: str
    channels: tuple[Volume, ...]
    masks: Mapping[str, Path]
    info: DatasetInfo
    slices: SliceSettings
    _placed: dict[str, PlacedMask] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(
        cls, image_id: str, paths: tuple[Path, ...], masks: Mapping[str, Path], info: DatasetInfo, home: Path
    ) -> Case:
        """Read the headers of the image, which must lie in the data set at ``home``.

        Raises:
            FileProblem: a header is wrong, they differ, or a link leads out of the data.
        """
        assert info.slices is not None
        base = home if info.files is None else home / info.files.root
        for path in paths:
            _require_inside(path, base)
        channels = tuple(open_volume(path) for path in paths)
        require_one_grid(channels)
        return cls(image_id, channels, masks, info, info.slices)

    @cached_property
    def axis(self) -> int:
        """The axis of the array that slices cross."""
        return self.channels[0].axis(self.slices.axis)

    @property
    def count(self) -> int:
        """Slices of the volume."""
        return self.channels[0].shape[self.axis]

    def ids(self) -> dict[str, int]:
        """Each slice that is kept, by its id.

        Raises:
            AmbisegError: a mask cannot be read, where only slices with foreground are kept; an id that is no name.
        """
        check_name(slice_id(self.id, 0, self.count), "id")
        some = list(range(self.count))
        if self.slices.keep == "foreground":
            some = [index for index in some if self._foreground(index)]
        return {slice_id(self.id, index, self.count): index for index in some}

    def _foreground(self, index: int) -> bool:
        labels = self.info.labels
        background = 0 if labels.background is None else labels.background
        return any(
            bool(((mask != background) & (mask != labels.void)).any())
            for mask in (self.mask(name, index) for name in self.masks)
        )

    def image(self, index: int) -> NDArray[np.generic]:
        """The image ``(planes * C, H, W)`` of a slice; `FileProblem` if the volume is damaged."""
        UNPACKED.make_room(self.unpacked_bytes)
        parts = [
            volume.plane(self.axis, i)
            for i in neighbourhood(index, self.count, self.slices.neighbours)
            for volume in self.channels
        ]
        return canonical_image(np.concatenate(parts), f"{self.channels[0].path}, slice {index}")

    def placed(self, annotator: str) -> PlacedMask:
        """A mask as it lies on the image; `FileProblem` if it lies elsewhere or cannot be read."""
        if annotator not in self._placed:
            path, image = self.masks[annotator], self.channels[0]
            if not holds_volume(path):
                raise FileProblem(
                    path,
                    f"it is no volume, but its image {image.path.name!r} is",
                    "save the mask as a volume",
                )
            reorder = self.slices.reorder or isinstance(image.planes, Series)
            self._placed[annotator] = place(open_volume(path), image, self.axis, reorder)
        return self._placed[annotator]

    def mask(self, annotator: str, index: int) -> NDArray[np.uint8]:
        """The label map ``(H, W)`` of a slice; `FileProblem` if it is none."""
        where = f"{self.masks[annotator]}, slice {index}"
        return canonical_mask(self.placed(annotator).plane(self.axis, index), where, self.info.mask_rules)

    @cached_property
    def unpacked_bytes(self) -> int:
        """Bytes that are kept in memory while its slices are read."""
        total = sum(volume.unpacked_bytes(self.axis) for volume in self.channels)
        for name in self.masks:
            placed = self.placed(name)
            own = next(i for i, (other, _) in enumerate(placed.order) if other == self.axis)
            total += placed.volume.unpacked_bytes(own)
        return total


class CaseTable:
    """All slices of a split, and images of it that are no volumes.

    Args:
        files: of the split.
        info: of the data set.
        home: its folder.

    Attributes:
        cases: the volumes by their ids.
        places: volume and slice of each id; slice None for an image that was cut before.

    Raises:
        AmbisegError: a volume cannot be read.
    """

    def __init__(self, files: SplitFiles, info: DatasetInfo, home: Path) -> None:
        self.info = info
        self.cases: dict[str, Case] = {}
        self.places: dict[str, tuple[str, int | None]] = {}
        for image_id, paths in files.images.items():
            if not holds_volume(paths[0]):
                self.places[image_id] = (image_id, None)
                continue
            masks, problems = files.masks(image_id)
            if not masks and not problems:
                problems = files.without_masks([image_id])
            if problems:
                raise problems[0]
            case = Case.open(image_id, paths, masks, info, home)
            self.cases[image_id] = case
            self.places |= {name: (image_id, index) for name, index in case.ids().items()}
        self.places = dict(sorted(self.places.items()))

    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels of its images, see `SliceSettings.channel_names`."""
        case = next(iter(self.cases.values()), None)
        if case is None:
            return self.info.channels
        return case.slices.channel_names(self.info.channels, sum(volume.channels for volume in case.channels))

    def units(self) -> list[tuple[list[int], int]] | None:
        """Positions of the slices of each volume and the bytes that are kept for them; None if none are."""
        members: dict[str, list[int]] = {}
        for position, (volume, _) in enumerate(self.places.values()):
            members.setdefault(volume, []).append(position)
        sizes = {name: self.cases[name].unpacked_bytes if name in self.cases else 0 for name in members}
        return [(members[name], sizes[name]) for name in members] if any(sizes.values()) else None


def single_image_problem(slices: SliceSettings, channels: int) -> AmbisegError:
    """What to say of a single image where slices with their neighbours are expected."""
    return AmbisegError(
        f"the run was trained on slices of volumes with {slices.neighbours} neighbours on each side as channels,"
        f" and a single image of {channels} channel(s) has no neighbours: give the whole volume"
    )
