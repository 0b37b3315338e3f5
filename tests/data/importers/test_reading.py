"""What importers share: masks of any distribution, scaling, splits by file, arrays of strangers."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers import IMPORTERS
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nearest,
    npz_array,
    own_file,
    read_binary,
    read_split_file,
    smooth,
    splits_of,
)
from ambiseg.data.importers.settings import SplitSettings
from ambiseg.errors import AmbisegError


def test_binary_masks_of_any_kind_are_the_same_mask(tmp_path):
    mask = np.random.default_rng(0).integers(0, 2, (16, 16)).astype(np.uint8)
    big = np.kron(mask, np.ones((16, 16), np.uint8))
    Image.fromarray(mask).save(tmp_path / "ones.png")
    Image.fromarray(mask * 255).save(tmp_path / "white.png")
    Image.fromarray(np.stack([mask * 255] * 3, -1)).save(tmp_path / "rgb.png")
    Image.fromarray(mask.astype(bool)).save(tmp_path / "bits.png")
    for name in ("ones", "white", "rgb", "bits"):
        np.testing.assert_array_equal(read_binary(tmp_path / f"{name}.png"), mask)
    Image.fromarray(big * 255).save(tmp_path / "lossy.jpg", quality=60)
    np.testing.assert_array_equal(read_binary(tmp_path / "lossy.jpg"), big)
    Image.fromarray(mask * 3).save(tmp_path / "classes.png")
    with pytest.raises(FileProblem, match="classes.png: the mask holds values up to 3"):
        read_binary(tmp_path / "classes.png")


def test_scaling_keeps_constants_and_takes_the_nearest_centre():
    values = np.random.default_rng(1).integers(0, 255, (3, 12, 20)).astype(np.uint8)
    assert nearest(values, None) is values and smooth(values, (12, 20)) is values
    np.testing.assert_array_equal(nearest(values, (12, 20)), values)
    np.testing.assert_array_equal(nearest(values, (24, 60))[:, ::2, 1::3], values)
    small = nearest(values, (5, 7))
    rows = [min(11, int((i + 0.5) * 12 / 5)) for i in range(5)]
    np.testing.assert_array_equal(small[:, :, 3], values[:, rows, 10])
    for kind in (np.uint8, np.int16, np.float32):
        scaled = smooth(np.full((2, 8, 8), 7, kind), (3, 5))
        assert scaled.shape == (2, 3, 5) and (scaled == 7).all()
    assert smooth(values, (6, 10)).dtype == np.uint8


def test_problems_are_noted_and_the_rest_goes_on_while_other_errors_stop():
    problems = []

    def read(key):
        if key == 1:
            raise FileProblem("b.png", "broken", "mend it")
        if key == 9:
            raise AmbisegError("another data set")
        return None if key == 2 else key

    assert list(collected([0, 1, 2, 3], read, problems)) == [0, 3]
    assert [p.file for p in problems] == ["b.png"]
    with pytest.raises(AmbisegError, match="another data set"):
        list(collected([9], read, problems))


def test_links_that_lead_out_are_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(b"x")
    (root / ".hidden.png").write_bytes(b"x")
    (root / "b.png").symlink_to(tmp_path / "secret.png")
    assert [path.name for path in found_files(root, "*.png")] == ["a.png"]
    assert own_file(root, root / "a.png") == root / "a.png"
    for path in (root / "b.png", root / "../secret.png", tmp_path / "secret.png"):
        with pytest.raises(FileProblem, match="leads out of the data set"):
            own_file(root, path)


def test_splits_by_group_and_by_file(tmp_path):
    groups = {f"s{i}": f"p{i // 2}" for i in range(20)}
    splits, how = splits_of(groups, SplitSettings(seed=3), "patient")
    assert {len(names) for names in splits.values()} == {12, 4} and how == "by patient, 60/20/20, seed 3"
    for names in splits.values():
        assert all((f"s{int(n[1:]) ^ 1}") in names for n in names)
    path = tmp_path / "splits.csv"
    path.write_text("id,split\np1,test\np0,train\n")
    splits, how = splits_of(groups, SplitSettings(split_file=path), "patient")
    assert splits == {"train": ["s0", "s1"], "test": ["s2", "s3"]} and how == "by patient, file splits.csv"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "id,split\na,train\nzebra,val\ny,val\n",
            r"names 2 ids \(y, zebra\), of which the data have no patient",
        ),
        ("id,split\na,train\na,val\n", "id 'a' occurs twice"),
        ("id,fold\na,1\n", "has no column 'split'"),
    ],
)
def test_wrong_split_files_are_named(tmp_path, text, words):
    path = tmp_path / "splits.csv"
    path.write_text(text)
    with pytest.raises(AmbisegError, match=f"splits.csv.*{words}"):
        read_split_file(path, {"a", "b"}, "patient")
    with pytest.raises(AmbisegError, match=r"none.csv.*cannot be read"):
        read_split_file(tmp_path / "none.csv", {"a"}, "patient")


def test_arrays_of_strangers_are_checked_before_they_are_decoded(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 3, 4)), objects=np.array([[[{}]]]))
    assert npz_array(path, "images").shape == (2, 3, 4)
    for name, words in [("labels", "labels"), ("objects", "save integers or floats")]:
        with pytest.raises(FileProblem, match=f"a.npz: .*{words}"):
            npz_array(path, name)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 999999, 999999), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(FileProblem, match="more than the limit"):
        npz_array(path, "images")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(FileProblem, match="cannot be read as npz"):
        npz_array(path, "images")


def test_settings_need_no_torch():
    code = "import sys, ambiseg.data.importers.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, importer in IMPORTERS.items():
        assert dataclasses.is_dataclass(importer.settings_class()()), name


def test_arrays_that_claim_more_than_they_hold_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1_000_000, 512, 512)}
    )
    for content, words in [
        (header.getvalue() + bytes(100), "is stored as"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(10_000_000), "its header claims 4294967295 bytes"),
    ]:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", content)
        with pytest.raises(FileProblem, match=f"a.npz: .*{words}"):
            npz_array(path, "images")


def test_binary_pictures_that_are_transparent_are_refused(tmp_path):
    picture = Image.fromarray(np.full((4, 4), 255, np.uint8)).convert("LA")
    picture.save(tmp_path / "a.png")
    assert read_binary(tmp_path / "a.png").all()
    picture.putalpha(Image.fromarray(np.eye(4, dtype=np.uint8) * 255))
    picture.save(tmp_path / "a.png")
    with pytest.raises(FileProblem, match="75.0% of its pixels are transparent"):
        read_binary(tmp_path / "a.png")
