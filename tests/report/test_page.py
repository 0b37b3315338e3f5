"""The page is one self-contained HTML file that says everything it was given and runs nothing."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS
from ambiseg.metrics.tables import MetricRow
from ambiseg.report.data_page import Example, TextTable, write_data_page
from ambiseg.report.page import Case, CaseGroup, ReportContent, write_report

EVIL = "<script>alert(1)</script>\"'><img src=http://x.y/z onerror=alert(2)> & \udc80 $x"
VOID_TAGS = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed by its own."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], []
        self.feed(page)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def small_set(classes=2, count=3, scores=True):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, classes, (1, count, 16, 16), generator=generator).to(torch.uint8)
    chosen = torch.rand(1, count, generator=generator) if scores else None
    return MaskSet(masks, torch.full((1, count), 1 / count), LabelSpace.of_classes(classes), chosen)


def case(name="a", value=0.5, classes=2):
    image = np.random.default_rng(0).random((3, 16, 16))
    return Case(name, value, image, small_set(classes, 4, scores=False), small_set(classes))


def content(**changes):
    parts = {
        "title": "A run",
        "summary": [("method", "mode-proposals"), ("seed", 0)],
        "curve": [{"step": i, "train_loss": 1.0 / (i + 1)} for i in range(5)],
        "metrics": [MetricRow.of(name, 0.125) for name in METRICS],
        "reliability": ([0.1, 0.9], [0.2, 0.8]),
        "groups": [CaseGroup("Best", [case("a")], "HM IoU*"), CaseGroup("Worst", [case("b", float("nan"))])],
        "commands": [("Train it", "ambiseg train mode-proposals --data 'my data'")],
    }
    return ReportContent(**parts | changes)


def written(tmp_path, **changes):
    path = tmp_path / "report.html"
    write_report(content(**changes), path)
    page = path.read_text(encoding="utf-8")
    return Reader(page), page


def test_page_says_everything_it_was_given(tmp_path):
    reader, page = written(tmp_path)
    text = " ".join(reader.text)
    for info in METRICS.values():
        assert info.title in text and info.description in text
    for word in ("A run", "mode-proposals", "seed", "Best", "Worst", "Train", "--data 'my data'", "0.1250"):
        assert word in text
    pictures = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(pictures) == 7 and all(attributes["alt"] for attributes in pictures)
    for attributes in pictures:
        kind, _, data = attributes["src"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            ratio = int(attributes["width"]) / int(attributes["height"])
            assert picture.width / picture.height == pytest.approx(ratio, rel=0.02)
    assert page.startswith("<!DOCTYPE html>")


def test_page_needs_and_runs_nothing(tmp_path):
    reader, page = written(tmp_path)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    assert "http://" not in page and "https://" not in page and "@import" not in page
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")


def test_hostile_words_stay_words(tmp_path):
    reader, page = written(
        tmp_path,
        title=EVIL,
        subtitle=EVIL,
        footer=EVIL,
        summary=[(EVIL, EVIL)],
        columns=[EVIL],
        metrics=[MetricRow("x", EVIL, (1.0,), EVIL, True)],
        groups=[CaseGroup(EVIL, [case(EVIL)], EVIL)],
        commands=[(EVIL, EVIL)],
    )
    assert "<script" not in page.lower()
    assert all(attributes["src"].startswith("data:") for tag, attributes in reader.tags if tag == "img")
    assert " ".join(reader.text).count("<script>alert(1)</script>") >= 10


def test_parts_that_are_empty_are_left_out(tmp_path):
    path = tmp_path / "report.html"
    write_report(ReportContent("Only a title"), path)
    reader = Reader(path.read_text(encoding="utf-8"))
    assert {"img", "table", "section", "footer"}.isdisjoint(tag for tag, _ in reader.tags)
    write_report(content(groups=[CaseGroup("None", [])], reliability=([], []), curve=[]), path)
    assert "img" not in {tag for tag, _ in Reader(path.read_text(encoding="utf-8")).tags}


def test_modes_stand_beside_their_numbers(tmp_path):
    rows = [MetricRow.of("brier_skill_score", 0.625), MetricRow.of("total_variation", float("nan"))]
    reader, page = written(
        tmp_path, reliability=([0.1, 0.9, 0.3, 0.0], [0.2, 0.6, 0.0, 0.2]), mode_metrics=rows
    )
    text = " ".join(reader.text)
    assert "each of the 3 modes" in text and "BSS 0.6250" in text and "TV of modes –" in text
    assert page.count("matched with it, one to one") == 1 and "no scatter" not in page


def test_single_masks_have_neither_scatter_nor_bars(tmp_path):
    one = Case("one", 0.5, np.zeros((3, 16, 16)), small_set(count=1, scores=False), small_set())
    same = MaskSet.uniform(one.annotations.masks.repeat(1, 3, 1, 1), LabelSpace.binary())
    groups = [CaseGroup("All", [one, Case("same", 0.5, one.image, same, one.predictions)])]
    reader, page = written(tmp_path, groups=groups, reliability=([0.7, 0.3, 0.0], [1.0, 0.0, 1.0]))
    alts = [attributes["alt"] for tag, attributes in reader.tags if tag == "img"]
    assert len(alts) == 4 and not any("mode" in alt for alt in alts)
    assert page.count("there is no scatter of them") == 1 and "Bars below" not in page
    _, page = written(tmp_path, groups=groups, reliability=None)
    assert "there is no scatter of them" not in page and "<h2>Probabilities</h2>" not in page


def test_classes_are_named_where_there_are_more_than_two(tmp_path):
    reader, page = written(tmp_path, groups=[CaseGroup("All", [case(classes=4)])])
    assert {"class 1", "class 2", "class 3"} <= set(reader.text) and "class 0" not in reader.text
    assert page.count("background: rgb(") == 3
    assert '<ul class="classes">' not in written(tmp_path)[1]


def test_nine_cases_stay_below_three_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.integers(0, 2, (1, 8, 9, 9), dtype=np.uint8)).repeat_interleave(16, 2)
    one = MaskSet.uniform(masks.repeat_interleave(16, 3), LabelSpace.binary())
    noise = Case("noise", 0.5, rng.integers(0, 256, (3, 144, 144), dtype=np.uint8), one, one)
    path = tmp_path / "report.html"
    write_report(content(groups=[]), path)
    without = path.stat().st_size
    write_report(content(groups=[CaseGroup("All", [noise])]), path)
    assert without + 9 * (path.stat().st_size - without) < 3_000_000


def test_nothing_is_left_behind_when_it_fails(tmp_path):
    path = tmp_path / "report.html"
    wrong = Case("a", 0.5, np.zeros((3, 5, 5)), small_set(), small_set())
    with pytest.raises(AmbisegError, match="do not fit"):
        write_report(content(groups=[CaseGroup("All", [wrong])]), path)
    assert not list(tmp_path.iterdir())
    path.mkdir()
    with pytest.raises(AmbisegError, match="folder"):
        write_report(ReportContent("x"), path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"] and not list(path.iterdir())


def test_a_failed_rename_keeps_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ambiseg.report.files.os.replace", refuse)
    with pytest.raises(AmbisegError, match="report.html"):
        write_report(ReportContent("new"), path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_rows_take_their_words_from_the_metrics():
    row = MetricRow.of("ged", torch.tensor(0.25))
    assert (row.title, row.values, row.arrow) == ("GED²", (0.25,), "↓")
    assert MetricRow.of("diversity", 0.1).arrow == ""
    values = (float("nan"), float("inf"), -float("inf"), None)
    assert MetricRow.of("expected_draws", *values).texts == ["–", "∞", "-∞", ""]
    with pytest.raises(UnknownNameError, match="did you mean 'ged'"):
        MetricRow.of("gedd", 0.1)


def test_plots_of_pixels_and_of_ranking_stand_side_by_side(tmp_path):
    bins = np.linspace(0.05, 0.95, 10)
    _, page = written(tmp_path, pixels=(bins, bins, np.ones(10)), coverage=[0.2, 0.4])
    section = page[page.index("Pixels and ranking") :]
    section = section[: section.index("</section>")]
    assert section.count('<div class="pair">') == 1 and section.count("<figure>") == 2


def test_folded_tables_stand_behind_the_pictures_of_the_data(tmp_path):
    tables = [
        TextTable("Within reach", ["metric", "1"], [["GED²", "0.5"]], folded=True),
        TextTable("Counts", ["", "test"], [["images", "7"]]),
    ]
    example = Example("most", np.zeros((1, 16, 16)), small_set())
    write_data_page(tmp_path / "data.html", "Data", tables=tables, examples=[("Ambiguous", [example])])
    reader = Reader((tmp_path / "data.html").read_text(encoding="utf-8"))
    text = [word for word in reader.text if word in ("Counts", "Ambiguous", "Within reach", "0.5")]
    assert text == ["Counts", "Ambiguous", "Within reach", "0.5"]
    assert [tag for tag, _ in reader.tags].count("details") == 1
