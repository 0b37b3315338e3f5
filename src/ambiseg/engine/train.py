"""`fit`: train a method on a data set into a run folder, and go on with an interrupted run."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import nn
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode

from ambiseg import owned_files
from ambiseg.atomic_write import check_space, working_in, write_json
from ambiseg.data.augmentation import Augmentation
from ambiseg.data.batches import BatchOrder, LabelView, collate
from ambiseg.data.mask_oddities import SINGLE
from ambiseg.data.source import OneMaskSplit, open_split
from ambiseg.data.split import Split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.augmentation_choice import choose_augmentation, told
from ambiseg.engine.callbacks import (
    LOGGERS,
    Budget,
    KeepLast,
    ListLogs,
    MovingAverage,
    ProgressLine,
    QuietProcesses,
    TrainingInterrupted,
    silence_lightning,
)
from ambiseg.engine.checkpoints import AtomicCheckpoints, load_checkpoint
from ambiseg.engine.curve import CurveLogger
from ambiseg.engine.filter_choice import IMAGES, choose_filter
from ambiseg.engine.hardware import Hardware
from ambiseg.engine.limits import check_depth, check_memory, outline
from ambiseg.engine.module import LOSS, TrainingModule, higher_is_better, validated
from ambiseg.engine.preset_data import check_data_are_there, check_suits
from ambiseg.engine.presets import resolve
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import (
    CONFIG,
    LAST,
    TRAIN_VERB,
    TRAINING,
    WEIGHTS,
    OtherSizeError,
    RunConfig,
    load_weights,
    save_weights,
)
from ambiseg.engine.settings import LAST as LAST_WEIGHTS
from ambiseg.engine.settings import VALIDATIONS, TrainSettings
from ambiseg.engine.smoke import shrunk
from ambiseg.errors import AmbisegError, DataWarning
from ambiseg.labels import LabelSpace
from ambiseg.methods import MethodSpec, build, method_info, spec_of
from ambiseg.methods.base import Segmenter
from ambiseg.methods.contract import losses_of, masks_of
from ambiseg.methods.spec import RECOMMENDED
from ambiseg.metrics import METRICS, missing
from ambiseg.nested_settings import differences, number_problems, shown
from ambiseg.networks.backbone import NETWORKS, NetworkFactory, trying_network
from ambiseg.networks.settings import UNetSettings
from ambiseg.progress_log import ProgressLog

WEIGHTS_IN_A_RUN = 13
"""Room for a run, in times its weights: the checkpoints of the end and of the best validation and the next one of them
hold weights, two moments of Adam and the moving average each, and there is the exported model."""
_PATIENCE = 5.0
"""Seconds for the processes of a training that was killed to end, before it is resumed."""
SLOW_IMAGES = 32
"""Images on which the filter of a method is chosen that samples slowly (one that is validated by its loss)."""
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
        best: its value for the weights that are kept, the best one unless the last weights are kept.
        interrupted: whether a signal ended the run early (``resume`` goes on).
        filter: what predictions of the run keep, in one sentence; empty where that was not fitted.
        kept: which weights are kept, those of the "best" validation or the "last" ones.
    """

    run: Path
    steps: int
    seconds: float
    metric: str
    best: float | None
    interrupted: bool
    filter: str = ""
    kept: str = "best"


def fit(
    method: str | MethodSpec | type[Segmenter],
    data: str | Path,
    out: str | Path,
    *,
    preset: str = RECOMMENDED,
    train: TrainSettings | Mapping[str, Any] | None = None,
    backbone: UNetSettings | Mapping[str, Any] | nn.Module | NetworkFactory | None = None,
    settings: Any = None,
    overwrite: bool = False,
    quiet: bool = False,
    fit_filter: bool = True,
    smoke: bool = False,
) -> FitResult:
    """Train ``method`` on the ``train`` split of ``data`` and write a run folder.

    Args:
        method: name of a method (`ambiseg.METHODS`), a spec, or a subclass of `ambiseg.Segmenter`.
        data: a data set (folder or packed file) with splits ``train`` and ``val``.
        out: the run folder to make.
        preset: named choice of settings.
        train, backbone, settings: of training, network and method: values over those of the preset, nested
            key by key; or complete settings, which are taken as they are. ``backbone`` may also be a network
            of your own, a module or a function of channels and settings that makes one
            (`ambiseg.networks.backbone.register_network`).
        overwrite: replace an existing run folder.
        quiet: no progress line.
        fit_filter: choose on the validation images what predictions keep (`ambiseg.engine.filter_choice`).
        smoke: train a small network for two steps (`ambiseg.engine.smoke`), to see that everything works.

    Raises:
        AmbisegError: unknown method, senseless settings, missing splits, an existing ``out``, weights to
            start from that are missing or do not fit, or a loss that became NaN.

    Example:
        >>> fit("mode-proposals", "my-data", "runs/first", train=TrainSettings(minutes=5))      # doctest: +SKIP
    """
    spec = spec_of(method)
    module: nn.Module | NetworkFactory | None = None
    if isinstance(backbone, nn.Module) or (callable(backbone) and not isinstance(backbone, Mapping)):
        module, named = backbone, type(backbone) if isinstance(backbone, nn.Module) else backbone
        backbone = {"kind": getattr(named, "__name__", type(backbone).__name__)}
    chosen, network, own = resolve(spec, preset, train, backbone, settings)
    if smoke:
        chosen, network, own = shrunk(chosen, network, own)
    check_data_are_there(spec, preset, data)
    if chosen.init:
        network, own = _suited(spec, network, own, RunConfig.load(chosen.init))
        problems = number_problems(network, "backbone.") + number_problems(own)
        if problems:
            raise AmbisegError("; ".join(problems))
    run, split = Path(out), open_split(data, "train")
    if len(split) == 0:
        raise AmbisegError(
            f"{data}: the split 'train' holds no image: look at it with 'ambiseg data check {data}'"
        )
    val = _validation_split(data, chosen)
    _check_devices(chosen, split, val)
    validated(spec, chosen)  # a name that there is not is refused here
    late = (
        []
        if smoke or chosen.minutes is not None
        else chosen.late_steps(_steps(chosen, len(split)) or 0, len(split))
    )
    if late:
        raise AmbisegError("; ".join(late))
    log = None if quiet or _is_child() else ProgressLog("reading the training images")
    statistics = SplitStatistics.of(split, progress=log)
    check_suits(spec, preset, chosen.labels, split.info.labels, statistics)
    if not _is_child():
        for remark in statistics.remarks:
            warnings.warn(f"{data}, train: {remark}", DataWarning, stacklevel=2)
        if statistics.single_masks and chosen.labels == "full" and spec.has_single_settings:
            warnings.warn(f"{data}, train: {SINGLE}", DataWarning, stacklevel=2)
    labels = split.info.labels.with_binary_channels(chosen.binary_channels)
    with trying_network(network.kind, module):
        model = _model(spec, chosen, statistics, labels, network, own)
    if model.needs_init and not chosen.init:
        raise AmbisegError(f"{model.needs_init}: start from a trained run with --init, or change the setting")
    if not _is_child():
        _check_target(run, overwrite, [Path(data), *([Path(chosen.init)] if chosen.init else [])])
        weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        check_space(run, WEIGHTS_IN_A_RUN * weights, f"the run folder {run}")
    config = RunConfig(
        method=spec.name,
        in_channels=statistics.channels,
        labels=labels,
        normalization=statistics.normalization,
        backbone=network,
        settings=own,
        train=chosen,
        data=str(data),
        data_digest=statistics.digest,
        channels=split.info.channels,
        images=statistics.images,
        preset=preset,
        smoke=smoke,
    )
    start = _start(config) if chosen.init else None
    operations = 3 * _try(model, config, split) * chosen.batch_size * chosen.devices
    began = time.monotonic()
    augmentation = choose_augmentation(
        chosen, split, val, config.normalization, _steps(chosen, len(split)), operations, str(data)
    )
    config, before = replace(config, augmentation=augmentation), time.monotonic() - began
    if _is_child():
        return _train(run, config, split, val, quiet, fit_filter, start=start, before=before)
    owned_files.enter(run, TRAIN_VERB)
    with working_in(run, "the run folder"):
        owned_files.remove(run, keep_folder=True)
        owned_files.begin(run, TRAIN_VERB)
        config.save(run)
        if not quiet:
            print(told(augmentation), file=sys.stderr)
        return _train(run, config, split, val, quiet, fit_filter, start=start, before=before)


def _model(
    spec: MethodSpec,
    train: TrainSettings,
    statistics: SplitStatistics,
    labels: LabelSpace,
    network: UNetSettings,
    settings: Any,
) -> Segmenter:
    """The model of these settings, once it is known to fit the images and the memory.

    Raises:
        AmbisegError: it does not fit, or cannot be built.
    """
    spec.model_class()

    def make() -> Segmenter:
        try:
            return build(spec.name, statistics.channels, labels, network, settings)
        except AmbisegError:
            raise
        except (ValueError, TypeError) as error:
            raise AmbisegError(f"{spec.name} cannot be built with these settings: {error}") from error

    planned = outline(make) if network.kind in NETWORKS else None
    if planned is not None:
        check_depth(planned, statistics.images.largest)
        check_memory(planned, statistics.images.largest, train.batch_size, getattr(settings, spec.masks, 1))
    return make()


def _validation_split(data: str | Path, train: TrainSettings) -> Split:
    """The validation images with what a run may see of their annotations: all of training reads this split."""
    val = open_split(data, "val")
    return OneMaskSplit(val) if train.one_mask_validation else val


def _check_devices(train: TrainSettings, split: Split, val: Split) -> None:
    """Every process needs an image to train on and one to validate on; and it is started by us."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise AmbisegError("a training starts its processes itself: leave torchrun out, and give --devices")
    for name, count in (("train", len(split)), ("val", train.used_validation_images(len(val)))):
        if count == 0:
            raise AmbisegError(f"the split {name!r} of {split.info.name} holds no image: add some")
        if train.devices > count:
            raise AmbisegError(
                f"--devices {train.devices} is more than the {count} images of the split {name!r} that are used:"
                f" each process needs one, so lower it to {count} or less"
            )


def _strategy(devices: int, device: str) -> str:
    """How processes share the work; a stage of a method may leave some weights without gradient."""
    if devices == 1:
        return "auto"
    return "ddp_spawn_find_unused_parameters_true" if device == "cpu" else "ddp_find_unused_parameters_true"


@torch.no_grad()
def _try(model: Segmenter, config: RunConfig, split: Split) -> int:
    """The loss of one image, and the masks of a method from elsewhere, so that what does not suit the images is
    refused before a run folder is made; and how many operations the loss takes."""
    kinds = config.train.augment if isinstance(config.train.augment, tuple) else ()
    view = LabelView(split, config.normalization, config.train.labels, Augmentation(kinds))
    batch = collate([view[0]])
    with FlopCounterMode(display=False) as counter:
        losses_of(model, batch.images, batch.annotations)
    info = METRICS.get(validated(method_info(config.method), config.train))
    if not type(model).__module__.startswith("ambiseg.") or (info is not None and info.needs):
        masks = masks_of(model.eval(), batch.images)
        absent = [] if info is None else missing(info, masks)
        if info is not None and absent:
            raise AmbisegError(
                f"train: select={info.name} needs {' and '.join(absent)}, which {config.method} does not"
                " predict: give another metric"
            )
    return int(counter.get_total_flops())


def _steps(train: TrainSettings, images: int) -> int | None:
    """Optimiser steps of a run; None where it has a time."""
    if train.minutes is not None:
        return None
    epochs = train.epochs or DEFAULT_EPOCHS
    return train.updates or math.ceil(epochs * images / (train.batch_size * train.devices))


def _validation_interval(train: TrainSettings, images: int) -> int | None:
    """Steps from one validation to the next; None where their number is given."""
    if train.validate_every is None:
        return None
    return max(1, round(train.validate_every * images / (train.batch_size * train.devices)))


def resume(
    run: str | Path, *, data: str | Path | None = None, quiet: bool = False, fit_filter: bool = True
) -> FitResult:
    """Go on with an interrupted run from its last checkpoint: same batches, same optimiser, same moving
    average.

    Args:
        run: the run folder.
        data: where the data are now, if they moved.
        quiet: no progress line.
        fit_filter: choose what predictions keep at the end, as `fit` does.

    Raises:
        AmbisegError: not a run folder, no checkpoint, another method's checkpoint, or other training data.
    """
    run = Path(run)
    config = RunConfig.load(run)
    checkpoint = load_checkpoint(run / LAST)
    source = data or config.data
    split, val = open_split(source, "train"), _validation_split(source, config.train)
    if split.digest() != config.data_digest:
        raise AmbisegError(
            f"the training split of {source} is not the one that {run} was trained on: give its --data"
        )
    _check_devices(config.train, split, val)
    wrote, expected = checkpoint["ambiseg"]["method"], type(config.build()).__name__
    if wrote != expected:
        raise AmbisegError(
            f"{run / LAST} was written by {wrote}, but {run / CONFIG} says {expected}: restore the run"
        )
    if _is_child():
        return _train(run, config, split, val, quiet, fit_filter, checkpoint=checkpoint)
    with working_in(run, "the run folder", _PATIENCE):
        owned_files.begin(run, TRAIN_VERB)
        return _train(run, config, split, val, quiet, fit_filter, checkpoint=load_checkpoint(run / LAST))


def _train(
    run: Path,
    config: RunConfig,
    split: Split,
    val: Split,
    quiet: bool,
    fit_filter: bool,
    *,
    start: Segmenter | None = None,
    checkpoint: dict[str, Any] | None = None,
    before: float = 0.0,
) -> FitResult:
    train = config.train
    hardware = Hardware.choose(train.precision, train.channels_last)
    metric = validated(method_info(config.method), train)
    torch.manual_seed(train.seed)
    model = (start or config.build()).train()
    model.freeze(train.freeze)
    module = TrainingModule(model, train, hardware, metric, len(split))
    if hardware.channels_last:
        module.to(memory_format=torch.channels_last)
    budget = Budget(
        _steps(train, len(split)),
        train.minutes,
        train.validations or VALIDATIONS,
        before,
        _validation_interval(train, len(split)),
    )
    monitored = None if train.select == LAST_WEIGHTS else f"val_{metric}"
    mode = "max" if higher_is_better(metric) else "min"
    best = ModelCheckpoint(
        run / "checkpoints", "best", monitor=monitored, mode=mode, enable_version_counter=False
    )
    callbacks: list[pl.Callback] = [QuietProcesses(), budget, best]
    if train.ema:
        callbacks.insert(0, MovingAverage(train.ema))
    if train.early_stop:
        callbacks.append(EarlyStopping(f"val_{metric}", mode=mode, patience=train.early_stop))
    if not quiet:
        callbacks.append(ProgressLine(budget, train.batch_size, metric))
    loggers = _loggers(run, train)
    callbacks.append(KeepLast(run / LAST))
    if not _is_child():
        callbacks.append(ListLogs(run, loggers))
    done = int(checkpoint["global_step"]) if checkpoint else 0
    interrupted = False
    with _quiet_lightning():
        trainer = pl.Trainer(
            accelerator="gpu" if hardware.device == "cuda" else hardware.device,
            devices=train.devices,
            strategy=_strategy(train.devices, hardware.device),
            precision="bf16-mixed" if hardware.bf16 else "32-true",
            max_epochs=-1,
            val_check_interval=budget.interval,
            check_val_every_n_epoch=None,
            gradient_clip_val=train.clip or None,
            callbacks=callbacks,
            logger=loggers,
            plugins=[AtomicCheckpoints(), LightningEnvironment()],  # our own processes, in a Slurm job too
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
            interrupted = _reason_of(error)
    result = _finish(run, config, interrupted)
    if fit_filter and not interrupted and not _is_child() and (run / WEIGHTS).is_file():
        result = replace(result, filter=_fit_filter(run, config, val, hardware, quiet))
    return result


def _fit_filter(run: Path, config: RunConfig, val: Split, hardware: Hardware, quiet: bool) -> str:
    """Choose what predictions keep, write it into the run folder, and say it."""
    images = config.train.validation_images or IMAGES
    if method_info(config.method).validation == LOSS:
        images = min(images, SLOW_IMAGES)
    model = Run(config, load_weights(run, config), hardware, run)
    log = None if quiet else ProgressLog("choosing what predictions keep")
    found = choose_filter(model, val, data=config.data, images=images, seed=config.train.seed, progress=log)
    found.save(run)
    return found.message


def _suited(
    entry: MethodSpec, backbone: UNetSettings, settings: Any, source: RunConfig
) -> tuple[UNetSettings, Any]:
    """Settings of network and method for a start from the weights of another method.

    Raises:
        AmbisegError: the method cannot start from that one, or a network was asked for that is not that of
            the weights.
    """
    if source.method == entry.name:
        return backbone, settings
    if source.method not in entry.starts_from:
        known = ", ".join([entry.name, *entry.starts_from])
        raise AmbisegError(f"{entry.name} cannot start from a run of {source.method}: give one of {known}")
    if backbone not in (UNetSettings(), source.backbone):
        raise AmbisegError("the network is that of --init: leave those of --set backbone out")
    return source.backbone, entry.starts_from[source.method](settings, source.settings)


def _start(config: RunConfig) -> Segmenter:
    """The model with the weights of ``--init``.

    Raises:
        AmbisegError: no run folder, other channels or classes, or a method that this one cannot start from.
    """
    torch.manual_seed(config.train.seed)  # weights that --init has no values for are drawn
    init = Path(config.train.init or "")
    source = RunConfig.load(init)
    if source.method == config.method:
        pairs = (("", config.settings, source.settings), ("backbone.", config.backbone, source.backbone))
        try:
            return load_weights(init, config)
        except OtherSizeError as error:
            needed = [
                f"{p}{k}={shown(v)}" for p, ours, old in pairs for k, v in differences(old, ours).items()
            ]
            if config.labels.channels != source.labels.channels:
                needed.append(f"train.binary_channels={source.labels.channels}")
            if not needed:
                raise
            raise AmbisegError(
                f"the weights of {init} do not fit these settings: it has {', '.join(needed)}; set the same, or leave"
                " --init out"
            ) from error
    for what, ours, theirs in (
        ("channels", config.in_channels, source.in_channels),
        ("classes", config.labels.names, source.labels.names),
    ):
        if ours != theirs:
            raise AmbisegError(f"{init} was trained on data with other {what} ({theirs}) than these ({ours})")
    if config.labels.channels != source.labels.channels:
        raise AmbisegError(
            f"{init} has {source.labels.channels} channel(s) for binary masks, these settings {config.labels.channels}:"
            f" set train.binary_channels={source.labels.channels}"
        )
    model = config.build()
    model.start_from(load_weights(init, source))
    return model


def _reason_of(error: ProcessRaisedException) -> bool:
    """Whether a child process was interrupted; a mistake of the user is raised as in the main process."""
    last = str(error).strip().splitlines()[-1]
    kind, _, message = last.partition(": ")
    if kind.endswith(AmbisegError.__name__):
        raise AmbisegError(message) from error
    if kind.endswith(TrainingInterrupted.__name__):
        return True
    raise error


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
            self.split, self.config.normalization, train.labels, Augmentation(chosen.kinds), train.seed
        )
        order = BatchOrder(
            len(view), train.batch_size, train.seed, self.start, trainer.global_rank, trainer.world_size
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
            self.val, self.config.normalization, "single" if train.one_mask_validation else "full"
        )
        return DataLoader(Subset(view, list(mine)), batch_size=train.batch_size, collate_fn=collate)


def _finish(run: Path, config: RunConfig, interrupted: bool) -> FitResult:
    """Export the best weights and write down what the training came to."""
    last, best = load_checkpoint(run / LAST), run / "checkpoints" / "best.ckpt"
    values = [v for k, v in last["callbacks"].items() if k.startswith("ModelCheckpoint")]
    score = values[0].get("best_model_score") if values else None
    train, kept = config.train, "best"
    if train.select == LAST_WEIGHTS:
        score, kept = last["ambiseg"]["last_value"], "last"
    if best.is_file():
        state = load_checkpoint(best)["state_dict"]
        model = config.build()
        model.load_state_dict(
            {k.removeprefix("segmenter."): v for k, v in state.items() if k.startswith("segmenter.")}
        )
        if not _is_child():
            save_weights(run, model)
    result = FitResult(
        run=run,
        steps=int(last["global_step"]),
        seconds=round(float(last["callbacks"]["Budget"]["elapsed"]), 1),
        metric=validated(method_info(config.method), train),
        best=None if score is None or not math.isfinite(score) else round(float(score), 6),
        interrupted=interrupted,
        kept=kept,
    )
    if not _is_child():
        parameters = sum(p.numel() for p in config.build().parameters())
        entries: dict[str, Any] = {
            "steps": result.steps,
            "seconds": result.seconds,
            "parameters": parameters,
            "interrupted": interrupted,
        }
        entries |= {"metric": result.metric, kept: result.best}
        if train.labels == "single":
            entries["validation_labels"] = "single" if train.one_mask_validation else "full"
        write_json(run / TRAINING, entries)
    return result


def _check_target(run: Path, overwrite: bool, inputs: list[Path]) -> None:
    """Check that a run folder may be made; only an earlier run without files of somebody else is replaced."""
    owned_files.check_inputs(run, inputs)
    if run.is_dir() and not owned_files.is_empty(run) and not overwrite:
        raise AmbisegError(
            f"{run} exists: choose another --out, go on with --resume, or replace it with --overwrite"
        )
    owned_files.check_replaceable(run, [TRAIN_VERB], inputs)


def _loggers(run: Path, train: TrainSettings) -> list[Logger]:
    loggers: list[Logger] = [CurveLogger(run, name="logs")]
    if train.tensorboard:
        try:
            loggers.append(TensorBoardLogger(run, name="tensorboard"))
        except ModuleNotFoundError as error:
            raise AmbisegError("TensorBoard is not installed: pip install 'ambiseg[tensorboard]'") from error
    return loggers


def _is_child() -> bool:
    """Whether this process was launched by another one of the same run."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 or int(os.environ.get("NODE_RANK", "0")) > 0


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
