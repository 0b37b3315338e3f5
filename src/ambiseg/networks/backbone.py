"""`build_backbone`: the shared network g of a method, by its settings."""

from __future__ import annotations

from ambiseg.networks.ncsnpp import NCSNpp
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import UNet


def build_backbone(in_channels: int, settings: UNetSettings, time: bool = False) -> UNet | NCSNpp:
    """The network that ``settings.kind`` names: images to features at full resolution, any image size.

    Args:
        in_channels: channels of what goes in.
        settings: kind and size.
        time: whether its ``forward`` takes a time.

    Example:
        >>> build_backbone(3, UNetSettings(kind="ncsnpp", width=8, depth=2)).out_channels
        16
    """
    return (NCSNpp if settings.kind == "ncsnpp" else UNet)(in_channels, settings, time)
