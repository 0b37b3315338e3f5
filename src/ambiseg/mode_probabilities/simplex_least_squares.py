"""Least squares over the probability simplex, exactly, for a batch of images at once.

    min_p 1/2 p^T G p - b^T p    subject to    p >= 0,  sum_i p_i = 1

is what velocity decomposition solves (mode proposals, equation 22), ``G = M^T M`` and ``b = M^T y`` for a
matrix of modes M and a mean y. With ``g = G p - b`` and ``mu = p^T g`` the solution is where (Karush, Kuhn
and Tucker)

    g_i >= mu for every i,    p_i (g_i - mu) = 0,    p >= 0,    sum_i p_i = 1.

Solver: a primal active-set method, Wolfe's search for the point of a polytope that is nearest to another one
(Wolfe 1976) written with G and b alone. An entry joins the support S only if ``g_i < mu``, hence it is
affinely independent of those in S and the equations of S have one solution; entries whose weight would fall
below 0 leave. All images step together.

Several solutions: all of them share g, so they are ``{p >= 0: p = p* + N a}`` with N the directions in the
null space of G that keep the sum and touch only entries with ``g_i = mu``. Of those the one of least norm is
a least-distance problem in a, solved through non-negative least squares (Lawson and Hanson 1974, chapter 23).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.mode_probabilities.simplex_pivoting import pivoted

STATIONARY = 1e-10
"""An entry joins the support if its gradient is this much below the support's, relative to the gradient's
parts."""
TIED = 1e-8
"""Entries outside the support count as equally good up to this, relative to the gradient's parts."""
DEPENDENT = 1e-10
"""Directions with a smaller share of the curvature count as directions without any: modes are dependent along
them."""
RIDGE = 1e-14
"""Relative addition to the diagonal inside the solver: a direction without curvature is followed until it
meets a bound."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SimplexSolution:
    """What `least_squares_on_simplex` found.

    Attributes:
        weights: ``(B, M)`` float64, non-negative, sum 1; 0 where no entry is present.
        residual: ``(B,)`` float64, the largest violation of the four conditions above, the first two divided
            by ``max(|G p|, |b|)``.
        unique: ``(B,)`` bool, whether no other weights are as good.
    """

    weights: Tensor
    residual: Tensor
    unique: Tensor


def least_squares_on_simplex(gram: Tensor, moment: Tensor, present: Tensor) -> SimplexSolution:
    """Minimise ``1/2 p^T G p - b^T p`` over ``p >= 0, sum p = 1`` (mode proposals, equation 22), each image
    by itself.

    Where the entries are dependent, there are many minimisers and the one of least Euclidean norm is
    returned: identical entries share their mass evenly. Computed in float64 on the CPU and returned on the
    device of ``gram``.

    Args:
        gram: ``(B, M, M)`` G, symmetric and positive semidefinite.
        moment: ``(B, M)`` b.
        present: ``(B, M)`` bool, which entries are there; the others get weight 0.

    Raises:
        AmbisegError: shapes that do not belong together, numbers that are not finite, or an image without any
            entry.

    Example:
        >>> found = least_squares_on_simplex(torch.eye(3)[None], torch.tensor([[0.9, 0.5, 0.0]]), torch.ones(1, 3) > 0)
        >>> found.weights, found.unique
        (tensor([[0.7000, 0.3000, 0.0000]], dtype=torch.float64), tensor([True]))
        >>> same = least_squares_on_simplex(torch.ones(1, 2, 2), torch.ones(1, 2), torch.ones(1, 2) > 0)
        >>> same.weights, same.unique
        (tensor([[0.5000, 0.5000]], dtype=torch.float64), tensor([False]))
    """
    if torch.compiler.is_exporting():
        return _while_exporting(gram, moment, present)
    batch, count = moment.shape if moment.dim() == 2 else (-1, -1)
    if tuple(gram.shape) != (batch, count, count) or tuple(present.shape) != (batch, count):
        raise AmbisegError(
            f"gram {tuple(gram.shape)}, moment {tuple(moment.shape)} and present {tuple(present.shape)} do not fit:"
            " pass (B, M, M), (B, M) and (B, M)"
        )
    there = present.detach().cpu().numpy().astype(bool)
    if not there.any(1).all():
        raise AmbisegError(
            f"image {int((~there.any(1)).argmax())} has no entry to give probability to: pass at least one per image"
        )
    both = there[:, :, None] & there[:, None, :]
    g = np.where(both, gram.detach().cpu().double().numpy(), 0.0)
    b = np.where(there, moment.detach().cpu().double().numpy(), 0.0)
    if not (np.isfinite(g).all() and np.isfinite(b).all()):
        raise AmbisegError(
            "gram and moment must be finite, found nan or infinity: look at what made the mean"
        )
    g = (g + g.swapaxes(1, 2)) / 2
    size = np.maximum(np.abs(g).max((1, 2)), np.abs(b).max(1))
    size[size == 0] = 1.0
    g, b = g / size[:, None, None], b / size[:, None]
    weights = _active_set(g, b, there)
    unique = np.ones(batch, dtype=bool)
    for i in range(batch):
        weights[i], unique[i] = _least_norm(g[i], b[i], there[i], weights[i])
    residual = _violation(g, b, there, weights)
    device = gram.device
    return SimplexSolution(
        torch.from_numpy(weights).to(device),
        torch.from_numpy(residual).to(device),
        torch.from_numpy(unique).to(device),
    )


def _while_exporting(gram: Tensor, moment: Tensor, present: Tensor) -> SimplexSolution:
    """The same solver as part of an exported model; the residual and whether others are as good are not computed."""
    weights = pivoted(gram, moment, present)
    batch = weights.shape[0]
    return SimplexSolution(weights, weights.new_zeros(batch), present.new_ones(batch))


def _parts(g: Array, b: Array, p: Array) -> tuple[Array, Array]:
    """The gradient ``G p - b`` and the size ``max(|G p|, |b|)`` of its parts, ``(..., M)`` and ``(...,
    1)``."""
    product = np.einsum("...ij,...j->...i", g, p)
    size = np.maximum(np.abs(product).max(-1, keepdims=True), np.abs(b).max(-1, keepdims=True))
    return product - b, np.maximum(size, np.finfo(float).tiny)


def _violation(g: Array, b: Array, there: NDArray[np.bool_], p: Array) -> Array:
    """The largest violation of the conditions of an optimum, ``(B,)``."""
    gradient, size = _parts(g, b, p)
    slack = (gradient - (p * gradient).sum(-1, keepdims=True)) / size
    worst = np.stack([np.where(there, -slack, 0), np.abs(p * slack), -p]).max((0, 2))
    violation: Array = np.maximum(np.maximum(worst, np.abs(p.sum(-1) - 1)), 0)
    return violation


def _active_set(g: Array, b: Array, there: NDArray[np.bool_]) -> Array:
    """Wolfe's method for all problems in step; those that are done leave the batch."""
    batch, count = b.shape
    alone = np.where(there, np.einsum("bii->bi", g) / 2 - b, np.inf)
    p = np.zeros((batch, count))
    p[np.arange(batch), alone.argmin(1)] = 1.0
    support = p > 0
    stepping = np.zeros(batch, dtype=bool)
    open_ = np.arange(batch)
    for _ in range(20 * count + 50):
        # Problems whose weights solve the equations of their support take in one more entry, or are done.
        at_minimum = open_[~stepping[open_]]
        if len(at_minimum):
            gradient, size = _parts(g[at_minimum], b[at_minimum], p[at_minimum])
            slack = (gradient - (p[at_minimum] * gradient).sum(-1, keepdims=True)) / size
            slack[~there[at_minimum] | support[at_minimum]] = np.inf
            enters = slack.argmin(1)
            better = slack[np.arange(len(at_minimum)), enters] < -STATIONARY
            support[at_minimum[better], enters[better]] = True
            stepping[at_minimum[better]] = True
            open_ = open_[stepping[open_]]
        if not len(open_):
            break
        target = _solve(g[open_], b[open_], support[open_])
        now, inside = p[open_], support[open_]
        falling = inside & (target <= 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(falling, now / (now - target), np.inf)
        reach[falling & (now <= 0)] = 0.0
        step = reach.min(1, keepdims=True)
        whole = step[:, 0] >= 1
        moved = np.where(whole[:, None], target, now + np.minimum(step, 1) * (target - now))
        left = ~whole[:, None] & falling & (reach <= step)
        inside &= ~left
        moved[~inside] = 0.0
        moved = np.maximum(moved, 0.0)
        p[open_] = moved / moved.sum(1, keepdims=True)
        support[open_] = inside
        stepping[open_[whole]] = False
    return p


def _solve(g: Array, b: Array, support: NDArray[np.bool_]) -> Array:
    """Weights that minimise over the support alone, sum 1 but of any sign: ``[G 1; 1^T 0] [p; mu] = [b;
    1]``."""
    batch, count = b.shape
    width = int(support.sum(1).max())
    order = np.argsort(~support, axis=1, kind="stable")[:, :width]
    inside = np.take_along_axis(support, order, 1)
    rows = np.arange(batch)[:, None]
    system = np.zeros((batch, width + 1, width + 1))
    small = g[rows[:, :, None], order[:, :, None], order[:, None, :]]
    system[:, :width, :width] = small * (inside[:, :, None] & inside[:, None, :])
    diagonal = np.arange(width)
    system[:, diagonal, diagonal] += np.where(inside, RIDGE, 1.0)
    system[:, :width, width] = system[:, width, :width] = inside
    right = np.concatenate([np.take_along_axis(b, order, 1) * inside, np.ones((batch, 1))], 1)
    solved = np.linalg.solve(system, right[:, :, None])[:, :width, 0]
    target = np.zeros((batch, count))
    np.put_along_axis(target, order, np.where(inside, solved, 0.0), 1)
    return target


def _least_norm(g: Array, b: Array, there: NDArray[np.bool_], p: Array) -> tuple[Array, bool]:
    """Among all weights as good as ``p (M,)``, those of least norm; and whether there was only one choice."""
    gradient, size = _parts(g, b, p)
    tied = there & ((p > 0) | ((gradient - p @ gradient) / size <= TIED))
    free = np.flatnonzero(tied)
    null = _still(g[np.ix_(free, free)])
    if null.shape[1] == 0:
        return p, True
    least = _nearest(p[free], null, np.zeros(len(free)))
    weights = np.zeros_like(p)
    weights[free] = least
    # One choice only: no direction within the support, and none that raises an entry outside it.
    inside = least > TIED
    if _still(g[np.ix_(free[inside], free[inside])]).shape[1]:
        return weights, False
    other = _nearest(least, null, least + ~inside)
    return weights, bool(np.abs(other - least).max() <= 1e-6)


def _still(g: Array) -> Array:
    """Orthonormal directions ``(L, n)`` along which ``p^T G p`` does not change and the sum of p stays."""
    scale = max(float(np.trace(g)), np.finfo(float).tiny)
    values, vectors = np.linalg.eigh(g / scale + 1.0 / len(g))
    null: Array = vectors[:, values <= DEPENDENT]
    return null


def _nearest(p: Array, null: Array, target: Array) -> Array:
    """The point of ``{p + N a >= 0}`` that is nearest to ``target``, all ``(L,)``: least distance
    programming."""
    base = p + null @ (null.T @ (target - p))
    # min |a| subject to N a >= -base, through min |E u - f| over u >= 0 with E = [N^T; -base^T], f = (0, ...,
    # 0, 1).
    system = np.concatenate([null.T, -base[None]])
    right = np.zeros(len(system))
    right[-1] = 1.0
    found, _ = nnls(system, right, maxiter=50 * len(p) + 100)
    rest = system @ found - right
    point = np.maximum(base - null @ (rest[:-1] / rest[-1]), 0.0)
    nearest: Array = point / point.sum()
    return nearest
