"""What a split is: images with their annotations, in the order of their ids."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol

from ambiseg.data.class_flips import FlipModes
from ambiseg.data.files.validation import add_to_digest
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.volumes.settings import by_volume


class Split(Protocol):
    """Images of one split with their annotations, in the order of their ids.

    A subclass sets ``ids`` and ``info`` and defines ``__getitem__``. The other methods suit every split that
    shows its samples as they are stored.

    Attributes:
        ids: names of the images, sorted.
        info: what the data set says about itself.
        modes: makes the modes of a stored label map; None unless classes flip.
    """

    ids: tuple[str, ...]
    info: DatasetInfo
    modes: FlipModes | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Read one image with its annotations; `AmbisegError` if its files are wrong."""
        ...

    @property
    def stored(self) -> Split:
        """The split as it is stored on disk."""
        return self

    @property
    def groups(self) -> dict[str, str] | None:
        """The volume of each slice, which belong together; None where images are no slices."""
        return None if self.info.slices is None else by_volume(self.ids)

    def voxel_ml(self, volume: str) -> float | None:
        """Millilitres of a voxel of a volume, where all its slices may be in this split; None where that is unknown."""
        return None

    @property
    def directions(self) -> frozenset[str]:
        """Directions of the slices of its volumes (`slice_directions`); empty where they are unknown."""
        return frozenset()

    def units(self) -> list[tuple[list[int], int]] | None:
        """Positions of the samples of each file that is read as a whole, and the bytes that it takes in memory; None
        where each sample is read alone."""
        return None

    def stored_sample(self, index: int) -> Sample:
        """Read one image with its masks as they are stored; `AmbisegError` if its files are wrong."""
        return self[index]

    def shown(self, stored: Sample) -> Sample:
        """What this split shows of a stored sample."""
        return stored

    def digest(self, on_read: Callable[[Sample], object] | None = None) -> str:
        """SHA-256 over all samples, the same for every form on disk.

        Args:
            on_read: called with every stored sample that the digest reads, so that one pass serves both.
        """
        total = hashlib.sha256()
        for sample in self:
            add_to_digest(total, sample)
            if on_read is not None:
                on_read(sample)
        return total.hexdigest()
