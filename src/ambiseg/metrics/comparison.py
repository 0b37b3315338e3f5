"""`Comparison`: what a prediction and its annotations have in common, computed once for all metrics.

Every metric is a function of two `MaskSet`s. Most of them need the same overlaps of all pairs and some the
same one-to-one matching, so both live here, are computed when first asked for and are then kept. Notation:
predictions ``s_1..s_M`` with weights u, annotations ``y_1..y_N`` with weights v; the distinct annotations are
the *modes*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.matching import Matching, match
from ambiseg.metrics.dialects import AMBISEG, Dialect
from ambiseg.overlap import Overlap, pairwise_overlap


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two mask sets of the same images, with the overlaps and the matching that metrics ask for.

    Every metric accepts a `Comparison` in place of its two sets; several metrics on one share the work.

    Attributes:
        predictions: ``(B, M, *S)``.
        annotations: ``(B, N, *S)``.
        dialect: conventions of a paper, see `ambiseg.metrics.dialects`.

    Raises:
        AmbisegError: the sets differ in images, image size, classes or device, an image has no mask, a set
            is no distribution of label maps (`MaskSet.validate`), or the dialect does not fit the classes.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[1, 1], [1, 1], [0, 1]]])
        >>> both = Comparison(MaskSet.uniform(masks[:, :2], LabelSpace.binary()),
        ...                   MaskSet.uniform(masks, LabelSpace.binary()))
        >>> both.modes.weights
        tensor([[0.6667, 0.3333]])
        >>> both.to_modes.iou()
        tensor([[[1.0000, 0.5000],
                 [1.0000, 0.5000]]])
    """

    predictions: MaskSet
    annotations: MaskSet
    dialect: Dialect = AMBISEG

    def __post_init__(self) -> None:
        ours, theirs = self.predictions, self.annotations
        shapes = [(len(s), tuple(s.masks.shape[2:])) for s in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise AmbisegError(
                f"predictions of {shapes[0][0]} images of size {shapes[0][1]} cannot be compared with"
                f" annotations of {shapes[1][0]} images of size {shapes[1][1]}: both are of the same images"
            )
        spaces = [(s.labels.classes, s.labels.evaluated, s.labels.void) for s in (ours, theirs)]
        if spaces[0] != spaces[1]:
            raise AmbisegError(
                "predictions and annotations differ in (classes, evaluated classes, value to ignore): "
                f"{spaces[0]} and {spaces[1]}; give both the same label space"
            )
        if ours.masks.device != theirs.masks.device:
            raise AmbisegError(
                f"predictions are on {ours.masks.device}, annotations on {theirs.masks.device}:"
                " move one with .to()"
            )
        for what, given in (("predictions", ours), ("annotations", theirs)):
            empty = torch.nonzero(given.count == 0).flatten()
            if len(empty):
                raise AmbisegError(
                    f"{what}: image {int(empty[0])} has no mask of weight above 0, and needs one"
                )
            given.validate(what)
        if (labels := self.dialect.space(theirs.labels)) is not theirs.labels:
            object.__setattr__(self, "predictions", replace(ours, labels=labels))
            object.__setattr__(self, "annotations", replace(theirs, labels=labels))

    @classmethod
    def of(cls, predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Comparison:
        """The comparison of two sets, or the one that was passed."""
        if isinstance(predictions, Comparison):
            return predictions
        if annotations is None:
            raise AmbisegError(
                "a metric compares predictions with annotations: pass both sets, or one Comparison"
            )
        return cls(predictions, annotations)

    @cached_property
    def modes(self) -> MaskSet:
        """The distinct annotations, weights added up ``(B, N*, *S)``; of `LabelSpace.restricted` classes, those
        that differ in these."""
        given = self.annotations.hard()
        return replace(given, masks=given.labels.without_others(given.masks)).merge_identical()

    @cached_property
    def cross(self) -> Overlap:
        """Predictions against annotations as given, ``(B, M, N)``."""
        return pairwise_overlap(self.predictions.masks, self.annotations.masks, self.annotations.labels)

    @cached_property
    def to_modes(self) -> Overlap:
        """Predictions against distinct annotations, ``(B, M, N*)``."""
        return pairwise_overlap(self.predictions.masks, self.modes.masks, self.modes.labels)

    @cached_property
    def among_predictions(self) -> Overlap:
        """Predictions against each other, ``(B, M, M)``."""
        masks, labels = self.predictions.masks, self.predictions.labels
        if self.dialect.void_among:
            masks = masks.masked_fill(self._void[:, None], labels.void)
        return pairwise_overlap(masks, masks, labels)

    @property
    def _void(self) -> Tensor:
        """Pixels that are void in every annotation, ``(B, *S)``."""
        given = self.annotations
        there = given.present.view(*given.present.shape, *[1] * (given.masks.dim() - 2))
        return ~(given.labels.valid(given.masks) & there).any(1)

    @cached_property
    def among_annotations(self) -> Overlap:
        """Annotations against each other, ``(B, N, N)``."""
        return pairwise_overlap(self.annotations.masks, self.annotations.masks, self.annotations.labels)

    @cached_property
    def matching(self) -> Matching:
        """The one-to-one matching of predictions (rows) and modes (columns) of greatest total IoU."""
        return match(-self.to_modes.iou(), self.predictions.present, self.modes.present)

    @property
    def partners(self) -> Tensor:
        """The mode that each prediction is matched with, -1 for none. ``(B, M)``."""
        return self.matching.columns
