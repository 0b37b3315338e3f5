"""`ambiseg.plot` hands its figure to pyplot, at the size that it was drawn for."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot

import ambiseg
from ambiseg.notebook import shown
from ambiseg.report.pictures import draw_prediction


@pytest.fixture(autouse=True)
def no_windows():
    before = matplotlib.get_backend()
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")
    pyplot.switch_backend(before)


@pytest.fixture
def masks():
    drawn = torch.tensor([[[[1, 0], [0, 0]], [[1, 1], [0, 0]]]], dtype=torch.uint8)
    return ambiseg.MaskSet(drawn, torch.tensor([[0.75, 0.25]]), ambiseg.LabelSpace.binary())


def words(figure):
    return {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (3, 2, 2)])
def test_a_figure_of_pyplot_for_images_with_and_without_channels(masks, shape):
    figure = ambiseg.plot(np.zeros(shape), masks, masks, title="a scan", heading="Readers")
    assert pyplot.gcf() is figure and len(pyplot.get_fignums()) == 1
    assert {"a scan", "75 %", "25 %", "Readers: 2, most probable first"} <= words(figure)


def test_an_image_from_a_file(masks, tmp_path):
    np.save(tmp_path / "scan.npy", np.zeros((1, 2, 2)))
    assert "75 %" in words(ambiseg.plot(tmp_path / "scan.npy", masks))


def test_pyplot_keeps_the_size_of_the_figure(masks):
    drawn = draw_prediction(np.zeros((1, 2, 2)), masks)
    size = tuple(drawn.get_size_inches())
    assert shown(drawn) is drawn and tuple(drawn.get_size_inches()) == size
    drawn.canvas.draw()


def test_masks_of_another_size_are_refused(masks):
    with pytest.raises(ambiseg.AmbisegError, match="do not fit"):
        ambiseg.plot(np.zeros((3, 3)), masks)
    assert not pyplot.get_fignums()
