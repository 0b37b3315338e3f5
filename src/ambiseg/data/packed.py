"""A data set as one HDF5 file: the content of the folder form, decoded once, fast from many processes.

Layout, version 1::

    attributes             format = "ambiseg", version = 1, info = text of dataset.yaml
    /<split>/ids           (n,) strings, in the order written
    /<split>/samples/<i>/  image (C, H, W), masks (N, H, W) uint8, weights (N,), attribute annotators (N,)

Every array has the checksum of HDF5, Fletcher-32, and an attribute crc32: to Fletcher-32 the bytes 00 00 and ff ff are
the same, so a block of white pixels that a disk loses would come back as a block of black ones.

A file from a stranger is not trusted: links, external and virtual storage are refused, and sizes are checked
before reading. All text has a fixed length: the library can hang on damaged text of variable length.
"""

from __future__ import annotations

import errno
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from ambiseg.atomic_write import replacing_file
from ambiseg.data.files.limits import MAX_VALUES, check_size
from ambiseg.data.files.validation import (
    FileProblem,
    canonical_image,
    canonical_mask,
    canonical_sample,
    canonical_weights,
    check_name,
    mask_problems,
    weight_problems,
)
from ambiseg.data.folder import FolderSplit, Progress, folder_splits, inputs_of, missing_split, read_info
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import ordered_splits
from ambiseg.data.room import RoomCheck
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import check_inputs

FORMAT, VERSION = "ambiseg", 1
PACKED_SUFFIXES = (".h5", ".hdf5")

_MAX_BYTES = 1 << 29
_MAX_MASKS = 4096
_WHOLE_CHUNK = 1 << 20
_AGAIN = "pack the data again"
_Value = TypeVar("_Value")


def write_packed(
    out: str | PathLike[str],
    splits: Mapping[str, Iterable[Sample]],
    info: DatasetInfo,
    progress: Progress | None = None,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> Path:
    """Write samples into one HDF5 file; either all of it appears or nothing does.

    Args:
        out: file to create.
        splits: samples per split, taken one at a time.
        info: stored as the text of dataset.yaml.
        progress: called after every image.
        overwrite: replace ``out`` if it is a packed data set.
        inputs: files and folders that the samples are read from; they are never replaced.

    Raises:
        AmbisegError: ``out`` exists, a sample is not valid (size, class, weights, name), the disk is full.
    """
    target = Path(out)
    check_inputs(target, inputs)
    with (
        replacing_file(target, overwrite, is_packed, alone=True) as partial,
        open(
            partial, "w+b"
        ) as stream,  # the library itself can crash where the disk is full; a stream raises
        h5py.File(stream, "w", libver=("v110", "v110")) as file,
    ):
        room = RoomCheck(partial, target, splits)
        file.attrs.update(format=np.bytes_(FORMAT), version=VERSION, info=_text_of(info))
        for split, samples in splits.items():
            check_name(split, "split")
            _write_split(file.create_group(split), split, samples, info, room, progress)
    return target


def is_packed(path: Path) -> bool:
    """Whether ``path`` is a packed data set: only such a file is ever overwritten."""
    try:
        _open(path).close()
    except AmbisegError:
        return False
    return True


def write_packed_info(path: str | PathLike[str], info: DatasetInfo) -> None:
    """Replace the text of dataset.yaml in a packed file; `AmbisegError` if it is not one."""
    _open(Path(path)).close()
    with h5py.File(path, "r+") as file:
        file.attrs["info"] = _text_of(info)


def _text_of(info: DatasetInfo) -> np.bytes_:
    """The text of dataset.yaml; a packed file has no files to find."""
    return np.bytes_(replace(info, files=None).to_yaml().encode())


def pack(
    source_root: str | PathLike[str],
    out: str | PathLike[str],
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Pack a folder into one HDF5 file with the same digests.

    Raises:
        AmbisegError: the folder is no data set, a file in it is wrong, ``out`` exists, disk full.
    """
    root = Path(source_root)
    if not root.is_dir():
        raise AmbisegError(f"{root} is not a folder: name the data set to pack")
    info = read_info(root)
    splits = {name: FolderSplit(root, name, info) for name in folder_splits(root, info)}
    if not splits:
        raise missing_split(root, "train", ())
    info = next(iter(splits.values())).info
    return write_packed(out, splits, info, progress, overwrite, inputs_of(root, info))


def _write_split(
    group: h5py.Group,
    split: str,
    samples: Iterable[Sample],
    info: DatasetInfo,
    room: RoomCheck,
    progress: Progress | None,
) -> None:
    ids: dict[str, None] = {}
    entries = group.create_group("samples")
    total = len(samples) if isinstance(samples, Sized) else None
    for given in samples:
        sample = canonical_sample(given, info)
        if sample.id in ids:
            raise AmbisegError(
                f"id {sample.id!r} occurs twice in split {split!r}: give every image its own id"
            )
        entry = entries.create_group(str(len(ids)))
        _write_array(entry, "image", sample.image)
        _write_array(entry, "weights", sample.weights)
        _write_array(entry, "masks", sample.masks, compression="gzip", compression_opts=4)
        entry.attrs["annotators"] = _encoded(sample.annotators)
        ids[sample.id] = None
        if room.due:
            group.file.flush()
        room.wrote_one()
        if progress is not None:
            progress(split, len(ids), total)
    _write_array(group, "ids", _encoded(ids))


def _write_array(entry: h5py.Group, name: str, values: NDArray[Any], **options: Any) -> None:
    """Store an array with a checksum, so that a flipped bit is an error and no other number."""
    chunks = values.shape if 0 < values.size <= _WHOLE_CHUNK else True
    stored = entry.create_dataset(name, data=values, chunks=chunks, fletcher32=True, **options)
    stored.attrs["crc32"] = np.uint32(_crc32(values))


def _crc32(values: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _values(stored: h5py.Dataset, where: str) -> NDArray[Any]:
    """The values of an array, compared with the checksum of those that were written; older files have none."""
    values: NDArray[Any] = stored[()]
    checksum = _attribute(stored, "crc32", "iu")
    if checksum is not None and checksum != _crc32(values):
        said = f"{stored.name} does not have the checksum in its attribute crc32"
        raise FileProblem(where, said, f"{_AGAIN}, or remove the attribute if you changed the array yourself")
    return values


def _encoded(names: Iterable[str]) -> NDArray[np.bytes_]:
    texts = [name.encode() for name in names]
    return np.array(texts, dtype=f"S{max(map(len, texts), default=1)}")


def _decoded(texts: NDArray[np.bytes_]) -> list[str]:
    return [text.decode() for text in texts.tolist()]


def _attribute(holder: h5py.Group | h5py.Dataset, name: str, kinds: str) -> Any:
    """An attribute whose type is one of NumPy's ``kinds``, else None."""
    if name not in holder.attrs or holder.attrs.get_id(name).dtype.kind not in kinds:
        return None
    return holder.attrs[name]


def member(group: h5py.Group, name: str, kind: type, where: str, again: str = _AGAIN) -> Any:
    """A group or data set that lies in this very file."""
    link = group.get(name, getlink=True)
    if link is None:
        raise FileProblem(where, f"{group.name}/{name} is missing", again)
    if not isinstance(link, h5py.HardLink):
        raise FileProblem(where, f"{group.name}/{name} is a link, which is not followed", again)
    found = group[name]
    if not isinstance(found, kind):
        raise FileProblem(where, f"{group.name}/{name} is not a {kind.__name__.lower()}", again)
    if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
        raise FileProblem(where, f"{found.name} keeps its values in other files", again)
    return found


def _open(path: Path) -> h5py.File:
    """Open a packed file for reading; `AmbisegError` unless it is one of ours."""
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        if error.errno == errno.ENOENT or not path.exists():
            raise AmbisegError(f"{path}: there is no such file: correct the path of the data set") from error
        raise FileProblem(
            path, "cannot be opened as HDF5; it may be truncated or of another format", _AGAIN
        ) from error
    try:
        guarded(str(path), lambda: _check_header(file, path))
    except BaseException:
        file.close()
        raise
    return file


def _check_header(file: h5py.File, path: Path) -> None:
    version = _attribute(file, "version", "iu")
    if _attribute(file, "format", "S") != FORMAT.encode() or _attribute(file, "info", "S") is None:
        raise FileProblem(
            path, "this HDF5 file is not a packed data set", "pack a folder with `ambiseg data pack`"
        )
    if version != VERSION:
        raise FileProblem(
            path, f"its format version {version} is not {VERSION}", "update ambiseg or pack again"
        )


def packed_splits(path: str | PathLike[str]) -> list[str]:
    """Names of the splits of a packed file; `AmbisegError` if it is not one."""
    with _open(Path(path)) as file:
        return guarded(str(path), lambda: ordered_splits(file))


class PackedSplit(Split):
    """One split of a packed file; the same interface as `FolderSplit`.

    The file is opened at first use in every process, so the object can be sent to data loader workers.

    Args:
        path: the HDF5 file.
        split: name of the split.

    Raises:
        AmbisegError: no such file or split, not a packed data set, truncated, or with links.
    """

    def __init__(self, path: str | PathLike[str], split: str) -> None:
        self.path, self.split = Path(path), split
        self._file: h5py.File | None = None
        self._owner = -1
        with _open(self.path) as file:
            info, names = guarded(str(self.path), lambda: self._contents(file))
        for name in names:
            check_name(name, f"{self.path}: id")
        if len(set(names)) != len(names):
            raise FileProblem(self.path, f"/{split}/ids holds an id twice", _AGAIN)
        self.info = info if info.name else replace(info, name=self.path.stem)
        self._order = sorted(range(len(names)), key=names.__getitem__)
        self.ids = tuple(names[i] for i in self._order)

    def _contents(self, file: h5py.File) -> tuple[DatasetInfo, list[str]]:
        splits = ordered_splits(file)
        if self.split not in splits:
            raise missing_split(self.path, self.split, splits)
        ids = member(
            member(file, self.split, h5py.Group, str(self.path)), "ids", h5py.Dataset, str(self.path)
        )
        if ids.ndim != 1 or ids.dtype.kind != "S" or ids.nbytes > _MAX_BYTES:
            raise FileProblem(self.path, f"{ids.name} is not a list of names", _AGAIN)
        return DatasetInfo.from_yaml(file.attrs["info"].decode(), str(self.path)), _decoded(
            _values(ids, str(self.path))
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_owner": -1}

    def __getitem__(self, index: int) -> Sample:
        """Read one image, all its masks and their weights.

        Raises:
            AmbisegError: the file was damaged or made by hand and its content is not valid.
        """
        sample, problems = self.inspect(index)
        if problems:
            raise problems[0]
        return sample

    def inspect(self, index: int) -> tuple[Sample, list[FileProblem]]:
        """Read one sample and all that is wrong between its parts.

        Raises:
            AmbisegError: the sample cannot be read at all.
        """
        where = f"{self.path}, {self.split}, id {self.ids[index]!r}"
        return guarded(where, lambda: self._read(self._order[index], self.ids[index], where))

    def _handle(self) -> h5py.File:
        if self._file is None or self._owner != os.getpid():
            if self._file is not None:
                self._file.close()
            self._file, self._owner = _open(self.path), os.getpid()
        return self._file

    def _read(self, position: int, sample_id: str, where: str) -> tuple[Sample, list[FileProblem]]:
        group = member(self._handle(), self.split, h5py.Group, where)
        entry = member(member(group, "samples", h5py.Group, where), str(position), h5py.Group, where)
        parts = {name: member(entry, name, h5py.Dataset, where) for name in ("image", "masks", "weights")}
        image, masks, weights = parts["image"], parts["masks"], parts["weights"]
        if image.ndim != 3 or masks.ndim != 3 or masks.dtype != np.uint8 or weights.shape != masks.shape[:1]:
            raise FileProblem(
                where, f"image {image.shape}, masks {masks.shape}, weights {weights.shape}", _AGAIN
            )
        if not 1 <= len(masks) <= _MAX_MASKS:
            raise FileProblem(where, f"it has {len(masks)} masks", f"pack 1 to {_MAX_MASKS} masks per image")
        for part in parts.values():
            if part.dtype.kind not in "buif":
                raise FileProblem(where, f"{part.name} holds values of type {part.dtype}", _AGAIN)
            if part.chunks is not None and math.prod(part.chunks) > MAX_VALUES:
                raise FileProblem(where, f"{part.name} is stored in parts of {part.chunks} values", _AGAIN)
        check_size(where, image.shape)
        check_size(where, masks.shape)
        names = tuple(_decoded(_attribute(entry, "annotators", "S")))
        pixels, rules = canonical_image(_values(image, where), where), self.info.mask_rules
        layers = np.stack([canonical_mask(layer, where, rules) for layer in _values(masks, where)])
        values = np.asarray(_values(weights, where), dtype=np.float64)
        problems = []
        for name, layer in zip(names, layers, strict=True):
            problems += mask_problems(layer, pixels.shape[1:], self.info.labels, f"{where}, mask {name!r}")
        if not np.isfinite(values).all():
            problems.append(FileProblem(where, "a weight is NaN or infinite", _AGAIN))
        problems += weight_problems(dict(zip(names, values.tolist(), strict=True)), names, where, sample_id)
        return Sample(sample_id, pixels, layers, canonical_weights(values), names), problems


def guarded(where: str, read: Callable[[], _Value], again: str = _AGAIN) -> _Value:
    """The value of ``read``; what the HDF5 library complains about becomes a `FileProblem`."""
    try:
        return read()
    except AmbisegError:
        raise
    except Exception as error:
        raise FileProblem(where, f"the file is damaged ({error})", again) from error
