"""Reading and writing in threads: order, bounds, and what is left when work ends early."""

from __future__ import annotations

import threading

import pytest

from ambiseg.engine.parallel.pieces import HERE
from ambiseg.engine.parallel.threads import AHEAD, Threads


class Work:
    """Piece n gives the items (n, 0), (n, 1), (n, 2); it notes what happened, and one stage fails at piece 3."""

    def __init__(self, fails="", error=None):
        self.done = {"read": [], "compute": [], "write": []}
        self.fails, self.error, self.lock = fails, error, threading.Lock()

    def __call__(self, piece):
        for item in self.compute(self.read(piece)):
            yield self.write(item)

    def _note(self, stage, what):
        if stage == self.fails and what in (3, (3, 1)):
            raise self.error
        with self.lock:
            self.done[stage].append(what)
        return what

    def read(self, piece):
        return self._note("read", piece)

    def compute(self, piece):
        assert threading.current_thread() is threading.main_thread()
        assert len(self.done["read"]) <= piece + 1 + AHEAD, "read too far ahead"
        assert sum(n < piece - 1 for n, _ in self.done["write"]) == 3 * max(0, piece - 1), "too much waits"
        self._note("compute", piece)
        yield from ((piece, i) for i in range(3))

    def write(self, item):
        return self._note("write", item)


def none_works():
    return not any(thread.name.startswith("ambiseg-") for thread in threading.enumerate())


@pytest.mark.parametrize("writers", [1, 5])
def test_the_results_are_those_of_one_thread(writers):
    assert list(Threads(writers).map(Work(), range(20))) == list(HERE.map(Work(), range(20)))
    assert list(Threads(writers).map(Work(), [])) == [] and none_works()


def test_pieces_are_taken_when_they_are_read():
    taken = []

    def pieces():
        for n in range(100):
            taken.append(n)
            yield n

    results = Threads(2).map(Work(), pieces())
    assert next(results) == (0, 0) and len(taken) <= 2 * AHEAD + 1
    results.close()
    assert len(taken) <= 2 * AHEAD + 1 and none_works()


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_an_error_loses_no_result(stage, error):
    work, found, left = Work(stage, error), [], []
    with pytest.raises(type(error)):
        for result in Threads(2).map(work, range(50), left.append):
            found.append(result)
    assert none_works() and sorted(found + left) == sorted(work.done["write"])
    assert found == sorted(found) and set(found) >= {(0, 0), (0, 1), (0, 2)}
    assert max(work.done["compute"]) <= 5, "it ends soon"


def test_a_caller_that_stops_loses_no_result():
    work, left = Work(), []
    results = Threads(3).map(work, range(50), left.append)
    found = [next(results) for _ in range(4)]
    results.close()
    assert (
        none_works() and sorted(found + left) == sorted(work.done["write"]) and max(work.done["compute"]) <= 3
    )
