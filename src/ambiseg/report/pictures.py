"""Pictures of weighted sets of masks: what a model proposes for one image, and what annotators said.

`draw_prediction` is the full page about one image, `draw_case_row` the strip that a report shows of it. Both
draw annotations and predictions alike, since both are a `MaskSet`: outlines on the dimmed image, the most
probable mask first. The other pictures of a report, `draw_curve` and `draw_reliability`, are at home in
`ambiseg.report.plots` and are offered here as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.report.canvas import FAINT, Box, Canvas, clipped, colored, filled
from ambiseg.report.display import (
    VOID_COLOR,
    Floats,
    Labels,
    background_of,
    check_image,
    dimmed,
    mean_and_entropy,
    palette,
    reduce_image,
    reduce_masks,
)
from ambiseg.report.files import png_bytes, save_png
from ambiseg.report.plots import draw_curve, draw_reliability

__all__ = [
    "background_of",
    "draw_case_row",
    "draw_curve",
    "draw_prediction",
    "draw_reliability",
    "png_bytes",
    "save_png",
]

MOST_MASKS = 16
"""Masks that a picture shows of each set."""
ENTROPY_COLORS = "magma"
"""Colour map of disagreement."""

_WIDTH, _MARGIN, _GAP = 10.0, 0.2, 0.12
_COLUMNS = 6
_STRIP, _STRIP_CELL, _NARROW = 8, 0.98, 10  # masks in a line of a strip; inches; as many in narrower cells
_MEAN_COLORS = "viridis"
_LEGEND_LINES = 3


@dataclass(frozen=True)
class _Entry:
    """One mask of a set, ready to draw."""

    mask: Labels
    caption: str


@dataclass(frozen=True)
class _Shown:
    """The masks of a set that fit, and how many do not."""

    entries: list[_Entry]
    more: int

    @property
    def caption_lines(self) -> int:
        return max((entry.caption.count("\n") + 1 for entry in self.entries), default=1)


def percent(share: float) -> str:
    """A probability as a person reads it.

    Example:
        >>> percent(0.5), percent(0.0312), percent(0.00004), percent(1.0)
        ('50 %', '3.1 %', '<0.01 %', '100 %')
    """
    value = 100 * share
    if 0 < value < 0.01:
        return "<0.01 %"
    digits = 0 if value >= 9.95 or value == 0 else 1 if value >= 0.995 else 2
    return f"{value:.{digits}f} %"


def _prepared(one: MaskSet, limit: int) -> _Shown:
    """The ``limit`` most probable masks of one image at display size, with captions."""
    ranked = one.sort().compact()
    count, areas = int(ranked.count[0]), ranked.areas()[0]
    kept = min(count, limit)
    small = reduce_masks(ranked.masks[0, :kept]).numpy()
    entries = []
    for k in range(kept):
        words = [] if ranked.scores is None else [f"score {float(ranked.scores[0, k]):.2f}"]
        if one.labels.background is not None and float(areas[k]) == 0:
            words.append("empty")
        lines = [percent(float(ranked.weights[0, k])), ", ".join(words)]
        entries.append(_Entry(small[k], "\n".join(line for line in lines if line)))
    return _Shown(entries, count - kept)


def draw_mask(
    sheet: Canvas,
    cell: Box,
    base: Floats,
    mask: Labels,
    labels: LabelSpace,
    fill: float,
    line: float = 1.3,
) -> None:
    """One mask ``(h, w)`` as tint and outlines on the dimmed image ``base (h, w, 3)``; void pixels grey."""
    colors = palette(labels)
    values = [int(v) for v in np.unique(mask)]
    classes = [v for v in values if v < labels.classes and v != labels.background]
    rgb = filled(dimmed(base), mask, classes, colors, fill)
    rgb = filled(rgb, mask, [v for v in values if v >= labels.classes], colors, 0.7)
    box = sheet.fit(cell, *mask.shape)
    sheet.picture(rgb, box)
    for value in classes:
        sheet.outline(mask == value, box, colors[value], line)


def _cell_height(width: float, height_pixels: int, width_pixels: int) -> float:
    """Height of a cell for pictures of that shape: theirs, unless they are very flat or very tall."""
    return width * min(1.5, max(0.25, height_pixels / width_pixels))


# -- the full page ----------------------------------------------------------------------------------------


def draw_prediction(
    image: NDArray[np.generic],
    predictions: MaskSet,
    channels: Sequence[str] = (),
    annotations: MaskSet | None = None,
    title: str = "",
    heading: str = "Predicted masks",
) -> Figure:
    """Everything that a set of masks says about one image.

    On top the image, the expected mask (binary: probability of foreground; else the most probable class) and
    the disagreement of the masks; below every mask with its probability and score, the most probable first,
    at most `MOST_MASKS`; then the annotations, if there are any, in the same way.

    Args:
        image: ``(C, H, W)`` of any numeric type.
        predictions: masks of this image, ``(1, K, H, W)``.
        channels: names of the channels of the image, see `background_of`.
        annotations: masks to compare with, ``(1, N, H, W)``.
        title: line above all.
        heading: what ``predictions`` are.

    Raises:
        AmbisegError: a batch, masks of another size, or an image that is not ``(C, H, W)``.
    """
    check_image(image, predictions, annotations)
    predictions = predictions.to("cpu")
    base = reduce_image(background_of(image, channels))
    blocks = [(heading, _prepared(predictions, MOST_MASKS))]
    if annotations is not None:
        blocks.append(("Annotations", _prepared(annotations.to("cpu"), MOST_MASKS)))
    mean, entropy = mean_and_entropy(predictions)
    names = _legend(predictions.labels, [entry.mask for _, shown in blocks for entry in shown.entries])

    usable = _WIDTH - 2 * _MARGIN
    cell = (usable - (_COLUMNS - 1) * _GAP) / _COLUMNS
    tall = _cell_height(cell, *base.shape[:2])
    large = (usable - 2 * 0.25) / 3
    large_tall = _cell_height(large, *base.shape[:2])
    top = _MARGIN + (0.35 if title else 0.0)
    legend_lines = max((line for line, *_ in names), default=-1) + 1
    height = top + large_tall + 0.5 + 0.22 * legend_lines
    height += sum(_block_height(shown, tall) for _, shown in blocks) + _MARGIN / 2

    sheet = Canvas(_WIDTH, height)
    if title:
        line = clipped(title, usable, 12.0)
        sheet.text(line, _MARGIN, _MARGIN - 0.04, 12.0, ha="left", fontweight="bold")
    cells = [Box(_MARGIN + i * (large + 0.25), top, large, large_tall) for i in range(3)]
    _draw_overview(sheet, cells, base, mean, entropy, predictions.labels)
    y = top + large_tall + 0.5
    _draw_legend(sheet, names, predictions.labels, y)
    y += 0.22 * legend_lines
    for heading, shown in blocks:
        _draw_block(sheet, heading, shown, base, predictions.labels, Box(_MARGIN, y, cell, tall))
        y += _block_height(shown, tall)
    return sheet.figure


def _draw_overview(
    sheet: Canvas, cells: list[Box], base: Floats, mean: Floats, entropy: Floats, labels: LabelSpace
) -> None:
    """Image, expected mask and disagreement, with captions and colour bars below."""
    if labels.is_binary:
        expected = colored(mean[0], _MEAN_COLORS, 1.0, VOID_COLOR)
        caption = f"probability of {labels.names[1]}"
    else:
        known = np.isfinite(mean[0])
        decided = np.where(known, np.nan_to_num(mean).argmax(0), labels.void).astype(np.uint8)
        expected, caption = palette(labels)[decided], "most probable class"
        expected[~known] = VOID_COLOR
    doubt, top = entropy_picture(entropy, labels)
    captions = ("image", caption, "disagreement (entropy in nats)")
    for cell, rgb, words in zip(cells, (base, expected, doubt), captions, strict=True):
        sheet.picture(rgb, sheet.fit(cell, *rgb.shape[:2]))
        sheet.text(clipped(words, cell.width, 9.0), cell.x + cell.width / 2, cell.y + cell.height + 0.06, 9.0)
    bars = [Box(c.x + c.width * 0.3, c.y + c.height + 0.28, c.width * 0.4, 0.08) for c in cells]
    if labels.is_binary:
        sheet.color_bar(_MEAN_COLORS, "0", "1", bars[1])
    sheet.color_bar(ENTROPY_COLORS, "0", f"{top:.2f}", bars[2])


def entropy_picture(entropy: Floats, labels: LabelSpace) -> tuple[Floats, float]:
    """Disagreement ``(h, w)`` in nats as colours ``(h, w, 3)``, and the entropy that the brightest stands
    for."""
    top = math.log(2) if labels.is_binary else max(math.log(2), float(np.nanmax(entropy, initial=0.0)))
    return colored(entropy, ENTROPY_COLORS, top, VOID_COLOR), top


def _block_height(shown: _Shown, tall: float) -> float:
    rows = math.ceil((len(shown.entries) + (shown.more > 0)) / _COLUMNS)
    return 0.35 + rows * (tall + 0.1 + 0.16 * shown.caption_lines)


def _draw_block(
    sheet: Canvas, heading: str, shown: _Shown, base: Floats, labels: LabelSpace, first: Box
) -> None:
    """A heading and a grid of masks below; ``first`` has the size of a cell, at the corner of the block."""
    count = len(shown.entries) + shown.more
    words = f"{heading}: {count}, most probable first" if count > 1 else f"{heading}: {count}"
    sheet.text(words, first.x, first.y + 0.1, 9.5, ha="left", fontweight="bold")
    step = first.height + 0.1 + 0.16 * shown.caption_lines
    for k in range(len(shown.entries) + (shown.more > 0)):
        row, column = divmod(k, _COLUMNS)
        x, y = first.x + column * (first.width + _GAP), first.y + 0.35 + row * step
        if k == len(shown.entries):
            middle = (x + first.width / 2, y + first.height / 2)
            sheet.text(f"+{shown.more} more", *middle, 9.0, va="center", color=FAINT)
            continue
        entry = shown.entries[k]
        draw_mask(sheet, Box(x, y, first.width, first.height), base, entry.mask, labels, fill=0.15)
        sheet.text(entry.caption, x + first.width / 2, y + first.height + 0.04)


def _legend(labels: LabelSpace, masks: list[Labels]) -> list[tuple[int, float, int, str]]:
    """Where to name the integers that occur in ``masks``: line, x, integer, name; nothing for two classes."""
    present = sorted({int(v) for mask in masks for v in np.unique(mask)})
    if labels.is_binary and all(v < labels.classes for v in present):
        return []
    placed: list[tuple[int, float, int, str]] = []
    x, line = _MARGIN, 0
    for value in present:
        name = clipped(labels.names[value] if value < labels.classes else "void", 2.0, 8.0)
        width = 0.42 + 0.072 * len(name)
        if x + width > _WIDTH - _MARGIN:
            x, line = _MARGIN, line + 1
        if line == _LEGEND_LINES:
            last_line, last_x, last_value, _ = placed[-1]
            placed[-1] = (last_line, last_x, last_value, "…")
            break
        placed.append((line, x, value, name))
        x += width
    return placed


def _draw_legend(
    sheet: Canvas, names: list[tuple[int, float, int, str]], labels: LabelSpace, y: float
) -> None:
    colors = palette(labels)
    for line, x, value, name in names:
        middle = y + 0.22 * line + 0.1
        sheet.picture(colors[value][None, None], Box(x, middle - 0.06, 0.18, 0.12))
        sheet.text(name, x + 0.25, middle + 0.04, ha="left", va="baseline")


# -- the strip in a report --------------------------------------------------------------------------------


def draw_case_row(
    image: NDArray[np.generic],
    annotations: MaskSet,
    predictions: MaskSet | None,
    channels: Sequence[str] = (),
    max_masks: int = MOST_MASKS,
) -> Figure:
    """One image beside its annotations (upper row) and the proposals (lower row), the most probable first.

    Args:
        image: ``(C, H, W)`` of any numeric type.
        annotations: ``(1, N, H, W)``, captioned with their weights.
        predictions: ``(1, M, H, W)``, captioned with probability and score; None for the upper row alone.
        channels: names of the channels of the image, see `background_of`.
        max_masks: masks of each set to show, at least 1; the rest is counted. Up to 10 stand in one line.

    Raises:
        AmbisegError: a batch, masks of another size, or an image that is not ``(C, H, W)``.
    """
    check_image(image, annotations, predictions)
    base = reduce_image(background_of(image, channels))
    rows = [
        (name, one.labels, _prepared(one.to("cpu"), max(1, max_masks)))
        for name, one in (("annotations", annotations), ("proposals", predictions))
        if one is not None
    ]
    columns = min(max(1, max_masks), _STRIP)
    width, left = columns * (_STRIP_CELL + 0.08), 1.2 if predictions is None else 2.35
    if _STRIP < (most := max(len(shown.entries) for *_, shown in rows)) <= _NARROW:
        columns = most
    cell = width / columns - 0.08
    tall = _cell_height(cell, *base.shape[:2])
    lines = [max(1, math.ceil(len(shown.entries) / columns)) for *_, shown in rows]
    steps = [tall + 0.08 + 0.14 * shown.caption_lines for *_, shown in rows]
    heights = [0.2 + count * step for count, step in zip(lines, steps, strict=True)]
    total = sum(heights)
    sheet = Canvas(0.05 + left + 0.2 + width, total + 0.05)
    whole = Box(0.05, 0.2, left, min(_cell_height(left, *base.shape[:2]), total - 0.25))
    box = sheet.fit(whole, *base.shape[:2])
    sheet.picture(base, Box(whole.x, whole.y, box.width, box.height))
    sheet.text("image", whole.x, 0.03, 7.5, ha="left", color=FAINT)
    y = 0.0
    for (name, labels, shown), step, height in zip(rows, steps, heights, strict=True):
        start = whole.x + left + 0.2
        kept = len(shown.entries)
        words = f"{name}: {kept}" + (f" of {kept + shown.more}" if shown.more else "")
        sheet.text(words, start, y + 0.03, 7.5, ha="left", color=FAINT)
        for k, entry in enumerate(shown.entries):
            line, column = divmod(k, columns)
            x, top = start + column * (cell + 0.08), y + 0.2 + line * step
            draw_mask(sheet, Box(x, top, cell, tall), base, entry.mask, labels, fill=0.4)
            sheet.text(entry.caption, x + cell / 2, top + tall + 0.03, 7.0)
        y += height
    return sheet.figure
