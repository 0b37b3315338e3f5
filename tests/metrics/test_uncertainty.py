"""NCC: closed forms, what it must not depend on, and a planted fault."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import ncc

BINARY, VOID = LabelSpace.binary(), LabelSpace.binary(ignore_value=255)


def soft(*foreground: list[float]) -> MaskSet:
    """Predictions of one image with these probabilities of the foreground."""
    return MaskSet.from_probabilities(torch.tensor([foreground])[:, :, None], BINARY)


def hard(*masks: list[int], labels: LabelSpace = BINARY) -> MaskSet:
    return MaskSet.uniform(torch.tensor([masks], dtype=torch.uint8), labels)


def pearson(a: list[float], b: list[float]) -> float:
    return float(torch.corrcoef(torch.tensor([a, b], dtype=torch.float64))[0, 1])


def test_one_prediction_is_correlated_by_its_entropy_and_its_error():
    p = [0.9, 0.5, 0.2, 0.7]
    entropy = [-(q * math.log(q) + (1 - q) * math.log(1 - q)) for q in p]
    for mask in ([1, 1, 0, 0], [1, 0, 0, 1]):
        error = [-math.log(q if one else 1 - q) for q, one in zip(p, mask, strict=True)]
        assert ncc(soft(p), hard(mask)).item() == pytest.approx(pearson(entropy, error), abs=1e-6)


def test_masks_are_correlated_by_their_disagreement_and_their_errors():
    """Of 0 and 1 the logarithm is a constant, which the correlation does not see: 2 m (1 - m) and |m - y|."""
    masks, truth = ([1, 1, 0, 0, 1], [1, 0, 0, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]), [1, 1, 0, 0, 0]
    mean = torch.tensor(masks, dtype=torch.float64).mean(0).tolist()
    wanted = pearson([2 * m * (1 - m) for m in mean], [abs(m - y) for m, y in zip(mean, truth, strict=True)])
    assert ncc(hard(*masks), hard(truth)).item() == pytest.approx(wanted, abs=1e-6)


def test_values_are_means_over_annotations_by_their_weight():
    ours, masks = soft([0.9, 0.5, 0.2, 0.7], [0.6, 0.1, 0.2, 0.9]), ([1, 1, 0, 0], [0, 1, 0, 1])
    alone = [ncc(ours, hard(mask)) for mask in masks]
    both = replace(hard(*masks), weights=torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(ncc(ours, both), 0.25 * alone[0] + 0.75 * alone[1])


def test_a_map_that_does_not_vary_has_no_correlation():
    varied, sure = hard([1, 0, 1], [0, 0, 1]), hard([1, 0, 1], [1, 0, 1])
    assert ncc(sure, hard([1, 0, 0])).item() == 0  # never unsure, and wrong somewhere
    assert ncc(soft([0.5, 0.5, 0.5]), hard([1, 0, 0])).isnan().all()  # equally unsure, and equally wrong
    assert ncc(sure, sure).isnan().all()  # never unsure, never wrong
    assert ncc(sure, hard([1, 0, 1], [1, 0, 0])).item() == 0  # the first annotation is left out
    assert ncc(varied, varied).item() == pytest.approx(1.0)


def test_void_pixels_do_not_count():
    whole = hard([1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 1, 0], labels=VOID)
    other = hard([1, 0, 1, 255], [0, 0, 1, 255], [1, 1, 1, 255], labels=VOID)
    truth, seen = hard([1, 0, 0, 1], labels=VOID), hard([1, 0, 0, 255], labels=VOID)
    wanted = ncc(hard([1, 0, 1], [0, 0, 1], [1, 1, 1]), hard([1, 0, 0]))
    for ours, theirs in ((whole, seen), (other, truth), (other, seen)):
        torch.testing.assert_close(ncc(ours, theirs), wanted)
    assert ncc(whole, hard([255] * 4, labels=VOID)).isnan().all()


def test_uncertainty_in_the_wrong_place_is_found():
    """The same samples, with those of half of the pixels exchanged with the other half: the planted fault."""
    g = torch.Generator().manual_seed(0)
    chance = torch.cat([torch.full((32,), 0.5), torch.full((32,), 0.02)])
    truth = MaskSet.uniform((torch.rand(1, 8, 64, generator=g) < chance).to(torch.uint8), BINARY)
    right = MaskSet.uniform((torch.rand(1, 16, 64, generator=g) < chance).to(torch.uint8), BINARY)
    wrong = replace(right, masks=right.masks.flip(2))
    assert ncc(right, truth).item() > 0.5
    assert abs(ncc(wrong, truth).item()) < 0.1


def test_the_public_code_gives_the_same():
    """``variance_ncc_dist`` in utils.py of github.com/baumgach/PHiSeg-code, commit 788d26e, of these eighths."""
    two = [[1, 4, 8, 0, 7, 3], [2, 6, 8, 0, 5, 0], [0, 2, 7, 1, 6, 8]]
    ours = soft(*[[one / 8 for one in mask] for mask in two])
    theirs = hard([0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 1, 1])
    assert ncc(ours, theirs).item() == pytest.approx(0.99274083, abs=1e-6)
    three = [
        [[4, 2, 1, 8, 0], [2, 4, 3, 0, 1], [2, 2, 4, 0, 7]],
        [[6, 1, 0, 5, 2], [1, 6, 4, 2, 4], [1, 1, 4, 1, 2]],
    ]
    labels = LabelSpace.of_classes(3)
    ours = MaskSet.from_probabilities(torch.tensor([three]) / 8, labels)
    theirs = hard([0, 1, 2, 0, 2], [0, 1, 1, 0, 1], [1, 1, 2, 2, 2], labels=labels)
    assert ncc(ours, theirs).item() == pytest.approx(0.28844292, abs=1e-6)
