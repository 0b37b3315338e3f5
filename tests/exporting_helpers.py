"""Runs of small networks with random weights, of every method."""

from __future__ import annotations

import torch

from ambiseg.data.batches import Normalization
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.labels import LabelSpace
from ambiseg.methods import METHODS
from ambiseg.nested_settings import replaced
from ambiseg.networks.settings import UNetSettings
from model_helpers import perturbed

OWN = [name for name, spec in METHODS.items() if str(spec.model).startswith("ambiseg.")]
"""Methods of the library, without those of packages that happen to be installed."""
SMALL = {
    "atfm": {"rank": 1, "steps": 1},
    "c-probabilistic-unet": {"annotators": ["anna", "ben"]},
    "c-ssn": {"rank": 2, "annotators": ["anna", "ben"]},
    "car": {"discriminator_width": 4},
    "cflow": {},
    "dropout-unet": {},
    "flow-matching": {"steps": 1, "sampler": "euler"},
    "flow-ssn": {"flow": {"kind": "continuous", "steps": 1, "width": 8}},
    "hierarchical-probabilistic-unet": {},
    "image2image-vae": {},
    "m-heads": {"heads": 3},
    "mode-proposals": {"proposals": 3, "selection": {"head_width": 8}},
    "mose": {"latent_size": 2, "gating_width": 4},
    "phiseg": {"latent_levels": 2},
    "pixelseg": {},
    "probabilistic-unet": {},
    "ssn": {"rank": 2},
    "unet-ensemble": {"members": 2},
}
"""Settings of each method for a graph of few nodes."""

REFUSED = ("dropout-unet", "hierarchical-probabilistic-unet", "phiseg", "pixelseg")
"""Methods that no graph holds."""


def run_of(method, classes=2, **settings):
    """A run of a small network with random weights, three masks per image."""
    torch.manual_seed(0)
    spec = METHODS[method]
    small = {**SMALL[method], **({"samples": 3} if spec.masks == "samples" else {}), **settings}
    config = RunConfig(
        method,
        3,
        LabelSpace.of_classes(classes),
        Normalization((100.0, 90.0, 80.0), (50.0, 40.0, 30.0)),
        UNetSettings(width=8, depth=2),
        replaced(spec.settings(), small, "settings"),
        TrainSettings(),
    )
    return Run(config, perturbed(config.build(), 0.1), Hardware("cpu", False, False))
