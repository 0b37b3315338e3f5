"""Records say what the library says: masks, matching, figures."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics.registry import evaluate_all
from ambiseg.viewer.gallery import Case
from ambiseg.viewer.record import FIGURES, MOST_VALUES, picture_of, record_of, runs_of, shown_size


def decoded(runs: str, shape: tuple[int, int]) -> np.ndarray:
    """The label map of runs, as the page reads it."""
    content = base64.b64decode(runs)
    count = len(content) // 3
    lengths = np.frombuffer(content[count:], "<u2")
    return np.repeat(np.frombuffer(content[:count], np.uint8), lengths).reshape(shape)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2048), (7, 5), (40, 33)])
def test_runs_give_the_mask_back(shape):
    rng = np.random.default_rng(0)
    for most in (1, 2, 256):
        mask = rng.integers(0, most, shape).astype(np.uint8)
        np.testing.assert_array_equal(decoded(runs_of(mask), shape), mask)


@pytest.mark.parametrize("size", [(64, 64, 4), (5000, 100, 1), (3000, 3000, 200), (100, 9000, 3)])
def test_shown_sizes_are_bounded_and_keep_the_shape(size):
    height, width = shown_size(*size)
    assert max(height, width) <= 2048 and size[2] * height * width <= 1.01 * MOST_VALUES
    assert height / width == pytest.approx(size[0] / size[1], rel=0.06)


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    labels = LabelSpace.of_classes(3)
    truth = rng.integers(0, 3, (3, 12, 10)).astype(np.uint8)
    truth[2] = truth[0]  # two annotators agree
    found = np.stack([truth[1], rng.integers(0, 3, (12, 10)), truth[0]]).astype(np.uint8)
    return Case(
        rng.random((1, 12, 10)),
        MaskSet.from_numpy(found, [0.5, 0.3, 0.2], labels),
        MaskSet.from_numpy(truth, [0.25, 0.5, 0.25], labels),
        ("anna", "bo", "cy"),
    )


def test_a_record_holds_masks_weights_and_names(case):
    record = record_of(case)
    for kind, masks in (("predictions", case.predictions), ("annotations", case.annotations)):
        assert [one["weight"] for one in record[kind]] == pytest.approx(masks.weights[0].tolist())
        for k, one in enumerate(record[kind]):
            np.testing.assert_array_equal(decoded(one["runs"], (12, 10)), masks.masks[0, k])
    assert [one["name"] for one in record["annotations"]] == ["anna", "bo", "cy"]
    assert [one["name"] for one in record["classes"]] == ["class 0", "class 1", "class 2"]


def test_identical_annotations_have_the_same_partner(case):
    record = record_of(case)
    assert record["predictions"][0]["partners"] == [[1, 1.0]]
    assert record["predictions"][1]["partners"] == []
    assert record["predictions"][2]["partners"] == [[0, 1.0], [2, 1.0]]
    assert [one["partners"] for one in record["annotations"]] == [[[2, 1.0]], [[0, 1.0]], [[2, 1.0]]]


def test_figures_are_those_of_the_library(case):
    values = evaluate_all(case.predictions, case.annotations, FIGURES)
    figures = {one["title"]: one["value"] for one in record_of(case)["figures"]}
    assert list(figures.values()) == pytest.approx([float(v[0]) for v in values.values()], abs=1e-4)


def test_large_images_are_reduced_with_their_masks():
    masks = torch.zeros(1, 1, 4096, 8, dtype=torch.uint8)
    masks[..., :4] = 1
    case = Case(np.zeros((1, 4096, 8)), MaskSet.uniform(masks, LabelSpace.binary()))
    record = record_of(case)
    assert (record["height"], record["width"], record["full"]) == (2048, 4, [4096, 8])
    assert decoded(record["predictions"][0]["runs"], (2048, 4)).tolist() == [[1, 1, 0, 0]] * 2048
    assert picture_of(case, ())[:8] == b"\x89PNG\r\n\x1a\n"
