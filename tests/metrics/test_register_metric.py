"""Metrics of users: they join by a call or an entry point, and `check_metric` finds what is wrong with one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import ambiseg
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, Comparison, MeanOverImages, MetricInfo, evaluate_all, register_metric
from ambiseg.testing import METRIC_CHECKS, check_metric


def area_error(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Difference of the expected areas."""
    pair = Comparison.of(predictions, annotations)
    known = pair.annotations.labelled
    ours, theirs = ((s.weights * s.areas(known)).sum(1) for s in (pair.predictions, pair.annotations))
    return (ours - theirs).abs()


AREA = MetricInfo(
    "area_error", "Area error", area_error, False, 0.0, 1.0, "Difference of the expected areas."
)


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    before = dict(METRICS)
    yield
    METRICS.own.clear()
    METRICS.own.update(before)


def test_a_metric_is_known_once_it_is_registered() -> None:
    assert ambiseg.register_metric(AREA) is AREA is register_metric(AREA)
    truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
    assert list(METRICS)[-1] == "area_error"
    assert evaluate_all(truth.top(1), truth, ["area_error"])["area_error"].tolist() == [0.25]
    mean = MeanOverImages("area_error")
    mean.update(truth.top(1), truth)
    assert float(mean.compute()) == 0.25 and mean.higher_is_better is False


def test_a_name_is_given_once() -> None:
    register_metric(AREA)
    other = replace(AREA, title="Other")
    with pytest.raises(AmbisegError, match="there is a metric 'area_error' already"):
        register_metric(other)
    assert register_metric(other, overwrite=True) is METRICS["area_error"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "Area error"}, "lower-case letters"),
        ({"name": "all"}, "a meaning of their own"),
        ({"function": 3}, "takes predictions and annotations, received 3"),
        ({"lower_bound": 1.0}, "lower bound 1.0 is not below its upper bound 1.0"),
        ({"columns": ()}, "its columns are a tuple of 'all', 'kept', received"),
        ({"columns": "all"}, "its columns are a tuple"),
        ({"needs": ("score",)}, "its needs are a tuple of 'scores'"),
    ],
)
def test_wrong_entries_are_refused(wrong, message) -> None:
    with pytest.raises(AmbisegError, match=message):
        register_metric(replace(AREA, **wrong))


def test_other_things_are_refused() -> None:
    with pytest.raises(AmbisegError, match="takes a MetricInfo, received function"):
        register_metric(area_error)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "got"),
    [(lambda p, a: area_error(p, a).mean(), r"shape \(\)"), (lambda p, a: 0.5, "float")],
)
def test_a_metric_that_returns_no_value_for_each_image_is_named(function, got) -> None:
    register_metric(replace(AREA, function=function))
    truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
    with pytest.raises(AmbisegError, match=f"'area_error' returned {got} for 1 images"):
        MeanOverImages("area_error").update(truth, truth)


@pytest.mark.parametrize("name", [*METRICS, "area_error"])
def test_every_metric_passes_the_checks(name) -> None:
    check_metric(AREA if name == "area_error" else METRICS[name])


def without_weights(predictions, annotations=None):
    pair = Comparison.of(predictions, annotations)
    return (pair.predictions.areas().mean(1) - pair.annotations.areas().mean(1)).abs()


def by_numbers(predictions, annotations=None):
    pair = Comparison.of(predictions, annotations)
    ours, theirs = (
        (s.weights * s.masks.float().mean((2, 3))).sum(1) for s in (pair.predictions, pair.annotations)
    )
    return (ours - theirs).abs()


def void_as_background(predictions, annotations=None):
    """The areas of predictions count pixels that no annotation knows."""
    pair = Comparison.of(predictions, annotations)
    ours, theirs = ((s.weights * s.areas()).sum(1) for s in (pair.predictions, pair.annotations))
    return (ours - theirs).abs()


def by_size_of_the_batch(predictions, annotations=None):
    """The share of pixels is one of the padded image."""
    pair = Comparison.of(predictions, annotations)
    known = pair.annotations.labelled
    share = known.flatten(1).float().mean(1)
    return share * area_error(pair)


def by_diagonal(predictions, annotations=None):
    """Distance to an empty mask is the diagonal of the padded image."""
    pair = Comparison.of(predictions, annotations)
    empty = (pair.annotations.areas() == 0) & pair.annotations.present
    return empty.any(1) * torch.tensor(pair.annotations.masks.shape[2:]).float().norm() / 100


def two_sets(predictions, annotations):
    return (predictions.weights * predictions.areas()).sum(1)


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"function": lambda p, a=None: area_error(p, a).mean()}, "one_value_for_each_image"),
        ({"function": lambda p, a=None: (100 * area_error(p, a)).long()}, "one_value_for_each_image"),
        ({"function": lambda p, a=None: area_error(p, a) * 5}, "values_lie_in_their_bounds"),
        ({"higher_is_better": True}, "perfect_is_not_worse"),
        (
            {"function": lambda p, a=None: area_error(p, a).mean().expand(len(area_error(p, a)))},
            "images_are_independent",
        ),
        ({"function": without_weights}, "masks_of_weight_0_are_not_there"),
        ({"function": by_numbers}, "the_number_of_void_does_not_matter"),
        ({"function": void_as_background}, "pixels_of_void_do_not_count"),
        ({"function": by_size_of_the_batch}, "padding_changes_nothing"),
        ({"function": by_diagonal}, "padding_changes_nothing"),
    ],
)
def test_a_planted_fault_is_found(change, check) -> None:
    with pytest.raises(AssertionError, match=f"^area_error-(binary|multi-class): {check}: [^\n]+$"):
        check_metric(replace(AREA, **change), [check])


def test_a_metric_without_comparisons_is_found() -> None:
    for function in (two_sets, lambda p, a: area_error(p, a)):
        with pytest.raises(AssertionError, match="default None and begin with 'pair = Comparison.of"):
            check_metric(replace(AREA, function=function), ["a_comparison_gives_the_same"])


def test_an_unknown_check_is_refused() -> None:
    assert "images_are_independent" in METRIC_CHECKS
    with pytest.raises(UnknownNameError, match="unknown check 'image_is_independent'"):
        check_metric(AREA, ["image_is_independent"])


def test_an_entry_point_is_found(tmp_path) -> None:
    info = tmp_path / "area_metrics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: area-metrics\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ambiseg.metrics]\narea_error = area_metrics:AREA\n")
    (tmp_path / "area_metrics.py").write_text(
        "from ambiseg import MetricInfo\n"
        "AREA = MetricInfo('area_error', 'Area error', lambda p, a=None: 0, False, 0.0, 1.0, 'Nothing.')\n"
    )
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ambiseg.metrics import METRICS, metric_info;"
        " import area_metrics; assert metric_info('area_error') is area_metrics.AREA;"
        " assert len(METRICS) == len(list(METRICS))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
