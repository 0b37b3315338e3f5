"""What the exports of annotation tools share: they become the drawings that the importer of COCO reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ambiseg.data.files.reading import IMAGE_SUFFIXES, MAX_PIXELS, suffix_of
from ambiseg.data.files.validation import FileProblem, check_name
from ambiseg.data.importers.coco_file import MAX_BYTES, Annotation, CocoFiles, Drawing
from ambiseg.data.importers.reading import found_files
from ambiseg.errors import AmbisegError

_UPLOADED = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the names of files that are uploaded."""


class ToolImages:
    """The images of an export, by the names that the tool gives them.

    Args:
        source: the data set.
    """

    def __init__(self, source: Path) -> None:
        self.folder = source / "images" if (source / "images").is_dir() else source
        paths = [path for path in found_files(self.folder, "**/*") if suffix_of(path) in IMAGE_SUFFIXES]
        self._paths = {path.relative_to(self.folder).as_posix(): path for path in paths}
        self._names: dict[str, list[str]] = {}
        for name, path in self._paths.items():
            self._names.setdefault(path.name, []).append(name)

    def find(self, name: str, where: str) -> str:
        """The path of an image below the folder; `FileProblem` if there is none, or several have its name."""
        given = name.replace("\\", "/")
        if given in self._paths:
            return given
        last = given.rpartition("/")[2]
        found = self._names.get(last) or self._names.get(_UPLOADED.sub("", last, count=1), [])
        if len(found) == 1:
            return found[0]
        said = f"{len(found)} images have the name {last!r}" if found else f"there is no image {last!r}"
        raise FileProblem(where, f"{said} in {self.folder}", "copy the image that was annotated into it")


class Drawings:
    """Drawings and classes as they are read.

    Attributes:
        found: what the importer of COCO takes.
    """

    def __init__(self) -> None:
        self.found = CocoFiles()
        self._numbers: dict[str, int] = {}

    def start(self, image: str, annotator: str, size: tuple[int, int] | None, where: str) -> Drawing:
        """The drawing of one annotator in one image, which may be empty so far."""
        if size is not None and not (min(size) > 0 and size[0] * size[1] <= MAX_PIXELS):
            raise FileProblem(where, f"the image has {size[0]} x {size[1]} pixels", "export it again")
        check_name(annotator, "annotator")
        return self.found.drawings.setdefault(image, {}).setdefault(annotator, Drawing(size))

    def add(self, drawing: Drawing, label: Any, shape: Any, where: str) -> None:
        """Add a shape of a class."""
        if not isinstance(label, str) or not label.strip():
            raise FileProblem(where, "a shape has no class", "give it one")
        number = self._numbers.setdefault(label, len(self._numbers) + 1)
        self.found.categories[number] = label
        drawing.annotations.append(Annotation(where, number, shape, None, None))

    def spoil(self, image: str | None, error: Exception, where: str) -> None:
        """Note what is wrong, and leave the image out."""
        if image is not None:
            self.found.spoiled.add(image)
        if not isinstance(error, FileProblem):
            line = " ".join(str(error).split()) or type(error).__name__
            error = FileProblem(where, f"a field is wrong ({line})", "export it again")
        self.found.problems.append(error)

    def require_classes(self, source: Path) -> None:
        """Raise `AmbisegError` if nobody drew anything."""
        if not self.found.categories:
            problems = self.found.problems
            raise (
                problems[0]
                if problems
                else AmbisegError(f"{source}: nobody drew a shape: name another export")
            )


def require_small(file: Path) -> None:
    """Raise `FileProblem` for a file that is too large to be read."""
    if file.stat().st_size > MAX_BYTES:
        raise FileProblem(file, f"it is larger than {MAX_BYTES >> 20} MiB", "export fewer images at once")
