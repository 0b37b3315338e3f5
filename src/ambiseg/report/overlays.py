"""Overlays: every mask of a prediction on its image, at the image's own size, as JPEG files.

The overview picture of `ambiseg.report.pictures` shows all masks of an image side by side, each some hundred
pixels wide. Photographs need more: here each mask has a file of its own, with its outline and a translucent
fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.report.display import Floats, Labels, background_of, check_image, palette

FILL, VOID_FILL, HALO = 0.3, 0.7, 0.6
"""Opacity of the fill of a class, of void, and of the dark line around an outline."""
_PIXELS_PER_LINE = 320  # of the longer side for each pixel of an outline's width
_LONGEST = 65_000  # of a side: JPEG has room for no more


def draw_overlays(
    image: NDArray[np.generic], predictions: MaskSet, partials: Sequence[Path], channels: Sequence[str] = ()
) -> None:
    """Write each mask of one image, drawn on the image, to a JPEG file of the image's size.

    Args:
        image: ``(C, H, W)`` of any numeric type.
        predictions: masks of this image, ``(1, K, H, W)``.
        partials: files to write, one for each mask.
        channels: names of the channels of the image, see `ambiseg.report.display.background_of`.

    Raises:
        AmbisegError: a batch, masks of another size, or an image that is not ``(C, H, W)``.
    """
    check_image(image, predictions)
    base = background_of(image, channels)
    masks = predictions.masks[0].cpu().numpy()
    for mask, partial in zip(masks, partials, strict=True):
        picture = Image.fromarray(overlay(base, mask, predictions.labels))
        picture.thumbnail((_LONGEST, _LONGEST))
        picture.save(partial, "jpeg", quality=90, subsampling=0)


def overlay(base: Floats, mask: Labels, labels: LabelSpace) -> NDArray[np.uint8]:
    """A label map ``(H, W)`` on an image ``(H, W, 3)`` in 0..1, as colours ``(H, W, 3)``.

    Every class but the background is tinted and has an outline inside its border, with a thin dark line around
    it. Void is grey. The edge of the image is no border.

    Example:
        >>> white = np.ones((1, 5, 3))
        >>> drawn = overlay(white, np.array([[0, 0, 0, 1, 1]], np.uint8), LabelSpace.binary())
        >>> drawn[0, 0].tolist(), drawn[0, 3].tolist() == list(LabelSpace.binary().colors[1])
        ([255, 255, 255], True)
    """
    line = max(1, round(max(mask.shape) / _PIXELS_PER_LINE))
    void = mask >= labels.classes
    shown = ~void & (mask != (-1 if labels.background is None else labels.background))
    opacity = np.where(shown, FILL, np.where(void, VOID_FILL, 0.0))
    opacity[shown & _border(mask, line)] = 1.0
    around = ~shown & _border(np.where(shown, mask, labels.void).astype(np.uint8), (line + 1) // 2)
    opacity[around] = HALO
    colors = palette(labels)[mask]
    colors[around] = 0.0
    drawn = base * (1 - opacity[..., None]) + colors * opacity[..., None]
    return np.asarray(np.clip(255 * drawn + 0.5, 0, 255).astype(np.uint8))


def _border(mask: Labels, reach: int) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` that have another number within ``reach`` pixels, also diagonally."""
    size = 2 * reach + 1
    least, greatest = (filtered(mask, size, mode="nearest") for filtered in _FILTERS)
    return np.asarray(least != greatest)


_FILTERS = (ndimage.minimum_filter, ndimage.maximum_filter)
