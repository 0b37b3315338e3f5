"""The file ``prediction.json`` that `ambiseg predict` writes beside the masks of an image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.listing import stays_inside
from ambiseg.errors import AmbisegError
from ambiseg.json_files import MAX_BYTES

PREDICTION = "prediction.json"
AGAIN = "write the predictions again"
FILTERS = ("score_threshold", "probability_threshold", "duplicate_iou", "top")
"""Settings that drop masks."""


@dataclass(frozen=True)
class WrittenMask:
    """One mask: its file, which lies in the folder of the image, its probability, and its score and the file of
    its overlay if there are any."""

    file: Path
    probability: float
    score: float | None
    overlay: Path | None = None


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
    """

    folder: Path
    image: str
    path: str
    classes: tuple[str, ...]
    masks: tuple[WrittenMask, ...]
    probabilities: Path | None
    picture: Path | None
    filtered: bool


def read_written(folder: Path) -> WrittenPrediction:
    """Read the ``prediction.json`` of a folder.

    Raises:
        AmbisegError: it cannot be read, is no prediction of ambiseg, names no mask, or a file that lies elsewhere.
    """
    place = folder / PREDICTION
    content = json_of(place)
    try:
        masks = tuple(_mask(folder, entry) for entry in content["masks"])
        settings = content.get("settings", {})
        found = WrittenPrediction(
            folder,
            str(content.get("image", folder.name)),
            str(content.get("path", "")),
            tuple(str(name) for name in content.get("classes", ())),
            masks,
            _optional(folder, content.get("probabilities")),
            _optional(folder, content.get("picture")),
            any(settings.get(name) is not None for name in FILTERS),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileProblem(place, f"it is no prediction of ambiseg ({error!r})", AGAIN) from error
    if not masks:
        raise FileProblem(place, "it names no mask", AGAIN)
    return found


def _mask(folder: Path, entry: Any) -> WrittenMask:
    score = entry.get("score")
    return WrittenMask(
        _inside(folder, entry["file"]),
        float(entry["probability"]),
        None if score is None else float(score),
        _optional(folder, entry.get("overlay")),
    )


def _optional(folder: Path, name: Any) -> Path | None:
    return None if name is None else _inside(folder, name)


def _inside(folder: Path, name: Any) -> Path:
    """A file of ``folder`` that another file names; `FileProblem` if it lies elsewhere."""
    if not isinstance(name, str) or Path(name).name != name or not stays_inside(folder / name, folder):
        raise FileProblem(folder, f"it names the file {name!r}, which lies elsewhere", AGAIN)
    return folder / name


def json_of(path: Path) -> Any:
    """The content of a JSON file of bounded size; `FileProblem` if it cannot be read."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileProblem(path, "the file is too large", AGAIN)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, AmbisegError):
            raise
        raise FileProblem(path, f"cannot be read as JSON ({error})", AGAIN) from error
