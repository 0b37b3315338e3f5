"""Files of JSON lines that grow: a line is added at the end, and one that a kill left half-written is left out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 28
"""A longer file is not ours."""


def read_json_lines(path: Path) -> list[Any]:
    """The values of the lines; none where there is no file, it is a link, or it is no such file."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_BYTES:
            return []
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    values: list[Any] = []
    for line in text.split("\n"):
        with suppress(ValueError, RecursionError):
            values.append(json.loads(line))
    return values


def append_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Add a line for each value, after the end of a half-written one."""
    text = "".join(json.dumps(value, allow_nan=False) + "\n" for value in values)
    with open(path, "ab+") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            text = text if stream.read(1) == b"\n" else "\n" + text
        stream.write(text.encode())
