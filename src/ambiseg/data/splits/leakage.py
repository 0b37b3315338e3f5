"""Images that two splits share: what was trained on must not be what a model is tested on.

Two images are *identical* if their type, shape and every value agree (SHA-256). They are *near-identical* if
they show the same apart from noise, brightness or a shift by a pixel, which is found in three steps:

1. Mean hash ``h``: the mean of the channels, averaged over a grid of 16 x 16 cells; one bit per cell, whether it is above the
   mean of all. Its 256 bits, in a fixed shuffled order, are cut into 16 bands.
2. Candidates agree in one band at least, hence are found by sorting, and in all but `MOST_BITS` of the 256 bits. Whatever differs
   in fewer than 16 bits agrees in some band.
3. The nearest candidates of each image are read again and compared: `likeness`.

An image of one value throughout has no bit set: it shows nothing, and is never near-identical to another.
Only the two hashes (48 bytes) are kept of an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS = 16
"""Cells of the mean hash along each side."""
BANDS = 16
"""Parts of the mean hash; candidates agree in one of them."""
MOST_BITS = 40
"""Candidates differ in no more bits than this."""
LIKENESS = 0.95
"""From this `likeness` on, two images are near-identical."""

_NEAREST = 5  # candidates of an image that are read
_SHORTEST, _LONGEST = 8, 64  # sides at which images are compared
_FLAT = 1e-6  # spread of values, relative to the largest, that counts as none
_WINDOW = 25  # where very many images agree in a band, so many before and behind are compared
_AT_ONCE = 1 << 18  # distances held at once
_BITS = CELLS * CELLS
_ORDER = np.random.Generator(np.random.PCG64(0)).permutation(_BITS)

Read = Callable[[str], NDArray[Any] | None]
"""The image ``(C, H, W)`` of an id; None if it cannot be read."""


@dataclass(frozen=True)
class Twins:
    """Two images of different splits that show the same.

    Attributes:
        one: id in the first split.
        other: id in the second.
        likeness: 1 for identical images, else see `likeness`.
        identical: whether every value agrees.
    """

    one: str
    other: str
    likeness: float
    identical: bool

    def __str__(self) -> str:
        return f"{self.one} = {self.other}" if self.identical else f"{self.one} ~ {self.other}"


@dataclass
class Prints:
    """Hashes of the images of one split, 48 bytes each.

    Example:
        >>> one, other = Prints(), Prints()
        >>> image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
        >>> one.add("a", image), other.add("b", image)
        (None, None)
        >>> [str(pair) for pair in shared(one, other, {"a": image}.get, {"b": image}.get)]
        ['a = b']
    """

    ids: list[str] = field(default_factory=list)
    _exact: bytearray = field(default_factory=bytearray, repr=False)
    _mean: bytearray = field(default_factory=bytearray, repr=False)

    def add(self, sample_id: str, image: NDArray[Any]) -> None:
        """Remember the image ``(C, H, W)``."""
        exact = hashlib.sha256(f"{image.dtype.name}{image.shape}".encode())
        exact.update(np.ascontiguousarray(image).data)
        self.ids.append(sample_id)
        self._exact += exact.digest()[:16]
        self._mean += mean_hash(image).tobytes()

    @property
    def exact(self) -> list[bytes]:
        """One digest per image."""
        return [bytes(self._exact[i : i + 16]) for i in range(0, len(self._exact), 16)]

    @property
    def means(self) -> NDArray[np.uint8]:
        """Mean hashes, ``(n, 32)``."""
        return np.frombuffer(bytes(self._mean), np.uint8).reshape(-1, _BITS // 8)


def mean_hash(image: NDArray[Any]) -> NDArray[np.uint8]:
    """The mean hash of an image ``(C, H, W)``, 256 bits in 32 bytes; all 0 if the image is constant.

    Example:
        >>> int(np.bitwise_count(mean_hash(np.arange(256.0).reshape(1, 16, 16))).sum())
        128
    """
    cells = _reduced(image.mean(0, dtype=np.float32), CELLS, CELLS)
    above = cells > cells.mean() + _FLAT * np.abs(cells).max()
    return np.packbits(above.ravel()[_ORDER])


def likeness(one: NDArray[Any], other: NDArray[Any]) -> float:
    """How alike two images ``(C, H, W)`` are, whatever their brightness and contrast, in [-1, 1].

    Both are averaged to at most 64 x 64 cells. Of each channel it is the best correlation over shifts by up
    to one cell, of the image that of the channel that agrees least. Channels that are constant in both images
    say nothing; one that is constant in a single image, another number of channels, or a side below 8 pixels
    gives 0.

    Example:
        >>> image = np.random.default_rng(0).random((1, 20, 20))
        >>> round(likeness(image, 3 * np.roll(image, 1, axis=2) + 1), 6)
        1.0
    """
    if len(one) != len(other):
        return 0.0
    height, width = (min(a, b, _LONGEST) for a, b in zip(one.shape[1:], other.shape[1:], strict=True))
    if min(height, width) < _SHORTEST:
        return 0.0
    found = []
    for pair in zip(one, other, strict=True):
        a, b = (_reduced(channel.astype(np.float32), height, width) for channel in pair)
        flat = [bool(np.ptp(cells) <= _FLAT * np.abs(cells).max()) for cells in (a, b)]
        if not all(flat):
            found.append(0.0 if any(flat) else _best_correlation(a, b))
    return min(found, default=0.0)


def shared(one: Prints, other: Prints, read_one: Read, read_other: Read) -> list[Twins]:
    """Images of ``other`` that are in ``one`` as well: identical first, then near-identical, each with its
    likest partner.

    Of images with equal values only the first of each split is named.

    Args:
        one: hashes of a split.
        other: hashes of another.
        read_one: reads an image of the first by its id.
        read_other: the same of the second.

    Returns:
        At most one pair for each image of ``other``.
    """
    first: dict[bytes, str] = {}
    for name, digest in zip(one.ids, one.exact, strict=True):
        first.setdefault(digest, name)
    digests = other.exact
    named: dict[bytes, Twins] = {}
    for name, digest in zip(other.ids, digests, strict=True):
        if digest in first:
            named.setdefault(digest, Twins(first[digest], name, 1.0, True))
    found = list(named.values())
    for j, candidates in _candidates(one.means, other.means):
        if digests[j] in first:
            continue
        near = _likest(one, candidates, read_one, read_other(other.ids[j]))
        if near is not None:
            found.append(Twins(one.ids[near[1]], other.ids[j], near[0], False))
    return found


def _likest(
    one: Prints, candidates: list[int], read: Read, image: NDArray[Any] | None
) -> tuple[float, int] | None:
    """Likeness and number of the candidate that is most like the image, if any is like it."""
    values = []
    for i in candidates if image is not None else ():
        candidate = read(one.ids[i])
        if candidate is not None and image is not None:
            values.append((likeness(candidate, image), i))
    best = max(values, default=(0.0, 0))
    return best if best[0] >= LIKENESS else None


def _candidates(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Iterator[tuple[int, list[int]]]:
    """Rows of ``other`` with those rows of ``one`` that are nearest by bits, at most `_NEAREST` of them."""
    shown_one, shown_other = (np.flatnonzero(bits.any(1)) for bits in (one, other))
    found = [np.empty(0, np.int64)]
    for band in range(BANDS):
        # Sorted as text that begins with the band: what agrees in it lies together, what agrees in more lies
        # nearer.
        text_one, text_other = (
            np.roll(bits, -2 * band, 1).view(f"S{bits.shape[1]}") for bits in (one, other)
        )
        rows = shown_one[np.argsort(text_one[shown_one, 0], kind="stable")]
        place = np.searchsorted(text_one[rows, 0], text_other[shown_other, 0])
        keys, key = (bits[:, 2 * band : 2 * band + 2].copy().view(">u2")[:, 0] for bits in (one[rows], other))
        low = np.maximum(np.searchsorted(keys, key[shown_other], "left"), place - _WINDOW)
        high = np.minimum(np.searchsorted(keys, key[shown_other], "right"), place + _WINDOW)
        blocks = np.flatnonzero(np.diff(np.cumsum(high - low) // _AT_ONCE)) + 1
        for some in np.split(np.arange(len(shown_other)), blocks):
            count = high[some] - low[some]
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            i, j = rows[np.repeat(low[some], count) + within], np.repeat(shown_other[some], count)
            bits = np.bitwise_count(one.view(np.uint64)[i] ^ other.view(np.uint64)[j]).sum(1, dtype=np.int64)
            near = bits <= MOST_BITS
            found.append(_nearest((j[near] << 41) + (bits[near] << 32) + i[near]))
    for row, group in groupby(_nearest(np.concatenate(found)).tolist(), key=lambda key: key >> 41):
        yield row, [key & 0xFFFFFFFF for key in group]


def _nearest(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of keys made of row, distance and partner, the first `_NEAREST` of each row, sorted and each once."""
    keys = np.unique(keys)
    row = keys >> 41
    return keys[np.arange(len(keys)) - np.searchsorted(row, row) < _NEAREST]


def _reduced(channel: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """``(H, W)`` averaged to ``(height, width)`` cells."""
    box = Image.Resampling.BOX
    return np.asarray(Image.fromarray(channel).resize((width, height), box), np.float32)


def _best_correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """The largest correlation of the inner cells of ``a`` with those of ``b`` shifted by up to one cell."""
    height, width = a.shape
    inner = a[1:-1, 1:-1]
    shifted = [b[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)]
    return max(_correlation(inner, part) for part in shifted)


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum(dtype=np.float64)) / size if size > 0 else 0.0
