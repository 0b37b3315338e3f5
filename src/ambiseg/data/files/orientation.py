"""One rule of orientation: an image and its masks are turned as a viewer shows them.

The tag is that of EXIF and TIFF (274): 1 upright, 2 mirrored, 3 turned by 180 degrees, 4 upside down mirrored,
5 transposed, 6 to be turned clockwise, 7 transposed over the other diagonal, 8 to be turned counterclockwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TAG = 274
"""Number of the tag in EXIF and TIFF."""

_SWAPPED, _ROWS, _COLUMNS = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)


def upright(values: NDArray[Any], tag: int) -> NDArray[Any]:
    """Pixels ``(..., H, W)`` as a viewer shows them; unchanged for 1 and for numbers that are no orientation.

    Example:
        >>> upright(np.array([[1, 2], [3, 4]]), 6).tolist()
        [[3, 1], [4, 2]]
    """
    turned = values.swapaxes(-1, -2) if tag in _SWAPPED else values
    if tag in _ROWS:
        turned = turned[..., ::-1, :]
    return np.ascontiguousarray(turned[..., ::-1] if tag in _COLUMNS else turned)
