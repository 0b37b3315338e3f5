"""Imports go from a higher room to a lower one, and no two files import each other.

A room is a folder or a file of the package. Imports inside functions and those for type checkers count too.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import ambiseg

ROOMS = (
    {"errors", "version"},
    {"json_files"},
    {"owned_files"},
    {"escaping", "plain_yaml"},
    {"atomic_write", "defaults", "memory_budget", "nested_settings", "plugins", "progress_log", "ranking"},
    {"labels"},
    {"overlap", "matching", "notebook"},
    {"maskset"},
    {"networks", "metrics", "data", "flows"},
    {"losses", "distributions", "predictions"},
    {"mode_probabilities", "exchange"},
    {"methods"},
    {"engine", "report"},
    {"viewer"},
    {"exporting", "hub"},
    {"testing", "ambiseg", "serving"},
    {"cli"},
    {"__main__"},
)
"""Rooms from bottom to top. A room imports only rooms of the rows below and itself; ``ambiseg`` is the
package's own ``__init__``."""

TEMPORARY: set[tuple[str, str]] = set()
"""Imports that still close a circle; remove an entry with its import."""

ROW = {room: row for row, rooms in enumerate(ROOMS) for room in rooms}
SOURCE = Path(ambiseg.__file__).parent
FILES = {
    ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCE.rglob("*.py")
}


def imports_of(module: str) -> set[str]:
    """The files of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: write the import with the package's name"
            names = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {full if full in FILES else str(node.module) for full in names.values()}
    return found & FILES.keys() - {module}


def room_of(module: str) -> str:
    """The folder or file of the package that a module belongs to."""
    return [*module.split("."), "ambiseg"][1]


GRAPH = {module: imports_of(module) for module in FILES}


def test_rooms_import_only_lower_rooms():
    assert {room_of(module) for module in FILES} == ROW.keys()
    upward = [
        f"{module} imports {other}"
        for module, others in sorted(GRAPH.items())
        for other in sorted(others)
        if room_of(module) != room_of(other) and ROW[room_of(module)] <= ROW[room_of(other)]
    ]
    assert not upward, f"imports that go up or sideways: {upward}"


def test_no_two_files_import_each_other():
    assert len(FILES) > 100 and sum(map(len, GRAPH.values())) > 300, "the files were not read"
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle of imports: {' <- '.join(error.args[1])}") from None
