"""Masks of one image as another program gives them, and what their numbers mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.validation import ROUNDING, FileProblem, canonical_mask
from ambiseg.defaults import FOREGROUND_THRESHOLD
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

TOLERANCE = 1e-3
"""How far the sum of weights may lie from 1; they are divided by it then."""
_EXACT = 1e-6
"""Sums that are as near to 1 as 32 bits allow stay as they are."""
_LEVELS = 8
"""Numbers that are no classes, of which more are rather levels of grey."""
_MISTAKEN = 0.1
"""Share of the numbers outside of 0 to 1 above which they are rather logits than wrong probabilities."""
_CLASS_TOLERANCE = 1e-2
"""How far the sum of the probabilities of classes may lie from 1, as numbers of 16 bits do."""


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
    if not np.isfinite(weights).all():
        raise UnfitError("weights", "one is NaN or infinite")
    if (weights < 0).any():
        raise UnfitError("weights", f"one is {weights.min():.4g}")
    total = float(weights.sum())
    if total == 0:
        raise UnfitError("weights", "all are 0")
    if abs(total - 1) > TOLERANCE:
        raise UnfitError("weight sums", f"sum {total:.4g}")
    return weights if abs(total - 1) <= _EXACT else weights / total


def understood(
    values: NDArray[Any], rules: MaskRules, labels: LabelSpace, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Label maps ``(n, H, W)`` of numbers, and their probabilities ``(n, channels, H, W)`` where they are that.

    Args:
        values: ``(n, H, W)`` of any numeric type: label maps, or probabilities of the foreground. ``(n, C, H, W)``:
            probabilities of classes, or zeros and ones.
        rules: what the numbers of masks mean.
        labels: the classes.
        where: file and image, for messages.

    Raises:
        UnfitError: probabilities outside of [0, 1] or of another sum, or numbers that are no classes.

    Example:
        >>> space = LabelSpace.binary()
        >>> understood(np.array([[[0.2, 0.7]]]), MaskRules.of(space), space, "a")[0]
        array([[[0, 1]]], dtype=uint8)
        >>> understood(np.array([[[[0.8, 0.3]], [[0.2, 0.7]]]]), MaskRules.of(space), space, "a")[0]
        array([[[0, 1]]], dtype=uint8)
    """
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "f":
        _refuse_impossible(values, labels)
    if values.ndim == 4:
        return _of_classes(values, labels)
    if values.dtype.kind == "f":
        apart = np.abs(values - np.round(values))
        if labels.is_binary and apart.any():
            _require_probabilities(values)
            probabilities = values.astype(np.float32)
            return (probabilities > FOREGROUND_THRESHOLD).astype(np.uint8), probabilities[:, None]
        if (apart > ROUNDING).any():
            raise UnfitError("fractions", f"such as {values.flat[int(apart.argmax())]:.4g}")
    if values.dtype.kind in "bui" and values.min() >= 0 and values.max() < labels.classes:
        return values.astype(np.uint8), None
    try:
        masks = np.stack([canonical_mask(one, where, rules) for one in values])
    except FileProblem as problem:
        raise UnfitError("classes", problem.problem) from problem
    require_classes(masks, labels)
    return masks, None


def require_classes(masks: NDArray[np.uint8], labels: LabelSpace) -> None:
    """Raise `UnfitError` where label maps hold numbers that are neither a class nor void."""
    if masks.max() < labels.classes:
        return
    wrong = [n for n in np.unique(masks).tolist() if n >= labels.classes and n != labels.ignore_value]
    if wrong:
        shown = ", ".join(map(str, wrong[:3])) + ", ..." * (len(wrong) > 3)
        kind = "greys" if labels.is_binary and len(wrong) > _LEVELS else "classes"
        raise UnfitError(kind, f"{shown} {'is no class' if len(wrong) == 1 else 'are no classes'}")


def _refuse_impossible(values: NDArray[Any], labels: LabelSpace) -> None:
    """Raise `UnfitError` for NaN, and for numbers below 0 unless a label map may hold them by mistake."""
    if not np.isfinite(values).all():
        raise UnfitError("nan", f"{int((~np.isfinite(values)).sum())} values")
    low, high = float(values.min()), float(values.max())
    mistaken = low == -1 and high < labels.classes and np.array_equal(values, np.round(values))
    if low < 0 and not mistaken:
        _refuse_range(values)


def _require_probabilities(values: NDArray[Any]) -> None:
    if values.min() < 0 or values.max() > 1:
        _refuse_range(values)


def _refuse_range(values: NDArray[Any]) -> NoReturn:
    outside = float(((values < 0) | (values > 1)).mean())
    raise UnfitError(
        "logits" if outside > _MISTAKEN else "range",
        f"{float(values.min()):.4g} to {float(values.max()):.4g}",
    )


def _of_classes(
    values: NDArray[Any], labels: LabelSpace
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """The same of probabilities of all classes ``(n, C, H, W)``; of zeros and ones label maps alone."""
    if values.shape[1] != labels.classes:
        raise UnfitError("channels", f"{values.shape[1]} channels, {labels.classes} classes")
    _require_probabilities(values)
    sums = values.sum(1, dtype=np.float64)
    worst = float(sums.flat[int(np.abs(sums - 1).argmax())])
    if abs(worst - 1) > _CLASS_TOLERANCE:
        raise UnfitError("class sums", f"sum {worst:.4g} at a pixel")
    probabilities = values.astype(np.float32)
    foreground = probabilities[:, 1] > FOREGROUND_THRESHOLD
    masks = (foreground if labels.is_binary else probabilities.argmax(1)).astype(np.uint8)
    if values.dtype.kind != "f":
        return masks, None
    return masks, probabilities[:, -labels.channels :]


class Predictions(ABC):
    """Masks of several images in files.

    Attributes:
        path: where they lie.
        ids: names of the images.
    """

    path: Path
    ids: tuple[str, ...]

    def remarks(self) -> list[str]:
        """What a user should know of how the images so far were read."""
        return []

    def take_notes(self) -> dict[str, list[str]]:
        """What `remarks` needs of the images that were read since the last call."""
        return {}

    def add_notes(self, notes: dict[str, list[str]]) -> None:
        """Add what another reader of the same files has noted."""
        assert not notes

    @abstractmethod
    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """Read the masks of one image; `AmbisegError` if its files are wrong or do not fit the classes."""
        ...
