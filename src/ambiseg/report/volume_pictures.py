"""Pictures of the hypotheses of a volume: a line for each slice, a column for each hypothesis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambiseg.maskset import MaskSet
from ambiseg.report.canvas import FAINT, Box, Canvas
from ambiseg.report.display import background_of, check_image, reduce_image, reduce_masks
from ambiseg.report.pictures import draw_mask, percent

MOST_HYPOTHESES = 8
"""Hypotheses that a picture shows."""
_CELL, _GAP, _LEFT, _TOP = 1.5, 0.08, 0.7, 0.45
_TALLEST, _FLATTEST = 1.5, 0.25


def draw_slices(
    slices: Sequence[tuple[int, NDArray[np.generic], MaskSet]], channels: Sequence[str] = ()
) -> Figure:
    """Slices of a volume, each with all its hypotheses: what stands below each other is one hypothesis.

    Args:
        slices: index, image ``(C, H, W)`` and hypotheses ``(1, H, height, width)`` of each, in the same order in all.
        channels: names of the channels of the images, see `background_of`.

    Raises:
        AmbisegError: masks of another size than their image.
    """
    first = slices[0][2]
    count = int(first.count[0])
    shown = min(count, MOST_HYPOTHESES)
    height, width = slices[0][1].shape[1:]
    tall = _CELL * min(_TALLEST, max(_FLATTEST, height / width))
    sheet = Canvas(_LEFT + (shown + 1) * (_CELL + _GAP), _TOP + len(slices) * (tall + _GAP))
    heads = ["image", *(percent(float(weight)) for weight in first.weights[0, :shown])]
    heads[-1] += f", +{count - shown} more" if count > shown else ""
    for k, words in enumerate(heads):
        x = _LEFT + k * (_CELL + _GAP) + _CELL / 2
        sheet.text(f"hypothesis {k}" if k else words, x, 0.06, 8.0, color=FAINT)
        sheet.text(words if k else "", x, 0.22, 8.0)
    for row, (index, image, masks) in enumerate(slices):
        check_image(image, masks)
        y = _TOP + row * (tall + _GAP)
        base = reduce_image(background_of(image, channels))
        sheet.text(f"slice {index}", 0.06, y + tall / 2, 8.0, ha="left", va="center", color=FAINT)
        sheet.picture(base, sheet.fit(Box(_LEFT, y, _CELL, tall), *base.shape[:2]))
        for k, mask in enumerate(reduce_masks(masks.masks[0, :shown]).numpy()):
            cell = Box(_LEFT + (k + 1) * (_CELL + _GAP), y, _CELL, tall)
            draw_mask(sheet, cell, base, mask, masks.labels, fill=0.3)
    return sheet.figure
