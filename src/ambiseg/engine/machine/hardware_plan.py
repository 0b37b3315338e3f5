"""What a training will compute in, and whether its minutes suffice there: the choice with the images and the network at
hand."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace

from ambiseg.data.batches import Batch, BatchOrder, LabelView, collate
from ambiseg.data.split import Split
from ambiseg.engine.annotators import styles_of
from ambiseg.engine.machine.calibration import calibrate
from ambiseg.engine.machine.hardware_choice import HardwareChoice, choose_hardware
from ambiseg.engine.machine.time_plan import short_budget
from ambiseg.engine.parallel.processes import is_child
from ambiseg.engine.run_folder import RunConfig
from ambiseg.errors import TrainingWarning
from ambiseg.methods.base import Segmenter
from ambiseg.networks.backbone import NETWORKS

NARROWER_SECONDS = 0.7
"""For the speed of a narrower network."""


def plan_hardware(config: RunConfig, split: Split, model: Segmenter, steps: int | None) -> HardwareChoice:
    """What the training of a configuration computes in; warns of a budget of minutes that is too short for it.

    Args:
        config: all settings.
        split: training images.
        model: of the configuration; it stays as it is.
        steps: length of the training, None where it is a time.
    """
    train = config.train
    view = LabelView(split, config.normalization, train.labels, seed=train.seed, styles=styles_of(config))

    def batch(images: int) -> Batch:
        return collate([view[key] for key in next(iter(BatchOrder(len(view), images, train.seed)))])

    facts = {
        "method": config.method,
        "channels": config.in_channels,
        "classes": config.labels.to_dict(),
        "backbone": asdict(config.backbone),
        "settings": asdict(config.settings),
        "weights": [list(weight.shape) for weight in model.parameters()],  # of a network of one's own
        "batch": [train.batch_size, train.labels, train.freeze, train.checkpointing],
        "size": None if config.images is None else config.images.largest,
    }
    model.freeze(train.freeze)
    model.checkpoint_activations(train.checkpointing)
    choice = choose_hardware(train, model, batch, facts, steps)

    def rate_of(width: int) -> float:
        try:
            narrow = replace(config, backbone=replace(config.backbone, width=width)).build()
            found = calibrate(narrow, batch(train.batch_size), [choice.chosen], NARROWER_SECONDS)
        except Exception:  # a width that the network cannot have is none to propose
            return 0.0
        return found.images_per_second

    if train.minutes is not None and choice.images_per_second and not is_child():
        width = config.backbone.width if config.backbone.kind in NETWORKS else None
        short = short_budget(train.minutes, train.batch_size, choice.images_per_second, width, rate_of)
        if short:
            warnings.warn(short, TrainingWarning, stacklevel=3)
    return choice
