"""Tables of scores: for readers, metrics in rows and systems in columns; for programs, a row for each figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ambiseg.metrics.intervals import Difference, Interval
from ambiseg.metrics.tables import MetricRow
from ambiseg.report.text_tables import Entry, Table


@dataclass(frozen=True)
class Column:
    """One system of a table.

    Attributes:
        name: heading.
        masks: number of masks per image in words.
        values: metric by name.
        intervals: of the values.
        differences: to the first system; empty for the first.
        oracle: metric by name of as many draws from the annotations; empty where none were drawn.
    """

    name: str
    masks: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    differences: Mapping[str, Difference]
    oracle: Mapping[str, float]


def score_table(title: str, columns: Sequence[Column], tag: str = "", notes: Sequence[str] = ()) -> Table:
    """Metrics in rows; each system with its interval, its difference to the first, and the annotation oracle.

    The oracle stands once where all systems have as many masks, else beside each of them.

    Example:
        >>> one = Column("a", "4", {"ged": 0.25}, {"ged": Interval(0.2, 0.3)}, {}, {"ged": 0.1})
        >>> print(score_table("fires", [one]).csv())
        metric,better,a,"annotation oracle, n = 4"
        masks per image,,4,4
        GED²,↓,"0.2500 [0.200, 0.300]",0.1000
        <BLANKLINE>
    """
    header = [f"metric [{tag}]" if tag else "metric", "better"]
    first = columns[0].name
    counts = ["masks per image", ""]
    oracles: dict[str, Column] = {}
    for column in columns:
        header.append(column.name)
        counts.append(column.masks)
        if column.differences:
            header.append(f"{column.name} - {first}")
            counts.append("")
        if column.oracle:
            oracles.setdefault(column.masks, column)
    header += [f"annotation oracle, n = {masks}" for masks in oracles]
    counts += list(oracles)
    rows = [counts]
    for name in dict.fromkeys(name for column in columns for name in column.values):
        row = MetricRow.of(name)
        words = [row.title, row.arrow]
        for column in columns:
            words.append(_with_ends(column.values.get(name), column.intervals.get(name)))
            if column.differences:
                found = column.differences.get(name)
                words.append("" if found is None else _with_ends(found.mean, found.interval, "+"))
        words += [_number(column.oracle.get(name)) for column in oracles.values()]
        rows.append(words)
    return Table(title, tuple(header), tuple(tuple(map(Entry, words)) for words in rows), tuple(notes))


def score_list(columns: Sequence[Column], facts: Mapping[str, str]) -> Table:
    """A row for each system and metric, with all digits and with ``facts`` at the end of every row."""
    header = ("system", "metric", "value", "low", "high", "difference", "difference low", "difference high")
    rows = []
    for column in columns:
        for name, value in column.values.items():
            ends = column.intervals.get(name, _NOTHING)
            found = column.differences.get(name, Difference(math.nan, _NOTHING))
            numbers = (value, *ends, found.mean, *found.interval, column.oracle.get(name, math.nan))
            plain = ["" if math.isnan(number) else repr(number) for number in numbers]
            rows.append((column.name, name, *plain, column.masks, *facts.values()))
    return Table(
        "scores",
        (*header, "annotation oracle", "masks per image", *facts),
        tuple(tuple(map(Entry, row)) for row in rows),
    )


_NOTHING = Interval(math.nan, math.nan)


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return ""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{round(value, 4) + 0.0:{sign}.4f}"


def _with_ends(value: float | None, ends: Interval | None, sign: str = "") -> str:
    text = _number(value, sign)
    if ends is None or math.isnan(ends.low):
        return text
    low, high = (f"{round(end, 3) + 0.0:{sign}.3f}" for end in ends)
    return f"{text} [{low}, {high}]"
