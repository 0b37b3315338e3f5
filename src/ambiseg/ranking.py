"""Rankings of floats that come out the same on every machine: values within rounding are ties, and of ties
the first counts.

Weights are sums and quotients in float32, so that two which are equal on paper may differ in the last bit,
one way on one processor and the other way on another. What is chosen by them must not depend on that bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 1e-6
"""Largest difference of two values in [0, 1] that counts as none."""


def descending(value: Tensor) -> Tensor:
    """Indices that sort ``(B, K)`` along its last axis, largest first; ties keep their order.

    Values belong to one tie where each is within `ROUNDING` of the next.

    Example:
        >>> descending(torch.tensor([[0.2, 0.40000001, 0.40000004]]))
        tensor([[1, 2, 0]])
    """
    ranked, order = value.sort(dim=-1, descending=True, stable=True)
    falls = torch.zeros_like(order)
    falls[..., 1:] = ranked[..., :-1] - ranked[..., 1:] > ROUNDING
    place = torch.zeros_like(order).scatter(-1, order, falls.cumsum(-1))
    return place.argsort(dim=-1, stable=True)


def first_largest(value: Tensor, dim: int) -> Tensor:
    """Index of the first entry within `ROUNDING` of the largest along an axis, which is removed.

    Example:
        >>> first_largest(torch.tensor([[0.2, 0.40000001, 0.40000004]]), 1)
        tensor([1])
    """
    largest = value.amax(dim, keepdim=True)
    return (value >= largest - ROUNDING).to(torch.uint8).argmax(dim)


def exceeds(value: Tensor, threshold: float) -> Tensor:
    """Where a value is above the threshold by more than `ROUNDING`."""
    return value > threshold + ROUNDING


def reaches(value: Tensor, threshold: float) -> Tensor:
    """Where a value is at or above the threshold, or below it by no more than `ROUNDING`."""
    return value >= threshold - ROUNDING
