"""A mask means what a viewer shows, or its class numbers; where neither is sure it is refused."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import read_label_map, read_mask
from ambiseg.data.info import DatasetInfo
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

SHAPE = np.zeros((20, 24), np.uint8)
SHAPE[5:9, 6:12] = 1
WHITE, BLACK, RED, GREEN, BLUE = (255,) * 3, (0,) * 3, (255, 0, 0), (0, 255, 0), (0, 0, 255)
THREE = MaskRules.of(LabelSpace.of_classes(3))
COLOURED = MaskRules.of(LabelSpace(("rest", "cup", "disc"), (BLUE, RED, GREEN)))


def palette_image(indices, *colors):
    picture = Image.fromarray(np.asarray(indices, np.uint8)).convert("L").convert("P")
    picture.putdata(np.asarray(indices).ravel().tolist())
    picture.putpalette([part for color in colors for part in color])
    return picture


def adaptive(colors=2):
    return (
        Image.fromarray(SHAPE * 255)
        .convert("RGB")
        .convert("P", palette=Image.Palette.ADAPTIVE, colors=colors)
    )


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    "picture",
    [
        adaptive(),
        palette_image(1 - SHAPE, WHITE, BLACK),
        palette_image(1 - SHAPE, RED, BLACK),
        palette_image(SHAPE, BLACK, RED),
        Image.fromarray(SHAPE * 255).convert("P"),
        Image.fromarray(SHAPE * 255).convert("1"),
        Image.fromarray(SHAPE * 255).convert("RGB"),
        Image.fromarray(SHAPE * 255).convert("RGBA"),
        Image.fromarray(SHAPE * 255).convert("LA"),
        Image.fromarray(SHAPE).convert("RGB"),
        Image.fromarray(SHAPE),
        Image.fromarray(SHAPE.astype(np.uint16) * 65535),
        Image.fromarray(SHAPE.astype(np.uint16)),
    ],
    ids=lambda picture: picture.mode,
)
def test_two_classes_are_the_shape_that_a_viewer_shows(tmp_path, picture, suffix):
    picture.save(tmp_path / f"a.{suffix}")
    for rules in (MaskRules(), MaskRules.of(LabelSpace.binary())):
        np.testing.assert_array_equal(read_mask(tmp_path / f"a.{suffix}", rules), SHAPE)


def test_tiff_where_zero_is_white_and_inks(tmp_path):
    for kind in (None, "tiff_lzw", "tiff_adobe_deflate"):
        for values in (SHAPE * 255, SHAPE > 0):
            Image.fromarray(values).save(tmp_path / "a.tif", compression=kind, tiffinfo={262: 0})
            np.testing.assert_array_equal(read_mask(tmp_path / "a.tif"), SHAPE)
        Image.fromarray(SHAPE * 255).convert("RGB").convert("CMYK").save(tmp_path / "b.tif", compression=kind)
        np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), SHAPE)
    tifffile.imwrite(tmp_path / "c.tif", (1 - SHAPE) * np.uint16(65535), photometric="miniswhite")
    np.testing.assert_array_equal(read_mask(tmp_path / "c.tif"), SHAPE)


def test_indices_of_a_colour_table_are_the_classes_and_said_to_be(tmp_path):
    indices = SHAPE * 2
    palette_image(indices, BLACK, RED, GREEN, BLUE).save(tmp_path / "a.png")
    found = read_label_map(tmp_path / "a.png", THREE)
    np.testing.assert_array_equal(found.mask, indices)
    assert found.colors == {0: BLACK, 2: GREEN}
    Image.fromarray(SHAPE).save(tmp_path / "b.png")
    assert read_label_map(tmp_path / "b.png", THREE).colors is None


@pytest.mark.parametrize(
    ("colors", "rules", "words"),
    [
        ((WHITE, RED, BLACK), MaskRules(), "index 0 of its palette is .255, 255, 255., not black"),
        ((WHITE, RED), MaskRules(), "do not tell the background"),
        ((BLACK, RED), THREE, "two colours.*3 classes"),
        ((BLACK, GREEN, WHITE), COLOURED, "index 1.*which dataset.yaml gives to class 2"),
    ],
)
def test_palettes_that_do_not_tell_the_class_are_refused(tmp_path, colors, rules, words):
    palette_image(SHAPE, *colors).save(tmp_path / "a.png")
    with pytest.raises(AmbisegError, match=f"a.png: .*{words}.*color in dataset.yaml"):
        read_mask(tmp_path / "a.png", rules)


def test_colours_of_the_classes_count_in_palettes_and_in_full_colour(tmp_path):
    colors = np.array([BLUE, RED, GREEN], np.uint8)
    classes = SHAPE.copy()
    classes[0] = 2
    Image.fromarray(colors[classes]).save(tmp_path / "rgb.png")
    Image.fromarray(colors[classes]).save(tmp_path / "rgb.tif")
    palette_image(2 - classes, GREEN, RED, BLUE).save(tmp_path / "p.png")
    for name in ("rgb.png", "rgb.tif", "p.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, COLOURED), classes)
    with pytest.raises(AmbisegError, match="no class has the colour"):
        read_mask(tmp_path / "rgb.png", THREE)


def test_grey_levels_that_are_the_colours_of_classes(tmp_path):
    rules = MaskRules.of(LabelSpace(("a", "b", "c"), (BLACK, (85,) * 3, (170,) * 3)))
    Image.fromarray(SHAPE * 170).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", rules), SHAPE * 2)
    Image.fromarray(SHAPE * 2).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", rules), SHAPE * 2)
    swapped = MaskRules.of(LabelSpace(("a", "b"), (WHITE, BLACK)))
    Image.fromarray(SHAPE * 255).save(tmp_path / "c.png")
    with pytest.raises(AmbisegError, match="gives black to class 1 and white to class 0"):
        read_mask(tmp_path / "c.png", swapped)


def test_transparent_masks_are_refused(tmp_path):
    grey = Image.fromarray(SHAPE * 255)
    alpha = grey.copy()
    for mode in ("LA", "RGBA"):
        picture = grey.convert(mode)
        picture.putalpha(alpha)
        picture.save(tmp_path / f"{mode}.png")
        picture.save(tmp_path / f"{mode}.tif")
    grey.save(tmp_path / "l.png", transparency=0)
    grey.convert("RGB").save(tmp_path / "rgb.png", transparency=(255, 255, 255))
    palette_image(SHAPE, BLACK, RED).save(tmp_path / "p.png", transparency=0)
    palette_image(SHAPE, BLACK, RED).save(tmp_path / "q.png", transparency=bytes([255, 100]))
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 8
    for name in names:
        with pytest.raises(AmbisegError, match=f"{name}: .*transparent.*without transparency"):
            read_mask(tmp_path / name)
    palette_image(SHAPE, BLACK, RED, GREEN).save(tmp_path / "s.png", transparency=2)
    np.testing.assert_array_equal(read_mask(tmp_path / "s.png"), SHAPE)


def test_white_is_one_of_two_classes_only(tmp_path):
    Image.fromarray(SHAPE * 255).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", THREE).max() == 255
    with pytest.raises(AmbisegError, match="values from 0 to 65535"):
        Image.fromarray(SHAPE.astype(np.uint16) * 65535).save(tmp_path / "b.png")
        read_mask(tmp_path / "b.png", THREE)


def test_numbers_near_integers_and_axes_of_length_one(tmp_path):
    np.save(tmp_path / "a.npy", SHAPE[..., None] * 2.0005)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.npy"), SHAPE * 2)
    np.save(tmp_path / "b.npy", SHAPE[None, ..., None])
    np.testing.assert_array_equal(read_mask(tmp_path / "b.npy"), SHAPE)
    np.save(tmp_path / "c.npy", SHAPE * 2.002)
    with pytest.raises(AmbisegError, match="fractions"):
        read_mask(tmp_path / "c.npy")


def test_threshold_cuts_smoothed_borders_and_leaves_class_numbers(tmp_path):
    rules = MaskRules.of(LabelSpace.binary(ignore_value=200), 127)
    grey = SHAPE * 255
    grey[4, 6:12], grey[9, 6:12], grey[0, 0] = 100, 150, 200
    Image.fromarray(grey).save(tmp_path / "a.png")
    expected = SHAPE.copy()
    expected[9, 6:12], expected[0, 0] = 1, 200
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", rules), expected)
    Image.fromarray(SHAPE).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png", rules), SHAPE)


def test_no_data_of_a_mask_must_be_what_is_ignored(tmp_path):
    tag = [(42113, "s", 0, "255", True)]
    tifffile.imwrite(tmp_path / "a.tif", SHAPE * 255, extratags=tag)
    with pytest.raises(AmbisegError, match="255, which it declares to be no data: add 'ignore_value: 255'"):
        read_mask(tmp_path / "a.tif")
    assert read_mask(tmp_path / "a.tif", MaskRules(2, 255)).max() == 255
    tifffile.imwrite(tmp_path / "b.tif", SHAPE * 255, extratags=[(42113, "s", 0, "0", True)])
    np.testing.assert_array_equal(read_mask(tmp_path / "b.tif"), SHAPE)


def test_the_threshold_is_a_number_for_two_classes():
    info = DatasetInfo.from_yaml("mask_threshold: 127")
    assert info.mask_rules.threshold == 127 and DatasetInfo.from_yaml(info.to_yaml()) == info
    for text, words in (
        ("mask_threshold: .nan", "a number from 0"),
        ("mask_threshold: -1", "a number from 0"),
        ("mask_threshold: high", "a number, such as 127"),
        ("mask_threshold: true", "a number, such as 127"),
        ("{classes: [a, b, c], mask_threshold: 1}", "two classes, not 3"),
        ("name: 2001-99-99", "dataset.yaml"),
    ):
        with pytest.raises(AmbisegError, match=words):
            DatasetInfo.from_yaml(text)
