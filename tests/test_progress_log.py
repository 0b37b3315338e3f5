"""A long step says now and then how far it is, where there is no terminal; a short one says nothing."""

from __future__ import annotations

import pytest

from ambiseg import progress_log
from ambiseg.cli.console import progress
from ambiseg.progress_log import LOG_EVERY, ProgressLog


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
