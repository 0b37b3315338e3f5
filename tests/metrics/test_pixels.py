"""Pixel-wise calibration: against sums pixel by pixel, closed forms, invariances, void and errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from reference import Case, cases, properties

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.pixels import PixelBins, ece, pixel_bins

BINARY = LabelSpace.binary()
Rows = list[tuple[float, float]]


def uniform(*masks: list[int], labels: LabelSpace = BINARY) -> MaskSet:
    return MaskSet.uniform(torch.tensor([masks], dtype=torch.uint8), labels)


def softened(case: Case, seed: int = 0) -> Case:
    """The case with probabilities beside the predictions' masks, some of them 0 and 1."""
    given = case.predictions
    generator = torch.Generator().manual_seed(seed)
    shape = (*given.masks.shape[:2], case.labels.classes, *given.masks.shape[2:])
    value = torch.rand(shape, generator=generator).pow(4) + 1e-3
    value = torch.where(torch.rand(shape, generator=generator) < 0.1, 1e9, value)
    value = value / value.sum(2, keepdim=True)
    channels = value[:, :, 1:] if case.labels.is_binary else value
    return replace(case, predictions=replace(given, probabilities=channels))


def shares(
    masks: NDArray[np.uint8], weights: NDArray[np.float64], at: tuple[int, ...], classes: int
) -> list[float] | None:
    """Share of each class at one pixel, None where all masks are void."""
    there = [(int(m[at]), w) for m, w in zip(masks, weights, strict=True) if m[at] != 255]
    mass = sum(w for _, w in there)
    return [sum(w for c, w in there if c == k) / mass for k in range(classes)] if there else None


def plain_rows(case: Case, b: int, kind: str) -> list[Rows]:
    """(confidence, target) of the pixels of image b that count, for each group of classes."""
    p, a = case.images[b]
    classes = case.labels.classes
    soft = case.predictions.probabilities
    if kind == "auto":
        kind = "foreground" if classes == 2 else "top1"
    chosen = {"foreground": [1], "classwise": list(range(1, classes)), "top1": [0]}[kind]
    groups: list[Rows] = [[] for _ in chosen]
    for at in np.ndindex(*p.masks.shape[1:]):
        theirs = shares(a.masks, a.weights, at, classes)
        ours = shares(p.masks, p.weights, at, classes)
        if soft is not None:
            value = soft[b, : len(p.masks)].double().numpy()[(slice(None), slice(None), *at)]
            mean = p.weights @ value
            ours = [1 - mean[0], mean[0]] if classes == 2 else list(mean)
        if ours is None or theirs is None:
            continue
        if kind == "top1":
            top = next(c for c in range(classes) if ours[c] > max(ours) - 1e-6)
            groups[0].append((ours[top], theirs[top]))
        else:
            for group, c in zip(groups, chosen, strict=True):
                group.append((ours[c], theirs[c]))
    return groups


def plain_bins(rows: Rows, bins: int) -> list[Rows]:
    binned: list[Rows] = [[] for _ in range(bins)]
    for confidence, target in rows:
        binned[min(bins - 1, int(np.floor(confidence * bins + 1e-5)))].append((confidence, target))
    return binned


def plain_error(groups: list[Rows], bins: int) -> float:
    errors = []
    for rows in groups:
        if not rows:
            return float("nan")
        parts = [np.array(part) for part in plain_bins(rows, bins) if part]
        gaps = [len(part) / len(rows) * abs(part[:, 1].mean() - part[:, 0].mean()) for part in parts]
        errors.append(sum(gaps))
    return float(np.mean(errors))


def kinds(case: Case) -> list[str]:
    return ["auto", "top1", "classwise", *(["foreground"] if case.labels.is_binary else [])]


@properties
@given(cases(), st.booleans(), st.sampled_from([1, 2, 4, 10]))
def test_bins_agree_with_sums_pixel_by_pixel(case: Case, soft: bool, bins: int) -> None:
    case = softened(case) if soft else case
    for kind in kinds(case):
        found = pixel_bins(case.predictions, case.annotations, bins, kind)
        assert found.confidence.dtype == found.target.dtype == torch.float64
        assert found.count.dtype == torch.int64
        for b in range(len(case.images)):
            groups = plain_rows(case, b, kind)
            assert found.count.shape == (len(case.images), len(groups), bins)
            for g, rows in enumerate(groups):
                parts = plain_bins(rows, bins)
                assert found.count[b, g].tolist() == [len(part) for part in parts]
                for i, sums in enumerate((found.confidence, found.target)):
                    wanted = [sum(row[i] for row in part) for part in parts]
                    np.testing.assert_allclose(sums[b, g].numpy(), wanted, atol=1e-6)


@properties
@given(cases(), st.booleans(), st.sampled_from([1, 3, 10]))
def test_error_agrees_with_the_mean_gap(case: Case, soft: bool, bins: int) -> None:
    case = softened(case) if soft else case
    for kind in kinds(case):
        value = ece(case.predictions, case.annotations, bins, kind)
        assert value.dtype == torch.float32
        groups = [plain_rows(case, b, kind) for b in range(len(case.images))]
        np.testing.assert_allclose(value.numpy(), [plain_error(g, bins) for g in groups], atol=1e-6)
        pooled = pixel_bins(case.predictions, case.annotations, bins, kind).pooled().error()
        together = [sum(column, []) for column in zip(*groups, strict=True)]
        np.testing.assert_allclose(pooled.numpy(), [plain_error(together, bins)], atol=1e-6)


@properties
@given(cases())
def test_the_truth_is_calibrated(case: Case) -> None:
    for kind in kinds(case):
        value = ece(case.annotations, case.annotations, kind=kind)
        assert bool((value.isnan() | (value.abs() < 1e-6)).all())


@properties
@given(cases(), st.booleans())
def test_order_and_duplicates_do_not_matter(case: Case, soft: bool) -> None:
    case = softened(case) if soft else case
    given = case.predictions
    order = torch.randperm(given.masks.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = given.gather(order.repeat(len(given), 1))
    twice = given.gather(torch.arange(given.masks.shape[1]).repeat(len(given), 2)).normalised()
    for kind in kinds(case):
        value = ece(given, case.annotations, kind=kind)
        for other in (shuffled, twice):
            torch.testing.assert_close(
                ece(other, case.annotations, kind=kind), value, atol=1e-6, rtol=0, equal_nan=True
            )


@properties
@given(cases(), st.booleans())
def test_bins_of_parts_add_up(case: Case, soft: bool) -> None:
    case = softened(case) if soft else case
    for kind in kinds(case):
        whole = pixel_bins(case.predictions, case.annotations, kind=kind)
        total: PixelBins | None = None
        for b in range(len(case.images)):
            part = pixel_bins(case.predictions[b], case.annotations[b], kind=kind).pooled()
            total = part if total is None else total + part
        assert total is not None
        for name in ("confidence", "target", "count"):
            torch.testing.assert_close(getattr(total, name), getattr(whole.pooled(), name))
        doubled = whole + whole
        assert torch.equal(doubled.count, 2 * whole.count)
        torch.testing.assert_close(doubled.error(), whole.error(), equal_nan=True)


@properties
@given(cases(void=False), st.booleans())
def test_pooling_only_lowers_the_error(case: Case, soft: bool) -> None:
    case = softened(case) if soft else case
    for kind in kinds(case):
        bins = pixel_bins(case.predictions, case.annotations, kind=kind)
        assert float(bins.pooled().error()) <= float(bins.error().mean()) + 1e-6
        assert bool(((bins.error() >= 0) & (bins.error() <= 1 + 1e-6)).all())


@properties
@given(cases())
def test_more_bins_of_a_refinement_only_raise_the_error(case: Case) -> None:
    coarse, fine = (ece(case.predictions, case.annotations, bins) for bins in (3, 12))
    assert bool((coarse.isnan() | (coarse <= fine + 1e-6)).all())


@properties
@given(cases())
def test_one_comparison_does_for_both(case: Case) -> None:
    both = Comparison(case.predictions, case.annotations)
    torch.testing.assert_close(ece(both), ece(case.predictions, case.annotations), equal_nan=True)


@pytest.mark.parametrize("confidence", [0.55, 0.75, 0.95, 1.0])
def test_constant_over_confidence_is_its_gap(confidence: float) -> None:
    truth = uniform([1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0])
    sure = MaskSet.from_probabilities(torch.full((1, 3, 1, 4), confidence), BINARY)
    for kind in ("foreground", "top1", "classwise"):
        assert ece(sure, truth, kind=kind).item() == pytest.approx(confidence - 0.5, abs=1e-6)
    three = LabelSpace.of_classes(3)
    rest = (1 - confidence) / 2
    probabilities = torch.tensor([rest, confidence, rest]).view(1, 1, 3, 1).expand(1, 2, 3, 4)
    value = ece(MaskSet.from_probabilities(probabilities, three), replace(truth, labels=three))
    assert value.item() == pytest.approx(confidence - 0.5, abs=1e-6)


def test_the_recipe_for_switchable_classes_counts_pixels_that_are_predicted_so() -> None:
    """MoSE's: class 2 is the most probable one of two of four pixels, with confidences .6 and .8; the first is
    class 1 in truth. Voiding what is not annotated as class 2 would count other pixels."""
    labels = LabelSpace.of_classes(3, ignore_value=255)
    truth = uniform([1, 2, 2, 0], labels=labels)
    share = torch.tensor([[0, 0.4, 0.6], [0, 0.2, 0.8], [0, 0.9, 0.1], [1, 0, 0]])
    predictions = MaskSet.from_probabilities(share.T[None, None], labels)
    expected = (abs(0.6 - 0) + abs(0.8 - 1)) / 4
    counted = labels.decide(predictions.mean())[:, None] == 2
    recipe = replace(truth, masks=torch.where(counted, truth.masks, labels.void))
    value = ece(predictions, recipe) * counted.float().mean()
    assert value.item() == pytest.approx(expected, abs=1e-6)
    other = replace(truth, masks=torch.where(truth.masks == 2, truth.masks, labels.void))
    assert ece(predictions, other).item() == pytest.approx((abs(0.8 - 1) + abs(0.9 - 0)) / 2, abs=1e-6)


def test_groups_are_averaged_and_kinds_differ() -> None:
    three = LabelSpace.of_classes(3)
    truth = uniform([1, 1, 2, 2], labels=three)
    wrong = uniform([1, 1, 1, 2], labels=three)
    assert ece(wrong, truth).item() == 0.25
    assert ece(wrong, truth, kind="classwise").item() == 0.25
    bins = pixel_bins(wrong, truth, bins=2, kind="classwise")
    assert bins.count.tolist() == [[[1, 3], [3, 1]]]
    assert bins.target.tolist() == [[[0, 2], [1, 1]]]
    one = replace(bins, confidence=bins.confidence.roll(1, 1) * 0)
    assert one.error().item() == 0.5
    everything = LabelSpace(("a", "b"), background=None)
    assert pixel_bins(uniform([1, 0], labels=everything), uniform([1, 1], labels=everything), 2,
                      "classwise").target.tolist() == [[[0, 0], [1, 1]]]  # fmt: skip


def test_edges_of_bins() -> None:
    tenths = torch.arange(11)
    masks = (torch.arange(10)[:, None] < tenths).to(torch.uint8)[None]
    count = pixel_bins(MaskSet.uniform(masks, BINARY), MaskSet.uniform(masks, BINARY)).count
    assert count.tolist() == [[[1] * 9 + [2]]]
    for share in (0.1, 0.3, 0.6, 0.7, 0.9):
        two = MaskSet(masks[:, :2, 1:2], torch.tensor([[share, 1 - share]]), BINARY)
        assert pixel_bins(two, two).count[0, 0].argmax() == round(share * 10)


def test_of_tied_classes_the_lowest_is_most_probable() -> None:
    labels = LabelSpace.of_classes(4)
    third = uniform([3, 2], [1, 3], [2, 3], labels=labels)
    bins = pixel_bins(third, uniform([1, 2], labels=labels), bins=2)
    assert bins.count.tolist() == [[[1, 1]]]
    np.testing.assert_allclose(bins.target.numpy(), [[[1, 0]]])
    np.testing.assert_allclose(bins.confidence.numpy(), [[[1 / 3, 2 / 3]]], rtol=1e-6)


def test_probabilities_count_where_kept_and_masks_elsewhere() -> None:
    truth = uniform([1, 0], [1, 0], [0, 0], [0, 0])
    kept = MaskSet.from_probabilities(torch.tensor([[[[0.9, 0.2]], [[0.1, 0.2]]]]), BINARY)
    assert ece(kept, truth).item() == pytest.approx(0.1, abs=1e-6)
    assert ece(kept.hard(), truth).item() == 0
    annotations = MaskSet.from_probabilities(torch.tensor([[[[0.9, 0.2]]]]), BINARY)
    assert ece(uniform([1, 0]), annotations).item() == 0


def test_void_pixels_leave_only_their_masks_out() -> None:
    labels = LabelSpace.binary(ignore_value=255)
    truth = uniform([1, 1, 255, 255], [0, 255, 0, 255], labels=labels)
    predictions = uniform([1, 1, 1, 0], [0, 0, 255, 0], labels=labels)
    bins = pixel_bins(predictions, truth, bins=2)
    assert bins.count.tolist() == [[[0, 3]]]
    assert bins.target.tolist() == [[[0, 0.5 + 1 + 0]]]
    assert bins.confidence.tolist() == [[[0, 0.5 + 0.5 + 1]]]
    gone = uniform([255, 255, 255, 255], labels=labels)
    assert bool(ece(predictions, gone).isnan().all()) and bool(ece(gone, truth).isnan().all())
    curve = pixel_bins(predictions, gone).curve()
    assert bool(torch.stack(curve).isnan().all())
    two = Comparison(MaskSet.stack([predictions, predictions]), MaskSet.stack([truth, gone]))
    assert pixel_bins(two).pooled().error().item() == pytest.approx(float(ece(predictions, truth)))


def test_curve_is_the_mean_of_each_bin() -> None:
    truth = uniform([1, 1, 0, 0], [1, 0, 0, 0])
    soft = MaskSet.from_probabilities(torch.tensor([[[[0.8, 0.6, 0.1, 0.3]]]]), BINARY)
    confidence, target = pixel_bins(soft, truth, bins=2).curve()
    np.testing.assert_allclose(confidence.numpy(), [[[0.2, 0.7]]], atol=1e-6)
    np.testing.assert_allclose(target.numpy(), [[[0, 0.75]]])
    confidence, target = pixel_bins(soft, truth, bins=4).curve()
    np.testing.assert_allclose(confidence.numpy(), [[[0.1, 0.3, 0.6, 0.8]]], atol=1e-6)
    empty = pixel_bins(soft, truth, bins=5).curve()[1][0, 0].isnan()
    assert empty.tolist() == [False, False, True, False, False]


def test_values_are_exact_inside_autocast_and_of_half_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(2, 7, 400, generator=generator) > 0.4).to(torch.uint8)
    sets = MaskSet.uniform(masks, BINARY), MaskSet.uniform(masks[:, :4], BINARY)
    outside = pixel_bins(*sets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pixel_bins(*sets)
    assert torch.equal(inside.confidence, outside.confidence) and torch.equal(inside.target, outside.target)
    half = torch.full((1, 9, 1, 4), 0.3).half()
    kept = MaskSet(masks[:1, :1, :4].expand(1, 9, 4), torch.full((1, 9), 1 / 9), BINARY, None, half)
    value = pixel_bins(kept, uniform([1, 0, 0, 0])).confidence.sum().item()
    assert value == pytest.approx(4 * float(half[0, 0, 0, 0]), abs=1e-6)


def test_volumes_are_flattened_images() -> None:
    flat = torch.randint(0, 3, (2, 3, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = LabelSpace.of_classes(3)
    line, volume = MaskSet.uniform(flat, labels), MaskSet.uniform(flat.view(2, 3, 2, 3, 4), labels)
    assert torch.equal(ece(line.top(2), line), ece(volume.top(2), volume))


def test_wrong_arguments_are_refused() -> None:
    one = uniform([1, 0])
    with pytest.raises(UnknownNameError, match="kind 'foregruond': did you mean 'foreground'"):
        pixel_bins(one, one, kind="foregruond")
    with pytest.raises(AmbisegError, match="bins must be at least 1, received 0"):
        ece(one, one, bins=0)
    three = uniform([1, 0], labels=LabelSpace.of_classes(3))
    with pytest.raises(AmbisegError, match="kind 'foreground' is for two classes, received 3"):
        ece(three, three, kind="foreground")
    with pytest.raises(AmbisegError, match="pass both"):
        ece(one)
    with pytest.raises(AmbisegError, match="bins of shape .* cannot be added"):
        pixel_bins(one, one) + pixel_bins(one, one, bins=5)
