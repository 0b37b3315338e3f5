"""What pictures show: any image becomes RGB in 0..1, and reducing a map changes no probability."""

import math

import numpy as np
import pytest
import torch

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.report.display import (
    LONGEST_SIDE,
    background_of,
    mean_and_entropy,
    palette,
    reduce_masks,
    shown_size,
)

FIRE_CHANNELS = ("moisture", "depth", "elevation", "surface", "load", "wind_speed", "fire")


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.bool_])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 4)])
def test_every_kind_of_image_becomes_rgb(channels, kind, size):
    values = np.random.default_rng(0).normal(100, 400, (channels, *size)).astype(kind)
    rgb = background_of(values)
    assert rgb.shape == (*size, 3)
    assert np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1


def test_rgb_is_kept_whether_in_bytes_or_in_shares():
    shares = np.random.default_rng(0).integers(0, 256, (3, 4, 5)) / 255.0
    expected = np.moveaxis(shares, 0, 2)
    np.testing.assert_allclose(background_of(shares), expected)
    np.testing.assert_allclose(background_of((shares * 255).round().astype(np.uint8)), expected)
    dark = np.ones((3, 2, 2), np.uint8)
    np.testing.assert_allclose(background_of(dark), 1 / 255)


def test_named_channels_decide():
    image = np.zeros((4, 2, 2), np.uint8)
    image[3] = 255
    assert background_of(image, ("nir", "green", "blue", "red"))[0, 0].tolist() == [1, 0, 0]

    image = np.random.default_rng(0).random((7, 8, 8)).astype(np.float32)
    image[6] = 0
    image[6, 2, 3] = 1
    with_fire, relief = background_of(image, FIRE_CHANNELS), background_of(image[:6], FIRE_CHANNELS[:6])
    changed = (np.abs(with_fire - relief).max(2) > 1e-6).nonzero()
    assert (changed[0].tolist(), changed[1].tolist()) == ([2], [3])
    assert with_fire[2, 3, 0] > with_fire[2, 3, 2] + 0.3


def test_relief_is_lit_from_the_north_west():
    y, x = np.mgrid[:21, :21]
    hill = np.exp(-((x - 10) ** 2 + (y - 10) ** 2) / 30.0)[None]
    shade = background_of(hill, ("elevation",))[..., 0]
    assert shade[7, 7] > shade[13, 13] + 0.2


def test_values_that_are_not_numbers_do_not_spread():
    image = np.random.default_rng(0).random((1, 9, 9))
    image[0, 0, 0], image[0, 1, 1] = np.nan, np.inf
    assert np.isfinite(background_of(image)).all()


@pytest.mark.parametrize("shape", [(4, 4), (0, 4, 4), (3, 0, 4), (1, 2, 3, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(AmbisegError, match="C, H, W"):
        background_of(np.zeros(shape))


def test_palette_has_a_colour_for_every_integer():
    labels = LabelSpace.of_classes(255)
    table = palette(labels)
    assert table.shape == (256, 3)
    np.testing.assert_allclose(table[:255] * 255, np.array(labels.colors))


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (1000, 700), (1, 5000), (361, 361)])
def test_reduced_maps_fit_and_keep_their_classes(size):
    masks = torch.randint(0, 5, (2, *size), dtype=torch.uint8)
    small = reduce_masks(masks)
    assert tuple(small.shape[1:]) == shown_size(*size)
    assert max(small.shape[1:]) <= LONGEST_SIDE
    assert set(small.unique().tolist()) <= set(range(5))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("soft", [False, True])
def test_mean_and_entropy_agree_with_the_set(classes, soft):
    torch.manual_seed(0)
    labels = LabelSpace.of_classes(classes)
    weights = torch.tensor([[0.5, 0.0, 0.3, 0.2]])
    if soft:
        probabilities = labels.probabilities(torch.randn(1, 4, labels.channels, 6, 7), dim=2)
        one = MaskSet.from_probabilities(probabilities, labels, weights)
    else:
        one = MaskSet(torch.randint(0, classes, (1, 4, 6, 7), dtype=torch.uint8), weights, labels)
    mean, entropy = mean_and_entropy(one)
    np.testing.assert_allclose(mean, one.mean()[0], atol=1e-6)
    np.testing.assert_allclose(entropy, one.entropy()[0], atol=1e-5)


def test_void_everywhere_is_unknown_and_opposite_masks_disagree_most():
    masks = torch.tensor([[[[0, 1, 255]], [[1, 1, 255]]]], dtype=torch.uint8)
    mean, entropy = mean_and_entropy(MaskSet.uniform(masks, LabelSpace.binary(ignore_value=255)))
    np.testing.assert_allclose(mean[0], [[0.5, 1.0, np.nan]])
    np.testing.assert_allclose(entropy, [[math.log(2), 0.0, np.nan]], atol=1e-9)
