"""``ambiseg report``: one HTML page about a run: curve, numbers, its best, median and worst images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg.cli.console import command, say, show
from ambiseg.cli.evaluate import data_of, dialect_note, evaluate_run, interval_note
from ambiseg.cli.parsing import Grouping, Measuring, Proposing, changed_options, parse
from ambiseg.cli.predict import settings_of
from ambiseg.cli.train import train_command
from ambiseg.engine.smoke import NOTE
from ambiseg.errors import AmbisegError, counted
from ambiseg.json_files import read_mapping
from ambiseg.nested_settings import fits

if TYPE_CHECKING:
    import torch

    from ambiseg.data.sample import Sample
    from ambiseg.engine.evaluate import Evaluation
    from ambiseg.engine.run import Run
    from ambiseg.maskset import MaskSet
    from ambiseg.report.page import CaseGroup

CASE_METRIC = "hm_iou_unique"
"""The metric by which images are best or worst."""
MODE_METRICS = ("brier_skill_score", "total_variation")
"""What is printed of the probabilities of modes beside their scatter."""
CASES = 3
"""Images in each group."""
SAMPLES_OF_EXPERTS = 24
"""Samples of all experts of a mixture together that its picture shows; at least one of each, at most six."""


@dataclass(frozen=True)
class ReportArguments:
    """Write one page about a run: training curve, metrics, probabilities, example images."""

    run: Positional[Path]
    """Run folder that 'ambiseg train' wrote."""
    data: Path | None = None
    """Data set; the one of the run if left out."""
    split: str = "test"
    """Which split of it."""
    out: Path | None = None
    """Page to write; report.html in the run folder if left out."""
    measuring: OmitArgPrefixes[Measuring] = field(default_factory=Measuring)
    grouping: OmitArgPrefixes[Grouping] = field(default_factory=Grouping)
    proposing: OmitArgPrefixes[Proposing] = field(default_factory=Proposing)


def run(args: list[str]) -> int:
    """Evaluate the run and write the page."""
    arguments = parse(ReportArguments, args, "ambiseg report")
    proposing = arguments.proposing
    proposing.check()
    if arguments.out is not None:
        from ambiseg.report.files import check_page

        check_page(arguments.out)
    from ambiseg.engine.curve import training_curve
    from ambiseg.engine.run import load
    from ambiseg.engine.run_folder import METRICS

    model = load(arguments.run)
    facts_of_training(arguments.run), training_curve(arguments.run)  # named before anything is measured
    data = data_of(model.config, arguments.data)
    evaluation = evaluate_run(
        model,
        data,
        arguments.split,
        proposing,
        grouping=arguments.grouping,
        measuring=arguments.measuring,
    )
    if not (arguments.run / METRICS).exists():
        evaluation.save(arguments.run)
        say(f"written: {arguments.run / METRICS}")
    page = build_report(
        arguments.run,
        model,
        data,
        evaluation,
        proposing,
        arguments.out,
        arguments.grouping,
        arguments.measuring,
    )
    show(f"{page}")
    return 0


def build_report(
    run_path: Path,
    model: Run,
    data: Path,
    evaluation: Evaluation,
    proposing: Proposing | None = None,
    out: Path | None = None,
    grouping: Grouping | None = None,
    measuring: Measuring | None = None,
) -> Path:
    """Write the page about a run that has been evaluated on ``data`` and return where it is."""
    from ambiseg import __version__
    from ambiseg.data.source import open_split
    from ambiseg.engine.curve import training_curve
    from ambiseg.engine.run import MIXTURE_METHOD
    from ambiseg.engine.run_folder import REPORT
    from ambiseg.metrics.tables import MetricRow, metric_rows
    from ambiseg.report.page import ReportContent, write_report

    config, chosen = model.config, proposing or Proposing()
    asked = (*changed_options(measuring or Measuring()), *changed_options(grouping or Grouping()))
    where = [run_path, "--data", data, "--split", evaluation.split, *asked]
    name = open_split(data, evaluation.split).info.name
    fitted, drawn = model.fitted, None
    if fitted is not None and fitted.curve:
        iou = fitted.values.duplicate_iou
        rows = [row for row in fitted.curve if row["step"] == "filter" and row["duplicate_iou"] == iou]
        drawn = (rows, fitted.spread)
    content = ReportContent(
        title=f"{config.method} on {name}",
        subtitle=f"{run_path}, {counted(evaluation.images, 'image')} of the split {evaluation.split}"
        + (f"; {NOTE}" if config.smoke else ""),
        summary=summary_of(run_path, model, data, evaluation),
        curve=training_curve(run_path),
        metrics=metric_rows(evaluation.columns(), evaluation.interval_columns()),
        columns=list(evaluation.columns()),
        metric_tag=evaluation.tag,
        metric_note=". ".join(
            filter(None, (dialect_note(evaluation).rstrip("."), interval_note(evaluation)))
        ),
        reliability=(evaluation.figures.estimated, evaluation.figures.true),
        mode_metrics=[MetricRow.of(n, evaluation.kept[n]) for n in MODE_METRICS if n in evaluation.kept],
        pixels=evaluation.figures.pixels,
        coverage=evaluation.figures.coverage,
        filter=drawn,
        filter_note="" if fitted is None else fitted.message,
        groups=case_groups(model, data, evaluation, chosen),
        commands=[
            *(
                []
                if config.method == MIXTURE_METHOD or not config.data  # made by `save_run`
                else [("Train it again", train_command(config, run_path))]
            ),
            ("Measure it again", command("ambiseg", "evaluate", *where, *changed_options(chosen))),
            ("Draw this page again", command("ambiseg", "report", *where, *changed_options(chosen))),
        ],
        channels=config.channels,
        footer=f"ambiseg {__version__}",
    )
    page = out or run_path / REPORT
    write_report(content, page)
    return page


def summary_of(run_path: Path, model: Run, data: Path, evaluation: Evaluation) -> list[tuple[str, object]]:
    """Facts about a run: what it is, how it was trained, what it was measured on."""
    config = model.config
    facts: list[tuple[str, object]] = [
        ("method", config.method),
        ("labels", f"{config.train.seen_labels}, classes {', '.join(config.labels.names)}"),
        ("image channels", ", ".join(config.channels) or config.in_channels),
    ]
    return [
        *facts,
        *facts_of_training(run_path),
        ("seed of training", config.train.seed),
        ("augmentation", config.augmentation or "not recorded"),
        ("data", f"{data}, split {evaluation.split}"),
        ("images", evaluation.images),
        ("digest of the split", evaluation.data_digest[:16]),
        ("dialect of metrics", evaluation.dialect.name),
        ("evaluated classes", ", ".join(evaluation.classes)),
        ("masks per image", f"{evaluation.n_all:g} predicted, {evaluation.n_kept:g} kept"),
        ("time per image", f"{1000 * evaluation.seconds_per_image:.1f} ms ({model.hardware.device})"),
    ]


def facts_of_training(run_path: Path) -> list[tuple[str, object]]:
    """What ``training.json`` tells, nothing where there is none.

    Raises:
        AmbisegError: it holds something else.
    """
    from ambiseg.engine.callbacks import clock
    from ambiseg.engine.run_folder import TRAINING

    training = read_mapping(run_path / TRAINING)
    if not training:
        return []
    parameters, steps, seconds = (training.get(name, 0) for name in ("parameters", "steps", "seconds"))
    if not (fits(parameters, int) and fits(steps, int) and fits(seconds, float) and 0 <= seconds < 1e9):
        raise AmbisegError(
            f"{run_path / TRAINING} holds no numbers of parameters, steps and seconds: restore it, or remove it"
        )
    return [("parameters", f"{parameters:,}"), ("training", f"{steps} steps in {clock(seconds)}")]


def case_groups(model: Run, data: Path, evaluation: Evaluation, proposing: Proposing) -> list[CaseGroup]:
    """The best, the median and the worst images, predicted once more as a user would see them."""
    import numpy as np
    import torch

    from ambiseg.data.batches import annotations_of
    from ambiseg.data.source import open_split
    from ambiseg.metrics import METRICS
    from ambiseg.report.page import Case, CaseGroup

    values = evaluation.per_image.get(CASE_METRIC, np.zeros(0))
    order = [int(i) for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    source, title = open_split(data, evaluation.split), METRICS[CASE_METRIC].title
    settings, flow = settings_of(proposing, model)
    places = {name: i for i, name in enumerate(source.ids)}
    groups = []
    for name, chosen in pick(order).items():
        cases: list[Case] = []
        for i in chosen:
            sample = source[places[evaluation.ids[i]]]
            annotations = annotations_of(sample, model.config.labels)
            generator = torch.Generator(model.hardware.device).manual_seed(proposing.seed)
            predictions = model.predict(sample.image, settings, generator, flow)
            experts = None if cases else expert_samples(model, sample, generator)
            cases.append(
                Case(
                    sample.id,
                    float(values[i]),
                    sample.image,
                    annotations.merge_identical(),
                    predictions,
                    experts,
                )
            )
        groups.append(CaseGroup(name, cases, title))
    return groups


def expert_samples(model: Run, sample: Sample, generator: torch.Generator) -> tuple[MaskSet, int] | None:
    """Samples of an image expert by expert, and how many experts there are; None where the method has
    none."""
    from ambiseg.engine.run import Run

    found = model.model.by_expert()
    if found is None:
        return None
    each = max(1, min(6, SAMPLES_OF_EXPERTS // found.experts)) if found.stochastic else 1
    run = Run(model.config, found.model, model.hardware)
    return run.propose([sample.image], found.experts * each, generator), found.experts


def pick(order: list[int]) -> dict[str, list[int]]:
    """Best, median and worst of a list in rising order, no image twice; few images form one group.

    Example:
        >>> pick(list(range(100)))
        {'Best': [99, 98, 97], 'Median': [49, 50, 51], 'Worst': [0, 1, 2]}
        >>> pick([4, 2])
        {'Images': [4, 2]}
    """
    if len(order) < 3 * CASES:
        return {"Images": order} if order else {}
    middle = len(order) // 2 - CASES // 2
    return {
        "Best": order[: -CASES - 1 : -1],
        "Median": order[middle : middle + CASES],
        "Worst": order[:CASES],
    }
