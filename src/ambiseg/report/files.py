"""Figures to PNG, and files that appear whole or not at all.

A report is often rewritten while somebody looks at it, so everything goes to a hidden sibling first and takes
its final name in one rename; whatever ends the write early removes the sibling and leaves the old file alone.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ambiseg.errors import AmbisegError

DPI = 120
"""Pixels per inch of a picture unless asked otherwise."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Hand out a temporary name beside ``path``; when the block ends well it replaces ``path``.

    Raises:
        AmbisegError: the system refuses the write, or ``path`` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise AmbisegError(f"{target} is a folder: name a file to write")
    partial = target.with_name(f".partial-{secrets.token_hex(4)}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, target)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise AmbisegError(f"{target}: cannot be written ({error}): write to another place") from error
        raise


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
    with replacing(path) as partial:
        partial.write_bytes(content)
