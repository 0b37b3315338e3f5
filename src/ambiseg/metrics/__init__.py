"""Metrics of two mask sets: pure per-image functions, a table of them all, accumulators over a data set.

>>> import torch
>>> from ambiseg.labels import LabelSpace
>>> from ambiseg.maskset import MaskSet
>>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
>>> ged(truth, truth)
tensor([0.])
"""

from ambiseg.metrics.accumulators import (
    MeanOverImages,
    PooledOverImages,
    metric_collection,
)
from ambiseg.metrics.annotators import (
    AnnotatorAgreement,
    Reachable,
    annotation_oracle,
    annotator_agreement,
    oracle_samples,
    reachable_table,
)
from ambiseg.metrics.calibration import (
    BrierScores,
    ModeProbabilities,
    ModeReliability,
    brier_scores,
    brier_skill_score,
    mode_kl,
    mode_probabilities,
    mode_ratio,
    mode_reliability,
    total_variation,
)
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.consensus import consensus, dice_of_mean, expected_dice, soft_dice
from ambiseg.metrics.coverage import coverage, covered_mass, draws_of, expected_draws, modes_hit, precision_at
from ambiseg.metrics.dialects import DIALECTS, Dialect, PixelRule, dialect_of
from ambiseg.metrics.energy import GedParts, diversity, ged, ged_parts, ged_unbiased
from ambiseg.metrics.intervals import Bootstrap, Difference, Interval
from ambiseg.metrics.likelihood import bits_of, bits_per_dimension, log_likelihood
from ambiseg.metrics.matching import (
    hm_iou,
    hm_iou_multi,
    hm_iou_tiled,
    hm_iou_unique,
    m_iou,
    max_dice_matching,
)
from ambiseg.metrics.paired_tests import PairedTest, holm
from ambiseg.metrics.pixels import PixelBins, ece, pixel_bins
from ambiseg.metrics.pooling import Pooling
from ambiseg.metrics.ratios import Ratios, TwinPixels, class_flips, flip_ratios, numbered_mode_ratios
from ambiseg.metrics.registry import (
    METRICS,
    MetricInfo,
    default_metrics,
    evaluate_all,
    metric_info,
    missing,
    register_metric,
)
from ambiseg.metrics.selection import (
    PrecisionRecallCurve,
    SelectionCounts,
    SelectionRanking,
    average_precision,
    coverage_curve,
    precision_recall_curve,
    selection_ap,
    selection_counts,
    selection_f1,
    selection_precision,
    selection_ranking,
    selection_recall,
)
from ambiseg.metrics.uncertainty import ncc
from ambiseg.metrics.volumes import (
    VolumeErrors,
    cramer_distance,
    crps,
    crps_curvas,
    dice_of_most_probable,
    volume_errors,
)

__all__ = [
    "DIALECTS",
    "METRICS",
    "AnnotatorAgreement",
    "Bootstrap",
    "BrierScores",
    "TwinPixels",
    "Comparison",
    "Dialect",
    "Difference",
    "GedParts",
    "Interval",
    "MeanOverImages",
    "MetricInfo",
    "ModeProbabilities",
    "ModeReliability",
    "PairedTest",
    "PixelBins",
    "PixelRule",
    "PooledOverImages",
    "Pooling",
    "PrecisionRecallCurve",
    "Ratios",
    "Reachable",
    "VolumeErrors",
    "SelectionCounts",
    "SelectionRanking",
    "annotator_agreement",
    "average_precision",
    "bits_of",
    "bits_per_dimension",
    "brier_scores",
    "brier_skill_score",
    "class_flips",
    "consensus",
    "coverage",
    "coverage_curve",
    "covered_mass",
    "cramer_distance",
    "crps",
    "crps_curvas",
    "default_metrics",
    "dialect_of",
    "dice_of_mean",
    "dice_of_most_probable",
    "diversity",
    "draws_of",
    "ece",
    "evaluate_all",
    "expected_dice",
    "expected_draws",
    "flip_ratios",
    "ged",
    "ged_parts",
    "ged_unbiased",
    "hm_iou",
    "hm_iou_multi",
    "hm_iou_tiled",
    "hm_iou_unique",
    "holm",
    "log_likelihood",
    "m_iou",
    "max_dice_matching",
    "metric_collection",
    "metric_info",
    "missing",
    "mode_kl",
    "mode_probabilities",
    "mode_ratio",
    "mode_reliability",
    "modes_hit",
    "ncc",
    "numbered_mode_ratios",
    "annotation_oracle",
    "oracle_samples",
    "pixel_bins",
    "precision_at",
    "precision_recall_curve",
    "reachable_table",
    "register_metric",
    "selection_ap",
    "selection_counts",
    "selection_f1",
    "selection_precision",
    "selection_ranking",
    "selection_recall",
    "soft_dice",
    "total_variation",
    "volume_errors",
]
