"""What lies in a folder of a data set: files by their names, a table of weights, and all that is wrong with them."""

from __future__ import annotations

import csv
import math
import os
import unicodedata
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

from ambiseg.data.files.reading import stem_of, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.schema import COLUMNS
from ambiseg.escaping import of_csv_cell

SPLITS = ("train", "val", "test")
"""The usual splits, in the order in which they are listed."""

LITTER = ("thumbs.db", "desktop.ini")
"""Files of file managers, in lower case."""
_LARGEST = 1 << 26  # bytes of a table


def ordered_splits(names: Iterable[str]) -> list[str]:
    """Train, val, test first, then any other by name.

    Example:
        >>> ordered_splits(["test", "extra", "train"])
        ['train', 'test', 'extra']
    """
    return sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def stays_inside(path: Path, root: Path) -> bool:
    """Whether ``path``, links followed, lies in ``root``."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def scan_folder(
    folder: Path, root: Path, suffixes: tuple[str, ...], what: str, series: bool = False
) -> tuple[dict[str, Path], list[FileProblem]]:
    """Files of ``folder`` by stem, sorted, and all that is wrong with their names.

    Args:
        folder: folder to list; a missing one is empty.
        root: the data set, which no link may leave.
        suffixes: those that can be read.
        what: "image" or "mask", for messages.
        series: list folders, too: each of them is a DICOM series.
    """
    found: dict[str, Path] = {}
    problems: list[FileProblem] = []
    if not folder.is_dir():
        return found, problems
    if not stays_inside(folder, root):
        return found, [FileProblem(folder, "the link leads out of the data set", "copy the files into it")]
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.lower() in LITTER:
            continue
        if entry.is_symlink() and not stays_inside(path, root):
            problems.append(FileProblem(path, "the link leads out of the data set", "copy the file into it"))
        elif series and entry.is_dir():
            found[entry.name] = path
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
    if len(row) != len(COLUMNS):
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


def read_columns(path: str | PathLike[str], *needed: str) -> dict[str, dict[str, str]]:
    """A CSV with a column ``id``: the other columns by name, for each id.

    Args:
        path: UTF-8 text with a header.
        needed: columns that it must have.

    Raises:
        AmbisegError: it cannot be read, lacks a column, or names an id twice.
    """
    file, table = Path(path), dict[str, dict[str, str]]()
    try:
        if file.stat().st_size > _LARGEST:
            raise FileProblem(file, f"it is larger than {_LARGEST >> 20} MiB", "name a table of ids")
        with open(file, newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream, skipinitialspace=True)
            header = rows.fieldnames or []
            for column in ("id", *needed):
                if column not in header:
                    raise FileProblem(file, f"the header {header} has no column {column!r}", "add it")
            for cells in rows:
                if None in cells or None in cells.values():
                    raise FileProblem(
                        f"{file}, row {rows.line_num}", "another number of columns", "correct it"
                    )
                row = {column: of_csv_cell(cell) for column, cell in cells.items()}
                name = row.pop("id")
                if name in table:
                    raise FileProblem(
                        f"{file}, row {rows.line_num}", f"id {name!r} occurs twice", "keep one row"
                    )
                table[name] = row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileProblem(
            file, f"cannot be read ({error})", "save it as UTF-8 text, comma separated"
        ) from error
    return table


class SplitFiles(Protocol):
    """The files of one split, however they lie.

    Attributes:
        images: files of each image, sorted by id; several where each holds some of its channels.
        weights: stated weights by id and annotator.
        weights_file: where they stand.
        problems: what is wrong with names and tables.
    """

    images: Mapping[str, tuple[Path, ...]]
    weights: Mapping[str, Mapping[str, float]]
    weights_file: Path
    problems: list[FileProblem]

    @abstractmethod
    def masks(self, sample_id: str) -> tuple[dict[str, Path], list[FileProblem]]:
        """Masks of an image by annotator, sorted, and what is wrong with their names."""
        ...

    @abstractmethod
    def masks_place(self, sample_id: str) -> str:
        """Where the masks of an image are expected, for messages."""
        ...

    @abstractmethod
    def without_masks(self, ids: Sequence[str]) -> list[FileProblem]:
        """What is wrong with images that have no masks, one problem for each."""
        ...

    @abstractmethod
    def strays(self) -> list[FileProblem]:
        """Masks that belong to no image."""
        ...
