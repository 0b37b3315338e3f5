"""Label Studio and CVAT: what `ambiseg.exchange` writes, and what people draw, comes back pixel by pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.coco_shapes import run_lengths, runs_of
from ambiseg.data.importers.label_studio import brush_mask
from ambiseg.data.source import list_splits, open_split
from ambiseg.errors import AmbisegError
from ambiseg.exchange.cvat import mask_rle, polygon_points
from ambiseg.exchange.label_studio import brush_rle, percent_polygons

SIZE = (10, 14)
NAMES = ("a", "b", "c")


def drawn(seed):
    rng = np.random.default_rng(seed)
    mask = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(0, 5, 2)
    mask[top : top + 4, left : left + 6] = 1
    mask[top + 1, left + 2] = seed % 2
    return mask


def masks_of(name):
    return {who: drawn(3 * NAMES.index(name) + i) for i, who in enumerate(("anna", "ben"))}


@pytest.fixture
def source(tmp_path):
    for i, name in enumerate(NAMES):
        path = tmp_path / "lab/images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, SIZE, np.uint8)).save(path)
    return tmp_path / "lab"


def imported(name, source):
    out = source.parent / "data"
    report = import_dataset(name, source, out)
    samples = {s.id: s for split in list_splits(out) for s in open_split(out, split)}
    return samples, report.problems


def result(kind, value, label="cell"):
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"type": kind, **size, "value": {**value, kind: [label]}}


def task(name, annotations, **data):
    return {
        "id": 1,
        "data": data or {"image": f"/data/upload/1/0a1b2c3d-{name}.png"},
        "annotations": annotations,
    }


def annotation(who, results, **more):
    return {"id": 5, "completed_by": who, "result": results, **more}


@pytest.mark.parametrize("kind", ["brush", "polygon"])
def test_label_studio_comes_back(source, kind):
    tasks = []
    for name in NAMES:
        annotations = []
        for who, mask in masks_of(name).items():
            if kind == "brush":
                results = [result("brushlabels", {"format": "rle", "rle": brush_rle(mask)})]
            else:
                results = [result("polygonlabels", {"points": points}) for points in percent_polygons(mask)]
            annotations.append(annotation({"id": 1, "email": who}, results))
        annotations.append(annotation(9, [], was_cancelled=True))
        tasks.append(task(name, annotations))
    (source / "export.json").write_text(json.dumps(tasks))
    samples, problems = imported("label-studio", source)
    assert not problems and set(samples) == set(NAMES)
    for name, sample in samples.items():
        assert sample.annotators == ("anna", "ben")
        np.testing.assert_array_equal(sample.masks, list(masks_of(name).values()))


def test_label_studio_boxes_names_and_what_is_left_out(source):
    box = result("rectanglelabels", {"x": 50, "y": 0, "width": 50, "height": 50, "rotation": 0})
    tasks = [
        task("a", [annotation(3, [box]), annotation(3, [])], image="s3://bucket/x/a.png"),
        task("b", [annotation(3, [result("ellipselabels", {"x": 1})])], image="/data/local-files/?d=x/b.png"),
        task("c", [annotation(3, [box])], image="http://host/other.png"),
        task("c", [{"completed_by": 3}]),
    ]
    (source / "export.json").write_text(json.dumps(tasks))
    samples, problems = imported("label-studio", source)
    assert samples["a"].annotators == ("user-3", "user-3-2") and set(samples) == {"a"}
    expected = np.zeros(SIZE, np.uint8)
    expected[:5, 7:] = 1
    np.testing.assert_array_equal(samples["a"].masks, [expected, np.zeros(SIZE)])
    told = " ".join(map(str, problems))
    assert "'ellipselabels' are not read" in told and "no image 'other.png'" in told and "'result'" in told


def test_brushes_that_are_damaged_are_refused():
    packed = brush_rle(drawn(1))
    for wrong, size in ((packed[:-3], SIZE), (packed, (9, 14)), ([], SIZE)):
        with pytest.raises(ValueError, match="truncated|its brush has"):
            brush_mask(wrong, size)


def test_runs_of_are_the_inverse_of_run_lengths():
    for seed in range(6):
        mask = np.random.default_rng(seed).integers(0, 2, SIZE)
        np.testing.assert_array_equal(run_lengths(runs_of(mask), SIZE), mask == 1)


def cvat(name, shapes):
    return f'<image id="0" name="{name}.png" width="{SIZE[1]}" height="{SIZE[0]}">{shapes}</image>'


def export(path, images):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"<annotations><version>1.1</version>{''.join(images)}</annotations>")


def as_mask(mask, inner=""):
    attributes = " ".join(f'{key}="{value}"' for key, value in mask_rle(mask).items())
    return f'<mask label="cell" {attributes}>{inner}</mask>'


def as_polygon(mask, inner=""):
    return "".join(
        f'<polygon label="cell" points="{points}">{inner}</polygon>' for points in polygon_points(mask)
    )


@pytest.mark.parametrize("write", [as_mask, as_polygon])
@pytest.mark.parametrize("by_file", [True, False])
def test_cvat_comes_back(source, write, by_file):
    if by_file:
        for who in ("anna", "ben"):
            export(source / f"annotations/{who}.xml", [cvat(n, write(masks_of(n)[who])) for n in NAMES])
    else:
        tag = '<attribute name="annotator">{}</attribute>'
        images = [
            cvat(name, "".join(write(mask, tag.format(who)) for who, mask in masks_of(name).items()))
            for name in NAMES
        ]
        export(source / "annotations.xml", images)
    samples, problems = imported("cvat", source)
    assert not problems and set(samples) == set(NAMES)
    for name, sample in samples.items():
        assert sample.annotators == ("anna", "ben")
        np.testing.assert_array_equal(sample.masks, list(masks_of(name).values()))


def test_cvat_order_boxes_and_what_is_left_out(source):
    box = '<box label="{}" xtl="0" ytl="0" xbr="{}" ybr="2" z_order="{}"/>'
    export(
        source / "annotations.xml",
        [
            cvat("a", box.format("top", 2, 1) + box.format("low", 4, 0)),
            cvat("b", '<polyline label="x" points="0,0;1,1"/>'),
            cvat("c", '<mask label="x" rle="1, 9" left="0" top="0" width="2" height="2"/>'),
            cvat("d", box.format("low", 4, 0)),
        ],
    )
    samples, problems = imported("cvat", source)
    assert set(samples) == {"a"}
    labels = open_split(source.parent / "data", list_splits(source.parent / "data")[0]).info.labels.names
    assert [labels[value] for value in samples["a"].masks[0][0, [0, 3, 5]]] == ["top", "low", "background"]
    told = " ".join(map(str, problems))
    assert (
        "'polyline' are not read" in told
        and "do not fill the 4 pixels" in told
        and "no image 'd.png'" in told
    )


@pytest.mark.parametrize(
    ("name", "file", "text", "words"),
    [
        ("cvat", "a.xml", "<osm/>", "begins with <osm>: export as 'CVAT for images 1.1'"),
        ("cvat", "a.xml", '<!DOCTYPE x [<!ENTITY a "b">]><annotations/>', "cannot be read"),
        ("cvat", "a.xml", "<annotations/>", "nobody drew a shape"),
        ("cvat", "a.txt", "", "found no annotations/<annotator>.xml"),
        ("label-studio", "a.json", "{}", "no list of tasks"),
        ("label-studio", "a.json", "[", "cannot be read as JSON"),
        ("label-studio", "a.json", "[]", "nobody drew a shape"),
    ],
)
def test_other_files_are_refused(source, name, file, text, words):
    (source / file).write_text(text)
    with pytest.raises(AmbisegError, match=words):
        import_dataset(name, source, source.parent / "data")
