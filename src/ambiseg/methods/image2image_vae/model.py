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

The loss is (4) over the pixels of a batch (`ambiseg.losses.evidence`). Log-variances are bounded,
``log sigma^2 = b tanh(. / b)``, so that no sigma vanishes or overflows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ambiseg.distributions.latent import Gaussian, LatentNet, centred
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.memory_budget import network_parts
from ambiseg.methods.image2image_vae import Image2ImageVAESettings
from ambiseg.methods.latent_variable import LatentVariableSegmenter, check_count, check_weights
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


class Image2ImageVAE(LatentVariableSegmenter):
    """A U-Net on image and latent, trained as a variational auto-encoder of masks (Zhu et al. 2017; Kohl et
    al. 2018, 3.2).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the U-Net, and of the posterior net's way down.
        settings: latent space, beta, number of samples.

    Raises:
        AmbisegError: settings out of their range.

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
        check_weights(settings)
        check_count("latent_size", settings.latent_size)
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

    # -- what `LatentVariableSegmenter` asks for -------------------------------------------------------------

    def encode(self, images: Tensor) -> Tensor:
        """The images: the latent enters with them, so their samples share nothing."""
        return images

    def _decoded(self, images: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Logits of latents ``(B, K, N)``, a few of the K at a time: ``(B, k, C, H, W)`` each."""
        sizes = network_parts(z.shape[1], images.shape[0], images[:, 0].numel() * self.g.out_channels)
        for part in torch.split(z, sizes, 1):
            logits = self(images.repeat_interleave(part.shape[1], 0), part.flatten(0, 1)).float()
            yield logits.unflatten(0, part.shape[:2])

    def drawn(self, shared: Tensor, samples: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Logits of samples (1, 2)."""
        shape = (shared.shape[0], samples, self.settings.latent_size)
        yield from self._decoded(shared, standard_normal(shape, shared.device, generator))

    def explained(
        self, shared: Tensor, images: Tensor, masks: Tensor, mean: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits of a sample of the posterior (3), and the divergence of each latent dimension, ``(B, N)``."""
        posterior = self.posterior(masks)
        z = posterior.mean[:, None] if mean else posterior.place(torch.randn_like(posterior.mean)[:, None])
        return self(images, z[:, 0]), posterior.kl(Gaussian.standard(posterior.mean))

    def weighed(
        self, shared: Tensor, images: Tensor, masks: Tensor, samples: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits of samples of the posterior, and log P - log Q of their latents."""
        posterior = self.posterior(masks)
        shape = (images.shape[0], samples, self.settings.latent_size)
        z, density = posterior.sampled(standard_normal(shape, images.device, generator))
        ratios = Gaussian.standard(posterior.mean).log_prob(z) - density
        first = 0
        for logits in self._decoded(images, z):
            yield logits, ratios[:, first : first + logits.shape[1]]
            first += logits.shape[1]

    def freeze(self, part: str) -> None:
        """As every method; with "all-but-last" the posterior net stays as it is, too."""
        super().freeze(part)
        if part == "all-but-last":
            self.q.requires_grad_(False)
