"""Parts add up, are equal but the last, keep groups together and stay within the budget where they can."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ambiseg import memory_budget
from ambiseg.memory_budget import part_sizes


@given(st.integers(0, 300), st.integers(0, 200), st.integers(1, 500), st.integers(1, 3))
def test_parts(count, size, most, multiple):
    parts = part_sizes(count, size, most, multiple)
    assert sum(parts) == count and all(part > 0 for part in parts)
    assert len(set(parts[:-1])) <= 1 and all(part % multiple == 0 for part in parts[:-1])
    assert all(part <= parts[0] for part in parts)
    if parts and parts[0] > multiple:
        assert parts[0] * size <= most
    if len(parts) > 1:  # no larger part would fit
        assert (parts[0] + multiple) * max(1, size) > most


def test_the_budget_holds_unless_another_is_given(monkeypatch):
    assert part_sizes(3, memory_budget.ELEMENTS) == [1, 1, 1]
    monkeypatch.setattr(memory_budget, "ELEMENTS", 10)
    assert part_sizes(5, 4) == [2, 2, 1]
