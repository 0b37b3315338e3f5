"""Settings of a training run: plain values, importable without torch (the command line shows them)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ambiseg.data import augmentation_kinds
from ambiseg.data.augmentation_kinds import Kind

Tracker = Literal["tensorboard", "wandb", "mlflow"]
AUTO, SELECT_LAST = "auto", "last"
"""Values of ``select`` that are no names of figures."""
VALIDATIONS = 8
"""Validations of a run that says nothing of them."""

MOST = {
    "batch_size": 1_000_000,
    "devices": 1024,
    "nodes": 65_536,
    "workers": 1024,
    "threads": 1024,
    "seed": 2**63 - 1,
    "epochs": 10**9,
    "updates": 10**12,
    "validations": 1_000_000,
    "validate_every": 10**9,
}
"""Greatest values that make sense."""


@dataclass(frozen=True)
class AdamW:
    """AdamW (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    """AdamW, whose weight decay is apart from the gradient (Loshchilov and Hutter 2019)."""
    weight_decay: float = 0.01
    """Weight decay of weights of two or more axes; biases and norms have none."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the mean gradient and of its mean square."""


@dataclass(frozen=True)
class Adam:
    """Adam with an L2 penalty (Kingma and Ba 2015)."""

    kind: Literal["adam"] = "adam"
    """Adam, whose weight decay is an L2 penalty in the gradient (Kingma and Ba 2015)."""
    weight_decay: float = 0.0
    """Factor of a weight in its own gradient; of all weights, biases and norms too."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the mean gradient and of its mean square."""


@dataclass(frozen=True)
class Cosine:
    """Half a cosine."""

    kind: Literal["cosine"] = "cosine"
    """Falls to 0 along half a cosine."""


@dataclass(frozen=True)
class Constant:
    """One rate."""

    kind: Literal["constant"] = "constant"
    """Stays at its peak."""


@dataclass(frozen=True)
class Steps:
    """A rate that changes at given places."""

    kind: Literal["steps"] = "steps"
    """Changes at given places."""
    shares: tuple[float, ...] = ()
    """Where: shares of the training, rising, above 0 and below 1."""
    updates: tuple[int, ...] = ()
    """Where, in place of shares: numbers of updates, rising."""
    factors: tuple[float, ...] = ()
    """The rate from each of these places on, as a factor of lr."""


@dataclass(frozen=True)
class Plateau:
    """A rate that falls where a loss no longer does."""

    kind: Literal["plateau"] = "plateau"
    """Falls where the training loss or the validation no longer gets better, as ReduceLROnPlateau of
    PyTorch."""
    watch: Literal["training", "validation"] = "training"
    """The mean training loss of each epoch, or the figure of each validation."""
    factor: float = 0.5
    """Factor of the rate."""
    patience: int = 10
    """Epochs (validations) without improvement by 1 in 10,000 that are borne; the rate falls after one
    more."""
    least: float = 1e-5
    """Least rate."""


@dataclass(frozen=True)
class TrainSettings:
    """How a method is trained, whichever it is."""

    labels: Literal["full", "single"] = "full"
    """Labels used per training sample: all annotations with their weights (`full`), or one drawn at random by
    weight (`single`)."""
    init: str | None = None
    """Run folder whose weights to start from: of the same method and sizes, or of one that the method can
    use."""
    freeze: Literal["nothing", "encoder", "all-but-last"] = "nothing"
    """Part of the network that keeps its weights."""
    epochs: int | None = None
    """Times that every image is seen; 100 where neither epochs nor updates nor minutes are given."""
    updates: int | None = None
    """Steps of the optimiser, in place of epochs."""
    minutes: float | None = None
    """Wall-clock budget of the whole command, in place of epochs."""
    binary_channels: Literal[1, 2] = 1
    """Channels of logits for two classes: 1 with a sigmoid, or 2 with a softmax as much public code has. More
    classes have one each."""
    seed: int = 0
    """Seed of initialisation, order, label draws and augmentation."""
    batch_size: int = 16
    """Images per step and process."""
    lr: float = 2e-3
    """Peak learning rate."""
    optimiser: AdamW | Adam = AdamW()
    """The optimiser."""
    encoder_rate: float = 1.0
    """Factor of the learning rate for the encoder of the network, such as 0.1 for a pretrained one."""
    schedule: Cosine | Constant | Steps | Plateau = Cosine()
    """The learning rate after the warm-up."""
    warmup: int = 100
    """Steps over which the learning rate rises linearly; a fifth of the training where that is shorter."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    ema: float = 0.999
    """Decay of the moving average of the weights that is validated and kept; 0 for none."""
    augment: Literal["auto"] | bool | tuple[Kind, ...] = "auto"
    """Kinds of augmentation: a list of names, or of mappings such as {kind: rotate, degrees: 10}; no; yes for
    those of flip, quarter-turns, scale and intensity that dataset.yaml allows, and flips where it is silent;
    auto for those of these four that it allows, and where it is silent those that pass a test on validation
    images."""
    coarse_until: float = 0.0
    """Share of the training, from its start, with images and masks of half the size, whose steps are quicker; for
    trainings that are too short otherwise."""
    validations: int | None = None
    """Validations over the whole run; 8 where validate_every is not given either."""
    validate_every: int | None = None
    """Epochs from one validation to the next, in place of validations; there is one at the end too."""
    validation_images: int = 200
    """At most this many images in each of them, the first ones; 0 for the whole split."""
    validation_labels: Literal["same", "full"] = "same"
    """What validation sees of an image where training sees single labels: one mask, drawn once by weight
    (`same`), or all annotations (`full`)."""
    select: str = AUTO
    """Which weights are kept: those of the best `loss`, of the best metric by its name, or the `last` ones;
    `auto` is the choice of the method, with one mask per image the energy score in place of a metric."""
    early_stop: int = 0
    """Stop after this many validations without improvement; 0 never does."""
    precision: Literal["auto", "32", "tf32", "bf16"] = "auto"
    """Number format of the networks: 32, tf32 (NVIDIA GPUs) or bf16; auto: what is fastest, measured before a longer
    training, else bf16 where the hardware computes in it."""
    channels_last: Literal["auto", "yes", "no"] = "auto"
    """Memory order of images and convolutions; auto: what is fastest, else last where bf16 is used."""
    threads: int | None = None
    """Threads of the CPU, in each process; where none are given, as many as PyTorch takes, or fewer where that is
    faster."""
    compile: Literal["no", "yes"] = "no"
    """Whether torch.compile makes the network faster, which takes a minute or more at the first steps; without a C++
    compiler it is left out."""
    checkpointing: bool = False
    """Whether the backward pass computes the inside of the network's blocks again: less memory, more time."""
    devices: int = 1
    """Processes (CPU) or GPUs, on each machine."""
    nodes: int = 1
    """Machines, on which torchrun or srun starts the training."""
    node_timeout: float = 10.0
    """Minutes to wait for the processes on all machines."""
    sync_batchnorm: Literal["auto", "yes", "no"] = "auto"
    """Whether batch normalisation has the statistics of the images of all processes; with auto on GPUs, since PyTorch
    computes them there only. With no, each process has those of its own images."""
    workers: int = 0
    """Processes that prepare batches; 0 does it in the training process."""
    loggers: tuple[Tracker, ...] = ()
    """Experiment trackers beside the curve of the run: tensorboard, wandb, mlflow (pip install
    'ambiseg[tensorboard]')."""

    def problems(self) -> list[str]:
        """Values that make no sense, one sentence each.

        Example:
            >>> TrainSettings(batch_size=0).problems()
            ['batch_size must be at least 1, received 0']
        """
        found = []
        for names in (("epochs", "updates", "minutes"), ("validations", "validate_every")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) > 1:
                found.append(f"give {' or '.join(given)}, not both")
        for name in ("batch_size", "devices", "nodes", "threads", "validations", "validate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                found.append(f"{name} must be at least 1, received {value}")
        for name in ("epochs", "updates", "minutes", "lr", "encoder_rate", "node_timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                found.append(f"{name} must be above 0, received {value}")
        for name in ("warmup", "clip", "early_stop", "workers", "seed", "validation_images"):
            if not 0 <= getattr(self, name) < math.inf:
                found.append(f"{name} must be 0 or more, received {getattr(self, name)}")
        for name, most in MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                found.append(f"{name} must be at most {most}, received {value}")
        if isinstance(self.augment, tuple):
            found += [f"augment: {problem}" for problem in augmentation_kinds.problems(self.augment)]
        if not 0 <= self.coarse_until < 1:
            found.append(
                f"coarse_until is a share of the training, 0 to below 1, received {self.coarse_until}"
            )
        if not 0 <= self.ema < 1:
            found.append(f"ema must be in [0, 1), received {self.ema}")
        if self.encoder_rate != 1 and self.freeze != "nothing":
            found.append(
                f"encoder_rate {self.encoder_rate:g} has no effect with freeze={self.freeze}, which keeps the encoder: leave"
                " one of them out"
            )
        if self.checkpointing and self.compile == "yes":
            found.append("checkpointing does not go with compile=yes: leave one of them out")
        found += self._optimiser_problems()
        if isinstance(self.schedule, Steps):
            found += self._step_problems(self.schedule)
        if isinstance(self.schedule, Plateau):
            found += self._plateau_problems(self.schedule)
        if self.select == SELECT_LAST and self.early_stop:
            found.append(
                f"early_stop {self.early_stop} ends a run by its best validation, but select is last"
            )
        return found

    def _optimiser_problems(self) -> list[str]:
        decay, betas, found = self.optimiser.weight_decay, self.optimiser.betas, []
        if not 0 <= decay < math.inf:
            found.append(f"optimiser.weight_decay must be 0 or more, received {decay}")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            found.append(f"optimiser.betas are two numbers in [0, 1), received {list(betas)}")
        return found

    def _step_problems(self, steps: Steps) -> list[str]:
        """One sentence, of the first mistake."""
        places, factors = steps.shares or steps.updates, steps.factors
        name = "schedule.shares" if steps.shares else "schedule.updates"
        if bool(steps.shares) == bool(steps.updates):
            return ["schedule: steps are given by shares or by updates, one of the two"]
        if len(factors) != len(places):
            return [f"schedule.factors are {len(places)}, one for each of {name}, received {len(factors)}"]
        if not all(0 < factor < math.inf for factor in factors):
            return [f"schedule.factors are numbers above 0, received {list(factors)}"]
        if any(before >= after for before, after in zip((0, *places), places, strict=False)):
            return [f"{name} must be above 0 and rise, received {list(places)}"]
        if steps.shares:
            return [] if places[-1] < 1 else [f"{name} must be below 1, the end, received {list(places)}"]
        if self.minutes is not None:
            return ["schedule.updates cannot be placed in minutes: give schedule.shares"]
        return [] if self.updates is None else self.late_steps(self.updates)

    def late_steps(self, total: int, images: int | None = None) -> list[str]:
        """The sentence on changes of the rate that a training of so many updates does not reach, if any; with the
        number of images also on a plateau of the loss of epochs."""
        if isinstance(self.schedule, Plateau) and self.schedule.watch == "training" and images:
            epochs = total * self.batch_size * self.processes / images
            least = self.schedule.patience + 2
            if epochs < least:
                return [
                    f"schedule watches the loss of epochs, but with patience {self.schedule.patience} the rate falls after"
                    f" {least} of them at the earliest, and the training has {epochs:.3g}: train longer, or give less"
                    " patience"
                ]
        last = self.schedule.updates[-1:] if isinstance(self.schedule, Steps) else ()
        if not last or last[0] < total:
            return []
        return [f"schedule.updates must be below the {total} updates of the training, received {last[0]}"]

    def _plateau_problems(self, plateau: Plateau) -> list[str]:
        found = []
        if not 0 < plateau.factor < 1:
            found.append(
                "schedule.factor must be above 0 and below 1, else the rate never falls,"
                f" received {plateau.factor}"
            )
        if plateau.patience < 0:
            found.append(f"schedule.patience must be 0 or more, received {plateau.patience}")
        if not 0 <= plateau.least < self.lr:
            found.append(
                f"schedule.least must be 0 or more and below lr {self.lr:g}, received {plateau.least:g}"
            )
        count = self.validations or (None if self.validate_every else VALIDATIONS)
        if plateau.watch == "validation" and count is not None and count < plateau.patience + 2:
            found.append(
                f"schedule watches {count} validations, but with patience {plateau.patience} the rate falls"
                f" after {plateau.patience + 2} at the earliest: give validate_every, more validations or"
                " less patience"
            )
        return found

    @property
    def processes(self) -> int:
        """Processes on all machines."""
        return self.devices * self.nodes

    @property
    def one_mask_validation(self) -> bool:
        """Whether validation sees one mask of each image, as training does."""
        return self.labels == "single" and self.validation_labels == "same"

    @property
    def seen_labels(self) -> str:
        """Labels that training saw, for tables: full, single, or single with full ones in validation."""
        leaks = self.labels == "single" and not self.one_mask_validation
        return "single (validation: full)" if leaks else self.labels

    def used_validation_images(self, count: int) -> int:
        """How many of so many images of the validation split each validation takes.

        Example:
            >>> TrainSettings(validation_images=0).used_validation_images(3000)
            3000
        """
        return min(count, self.validation_images or count)
