"""The check of a data set: every kind of mistake is found, all of them in one go, and good data pass."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from ambiseg.data.check import CheckReport, Problem, check_dataset
from ambiseg.data.files.reading import write_mask
from ambiseg.data.folder import DatasetInfo, write_folder
from ambiseg.data.packed import pack
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError


def make_sample(name, seed=0, size=(10, 12), masks=3):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (1, *size), np.uint8)
    layers = rng.integers(0, 2, (masks, *size), np.uint8)
    return Sample(name, image, layers, np.full(masks, 1 / masks), tuple(f"r{i}" for i in range(masks)))


@pytest.fixture
def root(tmp_path):
    splits = {
        "train": [make_sample("a", 1), make_sample("b", 2, masks=1)],
        "test": [make_sample("c", 3), make_sample("d", 4)],
    }
    return write_folder(tmp_path / "d", splits, DatasetInfo("d"))


def grey(path, size=(10, 12), value=0):
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def mask_of_another_size(root):
    write_mask(root / "train/masks/a/r0.png", np.zeros((3, 3), np.uint8))


def truncated(root):
    path = root / "train/images/a.png"
    path.write_bytes(path.read_bytes()[:-30])


def write_rows(*rows):
    def change(root):
        (root / "train/weights.csv").write_text("\n".join(["id,annotator,weight", *rows]))

    return change


def bad_yaml(root):
    (root / "dataset.yaml").write_text("clases: [a, b]")


def all_empty(root):
    for path in (root / "train/masks").glob("*/*.png"):
        grey(path)


def other_channels(root):
    (root / "train/images/a.png").unlink()
    np.save(root / "train/images/a.npy", np.zeros((2, 10, 12), np.uint8))


def other_type(root):
    (root / "train/images/a.png").unlink()
    np.save(root / "train/images/a.npy", np.zeros((10, 12), np.uint16))


def nan_image(root):
    (root / "train/images/a.png").unlink()
    np.save(root / "train/images/a.npy", np.full((10, 12), np.nan))


def same_id(root):
    shutil.copytree(root / "test/masks/c", root / "train/masks/c")
    grey(root / "train/images/c.png", value=9)


def same_image(root):
    shutil.copy(root / "train/images/a.png", root / "test/images/c.png")


def tiny(root):
    grey(root / "train/images/a.png", (7, 12))
    for path in (root / "train/masks/a").iterdir():
        grey(path, (7, 12), 1)


def outward_link(root):
    grey(root.parent / "secret.png")
    (root / "train/masks/a/r9.png").symlink_to(root.parent / "secret.png")


ROWS = [
    (mask_of_another_size, "train/masks/a/r0.png", "3 high, 3 wide", "error"),
    (lambda r: shutil.rmtree(r / "train/masks/a"), "train/images/a.png", "no masks folder", "error"),
    (lambda r: (r / "train/images/a.png").unlink(), "train/masks/a", "masks without an image", "error"),
    (lambda r: grey(r / "train/masks/x.png"), "train/masks/x.png", "belongs to no image", "error"),
    (lambda r: (r / "train/masks/b/r0.png").unlink(), "train/masks/b", "no mask", "error"),
    (
        lambda r: grey(r / "train/masks/a/r0.png", value=7),
        "train/masks/a/r0.png",
        "the mask holds 7, but",
        "error",
    ),
    (truncated, "train/images/a.png", "cannot be read as png", "error"),
    (
        lambda r: (r / "train/masks/a/r0.png").write_bytes(b""),
        "train/masks/a/r0.png",
        "empty (0 bytes)",
        "error",
    ),
    (
        lambda r: (r / "train/images/a.png").rename(r / "train/images/a.gif"),
        "train/images/a.gif",
        "no image",
        "error",
    ),
    (lambda r: (r / "train/masks/a/x.gif").touch(), "train/masks/a/x.gif", "no mask file", "error"),
    (lambda r: grey(r / "train/images/a.jpg"), "train/images/a.png", "same name", "error"),
    (outward_link, "train/masks/a/r9.png", "leads out", "error"),
    (write_rows("a,r0,1", "a,r1,1", "a,r2,1"), "train/weights.csv", "id 'a' sum to 3", "error"),
    (write_rows("b,r0,-1"), "train/weights.csv, row 2", "'-1' is negative", "error"),
    (write_rows("b,r0,nan"), "train/weights.csv, row 2", "'nan'", "error"),
    (write_rows("b,r0,1", "z,r0,1"), "train/weights.csv", "id 'z' has weights but no image", "error"),
    (write_rows("b,r0,1", "b,r7,0"), "train/weights.csv", "'r7' but no mask", "error"),
    (write_rows("b,r0,1", "b;r7;0"), "train/weights.csv, row 3", "1 columns", "error"),
    (nan_image, "train/images/a.npy", "NaN", "error"),
    (other_channels, "", "different numbers of channels: 3 images with 1", "error"),
    (other_type, "", "different number types: 3 images with uint8", "warning"),
    (same_id, ", train and test", "1 id in both: c", "warning"),
    (same_image, ", train and test", "a leak: a = c", "warning"),
    (lambda r: (r / "val/images").mkdir(parents=True), "val", "split is empty", "error"),
    (lambda r: (r / "val").mkdir(), "val", "no images folder", "error"),
    (bad_yaml, "dataset.yaml", "unknown key 'clases'", "error"),
    (lambda r: (r / "dataset.yaml").write_text("channels: [a, b]"), "train/images/a.png", "names 2", "error"),
    (tiny, "train/images/a.png", "only 7x12 pixels", "warning"),
    (all_empty, "train", "no mask marks anything", "warning"),
]


def test_good_data_pass_with_a_summary(root, tmp_path):
    told = []
    report = check_dataset(root, lambda *values: told.append(values), to_train=False)
    assert report.problems == () and report.ok
    train, test = report.summaries
    assert (train.split, train.images, train.annotations) == ("train", 2, 4)
    assert (train.fewest, train.mean, train.most) == (1, 2.0, 3)
    assert (train.sizes, train.channels, train.dtypes) == ({(10, 12): 2}, {1: 2}, {"uint8": 2})
    assert len(train.class_frequencies) == 2 and sum(train.class_frequencies) == pytest.approx(1)
    assert test.images == 2 and told[:2] == [("train", 1, 2), ("train", 2, 2)]
    assert check_dataset(pack(root, tmp_path / "d.h5"), to_train=False) == report


@pytest.mark.parametrize(("change", "file", "words", "severity"), ROWS)
def test_every_mistake_is_found_alone(root, change, file, words, severity):
    change(root)
    report = check_dataset(root, to_train=False)
    place = f"{root}{file}" if file.startswith(",") else str(root / file)
    hits = [p for p in report.problems if p.file == place and words in p.problem and p.severity == severity]
    assert len(hits) >= 1, report.problems
    assert all(p.remedy for p in report.problems)
    assert report.ok == (severity == "warning")


def test_all_mistakes_are_found_together(root):
    mask_of_another_size(root)
    grey(root / "train/masks/a/r1.png", value=7)
    (root / "train/masks/a/r2.png").write_bytes(b"")
    write_rows("a,r0,1", "a,r1,1", "a,r2,1", "b,r0,x", "z,r0,1")(root)
    (root / "test/images/c.png").write_bytes(b"junk")
    shutil.rmtree(root / "test/masks/d")
    files = [p.file.removeprefix(f"{root}/") for p in check_dataset(root, to_train=False).errors]
    assert sorted(files) == [
        "test/images/c.png",
        "test/images/d.png",
        "train/masks/a/r0.png",
        "train/masks/a/r1.png",
        "train/masks/a/r2.png",
        "train/weights.csv",
        "train/weights.csv",
        "train/weights.csv, row 5",
    ]


def test_no_split_and_nothing_there(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset.yaml").write_text("nme: x")
    problems = [p.problem for p in check_dataset(tmp_path / "d").problems]
    assert len(problems) == 2 and "unknown key" in problems[0] and "no split" in problems[1]
    with pytest.raises(AmbisegError, match="no data set at"):
        check_dataset(tmp_path / "nothing")


def test_packed_files_obey_the_same_laws(root, tmp_path):
    path = pack(root, tmp_path / "d.h5")
    with h5py.File(path, "r+") as file:
        train = file["train/samples"]
        for part in (train["0/masks"], train["0/weights"], train["1/image"], file["test/samples/0/image"]):
            del part.attrs["crc32"]
        train["0/masks"][0] = 9
        train["0/weights"][:] = [1, 1, 1]
        train["1/image"][...] = 5
        file["test/samples/0/image"][...] = 5
        del file["test/samples/1/weights"]
        file.create_group("val")
    report = check_dataset(path, to_train=False)
    text = "\n".join(map(str, report.problems))
    for words in ("holds 9, but", "sum to 3", "a leak: b = c", "weights is missing", "/val/ids is missing"):
        assert words in text
    assert [s.images for s in report.summaries] == [2, 2]
    path.write_bytes(b"junk")
    report = check_dataset(path, to_train=False)
    assert len(report.problems) == 1 and "truncated" in report.problems[0].problem


def test_problems_read_as_one_line():
    problem = Problem("a.png", "the file is empty", "copy it again")
    assert str(problem) == "error: a.png: the file is empty: copy it again"
    report = CheckReport((problem, Problem("b", "c", "d", "warning")), ())
    assert not report.ok and len(report.errors) == len(report.warnings) == 1
