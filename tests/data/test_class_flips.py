"""Modes of class flips against a plain product of all states, their draws against the distribution, and the way from
file to batch."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ambiseg.data.augmentation import Augmentation
from ambiseg.data.augmentation_kinds import TESTED, Elastic, Gamma, ResizedCrop, Rotate
from ambiseg.data.batches import LabelView, Normalization
from ambiseg.data.check import check_dataset
from ambiseg.data.class_flip_view import FlippedSplit
from ambiseg.data.class_flips import ClassFlips, FlipModes
from ambiseg.data.info import DatasetInfo
from ambiseg.data.packed import pack
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split, write_dataset
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

PLAIN = Normalization((0.0,), (1.0,))
STREET = LabelSpace(("sky", "road", "car", "tree", "pole"), ignore_value=7)
CHANCES = {"tree": 0.3, "road": 0.9, "car": 0.25}


def plain_modes(label_map, flips, labels):
    """Every state's mask pixel by pixel, identical ones merged: a dictionary from the mask's bytes to its
    probability."""
    found = Counter()
    names = list(flips.probabilities)
    for state in itertools.product([0, 1], repeat=len(names)):
        mask = np.zeros_like(label_map)
        for place, value in np.ndenumerate(label_map):
            name = labels.names[value] if value < labels.classes else None
            on = name in names and state[names.index(name)]
            if name is None:
                mask[place] = 255
            elif flips.output == "binary":
                mask[place] = on
            else:
                mask[place] = labels.classes + names.index(name) if on else value
        chances = flips.probabilities.values()
        found[mask.tobytes()] += float(
            np.prod([q if b else 1 - q for q, b in zip(chances, state, strict=True)])
        )
    return {mask: weight for mask, weight in found.items() if weight > 0}


def label_maps(count=1, seed=0, size=(8, 9), values=(0, 1, 2, 3, 4, 7)):
    return np.random.default_rng(seed).choice(values, (count, *size)).astype(np.uint8)


def street(tmp_path, output="binary", suffix="", chances=CHANCES, count=3, more=0):
    samples = [
        Sample(f"s{i}", label_map[None] * np.uint8(9), np.stack([label_map] * (1 + more)),
               np.full(1 + more, 1 / (1 + more)), tuple(f"r{j}" for j in range(1 + more)))
        for i, label_map in enumerate(label_maps(count))
    ]  # fmt: skip
    info = DatasetInfo("street", STREET, flips=ClassFlips(chances, output))
    return write_dataset(tmp_path / f"street-{output}{suffix}", {"train": samples}, info)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_modes_are_those_of_the_plain_product(data):
    names = data.draw(st.lists(st.sampled_from(STREET.names), min_size=1, unique=True))
    chances = [data.draw(st.sampled_from([0.0, 0.05, 0.5, 0.75, 1.0])) for _ in names]
    flips = ClassFlips(
        dict(zip(names, chances, strict=True)), data.draw(st.sampled_from(["binary", "twins"]))
    )
    present = data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 7]), min_size=1, unique=True))
    label_map = label_maps(seed=data.draw(st.integers(0, 99)), size=(3, 4), values=present)[0]
    modes = FlipModes(flips, STREET)
    masks, weights, names = modes.all(label_map)
    found = dict(zip([mask.tobytes() for mask in masks], weights, strict=True))
    expected = plain_modes(label_map, flips, STREET)
    assert len(found) == len(masks) == len(set(names)) and list(names) == sorted(names)
    assert found == pytest.approx(expected, abs=1e-12) and weights.sum() == pytest.approx(1, abs=1e-12)
    assert modes.labels.ignore_value == 255
    assert modes.draw(label_map, np.random.default_rng(0)).tobytes() in expected


def test_eight_classes_give_256_modes():
    labels = LabelSpace.of_classes(9)
    modes = FlipModes(ClassFlips({name: 0.5 for name in labels.names[1:]}, "twins"), labels)
    masks, weights, _ = modes.all(np.arange(9, dtype=np.uint8)[None])
    assert len(np.unique(masks, axis=0)) == 256 and (weights == 2.0**-8).all()
    assert masks.max() == 16 and (masks[:, 0, 0] == 0).all()


@pytest.mark.parametrize("output", ["binary", "twins"])
def test_draws_follow_the_law_without_making_all_modes(tmp_path, monkeypatch, output):
    split = open_split(street(tmp_path, output), "train")
    sample = split[0]
    expected = dict(zip([m.tobytes() for m in sample.masks], sample.weights, strict=True))
    assert len(expected) == 8
    monkeypatch.setattr(FlipModes, "all", lambda *_: pytest.fail("all modes were made"))
    view = LabelView(split, PLAIN, "single", seed=2)
    drawn = Counter(view[epoch, 0].annotations.masks[0, 0].numpy().tobytes() for epoch in range(3000))
    assert set(drawn) <= set(expected)
    assert stats.chisquare([drawn[m] for m in expected], [3000 * q for q in expected.values()]).pvalue > 1e-3
    assert torch.equal(view[5, 0].annotations.masks, view[5, 0].annotations.masks)


@pytest.mark.parametrize("output", ["binary", "twins"])
def test_full_labels_are_the_sample_and_augmentation_moves_all_modes_alike(tmp_path, output):
    split = open_split(street(tmp_path, output), "train")
    assert (split.info.flips, split.info.labels.classes) == (None, 2 if output == "binary" else 8)
    every = Augmentation((*TESTED, Rotate(20), Elastic(2, 8), ResizedCrop(12, 12), Gamma()))
    for augmentation in (Augmentation(), every):
        view = LabelView(split, PLAIN, augmentation=augmentation, seed=1)
        for index, epoch in itertools.product(range(3), range(4)):
            sample, item = split[index], view[epoch, index]
            rng = np.random.default_rng([1, epoch, index])
            image, masks = augmentation(
                torch.from_numpy(sample.image.copy()).float(), torch.from_numpy(sample.masks), 255, rng
            )
            assert torch.equal(image, item.image) and torch.equal(masks, item.annotations.masks[0])
            np.testing.assert_allclose(item.annotations.weights[0], sample.weights, atol=1e-7)
    assert bool((item.annotations.masks == 255).any())


def test_one_mode_leaves_a_place_that_is_not_there(tmp_path):
    info = DatasetInfo("sky", STREET, flips=ClassFlips({"car": 0.5}))
    sample = Sample("a", np.zeros((1, 8, 8), np.uint8), np.zeros((1, 8, 8), np.uint8), np.ones(1), ("r",))
    split = open_split(write_dataset(tmp_path / "d", {"train": [sample]}, info), "train")
    assert split[0].annotators == ("flip-x",) and split[0].weights.tolist() == [1]
    assert LabelView(split, PLAIN)[0].annotations.weights.tolist() == [[1, 0]]


def test_labels_are_stored_once_and_both_forms_are_the_same_data(tmp_path):
    folder = street(tmp_path, "twins")
    assert len(list(folder.glob("train/masks/*/*.png"))) == 3
    packed = pack(folder, tmp_path / "street.h5")
    assert check_dataset(folder, to_train=False).ok and check_dataset(packed, to_train=False).ok
    one, other = open_split(folder, "train"), pickle.loads(pickle.dumps(open_split(packed, "train")))
    assert isinstance(other, FlippedSplit) and one.digest() == other.digest() and len(list(other)) == 3
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.masks, b.masks)
    written = open_split(write_dataset(tmp_path / "modes", {"train": one}, one.info), "train")
    np.testing.assert_array_equal(written[0].masks, one[0].masks)
    assert written[0].annotators == one[0].annotators


def test_the_digest_covers_labels_and_flips(tmp_path):
    kinds = [
        street(tmp_path),
        street(tmp_path, "twins"),
        street(tmp_path, suffix="-rarer", chances={**CHANCES, "car": 0.2}),
        street(tmp_path, suffix="-order", chances=dict(reversed(CHANCES.items()))),
        street(tmp_path, suffix="-fewer", count=2),
    ]
    digests = [open_split(kind, "train").digest() for kind in kinds]
    assert len(set(digests)) == len(kinds)
    assert open_split(street(tmp_path, suffix="-again"), "train").digest() == digests[0]


def test_several_label_maps_of_one_image_are_refused_and_reported(tmp_path):
    folder = street(tmp_path, more=1)
    packed = pack(folder, tmp_path / "street.h5")
    for form in (folder, packed):
        with pytest.raises(AmbisegError, match="'s0': it has 2 label maps, but classes flip: store one"):
            open_split(form, "train")[0]
        assert len(check_dataset(form, to_train=False).errors) == 3


def test_description_round_trip():
    for output in ("binary", "twins"):
        info = DatasetInfo("x", STREET, flips=ClassFlips({"road": 0.05, "car": 1.0}, output))
        assert DatasetInfo.from_yaml(info.to_yaml()) == info
    assert DatasetInfo.from_yaml("classes: [a, b, c]\nflips: {c: 0.5}").flips == ClassFlips({"c": 0.5})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classes: [sky, road]\nflips: {raod: 0.5}", "unknown class that flips 'raod': did you mean 'road'"),
        ("flips: {foreground: 1.5}", "foreground has a probability of 0 to 1, received 1.5"),
        ("flips: {foreground: often}", "received 'often'"),
        ("flips: {foreground: true}", "received True"),
        ("flips: [foreground]", "flips is a mapping"),
        ("flips: {foreground: 0.5}\noutput: twin", "did you mean 'twins'"),
        ("output: twins", "of use with flips only"),
        (f"flips: {dict.fromkeys(range(9), 0.5)}", "1 to 8 classes, received 9"),
    ],
)
def test_wrong_descriptions_name_the_remedy(text, words):
    with pytest.raises(AmbisegError, match=f"^my.yaml: .*{words}"):
        DatasetInfo.from_yaml(text, "my.yaml")


def test_a_split_without_flips_is_not_flipped(tmp_path):
    info = DatasetInfo("plain", STREET)
    sample = Sample("a", np.zeros((1, 8, 8), np.uint8), np.zeros((1, 8, 8), np.uint8), np.ones(1), ("r",))
    split = open_split(write_dataset(tmp_path / "d", {"train": [sample]}, info), "train")
    assert not isinstance(split, FlippedSplit)
    with pytest.raises(AmbisegError, match="add flips to its dataset.yaml"):
        FlippedSplit(split)
