"""How volumes are read slice by slice: the entry ``slices`` of ``dataset.yaml``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

from ambiseg.errors import AmbisegError

PLANE_NAMES = ("sagittal", "coronal", "axial")
"""Planes that cross the axes right, anterior and superior of space."""

_Row = TypeVar("_Row")
_NEIGHBOUR = re.compile(r"(.+)[+-]\d+")
_SLICE = re.compile(r"(.+)_z\d+")

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

    def channel_names(self, names: tuple[str, ...], channels: int) -> tuple[str, ...]:
        """Names of all channels of an image: those of one slice, with the place of each neighbour.

        Args:
            names: of the channels of one slice, or of all; empty if nobody named them.
            channels: of one slice.

        Example:
            >>> SliceSettings(neighbours=1).channel_names(("ct",), 1)
            ('ct-1', 'ct', 'ct+1')
        """
        if not self.neighbours or len(names) not in (0, channels):
            return names
        own = names or tuple("slice" if i == 0 else f"slice channel {i + 1}" for i in range(channels))
        steps = range(-self.neighbours, self.neighbours + 1)
        return tuple(f"{name}{step:+d}" if step else name for step in steps for name in own)

    def entries(self) -> dict[str, Any]:
        """Plain values of what differs from the defaults, and the axis."""
        own = asdict(self)
        return {f.name: own[f.name] for f in fields(self) if f.name == "axis" or own[f.name] != f.default}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SliceSettings:
        """From the values of its keys, None where one is missing; `AmbisegError` if one makes no sense."""
        return cls(**{name: value for name, value in values.items() if value is not None})


def own_channels(names: Sequence[str], channels: int) -> list[int]:
    """Which of the channels are those of the slice itself; all where their names tell of no neighbours.

    Example:
        >>> own_channels(("ct-1", "ct", "ct+1"), 3), own_channels(("red", "green"), 3)
        ([1], [0, 1, 2])
    """
    beside = [i for i, name in enumerate(names) if (m := _NEIGHBOUR.fullmatch(name)) and m[1] in names]
    return [i for i in range(channels) if i not in beside]


def slice_id(volume: str, index: int, count: int) -> str:
    """The id of a slice: names in their order are slices in their order.

    Example:
        >>> slice_id("case07", 42, 200)
        'case07_z0042'
    """
    return f"{volume}_z{index:0{max(4, len(str(count - 1)))}}"


def volume_of(name: str) -> str:
    """The volume of a slice; of an image that is none, its own id.

    Example:
        >>> volume_of("case07_z0042"), volume_of("photo")
        ('case07', 'photo')
    """
    found = _SLICE.fullmatch(name)
    return found[1] if found else name


def by_volume(ids: Iterable[str]) -> dict[str, str]:
    """The volume of each id."""
    return {name: volume_of(name) for name in ids}


def of_slices(rows: Mapping[str, _Row], ids: Iterable[str]) -> dict[str, _Row]:
    """Rows of a table by id; one that names volumes in place of their slices, for each slice of them.

    Example:
        >>> of_slices({"case07": "anna"}, ["case07_z0000", "case07_z0001"])
        {'case07_z0000': 'anna', 'case07_z0001': 'anna'}
    """
    slices = {name: volume_of(name) for name in ids if name not in rows and volume_of(name) in rows}
    named = set(slices.values()) - {*ids}
    return {name: row for name, row in rows.items() if name not in named} | {
        name: rows[volume] for name, volume in slices.items()
    }
