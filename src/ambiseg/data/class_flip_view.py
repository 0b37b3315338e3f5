"""A split of stored label maps whose classes flip, seen as images with all their modes (see
`class_flips`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ambiseg.data.class_flips import FlipModes
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError


class FlippedSplit(Split):
    """A split of stored label maps, seen as images with all their modes.

    Args:
        stored: the split as it lies on disk; its ``info.flips`` say which classes flip.

    Attributes:
        ids: names of the images, sorted.
        info: that of the ambiguous data set: the classes of the modes, no flips.
        modes: makes the modes of one label map.
    """

    modes: FlipModes

    def __init__(self, stored: Split) -> None:
        flips = stored.info.flips
        if flips is None:
            raise AmbisegError(
                "this data set has no class that flips: add flips to its dataset.yaml, or open it as it is"
            )
        self._stored, self._flips = stored, flips
        self.modes = FlipModes(flips, stored.info.labels)
        self.ids = stored.ids
        self.info = replace(stored.info, labels=self.modes.labels, flips=None, mask_threshold=None)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and make its modes.

        Raises:
            AmbisegError: anything wrong with its files, or more than one label map.
        """
        return self.shown(self.stored[index])

    @property
    def stored(self) -> Split:
        """The split of label maps on disk."""
        return self._stored

    def stored_sample(self, index: int) -> Sample:
        """One image with its label map.

        Raises:
            AmbisegError: anything wrong with the files, or more than one label map.
        """
        return _with_one_label_map(self.stored[index])

    def shown(self, stored: Sample) -> Sample:
        """The modes of one label map; `AmbisegError` if there are several label maps."""
        label_map = _with_one_label_map(stored).masks[0]
        return Sample(stored.id, stored.image, *self.modes.all(label_map))

    def digest(self, on_read: Callable[[Sample], object] | None = None) -> str:
        """SHA-256 over all stored samples, the classes and the flips."""

        def read(sample: Sample) -> None:
            if on_read is not None:
                on_read(_with_one_label_map(sample))

        flips = [self._flips.output, *self._flips.probabilities.items()]
        text: list[Any] = [self.stored.digest(read), self.stored.info.labels.names, flips]
        return hashlib.sha256(json.dumps(text).encode()).hexdigest()


def _with_one_label_map(sample: Sample) -> Sample:
    if len(sample.masks) != 1:
        raise several_label_maps(len(sample.masks), f"image {sample.id!r}")
    return sample


def several_label_maps(count: int, where: str) -> FileProblem:
    """The problem that an image whose classes flip has more than one label map."""
    return FileProblem(
        where,
        f"it has {count} label maps, but classes flip",
        "store one label map per image, or take flips out of dataset.yaml",
    )
