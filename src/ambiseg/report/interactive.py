"""`plot`: a picture of a set of masks in a notebook or a window.

The figures of `ambiseg.report.pictures` belong to nobody: they are written to files. `ambiseg.notebook.shown`
hands one to pyplot.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambiseg.data.files.reading import read_image
from ambiseg.maskset import MaskSet
from ambiseg.notebook import shown
from ambiseg.report.pictures import draw_prediction


def plot(
    image: NDArray[np.generic] | str | Path,
    masks: MaskSet,
    annotations: MaskSet | None = None,
    *,
    channels: Sequence[str] = (),
    title: str = "",
    heading: str = "Predicted masks",
) -> Figure:
    """Draw what a set of masks says about one image: expected mask, disagreement, every mask with its probability.

    Args:
        image: ``(C, H, W)`` or ``(H, W)`` of any numeric type, or the path of one.
        masks: masks of this image, such as `ambiseg.engine.run.Run.predict` returns.
        annotations: masks to draw below, in the same way.
        channels: names of the channels, from which colours are chosen (`ambiseg.report.display.background_of`).
        title: line above all.
        heading: what ``masks`` are.

    Returns:
        A figure of pyplot: a notebook displays it, and ``plt.show()`` opens a window.

    Raises:
        AmbisegError: masks of several images (pass ``masks[i]``), or of another size than the image.

    Example:
        >>> plot("scan.png", run.predict("scan.png"))  # doctest: +SKIP
    """
    array = read_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
    array = array[None] if array.ndim == 2 else array
    return shown(draw_prediction(array, masks, channels, annotations, title, heading))
