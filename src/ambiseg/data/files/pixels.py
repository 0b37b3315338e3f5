"""`Pixels`: what a decoder hands over, before anyone says whether it is an image or a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ambiseg.data.files.orientation import upright


@dataclass(frozen=True)
class Pixels:
    """The numbers of one file with what they need to be understood.

    Attributes:
        values: ``(C, H, W)`` as stored; inverted where the file says that 0 is white.
        palette: ``(n, 3)`` uint8, the colour of each number; None if the numbers are no indices.
        rgb: whether the three channels are red, green and blue.
        alpha: ``(H, W)`` True where a pixel is opaque; None where all are.
        bits: of each number, 1, 2 and 4 where several share a byte.
        orientation: number of `ambiseg.data.files.orientation.TAG`; 1 if the decoder turned it already.
        nodata: the number that the file declares to be no measurement.
        lossy: whether the compression alters numbers.
    """

    values: NDArray[Any]
    palette: NDArray[np.uint8] | None = None
    rgb: bool = False
    alpha: NDArray[np.bool_] | None = None
    bits: int = 8
    orientation: int = 1
    nodata: float | None = None
    lossy: bool = False

    def shown(self) -> NDArray[Any]:
        """The image ``(C, H, W)`` as a viewer shows it: palettes in colour, few bits on the scale of 8."""
        values = self.values
        if self.palette is not None:
            values = self.palette[values[0]].transpose(2, 0, 1)
        elif self.bits in (1, 2, 4):
            values = values.astype(np.uint8) * np.uint8(255 // (2**self.bits - 1))
        return upright(values, self.orientation)


def without_ink(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Red, green and blue ``(3, H, W)`` of cyan, magenta, yellow and black ``(4, H, W)`` uint8."""
    size = (values.shape[2], values.shape[1])
    inks = Image.frombytes("CMYK", size, values.transpose(1, 2, 0).tobytes())
    return np.asarray(inks.convert("RGB")).transpose(2, 0, 1)


def colors_of(colormap: Any) -> NDArray[np.uint8]:
    """``(n, 3)`` uint8 of the colour map of a TIFF: all reds, all greens, all blues, of 16 bits each."""
    colors = np.asarray(colormap, np.uint16).reshape(3, -1).T
    return (colors >> 8 if colors.max(initial=0) > 255 else colors).astype(np.uint8)
