"""docs/schedules.md names the figure that chooses the weights of each method."""

from __future__ import annotations

import re
from pathlib import Path

from ambiseg.methods import METHODS

PAGE = Path(__file__).parents[1] / "docs" / "schedules.md"
WORDS = {"HM IoU": "hm_iou_unique", "GED²": "ged", "the loss": "loss"}


def test_the_page_has_the_figure_of_every_method():
    table = PAGE.read_text(encoding="utf-8").partition("| method | own figure |")[2].partition("\n\n")[0]
    said = {}
    for line in table.splitlines()[2:]:
        names, figure = line.strip("| ").split(" | ")
        key = next(key for word, key in WORDS.items() if figure.startswith(word))
        said |= dict.fromkeys(re.findall("`(.+?)`", names), key)
    built_in = [spec for spec in METHODS.values() if str(spec.model).startswith("ambiseg.")]
    assert said == {spec.name: spec.validation for spec in built_in}
