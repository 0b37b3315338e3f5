"""What convert reads: predictions and annotations, whole or damaged."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split, write_dataset
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.exchange import (
    FORMATS,
    AnnotatedImages,
    ConvertSettings,
    Hypotheses,
    PredictedImages,
    convert,
)
from ambiseg.labels import LabelSpace
from prediction_files import random_masks, write_prediction


@pytest.fixture
def place(tmp_path):
    for i, name in enumerate("abc"):
        write_prediction(tmp_path / "p" / name, random_masks(i), (0.5, 0.3, 0.2))
    return tmp_path / "p"


def change(folder, **entries):
    file = folder / "prediction.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def test_a_folder_of_predictions_and_of_one_image(place):
    found = list(PredictedImages(place))
    assert [one.name for one in found] == ["a", "b", "c"] and len(PredictedImages(place)) == 3
    for i, one in enumerate(found):
        np.testing.assert_array_equal(one.masks, random_masks(i))
    (alone,) = PredictedImages(place / "b")
    np.testing.assert_array_equal(alone.masks, found[1].masks)
    assert alone.facts(1) == {"hypothesis": 2, "annotator": "mask-02", "probability": 0.3}


def test_class_numbers_stay_whatever_the_colours(tmp_path):
    """Colours of the palette are those of other classes in the default order."""
    usual = LabelSpace.of_classes(4)
    labels = LabelSpace(usual.names, tuple(reversed(usual.colors)))
    masks = random_masks(0, 2, 4)
    write_prediction(tmp_path / "p" / "a", masks, labels=labels)
    images = PredictedImages(tmp_path / "p")
    assert images.labels.colors == labels.colors
    np.testing.assert_array_equal(next(iter(images)).masks, masks)


def spoil_json(folder):
    (folder / "prediction.json").write_text('{"masks": [')


def spoil_mask(folder):
    (folder / "mask-02.png").write_bytes((folder / "mask-02.png").read_bytes()[:60])


def other_size(folder):
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(folder / "mask-02.png")


def other_class(folder):
    Image.fromarray(np.full((9, 13), 7, np.uint8)).save(folder / "mask-02.png")


def outside(folder):
    entries = json.loads((folder / "prediction.json").read_text())["masks"]
    change(folder, masks=[entries[0] | {"file": "../a/mask-01.png"}])


def probabilities(*values):
    """Spoil a folder with these probabilities of its masks."""

    def spoil(folder):
        entries = json.loads((folder / "prediction.json").read_text())["masks"]
        given = [one | {"probability": value} for one, value in zip(entries, values, strict=False)]
        change(folder, masks=given)

    return spoil


DAMAGE = {
    spoil_json: "cannot be read as JSON",
    spoil_mask: "mask-02.png: cannot be read as png",
    other_size: "its masks have the sizes 3x4 and 9x13",
    other_class: "holds|class",
    outside: "lies elsewhere",
    probabilities(float("nan")): "'probability' of mask 1 is NaN, not a finite number",
    probabilities(10**400): "'probability' of mask 1 is 1000.*, not a finite number",
    probabilities(0.5, 0.8, -0.3): "prediction.json: it states the probability -0.3",
    probabilities(0.9, 0.9, 0.9): "prediction.json: its probabilities have the sum 2.7, not 1: divide them",
    lambda folder: (folder / "mask-02.png").unlink(): "mask-02.png: there is no such file: write the pred",
    lambda folder: change(folder, masks=[]): "names no mask",
    lambda folder: change(folder, classes=[]): "does not name the classes",
    lambda folder: change(folder, classes=["a", "a"]): "class names must differ",
    lambda folder: change(folder, classes=["a", "b"]): r"its classes are \['a', 'b'\], those of the first",
}


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("spoil", DAMAGE, ids=range(len(DAMAGE)))
def test_damage_is_one_sentence_and_nothing_is_written(place, tmp_path, spoil, to):
    spoil(place / "b")
    with pytest.raises(AmbisegError, match=DAMAGE[spoil]) as error:
        convert(PredictedImages(place), to, tmp_path / "out", ConvertSettings(allow_no_georeference=True))
    assert str(place / "b") in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p"]


def test_what_is_no_folder_of_predictions(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "gone", "is no folder"), (tmp_path / "empty", "holds no prediction")):
        with pytest.raises(AmbisegError, match=words):
            PredictedImages(path)
    write_prediction(tmp_path / "p" / "a", random_masks(0))
    with pytest.raises(AmbisegError, match="gone is no folder of images"):
        PredictedImages(tmp_path / "p", tmp_path / "gone")
    with pytest.raises(UnknownNameError, match="did you mean 'coco'"):
        convert(PredictedImages(tmp_path / "p"), "cocoa", tmp_path / "out")


def test_images_are_looked_for_in_their_folder_only(place, tmp_path):
    change(place / "a", image="../secret.png")
    for name in ("secret.png", "images/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    first, second, third = PredictedImages(place, tmp_path / "images")
    assert first.path is None and first.file is None and third.file is None
    assert second.path == second.file == tmp_path / "images" / "b.png"


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "/vsicurl/http://localhost/a.tif", "", "\ud800.tif"])
def test_paths_that_lead_nowhere(place, tmp_path, path):
    change(place / "a", path=path)
    assert next(iter(PredictedImages(place))).file is None
    with pytest.raises(AmbisegError, match="it is gone"):
        convert(PredictedImages(place), "geotiff", tmp_path / "out")
    convert(PredictedImages(place), "napari", tmp_path / "out")


def test_one_image_at_a_time(place, tmp_path):
    """The next image is read when the one before has been written."""
    steps = []

    class Watched(PredictedImages):
        def __iter__(self):
            for one in super().__iter__():
                steps.append(f"read {one.name}")
                yield one

    convert(
        Watched(place),
        "nifti",
        tmp_path / "out",
        progress=lambda done, total: steps.append(f"{done}/{total}"),
    )
    assert steps == ["read a", "1/3", "read b", "2/3", "read c", "3/3"]


class Given:
    """Images of these names."""

    labels, inputs = LabelSpace.binary(), ()

    def __init__(self, place, *names):
        self.place, self.names = place, names

    def __len__(self):
        return len(self.names)

    def __iter__(self):
        return (Hypotheses(name, "", None, random_masks(0, 1), (1.0,), ("a",)) for name in self.names)


@pytest.mark.parametrize("to", FORMATS)
def test_no_name_leads_out_of_the_folder(tmp_path, to):
    settings = ConvertSettings(allow_no_georeference=True)
    for names, words in (
        (("../x",), "cannot name a file"),
        (("..",), "cannot"),
        (("x", "x"), "two images 'x'"),
    ):
        with pytest.raises(AmbisegError, match=words):
            convert(Given(tmp_path, *names), to, tmp_path / "out", settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("packed", [False, True])
def test_annotations_have_the_names_of_annotators(tmp_path, packed):
    labels = LabelSpace(("rest", "cup"), ignore_value=255)
    masks = random_masks(7, 2)
    masks[0, 0, 0] = 255
    sample = Sample("s", np.zeros((1, 9, 13), np.uint8), masks, np.array([0.25, 0.75]), ("ann", "bob"))
    data = tmp_path / ("data.h5" if packed else "data")
    write_dataset(data, {"test": [sample]}, DatasetInfo("d", labels))
    images = AnnotatedImages(data, open_split(data, "test"))
    (one,) = images
    assert (one.annotators, one.probabilities, one.image) == (
        ("ann", "bob"),
        (0.25, 0.75),
        "s" if packed else "s.png",
    )
    assert (one.path is None) == packed
    convert(images, "coco", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]
    assert [(a["annotator"], a["score"], a["area"]) for a in found] == [
        ("ann", 0.25, int((masks[0] == 1).sum())),
        ("bob", 0.75, int((masks[1] == 1).sum())),
    ]


def test_packed_annotations_find_their_images(tmp_path):
    sample = Sample("s", np.zeros((1, 9, 13), np.uint8), random_masks(0, 1), np.ones(1), ("ann",))
    write_dataset(tmp_path / "d.h5", {"test": [sample]}, DatasetInfo())
    (tmp_path / "images").mkdir()
    for name in ("s.tif", "s.tfw", "s.tif.aux.xml", "t.tif"):
        (tmp_path / "images" / name).touch()
    (one,) = AnnotatedImages(tmp_path / "d.h5", open_split(tmp_path / "d.h5", "test"), tmp_path / "images")
    assert one.path == tmp_path / "images" / "s.tif" and one.image == "s.tif"


@pytest.mark.parametrize(
    ("to", "module", "words", "settings"),
    [
        (
            "coco",
            "pycocotools.mask",
            r"COCO needs the package pycocotools: pip install 'ambiseg\[formats\]'",
            {},
        ),
        (
            "cvat",
            "rasterio.features",
            r"Polygons need the package rasterio: .*\[formats\]",
            {"polygons": True},
        ),
        (
            "geotiff",
            "rasterio",
            r"GeoTIFF needs the package rasterio: .*\[formats\]",
            {"allow_no_georeference": True},
        ),
    ],
)
def test_a_missing_package_is_one_sentence(place, tmp_path, monkeypatch, to, module, words, settings):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AmbisegError, match=words):
        convert(PredictedImages(place), to, tmp_path / "out", ConvertSettings(**settings))
    assert not (tmp_path / "out").exists()
