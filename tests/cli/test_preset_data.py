"""Data that do not suit the experiment of a preset are refused in one sentence, before a run folder is made."""

from __future__ import annotations

import pytest

from ambiseg.data.info import DatasetInfo
from ambiseg.data.layouts import CITYSCAPES, CITYSCAPES_TWINS, LIDC
from ambiseg.data.sample import Sample
from ambiseg.data.simulators.layouts import simulate_layout
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.run import load
from ambiseg.labels import LabelSpace


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Data sets in several layouts, and ones with a single mask of each image."""
    folder = tmp_path_factory.mktemp("tiny")
    found = {
        layout.name: simulate_layout(layout, folder / f"{layout.name}.h5")
        for layout in (LIDC, CITYSCAPES, CITYSCAPES_TWINS)
    }
    for name, layout, labels in (
        ("one", "lidc", LabelSpace.binary()),
        ("still", "cityscapes-twins", LabelSpace.of_classes(24)),
    ):
        splits = {
            split: [
                Sample(s.id, s.image, s.masks[:1], s.weights[:1] / s.weights[0], s.annotators[:1])
                for s in open_split(found[layout], split).stored
            ]
            for split in ("train", "val", "test")
        }
        if name == "still":
            splits = {
                k: [Sample(s.id, s.image, s.masks.clip(0, 18), s.weights, s.annotators) for s in v]
                for k, v in splits.items()
            }
        found[name] = write_dataset(folder / f"{name}.h5", splits, DatasetInfo(name, labels))
    return found


@pytest.mark.parametrize(
    ("method", "preset", "data", "message"),
    [
        ("mose", "cityscapes", "lidc", "24 classes, twins among them, received binary masks: import the data with --output"),
        ("mose", "cityscapes", "cityscapes-twins", "4 channels, the last one the prediction of another network, received 3"),
        ("mose", "cityscapes", "still", "classes that flip, received one mask of each image: say in dataset.yaml"),
        ("mode-proposals", "cityscapes", "one", "classes that flip, received one mask of each image"),
        ("mode-proposals", "lidc", "one", "several masks of each image, received one: give --labels single"),
        ("probabilistic-unet", "cityscapes", "cityscapes", "received binary masks"),
    ],
)  # fmt: skip
def test_unsuitable_data(cli, tiny, tmp_path, method, preset, data, message):
    out = tmp_path / "run"
    error = cli("train", method, "--preset", preset, "--data", tiny[data], "--out", out, "--smoke").error
    assert f"the preset {preset} of {method} is made for" in error and message in error
    assert not out.exists()


def test_other_data_than_those_of_the_experiment_are_welcome_where_it_does_not_matter(cli, tiny, tmp_path):
    out = tmp_path / "run"
    words = ("--data", tiny["one"], "--labels", "single", "--out", out, "--smoke", "--quiet")
    assert cli("train", "mode-proposals", "--preset", "lidc", *words).status == 0


@pytest.mark.parametrize("words", [(), ("--data", "nowhere.h5")])
def test_missing_data_are_told_how_to_import(cli, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    error = cli("train", "mose", "--preset", "lidc", "--out", "run", *words).error
    name = words[1] if words else "lidc.h5"
    assert f"'ambiseg data import lidc-crops SOURCE --split lidcv1 --out {name}' makes it" in error
    assert "missing --data PATH" in cli("train", "mose", "--out", "run").error
    assert not list(tmp_path.iterdir())


def test_a_smoke_run_without_data_is_complete(cli, tmp_path):
    """It brings its data, goes on, evaluates and reports, and says everywhere what it is."""
    run = tmp_path / "run"
    first = cli("train", "flow-ssn", "--preset", "lidc", "--smoke", "--out", run, "--quiet")
    assert first.status == 0, first.err
    assert "its figures mean nothing" in first.out and (tmp_path / "smoke-lidc.h5").is_file()
    again = cli("train", "--resume", run, "--quiet")
    assert again.status == 0 and "its figures mean nothing" in again.out
    measured = cli("evaluate", run)
    assert measured.status == 0 and "smoke run" in measured.err
    assert cli("report", run).status == 0
    page = (run / "report.html").read_text()
    assert "smoke run of a few steps" in page and "--preset lidc --smoke" in page
    found = evaluate(load(run), open_split(tmp_path / "smoke-lidc.h5", "test"), "test", bootstrap=None)
    assert found.images == 2
