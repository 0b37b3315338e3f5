"""A data set as a folder of ordinary images: what annotators hand over and what anyone can look at.

::

    my-data/
      dataset.yaml                      optional, see `DatasetInfo`
      train/ val/ test/                 any folder that holds ``images`` is a split
        images/<id>.<suffix>
        masks/<id>/<annotator>.<suffix>
        weights.csv                     optional: id,annotator,weight; without rows all masks weigh alike

Data in other folders are read where they lie; the key ``files`` of ``dataset.yaml`` says where
(`ambiseg.data.patterns`). A link that leads out of the data is refused: what is packed or published must be what
lies in the folder.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ambiseg.atomic_write import replacing_folder
from ambiseg.data.files.geometry import on_image
from ambiseg.data.files.reading import read_image, read_mask, write_mask
from ambiseg.data.files.validation import (
    FileProblem,
    canonical_image,
    canonical_sample,
    canonical_weights,
    check_name,
    mask_problems,
    weight_problems,
)
from ambiseg.data.info import DatasetInfo, info_of_file
from ambiseg.data.listing import SPLITS, SplitFiles, stays_inside
from ambiseg.data.pattern_files import PatternLayout
from ambiseg.data.room import RoomCheck
from ambiseg.data.sample import Sample
from ambiseg.data.schema import COLUMNS
from ambiseg.data.split import Split
from ambiseg.data.standard_files import StandardFiles, standard_splits
from ambiseg.data.volumes.cases import CaseTable
from ambiseg.data.volumes.grid import slice_directions
from ambiseg.errors import AmbisegError

__all__ = ["DatasetInfo", "FolderSplit", "Progress", "folder_splits", "write_folder"]

Progress = Callable[[str, int, int | None], None]
"""Called after every image with the split, the images done in it, and their total (None if not known)."""

DATA = "data"
"""Verb that the list of a data set names; see `ambiseg.owned_files`."""
_HEADER = list(COLUMNS)


def folder_splits(root: str | PathLike[str], info: DatasetInfo | None = None) -> list[str]:
    """Names of the splits of a folder.

    Args:
        root: the data set.
        info: what it says about itself; read from ``dataset.yaml`` if None.
    """
    about = info or read_info(Path(root))
    found = about.files
    return (
        standard_splits(root)
        if found is None
        else PatternLayout(Path(root), found, about.slices is not None).splits
    )


def split_files(root: Path, info: DatasetInfo, split: str) -> SplitFiles:
    """The files of one split; `AmbisegError` if there is no such split."""
    volumes = info.slices is not None
    layout = None if info.files is None else PatternLayout(root, info.files, volumes)
    splits = standard_splits(root) if layout is None else layout.splits
    if split not in splits:
        raise missing_split(root, split, splits, layout.problems if layout is not None else ())
    return StandardFiles(root, split, volumes) if layout is None else layout.split(split)


def read_channels(paths: Sequence[Path]) -> NDArray[np.generic]:
    """An image ``(C, H, W)`` from its file, or from files that hold some of its channels each.

    Raises:
        AmbisegError: a file cannot be read, or has another size than the first one.
    """
    parts = [read_image(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:]:
            (height, width), (h, w) = part.shape[1:], parts[0].shape[1:]
            problem = f"this channel is {height} high, {width} wide but {paths[0].name} {h} x {w}"
            raise FileProblem(path, problem, "resample it at the size of the others")
    return parts[0] if len(parts) == 1 else canonical_image(np.concatenate(parts), paths[0])


class FolderSplit(Split):
    """One split of a folder, read file by file.

    Args:
        root: the data set.
        split: name of the split.
        info: what it says about itself; read from ``dataset.yaml`` if None.

    Raises:
        AmbisegError: no such data set or split, files that cannot be images, doubled ids, wrong weights.csv.
    """

    def __init__(self, root: str | PathLike[str], split: str, info: DatasetInfo | None = None) -> None:
        self.root, self.split = Path(root), split
        if not self.root.is_dir():
            raise AmbisegError(f"{self.root} is not a folder: correct the path of the data set")
        self.info = info or read_info(self.root)
        self._files = split_files(self.root, self.info, split)
        if self._files.problems:
            raise self._files.problems[0]
        self._table = None if self.info.slices is None else CaseTable(self._files, self.info, self.root)
        self.ids = tuple(self._files.images if self._table is None else self._table.places)
        if self._table is not None:
            self.info = replace(self.info, channels=self._table.channel_names())

    def image_path(self, sample_id: str) -> Path | None:
        """The file of an image, the first of several that hold its channels; None for a slice of a volume."""
        paths = self._files.images.get(sample_id)
        return None if paths is None else paths[0]

    def voxel_ml(self, volume: str) -> float | None:
        """Millilitres of a voxel of a volume; None of an image that is none."""
        case = None if self._table is None else self._table.cases.get(volume)
        return None if case is None else case.channels[0].voxel_ml

    @property
    def directions(self) -> frozenset[str]:
        """Directions of the slices of all volumes whose headers say where they lie."""
        cases = () if self._table is None else self._table.cases.values()
        placed = [(case.channels[0], case.slices) for case in cases if case.channels[0].placed]
        return frozenset(slice_directions(volume, slices) for volume, slices in placed)

    def units(self) -> list[tuple[list[int], int]] | None:
        """Positions of the slices of each volume that is unpacked to be read, and its bytes."""
        return None if self._table is None else self._table.units()

    def __getitem__(self, index: int) -> Sample:
        """Read one image, all its masks (in the order of the annotators' names) and their weights.

        Raises:
            AmbisegError: anything wrong with its files, the first of them by name.
        """
        sample_id = self.ids[index]
        volume, place = (sample_id, None) if self._table is None else self._table.places[sample_id]
        if place is not None:
            return self._slice(sample_id, volume, place)
        paths = self._files.images[sample_id]
        image = read_channels(paths)
        files, problems = self._files.masks(sample_id)
        if not files and not problems:
            problems = self._files.without_masks([sample_id])
        masks, rules = [], self.info.mask_rules
        for path in files.values():
            masks.append(on_image(read_mask(path, rules), path, paths[0]))
            problems += mask_problems(masks[-1], image.shape[1:], self.info.labels, path)
        weights = self._weights(sample_id, tuple(files), problems)
        return Sample(sample_id, image, np.stack(masks), weights, tuple(files))

    def _slice(self, sample_id: str, volume: str, index: int) -> Sample:
        """One slice of a volume with its masks."""
        assert self._table is not None
        case = self._table.cases[volume]
        image, names, problems = case.image(index), tuple(case.masks), list[FileProblem]()
        masks = [case.mask(name, index) for name in names]
        for name, mask in zip(names, masks, strict=True):
            problems += mask_problems(mask, image.shape[1:], self.info.labels, case.masks[name])
        weights = self._weights(volume, names, problems)
        return Sample(sample_id, image, np.stack(masks), weights, names)

    def _weights(
        self, image_id: str, names: tuple[str, ...], problems: list[FileProblem]
    ) -> NDArray[np.float64]:
        """Weights of the masks; raises the first of the problems and of those of the weights."""
        stated = self._files.weights.get(image_id, {})
        problems = problems + weight_problems(stated, names, self._files.weights_file, image_id)
        if problems:
            raise problems[0]
        return canonical_weights([stated.get(name, 1 / len(names)) for name in names])


def missing_split(
    root: Path, split: str, splits: Iterable[str], problems: Sequence[FileProblem] = ()
) -> AmbisegError:
    """The error that names the splits there are, or why there are none."""
    there = ", ".join(splits)
    if not there:
        if problems:
            return problems[0]
        if root.is_dir():
            return no_splits(root)
    remedy = (
        f"it has {there}" if there else "it has none; images belong in train/images, val/images and so on"
    )
    if there and split in SPLITS:
        remedy += f", and {', '.join(SPLITS)} are made by {split_advice(root)}"
    return AmbisegError(f"{root} has no split {split!r}: {remedy}")


def no_splits(root: Path) -> FileProblem:
    """The problem that a folder has other folders than this library's."""
    command = shlex.join(["ambiseg", "data", "init", str(root)])
    return FileProblem(
        root,
        "there is no split: no folder such as train/images, and no 'files' in dataset.yaml",
        f"type '{command}', which finds images and masks where they lie",
    )


def split_advice(root: Path) -> str:
    """The command that draws splits, for messages."""
    command = f"ambiseg data split {shlex.quote(str(root))} --out NEW"
    return f"'{command}'; add --prefix \"[^_]+\" if ids begin with the patient, such as p01_slice1"


def read_info(root: Path) -> DatasetInfo:
    """``dataset.yaml`` of a folder, the binary description if there is none; `AmbisegError` if wrong."""
    path = root / "dataset.yaml"
    if not stays_inside(path, root):
        raise FileProblem(path, "the link leads out of the data set", "copy the file into it")
    return info_of_file(path, root.resolve().name)


def inputs_of(root: Path, info: DatasetInfo) -> list[Path]:
    """The folders that a data set is read from."""
    return [root] if info.files is None else [root, root / info.files.root]


def write_folder(
    out: str | PathLike[str],
    splits: Mapping[str, Iterable[Sample]],
    info: DatasetInfo,
    progress: Progress | None = None,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> Path:
    """Write samples as a folder; either all of it appears or nothing does.

    Images become PNG where that loses nothing (uint8 with 1 or 3 channels), else NumPy files.

    Args:
        out: folder to create.
        splits: samples per split, taken one at a time.
        info: written as dataset.yaml.
        progress: called after every image.
        overwrite: replace ``out`` if it is a data set that ambiseg wrote.
        inputs: files and folders that the samples are read from; they are never replaced.

    Raises:
        AmbisegError: ``out`` exists, a sample is not valid (size, class, weights, name), the disk is full.
    """
    target = Path(out)
    with replacing_folder(target, overwrite, DATA, inputs=inputs) as partial:
        (partial / "dataset.yaml").write_text(replace(info, files=None).to_yaml(), encoding="utf-8")
        room = RoomCheck(partial, target, splits)
        for split, samples in splits.items():
            check_name(split, "split")
            _write_split(partial / split, split, samples, info, room, progress)
    return target


def _write_split(
    partial: Path,
    split: str,
    samples: Iterable[Sample],
    info: DatasetInfo,
    room: RoomCheck,
    progress: Progress | None,
) -> None:
    (partial / "images").mkdir(parents=True)
    (partial / "masks").mkdir()
    rows: list[tuple[str, str, str]] = []
    total = len(samples) if isinstance(samples, Sized) else None
    for done, given in enumerate(samples, 1):
        sample = canonical_sample(given, info)
        masks = partial / "masks" / sample.id
        if masks.exists():
            raise AmbisegError(
                f"id {sample.id!r} occurs twice in split {split!r}: give every image its own id"
            )
        masks.mkdir()
        _write_image(partial / "images" / sample.id, sample)
        for name, mask in zip(sample.annotators, sample.masks, strict=True):
            write_mask(masks / f"{name}.png", mask)
        if not np.array_equal(sample.weights, np.full(len(sample.weights), 1 / len(sample.weights))):
            weights = map(repr, sample.weights.tolist())
            rows += [(sample.id, *row) for row in zip(sample.annotators, weights, strict=True)]
        room.wrote_one()
        if progress is not None:
            progress(split, done, total)
    if rows:
        with open(partial / "weights.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([_HEADER, *rows])


def _write_image(partial: Path, sample: Sample) -> None:
    image = sample.image
    if image.dtype == np.uint8 and image.shape[0] in (1, 3):
        picture = Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))
        picture.save(partial.with_name(f"{sample.id}.png"))
    else:
        np.save(partial.with_name(f"{sample.id}.npy"), image, allow_pickle=False)
