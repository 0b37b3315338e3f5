"""Data that are read where they lie: which files fit the patterns of ``dataset.yaml``, and which masks belong to
which image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ambiseg.data.files.reading import IMAGE_SUFFIXES, MASK_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem, check_name
from ambiseg.data.listing import (
    LITTER,
    SplitFiles,
    ordered_splits,
    read_columns,
    read_weights,
    stays_inside,
    unknown_ids,
)
from ambiseg.data.patterns import FilePatterns, split_word
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import LIST

ALL = "all"
"""The split of data that have no splits yet."""
UNNAMED = "mask"
"""The annotator where no pattern names one."""
MOST_FILES = 2_000_000
"""Files of a data set."""
EXAMPLES = 3
"""Names in a message."""
_DEEPEST = 12


class Key(NamedTuple):
    """What tells an image from the others; empty where no pattern says it."""

    split: str
    group: str
    id: str

    @property
    def name(self) -> str:
        """The id of the image in the library: the group comes first, unless the id begins with it."""
        return self.id if self.id.startswith(self.group) else f"{self.group}_{self.id}"


@dataclass
class Found:
    """Files by image.

    Attributes:
        images: files of each image by channel.
        masks: files of each image by annotator.
        twice: pairs of files of the same image and channel or annotator; what they both are.
        strays: masks without an image.
    """

    images: dict[Key, dict[str, str]] = field(default_factory=dict)
    masks: dict[Key, dict[str, str]] = field(default_factory=dict)
    twice: list[tuple[str, str, str]] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)


def files_below(root: Path, depth: int | None = None, skip_ours: bool = False) -> list[str]:
    """All files that can be read, as sorted paths relative to ``root``; hidden ones are left out.

    Links that lead out of ``root`` are named with the others, those of folders with ``/`` at the end, and not followed.

    Args:
        root: folder.
        depth: most parts of a path.
        skip_ours: leave out folders in it that ambiseg made, such as runs.

    Raises:
        AmbisegError: more files than `MOST_FILES`.
    """
    found: list[str] = []
    pending, most = [("", 1)], min(depth or _DEEPEST, _DEEPEST)
    entered = {os.path.realpath(root)}  # so that links cannot lead in circles
    while pending:
        folder, level = pending.pop()
        for entry in _entries(root / folder):
            path = f"{folder}{entry.name}"
            if entry.name.startswith(".") or entry.name.lower() in LITTER:
                continue
            outward = entry.is_symlink() and not stays_inside(Path(entry.path), root)
            if entry.is_dir():
                ours = skip_ours and (Path(entry.path) / LIST).exists()
                if outward:
                    found.append(f"{path}/")
                elif level < most and not ours and not (entry.is_symlink() and _entered(entry, entered)):
                    pending.append((f"{path}/", level + 1))
            elif suffix_of(entry.name) in IMAGE_SUFFIXES or suffix_of(entry.name) in MASK_SUFFIXES:
                found.append(path)
            if len(found) > MOST_FILES:
                raise AmbisegError(
                    f"{root} holds more than {MOST_FILES} files: name a smaller folder as root"
                )
    return sorted(found)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise FileProblem(
            folder, f"it cannot be listed ({error.strerror})", "allow yourself to read it"
        ) from error


def _entered(link: os.DirEntry[str], entered: set[str]) -> bool:
    """Whether the folder that a link points to was entered by a link before; now it is."""
    target = os.path.realpath(link.path)
    before = target in entered
    entered.add(target)
    return before


def assign(paths: Iterable[str], files: FilePatterns) -> Found:
    """Which of the files are images, and which are masks of which image.

    A file that fits both is a mask if it names another image, as ``a_anna.png`` names ``a.png``.

    Args:
        paths: relative, with ``/`` between their parts.
        files: the patterns.

    Example:
        >>> from ambiseg.data.patterns import Pattern
        >>> files = FilePatterns((Pattern("{id}.*"),), (Pattern("{id}_{annotator}.*"),))
        >>> assign(["a.png", "a_anna.png", "a_ben.png"], files).masks
        {Key(split='', group='', id='a'): {'anna': 'a_anna.png', 'ben': 'a_ben.png'}}
    """
    found, known = Found(), _Known(files)
    rest: list[str] = []
    ordered = sorted(paths, key=lambda path: (len(path), path))
    for path in ordered:
        fields = _first(files, path) if suffix_of(path) in IMAGE_SUFFIXES else None
        key = _key(fields) if fields is not None else None
        owners, _ = known.of_mask(path) or ([], "")
        if fields is None or key is None or (owners and key not in owners):
            rest.append(path)
            continue
        channel = fields.get("channel", "")
        _put(found.images.setdefault(key, {}), channel, path, found.twice, f"image {key.name!r}")
        known.add(key)
    for path in rest:
        if suffix_of(path) not in MASK_SUFFIXES:
            continue
        keys, annotator = known.of_mask(path) or ([], "")
        for key in keys:
            what = f"the mask of {annotator!r} of image {key.name!r}"
            _put(found.masks.setdefault(key, {}), annotator, path, found.twice, what)
        if not keys and any(pattern.match(path) for pattern in files.masks):
            found.strays.append(path)
    return found


def _put(place: dict[str, str], name: str, path: str, twice: list[tuple[str, str, str]], what: str) -> None:
    if name in place:
        twice.append((place[name], path, what))
    else:
        place[name] = path


def _first(files: FilePatterns, path: str) -> dict[str, str] | None:
    return next((fields for pattern in files.images if (fields := pattern.match(path)) is not None), None)


def _key(fields: dict[str, str]) -> Key:
    return Key(split_word(fields.get("split", "")), fields.get("group", ""), fields["id"])


class _Known:
    """The images found so far, by what a mask can say of its image."""

    def __init__(self, files: FilePatterns) -> None:
        self.files = files
        self.lengths: dict[int, None] = {}
        self.tables: dict[frozenset[str], dict[Key, list[Key]]] = {
            pattern.fields & {"split", "group"}: {} for pattern in files.masks
        }

    def add(self, key: Key) -> None:
        if len(key.id) not in self.lengths:
            self.lengths = dict.fromkeys(sorted({*self.lengths, len(key.id)}, reverse=True))
        for fields, table in self.tables.items():
            keys = table.setdefault(_restricted(key, fields), [])
            if key not in keys:
                keys.append(key)

    def of_mask(self, path: str) -> tuple[list[Key], str] | None:
        """The images that a mask belongs to, and its annotator."""
        for pattern in self.files.masks:
            table = self.tables[pattern.fields & {"split", "group"}]
            for fields in pattern.matches(path, self.lengths):
                keys = table.get(_key(fields))
                if keys:
                    return keys, fields.get("annotator", UNNAMED)
        return None


def _restricted(key: Key, fields: frozenset[str]) -> Key:
    return Key(key.split if "split" in fields else "", key.group if "group" in fields else "", key.id)


class PatternLayout:
    """All files of a data set that the patterns of its ``dataset.yaml`` name.

    Args:
        home: folder of ``dataset.yaml``.
        files: its patterns.

    Raises:
        AmbisegError: there is no such folder, the table of splits is wrong, a link leads out of the data, two files are
            the same mask, an id cannot name a file.
    """

    def __init__(self, home: Path, files: FilePatterns) -> None:
        self.home, self.files = home, files
        self.base = base_of(home, files)
        paths = files_below(self.base, files.depth)
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
