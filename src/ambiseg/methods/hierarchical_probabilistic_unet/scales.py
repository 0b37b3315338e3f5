"""The latents of a decoder: a normal distribution at each of its coarsest scales, given the latents above."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ambiseg.distributions.latent import Gaussian
from ambiseg.errors import AmbisegError
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.base import Backbone, Encoded, repeated
from ambiseg.networks.hpunet import HPUNet
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.truncated import truncated

SCALES = 4
"""Latent scales where none are named, or fewer where the network has less room (the paper's LIDC experiment)."""


def latents_of(latents: Sequence[int], depth: int, kind: str) -> tuple[int, ...]:
    """Channels of the latent at each scale.

    Args:
        latents: of the settings; empty for one channel at up to `SCALES` scales.
        depth: resolutions of the network: all but the finest one have room for a latent.
        kind: of the network, for messages.

    Raises:
        AmbisegError: more scales than the network has room for.

    Example:
        >>> latents_of((), 3, "unet"), latents_of((2, 1), 3, "unet")
        ((1, 1), (2, 1))
    """
    room = depth - 1
    if room < 1:
        raise AmbisegError(
            f"the network {kind} has one resolution and no room for a latent: choose --set backbone.depth=2 or more"
        )
    if len(latents) > room:
        raise AmbisegError(
            f"latents has {len(latents)} scales, but a network of {depth} resolutions has room for {room}: name fewer,"
            f" or give --set backbone.depth={len(latents) + 1}"
        )
    return tuple(latents) or (1,) * min(SCALES, room)


def prior_network(
    in_channels: int, settings: UNetSettings, latents: Sequence[int]
) -> tuple[Backbone, tuple[int, ...]]:
    """The network that the settings name, and the channels of its latents (`latents_of`)."""
    if settings.kind == "hpunet":
        found = latents_of(latents, settings.depth, settings.kind)
        return HPUNet(in_channels, settings, latents=found), found
    network = build_backbone(in_channels, settings)
    return network, latents_of(latents, network.depth, settings.kind)


def posterior_network(in_channels: int, settings: UNetSettings, latents: Sequence[int]) -> Backbone:
    """Another one, whose decoder ends where the last latent is read."""
    last = len(latents) - 1
    if settings.kind != "hpunet":
        return truncated(build_backbone(in_channels, settings), last)
    network = HPUNet(in_channels, settings, latents=latents[:last])
    for level in range(network.depth - 1 - last):
        network.decoder[level] = nn.Identity()
    return network


class Noise:
    """Latents that are placed by standard normal numbers.

    Args:
        noise: of every scale, ``(B, K, N, h, w)``.

    Attributes:
        placed: the latents so far, ``(B K, N, h, w)``.
    """

    def __init__(self, noise: Sequence[Tensor]) -> None:
        self.noise, self.placed = noise, list[Tensor]()

    def at(self, scale: int, distribution: Gaussian) -> Tensor:
        """The latent of a scale; its distribution is that of each image, or of each of its samples."""
        noise, mean = self.noise[scale], distribution.mean
        z = distribution.place(noise.reshape(len(mean), -1, *noise.shape[2:])).flatten(0, 1)
        self.placed.append(z)
        return z


class Given:
    """Latents that are known, ``(B K, N, h, w)`` of every scale."""

    def __init__(self, latents: Sequence[Tensor]) -> None:
        self.latents = latents

    def at(self, scale: int, distribution: Gaussian) -> Tensor:
        """The latent of a scale."""
        return self.latents[scale]


class Scales(nn.Module):
    """What joins latents to the decoder of a network: 1x1 convolutions that give their distributions, and where the
    network does not concatenate them, 1x1 convolutions that add them to its features.

    Args:
        network: whose decoder it is.
        latents: channels at each scale, the coarsest first.
        joined: how many of them enter the decoder; the last latent of a posterior does not.
        bound: log-variances are ``b tanh(s / b)`` of the s that come out; 0 for s itself.
    """

    def __init__(self, network: Backbone, latents: Sequence[int], joined: int, bound: float) -> None:
        super().__init__()
        widths = [network.up_widths[network.depth - 1 - i] for i in range(len(latents))]
        pairs = list(zip(widths, latents, strict=True))
        self.out = nn.ModuleList(nn.Conv2d(width, 2 * channels, 1) for width, channels in pairs)
        concatenated = isinstance(network, HPUNet)
        self.join = nn.ModuleList(
            nn.Identity() if concatenated else nn.Conv2d(channels, width, 1)
            for width, channels in pairs[:joined]
        )
        self.concatenated, self.bound = concatenated, bound

    def forward(
        self, network: Backbone, encoded: Encoded, latents: Noise | Given
    ) -> tuple[Tensor, list[Gaussian]]:
        """The decoder's features at the finest scale with a latent ``(B K, F, h, w)``, that one joined, and the
        distribution of every scale: of each image at the coarsest, of each sample at the others."""
        x, found = encoded.levels[-1], list[Gaussian]()
        for scale in range(len(self.out)):
            if scale:
                x = network.decode(encoded, x, scale - 1, scale)
            found.append(self._distribution(scale, x))
            z = latents.at(scale, found[-1])
            if scale < len(self.join):
                x = self._joined(scale, repeated(x, z), z)
        return x, found

    def _distribution(self, scale: int, x: Tensor) -> Gaussian:
        """Of features: mu, and the log-variance as twice what the convolution gives for log sigma."""
        with torch.autocast(x.device.type, enabled=False):
            mean, spread = self.out[scale](x.float()).chunk(2, 1)
            log_variance = 2 * spread
            if self.bound:
                log_variance = self.bound * (log_variance / self.bound).tanh()
            return Gaussian(mean, log_variance)

    def _joined(self, scale: int, x: Tensor, z: Tensor) -> Tensor:
        if self.concatenated:
            return torch.cat([z.to(x.dtype), x], 1)
        added: Tensor = x + self.join[scale](z.to(x.dtype))
        return added
