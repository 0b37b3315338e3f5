"""``ambiseg score``: masks of any program against the annotations of a split."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg.cli.console import Grid, progress, say, show, show_grid, show_json, warn
from ambiseg.cli.evaluate import metric_names
from ambiseg.cli.parsing import Grouping, Measuring, parse
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.score import Scores
    from ambiseg.report.score_tables import Column
    from ambiseg.report.text_tables import Table


_WIDE = 4
"""Columns with which a table has room for intervals beside the figures; else they stand below."""
_INTERVAL = re.compile(r" (?=\[)")


@dataclass(frozen=True)
class ScoreArguments:
    """Measure masks of any program against the annotations of a split.

    PREDICTIONS are a folder of 'ambiseg predict', a folder with a folder of masks for each image, or one .npy, .npz or
    .h5 of shape (images, samples, height, width). Several are measured side by side."""

    predictions: Positional[tuple[Path, ...]]
    """Folders or files of masks, one for each system."""
    data: Path
    """Data set with the annotations."""
    split: str = "test"
    """Which split of it."""
    names: str = ""
    """Names of the systems with commas between them; those of the files if left out."""
    ids: Path | None = None
    """Text file with the id of each image of an array, one a line; needed where the array does not hold them and does
    not follow the order of the split."""
    metrics: str = ""
    """Names of metrics with commas between them, or "all"; the usual ones that fit if left out."""
    measuring: OmitArgPrefixes[Measuring] = field(default_factory=Measuring)
    grouping: OmitArgPrefixes[Grouping] = field(default_factory=Grouping)
    allow_missing: bool = False
    """Leave out images of which a system has no prediction, for all systems."""
    format: Literal["text", "markdown", "csv", "latex"] = "text"
    """Form of the table on stdout; csv has a row for each system and metric, with all digits."""
    out: Path | None = None
    """Folder to make with score.json and per_image.csv."""
    overwrite: bool = False
    """Replace an earlier folder of scores."""
    json: bool = False
    """Print the numbers as JSON."""


def run(args: list[str]) -> int:
    """Score, save and print."""
    arguments = parse(ScoreArguments, args, "ambiseg score")
    if not arguments.predictions:
        raise AmbisegError("nothing to measure: name a folder or a file of predictions")
    if arguments.json and arguments.format != "text":
        raise AmbisegError("--json and --format both say what is printed: give one of them")
    chosen = metric_names(arguments.metrics)
    from ambiseg.data.source import open_split
    from ambiseg.engine.score import score_files
    from ambiseg.engine.tally import FEW_GROUPS, LEAST_GROUPS
    from ambiseg.predictions import read_ids

    source = open_split(arguments.data, arguments.split)
    with progress("scoring") as update:
        scores = score_files(
            arguments.predictions,
            source,
            arguments.split,
            names=[name.strip() for name in arguments.names.split(",") if name.strip()],
            ids=None if arguments.ids is None else read_ids(arguments.ids),
            metrics=chosen,
            dialect=arguments.measuring.dialect,
            classes=arguments.measuring.chosen(),
            groups=arguments.grouping.of(source.ids),
            allow_missing=arguments.allow_missing,
            progress=update,
        )
    for remark in scores.remarks:
        warn(remark)
    if LEAST_GROUPS <= scores.units < min(FEW_GROUPS, scores.images):
        warn(f"{scores.units} groups only: intervals are too narrow; take {FEW_GROUPS} groups or more")
    if arguments.out is not None:
        scores.save(arguments.out, arguments.overwrite, [arguments.data, *arguments.predictions])
    if arguments.json:
        show_json({"data": arguments.data, **scores.to_dict()})
    elif arguments.format == "csv":
        print(_list(scores, arguments.data).csv(), end="")
    elif arguments.format == "text":
        _show_text(_table(scores, arguments.data))
    else:
        table = _table(scores, arguments.data)
        print(table.markdown() if arguments.format == "markdown" else table.latex(), end="")
    if arguments.out is not None:
        say(f"written: {arguments.out / 'score.json'}, {arguments.out / 'per_image.csv'}")
    return 0


def _show_text(table: Table) -> None:
    show(table.title)
    grid = Grid()
    for i, word in enumerate(table.header):
        grid.column(word, right=i > 1)
    several = len(table.header) > _WIDE
    for row in table.rows:
        words = [entry.text for entry in row]
        grid.row(*([part for part in _INTERVAL.split(word) if part] if several else word for word in words))
    show_grid(grid)
    show(*table.notes)


def _columns(scores: Scores) -> list[Column]:
    from ambiseg.report.score_tables import Column

    return [
        Column(one.name, one.count, one.values, one.intervals, one.differences, one.figures.oracle)
        for one in scores.systems
    ]


def _table(scores: Scores, data: Path) -> Table:
    from ambiseg.report.score_tables import score_table

    title = f"{data}, split {scores.split}: {_images(scores)}"
    return score_table(title, _columns(scores), scores.tag, _notes(scores))


def _images(scores: Scores) -> str:
    if not scores.missing:
        return f"{scores.images} images"
    return f"{scores.images} of {scores.images + len(scores.missing)} images, the others have no prediction"


def _notes(scores: Scores) -> list[str]:
    """What must be known to believe and to repeat the figures."""
    from ambiseg.engine.tally import LEAST_GROUPS

    notes = [
        f"data {scores.data_digest[:12]}, settings {scores.settings_digest[:12]}; dialect {scores.dialect.name};"
        f" classes {', '.join(scores.classes)}"
    ]
    if scores.tag:
        notes.append(scores.dialect.source)
    spread = scores.systems[0].figures.annotators["spread"]
    if not math.isnan(spread):
        notes.append(f"annotations among themselves: d(Y,Y) {spread:.3f}")
    kind = "images" if scores.units == scores.images else "groups of images"
    bootstrap = scores.bootstrap
    if bootstrap is not None and scores.units < scores.images and scores.units < LEAST_GROUPS:
        notes.append(f"no intervals: {scores.units} groups, {LEAST_GROUPS} are needed")
    elif bootstrap is not None:
        paired = "; differences are paired" if len(scores.systems) > 1 else ""
        notes.append(
            f"in brackets: {bootstrap.level:.0%} intervals of {bootstrap.resamples} resamples of {scores.units} {kind}{paired}"
        )
    for reason in dict.fromkeys(scores.left_out.values()):
        notes.append(f"left out: {reason} (--metrics {','.join(scores.left_out)} computes them all the same)")
    return notes


def _list(scores: Scores, data: Path) -> Table:
    from ambiseg.report.score_tables import score_list

    facts = {
        "images": str(scores.images),
        "missing": str(len(scores.missing)),
        "data": str(data),
        "split": scores.split,
        "dialect": scores.dialect.name,
        "classes": " ".join(scores.classes),
        "data digest": scores.data_digest,
        "settings digest": scores.settings_digest,
    }
    return score_list(_columns(scores), facts)
