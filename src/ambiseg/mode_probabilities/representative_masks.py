"""A few masks that stand for many: the subset of a weighted set, with weights of its own, that is nearest to the whole.

Let the whole be masks ``m_1..m_N`` of weights w, and a subset S of them have weights u. Their squared energy distance
(Szekely and Rizzo 2013) with the distance ``1 - K``, K the matrix of IoUs, is

    E(u) = 2 u^T (1 - K) w - u^T (1 - K) u - w^T (1 - K) w = u^T K u - 2 u^T K w + w^T K w,

as both weights sum to 1: the squared GED of the subset as a prediction and the whole as the annotations. For a given
subset the best weights solve a quadratic problem on the simplex,

    min_u  1/2 u^T K_SS u - u^T (K w)_S    subject to    u >= 0, sum u = 1,

which `least_squares_on_simplex` solves exactly; K is positive semidefinite for two classes (Bouchard, Jousselme and Dore
2013). The subset itself is chosen greedily (a coreset; kernel herding with exact weights, Bach, Lacoste-Julien and Obozinski
2012): ``r = K (w - u)`` says how much a mask is missing from the subset so far; of the masks that are missing most, the one
that lowers E most joins. E never rises with the size of the subset, and is 0 for the whole.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.mode_probabilities.simplex_least_squares import least_squares_on_simplex
from ambiseg.overlap import pairwise_overlap
from ambiseg.ranking import descending, first_largest, stable_order

CANDIDATES = 6
"""Masks that are tried as the next one of a subset: those that are missing most."""


def represent(whole: MaskSet, count: int) -> MaskSet:
    """The ``count`` masks that stand best for a set, each with its probability.

    Args:
        whole: any number of masks, such as samples of equal weight.
        count: at most so many stay; a set that has no more stays as it is.

    Returns:
        The subset, compacted, by descending weight. A mask whose best weight is 0 is not in it.

    Raises:
        AmbisegError: ``count`` below 1.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> drawn = torch.tensor([[[1, 1, 0, 0]] * 3 + [[0, 0, 1, 1]] * 2 + [[1, 0, 0, 0]]])
        >>> few = represent(MaskSet.uniform(drawn, LabelSpace.binary()), 2)
        >>> few.masks.tolist(), [round(float(w), 2) for w in few.weights[0]]
        ([[[1, 1, 0, 0], [0, 0, 1, 1]]], [0.62, 0.38])
    """
    if count < 1:
        raise AmbisegError(f"a set is represented by 1 mask or more, received {count}")
    whole = whole.merge_identical()
    if whole.masks.shape[1] <= count:
        return whole.sort()
    kernel, weights = _kernel(whole), whole.weights.double()
    moment = torch.einsum("bij,bj->bi", kernel, weights)
    chosen = torch.zeros_like(whole.present)
    fitted = torch.zeros_like(weights)
    for size in range(1, count + 1):
        missing = moment - torch.einsum("bij,bj->bi", kernel, fitted)
        missing = missing.masked_fill(chosen | ~whole.present, -torch.inf)
        most = descending(missing)[:, :CANDIDATES]
        some = missing.gather(1, most).isfinite()
        candidates = torch.where(some, most, most[:, :1])  # where fewer are left: the first again
        joins = torch.zeros_like(chosen)[:, None].repeat(1, candidates.shape[1], 1)
        joins.scatter_(2, candidates[..., None], some[:, :1, None].expand(-1, candidates.shape[1], -1))
        trials = chosen[:, None] | joins
        found, energies = _fit(kernel, moment, trials, size)
        best = first_largest(-energies, 1)
        row = torch.arange(best.shape[0], device=best.device)
        chosen, fitted = trials[row, best], found[row, best]
    return replace(whole, weights=fitted.to(whole.weights.dtype)).compact().sort()


def select_and_represent(whole: MaskSet, chosen: Tensor) -> MaskSet:
    """Keep the entries of ``chosen (B, K)``; what is dropped is represented by those that stay.

    Each kept mask keeps its own weight and gets a share of the weight that is dropped: ``u = w_S + v`` with the v >= 0
    of least E among those of the dropped sum. So no mask that was chosen vanishes. Where nothing of an image is chosen,
    its best entry (by score, else by weight) stays.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1, 1, 0], [0, 1, 1, 1], [0, 1, 1, 0]]])
        >>> kept = select_and_represent(MaskSet.uniform(masks, LabelSpace.binary()), torch.tensor([[True, True, False]]))
        >>> [round(float(w), 3) for w in kept.weights[0]]
        [0.5, 0.5]
    """
    kept = whole.with_best_of(chosen)
    dropped = whole.present & ~kept
    mass = (whole.weights * dropped).double().sum(1, keepdim=True)
    if not torch.compiler.is_exporting() and not bool((mass > 0).any()):
        return replace(whole, weights=whole.weights * kept).normalised().compact()
    kernel = _kernel(whole)
    share = (whole.weights * dropped).double() / mass.clamp(min=1e-30)
    moment = torch.einsum("bij,bj->bi", kernel, share)
    found = least_squares_on_simplex(kernel, moment, kept).weights
    weights = whole.weights * kept + (mass * found).to(whole.weights.dtype)
    return replace(whole, weights=weights).normalised().compact()


def _kernel(whole: MaskSet) -> Tensor:
    """IoUs of all pairs, ``(B, K, K)`` float64; 0 with entries that are not there."""
    iou = pairwise_overlap(whole.masks, whole.masks, whole.labels).iou().double()
    return iou * (whole.present[:, :, None] & whole.present[:, None])


def _fit(kernel: Tensor, moment: Tensor, trials: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Best weights of each trial subset ``(B, T, K)`` of at most ``width`` entries, and ``1/2 u^T K u - u^T K w`` of
    them ``(B, T)``."""
    batch, count, size = trials.shape
    order = stable_order((~trials).to(torch.uint8))[..., :width]
    inside = trials.gather(2, order).reshape(batch * count, width)
    rows = order.reshape(batch * count, width)
    flat = kernel[:, None].expand(-1, count, -1, -1).reshape(batch * count, size, size)
    small = flat.gather(1, rows[..., None].expand(-1, -1, size)).gather(
        2, rows[:, None].expand(-1, width, -1)
    )
    right = moment[:, None].expand(-1, count, -1).reshape(batch * count, size).gather(1, rows)
    found = least_squares_on_simplex(small, right, inside).weights
    energies = 0.5 * torch.einsum("bi,bij,bj->b", found, small, found) - (found * right).sum(1)
    weights = torch.zeros(batch * count, size, dtype=torch.float64, device=kernel.device).scatter(
        1, rows, found
    )
    return weights.view(batch, count, size), energies.view(batch, count)
