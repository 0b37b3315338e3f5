"""Bars of one image: how probable each of its modes is, and how probable the proposals make it.

The *modes* are the distinct annotations. Notation as in `ambiseg.metrics.calibration`: mode j has the true
probability v_j and the estimate u_j, the weight of the proposals assigned to it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import mode_probabilities
from ambiseg.metrics.comparison import Comparison
from ambiseg.ranking import descending
from ambiseg.report.canvas import FAINT, Box, Canvas
from ambiseg.report.display import Floats, background_of, check_image, reduce_image, reduce_masks
from ambiseg.report.pictures import draw_mask, percent
from ambiseg.report.plots import COLORS

MOST_BARS = 32
"""Modes that have a bar of their own; those beyond share one."""
TRUE_COLOR, ESTIMATED_COLOR = "#9ca3af", COLORS[0]
"""Of what is true and of what is estimated, as in the plots."""

_WIDTH, _COLUMNS, _LINES = 11.08, 4, 4  # inches: as wide as the strip of a case
_TOP, _STEP, _BAR, _THUMBNAIL, _NUMBER = 0.32, 0.44, 0.13, 0.52, 0.5
_FEW, _LARGER = 12, 1.15  # up to so many modes are drawn so much larger


@dataclass(frozen=True)
class ModeBars:
    """True and estimated probability of the modes of one image, the most probable first.

    Attributes:
        modes: the modes, ``(1, N*, H, W)``, weighted with their true probability.
        estimated: weight of the proposals that go to each, ``(N*,)``.
        unassigned: weight of the proposals that go to none.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> masks = torch.tensor([[[[0, 1]], [[1, 1]]]], dtype=torch.uint8)
        >>> truth = MaskSet(masks, torch.tensor([[0.25, 0.75]]), LabelSpace.binary())
        >>> bars = ModeBars.of(MaskSet.uniform(masks, LabelSpace.binary()), truth)
        >>> bars.true, bars.estimated
        (array([0.75, 0.25]), array([0.5, 0.5]))
    """

    modes: MaskSet
    estimated: Floats
    unassigned: float

    @property
    def true(self) -> Floats:
        """Probability of each mode, ``(N*,)``."""
        return np.asarray(self.modes.weights[0].double().numpy())

    @classmethod
    def of(cls, predictions: MaskSet, annotations: MaskSet, assignment: str = "nearest") -> ModeBars:
        """Assign the proposals of one image to its modes.

        Args:
            predictions: ``(1, M, H, W)``.
            annotations: ``(1, N, H, W)``.
            assignment: see `mode_probabilities`; "matched" leaves proposals without a mode unassigned.

        Raises:
            UnknownNameError: no such assignment.
            AmbisegError: the sets do not belong together.
        """
        pair = Comparison(predictions.to("cpu"), annotations.to("cpu"))
        entries = mode_probabilities(pair, assignment=assignment)
        modes = pair.modes
        order = descending(modes.weights)
        estimated = entries.estimated[0].double()
        if assignment == "matched":  # entries in the order of the proposals
            found = pair.partners[0] >= 0
            weights = pair.predictions.weights[0].double()
            estimated = torch.zeros(modes.weights.shape[1], dtype=torch.float64)
            estimated = estimated.index_add(0, pair.partners[0][found], weights[found])
        ranked = np.asarray(estimated[order[0]].numpy())
        return cls(modes.gather(order), ranked, max(0.0, 1 - float(ranked.sum())))

    def rows(self, limit: int = MOST_BARS) -> list[tuple[str, float, float]]:
        """What is drawn, ``(label, true, estimated)``: single modes without a label, then what they leave
        out.

        Both columns sum to 1.

        Args:
            limit: modes with a row of their own.
        """
        true, estimated = self.true.tolist(), self.estimated.tolist()
        rows = [("", v, u) for v, u in zip(true[:limit], estimated[:limit], strict=True)]
        if len(true) > limit:
            rows.append((f"{len(true) - limit} more", sum(true[limit:]), sum(estimated[limit:])))
        if self.unassigned > 1e-4:
            rows.append(("on no\nmode", 0.0, self.unassigned))
        return rows


def draw_mode_bars(
    image: NDArray[np.generic],
    annotations: MaskSet,
    predictions: MaskSet,
    channels: Sequence[str] = (),
    assignment: str = "nearest",
) -> Figure:
    """For every mode of one image its probability and, below, that of the proposals which go to it.

    Args:
        image: ``(C, H, W)`` of any numeric type.
        annotations: ``(1, N, H, W)``; the distinct ones are the modes.
        predictions: ``(1, M, H, W)``.
        channels: names of the channels of the image, see `background_of`.
        assignment: of proposals to modes, see `ModeBars.of`.

    Raises:
        AmbisegError: a batch, masks of another size, or an image that is not ``(C, H, W)``.
    """
    check_image(image, annotations, predictions)
    bars = ModeBars.of(predictions, annotations, assignment)
    base, rows = reduce_image(background_of(image, channels)), bars.rows()
    thumbnails = reduce_masks(bars.modes.masks[0, :MOST_BARS]).numpy()
    lines = max(_LINES, math.ceil(len(rows) / _COLUMNS))
    columns, column = math.ceil(len(rows) / lines), _WIDTH / _COLUMNS
    larger = _LARGER if len(rows) <= _FEW else 1.0
    step, thickness, thumbnail = (larger * inches for inches in (_STEP, _BAR, _THUMBNAIL))
    sheet = Canvas(columns * column, _TOP + min(lines, len(rows)) * step + 0.05)
    _draw_key(sheet, len(bars.estimated))
    longest = max(max(true, estimated) for _, true, estimated in rows)
    scale = (column - 0.05 - thumbnail - 0.08 - _NUMBER) / longest
    for k, (label, true, estimated) in enumerate(rows):
        x, y = 0.05 + (k // lines) * column, _TOP + (k % lines) * step
        cell = Box(x, y, thumbnail, step - 0.06)
        if label:
            sheet.text(label, x + cell.width, y + cell.height / 2, 7.0, ha="right", va="center", color=FAINT)
        else:
            draw_mask(sheet, cell, base, thumbnails[k], bars.modes.labels, fill=0.6, line=0.6)
        start, middle = x + thumbnail + 0.08, y + cell.height / 2
        for share, color, top in (
            (true, TRUE_COLOR, middle - thickness - 0.01),
            (estimated, ESTIMATED_COLOR, middle + 0.01),
        ):
            sheet.block(Box(start, top, scale * share, thickness), color)
            style = {"ha": "left", "va": "center_baseline", "color": FAINT}
            sheet.text(percent(share), start + scale * share + 0.05, top + thickness / 2, 7.0, **style)
    return sheet.figure


def _draw_key(sheet: Canvas, count: int) -> None:
    """One line: how many modes, and which bar is which."""
    x = 0.05
    sheet.text(f"modes: {count}", x, 0.06, 7.5, ha="left", color=FAINT)
    for words, color, place in (("true", TRUE_COLOR, x + 1.0), ("estimated", ESTIMATED_COLOR, x + 1.6)):
        sheet.block(Box(place, 0.075, 0.16, 0.1), color)
        sheet.text(words, place + 0.22, 0.06, 7.5, ha="left", color=FAINT)
