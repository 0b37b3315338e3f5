"""The folder that predictions go to: a name for every image, and an index of what has been predicted with what.

``predictions.jsonl`` begins with a line on how the predictions are made (run, settings, seed); each further line is one
image, added when its folder is complete or its error is known. That is how an interrupted prediction goes on.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ambiseg import owned_files
from ambiseg.data.files.reading import stem_of
from ambiseg.errors import AmbisegError
from ambiseg.json_files import append_json_lines, read_json_lines

INDEX = "predictions.jsonl"
PAGE = "index.html"
"""Page about the predictions, for a browser."""
PREDICT = "predict"
"""Verb that the list of such a folder names; see `ambiseg.owned_files`."""
LONGEST = 120
"""Bytes of a folder's name; file systems allow 255, and a suffix is added where names meet."""


def folder_names(paths: Sequence[Path]) -> list[str]:
    """A folder name for each image: its stem where that is short and no other image has it, else the beginning of the
    stem and a hash of the path. The names of our own files in the folder are taken.

    Names are compared as file systems do that know no capitals or write accents in two ways. The same images always
    get the same names.

    Example:
        >>> folder_names([Path("a.png"), Path("b.png")])
        ['a', 'b']
        >>> folder_names([Path("a.png"), Path("A.tif")])[0][:2]
        'a~'
    """
    stems = [stem_of(path) for path in paths]
    counts: dict[str, int] = {_folded(name): 1 for name in (INDEX, PAGE)}
    for stem in stems:
        counts[_folded(stem)] = counts.get(_folded(stem), 0) + 1
    names = []
    for path, stem in zip(paths, stems, strict=True):
        safe = stem.encode(errors="replace").decode()
        plain = safe == stem and stem.isprintable() and "~" not in stem and len(stem.encode()) <= LONGEST
        if counts[_folded(stem)] > 1 or not plain or stem.startswith("."):
            start = "".join(c if c.isprintable() and c != "~" else "_" for c in safe).lstrip(".")
            start = start.encode()[: LONGEST - 17].decode(errors="ignore")
            name = f"{start}~{hashlib.sha256(str(path.absolute()).encode(errors='surrogateescape')).hexdigest()[:16]}"
        else:
            name = stem
        names.append(name)
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class PredictionIndex:
    """What has been predicted in a folder.

    Args:
        out: the folder, which `start` has prepared.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / INDEX
        lines = [line for line in read_json_lines(self.path) if isinstance(line, dict)]
        self.recipe: dict[str, Any] = lines[0] if lines else {}
        self.entries: dict[str, dict[str, Any]] = {
            str(line.get("image")): line
            for line in lines[1:]
            if line.get("folder") is None or _is_complete(line)
        }

    def begin(self, recipe: dict[str, Any]) -> None:
        """Write how the predictions are made, or compare it with what the index says.

        Raises:
            AmbisegError: they were made otherwise.
        """
        if not self.recipe:
            owned_files.add(self.path.parent, [INDEX])
            append_json_lines(self.path, [recipe])
            self.recipe = recipe
        different = _different(recipe, self.recipe)
        if different:
            raise AmbisegError(
                f"the predictions in {self.path.parent} were made otherwise ({', '.join(different)}): give the same to go on,"
                " or choose another --out, or start anew with --overwrite"
            )

    def add(self, path: Path, folder: str | None, **outcome: Any) -> None:
        """Add an image that is done; ``folder`` is None where it has failed."""
        entry = {"image": str(path), "folder": folder, "state": _state(path), **outcome}
        append_json_lines(self.path, [entry])

    def done(self, path: Path, folder: str) -> dict[str, Any] | None:
        """The entry of an image whose prediction is complete, and which has not changed since."""
        entry = self.entries.get(str(path))
        if entry is None or entry.get("folder") != folder or entry.get("state") != _state(path):
            return None
        return entry if (self.path.parent / folder / "prediction.json").is_file() else None


def _different(recipe: dict[str, Any], earlier: dict[str, Any]) -> list[str]:
    """Names of what differs, those within a group of settings instead of the group.

    Example:
        >>> _different({"seed": 0, "settings": {"top": 2}}, {"seed": 0, "settings": {"annotator": "anna", "top": 2}})
        ['annotator']
    """
    found = []
    for name, value in recipe.items():
        before = earlier.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            found += [key for key in {**value, **before} if value.get(key) != before.get(key)]
        elif value != before:
            found.append(name)
    return found


def _is_complete(entry: dict[str, Any]) -> bool:
    """Whether an entry says what `predict` wrote; one that is damaged is predicted again."""
    return (
        isinstance(entry["folder"], str)
        and type(entry.get("masks")) is int
        and isinstance(entry.get("determined"), bool)
    )


def id_of(entry: dict[str, Any]) -> str:
    """The id of an image or volume of an entry: the stem of its file, unless the entry says it."""
    return str(entry.get("id") or stem_of(str(entry["image"])))


def _state(path: Path) -> list[int] | None:
    """Size and time of a file: another one where it has changed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def start(out: Path, inputs: Iterable[Path], overwrite: bool, resume: bool) -> None:
    """Check that predictions may be written to ``out``, and make it.

    Raises:
        AmbisegError: it holds predictions and neither ``overwrite`` nor ``resume`` is given; or it was not made by
            ``predict``, or holds an input.
    """
    owned_files.check_inputs(out, inputs)
    owned_files.check_maker(out, [PREDICT])
    if not owned_files.is_empty(out):
        if overwrite:
            owned_files.check_replaceable(out, [PREDICT], inputs)
        elif not resume:
            raise AmbisegError(
                f"{out} holds predictions: go on with --resume, start anew with --overwrite, or choose another --out"
            )
    owned_files.enter(out, PREDICT)
