"""Experiment trackers: Lightning's loggers, each in a folder of the run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from ambiseg import owned_files
from ambiseg.engine.curve import CurveLogger
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import Tracker
from ambiseg.errors import AmbisegError

PROJECT = "ambiseg"
"""Project (Weights & Biases) and experiment (MLflow) that runs belong to."""
TRACKERS: tuple[str, ...] = get_args(Tracker)
FOLDERS = ("logs", *TRACKERS)
"""Folders of a run that loggers write to."""


def check_installed(names: Iterable[str]) -> None:
    """Raise `AmbisegError` for a tracker that is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise AmbisegError(f"{name} is not installed: pip install 'ambiseg[{name}]'")


def make_loggers(run: Path, config: RunConfig) -> list[Logger]:
    """The curve of the run, which is always kept, and the trackers of its settings."""
    return [CurveLogger(run, name="logs"), *(_make(name, run) for name in config.train.loggers)]


def _make(name: str, run: Path) -> Logger:
    if name == "tensorboard":
        return TensorBoardLogger(run, name=name)
    if name == "wandb":
        (run / name).mkdir(exist_ok=True)  # without it wandb writes elsewhere
        return WandbLogger(name=run.name, project=PROJECT, save_dir=run)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        (run / name).mkdir(exist_ok=True)
        uri = f"sqlite:///{(run / name).absolute()}/mlflow.db"
    return MLFlowLogger(PROJECT, run.name, uri)


class LogFiles(pl.Callback):
    """Tells the trackers all settings, and adds what loggers write to the list of the run folder, so that
    ``--overwrite`` knows it.

    Args:
        run: the run folder.
        config: the settings.
        loggers: those of the training.
    """

    def __init__(self, run: Path, config: RunConfig, loggers: Sequence[Logger]) -> None:
        self.run, self.settings = run, _flat(asdict(config))
        self.listed: set[str] = set()
        self.list(loggers)

    def list(self, loggers: Sequence[Logger]) -> None:
        """Add what there is, and the files of the curve, which are about to appear."""
        names = set()
        for folder in FOLDERS:
            root = self.run / folder
            for path in (root, *root.rglob("*")) if root.is_dir() else ():
                names.add(f"{_inside(path, self.run)}{'/' * (path.is_dir() and not path.is_symlink())}")
        for logger in loggers:
            if isinstance(logger, CurveLogger):
                curve = _inside(Path(logger.log_dir), self.run)
                names |= {f"{curve}/", f"{curve}/metrics.csv", f"{curve}/hparams.yaml"}
        if names - self.listed:
            owned_files.add(self.run, sorted(names - self.listed))
            self.listed |= names

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before Lightning writes the settings that it knows of, which are none."""
        if trainer.is_global_zero:
            for tracker in trainer.loggers[1:]:
                try:
                    tracker.log_hyperparams(self.settings)
                except Exception as error:  # of any kind: they are those of other packages
                    raise AmbisegError(f"{type(tracker).__name__} cannot log: {error}") from error

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.list(trainer.loggers)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.list(trainer.loggers)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End the run of a tracker that would go on as long as the process."""
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.experiment.finish()
            self.list(trainer.loggers)


def _inside(path: Path, run: Path) -> str:
    return path.relative_to(run).as_posix()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return found
