"""COCO annotation files: every field is checked before it is used, and what is wrong with one image or
annotation is named with its id, the field, its value and the remedy.

What would change the meaning of all annotations stops the import: no lists, categories that are none or twice
there. What is wrong with one annotation spoils its image only.
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ambiseg.data.files.reading import MAX_PIXELS
from ambiseg.data.files.validation import FileProblem, check_name
from ambiseg.errors import AmbisegError

MAX_BYTES = 1 << 29
"""Largest annotation file that is read, 512 MiB; read, it takes several times as much memory."""

_BACKGROUND = ("background", "__background__", "_background_")
_LISTS = ("images", "annotations", "categories")
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Annotation:
    """One shape.

    Attributes:
        where: file and id, for messages.
        category: id of its category.
        segmentation: polygons or run lengths as they stand in the file, None if there are none.
        area: in pixels, None if it is not stated.
        box: x, y, width and height, None if they are not stated.
    """

    where: str
    category: int
    segmentation: Any
    area: float | None
    box: tuple[float, ...] | None


@dataclass
class Drawing:
    """What one annotator drew in one image, and the height and width that the file says the image has."""

    size: tuple[int, int] | None
    annotations: list[Annotation] = field(default_factory=list)


@dataclass
class CocoFiles:
    """Content of one or more annotation files.

    Attributes:
        categories: name of each id, without the background.
        drawings: by file name of the image, then by annotator.
        spoiled: file names of images with a wrong annotation, which must not be imported.
        problems: all that is wrong.
    """

    categories: dict[int, str] = field(default_factory=dict)
    drawings: dict[str, dict[str, Drawing]] = field(default_factory=dict)
    spoiled: set[str] = field(default_factory=set)
    problems: list[FileProblem] = field(default_factory=list)


def read_coco_files(files: list[Path], plain_name: Callable[[str], str]) -> CocoFiles:
    """Read annotation files whose categories are the same.

    Args:
        files: JSON files.
        plain_name: the name of an image below the folder of images, from its ``file_name``.

    Raises:
        AmbisegError: too large, no COCO file, or categories that are wrong or differ between the files.
    """
    found = CocoFiles()
    first: dict[int, str] | None = None
    for file in files:
        content = _load(file)
        categories = _categories(file, content["categories"])
        if first is not None and categories != first:
            raise AmbisegError(
                f"{file}: its categories {categories} are not those of {files[0].name}, {first}: use one list"
            )
        first = categories
        found.categories = {
            i: name for i, name in categories.items() if name.strip().lower() not in _BACKGROUND
        }
        _Reader(file, categories, found, plain_name).read(content)
    return found


def plain_file_name(name: str) -> str:
    """A ``file_name`` with slashes, without ``./`` and ``x/../``.

    Example:
        >>> plain_file_name("images" + chr(92) + "a.png")
        'images/a.png'
    """
    return posixpath.normpath(name.replace("\\", "/"))


def _load(file: Path) -> dict[str, list[Any]]:
    if file.stat().st_size > MAX_BYTES:
        raise FileProblem(file, f"it is larger than {MAX_BYTES >> 20} MiB", "divide it by annotator or image")
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())[:200]
        raise FileProblem(file, f"cannot be read as JSON ({line})", "export it again") from error
    lists: dict[str, list[Any]] = {}
    for name in _LISTS:
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise FileProblem(file, f"it has no list {name!r}", "export it as COCO annotations")
        lists[name] = entries
    return lists


def _categories(file: Path, entries: list[Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    for i, entry in enumerate(entries):
        where = f"{file}, category {_id_of(entry, i)}"
        number = _field(where, entry, "id", _whole, "write a whole number")
        name = _field(where, entry, "name", _text, "write the name of the class")
        if number in names or name in names.values():
            raise FileProblem(
                where, f"its id or its name {name!r} is that of another", "list each class once"
            )
        names[number] = name
    return names


class _Reader:
    """Enters one file into what is known."""

    def __init__(
        self, file: Path, categories: dict[int, str], found: CocoFiles, plain_name: Callable[[str], str]
    ) -> None:
        self.file, self.categories, self.found, self.plain_name = file, categories, found, plain_name
        self.names: dict[int | str, str] = {}
        self.sizes: dict[str, tuple[int, int] | None] = {}

    def read(self, content: dict[str, list[Any]]) -> None:
        for i, entry in enumerate(content["images"]):
            try:
                self._image(f"{self.file}, image {_id_of(entry, i)}", entry)
            except FileProblem as problem:
                self.found.problems.append(problem)
        several = any(isinstance(a, dict) and "annotator" in a for a in content["annotations"])
        for name in self.sizes:
            drawings = self.found.drawings.setdefault(name, {})
            if not several:
                self._drawing(drawings, name, self.file.stem)
        for i, entry in enumerate(content["annotations"]):
            self._annotation(f"{self.file}, annotation {_id_of(entry, i)}", entry, several)

    def _image(self, where: str, entry: Any) -> None:
        key = _field(where, entry, "id", _key, "give every image a number or a text of its own")
        given = _field(where, entry, "file_name", _text, "write the name of the file in images/")
        name = self.plain_name(given)
        twice = key in self.names or name in self.sizes
        self.found.spoiled |= {name, self.names.get(key, name)} if twice else set()
        if twice:
            raise FileProblem(where, f"its id or its file_name {given!r} is that of another", "list it once")
        self.names[key], self.sizes[name] = name, None
        try:
            if name in (".", "..") or name.startswith(("../", "/")):
                said = f"its file_name {given!r} leads out of the folder images"
                raise FileProblem(where, said, "copy the file into the folder, and name it from there")
            width = _optional(where, entry, "width", _side, "write the number of pixels")
            height = _optional(where, entry, "height", _side, "write the number of pixels")
            if (width is None) != (height is None) or (width or 0) * (height or 0) > MAX_PIXELS:
                said = f"its width is {width}, its height {height}"
                raise FileProblem(where, said, f"write both, of {MAX_PIXELS} pixels at most")
        except FileProblem:
            self.found.spoiled.add(name)
            raise
        self.sizes[name] = None if width is None or height is None else (height, width)

    def _drawing(self, drawings: dict[str, Drawing], name: str, annotator: str) -> Drawing:
        drawing = drawings.setdefault(annotator, Drawing(self.sizes[name]))
        if drawing.size != self.sizes[name]:
            self.found.spoiled.add(name)
            said = f"its size of {name!r} for {annotator!r} is {self.sizes[name]}, in another file {drawing.size}"
            self.found.problems.append(FileProblem(self.file, said, "write the same width and height"))
        return drawing

    def _annotation(self, where: str, entry: Any, several: bool) -> None:
        name = None
        try:
            key = _field(where, entry, "image_id", _key, "write the id of an image")
            if key not in self.names:
                raise FileProblem(where, f"its image_id {key!r} is in no list of images", "add the image")
            name = self.names[key]
            category = _field(where, entry, "category_id", _whole, "write the id of a category")
            if category not in self.categories:
                raise AmbisegError(
                    f"{where}: category_id {category} is not in the class list: add it to categories"
                )
            if category not in self.found.categories:
                raise AmbisegError(
                    f"{where}: its category {self.categories[category]!r} is what is left where nothing is"
                    " drawn: remove the annotation or rename the category"
                )
            who = self.file.stem
            if several:
                who = _field(where, entry, "annotator", _annotator, "write a name, as in the others")
            area = _optional(where, entry, "area", _number, "write the number of pixels, or leave it out")
            box = _optional(where, entry, "bbox", _box, "write x, y, width and height, or leave it out")
            drawn = self._drawing(self.found.drawings[name], name, who)
            drawn.annotations.append(Annotation(where, category, entry.get("segmentation"), area, box))
        except FileProblem as problem:
            self.found.problems.append(problem)
            if name is not None:
                self.found.spoiled.add(name)


def _id_of(entry: Any, place: int) -> str:
    """How an entry is called in messages: its id, else its place in the list."""
    known = entry.get("id") if isinstance(entry, dict) else None
    return f"number {place + 1}" if known is None else str(known)[:50]


def _field(where: str, entry: Any, name: str, read: Callable[[Any], _Value], remedy: str) -> _Value:
    """One field, read; `FileProblem` with its value where that fails."""
    if not isinstance(entry, dict):
        raise FileProblem(where, f"it is {_shown(entry)}, no object with fields", "export it again")
    if name not in entry:
        raise FileProblem(where, f"it has no field {name!r}", remedy)
    try:
        return read(entry[name])
    except (TypeError, ValueError, OverflowError, AmbisegError) as error:
        raise FileProblem(where, f"field {name!r} is {_shown(entry[name])}", remedy) from error


def _optional(
    where: str, entry: dict[str, Any], name: str, read: Callable[[Any], _Value], remedy: str
) -> _Value | None:
    """The same for a field that may be missing or empty."""
    return None if entry.get(name) in (None, [], "") else _field(where, entry, name, read, remedy)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _whole(value: Any) -> int:
    """A whole number, also one written as 7.0 or "7"."""
    number = float(value)
    if isinstance(value, bool) or number != int(number):
        raise ValueError
    return int(number)


def _key(value: Any) -> int | str:
    """An id: a number, or text; text of digits is that number."""
    try:
        return _whole(value)
    except (ValueError, TypeError, OverflowError):
        return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 1000:
        raise ValueError
    return value


def _annotator(value: Any) -> str:
    name = value if isinstance(value, str) else str(_whole(value))
    check_name(name, "annotator")
    return name


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _side(value: Any) -> int:
    side = _whole(value)
    if side < 1:
        raise ValueError
    return side


def _box(value: Any) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in value)
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) < 0:
        raise ValueError
    return numbers
