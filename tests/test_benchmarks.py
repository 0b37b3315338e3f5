"""Benchmark scripts and suites fit the library as it is; each script begins with the command that runs it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from ambiseg.engine.suite import load_suite
from ambiseg.metrics import METRICS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_fits_the_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module(name)
    assert callable(module.main)
    assert f"benchmarks/{name}.py" in (module.__doc__ or "")


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_suite_fits_the_library(path: Path) -> None:
    if path.stem != "tables":
        suite = load_suite(path)
        assert all(name in METRICS for name in suite.protocol.metrics)
