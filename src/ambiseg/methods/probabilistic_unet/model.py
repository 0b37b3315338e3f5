"""Probabilistic U-Net: a U-Net whose last layers see a latent vector that says which of the plausible masks
to draw.

Kohl, Romera-Paredes, Meyer, De Fauw, Ledsam, Maier-Hein, Eslami, Rezende and Ronneberger (2018), "A
probabilistic U-Net for segmentation of ambiguous images". Notation as there: image X, mask Y, latent z of N
dimensions, prior P, posterior Q, sampled segmentation S.

    z_i ~ P(.|X) = N(mu_prior(X), diag(sigma_prior(X)))                                         (1)
    S_i = f_comb(f_U-Net(X), z_i)                                                               (2)
    z ~ Q(.|X, Y) = N(mu_post(X, Y), diag(sigma_post(X, Y)))                                    (3)
    L(Y, X) = E_{z ~ Q}[-log P_c(Y | S(X, z))] + beta KL(Q(z|Y, X) || P(z|X))                   (4)

f_comb is a chain of 1x1 convolutions, the first over the features f and the broadcast latent. That one is
``W_f f + W_z z``, so for any number of samples U-Net, prior net and ``W_f f`` run once per image, and only
what depends on z is repeated. Prior and posterior net are the way down of a U-Net with a mean over positions
and a linear map at its end.

The loss is (4) summed over a batch and divided by its pixels that are not void: nats per pixel. A constant
factor leaves the minimiser where it is, and the size of the gradients does not depend on that of the images.
Of several annotations of an image one is drawn by its probability each time it is seen.

Beyond the paper: a smooth bound on the log-variances, beta that rises from 0, free bits (Kingma et al. 2016),
and instead of beta a constraint on the cross-entropy with a multiplier lambda (Rezende and Viola 2018,
"Taming VAEs"):

    min KL(Q || P)    subject to  CE <= kappa,          CE, kappa in nats per pixel
    L = KL + lambda (CE - kappa),      lambda <- lambda exp(eta c),      c the running mean of CE / kappa - 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ambiseg.distributions.latent import Gaussian, LatentNet, centred
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import part_sizes
from ambiseg.methods.base import Segmenter
from ambiseg.methods.probabilistic_unet import ProbabilisticUNetSettings
from ambiseg.mode_probabilities.velocity_decomposition import assignment_counts
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels

MULTIPLIER_SPEED = 0.01
"""Step eta of the logarithm of the multiplier lambda."""
MULTIPLIER_MEMORY = 0.99
"""Weight of the past in the running mean of the constraint (Rezende and Viola 2018)."""
MOST_MULTIPLIER = 1e4
"""The multiplier stays between one over this and this."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "relu": nn.ReLU}
"""Of `ProbabilisticUNetSettings.activation`."""


class Combination(nn.Module):
    """``f_comb``: 1x1 convolutions of features and a broadcast latent, the first of them split in two (2).

    Args:
        features: channels F of the features, and of the layers between.
        size: dimensions N of the latent.
        outputs: channels C of the logits.
        layers: how many convolutions.
        activation: between them.
    """

    def __init__(
        self,
        features: int,
        size: int,
        outputs: int,
        layers: int,
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        widths = [features] * layers + [outputs]
        self.from_features = nn.Conv2d(features, widths[1], 1)
        self.from_latent = nn.Linear(size, widths[1], bias=False)
        later = [[activation(), nn.Conv2d(*pair, 1)] for pair in zip(widths[1:-1], widths[2:], strict=True)]
        self.rest = nn.Sequential(*(layer for pair in later for layer in pair))

    def forward(self, mapped: Tensor, z: Tensor) -> Tensor:
        """Logits ``(B, K, C, H, W)`` of latents ``(B, K, N)``; ``mapped (B, F, H, W)`` is `from_features` of
        the features."""
        first = mapped[:, None] + self.from_latent(z)[..., None, None]
        out: Tensor = self.rest(first.flatten(0, 1))
        return out.reshape(*z.shape[:2], *out.shape[1:])


class ProbabilisticUNet(Segmenter):
    """A U-Net with a conditional variational autoencoder (Kohl et al. 2018).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: the U-Net; prior and posterior net have the size of its way down.
        settings: latent, weight or constraint of the losses, number of samples.

    Raises:
        AmbisegError: settings out of their range.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = ProbabilisticUNet(3, LabelSpace.binary(), small, ProbabilisticUNetSettings())
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: ProbabilisticUNetSettings
    multiplier: Tensor
    violation: Tensor

    def __init__(
        self,
        in_channels: int,
        labels: LabelSpace,
        backbone: UNetSettings,
        settings: ProbabilisticUNetSettings,
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        _check(settings)
        self.g = build_backbone(in_channels, self.backbone)
        s, bound, same = settings, settings.log_variance_bound, settings.same_encoder
        self.prior = LatentNet(in_channels, s.latent_size, self.backbone, bound, same)
        self.posterior = LatentNet(in_channels + labels.channels, s.latent_size, self.backbone, bound, same)
        self.combine = Combination(
            self.g.out_channels, s.latent_size, labels.channels, s.combine_layers, ACTIVATIONS[s.activation]
        )
        self.register_buffer("multiplier", torch.ones(()))
        self.register_buffer("violation", torch.zeros(()))

    # -- the networks ----------------------------------------------------------------------------------------

    def features(self, images: Tensor) -> Tensor:
        """What all samples of an image share: ``W_f f_U-Net(X)`` with its bias, ``(B, F, H, W)``."""
        features: Tensor = self.combine.from_features(self.g(images))
        return features

    def posterior_of(self, images: Tensor, masks: Tensor) -> Gaussian:
        """``Q(.|X, Y)`` for label maps ``(B, H, W)``; Y enters as one-hot channels less one half, 0 where
        void (3)."""
        check_channels(images, self.in_channels)
        seen = torch.cat([images, centred(masks, self.labels).to(images.dtype)], 1)
        posterior: Gaussian = self.posterior(seen)
        return posterior

    def _decoded(self, features: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Logits of latents ``(B, K, N)``, a few of the K at a time: ``(B, k, C, H, W)`` each."""
        for part in torch.split(z, part_sizes(z.shape[1], features.numel()), 1):
            yield self.combine(features, part).float()

    # -- training --------------------------------------------------------------------------------------------

    @property
    def beta(self) -> float:
        """Weight of the KL at this point of the training: it rises from 0 over the share ``kl_warmup``."""
        rise = self.settings.kl_warmup
        return self.settings.beta * (min(1.0, self.progress / rise) if rise > 0 else 1.0)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Equation (4) in nats per pixel that is not void; its parts in nats per image."""
        masks = annotations.sample_one().masks[:, 0]
        features, prior, posterior = (
            self.features(images),
            self.prior(images),
            self.posterior_of(images, masks),
        )
        z = posterior.place(torch.randn_like(posterior.mean)[:, None])
        logits = self.combine(features, z)[:, 0]
        with torch.autocast(images.device.type, enabled=False):
            pixels = self.labels.valid(masks).flatten(1).sum(1)
            count, images_counted = pixels.sum().clamp(min=1), (pixels > 0).sum().clamp(min=1)
            nats = cross_entropy(logits, masks, self.labels).sum()
            # An image of nothing but void says nothing about its latent.
            divergence = (posterior.kl(prior) * (pixels > 0)[:, None]).sum(0) / images_counted
            penalty = divergence.clamp(min=self.settings.free_bits).sum() * images_counted
            if self.settings.constraint == "geco":
                excess = nats / count - self.settings.geco_target
                loss = penalty / count + self.multiplier.clone() * excess
                self._adapt(excess.detach())
            else:
                loss = (nats + self.beta * penalty) / count
        parts = {"cross_entropy": nats / images_counted, "kl": divergence.sum()}
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    @torch.no_grad()
    def _adapt(self, excess: Tensor) -> None:
        """One step of the multiplier; nothing outside training. The constraint counts as at most +-1,
        whatever the start."""
        if self.training:
            relative = (excess / self.settings.geco_target).clamp(max=1.0)
            self.violation.lerp_(relative, 1 - MULTIPLIER_MEMORY)
            grown = self.multiplier * (MULTIPLIER_SPEED * self.violation).exp()
            self.multiplier.copy_(grown.clamp(1 / MOST_MULTIPLIER, MOST_MULTIPLIER))

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of equal weight (1, 2); ``settings.samples`` of them unless asked otherwise."""
        features, z = self._sampled(images, samples or self.settings.samples, generator)
        parts = [self.labels.probabilities(logits, dim=2) for logits in self._decoded(features, z)]
        return MaskSet.from_probabilities(torch.cat(parts, 1), self.labels)

    def _sampled(
        self, images: Tensor, samples: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Features, and latents ``(B, K, N)`` of the prior."""
        shape = (images.shape[0], samples, self.settings.latent_size)
        return self.features(images), self.prior(images).place(
            standard_normal(shape, images.device, generator)
        )

    @torch.no_grad()
    def mode_probabilities(
        self,
        images: Tensor,
        modes: MaskSet,
        samples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Probability of given modes: the share of the samples that are nearest to each
        (`assignment_counts`).

        Args:
            images: ``(B, C, H, W)`` normalised.
            modes: ``(B, M, H, W)``; weight 0 marks those that are not there.
            samples: how many to draw; they are not kept.
            generator: source of randomness.

        Returns:
            ``(B, M)`` float64, sum 1.

        Raises:
            AmbisegError: no samples, or modes of another number or size than the images.

        Example:
            >>> small = UNetSettings(width=8, depth=2)
            >>> model = ProbabilisticUNet(3, LabelSpace.binary(), small, ProbabilisticUNetSettings())
            >>> modes = MaskSet.uniform(torch.zeros(1, 1, 6, 6, dtype=torch.uint8), LabelSpace.binary())
            >>> model.mode_probabilities(torch.zeros(1, 3, 6, 6), modes, samples=10)
            tensor([[1.]], dtype=torch.float64)
        """
        _check_count("samples", samples)
        features, z = self._sampled(images, samples, generator)
        counts = []
        for logits in self._decoded(features, z):
            masks = self.labels.decide(self.labels.probabilities(logits, dim=2), dim=2)
            counts.append(
                assignment_counts(MaskSet.uniform(masks, self.labels), modes) * (masks.shape[1] / samples)
            )
        return torch.stack(counts).sum(0)

    # -- looking at the latent space -------------------------------------------------------------------------

    @torch.no_grad()
    def reconstruct(self, images: Tensor, masks: Tensor) -> MaskSet:
        """What the posterior's mean decodes to, one mask per image: how much of label maps ``(B, H, W)``
        passes the latent."""
        features, z = self.features(images), self.posterior_of(images, masks).mean[:, None]
        return MaskSet.from_probabilities(
            self.labels.probabilities(self.combine(features, z), dim=2), self.labels
        )

    @torch.no_grad()
    def latent_grid(
        self, images: Tensor, size: int = 5, radius: float = 2.0, axes: tuple[int, int] = (0, 1)
    ) -> Tensor:
        """Masks over a slice of the latent space: two coordinates vary, the others stay at the prior's mean.

            z_a = mu_a + r_i sigma_a,    z_b = mu_b + r_j sigma_b,    r from -radius to radius in equal steps

        Args:
            images: ``(B, C, H, W)`` normalised.
            size: steps along each axis, at least 2; an odd number has the prior's mean in the middle.
            radius: how far the slice reaches, in standard deviations of the prior.
            axes: the coordinates a and b, the first down the rows, the second along the columns.

        Returns:
            Probabilities ``(B, size, size, C, H, W)``.

        Raises:
            AmbisegError: axes that are not two different coordinates, or fewer than two steps.

        Example:
            >>> small = UNetSettings(width=8, depth=2)
            >>> model = ProbabilisticUNet(3, LabelSpace.binary(), small, ProbabilisticUNetSettings())
            >>> model.latent_grid(torch.zeros(1, 3, 6, 9), size=3).shape
            torch.Size([1, 3, 3, 1, 6, 9])
        """
        dimensions = self.settings.latent_size
        if len(set(axes)) != 2 or len(axes) != 2 or not all(0 <= axis < dimensions for axis in axes):
            raise AmbisegError(
                f"axes are two different coordinates of the latent, 0 to {dimensions - 1}, received {tuple(axes)}"
            )
        if size < 2:
            raise AmbisegError(f"a grid has 2 steps or more along each axis, received size {size}")
        steps = torch.linspace(-radius, radius, size, device=images.device)
        noise = torch.zeros(size, size, dimensions, device=images.device)
        noise[..., axes[0]], noise[..., axes[1]] = steps[:, None], steps
        z = self.prior(images).place(noise.flatten(0, 1)[None])
        parts = self._decoded(self.features(images), z)
        found = torch.cat([self.labels.probabilities(logits, dim=2) for logits in parts], 1)
        return found.reshape(images.shape[0], size, size, *found.shape[2:])

    # -- likelihood ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def log_prob(
        self,
        images: Tensor,
        masks: Tensor,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Lower bound of the log-likelihood in nats of label maps ``(B, H, W)``, ``(B,)``, by importance
        sampling.

            log 1/K sum_k P_c(Y | S(X, z_k)) P(z_k|X) / Q(z_k|X, Y),    z_k ~ Q(.|X, Y)

        Its expectation rises with K to ``log p(Y|X)`` (Burda, Grosse and Salakhutdinov 2016); for K = 1 it is
        minus (4) with beta = 1. Void pixels do not count.

        Args:
            images: ``(B, C, H, W)`` normalised.
            masks: label maps ``(B, H, W)``.
            samples: K; ``settings.likelihood_samples`` unless given.
            generator: source of randomness.

        Raises:
            AmbisegError: no samples.

        Example:
            >>> small = UNetSettings(width=8, depth=2)
            >>> model = ProbabilisticUNet(3, LabelSpace.binary(), small, ProbabilisticUNetSettings())
            >>> model.log_prob(torch.zeros(2, 3, 6, 6), torch.full((2, 6, 6), 255)).shape
            torch.Size([2])
        """
        count = self.settings.likelihood_samples if samples is None else samples
        _check_count("samples", count)
        features, prior, posterior = (
            self.features(images),
            self.prior(images),
            self.posterior_of(images, masks),
        )
        shape = (images.shape[0], count, self.settings.latent_size)
        z = posterior.place(standard_normal(shape, images.device, generator))
        likelihoods = []
        for logits in self._decoded(features, z):
            repeated = masks.repeat_interleave(logits.shape[1], 0)
            nats = cross_entropy(logits.flatten(0, 1), repeated, self.labels)
            likelihoods.append(-nats.view(logits.shape[:2]))
        weights = torch.cat(likelihoods, 1) + prior.log_prob(z) - posterior.log_prob(z)
        bound: Tensor = weights.logsumexp(1) - math.log(count)
        return bound


def _check_count(name: str, value: int) -> None:
    if value < 1:
        raise AmbisegError(f"{name} is 1 or more, received {value}")


def _check(s: ProbabilisticUNetSettings) -> None:
    """Raise `AmbisegError` where a setting is out of its range."""
    for name in ("latent_size", "combine_layers", "samples", "likelihood_samples"):
        _check_count(name, getattr(s, name))
    for name in ("beta", "free_bits", "log_variance_bound"):
        if not getattr(s, name) >= 0:
            raise AmbisegError(f"{name} is 0 or more, received {getattr(s, name)}")
    if not 0 <= s.kl_warmup <= 1:
        raise AmbisegError(f"kl_warmup is a share of the training, 0 to 1, received {s.kl_warmup}")
    if not s.geco_target > 0:
        raise AmbisegError(f"geco_target is above 0 nats per pixel, received {s.geco_target}")
