"""Jobs of one key share a batch in their order; what fails, waits too long or is too much harms no other job."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from ambiseg.serving import batching
from ambiseg.serving.batching import Batcher, QueueFullError


class Slow:
    """Computes ``-n`` of numbers once it is allowed to, and remembers the batches; strings are mistakes."""

    def __init__(self):
        self.go, self.begun, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, items):
        self.batches.append(list(items))
        self.begun.set()
        assert self.go.wait(60)
        return [-item for item in items]


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def batcher_of(slow):
    """``batcher_of(**options)``: its thread is busy with a first job, so that the next ones wait."""
    made = []

    def make(**options):
        batcher = Batcher(slow, **{"batch_size": 3, "queue_size": 20, **options})
        made.append(batcher)
        batcher.submit("first", 0)
        assert slow.begun.wait(60)
        return batcher

    yield make
    slow.go.set()
    for batcher in made:
        batcher.close()


def test_jobs_of_one_key_share_batches_in_their_order(slow, batcher_of):
    sizes = []
    batcher = batcher_of(on_batch=sizes.append)
    keys = ["a", "b", "a", "a", "b", "a", None, None]
    futures = [batcher.submit(key, number) for number, key in enumerate(keys, 1)]
    assert batcher.waiting == len(keys)
    slow.go.set()
    assert [future.result(60) for future in futures] == [-n for n in range(1, 9)]
    assert slow.batches == [[0], [1, 3, 4], [2, 5], [6], [7], [8]]
    assert sizes == [1, 3, 2, 1, 1, 1] and batcher.waiting == 0


def test_a_batch_is_bounded_by_bytes(slow, batcher_of):
    batcher = batcher_of(batch_bytes=10)
    sizes = [4, 4, 4, 11, 11]
    futures = [batcher.submit("a", number, size) for number, size in enumerate(sizes, 1)]
    slow.go.set()
    assert [future.result(60) for future in futures] == [-1, -2, -3, -4, -5]
    assert slow.batches == [[0], [1, 2], [3], [4], [5]]


def test_much_smaller_jobs_go_first_a_few_times(slow, batcher_of, monkeypatch):
    monkeypatch.setattr(batching, "PASSES", 2)
    batcher = batcher_of()
    futures = [batcher.submit("large", 1, 160)]
    futures += [batcher.submit(key, number, 10) for number, key in enumerate("abcd", 2)]
    futures += [batcher.submit("medium", 6, 11)]
    slow.go.set()
    assert [future.result(60) for future in futures] == [-n for n in range(1, 7)]
    assert slow.batches == [[0], [2], [3], [1], [4], [5], [6]]


def test_an_error_fails_its_own_job_only(slow, batcher_of):
    batcher = batcher_of()
    futures = [batcher.submit("a", item) for item in (1, "no number", 3)]
    slow.go.set()
    assert [futures[0].result(60), futures[2].result(60)] == [-1, -3]
    with pytest.raises(TypeError):
        futures[1].result(60)
    assert batcher.submit("a", 4).result(60) == -4 and batcher.alive


def test_results_that_are_missing_are_an_error():
    batcher = Batcher(lambda items: [], batch_size=2, queue_size=2)
    with pytest.raises(RuntimeError, match="0 results of 1 items"):
        batcher.submit("a", 1).result(60)
    batcher.close()


def test_cancelled_jobs_are_not_computed(slow, batcher_of):
    batcher = batcher_of(queue_size=2)
    gone, kept = (batcher.submit("a", number) for number in (1, 2))
    assert gone.cancel()
    last = batcher.submit("a", 3)  # in the place of the cancelled one
    slow.go.set()
    assert (kept.result(60), last.result(60)) == (-2, -3)
    assert slow.batches == [[0], [2, 3]]
    with pytest.raises(CancelledError):
        gone.result(0)


def test_the_queue_is_bounded_by_bytes(batcher_of):
    batcher = batcher_of(queue_bytes=10)
    batcher.submit("a", 1, size=50)  # one alone may be larger
    with pytest.raises(QueueFullError, match="1 images are waiting"):
        batcher.submit("a", 2, size=1)


def test_the_queue_is_bounded_by_jobs(batcher_of):
    batcher = batcher_of(queue_size=2)
    for number in (1, 2):
        batcher.submit("a", number)
    with pytest.raises(QueueFullError, match="2 images are waiting: send this one again later"):
        batcher.submit("a", 3)


def test_closing_answers_what_waits_and_takes_no_more(slow, batcher_of):
    batcher = batcher_of()
    future = batcher.submit("a", 1)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    slow.go.set()
    closing.join(60)
    assert future.result(0) == -1 and not batcher.alive
    with pytest.raises(QueueFullError, match="stopping"):
        batcher.submit("a", 2)


def test_a_batch_waits_for_jobs_on_their_way(slow, monkeypatch):
    monkeypatch.setattr(batching, "WAIT", 60)
    slow.go.set()
    batcher = Batcher(slow, batch_size=2, queue_size=9)
    assert batcher.submit("a", 1).result(60) == -1  # nothing is on its way: no wait
    with batcher.arrival():
        first = batcher.submit("a", 2)
        second = batcher.submit("a", 3)
        assert (first.result(60), second.result(60)) == (-2, -3)
        third = batcher.submit("a", 4)
    assert third.result(60) == -4  # the other one did not come
    assert slow.batches == [[1], [2, 3], [4]]
    batcher.close()
