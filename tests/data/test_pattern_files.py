"""Data that are read where they lie: which files are images and masks, and what every verb makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.check import check_dataset
from ambiseg.data.info import DatasetInfo
from ambiseg.data.packed import pack
from ambiseg.data.pattern_matching import Key, assign, files_below
from ambiseg.data.patterns import FilePatterns, Pattern, split_word
from ambiseg.data.source import list_splits, open_split
from ambiseg.errors import AmbisegError

RNG = np.random.default_rng(0)


def patterns(images, *masks, **options):
    return FilePatterns((Pattern(images),), tuple(map(Pattern, masks)), **options)


def picture(path, low=0, high=256, size=(8, 9)):
    """Write a picture and return its pixels."""
    pixels = RNG.integers(low, high, size, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def mask(path):
    return picture(path, 0, 2)


def describe(root, text):
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.yaml").write_text(text)
    return root


@pytest.fixture
def lab(tmp_path):
    """Images beside one folder for each annotator; and the pixels of all of them."""
    pixels = {}
    for name in ("p1_a", "p1_b", "p2_a"):
        pixels[name] = {"image": picture(tmp_path / f"lab/images/{name}.bmp")}
        for who in ("anna", "ben"):
            if (name, who) != ("p2_a", "ben"):
                pixels[name][who] = mask(tmp_path / f"lab/{who}/{name}.png")
    (tmp_path / "lab/notes").mkdir()
    (tmp_path / "lab/notes/p1_a.txt").touch()
    describe(
        tmp_path / "lab", "files: {images: 'images/{id}.*', masks: '{annotator}/{id}.*', splits: splits.csv}"
    )
    (tmp_path / "lab/splits.csv").write_text("id,split\np1_a,train\np1_b,train\np2_a,val\n")
    return tmp_path / "lab", pixels


# patterns


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("images/{id}.*", "images/a.nii.gz", {"id": "a"}),
        ("images/{id}.*", "images/a.b.png", {"id": "a.b"}),
        ("images/{id}.*", "images/x/a.png", None),
        ("images/{id}.png", "images/a.tif", None),
        ("{split}/*/{id}.*", "train/any/a.png", {"split": "train", "id": "a"}),
        ("sub-{group}/**/{id}.*", "sub-1/x/y/a.png", {"group": "1", "id": "a"}),
        ("sub-{group}/**/{id}.*", "sub-1/a.png", {"group": "1", "id": "a"}),
        ("{id}/{id}_{annotator:anna|b.n}.*", "c1/c1_b.n.png", {"id": "c1", "annotator": "b.n"}),
        ("{id}/{id}_{annotator:anna|b.n}.*", "c1/c1_ben.png", None),
        ("{id}/{id}_*.*", "c1/c2_x.png", None),
        ("s?/{id}.*", "s1/a.png", {"id": "a"}),
    ],
)
def test_fields_of_a_path(pattern, path, fields):
    assert Pattern(pattern).match(path) == fields


def test_the_longest_known_id_counts():
    found = Pattern("{id}_{annotator}.*").matches("a_b_c.png", [3, 1])
    assert list(found) == [{"id": "a_b", "annotator": "c"}, {"id": "a", "annotator": "b_c"}]
    assert Pattern("{annotator}_{id}.*").match("x_y_a_1.png", [3]) == {"annotator": "x_y", "id": "a_1"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("images/*.png", "has no {id}"),
        ("{idd}.png", "unknown field .* 'idd': did you mean 'id'"),
        ("../{id}.png", "no path within the data"),
        ("/data/{id}.png", "no path within the data"),
        ("a//{id}.png", "no path within the data"),
        ("a\\\\{id}.png", "no path within the data"),
        ("{id}_{.png", "brace"),
        ("*a*b*c*d*e*f*{id}", "more than 6"),
        ("x" * 1001 + "{id}", "1 to 1000 characters"),
    ],
)
def test_wrong_patterns_say_what_to_write(text, words):
    with pytest.raises(AmbisegError, match=words):
        DatasetInfo.from_yaml(f"files: {{images: '{text}', masks: 'm/{{id}}.*'}}".replace("\\\\", "\\"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("files: {masks: '{id}.*'}", "files has no images"),
        ("files: {images: '{id}.*'}", "files has no masks"),
        ("files: {image: '{id}.*'}", "unknown key of files 'image': did you mean 'images'"),
        ("files: {images: '{annotator}/{id}.*', masks: '{id}.*'}", "remove {annotator}"),
        ("files: {images: '{id}.*', masks: '{group}/{id}.*'}", "has {group}: write"),
        ("files: {images: '{id}.*', masks: 'm/{id}.*', splits: ../s.csv}", "beside dataset.yaml"),
        ("files: [a]", "files is a mapping"),
    ],
)
def test_wrong_descriptions_of_files(text, words):
    with pytest.raises(AmbisegError, match=words):
        DatasetInfo.from_yaml(text)


def test_words_for_splits():
    words = {
        "Training": "train",
        "imagesTr": "imagesTr",
        "valid": "val",
        "DEV": "val",
        "Ts": "test",
        "x": "x",
    }
    assert {word: split_word(word) for word in words} == words


# which files belong together


def test_images_and_masks_in_one_folder():
    paths = ["a.png", "a_anna.png", "a_b.png", "a_b_anna.png", "c.png", "c_anna.tif", "d.jpg"]
    found = assign(paths, patterns("{id}.*", "{id}_{annotator}.*"))
    assert [key.id for key in found.images] == ["a", "c", "d"]
    assert found.masks == {
        Key("", "", "a"): {"anna": "a_anna.png", "b": "a_b.png", "b_anna": "a_b_anna.png"},
        Key("", "", "c"): {"anna": "c_anna.tif"},
    }
    named = assign(paths, patterns("{id}.*", "{id}_{annotator:anna}.*"))
    assert [key.id for key in named.images] == ["a", "c", "d", "a_b"]
    assert named.masks[Key("", "", "a_b")] == {"anna": "a_b_anna.png"}


def test_an_image_is_no_mask_of_itself_and_strays_are_told():
    paths = ["images/a.png", "anna/a.png", "anna/b.png", "ben/a.jpg"]
    found = assign(paths, patterns("images/{id}.*", "{annotator}/{id}.*"))
    assert found.masks == {Key("", "", "a"): {"anna": "anna/a.png"}}
    assert found.strays == ["anna/b.png"]


def test_groups_splits_and_channels():
    paths = [
        "Tr/p1/1_0.png",
        "Tr/p1/1_1.png",
        "Tr/p1/gt/1.png",
        "Ts/p2/1_0.png",
        "Ts/p2/1_1.png",
        "Ts/p2/gt/1.png",
    ]
    found = assign(paths, patterns("{split}/{group}/{id}_{channel}.*", "{split}/{group}/gt/{id}.*"))
    one, other = Key("train", "p1", "1"), Key("test", "p2", "1")
    assert found.images[one] == {"0": "Tr/p1/1_0.png", "1": "Tr/p1/1_1.png"} and one.name == "p1_1"
    assert found.masks == {one: {"mask": "Tr/p1/gt/1.png"}, other: {"mask": "Ts/p2/gt/1.png"}}
    assert Key("", "p1", "p1_3").name == "p1_3"


# reading


def test_files_are_read_where_they_lie(lab):
    root, pixels = lab
    assert list_splits(root) == ["train", "val"]
    train, val = open_split(root, "train"), open_split(root, "val")
    assert train.ids == ("p1_a", "p1_b") and val.ids == ("p2_a",)
    for sample in (*train, *val):
        own = pixels[sample.id]
        np.testing.assert_array_equal(sample.image[0], own["image"])
        assert sample.annotators == tuple(sorted(own.keys() - {"image"}))
        for name, layer in zip(sample.annotators, sample.masks, strict=True):
            np.testing.assert_array_equal(layer, own[name])
        np.testing.assert_allclose(sample.weights, 1 / len(sample.annotators))
    report = check_dataset(root)
    assert report.ok and [s.images for s in report.summaries] == [2, 1]


def test_a_description_may_lie_elsewhere(lab, tmp_path):
    root, _ = lab
    text = (root / "dataset.yaml").read_text()
    other = describe(tmp_path / "other", text.replace("{images", "{root: ../lab, images"))
    (root / "splits.csv").rename(other / "splits.csv")
    assert open_split(other, "train").digest() == open_split_digest(root, text, other)
    describe(other, text.replace("{images", "{root: ../typo, images"))
    with pytest.raises(AmbisegError, match="typo, and there is no such folder: correct 'root'"):
        open_split(other, "train")


def open_split_digest(root, text, other):
    (root / "splits.csv").write_bytes((other / "splits.csv").read_bytes())
    return open_split(describe(root, text), "train").digest()


def test_packed_and_split_data_are_whole(lab, tmp_path):
    root, _ = lab
    packed = pack(root, tmp_path / "lab.h5")
    for split in ("train", "val"):
        assert open_split(packed, split).digest() == open_split(root, split).digest()
    assert open_split(packed, "train").info.files is None


def test_weights_of_all_splits(lab):
    root, _ = lab
    (root / "weights.csv").write_text("id,annotator,weight\np1_a,anna,0.75\np1_a,ben,0.25\np2_a,anna,1\n")
    assert [sample.weights.tolist() for sample in open_split(root, "train")] == [[0.75, 0.25], [0.5, 0.5]]
    assert open_split(root, "val")[0].weights.tolist() == [1.0]
    (root / "weights.csv").write_text("id,annotator,weight\nzz,anna,1\n")
    with pytest.raises(AmbisegError, match="'zz' has weights but no image"):
        open_split(root, "val")


def test_channels_in_several_files(tmp_path):
    root = describe(
        tmp_path / "d", "files: {images: 'images{split}/{id}_{channel}.*', masks: 'labels{split}/{id}.*'}"
    )
    parts = [picture(root / f"imagesTr/a_000{i}.png") for i in range(2)]
    layer = mask(root / "labelsTr/a.png")
    (sample,) = open_split(root, "train")
    np.testing.assert_array_equal(sample.image, np.stack(parts))
    np.testing.assert_array_equal(sample.masks, layer[None])
    assert sample.annotators == ("mask",)
    picture(root / "imagesTr/a_0001.png", size=(3, 3))
    with pytest.raises(AmbisegError, match="a_0001.png: this channel is 3 high, 3 wide but a_0000.png 8 x 9"):
        open_split(root, "train")[0]


def wrong(root, change):
    change(root)
    with pytest.raises(AmbisegError) as raised:
        open_split(root, "train")
    report = check_dataset(root)
    assert not report.ok
    return str(raised.value), " ".join(map(str, report.problems))


def doubled_mask(root):
    mask(root / "anna/p1_a.tif")


def doubled_id(root):
    picture(root / "images/p1_a.png")


def unknown_row(root):
    with open(root / "splits.csv", "a") as stream:
        stream.write("zz,train\n")


def outward(root):
    mask(root.parent / "secret.png")
    (root / "ben/p2_a.png").symlink_to(root.parent / "secret.png")


def outward_folder(root):
    (root / "images").rename(root.parent / "elsewhere")
    (root / "images").symlink_to(root.parent / "elsewhere")


def moved(root):
    (root / "images").rename(root / "pictures")


def bad_name(root):
    mask(root / "a\nb/p1_a.png")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (doubled_mask, "p1_a.tif: this file and anna/p1_a.png are both the mask of 'anna' of image 'p1_a'"),
        (doubled_id, "p1_a.png: this file and images/p1_a.bmp are both image 'p1_a'"),
        (unknown_row, "splits.csv: it names 1 id without an image: zz"),
        (outward, "p2_a.png: the link leads out of the data"),
        (outward_folder, "images: the link leads out of the data"),
        (moved, "no image fits the pattern images/{id}.*"),
        (bad_name, "annotator 'a\\nb' cannot name a file"),
    ],
)
def test_what_is_wrong_is_told_once(lab, change, words):
    raised, checked = wrong(lab[0], change)
    assert words in raised and checked.count(words) == 1


def test_images_without_masks_and_masks_without_images(lab):
    root, _ = lab
    (root / "anna/p2_a.png").rename(root / "anna/p3_a.png")
    with pytest.raises(AmbisegError, match=r"p2_a.bmp: the image has no mask: no file fits {annotator}/{id}"):
        open_split(root, "val")[0]
    report = check_dataset(root)
    assert [problem.problem[:21] for problem in report.errors] == ["the image has no mask"]
    (warning,) = report.warnings
    assert warning.file.endswith("p3_a.png") and warning.problem == "the mask belongs to no image"


def test_links_that_lead_in_circles_are_followed_once(lab):
    root, _ = lab
    (root / "images/again").symlink_to(root)
    (root / "anna/more").symlink_to(root / "ben")
    paths = files_below(root)
    assert len(paths) == len(set(paths)) == 8 + 2
    assert [path for path in paths if "more" in path] == ["anna/more/p1_a.png", "anna/more/p1_b.png"]
    assert open_split(root, "val").ids == ("p2_a",)


def test_without_a_table_there_is_one_split(lab):
    root, _ = lab
    describe(root, "files: {images: 'images/{id}.*', masks: '{annotator}/{id}.*'}")
    assert list_splits(root) == ["all"] and len(open_split(root, "all")) == 3
    with pytest.raises(AmbisegError, match="no split 'train': it has all"):
        open_split(root, "train")
