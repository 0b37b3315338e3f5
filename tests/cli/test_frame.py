"""The frame: help, version, errors of every kind, exit statuses, and what is not imported."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ambiseg
from ambiseg.cli import console
from ambiseg.cli import main as frame
from ambiseg.cli.dispatch import Menu, Verb
from ambiseg.cli.main import MENU, explain, main
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.methods import METHODS
from ambiseg.nested_settings import options_of
from ambiseg.networks.settings import UNetSettings

PAGES = [
    "--help",
    "--version",
    "train --help",
    *(f"train {name} --help" for name in METHODS),
    *(
        f"{verb} --help"
        for verb in ("predict", "convert", "evaluate", "score", "report", "demo", "methods", "cite", "data")
    ),
    *(f"data {verb} --help" for verb in ("simulate", "check", "pack")),
    "methods",
    "train mode-proposals --lrr 3",
]


def test_help_pages_and_typing_errors_need_no_torch():
    script = (
        "import sys\nfrom ambiseg.cli.main import main\n"
        f"for page in {PAGES!r}:\n"
        "    main(page.split())\n"
        "    assert not {'torch', 'lightning', 'matplotlib'} & set(sys.modules), page\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_top_level_help_imports_no_parser():
    script = (
        "import sys\nfrom ambiseg.cli.main import main\nmain(['--help'])\nassert 'tyro' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(verb.name in done.stdout for verb in MENU.verbs)


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith("--help")])
def test_help_goes_to_stdout(cli, page):
    outcome = cli(*page.split())
    assert outcome.status == 0 and outcome.err == ""
    assert outcome.out.startswith("usage: ambiseg")


@pytest.mark.parametrize(
    "page",
    ["evaluate", "train mode-proposals", "train flow-matching", "data import lidc", "data import isic"],
)
def test_help_of_several_lines_is_wrapped_as_one(cli, monkeypatch, page):
    """A line of help goes on in the next one only where the next word had no room: 96 columns of 100."""
    monkeypatch.setenv("COLUMNS", "100")
    rows = [line[2:98] for line in cli(*page.split(), "--help").out.splitlines() if len(line) == 100]
    indented = [
        (row.rstrip(), after.split()[0])
        for row, after in itertools.pairwise(rows)
        if re.match(r" {10,}\S", after) and re.search(r" {2,}\S", row)
    ]
    assert indented
    for row, word in indented:
        assert len(f"{row} {word}") > 96, (row, word)


@pytest.mark.parametrize("method", METHODS)
def test_help_of_a_method_is_short_and_the_rest_is_within_reach(cli, method):
    page = cli("train", method, "--help").out
    options = set(re.findall(r"--[a-z][a-z-]*", page))
    assert {"--data", "--out", "--preset", "--minutes", "--masks", "--set", "--help-all"} <= options
    assert len(options) <= 29, sorted(options)  # --help and 28 more
    everything = cli("train", method, "--help-all").out
    spec = METHODS[method]
    for cls, prefix in ((spec.settings, ""), (TrainSettings, "train."), (UNetSettings, "backbone.")):
        for option in options_of(cls, None, prefix):
            assert option.path in everything, option.path


def test_version(cli):
    assert cli("--version").out == f"ambiseg {ambiseg.__version__}\n"


def test_no_command_shows_the_overview(cli):
    outcome = cli()
    assert outcome.status == 2 and outcome.out == "" and "usage: ambiseg" in outcome.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("evalute", "did you mean 'evaluate'"),
        ("--verison", "did you mean '--version'"),
        ("data chekc", "did you mean 'check'"),
        ("train mode-proposal --data x --out y", "did you mean 'mode-proposals'"),
        ("cite mode-propsals", "did you mean 'mode-proposals'"),
        ("train", "name a method first"),
        ("train --data x --out y", "mode-proposals"),
        ("train mode-proposals", "missing --out PATH"),
        ("train mode-proposals --data x --out y --lrr 1", "did you mean --lr?"),
        ("train mode-proposals --data x --out y --lr fast", "--lr"),
        ("train mode-proposals --data x --out y --labels some", "--labels"),
        ("train mode-proposals --data x --out y --seed x", "--seed"),
        ("train mode-proposals --data x --out", "--out"),
        ("predict run", "missing --out PATH"),
        ("predict run a.png --out x --samples many", "--samples"),
        ("data simulate water --out x", "wildfire"),
    ],
)
def test_typing_errors_are_one_line(cli, tmp_path, monkeypatch, words, hint):
    monkeypatch.chdir(tmp_path)
    assert hint in cli(*words.split()).error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_typing_errors_are_one_line_in_every_terminal(encoding):
    words = [sys.executable, "-m", "ambiseg", "train", "mode-proposals", "--data", "x", "--outt", "y"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "FORCE_COLOR": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "ambiseg: error: missing --out PATH; unrecognized: --outt y; see 'ambiseg train mode-proposals --help'\n"
    )


def test_choices_are_those_that_can_be_typed(cli):
    error = cli("train", "ssn", "--data", "x", "--out", "y", "--labels", "half").error
    assert "'full'" in error and "'single'" in error and "None" not in error


NASTY = "a\x1b[2J\nb\x9b\u202ec\udc80[red]"
SHOWN = r"a\x1b[2J\nb\x9b\u202ec\udc80[red]"


def test_words_of_users_do_not_reach_the_terminal_as_they_are(capsys):
    """Whatever prints spells control characters and line breaks out."""
    for function in (console.say, console.warn, console.show):
        function(NASTY)
    grid = console.Grid(NASTY)
    grid.column(NASTY)
    grid.row(NASTY)
    grid.row([NASTY, "x"])
    console.show_grid(grid)
    console.next_commands((NASTY, NASTY))
    console.show_json({NASTY: [NASTY]})
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert not set(text) & set(NASTY) - set("a\nbc[red]2J")
    assert text.count(SHOWN) == 3 + 4 + 2
    assert json.loads(captured.out[captured.out.index("{") :]) == {NASTY: [NASTY]}


def test_errors_spell_file_names_out(cli):
    assert repr(NASTY)[1:-1] in cli("predict", NASTY, "x.png", "--out", "y").error


def test_only_the_console_draws_on_the_terminal():
    folder = Path(ambiseg.__file__).parent / "cli"
    users = {
        path.name for path in folder.glob("*.py") if re.search(r"\brich\b", path.read_text(encoding="utf-8"))
    }
    assert users == {"console.py"}


def _failing(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (AmbisegError("a.png is\nempty"), 2, r"error: a.png is\nempty"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "the disk is full"),
        (RuntimeError("write failed: No space left on device"), 2, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), 2, "/out: Permission denied"),
        (MemoryError(), 2, "--batch-size"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("go on so"), 130, "interrupted: go on so"),
        (
            TypeError("no such thing"),
            1,
            "a bug in ambiseg (TypeError: no such thing): run again with --debug",
        ),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_whatever_happens_is_one_line(cli, monkeypatch, error, status, words):
    monkeypatch.setattr(frame, "_discard_output", lambda: None)
    monkeypatch.setattr(Verb, "run", lambda self, args: _failing(error)(args))
    outcome = cli("methods")
    assert outcome.status == status and words in outcome.err
    assert len(outcome.err.splitlines()) == bool(words)


def test_a_full_disk_is_found_behind_another_error():
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("unexpected position") from error
    except RuntimeError as error:
        assert explain(error)[1] == 2


def test_debug_anywhere_shows_the_traceback(cli):
    for words in (["--debug", "cite", "x"], ["cite", "x", "--debug"]):
        outcome = cli(*words)
        assert outcome.status == 2
        assert "Traceback" in outcome.err and outcome.err.splitlines()[-1].startswith("ambiseg: error: ")


def test_a_closed_pipe_is_no_error():
    script = "import sys; from ambiseg.cli.main import main; sys.exit(main(['train', '--help']))"
    command = f"{sys.executable} -c {script!r} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == ""


def test_a_menu_needs_a_verb(capsys):
    assert Menu("x", "intro", (Verb("a", "does a", "m:f"),)).run([]) == 2
    assert "does a" in capsys.readouterr().err


def test_methods_and_citation(cli):
    assert "mode-proposals" in cli("methods").out
    assert cli("methods", "--json").out.lstrip().startswith("[")
    assert cli("cite", "mode-proposals").out.startswith("@article{")
    assert main(["methods", "--jso"]) == 2


def test_presets_come_with_their_parameters_and_what_differs(cli):
    """Parameters as the authors' code has them (Kohl et al. 2018)."""
    preset = json.loads(cli("methods", "probabilistic-unet", "--json").out)["cityscapes"]
    assert preset["data"] == "cityscapes-twins" and sum(preset["parameters"].values()) == 17_954_736
    table = cli("methods", "probabilistic-unet").out
    assert "17,954,736" in table and "differs from it" in table


def test_a_circle_of_causes_is_told_once():
    error, cause = ValueError("first"), ValueError("second")
    error.__cause__, cause.__context__ = cause, error
    assert "ValueError: first" in explain(error)[0]
