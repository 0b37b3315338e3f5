"""One run of a benchmark, in a process of its own: ``python -m ambiseg.engine.benchmark_run NOTE``.

The note (see `ambiseg.engine.benchmark`) says what to do, and takes the result or the error. Lightning can
launch its processes for several devices from such a process, since its command line names this run and no
other.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ambiseg.atomic_write import write_json
from ambiseg.data.source import SpreadSplit, open_split
from ambiseg.engine.evaluate import Evaluation, evaluate
from ambiseg.engine.fitted_filter import FilterValues
from ambiseg.engine.parallel.processes import is_child
from ambiseg.engine.parallel.workers import fail, is_begun, work_alone
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import TRAINING
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit, resume
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping
from ambiseg.methods import method_info
from ambiseg.methods.spec import RECOMMENDED
from ambiseg.metrics import METRICS, missing
from ambiseg.metrics.dialects import AMBISEG
from ambiseg.nested_settings import from_values, replaced
from ambiseg.networks.settings import UNetSettings


def work(note: Path) -> None:
    """Do what a note asks for, as far as it is not done, and add the result to it, or the error.

    Raises:
        KeyboardInterrupt: interrupted, with a checkpoint to go on from.
    """
    entries = read_mapping(note)
    try:
        result = _result(note.with_suffix(""), entries)
    except Exception as error:
        with open(note.with_suffix(".log"), "a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        known = isinstance(error, AmbisegError)
        fail(note, str(error) if known else f"{type(error).__name__}: {error}")
    else:
        if result:
            write_json(note, entries | {"result": result})


def _result(run: Path, entries: dict[str, Any]) -> dict[str, Any]:
    """Train and evaluate; nothing in processes that Lightning launched for other devices."""
    asked, evaluation = entries["order"]["training"], entries["order"]["evaluation"]
    measures_only = "run" in entries
    run = Path(entries["run"]) if measures_only else run
    training = read_mapping(run / TRAINING)
    if not measures_only and training.get("interrupted", True):
        _train(run, entries)
        training = read_mapping(run / TRAINING)
    if is_child():
        return {}
    split = open_split(entries["data"], evaluation["split"])
    if evaluation.get("images"):
        split = SpreadSplit(split, evaluation["images"])
    model = load(run)
    model.model.settings = replaced(model.model.settings, evaluation.get("settings", {}), "settings")
    trial = model.propose([split[0].image], 1)
    model.seconds, model.images = 0.0, 0
    found = evaluate(
        model,
        split,
        evaluation["split"],
        # one meaning of "kept" for all methods, whether their scores reject copies or not, and whatever was fitted
        PredictSettings(**asdict(FilterValues()), samples=evaluation["samples"]),
        batch_size=evaluation["batch_size"],
        seed=asked["train"]["seed"],
        metrics=[name for name in evaluation["metrics"] if not missing(METRICS[name], trial)],
        bootstrap=None,
        dialect=evaluation.get("dialect", AMBISEG),
        classes=evaluation.get("classes", ()),
    )
    if not measures_only:
        found.save(run)
    return {
        "labels": from_values(TrainSettings, asked["train"], "train").seen_labels,
        "steps": training["steps"],
        "training_seconds": training["seconds"],
        "parameters": training["parameters"],
        "peak_memory": _peak_memory(),
        "hardware": _hardware(model),
        **_measured(found),
    }


def _train(run: Path, entries: dict[str, Any]) -> None:
    """Go on from the last checkpoint if there is a sound one, else train from the start."""
    asked = entries["order"]["training"]
    if is_begun(run):
        result = resume(run, data=entries["data"], fit_filter=False)
    else:
        result = fit(
            asked["method"],
            entries["data"],
            run,
            train=from_values(
                TrainSettings, asked["train"] | {"init": entries["init"] or asked["train"]["init"]}, "train"
            ),
            backbone=from_values(UNetSettings, asked["backbone"], "backbone"),
            settings=from_values(method_info(asked["method"]).settings, asked["settings"], "settings"),
            preset=entries.get("preset", RECOMMENDED),
            overwrite=True,
            fit_filter=False,
            smoke=entries.get("smoke", False),
        )
    if result.interrupted:
        raise KeyboardInterrupt


def _measured(found: Evaluation) -> dict[str, Any]:
    """Plain values of an evaluation, of each metric those of its first column."""
    columns = found.to_dict()
    names = list(found.per_image)
    return {
        "split": found.split,
        "images": found.images,
        "masks": found.n_all,
        "dialect": found.dialect.name,
        "classes": found.classes,
        "tag": found.tag,
        "metrics": {name: columns[METRICS[name].columns[0]][name] for name in names},
        "oracle": {name: columns["oracle"].get(name) for name in names},
        "annotators": columns["annotators"],
        "seconds_per_image": found.seconds_per_image,
        "per_image": {name: [_plain(v) for v in values] for name, values in found.per_image.items()},
        "coverage": [_plain(v) for v in found.figures.coverage],
        "estimated": [_plain(v) for v in found.figures.estimated],
        "true": [_plain(v) for v in found.figures.true],
    }


def _plain(value: float) -> float | None:
    """Six digits; None for nan, which JSON does not know."""
    return None if value != value else round(float(value), 6)


def _peak_memory() -> float | None:
    """Most MiB that this process held: on an accelerator if there is one, else resident; None where nothing
    tells."""
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10, 1)


def _hardware(model: Run) -> str:
    """What the times were measured on."""
    if model.hardware.device == "cuda":
        return torch.cuda.get_device_name()
    return f"{model.hardware.device}, {torch.get_num_threads()} thread(s)"


if __name__ == "__main__":
    sys.exit(work_alone(work))
