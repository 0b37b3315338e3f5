"""Figures and pages to files, which appear whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ambiseg.atomic_write import refuse_foreign, replacing_file

DPI = 120
"""Pixels per inch of a picture unless asked otherwise."""


DRAWING = Lock()
"""To be held in a thread that uses Matplotlib, which is not made for several at a time."""
_COMPRESSION = 3
"""Of zlib: twice as fast as its default of 6, and files of flat colours are as small."""


def png_bytes(figure: Figure, dpi: float = DPI, colors: int | None = None) -> bytes:
    """The figure as a PNG of ``inches * dpi`` pixels; the same figure gives the same bytes.

    Args:
        figure: what to draw.
        dpi: pixels per inch.
        colors: draw from a palette of at most so many colours (2..256), for files about a third as large.
    """
    picture = pixels_of(figure, dpi)
    if colors is None:
        return png_of(picture, dpi)
    small = io.BytesIO()
    picture.quantize(colors, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def pixels_of(figure: Figure, dpi: float = DPI) -> Image.Image:
    """The figure as RGB pixels, which any thread may encode (`png_of`)."""
    own = figure.dpi
    canvas: Any = FigureCanvasAgg(figure)
    try:
        figure.set_dpi(dpi)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    finally:
        figure.set_dpi(own)


def png_of(picture: Image.Image, dpi: float = DPI) -> bytes:
    """Pixels as a PNG that names their number per inch."""
    stream = io.BytesIO()
    picture.save(stream, "png", dpi=(dpi, dpi), compress_level=_COMPRESSION)
    return stream.getvalue()


def save_png(figure: Figure, path: str | os.PathLike[str], dpi: float = DPI) -> None:
    """Write the figure as a PNG, whole or not at all.

    Raises:
        AmbisegError: the file cannot be written.
    """
    content = png_bytes(figure, dpi)
    with replacing_file(Path(path)) as partial:
        partial.write_bytes(content)


def write_page(path: Path, page: str) -> None:
    """Write an HTML page, whole or not at all; it replaces an earlier page of ambiseg, nothing else.

    Raises:
        AmbisegError: another file is there, or the system refuses the write.
    """
    with replacing_file(path, ours=is_page) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace", newline="\n")


def check_page(path: Path) -> None:
    """Raise `AmbisegError` where `write_page` would, before the work for it is done."""
    refuse_foreign(path, ours=is_page)


def is_page(path: Path) -> bool:
    """Whether a file says in its head that ambiseg made it."""
    with open(path, "rb") as stream:
        return b'<meta name="generator" content="ambiseg">' in stream.read(1000)
