"""`write_report`: everything about a run on one page that needs no other file.

The page is a single HTML file with its style and pictures inside: no scripts, nothing from a network, and
every word that came from a file name or a user is escaped. It can be mailed, archived and opened years later.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ambiseg.maskset import MaskSet
from ambiseg.metrics.tables import MetricRow
from ambiseg.report.experts import draw_experts
from ambiseg.report.files import png_bytes, write_page
from ambiseg.report.modes import draw_mode_bars
from ambiseg.report.pictures import draw_case_row
from ambiseg.report.plots import (
    draw_coverage,
    draw_curve,
    draw_filter,
    draw_mode_scatter,
    draw_pixels,
    draw_reliability,
    several_modes,
)
from ambiseg.report.template import template

__all__ = [
    "Case",
    "CaseGroup",
    "MetricRow",
    "Picture",
    "ReportContent",
    "embedded",
    "template",
    "write_report",
]

_CSS_PIXELS = 96  # per inch
_SHARPNESS = 1.5  # pixels of a picture per pixel of the page
_PALETTE, _BARS_PALETTE = 256, 48


@dataclass(frozen=True)
class Case:
    """One image of the data set with what was said and what was proposed.

    Attributes:
        id: name of the image.
        value: what the metric of its group says about it; nan for none.
        image: ``(C, H, W)`` of any numeric type.
        annotations: ``(1, N, H, W)``.
        predictions: ``(1, M, H, W)``.
        experts: samples expert by expert and the number of experts, see `draw_experts`; None where there are
            none.
    """

    id: str
    value: float
    image: NDArray[np.generic]
    annotations: MaskSet
    predictions: MaskSet
    experts: tuple[MaskSet, int] | None = None


@dataclass(frozen=True)
class CaseGroup:
    """Cases that belong together, such as the best three.

    Attributes:
        title: their heading.
        cases: in the order to show.
        metric: what the values of the cases are, such as "HM IoU*".
    """

    title: str
    cases: Sequence[Case]
    metric: str = ""


@dataclass(frozen=True)
class ReportContent:
    """What a report says; parts that are empty or None are left out.

    Attributes:
        title: heading of the page.
        summary: facts about the run, ``(name, value)``.
        curve: rows of the training curve, see `draw_curve`.
        metrics: measured numbers.
        columns: headings of their values.
        metric_tag: dialect and classes of the measured numbers, where they are not the usual ones.
        metric_note: a sentence below the measured numbers.
        reliability: ``(estimated, true)`` probabilities, see `draw_reliability` and `draw_mode_scatter`.
        mode_metrics: what was measured of these probabilities, one value each.
        pixels: ``(confidence, target, count)`` of bins of pixels, see `draw_pixels`.
        coverage: of the k best masks, see `draw_coverage`.
        filter: curve of the fitted filter and mean d(Y, Y), see `draw_filter`.
        filter_note: a sentence about it.
        groups: images to show.
        commands: how to repeat it, ``(explanation, command line)``.
        channels: names of the channels of the images, see `background_of`.
        subtitle: one line below the heading.
        footer: last line, such as the version of the library.
    """

    title: str
    summary: Sequence[tuple[str, object]] = ()
    curve: Sequence[Mapping[str, float]] = ()
    metrics: Sequence[MetricRow] = ()
    columns: Sequence[str] = ("value",)
    metric_tag: str = ""
    metric_note: str = ""
    reliability: tuple[ArrayLike, ArrayLike] | None = None
    mode_metrics: Sequence[MetricRow] = ()
    pixels: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None
    coverage: ArrayLike = ()
    filter: tuple[Sequence[Mapping[str, Any]], float] | None = None
    filter_note: str = ""
    groups: Sequence[CaseGroup] = ()
    commands: Sequence[tuple[str, str]] = ()
    channels: Sequence[str] = ()
    subtitle: str = ""
    footer: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure as the page embeds it."""

    source: str
    width: int
    height: int


@dataclass(frozen=True)
class _ShownCase:
    case: Case
    picture: Picture
    bars: Picture | None
    experts: Picture | None
    value: str


def write_report(content: ReportContent, path: str | os.PathLike[str]) -> None:
    """Write the page, whole or not at all; an existing file is replaced.

    Raises:
        AmbisegError: the file cannot be written, or a case cannot be drawn (see `draw_case_row`).
    """
    estimated, true = content.reliability or ((), ())
    groups = [(group, [_shown(case, content.channels) for case in group.cases]) for group in content.groups]
    page = template("report.html.j2").render(
        content=content,
        curve=embedded(draw_curve(content.curve)) if content.curve else None,
        reliability=embedded(draw_reliability(estimated, true)) if np.size(true) else None,
        scatter=embedded(draw_mode_scatter(estimated, true)) if several_modes(true) else None,
        modes=int((np.asarray(true) > 0).sum()),
        pixels=embedded(draw_pixels(*content.pixels)) if content.pixels is not None else None,
        coverage=embedded(draw_coverage(content.coverage)) if np.size(content.coverage) > 1 else None,
        filter=embedded(draw_filter(*content.filter)) if content.filter is not None else None,
        groups=groups,
        classes=_classes(content.groups),
    )
    write_page(Path(path), page)


def _shown(case: Case, channels: Sequence[str]) -> _ShownCase:
    figure = draw_case_row(case.image, case.annotations, case.predictions, channels)
    value = f"{case.value:.3f}" if np.isfinite(case.value) else "–"
    bars = None
    if int(case.annotations.merge_identical().count[0]) > 1:
        drawn = draw_mode_bars(case.image, case.annotations, case.predictions, channels)
        bars = embedded(drawn, _BARS_PALETTE)
    experts = None
    if case.experts is not None:
        experts = embedded(draw_experts(case.image, *case.experts, case.annotations, channels))
    return _ShownCase(case, embedded(figure), bars, experts, value)


def _classes(groups: Sequence[CaseGroup]) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and colours of the classes that the cases show; two classes need no legend."""
    cases = [case for group in groups for case in group.cases]
    if not cases or cases[0].annotations.labels.is_binary:
        return []
    labels = cases[0].annotations.labels
    return [(labels.names[i], labels.colors[i]) for i in labels.evaluated]


def embedded(figure: Figure, colors: int = _PALETTE) -> Picture:
    """A figure as a data address, with its size on the page in CSS pixels."""
    content = png_bytes(figure, dpi=_CSS_PIXELS * _SHARPNESS, colors=colors)
    width, height = (round(inches * _CSS_PIXELS) for inches in figure.get_size_inches())
    return Picture(f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}", width, height)
