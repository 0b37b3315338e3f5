"""Which layout predictions have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ambiseg.data.files.reading import (
    suffix_of,
)
from ambiseg.data.packed import PACKED_SUFFIXES
from ambiseg.errors import AmbisegError
from ambiseg.predictions.arrays import ArrayPredictions
from ambiseg.predictions.folders import MaskFolders, PredictedFolder
from ambiseg.predictions.index import INDEX
from ambiseg.predictions.samples import Predictions
from ambiseg.predictions.written import PREDICTION

ARRAY_SUFFIXES = (".npy", ".npz", *PACKED_SUFFIXES)
_LAYOUTS = (
    "a folder of 'ambiseg predict', a folder with a folder of masks for each image, or one .npy, .npz or .h5"
)


def open_predictions(path: str | Path, order: Sequence[str], ids: Sequence[str] | None = None) -> Predictions:
    """Open predictions of any layout.

    Args:
        path: folder or file.
        order: names of the images of the split, which an array without names follows.
        ids: names of the images of an array, in its order; those in the file if None.

    Raises:
        AmbisegError: nothing there, no such layout, or an array of another number of images.
    """
    found = Path(path)
    if not found.exists():
        raise AmbisegError(f"there are no predictions at {found}: correct the path")
    if found.is_dir():
        if ids is not None:
            raise AmbisegError(f"{found} is a folder, whose images have names: leave out --ids")
        return _folder(found, order)
    suffix = suffix_of(found)
    if suffix not in ARRAY_SUFFIXES:
        raise AmbisegError(f"{found} holds no predictions that can be read: name {_LAYOUTS}")
    return ArrayPredictions(found, order, ids)


def _folder(path: Path, order: Sequence[str]) -> Predictions:
    folders = {
        one.name: one for one in sorted(path.iterdir()) if one.is_dir() and not one.name.startswith(".")
    }
    if (path / INDEX).is_file() or any((one / PREDICTION).is_file() for one in folders.values()):
        return PredictedFolder(path, folders)
    if not folders.keys() & set(order):
        _refuse_data(path, sorted(folders, key=lambda name: (name != "test", name)))
    if not folders:
        raise AmbisegError(f"{path} holds no folder of masks: name {_LAYOUTS}")
    return MaskFolders(path, folders)


def _refuse_data(path: Path, names: Sequence[str]) -> None:
    """Raise `AmbisegError` where a folder is a data set, or a split of one."""
    for place in (path, *(path / name for name in names)):
        if (place / "images").is_dir() and (place / "masks").is_dir():
            what = "a split of a data set" if place == path else "a data set"
            raise AmbisegError(f"{path} is {what}, no predictions: to score its masks name {place / 'masks'}")
