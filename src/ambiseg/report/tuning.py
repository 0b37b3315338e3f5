"""The picture of a search: the figure of every trial in their order, and against each setting that was searched."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ambiseg.report.canvas import FAINT, INK
from ambiseg.report.plots import COLORS

_COLUMNS = 3
_WIDEST = 24  # characters of a tick of words


def draw_search(
    values: Sequence[float | None],
    settings: Mapping[str, Sequence[str]],
    title: str,
    higher_is_better: bool,
    logarithmic: Collection[str] = (),
    choices: Mapping[str, Sequence[str]] | None = None,
    ended_early: Collection[int] = (),
) -> Figure:
    """The figure of every trial, the best one so far, and the figures against each setting.

    Args:
        values: of the trials in their order; None where one failed.
        settings: what each trial had, as texts, by the names of settings.
        title: of the figure.
        higher_is_better: its direction.
        logarithmic: settings with a logarithmic axis.
        choices: what may be chosen, by the names of the settings that are no numbers.
        ended_early: places of trials that were ended early, drawn hollow.

    Example:
        >>> len(draw_search([0.5, None, 0.4], {"lr": ["0.1", "0.2", "0.3"]}, "GED²", False).axes)
        2
    """
    panels = 1 + len(settings)
    columns = min(_COLUMNS, panels)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(3.6 * columns, 2.7 * rows), facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for unused in axes[panels:]:
        unused.remove()
    kept = [place for place, value in enumerate(values) if value is not None]
    figures = [values[place] or 0.0 for place in kept]
    early = [place in set(ended_early) for place in kept]
    _history(axes[0], kept, figures, early, title, higher_is_better)
    for panel, (name, texts) in zip(axes[1:], settings.items(), strict=False):
        words = (choices or {}).get(name)
        own = [texts[place] for place in kept]
        places = [float(text) if words is None else float(words.index(text)) for text in own]
        _points(panel, places, figures, early)
        if words is not None:
            panel.set_xticks(range(len(words)), [_short(word) for word in words])
        elif name in logarithmic and len(set(places)) > 1:
            _logarithmic(panel, min(places), max(places))
        panel.set_title(_short(name, 2 * _WIDEST), fontsize=9, loc="left", color=INK)
        panel.tick_params(labelsize=7)
    return figure


def _history(
    axes: Axes, places: list[int], figures: list[float], early: list[bool], title: str, higher: bool
) -> None:
    best, so_far = [], None
    for value, ended in zip(figures, early, strict=True):
        if not ended and (so_far is None or (value > so_far if higher else value < so_far)):
            so_far = value
        best.append(math.nan if so_far is None else so_far)
    axes.step(places, best, where="post", color=COLORS[1], linewidth=1.2, label="best so far")
    _points(axes, [float(place) for place in places], figures, early)
    axes.legend(fontsize=7, frameon=False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_title(f"Validation {title}", fontsize=10, loc="left", color=INK)
    axes.set_xlabel("trial", fontsize=8, color=FAINT)
    axes.tick_params(labelsize=7)


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """Three ticks in plain numbers, however narrow the axis is."""
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = (low, math.sqrt(low * high), high)
    axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])


def _points(axes: Axes, places: list[float], figures: list[float], early: list[bool]) -> None:
    faces = ["none" if ended else COLORS[0] for ended in early]
    axes.scatter(places, figures, s=16, facecolors=faces, edgecolors=COLORS[0], linewidths=0.8, zorder=3)


def _short(word: str, most: int = _WIDEST) -> str:
    """A text for a picture: no mathematics of matplotlib, not too long."""
    text = word if len(word) <= most else f"{word[: most - 1]}…"
    return text.replace("$", r"\$")
