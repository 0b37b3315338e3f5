"""The folder of a page: its files, what is escaped, what is replaced."""

from __future__ import annotations

import json
import shutil

import pytest

from ambiseg.errors import AmbisegError
from ambiseg.viewer.gallery import PredictedGallery
from ambiseg.viewer.site import ASSETS, write_site
from viewer_helpers import HOSTILE


def handed_over(path) -> list:
    """The values that a script hands to the page."""
    text = path.read_text(encoding="ascii")
    return json.loads(f"[{text[text.index('(') + 1 : text.rindex(')')]}]")


def test_a_site_has_the_page_and_two_files_for_each_image(written, tmp_path):
    out, seen = tmp_path / "site", []
    problems = write_site(
        PredictedGallery(written.predictions), out, progress=lambda *done: seen.append(done)
    )
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    images = {f"images/{i}.{kind}" for i in range(3) for kind in ("js", "png")}
    assert files == {*ASSETS, "list.js", ".ambiseg-files", *images}
    assert problems == [] and seen == [(1, 3), (2, 3), (3, 3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site"]
    assert handed_over(out / "list.js")[0]["names"] == ["scan-0", "scan-1", "scan-2"]


def test_scripts_in_names_reach_the_page_as_text_only(hostile, tmp_path):
    out = tmp_path / "site"
    write_site(PredictedGallery(hostile), out)
    for name in ("list.js", "images/0.js"):
        text = (out / name).read_text(encoding="ascii")
        assert "<" not in text and len(text.splitlines()) == 1
    index, record = handed_over(out / "images" / "0.js")
    assert index == 0 and record["classes"][1]["name"] == HOSTILE


def test_an_image_that_is_none_is_told_and_its_masks_are_shown(hostile, tmp_path):
    problems = write_site(PredictedGallery(hostile), tmp_path / "site")
    assert len(problems) == 1 and "none.png: cannot be read as png" in problems[0]
    assert "--images" not in problems[0]
    record = handed_over(tmp_path / "site" / "images" / "1.js")[1]
    assert not record["picture"] and len(record["predictions"]) == 3
    assert not (tmp_path / "site" / "images" / "1.png").exists()


def test_predictions_that_are_damaged_are_told_and_the_rest_is_written(written, tmp_path):
    shutil.copytree(written.predictions, tmp_path / "p")
    (tmp_path / "p" / "scan-1" / "mask-02.png").write_bytes(b"")
    problems = write_site(PredictedGallery(tmp_path / "p"), tmp_path / "site")
    assert len(problems) == 1 and "mask-02.png" in problems[0]
    assert "mask-02.png" in handed_over(tmp_path / "site" / "images" / "1.js")[1]["error"]
    assert (tmp_path / "site" / "images" / "2.png").is_file()


def test_numbers_that_are_none_are_told_and_the_rest_is_shown(written, tmp_path):
    shutil.copytree(written.predictions, tmp_path / "p")
    place = tmp_path / "p" / "scan-0" / "prediction.json"
    content = json.loads(place.read_text())
    for mask, score in zip(content["masks"], (0.75, 0.25, 0.5), strict=True):
        mask["score"] = score
    place.write_text(json.dumps(content))
    content["masks"][0]["probability"] = float("nan")
    (tmp_path / "p" / "scan-1" / "prediction.json").write_text(json.dumps(content))
    problems = write_site(PredictedGallery(tmp_path / "p"), tmp_path / "site")
    assert len(problems) == 1 and "'probability' of mask 1 is NaN, not a finite number" in problems[0]
    record = handed_over(tmp_path / "site" / "images" / "0.js")[1]
    assert [one["score"] for one in record["predictions"]] == [0.75, 0.25, 0.5]


def test_only_a_page_of_ours_is_replaced(written, tmp_path):
    gallery, out = PredictedGallery(written.predictions), tmp_path / "site"
    write_site(gallery, out)
    with pytest.raises(AmbisegError, match="exists already"):
        write_site(gallery, out)
    write_site(gallery, out, overwrite=True)
    (out / "mine.txt").write_text("keep")
    with pytest.raises(AmbisegError, match="mine.txt"):
        write_site(gallery, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "keep"
    with pytest.raises(AmbisegError):
        write_site(gallery, written.predictions, overwrite=True)
