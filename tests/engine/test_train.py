"""Interrupted runs end as uninterrupted ones bit for bit, budgets hold, processes add up, bad files fail."""

from __future__ import annotations

import csv
import math
import os
import pickle
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from ambiseg.data.augmentation import Augmentation
from ambiseg.data.augmentation_kinds import QuarterTurns
from ambiseg.data.info import DatasetInfo
from ambiseg.data.source import open_split, write_dataset
from ambiseg.engine import callbacks, training_loop
from ambiseg.engine import train as train_module
from ambiseg.engine.callbacks import Budget
from ambiseg.engine.checkpoints import load_checkpoint
from ambiseg.engine.curve import CurveLogger, training_curve
from ambiseg.engine.learning_rate import LearningRate
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.module import TrainingModule
from ambiseg.engine.run import load
from ambiseg.engine.run_folder import CONFIG, LAST, TRAINING, WEIGHTS, RunConfig
from ambiseg.engine.settings import AdamW, TrainSettings
from ambiseg.engine.train import resume
from ambiseg.errors import AmbisegError
from ambiseg.methods.mode_proposals import ModeProposalsSettings, SelectionSettings
from ambiseg.methods.mode_proposals.model import ModeProposals
from ambiseg.methods.ssn import SSNSettings
from ambiseg.networks.settings import UNetSettings


@pytest.fixture
def at_step(monkeypatch):
    """``at_step(n, act)``: call ``act`` in training step n (from 0); ``at_step.seen``: the images so far."""
    seen: list[tuple[str, ...]] = []
    plans: dict[int, object] = {}
    original = TrainingModule.training_step

    def step(self, batch, batch_idx):
        seen.append(batch.ids)
        loss = original(self, batch, batch_idx)
        if self.global_step in plans:
            plans.pop(self.global_step)()
        return loss

    monkeypatch.setattr(TrainingModule, "training_step", step)

    def plan(number, act):
        plans[number] = act

    plan.seen = seen
    return plan


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def assert_same(one, other, where="checkpoint"):
    """Equal in every bit, through dictionaries and lists."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}/{i}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def assert_same_training(one, other):
    """Weights, moving average, optimiser and best validation of two runs, and the weights that are kept."""
    a, b = (load_checkpoint(run / LAST) for run in (one, other))
    for name in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "global_step"):
        assert_same(a[name], b[name], name)
    scores = [
        [v["best_model_score"] for k, v in c["callbacks"].items() if "ModelCheckpoint" in k] for c in (a, b)
    ]
    assert_same(*scores)
    assert_same(*(dict(sorted(load_file(run / WEIGHTS).items())) for run in (one, other)), "kept")


@pytest.fixture(scope="module")
def whole(train_tiny, tmp_path_factory):
    """Uninterrupted runs with full and with single labels."""
    root = tmp_path_factory.mktemp("whole")
    return {mode: train_tiny(root / mode, labels=mode).run for mode in ("full", "single")}


@pytest.mark.parametrize(
    ("mode", "stop"), [("full", 1), ("single", 4), ("single", 5), ("full", 7), ("full", 11)]
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(mode, stop, whole, train_tiny, tmp_path, at_step):
    """Steps 5 and 11 are followed by a validation, which is done before the run stops."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    at_step(stop, interrupt)
    first = train_tiny(tmp_path / "run", labels=mode)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert first.steps == stop + 1 and first.interrupted == (stop < 11)
    assert yaml.safe_load((first.run / TRAINING).read_text())["interrupted"] == first.interrupted
    result = resume(first.run, quiet=True)
    assert not result.interrupted and result.steps == 12 and len(at_step.seen) == 12
    assert_same_training(first.run, whole[mode])
    figure = {"full": "val_hm_iou_unique", "single": "val_energy_score"}[mode]
    validated = [
        {row["step"]: row[figure] for row in training_curve(run) if figure in row}
        for run in (first.run, whole[mode])
    ]
    assert validated[0] == validated[1] and list(validated[0]) == [5.0, 11.0]


def test_interrupted_twice_and_the_order_of_data(whole, train_tiny, tmp_path, at_step):
    train_tiny(tmp_path / "whole")
    uninterrupted = at_step.seen.copy()
    at_step.seen.clear()
    at_step(2, interrupt)
    run = train_tiny(tmp_path / "run").run
    at_step(6, interrupt)
    assert resume(run, quiet=True).interrupted
    resume(run, quiet=True)
    assert at_step.seen == uninterrupted
    assert sorted(sum(uninterrupted[:3], ())) == sorted(open_split(RunConfig.load(run).data, "train").ids)
    assert_same_training(run, whole["full"])


def test_a_finished_run_is_not_trained_on(whole, tmp_path, at_step):
    shutil.copytree(whole["full"], tmp_path / "run")
    assert resume(tmp_path / "run", quiet=True).steps == 12
    assert at_step.seen == []
    assert_same_training(tmp_path / "run", whole["full"])


def test_the_curve_spans_all_sessions(train_tiny, tmp_path, at_step):
    at_step(13, interrupt)
    run = train_tiny(tmp_path / "run", epochs=8).run
    resume(run, quiet=True)
    rows = training_curve(run)
    assert len(list(run.glob("logs/version_*"))) == 2
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] == 23
    assert [row["step"] for row in rows if "train_loss" in row] == [9.0, 19.0, 23.0]
    assert [row["step"] for row in rows if "val_hm_iou_unique" in row] == [11.0, 23.0]


def test_a_kill_while_a_column_is_added_loses_no_row(tmp_path, monkeypatch):
    logger = CurveLogger(tmp_path, name="logs")
    logger.log_metrics({"val": 0.5}, step=5)
    logger.save()
    logger.log_metrics({"loss": 0.1}, step=9)
    path = Path(logger.log_dir) / "metrics.csv"
    before = path.read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", killed)
        with pytest.raises(KeyboardInterrupt):
            logger.save()
    assert path.read_bytes() == before
    logger.save()
    logger.log_metrics({"loss": 0.05, "val": 0.4}, step=19)
    logger.save()
    assert training_curve(tmp_path) == [
        {"step": 5, "val": 0.5},
        {"step": 9, "loss": 0.1},
        {"step": 19, "loss": 0.05, "val": 0.4},
    ]


def test_a_row_of_the_curve_holds_what_its_step_computed(fires, tmp_path):
    """The prior of a truncated flow is trained first: its loss is not repeated while the flow is trained."""
    chosen = {"updates": 30, "batch_size": 4, "validations": 1, "precision": "32"}
    small = {"backbone": {"width": 8, "depth": 2}, "settings": {"rank": 1, "prior_share": 0.5}}
    result = train_module.fit("atfm", fires, tmp_path / "run", train=chosen, quiet=True, **small)
    rows = {row["step"]: row for row in training_curve(result.run) if "train_loss" in row}
    prior, flow = {"train_prior"}, {"train_flow", "train_dice"}
    parts = {step: set(row) & (prior | flow) for step, row in rows.items()}
    assert parts == {9.0: prior, 19.0: flow, 29.0: flow}
    assert rows[9.0]["train_loss"] == rows[9.0]["train_prior"]


@pytest.mark.parametrize("damage", ["x,", "inf,", ",,,,,,,,,,9,9", "\0"])
def test_a_damaged_curve_is_named(damage, whole, tmp_path):
    run = shutil.copytree(whole["full"], tmp_path / "run")
    path = next(run.glob("logs/version_*/metrics.csv"))
    header, *_ = path.read_text().splitlines()
    assert "step" in header
    path.write_text(f"{header}\n" + ",".join([damage.strip(",")] * len(header.split(","))) + "\n")
    with pytest.raises(
        AmbisegError, match="metrics.csv is no training curve .*: restore the file, or remove it"
    ):
        training_curve(run)


def test_the_kept_weights_are_the_best_validation(train_tiny, fires, tmp_path):
    """The best value of the curve, and what the exported model reaches on the validation images."""
    from ambiseg.engine.evaluate import evaluate

    result = train_tiny(tmp_path / "run", lr=1e-2, validations=4, ema=0.5)
    values = [row["val_hm_iou_unique"] for row in training_curve(result.run) if "val_hm_iou_unique" in row]
    assert len(values) == 4 and result.value == pytest.approx(max(values), abs=1e-6)
    found = evaluate(load(result.run, precision="32"), fires, "val", metrics=["hm_iou_unique"])
    assert found.all["hm_iou_unique"] == pytest.approx(result.value, abs=1e-5)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_moving_average_by_hand(ema, train_tiny, tmp_path, monkeypatch):
    """``a <- a + (1 - d)(w - a)``, d = min(decay, (1 + n) / (10 + n)), from the first weights on."""
    weights = []
    original = Budget.on_train_batch_end

    def remember(self, trainer, pl_module, *rest):
        weights.append(pl_module.segmenter.h.weight.detach().clone().double())
        return original(self, trainer, pl_module, *rest)

    monkeypatch.setattr(Budget, "on_train_batch_end", remember)
    run = train_tiny(tmp_path / "run", epochs=2, ema=ema, lr=1e-2).run
    expected = weights[0] if ema else weights[-1]
    for n, weight in enumerate(weights[1:] if ema else [], 1):
        expected = expected + (1 - min(ema, (1 + n) / (10 + n))) * (weight - expected)
    state = load_checkpoint(run / LAST)["state_dict"]
    torch.testing.assert_close(state["segmenter.h.weight"].double(), expected, rtol=1e-5, atol=1e-7)


def test_learning_rate_rises_and_falls(train_tiny, tmp_path, monkeypatch):
    rates = []
    original = TrainingModule._set_learning_rate

    def remember(self):
        original(self)
        rates.append(self.optimizers().param_groups[0]["lr"])

    monkeypatch.setattr(TrainingModule, "_set_learning_rate", remember)
    train_tiny(tmp_path / "run", lr=0.01, warmup=2)
    expected = [0.01 * min(1, (t + 1) / 2) * (1 + math.cos(math.pi * t / 12)) / 2 for t in range(12)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("steps", [20, 100, 499, 500, 5000])
def test_the_warm_up_ends_after_a_fifth_of_a_short_training(steps):
    """With 500 steps and more it takes its 100 steps, to the last bit."""

    def rates(first):
        """Of a training before which the share ``first`` of its budget was spent; without the cosine."""
        rate, found = LearningRate(TrainSettings(lr=1.0)), []
        for step in range(steps):
            used = first + (1 - first) * step / steps
            found.append(rate(step, used, first) / ((1 + math.cos(math.pi * used)) / 2))
        return found

    found, fifth = rates(0.0), math.ceil(steps / 5)
    if steps >= 500:
        cosine = [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
        rises = [min(1.0, (step + 1) / 100) for step in range(steps)]
        assert found == [rise * (2 * c) / 2 / c for rise, c in zip(rises, cosine, strict=True)]
    assert found[fifth:] == pytest.approx([1.0] * (steps - fifth))
    assert 0 < found[0] < 0.06 and found == pytest.approx(sorted(found))
    assert rates(0.5) == pytest.approx(found)


def test_a_time_budget_ends_in_time(train_tiny, tmp_path, monkeypatch, at_step):
    """On a clock by which a step takes half a second: the rate falls to almost 0."""

    class Clock:
        @staticmethod
        def monotonic():
            return 0.5 * len(at_step.seen)

    for module in (callbacks, training_loop, train_module):
        monkeypatch.setattr(module, "time", Clock)
    at_step(69, interrupt)
    first = train_tiny(tmp_path / "run", minutes=1.0, validations=4, lr=0.01)
    assert first.interrupted and first.seconds == 35.0
    result = resume(first.run, quiet=True)
    assert result.seconds == 60.0 and result.steps == 120 and not result.interrupted
    rows = training_curve(result.run)
    assert 0 < rows[-1]["lr"] < 1e-3 * 0.01
    assert [row["step"] for row in rows if "val_hm_iou_unique" in row] == [29.0, 59.0, 89.0, 119.0]
    assert resume(result.run, quiet=True).steps == 120


def test_full_labels_of_single_masks_are_told_once(train_tiny, fires, tmp_path, recwarn):
    one = [
        replace(s, masks=s.masks[:1], weights=np.ones(1), annotators=("a",))
        for s in open_split(fires, "train")
    ]
    data = write_dataset(tmp_path / "one", {"train": one, "val": one[:2]}, open_split(fires, "train").info)
    for labels, times in (("full", 1), ("single", 0)):
        recwarn.clear()
        train_tiny(tmp_path / labels, data=data, epochs=1, labels=labels)
        assert sum("--labels single" in str(w.message) for w in recwarn) == times
    recwarn.clear()
    train_tiny(tmp_path / "several", epochs=1)
    assert not any("--labels single" in str(w.message) for w in recwarn)


def test_a_real_time_budget(train_tiny, tmp_path):
    result = train_tiny(tmp_path / "run", minutes=0.02)
    assert 1.1 <= result.seconds < 4 and (result.run / WEIGHTS).is_file()


@pytest.mark.parametrize(
    ("before", "after", "validation", "seconds"),
    [(0.0, 0.0, 0.0, 60.0), (10.0, 5.0, 2.0, 53.0), (10.0, 40.0, 2.0, 40.0), (90.0, 0.0, 0.0, 120.0)],
)
def test_minutes_are_those_of_the_whole_command_and_half_of_them_train(before, after, validation, seconds):
    budget = Budget(None, 1.0, 8, before, after=after)
    budget.validation = validation
    assert budget.seconds == seconds


@pytest.mark.parametrize(
    ("minutes", "each", "images", "after"),
    [(0.4, 1.0, 100, 0.0), (10.0, 0.1, 100, 10.0), (10.0, 2.0, 45, 90.0), (1.0, 9.0, 8, 72.0)],
)
def test_the_choice_of_the_filter_is_part_of_the_minutes(
    minutes, each, images, after, train_tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(training_loop, "seconds_per_image", lambda run, split: each)
    config = RunConfig.load(train_tiny(tmp_path / "run", epochs=None, updates=1).run)
    config = replace(config, train=TrainSettings(minutes=minutes, validation_images=100))
    found = training_loop._filter_images(tmp_path, config, range(150), Hardware.choose("32", "no"))
    assert found == (images, pytest.approx(after))


@pytest.mark.parametrize("more", [{"updates": 3}, {"epochs": 3}])
def test_a_finished_run_is_trained_longer(more, train_tiny, tmp_path):
    """The weights of the end go on, at the rate of the same place in the longer training."""
    first = train_tiny(tmp_path / "run", epochs=None, updates=5, lr=0.01)
    rates = [row["lr"] for row in training_curve(first.run) if "lr" in row]
    result = resume(first.run, **more, quiet=True)
    config = RunConfig.load(first.run)
    steps = 5 + (3 if "updates" in more else 9)
    assert result.steps == steps and config.extended_at == (5,)
    assert (config.train.updates, config.train.epochs) == (steps, None)
    again = resume(first.run, quiet=True)
    assert again.steps == steps and RunConfig.load(first.run).extended_at == (5,)
    later = [row["lr"] for row in training_curve(first.run) if "lr" in row][len(rates) :]
    assert later and max(later) < 0.01
    with pytest.raises(AmbisegError, match="updates must be above 0"):
        resume(first.run, updates=0, quiet=True)
    with pytest.raises(AmbisegError, match="give epochs or updates, not both"):
        resume(first.run, updates=1, epochs=1, quiet=True)


def test_minutes_are_added_to_those_that_were_used(train_tiny, tmp_path):
    first = train_tiny(tmp_path / "run", epochs=None, updates=3)
    result = resume(first.run, minutes=0.02, quiet=True)
    train = RunConfig.load(first.run).train
    assert train.updates is None and train.minutes == pytest.approx(first.seconds / 60 + 0.02, abs=2e-3)
    assert result.steps > 3 and result.seconds >= first.seconds + 0.6


def test_early_stopping(train_tiny, tmp_path):
    """Without learning there is no improvement: the second validation after the first one ends the run."""
    result = train_tiny(
        tmp_path / "run", lr=1e-12, optimiser=AdamW(weight_decay=0.0), validations=6, early_stop=2
    )
    assert result.steps == 6 and not result.interrupted


@pytest.mark.parametrize(
    ("step", "cause"), [(0, "no step was made yet"), (3, "learning rate --lr 0.002 is probably")]
)
def test_a_loss_that_is_no_number_is_explained(step, cause, train_tiny, tmp_path, monkeypatch):
    original, calls = ModeProposals.loss, []

    def loss(self, images, annotations):
        calls.extend([1] * torch.is_grad_enabled())
        found = original(self, images, annotations)
        bad = {name: found[name] * float("nan") for name in ("loss", "mask")} if len(calls) > step else {}
        return {**found, **bad}

    monkeypatch.setattr(ModeProposals, "loss", loss)
    handler = signal.getsignal(signal.SIGINT)
    message = rf"nan at step {step} \(in: loss, mask; images fire-.*{cause}.*lower --lr"
    with pytest.raises(AmbisegError, match=message):
        train_tiny(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_learning_rate_that_destroys_the_weights_is_named(train_tiny, tmp_path):
    with pytest.raises(
        AmbisegError, match=r"weights .* after step 1: the learning rate --lr 1e\+30 is probably too high"
    ):
        train_tiny(tmp_path / "run", epochs=None, updates=1, lr=1e30)


def test_masks_without_finite_probabilities_are_explained_by_the_training(train_tiny, tmp_path, monkeypatch):
    original = ModeProposals.predict

    def predict(self, *arguments):
        found = original(self, *arguments)
        return replace(found, probabilities=found.probabilities * float("nan"))

    monkeypatch.setattr(ModeProposals, "predict", predict)
    with pytest.raises(
        AmbisegError, match="predicted after step 1 have no finite probabilities: the learning rate"
    ):
        train_tiny(tmp_path / "run", epochs=None, updates=1)


def test_every_process_needs_images(train_tiny, fires, whole, tmp_path):
    with pytest.raises(
        AmbisegError, match="--devices 5 is more than the 4 images of the split 'val'.*to 4 or less"
    ):
        train_tiny(tmp_path / "run", devices=5)
    with pytest.raises(
        AmbisegError, match="--devices 3 is more than the 2 images of the split 'val' that are used"
    ):
        train_tiny(tmp_path / "run", devices=3, validation_images=2)
    assert not (tmp_path / "run").exists()


def test_two_processes_equal_one_with_the_doubled_batch(train_tiny, tmp_path, capfd):
    one = train_tiny(tmp_path / "one", epochs=4, clip=0.0, lr=1e-3)
    two = train_tiny(tmp_path / "two", epochs=4, clip=0.0, lr=1e-3, batch_size=2, devices=2)
    assert one.steps == two.steps == 12
    curves = [training_curve(result.run) for result in (one, two)]
    for row, other in zip(*curves, strict=True):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-4)
    a, b = (load_checkpoint(result.run / LAST)["current_model_state"] for result in (one, two))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-4, msg=name)
    assert two.value == pytest.approx(one.value, abs=1e-4)
    assert "distributed" not in "".join(capfd.readouterr())


def test_an_existing_folder_is_kept(train_tiny, tmp_path, whole):
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(AmbisegError, match="strange.*(exists|was not made by ambiseg)"):
            train_tiny(strange, overwrite=overwrite)
    assert (strange / "thesis.txt").read_text() == "years of work"
    with pytest.raises(AmbisegError, match="is a file"):
        train_tiny(strange / "thesis.txt", overwrite=True)
    shutil.copytree(whole["full"], tmp_path / "run")
    with pytest.raises(AmbisegError, match="--resume.*--overwrite"):
        train_tiny(tmp_path / "run")
    assert train_tiny(tmp_path / "run", overwrite=True, epochs=1).steps == 3
    (tmp_path / "empty").mkdir()
    assert train_tiny(tmp_path / "empty", epochs=1).steps == 3


def test_nothing_is_made_for_senseless_wishes(train_tiny, fires, tmp_path):
    for match, wish in [("batch_size", {"batch_size": 0}), ("no data set", {"data": tmp_path / "absent"})]:
        with pytest.raises(AmbisegError, match=match):
            train_tiny(tmp_path / "run", **wish)
    with pytest.raises(AmbisegError, match="did you mean 'mode-proposals'"):
        train_module.fit("mode-proposal", fires, tmp_path / "run")
    only_train = write_dataset(tmp_path / "d", {"train": open_split(fires, "train")}, DatasetInfo("d"))
    with pytest.raises(AmbisegError, match="no split 'val'"):
        train_tiny(tmp_path / "run", data=only_train)
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_the_weights_of_another(whole, train_tiny, tmp_path, monkeypatch):
    first: dict[str, torch.Tensor] = {}
    original = TrainingModule.training_step

    def step(self, batch, batch_idx):
        if not first:
            first.update({k: v.clone() for k, v in self.segmenter.state_dict().items()})
            assert self.segmenter.training
        return original(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", step)
    train_tiny(tmp_path / "second", init=str(whole["full"]), epochs=1)
    assert_same(dict(sorted(first.items())), dict(sorted(load_file(whole["full"] / WEIGHTS).items())))
    assert RunConfig.load(tmp_path / "second").train.init == str(whole["full"])


def test_the_seed_draws_the_weights_that_init_has_no_values_for(fires, tmp_path, monkeypatch):
    """Whatever the global generator was before; the flow of a trained prior is new."""
    chosen = TrainSettings(updates=1, validations=1, precision="32")
    run = {"backbone": UNetSettings(width=8, depth=2), "quiet": True, "fit_filter": False}
    prior = train_module.fit(
        "ssn", fires, tmp_path / "prior", train=chosen, settings=SSNSettings(rank=2, samples=2), **run
    )
    began = []

    def remember(*args, start, **_):
        began.append(start.state_dict())
        return None

    monkeypatch.setattr(train_module, "run_training", remember)
    for number, seed in enumerate((5, 5, 6)):
        torch.manual_seed(number)
        later = replace(chosen, init=str(prior.run), seed=seed)
        train_module.fit("atfm", fires, tmp_path / f"run{number}", train=later, **run)
    assert_same(began[0], began[1])
    drawn = "g.stem.weight"
    assert not torch.equal(began[0][drawn], began[2][drawn])
    assert torch.equal(began[0]["prior.mu.weight"], began[2]["prior.mu.weight"])


def test_weights_to_start_from_must_fit(whole, train_tiny, tmp_path):
    with pytest.raises(AmbisegError, match="absent is not a run folder"):
        train_tiny(tmp_path / "run", init=str(tmp_path / "absent"))
    with pytest.raises(AmbisegError, match="do not fit these settings: it has proposals=6"):
        train_tiny(tmp_path / "run", init=str(whole["full"]), proposals=7)
    with pytest.raises(AmbisegError, match=r"do not fit these settings: it has train\.binary_channels=1"):
        train_tiny(tmp_path / "run", init=str(whole["full"]), binary_channels=2)
    assert not (tmp_path / "run").exists()
    shutil.copytree(whole["full"], tmp_path / "copy")
    with pytest.raises(AmbisegError, match="is the input"):
        train_tiny(tmp_path / "copy", init=str(tmp_path / "copy"), overwrite=True)
    assert (tmp_path / "copy" / WEIGHTS).is_file()


def test_resuming_with_other_data_is_refused(whole, fires, tmp_path):
    shutil.copytree(whole["full"], tmp_path / "run")
    splits = {name: list(open_split(fires, name)) for name in ("train", "val")}
    write_dataset(tmp_path / "moved", splits, DatasetInfo("elsewhere"))
    assert resume(tmp_path / "run", data=tmp_path / "moved", quiet=True).steps == 12
    splits["train"][3].masks[0, 0, 0] ^= 1
    write_dataset(tmp_path / "changed", splits, DatasetInfo("elsewhere"))
    with pytest.raises(AmbisegError, match="changed is not the one"):
        resume(tmp_path / "run", data=tmp_path / "changed", quiet=True)


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, 2))])
def test_a_checkpoint_cannot_execute_anything(write, whole, tmp_path):
    run = shutil.copytree(whole["full"], tmp_path / "run")
    write({"global_step": 1, "ambiseg": Bomb(tmp_path / "harm")}, run / LAST)
    with pytest.raises(AmbisegError, match="last.ckpt is not a checkpoint"):
        resume(run, quiet=True)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, whole, tmp_path):
    run = shutil.copytree(whole["full"], tmp_path / "run")
    checkpoint, weights = load_checkpoint(run / LAST), load_file(run / WEIGHTS)
    name = next(key for key in weights if weights[key].is_floating_point())
    checkpoint["state_dict"][f"segmenter.{name}"].view(-1)[0] = value
    torch.save(checkpoint, run / LAST)
    weights[name].view(-1)[0] = value
    save_file(weights, run / WEIGHTS)
    for what, read in ((LAST, lambda: resume(run, quiet=True)), (WEIGHTS, lambda: load(run))):
        with pytest.raises(AmbisegError, match=f"{what} holds weights that are NaN or infinite"):
            read()


def test_foreign_checkpoints_are_refused(whole, tmp_path):
    run = shutil.copytree(whole["full"], tmp_path / "run")
    checkpoint = load_checkpoint(run / LAST)
    torch.save({**checkpoint, "ambiseg": {"method": "Crystal"}}, run / LAST)
    with pytest.raises(AmbisegError, match="written by Crystal, but .* says ModeProposals"):
        resume(run, quiet=True)
    others = ({**checkpoint, "ambiseg": "ModeProposals"}, {**checkpoint, "global_step": "9"})
    for content in (*others, {"weights": torch.ones(2)}, [1, 2]):
        torch.save(content, run / LAST)
        with pytest.raises(AmbisegError, match="not a checkpoint of ambiseg"):
            resume(run, quiet=True)
    (run / LAST).unlink()
    with pytest.raises(AmbisegError, match="nothing to resume"):
        resume(run, quiet=True)
    (run / CONFIG).unlink()
    with pytest.raises(AmbisegError, match="not a run folder"):
        resume(run, quiet=True)


def test_the_configuration_replays_the_run(whole, train_tiny, tmp_path):
    """Saved and loaded it is the same; training again from what it says gives the same weights."""
    config = RunConfig.load(whole["single"])
    config.save(tmp_path)
    assert RunConfig.load(tmp_path) == config
    again = train_module.fit(
        config.method,
        config.data,
        tmp_path / "again",
        train=config.train,
        backbone=config.backbone,
        settings=config.settings,
        quiet=True,
    )
    assert RunConfig.load(again.run) == config
    assert_same_training(again.run, whole["single"])


def test_the_data_set_decides_about_augmentation(whole, train_tiny, fires, tmp_path, monkeypatch):
    asked = []
    original = Augmentation.__call__

    def remember(self, *args):
        asked.append(self)
        return original(self, *args)

    monkeypatch.setattr(Augmentation, "__call__", remember)
    splits = {name: open_split(fires, name) for name in ("train", "val")}
    data = write_dataset(
        tmp_path / "d", splits, DatasetInfo("d", augment={"flip": False, "quarter-turns": True})
    )
    for augment, expected in [(True, Augmentation((QuarterTurns(),))), (False, Augmentation())]:
        asked.clear()
        train_tiny(tmp_path / f"run{augment}", data=data, epochs=1, augment=augment, validations=1)
        assert asked.pop(0) == Augmentation()  # the trial before the run
        assert asked[:12] == [expected] * 12
        assert asked[-4:] == [Augmentation()] * 4


def test_worker_processes_change_nothing(whole, train_tiny, tmp_path):
    run = train_tiny(tmp_path / "run", labels="single", workers=2).run
    a, b = (load_checkpoint(r / LAST)["state_dict"] for r in (run, whole["single"]))
    assert_same(a, b)


def test_senseless_settings_are_named():
    settings = TrainSettings()
    assert settings.problems() == []
    assert "not both" in replace(settings, epochs=1, minutes=1.0).problems()[0]
    for name, value in [
        ("lr", 0.0),
        ("ema", 1.0),
        ("seed", -1),
        ("devices", 0),
        ("minutes", -1.0),
        ("epochs", 0),
    ]:
        assert len(replace(settings, **{name: value}).problems()) == 1
        assert name in replace(settings, **{name: value}).problems()[0]


def test_a_flow_model_validates_by_its_loss_and_proposals_start_from_it(fires, tmp_path):
    small = {"backbone": UNetSettings(width=8, depth=2), "quiet": True}
    chosen = TrainSettings(epochs=1, batch_size=4, warmup=2, validations=1, precision="32")
    flow = train_module.fit("flow-matching", fires, tmp_path / "flow", train=chosen, **small)
    assert flow.metric == "loss" and flow.value is not None and flow.value > 0
    later = replace(chosen, init=str(flow.run), freeze="encoder", ema=0.0)
    settings = ModeProposalsSettings(proposals=4, selection=SelectionSettings(head_width=8))
    found = train_module.fit(
        "mode-proposals", fires, tmp_path / "modes", train=later, settings=settings, quiet=True
    )
    config = RunConfig.load(found.run)
    assert config.settings.flow_input and config.backbone == small["backbone"]
    ours, theirs = load_file(found.run / WEIGHTS), load_file(flow.run / WEIGHTS)
    assert torch.equal(ours["g.stem.weight"], theirs["g.stem.weight"])
    assert not torch.equal(ours["g.norm.weight"], theirs["g.norm.weight"])
    with pytest.raises(AmbisegError, match="flow-matching cannot start from a run of mode-proposals"):
        train_module.fit(
            "flow-matching", fires, tmp_path / "no", train=replace(chosen, init=str(found.run)), **small
        )
    with pytest.raises(AmbisegError, match=r"has 1 channel\(s\) for binary masks, these settings 2"):
        train_module.fit(
            "mode-proposals", fires, tmp_path / "no", train=replace(later, binary_channels=2), quiet=True
        )
    with pytest.raises(AmbisegError, match="leave those of --set backbone out"):
        other = {"backbone": UNetSettings(width=16), "quiet": True}
        train_module.fit("mode-proposals", fires, tmp_path / "no", train=later, settings=settings, **other)
    assert not (tmp_path / "no").exists()


def test_a_flow_model_of_other_data_is_refused(fires, tmp_path, monkeypatch):
    small = {"backbone": UNetSettings(width=8, depth=2), "quiet": True}
    chosen = TrainSettings(epochs=1, batch_size=4, validations=1, precision="32")
    flow = train_module.fit("flow-matching", fires, tmp_path / "flow", train=chosen, **small)
    entries = yaml.safe_load((flow.run / CONFIG).read_text())
    scale = {name: values[:3] for name, values in entries["normalization"].items()}
    other = {"in_channels": 3, "normalization": scale, "images": None}
    (flow.run / CONFIG).write_text(yaml.safe_dump(entries | other))
    with pytest.raises(AmbisegError, match="trained on data with other channels"):
        later = replace(chosen, init=str(flow.run))
        train_module.fit("mode-proposals", fires, tmp_path / "no", train=later, quiet=True)


def test_settings_that_do_not_suit_the_images_leave_no_run_folder(fires, tmp_path):
    with pytest.raises(AmbisegError, match="rank 300 is above the 256 logits"):
        train_module.fit("ssn", fires, tmp_path / "run", settings=SSNSettings(rank=300), quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_training_begins_with_half_the_size(train_tiny, tmp_path, monkeypatch):
    """Until the share that is asked for; validations see whole images."""
    from ambiseg.methods.mode_proposals.model import ModeProposals

    seen, loss = [], ModeProposals.loss

    def watched(self, images, annotations):
        seen.append((tuple(images.shape[2:]), tuple(annotations.masks.shape[2:])))
        return loss(self, images, annotations)

    monkeypatch.setattr(ModeProposals, "loss", watched)
    result = train_tiny(tmp_path / "run", epochs=None, updates=10, coarse_until=0.4)
    whole = seen[-1][0]
    half = tuple(size // 2 for size in whole)
    assert result.steps == 10 and seen[-10:] == [(half, half)] * 4 + [(whole, whole)] * 6
