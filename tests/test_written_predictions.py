"""``prediction.json``: what is wrong with a damaged one is said in words."""

from __future__ import annotations

import json

import pytest

from ambiseg.data.files.validation import FileProblem
from ambiseg.predictions import read_written

MASK = {"file": "mask-01.png", "probability": 1, "score": None}
WRONG = [
    ([], "it is no JSON object"),
    ({}, "'masks' is missing"),
    ({"masks": None}, "'masks' is missing"),
    ({"masks": {"a": 1}}, "'masks' is an object, not a list"),
    ({"masks": []}, "it names no mask"),
    ({"masks": [MASK, "b"]}, "'masks' is no list of objects"),
    ({"masks": [MASK, {}]}, "'file' of mask 2 is missing"),
    ({"masks": [MASK | {"file": 3}]}, "'file' of mask 1 is 3, not a text"),
    ({"masks": [MASK | {"probability": None}]}, "'probability' of mask 1 is missing"),
    ({"masks": [MASK | {"probability": "0,5"}]}, "'probability' of mask 1 is \"0,5\", not a finite number"),
    ({"masks": [MASK | {"probability": True}]}, "'probability' of mask 1 is true, not a finite number"),
    (
        {"masks": [MASK | {"probability": 10**400}]},
        f"'probability' of mask 1 is 1{39 * '0'}..., not a finite number",
    ),
    ({"masks": [MASK | {"score": float("inf")}]}, "'score' of mask 1 is Infinity, not a finite number"),
    ({"masks": [MASK | {"score": [1]}]}, "'score' of mask 1 is a list, not a finite number"),
    ({"masks": [MASK], "settings": "top"}, "'settings' is \"top\", not an object"),
    ({"masks": [MASK], "classes": "ab"}, "'classes' is \"ab\", not a list"),
    ({"masks": [MASK], "path": 3}, "'path' is 3, not a text"),
]


@pytest.mark.parametrize(("content", "words"), WRONG)
def test_the_field_that_is_wrong_is_named(tmp_path, content, words):
    place = tmp_path / "prediction.json"
    place.write_text(json.dumps(content))
    with pytest.raises(FileProblem) as error:
        read_written(tmp_path)
    assert str(error.value) == f"{place}: {words}: write the predictions again"


@pytest.mark.parametrize(
    ("name", "words"),
    [("../mask-01.png", "lies elsewhere"), ("a\0", "cannot be one"), ("\ud800", "cannot be one")],
)
def test_files_that_are_not_in_the_folder(tmp_path, name, words):
    (tmp_path / "prediction.json").write_text(json.dumps({"masks": [MASK | {"file": name}]}))
    with pytest.raises(FileProblem, match=words):
        read_written(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"masks": [', "cannot be read as JSON (line 1, column 12)"),
        (b"\xff", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"1" * 5000, "cannot be read as JSON"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_what_is_no_json(tmp_path, content, words):
    if content is not None:
        (tmp_path / "prediction.json").write_bytes(content)
    with pytest.raises(FileProblem) as error:
        read_written(tmp_path)
    assert error.value.problem == words
