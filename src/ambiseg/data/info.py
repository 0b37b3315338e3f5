"""What a data set says about itself: `DatasetInfo`, the content of ``dataset.yaml``.

A folder without that file is binary. The file is read with YAML's safe loader, and every key that is not
known is an error with a suggestion: a misspelt ``ignore_valu`` must not silently train on void pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import yaml

from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.plain_yaml import read_yaml, yaml_text

AUGMENTATIONS = ("flip", "rotate", "scale", "intensity")
"""Kinds of augmentation that a data set can allow or forbid."""

_KEYS = (
    "name", "classes", "ignore_value", "background", "source", "licence", "augment", "channels", "flips", "output",
    "mask_threshold",
)  # fmt: skip


@dataclass(frozen=True)
class DatasetInfo:
    """Name, classes and provenance of a data set.

    Attributes:
        name: what to call it; empty means the name of its folder or file.
        labels: its classes, colours and value to ignore.
        source: where it comes from.
        licence: under which terms.
        augment: kinds of augmentation (of `AUGMENTATIONS`) that the data allow (True) or forbid (False).
        channels: names of the image channels; empty if nobody named them.
        flips: classes that are switched on and off when the data are read; None if the masks are as stored.
        mask_threshold: numbers of masks above it are foreground, for two classes with smoothed borders; None if
            masks hold class numbers.

    Raises:
        AmbisegError: an unknown kind of augmentation, a class that flips but is not among the classes.

    Example:
        >>> DatasetInfo.from_yaml("name: cups\\nclasses: [rest, cup]\\naugment: {flip: false}").labels.names
        ('rest', 'cup')
    """

    name: str = ""
    labels: LabelSpace = field(default_factory=LabelSpace.binary)
    source: str = ""
    licence: str = ""
    augment: Mapping[str, bool] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    flips: ClassFlips | None = None
    mask_threshold: float | None = None

    def __post_init__(self) -> None:
        for kind, allowed in self.augment.items():
            if kind not in AUGMENTATIONS:
                raise UnknownNameError("augmentation", str(kind), AUGMENTATIONS)
            if not isinstance(allowed, bool):
                raise AmbisegError(f"augment: {kind} is true or false, received {allowed!r}")
        if self.flips is not None:
            self.flips.output_labels(self.labels)
        if self.mask_threshold is not None and not self.labels.is_binary:
            raise AmbisegError(f"mask_threshold is for two classes, not {self.labels.classes}: remove it")
        if self.mask_threshold is not None and not 0 <= self.mask_threshold < math.inf:
            raise AmbisegError(
                f"mask_threshold is a number from 0, such as 127, received {self.mask_threshold}"
            )

    @property
    def mask_rules(self) -> MaskRules:
        """What the numbers and colours of its masks mean."""
        return MaskRules.of(self.labels, self.mask_threshold)

    @classmethod
    def from_yaml(cls, text: str, where: str = "dataset.yaml") -> DatasetInfo:
        """Read the text of a ``dataset.yaml``.

        Args:
            text: YAML with any of the keys name, classes, ignore_value, background, source, licence, augment,
                channels, flips (class to probability), output (of the flips: binary or twins), mask_threshold.
            where: file name for error messages.

        Raises:
            AmbisegError: not YAML, no mapping, an unknown key (with a suggestion), a value of the wrong kind.
        """
        given = read_yaml(text, where)
        try:
            entries = {} if given is None else given
            if not isinstance(entries, dict):
                raise AmbisegError(
                    f"holds a {type(entries).__name__}: write 'key: value' lines, such as 'name: cups'"
                )
            for key in entries:
                if key not in _KEYS:
                    raise UnknownNameError("key", str(key), _KEYS)
            return cls(
                name=_text(entries, "name"),
                labels=_labels(entries),
                source=_text(entries, "source"),
                licence=_text(entries, "licence"),
                augment=_mapping(entries, "augment", "{flip: false}"),
                channels=tuple(_word(name, "channels") for name in _list(entries, "channels")),
                flips=_flips(entries),
                mask_threshold=_number(entries, "mask_threshold"),
            )
        except AmbisegError as error:
            raise AmbisegError(f"{where}: {error}") from error

    def to_yaml(self) -> str:
        """The text that `from_yaml` reads back to an equal value."""
        entries: dict[str, Any] = {"name": self.name} if self.name else {}
        labels = self.labels
        entries["classes"] = [
            {"name": name, "color": list(color)}
            for name, color in zip(labels.names, labels.colors, strict=True)
        ]
        entries["ignore_value"] = labels.ignore_value
        entries["background"] = labels.background
        for key in ("source", "licence"):
            if getattr(self, key):
                entries[key] = getattr(self, key)
        if self.augment:
            entries["augment"] = dict(self.augment)
        if self.channels:
            entries["channels"] = list(self.channels)
        if self.flips is not None:
            entries["flips"] = {name: float(value) for name, value in self.flips.probabilities.items()}
            entries["output"] = self.flips.output
        if self.mask_threshold is not None:
            entries["mask_threshold"] = self.mask_threshold
        return str(
            yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
        )


def _labels(entries: Mapping[str, Any]) -> LabelSpace:
    names: list[str] = []
    colors: list[tuple[int, int, int]] = []
    for entry in _list(entries, "classes") or LabelSpace.binary().names:
        if isinstance(entry, dict):
            for key in entry:
                if key not in ("name", "color"):
                    raise UnknownNameError("key of a class", str(key), ("name", "color"))
            names.append(_word(entry.get("name"), "classes"))
            if "color" in entry:
                colors.append(_color(entry["color"], names[-1]))
        else:
            names.append(_word(entry, "classes"))
    if colors and len(colors) != len(names):
        raise AmbisegError(f"{len(colors)} of {len(names)} classes have a color: give one to each or to none")
    background = entries.get("background", 0)
    if isinstance(background, str):
        if background not in names:
            raise UnknownNameError("background class", background, names)
        background = names.index(background)
    background = _whole(background, "background")
    if background is not None and not 0 <= background < len(names):
        raise AmbisegError(f"background {background} is not among the classes 0..{len(names) - 1}")
    ignore = _whole(entries.get("ignore_value"), "ignore_value")
    return LabelSpace(tuple(names), tuple(colors), ignore_value=ignore, background=background)


def _color(value: Any, name: str) -> tuple[int, int, int]:
    whole = (
        isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
    )
    if not whole:
        raise AmbisegError(
            f"color of class {name!r} is three integers 0..255, such as [255, 0, 0], received {value!r}"
        )
    return (value[0], value[1], value[2])


def _whole(value: Any, key: str) -> int | None:
    if value is not None and type(value) is not int:
        raise AmbisegError(f"{key} is an integer, received {value!r}")
    return value


def _number(entries: Mapping[str, Any], key: str) -> float | None:
    value = entries.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise AmbisegError(f"{key} is a number, such as 127, received {value!r}")
    return value


def _word(value: Any, key: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise AmbisegError(
            f"{key} are names, received {value!r}: write names, in quotes where YAML sees another kind"
        )
    return str(value)


def _text(entries: Mapping[str, Any], key: str) -> str:
    value = entries.get(key)
    return "" if value is None else _word(value, key)


def _list(entries: Mapping[str, Any], key: str) -> list[Any]:
    value = entries.get(key)
    if value is not None and not isinstance(value, list):
        raise AmbisegError(f"{key} is a list, such as [a, b], received {value!r}")
    return value or []


def _mapping(entries: Mapping[str, Any], key: str, example: str) -> dict[str, Any]:
    value = entries.get(key)
    if value is not None and not isinstance(value, dict):
        raise AmbisegError(f"{key} is a mapping, such as {example}, received {value!r}")
    return value or {}


def _flips(entries: Mapping[str, Any]) -> ClassFlips | None:
    flips = _mapping(entries, "flips", "{road: 0.05}")
    if flips:
        named = {_word(name, "flips"): value for name, value in flips.items()}
        return ClassFlips(named, _text(entries, "output") or "binary")
    if "output" in entries:
        raise AmbisegError("output is of use with flips only: say which classes flip, or remove it")
    return None


def info_of_file(path: str | PathLike[str], fallback_name: str) -> DatasetInfo:
    """Read a ``dataset.yaml``; a missing file gives the binary description, a missing name ``fallback_name``.

    Raises:
        AmbisegError: the file cannot be read or says something wrong.
    """
    try:
        text = yaml_text(path)
    except FileNotFoundError:
        text = ""
    info = DatasetInfo.from_yaml(text, str(path))
    return info if info.name else replace(info, name=fallback_name)
