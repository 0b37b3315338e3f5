"""Predictions of any program, read from files one image at a time.

Layouts, see ``docs/metrics/your-method.md``::

    FOLDER/predictions.jsonl, FOLDER/<image>/prediction.json    what `ambiseg predict` writes
    FOLDER/<id>/<sample>.png, .npy, .nii.gz, ...                a file for each mask
    FILE.npy, FILE.npz, FILE.h5                                 one array (N, n, H, W) of all images

Whole numbers are label maps. Fractions are per-pixel probabilities of the foreground, where there are two classes.
As for data, no pickle is read, no link is followed out of a folder, and sizes are checked before anything is decoded.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg.atomic_write import check_space
from ambiseg.data.files.limits import MAX_VALUES, check_size, npy_header
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import (
    MASK_SUFFIXES,
    NIFTI_SUFFIXES,
    read_image,
    read_mask,
    stem_of,
    suffix_of,
)
from ambiseg.data.files.validation import FileProblem, canonical_mask, mask_problems, weight_problems
from ambiseg.data.folder import read_weights, scan_folder, stays_inside
from ambiseg.data.packed import PACKED_SUFFIXES, guarded, member
from ambiseg.defaults import FOREGROUND_THRESHOLD
from ambiseg.engine.prediction_index import INDEX
from ambiseg.errors import AmbisegError
from ambiseg.json_files import MAX_BYTES, read_json_lines
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

ARRAY_SUFFIXES = (".npy", ".npz", *PACKED_SUFFIXES)
WEIGHT_HEADER = ("id", "sample", "weight")
TOLERANCE = 1e-3
"""How far the sum of weights may lie from 1; they are divided by it then."""
_EXACT = 1e-6
"""Sums that are as near to 1 as 32 bits allow stay as they are."""
_MOST_TEXT = 1 << 26
_AGAIN = "write the predictions again"
_LAYOUTS = (
    "a folder of 'ambiseg predict', a folder with a folder of masks for each image, or one .npy, .npz or .h5"
)


class UnfitError(AmbisegError):
    """Predictions of an image that do not fit its annotations.

    Attributes:
        kind: the kind of mistake, a key of `ambiseg.engine.score.MISTAKES`.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True)
class Samples:
    """What a file holds of one image.

    Attributes:
        masks: ``(n, H, W)`` uint8 label maps.
        weights: ``(n,)`` as stated, None where nothing is said of them.
        probabilities: ``(n, C, H, W)`` float32, None where there are label maps only.
        scores: ``(n,)``, None where there are none.
    """

    masks: NDArray[np.uint8]
    weights: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float32] | None = None
    scores: NDArray[np.float64] | None = None

    def as_set(self, labels: LabelSpace) -> MaskSet:
        """The mask set ``(1, n, H, W)``; weights are equal if none are stated.

        Raises:
            UnfitError: weights that are no distribution.
        """
        count = len(self.masks)
        weights = np.full(count, 1 / count) if self.weights is None else _distribution(self.weights)
        arrays = [weights.astype(np.float32), self.scores, self.probabilities]
        share, scores, probabilities = (
            None if array is None else torch.from_numpy(np.ascontiguousarray(array, np.float32))[None]
            for array in arrays
        )
        assert share is not None
        return MaskSet(torch.from_numpy(self.masks)[None], share, labels, scores, probabilities)


def _distribution(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise UnfitError("weights", "a weight is negative, NaN or infinite")
    total = float(weights.sum())
    if abs(total - 1) > TOLERANCE:
        raise UnfitError("weights", f"sum {total:.4g}")
    return weights if abs(total - 1) <= _EXACT else weights / total


def understood(
    values: NDArray[Any], rules: MaskRules, labels: LabelSpace, where: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Label maps ``(n, H, W)`` of numbers, and ``(n, 1, H, W)`` probabilities where the numbers are that.

    Args:
        values: ``(n, H, W)`` of any numeric type.
        rules: what the numbers of masks mean.
        labels: the classes.
        where: file and image, for messages.

    Raises:
        UnfitError: probabilities outside of [0, 1], or numbers that are no classes.

    Example:
        >>> space = LabelSpace.binary()
        >>> understood(np.array([[[0.2, 0.7]]]), MaskRules.of(space), space, "a")[0]
        array([[[0, 1]]], dtype=uint8)
    """
    if values.dtype.kind == "f" and labels.is_binary and not np.array_equal(values, np.round(values)):
        if not np.isfinite(values).all():
            raise UnfitError("range", "NaN or infinite")
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            raise UnfitError("range", f"{low:.4g} to {high:.4g}")
        probabilities = values.astype(np.float32)
        return (probabilities > FOREGROUND_THRESHOLD).astype(np.uint8), probabilities[:, None]
    if values.dtype.kind in "bui" and values.min() >= 0 and values.max() < labels.classes:
        return values.astype(np.uint8), None
    try:
        masks = np.stack([canonical_mask(one, where, rules) for one in values])
    except FileProblem as problem:
        raise UnfitError("classes", problem.problem) from problem
    for mask in masks:
        if problems := mask_problems(mask, None, labels, where):
            raise UnfitError("classes", problems[0].problem)
    return masks, None


class Predictions(ABC):
    """Masks of several images in files.

    Attributes:
        path: where they lie.
        ids: names of the images.
        remark: what a user should know of how they are read; empty if nothing.
    """

    path: Path
    ids: tuple[str, ...]
    remark: str = ""

    @abstractmethod
    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """Read the masks of one image; `AmbisegError` if its files are wrong or do not fit the classes."""
        ...


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
        return _folder(found)
    suffix = suffix_of(found)
    if suffix not in ARRAY_SUFFIXES:
        raise AmbisegError(f"{found} holds no predictions that can be read: name {_LAYOUTS}")
    return ArrayPredictions(found, order, ids)


def read_ids(path: str | Path) -> list[str]:
    """Names of images from a text file, one a line; empty lines are left out.

    Raises:
        AmbisegError: it cannot be read, or names an image twice.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MOST_TEXT:
            raise FileProblem(file, f"it is larger than {_MOST_TEXT >> 20} MiB", "name a list of ids")
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileProblem(
            file, f"cannot be read ({error})", "save it as UTF-8 text, one id a line"
        ) from error
    return _distinct([line.strip() for line in lines if line.strip()], file)


def _distinct(ids: list[str], file: Path) -> list[str]:
    if len(set(ids)) < len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise FileProblem(file, f"id {twice!r} occurs twice", "give every image its own id")
    return ids


# -- folders -------------------------------------------------------------------------------------------------


def _folder(path: Path) -> Predictions:
    folders = {
        one.name: one for one in sorted(path.iterdir()) if one.is_dir() and not one.name.startswith(".")
    }
    if (path / INDEX).is_file() or any((one / "prediction.json").is_file() for one in folders.values()):
        return PredictedFolder(path, folders)
    if not folders:
        raise AmbisegError(f"{path} holds no folder of masks: name {_LAYOUTS}")
    return MaskFolders(path, folders)


FILTERS = ("score_threshold", "probability_threshold", "duplicate_iou", "top")
"""Settings of ``prediction.json`` that drop masks."""


class PredictedFolder(Predictions):
    """What `ambiseg predict` wrote; an image is named by its file without the suffix.

    Scores are read where no filter dropped masks (``--all``): else nothing is left to select.

    Raises:
        AmbisegError: two images have one name.
    """

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        self.path = path
        index = [line for line in read_json_lines(path / INDEX) if isinstance(line, dict) and "image" in line]
        names = {str(line["folder"]): stem_of(str(line["image"])) for line in index if line.get("folder")}
        self.folders: dict[str, Path] = {}
        for folder, place in folders.items():
            if (place / "prediction.json").is_file():
                name = names.get(folder, folder)
                if name in self.folders:
                    raise AmbisegError(
                        f"{path} holds two predictions of an image {name!r}: predict the images of one split only"
                    )
                self.folders[name] = place
        self.ids = tuple(self.folders)

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks that the file ``prediction.json`` names, with their probabilities and scores."""
        folder = self.folders[sample_id]
        place = folder / "prediction.json"
        content = _json(place)
        try:
            entries = content["masks"]
            files = [_inside(folder, entry["file"]) for entry in entries]
            weights = np.array([float(entry["probability"]) for entry in entries])
            filtered = any(content.get("settings", {}).get(name) is not None for name in FILTERS)
            scores = [None if filtered else entry.get("score") for entry in entries]
            known = None if not scores or None in scores else np.array(scores, np.float64)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileProblem(place, f"it is no prediction of ambiseg ({error!r})", _AGAIN) from error
        if not files:
            raise FileProblem(place, "it names no mask", _AGAIN)
        masks, _ = _stacked([_read_file(file, rules, labels)[0] for file in files], folder)
        probabilities = None
        if content.get("probabilities") is not None:
            archive = _inside(folder, content["probabilities"])
            with _Archive(archive) as found:
                probabilities = found.small("probabilities", MAX_VALUES * 4).astype(np.float32)
            wanted = (len(masks), labels.channels, *masks.shape[1:])
            if probabilities.shape != wanted:
                raise FileProblem(archive, f"the array has shape {probabilities.shape}, not {wanted}", _AGAIN)
        return Samples(masks, weights, probabilities, known)


class MaskFolders(Predictions):
    """A folder for each image, with a file for each mask.

    Raises:
        AmbisegError: weights that cannot be read.
    """

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        self.path, self.folders, self.ids = path, dict(folders), tuple(folders)
        table, plain = path / "weights.csv", path / "weights.json"
        if table.exists() and plain.exists():
            raise AmbisegError(f"{path} holds weights.csv and weights.json: keep one of them")
        self.stated, self.table = {}, table
        if plain.exists():
            self.stated, self.table = _json_weights(plain), plain
        elif table.exists():
            self.stated, problems = read_weights(table, path, WEIGHT_HEADER)
            if problems:
                raise problems[0]

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks of the folder of an image, in the order of their names."""
        folder = self.folders[sample_id]
        files, problems = scan_folder(folder, self.path, MASK_SUFFIXES, "mask")
        if problems:
            raise problems[0]
        if not files:
            raise FileProblem(folder, "the folder holds no mask", "add masks, or remove the folder")
        masks, probabilities = [], []
        for file in files.values():
            mask, share = _read_file(file, rules, labels)
            masks.append(mask)
            probabilities.append(share)
        stack, shares = _stacked(masks, folder, probabilities)
        return Samples(stack, self._weights(sample_id, tuple(files)), shares)

    def _weights(self, sample_id: str, names: tuple[str, ...]) -> NDArray[np.float64] | None:
        stated = self.stated.get(sample_id)
        if stated is None:
            return None
        for problem in weight_problems(stated, names, self.table, sample_id):
            if "sum to" not in problem.problem:
                raise UnfitError("weights", problem.problem)
        return np.array([stated[name] for name in names])


def _read_file(
    path: Path, rules: MaskRules, labels: LabelSpace
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """One mask ``(H, W)``, and its probabilities ``(1, H, W)`` if it holds fractions."""
    if labels.is_binary and suffix_of(path) in (".npy", *NIFTI_SUFFIXES):
        values = read_image(path)
        if values.dtype == np.float32 and len(values) == 1:
            masks, probabilities = understood(values, rules, labels, str(path))
            return masks[0], None if probabilities is None else probabilities[0]
    mask = read_mask(path, rules)
    if problems := mask_problems(mask, None, labels, path):
        raise UnfitError("classes", problems[0].problem)
    return mask, None


def _stacked(
    masks: Sequence[NDArray[np.uint8]], folder: Path, probabilities: Sequence[NDArray[np.float32] | None] = ()
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    sizes = {mask.shape for mask in masks}
    if len(sizes) > 1:
        sizes_text = " and ".join(f"{h}x{w}" for h, w in sorted(sizes)[:2])
        raise FileProblem(
            folder, f"its masks have the sizes {sizes_text}", "save them at the size of the image"
        )
    check_size(folder, (len(masks), *masks[0].shape))
    if all(share is None for share in probabilities):
        return np.stack(masks), None
    shares = [
        mask[None].astype(np.float32) if share is None else share
        for mask, share in zip(masks, probabilities, strict=True)
    ]
    return np.stack(masks), np.stack(shares)


def _inside(folder: Path, name: Any) -> Path:
    """A file of ``folder`` that another file names; `FileProblem` if it lies elsewhere."""
    if not isinstance(name, str) or Path(name).name != name or not stays_inside(folder / name, folder):
        raise FileProblem(folder, f"it names the file {name!r}, which lies elsewhere", _AGAIN)
    return folder / name


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileProblem(path, "the file is too large", _AGAIN)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, AmbisegError):
            raise
        raise FileProblem(path, f"cannot be read as JSON ({error})", _AGAIN) from error


def _json_weights(path: Path) -> dict[str, dict[str, float]]:
    """Weights by id and sample, ``{id: {sample: weight}}``."""
    content = _json(path)
    try:
        return {
            str(name): {str(sample): float(weight) for sample, weight in own.items()}
            for name, own in content.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise FileProblem(
            path, "it is no mapping of numbers", 'write {"id": {"sample": weight}}, the sample without suffix'
        ) from error


# -- arrays --------------------------------------------------------------------------------------------------


class ArrayPredictions(Predictions):
    """One array ``(N, n, H, W)`` of all images, with ``ids`` ``(N,)`` and ``weights`` ``(N, n)`` where the file has them.

    Of a compressed file the array is unpacked to a temporary file first, so that one image at a time is read.

    Raises:
        AmbisegError: an array of another shape, names of another number, or a damaged file.
    """

    def __init__(self, path: Path, order: Sequence[str], ids: Sequence[str] | None) -> None:
        self.path = path
        if suffix_of(path) in PACKED_SUFFIXES:
            self._values, own, self._weights = guarded(str(path), lambda: _read_packed(path), _AGAIN)
        elif suffix_of(path) == ".npz":
            self._room = tempfile.TemporaryDirectory(prefix="ambiseg-")
            with _Archive(path) as found:
                self._values, own, self._weights = found.parts(Path(self._room.name))
        else:
            with open(path, "rb") as stream:
                try:
                    npy_header(stream, path)
                except ValueError as error:
                    raise FileProblem(path, f"cannot be read as npy ({error})", _AGAIN) from error
            self._values, own, self._weights = _mapped(path, path), None, None
        shape = tuple(self._values.shape)
        if len(shape) != 4 or 0 in shape:
            raise FileProblem(
                path, f"the array has shape {shape}", "save it as (images, samples, height, width)"
            )
        check_size(path, shape[1:])
        if self._weights is not None and self._weights.shape != shape[:2]:
            raise FileProblem(
                path,
                f"weights of shape {self._weights.shape} for masks of shape {shape}",
                "save them as (N, n)",
            )
        names = list(own if ids is None and own is not None else order if ids is None else ids)
        if len(names) != shape[0]:
            what = "the split has" if ids is None and own is None else "the list of ids has"
            raise FileProblem(
                path,
                f"it holds {shape[0]} images, {what} {len(names)}",
                "save an array 'ids' with it (npz, h5), or give --ids FILE with one id a line",
            )
        self.ids = tuple(_distinct(names, path))
        self._place = {name: i for i, name in enumerate(self.ids)}
        if ids is None and own is None:
            self.remark = f"{path} names no ids: its images are taken in the order of the split, sorted by id"

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks of one image."""
        place = self._place[sample_id]
        values: NDArray[Any] = guarded(str(self.path), lambda: np.asarray(self._values[place]), _AGAIN)
        masks, probabilities = understood(values, rules, labels, f"{self.path}, id {sample_id!r}")
        weights = None if self._weights is None else self._weights[place].astype(np.float64)
        return Samples(masks, weights, probabilities)


Parts = tuple[Any, list[str] | None, NDArray[Any] | None]
"""Array of masks, names and weights of a file."""


def _array_name(names: Iterable[str], path: Path) -> str:
    """Which array of a file holds the masks: the only one beside ids and weights, or that of a usual name."""
    found = [name for name in names if name not in ("ids", "weights")]
    usual = [name for name in ("predictions", "masks") if name in found]
    if len(found) == 1 or usual:
        return found[0] if len(found) == 1 else usual[0]
    raise FileProblem(path, f"it holds the arrays {found}", "name that of the masks 'predictions'")


class _Archive:
    """An ``.npz``, whose arrays are bounded before they are unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Archive:
        try:
            self.archive = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise FileProblem(self.path, f"cannot be read as npz ({error})", _AGAIN) from error
        self.members = {
            info.filename.removesuffix(".npy"): info
            for info in self.archive.infolist()
            if info.filename.endswith(".npy")
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def parts(self, room: Path) -> Parts:
        """The array of masks, unpacked into ``room`` and mapped; names and weights."""
        name = _array_name(self.members, self.path)
        info, file = self.members[name], room / "masks.npy"
        self._checked(info, "buif", None)
        check_space(room, info.file_size, "the array, unpacked,")
        with _in_words(self.path), self.archive.open(info) as packed, open(file, "wb") as stream:
            shutil.copyfileobj(packed, stream, 1 << 20)
        ids = None
        if "ids" in self.members:
            ids = _texts(self.small("ids", _MOST_TEXT, "USiu"))
        weights = self.small("weights", _MOST_TEXT * 8) if "weights" in self.members else None
        return _mapped(file, self.path), ids, weights

    def small(self, name: str, most: int, kinds: str = "buif") -> NDArray[Any]:
        """An array of at most ``most`` bytes as a whole."""
        if name not in self.members:
            raise FileProblem(self.path, f"it has no array {name!r}", _AGAIN)
        info = self.members[name]
        self._checked(info, kinds, most)
        with _in_words(self.path):
            values: NDArray[Any] = np.lib.format.read_array(
                io.BytesIO(self.archive.read(info)), allow_pickle=False
            )
        return values

    def _checked(self, info: zipfile.ZipInfo, kinds: str, most: int | None) -> None:
        with _in_words(self.path), self.archive.open(info) as stream:
            shape, dtype = npy_header(stream, self.path, kinds)
        size = math.prod(shape) * dtype.itemsize
        if size > info.file_size or (most is not None and info.file_size > most):
            raise FileProblem(self.path, f"an array of shape {shape} does not fit the file", _AGAIN)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """Turn what zip and NumPy complain about into a `FileProblem`."""
    try:
        yield
    except AmbisegError:
        raise
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise FileProblem(path, f"the file is damaged ({error})", _AGAIN) from error


class _Rows:
    """The rows of an array on disk, read one by one: pages of a mapped file would stay in memory."""

    def __init__(self, file: Path, mapped: np.memmap[Any, Any]) -> None:
        self.file, self.offset, self.shape, self.dtype = file, mapped.offset, mapped.shape, mapped.dtype

    def __getitem__(self, row: int) -> NDArray[Any]:
        count = math.prod(self.shape[1:])
        start = self.offset + row * count * self.dtype.itemsize
        return np.fromfile(self.file, self.dtype, count, offset=start).reshape(self.shape[1:])


def _mapped(file: Path, path: Path) -> Any:
    """An array of ``file``, of which rows can be taken; ``path`` is what messages name."""
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise FileProblem(path, f"cannot be read as an array ({error})", _AGAIN) from error
    return _Rows(file, values) if values.flags.c_contiguous and values.ndim else values


def _texts(values: NDArray[Any]) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in values.ravel().tolist()]


def _read_packed(path: Path) -> Parts:
    """The array of masks of an HDF5 file, which stays open; names and weights."""
    file = h5py.File(path, "r", locking=False)
    name = _array_name([key for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)], path)
    stored: dict[str, Any] = {
        one: member(file, one, h5py.Dataset, str(path), _AGAIN)
        for one in (name, "ids", "weights")
        if one in file
    }
    for key, data in stored.items():
        if data.dtype.kind not in ("S" if key == "ids" else "buif"):
            remedy = "save ids as numpy.array(ids, 'S')" if key == "ids" else "save integers or floats"
            raise FileProblem(path, f"{key} holds values of type {data.dtype}", remedy)
        if data.chunks is not None and math.prod(data.chunks) > MAX_VALUES:
            raise FileProblem(path, f"{key} is stored in parts of {data.chunks} values", _AGAIN)
        if key != name and data.nbytes > _MOST_TEXT * 8:
            raise FileProblem(path, f"{key} of shape {data.shape} is too large", _AGAIN)
    ids = _texts(stored["ids"][()]) if "ids" in stored else None
    return stored[name], ids, stored["weights"][()] if "weights" in stored else None
