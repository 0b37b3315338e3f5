"""Which images and masks a gallery shows, and what it refuses in a sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from ambiseg.data.source import open_split
from ambiseg.engine.run import load
from ambiseg.errors import AmbisegError
from ambiseg.predictions import open_predictions
from ambiseg.viewer.gallery import PredictedGallery, SplitGallery, chosen_split, is_predicted
from ambiseg.viewer.run_gallery import RunGallery
from viewer_helpers import disks, write_prediction


def test_predictions_in_the_order_in_which_they_were_made(written):
    gallery = PredictedGallery(written.predictions)
    assert gallery.names == ("scan-0", "scan-1", "scan-2")
    for i in range(3):
        case = gallery.read(i)
        np.testing.assert_array_equal(case.predictions.masks[0], written.masks[i])
        assert case.predictions.labels.names == ("rest", "lesion")
        assert case.image.shape == (1, 24, 32) and case.annotations is None and not case.remark


def test_two_images_of_one_name_are_both_shown(tmp_path):
    for folder in ("a~1", "a~2"):
        write_prediction(tmp_path / folder, tmp_path / folder / "a.png", disks(0))
    lines = [{"run": "r"}, *({"image": f"{n}/a.png", "folder": f"a~{n}"} for n in (1, 2))]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert PredictedGallery(tmp_path).names == ("a", "a")


def test_a_moved_image_is_found_in_its_new_folder(written, tmp_path):
    moved = tmp_path / "predictions"
    shutil.copytree(written.predictions, moved)
    place = moved / "scan-0" / "prediction.json"
    content = json.loads(place.read_text())
    place.write_text(json.dumps({**content, "path": str(tmp_path / "gone" / "scan-0.png")}))
    lost = PredictedGallery(moved).read(0)
    assert lost.image is None and "gone" in lost.remark and "--images" in lost.remark
    assert PredictedGallery(moved, written.images).read(0).image is not None


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", ".."])
def test_no_image_outside_of_the_folder_is_read(written, tmp_path, name):
    write_prediction(tmp_path / "p" / "a", tmp_path / "a.png", disks(0))
    shutil.copy(written.images / "scan-0.png", tmp_path / "secret.png")
    (tmp_path / "images").mkdir()
    place = tmp_path / "p" / "a" / "prediction.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "image": name}))
    case = PredictedGallery(tmp_path / "p", tmp_path / "images").read(0)
    assert case.image is None and "leads out" in case.remark


def test_masks_of_another_size_than_the_image_are_told(written, tmp_path):
    write_prediction(tmp_path / "p" / "a", written.images / "scan-0.png", disks(0)[:, :20])
    assert "20x32 pixels, the image has 24x32" in PredictedGallery(tmp_path / "p").read(0).remark


def test_predictions_beside_annotations(written):
    split = open_split(written.data, "test")
    found = open_predictions(written.predictions, split.ids)
    case = SplitGallery(split, "both", [], found).read(1)
    np.testing.assert_array_equal(case.predictions.masks[0], written.masks[1])
    np.testing.assert_array_equal(case.annotations.masks[0], written.annotations[1])
    assert case.annotators == ("anna", "bo", "cy")
    alone = SplitGallery(split, "data", []).read(1)
    assert alone.predictions is None and alone.annotations is not None


def test_a_split_without_predictions_is_refused(written, tmp_path):
    write_prediction(tmp_path / "other", tmp_path / "other.png", disks(0))
    split = open_split(written.data, "test")
    with pytest.raises(AmbisegError, match="no prediction is of an image of it"):
        SplitGallery(split, "both", [], open_predictions(tmp_path, split.ids))


def test_a_run_predicts_what_it_is_asked_for(tiny_run, fires):
    split, run = open_split(fires, "test"), load(tiny_run, precision="32")
    gallery = RunGallery(run, split, "run", [])
    case = gallery.read(2)
    expected = run.predict_batch([split[2].image]).masks.compact()
    np.testing.assert_array_equal(case.predictions.masks, expected.masks)
    assert len(case.annotators) == case.annotations.masks.shape[1]


def test_kinds_and_splits_are_told_apart(written, fires):
    assert is_predicted(written.predictions)
    assert not is_predicted(written.data) and not is_predicted(written.images / "scan-0.png")
    assert chosen_split(fires) == "test" and chosen_split(fires, "train") == "train"


def test_an_empty_folder_is_no_prediction(tmp_path):
    with pytest.raises(AmbisegError, match="holds no prediction"):
        PredictedGallery(tmp_path)
    with pytest.raises(AmbisegError, match="is no folder"):
        PredictedGallery(tmp_path, tmp_path / "nowhere")
