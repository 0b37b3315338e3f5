"""Couplings of samples and annotations: which sample learns from which annotation, and how much.

Gao, Chen, Zhang and He (2023), "Modeling multimodal aleatoric uncertainty in segmentation with mixture of
stochastic experts", equations 6 and 7 and appendix A.1. Notation as there: costs C of N samples against M
annotations, weights v of the annotations, cap gamma on the mass of a sample.

    P* = argmin_{P in U'} sum_ij P_ij C_ij,    U' = {P >= 0 : P 1_M <= gamma, P^T 1_N = v}               (7)

With gamma = 1 each annotation goes to its nearest sample. With gamma = 1/N every sample gets as much as any
other, and the problem is optimal transport between uniform samples and the annotations. In between it is a
linear programme, solved exactly by `exact_coupling` and greedily by `capped_coupling`. Below 1/N nothing
satisfies both constraints. Annotations of weight 0 are padding and get nothing; no gradient passes.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import eye, kron
from torch import Tensor

from ambiseg.errors import AmbisegError

CAP_TOLERANCE = 1e-6
"""How far the cap may lie below 1/N by rounding."""


@torch.no_grad()
def capped_coupling(cost: Tensor, weights: Tensor, cap: float) -> Tensor:
    """A coupling of (7) by the greedy rule of appendix A.1.

    Annotations in ascending order of their least cost; each hands its mass to samples in ascending order of
    their cost, as far as the cap leaves room. For gamma = 1 that is the optimum.

    Args:
        cost: C, ``(B, N, M)``.
        weights: v, ``(B, M)``, each row sums to 1, or to 0 for an image without annotation.
        cap: gamma, 1/N to 1.

    Returns:
        P, ``(B, N, M)``.

    Raises:
        AmbisegError: a cap below 1/N.

    Example:
        >>> cost = torch.tensor([[[0.1, 0.2], [0.5, 0.9]]])
        >>> capped_coupling(cost, torch.tensor([[0.5, 0.5]]), cap=1.0)[0]
        tensor([[0.5000, 0.5000],
                [0.0000, 0.0000]])
        >>> capped_coupling(cost, torch.tensor([[0.5, 0.5]]), cap=0.5)[0]
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    _check(cost, cap)
    if cap >= 1:
        return torch.zeros_like(cost).scatter_(1, cost.argmin(1, keepdim=True), weights[:, None].to(cost))
    coupling, room = torch.zeros_like(cost), torch.full_like(cost[:, :, 0], cap)
    for annotation in cost.amin(1).argsort(dim=1, stable=True).unbind(1):
        where = annotation[:, None, None].expand(-1, cost.shape[1], 1)
        nearest = cost.gather(2, where)[:, :, 0].argsort(dim=1, stable=True)
        free, mass = room.gather(1, nearest), weights.gather(1, annotation[:, None]).to(cost)
        moved = (mass - (free.cumsum(1) - free)).clamp(min=0).minimum(free)
        room.scatter_(1, nearest, free - moved)
        coupling.scatter_(2, where, torch.zeros_like(free).scatter_(1, nearest, moved)[..., None])
    return coupling


@torch.no_grad()
def exact_coupling(cost: Tensor, weights: Tensor, cap: float) -> Tensor:
    """An optimal coupling of (7), by linear programming image by image (HiGHS); arguments and result as of
    `capped_coupling`.

    Raises:
        AmbisegError: a cap below 1/N, or costs that are not finite.

    Example:
        >>> cost = torch.tensor([[[0.1, 0.2], [0.2, 0.9]]])
        >>> exact_coupling(cost, torch.tensor([[0.5, 0.5]]), cap=0.5)[0]
        tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]])
    """
    _check(cost, cap)
    samples, annotations = cost.shape[1:]
    rows = kron(eye(samples), np.ones((1, annotations)), format="csr")
    columns = kron(np.ones((1, samples)), eye(annotations), format="csr")
    found = []
    for c, v in zip(cost.double().cpu().numpy(), weights.double().cpu().numpy(), strict=True):
        if not np.isfinite(c).all():
            raise AmbisegError("the costs of a coupling must be finite, found nan or infinity")
        total = v.sum()
        if total == 0:
            found.append(np.zeros_like(c))
            continue
        result = linprog(
            c.ravel(),
            A_ub=rows,
            b_ub=np.full(samples, max(cap, 1 / samples)),
            A_eq=columns,
            b_eq=v / total,
            method="highs",
        )
        if result.x is None:
            raise AmbisegError(
                f"no coupling of {samples} samples with a cap of {cap} was found: {result.message}"
            )
        found.append(np.abs(result.x).reshape(c.shape) * total)
    return torch.from_numpy(np.stack(found)).to(cost)


@torch.no_grad()
def merge_groups(similarity: Tensor, threshold: float) -> Tensor:
    """Groups of experts that are alike, directly or through others (algorithm 2).

    Args:
        similarity: symmetric ``(B, K, K)``.
        threshold: G_0; two experts are alike where their similarity is at least this.

    Returns:
        ``(B, K)``, the least number of an expert in the same group.

    Example:
        >>> merge_groups(torch.tensor([[[1.0, 0.2, 0.9], [0.2, 1.0, 0.3], [0.9, 0.3, 1.0]]]), 0.9)
        tensor([[0, 1, 0]])
    """
    count = similarity.shape[1]
    alike = (similarity >= threshold) | torch.eye(count, dtype=torch.bool, device=similarity.device)
    reached = alike.float()
    for _ in range((count - 1).bit_length()):
        reached = ((reached @ reached) > 0).float()
    return reached.argmax(2)


def _check(cost: Tensor, cap: float) -> None:
    samples = cost.shape[1]
    if not cap * samples >= 1 - CAP_TOLERANCE:
        raise AmbisegError(
            f"{samples} samples with at most {cap:g} each cannot take all annotations: the cap is 1/{samples} or more"
        )
