"""Calibration of modes: against sums by entry, closed forms, errors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Case, cases, properties, table

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import (
    ASSIGNMENTS,
    brier_scores,
    brier_skill_score,
    mode_kl,
    mode_probabilities,
    mode_ratio,
    mode_reliability,
    total_variation,
)
from ambiseg.metrics.comparison import Comparison

MASKS = torch.tensor([[[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]], dtype=torch.uint8)
BINARY = LabelSpace.binary()


def weighted(weights: list[float], entries: list[int] | None = None) -> MaskSet:
    masks = MASKS[:, entries if entries is not None else list(range(len(weights)))]
    return MaskSet(masks, torch.tensor([weights]), BINARY)


def entries(case: Case, b: int) -> list[tuple[float, float, float]]:
    """(estimated, true, uniform guess) of each entry of image b."""
    p, a = case.images[b]
    modes = a.merged()
    partner = Comparison(case.predictions, case.annotations).partners[b].tolist()
    count, rows = len(modes.masks), []
    for k, weight in enumerate(p.weights):
        j = partner[k]
        rows.append((weight, modes.weights[j], 1 / count) if j >= 0 else (weight, 0.0, 0.0))
    rows += [(0.0, modes.weights[j], 1 / count) for j in range(count) if j not in partner]
    assert len(rows) == max(len(p.masks), count)
    return rows


@properties
@given(cases())
def test_brier_scores_agree_with_sums_by_entry(case: Case) -> None:
    scores = brier_scores(case.predictions, case.annotations)
    skill = brier_skill_score(case.predictions, case.annotations)
    for b in range(len(case.images)):
        rows = np.array(entries(case, b))
        error, guess = ((rows[:, 0] - rows[:, 1]) ** 2).mean(), ((rows[:, 2] - rows[:, 1]) ** 2).mean()
        assert scores.score[b].item() == pytest.approx(error, abs=1e-6)
        assert scores.uniform[b].item() == pytest.approx(guess, abs=1e-6)
        if guess < 1e-10:
            assert bool(skill[b].isnan())
        else:
            assert skill[b].item() == pytest.approx(1 - error / guess, rel=1e-3, abs=1e-4)


@properties
@given(cases())
def test_entries_are_two_distributions(case: Case) -> None:
    pairs = mode_probabilities(case.predictions, case.annotations)
    ones = torch.ones(len(case.images))
    torch.testing.assert_close((pairs.estimated * pairs.there).sum(1), ones)
    torch.testing.assert_close((pairs.true * pairs.is_mode).sum(1), ones)
    modes = case.annotations.merge_identical().count
    assert torch.equal(pairs.there.sum(1), torch.maximum(case.predictions.count, modes))
    assert torch.equal(pairs.is_mode.sum(1), modes)
    assert bool((pairs.there | ~pairs.is_mode).all())


@properties
@given(cases())
def test_the_truth_has_full_skill(case: Case) -> None:
    void = (
        case.labels.ignore_value is not None
    )  # different masks may have an IoU of 1, and the first of them is the nearest
    for assignment in ("matched",) if void else ASSIGNMENTS:
        skill = brier_skill_score(case.annotations.merge_identical(), case.annotations, assignment)
        assert bool((skill.isnan() | (skill > 1 - 1e-5)).all())


def test_closed_forms() -> None:
    truth = weighted([0.75, 0.25])
    assert brier_skill_score(weighted([0.5, 0.5]), truth).item() == pytest.approx(0, abs=1e-5)
    assert brier_skill_score(weighted([0.25, 0.75]), truth).item() == pytest.approx(-3, abs=1e-4)
    missing = brier_scores(weighted([1.0]), truth)
    assert missing.score.item() == (0.25**2 + 0.25**2) / 2
    wrong = brier_scores(weighted([0.5, 0.25, 0.25]), truth)
    assert wrong.score.item() == pytest.approx((0.25**2 + 0 + 0.25**2) / 3)
    assert wrong.uniform.item() == pytest.approx((0.25**2 + 0.25**2) / 3)


def test_pairing_is_by_mask_and_not_by_position() -> None:
    turned = weighted([0.25, 0.75], [1, 0])
    assert brier_skill_score(turned, weighted([0.75, 0.25])).item() == 1


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
def test_equally_probable_modes_allow_no_skill(weights: list[float]) -> None:
    assert bool(brier_skill_score(weighted([0.9, 0.1]), weighted(weights)).isnan())


@properties
@given(cases())
def test_reliability_bins_hold_all_entries(case: Case) -> None:
    result = mode_reliability(case.predictions, case.annotations, bins=4)
    rows = np.array([row for b in range(len(case.images)) for row in entries(case, b)])
    np.testing.assert_allclose(np.sort(result.estimated.numpy()), np.sort(rows[:, 0]), atol=1e-6)
    np.testing.assert_allclose(np.sort(result.true.numpy()), np.sort(rows[:, 1]), atol=1e-6)
    assert int(result.bin_count.sum()) == len(rows)
    full = result.bin_count > 0
    total = (result.bin_true[full] * result.bin_count[full]).sum()
    torch.testing.assert_close(total, torch.tensor(float(len(case.images))))
    low, high = torch.arange(4) / 4, torch.arange(1, 5) / 4
    inside = (result.bin_estimated >= low - 1e-6) & (result.bin_estimated <= high + 1e-6)
    assert bool((inside | ~full).all())
    assert bool(result.bin_true[~full].isnan().all())


def test_reliability_needs_a_bin() -> None:
    with pytest.raises(AmbisegError, match="bin"):
        mode_reliability(weighted([1.0]), weighted([1.0]), bins=0)


def nearest_entries(case: Case, b: int) -> list[tuple[float, float, float]]:
    """(estimated, true, uniform guess) of each mode of image b, every prediction counted for its nearest."""
    p, a = case.images[b]
    modes = a.merged()
    estimated = [0.0] * len(modes.masks)
    for row, weight in zip(table(p, modes, case.labels), p.weights, strict=True):
        estimated[next(j for j, iou in enumerate(row) if iou > max(row) - 1e-6)] += weight
    return [(u, v, 1 / len(estimated)) for u, v in zip(estimated, modes.weights, strict=True)]


def all_entries(case: Case, b: int, assignment: str) -> np.ndarray:
    return np.array((nearest_entries if assignment == "nearest" else entries)(case, b))


def reweighted(case: Case, seed: int) -> tuple[MaskSet, MaskSet]:
    """The modes of the annotations with other weights, and as they are."""
    modes = case.annotations.merge_identical()
    chance = torch.rand(modes.weights.shape, generator=torch.Generator().manual_seed(seed)) + 0.01
    return replace(modes, weights=chance * modes.present).normalised(), modes


@properties
@given(cases())
def test_nearest_modes_agree_with_trying_all(case: Case) -> None:
    ratio = mode_ratio(case.predictions, case.annotations)
    pair = Comparison(case.predictions, case.annotations)
    other = mode_probabilities(pair, assignment="nearest")
    for name in ("estimated", "true", "is_mode", "there"):
        assert torch.equal(getattr(ratio, name), getattr(other, name))
    assert ratio.estimated.shape == pair.modes.weights.shape
    assert torch.equal(ratio.there, pair.modes.present) and torch.equal(ratio.is_mode, ratio.there)
    for b in range(len(case.images)):
        rows = np.array(nearest_entries(case, b))
        np.testing.assert_allclose(ratio.estimated[b, : len(rows)].numpy(), rows[:, 0], atol=1e-6)
        np.testing.assert_allclose(ratio.true[b, : len(rows)].numpy(), rows[:, 1], atol=1e-6)
        assert float(ratio.estimated[b, len(rows) :].sum()) == 0


@properties
@given(cases(void=False), st.integers(0, 1000))
def test_exact_copies_have_the_ratio_of_their_weights(case: Case, seed: int) -> None:
    predictions, modes = reweighted(case, seed)
    for copies in (
        predictions,
        predictions.gather(torch.arange(modes.masks.shape[1]).flip(0).repeat(len(modes), 1)),
    ):
        ratio = mode_ratio(copies, case.annotations)
        torch.testing.assert_close(ratio.estimated, predictions.weights)
    same = mode_ratio(case.annotations, case.annotations)
    torch.testing.assert_close(same.estimated, same.true)


@properties
@given(cases())
def test_brier_scores_of_nearest_modes_agree_with_sums_by_entry(case: Case) -> None:
    scores = brier_scores(case.predictions, case.annotations, assignment="nearest")
    skill = brier_skill_score(case.predictions, case.annotations, assignment="nearest")
    torch.testing.assert_close(skill, scores.skill(), equal_nan=True)
    for b in range(len(case.images)):
        rows = np.array(nearest_entries(case, b))
        assert scores.score[b].item() == pytest.approx(((rows[:, 0] - rows[:, 1]) ** 2).mean(), abs=1e-6)
        assert scores.uniform[b].item() == pytest.approx(((rows[:, 2] - rows[:, 1]) ** 2).mean(), abs=1e-6)


@properties
@given(cases(), st.sampled_from(["matched", "nearest"]), st.sampled_from([1e-6, 1e-3, 0.3]))
def test_distances_of_probabilities_agree_with_sums_by_entry(
    case: Case, assignment: str, floor: float
) -> None:
    sets = (case.predictions, case.annotations)
    variation = total_variation(*sets, assignment=assignment)
    divergence = mode_kl(*sets, assignment=assignment, floor=floor)
    assert variation.dtype == divergence.dtype == torch.float32
    for b in range(len(case.images)):
        rows = all_entries(case, b, assignment)
        assert variation[b].item() == pytest.approx(np.abs(rows[:, 0] - rows[:, 1]).sum() / 2, abs=1e-6)
        wanted = sum(v * math.log(v / max(u, floor)) for u, v, _ in rows if v > 0)
        assert divergence[b].item() == pytest.approx(wanted, abs=2e-6)


@properties
@given(cases(), st.sampled_from(["matched", "nearest"]))
def test_bounds_of_distances_of_probabilities(case: Case, assignment: str) -> None:
    sets = (case.predictions, case.annotations)
    variation, divergence = total_variation(*sets, assignment), mode_kl(*sets, assignment)
    assert bool(((variation >= 0) & (variation <= 1 + 1e-6)).all())
    assert bool((divergence <= math.log(1e6)).all())
    assert bool((divergence >= 2 * variation**2 - 1e-4).all()), "Pinsker's inequality"


@properties
@given(cases(void=False), st.integers(0, 1000))
def test_total_variation_is_symmetric_and_kl_zero_for_equal_only(case: Case, seed: int) -> None:
    p, q = reweighted(case, seed)
    there, back = total_variation(p, q), total_variation(q, p)
    torch.testing.assert_close(there, back)
    square = ((p.weights - q.weights).square() / p.weights.clamp(min=1e-30)).sum(1)
    divergence = mode_kl(p, q)
    assert bool((divergence <= square + 1e-6).all()) and bool((divergence >= 2 * there**2 - 1e-6).all())
    for assignment in ("matched", "nearest"):
        torch.testing.assert_close(total_variation(q, q, assignment), torch.zeros(len(q)))
        torch.testing.assert_close(mode_kl(q, q, assignment), torch.zeros(len(q)))


def test_closed_forms_of_distances() -> None:
    truth = weighted([0.75, 0.25])
    assert total_variation(weighted([1.0], [1]), truth).item() == 0.75
    assert total_variation(weighted([1.0], [1]), weighted([1 - 1e-7, 1e-7])).item() == pytest.approx(1)
    assert total_variation(weighted([0.25, 0.75]), truth).item() == 0.5
    even = mode_kl(weighted([0.5, 0.5]), truth).item()
    assert even == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)
    missed = mode_kl(weighted([1.0], [1]), truth, floor=1e-3).item()
    assert missed == pytest.approx(0.75 * math.log(750) + 0.25 * math.log(0.25), abs=1e-5)
    extra = weighted([0.5, 0.25, 0.25])
    assert total_variation(extra, truth, assignment="matched").item() == 0.25
    assert total_variation(extra, truth).item() == 0, "the empty mask counts for the first mode"


def test_a_tie_goes_to_the_first_mode() -> None:
    empty, truth = weighted([1.0], [2]), weighted([0.75, 0.25])
    assert mode_ratio(empty, truth).estimated.tolist() == [[1, 0]]
    assert mode_ratio(empty, weighted([0.25, 0.75], [1, 0])).estimated.tolist() == [[1, 0]]


def test_several_predictions_of_one_mode_add_up() -> None:
    predictions = weighted([0.25, 0.25, 0.5], [0, 0, 1])
    ratio = mode_ratio(predictions, weighted([0.5, 0.5]))
    assert ratio.estimated.tolist() == [[0.5, 0.5]]
    assert brier_scores(predictions, weighted([0.5, 0.5]), assignment="nearest").score.item() == 0
    assert brier_scores(predictions, weighted([0.5, 0.5])).score.item() > 0


def nested(*pixels: int) -> MaskSet:
    """Masks of so many pixels of 100, each inside the larger ones; weights 1, 2, ... over their sum."""
    masks = (
        (torch.arange(100) < torch.tensor(pixels)[:, None]).to(torch.uint8).reshape(1, len(pixels), 10, 10)
    )
    weights = torch.arange(1.0, len(pixels) + 1)
    return MaskSet(masks, (weights / weights.sum())[None], BINARY)


def test_modes_that_are_alike_count_as_one() -> None:
    """80 is like 83 and 83 like 87, 80 not like 87: 87, the most probable, stands for 83 and itself."""
    truth = nested(80, 60, 83, 87)
    found = MaskSet.uniform(
        truth.masks[:, [2, 2, 1]], BINARY
    )  # 83 is nearer to 80 than to 87, and counts with 87
    pairs = mode_probabilities(found, truth, "merged")
    assert pairs.there.tolist() == pairs.is_mode.tolist() == [[True, True, False, True]]
    torch.testing.assert_close(pairs.true[pairs.there], torch.tensor([0.1, 0.2, 0.7]))
    torch.testing.assert_close(pairs.estimated[pairs.there], torch.tensor([0.0, 1 / 3, 2 / 3]))
    error, guess = (
        0.1**2 + (1 / 3 - 0.2) ** 2 + (0.7 - 2 / 3) ** 2,
        sum((1 / 3 - p) ** 2 for p in (0.1, 0.2, 0.7)),
    )
    skill = brier_skill_score(found, truth, "merged")
    torch.testing.assert_close(skill, torch.tensor([1 - error / guess]), atol=1e-6, rtol=0)


def test_a_swap_of_alike_modes_is_forgiven_and_one_of_others_is_not() -> None:
    truth = nested(80, 60, 83)
    for order, forgiven in (([2, 1, 0], True), ([1, 0, 2], False)):
        swapped = MaskSet(truth.masks[:, order], truth.weights, BINARY)
        assert float(brier_skill_score(swapped, truth, "nearest")) < 0.5
        assert (float(brier_skill_score(swapped, truth, "merged")) > 1 - 1e-5) == forgiven


@properties
@given(cases())
def test_merging_changes_nothing_where_no_modes_are_alike(case: Case) -> None:
    pair = Comparison(case.predictions, case.annotations)
    apart = mode_probabilities(pair, assignment="merged").there.sum(1) == pair.modes.count
    nearest, merged = (brier_scores(pair, assignment=way) for way in ("nearest", "merged"))
    torch.testing.assert_close(nearest.score[apart], merged.score[apart])
    torch.testing.assert_close(nearest.uniform[apart], merged.uniform[apart])


def test_wrong_arguments_are_refused() -> None:
    one = weighted([1.0])
    for metric in (mode_probabilities, brier_scores, brier_skill_score, total_variation, mode_kl):
        with pytest.raises(UnknownNameError, match="assignment 'neares': did you mean 'nearest'"):
            metric(one, one, assignment="neares")
    for floor in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(AmbisegError, match="floor must lie between 0 and 1"):
            mode_kl(one, one, floor=floor)
