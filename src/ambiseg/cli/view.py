"""``ambiseg view``: a page in the browser with images, masks and probabilities, or a folder that holds the page."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

from ambiseg.cli.console import progress, say, show, warn
from ambiseg.cli.evaluate import data_of
from ambiseg.cli.parsing import Shown, parse
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.viewer.gallery import Gallery

RUN_FILES = ("config.yaml", "mixture.yaml")
"""What a run folder holds one of (`ambiseg.engine.run_folder`, `ambiseg.engine.mixture`, which import torch)."""


@dataclass(frozen=True)
class ViewArguments:
    """Look at masks and their probabilities in a browser.

    SOURCE is a folder of 'ambiseg predict', the predictions of any program (with --data), a data set, or a run, which
    predicts each image when it is opened."""

    source: Positional[Path]
    """Predictions, data set or run."""
    data: Path | None = None
    """Data set with annotations to show beside predictions; of a run its own if left out."""
    split: str = ""
    """Which split of it; test, else val, else the first one if left out."""
    images: Path | None = None
    """Folder of the images, if they no longer lie where they were predicted."""
    out: Path | None = None
    """Write the page into this folder in place of opening it: index.html in it works from a disk and on any web
    server."""
    overwrite: bool = False
    """Replace an earlier page in that folder."""
    port: int = 0
    """Port on this computer; a free one if left out."""
    browser: Annotated[bool, Shown] = True
    """Only print the address, do not open a browser."""


def run(args: list[str]) -> int:
    """Write the page, or hand it out until Ctrl-C."""
    arguments = parse(ViewArguments, args, "ambiseg view")
    if not 0 <= arguments.port < 65536:
        raise AmbisegError(f"--port is 1 to 65535, or 0 for a free one, received {arguments.port}")
    if arguments.overwrite and arguments.out is None:
        raise AmbisegError("--overwrite is of use with --out only")
    gallery = gallery_of(arguments)
    if arguments.out is not None:
        return _write(gallery, arguments.out, arguments.overwrite)
    return _serve(gallery, arguments.port, arguments.browser)


def gallery_of(arguments: ViewArguments) -> Gallery:
    """What to show.

    Raises:
        AmbisegError: nothing there, or options that do not fit it.
    """
    source, data = arguments.source, arguments.data
    if not source.exists():
        raise AmbisegError(f"there is nothing at {source}: name predictions, a data set or a run")
    from ambiseg.data.source import open_split
    from ambiseg.predictions import open_predictions
    from ambiseg.viewer.gallery import (
        PredictedGallery,
        SplitGallery,
        chosen_split,
        is_predicted,
    )

    is_run = any((source / name).is_file() for name in RUN_FILES)
    if data is None and not is_run and is_predicted(source):
        if arguments.split:
            raise AmbisegError("--split is of a data set: give --data too")
        return PredictedGallery(source, arguments.images)
    if arguments.images is not None:
        raise AmbisegError("--images is of use with a folder of 'ambiseg predict' alone: leave it out")
    if is_run:
        from ambiseg.engine.run import load
        from ambiseg.viewer.run_gallery import RunGallery

        model = load(source)
        data = data_of(model.config, data)
        split = chosen_split(data, arguments.split)
        return RunGallery(model, open_split(data, split), f"{source.resolve().name}, {split}", [source, data])
    split = chosen_split(data or source, arguments.split)
    opened = open_split(data or source, split)
    if data is None:
        return SplitGallery(opened, f"{source.resolve().name}, {split}", [source])
    title = f"{source.resolve().name} beside {data.resolve().name}, {split}"
    return SplitGallery(opened, title, [source, data], open_predictions(source, opened.ids))


def _write(gallery: Gallery, out: Path, overwrite: bool) -> int:
    from ambiseg.viewer.site import write_site

    with progress("writing") as update:
        problems = write_site(gallery, out, overwrite, update)
    if problems:
        warn(f"{len(problems)} of {len(gallery.names)} images have problems, such as {problems[0]}")
    show(str(out / "index.html"))
    return 0


def _serve(gallery: Gallery, port: int, browser: bool) -> int:
    from ambiseg.viewer.server import ViewServer

    with ViewServer(gallery, port) as server:
        show(server.url)
        say(f"{len(gallery.names)} images of {gallery.title}; Ctrl-C ends it")
        threading.Thread(target=server.image, args=(0,), daemon=True).start()  # while the browser opens
        if browser and _has_screen():
            import webbrowser

            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("")
    return 0


def _has_screen() -> bool:
    """Whether a browser has a window to open; without one, some begin in the terminal."""
    return not sys.platform.startswith("linux") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
