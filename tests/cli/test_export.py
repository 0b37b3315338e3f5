"""``ambiseg export``, ``push`` and ``pull`` as a new user runs them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import ambiseg
from ambiseg.cli.export import _default
from ambiseg.exporting import files


@pytest.fixture
def image(tiny_run, tmp_path):
    config = ambiseg.load(tiny_run, device="cpu").config
    path = tmp_path / "image.npy"
    np.save(path, np.zeros((config.in_channels, 16, 16), np.float32))
    return path


def test_a_package_takes_the_place_of_a_run(cli, tiny_run, image, tmp_path):
    path = tmp_path / "model.ambiseg"
    done = cli("export", tiny_run, "--out", path, "--license", "CC BY 4.0")
    assert done.status == 0 and str(path) in done.out
    for name, source in (("one", tiny_run), ("other", path)):
        assert cli("predict", source, image, "--out", tmp_path / name, "--no-picture").status == 0
    one, other = (
        json.loads((tmp_path / name / "image/prediction.json").read_text()) for name in ("one", "other")
    )
    assert one["masks"] == other["masks"]


def test_a_graph_is_written_compared_and_described(cli, tiny_run, tmp_path, monkeypatch):
    seen = {}

    def export(run, out, kind, settings, licence, overwrite):
        seen.update(kind=kind, settings=settings, licence=licence)
        out.write_bytes(b"graph")
        return files.DeployedModel(run, settings)

    monkeypatch.setattr(files, "export", export)
    monkeypatch.setattr(files, "inference", lambda out, kind: None)
    monkeypatch.setattr(files, "differences", lambda *_: (0.25, 1e-6))
    out = tmp_path / "model.pt2"
    done = cli("export", tiny_run, "--out", out, "--top", 2, "--license", "mine", "--json")
    found = json.loads(done.out)
    assert seen["kind"] == "torch" and seen["settings"].top == 2 and seen["licence"] == "mine"
    assert found["masks"] == 2 and found["pixels"] == 0.25 and found["format"] == "torch"
    assert found["inputs"]["image"][0] == "batch" and found["outputs"] == ["masks", "weights", "scores"]
    done = cli("export", tiny_run, "--out", out, "--overwrite")
    assert "25.0000% of the pixels differ" in done.out and "takes: image (batch, " in done.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "model.zip"], "does not end in .onnx, .pt2, .ambiseg"),
        (["--format", "package", "--top", "2"], "a package keeps the filter of its run"),
        (["--all", "--score-threshold", "0.5"], "--all keeps every mask"),
        (["--samples", "0"], "samples"),
    ],
)
def test_mistakes(words, message, cli, tiny_run):
    assert message in cli("export", tiny_run, *words).error


def test_files_of_others_stay(cli, tiny_run, tmp_path):
    out = tmp_path / "model.ambiseg"
    out.write_text("mine")
    assert "--overwrite" in cli("export", tiny_run, "--out", out).error
    assert "not written by ambiseg" in cli("export", tiny_run, "--out", out, "--overwrite").error
    assert out.read_text() == "mine"


def test_a_run_that_is_gone(cli, tiny_run, tmp_path):
    gone = tmp_path / "gone"
    assert "is not a run folder" in cli("export", gone, "--out", tmp_path / "m.onnx").error
    shutil.copytree(tiny_run, gone)
    (gone / "model.safetensors").unlink()
    assert "holds no model.safetensors" in cli("export", gone, "--out", tmp_path / "m.onnx").error
    assert not (tmp_path / "m.onnx").exists()


def test_a_missing_package_is_one_sentence(cli, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    error = cli("export", tiny_run, "--out", tmp_path / "m.onnx").err.strip().splitlines()[-1]
    assert error.endswith("onnx, which is not installed: pip install 'ambiseg[onnx]'")


def test_push_writes_a_folder(cli, tiny_run, tmp_path):
    done = cli("push", tiny_run, "--folder", tmp_path / "repository", "--license", "mit")
    assert done.status == 0 and Path(tmp_path / "repository/README.md").is_file()
    assert "not both" in cli("push", tiny_run).error
    assert "not both" in cli("push", tiny_run, "a/b", "--folder", tmp_path / "x").error
    assert "exists" in cli("push", tiny_run, "--folder", tmp_path / "repository").error


def test_without_out_the_file_lies_in_the_run_or_beside_the_package(tmp_path):
    package = tmp_path / "fires.ambiseg"
    assert _default(tmp_path, ".onnx") == tmp_path / "model.onnx"
    package.touch()
    assert _default(package, ".onnx") == tmp_path / "fires.onnx"
