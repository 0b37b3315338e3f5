"""Benchmark scripts and suites fit the library as it is; each script begins with the command that runs it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from pathlib import Path

import pytest

from ambiseg.engine.suite import load_suite
from ambiseg.labels import LabelSpace
from ambiseg.metrics import METRICS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = BENCHMARKS.parent / "docs" / "results"
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


def test_ranks_are_those_that_were_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The closed forms; four classes have fewer draws here."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    importlib.import_module("synthetic").main(["effective-rank", "--quick", "--out", str(tmp_path)])
    found, recorded = (json.loads((p / "effective-rank.json").read_text()) for p in (tmp_path, RESULTS))
    assert list(found["curves"]) == list(recorded["curves"])
    for name, rows in found["curves"].items():
        if "of 4" not in name:
            for row, expected in zip(rows, recorded["curves"][name], strict=False):
                assert row == pytest.approx(expected, rel=2e-3), name
    assert (tmp_path / "effective-rank.png").read_bytes().startswith(b"\x89PNG")


def test_shapes_are_measured_against_their_entropy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    synthetic = importlib.import_module("synthetic")
    synthetic.main(["markov-shapes", "--quick", "--out", str(tmp_path)])
    found, recorded = (json.loads((p / "markov-shapes.json").read_text()) for p in (tmp_path, RESULTS))
    assert list(found) == list(recorded)
    for name, record in found.items():
        assert record["bits_per_dimension"] > synthetic.FLOOR
        assert record["gap"] == pytest.approx(record["bits_per_dimension"] / synthetic.FLOOR - 1, abs=1e-3)
        assert record["parameters"] == recorded[name]["parameters"], name
        assert 0 <= record["errors"] <= 1 and 0 <= record["total_variation"] <= 1
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.parametrize(("p", "one", "two"), [(0.5, 0.284, 0.126), (0.2, 0.215, 0.097)])
def test_two_channels_show_a_flow_more(
    p: float, one: float, two: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At t = .7; the quadrature and what is drawn, and two channels at t are one at a later time."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("flow_ssn_channels")
    for channels, expected in ((1, one), (2, two)):
        assert module.exact(0.7, channels, p) == pytest.approx(expected, abs=6e-4)
        labels = LabelSpace.binary().with_binary_channels(channels)
        assert module.drawn(0.7, labels, p, draws=100_000) == pytest.approx(expected, abs=0.01)
        assert module.exact(0.0, channels, p) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    odds = math.sqrt(2) * 0.7 / 0.3
    assert module.exact(odds / (1 + odds), 1, p) == pytest.approx(module.exact(0.7, 2, p))


def test_the_pictures_of_metrics_have_their_numbers(tmp_path: Path) -> None:
    """Parts that draw no random masks equal what was recorded."""
    path = BENCHMARKS.parent / "examples" / "metric_pictures.py"
    spec = importlib.util.spec_from_file_location("metric_pictures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "pictures.json").read_text())
    recorded = json.loads((RESULTS / "metrics" / "pictures.json").read_text())
    for part, names in {
        "matching": ["hm_iou", "hm_iou_tiled", "hm_iou_multi", "max_dice_matching", "ged"],
        "draws": ["coverage_curve"],
    }.items():
        for name in names:
            assert found[part][name] == pytest.approx(recorded[part][name], abs=2e-4), name
    for how in ("matched", "nearest", "merged"):
        for name, expected in recorded["duplicates"][how].items():
            assert found["duplicates"][how][name] == pytest.approx(expected, abs=2e-4), (how, name)
    for name in ("all masks", "kept masks"):
        assert found["columns"][name] == pytest.approx(recorded["columns"][name], abs=2e-4), name
    assert found["draws"]["expected_draws"] == pytest.approx(recorded["draws"]["expected_draws"], rel=1e-4)
    assert found["energy"]["perfect"]["d(S,Y)"] > 0 and math.isfinite(found["dialects"]["spread"])
    drawn = {picture.name for picture in tmp_path.glob("*.png")}
    assert drawn == {picture.name for picture in (RESULTS / "metrics").glob("*.png")}


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
    assert tables.drawn({**spec, "where": {"n": [2, 3]}}, tmp_path).splitlines()[2:] == [
        "| a | 0.500 | 3 | 3 of – |"
    ]
    spec = {"file": "x.json", "head": ["t"], "lines": [["{10*runs.a.t:.1f} ms"]], "note": "{runs.a.n} runs"}
    assert tables.drawn(spec, tmp_path).splitlines()[2:] == ["| 5.0 ms |", "", "3 runs"]
    assert tables.drawn({"file": "y.json", "rows": "*", "columns": {}}, tmp_path) == tables.NOT_YET


def test_tables_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = importlib.import_module("tables")
    assert tables.drawn({"join": {"x.md": {"a": "b"}}}, tmp_path) == tables.NOT_YET
    monkeypatch.setattr("sys.argv", ["tables.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        tables.main()
    assert "usage: tables.py" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["tables.py"])
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    with pytest.raises(SystemExit, match="results is not there: run this script in a checkout"):
        tables.main()


def test_tables_of_suites_are_joined_by_method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = importlib.import_module("tables")
    head = "### x\n\n| method | HM IoU\\* ↑, n = 4 | masks |\n| --- | --- | --- |\n"
    oracles = "| oracle | 0.7 | 2 |\n| oracle | 0.8 | 4 |\n| a: Paper (1999) | 0.9 | 4 |\n"
    (tmp_path / "one.md").write_text(head + "| a | **0.5** | 4 |\n" + oracles + "\n- a note\n")
    (tmp_path / "two.md").write_text(head + "| b | 0.6 | 2 |\n| a | 0.4 | 4 |\n")
    columns = {"one.md": {"one": "HM IoU*"}, "two.md": {"two": "HM IoU*", "masks": "masks"}}
    assert tables.drawn({"join": columns}, tmp_path).splitlines() == [
        "| method | one | two | masks |",
        "| --- | --- | --- | --- |",
        "| a | **0.5** | 0.4 | 4 |",
        "| oracle | 0.8 |  |  |",
        "| b |  | 0.6 | 2 |",
    ]
    assert tables.drawn({"join": columns, "only": ["b"]}, tmp_path).splitlines()[2:] == ["| b | 0.6 | 2 |"]
