"""``ambiseg data``: what is simulated, what a check finds, what is packed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.augmentation_kinds import NONE
from ambiseg.data.simulators.markov_shapes import markov_shapes_masks, markov_shapes_probabilities, possible
from ambiseg.data.simulators.wildfire import CHANNELS, PREVAILING_CHANNEL, simulate_wildfire
from ambiseg.data.source import list_splits, open_split


@pytest.mark.parametrize("name", ["fires", "fires.h5"])
def test_simulate_writes_splits_by_number(cli, tmp_path, name):
    out = tmp_path / name
    words = ("data", "simulate", "wildfire", "--out", out, "--scenarios", 12, "--size", 16, "--seed", 3)
    outcome = cli(*words)
    assert outcome.status == 0 and str(out) in outcome.out and "ambiseg train" in outcome.err
    assert list_splits(out) == ["train", "val", "test"]
    assert [len(open_split(out, split)) for split in list_splits(out)] == [10, 1, 1]
    test = open_split(out, "test")
    np.testing.assert_array_equal(test[0].image, simulate_wildfire(3, 11, 16).image)
    assert test.info.channels == CHANNELS and test.info.licence == "CC0-1.0"
    assert test.info.augment == NONE
    assert "exists" in cli(*words).error
    assert cli(*words, "--overwrite").status == 0


def test_simulate_names_the_prevailing_channel(cli, tmp_path):
    out = tmp_path / "fires"
    words = ("--scenarios", 10, "--size", 16, "--probabilities", "prevailing", "--workers", 1)
    assert cli("data", "simulate", "wildfire", "--out", out, *words).status == 0
    assert open_split(out, "val").info.channels == (*CHANNELS, PREVAILING_CHANNEL)


@pytest.mark.parametrize(
    "words",
    ["--scenarios 9", "--size 8", "--seed -1", "--workers 0", "--probabilities other", "--scenarios x"],
)
def test_simulate_refuses_senseless_numbers(cli, tmp_path, words):
    cli("data", "simulate", "wildfire", "--out", tmp_path / "fires", *words.split()).error  # noqa: B018
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["shapes", "shapes.h5"])
def test_simulate_markov_shapes_keeps_masks_and_probabilities(cli, tmp_path, name):
    out = tmp_path / name
    outcome = cli("data", "simulate", "markov-shapes", "--out", out, "--scenarios", 10, "--size", 20)
    assert outcome.status == 0 and str(out) in outcome.out and "ambiseg train" in outcome.err
    assert [len(open_split(out, split)) for split in ("train", "val", "test")] == [8, 1, 1]
    test = open_split(out, "test")
    sample = test[0]
    assert sample.id == "shapes-00009" and sample.image.shape == (2, 20, 20)
    index = possible(sample.masks)
    assert sorted(index) == list(range(256))
    np.testing.assert_array_equal(sample.masks, markov_shapes_masks(20)[index])
    np.testing.assert_allclose(sample.weights, markov_shapes_probabilities()[index], rtol=1e-15)
    assert test.info.channels == ("row", "column") and test.info.labels.names == ("background", "shape")
    assert test.info.licence == "CC0-1.0" and not any(test.info.augment.values())
    assert test.info.source.endswith("markov-shapes --scenarios 10 --size 20")
    assert cli("data", "check", out).status == 0


def test_defaults_of_markov_shapes(cli, tmp_path):
    out = tmp_path / "shapes.h5"
    assert cli("data", "simulate", "markov-shapes", "--out", out, "--seed", 7).status == 0
    assert [len(open_split(out, split)) for split in ("train", "val", "test")] == [32, 4, 4]
    assert open_split(out, "val")[0].masks.shape == (256, 10, 10)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--size 64", "multiple of 10, received 64"),
        ("--scenarios 9", "at least 10, received 9"),
        ("--probabilities uniform", "probabilities is of use with wildfire only"),
        ("--workers 2", "workers is of use with wildfire only"),
    ],
)
def test_simulate_markov_shapes_refuses(cli, tmp_path, words, complaint):
    out = tmp_path / "shapes"
    assert complaint in cli("data", "simulate", "markov-shapes", "--out", out, *words.split()).error
    assert not list(tmp_path.iterdir())


def test_check_of_good_data(cli, fires):
    outcome = cli("data", "check", fires)
    assert outcome.status == 0 and "0 errors" in outcome.out and "16x16" in outcome.out
    entries = json.loads(cli("data", "check", fires, "--json").out)
    assert entries["ok"] and entries["splits"][0]["images"] == 12
    assert entries["splits"][0]["sizes"] == {"16x16": 12}


def test_check_lists_all_problems(cli, tmp_path):
    images, masks = tmp_path / "train" / "images", tmp_path / "train" / "masks" / "a"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.zeros((9, 9), np.uint8)).save(images / f"{name}.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(masks / "one.png")
    (images / "c.png").write_bytes(b"no picture")
    outcome = cli("data", "check", tmp_path)
    assert outcome.status == 2 and "cannot be trained on" in outcome.out
    entries = json.loads(cli("data", "check", tmp_path, "--json").out)
    found = " ".join(problem["file"] for problem in entries["problems"])
    assert not entries["ok"]
    assert all(name in found for name in ("one.png", "b.png", "c.png"))


def test_check_of_nothing(cli, tmp_path):
    assert "there is no data set" in cli("data", "check", tmp_path / "nothing").error
    outcome = cli("data", "check", tmp_path)
    assert outcome.status == 2 and "there is no split" in outcome.out


def test_pack_keeps_the_digest(cli, fires, tmp_path):
    out = tmp_path / "fires.h5"
    assert cli("data", "pack", fires, out).status == 0
    assert open_split(out, "test").digest() == open_split(fires, "test").digest()
    assert "exists" in cli("data", "pack", fires, out).error
    assert cli("data", "pack", fires, out, "--overwrite").status == 0
    assert ".h5" in cli("data", "pack", fires, tmp_path / "fires.zip").error
    assert "is not a folder" in cli("data", "pack", tmp_path / "nothing", tmp_path / "x.h5").error
    assert [path.name for path in tmp_path.iterdir()] == ["fires.h5"]


def test_the_check_shows_a_row_for_each_cause(cli, tmp_path):
    for split in ("train", "val"):
        for i in range(20):
            rng = np.random.default_rng([i, len(split)])
            for path, most in ((f"images/{split}{i}.png", 256), (f"masks/{split}{i}/anna.png", 4)):
                file = tmp_path / split / path
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, most, (12, 12), np.uint8)).save(file)
    (tmp_path / "val/masks/val3/anna.png").write_bytes(b"")
    outcome = cli("data", "check", tmp_path)
    words = " ".join(outcome.out.split())
    assert outcome.status == 2 and "39 masks hold 2 and 3" in words and "and 36 more" in words
    assert "40 errors, 0 warnings: cannot be trained on" in words
    assert len(outcome.out.splitlines()) < 30
    rows = outcome.out.split("what to do")[1].split(f"{tmp_path}: 40 errors")[0]
    assert "train/masks/train0/anna.png" in rows and str(tmp_path) not in rows
    causes = json.loads(cli("data", "check", tmp_path, "--json").out)["causes"]
    assert [len(cause["files"]) for cause in causes] == [39, 1]
