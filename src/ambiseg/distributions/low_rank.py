"""A normal distribution of many variables whose covariance is a diagonal plus a few directions, and the
effective rank.

Monteiro, Le Folgoc, Coelho de Castro, Pawlowski, Marques, Kamnitsas, van der Wilk and Glocker (2020),
"Stochastic segmentation networks". Notation of De Sousa Ribeiro et al. (2025), "Flow stochastic segmentation
networks", section 3: logits ``eta`` of D variables (pixels times channels), mean ``mu``, positive diagonal
``D``, factor ``P (D, r)``.

    Sigma = D + P P^T                                                                        (2)
    eta = mu + P e1 + D^(1/2) e2,    e1 ~ N(0, I_r),  e2 ~ N(0, I_D)

No D x D matrix is ever built. With ``W = D^(-1/2) P`` and ``w = D^(-1/2) (eta - mu)`` the matrix determinant
lemma and Woodbury's identity need the r x r matrix ``I + W^T W`` alone:

    log |Sigma| = log |D| + log |I + W^T W|
    (eta - mu)^T Sigma^-1 (eta - mu) = |w|^2 - w^T W (I + W^T W)^-1 W^T w = min_z |w - W z|^2 + |z|^2

``I + W^T W = R^T R`` is positive definite whatever W is, but rounding may take that from the product. So its
triangular factor R comes from the QR decomposition of W stacked on I, which exists always, and the quadratic
form is the squared residual of that least-squares problem, which cannot fall below 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError


@dataclass(frozen=True, eq=False)
class LowRankNormal:
    """``N(mu, D + P P^T)`` for every image of a batch, in factor form.

    Monteiro et al. (2020), "Stochastic segmentation networks", equations 4 and 5. Gradients reach all three
    parameters.

    Attributes:
        mean: mu, ``(B, D)``.
        diagonal: D, ``(B, D)``, above 0.
        factor: P, ``(B, D, r)`` with ``1 <= r <= D``; r = D can be any covariance.

    Raises:
        AmbisegError: shapes that do not belong together, a rank below 1 or above D.

    Example:
        >>> distribution = LowRankNormal(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([[[2.0], [2.0]]]))
        >>> distribution.covariance()
        tensor([[[5., 4.],
                 [4., 5.]]])
        >>> distribution.sample(6, torch.Generator().manual_seed(0)).shape
        torch.Size([1, 6, 2])
        >>> distribution.log_prob(torch.zeros(1, 2)).exp().round(decimals=4)
        tensor([0.0531])
    """

    mean: Tensor
    diagonal: Tensor
    factor: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(value.shape) for value in (self.mean, self.diagonal, self.factor)]
        if self.mean.dim() != 2 or shapes[1] != shapes[0] or shapes[2][:-1] != shapes[0]:
            raise AmbisegError(
                f"mean, diagonal and factor of shapes {shapes} do not fit: pass (B, D), (B, D) and (B, D, r)"
            )
        if not 1 <= self.rank <= shapes[0][1]:
            raise AmbisegError(
                f"a factor of rank {self.rank} does not fit {shapes[0][1]} variables: choose a rank from 1 to {shapes[0][1]}"
            )

    @property
    def rank(self) -> int:
        """Columns r of the factor."""
        return self.factor.shape[-1]

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        antithetic: bool = False,
        temperature: float = 1.0,
        rank: int | None = None,
    ) -> Tensor:
        """``mu + temperature (P_k e1 + D^(1/2) e2)``, with ``P_k`` the part of P of the largest ``k``
        singular values.

        The same generator gives the same e1 and e2 whatever temperature and rank are, so that their effect
        can be seen on one sample.

        Args:
            n: how many.
            generator: source of randomness, on any device; None is the global one.
            antithetic: the second half mirrors the first at the mean, so that the mean of an even number is
                mu itself.
            temperature: 0 gives the mean, 1 the distribution.
            rank: k, directions to keep; None keeps all.

        Returns:
            ``(B, n, D)``.

        Raises:
            AmbisegError: n below 1, a temperature below 0, a rank outside 1..r.
        """
        if n < 1:
            raise AmbisegError(f"a sample has at least one draw, received {n}")
        if not 0 <= temperature < math.inf:
            raise AmbisegError(f"the temperature is 0 or more, received {temperature}")
        drawn, like = (n + 1) // 2 if antithetic else n, self.mean
        batch, size = like.shape

        def noise(width: int) -> Tensor:
            e = standard_normal((batch, drawn, width), like.device, generator, like.dtype)
            return torch.cat([e, -e], 1)[:, :n] if antithetic else e

        with torch.autocast(like.device.type, enabled=False):
            factor = self.factor if rank is None else self.truncated(rank).factor
            deviation = torch.einsum("bdr,bnr->bnd", factor, noise(self.rank))
            deviation = deviation + self.diagonal.sqrt()[:, None] * noise(size)
        return self.mean[:, None] + temperature * deviation

    def truncated(self, rank: int) -> LowRankNormal:
        """The distribution with the best approximation of P of a smaller rank: ``P V_k V_k^T``, V the right
        singular vectors of P.

        The factor keeps its shape, so that the same noise gives a similar sample.

        Raises:
            AmbisegError: a rank outside 1..r.
        """
        if not 1 <= rank <= self.rank:
            raise AmbisegError(
                f"a factor of rank {self.rank} cannot be cut to rank {rank}: choose 1 to {self.rank}"
            )
        if rank == self.rank:
            return self
        v = torch.linalg.svd(self.factor.double(), full_matrices=False).Vh[:, :rank].mT
        factor = (self.factor.double() @ (v @ v.mT)).to(self.factor.dtype)
        return LowRankNormal(self.mean, self.diagonal, factor)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, ``-1/2 (D log 2 pi + log |Sigma| + (x - mu)^T Sigma^-1 (x - mu))``.

        Args:
            x: ``(B, D)`` or ``(B, n, D)``.

        Returns:
            ``(B,)`` or ``(B, n)``, in the precision of the mean; computed in double precision.
        """
        points = x if x.dim() == 3 else x[:, None]
        scale = self.diagonal.double().sqrt()
        q, r = self._capacitance()
        w = (points.double() - self.mean.double()[:, None]) / scale[:, None]
        stacked = torch.cat([w, w.new_zeros(*w.shape[:2], self.rank)], 2)
        residual = stacked - (stacked @ q) @ q.mT
        distance = residual.square().sum(2)
        value = -0.5 * (distance + self._log_volume(r)[:, None])
        return (value if x.dim() == 3 else value[:, 0]).to(self.mean.dtype)

    def entropy(self) -> Tensor:
        """``1/2 (D (1 + log 2 pi) + log |Sigma|)`` in nats, ``(B,)``."""
        size = self.mean.shape[1]
        return 0.5 * (size + self._log_volume(self._capacitance()[1])).to(self.mean.dtype)

    def covariance(self) -> Tensor:
        """``D + P P^T``, ``(B, D, D)``; for few variables only."""
        return torch.diag_embed(self.diagonal) + self.factor @ self.factor.mT

    def effective_rank(self) -> Tensor:
        """Effective rank of ``P P^T``, the diagonal left out, from the singular values of P: ``(B,)``; see
        `effective_rank`."""
        return _effective_rank(torch.linalg.svdvals(self.factor.double()).square())

    def _capacitance(self) -> tuple[Tensor, Tensor]:
        """Q ``(B, D + r, r)`` and R ``(B, r, r)`` with ``Q R = [W; I]``, so that ``R^T R = I + W^T W``;
        double precision."""
        w = self.factor.double() / self.diagonal.double().sqrt()[..., None]
        eye = torch.eye(self.rank, dtype=w.dtype, device=w.device).expand(len(w), -1, -1)
        q, r = torch.linalg.qr(torch.cat([w, eye], 1))
        return q, r

    def _log_volume(self, r: Tensor) -> Tensor:
        """``D log 2 pi + log |Sigma|``, ``(B,)``."""
        diagonal = self.diagonal.double().log().sum(1)
        capacitance = 2 * r.diagonal(dim1=1, dim2=2).abs().log().sum(1)
        return self.mean.shape[1] * math.log(2 * math.pi) + diagonal + capacitance


def effective_rank(matrix: Tensor) -> Tensor:
    """How many directions matter: the exponential of the entropy of the normalised singular values.

        erank(A) = exp(- sum_i p_i log p_i),    p_i = sigma_i / sum_j sigma_j

    Roy and Vetterli (2007), "The effective rank: a measure of effective dimensionality"; definition 4.2 of De
    Sousa Ribeiro et al. (2025). Between 1 and the rank; of a covariance the singular values are the
    eigenvalues. 0 for a matrix of zeros.

    Args:
        matrix: a spectrum of singular values ``(N,)``, or matrices ``(..., N, M)``.

    Returns:
        A scalar, or ``(...)``, float64.

    Raises:
        AmbisegError: values that are not finite, or a spectrum with values below 0.

    Example:
        >>> effective_rank(torch.tensor([4.0, 4.0, 4.0, 4.0]))
        tensor(4., dtype=torch.float64)
        >>> effective_rank(torch.diag(torch.tensor([9.0, 1.0]))).round(decimals=3)
        tensor(1.3840, dtype=torch.float64)
    """
    values = matrix.double()
    if not bool(values.isfinite().all()):
        raise AmbisegError("the effective rank needs finite numbers, received nan or infinity")
    if values.dim() != 1:
        return _effective_rank(torch.linalg.svdvals(values))
    if bool((values < 0).any()):
        raise AmbisegError(
            f"singular values are 0 or more, received {float(values.min()):.4g}: pass the matrix itself, or absolute values"
        )
    return _effective_rank(values)


def _effective_rank(spectrum: Tensor) -> Tensor:
    """Of singular values at the last axis."""
    total = spectrum.sum(-1)
    share = spectrum / total.clamp(min=torch.finfo(spectrum.dtype).tiny)[..., None]
    return torch.where(total > 0, torch.special.entr(share).sum(-1).exp(), 0.0)
