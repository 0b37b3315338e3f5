"""The refinement network on a network of the library: a latent that enters the last layers of its decoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.base import Encoded
from ambiseg.networks.settings import UNetSettings

SLOPE = 0.2
"""Of the leaky ReLU behind the noise."""


class Injection(nn.Module):
    """``W ((u + a z) * (s z)) + c`` of features u and latents z: shift, scale and a 1x1 convolution.

    Args:
        channels: F of the features.
        size: dimensions L of the latent.
        outputs: channels behind it.
        scale: s z at the start. With 0, as in the public code, samples start with a mean that knows nothing of
            the image, since features change their sign with the noise.

    Example:
        >>> import torch
        >>> Injection(8, 2, 3)(torch.zeros(2, 8, 5, 4), torch.zeros(2, 6, 2)).shape
        torch.Size([12, 3, 5, 4])
    """

    def __init__(self, channels: int, size: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        self.shift, self.scale = nn.Linear(size, channels), nn.Linear(size, channels)
        for layer in (self.shift, self.scale):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.scale.bias, scale)
        self.last = nn.Conv2d(channels, outputs, 1)
        nn.init.orthogonal_(self.last.weight)

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """``(B N, outputs, h, w)`` for features ``(B or B N, F, h, w)`` and latents ``(B, N, L)``."""
        shift, scale = (layer(z)[..., None, None] for layer in (self.shift, self.scale))
        fused = (u.reshape(z.shape[0], -1, *u.shape[1:]) + shift) * scale
        out: Tensor = self.last(fused.flatten(0, 1))
        return out


class Refinement(nn.Module):
    """G on a network of the library, with `Injection` behind the last layers of the decoder.

    What lies in front of the first of them is computed once for all samples of an image.

    Args:
        in_channels: of images and probabilities together.
        outputs: channels C of the logits.
        size: dimensions L of the latent.
        layers: how many layers have noise; all of the decoder where it has fewer.
        backbone: the network.
    """

    def __init__(
        self, in_channels: int, outputs: int, size: int, layers: int, backbone: UNetSettings
    ) -> None:
        super().__init__()
        self.network = build_backbone(in_channels, backbone)
        self.last = self.network.depth - 1
        self.layers = range(max(min(1, self.last), self.last - layers + 1), self.last + 1)
        self.values_of_a_pixel = (1 if len(self.layers) == 1 else 4) * self.network.out_channels
        widths = [self._width(layer) for layer in self.layers]
        self.inject = nn.ModuleList(
            Injection(w, size, outputs if layer == self.last else w)
            for layer, w in zip(self.layers, widths, strict=True)
        )

    def _width(self, layer: int) -> int:
        return self.network.out_channels if layer == self.last else self.network.up_widths[self.last - layer]

    def _stop(self, layer: int) -> int | None:
        return None if layer == self.last else layer

    def encode(self, x: Tensor) -> tuple[Encoded, Tensor]:
        """What all samples of an image share."""
        encoded = self.network.encode(x)
        return encoded, self.network.decode(encoded, last=self._stop(self.layers[0]))

    def decode(self, shared: tuple[Encoded, Tensor], z: Tensor) -> Tensor:
        """Logits ``(B, N, C, H, W)`` of latents ``(B, N, L)``."""
        encoded, x = shared
        for layer, inject in zip(self.layers, self.inject, strict=True):
            x = inject(x, z)
            if layer < self.last:
                x = self.network.decode(
                    encoded, functional.leaky_relu(x, SLOPE), layer, self._stop(layer + 1)
                )
        return x.reshape(*z.shape[:2], *x.shape[1:])
