"""Picture of a mixture of experts: a row of samples for each expert, with the probability of its kind (MoSE,
figure 2).

Rows tell apart what a flat set of samples mixes up: between rows the image may be understood in different
ways, within a row the outline is uncertain. The samples come from any method that draws them expert by
expert, as the compact representation of `ambiseg.methods.mose.model.MoSE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.report.canvas import FAINT, Box, Canvas
from ambiseg.report.display import (
    Floats,
    background_of,
    check_image,
    mean_and_entropy,
    reduce_image,
    reduce_masks,
)
from ambiseg.report.pictures import ENTROPY_COLORS, draw_mask, entropy_picture, percent

MOST_ROWS = 12
"""Experts that have a row, the most probable ones."""
MOST_COLUMNS = 8
"""Samples of an expert, and annotations, that are drawn."""

_LEFT, _CELL, _GAP, _MARGIN, _HEAD, _NAME = 2.0, 0.98, 0.08, 0.05, 0.2, 0.75  # inches


def draw_experts(
    image: NDArray[np.generic],
    predictions: MaskSet,
    experts: int,
    annotations: MaskSet | None = None,
    channels: Sequence[str] = (),
) -> Figure:
    """An image above the entropy of all samples; beside them the annotations and, row by row, the samples of
    every expert.

    Args:
        image: ``(C, H, W)`` of any numeric type.
        predictions: ``(1, K S, H, W)``, S samples of the first expert, then S of the second, and so on.
        experts: how many experts K; the probability of one is the weight of its samples.
        annotations: ``(1, N, H, W)``, drawn with their weights, the most probable first.
        channels: names of the channels of the image, see `background_of`.

    Raises:
        AmbisegError: a batch, masks of another size, an image that is not ``(C, H, W)``, or a number of masks
            that is no multiple of the experts.

    Reference:
        Gao, Chen, Zhang and He (2023), figure 2.

    Example:
        >>> import torch
        >>> from ambiseg.labels import LabelSpace
        >>> masks, weights = torch.rand(1, 6, 1, 8, 8), torch.tensor([[0.3, 0.3, 0.3, 0.03, 0.03, 0.04]])
        >>> samples = MaskSet.from_probabilities(masks, LabelSpace.binary(), weights)
        >>> figure = draw_experts(np.zeros((1, 8, 8)), samples, experts=2)
        >>> [text.get_text() for text in figure.axes[0].texts if "%" in text.get_text()]
        ['expert 1\\n90 %', 'expert 2\\n10 %']
    """
    check_image(image, predictions, annotations)
    count = predictions.masks.shape[1]
    if experts < 1 or count % experts:
        raise AmbisegError(
            f"{count} masks are not equally many of {experts} experts: predict a multiple of the number of experts"
        )
    predictions = predictions.to("cpu")
    pi = predictions.weights[0].reshape(experts, -1).sum(1)
    rows = sorted(pi.argsort(descending=True, stable=True)[:MOST_ROWS].tolist())
    samples = predictions.masks[0].reshape(experts, -1, *predictions.masks.shape[2:])[:, :MOST_COLUMNS]
    truth = None if annotations is None else annotations.to("cpu").sort().compact()
    said = 0 if truth is None else min(int(truth.count[0]), MOST_COLUMNS)

    base = reduce_image(background_of(image, channels))
    shape = min(1.5, max(0.25, base.shape[0] / base.shape[1]))
    cell = Box(_MARGIN + _LEFT + 0.2 + _NAME, _HEAD, _CELL, _CELL * shape)
    step = cell.height + _GAP
    above = 0.0 if truth is None else _HEAD + cell.height + 0.22
    height = max(2 * (_HEAD + _LEFT * shape) + 0.25, above + _HEAD + len(rows) * step)
    sheet = Canvas(cell.x + max(2, samples.shape[1], said) * (_CELL + _GAP), height + _MARGIN)
    _draw_image_and_entropy(sheet, base, predictions, _LEFT * shape)
    if truth is not None:
        _draw_head(sheet, "annotations", said, int(truth.count[0]), cell.x, 0.0)
        _draw_row(sheet, base, truth.masks[0, :said], truth.labels, cell)
        for k, weight in enumerate(truth.weights[0, :said].tolist()):
            middle = cell.x + k * (_CELL + _GAP) + _CELL / 2
            sheet.text(percent(weight), middle, cell.y + cell.height + 0.03, 7.0)
    _draw_head(sheet, "experts", len(rows), experts, cell.x, above)
    for place, k in enumerate(rows):
        y = above + _HEAD + place * step
        name = f"expert {k + 1}\n{percent(float(pi[k]))}"
        sheet.text(name, cell.x - 0.1, y + cell.height / 2, ha="right", va="center")
        _draw_row(sheet, base, samples[k], predictions.labels, replace(cell, y=y))
    return sheet.figure


def _draw_head(sheet: Canvas, what: str, shown: int, count: int, x: float, y: float) -> None:
    words = f"{what}: {shown}" + (f" of {count}" if count > shown else "")
    sheet.text(words, x, y + 0.03, 7.5, ha="left", color=FAINT)


def _draw_row(sheet: Canvas, base: Floats, masks: Tensor, labels: LabelSpace, first: Box) -> None:
    """Masks ``(S, H, W)`` side by side, the first one in the given cell."""
    for k, mask in enumerate(reduce_masks(masks).numpy()):
        cell = replace(first, x=first.x + k * (_CELL + _GAP))
        draw_mask(sheet, cell, base, mask, labels, fill=0.4)


def _draw_image_and_entropy(sheet: Canvas, base: Floats, predictions: MaskSet, tall: float) -> None:
    """The left column: the image, below it how much all samples disagree."""
    doubt, top = entropy_picture(mean_and_entropy(predictions)[1], predictions.labels)
    y = 0.0
    for words, rgb in (("image", base), ("disagreement (entropy in nats)", doubt)):
        sheet.text(words, _MARGIN, y + 0.03, 7.5, ha="left", color=FAINT)
        sheet.picture(rgb, sheet.fit(Box(_MARGIN, y + _HEAD, _LEFT, tall), *rgb.shape[:2]))
        y += _HEAD + tall
    sheet.color_bar(ENTROPY_COLORS, "0", f"{top:.2f}", Box(_MARGIN + _LEFT / 4, y + 0.09, _LEFT / 2, 0.08))
