"""Why metrics mean nothing on the data at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ambiseg.engine.score.results import COLUMN
from ambiseg.engine.tally import Figures
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Dialect, metric_info, missing

NEARLY_ALL = 0.95
"""Share of the images with equally probable modes above which a comparison with equal probabilities says nothing."""
AGAINST_EQUAL = ("brier_skill_score", "brier_skill_nearest", "brier_skill_merged")
"""Metrics that compare probabilities with equal ones."""
_FAMILIES = {
    "matching": ("hm_iou", "hm_iou_unique", "hm_iou_tiled", "hm_iou_multi", "m_iou", "max_dice_matching"),
    "energy": ("ged", "ged_dice", "diversity"),
    "consensus": ("dice_of_mean", "expected_dice"),
}
"""Metrics that follow each convention of a dialect."""
_LACKING = {
    "probabilities": "probabilities of pixels, which label maps do not hold: save probabilities",
    "scores": "selection scores, which only 'ambiseg predict --all' writes: predict with it",
}


def fitting(names: Sequence[str], sets: Sequence[MaskSet], systems: Sequence[str]) -> list[list[str]]:
    """The metrics for which the masks of each system bring what they need.

    Raises:
        AmbisegError: no system brings it for one of them.
    """
    found: list[list[str]] = [[] for _ in sets]
    for name in names:
        needs = [missing(metric_info(name), masks) for masks in sets]
        if all(needs):
            raise AmbisegError(
                f"{', '.join(systems)}: {name} needs {_LACKING.get(needs[0][0], needs[0][0])}, or leave the metric out"
                " (--metrics)"
            )
        for own, lacking in zip(found, needs, strict=True):
            own += [] if lacking else [name]
    return found


def without_needs(names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Why metrics of some systems are not computed for others.

    Args:
        names: metrics by system.
    """
    found = {}
    for name in dict.fromkeys(name for own in names.values() for name in own):
        if lacking := [system for system, own in names.items() if name not in own]:
            needs = "; ".join(_LACKING[need] for need in metric_info(name).needs if need in _LACKING)
            found[name] = f"of {', '.join(lacking)}, it needs {needs}"
    return found


def meaningless(figures: Figures) -> dict[str, str]:
    """Metrics that say nothing where equal probabilities are exact, with the reason."""
    share = float(figures.even.mean())
    if share < NEARLY_ALL:
        return {}
    names = [name for name in AGAINST_EQUAL if name in figures.columns[COLUMN]]
    reason = f"in {share:.0%} of the images all modes are equally probable, so that equal probabilities are exact there"
    return dict.fromkeys(names, reason)


def without_value(figures: Mapping[str, Figures], dialect: Dialect) -> dict[str, str]:
    """Metrics that have no value of any image in some system, with the reason.

    Args:
        figures: by the name of the system.
        dialect: whose conventions hold.
    """
    found = {}
    for name in dict.fromkeys(name for one in figures.values() for name in one.columns[COLUMN]):
        lacking = [title for title, one in figures.items() if math.isnan(one.columns[COLUMN].get(name, 0.0))]
        if lacking:
            of = "" if len(lacking) == len(figures) else f"of {', '.join(lacking)}, "
            found[name] = of + _reason(name, figures[lacking[0]], dialect)
    return found


def _reason(name: str, figures: Figures, dialect: Dialect) -> str:
    if name in AGAINST_EQUAL and name in meaningless(figures):
        return "all modes are equally probable, so that there is nothing to improve on equal probabilities"
    for family, names in _FAMILIES.items():
        if name in names and getattr(dialect, family).undefined:
            return (
                "in each image some pair of masks lacks all evaluated classes, and the dialect"
                f" {dialect.name} gives such an image no value"
            )
    return "no image has a value"


def without(figures: Figures, names: Mapping[str, str]) -> Figures:
    """The figures without some metrics."""

    def rest(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in names}

    return replace(
        figures,
        columns={title: rest(column) for title, column in figures.columns.items()},
        intervals={title: rest(column) for title, column in figures.intervals.items()},
        oracle=rest(figures.oracle),
        per_image=rest(figures.per_image),
    )
