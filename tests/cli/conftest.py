"""``cli(...)``: run one command line in this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ambiseg.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The message of a mistake: status 2, one line on stderr, nothing on stdout."""
        assert self.status == 2, self
        assert self.out == ""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("ambiseg: error: "), self.err
        return lines[0]


@pytest.fixture
def cli(capsys):
    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run
