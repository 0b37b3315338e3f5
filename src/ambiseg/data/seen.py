"""What the check of a data set remembers of one split, and of the palettes of all masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import Color
from ambiseg.data.files.validation import FileProblem, value_counts
from ambiseg.data.image_range import RangeTally
from ambiseg.data.info import DatasetInfo
from ambiseg.data.mask_oddities import MaskOddities
from ambiseg.data.splits.leakage import Prints, Read
from ambiseg.errors import counted
from ambiseg.labels import LabelSpace


@dataclass(frozen=True)
class Summary:
    """What one split holds, counted over the files that could be read.

    Attributes:
        split: its name.
        images: number of images.
        annotations: number of masks.
        fewest: least masks of one image.
        mean: masks per image.
        most: most masks of one image.
        sizes: images per (height, width).
        channels: images per number of channels.
        dtypes: images per number type.
        class_frequencies: share of each class in the pixels of all masks, void left out; empty if no mask.
        volumes: number of volumes that its images are slices of; 0 if they are none.
    """

    split: str
    images: int
    annotations: int
    fewest: int
    mean: float
    most: int
    sizes: dict[tuple[int, int], int]
    channels: dict[int, int]
    dtypes: dict[str, int]
    class_frequencies: tuple[float, ...]
    volumes: int = 0

    @property
    def counted(self) -> str:
        """The number of images in words."""
        if self.volumes:
            return f"{counted(self.images, 'slice')} of {counted(self.volumes, 'volume')}"
        return counted(self.images, "image")


@dataclass
class SplitSeen:
    """What is remembered of one split while it is read."""

    split: str
    place: str
    ids: tuple[str, ...] = ()
    read: Read = field(default=lambda sample_id: None)
    counted: int = 0
    annotations: int = 0
    fewest: int = 0
    most: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    dtypes: Counter[str] = field(default_factory=Counter)
    examples: dict[Any, str] = field(default_factory=dict)
    values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    prints: Prints = field(default_factory=Prints)
    range: RangeTally = field(default_factory=RangeTally)
    oddities: MaskOddities | None = None
    volumes: int = 0
    orientations: Counter[str] = field(default_factory=Counter)

    def image(self, sample_id: str, image: NDArray[Any]) -> None:
        self.sizes[(image.shape[1], image.shape[2])] += 1
        self.channels[image.shape[0]] += 1
        self.dtypes[image.dtype.name] += 1
        self.examples.setdefault(image.shape[0], sample_id)
        self.examples.setdefault(image.dtype.name, sample_id)
        self.prints.add(sample_id, image)
        if not self.range.images or image.shape[0] == self.range.channels:
            self.range.add(sample_id, image)

    def volume(self, volume_id: str, orientation: str) -> None:
        """Take one volume, whose axes run in the directions of these letters."""
        self.volumes += 1
        self.orientations[orientation] += 1
        self.examples.setdefault(orientation, volume_id)

    def count(self, masks: int) -> None:
        self.fewest = min(self.fewest, masks) if self.counted else masks
        self.most = max(self.most, masks)
        self.annotations += masks
        self.counted += 1

    def mask(self, mask: NDArray[np.uint8]) -> None:
        self.values += value_counts(mask)

    def take(self, sample_id: str, masks: dict[str, NDArray[np.uint8]], labels: LabelSpace | None) -> None:
        """Look at all masks of one image together."""
        if labels is not None:
            self.oddities = self.oddities or MaskOddities(labels)
            self.oddities.take(sample_id, masks)

    def summary(self, info: DatasetInfo | None) -> Summary:
        last = int(np.flatnonzero(self.values)[-1]) + 1 if self.values.any() else 0
        pixels = self.values[: info.labels.classes if info else last]
        shares = pixels / max(1, pixels.sum()) if self.values.any() else pixels[:0]
        return Summary(
            self.split,
            len(self.ids),
            self.annotations,
            self.fewest,
            self.annotations / max(1, self.counted),
            self.most,
            dict(self.sizes),
            dict(self.channels),
            dict(self.dtypes),
            tuple(float(s) for s in shares),
            self.volumes,
        )


class PalettesSeen:
    """Masks whose palette indices were taken for classes: one colour must mean one class."""

    def __init__(self) -> None:
        self.first, self.count = "", 0
        self.colors: dict[int, tuple[Color, str]] = {}
        self.clash: FileProblem | None = None

    def add(self, file: Path, colors: dict[int, Color] | None) -> None:
        if colors is None:
            return
        self.first, self.count = self.first or str(file), self.count + 1
        for index, color in colors.items():
            known, where = self.colors.setdefault(index, (color, str(file)))
            if known != color and self.clash is None:
                self.clash = FileProblem(
                    file,
                    f"index {index} of its palette is {color}, but {known} in {where}",
                    "give every class its color in dataset.yaml, or save class numbers as grey images",
                )
