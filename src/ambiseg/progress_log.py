"""`ProgressLog`: a line now and then about a long step, for output that is kept in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

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
