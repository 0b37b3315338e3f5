"""Metrics of two mask sets: pure per-image functions, a table of them all, accumulators over a data set.

>>> import torch
>>> from ambiseg.labels import LabelSpace
>>> from ambiseg.maskset import MaskSet
>>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
>>> ged(truth, truth)
tensor([0.])
"""

from ambiseg.metrics.accumulators import BrierSkillScore, MeanOverImages, SelectionF1, metric_collection
from ambiseg.metrics.calibration import (
    BrierScores,
    ModeProbabilities,
    ModeReliability,
    brier_scores,
    brier_skill_score,
    mode_probabilities,
    mode_reliability,
)
from ambiseg.metrics.comparison import Comparison, match
from ambiseg.metrics.consensus import consensus, dice_of_mean, expected_dice, soft_dice
from ambiseg.metrics.energy import GedParts, diversity, ged, ged_parts, ged_unbiased
from ambiseg.metrics.matching import (
    hm_iou,
    hm_iou_multi,
    hm_iou_tiled,
    hm_iou_unique,
    m_iou,
    max_dice_matching,
)
from ambiseg.metrics.selection import SelectionCounts, selection_counts, selection_f1
from ambiseg.metrics.table import METRICS, MetricInfo, evaluate_all, metric_info, usable_metrics

__all__ = [
    "METRICS",
    "BrierScores",
    "BrierSkillScore",
    "Comparison",
    "GedParts",
    "MeanOverImages",
    "MetricInfo",
    "ModeProbabilities",
    "ModeReliability",
    "SelectionCounts",
    "SelectionF1",
    "brier_scores",
    "brier_skill_score",
    "consensus",
    "dice_of_mean",
    "diversity",
    "evaluate_all",
    "expected_dice",
    "ged",
    "ged_parts",
    "ged_unbiased",
    "hm_iou",
    "hm_iou_multi",
    "hm_iou_tiled",
    "hm_iou_unique",
    "m_iou",
    "max_dice_matching",
    "match",
    "metric_collection",
    "metric_info",
    "mode_probabilities",
    "mode_reliability",
    "selection_counts",
    "selection_f1",
    "soft_dice",
    "usable_metrics",
]
