"""Draw the tables of docs/data/dataset-yaml.md from the code that reads these files.

    python docs/schema.py

Replaces what stands between ``<!-- keys NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ambiseg.data.schema import CLASS_KEYS, COLUMNS, FILES_KEYS, KEYS, SLICES_KEYS, Key

PAGE = Path(__file__).parent / "data" / "dataset-yaml.md"


def table(head: str, rows: list[list[str]]) -> str:
    """A table; ``head`` names the columns, with commas between them."""
    names = head.split(", ")
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def keys(known: Mapping[str, Key]) -> str:
    """One row for each key."""
    rows = [[f"`{name}`", key.kind, key.default, key.meaning] for name, key in known.items()]
    return table("key, value, if left out, meaning", rows)


def drawn() -> dict[str, str]:
    """Every table by its name."""
    columns = [[f"`{name}`", meaning] for name, meaning in COLUMNS.items()]
    found = {"dataset": keys(KEYS), "class": keys(CLASS_KEYS), "files": keys(FILES_KEYS)}
    found["slices"] = keys(SLICES_KEYS)
    return found | {"weights": table("column, holds", columns)}


def redrawn(text: str) -> str:
    """The page with its tables as the code has them."""
    made = drawn()
    return re.sub(
        r"(<!-- keys (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(redrawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
