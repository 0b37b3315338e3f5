"""How far a long step is: `ProgressLog` writes a line now and then, `progress_bar` also draws bars."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

LOG_EVERY = 30.0
"""Seconds between two lines about the same step."""


class ProgressLog:
    """Lines on stderr about a step: the first after `LOG_EVERY` seconds, so that short steps have none.

    Args:
        title: what is being done.
        now: clock in seconds.

    Example:
        >>> log = ProgressLog("reading")
        >>> log.line(30, 120), log.line(30, None)
        ('reading: 30 of 120 (25 %)', 'reading: 30')
    """

    def __init__(self, title: str, now: Callable[[], float] = time.monotonic) -> None:
        self.title, self.now = title, now
        self.logged = now()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Say how far the step is, if the last line is old enough."""
        now = self.now()
        if now - self.logged >= LOG_EVERY:
            self.logged = now
            print(self.line(done, total), file=sys.stderr, flush=True)

    def line(self, done: int, total: int | None) -> str:
        """The text of a line."""
        share = f" of {total} ({done / total:.0%})".replace("%", " %") if total else ""
        return f"{self.title}: {done}{share}"


def progress_bar(title: str) -> Callable[..., None]:
    """A bar for the argument ``progress`` of long functions, such as `ambiseg.evaluate` and `ambiseg.describe`.

    It is a function of the count done and the count in all, or of what is being done and these two. In a
    notebook and on a terminal it draws a bar of tqdm on stderr; elsewhere, as in a log, it writes a line now and
    then.

    Args:
        title: what is being done.

    Example:
        >>> evaluate(run, "my-data", progress=progress_bar("evaluating"))  # doctest: +SKIP
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        return _Bar(title)
    log = ProgressLog(title)
    return lambda *step: log(*step[-2:])


class _Bar:
    """A bar of tqdm, closed when all is done; another one when counting begins anew."""

    def __init__(self, title: str) -> None:
        self.title = self.shown = title
        self.bar: Any = None

    def __call__(self, *step: Any) -> None:
        """Draw ``[what,] done, total``; a total of None is not known."""
        *what, done, total = step
        title = ", ".join([self.title, *map(str, what)])
        if self.bar is not None and (self.bar.n > done or self.shown != title):
            self._close()
        if self.bar is None:
            self.bar, self.shown = new_bar(desc=title, total=total), title
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        if done == total:
            self._close()

    def _close(self) -> None:
        self.bar.close()
        self.bar = None


def new_bar(**options: Any) -> Any:
    """A bar of ``tqdm.auto``: a widget in notebooks that have ipywidgets, else text on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where there are no widgets
        from tqdm.auto import tqdm
    return tqdm(**options)
