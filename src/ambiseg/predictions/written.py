"""The file ``prediction.json`` that `ambiseg predict` writes beside the masks of an image."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.listing import stays_inside
from ambiseg.data.volumes.settings import PLANE_NAMES
from ambiseg.json_files import MAX_BYTES

PREDICTION = "prediction.json"
AGAIN = "write the predictions again"
MOST_SLICES = 1 << 16
FILTERS = ("score_threshold", "probability_threshold", "duplicate_iou", "top")
"""Settings that drop masks."""
_SHOWN = 40
"""Characters of a wrong value that a message shows."""
_Kind = TypeVar("_Kind")


@dataclass(frozen=True)
class WrittenMask:
    """One mask: its file, which lies in the folder of the image, its probability, and its score and the file of
    its overlay if there are any."""

    file: Path
    probability: float
    score: float | None
    overlay: Path | None = None


@dataclass(frozen=True)
class WrittenVolume:
    """Which slices of a volume were predicted: across which axis, how many, with how many neighbours on each side."""

    axis: str
    slices: int
    neighbours: int


@dataclass(frozen=True)
class WrittenPrediction:
    """What ``prediction.json`` says of one image. Texts come from strangers, and so may be anything.

    Attributes:
        folder: where the files lie.
        image: name of the image's file.
        path: where the image lay when it was predicted; empty if the file does not say.
        classes: names of the classes; empty if the file does not say.
        masks: in the order of the file, the most probable first as `ambiseg predict` writes them.
        probabilities: file with the probabilities of pixels, None where there is none.
        picture: file of the picture, None where there is none.
        filtered: whether masks were dropped.
        volume: its slices, if it is of a volume.
    """

    folder: Path
    image: str
    path: str
    classes: tuple[str, ...]
    masks: tuple[WrittenMask, ...]
    probabilities: Path | None
    picture: Path | None
    filtered: bool
    volume: WrittenVolume | None = None


def read_written(folder: Path) -> WrittenPrediction:
    """Read the ``prediction.json`` of a folder.

    Raises:
        AmbisegError: it cannot be read, is no prediction of ambiseg, names no mask, or a file that lies elsewhere.
    """
    place = folder / PREDICTION
    content = json_of(place)
    if not isinstance(content, dict):
        raise FileProblem(place, "it is no JSON object", AGAIN)
    entry = _Entry(place, "", content)
    masks = tuple(
        _mask(folder, _Entry(place, f" of mask {k + 1}", one)) for k, one in enumerate(entry.entries("masks"))
    )
    if not masks:
        raise FileProblem(place, "it names no mask", AGAIN)
    settings = entry.get("settings", dict) or {}
    return WrittenPrediction(
        folder,
        entry.get("image", str) or folder.name,
        entry.get("path", str) or "",
        tuple(str(name) for name in entry.get("classes", list) or ()),
        masks,
        _optional(folder, entry.get("probabilities", str)),
        _optional(folder, entry.get("picture", str)),
        any(settings.get(name) is not None for name in FILTERS),
        _volume(place, entry.get("volume", dict)),
    )


def _volume(place: Path, content: dict[str, Any] | None) -> WrittenVolume | None:
    if content is None:
        return None
    entry = _Entry(place, " of 'volume'", content)
    axis, counts = entry.need("axis", str), [content.get(name) for name in ("slices", "neighbours")]
    slices, neighbours = (count if type(count) is int else -1 for count in counts)
    if axis not in PLANE_NAMES or not 1 <= slices <= MOST_SLICES or neighbours < 0:
        raise FileProblem(place, "its 'volume' names no axis, or no number of slices and neighbours", AGAIN)
    return WrittenVolume(axis, slices, neighbours)


_KINDS = {str: "a text", list: "a list", dict: "an object", float: "a finite number"}


@dataclass(frozen=True)
class _Entry:
    """An object of the file; ``of`` says in messages which one."""

    place: Path
    of: str
    content: dict[str, Any]

    def get(self, name: str, kind: type[_Kind]) -> _Kind | None:
        """The value of a field, None if it is missing or null; `FileProblem` if it is of another kind."""
        value = self.content.get(name)
        if value is None:
            return None
        if kind is float:
            # comparisons hold for whole numbers of any length, conversions do not
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if number and abs(value) <= sys.float_info.max:
                return cast("_Kind", float(value))
        elif isinstance(value, kind):
            return value
        shown = _KINDS[type(value)] if isinstance(value, (list, dict)) else json.dumps(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}..."
        raise FileProblem(self.place, f"'{name}'{self.of} is {shown}, not {_KINDS[kind]}", AGAIN)

    def need(self, name: str, kind: type[_Kind]) -> _Kind:
        """The value of a field that must be there."""
        value = self.get(name, kind)
        if value is None:
            raise FileProblem(self.place, f"'{name}'{self.of} is missing", AGAIN)
        return value

    def entries(self, name: str) -> list[dict[str, Any]]:
        """A list of objects."""
        found = self.need(name, list)
        if not all(isinstance(one, dict) for one in found):
            raise FileProblem(self.place, f"'{name}' is no list of objects", AGAIN)
        return found


def _mask(folder: Path, entry: _Entry) -> WrittenMask:
    return WrittenMask(
        _inside(folder, entry.need("file", str)),
        entry.need("probability", float),
        entry.get("score", float),
        _optional(folder, entry.get("overlay", str)),
    )


def _optional(folder: Path, name: str | None) -> Path | None:
    return None if name is None else _inside(folder, name)


def _inside(folder: Path, name: str) -> Path:
    """A file of ``folder`` that another file names; `FileProblem` if it lies elsewhere."""
    try:
        inside = Path(name).name == name and stays_inside(folder / name, folder)
    except ValueError as error:  # no system has such a name
        raise FileProblem(folder, f"it names the file {name!r}, which cannot be one", AGAIN) from error
    if not inside:
        raise FileProblem(folder, f"it names the file {name!r}, which lies elsewhere", AGAIN)
    return folder / name


def json_of(path: Path) -> Any:
    """The content of a JSON file of bounded size; `FileProblem` if it cannot be read."""
    try:
        large = path.stat().st_size > MAX_BYTES
        content = b"" if large else path.read_bytes()
    except OSError as error:
        raise FileProblem(path, f"cannot be read ({error.strerror})", AGAIN) from error
    if large:
        raise FileProblem(path, "the file is too large", AGAIN)
    try:
        return json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise FileProblem(path, f"cannot be read as JSON ({where})", AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise FileProblem(path, "cannot be read as JSON", AGAIN) from error
