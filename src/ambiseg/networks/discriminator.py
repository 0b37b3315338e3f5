"""A head in the shape of the DCGAN discriminator: maps in, a few numbers out.

After Radford, Metz and Chintala (2015), "Unsupervised representation learning with deep convolutional
generative adversarial networks": 4x4 convolutions of stride 2, LeakyReLU 0.2, normalisation. GroupNorm stands
in for batch normalisation (an image's numbers must not depend on its batch) and the mean over the remaining
positions in front of the last layer admits any image size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.unet import group_norm


class Discriminator(nn.Module):
    """Maps ``(B, C, H, W)`` to ``(B, outputs)``.

    Args:
        in_channels: channels C.
        width: channels after the first convolution; they double at each of the next ones, up to 4 times.
        outputs: numbers per image.

    Example:
        >>> Discriminator(3, 8, 5)(torch.zeros(2, 3, 17, 1)).shape
        torch.Size([2, 5])
    """

    LAYERS = 4

    def __init__(self, in_channels: int, width: int, outputs: int) -> None:
        super().__init__()
        widths = [width * min(2**i, 4) for i in range(self.LAYERS)]
        layers: list[nn.Module] = []
        for i, (inputs, w) in enumerate(zip([in_channels, *widths], widths, strict=False)):
            layers.append(nn.Conv2d(inputs, w, 4, stride=2, padding=1))
            if i:
                layers.append(group_norm(w))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(widths[-1], outputs)

    def forward(self, maps: Tensor) -> Tensor:
        least = 2**self.LAYERS
        # Sizes of an exported model are symbols, of which `max` would take one.
        most: Any = torch.sym_max
        bottom, right = (most(0, least - side) for side in maps.shape[-2:])
        if torch.compiler.is_exporting() or bottom or right:
            maps = functional.pad(maps, (0, right, 0, bottom), mode="replicate")
        out: Tensor = self.out(self.layers(maps).mean((2, 3)))
        return out
