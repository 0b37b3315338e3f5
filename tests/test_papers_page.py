"""docs/papers.md and docs/papers-compared.md show the presets of the code."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from ambiseg.methods import METHODS

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
page = importlib.import_module("experiments")
TEXT = "\n".join(one.read_text(encoding="utf-8") for one in page.PAGES)


def test_the_page_shows_the_presets_of_the_code():
    assert page.redrawn(TEXT) == TEXT, "run python docs/experiments.py"
    for spec in METHODS.values():
        for name, preset in spec.presets.items():
            if preset.backbone and str(spec.model).startswith("ambiseg."):
                assert f"| `{spec.name} --preset {name}` |" in TEXT
