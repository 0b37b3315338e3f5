"""Plots of numbers: the training curve, probabilities against truth, the reliability of estimates.

They take what is at hand: a curve of any columns with gaps, probabilities that span from 1 down to a
thousandth and to exactly 0. So the curve sorts columns by their names, the reliability axes are logarithmic
down to a thousandth and linear below, and the scatter of modes has a floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from ambiseg.errors import AmbisegError
from ambiseg.metrics.registry import METRICS
from ambiseg.report.canvas import FAINT, INK

Floats = NDArray[np.float64]

COLORS = ("#2f6fbb", "#d9772b", "#3c9a5f", "#b5485d", "#7a5fb0", "#8a6d4b", "#3aa6b0", "#c9a227")
"""Lines in the order in which they are drawn; they start again after the last."""

_POSITIONS = ("step", "epoch", "minutes", "seconds", "time")
_MANY = 100  # points from which a noisy curve is also shown smooth
_FEW = 10  # points up to which each of them is marked
_FLAT = 0.01  # least height of an axis as a share of its values: rounding is no change
_SMALLEST = 1e-3  # below it the axes of the reliability plot are linear
_CROWD = 2000  # points from which a scatter counts in cells
_FLOOR = 1e-6  # least estimate that the scatter of modes tells from 0
_EDGES = np.array([0.0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.35, 0.6, 1.0])


def draw_curve(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Training curve: losses on the left (the learning rate faint behind them), validation on the right.

    The x-axis is the first of step, epoch, minutes, seconds and time that there is, else the number of the
    row. Columns whose name starts with "val" and holds no "loss" go right; "lr" is the learning rate; every
    other column is a loss.

    Args:
        rows: one mapping per logged moment; columns may be missing or nan anywhere.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    position = next((name for name in _POSITIONS if name in names), None)
    table = {name: np.array([_number(row.get(name)) for row in rows], dtype=np.float64) for name in names}
    x = np.arange(len(rows), dtype=np.float64) if position is None else table[position]
    curves = {name: values for name, values in table.items() if name not in _POSITIONS}
    rate = curves.pop("lr", None)
    validation = [name for name in curves if name.startswith("val") and "loss" not in name]
    losses = [name for name in curves if name not in validation]

    figure = Figure(figsize=(10.0, 3.2), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    _lines(left, x, {name: curves[name] for name in losses})
    _lines(right, x, {name: curves[name] for name in validation}, marks=True)
    _stretch_small_losses(left, [curves[name] for name in losses])
    last = float(np.nanmax(x, initial=0.0))
    for axes, title in ((left, "Training losses"), (right, "Validation")):
        axes.set_xlim(-0.02 * (last or 1), 1.02 * (last or 1))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=position in (None, "step", "epoch")))
        axes.set_title(title, fontsize=10, loc="left", color=INK)
        axes.set_xlabel(position or "row", fontsize=8, color=FAINT)
    if rate is not None and np.isfinite(rate).any():
        _faint_rate(left, x, rate)
    return figure


def _number(value: object) -> float:
    """A cell of the curve as a number, nan where it is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def _lines(axes: Axes, x: Floats, curves: Mapping[str, Floats], marks: bool = False) -> None:
    """Every curve over its own known points, so that gaps do not break it."""
    for i, (name, y) in enumerate(curves.items()):
        known = np.isfinite(x) & np.isfinite(y)
        style = "-o" if marks or known.sum() <= _FEW else "-"
        color, shown = COLORS[i % len(COLORS)], y[known]
        if len(shown) >= _MANY and not marks:
            axes.plot(x[known], shown, color=color, linewidth=0.6, alpha=0.35)
            shown = _smooth(shown)
        axes.plot(x[known], shown, style, color=color, label=_title(name), linewidth=1.3, markersize=3)
    style_axes(axes)
    axes.ticklabel_format(useOffset=False)
    _widen(axes)
    if curves:
        legend = axes.legend(fontsize=7.5, frameon=False, ncols=1 + (len(curves) > 4))
        for entry in legend.get_texts():
            entry.set_parse_math(False)
    else:
        axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center", color=FAINT, fontsize=9)


def _widen(axes: Axes) -> None:
    """At least `_FLAT` of the values as the height of the axis, so that rounding does not look like a change."""
    low, high = axes.get_ylim()
    short = _FLAT * max(abs(low), abs(high)) - (high - low)
    if short > 0:
        axes.set_ylim(low - short / 2, high + short / 2)


def _smooth(values: Floats) -> Floats:
    """Mean over a window of a fortieth of the curve, cut off at its ends."""
    reach = max(1, len(values) // 80)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    start = np.maximum(np.arange(len(values)) - reach, 0)
    stop = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return np.asarray((sums[stop] - sums[start]) / (stop - start))


def _title(column: str) -> str:
    """``val_hm_iou_unique`` as the metrics print it, ``train_mask`` as "mask"."""
    short = column.removeprefix("train_").removeprefix("val_")
    if short in METRICS:
        return METRICS[short].title
    kind = "validation " if column.startswith("val_") else ""
    return (kind + short.replace("_", " ")).strip() or column


def _stretch_small_losses(axes: Axes, curves: Sequence[Floats]) -> None:
    """A logarithmic axis where all losses are positive and far apart."""
    known = np.concatenate([values[np.isfinite(values)] for values in curves] or [np.empty(0)])
    if known.size and known.min() > 0 and known.max() > 50 * known.min():
        axes.set_yscale("log")


def _faint_rate(axes: Axes, x: Floats, rate: Floats) -> None:
    known = np.isfinite(x) & np.isfinite(rate)
    twin = axes.twinx()
    twin.plot(x[known], rate[known], color="#c3c8cf", linewidth=1.0, zorder=0)
    twin.set_ylabel("learning rate", fontsize=8, color=FAINT)
    twin.set_ylim(bottom=0)
    twin.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style_axes(twin)
    twin.grid(False)
    twin.spines["right"].set_visible(True)
    twin.spines["right"].set_color("#d1d5db")
    axes.set_zorder(twin.get_zorder() + 1)
    axes.patch.set_visible(False)


def style_axes(axes: Axes) -> None:
    """Axes in the style of the report: faint lines, no frame."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9ca3af")
    axes.tick_params(labelsize=8, colors=FAINT, length=3, which="both")
    axes.grid(True, color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_reliability(estimated: ArrayLike, true: ArrayLike) -> Figure:
    """Estimated probabilities of proposals against the true ones, with the mean of each bin and its count.

    Args:
        estimated: probabilities in [0, 1] of any shape; 0 stands for a mode that no proposal found. The bins
            leave these out.
        true: as many true probabilities; 0 for a proposal that is no mode.

    Raises:
        AmbisegError: not as many estimates as truths.
    """
    u, v = _pairs(estimated, true)
    figure = Figure(figsize=(5.2, 5.4), facecolor="white", layout="constrained")
    main, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (4.2, 1.0)})
    for axis in ("x", "y"):
        getattr(main, f"set_{axis}scale")("symlog", linthresh=_SMALLEST, linscale=0.5)
        getattr(main, f"set_{axis}lim")(-2e-4, 1.15)
        _decades(getattr(main, f"{axis}axis"))
    line = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, 200)])
    main.plot(line, line, "--", color="#9ca3af", linewidth=1.0, label="estimate = truth", zorder=2)
    main.scatter(u, v, s=9, color=COLORS[0], alpha=_alpha(u.size), linewidths=0, label="one mask", zorder=1)
    centres, means, counts = reliability_bins(u[u > 0], v[u > 0])
    style = {"color": COLORS[1], "markersize": 5, "linewidth": 1.6, "zorder": 3}
    main.plot(centres, means, "-o", label="mean of a bin", **style)
    _opaque_legend(main, loc="upper left")
    wrong, missing = (_short(int((value == 0).sum())) for value in (v, u))
    words = f"{wrong} masks are wrong (truth 0)\n{missing} are missing (estimate 0)"
    main.text(0.98, 0.08, words, transform=main.transAxes, ha="right", fontsize=7.5, color=FAINT)
    main.set_ylabel("true probability", fontsize=8, color=INK)
    style_axes(main)
    _count_bars(below, counts)
    below.set_xlabel("estimated probability", fontsize=8, color=INK)
    return figure


def several_modes(true: ArrayLike) -> bool:
    """Whether some mode is less than certain, so that there are probabilities to plot an estimate against.

    Example:
        >>> several_modes([1.0, 1.0, 0.0]), several_modes([1.0, 0.75, 0.25])
        (False, True)
    """
    v = np.asarray(true, dtype=np.float64)
    return bool(((v > 0) & (v < 1 - 1e-6)).any())


def draw_mode_scatter(estimated: ArrayLike, true: ArrayLike) -> Figure:
    """Estimated probability of every mode against its true one, with the median of each bin of the truth.

    Both axes are logarithmic, since modes may be as rare as one in 255. Estimates that are 0, or less than
    about a third of the rarest mode, lie on a floor below the axis; many modes are counted in cells.

    Args:
        estimated: probabilities in [0, 1] of any shape; 0 for a mode that no proposal found.
        true: as many true probabilities; entries of 0 (proposals that are no mode) are left out.

    Raises:
        AmbisegError: not as many estimates as truths.

    Example:
        >>> axes = draw_mode_scatter([0.7, 0.0, 0.3], [0.6, 0.4, 0.0]).axes[0]
        >>> [text.get_text() for text in axes.texts]
        ['2 modes, 1 with an estimate below 0.1']
    """
    u, v = _pairs(estimated, true)
    u, v = u[v > 0], v[v > 0]
    rarest = max(float(v.min(initial=1.0)), _FLOOR)
    least = _one_digit(rarest / 3)
    floor, bottom = least * (least / 1.25) ** 0.06, least * (least / 1.25) ** 0.15
    left = rarest / 1.5
    x, y = np.maximum(v, rarest), np.where(u < least, floor, u)
    figure = Figure(figsize=(5.2, 5.4), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlim=(left, 1.25), ylim=(bottom, 1.25))
    axes.axhspan(bottom, least * (least / 1.25) ** 0.02, color="#f1f2f4", linewidth=0, zorder=0)
    ends = [max(left, least), 1.0]
    axes.plot(ends, ends, "--", color="#9ca3af", linewidth=1.0, label="estimate = truth", zorder=2)
    if len(v) > _CROWD:
        _cells(axes, x, y, least)
    else:
        style: dict[str, Any] = {"s": 14, "linewidths": 0, "label": "one mode", "zorder": 1}
        axes.scatter(x, y, color=COLORS[0], alpha=_alpha(len(v)), **style)
    truths, medians = _medians(x, u)
    medians = np.where(medians < least, floor, medians)
    style = {"color": COLORS[1], "markersize": 5, "linewidth": 1.6, "zorder": 3}
    axes.plot(truths, medians, "-o", label="median of a bin", **style)
    _opaque_legend(axes, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3)
    words = (
        f"{_short(len(v))} modes, {_short(int((u < least).sum()))} with an estimate below {_decimal(least)}"
    )
    axes.text(0.985, 0.012, words, transform=axes.transAxes, ha="right", fontsize=7.5, color=FAINT)
    _log_ticks(axes.xaxis, left)
    _log_ticks(axes.yaxis, least, floor)
    axes.set_xlabel("true probability of a mode", fontsize=8, color=INK)
    axes.set_ylabel("estimated probability of its mask", fontsize=8, color=INK)
    style_axes(axes)
    return figure


def _cells(axes: Axes, x: Floats, y: Floats, least: float) -> None:
    """A logarithmic scatter of many points, counted in cells; those below ``least`` in a row of their own."""
    colors = LinearSegmentedColormap.from_list("counts", ["#cfe0f3", COLORS[0], "#0f2747"])
    (left, right), top = axes.get_xlim(), axes.get_ylim()[1]
    floor = (least / top) ** np.array([0.09, 0.03]) * least
    edges = np.geomspace(left, right, 45), np.concatenate([floor, np.geomspace(least, top, 40)])
    counts = np.histogram2d(x, y, edges)[0]
    shades = LogNorm(1, max(10.0, float(counts.max())))
    drawn = axes.pcolormesh(*edges, np.ma.masked_equal(counts, 0).T, cmap=colors, norm=shades, zorder=1)
    bar = axes.figure.colorbar(drawn, ax=axes, orientation="horizontal", shrink=0.5, aspect=40, pad=0.02)
    bar.set_label("modes in a cell", fontsize=7.5, color=FAINT)
    bar.ax.tick_params(labelsize=7, colors=FAINT, length=2, which="both")
    bar.ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.outline.set_linewidth(0)


def _medians(place: Floats, value: Floats) -> tuple[Floats, Floats]:
    """Medians of both in every sixth of a decade of ``place`` that holds at least a hundredth of the
    points."""
    bins = np.floor(6 * np.log10(place) + 1e-9)
    groups = [bins == one for one in np.unique(bins)]
    groups = [group for group in groups if 100 * group.sum() >= len(place)]
    return np.array([np.median(place[g]) for g in groups]), np.array([np.median(value[g]) for g in groups])


def _one_digit(value: float) -> float:
    """Rounded down to one significant digit.

    Example:
        >>> _one_digit(0.00131), _one_digit(0.085)
        (0.001, 0.08)
    """
    unit = 10.0 ** np.floor(np.log10(value))
    return float(f"{np.floor(value / unit + 1e-9) * unit:.0e}")


def _decimal(value: float) -> str:
    """Without an exponent.

    Example:
        >>> _decimal(0.00005), _decimal(1.0)
        ('0.00005', '1')
    """
    return np.format_float_positional(value, trim="-")


def _log_ticks(axis: Axis, least: float, floor: float | None = None) -> None:
    """Decades (with 2 and 5 between where they are few) of at least ``least``; ``floor`` stands for all
    below."""
    steps = (1, 2, 5) if least > 0.01 else (1,)
    ticks = [float(f"{step}e{k}") for k in range(-7, 1) for step in steps]
    ticks = [tick for tick in ticks if least <= tick <= 1]
    names = {tick: _decimal(tick) for tick in ticks} | (
        {} if floor is None else {floor: f"<{_decimal(least)}"}
    )
    axis.set_major_locator(FixedLocator(list(names)))
    axis.set_major_formatter(FixedFormatter(list(names.values())))
    axis.set_minor_locator(NullLocator())


def _pairs(estimated: ArrayLike, true: ArrayLike) -> tuple[Floats, Floats]:
    """Both as one row of finite numbers."""
    u, v = np.asarray(estimated, dtype=np.float64).ravel(), np.asarray(true, dtype=np.float64).ravel()
    if u.shape != v.shape:
        raise AmbisegError(f"{u.size} estimated but {v.size} true probabilities: pass them in pairs")
    known = np.isfinite(u) & np.isfinite(v)
    return u[known], v[known]


def _alpha(count: int) -> float:
    """How opaque one of many dots is."""
    return float(np.clip(30 / np.sqrt(max(1, count)) / 10, 0.05, 0.6))


def _opaque_legend(axes: Axes, **place: Any) -> None:
    legend = axes.legend(fontsize=7.5, frameon=False, **place)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)


def draw_pixels(confidence: ArrayLike, target: ArrayLike, count: ArrayLike) -> Figure:
    """Reliability of pixels: mean share of the annotators against mean confidence of every bin, and its share
    of pixels.

    Args:
        confidence, target: of each bin, nan where it is empty (`ambiseg.metrics.PixelBins.curve`), any shape.
        count: pixels of each bin.
    """
    p, t, n = (np.asarray(value, dtype=np.float64).ravel() for value in (confidence, target, count))
    figure = Figure(figsize=(5.2, 5.0), facecolor="white", layout="constrained")
    main, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (4.2, 1.0)})
    main.plot([0, 1], [0, 1], "--", color="#9ca3af", linewidth=1.0, label="confidence = share")
    some = np.isfinite(p) & np.isfinite(t)
    main.plot(p[some], t[some], "-o", color=COLORS[0], markersize=5, linewidth=1.6, label="pixels of a bin")
    main.legend(fontsize=7.5, frameon=False, loc="upper left")
    main.set_ylabel("share of the annotators", fontsize=8, color=INK)
    edges = np.linspace(0, 1, len(n) + 1)
    below.bar(
        edges[:-1],
        n / max(1.0, n.sum()),
        width=np.diff(edges),
        align="edge",
        color="#cbd5e1",
        edgecolor="white",
    )
    below.set_ylabel("pixels", fontsize=8, color=INK)
    below.set_xlabel("confidence of the mean prediction", fontsize=8, color=INK)
    for axes in (main, below):
        style_axes(axes)
    return figure


def draw_coverage(values: ArrayLike, title: str = "HM IoU*") -> Figure:
    """Coverage against the number of masks kept, best first (`ambiseg.metrics.coverage_curve`, mean over
    images).

    Args:
        values: ``(M,)``, of the k best masks, k = 1..M.
        title: what they are.
    """
    y = np.asarray(values, dtype=np.float64).ravel()
    figure = Figure(figsize=(5.2, 3.4), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(y) + 1), y, "-o", color=COLORS[0], markersize=4, linewidth=1.6)
    axes.set_ylim(0, 1)
    axes.set_xlabel("masks kept, best score first", fontsize=8, color=INK)
    axes.set_ylabel(title, fontsize=8, color=INK)
    style_axes(axes)
    return figure


RULES = {
    "score_threshold": "score threshold",
    "probability_threshold": "probability threshold",
    "top": "masks that represent all of them",
}
"""Dropping rules of a filter and how plots name them."""


def draw_filter(rows: Sequence[Mapping[str, Any]], spread: float = 0.0) -> Figure:
    """GED² and number of masks against the values of each dropping rule, and what was chosen.

    Args:
        rows: the curve of a fitted filter: ``score_threshold``, ``probability_threshold`` and ``top`` (None for none),
            ``energy_score``, ``standard_error`` of the difference to the best, ``masks``, ``chosen``.
        spread: mean of d(Y, Y): GED² is twice the energy score minus this.

    Example:
        >>> keeps_all = {"score_threshold": None, "probability_threshold": None, "energy_score": 0.2,
        ...              "standard_error": 0.0, "masks": 9.0, "chosen": True}
        >>> drops = {**keeps_all, "probability_threshold": 0.1, "masks": 2.0, "chosen": False}
        >>> [axes.get_xlabel() for axes in draw_filter([keeps_all, drops]).axes]
        ['probability threshold', '']
    """
    names = [name for name in RULES if any(row.get(name) is not None for row in rows)]
    figure = Figure(figsize=(5.2 * max(1, len(names)), 3.4), facecolor="white", layout="constrained")
    for axes, name in zip(
        figure.subplots(1, len(names), squeeze=False)[0] if names else (), names, strict=True
    ):
        others = [other for other in RULES if other != name]
        shown = [row for row in rows if all(row.get(other) is None for other in others)]
        all_kept = [
            row["masks"] if name == "top" else 0.0 for row in shown
        ]  # where a row without a rule stands
        x = np.array([row.get(name) or place for row, place in zip(shown, all_kept, strict=True)])
        order = np.argsort(x, kind="stable")
        shown, x = [shown[i] for i in order], x[order]
        ged = np.array([2 * row["energy_score"] - spread for row in shown])
        error = 2 * np.array([row["standard_error"] for row in shown])
        twin = axes.twinx()
        twin.plot(
            x, [row["masks"] for row in shown], "-o", color="#c3c8cf", markersize=3, linewidth=1.2, zorder=0
        )
        twin.set_ylabel("masks per image (grey)", fontsize=8, color=FAINT)
        twin.set_ylim(bottom=0)
        style_axes(twin)
        twin.grid(False)
        axes.set_zorder(twin.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.fill_between(x, ged - error, ged + error, color=COLORS[0], alpha=0.2, linewidth=0)
        axes.plot(x, ged, "-o", color=COLORS[0], markersize=4, linewidth=1.6)
        for i in (i for i, row in enumerate(shown) if row["chosen"]):
            axes.plot(x[i], ged[i], "o", color=COLORS[1], markersize=9, label="chosen")
            axes.legend(fontsize=7.5, frameon=False, loc="best")
        axes.set_xlabel(RULES[name], fontsize=8, color=INK)
        axes.set_ylabel("GED²", fontsize=8, color=INK)
        style_axes(axes)
    return figure


def reliability_bins(estimated: Floats, true: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean estimate and mean truth of every bin of the estimate that is not empty, and the count of every
    bin."""
    place = np.clip(np.searchsorted(_EDGES, estimated, side="right") - 1, 0, len(_EDGES) - 2)
    counts = np.bincount(place, minlength=len(_EDGES) - 1)
    some = counts > 0
    sums = [np.bincount(place, weights=value, minlength=len(counts)) for value in (estimated, true)]
    return sums[0][some] / counts[some], sums[1][some] / counts[some], counts.astype(np.int64)


def _count_bars(axes: Axes, counts: NDArray[np.int64]) -> None:
    top = max(1, int(counts.max()))
    axes.bar(_EDGES[:-1], counts, width=np.diff(_EDGES), align="edge", color="#cbd5e1", edgecolor="white")
    middles = [np.sqrt(max(low, 3e-4) * high) for low, high in zip(_EDGES[:-1], _EDGES[1:], strict=True)]
    for x, count in zip(middles, counts, strict=True):
        if count:
            axes.text(x, count + 0.04 * top, _short(int(count)), ha="center", fontsize=6.5, color=FAINT)
    axes.set_ylim(0, 1.25 * top)
    axes.set_ylabel("masks", fontsize=8, color=INK)
    style_axes(axes)
    axes.grid(False)
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["left"].set_visible(False)


def _short(count: int) -> str:
    """A count that fits above a narrow bar.

    Example:
        >>> _short(950), _short(12345)
        ('950', '12k')
    """
    return str(count) if count < 1000 else f"{count / 1000:.1f}k" if count < 9950 else f"{count / 1000:.0f}k"


def _decades(axis: object) -> None:
    axis.set_major_locator(FixedLocator([0, 1e-3, 1e-2, 0.1, 1]))  # type: ignore[attr-defined]
    axis.set_minor_locator(NullLocator())  # type: ignore[attr-defined]
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # type: ignore[attr-defined]
