"""`predict_volume`: hypotheses with probabilities of a whole volume, from a network of slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.data.volumes.grid import slice_directions
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.slices import read_slice, slice_count
from ambiseg.data.volumes.unpacked import UNPACKED
from ambiseg.data.volumes.volume import Volume, open_volume
from ambiseg.engine.hypotheses import (
    SliceStore,
    class_volumes,
    draws_at_random,
    predict_slices,
    through_volume,
)
from ambiseg.engine.machine.memory import refusing_too_much
from ambiseg.engine.postprocess import Image, LoadedModel, PredictSettings
from ambiseg.engine.run import Run
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet

CHECKED = 16
"""Slices, spread over the volume, whose numbers are compared with those of training."""


@dataclass(frozen=True, eq=False)
class VolumePrediction:
    """Hypotheses of a whole volume.

    Attributes:
        masks: ``(1, H, X, Y, Z)`` within the box, in the order of the axes of the volume, the most probable first.
        box: part of the volume outside of which all hypotheses are background.
        volume: what was predicted.
        slices: axis and neighbours of the slices.
        determined: False where the probabilities of some slice are one choice of several (`Postprocessed`).
        mean: expected probabilities of voxels ``(C, X, Y, Z)`` of the whole volume, where they were asked for.
        remark: what to warn of; empty if nothing.
    """

    masks: MaskSet
    box: tuple[slice, slice, slice]
    volume: Volume
    slices: SliceSettings
    determined: bool = True
    mean: NDArray[np.float16] | None = None
    remark: str = ""

    def whole(self, k: int) -> NDArray[np.uint8]:
        """Hypothesis k as a label map ``(X, Y, Z)`` of the whole volume."""
        background = self.masks.labels.background or 0
        found = np.full(self.volume.shape, background, np.uint8)
        found[self.box] = self.masks.masks[0, k].numpy()
        return found

    def millilitres(self) -> NDArray[np.float64]:
        """Volume of each class in each hypothesis ``(H, classes)``; of the background, that within the box."""
        return class_volumes(self.masks, self.volume.voxel_ml)

    def slice_masks(self, index: int) -> MaskSet:
        """The hypotheses in one slice, ``(1, H, height, width)`` of the whole slice."""
        axis = self.volume.axis(self.slices.axis)
        height, width = (n for i, n in enumerate(self.volume.shape) if i != axis)
        rows, columns = (part for i, part in enumerate(self.box) if i != axis)
        cut = self.masks.masks.select(2 + axis, index - self.box[axis].start)
        whole = cut.new_full((*cut.shape[:2], height, width), self.masks.labels.background or 0)
        whole[:, :, rows, columns] = cut
        return replace(self.masks, masks=whole)


def slice_settings(run: LoadedModel) -> SliceSettings:
    """How a run was trained to see volumes: axis of slices and number of neighbours."""
    return run.config.slices or SliceSettings()


def predict_volume(
    run: Run,
    volume: Volume | str | Path,
    settings: PredictSettings | None = None,
    *,
    slices: SliceSettings | None = None,
    flow: LoadedModel | None = None,
    pixel_probabilities: bool = False,
    batch_size: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> VolumePrediction:
    """Hypotheses with probabilities of a whole volume.

    Args:
        run: a loaded run.
        volume: as it was opened, or its file or folder.
        settings: filters, probabilities and number of samples; ``top`` counts hypotheses of the volume.
        slices: axis and neighbours; those of the training if None.
        flow: a run of flow-matching, where ``settings.estimate`` needs one.
        pixel_probabilities: also keep the expected probability of every voxel.
        batch_size: slices in one pass; methods that sample take one at a time.
        seed: of sampling methods; every slice has the same random numbers.
        progress: called with slices done and in all.

    Raises:
        AmbisegError: the volume cannot be read, has another number of channels or another scale, or does not fit in
            memory.

    Example:
        >>> found = predict_volume(run, "scan.nii.gz")                                      # doctest: +SKIP
        >>> found.masks.weights, found.millilitres()[:, 1]                                  # doctest: +SKIP
    """
    volume = open_volume(volume) if isinstance(volume, (str, Path)) else volume
    slices = slices or slice_settings(run)
    settings = (settings or PredictSettings()).for_run(run)
    remarks = [_range_remark(run, volume, slices), _turned(run, volume, slices)]
    count, axis = slice_count(volume, slices), volume.axis(slices.axis)
    UNPACKED.make_room(volume.unpacked_bytes(axis))
    store, determined, means = SliceStore(), True, list[NDArray[np.float16]]()
    images = (_read(run, volume, slices, index) for index in range(count))
    for found in predict_slices(run, images, settings, flow, batch_size, seed):
        determined &= all(found.determined)
        for one in found.masks:
            store.add(one)
            if pixel_probabilities:
                means.append(one.mean()[0].numpy().astype(np.float16))
        if progress is not None:
            progress(len(store), count)
    rows, columns = store.box
    needed = 4 * store.most * count * (rows.stop - rows.start) * (columns.stop - columns.start)
    what = f"joining {store.most} masks of each of {count} slices of {volume.path.name}"
    with refusing_too_much(what, needed, "cpu", "ask for fewer masks (--samples), or cut the volume"):
        masks = through_volume(store.sets(), settings, draws_at_random(run))
    box = [rows, columns]
    box.insert(axis, slice(0, count))
    return VolumePrediction(
        replace(masks, masks=masks.masks.movedim(2, 2 + axis).contiguous()),
        (box[0], box[1], box[2]),
        volume,
        slices,
        determined,
        np.moveaxis(np.stack(means, 1), 1, 1 + axis) if means else None,
        "; ".join(filter(None, remarks)),
    )


def _read(run: Run, volume: Volume, slices: SliceSettings, index: int) -> Image:
    image = read_slice(volume, slices, index)
    try:
        run.config.normalization.check_values(image)
    except AmbisegError as error:
        raise AmbisegError(f"slice {index}: {error}") from error
    return image


def _range_remark(run: Run, volume: Volume, slices: SliceSettings) -> str:
    """What to warn of where the volume has other numbers than the images of training; empty if nothing. Slices are
    looked at together, for a slice of nothing but air is no reason.

    Raises:
        AmbisegError: another number of channels, or numbers of another scale.
    """
    count, channels = slice_count(volume, slices), volume.channels * slices.planes
    if channels != run.config.in_channels:
        beside = f" with {slices.neighbours} neighbours on each side" if slices.neighbours else ""
        raise AmbisegError(
            f"its slices{beside} have {channels} channels, the run has {run.config.in_channels}: give a volume like those"
            " of training"
        )
    indices = np.unique(np.linspace(0, count - 1, min(count, CHECKED)).round().astype(int))
    spread = np.concatenate([read_slice(volume, slices, int(index)) for index in indices], axis=1)
    return "" if run.config.images is None else run.config.images.difference(spread)


def _turned(run: Run, volume: Volume, slices: SliceSettings) -> str:
    """What to warn of where slices lie otherwise than those of training; nothing across another axis, which was asked for."""
    if not volume.placed or slices.axis != slice_settings(run).axis:
        return ""
    directions = slice_directions(volume, slices)
    return "" if run.knows(directions) else run.turned(directions)


def shown_slices(prediction: VolumePrediction, most: int) -> Iterator[tuple[int, Image, MaskSet]]:
    """Some slices as a viewer shows them: index, image with its neighbours, and hypotheses of at most so many. They are
    spread over the slices in which hypotheses differ, or over those with foreground if none does, or over all."""
    volume, axis = prediction.volume, prediction.volume.axis(prediction.slices.axis)
    masks = prediction.masks.masks[0].movedim(1 + axis, 1).flatten(2)
    background = prediction.masks.labels.background or 0
    differing, there = (masks != masks[:1]).any(0).any(1), (masks != background).any(0).any(1)
    shown = differing if differing.any() else there if there.any() else ~there
    indices = np.flatnonzero(shown.numpy())
    steps = (np.arange(min(most, len(indices))) + 0.5) / min(most, len(indices)) * len(indices)
    for index in indices[steps.astype(int)].tolist():
        image, one = read_slice(volume, prediction.slices, index), prediction.slice_masks(index)
        turned = torch.from_numpy(as_viewed(one.masks.numpy(), volume, axis).copy())
        yield (
            index,
            as_viewed(image, volume, axis),
            replace(one, masks=turned),
        )


def as_viewed(plane: NDArray[Any], volume: Volume, axis: int) -> NDArray[Any]:
    """Planes ``(..., height, width)`` as radiologists see them: superior or anterior above, the right of the patient (or
    anterior) at the left."""
    from nibabel.orientations import io_orientation

    (first, down), (second, across) = (
        row for i, row in enumerate(io_orientation(volume.affine)) if i != axis
    )
    turned = plane[..., :: -int(down), :: -int(across)]
    return turned if first > second else turned.swapaxes(-1, -2)
