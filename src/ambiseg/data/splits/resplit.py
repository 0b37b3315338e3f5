"""An existing data set with other splits: all its images in one pool, read one at a time and written where a
list says.

The list is a mapping of id to split, drawn by `ambiseg.data.splits.assignment` or read from a CSV. Where
classes flip, the label maps are copied as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path

import numpy as np

from ambiseg.data.folder import FolderSplit, Progress, inputs_of
from ambiseg.data.guess.setup import guessed_info
from ambiseg.data.importers.base import Lazy
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import ordered_splits
from ambiseg.data.pattern_files import ALL
from ambiseg.data.sample import Sample
from ambiseg.data.source import list_splits, open_split, write_dataset
from ambiseg.data.split import Split
from ambiseg.data.splits.assignment import named
from ambiseg.errors import AmbisegError, UnknownNameError


class Pool:
    """All images of a data set, whatever split they are in.

    Args:
        path: the data set.

    Attributes:
        ids: names of the images, sorted.
        info: what the data set says about itself.

    Raises:
        AmbisegError: nothing there, wrong files, no image, or an id in two splits.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._places: dict[str, tuple[Split, int]] = {}
        twice = []
        for source in self._sources():
            self.info: DatasetInfo = source.info
            for index, name in enumerate(source.ids):
                if name in self._places:
                    twice.append(name)
                self._places[name] = (source, index)
        if twice:
            raise AmbisegError(f"{path}: {named(twice)} in more than one split: give every image its own id")
        if not self._places:
            raise AmbisegError(f"{path} holds no image: name a data set with images")
        self.ids = tuple(sorted(self._places))

    def _sources(self) -> Iterator[Split]:
        """The splits as they are stored; of a folder that has none, all images that are found in it."""
        splits = list_splits(self.path)
        if not splits and self.path.is_dir():
            yield FolderSplit(self.path, ALL, guessed_info(self.path))
        for split in splits:
            yield open_split(self.path, split).stored

    def __getitem__(self, sample_id: str) -> Sample:
        """Read one image with its annotations; `AmbisegError` if its files are wrong."""
        source, index = self._places[sample_id]
        return source[index]

    def measure(self, what: str, progress: Callable[[int, int], None] | None = None) -> dict[str, float]:
        """A number of each image to stratify by.

        Args:
            what: ``area``, the expected share of pixels that are not background, or ``modes``, the number of
                distinct masks.
            progress: called with images done and in all.

        Raises:
            UnknownNameError: another word.
            AmbisegError: an image cannot be read.
        """
        measures: dict[str, Callable[[Sample], float]] = {"area": self._area, "modes": _modes}
        if what not in measures:
            raise UnknownNameError("measure to stratify by", what, measures)
        values = {}
        for done, name in enumerate(self.ids, 1):
            values[name] = measures[what](self[name])
            if progress is not None:
                progress(done, len(self.ids))
        return values

    def _area(self, sample: Sample) -> float:
        labels = self.info.labels
        valid = sample.masks != labels.void
        marked = valid & (sample.masks != (labels.background or 0))
        shares = marked.sum((1, 2)) / np.maximum(1, valid.sum((1, 2)))
        return float(sample.weights @ shares)

    def write(
        self,
        out: str | PathLike[str],
        splits: Mapping[str, str],
        progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Path:
        """Write a data set whose images lie in the splits of the list; those it does not name are left out.

        Its ``source`` says that it was split anew: hashes of an import that stand before are those of other
        splits.

        Args:
            out: a folder, or one packed file if the name ends with .h5.
            splits: id to split.
            progress: called after every image.
            overwrite: replace ``out`` if it is a data set.

        Raises:
            AmbisegError: the list names unknown ids or none, ``out`` exists or is where the images come from,
                wrong files.
        """
        self.check_known(splits, "the list of splits")
        if not splits:
            raise AmbisegError("the list of splits names no image: name some")
        members: dict[str, list[str]] = {name: [] for name in ordered_splits(set(splits.values()))}
        for sample_id in sorted(splits):
            members[splits[sample_id]].append(sample_id)
        samples = {name: Lazy(len(own), partial(self._read, own)) for name, own in members.items()}
        source = "; ".join(part for part in (self.info.source, "split anew") if part)
        return write_dataset(
            out,
            samples,
            replace(self.info, source=source),
            progress,
            overwrite,
            inputs_of(self.path, self.info),
        )

    def _read(self, ids: list[str]) -> Iterator[Sample]:
        return (self[name] for name in ids)

    def check_known(self, ids: Mapping[str, object], where: str) -> None:
        """Raise `AmbisegError` that names the ids without an image."""
        unknown = ids.keys() - self._places.keys()
        if unknown:
            raise AmbisegError(
                f"{where} names {named(unknown)} of which {self.path} has no image: correct or remove them"
            )


def _modes(sample: Sample) -> float:
    there = sample.masks[sample.weights > 0]
    return float(len({mask.tobytes() for mask in there}))
