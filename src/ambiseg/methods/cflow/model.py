"""cFlow: a probabilistic U-Net whose latents go through normalising flows.

Selvan, Faye, Middleton and Pai (2020), "Uncertainty quantification in medical image segmentation with normalizing
flows"; Valiuddin, Viviers, van Sloun, de With and van der Sommen (2021), "Improving aleatoric uncertainty quantification
in multi-annotated medical image segmentation with normalizing flows". Notation of `ambiseg.methods.probabilistic_unet`:
image X, mask Y, latent z of N dimensions; h is what the encoder of the posterior net says of X and Y.

    z_0 ~ N(mu(X, Y), diag(sigma(X, Y)^2)),    z = z_K = f_K(.; h) o ... o f_1(z_0; h)              the posterior Q
    log Q(z|X, Y) = log N(z_0) - sum_k log |det df_k/dz_(k-1)|
    L = E_Q[-log P(Y|X, z)] + beta E_Q[log Q(z|X, Y) - log P(z|X)]

The steps f_k are planar, radial, or those of Glow with affine couplings (`ambiseg.distributions.latent_steps`). The
second expectation has no closed form; it is that of the z that the first one sees. Without steps this is the
probabilistic U-Net, with its closed form. Samples come from the prior alone, so they cost as much as there.

Zhang, Zhang, Huang, Lu and Wang (2022), "A probabilistic model for controlling diversity and accuracy of ambiguous
medical image segmentation", make the distribution in the latent space more complex as well. Their text was not at hand:
what follows is ours. With ``prior_steps`` the prior has a flow g of its own, given what its encoder says of X, in the
direction that makes its density quick:

    e = g(z; X),    log P(z|X) = log N(e) + sum_k log |det dg_k|,    samples: z = g^(-1)(mu + s sigma eps; X)

s is ``spread``: below 1 the samples are nearer to the middle of the prior, less diverse, and on average more accurate.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ambiseg.distributions.latent import Gaussian, centred
from ambiseg.distributions.latent_flows import FLOWS, LatentFlow, Pulled, Pushed
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.methods.cflow import CFlowSettings
from ambiseg.methods.probabilistic_unet.model import ProbabilisticUNet
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


class CFlow(ProbabilisticUNet):
    """A probabilistic U-Net with normalising flows of its latents (Selvan et al. 2020; Valiuddin et al. 2021).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: the U-Net; prior and posterior net have the size of its way down.
        settings: the flows, and the settings of the probabilistic U-Net.

    Raises:
        AmbisegError: settings out of their range.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = CFlow(3, LabelSpace.binary(), small, CFlowSettings(flow="radial"))
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: CFlowSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: CFlowSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        for name in ("steps", "prior_steps", "spread"):
            if not getattr(settings, name) >= 0:
                raise AmbisegError(f"{name} is 0 or more, received {getattr(settings, name)}")
        self.flow = self._flow(settings.steps)
        self.prior_flow = self._flow(settings.prior_steps)

    def _flow(self, steps: int) -> LatentFlow | None:
        width = self.posterior.encoder.out_channels
        return FLOWS[self.settings.flow](self.settings.latent_size, width, steps) if steps else None

    # -- distributions ---------------------------------------------------------------------------------------

    def prior_of(self, images: Tensor) -> Gaussian | Pulled:  # type: ignore[override]
        """``P(.|X)``."""
        if self.prior_flow is None:
            return super().prior_of(images)
        seen = self.prior.encoder(images).float()
        return Pulled(self.prior.of(seen), self.prior_flow, seen)

    def posterior_of(self, images: Tensor, masks: Tensor) -> Pushed:  # type: ignore[override]
        """``Q(.|X, Y)`` for label maps ``(B, H, W)``, which the net sees `centred`."""
        check_channels(images, self.in_channels)
        seen = self.posterior.encoder(torch.cat([images, centred(masks, self.labels).to(images.dtype)], 1))
        return Pushed(self.posterior.of(seen), self.flow, seen.float())

    # -- what `LatentVariableSegmenter` asks for -------------------------------------------------------------

    def drawn(
        self, shared: tuple[Tensor, Gaussian | Pulled], samples: int, generator: torch.Generator | None
    ) -> Iterator[Tensor]:
        """Logits of samples of the prior, whose normal numbers are ``spread`` times as large."""
        features, prior = shared
        shape = (features.shape[0], samples, self.settings.latent_size)
        noise = self.settings.spread * standard_normal(shape, features.device, generator)
        yield from self._decoded(features, prior.place(noise))

    def explained(
        self, shared: tuple[Tensor, Gaussian | Pulled], images: Tensor, masks: Tensor, mean: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits of a sample z of the posterior, and ``log Q(z|X, Y) - log P(z|X)``, ``(B, 1)``; the closed form of
        each dimension, ``(B, N)``, where there are no flows."""
        (features, prior), posterior = shared, self.posterior_of(images, masks)
        noise = (torch.zeros_like if mean else torch.randn_like)(posterior.base.mean)[:, None]
        with torch.autocast(images.device.type, enabled=False):
            z, density = posterior.sampled(noise)
            if posterior.flow is None and isinstance(prior, Gaussian):
                divergence = posterior.base.kl(prior)
            else:
                divergence = density - prior.log_prob(z)
        return self.combine(features, z)[:, 0], divergence

    @property
    def export_obstacle(self) -> str:
        return "" if self.prior_flow is None else "its prior is the inverse of a flow (prior_steps)"
