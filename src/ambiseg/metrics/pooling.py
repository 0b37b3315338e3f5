"""`Pooling`: how metrics that divide only once join the images of a data set, as their papers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from ambiseg.metrics.calibration import BrierScores, brier_scores
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.pixels import PixelBins, pixel_bins
from ambiseg.metrics.selection import (
    SelectionCounts,
    average_precision,
    selection_counts,
    selection_ranking,
)

BINS = 10
"""Equal bins of confidence over [0, 1]."""


@dataclass(frozen=True, eq=False)
class Pooling:
    """Parts of a metric that are joined over all images, and the value of what was joined.

    Attributes:
        parts: ``(pair, score threshold) -> tensors``, what each image of a batch contributes, in the order of
            ``sums`` or ``lists``.
        value: the metric of the joined parts; nan before the first image.
        sums: parts ``(images, ...)`` that are added up over images, with their zeros ``(...)``.
        lists: parts that are kept one after the other, one entry for each proposal; the last one is the number
            of entries of each image, ``(images,)``.
    """

    parts: Callable[[Comparison, float], tuple[Tensor, ...]]
    value: Callable[..., Tensor]
    sums: Mapping[str, Tensor] = field(default_factory=dict)
    lists: tuple[str, ...] = ()

    def resampled(self, parts: Sequence[Tensor], counts: Tensor) -> Tensor:
        """The metric of resamples of the images, ``(resamples,)``.

        Args:
            parts: of all images.
            counts: how often a resample holds each image, ``(resamples, images)``.
        """
        if self.lists:
            *lists, entries = parts
            times = (row.repeat_interleave(entries) for row in counts.long())
            drawn = ([part.repeat_interleave(row) for part in lists] for row in times)
            return torch.stack([self.value(*one, entries) for one in drawn])
        sums = (torch.tensordot(counts, part.to(counts), 1) for part in parts)
        return torch.stack([self.value(*one) for one in zip(*sums, strict=True)])


def _counts(pair: Comparison, threshold: float) -> tuple[Tensor, ...]:
    counts = selection_counts(pair, threshold=threshold)
    return counts.tp, counts.fp, counts.fn


def _of_counts(measure: Callable[[SelectionCounts], Tensor], tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
    return torch.where(tp + fn > 0, measure(SelectionCounts(tp, fp, fn)), torch.nan)


def _selection(measure: Callable[[SelectionCounts], Tensor]) -> Pooling:
    zero = torch.zeros((), dtype=torch.int64)
    return Pooling(_counts, partial(_of_counts, measure), {"tp": zero, "fp": zero, "fn": zero})


def _ranked(pair: Comparison, _: float) -> tuple[Tensor, ...]:
    ranking = selection_ranking(pair)
    return ranking.scores, ranking.matched, pair.predictions.present.sum(1)


def _average_precision(scores: Tensor, matched: Tensor, _: Tensor) -> Tensor:
    return average_precision(scores, matched.bool()) if len(scores) else torch.tensor(torch.nan)


def _binned(pair: Comparison, _: float) -> tuple[Tensor, ...]:
    bins = pixel_bins(pair, bins=BINS)
    return bins.confidence, bins.target, bins.count, bins.outside


def _calibration_error(*sums: Tensor) -> Tensor:
    return PixelBins(*(part[None] for part in sums)).error()[0]


def _brier_parts(assignment: str, pair: Comparison, _: float) -> tuple[Tensor, ...]:
    scores = brier_scores(pair, assignment=assignment)
    return scores.score, scores.uniform, torch.ones(len(scores.score), dtype=torch.int64)


def _brier_skill(score: Tensor, uniform: Tensor, images: Tensor) -> Tensor:
    return BrierScores(score / images, uniform / images).skill()


def pooled_brier(assignment: str) -> Pooling:
    """``1 - mean BS / (mean BS_uniform + eps)`` (mode proposals, equation 23).

    Images of equally probable modes count too, with ``BS_uniform = 0``; nan if all images are such.
    """
    zeros = {
        "score": torch.zeros(()),
        "uniform": torch.zeros(()),
        "images": torch.zeros((), dtype=torch.int64),
    }
    return Pooling(partial(_brier_parts, assignment), _brier_skill, zeros)


POOLED_F1 = _selection(SelectionCounts.f1)
"""``2 TP / (2 TP + FP + FN)`` (mode proposals, table 3)."""
POOLED_PRECISION = _selection(SelectionCounts.precision)
"""``TP / (TP + FP)``."""
POOLED_RECALL = _selection(SelectionCounts.recall)
"""``TP / (TP + FN)``."""
POOLED_RANKING = Pooling(_ranked, _average_precision, lists=("scores", "matched", "entries"))
"""Average precision, the proposals of all images ranked together."""
POOLED_PIXELS = Pooling(
    _binned,
    _calibration_error,
    {
        "confidence": torch.zeros(1, BINS, dtype=torch.float64),
        "target": torch.zeros(1, BINS, dtype=torch.float64),
        "count": torch.zeros(1, BINS, dtype=torch.int64),
        "outside": torch.zeros(1, dtype=torch.int64),
    },
)
"""Expected calibration error over the pixels of all images together (MoSE)."""
