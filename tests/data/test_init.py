"""From a stranger's folder to a data set: every layout of docs/data/your-folder.md is understood, and read unchanged."""

from __future__ import annotations

import csv
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.check import check_dataset
from ambiseg.data.guess.classes import MaskValues, classes_of
from ambiseg.data.guess.guess import guess
from ambiseg.data.guess.setup import HEADER, plan, write
from ambiseg.data.source import list_splits, open_split
from ambiseg.errors import AmbisegError
from volume_replica import write_nifti

IDS = [f"p{patient}_{place}" for patient in range(1, 7) for place in range(1, 3)]
WHO = ("anna", "ben", "chi")
SIZE = (24, 20)


@dataclass
class Made:
    """A folder that was built by code, and what its files hold, by id and annotator."""

    root: Path
    images: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    seed: int = 0

    def image(self, name, path):
        self.seed += 1
        pixels = np.random.default_rng(self.seed).integers(0, 256, (*SIZE, 3), np.uint8)
        self.images[name] = save(self.root / path, pixels)

    def mask(self, name, who, path):
        self.seed += 1
        rng = np.random.default_rng(self.seed)
        pixels = np.zeros(SIZE, np.uint8)
        top, left = rng.integers(2, 8, 2)
        pixels[top : top + 9, left : left + 8] = 1
        self.masks.setdefault(name, {})[who] = pixels
        save(self.root / path, pixels * 255)


def save(path, pixels):
    """Write a picture; its pixels as a viewer shows them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(pixels).save(path, **options)
    return np.asarray(Image.open(path))


def flat(made):
    """images/<id>, masks/<id>/<annotator>"""
    for name in IDS:
        made.image(name, f"images/{name}.png")
        for who in WHO:
            made.mask(name, who, f"masks/{name}/{who}.png")


def split_folders(made):
    """train/images/<id>, train/masks/<id>/<annotator>"""
    for i, name in enumerate(IDS):
        split = ("Training", "validation", "testing")[0 if i < 6 else 1 + i % 2]
        made.image(name, f"{split}/images/{name}.jpeg")
        for who in WHO:
            made.mask(name, who, f"{split}/labels/{name}/{who}.bmp")


def transposed(made):
    """images/<id>, masks/<annotator>/<id>"""
    for name in IDS:
        made.image(name, f"images/{name}.webp")
        for who in WHO:
            made.mask(name, who, f"masks/{who}/{name}.png")


def suffixes(made):
    """img/<id>, gt/<id>_<annotator>"""
    for name in IDS:
        made.image(name, f"img/{name}.bmp")
        for who in WHO:
            made.mask(name, who, f"gt/{name}_{who}.tif")


def prefixes(made):
    """images/<id>, masks/<annotator>-<id>"""
    for name in IDS:
        made.image(name, f"images/{name}.png")
        for who in WHO:
            made.mask(name, who, f"masks/{who}-{name}.png")


def beside(made):
    """scans/<id>, <annotator>/<id>"""
    for name in IDS:
        made.image(name, f"scans/{name}.png")
        for who in WHO[: 2 + (name > "p3")]:
            made.mask(name, who, f"{who}/{name}.png")


def named_folders(made):
    """images/<id>, masks_<annotator>/<id>"""
    for name in IDS:
        made.image(name, f"images/{name}.png")
        for who in WHO:
            made.mask(name, who, f"masks_{who}/{name}.png")


def one_folder(made):
    """<id>, <id>_<annotator>"""
    for name in IDS:
        made.image(name, f"{name}.jpg")
        for who in WHO:
            made.mask(name, who, f"{name}_{who}.png")


def folder_per_image(made):
    """<id>/image, <id>/<annotator>"""
    for name in IDS:
        made.image(name, f"{name}/image.png")
        for who in WHO:
            made.mask(name, who, f"{name}/{who}.png")


def copies(made):
    """images/<id>, masks/<id> and masks/<id>_2"""
    for name in IDS:
        made.image(name, f"images/{name}.png")
        made.mask(name, "mask", f"masks/{name}.png")
        made.mask(name, "second", f"masks/{name}_second.png")


def patients(made):
    """<patient>/images/<id>, <patient>/masks/<id>/<annotator>; numbers start anew for each patient"""
    for name in IDS:
        patient, place = name.split("_")
        made.image(name, f"{patient}/images/{place}.png")
        for who in WHO:
            made.mask(name, who, f"{patient}/masks/{place}/{who}.png")


def nnunet(made):
    """imagesTr/<id>_0000, labelsTr/<id>_<annotator>; a test without labels"""
    for name in IDS:
        made.image(name, f"imagesTr/{name}_0000.png")
        for who in WHO:
            made.mask(name, who, f"labelsTr/{name}_{who}.png")
    save(made.root / "imagesTs/p9_1_0000.png", np.zeros((*SIZE, 3), np.uint8))
    (made.root / "dataset.json").write_text("{}")


def bids(made):
    """sub-<id>/micr/sub-<id>_BF.png, derivatives/manual/.../sub-<id>_rater-<annotator>_mask.png"""
    for i in range(12):
        subject = f"sub-{i:02d}"
        made.image(f"{subject}_sample-A", f"{subject}/micr/{subject}_sample-A_BF.png")
        for who in WHO:
            place = f"derivatives/manual/{subject}/micr/{subject}_sample-A_rater-{who}_mask.png"
            made.mask(f"{subject}_sample-A", who, place)


def bids_desc(made):
    """The same with sessions and desc-<annotator>"""
    for i in range(12):
        name = f"sub-{i // 2:02d}_ses-{i % 2}"
        folder = name.replace("_", "/")
        made.image(name, f"{folder}/anat/{name}_T1w.png")
        for who in WHO:
            made.mask(name, who, f"derivatives/readers/{folder}/anat/{name}_desc-{who}_dseg.png")


def one_mask(made):
    """JPEGImages/<id>, SegmentationClass/<id>"""
    for name in IDS:
        made.image(name, f"JPEGImages/{name}.jpg")
        made.mask(name, "mask", f"SegmentationClass/{name}.png")


def one_parent(made):
    """download/images/<id>, download/masks/<annotator>/<site>/<id>"""
    for i, name in enumerate(IDS):
        site = f"site{i % 2}"
        made.image(f"{site}_{name}", f"download/images/{site}/{name}.png")
        for who in WHO:
            made.mask(f"{site}_{name}", who, f"download/masks/{who}/{site}/{name}.png")


def unpacked(made):
    """download/images/<id>, download/masks/<id>/<annotator>"""
    for name in IDS:
        made.image(name, f"download/images/{name}.png")
        for who in WHO:
            made.mask(name, who, f"download/masks/{name}/{who}.png")


def affixes(made):
    """images/img_<id>, masks/mask_<id>"""
    for name in IDS:
        made.image(name, f"images/img_{name}.png")
        made.mask(name, "mask", f"masks/mask_{name}.png")


LAYOUTS = [
    flat,
    split_folders,
    transposed,
    suffixes,
    prefixes,
    beside,
    named_folders,
    one_folder,
    folder_per_image,
]
LAYOUTS += [copies, patients, nnunet, bids, bids_desc, one_mask, one_parent, unpacked, affixes]


def build(layout, root):
    made = Made(root)
    layout(made)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_as_its_files_are(layout, tmp_path):
    made = build(layout, tmp_path / "lab")
    before = {path: path.read_bytes() for path in made.root.rglob("*") if path.is_file()}
    written = write(plan(made.root))
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in made.root.rglob("*") if path.is_file()} == {*before, *written}
    seen = {}
    assert {"train", "val"} <= set(list_splits(made.root))
    for split in list_splits(made.root):
        for sample in open_split(made.root, split):
            seen[sample.id] = split
            shown = made.images[sample.id].transpose(2, 0, 1)
            np.testing.assert_array_equal(sample.image, shown)
            own = made.masks[sample.id]
            assert sample.annotators == tuple(sorted(own))
            np.testing.assert_array_equal(sample.masks, [own[name] for name in sample.annotators])
    assert set(seen) == set(made.masks)
    report = check_dataset(made.root)
    assert report.ok and not report.problems, report.problems


def test_splits_keep_patients_together_and_the_seed_decides(tmp_path):
    root = build(flat, tmp_path / "lab").root
    made = plan(root)
    assert len(set(made.groups.values())) == 6 and made.groups["p3_1"] == made.groups["p3_2"]
    by_group = {}
    for name, split in made.splits.items():
        by_group.setdefault(made.groups[name], set()).add(split)
    assert all(len(splits) == 1 for splits in by_group.values())
    assert plan(root, seed=0).splits == made.splits != plan(root, seed=1).splits
    alone = plan(root, groups=lambda ids: {name: name for name in ids})
    assert len(set(alone.groups.values())) == 12


def test_folders_of_splits_stay_and_a_missing_val_is_drawn_from_train(tmp_path):
    made = build(split_folders, tmp_path / "lab")
    assert plan(made.root).on_disk and plan(made.root).info.files.splits == ""
    (made.root / "validation").rename(made.root / "test")
    for folder in ("images", "labels"):
        for path in (made.root / "testing" / folder).iterdir():
            path.rename(made.root / "test" / folder / path.name)
    (made.root / "testing/images").rmdir()
    planned = plan(made.root)
    assert not planned.on_disk
    assert {name for name, split in planned.splits.items() if split == "test"} == set(IDS[6:])
    assert sorted(planned.splits[name] for name in IDS[:6]) == ["train"] * 4 + ["val"] * 2 or "val" in {
        planned.splits[name] for name in IDS[:6]
    }
    write(planned)
    assert list_splits(made.root) == ["train", "val", "test"]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_images_have_train_and_val(tmp_path, count):
    made = Made(tmp_path / "lab")
    for name in "abcd"[:count]:
        made.image(name, f"images/{name}.png")
        made.mask(name, "mask", f"masks/{name}.png")
    assert {"train", "val"} <= set(plan(made.root).splits.values())


def test_one_image_is_too_few(tmp_path):
    made = Made(tmp_path / "lab")
    made.image("a", "images/a.png")
    made.mask("a", "mask", "masks/a.png")
    with pytest.raises(AmbisegError, match="1 image with masks: training needs 2 or more"):
        plan(made.root)


def test_images_without_masks_are_left_out_and_told(tmp_path):
    made = build(flat, tmp_path / "lab")
    save(made.root / "images/extra.png", np.zeros((*SIZE, 3), np.uint8))
    planned = plan(made.root)
    assert planned.without_masks == ["extra"] and "extra" not in planned.splits
    write(planned)
    assert check_dataset(made.root).ok


def test_folders_of_pictures_beside_the_annotators_are_not_annotators(tmp_path):
    made = build(beside, tmp_path / "lab")
    for name in IDS:
        save(made.root / f"overlays/{name}.png", made.images[name] // 2)
    planned = plan(made.root)
    assert sorted(planned.guess.annotators) == ["anna", "ben", "chi"]
    assert len(planned.guess.unused) == 12 and planned.classes.labels.names == ("background", "foreground")


# what cannot be understood


def test_two_layouts_at_once_name_both_and_the_options(tmp_path):
    made = build(flat, tmp_path / "lab")
    for name in IDS:
        for who in ("dora", "emil"):
            made.mask(name, who, f"{who}/{name}.png")
    with pytest.raises(AmbisegError) as raised:
        plan(made.root)
    message = str(raised.value)
    assert "two layouts fit: a folder of masks for each image (36 masks of 12 images)" in message
    assert "a folder for each annotator beside the images (24 masks of 12 images)" in message
    assert "--images 'images/{id}.*' --masks 'masks/{id}/{annotator}.*' or --images" in message
    both = guess(made.root, ["images/{id}.*"], ["masks/{id}/{annotator}.*", "{annotator:dora|emil}/{id}.*"])
    assert sorted(both.annotators) == ["anna", "ben", "chi", "dora", "emil"]


def test_two_kinds_of_images_for_the_same_masks(tmp_path):
    made = build(bids_desc, tmp_path / "lab")
    for path in list(made.root.glob("sub-*/*/anat/*_T1w.png")):
        save(
            path.with_name(path.name.replace("T1w", "FLAIR")),
            np.random.default_rng(0).integers(0, 256, SIZE, np.uint8),
        )
    with pytest.raises(AmbisegError, match=r"two layouts fit.*_FLAIR.*_T1w"):
        guess(made.root)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            "masks/p1_1/anna.tif",
            "anna.png and masks/p1_1/anna.tif are both the mask of 'anna' of image 'p1_1'",
        ),
        ("images/p1_1.bmp", "p1_1.bmp and images/p1_1.png are both image 'p1_1'"),
    ],
)
def test_names_that_collide(tmp_path, extra, words):
    made = build(flat, tmp_path / "lab")
    save(made.root / extra, np.zeros(SIZE, np.uint8))
    with pytest.raises(AmbisegError, match=words):
        plan(made.root)


def test_annotators_that_differ_in_capital_letters_are_told(tmp_path):
    made = build(flat, tmp_path / "lab")
    made.mask("p1_1", "Anna", "masks/p1_1/Anna.png")
    assert "annotators 'Anna' and 'anna' differ in capital letters only" in plan(made.root).remarks[0]


def test_annotators_that_differ_in_the_encoding_of_accents_are_told(tmp_path):
    made = Made(tmp_path)
    for who in ("\u00e4nna", "a\u0308nna"):
        for image in ("a", "b"):
            if not (tmp_path / f"images/{image}.png").exists():
                made.image(image, f"images/{image}.png")
            made.mask(image, who, f"masks/{who}/{image}.png")
    assert "differ in the encoding of accents only" in plan(made.root).remarks[0]


def test_images_that_differ_from_masks_in_the_encoding_of_accents(tmp_path):
    made = Made(tmp_path)
    for image in ("1", "2"):
        made.image(image, f"images/\u00e4{image}.png")
        made.mask(image, "anna", f"masks/a\u0308{image}.png")
    with pytest.raises(
        AmbisegError, match="2 names are written with two encodings of accents, such as \u00e41"
    ):
        plan(made.root)


def test_the_same_id_in_two_splits(tmp_path):
    made = Made(tmp_path)
    for split in ("Training", "validation"):
        for image in ("1", "2", "3"):
            made.image(f"{split}_{image}", f"{split}/images/{image}.png")
            made.mask(f"{split}_{image}", "anna", f"{split}/masks/{image}/anna.png")
    with pytest.raises(
        AmbisegError, match="3 ids occur in several folders, such as 1: pass --images "
    ) as caught:
        plan(made.root)
    said = shlex.split(str(caught.value).partition("pass ")[2].partition(", which")[0])
    found = plan(made.root, said[1:2], said[3:4])
    assert found.splits == {
        f"{split}_{image}": word
        for split, word in (("Training", "train"), ("validation", "val"))
        for image in ("1", "2", "3")
    }
    write(found)
    assert open_split(made.root, "val").ids == ("validation_1", "validation_2", "validation_3")


def test_the_same_id_in_two_folders(tmp_path):
    made = build(patients, tmp_path / "lab")
    with pytest.raises(
        AmbisegError, match=r"ids occur in several folders, such as 1: write {group}|are both image"
    ):
        plan(made.root, ["*/images/{id}.*"], ["*/masks/{id}/{annotator}.*"])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "no file in it can be read"),
        (["a.png", "b.png"], "no known layout fits its 2 files, such as a.png, b.png: say where they lie"),
        (
            ["images/a.png", "masks/a.jpg"],
            "masks/a.jpg: 1 masks are JPG, which alters class numbers: convert",
        ),
    ],
)
def test_folders_that_nothing_explains(tmp_path, files, words):
    for file in files:
        save(tmp_path / "lab" / file, np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    (tmp_path / "lab").mkdir(exist_ok=True)
    with pytest.raises(AmbisegError, match=words):
        plan(tmp_path / "lab")


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("annotations/anna.json", '{"info": {}, "images": [], "annotations": [], "categories": []}', "coco"),
        ("export.json", '[{"id": 1, "annotations": [], "data": {}}]', "label-studio"),
        ("annotations.xml", '<?xml version="1.0"?><annotations></annotations>', "cvat"),
    ],
)
def test_exports_of_tools_name_their_importer(tmp_path, file, text, name):
    root = tmp_path / "lab"
    for image in ("a", "b"):
        save(root / f"images/{image}.png", np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(text)
    with pytest.raises(
        AmbisegError, match=f"annotations of a tool .{name}.*: type 'ambiseg data import {name} "
    ):
        plan(root)


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        (["images/{id}.*"], [], "--images and --masks belong together"),
        (
            ["pictures/{id}.*"],
            ["masks/{id}/{annotator}.*"],
            "no image fits pictures/{id}.*: correct --images; files",
        ),
        (
            ["images/{id}.*"],
            ["gt/{id}.*"],
            "no mask of an image that was found fits gt/{id}.*: correct --masks",
        ),
        (["images/*.png"], ["gt/{id}.*"], "has no {id}"),
    ],
)
def test_wrong_patterns(tmp_path, images, masks, words):
    made = build(flat, tmp_path / "lab")
    with pytest.raises(AmbisegError, match=words.replace("{", r"\{").replace("*", r"\*")):
        guess(made.root, images, masks)


# what is written


def test_a_file_of_somebody_else_is_never_replaced(tmp_path):
    root = build(flat, tmp_path / "lab").root
    planned = plan(root)
    (root / "dataset.yaml").write_text("classes: [background, cup]\n")
    for overwrite in (False, True):
        with pytest.raises(AmbisegError, match="did not write it: keep it, or write to another folder"):
            write(planned, overwrite=overwrite)
    assert (root / "dataset.yaml").read_text() == "classes: [background, cup]\n"
    (root / "dataset.yaml").unlink()
    (root / "splits.csv").write_text("id,split\n")
    with pytest.raises(AmbisegError, match="splits.csv: it exists"):
        write(planned)
    (root / "splits.csv").unlink()
    write(planned)
    assert (root / "dataset.yaml").read_text().startswith(HEADER)
    with pytest.raises(AmbisegError, match="exists already: pass --overwrite"):
        write(planned)
    write(plan(root, seed=1), overwrite=True)


def test_the_description_may_lie_elsewhere(tmp_path):
    made = build(transposed, tmp_path / "lab")
    before = sorted(made.root.rglob("*"))
    written = write(plan(made.root), tmp_path / "new")
    assert sorted(made.root.rglob("*")) == before and len(written) == 2
    assert f"root: {made.root.resolve()}" in (tmp_path / "new/dataset.yaml").read_text()
    assert sum(len(open_split(tmp_path / "new", split)) for split in list_splits(tmp_path / "new")) == 12


def test_odd_ids_come_back_from_the_table(tmp_path):
    made = Made(tmp_path / "lab")
    for name in ("=1+1", "a,b", 'c"d', "é"):
        made.image(name, f"images/{name}.png")
        made.mask(name, "mask", f"masks/{name}.png")
    write(plan(made.root))
    with open(made.root / "splits.csv", newline="") as stream:
        assert len(list(csv.reader(stream))) == 5
    assert {name for split in list_splits(made.root) for name in open_split(made.root, split).ids} == set(
        made.masks
    )


# classes


def values(tmp_path, *arrays, palette=None, suffix=".png"):
    paths = []
    for i, array in enumerate(arrays):
        path = tmp_path / f"m{i}{suffix}"
        if suffix == ".npy":
            np.save(path, array)
        else:
            picture = Image.fromarray(np.asarray(array, np.uint8))
            if palette:
                picture.putpalette([part for color in palette for part in color])
            picture.save(path)
        paths.append(path)
    return MaskValues.of(paths)


RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize(
    ("arrays", "names", "void"),
    [
        ([[[0, 1], [1, 0]]], ("background", "foreground"), None),
        ([[[0, 255], [0, 0]], [[0, 1], [0, 0]]], ("background", "foreground"), None),
        ([[[0, 0], [0, 0]]], ("background", "foreground"), None),
        ([[[0, 1], [2, 3]]], ("background", "class-1", "class-2", "class-3"), None),
        ([[[1, 2], [2, 2]]], ("background", "class-1", "class-2"), None),
        ([[[0, 1], [2, 255]]], ("background", "class-1", "class-2"), 255),
        ([[[0, 1], [1, 255]]], ("background", "foreground"), 255),
    ],
)
def test_numbers_become_classes(tmp_path, arrays, names, void):
    found = classes_of(values(tmp_path, *arrays))
    assert (found.labels.names, found.labels.ignore_value, found.colored) == (names, void, False)


def test_grey_levels_become_colours(tmp_path):
    found = classes_of(values(tmp_path, [[0, 85], [170, 255]]))
    assert found.labels.names == ("background", "grey-85", "grey-170", "grey-255") and found.colored
    assert found.labels.colors[2] == (170, 170, 170)


def test_colours_become_classes(tmp_path):
    found = classes_of(values(tmp_path, [[(0, 0, 0), RED]], [[BLUE, (0, 0, 0)]]))
    assert found.labels.colors == ((0, 0, 0), BLUE, RED) and found.colored
    sky = classes_of(values(tmp_path, [[RED, BLUE]], [[BLUE, BLUE]]))
    assert sky.labels.colors == (BLUE, RED) and "was taken for the background" in sky.remarks[0]


def test_palettes_become_classes(tmp_path):
    table = [(0, 0, 0), RED, BLUE, (1, 2, 3)]
    found = classes_of(values(tmp_path, [[0, 1], [2, 1]], palette=table))
    assert found.labels.names == ("background", "class-1", "class-2")
    assert found.labels.colors == ((0, 0, 0), RED, BLUE) and found.colored


def test_smooth_masks_and_probabilities_have_a_threshold(tmp_path):
    row = np.concatenate([np.zeros(40), np.linspace(0, 255, 20), np.full(40, 255)])
    assert classes_of(values(tmp_path, np.tile(row, (3, 1)))).threshold == 127
    assert classes_of(values(tmp_path, np.tile(row / 255, (3, 1)), suffix=".npy")).threshold == 0.5


@pytest.mark.parametrize("kind", ["colours", "palette", "grey", "numbers", "smooth"])
def test_masks_of_every_kind_become_class_numbers(tmp_path, kind):
    colors = np.array([(0, 0, 0), BLUE, RED], np.uint8)
    root, classes = tmp_path / "lab", {}
    for i, name in enumerate(IDS):
        rng = np.random.default_rng(i)
        save(root / f"images/{name}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
        numbers = classes[name] = np.zeros(SIZE, np.uint8)
        numbers[4:12, 5:15] = 1
        if kind != "smooth":
            numbers[14:20, 2 : 8 + i % 3] = 2
        path = root / f"masks/{name}_anna.png"
        if kind == "colours":
            save(path, colors[numbers])
        elif kind == "palette":
            path.parent.mkdir(exist_ok=True)
            picture = Image.fromarray(numbers)
            picture.putpalette(colors.ravel().tolist())
            picture.save(path)
        elif kind == "smooth":
            edge = np.zeros(SIZE, np.uint8)
            edge[4:12, 15] = np.arange(12, 124, 14)
            save(path, numbers * 255 + edge)
        else:
            save(path, numbers * (100 if kind == "grey" else 1))
    write(plan(root))
    for split in list_splits(root):
        for sample in open_split(root, split):
            np.testing.assert_array_equal(sample.masks[0], classes[sample.id])
    assert check_dataset(root).ok


def test_masks_that_are_no_label_maps(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
    with pytest.raises(AmbisegError, match="colours or more, which are no classes"):
        classes_of(values(tmp_path, noise))
    with pytest.raises(AmbisegError, match="numbers from 0 to 255, which are no classes"):
        classes_of(values(tmp_path, noise[..., 0]))


def test_masks_that_cannot_be_read_are_told_with_the_others_used(tmp_path):
    made = build(flat, tmp_path / "lab")
    (made.root / "masks/p1_1/anna.png").write_bytes(b"")
    planned = plan(made.root)
    assert [problem.problem for problem in planned.problems[:1]] == ["the file is empty (0 bytes)"]
    assert planned.values.files == 35


@pytest.mark.parametrize("volumes", [False, True])
def test_a_mask_with_nan_is_named_and_the_others_tell_the_classes(tmp_path, volumes):
    paths = [tmp_path / f"{i}{'.nii' if volumes else '.npy'}" for i in range(2)]
    for path, hole in zip(paths, (0.0, np.nan), strict=True):
        mask = np.ones((5, 4, 3) if volumes else (5, 4), np.float32)
        mask[:2], mask[0, 0] = 0, hole
        if volumes:
            write_nifti(path, mask)
        else:
            np.save(path, mask)
    found = MaskValues.of(paths)
    assert classes_of(found).labels.classes == 2
    assert [problem.file for problem in found.problems] == [str(paths[1])] and "NaN" in str(found.problems[0])
