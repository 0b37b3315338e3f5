"""What is printed where: results on stdout, all else on stderr; JSON alone on stdout when it is asked for."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def say(text: str) -> None:
    """A remark on stderr, never wrapped."""
    Console(stderr=True).print(text, soft_wrap=True, highlight=False, markup=False)


def warn(sentence: str) -> None:
    """What a user should look at, as one line on stderr; nothing if there is no sentence."""
    if sentence:
        say(f"ambiseg: warning: {sentence}")


def show(result: RenderableType) -> None:
    """A result on stdout; text is never wrapped, tables get room where there is no terminal."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    if isinstance(result, str):
        console.print(result, soft_wrap=True, highlight=False, markup=False)
    else:
        console.print(result)


def show_json(value: Any) -> None:
    """A result as JSON on stdout; numbers that are not finite become null."""
    print(json.dumps(finite(value), indent=2, ensure_ascii=False))


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
def progress(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr, on a terminal only; hands out a function of the count done and the count in all."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield update
