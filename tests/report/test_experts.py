"""Every expert of a mixture has a row of its own samples, with the probability of its kind, in pictures and
in the report."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.cli.report import SAMPLES_OF_EXPERTS, expert_samples
from ambiseg.data.batches import Normalization
from ambiseg.data.sample import Sample
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS
from ambiseg.methods.mose.model import MoSE
from ambiseg.networks.settings import UNetSettings
from ambiseg.report.experts import MOST_COLUMNS, MOST_ROWS, draw_experts
from ambiseg.report.page import Case, CaseGroup, ReportContent, write_report
from ambiseg.report.pictures import png_bytes

GREEN = LabelSpace(("sea", "land"), ((0, 0, 0), (0, 255, 0)))


def pixels(figure, dpi=50):
    with Image.open(io.BytesIO(png_bytes(figure, dpi))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def words(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def samples_of(experts=3, each=4, size=(16, 16), labels=GREEN):
    """Probabilities 0.1, 0.2, ... of the experts up to their sum, samples alike, all masks empty."""
    pi = torch.arange(1, experts + 1) / torch.arange(1, experts + 1).sum()
    masks = torch.zeros(1, experts * each, *size, dtype=torch.uint8)
    return MaskSet(masks, (pi / each).repeat_interleave(each)[None], labels)


def test_samples_stand_in_the_row_of_their_expert():
    """Only the third sample of expert 2 of 3 is land: green appears once, in the middle row."""
    found = samples_of()
    found.masks[0, 4 + 2] = 1
    figure = draw_experts(np.full((1, 16, 16), 7.0), found, 3)
    rgb = pixels(figure)
    rows, columns = np.nonzero((rgb[..., 1] > rgb[..., 0] + 60) & (rgb[..., 1] > rgb[..., 2] + 60))
    assert len(rows) > 100
    height, step = rgb.shape[0], 50 * 1.06
    assert 50 * 0.2 + step <= rows.min() and rows.max() <= 50 * 0.2 + 2 * step < height
    assert columns.min() >= 50 * 3.0 + 2 * step - 1 and columns.max() <= 50 * 3.0 + 3 * step
    assert {"expert 1\n17 %", "expert 2\n33 %", "expert 3\n50 %", "experts: 3"} <= set(words(figure))


def test_annotations_stand_above_with_their_weights():
    annotations = MaskSet(
        torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.tensor([[0.2, 0.8, 0.0]]), GREEN
    )
    found = words(draw_experts(np.zeros((3, 16, 16)), samples_of(), 3, annotations))
    assert "annotations: 2" in found and found.index("80 %") < found.index("20 %")


@pytest.mark.parametrize("labels", [GREEN, LabelSpace.of_classes(5)], ids=["binary", "multi-class"])
@pytest.mark.parametrize("size", [(12, 9), (1, 1), (1, 300), (500, 20)])
def test_every_mixture_can_be_drawn(labels, size):
    g = torch.Generator().manual_seed(0)
    drawn = torch.rand(1, 6, labels.channels, *size, generator=g)
    found = MaskSet.from_probabilities(drawn, labels, samples_of(2, 3).weights)
    figure = draw_experts(np.random.default_rng(0).random((4, *size)), found, 2, found.top(2))
    height, width, _ = pixels(figure).shape
    inches = figure.get_size_inches()
    assert abs(width - inches[0] * 50) <= 1 and abs(height - inches[1] * 50) <= 1


def test_of_many_experts_the_most_probable_are_drawn():
    experts, each = MOST_ROWS + 3, MOST_COLUMNS + 2
    figure = draw_experts(np.zeros((1, 4, 4)), samples_of(experts, each, (4, 4)), experts)
    names = [word.split("\n")[0] for word in words(figure) if word.startswith("expert ")]
    assert names == [f"expert {k}" for k in range(4, experts + 1)]
    assert f"experts: {MOST_ROWS} of {experts}" in words(figure)
    assert len(figure.axes[0].images) == 3 + MOST_ROWS * MOST_COLUMNS  # image, entropy, colour bar


@pytest.mark.parametrize("experts", [0, 5, 24])
def test_a_number_of_masks_that_does_not_fit_is_refused(experts):
    with pytest.raises(AmbisegError, match=f"12 masks are not equally many of {experts} experts"):
        draw_experts(np.zeros((1, 16, 16)), samples_of(), experts)


# -- from a run to the page ----------------------------------------------------------------------------------


def run_of(method, **settings):
    """A tiny model that no one trained; the means of its experts are far apart and their samples alike."""
    chosen = METHODS[method].settings(**settings)
    config = RunConfig(
        method,
        1,
        GREEN,
        Normalization((0.0,), (1.0,)),
        UNetSettings(width=8, depth=2),
        chosen,
        TrainSettings(),
    )
    torch.manual_seed(0)
    model = config.build()
    if isinstance(model, MoSE):
        model.m.data *= 20
        model.log_sigma.data.fill_(-20)
    return Run(config, model, Hardware.choose("32", device="cpu"))


@pytest.fixture
def scene():
    image = np.random.default_rng(0).random((1, 16, 16))
    return Sample("a", image, np.zeros((1, 16, 16), np.uint8), np.ones(1), ("r",))


@pytest.mark.parametrize("representation", ["compact", "standard"])
def test_samples_of_a_run_come_expert_by_expert(scene, representation):
    """With almost no variance the samples of an expert are one mask, with its share of pi; the run itself
    stays as it is."""
    run = run_of("mose", experts=4, representation=representation)
    found, count = expert_samples(run, scene, torch.Generator().manual_seed(0))
    assert count == 4 and found.masks.shape[1] == SAMPLES_OF_EXPERTS
    blocks = found.probabilities[0].unflatten(0, (4, -1))
    torch.testing.assert_close(blocks, blocks[:, :1].expand_as(blocks), rtol=0, atol=1e-4)
    assert len(torch.unique(blocks[:, 0].flatten(1).mean(1))) == 4
    pi = run.model.expert_probabilities(torch.from_numpy(scene.image).float()[None])
    torch.testing.assert_close(found.weights.view(1, 4, -1).sum(2), pi)
    assert run.model.settings.representation == representation


def test_how_many_samples_there_are(scene):
    for settings, each in ({"experts": 2}, 6), ({"experts": 35, "cap": 1.0}, 1), ({"stochastic": False}, 1):
        found, count = expert_samples(run_of("mose", **settings), scene, torch.Generator())
        assert found.masks.shape[1] == each * count
    assert expert_samples(run_of("m-heads"), scene, torch.Generator()) is None


def test_the_page_shows_them_for_cases_that_have_them(tmp_path):
    image, found = np.zeros((1, 16, 16)), samples_of()
    cases = [
        Case("with", 0.5, image, found.top(2), found, (found, 3)),
        Case("without", 0.5, image, found, found),
    ]
    write_report(ReportContent("Mixture", groups=[CaseGroup("All", cases)]), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("Samples of every expert of the mixture for with") == 1
    assert "mixture for without" not in page and page.count("shows the experts of the mixture") == 1
    write_report(ReportContent("None", groups=[CaseGroup("All", cases[1:])]), tmp_path / "page.html")
    assert "mixture" not in (tmp_path / "page.html").read_text()
