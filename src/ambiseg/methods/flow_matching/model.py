"""Flow matching on masks: samples of the conditional distribution of masks by integrating a learnt velocity
field.

Lipman, Havasi, Holderrieth, Shaul, Le, Karrer, Chen, Lopez-Paz, Ben-Hamu and Gat (2024), "Flow matching guide
and code", as used by Gerard and Sullivan, "Deterministic Mode Proposals", section 3.2. Notation as there:
image x, mask y in [-1, 1] (one channel if binary, else one per class), noise ``z_0 ~ N(0, I)``, time t from 0
(noise) to 1 (mask).

    dz/dt = u_t(z | x)                                                              (13)
    z_t = alpha_t y + sigma_t z_0                                                   (16)
    u_t(z | y) = (alpha' - alpha sigma'/sigma) y + (sigma'/sigma) z                 (17)
    L = E_{t, z_0, y} || v(z_t, t | x) - (alpha' y + sigma' z_0) ||^2               conditional flow matching

The image is concatenated to ``z_t``. Of several annotations of an image one is drawn by its probability at
every sample, so that full and single labels train the same distribution. With ``parameterisation="edm"`` the
network is a preconditioned denoiser (Karras, Aittala, Aila and Laine 2022) that gives E[y | z_t, x];
velocities and samples follow from it by (17).

Samples of one image are integrated together, so that diversity guidance can push them apart
(`ambiseg.flows.guidance`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.flows.guidance import Guidance, ParticleGuidance, Spell, guided
from ambiseg.flows.paths import FLOOR, edm_loss_weight, edm_posterior_mean, path_named
from ambiseg.flows.solvers import integrate
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import network_parts
from ambiseg.methods.base import Segmenter
from ambiseg.methods.flow_matching import FlowMatchingSettings, SpellSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels


class FlowMatching(Segmenter):
    """Conditional flow matching on masks, sampled by an ODE solver (Lipman et al. 2024; Gerard and Sullivan,
    section 3.2).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the time-conditioned network.
        settings: path, parameterisation, sampler, steps, guidance.

    Example:
        >>> model = FlowMatching(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), FlowMatchingSettings(steps=2))
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=4).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: FlowMatchingSettings
    passes_for_each_mask = True

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: FlowMatchingSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        if not settings.time_shift > 0:
            raise AmbisegError(f"time_shift is above 0, received {settings.time_shift}")
        self.path = path_named(settings.path)
        self.g = build_backbone(in_channels + labels.channels, self.backbone, time=True)
        self.h = nn.Conv2d(self.g.out_channels, labels.channels, 3, padding=1)

    # -- the field -------------------------------------------------------------------------------------------

    def network(self, images: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """Output of the network for states ``z (B, C, H, W)`` at times ``(B,)``, float32."""
        check_channels(images, self.in_channels)
        out: Tensor = self.h(self.g(torch.cat([images, z.to(images.dtype)], 1), time)).float()
        return out

    def velocity(self, images: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """``v(z, t | x)``, ``(B, C, H, W)``."""
        if self.settings.parameterisation == "edm":
            return self.path.velocity(z, self.posterior_mean(images, z, time), time)
        return self.network(images, z, time)

    def posterior_mean(self, images: Tensor, z: Tensor, time: Tensor) -> Tensor:
        """``E[y | z_t = z, x]`` in [-1, 1] up to errors of the network, ``(B, C, H, W)``."""
        if self.settings.parameterisation == "edm":
            return edm_posterior_mean(
                lambda state, noise: self.network(images, state, noise),
                z,
                time,
                self.path,
                self.settings.sigma_data,
            )
        return self.path.posterior_mean(z, self.network(images, z, time), time)

    # -- training --------------------------------------------------------------------------------------------

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Mean squared error over pixels that are not void, each mask drawn by its probability."""
        y, valid = self.encode(annotations.sample_one().masks[:, 0])
        noise, time = torch.randn_like(y), self._times(len(y), y.device)
        z, velocity = self.path.sample(y, noise, time), self.path.target(y, noise, time)
        if self.settings.target == "posterior":
            y = self._posterior_of(annotations, z, time)
            velocity = self.path.velocity(z, y, time)
        if self.settings.parameterisation == "edm":
            error = self.posterior_mean(images, z, time) - y
            weight = edm_loss_weight(time, self.path, self.settings.sigma_data)
        else:
            error = self.network(images, z, time) - velocity
            weight = torch.ones_like(time)
        pixels = valid.flatten(1).sum(1).clamp(min=1) * self.labels.channels
        loss = (weight * (error.square() * valid[:, None]).flatten(1).sum(1) / pixels).mean()
        return {"loss": loss}

    @torch.no_grad()
    def _posterior_of(self, annotations: MaskSet, z: Tensor, time: Tensor) -> Tensor:
        """``E[y | z_t = z]`` of the annotated masks and probabilities themselves (19), ``(B, C, H, W)``."""
        shape = annotations.masks.shape
        encoded, _ = self.encode(annotations.masks.flatten(0, 1))
        y = encoded.view(*shape[:2], -1, *shape[2:])
        alpha, sigma = (v[:, None, None, None, None] for v in (self.path.alpha(time), self.path.sigma(time)))
        distance = (z[:, None] - alpha * y).square() / (2 * sigma.square()).clamp(min=FLOOR)
        share = (annotations.weights.log() - distance.flatten(2).sum(2)).softmax(1)
        return torch.einsum("bn,bnchw->bchw", share, y)

    def encode(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Label maps ``(B, H, W)`` as ``y`` in [-1, 1] ``(B, C, H, W)``, 0 where void, and where they are
        valid."""
        valid = self.labels.valid(masks)
        return (2 * self.labels.one_hot(masks, dim=1) - 1) * valid[:, None], valid

    def _times(self, count: int, device: torch.device) -> Tensor:
        """Times of training: uniform in [0, 1), or the sigmoid of a normal variable (Esser et al. 2024), then
        shifted."""
        if self.settings.times == "logit-normal":
            return self._shifted(torch.randn(count, device=device).sigmoid())
        return self._shifted(torch.rand(count, device=device))

    def _shifted(self, time: Tensor) -> Tensor:
        """``t / (t + s (1 - t))``, which for s > 1 moves times towards the noise (Esser et al. 2024, equation
        23)."""
        return time / (time + self.settings.time_shift * (1 - time))

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of equal weight; ``settings.samples`` of them unless asked otherwise."""
        count = samples or self.settings.samples
        shape = (len(images), count, self.labels.channels, *images.shape[2:])
        z = standard_normal(shape, images.device, generator)
        guided_together = self.settings.guidance is not None
        values = images[:, 0].numel() * self.g.out_channels
        sizes = [count] if guided_together else network_parts(count, len(images), values)
        ends = [self._integrate(images, part) for part in torch.split(z, sizes, 1)]
        share = self.labels.normalized((torch.cat(ends, 1) + 1) / 2, dim=2)
        return MaskSet.from_probabilities(share, self.labels)

    def _guidance(self) -> Guidance | None:
        """What pushes samples of one image apart."""
        g = self.settings.guidance
        if isinstance(g, SpellSettings):
            return Spell(g.radius, g.strength)
        return None if g is None else ParticleGuidance(self.path, g.strength)

    def _integrate(self, images: Tensor, z: Tensor) -> Tensor:
        """From noise ``(B, K, C, H, W)`` to masks in about [-1, 1]."""
        s, count = self.settings, z.shape[1]
        repeated = images.repeat_interleave(count, 0)

        def field(state: Tensor, time: Tensor) -> Tensor:
            flat = self.velocity(repeated, state.flatten(0, 1), time.repeat_interleave(count))
            return flat.reshape(state.shape)

        push = self._guidance()
        velocity = field if push is None else guided(field, self.path, push)
        # A posterior mean has no velocity at t = 1, so the last step ends in the mean itself.
        by_mean = s.parameterisation == "edm" or push is not None
        last = "euler" if by_mean and s.sampler != "dopri5" else None
        grid = self._shifted(torch.linspace(0, 1, s.steps + 1, dtype=torch.float64))
        return integrate(velocity, z, method=s.sampler, grid=grid, last=last)
