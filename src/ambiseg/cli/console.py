"""What is printed where: results on stdout, all else on stderr; JSON alone on stdout when it is asked for.

File names, settings and data reach a terminal through these functions only, which spell control characters
and line breaks out (`ambiseg.escaping.visible`).
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ambiseg.escaping import visible, visible_json
from ambiseg.progress_log import ProgressLog


class Grid(Table):
    """A table of words as they are: no markup, control characters and line breaks spelt out."""

    def __init__(self, title: str = "") -> None:
        super().__init__(
            box=box.SIMPLE_HEAD,
            title=_words(title) if title else None,
            title_justify="left",
            title_style="bold",
        )

    def column(self, name: str, *, right: bool = False, whole: bool = False) -> None:
        """Add a column: with words at the right, or never wrapped (`whole`)."""
        self.add_column(_words(name), justify="right" if right else "left", no_wrap=whole, overflow="fold")

    def row(self, *cells: str | Sequence[str], style: str = "") -> None:
        """Add a row; a cell of several texts has a line for each. ``style`` is that of the first cell."""
        lines = [_words(cell) if isinstance(cell, str) else _lines(cell) for cell in cells]
        if style:
            lines[0].stylize(style)
        self.add_row(*lines)


def _words(text: str) -> Text:
    return Text(visible(text))


def _lines(texts: Sequence[str]) -> Text:
    return Text("\n").join(map(_words, texts))


def say(*lines: str) -> None:
    """Remarks on stderr, a line each, never wrapped."""
    _print(Console(stderr=True), lines)


def warn(sentence: str) -> None:
    """What a user should look at, as one line on stderr; nothing if there is no sentence."""
    if sentence:
        say(f"ambiseg: warning: {sentence}")


def show(*lines: str) -> None:
    """A result on stdout, a line for each text, never wrapped."""
    _print(Console(), lines)


def show_grid(grid: Grid) -> None:
    """A table on stdout, with room where there is no terminal."""
    Console(width=None if sys.stdout.isatty() else 120).print(grid)


def _print(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(_words(line), soft_wrap=True, highlight=False)


def show_json(value: Any) -> None:
    """A result as JSON on stdout; numbers that are not finite become null."""
    print(visible_json(json.dumps(finite(value), indent=2, ensure_ascii=False)))


def finite(value: Any) -> Any:
    """The same with None for nan and infinity, which JSON does not know.

    Example:
        >>> finite({"a": [1.5, float("nan")]})
        {'a': [1.5, None]}
    """
    if isinstance(value, dict):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def command(*words: object) -> str:
    """A command line to type, quoted where the shell needs it.

    Example:
        >>> command("ambiseg", "report", Path("my run"))
        "ambiseg report 'my run'"
    """
    return shlex.join(str(word) for word in words)


def next_commands(*lines: tuple[str, str]) -> None:
    """What to type next: pairs of a command and what it does."""
    width = max(len(line) for line, _ in lines)
    say("next:")
    for line, purpose in lines:
        say(f"  {line:<{width}}   {purpose}")


@contextmanager
def progress(title: str, lines: bool = True) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr on a terminal, else a line now and then; hands out a function of the count done and the count
    in all.

    Args:
        title: what is being done.
        lines: whether to write lines where there is no terminal; no with ``--json``, which programs read.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield ProgressLog(title) if lines else lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield update
