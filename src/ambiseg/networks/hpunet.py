"""The U-Net of the hierarchical probabilistic U-Net: residual blocks without normalisation.

Kohl, Romera-Paredes, Maier-Hein, Rezende, Eslami, Kohli, Zisserman and Ronneberger (2019), "A hierarchical
probabilistic U-Net for modeling multi-scale ambiguities", in the form of their public code: eight resolutions of 24,
48, 96 and then 192 channels, at each three blocks on both sides; average pooling on the way down, nearest-neighbour
upsampling on the way up. A block of c channels has three 3x3 convolutions of c/2 channels and a 1x1 convolution,

    h = skip(x) + conv1(conv3(relu(conv3(relu(conv3(relu(x)))))))

Weights start orthogonal, biases near zero, so blocks without normalisation neither fade nor grow much.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.base import Backbone, Encoded, repeated
from ambiseg.networks.phiseg import refuse
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels, extend, level_widths

CONVOLUTIONS = 3
"""3x3 convolutions of a block."""
START_OF_BIASES = 1e-3
"""Standard deviation that biases start with."""


class Block(nn.Module):
    """A residual block that begins with its activation.

    Args:
        inputs, outputs: channels; the 3x3 convolutions have half of ``outputs``.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = max(1, outputs // 2)
        widths = [inputs, *[inner] * CONVOLUTIONS]
        layers = [nn.Conv2d(*pair, 3, padding=1) for pair in zip(widths, widths[1:], strict=False)]
        self.convolutions = nn.Sequential(*(part for layer in layers for part in (nn.ReLU(), layer)))
        self.widen = nn.Conv2d(inner, outputs, 1) if inner != outputs else nn.Identity()
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip(x) + self.widen(self.convolutions(x))
        return out


def blocks(inputs: int, outputs: int, count: int) -> nn.Sequential:
    """As many `Block`, one after the other."""
    return nn.Sequential(*(Block(inputs if i == 0 else outputs, outputs) for i in range(count)))


class HPUNet(Backbone):
    """Images ``(B, C, H, W)`` to features ``(B, width, H, W)``; the paper's has ``width=24, depth=8, blocks=3,
    factors=(1, 2, 4, 8)``.

    Args:
        in_channels: image channels C.
        settings: width, depth, blocks, max_width or factors; no attention, no dropout.
        time: must be False, the network has no place for a time.
        latents: channels that a method concatenates with what layer q of the decoder begins with; none where there are
            fewer entries than layers.

    Raises:
        AmbisegError: settings that it has no use for, or an image with another number of channels.

    Example:
        >>> net = HPUNet(3, UNetSettings(kind="hpunet", width=4, depth=3))
        >>> net(torch.zeros(2, 3, 13, 21)).shape, net.widths
        (torch.Size([2, 4, 13, 21]), (4, 8, 16))
    """

    def __init__(
        self,
        in_channels: int,
        settings: UNetSettings | None = None,
        time: bool = False,
        latents: Sequence[int] = (),
    ) -> None:
        super().__init__()
        s = settings or UNetSettings(kind="hpunet", width=24, depth=8, blocks=3, factors=(1, 2, 4, 8))
        refuse(s, "hpunet", time, attention=False, dropout=0.0)
        self.widths = tuple(level_widths(s))
        self.in_channels, self.out_channels, self.depth = in_channels, s.width, s.depth
        pairs = list(zip((in_channels, *self.widths), self.widths, strict=False))
        self.encoder = nn.ModuleList(blocks(*pair, s.blocks) for pair in pairs)
        more = [*latents, *[0] * s.depth]
        self.decoder = nn.ModuleList(
            blocks(upper + lower + more[s.depth - 2 - level], upper, s.blocks)
            for level, (upper, lower) in enumerate(pairs[1:])
        )
        start_orthogonal(self)

    def encoder_parts(self) -> list[nn.Module]:
        return [self.encoder]

    def innermost_parts(self, levels: int) -> list[nn.Module]:
        return [*self.encoder[-levels:], *self.decoder[-levels:]]

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        check_channels(images, self.in_channels)
        x, levels = extend(images, 2 ** (self.depth - 1)), list[Tensor]()
        for level, part in enumerate(self.encoder):
            x = part(functional.avg_pool2d(x, 2) if level else x)
            levels.append(x)
        return Encoded(levels, levels[:-1], None, (images.shape[-2], images.shape[-1]))

    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        x = encoded.levels[-1] if x is None else x
        for layer in range(first, self.depth - 1 if last is None else last):
            level = self.depth - 2 - layer
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.decoder[level](torch.cat([x, repeated(encoded.skips[level], x)], 1))
        if last is not None:
            return x
        height, width = encoded.size
        return x[..., :height, :width]


@torch.no_grad()
def start_orthogonal(module: nn.Module) -> None:
    """New weights for all convolutions of a module: orthogonal, with biases near zero (the public code of the paper)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.trunc_normal_(
                    layer.bias, std=START_OF_BIASES, a=-2 * START_OF_BIASES, b=2 * START_OF_BIASES
                )
