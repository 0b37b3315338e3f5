"""Images and masks as NumPy arrays: ``NAME-<split>.npz`` with ``images`` and ``masks``.

``images`` is (n, H, W) or (n, H, W, C), ``masks`` (n, K, H, W) of 0 and 1, one of each of K readers, all of
one probability. Masks may be packed to bits along the last axis, as ``numpy.packbits`` does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ambiseg.data.augmentation_kinds import NONE
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported, Lazy
from ambiseg.data.importers.masks import binary_values
from ambiseg.data.importers.reading import collected, found_files, nothing_found, npz_array
from ambiseg.data.importers.settings import ArraysSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SPLITS
from ambiseg.data.sample import Sample
from ambiseg.data.schema import AUGMENTATIONS
from ambiseg.errors import AmbisegError, UnknownNameError


def read_arrays(source: Path, settings: ArraysSettings) -> Imported:
    """Open the files of all splits.

    Raises:
        AmbisegError: no file for training, several data sets and no name, or arrays that do not fit.
    """
    for name in settings.augment or ():
        if name not in AUGMENTATIONS:
            raise UnknownNameError("augmentation", name, AUGMENTATIONS)
    found = found_files(source, f"{settings.name or '*'}-train.npz") if source.is_dir() else []
    if not found:
        raise nothing_found(source, f"{settings.name or 'NAME'}-train.npz")
    if len(found) > 1:
        raise AmbisegError(
            f"{source} holds {len(found)} data sets: choose one with --name, such as {_name(found[0])}"
        )
    name, problems = _name(found[0]), list[FileProblem]()
    splits = {
        split: _samples(path, problems)
        for split in SPLITS
        if (path := found[0].with_name(f"{name}-{split}.npz")).is_file()
    }
    kinds = settings.augment
    augment = {} if kinds is None else {**NONE, **dict.fromkeys(kinds, True)}
    return Imported(
        DatasetInfo(name, augment=augment, licence=settings.licence), splits, "as distributed", problems
    )


def _name(path: Path) -> str:
    return path.name.removesuffix("-train.npz")


def _samples(path: Path, problems: list[FileProblem]) -> Lazy:
    images, masks = npz_array(path, "images"), npz_array(path, "masks")
    size = images.shape[1:3]
    if masks.ndim == 4 and masks.dtype == np.uint8 and masks.shape[-1] == -(-size[1] // 8) != size[1]:
        masks = np.unpackbits(masks, axis=-1)[..., : size[1]]
    if images.ndim not in (3, 4) or masks.ndim != 4 or (len(masks), *masks.shape[2:]) != (len(images), *size):
        raise FileProblem(
            path,
            f"images {images.shape} and masks {masks.shape} do not fit",
            "images are (n, H, W) or (n, H, W, C), masks (n, K, H, W)",
        )
    channels = images[:, None] if images.ndim == 3 else np.moveaxis(images, 3, 1)
    readers = tuple(f"reader-{i}" for i in range(masks.shape[1]))
    weights = np.full(len(readers), 1 / len(readers))

    def read(i: int) -> Sample:
        layers = binary_values(masks[i], f"{path}, crop {i}")
        return Sample(f"crop-{i:05}", channels[i], layers, weights, readers)

    return collected(range(len(images)), read, problems)
