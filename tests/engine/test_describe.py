"""The description of a data set against closed forms: disagreement, what the annotation oracle reaches,
digests."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ambiseg
from ambiseg.data.folder import DatasetInfo, write_folder
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.engine.describe import describe
from ambiseg.errors import AmbisegError


def sample(name, masks, weights=None):
    image = np.random.default_rng(abs(sum(map(ord, name)))).integers(0, 256, (1, 8, 8), np.uint8)
    masks = np.asarray(masks, np.uint8)
    weights = np.full(len(masks), 1 / len(masks)) if weights is None else np.asarray(weights)
    return Sample(name, image, masks, weights, tuple(f"r{i}" for i in range(len(masks))))


def rows(n):
    """A mask whose first n rows are marked."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:n] = 1
    return mask


@pytest.fixture
def root(tmp_path):
    unanimous = [sample("u0", [rows(4)] * 3), sample("u1", [rows(0)] * 3)]
    halves = [sample(f"h{i}", [rows(2), rows(4)], [0.25, 0.75]) for i in range(6)]
    info = DatasetInfo("toy", source="made here", licence="CC0-1.0")
    splits = {"train": halves, "test": unanimous, "val": [sample("one", [rows(1)])]}
    return write_folder(tmp_path / "toy", splits, info)


def test_disagreement_has_closed_forms(root):
    found = describe(root)
    train, val, test = found.splits
    assert [s.summary.split for s in found.splits] == ["train", "val", "test"] and not found.warnings
    # Two masks of weights 1/4 and 3/4 with IoU 1/2: d(Y, Y) = 2 * 1/4 * 3/4 * 1/2.
    assert train.disagreement["spread"] == pytest.approx(3 / 16)
    assert train.disagreement["pairwise_iou"] == pytest.approx(0.5)
    assert train.disagreement["modes"] == 2 and train.disagreement["empty"] == 0
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert train.disagreement["mode_entropy"] == pytest.approx(entropy, abs=1e-5)
    assert train.disagreement["area"] == pytest.approx(0.25 * 0.25 + 0.75 * 0.5)
    assert test.disagreement["spread"] == 0 and test.disagreement["empty"] == 0.5
    assert test.disagreement["modes"] == 1 and test.disagreement["mode_entropy"] == 0
    assert val.one_annotator == {} and test.one_annotator["ged"] == pytest.approx(0, abs=1e-6)
    for name in ("pairwise_iou", "pairwise_dice", "spread", "unanimous", "fleiss_kappa", "ged_leave_one_out"):
        assert math.isnan(val.disagreement[name]) and name in test.disagreement
    assert val.disagreement["modes"] == 1
    for split in found.splits:
        assert split.digest == open_split(root, split.summary.split).digest()
        assert split.measured == split.summary.images


def test_one_annotator_and_annotation_oracle_have_closed_forms(root, tmp_path):
    many = {"train": [sample(f"{i:03}", [rows(2), rows(4)]) for i in range(48)]}
    split = describe(write_folder(tmp_path / "many", many, DatasetInfo()), samples=(1, 4)).splits[0]
    assert split.one_annotator["ged"] == pytest.approx(2 * 0.5)  # 2 d(a, b), no spread on either side
    for n in (1, 4):  # E GED² = d(Y, Y) / n, here 1/4 / n
        assert split.oracle[n]["ged"] == pytest.approx(0.25 / n, abs=0.02)
    assert split.oracle[4]["hm_iou_unique"] > split.oracle[1]["hm_iou_unique"]


def test_most_and_least_ambiguous(root, tmp_path):
    masks = {"a": [1, 1], "b": [1, 8], "c": [4, 5], "e": [0, 0], "f": [2, 2], "g": [3, 8]}
    data = {"train": [sample(name, [rows(n) for n in ns]) for name, ns in masks.items()]}
    split = describe(write_folder(tmp_path / "some", data, DatasetInfo()), samples=(1,)).splits[0]
    assert split.most_ambiguous == ("b", "g", "c")
    assert split.least_ambiguous == ("a", "f", "e")


def test_a_sample_of_the_images_is_seeded(root):
    some = describe(root, "train", images=2, samples=(1,), seed=3)
    assert some.splits[0].measured == 2 and some.splits[0].summary.images == 6
    again = describe(root, "train", images=2, samples=(1,), seed=3)
    np.testing.assert_equal(again.to_dict(), some.to_dict())  # nan equals nan
    assert some.splits[0].digest == open_split(root, "train").digest()


def test_leaks_and_errors_are_passed_on(root):
    (root / "test/images/u0.png").write_bytes((root / "train/images/h0.png").read_bytes())
    found = ambiseg.describe(root, "val", samples=(1,))
    assert "h0 = u0" in found.warnings[0].problem
    assert "1 warning>" in repr(found) and "h0 = u0" in found._repr_html_()
    assert found.info.licence == "CC0-1.0" and found.info.name == "toy"
    for words, options in (("no split 'x'", {"split": "x"}), ("samples", {"samples": (0,)})):
        with pytest.raises(AmbisegError, match=words):
            describe(root, **options)
    (root / "train/images/h0.png").write_bytes(b"")
    with pytest.raises(AmbisegError, match=r"1 error, such as .*h0.png"):
        describe(root)


def test_a_notebook_shows_a_line_and_a_row_for_each_split(root):
    found = describe(root)
    line = repr(found)
    assert line.startswith(f"<Description: toy at {root}; ") and "\n" not in line and len(line) < 300
    assert "val 1 image," in line and "test 2 images" in line and "classes background, foreground" in line
    page = found._repr_html_()
    assert page.count("<tr>") == 4 and "<th>val</th><td>1</td><td>1.00</td>" in page
    assert line.replace("<", "&lt;").replace(">", "&gt;") in page
