"""Properties of the set metrics: each against an independent version, closed forms, and invariances."""

from __future__ import annotations

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from reference import Case, Plain, best_total, cases, overlap, properties, table
from scipy.optimize import linear_sum_assignment

from ambiseg.engine.postprocess import drop_low_scores
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import (
    Comparison,
    annotator_agreement,
    consensus,
    dice_of_mean,
    diversity,
    expected_dice,
    ged,
    ged_parts,
    ged_unbiased,
    hm_iou,
    hm_iou_multi,
    hm_iou_tiled,
    hm_iou_unique,
    m_iou,
    max_dice_matching,
    soft_dice,
)

BINARY = LabelSpace.binary()
FULL, HALF, EMPTY = [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]


def uniform(*masks: list[int], labels: LabelSpace = BINARY) -> MaskSet:
    return MaskSet.uniform(torch.tensor([masks], dtype=torch.uint8), labels)


def energy(p: Plain, a: Plain, labels: LabelSpace, dice: bool = False, unbiased: bool = False) -> float:
    def term(x: Plain, y: Plain, within: bool) -> float:
        total = mass = 0.0
        for i, wi in enumerate(x.weights):
            for j, wj in enumerate(y.weights):
                if within and unbiased and i == j:
                    continue
                total += wi * wj * (1 - overlap(x.masks[i], y.masks[j], labels, dice))
                mass += wi * wj
        return total / mass if mass else 0.0

    return 2 * term(p, a, False) - term(p, p, True) - term(a, a, True)


def expected(case: Case, value: torch.Tensor, function) -> None:  # type: ignore[no-untyped-def]
    assert value.shape == (len(case.images),) and value.dtype == torch.float32
    wanted = [function(p, a) for p, a in case.images]
    np.testing.assert_allclose(value.numpy(), wanted, atol=2e-6)


@properties
@given(cases())
def test_hungarian_matching_agrees_with_trying_all(case: Case) -> None:
    def plain(p: Plain, a: Plain) -> float:
        return best_total(table(p, a, case.labels)) / min(len(p.masks), len(a.masks))

    def unique(p: Plain, a: Plain) -> float:
        return best_total(table(p, a.merged(), case.labels)) / len(a.merged().masks)

    expected(case, hm_iou(case.predictions, case.annotations), plain)
    expected(case, hm_iou_unique(case.predictions, case.annotations), unique)


@properties
@given(cases())
def test_tiled_matching_agrees_with_tiling(case: Case) -> None:
    def plain(p: Plain, a: Plain) -> float:
        m, n = len(p.masks), len(a.masks)
        size = math.lcm(m, n)
        tiled = np.tile(table(p, a, case.labels), (size // m, size // n))
        return float(tiled[linear_sum_assignment(-tiled)].mean())

    expected(case, hm_iou_tiled(case.predictions, case.annotations), plain)


@properties
@given(cases())
def test_m_iou_agrees_with_linear_programme(case: Case) -> None:
    from scipy.optimize import linprog

    def plain(p: Plain, a: Plain) -> float:
        value = table(p, a, case.labels)
        rows = np.kron(np.eye(len(p.masks)), np.ones(len(a.masks)))
        columns = np.kron(np.ones(len(p.masks)), np.eye(len(a.masks)))
        marginals = np.concatenate([p.weights, a.weights])
        return -linprog(-value.ravel(), A_eq=np.vstack([rows, columns]), b_eq=marginals).fun

    expected(case, m_iou(case.predictions, case.annotations), plain)


@properties
@given(cases())
def test_ged_agrees_with_double_sum(case: Case) -> None:
    sets = (case.predictions, case.annotations)
    expected(case, ged(*sets), lambda p, a: energy(p, a, case.labels))
    expected(case, ged(*sets, distance="dice"), lambda p, a: energy(p, a, case.labels, dice=True))
    expected(case, ged_unbiased(*sets), lambda p, a: energy(p, a, case.labels, unbiased=True))


@properties
@given(cases())
def test_diversity_agrees_with_double_sum(case: Case) -> None:
    def plain(p: Plain, a: Plain) -> float:
        return float(p.weights @ (1 - table(p, p, case.labels)) @ p.weights)

    expected(case, diversity(case.predictions, case.annotations), plain)
    assert torch.equal(diversity(case.predictions), diversity(case.predictions, case.annotations))


@properties
@given(cases())
def test_dice_of_mean_agrees_with_voting_by_pixel(case: Case) -> None:
    def majority(s: Plain) -> np.ndarray:
        decided = np.empty(s.masks.shape[1:], np.uint8)
        for at in np.ndindex(*decided.shape):
            votes = [sum(s.weights[s.masks[(slice(None), *at)] == c]) for c in range(case.labels.classes)]
            first = next(c for c, vote in enumerate(votes) if vote > max(votes) - 1e-5)
            decided[at] = first if sum(votes) else 255
        return decided

    expected(
        case,
        dice_of_mean(case.predictions, case.annotations),
        lambda p, a: overlap(majority(p), majority(a), case.labels, dice=True),
    )


@properties
@given(cases())
def test_best_of_the_predictions_by_hand(case: Case) -> None:
    sets = (case.predictions, case.annotations)
    expected(case, hm_iou_multi(*sets), lambda p, a: table(p, a, case.labels).max(0).mean())
    expected(case, max_dice_matching(*sets), lambda p, a: table(p, a, case.labels, dice=True).max(0).mean())
    assert bool((hm_iou_multi(*sets) >= hm_iou_tiled(*sets) - 1e-6).all())


@properties
@given(cases())
def test_expected_dice_agrees_with_double_sum(case: Case) -> None:
    def plain(p: Plain, a: Plain) -> float:
        return float(p.weights @ table(p, a, case.labels, dice=True) @ a.weights)

    expected(case, expected_dice(case.predictions, case.annotations), plain)


@properties
@given(cases())
def test_soft_dice_agrees_with_cutting_by_hand(case: Case) -> None:
    cuts = (0.15, 0.5, 0.85)

    def share(s: Plain, c: int) -> np.ndarray:
        return sum(w * (m == c) for w, m in zip(s.weights, s.masks, strict=True))

    def plain(p: Plain, a: Plain) -> float:
        values = []
        seen = np.all([np.any([m != 255 for m in s.masks], 0) for s in (p, a)], 0)
        for cut in cuts:
            for c in case.labels.evaluated:
                one, other = ((share(s, c) > cut + 1e-6) & seen for s in (p, a))
                size = one.sum() + other.sum()
                values.append(2 * (one & other).sum() / size if size else 1.0)
        return float(np.mean(values))

    expected(case, soft_dice(case.predictions, case.annotations, cuts), plain)


@properties
@given(cases())
def test_parts_of_ged_add_up(case: Case) -> None:
    sets = (case.predictions, case.annotations)
    parts = ged_parts(*sets)
    torch.testing.assert_close(parts.ged(), ged(*sets))
    torch.testing.assert_close(parts.predictions.float(), diversity(case.predictions))
    torch.testing.assert_close(parts.annotations.float(), diversity(case.annotations))
    torch.testing.assert_close(ged_parts(sets[1], sets[0]).between, parts.between)


@properties
@given(cases())
def test_bounds_and_perfection(case: Case) -> None:
    sets = (case.predictions, case.annotations)
    ranged = (hm_iou, hm_iou_unique, hm_iou_tiled, hm_iou_multi, m_iou, max_dice_matching, diversity)
    for metric in (*ranged, dice_of_mean, soft_dice):
        value = metric(*sets)
        assert bool(((value >= 0) & (value <= 1 + 1e-6)).all()), metric
        if metric is not diversity:
            torch.testing.assert_close(metric(sets[1], sets[1]), torch.ones(len(sets[1])))
    assert float(ged(sets[1], sets[1]).abs().max()) < 1e-6
    assert bool((ged_unbiased(*sets) >= -2).all())


@properties
@given(cases(void=False))
def test_ged_is_a_squared_distance(case: Case) -> None:
    for distance in ("iou", "dice"):
        value = ged(case.predictions, case.annotations, distance)
        assert bool(((value >= -1e-6) & (value <= 2 + 1e-6)).all())
        torch.testing.assert_close(ged(case.annotations, case.predictions, distance), value)


@properties
@given(cases())
def test_order_does_not_matter(case: Case) -> None:
    order = torch.randperm(case.predictions.masks.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = case.predictions.gather(order.repeat(len(case.predictions), 1))
    for metric in (hm_iou, hm_iou_unique, hm_iou_tiled, m_iou, ged, ged_unbiased, diversity, dice_of_mean):
        torch.testing.assert_close(
            metric(shuffled, case.annotations), metric(case.predictions, case.annotations), atol=2e-6, rtol=0
        )


@properties
@given(cases())
def test_merging_duplicates_changes_no_distribution_metric(case: Case) -> None:
    merged = (case.predictions.merge_identical(), case.annotations.merge_identical())
    for metric in (m_iou, ged, diversity, dice_of_mean):
        torch.testing.assert_close(
            metric(*merged), metric(case.predictions, case.annotations), atol=2e-6, rtol=0
        )


@properties
@given(cases(uniform=True))
def test_transport_of_uniform_weights_is_tiled_matching(case: Case) -> None:
    sets = (case.predictions, case.annotations)
    torch.testing.assert_close(m_iou(*sets), hm_iou_tiled(*sets), atol=2e-6, rtol=0)


@properties
@given(cases())
def test_duplicating_an_annotation_leaves_hm_iou_unique(case: Case) -> None:
    twice = case.annotations.gather(
        torch.tensor([[0, *range(case.annotations.masks.shape[1])]] * len(case.images))
    )
    torch.testing.assert_close(
        hm_iou_unique(case.predictions, twice.normalised()), hm_iou_unique(case.predictions, case.annotations)
    )


@properties
@given(cases())
def test_filtering_only_lowers_hm_iou_unique(case: Case) -> None:
    fewer = drop_low_scores(case.predictions, 0.5)
    before, after = (hm_iou_unique(s, case.annotations) for s in (case.predictions, fewer))
    assert bool((after <= before + 1e-6).all())


def test_closed_forms() -> None:
    one, two = uniform(HALF), uniform(FULL, EMPTY)
    assert hm_iou(one, two).item() == 0.5
    assert hm_iou_unique(one, two).item() == 0.25
    assert hm_iou_tiled(one, two).item() == m_iou(one, two).item() == 0.25
    assert ged(one, two).item() == 2 * 0.75 - 0.5
    assert ged_unbiased(one, two).item() == 2 * 0.75 - 1
    assert diversity(two).item() == 0.5
    assert dice_of_mean(one, uniform(FULL, FULL, EMPTY)).item() == pytest.approx(2 / 3)


def test_rectangular_matching_has_free_predictions_and_tiled_has_not() -> None:
    truth = uniform(FULL, HALF)
    more = uniform(FULL, HALF, EMPTY, EMPTY)
    assert hm_iou(more, truth).item() == hm_iou_unique(more, truth).item() == 1
    assert hm_iou_tiled(more, truth).item() == 0.5


def test_a_tie_is_background() -> None:
    assert consensus(uniform(FULL, EMPTY)).tolist() == [[0, 0, 0, 0]]
    five = uniform([2, 2, 1], [1, 0, 2], labels=LabelSpace.of_classes(5))
    assert consensus(five).tolist() == [[1, 0, 1]]
    last = LabelSpace(("a", "b", "rest"), background=2)
    assert consensus(uniform([0, 2, 0], [1, 0, 0], labels=last)).tolist() == [[0, 2, 0]]
    third = torch.full((1, 6), 1 / 6)
    six = MaskSet(torch.tensor([[[1]] * 3 + [[0]] * 3], dtype=torch.uint8), third, BINARY)
    assert consensus(six).tolist() == [[0]]


def test_dice_of_mean_averages_probabilities_where_kept() -> None:
    probabilities = torch.tensor([[[[0.9, 0.1]], [[0.3, 0.6]]]])
    predictions = MaskSet.from_probabilities(probabilities, BINARY)
    assert consensus(predictions).tolist() == [[1, 0]]
    assert consensus(predictions.hard()).tolist() == [[0, 0]]


def test_unbiased_ged_averages_to_zero_and_biased_to_its_floor() -> None:
    masks = torch.tensor([FULL, HALF, EMPTY, [1, 0, 0, 0]], dtype=torch.uint8)
    chance = torch.tensor([0.4, 0.3, 0.2, 0.1])
    generator = torch.Generator().manual_seed(0)
    m, n, images = 6, 3, 4000

    def draws(count: int) -> MaskSet:
        index = torch.multinomial(chance.expand(images, -1), count, replacement=True, generator=generator)
        return MaskSet.uniform(masks[index], BINARY)

    pair = Comparison(draws(m), draws(n))
    error = float(ged_unbiased(pair).std()) / images**0.5
    assert abs(float(ged_unbiased(pair).mean())) < 4 * error
    spread = float(diversity(MaskSet(masks[None], chance[None], BINARY)))
    assert abs(float(ged(pair).mean()) - spread * (1 / m + 1 / n)) < 4 * error


def test_many_masks_take_exact_transport() -> None:
    generator = torch.Generator().manual_seed(1)
    masks = (torch.rand(1, 37, 16, generator=generator) < 0.5).to(torch.uint8)
    weights = torch.rand(1, 37, generator=generator)
    a = MaskSet(masks[:, :20], weights[:, :20], BINARY).normalised()
    b = MaskSet(masks[:, 20:], weights[:, 20:], BINARY).normalised()
    iou = Comparison(a, b).cross.iou()[0].double().numpy()
    u, v = (s.weights[0].double().numpy() / s.weights[0].double().numpy().sum() for s in (a, b))
    assert m_iou(a, b).item() == pytest.approx(float((ot.emd(u, v, 1 - iou) * iou).sum()), abs=1e-6)


def test_volumes_are_flattened_images() -> None:
    flat = torch.randint(0, 2, (2, 3, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    volume = MaskSet.uniform(flat.view(2, 3, 2, 3, 4), BINARY)
    line = MaskSet.uniform(flat, BINARY)
    for metric in (hm_iou, ged, dice_of_mean):
        assert torch.equal(metric(volume, volume[:1].gather(torch.tensor([[0, 2]])).stack([volume[:1]] * 2)),
                           metric(line, line.stack([line[:1]] * 2)))  # fmt: skip


def test_counts_are_exact_inside_autocast() -> None:
    masks = (torch.rand(2, 3, 1000, generator=torch.Generator().manual_seed(0)) > 0.4).to(torch.uint8)
    sets = MaskSet.uniform(masks, BINARY), MaskSet.uniform(masks.flip(1)[:, :2], BINARY)
    outside = [metric(*sets) for metric in (hm_iou, m_iou, ged, dice_of_mean)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [metric(*sets) for metric in (hm_iou, m_iou, ged, dice_of_mean)]
    for a, b in zip(inside, outside, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (uniform(FULL, labels=LabelSpace.of_classes(3)), "label space"),
        (uniform([1, 1]), "size"),
        (MaskSet.stack([uniform(FULL), uniform(HALF)]), "2 images"),
        (MaskSet(torch.zeros(1, 2, 4, dtype=torch.uint8), torch.zeros(1, 2), BINARY), "no mask"),
    ],
)
def test_sets_that_do_not_belong_together_are_refused(other: MaskSet, message: str) -> None:
    with pytest.raises(AmbisegError, match=message):
        ged(uniform(FULL), other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskSet(uniform(HALF).masks, torch.tensor([[0.4]]), BINARY), "predictions: weights of image 0 sum to 0.4"),
        (lambda: MaskSet(uniform(HALF, FULL).masks, torch.tensor([[1.5, -0.5]]), BINARY), "predictions: weights.*negative"),
        (lambda: MaskSet(uniform(HALF).masks, torch.tensor([[torch.nan]]), BINARY), "predictions"),
        (lambda: uniform([1, 2, 0, 0]), r"predictions holds the value\(s\) \[2\], but the classes are 0..1"),
        (
            lambda: MaskSet.from_probabilities(torch.tensor([[[[0.5, torch.nan, 0.5, 0.5]]]]), BINARY),
            "predictions: per-pixel probabilities must be finite",
        ),
        (lambda: MaskSet.uniform(torch.rand(1, 1, 4), BINARY), "masks are integer label maps.*from_probabilities"),
        (lambda: MaskSet(torch.zeros(1, 0, 4, dtype=torch.uint8), torch.zeros(1, 0), BINARY), "no mask"),
    ],
)  # fmt: skip
def test_sets_that_are_no_distribution_of_label_maps_are_refused(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        ged(make(), uniform(FULL))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(AmbisegError, match=r"thresholds must lie in \[0, 1\).*1.5"):
        soft_dice(uniform(FULL), uniform(FULL), (0.5, 1.5))
    with pytest.raises(AmbisegError, match="pass both"):
        ged(uniform(FULL))
    with pytest.raises(AmbisegError, match="did you mean 'dice'"):
        ged(uniform(FULL), uniform(FULL), distance="dise")


def test_masks_of_0_and_255_are_refused_on_either_side() -> None:
    black = uniform([0, 1, 1, 0], [0, 1, 0, 0])
    white = uniform([0, 255, 255, 0], [0, 255, 0, 0])
    for ours, theirs, side in ((white, white, "predictions"), (black, white, "annotations")):
        with pytest.raises(AmbisegError, match=f"^{side}: masks hold 255"):
            ged(ours, theirs)
    with pytest.raises(AmbisegError, match="^predictions: masks hold 255"):
        diversity(white)
    with pytest.raises(AmbisegError, match="^annotations: masks hold 255"):
        annotator_agreement(white)
