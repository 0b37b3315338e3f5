"""The keys of dataset.yaml and the columns of weights.csv: the page shows what the code reads."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.files.validation import WEIGHT_TOLERANCE
from ambiseg.data.folder import FolderSplit, write_folder
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import read_weights
from ambiseg.data.packed import PackedSplit
from ambiseg.data.patterns import FilePatterns, Pattern
from ambiseg.data.sample import Sample
from ambiseg.data.schema import CLASS_KEYS, COLUMNS, KEYS, SLICES_KEYS
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.plain_yaml import plain_values

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))
page = importlib.import_module("schema")
TEXT = page.PAGE.read_text(encoding="utf-8")


def blocks(language, text=TEXT):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_the_page_shows_the_keys_of_the_code():
    assert page.redrawn(TEXT) == TEXT, "run python docs/schema.py"
    assert len(page.drawn()) == TEXT.count("<!-- keys ") == 5
    for name in [*KEYS, *CLASS_KEYS, *SLICES_KEYS, *COLUMNS]:
        assert f"| `{name}` |" in TEXT
    assert str(WEIGHT_TOLERANCE) in COLUMNS["weight"]


def test_the_example_loads_and_says_most_keys(tmp_path):
    (example,) = blocks("yaml")
    info = DatasetInfo.from_yaml(example)
    assert info.labels.names == ("background", "road", "car") and info.augment["flip"] is False
    assert set(plain_values(example)) == set(KEYS) - {
        "background",
        "mask_threshold",
        "flips",
        "output",
        "files",
        "slices",
    }
    images = [Sample("a", np.zeros((3, 8, 8)), np.full((1, 8, 8), 2, np.uint8), np.ones(1), ("x",))]
    root = write_folder(tmp_path / "d", {"train": images}, info)
    (root / "dataset.yaml").write_text(example)
    assert FolderSplit(root, "train").info == info


def test_the_example_of_weights_is_read(tmp_path):
    (example,) = (block for block in blocks("text") if block.startswith("id,"))
    (tmp_path / "weights.csv").write_text(example)
    weights, problems = read_weights(tmp_path / "weights.csv", tmp_path)
    assert weights == {"a": {"anna": 0.5, "ben": 0.3, "chris": 0.2}} and not problems


@pytest.mark.parametrize("name", ["dataset-yaml", "index", "class-flips"])
def test_the_python_of_the_pages_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The other block of index.md moves folders of annotators; tests/test_docs_commands.py runs it.
    code = [
        block
        for block in blocks("python", (DOCS / "data" / f"{name}.md").read_text(encoding="utf-8"))
        if 'Path("lab")' not in block
    ]
    exec("\n".join(code), {})
    assert name != "index" or PackedSplit("my-data.h5", "train")[0].annotators == ("anna", "ben")


def test_every_key_is_read_and_written():
    flips = ClassFlips({"b": 0.5}, "twins")
    full = DatasetInfo("n", LabelSpace(("a", "b", "c")), "s", "l", {"flip": False}, ("red",), flips)
    files = FilePatterns((Pattern("images/{id}.*"),), (Pattern("{annotator}/{id}.*"),), "..", "splits.csv")
    slices = SliceSettings("coronal", 2, "foreground", True)
    smooth = DatasetInfo("n", mask_threshold=0.5, files=files, slices=slices)
    written = set()
    for info in (full, smooth):
        assert DatasetInfo.from_yaml(info.to_yaml()) == info
        written |= set(plain_values(info.to_yaml()))
    assert written == set(KEYS)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "background"])
def test_an_empty_value_is_a_missing_key(key):
    if key == "output":
        with pytest.raises(AmbisegError, match="output is of use with flips only"):
            DatasetInfo.from_yaml("output:")
    else:
        assert DatasetInfo.from_yaml(f"{key}:") == DatasetInfo()
    assert DatasetInfo.from_yaml("background:").labels.background is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sourc: x", "unknown key 'sourc': did you mean 'source'"),
        ("classes: [a, {name: b, colr: [1, 2, 3]}]", "unknown key of class 'b' 'colr': did you mean 'color'"),
        ("classes: [a, {nme: b}]", "unknown key of a class 'nme': did you mean 'name'"),
        ("classes: [a, {name: b, color: [1, 2]}]", "color of class 'b' is three integers"),
        ("classes: [a, {color: [1, 2, 3]}]", "classes are names, received None"),
        ("channels: red", "channels is a list"),
        ("background: 1.5", "background is an integer"),
        ("mask_threshold: high", "mask_threshold is a number"),
        ("flips: [road]", "flips is a mapping"),
    ],
)
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(AmbisegError, match=words):
        DatasetInfo.from_yaml(text)
    if "unknown" in words:
        with pytest.raises(AmbisegError) as caught:
            DatasetInfo.from_yaml(text)
        assert isinstance(caught.value.__cause__, UnknownNameError)
