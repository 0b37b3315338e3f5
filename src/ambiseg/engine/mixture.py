"""Several runs as one: the weighted union of their masks, stored as a run folder of its own.

For an image let run r predict masks with weights w_r, and let the mixture weigh the runs by a. Its squared GED against the
annotations Y of weights v is quadratic in a: with K the IoUs of pairs of masks,

    GED^2(a) = a^T G a - 2 a^T b + v^T K v,    G_rs = w_r^T K_rs w_s,    b_r = w_r^T K_rY v,

so its mean over images is least where `least_squares_on_simplex` says, for the means of G and b. One observed mask of each
image is enough for that: `v^T K v` does not depend on a.

A mixture folder holds ``mixture.yaml`` (the runs relative to it, the digests of their weights, a and how it was chosen); it
takes the place of a run in every command that reads one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ambiseg.atomic_write import write_text
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.mode_probabilities.simplex_least_squares import least_squares_on_simplex
from ambiseg.overlap import pairwise_overlap
from ambiseg.plain_yaml import read_yaml_file
from ambiseg.version import __version__

MIXTURE = "mixture.yaml"
MOST_RUNS = 32
LEAST_WEIGHT = 1e-3
"""Runs that the fit gives less are left out."""


@dataclass(frozen=True)
class MixtureConfig:
    """What ``mixture.yaml`` says.

    Attributes:
        runs: run folders, relative to the mixture folder.
        weights: of each run, sum 1.
        digests: SHA-256 of the weights of each model.
        chosen: how the weights were chosen, as plain values.
    """

    runs: tuple[str, ...]
    weights: tuple[float, ...]
    digests: tuple[str, ...]
    chosen: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write ``mixture.yaml``."""
        rows = [
            {"run": run, "weight": weight, "digest": digest}
            for run, weight, digest in zip(self.runs, self.weights, self.digests, strict=True)
        ]
        entries = {"ambiseg": __version__, "runs": rows, "chosen": self.chosen}
        write_text(folder / MIXTURE, yaml.safe_dump(entries, sort_keys=False, width=110))

    @classmethod
    def load(cls, folder: Path) -> MixtureConfig:
        """Read ``mixture.yaml``.

        Raises:
            AmbisegError: it is damaged.
        """
        path = folder / MIXTURE
        entries = read_yaml_file(path)
        rows = entries.get("runs") if isinstance(entries, dict) else None
        if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_RUNS:
            raise AmbisegError(f"{path}: 'runs' is a list of 1 to {MOST_RUNS} runs: make the mixture again")
        try:
            found = [(str(row["run"]), float(row["weight"]), str(row["digest"])) for row in rows]
        except (KeyError, TypeError, ValueError) as error:
            raise AmbisegError(
                f"{path}: an entry of 'runs' is wrong ({error}): make the mixture again"
            ) from error
        runs, weights, digests = zip(*found, strict=True)
        chosen = entries.get("chosen")
        return cls(
            runs,
            checked_weights(weights, len(runs), str(path)),
            digests,
            chosen if isinstance(chosen, dict) else {},
        )


class MixtureModel(Segmenter):
    """The weighted union of what several models predict.

    Masks of model r have its weights times a_r. ``samples`` is how many each model is asked for. Scores are left out: those
    of one model say nothing of masks of another.
    """

    weights: Tensor

    def __init__(self, members: Sequence[Segmenter], weights: Sequence[float]) -> None:
        first = members[0]
        super().__init__(first.in_channels, first.labels, first.backbone, None)
        self.members = nn.ModuleList(members)
        self.register_buffer("weights", torch.tensor(list(weights)))

    @property
    def export_obstacle(self) -> str:
        found = (member.export_obstacle for member in self.members if isinstance(member, Segmenter))
        return next(filter(None, found), "")

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """A mixture is not trained.

        Raises:
            AmbisegError: always.
        """
        raise AmbisegError("a mixture is not trained: train its runs, then mix them")

    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """All masks of all models, model by model."""
        found = []
        for member in self.members:
            assert isinstance(member, Segmenter)
            found.append(member.predict(images, samples, generator))
        return self.joined(found)

    def joined(self, predictions: Sequence[MaskSet]) -> MaskSet:
        """The union of what each model predicts, weighted."""
        parts = list(zip(predictions, self.weights.unbind(), strict=True))
        probabilities = [part.probabilities for part, _ in parts]
        whole = all(value is not None for value in probabilities)
        return MaskSet(
            torch.cat([part.masks for part, _ in parts], 1),
            torch.cat([weight * part.weights for part, weight in parts], 1),
            self.labels.one_channel,
            None,
            torch.cat([value for value in probabilities if value is not None], 1) if whole else None,
        )


def checked_weights(weights: Sequence[float], runs: int, where: str) -> tuple[float, ...]:
    """Weights of runs, divided by their sum.

    Raises:
        AmbisegError: another number than there are runs, negative, not finite, or of sum 0.

    Example:
        >>> checked_weights([3, 1], 2, "--weights")
        (0.75, 0.25)
    """
    total = sum(weights)
    if (
        len(weights) != runs
        or not all(0 <= weight < float("inf") for weight in weights)
        or not 0 < total < float("inf")
    ):
        raise AmbisegError(
            f"{where}: weights are {runs} numbers of 0 or more, not all 0, received {list(weights)}"
        )
    return tuple(weight / total for weight in weights)


class MixtureFit:
    """Sums over images of what the best weights depend on.

    Args:
        runs: how many are mixed.
    """

    def __init__(self, runs: int) -> None:
        self.gram, self.moment = torch.zeros(runs, runs).double(), torch.zeros(runs).double()
        self.among_annotations, self.images = 0.0, 0

    def add(self, predictions: Sequence[MaskSet], annotations: MaskSet) -> None:
        """Take one image: what each run predicts of it, and its annotations."""
        sets = [prediction.hard() for prediction in predictions]
        for r, one in enumerate(sets):
            for s, other in enumerate(sets[: r + 1]):
                self.gram[r, s] += (value := likeness(one, other))
                if s < r:
                    self.gram[s, r] += value
            self.moment[r] += likeness(one, annotations)
        self.among_annotations += likeness(annotations, annotations)
        self.images += 1

    def weights(self) -> tuple[float, ...]:
        """Weights of the runs with the least mean GED; small ones are 0.

        Raises:
            AmbisegError: no image.
        """
        if not self.images:
            raise AmbisegError(
                "weights of a mixture are fitted on annotated images: name a split that holds some"
            )
        there = torch.ones(1, len(self.moment), dtype=torch.bool)
        found = least_squares_on_simplex(
            self.gram[None] / self.images, self.moment[None] / self.images, there
        )
        fitted = found.weights[0].masked_fill(found.weights[0] < LEAST_WEIGHT, 0)
        return tuple((fitted / fitted.sum()).tolist())

    def ged(self, weights: Sequence[float]) -> float:
        """Mean squared GED of a mixture."""
        a = torch.tensor(list(weights), dtype=torch.float64)
        return float(a @ self.gram @ a - 2 * a @ self.moment + self.among_annotations) / max(1, self.images)


def likeness(one: MaskSet, other: MaskSet) -> float:
    """Expected IoU of a mask of each of two sets of one image."""
    iou = pairwise_overlap(one.masks, other.masks, one.labels).iou().double()[0]
    value: Tensor = one.weights[0].double() @ iou @ other.weights[0].double()
    return float(value)
