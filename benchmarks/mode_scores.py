"""What masks with estimated probabilities are worth: the figures of `probabilities.py`, image by image and
then for all.

Annotated modes that are nearly alike are judged three ways: as they are, as one, and by leaving out the
images that have them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ambiseg.maskset import MaskSet
from ambiseg.metrics import Comparison, metric_collection
from ambiseg.metrics.calibration import BrierScores, brier_scores
from mode_proposals import FLIPS

ALIKE = 0.9
"""Annotated modes with a higher IoU count as one in the figures "merged"."""
SCORES = ("hm_iou_unique", "brier_skill_score", "brier_skill_nearest", "total_variation")
MERGED_SCORES = ("hm_iou_unique", "brier_skill_nearest", "total_variation")


@dataclass(frozen=True)
class Masks:
    """Masks of every image, how they were filtered, and seconds per image to get them."""

    name: str
    filter: str
    sets: list[MaskSet]
    seconds: float = 0.0


def skill_interval(squares: NDArray[np.float64], resamples: int = 2000) -> list[float] | None:
    """Bootstrap over images: 95 % of the pooled skill of ``squares (images, 2)``, those of the estimate and
    of the guess."""
    if not squares[:, 1].any():
        return None
    drawn = np.random.default_rng(0).integers(len(squares), size=(resamples, len(squares)))
    score, uniform = squares[drawn].mean(1).T
    low, high = np.quantile(1 - score / uniform, [0.025, 0.975])
    return [round(float(low), 3), round(float(high), 3)]


@dataclass
class Tally:
    """What one way reached on one kind of masks, image by image."""

    masks: Masks
    scores: Any = field(default_factory=lambda: metric_collection(SCORES))
    merged: Any = field(default_factory=lambda: metric_collection(MERGED_SCORES))
    both_merged: Any = field(default_factory=lambda: metric_collection(("brier_skill_score",)))
    seconds: float = 0.0
    evaluations: int = 0
    flips: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    squares: list[tuple[float, float]] = field(default_factory=list)
    distinct: list[bool] = field(default_factory=list)

    def add(
        self,
        found: MaskSet,
        truth: MaskSet,
        seconds: float,
        evaluations: int,
        flips: Tensor | None,
        true: Any,
    ) -> None:
        """Count one image."""
        found = replace(found, probabilities=None)
        pair = Comparison(found, truth)
        self.scores.update(pair)
        squares = brier_scores(pair)
        self.squares.append((float(squares.score), float(squares.uniform)))
        merged = truth.drop_near_duplicates(ALIKE)
        self.merged.update(Comparison(found, merged))
        self.both_merged.update(Comparison(found.drop_near_duplicates(ALIKE), merged))
        self.distinct.append(torch.equal(merged.count, truth.merge_identical().count))
        self.seconds += seconds
        self.evaluations += evaluations
        if flips is not None:
            chances = torch.tensor([list(FLIPS.values())], dtype=flips.dtype)
            shown = true.flatten(2).any(2)
            if bool(shown.any()):
                self.flips.append(
                    ((flips - chances)[shown].square().mean(), (0.5 - chances)[shown].square().mean())
                )

    def row(self, way: str, images: int) -> dict[str, Any]:
        """The figures, means over images or pooled."""
        found = self.scores.compute() | {f"{k}_merged": v for k, v in self.merged.compute().items()}
        found |= {f"{k}_both_merged": v for k, v in self.both_merged.compute().items()}
        numbers = {key: round(float(value), 4) for key, value in found.items()}
        if self.flips:
            score, uniform = (torch.stack(column).mean() for column in zip(*self.flips, strict=True))
            numbers["flip_skill"] = round(float(BrierScores(score, uniform).skill()), 4)
        squares, distinct = np.array(self.squares), np.array(self.distinct)
        score, uniform = torch.from_numpy(squares[distinct].mean(0)) if distinct.any() else torch.zeros(2)
        return {
            "masks": self.masks.name,
            "filter": self.masks.filter,
            "way": way,
            "evaluations": self.evaluations // images,
            **numbers,
            "brier_skill_score_interval": skill_interval(squares),
            "brier_skill_score_distinct": round(float(BrierScores(score, uniform).skill()), 4),
            "images_distinct": int(distinct.sum()),
            "seconds_per_image": round(self.seconds / images + self.masks.seconds, 5),
        }
