"""Reading JSON files that a program wrote earlier and that may be missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


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
