"""A run of slices with their neighbours: what its folder keeps, what it refuses, whole volumes in intervals."""

from __future__ import annotations

import numpy as np
import pytest

from ambiseg.cli.data_describe import tables
from ambiseg.data.source import open_split
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.engine.describe import describe
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import RunConfig
from ambiseg.errors import AmbisegError
from ambiseg.report.display import background_of
from volume_replica import write_dataset

SPLITS = ("train", "val", "test", "test")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    root = tmp_path_factory.mktemp("volumes") / "set"
    return write_dataset(root, "{axis: axial, neighbours: 1}", SPLITS, shape=(16, 16, 5))


@pytest.fixture(scope="module")
def run(volumes, train_tiny, tmp_path_factory):
    return train_tiny(tmp_path_factory.mktemp("run") / "run", volumes, epochs=2, augment=False).run


def test_the_folder_keeps_how_slices_are_read(run):
    config = RunConfig.load(run)
    assert config.slices == SliceSettings("axial", 1) and config.in_channels == 3
    assert config.channels == ("slice-1", "slice", "slice+1")
    text = (run / "config.yaml").read_text()
    assert "slices: {axis: axial, neighbours: 1}" in text


@pytest.mark.parametrize("entry", ["{axis: axal}", "{axis: axial, more: 1}", "[1]"])
def test_a_wrong_entry_is_refused(run, tmp_path, entry):
    text = (run / "config.yaml").read_text().replace("{axis: axial, neighbours: 1}", entry)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(AmbisegError, match="the entry 'slices' is"):
        RunConfig.load(tmp_path)


def test_a_single_image_and_other_neighbours_are_refused(run, volumes, tmp_path):
    loaded, split = load(run), open_split(volumes, "test")
    assert len(loaded.predict(split[1].image)) == 1
    with pytest.raises(AmbisegError, match="1 neighbours on each side .* 1 channel.* give the whole volume"):
        loaded.predict(split[1].image[:1])
    write_dataset(tmp_path / "plain", "{axis: axial}", SPLITS, shape=(16, 16, 5))
    with pytest.raises(
        AmbisegError, match="read with 0 neighbours of each slice, the run was trained with 1"
    ):
        evaluate(loaded, tmp_path / "plain")


def test_intervals_draw_volumes(run, volumes):
    found = evaluate(load(run), volumes, oracle_draws=0)
    assert found.grouped and (found.units, found.images) == (2, 10)


def test_describe_counts_volumes_and_slices(volumes):
    found = describe(volumes, samples=(1,), images=2)
    rows = {row[0]: row[1:] for row in tables(found)[0].rows}
    assert rows["volumes"] == ["1", "1", "2"] and rows["slices"] == ["5", "5", "10"]
    assert "test 10 slices of 2 volumes" in repr(found)


def test_pictures_show_the_slice_and_not_its_neighbours(volumes):
    split = open_split(volumes, "test")
    image = split[2].image
    shown = background_of(image, split.info.channels)
    np.testing.assert_array_equal(shown, background_of(image[1:2]))
    assert (shown[..., 0] == shown[..., 1]).all()
