"""Which numbers the images of a split hold: what normalisation needs, and what new images must be like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.batches import Normalization
from ambiseg.errors import AmbisegError, counted

MEASURED = 2000
"""Mean, standard deviation and quantiles are those of so many images, the first ones."""

QUANTILES = (0.01, 0.99)
"""Lower and upper quantile of the pixels of a channel."""

FAR = 10
"""A single value is far from all others where the gap is so many times their range; new images are of another
scale where they leave the range of training by so many times its width."""

CRUSHED = 1000
"""No image survives a normalisation whose standard deviation is so many times the range of all other values."""

_PIXELS = 1024


@dataclass(frozen=True)
class ImageRange:
    """Number types, sizes and numbers of the images that training saw.

    Attributes:
        types: number types, sorted.
        smallest, largest: least and greatest height, and width.
        least, low, high, most: of each channel the minimum, two quantiles (`QUANTILES`) and the maximum; minimum
            and maximum leave out values far from all others (`FAR`).
    """

    types: tuple[str, ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    least: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    most: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for the run folder."""
        return {name: list(values) for name, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> ImageRange:
        """The inverse of `to_dict`."""
        numbers = {name: tuple(map(float, entries[name])) for name in ("least", "low", "high", "most")}
        sizes = {name: (int(entries[name][0]), int(entries[name][1])) for name in ("smallest", "largest")}
        return cls(types=tuple(map(str, entries["types"])), **sizes, **numbers)  # type: ignore[arg-type]

    def difference(self, image: NDArray[np.generic]) -> str:
        """What an image ``(C, H, W)`` of another range than training's should be warned of; empty if nothing.

        Another scale shows in most channels. One channel alone may be new where training saw little of it.

        Raises:
            AmbisegError: numbers of another scale, of which predictions would mean nothing.
        """
        found = np.quantile(_some(image), QUANTILES, axis=1)
        low, high, least, most = (np.asarray(v) for v in (self.low, self.high, self.least, self.most))
        width, wide = most - least, high - low
        outside = np.maximum(found[1] - most, least - found[0])
        excesses = outside / np.where(width > 0, width, np.inf)
        worst = int(excesses.argmax())
        excess = float(excesses[worst])
        usual = float(np.median(excesses[width > 0])) if width.any() else 0.0
        extent, varied = found[1] - found[0], wide > 0
        share = float(np.max(extent[varied] / wide[varied])) if varied.any() and extent.any() else 1.0
        other_type = image.dtype.name not in self.types
        of = f" of channel {worst}" if len(image) > 1 else ""
        words = (
            f"its values{of} from the 1 % to the 99 % quantile are {found[0][worst]:g} to {found[1][worst]:g}"
            f" ({image.dtype.name}), those of the training images from minimum to maximum {least[worst]:g} to"
            f" {most[worst]:g} ({', '.join(self.types)})"
        )
        remedy = "give images the number type and scale of the training images"
        if usual > 1 and (excess > FAR or other_type) or (other_type and share < 1 / 50):
            raise AmbisegError(f"{words}: {remedy}")
        if excess > 1 or share < (1 / 8 if other_type else 1 / 50):
            return f"{words}: {remedy}, or predictions may mean nothing"
        return ""


@dataclass(frozen=True)
class Stray:
    """One value of an image far from all its others, as a number for missing measurements is."""

    id: str
    value: float
    pixels: int
    low: float
    high: float

    def __str__(self) -> str:
        verb = "is" if self.pixels == 1 else "are"
        return (
            f"{counted(self.pixels, 'value')} of {self.id!r} {verb} {self.value:g}, far from all others"
            f" ({self.low:g} to {self.high:g})"
        )


@dataclass
class RangeTally:
    """Sums over the pixels of the images of a split, taken one after the other.

    They are of differences to the first pixel of all, so that a constant has a deviation of exactly 0.
    """

    measured: int = MEASURED
    images: int = 0
    channels: int = 0
    types: set[str] = field(default_factory=set)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    _far: list[tuple[int, Stray]] = field(default_factory=list)
    _pixels: int = 0
    _first: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    _total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    _square: NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    _extremes: list[NDArray[np.float64]] = field(default_factory=list)
    _some: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, image_id: str, image: NDArray[np.generic]) -> None:
        """Take one image ``(C, H, W)``; `AmbisegError` if it has other channels than those before."""
        channels = image.shape[0]
        if self.images and channels != self.channels:
            raise AmbisegError(
                f"image {image_id!r} has {channels} channels, the ones before {self.channels}:"
                " all images of a data set need the same channels"
            )
        self.types.add(image.dtype.name)
        self.sizes.add((image.shape[1], image.shape[2]))
        some = _some(image)
        pairs = zip(image, some.astype(np.float64), strict=True)
        extremes = np.array([_extremes(plane, few) for plane, few in pairs])
        for channel, (least, low, high, most) in enumerate(extremes):
            for value, other in ((least, low), (most, high)):
                if value != other:
                    count = int((image[channel] == value).sum())
                    self._far.append((channel, Stray(image_id, float(value), count, float(low), float(high))))
        self._extremes.append(extremes.T)
        if self.images < self.measured:
            numbers = np.asarray(image, np.float64)
            if not self.images:
                self._first = numbers[:, :1, :1]
            numbers = numbers - self._first
            self._pixels += numbers[0].size
            self._total = self._total + numbers.sum((1, 2))
            self._square = self._square + (numbers**2).sum((1, 2))
            self._some.append(some)
        self.channels, self.images = channels, self.images + 1

    @property
    def strays(self) -> list[Stray]:
        """Values far from all others, of their image and of all images."""
        if not self._far:
            return []
        low, high = self._limits()
        return [stray for channel, stray in self._far if not low[channel] <= stray.value <= high[channel]]

    def _limits(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What lies outside of these numbers, of each channel, is far from all values of all images."""
        extremes = np.stack(self._extremes)
        low, high = extremes[:, 1].min(0), extremes[:, 2].max(0)
        return low - FAR * (high - low), high + FAR * (high - low)

    def normalization(self) -> Normalization:
        """Mean and standard deviation of each channel; 1 where a channel is constant."""
        mean = self._total / self._pixels
        std = np.sqrt(np.maximum(self._square / self._pixels - mean**2, 0))
        mean = mean + self._first[:, 0, 0]
        return Normalization(tuple(mean.tolist()), tuple(np.where(std > 1e-8, std, 1.0).tolist()))

    def crushed(self) -> Stray | None:
        """The stray value that makes every image constant when it is normalised; None if there is none."""
        strays = self.strays
        if not strays:
            return None
        lower, upper = self._limits()
        extent, std = (upper - lower) / (2 * FAR + 1), np.asarray(self.normalization().std)
        if not (extent * CRUSHED < std)[[channel for channel, _ in self._far]].any():
            return None
        return max(strays, key=lambda stray: abs(stray.value))

    def range(self) -> ImageRange:
        """The range of the images so far, of which there is at least one."""
        extremes, (lower, upper) = np.stack(self._extremes), self._limits()
        least = np.where(extremes[:, 0] < lower, extremes[:, 1], extremes[:, 0]).min(0)
        most = np.where(extremes[:, 3] > upper, extremes[:, 2], extremes[:, 3]).max(0)
        low, high = np.quantile(np.concatenate(self._some, axis=1), QUANTILES, axis=1)
        heights, widths = zip(*self.sizes, strict=True)
        return ImageRange(
            tuple(sorted(self.types)),
            (min(heights), min(widths)),
            (max(heights), max(widths)),
            tuple(least.tolist()),
            tuple(low.tolist()),
            tuple(high.tolist()),
            tuple(most.tolist()),
        )


def _some(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """At most about a thousand pixels of each channel, evenly spread, ``(C, n)``."""
    flat = image.reshape(image.shape[0], -1)
    return flat[:, :: -(-flat.shape[1] // _PIXELS)].astype(np.float32)


def _extremes(plane: NDArray[Any], some: NDArray[Any]) -> tuple[float, float, float, float]:
    """Minimum, minimum and maximum without values far from all others, maximum.

    Args:
        plane: all pixels of a channel.
        some: some of them; where one of these lies between, nothing is far, and no other pixel is looked at.
    """
    least, most = float(plane.min()), float(plane.max())
    between = some[(some > least) & (some < most)]
    low, high = least, most
    if not between.size or between.min() - least > FAR * (most - between.min()):
        above = plane[plane > least]
        if above.size and float(above.min()) - least > FAR * (most - float(above.min())) > 0:
            low = float(above.min())
    if not between.size or most - between.max() > FAR * (between.max() - least):
        below = plane[plane < most]
        if below.size and most - float(below.max()) > FAR * (float(below.max()) - least) > 0:
            high = float(below.max())
    return least, low, high, most
