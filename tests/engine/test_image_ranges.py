"""Predict and evaluate compare new images with those of training; arrays obey the rules of files."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.predict import predict_files
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import CONFIG, RunConfig
from ambiseg.errors import AmbisegError, DataWarning


@pytest.fixture(scope="module")
def run(tiny_run):
    return load(tiny_run, precision="32", device="cpu")


@pytest.fixture(scope="module")
def image(fires):
    return open_split(fires, "test")[0].image


def test_the_run_folder_holds_what_training_saw(run, fires, tiny_run):
    images = [sample.image for sample in open_split(fires, "train")]
    stored = run.config.images
    assert stored.types == ("float32",) and stored.smallest == images[0].shape[1:]
    assert len(stored.least) == len(images[0])
    np.testing.assert_allclose(stored.most, np.max([i.max((1, 2)) for i in images], 0), rtol=1e-6)
    entries = yaml.safe_load((tiny_run / CONFIG).read_text())
    assert entries["images"]["types"] == ["float32"]


@pytest.mark.parametrize("numbers", [[0.0], [float("nan")] * 7, ["x"] * 7, {}, 5])
def test_a_damaged_range_is_named(numbers, run, tmp_path):
    entries = yaml.safe_load((run.folder / CONFIG).read_text())
    entries["images"]["low"] = numbers
    (tmp_path / CONFIG).write_text(yaml.safe_dump(entries))
    with pytest.raises(AmbisegError, match="config.yaml cannot be read .the entry 'images' is wrong"):
        RunConfig.load(tmp_path)


def test_runs_without_a_stored_range_still_predict(run, tiny_run, image, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "old")
    entries = yaml.safe_load((tiny_run / CONFIG).read_text())
    del entries["images"]
    (tmp_path / "old" / CONFIG).write_text(yaml.safe_dump(entries))
    old = load(tmp_path / "old", precision="32", device="cpu")
    assert old.config.images is None
    assert old.predict(image * 1000).masks.equal(old.predict(image * 1000).masks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: np.where(image == image.max(), np.nan, image), "NaN"),
        (lambda image: image + 0j, "complex"),
        (lambda image: image[None], "shape"),
        (lambda image: image[:, :0], "shape"),
        (lambda image: image[:2], "2 channel"),
        (lambda image: np.full(image.shape, "x"), "the image is a ndarray"),
        (lambda image: image * 1000 + 1e6, "its values"),
    ],
)
def test_arrays_that_are_no_images_of_training_give_one_sentence(run, image, change, words):
    with pytest.raises(AmbisegError, match=words):
        run.predict(change(image))


def test_channels_last_arrays_are_recognised(run, image):
    expected, found = run.predict(image), run.predict(np.moveaxis(image, 0, 2))
    assert found.masks.equal(expected.masks) and found.weights.equal(expected.weights)


def test_other_ranges_are_named_by_every_verb(run, image, fires, tmp_path):
    width = np.subtract(run.config.images.most, run.config.images.least)
    shifted = image + np.float32(3 * width)[:, None, None]
    with pytest.warns(DataWarning, match="those of the training images"):
        run.predict(shifted)
    for name, values in (("a", image), ("b", shifted), ("c", image * 1000 + 1e6)):
        np.save(tmp_path / f"{name}.npy", values)
    paths = [tmp_path / f"{name}.npy" for name in "abc"]
    with pytest.warns(DataWarning, match="1 of 3 images: .*b.npy: its values"):
        results = list(predict_files(run, paths, tmp_path / "out"))
    errors = {result.path.name: result.error for result in results if result.error}
    assert list(errors) == ["c.npy"] and "c.npy: its values" in errors["c.npy"]
    split = open_split(fires, "test")
    for factor, words in ((1000, "image 'x': its values"),):
        sample = replace(split[0], id="x", image=image * factor + np.float32(1e6))
        data = write_dataset(tmp_path / "other", {"test": [sample]}, split.info)
        with pytest.raises(AmbisegError, match=words):
            evaluate(run, data, oracle_draws=0)


def test_other_channels_are_refused(run, fires, tmp_path):
    split = open_split(fires, "test")
    names = tuple("abcdefg")
    data = write_dataset(tmp_path / "other", {"test": [split[0]]}, replace(split.info, channels=names))
    named = Run(replace(run.config, channels=names[::-1]), run.model, run.hardware)
    with pytest.raises(AmbisegError, match="give data of the same channels"):
        evaluate(named, data, oracle_draws=0)
