"""What training has to know of a split, from one pass over it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.batches import Normalization
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError

MEASURED = 2000
"""Mean and standard deviation are those of so many images, the first ones."""


@dataclass(frozen=True)
class SplitStatistics:
    """What training has to know of a split.

    Attributes:
        channels: number of channels, the same for all images.
        types: number types of the images, sorted.
        normalization: mean and standard deviation of each channel.
        digest: SHA-256 over all samples.
        size: the greatest height and the greatest width.
    """

    channels: int
    types: tuple[str, ...]
    normalization: Normalization
    digest: str
    size: tuple[int, int]

    @classmethod
    def of(cls, split: Split, measured: int = MEASURED) -> SplitStatistics:
        """Read every image of a split once.

        Args:
            split: a split that is not empty.
            measured: use so many images, the first ones, for the normalisation.

        Raises:
            AmbisegError: the files of an image are wrong, or images differ in their number of channels.
        """
        images = _Images(measured)
        digest = split.digest(images.add)
        return cls(images.channels, tuple(sorted(images.types)), images.normalization(), digest, images.size)


@dataclass
class _Images:
    """Sums over the pixels of the images."""

    measured: int
    images: int = 0
    channels: int = 0
    size: tuple[int, int] = (0, 0)
    types: set[str] = field(default_factory=set)
    pixels: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    square: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def add(self, sample: Sample) -> None:
        channels = sample.image.shape[0]
        if self.images and channels != self.channels:
            raise AmbisegError(
                f"image {sample.id!r} has {channels} channels, the ones before {self.channels}:"
                " all images of a data set need the same channels"
            )
        if self.images < self.measured:
            image = np.asarray(sample.image, np.float64)
            self.pixels += image[0].size
            self.total = self.total + image.sum((1, 2))
            self.square = self.square + (image**2).sum((1, 2))
        self.size = (max(self.size[0], sample.image.shape[1]), max(self.size[1], sample.image.shape[2]))
        self.types.add(sample.image.dtype.name)
        self.channels, self.images = channels, self.images + 1

    def normalization(self) -> Normalization:
        mean = self.total / self.pixels
        std = np.sqrt(np.maximum(self.square / self.pixels - mean**2, 0))
        return Normalization(tuple(mean.tolist()), tuple(np.where(std > 1e-8, std, 1.0).tolist()))
