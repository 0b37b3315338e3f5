"""Only what a list names is ever removed; whatever else lies in a folder stays and is named."""

from __future__ import annotations

import json
import shutil

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from ambiseg import owned_files
from ambiseg.atomic_write import replacing_file
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import LIST, LOCK, PARTIAL

OURS = ("config.yaml", "logs/version_0/metrics.csv", "checkpoints/last.ckpt")


def files(folder):
    """Everything in a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def put(folder, names, text="x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    put(folder, OURS)
    owned_files.begin(folder, "train")
    owned_files.add(folder, OURS)
    return folder


def test_a_folder_of_ours_goes_without_a_trace(run):
    (run / LOCK).touch()
    (run / "logs" / ".DS_Store").touch()
    assert owned_files.verb_of(run) == "train" and owned_files.listed(run) == set(OURS)
    assert owned_files.foreign(run) == []
    owned_files.check_replaceable(run, ["train"])
    owned_files.remove(run)
    assert not run.exists()


@pytest.mark.parametrize("place", ["notes.txt", "logs/notes.txt", "checkpoints/deep/er/notes.txt", ".hidden"])
def test_a_file_of_somebody_else_stays_and_is_named(run, place):
    put(run, [place], "years of work")
    assert owned_files.foreign(run) == [place]
    with pytest.raises(AmbisegError, match=f"'{place}', which ambiseg did not write"):
        owned_files.check_replaceable(run, ["train"])
    owned_files.remove(run)
    assert (run / place).read_text() == "years of work"
    assert {name for name in files(run) if (run / name).is_file()} == {place}


def test_folders_and_links_of_somebody_else_stay(run, tmp_path):
    home = tmp_path / "home"
    put(home, ["thesis.tex", "config.yaml"])
    (run / "empty").mkdir()
    (run / "link").symlink_to(home)
    (run / "link.txt").symlink_to(home / "thesis.tex")
    assert owned_files.foreign(run) == ["link", "link.txt", "empty/"]
    shutil.rmtree(run / "logs")
    (run / "logs").symlink_to(home)
    put(home, ["version_0/metrics.csv"])
    owned_files.remove(run)
    assert {"thesis.tex", "config.yaml", "version_0/metrics.csv"} <= files(home)
    assert (run / "empty").is_dir() and (run / "link").is_symlink()


def test_a_folder_in_a_folder_has_its_own_list(run):
    inner = run / "case"
    put(inner, ["mask-01.png"])
    owned_files.begin(inner, "predict")
    owned_files.add(inner, ["mask-01.png"])
    assert owned_files.foreign(run) == [f"case/{LIST}", "case/mask-01.png"] or owned_files.foreign(run) == [
        "case/mask-01.png"
    ], "not named by the list above"
    owned_files.add(run, ["case/"])
    assert owned_files.foreign(run) == []
    put(inner, ["mine.txt"])
    assert owned_files.foreign(run) == ["case/mine.txt"]
    owned_files.remove(run)
    assert {name for name in files(run) if (run / name).is_file()} == {"case/mine.txt"}


def test_who_made_a_folder_decides(run, tmp_path):
    with pytest.raises(AmbisegError, match="made by 'ambiseg train'"):
        owned_files.check_replaceable(run, ["data"])
    (run / LIST).unlink()
    with pytest.raises(AmbisegError, match="was not made by ambiseg"):
        owned_files.check_replaceable(run, ["train"])
    owned_files.check_replaceable(tmp_path / "absent", ["train"])
    (tmp_path / "empty").mkdir()
    owned_files.check_replaceable(tmp_path / "empty", ["train"])
    with pytest.raises(AmbisegError, match="is a file"):
        owned_files.check_replaceable(run / "config.yaml", ["train"])


def test_inputs_and_what_holds_them_stay(run, tmp_path):
    put(run, ["data/a.png"])
    owned_files.add(run, ["data/a.png"])
    for source, what in [
        (run, "is the input"),
        (run / "data", "holds the input"),
        (run / "data/a.png", "holds"),
    ]:
        with pytest.raises(AmbisegError, match=what):
            owned_files.check_replaceable(run, ["train"], [source])
    link = tmp_path / "link"
    link.symlink_to(run)
    with pytest.raises(AmbisegError, match="holds the input"):
        owned_files.check_replaceable(run, ["train"], [link / "data"])
    with pytest.raises(AmbisegError, match="is a link"):
        owned_files.check_replaceable(link, ["train"])
    owned_files.check_replaceable(run, ["train"], [tmp_path / "elsewhere", tmp_path])


@given(st.text(max_size=60), st.sampled_from(["../up.txt", "/etc/up.txt", "a/../../up.txt", "a\\b"]))
def test_a_list_of_a_stranger_reaches_nothing_outside(tmp_path_factory, noise, name):
    folder = tmp_path_factory.mktemp("list")
    put(folder, ["up.txt", "run/kept.txt"])
    text = json.dumps({"verb": "train"}) + "\n" + noise.replace("\r", "") + "\n" + json.dumps(name) + "\n"
    (folder / "run" / LIST).write_text(text, encoding="utf-8", newline="\n", errors="replace")
    owned_files.remove(folder / "run")
    assert (folder / "up.txt").exists() and (folder / "run" / "kept.txt").exists()


def test_what_a_killed_process_was_writing_is_not_somebody_elses(run):
    """Also where its folder holds nothing else yet."""
    put(run, [f"first/{PARTIAL}0123/last.ckpt", f"{PARTIAL}4567/half.png"])
    assert owned_files.foreign(run) == []
    with FileLock(run / f"{PARTIAL}4567" / LOCK):
        owned_files.remove(run)
        assert files(run) == {f"{PARTIAL}4567", f"{PARTIAL}4567/half.png", f"{PARTIAL}4567/{LOCK}"}, "at work"
    owned_files.begin(run, "train")
    owned_files.remove(run)
    assert not run.exists()


def test_a_list_that_was_killed_as_it_began_is_begun_again(tmp_path):
    (tmp_path / LIST).touch()
    owned_files.enter(tmp_path, "train")
    owned_files.add(tmp_path, ["config.yaml"])
    assert owned_files.verb_of(tmp_path) == "train" and owned_files.listed(tmp_path) == {"config.yaml"}


def test_a_folder_that_was_killed_before_its_first_file_is_ours(run):
    with replacing_file(run / "tables" / "deep" / "a.md") as partial:
        partial.write_text("x")
    (run / "tables" / "deep" / "a.md").unlink()
    assert owned_files.foreign(run) == []
    owned_files.remove(run)
    assert not run.exists()


def test_a_torn_line_hides_no_other(run):
    with open(run / LIST, "a", encoding="utf-8") as stream:
        stream.write('"torn')
    owned_files.add(run, ["new.txt"])
    assert owned_files.listed(run) == {*OURS, "new.txt"}


def test_the_nearest_list_takes_a_file(run):
    owned_files.add_path(run / "deep" / "er.txt")
    assert "deep/er.txt" in owned_files.listed(run) and owned_files.is_listed(run / "deep" / "er.txt")
    assert not owned_files.is_listed(run / "er.txt") and not owned_files.is_listed(run.parent / "er.txt")
