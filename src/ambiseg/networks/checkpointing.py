"""Activation checkpointing: the backward pass computes the inside of a block again, so that memory holds its input
alone (Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost")."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, *inputs: Any) -> Tensor:
    """``block(*inputs)`` with the same gradients, random numbers and running statistics.

    Example:
        >>> import torch
        >>> block, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh()), torch.ones(1, 2)
        >>> bool((checkpointed(block, x) == block(x)).all())
        True
    """
    out: Tensor = checkpoint(
        block, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _kept_statistics(block))
    )
    return out


@contextmanager
def _kept_statistics(block: nn.Module) -> Iterator[None]:
    """Batch normalisation does not count a batch twice."""
    layers = [layer for layer in block.modules() if isinstance(layer, _BatchNorm) and layer.training]
    before = [(layer.momentum, layer.num_batches_tracked) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked = layer.num_batches_tracked.clone()
    try:
        yield
    finally:
        for layer, (momentum, count) in zip(layers, before, strict=True):
            layer.momentum, layer.num_batches_tracked = momentum, count
