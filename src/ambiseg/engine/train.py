"""`fit`: train a method on a data set into a run folder, and go on with an interrupted run."""

from __future__ import annotations

import multiprocessing
import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ambiseg import owned_files
from ambiseg.atomic_write import check_space, working_in
from ambiseg.data.augmentation import Augmentation
from ambiseg.data.batches import LabelView, collate
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.mask_oddities import SINGLE
from ambiseg.data.memory.dataset import IN_MEMORY, DataLike, InMemory, as_data, title_of
from ambiseg.data.memory.split import check_sendable
from ambiseg.data.source import OneMaskSplit, open_split
from ambiseg.data.split import Split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.annotators import styles_of, with_annotators
from ambiseg.engine.augmentation_choice import choose_augmentation, told
from ambiseg.engine.checkpoints import load_checkpoint
from ambiseg.engine.encoder_rate import encoder_parameters
from ambiseg.engine.limits import check_depth, check_memory, outline
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.machine.hardware_choice import told as told_hardware
from ambiseg.engine.machine.hardware_plan import plan_hardware
from ambiseg.engine.module import validated
from ambiseg.engine.parallel.processes import Launch, Meeting, is_child, resettled, settled
from ambiseg.engine.preset_data import check_data_are_there, check_suits
from ambiseg.engine.presets import resolve
from ambiseg.engine.run_folder import (
    CONFIG,
    LAST,
    TRAIN_VERB,
    RunConfig,
    check_target,
)
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.smoke import shrunk
from ambiseg.engine.starting_weights import pretrained_model, starting_model, suited
from ambiseg.engine.trackers import check_installed
from ambiseg.engine.training_loop import FitResult, hardware_of, run_training, steps_of
from ambiseg.errors import AmbisegError, DataWarning, counted
from ambiseg.labels import LabelSpace
from ambiseg.methods import MethodSpec, build, method_info, spec_of
from ambiseg.methods.base import Segmenter
from ambiseg.methods.contract import losses_of, masks_of
from ambiseg.methods.spec import RECOMMENDED
from ambiseg.metrics import METRICS, missing
from ambiseg.nested_settings import number_problems
from ambiseg.networks.backbone import NETWORKS, NetworkFactory, trying_network
from ambiseg.networks.foreign.build import resolved
from ambiseg.networks.foreign.names import foreign_name
from ambiseg.networks.settings import UNetSettings
from ambiseg.progress_log import ProgressLog

WEIGHTS_IN_A_RUN = 13
"""Room for a run, in times its weights: the checkpoints of the end and of the best validation and the next one of them
hold weights, two moments of Adam and the moving average each, and there is the exported model."""
_PATIENCE = 5.0
"""Seconds for the processes of a training that was killed to end, before it is resumed."""


def fit(
    method: str | MethodSpec | type[Segmenter],
    data: DataLike,
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
    began: float | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> FitResult:
    """Train ``method`` on the ``train`` split of ``data`` and write a run folder.

    Args:
        method: name of a method (`ambiseg.METHODS`), a spec, or a subclass of `ambiseg.Segmenter`.
        data: a data set with splits ``train`` and ``val``: a folder, a packed file, or what `ambiseg.dataset` makes or
            takes, such as ``{"train": pairs, "val": pairs}``.
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
        began: when a budget of minutes began (`time.monotonic`); now if None.
        callbacks: more callbacks of Lightning, such as one that looks at every validation.

    Raises:
        AmbisegError: unknown method, senseless settings, missing splits, an existing ``out``, weights to
            start from that are missing or do not fit, or a loss that became NaN.

    Example:
        >>> fit("mode-proposals", "my-data", "runs/first", train=TrainSettings(minutes=5))      # doctest: +SKIP
    """
    began = time.monotonic() if began is None else began
    spec = spec_of(method)
    module: nn.Module | NetworkFactory | None = None
    if isinstance(backbone, nn.Module) or (callable(backbone) and not isinstance(backbone, Mapping)):
        module, named = backbone, type(backbone) if isinstance(backbone, nn.Module) else backbone
        backbone = {"kind": getattr(named, "__name__", type(backbone).__name__)}
    chosen, network, own = resolve(spec, preset, train, backbone, settings)
    if smoke:
        chosen, network, own = shrunk(chosen, network, own)
    data = as_data(data)
    network = resolved(network)
    chosen = settled(chosen)
    meeting = Meeting(Launch.found(), chosen.node_timeout)
    with meeting.leading():
        return _fit(
            *(meeting, spec, data, Path(out), preset, chosen, network, own),
            *(module, overwrite, quiet, fit_filter, smoke, began, callbacks),
        )


def _fit(
    meeting: Meeting,
    spec: MethodSpec,
    data: Path | InMemory,
    run: Path,
    preset: str,
    chosen: TrainSettings,
    network: UNetSettings,
    own: Any,
    module: nn.Module | NetworkFactory | None,
    overwrite: bool,
    quiet: bool,
    fit_filter: bool,
    smoke: bool,
    began: float,
    callbacks: Sequence[pl.Callback],
) -> FitResult:
    """`fit` with complete settings, in one of the processes that met."""
    if is_child():
        with trying_network(network.kind, module):
            return _follow(meeting, run, data, fit_filter, began, callbacks)
    check_data_are_there(spec, preset, data)
    if chosen.init:
        network, own = suited(spec, network, own, RunConfig.load(chosen.init))
        problems = number_problems(network, "backbone.") + number_problems(own)
        if problems:
            raise AmbisegError("; ".join(problems))
    split, val = _training_split(data), _validation_split(data, chosen)
    _check_devices(chosen, split, val)
    if isinstance(data, InMemory):
        _check_in_memory(data, chosen, quiet)
    check_installed(chosen.loggers)
    validated(spec, chosen)  # a name that there is not is refused here
    if not smoke:
        _check_steps(chosen, len(split))
    log = None if quiet else ProgressLog("reading the training images")
    try:
        statistics = SplitStatistics.of(split, progress=log)
    except FileProblem as problem:
        if isinstance(data, InMemory):
            raise
        command = shlex.join(["ambiseg", "data", "check", str(data)])
        raise AmbisegError(f"{problem}; '{command}' lists all such files by cause") from problem
    check_suits(spec, preset, chosen.labels, split.info.labels, statistics)
    own = with_annotators(spec, own, statistics, f"{title_of(data)}, train")
    _warn(statistics, spec, chosen, f"{title_of(data)}, train")
    labels = split.info.labels.with_binary_channels(chosen.binary_channels)
    with trying_network(network.kind, module):
        model = _model(spec, chosen, statistics, labels, network, own)
    if chosen.encoder_rate != 1:
        encoder_parameters(model)  # a network without an encoder is refused here
    if model.needs_init and not chosen.init:
        raise AmbisegError(f"{model.needs_init}: start from a trained run with --init, or change the setting")
    inputs = [data] if isinstance(data, Path) else []
    check_target(run, overwrite, [*inputs, *([Path(chosen.init)] if chosen.init else [])])
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
        data=IN_MEMORY if isinstance(data, InMemory) else str(data),
        data_digest=statistics.digest,
        channels=split.info.channels,
        images=statistics.images,
        slices=split.info.slices,
        directions=tuple(sorted(split.stored.directions)),
        preset=preset,
        smoke=smoke,
    )
    start, read = _start(config)
    operations = 3 * _try(model, config, split) * chosen.batch_size * chosen.processes
    augmentation = choose_augmentation(
        chosen, split, val, config.normalization, steps_of(chosen, len(split)), operations, title_of(data)
    )
    hardware = plan_hardware(config, split, model, steps_of(chosen, len(split)))
    config = replace(config, augmentation=augmentation, hardware=hardware)
    owned_files.enter(run, TRAIN_VERB)
    with working_in(run, "the run folder"):
        owned_files.remove(run, keep_folder=True)
        owned_files.begin(run, TRAIN_VERB)
        config.save(run)
        if not quiet:
            print(
                "\n".join(filter(None, [read, told(augmentation), told_hardware(hardware)])), file=sys.stderr
            )
        meeting.tell(config.text())
        return run_training(
            *(run, config, split, val, quiet, fit_filter), start=start, began=began, callbacks=callbacks
        )


def _start(config: RunConfig) -> tuple[Segmenter | None, str]:
    """The model that a run starts from, with a sentence about it; None where all weights are new."""
    if config.train.init:
        return starting_model(config), ""
    return pretrained_model(config) if config.backbone.encoder.weights else (None, "")


def _follow(
    meeting: Meeting,
    run: Path,
    data: Path | InMemory,
    fit_filter: bool,
    began: float,
    callbacks: Sequence[pl.Callback],
    resuming: bool = False,
) -> FitResult:
    """Train beside the first process, which has decided all and made the run folder."""
    text = meeting.hear()
    config = RunConfig.load(run) if text is None else RunConfig.of_text(text)
    _check_gpus(config.train)
    split, val = _training_split(data), _validation_split(data, config.train)
    start = None if resuming else _start(config)[0]
    checkpoint = load_checkpoint(run / LAST) if resuming else None
    return run_training(
        *(run, config, split, val, True, fit_filter),
        start=start,
        checkpoint=checkpoint,
        began=began,
        callbacks=callbacks,
    )


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

    known = network.kind in NETWORKS or foreign_name(network.kind) is not None
    planned = outline(make) if known else None
    if planned is not None:
        check_depth(planned, statistics.images.largest)
        check_memory(planned, statistics.images.largest, train.batch_size, getattr(settings, spec.masks, 1))
    return make()


def _training_split(data: Path | InMemory) -> Split:
    split = open_split(data, "train")
    if len(split) == 0:
        raise AmbisegError(
            f"{data}: the split 'train' holds no image: look at it with 'ambiseg data check {data}'"
        )
    return split


def _warn(statistics: SplitStatistics, spec: MethodSpec, train: TrainSettings, where: str) -> None:
    """Say what is legal and seldom meant."""
    remarks = list(statistics.remarks)
    if statistics.single_masks and train.labels == "full" and spec.has_single_settings:
        remarks.append(SINGLE)
    for remark in remarks:
        warnings.warn(f"{where}: {remark}", DataWarning, stacklevel=3)


def _check_steps(train: TrainSettings, images: int) -> None:
    """Raise `AmbisegError` where a schedule has steps after the end of the run."""
    steps = steps_of(train, images)
    late = [] if steps is None else train.late_steps(steps, images)
    if late:
        raise AmbisegError("; ".join(late))


def _check_in_memory(data: InMemory, train: TrainSettings, quiet: bool) -> None:
    """Raise `AmbisegError` where other processes would need data that cannot be sent to them; say which splits were
    drawn."""
    spawned = train.workers > 0 and multiprocessing.get_start_method() != "fork"
    if (train.devices > 1 and Launch.found() is None) or spawned:
        for split in data.values():
            check_sendable(split)
    if data.drawn and not quiet:
        print(
            f"splits drawn from one dataset: {data.counts()} (ambiseg.dataset draws others)", file=sys.stderr
        )


def _validation_split(data: Path | InMemory, train: TrainSettings) -> Split:
    """The validation images with what a run may see of their annotations: all of training reads this split."""
    val = open_split(data, "val")
    return OneMaskSplit(val) if train.one_mask_validation else val


def _check_devices(train: TrainSettings, split: Split, val: Split) -> None:
    """Every process needs a device, an image to train on and one to validate on."""
    _check_gpus(train)
    for name, count in (("train", len(split)), ("val", train.used_validation_images(len(val)))):
        if count == 0:
            raise AmbisegError(f"the split {name!r} of {split.info.name} holds no image: add some")
        if train.processes > count:
            asked = f"--devices {train.devices}"
            if train.nodes > 1:
                asked = f"{train.nodes} machines with {train.devices} processes each: {train.processes}"
            raise AmbisegError(
                f"{asked} is more than the {count} images of the split {name!r} that are used:"
                f" each process needs one, so lower it to {count} or less"
            )


def _check_gpus(train: TrainSettings) -> None:
    """Raise `AmbisegError` for more devices than this machine has, or for what they do not compute."""
    device = Hardware.choose().device
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device)
    if there is not None and train.devices > there:
        launch = Launch.found()
        asked = (
            f"--devices {train.devices}"
            if launch is None
            else f"{launch.launcher} with {launch.devices} processes"
        )
        bound = " (with --gpus-per-task each process sees its own GPU only: ask for --gpus-per-node)"
        raise AmbisegError(
            f"{asked} on each machine is more than the {counted(there, 'GPU')} that this process sees: lower it to {there}"
            f"{bound if launch is not None and launch.launcher == 'srun' else ''}"
        )
    if train.sync_batchnorm == "yes" and device != "cuda" and train.processes > 1:
        raise AmbisegError(
            f"train: sync_batchnorm=yes needs GPUs of NVIDIA or AMD, this training is on {device}: leave it out"
        )


@torch.no_grad()
def _try(model: Segmenter, config: RunConfig, split: Split) -> int:
    """The loss of one image, and the masks of a method from elsewhere, so that what does not suit the images is
    refused before a run folder is made; and how many operations the loss takes."""
    kinds = config.train.augment if isinstance(config.train.augment, tuple) else ()
    view = LabelView(
        split, config.normalization, config.train.labels, Augmentation(kinds), styles=styles_of(config)
    )
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


def resume(
    run: str | Path,
    *,
    data: DataLike | None = None,
    epochs: int | None = None,
    updates: int | None = None,
    minutes: float | None = None,
    devices: int | None = None,
    nodes: int | None = None,
    quiet: bool = False,
    fit_filter: bool = True,
    began: float | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> FitResult:
    """Go on with an interrupted run from its last checkpoint: same batches, same optimiser, same moving
    average; or train a run longer.

    With a longer budget the schedule is that of the whole training: where a cosine had reached 0, the rate rises to
    what it is at this share of the new length.

    Args:
        run: the run folder.
        data: where the data are now, if they moved; the same data again, if they were in memory.
        epochs, updates, minutes: train so much longer than the last checkpoint; one of them at most.
        devices, nodes: processes on each machine and machines, where these are others now; a step sees as many images.
        quiet: no progress line.
        fit_filter: choose what predictions keep at the end, as `fit` does.
        began: when a budget of minutes began (`time.monotonic`); now if None.
        callbacks: more callbacks of Lightning; the state of those of the run is that of its checkpoint.

    Raises:
        AmbisegError: not a run folder, no checkpoint, another method's checkpoint, other training data, a budget that
            makes no sense, or a number of processes that cannot share a batch.
    """
    began = time.monotonic() if began is None else began
    run = Path(run)
    config = RunConfig.load(run)
    config = replace(config, train=resettled(config.train, devices, nodes))
    more = {"epochs": epochs, "updates": updates, "minutes": minutes}
    meeting = Meeting(Launch.found(), config.train.node_timeout)
    with meeting.leading():
        return _resume(meeting, run, config, data, more, quiet, fit_filter, began, callbacks)


def _resume(
    meeting: Meeting,
    run: Path,
    config: RunConfig,
    data: DataLike | None,
    more: Mapping[str, float | None],
    quiet: bool,
    fit_filter: bool,
    began: float,
    callbacks: Sequence[pl.Callback],
) -> FitResult:
    """`resume` in one of the processes that met."""
    if data is None and config.data == IN_MEMORY:
        raise AmbisegError(
            f"{run} was trained on data in memory, which a run folder does not hold: pass the same data to"
            " ambiseg.resume(run, data=...)"
        )
    source = as_data(config.data if data is None else data, config.labels.one_channel)
    if is_child():
        return _follow(meeting, run, source, fit_filter, began, callbacks, resuming=True)
    checkpoint = load_checkpoint(run / LAST)
    split, val = open_split(source, "train"), _validation_split(source, config.train)
    if split.digest() != config.data_digest:
        remedy = "pass the same data" if isinstance(source, InMemory) else "give its --data"
        raise AmbisegError(
            f"the training split of {title_of(source)} is not the one that {run} was trained on: {remedy}"
        )
    _check_devices(config.train, split, val)
    if isinstance(source, InMemory):
        _check_in_memory(source, config.train, quiet)
    wrote, expected = checkpoint["ambiseg"]["method"], type(config.build()).__name__
    if wrote != expected:
        raise AmbisegError(
            f"{run / LAST} was written by {wrote}, but {run / CONFIG} says {expected}: restore the run"
        )
    if not quiet:
        _tell_other_hardware(config)
    config = _extended(config, {k: v for k, v in more.items() if v is not None}, checkpoint, len(split))
    with working_in(run, "the run folder", _PATIENCE):
        owned_files.begin(run, TRAIN_VERB)
        config.save(run)
        checkpoint = load_checkpoint(run / LAST)
        meeting.tell(config.text())
        return run_training(
            *(run, config, split, val, quiet, fit_filter),
            checkpoint=checkpoint,
            began=began,
            callbacks=callbacks,
        )


def _tell_other_hardware(config: RunConfig) -> None:
    """Say in a sentence that this machine cannot go on in what a run was trained in."""
    now, before = hardware_of(config), config.trained_in
    why = "" if before is None else before.obstacle(now.device)
    if before is not None and why:
        print(f"hardware: {now.name} on {now.device} in place of {before.name}: {why}", file=sys.stderr)


def _extended(
    config: RunConfig, more: Mapping[str, float], checkpoint: Mapping[str, Any], images: int
) -> RunConfig:
    """The configuration of a run that is trained longer than its last checkpoint."""
    if not more:
        return config
    budget: dict[str, Any] = {"epochs": None, "updates": None, "minutes": None, **more}
    added = replace(config.train, **budget)
    if problems := added.problems():
        raise AmbisegError("; ".join(problems))
    done, steps = int(checkpoint["global_step"]), steps_of(added, images)
    if steps is None:
        spent = float(checkpoint["callbacks"]["Budget"]["elapsed"]) / 60
        train = replace(added, minutes=spent + more["minutes"])
    else:
        train = replace(added, epochs=None, updates=done + steps)
    return replace(config, train=train, extended_at=(*config.extended_at, done))
