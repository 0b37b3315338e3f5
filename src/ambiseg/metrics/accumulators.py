"""Metrics over a whole data set: thin torchmetrics accumulators around the per-image functions.

Each keeps sums only, so batches may come in any size and from several processes. Most numbers are means over
images; selection F1 and the Brier skill score pool their parts over all images first, as the paper that
prints them does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from ambiseg.defaults import SCORE_THRESHOLD
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import BrierScores, brier_scores
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.selection import selection_counts
from ambiseg.metrics.table import METRICS, metric_info


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
    def plot_lower_bound(self) -> float:  # type: ignore[override]
        return self.info.lower_bound

    @property
    def plot_upper_bound(self) -> float:  # type: ignore[override]
        return self.info.upper_bound

    def _sums(self, *names: str, dtype: torch.dtype = torch.float32) -> None:
        for name in names:
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")


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

    tp: Tensor
    fp: Tensor
    fn: Tensor

    def __init__(self, threshold: float = SCORE_THRESHOLD, **settings: Any) -> None:
        super().__init__("selection_f1", **settings)
        self.threshold = threshold
        self._sums("tp", "fp", "fn", dtype=torch.int64)

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the counts of a batch."""
        counts = selection_counts(predictions, annotations, self.threshold)
        self.tp = self.tp + counts.tp.sum()
        self.fp = self.fp + counts.fp.sum()
        self.fn = self.fn + counts.fn.sum()

    def compute(self) -> Tensor:
        """The pooled F1; nan before the first image."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn)


class BrierSkillScore(_Accumulator):
    """Brier skill score, pooled: ``1 - mean BS / (mean BS_uniform + eps)`` (mode proposals, eq. 23).

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

    def __init__(self, **settings: Any) -> None:
        super().__init__("brier_skill_score", **settings)
        self._sums("score", "uniform")
        self._sums("images", dtype=torch.int64)

    def update(self, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> None:
        """Add the scores of a batch."""
        scores = brier_scores(predictions, annotations)
        self.score = self.score + scores.score.sum()
        self.uniform = self.uniform + scores.uniform.sum()
        self.images = self.images + len(scores.score)

    def compute(self) -> Tensor:
        """The pooled score; nan before the first image."""
        return BrierScores(self.score / self.images, self.uniform / self.images).skill()


def metric_collection(
    names: Iterable[str] | None = None, threshold: float = SCORE_THRESHOLD
) -> MetricCollection:
    """Accumulators of several metrics by name, updated together.

    Args:
        names: keys of `METRICS`; all of them if left out (the predictions must then carry scores).
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
    for name in METRICS if names is None else names:
        member: Metric
        if name == "selection_f1":
            member = SelectionF1(threshold)
        elif name == "brier_skill_score":
            member = BrierSkillScore()
        else:
            member = MeanOverImages(name)
        collection.add_metrics({name: member})  # one by one: a dictionary would be sorted by name
    return collection
