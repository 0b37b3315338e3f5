"""The grid of a latent space shows each mask in its place, for every kind of image and label space."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.report.latent import draw_latent_grid
from ambiseg.report.pictures import png_bytes, save_png

DPI = 50


def pixels(figure) -> np.ndarray:
    with Image.open(io.BytesIO(png_bytes(figure, DPI))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "labels", [LabelSpace.binary(), LabelSpace.of_classes(5)], ids=["binary", "multi-class"]
)
@pytest.mark.parametrize("size", [(12, 9), (1, 1), (1, 300), (500, 20)])
def test_every_grid_can_be_drawn(labels, size, tmp_path):
    grid = torch.rand(2, 3, labels.channels, *size)
    figure = draw_latent_grid(np.random.default_rng(0).random((4, *size)), grid, labels)
    height, width, _ = pixels(figure).shape
    inches = figure.get_size_inches()
    assert abs(width - inches[0] * DPI) <= 1 and abs(height - inches[1] * DPI) <= 1
    save_png(figure, tmp_path / "latent.png")
    assert (tmp_path / "latent.png").stat().st_size > 0


def test_masks_stand_in_their_row_and_column():
    """Only the mask at row 0, column 2 is not empty: green appears in the upper right third alone."""
    labels = LabelSpace(("sea", "land"), ((0, 0, 0), (0, 255, 0)))
    grid = torch.zeros(3, 3, 1, 16, 16)
    grid[0, 2] = 1
    figure = draw_latent_grid(np.full((1, 16, 16), 7.0), grid, labels, radius=1.5, axes=(4, 2))
    rgb = pixels(figure)
    rows, columns = np.nonzero((rgb[..., 1] > rgb[..., 0] + 60) & (rgb[..., 1] > rgb[..., 2] + 60))
    assert len(rows) > 100
    assert rows.max() < rgb.shape[0] * 0.45 and columns.min() > rgb.shape[1] * 0.75
    assert "latent 4 down, 2 right, ±1.5 σ" in {text.get_text() for text in figure.axes[0].texts}


@pytest.mark.parametrize("shape", [(3, 3, 2, 8, 8), (3, 3, 1, 8, 9), (1, 3, 3, 1, 8, 8), (0, 3, 1, 8, 8)])
def test_a_grid_that_does_not_fit_is_refused(shape):
    with pytest.raises(AmbisegError, match=r"\(R, S, 1, 8, 8\), received"):
        draw_latent_grid(np.zeros((3, 8, 8)), torch.zeros(shape), LabelSpace.binary())
