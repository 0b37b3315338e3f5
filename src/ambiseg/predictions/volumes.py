"""Predictions of volumes that `ambiseg predict` wrote: whole, or slice by slice as if each slice were an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.limits import check_size
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.validation import FileProblem, canonical_mask
from ambiseg.data.volumes.settings import slice_id
from ambiseg.data.volumes.volume import Volume, open_volume
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.predictions.samples import require_classes
from ambiseg.predictions.written import AGAIN, PREDICTION, WrittenPrediction, WrittenVolume, read_written


@dataclass(frozen=True, eq=False)
class VolumeMasks:
    """The hypotheses of a volume.

    Attributes:
        masks: label maps ``(K, X, Y, Z)``.
        weights: their probabilities ``(K,)``.
        classes: names of the classes.
        affine: ``(4, 4)``, from voxels to mm along the axes right, anterior, superior.
        spacing: distance of voxels along each axis in mm.
    """

    masks: NDArray[np.uint8]
    weights: NDArray[np.float64]
    classes: tuple[str, ...]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]


def read_volume_prediction(folder: str | Path) -> VolumeMasks:
    """The hypotheses of one volume, from the folder that `ambiseg predict` made for it.

    Raises:
        AmbisegError: it is no prediction of a volume, a file is damaged, or its masks do not fit each other.

    Example:
        >>> found = read_volume_prediction("predictions/scan-7")                            # doctest: +SKIP
        >>> found.weights @ (found.masks == 1).sum((1, 2, 3))                               # doctest: +SKIP
    """
    found = read_written(Path(folder))
    _need_volume(found)
    labels = LabelSpace(found.classes)
    volumes = _open(found)
    masks = [
        np.stack(
            [_plane(volume, 2, index, MaskRules.of(labels), labels) for index in range(volume.shape[2])], -1
        )
        for volume in volumes
    ]
    weights = np.array([mask.probability for mask in found.masks])
    return VolumeMasks(np.stack(masks), weights, found.classes, volumes[0].affine, volumes[0].spacing)


def written_volume(folder: Path) -> WrittenVolume | None:
    """The slices of the prediction of a volume; None of an image, or where the file is damaged."""
    try:
        return read_written(folder).volume
    except AmbisegError:
        return None


def slice_names(name: str, volume: WrittenVolume) -> list[str]:
    """Names of the slices of a volume, as data sets of volumes have them."""
    return [slice_id(name, index, volume.slices) for index in range(volume.slices)]


def read_slice_masks(
    found: WrittenPrediction, index: int, rules: MaskRules, labels: LabelSpace
) -> NDArray[np.uint8]:
    """The masks ``(K, H, W)`` of one slice of the prediction of a volume.

    Raises:
        AmbisegError: a file is gone or damaged, or the masks do not fit each other or the classes.
    """
    written, volumes = _need_volume(found), _open(found)
    axis = volumes[0].axis(written.axis)
    if volumes[0].shape[axis] != written.slices:
        raise FileProblem(
            found.masks[0].file,
            f"it has {volumes[0].shape[axis]} {written.axis} slices, {PREDICTION} says {written.slices}",
            AGAIN,
        )
    return np.stack([_plane(volume, axis, index, rules, labels) for volume in volumes])


def _need_volume(found: WrittenPrediction) -> WrittenVolume:
    if found.volume is None:
        raise AmbisegError(
            f"{found.folder} holds the prediction of an image, not of a volume: read its masks"
        )
    return found.volume


def _open(found: WrittenPrediction) -> list[Volume]:
    volumes = [open_volume(mask.file) for mask in found.masks]
    shapes = {volume.shape for volume in volumes}
    if len(shapes) > 1:
        raise FileProblem(found.folder, f"its masks have the shapes {sorted(shapes)[:2]}", AGAIN)
    check_size(found.folder, (len(volumes), *sorted(volumes[0].shape)[1:]))
    return volumes


def _plane(volume: Volume, axis: int, index: int, rules: MaskRules, labels: LabelSpace) -> NDArray[np.uint8]:
    mask = canonical_mask(volume.plane(axis, index), f"{volume.path}, slice {index}", rules)
    require_classes(mask, labels)
    return mask
