"""COCO annotations: polygons against the area formula, run lengths against stored reference strings, several
annotators."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.coco import fill_polygons, run_lengths
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

SIZE = (20, 24)
CATEGORIES = [{"id": 7, "name": "cell"}, {"id": 3, "name": "tissue"}]


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
    np.testing.assert_array_equal(fill_polygons([polygon], SIZE), expected)


def test_areas_of_large_polygons_and_the_even_odd_rule():
    rng = np.random.default_rng(0)
    for _ in range(10):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        corners = 200 + rng.uniform(120, 190, 9)[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        x, y = corners.T
        area = abs(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
        assert fill_polygons([corners.ravel().tolist()], (400, 400)).sum() == pytest.approx(area, rel=0.01)
    twice = box(2, 2, 12, 12)[:6] + [2, 12, 2, 2, 5, 5, 5, 9, 9, 9, 9, 5, 5, 5]
    assert fill_polygons([twice], SIZE).sum() == 100 - 16
    assert fill_polygons([box(0, 0, 4, 4), box(2, 2, 6, 6)], SIZE).sum() == 16 + 16 - 4


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
        ({"size": [5, 6], "counts": [31]}, "its runs fill 31 of 30"),
        ({"size": [5, 6], "counts": [40, -10]}, "fill"),
        ({"size": [5, 6], "counts": [2**62] * 4 + [30]}, "fill"),
        ({"size": [5, 6], "counts": "P"}, "truncated"),
    ):
        with pytest.raises(ValueError, match=words):
            run_lengths(shape, (5, 6))


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
    return {s.id: s for split in ("train", "val", "test") for s in open_split(out, split)}


def test_one_file_per_annotator(tmp_path):
    runs = {"size": list(SIZE), "counts": [0, 20, 460]}
    first = [shape(1, 3, [box(2, 2, 10, 10)]), shape(1, 7, [box(8, 8, 12, 12)]), shape(2, 7, runs)]
    root = write(tmp_path / "in", "ann", range(1, 6), first)
    write(root, "bob", range(1, 5), [shape(1, 3, [box(3, 2, 10, 10)])])
    report = import_dataset("coco", root, tmp_path / "out")
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


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ([shape(1, 7, [[0, 0, 1, 1]])], "a1.png: annotation 1 has a wrong shape (a polygon of 2"),
        ([shape(1, 7, [[0, 0, 1, 1, 2]])], "a1.png: annotation 1 has a wrong shape"),
        ([shape(1, 7, {"size": [9, 9], "counts": [81]})], "its size is 9 x 9, the image's 20 x 24"),
        ([shape(1, 7, {"size": list(SIZE)})], "a1.png: annotation 1 has a wrong shape"),
        ([shape(1, 7, {"size": list(SIZE), "counts": [2**70]})], "a1.png: annotation 1 has a wrong shape"),
    ],
)
def test_wrong_shapes_are_noted_and_the_rest_goes_on(tmp_path, annotations, words):
    report = import_dataset("coco", write(tmp_path / "in", "ann", range(1, 6), annotations), tmp_path / "out")
    assert sum(report.images.values()) == 4
    (problem,) = report.problems
    assert words in str(problem)


def test_file_names_that_lead_out_are_refused(tmp_path):
    root = write(tmp_path / "in", "ann", range(1, 6), [])
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "secret.png")
    path = root / "annotations" / "ann.json"
    path.write_text(path.read_text().replace("a1.png", "../../secret.png"))
    report = import_dataset("coco", root, tmp_path / "out")
    assert sum(report.images.values()) == 4 and "leads out of the data set" in str(report.problems[0])


def test_files_that_are_no_annotations_stop(tmp_path):
    root = write(tmp_path / "in", "ann", [1], [shape(1, 9, [box(1, 1, 2, 2)])])
    with pytest.raises(
        AmbisegError, match="ann.json: annotation 1 has category 9, which is not in the class list"
    ):
        import_dataset("coco", root, tmp_path / "out")
    write(root, "ann", [1], [])
    write(root, "bob", [1], [], [{"id": 3, "name": "cell"}])
    with pytest.raises(AmbisegError, match="bob.json: its categories"):
        import_dataset("coco", root, tmp_path / "out")
    for text in ('{"images": []}', "[1", "[]", '{"images": [{}], "annotations": [], "categories": []}'):
        (root / "annotations" / "bob.json").write_text(text)
        with pytest.raises(AmbisegError, match="bob.json: cannot be read as COCO"):
            import_dataset("coco", root, tmp_path / "out")
    with pytest.raises(AmbisegError, match="found no annotations"):
        import_dataset("coco", tmp_path, tmp_path / "out")
