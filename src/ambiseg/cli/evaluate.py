"""``ambiseg evaluate``: a run against the annotations of a split, as a table, files in the run, or JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg.cli.console import Grid, command, next_commands, progress, say, show, show_grid, show_json, warn
from ambiseg.cli.engines import Spreading
from ambiseg.cli.parsing import Grouping, Measuring, Proposing, Shown, at_least_one, changed_options, parse
from ambiseg.engine.smoke import NOTE
from ambiseg.errors import AmbisegError, counted
from ambiseg.json_files import read_mapping

EVERY = "all"
"""Asks for every metric that fits."""

if TYPE_CHECKING:
    from ambiseg.engine.evaluate import Evaluation
    from ambiseg.engine.parallel.pieces import Engine
    from ambiseg.engine.run import Run
    from ambiseg.engine.run_folder import RunConfig
    from ambiseg.engine.volume_evaluation import VolumeEvaluation


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure a run against the annotations of a split."""

    run: Positional[Path]
    """Run folder that 'ambiseg train' wrote."""
    data: Path | None = None
    """Data set; the one of the run if left out."""
    split: str = "test"
    """Which split of it."""
    images: int | None = None
    """Measure so many images, evenly spread over the split; all if left out."""
    metrics: str = ""
    """Names or titles of metrics with commas between them, or "all"; the usual ones that fit if left out."""
    intervals: bool = False
    """Print the interval of each number (95 %, bootstrap over images); metrics.json always has them."""
    measuring: OmitArgPrefixes[Measuring] = field(default_factory=Measuring)
    grouping: OmitArgPrefixes[Grouping] = field(default_factory=Grouping)
    save: Annotated[bool, Shown] = True
    """Do not write metrics.json and per_image.csv into the run folder."""
    json: bool = False
    """Print the numbers as JSON."""
    proposing: OmitArgPrefixes[Proposing] = field(default_factory=Proposing)
    spreading: OmitArgPrefixes[Spreading] = field(default_factory=Spreading)


def run(args: list[str]) -> int:
    """Evaluate, save and print."""
    refuse_blanks(args)
    arguments = parse(EvaluateArguments, args, "ambiseg evaluate")
    arguments.proposing.check()
    at_least_one(images=arguments.images)
    from ambiseg.engine.run import load

    model = load(arguments.run)
    data = data_of(model.config, arguments.data)
    names = metric_names(arguments.metrics)
    with arguments.spreading.opened() as engine:
        evaluation = evaluate_run(
            model,
            data,
            arguments.split,
            arguments.proposing,
            names,
            arguments.grouping,
            arguments.images,
            arguments.measuring,
            lines=not arguments.json,
            engine=engine,
        )
    if arguments.save:
        save(evaluation, arguments.run)
    warn(NOTE if model.config.smoke else "")
    if arguments.json:
        show_json({"run": arguments.run, "data": data, **evaluation.to_dict()})
        return 0
    show_grid(evaluation_table(evaluation, arguments.intervals))
    if arguments.intervals:
        show(interval_note(evaluation))
    show(*facts(evaluation, data))
    written = ["metrics.json", "per_image.csv"]
    if evaluation.volumes is not None:
        show_grid(volume_table(evaluation.volumes, arguments.intervals))
        written.append("per_volume.csv")
    if arguments.save:
        say(f"written: {', '.join(str(arguments.run / name) for name in written)}")
    words = ["ambiseg", "report", arguments.run, *(["--data", data] if arguments.data else [])]
    words += ["--split", arguments.split] if arguments.split != "test" else []
    words += [*changed_options(arguments.measuring), *changed_options(arguments.grouping)]
    next_commands((command(*words), "one page with curves, numbers and example images"))
    return 0


def data_of(config: RunConfig, given: Path | None) -> Path:
    """The data set to use: the one given, else that of the run.

    Raises:
        AmbisegError: it does not exist.
    """
    from ambiseg.data.memory.dataset import IN_MEMORY
    from ambiseg.data.source import existing

    if given is not None:
        return existing(given)
    if config.data == IN_MEMORY:
        raise AmbisegError(
            "the run was trained on data in memory: give --data, such as what ambiseg.write_dataset wrote"
        )
    if not config.data or not Path(config.data).exists():
        raise AmbisegError(
            f"the run was trained on {config.data or 'unknown data'}, which is not there: give --data"
        )
    return Path(config.data)


def evaluate_run(
    model: Run,
    data: Path,
    split: str,
    proposing: Proposing | None = None,
    names: list[str] | None = None,
    grouping: Grouping | None = None,
    images: int | None = None,
    measuring: Measuring | None = None,
    lines: bool = True,
    engine: Engine | None = None,
) -> Evaluation:
    """Evaluate with `progress`; warnings about the probabilities go to stderr."""
    from ambiseg.cli.predict import settings_of, undetermined
    from ambiseg.data.source import SpreadSplit, open_split
    from ambiseg.engine.evaluate import evaluate
    from ambiseg.engine.postprocess import flow_remark
    from ambiseg.engine.tally import FEW_GROUPS, LEAST_GROUPS
    from ambiseg.engine.volume_evaluation import why_not_volumes

    chosen, measured = proposing or Proposing(), measuring or Measuring()
    settings, flow = settings_of(chosen, model)
    warn(flow_remark(model, flow))
    source = open_split(data, split)
    source = SpreadSplit(source, images) if images else source
    with progress("evaluating", lines) as update:
        evaluation = evaluate(
            model,
            source,
            split,
            settings,
            flow=flow,
            batch_size=chosen.batch_size,
            seed=chosen.seed,
            metrics=names,
            groups=(grouping or Grouping()).of(source.ids),
            dialect=measured.dialect,
            classes=measured.chosen(),
            progress=update,
            engine=engine,
        )
    warn(undetermined(evaluation.estimate["undetermined"], evaluation.images, chosen))
    warn(why_not_volumes(source))
    if evaluation.grouped and LEAST_GROUPS <= evaluation.units < FEW_GROUPS:
        warn(f"{evaluation.units} groups only: intervals are too narrow; take {FEW_GROUPS} groups or more")
    return evaluation


def save(evaluation: Evaluation, run_path: Path) -> None:
    """Write the numbers into the run folder; say so where those of another dialect or other classes stood."""
    from ambiseg.engine.run_folder import METRICS

    before = read_mapping(run_path / METRICS)
    evaluation.save(run_path)
    if before and _measured(before) != _measured({**before, **evaluation.to_dict()}):
        dialect, classes = _measured(before)
        named = f" and the classes {', '.join(map(str, classes))}" if classes else ""
        say(f"replaced: numbers of the dialect {dialect}{named}")


def _measured(entries: Mapping[str, Any]) -> tuple[Any, Any]:
    """Dialect and classes of a ``metrics.json``; older ones name neither."""
    return entries.get("dialect", "ambiseg"), entries.get("classes")


def evaluation_table(evaluation: Evaluation, intervals: bool = False) -> Grid:
    """Every metric over all masks, over those kept, and for as many draws from the annotations themselves; with
    ``intervals`` beside the first two."""
    from ambiseg.metrics.tables import metric_rows

    columns = evaluation.columns()
    table = Grid()
    table.column(f"metric [{evaluation.tag}]" if evaluation.tag else "metric")
    table.column("better")
    for title in columns:
        table.column(title, right=True)
    counts = (evaluation.n_all, evaluation.n_kept, evaluation.n_all)
    table.row("masks per image", "", *(f"{count:.2f}" for count in counts[: len(columns)]))
    for row in metric_rows(columns, evaluation.interval_columns() if intervals else None):
        texts = [
            f"{text}  {ends}" if ends else text
            for text, ends in zip(row.texts, row.interval_texts, strict=True)
        ]
        table.row(row.title, row.arrow, *texts)
    return table


def volume_table(volumes: VolumeEvaluation, intervals: bool = False) -> Grid:
    """Every figure of whole volumes, mean over volumes; with ``intervals`` beside it."""
    from ambiseg.engine.volume_evaluation import DIRECTIONS, TITLES
    from ambiseg.metrics import METRICS

    table, ends = Grid(), volumes.intervals() if intervals else {}
    table.column(f"{counted(len(volumes.ids), 'whole volume')}")
    table.column("better")
    table.column("kept masks", right=True)
    table.row("hypotheses per volume", "", f"{volumes.hypotheses.mean():.2f}")
    names = [name for name in volumes.values if name]
    for name, own in volumes.means().items():
        of = f" of {name}" if name and len(names) > 1 else ""
        for key, value in own.items():
            info = METRICS.get(key)
            title, better = (
                (TITLES[key], DIRECTIONS.get(key)) if info is None else (info.title, info.higher_is_better)
            )
            text = "–" if math.isnan(value) else f"{value:.4g}"
            if ends and not math.isnan(ends[name][key].low):
                text += f"  {ends[name][key].low:.4g} to {ends[name][key].high:.4g}"
            table.row(f"{title}{of}", "" if better is None else "↑" if better else "↓", text)
    return table


def interval_note(evaluation: Evaluation) -> str:
    """What the intervals are."""
    from ambiseg.engine.tally import LEAST_GROUPS

    bootstrap = evaluation.bootstrap
    if bootstrap is None:
        return ""
    if evaluation.grouped and evaluation.units < LEAST_GROUPS:
        groups = counted(evaluation.units, "group")
        return f"intervals: none, for {groups} cannot show how groups differ; {LEAST_GROUPS} are needed"
    kind = "groups of images" if evaluation.grouped else "images"
    return (
        f"intervals: {bootstrap.level:.0%} of {bootstrap.resamples} resamples of {evaluation.units} {kind};"
        " another training is not in them"
    )


def dialect_note(evaluation: Evaluation) -> str:
    """Whose conventions hold and which classes count, where they are not the usual ones."""
    if not evaluation.tag:
        return ""
    only = f" Classes: {', '.join(evaluation.classes)}." if evaluation.labels.only else ""
    return f"dialect {evaluation.dialect.name}. {evaluation.dialect.source}{only}"


def facts(evaluation: Evaluation, data: Path) -> tuple[str, ...]:
    """One line on what was measured, one on how far the annotators agree, and one on the dialect if it is not
    this library's."""
    found = evaluation.figures.annotators
    agreement = (
        "one annotation per image: agreement unknown"
        if math.isnan(found["spread"])
        else f"annotations among themselves: IoU {found['pairwise_iou']:.3f}, Dice {found['pairwise_dice']:.3f},"
        f" d(Y,Y) {found['spread']:.3f}, unanimous {found['unanimous']:.1%} of pixels"
    )
    return (
        f"{data}, split {evaluation.split}: {counted(evaluation.images, 'image')}, digest {evaluation.data_digest[:12]},"
        f" seed {evaluation.seed}, {1000 * evaluation.seconds_per_image:.1f} ms per image",
        agreement,
        *([dialect_note(evaluation)] if evaluation.tag else []),
    )


def refuse_blanks(
    args: Sequence[str], options: Sequence[str] = ("--metrics", "--classes", "--names")
) -> None:
    """Raise `AmbisegError` where a blank behind a comma made two arguments of a list."""
    for option, value in pairwise(args):
        if option in options and value.endswith(","):
            raise AmbisegError(
                f"{option} {value} ends with a comma: leave out blanks behind commas, or quote the list"
            )


def metric_names(text: str) -> list[str] | None:
    """The names of a list of names or titles with commas; None if there is none."""
    from ambiseg.metrics import metric_info
    from ambiseg.metrics.registry import listed

    names = listed(word.strip() for word in text.split(",") if word.strip())
    for name in names:
        if names != [EVERY]:
            metric_info(name)
    return names or None
