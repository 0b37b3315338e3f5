"""The mask that each format holds is the mask that was written, for any mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools import mask as coco
from scipy import ndimage

from ambiseg.exchange import (
    brush_rle,
    coco_polygons,
    coco_rle,
    mask_rle,
    percent_polygons,
    polygon_points,
    polygons,
)
from exchange_helpers import CORNERS, MASKS, NESTED, RING, SPECIAL, brush_picture, cvat_mask, filled


def coco_rle_reads_back(mask):
    np.testing.assert_array_equal(coco.decode(coco_rle(mask)), mask)
    assert coco.area(coco_rle(mask)) == mask.sum()


def coco_polygons_read_back(mask):
    height, width = mask.shape
    found = coco_polygons(mask)
    assert bool(found) == bool(mask.any()) and all(len(one) >= 8 for one in found)
    if found:
        merged = coco.merge(coco.frPyObjects(found, height, width))
        np.testing.assert_array_equal(coco.decode(merged), mask)


def brush_reads_back(mask):
    np.testing.assert_array_equal(brush_picture(brush_rle(mask), mask.shape), 255 * mask)


def percents_read_back(mask):
    scale = np.array(mask.shape[::-1]) / 100
    outlines = [np.array(points) * scale for points in percent_polygons(mask)]
    np.testing.assert_array_equal(filled(outlines, mask.shape), mask)


def cvat_rle_reads_back(mask):
    if mask.any():
        np.testing.assert_array_equal(cvat_mask(mask_rle(mask), mask.shape), mask)


def cvat_points_read_back(mask):
    texts = polygon_points(mask)
    outlines = [np.array([pair.split(",") for pair in text.split(";")], float) for text in texts]
    np.testing.assert_array_equal(filled(outlines, mask.shape), mask)


LAWS = (
    coco_rle_reads_back,
    coco_polygons_read_back,
    brush_reads_back,
    percents_read_back,
    cvat_rle_reads_back,
    cvat_points_read_back,
)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_special_masks_read_back(law):
    for mask in SPECIAL:
        law(mask)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@given(mask=MASKS)
@settings(max_examples=60, deadline=None)
def test_any_mask_reads_back(law, mask):
    law(mask)


@given(mask=MASKS)
@settings(max_examples=60, deadline=None)
def test_polygons_share_no_pixel_have_no_hole_and_corners_on_pixels(mask):
    parts = [filled([np.array(one)], mask.shape) for one in polygons(mask)]
    total = sum(parts, np.zeros(mask.shape, int))
    np.testing.assert_array_equal(total, mask)
    for part in parts:
        outside, _ = ndimage.label(np.pad(part, 1) == 0, np.ones((3, 3)))
        assert outside.max() == 1 and ndimage.label(part)[1] == 1


def test_a_region_is_cut_above_the_first_row_of_each_hole():
    assert [len(polygons(mask)) for mask in (RING, CORNERS)] == [2, 4]
    upper, lower = polygons(RING)
    assert {y for _, y in upper} == {1, 2} and {y for _, y in lower} == {2, 3, 4}
    np.testing.assert_array_equal(filled(map(np.array, polygons(NESTED)), NESTED.shape), NESTED)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 64, 65, 16384, 16385, 33000])
def test_brush_runs_of_every_length(length):
    """Sizes change at 8, 16, 256 and 65536 values, four to a pixel."""
    mask = np.zeros((1, length + 2), np.uint8)
    mask[0, 1:-1] = 1
    brush_reads_back(mask)


def test_runs_of_a_known_mask():
    mask = np.array([[0, 1, 1], [1, 0, 0]])
    assert coco_rle(mask)["size"] == [2, 3]
    assert (
        coco.frPyObjects({"size": [2, 3], "counts": [1, 2, 1, 1, 1]}, 2, 3)["counts"].decode()
        == (coco_rle(mask)["counts"])
    )  # by columns, zeros first
    assert mask_rle(mask) == {"rle": "1, 3, 2", "left": "0", "top": "0", "width": "3", "height": "2"}
