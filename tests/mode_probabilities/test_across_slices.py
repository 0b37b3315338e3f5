"""Hypotheses keep their mode through a volume, whatever the order of the masks; their probabilities explain the slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.mode_probabilities.across_slices import join_slices, joined_weights
from tube_helpers import discs, slices_of

ENOUGH = 0.95


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("nested", {"rough": 2.0}),
        ("nested", {"shares": (0.5, 0.5), "gap": 8}),
        ("nested", {"shares": (0.4, 0.35, 0.25)}),
        ("nested", {"dropped": 0.3}),
        ("close", {}),
        ("close", {"gap": 8, "dropped": 0.3}),
        ("cross", {}),
        ("cross", {"gap": 8}),
        ("cross", {"shares": (0.5, 0.5)}),
        ("radius", {}),
        ("radius", {"gap": 8}),
    ],
)
def test_hypotheses_keep_their_mode(kind, more, seed):
    tube = slices_of(kind, seed, **more)
    found = join_slices(tube.sets)
    assert tube.kept(found.masks) >= ENOUGH
    shares = np.array(more.get("shares", (0.6, 0.4)))
    assert np.sort(found.weights)[::-1] == pytest.approx(shares, abs=0.08)


def test_the_order_of_masks_changes_nothing():
    tube, rng = slices_of("cross", 0), np.random.default_rng(0)
    joined = join_slices(tube.sets)
    orders = [rng.permutation(int(one.count[0])) for one in tube.sets]
    shuffled = [
        one.gather(torch.from_numpy(order)[None]) for one, order in zip(tube.sets, orders, strict=True)
    ]
    other = join_slices(shuffled)
    back = np.stack([order[taken] for order, taken in zip(orders, other.masks, strict=True)])
    told = tube.told
    match = (joined.masks[told, :, None] == back[told, None, :]).all(0)
    assert match.sum() == 2 and match.any(0).all()
    assert sorted(other.weights) == pytest.approx(sorted(joined.weights))


def test_every_mask_of_every_slice_belongs_to_a_hypothesis():
    tube = slices_of("nested", 3, shares=(0.4, 0.35, 0.25), dropped=0.4, gap=5)
    found = join_slices(tube.sets)
    assert found.masks.shape == (len(tube.sets), 3) and found.weights.sum() == pytest.approx(1)
    for one, taken in zip(tube.sets, found.masks, strict=True):
        if (one.areas() > 0).any():
            assert set(taken) == set(range(int(one.count[0])))


def test_a_mode_that_ends_first_stays_itself():
    """The thin mode is empty in the last slices, the thick one is not; then nothing, then both again."""
    both, one, none = discs([5, 3], [0.7, 0.3]), discs([0, 5], [0.3, 0.7]), discs([0, 0], [0.5, 0.5])
    found = join_slices([both, both, one, one, none, none, discs([3, 5], [0.3, 0.7]), both])
    thick = found.masks[0].tolist().index(0)
    assert found.masks[[1, 2, 3, 6, 7], thick].tolist() == [0, 1, 1, 1, 0]
    assert found.weights[thick] == pytest.approx(0.7)


def test_linked_masks_stay_in_their_places():
    """Where overlap says little, the same sample is the same hypothesis; where it says much, overlap decides."""
    near = [discs([5, 5.2], [0.5, 0.5]), discs([5.2, 5], [0.5, 0.5])] * 2
    assert (join_slices(near, linked=0.5).masks == [0, 1]).all()
    far = [discs([5, 2], [0.5, 0.5]), discs([2, 5], [0.5, 0.5])] * 2
    assert join_slices(far, linked=0.2).masks.tolist() == [[0, 1], [1, 0]] * 2


def test_probabilities_are_the_weighted_mean_where_no_mask_is_shared():
    """By pixels on which the masks differ; slices in which none do tell nothing."""
    sets = [
        discs([2, 4], [0.2, 0.8]),
        discs([3, 5], [0.6, 0.4]),
        discs([3, 3], [1.0, 0.0]),
        discs([0, 0], [0.9, 0.1]),
    ]
    taken = np.array([[0, 1]] * 4)
    c = [float((one.masks[0, 0] != one.masks[0, 1]).sum()) for one in sets[:2]]
    expected = (c[0] * 0.2 + c[1] * 0.6) / sum(c)
    assert joined_weights(sets, taken).tolist() == pytest.approx([expected, 1 - expected])


def test_probabilities_minimise_the_divergence():
    """Three hypotheses, of which two share a mask in some slices: no other probabilities explain the slices better."""
    rng = np.random.default_rng(0)
    sets = [discs([2, 4, 5], rng.dirichlet([2, 2, 2]).tolist()) for _ in range(3)]
    sets += [discs([2, 4], rng.dirichlet([2, 2]).tolist()) for _ in range(4)]
    taken = np.array([[0, 1, 2]] * 3 + [[0, 1, 1]] * 2 + [[0, 0, 1]] * 2)
    c = np.array([float((one.masks[0] != one.masks[0, :1]).any(0).sum()) for one in sets])

    def divergence(p):
        total = 0.0
        for one, own, size in zip(sets, taken, c, strict=True):
            w = one.weights[0].double().numpy()
            q = np.bincount(own, p, len(w))
            total += size * float(w @ np.log(w / q))
        return total

    found = joined_weights(sets, taken)
    least = divergence(found)
    for other in rng.dirichlet([5, 5, 5], 500):
        assert least <= divergence(0.98 * found + 0.02 * other) + 1e-9
        assert least <= divergence(other) + 1e-9


def test_masks_without_information_are_equally_probable():
    found = join_slices([discs([0, 0], [0.9, 0.1])] * 3)
    assert found.weights.tolist() == [0.5, 0.5]


def test_classes_are_told_apart():
    """Two hypotheses of one shape but of other classes."""
    labels = LabelSpace.of_classes(3)
    shape = discs([4], [1.0]).masks[0, 0]
    one = MaskSet(torch.stack([shape, 2 * shape])[None], torch.tensor([[0.5, 0.5]]), labels)
    other = replace(one, masks=one.masks.flip(1))
    assert join_slices([one, other, one]).masks.tolist() == [[0, 1], [1, 0], [0, 1]]


def test_slices_that_do_not_belong_together_are_refused():
    with pytest.raises(AmbisegError, match="at least one slice"):
        join_slices([])
    with pytest.raises(AmbisegError, match="slice 1 has masks of shape"):
        join_slices([discs([3], [1.0]), discs([3], [1.0], size=9)])
    with pytest.raises(AmbisegError, match="one set per slice"):
        join_slices([MaskSet.stack([discs([3], [1.0])] * 2)])
