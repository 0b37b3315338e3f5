"""Data that are read where they lie: the splits of a data set whose ``dataset.yaml`` has patterns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ambiseg.data.files.validation import FileProblem, check_name
from ambiseg.data.listing import (
    SplitFiles,
    ordered_splits,
    read_columns,
    read_weights,
    stays_inside,
    unknown_ids,
)
from ambiseg.data.pattern_matching import Key, assign, files_below
from ambiseg.data.patterns import FilePatterns
from ambiseg.errors import AmbisegError

ALL = "all"
"""The split of data that have no splits yet."""
EXAMPLES = 3
"""Names in a message."""


class PatternLayout:
    """All files of a data set that the patterns of its ``dataset.yaml`` name.

    Args:
        home: folder of ``dataset.yaml``.
        files: its patterns.
        volumes: whether folders with a DICOM series are images, too.

    Raises:
        AmbisegError: there is no such folder, the table of splits is wrong, a link leads out of the data, two files are
            the same mask, an id cannot name a file.
    """

    def __init__(self, home: Path, files: FilePatterns, volumes: bool = False) -> None:
        self.home, self.files = home, files
        self.base = base_of(home, files)
        paths = files_below(self.base, files.depth, series=volumes)
        self.found = assign((path for path in paths if not path.endswith("/")), files)
        self.problems = self._problems(paths)
        self._table = self._read_splits()

    def _problems(self, paths: Sequence[str]) -> list[FileProblem]:
        found = [
            FileProblem(self.base / path, f"this file and {other} are both {what}", "keep one of them")
            for other, path, what in self.found.twice
        ]
        for place in (self.found.images, self.found.masks):
            links = (path for some in place.values() for path in some.values())
            found += [_link(self.base / path) for path in links if _leaves(self.base, path)]
        if not self.found.images:
            pattern = ", ".join(pattern.text for pattern in self.files.images)
            folders = [path for path in paths if path.endswith("/")]
            found += [_link(self.base / path) for path in folders] or [
                FileProblem(self.base, f"no image fits the pattern {pattern}", "correct 'images' of 'files'")
            ]
        for key, annotators in self.found.masks.items():
            found += _bad_names(self.base, {key.name: next(iter(annotators.values()))}, "id")
            found += _bad_names(self.base, annotators, "annotator")
        return found

    def _read_splits(self) -> dict[str, str] | None:
        """Split by id; None without a table."""
        if not self.files.splits:
            return None
        path = self.home / self.files.splits
        if not stays_inside(path, self.home):
            raise _link(path)
        table = {name: row["split"] for name, row in read_columns(path, "split").items()}
        unknown = sorted(table.keys() - {key.name for key in self.found.images})
        if unknown:
            names = ", ".join(unknown[:EXAMPLES]) + (", ..." if len(unknown) > EXAMPLES else "")
            count = f"{len(unknown)} ids" if len(unknown) > 1 else "1 id"
            problem = f"it names {count} without an image: {names}"
            self.problems.append(
                FileProblem(path, problem, "correct or remove these rows, or add the images")
            )
        return table

    @property
    def splits(self) -> list[str]:
        """Names of the splits, train, val and test first."""
        if self._table is None:
            return ordered_splits({key.split or ALL for key in self.found.images})
        return ordered_splits(set(self._table.values()))

    @property
    def left_out(self) -> list[str]:
        """Ids of images that the table of splits does not name."""
        return sorted({key.name for key in self.found.images} - self._table.keys()) if self._table else []

    def split(self, name: str) -> PatternFiles:
        """The files of one split."""
        if self._table is None:
            keys = [key for key in self.found.images if (key.split or ALL) == name]
        else:
            keys = [key for key in self.found.images if self._table.get(key.name) == name]
        return PatternFiles(self, keys)


class PatternFiles(SplitFiles):
    """The files of some images of a layout.

    Args:
        layout: all files.
        keys: the images.
    """

    def __init__(self, layout: PatternLayout, keys: Sequence[Key]) -> None:
        base, found = layout.base, layout.found
        self._strays = [base / path for path in found.strays]
        self.problems = list(layout.problems)
        self.images, self._masks = {}, dict[str, dict[str, Path]]()
        for key in sorted(keys, key=lambda key: key.name):
            channels, masks = found.images[key], found.masks.get(key, {})
            paths = tuple(base / channels[name] for name in sorted(channels))
            if key.name in self.images:
                other = self.images[key.name][0]
                what = f"its id {key.name!r} is that of {other} too"
                self.problems.append(FileProblem(paths[0], what, "write {group} where their folders differ"))
            self.images[key.name] = paths
            self._masks[key.name] = {name: base / masks[name] for name in sorted(masks)}
        self._patterns = ", ".join(pattern.text for pattern in layout.files.masks)
        self.weights_file = layout.home / "weights.csv"
        every, wrong = read_weights(self.weights_file, layout.home)
        known = {key.name for key in found.images}
        self.problems += wrong + unknown_ids(every, known, self.weights_file)
        self.weights = {name: row for name, row in every.items() if name in self.images}

    def masks(self, sample_id: str) -> tuple[dict[str, Path], list[FileProblem]]:
        """The masks that the patterns give to the image."""
        return self._masks[sample_id], []

    def masks_place(self, sample_id: str) -> str:
        """The image, since its masks may lie anywhere."""
        return str(self.images[sample_id][0])

    def without_masks(self, ids: Sequence[str]) -> list[FileProblem]:
        """That no file fits the patterns, for each image."""
        remedy = (
            "add a mask, correct 'masks' of 'files' in dataset.yaml, or leave the image out of the splits"
        )
        problem = f"the image has no mask: no file fits {self._patterns}"
        return [FileProblem(self.images[name][0], problem, remedy) for name in ids]

    def strays(self) -> list[FileProblem]:
        """Files that fit a pattern of masks and name no image."""
        return [
            FileProblem(
                path, "the mask belongs to no image", "add the image, or correct the name of the mask"
            )
            for path in self._strays
        ]


def base_of(home: Path, files: FilePatterns) -> Path:
    """The folder of the data; `AmbisegError` if there is none."""
    base = home / files.root
    if not base.is_dir():
        raise FileProblem(
            home / "dataset.yaml",
            f"its files lie in {base}, and there is no such folder",
            "correct 'root' of 'files'",
        )
    return base


def _leaves(base: Path, path: str) -> bool:
    """Whether a file is a link that leads out of the data."""
    return (base / path).is_symlink() and not stays_inside(base / path, base)


def _link(path: Path) -> FileProblem:
    return FileProblem(
        path,
        "the link leads out of the data",
        "copy what it points to, or name that folder as root in dataset.yaml",
    )


def _bad_names(base: Path, names: dict[str, str], what: str) -> list[FileProblem]:
    found = []
    for name, path in names.items():
        try:
            check_name(name, what)
        except AmbisegError as error:
            problem, _, remedy = str(error).partition(": ")
            found.append(FileProblem(base / path, problem, remedy))
    return found
