"""How well selection scores tell the proposals worth keeping from the rest (mode proposals, table 3).

All proposals are matched one to one with the distinct annotations; a proposal *should* be kept exactly if it
is matched. The scores decide which ones *are* kept. Counting both gives precision, recall and F1. The
reported number pools the counts of all images (`SelectionF1` among the accumulators); the per-image F1 is
here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ambiseg.defaults import SCORE_THRESHOLD
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison


@dataclass(frozen=True)
class SelectionCounts:
    """Proposals kept and matched (tp), kept only (fp), matched only (fn); ``(B,)`` int64 each."""

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def f1(self) -> Tensor:
        """``2 tp / (2 tp + fp + fn)``, in [0, 1]."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn)


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

    Trap: pass *all* proposals. After `MaskSet.filter_scores` there is nothing left to reject, and a proposal
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
    scores = pair.predictions.scores
    if scores is None:
        raise AmbisegError(
            "these predictions carry no selection scores: leave selection F1 out for this method"
        )
    kept = (scores > threshold) & pair.predictions.present
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
