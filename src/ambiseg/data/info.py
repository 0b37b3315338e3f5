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
from ambiseg.data.patterns import FilePatterns
from ambiseg.data.schema import AUGMENTATIONS, KEYS, read_keys, word
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.plain_yaml import read_yaml, yaml_text


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
        files: where images and masks lie; None for the folders of this library.
        slices: how its volumes are read slice by slice; None if it holds images.

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
    files: FilePatterns | None = None
    slices: SliceSettings | None = None

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
            text: YAML with any of the keys of `ambiseg.data.schema.KEYS`.
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
            values = read_keys(entries, KEYS)
            return cls(
                name=values["name"],
                labels=_labels(values, "background" in entries),
                source=values["source"],
                licence=values["licence"],
                augment=values["augment"],
                channels=values["channels"],
                flips=_flips(values, "output" in entries),
                mask_threshold=values["mask_threshold"],
                files=values["files"],
                slices=values["slices"],
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
        if self.files is not None:
            entries["files"] = self.files.entries()
        if self.slices is not None:
            entries["slices"] = self.slices.entries()
        return str(
            yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
        )


def _labels(values: Mapping[str, Any], says_background: bool) -> LabelSpace:
    classes = values["classes"] or [(name, None) for name in LabelSpace.binary().names]
    names = [name for name, _ in classes]
    colors = [color for _, color in classes if color is not None]
    if colors and len(colors) != len(names):
        raise AmbisegError(f"{len(colors)} of {len(names)} classes have a color: give one to each or to none")
    background = values["background"] if says_background else 0
    if isinstance(background, str):
        if background not in names:
            raise UnknownNameError("background class", background, names)
        background = names.index(background)
    if background is not None and not 0 <= background < len(names):
        raise AmbisegError(f"background {background} is not among the classes 0..{len(names) - 1}")
    return LabelSpace(tuple(names), tuple(colors), values["ignore_value"], background)


def _flips(values: Mapping[str, Any], says_output: bool) -> ClassFlips | None:
    if values["flips"]:
        named = {word(name, "flips"): value for name, value in values["flips"].items()}
        return ClassFlips(named, values["output"] or "binary")
    if says_output:
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
