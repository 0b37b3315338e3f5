"""A long step says now and then how far it is, where there is no terminal; a short one says nothing."""

from __future__ import annotations

import io
import re
import sys

import pytest

from ambiseg import progress_log
from ambiseg.cli.console import progress
from ambiseg.progress_log import LOG_EVERY, ProgressLog, progress_bar


def test_a_line_every_so_many_seconds(capsys):
    times = iter([0.0, 0.1, LOG_EVERY - 1, LOG_EVERY, LOG_EVERY + 1, 2.5 * LOG_EVERY])
    log = ProgressLog("reading", lambda: next(times))
    for done in range(1, 6):
        log(done, 10)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["reading: 3 of 10 (30 %)", "reading: 5 of 10 (50 %)"]
    assert not captured.out


@pytest.mark.parametrize(
    ("lines", "expected"), [(True, ["checking: 1 of 2 (50 %)", "checking: 2"]), (False, [])]
)
def test_commands_write_lines_where_there_is_no_terminal(capsys, monkeypatch, lines, expected):
    monkeypatch.setattr(progress_log, "LOG_EVERY", 0.0)
    with progress("checking", lines) as update:
        update(1, 2)
        update(2, None)
    captured = capsys.readouterr()
    assert captured.err.splitlines() == expected and not captured.out


class Terminal(io.StringIO):
    """What a terminal is given."""

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_for_each_count_that_begins(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress_bar("describing")
    for step in [("train", 1, 2), ("train", 2, 2), ("val", 1, 3), ("test", 1, None), ("test", 2, None)]:
        bar(*step)
    last = [line.split("\r")[-1] for line in sys.stderr.getvalue().split("\n")]
    assert [re.sub(r"\|.*\| | \[.*", " ", line).split() for line in last[:2]] == [
        ["describing,", "train:", "100%", "2/2"],
        ["describing,", "val:", "33%", "1/3"],
    ]
    assert last[2].startswith("describing, test: ") and len(last) == 3


def test_a_bar_may_count_again_and_ends_at_the_total(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress_bar("evaluating")
    for done in (1, 2, 1, 2):
        bar(done, 2)
    assert sys.stderr.getvalue().count("2/2") == 2 and sys.stderr.getvalue().endswith("\n")


def test_a_log_has_lines_in_place_of_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress_log, "LOG_EVERY", 0.0)
    bar = progress_bar("evaluating")
    bar(1, 2)
    bar("val", 2, 2)
    assert capsys.readouterr().err.splitlines() == [
        "evaluating: 1 of 2 (50 %)",
        "evaluating: 2 of 2 (100 %)",
    ]
