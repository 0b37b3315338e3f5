"""The distributed crops of LIDC-IDRI: 128 x 128 pixels around a nodule, four masks each, as pickle or HDF5.

The pickle is a dictionary: name of a crop to ``image``, ``masks`` (one per reader) and ``series_uid``.
Several files in a folder are parts of one. The HDF5 form has a group per split with ``images`` (N, H, W),
``labels`` (N, H, W, readers) and, mostly, ``uids``, which are hashes of the series: patients cannot be told
from them, so that such a file splits by series.

Images keep the values of the file, which for the pickle are 0 to 1 and for the HDF5 form of MoSE -0.5 to 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ambiseg.data.augmentation_kinds import TURNS
from ambiseg.data.files.reading import check_size
from ambiseg.data.files.validation import FileProblem, canonical_image, check_name
from ambiseg.data.importers.array_pickle import PickledArray, read_array_pickle
from ambiseg.data.importers.base import Imported, Lazy
from ambiseg.data.importers.lidc_settings import LidcCropsSettings
from ambiseg.data.importers.lidc_splits import patient_of, split_series
from ambiseg.data.importers.masks import binary_values
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SPLITS, ordered_splits
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

PICKLE_SUFFIXES = (".pickle", ".pkl")
HDF5_SUFFIXES = (".h5", ".hdf5")

_REMEDY = "get the file again, or name another form of the crops"
_MAX_READERS = 16


@dataclass(frozen=True)
class _Crop:
    """One crop before it is read: its name, the series (empty if unknown), the split of the file, and how to
    read it."""

    name: str
    series: str
    stored: str
    read: Callable[[], tuple[NDArray[Any], NDArray[Any]]]


def import_crops(source: Path, settings: LidcCropsSettings) -> Imported:
    """Read the crops of one file, or of all pickles of a folder.

    Args:
        source: a pickle, an HDF5 file, or a folder of pickles.
        settings: options.

    Raises:
        AmbisegError: no crops, a file that cannot be read, or a split that the file does not allow.
    """
    problems: list[FileProblem] = []
    hdf5 = source.suffix.lower() in HDF5_SUFFIXES
    crops = _hdf5_crops(source) if hdf5 else _pickle_crops(source, problems)
    splits, split_name = _splits(crops, settings, source, hdf5)
    series = {crop.series for crop in crops}
    per_split: dict[str, list[_Crop]] = {split: [] for split in SPLITS}
    for crop in crops:
        split = crop.stored if settings.split == "stored" else splits[crop.series]
        per_split.setdefault(split, []).append(crop)
    return Imported(
        DatasetInfo(
            "LIDC-IDRI crops",
            LabelSpace.binary("nodule"),
            augment=TURNS,
            channels=("CT",),
        ),
        {name: _lazy(per_split[name], source, problems) for name in ordered_splits(per_split)},
        split_name,
        problems,
        {"crops": len(crops), "series": len(series)},
    )


def _splits(
    crops: list[_Crop], settings: LidcCropsSettings, source: Path, hdf5: bool
) -> tuple[Mapping[str, str], str]:
    if settings.split == "stored":
        if not all(crop.stored for crop in crops):
            raise AmbisegError(f"{source}: it has no splits of its own: ask for --split patient or lidcv1")
        return {}, "as stored in the file"
    if not all(crop.series for crop in crops):
        raise AmbisegError(f"{source}: it does not tell the series of its crops: ask for --split stored")
    if hdf5 and settings.split == "lidcv1":
        raise AmbisegError(
            f"{source}: it keeps hashes of the series, not their names: ask for --split stored"
        )
    names = {crop.series: patient_of(crop.series) for crop in crops}
    splits, split_name = split_series(names, settings.split, settings.seed)
    return splits, split_name.replace("by patient", "by series") if hdf5 else split_name


def _lazy(crops: list[_Crop], source: Path, problems: list[FileProblem]) -> Lazy:
    def make() -> Iterator[Sample]:
        for crop in crops:
            try:
                yield _sample(crop, f"{source}, crop {crop.name!r}")
            except FileProblem as problem:
                problems.append(problem)

    return Lazy(len(crops), make)


def _sample(crop: _Crop, where: str) -> Sample:
    image, masks = crop.read()
    if (
        image.ndim != 2
        or masks.ndim != 3
        or masks.shape[1:] != image.shape
        or not 1 <= len(masks) <= _MAX_READERS
    ):
        raise FileProblem(where, f"its image has shape {image.shape} and its masks {masks.shape}", _REMEDY)
    check_size(where, masks.shape)
    pixels = canonical_image(image[None], where)
    labels = binary_values(masks, where)
    names = tuple(f"reader-{i}" for i in range(1, len(masks) + 1))
    return Sample(crop.name, pixels, labels, np.full(len(masks), 1 / len(masks)), names)


def _pickle_crops(source: Path, problems: list[FileProblem]) -> list[_Crop]:
    files = [source]
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in PICKLE_SUFFIXES)
        if not files:
            raise FileProblem(
                source,
                "there is no pickle in the folder",
                f"name a file, or a folder with {PICKLE_SUFFIXES[0]} files",
            )
    crops: dict[str, _Crop] = {}
    for path in files:
        entries = read_array_pickle(path)
        if not isinstance(entries, dict) or not entries:
            raise FileProblem(path, "the pickle holds no dictionary of crops", _REMEDY)
        for number, (key, entry) in enumerate(entries.items()):
            name, where = str(key), f"{path}, crop {str(key)[:200]!r}"
            try:
                check_name(name, f"{path}: crop")
                if name in crops:
                    raise FileProblem(
                        where, "another file has a crop of that name", "keep one of the two files"
                    )
                crops[name] = _Crop(name, _series(entry, where), "", _reader(entry, where))
            except FileProblem as problem:
                problems.append(problem)
            except AmbisegError as error:
                problems.append(
                    FileProblem(f"{path}, crop number {number}", str(error), "give it another name")
                )
    if not crops:
        raise problems[0]
    return list(crops.values())


def _series(entry: Any, where: str) -> str:
    if not isinstance(entry, dict) or not {"image", "masks", "series_uid"} <= set(entry):
        raise FileProblem(where, "it has no image, masks and series_uid", _REMEDY)
    series = entry["series_uid"]
    if isinstance(series, bytes):
        series = series.decode("latin-1")
    if not isinstance(series, str) or not series:
        raise FileProblem(where, f"its series_uid is {str(series)[:50]!r}", _REMEDY)
    return str(series)


def _reader(entry: Mapping[str, Any], where: str) -> Callable[[], tuple[NDArray[Any], NDArray[Any]]]:
    def read() -> tuple[NDArray[Any], NDArray[Any]]:
        masks = entry["masks"]
        layers = [_value(mask, where) for mask in (masks if isinstance(masks, (list, tuple)) else [masks])]
        if len({layer.shape for layer in layers}) != 1 or len(layers) > _MAX_READERS:
            raise FileProblem(
                where,
                f"it has {len(layers)} masks of shapes {[layer.shape for layer in layers[:4]]}",
                _REMEDY,
            )
        return _value(entry["image"], where), layers[0] if isinstance(masks, PickledArray) else np.stack(
            layers
        )

    return read


def _value(pickled: Any, where: str) -> NDArray[Any]:
    if not isinstance(pickled, PickledArray):
        raise FileProblem(where, f"it holds a {type(pickled).__name__} where an array belongs", _REMEDY)
    return pickled.value


def _hdf5_crops(path: Path) -> list[_Crop]:
    """Crops of all groups, or of the file itself; the file stays open until they have been read."""
    try:
        file = h5py.File(path, "r", locking=False)
        groups = (
            {"": file}
            if "images" in file
            else {str(name): _member(file, name, h5py.Group, path) for name in file}
        )
        for split in groups:
            check_name(split or "crop", f"{path}: split")
        crops = [crop for split, group in groups.items() for crop in _group_crops(split, group, path)]
    except AmbisegError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise FileProblem(path, f"it cannot be read as HDF5 ({error})", _REMEDY) from error
    if not crops:
        raise FileProblem(path, "the file holds no crops", _REMEDY)
    return crops


def _group_crops(split: str, group: h5py.Group, path: Path) -> list[_Crop]:
    images, labels = (_member(group, name, h5py.Dataset, path) for name in ("images", "labels"))
    uids = _member(group, "uids", h5py.Dataset, path) if "uids" in group else None
    if images.ndim != 3 or labels.ndim != 4 or len(labels) != len(images):
        raise FileProblem(path, f"{group.name} has images {images.shape} and labels {labels.shape}", _REMEDY)
    if images.dtype.kind not in "buif" or labels.dtype.kind not in "buif":
        raise FileProblem(path, f"{group.name} has images {images.dtype} and labels {labels.dtype}", _REMEDY)
    if uids is not None and (uids.shape != images.shape[:1] or uids.dtype.kind not in "iuS"):
        raise FileProblem(path, f"{uids.name} is no list of one name per crop", _REMEDY)
    check_size(path, images.shape[1:])
    check_size(path, labels.shape[1:])
    last = labels.shape[1:3] == images.shape[1:]

    def reader(i: int) -> Callable[[], tuple[NDArray[Any], NDArray[Any]]]:
        def read() -> tuple[NDArray[Any], NDArray[Any]]:
            try:
                masks = labels[i]
                return images[i], np.moveaxis(masks, -1, 0) if last else masks
            except (OSError, RuntimeError, ValueError) as error:
                raise FileProblem(
                    f"{path}, {group.name}, crop {i}", f"it is damaged ({error})", _REMEDY
                ) from error

        return read

    names = [""] * len(images) if uids is None else [_text(uid) for uid in uids[:]]
    prefix = split or "crop"
    return [_Crop(f"{prefix}-{i:05d}", series, split, reader(i)) for i, series in enumerate(names)]


def _text(uid: Any) -> str:
    return uid.decode("latin-1") if isinstance(uid, bytes) else str(uid)


def _member(group: h5py.Group, name: str, kind: type, path: Path) -> Any:
    """A group or data set that lies in this very file."""
    link = group.get(name, getlink=True)
    member = group[name] if isinstance(link, h5py.HardLink) else None
    elsewhere = isinstance(member, h5py.Dataset) and (member.is_virtual or member.external)
    if not isinstance(member, kind) or elsewhere:
        raise FileProblem(path, f"{group.name} has no {kind.__name__.lower()} {name!r} of its own", _REMEDY)
    return member
