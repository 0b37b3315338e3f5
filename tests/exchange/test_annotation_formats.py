"""COCO, Label Studio and CVAT: whole files, read back without ambiseg."""

from __future__ import annotations

import contextlib
import io
import json
from urllib.parse import unquote

import numpy as np
import pytest
from defusedxml import ElementTree
from pycocotools.coco import COCO

from ambiseg.errors import AmbisegError
from ambiseg.exchange import ConvertSettings, PredictedImages, convert
from ambiseg.labels import LabelSpace
from exchange_helpers import brush_picture, cvat_mask, filled
from prediction_files import random_masks, write_prediction

LABELS = LabelSpace(("none", "a & <b>", 'naïve "c"'), ((0, 0, 0), (255, 16, 0), (0, 128, 255)))
ODD = "ä <&\"'>\n\x01é.png"
"""A file name that XML, JSON and addresses must escape."""


@pytest.fixture
def predictions(tmp_path):
    """Three images of three classes; the second hypothesis of the last one is empty."""
    place = tmp_path / "predictions"
    write_prediction(place / "one", random_masks(0, 3, 3), (0.5, 0.3, 0.2), labels=LABELS, image=ODD)
    write_prediction(place / "two", random_masks(1, 2, 3, (5, 4)), (0.75, 0.25), labels=LABELS)
    masks = np.concatenate([random_masks(2, 1, 3), np.zeros((1, 9, 13), np.uint8)])
    write_prediction(place / "zwei ö", masks, (0.6, 0.4), labels=LABELS)
    return place


def stored(predictions):
    return list(PredictedImages(predictions))


def converted(predictions, to, **settings):
    out = predictions.with_name(f"{to}-{len(settings)}")
    return out, convert(PredictedImages(predictions), to, out, ConvertSettings(**settings))


@pytest.mark.parametrize("outlines", [False, True])
def test_coco(predictions, outlines):
    out, done = converted(predictions, "coco", polygons=outlines)
    assert (done.images, done.masks) == (3, 6) and len(done.remarks) == 1 and "1 mask has" in done.remarks[0]
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO(out / "annotations.json")
    assert [(one["id"], one["name"]) for one in found.dataset["categories"]] == list(enumerate(LABELS.names))[
        1:
    ]
    images = stored(predictions)
    assert [one["file_name"] for one in found.dataset["images"]] == [one.image for one in images]
    total = 0
    for entry, one in zip(found.dataset["images"], images, strict=True):
        assert (entry["height"], entry["width"]) == one.size and entry["name"] == one.name
        assert [h["probability"] for h in entry["hypotheses"]] == list(one.probabilities)
        masks = np.zeros_like(one.masks)
        for annotation in found.imgToAnns[entry["id"]]:
            k, pixels = annotation["hypothesis"] - 1, found.annToMask(annotation)
            assert annotation["score"] == annotation["probability"] == one.probabilities[k]
            assert annotation["annotator"] == f"mask-{k + 1:02}"
            assert annotation["area"] == pixels.sum() and annotation["iscrowd"] == 0
            left, top, width, height = annotation["bbox"]
            assert pixels[top : top + height, left : left + width].sum() == pixels.sum()
            assert pixels[top].any() and pixels[:, left].any()
            assert pixels[top + height - 1].any() and pixels[:, left + width - 1].any()
            masks[k] += annotation["category_id"] * pixels
            assert isinstance(annotation["segmentation"], list) == outlines
            total += 1
        np.testing.assert_array_equal(masks, one.masks)
    assert [one["id"] for one in found.dataset["annotations"]] == list(range(1, total + 1))


@pytest.mark.parametrize("outlines", [False, True])
def test_label_studio(predictions, outlines):
    out, done = converted(predictions, "label-studio", polygons=outlines)
    assert (done.images, done.masks, done.remarks) == (3, 7, ())
    tasks = json.loads((out / "tasks.json").read_text())
    view = ElementTree.parse(out / "interface.xml").getroot()
    image, tags = view.find("Image"), view.find("PolygonLabels" if outlines else "BrushLabels")
    assert image.get("value") == "$image" and tags.get("toName") == image.get("name")
    assert [(one.get("value"), one.get("background")) for one in tags] == [
        (LABELS.names[1], "#ff1000"),
        (LABELS.names[2], "#0080ff"),
    ]
    kind, ids = tags.tag.lower(), set()
    for task, one in zip(tasks, stored(predictions), strict=True):
        assert unquote(task["data"]["image"]) == f"/data/local-files/?d={one.image}"
        assert [p["score"] for p in task["predictions"]] == list(one.probabilities)
        for k, prediction in enumerate(task["predictions"]):
            assert prediction["model_version"] == f"mask-{k + 1:02}"
            mask = np.zeros(one.size, np.uint8)
            for result in prediction["result"]:
                assert (result["original_height"], result["original_width"]) == one.size
                assert (result["type"], result["from_name"], result["to_name"]) == (
                    kind,
                    tags.get("name"),
                    "image",
                )
                (name,) = result["value"][kind]
                ids.add(result["id"])
                if outlines:
                    corners = np.array(result["value"]["points"]) * np.array(one.size[::-1]) / 100
                    pixels = filled([corners], one.size)
                else:
                    pixels = brush_picture(result["value"]["rle"], one.size) // 255
                mask += LABELS.names.index(name) * pixels
            np.testing.assert_array_equal(mask, one.masks[k])
    assert len(ids) == sum(len(p["result"]) for task in tasks for p in task["predictions"])


def test_label_studio_addresses(predictions):
    out, _ = converted(predictions, "label-studio", image_url="https://example.org/i/")
    tasks = json.loads((out / "tasks.json").read_text())
    assert tasks[1]["data"]["image"] == "https://example.org/i/two.png"


@pytest.mark.parametrize("outlines", [False, True])
def test_cvat(predictions, outlines):
    out, done = converted(predictions, "cvat", polygons=outlines)
    assert (done.images, done.masks) == (3, 6) and len(done.remarks) == 1
    assert done.remarks[0].startswith(
        "1 mask has no foreground, so no shape, and CVAT has no place for the prob"
    )
    root = ElementTree.parse(out / "annotations.xml").getroot()
    assert root.tag == "annotations" and root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == "3"
    labels = json.loads((out / "labels.json").read_text())
    names = [one["name"] for one in labels]
    assert names == [one.findtext("name") for one in root.iter("label")] == list(LABELS.names[1:])
    attributes = [one["name"] for one in labels[0]["attributes"]]
    assert attributes == [one.findtext("name") for one in root.find("meta/task/labels/label/attributes")]
    images = stored(predictions)
    assert [element.get("name") for element in root.iter("image")] == [
        one.image.replace("\n", "\\n").replace("\x01", "\\x01") for one in images
    ]
    for i, (element, one) in enumerate(zip(root.iter("image"), images, strict=True)):
        assert element.get("id") == str(i)
        assert (int(element.get("height")), int(element.get("width"))) == one.size
        masks = np.zeros_like(one.masks)
        for shape in element:
            said = {attribute.get("name"): attribute.text for attribute in shape}
            assert list(said) == attributes
            k = int(said["hypothesis"]) - 1
            assert float(said["probability"]) == one.probabilities[k]
            assert said["annotator"] == f"mask-{k + 1:02}" and shape.get("group_id") == said["hypothesis"]
            assert int(shape.get("z_order")) == len(masks) - 1 - k
            if outlines:
                assert shape.tag == "polygon"
                pairs = [pair.split(",") for pair in shape.get("points").split(";")]
                pixels = filled([np.array(pairs, float)], one.size)
            else:
                assert shape.tag == "mask"
                pixels = cvat_mask(shape.attrib, one.size)
            masks[k] += LABELS.names.index(shape.get("label")) * pixels
        np.testing.assert_array_equal(masks, one.masks)


def file_names(out, to):
    """Names of the images in a conversion."""
    if to == "cvat":
        return [one.get("name") for one in ElementTree.parse(out / "annotations.xml").iter("image")]
    if to == "coco":
        return [one["file_name"] for one in json.loads((out / "annotations.json").read_text())["images"]]
    tasks = json.loads((out / "tasks.json").read_text())
    return [one["data"]["image"].removeprefix("/data/local-files/?d=") for one in tasks]


@pytest.mark.parametrize(("to", "hidden"), [("coco", 0), ("label-studio", 4), ("cvat", 3)])
def test_images_that_no_browser_shows(tmp_path, to, hidden):
    names = ["a.JPG", "b.nii.gz", "c.npy", "d.tif", "site1.scan7"]
    for i, name in enumerate(names):
        write_prediction(tmp_path / "p" / f"{i}", random_masks(i), image=name)
    out, done = converted(tmp_path / "p", to)
    assert file_names(out, to) == names
    words = f"{to} shows no images with names such as 'b.nii.gz' ({hidden} images): save them as PNG"
    assert [one.split(" and convert")[0] for one in done.remarks] == [words] * (hidden > 0)
    out, done = converted(tmp_path / "p", to, image_suffix=".png")
    assert file_names(out, to) == ["a.png", "b.png", "c.png", "d.png", "site1.scan7.png"]
    assert done.remarks == ()


def test_images_of_one_name(tmp_path):
    for name in ("a.npy", "a.tif"):
        write_prediction(tmp_path / "p" / name, random_masks(0), image=name)
    assert converted(tmp_path / "p", "cvat", image_suffix=".png")[1].remarks == (
        "cvat finds images by name, but several are named 'a.png': convert them in parts",
    )


@pytest.mark.parametrize("suffix", ["png", "", ".", "./x", ".p\n"])
def test_what_is_no_suffix(suffix):
    with pytest.raises(AmbisegError, match="is no suffix of file names: give one such as .png"):
        ConvertSettings(image_suffix=suffix)


def test_names_that_xml_forbids_are_spelt_out(tmp_path):
    labels = LabelSpace(("none", "x\ufffe\x02\ud800"))
    write_prediction(tmp_path / "p" / "a", random_masks(0), labels=labels)
    for to, file in (("cvat", "annotations.xml"), ("label-studio", "interface.xml")):
        out, _ = converted(tmp_path / "p", to)
        assert "x" in ElementTree.tostring(ElementTree.parse(out / file).getroot(), "unicode")
