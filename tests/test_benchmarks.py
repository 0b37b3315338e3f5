"""Benchmark scripts and suites fit the library as it is; each script begins with the command that runs it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from ambiseg.engine.suite import load_suite
from ambiseg.metrics import METRICS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text())
SUITES = sorted(path for path in BENCHMARKS.glob("*.yaml") if path.stem != "tables")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_fits_the_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module(name)
    assert callable(module.main)
    assert f"benchmarks/{name}.py" in (module.__doc__ or "")


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_a_suite_fits_the_library(path: Path) -> None:
    assert all(name in METRICS for name in load_suite(path).protocol.metrics)


def test_the_pages_show_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = importlib.import_module("tables")
    pages = [tables.ROOT / "README.md", *(tables.ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for name, spec in tables.specs().items():
        shown = f"<!-- table {name} -->\n{tables.drawn(spec)}\n<!-- end -->"
        assert shown in text, f"{name}: run python benchmarks/tables.py"


def test_values_and_rows_of_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = importlib.import_module("tables")
    (tmp_path / "x.json").write_text('{"runs": {"a": {"t": 0.5, "n": 3, "none": null}, "b": {"t": [1, 2]}}}')
    columns = {"": "{@1}", "t": "{t}", "n": "{n}", "all": "{/runs.a.n} of {none}", "gone": "{gone}"}
    spec = {"file": "x.json", "rows": "runs.*", "columns": columns}
    assert tables.drawn(spec, tmp_path).splitlines()[2:] == [
        "| a | 0.500 | 3 | 3 of – |",
        "| b | 1.00 to 2.00 |  |  |",
    ]
    spec = {"file": "x.json", "head": ["t"], "lines": [["{10*runs.a.t:.1f} ms"]], "note": "{runs.a.n} runs"}
    assert tables.drawn(spec, tmp_path).splitlines()[2:] == ["| 5.0 ms |", "", "3 runs"]
    assert tables.drawn({"file": "y.json", "rows": "*", "columns": {}}, tmp_path) == tables.NOT_YET
