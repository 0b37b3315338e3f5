"""The U-Net of PHiSeg, on which several methods of ambiguous segmentation were published.

Baumgartner, Tezcan, Chaitanya, Hötker, Muehlematter, Schawkat, Becker, Donati and Konukoglu (2019), "PHiSeg:
capturing uncertainty in medical image segmentation", as Gao, Chen, Zhang and He (2023), "Modeling multimodal
aleatoric uncertainty in segmentation with mixture of stochastic experts", appendix A.1, use it: seven
resolutions of 32, 64, 128, 192, 192, 192 and 192 channels, at each three 3x3 convolutions with batch
normalisation and ReLU, on both sides; average pooling on the way down, bilinear upsampling on the way up.
Without the normalisation it is the U-Net of Kohl et al. (2018), "A probabilistic U-Net for segmentation of
ambiguous images", in their public code.

Batch normalisation makes the images of a batch see each other in training, and the network another one in
evaluation, where it uses running means: `ambiseg.networks.unet` has GroupNorm instead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.base import Backbone, Encoded, repeated
from ambiseg.networks.dropout import Dropout
from ambiseg.networks.settings import BatchNormSettings, ConvolutionSettings, UNetSettings
from ambiseg.networks.unet import check_channels, extend, level_widths

FACTORS = (1, 2, 4)
"""Channels of the first resolutions in units of the width."""
LARGEST_FACTOR = 6
"""Those of all further ones."""


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where a channel has a single value, which has no
    variance.

    Args:
        channels: of what it normalises.
        settings: its numbers.
    """

    def __init__(self, channels: int, settings: BatchNormSettings | None = None) -> None:
        s = settings or BatchNormSettings()
        super().__init__(channels, s.eps, s.momentum)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


def unit(
    inputs: int, outputs: int, settings: ConvolutionSettings | None = None, kernel: int = 3
) -> list[nn.Module]:
    """A convolution, batch normalisation (unless there is none) and ReLU."""
    s = settings or ConvolutionSettings()
    bias = s.bias or s.norm is None
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    return [convolution, *([] if s.norm is None else [BatchNorm(outputs, s.norm)]), nn.ReLU()]


def convolutions(inputs: int, outputs: int, settings: ConvolutionSettings | None = None) -> nn.Sequential:
    """Three times, or as often as the settings say, a `unit`, behind dropout that is off until a method sets its share."""
    count = (settings or ConvolutionSettings()).count
    pairs = [(inputs, outputs), *[(outputs, outputs)] * (count - 1)]
    layers = [layer for pair in pairs for layer in unit(*pair, settings)]
    # The dropout has a name of its own, so that the numbers of the other layers are those of stored weights.
    return nn.Sequential(
        OrderedDict([("dropout", Dropout(0.0)), *((str(i), m) for i, m in enumerate(layers))])
    )


def _widths(settings: UNetSettings) -> tuple[int, ...]:
    """Channels of every level."""
    if settings.factors:
        return tuple(level_widths(settings))
    factors = [*FACTORS, *[LARGEST_FACTOR] * settings.depth][: settings.depth]
    return tuple(settings.width * factor for factor in factors)


class PHiSegEncoder(nn.Module):
    """The way down on its own, with a mean over positions at its end: ``(B, C, H, W)`` to ``(B,
    out_channels)``.

    Args:
        in_channels: image channels C.
        settings: width, depth and convolutions.

    Raises:
        AmbisegError: an image with another number of channels.

    Example:
        >>> PHiSegEncoder(3, UNetSettings(kind="phiseg", width=4, depth=3))(torch.zeros(2, 3, 13, 1)).shape
        torch.Size([2, 16])
    """

    def __init__(self, in_channels: int, settings: UNetSettings) -> None:
        super().__init__()
        widths = _widths(settings)
        self.in_channels, self.out_channels = in_channels, widths[-1]
        self.encoder = _way_down(in_channels, widths, settings.convolutions)

    def forward(self, images: Tensor) -> Tensor:
        check_channels(images, self.in_channels)
        return _levels(self.encoder, images)[-1].mean((2, 3))


def _way_down(in_channels: int, widths: tuple[int, ...], settings: ConvolutionSettings) -> nn.ModuleList:
    pairs = zip((in_channels, *widths), widths, strict=False)
    return nn.ModuleList(convolutions(*pair, settings) for pair in pairs)


def _levels(
    encoder: nn.ModuleList, images: Tensor, run: Callable[[nn.Module, Tensor], Tensor] | None = None
) -> list[Tensor]:
    """Outputs of every level of the way down, by ``run`` if there is one."""
    x, levels = extend(images, 2 ** (len(encoder) - 1)), []
    for level, block in enumerate(encoder):
        x = functional.avg_pool2d(x, 2) if level else x
        x = block(x) if run is None else run(block, x)
        levels.append(x)
    return levels


class PHiSegUNet(Backbone):
    """Images ``(B, C, H, W)`` to features ``(B, width, H, W)``; the paper's has ``width=32, depth=7``.

    Args:
        in_channels: image channels C.
        settings: width, depth and convolutions; no attention; dropout of
            what enters the three innermost blocks.
        time: must be False, the network has no place for a time.

    Raises:
        AmbisegError: settings that it has no use for, or an image with another number of channels.

    Example:
        >>> net = PHiSegUNet(3, UNetSettings(kind="phiseg", width=4, depth=5))
        >>> net(torch.zeros(2, 3, 13, 21)).shape, net.widths
        (torch.Size([2, 4, 13, 21]), (4, 8, 16, 24, 24))
    """

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__()
        s = settings or UNetSettings(kind="phiseg", depth=7)
        refuse(s, "phiseg", time, blocks=1, attention=False, dropout=0.0)
        self.widths = _widths(s)
        self.in_channels, self.out_channels, self.depth = in_channels, s.width, s.depth
        self.encoder = _way_down(in_channels, self.widths, s.convolutions)
        self.decoder = nn.ModuleList(
            convolutions(upper + lower, upper, s.convolutions)
            for upper, lower in zip(self.widths, self.widths[1:], strict=False)
        )

    def keep_way_down(self) -> None:
        del self.decoder

    def innermost_parts(self, levels: int) -> list[nn.Module]:
        return [*self.encoder[-levels:], *self.decoder[-levels:]]

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        check_channels(images, self.in_channels)
        levels = _levels(self.encoder, images, self.run)
        return Encoded(levels, levels[:-1], None, (images.shape[-2], images.shape[-1]))

    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        x = encoded.levels[-1] if x is None else x
        for layer in range(first, self.depth - 1 if last is None else last):
            level = self.depth - 2 - layer
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.run(self.decoder[level], torch.cat([x, repeated(encoded.skips[level], x)], 1))
        if last is not None:
            return x
        height, width = encoded.size
        return x[..., :height, :width]


def refuse(settings: UNetSettings, kind: str, time: bool, **fixed: object) -> None:
    """Raise `AmbisegError` for what a kind of network has no use for, so that no setting is passed over in
    silence."""
    if time:
        raise AmbisegError(
            f"the network {kind} has no place for a time, which this method gives it: choose --set backbone.kind=unet or ncsnpp"
        )
    for name, value in fixed.items():
        if getattr(settings, name) != value:
            raise AmbisegError(
                f"the network {kind} has no setting {name}, received {getattr(settings, name)}:"
                f" leave --set backbone.{name} out, or choose --set backbone.kind=unet"
            )
