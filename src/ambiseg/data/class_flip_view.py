"""A split of stored label maps whose classes flip, seen as images with all their modes (see
`class_flips`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ambiseg.data.class_flips import FlipModes
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.data.source import Split


class FlippedSplit:
    """A split of stored label maps, seen as images with all their modes.

    Args:
        stored: the split as it lies on disk; its ``info.flips`` say which classes flip.

    Attributes:
        ids: names of the images, sorted.
        info: that of the ambiguous data set: the classes of the modes, no flips.
        stored: the split as it lies on disk.
        modes: makes the modes of one label map.
    """

    def __init__(self, stored: Split) -> None:
        flips = stored.info.flips
        if flips is None:
            raise AmbisegError(
                "this data set has no class that flips: add flips to its dataset.yaml, or open it as it is"
            )
        self.stored, self._flips = stored, flips
        self.modes = FlipModes(flips, stored.info.labels)
        self.ids = stored.ids
        self.info = replace(stored.info, labels=self.modes.labels, flips=None)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """Read one image and make its modes.

        Raises:
            AmbisegError: anything wrong with its files, or more than one label map.
        """
        sample = self.stored_sample(index)
        return Sample(sample.id, sample.image, *self.modes.all(sample.masks[0]))

    def stored_sample(self, index: int) -> Sample:
        """One image with its label map.

        Raises:
            AmbisegError: anything wrong with the files, or more than one label map.
        """
        sample = self.stored[index]
        if len(sample.masks) != 1:
            raise several_label_maps(len(sample.masks), f"image {sample.id!r}")
        return sample

    def digest(self) -> str:
        """SHA-256 over all stored samples, the classes and the flips."""
        flips = [self._flips.output, *self._flips.probabilities.items()]
        text: list[Any] = [self.stored.digest(), self.stored.info.labels.names, flips]
        return hashlib.sha256(json.dumps(text).encode()).hexdigest()


def several_label_maps(count: int, where: str) -> FileProblem:
    """The problem that an image whose classes flip has more than one label map."""
    return FileProblem(where, f"it has {count} label maps, but classes flip", "keep one of its masks")
