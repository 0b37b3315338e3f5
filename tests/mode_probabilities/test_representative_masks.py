"""A subset with weights of its own is the nearest one to the whole; brute force and the definition of GED agree."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ambiseg.engine.postprocess import drop_low_scores
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import ged
from ambiseg.mode_probabilities.representative_masks import represent, select_and_represent
from ambiseg.overlap import pairwise_overlap
from mask_set_helpers import assert_same_distribution, mask_sets

BINARY = LabelSpace.binary()


def random_set(seed, images=3, masks=7, pixels=12, equal=False):
    """Blobs that overlap, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, pixels - 2, (images, masks, 1), generator=generator)
    length = torch.randint(1, pixels // 2, (images, masks, 1), generator=generator)
    place = torch.arange(pixels)
    layers = ((place >= start) & (place < start + length)).to(torch.uint8)[:, :, None]
    weights = torch.ones(images, masks) if equal else torch.rand(images, masks, generator=generator) + 0.01
    return MaskSet(layers, weights / weights.sum(1, keepdim=True), BINARY)


def distance(subset, whole):
    """Squared energy distance of each image, in float64 by its definition."""
    return ged(subset, whole).double()


@given(st.integers(0, 10_000), st.booleans())
def test_more_masks_are_never_farther_from_the_whole(seed, equal):
    whole = random_set(seed, equal=equal).merge_identical()
    before = torch.full((len(whole),), torch.inf, dtype=torch.float64)
    for count in range(1, whole.masks.shape[1] + 1):
        found = represent(whole, count)
        assert int(found.count.max()) <= count and (found.weights >= 0).all()
        torch.testing.assert_close(found.weights.sum(1), torch.ones(len(whole)))
        now = distance(found, whole)
        assert (now <= before + 1e-6).all()
        before = now
    torch.testing.assert_close(before, torch.zeros_like(before), atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_against_all_subsets(count):
    """One mask is the best one; of more, greedy choice loses little of what can be won over one mask."""
    lost = []
    for seed in range(12):
        whole = random_set(seed, images=1).merge_identical()
        best = min(
            least_distance(whole, subset) for subset in combinations(range(whole.masks.shape[1]), count)
        )
        one, found = (float(distance(represent(whole, n), whole)) for n in (1, count))
        assert found >= best - 1e-6
        lost.append((found - best) / max(one - best, 1e-9) if count > 1 else found - best)
    assert max(lost) < (1e-6 if count == 1 else 0.2) and sum(lost) / len(lost) < 0.05


def least_distance(whole, subset):
    """Distance of a subset with the best weights, by a general solver."""
    iou = pairwise_overlap(whole.masks, whole.masks, BINARY).iou()[0].double().numpy()
    own, kept = whole.weights[0].double().numpy(), list(subset)
    inner, cross = iou[np.ix_(kept, kept)], iou[kept] @ own

    def energy(u):
        return u @ inner @ u - 2 * u @ cross + own @ iou @ own

    found = minimize(
        energy,
        np.full(len(kept), 1 / len(kept)),
        jac=lambda u: 2 * (inner @ u - cross),
        bounds=[(0, 1)] * len(kept),
        constraints={"type": "eq", "fun": lambda u: u.sum() - 1, "jac": lambda u: np.ones(len(kept))},
        options={"ftol": 1e-14},
    )
    return float(found.fun)


def test_distinct_masks_keep_their_weights_and_copies_become_one():
    layers = torch.eye(5, dtype=torch.uint8).repeat_interleave(2, 0)[None, :, None]
    weights = torch.arange(1.0, 11)[None] / 55
    found = represent(MaskSet(layers, weights, BINARY), 5)
    assert found.masks.flatten(2).argmax(2).tolist() == [[4, 3, 2, 1, 0]]
    torch.testing.assert_close(found.weights, torch.tensor([[19, 15, 11, 7, 3]]) / 55)


def test_the_order_of_masks_changes_nothing():
    whole = random_set(3)
    order = torch.tensor([4, 2, 6, 0, 1, 5, 3]).expand(3, -1)
    for count in (2, 4):
        one, other = represent(whole, count), represent(whole.gather(order), count)
        torch.testing.assert_close(distance(one, whole), distance(other, whole))


def test_sets_of_different_size_share_a_batch():
    many, one = random_set(5, images=1), random_set(6, images=1, masks=1)
    both = represent(MaskSet.stack([many, one]), 3)
    assert both.count.tolist() == [int(represent(many, 3).count), 1]
    torch.testing.assert_close(both[0].compact().weights, represent(many, 3).weights)
    with pytest.raises(AmbisegError, match="by 1 mask or more"):
        represent(many, 0)
    assert int(represent(many, 99).count) == int(many.merge_identical().count)


@given(st.integers(0, 10_000))
def test_what_is_dropped_goes_where_it_is_like(seed):
    whole = random_set(seed)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(whole.weights.shape, generator=generator) > 0.4
    found = select_and_represent(whole, chosen)
    kept = whole.with_best_of(chosen)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(3))
    assert found.count.tolist() == kept.sum(1).tolist()
    own = MaskSet(whole.masks, whole.weights * kept, BINARY).compact()
    assert (found.weights >= own.weights - 1e-6).all()
    spread = (1 - own.weights.sum(1, keepdim=True)) * own.present / own.present.sum(1, keepdim=True)
    evenly = MaskSet(own.masks, own.weights + spread, BINARY)
    assert (distance(found, whole) <= distance(evenly, whole) + 1e-6).all()


def test_nothing_dropped_changes_nothing():
    whole = random_set(1)
    found = select_and_represent(whole, torch.ones(3, 7, dtype=torch.bool))
    torch.testing.assert_close(found.weights, whole.weights)


@settings(max_examples=60, deadline=None)
@given(mask_sets(), st.sampled_from([0.0, 0.5, 0.75, 1.0]))
def test_filtering_never_empties_a_set(given_set: MaskSet, threshold: float) -> None:
    left = drop_low_scores(given_set, threshold).validate()
    if given_set.scores is None or left.scores is None:
        assert left is given_set
        return
    for b in range(len(left)):
        wanted = given_set.present[b] & (given_set.scores[b] > threshold)
        assert int(left.count[b]) == max(1, int(wanted.sum()))
        kept = left.scores[b][left.present[b]]
        assert (
            bool((kept > threshold).all()) or float(kept) == given_set.scores[b][given_set.present[b]].max()
        )
        if not wanted.any():
            torch.testing.assert_close(left.weights[b][left.present[b]], torch.ones(1))
            continue
        kept_before = given_set.weights[b][wanted]
        gained = left.weights[b][left.present[b]] - kept_before
        assert bool((gained >= -1e-6).all()), "what is dropped adds to what is kept"


@settings(max_examples=60, deadline=None)
@given(mask_sets(), st.integers(0, 2**31))
def test_dropping_copies_keeps_the_distribution(given_set: MaskSet, seed: int) -> None:
    """Copies of every mask with any share of its weight, all rejected: the distribution is what it was."""
    share = torch.rand(given_set.weights.shape, generator=torch.Generator().manual_seed(seed)) * 0.9
    scores = torch.full_like(given_set.weights, 0.9)
    doubled = MaskSet(
        torch.cat([given_set.masks] * 2, 1),
        torch.cat([given_set.weights * (1 - share), given_set.weights * share], 1),
        given_set.labels,
        torch.cat([scores, torch.zeros_like(scores)], 1),
    )
    assert_same_distribution(drop_low_scores(doubled, 0.5), given_set)
