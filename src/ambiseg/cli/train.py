"""``ambiseg train``: a preset and what a user decides are options, every setting is within reach;
``--resume`` goes on."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from ambiseg.cli.console import Grid, command, next_commands, say, show, show_grid, show_json
from ambiseg.cli.parsing import Shown, parse
from ambiseg.engine.parallel.processes import Launch, check_said, is_child
from ambiseg.engine.presets import joined, placed, resolve
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.smoke import NOTE, shrunk
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.methods import METHODS, method_info
from ambiseg.methods.spec import RECOMMENDED, MethodSpec
from ambiseg.nested_settings import (
    check_name,
    differences,
    mapping,
    options_of,
    shown,
)
from ambiseg.plain_yaml import read_yaml_file
from ambiseg.version import written_by

if TYPE_CHECKING:
    from ambiseg.engine.run_folder import RunConfig
    from ambiseg.engine.training_loop import FitResult


OfPreset = arg(help_behavior_hint="(default: the preset's)")
"""Marks an option whose default is that of the preset."""


@dataclass(frozen=True)
class TrainArguments:
    """Train a method on a data set into a run folder. --help-all lists every setting."""

    out: Path
    """Run folder to make."""
    data: Annotated[Path | None, Shown] = None
    """Data set with splits train and val: a folder or a packed file."""
    preset: Annotated[str | None, arg(help_behavior_hint="(default: recommended)")] = None
    """Named choice of settings; 'ambiseg methods METHOD' lists them."""
    labels: Annotated[Literal["full", "single"] | None, OfPreset] = None
    """Labels used per training sample: all annotations with their weights (full), or one drawn at random by
    weight (single)."""
    epochs: Annotated[int | None, OfPreset] = None
    """Times that every image is seen; 100 where no length is given."""
    updates: Annotated[int | None, OfPreset] = None
    """Steps of the optimiser, in place of epochs."""
    minutes: Annotated[float | None, OfPreset] = None
    """Wall-clock budget of the whole command, in place of epochs."""
    masks: Annotated[int | None, OfPreset] = None
    """Masks for an image: proposals, heads, members or samples, as the method has them."""
    batch_size: Annotated[int | None, OfPreset] = None
    """Images in a step, in each process."""
    lr: Annotated[float | None, OfPreset] = None
    """Peak learning rate."""
    seed: Annotated[int | None, OfPreset] = None
    """Seed of initialisation, order, label draws and augmentation."""
    augment: Annotated[tuple[str, ...], OfPreset] = ()
    """Kinds of augmentation, such as flip and quarter-turns; auto: those that dataset.yaml allows, and where it
    is silent those that pass a test on validation images."""
    no_augment: bool = False
    """No augmentation."""
    devices: Annotated[int | None, OfPreset] = None
    """Processes (CPU) or GPUs, on each machine; a launcher says it itself."""
    nodes: Annotated[int | None, OfPreset] = None
    """Machines, on which torchrun or srun starts this command."""
    node_timeout: Annotated[float | None, OfPreset] = None
    """Minutes to wait for the processes on all machines."""
    precision: Annotated[Literal["auto", "32", "tf32", "bf16"] | None, OfPreset] = None
    """Number format of the networks; auto: what is fastest here, measured before a longer training."""
    channels_last: Annotated[Literal["auto", "yes", "no"] | None, OfPreset] = None
    """Memory order of images and convolutions; auto: what is fastest here."""
    threads: Annotated[int | None, OfPreset] = None
    """Threads of the CPU; where none are given, as many as PyTorch takes, or fewer where that is faster."""
    compile: Annotated[Literal["no", "yes"] | None, OfPreset] = None
    """Whether torch.compile compiles the network, which takes a minute or more at the first steps."""
    init: Annotated[str | None, Shown] = None
    """Run folder whose weights to start from: of the same method and sizes, or of one that the method can
    use."""
    set: UseAppendAction[tuple[str, ...]] = ()
    """Any setting as NAME=VALUE, such as backbone.width=64 or train.ema=0; --help-all lists the names."""
    config: Annotated[Path | None, Shown] = None
    """YAML file with preset, train, backbone and settings, such as the config.yaml of a run; options count
    over it."""
    smoke: bool = False
    """Try the settings in seconds: a few steps of a small network, without --data on tiny simulated data of
    the layout that the preset is made for; the figures mean nothing."""
    overwrite: bool = False
    """Replace an existing run folder."""
    quiet: bool = False
    """No progress line."""
    json: bool = False
    """Print the outcome as JSON."""


CONFIG_KEYS = (
    *("preset", "train", "backbone", "settings", "ambiseg", "method", "in_channels", "channels", "labels"),
    *("normalization", "images", "data", "data_digest", "augmentation", "hardware", "smoke"),
)
"""What the file of ``--config`` may say; of a run's ``config.yaml`` the rest is left to the new run."""
TRAIN_OPTIONS = (
    *(
        "labels",
        "epochs",
        "updates",
        "minutes",
        "batch_size",
        "lr",
        "seed",
        "devices",
        "nodes",
        "node_timeout",
        "init",
    ),
    *("precision", "channels_last", "threads", "compile"),
)
"""Options that are values of `TrainSettings` by the same name."""


@dataclass(frozen=True)
class ResumeArguments:
    """Go on with an interrupted run, with the settings that it was started with; or train a run longer."""

    resume: Path
    """The run folder."""
    data: Path | None = None
    """Where the data are now, if they moved."""
    epochs: int | None = None
    """Train so many epochs longer."""
    updates: int | None = None
    """Train so many steps longer."""
    minutes: float | None = None
    """Train so many minutes longer."""
    devices: int | None = None
    """Processes (CPU) or GPUs on each machine, where these are others now; a step sees as many images as before."""
    nodes: int | None = None
    """Machines, on which torchrun or srun starts this command."""
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
    if args and not any(word in METHODS for word in args) and (Path(args[0]) / "config.yaml").is_file():
        raise AmbisegError(
            f"{args[0]} is a run folder: go on with it by"
            f" '{command('ambiseg', 'train', '--resume', args[0])}', or name a method first"
        )
    name, rest = method_of(args, "ambiseg train METHOD --data DIR --out RUN")
    return _train(name, rest)


def method_of(args: Sequence[str], usage: str) -> tuple[str, list[str]]:
    """The method among the words of a command, and the other words.

    Raises:
        AmbisegError: none is named; the message shows the ``usage``.
    """
    name = next((word for word in args if word in METHODS), None)
    if name is None:
        if args and not args[0].startswith("-"):
            method_info(args[0])
        raise AmbisegError(f"name a method first: {usage} ({', '.join(METHODS)})")
    rest = list(args)
    rest.remove(name)
    return name, rest


def overview() -> str:
    """The help page without a method."""
    width = max(map(len, METHODS))
    lines = "\n".join(f"  {name:<{width}}  {method.summary}" for name, method in METHODS.items())
    return (
        "usage: ambiseg train METHOD --data DIR --out RUN [--preset NAME] [--epochs N | --minutes T] [OPTIONS]\n"
        "       ambiseg train --resume RUN [--data DIR] [--epochs N | --updates N | --minutes T]\n\n"
        "Train a method on a data set into a run folder, go on with an interrupted run, or train a run longer.\n\n"
        f"methods:\n{lines}\n\n"
        "'ambiseg train METHOD --help' shows the options, --help-all every setting."
    )


def _train(name: str, args: list[str]) -> int:
    began = time.monotonic()
    spec = method_info(name)
    if "--help-all" in args:
        show_grid(all_settings(spec))
        show("Values in parentheses count once the setting under 'only with' is chosen.")
        return 0
    arguments = parse(TrainArguments, args, f"ambiseg train {name}")
    _begin(arguments.devices, arguments.nodes)
    preset, said = chosen_values(spec, arguments)
    try:
        train, backbone, settings = resolve(spec, preset, said["train"], said["backbone"], said["settings"])
    except UnknownNameError as error:
        if arguments.config is None:
            raise
        version = _read_config(arguments.config, spec).get("ambiseg")
        raise AmbisegError(f"{error}; {arguments.config}: {written_by(version)}") from error
    data = _data(spec, preset, arguments)
    from ambiseg.engine.train import fit

    result = fit(
        name,
        data,
        arguments.out,
        preset=preset,
        train=train,
        backbone=backbone,
        settings=settings,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
        smoke=arguments.smoke,
        began=began,
    )
    return _tell(result, arguments.json)


def _begin(devices: int | None, nodes: int | None) -> None:
    """Compare options with a launcher, and let PyTorch log nothing of its own where there is one: our errors say it."""
    check_said(devices, nodes)
    if Launch.found() is not None:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # read when torch is imported


def _data(spec: MethodSpec, preset: str, arguments: TrainArguments) -> Path:
    """The data set to train on; for a smoke run one is made beside the run where none is given.

    Raises:
        AmbisegError: none is given, or it cannot be made.
    """
    layout = spec.preset(preset).data
    if arguments.data is not None:
        return arguments.data
    if not arguments.smoke:
        raise AmbisegError("missing --data PATH") if layout is None else layout.missing()
    from ambiseg.data.layouts import LIDC
    from ambiseg.data.simulators.layouts import simulate_layout

    chosen = layout or LIDC
    return simulate_layout(chosen, arguments.out.parent / f"smoke-{chosen.name}.h5")


def chosen_values(spec: MethodSpec, arguments: TrainArguments) -> tuple[str, dict[str, Any]]:
    """The preset, and what file and options say over it, as mappings of train, backbone and settings.

    Raises:
        AmbisegError: a file that cannot be read, or options that contradict one another.
    """
    preset = arguments.preset or RECOMMENDED
    said: dict[str, Any] = {"train": {}, "backbone": {}, "settings": {}}
    if arguments.config is not None:
        stored = _read_config(arguments.config, spec)
        preset = stored.get("preset", preset)
        if arguments.preset not in (None, preset):
            raise AmbisegError(
                f"--preset {arguments.preset} contradicts 'preset: {preset}' in {arguments.config}: leave one of them out"
            )
        said = {part: dict(mapping(stored.get(part), f"{arguments.config}: {part}")) for part in said}
    options = placed(spec, arguments.set)
    for name in TRAIN_OPTIONS:
        value = getattr(arguments, name)
        if value is not None:
            _say(options["train"], name, value, f"--{name.replace('_', '-')}", f"train.{name}")
    augment = _augment(arguments)
    if augment is not None:
        _say(options["train"], "augment", augment, "--augment", "train.augment")
    if arguments.masks is not None:
        _say(options["settings"], spec.masks, arguments.masks, "--masks", spec.masks)
    return preset, joined(said, options)


def _augment(arguments: TrainArguments) -> str | bool | list[str] | None:
    """The value of `TrainSettings.augment` that the two options stand for; None without them."""
    kinds: list[str] = list(arguments.augment)
    if kinds and arguments.no_augment:
        raise AmbisegError(f"--augment {' '.join(kinds)} contradicts --no-augment: give one of them")
    if "auto" in kinds:
        if len(kinds) > 1:
            raise AmbisegError(f"--augment {' '.join(kinds)}: give auto alone, or kinds without auto")
        return "auto"
    return False if arguments.no_augment else kinds or None


def _say(values: dict[str, Any], name: str, value: Any, option: str, path: str) -> None:
    if name in values and values[name] != value:
        raise AmbisegError(f"{option} {value} contradicts --set {path}={values[name]}: give one of them")
    values[name] = value


def _read_config(path: Path, spec: MethodSpec) -> dict[str, Any]:
    stored = mapping(read_yaml_file(path), str(path))
    for key in stored:
        check_name(f"key of {path}", key, CONFIG_KEYS)
    if stored.get("method", spec.name) != spec.name:
        raise AmbisegError(f"{path} is of the method {stored['method']}, not {spec.name}: train that one")
    return dict(stored)


def all_settings(spec: MethodSpec) -> Grid:
    """Every setting with its value under the recommended preset and what it does."""
    train, backbone, settings = resolve(spec)
    table = Grid(f"settings of {spec.name}, for --set NAME=VALUE and --config")
    for column in ("name", "only with", "value", "recommended", "meaning"):
        table.column(column, whole=column == "name")
    for part, prefix in ((settings, ""), (backbone, "backbone."), (train, "train.")):
        for option in options_of(type(part), part, prefix):
            value = "required" if option.required else shown(option.default)
            value = value if option.active or option.required else f"({value})"
            table.row(option.path, option.owner, option.kind, value, option.help)
    return table


def _resume(args: list[str]) -> int:
    began = time.monotonic()
    if args[0] in METHODS:
        raise AmbisegError(f"--resume goes on with the method of the run: leave {args[0]} out")
    arguments = parse(ResumeArguments, args, "ambiseg train")
    _begin(arguments.devices, arguments.nodes)
    from ambiseg.engine.train import resume

    result = resume(
        arguments.resume,
        data=arguments.data,
        epochs=arguments.epochs,
        updates=arguments.updates,
        minutes=arguments.minutes,
        devices=arguments.devices,
        nodes=arguments.nodes,
        quiet=arguments.quiet,
        began=began,
    )
    return _tell(result, arguments.json)


def _tell(result: FitResult, as_json: bool) -> int:
    """What came out, where it is, and what to type next; the first process says it."""
    if is_child():
        return 130 if result.interrupted else 0
    if result.interrupted:
        raise KeyboardInterrupt(f"go on with '{command('ambiseg', 'train', '--resume', result.run)}'")
    if as_json:
        show_json(dataclasses.asdict(result))
        return 0
    from ambiseg.engine.run_folder import RunConfig

    note = NOTE if RunConfig.load(result.run).smoke else ""
    if result.new_steps == 0:
        show(f"{result.run} is finished: train it longer with --minutes, --updates or --epochs")
    show(summary(result), *(line for line in (result.filter, note) if line))
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

    best = "none" if result.value is None else f"{result.value:.4f}"
    title = METRICS[result.metric].title if result.metric in METRICS else result.metric.replace("_", " ")
    steps = f"{result.steps} steps"
    if result.new_steps < result.steps:
        steps = f"{result.new_steps} more steps, {result.steps} in all"
    return f"trained {steps} in {clock(result.seconds)}, {result.kept} validation {title} {best}"


def train_command(config: RunConfig, out: str | Path) -> str:
    """The command line that repeats a run."""
    from ambiseg.data.memory.dataset import IN_MEMORY

    data = "DATA" if config.data == IN_MEMORY else config.data
    words: list[object] = ["ambiseg", "train", config.method, "--data", data, "--out", out]
    if config.preset != RECOMMENDED:
        words += ["--preset", config.preset]
    if config.smoke:
        words.append("--smoke")
    labels = {"labels": config.train.labels}
    train, backbone, settings = resolve(method_info(config.method), config.preset, labels)
    if config.smoke:
        train, backbone, settings = shrunk(train, backbone, settings)
    if config.train.labels != TrainSettings().labels:
        words += ["--labels", config.train.labels]
    for prefix, ours, theirs in (
        ("train.", config.train, train),
        ("backbone.", config.backbone, backbone),
        ("", config.settings, settings),
    ):
        for path, value in differences(ours, theirs).items():
            words += ["--set", f"{prefix}{path}={shown(value)}"]
    return command(*words)
