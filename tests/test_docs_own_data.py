"""The Python code of the pages on data in memory and on loops of one's own runs, block after block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", ["data/in-memory.md", "own-loop.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
    assert len(blocks) >= 5
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)
        check(number, page, names)


def check(number, page, names):
    """What the text says of a block."""
    if (page, number) == ("data/in-memory.md", 2):
        assert names["evaluation"].images == 6
    if (page, number) == ("data/in-memory.md", 4):
        assert repr(names["data"]) == (
            "<data in memory: 18 images in train, 6 images in val, 6 images in test; classes background, nodule>"
        )
        assert names["data"]["train"][0].annotators == ("rater_a", "rater_b")
