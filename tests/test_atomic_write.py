"""A write happens in full or not at all; nobody writes past these functions."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ambiseg
from ambiseg import atomic_write, owned_files
from ambiseg.atomic_write import (
    DiskFullError,
    check_space,
    replacing_file,
    replacing_folder,
    working_in,
    write_json,
    write_text,
)
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import LIST, PARTIAL


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x"), OSError(errno.EIO, "broken")])
def test_what_ends_badly_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises((type(error), AmbisegError)), replacing_file(target) as partial:
        partial.write_text("ne")
        raise error
    assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    with replacing_file(target) as partial:
        partial.write_text("new")
        assert not target.exists() and partial.name == "a.txt"
    assert target.read_text() == "new" and names(target.parent) == ["a.txt"]
    with pytest.raises(AmbisegError, match="exists already"), replacing_file(target, overwrite=False):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_others_may_read_a_file_as_far_as_the_system_says(tmp_path, mask, mode):
    """Not as the library that writes it says: safetensors writes files that nobody else may read."""
    before = os.umask(mask)
    try:
        write_text(tmp_path / "config.yaml", "x")
        with replacing_file(tmp_path / "model.safetensors") as partial:
            save_file({"weight": torch.zeros(2)}, partial)
        with replacing_file(tmp_path / "private") as partial:
            partial.touch(0o600)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ("config.yaml", "model.safetensors", "private"), mode
    )


def test_who_works_in_a_folder_clears_up_after_killed_ones(tmp_path):
    (tmp_path / "checkpoints" / f"{PARTIAL}0123").mkdir(parents=True)
    with working_in(tmp_path, "the folder"):
        assert names(tmp_path / "checkpoints") == []


def test_only_files_of_ours_are_replaced(tmp_path):
    target = tmp_path / "thesis.docx"
    target.write_text("years of work")
    with (
        pytest.raises(AmbisegError, match="was not written by ambiseg"),
        replacing_file(target, ours=lambda p: False),
    ):
        pass
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(AmbisegError, match="is a link"), replacing_file(link):
        pass
    with pytest.raises(AmbisegError, match="is a folder"), replacing_file(tmp_path):
        pass
    assert target.read_text() == "years of work"
    owned_files.begin(tmp_path, "train")
    owned_files.add(tmp_path, ["thesis.docx"])
    with replacing_file(target, ours=lambda p: False) as partial:
        partial.write_text("ours")
    assert target.read_text() == "ours"


def test_a_folder_is_replaced_whole_and_lists_its_files(tmp_path):
    target = tmp_path / "data"
    for text in ("one", "two"):
        with replacing_folder(target, True, "data") as partial:
            (partial / "train" / "empty").mkdir(parents=True)
            (partial / f"{text}.txt").write_text(text)
    assert names(target) == [LIST, "train", "two.txt"] and names(tmp_path) == ["data"]
    assert owned_files.listed(target) == {"two.txt", "train/empty/"} and owned_files.foreign(target) == []
    with pytest.raises(RuntimeError), replacing_folder(target, True, "data") as partial:
        (partial / "half.txt").write_text("half")
        raise RuntimeError
    (target / "mine.txt").write_text("mine")
    with pytest.raises(AmbisegError, match="mine.txt"), replacing_folder(target, True, "data"):
        pass
    assert names(target) == [LIST, "mine.txt", "train", "two.txt"] and names(tmp_path) == ["data"]


def test_a_file_that_comes_while_a_folder_is_written_is_kept(tmp_path):
    target = tmp_path / "data"
    with replacing_folder(target, True, "data") as partial:
        (partial / "one.txt").write_text("one")
    with pytest.raises(AmbisegError, match="mine.txt"), replacing_folder(target, True, "data") as partial:
        (partial / "two.txt").write_text("two")
        (target / "mine.txt").write_text("mine")
    assert (target / "mine.txt").read_text() == "mine" and (target / "one.txt").exists()


KILLED = """
import os, signal, sys
from pathlib import Path
from ambiseg import atomic_write
target, moment = Path(sys.argv[1]), sys.argv[2]
def die(*words): os.kill(os.getpid(), signal.SIGKILL)
if moment != "writing":
    replace, calls = os.replace, []
    def counted(a, b):
        calls.append(a)
        if len(calls) == int(moment): die()
        replace(a, b)
    os.replace = counted
with atomic_write.replacing_folder(target, True, "data") as partial:
    (partial / "two.txt").write_text("two")
    if moment == "writing": die()
"""


@pytest.mark.parametrize(("moment", "left"), [("writing", "one"), ("1", "one"), ("2", "two")])
def test_the_next_write_clears_up_after_a_kill(tmp_path, moment, left):
    """Also when it struck between the two renames: then the new folder, which was complete, is put in place."""
    target = tmp_path / "data"
    with replacing_folder(target, True, "data") as partial:
        (partial / "one.txt").write_text("one")
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), moment])
    assert done.returncode == -signal.SIGKILL and any(n.startswith(PARTIAL) for n in names(tmp_path))
    with pytest.raises(AmbisegError, match="stop here"), replacing_folder(target, True, "data") as partial:
        assert names(target) == sorted([LIST, f"{left}.txt"])
        raise AmbisegError("stop here")
    assert names(tmp_path) == ["data"] and names(target) == sorted([LIST, f"{left}.txt"])


def test_two_writers_of_one_place(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_write, "_PATIENCE", 0)
    with replacing_folder(tmp_path / "data", False, "data") as first:
        with (
            pytest.raises(AmbisegError, match="another process is writing"),
            replacing_folder(tmp_path / "data", False, "data"),
        ):
            pass
        with replacing_folder(tmp_path / "other", False, "data"):
            pass
        assert first.is_dir()
    with (
        working_in(tmp_path / "data", "the folder"),
        pytest.raises(AmbisegError, match="another process works"),
        working_in(tmp_path / "data", "the folder"),
    ):
        pass
    with working_in(tmp_path / "data", "the folder"):
        pass


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EFBIG, "larger than")],
)
def test_no_room_is_one_sentence(tmp_path, number, words):
    with (
        pytest.raises(
            DiskFullError, match=f"a.txt is not written, nothing was changed: .*{words}.* are free there"
        ),
        replacing_file(tmp_path / "a.txt"),
    ):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


def test_a_limit_of_the_system_is_met(tmp_path):
    """A real one: files of at most 4096 bytes."""
    script = (
        "import resource, sys; from pathlib import Path; from ambiseg.atomic_write import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_text(Path(sys.argv[1]), 'x' * 10000)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "a.txt"], capture_output=True, text=True)
    assert "DiskFullError" in done.stderr and "ulimit -f" in done.stderr and names(tmp_path) == []


def test_room_is_checked_before_a_long_write(tmp_path):
    check_space(tmp_path / "absent" / "folder", 1, "it")
    with pytest.raises(
        AmbisegError, match=r"it needs about 1024.0 TiB, and .* are free at .*: free .* or use another"
    ):
        check_space(tmp_path, 2**50, "it")


def test_json_is_valid_or_not_written(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 1\n}\n'


# -- nobody writes past these functions -----------------------------------------------------------------------

WRITERS = {
    "write_text",
    "write_bytes",
    "save",
    "savez",
    "savez_compressed",
    "savefig",
    "save_file",
    "imwrite",
    "dump",
}
IN_OS = {
    "replace",
    "rename",
    "renames",
    "move",
    "copy",
    "copy2",
    "copyfile",
    "copytree",
    "rmtree",
    "remove",
    "removedirs",
}
REMOVERS = {"unlink", "rmdir"}
LOW = ("atomic_write.py", "owned_files.py", "json_files.py")
"""The files that may."""
ELSEWHERE = {
    ("engine/parallel/workers.py", "open"): "the log of a run is appended to",
    ("engine/parallel/workers.py", "unlink"): "the file that tells a worker to stop",
    ("engine/evaluate.py", "unlink"): "the table of volumes of an earlier evaluation",
    ("engine/tuning/trial.py", "open"): "the log of a trial is appended to",
    ("engine/tuning/journal.py", "open"): "half a line at the end of Optuna's journal is cut",
    ("engine/tuning/journal.py", "unlink"): "the lock of a killed study",
    ("engine/tuning/study.py", "unlink"): "weights of a trial of the study, which are named one by one",
    ("engine/benchmark_run.py", "open"): "the log of a run is appended to",
    ("engine/curve.py", "save"): "rows are appended",
    ("report/files.py", "savefig"): "into memory",
    ("report/files.py", "save"): "into memory",
    ("notebook.py", "save"): "into memory",
    ("data/files/reading.py", "save"): "into memory",
    ("data/memory/split.py", "dump"): "into a file that keeps nothing",
    ("viewer/record.py", "save"): "into memory",
    ("serving/app.py", "unlink"): "the body of a request in a temporary folder",
    ("serving/bodies.py", "open"): "the body of a request in a temporary folder",
    ("serving/bodies.py", "unlink"): "the body of a request in a temporary folder",
    ("predictions/archives.py", "open"): "an array is unpacked into a temporary folder",
}
OWN_METHODS = {"config", "evaluation", "found", "hub", "logger", "scores"}
"""Objects whose ``save`` writes through these functions, or is that of Lightning's logger."""


def writes(tree):
    """Calls that write, move or remove, with the names in their arguments."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, "id", "")
        holder = node.func.value.id if method and isinstance(node.func.value, ast.Name) else ""
        names_in = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if name == "open":
            texts = [
                a.value
                for a in (*node.args, *(k.value for k in node.keywords))
                if isinstance(a, ast.Constant)
            ]
            found = any(
                isinstance(text, str) and len(text) <= 3 and set(text) & set("wax+") for text in texts
            )
        else:
            found = (
                (name in WRITERS and (method or name == "save_file") and holder not in ("yaml", *OWN_METHODS))
                or (name in IN_OS and holder in ("os", "shutil"))
                or (name in REMOVERS and method)
            )
        if found:
            yield name, names_in


def test_every_write_goes_through_these_functions():
    """Whatever is written is written to a name that they handed out; nothing else moves or removes files."""
    source, past = Path(ambiseg.__file__).parent, []
    for path in sorted(source.rglob("*.py")):
        where = path.relative_to(source).as_posix()
        for name, names_in in writes(ast.parse(path.read_text(encoding="utf-8"))) if where not in LOW else ():
            if not any(one.startswith("partial") for one in names_in) and (where, name) not in ELSEWHERE:
                past.append(f"{where}: {name} of {sorted(names_in)}")
    assert not past, past


@pytest.mark.parametrize(
    "line",
    [
        "open(path, 'w')",
        "Path(x).open('ab')",
        "path.write_text('a')",
        "np.savez(path, a=1)",
        "torch.save(a, path)",
        "shutil.rmtree(path)",
        "os.replace(a, b)",
        "path.unlink()",
    ],
)
def test_a_write_past_them_is_found(line):
    assert list(writes(ast.parse(line)))
    assert not list(writes(ast.parse("open(path); open(path, 'rb'); text.replace('a', 'b'); yaml.dump(a)")))
