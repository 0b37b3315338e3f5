"""Overlaps of all pairs of masks of two sets: the one place where masks are counted against each other.

For label maps ``a_i`` and ``b_j`` and a class c, with void pixels of either left out,

    I_c(i, j) = |a_i = c and b_j = c|,    U_c(i, j) = |a_i = c| + |b_j = c| - I_c(i, j),
    IoU(i, j) = mean over evaluated classes with U_c > 0 of I_c / U_c,
    Dice(i, j) = mean over the same classes of 2 I_c / (U_c + I_c).

A class absent from both masks is left out of the mean; where no class is left (two empty masks) the value is 1. All pairs
come from one matrix product per image, which counts exactly up to 2^24 pixels, also inside an autocast region.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace


@dataclass(frozen=True)
class Overlap:
    """Counts for all pairs: ``intersection`` and ``union``, each ``(B, K, L, C)`` over the evaluated classes."""

    intersection: Tensor
    union: Tensor

    def iou(self) -> Tensor:
        """Intersection over union ``(B, K, L)`` in [0, 1]."""
        return _mean_present(self.intersection, self.union)

    def dice(self) -> Tensor:
        """Dice coefficient ``(B, K, L)`` in [0, 1]."""
        return _mean_present(2 * self.intersection, self.union + self.intersection)


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
    a, b = a.flatten(2), b.flatten(2)
    valid_a, valid_b = labels.valid(a), labels.valid(b)
    has_void = not bool(valid_a.all() and valid_b.all())
    intersections, unions = [], []
    for c in labels.evaluated:
        in_a, in_b = (a == c).float(), (b == c).float()
        both = _count_pairs(in_a, in_b)
        if has_void:
            area_a, area_b = _count_pairs(in_a, valid_b.float()), _count_pairs(valid_a.float(), in_b)
        else:
            area_a, area_b = in_a.sum(-1)[:, :, None], in_b.sum(-1)[:, None, :]
        intersections.append(both)
        unions.append(area_a + area_b - both)
    return Overlap(torch.stack(intersections, -1), torch.stack(unions, -1))


def _count_pairs(a: Tensor, b: Tensor) -> Tensor:
    """``a b^T`` of zeros and ones in full precision: half precision would round counts above 256."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT


def _mean_present(numerator: Tensor, denominator: Tensor) -> Tensor:
    present = denominator > 0
    ratio = torch.where(present, numerator / denominator.clamp(min=1), 0.0)
    count = present.sum(-1)
    return torch.where(count > 0, ratio.sum(-1) / count.clamp(min=1), 1.0)
