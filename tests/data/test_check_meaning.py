"""The check names what is legal and seldom meant, likely causes of missing masks, and what forbids training."""

from __future__ import annotations

import shutil
import unicodedata

import numpy as np
import pytest
import tifffile
from PIL import Image

from ambiseg.data.check import check_dataset
from ambiseg.data.folder import DatasetInfo, FolderSplit, write_folder
from ambiseg.data.image_range import RangeTally
from ambiseg.data.packed import pack
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.data.splits.resplit import Pool
from ambiseg.data.statistics import SplitStatistics
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

SHAPE = np.zeros((12, 10), np.uint8)
SHAPE[2:5, 3:6] = 1


def sample(name, *masks, image=None, seed=0):
    rng = np.random.default_rng([seed, *name.encode()])
    image = rng.integers(0, 256, (1, 12, 10)).astype(np.uint8) if image is None else image
    masks = masks or (SHAPE,)
    names = tuple(f"r{i}" for i in range(len(masks)))
    return Sample(name, image, np.stack(masks), np.full(len(masks), 1 / len(masks)), names)


def dataset(path, train=None, info=None):
    splits = {"train": train or [sample("a"), sample("b")], "val": [sample("c")], "test": [sample("d")]}
    return write_folder(path / "d", splits, info or DatasetInfo("d"))


def told(path, severity, **options):
    return [p for p in check_dataset(path, **options).problems if p.severity == severity]


def test_without_train_or_val_nothing_can_be_trained_and_the_remedy_is_a_command(tmp_path):
    root = dataset(tmp_path)
    assert check_dataset(root).problems == ()
    shutil.rmtree(root / "val")
    (root / "train").rename(root / "all")
    for form in (root, pack(root, tmp_path / "p q.h5")):
        (problem,) = told(form, "error")
        assert problem.problem == "there is no split train and no split val"
        quoted = f"'{form}'" if " " in str(form) else str(form)
        assert problem.remedy.startswith(f"make splits with 'ambiseg data split {quoted} --out NEW'")
        assert '--prefix "[^_]+"' in problem.remedy
        assert check_dataset(form, to_train=False).ok


def test_one_mask_for_each_image_asks_for_single_labels(tmp_path):
    root = dataset(tmp_path)
    assert check_dataset(root).problems == () and "--labels single" in check_dataset(root).remarks[0]
    assert SplitStatistics.of(open_split(root, "train")).single_masks
    several = dataset(tmp_path / "several", [sample("a"), sample("b", SHAPE, SHAPE)])
    assert check_dataset(several).remarks == ()
    assert not SplitStatistics.of(open_split(several, "train")).single_masks


def test_full_masks_and_inverse_annotators_are_named_in_check_and_training(tmp_path):
    one, other = SHAPE.copy(), 1 - SHAPE
    one[0] = other[0] = 255
    train = [sample("a", SHAPE, 1 - SHAPE), sample("b", np.ones_like(SHAPE)), sample("e", one, other)]
    root = dataset(tmp_path, train, DatasetInfo("d", LabelSpace.binary(ignore_value=255)))
    expected = [
        "1 of 5 masks mark every pixel, such as b/r0",
        "in 2 images two masks are each other's inverse, such as a (r0, r1)",
    ]
    for form in (root, pack(root, tmp_path / "d.h5")):
        assert [p.problem for p in told(form, "warning")] == expected
        remarks = SplitStatistics.of(open_split(form, "train")).remarks
        assert [remark.split(": ")[0] for remark in remarks] == expected


def test_masks_of_a_palette_are_named_and_must_agree(tmp_path):
    root = dataset(tmp_path, info=DatasetInfo("d", LabelSpace.of_classes(3)))
    for name, colors in (("a", [0, 0, 0, 255, 0, 0, 0, 0, 255]), ("b", [0, 0, 0, 0, 255, 0, 0, 0, 255])):
        picture = Image.fromarray(SHAPE).convert("P")
        picture.putdata(SHAPE.ravel().tolist())
        picture.putpalette(colors)
        picture.save(root / f"train/masks/{name}/r0.png")
        if name == "a":
            (problem,) = told(root, "warning")
            assert "1 mask with a palette of many colours" in problem.problem
    (problem,) = told(root, "error")
    assert problem.file == str(root / "train/masks/b/r0.png")
    assert "index 1 of its palette is (0, 255, 0), but (255, 0, 0) in" in problem.problem


def test_white_beside_more_classes_needs_an_ignore_value(tmp_path):
    root = dataset(tmp_path, info=DatasetInfo("d", LabelSpace.of_classes(3)))
    Image.fromarray(SHAPE * 255).save(root / "train/masks/a/r0.png")
    (problem,) = told(root, "error")
    assert "holds 255 beside the classes 0..2" in problem.problem and "ignore_value: 255" in problem.remedy
    with pytest.raises(AmbisegError, match="dataset.yaml has no ignore_value"):
        FolderSplit(root, "train")[0]


def test_smoothed_borders_are_named_with_the_option_that_cuts_them(tmp_path):
    root = dataset(tmp_path)
    grey = SHAPE * 255
    grey[1, 3:6], grey[5, 3:6] = 90, 180
    Image.fromarray(grey).save(root / "train/masks/a/r0.png")
    (problem,) = told(root, "error")
    assert "borders are smoothed" in problem.problem and "mask_threshold: 127" in problem.remedy
    with open(root / "dataset.yaml", "a") as stream:
        stream.write("mask_threshold: 127\n")
    assert check_dataset(root).ok
    cut = FolderSplit(root, "train")[0].masks[0]
    np.testing.assert_array_equal(cut, grey > 127)
    assert FolderSplit(root, "train").info.mask_threshold == 127


def transposed(root):
    for image in ("a", "b"):
        (root / "train/masks" / image / "r0.png").rename(root / f"train/{image}.png")
        (root / "train/masks" / image).rmdir()
    (root / "train/masks/r0").mkdir()
    for image in ("a", "b"):
        (root / f"train/{image}.png").rename(root / f"train/masks/r0/{image}.png")


def suffixed(root):
    for image in ("a", "b"):
        (root / "train/masks" / image).rename(root / f"train/masks/{image}.jpeg")


def beside(root):
    for image in ("a", "b"):
        (root / "train/masks" / image / "r0.png").rename(root / f"train/{image}.png")
        (root / "train/masks" / image).rmdir()
        (root / f"train/{image}.png").rename(root / f"train/masks/{image}.png")


def beside_as_tiff(root):
    for image in ("a", "b"):
        shutil.rmtree(root / "train/masks" / image)
        Image.fromarray(SHAPE).save(root / f"train/masks/{image}.tif")


def capitals(root):
    for image in ("a", "b"):
        (root / "train/masks" / image).rename(root / f"train/masks/{image.upper()}")


@pytest.mark.parametrize(
    ("change", "file", "words", "remedy"),
    [
        (transposed, "r0/a.png", "are annotators, not images", "masks/a/r0.png"),
        (suffixed, "a.jpeg", "ends with .jpeg", "masks/a"),
        (beside, "a.png", "lies beside the folders", "masks/a/<annotator>.png"),
        (beside_as_tiff, "a.tif", "lies beside the folders", "masks/a/<annotator>.tif"),
        (capitals, "A", "other capital letters", "masks/a"),
    ],
)
def test_one_message_names_why_images_find_no_masks(tmp_path, change, file, words, remedy):
    root = dataset(tmp_path)
    change(root)
    report = check_dataset(root)
    (cause,) = (cause for cause in report.causes if cause.severity == "error")
    assert cause.files[0] == str(root / "train/masks" / file) and len(cause.files) == 2
    assert words in cause.problem and cause.remedy.endswith(remedy)
    with pytest.raises(AmbisegError, match=words):
        FolderSplit(root, "train")[0]


def test_images_outside_of_a_split_are_named_with_the_command_that_finds_them(tmp_path):
    root = tmp_path / "lab"
    for folder in ("images", "anna", "ben"):
        (root / folder).mkdir(parents=True)
        for name in ("p01_a", "p01_b"):
            Image.fromarray(SHAPE).save(root / folder / f"{name}.tif")
    (problem,) = told(root, "error")
    assert "there is no split" in problem.problem and f"'ambiseg data init {root}'" in problem.remedy
    with pytest.raises(AmbisegError, match="there is no split.*ambiseg data init"):
        FolderSplit(root, "train")
    pool = Pool(root)
    assert pool.ids == ("p01_a", "p01_b") and pool["p01_a"].annotators == ("anna", "ben")


def test_names_in_two_unicode_forms(tmp_path):
    name = unicodedata.normalize("NFC", "bär")
    root = dataset(tmp_path, [sample(name)])
    folder = root / "train/masks" / name
    folder.rename(folder.with_name(unicodedata.normalize("NFD", name)))
    (problem,) = told(root, "error")
    assert "another Unicode form (NFC, NFD)" in problem.problem


def test_ids_of_weights_with_suffix_and_doubled_images(tmp_path):
    root = dataset(tmp_path)
    (root / "train/weights.csv").write_text("id,annotator,weight\na.png,r0,1\n")
    (problem,) = told(root, "error")
    assert problem.remedy == "write the id without suffix, 'a'"
    (root / "train/weights.csv").unlink()
    for suffix in (".jpg", ".jpeg"):
        Image.fromarray(SHAPE).save(root / f"train/images/z{suffix}")
    assert any("z.jpeg has the same name but for its suffix" in p.problem for p in told(root, "error"))


def test_no_remedy_is_to_remove_masks(tmp_path):
    root = dataset(tmp_path)
    (root / "train/images/a.png").unlink()
    shutil.copy(root / "train/masks/b/r0.png", root / "train/masks/b/r0.tif")
    problems = told(root, "error")
    assert len(problems) == 2 and not any("remove" in p.remedy or "delete" in p.remedy for p in problems)


def extreme(value, dtype=np.float32, pixels=1):
    image = np.random.default_rng(1).integers(0, 256, (1, 12, 10)).astype(dtype)
    image.ravel()[:pixels] = value
    return image


@pytest.mark.parametrize("value", [-3.4e38, 1e30, -1e9])
def test_one_value_that_makes_all_images_constant_is_refused(tmp_path, value):
    root = dataset(tmp_path, [sample("a", image=extreme(5)), sample("b", image=extreme(value))])
    for form in (root, pack(root, tmp_path / "d.h5")):
        (problem,) = told(form, "error")
        assert "1 value of 'b' is" in problem.problem and "constant for training" in problem.problem
        with pytest.raises(AmbisegError, match="1 value of 'b' is .*far from all others .5 to 251."):
            SplitStatistics.of(open_split(form, "train"))


def test_one_value_far_from_all_others_is_named(tmp_path):
    train = [sample("a", image=extreme(5)), sample("b", image=extreme(-9999, pixels=3))]
    root = dataset(tmp_path, train)
    warnings = [p.problem for p in told(root, "warning") if "number types" not in p.problem]
    assert len(warnings) == 1 and warnings[0].startswith("3 values of 'b' are -9999")
    found = SplitStatistics.of(open_split(root, "train"))
    assert len(found.remarks) == 1
    assert found.images.least == (5,) and found.images.most == (251,)


def test_tails_and_sparse_channels_are_no_strays():
    rng = np.random.default_rng(0)
    for values in (
        rng.lognormal(0, 2, 2000),
        rng.random(2000) < 0.002,
        np.zeros(2000),
        rng.normal(size=2000),
    ):
        tally = RangeTally()
        tally.add("a", values.astype(np.float32).reshape(1, 40, 50))
        assert not tally.strays and tally.crushed() is None


def test_no_data_of_an_image_far_outside_is_refused_and_among_the_others_read(tmp_path):
    from ambiseg.data.files.reading import read_image

    pixels = extreme(0)[0]
    for value, dtype in ((-9999, np.float32), (-9999, np.int16), (65535, np.uint16)):
        image = pixels.astype(dtype)
        image[0, :4] = value
        tifffile.imwrite(tmp_path / "a.tif", image, extratags=[(42113, "s", 0, str(value), True)])
        with pytest.raises(AmbisegError, match=f"4 values are {value}, which it declares to be no data"):
            read_image(tmp_path / "a.tif")
    for value in ("0", "nan", "-9999", "none"):
        tifffile.imwrite(tmp_path / "b.tif", pixels, extratags=[(42113, "s", 0, value, True)])
        np.testing.assert_array_equal(read_image(tmp_path / "b.tif")[0], pixels)
