"""A data set as a folder of ordinary images: what annotators hand over and what anyone can look at.

::

    my-data/
      dataset.yaml                      optional, see `DatasetInfo`
      train/ val/ test/                 any folder that holds ``images`` is a split
        images/<id>.<suffix>
        masks/<id>/<annotator>.<suffix>
        weights.csv                     optional: id,annotator,weight; without rows all masks weigh alike

A link that leads out of the data set is refused: what is packed or published must be what lies in the folder.
"""

from __future__ import annotations

import csv
import math
import os
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from ambiseg.atomic_write import replacing_folder
from ambiseg.data.files.geometry import on_image
from ambiseg.data.files.reading import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    read_image,
    read_mask,
    stem_of,
    suffix_of,
    write_mask,
)
from ambiseg.data.files.validation import (
    FileProblem,
    canonical_sample,
    canonical_weights,
    check_name,
    mask_problems,
    weight_problems,
)
from ambiseg.data.info import DatasetInfo, info_of_file
from ambiseg.data.mask_names import MaskNames
from ambiseg.data.room import RoomCheck
from ambiseg.data.sample import Sample
from ambiseg.data.schema import COLUMNS
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError

__all__ = ["DatasetInfo", "FolderSplit", "Progress", "folder_splits", "write_folder"]

SPLITS = ("train", "val", "test")
"""The usual splits, in the order in which they are listed."""

Progress = Callable[[str, int, int | None], None]
"""Called after every image with the split, the images done in it, and their total (None if not known)."""

DATA = "data"
"""Verb that the list of a data set names; see `ambiseg.owned_files`."""
_LITTER = ("thumbs.db", "desktop.ini")
_HEADER = list(COLUMNS)


def ordered_splits(names: Iterable[str]) -> list[str]:
    """Train, val, test first, then any other by name.

    Example:
        >>> ordered_splits(["test", "extra", "train"])
        ['train', 'test', 'extra']
    """
    return sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def folder_splits(root: str | PathLike[str]) -> list[str]:
    """Names of the folders in ``root`` that hold an ``images`` folder."""
    folders = (path for path in Path(root).iterdir() if not path.name.startswith("."))
    return ordered_splits(path.name for path in folders if (path / "images").is_dir())


def stays_inside(path: Path, root: Path) -> bool:
    """Whether ``path``, links followed, lies in ``root``."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def scan_folder(
    folder: Path, root: Path, suffixes: tuple[str, ...], what: str
) -> tuple[dict[str, Path], list[FileProblem]]:
    """Files of ``folder`` by stem, sorted, and all that is wrong with their names.

    Args:
        folder: folder to list; a missing one is empty.
        root: the data set, which no link may leave.
        suffixes: those that can be read.
        what: "image" or "mask", for messages.
    """
    found: dict[str, Path] = {}
    problems: list[FileProblem] = []
    if not folder.is_dir():
        return found, problems
    if not stays_inside(folder, root):
        return found, [FileProblem(folder, "the link leads out of the data set", "copy the files into it")]
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.lower() in _LITTER:
            continue
        if entry.is_symlink() and not stays_inside(path, root):
            problems.append(FileProblem(path, "the link leads out of the data set", "copy the file into it"))
        elif suffix_of(path) not in suffixes or not entry.is_file():
            remedy = f"convert it to one of {', '.join(suffixes)}, or keep it elsewhere"
            problems.append(FileProblem(path, f"this is no {what} file that can be read", remedy))
        elif stem_of(path) in found:
            other, role = found[stem_of(path)].name, "id" if what == "image" else "annotator"
            remedy = f"rename one of them, since the name without suffix is the {role}"
            problems.append(FileProblem(path, f"{other} has the same name but for its suffix", remedy))
        else:
            found[stem_of(path)] = path
    return dict(sorted(found.items())), problems


def read_weights(
    path: Path, root: Path, header: Sequence[str] = tuple(COLUMNS)
) -> tuple[dict[str, dict[str, float]], list[FileProblem]]:
    """Weights by id and annotator, and all that is wrong with the rows; NaN stands for a reported weight.

    A missing file gives no weights. ``header`` names the three columns.
    """
    table: dict[str, dict[str, float]] = {}
    problems: list[FileProblem] = []
    if not path.exists():
        return table, problems
    if not stays_inside(path, root):
        return table, [FileProblem(path, "the link leads out of the data set", "copy the file into it")]
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream, skipinitialspace=True)
            first = next(rows, [])
            if first != list(header):
                return table, [FileProblem(path, f"the header is {first}", f"write {','.join(header)}")]
            for row in rows:
                problem = _take_row(table, row, header[1]) if row else ""
                if problem:
                    problems.append(
                        FileProblem(
                            f"{path}, row {rows.line_num}",
                            problem,
                            f"write {','.join(header)} with weight 0..1",
                        )
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(
            FileProblem(path, f"cannot be read ({error})", "save it as UTF-8 text, comma separated")
        )
    return table, problems


def _take_row(table: dict[str, dict[str, float]], row: list[str], role: str) -> str:
    """Enter one row; return what is wrong with it, if anything."""
    if len(row) != len(_HEADER):
        return f"the row has {len(row)} columns"
    sample_id, annotator, text = row
    weights = table.setdefault(sample_id, {})
    if annotator in weights:
        return f"a second weight for id {sample_id!r}, {role} {annotator!r}"
    weights[annotator] = math.nan
    try:
        weight = float(text)
    except ValueError:
        return f"the weight {text!r} is not a number"
    if not (math.isfinite(weight) and weight >= 0):
        return f"the weight {text!r} is negative or not finite"
    weights[annotator] = weight
    return ""


def unknown_ids(table: Iterable[str], known: Iterable[str], path: Path) -> list[FileProblem]:
    """Ids of weights.csv that have no image."""
    present = set(known)
    composed = {unicodedata.normalize("NFC", name) for name in present}
    found = []
    for name in table:
        if name in present:
            continue
        remedy = "correct the id, or add the image"
        if stem_of(name) in present:
            remedy = f"write the id without suffix, {stem_of(name)!r}"
        elif unicodedata.normalize("NFC", name) in composed:
            remedy = "write it in the Unicode form of the file's name (NFC, NFD)"
        found.append(FileProblem(path, f"id {name!r} has weights but no image", remedy))
    return found


class FolderSplit(Split):
    """One split of a folder, read file by file.

    Args:
        root: the data set.
        split: name of the split.

    Raises:
        AmbisegError: no such data set or split, files that cannot be images, doubled ids, wrong weights.csv.
    """

    def __init__(self, root: str | PathLike[str], split: str) -> None:
        self.root, self.split = Path(root), split
        if not self.root.is_dir():
            raise AmbisegError(f"{self.root} is not a folder: correct the path of the data set")
        splits = folder_splits(self.root)
        if split not in splits:
            raise missing_split(self.root, split, splits)
        self._folder = self.root / split
        self.info = read_info(self.root)
        self._images, problems = scan_folder(self._folder / "images", self.root, IMAGE_SUFFIXES, "image")
        table = self._folder / "weights.csv"
        self._weights, wrong = read_weights(table, self.root)
        problems += wrong + unknown_ids(self._weights, self._images, table)
        if problems:
            raise problems[0]
        self.ids = tuple(self._images)
        self._names = MaskNames(self._folder / "masks")

    def image_path(self, sample_id: str) -> Path:
        """The file of an image."""
        return self._images[sample_id]

    def __getitem__(self, index: int) -> Sample:
        """Read one image, all its masks (in the order of the annotators' names) and their weights.

        Raises:
            AmbisegError: anything wrong with its files, the first of them by name.
        """
        sample_id = self.ids[index]
        image = read_image(self._images[sample_id])
        folder = self._folder / "masks" / sample_id
        files, problems = scan_folder(folder, self.root, MASK_SUFFIXES, "mask")
        if not files and not problems:
            problems = [self._names.missing(sample_id)]
        masks, rules = [], self.info.mask_rules
        for path in files.values():
            masks.append(on_image(read_mask(path, rules), path, self._images[sample_id]))
            problems += mask_problems(masks[-1], image.shape[1:], self.info.labels, path)
        stated = self._weights.get(sample_id, {})
        problems += weight_problems(stated, tuple(files), self._folder / "weights.csv", sample_id)
        if problems:
            raise problems[0]
        weights = canonical_weights([stated.get(name, 1 / len(files)) for name in files])
        return Sample(sample_id, image, np.stack(masks), weights, tuple(files))


def missing_split(root: Path, split: str, splits: Iterable[str]) -> AmbisegError:
    """The error that names the splits there are."""
    there = ", ".join(splits)
    misplaced = None if there else images_without_split(root)
    if misplaced is not None:
        return misplaced
    remedy = (
        f"it has {there}" if there else "it has none; images belong in train/images, val/images and so on"
    )
    if there and split in SPLITS:
        remedy += f", and {', '.join(SPLITS)} are made by {split_advice(root)}"
    return AmbisegError(f"{root} has no split {split!r}: {remedy}")


def images_without_split(root: Path) -> FileProblem | None:
    """That ``images`` lies in the data set itself, not in a split, perhaps beside a folder for each annotator."""
    if not (root / "images").is_dir():
        return None
    images = {stem_of(path) for path in (root / "images").iterdir() if suffix_of(path) in IMAGE_SUFFIXES}
    annotators = [
        folder.name
        for folder in sorted(root.iterdir())
        if folder.is_dir() and folder.name not in ("images", "masks", *SPLITS)
        if any(stem_of(path) in images for path in folder.iterdir() if suffix_of(path) in MASK_SUFFIXES)
    ]
    place, problem = root / "all", "images lies directly in it, and must lie in a split folder"
    if not annotators:
        return FileProblem(
            root, problem, f"move images and masks to {place / 'images'} and {place / 'masks'}"
        )
    return FileProblem(
        root,
        f"{problem}; {', '.join(annotators)} hold files of the same names, so each seems to be an annotator",
        f"move the images to {place / 'images'}, and each mask to {place / 'masks'}/<id>/{annotators[0]}.<suffix> and so on",
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
        (partial / "dataset.yaml").write_text(info.to_yaml(), encoding="utf-8")
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
