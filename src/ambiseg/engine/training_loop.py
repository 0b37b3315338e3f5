"""The training loop: Lightning's trainer with our callbacks, the batches, and what is written down at its end."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException
from torch.utils.data import DataLoader, Subset

from ambiseg.atomic_write import write_json
from ambiseg.data.augmentation import Augmentation
from ambiseg.data.batches import BatchOrder, LabelView, collate
from ambiseg.data.split import Split
from ambiseg.engine.annotators import styles_of
from ambiseg.engine.callbacks import (
    LOGGERS,
    Budget,
    KeepLast,
    MovingAverage,
    ProgressLine,
    QuietProcesses,
    TrainingInterrupted,
    silence_lightning,
)
from ambiseg.engine.checkpoints import AtomicCheckpoints, load_checkpoint
from ambiseg.engine.filter_choice import FEWEST, IMAGES, choose_filter, seconds_per_image
from ambiseg.engine.machine.compilation import compile_networks
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.module import LOSS, TrainingModule, higher_is_better, validated
from ambiseg.engine.parallel.failures import explained
from ambiseg.engine.parallel.processes import Launch, is_child
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import (
    LAST,
    TRAINING,
    WEIGHTS,
    RunConfig,
    load_weights,
    save_weights,
)
from ambiseg.engine.settings import SELECT_LAST, VALIDATIONS, TrainSettings
from ambiseg.engine.trackers import LogFiles, make_loggers
from ambiseg.errors import AmbisegError, TrainingWarning
from ambiseg.methods import method_info
from ambiseg.methods.base import Segmenter
from ambiseg.progress_log import ProgressLog

SLOW_IMAGES = 32
"""Images on which the filter of a method is chosen that samples slowly (one that is validated by its loss)."""
LEAST_MINUTES = 0.5
"""Budgets below are those of the steps alone."""
FILTER_SHARE = 0.15
"""Share of a budget of minutes that the choice of the filter may take."""
DEFAULT_EPOCHS = 100
"""Epochs where neither epochs nor updates nor minutes are given."""


@dataclass(frozen=True)
class FitResult:
    """What a training run came to.

    Attributes:
        run: the run folder.
        steps: optimiser steps, all sessions together.
        seconds: training time, all sessions together.
        metric: name of the validation metric.
        value: that metric for the weights that are kept; None if there was no validation.
        interrupted: whether a signal ended the run early (``resume`` goes on).
        filter: what predictions of the run keep, in one sentence; empty where that was not fitted.
        kept: which weights are kept, those of the "best" validation or the "last" ones.
        new_steps: steps of this session.
    """

    run: Path
    steps: int
    seconds: float
    metric: str
    value: float | None
    interrupted: bool
    filter: str = ""
    kept: str = "best"
    new_steps: int = 0


def run_training(
    run: Path,
    config: RunConfig,
    split: Split,
    val: Split,
    quiet: bool,
    fit_filter: bool,
    *,
    start: Segmenter | None = None,
    checkpoint: dict[str, Any] | None = None,
    began: float | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> FitResult:
    """Train until the budget ends, keep the weights, and choose what predictions keep.

    Args:
        run: the run folder.
        config: all settings, and what is known of the data.
        split, val: images to train on and to validate on.
        quiet: no progress line.
        fit_filter: choose what predictions keep at the end.
        start: a model to start from; a new one if None.
        checkpoint: of an interrupted run, to go on with.
        began: when the time of the budget began (`time.monotonic`); now if None.
        callbacks: more callbacks of Lightning.
    """
    began = time.monotonic() if began is None else began
    hardware = hardware_of(config)
    with hardware.computing():
        return _train(
            run, config, split, val, quiet, fit_filter, hardware, start, checkpoint, began, callbacks
        )


def hardware_of(config: RunConfig) -> Hardware:
    """What a run is trained in on this machine: as its settings say, else as before, where this machine can."""
    train = config.train
    return Hardware.choose(train.precision, train.channels_last, None, train.threads, config.trained_in)


def _train(
    run: Path,
    config: RunConfig,
    split: Split,
    val: Split,
    quiet: bool,
    fit_filter: bool,
    hardware: Hardware,
    start: Segmenter | None,
    checkpoint: dict[str, Any] | None,
    began: float,
    callbacks: Sequence[pl.Callback],
) -> FitResult:
    """What `run_training` does once the process computes in ``hardware``."""
    train = config.train
    filter_images, after = _filter_images(run, config, val, hardware) if fit_filter else (0, 0.0)
    metric = validated(method_info(config.method), train)
    torch.manual_seed(train.seed)
    model = (start or config.build()).train()
    model.freeze(train.freeze)
    model.checkpoint_activations(train.checkpointing)
    module = TrainingModule(model, train, hardware, metric, len(split))
    if hardware.channels_last:
        module.to(memory_format=torch.channels_last)
    if train.compile == "yes":
        _compile(model, hardware)
    budget = Budget(
        steps_of(train, len(split)),
        train.minutes,
        train.validations or VALIDATIONS,
        time.monotonic() - began,
        _validation_interval(train, len(split)),
        after,
    )
    monitored = None if train.select == SELECT_LAST else f"val_{metric}"
    mode = "max" if higher_is_better(metric) else "min"
    best = ModelCheckpoint(
        run / "checkpoints", "best", monitor=monitored, mode=mode, enable_version_counter=False
    )
    used: list[pl.Callback] = [QuietProcesses(), budget, best, *callbacks]
    if train.ema:
        used.insert(0, MovingAverage(train.ema))
    if train.early_stop:
        used.append(EarlyStopping(f"val_{metric}", mode=mode, patience=train.early_stop))
    if not quiet:
        used.append(ProgressLine(budget, train.batch_size, metric))
    loggers = make_loggers(run, config)
    used.append(KeepLast(run / LAST))
    if not is_child():
        used.append(LogFiles(run, config, loggers))
    done = int(checkpoint["global_step"]) if checkpoint else 0
    interrupted = False
    launch = Launch.found()
    environment = LightningEnvironment() if launch is None else launch.environment()
    synchronised = train.sync_batchnorm == "auto" and hardware.device == "cuda"
    with _quiet_lightning():
        trainer = pl.Trainer(
            accelerator="gpu" if hardware.device == "cuda" else hardware.device,
            devices=train.devices,
            num_nodes=train.nodes,
            strategy=_strategy(train.processes, hardware.device, launch is not None),
            sync_batchnorm=train.processes > 1 and (train.sync_batchnorm == "yes" or synchronised),
            precision="bf16-mixed" if hardware.bf16 else "32-true",
            max_epochs=-1,
            val_check_interval=budget.interval,
            check_val_every_n_epoch=None,
            gradient_clip_val=train.clip or None,
            callbacks=used,
            logger=loggers,
            plugins=[AtomicCheckpoints(), environment],
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=run,
        )
        loaders = _Loaders(split, val, config, done)
        try:
            trainer.fit(module, loaders, ckpt_path=run / LAST if checkpoint else None, weights_only=True)
        except TrainingInterrupted:
            interrupted = True
        except ProcessRaisedException as error:
            interrupted = _reason_of(error, run, config)
        except (RuntimeError, MemoryError, ProcessExitedException) as error:
            raise explained(error, run, train, config.backbone.width) or error from error
    if is_child():
        return FitResult(run, trainer.global_step, budget.elapsed, metric, None, interrupted)
    result = _finish(run, config, interrupted)
    result = replace(result, new_steps=result.steps - done)
    if fit_filter and not interrupted and (run / WEIGHTS).is_file():
        result = replace(result, filter=_fit_filter(run, config, val, hardware, filter_images, quiet))
    return result


def _compile(model: Segmenter, hardware: Hardware) -> None:
    """Compile the networks, or say why not."""
    problem = compile_networks(model, hardware.device)
    if problem and not is_child():
        warnings.warn(problem, TrainingWarning, stacklevel=2)


def _filter_images(run: Path, config: RunConfig, val: Split, hardware: Hardware) -> tuple[int, float]:
    """On how many images the filter is chosen after the training, and the seconds that it takes where they are part
    of a budget: at most `FILTER_SHARE` of it, unless even the fewest images take longer."""
    images = min(config.train.validation_images or IMAGES, len(val))
    if method_info(config.method).validation == LOSS:
        images = min(images, SLOW_IMAGES)
    minutes = config.train.minutes
    if minutes is None or minutes < LEAST_MINUTES or is_child():
        return images, 0.0
    with torch.random.fork_rng():
        each = seconds_per_image(Run(config, config.build(), hardware, run), val)
    images = min(images, max(FEWEST, int(FILTER_SHARE * 60 * minutes / each)))
    return images, each * images


def _fit_filter(
    run: Path, config: RunConfig, val: Split, hardware: Hardware, images: int, quiet: bool
) -> str:
    """Choose what predictions keep, write it into the run folder, and say it."""
    model = Run(config, load_weights(run, config), hardware, run)
    log = None if quiet else ProgressLog("choosing what predictions keep")
    found = choose_filter(model, val, data=config.data, images=images, seed=config.train.seed, progress=log)
    found.save(run)
    return found.message


def _strategy(processes: int, device: str, launched: bool) -> str:
    """How processes share the work; a stage of a method may leave some weights without gradient."""
    if processes == 1:
        return "auto"
    if launched:
        return "ddp_find_unused_parameters_true"
    return "ddp_spawn_find_unused_parameters_true" if device == "cpu" else "ddp_find_unused_parameters_true"


def steps_of(train: TrainSettings, images: int) -> int | None:
    """Optimiser steps of a run on so many images; None where it has a time."""
    if train.minutes is not None:
        return None
    epochs = train.epochs or DEFAULT_EPOCHS
    return train.updates or math.ceil(epochs * images / (train.batch_size * train.processes))


def _validation_interval(train: TrainSettings, images: int) -> int | None:
    """Steps from one validation to the next; None where their number is given."""
    if train.validate_every is None:
        return None
    return max(1, round(train.validate_every * images / (train.batch_size * train.processes)))


def _reason_of(error: ProcessRaisedException, run: Path, config: RunConfig) -> bool:
    """Whether a child process was interrupted; a mistake of the user is raised as in the main process."""
    last = str(error).strip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    if kind.endswith(AmbisegError.__name__):
        raise AmbisegError(message) from error
    if kind.endswith(TrainingInterrupted.__name__):
        return True
    raise explained(error, run, config.train, config.backbone.width) or error from error


class _Loaders(pl.LightningDataModule):
    """Batches of training (endless) and validation, the share of this process."""

    def __init__(self, split: Split, val: Split, config: RunConfig, start: int) -> None:
        super().__init__()
        self.split, self.val, self.config, self.start = split, val, config, start

    def train_dataloader(self) -> DataLoader[Any]:
        train, trainer = self.config.train, self.trainer
        assert trainer is not None
        chosen = self.config.augmentation
        assert chosen is not None
        view = LabelView(
            *(self.split, self.config.normalization, train.labels, Augmentation(chosen.kinds), train.seed),
            styles=styles_of(self.config),
        )
        order = BatchOrder(
            len(view),
            train.batch_size,
            train.seed,
            self.start,
            trainer.global_rank,
            trainer.world_size,
            self.split.stored.units(),
        )
        return DataLoader(
            view,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=train.workers,
            persistent_workers=train.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        train, trainer = self.config.train, self.trainer
        assert trainer is not None
        count = train.used_validation_images(len(self.val))
        mine = range(trainer.global_rank, count, trainer.world_size)
        view = LabelView(
            *(self.val, self.config.normalization, "single" if train.one_mask_validation else "full"),
            styles=styles_of(self.config),
        )
        return DataLoader(Subset(view, list(mine)), batch_size=train.batch_size, collate_fn=collate)


def _finish(run: Path, config: RunConfig, interrupted: bool) -> FitResult:
    """Export the best weights and write down what the training came to."""
    last, best = load_checkpoint(run / LAST), run / "checkpoints" / "best.ckpt"
    values = [v for k, v in last["callbacks"].items() if k.startswith("ModelCheckpoint")]
    score = values[0].get("best_model_score") if values else None
    train, kept = config.train, "best"
    if train.select == SELECT_LAST:
        score, kept = last["ambiseg"]["last_value"], "last"
    if best.is_file():
        state = load_checkpoint(best)["state_dict"]
        model = config.build()
        model.load_state_dict(
            {k.removeprefix("segmenter."): v for k, v in state.items() if k.startswith("segmenter.")}
        )
        save_weights(run, model)
    result = FitResult(
        run=run,
        steps=int(last["global_step"]),
        seconds=round(float(last["callbacks"]["Budget"]["elapsed"]), 1),
        metric=validated(method_info(config.method), train),
        value=None if score is None or not math.isfinite(score) else round(float(score), 6),
        interrupted=interrupted,
        kept=kept,
    )
    parameters = sum(p.numel() for p in config.build().parameters())
    entries: dict[str, Any] = {
        "steps": result.steps,
        "seconds": result.seconds,
        "parameters": parameters,
        "interrupted": interrupted,
    }
    entries |= {"metric": result.metric, kept: result.value}
    if train.labels == "single":
        entries["validation_labels"] = "single" if train.one_mask_validation else "full"
    write_json(run / TRAINING, entries)
    return result


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning for a while."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        silence_lightning()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
