"""Trackers get the figures of the curve and all settings; a run folder lists what they write."""

from __future__ import annotations

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ambiseg.engine import trackers
from ambiseg.engine.curve import training_curve
from ambiseg.engine.run_folder import WEIGHTS
from ambiseg.errors import AmbisegError
from ambiseg.owned_files import LIST, LOCK, listed


def test_tensorboard_gets_the_curve_and_the_run_lists_its_files(train_tiny, tmp_path):
    run = train_tiny(tmp_path / "run", epochs=None, updates=3, loggers=("tensorboard",)).run
    (folder,) = (run / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    told = {e.step: e.value for e in events.Scalars("val_hm_iou_unique")}
    expected = {
        row["step"]: row["val_hm_iou_unique"] for row in training_curve(run) if "val_hm_iou_unique" in row
    }
    assert told == pytest.approx(expected, abs=1e-6) and len(told) > 0
    assert "method: mode-proposals" in (folder / "hparams.yaml").read_text()
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names - {LIST, LOCK} <= listed(run)
    train_tiny(run, epochs=None, updates=1, overwrite=True)
    assert not (run / "tensorboard").exists()


def test_a_tracker_that_is_missing_costs_no_earlier_run(train_tiny, tmp_path, monkeypatch):
    run = train_tiny(tmp_path / "run", epochs=None, updates=1).run
    before = (run / WEIGHTS).read_bytes()
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(AmbisegError, match=r"wandb is not installed: pip install 'ambiseg\[wandb\]'"):
        train_tiny(run, overwrite=True, loggers=("wandb",))
    assert (run / WEIGHTS).read_bytes() == before and json.loads((run / "training.json").read_text())


def test_a_tracker_that_fails_is_told_in_a_sentence(train_tiny, tmp_path, monkeypatch):
    def refuse(self, *arguments):
        raise RuntimeError("no key")

    monkeypatch.setattr(trackers.TensorBoardLogger, "log_hyperparams", refuse)
    with pytest.raises(AmbisegError, match="TensorBoardLogger cannot log: no key"):
        train_tiny(tmp_path / "run", loggers=("tensorboard",))
