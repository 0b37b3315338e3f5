"""Rates follow PyTorch's schedulers, optimisers are PyTorch's, and the weights that are kept are those asked for."""

from __future__ import annotations

import copy
import math
import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from ambiseg.data.info import DatasetInfo
from ambiseg.data.source import OneMaskSplit, open_split, write_dataset
from ambiseg.engine.checkpoints import load_checkpoint
from ambiseg.engine.curve import training_curve
from ambiseg.engine.learning_rate import LearningRate
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.module import TrainingModule
from ambiseg.engine.run_folder import CONFIG, FILTER, LAST, TRAINING, WEIGHTS, RunConfig
from ambiseg.engine.settings import Adam, AdamW, Constant, Plateau, Steps, TrainSettings
from ambiseg.engine.train import fit, resume
from ambiseg.engine.training_loop import _Loaders
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import build, method_info
from ambiseg.metrics import ged
from ambiseg.networks.settings import UNetSettings

STEPS = 60


def of_torch(make, values=None):
    """Rates of 60 steps of a scheduler of PyTorch."""
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler, found = make(optimiser), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimiser makes no steps
        for step in range(STEPS):
            found.append(optimiser.param_groups[0]["lr"])
            scheduler.step(*([] if values is None else [values[step]]))
    return found


def ours(warmup=1, values=None, **settings):
    """Rates of 60 steps of a training of 60."""
    rate, found = LearningRate(TrainSettings(lr=0.1, warmup=warmup, **settings)), []
    for step in range(STEPS):
        found.append(rate(step, step / STEPS))
        if values is not None:
            rate.observe(values[step])
    return found


def test_rates_are_those_of_pytorch():
    schedulers = torch.optim.lr_scheduler
    cosine = of_torch(lambda o: schedulers.CosineAnnealingLR(o, STEPS))
    assert ours() == pytest.approx(cosine, rel=1e-6)
    assert ours(schedule=Constant()) == of_torch(lambda o: schedulers.ConstantLR(o, 1.0))
    multi = of_torch(lambda o: schedulers.MultiStepLR(o, [15, 40], 0.1))
    factors = (0.1, 0.01)
    assert ours(schedule=Steps(updates=(15, 40), factors=factors)) == pytest.approx(multi, rel=1e-12)
    assert ours(schedule=Steps(shares=(1 / 4, 2 / 3), factors=factors)) == pytest.approx(multi, rel=1e-12)
    rise = of_torch(lambda o: schedulers.LinearLR(o, 1 / 10, total_iters=9))
    assert ours(warmup=10, schedule=Constant()) == pytest.approx(rise, rel=1e-12)


def test_a_plateau_is_that_of_pytorch_also_after_it_was_stored():
    losses = np.random.default_rng(0).normal(np.linspace(1, 0.5, STEPS), 0.2)
    for higher in (False, True):
        chosen = TrainSettings(lr=0.1, warmup=1, schedule=Plateau(factor=0.6, patience=2, least=0.003))
        expected = of_torch(
            lambda o, mode="max" if higher else "min": torch.optim.lr_scheduler.ReduceLROnPlateau(
                o, mode, 0.6, 2, min_lr=0.003
            ),
            losses,
        )
        rate, found = LearningRate(chosen, higher), []
        for step in range(STEPS):
            found.append(rate(step, step / STEPS))
            rate.observe(losses[step])
            stored = yaml.safe_load(yaml.safe_dump(rate.state_dict()))
            rate = LearningRate(chosen, higher)
            rate.load_state_dict(stored)
        assert found == expected and min(found) == 0.003


def module(**settings):
    torch.manual_seed(0)
    segmenter = build("ssn", 1, LabelSpace.binary(), UNetSettings(width=8, depth=2))
    chosen = TrainSettings(lr=1e-2, **settings)
    return TrainingModule(segmenter, chosen, Hardware("cpu", False, False), "ged")


def test_adam_has_l2_and_adamw_decays_matrices_alone():
    """Step by step the same numbers as PyTorch's Adam on all parameters, and as its AdamW on two groups."""
    betas = (0.8, 0.99)
    for optimiser in (Adam(weight_decay=0.1, betas=betas), AdamW(weight_decay=0.1, betas=betas)):
        one = module(optimiser=optimiser)
        two = copy.deepcopy(one)
        mine, parameters = one.configure_optimizers(), list(two.parameters())
        if isinstance(optimiser, Adam):
            theirs = [torch.optim.Adam(parameters, 1e-2, betas, weight_decay=0.1)]
        else:
            matrices = [p for p in parameters if p.dim() > 1]
            others = [p for p in parameters if p.dim() <= 1]
            theirs = [
                torch.optim.AdamW(matrices, 1e-2, betas, weight_decay=0.1),
                torch.optim.AdamW(others, 1e-2, betas, weight_decay=0.0),
            ]
        for step in range(4):
            for index, pair in enumerate(zip(one.parameters(), two.parameters(), strict=True)):
                grad = torch.randn(pair[0].shape, generator=torch.Generator().manual_seed(100 * step + index))
                pair[0].grad, pair[1].grad = grad, grad.clone()
            mine.step()
            for their in theirs:
                their.step()
            for a, b in zip(one.parameters(), two.parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # fused kernels round otherwise


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Steps(), "by shares or by updates, one of the two"),
        (Steps(shares=(0.5,), updates=(5,), factors=(0.1,)), "by shares or by updates, one of the two"),
        (Steps(shares=(0.5, 0.6), factors=(0.1,)), "schedule.factors are 2, .* received 1"),
        (
            Steps(shares=(0.6, 0.5), factors=(0.1, 0.1)),
            r"schedule.shares must .* rise, received \[0.6, 0.5\]",
        ),
        (Steps(shares=(0.5, 1.0), factors=(0.1, 0.1)), "schedule.shares must be below 1, the end"),
        (Steps(shares=(0.5,), factors=(0.0,)), "schedule.factors are numbers above 0"),
        (Steps(updates=(5, 12), factors=(0.5, 0.1)), "must be below the 12 updates .*, received 12"),
        (Plateau(factor=1.0), "the rate never falls, received 1.0"),
        (Plateau(least=1.0), "schedule.least must be .* below lr 0.002"),
        (Plateau(watch="validation"), "watches 2 validations, but with patience 10"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_sentence(schedule, message, train_tiny, tmp_path):
    with pytest.raises(AmbisegError, match=message) as caught:
        train_tiny(tmp_path / "run", schedule=schedule)
    assert ";" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validate_every": 1}, "give validations or validate_every, not both"),
        ({"optimiser": AdamW(betas=(0.9, 1.0))}, "optimiser.betas are two numbers in"),
        ({"optimiser": Adam(weight_decay=-1.0)}, "optimiser.weight_decay must be 0 or more"),
        ({"select": "last", "early_stop": 1}, "early_stop 1 .* select is last"),
        ({"select": "gedd"}, "'gedd'.*did you mean 'ged'"),
        ({"select": "diversity"}, "neither high nor low is better"),
        ({"minutes": 1.0, "schedule": Steps(updates=(3,), factors=(0.1,))}, "give schedule.shares"),
    ],
)
def test_contradictions_are_refused_before_a_run_folder_is_made(settings, message, train_tiny, tmp_path):
    with pytest.raises(AmbisegError, match=message):
        train_tiny(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def interrupt_at(monkeypatch, number):
    original = TrainingModule.training_step

    def step(self, batch, batch_idx):
        if self.global_step == number:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", step)


RESTLESS = {"labels": "single", "epochs": 6, "lr": 1e-6, "ema": 0.5}
"""Hardly learns, so single labels make the loss rise and fall."""
PLATEAUS = {
    "training": {"schedule": Plateau(patience=0, least=0.0), "validations": 2},
    "validation": {
        "schedule": Plateau(watch="validation", patience=0, least=0.0),
        "validations": None,
        "validate_every": 1,
    },
}


@pytest.mark.parametrize("watch", PLATEAUS)
def test_an_interrupted_plateau_ends_like_an_uninterrupted_one(watch, train_tiny, tmp_path, monkeypatch):
    """Interrupted within the third epoch, after the rate fell for the first time, with a loss half counted."""
    chosen = {**RESTLESS, **PLATEAUS[watch]}
    whole = train_tiny(tmp_path / "whole", **chosen).run
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        first = train_tiny(tmp_path / "run", **chosen)
    assert first.interrupted and first.steps == 8
    assert resume(first.run, quiet=True).steps == 18
    a, b = (load_checkpoint(run / LAST) for run in (whole, first.run))
    assert a["ambiseg"] == b["ambiseg"] and a["ambiseg"]["rate"]["rate"] < chosen["lr"]
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name


@pytest.mark.slow
def test_two_processes_watch_their_mean_loss(train_tiny, tmp_path):
    chosen = {**RESTLESS, **PLATEAUS["training"], "clip": 0.0}
    one = train_tiny(tmp_path / "one", **chosen)
    two = train_tiny(tmp_path / "two", **{**chosen, "batch_size": 2, "devices": 2})
    states = [load_checkpoint(result.run / LAST)["ambiseg"]["rate"] for result in (one, two)]
    assert states[0]["plateau"]["best"] == pytest.approx(states[1]["plateau"]["best"], rel=1e-5)
    assert states[0]["rate"] == states[1]["rate"] < chosen["lr"]


def test_validation_every_few_epochs(train_tiny, fires, tmp_path):
    """Three steps are an epoch; the end is validated too."""
    result = train_tiny(
        tmp_path / "run", epochs=5, validations=None, validate_every=2, validation_images=0, batch_size=4
    )
    steps = [row["step"] for row in training_curve(result.run) if "val_hm_iou_unique" in row]
    assert steps == [5.0, 11.0, 14.0]
    assert TrainSettings(validation_images=0).used_validation_images(3000) == 3000
    assert TrainSettings(validation_images=7).used_validation_images(3000) == 7


@pytest.mark.parametrize("select", ["loss", "ged", "last"])
def test_the_weights_that_are_asked_for_are_kept(select, train_tiny, tmp_path):
    result = train_tiny(tmp_path / "run", epochs=4, validations=4, lr=1e-2, select=select)
    metric = "hm_iou_unique" if select == "last" else select
    values = [row[f"val_{metric}"] for row in training_curve(result.run) if f"val_{metric}" in row]
    expected = values[-1] if select == "last" else min(values)
    assert len(values) == 4 and result.metric == metric and result.value == pytest.approx(expected, abs=1e-6)
    kept = "last" if select == "last" else "best"
    training = yaml.safe_load((result.run / TRAINING).read_text())
    assert result.kept == kept and training[kept] == result.value
    if select == "last":
        last = load_checkpoint(result.run / LAST)["state_dict"]
        for name, value in load_file(result.run / WEIGHTS).items():
            assert torch.equal(value, last[f"segmenter.{name}"])


def test_the_energy_score_of_one_mask_is_unbiased():
    """Its mean over the annotations by weight is GED^2 plus d(Y, Y), which no prediction changes."""
    masks = (torch.rand(1, 5, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.4).to(torch.uint8)
    labels = LabelSpace.binary()
    truth = MaskSet(masks, torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.1]]), labels)
    found = []
    for seed in (1, 2):
        drawn = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) < 0.4
        predicted = MaskSet(drawn.to(torch.uint8), torch.tensor([[0.5, 0.3, 0.2]]), labels)
        single = [ged(predicted, MaskSet.uniform(masks[:, i : i + 1], labels)) for i in range(5)]
        mean = sum(w * s for w, s in zip(truth.weights[0], single, strict=True))
        found.append(float(mean - ged(predicted, truth)))
    assert found[0] == pytest.approx(found[1], abs=1e-6) and found[0] > 0.1


def with_other_masks(data, out):
    """The data set with all masks of validation images upside down, but for the one that is drawn."""
    val = open_split(data, "val")
    drawn, samples = OneMaskSplit(val), []
    for index, sample in enumerate(val):
        kept = np.array([np.array_equal(mask, drawn[index].masks[0]) for mask in sample.masks])
        assert kept.any() and not kept.all()
        masks = np.where(kept[:, None, None], sample.masks, 1 - sample.masks)
        samples.append(replace(sample, masks=masks))
    return write_dataset(out, {"train": open_split(data, "train"), "val": samples}, val.info)


@pytest.mark.parametrize("validation_labels", ["same", pytest.param("full", marks=pytest.mark.slow)])
def test_a_run_of_single_labels_sees_one_mask_of_a_validation_image(
    validation_labels, train_tiny, tmp_path, monkeypatch
):
    """Other masks change neither the weights that are kept, nor the augmentation, nor the filter."""
    from ambiseg.data.simulators.wildfire import simulate_wildfires
    from ambiseg.engine import augmentation_choice

    monkeypatch.setattr(augmentation_choice, "LEAST_UPDATES", 1)
    monkeypatch.setattr(augmentation_choice, "SHARE", 1e9)
    splits = {
        name: simulate_wildfires(24, size=16, start=start) for name, start in (("train", 0), ("val", 30))
    }
    data = write_dataset(tmp_path / "data", splits, DatasetInfo("fires"))
    other = with_other_masks(data, tmp_path / "other")
    chosen = {"labels": "single", "augment": "auto", "lr": 1e-2, "validations": 4, "epochs": 2}
    runs = [
        train_tiny(tmp_path / name, data=source, validation_labels=validation_labels, **chosen).run
        for name, source in (("one", data), ("two", other))
    ]
    name = {"same": "val_energy_score", "full": "val_hm_iou_unique"}[validation_labels]
    curves = [[row[name] for row in training_curve(run) if name in row] for run in runs]
    tests = [RunConfig.load(run).augmentation.tests for run in runs]
    filters = [yaml.safe_load((run / FILTER).read_text())["curve"] for run in runs]
    a, b = (load_file(run / WEIGHTS) for run in runs)
    same = validation_labels == "same"
    assert len(curves[0]) == 4 and len(tests[0]) == 4 and len(filters[0]) > 10
    assert (curves[0] == curves[1]) == (tests[0] == tests[1]) == (filters[0] == filters[1]) == same
    if same:
        assert all(torch.equal(a[key], b[key]) for key in a)
    training = yaml.safe_load((runs[0] / TRAINING).read_text())
    assert training["validation_labels"] == ("single" if same else "full")
    assert RunConfig.load(runs[0]).train.seen_labels == ("single" if same else "single (validation: full)")


def test_a_metric_of_what_a_method_does_not_predict_is_refused(fires, tmp_path):
    chosen, small = {"epochs": 1, "select": "selection_f1"}, {"backbone": {"width": 8, "depth": 2}}
    with pytest.raises(AmbisegError, match="selection_f1 needs scores, which ssn does not predict"):
        fit("ssn", fires, tmp_path / "run", train=chosen, quiet=True, **small)
    assert not (tmp_path / "run").exists()


def test_methods_that_validate_by_loss_do_so_with_single_labels(fires, tmp_path):
    chosen = {"epochs": 1, "batch_size": 4, "validations": 1, "precision": "32", "labels": "single"}
    small = {"backbone": {"width": 8, "depth": 2}, "quiet": True, "fit_filter": False}
    result = fit("flow-matching", fires, tmp_path / "run", train=chosen, **small)
    assert result.metric == "loss"
    config = RunConfig.load(result.run)
    loaders = _Loaders(open_split(fires, "train"), OneMaskSplit(open_split(fires, "val")), config, 0)
    loaders.trainer = type("Trainer", (), {"global_rank": 0, "world_size": 1})()
    batches = list(loaders.val_dataloader())
    assert sum(len(batch.ids) for batch in batches) == 4
    assert all(batch.annotations.masks.shape[1] == 1 for batch in batches)


def test_drawn_masks_are_fixed_and_follow_the_weights(fires):
    val = open_split(fires, "val")
    once, again = OneMaskSplit(val), OneMaskSplit(val)
    assert all(np.array_equal(a.masks, b.masks) for a, b in zip(once, again, strict=True))
    sample = val[0]
    counts = np.zeros(len(sample.masks))
    for seed in range(400):
        drawn = OneMaskSplit(val, seed)[0].masks[0]
        counts[[np.array_equal(mask, drawn) for mask in sample.masks].index(True)] += 1
    first = [next(j for j, m in enumerate(sample.masks) if np.array_equal(m, mask)) for mask in sample.masks]
    expected = np.bincount(first, sample.weights, len(sample.masks))
    error = np.sqrt(expected * (1 - expected) / 400)
    assert (abs(counts / 400 - expected) <= 4 * error + 1e-9).all()


@pytest.mark.parametrize(
    "chosen",
    [
        {"optimiser": Adam(weight_decay=1e-5, betas=(0.9, 0.99)), "schedule": Constant()},
        {"schedule": Steps(shares=(0.25, 0.5), factors=(0.5, 0.1)), "select": "ged"},
        {"schedule": Steps(updates=(2,), factors=(0.5,)), "select": "last"},
        {
            "schedule": Plateau(patience=3, watch="validation"),
            "validations": None,
            "validate_every": 1,
            "validation_images": 0,
        },
    ],
)
def test_the_configuration_keeps_them(chosen, train_tiny, tmp_path):
    run = train_tiny(tmp_path / "run", epochs=1, **chosen).run
    config = RunConfig.load(run)
    assert {name: getattr(config.train, name) for name in chosen} == chosen
    config.save(tmp_path)
    assert RunConfig.load(tmp_path) == config


def test_the_configuration_of_an_earlier_version_is_explained(train_tiny, tmp_path):
    run = train_tiny(tmp_path / "run", epochs=1).run
    entries = yaml.safe_load((run / CONFIG).read_text())
    del entries["train"]["optimiser"]
    entries["train"]["weight_decay"] = 0.01
    (run / CONFIG).write_text(yaml.safe_dump(entries))
    with pytest.raises(AmbisegError, match="key of train 'weight_decay'.*CHANGELOG.md says which"):
        RunConfig.load(run)


def test_presets_are_joined_key_by_key():
    """An option changes one value of a nested setting; another kind, or another interval, replaces all of it."""
    from ambiseg.engine.presets import resolve

    spec = method_info("mose")
    train, *_ = resolve(spec, "lidc", {"optimiser": {"weight_decay": 0.5}, "validations": 3})
    assert train.optimiser == Adam(weight_decay=0.5) and (train.validations, train.validate_every) == (
        3,
        None,
    )
    train, *_ = resolve(spec, "lidc", {"schedule": {"kind": "constant"}})
    assert train.schedule == Constant() and train.validate_every == 1
    kohl, *_ = resolve(method_info("probabilistic-unet"), "cityscapes")
    rate = LearningRate(kohl)
    rates = [rate(step, step / 240_000) for step in (0, 79_999, 80_000, 160_000, 239_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 1e-5, 1e-5]) and math.isclose(
        kohl.optimiser.weight_decay, 7.63e-11, rel_tol=1e-3
    )
