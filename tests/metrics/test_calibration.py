"""Brier skill score: against entry-by-entry sums, closed forms, and the cases in which it has no meaning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from reference import Case, cases, laws

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Comparison, brier_scores, brier_skill_score, mode_probabilities, mode_reliability

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


@laws
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


@laws
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


@laws
@given(cases())
def test_the_truth_has_full_skill(case: Case) -> None:
    skill = brier_skill_score(case.annotations.merge_identical(), case.annotations)
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


@laws
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
