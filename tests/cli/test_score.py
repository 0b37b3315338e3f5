"""``ambiseg score``: tables, files, and the words for mistakes."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import re

import numpy as np
import pytest

from ambiseg.data.source import open_split
from ambiseg.engine.score import score_files
from ambiseg.metrics import METRICS, Difference, Interval
from ambiseg.metrics.registry import listed
from ambiseg.report.score_tables import Column, score_list


@pytest.fixture(scope="module")
def systems(fires, tmp_path_factory):
    """Two arrays of random masks for the 5 test images: ``a.npz`` of 3 masks, ``b.npz`` of 6."""
    folder, ids = tmp_path_factory.mktemp("systems"), open_split(fires, "test").ids
    rng = np.random.default_rng(0)
    for name, count in (("a", 3), ("b", 6)):
        masks = rng.integers(0, 2, (5, count, 16, 16)).astype(np.uint8)
        np.savez(folder / f"{name}.npz", masks=masks, ids=np.array(ids))
    return folder / "a.npz", folder / "b.npz"


def _scored(systems, fires, **settings):
    return score_files(systems, fires, names=("one", "two"), **settings)


def test_text_names_what_was_measured(cli, systems, fires):
    done = cli("score", *systems, "--data", fires, "--names", "one,two", "--metrics", "ged,ece")
    assert done.status == 0 and done.err == ""
    found = _scored(systems, fires, metrics=["ged", "ece"])
    for system in found.systems:
        assert f"{system.values['ged']:.4f}" in done.out and f"{system.values['ece']:.4f}" in done.out
        assert f"{system.figures.oracle['ged']:.4f}" in done.out
    assert f"{found.systems[1].differences['ged'].mean:+.4f}" in done.out
    for words in (
        "split test: 5 images",
        found.data_digest[:12],
        found.settings_digest[:12],
        "dialect ambiseg; classes foreground",
        "95% intervals of 1000 resamples of 5 images; differences are paired",
    ):
        assert words in " ".join(done.out.split())


def test_markdown_and_latex_have_the_same_words(cli, systems, fires):
    words = ("score", *systems, "--data", fires, "--metrics", "ged", "--dialect", "wildfire")
    found = score_files(systems, fires, metrics="ged", dialect="wildfire")
    low, high = found.systems[0].intervals["ged"]
    cell = f"{found.systems[0].values['ged']:.4f} [{low:.3f}, {high:.3f}]"
    markdown = cli(*words, "--format", "markdown").out
    assert cell.replace("[", "\\[").replace("]", "\\]") in markdown
    latex = cli(*words, "--format", "latex").out
    assert cell.replace("[", "{[}").replace("]", "{]}") in latex
    assert "metric \\[wildfire\\]" in markdown and "metric {[}wildfire{]}" in latex
    for text in (markdown, latex):
        assert found.data_digest[:12] in text and "dialect wildfire" in text and "5 images" in text


def test_csv_has_a_row_for_each_system_and_metric(cli, systems, fires):
    done = cli(
        "score", *systems, "--data", fires, "--names", "one,two", "--metrics", "ged,ece", "--format", "csv"
    )
    rows = list(csv.DictReader(io.StringIO(done.out)))
    found = _scored(systems, fires, metrics=["ged", "ece"])
    assert [(row["system"], row["metric"]) for row in rows] == [
        (name, metric) for name in ("one", "two") for metric in ("ged", "ece")
    ]
    for row in rows:
        system = found.systems[("one", "two").index(row["system"])]
        assert float(row["value"]) == system.values[row["metric"]]
        assert (float(row["low"]), float(row["high"])) == system.intervals[row["metric"]]
        assert (row["difference"] == "") == (row["system"] == "one")
        assert (row["data digest"], row["images"], row["dialect"]) == (found.data_digest, "5", "ambiseg")
    assert [row["masks per image"] for row in rows] == ["3", "3", "6", "6"]


def test_csv_has_infinite_figures_as_words():
    """A spreadsheet takes them as numbers: no apostrophe."""
    nothing = Interval(math.nan, math.nan)
    column = Column("a", "3", {"mode_kl": math.inf}, {}, {"mode_kl": Difference(-math.inf, nothing)}, {})
    (row,) = csv.DictReader(io.StringIO(score_list([column], {}).csv()))
    assert (row["value"], row["difference"], row["difference low"]) == ("inf", "-inf", "")


def test_json_and_files_hold_everything(cli, systems, fires, tmp_path):
    out = tmp_path / "scores"
    words = ("score", *systems, "--data", fires, "--names", "one,two", "--metrics", "ged", "--out", out)
    done = cli(*words, "--json")
    printed, saved = json.loads(done.out), json.loads((out / "score.json").read_text())
    assert saved == _scored(systems, fires, metrics=["ged"]).to_dict()
    assert {key: value for key, value in printed.items() if key != "data"} == saved
    rows = list(csv.DictReader(io.StringIO((out / "per_image.csv").read_text())))
    assert [row["id"] for row in rows] == list(open_split(fires, "test").ids)
    assert np.mean([float(row["two: ged"]) for row in rows]) == pytest.approx(
        saved["systems"]["two"]["metrics"]["ged"], abs=1e-5
    )
    assert "exists already" in cli(*words).error
    assert cli(*words, "--overwrite").status == 0
    (out / "mine.txt").write_text("notes")
    assert "ambiseg did not write" in cli(*words, "--overwrite").error
    assert (out / "mine.txt").read_text() == "notes"


def test_missing_images_stand_in_every_form(cli, fires, tmp_path):
    ids = open_split(fires, "test").ids
    np.savez(tmp_path / "p.npz", masks=np.zeros((4, 2, 16, 16), np.uint8), ids=np.array(ids[1:]))
    words = ("score", tmp_path / "p.npz", "--data", fires, "--metrics", "ged")
    assert f"1 of 5 images are missing, {ids[0]!r}" in cli(*words).error
    words = (*words, "--allow-missing")
    done = cli(*words)
    assert "4 of 5 images, the others have no prediction" in done.out
    assert f"warning: p.npz: predictions of 1 of 5 images are missing, {ids[0]!r}" in done.err
    assert "4 of 5 images" in cli(*words, "--format", "markdown").out
    assert next(csv.DictReader(io.StringIO(cli(*words, "--format", "csv").out)))["missing"] == "1"
    assert json.loads(cli(*words, "--json").out)["missing"] == [ids[0]]


def test_a_metric_without_meaning_is_left_out_with_the_reason(cli, tmp_path):
    """Two annotations of every image that differ are equally probable."""
    from ambiseg.data.info import DatasetInfo
    from ambiseg.data.sample import Sample
    from ambiseg.data.source import write_dataset

    rng = np.random.default_rng(0)
    samples = [
        Sample(
            f"i{i}",
            rng.random((1, 6, 6)),
            rng.integers(0, 2, (2, 6, 6)).astype(np.uint8),
            np.full(2, 0.5),
            ("a", "b"),
        )
        for i in range(4)
    ]
    data = write_dataset(tmp_path / "d", {"test": samples}, DatasetInfo("d"))
    np.save(tmp_path / "p.npy", np.stack([sample.masks for sample in samples]))
    done = cli("score", tmp_path / "p.npy", "--data", data)
    assert "left out: BSS, BSS (nearest): in 100% of the images" in done.out
    assert not any(line.split()[:1] == ["BSS"] for line in done.out.splitlines())
    assert "in the order of the split" in done.err
    named = cli("score", tmp_path / "p.npy", "--data", data, "--metrics", "brier_skill_score")
    assert any(line.split()[:1] == ["BSS"] for line in named.out.splitlines())


def test_mistakes_are_one_sentence(cli, systems, fires, tmp_path):
    one = ("score", systems[0], "--data", fires)
    assert "2 names for 1 system" in cli(*one, "--names", "a,b").error
    assert "given twice" in cli("score", systems[0], systems[0], "--data", fires).error
    assert "no predictions at" in cli("score", tmp_path / "none", "--data", fires).error
    assert "did you mean 'ged'" in cli(*one, "--metrics", "gedd").error
    assert "did you mean 'ged'" in cli(*one, "--metrics", "GED").error
    assert (
        "bits_per_dimension needs probabilities of pixels"
        in cli(*one, "--metrics", "bits_per_dimension").error
    )
    assert "selection_f1 needs selection scores" in cli(*one, "--metrics", "selection_f1").error
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("")
    assert "was not made by ambiseg" in cli(*one, "--out", mine).error
    assert "give one of them" in cli(*one, "--json", "--format", "csv").error
    (tmp_path / "empty").mkdir()
    assert "holds no folder of masks" in cli("score", tmp_path / "empty", "--data", fires).error
    (tmp_path / "p.txt").write_text("")
    assert "name a folder of 'ambiseg predict'" in cli("score", tmp_path / "p.txt", "--data", fires).error


def test_titles_name_their_metrics(cli, systems, fires):
    for name, info in METRICS.items():
        assert listed([info.title, info.title.lower(), name]) == [name]
    words = ("score", systems[0], "--data", fires, "--json", "--metrics")
    found = json.loads(cli(*words, "HM IoU*, GED²").out)["systems"]["a.npz"]["metrics"]
    assert list(found) == ["hm_iou_unique", "ged"]
    assert "ends with a comma: leave out blanks behind commas" in cli(*words, "ged,", "hm_iou").error


def test_the_page_holds_the_table_and_the_values_of_images(cli, systems, fires, tmp_path):
    """It needs no other file and runs no script; names from strangers are escaped."""
    out = tmp_path / "scores"
    names = "<b>one,two & more"
    words = (
        "score",
        *systems,
        "--data",
        fires,
        "--names",
        names,
        "--metrics",
        "ged,hm_iou_unique",
        "--out",
        out,
    )
    page = cli(*words, "--format", "html").out
    found = score_files(systems, fires, names=tuple(names.split(",")), metrics=["ged", "hm_iou_unique"])
    assert (out / "score.html").read_text() == page
    assert "&lt;b&gt;one" in page and "<b>one" not in page and "two &amp; more" in page
    assert (
        "<script" not in page
        and "default-src 'none'" in page
        and "http" not in page.replace("http-equiv", "")
    )
    assert METRICS["ged"].description in html.unescape(page)
    links = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)" download', page)
    for link, system in zip(links, found.systems, strict=True):
        rows = list(csv.DictReader(io.StringIO(base64.b64decode(html.unescape(link)).decode())))
        assert [row["id"] for row in rows] == list(system.figures.ids)
        assert [float(row["ged"]) for row in rows] == pytest.approx(system.figures.per_image["ged"], abs=1e-5)
    best = min(found.systems, key=lambda system: system.values["ged"])
    assert f"<b>{best.values['ged']:.4f}" in page
    row = page[page.index('<td class="title" data-head="metric">GED²') :]
    assert re.findall('data-head="([^"]*)"', row[: row.index("</tr>")]) == re.findall(
        '<th scope="col" class="[a-z]+">([^<]*)', page
    )
    assert re.search(r"<b>[\d.]+ <span>\[[\d.]+, [\d.]+\]</span></b>", row)  # lines break between them
    markdown = cli(*words[:-2], "--format", "markdown").out
    assert (out / "score.md").read_text() == markdown and f"**{best.values['ged']:.4f}" in markdown


def test_what_figures_are_of_stands_in_every_form(cli, fires, tmp_path):
    """Images without a value, why there is none, p values, and remarks."""
    ids = open_split(fires, "test").ids
    masks = np.random.default_rng(0).integers(0, 2, (5, 3, 16, 16)).astype(np.uint8)
    lost = masks.copy()
    lost[0] = 0
    for name, values in (("a", masks), ("b", lost)):
        np.savez(tmp_path / f"{name}.npz", masks=values, ids=np.array(ids))
    np.save(tmp_path / "c.npy", masks)
    files = [tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "c.npy"]
    words = ("score", *files, "--data", fires, "--dialect", "kohl", "--metrics", "ged,diversity")
    found = score_files(files, fires, dialect="kohl", metrics=["ged", "diversity"])
    p = found.systems[1].corrected["diversity"]
    forms = {form: cli(*words, "--format", form).out for form in ("text", "markdown", "latex", "html")}
    for form, text in forms.items():
        plain = " ".join(html.unescape(text).replace("\\", "").split())
        assert "(of 4 images)" in plain and f"p = {p:.3f}" in plain, form
        assert "none is marked as best" in plain and "corrected for 2 comparisons (Holm)" in plain, form
        assert "names no ids" in plain or form == "text", form
    assert "names no ids" in cli(*words).err
    rows = list(csv.DictReader(io.StringIO(cli(*words, "--format", "csv").out)))
    assert [row["images with value"] for row in rows] == ["5", "5", "4", "4", "5", "5"]
    assert float(rows[3]["p"]) == found.systems[1].p_values["diversity"] and float(rows[3]["p holm"]) == p
    assert "names no ids" in rows[0]["remarks"]
    record = json.loads(cli(*words, "--json").out)["systems"]["b.npz"]
    assert record["images_with_value"] == {"ged": 4, "diversity": 4}


def test_help_says_that_predictions_are_needed(cli):
    shown = cli("score", "--help").out
    assert "PREDICTIONS..." in shown and "[PREDICTIONS" not in shown
    assert "nothing to measure" in cli("score", "--data", "d").error
