r"""The energy score of weighted soft masks: a loss for the set and its probabilities together.

For masks ``s_k`` of probabilities ``p_k`` and one observed mask ``y``,

    ES(P, y) = 2 sum_k p_k d(s_k, y) - sum_kl p_k p_l d(s_k, s_l).

Known: it is a proper score (Gneiting and Raftery 2007, section 5.1), its mean over y less ``sum_ij v_i v_j d(y_i, y_j)`` is the
squared energy distance of the two laws (Szekely and Rizzo 2013), and with ``d = 1 - IoU`` that is the GED by which the field
compares sets of masks (Bellemare et al. 2017). Ours: it trains the masks and probabilities of one forward pass, with a soft d
of all pairs from matrix products. One annotation per image is enough: the expected gradient is that of all of them.

For soft masks ``|a| = sum a``, ``I_c = <a_c, b_c>``, ``U_c = |a_c| + |b_c| - I_c``, over the evaluated classes

    d_iou  = sum_c (U_c - I_c) / max(U_c, 1) / max(1, sum_c min(U_c, 1)),

``d_dice`` the same with ``max(U_c + I_c, 1)``. Of hard masks that is one minus the IoU (Dice) of `ambiseg.overlap`: a class
absent from both is left out, two empty masks agree. A soft mask stands for independent draws of its pixels, and lies at a
distance of itself: the diagonal k = l counts like any other pair, so one mask and two copies of half its weight score alike.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet


def energy_score(masks: Tensor, weights: Tensor, annotations: MaskSet, kernel: str = "iou") -> Tensor:
    """Energy score of weighted soft masks against annotations; smaller is better, gradients reach masks and weights.

    Args:
        masks: class probabilities ``(B, M, C, *S)``.
        weights: ``(B, M)``, rows sum to 1.
        annotations: what was observed, with its weights. Pixels that are void in one of an image's masks are left out.
        kernel: distance ``iou`` or ``dice``.

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
    observed = annotations.masks.flatten(2)
    counted = (labels.valid(observed) | ~annotations.present[..., None]).all(1)
    y = labels.one_hot(observed, dim=2).float()
    m = masks.float().flatten(3)
    if not bool(counted.all()):
        y, m = y * counted[:, None, None], m * counted[:, None, None]
    p, v = weights.float(), annotations.weights.float()
    fit = torch.einsum("bm,bn,bmn->b", p, v, _distance(m, y, labels, kernel))
    spread = torch.einsum("bm,bn,bmn->b", p, p, _distance(m, m, labels, kernel))
    return 2 * fit - spread


def _distance(a: Tensor, b: Tensor, labels: LabelSpace, kernel: str) -> Tensor:
    """``d`` of all pairs of ``(B, M, C, P)`` and ``(B, N, C, P)``, ``(B, M, N)``; channels as the label space has them."""
    both = torch.einsum("bmcp,bncp->bmnc", a, b)
    union = a.sum(3)[:, :, None] + b.sum(3)[:, None] - both
    if not labels.is_binary:
        chosen = list(labels.evaluated)
        both, union = both[..., chosen], union[..., chosen]
    size = union if kernel == "iou" else union + both
    apart = (union - both) / size.clamp(min=1)
    return apart.sum(-1) / union.clamp(max=1).sum(-1).clamp(min=1)
