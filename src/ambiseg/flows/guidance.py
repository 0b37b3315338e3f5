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
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.flows.paths import FLOOR, Path
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

    Raises:
        AmbisegError: the radius is not positive.

    Example:
        >>> d = torch.tensor([[[[0.0]], [[1.0]], [[9.0]]]])
        >>> Spell(radius=2.0, strength=0.5)(d, d, torch.tensor([0.5])).flatten().tolist()
        [-0.5, 0.5, 0.0]
    """

    radius: float
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not self.radius > 0:
            raise AmbisegError(f"Spell: radius {self.radius}; give a positive distance between masks")

    def __call__(self, z: Tensor, posterior_mean: Tensor, t: Tensor) -> Tensor:
        x = _flat(posterior_mean)
        distance = _distances(x)
        weights = torch.relu(self.radius / distance.clamp(min=SAME) - 1)
        weights = torch.where(distance > SAME, self.strength * weights, torch.zeros_like(weights))
        return _repulsion(x, weights).reshape(z.shape).to(z)


def guided(velocity: Velocity, path: Path, *guidance: Guidance) -> Velocity:
    """The velocity of K samples of each image, with guidance: ``v + (alpha' - alpha sigma'/sigma)
    correction``.

    Args:
        velocity: states ``(B, K, C, *S)`` and times ``(B,)`` to velocities ``(B, K, C, *S)``.
        path: of the states.
        guidance: corrections of the posterior mean; they add up.

    Example:
        >>> from ambiseg.flows.paths import Linear
        >>> from ambiseg.flows.solvers import integrate
        >>> mask = torch.tensor([[[[0.0]], [[1.0]]]])
        >>> towards = lambda z, t: Linear().velocity(z, mask, t)
        >>> apart = guided(towards, Linear(), Spell(radius=3.0, strength=0.5))
        >>> integrate(apart, torch.zeros(1, 2, 1, 1), 4, "euler").flatten().tolist()
        [-1.0, 2.0]
    """

    def corrected(z: Tensor, t: Tensor) -> Tensor:
        v = velocity(z, t)
        posterior_mean = path.posterior_mean(z, v, t)
        for correction in guidance:
            v = v + path.velocity(torch.zeros_like(z), correction(z, posterior_mean, t), t)
        return v

    return corrected


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
