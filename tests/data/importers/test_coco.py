"""COCO annotations: polygons against the law of areas, run lengths against stored reference strings, several
annotators."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ambiseg.data.files.orientation import upright
from ambiseg.data.importers import coco_file, import_dataset
from ambiseg.data.importers.coco_shapes import fill_polygons, polygon_corners, run_lengths
from ambiseg.data.importers.settings import CocoSettings
from ambiseg.data.source import list_splits, open_split
from ambiseg.errors import AmbisegError

SIZE = (20, 24)
CATEGORIES = [{"id": 7, "name": "cell"}, {"id": 3, "name": "tissue"}]


def filled(polygons, size):
    return fill_polygons(polygon_corners(polygons), size)


def box(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 29), min_size=4, max_size=4), st.booleans())
def test_boxes_at_whole_numbers_are_exact(sides, turned):
    (x0, x1), (y0, y1) = sorted(sides[:2]), sorted(sides[2:])
    expected = np.zeros(SIZE, bool)
    expected[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
    corners = np.reshape(box(x0, y0, x1, y1), (4, 2))
    polygon = (corners[::-1] if turned else corners).ravel().tolist()
    np.testing.assert_array_equal(filled([polygon], SIZE), expected)


def test_areas_of_large_polygons_and_the_even_odd_rule():
    rng = np.random.default_rng(0)
    for _ in range(10):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        corners = 200 + rng.uniform(120, 190, 9)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        x, y = corners.T
        area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
        assert filled([corners.ravel().tolist()], (400, 400)).sum() == pytest.approx(area, rel=0.01)
    twice = box(2, 2, 12, 12)[:6] + [2, 12, 2, 2, 5, 5, 5, 9, 9, 9, 9, 5, 5, 5]
    assert filled([twice], SIZE).sum() == 100 - 16
    assert filled([box(0, 0, 4, 4), box(2, 2, 6, 6)], SIZE).sum() == 16 + 16 - 4


def test_run_lengths():
    hole = np.zeros((40, 50), bool)
    hole[3:37, 5:44], hole[10:20, 10:30] = True, False
    text = "[6R1600000000UO4:" + "LF4:" * 19 + "La000000000000000000000000000]7"
    np.testing.assert_array_equal(run_lengths({"size": [40, 50], "counts": text}, (40, 50)), hole)
    small = np.zeros((5, 6), bool)
    small[1:3, 2:5], small[4, 0] = True, True
    np.testing.assert_array_equal(run_lengths({"size": [5, 6], "counts": "4161M0004"}, (5, 6)), small)
    flat = small.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    np.testing.assert_array_equal(run_lengths({"size": [5, 6], "counts": counts}, (5, 6)), small)
    for shape, words in (
        ({"size": [5, 7], "counts": counts}, "its size is 5 x 7, the image's 5 x 6"),
        ({"size": [5, 6], "counts": [31]}, "its runs do not fill the 30 pixels"),
        ({"size": [5, 6], "counts": [29]}, "its runs fill 29 of 30"),
        ({"size": [5, 6], "counts": [40, -10]}, "do not fill"),
        ({"size": [5, 6], "counts": [2.5, 27.5]}, "do not fill"),
        ({"size": [5, 6], "counts": [[30]]}, "do not fill"),
        ({"size": [5, 6], "counts": "o" * 1000}, "damaged"),
        ({"size": [5, 6], "counts": "P~"}, "damaged"),
        ({"size": [5, 6], "counts": "01" * 10**6}, "do not fill the 30 pixels"),
        ({"counts": [30]}, "no size and counts"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "its size is 1000000 x 1000000"),
        ({"size": [5, 6], "counts": [2**62] * 4 + [30]}, "fill"),
        ({"size": [5, 6], "counts": "P"}, "truncated"),
    ):
        with pytest.raises(ValueError, match=words):
            run_lengths(shape, (5, 6))


KEEP = CocoSettings(empty=True)


def write(root, name, images, annotations, categories=CATEGORIES):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    listed = [{"id": i, "file_name": f"a{i}.png"} for i in images]
    for i in images:
        Image.fromarray(np.full((*SIZE, 3), i, np.uint8)).save(root / "images" / f"a{i}.png")
    content = {"images": listed, "annotations": annotations, "categories": categories}
    (root / "annotations" / f"{name}.json").write_text(json.dumps(content))
    return root


def shape(image, category, segmentation, **more):
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def everything(out):
    return {s.id: s for split in list_splits(out) for s in open_split(out, split)}


def test_one_file_per_annotator(tmp_path):
    runs = {"size": list(SIZE), "counts": [0, 20, 460]}
    first = [shape(1, 3, [box(2, 2, 10, 10)]), shape(1, 7, [box(8, 8, 12, 12)]), shape(2, 7, runs)]
    root = write(tmp_path / "in", "ann", range(1, 6), first)
    write(root, "bob", range(1, 5), [shape(1, 3, [box(3, 2, 10, 10)])])
    report = import_dataset("coco", root, tmp_path / "out", KEEP)
    assert report.images == {"train": 3, "val": 1, "test": 1} and not report.problems
    samples = everything(tmp_path / "out")
    assert open_split(tmp_path / "out", "train").info.labels.names == ("background", "tissue", "cell")
    one = samples["a1"]
    assert one.annotators == ("ann", "bob") and one.weights.tolist() == [0.5, 0.5]
    assert [(one.masks[0] == c).sum() for c in (1, 2)] == [64 - 4, 16] and (one.masks[1] == 1).sum() == 56
    assert (samples["a2"].masks[0][:, 0] == 2).all() and samples["a2"].masks.sum() == 40
    assert not samples["a3"].masks.any() and samples["a5"].annotators == ("ann",)


def test_annotators_named_in_one_file(tmp_path):
    drawn = [
        shape(i, 7, [box(1, 1, 3 + i, 4)], annotator=f"r{i % 2 + k}") for i in range(1, 6) for k in (0, 5)
    ]
    import_dataset("coco", write(tmp_path / "in", "all", range(1, 6), drawn), tmp_path / "out")
    samples = everything(tmp_path / "out")
    assert samples["a2"].annotators == ("r0", "r5") and samples["a3"].annotators == ("r1", "r6")
    assert samples["a4"].masks.sum() == 2 * 2 * 6 * 3


GOOD = [shape(i, 7, [box(1, 1, 9, 9)]) for i in range(2, 6)]


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ([[0, 0, 1, 1]], "its segmentation is wrong (a polygon of 2 corners"),
        ([[0, 0, 1, 1, 2]], "its segmentation is wrong (a polygon of 5 numbers"),
        ([1, 1, 9, 1, 9, 9], "its segmentation is wrong (no list of polygons"),
        ([[1, 1, float("nan"), 1, 9, 9]], "its segmentation is wrong (a polygon of 3 corners"),
        ({"size": [9, 9], "counts": [81]}, "its size is 9 x 9, the image's 20 x 24"),
        ({"size": list(SIZE)}, "its segmentation is wrong (no size and counts)"),
        ({"size": list(SIZE), "counts": [2**70]}, "its runs do not fill the 480 pixels"),
        ({"size": list(SIZE), "counts": [480]}, "its segmentation marks no pixel"),
        ([], "it has no segmentation"),
        ([[]], "it has no segmentation"),
        (None, "it has no segmentation"),
        ([[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]], "all its coordinates lie within 0 to 1"),
        ([box(502, 502, 510, 510)], "from (502, 502) to (510, 510), outside of the 24 x 20 pixels"),
        ([box(-40, 2, 10, 10)], "outside of the 24 x 20 pixels"),
        ([box(-2, -2, -1, -1)], "its segmentation marks no pixel"),
    ],
)
def test_wrong_shapes_take_their_image_along_and_are_named(tmp_path, drawn, words):
    root = write(tmp_path / "in", "ann", range(1, 6), [shape(1, 7, drawn, id=31), *GOOD])
    report = import_dataset("coco", root, tmp_path / "out")
    assert set(everything(tmp_path / "out")) == {"a2", "a3", "a4", "a5"}
    (problem,) = report.problems
    assert str(problem).startswith(f"{root}/annotations/ann.json, annotation 31: ") and words in str(problem)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"bbox": [2, 3, 8, 6], "area": 48}, None),
        ({"bbox": [2, 3, 8, 6], "area": 30}, None),
        ({"bbox": [], "area": 0}, None),
        ({"bbox": [2, 3, 10, 9]}, None),
        (
            {"bbox": [0, 0, 24, 20], "area": 480},
            "its shape lies from (2, 3) to (10, 9), its bbox from (0, 0) to (24, 20)",
        ),
        ({"bbox": [12, 3, 8, 6]}, "its shape lies from (2, 3) to (10, 9), its bbox from (12, 3) to (20, 9)"),
        ({"area": 400}, "its shape has 48 pixels, its area is 400"),
        ({"area": 2}, "its shape has 48 pixels, its area is 2"),
        ({"bbox": [1, 2]}, "field 'bbox' is [1, 2]"),
        ({"bbox": [1, 2, 3, -4]}, "field 'bbox' is [1, 2, 3, -4]"),
        ({"area": "big"}, "field 'area' is \"big\""),
        ({"area": -1}, "field 'area' is -1"),
        ({"image_id": 99}, "its image_id 99 is in no list of images"),
        ({"image_id": None}, "field 'image_id' is null"),
        ({"category_id": "cell"}, "field 'category_id' is \"cell\""),
        ({"category_id": True}, "field 'category_id' is true"),
    ],
)
def test_what_the_file_says_of_a_shape_is_compared_with_it(tmp_path, stated, words):
    first = {**shape(1, 7, [box(2, 3, 10, 9)], id=31), **stated}
    root = write(tmp_path / "in", "ann", range(1, 6), [first, shape(1, 3, [box(15, 15, 20, 20)]), *GOOD])
    report = import_dataset("coco", root, tmp_path / "out")
    samples, told = everything(tmp_path / "out"), [str(problem) for problem in report.problems]
    if words is None:
        assert not told and (samples["a1"].masks[0] == 2).sum() == 48
    else:
        assert len(told) == 1 and f"annotation 31: {words}" in told[0]
        assert ("a1" in samples) == ("image_id" in stated)


def resized(root, sizes, stated, orientation=1, kind="jpg", drawn=None, name="ann"):
    """Images of the given sizes (as stored), whose file says that they have another one."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "images").mkdir(exist_ok=True)
    listed = []
    for i, size in enumerate(sizes):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(root / f"images/a{i}.{kind}", exif=exif)
        height, width = stated
        listed.append({"id": i, "file_name": f"a{i}.{kind}", "width": width, "height": height})
    notes = [shape(i, 7, drawn or [box(10, 8, 30, 24)]) for i in range(len(sizes))]
    content = {"images": listed, "annotations": notes, "categories": CATEGORIES}
    (root / "annotations" / f"{name}.json").write_text(json.dumps(content))
    return root


def test_an_image_of_another_size_scales_the_shapes(tmp_path):
    root = resized(tmp_path / "in", [(32, 48), (16, 24), (96, 144), (32, 40), (48, 32)], (32, 48))
    report = import_dataset("coco", root, tmp_path / "out")
    samples = everything(tmp_path / "out")
    assert set(samples) == {"a0", "a1", "a2"} and report.facts["masks scaled to the size of their image"] == 2
    for name, scale in (("a0", 1), ("a1", 0.5), ("a2", 3)):
        expected = np.zeros(samples[name].masks[0].shape, np.uint8)
        top, bottom, left, right = (int(scale * n) for n in (8, 24, 10, 30))
        expected[top:bottom, left:right] = 2
        np.testing.assert_array_equal(samples[name].masks[0], expected)
    told = sorted(str(problem) for problem in report.problems)
    assert "a3.jpg: the image is 32 high, 40 wide, its annotations say 32 x 48" in told[0]
    assert "a4.jpg: the image is 48 high, 32 wide" in told[1]


def test_run_lengths_of_a_scaled_image(tmp_path):
    runs = {"size": [4, 6], "counts": [8, 8, 8]}
    import_dataset("coco", resized(tmp_path / "in", [(8, 12)] * 5, (4, 6), drawn=runs), tmp_path / "out")
    expected = np.zeros((8, 12), np.uint8)
    expected[:, 4:8] = 2
    np.testing.assert_array_equal(everything(tmp_path / "out")["a0"].masks[0], expected)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_that_are_rotated_by_their_tag(tmp_path, orientation, suffix):
    """The mask covers what is dark in the picture, whichever way the tool showed it."""
    stored = np.full((64, 96), 200, np.uint8)
    stored[16:48, 16:32] = 0
    for kind in ("shown", "stored"):
        root = tmp_path / kind
        (root / "images").mkdir(parents=True)
        (root / "annotations").mkdir()
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(root / f"images/a.{suffix}", exif=exif, quality=95)
        seen = upright(stored, orientation) if kind == "shown" else stored
        rows, columns = np.nonzero(seen < 100)
        ends = [int(n) for n in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]
        image = {"id": 0, "file_name": f"a.{suffix}", "height": seen.shape[0], "width": seen.shape[1]}
        content = {"images": [image], "annotations": [shape(0, 7, [box(*ends)])], "categories": CATEGORIES}
        (root / "annotations/ann.json").write_text(json.dumps(content))
        for options in (CocoSettings(), CocoSettings(rotated=f"as-{kind}")):
            if 1 < orientation < 5 and options.rotated == "by-size":
                with pytest.raises(AmbisegError, match=rf"orientation {orientation}.*--rotated as-shown"):
                    import_dataset("coco", root, tmp_path / "out", options, overwrite=True)
                continue
            import_dataset("coco", root, tmp_path / "out", options, overwrite=True)
            (sample,) = everything(tmp_path / "out").values()
            np.testing.assert_array_equal(sample.masks[0] == 2, sample.image[0] < 100)


def test_images_that_nobody_annotated(tmp_path):
    root = write(tmp_path / "in", "ann", range(1, 6), [shape(i, 7, [box(1, 1, 9, 9)]) for i in (1, 2)])
    write(root, "bob", range(1, 6), [shape(3, 7, [box(1, 1, 9, 9)])])
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "images/stray.png")
    report = import_dataset("coco", root, tmp_path / "out")
    samples = everything(tmp_path / "out")
    assert set(samples) == {"a1", "a2", "a3"} and not samples["a3"].masks[0].any()
    assert [str(p) for p in report.problems] == [
        f"{root}/images/a{i}.png: nobody annotated it: ask for --empty if it shows nothing" for i in (4, 5)
    ]
    assert report.facts == {"images that no annotation file lists": 1}
    report = import_dataset("coco", root, tmp_path / "all", KEEP)
    assert set(everything(tmp_path / "all")) == {f"a{i}" for i in range(1, 6)} and not report.problems
    assert report.facts["images that nobody annotated"] == 2
    one = write(
        tmp_path / "one", "all", range(1, 6), [shape(1, 7, [box(1, 1, 9, 9)], annotator=a) for a in "xy"]
    )
    import_dataset("coco", one, tmp_path / "both", KEEP)
    assert everything(tmp_path / "both")["a4"].annotators == ("x", "y")


def edited(root, change):
    path = root / "annotations" / "ann.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return root


def test_names_of_files_as_other_systems_write_them(tmp_path):
    root = write(tmp_path / "in", "ann", range(1, 6), [shape(1, 7, [box(1, 1, 9, 9)]), *GOOD])
    (root / "images/sub").mkdir()
    (root / "images/a3.png").rename(root / "images/sub/a3.png")
    names = ["images/a1.png", ".\\images\\a2.png", "sub\\a3.png", "./a4.png", "a5.png"]
    edited(root, lambda c: [i.update(file_name=n) for i, n in zip(c["images"], names, strict=True)])
    report = import_dataset("coco", root, tmp_path / "out")
    assert not report.problems and set(everything(tmp_path / "out")) == {"a1", "a2", "sub-a3", "a4", "a5"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../secret.png", "image 1: its file_name '../../secret.png' leads out of the folder images"),
        ("..\\..\\secret.png", "leads out of the folder images"),
        ("/etc/secret.png", "leads out of the folder images"),
        ("x/../../../secret.png", "leads out of the folder images"),
        (".", "leads out of the folder images"),
        ("link.png", "link.png: the link or name leads out of the data set"),
        ("a2.png", "image 2: its id or its file_name 'a2.png' is that of another"),
        ("a2.jpg", "it would have the id 'a2' of 'a2.jpg'"),
        ("nothing.png", "nothing.png: there is no such file"),
        ("a\0b.png", "image 1: field 'file_name' is \"a\\u0000b.png\""),
        (7, "image 1: field 'file_name' is 7"),
    ],
)
def test_names_of_files_that_cannot_be_used(tmp_path, name, words):
    root = write(tmp_path / "in", "ann", range(1, 6), [shape(1, 7, [box(1, 1, 9, 9)]), *GOOD])
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "secret.png")
    (root / "images/link.png").symlink_to(tmp_path / "secret.png")
    edited(root, lambda content: content["images"][0].update(file_name=name))
    report = import_dataset("coco", root, tmp_path / "out")
    assert {"a3", "a4", "a5"} <= set(everything(tmp_path / "out")) <= {"a2", "a3", "a4", "a5"}
    assert words in " ".join(map(str, report.problems))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"width": 24}, "its width is 24, its height None"),
        ({"width": 0, "height": 20}, "field 'width' is 0"),
        ({"width": 24.5, "height": 20}, "field 'width' is 24.5"),
        ({"width": 10**6, "height": 10**6}, "its width is 1000000, its height 1000000"),
        ({"id": 2}, "image 2: its id or its file_name 'a1.png' is that of another"),
        ({"id": None}, "image number 5: field 'id' is null"),
    ],
)
def test_wrong_fields_of_images(tmp_path, fields, words):
    root = write(tmp_path / "in", "ann", range(1, 6), [shape(1, 7, [box(1, 1, 9, 9)]), *GOOD])
    edited(root, lambda content: content["images"].append({**content["images"].pop(0), **fields}))
    report = import_dataset("coco", root, tmp_path / "out")
    assert "a1" not in everything(tmp_path / "out") and words in " ".join(map(str, report.problems))


def test_ids_of_text(tmp_path):
    notes = [{**note, "image_id": str(note["image_id"]), "category_id": "7"} for note in GOOD]
    root = write(tmp_path / "in", "ann", range(2, 6), notes, [{"id": "7", "name": "cell"}, CATEGORIES[1]])
    assert not import_dataset("coco", root, tmp_path / "out").problems
    assert (everything(tmp_path / "out")["a2"].masks == 2).sum() == 64
    edited(root, lambda c: [e.update(id=f"x{e['id']}") for e in c["images"]])
    edited(root, lambda c: [e.update(image_id=f"x{e['image_id']}") for e in c["annotations"]])
    assert not import_dataset("coco", root, tmp_path / "text").problems
    assert (everything(tmp_path / "text")["a2"].masks == 2).sum() == 64


@pytest.mark.parametrize("wrong", [{}, {"annotator": ""}, {"annotator": "a/b"}, {"annotator": None}])
def test_an_annotation_without_its_annotator(tmp_path, wrong):
    notes = [{**note, "annotator": "x"} for note in GOOD]
    root = write(tmp_path / "in", "ann", range(1, 6), [shape(2, 7, [box(2, 2, 9, 9)], **wrong), *notes])
    report = import_dataset("coco", root, tmp_path / "out", KEEP)
    assert set(everything(tmp_path / "out")) == {"a1", "a3", "a4", "a5"}
    (problem,) = report.problems
    assert "annotator" in problem.problem and "write a name" in problem.remedy


@pytest.mark.parametrize(
    ("categories", "words"),
    [
        ([{"id": 3, "name": "cell"}], "annotation 1: category_id 7 is not in the class list"),
        (
            [*CATEGORIES, {"id": 7, "name": "other"}],
            "category 7: its id or its name 'other' is that of another",
        ),
        (
            [*CATEGORIES, {"id": 8, "name": "cell"}],
            "category 8: its id or its name 'cell' is that of another",
        ),
        ([{"id": 7, "name": "Background"}, CATEGORIES[1]], "annotation 1: its category 'Background' is what"),
        ([{"id": 7.5, "name": "cell"}], "category 7.5: field 'id' is 7.5"),
        ([{"id": 7}], "category 7: it has no field 'name'"),
        (["cell"], 'category number 1: it is "cell", no object'),
        ([{"id": i, "name": f"c{i}"} for i in range(300)], "2 to 255 classes, received 301"),
    ],
)
def test_categories_that_would_mean_something_else_stop(tmp_path, categories, words):
    root = write(tmp_path / "in", "ann", range(2, 6), GOOD, categories)
    with pytest.raises(AmbisegError, match=re.escape(words)):
        import_dataset("coco", root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_background_without_shapes_is_no_class_of_its_own(tmp_path):
    root = write(tmp_path / "in", "ann", range(2, 6), GOOD, [{"id": 0, "name": "background"}, *CATEGORIES])
    assert not import_dataset("coco", root, tmp_path / "out").problems
    names = open_split(tmp_path / "out", "train").info.labels.names
    assert names == ("background", "tissue", "cell")


def test_files_that_are_no_annotations_stop(tmp_path, monkeypatch):
    root = write(tmp_path / "in", "ann", range(2, 6), GOOD)
    write(root, "bob", [2], [], [{"id": 3, "name": "cell"}])
    with pytest.raises(AmbisegError, match="bob.json: its categories"):
        import_dataset("coco", root, tmp_path / "out")
    for text, words in (
        ('{"images": []}', "has no list 'annotations'"),
        ("[1", "cannot be read as JSON"),
        ("[" * 10**5, "cannot be read as JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": {}, "annotations": [], "categories": []}', "has no list 'images'"),
    ):
        (root / "annotations" / "bob.json").write_text(text)
        with pytest.raises(AmbisegError, match=f"bob.json: .*{words}"):
            import_dataset("coco", root, tmp_path / "out")
    with pytest.raises(AmbisegError, match="found no annotations"):
        import_dataset("coco", tmp_path, tmp_path / "out")
    monkeypatch.setattr(coco_file, "MAX_BYTES", 1 << 20)
    (root / "annotations" / "bob.json").write_text(" " * (1 << 20) + "[]")
    with pytest.raises(AmbisegError, match="bob.json: it is larger than 1 MiB"):
        import_dataset("coco", root, tmp_path / "out")
