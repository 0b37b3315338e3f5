"""docs/export.md names every method, and says of what cannot be exported what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ambiseg.methods import METHODS
from exporting_helpers import OWN, run_of

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Which methods")[1].split("\n## ")[0]
ROWS = [
    [cell.strip(" `") for cell in line.strip("|").split("|")]
    for line in SECTION.splitlines()
    if line.startswith("| `")
]
REASONS = [row for row in ROWS if row[0] in METHODS and row[1] not in ("yes", "no")]


def nested(words):
    """``a.b=c`` as settings."""
    name, _, value = words.partition("=")
    found = yaml.safe_load(value)
    for part in reversed(name.split(".")):
        found = {part: found}
    return found


def test_every_method_has_a_row():
    table = {row[0]: row[1] for row in ROWS if row[0] in METHODS and row[1] in ("yes", "no")}
    assert table == {name: "no" if run_of(name).model.export_obstacle else "yes" for name in OWN}


@pytest.mark.parametrize(("method", "setting", "reason"), REASONS, ids=[" ".join(row[:2]) for row in REASONS])
def test_reasons_are_those_of_the_code(method, setting, reason):
    settings = {} if setting == "any" else nested(setting)
    if "flow" in settings:
        settings["flow"]["kind"] = "continuous"
    assert run_of(method, **settings).model.export_obstacle == reason


def test_code_of_the_page_is_found():
    assert len(re.findall(r"```python\n(.*?)```", PAGE, re.S)) == 2
