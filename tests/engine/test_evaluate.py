"""Evaluation equals the metrics of the predictions, in both columns, per image and for any batch size."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ambiseg.cli.evaluate import facts
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine.evaluate import evaluate
from ambiseg.engine.postprocess import PredictSettings, postprocess
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import METRICS as METRICS_FILE
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import (
    METRICS,
    Bootstrap,
    annotation_oracle,
    annotator_agreement,
    coverage_curve,
    default_metrics,
    metric_collection,
)

SETTINGS = PredictSettings(score_threshold=0.3)


@pytest.fixture(scope="module")
def run(tiny_run):
    return load(tiny_run, precision="32", device="cpu")


@pytest.fixture(scope="module")
def found(run, fires):
    return evaluate(run, fires, "test", SETTINGS)


@pytest.fixture(scope="module")
def sets(run, fires):
    """Of each image: all proposals, those that are kept, and the annotations."""
    triples = []
    for sample in open_split(fires, "test"):
        every = run.propose([sample.image])
        weights = torch.from_numpy(sample.weights).float()[None]
        truth = MaskSet(torch.from_numpy(sample.masks)[None], weights, run.config.labels)
        triples.append((every, postprocess(every, SETTINGS.for_run(run)).masks, truth))
    return triples


def test_both_columns_equal_metrics_of_predictions(found, sets):
    """Image by image, with the public metrics and nothing else."""
    for column, name_of in enumerate(("all", "kept")):
        names = [name for name in default_metrics(sets[0][0]) if name_of in METRICS[name].columns]
        collection = metric_collection(names)
        for triple in sets:
            collection.update(triple[column], triple[2])
        expected = {name: float(value) for name, value in collection.compute().items()}
        values = getattr(found, name_of)
        assert list(values) == names
        assert values == pytest.approx(expected, abs=2e-6, nan_ok=True)
    assert found.n_all == 6.0
    assert found.n_kept == pytest.approx(np.mean([float(kept.count[0]) for _, kept, _ in sets]), abs=1e-3)


def test_values_per_image_equal_the_metric(found, sets):
    for name, values in found.per_image.items():
        column = ("all", "kept").index(METRICS[name].columns[0])
        expected = [float(METRICS[name].function(triple[column], triple[2])) for triple in sets]
        assert values.tolist() == pytest.approx(expected, abs=1e-5, nan_ok=True), name


def test_means_per_image_equal_the_summary(found):
    """But for the numbers that pool their parts over all images first."""
    for name, values in found.per_image.items():
        if METRICS[name].pooling is None:
            assert np.nanmean(values) == pytest.approx(found.all[name], abs=2e-6), name


def test_the_annotation_oracle_and_the_annotators_stand_beside(found, sets):
    """By the closed form: n draws have a GED of d(Y, Y) / n on average; and no column for what draws do not
    have."""
    truth = [triple[2] for triple in sets]
    spread = np.mean([float(annotator_agreement(t).spread) for t in truth])
    assert found.figures.annotators["spread"] == pytest.approx(spread, abs=1e-6)
    many = np.mean(
        [float(annotation_oracle(t, "ged", 6, 400, torch.Generator().manual_seed(1)).mean) for t in truth]
    )
    assert many == pytest.approx(spread / 6, rel=0.1)
    assert found.oracle["ged"] == pytest.approx(spread / 6, rel=0.6)
    assert set(found.all) - set(found.oracle) == {name for name in found.all if name.startswith("selection")}


def test_pixels_and_coverage_are_those_of_all_masks(found, sets):
    curve = torch.stack([coverage_curve(every, truth)[0] for every, _, truth in sets]).mean(0)
    np.testing.assert_allclose(found.figures.coverage, curve.numpy(), atol=1e-6)
    assert found.figures.coverage[-1] == pytest.approx(found.all["hm_iou_unique"], abs=1e-5)
    confidence, target, count = found.figures.pixels
    pixels = sum(truth.masks[0, 0].numel() for _, _, truth in sets)
    assert count.sum() == pixels
    gap = np.nansum(np.abs(confidence - target) * count) / pixels
    assert gap == pytest.approx(found.all["ece"], abs=1e-5)


def test_all_metrics_can_be_asked_for_and_the_annotation_oracle_left_out(run, fires):
    everything = evaluate(run, fires, "test", SETTINGS, metrics=["all"], oracle_draws=0)
    assert list(everything.per_image) == list(METRICS) and everything.oracle == {}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_size_of_batches_changes_nothing(found, run, fires, batch_size):
    other = evaluate(run, fires, "test", SETTINGS, batch_size=batch_size)
    assert other.all == pytest.approx(found.all, abs=1e-5, nan_ok=True)
    assert other.kept == pytest.approx(found.kept, abs=1e-5, nan_ok=True)
    assert (other.ids, other.n_all, other.n_kept, other.images) == (found.ids, found.n_all, found.n_kept, 5)
    np.testing.assert_allclose(other.figures.estimated, found.figures.estimated, atol=1e-5)
    np.testing.assert_allclose(other.figures.true, found.figures.true, atol=1e-6)


def test_probabilities_are_paired_with_those_of_modes(found, sets):
    """True ones sum to 1 per image, estimated ones to at most 1."""
    assert found.figures.estimated.shape == found.figures.true.shape
    modes = [int(truth.merge_identical().count[0]) for _, _, truth in sets]
    assert len(found.figures.true) >= sum(modes)
    assert found.figures.true.sum() == pytest.approx(len(sets), abs=1e-5)
    assert 0 < found.figures.estimated.sum() <= len(sets) + 1e-5


def test_images_of_different_sizes(run, tmp_path):
    rng = np.random.default_rng(0)
    channels = run.config.in_channels
    samples = [
        Sample(
            f"i{i}",
            rng.random((channels, *size)).astype(np.float32),
            rng.integers(0, 2, (2, *size)).astype(np.uint8),
            np.array([0.3, 0.7]),
            ("a", "b"),
        )
        for i, size in enumerate([(9, 7), (9, 7), (16, 5), (9, 7)])
    ]
    data = write_dataset(tmp_path / "d", {"test": samples}, DatasetInfo("d", run.config.labels))
    calls = []
    whole = evaluate(run, data, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 4) for i in range(1, 5)] and whole.ids == ("i0", "i1", "i2", "i3")
    single = evaluate(run, data, batch_size=1)
    assert whole.all == pytest.approx(single.all, abs=1e-5, nan_ok=True)


def test_files_in_the_run_folder(found, tmp_path):
    found.save(tmp_path)
    summary = json.loads((tmp_path / METRICS_FILE).read_text())
    assert summary["images"] == 5 and summary["split"] == "test"
    assert summary["data_digest"] == found.data_digest and len(found.data_digest) == 64
    for column in ("all", "kept"):
        values = {k: v for k, v in summary[column].items() if k != "masks_per_image"}
        assert values == pytest.approx(getattr(found, column), nan_ok=True)
    with open(tmp_path / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(row["id"] for row in rows) == found.ids
    for name, values in found.per_image.items():
        assert [float(row[name]) for row in rows] == pytest.approx(values.tolist(), rel=1e-5, nan_ok=True)
    assert all(math.isfinite(v) for v in found.all.values())


def test_intervals_are_those_of_the_images(found, run, fires, tmp_path):
    """Of both columns; over groups where there are some, and none where none are asked for."""
    for name, values in found.per_image.items():
        if METRICS[name].pooling is None:
            ends = found.intervals[METRICS[name].columns[0]][name]
            assert ends == pytest.approx(Bootstrap().mean(values), abs=2e-6, nan_ok=True), name
    assert {name: list(column) for name, column in found.intervals.items()} == {
        "all": list(found.all),
        "kept": list(found.kept),
    }
    groups = dict(zip(found.ids, "aabcd", strict=True))
    grouped = evaluate(run, fires, "test", metrics=["ged", "ece"], groups=groups)
    expected = Bootstrap().mean(grouped.per_image["ged"], list("aabcd"))
    assert grouped.intervals["all"]["ged"] == pytest.approx(expected, abs=2e-6)
    grouped.save(tmp_path)
    saved = json.loads((tmp_path / METRICS_FILE).read_text())["intervals"]
    assert (saved["units"], saved["level"], saved["resamples"]) == (4, 0.95, 1000)
    assert saved["all"]["ged"] == list(grouped.intervals["all"]["ged"])
    three = evaluate(run, fires, "test", metrics=["ged"], groups=dict(zip(found.ids, "aabbc", strict=True)))
    assert three.units == 3 and three.to_dict()["intervals"]["all"] == {"ged": None}
    plain = evaluate(run, fires, "test", metrics="ged", bootstrap=None)
    assert list(plain.all) == ["ged"] and plain.intervals == {} and "intervals" not in plain.to_dict()
    with pytest.raises(AmbisegError, match=f"1 image has no group, such as '{found.ids[0]}'"):
        evaluate(run, fires, "test", groups={name: "a" for name in found.ids[1:]})


def test_one_annotation_for_each_image_says_nothing_of_agreement(run, fires, tmp_path):
    split = open_split(fires, "test")
    one = [replace(s, masks=s.masks[:1], weights=np.ones(1), annotators=("a",)) for s in split]
    data = write_dataset(tmp_path / "one", {"test": one}, split.info)
    found = evaluate(run, data, metrics=["ged"], bootstrap=None)
    assert set(found.to_dict()["annotators"].values()) == {None}
    assert facts(found, data)[1] == "one annotation per image: agreement unknown"


def test_chosen_metrics_only(run, fires):
    few = evaluate(run, fires, "val", metrics=["ged", "brier_skill_score"])
    assert list(few.all) == ["ged"] and list(few.kept) == ["ged", "brier_skill_score"]
    assert few.images == 4


def test_data_that_do_not_fit_are_refused(run, fires, tmp_path):
    with pytest.raises(AmbisegError, match="did you mean 'ged'"):
        evaluate(run, fires, "test", metrics=["gedd"])
    with pytest.raises(AmbisegError, match="no split 'exam'"):
        evaluate(run, fires, "exam")
    other = write_dataset(
        tmp_path / "d", {"test": open_split(fires, "test")}, DatasetInfo("d", LabelSpace.of_classes(3))
    )
    with pytest.raises(AmbisegError, match="classes"):
        evaluate(run, other)
    empty = write_dataset(tmp_path / "e", {"test": []}, DatasetInfo("e"))
    with pytest.raises(AmbisegError, match="holds no image"):
        evaluate(run, empty)


def test_void_is_what_the_data_say(run, fires, tmp_path):
    """Void pixels of the evaluated data count for nothing, also where the training data had none."""
    samples, rows = list(open_split(fires, "test")), np.arange(16)[:, None] < 4
    hidden = [replace(s, masks=np.where(rows, 9, s.masks).astype(np.uint8)) for s in samples]
    labels = replace(run.config.labels, ignore_value=9)
    data = write_dataset(tmp_path / "d", {"test": hidden}, DatasetInfo("d", labels))
    expected = []
    for sample in samples:
        every = run.propose([sample.image])
        cut = MaskSet(every.masks[:, :, 4:], every.weights, every.labels)
        masks, weights = (
            torch.from_numpy(sample.masks[:, 4:])[None],
            torch.from_numpy(sample.weights).float()[None],
        )
        expected.append(float(METRICS["m_iou"].function(cut, MaskSet(masks, weights, every.labels))))
    found = evaluate(run, data, "test", metrics=["m_iou"])
    assert found.per_image["m_iou"].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_foreground_threshold_decides_all_masks(run, fires):
    """Half-way between the smallest and the largest probability of a pixel: neither empty nor full masks, and
    recorded."""
    samples = list(open_split(fires, "test"))
    found = run.propose([samples[0].image]).probabilities
    threshold = float(found.min() + found.max()) / 2
    expected = []
    for sample in samples:
        masks = (run.propose([sample.image]).probabilities[:, :, 0] > threshold).to(torch.uint8)
        every = MaskSet(masks, run.propose([sample.image]).weights, run.config.labels)
        truth = torch.from_numpy(sample.masks)[None], torch.from_numpy(sample.weights).float()[None]
        expected.append(float(METRICS["ged"].function(every, MaskSet(*truth, run.config.labels))))
    settings = PredictSettings(foreground_threshold=threshold)
    evaluation = evaluate(run, fires, "test", settings, metrics=["ged"])
    assert evaluation.per_image["ged"].tolist() == pytest.approx(expected, abs=1e-5)
    assert evaluation.to_dict()["settings"] == {
        "score_threshold": None,
        "probability_threshold": None,
        "duplicate_iou": 1.0,
        "samples": None,
        "top": None,
        "foreground_threshold": threshold,
        "temperature": 1.0,
    }
    assert (
        evaluation.per_image["ged"].tolist()
        != evaluate(run, fires, "test", metrics=["ged"]).per_image["ged"].tolist()
    )
