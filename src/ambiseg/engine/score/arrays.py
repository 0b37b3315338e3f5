"""Predictions in arrays or mask sets against annotations in arrays or mask sets."""

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
from ambiseg.escaping import visible
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Bootstrap, Dialect, dialect_of
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.predictions import Samples, UnfitError, understood


def score(
    predictions: MaskSet | ArrayLike | Sequence[MaskSet | ArrayLike],
    annotations: MaskSet | ArrayLike | Sequence[MaskSet | ArrayLike],
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
    """Score the masks of any program against annotations, each as arrays or as `MaskSet`.

    Args:
        predictions: ``(N, n, H, W)``, or a list of ``(n, H, W)`` of different sizes and counts. Whole numbers are
            label maps; fractions are probabilities of the foreground. ``(N, n, C, H, W)``, or a list of
            ``(n, C, H, W)``: probabilities of classes. Or a `MaskSet`, or a list of them, with their weights; scores
            and per-pixel probabilities are used where all images have them.
        annotations: label maps, ``(N, m, H, W)`` or a list; or a `MaskSet`, or a list of them.
        weights: of the predictions, ``(N, n)`` or a list; equal if None. A weight of 0 marks a mask that is not there.
        annotation_weights: of the annotations; equal if None.
        metrics: names or a single one, or "all" alone; the default ones that fit and mean something if None.
        dialect: conventions of a paper, by name or as a `Dialect`.
        labels: the classes; if None those of the mask sets, or as many as the label maps show.
        classes: names or ids of the classes to evaluate; those of the dialect if empty.
        groups: group of each image: intervals draw whole groups.
        oracle_draws: how often the annotation oracle is drawn, 0 leaves it out; if None `ORACLE_DRAWS` times, less often
            of more than a hundred images.
        bootstrap: how intervals are made; None for none.
        seed: of the draws.

    Raises:
        AmbisegError: arrays or sets that do not belong together, weights beside a `MaskSet`, or what
            `ambiseg.evaluate` refuses.

    Example:
        >>> truth = np.array([[[[1, 1], [0, 0]], [[1, 1], [1, 0]]]])
        >>> found = score(truth[:, :1], truth, metrics="ged", bootstrap=None, oracle_draws=0)
        >>> found
        1 image, dialect ambiseg, classes foreground
        predictions: 1 mask per image
          GED²               0.1667
        >>> found.to_dict()["systems"]["predictions"]["metrics"]
        {'ged': 0.166667}
        >>> readers = MaskSet.from_numpy(truth[0], weights=[0.5, 0.5])
        >>> score(truth[:, :1], readers, metrics="ged", bootstrap=None, oracle_draws=0).systems[0].values
        {'ged': 0.166667}
    """
    ours, theirs = _images(predictions, "predictions", (3, 4)), _images(annotations, "annotations")
    shares = _rows(weights, ours, "weights")
    theirs_shares = _rows(annotation_weights, theirs, "annotation_weights")
    if len(ours) != len(theirs):
        raise AmbisegError(
            f"predictions of {counted(len(ours), 'image')}, annotations of {len(theirs)}: give both of the same images"
        )
    labels, dialect = labels or _classes([*theirs, *ours]), dialect_of(dialect)
    labels = dialect.space(labels.restricted(classes) if len(classes) else labels)
    whole = replace(labels, only=())
    if groups is not None and len(groups) != len(ours):
        raise AmbisegError(
            f"{counted(len(groups), 'group')} for {counted(len(ours), 'image')}: pass one for each"
        )
    scorer = Scorer(labels, dialect, ("predictions",), metrics, oracle_draws, len(ours), seed, bootstrap)
    mistakes = Mistakes(labels)
    batch: list[tuple[str, list[MaskSet], MaskSet]] = []
    for i, (given, truth) in enumerate(zip(ours, theirs, strict=True)):
        with mistakes.of("predictions", str(i)):
            found = _set_of(given, shares[i], whole, f"predictions of image {i}")
            size = truth.masks.shape[2:] if isinstance(truth, MaskSet) else truth.shape[1:]
            check_fit(found.masks.shape[1], found.masks.shape[2:], size)
        with mistakes.of("annotations", str(i)):
            annotated = _set_of(truth, theirs_shares[i], whole, f"annotations of image {i}")
            if annotated.probabilities is not None and not isinstance(truth, MaskSet):
                raise UnfitError("classes", "it holds fractions")
        if not mistakes.found:
            batch = scorer.take(batch, (str(i), [found], replace(annotated, labels=labels)))
    mistakes.check()
    scorer.flush(batch)
    of_images = None if groups is None else {str(i): group for i, group in enumerate(groups)}
    return scorer.scores("", "", (), (), of_images)


def _images(values: Any, what: str, axes: tuple[int, ...] = (3,)) -> list[MaskSet | NDArray[Any]]:
    """The mask set, or the array ``(n, H, W)`` or of other ``axes``, of each image."""
    found: list[MaskSet | NDArray[Any]] = []
    for given in [values] if isinstance(values, MaskSet) else values:
        if isinstance(given, MaskSet):
            found += _single_sets(given, f"{what} of image {len(found)}")
            continue
        one = np.asarray(given)
        if one.ndim not in axes or one.size == 0 or one.dtype.kind not in "buif":
            raise AmbisegError(
                f"{what} of image {len(found)} have shape {one.shape} and type {one.dtype}: pass numbers (n, H, W) for"
                " each image, or a MaskSet"
            )
        found.append(one)
    if not found:
        raise AmbisegError(f"{what} hold no image: pass at least one")
    sets = [one for one in found if isinstance(one, MaskSet)]
    alike = len(sets) == len(found)
    scored = alike and all(one.scores is not None for one in sets)
    soft = alike and all(one.probabilities is not None for one in sets)
    return [
        replace(one, scores=one.scores if scored else None, probabilities=one.probabilities if soft else None)
        if isinstance(one, MaskSet)
        else one
        for one in found
    ]


def _single_sets(batch: MaskSet, what: str) -> list[MaskSet]:
    """The set of each image of a batch, without the places that hold no mask."""
    if batch.masks.dim() != 4:
        raise AmbisegError(
            f"{what}: masks have shape {tuple(batch.masks.shape)}, needed are (images, masks, H, W)"
        )
    return [one.compact().to("cpu") for one in batch.validate(what)]


def _set_of(
    given: MaskSet | NDArray[Any], weights: NDArray[np.float64] | None, labels: LabelSpace, where: str
) -> MaskSet:
    """The mask set of one image with the classes ``labels``."""
    if not isinstance(given, MaskSet):
        masks, probabilities = understood(given, MaskRules.of(labels), labels, where)
        return Samples(masks, weights, probabilities).as_set(labels)
    if given.labels.names != labels.names:
        raise UnfitError("other classes", visible(", ".join(given.labels.names)))
    return replace(given, labels=labels)


def _rows(
    values: Any, images: Sequence[MaskSet | NDArray[Any]], what: str
) -> list[NDArray[np.float64] | None]:
    """Weights ``(n,)`` of images, None where none are given."""
    if values is None:
        return [None] * len(images)
    arrays = [one for one in images if not isinstance(one, MaskSet)]
    if len(arrays) < len(images):
        raise AmbisegError(f"a MaskSet has weights of its own: leave out {what}")
    rows = [np.asarray(one, np.float64) for one in values]
    shapes, wanted = [row.shape for row in rows], [one.shape[:1] for one in arrays]
    if shapes != wanted:
        raise AmbisegError(
            f"{what} of shapes {shapes[:3]}, masks need {wanted[:3]}: pass one number for each mask"
        )
    return list(rows)


def _classes(images: Sequence[MaskSet | NDArray[Any]]) -> LabelSpace:
    """The label space of the first mask set; else of as many classes as label maps show, or probabilities have, where
    255 alone is white."""
    highest, arrays = 1, []
    for one in images:
        if isinstance(one, MaskSet):
            return one.labels
        arrays.append(one)
    for values in arrays:
        if values.ndim == 4 and values.shape[1] > 1:
            highest = max(highest, values.shape[1] - 1)
            continue
        plain_values = values[values != 255] if values.dtype.kind in "ui" else values
        if plain_values.size and np.isfinite(plain_values).all():
            highest = max(highest, int(plain_values.max()))
    if highest > 253:
        raise AmbisegError(
            f"label maps hold {highest}: number the classes 0 to 253, pass labels=LabelSpace..., or divide by 255 if they are"
            " probabilities"
        )
    return LabelSpace.of_classes(highest + 1)
