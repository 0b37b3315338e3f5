"""`MetricRow`: one measured number with what a reader needs to judge it.

The same rows go to the terminal and into the HTML report, so that title, direction and dialect of a metric are
worded once, in `ambiseg.metrics.METRICS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
