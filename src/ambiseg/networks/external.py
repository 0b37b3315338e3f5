"""Any `torch.nn.Module` as the shared network of a method.

A module that maps images ``(B, C, H, W)`` to features ``(B, F, H, W)`` needs no more than a name:

>>> from torch import nn
>>> from ambiseg.networks.backbone import build_backbone, register_network
>>> from ambiseg.networks.settings import UNetSettings
>>> register_network("two-layers", lambda channels, settings: nn.Sequential(
...     nn.Conv2d(channels, settings.width, 3, padding=1), nn.ReLU()))
>>> build_backbone(3, UNetSettings(kind="two-layers", width=8)).out_channels
8
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.networks.base import Backbone, Encoded
from ambiseg.networks.unet import check_channels

TRIED = 64
"""Height and width of the image in the pass that finds the number of features."""


class ExternalNetwork(Backbone):
    """A module behind the interface of a `Backbone`: one level, whose output is both bottleneck and features.

    Args:
        module: maps ``(B, C, H, W)`` to ``(B, F, H, W)``; F is found by one pass over a black image of 64x64
            pixels.
        in_channels: C.
        kind: what to call it in messages.

    Raises:
        AmbisegError: the module cannot take such images, or returns another shape; later, images of a size
            that it does not keep.
    """

    def __init__(self, module: nn.Module, in_channels: int, kind: str) -> None:
        super().__init__()
        self.module, self.kind, self.in_channels, self.depth = module, kind, in_channels, 1
        training = module.training
        with torch.no_grad():
            try:
                found = module.eval()(torch.zeros(1, in_channels, TRIED, TRIED))
            except Exception as error:
                raise AmbisegError(
                    f"the network {kind} does not take images of shape (1, {in_channels}, {TRIED}, {TRIED})"
                    f" ({type(error).__name__}: {error}): it must map (B, C, H, W) to (B, F, H, W)"
                ) from error
        module.train(training)
        self._check(found, (1, TRIED, TRIED))
        self.out_channels = found.shape[1]
        self.widths = (self.out_channels,)

    def keep_way_down(self) -> None:
        """There is no way up."""

    def encode(self, images: Tensor, time: Tensor | None = None) -> Encoded:
        check_channels(images, self.in_channels)
        features = self.module(images)
        self._check(features, (images.shape[0], *images.shape[2:]))
        return Encoded([features], [], None, (images.shape[-2], images.shape[-1]))

    def decode(
        self, encoded: Encoded, x: Tensor | None = None, first: int = 0, last: int | None = None
    ) -> Tensor:
        return encoded.levels[0] if x is None else x

    def _check(self, found: object, size: tuple[int, ...]) -> None:
        batch, height, width = size
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if not isinstance(shape, tuple) or len(shape) != 4 or (shape[0], *shape[2:]) != size:
            raise AmbisegError(
                f"the network {self.kind} returned {shape} for images of shape ({batch}, {self.in_channels}, {height},"
                f" {width}): it must return features of shape ({batch}, F, {height}, {width})"
            )
