"""`save_run`: a model that was trained elsewhere, such as in a loop of your own, as a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ambiseg import owned_files
from ambiseg.atomic_write import working_in
from ambiseg.data.batches import Normalization
from ambiseg.data.memory.dataset import DataLike, is_split
from ambiseg.data.source import open_split
from ambiseg.data.split import Split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.checkpoints import check_finite
from ambiseg.engine.filter_choice import choose_filter
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import TRAIN_VERB, RunConfig, check_target, save_weights
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods import spec_of
from ambiseg.methods.base import Segmenter


def save_run(
    model: Segmenter,
    out: str | Path,
    normalization: Normalization | SplitStatistics,
    *,
    val: Split | DataLike | None = None,
    channels: Sequence[str] = (),
    overwrite: bool = False,
) -> Run:
    """Write a trained model as a run folder, which every function and command reads.

    Args:
        model: a method of this library, or one that is registered.
        out: the run folder to make.
        normalization: that of the training images. Their `SplitStatistics` also give their range, by which predictions
            refuse other images, and their digest.
        val: an opened split, or a data set with the split val, on which is chosen what predictions keep
            (`ambiseg.engine.filter_choice`); identical masks are merged and all others stay if None.
        channels: names of the image channels.
        overwrite: replace a run folder that ambiseg wrote.

    Returns:
        The run, loaded.

    Raises:
        AmbisegError: no `Segmenter`, weights that are not finite, normalisation of other channels, or ``out`` exists.

    Example:
        >>> save_run(model, "runs/mine", statistics, val=data["val"])                       # doctest: +SKIP
    """
    if not isinstance(model, Segmenter):
        raise AmbisegError(
            f"save_run takes a Segmenter, received {type(model).__name__}: pass the model itself, such as .module"
        )
    known = normalization if isinstance(normalization, SplitStatistics) else None
    scale = normalization.normalization if isinstance(normalization, SplitStatistics) else normalization
    if not isinstance(scale, Normalization):
        raise AmbisegError(
            f"normalization is a Normalization or SplitStatistics, received {type(scale).__name__}: write"
            " ambiseg.Normalization(mean=(...), std=(...)), a number for each channel"
        )
    if len(scale.mean) != model.in_channels:
        raise AmbisegError(
            f"the normalisation is of {len(scale.mean)} channels, the model of {model.in_channels}: give that of its"
            " training images"
        )
    config = RunConfig(
        method=spec_of(type(model)).name,
        in_channels=model.in_channels,
        labels=model.labels,
        normalization=scale,
        backbone=model.backbone,
        settings=model.settings,
        train=replace(TrainSettings(), binary_channels=2 if model.labels.softmax else 1),
        channels=tuple(channels),
        images=None if known is None else known.images,
        data_digest="" if known is None else known.digest,
    )
    if val is not None:
        val = val if is_split(val) else open_split(val, "val", model.labels.one_channel)
        if val.info.labels.names != model.labels.names:
            raise AmbisegError(
                f"the data have the classes {list(val.info.labels.names)}, the model {list(model.labels.names)}: give"
                " data of the same classes"
            )
    run = Path(out)
    check_finite(model.state_dict(), run)
    check_target(run, overwrite)
    owned_files.enter(run, TRAIN_VERB)
    with working_in(run, "the run folder"):
        owned_files.remove(run, keep_folder=True)
        owned_files.begin(run, TRAIN_VERB)
        config.save(run)
        save_weights(run, model)
        saved = load(run)
        if val is not None:
            found = choose_filter(saved, val)
            found.save(run)
            saved = load(run)
    return saved
