"""Parts add up, are equal but the last, keep groups together and stay within the budget where they can."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ambiseg import memory_budget
from ambiseg.memory_budget import network_parts, part_sizes, prediction_bytes


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


@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 2**30))
def test_parts_of_a_network(count, images, values):
    parts = network_parts(count, images, values)
    assert sum(parts) == count and all(part == parts[0] for part in parts[:-1])
    if parts[0] > 1:
        assert parts[0] * images <= memory_budget.MASKS
        assert parts[0] * values <= memory_budget.NETWORK_ELEMENTS


def test_up_to_256x256_pixels_the_number_of_masks_decides():
    for images in (1, 4, 16):
        assert network_parts(100, images, images * 256**2 * 32)[0] == memory_budget.MASKS // images


def test_a_prediction_takes_more_with_more_of_anything():
    least = prediction_bytes(100, width=32, channels=16)
    assert prediction_bytes(200, width=32, channels=16) == 2 * least
    assert prediction_bytes(100, width=64, channels=16) == 2 * least
    assert prediction_bytes(100, width=32, channels=16, together=3) == 3 * least
    assert prediction_bytes(100, width=32, channels=16, bf16=True) == least // 2
    assert prediction_bytes(100, width=32, channels=160) > least
