"""GeoTIFF, NIfTI and napari: whole files, read back without ambiseg."""

from __future__ import annotations

import json
import re
import runpy
import sys
import tomllib
import types
import warnings
from importlib.resources import files
from pathlib import Path

import nibabel
import numpy as np
import pytest
import rasterio
import tifffile
import yaml
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine

import ambiseg
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split, write_dataset
from ambiseg.errors import AmbisegError
from ambiseg.exchange import AnnotatedImages, ConvertSettings, PredictedImages, convert
from ambiseg.exchange.napari import MOST, get_reader
from ambiseg.labels import LabelSpace
from prediction_files import random_masks, write_prediction

PLACE = Affine(10.5, 0.25, 500000.0, -0.5, -9.75, 4649776.0)
SIZE = (9, 13)


def write_geo(path, size=SIZE, **profile):
    profile = profile or {"crs": CRS.from_epsg(32633), "transform": PLACE}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", dtype="uint16", count=4, height=size[0], width=size[1], **profile
        ) as out:
            out.write(np.arange(4 * size[0] * size[1], dtype=np.uint16).reshape(4, *size))
    return path


@pytest.fixture
def scene(tmp_path):
    """A prediction of a GeoTIFF; the folder of predictions."""
    image = write_geo(tmp_path / "images" / "scene ö.tif")
    labels = LabelSpace(("land", "water", "ice"), ((1, 2, 3), (0, 0, 255), (200, 210, 220)))
    masks = random_masks(0, 2, 3)
    write_prediction(tmp_path / "p" / "scene", masks, (0.7, 0.3), labels=labels, image=image.name, path=image)
    return tmp_path / "p", masks, labels


def opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rasterio.open(path)


def test_geotiff_lies_where_its_image_lies(scene, tmp_path):
    place, masks, labels = scene
    assert convert(PredictedImages(place), "geotiff", tmp_path / "out").remarks == ()
    for k, mask in enumerate(masks):
        with opened(tmp_path / "out" / "scene" / f"mask-{k + 1:02}.tif") as found:
            assert found.crs == CRS.from_epsg(32633) and found.transform == PLACE
            np.testing.assert_array_equal(found.read(), mask[None])
            colors = found.colormap(1)
            assert [colors[c] for c in range(3)] == [(*color, 255) for color in labels.colors]
            tags = found.tags()
            assert float(tags["AMBISEG_PROBABILITY"]) == (0.7, 0.3)[k]
            assert (tags["AMBISEG_IMAGE"], tags["AMBISEG_HYPOTHESIS"]) == ("scene ö.tif", str(k + 1))
            assert tags["AMBISEG_CLASS_2"] == "ice"
            assert found.descriptions == (f"mask-{k + 1:02}, probability {(0.7, 0.3)[k]}",)


def test_geotiff_finds_images_that_were_moved(scene, tmp_path):
    place, masks, _ = scene
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(AmbisegError, match="scene ö.tif: it is gone: name the folder .*--images"):
        convert(PredictedImages(place), "geotiff", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert(PredictedImages(place, tmp_path / "moved"), "geotiff", tmp_path / "out")
    with opened(tmp_path / "out" / "scene" / "mask-01.tif") as found:
        assert found.transform == PLACE


def test_geotiff_of_annotations_has_void_as_no_data(tmp_path):
    masks = random_masks(1, 2)
    masks[1, 2, 3] = 255
    sample = Sample("s", np.zeros((1, *SIZE), np.uint8), masks, np.array([0.5, 0.5]), ("ann", "bob"))
    info = DatasetInfo("d", LabelSpace(("rest", "cup"), ignore_value=255))
    write_dataset(tmp_path / "d.h5", {"test": [sample]}, info)
    write_geo(tmp_path / "images" / "s.tif")
    split = open_split(tmp_path / "d.h5", "test")
    convert(AnnotatedImages(tmp_path / "d.h5", split, tmp_path / "images"), "geotiff", tmp_path / "out")
    with opened(tmp_path / "out" / "s" / "mask-02.tif") as found:
        assert found.nodata == 255 and found.transform == PLACE
        assert found.tags()["AMBISEG_ANNOTATOR"] == "bob"
        np.testing.assert_array_equal(found.read(1), masks[1])


def test_geotiff_with_control_points(tmp_path):
    points = [GroundControlPoint(r, c, 10.0 + c, 50.0 - r) for r, c in ((0, 0), (0, 13), (9, 0))]
    image = write_geo(tmp_path / "a.tif", crs=CRS.from_epsg(4326), gcps=points)
    write_prediction(tmp_path / "p" / "a", random_masks(0), path=image)
    convert(PredictedImages(tmp_path / "p"), "geotiff", tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "a" / "mask-01.tif") as found:
        kept, crs = found.gcps
        assert crs == CRS.from_epsg(4326)
        assert [(p.row, p.col, p.x, p.y) for p in kept] == [(p.row, p.col, p.x, p.y) for p in points]


def test_geotiff_without_georeference_is_refused_or_asked_for(tmp_path):
    for name in ("a.tif", "b.png"):
        image = tmp_path / name
        tifffile.imwrite(image, np.zeros(SIZE, np.uint8)) if name == "a.tif" else image.touch()
        write_prediction(tmp_path / name[0] / name[0], random_masks(0), path=image)
        images = PredictedImages(tmp_path / name[0])
        with pytest.raises(AmbisegError, match=f"{name}: it has no georeference: .*--allow-no-georeference"):
            convert(images, "geotiff", tmp_path / "out")
        settings = ConvertSettings(allow_no_georeference=True)
        done = convert(images, "geotiff", tmp_path / f"out-{name}", settings)
        assert done.remarks == ("1 of 1 images has no georeference",)
        np.testing.assert_array_equal(
            tifffile.imread(tmp_path / f"out-{name}" / name[0] / "mask-02.tif"), random_masks(0)[1]
        )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b"II*\0 no tiff"), "cannot be read as GeoTIFF"),
        (lambda path: write_geo(path, (13, 9)), "the image is 13 high, 9 wide, but its masks 9 x 13"),
        (lambda path: turn(path), "its orientation tag is 3"),
    ],
)
def test_geotiff_of_an_image_that_is_another_one(scene, tmp_path, spoil, words):
    place, _, _ = scene
    image = tmp_path / "images" / "scene ö.tif"
    spoil(image)
    with pytest.raises(AmbisegError, match=words) as error:
        convert(PredictedImages(place), "geotiff", tmp_path / "out")
    assert str(image) in str(error.value) and not (tmp_path / "out").exists()


def turn(path):
    """Write the image again with its georeference and an orientation tag."""
    with tifffile.TiffFile(path) as tiff:
        tags = [tag for tag in tiff.pages[0].tags.values() if tag.code in (33550, 33922, 34264, 34735, 34737)]
        extra = [(tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in tags]
    tifffile.imwrite(path, np.zeros(SIZE, np.uint8), extratags=[*extra, (274, 3, 1, 3, True)])


@pytest.mark.parametrize(
    "affine", [None, np.array([[0, 2, 0, 5], [-3, 0, 0, 7], [0, 0, 4, -1], [0, 0, 0, 1.0]])]
)
def test_nifti_keeps_the_affine(tmp_path, affine):
    masks = random_masks(3)
    suffix = ".png" if affine is None else ".nii.gz"
    write_prediction(tmp_path / "p" / "a", masks, (0.5, 0.3, 0.2), suffix=suffix, affine=affine)
    done = convert(PredictedImages(tmp_path / "p"), "nifti", tmp_path / "out")
    assert len(done.remarks) == (affine is None)
    found = nibabel.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), masks.transpose(1, 2, 0)[:, :, None])
    np.testing.assert_allclose(found.affine, np.eye(4) if affine is None else affine)
    told = json.loads((tmp_path / "out" / "a.json").read_text())
    assert [one["probability"] for one in told["masks"]] == [0.5, 0.3, 0.2]
    assert told["classes"] == ["background", "foreground"]


def picture(tmp_path, channels):
    image = np.arange(channels * 9 * 13, dtype=np.uint8).reshape(channels, *SIZE)
    np.save(tmp_path / f"{channels}.npy", image)
    return tmp_path / f"{channels}.npy", image


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_napari_reads_a_folder_of_predictions(tmp_path, channels):
    path, image = picture(tmp_path, channels)
    masks = random_masks(4)
    write_prediction(tmp_path / "p" / "a", masks, (0.5, 0.3, 0.2), path=path)
    for place in (tmp_path / "p", tmp_path / "p" / "a", tmp_path / "p" / "a" / "prediction.json"):
        reader = get_reader(str(place))
        (shown, options, kind), *rest = reader(str(place))
        assert kind == "image" and options == {"name": "a", "rgb": channels == 3}
        wanted = {1: image[0], 3: image.transpose(1, 2, 0), 5: image}[channels]
        np.testing.assert_array_equal(shown, wanted)
        assert [layer[2] for layer in rest] == ["labels"] * 3
        for k, (mask, options, _) in enumerate(rest):
            np.testing.assert_array_equal(mask, masks[k])
            assert options["name"] == f"a: mask-{k + 1:02} ({(0.5, 0.3, 0.2)[k]})"
            assert options["metadata"]["probability"] == (0.5, 0.3, 0.2)[k]
            assert options["visible"] == (k == 0)


def test_napari_reader_leaves_all_else_to_others(tmp_path):
    (tmp_path / "prediction.txt").touch()
    for path in (str(tmp_path), str(tmp_path / "prediction.txt"), "gone", [str(tmp_path)]):
        assert get_reader(path) is None


def test_napari_reader_opens_few_images_at_once(tmp_path):
    for i in range(MOST + 1):
        write_prediction(tmp_path / "p" / str(i), random_masks(0, 1, size=(2, 2)))
    with pytest.raises(AmbisegError, match="open the folder of one of them"):
        get_reader(str(tmp_path / "p"))(str(tmp_path / "p"))


def test_napari_manifest_names_what_is_there():
    """The fields of npe2's manifest, schema 0.2.1, and the entry point that leads to it."""
    manifest = yaml.safe_load(files("ambiseg").joinpath("napari.yaml").read_text())
    assert set(manifest) == {"name", "display_name", "schema_version", "categories", "contributions"}
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["napari.manifest"] == {manifest["name"]: "ambiseg:napari.yaml"}
    assert manifest["name"] == project["name"] and 3 <= len(manifest["display_name"]) <= 90
    assert set(manifest["categories"]) <= {"IO", "Segmentation", "Annotation", "Visualization"}
    (command,), (reader,) = manifest["contributions"]["commands"], manifest["contributions"]["readers"]
    assert set(command) == {"id", "title", "python_name"} and command["id"].startswith(f"{manifest['name']}.")
    assert re.fullmatch(r"([a-z_]+\.)*[a-z_]+:[a-z_]+", command["python_name"])
    module, name = command["python_name"].split(":")
    assert getattr(sys.modules[module], name) is get_reader and module.startswith(ambiseg.__name__)
    assert set(reader) == {"command", "filename_patterns", "accepts_directories"}
    assert reader["command"] == command["id"] and reader["accepts_directories"] is True


def test_napari_files_show_without_ambiseg(tmp_path, monkeypatch):
    path, image = picture(tmp_path, 3)
    masks = random_masks(5, 2)
    write_prediction(tmp_path / "p" / "a", masks, (0.9, 0.1), path=path)
    write_prediction(tmp_path / "p" / "b", masks, (0.9, 0.1), path=tmp_path / "gone.npy")
    done = convert(PredictedImages(tmp_path / "p"), "napari", tmp_path / "out")
    assert done.remarks == ("1 of 2 images has no file at hand: only the masks were written",)
    shown = []

    class Viewer:
        def add_image(self, data, **options):
            shown.append(("image", data, options))

        def add_labels(self, data, **options):
            shown.append(("labels", data, options))

    monkeypatch.setitem(sys.modules, "napari", types.SimpleNamespace(Viewer=Viewer, run=lambda: None))
    names = [str(tmp_path / "out" / name) for name in ("show.py", "a.npz", "b.npz")]
    monkeypatch.setattr(sys, "argv", names)
    runpy.run_path(names[0], run_name="__main__")
    assert [kind for kind, _, _ in shown] == ["image", "labels", "labels", "labels", "labels"]
    np.testing.assert_array_equal(shown[0][1], image.transpose(1, 2, 0))
    for k in range(2):
        np.testing.assert_array_equal(shown[1 + k][1], masks[k])
        assert shown[1 + k][2]["metadata"]["probability"] == (0.9, 0.1)[k]
