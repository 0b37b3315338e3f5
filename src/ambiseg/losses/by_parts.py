"""Losses that are sums over parts of a batch: their gradient is computed part by part, so that memory holds the
activations of one part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Losses = dict[str, Tensor]


def losses_by_parts(
    parts: Sequence[Callable[[], Losses]], weights: Iterable[nn.Parameter], *inputs: Tensor
) -> Losses:
    """Sums of named losses over parts; of ``"loss"`` the gradient is known at once, the others have none.

    Every part is run forward and backward before the next one, so its activations are gone by then. Nothing is
    computed twice. The gradient is that of a plain sum up to rounding; there is no second derivative. A single part,
    parts without gradients, and inputs that want a gradient make a plain sum.

    Args:
        parts: give the losses of one part each, with the same names.
        weights: all that ``"loss"`` may have a gradient for, but for
        inputs: what came from outside.

    Example:
        >>> w = nn.Parameter(torch.tensor(3.0))
        >>> found = losses_by_parts([lambda: {"loss": w**2}, lambda: {"loss": 5 * w}], [w])
        >>> (2 * found["loss"]).backward()
        >>> found["loss"].detach(), w.grad
        (tensor(24.), tensor(22.))
    """
    learnt = [weight for weight in weights if weight.requires_grad]
    outside = any(one.requires_grad for one in inputs)
    if len(parts) == 1 or not learnt or outside or not torch.is_grad_enabled():
        return _added([part() for part in parts])
    gradients: list[Tensor | None] = [None] * len(learnt)
    values: list[Losses] = []
    for part in parts:
        found = part()
        if found["loss"].requires_grad:
            new = torch.autograd.grad(found["loss"], learnt, allow_unused=True)
            gradients = [_sum(*pair) for pair in zip(gradients, new, strict=True)]
        values.append({name: value.detach() for name, value in found.items()})
    total = _added(values)
    known = [(weight, g) for weight, g in zip(learnt, gradients, strict=True) if g is not None]
    if known:
        own, theirs = zip(*known, strict=True)
        total["loss"] = _WithGradient.apply(total["loss"], theirs, *own)  # type: ignore[no-untyped-call]
    return total


def _sum(total: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Of two gradients, of which one may be missing. Not in place: two weights may share one gradient."""
    return new if total is None else total if new is None else total + new


def _added(values: Sequence[Losses]) -> Losses:
    return {name: torch.stack([one[name] for one in values]).sum(0) for name in values[0]}


class _WithGradient(torch.autograd.Function):
    """A value whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: tuple[Tensor, ...], *weights: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(grad * gradient for gradient in ctx.gradients)
