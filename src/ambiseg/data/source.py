"""One door to data, whichever form they have: a folder of images, one packed file, or objects in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ambiseg.atomic_write import replacing_file, replacing_folder, write_text
from ambiseg.data.class_flip_view import FlippedSplit
from ambiseg.data.folder import DATA, FolderSplit, Progress, folder_splits, write_folder
from ambiseg.data.info import DatasetInfo
from ambiseg.data.memory.dataset import DataLike, InMemory, Items, as_data, dataset, is_split
from ambiseg.data.packed import (
    PACKED_SUFFIXES,
    PackedSplit,
    is_packed,
    packed_splits,
    write_packed,
    write_packed_info,
)
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split as Split
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.owned_files import check_inputs


class SpreadSplit(Split):
    """Some images of a split, evenly spread over it.

    Args:
        split: the whole.
        count: how many; all where there are fewer.
    """

    def __init__(self, split: Split, count: int) -> None:
        total = len(split)
        self.split, self.info, self.modes = split, split.info, split.modes
        self.chosen = [i * total // count for i in range(count)] if count < total else list(range(total))
        self.ids = tuple(split.ids[i] for i in self.chosen)

    def __getitem__(self, index: int) -> Sample:
        return self.split[self.chosen[index]]

    @property
    def stored(self) -> Split:
        """The same images of the stored split."""
        return SpreadSplit(self.split.stored, len(self))

    def stored_sample(self, index: int) -> Sample:
        """Read one image with its masks as they are stored; `AmbisegError` if its files are wrong."""
        return self.split.stored_sample(self.chosen[index])

    def shown(self, stored: Sample) -> Sample:
        """What the whole split shows of a stored sample."""
        return self.split.shown(stored)

    def digest(self, on_read: Callable[[Sample], object] | None = None) -> str:
        """That of the whole, with the number of images."""
        own = set(self.ids)

        def read(sample: Sample) -> None:
            if on_read is not None and sample.id in own:
                on_read(sample)

        return f"{self.split.digest(read)}, {len(self)} of {len(self.split)} images"


class OneMaskSplit(Split):
    """A split seen with one mask of each image, drawn by weight: always the same one.

    Args:
        split: the whole.
        seed: of the draws; the mask of an image depends on this and on its place.
    """

    def __init__(self, split: Split, seed: int = 0) -> None:
        self.split, self.seed, self.ids, self.info = split, seed, split.ids, split.info

    def __getitem__(self, index: int) -> Sample:
        sample = self.split.stored_sample(index)
        rng = np.random.default_rng([self.seed, index])
        if self.split.modes is not None:
            mask, who = self.split.modes.draw(sample.masks[0], rng), "one"
        else:
            drawn = rng.choice(len(sample.weights), p=sample.weights / sample.weights.sum())
            mask, who = sample.masks[drawn], sample.annotators[drawn]
        return Sample(sample.id, sample.image, mask[None], np.ones(1), (who,))


def existing(path: str | PathLike[str]) -> Path:
    """``path``, which exists; else `AmbisegError` with a hint."""
    found = Path(path)
    if found.exists():
        return found
    near = found.parent
    while not near.exists():
        near = near.parent
    raise AmbisegError(
        f"there is no data set at {found}: {near} exists, but not what follows; correct the path"
    )


def list_splits(data: DataLike) -> list[str]:
    """Names of the splits, train, val and test first.

    Raises:
        AmbisegError: nothing there, or a file that is no packed data set.
    """
    given = as_data(data)
    if isinstance(given, InMemory):
        return list(given)
    found = existing(given)
    return folder_splits(found) if found.is_dir() else packed_splits(found)


def open_split(data: DataLike, split: str, labels: LabelSpace | None = None) -> Split:
    """Open one split of a folder, of a packed file or of data in memory; where its classes flip, with all modes as
    masks.

    Args:
        data: a path, or what `ambiseg.dataset` makes or takes.
        split: name of the split.
        labels: classes of objects that do not say theirs.

    Raises:
        AmbisegError: nothing there, no such split, or its files are wrong.
    """
    given = as_data(data, labels)
    if isinstance(given, InMemory):
        return given.open(split)
    found = existing(given)
    stored = FolderSplit(found, split) if found.is_dir() else PackedSplit(found, split)
    return stored if stored.info.flips is None else FlippedSplit(stored)


def write_dataset(
    out: str | PathLike[str],
    splits: Mapping[str, Iterable[Sample]] | Items,
    info: DatasetInfo | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> Path:
    """Write samples packed if ``out`` ends with .h5 or .hdf5, else as a folder; all of it or nothing.

    Args:
        out: the data set to make.
        splits: samples by split, or what `ambiseg.dataset` makes or takes.
        info: what the data set says about itself; that of ``splits`` if None, where they say it.
        progress: called after every image.
        overwrite: replace a data set that ambiseg wrote.
        inputs: what the samples are read from; they are never replaced.

    Raises:
        AmbisegError: ``out`` exists, a sample is not valid, disk full.
    """
    if not isinstance(splits, Mapping) or any(map(_are_items, splits.values())):
        splits = dataset(splits, classes=None if info is None else info.labels)
    info = info or (replace(splits.info, name="") if isinstance(splits, InMemory) else DatasetInfo())
    write = write_packed if Path(out).suffix.lower() in PACKED_SUFFIXES else write_folder
    return write(out, splits, info, progress, overwrite, inputs)


def _are_items(split: Any) -> bool:
    """Whether a split holds items of `ambiseg.dataset` in place of samples."""
    return (
        isinstance(split, Items)
        and not is_split(split)
        and len(split) > 0
        and not isinstance(split[0], Sample)
    )


def replacing_dataset(
    out: str | PathLike[str], overwrite: bool = False, inputs: Iterable[Path] = ()
) -> AbstractContextManager[Path]:
    """Hand out a name for a data set of the form of ``out``; afterwards what was written there takes the
    place of ``out``.

    Write to it with ``overwrite=True``: for a folder it exists already.

    Raises:
        AmbisegError: ``out`` exists and must stay, disk full.
    """
    target = Path(out)
    if target.suffix.lower() in PACKED_SUFFIXES:
        check_inputs(target, inputs)
        return replacing_file(target, overwrite, is_packed, alone=True)
    return replacing_folder(target, overwrite, DATA, inputs=inputs)


def write_info(path: Path, info: DatasetInfo) -> None:
    """Replace what a data set says about itself; its digests do not depend on that."""
    if path.is_dir():
        write_text(path / "dataset.yaml", info.to_yaml())
    else:
        write_packed_info(path, info)
