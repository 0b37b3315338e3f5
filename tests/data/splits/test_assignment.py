"""Splits keep groups whole, meet their fractions, do not depend on order, and keep the proportions of
strata."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from ambiseg.data.splits.assignment import (
    FRACTIONS,
    fold_images,
    groups_by_pattern,
    split_groups,
    split_images,
    splits_of_fold,
    strata_of,
)
from ambiseg.errors import AmbisegError


def patients(seed, groups=40, most=9):
    """Images of patients of very different number."""
    rng = np.random.default_rng(seed)
    return {f"p{g}-{i}": f"p{g}" for g in range(groups) for i in range(rng.integers(1, most + 1))}


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_fractions_are_met(seed):
    groups = patients(seed)
    splits = split_images(groups, seed=seed)
    assert splits.keys() == groups.keys()
    assert len({(groups[name], split) for name, split in splits.items()}) == len(set(groups.values()))
    counts, largest = Counter(splits.values()), max(Counter(groups.values()).values())
    for name, share in FRACTIONS.items():
        assert abs(counts[name] - share * len(groups)) <= largest


def test_equal_groups_meet_fractions_exactly():
    counts = Counter(split_images({str(i): str(i) for i in range(50)}).values())
    assert counts == {"train": 30, "val": 10, "test": 10}
    names = [f"p{i}" for i in range(37)]
    assert split_groups(names, seed=4) == split_groups(names, seed=4, sizes=dict.fromkeys(names, 3))


def test_order_does_not_matter_and_the_seed_does():
    groups = patients(1)
    mixed = list(groups.items())
    random.Random(0).shuffle(mixed)
    values = {name: len(name) + hash(len(group)) for name, group in groups.items()}
    assert split_images(dict(mixed), values=values) == split_images(groups, values=values)
    assert split_images(groups, seed=1) != split_images(groups, seed=2)


def test_strata_keep_their_proportions():
    kinds = ["rare"] * 20 + ["usual"] * 80
    groups = {f"{i:03}": f"{i:03}" for i in range(100)}
    values = dict(zip(groups, kinds, strict=True))
    for seed in range(10):
        found = Counter(zip(split_images(groups, seed=seed, values=values).values(), kinds, strict=True))
        for split, share in FRACTIONS.items():
            assert abs(found[split, "rare"] - 20 * share) <= 1.5
    numbers = {name: float(i) for i, name in enumerate(groups)}
    folds = fold_images(groups, 5, values=numbers)
    means = [np.mean([numbers[n] for n in folds if folds[n] == k]) for k in range(5)]
    assert np.ptp(means) < 12  # a fold of one bin alone would be 80 off


def test_strata_of_single_groups_fall_into_every_split():
    groups = {f"{i:03}": f"{i:03}" for i in range(200)}
    found = Counter(split_images(groups, values={name: name for name in groups}).values())
    assert found == {"train": 120, "val": 40, "test": 40}


def test_strata_are_quantiles_or_most_frequent_words():
    groups = {f"{i:02}": f"{i:02}" for i in range(50)}
    assert Counter(strata_of({name: float(name) for name in groups}, groups).values()) == {
        str(k): 10 for k in range(5)
    }
    words = {"a1": "x", "a2": "y", "a3": "y", "b": "x"}
    assert strata_of(words, {"a1": "a", "a2": "a", "a3": "a", "b": "b"}) == {"a": "y", "b": "x"}
    assert len(set(strata_of(dict.fromkeys(groups, 1.0), groups).values())) == 1


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_unequal_groups_are_even_in_images_and_strata(seed):
    """No fold is more than the largest group away from its share of the images, nor of a rare stratum."""
    groups = patients(seed)
    rare = {f"p{i}" for i in range(0, len(set(groups.values())), 5)}
    values = {name: "rare" if group in rare else "usual" for name, group in groups.items()}
    largest = max(Counter(groups.values()).values())
    for found in (fold_images(groups, 5, seed), fold_images(groups, 5, seed, values)):
        counts = Counter(found.values())
        assert all(abs(counts[fold] - len(groups) / 5) <= largest / 2 for fold in range(5))
    own = Counter(fold for name, fold in found.items() if values[name] == "rare")
    assert all(abs(own[fold] - sum(own.values()) / 5) <= largest for fold in range(5))
    mixed = list(groups.items())
    random.Random(seed).shuffle(mixed)
    assert fold_images(dict(mixed), 5, seed, values) == found


def test_folds_partition():
    groups = patients(3)
    folds = fold_images(groups, 5, seed=1)
    assert set(folds.values()) == set(range(5)) and folds.keys() == groups.keys()
    tested, validated = Counter(), Counter()
    for fold in range(5):
        splits = splits_of_fold(folds, fold)
        tested.update(n for n, s in splits.items() if s == "test")
        validated.update(n for n, s in splits.items() if s == "val")
        assert set(splits.values()) == {"train", "val", "test"}
    assert tested == validated == Counter(groups.keys())
    assert set(splits_of_fold({"a": 0, "b": 1}, 0).values()) == {"train", "test"}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: split_groups("ab", {"train": 0.5}), "sum to 1"),
        (lambda: split_groups("ab", {"train": 1.5, "test": -0.5}), "0 or more"),
        (lambda: fold_images({"a": "a", "b": "a"}, 2), "2 to 1, the number of groups"),
        (lambda: splits_of_fold({"a": 0, "b": 1}, 2), "folds 0 to 1, received 2"),
        (lambda: groups_by_pattern(["p1", "x"], "p"), "does not fit 1 id \\(x\\)"),
        (lambda: groups_by_pattern(["p1"], "("), "no regular expression"),
    ],
)
def test_mistakes_are_named(call, words):
    with pytest.raises(AmbisegError, match=words):
        call()
