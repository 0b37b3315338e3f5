"""NIfTI volumes with several label volumes, cut into slices.

::

    images/<volume>.nii.gz
    masks/<volume>/<annotator>.nii.gz

Each slice along the chosen axis becomes an image; slices in which nobody marks anything are left out unless
asked for. A volume lies in one split with all its slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import MAX_VALUES, NIFTI_SUFFIXES, stem_of, suffix_of
from ambiseg.data.files.validation import FileProblem, canonical_image
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.reading import (
    found_files,
    nothing_found,
    require_classes,
    splits_of,
    uniform_sample,
)
from ambiseg.data.importers.settings import NiftiSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace


def read_nifti(source: Path, settings: NiftiSettings) -> Imported:
    """Open images and masks; a volume with an unreadable file is left out and noted.

    Raises:
        AmbisegError: no such folders, an axis that is none, a label that is no class, or a wrong split file.
    """
    if settings.axis not in (0, 1, 2):
        raise AmbisegError(f"--axis is 0, 1 or 2, received {settings.axis}")
    volumes = {
        stem_of(path): path for path in found_files(source, "images/*") if suffix_of(path) in NIFTI_SUFFIXES
    }
    if not volumes:
        raise nothing_found(source, "images/<volume>.nii.gz with masks/<volume>/<annotator>.nii.gz")
    info = DatasetInfo(source.name, LabelSpace(settings.classes), "NIfTI volumes, sliced")
    splits, how = splits_of({name: name for name in volumes}, settings, "volume")
    problems: list[FileProblem] = []

    def samples(names: list[str]) -> Iterator[Sample]:
        for name in names:
            try:
                image, masks = _volume(source, volumes[name], name, info.labels)
                slices = list(_slices(name, image, masks, settings))
            except FileProblem as problem:
                problems.append(problem)
            else:
                yield from slices

    return Imported(info, {split: _Slices(samples, names) for split, names in splits.items()}, how, problems)


class _Slices:
    """Samples of some volumes, whose number is known when they have been read."""

    def __init__(self, samples: Callable[[list[str]], Iterator[Sample]], names: list[str]) -> None:
        self._samples, self._names = samples, names

    def __iter__(self) -> Iterator[Sample]:
        return self._samples(self._names)


def read_volume(path: Path) -> NDArray[Any]:
    """Values of a NIfTI file, its size checked before they are decoded.

    Raises:
        FileProblem: unreadable, too large, or without nibabel.
    """
    try:
        import nibabel
    except ImportError as error:
        raise FileProblem(path, "NIfTI files need the package nibabel", "pip install nibabel") from error
    try:
        volume: Any = nibabel.load(path)
        shape = tuple(int(n) for n in volume.shape)
        if np.prod(shape, dtype=np.float64) > MAX_VALUES:
            raise FileProblem(
                path, f"{shape} values are more than the limit of {MAX_VALUES}", "cut it into parts"
            )
        return np.asanyarray(volume.dataobj)
    except FileProblem:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise FileProblem(
            path, f"cannot be read as NIfTI ({line})", "it may be truncated; copy it again"
        ) from error


def label_volume(path: Path) -> NDArray[np.uint8]:
    """Whole numbers 0..255 of a NIfTI file, of any type that holds them.

    Raises:
        FileProblem: unreadable, or with fractions, NaN or other numbers.
    """
    values = read_volume(path)
    with np.errstate(invalid="ignore"):
        labels = values.astype(np.uint8)
    if not np.array_equal(labels, values):
        raise FileProblem(path, "it holds other values than whole numbers 0 to 255", "save the class numbers")
    return labels


def _volume(
    source: Path, path: Path, name: str, labels: LabelSpace
) -> tuple[NDArray[Any], dict[str, NDArray[np.uint8]]]:
    files = [file for file in found_files(source, f"masks/{name}/*") if suffix_of(file) in NIFTI_SUFFIXES]
    if not files:
        raise FileProblem(source / "masks" / name, "the volume has no mask", "add <annotator>.nii.gz")
    image, masks = read_volume(path), {}
    if image.ndim != 3:
        raise FileProblem(path, f"the array has shape {image.shape}, no volume", "save three axes")
    for file in files:
        mask = label_volume(file)
        if mask.shape != image.shape:
            raise FileProblem(
                file, f"the mask has shape {mask.shape} but its image {image.shape}", "resample it"
            )
        require_classes(mask, labels, file)
        masks[stem_of(file)] = mask
    return image, masks


def _slices(
    name: str, image: NDArray[Any], masks: dict[str, NDArray[np.uint8]], settings: NiftiSettings
) -> Iterator[Sample]:
    for i in range(image.shape[settings.axis]):
        layers = {annotator: np.asarray(mask.take(i, settings.axis)) for annotator, mask in masks.items()}
        if settings.empty or any(layer.any() for layer in layers.values()):
            pixels = canonical_image(image.take(i, settings.axis)[None], f"{name}, slice {i}")
            yield uniform_sample(f"{name}-{i:04}", pixels, layers)
