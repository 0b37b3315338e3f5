"""``ambiseg data split``: new splits as data sets or lists; groups stay whole and unknown ids are named."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from ambiseg.cli.data_split import _write_list
from ambiseg.data.folder import DatasetInfo, write_folder
from ambiseg.data.listing import read_columns
from ambiseg.data.sample import Sample
from ambiseg.data.source import list_splits, open_split

IDS = [f"p{p}-{i}" for p in range(10) for i in range(2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    rng = np.random.default_rng(0)
    samples = [
        Sample(
            name,
            rng.integers(0, 256, (1, 9, 9), np.uint8),
            rng.integers(0, 2, (2, 9, 9), np.uint8),
            np.array([0.25, 0.75]),
            ("x", "y"),
        )
        for name in IDS
    ]
    splits = {"train": samples[:15], "test": samples[15:]}
    return write_folder(tmp_path_factory.mktemp("data") / "d", splits, DatasetInfo("d", licence="CC0-1.0"))


def table(path, rows):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def listed(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", ["new", "new.h5"])
def test_patients_stay_whole_and_samples_are_unchanged(cli, root, tmp_path, name):
    out = tmp_path / name
    outcome = cli("data", "split", root, "--out", out, "--prefix", "p[0-9]+", "--seed", 1)
    assert outcome.status == 0 and list_splits(out) == ["train", "val", "test"]
    splits = {split: open_split(out, split) for split in list_splits(out)}
    assert [len(split) for split in splits.values()] == [12, 4, 4]
    assert sorted(i for split in splits.values() for i in split.ids) == IDS
    assert all(len({i.split("-")[0] for i in split.ids}) * 2 == len(split) for split in splits.values())
    assert splits["test"].digest()[:12] in outcome.out and splits["test"].info.licence == "CC0-1.0"
    old = {s.id: s for split in ("train", "test") for s in open_split(root, split)}
    for sample in splits["train"]:
        np.testing.assert_array_equal(sample.masks, old[sample.id].masks)
        np.testing.assert_array_equal(sample.weights, old[sample.id].weights)
    assert "exists" in cli("data", "split", root, "--out", out).error


def test_the_groups_are_told_and_one_group_of_all_is_refused(cli, root, tmp_path):
    out = tmp_path / "list.csv"
    assert (
        "10 groups, such as p0 (2 images)" in cli("data", "split", root, "--out", out, "--prefix", "p.").out
    )
    assert (
        "every image is a group of its own" in cli("data", "split", root, "--out", tmp_path / "all.csv").out
    )
    error = cli("data", "split", root, "--out", tmp_path / "one.csv", "--prefix", "p").error
    assert "all 20 images are in one group, 'p'" in error and "--prefix" in error
    assert not (tmp_path / "one.csv").exists()
    groups = table(tmp_path / "g.csv", [("id", "group"), *((i, "ab"[i < "p5"]) for i in IDS)])
    said = cli("data", "split", root, "--out", tmp_path / "two.csv", "--groups", groups)
    empty = {"train", "val", "test"} - {row["split"] for row in listed(tmp_path / "two.csv")}
    assert len(empty) == 1 and f"no image in {empty.pop()}" in said.err


def test_groups_and_strata_from_a_table(cli, root, tmp_path):
    groups = table(
        tmp_path / "g.csv",
        [("id", "group", "site"), *((i, i.split("-")[0], "AB"[int(i[1]) % 2]) for i in IDS)],
    )
    out = tmp_path / "list.csv"
    words = ("--groups", groups, "--stratify", "site", "--fractions", "train=0.6", "test=0.4")
    assert cli("data", "split", root, "--out", out, *words).status == 0
    test = {row["id"].split("-")[0] for row in listed(out) if row["split"] == "test"}
    assert len(test) == 4 and sum(int(p[1]) % 2 for p in test) == 2
    assert cli("data", "split", root, "--out", tmp_path / "m.csv", "--stratify", "area").status == 0
    error = cli("data", "split", root, "--out", tmp_path / "n.csv", "--stratify", "aria").error
    assert "did you mean 'area'" in error


def test_folds_partition_and_lists_are_followed(cli, root, tmp_path):
    folds, out = tmp_path / "folds.csv", tmp_path / "f.csv"
    assert cli("data", "split", root, "--out", folds, "--folds", 5, "--prefix", "p.").status == 0
    assert sorted(int(row["fold"]) for row in listed(folds)) == sorted([0, 1, 2, 3, 4] * 4)
    assert cli("data", "split", root, "--out", out, "--folds", 5, "--fold", 2, "--prefix", "p.").status == 0
    wanted = {row["id"] for row in listed(folds) if row["fold"] == "2"}
    assert {row["id"] for row in listed(out) if row["split"] == "test"} == wanted
    assert cli("data", "split", root, "--out", tmp_path / "new", "--list", out).status == 0
    assert set(open_split(tmp_path / "new", "test").ids) == wanted


@pytest.mark.parametrize("name", ["=1+1", "+a", "-a", "@a", "'=a", "'-1", "-1", "a"])
def test_a_list_is_no_formula_and_is_read_back(tmp_path, name):
    path = tmp_path / "list.csv"
    _write_list(path, {name: "train"}, "split", overwrite=False)
    (cell, _) = list(csv.reader(path.open()))[1]
    assert cell == "-1" or cell[0] not in "=+-@"
    assert read_columns(path, "split") == {name: {"split": "train"}}


def test_unknown_ids_are_named_once_and_nothing_is_written(cli, root, tmp_path):
    wrong = table(
        tmp_path / "w.csv", [("id", "split"), ("p0-0", "train"), ("zebra", "test"), ("yak", "test")]
    )
    error = cli("data", "split", root, "--out", tmp_path / "new", "--list", wrong).error
    assert "2 ids (yak, zebra)" in error and str(wrong) in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--fractions train=0.5 test=0.4", "sum to 1"),
        ("--fractions train", "pairs such as"),
        ("--fold 1", "--folds"),
        ("--folds 3", "ends with .csv"),
        ("--folds 99 --fold 0", "folds are 2 to 20"),
        ("--folds 3 --fold 3", "folds 0 to 2"),
        ("--prefix q", "does not fit 20 ids"),
        ("--groups no.csv", "no.csv"),
        ("--seed -1", "negative"),
    ],
)
def test_mistakes(cli, root, tmp_path, words, message):
    assert message in cli("data", "split", root, "--out", tmp_path / "new", *words.split()).error
    assert not list(tmp_path.iterdir())
