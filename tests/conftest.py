"""What several tests need: a tiny data set on disk, a way to train on it in a second, and one trained run."""

from __future__ import annotations

import os

import pytest

from ambiseg.data.info import DatasetInfo
from ambiseg.data.simulators.wildfire import simulate_wildfires
from ambiseg.data.source import write_dataset

os.environ["AMBISEG_CALIBRATE"] = "no"  # what a training computes in does not depend on the clock


@pytest.fixture(scope="session")
def fires(tmp_path_factory):
    """A folder of 16x16 wildfires: 12 for training, 4 for validation, 5 for tests."""
    sizes = {"train": (12, 0), "val": (4, 12), "test": (5, 16)}
    splits = {name: simulate_wildfires(n, size=16, start=start) for name, (n, start) in sizes.items()}
    return write_dataset(tmp_path_factory.mktemp("data") / "fires", splits, DatasetInfo("fires"))


@pytest.fixture(scope="session")
def train_tiny(fires):
    """``train_tiny(out, **settings)``: some steps of the smallest mode proposals, in float32."""
    from ambiseg.engine.settings import TrainSettings
    from ambiseg.engine.train import fit
    from ambiseg.methods.mode_proposals import ModeProposalsSettings, SelectionSettings
    from ambiseg.networks.settings import UNetSettings

    def train(out, data=fires, overwrite=False, proposals=6, **settings):
        plain = {"epochs": 4, "batch_size": 4, "warmup": 2, "validations": 2, "precision": "32"}
        chosen = {**plain, "augment": True, **settings}
        if "minutes" in settings:
            del chosen["epochs"]
        return fit(
            "mode-proposals",
            data,
            out,
            train=TrainSettings(**chosen),
            backbone=UNetSettings(width=8, depth=2),
            settings=ModeProposalsSettings(proposals=proposals, selection=SelectionSettings(head_width=8)),
            overwrite=overwrite,
            quiet=True,
        )

    return train


@pytest.fixture(scope="session")
def tiny_run(train_tiny, tmp_path_factory):
    """The folder of a finished run; tests read it and leave it as it is."""
    return train_tiny(tmp_path_factory.mktemp("runs") / "tiny", epochs=10, lr=5e-3, ema=0.5).run


@pytest.fixture(scope="session")
def tubes(tmp_path_factory):
    """A data set of volumes of 16x16x6 voxels that two annotators mark: 3 for training, 1 for validation, 2 for tests."""
    from tube_helpers import write_tubes

    return write_tubes(tmp_path_factory.mktemp("data") / "tubes", {"train": 3, "val": 1, "test": 2})


@pytest.fixture(scope="session")
def tube_run(tubes, train_tiny, tmp_path_factory):
    """The folder of a run on the slices of ``tubes``; tests read it and leave it as it is."""
    out = tmp_path_factory.mktemp("runs") / "tubes"
    return train_tiny(out, data=tubes, epochs=20, lr=1e-2, ema=0.5, augment=False).run
