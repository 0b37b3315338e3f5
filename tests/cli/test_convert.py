"""``ambiseg convert``: what it prints, what it refuses, and what it replaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from prediction_files import random_masks, write_prediction


@pytest.fixture
def place(tmp_path):
    write_prediction(tmp_path / "p" / "a", random_masks(0), (0.5, 0.3, 0.2))
    write_prediction(tmp_path / "p" / "b", [np.zeros((9, 13)), np.ones((9, 13))], (0.6, 0.4))
    return tmp_path / "p"


def test_predictions_of_a_run_as_coco(cli, tiny_run, fires, tmp_path):
    assert (
        cli("predict", tiny_run, fires / "test" / "images", "--out", tmp_path / "p", "--no-picture").status
        == 0
    )
    done = cli("convert", tmp_path / "p", "--to", "coco", "--out", tmp_path / "coco", "--json")
    assert done.status == 0
    told = json.loads(done.out)
    found = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert told["images"] == len(found["images"]) == 5 and told["format"] == "coco"
    assert told["masks"] == sum(len(image["hypotheses"]) for image in found["images"])
    assert found["annotations"]
    for one in found["annotations"]:
        folder = tmp_path / "p" / found["images"][one["image_id"] - 1]["name"]
        entry = json.loads((folder / "prediction.json").read_text())["masks"][one["hypothesis"] - 1]
        assert one["score"] == entry["probability"] and one["annotator"] == entry["file"].removesuffix(".png")
        mask = np.asarray(Image.open(folder / entry["file"])) == one["category_id"]
        np.testing.assert_array_equal(coco.decode(one["segmentation"]), mask)


def test_what_is_said(cli, place, tmp_path):
    done = cli("convert", place, "--to", "coco", "--out", tmp_path / "out")
    assert done.status == 0
    assert done.out == f"2 images with 4 masks written to {tmp_path / 'out'} (coco)\n"
    assert "ambiseg: warning: 1 mask has no foreground, so no annotation" in done.err
    done = cli(
        "convert", place / "a", "--to", "geotiff", "--allow-no-georeference", "--out", tmp_path / "one"
    )
    assert done.out == f"1 image with 3 masks written to {tmp_path / 'one'} (geotiff)\n"


def test_what_a_format_cannot_hold_is_not_counted(cli, tmp_path):
    """Only CVAT loses masks; the warning says how many."""
    for i in range(6):
        masks = [*random_masks(i, 9), np.zeros((9, 13))]
        write_prediction(tmp_path / "p" / f"{i}", masks, image=f"{i}.npy")
    words = ("convert", tmp_path / "p", "--to", "cvat", "--out", tmp_path / "out")
    done = cli(*words)
    assert done.out.startswith("6 images with 54 masks written")
    assert (tmp_path / "out" / "annotations.xml").read_text().count("<mask ") == 54
    lost, names = [line for line in done.err.splitlines() if "warning" in line]
    assert "6 masks have no foreground, so no shape" in lost
    assert "cvat shows no images with names such as '0.npy' (6 images)" in names
    done = cli(*words, "--image-suffix", ".png", "--overwrite")
    assert "such as" not in done.err and 'name="0.png"' in (tmp_path / "out" / "annotations.xml").read_text()


def test_a_data_set_in_place_of_predictions(cli, fires, tmp_path):
    packed = tmp_path / "d.h5"
    packed.touch()
    for data in (fires, packed):
        done = cli("convert", data, "--to", "coco", "--out", tmp_path / "out")
        assert done.error.rstrip().endswith(f": for a data set, give --data {data}")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--to", "cocoa"), "label-studio"),
        (("--to", "nifti", "--polygons"), "--polygons is for coco, label-studio, cvat, not for nifti"),
        (("--to", "coco", "--image-url", "x"), "--image-url is for label-studio, not for coco"),
        (("--to", "nifti", "--image-suffix", ".png"), "--image-suffix is for coco, label-studio, cvat, not"),
        (
            ("--to", "cvat", "--image-suffix", "png"),
            "'png' is no suffix of file names: give one such as .png",
        ),
        (("--to", "cvat", "--allow-no-georeference"), "--allow-no-georeference is for geotiff, not for cvat"),
        (("--to", "coco", "--data", "d"), "name one folder of predictions, or a data set with --data"),
        (("--to", "geotiff"), "a.png: it is gone"),
    ],
)
def test_mistakes(cli, place, tmp_path, words, hint):
    assert hint in cli("convert", place, "--out", tmp_path / "out", "--json", *words).error
    assert not (tmp_path / "out").exists()


def test_annotations(cli, fires, tmp_path):
    words = ("convert", "--data", fires, "--split", "val", "--to", "label-studio", "--out", tmp_path / "out")
    assert cli(*words).status == 0
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert len(tasks) == 4 and all(
        abs(sum(p["score"] for p in task["predictions"]) - 1) < 1e-6 for task in tasks
    )
    assert "name one folder" in cli("convert", "--to", "coco", "--out", tmp_path / "other").error


def test_only_what_convert_wrote_is_replaced(cli, place, tmp_path):
    words = ("convert", place, "--to", "cvat", "--out", tmp_path / "out")
    assert cli(*words).status == 0
    assert "exists already" in cli(*words).error
    (tmp_path / "out" / "labels.json").write_text("[]")
    assert cli(*words[:-3], "nifti", *words[-2:], "--overwrite").status == 0
    names = {path.name for path in (tmp_path / "out").iterdir()} - {".ambiseg-files"}
    assert names == {"a.nii.gz", "a.json", "b.nii.gz", "b.json"}
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "mine.txt" in cli(*words, "--overwrite").error
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    for target in (place, place / "a"):
        assert cli("convert", place, "--to", "coco", "--out", target, "--overwrite").error
    assert len(list(place.glob("*/mask-*.png"))) == 5
