"""What ``ambiseg score`` prints and writes: tables, the page, and the notes that must stand with figures."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ambiseg.cli.console import Grid, show, show_grid
from ambiseg.engine.score.reasons import AGAINST_EQUAL
from ambiseg.engine.score.results import UNORDERED, grouped
from ambiseg.engine.tally import LEAST_GROUPS
from ambiseg.errors import counted
from ambiseg.metrics.registry import METRICS
from ambiseg.report.score_tables import Column, score_list, score_table

if TYPE_CHECKING:
    from ambiseg.engine.score import Scores
    from ambiseg.report.text_tables import Table

_WIDE = 4
"""Columns with which a table has room for intervals beside the figures; else they stand below."""
_PARTS = re.compile(r" (?=\[|\(of |p [=<])")
"""Where the figures of a cell may go to a line of their own."""
_BEST = "bold: the best system"


def columns_of(scores: Scores) -> list[Column]:
    """The systems as columns of a table."""
    best = scores.best()
    return [
        Column(
            one.name,
            one.count,
            one.values,
            one.intervals,
            one.differences,
            one.figures.oracle,
            one.p_values,
            one.corrected,
            one.partial,
            frozenset(name for name, systems in best.items() if one.name in systems),
            scores.per_image(one),
        )
        for one in scores.systems
    ]


def table_of(scores: Scores, data: Path) -> Table:
    """The table for readers."""
    title = f"{data}, split {scores.split}: {_images(scores)}"
    return score_table(title, columns_of(scores), scores.tag, [*_notes(scores), *scores.remarks])


def list_of(scores: Scores, data: Path) -> Table:
    """The table for programs."""
    facts = {
        "images": str(scores.images),
        "missing": str(len(scores.missing)),
        "data": str(data),
        "split": scores.split,
        "dialect": scores.dialect.name,
        "classes": " ".join(scores.classes),
        "data digest": scores.data_digest,
        "settings digest": scores.settings_digest,
        "remarks": "; ".join([*scores.remarks, *_left_out(scores)]),
    }
    return score_list(columns_of(scores), facts)


def page_of(scores: Scores, data: Path, command: str) -> str:
    """The page, with the values of images to download."""
    from ambiseg.report.score_page import score_page

    title = f"{data}, split {scores.split}: {_images(scores)}"
    columns = columns_of(scores)
    table = score_table(title, columns, scores.tag, _notes(scores))
    return score_page(table, columns, scores.remarks, command)


def show_text(table: Table) -> None:
    """Print a table; with several systems intervals stand below the figures."""
    show(table.title)
    grid = Grid()
    for i, word in enumerate(table.header):
        grid.column(word, right=i > 1)
    several = len(table.header) > _WIDE
    for row in table.rows:
        words = [entry.text for entry in row]
        grid.row(*([part for part in _PARTS.split(word) if part] if several else word for word in words))
    show_grid(grid)
    show(*(note for note in table.notes if note != _BEST))


def _left_out(scores: Scores) -> list[str]:
    """Which default metrics are missing, and how to get those that have a value."""
    notes = []
    for reason, names in grouped(scores.left_out).items():
        note = f"left out: {_titles(names)}: {reason}"
        if set(names) <= set(AGAINST_EQUAL):
            note += f" (--metrics {','.join(names)} computes them all the same)"
        notes.append(note)
    return notes


def _titles(names: Sequence[str]) -> str:
    return ", ".join(METRICS[name].title for name in names)


def _images(scores: Scores) -> str:
    if not scores.missing:
        return counted(scores.images, "image")
    return f"{scores.images} of {counted(scores.images + len(scores.missing), 'image')}, the others have no prediction"


def _notes(scores: Scores) -> list[str]:
    """What must be known to believe and to repeat the figures."""
    notes = [
        f"data {scores.data_digest[:12]}, settings {scores.settings_digest[:12]}; dialect {scores.dialect.name};"
        f" classes {', '.join(scores.classes)}"
    ]
    if scores.tag:
        notes.append(scores.dialect.source)
    spread = scores.systems[0].figures.annotators["spread"]
    if not math.isnan(spread):
        notes.append(f"annotations among themselves: d(Y,Y) {spread:.3f}")
    notes += _uncertainty(scores)
    if any(system.partial for system in scores.systems):
        notes.append("(of n images): the others have no value, and the mean leaves them out")
    if scores.unequal:
        notes.append(
            f"{_titles(scores.unequal)}: the systems have values of different images, so none is marked as best;"
            " differences are over the images that both have"
        )
    shown = {name for system in scores.systems for name in system.values}
    if len(scores.systems) > 1 and (unordered := [name for name in UNORDERED if name in shown]):
        notes.append(f"{_titles(unordered)}: may pass its ideal value 0, so no system is marked as best")
    notes += [f"no value: {_titles(names)}: {reason}" for reason, names in grouped(scores.undefined).items()]
    notes += _left_out(scores)
    notes += [
        f"{METRICS[name].title}: {METRICS[name].description}"
        for name in METRICS
        if name in shown and METRICS[name].title.endswith("*")
    ]
    return notes


def _uncertainty(scores: Scores) -> list[str]:
    """How intervals and p values were made."""
    bootstrap, grouped = scores.bootstrap, scores.units < scores.images
    if bootstrap is None:
        return []
    units = f"{counted(scores.units, 'group')} of images" if grouped else counted(scores.units, "image")
    notes = []
    if grouped and scores.units < LEAST_GROUPS:
        notes.append(f"no intervals: {counted(scores.units, 'group')}, {LEAST_GROUPS} are needed")
    else:
        paired = "; differences are paired" if len(scores.systems) > 1 else ""
        notes.append(
            f"in brackets: {bootstrap.level:.0%} intervals of {bootstrap.resamples} resamples of {units}{paired}"
        )
    if len(scores.systems) > 1:
        several = len(scores.systems) > 2
        corrected = f", corrected for {len(scores.systems) - 1} comparisons (Holm)" if several else ""
        notes.append(f"p: paired permutation test of {units}, two-sided{corrected}")
        notes.append(_BEST)
    return notes
