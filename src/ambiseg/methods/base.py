"""`Segmenter`: what every method is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.networks.base import Backbone
from ambiseg.networks.settings import UNetSettings


class Segmenter(nn.Module, ABC):
    """A method of ambiguous segmentation: a plain module with a loss and a prediction, free of any training
    framework.

    Every method is built with the same arguments and offers the same methods; `ambiseg.build` fills in the
    default settings. Full or single labels is a property
    of the annotations that `loss` receives (all masks of an image, or one), not of the class.

    Args:
        in_channels: channels of the images.
        labels: what the integers of the masks mean.
        backbone: size of the shared network.
        settings: the method's own settings (the dataclass in its spec).

    Attributes:
        progress: share of the training that is done, 0 to 1; the trainer sets it, schedules inside a method
            read it.
        passes_for_each_mask: whether every mask takes a pass of its own through the whole network, in parts of
            `ambiseg.memory_budget.network_parts`; the estimate of memory asks for it.
    """

    passes_for_each_mask = False

    def __init__(self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: Any) -> None:
        super().__init__()
        self.in_channels, self.labels, self.backbone, self.settings = in_channels, labels, backbone, settings
        self.progress = 0.0

    @abstractmethod
    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Named scalars for a batch, the total to minimise under ``"loss"``.

        Args:
            images: ``(B, C, H, W)`` normalised.
            annotations: distinct masks with their probabilities (full labels, K >= 2, padded where need be),
                or one mask per image (single labels, K = 1).
        """

    @abstractmethod
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Plausible masks of each image with probabilities.

        Args:
            images: ``(B, C, H, W)`` normalised, any size.
            samples: how many masks; None for the method's own number.
            generator: source of randomness of sampling methods; deterministic methods ignore it.
        """

    @property
    def full_labels_reject_copies(self) -> bool:
        """Whether full labels teach the scores to reject copies: two well-scored masks that are nearly alike
        are two modes."""
        return False

    @property
    def needs_init(self) -> str:
        """The setting for which its training must start from the weights of another run, and why, such as
        "prior_share=0 trains no prior"; empty where it need not."""
        return ""

    @property
    def rate_factors(self) -> Mapping[str, float]:
        """Factors of the learning rate by the beginnings of parameters' names, for parts that learn at a rate of
        their own; none by default."""
        return {}

    @property
    def export_obstacle(self) -> str:
        """Why the model cannot be exported as a graph (`ambiseg.exporting`), as the end of a sentence; empty where it
        can. Every random number of ``predict`` must then come from `ambiseg.distributions.noise.standard_normal`."""
        return ""

    def start_from(self, other: Segmenter) -> None:
        """Take over the weights of another trained model, as far as the method can use them.

        Raises:
            AmbisegError: a model of another method that this one cannot start from.
        """
        if type(other) is not type(self):
            raise AmbisegError(
                f"{type(self).__name__} cannot start from the weights of {type(other).__name__}: give a run that it can"
            )
        self.load_state_dict(other.state_dict())

    def freeze(self, part: str) -> None:
        """Keep a part of the network as it is: "nothing", "encoder", or "all-but-last" (all but the heads).

        Raises:
            AmbisegError: the method has no backbone ``g``, or the backbone names no encoder.
        """
        if part == "nothing":
            return
        network = getattr(self, "g", None)
        if not isinstance(network, Backbone):
            raise AmbisegError(f"{type(self).__name__} has no encoder to freeze: leave train.freeze out")
        for module in network.encoder_parts() if part == "encoder" else [network]:
            module.requires_grad_(False)
        self.train(self.training)

    def checkpoint_activations(self, yes: bool = True) -> None:
        """Whether the backward pass computes the inside of the blocks of its networks again, so that less is kept.

        Encoders and networks of other packages keep theirs.
        """
        for network in self.modules():
            if isinstance(network, Backbone):
                network.checkpointing = yes

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all layers; batch normalisation whose weights are frozen keeps its running statistics."""
        super().train(mode)
        for layer in self.modules():
            if isinstance(layer, _BatchNorm) and layer.affine and not layer.weight.requires_grad:
                layer.training = False
        return self

    def by_expert(self) -> ByExpert | None:
        """A model of the same weights whose samples come expert by expert; None where masks do not come from
        experts."""
        return None

    @property
    def annotators(self) -> tuple[str, ...]:
        """Names of the annotators whose styles it tells apart; places in them are `MaskSet.annotators`."""
        return ()

    def of_annotator(self, name: str) -> Segmenter:
        """A model of the same weights whose masks have the style of one annotator.

        Raises:
            AmbisegError: the method has one distribution for all annotators, or knows none of that name.
        """
        raise AmbisegError(
            f"{type(self).__name__} does not tell annotators apart, received {name!r}: leave the annotator out, or train"
            " c-ssn or c-probabilistic-unet"
        )

    def log_prob(self, images: Tensor, masks: Tensor) -> Tensor:
        """Log-likelihood in nats of label maps ``(B, *S)``, ``(B,)``, where the method has one.

        Raises:
            NotImplementedError: the method has no likelihood.
        """
        raise NotImplementedError(f"{type(self).__name__} has no likelihood")


@dataclass(frozen=True, eq=False)
class ByExpert:
    """A model whose n samples for each expert come one expert after the other, see `Segmenter.by_expert`.

    Attributes:
        model: asked for n times `experts` samples.
        experts: how many there are.
        stochastic: whether samples of one expert differ.
    """

    model: Segmenter
    experts: int
    stochastic: bool
