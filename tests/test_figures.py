"""Every method has a figure in docs/figures, which its script draws."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from ambiseg.methods import METHODS

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
OURS = [name for name, spec in METHODS.items() if str(spec.model).startswith("ambiseg.methods.")]

sys.path.insert(0, str(FIGURES))

import draw  # noqa: E402
import sheet  # noqa: E402


def test_every_method_has_a_figure() -> None:
    assert set(draw.FIGURES) == {*OURS, "energy-score", "overview"}
    assert {path.stem for path in FIGURES.glob("*.png")} == set(draw.FIGURES)


@pytest.mark.parametrize("name", draw.FIGURES)
def test_a_figure_is_small_and_of_the_same_size(name: str) -> None:
    path = FIGURES / f"{name}.png"
    with Image.open(path) as picture:
        assert picture.size == (sheet.WIDTH, sheet.HEIGHT)
        assert picture.convert("RGBA").getpixel((0, 0))[3] == 0, "corners are transparent"
    assert path.stat().st_size < 120_000


def test_the_script_draws_the_same_picture_each_time(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        draw.main(["mose", "--out", str(tmp_path / folder)])
    assert (tmp_path / "first/mose.png").read_bytes() == (tmp_path / "second/mose.png").read_bytes()
