"""Batches are a pure function of seed and step, label draws follow the probabilities, and padding is void."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader

from ambiseg.data.augmentation import Augmentation
from ambiseg.data.augmentation_kinds import TESTED, Crop, Elastic, QuarterTurns, Rotate, Scale
from ambiseg.data.batches import Batch, BatchOrder, LabelView, Normalization, collate, halved, prepare
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet

PLAIN = Normalization((0.0,), (1.0,))


class InMemory(Split):
    """A split made of samples."""

    def __init__(self, samples, labels=None):
        self.samples, self.info = samples, DatasetInfo("memory", labels or LabelSpace.binary())
        self.ids = tuple(s.id for s in samples)

    def __getitem__(self, index):
        return self.samples[index]


def sample(name="a", weights=(0.5, 0.5), size=(4, 6), channels=1, seed=0):
    """An image whose n-th mask is n + 1 ones, then zeros; so masks tell who drew them."""
    rng = np.random.default_rng(seed)
    count = np.arange(1, len(weights) + 1)[:, None]
    masks = (np.arange(size[0] * size[1])[None] < count).astype(np.uint8).reshape(-1, *size)
    image = rng.integers(0, 256, (channels, *size)).astype(np.uint8)
    return Sample(name, image, masks, np.asarray(weights, float), tuple(f"r{i}" for i in range(len(weights))))


def take(order, count):
    return list(islice(order, count))


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 30), size=st.integers(1, 12), seed=st.integers(0, 9), start=st.integers(0, 40))
def test_every_epoch_is_a_permutation_and_any_start_goes_on(count, size, seed, start):
    batches = take(BatchOrder(count, size, seed), start + 40)
    assert all(len(batch) == size for batch in batches)
    samples = [sample for batch in batches for sample in batch]
    assert [epoch for epoch, _ in samples] == [i // count for i in range(len(samples))]
    for epoch in range(len(samples) // count):
        assert sorted(i for _, i in samples[epoch * count : (epoch + 1) * count]) == list(range(count))
    assert take(BatchOrder(count, size, seed, start), 40) == batches[start:]


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 30), size=st.integers(1, 6), shards=st.integers(1, 4), start=st.integers(0, 9))
def test_shards_together_see_what_one_process_sees(count, size, shards, start):
    whole = take(BatchOrder(count, size * shards, 3, start), 12)
    parts = [take(BatchOrder(count, size, 3, start, r, shards), 12) for r in range(shards)]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == whole


def test_epochs_and_seeds_differ():
    one, other = (take(BatchOrder(20, 20, seed), 2) for seed in (0, 1))
    assert len({tuple(i for _, i in batch) for batch in one + other}) == 4


def test_single_labels_are_drawn_by_probability():
    """Eight annotators of unequal weight, one of weight 0: chi-square over many epochs of two images."""
    weights = np.array([0.3, 0.02, 0.2, 0.1, 0.05, 0.25, 0.08, 0.0])
    view = LabelView(
        InMemory([sample("a", weights), sample("b", weights[::-1].copy())]), PLAIN, "single", seed=4
    )
    epochs = 3000
    for index, expected in enumerate([weights, weights[::-1]]):
        drawn = Counter(int(view[epoch, index].annotations.masks.sum()) - 1 for epoch in range(epochs))
        counts = np.array([drawn[i] for i in range(8)])
        assert counts[expected == 0].sum() == 0
        there = expected > 0
        assert stats.chisquare(counts[there], epochs * expected[there]).pvalue > 1e-3


def test_draws_of_successive_epochs_are_independent():
    view = LabelView(InMemory([sample(weights=[0.25] * 4)]), PLAIN, "single")
    drawn = [int(view[epoch, 0].annotations.masks.sum()) - 1 for epoch in range(2000)]
    table = np.zeros((4, 4))
    np.add.at(table, (drawn[:-1], drawn[1:]), 1)
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_visit_is_a_function_of_seed_epoch_and_index():
    split = InMemory([sample(f"i{i}", [0.25] * 4, seed=i) for i in range(3)])
    everything = Augmentation((*TESTED, Rotate(10), Elastic(), Crop(9, 7)))

    def samples(seed, order):
        view = LabelView(split, PLAIN, "single", everything, seed)
        return {key: view[key] for key in order}

    keys = [(epoch, index) for epoch in range(6) for index in range(3)]
    one, again = samples(5, keys), samples(5, keys[::-1])
    for key in keys:
        assert torch.equal(one[key].image, again[key].image)
        assert torch.equal(one[key].annotations.masks, again[key].annotations.masks)
    other = samples(6, keys)
    assert any(not torch.equal(one[key].image, other[key].image) for key in keys)
    assert any(not torch.equal(one[0, i].image, one[1, i].image) for i in range(3))


def test_worker_processes_change_nothing():
    split = InMemory([sample(f"i{i}", [0.25] * 4, seed=i) for i in range(5)])

    def batches(workers):
        view = LabelView(split, PLAIN, "single", Augmentation((QuarterTurns(), Scale())), seed=2)
        return take(
            DataLoader(view, batch_sampler=BatchOrder(5, 2, 2), collate_fn=collate, num_workers=workers), 6
        )

    for one, other in zip(batches(0), batches(2), strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.annotations.masks, other.annotations.masks)


def test_full_labels_merge_duplicates():
    given_sample = sample(weights=[0.1, 0.2, 0.3, 0.4])
    given_sample.masks[2] = given_sample.masks[0]
    annotations = LabelView(InMemory([given_sample]), PLAIN)[0].annotations
    assert annotations.masks[0].sum((1, 2)).tolist() == [1, 2, 4]
    assert annotations.weights[0].tolist() == pytest.approx([0.4, 0.2, 0.4])
    kept = prepare(given_sample, PLAIN, LabelSpace.binary()).annotations
    assert kept.masks.shape[1] == 4


def test_single_labels_have_one_mask_of_weight_one():
    item = LabelView(InMemory([sample()]), PLAIN, "single")[7, 0]
    assert item.annotations.masks.shape == (1, 1, 4, 6) and item.annotations.weights.tolist() == [[1.0]]


def test_images_of_other_channels_are_refused():
    with pytest.raises(AmbisegError, match=r"image 'b': .*3 channel"):
        LabelView(InMemory([sample("b", channels=3)]), PLAIN)[0]


@pytest.mark.parametrize("void", [None, 7])
def test_collate_extends_images_and_sets(void):
    labels = LabelSpace.binary(ignore_value=void)
    split = InMemory([sample("a", [0.2, 0.8], (4, 6)), sample("b", [1 / 3] * 3, (5, 2), seed=1)], labels)
    items = [LabelView(split, PLAIN)[i] for i in range(2)]
    batch = collate(items)
    assert batch.images.shape == (2, 1, 5, 6) and batch.ids == ("a", "b")
    assert batch.annotations.masks.shape == (2, 3, 5, 6)
    assert batch.annotations.count.tolist() == [2, 3]
    for b, item in enumerate(items):
        height, width = item.image.shape[1:]
        image, masks = (
            batch.images[b].clone(),
            batch.annotations.masks[b, : len(item.annotations.masks[0])].clone(),
        )
        assert torch.equal(image[:, :height, :width], item.image)
        assert torch.equal(masks[:, :height, :width], item.annotations.masks[0])
        image[:, :height, :width], masks[:, :height, :width] = 0, labels.void
        assert (image == 0).all() and (masks == labels.void).all()


# -- half the size -------------------------------------------------------------------------------------------


def test_a_halved_batch_keeps_means_and_each_of_four_pixels_counts():
    torch.manual_seed(0)
    images = torch.randn(2, 3, 6, 8)
    masks = torch.arange(2 * 2 * 48).view(2, 2, 6, 8) % 251  # no two pixels of a block are the same
    labels = LabelSpace.of_classes(251)
    batch = Batch(images, MaskSet(masks.to(torch.uint8), torch.tensor([[0.7, 0.3]] * 2), labels), ("a", "b"))
    seen = set()
    for _ in range(40):
        small = halved(batch)
        torch.testing.assert_close(small.images.mean(), images.mean())
        found = small.annotations
        assert small.images.shape == (2, 3, 3, 4) and small.ids == batch.ids
        torch.testing.assert_close(found.weights.sum(1), torch.ones(2))
        first = {int(mask[0, 0]) for mask in found.masks[0]}
        assert first <= {int(v) for v in masks[0, :, :2, :2].flatten()}
        seen |= first
    assert seen == {int(v) for v in masks[0, :, :2, :2].flatten()}


def test_masks_that_half_the_size_makes_equal_become_one():
    masks = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    masks[0, 1, 0, 0] = 1  # seen from one of the four pixels only
    batch = Batch(
        torch.zeros(1, 1, 4, 4), MaskSet(masks, torch.tensor([[0.7, 0.3]]), LabelSpace.binary()), ("a",)
    )
    weights = [halved(batch).annotations.weights[0] for _ in range(40)]
    found = {tuple(round(w, 3) for w in sorted(one.tolist()) if w > 0) for one in weights}
    assert found == {(1.0,), (0.3, 0.7)}


@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (1, 1)])
def test_a_row_has_no_half(shape):
    masks = MaskSet.uniform(torch.zeros(1, 1, *shape, dtype=torch.uint8), LabelSpace.binary())
    batch = Batch(torch.zeros(1, 1, *shape), masks, ("a",))
    assert halved(batch) is batch
