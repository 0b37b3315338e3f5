"""NCSN++ as the public code of Karras, Aittala, Aila and Laine (2022), "Elucidating the design space of
diffusion-based generative models", has it.

It differs from `ambiseg.networks.ncsnpp` in this:

- attention has one head, its sum with the skip connection is divided by sqrt(2) like that of every block, and
  the last block of the decoder's lowest resolution has it, too;
- blocks that change the resolution have a 1x1 convolution in their skip connection;
- the input is convolved before it is smoothed and halved;
- GroupNorm has groups of 4 channels, 32 groups at most;
- weights start uniform with the bounds of Glorot and Bengio (2010), those at the end of a block or of attention
  `NEARLY_ZERO` times as large, and biases at 0.

The network of Gerard and Sullivan, "Deterministic Mode Proposals", is width 64 or 128, depth 3, 4 blocks,
attention, dropout 0.1.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.ncsnpp import Block, NCSNpp, Smooth
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import GroupNorm, SelfAttention

NEARLY_ZERO = 1e-5
"""Gain of the weights that end a block, attention or the network."""
ATTENTION = math.sqrt(0.2)
"""Gain of the weights that give queries, keys and values."""


def start(layer: nn.Module, gain: float = 1.0) -> None:
    """Draw the weights of a convolution or linear layer as the public code does; biases are 0."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight, gain)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def fine_group_norm(channels: int) -> GroupNorm:
    """GroupNorm with groups of 4 channels, 32 groups at most."""
    return GroupNorm(math.gcd(channels, max(1, min(32, channels // 4))), channels, eps=1e-6)


class ScaledAttention(SelfAttention):
    """Self-attention with one head: ``(x + out(attention(norm(x)))) / sqrt 2``."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, heads=1)
        self.norm = fine_group_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * math.sqrt(0.5)


class EDMBlock(Block):
    """The block with these norms, this attention, and a convolution where the resolution changes."""

    PROJECTED = True

    @staticmethod
    def normalisation(channels: int) -> nn.GroupNorm:
        return fine_group_norm(channels)

    @staticmethod
    def self_attention(channels: int) -> nn.Module:
        return ScaledAttention(channels)


class ConvThenSmooth(nn.Conv2d):
    """A 3x3 convolution, then half the resolution; what lies outside of the image is 0 for both together."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=2)
        self.shrink = Smooth(up=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = super().forward(x)
        kernel = self.shrink.kernel.to(wide.dtype).expand(wide.shape[1], 1, 4, 4)
        return functional.conv2d(wide, kernel, stride=2, groups=wide.shape[1])


class EDM(NCSNpp):
    """Image ``(B, C, H, W)`` to features ``(B, 2 width, H, W)``, see `NCSNpp`.

    Example:
        >>> import torch
        >>> from ambiseg.networks.settings import UNetSettings
        >>> net = EDM(3, UNetSettings(kind="edm", width=8, depth=2, attention=True), time=True)
        >>> net(torch.zeros(1, 3, 13, 21), torch.zeros(1)).shape
        torch.Size([1, 16, 13, 21])
    """

    BLOCK = EDMBlock
    DECODER_ATTENTION = True

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__(in_channels, settings, time)
        for module in self.modules():
            start(module)
        for module in self.modules():
            if isinstance(module, EDMBlock):
                start(module.conv2, NEARLY_ZERO)
            if isinstance(module, ScaledAttention):
                start(module.qkv, ATTENTION)
                start(module.out, NEARLY_ZERO)

    @staticmethod
    def shrinking(inputs: int, outputs: int) -> nn.Module:
        return ConvThenSmooth(inputs, outputs)
