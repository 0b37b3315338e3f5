"""What a notebook shows of mask sets, runs and evaluations: short lines, and pictures of the right pixels."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.run import load
from ambiseg.engine.score import score
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import NOTEBOOK_IMAGES, NOTEBOOK_MASKS, MaskSet
from ambiseg.metrics import METRICS
from ambiseg.notebook import SIDE, thumbnail

BINARY = LabelSpace.binary()


def pictures(page: str) -> list[np.ndarray]:
    """The pictures ``(H, W, 3)`` of a page, in its order."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in found]


def words(page: str) -> list[str]:
    """The texts of a page; fails where an element is not closed."""
    found, opened = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("img", "br"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

        def handle_data(self, data):
            found.append(data)

    Reader().feed(page)
    assert not opened
    return found


def batch(images: int, masks: int, height: int = 4, width: int = 6) -> MaskSet:
    drawn = torch.arange(images * masks * height * width).view(images, masks, height, width) % 2
    return MaskSet.uniform(drawn.to(torch.uint8), BINARY)


# -- one line ------------------------------------------------------------------------------------------------


def test_the_line_of_a_set_says_what_is_there():
    one = MaskSet(
        torch.zeros(2, 3, 128, 96, dtype=torch.uint8),
        torch.tensor([[0.5, 0.25, 0.25], [0.9, 0.1, 0.0]]),
        BINARY,
    )
    line = (
        "<MaskSet: 2 images of 128x96, 2 to 3 masks each, weights 0.1 to 0.9, classes background, foreground"
    )
    assert repr(one) == f"{line}>"
    whole = replace(one, scores=one.weights, probabilities=torch.zeros(2, 3, 1, 128, 96))
    assert repr(whole) == f"{line}, scores, pixel probabilities>"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (batch(1, 4), "<MaskSet: 1 image of 4x6, 4 masks, weights 0.25, classes background, foreground>"),
        (batch(1, 1), "<MaskSet: 1 image of 4x6, 1 mask, weight 1, classes background, foreground>"),
        (batch(2, 1)[:0], "<MaskSet: 0 images of 4x6, no masks, classes background, foreground>"),
        (
            MaskSet.uniform(torch.zeros(1, 2, 3, 4, 5, dtype=torch.uint8), LabelSpace.of_classes(19)),
            "<MaskSet: 1 image of 3x4x5, 2 masks, weights 0.5, 19 classes>",
        ),
        (
            MaskSet(torch.zeros(1, 2, 3, 4, dtype=torch.uint8), torch.zeros(1, 2), LabelSpace(("a", "b\nc"))),
            "<MaskSet: 1 image of 3x4, no masks, classes a, b\\nc>",
        ),
    ],
    ids=["uniform", "one", "none", "space", "weightless"],
)
def test_the_line_of_unusual_sets(given, expected):
    assert repr(given) == expected


# -- pictures of masks ---------------------------------------------------------------------------------------


def test_a_picture_has_the_colours_of_the_classes_and_grey_for_void():
    labels = LabelSpace(("sky", "car", "road"), colors=((1, 2, 3), (200, 0, 0), (0, 0, 200)))
    (drawn,) = pictures(thumbnail(np.array([[0, 1], [2, 255]], np.uint8), labels))
    assert drawn.tolist() == [[[1, 2, 3], [200, 0, 0]], [[0, 0, 200], [158, 158, 158]]]


@pytest.mark.parametrize(("height", "width"), [(1000, 500), (3, 2000), (12, 12)])
def test_pictures_are_small_and_keep_the_shape(height, width):
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    page = thumbnail(mask, BINARY)
    shown = [int(value) for value in re.findall(r'(?:width|height)="(\d+)"', page)]
    assert max(shown) == SIDE and shown == [
        max(1, round(n * SIDE / max(height, width))) for n in (width, height)
    ]
    (drawn,) = pictures(page)
    assert max(drawn.shape) <= SIDE
    half = drawn.shape[1] // 2
    assert {tuple(c) for c in drawn[:, :half].reshape(-1, 3)} == {BINARY.colors[0]}
    assert {tuple(c) for c in drawn[:, half:].reshape(-1, 3)} == {BINARY.colors[1]}


def test_a_set_shows_its_masks_with_the_most_probable_first():
    masks = torch.tensor([[[[1, 0]], [[0, 1]], [[1, 1]]]], dtype=torch.uint8)
    given = MaskSet(masks, torch.tensor([[0.25, 0.75, 0.0]]), BINARY, torch.tensor([[0.1, 0.2, 0.3]]))
    page = given._repr_html_()
    assert [(drawn[0] > 0).any(1).tolist() for drawn in pictures(page)] == [[False, True], [True, False]]
    assert words(page) == [repr(given), "0.75, score 0.20", "0.25, score 0.10"]


def test_many_images_and_masks_show_the_first_and_count_the_others():
    page = batch(5, NOTEBOOK_MASKS + 7)._repr_html_()
    assert len(pictures(page)) == NOTEBOOK_IMAGES * NOTEBOOK_MASKS
    assert [word for word in words(page) if "more" in word] == ["+7 more"] * NOTEBOOK_IMAGES
    large = MaskSet.uniform(torch.randint(0, 2, (2, 20, 700, 700), dtype=torch.uint8), BINARY)._repr_html_()
    assert len(large) < 60_000


@pytest.mark.parametrize(
    "given", [batch(2, 2)[:0], MaskSet.uniform(torch.zeros(1, 2, 3, 4, 5).byte(), BINARY)]
)
def test_sets_without_a_picture_show_their_line(given):
    assert words(given._repr_html_()) == [repr(given)] and not pictures(given._repr_html_())


def test_names_of_classes_are_escaped():
    given = MaskSet.uniform(torch.zeros(1, 1, 2, 2).byte(), LabelSpace(("a", "<script>alert(1)</script>")))
    assert "<script>" not in given._repr_html_() and words(given._repr_html_())[0] == repr(given)


# -- figures -------------------------------------------------------------------------------------------------


@pytest.fixture
def pyplot():
    """pyplot without windows."""
    from matplotlib import get_backend, pyplot

    before = get_backend()
    pyplot.switch_backend("agg")
    yield pyplot
    pyplot.close("all")
    pyplot.switch_backend(before)


def captions(figure) -> list[str]:
    return [cell.get_title() for cell in figure.axes if cell.get_title()]


def test_a_plot_shows_the_masks_in_order_with_the_colours_of_the_classes(pyplot):
    masks = torch.tensor([[[[1, 0]], [[0, 1]], [[1, 1]]]], dtype=torch.uint8)
    given = MaskSet(masks, torch.tensor([[0.25, 0.75, 0.0]]), BINARY, torch.tensor([[0.1, 0.2, 0.3]]))
    figure = given.plot()
    assert pyplot.gcf() is figure and captions(figure) == ["0.75, score 0.20", "0.25, score 0.10"]
    background, foreground = BINARY.colors
    drawn = [cell.get_images()[0].get_array().tolist() for cell in figure.axes]
    assert drawn == [[[list(background), list(foreground)]], [[list(foreground), list(background)]]]


def test_a_plot_has_a_line_for_each_image_and_counts_the_others(pyplot):
    figure = batch(3, 5).plot(images=2, masks=4)
    assert captions(figure) == ["0.2"] * 8
    texts = [text.get_text() for cell in figure.axes for text in cell.texts]
    assert sorted(texts) == ["+1 more", "+1 more", "image 0", "image 1"]
    MaskSet(torch.zeros(1, 2, 3, 4, dtype=torch.uint8), torch.zeros(1, 2), BINARY).plot()


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (batch(2, 2)[:0], {}),
        (MaskSet.uniform(torch.zeros(1, 2, 3, 4, 5).byte(), BINARY), {}),
        (batch(1, 1), {"masks": 0}),
    ],
)
def test_what_cannot_be_drawn_is_refused(given, options, pyplot):
    with pytest.raises(AmbisegError, match="plot draws"):
        given.plot(**options)
    assert not pyplot.get_fignums()


def test_a_notebook_shows_a_figure_once(pyplot, monkeypatch):
    """IPython asks for `_ipython_display_` first; inline, pyplot would show the figure again at the end of the cell."""
    figure = batch(1, 1).plot()
    with pytest.raises(NotImplementedError):
        figure._ipython_display_()
    assert pyplot.fignum_exists(figure.number), "a window stays"
    monkeypatch.setattr(pyplot, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    for _ in range(2):
        with pytest.raises(NotImplementedError):
            figure._ipython_display_()
        assert not pyplot.get_fignums()


# -- arrays --------------------------------------------------------------------------------------------------


def test_a_set_is_the_array_of_its_masks():
    given = batch(2, 3)
    array = np.asarray(given)
    assert array.dtype == np.uint8 and array.tolist() == given.masks.tolist()
    assert given.to_numpy().base is not None and np.shares_memory(array, given.masks.numpy())
    assert np.asarray(given, np.float32).dtype == np.float32
    assert not np.shares_memory(np.array(given), given.masks.numpy())
    assert np.stack([np.asarray(one)[0] for one in given]).tolist() == given.masks.tolist()
    with pytest.raises(ValueError, match="copy"):
        np.asarray(given, np.float32, copy=False)


# -- runs and evaluations ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tiny_run):
    return load(tiny_run, precision="32", device="cpu")


def test_a_run_shows_what_it_is(run, tiny_run):
    page = words(run._repr_html_())
    shown = dict(zip(page[::2], page[1::2], strict=True))
    assert shown["method"] == run.config.method and shown["folder"] == str(tiny_run)
    assert shown["data"] == run.config.data and shown["masks per image"] == "6"
    assert re.fullmatch(r"HM IoU\* 0\.\d{4}", shown["validation"])
    assert shown["kept"] == run.fitted.message
    assert repr(run).startswith(f"<Run: {run.config.method}, data ") and len(repr(run).splitlines()) == 1


def test_an_evaluation_shows_its_table(run, fires):
    found = evaluate(run, fires, "test", metrics=["ged", "m_iou"], oracle_draws=1)
    page = words(found._repr_html_())
    assert page[1:6] == ["metric", "better", *found.columns()]
    title = METRICS["ged"].title
    low, high = found.intervals["all"]["ged"]
    row = page[page.index(title) :]
    assert row[:3] == [title, "↓", f"{found.all['ged']:.4f} ({low:.3f} to {high:.3f})"]
    assert f"ged {found.all['ged']:.4f}" in repr(found) and len(repr(found)) < 400


def test_scores_show_a_table_with_a_column_for_each_system():
    random = np.random.default_rng(0)
    annotations = random.integers(0, 2, (3, 2, 5, 5))
    found = score(random.integers(0, 2, (3, 4, 5, 5)), annotations, metrics=["ged", "m_iou"])
    page = words(found._repr_html_())
    (system,) = found.systems
    assert page[1:6] == [
        "predictions: 4 masks per image",
        "metric",
        "better",
        system.name,
        "annotation oracle",
    ]
    low, high = system.intervals["ged"]
    row = page[page.index(METRICS["ged"].title) :]
    assert row[2:4] == [
        f"{system.values['ged']:.4f} ({low:.3f} to {high:.3f})",
        f"{system.figures.oracle['ged']:.4f}",
    ]
