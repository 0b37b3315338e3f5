"""`Canvas`: a page measured in inches on which pictures, outlines, captions and colour bars are placed.

Twenty subplots would spend most of their time on axes that nobody sees, and their titles would run into each
other. A sheet is one invisible pair of axes instead; what stands where is arithmetic. Lengths are inches, x
from the left, y from the *top*. Text is taken literally: a ``$`` in a file name is no formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from contourpy import contour_generator
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ambiseg.report.display import Floats, Labels

INK, FAINT = "#1c2024", "#6b7280"
_THINNEST = 0.12  # inches: a strip of pixels stays visible
_CHARACTER = 0.0088  # inches per point: average width of a character


@dataclass(frozen=True)
class Box:
    """A rectangle on the sheet, ``x`` and ``y`` of its upper left corner."""

    x: float
    y: float
    width: float
    height: float


def clipped(text: str, inches: float, size: float) -> str:
    """One line of text, its middle left out where it would be too long.

    Example:
        >>> clipped("a rather long name of a file", 1.0, 8.0)
        'a rathe…a file'
    """
    line = " ".join(text.split())
    room = max(4, int(inches / (_CHARACTER * size)))
    return line if len(line) <= room else line[: room // 2] + "…" + line[len(line) - (room - 1 - room // 2) :]


class Canvas:
    """A white page of ``width`` by ``height`` inches and the figure that shows it."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set_autoscale_on(False)
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)

    def fit(self, cell: Box, height: int, width: int) -> Box:
        """The largest box of the shape of ``(height, width)`` pixels in the middle of a cell."""
        scale = min(cell.width / width, cell.height / height)
        w = max(width * scale, min(_THINNEST, cell.width))
        h = max(height * scale, min(_THINNEST, cell.height))
        return Box(cell.x + (cell.width - w) / 2, cell.y + (cell.height - h) / 2, w, h)

    def picture(self, rgb: Floats, box: Box) -> None:
        """Colours ``(h, w, 3)`` in 0..1, stretched over the box, in a hairline frame."""
        extent = (box.x, box.x + box.width, box.y + box.height, box.y)
        self.axes.imshow(rgb, extent=extent, aspect="auto", interpolation="nearest", zorder=1)
        frame = Rectangle((box.x, box.y), box.width, box.height, fill=False, zorder=4)
        frame.set(edgecolor="#9ca3af", linewidth=0.5)
        self.axes.add_artist(frame)

    def block(self, box: Box, color: str) -> None:
        """A rectangle of one colour, such as a bar."""
        self.axes.add_artist(
            Rectangle((box.x, box.y), box.width, box.height, color=color, linewidth=0, zorder=2)
        )

    def outline(self, inside: NDArray[np.bool_], box: Box, color: Floats, width: float = 1.3) -> None:
        """The border of a region ``(h, w)`` drawn over the picture of the same box."""
        if not inside.any():
            return
        (top, bottom), (left, right) = (_ends(np.asarray(inside.any(axis))) for axis in (1, 0))
        x = box.x + (np.arange(left - 1, right + 1) + 0.5) * box.width / inside.shape[1]
        y = box.y + (np.arange(top - 1, bottom + 1) + 0.5) * box.height / inside.shape[0]
        bright = float(color @ np.array([0.3, 0.59, 0.11])) > 0.35
        halo = "black" if bright else "white"
        field = np.pad(inside[top:bottom, left:right], 1).astype(np.float32)
        lines: Any = contour_generator(x, y, field, name="mpl2014").lines(0.5)
        points, codes = (np.concatenate(parts) for parts in lines)
        drawn = PathPatch(
            Path(points, codes),
            fill=False,
            edgecolor=tuple(color),
            linewidth=width,
            joinstyle="round",
            snap=False,
            zorder=3,
            path_effects=[withStroke(linewidth=width + 1.3, foreground=halo, alpha=0.6)],
        )
        self.axes.add_artist(drawn)
        drawn.set_clip_path(Rectangle((box.x, box.y), box.width, box.height, transform=self.axes.transData))

    def text(self, text: str, x: float, y: float, size: float = 8.0, **style: Any) -> None:
        """Text whose top is at ``y``; further words are those of `matplotlib.text.Text`."""
        style = dict[str, Any](color=INK, va="top", ha="center", linespacing=1.25) | style
        drawable = text.encode("utf-8", "replace").decode("utf-8")  # a name may hold bytes that are no text
        self.axes.text(x, y, drawable, fontsize=size, parse_math=False, zorder=5, **style)

    def color_bar(self, name: str, low: str, high: str, box: Box) -> None:
        """A thin gradient of the colour map ``name`` with what its ends mean beside it."""
        strip = colormaps[name](np.linspace(0, 1, 128))[None, :, :3]
        self.picture(np.asarray(strip), box)
        middle = box.y + box.height / 2
        self.text(low, box.x - 0.06, middle, 7.0, ha="right", va="center_baseline", color=FAINT)
        self.text(high, box.x + box.width + 0.06, middle, 7.0, ha="left", va="center_baseline", color=FAINT)


def _ends(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """First and one past the last True of ``flags``, which holds one."""
    places = np.flatnonzero(flags)
    return int(places[0]), int(places[-1]) + 1


def colored(value: Floats, name: str, top: float, missing: Sequence[float]) -> Floats:
    """``value (h, w)`` in 0..``top`` as colours ``(h, w, 3)`` of the map ``name``; nan gets ``missing``."""
    known = np.isfinite(value)
    rgb = colormaps[name](np.where(known, value, 0) / max(top, 1e-12))[..., :3]
    return np.asarray(np.where(known[..., None], rgb, np.asarray(missing)))


def filled(base: Floats, mask: Labels, shown: Sequence[int], colors: Floats, alpha: float) -> Floats:
    """``base (h, w, 3)`` tinted with ``colors (256, 3)`` where ``mask (h, w)`` is one of ``shown``."""
    if not shown:
        return base
    opacity = np.zeros(256)
    opacity[list(shown)] = alpha
    strength = opacity[mask][..., None]
    return np.asarray(base * (1 - strength) + colors[mask] * strength)
