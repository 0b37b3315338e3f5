"""``ambiseg train``: all settings of training, method and network are options; ``--resume`` goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes

from ambiseg.cli.console import command, next_commands, say, show, show_json
from ambiseg.cli.parsing import parse
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods import METHODS, method_info
from ambiseg.networks.settings import UNetSettings

if TYPE_CHECKING:
    from ambiseg.engine.run_folder import RunConfig
    from ambiseg.engine.train import FitResult

S = TypeVar("S")


@dataclass(frozen=True)
class RunOptions:
    """Where the data are and where the run goes."""

    data: Path
    """Data set with splits train and val: a folder or a packed file."""
    out: Path
    """Run folder to make."""
    overwrite: bool = False
    """Replace an existing run folder."""
    quiet: bool = False
    """No progress line."""
    json: bool = False
    """Print the outcome as JSON."""


@dataclass(frozen=True)
class TrainArguments(Generic[S]):
    """Train a method on a data set into a run folder."""

    run: FlagCreatePairsOff[OmitArgPrefixes[RunOptions]]
    train: OmitArgPrefixes[TrainSettings]
    method: OmitArgPrefixes[S]
    backbone: UNetSettings


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with an interrupted run, with the settings that it was started with."""

    resume: Path
    """The run folder."""
    data: Path | None = None
    """Where the data are now, if they moved."""
    quiet: bool = False
    """No progress line."""
    json: bool = False
    """Print the outcome as JSON."""


def run(args: list[str]) -> int:
    """Train, or go on with a run."""
    if args[:1] in (["-h"], ["--help"]):
        print(overview())
        return 0
    if any(word == "--resume" or word.startswith("--resume=") for word in args):
        return _resume(args)
    name = next((word for word in args if word in METHODS), None)
    if name is None:
        if args and not args[0].startswith("-"):
            method_info(args[0])
        raise AmbisegError(
            f"name a method first: ambiseg train METHOD --data DIR --out RUN ({', '.join(METHODS)})"
        )
    rest = list(args)
    rest.remove(name)
    return _train(name, rest)


def overview() -> str:
    """The help page without a method."""
    width = max(map(len, METHODS))
    lines = "\n".join(f"  {name:<{width}}  {method.summary}" for name, method in METHODS.items())
    return (
        "usage: ambiseg train METHOD --data DIR --out RUN [--epochs N | --minutes T] [OPTIONS]\n"
        "       ambiseg train --resume RUN [--data DIR]\n\n"
        "Train a method on a data set into a run folder, or go on with an interrupted run.\n\n"
        f"methods:\n{lines}\n\n"
        "'ambiseg train METHOD --help' shows all settings."
    )


def _train(name: str, args: list[str]) -> int:
    kind: Any = TrainArguments[method_info(name).settings]  # type: ignore[misc]
    arguments: TrainArguments[Any] = parse(kind, args, f"ambiseg train {name}", pairs=True)
    where = arguments.run
    problems = arguments.train.problems()
    if problems:
        raise AmbisegError("; ".join(problems))
    from ambiseg.engine.train import fit

    result = fit(
        name,
        where.data,
        where.out,
        train=arguments.train,
        backbone=arguments.backbone,
        settings=arguments.method,
        overwrite=where.overwrite,
        quiet=where.quiet,
    )
    return _tell(result, where.json)


def _resume(args: list[str]) -> int:
    arguments = parse(ResumeArguments, args, "ambiseg train")
    from ambiseg.engine.train import resume

    return _tell(resume(arguments.resume, data=arguments.data, quiet=arguments.quiet), arguments.json)


def _tell(result: FitResult, as_json: bool) -> int:
    """What came out, where it is, and what to type next."""
    if result.interrupted:
        raise KeyboardInterrupt(f"go on with '{command('ambiseg', 'train', '--resume', result.run)}'")
    if as_json:
        show_json(dataclasses.asdict(result))
        return 0
    show(summary(result))
    say(f"run folder: {result.run}")
    next_commands(
        (command("ambiseg", "evaluate", result.run), "measure it on the test split"),
        (
            f"{command('ambiseg', 'predict', result.run)} IMAGE... --out DIR",
            "masks and probabilities of images",
        ),
        (command("ambiseg", "report", result.run), "one page about it"),
    )
    return 0


def summary(result: FitResult) -> str:
    """One line about a finished training."""
    from ambiseg.engine.callbacks import clock
    from ambiseg.metrics import METRICS

    best = "none" if result.best is None else f"{result.best:.4f}"
    title = METRICS[result.metric].title if result.metric in METRICS else result.metric
    return f"trained {result.steps} steps in {clock(result.seconds)}, best validation {title} {best}"


def train_command(config: RunConfig, out: str | Path) -> str:
    """The command line that repeats a run."""
    words: list[object] = ["ambiseg", "train", config.method, "--data", config.data, "--out", out]
    for prefix, settings in (("", config.train), ("", config.settings), ("backbone.", config.backbone)):
        words += options_of(settings, prefix)
    return command(*words)


def options_of(settings: Any, prefix: str = "") -> Iterator[object]:
    """Options for the values that are not the defaults."""
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            yield f"--{prefix}{name}" if value else f"--{prefix}no-{name}"
        else:
            yield from (f"--{prefix}{name}", value)
