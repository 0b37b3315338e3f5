"""The way down of a network on its own: images to one vector each, as latent-variable methods need it.

Kohl et al. (2018), "A probabilistic U-Net for segmentation of ambiguous images", section 2: prior and
posterior net are encoders shaped like that of the U-Net, with a global average over positions at their end.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.networks.phiseg import PHiSegEncoder
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import ResidualBlock, check_channels, extend, group_norm, level_widths


def encoder_like(in_channels: int, settings: UNetSettings) -> Encoder | PHiSegEncoder:
    """The way down of the network that the settings name.

    Raises:
        AmbisegError: a kind of network whose way down is not offered on its own.

    Example:
        >>> encoder_like(3, UNetSettings(kind="phiseg", width=8, depth=3)).out_channels
        32
    """
    if settings.kind == "phiseg":
        return PHiSegEncoder(in_channels, settings)
    if settings.kind == "unet":
        return Encoder(in_channels, settings)
    raise AmbisegError(
        f"the network {settings.kind} has no encoder of its own for a latent: leave --set same_encoder out,"
        " or choose --set backbone.kind=unet or phiseg"
    )


class Encoder(nn.Module):
    """That of `ambiseg.networks.unet`: maps ``(B, C, H, W)`` to ``(B, out_channels)``.

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
        widths = level_widths(s)
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
