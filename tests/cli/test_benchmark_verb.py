"""``ambiseg benchmark``: from a suite file to tables, page and JSON; a method by its name alone is enough."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ambiseg.cli.benchmark import _not_run, _reports, _source
from ambiseg.data.layouts import LIDC
from ambiseg.data.simulators.layouts import simulate_layout
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine.benchmark import Cell
from ambiseg.engine.suite import read_suite, suite_names
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import is_empty

SUITE = """
title: Two methods on tiny fires
protocol:
  samples: 4
  metrics: [hm_iou_unique, ged]
  train: {{updates: 3, batch_size: 4, warmup: 2, validations: 1, precision: "32"}}
  backbone: {{width: 8, depth: 2}}
data:
  fires: {{path: {path}}}
  simulated: {{simulate: wildfire, options: {{scenarios: 10, size: 16}}}}
  elsewhere: {{import: cityscapes, source: nowhere}}
methods:
  m-heads:
  ssn:
papers:
  - {{paper: A paper, data: fires, differs: another size, values: {{ssn: {{ged: 0.25}}}}}}
"""


@pytest.fixture
def suite(fires, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.format(path=fires.name))
    return path


def test_a_suite_of_ones_own(cli, suite, fires, tmp_path):
    """First one method in this process, then all in processes of their own: only what is new is trained."""
    out = tmp_path / "out"
    words = ("benchmark", suite, "--out", out, "--data-root", fires.parent)
    first = cli(*words, "--methods", "m-heads", "--data", "fires", "--jobs", 0, "--json")
    assert first.status == 0, first.err
    results = json.loads(first.out)
    assert [(r["data"], r["method"], r["seed"]) for r in results["runs"]] == [("fires", "m-heads", 0)]
    assert results["missing"] == ["fires, ssn, seed 0"] and set(results["skipped"]) == {
        "simulated",
        "elsewhere",
    }
    assert results == json.loads((out / "results.json").read_text())
    assert "not run yet: fires, seed 0: ssn<" in (out / "index.html").read_text()
    config = out / "runs" / "fires" / "m-heads" / "seed-0" / "config.yaml"
    before = config.stat().st_mtime_ns

    second = cli(*words, "--data", "fires")
    assert second.status == 0, second.err
    assert "2 runs, 1 to do" in second.err and config.stat().st_mtime_ns == before
    assert "| ssn |" in second.out and "ssn: A paper †" in second.out
    assert f"ambiseg report RUN   one page about a run below {out / 'runs' / 'fires'}\n" in second.err
    with open(out / "tables" / "fires.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ours = [row["method"] for row in rows]
    assert ours == ["m-heads", "ssn", "annotation oracle", "ssn: A paper †"]
    assert 0 < float(rows[1]["HM IoU* ↑, n = 4"]) < 1 and float(rows[1]["peak memory (MiB)"]) > 100
    assert (out / "tables" / "fires.tex").exists() and "elsewhere is skipped" in (
        out / "index.html"
    ).read_text()


def test_a_failure_sets_the_status(cli, suite, fires, tmp_path):
    suite.write_text(suite.read_text().replace("  ssn:\n", "  ssn: {settings: {rank: 999999}}\n"))
    out = tmp_path / "out"
    outcome = cli(
        *("benchmark", suite, "--out", out, "--data-root", fires.parent, "--data", "simulated"),
        *("--methods", "ssn", "--jobs", 0, "--json"),
    )
    assert outcome.status == 2 and "simulated, ssn, seed 0" in outcome.err
    assert len(json.loads(outcome.out)["failures"]) == 1 and (out / "index.html").exists()
    assert [path.suffix for path in (out / "data").iterdir()] == [".h5"]


def test_lists(cli, suite):
    outcome = cli("benchmark", "--list")
    assert outcome.status == 0 and outcome.out.count("\n") == len(suite_names()) and "smoke" in outcome.out
    outcome = cli("benchmark", suite, "--list")
    assert "simulated (simulate wildfire), evaluated on all images of test\n" in outcome.out
    assert "ssn: 3 updates, batches of 4, full labels, 4 masks" in outcome.out
    listed = cli("benchmark", "paper-mose", "--list").out
    assert "\nlidc-half (0.5 of lidc), evaluated on all images of test, dialect mose\n" in listed


MASKS = """
protocol: {samples: 8}
data: {fires: {simulate: wildfire, split: val, images: 5}}
methods:
  unet-ensemble: {settings: {members: 2}}
  m-heads: {settings: {heads: 12}}
  mode-proposals: {settings: {proposals: 6}}
  ssn:
"""


def test_lists_name_the_masks_that_a_method_has(cli, tmp_path):
    """Fewer than asked for where there are fewer heads; those who sample give what is asked for."""
    path = tmp_path / "masks.yaml"
    for asked, counts in (("protocol: {samples: 8}", (2, 8, 6, 8)), ("", (2, 12, 6, 16))):
        path.write_text(MASKS.replace("protocol: {samples: 8}", asked))
        lines = cli("benchmark", path, "--list").out.splitlines()
        assert lines[2] == "fires (simulate wildfire), evaluated on 5 images of val"
        names = ("unet-ensemble", "m-heads", "mode-proposals", "ssn")
        assert [line.split(", ")[-1] for line in lines[3:]] == [f"{n} masks" for n in counts]
        assert [line.split(":")[0].strip() for line in lines[3:]] == list(names)


def test_what_to_type_next_names_the_split():
    """A data set without test split is reported on the split that was evaluated."""
    runs = [
        {"data": data, "split": split}
        for data, split in (("lidc", "val"), ("fires", "test"), ("lidc", "val"), ("camvid", "val"))
    ]
    assert _reports(runs, Path("out")) == [
        ("ambiseg report RUN --split val", "one page about a run below out/runs/lidc, out/runs/camvid"),
        ("ambiseg report RUN", "one page about a run below out/runs/fires"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a suite"),
        (("smoke", "--methods", "sns"), "did you mean 'ssn'"),
        (("smoke", "--data", "wildfires"), "did you mean 'wildfire'"),
        (("smoke", "--seeds", "0"), "--seeds must be at least 1"),
        (("smoke", "--jobs", "-1"), "--jobs must not be negative"),
        (("smok",), "did you mean 'smoke'"),
    ],
)
def test_mistakes(cli, words, message):
    assert message in cli("benchmark", *words).error


def test_without_any_data_there_is_nothing_to_do(cli, suite, tmp_path):
    text = "".join(line for line in suite.read_text().splitlines(True) if "simulated" not in line)
    suite.write_text(text)
    outcome = cli("benchmark", suite, "--data-root", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert outcome.status == 2 and "--data-root" in outcome.err and is_empty(tmp_path / "out")


def test_what_is_left_to_run_is_one_line_for_methods_that_lack_the_same_seeds():
    cells = [
        Cell(data, method, seed, Path(), Path(), {})
        for data in ("fires", "streets")
        for method in ("ssn", "mose", "atfm")
        for seed in range(3)
    ]
    left = [c for c in cells if c.seed and (c.data == "streets" or c.method != "ssn")]
    assert _not_run(left, cells) == [
        "not run yet: fires, seed 1, 2: mose, atfm",
        "not run yet: streets, seed 1, 2: every method",
    ]
    assert _not_run([], cells) == []


PARTS = """
data:
  fires: {{path: {path}}}
  half: {{part_of: fires, train_share: 0.5}}
  lidc: {{import: lidc-crops, source: crops, options: {{split: lidcv1}}, layout: lidc}}
methods: {{ssn: }}
"""


def test_a_part_of_a_data_set_has_fewer_training_images_and_the_same_others(fires, tmp_path):
    suite = read_suite(PARTS.format(path=fires.name), "parts")
    half = _source("half", suite, tmp_path, fires.parent, True)
    whole, part = open_split(fires, "train"), open_split(half, "train")
    assert len(part) == round(len(whole) / 2) and set(part.ids) < set(whole.ids)
    assert open_split(half, "val").digest() == open_split(fires, "val").digest()
    other = tmp_path / fires.name
    write_dataset(other, {s: list(open_split(fires, s))[:4] for s in ("train", "val")}, whole.info)
    with pytest.raises(AmbisegError, match="has not been made yet: leave --data out, or add half to it"):
        _source("half", suite, tmp_path, other.parent, False)
    assert _source("half", suite, tmp_path, fires.parent, False) == half
    later = _source("half", suite, tmp_path, other.parent, True)
    assert (
        later != half and len(open_split(later, "train")) == 2 and open_split(half, "train").ids == part.ids
    )
    with pytest.raises(AmbisegError, match="train_share is above 0 and at most 1, received 2"):
        read_suite(PARTS.format(path="x").replace("0.5", "2.0"), "parts")


def test_data_of_a_paper_are_imported_by_hand_or_told_how(fires, tmp_path):
    suite = read_suite(PARTS.format(path=fires.name), "parts")
    told = f"'ambiseg data import lidc-crops SOURCE --split lidcv1 --out {tmp_path / 'lidc.h5'}' makes it"
    with pytest.raises(AmbisegError) as failure:
        _source("lidc", suite, tmp_path / "out", tmp_path, True)
    assert told in str(failure.value)
    simulate_layout(LIDC, tmp_path / "lidc.h5")
    assert _source("lidc", suite, tmp_path / "out", tmp_path, True) == tmp_path / "lidc.h5"


def test_a_data_set_in_place_of_an_import_is_named_and_must_have_its_layout(cli, tmp_path):
    path, root = tmp_path / "mine.yaml", tmp_path / "root"
    path.write_text(
        "protocol: {train: {updates: 2, batch_size: 2}, backbone: {width: 8, depth: 2}, samples: 2}\n"
        "data: {lidc: {layout: lidc}, fires: {layout: mmfire}}\nmethods: {ssn: }\n"
    )
    root.mkdir()
    simulate_layout(LIDC, root / "lidc.h5")
    simulate_layout(LIDC, root / "fires.h5")
    outcome = cli("benchmark", path, "--data-root", root, "--out", tmp_path / "out", "--jobs", 0)
    assert outcome.status == 0
    assert f"lidc: {root / 'lidc.h5'} stands in for the import of {root / 'lidc-crops'}\n" in outcome.err
    wrong = f"{root / 'fires.h5'} has 2 classes and 1 channels, but the layout mmfire has 2 and 7: rename it, then '"
    assert f"fires is skipped: {wrong}" in outcome.err and "fires: " not in outcome.err.replace(wrong, "")
