"""NCSN++: the U-Net of score-based generative models, as a backbone.

Song, Sohl-Dickstein, Kingma, Kumar, Ermon and Poole (2021), "Score-based generative modeling through
stochastic differential equations", in the form of Karras, Aittala, Aila and Laine (2022), "Elucidating the
design space of diffusion-based generative models": what sets it apart from `UNet` is

- time as random Fourier features, added to the activations of every block;
- resampling with the smoothing filter [1, 3, 3, 1], inside residual blocks;
- a residual encoder: the input itself is downsampled and added at every resolution;
- sums of two paths are divided by sqrt(2), so that variances neither grow nor shrink with depth;
- one block more per resolution in the decoder, each with its own skip connection.

All resolutions have ``2 width`` channels. The network of the mode-proposal paper is width 64 or 128, depth 3,
4 blocks, attention at the lowest resolution, dropout 0.1. It knows nothing of ambiguity: images in, features
out, any image size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.base import Encoded
from ambiseg.networks.diffusion import DiffusionUNet
from ambiseg.networks.dropout import Dropout
from ambiseg.networks.phiseg import refuse
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import SelfAttention, check_channels, extend, group_norm

FOURIER_SCALE = 16.0
"""Standard deviation of the random frequencies."""


class Smooth(nn.Module):
    """Halve or double the resolution with the filter [1, 3, 3, 1] in both directions (Zhang 2019; Karras et
    al. 2020)."""

    kernel: Tensor

    def __init__(self, up: bool) -> None:
        super().__init__()
        self.up = up
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", row[:, None] * row * (4 if up else 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        resample = functional.conv_transpose2d if self.up else functional.conv2d
        return resample(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Block(nn.Module):
    """Residual block that may change the resolution: ``(skip(x) + conv(silu(norm(conv(silu(norm(x))) + e))))
    / sqrt 2``.

    Args:
        inputs, outputs: channels.
        dropout: share of dropped activations before the second convolution.
        time: length of the time embedding e, 0 for none.
        resample: changes the resolution of both paths, or None.
        attention: self-attention behind it.

    Attributes:
        PROJECTED: whether a change of the resolution brings a convolution into the skip connection.
    """

    PROJECTED = False

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dropout: float,
        time: int,
        resample: Smooth | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = self.normalisation(inputs), self.normalisation(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs) if time else None
        self.dropout = Dropout(dropout)
        self.resample = resample if resample is not None else nn.Identity()
        projected = inputs != outputs or (self.PROJECTED and resample is not None)
        self.skip = nn.Conv2d(inputs, outputs, 1) if projected else nn.Identity()
        self.attention = self.self_attention(outputs) if attention else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    @staticmethod
    def normalisation(channels: int) -> nn.GroupNorm:
        """What stands in front of the convolutions."""
        return group_norm(channels)

    @staticmethod
    def self_attention(channels: int) -> nn.Module:
        """What stands behind them."""
        return SelfAttention(channels)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.conv1(self.resample(functional.silu(self.norm1(x))))
        if self.time is not None and time is not None:
            h = h + self.time(time)[:, :, None, None]
        h = self.conv2(self.dropout(functional.silu(self.norm2(h))))
        out: Tensor = self.attention((self.skip(self.resample(x)) + h) * math.sqrt(0.5))
        return out


class SmoothThenConv(nn.Conv2d):
    """Half the resolution, then a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.shrink = Smooth(up=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.shrink(x))


class FourierTime(nn.Module):
    """Random Fourier features of a time through a two-layer network: ``(B,) -> (B, size)`` (Tancik et al.
    2020)."""

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * FOURIER_SCALE * torch.randn(size // 4))
        self.net = nn.Sequential(
            nn.Linear(2 * (size // 4), size), nn.SiLU(), nn.Linear(size, size), nn.SiLU()
        )

    def forward(self, time: Tensor) -> Tensor:
        angle = time[:, None] * self.frequencies
        out: Tensor = self.net(torch.cat([angle.cos(), angle.sin()], 1))
        return out


class NCSNpp(DiffusionUNet):
    """Image ``(B, C, H, W)`` to features ``(B, 2 width, H, W)``.

    Args:
        in_channels: image channels C.
        settings: width, depth, blocks, attention, dropout.
        time: whether `forward` takes a time (generative methods).

    Attributes:
        BLOCK: class of its blocks.
        DECODER_ATTENTION: whether the last block of the decoder's lowest level has attention, too.

    Raises:
        AmbisegError: an image with another number of channels.

    Example:
        >>> net = NCSNpp(3, UNetSettings(kind="ncsnpp", width=8, depth=2), time=True)
        >>> net(torch.zeros(1, 3, 13, 21), torch.zeros(1)).shape
        torch.Size([1, 16, 13, 21])
    """

    BLOCK: type[Block] = Block
    DECODER_ATTENTION = False

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__()
        s = settings or UNetSettings()
        refuse(s, s.kind, time=False, factors=())
        width = 2 * s.width
        size = 4 * s.width if time else 0
        self.in_channels, self.out_channels, self.depth, self.blocks = in_channels, width, s.depth, s.blocks
        self.widths = (width,) * s.depth
        self.time = FourierTime(size) if time else None

        def block(inputs: int, resample: Smooth | None = None, attention: bool = False) -> Block:
            return self.BLOCK(inputs, width, s.dropout, size, resample, attention)

        self.stem = nn.Conv2d(in_channels, s.width, 3, padding=1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        self.down, self.up, self.residual = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels, skips = s.width, [s.width]
        for level in range(s.depth):
            lowest = s.attention and level + 1 == s.depth
            if level:
                self.down.append(block(channels, Smooth(up=False)))
                self.residual.append(self.shrinking(in_channels if level == 1 else width, width))
                channels = width
                skips.append(channels)
            self.encoder.append(
                nn.ModuleList(block(channels if i == 0 else width, None, lowest) for i in range(s.blocks))
            )
            channels = width
            skips += [width] * s.blocks
        self.middle = nn.ModuleList([block(width, None, s.attention), block(width)])
        for level in reversed(range(s.depth)):
            if level + 1 < s.depth:
                self.up.append(block(width, Smooth(up=True)))
            seen = s.attention and self.DECODER_ATTENTION and level + 1 == s.depth
            self.decoder.append(
                nn.ModuleList(
                    block(width + skips.pop(), None, seen and i == s.blocks) for i in range(s.blocks + 1)
                )
            )
        self.norm = self.BLOCK.normalisation(width)

    @staticmethod
    def shrinking(inputs: int, outputs: int) -> nn.Module:
        """What brings the input to the next lower resolution and its channels."""
        return SmoothThenConv(inputs, outputs)

    def encoder_parts(self) -> list[nn.Module]:
        """The way down: everything before the two blocks in the middle."""
        return [*super().encoder_parts(), self.residual]

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        """Levels of the encoder; the bottleneck is what the two blocks in the middle give."""
        check_channels(images, self.in_channels)
        pyramid = extend(images, 2 ** (self.depth - 1))
        embedding = self.time(time) if self.time is not None and time is not None else None
        x = self.stem(pyramid)
        skips, levels = [x], []
        for level in range(self.depth):
            if level:
                pyramid = self.residual[level - 1](pyramid)
                x = self.run(self.down[level - 1], x, embedding)
                x = pyramid = (x + pyramid) * math.sqrt(0.5)
                skips.append(x)
            for block in self.encoder[level]:  # type: ignore[attr-defined]
                x = self.run(block, x, embedding)
                skips.append(x)
            levels.append(x)
        for block in self.middle:
            x = self.run(block, x, embedding)
        return Encoded([*levels[:-1], x], skips, embedding, (images.shape[-2], images.shape[-1]))

    def end(self, x: Tensor, skips: list[Tensor], embedding: Tensor | None) -> Tensor:
        return functional.silu(self.norm(x))
