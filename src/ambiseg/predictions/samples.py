"""Masks of one image as another program gives them, and what their numbers mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.validation import FileProblem, canonical_mask, mask_problems
from ambiseg.defaults import FOREGROUND_THRESHOLD
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

TOLERANCE = 1e-3
"""How far the sum of weights may lie from 1; they are divided by it then."""
_EXACT = 1e-6
"""Sums that are as near to 1 as 32 bits allow stay as they are."""


class UnfitError(AmbisegError):
    """Predictions of an image that do not fit its annotations.

    Attributes:
        kind: the kind of mistake, a key of `ambiseg.engine.score.mistakes.MISTAKES`.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True)
class Samples:
    """What a file holds of one image.

    Attributes:
        masks: ``(n, H, W)`` uint8 label maps.
        weights: ``(n,)`` as stated, None where nothing is said of them.
        probabilities: ``(n, C, H, W)`` float32, None where there are label maps only.
        scores: ``(n,)``, None where there are none.
    """

    masks: NDArray[np.uint8]
    weights: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float32] | None = None
    scores: NDArray[np.float64] | None = None

    def as_set(self, labels: LabelSpace) -> MaskSet:
        """The mask set ``(1, n, H, W)``; weights are equal if none are stated.

        Raises:
            UnfitError: weights that are no distribution.
        """
        count = len(self.masks)
        weights = np.full(count, 1 / count) if self.weights is None else _distribution(self.weights)
        arrays = [weights.astype(np.float32), self.scores, self.probabilities]
        share, scores, probabilities = (
            None if array is None else torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]
            for array in arrays
        )
        assert share is not None
        return MaskSet(torch.from_numpy(self.masks)[None], share, labels, scores, probabilities)


def _distribution(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise UnfitError("weights", "a weight is negative, NaN or infinite")
    total = float(weights.sum())
    if abs(total - 1) > TOLERANCE:
        raise UnfitError("weights", f"sum {total:.4g}")
    return weights if abs(total - 1) <= _EXACT else weights / total


def understood(
    values: NDArray[Any], rules: MaskRules, labels: LabelSpace, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Label maps ``(n, H, W)`` of numbers, and ``(n, 1, H, W)`` probabilities where the numbers are that.

    Args:
        values: ``(n, H, W)`` of any numeric type.
        rules: what the numbers of masks mean.
        labels: the classes.
        where: file and image, for messages.

    Raises:
        UnfitError: probabilities outside of [0, 1], or numbers that are no classes.

    Example:
        >>> space = LabelSpace.binary()
        >>> understood(np.array([[[0.2, 0.7]]]), MaskRules.of(space), space, "a")[0]
        array([[[0, 1]]], dtype=uint8)
    """
    if values.dtype.kind == "f" and labels.is_binary and not np.array_equal(values, np.round(values)):
        if not np.isfinite(values).all():
            raise UnfitError("range", "NaN or infinite")
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            raise UnfitError("range", f"{low:.4g} to {high:.4g}")
        probabilities = values.astype(np.float32)
        return (probabilities > FOREGROUND_THRESHOLD).astype(np.uint8), probabilities[:, None]
    if values.dtype.kind in "bui" and values.min() >= 0 and values.max() < labels.classes:
        return values.astype(np.uint8), None
    try:
        masks = np.stack([canonical_mask(one, where, rules) for one in values])
    except FileProblem as problem:
        raise UnfitError("classes", problem.problem) from problem
    for mask in masks:
        if problems := mask_problems(mask, None, labels, where):
            raise UnfitError("classes", problems[0].problem)
    return masks, None


class Predictions(ABC):
    """Masks of several images in files.

    Attributes:
        path: where they lie.
        ids: names of the images.
        remark: what a user should know of how they are read; empty if nothing.
    """

    path: Path
    ids: tuple[str, ...]
    remark: str = ""

    @abstractmethod
    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """Read the masks of one image; `AmbisegError` if its files are wrong or do not fit the classes."""
        ...
