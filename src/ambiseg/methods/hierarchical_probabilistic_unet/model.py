"""Hierarchical probabilistic U-Net: latents on several scales of the decoder say which of the plausible masks to draw.

Kohl, Romera-Paredes, Maier-Hein, Rezende, Eslami, Kohli, Zisserman and Ronneberger (2019), "A hierarchical
probabilistic U-Net for modeling multi-scale ambiguities". Notation as there: image X, mask Y, latents z_0 to z_L, each
a grid of the size of its scale, the coarsest first; prior P, posterior Q.

    z_i ~ P(z_i|z_<i, X) = N(mu_prior(z_<i, X), diag(sigma_prior(z_<i, X)))              the decoder of a U-Net
    Y' = S(X, z_0, ..., z_L)                                                             its end
    z_i ~ Q(z_i|z_<i, X, Y) = N(mu_post(z_<i, X, Y), diag(sigma_post(z_<i, X, Y)))       that of a second U-Net
    KL(Q || P) = sum_i E_{z_<i ~ Q} KL(Q(z_i|z_<i, X, Y) || P(z_i|z_<i, X))

At every scale a 1x1 convolution of the decoder's features gives mu and log sigma, and the latent is concatenated with
these features before they are upsampled. In training the posterior's latents enter the prior's decoder. Networks that
were not made for it (all but ``hpunet``) get the latent by a 1x1 convolution that is added to the features, which is the
same where a linear layer follows.

    L_rec = sum of -log P(Y|X, z) over 2 % of the pixels, drawn in proportion to it      `ambiseg.losses.hard_pixels`
    min sum_i KL_i   subject to   L_rec <= kappa per drawn pixel                         `ambiseg.losses.evidence.Geco`

or the bound ``L_rec + beta sum_i KL_i``. The encoder and the first distribution are computed once for all samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ambiseg.distributions.latent import Gaussian, centred, hierarchy_kl
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.evidence import Geco
from ambiseg.losses.hard_pixels import hard_pixels
from ambiseg.losses.mask_losses import pixel_cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import network_parts
from ambiseg.methods.hierarchical_probabilistic_unet import HierarchicalProbabilisticUNetSettings
from ambiseg.methods.hierarchical_probabilistic_unet.scales import (
    Given,
    Noise,
    Scales,
    posterior_network,
    prior_network,
)
from ambiseg.methods.latent_variable import LatentVariableSegmenter, check_weights
from ambiseg.networks.base import Encoded
from ambiseg.networks.hpunet import HPUNet, start_orthogonal
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


class HierarchicalProbabilisticUNet(LatentVariableSegmenter):
    """A U-Net with a hierarchical conditional variational autoencoder (Kohl et al. 2019).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: the U-Net of prior and posterior; the paper's is ``kind="hpunet"``.
        settings: latents, constraint or weight of the losses, share of the pixels, number of samples.

    Attributes:
        latents: channels of the latent at each scale, the coarsest first.

    Raises:
        AmbisegError: settings out of their range, or more scales than the network has room for.

    Example:
        >>> small = UNetSettings(width=8, depth=3)
        >>> settings = HierarchicalProbabilisticUNetSettings()
        >>> model = HierarchicalProbabilisticUNet(3, LabelSpace.binary(), small, settings)
        >>> model.latents, model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        ((1, 1), torch.Size([2, 4, 17, 23]))
    """

    settings: HierarchicalProbabilisticUNetSettings
    passes_for_each_mask = True

    def __init__(
        self,
        in_channels: int,
        labels: LabelSpace,
        backbone: UNetSettings,
        settings: HierarchicalProbabilisticUNetSettings,
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        _check(settings)
        s, kind = settings, self.backbone
        self.g, self.latents = prior_network(in_channels, kind, s.latents)
        self.posterior = posterior_network(in_channels + labels.channels, kind, self.latents)
        count, bound = len(self.latents), s.log_variance_bound
        self.prior_scales = Scales(self.g, self.latents, count, bound)
        self.posterior_scales = Scales(self.posterior, self.latents, count - 1, bound)
        self.head = self.g.head(labels.channels, 1)
        if isinstance(self.g, HPUNet):
            for part in (self.prior_scales, self.posterior_scales, self.head):
                start_orthogonal(part)
        if s.constraint == "geco":
            self.geco = Geco(s.geco_target, s.geco_speed, s.geco_memory)

    @property
    def export_obstacle(self) -> str:
        return "its random numbers are maps at several resolutions, whose sizes a graph cannot take from the image"

    # -- the networks ----------------------------------------------------------------------------------------

    def _decoded(self, encoded: Encoded, latents: Noise | Given) -> tuple[Tensor, list[Gaussian]]:
        """Logits ``(B K, C, H, W)`` float32 and the prior of every scale, given the latents above it."""
        x, priors = self.prior_scales(self.g, encoded, latents)
        features = self.g.decode(encoded, x, len(self.latents) - 1)
        return self.head(features).float(), priors

    def _explained(
        self, images: Tensor, masks: Tensor, noise: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Gaussian]]:
        """The posterior's latents ``(B K, N, h, w)`` and its distribution at every scale; Y enters as one-hot channels
        less one half, 0 where void."""
        check_channels(images, self.in_channels)
        seen = torch.cat([images, centred(masks, self.labels).to(images.dtype)], 1)
        latents = Noise(noise)
        _, posteriors = self.posterior_scales(self.posterior, self.posterior.encode(seen), latents)
        return latents.placed, posteriors

    def _noise(self, encoded: Encoded, samples: int, generator: torch.Generator | None) -> list[Tensor]:
        """Standard normal numbers for every scale, ``(B, K, N, h, w)`` each."""
        sizes = [tuple(x.shape[-2:]) for x in reversed(encoded.levels)]
        first = encoded.levels[-1]
        return [
            standard_normal((len(first), samples, channels, *size), first.device, generator)
            for channels, size in zip(self.latents, sizes, strict=False)
        ]

    def _parts(self, encoded: Encoded, noise: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """The noise of a few samples of each image at a time."""
        height, width = encoded.size
        images, samples = noise[0].shape[:2]
        sizes = network_parts(samples, images, images * height * width * self.g.out_channels)
        for parts in zip(*(torch.split(level, sizes, 1) for level in noise), strict=True):
            yield list(parts)

    # -- what `LatentVariableSegmenter` asks for -------------------------------------------------------------

    def encode(self, images: Tensor) -> Encoded:
        """The way down of the prior's U-Net."""
        return self.g.encode(images)

    def drawn(
        self,
        shared: Encoded,
        samples: int,
        generator: torch.Generator | None,
        scales: Sequence[int] | None = None,
    ) -> Iterator[Tensor]:
        """Logits of samples; latents of scales that are not among ``scales`` are at their mean."""
        noise = self._noise(shared, samples, generator)
        if scales is not None:
            noise = [e if i in scales else torch.zeros_like(e) for i, e in enumerate(noise)]
        for part in self._parts(shared, noise):
            logits, _ = self._decoded(shared, Noise(part))
            yield logits.view(*part[0].shape[:2], *logits.shape[1:])

    def explained(
        self, shared: Encoded, images: Tensor, masks: Tensor, mean: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits of a sample of the posterior, and the divergence of every scale, ``(B, L)``."""
        noise = self._noise(shared, 1, None)
        latents, posteriors = self._explained(
            images, masks, [torch.zeros_like(e) for e in noise] if mean else noise
        )
        logits, priors = self._decoded(shared, Given(latents))
        return logits, hierarchy_kl(posteriors, priors)

    def weighed(
        self,
        shared: Encoded,
        images: Tensor,
        masks: Tensor,
        samples: int,
        generator: torch.Generator | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits of samples of the posterior, and log P - log Q of their latents."""
        for part in self._parts(shared, self._noise(shared, samples, generator)):
            latents, posteriors = self._explained(images, masks, part)
            logits, priors = self._decoded(shared, Given(latents))
            shape = part[0].shape[:2]
            ratio = logits.new_zeros(shape)
            for z, p, q in zip(latents, priors, posteriors, strict=True):
                ratio = ratio + _density(p, z).view(shape) - _density(q, z).view(shape)
            yield logits.view(*shape, *logits.shape[1:]), ratio

    def misfit(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor | None]:
        """The cross-entropy of the pixels that are drawn, and their number."""
        nats = pixel_cross_entropy(logits, masks, self.labels)
        drawn = hard_pixels(
            nats.detach(), self.labels.valid(masks), self.settings.top_k, self.settings.stochastic
        )
        return (nats * drawn).flatten(1).sum(1), drawn.flatten(1).sum(1)

    # -- looking at the hierarchy ----------------------------------------------------------------------------

    @torch.no_grad()
    def predict_scales(
        self,
        images: Tensor,
        scales: Sequence[int],
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> MaskSet:
        """Samples that differ in some scales only: their latents are drawn, the others are at their mean (figure 1 of
        the public code).

        Args:
            images: ``(B, C, H, W)`` normalised.
            scales: which latents are drawn, 0 the coarsest; none at all gives the mask of the means.
            samples: how many; ``settings.samples`` unless given.
            generator: source of randomness.

        Raises:
            AmbisegError: a scale that there is not.

        Example:
            >>> settings = HierarchicalProbabilisticUNetSettings(latents=(1, 1))
            >>> model = HierarchicalProbabilisticUNet(3, LabelSpace.binary(), UNetSettings(width=8, depth=3), settings)
            >>> found = model.predict_scales(torch.zeros(1, 3, 8, 8), [], samples=2)
            >>> torch.equal(found.masks[:, 0], found.masks[:, 1])
            True
        """
        wrong = [scale for scale in scales if not 0 <= scale < len(self.latents)]
        if wrong:
            raise AmbisegError(
                f"scales are numbers from 0, the coarsest, to {len(self.latents) - 1}, received {wrong[0]}"
            )
        parts = self.drawn(self.encode(images), samples or self.settings.samples, generator, scales)
        probabilities = [self.labels.probabilities(part, dim=2) for part in parts]
        return MaskSet.from_probabilities(torch.cat(probabilities, 1), self.labels)


def _density(distribution: Gaussian, z: Tensor) -> Tensor:
    """Log-density of ``z (B K, N, h, w)``, ``(B, K)``, of a distribution of each image, or of each of its samples."""
    return distribution.log_prob(z.view(len(distribution.mean), -1, *z.shape[1:]))


def _check(s: HierarchicalProbabilisticUNetSettings) -> None:
    """Raise `AmbisegError` where a setting is out of its range."""
    check_weights(s)
    if any(channels < 1 for channels in s.latents):
        raise AmbisegError(f"latents are channels, 1 or more at each scale, received {list(s.latents)}")
    for name in ("log_variance_bound", "geco_speed"):
        if not getattr(s, name) >= 0:
            raise AmbisegError(f"{name} is 0 or more, received {getattr(s, name)}")
    if not s.geco_target > 0:
        raise AmbisegError(f"geco_target is above 0 nats per pixel, received {s.geco_target}")
    if not 0 <= s.geco_memory < 1:
        raise AmbisegError(f"geco_memory is a weight from 0 to below 1, received {s.geco_memory}")
    if not 0 < s.top_k <= 1:
        raise AmbisegError(f"top_k is a share of the pixels above 0, up to 1, received {s.top_k}")
