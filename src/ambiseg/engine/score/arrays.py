"""Predictions in arrays against annotations in arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.engine.score.mistakes import Mistakes, check_fit
from ambiseg.engine.score.results import Scores
from ambiseg.engine.score.scorer import BOOTSTRAP, Scorer
from ambiseg.errors import AmbisegError, counted
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Bootstrap, Dialect, dialect_of
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.predictions import Samples, UnfitError, understood


def score(
    predictions: ArrayLike | Sequence[ArrayLike],
    annotations: ArrayLike | Sequence[ArrayLike],
    *,
    weights: ArrayLike | Sequence[ArrayLike] | None = None,
    annotation_weights: ArrayLike | Sequence[ArrayLike] | None = None,
    metrics: str | Sequence[str] | None = None,
    dialect: str | Dialect = AMBISEG,
    labels: LabelSpace | None = None,
    classes: Sequence[str | int] = (),
    groups: Sequence[str] | None = None,
    oracle_draws: int | None = None,
    bootstrap: Bootstrap | None = BOOTSTRAP,
    seed: int = 0,
) -> Scores:
    """Score the masks of any program against annotations, both as arrays.

    Args:
        predictions: ``(N, n, H, W)``, or a list of ``(n, H, W)`` of different sizes and counts. Whole numbers are
            label maps; fractions are probabilities of the foreground. ``(N, n, C, H, W)``, or a list of
            ``(n, C, H, W)``: probabilities of classes.
        annotations: label maps, ``(N, m, H, W)`` or a list.
        weights: of the predictions, ``(N, n)`` or a list; equal if None. A weight of 0 marks a mask that is not there.
        annotation_weights: of the annotations; equal if None.
        metrics: names or a single one, or "all" alone; the default ones that fit and mean something if None.
        dialect: conventions of a paper, by name or as a `Dialect`.
        labels: the classes; as many as the label maps show if None.
        classes: names or ids of the classes to evaluate; those of the dialect if empty.
        groups: group of each image: intervals draw whole groups.
        oracle_draws: how often the annotation oracle is drawn, 0 leaves it out; if None `ORACLE_DRAWS` times, less often
            of more than a hundred images.
        bootstrap: how intervals are made; None for none.
        seed: of the draws.

    Raises:
        AmbisegError: arrays that do not belong together, or what `ambiseg.evaluate` refuses.

    Example:
        >>> truth = np.array([[[[1, 1], [0, 0]], [[1, 1], [1, 0]]]])
        >>> found = score(truth[:, :1], truth, metrics="ged", bootstrap=None, oracle_draws=0)
        >>> found
        1 image, dialect ambiseg, classes foreground
        predictions: 1 mask per image
          GED²               0.1667
        >>> found.to_dict()["systems"]["predictions"]["metrics"]
        {'ged': 0.166667}
    """
    ours, theirs = _arrays(predictions, "predictions", (3, 4)), _arrays(annotations, "annotations")
    shares = _rows(weights, ours, "weights")
    theirs_shares = _rows(annotation_weights, theirs, "annotation_weights")
    if len(ours) != len(theirs):
        raise AmbisegError(
            f"predictions of {counted(len(ours), 'image')}, annotations of {len(theirs)}: give both of the same images"
        )
    labels, dialect = labels or _shown_classes([*ours, *theirs]), dialect_of(dialect)
    labels = dialect.space(labels.restricted(classes) if len(classes) else labels)
    rules, whole = MaskRules.of(labels), replace(labels, only=())
    if groups is not None and len(groups) != len(ours):
        raise AmbisegError(
            f"{counted(len(groups), 'group')} for {counted(len(ours), 'image')}: pass one for each"
        )
    scorer = Scorer(labels, dialect, ("predictions",), metrics, oracle_draws, len(ours), seed, bootstrap)
    mistakes = Mistakes(labels)
    batch: list[tuple[str, list[MaskSet], MaskSet]] = []
    for i, (values, truth) in enumerate(zip(ours, theirs, strict=True)):
        with mistakes.of("predictions", str(i)):
            masks, probabilities = understood(values, rules, whole, f"predictions of image {i}")
            check_fit(masks.shape[1:], truth.shape[1:])
            found = Samples(masks, shares[i], probabilities).as_set(whole)
        with mistakes.of("annotations", str(i)):
            fixed, fractions = understood(truth, rules, whole, f"annotations of image {i}")
            if fractions is not None:
                raise UnfitError("classes", "it holds fractions")
            annotated = Samples(fixed, theirs_shares[i]).as_set(labels)
        if not mistakes.found:
            batch = scorer.take(batch, (str(i), [found], annotated))
    mistakes.check()
    scorer.flush(batch)
    of_images = None if groups is None else {str(i): group for i, group in enumerate(groups)}
    return scorer.scores("", "", (), (), of_images)


def _arrays(values: Any, what: str, axes: tuple[int, ...] = (3,)) -> list[NDArray[Any]]:
    """Arrays ``(n, H, W)`` of images, or others that have one of ``axes``."""
    found = [np.asarray(one) for one in values]
    for i, one in enumerate(found):
        if one.ndim not in axes or one.size == 0 or one.dtype.kind not in "buif":
            raise AmbisegError(
                f"{what} of image {i} have shape {one.shape} and type {one.dtype}: pass numbers (n, H, W) for each image"
            )
    if not found:
        raise AmbisegError(f"{what} hold no image: pass at least one")
    return found


def _rows(values: Any, arrays: Sequence[NDArray[Any]], what: str) -> list[NDArray[np.float64] | None]:
    """Weights ``(n,)`` of images, None where none are given."""
    if values is None:
        return [None] * len(arrays)
    rows = [np.asarray(one, np.float64) for one in values]
    shapes, wanted = [row.shape for row in rows], [one.shape[:1] for one in arrays]
    if shapes != wanted:
        raise AmbisegError(
            f"{what} of shapes {shapes[:3]}, masks need {wanted[:3]}: pass one number for each mask"
        )
    return list(rows)


def _shown_classes(arrays: Sequence[NDArray[Any]]) -> LabelSpace:
    """A label space of as many classes as label maps show, or probabilities have; 255 alone is white."""
    highest = 1
    for values in arrays:
        if values.ndim == 4 and values.shape[1] > 1:
            highest = max(highest, values.shape[1] - 1)
            continue
        plain_values = values[values != 255] if values.dtype.kind in "ui" else values
        if plain_values.size and np.isfinite(plain_values).all():
            highest = max(highest, int(plain_values.max()))
    if highest > 253:
        raise AmbisegError(
            f"label maps hold {highest}: number the classes 0 to 253, or pass labels=LabelSpace..."
        )
    return LabelSpace.of_classes(highest + 1)
