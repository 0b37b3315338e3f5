"""Means, deviations and tests of significance by closed forms; every format says the same and escapes what it
is given."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest

from ambiseg.escaping import of_csv_cell
from ambiseg.report.benchmark_page import DataSection, write_benchmark_page
from ambiseg.report.benchmark_tables import (
    Measured,
    Printed,
    against_best,
    data_table,
    holm,
    marks,
)
from ambiseg.report.text_tables import Entry, Table

EVIL = "<script>alert(1)</script> & x_1 | 100% \\ # {~^}"


def run(method, values, seed=0, metric="ged", **options):
    """A run whose images have these values of one metric, and whose mean they have."""
    facts = {
        "data": "fires",
        "labels": "full",
        "split": "test",
        "images": len(values),
        "masks": 4.0,
        "oracle": {metric: 0.1},
        "steps": 10,
        "training_seconds": 120.0,
        "parameters": 2_500_000,
        "seconds_per_image": 0.002,
        "peak_memory": 512.0,
        "hardware": "cpu",
        "annotators": {"pairwise_iou": 0.5},
        "coverage": [0.2, 0.4],
        "estimated": [0.0, 0.25, 0.75],
        "true": [0.5, 0.25, None],
    }
    per_image = {metric: list(values)}
    return Measured(
        method=method,
        seed=seed,
        metrics={metric: float(np.mean(values))},
        per_image=per_image,
        **{**facts, **options},
    )


def column(table, name):
    place = next(i for i, title in enumerate(table.header) if title.startswith(name))
    return [row[place] for row in table.rows]


def test_mean_and_deviation_over_seeds():
    """0.2 and 0.4: mean 0.3, standard deviation 0.2 / sqrt(2)."""
    table = data_table([run("a", [0.1, 0.3]), run("a", [0.3, 0.5], seed=1), run("b", [0.5, 0.5])], ["ged"])
    a, b, oracle = column(table, "GED²")
    assert a.value == pytest.approx(0.3) and a.std == pytest.approx(0.2 / 2**0.5)
    assert (a.text, b.text, oracle.text) == ("0.300 ± 0.141", "0.500", "0.100")
    assert [e.text for e in column(table, "seeds")] == ["2", "1", ""]
    assert [e.text for e in column(table, "masks")] == ["4.0", "4.0", "4.0"]
    costs = [column(table, name)[0].text for name in ("parameters", "training", "ms/image", "peak")]
    assert costs == ["2.50", "2.0", "2.0", "512"]
    assert "GED² ↓, n = 4" in table.header and "2 images of the split test" in table.title
    assert any("V-statistic" in note for note in table.notes)


def test_holm_by_its_definition():
    rng = np.random.default_rng(0)
    p = rng.random(6) ** 3
    order = np.sort(p)
    expected = [max(min(1.0, (6 - j) * order[j]) for j in range(i + 1)) for i in range(6)]
    assert np.allclose(np.sort(holm(list(p))), expected)
    assert holm([]) == [] and holm([0.6, 0.7]) == [1.0, 1.0]


def test_the_test_is_paired_over_images_and_corrected():
    """n differences of one sign have the two-sided exact p-value 2 / 2^n; Holm doubles the lesser of two."""
    rng = np.random.default_rng(0)
    hard = rng.random(8)
    images = {"a": hard, "b": hard + np.linspace(0.01, 0.02, 8), "c": hard + np.linspace(0.03, 0.05, 8)}
    figures = {name: float(values.mean()) for name, values in images.items()}
    exact = 2 / 2**8
    assert against_best(figures, images, higher_is_better=False) == pytest.approx(
        {"b": 2 * exact, "c": 2 * exact}
    )
    assert set(against_best(figures, images, higher_is_better=True)) == {"a", "b"}
    images["b"] = np.where(np.arange(8) < 2, np.nan, images["b"])
    assert against_best(figures, images, False)["b"] == pytest.approx(2 / 2**6)
    assert against_best(figures, {**images, "b": hard}, False)["b"] == 1.0
    assert against_best({"a": 0.1, "b": float("nan")}, images, False) == {}


def test_bold_only_where_the_best_differs_from_all_others():
    hard = np.random.default_rng(1).random(12)
    up = np.linspace(0.1, 0.2, 12)
    sign = np.where(np.arange(12) % 2, 1, -1)
    best, like, worse = run("a", hard), run("b", hard + 1e-3 + 0.01 * sign * up), run("c", hard + up)
    assert [e.mark for e in column(data_table([best, worse], ["ged"]), "GED²")] == ["bold", "", ""]
    table = data_table([worse, like, best], ["ged"])
    assert [e.mark for e in column(table, "GED²")] == ["", "italic", "italic", ""]
    alone = data_table([best], ["ged"])
    assert column(alone, "GED²")[0].mark == ""
    pooled = [run(name, values, metric="ece") for name, values in (("a", hard), ("c", hard + up))]
    assert {e.mark for e in column(data_table(pooled, ["ece"]), "ECE")} == {""}
    undirected = [run(name, values, metric="diversity") for name, values in (("a", hard), ("c", hard + up))]
    assert {e.mark for e in column(data_table(undirected, ["diversity"]), "Diversity")} == {""}
    assert marks({"a": 0.1, "b": 0.2}, {"b": 0.049}, higher_is_better=False) == {"a": "bold"}


@pytest.mark.parametrize(("images", "mark"), [(5, ""), (6, "bold")])
def test_too_few_images_are_not_tested(images, mark):
    """The least p-value of n images is 2 / 2^n: .0625 of five, .03125 of six."""
    hard = np.random.default_rng(2).random(images)
    table = data_table([run("a", hard), run("b", hard + np.linspace(0.1, 0.2, images))], ["ged"])
    assert [e.mark for e in column(table, "GED²")][:2] == [mark, ""]


def test_what_is_not_defined_or_not_measured():
    nowhere = run("b", [0.5, 0.5], metric="ece")
    broken = run("c", [0.5, 0.5])
    broken = Measured(**{**vars(broken), "metrics": {"ged": None}, "per_image": {"ged": [None, None]}})
    table = data_table([run("a", [0.1, 0.2]), nowhere, broken], ["ged"])
    assert [e.text for e in column(table, "GED²")][:3] == ["0.150", "", "–"]


def test_printed_values_stand_beside_ours_marked_where_the_protocol_differs():
    papers = [
        Printed("Same (1999), table 1", "fires", {"a": {"ged": (0.25, 0.01)}}, samples=16),
        Printed("Other (2001)", "fires", {"a": {"ged": (0.5, None)}}, differs="another split"),
    ]
    table = data_table([run("a", [0.1, 0.2])], ["ged"], papers)
    assert [row[0].text for row in table.rows[-2:]] == ["a: Same (1999), table 1", "a: Other (2001) †"]
    assert [e.text for e in column(table, "GED²")[-2:]] == ["0.250 ± 0.010", "0.500"]
    assert [e.text for e in column(table, "masks")[-2:]] == ["16", ""]
    assert table.notes[-1] == "† Other (2001), different protocol: another split."


@pytest.fixture
def table():
    rows = ((Entry(EVIL), Entry(0.5, 0.25, mark="bold")), (Entry("b"), Entry(None, mark="italic")))
    return Table(EVIL, ("method", "GED² ↓"), rows, (EVIL,))


def test_markdown_keeps_its_columns(table):
    lines = table.markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows) and len(rows) == 4
    assert "**0.500 ± 0.250**" in rows[2] and not re.search(r"(?<!\\)[<_]", table.markdown())


def test_csv_reads_back(table):
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert rows == [["method", "GED² ↓", "GED² ↓ std"], [EVIL, "0.500", "0.250"], ["b", "", ""]]


@pytest.mark.parametrize("word", ["=1+1", "+1+1", "-a", "@sum", "\t=1", "a\nb", "[x]", "*", "# a", "!a"])
def test_cells_are_words_and_no_formula_no_command(word):
    table = Table("t", (word, "x"), ((Entry(word), Entry(-0.5)),))
    rows = list(csv.reader(io.StringIO(table.csv())))
    expected = f"'{word}" if word[0] in "=+-@\t" else word
    assert rows == [[expected, "x"], [expected, "-0.500"]] and of_csv_cell(expected) == word
    assert "\n[" not in table.latex() and "\n*" not in table.latex()
    assert len(table.markdown().splitlines()) == 5 and len(table.latex().splitlines()) == 10


def test_latex_escapes_every_special_character(table):
    text = table.latex()
    assert "GED$^2$ $\\downarrow$" in text and "\\textbf{0.500 $\\pm$ 0.250}" in text
    escaped = (
        "$<$script$>$alert(1)$<$/script$>$ \\& x\\_1 | 100\\% \\textbackslash{} \\# \\{\\textasciitilde{}"
    )
    assert text.count(escaped) == 3
    body = text[text.index("\\hline") :]
    assert len(re.findall(r"(?<!\\)&", body)) == 3 and not re.search(r"(?<!\\)[%#_]", text)


def test_html_escapes(table):
    text = table.html()
    assert "<script" not in text and "<b>0.500 ± 0.250</b>" in text


def test_the_page_needs_no_other_file(tmp_path):
    runs = [run("a", [0.1, 0.2]), run("b", [0.3, 0.4])]
    section = DataSection("fires", data_table(runs, ["ged"]), runs, "ged")
    write_benchmark_page(
        tmp_path / "index.html",
        EVIL,
        [section],
        facts=[("suite", EVIL)],
        remarks=[EVIL],
        command="ambiseg benchmark x",
    )
    page = (tmp_path / "index.html").read_text()
    assert "<script" not in page and page.count('<img src="data:image/png;base64,') == 3
    assert (
        not re.search(r"(src|href)=\"(?!data:)", page) and "0.150" in page and "ambiseg benchmark x" in page
    )
