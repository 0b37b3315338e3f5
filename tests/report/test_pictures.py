"""Pictures draw for every kind of mask set, have the size they promise, and say what is in the set."""

import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics.calibration import ASSIGNMENTS, total_variation
from ambiseg.ranking import ROUNDING
from ambiseg.report.modes import (
    ESTIMATED_COLOR,
    MOST_BARS,
    TRUE_COLOR,
    ModeBars,
    draw_mode_bars,
)
from ambiseg.report.pictures import (
    MOST_MASKS,
    draw_case_row,
    draw_curve,
    draw_prediction,
    draw_reliability,
    percent,
    png_bytes,
    save_png,
)
from ambiseg.report.plots import draw_coverage, draw_mode_scatter, draw_pixels


def random_set(classes=2, count=3, size=(12, 9), scores=False, void=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = LabelSpace.of_classes(classes, ignore_value=255 if void and classes < 255 else None)
    masks = torch.randint(0, classes, (1, count, *size), generator=generator).to(torch.uint8)
    if void:
        masks[..., 0] = labels.void
    weights = torch.rand(1, count, generator=generator) + 0.01
    chosen = torch.rand(1, count, generator=generator) if scores else None
    return MaskSet(masks, weights / weights.sum(), labels, chosen)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def pixels(figure: Figure, dpi: float = 50) -> np.ndarray:
    with Image.open(io.BytesIO(png_bytes(figure, dpi))) as picture:
        return np.asarray(picture.convert("RGB"))


CASES = {
    "binary": dict(),
    "scores": dict(scores=True),
    "multi-class": dict(classes=5),
    "void": dict(classes=4, void=True),
    "binary void": dict(void=True),
    "255 classes": dict(classes=255, count=2, void=True),
    "one mask": dict(count=1),
    "forty masks": dict(count=40, scores=True),
    "one pixel": dict(size=(1, 1)),
    "a line": dict(size=(1, 300)),
    "a column": dict(size=(300, 1)),
    "odd": dict(size=(33, 57), classes=3),
}


@pytest.mark.parametrize("name", CASES)
def test_every_set_can_be_drawn(name):
    options = CASES[name]
    predictions, annotations = random_set(**options), random_set(**options | {"scores": False}, seed=1)
    size = predictions.masks.shape[2:]
    image = np.random.default_rng(0).random((1, *size)).astype(np.float32)
    figure = draw_prediction(image, predictions, annotations=annotations, title="a title")
    for drawn in (figure, draw_case_row(image, annotations, predictions)):
        inches = drawn.get_size_inches()
        height, width, _ = pixels(drawn).shape
        assert abs(width - inches[0] * 50) <= 1 and abs(height - inches[1] * 50) <= 1
        assert width < 1000 and height < 2000


@pytest.mark.parametrize("channels", [3, 7])
def test_every_image_can_be_drawn(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 12, 9), dtype=np.uint8)
    one = random_set()
    for figure in (draw_prediction(image, one, ("elevation", "fire")), draw_case_row(image, one, one)):
        assert pixels(figure).size


def test_a_large_image_is_reduced_for_display():
    masks = torch.zeros(1, 2, 1000, 1000, dtype=torch.uint8)
    masks[0, 0, 300:700, 200:900] = 1
    predictions = MaskSet(masks, torch.tensor([[0.6, 0.4]]), LabelSpace.binary())
    image = np.random.default_rng(0).integers(0, 256, (3, 1000, 1000), dtype=np.uint8)
    figure = draw_prediction(image, predictions)
    assert max(max(image.get_array().shape[:2]) for image in figure.axes[0].images) < 500
    assert pixels(figure, 100).shape[1] == 1000


def test_captions_say_probability_score_empty_and_what_is_left_out():
    masks = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    masks[0, 1, 2:5, 2:5] = 1
    masks[0, 2, 1:3, 1:3] = 1
    weights, scores = torch.tensor([[0.25, 0.742, 0.008]]), torch.tensor([[0.1, 0.93, 0.5]])
    one = MaskSet(masks, weights, LabelSpace.binary(), scores)
    found = words(draw_prediction(np.zeros((1, 8, 8)), one))
    captions = [text for text in found if "score" in text]
    assert captions == ["74 %\nscore 0.93", "25 %\nscore 0.10, empty", "0.80 %\nscore 0.50"]

    many = random_set(count=40)
    found = words(draw_prediction(np.zeros((1, 12, 9)), many))
    assert f"+{40 - MOST_MASKS} more" in found
    assert sum(text.endswith("%") for text in found) == MOST_MASKS
    row = words(draw_case_row(np.zeros((1, 12, 9)), random_set(), many, max_masks=5))
    assert "proposals: 5 of 40" in row and "annotations: 3" in row


def test_padding_is_not_drawn():
    padded = MaskSet.stack([random_set(count=2), random_set(count=6)])[0]
    found = words(draw_prediction(np.zeros((1, 12, 9)), padded))
    assert "Predicted masks: 2, most probable first" in found


def test_masks_are_drawn_in_the_colour_of_their_class():
    labels = LabelSpace(("sea", "land"), ((0, 0, 0), (0, 255, 0)))
    masks = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    with_land = masks.clone()
    with_land[..., 4:12, 4:12] = 1
    image = np.full((1, 16, 16), 7.0)

    def green(mask):
        row = draw_case_row(image, MaskSet.uniform(mask, labels), MaskSet.uniform(masks, labels))
        rgb = pixels(row).astype(int)
        return int(((rgb[..., 1] > rgb[..., 0] + 60) & (rgb[..., 1] > rgb[..., 2] + 60)).sum())

    assert green(masks) == 0
    assert green(with_land) > 100


@pytest.mark.parametrize("title", ["$\\frac$ costs", "x" * 400, "line\nbreak", "", "<b>&", "\udc80"])
def test_titles_are_taken_literally(title):
    one = random_set()
    assert pixels(draw_prediction(np.zeros((1, 12, 9)), one, title=title)).size


def test_names_of_classes_are_taken_literally():
    labels = LabelSpace(("rest", "$a_$", "$b^$"))
    one = MaskSet.uniform(torch.tensor([[[[0, 1, 2]]]], dtype=torch.uint8), labels)
    figure = draw_prediction(np.zeros((1, 1, 3)), one)
    assert {"rest", "$a_$", "$b^$"} <= set(words(figure))
    assert pixels(figure).size


def test_what_does_not_fit_is_refused():
    one = random_set()
    with pytest.raises(AmbisegError, match=r"\(12, 9\)"):
        draw_prediction(np.zeros((1, 9, 12)), one)
    with pytest.raises(AmbisegError, match="one image"):
        draw_prediction(np.zeros((1, 12, 9)), MaskSet.stack([one, one]))
    with pytest.raises(AmbisegError, match="one image"):
        draw_case_row(np.zeros((1, 12, 9)), MaskSet.stack([one, one]), one)


def test_percent_of_a_share():
    assert [percent(v) for v in (0, 1, 0.5, 0.0996, 0.0994, 0.01, 0.00994, 1e-5)] == [
        "0 %", "100 %", "50 %", "10 %", "9.9 %", "1.0 %", "0.99 %", "<0.01 %",
    ]  # fmt: skip


def test_files_are_whole_or_absent(tmp_path):
    figure = draw_case_row(np.zeros((1, 12, 9)), random_set(), random_set())
    path = tmp_path / "new" / "row.png"
    save_png(figure, path, dpi=40)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and abs(picture.width - figure.get_size_inches()[0] * 40) <= 1
    assert [p.name for p in path.parent.iterdir()] == ["row.png"]
    assert png_bytes(figure, 40) == path.read_bytes()

    assert len(list(path.parent.iterdir())) == 1
    with pytest.raises(AmbisegError, match="folder"):
        save_png(figure, tmp_path)
    with pytest.raises(AmbisegError, match="cannot be written"):
        save_png(figure, path / "below-a-file.png")


def test_a_palette_makes_files_smaller():
    image = np.random.default_rng(0).random((3, 12, 9))
    figure = draw_case_row(image, random_set(), random_set())
    small = png_bytes(figure, 60, colors=64)
    assert len(small) < len(png_bytes(figure, 60))
    with Image.open(io.BytesIO(small)) as picture:
        assert len(picture.convert("RGB").getcolors(1000)) <= 64


CURVES = {
    "nothing": [],
    "empty rows": [{}, {}],
    "one row": [{"step": 1, "train_loss": 2.0}],
    "gaps": [{"step": i, ("train_loss" if i % 3 else "val_ged"): 1.0 / (i + 1)} for i in range(20)],
    "nan and negative": [{"epoch": i, "train_loss": float(-i) if i > 2 else float("nan")} for i in range(9)],
    "long": [{"step": i, "train_loss": 1e3 / (i + 1), "val_loss": 2.0, "lr": 1e-3} for i in range(300)],
    "many parts": [{"minutes": i, **{f"train_part_{j}": 1.0 + i * j for j in range(12)}} for i in range(5)],
    "text": [{"step": 0, "train_loss": "3.5", "note": "hello"}, {"step": 1, "train_loss": ""}],
    "no position": [{"train_$loss": 1.0}, {"train_$loss": 2.0}],
}


@pytest.mark.parametrize("name", CURVES)
def test_any_curve_can_be_drawn(name):
    assert pixels(draw_curve(CURVES[name]), 40).shape[1] == 400


def test_curve_sorts_losses_from_metrics():
    rows = [{"step": i, "train_loss": 2.0, "val_loss": 1.0, "val_hm_iou": 0.5, "lr": 0.1} for i in range(3)]
    left, right, rate = draw_curve(rows).axes

    def named(axes):
        return [line.get_label() for line in axes.lines]

    assert named(left) == ["loss", "validation loss"] and named(right) == ["HM IoU"]
    np.testing.assert_allclose(rate.lines[0].get_ydata(), 0.1)


def test_reliability_of_honest_probabilities_lies_on_the_diagonal():
    values = np.geomspace(1e-3, 1, 500)
    figure = draw_reliability(values.reshape(50, 10), values.reshape(50, 10))
    curve = next(line for line in figure.axes[0].lines if line.get_label() == "mean of a bin")
    np.testing.assert_allclose(curve.get_xdata(), curve.get_ydata())
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 500
    assert pixels(figure).size


@pytest.mark.parametrize("pairs", [([], []), ([0.0], [1.0]), ([1.0], [0.0]), ([np.nan, 0.2], [0.1, 0.2])])
def test_reliability_of_few_pairs(pairs):
    assert pixels(draw_reliability(*pairs)).size


def test_reliability_counts_wrong_and_missing_masks():
    found = " ".join(words(draw_reliability([0.5, 0.5, 0.0, 0.1], [0.5, 0.0, 0.4, 0.0])))
    assert "2 masks are wrong" in found and "1 are missing" in found
    with pytest.raises(AmbisegError, match="2 estimated but 1 true"):
        draw_reliability([0.1, 0.2], [0.3])


def dots_and_medians(figure):
    axes = figure.axes[0]
    medians = next(line for line in axes.lines if line.get_label() == "median of a bin")
    return np.asarray(axes.collections[0].get_offsets()), medians.get_xydata(), axes


def test_the_scatter_of_a_perfect_prediction_lies_on_the_diagonal():
    true = np.repeat(np.array([1, 2, 4, 8, 16, 32, 64, 128]) / 255, 9)
    dots, medians, axes = dots_and_medians(draw_mode_scatter(true.reshape(8, 9), true.reshape(8, 9)))
    np.testing.assert_allclose(dots[:, 0], dots[:, 1])
    np.testing.assert_allclose(sorted(dots[:, 0]), true)
    np.testing.assert_allclose(medians[:, 0], medians[:, 1])
    np.testing.assert_allclose(medians[:, 0], np.unique(true))
    line = next(line for line in axes.lines if line.get_label() == "estimate = truth").get_xydata()
    np.testing.assert_allclose(line[:, 0], line[:, 1])
    assert "72 modes, 0 with an estimate below 0.001" in words(axes.figure)


def test_a_single_mode_among_many_has_no_median():
    true = np.array([0.5] * 99 + [0.25] * 50 + [0.01])
    _, medians, _ = dots_and_medians(draw_mode_scatter(true / 2, true))
    np.testing.assert_allclose(medians, [[0.25, 0.125], [0.5, 0.25]])


def test_the_scatter_shows_modes_only_and_marks_those_that_are_missing():
    figure = draw_mode_scatter([0.5, 0.0, 0.2, 0.3, np.nan], [0.5, 0.4, 0.1, 0.0, 0.3])
    dots, _, axes = dots_and_medians(figure)
    np.testing.assert_allclose(dots[:, 0], [0.5, 0.4, 0.1])
    np.testing.assert_allclose(dots[[0, 2], 1], [0.5, 0.2])
    floor = dots[1, 1]
    assert axes.get_ylim()[0] < floor < 0.03
    names = dict(zip(axes.get_yticks(), axes.yaxis.get_major_formatter().seq, strict=True))
    assert names[floor] == "<0.03"
    assert words(figure) == ["3 modes, 1 with an estimate below 0.03"]
    with pytest.raises(AmbisegError, match="2 estimated but 1 true"):
        draw_mode_scatter([0.1, 0.2], [0.3])


@pytest.mark.parametrize("pairs", [([], []), ([0.0], [1.0]), ([1.0], [1.0]), ([0.3], [0.0]), ([1.0], [1e-9])])
def test_scatter_of_few_modes(pairs):
    assert pixels(draw_mode_scatter(*pairs)).size


def test_a_crowd_of_modes_is_counted_in_cells():
    rng = np.random.default_rng(0)
    true = 10 ** rng.uniform(-2.5, 0, 5000)
    estimated = np.clip(true * rng.lognormal(0, 0.5, 5000) * (rng.random(5000) > 0.1), 0, 1)
    figure = draw_mode_scatter(estimated, true)
    counts = figure.axes[0].collections[0].get_array()
    assert counts.sum() == 5000
    assert counts[0].sum() == (estimated < 0.001).sum() > 400
    assert pixels(figure).size
    medians = dots_and_medians(draw_mode_scatter(true, true))[1]
    np.testing.assert_allclose(medians[:, 0], medians[:, 1])


def lengths(figure, color):
    """Lengths of the bars of one colour, the one in the key left out."""
    found = [
        bar for bar in figure.axes[0].patches if bar.get_fill() and bar.get_facecolor() == to_rgba(color)
    ]
    return np.array([bar.get_width() for bar in found[1:]])


@pytest.mark.parametrize("assignment", ASSIGNMENTS)
@pytest.mark.parametrize("count", [2, 9, 32, 40])
def test_bars_sum_to_one_and_are_as_long_as_they_say(assignment, count):
    truth, guess = random_set(count=count, size=(8, 8)), random_set(count=5, size=(8, 8), seed=1)
    bars = ModeBars.of(guess, truth, assignment)
    assert (np.diff(bars.true) <= ROUNDING).all()
    assert bars.estimated.sum() + bars.unassigned == pytest.approx(1, abs=1e-6)
    _, true, estimated = zip(*bars.rows(), strict=True)
    assert sum(true) == pytest.approx(1, abs=1e-6) and sum(estimated) == pytest.approx(1, abs=1e-6)
    assert len(true) == min(count, MOST_BARS) + (count > MOST_BARS) + (bars.unassigned > 1e-4)
    figure = draw_mode_bars(np.zeros((1, 8, 8)), truth, guess, assignment=assignment)
    for color, values in ((TRUE_COLOR, true), (ESTIMATED_COLOR, estimated)):
        drawn = lengths(figure, color)
        np.testing.assert_allclose(drawn / drawn.sum(), values, atol=1e-6)
    inches = figure.get_size_inches()
    assert pixels(figure).shape[1] == pytest.approx(inches[0] * 50, abs=1) and inches[1] < 5


def test_bars_of_a_perfect_prediction_are_equal_in_any_order():
    truth = random_set(count=6, classes=4)
    shuffled = truth.gather(torch.tensor([[3, 1, 5, 0, 2, 4]]))
    for assignment in ASSIGNMENTS:
        bars = ModeBars.of(shuffled, truth, assignment)
        np.testing.assert_allclose(bars.estimated, bars.true, atol=1e-6)
        assert bars.unassigned == pytest.approx(0, abs=1e-6)
    assert not {"on no\nmode"} & set(words(draw_mode_bars(np.zeros((1, 12, 9)), truth, shuffled)))


def test_bars_agree_with_the_total_variation_of_the_table():
    truth, guess = random_set(count=7), random_set(count=11, seed=3)
    for assignment in ASSIGNMENTS:
        bars = ModeBars.of(guess, truth, assignment)
        distance = (np.abs(bars.estimated - bars.true).sum() + bars.unassigned) / 2
        assert distance == pytest.approx(float(total_variation(guess, truth, assignment)), abs=1e-6)


def test_probability_on_no_mode_has_a_bar_of_its_own():
    truth, guess = random_set(count=2), random_set(count=4, seed=5)
    bars = ModeBars.of(guess, truth, "matched")
    assert bars.unassigned > 0.1 and bars.rows()[-1] == ("on no\nmode", 0.0, bars.unassigned)
    assert "on no\nmode" in words(draw_mode_bars(np.zeros((1, 12, 9)), truth, guess, assignment="matched"))
    assert ModeBars.of(guess, truth).unassigned == pytest.approx(0, abs=1e-6)


def test_pixels_and_coverage_show_what_they_are_given():
    figure = draw_pixels([0.05, np.nan, 0.95], [0.1, np.nan, 0.9], [70, 0, 30])
    line = figure.axes[0].lines[1]
    assert line.get_xdata().tolist() == [0.05, 0.95] and line.get_ydata().tolist() == [0.1, 0.9]
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0.7, 0.0, 0.3]
    line = draw_coverage([0.2, 0.5, 0.5]).axes[0].lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3] and line.get_ydata().tolist() == [0.2, 0.5, 0.5]


def placed(figure, picture_width):
    """Corners of the pictures of that width in inches, as columns and lines of a grid."""
    found = [image.get_extent() for image in figure.axes[0].images]
    left = sorted({round(x0, 3) for x0, x1, *_ in found if abs(x1 - x0 - picture_width) < 1e-6})
    top = sorted({round(y1, 3) for x0, x1, _, y1 in found if abs(x1 - x0 - picture_width) < 1e-6})
    return len(left), len(top)


@pytest.mark.parametrize(("count", "columns", "lines"), [(8, 8, 1), (10, 10, 1), (11, 8, 2), (16, 8, 2)])
def test_a_strip_shows_all_masks_of_ten_or_sixteen_raters(count, columns, lines):
    masks = torch.arange(count * 64).view(1, count, 8, 8).bitwise_right_shift(2).remainder(2).to(torch.uint8)
    figure = draw_case_row(np.zeros((1, 8, 8)), MaskSet.uniform(masks, LabelSpace.binary()), None)
    assert f"annotations: {count}" in words(figure)
    assert placed(figure, 8 * 1.06 / columns - 0.08) == (columns, lines)
    assert figure.get_size_inches()[0] == pytest.approx(0.05 + 1.2 + 0.2 + 8 * 1.06)


def test_the_curve_of_a_short_run_has_plain_axes():
    """Two steps whose validations differ by rounding: whole steps from 0 on, and no slope from nothing."""
    rows = [
        {"step": 0.0, "val_ged": 1.3171680},
        {"step": 1.0, "lr": 1e-4, "train_loss": 2.3, "val_ged": 1.3171682},
    ]
    figure = draw_curve(rows)
    figure.canvas.draw()
    left, right, _ = figure.axes
    for axes in figure.axes:
        assert not axes.xaxis.get_offset_text().get_text() and not axes.yaxis.get_offset_text().get_text()
    assert left.get_xlim() == right.get_xlim() == pytest.approx((-0.02, 1.02))
    assert all(tick.is_integer() for tick in right.get_xticks())
    low, high = right.get_ylim()
    assert high - low == pytest.approx(0.01 * 1.317, rel=0.02)
    assert left.lines[0].get_marker() == "o", "a single value is a dot"
