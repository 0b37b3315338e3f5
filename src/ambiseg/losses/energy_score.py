r"""The energy score of weighted soft masks: a loss for the set and its probabilities together.

For masks ``s_k`` of probabilities ``p_k`` and one observed mask ``y``,

    ES(P, y) = 2 sum_k p_k d(s_k, y) - sum_kl p_k p_l d(s_k, s_l).

Known: it is a proper score (Gneiting and Raftery 2007, section 5.1), its mean over y less ``sum_ij v_i v_j
d(y_i, y_j)`` is the squared energy distance of the two distributions (Szekely and Rizzo 2013), and with ``d =
1 - IoU`` that is the GED by which the field compares sets of masks (Bellemare et al. 2017). Ours: it trains
the masks and probabilities of one forward pass, with a soft d of all pairs from matrix products. One
annotation per image is enough: the expected gradient is that of all of them.

For soft masks ``|a| = sum a``, ``I_c = <a_c, b_c>``, ``U_c = |a_c| + |b_c| - I_c``, over the evaluated
classes

    d_iou  = sum_c (U_c - I_c) / max(U_c, 1) / max(1, sum_c min(U_c, 1)),

``d_dice`` the same with ``max(U_c + I_c, 1)``. Of hard masks that is one minus the IoU (Dice) of
`ambiseg.overlap`: a class absent from both is left out, two empty masks agree. A soft mask stands for
independent draws of its pixels, and lies at a distance of itself: the diagonal k = l counts like any other
pair, so one mask and two copies of half its weight score alike. So a soft mask scores as a whole distribution
of noisy masks; where there are fewer proposals than the truth has masks that helps the score, and hurts once
the masks are decided: `trained_score` shows weights decided masks alone. The set is the whole distribution,
not a sample of it, so nothing is biased. Where masks are draws of a distribution (``draws``), pairs of a draw
with itself are left out.

Two more:

    d_js     = sqrt( mean over pixels of the Jensen-Shannon divergence / log 2 )
    d_scales = mean of d_iou and the same of masks averaged over blocks of 2, 4 and 8 pixels, these with |a| = sum a^2

d_js has the gradients of a cross-entropy; of hard masks it is the root of the share of pixels that differ,
the classical energy score of vectors. (Without the root the score would see pixel-wise means alone.) d_scales
also tells a near miss from a far one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

BLOCK_SIZES = (2, 4, 8)
"""Sides in pixels of the blocks that are averaged at the coarser scales."""
ROOT_SMOOTHING = 1e-3
"""Distances below this are smoothed where a root would have no slope."""
LEAST_PROBABILITY = 1e-6
"""Probabilities below this have the entropy of this one."""


def energy_score(
    masks: Tensor, weights: Tensor, annotations: MaskSet, kernel: str = "iou", draws: int = 1
) -> Tensor:
    """Energy score of weighted soft masks against annotations; smaller is better, gradients reach masks and
    weights.

    Args:
        masks: class probabilities ``(B, M, C, *S)``; of two channels for two classes the foreground counts.
        weights: ``(B, M)``, rows sum to 1.
        annotations: what was observed, with its weights. Pixels that are void in one of an image's masks are
            left out.
        kernel: distance ``iou``, ``dice``, ``jensen-shannon`` or ``scales``.
        draws: S, where the masks are S draws of equal weight from each of M / S distributions, one
            distribution after the other: the score of the mixture of these distributions, without bias for S
            > 1. S = 1: of the masks themselves.

    Returns:
        ``(B,)`` float32, the mean over the annotations by weight.

    Example:
        >>> truth = MaskSet(torch.tensor([[[1, 1, 0], [0, 1, 1]]]), torch.tensor([[0.5, 0.5]]), LabelSpace.binary())
        >>> masks = truth.masks[:, :, None].float()
        >>> energy_score(masks, truth.weights, truth).round(decimals=3)
        tensor([0.3330])
        >>> energy_score(masks, torch.tensor([[1.0, 0.0]]), truth).round(decimals=3)
        tensor([0.6670])
    """
    labels = annotations.labels
    observed = annotations.masks
    there = annotations.present.view(*observed.shape[:2], *(1,) * (observed.dim() - 2))
    counted = (labels.valid(observed) | ~there).all(1)
    y, m = labels.one_hot(observed, dim=2).float(), masks.float()[:, :, -labels.channels :]
    if not bool(counted.all()):
        y, m = y * counted[:, None, None], m * counted[:, None, None]
    p, v = weights.float(), annotations.weights.float()
    distance = DISTANCES[kernel]
    fit = torch.einsum("bm,bn,bmn->b", p, v, distance(m, y, labels))
    spread = torch.einsum("bm,bn,mn,bmn->b", p, p, _pairs(p, draws), distance(m, m, labels))
    return 2 * fit - spread


def trained_score(
    masks: Tensor, weights: Tensor, shares: Tensor, annotations: MaskSet, **options: Any
) -> Tensor:
    """Energy score of the masks as they are given out, decided, with gradients for weights and masks.

    Weights get those of this score. (Had they those of the soft score, all probability would move to masks
    that stay soft.) Masks get those of the soft score, at other weights: at its own a mask without weight
    learns nothing, and what loses once is lost.

    Args:
        masks: class probabilities ``(B, M, C, *S)``; without gradient only the weights are trained.
        weights: ``(B, M)``; without gradient only the masks are trained.
        shares: the weights at which masks learn, ``(B, M)``, rows sum to 1.
        annotations: what was observed.
        options: kernel and draws, as of `energy_score`.

    Returns:
        ``(B,)`` float32.

    Example:
        >>> truth = MaskSet(torch.tensor([[[1, 1, 0], [0, 1, 1]]]), torch.tensor([[0.5, 0.5]]), LabelSpace.binary())
        >>> soft = torch.tensor([[[[0.6, 0.6, 0.4]], [[0.4, 0.6, 0.6]]]])
        >>> trained_score(soft, truth.weights, truth.weights, truth).round(decimals=3)
        tensor([0.3330])
    """
    labels = annotations.labels
    decided = labels.one_hot(labels.decide(masks.detach(), dim=2), dim=2)
    score = energy_score(decided, weights, annotations, **options)
    if not masks.requires_grad:
        return score
    soft = energy_score(masks, shares.detach(), annotations, **options)
    return score + soft - soft.detach()


def _pairs(p: Tensor, draws: int) -> Tensor:
    """How much each pair of masks counts ``(M, M)``: draws of one distribution tell its spread by pairs of
    different ones alone."""
    count = p.shape[1]
    if draws == 1:
        return p.new_ones(count, count)
    distribution = torch.arange(count, device=p.device) // draws
    within = (1 - torch.eye(count, device=p.device)) * draws / (draws - 1)
    return torch.where(distribution[:, None] == distribution, within, 1.0)


def _iou(a: Tensor, b: Tensor, labels: LabelSpace) -> Tensor:
    """``d_iou`` of all pairs of ``(B, M, C, *S)`` and ``(B, N, C, *S)``, ``(B, M, N)``; channels as the label
    space has them."""
    both, union = _sets(a.flatten(3), b.flatten(3), labels)
    return _apart(both, union, union)


def _dice(a: Tensor, b: Tensor, labels: LabelSpace) -> Tensor:
    both, union = _sets(a.flatten(3), b.flatten(3), labels)
    return _apart(both, union, union + both)


def _scales(a: Tensor, b: Tensor, labels: LabelSpace) -> Tensor:
    found = [_iou(a, b, labels)]
    for block in BLOCK_SIZES:
        coarse_a, coarse_b = (_averaged(x, block).flatten(3) for x in (a, b))
        both, union = _sets(coarse_a, coarse_b, labels, power=2)
        pixels = block ** (a.dim() - 3)
        found.append(_apart(both * pixels, union * pixels, union * pixels))
    return torch.stack(found).mean(0)


def _jensen_shannon(a: Tensor, b: Tensor, labels: LabelSpace) -> Tensor:
    a, b = a.flatten(3), b.flatten(3)
    of_a, of_b = (_entropy(x, labels).sum(2) for x in (a, b))
    # One mask of a against all of b at a time: the mixtures of all pairs together would not stay in a cache.
    mixed = torch.stack([_entropy((a[:, k : k + 1] + b) / 2, labels).sum(2) for k in range(a.shape[1])], 1)
    divergence = (mixed - (of_a[:, :, None] + of_b[:, None]) / 2) / math.log(2) / a.shape[3]
    return (divergence.clamp(min=0) + ROOT_SMOOTHING**2).sqrt() - ROOT_SMOOTHING


DISTANCES: dict[str, Callable[[Tensor, Tensor, LabelSpace], Tensor]] = {
    "iou": _iou,
    "dice": _dice,
    "jensen-shannon": _jensen_shannon,
    "scales": _scales,
}


def _sets(a: Tensor, b: Tensor, labels: LabelSpace, power: int = 1) -> tuple[Tensor, Tensor]:
    """Intersection and union by evaluated class, ``(B, M, N, C)`` each, with ``|a| = sum a^power``."""
    both = torch.einsum("bmcp,bncp->bmnc", a, b)
    union = a.pow(power).sum(3)[:, :, None] + b.pow(power).sum(3)[:, None] - both
    if labels.channels == 1:
        return both, union
    chosen = list(labels.evaluated)
    return both[..., chosen], union[..., chosen]


def _apart(both: Tensor, union: Tensor, size: Tensor) -> Tensor:
    apart = (union - both) / size.clamp(min=1)
    return apart.sum(-1) / union.clamp(max=1).sum(-1).clamp(min=1)


def _averaged(masks: Tensor, block: int) -> Tensor:
    """Means over blocks of so many pixels in every direction; those at the end hold what is left."""
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[masks.dim() - 3]
    coarse: Tensor = pool(masks.flatten(0, 1), block, ceil_mode=True, count_include_pad=False)
    return coarse.view(*masks.shape[:2], *coarse.shape[1:])


def _entropy(masks: Tensor, labels: LabelSpace) -> Tensor:
    """Entropy of every pixel in nats, ``(B, M, P)`` of ``(B, M, C, P)``."""
    entropy: Tensor = torch.special.entr(masks.clamp(min=LEAST_PROBABILITY))
    if labels.channels == 1:
        entropy = entropy + torch.special.entr((1 - masks).clamp(min=LEAST_PROBABILITY))
    return entropy.sum(2)
