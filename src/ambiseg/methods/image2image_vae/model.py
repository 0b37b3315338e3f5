"""Image2Image VAE: a latent of a fixed normal prior enters the U-Net beside the image.

Zhu, Zhang, Pathak, Darrell, Efros, Wang and Shechtman (2017), "Toward multimodal image-to-image translation",
without its discriminator, as the baseline of Kohl et al. (2018), "A probabilistic U-Net for segmentation of
ambiguous images", section 3.2; equations numbered as there. Notation: image X, mask Y, latent z in R^N, U-Net
f.

    z ~ P = N(0, I)                                               (1) with a prior that does not see the image
    S = f([X, z])                                                 (2) z broadcast over space, concatenated to the image
    z ~ Q(.|Y) = N(mu(Y), diag(sigma(Y)^2))                       (3) with a posterior that does not see the image
    L(Y, X) = E_{z ~ Q}[ - log P_c(Y | S(X, z)) ] + beta D_KL(Q || P)                 (4)
    D_KL(Q || P) = 1/2 sum_n (mu_n^2 + sigma_n^2 - 1 - log sigma_n^2)

`loss` is (4) with one z, over the number P of pixels that are not void: nats per pixel. Log-variances are
bounded, ``log sigma^2 = b tanh(. / b)``, so that no sigma vanishes or overflows. Of several annotations of an
image one is drawn by its probability each time it is seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ambiseg.distributions.latent import Gaussian, LatentNet, centred
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import network_parts
from ambiseg.methods.base import Segmenter
from ambiseg.methods.image2image_vae import Image2ImageVAESettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


class Image2ImageVAE(Segmenter):
    """A U-Net on image and latent, trained as a variational auto-encoder of masks (Zhu et al. 2017; Kohl et
    al. 2018, 3.2).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the U-Net, and of the posterior net's way down.
        settings: latent space, beta, number of samples.

    Raises:
        AmbisegError: no latent dimension, a negative beta, or no room for log-variances.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = Image2ImageVAE(3, LabelSpace.binary(), small, Image2ImageVAESettings())
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: Image2ImageVAESettings
    passes_for_each_mask = True

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: Image2ImageVAESettings
    ) -> None:
        if settings.latent_size < 1:
            raise AmbisegError(
                f"latent_size is a number of dimensions, at least 1, received {settings.latent_size}"
            )
        if not settings.beta >= 0:
            raise AmbisegError(f"beta is at least 0, received {settings.beta}")
        if not settings.log_variance_bound > 0:
            raise AmbisegError(f"log_variance_bound is above 0, received {settings.log_variance_bound}")
        super().__init__(in_channels, labels, backbone, settings)
        self.g = build_backbone(in_channels + settings.latent_size, self.backbone)
        self.h = nn.Conv2d(self.g.out_channels, labels.channels, 1)
        self.q = LatentNet(
            labels.channels,
            settings.latent_size,
            self.backbone,
            settings.log_variance_bound,
            settings.same_encoder,
        )

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        """Logits ``(B, C, H, W)`` of S (2) for latents ``z (B, N)``."""
        check_channels(images, self.in_channels)
        latent = z.to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[2:])
        logits: Tensor = self.h(self.g(torch.cat([images, latent], 1)))
        return logits

    def posterior(self, masks: Tensor) -> Gaussian:
        """Q (3) for label maps ``(B, H, W)``, which the net sees `centred`."""
        posterior: Gaussian = self.q(centred(masks, self.labels))
        return posterior

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Equation (4) in nats per pixel that is not void, each mask drawn by its probability; a mask of void
        alone has none."""
        y = annotations.sample_one().masks[:, 0]
        posterior = self.posterior(y)
        z = posterior.place(torch.randn_like(posterior.mean)[:, None])[:, 0]
        nats = cross_entropy(self(images, z), y, self.labels)
        kl = posterior.kl(Gaussian.standard(posterior.mean)).sum(1)
        pixels = self.labels.valid(y).flatten(1).sum(1)
        total = ((nats + self.settings.beta * kl) * (pixels > 0) / pixels.clamp(min=1)).mean()
        return {"loss": total, "kl": kl.detach().mean()}

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of equal weight; ``settings.samples`` of them unless asked otherwise."""
        shape = (images.shape[0], samples or self.settings.samples, self.settings.latent_size)
        z = standard_normal(shape, images.device, generator)
        sizes = network_parts(z.shape[1], images.shape[0], images[:, 0].numel() * self.g.out_channels)
        parts = [self._masks(images, part) for part in torch.split(z, sizes, 1)]
        return MaskSet.from_probabilities(torch.cat(parts, 1), self.labels)

    def _masks(self, images: Tensor, z: Tensor) -> Tensor:
        """Per-pixel probabilities ``(B, K, C, H, W)`` for latents ``(B, K, N)``."""
        logits = self(images.repeat_interleave(z.shape[1], 0), z.flatten(0, 1))
        return self.labels.probabilities(logits).reshape(*z.shape[:2], *logits.shape[1:])

    def freeze(self, part: str) -> None:
        """As every method; with "all-but-last" the posterior net stays as it is, too."""
        super().freeze(part)
        if part == "all-but-last":
            self.q.requires_grad_(False)
