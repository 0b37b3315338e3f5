"""Bars have the height of the means over images; events that no image has are left out."""

import pytest
import torch

from ambiseg.errors import AmbisegError
from ambiseg.metrics import Ratios
from ambiseg.report.ratios import FEW, draw_ratios


def ratios(images=5, events=3):
    g = torch.Generator().manual_seed(0)
    estimated, true = torch.rand(2, images, events, generator=g, dtype=torch.float64)
    estimated[0, 1] = true[0, 1] = torch.nan
    return Ratios(estimated, true)


def test_bars_are_the_means_and_texts_the_errors():
    given = ratios()
    axes = draw_ratios(given, ["a", "b $x", "c"], "flip").axes[0]
    heights = [bar.get_height() for bar in axes.patches]
    means, truths = given.means()
    assert heights == pytest.approx([*truths.tolist(), *means.tolist()])
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == [f"±{value:.3f}" for value in given.error().tolist()]
    gap = (means - truths).abs().mean()
    assert texts[3] == (
        f"5 images, mean absolute error {given.error().mean():.3f} per image, {gap:.3f} of the means"
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b $x", "c"]
    assert axes.get_ylabel() == "probability of a flip"
    draw_ratios(given, ["a", "b $x", "c"]).canvas.draw()


def test_events_of_no_image_are_left_out():
    given = ratios()
    given.estimated[:, 0] = given.true[:, 0] = torch.nan
    axes = draw_ratios(given, ["a", "b", "c"]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["b", "c"] and len(axes.patches) == 4
    with pytest.raises(AmbisegError, match="nothing to draw"):
        draw_ratios(Ratios(given.estimated[:, :1], given.true[:, :1]))


def test_many_events_have_numbers_and_no_texts():
    axes = draw_ratios(ratios(events=FEW + 1)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(k) for k in range(1, FEW + 2)]
    assert len(axes.texts) == 1


def test_names_must_fit():
    with pytest.raises(AmbisegError, match="2 names do not fit 3 events"):
        draw_ratios(ratios(), ["a", "b"])
