"""The page in Chromium: opened from a disk and from the server, by pointer and by keys, in light, dark and small."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from ambiseg.data.source import open_split
from ambiseg.maskset import MaskSet
from ambiseg.predictions import open_predictions
from ambiseg.viewer.gallery import Gallery, PredictedGallery, SplitGallery
from ambiseg.viewer.server import ViewServer
from ambiseg.viewer.site import write_site

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DRAWN = "() => document.getElementById('picture').dataset.drawn?.startsWith('{} ')"


@pytest.fixture(scope="module")
def browser():
    """Chromium; without it tests are skipped, and fail where CI is set."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("the tests of the viewer need Chromium: install it (apt-get install chromium)")
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """``open_page(url)``: a page with its first image drawn; what it complains of fails the test."""
    contexts, complaints = [], []

    def open_one(url, image=0, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on(
            "request",
            lambda request: request.url.startswith((url[:20], "data:")) or complaints.append(request.url),
        )
        page.goto(url)
        page.wait_for_function(DRAWN.format(image))
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def gallery(written):
    """Predictions beside annotations."""
    split = open_split(written.data, "test")
    return SplitGallery(split, "scans", [], open_predictions(written.predictions, split.ids))


@pytest.fixture(scope="module")
def site(gallery, tmp_path_factory):
    """The gallery as a folder on a disk."""
    out = tmp_path_factory.mktemp("site") / "page"
    write_site(gallery, out)
    return (out / "index.html").as_uri()


@contextmanager
def serving(gallery):
    """The address of a gallery, while it is served."""
    with ViewServer(gallery) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def served(gallery):
    """The gallery on a server; a page from a disk would not tell the pixels of its canvas."""
    with serving(gallery) as url:
        yield url


def pressed(page, kind="predictions"):
    """Whether each mask is shown."""
    return [row.get_attribute("aria-pressed") == "true" for row in page.locator(f"#{kind} .mask").all()]


def current(page):
    return page.locator("#images [aria-current]").text_content()


def pixels(page):
    """What the canvas shows."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate("() => document.getElementById('picture').toDataURL()")


def test_masks_probabilities_and_figures_are_shown(open_page, site, written):
    page = open_page(site)
    assert page.title() == "scans - ambiseg" and current(page) == "scan-0"
    rows = page.locator("#predictions .mask").all_inner_texts()
    assert [row.split("\n")[-1] for row in rows] == ["50 %", "30 %", "20 %"]
    assert page.locator("#annotations .label").all_inner_texts() == ["anna", "bo", "cy"]
    assert page.locator("#figures th").first.inner_text() == "HM IoU* ↑"
    assert pressed(page) == pressed(page, "annotations") == [True] * 3
    assert "3 predictions, 3 annotations" in page.locator("#status").inner_text()


def test_mean_and_entropy_are_those_of_the_library(open_page, site, written):
    page = open_page(site)
    mean, entropy = page.evaluate(
        """async () => {
            let record = null;
            const before = ambiseg.image;
            ambiseg.image = (index, found) => (record = found);
            const script = document.createElement("script");
            script.src = "images/2.js";
            document.head.append(script);
            await new Promise((done) => (script.onload = done));
            ambiseg.image = before;
            const all = [...Array(24 * 32).keys()].map(
                (pixel) => ambiseg.masks.probabilities(record, record.predictions, pixel));
            return [all.map((one) => one[1]), all.map(ambiseg.masks.entropy)];
        }"""
    )
    masks = MaskSet.from_numpy(written.masks[2], [0.5, 0.3, 0.2])
    np.testing.assert_allclose(np.reshape(mean, (24, 32)), masks.mean()[0, 0], atol=1e-6)
    np.testing.assert_allclose(np.reshape(entropy, (24, 32)), masks.entropy()[0], atol=1e-5)


def test_contours_lie_where_classes_differ(open_page, site):
    page = open_page(site)
    edges = page.evaluate("() => ambiseg.masks.edges(Uint8Array.from([0, 0, 0,  0, 1, 1]), 3, 2, 0)")
    assert np.reshape(edges, (-1, 4)).tolist() == [[1, 1, 3, 1], [1, 2, 3, 2], [1, 1, 1, 2], [3, 1, 3, 2]]


def test_masks_are_toggled_by_click_and_key(open_page, served):
    page = open_page(served)
    before = pixels(page)
    page.locator("#predictions .mask").nth(1).click()
    assert pressed(page) == [True, False, True]
    page.locator("#picture").focus()
    page.keyboard.press("1")
    assert pressed(page) == [False, False, True] and pixels(page) != before
    page.keyboard.press("Space")
    assert pressed(page) == [True] * 3
    page.keyboard.press("Space")
    page.keyboard.press("a")
    assert pressed(page) + pressed(page, "annotations") == [False] * 6
    bare = pixels(page)
    page.keyboard.press("i")
    assert pixels(page) == bare
    for layer in "me":
        page.keyboard.press(layer)
        assert pixels(page) != bare
    assert page.locator("[data-layer=entropy]").get_attribute("aria-pressed") == "true"


def test_one_mask_at_a_time_also_on_the_next_image(open_page, site):
    page = open_page(site)
    page.keyboard.press("]")
    assert pressed(page) == [True, False, False]
    page.locator("#solo").fill("3")
    assert pressed(page) == [False, False, True]
    assert "Mask 3 of 3, probability 20 %" in page.locator("#status").inner_text()
    page.locator("#picture").focus()
    page.keyboard.press("j")
    page.wait_for_function(DRAWN.format(1))
    assert pressed(page) == [False, False, True]
    page.keyboard.press("[")
    assert pressed(page) == [False, True, False]


def test_matches_are_shown_while_the_pointer_is_on_a_mask(open_page, site):
    page = open_page(site)
    page.locator("#predictions .mask").nth(0).hover()
    assert page.locator("#readout").inner_text().startswith("Mask 1 is matched with cy, IoU 0.")
    assert page.locator(".mask.bright .label").all_inner_texts() == ["Mask 1", "cy"]
    page.locator("#name").hover()
    assert page.locator(".mask.bright").count() == 0


def test_pixels_are_read_under_the_pointer(open_page, site):
    page = open_page(site)
    page.keyboard.press("b")
    box = page.locator("#picture").bounding_box()
    scale = min(box["width"] / 32, box["height"] / 24)
    left, top = box["x"] + (box["width"] - 32 * scale) / 2, box["y"] + (box["height"] - 24 * scale) / 2
    page.mouse.move(left + 12.5 * scale, top + 12.5 * scale)
    text = page.locator("#readout").inner_text()
    assert text.startswith("x 12, y 12 · predictions: lesion 100 %, entropy 0.00 · annotations: lesion 100 %")


def test_zoom_by_key_button_and_wheel(open_page, served):
    page = open_page(served)
    fits = pixels(page)
    page.keyboard.press("+")
    page.wait_for_function("() => location.hash.includes('view=1.500')")
    assert pixels(page) != fits
    page.keyboard.press("0")
    page.wait_for_function("() => !location.hash.includes('view')")
    assert pixels(page) == fits
    page.locator("#in").click()
    page.locator("#picture").hover()
    page.mouse.wheel(0, -400)
    page.wait_for_function("() => /view=2\\.7/.test(location.hash)")
    page.keyboard.press("Shift+ArrowRight")
    assert pixels(page) != fits


def test_images_are_searched_and_leafed_through(open_page, site):
    page = open_page(site)
    for key, name in (("j", 1), ("ArrowRight", 2), ("ArrowRight", 2), ("k", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        page.wait_for_function(DRAWN.format(name))
        assert current(page) == f"scan-{name}"
    page.keyboard.press("/")
    page.keyboard.type("-2")
    assert page.locator("#images li:visible").all_inner_texts() == ["scan-2"]
    assert page.locator("#count").inner_text() == "1 of 3 images"
    page.keyboard.press("Enter")
    page.wait_for_function(DRAWN.format(2))
    page.locator("#search").fill("nothing")
    assert page.locator("#count").inner_text() == "0 of 3 images"
    page.keyboard.press("Escape")
    page.locator("#images button").nth(1).click()
    page.wait_for_function(DRAWN.format(1))


class Repeated(Gallery):
    """Five hundred images, three of which differ."""

    def __init__(self, gallery):
        self.gallery, self.title, self.inputs = gallery, "many", ()
        self.names = tuple(f"scan-{i:03}" for i in range(500))

    def read(self, index):
        return self.gallery.read(index % 3)


def test_five_hundred_images_are_listed_and_found(open_page, gallery):
    with serving(Repeated(gallery)) as url:
        page = open_page(url)
        assert page.locator("#images li").first.get_attribute("aria-setsize") == "500"
        assert page.locator("#images li").count() < 100
        assert page.locator("#count").inner_text() == "500 images"
        page.keyboard.press("/")
        page.keyboard.type("SCAN 43")
        assert page.locator("#count").inner_text() == "15 of 500 images"
        page.keyboard.press("Enter")
        page.wait_for_function(DRAWN.format(43))
        page.keyboard.press("j")
        page.wait_for_function(DRAWN.format(143))
        page.locator("#search").fill("")
        page.locator("#picture").focus()
        page.keyboard.press("ArrowUp")
        page.wait_for_function(DRAWN.format(142))
        assert page.locator("#images button[tabindex='0']").count() == 1
        box, row = (page.locator(name).bounding_box() for name in (".scroll", "#images [aria-current]"))
        assert box["y"] <= row["y"] and row["y"] + row["height"] <= box["y"] + box["height"] <= 800


def test_the_address_restores_what_is_shown(open_page, served):
    page = open_page(served)
    for key in "j2be+":
        page.keyboard.press(key)
        page.wait_for_function(DRAWN.format(1))
    page.wait_for_function("() => ['masks=p0.p2.', 'view='].every((part) => location.hash.includes(part))")
    again = open_page(page.url, image=1)
    assert current(again) == "scan-1" and pressed(again) == [True, False, True]
    assert pixels(again) == pixels(page)
    assert open_page(f"{served}#image=gone&n=x&masks=p99.q1&view=9_9_9&layer=none").title()


def test_keys_can_be_read_and_switched_off(open_page, site):
    page = open_page(site)
    page.keyboard.press("?")
    assert page.locator("#keys tbody tr").count() > 10
    page.keyboard.press("j")
    assert current(page) == "scan-0"
    page.locator("#keys-on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert current(page) == "scan-0" and not page.locator("#keys").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(open_page, served, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(served, color_scheme=scheme)
    assert page.evaluate("() => document.documentElement.dataset.theme") == scheme
    for key in ("a", "e", "?"):
        page.keyboard.press(key)
        found = Axe().run(page).response["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.evaluate("() => document.documentElement.dataset.theme") != scheme


def test_a_phone_shows_all_of_it_without_scrolling_sideways(open_page, site):
    page = open_page(site, viewport={"width": 360, "height": 740})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    page.locator("#images button").nth(2).click()
    page.wait_for_function(DRAWN.format(2))


def test_scripts_in_names_do_nothing(open_page, hostile):
    with serving(PredictedGallery(hostile)) as url:
        page = open_page(url)
        assert page.title() == "predictions - ambiseg"
        assert "<script>" in current(page) and "<script>" in page.locator("#classes").inner_text()
        assert page.locator("#images script, #images img, #classes img").count() == 0
        page.keyboard.press("j")
        page.wait_for_function(DRAWN.format(1))
        assert "cannot be read as png" in page.locator("#remark").inner_text()
        assert pressed(page) == [True] * 3
