"""HTML by which notebooks show mask sets, runs and evaluations: facts, tables and small pictures of masks.

It needs no other file and no script. Every text is escaped.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ambiseg.labels import LabelSpace

SIDE = 96
"""Longest side of a picture in pixels."""
_NO_CLASS = (158, 158, 158)


def thumbnail(mask: ArrayLike, labels: LabelSpace) -> str:
    """An ``<img>`` of a label map ``(H, W)`` in the colours of its classes, grey where it is void.

    Larger maps are reduced to `SIDE` pixels, each the one at its place: classes do not mix. Smaller ones are enlarged.
    """
    picture = Image.fromarray(np.asarray(mask, np.uint8))
    colors = [*labels.colors, *[_NO_CLASS] * (256 - labels.classes)]
    picture.putpalette([part for color in colors for part in color])
    scale = SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if scale < 1:
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
    content = io.BytesIO()
    picture.save(content, "png", optimize=True)
    source = base64.b64encode(content.getvalue()).decode("ascii")
    style = "image-rendering: pixelated; border: 1px solid #9ca3af; max-width: none"
    return f'<img src="data:image/png;base64,{source}" width="{width}" height="{height}" style="{style}">'


def strip(pictures: Iterable[tuple[str, str]], more: int = 0) -> str:
    """Pictures side by side, ``(<img>, caption)`` each, and how many are not shown."""
    cell = '<div style="text-align: center; font-size: 85%">'
    cells = [f"{cell}{picture}<br>{html.escape(caption)}</div>" for picture, caption in pictures]
    cells += [f"<div>+{more} more</div>"] if more else []
    layout = "display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 4px 0"
    return f'<div style="{layout}">{"".join(cells)}</div>'


def paragraph(text: str) -> str:
    """A paragraph of text.

    Example:
        >>> paragraph("classes <a> & b")
        '<p>classes &lt;a&gt; &amp; b</p>'
    """
    return f"<p>{html.escape(text)}</p>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; the first column names the rows.

    Example:
        >>> table(["metric", "all"], [["GED²", "0.25"]])
        '<table><thead><tr><th>metric</th><th>all</th></tr></thead><tbody><tr><th>GED²</th><td>0.25</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    top = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f"<table>{top}<tbody>{''.join(map(_row, rows))}</tbody></table>"


def _row(texts: Sequence[str]) -> str:
    name, *values = map(html.escape, texts)
    return f"<tr><th>{name}</th>{''.join(f'<td>{value}</td>' for value in values)}</tr>"
