"""The page of a benchmark: tables and pictures of every data set in one file that needs no other.

Three pictures say what tables cannot: quality against the time that an image takes, coverage against the
number of masks, and estimated against true probability.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambiseg.metrics.registry import METRICS
from ambiseg.report.benchmark_tables import Measured
from ambiseg.report.canvas import INK
from ambiseg.report.files import write_page
from ambiseg.report.page import Picture, embedded
from ambiseg.report.plots import COLORS, reliability_bins, style_axes
from ambiseg.report.template import template
from ambiseg.report.text_tables import Table

MARKERS = "osD^v<>pPX*h"
"""Of methods, in their order; with the colours, which start again sooner, they tell 24 apart."""


@dataclass(frozen=True)
class DataSection:
    """What the page says of one data set.

    Attributes:
        name: heading.
        table: see `ambiseg.report.benchmark_tables.data_table`.
        runs: all its runs.
        metric: what the first picture shows.
    """

    name: str
    table: Table
    runs: Sequence[Measured]
    metric: str

    def pictures(self) -> list[tuple[str, Picture]]:
        """Captions and pictures."""
        title = METRICS[self.metric].title
        return [
            (f"{title} against seconds per image; dashed: the annotation oracle.", embedded(draw_times(self.runs, self.metric))),
            ("HM IoU* of the k best masks: how many masks are needed.", embedded(draw_coverages(self.runs))),
            (
                "True against estimated probability of masks, mean of each bin: on the dashed line both agree.",
                embedded(draw_calibration(self.runs)),
            ),
        ]  # fmt: skip


def write_benchmark_page(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[DataSection],
    *,
    facts: Sequence[tuple[str, object]] = (),
    remarks: Sequence[str] = (),
    command: str = "",
    footer: str = "",
) -> None:
    """Write the page, whole or not at all; an existing file is replaced.

    Args:
        path: file to write.
        title: heading.
        sections: data sets.
        facts: of the protocol, ``(name, value)``.
        remarks: what is missing and why.
        command: how to repeat it.
        footer: last line.

    Raises:
        AmbisegError: the file cannot be written.
    """
    shown = [(section, section.pictures()) for section in sections]
    page = template("benchmark.html.j2").render(
        title=title, sections=shown, facts=facts, remarks=remarks, command=command, footer=footer
    )
    write_page(Path(path), page)


def draw_times(runs: Sequence[Measured], metric: str) -> Figure:
    """Quality against inference time: one point for each method, the mean of its seeds.

    Args:
        runs: of one data set.
        metric: the quality.
    """

    def draw(axes: Axes, own: Sequence[Measured], style: Mapping[str, Any]) -> None:
        values = [run.metrics.get(metric) for run in own]
        known = [value for value in values if value is not None]
        if known:
            seconds = np.mean([run.seconds_per_image for run in own])
            axes.plot([seconds], [np.mean(known)], markersize=8, **{**style, "linestyle": "none"})

    figure, axes = _by_method(runs, draw)
    axes.set_xscale("log")
    ceilings = {run.masks: run.oracle.get(metric) for run in runs}
    for ceiling in ceilings.values():
        if ceiling is not None:
            axes.axhline(ceiling, linestyle="--", color="#9ca3af", linewidth=1.0)
    _name(axes, "seconds per image", METRICS[metric].title)
    return figure


def draw_coverages(runs: Sequence[Measured]) -> Figure:
    """Coverage of the annotations against the number of masks kept, best first, mean over seeds.

    Args:
        runs: of one data set.
    """

    def draw(axes: Axes, own: Sequence[Measured], style: Mapping[str, Any]) -> None:
        shortest = min(len(run.coverage) for run in own)
        curve = np.mean([_numbers(run.coverage[:shortest]) for run in own], 0)
        axes.plot(np.arange(1, shortest + 1), curve, markersize=4, linewidth=1.4, **style)

    figure, axes = _by_method(runs, draw)
    axes.set_ylim(bottom=0)
    _name(axes, "masks kept, best score first", "HM IoU*")
    return figure


def draw_calibration(runs: Sequence[Measured]) -> Figure:
    """True against estimated probability of masks, mean of each bin, the pairs of all seeds together.

    Args:
        runs: of one data set.
    """

    def draw(axes: Axes, own: Sequence[Measured], style: Mapping[str, Any]) -> None:
        estimated, true = (_numbers([v for run in own for v in column(run)]) for column in _PAIRS)
        some = np.isfinite(estimated) & np.isfinite(true) & (estimated > 0)
        if some.any():
            centres, means, _ = reliability_bins(estimated[some], true[some])
            axes.plot(centres, means, markersize=5, linewidth=1.4, **style)

    figure, axes = _by_method(runs, draw)
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("symlog", linthresh=1e-3, linscale=0.5)
        getattr(axes, f"set_{axis}lim")(-2e-4, 1.15)
    line = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 100)])
    axes.plot(line, line, "--", color="#9ca3af", linewidth=1.0)
    _name(axes, "estimated probability", "true probability")
    return figure


_PAIRS: tuple[Callable[[Measured], Sequence[float | None]], ...] = (
    lambda run: run.estimated,
    lambda run: run.true,
)


def _by_method(
    runs: Sequence[Measured], draw: Callable[[Axes, Sequence[Measured], Mapping[str, Any]], None]
) -> tuple[Figure, Axes]:
    """A figure in which every method has its colour and marker, with the legend outside."""
    figure = Figure(figsize=(7.2, 4.2), facecolor="white", layout="constrained")
    axes = figure.subplots()
    for i, method in enumerate(dict.fromkeys(run.method for run in runs)):
        style = {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "label": method}
        style["linestyle"] = "-" if i < len(COLORS) else "--"
        draw(axes, [run for run in runs if run.method == method], style)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return figure, axes


def _name(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_ylabel(y, fontsize=8, color=INK)
    style_axes(axes)


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
