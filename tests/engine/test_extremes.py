"""Training on extreme data ends with finite weights and valid predictions, or one sentence says what is wrong."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from ambiseg.methods import METHODS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "reliability"
REFUSED = {"nan", "infinite"}


@pytest.fixture
def extremes(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("extremes")


def check(extremes, case, method, labels, place, updates):
    data = extremes.write_case(place / "data", extremes.CASES[case])
    found = extremes.outcome(method, data, place / "run", updates, labels)
    if case not in REFUSED:
        assert found == extremes.TRAINED
        return
    wrong = data / "train" / "images" / "train-0.npy"
    count = int((~np.isfinite(np.load(wrong))).sum())
    remedy = "replace them by a finite number, such as 0"
    hint = f"'ambiseg data check {data}' lists all such files by cause"
    assert found == f"refused: {wrong}: {count} values are NaN or infinite: {remedy}; {hint}"
    assert not (place / "run").exists()


CASES = [
    "all empty",
    "all full",
    "one pixel",
    "class missing",
    "all void",
    "constant",
    "all 65535",
    "nan",
    "infinite",
]


def test_these_are_the_cases(extremes):
    assert list(extremes.CASES) == CASES


@pytest.mark.parametrize("case", CASES)
def test_one_method(extremes, case, tmp_path):
    """What the methods share; `ambiseg.testing.CHECKS` tries the losses of all of them."""
    check(extremes, case, "m-heads", "full", tmp_path, 5)


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["full", "single"])
@pytest.mark.parametrize("case", [case for case in CASES if case not in REFUSED])
@pytest.mark.parametrize("method", METHODS)
def test_every_method(extremes, method, case, labels, tmp_path):
    check(extremes, case, method, labels, tmp_path, 30)
