"""Volumes at the command line: predicted, measured, and shown slice by slice."""

from __future__ import annotations

import csv
import json
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from ambiseg.viewer.gallery import PredictedGallery
from volume_replica import AFFINE, write_series


@pytest.fixture(scope="module")
def predicted(tube_run, tubes, tmp_path_factory):
    """The volumes of the test split, predicted."""
    from ambiseg.cli.main import main

    out = tmp_path_factory.mktemp("predicted") / "out"
    assert main(["predict", str(tube_run), str(tubes / "test" / "images"), "--out", str(out)]) == 0
    return out


def test_predict_volumes(cli, tube_run, tubes, predicted):
    names = {path.name for path in (predicted / "tube4").iterdir()}
    assert {"mask-01.nii.gz", "picture.png", "prediction.json"} <= names
    with Image.open(predicted / "tube4" / "picture.png") as picture:
        assert picture.size[0] > 100
    assert "tube4/mask-01.nii.gz" in (predicted / "index.html").read_text(encoding="utf-8")
    words = ("predict", tube_run, tubes / "test" / "images", "--out", predicted)
    assert "--resume" in cli(*words).error
    outcome = cli(*words, "--resume")
    assert (
        outcome.status == 0
        and "2 of 2 volumes predicted" in outcome.out
        and "2 of them earlier" in outcome.out
    )


def test_options_of_volumes(cli, tube_run, tubes, fires, tmp_path):
    scan = tubes / "test" / "images" / "tube4.nii.gz"
    words = ("predict", tube_run, scan, "--out", tmp_path / "out", "--json", "--no-picture")
    outcome = cli(*words, "--axis", "coronal", "--all", "--top", 2, "--pixel-probabilities")
    entry = json.loads(outcome.out)["volumes"][0]
    assert entry["masks"] == 2 and entry["error"] is None
    content = json.loads((tmp_path / "out" / "tube4" / "prediction.json").read_text())
    assert content["volume"]["axis"] == "coronal" and content["expected"] == "probability.nii.gz"
    assert not (tmp_path / "out" / "index.html").exists()
    assert "leave it out" in cli(*words, "--overlays").error
    image = fires / "test" / "images" / "fire-00016.npy"
    assert "for volumes" in cli("predict", tube_run, image, "--out", tmp_path / "b", "--axis", "axial").error
    assert "in two calls" in cli("predict", tube_run, scan, image, "--out", tmp_path / "b").error


def test_a_dicom_series_becomes_nifti(cli, tube_run, tubes, tmp_path):
    """At the place of the scan: voxels of mask and scan are the same points in space."""
    pytest.importorskip("pydicom")
    values = np.asanyarray(nibabel.load(tubes / "test" / "images" / "tube4.nii.gz").dataobj)
    write_series(tmp_path / "series", values, AFFINE)
    outcome = cli("predict", tube_run, tmp_path / "series", "--out", tmp_path / "out", "--no-picture")
    assert outcome.status == 0, outcome
    image = nibabel.load(tmp_path / "out" / "series" / "mask-01.nii.gz")
    assert image.shape == values.shape and image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)
    assert image.get_sform(coded=True)[1] == 1 and image.header.get_xyzt_units()[0] == "mm"


def test_evaluate_volumes(cli, tube_run, tubes, tmp_path):
    run = shutil.copytree(tube_run, tmp_path / "run")
    outcome = cli("evaluate", run, "--data", tubes)
    assert "2 whole volumes" in outcome.out and "CRPS of volume (ml)" in outcome.out
    entries = json.loads((run / "metrics.json").read_text())["per_volume"]
    assert entries["volumes"] == 2 and entries["ged"] >= 0 and "bias" in entries["classes"]["foreground"]
    with open(run / "per_volume.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["tube4", "tube5"]
    mean = np.mean([float(row["crps [foreground]"]) for row in rows])
    assert entries["classes"]["foreground"]["crps"] == pytest.approx(mean, rel=1e-4)
    some = cli("evaluate", run, "--images", 4)
    assert "all slices" in some.err and "whole volume" not in some.out
    assert not (run / "per_volume.csv").exists()


def test_score_takes_slices_of_predicted_volumes(cli, predicted, tubes):
    outcome = cli("score", predicted, "--data", tubes, "--json", "--metrics", "ged")
    assert outcome.status == 0 and json.loads(outcome.out)


def test_view_shows_slices_of_predicted_volumes(predicted):
    gallery = PredictedGallery(predicted)
    assert gallery.names[:2] == ("tube4_z0000", "tube4_z0001") and len(gallery.names) == 12
    case = gallery.read(8)
    mask = np.asanyarray(nibabel.load(predicted / "tube5" / "mask-01.nii.gz").dataobj)[:, :, 2]
    assert np.array_equal(case.predictions.masks[0, 0].numpy(), mask)
    assert case.image is not None and case.image.shape == (1, 16, 16)


def test_convert_says_that_it_takes_images(cli, predicted, tmp_path):
    assert (
        "prediction of a volume"
        in cli("convert", predicted, "--to", "coco", "--out", tmp_path / "c.json").error
    )
