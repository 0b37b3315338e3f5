"""Predictions of a few images on disk, some with names that a careless page would obey."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import write_dataset
from ambiseg.labels import LabelSpace
from viewer_helpers import HOSTILE, READERS, Written, disks, write_prediction


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Three images, their annotations as a data set, and predictions of them."""
    root = tmp_path_factory.mktemp("view")
    names = [f"scan-{i}" for i in range(3)]
    masks = np.stack([disks(i) for i in range(3)])
    annotations = np.stack([disks(i, 1)[::-1] for i in range(3)])
    images = [np.random.default_rng(i).integers(0, 255, (1, 24, 32)).astype(np.uint8) for i in range(3)]
    samples = [
        Sample(name, image, truth, np.array([0.2, 0.3, 0.5]), READERS)
        for name, image, truth in zip(names, images, annotations, strict=True)
    ]
    info = DatasetInfo("scans", LabelSpace(("rest", "lesion")))
    data = write_dataset(root / "data", {"test": samples}, info)
    (root / "images").mkdir()
    lines = []
    for i, name in enumerate(names):
        image = root / "images" / f"{name}.png"
        Image.fromarray(images[i][0]).save(image)
        write_prediction(root / "predictions" / name, image, masks[i])
        lines.append({"image": str(image), "folder": name})
    text = "".join(json.dumps(line) + "\n" for line in [{"run": "r"}, *lines])
    (root / "predictions" / "predictions.jsonl").write_text(text, encoding="utf-8")
    return Written(root / "predictions", root / "images", data, masks, annotations)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """Predictions whose image and class have names with a script in them, and one whose image is none."""
    root = tmp_path_factory.mktemp("hostile")
    path = root / "predictions"
    image = root / f"{HOSTILE.replace('/', '')}.png"
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(image)
    classes = ("rest", HOSTILE, "</script><img src=x onerror=document.title='taken'>")
    write_prediction(path / "a", image, disks(0) * 2, classes=classes)
    (root / "none.png").write_bytes(b"this is no image")
    write_prediction(path / "b", root / "none.png", disks(0))
    lines = [{"run": "r"}, {"image": str(image), "folder": "a"}, {"image": "none.png", "folder": "b"}]
    (path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
