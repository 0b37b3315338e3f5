"""TIFF: any number of channels and any number type; what tifffile cannot decode alone goes to Pillow."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC

from ambiseg.data.files.limits import check_pages, check_segments, check_size
from ambiseg.data.files.orientation import TAG
from ambiseg.data.files.pictures import NODATA, number_of, read_picture
from ambiseg.data.files.pixels import Pixels, colors_of, without_ink
from ambiseg.data.files.validation import FileProblem

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it tells of damage what errors tell here

_CHANNEL_AXES = "SC"
_JPEG = (COMPRESSION.OJPEG, COMPRESSION.JPEG)
_PILLOW_COLORS = (PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB, PHOTOMETRIC.ICCLAB, PHOTOMETRIC.ITULAB)


def read_tiff(path: Path) -> Pixels:
    """Decode a TIFF of one image.

    Raises:
        FileProblem: several images, axes that are no channels, too large, or a compression that needs a
            package.
    """
    with tifffile.TiffFile(path) as tiff:
        check_pages(path, tiff)
        if len(tiff.series) != 1:
            raise FileProblem(path, f"it holds {len(tiff.series)} image series", "save one image per file")
        series = tiff.series[0]
        page: Any = series.keyframe
        order = _order(path, series.axes, series.shape)
        check_size(path, tuple(series.shape[i] for i in order))
        for one in series.pages:
            if isinstance(one, tifffile.TiffPage):
                check_segments(path, one)
        photometric, compression = page.photometric, page.compression
        if photometric in _PILLOW_COLORS:
            return _by_pillow(path, compression)
        try:
            values = series.asarray()
        except (ValueError, KeyError) as error:
            plain = page.bitspersample <= 8 or (page.samplesperpixel == 1 and page.bitspersample in (16, 32))
            if "imagecodecs" not in str(error):
                raise
            if len(tiff.pages) > 1 or not plain:
                raise FileProblem(
                    path, f"it cannot be decoded ({error})", "pip install imagecodecs"
                ) from error
            return _by_pillow(path, compression)
        values = values.transpose(order).reshape(-1, *(series.shape[i] for i in order[-2:]))
        return _pixels(path, page, values)


def _order(path: Path, axes: str, shape: tuple[int, ...]) -> list[int]:
    """Positions of the axes, height and width last; only channels and samples may be longer than 1."""
    y, x = axes.find("Y"), axes.find("X")
    if y < 0 or x < 0:
        raise FileProblem(path, f"axes {axes} of shape {shape} are not an image", "save one image per file")
    others = [i for i in range(len(shape)) if i not in (y, x)]
    for i in others:
        if shape[i] > 1 and axes[i] not in _CHANNEL_AXES:
            raise FileProblem(
                path,
                f"its axes {axes} have the lengths {shape}: the {shape[i]} layers of {axes[i]} may be pages,"
                " slices or times",
                "save one image per file; layers that are channels as axes CYX, such as"
                " tifffile.imwrite(path, image, photometric='minisblack', metadata={'axes': 'CYX'})",
            )
    if sum(shape[i] > 1 for i in others) > 1:
        raise FileProblem(path, f"axes {axes} of shape {shape} are not an image", "save one image per file")
    return [*others, y, x]


def _by_pillow(path: Path, compression: int) -> Pixels:
    return replace(read_picture(path), lossy=compression in _JPEG)


def _pixels(path: Path, page: Any, values: NDArray[Any]) -> Pixels:
    bits, alpha, palette = int(page.bitspersample), None, None
    if len(values) == page.samplesperpixel > 1 and page.extrasamples and int(page.extrasamples[-1]) in (1, 2):
        most = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
        values, alpha = values[:-1], values[-1] == most
    if page.photometric == PHOTOMETRIC.MINISWHITE and values.dtype.kind in "bu":
        values = ~values if values.dtype.kind == "b" else values.dtype.type(2**bits - 1) - values
    elif page.photometric == PHOTOMETRIC.PALETTE:
        palette, bits = colors_of(page.colormap), 8
    elif page.photometric == PHOTOMETRIC.SEPARATED:
        if len(values) != 4 or values.dtype != np.uint8:
            raise FileProblem(path, f"its inks are {len(values)} of type {values.dtype}", "export it as RGB")
        values = without_ink(values)
    nodata = page.tags.get(NODATA)
    tag = page.tags.get(TAG)
    return Pixels(
        values.astype(np.uint8) if values.dtype.kind == "b" else values,
        palette,
        page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.SEPARATED) and len(values) == 3,
        alpha,
        bits,
        int(tag.value) if tag is not None else 1,
        number_of(nodata.value) if nodata is not None else None,
        lossy=page.compression in _JPEG,
    )
