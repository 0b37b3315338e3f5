"""``ambiseg tune``: what it prints and writes, and every way in which it cannot begin."""

from __future__ import annotations

import json
import shlex
import sys

import pytest
from PIL import Image

from ambiseg.cli.main import main
from ambiseg.engine.run_folder import RunConfig

TINY = shlex.split(
    "--updates 2 --set train.batch_size=4 --set train.validations=1 --set train.precision=32 --set train.augment=no"
    " --set backbone.width=8 --set backbone.depth=2 --set rank=2 --set draws=2 --set samples=4"
)


@pytest.fixture(scope="module")
def study(fires, tmp_path_factory):
    """A study of two trials, one of them in a process of its own."""
    out = tmp_path_factory.mktemp("tune") / "study"
    words = ["--data", str(fires), "--out", str(out), *TINY, "--search", "train.lr=log:1e-4..1e-2"]
    assert main(["tune", "ssn", *words, "--trials", "1", "--jobs", "1"]) == 0
    assert main(["tune", "--resume", str(out), "--trials", "1", "--jobs", "0"]) == 0
    return out


def test_a_study_says_what_it_found_and_what_to_type_next(study, cli, fires, tmp_path):
    shown = cli("tune", "--resume", study)
    assert "the best of 2 trials, by GED² on the validation split" in shown.out and "optimistic" in shown.out
    words = f"ambiseg train ssn --data {fires} --out RUN --config {study / 'best.yaml'}"
    assert words in shown.err
    found = json.loads(cli("tune", "--resume", study, "--json").out)
    assert found["next"] == words and found["metric"] == "ged" and len(found["trials"]) == 2
    assert found["best"]["value"] == min(trial["value"] for trial in found["trials"])
    train = [str(tmp_path / "run") if word == "RUN" else word for word in shlex.split(words)[1:]]
    assert cli(*train, "--quiet").status == 0
    config = RunConfig.load(tmp_path / "run")
    assert config.train.lr == float(found["best"]["settings"]["train.lr"])
    assert (config.train.updates, config.backbone.width, config.settings.rank) == (2, 8, 2)
    with Image.open(study / "search.png") as picture:
        assert picture.width > picture.height


def test_only_a_study_is_replaced(study, cli, fires, tmp_path):
    words = ("tune", "ssn", "--data", fires, *TINY, "--out")
    assert "go on with --resume, or replace it with --overwrite" in cli(*words, study).error
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "was not made by ambiseg" in cli(*words, tmp_path / "mine", "--overwrite").error
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("ss --list", "unknown method 'ss': did you mean 'ssn'"),
        ("--list", "name a method first: ambiseg tune METHOD"),
        ("ssn", "missing --data PATH"),
        ("ssn --trials 0", "--trials must be at least 1, received 0"),
        ("ssn --keep -1", "--keep must not be negative, received -1"),
        ("ssn --search rnk=1..2", "did you mean 'rank'"),
        ("ssn --search rank=1..9 --set rank=3", "rank is searched, and --set says its value"),
        ("ssn --search rank=1..9 --search rank=1|2", "--search rank is given twice"),
        ("ssn --set rank=0", "rank must be at least 1, received 0"),
        ("ssn --epochs 1 --minutes 1", "give epochs or minutes, not both"),
        ("--resume nowhere", "nowhere is no study"),
    ],
)
def test_mistakes_are_told_before_the_first_trial(cli, words, reason):
    assert reason in cli("tune", *words.split()).error


def test_a_network_that_is_not_there_is_told_before_the_first_trial(cli, fires, tmp_path):
    words = ("--data", fires, "--out", tmp_path / "study", "--search", "backbone.kind=unet|resnet")
    assert "unknown network 'resnet'" in cli("tune", "ssn", *words).error
    assert not (tmp_path / "study").exists()


def test_data_that_moved_are_asked_for(study, cli, tmp_path):
    order = json.loads((study / "study.json").read_text())
    order["order"]["data"] = str(tmp_path / "gone")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text(json.dumps(order))
    error = cli("tune", "--resume", tmp_path / "study").error
    assert f"no longer at {tmp_path / 'gone'}: say where they are with --data" in error


def test_the_settings_that_are_searched_are_listed(cli):
    lines = [line.split() for line in cli("tune", "ssn", "--list").out.splitlines()]
    assert ["train.lr", "log:0.0004..0.01", "0.002"] in lines and ["rank", "5|10|20", "10"] in lines
    assert ["rank", "20|40", "drawn"] in [
        line.split() for line in cli("tune", "ssn", "--list", "--search", "rank=20|40").out.splitlines()
    ]


def test_without_optuna_one_sentence_names_the_extra(cli, fires, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    error = cli("tune", "ssn", "--data", fires, "--out", tmp_path / "study").error
    assert error.endswith("a search needs the package optuna: pip install 'ambiseg[tune]'")
    assert not (tmp_path / "study").exists()


def test_a_study_of_other_images_does_not_go_on(cli, study, tmp_path):
    other = tmp_path / "other.h5"
    assert (
        main(["data", "simulate", "lesions", "--out", str(other), "--size", "16", "--scenarios", "10"]) == 0
    )
    assert (
        "are not those of the study: give its --data" in cli("tune", "--resume", study, "--data", other).error
    )
