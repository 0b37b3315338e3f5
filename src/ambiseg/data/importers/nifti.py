"""NIfTI volumes with several label volumes, cut into slices.

::

    images/<volume>.nii.gz
    masks/<volume>/<annotator>.nii.gz       or, with ``stacked``, volumes of one annotator each along a fourth axis:
    masks/<volume>.nii.gz

Each slice along the chosen axis becomes an image; slices in which nobody marks anything are left out unless
asked for. A volume lies in one split with all its slices. Masks are put in the voxel order of their image
(`geometry`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.geometry import OtherGrid, header_of, on_grid
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.nifti import Header, read_values
from ambiseg.data.files.reading import MAX_VALUES, NIFTI_SUFFIXES, stem_of, suffix_of
from ambiseg.data.files.validation import FileProblem, canonical_image
from ambiseg.data.importers.base import Facts, Imported, count
from ambiseg.data.importers.masks import label_values, without_trailing
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

AXES = 3
"""Of a volume."""


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
    facts: Facts = {}

    def samples(names: list[str]) -> Iterator[Sample]:
        for name in names:
            try:
                image, masks = _volume(source, volumes[name], name, info.labels, settings, facts)
                slices = list(_slices(name, image, masks, settings))
            except FileProblem as problem:
                problems.append(problem)
            else:
                yield from slices

    found = {split: _Slices(samples, names) for split, names in splits.items()}
    return Imported(info, found, how, problems, facts)


class _Slices:
    """Samples of some volumes, whose number is known when they have been read."""

    def __init__(self, samples: Callable[[list[str]], Iterator[Sample]], names: list[str]) -> None:
        self._samples, self._names = samples, names

    def __iter__(self) -> Iterator[Sample]:
        return self._samples(self._names)


def read_volume(path: Path) -> tuple[NDArray[Any], Header]:
    """Values of a NIfTI file, its size checked before they are decoded, and its header.

    Raises:
        FileProblem: unreadable, truncated, with a wrong checksum, too large, or without nibabel.
    """

    def check(shape: tuple[int, ...]) -> None:
        if np.prod(shape, dtype=np.float64) > MAX_VALUES:
            raise FileProblem(
                path, f"{shape} values are more than the limit of {MAX_VALUES}", "cut it into parts"
            )

    header = header_of(path)
    try:
        return read_values(header, check), header
    except FileProblem:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise FileProblem(
            path, f"cannot be read as NIfTI ({line})", "it may be truncated; copy it again"
        ) from error


def placed_labels(
    path: Path, image: Header, labels: LabelSpace, other_grid: OtherGrid, facts: Facts
) -> NDArray[np.uint8]:
    """Class numbers of a file at the voxels of its image, ``(X, Y, Z, ...)``.

    Args:
        path: file of the mask.
        image: header of the image.
        labels: the classes.
        other_grid: what becomes of a mask on another grid.
        facts: counts masks that were put in another order or resampled.

    Raises:
        FileProblem: unreadable, with values that are no class numbers, or at another place than the image.
        AmbisegError: an integer that is no class.
    """
    values, header = read_volume(path)
    numbers = label_values(values, path, MaskRules(labels.classes, labels.ignore_value))
    require_classes(numbers, labels, path)
    numbers = numbers.reshape(*header.grid, *values.shape[AXES:])
    placed, done = on_grid(numbers, header, image, other_grid)
    if done != "same":
        said = "masks put in the voxel order of their image" if done == "reordered" else "masks resampled"
        count(facts, said)
    return placed


def _volume(
    source: Path,
    path: Path,
    name: str,
    labels: LabelSpace,
    settings: NiftiSettings,
    facts: Facts,
) -> tuple[NDArray[Any], dict[str, NDArray[np.uint8]]]:
    patterns = (f"masks/{name}/*", f"masks/{name}.nii*") if settings.stacked else (f"masks/{name}/*",)
    files = [
        file
        for pattern in patterns
        for file in found_files(source, pattern)
        if suffix_of(file) in NIFTI_SUFFIXES
    ]
    if not files:
        raise FileProblem(source / "masks" / name, "the volume has no mask", "add <annotator>.nii.gz")
    values, header = read_volume(path)
    image, masks = without_trailing(values, AXES), {}
    if image.ndim != AXES:
        raise FileProblem(path, f"the array has shape {image.shape}, no volume", "save three axes")
    for file in files:
        mask = placed_labels(file, header, labels, settings.other_grid, facts)
        masks.update(_layers(mask, file, settings.stacked))
    return image, masks


def _layers(mask: NDArray[np.uint8], file: Path, stacked: bool) -> dict[str, NDArray[np.uint8]]:
    """One mask of a file under its name, or each of a fourth axis under a number."""
    mask = without_trailing(mask, AXES)
    if mask.ndim == AXES:
        return {stem_of(file): mask}
    if mask.ndim > AXES + 1 or not stacked:
        raise FileProblem(
            file,
            f"the mask has shape {mask.shape}, more axes than a volume",
            "save one volume per annotator, or ask for --stacked if the fourth axis are the annotators",
        )
    digits = len(str(mask.shape[AXES]))
    return {f"{stem_of(file)}-{i + 1:0{digits}}": mask[..., i] for i in range(mask.shape[AXES])}


def _slices(
    name: str, image: NDArray[Any], masks: dict[str, NDArray[np.uint8]], settings: NiftiSettings
) -> Iterator[Sample]:
    for i in range(image.shape[settings.axis]):
        layers = {annotator: np.asarray(mask.take(i, settings.axis)) for annotator, mask in masks.items()}
        if settings.empty or any(layer.any() for layer in layers.values()):
            pixels = canonical_image(image.take(i, settings.axis)[None], f"{name}, slice {i}")
            yield uniform_sample(f"{name}-{i:04}", pixels, layers)
