"""``ambiseg data init``: from a folder of images and masks to a trained model in two commands."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
import yaml
from PIL import Image

from ambiseg.data.source import list_splits, open_split

SMALL = shlex.split(
    "--epochs 1 --batch-size 4 --masks 4 --set train.validations=1 --set train.precision=32 --set train.warmup=2"
    " --set selection.head_width=8 --set backbone.width=8 --set backbone.depth=2 --quiet"
)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def lab(tmp_path):
    """Twelve images of six patients beside a folder for each of two annotators."""
    rng = np.random.default_rng(0)
    for patient in range(6):
        for place in range(2):
            name = f"p{patient}_{place}"
            save(tmp_path / f"lab/images/{name}.png", rng.integers(0, 256, (16, 16), np.uint8))
            for who in ("anna", "ben"):
                mask = np.zeros((16, 16), np.uint8)
                mask[3 : 8 + patient, 4:10] = 255
                save(tmp_path / f"lab/{who}/{name}.png", mask)
    return tmp_path / "lab"


def test_two_commands_from_a_folder_to_a_model(cli, lab, tmp_path):
    outcome = cli("data", "init", lab)
    assert outcome.status == 0
    assert "a folder for each annotator beside the images" in outcome.out
    assert "images/{id}.*: 12" in outcome.out and "anna (12), ben (12)" in outcome.out
    assert "background, foreground; masks hold numbers 0, 255" in outcome.out
    assert "6 groups, such as p0 (2 images)" in outcome.out
    assert f"ambiseg train mode-proposals --data {lab} --out RUN" in outcome.err
    trained = cli("train", "mode-proposals", "--data", lab, "--out", tmp_path / "run", *SMALL)
    assert trained.status == 0 and (tmp_path / "run/model.safetensors").exists()
    assert cli("evaluate", tmp_path / "run", "--data", lab, "--split", "test").status == 0


def test_the_report_as_json_and_a_dry_run(cli, lab):
    entries = json.loads(cli("data", "init", lab, "--json", "--dry-run").out)
    assert entries["counts"] == {"images": 12, "masks": 24} and entries["annotators"] == {
        "anna": 12,
        "ben": 12,
    }
    assert entries["masks"] == ["{annotator:anna|ben}/{id}.*"] and entries["groups"] == 6
    assert sum(entries["splits"].values()) == 12 and entries["written"] == []
    shown = cli("data", "init", lab, "--dry-run")
    assert not (lab / "dataset.yaml").exists() and "dataset.yaml would be:" in shown.out
    written = json.loads(cli("data", "init", lab, "--json").out)["written"]
    assert written == [str(lab / "splits.csv"), str(lab / "dataset.yaml")]
    described = yaml.safe_load((lab / "dataset.yaml").read_text())
    assert described["classes"] == ["background", "foreground"]
    assert described["files"]["splits"] == "splits.csv"


def test_options_for_groups_and_shares(cli, lab, tmp_path):
    (tmp_path / "groups.csv").write_text(
        "id,group\n" + "".join(f"p{i}_{j},ward{i // 2}\n" for i in range(6) for j in range(2))
    )
    outcome = cli(
        "data", "init", lab, "--groups", tmp_path / "groups.csv", "--fractions", "train=0.5", "val=0.5"
    )
    assert "3 groups, such as ward0 (4 images)" in outcome.out
    assert list_splits(lab) == ["train", "val"]
    outcome = cli("data", "init", lab, "--overwrite", "--alone")
    assert "every image is a group of its own" in outcome.out
    assert [len(open_split(lab, split)) for split in list_splits(lab)] == [7, 3, 2] or len(
        list_splits(lab)
    ) == 3
    outcome = cli("data", "init", lab, "--overwrite", "--prefix", "p[0-9]")
    assert "6 groups, such as p0 (2 images)" in outcome.out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--prefix p --alone", "--prefix and --alone both say what a group is"),
        ("--prefix p", "all 12 images are in one group, 'p'"),
        ("--seed -1", "must not be negative"),
        ("--images x/{id}.*", "--images and --masks belong together"),
        ("--fractions train=2", "sum to 1"),
    ],
)
def test_options_that_make_no_sense(cli, lab, words, complaint):
    assert complaint in cli("data", "init", lab, *words.split()).error
    assert not (lab / "dataset.yaml").exists()


def test_patterns_of_the_user_and_another_folder(cli, lab, tmp_path):
    words = ("--images", "images/{id}.*", "--masks", "anna/{id}.*", "--out", tmp_path / "new")
    outcome = cli("data", "init", lab, *words)
    assert outcome.status == 0 and "--labels single" in outcome.err
    assert open_split(tmp_path / "new", "train")[0].annotators == ("mask",)
    assert not (lab / "dataset.yaml").exists()
    assert "exists already" in cli("data", "init", lab, *words).error
    assert cli("data", "init", lab, *words, "--overwrite").status == 0


def test_several_patterns_of_masks(cli, lab):
    words = ("--images", "images/{id}.*", "--masks", "{annotator:anna}/{id}.*", "{annotator:ben}/{id}.*")
    outcome = cli("data", "init", lab, *words)
    assert outcome.status == 0 and "anna (12), ben (12)" in outcome.out
    assert open_split(lab, "train")[0].annotators == ("anna", "ben")


def test_every_other_verb_takes_it(cli, lab, tmp_path):
    assert cli("data", "init", lab).status == 0
    assert cli("data", "check", lab).status == 0
    assert cli("data", "describe", lab).status == 0
    assert cli("data", "pack", lab, tmp_path / "lab.h5").status == 0
    assert cli("data", "split", lab, "--out", tmp_path / "new", "--prefix", "[^_]+").status == 0
    assert open_split(tmp_path / "new", "train").info.files is None
    assert cli("data", "check", tmp_path / "new").status == 0


def test_a_folder_without_splits_is_split_as_it_lies(cli, lab, tmp_path):
    outcome = cli("data", "split", lab, "--out", tmp_path / "new.h5", "--prefix", "[^_]+")
    assert outcome.status == 0 and "6 groups" in outcome.out
    sample = open_split(tmp_path / "new.h5", "train")[0]
    assert sample.annotators == ("anna", "ben")
    assert not (lab / "dataset.yaml").exists()


def test_the_remedy_for_other_folders_is_init(cli, lab, tmp_path):
    remedy = f"ambiseg data init {lab}"
    assert remedy in cli("train", "ssn", "--data", lab, "--out", tmp_path / "run").error
    assert (
        remedy in cli("data", "check", lab).out.replace("\n", " ")
        or "data init" in cli("data", "check", lab).out
    )


def test_what_was_left_out_is_told(cli, lab):
    for who in ("anna", "ben"):
        (lab / f"{who}/p0_0.png").unlink()
    (lab / "anna/p9_9.png").write_bytes((lab / "anna/p1_1.png").read_bytes())
    (lab / "extra").mkdir()
    (lab / "extra/other.png").write_bytes((lab / "images/p1_1.png").read_bytes())
    (lab / "anna/p1_0.png").write_bytes(b"")
    outcome = cli("data", "init", lab)
    assert outcome.status == 0
    assert "1 image without a mask left out: p0_0" in outcome.err
    assert "1 mask without an image not used: anna/p9_9.png" in outcome.err
    assert "not used: 1 other file: extra/other.png" in outcome.err
    assert "1 mask: the file is empty" in outcome.err and "(anna/p1_0.png)" in outcome.err


def test_training_names_the_command_that_lists_all_wrong_files(cli, lab, tmp_path):
    assert cli("data", "init", lab).status == 0
    for path in (lab / "anna").iterdir():
        path.write_bytes(b"")
    outcome = cli("train", "ssn", "--data", lab, "--out", tmp_path / "run", "--quiet")
    assert (
        "the file is empty" in outcome.error and f"'ambiseg data check {lab}' lists all such" in outcome.error
    )
    (cause,) = json.loads(cli("data", "check", lab, "--json").out)["causes"]
    assert len(cause["files"]) == 12
