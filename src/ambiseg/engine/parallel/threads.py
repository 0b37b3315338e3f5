"""Work in this process with its reading and writing in threads, while the step between them computes.

Memory does not grow with the number of pieces: at most `AHEAD` pieces have been read, and one piece waits to be
written while the next one is computed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from typing import Any, Protocol

from ambiseg.engine.parallel.pieces import nothing

AHEAD = 2
"""Pieces that are read before their turn."""
WRITERS = max(2, min(8, os.cpu_count() or 1))
"""Threads that write: more than cores would wait for each other."""


class Stages(Protocol):
    """Work of three steps; as a function it takes them one after the other."""

    def read(self, piece: Any, /) -> Any:
        """What the piece needs of the disk. Called in threads."""
        ...

    def compute(self, content: Any, /) -> Iterable[Any]:
        """What is to be written. Called in the thread of the caller, in the order of the pieces."""
        ...

    def write(self, item: Any, /) -> Any:
        """Write one item, and return its result. Called in threads."""
        ...

    def __call__(self, piece: Any, /) -> Iterable[Any]:
        """All three, in this thread."""
        ...


class Threads:
    """The engine of this process for work in `Stages`. The results are those of `ambiseg.engine.parallel.pieces.Here`.

    Args:
        writers: threads that write.
    """

    def __init__(self, writers: int = WRITERS) -> None:
        self.writers = writers

    def map(
        self,
        work: Stages,
        pieces: Iterable[Any],
        unused: Callable[[Any], None] = nothing,
    ) -> Generator[Any, None, None]:
        """The results of all pieces, in their order.

        However it ends, no thread works on afterwards. What is begun is finished, what is not is left out.

        Args:
            work: its steps for reading and writing are called in several threads at a time.
            pieces: taken when they are read.
            unused: called with results that were finished when the caller stopped, or when an error ended the work.
        """
        reading, writing = deque[Future[Any]](), deque[tuple[int, Future[Any]]]()
        waiting = iter(pieces)
        with ExitStack() as stack:
            readers = stack.enter_context(ThreadPoolExecutor(AHEAD, "ambiseg-read"))
            writers = stack.enter_context(ThreadPoolExecutor(self.writers, "ambiseg-write"))
            stack.callback(_finish, writing, unused)
            stack.callback(_cancel, reading)

            def read_ahead() -> None:
                for piece in islice(waiting, AHEAD - len(reading)):
                    reading.append(readers.submit(work.read, piece))

            turn = 0
            read_ahead()
            while reading:
                content = reading.popleft().result()
                read_ahead()
                while writing and (writing[0][0] < turn - 1 or writing[0][1].done()):
                    yield _first(writing)
                for item in work.compute(content):
                    writing.append((turn, writers.submit(work.write, item)))
                del content
                turn += 1
            while writing:
                yield _first(writing)


def _first(writing: deque[tuple[int, Future[Any]]]) -> Any:
    """The result of the first item; it stays in the queue where the wait for it is interrupted."""
    result = writing[0][1].result()
    writing.popleft()
    return result


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def _finish(writing: Iterable[tuple[int, Future[Any]]], unused: Callable[[Any], None]) -> None:
    """Cancel what is not begun, wait for the rest, and hand its results to ``unused``."""
    futures = [future for _, future in writing]
    _cancel(futures)
    for future in futures:
        if not future.cancelled() and future.exception() is None:
            unused(future.result())
