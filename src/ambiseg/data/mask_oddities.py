"""What is legal in the masks of two classes but seldom meant: everything foreground, inverse annotators."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.sample import Sample
from ambiseg.errors import counted
from ambiseg.labels import LabelSpace

SINGLE = "every image has one mask: train with --labels single, for the mask is one of several right answers"
"""What to do where no image has two masks."""


@dataclass
class MaskOddities:
    """Counts over the samples of a split.

    Attributes:
        labels: the classes; of more than two nothing is counted.
        masks: masks seen.
        most: most masks of one image.
        full: names of masks that mark every pixel.
        inverse: names of images with two masks that are each other's inverse.
    """

    labels: LabelSpace
    masks: int = 0
    most: int = 0
    full: list[str] = field(default_factory=list)
    inverse: list[str] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Take one sample."""
        self.take(sample.id, dict(zip(sample.annotators, sample.masks, strict=True)))

    def take(self, image_id: str, masks: dict[str, NDArray[np.uint8]]) -> None:
        """Take the masks of one image, by annotator."""
        self.masks, self.most = self.masks + len(masks), max(self.most, len(masks))
        if not self.labels.is_binary:
            return
        known: dict[tuple[bytes, bytes], str] = {}
        for name, mask in masks.items():
            foreground, counted = mask == 1, mask != self.labels.void
            background = counted & ~foreground
            if foreground.all():
                self.full.append(f"{image_id}/{name}")
            elif foreground.any() and background.any():
                other = known.get((background.tobytes(), foreground.tobytes()))
                if other is not None:
                    self.inverse.append(f"{image_id} ({other}, {name})")
                    break
                known[foreground.tobytes(), background.tobytes()] = name

    def remarks(self) -> list[tuple[str, str]]:
        """What a person should look at, and what to do, one pair for each kind."""
        found = []
        if self.full:
            found.append(
                (
                    f"{len(self.full)} of {self.masks} masks mark every pixel, such as {self.full[0]}",
                    "look whether black and white are swapped there",
                )
            )
        if self.inverse:
            found.append(
                (
                    f"in {counted(len(self.inverse), 'image')} two masks are each other's inverse, such as {self.inverse[0]}",
                    "look whether one annotator drew white on black and the other black on white",
                )
            )
        return found
