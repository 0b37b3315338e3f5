"""A package is one file that predicts as its run does; damaged and foreign ones are refused before they are decoded."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
import torch

import ambiseg
from ambiseg.data.source import open_split
from ambiseg.engine.fitted_filter import FilterValues, FittedFilter
from ambiseg.engine.package import MANIFEST, is_package, write_package
from ambiseg.engine.run_folder import CONFIG, METRICS, WEIGHTS
from ambiseg.errors import AmbisegError


@pytest.fixture(scope="module")
def run_folder(tiny_run, tmp_path_factory):
    """A run with a filter and figures."""
    folder = tmp_path_factory.mktemp("packed") / "run"
    shutil.copytree(tiny_run, folder)
    FittedFilter(FilterValues(score_threshold=0.2, top=2), 10, 6, "fitted").save(folder)
    (folder / METRICS).write_text(json.dumps({"split": "test", "images": 5, "all": {"ged": 0.25}}))
    return folder


@pytest.fixture(scope="module")
def package(run_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("packages") / "model.ambiseg"
    write_package(ambiseg.load(run_folder, device="cpu"), path, licence="CC BY 4.0")
    return path


def rewritten(package, path, change, compression=zipfile.ZIP_STORED):
    """The package with other entries."""
    with zipfile.ZipFile(package) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_it_predicts_as_its_run_wherever_it_lies(run_folder, package, fires, tmp_path):
    moved = shutil.copyfile(package, tmp_path / "elsewhere.bin")
    one, other = ambiseg.load(run_folder, "32", "cpu"), ambiseg.load(moved, "32", "cpu")
    image = open_split(fires, "test")[0].image[:, :13]
    wanted, found = one.predict(image), other.predict(image)
    assert torch.equal(wanted.masks, found.masks) and torch.equal(wanted.weights, found.weights)
    assert other.fitted == one.fitted and other.fitted is not None
    assert other.config == one.config and other.digest() == one.digest()
    assert str(moved) in repr(other) and other._repr_html_()


def test_it_holds_licence_and_figures_and_no_more(package):
    with zipfile.ZipFile(package) as archive:
        assert json.loads(archive.read(MANIFEST))["licence"] == "CC BY 4.0"
        assert json.loads(archive.read(METRICS))["all"] == {"ged": 0.25}
        assert archive.namelist() == [MANIFEST, CONFIG, WEIGHTS, "filter.json", METRICS]


def test_a_run_folder_that_vanishes_after_loading_is_packed_all_the_same(run_folder, tmp_path):
    gone = tmp_path / "run"
    shutil.copytree(run_folder, gone)
    run = ambiseg.load(gone, device="cpu")
    assert run.fitted is not None
    shutil.rmtree(gone)
    write_package(run, tmp_path / "model.ambiseg")
    assert ambiseg.load(tmp_path / "model.ambiseg", device="cpu").digest() == run.digest()
    with pytest.raises(AmbisegError, match="is not a run folder"):
        ambiseg.load(gone)


def test_only_packages_are_replaced(run_folder, package, tmp_path):
    run, mine = ambiseg.load(run_folder, device="cpu"), tmp_path / "mine.ambiseg"
    mine.write_text("mine")
    with pytest.raises(AmbisegError, match="not written by ambiseg"):
        write_package(run, mine, overwrite=True)
    assert mine.read_text() == "mine" and not is_package(mine)
    shutil.copyfile(package, mine)
    with pytest.raises(AmbisegError, match="exists"):
        write_package(run, mine)
    write_package(run, mine, overwrite=True)


def extra(entries):
    entries["../outside.txt"] = b"out"


def without_weights(entries):
    del entries[WEIGHTS]


def other_weights(entries):
    entries[WEIGHTS] = entries[WEIGHTS][:-4] + b"\x00\x00\x80\x3f"


def later(entries):
    entries[MANIFEST] = json.dumps({**json.loads(entries[MANIFEST]), "format": 2}).encode()


def no_manifest(entries):
    entries[MANIFEST] = b"[1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (extra, "'../outside.txt' does not belong in it"),
        (without_weights, "model.safetensors is missing"),
        (other_weights, "model.safetensors does not have the checksum"),
        (later, "this version of ambiseg reads 1"),
        (no_manifest, "write it again"),
    ],
)
def test_foreign_and_damaged_files_are_refused(change, words, package, tmp_path):
    path = rewritten(package, tmp_path / "changed.ambiseg", change)
    with pytest.raises(AmbisegError) as caught:
        ambiseg.load(path)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["changed.ambiseg"]


def test_compressed_entries_are_not_decoded(package, tmp_path):
    bomb = rewritten(package, tmp_path / "bomb.ambiseg", lambda entries: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(AmbisegError, match="compressed"):
        ambiseg.load(bomb)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive" * 100])
def test_other_files_are_no_packages(content, tmp_path):
    path = tmp_path / "model.ambiseg"
    path.write_bytes(content)
    with pytest.raises(AmbisegError, match="is no file that 'ambiseg export --format package' wrote"):
        ambiseg.load(path)


def test_a_cut_package_is_refused(package, tmp_path):
    path = tmp_path / "cut.ambiseg"
    path.write_bytes(package.read_bytes()[:-2000])
    with pytest.raises(AmbisegError, match="write it again"):
        ambiseg.load(path)
