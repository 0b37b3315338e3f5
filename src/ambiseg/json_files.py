"""JSON files that a program wrote earlier and that may be missing or damaged, and files of JSON lines that grow."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 28
"""A longer file is not ours."""


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file as a mapping, empty where it is missing, damaged or no mapping.

    Example:
        >>> read_mapping(Path("no-such-file.json"))
        {}
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def read_json_lines(path: Path) -> list[Any]:
    """The values of the lines, without one that a kill left half-written; none where there is no such file."""
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
