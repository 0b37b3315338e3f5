"""Put the measured results into the pages that show them.

    python benchmarks/tables.py

Draws every table that ``tables.yaml`` describes from the JSON files of ``docs/results``, and replaces what
stands between ``<!-- table NAME -->`` and ``<!-- end -->`` in the pages. No figure of these tables is typed
by hand. What the words of ``tables.yaml`` mean:

- ``file``: a result below ``docs/results``; ``files``: several, each one row, by their titles. A table of
  ``ambiseg benchmark`` (.md) is copied.
- ``rows``: where the rows are. Names are joined by dots; ``*`` stands for every entry.
- ``where``: keep the rows whose values are these; a list holds the values that are allowed.
- ``columns``: heading and what stands below it. A list of metrics has their titles as headings; its key says
  where they are.
- ``lines``: rows that are written out, in place of ``rows`` and ``columns``.
- ``join``: tables of ``ambiseg benchmark`` side by side, row by row of the same method: for each file, heading and
  the column that stands below it. Rows of papers are left out; of several annotation oracles the one with the most
  masks counts. ``only`` names the methods to show; all if left out.
- ``head``, ``note``: headings of ``lines``, and a sentence below.

In all of these ``{path:format}`` is a value, in rows one of the row; ``{100*path}`` is multiplied,
``{/path}`` begins at the whole file, ``{@1}`` is what the first ``*`` stands for. Torch is imported for the
titles of metrics alone.

``rows`` may also be a mapping from the title of each row to its place; ``{@1}`` is the title.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
NOT_YET = "Not measured yet."
_VALUE = re.compile(r"\{(?:([\d.]+)\*)?([^{}]+?)(?::([^{}:]*))?\}")
_MISSING = object()


def look_up(node: Any, path: str) -> Any:
    """The value at a path whose names may hold dots themselves; `_MISSING` where there is none.

    Example:
        >>> look_up({"ratio": {"0.5": [7, 8]}}, "ratio.0.5.1")
        8
    """
    entries = {str(i): value for i, value in enumerate(node)} if isinstance(node, list) else node
    if not isinstance(entries, dict):
        return _MISSING
    if path in entries:
        return entries[path]
    for i in (i for i, character in enumerate(path) if character == "."):
        found = look_up(entries.get(path[:i]), path[i + 1 :])
        if found is not _MISSING:
            return found
    return _MISSING


def rows_of(
    node: Any, path: str | dict[str, str], names: tuple[str, ...] = ()
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Every row below a path, and what its stars stand for; of a mapping, the row of every title.

    Example:
        >>> list(rows_of({"a": {"b": 5}}, {"first": "a.b"}))
        [(5, ('first',))]
    """
    if isinstance(path, dict):
        yield from ((look_up(node, place), (title,)) for title, place in path.items())
        return
    before, star, after = path.partition("*")
    found = look_up(node, before.strip(".")) if before else node
    if not star:
        yield found if path else node, names
    elif found is not _MISSING:
        entries = found.items() if isinstance(found, dict) else enumerate(found)
        for name, entry in entries:
            yield from rows_of(entry, after.strip("."), (*names, str(name)))


def fits(row: Any, where: dict[str, Any]) -> bool:
    """Whether a row has the values of ``where``.

    Example:
        >>> fits({"method": "ssn", "seed": 1}, {"method": ["ssn", "mose"], "seed": 1})
        True
    """
    return all(
        look_up(row, path) in (value if isinstance(value, list) else [value]) for path, value in where.items()
    )


def shown(value: Any, style: str | None) -> str:
    """Three decimals unless a format is given, a dash where there is no value."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return "{:.2f} to {:.2f}".format(*value)
    if isinstance(value, bool):
        return "yes" if value else "NO"
    text: str = format(value, style or (".3f" if isinstance(value, float) else ""))
    return text


def filled(template: str, row: Any, names: Sequence[str] = (), whole: Any = None) -> str:
    """A template with its values; empty where one of them is missing."""
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        factor, path, style = match.groups()
        for i, name in enumerate(names, 1):
            path = path.replace(f"@{i}", name) if path != f"@{i}" else f"@{i}"
        if path.startswith("@"):
            return str(names[int(path[1:]) - 1])
        found = look_up(whole, path[1:]) if path.startswith("/") else look_up(row, path)
        missing |= found is _MISSING
        if found is _MISSING or found is None:
            return shown(None, None)
        return shown(float(factor) * found if factor else found, style)

    text = _VALUE.sub(value, template)
    return "" if missing else text


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns in which nothing stands are left out."""
    kept = [i for i in range(len(head)) if not rows or any(row[i] for row in rows)]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line[i] for i in kept) + " |" for line in lines)


def columns_of(columns: dict[str, Any]) -> dict[str, str]:
    """Heading -> template; lists of metrics become a column each."""
    if any(isinstance(what, list) for what in columns.values()):
        from ambiseg.metrics import METRICS
    found: dict[str, str] = {}
    for key, what in columns.items():
        if isinstance(what, list):
            found |= {METRICS[name].title: f"{{{key}.{name}}}".replace("{.", "{") for name in what}
        else:
            found[key] = what
    return found


def demo_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    """Every metric over all masks, those kept and those of the annotation oracle."""
    from ambiseg.metrics import METRICS

    columns = [found[name] for name in ("all", "kept", "oracle")]
    yield ["masks per image", "", *(f"{column['masks_per_image']:.2f}" for column in columns)]
    for name, info in METRICS.items():
        if any(name in column for column in columns):
            arrow = {True: "↑", False: "↓", None: ""}[info.higher_is_better]
            yield [info.title, arrow, *(filled(f"{{{name}}}", column) for column in columns)]


def rows_of_suite(text: str) -> dict[str, dict[str, str]]:
    """Method -> column -> cell of a table of ``ambiseg benchmark``; columns are named without arrow and ``n``."""
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    names = [re.sub(r" [↑↓]|, n = \d+", "", name).replace("\\", "") for name in lines[0]]
    return {row[0]: dict(zip(names, row, strict=True)) for row in lines[2:] if ":" not in row[0]}


def joined(columns: dict[str, dict[str, str]], results: Path, only: Sequence[str] = ()) -> str:
    """Columns of several tables of ``ambiseg benchmark``, joined by method."""
    found = {name: rows_of_suite((results / name).read_text(encoding="utf-8")) for name in columns}
    methods = only or list(dict.fromkeys(method for rows in found.values() for method in rows))
    head = ["method", *(heading for chosen in columns.values() for heading in chosen)]
    rows = [
        [
            method,
            *(
                found[name].get(method, {}).get(column, "")
                for name, chosen in columns.items()
                for column in chosen.values()
            ),
        ]
        for method in methods
    ]
    return markdown(head, rows)


def drawn(spec: dict[str, Any], results: Path = RESULTS) -> str:
    """One table."""
    files = {name: name for name in spec.get("join", ())} or spec.get("files") or {"": spec["file"]}
    if not all((results / name).exists() for name in files.values()):
        return NOT_YET
    if "join" in spec:
        return joined(spec["join"], results, spec.get("only", ()))
    texts = {title: (results / name).read_text(encoding="utf-8") for title, name in files.items()}
    if spec.get("file", "").endswith(".md"):
        table: str = texts[""].split("\n", 2)[2]
        return table.strip()
    found = {title: json.loads(text) for title, text in texts.items()}
    if "file" in spec:
        found = found[""]
    if spec.get("demo"):
        head, rows = (
            ["metric", "better", "all masks", "kept masks", "annotation oracle"],
            list(demo_rows(found)),
        )
    elif "lines" in spec:
        head = spec["head"]
        rows = [[filled(cell, found) for cell in line] for line in spec["lines"]]
    else:
        columns = columns_of(spec["columns"])
        head = list(columns)
        rows = [
            [filled(cell, row, names, found) for cell in columns.values()]
            for row, names in rows_of(found, spec["rows"])
            if fits(row, spec.get("where", {}))
        ]
    note = filled(spec.get("note", ""), found)
    if isinstance(found, dict) and found.get("smoke"):
        note += " Tiny sizes: these figures say nothing."
    return markdown(head, rows) + (f"\n\n{note}" if note else "")


def specs() -> dict[str, Any]:
    """Every table by its name."""
    path = Path(__file__).with_suffix(".yaml")
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["tables"]
    return found


def main() -> None:
    """Rewrite the pages."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if not RESULTS.is_dir():
        sys.exit(
            f"{RESULTS} is not there: run this script in a checkout of the repository, which holds the results"
        )
    made = {name: drawn(spec) for name, spec in specs().items()}
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        old = page.read_text(encoding="utf-8")
        new = re.sub(
            r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)",
            lambda match: f"{match[1]}{made[match[2]]}\n{match[3]}",
            old,
            flags=re.DOTALL,
        )
        if new != old:
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
