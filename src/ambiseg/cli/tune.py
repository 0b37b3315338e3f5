"""``ambiseg tune``: search settings of a method by trial trainings, compared on the validation split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from ambiseg.atomic_write import working_in
from ambiseg.cli.console import Grid, command, next_commands, say, show, show_grid, show_json, warn
from ambiseg.cli.parsing import Shown, at_least_one, parse
from ambiseg.cli.train import OfPreset, TrainArguments, chosen_values, method_of
from ambiseg.engine.smoke import NOTE
from ambiseg.engine.tuning.space import (
    Choices,
    Numbers,
    Space,
    brief,
    default_space,
    parse_search,
    read_space,
)
from ambiseg.errors import AmbisegError
from ambiseg.methods import METHODS, method_info
from ambiseg.nested_settings import shown

if TYPE_CHECKING:
    from ambiseg.engine.tuning.study import Order, Trial

PICTURE = "search.png"
SHOWN = 10
"""Trials in the table that is printed, the best ones."""
OPTIMISTIC = (
    "the figure of the best trial is optimistic: it was chosen by it, on these validation images; measure a run with these"
    " settings on the test split"
)


@dataclass(frozen=True)
class TuneArguments:
    """Search settings of a method: many short trainings with other settings, compared on the validation split. The test
    split is not opened."""

    out: Annotated[Path | None, arg(help_behavior_hint="")] = None
    """Folder of the study to make."""
    data: Annotated[Path | None, Shown] = None
    """Data set with splits train and val: a folder or a packed file."""
    trials: int = 20
    """Trainings in all. The first has the settings of the preset; nine are drawn at random, the rest where the earlier
    ones were good (Optuna's TPE)."""
    epochs: Annotated[int | None, OfPreset] = None
    """Length of each trial: times that every image is seen."""
    updates: Annotated[int | None, OfPreset] = None
    """Length of each trial in steps of the optimiser."""
    minutes: Annotated[float | None, OfPreset] = None
    """Length of each trial in minutes."""
    metric: Annotated[str | None, arg(help_behavior_hint="(default: what validates the method)")] = None
    """What trials are compared by: a metric such as ged, or loss. A method that is validated by its loss is compared by
    ged where the search changes that loss."""
    search: UseAppendAction[tuple[str, ...]] = ()
    """A setting and its range in place of the default ones: NAME=LOW..HIGH, NAME=LOW..HIGH/STEP, NAME=log:LOW..HIGH or
    NAME=A|B|C; may be repeated. Names are those of 'ambiseg train METHOD --help-all'."""
    space: Annotated[Path | None, Shown] = None
    """YAML file of such ranges, 'NAME: RANGE' or 'NAME: [A, B, C]'; --search counts over it."""
    preset: Annotated[str | None, arg(help_behavior_hint="(default: recommended)")] = None
    """Named choice of settings that the trials share."""
    labels: Annotated[Literal["full", "single"] | None, OfPreset] = None
    """Labels used per training sample, as for 'ambiseg train'."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """A setting that all trials share, as NAME=VALUE."""
    config: Annotated[Path | None, Shown] = None
    """YAML file with settings that all trials share, as for 'ambiseg train'."""
    pruner: Literal["none", "median"] = "none"
    """median: end a trial whose best validation so far is worse than the median of the trials before it at the same
    share of training, once five are finished. It saves time, and may end settings that are good late, such as high
    learning rates."""
    keep: int = 1
    """Trials that keep their weights, the best ones; 0: none."""
    jobs: int = 1
    """Trials at a time, each in a process of its own with its share of the cores and one GPU; 0: one after the other in
    this process."""
    seed: int = 0
    """Seed of the search and of all trainings."""
    smoke: bool = False
    """Try the search in seconds: trials of a few steps of small networks, whose figures mean nothing."""
    list: bool = False
    """Show what would be searched, and train nothing."""
    overwrite: bool = False
    """Replace an existing study."""
    json: bool = False
    """Print the outcome as JSON."""


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with a study that was interrupted, or add trials to one."""

    resume: Path
    """The folder of the study."""
    trials: int | None = None
    """Make so many trials more than the study was asked for."""
    data: Path | None = None
    """Where the data are now, if they moved."""
    jobs: int = 1
    """Trials at a time."""
    json: bool = False
    """Print the outcome as JSON."""


def run(args: list[str]) -> int:
    """Search, or go on with a search."""
    if args[:1] in (["-h"], ["--help"]):
        print(overview())
        return 0
    if any(word == "--resume" or word.startswith("--resume=") for word in args):
        return _resume(parse(ResumeArguments, args, "ambiseg tune"))
    name, rest = method_of(args, "ambiseg tune METHOD --data DIR --out STUDY")
    return _tune(name, parse(TuneArguments, rest, f"ambiseg tune {name}"))


def overview() -> str:
    """The help page without a method."""
    return (
        "usage: ambiseg tune METHOD --data DIR --out STUDY [--trials N] [--minutes T | --updates N] [OPTIONS]\n"
        "       ambiseg tune --resume STUDY [--trials N] [--data DIR]\n\n"
        "Search settings of a method by trial trainings, compared on the validation split; go on with a search, or add\n"
        f"trials to it.\n\nmethods: {', '.join(METHODS)}\n\n"
        "'ambiseg tune METHOD --help' shows the options, 'ambiseg tune METHOD --list' what is searched."
    )


def _tune(name: str, arguments: TuneArguments) -> int:
    at_least_one(trials=arguments.trials)
    for option in ("keep", "jobs", "seed"):
        if getattr(arguments, option) < 0:
            raise AmbisegError(f"--{option} must not be negative, received {getattr(arguments, option)}")
    preset, values, texts = _asked(name, arguments)
    space = Space.of(texts, method_info(name), preset, values)
    if arguments.list:
        _list(space, texts)
        return 0
    if arguments.data is None or arguments.out is None:
        raise AmbisegError(f"missing --{'data' if arguments.data is None else 'out'} PATH")
    from ambiseg.engine.tuning.journal import optuna
    from ambiseg.engine.tuning.study import Order, begin, compared, digests
    from ambiseg.metrics import metric_info
    from ambiseg.networks.backbone import check_network

    optuna()
    for kind in space.ranges["backbone.kind"].ends() if "backbone.kind" in space.ranges else ():
        check_network(kind)
    metric = arguments.metric
    metric = metric if metric in (None, "loss") else metric_info(metric).name
    values, metric = compared(space.spec, preset, values, list(texts), metric)
    order = Order(
        method=name,
        data=str(arguments.data),
        values=values,
        space=texts,
        metric=metric,
        trials=arguments.trials,
        digests=digests(arguments.data),
        preset=preset,
        pruner=arguments.pruner,
        keep=arguments.keep,
        seed=arguments.seed,
        smoke=arguments.smoke,
    )
    begin(arguments.out, order, arguments.overwrite)
    return _search(arguments.out, order, arguments.jobs, arguments.json)


def _asked(name: str, arguments: TuneArguments) -> tuple[str, dict[str, Any], dict[str, str]]:
    """The preset, the values that all trials share, and the ranges that are searched.

    Raises:
        AmbisegError: options or files that cannot be understood, or contradict each other.
    """
    spec = method_info(name)
    shared = TrainArguments(
        out=Path(),
        preset=arguments.preset,
        labels=arguments.labels,
        epochs=arguments.epochs,
        updates=arguments.updates,
        minutes=arguments.minutes,
        seed=arguments.seed or None,
        set=arguments.set,
        config=arguments.config,
    )
    preset, values = chosen_values(spec, shared)
    texts = {} if arguments.space is None else read_space(arguments.space)
    texts |= parse_search(arguments.search)
    fixed = {word.partition("=")[0].strip() for word in arguments.set}
    for setting in texts:
        if setting in fixed:
            raise AmbisegError(f"{setting} is searched, and --set says its value: leave one of them out")
    return preset, values, texts or default_space(spec, preset, values)


def _list(space: Space, texts: dict[str, str]) -> None:
    grid = Grid()
    for column in ("name", "range", "first trial"):
        grid.column(column, whole=column == "name")
    start = space.start()
    for name, text in texts.items():
        value = start.get(name, "drawn")
        grid.row(name, text, value if isinstance(value, str) else shown(value))
    show_grid(grid)


def _resume(arguments: ResumeArguments) -> int:
    at_least_one(trials=arguments.trials)
    from ambiseg.engine.tuning.study import digests, load

    order = load(arguments.resume)
    if arguments.data is not None:
        order = replace(order, data=str(arguments.data))
    elif not Path(order.data).exists():
        raise AmbisegError(
            f"the data of the study are no longer at {order.data}: say where they are with --data"
        )
    if digests(order.data) != tuple(order.digests):
        raise AmbisegError(
            f"the training and validation images of {order.data} are not those of the study: give its --data"
        )
    if arguments.trials is not None:
        order = replace(order, trials=order.trials + arguments.trials)
    return _search(arguments.resume, order, arguments.jobs, arguments.json)


def _search(out: Path, order: Order, jobs: int, as_json: bool) -> int:
    from ambiseg.engine.tuning.study import Study

    with working_in(out, "the study", wait=5):
        try:
            study = Study(out, order, say)
            study.write()
            trials = study.carry_out(jobs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"go on with '{command('ambiseg', 'tune', '--resume', out)}'") from None
        _draw(out, order, trials)
    return _tell(out, order, trials, as_json)


def _draw(out: Path, order: Order, trials: list[Trial]) -> None:
    from ambiseg.report.files import save_png
    from ambiseg.report.tuning import draw_search

    ranges = order.searched().ranges
    figure = draw_search(
        [trial.value if trial.state in ("done", "pruned") else None for trial in trials],
        {name: [trial.settings.get(name, "") for trial in trials] for name in order.space},
        order.title,
        order.higher_is_better,
        logarithmic=[name for name, one in ranges.items() if isinstance(one, Numbers) and one.log],
        choices={name: one.words for name, one in ranges.items() if isinstance(one, Choices)},
        ended_early=[place for place, trial in enumerate(trials) if trial.state == "pruned"],
    )
    save_png(figure, out / PICTURE)


def _tell(out: Path, order: Order, trials: list[Trial], as_json: bool) -> int:
    """The table, the best settings, and what to type next.

    Raises:
        AmbisegError: no trial was trained to its end.
    """
    from ambiseg.engine.tuning.study import BEST, TRIALS, best_of, ranked

    best = best_of(order, trials)
    if best is None:
        reasons = [trial.error for trial in trials if trial.error]
        raise AmbisegError(
            f"no trial was trained to its end: {reasons[0] if reasons else 'all were ended early'}"
        )
    again = ["ambiseg", "train", order.method, "--data", order.data, "--out", "RUN", "--config", out / BEST]
    if as_json:
        entries = {"study": out, "metric": order.metric, "higher_is_better": order.higher_is_better}
        lists = {"best": asdict(best), "trials": [asdict(trial) for trial in trials]}
        show_json({**entries, **lists, "config": out / BEST, "next": command(*again)})
        return 0
    show(f"the best of {len(trials)} trials, by {order.title} on the validation split:")
    grid = Grid()
    for column in ("trial", order.title, *_short_names(list(order.space))):
        grid.column(column, right=column != "trial")
    for trial in ranked(order, trials)[:SHOWN]:
        grid.row(
            str(trial.number), f"{trial.value:.4f}", *(brief(trial.settings[name]) for name in order.space)
        )
    show_grid(grid)
    words = ", ".join(f"{name} {brief(text)}" for name, text in best.settings.items())
    show(f"best settings ({BEST}): {words}")
    first = trials[0]
    if first.number != best.number and first.value is not None and first.state == "done":
        show(f"trial 0, with the settings of the preset as far as their ranges hold them: {first.value:.4f}")
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        warn(f"{len(failed)} of {len(trials)} trials failed, the first one: {failed[0].error}")
    show(*([NOTE] if order.smoke else [OPTIMISTIC]))
    say(f"study: {out}")
    lines = [(command(*again), "train with the best settings; a longer budget may be given")]
    if order.keep:
        lines.append(
            (command("ambiseg", "evaluate", out / TRIALS / f"{best.number:04}"), "measure the best trial")
        )
    next_commands(*lines, (f"{command('ambiseg', 'tune', '--resume', out)} --trials 10", "ten trials more"))
    return 0


def _short_names(names: list[str]) -> list[str]:
    """Names without the beginnings that do not tell them apart.

    Example:
        >>> _short_names(["train.lr", "selection.weight", "probability.weight"])
        ['lr', 'selection.weight', 'probability.weight']
    """
    last = [name.rpartition(".")[2] for name in names]
    return [end if last.count(end) == 1 else name for name, end in zip(names, last, strict=True)]
