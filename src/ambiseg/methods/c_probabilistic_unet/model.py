"""Conditioned probabilistic U-Net: a latent vector whose distribution depends on the label style.

Zepf, Petersen, Frellsen and Feragen (2023), "That label's got style: handling label style bias for uncertain image
segmentation"; all else is that of `ambiseg.methods.probabilistic_unet.model`. Image X, mask Y, style s as S constant
channels beside the image, one of them 1.

    z ~ P(.|X, s) = N(mu_prior(X, s), diag(sigma_prior(X, s)))                                    (1)
    z ~ Q(.|X, Y, s) = N(mu_post(X, Y, s), diag(sigma_post(X, Y, s)))                             (2)
    L(Y, X, s) = E_{z ~ Q}[-log P_c(Y | S(X, z))] + beta KL(Q(z|Y, X, s) || P(z|X, s))            (3)

The U-Net sees the image alone, as in the public code, and runs once for all styles. The style of a mask of an unknown
annotator is drawn by p(s), whose loss is on average above that of ``- log sum_s p(s) p(Y | X, s)``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ambiseg.distributions.latent import Gaussian
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.c_probabilistic_unet import ConditionedProbabilisticUNetSettings
from ambiseg.methods.label_styles import Allotment, StyledSegmenter, check_styles
from ambiseg.methods.probabilistic_unet.model import ProbabilisticUNet
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


class ConditionedProbabilisticUNet(StyledSegmenter, ProbabilisticUNet):
    """A probabilistic U-Net conditioned on label styles (Zepf et al. 2023).

    What `encode` and the methods of `LatentVariableSegmenter` call images are those of `styled`.

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: the U-Net; prior and posterior net have the size of its way down.
        settings: those of the probabilistic U-Net, and the styles.

    Raises:
        AmbisegError: settings out of their range.

    Example:
        >>> settings = ConditionedProbabilisticUNetSettings(annotators=("anna", "ben"))
        >>> model = ConditionedProbabilisticUNet(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), settings)
        >>> model.predict(torch.zeros(1, 3, 17, 23), samples=4).annotators
        tensor([[0, 0, 1, 1]])
        >>> model.of_annotator("ben").predict(torch.zeros(1, 3, 17, 23), samples=4).annotators
        tensor([[1, 1, 1, 1]])
    """

    settings: ConditionedProbabilisticUNetSettings

    def __init__(
        self,
        in_channels: int,
        labels: LabelSpace,
        backbone: UNetSettings,
        settings: ConditionedProbabilisticUNetSettings,
    ) -> None:
        check_styles(settings)
        super().__init__(in_channels, labels, backbone, settings)

    @property
    def condition_channels(self) -> int:
        return len(self.names)

    @property
    def latent_backbone(self) -> UNetSettings:
        count = self.settings.latent_convolutions
        if count is None:
            return self.backbone
        if self.backbone.kind != "phiseg" or not self.settings.same_encoder:
            raise AmbisegError(
                "latent_convolutions belongs to the network phiseg with same_encoder: leave it out, or choose --set"
                " backbone.kind=phiseg --set same_encoder=true"
            )
        return replace(self.backbone, convolutions=replace(self.backbone.convolutions, count=count))

    def styled(self, images: Tensor, styles: Tensor | int) -> Tensor:
        """Images ``(B, C, H, W)`` with the channels of their styles ``(B,)``, or of one style for all: ``(B, C + S, H,
        W)``."""
        check_channels(images, self.in_channels)
        if isinstance(styles, int):
            styles = torch.full((images.shape[0],), styles, device=images.device)
        channels = self.one_hot(styles, images)[..., None, None]
        return torch.cat([images, channels.expand(-1, -1, *images.shape[2:])], 1)

    def encode(self, images: Tensor) -> tuple[Tensor, Gaussian]:
        """`features` of the images without their styles, and the prior P(.|X, s) (1)."""
        return self.features(images[:, : self.in_channels]), self.prior(images)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """The evidence bound (3) of one mask of each image under the style of its annotator."""
        one = annotations.sample_one()
        styles = torch.multinomial(self.styles_given(one)[:, 0], 1)[:, 0]
        return super().loss(self.styled(images, styles), one)

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of every style, by weight as often as in training, or of the chosen one; the U-Net runs once."""
        features = self.features(images)
        allotment, latents = Allotment.of(self.shares, samples or self.settings.samples, generator), []
        for style, count in allotment.counts.items():
            noise = standard_normal(
                (images.shape[0], count, self.settings.latent_size), images.device, generator
            )
            latents.append(self.prior(self.styled(images, style)).place(noise))
        logits = self._decoded(features, torch.cat(latents, 1))
        return self.sampled_set(
            torch.cat([self.labels.probabilities(part, dim=2) for part in logits], 1), allotment
        )

    @torch.no_grad()
    def mode_probabilities(
        self,
        images: Tensor,
        modes: MaskSet,
        samples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As of the probabilistic U-Net, each style with its share."""
        allotment = Allotment.of(self.shares, samples, generator)
        shares = [
            sum(
                weight
                for one, weight in zip(allotment.styles, allotment.weights, strict=True)
                if one == style
            )
            for style in allotment.counts
        ]
        found = [
            share
            * super(ConditionedProbabilisticUNet, self).mode_probabilities(
                self.styled(images, style), modes, count, generator
            )
            for share, (style, count) in zip(shares, allotment.counts.items(), strict=True)
        ]
        return torch.stack(found).sum(0)

    @torch.no_grad()
    def log_prob(
        self,
        images: Tensor,
        masks: Tensor,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``log sum_s p(s) p(Y | X, s)`` of the lower bounds of each style (`LatentVariableSegmenter.log_prob`), or that
        of the chosen style."""
        terms = [
            torch.tensor(share).log()
            + super(ConditionedProbabilisticUNet, self).log_prob(
                self.styled(images, style), masks, samples, generator
            )
            for style, share in enumerate(self.shares)
            if share > 0
        ]
        return torch.stack(terms).logsumexp(0)

    def reconstruct(self, images: Tensor, masks: Tensor) -> MaskSet:
        """As of the probabilistic U-Net, with the posterior of one style.

        Raises:
            AmbisegError: several styles, and none is chosen.
        """
        return super().reconstruct(self.styled(images, self._one_style()), masks)

    def latent_grid(
        self, images: Tensor, size: int = 5, radius: float = 2.0, axes: tuple[int, int] = (0, 1)
    ) -> Tensor:
        """As of the probabilistic U-Net, with the prior of one style.

        Raises:
            AmbisegError: several styles, and none is chosen; or axes or a size that cannot be.
        """
        return super().latent_grid(self.styled(images, self._one_style()), size, radius, axes)

    def _one_style(self) -> int:
        if self.chosen is None and len(self.names) > 1:
            raise AmbisegError(
                f"this looks at the latents of one annotator: choose one with of_annotator (known: {', '.join(self.names)})"
            )
        return self.chosen or 0
