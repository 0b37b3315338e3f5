"""Diversity guidance: the K samples of one image are integrated together and keep apart.

All guidance has one shape: ``(z, D, t) -> correction of the posterior mean D``, everything ``(B, K, C, *S)``,
t ``(B,)``. Corrections add up, and `ambiseg.flows.paths.Path.velocity` turns ``D + correction`` into a
velocity (`guided`).

SPELL is defined on D already. Particle guidance is defined on the score. With the velocity of a Gaussian path
by its score,

    v = (alpha'/alpha) z + ((alpha'/alpha) sigma^2 - sigma sigma') score,     score = (alpha D - z)/sigma^2,

a correction g of the score is one of D by ``(sigma^2/alpha) g``, and of v by ``((alpha'/alpha) sigma^2 -
sigma sigma') g``. Where alpha = 0 (t = 0 of the linear and the cosine path) the score says nothing of the
masks: no guidance there. Just above it the factor is large, like 1/t.

The noise level ``sigma/alpha``, the state ``z/alpha`` and D are those of every path, and so is the correction
of D: a strength, a radius and a least noise level mean the same on each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.flows.paths import FLOOR, Path, edm_sigma
from ambiseg.flows.solvers import Velocity

SAME = 1e-6
"""Particles closer than this (L2 norm) are one and the same: no direction leads apart."""
POTENTIALS = ("sum", "log-sum")
PARTICLES = ("state", "posterior-mean")


class Guidance(Protocol):
    """Correction of the posterior means of samples that are integrated together."""

    def __call__(self, z: Tensor, posterior_mean: Tensor, t: Tensor) -> Tensor:
        """What to add to the posterior mean: ``z, D (B, K, C, *S)``, ``t (B,)`` to ``(B, K, C, *S)``."""


@dataclass(frozen=True)
class ParticleGuidance:
    """Repulsion by the gradient of a potential of all pairs (Corso et al. 2024, "Particle Guidance", section
    3).

        k(x_i, x_j) = exp(-|x_i - x_j|^2/h),   h = median^2/log K
        log Phi = -1/2 sum_ij k(x_i, x_j)     ("sum"),   or   -log sum_ij k(x_i, x_j)     ("log-sum")
        score correction g_i = strength grad_{x_i} log Phi,   correction of D_i = (sigma^2/alpha) g_i

    The median is the lower one of the distances of an image's pairs, a constant to the gradient. Particles
    that coincide do not push each other. K = 1 gives zero.

    Args:
        path: of the states; it converts the score.
        strength: factor of the potential.
        potential: ``sum``, as published, or ``log-sum``, whose force does not grow with K.
        particles: what keeps apart: ``state``, as published, or ``posterior-mean``; there the gradient is
            that by D, and the network's derivative of D by z is left out (taken to be the identity).

    Raises:
        UnknownNameError: no such potential or particles.

    Example:
        >>> from ambiseg.flows.paths import Linear
        >>> z = torch.tensor([[[[0.0, 0.0]], [[0.0, 1.0]]]])
        >>> ParticleGuidance(Linear())(z, z, torch.tensor([0.5])).flatten(1)
        tensor([[ 0.0000, -0.3466,  0.0000,  0.3466]])
    """

    path: Path
    strength: float = 1.0
    potential: str = "sum"
    particles: str = "state"

    def __post_init__(self) -> None:
        if self.potential not in POTENTIALS:
            raise UnknownNameError("potential", self.potential, POTENTIALS)
        if self.particles not in PARTICLES:
            raise UnknownNameError("particles", self.particles, PARTICLES)

    def __call__(self, z: Tensor, posterior_mean: Tensor, t: Tensor) -> Tensor:
        if z.shape[1] == 1:
            return torch.zeros_like(z)
        x = _flat(z if self.particles == "state" else posterior_mean)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        factor = torch.where(alpha > FLOOR, sigma.square() / alpha.clamp(min=FLOOR), torch.zeros_like(alpha))
        gradient = self.strength * _repulsion(x, self._weights(_distances(x)))
        return (factor.reshape(-1, 1, 1).to(x) * gradient).reshape(z.shape).to(z)

    def _weights(self, distance: Tensor) -> Tensor:
        """``w_ij`` of ``grad_{x_i} log Phi = sum_j w_ij (x_i - x_j)``, ``(B, K, K)``."""
        count = distance.shape[1]
        rows, columns = torch.triu_indices(count, count, 1, device=distance.device).unbind(0)
        median = distance.detach()[:, rows, columns].median(1).values
        h = (median.square() / math.log(count)).clamp(min=SAME**2)[:, None, None]
        k = torch.exp(-distance.square() / h)
        return 2 * k / h if self.potential == "sum" else 4 * k / h / k.sum((1, 2), keepdim=True)


@dataclass(frozen=True)
class Spell:
    """Sparse repellency: predicted masks closer than a radius push each other apart (Kirchhof et al. 2025,
    "Shielded Diffusion").

        d_ij = D_i - D_j,     correction of D_i = strength sum_j max(0, r/|d_ij| - 1) d_ij

    The norm is L2 over all channels and pixels: masks in {0, 1} that differ in n pixels are ``sqrt(n)``
    apart, masks in {-1, 1} ``2 sqrt(n)``. Nothing happens to particles that are r apart or farther, nor to
    particles that coincide. K = 1 gives zero.

    Args:
        radius: r > 0, in the units of that norm.
        strength: 1 as published: each of the two goes all the way, as if the other stood still, and two
            particles end ``2r - |d|`` apart. With 0.5 two particles end exactly r apart.
        noise_of: path whose noise level ``sigma/alpha`` multiplies the strength, as in the public code of
            Gerard and Sullivan; None: nothing does, as published.

    Raises:
        AmbisegError: the radius is not positive.

    Example:
        >>> d = torch.tensor([[[[0.0]], [[1.0]], [[9.0]]]])
        >>> Spell(radius=2.0, strength=0.5)(d, d, torch.tensor([0.5])).flatten().tolist()
        [-0.5, 0.5, 0.0]
    """

    radius: float
    strength: float = 1.0
    noise_of: Path | None = None

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise AmbisegError(f"Spell: radius {self.radius}; give a positive distance between masks")

    def __call__(self, z: Tensor, posterior_mean: Tensor, t: Tensor) -> Tensor:
        x = _flat(posterior_mean)
        distance = _distances(x)
        weights = torch.relu(self.radius / distance.clamp(min=SAME) - 1)
        weights = torch.where(distance > SAME, self.strength * weights, torch.zeros_like(weights))
        if self.noise_of is not None:
            weights = weights * edm_sigma(t, self.noise_of).reshape(-1, 1, 1).to(x)
        return _repulsion(x, weights).reshape(z.shape).to(z)


@dataclass(frozen=True)
class MeanMaskGuidance:
    """Particle guidance of mean masks, as the public code of Gerard and Sullivan has it, on the path
    `ambiseg.flows.paths.VarianceExploding`.

        k_ij = exp(-|D_i - D_j|/(2 h)),   h = median^2/log K,   push of i = strength sigma grad_{x_i} sum_j k_ij

    ``|D_i - D_j|/2`` is the distance of masks in [0, 1], the median that of all K^2 of them. The gradient is taken
    through the network, which needs as much memory as training; the other particle counts as constant. It
    points towards the others: a step of Heun whose second slope is evaluated at a state that moved so far
    towards them ends farther from them (`ambiseg.flows.solvers.integrate`, ``push``).

    Args:
        denoiser: states x ``(B, K, C, *S)`` and noise levels ``(B,)`` to posterior means ``(B, K, C, *S)``.
        strength: of the push.
        least_noise: noise level below which nothing is pushed.
    """

    denoiser: Velocity
    strength: float = 1.0
    least_noise: float = 0.0

    def __call__(self, x: Tensor, v: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes v of a step with the push, which lead to its second state, and without it, which count."""
        acts = (level >= self.least_noise).reshape(-1, *[1] * (x.dim() - 1))
        count = x.shape[1]
        if count == 1 or not bool(acts.any()):
            return v, v
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            mean = self.denoiser(at, level)
            masks = _flat(mean.detach() / 2)
            distance = _distances(masks)
            h = distance.flatten(1).median(1).values.square() / math.log(count)
            k = torch.exp(-distance / h.clamp(min=SAME**2)[:, None, None])
            weights = k / h.clamp(min=SAME**2)[:, None, None] / distance.clamp(min=SAME)
            weights = torch.where(distance > SAME, weights, torch.zeros_like(weights))
            by_mean = -_repulsion(masks, weights).reshape(mean.shape).to(mean) / 2
            (gradient,) = torch.autograd.grad(mean, at, by_mean)
        push = self.strength * level.reshape(acts.shape) * gradient
        return v - torch.where(acts, push, torch.zeros_like(push)), v


def pushed(
    path: Path, *guidance: Guidance, least_noise: float = 0.0
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What guidance makes of the velocity of K samples of each image: ``v + (alpha' - alpha sigma'/sigma)
    correction``, from states z, velocities v and times.

    Args:
        path: of the states.
        guidance: corrections of the posterior mean; they add up.
        least_noise: noise level ``sigma/alpha`` below which nothing is corrected.
    """

    def push(z: Tensor, v: Tensor, t: Tensor) -> Tensor:
        acts = (edm_sigma(t, path) >= least_noise).reshape(-1, *[1] * (z.dim() - 1))
        if not bool(acts.any()):
            return v
        posterior_mean = path.posterior_mean(z, v, t)
        for correction in guidance:
            moved = torch.where(acts, correction(z, posterior_mean, t), torch.zeros_like(z))
            v = v + path.velocity(torch.zeros_like(z), moved, t)
        return v

    return push


def guided(velocity: Velocity, path: Path, *guidance: Guidance, least_noise: float = 0.0) -> Velocity:
    """The velocity of K samples of each image, with guidance (`pushed`).

    Args:
        velocity: states ``(B, K, C, *S)`` and times ``(B,)`` to velocities ``(B, K, C, *S)``.
        path: of the states.
        guidance: corrections of the posterior mean; they add up.
        least_noise: noise level ``sigma/alpha`` below which nothing is corrected.

    Example:
        >>> from ambiseg.flows.paths import Linear
        >>> from ambiseg.flows.solvers import integrate
        >>> mask = torch.tensor([[[[0.0]], [[1.0]]]])
        >>> towards = lambda z, t: Linear().velocity(z, mask, t)
        >>> apart = guided(towards, Linear(), Spell(radius=3.0, strength=0.5))
        >>> integrate(apart, torch.zeros(1, 2, 1, 1), 4, "euler").flatten().tolist()
        [-1.0, 2.0]
    """
    push = pushed(path, *guidance, least_noise=least_noise)
    return lambda z, t: push(z, velocity(z, t), t)


def _flat(x: Tensor) -> Tensor:
    """Particles as vectors ``(B, K, P)``, in single precision at least."""
    return x.flatten(2) if x.dtype == torch.float64 else x.flatten(2).float()


def _distances(x: Tensor) -> Tensor:
    """L2 distances of all pairs, ``(B, K, K)``, from differences: products would lose those of particles that
    are close."""
    return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def _repulsion(x: Tensor, weights: Tensor) -> Tensor:
    """``sum_j w_ij (x_i - x_j)``, ``(B, K, P)``, one i after the other so that memory grows with K, not its
    square."""
    parts = [(weights[:, i, :, None] * (x[:, i, None] - x)).sum(1) for i in range(x.shape[1])]
    return torch.stack(parts, 1)
