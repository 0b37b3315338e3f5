"""``ambiseg demo``: the whole way from nothing to a report with one command, on simulated wildfires.

What a stage made is kept: an interrupted demo goes on where it stopped, and data that are there are used
again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ambiseg import owned_files
from ambiseg.cli.console import command, next_commands, say, show, show_grid
from ambiseg.cli.data import write_scenes
from ambiseg.cli.parsing import parse
from ambiseg.cli.train import summary
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping
from ambiseg.networks.settings import UNetSettings

METHOD = "mode-proposals"
BACKBONE = UNetSettings(width=16)
SETTINGS: dict[str, Any] = {}
TRAIN = TrainSettings(batch_size=16, lr=2e-3)
"""How the demo trains; minutes, seed and labels come from the command line."""
IMAGES = 6
"""Test images that are predicted into files."""
NOTE = "demo.json"
"""What the demo was asked for, in its folder: tells whether data can be used again."""


@dataclass(frozen=True)
class DemoArguments:
    """Simulate wildfires, train on them, predict, evaluate and write a report."""

    out: Path = Path("demo")
    """Folder for everything."""
    minutes: float = 5.0
    """Training time."""
    scenarios: int = 2000
    """Number of simulated images."""
    size: int = 64
    """Their height and width."""
    seed: int = 0
    """Seed of simulation and training."""
    labels: Literal["full", "single"] = "full"
    """What training sees of an image: all outcomes with their probabilities, or one drawn by probability."""
    precision: Literal["auto", "32", "bf16"] = "auto"
    """Of the numbers that training computes in: what is fastest on this machine, float32, or bfloat16."""
    overwrite: bool = False
    """Replace a demo that is finished."""


def run(args: list[str]) -> int:
    """Run the demo."""
    arguments = parse(DemoArguments, args, "ambiseg demo")
    _check(arguments)
    try:
        _run(arguments)
    except KeyboardInterrupt:
        again = command("ambiseg", "demo", *(word for word in args if word != "--overwrite"))
        raise KeyboardInterrupt(f"'{again}' goes on where this stopped") from None
    return 0


def _check(arguments: DemoArguments) -> None:
    from ambiseg.data.simulators.dataset import check_simulation

    if not 0 < arguments.minutes < math.inf:
        raise AmbisegError(f"--minutes must be above 0, received {arguments.minutes}")
    check_simulation("wildfire", arguments.scenarios, arguments.size, arguments.seed)
    out = arguments.out
    owned_files.check_maker(out, ["demo"])
    if (out / "run" / "report.html").exists() and not arguments.overwrite:
        raise AmbisegError(f"{out} holds a finished demo: choose another --out, or pass --overwrite")


def _run(arguments: DemoArguments) -> None:
    from ambiseg.cli.evaluate import evaluate_run, evaluation_table, facts
    from ambiseg.cli.predict import predict
    from ambiseg.cli.report import build_report
    from ambiseg.engine.callbacks import clock
    from ambiseg.engine.postprocess import PredictSettings
    from ambiseg.engine.predict import find_images
    from ambiseg.engine.run import load
    from ambiseg.predictions.index import folder_names

    out, began = arguments.out, time.monotonic()
    owned_files.enter(out, "demo")
    owned_files.add(out, ["data/", "run/", "predictions/"])
    data, run_path, predictions = out / "data", out / "run", out / "predictions"
    with _stage("1/5 simulate", f"{arguments.scenarios} wildfires in {data}"):
        anew = _simulate(arguments, data) or arguments.overwrite
    with _stage("2/5 train", f"{METHOD} for {arguments.minutes:g} minutes in {run_path}"):
        _train(arguments, data, run_path, anew)
    model = load(run_path)
    paths = find_images([data / "test" / "images"])[:IMAGES]
    with _stage("3/5 predict", f"{len(paths)} test images into {predictions}"):
        predict(model, paths, predictions, PredictSettings(), overwrite=True)
    with _stage("4/5 evaluate", "all test images"):
        evaluation = evaluate_run(model, data, "test")
        evaluation.save(run_path)
    with _stage("5/5 report", "one page about the run"):
        page = build_report(run_path, model, data, evaluation)
    say(f"demo finished in {clock(time.monotonic() - began)}")
    show_grid(evaluation_table(evaluation))
    show(*facts(evaluation, data))
    show(f"report:  {page}")
    folders = [predictions / name for name in folder_names(paths)]
    fullest = max(folders, key=lambda folder: len(read_mapping(folder / "prediction.json")["masks"]))
    show(f"picture: {fullest / 'picture.png'}")
    words = ("ambiseg", "predict", run_path, data / "test" / "images", "--out", out / "all-predictions")
    next_commands((command(*words), "predict all test images"))


def _simulate(arguments: DemoArguments, data: Path) -> bool:
    """Make the data unless they are there, or the demo is asked for something else than before.

    Returns whether the run, if there is one, must be made anew.
    """
    from ambiseg.atomic_write import write_json

    note = arguments.out / NOTE
    simulated: dict[str, Any] = {name: getattr(arguments, name) for name in ("scenarios", "size", "seed")}
    asked = {name: getattr(arguments, name) for name in ("minutes", "labels", "precision")}
    wanted = {"data": simulated, "train": asked}
    found = read_mapping(note)
    if found.get("data") == simulated and data.is_dir():
        say("  they are there")
    else:
        write_scenes("wildfire", data, **simulated, overwrite=True)
    write_json(note, wanted)
    return found != wanted


def _train(arguments: DemoArguments, data: Path, run_path: Path, anew: bool) -> None:
    """Train, or go on with a training that was interrupted, or keep one that is finished.

    Raises:
        KeyboardInterrupt: it was interrupted (again).
    """
    from ambiseg.engine.run_folder import LAST, TRAINING
    from ambiseg.engine.train import fit, resume

    if not anew and read_mapping(run_path / TRAINING).get("interrupted") is False:
        say("  it is trained")
        return
    if not anew and (run_path / LAST).is_file():
        result = resume(run_path)
    else:
        asked = {name: getattr(arguments, name) for name in ("minutes", "seed", "labels", "precision")}
        train = replace(TRAIN, **asked)
        result = fit(
            METHOD, data, run_path, train=train, backbone=BACKBONE, settings=SETTINGS, overwrite=True
        )
    if result.interrupted:
        raise KeyboardInterrupt
    say(f"  {summary(result)}", f"  {result.filter}")


@contextmanager
def _stage(name: str, what: str) -> Iterator[None]:
    """Announce a stage in one line and say how long it took."""
    from ambiseg.engine.callbacks import clock

    say(f"{name}: {what}")
    began = time.monotonic()
    yield
    say(f"  done in {clock(time.monotonic() - began)}")
