"""Training from memory is training from disk; a loop of one's own is `fit`; what either leaves is a run."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import ambiseg
from ambiseg.cli.evaluate import data_of
from ambiseg.cli.train import train_command
from ambiseg.data.batches import Batch, BatchOrder, LabelView
from ambiseg.data.memory.dataset import IN_MEMORY, dataset
from ambiseg.data.source import open_split
from ambiseg.data.statistics import SplitStatistics
from ambiseg.engine.curve import training_curve
from ambiseg.engine.module import TrainingModule
from ambiseg.engine.package import write_package
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.save_run import save_run
from ambiseg.engine.train import fit, resume
from ambiseg.errors import AmbisegError, DataWarning
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.methods.mode_proposals.model import ModeProposals

STEPS, RATE = 6, 5e-3
SMALL = {"backbone": {"width": 8, "depth": 2, "kind": "unet"}, "settings": {"proposals": 4}}
PLAIN = {
    "updates": STEPS,
    "batch_size": 4,
    "lr": RATE,
    "warmup": 0,
    "schedule": {"kind": "constant"},
    "optimiser": {"kind": "adam", "weight_decay": 0.0},
    "ema": 0.0,
    "clip": 0.0,
    "augment": False,
    "precision": "32",
    "validations": 1,
    "select": "last",
}
"""Settings of a loop that anyone would write."""


@pytest.fixture(scope="module")
def data(fires):
    """The fires as objects in Python."""
    splits = {name: list(open_split(fires, name)) for name in ("train", "val", "test")}
    items = {
        name: [
            (torch.from_numpy(s.image), dict(zip(s.annotators, s.masks, strict=True)), s.weights)
            for s in found
        ]
        for name, found in splits.items()
    }
    return dataset(items, ids={name: [s.id for s in found] for name, found in splits.items()})


@pytest.fixture(scope="module")
def run(data, train_tiny, tmp_path_factory):
    """The run of `tiny_run`, trained from memory."""
    return train_tiny(tmp_path_factory.mktemp("runs") / "memory", data=data, epochs=10, lr=5e-3, ema=0.5).run


def test_training_from_memory_is_training_from_disk(run, tiny_run):
    memory, disk = RunConfig.load(run), RunConfig.load(tiny_run)
    assert memory.data == IN_MEMORY
    assert replace(memory, data=disk.data) == disk
    assert training_curve(run) == training_curve(tiny_run)
    one, other = (load_file(folder / "model.safetensors") for folder in (run, tiny_run))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_evaluation_and_description_from_memory_are_those_from_disk(run, data, fires):
    items = {"test": [(s.image, s.masks, s.weights) for s in open_split(fires, "test")]}
    memory, disk = ambiseg.evaluate(run, items, bootstrap=None), ambiseg.evaluate(run, fires, bootstrap=None)
    assert memory.all == disk.all and memory.kept == disk.kept
    assert ambiseg.evaluate(run, data, bootstrap=None).data_digest == disk.data_digest
    here, there = ambiseg.describe(data, "test", samples=[1]), ambiseg.describe(fires, "test", samples=[1])
    assert here.splits == there.splits


def test_splits_that_are_drawn_otherwise_are_told(data, train_tiny, tmp_path):
    pairs = [(s.image, s.masks) for split in data.values() for s in split]
    run = train_tiny(tmp_path / "run", data=dataset(pairs), epochs=1).run
    options = {"bootstrap": None, "metrics": ["ged"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ambiseg.evaluate(run, pairs, **options)
        ambiseg.evaluate(run, {"test": pairs[:2]}, **options)
    for other in (pairs[:-1], dataset(pairs, seed=1)):
        with pytest.warns(DataWarning, match="are not those that the run was trained with"):
            ambiseg.evaluate(run, other, **options)


def test_a_run_goes_on_with_the_same_data_only(run, data, train_tiny, tmp_path):
    first = train_tiny(tmp_path / "run", data=data, epochs=1).run
    with pytest.raises(
        AmbisegError, match=r"trained on data in memory, .*: pass the same data to ambiseg.resume"
    ):
        resume(first, updates=1, quiet=True)
    other = dataset({"train": list(data["train"])[:-1], "val": data["val"]})
    with pytest.raises(AmbisegError, match="the data in memory is not the one .*: pass the same data"):
        resume(first, data=other, updates=1, quiet=True)
    assert resume(first, data=data, updates=1, quiet=True).steps == 4
    with pytest.raises(AmbisegError, match="trained on data in memory: give --data"):
        data_of(RunConfig.load(run), None)
    assert "--data DATA" in train_command(RunConfig.load(run), "again")


def test_wrong_items_are_refused_before_a_run_folder_is_made(data, tmp_path):
    wrong = [(s.image, s.masks, s.weights * 2) for s in data["train"]]
    for given in ({"train": wrong, "val": data["val"]}, {"train": data["train"]}, []):
        with pytest.raises(AmbisegError, match="sum to 2, not 1|no split 'val'|holds no item"):
            fit("ssn", given, tmp_path / "run", train=PLAIN, backbone=SMALL["backbone"], quiet=True)
    local = [(s.image, s.masks, lambda: 0) for s in data["train"]]
    train = {**PLAIN, "devices": 2}
    with pytest.raises(AmbisegError, match="cannot be sent to other processes"):
        fit("ssn", {"train": local, "val": data["val"]}, tmp_path / "run", train=train, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """Losses of the steps of `fit`, and its run folder."""
    losses, original = [], TrainingModule.training_step

    def step(self, batch, batch_idx):
        found = original(self, batch, batch_idx)
        losses.append(found["loss"].item())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", step)
        out = tmp_path_factory.mktemp("runs") / "fit"
        result = fit("mode-proposals", data, out, train=PLAIN, **SMALL, quiet=True)
    return losses, result.run


def batches(data):
    """The batches of `fit`, by torch's own collation."""
    known = SplitStatistics.of(data["train"])
    view = LabelView(data["train"], known.normalization)
    return known, DataLoader(view, batch_sampler=BatchOrder(len(view), 4, seed=0))


def own_model(data):
    torch.manual_seed(0)
    return build("mode-proposals", data["train"][0].image.shape[0], **SMALL, preset="recommended")


def test_a_loop_of_ones_own_has_the_losses_of_fit(data, fitted, tmp_path):
    expected, folder = fitted
    known, loader = batches(data)
    model, losses = own_model(data), []
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for batch in itertools.islice(loader, STEPS):
        assert isinstance(batch, Batch)
        loss = model.loss(batch.images, batch.annotations)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert len(expected) == STEPS and losses == pytest.approx(expected, abs=1e-6)
    ours, theirs = save_run(model, tmp_path / "run", known, val=data["val"]), ambiseg.load(folder)
    image = data["test"][0].image
    one, other = ours.predict(image), theirs.predict(image)
    assert torch.equal(one.masks, other.masks)
    torch.testing.assert_close(one.weights, other.weights, atol=1e-5, rtol=0)
    assert ours.fitted is not None and ours.config.images == theirs.config.images


class Own(pl.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model, self.losses = model, []

    def training_step(self, batch, index):
        loss = self.model.loss(batch.images, batch.annotations)["loss"]
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), RATE)


@pytest.mark.filterwarnings("ignore")
def test_a_module_of_lightning_has_the_losses_of_fit(data, fitted, tmp_path):
    _, loader = batches(data)
    module = Own(own_model(data))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, loader)
    assert module.losses == pytest.approx(fitted[0], abs=1e-6)


def test_what_save_run_writes_is_read_everywhere(data, fitted, tmp_path):
    known = SplitStatistics.of(data["train"])
    model = own_model(data)
    run = save_run(model, tmp_path / "run", known.normalization)
    assert RunConfig.load(tmp_path / "run").method == "mode-proposals"
    write_package(run, tmp_path / "run.ambiseg")
    image = data["test"][0].image
    again = ambiseg.load(tmp_path / "run.ambiseg").predict(image)
    assert torch.equal(run.predict(image).masks, again.masks)
    figures = ambiseg.evaluate(tmp_path / "run", data, bootstrap=None, metrics=["ged"])
    assert figures.images == len(data["test"])
    with pytest.raises(AmbisegError, match="exists"):
        save_run(model, tmp_path / "run", known)
    save_run(model, tmp_path / "run", known, overwrite=True)
    for wrong, scale, sentence in (
        (torch.nn.Linear(1, 1), known, "save_run takes a Segmenter, received Linear"),
        (build("ssn", 1, **{"backbone": SMALL["backbone"]}), known, "the normalisation is of"),
    ):
        with pytest.raises(AmbisegError, match=sentence):
            save_run(wrong, tmp_path / "wrong", scale)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(AmbisegError, match="NaN or infinite"):
        save_run(model, tmp_path / "wrong", known)
    assert not (tmp_path / "wrong").exists()


def test_a_run_predicts_what_other_libraries_hand_over(run, data):
    loaded = ambiseg.load(run)
    image = data["test"][0].image
    expected = loaded.predict(image)
    assert torch.equal(loaded.predict(torch.from_numpy(image)).masks, expected.masks)
    assert torch.equal(loaded.predict(image.transpose(1, 2, 0)).masks, expected.masks)
    with pytest.raises(AmbisegError, match="the image has 1 channel"):
        loaded.predict(Image.fromarray(np.zeros((16, 16), np.uint8)))


def test_torch_joins_mask_sets_by_default():
    sets = [MaskSet.from_numpy(np.eye(4, dtype=np.uint8)[None, :2]) for _ in range(3)]
    images, masks = next(iter(DataLoader([(torch.zeros(1, 2, 4), one) for one in sets], batch_size=3)))
    assert images.shape == (3, 1, 2, 4) and torch.equal(masks.masks, MaskSet.stack(sets).masks)


def test_what_decides_the_filter_is_checked_before_a_run_is_written(data, fitted, tmp_path):
    model, known = ambiseg.load(fitted[1]).model, SplitStatistics.of(data["train"])
    other = dataset(val=[(s.image, s.masks) for s in data["val"]], classes=3)
    for val in (other, other["val"]):
        with pytest.raises(AmbisegError, match="the data have the classes .*'class 2'.*, the model"):
            save_run(model, tmp_path / "run", known, val=val)
    for scale in (None, (0.5, 0.5)):
        with pytest.raises(AmbisegError, match="normalization is a Normalization or SplitStatistics"):
            save_run(model, tmp_path / "run", scale)
    assert not (tmp_path / "run").exists()
    whole = save_run(model, tmp_path / "whole", known, val=data).fitted
    assert whole == save_run(model, tmp_path / "split", known, val=data["val"]).fitted


def test_arguments_of_a_loop_are_checked(data):
    with pytest.raises(AmbisegError, match="mode is 'full' or 'single', received 'one'"):
        LabelView(data["train"], SplitStatistics.of(data["train"]).normalization, mode="one")
    with pytest.raises(AmbisegError, match="a size of 1 or more, received 5 and 0"):
        BatchOrder(5, 0)
    with pytest.raises(AmbisegError, match="labels are an ambiseg.LabelSpace"):
        ambiseg.build("ssn", 1, 2)
    with pytest.raises(AmbisegError, match="in_channels must be at least 1, received 0"):
        ambiseg.build("ssn", 0)


def test_build_takes_plain_values():
    model = build(ModeProposals, 2, backbone={"width": 8, "depth": 2}, settings={"proposals": 3})
    assert model.settings == replace(METHODS["mode-proposals"].settings(), proposals=3)
    assert model.backbone.width == 8 and model.labels.is_binary
    for values, sentence in (
        ({"settings": {"proposal": 3}}, "proposals"),
        ({"backbone": {"width": 0}}, "width"),
        ({"backbone": 3}, "a mapping of its values is expected, received int"),
        ({"preset": "none"}, "preset"),
    ):
        with pytest.raises(AmbisegError, match=sentence):
            build("mode-proposals", 2, **values)
