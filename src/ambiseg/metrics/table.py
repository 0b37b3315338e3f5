"""`METRICS`: every metric with title, direction, bounds and dialect; `evaluate_all` computes several at once.

Tables, plots and the command line read this and nothing else, so a new metric is one function and one entry
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from ambiseg.errors import UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import brier_skill_score
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.consensus import dice_of_mean
from ambiseg.metrics.energy import diversity, ged, ged_unbiased
from ambiseg.metrics.matching import (
    hm_iou,
    hm_iou_tiled,
    hm_iou_unique,
    m_iou,
)
from ambiseg.metrics.selection import selection_f1


@dataclass(frozen=True)
class MetricInfo:
    """What is known of a metric.

    Attributes:
        name: how it is asked for.
        title: how it is printed.
        function: ``(predictions, annotations) -> (B,)``; also accepts one `Comparison`.
        higher_is_better: direction; None where neither is good in itself.
        lower_bound: smallest value, ``-inf`` if there is none.
        upper_bound: largest value.
        description: one sentence that names the dialect.
        needs: what the predictions must bring beyond masks: "scores", or "weights" that are estimated
            probabilities.
    """

    name: str
    title: str
    function: Callable[..., Tensor]
    higher_is_better: bool | None
    lower_bound: float
    upper_bound: float
    description: str
    needs: tuple[str, ...] = ()


_ALL = (
    MetricInfo(
        "hm_iou_unique", "HM IoU*", hm_iou_unique, True, 0.0, 1.0,
        "Hungarian-matched IoU with the distinct annotations, rectangular (mode proposals); grows with M.",
    ),
    MetricInfo(
        "hm_iou", "HM IoU", hm_iou, True, 0.0, 1.0,
        "Hungarian-matched IoU, rectangular, duplicate annotations kept (Flow-SSN); grows with M.",
    ),
    MetricInfo(
        "hm_iou_tiled", "HM IoU (tiled)", hm_iou_tiled, True, 0.0, 1.0,
        "Hungarian-matched IoU after repeating both sides to equal counts (CCDM, BerDiff, ATFM).",
    ),
    MetricInfo(
        "m_iou", "M-IoU", m_iou, True, 0.0, 1.0,
        "Optimal-transport IoU between the weighted sets (MoSE).",
        ("weights",),
    ),
    MetricInfo(
        "ged", "GED²", ged, False, 0.0, 2.0,
        "Squared generalised energy distance with 1 - IoU, V-statistic, weighted (Probabilistic U-Net).",
    ),
    MetricInfo(
        "ged_unbiased", "GED² (unbiased)", ged_unbiased, False, -2.0, 2.0,
        "Squared generalised energy distance with 1 - IoU, U-statistic without the diagonals (D-Persona).",
    ),
    MetricInfo(
        "selection_f1", "Selection F1", selection_f1, True, 0.0, 1.0,
        "F1 of [score > 0.5] against [matched with a mode], counts pooled over images (mode proposals).",
        ("scores",),
    ),
    MetricInfo(
        "brier_skill_score", "BSS", brier_skill_score, True, -math.inf, 1.0,
        "Brier skill score of mode probabilities against uniform ones, pooled over images (mode proposals).",
        ("weights",),
    ),
    MetricInfo(
        "dice_of_mean", "Dice of mean", dice_of_mean, True, 0.0, 1.0,
        "Dice of the decided mean prediction against the majority, ties to the background (Flow-SSN).",
    ),
    MetricInfo(
        "diversity", "Diversity", diversity, None, 0.0, 1.0,
        "Expected 1 - IoU of two predictions of one image, the diagonal included (Flow-SSN).",
    ),
)  # fmt: skip

METRICS: dict[str, MetricInfo] = {info.name: info for info in _ALL}
"""Metrics by name, in the order in which tables print them."""


def metric_info(name: str) -> MetricInfo:
    """The entry of `METRICS`, or an error with the nearest known name.

    Example:
        >>> metric_info("ged").higher_is_better
        False
    """
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return METRICS[name]


def usable_metrics(has_scores: bool) -> list[str]:
    """Names of the metrics that predictions with or without selection scores allow."""
    return [name for name, info in METRICS.items() if has_scores or "scores" not in info.needs]


def evaluate_all(
    predictions: MaskSet, annotations: MaskSet, names: Iterable[str] | None = None
) -> dict[str, Tensor]:
    """Several metrics of the same sets, each ``(B,)`` per image, overlaps and matching computed once.

    Args:
        predictions: ``(B, M, *S)``.
        annotations: ``(B, N, *S)``.
        names: keys of `METRICS`; all that the predictions allow if left out.

    Raises:
        AmbisegError: an unknown name, scores asked for but absent, or sets that do not belong together.

    Trap: the reported selection F1 and Brier skill score are pooled, not the mean of these: see
    `metric_collection`.

    Example:
        >>> import torch
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> evaluate_all(truth, truth, ["ged", "m_iou"])
        {'ged': tensor([0.]), 'm_iou': tensor([1.])}
    """
    chosen = usable_metrics(predictions.scores is not None) if names is None else list(names)
    pair = Comparison(predictions, annotations)
    return {name: metric_info(name).function(pair) for name in chosen}
