"""Rankings do not change with the last bits of their values."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.mode_probabilities.representative_masks import represent, select_and_represent
from ambiseg.ranking import ROUNDING, descending, exceeds, first_largest, reaches

seeds = st.integers(0, 2**32 - 1)


def values_with_ties(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Multiples of a tenth, some of them equal, and the same with errors of rounding."""
    g = torch.Generator().manual_seed(seed)
    exact = torch.randint(0, 6, (4, 9), generator=g) / 10
    return exact, exact + (torch.rand(exact.shape, generator=g) - 0.5) * ROUNDING / 5


@given(seeds)
def test_rounding_changes_no_order(seed):
    exact, rounded = values_with_ties(seed)
    assert torch.equal(descending(rounded), exact.argsort(dim=1, descending=True, stable=True))
    assert torch.equal(first_largest(rounded, 1), first_largest(exact, 1))
    assert torch.equal(first_largest(exact, 1), descending(exact)[:, 0])


@given(seeds)
def test_distinct_values_are_sorted(seed):
    value = torch.rand(3, 7, generator=torch.Generator().manual_seed(seed))
    ranked = value.gather(1, descending(value))
    assert bool((ranked[:, 1:] <= ranked[:, :-1] + ROUNDING).all())


@given(seeds)
def test_thresholds_take_rounding_for_equality(seed):
    exact, rounded = values_with_ties(seed)
    for tenth in range(6):
        at = torch.tensor(tenth / 10)
        assert torch.equal(exceeds(rounded, tenth / 10), exact > at)
        assert torch.equal(reaches(rounded, tenth / 10), exact >= at)


@given(seeds)
def test_rounding_of_weights_changes_no_choice(seed):
    """Which masks are kept, merged or first follows from the weights, not from their last bits."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 2, (4, 9, 2, 3), generator=g, dtype=torch.uint8)
    exact, rounded = values_with_ties(seed)
    sets = [MaskSet(masks, value.abs() * (exact > 0), LabelSpace.binary()) for value in (exact, rounded)]
    chosen = torch.rand(exact.shape, generator=g) < 0.2
    for operation in (
        lambda s: s.duplicate_index(0.5),
        lambda s: s.sort().masks,
        lambda s: s.top(3).masks,
        lambda s: select_and_represent(s, chosen).masks,
        lambda s: represent(s, 3).masks,
        lambda s: s.drop_near_duplicates(0.5).masks,
    ):
        one, other = (operation(s) for s in sets)
        assert torch.equal(one, other)
