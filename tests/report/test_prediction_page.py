"""The page about predictions shows what lies in the folder, with addresses that lead there, and obeys no name."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from ambiseg.predictions.index import PAGE, PredictionIndex, start
from ambiseg.report.prediction_page import MOST_MASKS, write_prediction_page


class Reader(HTMLParser):
    """Elements with their attributes, and the texts between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts += [data.strip()] if data.strip() else []

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def out(tmp_path):
    start(tmp_path / "out", [], False, False)
    PredictionIndex(tmp_path / "out").begin({"seed": 0})
    return tmp_path / "out"


def add(out: Path, image: str, probabilities, folder: str, overlays=False, picture=True) -> None:
    """A folder of masks as ``ambiseg predict`` writes it."""
    place = out / folder
    place.mkdir()
    entries = []
    for k, probability in enumerate(probabilities):
        entry = {"file": f"mask-{k + 1:02}.png", "probability": probability, "score": None}
        if overlays:
            entry["overlay"] = f"overlay-{k + 1:02}.jpg"
            Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(place / entry["overlay"])
        entries.append(entry)
    content = {"image": Path(image).name, "path": image, "masks": entries}
    if picture:
        content["picture"] = "picture.png"
        Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(place / "picture.png")
    (place / "prediction.json").write_text(json.dumps(content))
    PredictionIndex(out).add(Path(image), folder, masks=len(entries), determined=True)


def page_of(out: Path) -> Reader:
    write_prediction_page(out)
    return Reader((out / PAGE).read_text(encoding="utf-8"))


def test_pictures_and_probabilities_lead_to_their_files(out):
    add(out, "scans/a.png", [0.75, 0.25], "a")
    add(out, "scans/b/c.png", [1.0], "c", overlays=True)
    page = page_of(out)
    assert [one["src"] for one in page.all("img")] == ["a/picture.png", "c/picture.png"]
    assert all(
        one["loading"] == "lazy" and (one["width"], one["height"]) == ("50", "30") for one in page.all("img")
    )
    links = [one["href"] for one in page.all("a")]
    assert links == ["a/picture.png", "a/mask-01.png", "a/mask-02.png", "c/picture.png", "c/overlay-01.jpg"]
    assert [text for text in page.texts if text.endswith("%")] == ["75 %", "25 %", "100 %"]
    assert {"a.png", str(Path("b/c.png"))} <= set(page.texts) and "2 images of scans." in " ".join(page.texts)


def test_without_overview_the_first_overlay_is_shown_and_without_both_nothing(out):
    add(out, "a.png", [1.0], "a", overlays=True, picture=False)
    add(out, "b.png", [1.0], "b", picture=False)
    assert [one["src"] for one in page_of(out).all("img")] == ["a/overlay-01.jpg"]


def test_names_are_shown_and_not_obeyed(out):
    name = 'x <script>alert(1)</script> "&\u202e#%20?'
    folder = 'f "#%<b>?&'
    add(out, f"scans/{name}.png", [1.0], folder)
    PredictionIndex(out).add(Path("scans/<img src=x>.png"), None, error="<img src=x> is broken")
    page = page_of(out)
    assert not page.all("script") and len(page.all("img")) == 1
    assert unquote(page.all("img")[0]["src"]) == f"{folder}/picture.png"
    assert (out / unquote(page.all("img")[0]["src"])).is_file()
    assert name.replace("\u202e", "\\u202e") + ".png" in page.texts and "<img src=x> is broken" in page.texts


def test_nothing_is_loaded_from_elsewhere_and_scripts_are_forbidden(out):
    add(out, "a.png", [1.0], "a")
    page = page_of(out)
    (policy,) = [
        one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'") and "script" not in policy
    assert not any(":" in one.get("href", one.get("src", "")) for _, one in page.found)


def test_many_masks_are_counted(out):
    add(out, "a.png", [1 / (MOST_MASKS + 3)] * (MOST_MASKS + 3), "a")
    page = page_of(out)
    assert len(page.all("a")) == 1 + MOST_MASKS and page.texts[-1] == "+3 more"


def test_what_is_damaged_or_gone_is_said(out):
    add(out, "a.png", [1.0], "a")
    add(out, "b.png", [1.0], "b")
    (out / "a" / "prediction.json").write_text("{}")
    (out / "b" / "picture.png").write_bytes(b"no picture")
    page = page_of(out)
    assert not page.all("img") and "b.png" in page.texts
    assert any("1 image, 1 failed" in text for text in page.texts)
    assert any("a/prediction.json" in text.replace("\\", "/") for text in page.texts)


def test_the_page_is_listed_and_may_be_written_again(out):
    add(out, "a.png", [1.0], "a")
    page_of(out)
    assert '"index.html"' in (out / ".ambiseg-files").read_text().splitlines()
    page_of(out)
