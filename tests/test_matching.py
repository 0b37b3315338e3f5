"""The matching is the best of all injective ones, leaves out what is absent or infinite and survives NaN."""

from __future__ import annotations

import math
from itertools import permutations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ambiseg.matching import match


def cheapest(cost):
    """Least total of ``cost (K, L)`` over all one-to-one matchings of the smaller side."""
    if len(cost) < len(cost[0]):
        cost = list(zip(*cost, strict=True))
    count = len(cost[0])
    return min(
        sum(cost[k][i] for i, k in enumerate(chosen)) for chosen in permutations(range(len(cost)), count)
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), k=st.integers(1, 5), count=st.integers(1, 5))
def test_no_matching_of_present_entries_is_cheaper(data, k, count):
    cost = data.draw(st.lists(st.lists(st.floats(-10, 10, width=32), min_size=count, max_size=count),
                              min_size=k, max_size=k))  # fmt: skip
    rows = data.draw(st.lists(st.booleans(), min_size=k, max_size=k))
    columns = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    table = torch.tensor([cost])
    found = match(table, torch.tensor([rows]), torch.tensor([columns]))
    pairs = [(i, j) for i, j in enumerate(found.columns[0].tolist()) if j >= 0]
    assert len({j for _, j in pairs}) == len(pairs) == min(sum(rows), sum(columns))
    assert all(rows[i] and columns[j] for i, j in pairs)
    assert sorted(pairs) == sorted((i, j) for j, i in enumerate(found.rows[0].tolist()) if i >= 0)
    total = found.total(table).item()
    assert math.isclose(total, sum(cost[i][j] for i, j in pairs), rel_tol=1e-5, abs_tol=1e-5)
    if pairs:
        seen = [[cost[i][j] for j in range(count) if columns[j]] for i in range(k) if rows[i]]
        assert math.isclose(total, cheapest(seen), rel_tol=1e-5, abs_tol=1e-5)


def test_all_rows_and_columns_are_there_unless_said_otherwise():
    cost = torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0))
    every = match(cost, torch.ones(2, 4, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(match(cost).columns, every.columns) and torch.equal(match(cost).rows, every.rows)


def test_images_are_matched_by_themselves():
    cost = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(0))
    there = torch.tensor([[True, True, True], [True, False, True], [False, False, True], [False] * 3])
    together = match(cost, columns=there)
    for b in range(4):
        alone = match(cost[b : b + 1], columns=there[b : b + 1])
        assert torch.equal(alone.rows[0], together.rows[b])
        assert torch.equal(alone.columns[0], together.columns[b])
    assert together.rows[3].tolist() == [-1, -1, -1] and bool((together.columns[3] == -1).all())


def test_pairs_of_infinite_cost_are_not_matched():
    cost = torch.tensor([[[0.5, 0.1], [torch.inf, torch.inf], [torch.inf, 0.2]]])
    assert match(cost).rows.tolist() == [[0, 2]]
    assert match(cost[:, :2]).rows.tolist() == [[-1, 0]] and match(cost[:, :2]).columns.tolist() == [[1, -1]]


def test_costs_that_are_not_numbers_are_avoided():
    bad = float("nan")
    cost = torch.tensor([[[bad, 1.0], [5.0, bad], [float("inf"), 2.0]]])
    assert match(cost).rows.tolist() == [[1, 0]]
    assert min(match(torch.full((1, 3, 2), bad)).rows[0].tolist()) >= 0


def test_no_gradient_and_the_device_of_the_costs():
    cost = torch.rand(1, 3, 2, requires_grad=True)
    found = match(cost)
    for chosen in (found.rows, found.columns):
        assert not chosen.requires_grad and chosen.dtype == torch.int64 and chosen.device == cost.device
