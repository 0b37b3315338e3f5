"""Volumes as a data set: slices, masks, splits, packed files, and what the check says of planted faults."""

from __future__ import annotations

import csv
import os
import shutil

import nibabel
import numpy as np
import pytest

from ambiseg.cli.parsing import Grouping
from ambiseg.data.batches import BatchOrder
from ambiseg.data.check import check_dataset
from ambiseg.data.info import DatasetInfo
from ambiseg.data.packed import pack
from ambiseg.data.source import list_splits, open_split
from ambiseg.data.splits.resplit import Pool
from ambiseg.data.volumes import unpacked
from ambiseg.data.volumes.settings import SliceSettings, of_slices, own_channels, slice_id, volume_of
from ambiseg.data.volumes.unpacked import Unpacked
from ambiseg.errors import AmbisegError
from volume_replica import AFFINE, RATERS, SHAPE, case, write_dataset, write_nifti, write_nrrd, write_series

FLIP = np.diag([-1.0, 1, 1, 1])
FLIP[0, 3] = SHAPE[0] - 1
"""From voxels that run the other way along the first axis to those that do not."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A data set of four volumes; tests leave it as it is."""
    return write_dataset(tmp_path_factory.mktemp("volumes") / "set")


@pytest.fixture
def copied(volumes, tmp_path):
    """The same for tests that change it."""
    shutil.copytree(volumes, tmp_path / "set")
    return tmp_path / "set"


def says(root, slices):
    (root / "dataset.yaml").write_text(f"slices: {slices}\n")
    return root


def errors(root):
    return [str(cause) for cause in check_dataset(root).causes if cause.severity == "error"]


@pytest.mark.parametrize(("axis", "number"), [("axial", 2), ("coronal", 1), ("sagittal", 0), (0, 0)])
def test_samples_are_the_slices_of_the_volumes(copied, axis, number):
    split = open_split(says(copied, f"{{axis: {axis}}}"), "train")
    assert len(split) == 2 * SHAPE[number] and split.ids == tuple(sorted(split.ids))
    assert split.ids[1] == "case0_z0001" and split.groups["case0_z0001"] == "case0"
    for i, sample in enumerate(split):
        image, masks = case(i // SHAPE[number])
        index = i % SHAPE[number]
        np.testing.assert_array_equal(sample.image[0], image.take(index, number))
        assert sample.annotators == RATERS and sample.image.dtype == np.int16
        for name, mask in zip(RATERS, sample.masks, strict=True):
            np.testing.assert_array_equal(mask, masks[name].take(index, number))


def test_neighbours_are_channels_with_names(copied):
    says(copied, "{axis: axial, neighbours: 1}\nchannels: [ct]")
    split, whole = open_split(copied, "val"), case(2)[0]
    assert split.info.channels == ("ct-1", "ct", "ct+1")
    np.testing.assert_array_equal(split[0].image, np.moveaxis(whole[:, :, [0, 0, 1]], 2, 0))
    np.testing.assert_array_equal(split[3].image, np.moveaxis(whole[:, :, [2, 3, 4]], 2, 0))
    assert check_dataset(copied).ok and own_channels(split.info.channels, 3) == [1]


def test_only_slices_with_foreground_are_kept(copied):
    split = open_split(says(copied, "{axis: axial, keep: foreground}"), "test")
    masks = case(3)[1]
    marked = [i for i in range(SHAPE[2]) if any(mask[:, :, i].any() for mask in masks.values())]
    assert 0 < len(marked) < SHAPE[2]
    assert split.ids == tuple(f"case3_z{i:04}" for i in marked)
    assert check_dataset(copied).summaries[2].images == len(marked)


def test_a_packed_file_and_a_new_split_hold_the_same_slices(copied, tmp_path):
    says(copied, "{axis: axial, neighbours: 1}")
    packed = pack(copied, tmp_path / "set.h5")
    for name in ("train", "val", "test"):
        stored, again = open_split(copied, name), open_split(packed, name)
        assert stored.digest() == again.digest() and stored.groups == again.groups
        assert again.info.slices == SliceSettings("axial", 1) and again.info.channels == stored.info.channels
    pool = Pool(copied)
    pool.write(tmp_path / "new", {name: "train" for name in pool.ids if name.startswith("case2")})
    assert open_split(tmp_path / "new", "train").digest() == open_split(copied, "val").digest()
    assert check_dataset(packed).summaries == check_dataset(copied).summaries
    assert [summary.volumes for summary in check_dataset(packed).summaries] == [2, 1, 1]


def test_weights_are_those_of_the_volume(copied):
    (copied / "val" / "weights.csv").write_text("id,annotator,weight\ncase2,anna,0.25\ncase2,ben,0.75\n")
    assert all(sample.weights.tolist() == [0.25, 0.75] for sample in open_split(copied, "val"))
    (copied / "val" / "weights.csv").write_text("id,annotator,weight\ncase2,anna,0.25\n")
    assert errors(copied) and "has no weight for 'ben'" in errors(copied)[0]


def test_a_sound_set_has_no_problem_and_counts_volumes_and_slices(volumes):
    report = check_dataset(volumes)
    assert report.ok and not report.warnings
    assert [(s.volumes, s.images, s.annotations) for s in report.summaries] == [
        (2, 12, 24),
        (1, 6, 12),
        (1, 6, 12),
    ]
    assert report.summaries[0].counted == "12 slices of 2 volumes"


def test_slices_of_air_are_no_leak_but_copied_slices_are(copied):
    for number, split in ((0, "train"), (2, "val")):
        image, _ = case(number)
        image[:, :, 0] = -1000
        if number == 2:
            image[:, :, 4] = case(0)[0][:, :, 3]
        write_nifti(copied / split / "images" / f"case{number}.nii.gz", image)
    (warning,) = check_dataset(copied).warnings
    assert "1 identical image, a leak: case0_z0003 = case2_z0004" in warning.problem


def test_another_number_of_slices_is_one_sentence_with_both_numbers(copied):
    for number in (0, 1):
        masks = case(number)[1]
        write_nifti(copied / "train" / "masks" / f"case{number}" / "ben.nii.gz", masks["ben"][:, :, :-1])
    (cause,) = check_dataset(copied).causes
    assert len(cause.files) == 2 and cause.files[0].endswith("case0/ben.nii.gz")
    assert cause.problem == "the mask has 5 slices but its image 'case0.nii.gz' 6 slices; the others alike"
    with pytest.raises(
        AmbisegError, match="ben.nii.gz: the mask has 5 slices but its image 'case0.nii.gz' 6"
    ):
        list(open_split(copied, "train"))


def test_another_orientation_is_refused_and_reordered_where_that_is_asked_for(copied):
    mask = case(2)[1]["ben"]
    path = copied / "val" / "masks" / "case2" / "ben.nii.gz"
    write_nifti(path, mask[::-1], AFFINE @ FLIP)
    (said,) = errors(copied)
    assert "ben.nii.gz" in said and "its orientation is RAS, that of its image 'case2.nii.gz' LAS" in said
    assert "add 'reorder: true' to 'slices'" in said
    says(copied, "{axis: axial, reorder: true}")
    assert not errors(copied)
    for index, sample in enumerate(open_split(copied, "val")):
        np.testing.assert_array_equal(sample.masks[1], mask[:, :, index])
    write_nifti(path, np.moveaxis(mask, [0, 1, 2], [2, 0, 1])[:, ::-1], AFFINE @ np.eye(4)[[2, 0, 1, 3]].T)
    assert errors(copied)  # the affine does not say that it is mirrored


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2)])
@pytest.mark.parametrize("mirrored", [(), (0,), (0, 1, 2)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_order_of_voxels_is_put_in_that_of_the_image(tmp_path, order, mirrored, axis):
    from ambiseg.data.volumes.grid import place
    from ambiseg.data.volumes.volume import open_volume

    image, masks = case(0)
    values, affine = np.transpose(masks["ben"], order), AFFINE[:, [*order, 3]].copy()
    for side in mirrored:
        values = np.flip(values, side)
        affine[:, 3] += affine[:, side] * (values.shape[side] - 1)
        affine[:, side] *= -1
    first = open_volume(write_nifti(tmp_path / "image.nii", image))
    mask = open_volume(write_nifti(tmp_path / "mask.nii", np.ascontiguousarray(values), affine))
    placed = place(mask, first, axis, reorder=True)
    for index in range(SHAPE[axis]):
        np.testing.assert_array_equal(placed.plane(axis, index), masks["ben"].take(index, axis))


def test_volumes_of_other_orientations_are_a_warning(copied):
    for path in [copied / "val" / "images" / "case2.nii.gz", *(copied / "val" / "masks" / "case2").iterdir()]:
        values = np.asanyarray(nibabel.load(path).dataobj)
        write_nifti(path, np.ascontiguousarray(values[::-1]), AFFINE @ FLIP)
    report = check_dataset(copied)
    (warning,) = report.warnings
    assert (
        report.ok
        and "3 images with LAS, such as train/case0, 1 image with RAS, such as val/case2" in warning.problem
    )


def test_a_mask_elsewhere_or_without_a_place_is_refused(copied):
    mask, folder = case(2)[1]["anna"], copied / "val" / "masks" / "case2"
    moved = AFFINE.copy()
    moved[2, 3] += 5
    write_nifti(folder / "anna.nii.gz", mask, moved)
    assert "its first voxel is voxel (0.0, 0.0, 2.0) there" in errors(copied)[0]
    write_nifti(folder / "anna.nii.gz", mask, coded=False)
    assert "its header does not say where it lies, but that of 'case2.nii.gz' does" in errors(copied)[0]
    write_nifti(folder / "anna.nii.gz", np.stack([mask, mask], -1))
    assert "the mask has 2 channels" in errors(copied)[0]


def test_a_link_of_a_series_does_not_lead_out_of_the_data(copied, tmp_path):
    (copied / "val" / "images" / "case2.nii.gz").unlink()
    folder = write_series(copied / "val" / "images" / "case2", case(2)[0])
    assert not errors(copied)
    file = sorted(folder.iterdir())[0]
    file.rename(tmp_path / "secret.dcm")
    file.symlink_to(tmp_path / "secret.dcm")
    assert f"{file.name}" in errors(copied)[0] and "the link leads out of the data" in errors(copied)[0]
    with pytest.raises(AmbisegError, match="the link leads out of the data"):
        open_split(copied, "val")


def test_numbers_that_are_no_classes_are_named_once_for_each_mask(copied):
    mask = case(2)[1]["anna"].astype(np.int16)
    mask[0, 0, 1], mask[0, 0, 4] = 2, 7
    write_nifti(copied / "val" / "masks" / "case2" / "anna.nii.gz", mask)
    (cause,) = check_dataset(copied).causes
    assert len(cause.files) == 1 and "holds 2 and 7" in cause.problem
    with pytest.raises(AmbisegError, match="anna.nii.gz.* holds"):
        list(open_split(copied, "val"))


def test_a_damaged_volume_is_named_once(copied):
    path = copied / "train" / "images" / "case1.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    assert len(errors(copied)) == 1 and "case1.nii.gz" in errors(copied)[0]


def test_volumes_without_the_entry_say_what_to_write(copied):
    (copied / "dataset.yaml").write_text("name: x\n")
    assert "a volume: add 'slices: {axis: axial}' to dataset.yaml" in str(check_dataset(copied).errors[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{axes: axial}", "unknown key of slices 'axes': did you mean 'axis'"),
        ("{axis: axal}", "axis of slices is 'axal'"),
        ("{neighbours: 1.5}", "neighbours of slices is 1.5"),
        ("{neighbours: 99}", "0 to 50"),
        ("{keep: some}", "keep of slices is 'some'"),
        ("{reorder: 1}", "reorder of slices is 1"),
        ("axial", "slices is a mapping"),
    ],
)
def test_senseless_settings_are_refused(text, words):
    with pytest.raises(AmbisegError, match=words):
        DatasetInfo.from_yaml(f"slices: {text}")


def test_ids_of_slices_lead_to_volumes():
    for name in ("a", "case_z0001", "a_z"):
        for index, count in ((0, 1), (41, 200), (12345, 20000)):
            assert volume_of(slice_id(name, index, count)) == name
    assert slice_id("a", 7, 20000) < slice_id("a", 12345, 20000)
    assert of_slices({"a": 1, "b_z0000": 2}, ["a_z0000", "a_z0001", "b_z0000"]) == {
        "a_z0000": 1,
        "a_z0001": 1,
        "b_z0000": 2,
    }


def test_a_table_of_groups_may_name_volumes(volumes, tmp_path):
    ids = open_split(volumes, "train").ids
    (tmp_path / "groups.csv").write_text("id,group\ncase0,p1\ncase1,p2\n")
    found = Grouping(groups=tmp_path / "groups.csv").of(ids)
    assert found == {name: "p1" if name.startswith("case0") else "p2" for name in ids}


def test_a_volume_is_never_split(volumes, tmp_path, capsys):
    from ambiseg.cli.data_split import run

    assert run([str(volumes), "--out", str(tmp_path / "a.csv"), "--fractions", "train=0.5", "test=0.5"]) == 0
    with open(tmp_path / "a.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    of = {volume_of(row["id"]): set() for row in rows}
    for row in rows:
        of[volume_of(row["id"])].add(row["split"])
    assert len(rows) == 24 and all(len(splits) == 1 for splits in of.values())
    assert "4 groups, such as case0 (6 images)" in capsys.readouterr().out
    with pytest.raises(AmbisegError, match="slices of the volume 'case0' are in the groups"):
        run([str(volumes), "--out", str(tmp_path / "b.csv"), "--prefix", ".*"])


def test_batches_take_turns_with_as_many_volumes_as_fit():
    units = [(list(range(10 * i, 10 * i + 10)), 100) for i in range(6)]
    order = BatchOrder(60, 5, seed=3, units=units, window=250)
    stream = iter(order)
    places = [place for _ in range(24) for place in next(stream)]
    for epoch in range(2):
        own = [index for number, index in places[60 * epoch : 60 * epoch + 60] if number == epoch]
        assert sorted(own) == list(range(60))
        for first in range(0, 60, 20):
            window = own[first : first + 20]
            assert len({index // 10 for index in window}) == 2 and window != sorted(window)
    later = iter(BatchOrder(60, 5, seed=3, start=7, units=units, window=250))
    assert next(later) == places[35:40]


def test_volumes_that_are_mapped_need_no_order(copied):
    assert [size for _, size in open_split(copied, "train").units()] == [6 * 120 * (2 + 2)] * 2
    for path in sorted(copied.rglob("*.nii.gz")):
        nibabel.save(nibabel.load(path), path.with_name(path.name.removesuffix(".gz")))
        path.unlink()
    assert open_split(copied, "train").units() is None


def test_an_image_and_its_masks_are_unpacked_once_however_large_they_are(volumes, monkeypatch):
    store, calls = Unpacked(100), []
    monkeypatch.setattr("ambiseg.data.volumes.stored.UNPACKED", store)
    monkeypatch.setattr("ambiseg.data.volumes.cases.UNPACKED", store)
    real = unpacked.unpack
    monkeypatch.setattr("ambiseg.data.volumes.stored.unpack", lambda *args: calls.append(args) or real(*args))
    assert len(list(open_split(volumes, "val"))) == SHAPE[2]
    assert len(calls) == 3 and store.size == store.most == 6 * 120 * (2 + 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_worker_process_does_not_wait_for_a_thread_of_its_parent(volumes):
    split = open_split(volumes, "val")
    with unpacked.UNPACKED._lock:
        child = os.fork()
        if not child:
            os._exit(0 if split[0].image.any() and unpacked.UNPACKED.size else 1)
    assert os.waitpid(child, 0)[1] == 0


def lay_out(root, layout):
    """Four volumes in one of the layouts of others."""
    for number in range(4):
        image, masks = case(number)
        name = f"p{number}"
        if layout == "nnunet":
            write_nifti(root / "imagesTr" / f"{name}_0000.nii.gz", image)
        elif layout == "bids":
            write_nifti(root / f"sub-{name}" / "anat" / f"sub-{name}_T1w.nii.gz", image)
        elif layout == "annotators":
            write_nrrd(root / "images" / f"{name}.nrrd", image)
        elif layout == "cases":
            write_nifti(root / name / "ct.nii.gz", image)
        elif layout == "series":
            write_series(root / "dicom" / name, image + 10)
        elif layout == "series with masks":
            write_series(root / name, image + 10)
        for rater, mask in masks.items():
            if layout == "nnunet":
                write_nifti(root / "labelsTr" / f"{name}_{rater}.nii.gz", mask)
            elif layout == "bids":
                place = root / "derivatives" / "seg" / f"sub-{name}" / "anat"
                write_nifti(place / f"sub-{name}_desc-{rater}_dseg.nii.gz", mask)
            elif layout == "annotators":
                write_nrrd(root / "masks" / rater / f"{name}.nrrd", mask)
            elif layout == "series":
                write_nifti(root / "masks" / f"{name}_{rater}.nii.gz", mask[::-1], AFFINE @ FLIP)
            elif layout == "series with masks":
                write_nrrd(root / name / f"{rater}.nrrd", mask)
            else:
                write_nifti(root / name / f"{rater}.nii.gz", mask)
    return root


@pytest.mark.parametrize(
    ("layout", "images"),
    [
        ("nnunet", "images{split:Tr}/{id}_{channel:0000}.*"),
        ("bids", "sub-*/**/{id}_T1w.*"),
        ("annotators", "images/{id}.*"),
        ("cases", "{id}/ct.*"),
        ("series", "dicom/{id}.*"),
        ("series with masks", "{id}"),
    ],
)
def test_init_finds_volumes_of_others(tmp_path, layout, images, capsys):
    from ambiseg.cli.data_init import run

    root = lay_out(tmp_path / "set", layout)
    assert run([str(root), "--fractions", "train=0.5", "val=0.5"]) == 0
    assert f"{images}: 4 volumes, read as axial slices" in capsys.readouterr().out
    assert list_splits(root) == ["train", "val"] and check_dataset(root).ok
    seen = set()
    for name in ("train", "val"):
        for sample in open_split(root, name):
            volume, _, index = sample.id.rpartition("_z")
            image, masks = case(int(volume[-1]))
            seen.add(volume)
            np.testing.assert_array_equal(sample.image[0], image[:, :, int(index)])
            for rater, mask in zip(RATERS, sample.masks, strict=True):
                np.testing.assert_array_equal(mask, masks[rater][:, :, int(index)])
    assert len(seen) == 4
