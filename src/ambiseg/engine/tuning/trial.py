"""One trial of a study, in a process of its own: ``python -m ambiseg.engine.tuning.trial NOTE``.

The note says which settings are tried, and takes the figure of the validation or the error. The trial reports each
validation to the journal of the study, and a pruner may end it early.
"""

from __future__ import annotations

import math
import sys
import traceback
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ambiseg.atomic_write import write_json
from ambiseg.engine.module import TrainingModule
from ambiseg.engine.parallel.workers import fail, is_begun, work_alone
from ambiseg.engine.run_folder import TRAINING
from ambiseg.engine.train import fit, resume
from ambiseg.engine.tuning.journal import open_trial
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping


class Reports(pl.Callback):
    """Reports each validation to a trial of Optuna, and ends the training where its pruner says so.

    Validations are told apart by their number: they are spread evenly over a training, so that the same number is the
    same share of it in every trial.

    Attributes:
        pruned: whether the training was ended.
    """

    def __init__(self, trial: Any) -> None:
        self.trial = trial
        self.count, self.pruned = 0, False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        self.count += 1
        value = pl_module.last_value
        if value is not None and math.isfinite(value):
            self.trial.report(value, self.count)
        if not trainer.should_stop and self.trial.should_prune():
            self.pruned = trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = int(state_dict["count"])


def work(note: Path) -> None:
    """Do what a note asks for, as far as it is not done, and add the result to it, or the error.

    Raises:
        KeyboardInterrupt: interrupted, with a checkpoint to go on from.
    """
    entries = read_mapping(note)
    try:
        result = _result(note, entries)
    except Exception as error:
        with open(note.with_suffix(".log"), "a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        fail(note, _sentence(error))
    else:
        write_json(note, entries | {"result": result})


def _sentence(error: Exception) -> str:
    if isinstance(error, AmbisegError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "not enough memory for these settings"
    return f"{type(error).__name__}: {error}"


def _result(note: Path, entries: dict[str, Any]) -> dict[str, Any]:
    run, pruned = note.with_suffix(""), False
    if read_mapping(run / TRAINING).get("interrupted", True):
        pruned = _train(run, note.parent.parent, entries)
    training = read_mapping(run / TRAINING)
    value = training.get("best", training.get("last"))
    if value is None:
        raise AmbisegError("no validation of this trial gave a finite figure")
    return {
        "value": value,
        "pruned": pruned,
        **{name: training[name] for name in ("metric", "steps", "seconds", "parameters")},
    }


def _train(run: Path, study: Path, entries: dict[str, Any]) -> bool:
    """Go on from the last checkpoint if there is a sound one, else train from the start; whether it was pruned."""
    reports = Reports(open_trial(study, entries["trial"], entries["pruner"]))
    if is_begun(run):
        result = resume(run, data=entries["data"], quiet=True, fit_filter=False, callbacks=[reports])
    else:
        result = fit(
            entries["method"],
            entries["data"],
            run,
            preset=entries["preset"],
            **entries["values"],
            overwrite=True,
            quiet=True,
            fit_filter=False,
            smoke=entries["smoke"],
            callbacks=[reports],
        )
    if result.interrupted:
        raise KeyboardInterrupt
    return reports.pruned


if __name__ == "__main__":
    sys.exit(work_alone(work))
