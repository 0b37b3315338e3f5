"""`MetricRow`: one measured number with what a reader needs to judge it, and tables of such rows.

The same rows go to the terminal (`metric_table`), into a README (`markdown_table`) and into the HTML report,
so that title, direction and dialect of a metric are worded once, in `ambiseg.metrics.METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from ambiseg.metrics.table import metric_info


@dataclass(frozen=True)
class MetricRow:
    """A metric and its value.

    Attributes:
        name: the key in `METRICS`.
        title: how it is printed.
        value: what was measured; nan where the metric is not defined.
        count: number of images behind the value, or None.
        note: one sentence that names the dialect.
        higher_is_better: direction; None where neither is good in itself.

    Example:
        >>> row = MetricRow.of("ged", 0.25, count=40)
        >>> row.title, row.text, row.arrow
        ('GED²', '0.2500', '↓')
    """

    name: str
    title: str
    value: float
    count: int | None = None
    note: str = ""
    higher_is_better: bool | None = None

    @classmethod
    def of(cls, name: str, value: float, count: int | None = None) -> MetricRow:
        """The row of a metric of `METRICS`, worded as it is there.

        Raises:
            UnknownNameError: no such metric.
        """
        info = metric_info(name)
        return cls(name, info.title, float(value), count, info.description, info.higher_is_better)

    @property
    def arrow(self) -> str:
        """Which way is better: up, down, or nothing."""
        return "" if self.higher_is_better is None else "↑" if self.higher_is_better else "↓"

    @property
    def text(self) -> str:
        """The value with four decimals, a dash where there is none."""
        return f"{self.value:.4f}" if math.isfinite(self.value) else "–"

    @property
    def number(self) -> str:
        """How many images, empty where nobody said."""
        return "" if self.count is None else str(self.count)


def metric_table(rows: Sequence[MetricRow], title: str | None = None) -> Table:
    """The rows for the terminal: title, value, direction, number of images.

    Columns without any entry are left out.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    table.add_column("better")
    counted = any(row.count is not None for row in rows)
    if counted:
        table.add_column("images", justify="right")
    for row in rows:
        cells = [Text(row.title), Text(row.text, style="bold"), Text(row.arrow)]
        table.add_row(*cells, *([Text(row.number)] if counted else []))
    return table


def markdown_table(rows: Sequence[MetricRow]) -> str:
    """The rows as a Markdown table with aligned columns.

    Example:
        >>> print(markdown_table([MetricRow.of("m_iou", 0.5, 12)]))
        | metric  |  value | images |
        |:--------|-------:|-------:|
        | M-IoU ↑ | 0.5000 |     12 |
    """
    counted = any(row.count is not None for row in rows)
    lines = [["metric", "value", "images"]]
    lines += [[_cell(f"{row.title} {row.arrow}".strip()), row.text, row.number] for row in rows]
    if not counted:
        lines = [line[:2] for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def joined(cells: list[str]) -> str:
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join([cells[0].ljust(widths[0]), *rest])} |"

    rule = [":" + "-" * (w + 1) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([joined(lines[0]), f"|{'|'.join(rule)}|", *map(joined, lines[1:])])


def _cell(text: str) -> str:
    """Text that cannot end a cell or a line."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
