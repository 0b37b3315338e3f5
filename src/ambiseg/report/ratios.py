"""Bars of modes or class flips of a whole data set: how probable each is, and how often it is produced (MoSE,
figure 7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ambiseg.errors import AmbisegError
from ambiseg.metrics.ratios import Ratios
from ambiseg.report.canvas import FAINT, INK
from ambiseg.report.modes import ESTIMATED_COLOR, TRUE_COLOR
from ambiseg.report.plots import style_axes

FEW = 12
"""Up to so many events have their error written above their bars."""
SPREAD = (10, 90)
"""Percentiles over images that the thin lines reach."""


def draw_ratios(ratios: Ratios, names: Sequence[str] = (), what: str = "mode") -> Figure:
    """True and estimated probability of every event, the means over images, with the spread of the estimates
    and the error.

    Args:
        ratios: of `ambiseg.metrics.numbered_mode_ratios` or `ambiseg.metrics.flip_ratios`; events of no image
            are left out.
        names: of all events; their numbers from 1 if left out.
        what: what one event is, such as "flip".

    Raises:
        AmbisegError: other than one name for each event, or no event that any image has.

    Reference:
        Gao, Chen, Zhang and He (2023), appendix C.2.

    Example:
        >>> import torch
        >>> four = torch.tensor([[0.6, 0.4], [0.8, 0.2]]), torch.tensor([[0.75, 0.25], [0.75, 0.25]])
        >>> figure = draw_ratios(Ratios(*four), ["road", "car"], "flip")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['±0.100', '±0.100', '2 images, mean absolute error 0.100 per image, 0.050 of the means']
    """
    events = ratios.true.shape[1]
    if names and len(names) != events:
        raise AmbisegError(f"{len(names)} names do not fit {events} events: give one for each, or none")
    there = ratios.true.isfinite().any(0)
    if not bool(there.any()):
        raise AmbisegError("no image has any of the events: there is nothing to draw")
    titles = [str(name) for name, known in zip(names or range(1, events + 1), there, strict=True) if known]
    shown = Ratios(ratios.estimated[:, there].cpu(), ratios.true[:, there].cpu())
    means, truths = (value.numpy() for value in shown.means())
    low, high = np.nanpercentile(shown.estimated.numpy(), SPREAD, axis=0)
    error = shown.error().numpy()

    figure = Figure(figsize=(max(5.2, 0.9 + 0.3 * len(titles)), 3.6), facecolor="white", layout="constrained")
    axes = figure.subplots()
    x = np.arange(len(titles))
    axes.bar(x - 0.2, truths, 0.38, color=TRUE_COLOR, label="true")
    axes.bar(x + 0.2, means, 0.38, color=ESTIMATED_COLOR, label="estimated")
    axes.vlines(
        x + 0.2, low, high, color=INK, linewidth=0.8, label=f"{SPREAD[1] - SPREAD[0]} % of the images"
    )
    heights = np.maximum(truths, np.maximum(means, high))
    top = max(float(heights.max()), 0.01)
    if len(titles) <= FEW:
        for k, (value, height) in enumerate(zip(error, heights, strict=True)):
            words = f"±{value:.3f}"
            axes.text(k, height + 0.02 * top, words, ha="center", fontsize=7.5, color=FAINT)
    words = (
        f"{len(ratios.true)} images, mean absolute error {error.mean():.3f} per image,"
        f" {np.abs(means - truths).mean():.3f} of the means"
    )
    axes.text(1.0, 1.02, words, transform=axes.transAxes, ha="right", fontsize=7.5, color=FAINT)
    axes.set_ylim(0, 1.25 * top)
    axes.set_xticks(x, titles, rotation=90, parse_math=False)
    axes.set_ylabel(f"probability of a {what}", fontsize=8, color=INK)
    axes.legend(fontsize=7.5, frameon=False, ncols=3, loc="upper right")
    style_axes(axes)
    axes.grid(False, axis="x")
    return figure
