"""Who decides about augmentation, and that the test on validation images refuses what masks do not survive."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from ambiseg.cli.train import train_command
from ambiseg.data.augmentation import Augmentation
from ambiseg.data.augmentation_kinds import (
    TESTED,
    Crop,
    Flip,
    FlipVertical,
    Gamma,
    Intensity,
    QuarterTurns,
    Rotate,
    Scale,
)
from ambiseg.data.batches import Normalization
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.split import Split
from ambiseg.engine import augmentation_choice
from ambiseg.engine.augmentation_choice import (
    LEAST_IMAGES,
    LEAST_MINUTES,
    LEAST_UPDATES,
    PILOT_UPDATES,
    AugmentationChoice,
    PairedTest,
    _views,
    choose_augmentation,
    told,
)
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.engine.train import fit, resume
from ambiseg.errors import AmbisegError

SIZE, COUNT = 16, 64
LONG = {"steps": 10_000, "operations": 1e9}


class Drops(Split):
    """Images of one square, which runs to its left in one mask and to its right in the other."""

    def __init__(self, left: float, seed: int, info: DatasetInfo | None = None, count: int = COUNT) -> None:
        self.left, self.seed, self.info = left, seed, info or DatasetInfo("drops")
        self.ids = tuple(f"drop-{index}" for index in range(count))

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, index])
        row, column = rng.integers(1, SIZE - 4), rng.integers(5, SIZE - 7)
        image = np.zeros((1, SIZE, SIZE), np.float32)
        image[0, row : row + 3, column : column + 3] = 1
        masks = np.zeros((2, SIZE, SIZE), np.uint8)
        masks[0, row : row + 3, column - 5 : column + 3] = 1
        masks[1, row : row + 3, column : column + 8] = 1
        return Sample(self.ids[index], image, masks, np.array([self.left, 1 - self.left]), ("a", "b"))


def choice(left=0.5, info=None, train=None, count=COUNT, **length) -> AugmentationChoice:
    train = train or TrainSettings()
    splits = [Drops(left, seed, info, count) for seed in (1, 2)]
    return choose_augmentation(train, *splits, Normalization((0.05,), (0.2,)), **(LONG | length))


@pytest.fixture
def no_test(monkeypatch):
    """A pilot that must not be asked."""

    def asked(*arguments):
        raise AssertionError("a test was made")

    monkeypatch.setattr(augmentation_choice, "_Pilot", asked)


def silent_about(*kinds):
    return DatasetInfo("d", augment={kind.kind: False for kind in TESTED if kind.kind not in kinds})


@pytest.mark.parametrize("left", [0.85, 0.15])
def test_a_flip_that_swaps_the_probabilities_is_refused(left):
    found = choice(left, silent_about("flip"))
    (test,) = found.tests
    assert "flip" not in found.names and test.harm > 0.01 and test.p < 1e-4
    assert found.updates == PILOT_UPDATES and found.images == COUNT and 0 < found.share <= 0.1


def test_a_flip_that_masks_survive_is_used():
    found = choice(0.5, silent_about("flip"))
    assert found.names == ("flip",) and found.tests[0].upper < 0.01 and found.tests[0].p > 0.05


def test_the_same_seed_decides_alike_and_leaves_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = choice(0.6)
    assert torch.equal(torch.rand(1), expected)
    assert choice(0.6) == first
    assert [test.kind for test in first.tests] == [kind.kind for kind in TESTED]


def test_the_paired_test_is_students():
    rng = np.random.default_rng(5)
    for shift in (-0.3, 0.0, 0.3):
        values = rng.normal(shift, 1, 50)
        test, other = PairedTest.of("flip", values, 2.0), stats.ttest_1samp(values, 0, alternative="greater")
        bound = stats.ttest_1samp(values, 0).confidence_interval(0.90).high
        assert test.p == pytest.approx(other.pvalue, abs=1e-4)
        assert (test.harm, test.upper) == pytest.approx((values.mean() / 2, bound / 2), abs=1e-4)


def test_a_kind_passes_where_harm_is_neither_found_nor_possible():
    same, more = np.zeros(30), np.full(30, 0.1)
    assert PairedTest.of("flip", same, 1.0).passed and PairedTest.of("flip", -more, 1.0).passed
    assert not PairedTest.of("flip", more, 1.0).passed
    noise = np.random.default_rng(1).normal(0, 1, 30)
    vague = PairedTest.of("flip", noise - noise.mean(), 1.0)
    assert vague.p == 0.5 and not vague.passed  # the harm could be large
    assert not PairedTest.of("flip", -more, 0.0).passed  # the pilot has learnt nothing
    assert not PairedTest.of("flip", -more, -1.0).passed
    assert not PairedTest.of("flip", np.array([-1.0]), 1.0).passed


@pytest.mark.parametrize("kind", TESTED, ids=lambda kind: kind.kind)
def test_views_are_undone(kind):
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    images = torch.stack([torch.sin(2 * x + y), x * y])[None]
    for moved, back in _views(kind, images, np.random.default_rng(0)):
        weight = back(torch.ones_like(images))
        if kind == Intensity():
            assert torch.equal(back(images), images) and not torch.equal(moved, images)
        else:
            inside = weight > 0.999
            assert float(inside.float().mean()) > 0.7
            torch.testing.assert_close(back(moved)[inside], images[inside], atol=0.06, rtol=0)


def test_settings_then_the_data_set_decide_without_a_test(no_test):
    forbidden = dict.fromkeys(["flip", "scale", "intensity", "elastic"], False)
    named = DatasetInfo("d", augment=forbidden | {"quarter-turns": True})
    assert choice(info=named).kinds == (QuarterTurns(),)
    assert choice(info=named).reason == "dataset.yaml"
    assert choice(train=TrainSettings(augment=False)).kinds == ()
    assert choice(info=named, train=TrainSettings(augment=False)).kinds == ()
    kinds = (Flip(), Scale(), Rotate(degrees=10))
    assert choice(train=TrainSettings(augment=kinds)).kinds == kinds
    assert choice(train=TrainSettings(augment=True)).kinds == (Flip(),)
    assert choice(info=named, train=TrainSettings(augment=True)).kinds == (QuarterTurns(),)
    assert choice(info=named, train=TrainSettings(augment=(Rotate(),))).names == ("rotate",)
    for kind in (Flip(), FlipVertical(), Scale()):
        with pytest.raises(AmbisegError, match=f"augment: {kind.kind} is forbidden by dataset.yaml"):
            choice(info=named, train=TrainSettings(augment=(QuarterTurns(), kind)))


def test_data_sets_may_say_rotate_for_quarter_turns(no_test):
    earlier = {"flip": False, "rotate": True, "scale": False, "intensity": False}
    assert choice(info=DatasetInfo("d", augment=earlier)).kinds == (QuarterTurns(),)


def test_kinds_that_the_data_set_names_are_not_tested():
    found = choice(info=DatasetInfo("d", augment={"flip": False, "quarter-turns": True, "scale": False}))
    assert "quarter-turns" in found.names and not {"flip", "scale"} & set(found.names)
    assert [test.kind for test in found.tests] == ["intensity"]


@pytest.mark.parametrize(
    ("short", "lacking"),
    [
        ({"steps": LEAST_UPDATES - 1}, "500 updates or 2 minutes of training"),
        ({"count": LEAST_IMAGES - 1}, "20 images in the split 'train', which has 19"),
        (
            {"steps": None, "train": TrainSettings(minutes=LEAST_MINUTES / 2)},
            "500 updates or 2 minutes of training",
        ),
    ],
)
def test_short_runs_are_not_tested_and_use_nothing(short, lacking, no_test):
    found = choice(**short)
    assert found.kinds == () and not found.tests
    assert f"not tested: that takes {lacking}" in found.reason
    assert ("updates" in found.reason) == ("count" not in short) == ("images" not in found.reason)
    permitted = choice(info=DatasetInfo("d", augment={"quarter-turns": True}), **short)
    assert permitted.kinds == (QuarterTurns(),)


def test_a_test_that_costs_more_than_a_tenth_is_not_made(monkeypatch):
    assert "% of the training" in choice(operations=1e3).reason
    clock = iter(range(0, 10**6, 60))
    monkeypatch.setattr(augmentation_choice.time, "monotonic", lambda: next(clock))
    found = choice(steps=None, train=TrainSettings(minutes=10))
    assert "% of the time" in found.reason and found.kinds == ()


def test_the_choice_is_told_and_stored():
    test = PairedTest("flip", 0.019, 0.023, 0.0001)
    found = AugmentationChoice((), "flip tested", tests=(test,), images=9, share=0.01)
    assert AugmentationChoice.from_dict(found.to_dict()) == found
    assert told(found) == "augmentation: none (flip tested: harm flip +1.9 %, p 0.0001)"
    used = told(replace(found, kinds=(Flip(), Rotate(10))))
    assert used.startswith("augmentation: flip, rotate degrees=10 (flip tested: ")
    assert "--no-augment" in used and "augment: {flip: false}" in used


def test_resuming_keeps_the_decision(tiny_run, tmp_path, monkeypatch, no_test):
    decided = AugmentationChoice((QuarterTurns(), Rotate(10)), "tested", images=7)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    config = replace(RunConfig.load(run), augmentation=decided)
    config.save(run)
    assert RunConfig.load(run) == config
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("epochs: 10", "epochs: 11"))
    seen = []
    original = Augmentation.__call__
    monkeypatch.setattr(Augmentation, "__call__", lambda s, *args: seen.append(s) or original(s, *args))
    resume(run, quiet=True)
    assert set(seen) == {Augmentation(decided.kinds), Augmentation()}
    assert RunConfig.load(run).augmentation == decided


def test_the_benchmark_keeps_what_the_seeds_span(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    benchmark = importlib.import_module("augmentation")
    first, second = (PairedTest("flip", harm, harm, p) for harm, p in ((0.0, 0.5), (0.3, 0.01)))
    choices = [AugmentationChoice((), "tested", tests=(test,), images=40) for test in (first, second)]
    found = benchmark.summary(choices, [1.0, 2.04])
    flip = {"harm_percent": [0.0, 30.0], "p": [0.01, 0.5], "used": 1}
    assert found == {"seeds": 2, "seconds": [1.0, 2.0], "flip": flip}
    for name in ("a", "b"):
        benchmark.keep(tmp_path / "out.json", name, found)
    assert json.loads((tmp_path / "out.json").read_text()) == {"a": found, "b": found}


@pytest.mark.parametrize(
    ("augment", "complaint"),
    [
        (["flop"], "unknown kind of train: augment 'flop': did you mean 'flip'"),
        (["crop"], "train: augment: crop: height and width must be set"),
        ([{"kind": "rotate", "degrees": 200}], "augment: rotate: degrees is 0 to 180, received 200"),
        (["flip", {"kind": "flip"}], "augment: flip is named twice"),
        ("flip", "augment is 'auto' or bool or list of flip, flip-vertical,"),
    ],
)
def test_senseless_kinds_are_refused_before_a_run_folder_is_made(augment, complaint, fires, tmp_path):
    with pytest.raises(AmbisegError) as error:
        fit("ssn", fires, tmp_path / "run", train={"augment": augment})
    assert complaint in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_with_ranges_trains_on_crops_and_can_be_repeated(train_tiny, tmp_path):
    kinds = (Flip(), Crop(12, 20), Gamma(probability=0.5))
    train_tiny(tmp_path / "run", augment=kinds, epochs=1, validations=1)
    config = RunConfig.load(tmp_path / "run")
    assert config.train.augment == config.augmentation.kinds == kinds
    told = "train.augment=[flip, {kind: crop, height: 12, width: 20}, {kind: gamma, probability: 0.5}]"
    assert told in shlex.split(train_command(config, "again"))
