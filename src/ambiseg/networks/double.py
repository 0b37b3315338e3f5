"""The widespread U-Net of two 3x3 convolutions with batch normalisation and ReLU at each resolution, max pooling on
the way down, and bilinear upsampling on the way up.

Ronneberger, Fischer and Brox (2015), "U-Net", in the form of the public code of PixelSeg (Zhang et al. 2022). The
lowest resolution and those of the decoder, but for full resolution, have half the channels that the encoder would
have there. The first convolution of the decoder halves its input's channels. As there, an upsampled map keeps the
centres of its corner pixels in place.

Batch normalisation makes the images of a batch see each other in training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.base import Backbone, Encoded, repeated
from ambiseg.networks.dropout import Dropout
from ambiseg.networks.phiseg import BatchNorm, refuse
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels, extend, level_widths


def double_convolution(inputs: int, middle: int, outputs: int, dropout: float = 0.0) -> nn.Sequential:
    """Two times 3x3 convolution with bias, batch normalisation, ReLU and dropout."""
    layers: list[nn.Module] = []
    for before, after in ((inputs, middle), (middle, outputs)):
        layers += [nn.Conv2d(before, after, 3, padding=1), BatchNorm(after), nn.ReLU(), Dropout(dropout)]
    return nn.Sequential(*layers)


class DoubleUNet(Backbone):
    """Images ``(B, C, H, W)`` to features ``(B, width, H, W)``; that of PixelSeg has ``width=32, depth=5,
    factors=(1, 2, 4, 6)``.

    Args:
        in_channels: image channels C.
        settings: width, depth, factors and dropout; no other blocks, no attention.
        time: must be False, the network has no place for a time.

    Raises:
        AmbisegError: settings that it has no use for, or an image with another number of channels.

    Example:
        >>> net = DoubleUNet(3, UNetSettings(kind="double", width=4, depth=3))
        >>> net(torch.zeros(1, 3, 13, 21)).shape, net.widths, net.up_widths
        (torch.Size([1, 4, 13, 21]), (4, 8, 8), (4, 4, 8))
    """

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__()
        s = settings or UNetSettings(kind="double")
        refuse(s, "double", time, blocks=1, attention=False)
        widths = level_widths(s)
        halves = [max(1, width // 2) for width in widths]
        self.in_channels, self.out_channels, self.depth = in_channels, s.width, s.depth
        self.widths = (*widths[:-1], halves[-1]) if s.depth > 1 else (s.width,)
        self._up_widths = (s.width, *halves[1:])
        pairs = zip((in_channels, *self.widths), self.widths, strict=False)
        self.encoder = nn.ModuleList(double_convolution(a, b, b, s.dropout) for a, b in pairs)
        joined = [skip + below for skip, below in zip(self.widths, self._up_widths[1:], strict=False)]
        self.decoder = nn.ModuleList(
            double_convolution(a, max(1, a // 2), b, s.dropout)
            for a, b in zip(joined, self._up_widths, strict=False)
        )

    @property
    def up_widths(self) -> tuple[int, ...]:
        return self._up_widths

    def encoder_parts(self) -> list[nn.Module]:
        return [self.encoder]

    def innermost_parts(self, levels: int) -> list[nn.Module]:
        return [*self.encoder[-levels:], *self.decoder[-levels:]]

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        check_channels(images, self.in_channels)
        x, levels = extend(images, 2 ** (self.depth - 1)), []
        for level, block in enumerate(self.encoder):
            x = block(functional.max_pool2d(x, 2) if level else x)
            levels.append(x)
        return Encoded(levels, levels[:-1], None, (images.shape[-2], images.shape[-1]))

    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        x = encoded.levels[-1] if x is None else x
        for layer in range(first, self.depth - 1 if last is None else last):
            level = self.depth - 2 - layer
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            x = self.decoder[level](torch.cat([repeated(encoded.skips[level], x), x], 1))
        if last is not None:
            return x
        height, width = encoded.size
        return x[..., :height, :width]
