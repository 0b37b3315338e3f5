"""Metrics of two weighted sets of masks: matched IoU, optimal transport, energy distance, diversity.

The literature prints different numbers under one name. Here every dialect has a name of its own, and each
function says whose it is. Each takes predictions ``s_1..s_M`` of weights u and annotations ``y_1..y_N`` of
weights v (or one `Comparison` of both) and gives one value per image, ``(B,)`` float32. ``d = 1 - IoU``
throughout; IoU is the mean over the evaluated classes present in either mask, 1 where both are empty; void
pixels of either mask are left out. Entries of weight 0 are padding. All raise `AmbisegError` where the two
sets do not belong together (see `Comparison`).
"""

from __future__ import annotations

import numpy as np
import ot
import torch
from torch import Tensor

from ambiseg.errors import UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison, each_image, match, matched_total
from ambiseg.overlap import Overlap, pairwise_overlap

TRANSPORT_ITERATIONS = 1_000_000
"""Steps the network simplex may take for one image; sets of a hundred masks need a few thousand."""
TIE = 1e-6
"""Votes closer than this count as equal."""


def hm_iou(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Hungarian-matched IoU, rectangular, duplicates of the annotations kept.

    ``max_a 1/min(M, N) sum_i IoU(s_a(i), y_i)`` over one-to-one matchings a of min(M, N) pairs. Weights only
    say which entries are there. The dialect of Flow-SSN and of the wildfire-scenario work.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Trap: only the best min(M, N) pairs count and the rest is free, so the value grows with M (a perfect model
    of 4 raters goes from about .55 at M = 4 to .92 at M = 100), and a single prediction is judged by its
    favourite annotation alone. Compare at equal M.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> hm_iou(MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary()), truth)
        tensor([1.])
    """
    pair = Comparison.of(predictions, annotations)
    iou = pair.cross.iou()
    partner = match(iou, pair.predictions.present, pair.annotations.present)
    pairs = torch.minimum(pair.predictions.count, pair.annotations.count)
    return matched_total(iou, partner) / pairs


def hm_iou_unique(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """HM IoU*: Hungarian-matched IoU after merging identical annotations; measures coverage of the modes.

    ``1/N* max_a sum_i IoU(s_a(i), y*_i)`` over the N* distinct annotations y*. The dialect of mode proposals
    (table 1) and of the wildfire-scenario work, for M >= N*.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Trap: the extra M - N* predictions are free, as in `hm_iou`; print M beside it. Where M < N*, an
    annotation left without a prediction counts 0, so leaving predictions out (by score, near-duplicates) can
    only lower the value.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 0]]]), LabelSpace.binary())
        >>> hm_iou_unique(MaskSet.uniform(torch.tensor([[[1, 1]]]), LabelSpace.binary()), truth)
        tensor([0.5000])
    """
    pair = Comparison.of(predictions, annotations)
    return matched_total(pair.to_modes.iou(), pair.partners) / pair.modes.count


def hm_iou_tiled(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Hungarian-matched IoU, tiled: both sides are repeated to lcm(M, N) entries and matched one to one.

    Equal to optimal transport between uniform weights, which is how it is computed (exactly, without tiling):
    ``max_P sum_ij P_ij IoU(s_i, y_j)`` over ``P >= 0`` with row sums 1/M and column sums 1/N. The dialect of
    CCDM, BerDiff, ATFM and of the matched IoU of MoSE with uniform weights.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Trap: weights only say which entries are there; a weighted set belongs in `m_iou`.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> hm_iou_tiled(MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary()), truth)
        tensor([0.9167])
    """
    pair = Comparison.of(predictions, annotations)
    return _transport(pair.cross.iou(), pair.predictions.present.double(), pair.annotations.present.double())


def m_iou(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Matched IoU: optimal transport between the two weighted sets.

    ``max_P sum_ij P_ij IoU(s_i, y_j)`` over ``P >= 0`` with row sums u and column sums v, solved exactly
    (network simplex). The dialect of MoSE; equal to `hm_iou_tiled` where all weights of a side are equal.

    Returns:
        ``(B,)`` in [0, 1], higher is better; 1 only for equal distributions.

    Trap: uses the weights of the predictions, so a method without mode probabilities is judged by uniform
    ones.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> m_iou(truth.merge_identical(), truth)
        tensor([1.])
    """
    pair = Comparison.of(predictions, annotations)
    return _transport(pair.cross.iou(), pair.predictions.weights, pair.annotations.weights)


def ged(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, distance: str = "iou"
) -> Tensor:
    """Squared generalised energy distance, V-statistic: all pairs with the diagonals, weighted on both sides.

    ``2 sum_ij u_i v_j d(s_i, y_j) - sum_ij u_i u_j d(s_i, s_j) - sum_ij v_i v_j d(y_i, y_j)``. The dialect of
    the probabilistic U-Net and nearly everyone after it; ``distance="dice"`` (``d = 1 - Dice``) is that of
    ValUES.

    Returns:
        ``(B,)`` in [0, 2], lower is better, 0 for equal distributions.

    Raises:
        UnknownNameError: ``distance`` is neither "iou" nor "dice".

    Trap: biased for drawn samples: its floor is about ``E d(s, s')/M + E d(y, y')/N``, so a perfect model
    does not reach 0 and the value falls with M. Some texts print the square root. Void pixels that differ
    from mask to mask can push it slightly below 0.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> ged(truth[0].top(1), truth), ged(truth, truth)
        (tensor([0.2500]), tensor([0.]))
    """
    pair = Comparison.of(predictions, annotations)
    u, v = pair.predictions.weights, pair.annotations.weights
    between = _expected(_distance(pair.cross, distance), u, v)
    spread = _expected(_distance(pair.among_predictions, distance), u, u)
    return 2 * between - spread - _expected(_distance(pair.among_annotations, distance), v, v)


def ged_unbiased(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Squared generalised energy distance, U-statistic: within a set only pairs of different entries count.

    ``2 sum_ij u_i v_j d(s_i, y_j) - D(u, s) - D(v, y)`` with
    ``D(w, m) = sum_{i != j} w_i w_j d(m_i, m_j) / (1 - sum_i w_i^2)``, 0 for a single entry. For uniform
    weights this is the unbiased estimate from M and N draws; the dialect of D-Persona (second version).

    Returns:
        ``(B,)`` in [-2, 2], lower is better; about 0 on average for a perfect model.

    Trap: negative values of single images are no mistake, only the mean over images means something. It takes
    both sides for draws. Where the weights are probabilities of *all* modes, nothing was drawn, and `ged` is
    the right one: the value here then depends on duplicates being merged or not.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> ged_unbiased(truth, truth)
        tensor([-0.5000])
    """
    pair = Comparison.of(predictions, annotations)
    u, v = pair.predictions.weights, pair.annotations.weights
    between = _expected(_distance(pair.cross), u, v)
    return 2 * between - _spread(pair.among_predictions, u) - _spread(pair.among_annotations, v)


def diversity(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Expected distance of two predictions of one image, the diagonal included.

    ``sum_ij u_i u_j d(s_i, s_j)``. The dialect of Flow-SSN. The annotations are not used and may be left out.

    Returns:
        ``(B,)`` in [0, 1]; neither high nor low is good in itself: right is what the annotations have.

    Trap: noise is diverse too; and the diagonal takes a share ``sum_i u_i^2`` (1/M for uniform weights) of
    zeros.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> diversity(MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary()))
        tensor([0.2500])
    """
    if isinstance(predictions, Comparison):
        given, overlap = predictions.predictions, predictions.among_predictions
    else:
        given = predictions
        overlap = pairwise_overlap(given.masks, given.masks, given.labels)
    return _expected(_distance(overlap), given.weights, given.weights)


def dice_of_mean(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Dice of the decided mean of the predictions against the majority of the annotations.

    ``Dice(decide(sum_i u_i p_i), majority_v(y))``, a tie going to the background. The mean is that of the
    probabilities where the predictions keep them, else of the label maps. The dialect of Flow-SSN's "Dice".

    Returns:
        ``(B,)`` in [0, 1], higher is better; 1 where both are empty.

    Trap: says nothing about ambiguity. Of several classes tied without the background the lowest wins. A
    pixel is left out where all annotations (or all label maps of the predictions) are void there; otherwise
    the others vote.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 1, 0]]]), LabelSpace.binary())
        >>> dice_of_mean(MaskSet.uniform(torch.tensor([[[1, 1, 0]]]), LabelSpace.binary()), truth)
        tensor([0.6667])
    """
    pair = Comparison.of(predictions, annotations)
    ours, theirs = consensus(pair.predictions), consensus(pair.annotations.hard())
    return pairwise_overlap(ours[:, None], theirs[:, None], pair.annotations.labels).dice()[:, 0, 0]


def consensus(given: MaskSet) -> Tensor:
    """One label map ``(B, *S)`` uint8 of each set: the class of most weight; void where every mask is void.

    A tie goes to the background, or to the lowest class if the background is not among the tied.
    Probabilities, where a set keeps them, are averaged in place of votes.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> consensus(MaskSet.uniform(torch.tensor([[[2, 2, 255], [0, 1, 255]]]), LabelSpace.of_classes(3)))
        tensor([[  0,   1, 255]], dtype=torch.uint8)
    """
    labels, space = given.labels, given.masks.dim() - 2
    weights = given.weights.view(*given.weights.shape, *[1] * space)
    votes = torch.stack([(weights * (given.masks == c)).sum(1) for c in range(labels.classes)], 1)
    void = votes.sum(1) <= 0
    if given.probabilities is not None:
        votes = labels.all_classes(given.mean().float(), dim=1)
    ahead = torch.arange(labels.classes, 0, -1, device=votes.device, dtype=votes.dtype)
    if labels.background is not None:
        ahead[labels.background] = labels.classes + 1
    decided = (votes + TIE * ahead.view(-1, *[1] * space)).argmax(1).to(torch.uint8)
    return decided.masked_fill(void, labels.void)


def _distance(overlap: Overlap, name: str = "iou") -> Tensor:
    if name == "iou":
        return 1 - overlap.iou()
    if name == "dice":
        return 1 - overlap.dice()
    raise UnknownNameError("distance", name, ["iou", "dice"])


def _expected(distance: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """``sum_ij u_i v_j d_ij``, ``(B,)`` float32."""
    return (u.float()[:, :, None] * v.float()[:, None, :] * distance).sum((1, 2))


def _spread(overlap: Overlap, weights: Tensor) -> Tensor:
    """Mean distance of two different entries ``(B,)``, 0 where there is only one."""
    different = 1 - torch.eye(weights.shape[1], device=weights.device)
    share = _expected(different.expand(len(weights), -1, -1), weights, weights)
    total = _expected(_distance(overlap) * different, weights, weights)
    return torch.where(share > 0, total / share.clamp(min=1e-30), 0.0)


def _transport(iou: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """``max_P <P, IoU>`` over couplings of u and v, each divided by its sum, ``(B,)``."""
    values = []
    u, v = u.detach().cpu(), v.detach().cpu()
    for b, (value, i, j) in enumerate(each_image(iou, u > 0, v > 0)):
        source, target = u[b].double().numpy()[i], v[b].double().numpy()[j]
        cost = ot.emd2(
            source / source.sum(), target / target.sum(), 1 - value, numItermax=TRANSPORT_ITERATIONS
        )
        values.append(float(np.clip(1 - cost, 0, 1)))
    return torch.tensor(values, dtype=torch.float32, device=iou.device)
