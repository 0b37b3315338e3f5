"""``ambiseg train``: a run from the command line, and every way in which it cannot be made."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from ambiseg import owned_files
from ambiseg.cli.main import main
from ambiseg.cli.train import train_command
from ambiseg.engine.run_folder import RunConfig

SMALL = shlex.split(
    "--epochs 1 --batch-size 4 --masks 4 --set train.validations=1 --set train.precision=32 --set train.warmup=2"
    " --set selection.head_width=8 --set backbone.width=8 --set backbone.depth=2"
)


@pytest.fixture(scope="session")
def trained(fires, tmp_path_factory):
    """A run that was trained by the command line."""
    run = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "mode-proposals", "--data", str(fires), "--out", str(run), *SMALL, "--quiet"]) == 0
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to spoil."""
    return shutil.copytree(trained, tmp_path / "run")


def test_options_reach_the_run(trained):
    config = RunConfig.load(trained)
    assert (config.train.epochs, config.train.batch_size, config.train.precision) == (1, 4, "32")
    assert (config.settings.proposals, config.backbone.width, config.backbone.depth) == (4, 8, 2)
    assert (trained / "model.safetensors").is_file()


def test_the_command_of_a_run_repeats_it(cli, trained, tmp_path):
    config = RunConfig.load(trained)
    out = tmp_path / "again"
    outcome = cli(*shlex.split(train_command(config, out))[1:], "--json")
    assert outcome.status == 0
    again = RunConfig.load(out)
    assert (again.train, again.settings, again.backbone) == (config.train, config.settings, config.backbone)
    entries = json.loads(outcome.out)
    assert entries["run"] == str(out) and entries["steps"] == 3 and not entries["interrupted"]
    weights, expected = (load_file(path / "model.safetensors") for path in (out, trained))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_it_says_what_to_type_next(cli, fires, tmp_path):
    out = tmp_path / "run"
    outcome = cli("train", "mode-proposals", "--data", fires, "--out", out, *SMALL, "--labels", "single")
    assert outcome.status == 0 and "trained 3 steps" in outcome.out
    assert f"ambiseg evaluate {out}" in outcome.err and f"ambiseg predict {out}" in outcome.err
    assert "exists" in cli("train", "mode-proposals", "--data", fires, "--out", out, *SMALL).error


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--lr nan", "lr must be above 0"),
        ("--lr inf", "lr must be"),
        ("--set train.optimiser.weight_decay=.nan", "optimiser.weight_decay"),
        ("--batch-size 0", "batch_size"),
        ("--epochs 0", "epochs"),
        ("--minutes 1", "not both"),
        ("--set train.ema=1", "ema"),
        ("--seed -1", "seed"),
        ("--masks 0", "proposals"),
        ("--set backbone.width=0", "width"),
        ("--set backbone.depth=0", "depth"),
        ("--set backbone.dropout=2", "dropout"),
        ("--devices 9", "--devices 9 is more than the 4 images"),
    ],
)
def test_senseless_values_leave_nothing_behind(cli, fires, tmp_path, words, hint):
    words = [*SMALL, *words.split()]
    assert hint in cli("train", "mode-proposals", "--data", fires, "--out", tmp_path / "run", *words).error
    assert not list(tmp_path.iterdir())


def test_wrong_places(cli, fires, tmp_path):
    words = ("train", "mode-proposals", "--out", tmp_path / "run")
    assert "there is no data set" in cli(*words, "--data", tmp_path / "nothing").error
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there is no split" in cli(*words, "--data", empty).error
    part = tmp_path / "part"
    shutil.copytree(fires / "train", part / "train")
    assert "no split 'val'" in cli(*words, "--data", part).error
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    words = ("train", "mode-proposals", "--data", fires, "--out", mine, *SMALL)
    assert "exists" in cli(*words).error
    assert "was not made by ambiseg" in cli(*words, "--overwrite").error
    assert (mine / "thesis.txt").read_text() == "precious"
    assert not (tmp_path / "run").exists()


def test_overwrite_replaces_a_run(cli, fires, run):
    owned_files.add(run, ["old.txt"])
    (run / "old.txt").write_text("old")
    words = ("train", "mode-proposals", "--data", fires, "--out", run, *SMALL, "--overwrite", "--quiet")
    assert cli(*words).status == 0
    assert not (run / "old.txt").exists()


def test_resume_of_a_finished_run(cli, run):
    outcome = cli("train", "--resume", run, "--quiet", "--json")
    told = json.loads(outcome.out)
    assert outcome.status == 0 and (told["steps"], told["new_steps"]) == (3, 0)
    assert "is finished: train it longer with --minutes" in cli("train", "--resume", run, "--quiet").out
    longer = cli("train", "--resume", run, "--updates", 2, "--quiet")
    assert longer.status == 0 and "trained 2 more steps, 5 in all in" in longer.out
    assert "leave mode-proposals out" in cli("train", "mode-proposals", "--resume", run).error


def test_an_interrupted_run_names_the_command_to_go_on(cli, fires, run, monkeypatch):
    from ambiseg.engine import train

    stopped = train.FitResult(run, 1, 0.5, "hm_iou_unique", None, interrupted=True)
    monkeypatch.setattr(train, "fit", lambda *args, **kwargs: stopped)
    outcome = cli("train", "mode-proposals", "--data", fires, "--out", run)
    assert outcome.status == 130 and outcome.out == ""
    assert outcome.err == f"ambiseg: interrupted: go on with 'ambiseg train --resume {run}'\n"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_resume_of_what_is_no_run(cli, run, fires, tmp_path):
    assert "not a run folder" in cli("train", "--resume", fires).error
    checkpoint = run / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    assert "not a checkpoint" in cli("train", "--resume", run).error
    torch.save(Payload(tmp_path / "executed"), checkpoint)
    assert "not a checkpoint" in cli("train", "--resume", run).error
    assert not (tmp_path / "executed").exists()
    checkpoint.unlink()
    assert "nothing to resume" in cli("train", "--resume", run).error


def test_resume_with_other_data(cli, run, tmp_path):
    words = ("data", "simulate", "wildfire", "--out", tmp_path / "other", "--scenarios", 10, "--size", 16)
    assert cli(*words).status == 0
    assert "--data" in cli("train", "--resume", run, "--data", tmp_path / "other").error


def _with(**changes):
    return lambda entries: yaml.safe_dump({**entries, **changes})


def _without(name):
    return lambda entries: yaml.safe_dump({key: value for key, value in entries.items() if key != name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: "", "it holds no entries such as 'method: ssn' but None"),
        (lambda entries: "- 3", "it holds no entries such as 'method: ssn' but [3]"),
        (_without("method"), "the entry 'method' is missing"),
        (_without("labels"), "the entry 'labels' is missing"),
        (_without("normalization"), "the entry 'normalization' is missing"),
        (_with(method=["ssn"]), "the entry 'method' is a text, received ['ssn']"),
        (_with(in_channels="many"), "the entry 'in_channels' is a whole number, received 'many'"),
        (_with(in_channels=10**9), "in_channels is 1 to 10000, received 1000000000"),
        (_with(backbone=None), "the entry 'backbone' is missing"),
        (_with(backbone={"width": 10**18}), "backbone.width must be at most 1000000"),
        (_with(backbone={"depth": 40}), "backbone.depth must be at most 12"),
        (_with(labels={}), "the entry 'labels: names' is missing"),
        (_with(labels={"names": ["a", "b"], "colors": [3]}), "the entry 'labels' is wrong"),
        (_with(normalization={"mean": [0.0], "std": [1.0]}), "normalization: mean are 7 finite numbers"),
        (
            _with(normalization={"mean": [0.0] * 7, "std": [float("nan")] * 7}),
            "normalization: std are 7 finite",
        ),
        (_with(normalization={"mean": [0.0] * 7, "std": [0.0] * 7}), "std are numbers above 0"),
        (_with(train={"devices": 0}), "devices must be at least 1"),
        (_with(settings={"score_cost": 0.1}, ambiseg="0.0.9"), "ambiseg 0.0.9 wrote it"),
        (lambda entries: "a: &a [1]\nb: *a", "line 2: write the value in place of the alias *a"),
        (lambda entries: yaml.safe_dump(entries) + "method: ssn\n", "the key 'method' occurs twice"),
        (lambda entries: "[" * 50, "more than 20 lists"),
        (lambda entries: "a: " + "x" * 10**6, "more than 1000000 characters"),
    ],
)
def test_a_damaged_configuration_says_which_entry(cli, run, change, message):
    path = run / "config.yaml"
    path.write_text(change(yaml.safe_load(path.read_text())))
    error = cli("train", "--resume", run).error
    assert f"{path} cannot be read (" in error and message in error
    assert error.count(str(path)) == 1 and "Error" not in error


def test_a_configuration_of_a_former_layout_to_start_from(cli, fires, run, tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text((run / "config.yaml").read_text().replace("matching_score_weight:", "score_cost:"))
    words = ("train", "mode-proposals", "--data", fires, "--out", tmp_path / "new", "--config", path)
    error = cli(*words).error
    assert "'score_cost'" in error and f"{path}: ambiseg 0" in error and "CHANGELOG.md says which" in error


def test_a_run_folder_in_place_of_a_method(cli, run):
    assert f"is a run folder: go on with it by 'ambiseg train --resume {run}'" in cli("train", run).error


@pytest.mark.parametrize(
    "change",
    [
        lambda entries: "{ not yaml",
        lambda entries: "",
        lambda entries: "just text",
        lambda entries: yaml.safe_dump({**entries, "method": "mode-proposal"}),
        lambda entries: yaml.safe_dump({**entries, "settings": {"proposal": 4}}),
        lambda entries: yaml.safe_dump({**entries, "backbone": None}),
        lambda entries: yaml.safe_dump({**entries, "normalization": {}}),
        lambda entries: "!!python/object/apply:os.mkdir [executed]",
    ],
)
def test_a_damaged_configuration(cli, run, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    path = run / "config.yaml"
    path.write_text(change(yaml.safe_load(path.read_text())))
    assert "config.yaml" in cli("train", "--resume", run).error
    assert "config.yaml" in cli("evaluate", run).error
    assert not (tmp_path / "executed").exists()
