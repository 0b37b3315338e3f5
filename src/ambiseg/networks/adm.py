"""The U-Net of Flow-SSN, for its base and, smaller, for its flow.

De Sousa Ribeiro, Todd, Jones, Kori, Mehta and Glocker (2025), "Flow stochastic segmentation networks",
section 6.2: a slim form of the network of Dhariwal and Nichol (2021), "Diffusion models beat GANs on image
synthesis" (ADM). In the public code it differs from `UNet` in this:

- residual blocks also change the resolution, by the mean of 2x2 pixels and by repeating pixels;
- every block of the encoder has a skip connection, and the decoder has one block more at each resolution;
- where channels change, the skip connection of a block is a 3x3 convolution;
- attention is between two blocks in the middle, with heads of 64 channels;
- the time counts 1000 steps, and the periods of its sines and cosines reach 2 pi 10,000 of them;
- every block, the attention and the last 3x3 convolution start at zero.

The network of that code holds an embedding of the time also where there is none, as in the base, and one of
an image also where it gets none: neither is here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.diffusion import DiffusionUNet
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import ResidualBlock, SelfAttention, TimeEmbedding, group_norm, level_widths

HEAD_WIDTH = 64
"""Channels of an attention head, or all where there are fewer."""
STEPS, LONGEST = 1000.0, 10_000.0
"""Steps in a time of 1, and the longest period of its sines and cosines over 2 pi, in steps, about."""


class Halve(nn.Module):
    """Mean of 2x2 pixels."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 2)


class Attention(SelfAttention):
    """Self-attention in a list of blocks, which are given a time."""

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        return super().forward(x)


class ADM(DiffusionUNet):
    """Image ``(B, C, H, W)`` to features ``(B, widths[0], H, W)``.

    Args:
        in_channels: image channels C.
        settings: width, depth, blocks, greatest width or factors, attention, dropout.
        time: whether `forward` takes a time.

    Raises:
        AmbisegError: a width above the greatest, or an image with another number of channels.

    Example:
        >>> net = ADM(3, UNetSettings(kind="adm", width=8, depth=3, factors=(1, 2, 3)), time=True)
        >>> net(torch.zeros(1, 3, 13, 21), torch.zeros(1)).shape, net.widths
        (torch.Size([1, 8, 13, 21]), (8, 16, 24))
    """

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__()
        s = settings or UNetSettings(kind="adm")
        widths = level_widths(s)
        self.widths, self.depth, self.blocks = tuple(widths), s.depth, s.blocks
        self.in_channels, self.out_channels = in_channels, widths[0]
        size = 4 * s.width if time else 0
        self.time = TimeEmbedding(size, _frequencies(s.width)) if time else None

        def block(inputs: int, outputs: int, resample: nn.Module | None = None) -> ResidualBlock:
            return ResidualBlock(inputs, outputs, s.dropout, size, resample, kernel=3)

        self.stem = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.encoder, self.down = nn.ModuleList(), nn.ModuleList()
        channels, skips = widths[0], [widths[0]]
        for level, w in enumerate(widths):
            if level:
                self.down.append(block(channels, channels, Halve()))
                skips.append(channels)
            inputs = [channels, *[w] * (s.blocks - 1)]
            self.encoder.append(nn.ModuleList(block(i, w) for i in inputs))
            channels = w
            skips += [w] * s.blocks
        self.middle = nn.ModuleList([block(channels, channels)])
        if s.attention:
            heads = max(1, channels // HEAD_WIDTH)
            self.middle.extend([Attention(channels, heads), block(channels, channels)])
        self.decoder, self.up = nn.ModuleList(), nn.ModuleList()
        for w in reversed(widths):
            if len(self.decoder):
                self.up.append(block(channels, channels, nn.Upsample(scale_factor=2, mode="nearest")))
            blocks = nn.ModuleList()
            for _ in range(s.blocks + 1):
                blocks.append(block(channels + skips.pop(), w))
                channels = w
            self.decoder.append(blocks)
        self.norm = group_norm(channels)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.conv2.bias)  # type: ignore[arg-type]
            if isinstance(module, SelfAttention):
                nn.init.zeros_(module.out.bias)  # type: ignore[arg-type]

    def end(self, x: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        return functional.silu(self.norm(x))

    def head(self, outputs: int, kernel: int) -> nn.Conv2d:
        """A 3x3 convolution that starts at zero."""
        head = super().head(outputs, 3)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        return head


def _frequencies(width: int) -> Tensor:
    count = max(1, width // 2)
    return STEPS * LONGEST ** (-torch.arange(count) / count)
