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
    order = stable_order(value, descending=True)
    ranked = value.gather(-1, order)
    falls = torch.zeros_like(order)
    falls[..., 1:] = ranked[..., :-1] - ranked[..., 1:] > ROUNDING
    place = torch.zeros_like(order).scatter(-1, order, falls.cumsum(-1))
    return stable_order(place)


def stable_order(value: Tensor, descending: bool = False) -> Tensor:
    """Indices that sort along the last axis, equal values in their order.

    While a model is exported, from comparisons of all pairs: ONNX has no stable sort.

    Example:
        >>> stable_order(torch.tensor([2, 1, 2]), descending=True)
        tensor([0, 2, 1])
    """
    if not torch.compiler.is_exporting():
        return value.argsort(dim=-1, descending=descending, stable=True)
    one, other = value[..., :, None], value[..., None, :]
    index = torch.arange(value.shape[-1], device=value.device)
    before = (other > one if descending else other < one) | ((other == one) & (index[None] < index[:, None]))
    place = before.sum(-1)
    return torch.zeros_like(place).scatter(-1, place, index.expand_as(place))


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
