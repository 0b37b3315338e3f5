"""Steps of normalising flows of latent vectors: invertible maps with known determinants.

Rezende and Mohamed (2015), "Variational inference with normalizing flows". A step f takes z to z', and

    log q(z') = log q(z) - log det df/dz.

Of a latent z of N dimensions, a planar step (appendix A.1 there), with h = tanh, is

    z' = z + u h(w'z + b),    w'u > -1,    log det = log(1 + w'u h'(w'z + b))

For any u of a network, ``u + (m(w'u) - w'u) w / (w'w)`` has m(w'u) > -1 in place of w'u. A radial step (appendix A.2), with
r the distance of z and z0, is

    z' = z + beta (z - z0) / (alpha + r),    alpha > 0,    beta > -alpha
    log det = (N - 1) log(1 + beta / (alpha + r)) + log(1 + alpha beta / (alpha + r)^2)

A coupling step is one of Glow (Kingma and Dhariwal 2018): scale and shift of each dimension, a matrix L U of triangular
ones, and an affine coupling (Dinh et al. 2017), which scales and shifts half of the dimensions by functions of the others.

Rezende and Mohamed have m(x) = softplus(x) - 1 and beta = softplus(b) - alpha. Both are moved along x here, so that 0 is
mapped to 0: where a network says nothing, a step changes nothing. The steps that there are stay the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SHIFT = math.log(math.e - 1)
"""``softplus(SHIFT) = 1``: m(x) = softplus(x + SHIFT) - 1 is 0 at 0."""
BOUND = 2.0
"""Bound b of log-scales and of the entries of matrices, ``b tanh(raw / b)``: three scales multiply at each step, and no
chain of steps may overflow."""
BISECTIONS = 60
"""Halvings of the interval in which the inverse of a planar step is sought; float32 needs fewer."""
HIDDEN = 4
"""Width of the networks of a coupling step (the public code of Selvan et al. 2020)."""
TINY = 1e-30
"""Least value of what is divided by, and of determinants."""


class Step(ABC):
    """One invertible map of latents ``(B, K, N)``, with parameters for each of the B images."""

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``z'`` and ``log |det dz'/dz|`` in nats, ``(B, K)``."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """The z that `forward` takes to this one; not for gradients."""


@dataclass(frozen=True, eq=False)
class Planar(Step):
    """``z + u tanh(w'z + b)`` with w'u above -1.

    Attributes:
        u: ``(B, N)``, before the constraint.
        w: ``(B, N)``.
        b: ``(B,)``.

    Example:
        >>> still = Planar(torch.zeros(1, 3), torch.ones(1, 3), torch.zeros(1))
        >>> z = torch.randn(1, 2, 3)
        >>> torch.equal(still.forward(z)[0], z), still.forward(z)[1].tolist()
        (True, [[0.0, 0.0]])
    """

    u: Tensor
    w: Tensor
    b: Tensor

    def _constrained(self) -> tuple[Tensor, Tensor]:
        """``u^ (B, 1, N)`` and ``m(w'u) (B, 1)``."""
        product = (self.u * self.w).sum(1)
        # softplus(x + SHIFT) - 1 without cancellation near 0, where |w|^2 may be as small.
        near = (-math.expm1(-1) * torch.expm1(product.clamp(max=20))).log1p()
        m = torch.where(product < 20, near, product + SHIFT - 1)
        size = self.w.square().sum(1).clamp(min=TINY)
        u = self.u + ((m - product) / size)[:, None] * self.w
        return u[:, None], m[:, None]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        u, _ = self._constrained()
        h = torch.tanh((z * self.w[:, None]).sum(2) + self.b[:, None])
        stretch = functional.softplus((self.u * self.w).sum(1) + SHIFT)[
            :, None
        ]  # 1 + m, also where m is near -1
        determinant = h.square() + (1 - h.square()) * stretch
        return z + u * h[..., None], determinant.clamp(min=TINY).log()

    def inverse(self, z: Tensor) -> Tensor:
        """``s = w'z`` grows with ``w'z' = s + w'u^ tanh(s + b)``: it is found by halving an interval."""
        u, m = self._constrained()
        target, b = (z * self.w[:, None]).sum(2), self.b[:, None]
        low, high = target - m.abs(), target + m.abs()
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            above = middle + m * torch.tanh(middle + b) > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return z - u * torch.tanh((low + high) / 2 + b)[..., None]


@dataclass(frozen=True, eq=False)
class Radial(Step):
    """``z + beta (z - z0) / (alpha + r)`` with ``alpha = softplus(a)`` and ``beta = softplus(a + b) - alpha``.

    Attributes:
        centre: z0, ``(B, N)``.
        a: ``(B,)``.
        b: ``(B,)``.

    Example:
        >>> still = Radial(torch.ones(1, 3), torch.zeros(1), torch.zeros(1))
        >>> z = torch.randn(1, 2, 3)
        >>> torch.equal(still.forward(z)[0], z), still.forward(z)[1].tolist()
        (True, [[0.0, 0.0]])
    """

    centre: Tensor
    a: Tensor
    b: Tensor

    def _numbers(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``z - z0``, r, alpha and alpha + beta, which is above 0 as well."""
        offset = z - self.centre[:, None]
        alpha, total = (functional.softplus(raw)[:, None] for raw in (self.a, self.a + self.b))
        return offset, torch.linalg.vector_norm(offset, dim=2), alpha, total

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        offset, r, alpha, total = self._numbers(z)
        room = (alpha + r).clamp(min=TINY)
        across = ((r + total) / room).clamp(min=TINY)  # 1 + beta / (alpha + r)
        along = 1 + alpha * (total - alpha) / room.square()  # d (r + beta r / (alpha + r)) / dr
        log_det = (z.shape[2] - 1) * across.log() + along.clamp(min=TINY).log()
        return z + ((total - alpha) / room)[..., None] * offset, log_det

    def inverse(self, z: Tensor) -> Tensor:
        """``r' = r + beta r / (alpha + r)`` is a quadratic equation of r."""
        offset, far, alpha, total = self._numbers(z)
        half = (far - total) / 2
        r = half + (half.square() + alpha * far).sqrt()
        return self.centre[:, None] + ((alpha + r) / (r + total))[..., None] * offset


@dataclass(frozen=True, eq=False)
class Coupling(Step):
    """Scale and shift, the matrix L U, and an affine coupling.

    Attributes:
        log_scale, shift: ``(B, N)``.
        matrix: ``(B, N, N)``: the lower triangle is that of L, whose diagonal is 1; the upper one is that of U; the
            diagonal is the logarithm of that of U.
        network: log-scale and shift of the dimensions that change, from ``(B, K, .)`` of the others and the context.
        context: ``(B, F)`` for the network.
        odd: 0: the even dimensions (from 0) change the odd ones; 1: these the even ones.
    """

    log_scale: Tensor
    shift: Tensor
    matrix: Tensor
    network: CouplingNetwork
    context: Tensor
    odd: int

    def _triangles(self) -> tuple[Tensor, Tensor, Tensor]:
        """L and U ``(B, N, N)``, and the logarithm of the determinant of U, ``(B,)``."""
        entries = _bounded(self.matrix)
        diagonal = entries.diagonal(dim1=1, dim2=2)
        lower = entries.tril(-1) + torch.eye(entries.shape[1], device=entries.device)
        return lower, entries.triu(1) + torch.diag_embed(diagonal.exp()), diagonal.sum(1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        scale, (lower, upper, log_det) = _bounded(self.log_scale), self._triangles()
        z = (z * scale.exp()[:, None] + self.shift[:, None]) @ (lower @ upper).mT
        kept, changed = z[..., self.odd :: 2], z[..., 1 - self.odd :: 2]
        log_scale, shift = self.network(kept, self.context)
        z = self._woven(kept, changed * log_scale.exp() + shift)
        return z, (scale.sum(1) + log_det)[:, None] + log_scale.sum(2)

    def inverse(self, z: Tensor) -> Tensor:
        kept, changed = z[..., self.odd :: 2], z[..., 1 - self.odd :: 2]
        log_scale, shift = self.network(kept, self.context)
        z = self._woven(kept, (changed - shift) * (-log_scale).exp())
        lower, upper, _ = self._triangles()
        solved = torch.linalg.solve_triangular(lower, z.mT, upper=False, unitriangular=True)
        z = torch.linalg.solve_triangular(upper, solved, upper=True).mT
        return (z - self.shift[:, None]) * (-_bounded(self.log_scale)).exp()[:, None]

    def _woven(self, kept: Tensor, changed: Tensor) -> Tensor:
        """All dimensions in their order."""
        z = kept.new_empty(*kept.shape[:2], kept.shape[2] + changed.shape[2])
        z[..., self.odd :: 2], z[..., 1 - self.odd :: 2] = kept, changed
        return z


class CouplingNetwork(nn.Module):
    """Log-scale and shift of the affine coupling.

    Args:
        kept: how many dimensions stay.
        changed: how many change.
        context: size F of the context.
    """

    def __init__(self, kept: int, changed: int, context: int) -> None:
        super().__init__()
        self.condition = nn.Linear(context, kept)
        self.log_scale, self.shift = (_perceptron(2 * kept, changed) for _ in range(2))

    def forward(self, kept: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.condition(context)[:, None].expand_as(kept)
        both = torch.cat([kept, seen], 2)
        return _bounded(self.log_scale(both)), self.shift(both)


def _bounded(raw: Tensor) -> Tensor:
    """Within plus and minus `BOUND`, smoothly; near 0 the value itself."""
    return BOUND * torch.tanh(raw / BOUND)


def _perceptron(inputs: int, outputs: int) -> nn.Sequential:
    widths = [inputs, HIDDEN, HIDDEN, HIDDEN]
    hidden = [[nn.Linear(*pair), nn.LeakyReLU(0.2)] for pair in zip(widths, widths[1:], strict=False)]
    return nn.Sequential(*(layer for pair in hidden for layer in pair), nn.Linear(HIDDEN, outputs))
