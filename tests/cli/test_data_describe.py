"""``ambiseg data describe``: tables, JSON and a page that needs no other file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ambiseg.data.folder import DatasetInfo, write_folder
from ambiseg.data.sample import Sample

EVIL = "<b>&\"'"


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)

    def sample(name):
        masks = rng.integers(0, 2, (3, 12, 12), np.uint8)
        return Sample(
            name, rng.integers(0, 256, (1, 12, 12), np.uint8), masks, np.full(3, 1 / 3), tuple("xyz")
        )

    splits = {"train": [sample(f"a{i}") for i in range(4)], "test": [sample("b0")]}
    splits["test"].append(replace(sample("b1"), image=splits["train"][0].image))
    return write_folder(tmp_path / "d", splits, DatasetInfo(EVIL, licence="CC-BY-4.0", source="made here"))


def test_tables_and_page(cli, root, tmp_path):
    page = tmp_path / "page.html"
    outcome = cli("data", "describe", root, "--out", page, "--samples", 1, 4)
    assert outcome.status == 0 and str(page) in outcome.err
    assert "a leak: a0 = b1" in outcome.err
    for words in ("CC-BY-4.0", "12x12", "pairwise IoU", "4 samples", "one annotator", "GED²"):
        assert words in outcome.out
    text = page.read_text(encoding="utf-8")
    for words in (
        "CC-BY-4.0",
        "12x12",
        "pairwise IoU",
        "one annotator",
        "a leak: a0 = b1",
        "Most ambiguous: test",
    ):
        assert words in text
    assert EVIL not in text and "&lt;b&gt;" in text
    assert text.count("<img") == 4 + 2 and text.count('src="data:image/png;base64,') == 6
    assert "http:" not in text and "https:" not in text and "<script" not in text


def test_json_alone(cli, root):
    outcome = cli("data", "describe", root, "--json", "--split", "train", "--images", 2, "--samples", 1)
    found = json.loads(outcome.out)
    assert list(found["splits"]) == ["train"] and found["licence"] == "CC-BY-4.0"
    train = found["splits"]["train"]
    assert (train["images"], train["measured"], train["sizes"]) == (4, 2, {"12x12": 4})
    assert set(train["oracle"]) == {"1"} and len(train["digest"]) == 64
    assert "a0 = b1" in found["warnings"][0]["problem"]


@pytest.mark.parametrize("words", ["--split x", "--samples 0", "--images 0", "--seed -1"])
def test_mistakes(cli, root, words):
    assert cli("data", "describe", root, *words.split()).error
