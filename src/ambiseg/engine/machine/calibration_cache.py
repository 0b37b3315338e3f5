"""What was measured on this machine before: one JSON file of the user, in which old entries are forgotten.

It is ``$XDG_CACHE_HOME/ambiseg/hardware.json``, or ``~/.cache/ambiseg/hardware.json``. A file that is damaged or cannot
be read counts as empty; one that cannot be written is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ambiseg.atomic_write import write_json
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_mapping

FILE = Path("ambiseg") / "hardware.json"
MOST_ENTRIES, MOST_BYTES = 100, 1 << 20
DAYS = 30
"""An entry counts for so long: drivers, libraries and neighbours of a machine change."""


def cache_file() -> Path:
    """Where the file lies; ``XDG_CACHE_HOME`` counts where it is an absolute path, as its specification says."""
    said = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(said) if Path(said).is_absolute() else Path("~/.cache").expanduser()) / FILE


def key_of(facts: Mapping[str, Any]) -> str:
    """Digest of what a measurement depends on.

    Example:
        >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1})
        True
    """
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def recall(key: str) -> tuple[float, dict[str, Any]] | None:
    """When an entry was written, in seconds since the epoch, and what it holds; None where there is none that
    counts."""
    found = _entries().get(key)
    return None if found is None else (found["time"], found["value"])


def remember(key: str, value: Mapping[str, Any]) -> None:
    """Write an entry, if the file can be written."""
    entries = _entries() | {key: {"time": time.time(), "value": dict(value)}}
    newest = sorted(entries, key=lambda name: entries[name]["time"])[-MOST_ENTRIES:]
    with suppress(AmbisegError, OSError):
        write_json(cache_file(), {name: entries[name] for name in newest})


def _entries() -> dict[str, dict[str, Any]]:
    """Those that are whole and not too old."""
    path = cache_file()
    with suppress(OSError):
        if path.stat().st_size <= MOST_BYTES:
            return {key: entry for key, entry in read_mapping(path).items() if _counts(entry)}
    return {}


def _counts(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("value"), dict):
        return False
    written = entry.get("time")
    return isinstance(written, float) and 0 <= time.time() - written < DAYS * 86400
