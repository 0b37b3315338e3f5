"""Scores of files equal the metrics of the mask sets that they hold, whatever their layout."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg import score
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.predict import predict_files
from ambiseg.engine.run import load
from ambiseg.engine.score import score_files
from ambiseg.engine.score.mistakes import MISTAKES
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import METRICS, Bootstrap, Comparison, PairedTest, holm, metric_collection
from ambiseg.predictions import read_ids

NAMES = ("ged", "hm_iou_unique", "brier_skill_score", "ece")


def _dataset(path, images=6, size=(8, 10), classes=2, seed=0):
    """Random masks of three annotators with unequal weights."""
    rng = np.random.default_rng(seed)
    samples = [
        Sample(
            f"i{i}",
            rng.random((1, *size)).astype(np.float32),
            rng.integers(0, classes, (3, *size)).astype(np.uint8),
            np.array([0.2, 0.3, 0.5]),
            ("a", "b", "c"),
        )
        for i in range(images)
    ]
    return write_dataset(path, {"test": samples}, DatasetInfo("d", LabelSpace.of_classes(classes)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return _dataset(tmp_path_factory.mktemp("score") / "d")


@pytest.fixture(scope="module")
def masks():
    return np.random.default_rng(1).integers(0, 2, (6, 4, 8, 10)).astype(np.uint8)


@pytest.fixture(scope="module")
def weights():
    rows = np.random.default_rng(2).random((6, 4)).round(3) + 0.1
    return rows / rows.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def ids(data):
    return open_split(data, "test").ids


def _expected(data, masks, weights=None, names=NAMES, probabilities=None):
    """The metrics of the same sets, by the public accumulators."""
    collection = metric_collection(names)
    for i, sample in enumerate(open_split(data, "test")):
        labels = LabelSpace.binary()
        truth = MaskSet(
            torch.from_numpy(sample.masks)[None], torch.from_numpy(sample.weights).float()[None], labels
        )
        found = MaskSet.uniform(torch.from_numpy(masks[i])[None], labels)
        if weights is not None:
            found = replace(found, weights=torch.from_numpy(weights[i]).float()[None])
        if probabilities is not None:
            found = replace(found, probabilities=torch.from_numpy(probabilities[i])[None, :, None].float())
        collection.update(Comparison(found, truth))
    return pytest.approx({name: float(value) for name, value in collection.compute().items()}, abs=2e-6)


def _values(scores):
    return scores.systems[0].values


def _folders(path, ids, masks, save):
    for name, own in zip(ids, masks, strict=True):
        (path / name).mkdir(parents=True)
        for k, mask in enumerate(own):
            save(path / name / f"s{k}", mask)
    return path


def _png(path, mask):
    Image.fromarray(mask * np.uint8(255)).save(f"{path}.png")


def _npy(path, values):
    np.save(f"{path}.npy", values)


# -- layouts -------------------------------------------------------------------------------------------------


def test_what_predict_wrote_has_the_figures_of_evaluate(tiny_run, fires, tmp_path):
    """To the last digit, per-pixel probabilities included; intervals and values of images as well."""
    run, settings = load(tiny_run, precision="32", device="cpu"), PredictSettings(score_threshold=0.3)
    images = sorted((fires / "test" / "images").iterdir())
    list(predict_files(run, images, tmp_path / "p", settings, pixel_probabilities=True))
    expected = evaluate(run, fires, "test", settings, metrics="all")
    found = score_files([tmp_path / "p"], fires, metrics="all").systems[0]
    assert set(expected.kept) <= set(found.values)
    assert {name: found.values[name] for name in expected.kept} == pytest.approx(
        expected.kept, abs=0, nan_ok=True
    )
    shared = {name: ends for name, ends in found.intervals.items() if name in expected.kept}
    assert repr(shared) == repr(expected.intervals["kept"])
    assert found.masks_per_image == expected.n_kept
    assert not any(name.startswith("selection") for name in found.values)


def test_scores_are_read_where_no_filter_dropped_masks(tiny_run, fires, tmp_path):
    run = load(tiny_run, precision="32", device="cpu")
    settings = PredictSettings(score_threshold=None, duplicate_iou=None)
    images = sorted((fires / "test" / "images").iterdir())
    list(predict_files(run, images, tmp_path / "p", settings))
    expected = evaluate(run, fires, "test", settings, metrics=["selection_f1", "ged"])
    found = score_files([tmp_path / "p"], fires, metrics=["selection_f1", "ged"]).systems[0]
    assert found.values == expected.all and found.figures.oracle == expected.oracle


@pytest.mark.parametrize("table", ["csv", "json"])
def test_folders_of_masks_with_weights(data, masks, weights, ids, tmp_path, table):
    path = _folders(tmp_path / "p", ids, masks, _png)
    rows = [(name, f"s{k}", repr(float(weights[i, k]))) for i, name in enumerate(ids) for k in range(4)]
    if table == "csv":
        with open(path / "weights.csv", "w", newline="") as stream:
            csv.writer(stream).writerows([("id", "sample", "weight"), *rows])
    else:
        content = {name: {s: float(w) for n, s, w in rows if n == name} for name in ids}
        (path / "weights.json").write_text(json.dumps(content))
    assert _values(score_files([path], data, metrics=NAMES)) == _expected(data, masks, weights)


def test_fractions_are_probabilities_of_the_foreground(data, ids, tmp_path):
    shares = np.random.default_rng(3).random((6, 4, 8, 10)).astype(np.float32)
    expected = _expected(data, (shares > 0.5).astype(np.uint8), probabilities=shares)
    path = _folders(tmp_path / "p", ids, shares, _npy)
    assert _values(score_files([path], data, metrics=NAMES)) == expected
    np.save(tmp_path / "all.npy", shares)
    assert _values(score_files([tmp_path / "all.npy"], data, metrics=NAMES)) == expected


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_of_classes_are_decided_and_kept(tmp_path, classes):
    """In one array (N, n, C, H, W), in files (C, H, W), and as zeros and ones without a word on certainty."""
    data, rng = _dataset(tmp_path / "d", images=3, classes=classes), np.random.default_rng(7)
    ids, labels = open_split(data, "test").ids, LabelSpace.of_classes(classes)
    shares = rng.dirichlet(np.ones(classes), (3, 4, 8, 10)).transpose(0, 1, 4, 2, 3).astype(np.float32)
    kept = torch.from_numpy(shares[:, :, -labels.channels :])
    collection = metric_collection(NAMES)
    for i, sample in enumerate(open_split(data, "test")):
        truth = MaskSet(
            torch.from_numpy(sample.masks)[None], torch.from_numpy(sample.weights).float()[None], labels
        )
        collection.update(Comparison(MaskSet.from_probabilities(kept[i : i + 1], labels), truth))
    expected = pytest.approx({name: float(v) for name, v in collection.compute().items()}, abs=2e-6)
    np.savez(tmp_path / "p.npz", predictions=shares, ids=np.array(ids))
    path = _folders(tmp_path / "p", ids, shares, _npy)
    hard = (np.arange(classes)[:, None, None] == shares.argmax(2)[:, :, None]).astype(np.uint8)
    np.savez(tmp_path / "hard.npz", masks=hard, ids=np.array(ids))
    for one in (tmp_path / "p.npz", path):
        assert _values(score_files([one], data, metrics=NAMES)) == expected
    labelled = score(shares.argmax(2), [s.masks for s in open_split(data, "test")],
                     annotation_weights=[s.weights for s in open_split(data, "test")], labels=labels, metrics=NAMES)  # fmt: skip
    assert _values(score_files([tmp_path / "hard.npz"], data, metrics=NAMES)) == _values(labelled)
    arrays = score(shares, [s.masks for s in open_split(data, "test")],
                   annotation_weights=[s.weights for s in open_split(data, "test")], metrics=NAMES)  # fmt: skip
    assert _values(arrays) == expected and arrays.labels.classes == classes


def test_one_channel_is_the_foreground(data, ids, tmp_path):
    shares = np.random.default_rng(3).random((6, 4, 1, 8, 10)).astype(np.float32)
    np.savez(tmp_path / "p.npz", masks=shares, ids=np.array(ids))
    expected = _expected(data, (shares[:, :, 0] > 0.5).astype(np.uint8), probabilities=shares[:, :, 0])
    assert _values(score_files([tmp_path / "p.npz"], data, metrics=NAMES)) == expected


def test_fractions_of_several_classes_need_a_channel_each(tmp_path):
    data = _dataset(tmp_path / "d", images=2, classes=3)
    np.save(tmp_path / "p.npy", np.full((2, 3, 8, 10), 0.3))
    with pytest.raises(
        AmbisegError, match="2 images hold fractions, which say nothing of 3 classes.*such as 0.3"
    ):
        score_files([tmp_path / "p.npy"], data)


def test_nifti_masks_are_read(data, masks, ids, tmp_path):

    def save(path, mask):
        nibabel.save(nibabel.Nifti1Image(mask.astype(np.float32), np.eye(4)), f"{path}.nii.gz")

    path = _folders(tmp_path / "p", ids, masks, save)
    assert _values(score_files([path], data, metrics=NAMES)) == _expected(data, masks)


@pytest.mark.parametrize("form", ["npz", "compressed", "h5"])
def test_one_array_names_its_images_in_any_order(data, masks, weights, ids, tmp_path, form):
    order = [4, 0, 5, 2, 1, 3]
    parts = {"masks": masks[order], "weights": weights[order]}
    names = [ids[i] for i in order]
    if form == "h5":
        path = tmp_path / "p.h5"
        with h5py.File(path, "w") as file:
            file["ids"] = np.array(names, "S")
            for name, values in parts.items():
                file.create_dataset(name, data=values, compression="gzip")
    else:
        path = tmp_path / "p.npz"
        (np.savez if form == "npz" else np.savez_compressed)(path, ids=np.array(names), **parts)
    found = score_files([path], data, metrics=NAMES)
    assert _values(found) == _expected(data, masks, weights)
    assert found.remarks == ()


def test_an_array_without_names_follows_the_split_or_a_list(data, masks, ids, tmp_path):
    np.save(tmp_path / "p.npy", masks)
    found = score_files([tmp_path / "p.npy"], data, metrics=NAMES)
    assert _values(found) == _expected(data, masks)
    assert len(found.remarks) == 1 and "in the order of the split" in found.remarks[0]
    np.save(tmp_path / "back.npy", masks[::-1])
    (tmp_path / "ids.txt").write_text("\n".join(reversed(ids)) + "\n")
    found = score_files([tmp_path / "back.npy"], data, metrics=NAMES, ids=read_ids(tmp_path / "ids.txt"))
    assert _values(found) == _expected(data, masks) and found.remarks == ()
    np.save(tmp_path / "few.npy", masks[:2])
    with pytest.raises(AmbisegError, match="holds 2 images, the split has 6"):
        score_files([tmp_path / "few.npy"], data)


def test_a_pickle_and_claims_beyond_the_file_are_refused(data, tmp_path):
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(AmbisegError, match="not pixels"):
        score_files([tmp_path / "p.npy"], data)
    np.savez(tmp_path / "p.npz", masks=np.array([{}], object))
    with pytest.raises(AmbisegError, match="'masks' holds values of type object: save integers or floats"):
        score_files([tmp_path / "p.npz"], data)
    np.savez(tmp_path / "p.npz", masks=np.zeros((1, 1, 8, 10)), ids=np.array(["i0"], object))
    with pytest.raises(
        AmbisegError, match=r"'ids' holds values of type object: save ids as text: numpy\.array\(ids, str\)"
    ):
        score_files([tmp_path / "p.npz"], data)
    with open(tmp_path / "huge.npy", "wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (6, 10**6, 10**5, 10**5)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(b"0" * 100)
    with pytest.raises(AmbisegError, match="cannot be read"):
        score_files([tmp_path / "huge.npy"], data)
    np.save(tmp_path / "p.npy", np.zeros((6, 1, 8, 10)))
    header = (tmp_path / "p.npy").read_bytes().replace(b"}", b"(", 1)
    (tmp_path / "header.npy").write_bytes(header)
    with pytest.raises(AmbisegError, match="cannot be read as npy"):
        score_files([tmp_path / "header.npy"], data)
    archive = bytearray((tmp_path / "p.npz").read_bytes())
    archive[archive.rindex(b"PK\x01\x02") + 6] = 200  # a version of zip that does not exist
    (tmp_path / "version.npz").write_bytes(archive)
    with pytest.raises(AmbisegError, match="cannot be read as npz .zip file version"):
        score_files([tmp_path / "version.npz"], data)
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(AmbisegError, match="cannot be read as npz"):
        score_files([tmp_path / "torn.npz"], data)


# -- checks --------------------------------------------------------------------------------------------------


def test_missing_images_are_refused_or_left_out_for_all(data, masks, ids, tmp_path):
    whole = _folders(tmp_path / "a", ids, masks, _png)
    part = _folders(tmp_path / "b", ids[:2] + ids[4:], np.delete(masks, [2, 3], 0), _png)
    with pytest.raises(
        AmbisegError, match="b: predictions of 2 of 6 images are missing, 'i2', 'i3'.*--allow-missing"
    ):
        score_files([whole, part], data)
    found = score_files([whole, part], data, metrics="ged", allow_missing=True)
    assert found.missing == ("i2", "i3") and found.images == 4
    assert found.systems[0].values == found.systems[1].values
    assert found.to_dict()["missing"] == ["i2", "i3"]


def test_other_images_are_ignored_with_a_remark(data, masks, ids, tmp_path):
    path = _folders(tmp_path / "p", (*ids, "other"), np.concatenate([masks, masks[:1]]), _png)
    found = score_files([path], data, metrics=NAMES)
    assert found.remarks == ("p: predictions of 1 image that the split does not have are ignored, 'other'",)
    assert _values(found) == _expected(data, masks)


def test_missing_images_are_named_beside_those_that_are_too_many(data, masks, ids, tmp_path):
    np.savez(tmp_path / "p.npz", masks=masks, ids=np.arange(6))
    with pytest.raises(
        AmbisegError,
        match="'i2' and 3 more .it has others, which the split does not have: '0', '1', '2' and 3 more.: add them, correct",
    ):
        score_files([tmp_path / "p.npz"], data)
    path = _folders(tmp_path / "p", (*ids[:5], "i-5"), masks, _png)
    with pytest.raises(AmbisegError, match=r"1 of 6 images are missing, 'i5' \(it has others.*: 'i-5'\)"):
        score_files([path], data)


def test_a_data_set_is_no_predictions_and_its_masks_are(data):
    for place, what in ((data, "a data set"), (data / "test", "a split of a data set")):
        with pytest.raises(AmbisegError, match=f"{what}, no predictions: .* name {data / 'test' / 'masks'}$"):
            score_files([place], data)
    found = score_files([data / "test" / "masks"], data, metrics="hm_iou", bootstrap=None)
    assert _values(found) == {"hm_iou": 1}


def test_each_kind_of_mistake_has_one_message(data, masks, weights, ids, tmp_path):
    """With the number of images and up to three examples."""
    twice = weights * np.array([1, 1, 2, 1, 1, 1])[:, None]
    cases = {
        "size": (np.zeros((6, 4, 8, 9), np.uint8), None, r"masks of 6 images have another size.*'i0' \(8x9, annotated 8x10\)"),
        "class": (np.where(masks == 1, 7, 0).astype(np.uint8), None, "no classes.*: number the classes 0 background, 1 fore"),
        "weight": (masks, twice, r"1 image have weights whose sum is not 1, 'i2' \(sum 2\): divide"),
        "negative": (masks, -weights, r"weights that are no probabilities.*\(one is -0.*give each mask its probability"),
        "zero": (masks, weights * np.array([1, 1, 1, 1, 1, 0])[:, None], r"no probabilities, 'i5' \(all are 0\)"),
        "unknown": (masks, weights * np.array([1, 1, 1, 1, 1, np.nan])[:, None], r"'i5' \(one is NaN"),
        "range": (np.where(np.arange(10) > 8, 1.3, masks / 2), None, r"of 0 to 1.*0 to 1.3.*: clip or correct the values$"),
        "greys": (np.arange(6 * 4 * 80).reshape(6, 4, 8, 10) % 251, None, r"1 foreground, or divide by 255 if they"),
        "axes": (masks.transpose(0, 2, 3, 1), None, r"8 masks of 10x4.*: check the order of axes, \(images"),
        "logits": (masks * np.float32(5) - 3, None, r"outside of 0 to 1.*\(-3 to 2\).*through a sigmoid"),
        "void": (masks * np.float32(2) - 1, None, "no classes of the data"),
        "nan": (np.where(masks == 1, np.nan, 0.5).astype(np.float32), None, r"hold NaN or.*: correct the values$"),
        "channels": (np.full((6, 4, 3, 8, 10), 1 / 3), None, r"another number of classes.*\(3 channels, 2 classes\)"),
        "sum": (np.full((6, 4, 2, 8, 10), 0.4), None, r"whose sum is not 1.*\(sum 0.8 at a pixel\).*softmax"),
    }  # fmt: skip
    for name, (values, shares, message) in cases.items():
        extra = {} if shares is None else {"weights": shares}
        np.savez(tmp_path / f"{name}.npz", masks=values, ids=np.array(ids), **extra)
        with pytest.raises(AmbisegError, match=message) as caught:
            score_files([tmp_path / f"{name}.npz"], data)
        assert str(caught.value).count("'i") <= 3 and "1 images" not in str(caught.value)
    np.savez(tmp_path / "near.npz", masks=masks, ids=np.array(ids), weights=weights * 1.0009)
    assert _values(score_files([tmp_path / "near.npz"], data, metrics=NAMES)) == _expected(
        data, masks, weights
    )


def test_a_file_that_cannot_be_read_is_named(data, masks, ids, tmp_path):
    path = _folders(tmp_path / "p", ids, masks, _png)
    (path / "i1" / "s0.png").write_bytes(b"no picture")
    shutil.rmtree(path / "i3")
    (path / "i3").mkdir()
    with pytest.raises(
        AmbisegError,
        match=r"of 1 image cannot be read, \S*s0\.png: cannot be read as png \(its content is damaged or no pic",
    ) as caught:
        score_files([path], data)
    assert str(caught.value).endswith(f"'i3' ({path / 'i3'}): {MISTAKES['empty'][1]}")


def test_files_that_are_no_masks_are_ignored_with_a_remark(data, masks, ids, tmp_path):
    path = _folders(tmp_path / "p", ids, masks, _png)
    for name in ("README.txt", ".DS_Store", "Thumbs.db"):
        (path / "i0" / name).write_text("x")
    found = score_files([path], data, metrics=NAMES)
    assert _values(found) == _expected(data, masks)
    assert len(found.remarks) == 1
    assert (
        "1 file of other suffixes than masks have" in found.remarks[0]
        and "'i0/README.txt'" in found.remarks[0]
    )
    shutil.rmtree(path / "i1")
    (path / "i1").mkdir()
    (path / "i1" / "mask.jpg").write_bytes(b"x")
    with pytest.raises(
        AmbisegError, match=r"1 image are .jpg only, which is lossy, 'i1' \(1 file\): save them as .png$"
    ):
        score_files([path], data)


def test_files_that_leave_a_choice_are_refused(data, masks, ids, tmp_path):
    np.savez(tmp_path / "p.npz", masks=masks, predictions=1 - masks, ids=np.array(ids))
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["masks"], file["predictions"] = masks, 1 - masks
    for name in ("p.npz", "p.h5"):
        with pytest.raises(
            AmbisegError, match="an array 'predictions' and an array 'masks': save one of them$"
        ):
            score_files([tmp_path / name], data)
    with pytest.raises(AmbisegError, match="ids.txt: there is no such file"):
        read_ids(tmp_path / "ids.txt")


def test_weights_and_masks_belong_together(data, masks, weights, ids, tmp_path):
    """Images without weights, and weights without images, are remarks; within an image they are mistakes."""
    path = _folders(tmp_path / "p", ids, masks, _png)
    stated = {name: {f"s{k}": float(weights[i, k]) for k in range(4)} for i, name in enumerate(ids)}
    some = {**{name: own for name, own in stated.items() if name != "i3"}, "x": {"s0": 1.0}}
    (path / "weights.json").write_text(json.dumps(some))
    expected = weights.copy()
    expected[3] = 0.25
    found = score_files([path], data, metrics=NAMES)
    assert _values(found) == _expected(data, masks, expected)
    assert "no weights of 1 image, 'i3': their masks are equally probable" in found.remarks[0]
    assert "weights of 1 image without masks, ignored, 'x'" in found.remarks[1]
    stated["i2"]["s9"] = 0.0
    del stated["i4"]["s1"]
    (path / "weights.json").write_text(json.dumps(stated))
    message = r"2 images have weights that do not belong.*'i2' \(a weight for 's9' and no mask\), 'i4' \(no weight for 's1'\)"
    with pytest.raises(AmbisegError, match=message):
        score_files([path], data)
    (path / "weights.json").unlink()
    (path / "weights.csv").write_text("id,sample,weight\ni0,s0,-0.5\ni0,s1,nan\n")
    with pytest.raises(
        AmbisegError, match="row 2: the weight '-0.5' is negative or not finite, and 1 row more is wrong"
    ):
        score_files([path], data)


def test_a_prediction_names_no_file_elsewhere(data, ids, tmp_path):
    for name in ids:
        (tmp_path / "p" / name).mkdir(parents=True)
        content = {"masks": [{"file": "../../secret.png", "probability": 1.0}]}
        (tmp_path / "p" / name / "prediction.json").write_text(json.dumps(content))
    with pytest.raises(AmbisegError, match="lies elsewhere"):
        score_files([tmp_path / "p"], data)


# -- several systems -----------------------------------------------------------------------------------------


def test_differences_are_paired(data, masks, ids, tmp_path):
    """Of a mean by its closed form; of a system to itself exactly 0, also where images are pooled."""
    rng = np.random.default_rng(5)
    other = rng.integers(0, 2, (6, 9, 8, 10)).astype(np.uint8)
    for name, values in (("a", masks), ("b", other), ("c", masks)):
        np.savez(tmp_path / f"{name}.npz", masks=values, ids=np.array(ids))
    found = score_files(
        [tmp_path / f"{name}.npz" for name in "abc"], data, names=("a", "b", "c"), metrics=NAMES
    )
    first, second, third = found.systems
    assert (first.differences, [s.name for s in found.systems]) == ({}, ["a", "b", "c"])
    expected = Bootstrap().difference(second.figures.per_image["ged"], first.figures.per_image["ged"])
    assert second.differences["ged"].mean == pytest.approx(expected.mean, abs=2e-6)
    assert second.differences["ged"].interval == pytest.approx(expected.interval, abs=2e-6)
    for name in NAMES:
        assert second.differences[name].mean == pytest.approx(
            second.values[name] - first.values[name], abs=2e-6
        )
        assert (third.differences[name].mean, *third.differences[name].interval) == (0, 0, 0)
    low, high = second.differences["ece"].interval
    assert low < second.differences["ece"].mean < high


def test_differences_are_tested(data, masks, ids, tmp_path):
    """By exchanging the two systems image by image; corrected for the number of systems."""
    other = np.random.default_rng(5).integers(0, 2, (6, 4, 8, 10)).astype(np.uint8)
    truth = np.stack([sample.masks for sample in open_split(data, "test")])
    for name, values in (("a", masks), ("b", other), ("c", truth), ("d", masks)):
        np.savez(tmp_path / f"{name}.npz", masks=values, ids=np.array(ids))
    found = score_files([tmp_path / f"{n}.npz" for n in "abcd"], data, names=tuple("abcd"), metrics=NAMES)
    first, b, c, d = found.systems
    assert first.p_values == first.corrected == {}
    for system in (b, c, d):
        for name in ("ged", "hm_iou_unique"):
            expected = PairedTest().mean(system.figures.per_image[name], first.figures.per_image[name])
            assert system.p_values[name] == pytest.approx(expected, abs=1e-6)
    for name in NAMES:
        p = holm({s.name: s.p_values[name] for s in (b, c, d)})
        assert {s.name: s.corrected[name] for s in (b, c, d)} == p
    assert (c.p_values["ged"], d.p_values["ged"], d.p_values["ece"]) == (2 / 2**6, 1, 1)
    record = found.to_dict()["systems"]["c"]["difference_to_first"]["ged"]
    assert (record["p"], record["p_holm"]) == (c.p_values["ged"], c.corrected["ged"]) and record[
        "p_holm"
    ] > record["p"]
    assert found.best() == {name: ["c"] for name in NAMES}


def test_counts_may_differ_and_the_oracle_draws_as_many(data, masks, ids, tmp_path):
    """An annotation oracle of one draw per image has diversity 0."""
    path = tmp_path / "p"
    for i, name in enumerate(ids):
        _folders(path, [name], masks[i : i + 1, : 1 + i % 2], _png)
    found = score_files([path], data, metrics=["diversity"])
    system = found.systems[0]
    assert system.count == "1.50 (1 to 2)"
    assert found.to_dict()["systems"]["p"]["masks_per_image"] == {"mean": 1.5, "least": 1, "most": 2}
    truth = next(iter(open_split(data, "test")))
    both = score(truth.masks[None], truth.masks[None], metrics=["diversity"], bootstrap=None)
    assert 0 < system.figures.oracle["diversity"] < both.systems[0].figures.oracle["diversity"]


def test_groups_are_drawn_together(data, masks, ids, tmp_path):
    np.savez(tmp_path / "p.npz", masks=masks, ids=np.array(ids))
    groups = dict(zip(ids, "aabbcd", strict=True))
    found = score_files([tmp_path / "p.npz"], data, metrics="ged", groups=groups)
    expected = Bootstrap().mean(found.systems[0].figures.per_image["ged"], list("aabbcd"))
    assert found.units == 4 and found.systems[0].intervals["ged"] == pytest.approx(expected, abs=2e-6)
    with pytest.raises(AmbisegError, match="1 image has no group"):
        score_files([tmp_path / "p.npz"], data, groups={name: "a" for name in ids[1:]})


def test_the_digest_of_settings_tells_figures_apart(data, masks, ids, tmp_path):
    np.savez(tmp_path / "p.npz", masks=masks, ids=np.array(ids))
    first, again, other = (
        score_files([tmp_path / "p.npz"], data, metrics="ged", dialect=dialect)
        for dialect in ("ambiseg", "ambiseg", "wildfire")
    )
    assert first.settings_digest == again.settings_digest != other.settings_digest
    named = score_files([tmp_path / "p.npz"], data, metrics=["hm_iou", "ged"])
    assert named.settings_digest == first.settings_digest
    assert named.systems[0].values["ged"] == first.systems[0].values["ged"]
    assert named.systems[0].figures.oracle["ged"] == first.systems[0].figures.oracle["ged"]
    assert first.data_digest == other.data_digest == open_split(data, "test").digest()


@pytest.mark.parametrize("metrics", [["bits_per_dimension"], ["ged", "bits_per_dimension"], "all"])
def test_a_metric_that_one_system_has_is_computed_for_it(data, masks, ids, tmp_path, metrics):
    np.savez(tmp_path / "hard.npz", masks=masks, ids=np.array(ids))
    np.savez(tmp_path / "soft.npz", masks=0.8 * masks + 0.1, ids=np.array(ids))
    alone = score_files([tmp_path / "soft.npz"], data, metrics="bits_per_dimension").systems[0].values
    for names in (["hard.npz", "soft.npz"], ["soft.npz", "hard.npz"]):
        found = score_files([tmp_path / name for name in names], data, metrics=metrics)
        values = {system.name: system.values for system in found.systems}
        assert alone.items() <= values["soft.npz"].items() and "bits_per_dimension" not in values["hard.npz"]
        assert found.undefined["bits_per_dimension"].startswith(
            "of hard.npz, it needs probabilities of pixels"
        )
        assert "bits_per_dimension" not in found.best() and "Bits per pixel" in repr(found)
    with pytest.raises(AmbisegError, match="hard.npz, h: bits_per_dimension needs probabilities"):
        score_files([tmp_path / "hard.npz"] * 2, data, names=["hard.npz", "h"], metrics="bits_per_dimension")


def test_no_system_is_the_best_of_a_metric_that_may_pass_its_ideal(data, masks, ids, tmp_path):
    for name, own in (("a", masks[:, :2]), ("b", masks)):
        np.savez(tmp_path / f"{name}.npz", masks=own, ids=np.array(ids))
    found = score_files([tmp_path / "a.npz", tmp_path / "b.npz"], data, metrics=["ged", "ged_unbiased"])
    assert list(found.best()) == ["ged"]


# -- arrays --------------------------------------------------------------------------------------------------


def test_arrays_equal_files(data, masks, weights, ids, tmp_path):
    np.savez(tmp_path / "p.npz", masks=masks, ids=np.array(ids), weights=weights)
    files = score_files([tmp_path / "p.npz"], data).to_dict()["systems"]["p.npz"]
    truth = list(open_split(data, "test"))
    found = score(
        masks,
        np.stack([sample.masks for sample in truth]),
        weights=weights,
        annotation_weights=[sample.weights for sample in truth],
    )
    assert found.to_dict()["systems"]["predictions"] == files


def test_images_of_different_size_and_count():
    rng = np.random.default_rng(0)
    sizes = [(5, 7), (5, 7), (9, 4)]
    ours = [rng.integers(0, 3, (2 + i, *size)) for i, size in enumerate(sizes)]
    theirs = [rng.integers(0, 3, (3 - i, *size)) for i, size in enumerate(sizes)]
    whole = score(ours, theirs, metrics="ged", oracle_draws=0)
    single = [
        score([a], [b], metrics="ged", oracle_draws=0, bootstrap=None)
        for a, b in zip(ours, theirs, strict=True)
    ]
    assert _values(whole)["ged"] == pytest.approx(np.mean([_values(one)["ged"] for one in single]), abs=2e-6)
    assert whole.labels.classes == 3 and "GED²" in repr(whole)


def test_arrays_that_do_not_belong_together_are_refused():
    masks = np.zeros((2, 3, 4, 4), np.uint8)
    with pytest.raises(AmbisegError, match="predictions of 2 images, annotations of 1"):
        score(masks, masks[:1])
    with pytest.raises(AmbisegError, match="another size"):
        score(masks, masks[..., :3])
    with pytest.raises(AmbisegError, match="weights of shapes"):
        score(masks, masks, weights=np.ones((2, 2)))
    with pytest.raises(AmbisegError, match="fractions"):
        score(masks, masks + 0.5)
    with pytest.raises(AmbisegError, match=r"\(n, H, W\)"):
        score(masks[0], masks[0])


def test_mask_sets_equal_arrays(masks, weights):
    """On either side, as a batch, as a list of images or of batches, with places that hold no mask."""
    truth = np.random.default_rng(5).integers(0, 2, (6, 3, 8, 10)).astype(np.uint8)
    shares = np.tile([0.2, 0.3, 0.5], (6, 1))
    expected = score(masks, truth, weights=weights, annotation_weights=shares).to_dict()
    ours = MaskSet.stack([MaskSet.from_numpy(*one) for one in zip(masks, weights, strict=True)])
    theirs = MaskSet.stack([MaskSet.from_numpy(*one) for one in zip(truth, shares, strict=True)])
    assert score(ours, theirs).to_dict() == expected
    assert score(list(ours), [theirs[:2], theirs[2:].padded(7)]).to_dict() == expected
    assert score(ours.padded(6), truth, annotation_weights=shares).to_dict() == expected
    assert score(masks, theirs, weights=weights).to_dict() == expected
    with pytest.raises(AmbisegError, match="a MaskSet has weights of its own: leave out weights"):
        score(ours, theirs, weights=weights)
    with pytest.raises(AmbisegError, match="leave out annotation_weights"):
        score(masks, theirs, annotation_weights=shares)
    with pytest.raises(AmbisegError, match="other classes than the data"):
        score(replace(ours, labels=LabelSpace.of_classes(3)), theirs)


def test_mask_sets_bring_probabilities_and_scores():
    rng = np.random.default_rng(6)
    numbers, truth = rng.random((3, 4, 8, 8)).astype(np.float32), rng.integers(0, 2, (3, 2, 8, 8))
    found = MaskSet.from_probabilities(
        torch.from_numpy(numbers)[:, :, None], LabelSpace.binary(), scores=torch.rand(3, 4)
    )
    names = ["bits_per_dimension", "ece", "selection_ap"]
    assert set(_values(score(found, truth, metrics=names))) == set(names)
    arrays = score(numbers, truth, metrics=names[:2])
    assert _values(score(found, truth, metrics=names[:2])) == _values(arrays)
    some = [found[0], replace(found[1:], scores=None)]
    assert "selection_ap" not in _values(score(some, truth, metrics="all"))


# -- metrics that mean nothing -------------------------------------------------------------------------------


def test_skill_against_equal_probabilities_is_left_out_where_these_are_exact():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (6, 4, 6, 6))
    found = score(truth[:, :2], truth, bootstrap=None)
    assert set(found.left_out) == {"brier_skill_score", "brier_skill_nearest"} & {
        name for name, info in METRICS.items() if info.default
    }
    assert "100% of the images all modes are equally probable" in found.left_out["brier_skill_score"]
    assert not set(found.left_out) & set(_values(found)) and "left out: BSS" in repr(found)
    named = score(truth[:, :2], truth, metrics=["brier_skill_score"], bootstrap=None)
    assert "brier_skill_score" in _values(named) and named.left_out == {}
    votes = truth.copy()
    votes[:, 1] = votes[:, 0]
    assert score(truth[:, :2], votes, bootstrap=None).left_out == {}


def test_a_metric_without_a_value_is_left_out_with_the_reason():
    """In the dialect kohl an image whose masks are all empty has no GED²."""
    empty, some = np.zeros((2, 2, 4, 4), np.uint8), np.ones((2, 2, 4, 4), np.uint8)
    nowhere = score(empty, empty, dialect="kohl", bootstrap=None)
    assert (
        "ged" not in _values(nowhere)
        and "the dialect kohl gives such an image no value" in nowhere.left_out["ged"]
    )
    assert "GED², Diversity: in each image some pair" in repr(nowhere)
    asked = score(empty, empty, dialect="kohl", metrics="ged", bootstrap=None)
    assert asked.left_out == {} and "the dialect kohl" in asked.undefined["ged"]
    record = asked.to_dict()
    assert record["systems"]["predictions"]["metrics"] == {"ged": None}
    assert record["systems"]["predictions"]["images_with_value"] == {"ged": 0} and record["undefined"]["ged"]
    half = score(np.concatenate([empty, some]), np.concatenate([empty, some]), dialect="kohl", metrics="ged")
    assert half.systems[0].partial == {"ged": 2} and half.undefined == {}
    assert "(of 2 images)" in repr(half)
    assert half.to_dict()["systems"]["predictions"]["images_with_value"] == {"ged": 2}


def test_means_of_different_images_are_not_compared(tmp_path):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (5, 3, 4, 4)).astype(np.uint8)
    samples = [
        Sample(f"i{i}", m[:1].astype(np.float32), m, np.full(3, 1 / 3), ("a", "b", "c"))
        for i, m in enumerate(masks)
    ]
    data = write_dataset(tmp_path / "d", {"test": samples}, DatasetInfo("d"))
    lost = masks.copy()
    lost[0] = 0
    for name, values in (("a", masks), ("b", lost)):
        np.savez(tmp_path / f"{name}.npz", masks=values, ids=np.array([s.id for s in samples]))
    found = score_files(
        [tmp_path / "a.npz", tmp_path / "b.npz"], data, dialect="kohl", metrics=["ged", "ece"]
    )
    assert found.unequal == ["ged"] and "ged" not in found.best() and found.best()["ece"] == ["a.npz"]
    assert found.systems[1].partial == {"ged": 4}
    same = np.mean(found.systems[0].figures.per_image["ged"][1:])
    difference = found.systems[1].differences["ged"].mean
    assert difference == pytest.approx(found.systems[1].values["ged"] - same, abs=2e-6) and difference == 0


def test_infinite_figures_are_words_in_json():
    """Draws to see all modes are infinite where a mode is never drawn."""
    truth = np.array([[[[0, 1]], [[1, 1]]]], np.uint8)
    found = score(truth[:, :1], truth, metrics=["expected_draws", "ged"], bootstrap=None, oracle_draws=0)
    record = found.to_dict()["systems"]["predictions"]
    assert (
        record["metrics"]["expected_draws"] == "inf" and float(record["metrics"]["expected_draws"]) == np.inf
    )
    assert record["images_with_value"] == {}
