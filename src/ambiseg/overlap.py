"""Overlaps of all pairs of masks of two sets: the one place where masks are counted against each other.

For label maps ``a_i`` and ``b_j`` and a class c, with void pixels of either left out,

    I_c(i, j) = |a_i = c and b_j = c|,    U_c(i, j) = |a_i = c| + |b_j = c| - I_c(i, j),
    IoU(i, j) = mean over evaluated classes with U_c > 0 of I_c / U_c,
    Dice(i, j) = mean over the same classes of 2 I_c / (U_c + I_c).

A class absent from both masks is left out of the mean; where no class is left (two empty masks) the value is
1. `Absence` has what others do there. Pixels are counted as integers, exactly at any image size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

WORD = 64
"""Pixels in one word of packed bits."""
WORDS_AT_ONCE = 2**15
"""Words of intersections held at once (256 KiB, so that they stay in the cache)."""
PIXELS_AT_ONCE = 2**22
"""Pixels unpacked at once; float32 counts up to 2^24 of them exactly."""


@dataclass(frozen=True)
class Absence:
    """How classes that both masks lack count in IoU and Dice.

    Attributes:
        one: value of such a class beside others that are there; None leaves it out of the mean.
        every: value where both masks lack each of several evaluated classes; nan: there is no value.
        single: the same where one class is evaluated.

    Example:
        >>> a, b = torch.tensor([[[1, 1, 0, 0]]]), torch.tensor([[[1, 0, 0, 0]]])
        >>> counts = pairwise_overlap(a, b, LabelSpace.of_classes(3))
        >>> counts.iou().item(), counts.iou(Absence(one=1.0)).item()
        (0.5, 0.75)
    """

    one: float | None = None
    every: float = 1.0
    single: float = 1.0

    @property
    def undefined(self) -> bool:
        """Whether a pair of masks may have no value."""
        return math.isnan(self.every) or math.isnan(self.single)


LEFT_OUT = Absence()
"""Absent classes are left out, and two empty masks are equal: the convention of this library."""


@dataclass(frozen=True)
class Overlap:
    """Counts for all pairs: ``intersection`` and ``union``, each ``(B, K, L, C)`` int64 over the evaluated
    classes."""

    intersection: Tensor
    union: Tensor

    def iou(self, absence: Absence = LEFT_OUT) -> Tensor:
        """Intersection over union ``(B, K, L)`` in [0, 1], or nan where ``absence`` gives no value."""
        return _mean_of_classes(self.intersection, self.union, absence)

    def dice(self, absence: Absence = LEFT_OUT) -> Tensor:
        """Dice coefficient ``(B, K, L)`` in [0, 1], or nan where ``absence`` gives no value."""
        return _mean_of_classes(2 * self.intersection, self.union + self.intersection, absence)


def pairwise_overlap(a: Tensor, b: Tensor, labels: LabelSpace) -> Overlap:
    """Count intersections and unions of every mask of ``a`` with every mask of ``b``.

    Args:
        a: label maps ``(B, K, *S)``.
        b: label maps ``(B, L, *S)``.
        labels: the label space of both.

    Raises:
        AmbisegError: batch or space of ``a`` and ``b`` differ.

    Example:
        >>> a = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 0]]])
        >>> b = torch.tensor([[[1, 0, 0, 0], [0, 0, 0, 0]]])
        >>> pairwise_overlap(a, b, LabelSpace.binary()).iou()
        tensor([[[0.5000, 0.0000],
                 [0.0000, 1.0000]]])
    """
    if a.shape[:1] + a.shape[2:] != b.shape[:1] + b.shape[2:]:
        raise AmbisegError(
            f"masks of shape {tuple(a.shape)} and {tuple(b.shape)} cannot be compared: batch and image size must agree"
        )
    same = a is b
    a, b = a.flatten(2), b.flatten(2)
    exporting = torch.compiler.is_exporting()
    indicator: Any = _Bits if a.device.type == "cpu" and not exporting else _Flags
    void = labels.void
    # An exported model compares predictions, which hold no void.
    has_void = not exporting and (indicator.holds(a, void) or (not same and indicator.holds(b, void)))
    valid_a = indicator(a, void, inverted=True) if has_void else None
    valid_b = indicator(b, void, inverted=True) if has_void and not same else valid_a
    intersections, unions = [], []
    for c in labels.evaluated:
        in_a = indicator(a, c)
        in_b = in_a if same else indicator(b, c)
        both = in_a.pairs(in_b)
        if valid_a is not None and valid_b is not None:
            area_a, area_b = in_a.pairs(valid_b), valid_a.pairs(in_b)
        else:
            area_a, area_b = in_a.areas()[:, :, None], in_b.areas()[:, None, :]
        intersections.append(both)
        unions.append(area_a + area_b - both)
    return Overlap(torch.stack(intersections, -1), torch.stack(unions, -1))


class _Bits:
    """Where masks ``(B, K, P)`` have a value, 64 pixels to a word: pairs are counted with AND and population
    count.

    On a CPU this is exact at any size and several times faster than a product of floats
    (``benchmarks/speed.py metrics``).
    """

    def __init__(self, masks: Tensor, value: int, inverted: bool = False) -> None:
        flat = masks.numpy().reshape(-1, masks.shape[2])
        self.words = np.zeros((*masks.shape[:2], -(-masks.shape[2] // WORD)), dtype=np.uint64)
        octets = self.words.view(np.uint8).reshape(len(flat), -1)
        step = max(1, PIXELS_AT_ONCE // max(1, flat.shape[1]))
        for i in range(0, len(flat), step):
            part = flat[i : i + step]
            packed = np.packbits(part != value if inverted else part == value, axis=-1)
            octets[i : i + step, : packed.shape[1]] = packed

    @staticmethod
    def holds(masks: Tensor, value: int) -> bool:
        """Whether any pixel has the value."""
        return bool((masks.numpy() == value).any())

    def areas(self) -> Tensor:
        """Pixels of each mask ``(B, K)`` int64."""
        return torch.from_numpy(np.bitwise_count(self.words).sum(-1, dtype=np.int64))

    def pairs(self, other: _Bits) -> Tensor:
        """Pixels that each pair has in common ``(B, K, L)`` int64."""
        (batch, rows, size), columns = self.words.shape, other.words.shape[1]
        if batch * rows * columns * size <= WORDS_AT_ONCE:
            common = self.words[:, :, None] & other.words[:, None]
            return torch.from_numpy(np.bitwise_count(common).sum(-1, dtype=np.int64))
        if rows > columns:
            return other.pairs(self).mT
        counts = np.empty((batch, rows, columns), dtype=np.int64)
        step = max(1, WORDS_AT_ONCE // size)
        for b, i in np.ndindex(batch, rows):
            row, others = self.words[b, i], other.words[b]
            for j in range(i if self is other else 0, columns, step):
                common = row & others[j : j + step]
                counts[b, i, j : j + step] = np.bitwise_count(common).sum(-1, dtype=np.int64)
            if self is other:
                counts[b, i:, i] = counts[b, i, i:]
        return torch.from_numpy(counts)


class _Flags:
    """The same on an accelerator: products of zeros and ones, over few enough pixels at once to be exact in
    float32."""

    def __init__(self, masks: Tensor, value: int, inverted: bool = False) -> None:
        self.flags = masks != value if inverted else masks == value

    @staticmethod
    def holds(masks: Tensor, value: int) -> bool:
        """Whether any pixel has the value."""
        return bool((masks == value).any())

    def areas(self) -> Tensor:
        """Pixels of each mask ``(B, K)`` int64."""
        return self.flags.sum(-1)

    def pairs(self, other: _Flags) -> Tensor:
        """Pixels that each pair has in common ``(B, K, L)`` int64."""
        a, b = self.flags, other.flags
        if torch.compiler.is_exporting():
            return (a.float() @ b.float().mT).long()
        step = max(1, PIXELS_AT_ONCE // max(a.shape[0] * max(a.shape[1], b.shape[1]), 1))
        total = torch.zeros(a.shape[0], a.shape[1], b.shape[1], dtype=torch.int64, device=a.device)
        with torch.autocast(a.device.type, enabled=False):
            for p, q in zip(torch.split(a, step, 2), torch.split(b, step, 2), strict=True):
                total += (p.float() @ q.float().mT).long()
        return total


def _mean_of_classes(numerator: Tensor, denominator: Tensor, absence: Absence) -> Tensor:
    """Mean over classes of the ratios whose denominator is not 0, in double precision; the others count as
    ``absence`` says."""
    present = denominator > 0
    ratio = numerator.double() / denominator.clamp(min=1)
    count = present.sum(-1)
    none = absence.single if denominator.shape[-1] == 1 else absence.every
    if absence.one is None:
        mean = (ratio * present).sum(-1) / count.clamp(min=1)
    else:
        mean = torch.where(present, ratio, absence.one).mean(-1)
    return torch.where(count > 0, mean, none).float()
