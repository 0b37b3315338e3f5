"""The folder form: what is written is read again, what is wrong is refused, what fails leaves nothing."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ambiseg.data import folder as folder_module
from ambiseg.data.files.reading import write_mask
from ambiseg.data.folder import DatasetInfo, FolderSplit, folder_splits, write_folder
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

TYPES = (np.uint8, np.uint16, np.int16, np.float32)


def make_sample(name, seed=0, size=(9, 12), channels=1, dtype=np.uint8, masks=3, classes=2, weights=None):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (channels, *size)).astype(dtype)
    layers = rng.integers(0, classes, (masks, *size), np.uint8)
    weights = np.full(masks, 1 / masks) if weights is None else np.asarray(weights, float)
    return Sample(name, image, layers, weights, tuple(f"r{i}" for i in range(masks)))


def assert_equal(one, other):
    assert (one.id, one.annotators) == (other.id, other.annotators)
    for a, b in [(one.image, other.image), (one.masks, other.masks), (one.weights, other.weights)]:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def only(path):
    return [p.name for p in path.iterdir()]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_written_is_read_again(tmp_path, data):
    count, channels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    parts = data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count).filter(any))
    size = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    dtype = data.draw(st.sampled_from(TYPES))
    sample = make_sample(
        "a", data.draw(st.integers(0, 99)), size, channels, dtype, count, 4, np.array(parts) / sum(parts)
    )
    info = DatasetInfo("test", LabelSpace.of_classes(4))
    split = FolderSplit(write_folder(tmp_path / "d", {"train": [sample]}, info, overwrite=True), "train")
    assert split.info == info
    assert_equal(split[0], sample)


def test_order_length_progress_and_missing_yaml(tmp_path):
    told = []
    samples = [make_sample(name, seed) for seed, name in enumerate(["b", "a", "c"])]
    splits = {"test": iter(samples), "train": samples[:1]}
    write_folder(tmp_path / "d", splits, DatasetInfo(), lambda *values: told.append(values))
    (tmp_path / "d" / "dataset.yaml").unlink()
    split = FolderSplit(tmp_path / "d", "test")
    assert split.ids == ("a", "b", "c") and len(split) == 3 and [s.id for s in split] == ["a", "b", "c"]
    assert split.info == DatasetInfo("d")
    assert folder_splits(tmp_path / "d") == ["train", "test"]
    assert told == [("test", 1, None), ("test", 2, None), ("test", 3, None), ("train", 1, 1)]
    assert not (tmp_path / "d" / "test" / "weights.csv").exists()
    with pytest.raises(IndexError):
        split[3]


def test_images_are_png_where_nothing_is_lost_and_masks_follow_the_names(tmp_path):
    deep = make_sample("deep", dtype=np.uint16)
    samples = [make_sample("grey"), make_sample("rgb", channels=3), make_sample("five", channels=5), deep]
    mixed = make_sample("mixed", weights=[0.5, 0.2, 0.3])
    samples.append(Sample("mixed", mixed.image, mixed.masks, mixed.weights, ("c", "a", "b")))
    root = write_folder(tmp_path / "d", {"train": samples}, DatasetInfo())
    names = sorted(only(root / "train" / "images"))
    assert names == ["deep.npy", "five.npy", "grey.png", "mixed.png", "rgb.png"]
    read = FolderSplit(root, "train")[3]
    assert read.annotators == ("a", "b", "c") and read.weights.tolist() == [0.2, 0.3, 0.5]
    np.testing.assert_array_equal(read.masks, mixed.masks[[1, 2, 0]])


def test_nameless_annotators_are_numbered(tmp_path):
    sample = make_sample("a", masks=11)
    sample = Sample("a", sample.image, sample.masks, sample.weights, ("",) * 11)
    read = FolderSplit(write_folder(tmp_path / "d", {"train": [sample]}, DatasetInfo()), "train")[0]
    assert read.annotators[:3] == ("00", "01", "02")
    np.testing.assert_array_equal(read.masks, sample.masks)


def test_digest_tells_data_apart(tmp_path):
    base = make_sample("a")
    variants = [
        base,
        make_sample("b"),
        make_sample("a", dtype=np.uint16),
        Sample("a", base.image + np.uint8(1), base.masks, base.weights, base.annotators),
        Sample("a", base.image, 1 - base.masks, base.weights, base.annotators),
        make_sample("a", weights=[0.5, 0.25, 0.25]),
    ]
    digests = []
    for i, sample in enumerate(variants):
        digests.append(
            FolderSplit(write_folder(tmp_path / str(i), {"t": [sample]}, DatasetInfo()), "t").digest()
        )
    assert len(set(digests)) == len(digests)


# the description


def test_description_round_trip():
    labels = LabelSpace(("x", "y", "z"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), ignore_value=200, background=None)
    info = DatasetInfo("näme: 1", labels, "http://x", "CC0", {"flip": False, "scale": True}, ("red", "nir"))
    assert DatasetInfo.from_yaml(info.to_yaml()) == info
    assert DatasetInfo.from_yaml("") == DatasetInfo()
    assert DatasetInfo.from_yaml("classes: [a, b]\nbackground: b").labels.background == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ignore_valu: 3", "did you mean 'ignore_value'"),
        ("classes: [a, {name: b, colour: [1, 2, 3]}]", "did you mean 'color'"),
        ("classes: [a, {name: b, color: [1, 2, 3]}]", "1 of 2 classes have a color"),
        ("classes: [a, {name: b, color: red}]", "three integers"),
        ("classes: [a, yes]", "in quotes"),
        ("classes: [a]", "2 to 255 classes"),
        ("classes: [a, a]", "must differ"),
        ("classes: {a: 1}", "is a list"),
        ("ignore_value: 1", "outside the classes"),
        ("ignore_value: x", "is an integer"),
        ("background: 7", "not among the classes"),
        ("background: foregroud", "did you mean 'foreground'"),
        ("augment: {flop: true}", "did you mean 'flip'"),
        ("augment: {flip: never}", "true or false"),
        ("augment: [flip]", "is a mapping"),
        ("- a", "holds a list"),
        ("name: [", "not valid YAML"),
        ("name: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("name: " + "x" * 1_000_001, "more than 1000000 characters"),
    ],
)
def test_wrong_descriptions_name_file_and_remedy(text, words):
    with pytest.raises(AmbisegError, match=f"^my.yaml: .*{words}"):
        DatasetInfo.from_yaml(text, "my.yaml")


# reading what others wrote


@pytest.fixture
def root(tmp_path):
    samples = [make_sample("a"), make_sample("b", 1)]
    return write_folder(tmp_path / "d", {"train": samples, "val": samples[:1]}, DatasetInfo())


def test_missing_splits_name_those_that_exist(root, tmp_path):
    with pytest.raises(AmbisegError, match="no split 'test': it has train, val"):
        FolderSplit(root, "test")
    with pytest.raises(AmbisegError, match="not a folder"):
        FolderSplit(tmp_path / "nothing", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AmbisegError, match="there is no split"):
        FolderSplit(tmp_path / "empty", "train")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a,r0,0.5", "a,r1,0.5", "a,r2,0.1"], "id 'a' sum to 1.1"),
        (["a,r0,0.5", "a,r1,0.5"], "no weight for 'r2'"),
        (["a,r0,1", "a,r1,0", "a,r2,0", "a,r9,0"], "weight for 'r9' but no mask"),
        (["a,r0,-0.5", "a,r1,1", "a,r2,0.5"], "row 2: the weight '-0.5' is negative"),
        (["a,r0,nan", "a,r1,1", "a,r2,0"], "row 2: the weight 'nan'"),
        (["a,r0,half"], "row 2: the weight 'half' is not a number"),
        (["a,r0,1", "a,r0,1"], "row 3: a second weight"),
        (["a,r0"], "row 2: the row has 2 columns"),
        (["z,r0,1"], "id 'z' has weights but no image"),
    ],
)
def test_wrong_weights_are_refused(root, rows, words):
    (root / "train" / "weights.csv").write_text("\n".join(["id,annotator,weight", *rows]))
    with pytest.raises(AmbisegError, match=f"weights.csv.*{words}"):
        list(FolderSplit(root, "train"))


def test_weights_of_some_images_rounding_and_spaces(root):
    (root / "train" / "weights.csv").write_text(
        "\ufeffid, annotator, weight\na, r0, 0.333\na, r1, 0.333\na, r2, 0.333\n\n", encoding="utf-8"
    )
    first, second = FolderSplit(root, "train")
    assert first.weights.sum() == pytest.approx(1, abs=1e-12)
    assert second.weights.tolist() == [1 / 3] * 3
    (root / "train" / "weights.csv").write_text("id;annotator;weight\n")
    with pytest.raises(AmbisegError, match="header"):
        FolderSplit(root, "train")


def test_wrong_masks_are_refused(root):
    masks = root / "train" / "masks" / "a"
    for mask, words in [
        (np.zeros((3, 3), np.uint8), "3 high, 3 wide"),
        (np.full((9, 12), 7), "the mask holds 7, but"),
    ]:
        write_mask(masks / "r0.png", mask)
        with pytest.raises(AmbisegError, match=f"r0.png: .*{words}"):
            FolderSplit(root, "train")[0]
    for path in masks.iterdir():
        path.unlink()
    with pytest.raises(AmbisegError, match="has no mask"):
        FolderSplit(root, "train")[0]


def test_doubled_and_unreadable_names_are_refused_and_litter_is_not(root):
    images = root / "train" / "images"
    (images / ".DS_Store").write_bytes(b"x")
    (images / "Thumbs.db").write_bytes(b"x")
    assert len(FolderSplit(root, "train")) == 2
    (images / "a.jpg").write_bytes((images / "a.png").read_bytes())
    with pytest.raises(AmbisegError, match="same name"):
        FolderSplit(root, "train")
    (images / "a.jpg").rename(images / "a.gif")
    with pytest.raises(AmbisegError, match="a.gif: this is no image file"):
        FolderSplit(root, "train")


def test_links_do_not_leave_the_data_set(root, tmp_path):
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "secret.png")
    link = root / "train" / "masks" / "a" / "r9.png"
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(AmbisegError, match="leads out"):
        FolderSplit(root, "train")[0]
    link.unlink()
    link.symlink_to(root / "train" / "masks" / "a" / "r0.png")
    assert len(FolderSplit(root, "train")[0].masks) == 4
    (tmp_path / "alias").symlink_to(root)
    assert FolderSplit(tmp_path / "alias", "train").digest() == FolderSplit(root, "train").digest()
    (root / "train" / "images" / "z.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(AmbisegError, match="leads out"):
        FolderSplit(root, "train")
    (root / "dataset.yaml").unlink()
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"name": "x"}))
    (root / "dataset.yaml").symlink_to(tmp_path / "other.yaml")
    with pytest.raises(AmbisegError, match="leads out"):
        FolderSplit(root, "val")


# writing


@pytest.mark.parametrize("name", ["", "../x", "/x", "a/b", "a\\b", ".x", "a\0b", "a\nb", " a", "x" * 201])
def test_names_that_leave_the_folder_are_not_written(tmp_path, name):
    sample = make_sample("a")
    for wrong in (
        {"train": [make_sample(name)]},
        {"train": [Sample("a", sample.image, sample.masks, sample.weights, (name, "b", "c"))]},
        {name: [sample]},
    ):
        with pytest.raises(AmbisegError, match="cannot name a file"):
            write_folder(tmp_path / "d", wrong, DatasetInfo())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": np.zeros((9, 12))}, "not \\(channels"),
        ({"image": np.full((1, 9, 12), np.nan)}, "NaN"),
        ({"image": np.zeros((1, 9, 13))}, "9 high, 12 wide"),
        ({"image": np.zeros((2, 9, 12))}, "dataset.yaml names 1"),
        ({"masks": np.full((3, 9, 12), 2)}, "holds 2, but the classes"),
        ({"masks": np.full((3, 9, 12), 2) + np.arange(12) // 11 * 253}, "holds 2 and 255, but the classes"),
        ({"masks": np.zeros((0, 9, 12))}, "no mask"),
        ({"weights": np.array([0.5, 0.5, 0.5])}, "sum to 1.5"),
        ({"weights": np.array([1.5, -0.5, 0])}, "negative"),
        ({"weights": np.array([np.nan, 1, 0])}, "NaN"),
        ({"weights": np.ones(2) / 2}, "one weight per mask"),
        ({"annotators": ("a", "a", "b")}, "2 different annotators"),
    ],
)
def test_samples_that_could_not_be_read_are_not_written(tmp_path, changes, words):
    sample = Sample(**{**vars(make_sample("a")), **changes})
    with pytest.raises(AmbisegError, match=f"sample 'a'.*{words}"):
        write_folder(tmp_path / "d", {"train": [sample]}, DatasetInfo(channels=("grey",)))
    assert not list(tmp_path.iterdir())


def test_a_doubled_id_is_not_written(tmp_path):
    with pytest.raises(AmbisegError, match="'a' occurs twice"):
        write_folder(tmp_path / "d", {"train": [make_sample("a"), make_sample("a")]}, DatasetInfo())
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_nothing_behind(tmp_path):
    def interrupted():
        yield make_sample("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "d", {"train": interrupted()}, DatasetInfo())
    assert not list(tmp_path.iterdir())
    root = write_folder(tmp_path / "d", {"train": [make_sample("b")]}, DatasetInfo())
    with pytest.raises(KeyboardInterrupt):
        write_folder(root, {"train": interrupted()}, DatasetInfo(), overwrite=True)
    assert FolderSplit(root, "train").ids == ("b",) and only(tmp_path) == ["d"]


def test_a_full_disk_is_said_in_words(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "_write_image", full)
    with pytest.raises(AmbisegError, match="disk is full"):
        write_folder(tmp_path / "d", {"train": [make_sample("a")]}, DatasetInfo())
    assert not list(tmp_path.iterdir())


def test_only_data_sets_are_overwritten_and_only_on_demand(root, tmp_path):
    with pytest.raises(AmbisegError, match="exists already"):
        write_folder(root, {"train": [make_sample("c")]}, DatasetInfo())
    write_folder(root, {"train": [make_sample("c")]}, DatasetInfo(), overwrite=True)
    assert folder_splits(root) == ["train"] and FolderSplit(root, "train").ids == ("c",)
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / ".profile").write_text("mine")
    with pytest.raises(AmbisegError, match="was not made by ambiseg"):
        write_folder(precious, {"train": [make_sample("c")]}, DatasetInfo(), overwrite=True)
    assert only(precious) == [".profile"] and sorted(only(tmp_path)) == ["d", "home"]


def test_a_split_can_be_rewritten_from_itself(root):
    before = FolderSplit(root, "train").digest()
    write_folder(root, {"train": FolderSplit(root, "train")}, DatasetInfo(), overwrite=True)
    assert FolderSplit(root, "train").digest() == before
