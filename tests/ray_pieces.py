"""Pieces of work for the tests of engines, in a module that workers import in no time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from ambiseg.errors import AmbisegError


def double(number: int) -> Iterator[int]:
    """Two results of a piece."""
    yield from (number, 10 * number)


def kill_once(folder: str, number: int) -> Iterator[int]:
    """End this process, as the system does for want of memory, the first time that piece 2 is done."""
    mark = Path(folder) / str(number)
    if number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    yield number


def kill_always(number: int) -> Iterator[int]:
    """End this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    yield number


def refuse(number: int) -> Iterator[int]:
    """An error of the user."""
    raise AmbisegError(f"piece {number} is wrong")
    yield number
