"""The files of the page: what a browser gets, from `ambiseg.viewer.server` or from a folder that `write_site` made."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ambiseg.atomic_write import replacing_folder
from ambiseg.errors import AmbisegError
from ambiseg.version import __version__
from ambiseg.viewer.gallery import Gallery
from ambiseg.viewer.record import picture_of, record_of

VIEW = "view"
"""Verb that the list of such a folder names; see `ambiseg.owned_files`."""
SCRIPT, PICTURE = "text/javascript; charset=utf-8", "image/png"
ASSETS = {
    "index.html": "text/html; charset=utf-8",
    "viewer.css": "text/css; charset=utf-8",
    **{
        f"{name}.js": SCRIPT for name in ("masks", "drawing", "data", "zoom", "controls", "listing", "viewer")
    },
}
"""Files that are the same for all data, with their types."""


@cache
def asset(name: str) -> bytes:
    """A file of `ASSETS`."""
    return files("ambiseg.viewer").joinpath("assets", name).read_bytes()


def list_script(gallery: Gallery) -> bytes:
    """``list.js``: title and names of the images."""
    return _call("list", {"title": gallery.title, "names": gallery.names, "version": __version__})


@dataclass(frozen=True)
class ImageFiles:
    """What a browser gets of one image.

    Attributes:
        script: ``images/INDEX.js``.
        picture: ``images/INDEX.png``, None where the image cannot be read.
        problem: what is wrong with its files; empty if nothing.
    """

    script: bytes
    picture: bytes | None
    problem: str


def image_files(gallery: Gallery, index: int) -> ImageFiles:
    """Read an image; if its files are wrong, the script says so."""
    try:
        case = gallery.read(index)
        record, picture = record_of(case), picture_of(case, gallery.channels)
        problem = "" if picture is not None else case.remark
    except AmbisegError as error:
        record, picture, problem = {"error": str(error)}, None, str(error)
    return ImageFiles(_call("image", index, record), picture, problem)


def write_site(
    gallery: Gallery, out: Path, overwrite: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Write the page with all images into a folder, which any web server can hand out and any disk can hold.

    Args:
        gallery: what to show.
        out: folder to make.
        overwrite: replace an earlier one.
        progress: called with images done and in all.

    Returns:
        A sentence for each image that cannot be shown.

    Raises:
        AmbisegError: ``out`` exists and must stay, or the system refuses the write.
    """
    problems = []
    with replacing_folder(out, overwrite, VIEW, gallery.inputs) as partial:
        (partial / "images").mkdir()
        for name in ASSETS:
            (partial / name).write_bytes(asset(name))
        (partial / "list.js").write_bytes(list_script(gallery))
        for index, name in enumerate(gallery.names):
            one = image_files(gallery, index)
            (partial / "images" / f"{index}.js").write_bytes(one.script)
            if one.picture is not None:
                (partial / "images" / f"{index}.png").write_bytes(one.picture)
            if one.problem:
                problems.append(f"{name}: {one.problem}")
            if progress is not None:
                progress(index + 1, len(gallery.names))
    return problems


def _call(function: str, *values: Any) -> bytes:
    """A script that hands values to the page. All but ASCII is escaped, and so is what could end a script."""
    texts = [json.dumps(value, allow_nan=False, separators=(",", ":")) for value in values]
    return f"ambiseg.{function}({','.join(texts)});\n".replace("<", "\\u003c").encode("ascii")
