"""`build_backbone`: the shared network g of a method, by its settings."""

from __future__ import annotations

from ambiseg.networks.base import Backbone
from ambiseg.networks.monai_unet import MonaiUNet
from ambiseg.networks.ncsnpp import NCSNpp
from ambiseg.networks.phiseg import PHiSegUNet
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import UNet

NETWORKS: dict[str, type[Backbone]] = {
    "unet": UNet,
    "ncsnpp": NCSNpp,
    "phiseg": PHiSegUNet,
    "monai": MonaiUNet,
}
"""The networks by their kind, all built from channels, settings, and whether they take a time."""


def build_backbone(in_channels: int, settings: UNetSettings, time: bool = False) -> Backbone:
    """The network that ``settings.kind`` names: images to features at full resolution, any image size.

    Args:
        in_channels: channels of what goes in.
        settings: kind and size.
        time: whether its ``forward`` takes a time.

    Raises:
        AmbisegError: settings that do not go with the kind.

    Example:
        >>> build_backbone(3, UNetSettings(kind="ncsnpp", width=8, depth=2)).out_channels
        16
    """
    return NETWORKS[settings.kind](in_channels, settings, time)
