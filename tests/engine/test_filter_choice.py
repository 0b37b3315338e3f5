"""What predictions keep is chosen by the energy score: what carries information stays, the rest goes."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.source import open_split
from ambiseg.data.split import Split
from ambiseg.engine import filter_choice
from ambiseg.engine.filter_choice import (
    EVERYTHING,
    FEWEST,
    TOLERANCE,
    Compared,
    choose_filter,
    default_or_better,
    filters,
)
from ambiseg.engine.fitted_filter import FilterValues, FittedFilter
from ambiseg.engine.postprocess import EstimateSettings, PredictSettings, postprocess
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import FILTER
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics import ged_parts

BINARY = LabelSpace.binary()


class Images(Split):
    """Images in memory with annotations; every pixel of an image is its number."""

    def __init__(self, annotations, info=None, weights=None):
        self.samples = [
            Sample(
                f"i{n:03}",
                np.full((1, *masks.shape[1:]), n, np.float32),
                masks,
                np.full(len(masks), 1 / len(masks)) if weights is None else np.array(weights),
                ("",) * len(masks),
            )
            for n, masks in enumerate(annotations)
        ]
        self.ids, self.info = tuple(s.id for s in self.samples), info or DatasetInfo("hand-made")

    def __getitem__(self, index):
        return self.samples[index]

    def reversed(self):
        other = Images([])
        other.samples, other.ids = self.samples[::-1], self.ids[::-1]
        return other


class Model(Run):
    """A run whose proposals were written by hand: one set for each image number."""

    def __init__(self, proposals):
        self.config = SimpleNamespace(labels=BINARY, channels=(), slices=None)
        self.hardware, self.proposals, self.calls = SimpleNamespace(device="cpu"), proposals, 0

    def difference(self, image):
        return ""

    def propose(self, images, samples=None, generator=None, foreground_threshold=0.5):
        self.calls += 1
        return MaskSet.stack([self.proposals[int(image.flat[0])] for image in images])


def blocks(n):
    """Four masks of 8x8 that overlap with none of the others; of every image other ones."""
    masks = np.zeros((4, 8, 8), np.uint8)
    for k, (y, x) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        masks[k, y : y + 4, x : x + 3] = 1
    return np.roll(masks, n, axis=2)


def proposed(masks, weights, scores=None):
    scores = None if scores is None else torch.tensor([scores])
    return MaskSet(torch.from_numpy(masks)[None], torch.tensor([weights]), BINARY, scores)


def chosen(annotations, proposals, **options):
    """The filter, and what it keeps of the masks of an image on average."""
    found = choose_filter(Model(proposals), Images(annotations), **options)
    return found, [row for row in found.curve if row["chosen"]][-1]["masks"]


COUNT = 20


def test_good_masks_of_low_score_stay():
    sets = [blocks(n) for n in range(COUNT)]
    found, kept = chosen(sets, [proposed(s, [0.25] * 4, [0.05] * 4) for s in sets])
    assert kept == 4 and found.values == EVERYTHING
    assert "keep 4.0 of 4 masks per image" in found.message and "GED² 0.000" in found.message


def test_wrong_masks_of_low_score_go():
    sets = [blocks(n) for n in range(COUNT)]
    proposals = [proposed(s, [0.35, 0.15, 0.35, 0.15], [0.9, 0.25, 0.8, 0.21]) for s in sets]
    found, kept = chosen([s[[0, 2]] for s in sets], proposals)
    assert kept == 2 and found.values == FilterValues(0.3, None, 1.0)


def test_of_filters_that_are_as_good_the_smallest_set_wins():
    """The last mask costs .005 of its image's energy score at most, and less than the tolerance."""
    sets = [blocks(n) for n in range(COUNT)]
    weights = [0.332, 0.332, 0.332, 0.004]
    found, kept = chosen([s[:3] for s in sets], [proposed(s, weights, [0.9] * 4) for s in sets])
    assert kept == 3 and found.values == FilterValues(None, 0.01, 1.0)
    row = next(row for row in found.curve if row["chosen"])
    assert row["worse_by"] + row["standard_error"] <= TOLERANCE


def test_masks_that_represent_all_win_where_no_threshold_can_tell():
    """A rare mode has less weight than a worse copy of a frequent one, and their scores are the same."""
    sets, proposals = [blocks(n) for n in range(COUNT)], []
    for s in sets:
        copy = s[:1].copy()
        copy[0, 0] = 0  # 9 of 12 pixels
        proposals.append(proposed(np.concatenate([s, copy]), [0.505, 0.24, 0.2, 0.025, 0.03], [0.9] * 5))
    found = choose_filter(Model(proposals), Images(sets, weights=[0.535, 0.24, 0.2, 0.025]))
    assert found.values == FilterValues(None, None, 1.0, top=4)
    (last,) = [row for row in found.curve if row["chosen"] and row["step"] == "filter"]
    assert last["masks"] == 4 and last["coverage"] == 1


def test_progress_counts_images_and_candidates():
    sets, told = [blocks(n) for n in range(COUNT)], []
    found, _ = chosen(
        sets, [proposed(s, [0.25] * 4) for s in sets], progress=lambda *counts: told.append(counts)
    )
    done, totals = zip(*told, strict=True)
    assert set(totals) == {COUNT + len(found.curve)}
    assert done[-len(found.curve) - 1 :] == tuple(range(COUNT, totals[0] + 1)), (
        "images first, then candidates"
    )


def test_another_value_has_to_be_clearly_better_than_the_default():
    def index(worse_by, error):
        by, se = np.array(worse_by), np.array(error)
        return default_or_better(Compared(by, se, by + se <= TOLERANCE))

    assert index([0.0, 0.01], [0.0, 0.001]) == 0, "the default is best"
    assert index([0.004, 0.0], [0.003, 0.0]) == 0, "it may be chance"
    assert index([0.0014, 0.0], [0.0, 0.0]) == 0, "it gains too little"
    assert index([0.004, 0.0, 0.001], [0.001, 0.0, 0.0001]) == 1
    assert index([0.004, 0.001, 0.0], [0.001, 0.0001, 0.0]) == 1, "the one nearest to the default"


def test_rare_modes_stay_though_the_energy_score_hardly_sees_them():
    sets, weights = [blocks(n) for n in range(COUNT)], [0.498, 0.498, 0.002, 0.002]
    proposals = [proposed(s, weights, [0.9, 0.9, 0.9, 0.9]) for s in sets]
    found = choose_filter(Model(proposals), Images(sets, weights=weights))
    (last,) = [row for row in found.curve if row["chosen"] and row["step"] == "filter"]
    dropping = [row for row in found.curve if row["probability_threshold"] == 0.01]
    assert last["masks"] == 4 and found.values == EVERYTHING and last["coverage"] == 1
    assert dropping[0]["masks"] == 2 and dropping[0]["worse_by"] < TOLERANCE


def test_a_difference_that_may_be_chance_keeps_masks():
    """On average a mask brings nothing, but the images differ: its loss is not excluded."""
    sets = [blocks(n) for n in range(COUNT)]
    truth = [s[[0, 1]] if n % 2 else s[[0, 0, 0, 1]] for n, s in enumerate(sets)]
    found, kept = chosen(truth, [proposed(s[:2], [0.6, 0.4], [0.9, 0.2]) for s in sets])
    assert kept == 2 and found.values.score_threshold is None


def test_near_duplicates_are_merged_where_they_bring_nothing():
    sets, double = [blocks(n) for n in range(COUNT)], []
    for s in sets:
        copies = np.repeat(s[:2], 2, axis=0)
        copies[1, 7, 7] ^= 1
        double.append(proposed(copies, [0.45, 0.05, 0.25, 0.25], [0.6, 0.5, 0.5, 0.5]))
    found, kept = chosen([s[:2] for s in sets], double)
    assert kept == 2 and found.values.duplicate_iou < 1
    assert (found.values.score_threshold, found.values.probability_threshold) == (None, None)


@pytest.mark.parametrize("with_scores", [True, False])
def test_candidates_pass_through_the_function_that_predicts(with_scores):
    """Merging once for many candidates gives what `postprocess` gives for each."""
    rng = np.random.default_rng(3)
    sets = [(rng.random((6, 8, 8)) < 0.4).astype(np.uint8) for _ in range(FEWEST)]
    for s in sets:
        s[1] = s[0]
        s[1, 0, 0] ^= 1
    weights, scores = (
        rng.dirichlet(np.ones(6), FEWEST).astype(np.float32),
        rng.random((FEWEST, 6)).astype(np.float32),
    )
    proposals = [
        proposed(s, w.tolist(), q.tolist() if with_scores else None)
        for s, w, q in zip(sets, weights, scores, strict=True)
    ]
    truth = [(rng.random((3, 8, 8)) < 0.4).astype(np.uint8) for _ in range(FEWEST)]
    found = choose_filter(Model(proposals), Images(truth))
    rows = [row for row in found.curve if row["step"] == "filter"]
    assert len(rows) == len(filters(with_scores)) == (66 if with_scores else 31)
    annotations = MaskSet.stack([MaskSet.uniform(torch.from_numpy(t)[None], BINARY) for t in truth])
    for row in rows:
        values = FilterValues(**{name: row[name] for name in asdict(EVERYTHING)})
        kept = postprocess(MaskSet.stack(proposals), PredictSettings(**asdict(values))).masks
        parts = ged_parts(kept, annotations)
        assert row["energy_score"] == pytest.approx(
            float((parts.between - parts.predictions / 2).mean()), abs=1e-6
        )
        assert row["masks"] == pytest.approx(float(kept.count.double().mean()), abs=1e-4)
        assert 2 * row["energy_score"] - found.spread == pytest.approx(float(parts.ged().mean()), abs=1e-5)


def test_the_order_of_images_changes_nothing():
    rng = np.random.default_rng(5)
    sets = [(rng.random((5, 8, 8)) < 0.5).astype(np.uint8) for _ in range(37)]
    model = Model(
        [
            proposed(s, rng.dirichlet(np.ones(5)).astype(np.float32).tolist(), [0.2, 0.4, 0.6, 0.8, 1.0])
            for s in sets
        ]
    )
    split = Images([s[:3] for s in sets])
    one, other = choose_filter(model, split), choose_filter(model, split.reversed())
    assert one.values == other.values
    for row, same in zip(one.curve, other.curve, strict=True):
        assert row == pytest.approx(same, abs=2e-6)


def test_one_annotation_for_each_image_is_enough():
    """Single labels: half of the images say one thing, half the other."""
    sets = [blocks(n) for n in range(COUNT)]
    wrong = [proposed(s[:3], [0.4, 0.4, 0.2], [0.9, 0.1, 0.5]) for s in sets]
    found, kept = chosen([s[n % 2][None] for n, s in enumerate(sets)], wrong)
    assert kept == 3 and found.spread == 0, "no threshold leaves out the third alone"


def test_annotations_that_all_agree_need_one_mask():
    sets = [blocks(n) for n in range(COUNT)]
    found, kept = chosen(
        [s[[0, 0]] for s in sets], [proposed(s[:3], [0.9, 0.05, 0.05], [0.9, 0.2, 0.2]) for s in sets]
    )
    assert kept == 1 and found.spread == 0 and "GED² 0.000" in found.message


def test_samples_of_equal_weight():
    """Sampling methods have no scores; samples that agree are one mask and nothing is lost."""
    sets = [blocks(n) for n in range(COUNT)]
    drawn = [proposed(np.repeat(s[:2], 8, axis=0), [1 / 16] * 16) for s in sets]
    found, kept = chosen([s[:2] for s in sets], drawn)
    assert kept == 2 and found.values == EVERYTHING and found.predicted == 16
    assert all(row["score_threshold"] is None for row in found.curve)


def test_overconfident_probabilities_get_a_temperature():
    sets = [blocks(n)[:2] for n in range(COUNT)]
    found, _ = chosen(sets, [proposed(s, [0.8, 0.2]) for s in sets])
    assert found.values.temperature == 2
    found, _ = chosen(sets, [proposed(s, [0.5, 0.5]) for s in sets])
    assert found.values.temperature == 1


def test_faint_objects_get_a_foreground_threshold():
    sets = [blocks(n)[:1] for n in range(COUNT)]
    for strength, expected in ((0.3, 0.25), (0.4, 0.375), (0.9, 0.5)):
        faint = [
            MaskSet.from_probabilities(torch.from_numpy(s)[None, :, None] * strength, BINARY) for s in sets
        ]
        found, _ = chosen(sets, faint)
        assert found.values.foreground_threshold == expected


@pytest.mark.parametrize("count", [1, FEWEST - 1])
def test_few_images_choose_nothing(count):
    sets = [blocks(n) for n in range(count)]
    model = Model([])
    found = choose_filter(model, Images(sets))
    assert found.values == EVERYTHING and found.curve == () and model.calls == 0
    assert (
        f"{count} image" in found.message
        and "too few" in found.message
        and "identical masks merged" in found.message
    )


def test_images_that_do_not_fit():
    with pytest.raises(AmbisegError, match="holds no image"):
        choose_filter(Model([]), Images([]))
    other = DatasetInfo("other", labels=LabelSpace(("road", "car", "tree")))
    with pytest.raises(AmbisegError, match="give data of the same classes"):
        choose_filter(Model([]), Images([blocks(0)] * 9, other))


def test_images_are_spread_over_the_split_and_bounded(monkeypatch):
    sets = [blocks(n) for n in range(30)]
    proposals = [proposed(s, [0.25] * 4) for s in sets]
    assert chosen(sets, proposals, images=10)[0].images == 10
    monkeypatch.setattr(filter_choice, "HELD", 3 * 4 * 64 * 12)
    assert chosen(sets, proposals)[0].images == 12


# -- what is stored is used ----------------------------------------------------------------------------------

FITTED = FittedFilter(FilterValues(None, 0.05, 0.9, 0.375, 1.4), 50, 6, "chosen")


def test_automatic_values_are_the_fitted_ones_and_given_ones_override():
    assert PredictSettings().values(FITTED) == FITTED.values
    assert PredictSettings().values() == FilterValues()
    by_score = PredictSettings(score_threshold=0.3).values(FITTED)
    assert by_score == FilterValues(0.3, None, 0.9, 0.375, 1.0), (
        "one dropping rule, and no temperature of another filter"
    )
    assert PredictSettings(duplicate_iou=1.0).values(FITTED) == FilterValues(None, 0.05, 1.0, 0.375, 1.0)
    assert PredictSettings(temperature=3.0).values(FITTED) == replace(FITTED.values, temperature=3.0)
    assert PredictSettings(foreground_threshold=0.5).values(FITTED) == replace(
        FITTED.values, foreground_threshold=0.5
    )
    assert PredictSettings(None, None).values(FITTED) == FilterValues(None, None, None, 0.375, 1.0)
    assert PredictSettings(samples=6).values(FITTED) == FITTED.values
    assert PredictSettings(samples=64).values(FITTED).probability_threshold is None
    few = replace(FITTED, values=FilterValues(None, None, 1.0, top=3))
    assert [PredictSettings(top=k).values(few).top for k in ("auto", 2, None)] == [3, 2, None]
    assert PredictSettings(samples=64).values(few).top is None, "3 of 6 is not 3 of 64"
    assert PredictSettings(score_threshold=0.3).values(few).top is None, "one dropping rule"
    flow = PredictSettings(estimate=EstimateSettings("velocity"))
    assert flow.values(FITTED).temperature == 1, "it was fitted on the method's own probabilities"


def test_a_run_predicts_with_its_filter(tiny_run, fires, tmp_path):
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    FITTED.save(folder)
    run, image = load(folder, precision="32", device="cpu"), open_split(fires, "test")[0].image
    assert run.fitted == FITTED
    found = run.predict(image)
    plain = Run(run.config, run.model, run.hardware)
    expected = plain.predict(image, PredictSettings(**asdict(FITTED.values)))
    assert torch.equal(found.masks, expected.masks) and torch.equal(found.weights, expected.weights)
    assert PredictSettings().for_run(run).record() == {**asdict(FITTED.values), "samples": None}
    assert PredictSettings().for_run(plain).record()["score_threshold"] == 0.5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "must be set"),
        (
            '{"values": {"temperature": 0}, "images": 1, "predicted": 1, "message": ""}',
            "temperature must be above 0",
        ),
        (
            '{"values": {"score_threshold": 7}, "images": 1, "predicted": 1, "message": ""}',
            "score_threshold is 0 to 1",
        ),
        ('{"values": {"score_threshold": "x"}, "images": 1, "predicted": 1, "message": ""}', "received 'x'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, says):
    assert FittedFilter.load(tmp_path) is None
    (tmp_path / FILTER).write_text(content)
    with pytest.raises(AmbisegError, match=f"filter.json.*{says}.*calibrate-filter"):
        FittedFilter.load(tmp_path)


def test_training_ends_with_a_filter(train_tiny, tiny_run, fires, tmp_path):
    result = train_tiny(tmp_path / "run", epochs=1)
    found = FittedFilter.load(tmp_path / "run")
    assert found.values == EVERYTHING and found.message == result.filter and "4 images" in result.filter
    assert json.loads((tiny_run / FILTER).read_text())["values"] == asdict(EVERYTHING)
