"""Selection counts: against counting by hand from an optimal matching, closed forms and errors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from reference import Case, best_total, cases, laws, table

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import Comparison, selection_counts, selection_f1

MASKS = torch.tensor([[[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]], dtype=torch.uint8)
BINARY = LabelSpace.binary()


def proposals(*scores: float) -> MaskSet:
    count = len(scores)
    return MaskSet(MASKS[:, :count], torch.full((1, count), 1 / count), BINARY, torch.tensor([scores]))


@laws
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


@laws
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
