"""Options of the verbs whose work may be spread over processes and machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ambiseg.cli.parsing import at_least_one
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.parallel.over_ray import RayEngine


@dataclass(frozen=True)
class Spreading:
    """Where the work is done."""

    engine: Literal["local", "ray"] = "local"
    """Where the work is done: in this process, or by workers of Ray on this or several machines (pip install
    'ambiseg[ray]'); the results are the same."""
    ray_address: str | None = None
    """HOST:PORT of a Ray cluster that this machine belongs to; Ray is started on this machine if left out."""
    ray_workers: int | None = None
    """Pieces of work at a time; if left out one for each GPU, or for each core where there is none."""

    @contextmanager
    def opened(self) -> Iterator[RayEngine | None]:
        """The engine of Ray; None for this process.

        Raises:
            AmbisegError: options of Ray without it, or a cluster that does not answer.
        """
        at_least_one(ray_workers=self.ray_workers)
        if self.engine == "local":
            for name in ("ray_address", "ray_workers"):
                if getattr(self, name) is not None:
                    raise AmbisegError(f"--{name.replace('_', '-')} is of use with --engine ray only")
            yield None
            return
        from ambiseg.engine.parallel.over_ray import RayEngine

        with RayEngine(self.ray_address, self.ray_workers) as found:
            yield found
