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

The loss is (4) over the pixels of a batch (`ambiseg.losses.evidence`). Beyond the paper: a smooth bound on the
log-variances, beta that rises from 0, free bits, and instead of beta a constraint on the cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ambiseg.distributions.latent import Gaussian, LatentNet, centred
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.evidence import Geco
from ambiseg.memory_budget import part_sizes
from ambiseg.methods.latent_variable import LatentVariableSegmenter, check_count, check_weights
from ambiseg.methods.probabilistic_unet import ProbabilisticUNetSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels

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


class ProbabilisticUNet(LatentVariableSegmenter):
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
        seen, network = in_channels + self.condition_channels, self.latent_backbone
        self.prior = LatentNet(seen, s.latent_size, network, bound, same)
        self.posterior = LatentNet(seen + labels.channels, s.latent_size, network, bound, same)
        self.combine = Combination(
            self.g.out_channels, s.latent_size, labels.channels, s.combine_layers, ACTIVATIONS[s.activation]
        )
        if settings.constraint == "geco":
            self.geco = Geco(settings.geco_target)

    # -- the networks ----------------------------------------------------------------------------------------

    @property
    def condition_channels(self) -> int:
        """Channels after those of the image that prior and posterior net see and the U-Net does not."""
        return 0

    @property
    def latent_backbone(self) -> UNetSettings:
        """Size of prior and posterior net."""
        return self.backbone

    def features(self, images: Tensor) -> Tensor:
        """What all samples of an image share: ``W_f f_U-Net(X)`` with its bias, ``(B, F, H, W)``."""
        features: Tensor = self.combine.from_features(self.g(images))
        return features

    def prior_of(self, images: Tensor) -> Gaussian:
        """``P(.|X)`` (1)."""
        prior: Gaussian = self.prior(images)
        return prior

    def posterior_of(self, images: Tensor, masks: Tensor) -> Gaussian:
        """``Q(.|X, Y)`` for label maps ``(B, H, W)``; Y enters as one-hot channels less one half, 0 where
        void (3)."""
        check_channels(images, self.in_channels + self.condition_channels)
        seen = torch.cat([images, centred(masks, self.labels).to(images.dtype)], 1)
        posterior: Gaussian = self.posterior(seen)
        return posterior

    def _decoded(self, features: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Logits of latents ``(B, K, N)``, a few of the K at a time: ``(B, k, C, H, W)`` each."""
        for part in torch.split(z, part_sizes(z.shape[1], features.numel()), 1):
            yield self.combine(features, part).float()

    # -- what `LatentVariableSegmenter` asks for -------------------------------------------------------------

    def encode(self, images: Tensor) -> tuple[Tensor, Gaussian]:
        """`features`, and the prior P(.|X) (1)."""
        return self.features(images), self.prior_of(images)

    def drawn(
        self, shared: tuple[Tensor, Gaussian], samples: int, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        """Logits of samples (1, 2)."""
        features, prior = shared
        shape = (features.shape[0], samples, self.settings.latent_size)
        yield from self._decoded(features, prior.place(standard_normal(shape, features.device, generator)))

    def explained(
        self, shared: tuple[Tensor, Gaussian], images: Tensor, masks: Tensor, mean: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits of a sample of the posterior (3), and the divergence of each latent dimension, ``(B, N)``."""
        features, prior = shared
        posterior = self.posterior_of(images, masks)
        z = posterior.mean[:, None] if mean else posterior.place(torch.randn_like(posterior.mean)[:, None])
        return self.combine(features, z)[:, 0], posterior.kl(prior)

    def weighed(
        self,
        shared: tuple[Tensor, Gaussian],
        images: Tensor,
        masks: Tensor,
        samples: int,
        generator: torch.Generator | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits of samples of the posterior, and log P - log Q of their latents."""
        (features, prior), posterior = shared, self.posterior_of(images, masks)
        shape = (features.shape[0], samples, self.settings.latent_size)
        z, density = posterior.sampled(standard_normal(shape, features.device, generator))
        ratios = prior.log_prob(z) - density
        first = 0
        for logits in self._decoded(features, z):
            yield logits, ratios[:, first : first + logits.shape[1]]
            first += logits.shape[1]

    # -- looking at the latent space -------------------------------------------------------------------------

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
        features, prior = self.encode(images)
        parts = self._decoded(features, prior.place(noise.flatten(0, 1)[None]))
        found = torch.cat([self.labels.probabilities(logits, dim=2) for logits in parts], 1)
        return found.reshape(images.shape[0], size, size, *found.shape[2:])


def _check(s: ProbabilisticUNetSettings) -> None:
    """Raise `AmbisegError` where a setting is out of its range."""
    check_weights(s)
    for name in ("latent_size", "combine_layers"):
        check_count(name, getattr(s, name))
    if not s.log_variance_bound >= 0:
        raise AmbisegError(f"log_variance_bound is 0 or more, received {s.log_variance_bound}")
    if not s.geco_target > 0:
        raise AmbisegError(f"geco_target is above 0 nats per pixel, received {s.geco_target}")
