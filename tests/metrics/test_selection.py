"""Selection counts and rankings: against counting by hand from an optimal matching, closed forms and
errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Case, best_total, cases, properties, table

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Comparison, hm_iou_unique, selection_counts, selection_f1
from ambiseg.metrics.selection import (
    SelectionCounts,
    average_precision,
    coverage_curve,
    precision_recall_curve,
    selection_ap,
    selection_precision,
    selection_ranking,
    selection_recall,
)
from ambiseg.mode_probabilities.representative_masks import select_and_represent

MASKS = torch.tensor([[[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]], dtype=torch.uint8)
BINARY = LabelSpace.binary()


def proposals(*scores: float) -> MaskSet:
    count = len(scores)
    return MaskSet(MASKS[:, :count], torch.full((1, count), 1 / count), BINARY, torch.tensor([scores]))


@properties
@given(cases())
def test_counts_follow_from_an_optimal_matching(case: Case) -> None:
    pair = Comparison(case.predictions, case.annotations)
    counts = selection_counts(pair, threshold=0.4)
    for b, (p, a) in enumerate(case.images):
        modes = a.merged()
        iou = table(p, modes, case.labels)
        partner = [(k, int(j)) for k, j in enumerate(pair.partners[b]) if j >= 0]
        assert len({j for _, j in partner}) == len(partner) == min(len(p.masks), len(modes.masks))
        assert sum(iou[k, j] for k, j in partner) == pytest.approx(best_total(iou), abs=1e-5)
        matched = {k for k, _ in partner}
        kept = {k for k, score in enumerate(p.scores) if score > 0.4}
        found = (int(counts.tp[b]), int(counts.fp[b]), int(counts.fn[b]))
        assert found == (len(kept & matched), len(kept - matched), len(matched - kept))


@properties
@given(cases())
def test_f1_is_the_harmonic_mean_of_precision_and_recall(case: Case) -> None:
    counts = selection_counts(case.predictions, case.annotations)
    precision, recall = (counts.tp / (counts.tp + wrong) for wrong in (counts.fp, counts.fn))
    harmonic = 2 * precision * recall / (precision + recall)
    torch.testing.assert_close(
        selection_f1(case.predictions, case.annotations),
        torch.where(counts.tp > 0, harmonic, 0.0),
    )


def test_closed_forms() -> None:
    truth = MaskSet.uniform(MASKS[:, :2], BINARY)
    assert selection_f1(proposals(0.9, 0.8, 0.1, 0.2), truth).item() == 1
    assert selection_f1(proposals(0.1, 0.2, 0.8, 0.9), truth).item() == 0
    assert selection_f1(proposals(0.9, 0.9, 0.9, 0.9), truth).item() == pytest.approx(2 / 3)
    assert selection_f1(proposals(0.5, 0.5, 0.1, 0.1), truth).item() == 0, (
        "a score at the threshold is not kept"
    )


def test_duplicate_annotations_count_once() -> None:
    twice = MaskSet.uniform(MASKS[:, [0, 0, 0, 1]], BINARY)
    counts = selection_counts(proposals(0.9, 0.9, 0.1, 0.1), twice)
    assert (counts.tp.item(), counts.fp.item(), counts.fn.item()) == (2, 0, 0)


def test_scores_are_needed() -> None:
    with pytest.raises(AmbisegError, match="no selection scores"):
        selection_f1(MaskSet.uniform(MASKS, BINARY), MaskSet.uniform(MASKS, BINARY))


def plain_average_precision(scores: np.ndarray, matched: np.ndarray) -> float:
    total = before = 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        kept = scores >= threshold
        recall = (kept & matched).sum() / matched.sum()
        total += (recall - before) * (kept & matched).sum() / kept.sum()
        before = recall
    return total


def coarse(case: Case) -> Case:
    """The same case with scores of one digit, so that ties happen."""
    for p, _ in case.images:
        p.scores = np.round(p.scores * 4) / 4
    scores = torch.zeros_like(case.predictions.weights)
    for b, (p, _) in enumerate(case.images):
        scores[b, : len(p.scores)] = torch.from_numpy(p.scores)
    return replace(case, predictions=replace(case.predictions, scores=scores))


@properties
@given(cases())
def test_precision_and_recall_against_counting(case: Case) -> None:
    pair = Comparison(case.predictions, case.annotations)
    precision, recall = selection_precision(pair, threshold=0.4), selection_recall(pair, threshold=0.4)
    for b, (p, _) in enumerate(case.images):
        matched = {k for k, j in enumerate(pair.partners[b]) if j >= 0}
        kept = {k for k, score in enumerate(p.scores) if score > 0.4}
        both = len(kept & matched)
        assert precision[b].item() == pytest.approx(both / len(kept) if kept else 0.0, abs=1e-6)
        assert recall[b].item() == pytest.approx(both / len(matched), abs=1e-6)


@properties
@given(cases())
def test_average_precision_against_thresholds_one_by_one(given_case: Case) -> None:
    case = coarse(given_case)
    pair = Comparison(case.predictions, case.annotations)
    value = selection_ap(pair)
    assert value.dtype == torch.float32
    scores, matched = [], []
    for b, (p, _) in enumerate(case.images):
        hit = pair.partners[b, : len(p.scores)].numpy() >= 0
        assert value[b].item() == pytest.approx(plain_average_precision(p.scores, hit), abs=1e-6)
        scores.append(p.scores)
        matched.append(hit)
    ranking = selection_ranking(pair)
    np.testing.assert_allclose(ranking.scores.numpy(), np.concatenate(scores))
    np.testing.assert_array_equal(ranking.matched.numpy(), np.concatenate(matched))
    pooled = plain_average_precision(np.concatenate(scores), np.concatenate(matched))
    assert average_precision(ranking.scores, ranking.matched).item() == pytest.approx(pooled, abs=1e-6)


@properties
@given(cases())
def test_curve_holds_every_threshold(given_case: Case) -> None:
    ranking = selection_ranking((case := coarse(given_case)).predictions, case.annotations)
    curve = precision_recall_curve(ranking.scores, ranking.matched)
    assert curve.thresholds.tolist() == sorted(set(ranking.scores.tolist()), reverse=True)
    assert curve.recall[-1] == 1
    for threshold, precision, recall in zip(curve.thresholds, curve.precision, curve.recall, strict=True):
        kept = ranking.scores >= threshold
        tp = (kept & ranking.matched).sum().item()
        assert precision.item() == pytest.approx(tp / kept.sum().item())
        assert recall.item() == pytest.approx(tp / ranking.matched.sum().item())


@properties
@given(cases())
def test_average_precision_takes_order_only(case: Case) -> None:
    pair = Comparison(case.predictions, case.annotations)
    ranking = selection_ranking(pair)
    same = average_precision(ranking.scores.double().exp() + 3, ranking.matched)
    torch.testing.assert_close(same, average_precision(ranking.scores, ranking.matched))
    constant = replace(case.predictions, scores=torch.ones_like(case.predictions.weights))
    share = torch.minimum(pair.predictions.count, pair.modes.count) / pair.predictions.count
    torch.testing.assert_close(selection_ap(constant, case.annotations), share)


def test_average_precision_closed_forms() -> None:
    scores = torch.tensor([0.9, 0.7, 0.5, 0.3])
    for matched, wanted in (
        ([1, 1, 0, 0], 1.0),
        ([0, 0, 1, 1], (1 / 3 + 2 / 4) / 2),
        ([0, 0, 0, 1], 1 / 4),
        ([1, 0, 0, 1], (1 + 2 / 4) / 2),
    ):
        assert average_precision(scores, torch.tensor(matched) > 0).item() == pytest.approx(wanted)
    assert average_precision(torch.ones(4), torch.tensor([True, False, False, False])).item() == 0.25
    assert average_precision(scores, torch.zeros(4, dtype=torch.bool)).isnan()
    assert average_precision(scores[:0], torch.zeros(0, dtype=torch.bool)).isnan()


def test_ranking_is_better_the_earlier_the_match() -> None:
    truth = MaskSet.uniform(MASKS[:, :2], BINARY)
    good, half, bad = (
        proposals(*scores) for scores in ([0.9, 0.8, 0.2, 0.1], [0.9, 0.2, 0.8, 0.1], [0.1, 0.2, 0.8, 0.9])
    )
    values = [selection_ap(given, truth).item() for given in (good, half, bad)]
    assert values == pytest.approx([1, (1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2])


@properties
@given(cases(), st.booleans())
def test_coverage_curve_against_every_subset_size(given_case: Case, scored: bool) -> None:
    case = coarse(given_case)
    ours = case.predictions if scored else replace(case.predictions, scores=None)
    curve = coverage_curve(ours, case.annotations)
    assert curve.shape == ours.weights.shape and curve.dtype == torch.float32
    for b, (p, a) in enumerate(case.images):
        value = p.scores if scored else ours.weights[b, : len(p.masks)].numpy()
        order = sorted(range(len(p.masks)), key=lambda k: -value[k])
        iou = table(p, a.merged(), case.labels)
        wanted = [best_total(iou[order[:k]]) / iou.shape[1] for k in range(1, len(order) + 1)]
        wanted += [wanted[-1]] * (curve.shape[1] - len(wanted))
        np.testing.assert_allclose(curve[b].numpy(), wanted, atol=1e-6)
    torch.testing.assert_close(curve[:, -1], hm_iou_unique(ours, case.annotations))
    assert bool((curve.diff(dim=1) >= -1e-6).all()), "more proposals never cover less"


@properties
@given(cases())
def test_coverage_curve_is_hm_iou_unique_of_those_kept(case: Case) -> None:
    curve = coverage_curve(case.predictions, case.annotations)
    ranked = case.predictions.scores.masked_fill(~case.predictions.present, -1).sort(1, descending=True)[0]
    for k in range(1, curve.shape[1] + 1):
        kept = select_and_represent(case.predictions, case.predictions.scores >= ranked[:, k - 1 : k])
        torch.testing.assert_close(curve[:, k - 1], hm_iou_unique(kept, case.annotations))


def test_coverage_curve_ignores_where_padding_stands() -> None:
    truth = MaskSet.uniform(MASKS[:, :2], BINARY)
    gap = MaskSet(
        MASKS[:, [2, 0, 1]], torch.tensor([[0.0, 0.5, 0.5]]), BINARY, torch.tensor([[0.9, 0.2, 0.8]])
    )
    assert coverage_curve(gap, truth).tolist() == [[0.5, 1.0, 1.0]]


def test_planted_faults_show() -> None:
    truth = MaskSet.uniform(MASKS[:, :2], BINARY)
    upside_down, right = proposals(0.1, 0.2, 0.8, 0.9), proposals(0.9, 0.8, 0.2, 0.1)
    for metric in (selection_precision, selection_recall, selection_ap):
        assert metric(upside_down, truth).item() < metric(right, truth).item()
    assert bool((coverage_curve(upside_down, truth) <= coverage_curve(right, truth)).all())
    assert coverage_curve(upside_down, truth)[0, 1] < coverage_curve(right, truth)[0, 1]
    assert selection_precision(proposals(0.1, 0.1, 0.1, 0.1), truth).item() == 0


def test_empty_counts_are_zero_not_nan() -> None:
    nothing = SelectionCounts(*(torch.zeros(1, dtype=torch.int64) for _ in range(3)))
    assert nothing.precision().item() == nothing.recall().item() == 0


def test_wrong_rankings_are_refused() -> None:
    bare = MaskSet.uniform(MASKS, BINARY)
    for metric in (selection_precision, selection_recall, selection_ranking, selection_ap):
        with pytest.raises(AmbisegError, match="no selection scores"):
            metric(bare, bare)
    for scores, matched in ((torch.rand(3), torch.ones(2)), (torch.rand(2, 2), torch.ones(2, 2))):
        with pytest.raises(AmbisegError, match="equal length"):
            average_precision(scores, matched)
