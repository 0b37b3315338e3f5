"""Requests that arrive together are computed together: a bounded queue and one thread that works on it.

Nothing here knows of HTTP or of models. A job has a key; jobs of equal keys share a batch. Without a key it is computed
alone.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ambiseg.errors import AmbisegError

Item = TypeVar("Item")
Result = TypeVar("Result")

WAIT = 0.005
"""Seconds that a batch waits at most for requests that are being read."""


BATCH_BYTES = 4 << 20
"""Bytes of items at which a batch is complete: more of them at a time gains nothing, and others wait longer."""
SMALLER = 16
"""How many times smaller an item must be to be taken before one that came earlier."""
PASSES = 8
"""How often at most smaller items are taken before the first one."""


class QueueFullError(AmbisegError):
    """More jobs wait than the queue holds."""


@dataclass(eq=False)
class _Job(Generic[Item, Result]):
    key: Hashable | None
    item: Item
    size: int
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """A thread that computes jobs in the order in which they came, those of equal keys together.

    A job that holds `SMALLER` times less than the first one goes before it, `PASSES` times in a row at most.

    Args:
        compute: results of several items, in their order. It runs in the thread only.
        batch_size: most items in one call.
        batch_bytes: most bytes of the items in one call; a single one may be larger.
        queue_size: most jobs that wait.
        queue_bytes: most bytes that waiting jobs hold together; a single job may be larger.
        on_batch: called with the number of items of each batch.

    Example:
        >>> batcher = Batcher(lambda numbers: [2 * n for n in numbers], batch_size=4, queue_size=8)
        >>> batcher.submit("same", 21).result()
        42
        >>> batcher.close()
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        batch_size: int,
        batch_bytes: int = BATCH_BYTES,
        queue_size: int,
        queue_bytes: int = 1 << 29,
        on_batch: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._compute, self._on_batch = compute, on_batch
        self._batch_size, self._batch_bytes = batch_size, batch_bytes
        self._queue_size, self._queue_bytes = queue_size, queue_bytes
        self._passes = 0
        self._jobs: list[_Job[Item, Result]] = []
        self._changed = threading.Condition()
        self._arriving, self._closing = 0, False
        self._thread = threading.Thread(target=self._work, name="ambiseg-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether jobs are still computed."""
        return self._thread.is_alive()

    @contextmanager
    def arrival(self) -> Iterator[None]:
        """Inside, a job is on its way: a batch waits for it, for `WAIT` seconds at most."""
        with self._changed:
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify()

    def submit(self, key: Hashable | None, item: Item, size: int = 0) -> Future[Result]:
        """Queue a job. Cancelling its future takes it out of the queue.

        Args:
            key: jobs of the same key may share a batch; None for a job that is computed alone.
            item: what is computed.
            size: bytes that it holds while it waits.

        Raises:
            QueueFullError: the queue is full, or closed.
        """
        job: _Job[Item, Result] = _Job(key, item, size)
        with self._changed:
            self._jobs = [job for job in self._jobs if not job.future.cancelled()]
            held = sum(job.size for job in self._jobs)
            full = len(self._jobs) >= self._queue_size or (self._jobs and held + size > self._queue_bytes)
            if full or self._closing:
                why = "the service is stopping" if self._closing else f"{len(self._jobs)} images are waiting"
                raise QueueFullError(f"{why}: send this one again later")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Compute what waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if batch:
                self._on_batch(len(batch))
                self._answer(batch)

    def _next(self) -> list[_Job[Item, Result]] | None:
        """The first job and those that share its batch; None at the end."""
        with self._changed:
            while not self._jobs:
                if self._closing:
                    return None
                self._changed.wait()
            end = time.monotonic() + WAIT
            while self._arriving > 0 and not self._closing and self._incomplete():
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if not self._jobs:
                return []
            batch = self._alike()
            self._passes = 0 if self._jobs[0] in batch else self._passes + 1
            self._jobs = [job for job in self._jobs if job not in batch]
            return batch

    def _alike(self) -> list[_Job[Item, Result]]:
        """The job whose turn it is, and those that share its batch."""
        first = self._jobs[0]
        smallest = min(self._jobs, key=lambda job: job.size)
        if smallest.size * SMALLER <= first.size and self._passes < PASSES:
            first = smallest
        if first.key is None:
            return [first]
        alike = [job for job in self._jobs if job.key == first.key][: self._batch_size]
        totals = itertools.accumulate(job.size for job in alike)
        fitting = sum(total <= self._batch_bytes for total in totals)
        return alike[: max(1, fitting)]

    def _incomplete(self) -> bool:
        """Whether a job that is on its way could still join the batch."""
        if not self._jobs:
            return False
        batch = self._alike()
        first, total = batch[0], sum(job.size for job in batch)
        return (
            first.key is not None
            and len(batch) < self._batch_size
            and total + first.size <= self._batch_bytes
        )

    def _answer(self, batch: Sequence[_Job[Item, Result]]) -> None:
        """Compute a batch; after an error each job alone, so that one image does not fail the others."""
        try:
            results = list(self._compute([job.item for job in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results of {len(batch)} items")
        except BaseException as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for job in batch:
                self._answer([job])
        else:
            for job, result in zip(batch, results, strict=True):
                job.future.set_result(result)
