"""Tables of scores: for readers, metrics in rows and systems in columns; for programs, a row for each figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ambiseg.errors import counted
from ambiseg.metrics.intervals import Difference, Interval
from ambiseg.metrics.tables import MetricRow
from ambiseg.report.text_tables import Entry, Mark, Table


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
        p_values: of the differences.
        corrected: the same, corrected for the number of systems.
        partial: number of images that have a value, of metrics that not all images have.
        best: metrics of which this system is the best.
        per_image: a CSV of the values of images, for pages.
    """

    name: str
    masks: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    differences: Mapping[str, Difference]
    oracle: Mapping[str, float]
    p_values: Mapping[str, float] = field(default_factory=dict)
    corrected: Mapping[str, float] = field(default_factory=dict)
    partial: Mapping[str, int] = field(default_factory=dict)
    best: frozenset[str] = frozenset()
    per_image: str = ""


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
    rows = [tuple(map(Entry, counts))]
    for name in dict.fromkeys(name for column in columns for name in column.values):
        row = MetricRow.of(name)
        entries = [Entry(row.title), Entry(row.arrow)]
        for column in columns:
            mark: Mark = "bold" if name in column.best else ""
            entries.append(Entry(_value(column, name), mark=mark))
            if column.differences:
                entries.append(Entry(_difference(column, name)))
        entries += [Entry(_number(column.oracle.get(name))) for column in oracles.values()]
        rows.append(tuple(entries))
    return Table(title, tuple(header), tuple(rows), tuple(notes))


def score_list(columns: Sequence[Column], facts: Mapping[str, str]) -> Table:
    """A row for each system and metric, with all digits that it has and with ``facts`` at the end of every row.

    What is not defined is empty, what is infinite is "inf".
    """
    header = (
        "system",
        "metric",
        "value",
        "low",
        "high",
        "difference",
        "difference low",
        "difference high",
        "p",
        "p holm",
    )
    rows = []
    for column in columns:
        for name, value in column.values.items():
            ends = column.intervals.get(name, _NOTHING)
            found = column.differences.get(name, Difference(math.nan, _NOTHING))
            tested = (column.p_values.get(name, math.nan), column.corrected.get(name, math.nan))
            oracle = column.oracle.get(name, math.nan)
            numbers = (value, *ends, found.mean, *found.interval, *tested, oracle)
            plain = ["" if math.isnan(number) else repr(number) for number in numbers]
            of = str(column.partial.get(name, facts.get("images", "")))
            rows.append((column.name, name, *plain, column.masks, of, *facts.values()))
    return Table(
        "scores",
        (*header, "annotation oracle", "masks per image", "images with value", *facts),
        tuple(tuple(map(Entry, row)) for row in rows),
    )  # fmt: skip


_NOTHING = Interval(math.nan, math.nan)


def _value(column: Column, name: str) -> str:
    text = _with_ends(column.values.get(name), column.intervals.get(name))
    if name in column.partial:
        text += f" (of {counted(column.partial[name], 'image')})"
    return text


def _difference(column: Column, name: str) -> str:
    found, p = column.differences.get(name), column.corrected.get(name, math.nan)
    if found is None:
        return ""
    text = _with_ends(found.mean, found.interval, "+")
    if math.isnan(p):
        return text
    return f"{text} p < 0.001" if p < 0.001 else f"{text} p = {p:.3f}"


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
