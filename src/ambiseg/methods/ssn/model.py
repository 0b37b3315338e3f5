"""Stochastic segmentation networks: a joint normal distribution of all logits of an image, with a covariance
of low rank.

Monteiro, Le Folgoc, Coelho de Castro, Pawlowski, Marques, Kamnitsas, van der Wilk and Glocker (2020),
"Stochastic segmentation networks: modelling spatially correlated aleatoric uncertainty". Notation of De Sousa
Ribeiro et al. (2025), "Flow stochastic segmentation networks", section 3: image x, label map y, logits
``eta`` of all pixels and channels together, S draws.

    p(y | x) = int p(y | eta) p(eta | x) d eta,    p(eta | x) = N(mu(x), Sigma(x)),
    p(y | eta) = prod_pixels Categorical(y; softmax(eta))                                   (1)
    Sigma(x) = D(x) + P(x) P(x)^T,    D = exp(d(x)) + 1e-5                                   (2)
    L = - log 1/S sum_s exp( sum_pixels log p(y | eta_s) ),    eta_s ~ p(eta | x)

One network g with three heads of 1x1 convolutions gives mu, d and P; a binary space has one channel and a
sigmoid. A loss is that of one label map divided by the number of its pixels that are not void, so that it is
in nats per pixel whatever the image's size; the sum inside the exponential is over all pixels, as printed.
Several annotations of an image share its draws, and the loss is their mean by probability.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ambiseg.distributions.low_rank import LowRankNormal
from ambiseg.distributions.monte_carlo import draw_sizes, expected_nats, marginal, pairwise_cross_entropy
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.ssn import SSNSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings

LEAST_VARIANCE = 1e-5
"""Added to the diagonal."""
MOST_LOG_VARIANCE = 15.0
"""The logarithm of the diagonal is cut here, so that no exponential overflows; a logit's standard deviation
is then 1800."""
FIRST_VARIANCE = 0.1
"""Diagonal of a new network: noise of single pixels must not drown what the factor has to learn."""


class SSN(Segmenter):
    """Joint normal distribution of all logits with a low-rank covariance (Monteiro et al. 2020).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the shared network.
        settings: rank, draws, what a sample keeps.

    Raises:
        AmbisegError: a rank or a number of draws below 1, a temperature below 0, a share outside 0 to 1.

    Example:
        >>> model = SSN(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), SSNSettings(rank=4))
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=5).masks.shape
        torch.Size([2, 5, 17, 23])
        >>> bool(model.log_prob(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4)) < 0)
        True
    """

    settings: SSNSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: SSNSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        s = settings
        for name in ("rank", "draws", "likelihood_samples", "samples"):
            if getattr(s, name) < 1:
                raise AmbisegError(f"{name} is 1 or more, received {getattr(s, name)}")
        if not 0 <= s.temperature < math.inf:
            raise AmbisegError(f"temperature is 0 or more, received {s.temperature}")
        if s.sample_rank is not None and not 1 <= s.sample_rank <= s.rank:
            raise AmbisegError(
                f"sample_rank is 1 to the rank of the model, {s.rank}, received {s.sample_rank}"
            )
        if not 0 <= s.mean_pretraining < 1:
            raise AmbisegError(
                f"mean_pretraining is a share from 0 to below 1, received {s.mean_pretraining}"
            )
        channels = labels.channels
        self.g = build_backbone(in_channels, self.backbone)
        self.mu = nn.Conv2d(self.g.out_channels, channels, 1)
        self.d = nn.Conv2d(self.g.out_channels, channels, 1)
        self.p = nn.Conv2d(self.g.out_channels, s.rank * channels, 1)
        self._start_gently()

    @torch.no_grad()
    def _start_gently(self) -> None:
        """A small diagonal, nearly the same everywhere, and a factor whose variance does not depend on its
        rank."""
        self.d.weight *= 0.1
        nn.init.constant_(self.d.bias, math.log(FIRST_VARIANCE))  # type: ignore[arg-type]
        for parameter in self.p.parameters():
            parameter.mul_(self.settings.rank**-0.5)

    @property
    def export_obstacle(self) -> str:
        if self.settings.sample_rank not in (None, self.settings.rank):
            return "it computes singular vectors for every image (settings: sample_rank)"
        return ""

    # -- the distribution ---------------------------------------------------------------------------------------------

    def distribution(self, images: Tensor) -> LowRankNormal:
        """``p(eta | x)`` of images ``(B, C, H, W)`` in float32, its variables in the order channel, row,
        column.

        Raises:
            AmbisegError: the rank is above the number of logits of an image, pixels times channels.
        """
        self._check_rank(images)
        return self._normal(self.g(images))

    def _check_rank(self, images: Tensor) -> None:
        channels, pixels, rank = self.labels.channels, images[0, 0].numel(), self.settings.rank
        if rank > channels * pixels:
            raise AmbisegError(
                f"rank {rank} is above the {channels * pixels} logits of an image ({pixels} pixels x {channels}"
                f" channels): choose --rank {channels * pixels} or less, or larger images"
            )

    def _normal(self, features: Tensor) -> LowRankNormal:
        """The distribution that the three heads make of features ``(B, F, H, W)``."""
        mean, log_diagonal, factor = (head(features).float() for head in (self.mu, self.d, self.p))
        return LowRankNormal(
            mean.flatten(1),
            log_diagonal.clamp(max=MOST_LOG_VARIANCE).exp().flatten(1) + LEAST_VARIANCE,
            factor.reshape(features.shape[0], self.settings.rank, -1).mT,
        )

    def _nats(self, logits: Tensor, masks: Tensor) -> Tensor:
        """``-log p(y_n | eta_s)`` of logits ``(B, S, D)`` and label maps ``(B, N, *S)``, ``(B, S, N)``."""
        shape = (*logits.shape[:2], self.labels.channels, *masks.shape[2:])
        return pairwise_cross_entropy(logits.view(shape), masks, self.labels)

    # -- training --------------------------------------------------------------------------------------------

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Negative Monte-Carlo log-likelihood in nats per pixel, the mean over annotations by their
        probability.

        While `mean_pretraining` lasts, the cross-entropy of the mean alone; a model in evaluation mode always
        gives the former.
        """
        nats = self._training_nats(self.distribution(images), annotations.masks)
        return {"loss": expected_nats(nats, annotations).mean()}

    def _training_nats(self, distribution: LowRankNormal, masks: Tensor) -> Tensor:
        """``-log p(y_n | x)`` of label maps ``(B, N, *S)`` from the draws of training, ``(B, N)``."""
        s = self.settings
        mean_alone = self.training and self.progress < s.mean_pretraining
        logits = (
            distribution.mean[:, None]
            if mean_alone
            else distribution.sample(s.draws, antithetic=s.antithetic)
        )
        return marginal(self._nats(logits, masks))

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Independent samples of equal weight, ``settings.samples`` unless asked otherwise; the network runs
        once."""
        count, size = samples or self.settings.samples, images.shape[2:]
        found = self._sampled(self.distribution(images), count, size, generator)
        return MaskSet.from_probabilities(found, self.labels)

    def _sampled(
        self, distribution: LowRankNormal, count: int, size: torch.Size, generator: torch.Generator | None
    ) -> Tensor:
        """Pixel probabilities ``(B, count, C, *size)`` of samples of the logits."""
        s = self.settings
        if s.sample_rank is not None:
            distribution = distribution.truncated(s.sample_rank)
        shape = (distribution.mean.shape[0], -1, self.labels.channels, *size)
        draws = [
            self.labels.probabilities(
                distribution.sample(n, generator, temperature=s.temperature).view(shape), dim=2
            )
            for n in draw_sizes(count, distribution.mean.numel())
        ]
        return torch.cat(draws, 1)

    @torch.no_grad()
    def log_prob(self, images: Tensor, masks: Tensor) -> Tensor:
        """``log 1/S sum_s p(y | eta_s)`` in nats of the whole label map, void left out, S =
        ``likelihood_samples``.

        A Monte-Carlo estimate from the global generator: below the true value on average, and nearer the
        larger S is.

        Args:
            images: ``(B, C, H, W)``.
            masks: label maps ``(B, H, W)``.

        Returns:
            ``(B,)`` float32.
        """
        return self._log_prob(self.distribution(images), masks)

    def _log_prob(self, distribution: LowRankNormal, masks: Tensor) -> Tensor:
        """`log_prob` of label maps ``(B, H, W)`` under the distribution of each."""
        nats = [
            self._nats(distribution.sample(n, antithetic=self.settings.antithetic), masks[:, None])
            for n in draw_sizes(self.settings.likelihood_samples, distribution.mean.numel())
        ]
        return -marginal(torch.cat(nats, 1))[:, 0]
