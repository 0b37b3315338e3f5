"""`METRICS`: every metric with title, direction, bounds and variant; `evaluate_all` computes several at once.

Tables, plots and the command line read this and nothing else, so a new metric is one function and one entry
here. Metrics of other packages join by `register_metric` or by an entry point in the group ``ambiseg.metrics``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import brier_skill_score, mode_kl, total_variation
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.consensus import dice_of_mean, expected_dice, soft_dice
from ambiseg.metrics.coverage import coverage, covered_mass, expected_draws, modes_hit, precision_at
from ambiseg.metrics.dialects import AMBISEG, Dialect, dialect_of
from ambiseg.metrics.energy import diversity, ged, ged_unbiased
from ambiseg.metrics.likelihood import bits_per_dimension
from ambiseg.metrics.matching import (
    hm_iou,
    hm_iou_multi,
    hm_iou_tiled,
    hm_iou_unique,
    m_iou,
    max_dice_matching,
)
from ambiseg.metrics.pixels import ece
from ambiseg.metrics.pooling import (
    POOLED_F1,
    POOLED_PIXELS,
    POOLED_PRECISION,
    POOLED_RANKING,
    POOLED_RECALL,
    Pooling,
    pooled_brier,
)
from ambiseg.metrics.selection import selection_ap, selection_f1, selection_precision, selection_recall
from ambiseg.metrics.uncertainty import ncc
from ambiseg.plugins import Registry

ENTRY_POINTS = "ambiseg.metrics"
"""Group of entry points under which other packages offer a `MetricInfo`."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("all", "loss", "masks_per_image")
"""Words that stand for something else where names of metrics stand."""


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
        description: one sentence that names the variant.
        needs: what the predictions must bring beyond masks: "scores", per-pixel "probabilities", or "weights"
            that are estimated mode probabilities.
        default: whether it is printed unless others are asked for.
        columns: the masks of which it is printed: "all" that a model predicts, those "kept" after filters.
            Values of single images are those of the first column.
        pooling: how images are joined; None for a mean over images.
    """

    name: str
    title: str
    function: Callable[..., Tensor]
    higher_is_better: bool | None
    lower_bound: float
    upper_bound: float
    description: str
    needs: tuple[str, ...] = ()
    default: bool = True
    columns: tuple[str, ...] = ("all", "kept")
    pooling: Pooling | None = None

    @property
    def fits_oracle(self) -> bool:
        """Whether draws from the annotations have what it needs."""
        return "all" in self.columns and not {"scores", "probabilities"} & set(self.needs)


_BEFORE_FILTERS = ("all",)
"""After filters nothing is left to select."""
_AFTER_FILTERS = ("kept",)
"""Copies would share the probability of one mode."""

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
        "hm_iou_multi", "HM IoU (multi)", hm_iou_multi, True, 0.0, 1.0,
        "Best IoU over the predictions for each annotation, averaged (mode proposals, appendix); grows with M.",
        default=False,
    ),
    MetricInfo(
        "m_iou", "M-IoU", m_iou, True, 0.0, 1.0,
        "Optimal-transport IoU between the weighted sets (MoSE).",
        ("weights",),
    ),
    MetricInfo(
        "max_dice_matching", "MDM", max_dice_matching, True, 0.0, 1.0,
        "Best Dice over the predictions for each annotation, averaged (ATFM, CIMD); grows with M.",
    ),
    MetricInfo(
        "ged", "GED²", ged, False, 0.0, 2.0,
        "Squared generalised energy distance with 1 - IoU, V-statistic, weighted (Probabilistic U-Net).",
    ),
    MetricInfo(
        "ged_dice", "GED² (Dice)", partial(ged, distance="dice"), False, 0.0, 2.0,
        "Squared generalised energy distance with 1 - Dice, V-statistic, weighted (ValUES).",
        default=False,
    ),
    MetricInfo(
        "ged_unbiased", "GED² (unbiased)", ged_unbiased, False, -2.0, 2.0,
        "Squared generalised energy distance with 1 - IoU, U-statistic without the diagonals (D-Persona).",
    ),
    MetricInfo(
        "diversity", "Diversity", diversity, None, 0.0, 1.0,
        "Expected 1 - IoU of two predictions of one image, the diagonal included (Flow-SSN).",
    ),
    MetricInfo(
        "coverage", "Coverage at .5", coverage, True, 0.0, 1.0,
        "Share of the distinct annotations that some prediction reaches with IoU >= 0.5; grows with M.",
        default=False,
    ),
    MetricInfo(
        "covered_mass", "Mass covered at .5", covered_mass, True, 0.0, 1.0,
        "Probability of the annotations that some prediction reaches with IoU >= 0.5; grows with M.",
        default=False,
    ),
    MetricInfo(
        "precision_at", "Precision at .5", precision_at, True, 0.0, 1.0,
        "Probability of the predictions that reach some annotation with IoU >= 0.5.",
        default=False,
    ),
    MetricInfo(
        "modes_hit", "Modes hit", modes_hit, True, 0.0, math.inf,
        "Number of distinct annotations that are the nearest one of some prediction, with IoU >= 0.5.",
        default=False,
    ),
    MetricInfo(
        "expected_draws", "Draws to see all", expected_draws, False, 1.0, math.inf,
        "Expected number of draws from the predictions until every distinct annotation was the nearest one.",
        default=False,
    ),
    MetricInfo(
        "selection_f1", "Selection F1", selection_f1, True, 0.0, 1.0,
        "F1 of [score > 0.5] against [matched with a mode], counts pooled over images (mode proposals).",
        ("scores",),
        columns=_BEFORE_FILTERS, pooling=POOLED_F1,
    ),
    MetricInfo(
        "selection_precision", "Selection precision", selection_precision, True, 0.0, 1.0,
        "Share of the kept proposals that are matched with a mode, counts pooled over images (mode proposals).",
        ("scores",),
        default=False,
        columns=_BEFORE_FILTERS, pooling=POOLED_PRECISION,
    ),
    MetricInfo(
        "selection_recall", "Selection recall", selection_recall, True, 0.0, 1.0,
        "Share of the matched proposals that are kept, counts pooled over images (mode proposals).",
        ("scores",),
        default=False,
        columns=_BEFORE_FILTERS, pooling=POOLED_RECALL,
    ),
    MetricInfo(
        "selection_ap", "Selection AP", selection_ap, True, 0.0, 1.0,
        "Average precision of the scores over all thresholds, proposals of all images pooled.",
        ("scores",),
        columns=_BEFORE_FILTERS, pooling=POOLED_RANKING,
    ),
    MetricInfo(
        "brier_skill_score", "BSS", brier_skill_score, True, -math.inf, 1.0,
        "Brier skill score of mode probabilities against uniform ones, pooled over images (mode proposals).",
        ("weights",),
        columns=_AFTER_FILTERS, pooling=pooled_brier("matched"),
    ),
    MetricInfo(
        "brier_skill_nearest", "BSS (nearest)", partial(brier_skill_score, assignment="nearest"), True, -math.inf, 1.0,
        "The same where every prediction gives its probability to its nearest mode (mode ratio of MoSE).",
        ("weights",),
        pooling=pooled_brier("nearest"),
    ),
    MetricInfo(
        "brier_skill_merged", "BSS (merged)", partial(brier_skill_score, assignment="merged"), True, -math.inf, 1.0,
        "BSS (nearest) where modes that are alike (IoU above 0.95) count as one.",
        ("weights",),
        default=False,
        pooling=pooled_brier("merged"),
    ),
    MetricInfo(
        "total_variation", "TV of modes", total_variation, False, 0.0, 1.0,
        "Half the summed difference of mode probabilities, predictions assigned to their nearest mode.",
        ("weights",),
    ),
    MetricInfo(
        "mode_kl", "KL of modes", mode_kl, False, 0.0, math.inf,
        "Kullback-Leibler divergence in nats of the true mode probabilities from those of the nearest predictions.",
        ("weights",),
        default=False,
    ),
    MetricInfo(
        "ece", "ECE", ece, False, 0.0, 1.0,
        "Expected calibration error of the mean prediction, ten bins, pixels of all images pooled (MoSE).",
        pooling=POOLED_PIXELS,
    ),
    MetricInfo(
        "ncc", "NCC", ncc, True, -1.0, 1.0,
        "Correlation over pixels of the predictions' uncertainty with their cross-entropy against an annotation (PHiSeg).",
        default=False,
    ),
    MetricInfo(
        "bits_per_dimension", "Bits per pixel", bits_per_dimension, False, 0.0, math.inf,
        "Negative log-likelihood of an annotation under the mixture of the predictions, in bits per pixel.",
        ("probabilities",),
        default=False,
    ),
    MetricInfo(
        "dice_of_mean", "Dice of mean", dice_of_mean, True, 0.0, 1.0,
        "Dice of the decided mean prediction against the majority, ties to the background (Flow-SSN).",
    ),
    MetricInfo(
        "expected_dice", "Expected Dice", expected_dice, True, 0.0, 1.0,
        "Expected Dice of one drawn prediction against one drawn annotation.",
        default=False,
    ),
    MetricInfo(
        "soft_dice", "Soft Dice", soft_dice, True, 0.0, 1.0,
        "Dice of the means cut at 0.1, ..., 0.9, averaged (QUBIQ).",
        default=False,
    ),
)  # fmt: skip

METRICS: Registry[MetricInfo] = Registry(ENTRY_POINTS, lambda info: register_metric(info))
"""Metrics by name, in the order in which tables print them."""
METRICS.own.update({info.name: info for info in _ALL})


def register_metric(info: MetricInfo, overwrite: bool = False) -> MetricInfo:
    """Add a metric, which the library and its command line then know by its name.

    Args:
        info: the metric; registering the same object again does nothing.
        overwrite: replace a metric of that name, such as an earlier version in a notebook.

    Returns:
        The entry.

    Raises:
        AmbisegError: not a `MetricInfo`, an entry with wrong values, or another metric has that name.

    Example:
        >>> register_metric(METRICS["ged"]).title
        'GED²'
    """
    if not isinstance(info, MetricInfo):
        raise AmbisegError(
            f"register_metric takes a MetricInfo, received {type(info).__name__}: see docs/extending/metric.md"
        )
    problem = _problem(info)
    if problem:
        raise AmbisegError(f"the metric {info.name!r}: {problem}")
    if METRICS.get(info.name, info) is not info and not overwrite:
        raise AmbisegError(
            f"there is a metric {info.name!r} already: give yours another name, or say overwrite=True"
        )
    METRICS[info.name] = info
    return info


def _problem(info: MetricInfo) -> str:
    """What is wrong with an entry; empty if nothing is."""
    if not isinstance(info.name, str) or not _NAME.fullmatch(info.name):
        return "its name is lower-case letters, digits and underscores, such as 'area_error'"
    if info.name in _TAKEN:
        return f"{', '.join(_TAKEN)} have a meaning of their own: give it another name"
    if not callable(info.function):
        return f"its function takes predictions and annotations, received {info.function!r}"
    if not info.lower_bound < info.upper_bound:
        return f"its lower bound {info.lower_bound} is not below its upper bound {info.upper_bound}"
    for word, known in (("columns", ("all", "kept")), ("needs", ("scores", "probabilities", "weights"))):
        given = getattr(info, word)
        if not isinstance(given, tuple) or not set(given) <= set(known) or (word == "columns" and not given):
            return f"its {word} are a tuple of {', '.join(map(repr, known))}, received {given!r}"
    return ""


def metric_info(name: str) -> MetricInfo:
    """The entry of `METRICS`, or an error with the nearest known name.

    Example:
        >>> metric_info("ged").higher_is_better
        False
    """
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS)
    return METRICS[name]


def listed(names: str | Iterable[str]) -> list[str]:
    """Names of metrics as a list, also of a single one; a title that is printed stands for the name of its metric.

    Example:
        >>> listed("ged"), listed(("GED²", "hm iou*"))
        (['ged'], ['ged', 'hm_iou_unique'])
    """
    return list(dict.fromkeys(_name_of(name) for name in ([names] if isinstance(names, str) else names)))


def _name_of(word: str) -> str:
    """The name of the one metric with that title; the word itself if it is a name, or no title."""
    if word in METRICS:
        return word
    found = [name for name, info in METRICS.items() if _folded(info.title) == _folded(word)]
    return found[0] if len(found) == 1 else word


def _folded(title: str) -> str:
    """A title without case, blanks, and forms of letters: a raised 2 is a 2."""
    return "".join(unicodedata.normalize("NFKC", str(title)).casefold().split())


def default_metrics(predictions: MaskSet) -> list[str]:
    """Names of the default metrics that these predictions allow, in the order of tables.

    Example:
        >>> import torch
        >>> from ambiseg.labels import LabelSpace
        >>> "selection_f1" in default_metrics(MaskSet.uniform(torch.zeros(1, 1, 4, dtype=torch.uint8), LabelSpace.binary()))
        False
    """
    return [name for name, info in METRICS.items() if info.default and not missing(info, predictions)]


def missing(info: MetricInfo, predictions: MaskSet) -> list[str]:
    """What a metric needs and these predictions do not bring."""
    there = {
        "scores": predictions.scores is not None,
        "probabilities": predictions.probabilities is not None,
        "weights": True,
    }
    return [need for need in info.needs if not there[need]]


def evaluate_all(
    predictions: MaskSet,
    annotations: MaskSet,
    names: str | Iterable[str] | None = None,
    dialect: str | Dialect = AMBISEG,
) -> dict[str, Tensor]:
    """Several metrics of the same sets, each ``(B,)`` per image, overlaps and matching computed once.

    Args:
        predictions: ``(B, M, *S)``.
        annotations: ``(B, N, *S)``.
        names: keys of `METRICS` or titles, or a single one; the default ones that the predictions allow if left out.
        dialect: conventions of a paper, by name or as a `Dialect`.

    Raises:
        AmbisegError: an unknown name, scores asked for but absent, sets that do not belong together, or a
            dialect that does not fit them.

    Trap: the reported selection F1 and Brier skill score are pooled, not the mean of these: see
    `metric_collection`.

    Example:
        >>> import torch
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> evaluate_all(truth, truth, ["ged", "m_iou"])
        {'ged': tensor([0.]), 'm_iou': tensor([1.])}
    """
    chosen = default_metrics(predictions) if names is None else listed(names)
    pair = Comparison(predictions, annotations, dialect_of(dialect))
    return {name: metric_info(name).function(pair) for name in chosen}
