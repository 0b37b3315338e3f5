"""A run whose binary masks have two channels: what it writes, and that every command takes it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from ambiseg.data.files.reading import read_mask
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import load, mixed
from ambiseg.engine.run_folder import CONFIG
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit, resume
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.networks.settings import UNetSettings
from ambiseg.testing import problem

SMALL = UNetSettings(width=8, depth=2)


@pytest.fixture(scope="module")
def run(train_tiny, tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("two") / "run", epochs=2, lr=5e-3, binary_channels=2).run


def test_the_run_folder_says_so_and_gives_the_model_back(run, fires):
    described = yaml.safe_load((run / CONFIG).read_text())
    assert described["labels"]["softmax"] is True and described["train"]["binary_channels"] == 2
    model, images = load(run, precision="32", device="cpu"), open_split(fires, "test")
    before = model.propose([images[0].image])
    assert model.model.labels.channels == 2 and before.labels.channels == before.probabilities.shape[2] == 1
    weights = model.digest()
    resume(run, quiet=True, fit_filter=False)
    assert load(run, precision="32", device="cpu").digest() == weights


def test_every_command_takes_it(cli, run, fires, tmp_path):
    assert cli("calibrate-filter", run, "--split", "train").status == 0
    assert cli("evaluate", run, "--json").status == 0
    images, out = fires / "test" / "images", tmp_path / "found"
    words = ("--all", "--no-picture", "--pixel-probabilities")
    assert cli("predict", run, images, "--out", out, *words).status == 0
    everything = PredictSettings(score_threshold=None, duplicate_iou=None)
    wanted = load(run).predict(sorted(images.iterdir())[0], everything)
    folder = out / "fire-00016"
    entries = json.loads((folder / "prediction.json").read_text())["masks"]
    assert len(entries) == wanted.masks.shape[1] == 6
    for k, entry in enumerate(entries):
        assert np.array_equal(read_mask(folder / entry["file"]), wanted.masks[0, k].numpy())
    with np.load(folder / "probabilities.npz") as arrays:
        assert np.allclose(arrays["probabilities"], wanted.probabilities[0].numpy(), atol=1e-5)


def test_it_mixes_with_runs_of_one_channel(run, tiny_run, fires):
    image = open_split(fires, "test")[0].image
    runs = [load(folder, precision="32", device="cpu") for folder in (run, tiny_run)]
    for members in (runs, runs[::-1]):
        found = mixed(members, [0.5, 0.5]).propose([image])
        parts = [member.propose([image]).probabilities for member in members]
        assert torch.equal(found.probabilities, torch.cat(parts, 1))


def test_more_classes_are_refused_before_a_run_folder_is_made(tmp_path):
    labels = LabelSpace.of_classes(3)
    images, modes = (part[:1] for part in problem(labels))
    weights = modes.weights[0].double().numpy()
    samples = [Sample("a", images[0].numpy(), modes.masks[0].numpy(), weights / weights.sum(), tuple("abcd"))]
    data = write_dataset(tmp_path / "data", {"train": samples, "val": samples}, DatasetInfo("three", labels))
    with pytest.raises(
        AmbisegError, match=r"train\.binary_channels=2 is for masks of two classes, these have 3"
    ):
        fit("ssn", data, tmp_path / "run", train=TrainSettings(binary_channels=2), backbone=SMALL, quiet=True)
    assert not (tmp_path / "run").exists()
