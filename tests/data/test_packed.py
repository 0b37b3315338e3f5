"""The packed form: the same data as the folder form, and no trust in a file from a stranger."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ambiseg.data.folder import DatasetInfo, FolderSplit, write_folder
from ambiseg.data.packed import PackedSplit, pack, packed_splits, write_packed
from ambiseg.data.sample import Sample
from ambiseg.data.source import SpreadSplit, list_splits, open_split, write_dataset
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace


def make_sample(name, seed=0, size=(9, 12), channels=1, dtype=np.uint8, masks=3, weights=None):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (channels, *size)).astype(dtype)
    layers = rng.integers(0, 3, (masks, *size), np.uint8)
    weights = np.full(masks, 1 / masks) if weights is None else np.asarray(weights, float)
    return Sample(name, image, layers, weights, tuple(f"r{i}" for i in range(masks)))


INFO = DatasetInfo(
    "three", LabelSpace.of_classes(3, ignore_value=255), licence="CC0", augment={"flip": False}
)


def mixed_samples():
    return [
        make_sample("b", 1, (5, 8), 3, masks=1),
        make_sample("ä", 2, (20, 3), 7, np.float32, weights=[0.5, 0.2, 0.3]),
        make_sample("a", 3, (9, 9), 2, np.int16, masks=5),
    ]


@pytest.fixture
def packed(tmp_path):
    return write_packed(tmp_path / "d.h5", {"train": mixed_samples(), "test": []}, INFO)


def tamper(path, change):
    with h5py.File(path, "r+") as file:
        change(file)


def replace(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


# the same data


def test_folder_and_packed_forms_are_equal(tmp_path):
    root = write_folder(tmp_path / "d", {"train": mixed_samples(), "test": mixed_samples()[:1]}, INFO)
    packed = pack(root, tmp_path / "d.h5")
    again = write_dataset(
        tmp_path / "e", {name: open_split(packed, name) for name in list_splits(packed)}, INFO
    )
    direct = write_dataset(
        tmp_path / "f.hdf5", {"test": mixed_samples()[:1], "train": iter(mixed_samples())}, INFO
    )
    forms = (root, packed, again, direct)
    for form in forms:
        assert list_splits(form) == ["train", "test"]
    for name in ("train", "test"):
        splits = [open_split(form, name) for form in forms]
        assert len({split.digest() for split in splits}) == 1
        assert all(split.ids == splits[0].ids and split.info == INFO for split in splits)
        for one, other in zip(splits[0], splits[1], strict=True):
            assert (one.id, one.annotators, one.image.dtype) == (
                other.id,
                other.annotators,
                other.image.dtype,
            )
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.masks, other.masks)
            np.testing.assert_array_equal(one.weights, other.weights)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_digests_agree_for_all_shapes_and_types(tmp_path, data):
    samples = [
        make_sample(
            name,
            data.draw(st.integers(0, 99)),
            data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
            data.draw(st.integers(1, 4)),
            data.draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.float64])),
            data.draw(st.integers(1, 4)),
        )
        for name in data.draw(st.lists(st.text("abc0", min_size=1, max_size=3), unique=True, max_size=3))
    ]
    folder = write_folder(tmp_path / "d", {"x": samples}, INFO, overwrite=True)
    packed = write_packed(tmp_path / "d.h5", {"x": samples}, INFO, overwrite=True)
    assert FolderSplit(folder, "x").digest() == PackedSplit(packed, "x").digest()


def test_a_nameless_folder_and_the_door(tmp_path):
    sample = make_sample("a")
    sample = Sample("a", sample.image, sample.masks % 2, sample.weights, sample.annotators)
    path = write_packed(tmp_path / "d.h5", {"train": [sample]}, DatasetInfo())
    assert open_split(path, "train").info == DatasetInfo("d")
    assert isinstance(open_split(path, "train"), PackedSplit)
    with pytest.raises(AmbisegError, match="no split 'val': it has train"):
        open_split(path, "val")
    for call in (list_splits, lambda p: open_split(p, "train")):
        with pytest.raises(AmbisegError, match="no data set at .*tmp.* exists"):
            call(tmp_path / "typo" / "d.h5")
    with pytest.raises(AmbisegError, match="name the data set to pack"):
        pack(path, tmp_path / "e.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AmbisegError, match="there is no split"):
        pack(tmp_path / "empty", tmp_path / "e.h5")


@pytest.mark.parametrize("count, chosen", [(1, "0"), (2, "02"), (3, "013"), (5, "01234"), (9, "01234")])
def test_a_spread_has_its_images_evenly_from_the_whole(tmp_path, count, chosen):
    samples = [make_sample(name) for name in "01234"]
    split = open_split(write_packed(tmp_path / "d.h5", {"train": samples}, INFO), "train")
    spread = SpreadSplit(split, count)
    assert "".join(spread.ids) == chosen and len(spread) == len(chosen)
    assert [sample.id for sample in spread] == list(chosen) == [spread[i].id for i in range(len(spread))]
    assert spread.info == split.info and spread.digest() != split.digest()


def read_in_child(split, queue):
    queue.put(split.digest())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_open_split_works_in_other_processes(packed, method):
    split = PackedSplit(packed, "train")
    digest = split.digest()
    if method == "spawn":
        assert pickle.loads(pickle.dumps(split)).digest() == digest
        return
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(split, queue))
    child.start()
    child.join(20)
    assert child.exitcode == 0 and queue.get() == digest
    assert split.digest() == digest


# strangers' files


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.attrs.__delitem__("format"), "not a packed data set"),
        (lambda f: f.attrs.__setitem__("info", 3), "not a packed data set"),
        (lambda f: f.attrs.__setitem__("info", "name: x"), "not a packed data set"),
        (lambda f: f.attrs.__setitem__("version", 2), "format version 2 is not 1"),
        (lambda f: f.attrs.__setitem__("info", np.bytes_("nam: x")), "did you mean 'name'"),
        (replace("train/ids", np.arange(3)), "not a list of names"),
        (replace("train/ids", ["a", "b", "c"]), "not a list of names"),
        (replace("train/ids", np.array([b"a", b"a", b"b"])), "holds an id twice"),
        (replace("train/ids", np.array([b"a", b"../x", b"b"])), "cannot name a file"),
        (replace("train/ids", np.array([b"a", b"b", b"c", b"d"])), "samples/3 is missing"),
        (replace("train/samples/0/image", h5py.SoftLink("/train/samples/1/image")), "is a link"),
        (replace("train/samples/0/image", h5py.ExternalLink("/etc/passwd", "/x")), "is a link"),
        (replace("train", h5py.ExternalLink("other.h5", "/train")), "is a link"),
        (replace("train/samples", np.zeros(3)), "is not a group"),
        (replace("train/samples/0/image", np.zeros((5, 8))), "image \\(5, 8\\)"),
        (replace("train/samples/0/image", np.full((1, 5, 8), np.nan)), "NaN"),
        (replace("train/samples/0/image", np.zeros((1, 5, 9))), "5 high, 8 wide"),
        (replace("train/samples/0/masks", np.full((1, 5, 8), 9, np.uint8)), "holds 9, but"),
        (replace("train/samples/0/masks", np.zeros((1, 5, 8))), "masks"),
        (replace("train/samples/0/masks", np.zeros((0, 5, 8), np.uint8)), "weights"),
        (replace("train/samples/0/weights", np.array([0.5])), "sum to 0.5"),
        (replace("train/samples/0/weights", np.array([np.nan])), "NaN"),
        (replace("train/samples/0/weights", np.array([b"x"])), "values of type"),
        (lambda f: f["train/samples/0"].attrs.__delitem__("annotators"), "damaged"),
        (lambda f: f["train/samples/0"].attrs.__setitem__("annotators", np.array([b"a", b"b"])), "damaged"),
    ],
)
def test_tampered_files_are_refused(packed, change, words):
    tamper(packed, change)
    with pytest.raises(AmbisegError, match=f"d.h5.*{words}"):
        list(PackedSplit(packed, "train"))


def test_oversized_external_and_virtual_storage_is_refused(packed, tmp_path):
    def huge(file):
        del file["train/samples/0/image"]
        file.create_dataset("train/samples/0/image", (1, 20_000, 20_000), "u1", chunks=(1, 100, 100))

    def external(file):
        del file["train/samples/0/image"]
        outside = [(str(tmp_path / "secret"), 0, 40)]
        file.create_dataset("train/samples/0/image", (1, 5, 8), "u1", external=outside)

    def virtual(file):
        del file["train/samples/0/image"]
        layout = h5py.VirtualLayout((1, 5, 8), "u1")
        layout[0] = h5py.VirtualSource("other.h5", "x", (5, 8))
        file.create_virtual_dataset("train/samples/0/image", layout)

    (tmp_path / "secret").write_bytes(b"s" * 40)
    for change, words in [(huge, "20000x20000 pixels"), (external, "other files"), (virtual, "other files")]:
        tamper(packed, change)
        with pytest.raises(AmbisegError, match=words):
            list(PackedSplit(packed, "train"))


def test_truncated_foreign_and_missing_files_are_refused(packed, tmp_path):
    whole = packed.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"no HDF5" * 99):
        packed.write_bytes(content)
        with pytest.raises(AmbisegError, match="truncated or of another format"):
            packed_splits(packed)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(AmbisegError, match="not a packed data set"):
        packed_splits(tmp_path / "foreign.h5")
    with pytest.raises(AmbisegError, match="no such file"):
        PackedSplit(tmp_path / "none.h5", "train")


def test_damaged_bytes_never_escape_as_other_errors(packed):
    whole = bytearray(packed.read_bytes())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = whole.copy()
        for place in rng.integers(0, len(whole), 8):
            damaged[place] ^= int(rng.integers(1, 256))
        packed.write_bytes(damaged)
        try:
            list(PackedSplit(packed, "train"))
        except AmbisegError:
            refused += 1
    assert refused > 0


# writing


def test_interrupted_and_refused_writes_leave_nothing_behind(tmp_path):
    def interrupted():
        yield make_sample("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packed(tmp_path / "d.h5", {"train": interrupted()}, INFO)
    for wrong in ([make_sample("../a")], [make_sample("a"), make_sample("a")]):
        with pytest.raises(AmbisegError):
            write_packed(tmp_path / "d.h5", {"train": wrong}, INFO)
    assert not list(tmp_path.iterdir())


def test_overwriting_is_on_demand(packed):
    with pytest.raises(AmbisegError, match="exists already"):
        write_packed(packed, {"train": []}, INFO)
    write_packed(packed, {"val": mixed_samples()}, INFO, overwrite=True)
    assert packed_splits(packed) == ["val"]
    with pytest.raises(AmbisegError, match="is a folder"):
        write_packed(packed.parent, {"train": []}, INFO, overwrite=True)


def test_black_and_white_masks_of_a_packed_file_are_classes(tmp_path):
    sample = make_sample("a")
    sample = dataclasses.replace(sample, masks=sample.masks % 2)
    path = write_packed(tmp_path / "d.h5", {"train": [sample]}, DatasetInfo("two"))
    tamper(path, replace("train/samples/0/masks", sample.masks * 255))
    np.testing.assert_array_equal(PackedSplit(path, "train")[0].masks, sample.masks)


def test_a_white_block_that_becomes_black_is_noticed(tmp_path):
    """To Fletcher-32, the checksum of HDF5, the bytes 00 00 and ff ff are the same."""
    image = np.full((1, 9, 12), 255, np.uint8)
    image[0, 0, :2] = 7
    sample = dataclasses.replace(make_sample("a"), image=image)
    path = write_packed(
        tmp_path / "d.h5", {"train": [sample]}, DatasetInfo("three", LabelSpace.of_classes(3))
    )
    white, content = bytes([255] * 106), path.read_bytes()
    assert content.count(white) == 1
    path.write_bytes(content.replace(white, bytes(106)))
    with pytest.raises(AmbisegError, match="d.h5, train, id 'a': .*image does not have the checksum"):
        PackedSplit(path, "train")[0]


def test_files_without_the_second_checksum_are_read(packed):
    before = [sample.image for sample in PackedSplit(packed, "train")]

    def forget(_, part):
        part.attrs.pop("crc32", None)

    tamper(packed, lambda file: file.visititems(forget))
    for sample, image in zip(PackedSplit(packed, "train"), before, strict=True):
        np.testing.assert_array_equal(sample.image, image)


def test_parts_larger_than_any_image_are_not_decoded(packed):
    def chunked(file):
        entry = file["train/samples/0"]
        shape = entry["image"].shape
        del entry["image"]
        entry.create_dataset("image", shape, "u1", chunks=(1, 30_000, 30_000), maxshape=(None,) * 3)

    tamper(packed, chunked)
    with pytest.raises(AmbisegError, match="stored in parts of"):
        PackedSplit(packed, "train")[1]
