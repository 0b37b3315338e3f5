"""Data in memory: the same content is the same data in every form, also on disk; faults give one sentence."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from ambiseg.data.memory.dataset import dataset
from ambiseg.data.memory.split import check_sendable
from ambiseg.data.sample import Sample
from ambiseg.data.source import list_splits, open_split, write_dataset
from ambiseg.data.statistics import SplitStatistics
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

COUNT, HEIGHT, WIDTH = 5, 4, 6
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, 3, HEIGHT, WIDTH)).astype(np.uint8)
MASKS = RNG.integers(0, 2, (COUNT, 2, HEIGHT, WIDTH)).astype(np.uint8)
PAIRS = list(zip(IMAGES, MASKS, strict=True))


def picture(array):
    """A picture of Pillow of ``(C, H, W)`` or ``(H, W)``."""
    return Image.fromarray(array.transpose(1, 2, 0) if array.ndim == 3 else array)


def of_tensors():
    return TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(MASKS))


def of_dictionaries():
    return [{"image": image, "mask_a": masks[0], "mask_b": masks[1]} for image, masks in PAIRS]


def of_annotators():
    return [
        (image.transpose(1, 2, 0), {"b": masks[1].astype(bool), "a": masks[0] * 255})
        for image, masks in PAIRS
    ]


def of_pictures():
    return [(picture(image), [picture(mask) for mask in masks]) for image, masks in PAIRS]


def of_samples():
    return [Sample(f"{i}", *pair, np.full(2, 0.5), ("a", "b")) for i, pair in enumerate(PAIRS)]


def of_monai():
    data = pytest.importorskip("monai.data")
    items = [{"image": image, "label": masks, "image_meta_dict": {}} for image, masks in PAIRS]

    def read(item):
        return {**item, **{key: data.MetaTensor(torch.from_numpy(item[key])) for key in ("image", "label")}}

    return data.Dataset(items, read)


def of_torchio():
    tio = pytest.importorskip("torchio")

    def tensor(array):  # channels, width, height, depth
        return torch.from_numpy(array.swapaxes(1, 2)[..., None].copy())

    subjects = [
        tio.Subject(
            scan=tio.ScalarImage(tensor=tensor(image)),
            reader_a=tio.LabelMap(tensor=tensor(masks[:1])),
            reader_b=tio.LabelMap(tensor=tensor(masks[1:])),
        )
        for image, masks in PAIRS
    ]
    return tio.SubjectsDataset(subjects)


def of_hugging_face():
    datasets = pytest.importorskip("datasets")
    columns = {"image": [picture(image) for image in IMAGES]}
    columns["masks"] = [[picture(mask) for mask in masks] for masks in MASKS]
    features = {"image": datasets.Image(), "masks": datasets.Sequence(datasets.Image())}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


FORMS = [
    of_tensors,
    of_dictionaries,
    of_annotators,
    of_pictures,
    of_samples,
    of_monai,
    of_torchio,
    of_hugging_face,
]


@pytest.mark.parametrize("form", FORMS, ids=[form.__name__ for form in FORMS])
def test_the_same_content_is_the_same_data(form):
    expected, found = dataset(train=PAIRS)["train"], dataset(train=form())["train"]
    assert SplitStatistics.of(found).normalization == SplitStatistics.of(expected).normalization
    if form is not of_torchio:  # which makes images float32
        assert found.digest() == expected.digest()
    for one, other in zip(found, expected, strict=True):
        assert one.id == other.id
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.masks, other.masks)
        np.testing.assert_array_equal(one.weights, other.weights)


def test_splits_of_hugging_face():
    datasets = pytest.importorskip("datasets")
    rows = of_hugging_face()
    data = dataset(datasets.DatasetDict(train=rows, validation=rows.with_format("torch")))
    assert list(data) == ["train", "val"]
    assert data["train"].digest() == data["val"].digest() == dataset(train=PAIRS)["train"].digest()


@pytest.mark.parametrize("name", ["folder", "packed.h5"])
def test_what_is_written_has_the_same_digest(name, tmp_path):
    items = [(*pair, [0.25, 0.75]) for pair in PAIRS]
    data = dataset(items, classes=["rest", "cup"], fractions={"train": 0.6, "val": 0.4})
    out = write_dataset(tmp_path / name, data)
    assert list_splits(out) == list_splits(data) == ["train", "val"]
    for split in data:
        read = open_split(out, split)
        assert read.digest() == data[split].digest() and read.info.labels.names == ("rest", "cup")


def test_lists_are_written_like_the_data_set_of_them(tmp_path):
    for given in (PAIRS, {"train": PAIRS[:3], "val": PAIRS[3:]}):
        write_dataset(tmp_path / f"{type(given).__name__}.h5", given)
        for name, split in dataset(given).items():
            written = open_split(tmp_path / f"{type(given).__name__}.h5", name)
            assert written.digest() == split.digest()


def test_a_path_in_an_item_is_read_like_a_file(tmp_path):
    np.save(tmp_path / "image.npy", IMAGES[0])
    picture(MASKS[0, 0]).save(tmp_path / "a.png")
    item = {"image": str(tmp_path / "image.npy"), "label": tmp_path / "a.png"}
    sample = dataset(train=[item])["train"][0]
    np.testing.assert_array_equal(sample.image, IMAGES[0])
    np.testing.assert_array_equal(sample.masks, MASKS[0, :1])


def test_shapes_and_names():
    grey, mask = IMAGES[0, 0], MASKS[0, 0]
    one = dataset(train=[(grey, mask)])["train"][0]
    assert one.image.shape == (1, HEIGHT, WIDTH) and one.masks.shape == (1, HEIGHT, WIDTH)
    square = RNG.random((4, 4, 4)).astype(np.float32)  # both orders fit: channels are first
    np.testing.assert_array_equal(dataset(train=[(square, np.eye(4, dtype=int))])["train"][0].image, square)
    wide = RNG.random((HEIGHT, WIDTH, 9))
    assert dataset(train=[(wide, mask)])["train"][0].image.shape == (9, HEIGHT, WIDTH)
    named = dataset(train=[(grey, [mask, 1 - mask], {"b": 0.9, "a": 0.1})], annotators=["b", "a"])["train"][0]
    assert named.annotators == ("a", "b") and named.weights.tolist() == [0.1, 0.9]
    np.testing.assert_array_equal(named.masks, [1 - mask, mask])
    keys = {"x": grey, "r1": mask, "r2": mask, "p": [0.5, 0.5]}
    sample = dataset(train=[keys], image="x", masks=["r1", "r2"], weights="p")["train"][0]
    assert sample.annotators == ("r1", "r2")


def test_names_do_not_depend_on_how_many_masks_an_item_has():
    items = [{"image": IMAGE, "masks": MASKS[0][:1]}, {"image": IMAGE, "masks": MASKS[0]}]
    for form in ({}, {"masks": "masks"}):
        assert [sample.annotators for sample in dataset(train=items, **form)["train"]] == [("0",), ("0", "1")]
    assert dataset(train=items[:1], masks=["masks"])["train"][0].annotators == ("masks",)


def test_arrays_that_are_not_dense():
    weights = torch.tensor([0.25, 0.75], requires_grad=True)
    sample = dataset(train=[(torch.from_numpy(IMAGE).to_sparse(), MASK, weights)])["train"][0]
    assert (sample.image == IMAGE).all() and sample.weights.tolist() == [0.25, 0.75]


def test_a_table_of_pandas():
    table = pytest.importorskip("pandas").DataFrame({"image": [IMAGE], "mask": [MASK[0]]})
    with pytest.raises(AmbisegError, match=r"train is a DataFrame, .* rows, .to_dict\('records'\)"):
        dataset(train=table)
    assert dataset(train=table.to_dict("records"))["train"].ids == ("0",)


def test_classes():
    items = [(IMAGES[0], MASKS[0] + 1)]
    assert dataset(train=items, classes=3).info.labels == LabelSpace.of_classes(3)
    void = np.where(MASKS[0] > 0, 255, 0)
    assert dataset(train=[(IMAGES[0], void)], ignore_value=255)["train"][0].masks.max() == 255
    assert dataset(train=[(IMAGES[0], void)])["train"][0].masks.max() == 1
    smooth = np.where(MASKS[0] > 0, 0.8, 0.3)
    decided = dataset(train=[(IMAGES[0], smooth)], mask_threshold=0.5)["train"][0].masks
    np.testing.assert_array_equal(decided, MASKS[0])


def test_splits_that_are_drawn():
    data = dataset(PAIRS * 4, groups=[i % 10 for i in range(20)], seed=3)
    ids = {name: split.ids for name, split in data.items()}
    assert {name: len(found) for name, found in ids.items()} == {"train": 12, "val": 4, "test": 4}
    assert sorted(sum(ids.values(), ())) == [f"{i:02d}" for i in range(20)]
    for found in ids.values():
        assert {f"{int(i) % 10}" for i in found} == {f"{int(i) % 10}" for i in found if int(i) < 10}
    again = dataset(PAIRS * 4, groups=[i % 10 for i in range(20)], seed=3)
    assert {name: split.ids for name, split in again.items()} == ids
    item = data["val"][0]
    np.testing.assert_array_equal(item.image, IMAGES[int(item.id) % COUNT])
    assert dataset({"train": PAIRS, "validation": PAIRS})["val"].ids == ("0", "1", "2", "3", "4")
    named = dataset(train=PAIRS, ids=list("edcba"))["train"]
    assert named.ids == tuple("abcde")
    np.testing.assert_array_equal(named[0].image, IMAGES[4])


def test_items_are_read_when_they_are_needed():
    class Lazy(Dataset):
        reads: list[int] = []

        def __len__(self):
            return COUNT

        def __getitem__(self, index):
            self.reads.append(index)
            return PAIRS[index]

    data = dataset(train=Lazy())
    assert Lazy.reads == []
    data["train"][3]
    assert Lazy.reads == [3]
    assert dataset(train=Subset(Lazy(), [1, 2]))["train"].ids == ("0", "1")


class Stream(IterableDataset):
    def __iter__(self):
        return iter(PAIRS)


class Noisy(Dataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.rand(1, 4, 6), MASKS[0]


class Broken(Noisy):
    def __getitem__(self, index):
        raise OSError("no such scan")


class NoisyOnce(Noisy):
    def __len__(self):
        return 9

    def __getitem__(self, index):
        return (torch.rand(1, 4, 6) if index == 4 else torch.zeros(1, 4, 6)), MASKS[0]


class Chained(Noisy):
    def __getitem__(self, index):
        try:
            raise FileNotFoundError("no such scan")
        except FileNotFoundError as error:
            raise RuntimeError("applying transform <Load at 0x7f>") from error


IMAGE, MASK = IMAGES[0], MASKS[0]
FAULTS = {
    "no length": (Stream(), "train is a Stream without a length"),
    "generator": ((pair for pair in PAIRS), "train is a generator, which gives no item by its place"),
    "loader": (DataLoader(of_tensors()), "train is a DataLoader, which makes batches: pass its dataset"),
    "empty": ([], "train holds no item"),
    "text": ("my-data", "train is a str, not a dataset"),
    "random": (Noisy(), "item 0 of train differs when it is read again: take random transforms out"),
    "broken": (
        Broken(),
        r"item 0 of train, item 1 of train, item 2 of train: the dataset does not give it \(OSError",
    ),
    "a number": ([1], r"item 0 of train: it is a int: give \(image, masks\)"),
    "four parts": ([(IMAGE, MASK, 1, 1)], "item 0 of train: it is a tuple of 4"),
    "no image": ([(None, MASK)], "item 0 of train: the image is a NoneType: give an array"),
    "words": ([(IMAGE, ["a", "b"])], "'' is no mask format"),
    "volume": (
        [(IMAGE, np.zeros((2, 3, 4, 6)))],
        r"the mask has shape \(2, 3, 4, 6\), a volume: give slices",
    ),
    "image volume": ([(np.zeros((2, 3, 4, 6)), MASK)], r"the image has shape \(2, 3, 4, 6\), a volume"),
    "NaN": ([(np.full((4, 6), np.nan), MASK)], "item 0 of train: 24 values are NaN or infinite"),
    "no mask": ([(IMAGE, [])], "item 0 of train: it has no mask: give at least one"),
    "size": (
        [(IMAGE, MASK), (IMAGE, [MASK[0], MASK[1, :3]])],
        r"item 1 of train, mask 1: the mask is 3 high, 6 wide but its image 4 x 6",
    ),
    "sum": ([(IMAGE, MASK, [0.5, 0.6])], "item 0 of train: the weights of id '0' sum to 1.1, not 1"),
    "negative": ([(IMAGE, MASK, [-0.5, 1.5])], "item 0 of train: id '0' has a negative weight"),
    "one weight": (
        [(IMAGE, MASK, [1.0])],
        r"item 0 of train: it has 2 masks but weights of shape \(1,\): give one",
    ),
    "two masks side by side": (
        [(IMAGE, MASK[0], MASK[1])],
        r"it has 1 mask but weights of shape \(4, 6\): .* list, \(image, \[mask, mask\]\)",
    ),
    "random at times": (NoisyOnce(), "item 4 of train differs when it is read again"),
    "colours": (
        [(IMAGE, picture(IMAGE))],
        r"give every class its color by classes=ambiseg.LabelSpace\(names=\(...\), colors=",
    ),
    "cause": (Chained(), r"does not give it \(FileNotFoundError: no such scan\)"),
    "weight words": ([(IMAGE, MASK, ["much", "less"])], "item 0 of train: its weights are no numbers"),
    "weight of words": (
        [(IMAGE, {"a": MASK[0]}, {"a": "much"})],
        "item 0 of train: its weights are no numbers",
    ),
    "weight names": ([(IMAGE, {"a": MASK[0]}, {"b": 1})], "has a weight for 'b' but no mask"),
    "collision": (
        [(IMAGE, {1: MASK[0], "1": MASK[1]})],
        "item 0 of train: two masks have the annotator '1': give every mask a name of its own",
    ),
    "unsafe": (
        [(IMAGE, {"../a": MASK[0], "b": MASK[1]})],
        "^item 0 of train: annotator '../a' cannot name a file: use",
    ),
    "classes": (
        [(IMAGE, MASK), *[(IMAGE, MASK[0] * 2)] * 5],
        r"item 1 of train, item 2 of train, item 3 of train and 2 more: 5 masks hold 2, but .*: pass"
        r" classes=\['background', 'foreground', 'class-2'\] to ambiseg.dataset if these are classes",
    ),
    "void": ([(IMAGE, [[0, 1, 255, 0, 0, 0]] * 4)], "pass ignore_value=255 to ambiseg.dataset if 255 marks"),
    "fractions": ([(IMAGE, MASK[0] * 0.7)], "pass mask_threshold=0.5 to ambiseg.dataset"),
    "no key": (
        [{"picture": IMAGE, "mask": MASK}],
        "no key is known to be the image: name the key: image='...'",
    ),
    "two keys": (
        [{"image": IMAGE, "mask": MASK, "label": MASK}],
        "keys 'mask' and 'label' could be the masks",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_gives_its_sentence(fault):
    source, sentence = FAULTS[fault]
    with pytest.raises(AmbisegError, match=sentence) as caught:
        dataset(train=source)["train"].digest()
    assert "dataset.yaml" not in str(caught.value) and "\n" not in str(caught.value)


ARGUMENTS = {
    "nothing": ({}, "pass data, or datasets as train, val and test"),
    "both": ({"data": PAIRS, "train": PAIRS}, "one of the two"),
    "no split": ({"data": {}}, "the data have no split"),
    "path": ({"data": "my-data"}, "'my-data' is a path"),
    "doubled": ({"train": PAIRS, "annotators": ["a", "a"]}, "annotators names 'a' twice"),
    "one name": ({"train": PAIRS, "annotators": "anna"}, r"write \['anna'\]"),
    "one class": ({"train": PAIRS, "classes": "cup"}, r"write \['background', 'cup'\]"),
    "few ids": ({"train": PAIRS, "ids": ["a"]}, "there are 1 ids for the 5 items of train"),
    "same ids": ({"train": PAIRS, "ids": list("aabcd")}, "id 'a' occurs twice in train"),
    "unsafe id": ({"train": PAIRS, "ids": ["../x", *"abcd"]}, "id '../x' cannot name a file"),
    "few groups": ({"data": PAIRS, "groups": [1]}, "there are 1 groups for 5 images"),
    "shares": ({"data": PAIRS, "fractions": {"train": 2}}, "fractions of splits"),
    "no shares": ({"data": PAIRS, "fractions": [0.6, 0.4]}, r"fractions are a mapping .* \[0.6, 0.4\]"),
    "word as share": ({"data": PAIRS, "fractions": {"train": "all"}}, "fractions are a mapping"),
    "no seed": ({"data": PAIRS, "seed": None}, "seed is a whole number from 0, received None"),
    "negative seed": ({"data": PAIRS, "seed": -1}, "seed is a whole number from 0, received -1"),
    "classes with colours": (
        {"train": PAIRS, "classes": [{"name": "rest"}, {"name": "cup"}]},
        r"classes are names or their number, .* ambiseg.LabelSpace\(names=",
    ),
    "classes as fraction": ({"train": PAIRS, "classes": 2.0}, "classes are names or their number"),
    "ignored twice": (
        {"train": PAIRS, "classes": LabelSpace.binary(ignore_value=255), "ignore_value": 7},
        "classes have the ignore_value 255, the argument is 7",
    ),
    "ignored word": ({"train": PAIRS, "ignore_value": "void"}, "ignore_value is a whole number"),
    "threshold": ({"train": PAIRS, "mask_threshold": "half"}, "mask_threshold is a number"),
    "augment": ({"train": PAIRS, "augment": "flip"}, "augment is a mapping"),
    "one id": ({"train": PAIRS, "ids": "abcde"}, "ids are a list of names"),
    "one channel": ({"train": PAIRS, "channels": "red"}, r"channels are a list .* write \['red'\]"),
    "ids of no split": (
        {"train": PAIRS, "val": PAIRS, "ids": {"valid": list("abcde")}},
        "ids name the split 'valid', but the splits are train and val",
    ),
    "val twice": (
        {"data": {"train": PAIRS, "validation": PAIRS, "val": PAIRS}},
        "two splits of one meaning .*'validation' and 'val'",
    ),
    "classes of a split": (
        {"train": dataset(train=PAIRS)["train"], "classes": ["rest", "cup"]},
        "the splits have different classes .*: background, foreground; the argument classes: rest, cup",
    ),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_do_not_fit_give_a_sentence(case):
    arguments, sentence = ARGUMENTS[case]
    with pytest.raises(AmbisegError, match=sentence):
        dataset(**arguments)


def test_masks_that_do_not_fit_the_names_of_annotators():
    with pytest.raises(AmbisegError, match="item 0 of train: it has 2 masks, but annotators names 3"):
        dataset(train=PAIRS, annotators=list("abc"))["train"][0]


def test_a_volume_of_torchio():
    tio = pytest.importorskip("torchio")
    subject = tio.Subject(
        image=tio.ScalarImage(tensor=torch.zeros(1, 6, 4, 3)),
        label=tio.LabelMap(tensor=torch.zeros(1, 6, 4, 3)),
    )
    with pytest.raises(AmbisegError, match="item 0 of train: the mask is a volume of 3 slices: give slices"):
        dataset(train=[subject])["train"][0]


def test_a_split_that_is_not_there():
    with pytest.raises(
        AmbisegError, match=r"no split 'val': they have train; pass ambiseg.dataset\(val=...\)"
    ):
        open_split({"train": PAIRS}, "val")


def test_data_for_other_processes():
    split = dataset(train=PAIRS)["train"]
    check_sendable(split)
    assert pickle.loads(pickle.dumps(split)).digest() == split.digest()
    local = [(lambda: 0)]
    with pytest.raises(AmbisegError, match="cannot be sent to other processes .* set train.devices=1"):
        check_sendable(dataset(train=local)["train"])
