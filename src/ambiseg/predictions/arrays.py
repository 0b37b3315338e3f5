"""Predictions of all images in one array: ``.npy``, ``.npz`` or ``.h5``."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.limits import MAX_VALUES, check_size, npy_header
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import (
    suffix_of,
)
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.packed import PACKED_SUFFIXES, guarded, member
from ambiseg.errors import counted
from ambiseg.labels import LabelSpace
from ambiseg.predictions.archives import MOST_TEXT, Archive, Parts, array_name, in_words, mapped, texts
from ambiseg.predictions.samples import Predictions, Samples, understood
from ambiseg.predictions.written import AGAIN


class ArrayPredictions(Predictions):
    """One array ``(N, n, H, W)`` or ``(N, n, C, H, W)`` of all images, with ``ids`` ``(N,)`` and ``weights`` ``(N, n)``
    where the file has them.

    Of a compressed file the array is unpacked to a temporary file first, so that one image at a time is read.

    Raises:
        AmbisegError: an array of another shape, names of another number, or a damaged file.
    """

    def __init__(self, path: Path, order: Sequence[str], ids: Sequence[str] | None) -> None:
        self.path = path
        if suffix_of(path) in PACKED_SUFFIXES:
            self._values, own, self._weights = guarded(str(path), lambda: _read_packed(path), AGAIN)
        elif suffix_of(path) == ".npz":
            self._room = tempfile.TemporaryDirectory(prefix="ambiseg-")
            with Archive(path) as found:
                self._values, own, self._weights = found.parts(Path(self._room.name))
        else:
            with in_words(path, "cannot be read as npy"), open(path, "rb") as stream:
                npy_header(stream, path)
            self._values, own, self._weights = mapped(path, path), None, None
        shape = tuple(self._values.shape)
        if len(shape) not in (4, 5) or 0 in shape:
            one = "add the axis of samples (array[:, None]), or " if len(shape) == 3 else ""
            raise FileProblem(
                path,
                f"the array has shape {shape}",
                f"{one}save label maps as (images, samples, height, width), probabilities of several classes as (images,"
                " samples, classes, height, width)",
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
                f"it holds {counted(shape[0], 'image')}, {what} {len(names)}",
                "save an array 'ids' with it (npz, h5), or give --ids FILE with one id a line",
            )
        self.ids = tuple(_distinct(names, path))
        self._place = {name: i for i, name in enumerate(self.ids)}
        self._in_order = ids is None and own is None

    def remarks(self) -> list[str]:
        """That images were taken in the order of the split."""
        words = "names no ids: its images are taken in the order of the split, sorted by id"
        return [f"{self.path} {words}"] if self._in_order else []

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks of one image."""
        place = self._place[sample_id]
        values: NDArray[Any] = guarded(str(self.path), lambda: np.asarray(self._values[place]), AGAIN)
        masks, probabilities = understood(values, rules, labels, f"{self.path}, id {sample_id!r}")
        weights = None if self._weights is None else self._weights[place].astype(np.float64)
        return Samples(masks, weights, probabilities)


def _read_packed(path: Path) -> Parts:
    """The array of masks of an HDF5 file, which stays open; names and weights."""
    file = h5py.File(path, "r", locking=False)
    name = array_name([key for key in file if isinstance(file.get(key, getlink=True), h5py.HardLink)], path)
    stored: dict[str, Any] = {
        one: member(file, one, h5py.Dataset, str(path), AGAIN)
        for one in (name, "ids", "weights")
        if one in file
    }
    for key, data in stored.items():
        if data.dtype.kind not in ("S" if key == "ids" else "buif"):
            remedy = "save ids as numpy.array(ids, 'S')" if key == "ids" else "save integers or floats"
            raise FileProblem(path, f"{key} holds values of type {data.dtype}", remedy)
        if data.chunks is not None and math.prod(data.chunks) > MAX_VALUES:
            raise FileProblem(path, f"{key} is stored in parts of {data.chunks} values", AGAIN)
        if key != name and data.nbytes > MOST_TEXT * 8:
            raise FileProblem(path, f"{key} of shape {data.shape} is too large", AGAIN)
    ids = texts(stored["ids"][()]) if "ids" in stored else None
    return stored[name], ids, stored["weights"][()] if "weights" in stored else None


def read_ids(path: str | Path) -> list[str]:
    """Names of images from a text file, one a line; empty lines are left out.

    Raises:
        AmbisegError: it cannot be read, or names an image twice.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MOST_TEXT:
            raise FileProblem(file, f"it is larger than {MOST_TEXT >> 20} MiB", "name a list of ids")
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise FileProblem(file, "there is no such file", "correct the path") from error
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
