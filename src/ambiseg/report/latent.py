"""Picture of a latent space: the masks that a slice of it decodes to, laid out as a grid beside the image.

The grid comes from a method that has one, as `latent_grid` of
`ambiseg.methods.probabilistic_unet.model.ProbabilisticUNet`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.report.canvas import FAINT, Box, Canvas
from ambiseg.report.display import background_of, check_image, reduce_image, reduce_masks
from ambiseg.report.pictures import draw_mask

_LEFT, _CELL, _GAP, _MARGIN, _HEAD = 2.35, 0.98, 0.06, 0.08, 0.2  # inches


def draw_latent_grid(
    image: NDArray[np.generic],
    grid: Tensor,
    labels: LabelSpace,
    radius: float = 2.0,
    axes: tuple[int, int] = (0, 1),
    channels: Sequence[str] = (),
) -> Figure:
    """An image and, beside it, the masks over a slice of its latent space, each as outlines on the dimmed
    image.

    Args:
        image: ``(C, H, W)`` of any numeric type.
        grid: probabilities ``(R, S, C, H, W)`` of one image: R steps down along the first axis, S to the
            right along the second.
        labels: what the channels of the probabilities mean.
        radius: how far the slice reaches, in standard deviations; for the caption.
        axes: which coordinates vary; for the caption.
        channels: names of the channels of the image, see `background_of`.

    Raises:
        AmbisegError: an image that is not ``(C, H, W)``, or a grid that does not fit it or the label space.

    Example:
        >>> import torch
        >>> figure = draw_latent_grid(np.zeros((1, 8, 8)), torch.rand(3, 3, 1, 8, 8), LabelSpace.binary())
        >>> from ambiseg.report.files import save_png
        >>> save_png(figure, "latent.png")                                                     # doctest: +SKIP
    """
    check_image(image)
    wanted = (labels.channels, *image.shape[1:])
    if grid.dim() != 5 or 0 in grid.shape[:2] or tuple(grid.shape[2:]) != wanted:
        raise AmbisegError(
            f"a grid for this image has shape (R, S, {', '.join(map(str, wanted))}), received {tuple(grid.shape)}:"
            " pass that of one image, grid[i]"
        )
    base = reduce_image(background_of(image, channels))
    masks = reduce_masks(labels.decide(grid.cpu(), dim=2)).numpy()
    rows, columns = masks.shape[:2]
    shape = min(1.5, max(0.25, base.shape[0] / base.shape[1]))
    tall, start = _CELL * shape, _MARGIN + _LEFT + 0.2
    whole = max(_LEFT * shape, rows * (tall + _GAP) - _GAP)
    sheet = Canvas(start + columns * (_CELL + _GAP) - _GAP + _MARGIN, _HEAD + whole + _MARGIN)
    sheet.text("image", _MARGIN, 0.03, 7.5, ha="left", color=FAINT)
    box = sheet.fit(Box(_MARGIN, _HEAD, _LEFT, _LEFT * shape), *base.shape[:2])
    sheet.picture(base, Box(_MARGIN, _HEAD, box.width, box.height))
    words = f"latent {axes[0]} down, {axes[1]} right, ±{radius:g} σ"
    sheet.text(words, start, 0.03, 7.5, ha="left", color=FAINT)
    for row in range(rows):
        for column in range(columns):
            cell = Box(start + column * (_CELL + _GAP), _HEAD + row * (tall + _GAP), _CELL, tall)
            draw_mask(sheet, cell, base, masks[row, column], labels, fill=0.4)
    return sheet.figure
