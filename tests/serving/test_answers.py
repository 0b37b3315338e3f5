"""Every form of an answer holds the same masks, and run lengths are those of COCO."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.serving.answers import class_runs, render
from ambiseg.serving.model import Found


def unrolled(entry):
    """The mask of run lengths, by their definition."""
    flat, inside = [], False
    for count in entry["counts"]:
        flat += [inside] * count
        inside = not inside
    height, width = entry["size"]
    return np.array(flat).reshape(width, height).T


@pytest.mark.parametrize("labels", [LabelSpace.binary(), LabelSpace.of_classes(4)])
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_run_lengths_give_the_mask(labels, kind):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, labels.classes, (5, 7), np.uint8)
    mask = {"random": mask, "empty": np.zeros_like(mask), "full": np.ones_like(mask)}[kind]
    entries = class_runs(mask, labels)
    named = [labels.names[entry["class"]] for entry in entries]
    assert [entry["name"] for entry in entries] == named
    for entry in entries:
        np.testing.assert_array_equal(unrolled(entry), mask == entry["class"])
    found = {entry["class"] for entry in entries}
    assert found == {1} if labels.is_binary else found == set(np.unique(mask).tolist())


def test_coco_reads_the_run_lengths():
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(1).integers(0, 2, (9, 4), np.uint8)
    (entry,) = class_runs(mask, LabelSpace.binary())
    compressed = coco.frPyObjects({"size": entry["size"], "counts": entry["counts"]}, *mask.shape)
    np.testing.assert_array_equal(coco.decode(compressed), mask)


@pytest.fixture
def found():
    masks = torch.randint(0, 2, (1, 3, 6, 5), dtype=torch.uint8)
    return Found(MaskSet(masks, torch.tensor([[0.5, 0.3, 0.2]]), LabelSpace.binary()), True)


def test_all_forms_hold_the_same(served, images, found):
    task = served.task(images[0])
    texts = {}
    for form in ("png", "rle", "zip"):
        content, kind = render(served, task, found, form, request_id="x")
        if form == "zip":
            assert kind == "application/zip"
            archive = zipfile.ZipFile(io.BytesIO(content))
            assert archive.namelist() == ["prediction.json", "mask-01.png", "mask-02.png", "mask-03.png"]
            content = archive.read("prediction.json")
        texts[form] = json.loads(content)
    for k, expected in enumerate(found.masks.masks[0].numpy()):
        png, rle, zipped = (texts[form]["masks"][k] for form in ("png", "rle", "zip"))
        pictures = (io.BytesIO(base64.b64decode(png.pop("png"))), archive.open(zipped.pop("file")))
        for picture in pictures:
            np.testing.assert_array_equal(np.asarray(Image.open(picture)), expected)
        np.testing.assert_array_equal(unrolled(rle.pop("rle")[0]), expected == 1)
    assert texts["png"] == texts["rle"] == texts["zip"]
    entries = texts["png"]["masks"]
    assert [entry["probability"] for entry in entries] == [0.5, 0.3, 0.2]
    assert texts["png"]["request_id"] == "x" and texts["png"]["seed"] is None
