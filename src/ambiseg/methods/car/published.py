"""The networks of the public code of Kassapis et al. (2021): two calibration networks, the refinement network
and the discriminator.

They take images of any size: these are extended at their lower and right border by repeated pixels to the next
size that divides, and logits are cut back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.methods.car.refinement import SLOPE, Injection
from ambiseg.networks.base import Encoded
from ambiseg.networks.dropout import Dropout
from ambiseg.networks.phiseg import BatchNorm
from ambiseg.networks.unet import extend

VGG19 = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and convolutions of the five stages of VGG-19 (Simonyan and Zisserman 2015)."""
GRID = 14
"""Side of the last maps of the discriminator for images of 128x128 pixels; others are averaged to it."""
LEAST_SIDE = 32
"""Smaller images are extended to this side in front of the discriminator."""


class SegNet(nn.Module):
    """Calibration network: the encoder of VGG-19 with batch normalisation, and a decoder with skip connections.

    Of the convolutions of a decoder stage all but the first and the last are one convolution, applied several
    times, as in the code.

    Args:
        in_channels: of the images.
        outputs: channels C of the logits.
    """

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        self.down, inputs = nn.ModuleList(), in_channels
        for width, count in VGG19:
            stage = [_convolution(inputs if i == 0 else width, width) for i in range(count)]
            self.down.append(nn.Sequential(*stage, nn.MaxPool2d(2)))
            inputs = width
        self.lowest = _UpStage(512, [512], [4])
        self.up = nn.ModuleList(
            [
                _UpStage(1024, [512, 512, 256], [1, 2, 1]),
                _UpStage(512, [256, 256, 128], [1, 2, 1]),
                _UpStage(256, [128, 64], [1, 1]),
                _UpStage(128, [64, outputs], [1, 1]),
            ]
        )
        self.out = nn.Conv2d(outputs, outputs, 3, padding=1, padding_mode="reflect")

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, C, H, W)``."""
        x, levels = extend(images, 2 ** len(VGG19)), []
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        x = self.lowest(x)
        for level, up in zip(reversed(levels[:-1]), self.up, strict=True):
            x = up(torch.cat([level, x], 1))
        out: Tensor = self.out(x)
        return out[..., : images.shape[-2], : images.shape[-1]]


class _UpStage(nn.Module):
    """A transposed convolution that doubles the size, and convolutions, each applied so many times."""

    def __init__(self, inputs: int, widths: list[int], times: list[int]) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(inputs, inputs, 2, stride=2)
        self.convolutions = nn.ModuleList(
            _convolution(*pair) for pair in zip([inputs, *widths], widths, strict=False)
        )
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsample(x)
        for convolution, times in zip(self.convolutions, self.times, strict=True):
            for _ in range(times):
                x = convolution(x)
        return x


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), BatchNorm(outputs), nn.ReLU(), Dropout(0.1)
    )


class FiveConvolutions(nn.Module):
    """Calibration network behind a black box: five 3x3 convolutions of 64 channels.

    Args:
        in_channels: of the images, the prediction of the black box among them.
        outputs: channels C of the logits.

    Example:
        >>> FiveConvolutions(4, 24)(torch.zeros(1, 4, 9, 6)).shape
        torch.Size([1, 24, 9, 6])
    """

    WIDTH = 64

    def __init__(self, in_channels: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (in_channels, *[self.WIDTH] * 3):
            layers += [*_padded(inputs, self.WIDTH), Dropout(0.2), BatchNorm(self.WIDTH), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, *_padded(self.WIDTH, outputs), Dropout(0.2))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, C, H, W)``."""
        out: Tensor = self.layers(extend(images, 2))
        return out[..., : images.shape[-2], : images.shape[-1]]


def _padded(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")]


class PublishedRefinement(nn.Module):
    """Refinement network: four convolutions of stride 2, four transposed ones, noise in the last three layers.

    Args:
        in_channels: of images and probabilities together.
        outputs: channels C of the logits.
        size: dimensions L of the latent.

    Example:
        >>> net = PublishedRefinement(5, 2, 8).eval()
        >>> net.decode(net.encode(torch.zeros(3, 5, 17, 20)), torch.zeros(3, 4, 8)).shape
        torch.Size([3, 4, 2, 17, 20])
    """

    WIDTHS = (32, 64, 128, 256)
    values_of_a_pixel = 2 * WIDTHS[0]

    def __init__(self, in_channels: int, outputs: int, size: int) -> None:
        super().__init__()
        w = self.WIDTHS
        self.down = nn.ModuleList(
            self._block(nn.Conv2d(*pair, 3, stride=2, padding=1))
            for pair in zip((in_channels, *w), w, strict=False)
        )
        pairs = ((w[3], w[2]), (w[3], w[1]), (w[2], w[0]), (w[1], w[0]))
        self.up = nn.ModuleList(self._block(nn.ConvTranspose2d(*pair, 2, stride=2)) for pair in pairs)
        self.inject = nn.ModuleList(
            Injection(features, size, behind, scale=0.0)
            for features, behind in ((w[1], w[1]), (w[0], w[0]), (w[0], outputs))
        )

    @staticmethod
    def _block(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
        norm = BatchNorm(convolution.out_channels)
        return nn.Sequential(convolution, norm, nn.LeakyReLU(SLOPE), Dropout(0.1))

    def encode(self, x: Tensor) -> tuple[Encoded, Tensor]:
        """What all samples of an image share."""
        size = (x.shape[-2], x.shape[-1])
        x, levels = extend(x, 2 ** len(self.WIDTHS)), []
        for block in self.down:
            x = block(x)
            levels.append(x)
        x = self.up[1](torch.cat([self.up[0](x), levels[2]], 1))
        return Encoded(levels, levels[:-1], None, size), x

    def decode(self, shared: tuple[Encoded, Tensor], z: Tensor) -> Tensor:
        """Logits ``(B, N, C, H, W)`` of latents ``(B, N, L)``."""
        encoded, x = shared
        height, width = encoded.size
        count = z.shape[1]
        for place, inject in enumerate(self.inject):
            x = inject(x, z)
            if place < 2:
                skip = encoded.skips[1 - place].repeat_interleave(count, 0)
                x = self.up[2 + place](torch.cat([functional.leaky_relu(x), skip], 1))
        return x[..., :height, :width].reshape(*z.shape[:2], -1, height, width)


class PublishedDiscriminator(nn.Module):
    """Discriminator: four convolutions at full resolution and in halves, four that double the channels, and a
    linear map of all that is left. It has no normalisation.

    Args:
        in_channels: of image and mask together.
        width: channels of the first convolutions.

    Example:
        >>> PublishedDiscriminator(3, 8)(torch.zeros(2, 3, 17, 1)).shape
        torch.Size([2, 1])
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (in_channels, width, width):
            layers += [*_padded(inputs, width), nn.LeakyReLU(SLOPE)]
        layers.append(nn.ReflectionPad2d(1))
        widths = (width, width, 2 * width, 4 * width, 8 * width, width)
        for place, pair in enumerate(zip(widths, widths[1:], strict=False)):
            stride, bias = 2 if place < 3 else 1, place in (0, 4)
            layers += [nn.Conv2d(*pair, 4, stride=stride, padding=1, bias=bias), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(width * GRID**2, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits ``(B, 1)``."""
        x = self.layers(extend(maps, LEAST_SIDE))
        if x.shape[2:] != (GRID, GRID):
            x = functional.adaptive_avg_pool2d(x, GRID)
        out: Tensor = self.out(x.flatten(1))
        return out
