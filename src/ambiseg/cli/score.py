"""``ambiseg score``: masks of any program against the annotations of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from ambiseg.atomic_write import check_folder
from ambiseg.cli.console import command, progress, say, show_json, warn
from ambiseg.cli.engines import Spreading
from ambiseg.cli.evaluate import metric_names, refuse_blanks
from ambiseg.cli.parsing import Grouping, Measuring, parse
from ambiseg.errors import AmbisegError


@dataclass(frozen=True)
class ScoreArguments:
    """Measure masks of any program against the annotations of a split.

    PREDICTIONS are a folder of 'ambiseg predict', a folder with a folder of masks for each image, or one array (.npy,
    .npz, .h5) of shape (images, samples, height, width), or (images, samples, classes, height, width) with
    probabilities. Several are measured side by side."""

    predictions: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="PREDICTIONS...", help_behavior_hint="(required)")
    ]
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
    """Names or titles of metrics with commas between them, or "all"; the usual ones that fit if left out."""
    measuring: OmitArgPrefixes[Measuring] = field(default_factory=Measuring)
    grouping: OmitArgPrefixes[Grouping] = field(default_factory=Grouping)
    allow_missing: bool = False
    """Leave out images of which a system has no prediction, for all systems."""
    format: Literal["text", "markdown", "csv", "latex", "html"] = "text"
    """Form of the table on stdout; csv has a row for each system and metric, with six decimals; html is a page."""
    out: Path | None = None
    """Folder to make with score.json, score.md, score.html and per_image.csv."""
    overwrite: bool = False
    """Replace an earlier folder of scores."""
    json: bool = False
    """Print the numbers as JSON."""
    spreading: OmitArgPrefixes[Spreading] = field(default_factory=Spreading)


def run(args: list[str]) -> int:
    """Score, save and print."""
    refuse_blanks(args)
    arguments = parse(ScoreArguments, args, "ambiseg score")
    chosen = metric_names(arguments.metrics)
    if not arguments.predictions:
        raise AmbisegError("nothing to measure: name a folder or a file of predictions")
    if arguments.json and arguments.format != "text":
        raise AmbisegError("--json and --format both say what is printed: give one of them")
    inputs = [arguments.data, *arguments.predictions]
    if arguments.out is not None:
        check_folder(arguments.out, arguments.overwrite, "score", inputs)
    from ambiseg.cli.score_output import list_of, page_of, show_text, table_of
    from ambiseg.data.source import open_split
    from ambiseg.engine.score import score_files
    from ambiseg.engine.tally import FEW_GROUPS, LEAST_GROUPS
    from ambiseg.predictions import read_ids

    source = open_split(arguments.data, arguments.split)
    with arguments.spreading.opened() as engine, progress("scoring") as update:
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
            engine=engine,
        )
    if LEAST_GROUPS <= scores.units < min(FEW_GROUPS, scores.images):
        few = f"{scores.units} groups only: intervals are too narrow; take {FEW_GROUPS} groups or more"
        scores = replace(scores, remarks=(*scores.remarks, few))
    for remark in scores.remarks:
        warn(remark)
    table, repeat = table_of(scores, arguments.data), command("ambiseg", "score", *args)
    if arguments.out is not None:
        texts = {"score.md": table.markdown(), "score.html": page_of(scores, arguments.data, repeat)}
        scores.save(arguments.out, arguments.overwrite, inputs, texts)
    if arguments.json:
        show_json({"data": arguments.data, **scores.to_dict()})
    elif arguments.format == "text":
        show_text(replace(table, notes=tuple(note for note in table.notes if note not in scores.remarks)))
    else:
        forms: dict[str, Callable[[], str]] = {
            "markdown": table.markdown,
            "latex": table.latex,
            "csv": lambda: list_of(scores, arguments.data).csv(),
            "html": lambda: page_of(scores, arguments.data, repeat),
        }
        print(forms[arguments.format](), end="")
    if arguments.out is not None:
        say(f"written: {arguments.out} with score.json, score.md, score.html and per_image.csv")
    return 0
