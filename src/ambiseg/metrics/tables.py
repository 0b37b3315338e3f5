"""`MetricRow`: one metric with its values and what a reader needs to judge them.

The same rows go to the terminal and into the HTML report, so that title, direction and dialect of a metric
are worded once, in `ambiseg.metrics.METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ambiseg import notebook
from ambiseg.metrics.intervals import Interval
from ambiseg.metrics.registry import METRICS, metric_info


@dataclass(frozen=True)
class MetricRow:
    """A metric and its value in each column of a table.

    Attributes:
        name: the key in `METRICS`.
        title: how it is printed.
        values: what was measured; nan where the metric is not defined, None where it was not measured.
        note: one sentence that names the dialect.
        higher_is_better: direction; None where neither is good in itself.
        intervals: of the values, in their order; None where there is none, and fewer where the last have none.

    Example:
        >>> row = MetricRow.of("ged", 0.25, None, float("nan"))
        >>> row.title, row.texts, row.arrow
        ('GED²', ['0.2500', '', '–'], '↓')
    """

    name: str
    title: str
    values: tuple[float | None, ...]
    note: str = ""
    higher_is_better: bool | None = None
    intervals: tuple[Interval | None, ...] = ()

    @classmethod
    def of(cls, name: str, *values: float | None) -> MetricRow:
        """The row of a metric of `METRICS`, worded as it is there.

        Raises:
            UnknownNameError: no such metric.
        """
        info = metric_info(name)
        numbers = tuple(None if value is None else float(value) for value in values)
        return cls(name, info.title, numbers, info.description, info.higher_is_better)

    @property
    def arrow(self) -> str:
        """Which way is better: up, down, or nothing."""
        return "" if self.higher_is_better is None else "↑" if self.higher_is_better else "↓"

    @property
    def texts(self) -> list[str]:
        """The values with four decimals, a dash where a metric is not defined, ∞ where it is infinite, nothing
        where it was not measured."""
        return ["" if value is None else _decimals(value) for value in self.values]

    @property
    def interval_texts(self) -> list[str]:
        """The interval of each value with three decimals, nothing where there is none."""
        known = [*self.intervals, *[None] * len(self.values)][: len(self.values)]
        return [
            "" if one is None or math.isnan(one.low) else f"{one.low:.3f} to {one.high:.3f}" for one in known
        ]


def _decimals(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return "–" if math.isnan(value) else f"{value:.4f}"


def html_table(
    columns: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Interval]]
) -> str:
    """The rows of `metric_rows` as a notebook shows them, intervals behind their values."""
    rows = [
        [row.title, row.arrow]
        + [
            f"{text} ({ends})" if ends else text
            for text, ends in zip(row.texts, row.interval_texts, strict=True)
        ]
        for row in metric_rows(columns, intervals)
    ]
    return notebook.table(["metric", "better", *columns], rows)


def metric_rows(
    columns: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Interval]] | None = None
) -> list[MetricRow]:
    """Rows of a table of several columns, each ``metric -> value``, in the order of `METRICS`.

    Args:
        columns: values under the heading of each column.
        intervals: those of some columns, under the same headings.

    Example:
        >>> rows = metric_rows({"all": {"ged": 0.2}, "kept": {"ged": 0.3, "m_iou": 0.9}})
        >>> [(row.name, row.texts) for row in rows]
        [('m_iou', ['', '0.9000']), ('ged', ['0.2000', '0.3000'])]
    """
    names = [name for name in METRICS if any(name in column for column in columns.values())]
    known = intervals or {}
    return [
        replace(
            MetricRow.of(name, *(column.get(name) for column in columns.values())),
            intervals=tuple(known.get(title, {}).get(name) for title in columns),
        )
        for name in names
    ]
