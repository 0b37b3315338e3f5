"""``ambiseg demo``: the whole way, what it keeps, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambiseg.cli import demo
from ambiseg.networks.settings import UNetSettings

WORDS = ("--minutes", 0.02, "--scenarios", 12, "--size", 16, "--precision", "32")


@pytest.fixture
def small(monkeypatch):
    """Networks and batches that train in a second."""
    monkeypatch.setattr(demo, "SETTINGS", {"proposals": 4, "selection": {"head_width": 8}})
    monkeypatch.setattr(demo, "BACKBONE", UNetSettings(width=8, depth=2))
    monkeypatch.setattr(demo, "TRAIN", replace(demo.TRAIN, batch_size=4, warmup=2, validations=1))


def test_from_nothing_to_a_report(cli, small, tmp_path):
    out = tmp_path / "demo"
    outcome = cli("demo", "--out", out, *WORDS)
    assert outcome.status == 0, outcome.err
    for stage in range(1, 6):
        assert f"{stage}/5" in outcome.err
    assert "HM IoU*" in outcome.out
    assert (out / "run" / "report.html").is_file()
    assert len(list((out / "predictions").glob("*/picture.png"))) == 1
    assert "--overwrite" in cli("demo", "--out", out, *WORDS).error
    made = (out / "data" / "dataset.yaml").stat().st_mtime_ns
    again = cli("demo", "--out", out, *WORDS, "--overwrite")
    assert again.status == 0 and "they are there" in again.err
    assert (out / "data" / "dataset.yaml").stat().st_mtime_ns == made


def test_an_interrupted_demo_goes_on(cli, small, tmp_path, monkeypatch):
    from ambiseg.cli import report

    def stop(*args):
        raise KeyboardInterrupt

    out = tmp_path / "demo"
    with monkeypatch.context() as patch:
        patch.setattr(report, "build_report", stop)
        outcome = cli("demo", "--out", out, *WORDS)
    assert outcome.status == 130 and "goes on where this stopped" in outcome.err.splitlines()[-1]
    again = cli("demo", "--out", out, *WORDS)
    assert again.status == 0 and "they are there" in again.err and "it is trained" in again.err


@pytest.mark.parametrize("words", ["--minutes 0", "--minutes nan", "--scenarios 3", "--size 4", "--seed -1"])
def test_senseless_values(cli, tmp_path, words):
    cli("demo", "--out", tmp_path / "demo", *words.split()).error  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_another_folder_is_left_alone(cli, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    assert "was not made by ambiseg" in cli("demo", "--out", tmp_path).error
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
