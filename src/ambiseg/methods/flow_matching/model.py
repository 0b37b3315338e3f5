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
velocities and samples follow from it by (17). With ``times=edm`` and ``grid=karras`` model and sampler are
theirs: the path only names noise levels, ``t = 1/(1 + sigma_edm)`` on the straight one.

Samples of one image are integrated together, so that diversity guidance can push them apart
(`ambiseg.flows.guidance`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.flows.guidance import MeanMaskGuidance, ParticleGuidance, Spell, pushed
from ambiseg.flows.paths import (
    FLOOR,
    Path,
    VarianceExploding,
    edm_loss_weight,
    edm_posterior_mean,
    path_named,
)
from ambiseg.flows.solvers import ADAPTIVE, Push, integrate, level_values
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import network_parts
from ambiseg.methods.base import Segmenter
from ambiseg.methods.flow_matching import (
    FlowMatchingSettings,
    KarrasGrid,
    LogitNormalTimes,
    NoiseLevelTimes,
    ParticleGuidanceSettings,
    SpellSettings,
)
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.edm import EDM, NEARLY_ZERO, start
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels

Time = TypeVar("Time", Tensor, float)


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
        _check(settings)
        self.path = path_named(settings.path)
        self.g = build_backbone(in_channels + labels.channels, self.backbone, time=True)
        self.h = nn.Conv2d(self.g.out_channels, labels.channels, 3, padding=1)
        if isinstance(self.g, EDM):
            start(self.h, NEARLY_ZERO)

    @property
    def start(self) -> float:
        """The time of pure noise: 0, or that of the greatest noise level where training never sees 0."""
        return float(self.path.time(torch.tensor(self.settings.most_noise, dtype=torch.float64)))

    @property
    def export_obstacle(self) -> str:
        if self.settings.sampler == ADAPTIVE:
            return f"the solver {ADAPTIVE} chooses its steps while it runs (settings: sampler), a graph has fixed ones"
        if self.settings.guidance is not None:
            return "guidance looks at the samples of every step to decide on their push (settings: guidance)"
        return ""

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
        shifted; or those of noise levels (Karras et al. 2022)."""
        times = self.settings.times
        if isinstance(times, NoiseLevelTimes):
            log = times.log_mean + times.log_std * torch.randn(count, device=device)
            return self.path.time(log.exp())
        if isinstance(times, LogitNormalTimes):
            normal = times.mean + times.std * torch.randn(count, device=device)
            return self._shifted(normal.sigmoid())
        return self._shifted(torch.rand(count, device=device))

    def _shifted(self, time: Time) -> Time:
        """``t / (t + s (1 - t))``, which for s > 1 moves times towards the noise (Esser et al. 2024, equation
        23)."""
        shifted: Time = time / (time + self.settings.time_shift * (1 - time))
        return shifted

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of equal weight; ``settings.samples`` of them unless asked otherwise."""
        count = samples or self.settings.samples
        shape = (images.shape[0], count, self.labels.channels, *images.shape[2:])
        z = standard_normal(shape, images.device, generator)
        guided_together = self.settings.guidance is not None
        values = images[:, 0].numel() * self.g.out_channels
        sizes = [count] if guided_together else network_parts(count, images.shape[0], values)
        ends = [self._integrate(images, part) for part in torch.split(z, sizes, 1)]
        share = self.labels.normalized((torch.cat(ends, 1) + 1) / 2, dim=2)
        return MaskSet.from_probabilities(share, self.labels)

    def _guidance(self, path: Path) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
        """What guidance makes of velocities on a path; None where there is none."""
        g = self.settings.guidance
        if g is None:
            return None
        if isinstance(g, SpellSettings):
            spell = Spell(g.radius, g.strength, path if g.times_noise else None)
            return pushed(path, spell, least_noise=g.least_noise)
        return pushed(path, ParticleGuidance(path, g.strength), least_noise=g.least_noise)

    def _integrate(self, images: Tensor, z: Tensor) -> Tensor:
        """From noise ``(B, K, C, H, W)`` to masks in about [-1, 1]."""
        s, count = self.settings, z.shape[1]
        repeated = images.repeat_interleave(count, 0)
        if isinstance(s.grid, KarrasGrid):
            return self._integrate_levels(repeated, z, s.grid)
        push = self._guidance(self.path)

        def field(state: Tensor, time: Tensor) -> Tensor:
            flat = self.velocity(repeated, state.flatten(0, 1), time.repeat_interleave(count))
            v = flat.reshape(state.shape)
            return v if push is None else push(state, v, time)

        # A posterior mean has no velocity at t = 1, so the last step ends in the mean itself.
        by_mean = s.parameterisation == "edm" or push is not None
        last = "euler" if by_mean and s.sampler != ADAPTIVE else None
        grid = [self._shifted(n / s.steps) for n in range(s.steps + 1)]
        return integrate(field, z, method=s.sampler, grid=grid, last=last)

    def _integrate_levels(self, images: Tensor, noise: Tensor, grid: KarrasGrid) -> Tensor:
        """The same in the variables of Karras et al. (2022): ``z/alpha`` as a function of the noise level.

        A step of Euler is the same as on the straight path, a step of Heun is not.
        """
        s, path = self.settings, VarianceExploding()

        def denoised(state: Tensor, level: Tensor) -> Tensor:
            time = self.path.time(level)
            z = self.path.alpha(time)[:, None, None, None, None] * state
            mean = self.posterior_mean(images, z.flatten(0, 1), time.repeat_interleave(noise.shape[1]))
            return mean.reshape(state.shape)

        def field(state: Tensor, level: Tensor) -> Tensor:
            return path.velocity(state, denoised(state, level), level)

        push: Push | None = None
        g, guidance = s.guidance, self._guidance(path)
        if _of_mean_masks(g):
            push = MeanMaskGuidance(denoised, g.strength, g.least_noise)
        elif guidance is not None:
            push = lambda state, v, level: (guidance(state, v, level),) * 2  # noqa: E731
        levels = level_values(s.steps, grid.rho, grid.sigma_min, grid.sigma_max)
        return integrate(field, levels[0] * noise, method=s.sampler, grid=levels, last="euler", push=push)


def _of_mean_masks(g: object) -> TypeGuard[ParticleGuidanceSettings]:
    return isinstance(g, ParticleGuidanceSettings) and g.form == "mean-masks"


def _check(s: FlowMatchingSettings) -> None:
    """Raise `AmbisegError` for settings that contradict each other."""
    if not s.time_shift > 0:
        raise AmbisegError(f"time_shift is above 0, received {s.time_shift}")
    levels = isinstance(s.grid, KarrasGrid)
    if isinstance(s.grid, KarrasGrid):
        level_values(s.steps, s.grid.rho, s.grid.sigma_min, s.grid.sigma_max)
        if s.sampler == ADAPTIVE:
            raise AmbisegError(
                f"sampler={ADAPTIVE} chooses its own steps: leave out grid=karras, or take heun"
            )
    if levels and s.time_shift != 1:
        raise AmbisegError("time_shift has no effect on grid=karras: leave it out, or take grid=equal")
    if isinstance(s.guidance, SpellSettings) and s.guidance.times_noise and not levels:
        raise AmbisegError(
            "guidance.times_noise multiplies by the noise level, which has no bound at the start of grid=equal: set"
            " grid=karras"
        )
    if _of_mean_masks(s.guidance) and (not levels or s.sampler != "heun"):
        raise AmbisegError(
            "guidance.form=mean-masks acts within Heun steps: set sampler=heun and grid=karras"
        )
    if isinstance(s.times, NoiseLevelTimes) and (s.parameterisation != "edm" or not levels):
        raise AmbisegError(
            "times=edm trains at noise levels and never at time 0: set parameterisation=edm and grid=karras"
        )
