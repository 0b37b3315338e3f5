"""Every key of ``dataset.yaml`` and every column of ``weights.csv``: what it may hold, its default, its meaning.

`KEYS` and `CLASS_KEYS` read the values and name the unknown keys; ``python docs/schema.py`` draws them as the
tables of docs/data/dataset-yaml.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ambiseg.data.augmentation_kinds import KINDS, TESTED
from ambiseg.data.class_flips import MAX_FLIPS, OUTPUTS
from ambiseg.data.patterns import FilePatterns
from ambiseg.data.volumes.settings import MOST_NEIGHBOURS, PLANE_NAMES, SliceSettings
from ambiseg.errors import AmbisegError, UnknownNameError

AUGMENTATIONS = tuple(KINDS)
"""Kinds of augmentation that a data set can allow or forbid."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Key:
    """One key of a mapping that users write.

    Attributes:
        kind: what its value may be, in Markdown.
        default: what holds where the key is missing, in Markdown.
        meaning: what it says, in Markdown.
        read: takes the value (None where the key is missing or empty) and the name of the key; returns it in its
            one form, or raises `AmbisegError`.
    """

    kind: str
    default: str
    meaning: str
    read: Callable[[Any, str], Any]


def read_keys(entries: Mapping[Any, Any], keys: Mapping[str, Key], of: str = "") -> dict[str, Any]:
    """The values of all ``keys``.

    Args:
        entries: what the user wrote.
        keys: those that are known.
        of: whose keys they are, for messages.

    Raises:
        UnknownNameError: a key that is not known.
        AmbisegError: a value of another kind.

    Example:
        >>> read_keys({"name": "road"}, CLASS_KEYS)
        {'name': 'road', 'color': None}
    """
    for key in entries:
        if key not in keys:
            raise UnknownNameError(f"key{of}", str(key), keys)
    return {name: key.read(entries.get(name), f"{name}{of}") for name, key in keys.items()}


def word(value: Any, key: str) -> str:
    """A name; `AmbisegError` for what YAML reads as another kind."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise AmbisegError(
            f"{key} are names, received {value!r}: write names, in quotes where YAML sees another kind"
        )
    return str(value)


def _text(value: Any, key: str) -> str:
    return "" if value is None else word(value, key)


def _list(value: Any, key: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise AmbisegError(f"{key} is a list, such as [a, b], received {value!r}")
    return value or []


def _mapping(example: str) -> Callable[[Any, str], dict[Any, Any]]:
    def read(value: Any, key: str) -> dict[Any, Any]:
        if value is not None and not isinstance(value, dict):
            raise AmbisegError(f"{key} is a mapping, such as {example}, received {value!r}")
        return value or {}

    return read


def _whole(value: Any, key: str) -> int | None:
    if value is not None and type(value) is not int:
        raise AmbisegError(f"{key} is an integer, received {value!r}")
    return value


def _whole_or_name(value: Any, key: str) -> int | str | None:
    return value if isinstance(value, str) else _whole(value, key)


def _number(value: Any, key: str) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise AmbisegError(f"{key} is a number, such as 127, received {value!r}")
    return value


def _color(value: Any, key: str) -> Color | None:
    if value is None:
        return None
    if not (
        isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)
    ):
        raise AmbisegError(f"{key} is three integers 0..255, such as [255, 0, 0], received {value!r}")
    return (value[0], value[1], value[2])


def _class(value: Any) -> tuple[str, Color | None]:
    """Name and colour of one class."""
    if not isinstance(value, dict):
        return word(value, "classes"), None
    found = read_keys(value, CLASS_KEYS, f" of class {value['name']!r}" if "name" in value else " of a class")
    return word(found["name"], "classes"), found["color"]


def _classes(value: Any, key: str) -> list[tuple[str, Color | None]]:
    return [_class(entry) for entry in _list(value, key)]


def _words(value: Any, key: str) -> tuple[str, ...]:
    return tuple(word(entry, key) for entry in _list(value, key))


def _texts(value: Any, key: str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else _words(value, key)


def _files(value: Any, key: str) -> FilePatterns | None:
    if value is None:
        return None
    return FilePatterns.of(
        read_keys(_mapping("{images: 'images/{id}.*'}")(value, key), FILES_KEYS, f" of {key}")
    )


def _slices(value: Any, key: str) -> SliceSettings | None:
    if value is None:
        return None
    return SliceSettings.of(read_keys(_mapping("{axis: axial}")(value, key), SLICES_KEYS, f" of {key}"))


CLASS_KEYS = {
    "name": Key("text", "required", "Name of the class.", lambda value, _: value),
    "color": Key(
        "`[RED, GREEN, BLUE]`, each 0 to 255",
        "black for class 0, then evenly around the colour circle",
        "Colour of the class in masks that are read and written. Give one to each class or to none.",
        _color,
    ),
}
"""Keys of a class that is written as a mapping."""

FILES_KEYS = {
    "root": Key(
        "path",
        "folder of `dataset.yaml`",
        "Folder that the data lie in; nothing outside of it is read.",
        _text,
    ),
    "images": Key("pattern, or list of patterns", "required", "Paths of the images, with `{id}`.", _texts),
    "masks": Key(
        "pattern, or list of patterns",
        "required",
        "Paths of the masks, with `{id}` and mostly `{annotator}`.",
        _texts,
    ),
    "splits": Key(
        "name of a file beside `dataset.yaml`",
        "one split `all`, or `{split}` of the pattern",
        "Table (CSV) with the columns id and split; it counts more than `{split}`, and images that it does not name are"
        " left out.",
        _text,
    ),
}
"""Keys of ``files``."""

SLICES_KEYS = {
    "axis": Key(
        f"{', '.join(f'`{name}`' for name in reversed(PLANE_NAMES))}, or `0`, `1`, `2`",
        "`axial`",
        "Which planes are the slices: by the affine of each volume, or across an axis of the array as it is stored.",
        lambda value, _: value,
    ),
    "neighbours": Key(
        f"integer, 0 to {MOST_NEIGHBOURS}",
        "`0`",
        "Slices on each side that are added as channels; the outermost slice is repeated at the border.",
        lambda value, _: value,
    ),
    "keep": Key(
        "`all` or `foreground`",
        "`all`",
        "All slices, or those where a mask of any annotator has another class than the background.",
        lambda value, _: value,
    ),
    "reorder": Key(
        "`true` or `false`",
        "`false`; `true` for DICOM series",
        "Put masks whose voxels are stored in another order in that of their image; they are refused otherwise.",
        lambda value, _: value,
    ),
}
"""Keys of ``slices``."""

KEYS = {
    "name": Key("text", "name of the folder or file", "What reports call the data set.", _text),
    "classes": Key(
        "list of 2 to 255 names, or of `{name: ..., color: ...}`",
        "`[background, foreground]`",
        "The classes in the order of their numbers in the masks: 0, 1, 2 and so on.",
        _classes,
    ),
    "ignore_value": Key(
        "integer, from the number of classes to 255",
        "none",
        "Number of pixels that no loss and no metric looks at.",
        _whole,
    ),
    "background": Key(
        "name or number of a class, or `null`",
        "`0`",
        "The class that metrics leave out. With `null` they evaluate every class.",
        _whole_or_name,
    ),
    "mask_threshold": Key(
        "number from 0",
        "none",
        "For two classes whose masks have smooth borders or hold probabilities: greater numbers are foreground.",
        _number,
    ),
    "channels": Key(
        "list of names",
        "none",
        "Names of the image channels, as many as the images have.",
        _words,
    ),
    "augment": Key(
        f"mapping of {', '.join(f'`{kind}`' for kind in AUGMENTATIONS)} to `true` or `false`",
        f"{', '.join(f'`{kind.kind}`' for kind in TESTED)} are tested before training, others are allowed",
        "Kinds of augmentation that the masks survive (`true`) or do not survive (`false`).",
        _mapping("{flip: false}"),
    ),
    "flips": Key(
        f"mapping of 1 to {MAX_FLIPS} classes to probabilities 0 to 1",
        "none",
        "Classes that are switched on and off when the data are read. Each image then stores one label map.",
        _mapping("{road: 0.05}"),
    ),
    "output": Key(
        " or ".join(f"`{output}`" for output in OUTPUTS),
        f"`{OUTPUTS[0]}`",
        "Only with `flips`: a class that is on becomes foreground (`binary`) or a class of its own (`twins`).",
        _text,
    ),
    "files": Key(
        "mapping, see below",
        "`SPLIT/images`, `SPLIT/masks`",
        "Where images and masks lie, if not in the folders of this library.",
        _files,
    ),
    "slices": Key(
        "mapping, see below",
        "images are single slices",
        "Images and masks are volumes, which are read slice by slice ([volumes](volumes.md)).",
        _slices,
    ),
    "source": Key("text", "none", "Where the data come from.", _text),
    "licence": Key("text", "none", "Terms of use.", _text),
}
"""Keys of ``dataset.yaml``."""

COLUMNS = {
    "id": "Name of the image file without its suffix.",
    "annotator": "Name of the mask file without its suffix.",
    "weight": "Probability of this mask: a number from 0. The weights of an image sum to 1 (tolerance 0.001).",
}
"""Columns of ``weights.csv`` and what they hold, in their order."""
