"""Every verb that writes, on places that hold files of somebody else: all of them are there afterwards, byte for byte."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ambiseg import owned_files

TRAIN = (
    "--updates",
    2,
    "--batch-size",
    2,
    "--quiet",
    "--set",
    "backbone.width=8",
    "--set",
    "backbone.depth=2",
)
SIMULATE = ("data", "simulate", "wildfire", "--scenarios", 10, "--size", 16, "--workers", 1)


def content(folder):
    """Every file with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def verbs(fires, run, tmp_path):
    """Name, words, and the option for the place."""
    arrays = tmp_path / "arrays"
    if not arrays.exists():
        arrays.mkdir()
        for split in ("train", "val"):
            images, masks = (
                np.arange(4 * 16 * 16).reshape(4, 16, 16) % 251,
                np.zeros((4, 2, 16, 16), np.uint8),
            )
            masks[:, :, 4:9] = 1
            np.savez(arrays / f"a-{split}.npz", images=images.astype(np.uint8), masks=masks)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "title: t\nprotocol: {seeds: 1, samples: 2, metrics: [ged], train: {updates: 1}, backbone: {width: 8, depth: 2}}\n"
        "data: {fires: {simulate: wildfire, options: {scenarios: 10, size: 16, workers: 1}}}\nmethods: {m-heads: }\n"
    )
    return {
        "train": ("train", "m-heads", "--data", fires, *TRAIN, "--out"),
        "predict": ("predict", run, fires / "test" / "images", "--no-picture", "--out"),
        "simulate": (*SIMULATE, "--out"),
        "import": ("data", "import", "arrays", arrays, "--out"),
        "split": ("data", "split", fires, "--out"),
        "demo": ("demo", "--minutes", 0.01, "--scenarios", 10, "--size", 16, "--out"),
        "benchmark": ("benchmark", suite, "--jobs", 0, "--out"),
        "tune": ("tune", "m-heads", "--data", fires, "--out"),
    }


FOLDER_VERBS = ("train", "predict", "simulate", "import", "split", "demo", "benchmark", "tune")
OVERWRITE = {"benchmark": ()}


def words_of(verb, fires, run, tmp_path, out, *more):
    return (*verbs(fires, run, tmp_path)[verb], out, *OVERWRITE.get(verb, ("--overwrite",)), *more)


def homes(tmp_path, fires):
    """Folders of somebody else that look like ours."""
    project = tmp_path / "project"
    for name in ("config.yaml", "src/thesis.tex", "demo.json", "results.json", "dataset.yaml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("years of work")
    site = tmp_path / "site"
    for name in ("blog/images/a.png", "blog/index.html", "train/images/b.png"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("my page")
    mine = shutil.copytree(fires, tmp_path / "mine")
    (mine / owned_files.LIST).unlink()
    return project, site, mine, mine / "train" / "masks", mine / "train" / "images"


@pytest.mark.parametrize("verb", FOLDER_VERBS)
def test_a_folder_of_somebody_else_is_left_alone(cli, fires, tiny_run, tmp_path, verb):
    for home in homes(tmp_path, fires):
        before = content(home)
        assert "was not made by ambiseg" in cli(*words_of(verb, fires, tiny_run, tmp_path, home)).error
        assert content(home) == before


@pytest.mark.parametrize("verb", ["train", "predict", "simulate", "import", "split"])
@pytest.mark.parametrize("place", ["notes.txt", "train/notes.txt", "deep/er/notes.txt", ".notes"])
def test_what_ambiseg_made_is_replaced_but_not_with_a_file_of_somebody_else_in_it(
    cli, fires, tiny_run, tmp_path, verb, place
):
    out = tmp_path / "out"
    words = words_of(verb, fires, tiny_run, tmp_path, out)
    assert cli(*words).status == 0
    made = content(out)
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    (out / place).write_text("years of work")
    error = cli(*words).error
    assert place in error and "ambiseg did not write" in error
    assert content(out) == {**made, place: b"years of work"}
    (out / place).unlink()
    while out not in ((out / place).parent, tmp_path) and not any((out / place).parent.iterdir()):
        (out / place).parent.rmdir()
        place = str((out / place).parent.relative_to(out))
    assert cli(*words).status == 0 and content(out).keys() == made.keys()


@pytest.mark.parametrize("verb", FOLDER_VERBS)
def test_what_another_verb_made_is_left_alone(cli, fires, tiny_run, tmp_path, verb):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    data = shutil.copytree(fires, tmp_path / "data")
    place = data if verb in ("train", "predict", "demo", "benchmark", "tune") else run
    before = content(place)
    assert "was made by 'ambiseg" in cli(*words_of(verb, fires, tiny_run, tmp_path, place)).error
    assert content(place) == before


def test_inputs_are_never_replaced(cli, fires, tiny_run, tmp_path):
    data, run = shutil.copytree(fires, tmp_path / "data"), shutil.copytree(tiny_run, tmp_path / "run")
    inside = shutil.copytree(fires, run / "data")
    before = content(tmp_path)
    again = ("--overwrite",)
    assert "holds the input" in cli("train", "m-heads", "--data", inside, "--out", run, *TRAIN, *again).error
    assert "is the input" in cli("train", "m-heads", "--data", data, "--out", data, *TRAIN, *again).error
    start = ("train", "mode-proposals", "--data", data, "--init", run, *TRAIN)
    assert "is the input" in cli(*start, "--out", run, *again).error
    assert "is the input" in cli("data", "split", data, "--out", data, *again).error
    assert "is the input" in cli("data", "import", "arrays", data, "--out", data, *again).error
    images = data / "test" / "images"
    assert "holds the input" in cli("predict", run, images, "--out", images, *again).error
    packed = tmp_path / "packed.h5"
    assert cli("data", "pack", data, packed).status == 0
    before["packed.h5"] = packed.read_bytes()
    assert "is the input" in cli("data", "split", packed, "--out", packed, *again).error
    assert content(tmp_path) == before


def test_files_of_somebody_else_are_left_alone(cli, fires, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    mine = {
        name: tmp_path / name for name in ("thesis.docx", "page.html", "data.h5", "list.csv", "config.yaml")
    }
    for path in mine.values():
        path.write_text("years of work")
    again = ("--overwrite",)
    for words in (
        ("report", run, "--data", fires, "--out", mine["thesis.docx"]),
        ("report", run, "--data", fires, "--out", mine["page.html"]),
        ("data", "describe", fires, "--out", mine["page.html"]),
        ("data", "pack", fires, mine["data.h5"], *again),
        (*SIMULATE, "--out", mine["data.h5"], *again),
        ("data", "split", fires, "--out", mine["data.h5"], *again),
        ("data", "split", fires, "--out", mine["list.csv"], *again),
    ):
        assert "was not written by ambiseg" in cli(*words).error
    for path in mine.values():
        for words in (
            ("train", "m-heads", "--data", fires, *TRAIN),
            ("predict", run, fires / "test" / "images"),
        ):
            assert "is a file" in cli(*words, "--out", path, *again).error
    assert all(path.read_text() == "years of work" for path in mine.values())


def test_pages_and_packed_files_of_ours_are_replaced(cli, fires, tiny_run, tmp_path):
    run, page, packed = (
        shutil.copytree(tiny_run, tmp_path / "run"),
        tmp_path / "page.html",
        tmp_path / "data.h5",
    )
    for _ in range(2):
        assert cli("report", run, "--data", fires, "--out", page).status == 0
        assert cli("data", "pack", fires, packed, "--overwrite").status == 0
    assert "exists already" in cli("data", "pack", fires, packed).error


@pytest.mark.parametrize("verb", ["train", "predict", "simulate", "import", "split"])
def test_a_link_is_not_followed(cli, fires, tiny_run, tmp_path, verb):
    home, link = tmp_path / "home", tmp_path / "link"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    link.symlink_to(home)
    assert "is a link" in cli(*words_of(verb, fires, tiny_run, tmp_path, link)).error
    assert content(home) == {"thesis.tex": b"years of work"} and link.is_symlink()


def test_two_commands_in_one_place_are_refused(cli, fires, tiny_run, tmp_path, monkeypatch):
    """A resume while the training runs, a second resume, an overwrite, and two predictions into one folder."""
    from ambiseg.atomic_write import working_in
    from ambiseg.engine import predict, train

    monkeypatch.setattr(train, "_PATIENCE", 0.0)
    monkeypatch.setattr(predict, "PATIENCE", 0.0)
    run, out = shutil.copytree(tiny_run, tmp_path / "run"), tmp_path / "out"
    words = ("predict", tiny_run, fires / "test" / "images", "--no-picture", "--out", out)
    assert cli(*words).status == 0
    before = content(tmp_path)
    with working_in(run, "the run folder"), working_in(out, "the folder"):
        assert "another process works in the run folder" in cli("train", "--resume", run, "--quiet").error
        again = ("train", "m-heads", "--data", fires, *TRAIN, "--out", run, "--overwrite")
        assert "another process works in the run folder" in cli(*again).error
        for option in ("--resume", "--overwrite"):
            assert "another process works in the folder" in cli(*words, option).error
    assert content(tmp_path).items() >= before.items()
    assert cli("train", "--resume", run, "--quiet").status == 0 and cli(*words, "--resume").status == 0
