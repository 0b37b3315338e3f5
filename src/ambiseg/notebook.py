"""What notebooks show of mask sets, runs and evaluations: facts, tables and small pictures in HTML, figures.

The HTML needs no other file and no script. Every text is escaped.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ambiseg.labels import LabelSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 96
"""Longest side of a picture in pixels."""
_NO_CLASS = (158, 158, 158)
_DRAWN = 500  # least pixels of the longer side of a large mask in a figure


@dataclass(frozen=True)
class MaskRow:
    """The masks of one image that are shown.

    Attributes:
        masks: label maps ``(H, W)`` with their captions.
        more: how many are not shown.
        title: which image it is; empty where there is one.
    """

    masks: list[tuple[NDArray[np.uint8], str]]
    more: int = 0
    title: str = ""


def thumbnail(mask: ArrayLike, labels: LabelSpace) -> str:
    """An ``<img>`` of a label map ``(H, W)`` in the colours of its classes, grey where it is void.

    Larger maps are reduced to `SIDE` pixels, each the one at its place: classes do not mix. Smaller ones are enlarged.
    """
    picture = Image.fromarray(np.asarray(mask, np.uint8))
    picture.putpalette(_palette(labels).flatten().tolist())
    scale = SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    if scale < 1:
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
    content = io.BytesIO()
    picture.save(content, "png", optimize=True)
    source = base64.b64encode(content.getvalue()).decode("ascii")
    style = "image-rendering: pixelated; border: 1px solid #9ca3af; max-width: none"
    return f'<img src="data:image/png;base64,{source}" width="{width}" height="{height}" style="{style}">'


def _palette(labels: LabelSpace) -> NDArray[np.uint8]:
    """Colours ``(256, 3)`` of all numbers that a label map can hold."""
    return np.array([*labels.colors, *[_NO_CLASS] * (256 - labels.classes)], np.uint8)


def strip(row: MaskRow, labels: LabelSpace) -> str:
    """Pictures side by side with their captions, and how many are not shown."""
    cell = '<div style="text-align: center; font-size: 85%">'
    cells = [
        f"{cell}{thumbnail(mask, labels)}<br>{html.escape(caption)}</div>" for mask, caption in row.masks
    ]
    cells += [f"<div>+{row.more} more</div>"] if row.more else []
    layout = "display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin: 4px 0"
    title = paragraph(row.title) if row.title else ""
    return f'{title}<div style="{layout}">{"".join(cells)}</div>'


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
    style = "" if header else ' style="text-align: left"'
    head = "".join(f"<th>{html.escape(text)}</th>" for text in header)
    top = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f"<table>{top}<tbody>{''.join(_row(row, style) for row in rows)}</tbody></table>"


def _row(texts: Sequence[str], style: str) -> str:
    name, *values = map(html.escape, texts)
    return f"<tr><th{style}>{name}</th>{''.join(f'<td{style}>{value}</td>' for value in values)}</tr>"


def draw_rows(rows: Sequence[MaskRow], labels: LabelSpace) -> Figure:
    """A figure with the masks of each image in a line of their own, captioned as in `strip`."""
    from matplotlib.figure import Figure

    columns = max(1, *(len(row.masks) for row in rows))
    shapes = [mask.shape for row in rows for mask, _ in row.masks]
    tall = min(2.0, max((height / width for height, width in shapes), default=1.0))
    figure = Figure(figsize=(1.5 * columns, (1.5 * tall + 0.45) * len(rows)), layout="constrained")
    colors = _palette(labels)
    for cells, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for cell in cells[len(row.masks) :]:
            cell.set_axis_off()
        for cell, (mask, caption) in zip(cells, row.masks, strict=False):
            step = max(1, max(mask.shape) // _DRAWN)
            cell.imshow(colors[mask[::step, ::step]], interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set(color="#9ca3af", linewidth=0.5)
            cell.set_title(caption, fontsize=9)
        if row.more:
            last = cells[len(row.masks) - 1]
            last.text(1.03, 0.5, f"+{row.more} more", transform=last.transAxes, va="center", fontsize=9)
        if row.title:
            cells[0].text(
                -0.03, 0.5, row.title, transform=cells[0].transAxes, ha="right", va="center", fontsize=9
            )
    return figure


def shown(figure: Figure) -> Figure:
    """Hand a figure that belongs to nobody to pyplot, and return it.

    A notebook displays it at the end of its cell, and ``plt.show()`` opens a window. Notebooks also display the
    value of a cell's last line: pyplot then lets go of the figure, or it would be there twice.
    """
    from matplotlib import pyplot

    def before_display() -> None:
        if "inline" in pyplot.get_backend():
            pyplot.close(figure)
        raise NotImplementedError  # IPython goes on as for any figure

    width, height = figure.get_size_inches()
    pyplot.figure(figsize=(width, height), FigureClass=lambda **_: figure)  # type: ignore[arg-type]
    figure._ipython_display_ = before_display  # type: ignore[attr-defined]
    return figure
