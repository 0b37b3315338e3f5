"""The matching is the best of all injective ones, skips absent modes and survives NaN costs."""

from __future__ import annotations

import math
from itertools import permutations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ambiseg.losses.hungarian import match


def cheapest(cost):
    """Least total of ``cost (M, N)`` over all one-to-one matchings of the smaller side."""
    if len(cost) < len(cost[0]):
        cost = list(zip(*cost, strict=True))
    count = len(cost[0])
    return min(
        sum(cost[k][i] for i, k in enumerate(chosen)) for chosen in permutations(range(len(cost)), count)
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data(), m=st.integers(1, 5), n=st.integers(1, 5))
def test_no_matching_is_cheaper(data, m, n):
    value = st.floats(0, 10, width=32)
    cost = data.draw(st.lists(st.lists(value, min_size=n, max_size=n), min_size=m, max_size=m))
    there = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    chosen = match(torch.tensor([cost]), torch.tensor([there]))[0].tolist()
    found = [(k, i) for i, k in enumerate(chosen) if k >= 0]
    assert len({k for k, _ in found}) == len(found) == min(m, sum(there))
    assert all(there[i] for _, i in found)
    if found:
        seen = [[row[i] for i in range(n) if there[i]] for row in cost]
        assert math.isclose(sum(cost[k][i] for k, i in found), cheapest(seen), rel_tol=1e-5, abs_tol=1e-5)


def test_images_are_matched_by_themselves():
    cost = torch.rand(4, 6, 3, generator=torch.Generator().manual_seed(0))
    there = torch.tensor([[True, True, True], [True, False, True], [False, False, True], [False] * 3])
    together = match(cost, there)
    for b in range(4):
        assert torch.equal(match(cost[b : b + 1], there[b : b + 1])[0], together[b])
    assert together[3].tolist() == [-1, -1, -1]


def test_pairs_of_infinite_cost_are_not_matched():
    cost = torch.tensor([[[0.5, 0.1], [torch.inf, torch.inf], [torch.inf, 0.2]]])
    assert match(cost, torch.tensor([[True, True]])).tolist() == [[0, 2]]
    assert match(cost[:, :2], torch.tensor([[True, True]])).tolist() == [[-1, 0]]


def test_costs_that_are_not_numbers_are_avoided():
    bad = float("nan")
    cost = torch.tensor([[[bad, 1.0], [5.0, bad], [float("inf"), 2.0]]])
    assert match(cost, torch.ones(1, 2, dtype=torch.bool)).tolist() == [[1, 0]]
    assert sorted(match(torch.full((1, 3, 2), bad), torch.ones(1, 2, dtype=torch.bool))[0].tolist())[0] >= 0


def test_no_gradient_and_the_device_of_the_costs():
    cost = torch.rand(1, 3, 2, requires_grad=True)
    chosen = match(cost, torch.ones(1, 2, dtype=torch.bool))
    assert not chosen.requires_grad and chosen.dtype == torch.int64 and chosen.device == cost.device
