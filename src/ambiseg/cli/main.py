"""``ambiseg``: finds the verb, runs it, and turns whatever goes wrong into one line and an exit status.

Exit status: 0 done, 1 a bug in the library, 2 something that the user can mend, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence

from ambiseg.cli.dispatch import Menu, Verb
from ambiseg.errors import AmbisegError, DataWarning, PluginWarning, TrainingWarning
from ambiseg.escaping import visible
from ambiseg.version import __version__

MENU = Menu(
    "ambiseg",
    "Predict all plausible masks of an ambiguous image, with their probabilities.",
    (
        Verb(
            "demo", "simulate, train, predict, evaluate and report in a few minutes", "ambiseg.cli.demo:run"
        ),
        Verb("data", "simulate, check and pack data sets", "ambiseg.cli.data:run"),
        Verb("train", "train a method on a data set, or go on with a run", "ambiseg.cli.train:run"),
        Verb("tune", "search settings of a method by trial trainings", "ambiseg.cli.tune:run"),
        Verb("predict", "masks, probabilities and a picture of each image", "ambiseg.cli.predict:run"),
        Verb(
            "convert",
            "predictions for COCO, Label Studio, CVAT, GIS, NIfTI or napari",
            "ambiseg.cli.convert:run",
        ),
        Verb("serve", "answer requests over HTTP: an image in, masks out", "ambiseg.cli.serve:run"),
        Verb("view", "look at masks and probabilities in a browser", "ambiseg.cli.view:run"),
        Verb("mix", "several runs as one, with weights fitted on validation images", "ambiseg.cli.mix:run"),
        Verb("evaluate", "measure a run against annotations", "ambiseg.cli.evaluate:run"),
        Verb("score", "measure the masks of any program against annotations", "ambiseg.cli.score:run"),
        Verb("report", "one page with curves, numbers and example images of a run", "ambiseg.cli.report:run"),
        Verb("export", "a run as one file: ONNX, PyTorch, or for this library", "ambiseg.cli.export:run"),
        Verb("push", "upload a run to Hugging Face, or write its folder", "ambiseg.cli.hub:push"),
        Verb("pull", "download a run from Hugging Face", "ambiseg.cli.hub:pull"),
        Verb(
            "calibrate-filter",
            "choose on annotated images which masks a run keeps",
            "ambiseg.cli.calibrate:run",
        ),
        Verb(
            "benchmark",
            "every method on every data set under one protocol, as tables",
            "ambiseg.cli.benchmark:run",
        ),
        Verb("methods", "list the methods, or the presets of one", "ambiseg.cli.methods:run"),
        Verb("cite", "the reference of a method as BibTeX", "ambiseg.cli.methods:cite"),
    ),
    outro="'ambiseg COMMAND --help' tells more; --debug anywhere shows where an error came from; --version.",
    options=("--help", "--version"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: the words after ``ambiseg``; those of the process if None.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    args = [word for word in given if word != "--debug"]
    debug = len(args) < len(given)
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
                for shown in (TrainingWarning, DataWarning, PluginWarning):
                    warnings.simplefilter("always", shown)
                warnings.showwarning = _show_warning
            return _run(args)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 2
    except BrokenPipeError:
        _discard_output()
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        sentence, status = explain(error)
        print(f"ambiseg: {sentence}", file=sys.stderr)
        return status


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """One line on stderr."""
    print(f"ambiseg: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _run(args: list[str]) -> int:
    if args[:1] == ["--version"]:
        print(f"ambiseg {__version__}")
        status = 0
    else:
        status = MENU.run(args)
    sys.stdout.flush()
    return status


def explain(error: BaseException) -> tuple[str, int]:
    """One line about an error, and the exit status.

    Example:
        >>> explain(AmbisegError("a.png is empty: save it again"))
        ('error: a.png is empty: save it again', 2)
    """
    text = visible(str(error).strip())
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted{': ' if text else ''}{text}", 130
    if isinstance(error, AmbisegError):
        return f"error: {text}", 2
    text = visible(" ".join(str(error).split()))
    if any(_is_full(e) for e in _chain(error)):
        return "error: the disk is full (no space left on device): free space or write to another disk", 2
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return (
            "error: not enough memory: try a smaller --batch-size or --set backbone.width",
            2,
        )
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"error: {visible(str(error.filename))}: {error.strerror}: check the path and its permissions",
            2,
        )
    name = type(error).__name__
    return f"error: this is a bug in ambiseg ({name}: {text}): run again with --debug and report it", 1


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that led to it, each once: a chain may be a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error)


def _discard_output() -> None:
    """Send the rest of the output nowhere, so that Python does not complain about the closed pipe."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
