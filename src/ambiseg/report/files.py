"""Figures and pages to files, which appear whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ambiseg.atomic_write import refuse_foreign, replacing_file

DPI = 120
"""Pixels per inch of a picture unless asked otherwise."""


def png_bytes(figure: Figure, dpi: float = DPI, colors: int | None = None) -> bytes:
    """The figure as a PNG of ``inches * dpi`` pixels; the same figure gives the same bytes.

    Args:
        figure: what to draw.
        dpi: pixels per inch.
        colors: draw from a palette of at most so many colours (2..256), for files about a third as large.
    """
    if not isinstance(figure.canvas, FigureCanvasAgg):
        FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    if colors is None:
        return stream.getvalue()
    small = io.BytesIO()
    with Image.open(stream) as whole:
        reduced = whole.convert("RGB").quantize(colors, dither=Image.Dither.NONE)
    reduced.save(small, format="png", optimize=True)
    return small.getvalue()


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
