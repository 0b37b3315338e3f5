"""How fast the page of `ambiseg view` opens and answers keys, in headless Chromium.

    python benchmarks/viewer_speed.py --images 500 --masks 16 --size 128

It makes predictions of random blobs, opens them from the server and from a folder on the disk, and prints

- seconds until the list and the first image are drawn, from the moment the address is opened;
- milliseconds from a key to the frame after the one that shows its effect, median and 95th percentile, for keys that
  change what is shown of an image and for keys that open the next image, a tenth of a second after the one before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ambiseg.data.files.reading import write_mask
from ambiseg.labels import LabelSpace
from ambiseg.viewer.gallery import PredictedGallery
from ambiseg.viewer.server import ViewServer
from ambiseg.viewer.site import write_site

SHOWING = [*"123456789", "m", "m", "e", "e", "i", "i", "]", "]", "[", " ", " ", "+", "+", "0"]
"""Keys that change what is shown of an image."""
WATCH = """() => {
    const canvas = document.getElementById("picture");
    window.took = [];
    let began = 0;
    addEventListener("keydown", (event) => (began = event.timeStamp), true);
    new MutationObserver(() => requestAnimationFrame((now) => {
        if (began) took.push(performance.now() - began);
        began = 0;
    })).observe(canvas, { attributeFilter: ["data-drawn"] });
}"""


def make_predictions(out: Path, images: int, masks: int, size: int) -> None:
    """Folders as `ambiseg predict` writes them."""
    (out / "images").mkdir(parents=True)
    lines: list[dict[str, Any]] = [{"run": "none"}]
    rng = np.random.default_rng(0)
    for i in range(images):
        name = f"scan-{i:04}"
        field = gaussian_filter(rng.standard_normal((size, size)), size / 12)
        image = np.clip(128 + 60 * field / field.std() + 10 * rng.standard_normal(field.shape), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(out / "images" / f"{name}.png")
        folder, entries = out / "predictions" / name, []
        folder.mkdir(parents=True)
        for k in range(masks):
            mask = (field > field.std() * (0.2 + k / masks)).astype(np.uint8)
            write_mask(folder / f"mask-{k + 1:02}.png", mask, None, LabelSpace.binary().colors)
            entries.append({"file": f"mask-{k + 1:02}.png", "probability": 1 / masks, "score": None})
        content: dict[str, Any] = {
            "image": f"{name}.png",
            "classes": LabelSpace.binary().names,
            "path": str(out / "images" / f"{name}.png"),
            "masks": entries,
        }
        (folder / "prediction.json").write_text(json.dumps(content))
        lines.append({"image": content["path"], "folder": name})
    (out / "predictions" / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))


def measure(page: Any, url: str, images: int) -> dict[str, float]:
    """Seconds to open and milliseconds of keys."""
    began = time.perf_counter()
    page.goto(url)
    page.wait_for_function(
        "count => +document.querySelector('#images li')?.getAttribute('aria-setsize') === count"
        " && document.getElementById('picture').dataset.drawn",
        arg=images,
    )
    found = {"open": time.perf_counter() - began}
    page.evaluate(WATCH)
    for title, keys in (("show", SHOWING * 3), ("next image", ["j"] * min(60, images - 1))):
        page.evaluate("() => { took.length = 0; }")
        for i, key in enumerate(keys):
            page.keyboard.press("Space" if key == " " else key)
            page.wait_for_function("count => took.length > count", arg=i)
            page.wait_for_timeout(100)
        took = sorted(page.evaluate("() => took"))
        found[f"{title}, median"] = statistics.median(took)
        found[f"{title}, 95 %"] = took[round(0.95 * (len(took) - 1))]
    return found


def main() -> None:
    """Make, open, measure, print."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--masks", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("Chromium is needed: install it (apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        out = Path(folder)
        make_predictions(out, arguments.images, arguments.masks, arguments.size)
        gallery = PredictedGallery(out / "predictions")
        began = time.perf_counter()
        if problems := write_site(gallery, out / "site"):
            sys.exit(problems[0])
        print(f"folder of {arguments.images} images written in {time.perf_counter() - began:.1f} s")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        with ViewServer(gallery) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for title, url in (("server", server.url), ("disk", (out / "site" / "index.html").as_uri())):
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                found = measure(page, url, arguments.images)
                keys = ", ".join(f"{name} {value:.0f} ms" for name, value in found.items() if name != "open")
                print(f"{title}: opened in {found['open']:.2f} s; keys: {keys}")
                page.close()
            server.shutdown()
        browser.close()


if __name__ == "__main__":
    main()
