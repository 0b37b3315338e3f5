"""How well selection scores tell the proposals worth keeping from the rest (mode proposals, table 3).

All proposals are matched one to one with the distinct annotations; a proposal *should* be kept exactly if it
is matched. The scores decide which ones *are* kept. Counting both gives precision, recall and F1. The
reported number pools the counts of all images (`PooledOverImages`); the per-image F1 is
here. Without a threshold, the scores are judged by the order they bring the proposals into: average precision
(`selection_ranking`, `average_precision`), and what the best k proposals cover (`coverage_curve`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ambiseg.defaults import SCORE_THRESHOLD
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.matching import match
from ambiseg.metrics.comparison import Comparison
from ambiseg.ranking import descending, exceeds


@dataclass(frozen=True)
class SelectionCounts:
    """Proposals kept and matched (tp), kept only (fp), matched only (fn); ``(B,)`` int64 each."""

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def f1(self) -> Tensor:
        """``2 tp / (2 tp + fp + fn)``, in [0, 1]."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn)

    def precision(self) -> Tensor:
        """``tp / (tp + fp)``, in [0, 1]; 0 where nothing is kept (scikit-learn: ``zero_division=0``)."""
        return self.tp / (self.tp + self.fp).clamp(min=1)

    def recall(self) -> Tensor:
        """``tp / (tp + fn)``, in [0, 1]; 0 where nothing is matched, which no image of a data set is."""
        return self.tp / (self.tp + self.fn).clamp(min=1)


@dataclass(frozen=True)
class SelectionRanking:
    """All proposals of all images in one list, to be ranked together.

    Attributes:
        scores: selection score of every proposal that is there, ``(E,)``.
        matched: whether it is matched with a mode, ``(E,)`` bool.
    """

    scores: Tensor
    matched: Tensor


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of keeping every proposal whose score is at least the threshold.

    Attributes:
        thresholds: the distinct scores, descending, ``(T,)``.
        precision: matched share of those kept, ``(T,)`` float64.
        recall: kept share of those matched, ``(T,)`` float64, ascending to 1; nan where none is matched.
    """

    thresholds: Tensor
    precision: Tensor
    recall: Tensor


def selection_counts(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, threshold: float = SCORE_THRESHOLD
) -> SelectionCounts:
    """Count ``[s_k > threshold]`` against ``[k matched]``.

    The matching is one to one between all M proposals and the N* distinct annotations, of greatest total IoU
    (mode proposals, section 4.2 and eq. 5).

    Returns:
        `SelectionCounts` of ``(B,)`` each; ``tp + fn = min(M, N*)``.

    Raises:
        AmbisegError: the predictions carry no scores, or the sets do not belong together.

    Trap: pass *all* proposals. After low scores are dropped there is nothing left to reject, and a proposal
    of weight 0 counts as padding.

    Example:
        >>> import torch
        >>> from ambiseg.labels import LabelSpace
        >>> proposals = MaskSet.from_probabilities(
        ...     torch.tensor([[[[0.9, 0.9]], [[0.1, 0.9]], [[0.9, 0.1]]]]), LabelSpace.binary(),
        ...     scores=torch.tensor([[0.8, 0.4, 0.7]]))
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> counts = selection_counts(proposals, truth)
        >>> counts.tp, counts.fp, counts.fn
        (tensor([1]), tensor([1]), tensor([1]))
    """
    pair = Comparison.of(predictions, annotations)
    kept = exceeds(_scores(pair), threshold) & pair.predictions.present
    matched = pair.partners >= 0
    return SelectionCounts(
        tp=(kept & matched).sum(1), fp=(kept & ~matched).sum(1), fn=(~kept & matched).sum(1)
    )


def selection_f1(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, threshold: float = SCORE_THRESHOLD
) -> Tensor:
    """F1 of the selection scores for each image: ``2 tp / (2 tp + fp + fn)`` of `selection_counts`.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Raises:
        AmbisegError: the predictions carry no scores, or the sets do not belong together.

    Trap: the mean of these values is not the reported number, which pools the counts of all images first.
    Keeping everything already gives ``2 N* / (M + N*)``, two thirds for M = 2 N*.

    Example:
        >>> import torch
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> scores, truth = torch.tensor([[0.9, 0.2]]), MaskSet.uniform(masks, LabelSpace.binary())
        >>> selection_f1(MaskSet(masks, truth.weights, truth.labels, scores), truth)
        tensor([0.6667])
    """
    return selection_counts(predictions, annotations, threshold).f1()


def selection_precision(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, threshold: float = SCORE_THRESHOLD
) -> Tensor:
    """Share of the kept proposals that are matched: ``tp / (tp + fp)`` of `selection_counts`.

    The precision inside the selection F1 of mode proposals (table 3).

    Returns:
        ``(B,)`` in [0, 1], higher is better; 0 where nothing is kept (scikit-learn: ``zero_division=0``).

    Raises:
        AmbisegError: the predictions carry no scores, or the sets do not belong together.

    Trap: *matched* is relative. min(M, N*) proposals are matched however bad they are, so this does not say
    that the kept ones are good masks; `precision_at` does. As for F1, the mean over images is not the pooled
    number: add the counts up first.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1], [1, 1]]])
        >>> truth = MaskSet.uniform(masks, LabelSpace.binary())
        >>> proposals = MaskSet(masks, truth.weights, truth.labels, torch.tensor([[0.9, 0.2, 0.8]]))
        >>> selection_precision(proposals, truth)
        tensor([0.5000])
    """
    return selection_counts(predictions, annotations, threshold).precision()


def selection_recall(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, threshold: float = SCORE_THRESHOLD
) -> Tensor:
    """Share of the matched proposals that are kept: ``tp / (tp + fn)`` of `selection_counts`.

    The recall inside the selection F1 of mode proposals (table 3).

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Raises:
        AmbisegError: the predictions carry no scores, or the sets do not belong together.

    Trap: keeping everything gives 1. Of two identical proposals only one is matched; to keep the other one
    instead counts as a miss.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> scores, truth = torch.tensor([[0.9, 0.2]]), MaskSet.uniform(masks, LabelSpace.binary())
        >>> selection_recall(MaskSet(masks, truth.weights, truth.labels, scores), truth)
        tensor([0.5000])
    """
    return selection_counts(predictions, annotations, threshold).recall()


def selection_ranking(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None
) -> SelectionRanking:
    """Score of every proposal of every image beside whether it is matched, padding left out.

    The lists of several batches are joined by ``torch.cat`` and given to `average_precision`: the pooled
    number.

    Returns:
        `SelectionRanking` of E proposals in all, image after image.

    Raises:
        AmbisegError: the predictions carry no scores, or the sets do not belong together.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1], [1, 1]]])
        >>> truth = MaskSet.uniform(masks, LabelSpace.binary())
        >>> proposals = MaskSet(masks, truth.weights, truth.labels, torch.tensor([[0.9, 0.2, 0.8]]))
        >>> ranking = selection_ranking(proposals, truth)
        >>> ranking.matched
        tensor([ True,  True, False])
        >>> average_precision(ranking.scores, ranking.matched)
        tensor(0.8333)
    """
    pair = Comparison.of(predictions, annotations)
    there = pair.predictions.present
    return SelectionRanking(_scores(pair)[there], (pair.partners >= 0)[there])


def precision_recall_curve(scores: Tensor, matched: Tensor) -> PrecisionRecallCurve:
    """Precision and recall of ``[score >= t]`` against ``[matched]``, for every distinct score t.

    Args:
        scores: ``(E,)``, higher first.
        matched: what should come first, ``(E,)`` bool.

    Returns:
        `PrecisionRecallCurve` from the highest threshold to the lowest; equal scores make one point.

    Raises:
        AmbisegError: the two are not lists of equal length.

    Trap: scikit-learn's curve runs the other way, ascending, and adds a last point of precision 1, recall 0.

    Example:
        >>> curve = precision_recall_curve(torch.tensor([0.9, 0.8, 0.2]), torch.tensor([True, False, True]))
        >>> curve.precision.float(), curve.recall.float()
        (tensor([1.0000, 0.5000, 0.6667]), tensor([0.5000, 0.5000, 1.0000]))
    """
    if scores.dim() != 1 or scores.shape != matched.shape:
        raise AmbisegError(
            f"scores of shape {tuple(scores.shape)} and matched of shape {tuple(matched.shape)}:"
            " both are flat lists of equal length"
        )
    order = scores.argsort(descending=True, stable=True)
    ranked, found = scores[order], matched[order].double().cumsum(0)
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[:-1] != ranked[1:]
    kept = torch.arange(1, len(ranked) + 1, device=scores.device, dtype=torch.float64)[last]
    return PrecisionRecallCurve(ranked[last], found[last] / kept, found[last] / found[-1:])


def average_precision(scores: Tensor, matched: Tensor) -> Tensor:
    """Average precision of a ranking: ``AP = sum_n (R_n - R_{n-1}) P_n`` over the distinct scores,
    descending.

    P_n and R_n are precision and recall of keeping every score at or above the n-th, ``R_0 = 0``; equal
    scores are kept or left together. The dialect of scikit-learn's ``average_precision_score``: no
    interpolation, no trapezoids.

    Args:
        scores: ``(E,)``, higher first.
        matched: what should come first, ``(E,)`` bool.

    Returns:
        A scalar float32 in [0, 1], higher is better; nan where nothing is matched.

    Raises:
        AmbisegError: the two are not lists of equal length.

    Trap: a ranking by chance gets about the matched share of all, not 0; print it beside. The average
    precisions of object detection interpolate (Pascal VOC, COCO) and are larger.

    Example:
        >>> average_precision(torch.tensor([0.9, 0.8, 0.2]), torch.tensor([True, False, True]))
        tensor(0.8333)
    """
    curve = precision_recall_curve(scores, matched)
    if not bool(matched.any()):
        return torch.tensor(torch.nan, device=scores.device)
    gain = torch.diff(curve.recall, prepend=curve.recall.new_zeros(1))
    return (gain * curve.precision).sum().float()


def selection_ap(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Average precision of the selection scores for each image: how well they order its proposals.

    ``sum_n (R_n - R_{n-1}) P_n`` of `average_precision` over the proposals of the image, *matched* as in
    `selection_counts`: the selection F1 of mode proposals without its threshold.

    Returns:
        ``(B,)`` in [0, 1], higher is better; 1 where every matched proposal is ahead of every other.

    Raises:
        AmbisegError: the predictions carry no scores, or the sets do not belong together.

    Trap: only the order within an image counts, so scores that are all too low still reach 1; scores that are
    all equal get min(M, N*) / M. The pooled number (`selection_ranking`) compares scores across images and is
    another one.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1], [1, 1]]])
        >>> truth = MaskSet.uniform(masks, LabelSpace.binary())
        >>> proposals = MaskSet(masks, truth.weights, truth.labels, torch.tensor([[0.9, 0.2, 0.8]]))
        >>> selection_ap(proposals, truth)
        tensor([0.8333])
    """
    pair = Comparison.of(predictions, annotations)
    there, matched = pair.predictions.present, pair.partners >= 0
    images = zip(_scores(pair), matched, there, strict=True)
    return torch.stack([average_precision(score[real], hit[real]) for score, hit, real in images])


def coverage_curve(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """HM IoU* of the k best proposals, for every k: how soon the order of the proposals covers the modes.

    Column k - 1 is ``1/N* max_a sum_i IoU(s_a(i), y*_i)`` over one-to-one matchings a of the N* distinct
    annotations with the k proposals of highest score (of highest weight where there are no scores). The HM
    IoU* of mode proposals (table 3) at every number of kept proposals in place of one threshold.

    Returns:
        ``(B, M)`` in [0, 1], higher is better, never falling with k; the last column is `hm_iou_unique`, but for
        the dialect, which the curve leaves aside. An image with fewer than M proposals repeats its last value.

    Raises:
        AmbisegError: the sets do not belong together.

    Trap: at k < N* even perfect proposals stay at k / N* plus whatever they share with the other modes.
    Proposals of equal score (uniform weights, say) keep the order they came in, and the curve depends on it.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1], [1, 1]]])
        >>> truth = MaskSet.uniform(masks, LabelSpace.binary())
        >>> proposals = MaskSet(masks, truth.weights, truth.labels, torch.tensor([[0.9, 0.2, 0.8]]))
        >>> coverage_curve(proposals, truth)
        tensor([[0.5000, 0.7500, 1.0000]])
    """
    pair = Comparison.of(predictions, annotations)
    given, modes = pair.predictions, pair.modes.present.cpu()
    value = given.weights if given.scores is None else given.scores
    order = descending(value.masked_fill(~given.present, -torch.inf)).cpu()
    iou = pair.to_modes.iou().cpu()
    iou = iou.gather(1, order[..., None].expand_as(iou))
    there = given.present.cpu().gather(1, order)
    best = [match(-iou[:, :k], there[:, :k], modes).total(iou[:, :k]) for k in range(1, iou.shape[1] + 1)]
    return (torch.stack(best, 1) / modes.sum(1, keepdim=True)).to(given.masks.device)


def _scores(pair: Comparison) -> Tensor:
    """The selection scores of the predictions ``(B, M)``, or an error where there are none."""
    if pair.predictions.scores is None:
        raise AmbisegError(
            "these predictions carry no selection scores: leave the selection metrics out for this method"
        )
    return pair.predictions.scores
