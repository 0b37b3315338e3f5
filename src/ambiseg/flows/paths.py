"""Gaussian probability paths from noise (t = 0) to mask (t = 1), and what can be converted along them.

Notation of Gerard and Sullivan, section 3.2, and of Lipman et al. 2024: mask y, noise ``e ~ N(0, I)``, state
z.

    p_t(z|y) = N(alpha_t y, sigma_t^2 I),   z_t = alpha_t y + sigma_t e                              (16)
    u_t(z|y) = (alpha' - alpha sigma'/sigma) y + (sigma'/sigma) z                                    (17)

(17) is ``alpha' y + sigma' e`` with the noise ``e = (z - alpha y)/sigma`` that z and y imply. It is linear in
y, so the marginal velocity v is (17) at the posterior mean ``D = E[y | z_t = z]``, and D follows from v:

    v = alpha' D + sigma' (z - alpha D)/sigma,     D = (sigma v - sigma' z)/(alpha' sigma - alpha sigma')

Networks that give the velocity and networks that give the posterior mean are thus interchangeable. The
denominator of D is positive for all t in [0, 1]. What happens at the two ends:

- t = 0: nothing is singular. ``alpha' sigma - alpha sigma' = alpha'`` and ``D = (v + z)/alpha'`` where sigma'
  = -1 (20).
- t = 1: the state is the mask, so D = z whatever v is. The noise can no longer be told from z: where ``sigma
  <= FLOOR`` it is taken to be 0, its mean under a distribution with a density, and ``velocity`` gives
  ``alpha' D``. Solvers that evaluate at t = 1 (Heun, rk4) want a network of the velocity there, or an Euler
  step last (`ambiseg.flows.solvers.integrate`).

Preconditioning of a network that gives D: Karras et al. 2022, "Elucidating the Design Space of
Diffusion-Based Generative Models", table 1. The state of theirs is ``z/alpha`` at noise level ``sigma_edm =
sigma/alpha``. A model of theirs is thus a model of any path: ``path.time`` turns noise levels into times, and
`VarianceExploding` is the path in which they write it, with the noise level as its time.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError, UnknownNameError

FLOOR = 1e-5
"""Where alpha or sigma would divide, it is not taken below this."""
TOLD = (1e-3, 1e3)
"""Noise levels that a network tells apart: those beyond are so rare in training that it would meet t = 0
unprepared."""


@dataclass(frozen=True)
class Path(ABC):
    """A Gaussian probability path: two schedules with their derivatives, and the conversions they imply (16,
    17).

    Times t are tensors in [0, 1], of `VarianceExploding` noise levels, ``(B,)`` or of no axis; states, masks
    and noise are ``(B, C, *S)``, or any other shape that begins with B. Schedules are computed in the type of
    t, results have the type of the state.
    """

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """How much of the mask is in the state, from 0 to 1."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """How much of the noise is in the state, from 1 to 0."""

    @abstractmethod
    def d_alpha(self, t: Tensor) -> Tensor:
        """Derivative of alpha by t."""

    @abstractmethod
    def d_sigma(self, t: Tensor) -> Tensor:
        """Derivative of sigma by t."""

    @abstractmethod
    def time(self, level: Tensor) -> Tensor:
        """The time at which the noise level ``sigma/alpha`` is ``level``, in [0, inf]: the inverse of
        `edm_sigma`."""

    def sample(self, y: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The state ``z_t = alpha y + sigma e``, a draw of ``p_t(z|y)`` (16).

        Example:
            >>> Linear().sample(torch.ones(2, 1), torch.zeros(2, 1), torch.tensor([0.25, 1.0])).tolist()
            [[0.25], [1.0]]
        """
        return _over(self.alpha(t), y) * y + _over(self.sigma(t), y) * noise

    def target(self, y: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``alpha' y + sigma' e = u_t(z_t|y)``: what conditional flow matching regresses (Lipman et al. 2023,
        theorem 2)."""
        return _over(self.d_alpha(t), y) * y + _over(self.d_sigma(t), y) * noise

    def velocity(self, z: Tensor, posterior_mean: Tensor, t: Tensor) -> Tensor:
        """The velocity at a state whose posterior mean is D: ``v = alpha' D + sigma' (z - alpha D)/sigma``
        (17).

        Where ``sigma <= FLOOR`` (t = 1) the second term is left out: finite, and exact for distributions with
        a density.

        Example:
            >>> z, d = torch.zeros(2, 1), torch.ones(2, 1)
            >>> Linear().velocity(z, d, torch.tensor([0.0, 0.5])).tolist()
            [[1.0], [2.0]]
        """
        sigma = _over(self.sigma(t), z)
        noise = (z - _over(self.alpha(t), z) * posterior_mean) / sigma.clamp(min=FLOOR)
        noise = torch.where(sigma > FLOOR, noise, torch.zeros_like(noise))
        return _over(self.d_alpha(t), z) * posterior_mean + _over(self.d_sigma(t), z) * noise

    def posterior_mean(self, z: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """``D = E[y | z_t = z] = (sigma v - sigma' z)/(alpha' sigma - alpha sigma')`` from the marginal
        velocity v.

        At t = 1 it is z.

        Example:
            >>> z, v = torch.zeros(2, 1), torch.ones(2, 1)
            >>> Linear().posterior_mean(z, v, torch.tensor([0.0, 0.5])).tolist()
            [[1.0], [0.5]]
        """
        alpha, sigma, d_alpha, d_sigma = self.alpha(t), self.sigma(t), self.d_alpha(t), self.d_sigma(t)
        denominator = d_alpha * sigma - alpha * d_sigma
        return _over(sigma / denominator, z) * v - _over(d_sigma / denominator, z) * z


@dataclass(frozen=True)
class Linear(Path):
    """``alpha = t, sigma = 1 - t``: straight lines (Lipman et al. 2023, example II with sigma_min = 0; Liu et
    al. 2023).

    The schedule of equations 20 to 22 of mode proposals.

    Example:
        >>> Linear().sigma(torch.tensor([0.0, 0.25, 1.0])).tolist()
        [1.0, 0.75, 0.0]
    """

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def time(self, level: Tensor) -> Tensor:
        return 1 / (1 + level)


@dataclass(frozen=True)
class Cosine(Path):
    """``alpha = sin(pi t/2), sigma = cos(pi t/2)``: unit variance throughout where the masks have it.

    Nichol and Dhariwal 2021, equation 17, without their offset; the trigonometric interpolant of Albergo and
    Vanden-Eijnden 2023.

    Example:
        >>> Cosine().alpha(torch.tensor([0.0, 1 / 3, 1.0])).round(decimals=3).tolist()
        [0.0, 0.5, 1.0]
    """

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * (1 - t))  # the cosine, and exactly 0 at t = 1

    def d_alpha(self, t: Tensor) -> Tensor:
        return math.pi / 2 * self.sigma(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * self.alpha(t)

    def time(self, level: Tensor) -> Tensor:
        return torch.atan(1 / level) * (2 / math.pi)


@dataclass(frozen=True)
class VariancePreserving(Path):
    """The variance-preserving diffusion, run from noise to mask: ``s = 1 - t`` (Song et al. 2021, equation
    33).

        beta(s) = beta_min + s (beta_max - beta_min),   b(s) = integral_0^s beta
        alpha = exp(-b/2),   sigma = sqrt(1 - exp(-b)),   alpha' = beta alpha/2,   sigma' = -beta alpha^2/(2 sigma)

    At t = 0 alpha is not exactly 0: it is ``exp(-(beta_min + beta_max)/4)``, 0.0066 for the defaults, so that
    N(0, I) is only nearly the distribution of the state. At t = 1 sigma' goes to minus infinity like ``(1 -
    t)^(-1/2)``; it is bounded with ``sigma >= FLOOR`` in its denominator. Fixed steps of equal size lose
    their order on the last one: use a ``grid``.

    Raises:
        AmbisegError: not ``0 < beta_min <= beta_max``.

    Example:
        >>> VariancePreserving().alpha(torch.tensor([0.0, 1.0]))
        tensor([0.0066, 1.0000])
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise AmbisegError(
                f"variance-preserving path: beta_min {self.beta_min}, beta_max {self.beta_max}; "
                "give 0 < beta_min <= beta_max"
            )

    def _beta(self, t: Tensor) -> Tensor:
        return self.beta_min + (1 - t) * (self.beta_max - self.beta_min)

    def _integral(self, t: Tensor) -> Tensor:
        s = 1 - t
        return self.beta_min * s + (self.beta_max - self.beta_min) / 2 * s * s

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def d_alpha(self, t: Tensor) -> Tensor:
        return self._beta(t) / 2 * self.alpha(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return -self._beta(t) / 2 * self.alpha(t).square() / self.sigma(t).clamp(min=FLOOR)

    def time(self, level: Tensor) -> Tensor:
        # sigma^2/alpha^2 = exp(b) - 1, and b is quadratic in s; there is no more noise than at t = 0.
        b = torch.log1p(level.square()).clamp(max=(self.beta_min + self.beta_max) / 2)
        root = torch.sqrt(self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * b)
        return (1 - 2 * b / (self.beta_min + root)).clamp(min=0)


@dataclass(frozen=True)
class VarianceExploding(Path):
    """``alpha = 1, sigma = t``: the state ``y + sigma e`` of Karras et al. (2022), whose time is the noise
    level itself.

    Unlike the times of other paths it falls from a large number, pure noise, to 0, the mask. Its flow is
    ``dx/dsigma = (x - D)/sigma`` (equation 1 there), and a state z of another path is ``z/alpha`` here.

    Example:
        >>> x, mean = torch.full((1, 1), 81.0), torch.ones(1, 1)
        >>> VarianceExploding().velocity(x, mean, torch.tensor([80.0])).tolist()
        [[1.0]]
    """

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def time(self, level: Tensor) -> Tensor:
        return level


PATHS: dict[str, Path] = {
    "linear": Linear(),
    "cosine": Cosine(),
    "variance-preserving": VariancePreserving(),
}
"""The paths by name, with the parameters of their papers."""


def path_named(name: str) -> Path:
    """The path of a name.

    Raises:
        UnknownNameError: no such path; the message suggests the nearest name.

    Example:
        >>> path_named("variance-preserving")
        VariancePreserving(beta_min=0.1, beta_max=20.0)
    """
    if name not in PATHS:
        raise UnknownNameError("path", name, PATHS)
    return PATHS[name]


def c_skip(sigma_edm: Tensor, sigma_data: float) -> Tensor:
    """``sigma_data^2/(sigma^2 + sigma_data^2)``: the share of the state that passes the network by (Karras et
    al. 2022, table 1).

    It is the posterior mean of a mask ``N(0, sigma_data^2)``, so the network starts as the best linear
    estimate.

    Example:
        >>> c_skip(torch.tensor([0.0, 0.5, float("inf")]), 0.5).tolist()
        [1.0, 0.5, 0.0]
    """
    return 1 / (1 + (sigma_edm / sigma_data).square())


def c_out(sigma_edm: Tensor, sigma_data: float) -> Tensor:
    """``sigma sigma_data/sqrt(sigma^2 + sigma_data^2)``: scale of the network's output (Karras et al. 2022,
    table 1).

    Example:
        >>> c_out(torch.tensor([0.0, 0.5, float("inf")]), 0.5)
        tensor([0.0000, 0.3536, 0.5000])
    """
    return sigma_data / torch.sqrt(1 + (sigma_data / sigma_edm).square())


def c_in(sigma_edm: Tensor, sigma_data: float) -> Tensor:
    """``1/sqrt(sigma^2 + sigma_data^2)``: gives the network an input of unit variance (Karras et al. 2022,
    table 1).

    Example:
        >>> c_in(torch.tensor([0.0, 0.5, float("inf")]), 0.5)
        tensor([2.0000, 1.4142, 0.0000])
    """
    return 1 / torch.sqrt(sigma_edm.square() + sigma_data**2)


def c_noise(sigma_edm: Tensor) -> Tensor:
    """``log(sigma)/4``: what the network is told of the noise (Karras et al. 2022, table 1), sigma kept in
    `TOLD`.

    Example:
        >>> c_noise(torch.tensor([0.0, 1.0, float("inf")]))
        tensor([-1.7269,  0.0000,  1.7269])
    """
    return sigma_edm.clamp(*TOLD).log() / 4


def edm_sigma(t: Tensor, path: Path) -> Tensor:
    """The noise level ``sigma_edm = sigma/alpha`` of a path, alpha not taken below FLOOR: finite for t in [0,
    1].

    Example:
        >>> edm_sigma(torch.tensor([0.0, 0.25, 1.0]), Linear()).round().tolist()
        [100000.0, 3.0, 0.0]
    """
    return path.sigma(t) / path.alpha(t).clamp(min=FLOOR)


def edm_loss_weight(t: Tensor, path: Path, sigma_data: float) -> Tensor:
    """Weight of ``|D - y|^2``: ``1/c_out^2 = (sigma_edm^2 + sigma_data^2)/(sigma_edm sigma_data)^2`` (Karras
    et al., table 1).

    With it the loss is ``|F - F*|^2`` for a target F* of unit variance at every t. It grows like
    ``(sigma/alpha)^-2`` towards t = 1; sigma_edm is not taken below FLOOR.

    Example:
        >>> edm_loss_weight(torch.tensor([0.0, 0.5]), Linear(), sigma_data=0.5)
        tensor([4.0000, 5.0000])
    """
    return 1 / c_out(edm_sigma(t, path).clamp(min=FLOOR), sigma_data).square()


def edm_posterior_mean(
    network: Callable[[Tensor, Tensor], Tensor], z: Tensor, t: Tensor, path: Path, sigma_data: float
) -> Tensor:
    """The posterior mean by a preconditioned network F on any path (Karras et al. 2022, equation 7).

        D(z, t) = c_skip z/alpha + c_out F(c_in z/alpha, c_noise),     all c at sigma_edm = sigma/alpha

    At t = 1 it is z whatever F says; where alpha = 0 it is ``sigma_data F(z, c_noise)``, up to FLOOR.

    Args:
        network: F, called with the scaled state ``(B, C, *S)`` and c_noise ``(B,)``; conditions on an image
            are its own.
        z: ``(B, C, *S)``.
        t: ``(B,)``.
        path: where z lies.
        sigma_data: standard deviation of the pixels of the masks; 1 for balanced masks in [-1, 1].

    Example:
        >>> z, nothing = torch.full((2, 1), 3.0), lambda x, noise: torch.zeros_like(x)
        >>> edm_posterior_mean(nothing, z, torch.tensor([0.5, 1.0]), Linear(), 1.0).tolist()
        [[3.0], [3.0]]
    """
    level = edm_sigma(t, path)
    state = z / _over(path.alpha(t).clamp(min=FLOOR), z)
    estimate = network(_over(c_in(level, sigma_data), z) * state, c_noise(level).expand(z.shape[0]))
    return _over(c_skip(level, sigma_data), z) * state + _over(c_out(level, sigma_data), z) * estimate.to(z)


def _over(coefficient: Tensor, z: Tensor) -> Tensor:
    """A coefficient per image, ``(B,)`` or of no axis, ready to multiply ``(B, ...)``."""
    return coefficient.reshape(-1, *[1] * (z.dim() - 1)).to(z)
