"""Checkpoints are written whole or not at all, and damaged ones are never loaded."""

from __future__ import annotations

import random
import subprocess
import sys
import zipfile

import pytest
import torch

from ambiseg.engine.checkpoints import AtomicCheckpoints, damage, load_checkpoint
from ambiseg.errors import AmbisegError


@pytest.fixture
def path(tmp_path):
    """A checkpoint."""
    state = {"w": torch.arange(500.0), "b": torch.ones(3, 4)}
    AtomicCheckpoints().save_checkpoint(
        {"global_step": 7, "ambiseg": {"method": "SSN"}, "state_dict": state}, tmp_path / "last.ckpt"
    )
    return tmp_path / "last.ckpt"


def test_it_reads_back_and_leaves_nothing_beside(path):
    found = load_checkpoint(path)
    assert found["global_step"] == 7 and torch.equal(found["state_dict"]["w"], torch.arange(500.0))
    assert [one.name for one in path.parent.iterdir()] == ["last.ckpt"]


def test_a_flipped_bit_is_never_another_number(path):
    """Every flip is an error, or lies where nothing is stored (padding, dates)."""
    whole, draw = path.read_bytes(), random.Random(0)
    expected = load_checkpoint(path)
    refused = 0
    for _ in range(300):
        place, bit = draw.randrange(len(whole)), draw.randrange(8)
        broken = bytearray(whole)
        broken[place] ^= 1 << bit
        path.write_bytes(bytes(broken))
        try:
            found = load_checkpoint(path)
        except AmbisegError as error:
            refused += 1
            assert "is not a checkpoint of ambiseg" in str(error)
        else:
            assert found["global_step"] == 7
            assert all(torch.equal(found["state_dict"][k], v) for k, v in expected["state_dict"].items())
    assert refused > 150


def test_a_part_that_unpacks_to_more_is_refused_before_it_is(path):
    bomb = path.with_name("bomb.ckpt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part))
    assert damage(bomb) == "parts of it are compressed"
    with pytest.raises(AmbisegError, match=r"bomb.ckpt is not a checkpoint.*compressed"):
        load_checkpoint(bomb)


@pytest.mark.parametrize("content", [b"", b"PK", b"half a checkpo", b"\x80\x02}q\x00."])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(AmbisegError, match=r"last.ckpt is not a checkpoint"):
        load_checkpoint(path)


def test_without_room_the_one_before_stays(path):
    script = (
        "import resource, sys, torch; from ambiseg.engine.checkpoints import AtomicCheckpoints\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "AtomicCheckpoints().save_checkpoint({'a': torch.zeros(100000)}, sys.argv[1])"
    )
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert "DiskFullError" in done.stderr and "last.ckpt is not written, nothing was changed" in done.stderr
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == ["last.ckpt"]


def test_one_that_does_not_read_back_does_not_replace_the_one_before(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda value, stream: stream.write(b"PK half"))
    with pytest.raises(AmbisegError, match="does not read back.*the one before is kept"):
        AtomicCheckpoints().save_checkpoint({"a": 1}, path)
    assert path.read_bytes() == before
