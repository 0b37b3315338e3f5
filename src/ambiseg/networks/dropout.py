"""Dropout (Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting") with
random numbers that cost little on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_VALUES = 1 << 16
_LEAST = -(1 << 15)


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, twice as fast on a CPU (``benchmarks/speed.py dropout``).

    ``y = x m / (1 - p)`` with m = 1 of probability 1 - p, else 0. PyTorch draws every m by itself; here 64
    random bits serve four entries, so p is rounded to a multiple of 2^-16.

    Example:
        >>> layer = Dropout(0.25).train()
        >>> sorted(set(layer(torch.ones(1, 4, 8, 8)).flatten().tolist()))
        [0.0, 1.3333333730697632]
    """

    def forward(self, x: Tensor) -> Tensor:
        ours = self.training and 0 < self.p < 1 and x.device.type == "cpu" and not self.inplace
        if not ours or torch.compiler.is_compiling():
            return super().forward(x)
        kept = min(max(round((1 - self.p) * _VALUES), 1), _VALUES - 1)
        return x * (_random_16_bits(x) < _LEAST + kept).to(x.dtype).mul_(1 / (1 - self.p))


def _random_16_bits(x: Tensor) -> Tensor:
    """Uniform integers of 16 bits in the shape and, where it is dense, in the memory order of ``x``."""
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[: x.numel()]
    if x.is_contiguous() or x.dim() != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return bits.view(x.shape)
    return bits.as_strided(x.shape, x.stride())
