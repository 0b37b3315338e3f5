"""Which files fit the patterns of a data set, and which masks belong to which image."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ambiseg.data.files.reading import IMAGE_SUFFIXES, MASK_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.listing import LITTER, stays_inside
from ambiseg.data.patterns import FilePatterns, split_word
from ambiseg.data.volumes.dicom import holds_dicom
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import LIST

UNNAMED = "mask"
"""The annotator where no pattern names one."""
MOST_FILES = 2_000_000
"""Files of a data set."""
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


def files_below(
    root: Path, depth: int | None = None, skip_ours: bool = False, series: bool = False
) -> list[str]:
    """All files that can be read, as sorted paths relative to ``root``; hidden ones are left out.

    Links that lead out of ``root`` are named with the others, those of folders with ``/`` at the end, and not followed.

    Args:
        root: folder.
        depth: most parts of a path.
        skip_ours: leave out folders in it that ambiseg made, such as runs.
        series: name folders with DICOM files, too.

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
                elif not ours and not (entry.is_symlink() and _entered(entry, entered)):
                    if level < most:
                        pending.append((f"{path}/", level + 1))
                    if series and holds_dicom(Path(entry.path)):
                        found.append(path)
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
        paths: of files that can be read and of DICOM series, relative, with ``/`` between their parts.
        files: the patterns.

    Example:
        >>> from ambiseg.data.patterns import Pattern
        >>> files = FilePatterns((Pattern("{id}.*"),), (Pattern("{id}_{annotator}.*"),))
        >>> assign(["a.png", "a_mia.png", "a_ben.png"], files).masks
        {Key(split='', group='', id='a'): {'ben': 'a_ben.png', 'mia': 'a_mia.png'}}
    """
    found, known = Found(), _Known(files)
    rest: list[str] = []
    ordered = sorted(paths, key=lambda path: (len(path), path))
    for path in ordered:
        fields = _first(files, path)
        key = _key(fields) if fields is not None else None
        owners, _ = known.of_mask(path) or ([], "")
        if fields is None or key is None or (owners and key not in owners):
            rest.append(path)
            continue
        channel = fields.get("channel", "")
        _put(found.images.setdefault(key, {}), channel, path, found.twice, f"image {key.name!r}")
        known.add(key)
    for path in rest:
        if suffix_of(path) in IMAGE_SUFFIXES and suffix_of(path) not in MASK_SUFFIXES:
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
