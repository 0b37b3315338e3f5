"""The way down of the plain U-Net on its own: images to one vector each, as latent-variable methods need it.

Kohl et al. (2018), "A probabilistic U-Net for segmentation of ambiguous images", section 2: prior and
posterior net are encoders shaped like that of the U-Net, with a global average over positions at their end.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import ResidualBlock, check_channels, extend, group_norm


class Encoder(nn.Module):
    """Maps ``(B, C, H, W)`` to ``(B, out_channels)``.

    Args:
        in_channels: channels C.
        settings: width, depth and the rest, as of the U-Net beside it.

    Raises:
        AmbisegError: an image with another number of channels.

    Example:
        >>> import torch
        >>> Encoder(3, UNetSettings(width=8, depth=3))(torch.zeros(2, 3, 13, 1)).shape
        torch.Size([2, 32])
    """

    def __init__(self, in_channels: int, settings: UNetSettings | None = None) -> None:
        super().__init__()
        s = settings or UNetSettings()
        widths = [min(s.width * 2**level, s.max_width) for level in range(s.depth)]
        self.in_channels, self.out_channels, self.depth = in_channels, widths[-1], s.depth
        layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], 3, padding=1)]
        for level, w in enumerate(widths):
            layers += [ResidualBlock(w, w, s.dropout) for _ in range(s.blocks)]
            if level + 1 < s.depth:
                layers.append(nn.Conv2d(w, widths[level + 1], 3, stride=2, padding=1))
        self.layers, self.norm = nn.Sequential(*layers), group_norm(widths[-1])

    def forward(self, images: Tensor) -> Tensor:
        check_channels(images, self.in_channels)
        out: Tensor = functional.silu(self.norm(self.layers(extend(images, 2 ** (self.depth - 1))))).mean(
            (2, 3)
        )
        return out
