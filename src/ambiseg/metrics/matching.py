"""Matched overlaps: how well predictions and annotations cover each other one to one, or by optimal
transport.

The literature prints different numbers under the name HM-IoU. Here every variant has a name of its own, and
each function says whose it is.

Each function takes predictions ``s_1..s_M`` of weights u and annotations ``y_1..y_N`` of weights v (or one
`Comparison` of both) and gives one value per image, ``(B,)`` float32. IoU and Dice are means over the
evaluated classes present in either mask, 1 where both are empty; void pixels of either mask are left out. The
`Dialect` of a comparison may say otherwise; an image is nan where it leaves the IoU of some pair open.
Entries of weight 0 are padding. All raise `AmbisegError` where the two sets do not belong together (see
`Comparison`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import ot
import torch
from torch import Tensor

from ambiseg.maskset import MaskSet
from ambiseg.matching import match, present_entries
from ambiseg.metrics.comparison import Comparison
from ambiseg.overlap import LEFT_OUT

TRANSPORT_ITERATIONS = 1_000_000
"""Steps the network simplex may take for one image; sets of a hundred masks need a few thousand."""


def hm_iou(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Hungarian-matched IoU, rectangular, duplicates of the annotations kept.

    ``max_a 1/min(M, N) sum_i IoU(s_a(i), y_i)`` over one-to-one matchings a of min(M, N) pairs. Weights only
    say which entries are there. The variant of Flow-SSN and of the wildfire-scenario work.

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
    table = _Table.of(pair.cross.iou(pair.dialect.matching), pair, pair.annotations)
    matching = match(-table.value, pair.predictions.present, pair.annotations.present)
    count = torch.minimum(pair.predictions.count, pair.annotations.count)
    return table.defined(matching.total(table.value) / count)


def hm_iou_unique(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """HM IoU*: Hungarian-matched IoU after merging identical annotations; measures coverage of the modes.

    ``1/N* max_a sum_i IoU(s_a(i), y*_i)`` over the N* distinct annotations y*. The variant of mode proposals
    (table 1) and of the wildfire-scenario work, for M >= N*.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Trap: the extra M - N* predictions are free, as in `hm_iou`; print M beside it. Where M < N*, an
    annotation left without a prediction counts 0, so leaving predictions out (by score, near-duplicates) can
    only lower the value. In the dialect "wildfire" such an annotation is left out: the mean is over min(M,
    N*) pairs.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 0]]]), LabelSpace.binary())
        >>> hm_iou_unique(MaskSet.uniform(torch.tensor([[[1, 1]]]), LabelSpace.binary()), truth)
        tensor([0.5000])
    """
    pair = Comparison.of(predictions, annotations)
    dialect, count = pair.dialect, pair.modes.count
    table = _Table.of(pair.to_modes.iou(dialect.matching), pair, pair.modes)
    if dialect.matching == LEFT_OUT:
        matching = pair.matching
    else:
        matching = match(-table.value, pair.predictions.present, pair.modes.present)
    if not dialect.lone_modes:
        count = torch.minimum(pair.predictions.count, count)
    return table.defined(matching.total(table.value) / count)


def hm_iou_tiled(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Hungarian-matched IoU, tiled: both sides are repeated to lcm(M, N) entries and matched one to one.

    Equal to optimal transport between uniform weights, which is how it is computed (exactly, without tiling):
    ``max_P sum_ij P_ij IoU(s_i, y_j)`` over ``P >= 0`` with row sums 1/M and column sums 1/N. The variant of
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
    return _transport(pair, pair.predictions.present.double(), pair.annotations.present.double())


def hm_iou_multi(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """HM IoU multi: every annotation takes its best prediction, several may take the same one; duplicates
    kept.

    ``1/N sum_j max_i IoU(s_i, y_j)``. Named "HM IoU multi" beside HM IoU and HM IoU* in mode proposals
    (appendix), in our reading of its one-line description; the IoU counterpart of `max_dice_matching`.

    Returns:
        ``(B,)`` in [0, 1], higher is better; never below `hm_iou_tiled`.

    Trap: one good mask serves many alike annotations, so a model that finds only the frequent outcome looks
    good; and nothing is lost by predicting nonsense beside it.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> hm_iou_multi(MaskSet.uniform(torch.tensor([[[1, 1]]]), LabelSpace.binary()), truth)
        tensor([0.8333])
    """
    pair = Comparison.of(predictions, annotations)
    return _best_of_predictions(pair.cross.iou(pair.dialect.matching), pair)


def m_iou(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Matched IoU: optimal transport between the two weighted sets.

    ``max_P sum_ij P_ij IoU(s_i, y_j)`` over ``P >= 0`` with row sums u and column sums v, solved exactly
    (network simplex). The variant of MoSE; equal to `hm_iou_tiled` where all weights of a side are equal.

    Returns:
        ``(B,)`` in [0, 1], higher is better; 1 only for equal distributions.

    Trap: uses the weights of the predictions, so a method without mode probabilities is judged by uniform
    ones. In the dialect "mose" an image with a pair of masks that lack all classes is 0 for equal weights, else
    nan.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [1, 1], [0, 1]]]), LabelSpace.binary())
        >>> m_iou(truth.merge_identical(), truth)
        tensor([1.])
    """
    pair = Comparison.of(predictions, annotations)
    return _transport(pair, pair.predictions.weights, pair.annotations.weights)


def max_dice_matching(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """MDM: for every annotation the best Dice over the predictions, averaged.

    ``1/N sum_j max_i Dice(s_i, y_j)``, duplicates kept, weights unused. The variant of ATFM ("maximum Dice
    matching") and of CIMD ("D_max").

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Trap: grows with M, as every best-of-M number does, and says nothing of the other M - 1 predictions. Print
    M beside it.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> max_dice_matching(MaskSet.uniform(torch.tensor([[[1, 1]]]), LabelSpace.binary()), truth)
        tensor([0.8333])
    """
    pair = Comparison.of(predictions, annotations)
    return _best_of_predictions(pair.cross.dice(pair.dialect.matching), pair)


def _best_of_predictions(overlap: Tensor, pair: Comparison) -> Tensor:
    """``1/N sum_j max_i overlap_ij`` over entries that are there, ``(B,)``."""
    table = _Table.of(overlap, pair, pair.annotations)
    best = table.value.masked_fill(~pair.predictions.present[:, :, None], 0).amax(1)
    return table.defined((best * pair.annotations.present).sum(1) / pair.annotations.count)


@dataclass(frozen=True)
class _Table:
    """Overlaps of all pairs: ``value (B, K, L)``, and the images in which a pair of entries that are there is not
    defined, ``(B,)`` bool, None where no image is such; undefined ones have the value 0."""

    value: Tensor
    undefined: Tensor | None = None

    @classmethod
    def of(cls, overlap: Tensor, pair: Comparison, columns: MaskSet) -> _Table:
        if not pair.dialect.matching.undefined:
            return cls(overlap)
        there = pair.predictions.present[:, :, None] & columns.present[:, None]
        return cls(overlap.nan_to_num(0.0), (overlap.isnan() & there).flatten(1).any(1))

    def defined(self, measured: Tensor, other: Tensor | float = math.nan) -> Tensor:
        """What was measured ``(B,)``, and another value in images that are not defined."""
        return measured if self.undefined is None else torch.where(self.undefined, other, measured)


def _transport(pair: Comparison, u: Tensor, v: Tensor) -> Tensor:
    """``max_P <P, IoU>`` over couplings of u and v, each divided by its sum, ``(B,)``."""
    table = _Table.of(pair.cross.iou(pair.dialect.matching), pair, pair.annotations)
    values = []
    u, v = u.detach().cpu(), v.detach().cpu()
    for b, (value, i, j) in enumerate(present_entries(table.value, u > 0, v > 0)):
        source, target = u[b].double().numpy()[i], v[b].double().numpy()[j]
        cost = ot.emd2(
            source / source.sum(), target / target.sum(), 1 - value, numItermax=TRANSPORT_ITERATIONS
        )
        values.append(float(np.clip(1 - cost, 0, 1)))
    found = torch.tensor(values, dtype=torch.float32, device=table.value.device)
    if table.undefined is None:
        return found
    even = (_even(u) & _even(v)).to(found.device)
    return table.defined(found, torch.where(even, pair.dialect.undefined_transport, math.nan))


def _even(weights: Tensor) -> Tensor:
    """Whether all entries that are there have one weight, ``(B,)`` bool."""
    there = weights > 0
    return ((weights == weights.amax(1, keepdim=True)) | ~there).all(1)
