"""Overlays: a file of the image's size for each mask, with tint, outline and halo where they belong."""

import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.report.display import VOID_COLOR
from ambiseg.report.overlays import FILL, HALO, VOID_FILL, draw_overlays, overlay

BINARY = LabelSpace.binary()
COLOR = np.array(BINARY.colors[1]) / 255


def square(size: int = 20, inside: slice = slice(5, 15)) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[inside, inside] = 1
    return mask


def test_inside_is_tinted_the_border_is_plain_and_a_dark_line_is_around():
    drawn = overlay(np.full((20, 20, 3), 0.8), square(), BINARY) / 255
    expected = np.full((20, 20, 3), 0.8)
    expected[4:16, 4:16] = 0.8 * (1 - HALO)
    expected[5:15, 5:15] = COLOR
    expected[6:14, 6:14] = 0.8 * (1 - FILL) + COLOR * FILL
    np.testing.assert_allclose(drawn, expected, atol=1 / 255)


def test_outlines_grow_with_the_image():
    drawn = overlay(np.zeros((960, 960, 3)), square(960, slice(300, 600)), BINARY)
    plain = (drawn == np.array(BINARY.colors[1])).all(2)
    assert plain[450, 300:303].all() and not plain[450, 303] and not plain[450, 299]


def test_a_mask_of_the_whole_image_has_no_border():
    drawn = overlay(np.zeros((6, 6, 3)), np.ones((6, 6), np.uint8), BINARY)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1


def test_the_empty_mask_leaves_the_image_as_it_is():
    base = np.random.default_rng(0).integers(0, 256, (7, 9, 3))
    np.testing.assert_array_equal(overlay(base / 255, np.zeros((7, 9), np.uint8), BINARY), base)


def test_void_is_grey_and_classes_that_touch_have_their_own_borders():
    labels = LabelSpace(("sky", "road", "car"), ignore_value=255)
    mask = np.zeros((9, 30), np.uint8)
    mask[:, 5:15], mask[:, 15:25], mask[:, 28:] = 1, 2, 255
    drawn = overlay(np.zeros((9, 30, 3)), mask, labels) / 255
    colors = np.array(labels.colors) / 255
    np.testing.assert_allclose(drawn[4, [5, 14, 15, 24]], colors[[1, 1, 2, 2]], atol=1 / 255)
    np.testing.assert_allclose(drawn[4, [8, 20]], FILL * colors[[1, 2]], atol=1 / 255)
    np.testing.assert_allclose(drawn[4, 29], VOID_FILL * np.array(VOID_COLOR), atol=1 / 255)


def test_a_background_that_is_none_is_drawn_too():
    labels = LabelSpace(("left", "right"), background=None)
    mask = np.repeat([[0] * 10 + [1] * 10], 4, 0).astype(np.uint8)
    drawn = overlay(np.zeros((4, 20, 3)), mask, labels) / 255
    np.testing.assert_allclose(drawn[0, [9, 10]], np.array(labels.colors) / 255, atol=1 / 255)


def test_files_have_the_size_and_the_colours_of_the_image(tmp_path):
    image = np.zeros((3, 40, 60), np.uint8)
    image[0] = 200
    masks = torch.zeros(1, 2, 40, 60, dtype=torch.uint8)
    masks[0, 1, :, :30] = 1
    paths = [tmp_path / "1.jpg", tmp_path / "2.jpg"]
    draw_overlays(image, MaskSet.uniform(masks, BINARY), paths)
    empty, half = (np.asarray(Image.open(path)).astype(int) for path in paths)
    assert empty.shape == half.shape == (40, 60, 3)
    assert np.abs(empty - [200, 0, 0]).max() < 4 and np.abs(half[:, 45:] - [200, 0, 0]).max() < 8
    assert (
        np.abs(
            half[:, 10] - overlay(np.moveaxis(image / 255, 0, 2), masks[0, 1].numpy(), BINARY)[:, 10]
        ).max()
        < 8
    )


def test_masks_of_another_size_are_refused(tmp_path):
    masks = MaskSet.uniform(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), BINARY)
    with pytest.raises(AmbisegError, match="do not fit"):
        draw_overlays(np.zeros((1, 5, 5)), masks, [tmp_path / "1.jpg"])
