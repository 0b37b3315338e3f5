"""What annotations alone say: plain versions, textbook kappa, exact expectations of the annotation oracle,
errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Case, Plain, as_set, cases, overlap, properties, table

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, diversity, ged, ged_unbiased, hm_iou_unique
from ambiseg.metrics.annotators import annotation_oracle, annotator_agreement, reachable_table

BINARY = LabelSpace.binary()
FULL, HALF, EMPTY = [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]


def uniform(*masks: list[int], labels: LabelSpace = BINARY) -> MaskSet:
    return MaskSet.uniform(torch.tensor([masks], dtype=torch.uint8), labels)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fleiss(ratings: np.ndarray, classes: int) -> float:
    """Fleiss (1971) from a table of items and raters ``(N, n)``, category by category."""
    items, raters = ratings.shape
    if items == 0 or raters < 2 or len(np.unique(ratings)) == 1:
        return np.nan
    counts = np.array([[np.sum(row == c) for c in range(classes)] for row in ratings])
    by_item = [sum(n * (n - 1) for n in row) / (raters * (raters - 1)) for row in counts]
    share = counts.sum(0) / (items * raters)
    chance = float((share**2).sum())
    return (float(np.mean(by_item)) - chance) / (1 - chance)


def valid_pixels(a: Plain) -> np.ndarray:
    """Ratings of the pixels void for none, ``(pixels, raters)``."""
    flat = a.masks.reshape(len(a.masks), -1).T
    return flat[(flat != 255).all(1)]


def same(value: torch.Tensor, wanted: list[float], atol: float = 2e-6) -> None:
    assert value.dtype == torch.float32 and value.shape == (len(wanted),)
    np.testing.assert_allclose(value.numpy(), wanted, atol=atol)


@properties
@given(cases())
def test_agreement_against_loops(case: Case) -> None:
    agreement = annotator_agreement(case.annotations)
    raters = [a for _, a in case.images]

    def pairwise(a: Plain, dice: bool) -> float:
        total = mass = 0.0
        for i, j in itertools.permutations(range(len(a.masks)), 2):
            share = a.weights[i] * a.weights[j]
            total += share * overlap(a.masks[i], a.masks[j], case.labels, dice)
            mass += share
        return total / mass if mass else 1.0

    def unanimous(a: Plain) -> float:
        ratings = valid_pixels(a)
        return float(np.mean([len(set(row)) == 1 for row in ratings])) if len(ratings) else np.nan

    same(agreement.pairwise_iou, [pairwise(a, False) for a in raters])
    same(agreement.pairwise_dice, [pairwise(a, True) for a in raters])
    same(agreement.spread, [float(a.weights @ (1 - table(a, a, case.labels)) @ a.weights) for a in raters])
    same(agreement.unanimous, [unanimous(a) for a in raters])
    same(agreement.fleiss_kappa, [fleiss(valid_pixels(a), case.labels.classes) for a in raters])


@properties
@given(cases())
def test_leave_one_out_is_ged_of_one_against_the_others(case: Case) -> None:
    wanted = []
    for _, a in case.images:
        parts = []
        for i in range(len(a.masks)):
            rest = [j for j in range(len(a.masks)) if j != i]
            if not rest:
                parts.append(np.nan)
                continue
            one = Plain(a.masks[[i]], np.ones(1), a.scores[[i]])
            others = Plain(a.masks[rest], a.weights[rest] / a.weights[rest].sum(), a.scores[rest])
            parts.append(ged(as_set(one, case.labels), as_set(others, case.labels)).item())
        wanted.append(float(np.dot(a.weights, parts)))
    same(annotator_agreement(case.annotations).ged_leave_one_out, wanted)


@properties
@given(cases())
def test_spread_is_the_diversity_of_the_annotations(case: Case) -> None:
    spread = annotator_agreement(case.annotations).spread
    torch.testing.assert_close(spread, diversity(case.annotations), atol=2e-6, rtol=0)
    merged = annotator_agreement(case.annotations.merge_identical()).spread
    torch.testing.assert_close(spread, merged, atol=2e-6, rtol=0)


@properties
@given(cases())
def test_order_and_padding_do_not_matter(case: Case) -> None:
    order = torch.randperm(case.annotations.masks.shape[1], generator=seeded())
    before = annotator_agreement(case.annotations)
    for other in (case.annotations.gather(order.repeat(len(case.images), 1)), case.annotations.padded(9)):
        after = annotator_agreement(other)
        for name, value in vars(before).items():
            torch.testing.assert_close(getattr(after, name), value, atol=2e-6, rtol=0, equal_nan=True)


@properties
@given(cases(uniform=True))
def test_identical_annotators_agree_fully(case: Case) -> None:
    first = case.annotations.gather(torch.zeros(len(case.images), 3, dtype=torch.int64))
    agreement = annotator_agreement(MaskSet.uniform(first.masks, case.labels))
    same(agreement.pairwise_iou, [1.0] * len(case.images))
    same(agreement.spread, [0.0] * len(case.images))
    same(agreement.ged_leave_one_out, [0.0] * len(case.images))
    for value in (agreement.unanimous, agreement.fleiss_kappa):
        assert bool((value.isnan() | (value == 1)).all())


def test_one_annotator_has_nobody_to_disagree_with() -> None:
    agreement = annotator_agreement(uniform(HALF))
    assert agreement.pairwise_iou.item() == agreement.pairwise_dice.item() == agreement.unanimous.item() == 1
    assert agreement.spread.item() == 0
    assert agreement.fleiss_kappa.isnan().item() and agreement.ged_leave_one_out.isnan().item()


def test_closed_forms() -> None:
    agreement = annotator_agreement(uniform(FULL, HALF))
    assert agreement.pairwise_iou.item() == 0.5
    assert agreement.pairwise_dice.item() == pytest.approx(2 / 3)
    assert agreement.spread.item() == 0.25
    assert agreement.unanimous.item() == 0.5
    # P = 1/2, p = (1/4, 3/4), P_e = 5/8
    assert agreement.fleiss_kappa.item() == pytest.approx((1 / 2 - 5 / 8) / (3 / 8))
    assert agreement.ged_leave_one_out.item() == 1.0
    weighted = MaskSet(uniform(FULL, FULL, EMPTY).masks, torch.tensor([[0.5, 0.25, 0.25]]), BINARY)
    # pairs: (1/8 of IoU 1, 1/8 and 1/16 of IoU 0), each twice
    assert annotator_agreement(weighted).pairwise_iou.item() == pytest.approx((1 / 8) / (5 / 16))
    assert annotator_agreement(uniform(EMPTY, EMPTY)).fleiss_kappa.isnan().item()
    opposite = annotator_agreement(uniform(HALF, [0, 0, 1, 1]))
    assert opposite.fleiss_kappa.item() == -1 and opposite.unanimous.item() == 0


def test_kappa_of_the_textbook() -> None:
    # 10 items, 14 raters, 5 categories: the worked example of the literature, kappa = 0.210
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    columns = [np.repeat(np.arange(5), row) for row in counts]
    masks = torch.from_numpy(np.stack(columns, 1).astype(np.uint8))[None]
    kappa = annotator_agreement(MaskSet.uniform(masks, LabelSpace.of_classes(5))).fleiss_kappa
    assert kappa.item() == pytest.approx(0.210, abs=5e-4)


def test_void_pixels_are_no_items() -> None:
    labels = LabelSpace.binary(ignore_value=255)
    agreement = annotator_agreement(uniform([1, 1, 0, 255], [1, 0, 0, 1], labels=labels))
    assert agreement.unanimous.item() == pytest.approx(2 / 3)
    nothing = annotator_agreement(uniform([255, 0], [1, 255], labels=labels))
    assert nothing.unanimous.isnan().item() and nothing.fleiss_kappa.isnan().item()


def test_disagreement_shows_in_every_number() -> None:
    near, far = annotator_agreement(uniform(FULL, [1, 1, 1, 0])), annotator_agreement(uniform(FULL, EMPTY))
    for name in ("pairwise_iou", "pairwise_dice", "unanimous", "fleiss_kappa"):
        assert getattr(near, name).item() > getattr(far, name).item(), name
    for name in ("spread", "ged_leave_one_out"):
        assert getattr(near, name).item() < getattr(far, name).item(), name


# -- annotation oracle ---------------------------------------------------------------------------------------


def every_draw(a: Plain, labels: LabelSpace, samples: int):  # type: ignore[no-untyped-def]
    """All ordered draws with replacement, with their probability, as uniform sets of one image."""
    for chosen in itertools.product(range(len(a.masks)), repeat=samples):
        picked = Plain(a.masks[list(chosen)], np.full(samples, 1 / samples), a.scores[list(chosen)])
        yield float(np.prod(a.weights[list(chosen)])), as_set(picked, labels)


@properties
@given(cases(most=3), st.integers(1, 3))
def test_expected_ged_of_the_annotation_oracle_is_spread_over_n(case: Case, samples: int) -> None:
    for _, a in case.images:
        truth = as_set(a, case.labels)
        spread = annotator_agreement(truth).spread.item()
        value = unbiased = own = 0.0
        for chance, drawn in every_draw(a, case.labels, samples):
            value += chance * ged(drawn, truth).item()
            unbiased += chance * ged_unbiased(drawn, truth).item()
            own += chance * diversity(drawn).item()
        assert own == pytest.approx((1 - 1 / samples) * spread, abs=1e-5)
        assert value == pytest.approx(spread / samples, abs=1e-5)
        squares = float((a.weights**2).sum())
        if samples > 1 and len(a.masks) > 1:
            # The sample term is unbiased for d(Y, Y); the other one takes the annotations for draws.
            assert unbiased == pytest.approx(spread - spread / (1 - squares), abs=1e-5)
            assert unbiased == pytest.approx(-spread * squares / (1 - squares), abs=1e-5)


def test_drawn_ged_approaches_its_expectation() -> None:
    masks = torch.tensor([FULL, HALF, EMPTY, [1, 0, 0, 0]], dtype=torch.uint8)
    images, repeats = 200, 8
    for chance in ([0.4, 0.3, 0.2, 0.1], [0.5, 0.5, 0.0, 0.0]):
        distribution = MaskSet(masks.repeat(images, 1, 1), torch.tensor([chance] * images), BINARY)
        spread, squares = annotator_agreement(distribution).spread[0], distribution.weights[0].square().sum()
        for samples in (1, 2, 7):
            found = reachable_table(distribution, ["ged", "ged_unbiased"], samples, repeats, seeded())
            wanted = {"ged": spread / samples}
            if samples > 1:
                wanted["ged_unbiased"] = -spread * squares / (1 - squares)
            for name, value in wanted.items():
                error = found[name].std.square().mean().sqrt() / (images * repeats) ** 0.5
                assert bool((found[name].mean.mean() - value).abs() < 4 * error + 1e-5), (name, samples)


def test_matching_ceiling_rises_to_one() -> None:
    truth = uniform(FULL, HALF, EMPTY, [0, 0, 0, 1])
    means = [
        annotation_oracle(truth, "hm_iou_unique", samples, repeats=50, generator=seeded()).mean.item()
        for samples in (1, 4, 16, 100)
    ]
    assert means == sorted(means) and means[0] < 0.3 and means[1] < 0.95
    assert means[-1] == pytest.approx(1, abs=1e-6)


@properties
@given(cases(), st.integers(1, 6))
def test_names_functions_and_tables_agree(case: Case, samples: int) -> None:
    names = ["ged", "hm_iou_unique", "diversity"]
    found = reachable_table(case.annotations, names, samples, repeats=3, generator=seeded(5))
    assert list(found) == names
    for name in names:
        for metric in (name, METRICS[name].function):
            again = annotation_oracle(case.annotations, metric, samples, repeats=3, generator=seeded(5))
            assert torch.equal(again.mean, found[name].mean) and torch.equal(again.std, found[name].std)
            assert again.mean.shape == again.std.shape == (len(case.images),)


def test_summary_is_mean_and_deviation_of_the_repeats() -> None:
    truth = uniform(FULL, HALF, EMPTY)
    seen: list[torch.Tensor] = []

    def record(predictions: MaskSet, annotations: MaskSet) -> torch.Tensor:
        assert annotations is truth and predictions.masks.shape == (1, 5, 4)
        torch.testing.assert_close(predictions.weights, torch.full((1, 5), 0.2))
        seen.append(hm_iou_unique(predictions, annotations))
        return seen[-1]

    found = annotation_oracle(truth, record, samples=5, repeats=12, generator=seeded(2))
    values = torch.stack(seen).numpy()
    assert len(values) == 12
    np.testing.assert_allclose(found.mean.numpy(), values.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.std.numpy(), values.std(0, ddof=1), atol=1e-6)


def test_one_mode_is_reached_at_once() -> None:
    found = reachable_table(uniform(HALF, HALF), ["ged", "hm_iou_unique"], samples=1)
    assert found["ged"].mean.item() == found["ged"].std.item() == 0
    assert found["hm_iou_unique"].mean.item() == 1
    assert annotation_oracle(uniform(HALF), "ged", 1, repeats=1).std.isnan().item()


def test_padding_is_never_drawn() -> None:
    truth = MaskSet.stack([uniform(FULL), uniform(FULL, HALF, EMPTY)])
    drawn: list[MaskSet] = []

    def record(predictions: MaskSet, annotations: MaskSet) -> torch.Tensor:
        drawn.append(predictions)
        return ged(predictions, annotations)

    found = annotation_oracle(truth, record, samples=20, repeats=5, generator=seeded())
    assert found.mean[0].item() == 0
    for given_set in drawn:
        assert bool((given_set.masks != BINARY.void).all())


def test_every_metric_of_masks_alone_can_be_asked() -> None:
    names = [name for name, info in METRICS.items() if set(info.needs) <= {"weights"}]
    truth = MaskSet.stack([uniform(FULL, HALF, EMPTY), uniform(FULL, HALF)])
    found = reachable_table(truth, names, samples=4, repeats=2, generator=seeded())
    for name, value in found.items():
        assert value.mean.shape == (2,), name


def test_wrong_arguments_are_refused() -> None:
    truth = uniform(FULL, HALF)
    for samples, repeats, what in ((0, 5, "samples"), (3, 0, "repeats")):
        with pytest.raises(AmbisegError, match=f"{what} >= 1"):
            annotation_oracle(truth, "ged", samples, repeats)
        with pytest.raises(AmbisegError, match=f"{what} >= 1"):
            annotation_oracle(truth, ged, samples, repeats)
    with pytest.raises(AmbisegError, match="leave selection_f1 out"):
        reachable_table(truth, ["ged", "selection_f1"], 3)
    with pytest.raises(UnknownNameError, match="did you mean 'ged'"):
        annotation_oracle(truth, "gedd", 3)
    nothing = MaskSet(truth.masks, torch.zeros(1, 2), BINARY)
    for call in (annotator_agreement, lambda a: annotation_oracle(a, "ged", 3)):
        with pytest.raises(AmbisegError, match="image 0 has no mask"):
            call(nothing)
