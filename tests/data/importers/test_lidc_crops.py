"""Distributed crops of LIDC-IDRI: read from every protocol without executing anything, split by patient or by
the public rule."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest

from ambiseg.data.augmentation_kinds import allowed
from ambiseg.data.importers import import_dataset
from ambiseg.data.importers.array_pickle import read_array_pickle
from ambiseg.data.importers.lidc_crops import import_crops
from ambiseg.data.importers.lidc_settings import LidcCropsSettings
from ambiseg.data.importers.lidc_splits import split_series
from ambiseg.data.source import open_split
from ambiseg.errors import AmbisegError

TWINS = (
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.151647338241909635299641922057",
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.254176853278710432756285662989",
)


def crops(count=12):
    """Two crops of each of some series; the first two series are of one patient."""
    rng = np.random.default_rng(0)
    names = [*TWINS, *(f"1.2.{i}" for i in range(count // 2 - 2))]
    return {
        f"crop_{i}": {
            "image": rng.random((16, 16)),
            "masks": [(rng.random((16, 16)) < 0.3).astype(kind) for kind in ("u1", "f8", "?", "i8")],
            "series_uid": names[i // 2],
        }
        for i in range(count)
    }


def dump(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def read(path, **options):
    imported = import_crops(path, LidcCropsSettings(**options))
    samples = {split: list(found) for split, found in imported.splits.items()}
    return samples, imported.split_name, [str(problem) for problem in imported.problems]


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_gives_the_same_crops(tmp_path, protocol):
    planted = crops()
    samples, name, problems = read(dump(tmp_path / "data_lidc.pickle", planted, protocol))
    assert not problems and name == "by patient, 60/20/20, seed 0"
    found = {sample.id: sample for split in samples.values() for sample in split}
    assert set(found) == set(planted)
    for key, entry in planted.items():
        np.testing.assert_array_equal(found[key].image[0], entry["image"].astype(np.float32))
        np.testing.assert_array_equal(found[key].masks, np.stack(entry["masks"]))
        assert found[key].annotators == ("reader-1", "reader-2", "reader-3", "reader-4")


def test_crops_of_scans_may_be_flipped_and_turned(tmp_path):
    info = import_crops(dump(tmp_path / "data_lidc.pickle", crops()), LidcCropsSettings()).info
    kinds = ["flip", "flip-vertical", "quarter-turns", "rotate"]
    assert all(allowed(info.augment, kind) for kind in kinds)
    assert allowed(info.augment, "scale") is None


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_any_order_type_and_byte_order(tmp_path, protocol):
    values = np.arange(6).reshape(2, 3)
    arrays = [values.astype(kind) for kind in ("<f4", ">f8", ">i2", "u1", "?", "S3", "<U2")]
    arrays += [np.asfortranarray(values), values.T.copy(), np.float64(2.5), np.str_("1.2.3")]
    found = read_array_pickle(dump(tmp_path / "a.pickle", arrays, protocol))
    for array, back in zip(arrays, found, strict=True):
        value = getattr(back, "value", back)
        np.testing.assert_array_equal(value, array)


class Call:
    """Pickles into a call of any function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_runs_nothing(tmp_path, protocol):
    victim = tmp_path / "executed"
    for function, args in (
        (os.system, (f"touch {victim}",)),
        (exec, (f"open({str(victim)!r}, 'w')",)),
        (getattr, (os, "getcwd")),
        (np.load, (str(victim),)),
    ):
        entries = (
            {**crops(), "evil": Call(function, *args)}
            if function is not getattr
            else {"a": Call(function, "a", "b")}
        )
        path = dump(tmp_path / "evil.pickle", entries, protocol)
        with pytest.raises(AmbisegError, match=rf"evil\.pickle: .*it names .*{function.__name__}"):
            read(path)
        assert not victim.exists()


def test_arrays_of_objects_and_lies_about_sizes_are_refused(tmp_path):
    honest = pickle.dumps(np.zeros((3, 5), np.uint8), 2)
    lies = {
        "objects": pickle.dumps(np.array([{}], object), 4),
        "huge": honest.replace(b"K\x03K\x05\x86", b"M\xff\xffM\xff\xff\x86"),
        "cut": honest[: len(honest) // 2],
        "empty": b"",
        "text": b"no pickle at all",
        "number": pickle.dumps(3),
    }
    assert lies["huge"] != honest
    for name, content in lies.items():
        path = tmp_path / f"{name}.pickle"
        path.write_bytes(content)
        with pytest.raises(AmbisegError, match=f"{name}.pickle"):
            read(path)


def test_small_pickles_that_ask_for_all_memory(tmp_path):
    path = tmp_path / "memo.pickle"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")  # a dictionary, kept under the number 2^32 - 1
    assert read_array_pickle(path) == {}
    text = b"X" + (10**5).to_bytes(4, "little") + b"a" * 10**5 + b"q\x00"
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    once, often = (b"\x80\x02(" + text + again * n + b"l." for n in (1, 1000))
    path.write_bytes(once)
    assert read_array_pickle(path) == ["a" * 10**5, b"a" * 10**5]
    path.write_bytes(often)
    with pytest.raises(AmbisegError, match="the same text is unpacked again and again"):
        read_array_pickle(path)


@pytest.mark.parametrize("code", [pickle.BINBYTES8, pickle.BYTEARRAY8, pickle.BINUNICODE8, pickle.FRAME])
def test_lengths_beyond_the_file_take_no_memory(tmp_path, code):
    path = tmp_path / "long.pickle"
    path.write_bytes(b"\x80\x05" + code + (1 << 45).to_bytes(8, "little") + b"abc.")
    with pytest.raises(AmbisegError, match="long.pickle: .*a part of it is longer than the file"):
        read_array_pickle(path)


def test_masks_of_0_and_255(tmp_path):
    planted = crops()
    for entry in planted.values():
        entry["masks"] = [mask.astype(np.uint8) * np.uint8(255) for mask in entry["masks"]]
    samples, _, problems = read(dump(tmp_path / "a.pickle", planted))
    assert not problems
    for sample in (sample for split in samples.values() for sample in split):
        np.testing.assert_array_equal(sample.masks, np.stack(planted[sample.id]["masks"]) // 255)


def test_bad_crops_are_left_out_and_named(tmp_path):
    entries = crops()
    entries["crop_0"]["image"] = np.full((16, 16), np.nan)
    entries["crop_1"]["masks"][2] = np.full((16, 16), 2)
    entries["crop_2"]["masks"][0] = np.zeros((16, 15))
    entries["crop_3"] = {"image": np.zeros((16, 16))}
    entries["crop_4"]["image"] = [1, 2]
    entries["../crop"] = entries["crop_5"]
    samples, _, problems = read(dump(tmp_path / "a.pickle", entries))
    assert sum(map(len, samples.values())) == 7 and len(problems) == 6
    for name in ("crop_0", "crop_1", "crop_2", "crop_3", "crop_4", "../crop"):
        assert any(name in problem for problem in problems), name


def test_pickles_of_a_folder_are_parts_of_one(tmp_path):
    entries = crops()
    keys = list(entries)
    dump(tmp_path / "a.pickle", {key: entries[key] for key in keys[:5]})
    dump(tmp_path / "b.pkl", {key: entries[key] for key in keys[4:]})
    samples, _, problems = read(tmp_path)
    assert sum(map(len, samples.values())) == 12 and len(problems) == 1 and "crop_4" in problems[0]


def test_splits_keep_patients_and_series_together(tmp_path):
    path = dump(tmp_path / "a.pickle", crops(40))
    for seed in range(6):
        samples, _, _ = read(path, seed=seed)
        homes = {key: split for split, found in samples.items() for key in (sample.id for sample in found)}
        assert len({homes[f"crop_{i}"] for i in range(4)}) == 1
        assert all(homes[f"crop_{i}"] == homes[f"crop_{i + 1}"] for i in range(0, 40, 2))
        assert set(homes.values()) == {"train", "val", "test"}


def test_lidcv1_is_the_public_rule():
    """scikit-learn's train_test_split with test_size 0.2 and random_state 0, twice, on the sorted names 00 to
    19."""
    names = {f"{i:02d}": "" for i in reversed(range(20))}
    splits, name = split_series(names, "lidcv1", 5)
    assert sorted(s for s in splits if splits[s] == "test") == ["01", "08", "18", "19"]
    assert sorted(s for s in splits if splits[s] == "val") == ["05", "07", "09", "17"]
    assert "LIDCv1" in name and len(splits) == 20


def hdf5(path, **changes):
    """The layout of PHiSeg and MoSE."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, count in (("test", 4), ("train", 6), ("val", 2)):
            group = file.create_group(split)
            group["images"] = rng.random((count, 16, 16)) - 0.5
            group["labels"] = (rng.random((count, 16, 16, 4)) < 0.2).astype(np.uint8)
            group["uids"] = np.arange(count) // 2 + 100 * len(split)
            for name, value in changes.items():
                del group[name]
                if value is not None:
                    group[name] = value(count) if callable(value) else value
    return path


def test_hdf5_keeps_its_splits_or_splits_by_series(tmp_path):
    path = hdf5(tmp_path / "data_lidc.hdf5")
    samples, name, problems = read(path, split="stored")
    assert {split: len(found) for split, found in samples.items()} == {
        "train": 6,
        "val": 2,
        "test": 4,
    } and not problems
    assert name == "as stored in the file"
    with h5py.File(path) as file:
        for split, found in samples.items():
            for i, sample in enumerate(found):
                np.testing.assert_array_equal(sample.image[0], file[split]["images"][i].astype(np.float32))
                np.testing.assert_array_equal(sample.masks, file[split]["labels"][i].transpose(2, 0, 1))
    samples, name, _ = read(path)
    assert sum(map(len, samples.values())) == 12 and name == "by series, 60/20/20, seed 0"
    with pytest.raises(AmbisegError, match="hashes"):
        read(path, split="lidcv1")


def test_hdf5_of_another_shape_is_refused(tmp_path):
    with pytest.raises(AmbisegError, match="does not tell the series"):
        read(hdf5(tmp_path / "a.h5", uids=None))
    assert read(tmp_path / "a.h5", split="stored")[0]["val"][0].id == "val-00000"
    linked = h5py.ExternalLink(str(tmp_path / "a.h5"), "/train/images")
    for name, changes in {
        "flat": {"images": lambda n: np.zeros((n, 16))},
        "few": {"labels": lambda n: np.zeros((n - 1, 16, 16, 4))},
        "text": {"images": lambda n: np.full((n, 16, 16), b"a")},
        "uids": {"uids": lambda n: np.zeros(n)},
        "link": {"images": linked},
    }.items():
        with pytest.raises(AmbisegError, match=f"{name}.h5"):
            read(hdf5(tmp_path / f"{name}.h5", **changes))
    with h5py.File(hdf5(tmp_path / "name.h5"), "r+") as file:
        file.move("test", "test\x01")
    with pytest.raises(AmbisegError, match=r"name\.h5: split 'test\\x01' cannot name a file"):
        read(tmp_path / "name.h5", split="stored")
    (tmp_path / "no.h5").write_bytes(b"no HDF5")
    with pytest.raises(AmbisegError, match=r"no\.h5: it cannot be read as HDF5"):
        read(tmp_path / "no.h5")
    with pytest.raises(AmbisegError, match="no splits of its own"):
        read(dump(tmp_path / "a.pickle", crops()), split="stored")


def test_digests_are_those_of_the_written_data(tmp_path):
    """Counted and hashed on the way to the disk, or read again where the ids do not ascend."""
    entries = crops()
    orders = {"up": sorted(entries), "down": sorted(entries, reverse=True)}
    digests = {}
    for order, keys in orders.items():
        path = dump(tmp_path / f"{order}.pickle", {key: entries[key] for key in keys}, 5)
        for form in ("", ".h5"):
            report = import_dataset("lidc-crops", path, tmp_path / f"{order}{form}")
            for split, digest in report.digests.items():
                found = open_split(report.path, split)
                assert digest == found.digest() and report.images[split] == len(found)
                assert digest in found.info.source and "by patient, 60/20/20, seed 0" in found.info.source
                assert f"ambiseg data import lidc-crops {order}.pickle" in found.info.source
                assert str(tmp_path) not in found.info.source and found.info.licence == "CC BY 3.0"
            digests[order, form] = report.digests
    assert len({str(found) for found in digests.values()}) == 1
