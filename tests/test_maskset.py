"""Mask sets: every operation keeps a distribution a distribution, and files come back as they were."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.overlap import pairwise_overlap
from mask_set_helpers import assert_same_distribution, content, mask_sets

properties = settings(max_examples=60, deadline=None)
BINARY = LabelSpace.binary()


# -- merging and filtering -----------------------------------------------------------------------------------


@properties
@given(mask_sets())
def test_merging_adds_weights_up(given_set: MaskSet) -> None:
    merged = given_set.merge_identical().validate()
    assert_same_distribution(merged, given_set)
    assert merged.count.tolist() == [len(weight_of) for weight_of in content(given_set)]
    torch.testing.assert_close(merged.mean(), given_set.mean())
    again = merged.merge_identical()
    assert torch.equal(again.masks, merged.masks) and torch.equal(again.weights, merged.weights)
    if given_set.scores is not None and merged.scores is not None:
        for b in range(len(merged)):
            for k in range(int(merged.count[b])):
                same = (given_set.masks[b] == merged.masks[b, k]).flatten(1).all(1) & given_set.present[b]
                assert merged.scores[b, k] == given_set.scores[b][same].max()


@properties
@given(mask_sets())
def test_merging_knows_no_order(given_set: MaskSet) -> None:
    order = torch.randperm(given_set.masks.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = given_set.gather(order.repeat(len(given_set), 1))
    assert_same_distribution(shuffled.merge_identical(), given_set.merge_identical())


def test_merging_keeps_the_mean_of_probabilities() -> None:
    probabilities = torch.tensor([[[[0.9, 0.1]], [[0.2, 0.3]], [[0.6, 0.2]], [[0.7, 0.4]]]])
    given_set = MaskSet.from_probabilities(probabilities, BINARY, torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
    merged = given_set.merge_identical()
    torch.testing.assert_close(merged.weights, torch.tensor([[0.7, 0.3]]))
    torch.testing.assert_close(merged.mean(), given_set.mean())
    assert torch.equal(given_set.probabilities, probabilities), "the set it came from is left alone"


@properties
@given(mask_sets(), st.sampled_from([0.0, 0.3, 0.6, 0.9, 1.0]))
def test_near_duplicates_disappear_and_their_mass_moves(given_set: MaskSet, iou: float) -> None:
    left = given_set.drop_near_duplicates(iou).validate()
    overlap = pairwise_overlap(left.masks, left.masks, left.labels).iou()
    pairs = (
        left.present[:, :, None] & left.present[:, None] & ~torch.eye(left.masks.shape[1], dtype=torch.bool)
    )
    assert not bool((overlap[pairs] > iou).any())
    assert bool((left.count <= given_set.count).all())
    for before, after in zip(content(given_set), content(left), strict=True):
        assert set(after) <= set(before)
        assert all(after[key] >= before[key] - 1e-6 for key in after)
    if iou == 1:
        assert_same_distribution(left, given_set)
        assert torch.equal(left.count, given_set.merge_identical().count)


def test_the_better_of_two_near_duplicates_stays() -> None:
    masks = torch.tensor([[[1, 1, 1, 1], [1, 1, 1, 0], [0, 0, 0, 1]]], dtype=torch.uint8)
    weights, scores = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.2, 0.9, 0.4]])
    by_score = MaskSet(masks, weights, BINARY, scores).drop_near_duplicates(0.7)
    assert by_score.masks.tolist() == masks[:, 1:].tolist()
    torch.testing.assert_close(by_score.weights, torch.tensor([[0.8, 0.2]]))
    by_weight = MaskSet(masks, weights, BINARY).drop_near_duplicates(0.7)
    assert by_weight.masks.tolist() == masks[:, [0, 2]].tolist()


@pytest.mark.parametrize("classes", [2, 20])
def test_masks_that_differ_in_one_pixel_are_not_identical(classes: int) -> None:
    labels = BINARY if classes == 2 else LabelSpace.of_classes(classes)
    masks = (
        torch.arange(1024 * 1024).remainder(classes).to(torch.uint8).view(1, 1, 1024, 1024).repeat(1, 3, 1, 1)
    )
    masks[0, 1, 0, 0] = 1
    scores = torch.tensor([[0.6, 0.7, 0.8]])
    left = MaskSet(masks, torch.tensor([[0.2, 0.3, 0.5]]), labels, scores).drop_near_duplicates(1.0)
    assert left.scores is not None and left.scores.tolist()[0] == pytest.approx([0.7, 0.8])
    torch.testing.assert_close(left.weights, torch.tensor([[0.3, 0.7]]))


# -- order, selection and drawing ----------------------------------------------------------------------------


@properties
@given(mask_sets())
def test_sort_compact_and_normalised_keep_the_law(given_set: MaskSet) -> None:
    ordered, compact = given_set.sort(), given_set.compact()
    assert bool((ordered.weights.diff(dim=1) <= 0).all())
    for other in (ordered, compact, given_set.normalised(), given_set.hard()):
        assert_same_distribution(other, given_set)
    assert compact.masks.shape[1] == int(given_set.count.max())
    for b in range(len(compact)):
        there = given_set.present[b]
        assert torch.equal(compact.masks[b, : int(there.sum())], given_set.masks[b][there]), "order is kept"


@properties
@given(mask_sets(), st.integers(1, 6))
def test_top_keeps_the_heaviest(given_set: MaskSet, k: int) -> None:
    top = given_set.top(k).validate()
    assert torch.equal(top.count, given_set.count.clamp(max=k))
    heaviest = given_set.weights.sort(descending=True).values[:, :k]
    wanted = heaviest / heaviest.sum(1, keepdim=True)
    torch.testing.assert_close(top.weights, wanted[:, : top.weights.shape[1]])


def test_weights_of_nothing_become_uniform() -> None:
    nothing = MaskSet(torch.zeros(1, 4, 2, dtype=torch.uint8), torch.zeros(1, 4), BINARY)
    assert nothing.normalised().weights.tolist() == [[0.25] * 4]


def test_draws_come_as_often_as_weights_say() -> None:
    masks = torch.arange(4, dtype=torch.uint8).view(1, 4, 1).expand(8000, -1, -1)
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2]).expand(8000, -1)
    labels = LabelSpace.of_classes(4)
    drawn = MaskSet(masks, weights, labels).sample_one(torch.Generator().manual_seed(0)).validate()
    assert drawn.masks.shape == (8000, 1, 1)
    share = torch.bincount(drawn.masks.flatten().long(), minlength=4) / 8000
    assert share[1] == 0
    torch.testing.assert_close(share, weights[0], atol=4 * (0.25 / 8000) ** 0.5, rtol=0)
    again = MaskSet(masks, weights, labels).sample_one(torch.Generator().manual_seed(0))
    assert torch.equal(again.masks, drawn.masks)


def test_indexing_and_iteration() -> None:
    given_set = MaskSet.uniform(torch.arange(6, dtype=torch.uint8).view(3, 1, 2), LabelSpace.of_classes(6))
    assert [image.masks.tolist() for image in given_set] == [[[[0, 1]]], [[[2, 3]]], [[[4, 5]]]]
    assert given_set[-1].masks.tolist() == given_set[2].masks.tolist()
    assert len(given_set[1:]) == 2 and len(given_set[torch.tensor([True, False, True])]) == 2
    for outside in (3, -4):
        with pytest.raises(IndexError):
            given_set[outside]


# -- closed forms --------------------------------------------------------------------------------------------


def test_mean_entropy_and_areas_in_closed_form() -> None:
    masks = torch.tensor([[[1, 1, 0, 255], [1, 0, 0, 1]]], dtype=torch.uint8)
    given_set = MaskSet(masks, torch.tensor([[0.75, 0.25]]), LabelSpace.binary(ignore_value=255))
    torch.testing.assert_close(given_set.mean()[0, 0, :3], torch.tensor([1.0, 0.75, 0.0]))
    binary = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    torch.testing.assert_close(
        given_set.entropy()[0, :3], torch.tensor([0.0, binary, 0.0], dtype=torch.float32)
    )
    torch.testing.assert_close(given_set.areas(), torch.tensor([[2 / 3, 0.5]]))
    within = torch.tensor([[True, False, True, True]])
    torch.testing.assert_close(given_set.areas(within), torch.tensor([[1 / 2, 2 / 3]]))


def test_labelled_is_where_some_mask_that_is_there_is_not_void() -> None:
    masks = torch.tensor([[[1, 255, 255, 0], [0, 0, 255, 255], [0, 0, 0, 0]]], dtype=torch.uint8)
    given_set = MaskSet(masks, torch.tensor([[0.5, 0.5, 0.0]]), LabelSpace.binary(ignore_value=255))
    assert given_set.labelled.tolist() == [[True, True, False, True]]


def test_entropy_of_uniform_classes_is_the_logarithm() -> None:
    masks = torch.arange(5, dtype=torch.uint8).view(1, 5, 1)
    entropy = MaskSet.uniform(masks, LabelSpace.of_classes(5)).entropy()
    torch.testing.assert_close(entropy, torch.tensor([[np.log(5)]], dtype=torch.float32))


@properties
@given(mask_sets())
def test_the_mean_is_a_distribution_over_classes(given_set: MaskSet) -> None:
    everything = given_set.labels.all_classes(given_set.mean(), dim=1)
    torch.testing.assert_close(everything.sum(1), torch.ones_like(everything.sum(1)))
    assert bool((given_set.entropy() <= np.log(given_set.labels.classes) + 1e-6).all())


def test_the_mean_is_exact_inside_autocast() -> None:
    third = MaskSet.uniform(torch.tensor([[[1], [0], [0]]], dtype=torch.uint8), BINARY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(third.mean(), torch.full((1, 1, 1), 1 / 3))


@pytest.mark.parametrize("classes", [2, 4])
def test_from_probabilities_decides_and_remembers(classes: int) -> None:
    labels = LabelSpace.of_classes(classes)
    logits = torch.randn(2, 3, labels.channels, 2, 2, generator=torch.Generator().manual_seed(0))
    probabilities = labels.probabilities(logits, dim=2)
    given_set = MaskSet.from_probabilities(probabilities, labels).validate()
    assert given_set.masks.shape == (2, 3, 2, 2)
    assert torch.equal(given_set.masks.long(), labels.all_classes(probabilities, dim=2).argmax(2))
    torch.testing.assert_close(given_set.mean(), probabilities.mean(1))
    torch.testing.assert_close(given_set.hard().mean(), labels.one_hot(given_set.masks, dim=2).mean(1))
    taken = given_set.gather(torch.tensor([[2], [0]]))
    assert taken.probabilities is not None and torch.equal(
        taken.probabilities[:, 0], probabilities[[0, 1], [2, 0]]
    )


# -- arrays and types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint16])
@pytest.mark.parametrize("space", [(2, 3), (2, 3, 2)])
def test_arrays_of_one_image_become_a_batch_of_one(dtype: type, space: tuple[int, ...]) -> None:
    masks = (np.random.default_rng(0).random((3, *space)) < 0.5).astype(dtype)
    found = MaskSet.from_numpy(masks, np.array([0.5, 0.25, 0.25]), scores=[0.1, 0.2, 0.3])
    assert found.masks.dtype == torch.uint8 and found.labels == BINARY
    assert np.array_equal(found.masks[0].numpy(), masks.astype(np.uint8))
    assert found.weights.tolist() == [[0.5, 0.25, 0.25]] and found.weights.dtype == torch.float32
    assert found.scores is not None and found.scores.tolist()[0] == pytest.approx([0.1, 0.2, 0.3])
    masks[:] = 1 - masks
    assert np.array_equal(found.masks[0].numpy(), 1 - masks.astype(np.uint8)), "the set owns its masks"
    assert MaskSet.from_numpy(masks).weights.tolist()[0] == pytest.approx([1 / 3] * 3)
    void = LabelSpace.of_classes(3, ignore_value=200)
    assert MaskSet.from_numpy(np.full((1, 2, 2), 200), labels=void).labels is void


@pytest.mark.parametrize(
    ("masks", "weights", "message"),
    [
        (np.zeros((4, 4), np.uint8), None, r"shape \(K, H, W\), received \(4, 4\): pass masks\[None\]"),
        (np.zeros((0, 4, 4), np.uint8), None, r"received \(0, 4, 4\)"),
        (np.zeros((1, 4, 4)), None, "whole numbers, received float64"),
        ([[["a"]]], None, "whole numbers, received <U1"),
        (np.full((1, 2, 2), 7), None, r"value\(s\) \[7\]"),
        (np.full((1, 2, 2), 257), None, r"value\(s\) \[257\]"),
        (np.full((1, 2, 2), -1), None, r"value\(s\) \[-1\]"),
        (np.array([[[0, 1, 255]]]), None, "masks hold 255.*ignore_value=255"),
        (np.zeros((2, 2, 2), int), [3.0, 1.0], "sum to 4, not 1: divide them by their sum"),
        (np.zeros((2, 2, 2), int), [0.5, 0.25, 0.25], r"weights of shape \(1, 3\) do not fit"),
    ],
)
def test_arrays_that_are_no_masks_are_refused(masks: Any, weights: Any, message: str) -> None:
    with pytest.raises(AmbisegError, match=message):
        MaskSet.from_numpy(masks, weights)


@pytest.mark.parametrize(
    "make",
    [
        lambda masks, weights: MaskSet(masks.numpy(), weights, BINARY),
        lambda masks, weights: MaskSet(masks.tolist(), weights, BINARY),
        lambda masks, weights: MaskSet(masks, weights.tolist(), BINARY),
        lambda masks, weights: MaskSet(masks, None, BINARY),
        lambda masks, weights: MaskSet(masks, weights, BINARY, weights.numpy()),
        lambda masks, weights: MaskSet.uniform(masks.numpy(), BINARY),
        lambda masks, weights: MaskSet.uniform(masks.tolist(), BINARY),
    ],
)
def test_other_things_than_tensors_are_refused(make: Any) -> None:
    with pytest.raises(AmbisegError, match=r"(masks|weights|scores) of a MaskSet .* MaskSet.from_numpy"):
        make(torch.zeros(1, 2, 2, 2, dtype=torch.uint8), torch.ones(1, 2) / 2)


def test_other_things_than_label_spaces_are_refused() -> None:
    with pytest.raises(AmbisegError, match="are a LabelSpace, received int"):
        MaskSet.uniform(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 2)  # type: ignore[arg-type]


# -- stacking ------------------------------------------------------------------------------------------------


def test_stacking_pads_sets_and_images() -> None:
    small = MaskSet(torch.ones(1, 1, 2, 3, dtype=torch.uint8), torch.ones(1, 1), BINARY, torch.ones(1, 1))
    large = MaskSet(
        torch.zeros(2, 3, 3, 2, dtype=torch.uint8), torch.full((2, 3), 1 / 3), BINARY, torch.ones(2, 3)
    )
    both = MaskSet.stack([small, large]).validate()
    assert both.masks.shape == (3, 3, 3, 3) and both.count.tolist() == [1, 3, 3]
    assert bool((both.masks[0, 0, :2] == 1).all()) and bool((both.masks[0, 0, 2] == 255).all())
    assert bool((both.masks[1:, :, :, :2] == 0).all()) and bool((both.masks[1:, :, :, 2] == 255).all())
    assert both.scores is not None and both.scores[0].tolist() == [1, 0, 0]
    torch.testing.assert_close(both.areas()[:, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_masks_of_booleans_are_padded_with_void() -> None:
    small, large = (MaskSet.uniform(torch.ones(1, 1, 2, n, dtype=torch.bool), BINARY) for n in (2, 3))
    both = MaskSet.stack([small, large])
    assert both.masks.dtype == torch.uint8 and both.masks[0, 0].tolist() == [[1, 1, 255]] * 2


def test_only_sets_of_one_label_space_are_stacked() -> None:
    binary = MaskSet.from_numpy(np.zeros((1, 2, 2), int))
    other = replace(binary, labels=LabelSpace.of_classes(3))
    with pytest.raises(AmbisegError, match="mask sets 0 and 2 differ in their label space"):
        MaskSet.stack([binary, binary, other])
    with pytest.raises(AmbisegError, match="joins MaskSets, received Tensor at 1"):
        MaskSet.stack([binary, binary.masks])  # type: ignore[list-item]


@properties
@given(mask_sets())
def test_stacking_undoes_splitting(given_set: MaskSet) -> None:
    back = MaskSet.stack([image.compact() for image in given_set])
    assert_same_distribution(back, given_set)


def test_stacking_keeps_probabilities_of_one_size_only() -> None:
    def of_size(count: int, size: int) -> MaskSet:
        return MaskSet.from_probabilities(torch.full((1, count, 1, size), 0.7), BINARY)

    same = MaskSet.stack([of_size(1, 3), of_size(2, 3)])
    assert same.probabilities is not None and same.probabilities.shape == (2, 2, 1, 3)
    torch.testing.assert_close(same.mean(), torch.full((2, 1, 3), 0.7))
    assert MaskSet.stack([of_size(1, 3), of_size(1, 4)]).probabilities is None
    assert MaskSet.stack([of_size(1, 3), of_size(1, 3).hard()]).probabilities is None


# -- files ---------------------------------------------------------------------------------------------------


@properties
@given(mask_sets())
def test_files_come_back_identical(tmp_path_factory: pytest.TempPathFactory, given_set: MaskSet) -> None:
    path = tmp_path_factory.mktemp("sets") / "set.npz"
    given_set.save(path)
    back = MaskSet.load(path)
    assert back.labels == given_set.labels
    assert torch.equal(back.masks, given_set.masks) and back.masks.dtype == given_set.masks.dtype
    assert torch.equal(back.weights, given_set.weights)
    assert (back.scores is None) == (given_set.scores is None)
    if back.scores is not None and given_set.scores is not None:
        assert torch.equal(back.scores, given_set.scores)


def test_probabilities_come_back(tmp_path: Path) -> None:
    given_set = MaskSet.from_probabilities(
        torch.rand(1, 2, 3, 2, 2, 2), LabelSpace.of_classes(3, ignore_value=9)
    )
    given_set.save(tmp_path / "volume.set")
    back = MaskSet.load(tmp_path / "volume.set")
    assert back.labels == given_set.labels and back.probabilities is not None
    assert given_set.probabilities is not None and torch.equal(back.probabilities, given_set.probabilities)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["masks", "labels", "extra"])
def test_pickles_are_refused_without_being_run(tmp_path: Path, name: str) -> None:
    mark, path = tmp_path / "executed", tmp_path / "trap.npz"
    MaskSet.uniform(torch.zeros(1, 1, 2, dtype=torch.uint8), BINARY).save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    trap = np.empty(1, dtype=object)
    trap[0] = Trap(mark)
    np.savez(path, **(arrays | {name: trap}))
    with pytest.raises(AmbisegError, match="not a mask set"):
        MaskSet.load(path)
    (tmp_path / "bare.npz").write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(AmbisegError, match="not a mask set"):
        MaskSet.load(tmp_path / "bare.npz")
    assert not mark.exists()


def damaged_files() -> dict[str, bytes]:
    """Files that are not mask sets, by what is wrong with them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("masks.npy", b"no array")
    array = io.BytesIO()
    np.save(array, np.zeros(3))
    foreign = io.BytesIO()
    np.savez(foreign, masks=np.zeros((1, 1, 2), np.uint8), weights=np.ones((1, 1)))
    words = io.BytesIO()
    np.savez(words, labels=np.frombuffer(b"[1]", np.uint8))
    return {
        "empty": b"",
        "text": b"hello",
        "zip of something else": stream.getvalue(),
        "bare array": array.getvalue(),
        "without labels": foreign.getvalue(),
        "labels of another kind": words.getvalue(),
    }


@pytest.mark.parametrize("kind", damaged_files())
def test_other_files_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bad.npz").write_bytes(damaged_files()[kind])
    with pytest.raises(AmbisegError, match=r"bad.npz is not a mask set"):
        MaskSet.load(tmp_path / "bad.npz")
    with pytest.raises(AmbisegError, match="not a mask set"):
        MaskSet.load(tmp_path / "missing.npz")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("weights", np.array([[math.nan, 0.5]]), "weights are not numbers from 0 whose sum is 1"),
        ("weights", np.array([[0.9, 0.9]]), "whose sum is 1"),
        ("weights", np.array([[1.5, -0.5]]), "whose sum is 1"),
        ("scores", np.array([[0.5, math.inf]]), "scores are NaN or infinite"),
        ("masks", np.full((1, 2, 4), 7, np.uint8), r"holds the value\(s\) \[7\]"),
    ],
)
def test_files_with_numbers_without_sense_are_refused(
    tmp_path: Path, name: str, value: Any, words: str
) -> None:
    path = tmp_path / "set.npz"
    MaskSet.uniform(torch.zeros(1, 2, 4, dtype=torch.uint8), BINARY).save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    np.savez(path, **(arrays | {name: value}))
    with pytest.raises(AmbisegError, match=f"set.npz is not a mask set .*{words}"):
        MaskSet.load(path)


def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    masks = torch.randint(0, 2, (2, 2, 6, 6), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    MaskSet.uniform(masks, BINARY).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(AmbisegError):
            MaskSet.load(path)
    for _ in range(300):
        broken = bytearray(whole)
        broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            MaskSet.load(path)
        except AmbisegError:
            continue


# -- what is refused -----------------------------------------------------------------------------------------


def test_parts_that_do_not_fit_are_refused() -> None:
    masks, weights = torch.zeros(1, 2, 3, dtype=torch.uint8), torch.full((1, 2), 0.5)
    with pytest.raises(AmbisegError, match="weights of shape"):
        MaskSet(masks, weights[:, :1], BINARY)
    with pytest.raises(AmbisegError, match="scores of shape"):
        MaskSet(masks, weights, BINARY, weights[:, :1])
    with pytest.raises(AmbisegError, match="probabilities of shape"):
        MaskSet(masks, weights, BINARY, None, torch.zeros(1, 2, 2, 3))
    with pytest.raises(AmbisegError, match="from_probabilities"):
        MaskSet(masks.float(), weights, BINARY)
    with pytest.raises(AmbisegError, match="empty list"):
        MaskSet.stack([])
    with pytest.raises(AmbisegError, match="k >= 1"):
        MaskSet(masks, weights, BINARY).top(0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([0.5, 0.4], "sum to 0.9"), ([1.5, -0.5], "negative"), ([float("nan"), 1.0], "finite")],
)
def test_weights_that_are_no_distribution_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(AmbisegError, match=message):
        MaskSet(torch.zeros(1, 2, 3, dtype=torch.uint8), torch.tensor([weights]), BINARY).validate()


def test_classes_that_do_not_exist_are_refused_unless_padded() -> None:
    masks = torch.tensor([[[0, 1], [7, 7]]], dtype=torch.uint8)
    MaskSet(masks, torch.tensor([[1.0, 0.0]]), BINARY).validate()
    with pytest.raises(AmbisegError, match=r"rater masks holds the value\(s\) \[7\]"):
        MaskSet(masks, torch.tensor([[0.5, 0.5]]), BINARY).validate("rater masks")


def white(*rows: list[int]) -> MaskSet:
    return MaskSet.uniform(
        255 * torch.tensor([rows], dtype=torch.uint8)[..., None, :].expand(-1, -1, 3, -1), BINARY
    )


@pytest.mark.parametrize(
    "given_set",
    [
        white([0, 1, 1, 0], [0, 1, 0, 0]),
        white([0, 1, 1, 0]),
        white([0, 0, 1, 1], [0, 0, 0, 1]),
        white([1, 0, 1, 1], [1, 0, 1, 1]),
        white([1, 1, 1, 1], [0, 0, 0, 0]),
        MaskSet.stack([white([0, 0, 0, 0]), white([1, 1, 0, 0])]),
        replace(white([0, 1, 1, 0]), labels=LabelSpace.of_classes(4)),
        replace(white([0, 1, 1, 0]), labels=LabelSpace(("a", "b"), background=None)),
    ],
)
def test_255_for_foreground_is_refused(given_set: MaskSet) -> None:
    with pytest.raises(
        AmbisegError, match=r"raters: masks hold 255.* \(masks > 0\).astype.*ignore_value=255"
    ):
        given_set.validate("raters")
    declared = replace(given_set.labels, ignore_value=255)
    assert replace(given_set, labels=declared).validate().labels is declared


@pytest.mark.parametrize("size", [(3, 4), (3, 5), (6, 4), (6, 5)])
@pytest.mark.parametrize("first", [0, 1])
def test_padding_of_empty_masks_is_no_undeclared_void(size: tuple[int, int], first: int) -> None:
    large, small = torch.zeros(1, 2, 6, 5, dtype=torch.uint8), torch.zeros(1, 1, *size, dtype=torch.uint8)
    large[0, 0, 0, 0] = first
    MaskSet.stack([MaskSet.uniform(large, BINARY), MaskSet.uniform(small, BINARY)]).validate()


def test_void_without_an_ignore_value_is_allowed_beside_foreground() -> None:
    masks = torch.tensor(
        [[[0, 1, 255, 0], [0, 0, 255, 0]], [[255, 0, 255, 0], [0, 255, 0, 0]]], dtype=torch.uint8
    )
    MaskSet.uniform(masks, BINARY).validate()


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_lower_foreground_threshold_adds_pixels_only(one: float, other: float) -> None:
    probabilities = torch.rand(2, 3, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    given_set = MaskSet.from_probabilities(probabilities, BINARY)
    low, high = given_set.rethreshold(min(one, other)), given_set.rethreshold(max(one, other))
    assert bool((low.masks >= high.masks).all())
    assert torch.equal(low.masks, (probabilities[:, :, 0] > min(one, other)).to(torch.uint8))
    assert torch.equal(low.weights, given_set.weights) and torch.equal(low.probabilities, probabilities)
    assert torch.equal(given_set.rethreshold(0.5).masks, given_set.masks)


def test_what_a_foreground_threshold_needs() -> None:
    with pytest.raises(AmbisegError, match="per-pixel probabilities"):
        MaskSet.uniform(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), BINARY).rethreshold(0.4)
    several = LabelSpace(("background", "a", "b"))
    with pytest.raises(AmbisegError, match="one class"):
        MaskSet.from_probabilities(torch.full((1, 1, 3, 2, 2), 1 / 3), several).rethreshold(0.4)
