"""Work in pieces: one after the other in this process, or elsewhere (`ambiseg.engine.parallel.over_ray`).

A piece is the same for every engine and any number of workers, and its random numbers depend on the seed and its place,
so results are the same too.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.run import Run

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def nothing(result: Any) -> None:
    """Do nothing with a result."""


class Engine(Protocol):
    """Where pieces of work are done."""

    def map(
        self,
        work: Callable[[Piece], Iterable[Result]],
        pieces: Iterable[Piece],
        unused: Callable[[Result], None] = nothing,
    ) -> Generator[Result, None, None]:
        """The results of all pieces, in their order.

        Args:
            work: a function that can be pickled, where the engine has other processes.
            pieces: taken when they are begun.
            unused: called with results that were finished before their turn, where that never comes.
        """
        ...


class Here:
    """The engine of this process."""

    def map(
        self,
        work: Callable[[Piece], Iterable[Result]],
        pieces: Iterable[Piece],
        unused: Callable[[Result], None] = nothing,
    ) -> Generator[Result, None, None]:
        """The results of one piece after the other; none is finished before its turn."""
        for piece in pieces:
            yield from work(piece)


HERE = Here()


@dataclass(frozen=True)
class _Place:
    folder: Path
    digest: str
    precision: str


class SharedRun:
    """A run for other processes, which load it from its folder when they first need it.

    Args:
        run: a loaded run.
    """

    def __init__(self, run: Run) -> None:
        self._run: Run | None = run
        self._place: _Place | None = None

    @property
    def run(self) -> Run:
        """The run."""
        if self._run is None:
            assert self._place is not None
            return _loaded(self._place)
        return self._run

    def __getstate__(self) -> dict[str, Any]:
        if self._place is None:
            run = self.run
            if run.folder is None:
                raise AmbisegError(
                    "a run that lies in memory only cannot be used on other machines: load it from a folder"
                )
            self._place = _Place(run.folder.resolve(), run.digest(), "bf16" if run.hardware.bf16 else "32")
        return {"_run": None, "_place": self._place}


@lru_cache(maxsize=4)
def _loaded(place: _Place) -> Run:
    """The run of a folder that all machines see.

    Raises:
        AmbisegError: this one does not, or sees another run there.
    """
    if not place.folder.exists():
        raise AmbisegError(
            f"the machine {socket.gethostname()} does not see {place.folder}: runs, data and results must lie in folders"
            " that all machines share"
        )
    from ambiseg.engine.run import load  # here: a worker imports it when it first needs a run

    run = load(place.folder, place.precision)
    if run.digest() != place.digest:
        raise AmbisegError(f"{place.folder} has other weights on {socket.gethostname()}: share one folder")
    return run


def share(run: Any) -> SharedRun | None:
    """A run for other processes; None of none."""
    return None if run is None else SharedRun(run)


def go_home(folder: str) -> None:
    """Work in the folder of the command, so that relative paths mean the same.

    Raises:
        AmbisegError: this machine does not see it.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        raise AmbisegError(
            f"the machine {socket.gethostname()} does not see {folder} ({error.strerror}): start the command in a folder that"
            " all machines share"
        ) from error


def seed_of(seed: int, place: int) -> int:
    """A seed for the piece at a place: others give other random numbers; the first piece has the seed itself."""
    if place == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}, {place}".encode()).digest()[:8]) >> 1
