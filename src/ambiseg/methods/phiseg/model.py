"""PHiSeg: a conditional variational autoencoder whose latents are maps at several resolutions, each of which refines the
mask.

Baumgartner, Tezcan, Chaitanya, Hötker, Muehlematter, Schawkat, Becker, Donati and Konukoglu (2019), "PHiSeg: capturing
uncertainty in medical image segmentation". Notation as there, levels counted from 0 as in the public code: image x, mask
s, latents z_0 (finest) to z_{L-1} (coarsest), prior p, posterior q.

    p(s|x) = int p(s|z_0, ..., z_{L-1}) p(z_0|z_1, x) ... p(z_{L-2}|z_{L-1}, x) p(z_{L-1}|x) dz                 (1)
    p(z_l|z_{l+1}, x) = N(phi_l(z_{l+1}, x)),    q(z_l|z_{l+1}, s, x) = N(theta_l(z_{l+1}, s, x))               (2)
    S_l = S_{l+1} + s_l(z_l, ..., z_{L-1}),    S_{L-1} = s_{L-1}              logits, refined level by level    (3)
    L = sum_l E_q[-log p(s|S_l)] + beta sum_l a_l E_q[KL(q(z_l|z_{l+1}, s, x) || p(z_l|z_{l+1}, x))]            (4)

S_0 is the mask. The cross-entropy of every level counts (deep supervision), each against the whole mask s. The latents
z_l are spatial, so the divergence of a level is a sum over its positions, and a level has four times as many as the
next coarser one: the weights are a_l = 4^l (`PHiSegSettings.level_factor`). In training the prior of a level is given
the posterior's latent of the next coarser one; in sampling its own.

(4) is summed over the pixels of a batch that are not void and divided by their number (`ambiseg.losses.evidence`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.distributions.latent import Gaussian, centred, hierarchy_kl
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import part_sizes
from ambiseg.methods.latent_variable import LatentVariableSegmenter, check_count, check_weights
from ambiseg.methods.phiseg import PHiSegSettings
from ambiseg.methods.phiseg.networks import Hierarchy, Likelihood, Place
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.base import Backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


@dataclass(frozen=True, eq=False)
class Seen:
    """What all samples of images share: maps of the encoder, and the size of the images."""

    maps: list[Tensor]
    size: tuple[int, int]


class PHiSeg(LatentVariableSegmenter):
    """PHiSeg (Baumgartner et al. 2019).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: its way down is the encoder of prior and posterior; its channels are those of the other parts.
        settings: latents, weights of the losses, number of samples.

    Raises:
        AmbisegError: settings out of their range, more latent levels than the network has resolutions, or a network
            whose levels cannot be had alone.

    Example:
        >>> small = UNetSettings(width=8, depth=3)
        >>> model = PHiSeg(3, LabelSpace.binary(), small, PHiSegSettings(latent_levels=2))
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: PHiSegSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: PHiSegSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        _check(settings)
        self.g = _way_down(in_channels, backbone)
        self.h = _way_down(in_channels + labels.channels, backbone)
        widths, channels = self.g.widths, settings.latent_channels
        self.levels = latent_levels(settings.latent_levels, len(widths))
        self.prior = Hierarchy(widths, self.levels, channels, backbone)
        self.posterior = Hierarchy(widths, self.levels, channels, backbone)
        self.likelihood = Likelihood(widths, self.levels, channels, labels.channels, backbone)
        self.part_weights = tuple(settings.level_factor**level for level in range(self.levels))

    @property
    def export_obstacle(self) -> str:
        return "its random numbers are maps at several resolutions, whose sizes a graph cannot take from the image"

    # -- the networks ----------------------------------------------------------------------------------------

    def encode(self, images: Tensor) -> Seen:
        """Maps of all levels, of which the prior (2) needs the coarsest L."""
        encoded = self.g.encode(images)
        return Seen(encoded.levels, encoded.size)

    def _seen_with(self, images: Tensor, masks: Tensor) -> list[Tensor]:
        """Maps of the posterior's encoder for label maps ``(B, H, W)``: s enters as one-hot channels less one half, 0
        where void."""
        check_channels(images, self.in_channels)
        seen = torch.cat([images, centred(masks, self.labels).to(images.dtype)], 1)
        levels: list[Tensor] = self.h.encode(seen).levels
        return levels

    def _logits(
        self, latents: Sequence[Tensor], size: tuple[int, int], all_levels: bool = False
    ) -> list[Tensor]:
        """Logits ``(n, C, H, W)`` of the masks after every level (3), or of the finest level alone."""
        height, width = size
        found = self.likelihood(latents)
        full = [
            functional.interpolate(s, scale_factor=2.0**level) if level else s
            for level, s in enumerate(found if all_levels else found[:1])
        ]
        return [s[..., :height, :width] for s in full]

    def explained_levels(
        self, shared: Seen, images: Tensor, masks: Tensor, place: Place, all_levels: bool = True
    ) -> tuple[list[Tensor], Tensor]:
        """Logits of the masks after every level, and the divergence of every level ``(B, L)``, for latents that ``place``
        takes from the posterior."""
        latents, posteriors = self.posterior(self._seen_with(images, masks), place)
        _, priors = self.prior(shared.maps, lambda level, _: latents[level])
        return self._logits(latents, shared.size, all_levels), hierarchy_kl(posteriors, priors)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """The loss (4) in nats per pixel that is not void, its parts in nats per image; the cross-entropy is that of
        all levels together."""
        masks = annotations.sample_one().masks[:, 0]
        deep = self.settings.deep_supervision
        logits, divergence = self.explained_levels(self.encode(images), images, masks, _drawn, deep)
        with torch.autocast(images.device.type, enabled=False):
            nats = torch.stack([cross_entropy(s, masks, self.labels) for s in logits]).sum(0)
            return self.bound(nats, divergence, masks)

    # -- what `LatentVariableSegmenter` asks for -------------------------------------------------------------

    def explained(
        self, shared: Seen, images: Tensor, masks: Tensor, mean: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits of a sample of the posterior, or of its means, and the divergence of every level ``(B, L)``."""
        place = _at_mean if mean else _drawn
        logits, divergence = self.explained_levels(shared, images, masks, place, all_levels=False)
        return logits[0], divergence

    def drawn(self, shared: Seen, samples: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Logits of samples (1, 3)."""
        for noise in self._parts(shared, samples, generator):
            latents, _ = self.prior(shared.maps, _from(noise))
            yield self._unfolded(self._logits(latents, shared.size)[0], shared)

    def weighed(
        self, shared: Seen, images: Tensor, masks: Tensor, samples: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits of samples of the posterior, and log p - log q of their latents, summed over the levels."""
        maps = self._seen_with(images, masks)
        for noise in self._parts(shared, samples, generator):
            latents, posteriors = self.posterior(maps, _from(noise))
            _, priors = self.prior(shared.maps, lambda level, _, given=latents: given[level])
            ratio = torch.stack(
                [
                    _log_prob(p, z) - _log_prob(q, z)
                    for p, q, z in zip(priors, posteriors, latents, strict=True)
                ]
            ).sum(0)
            yield self._unfolded(self._logits(latents, shared.size)[0], shared), self._unfolded(ratio, shared)

    def _parts(self, shared: Seen, samples: int, generator: torch.Generator | None) -> Iterator[list[Tensor]]:
        """Noise ``(B, k, N, h, w)`` of the latents of every level, for a few of the samples at a time; all of it is drawn
        before."""
        maps = shared.maps[-self.levels :]
        noise = [
            standard_normal(
                (len(x), samples, self.settings.latent_channels, *x.shape[2:]), x.device, generator
            )
            for x in maps
        ]
        height, width = (side << (len(shared.maps) - self.levels) for side in maps[0].shape[2:])
        sizes = part_sizes(samples, len(maps[0]) * self.likelihood.values * height * width)
        yield from map(list, zip(*(torch.split(one, sizes, 1) for one in noise), strict=True))

    @staticmethod
    def _unfolded(value: Tensor, shared: Seen) -> Tensor:
        """``(B k, ...)`` as ``(B, k, ...)``."""
        return value.reshape(len(shared.maps[0]), -1, *value.shape[1:])


def latent_levels(asked: int, depth: int) -> int:
    """Number of latent levels for an encoder of so many levels; 0 asks for two fewer, at least one.

    Raises:
        AmbisegError: more latent levels than levels.

    Example:
        >>> latent_levels(0, 7), latent_levels(0, 2), latent_levels(3, 4)
        (5, 1, 3)
    """
    if asked > depth:
        raise AmbisegError(
            f"latent_levels {asked} is above the {depth} resolutions of the network: choose"
            f" --set latent_levels={depth} or less, or --set backbone.depth={asked} or more"
        )
    return asked or max(1, depth - 2)


def _way_down(in_channels: int, backbone: UNetSettings) -> Backbone:
    network = build_backbone(in_channels, backbone)
    network.keep_way_down()
    return network


def _drawn(level: int, distribution: Gaussian) -> Tensor:
    return distribution.place(torch.randn_like(distribution.mean)[:, None])[:, 0]


def _at_mean(level: int, distribution: Gaussian) -> Tensor:
    return distribution.mean


def _from(noise: Sequence[Tensor]) -> Place:
    """Latents by given noise ``(B, k, N, h, w)`` of every level: ``(B k, N, h, w)``."""

    def place(level: int, distribution: Gaussian) -> Tensor:
        one = noise[level]
        return distribution.place(one.reshape(len(distribution.mean), -1, *one.shape[2:])).flatten(0, 1)

    return place


def _log_prob(distribution: Gaussian, z: Tensor) -> Tensor:
    """Log-density of latents ``(n, N, h, w)``, of which each distribution has the same number: ``(n,)``."""
    return distribution.log_prob(z.reshape(len(distribution.mean), -1, *z.shape[1:])).flatten()


def _check(s: PHiSegSettings) -> None:
    """Raise `AmbisegError` where a setting is out of its range."""
    check_weights(s)
    check_count("latent_channels", s.latent_channels)
    if s.latent_levels < 0:
        raise AmbisegError(f"latent_levels is 0 or more, received {s.latent_levels}")
    if not s.level_factor > 0:
        raise AmbisegError(f"level_factor is above 0, received {s.level_factor}")
