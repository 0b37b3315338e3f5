"""Energy distances of two weighted sets of masks, and their parts.

With a distance d of masks (1 - IoU, or 1 - Dice) and expectations over the weights,

    d(S, Y) = sum_ij u_i v_j d(s_i, y_j),    d(S, S) = sum_ij u_i u_j d(s_i, s_j),    d(Y, Y) likewise,
    GED^2 = 2 d(S, Y) - d(S, S) - d(Y, Y).

Each function takes predictions ``s_1..s_M`` of weights u and annotations ``y_1..y_N`` of weights v (or one
`Comparison` of both) and gives one value per image, ``(B,)`` float32. IoU and Dice are means over the
evaluated classes present in either mask, 1 where both are empty, unless the `Dialect` of the comparison says
otherwise; void pixels of either mask are left out.
Entries of weight 0 are padding. All raise `AmbisegError` where the two sets do not belong together (see
`Comparison`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.errors import UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.overlap import LEFT_OUT, Absence, Overlap, pairwise_overlap


@dataclass(frozen=True)
class GedParts:
    """The three expected distances of a squared generalised energy distance, ``(B,)`` float64 each.

    Attributes:
        between: d(S, Y), of a prediction and an annotation.
        predictions: d(S, S), of two predictions, the diagonal included; the *diversity*.
        annotations: d(Y, Y), of two annotations, the diagonal included.
        predictions_apart: share ``1 - sum_i u_i^2`` of pairs of two different predictions.
        annotations_apart: the same of the annotations.
    """

    between: Tensor
    predictions: Tensor
    annotations: Tensor
    predictions_apart: Tensor
    annotations_apart: Tensor

    def ged(self) -> Tensor:
        """V-statistic ``2 d(S, Y) - d(S, S) - d(Y, Y)``, ``(B,)`` float32."""
        return (2 * self.between - self.predictions - self.annotations).float()

    def ged_unbiased(self) -> Tensor:
        """U-statistic: the inner distances are means over pairs of two different entries, ``(B,)``
        float32."""
        inner = (
            (self.predictions, self.predictions_apart),
            (self.annotations, self.annotations_apart),
        )
        apart = [torch.where(share > NO_SHARE, d / share.clamp(min=NO_SHARE), 0.0) for d, share in inner]
        return (2 * self.between - apart[0] - apart[1]).float()


NO_SHARE = 1e-12
"""A set whose pairs of different entries weigh less than this is a single entry."""


def ged_parts(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, distance: str = "iou"
) -> GedParts:
    """The parts of the squared generalised energy distance: d(S, Y), d(S, S) and d(Y, Y).

    Returns:
        `GedParts`, ``(B,)`` each.

    Raises:
        UnknownNameError: ``distance`` is neither "iou" nor "dice".

    Trap: a small GED can come from d(S, S) being large. A method is better where d(S, Y) is smaller at the
    same d(S, S).

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> parts = ged_parts(truth[0].top(1), truth)
        >>> parts.between, parts.predictions, parts.annotations
        (tensor([0.2500], dtype=torch.float64), tensor([0.], dtype=torch.float64), tensor([0.2500], dtype=torch.float64))
    """
    pair = Comparison.of(predictions, annotations)
    return _parts(pair, distance, pair.dialect.energy)


def _parts(pair: Comparison, distance: str, absence: Absence) -> GedParts:
    u, v = pair.predictions.weights, pair.annotations.weights
    return GedParts(
        between=_expected(pair.cross, u, v, distance, absence),
        predictions=_expected(pair.among_predictions, u, u, distance, absence),
        annotations=_expected(pair.among_annotations, v, v, distance, absence),
        predictions_apart=_apart(u),
        annotations_apart=_apart(v),
    )


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
    return ged_parts(predictions, annotations, distance).ged()


def ged_unbiased(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, distance: str = "iou"
) -> Tensor:
    """Squared generalised energy distance, U-statistic: within a set only pairs of different entries count.

    ``2 sum_ij u_i v_j d(s_i, y_j) - D(u, s) - D(v, y)`` with
    ``D(w, m) = sum_{i != j} w_i w_j d(m_i, m_j) / (1 - sum_i w_i^2)``, 0 for a single entry. For uniform
    weights this is the unbiased estimate from M and N draws; the dialect of D-Persona (second version).

    Returns:
        ``(B,)`` in [-2, 2], lower is better; about 0 on average for a perfect model.

    Raises:
        UnknownNameError: ``distance`` is neither "iou" nor "dice".

    Trap: negative values of single images are no mistake, only the mean over images means something. It takes
    both sides for draws. Where the weights are probabilities of *all* modes, nothing was drawn, and `ged` is
    the right one: the value here then depends on duplicates being merged or not. It is the same in every
    dialect, since it leaves out the diagonals, where a mask meets itself.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> ged_unbiased(truth, truth)
        tensor([-0.5000])
    """
    return _parts(Comparison.of(predictions, annotations), distance, LEFT_OUT).ged_unbiased()


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
    absence = LEFT_OUT
    if isinstance(predictions, Comparison):
        given, overlap = predictions.predictions, predictions.among_predictions
        absence = predictions.dialect.energy
    else:
        given = predictions.validate("predictions")
        overlap = pairwise_overlap(given.masks, given.masks, given.labels)
    return _expected(overlap, given.weights, given.weights, "iou", absence).float()


def distance_of(overlap: Overlap, name: str = "iou", absence: Absence = LEFT_OUT) -> Tensor:
    """``1 - IoU`` or ``1 - Dice`` of all pairs, ``(B, K, L)``.

    Raises:
        UnknownNameError: ``name`` is neither "iou" nor "dice".
    """
    if name == "iou":
        return 1 - overlap.iou(absence)
    if name == "dice":
        return 1 - overlap.dice(absence)
    raise UnknownNameError("distance", name, ["iou", "dice"])


def _expected(overlap: Overlap, u: Tensor, v: Tensor, name: str, absence: Absence) -> Tensor:
    """``sum_ij u_i v_j d_ij``, ``(B,)`` float64; nan where a distance of two entries that are there is."""
    distance = distance_of(overlap, name, absence)
    if absence.undefined:
        distance = distance.masked_fill((u == 0)[:, :, None] | (v == 0)[:, None], 0)
    return torch.einsum("bi,bij,bj->b", u.double(), distance.double(), v.double())


def _apart(weights: Tensor) -> Tensor:
    """``1 - sum_i w_i^2 = sum_{i != j} w_i w_j`` for weights of sum 1, ``(B,)`` float64; exactly 0 for a
    single entry."""
    w = weights.double()
    return w.sum(1).square() - w.square().sum(1)
