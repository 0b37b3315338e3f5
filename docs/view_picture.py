"""The picture of docs/view.md: the page of `ambiseg view` with the predictions of the demo, in Chromium.

    python docs/view_picture.py demo            writes docs/results/view.png

`demo` is the folder that `ambiseg demo` makes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from ambiseg.data.source import open_split
from ambiseg.predictions import open_predictions
from ambiseg.viewer.gallery import SplitGallery
from ambiseg.viewer.site import write_site

OUT = Path(__file__).parent / "results" / "view.png"


def main(demo: Path) -> None:
    """Write the page, open it, take the picture."""
    split = open_split(demo / "data", "test")
    found = open_predictions(demo / "predictions", split.ids)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        site = Path(folder) / "site"
        write_site(SplitGallery(split, "Wildfires of the demo", [], found), site)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1240, "height": 700}, device_scale_factor=1)
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector("canvas[data-drawn]")
        page.locator("#predictions .mask").nth(1).hover()
        page.wait_for_timeout(300)
        page.screenshot(path=str(site / "view.png"))
        browser.close()
        with Image.open(site / "view.png") as whole:
            whole.convert("RGB").save(OUT, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
