"""The U-Net of nnU-Net as MONAI maintains it (`DynUNet`), as a backbone.

Isensee, Jaeger, Kohl, Petersen and Maier-Hein (2021), "nnU-Net: a self-configuring method for deep
learning-based biomedical image segmentation"; MONAI Consortium, https://monai.io. Two 3x3 convolutions with a
norm and LeakyReLU at every resolution, strided convolutions on the way down, transposed ones on the way up.
GroupNorm stands in for instance normalisation: the mean over positions of an instance-normalised map says
next to nothing of the image, and a map of one pixel has no variance.

MONAI is installed on request (``pip install 'ambiseg[monai]'``) and imported when a network is built.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.networks.base import Backbone, Encoded, repeated
from ambiseg.networks.phiseg import refuse
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels, extend, level_widths

LEAST_DEPTH = 3
"""MONAI's network has at least this many resolutions."""


class MonaiUNet(Backbone):
    """Images ``(B, C, H, W)`` to features ``(B, width, H, W)`` through the blocks of MONAI's `DynUNet`,
    called one by one.

    Args:
        in_channels: image channels C.
        settings: width, depth, max_width, dropout.
        time: must be False, the network has no place for a time.

    Raises:
        AmbisegError: MONAI is not installed, settings without a use here, or an image with another number of
            channels.

    Example:
        >>> import pytest, torch
        >>> _ = pytest.importorskip("monai")
        >>> MonaiUNet(3, UNetSettings(kind="monai", width=4, depth=3))(torch.zeros(1, 3, 13, 21)).shape
        torch.Size([1, 4, 13, 21])
    """

    def __init__(self, in_channels: int, settings: UNetSettings | None = None, time: bool = False) -> None:
        super().__init__()
        s = settings or UNetSettings(kind="monai")
        refuse(s, "monai", time, blocks=1, attention=False)
        if s.depth < LEAST_DEPTH:
            raise AmbisegError(
                f"the network monai has {LEAST_DEPTH} resolutions or more, received depth {s.depth}: raise --set backbone.depth"
            )
        self.widths = tuple(level_widths(s))
        self.in_channels, self.out_channels, self.depth = in_channels, self.widths[0], s.depth
        common = math.gcd(*self.widths)
        net = _dyn_unet()(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=1,
            kernel_size=[3] * s.depth,
            strides=[1] + [2] * (s.depth - 1),
            upsample_kernel_size=[2] * (s.depth - 1),
            filters=self.widths,
            dropout=s.dropout or None,
            norm_name=("group", {"num_groups": common // 16 if common % 16 == 0 else 1}),
        )
        self.encoder = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])
        self.decoder = nn.ModuleList(net.upsamples)

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        check_channels(images, self.in_channels)
        x, levels = extend(images, 2 ** (self.depth - 1)), []
        for block in self.encoder:
            x = block(x)
            levels.append(x)
        return Encoded(levels, levels[:-1], None, (images.shape[-2], images.shape[-1]))

    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        x = encoded.levels[-1] if x is None else x
        for layer in range(first, self.depth - 1 if last is None else last):
            x = self.decoder[layer](x, repeated(encoded.skips[-1 - layer], x))
        if last is not None:
            return x
        height, width = encoded.size
        return x[..., :height, :width]


def _dyn_unet() -> Any:
    try:
        from monai.networks.nets import DynUNet
    except ImportError as error:
        raise AmbisegError(
            "the network monai needs the package monai, which is not installed: pip install 'ambiseg[monai]'"
        ) from error
    return DynUNet
