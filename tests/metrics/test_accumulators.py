"""The table of metrics and its accumulators: batches add up, padding is invisible, pooled is pooled."""

from __future__ import annotations

from functools import partial

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from reference import Case, as_set, cases, properties

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import (
    METRICS,
    Comparison,
    MeanOverImages,
    PooledOverImages,
    brier_scores,
    evaluate_all,
    metric_collection,
    selection_counts,
)

matplotlib.use("Agg")
BINARY = LabelSpace.binary()
ORDER = list(METRICS)
DRAWN = [name for name, info in METRICS.items() if "probabilities" not in info.needs]
"""Metrics that the random cases, which keep no per-pixel probabilities, allow."""


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, equal_nan=True)


def test_the_table_is_complete_and_consistent() -> None:
    for name, info in METRICS.items():
        assert info.name == name and info.title and info.description.endswith(".")
        assert info.lower_bound < info.upper_bound
        documented = getattr(info.function, "func", info.function)
        assert documented.__doc__ and "Trap:" in documented.__doc__


def test_a_single_name_is_a_list_of_one() -> None:
    truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), BINARY)
    assert evaluate_all(truth, truth, "ged") == {"ged": torch.zeros(1)}
    assert list(metric_collection("ged")) == ["ged"]


@properties
@given(cases())
def test_values_stay_within_their_bounds(case: Case) -> None:
    for name, value in evaluate_all(case.predictions, case.annotations, DRAWN).items():
        info = METRICS[name]
        inside = (value >= info.lower_bound - 1e-6) & (value <= info.upper_bound + 1e-6)
        if case.labels.ignore_value is None or name != "ged":
            assert bool((inside | value.isnan()).all()), name


@properties
@given(cases())
def test_sharing_one_comparison_changes_nothing(case: Case) -> None:
    together = evaluate_all(case.predictions, case.annotations, DRAWN)
    assert list(together) == DRAWN
    for name, value in together.items():
        assert value.shape == (len(case.images),) and value.dtype == torch.float32
        close(METRICS[name].function(case.predictions, case.annotations), value)


@properties
@given(cases())
def test_padded_sets_are_as_good_as_unpadded(case: Case) -> None:
    together = evaluate_all(case.predictions, case.annotations, DRAWN)
    for b, (p, a) in enumerate(case.images):
        alone = evaluate_all(as_set(p, case.labels), as_set(a, case.labels), DRAWN)
        for name in DRAWN:
            close(alone[name], together[name][b : b + 1])


@properties
@given(cases())
def test_images_padded_with_void_are_as_good_as_unpadded(case: Case) -> None:
    size = [n + 2 for n in case.predictions.masks.shape[2:]]
    large = MaskSet.uniform(torch.zeros(1, 1, *size, dtype=torch.uint8), case.labels)
    before = evaluate_all(
        case.predictions, case.annotations, ["hm_iou_unique", "m_iou", "ged", "dice_of_mean"]
    )
    padded = [MaskSet.stack([s, large])[:-1] for s in (case.predictions.hard(), case.annotations.hard())]
    for name, value in evaluate_all(padded[0], padded[1], before).items():
        close(value, before[name])


@properties
@given(cases())
def test_batches_merged_are_one_batch(case: Case) -> None:
    whole, parts, shared = (metric_collection(DRAWN) for _ in range(3))
    whole.update(case.predictions, case.annotations)
    shared.update(Comparison(case.predictions, case.annotations))
    for b in range(len(case.images)):
        parts.update(case.predictions[b], case.annotations[b])
    values = whole.compute()
    assert list(values) == DRAWN
    for name in DRAWN:
        close(parts.compute()[name], values[name])
        close(shared.compute()[name], values[name])


@properties
@given(cases())
def test_pooling(case: Case) -> None:
    values = metric_collection(DRAWN)
    values.update(case.predictions, case.annotations)
    found = values.compute()
    alone = evaluate_all(case.predictions, case.annotations, DRAWN)
    for name in (name for name in DRAWN if METRICS[name].pooling is None):
        close(found[name], alone[name].nanmean())  # over the images for which it is defined
    counts = selection_counts(case.predictions, case.annotations)
    tp, fp, fn = (float(c.sum()) for c in (counts.tp, counts.fp, counts.fn))
    assert float(found["selection_f1"]) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    scores = brier_scores(case.predictions, case.annotations)
    if float(scores.uniform.mean()) < 1e-8:
        assert bool(found["brier_skill_score"].isnan())
    else:
        ratio = float(scores.score.mean()) / float(scores.uniform.mean())
        assert float(found["brier_skill_score"]) == pytest.approx(1 - ratio, rel=1e-4, abs=1e-4)


def test_two_processes_add_up() -> None:
    masks = torch.tensor([[[1, 1], [0, 1], [0, 0]]], dtype=torch.uint8)
    truth = MaskSet(masks, torch.tensor([[0.5, 0.25, 0.25]]), BINARY, torch.tensor([[0.9, 0.1, 0.6]]))
    for make in (
        partial(MeanOverImages, "ged"),
        *(partial(PooledOverImages, name) for name in METRICS if METRICS[name].pooling),
    ):
        one, other, both = make(), make(), make()
        one.update(truth.top(1), truth)
        other.update(truth, truth)
        both.update(truth.top(1), truth)
        both.update(truth, truth)
        one.merge_state(other)
        close(one.compute(), both.compute())


def test_images_without_a_value_are_left_out_of_a_mean() -> None:
    masks = torch.tensor([[[1, 1], [0, 1]]], dtype=torch.uint8)
    skewed, even = MaskSet(masks, torch.tensor([[0.75, 0.25]]), BINARY), MaskSet.uniform(masks, BINARY)
    mean = MeanOverImages("brier_skill_score")
    mean.update(MaskSet.stack([skewed, skewed]), MaskSet.stack([skewed, even]))
    assert mean.compute().item() == 1
    pooled = PooledOverImages("brier_skill_score")
    pooled.update(even, even)
    assert bool(pooled.compute().isnan())
    pooled.update(skewed, skewed)
    assert pooled.compute().item() == 1


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_direction_bounds_reset_and_forward() -> None:
    metric = MeanOverImages("ged")
    assert metric.higher_is_better is False and (metric.plot_lower_bound, metric.plot_upper_bound) == (0, 2)
    assert PooledOverImages("selection_f1").higher_is_better is True
    assert PooledOverImages("brier_skill_score").plot_lower_bound is None
    assert MeanOverImages("diversity").higher_is_better is None
    masks = torch.tensor([[[1, 1], [0, 1]]], dtype=torch.uint8)
    truth = MaskSet.uniform(masks, BINARY)
    assert metric(truth.top(1), truth).item() == metric.compute().item() == 0.25
    metric.reset()
    assert bool(metric.compute().isnan())


def test_every_accumulator_can_be_drawn() -> None:
    masks = torch.tensor([[[1, 1], [0, 1], [0, 0]]], dtype=torch.uint8)
    truth = MaskSet(masks, torch.tensor([[0.5, 0.25, 0.25]]), BINARY, torch.tensor([[0.9, 0.1, 0.6]]))
    collection = metric_collection(DRAWN)
    collection.update(truth, truth)
    for name, metric in collection.items():
        figure, axes = metric.plot()
        assert axes.get_title() == METRICS[name].title
        figure, axes = metric.plot([metric.compute(), metric.compute()])
        plt.close("all")


def test_metrics_that_agree_once_are_not_tied_together() -> None:
    masks = torch.tensor([[[1, 1], [0, 1], [0, 1]]], dtype=torch.uint8)
    truth = MaskSet.uniform(masks, BINARY)
    both = metric_collection(["hm_iou", "hm_iou_unique"])
    both.update(truth, truth)
    both.update(truth.gather(torch.tensor([[1]])).normalised(), truth)
    values = both.compute()
    assert values["hm_iou"].item() == 1 and values["hm_iou_unique"].item() == 0.75


def test_unknown_names_and_missing_scores() -> None:
    truth = MaskSet.uniform(torch.ones(1, 1, 2, dtype=torch.uint8), BINARY)
    with pytest.raises(UnknownNameError, match="did you mean 'hm_iou_unique'"):
        MeanOverImages("hm_iou_uniqe")
    with pytest.raises(UnknownNameError):
        metric_collection(["gad"])
    with pytest.raises(AmbisegError, match="mean over images"):
        PooledOverImages("ged")
    with pytest.raises(AmbisegError, match="scores"):
        evaluate_all(truth, truth, ["selection_f1"])
    assert "selection_f1" not in evaluate_all(truth, truth)
