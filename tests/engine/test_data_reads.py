"""Before the first step, training reads every training image once, and the first one again to try the
loss. Evaluation reads every image once."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.folder import FolderSplit
from ambiseg.data.info import DatasetInfo
from ambiseg.data.packed import PackedSplit, pack
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine import train as train_module
from ambiseg.engine.describe import describe
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.run import RunConfig
from ambiseg.engine.train import resume


class FirstStepError(Exception):
    """Training would begin here."""


@pytest.fixture
def reads(monkeypatch):
    """How often each image was read, by split and place."""
    found: Counter[tuple[str, int]] = Counter()

    def counted(original):
        def read(self, index):
            found[self.split, index] += 1
            return original(self, index)

        return read

    for kind in (FolderSplit, PackedSplit):
        monkeypatch.setattr(kind, "__getitem__", counted(kind.__getitem__))
    return found


@pytest.fixture
def no_steps(monkeypatch):
    """Training that stops before its first step."""

    def stop(*arguments, **options):
        raise FirstStepError

    monkeypatch.setattr(train_module, "run_training", stop)


def label_map(sample):
    """The sample with its first mask alone."""
    return replace(sample, masks=sample.masks[:1], weights=np.ones(1), annotators=("r",))


@pytest.fixture(params=["folder", "packed", "flips"])
def data(request, fires, tmp_path):
    """Fires as a folder and packed, and a data set whose classes flip."""
    if request.param == "flips":
        info = DatasetInfo("flips", flips=ClassFlips({"foreground": 0.25}))
        splits = {name: [label_map(s) for s in simulate_wildfires(2, size=16)] for name in ("train", "val")}
        return write_dataset(tmp_path / "flips", splits, info)
    return fires if request.param == "folder" else pack(fires, tmp_path / "fires.h5")


def test_every_image_is_read_once_before_the_first_step(data, reads, no_steps, train_tiny, tmp_path):
    with pytest.raises(FirstStepError):
        train_tiny(tmp_path / "run", data)
    split = open_split(data, "train")
    assert reads == {("train", i): 1 + (i == 0) for i in range(len(split))}
    assert RunConfig.load(tmp_path / "run").data_digest == split.digest()


def test_resuming_reads_every_image_once_before_the_first_step(tiny_run, reads, no_steps, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(FirstStepError):
        resume(run, quiet=True)
    assert reads == {("train", i): 1 for i in range(12)}


def test_a_description_reads_every_image_once_after_the_check(data, reads):
    found = describe(data, "train", samples=(1,))
    split = open_split(data, "train")
    assert found.splits[0].measured == len(split)
    assert reads == {("train", i): 1 for i in range(len(split))}


def test_evaluation_reads_every_image_once(reads, tiny_run, fires):
    found = evaluate(tiny_run, fires, "test", metrics=["ged"])
    assert reads == {("test", i): 1 for i in range(5)}
    assert found.data_digest == open_split(fires, "test").digest()
