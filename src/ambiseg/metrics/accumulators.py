"""Metrics over a whole data set: thin torchmetrics accumulators around the per-image functions.

Batches may come in any size and from several processes. Most numbers are means over images; those of `POOLED`
pool their parts over all images first, as the papers that print them do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from ambiseg.defaults import SCORE_THRESHOLD
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import BrierScores, brier_scores
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.pixels import PixelBins, pixel_bins
from ambiseg.metrics.registry import metric_info
from ambiseg.metrics.selection import (
    SelectionCounts,
    average_precision,
    selection_counts,
    selection_ranking,
)


class _Accumulator(Metric):
    """A metric whose direction and bounds come from `METRICS`."""

    full_state_update = False
    is_differentiable = False

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.info = metric_info(name)

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        return self.info.higher_is_better

    @property
    def plot_lower_bound(self) -> float | None:  # type: ignore[override]
        return _finite(self.info.lower_bound)

    @property
    def plot_upper_bound(self) -> float | None:  # type: ignore[override]
        return _finite(self.info.upper_bound)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw the value, or several given values, with the metric's bounds and its better side marked.

        Returns:
            A matplotlib figure and its axes.
        """
        axes: Any
        figure, axes = self._plot(val, ax)
        axes.set_title(self.info.title)
        return figure, axes

    def _sums(self, *names: str, dtype: torch.dtype = torch.float32) -> None:
        for name in names:
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None


class MeanOverImages(_Accumulator):
    """Mean over images of one metric of `METRICS`; images whose value is nan are left out.

    Args:
        name: key of `METRICS`.

    Raises:
        UnknownNameError: there is no such metric.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> mean = MeanOverImages("ged")
        >>> mean.update(truth, truth)
        >>> mean.update(truth.top(1), truth)
        >>> mean.compute()
        tensor(0.1250)
    """

    total: Tensor
    images: Tensor

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__(name, **settings)
        self._sums("total")
        self._sums("images", dtype=torch.int64)

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the images of a batch."""
        value = self.info.function(predictions, annotations)
        self.total = self.total + value.nansum()
        self.images = self.images + (~value.isnan()).sum()

    def compute(self) -> Tensor:
        """The mean; nan before the first image."""
        return self.total / self.images


class SelectionF1(_Accumulator):
    """F1 of the selection scores with pooled counts: ``2 TP / (2 TP + FP + FN)`` (mode proposals, table 3).

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> scores, truth = torch.tensor([[0.9, 0.2]]), MaskSet.uniform(masks, LabelSpace.binary())
        >>> SelectionF1()(MaskSet(masks, truth.weights, truth.labels, scores), truth)
        tensor(0.6667)
    """

    name = "selection_f1"
    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __init__(self, threshold: float = SCORE_THRESHOLD, **settings: Any) -> None:
        super().__init__(self.name, **settings)
        self.threshold = threshold
        self._sums("tp", "fp", "fn", dtype=torch.int64)

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the counts of a batch."""
        counts = selection_counts(predictions, annotations, self.threshold)
        self.tp = self.tp + counts.tp.sum()
        self.fp = self.fp + counts.fp.sum()
        self.fn = self.fn + counts.fn.sum()

    def compute(self) -> Tensor:
        """The pooled value; nan before the first image."""
        counts = SelectionCounts(self.tp, self.fp, self.fn)
        return torch.where(self.tp + self.fn > 0, self._of(counts), torch.nan)

    def _of(self, counts: SelectionCounts) -> Tensor:
        return counts.f1()


class SelectionPrecision(SelectionF1):
    """Precision of the selection scores with pooled counts: ``TP / (TP + FP)``."""

    name = "selection_precision"

    def _of(self, counts: SelectionCounts) -> Tensor:
        return counts.precision()


class SelectionRecall(SelectionF1):
    """Recall of the selection scores with pooled counts: ``TP / (TP + FN)``."""

    name = "selection_recall"

    def _of(self, counts: SelectionCounts) -> Tensor:
        return counts.recall()


class SelectionAP(_Accumulator):
    """Average precision of the selection scores, the proposals of all images ranked together.

    Keeps one score and one flag for every proposal of the data set. Across processes each must have seen an
    image.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> scores, truth = torch.tensor([[0.9, 0.2]]), MaskSet.uniform(masks, LabelSpace.binary())
        >>> SelectionAP()(MaskSet(masks, truth.weights, truth.labels, scores), truth[0].top(1))
        tensor(1.)
    """

    scores: list[Tensor]
    matched: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__("selection_ap", **settings)
        for name in ("scores", "matched"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the proposals of a batch."""
        ranking = selection_ranking(predictions, annotations)
        self.scores.append(ranking.scores)
        self.matched.append(ranking.matched)

    def compute(self) -> Tensor:
        """The pooled value; nan before the first image."""
        if isinstance(self.scores, list) and not self.scores:  # a tensor once processes were joined
            return torch.tensor(torch.nan)
        return average_precision(dim_zero_cat(self.scores), dim_zero_cat(self.matched).bool())


class PixelCalibration(_Accumulator):
    """Expected calibration error over the pixels of all images together (MoSE).

    Args:
        bins: equal bins of confidence over [0, 1].

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> PixelCalibration()(truth.top(1), truth)
        tensor(0.2500)
    """

    confidence: Tensor
    target: Tensor
    count: Tensor

    def __init__(self, bins: int = 10, **settings: Any) -> None:
        super().__init__("ece", **settings)
        self.bins = bins
        for name, dtype in (("confidence", torch.float64), ("target", torch.float64), ("count", torch.int64)):
            self.add_state(name, torch.zeros(1, 1, bins, dtype=dtype), dist_reduce_fx="sum")

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the pixels of a batch."""
        bins = self.pooled() + pixel_bins(predictions, annotations, self.bins).pooled()
        self.confidence, self.target, self.count = bins.confidence, bins.target, bins.count

    def pooled(self) -> PixelBins:
        """The bins so far, for a reliability diagram."""
        return PixelBins(self.confidence, self.target, self.count)

    def compute(self) -> Tensor:
        """The error; nan before the first image."""
        return self.pooled().error()[0]


class BrierSkillScore(_Accumulator):
    """Brier skill score, pooled: ``1 - mean BS / (mean BS_uniform + eps)`` (mode proposals, eq. 23).

    Args:
        assignment: "matched" pairs predictions and modes one to one, "nearest" gives every prediction to a
            mode, and "merged" counts modes that are alike as one.

    Images of equally probable modes count too, with ``BS_uniform = 0``; nan if all images are such.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [0, 1]]])
        >>> truth = MaskSet(masks, torch.tensor([[0.75, 0.25]]), LabelSpace.binary())
        >>> guess = MaskSet(masks, torch.tensor([[0.625, 0.375]]), LabelSpace.binary())
        >>> BrierSkillScore()(guess, truth)
        tensor(0.7500)
    """

    score: Tensor
    uniform: Tensor
    images: Tensor

    def __init__(self, assignment: str = "matched", **settings: Any) -> None:
        name = "brier_skill_score" if assignment == "matched" else f"brier_skill_{assignment}"
        super().__init__(name, **settings)
        self.assignment = assignment
        self._sums("score", "uniform")
        self._sums("images", dtype=torch.int64)

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the scores of a batch."""
        scores = brier_scores(predictions, annotations, self.assignment)
        self.score = self.score + scores.score.sum()
        self.uniform = self.uniform + scores.uniform.sum()
        self.images = self.images + len(scores.score)

    def compute(self) -> Tensor:
        """The pooled score; nan before the first image."""
        return BrierScores(self.score / self.images, self.uniform / self.images).skill()


POOLED: dict[str, Callable[[float], Metric]] = {
    "selection_f1": SelectionF1,
    "selection_precision": SelectionPrecision,
    "selection_recall": SelectionRecall,
    "selection_ap": lambda _: SelectionAP(),
    "brier_skill_score": lambda _: BrierSkillScore(),
    "brier_skill_nearest": lambda _: BrierSkillScore("nearest"),
    "brier_skill_merged": lambda _: BrierSkillScore("merged"),
    "ece": lambda _: PixelCalibration(),
}
"""Accumulators, given the threshold of the scores, of metrics that pool all images before they divide."""


def metric_collection(names: Iterable[str], threshold: float = SCORE_THRESHOLD) -> MetricCollection:
    """Accumulators of several metrics by name, updated together.

    Args:
        names: keys of `METRICS`.
        threshold: of the selection scores.

    Raises:
        UnknownNameError: there is no such metric.

    Trap: ``update(Comparison(predictions, annotations))`` computes overlaps and matching once for all of
    them, ``update(predictions, annotations)`` once for each.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> both = metric_collection(["hm_iou", "ged"])
        >>> both.update(Comparison(truth, truth))
        >>> both.compute()
        {'hm_iou': tensor(1.), 'ged': tensor(0.)}
    """
    # Groups would share one state between metrics that agree on the first batch, be it by chance.
    collection = MetricCollection({}, compute_groups=False)
    for name in names:
        member = POOLED[name](threshold) if name in POOLED else MeanOverImages(name)
        collection.add_metrics({name: member})  # one by one: a dictionary would be sorted by name
    return collection
