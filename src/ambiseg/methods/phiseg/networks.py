"""Networks of PHiSeg: prior and posterior over a hierarchy of spatial latents, and the likelihood of masks.

Level l of L latent levels belongs to level ``l + R - L`` of the R levels of an encoder, so latent l has 1 / 2^(l + R - L)
of the height and width of an image; level 0 is the finest. With the channels c_0, ..., c_{R-1} of the encoder, and one
unit of convolution, normalisation and ReLU written as ->,

    [f_{l+R-L}, up z_{l+1} -> N n -> N n] -> c_l -> c_l        features of latent level l < L - 1 (n = c_0, N channels of z)
    mu_l = 1x1 (3x3 at level L - 1),   sigma_l = softplus(1x1)
    p_l = z_l -> c_l -> c_l (up -> c_l) (R - L times)          a map of 1 / 2^l of the image
    m_{L-1} = p_{L-1},   m_l = [p_l, up m_{l+1} -> c_l] -> c_{l+R-L} -> c_{l+R-L}
    s_l = up(1x1 of m_l)                                        logits of level l, repeated to the size of the image

as in the public code of Baumgartner et al. (2019). `up` is bilinear but for s_l.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.distributions.latent import Gaussian
from ambiseg.networks.base import repeated
from ambiseg.networks.phiseg import unit
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import group_norm

LEAST_SIGMA = 1e-5
"""Added to the standard deviations; the public code adds 1e-10 to the variances."""

Place = Callable[[int, Gaussian], Tensor]
"""Latents ``(n, N, h, w)`` of a level with that distribution; n is a multiple of the number of its images."""


def units(widths: Sequence[int], backbone: UNetSettings) -> nn.Sequential:
    """3x3 convolutions from each width to the next, with normalisation and ReLU: those of the network phiseg where that
    is the backbone, else with GroupNorm."""
    pairs = zip(widths, widths[1:], strict=False)
    if backbone.kind == "phiseg":
        return nn.Sequential(*(layer for pair in pairs for layer in unit(*pair, backbone.convolutions)))
    layers = [[nn.Conv2d(*pair, 3, padding=1), group_norm(pair[1]), nn.ReLU()] for pair in pairs]
    return nn.Sequential(*(layer for group in layers for layer in group))


def doubled(x: Tensor) -> Tensor:
    """A map of twice the height and width, bilinear."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Hierarchy(nn.Module):
    """Prior or posterior: distributions of the latents of every level, each given that of the level below.

    Args:
        widths: channels of the encoder.
        levels: L.
        channels: N of each latent.
        backbone: kind of the convolutions.
    """

    def __init__(self, widths: Sequence[int], levels: int, channels: int, backbone: UNetSettings) -> None:
        super().__init__()
        self.offset = len(widths) - levels
        broad, upper = channels * widths[0], range(levels - 1)
        self.up = nn.ModuleList(units([channels, broad, broad], backbone) for _ in upper)
        self.merge = nn.ModuleList(
            units([widths[i + self.offset] + broad, widths[i], widths[i]], backbone) for i in upper
        )
        entering = [*widths[: levels - 1], widths[-1]]
        self.mean = nn.ModuleList(
            nn.Conv2d(c, channels, kernel, padding=kernel // 2)
            for c, kernel in zip(entering, [1] * (levels - 1) + [3], strict=True)
        )
        self.spread = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in entering)

    def forward(self, maps: Sequence[Tensor], place: Place) -> tuple[list[Tensor], list[Gaussian]]:
        """Latents and their distributions, from the finest level on; they are found from the coarsest one on.

        Args:
            maps: of all levels of the encoder ``(B, c, h, w)``.
            place: says where in its distribution a latent lies.
        """
        latents, found = list[Tensor](), list[Gaussian]()
        for level in reversed(range(len(self.mean))):
            x = maps[level + self.offset]
            if latents:
                below = self.up[level](doubled(latents[0]))
                x = self.merge[level](torch.cat([repeated(x, below), below], 1))
            found.insert(0, self._gaussian(level, x))
            latents.insert(0, place(level, found[0]))
        return latents, found

    def _gaussian(self, level: int, x: Tensor) -> Gaussian:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            sigma = functional.softplus(self.spread[level](x)) + LEAST_SIGMA
            return Gaussian(self.mean[level](x), 2 * sigma.log())


class Likelihood(nn.Module):
    """Latents of all levels to the logits that every level adds.

    Args:
        widths: channels of the encoder.
        levels: L.
        channels: N of each latent.
        outputs: channels C of the logits.
        backbone: kind of the convolutions.
    """

    def __init__(
        self, widths: Sequence[int], levels: int, channels: int, outputs: int, backbone: UNetSettings
    ) -> None:
        super().__init__()
        offset = len(widths) - levels
        self.first = nn.ModuleList(units([channels, w, w], backbone) for w in widths[:levels])
        self.larger = nn.ModuleList(
            nn.ModuleList(units([w, w], backbone) for _ in range(offset)) for w in widths[:levels]
        )
        merged = [*widths[offset:-1], widths[levels - 1]]
        self.up = nn.ModuleList(units([merged[i + 1], widths[i]], backbone) for i in range(levels - 1))
        self.merge = nn.ModuleList(
            units([2 * widths[i], merged[i], merged[i]], backbone) for i in range(levels - 1)
        )
        self.out = nn.ModuleList(nn.Conv2d(w, outputs, 1) for w in merged)
        self.values = max(*(2 * w for w in widths[:levels]), *merged)

    def forward(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Logits ``(n, C, H / 2^l, W / 2^l)`` float32 of the mask as it is after level l: the sum of what levels L - 1 to
        l add, from the finest level on."""
        masks, x = list[Tensor](), None
        for level in reversed(range(len(latents))):
            own = self.first[level](latents[level])
            for layer in self.larger[level]:  # type: ignore[attr-defined]
                own = layer(doubled(own))
            x = own if x is None else self.merge[level](torch.cat([own, self.up[level](doubled(x))], 1))
            added = self.out[level](x).float()
            masks.insert(0, added + functional.interpolate(masks[0], scale_factor=2.0) if masks else added)
        return masks
