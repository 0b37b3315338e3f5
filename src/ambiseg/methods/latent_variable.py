"""What methods with latent variables share: a conditional variational autoencoder of masks.

Sohn, Lee and Yan (2015), "Learning structured output representation using deep conditional generative models".
For image X, mask Y and latents z, of any shape and on any number of levels:

    z ~ P(z|X),    Y ~ P(Y|X, z)                                        samples
    log p(Y|X)  >=  E_{z ~ Q(z|X, Y)}[log P(Y|X, z)] - KL(Q || P)       the loss (`ambiseg.losses.evidence`)
    log p(Y|X)  >=  log 1/K sum_k P(Y|X, z_k) P(z_k|X) / Q(z_k|X, Y)    the likelihood, in expectation

A method says what all samples of an image share, how masks are drawn from the prior, and how the posterior explains a
mask. Of several annotations of an image one is drawn by its probability each time it is seen.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.evidence import Geco, evidence_loss
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.mode_probabilities.velocity_decomposition import assignment_counts
from ambiseg.networks.settings import UNetSettings
from ambiseg.overlap import pairwise_overlap


class LatentVariableSettings(Protocol):
    """The settings that `LatentVariableSegmenter` reads; what they mean says `ProbabilisticUNetSettings`."""

    @property
    def samples(self) -> int: ...
    @property
    def likelihood_samples(self) -> int: ...
    @property
    def beta(self) -> float: ...
    @property
    def kl_warmup(self) -> float: ...
    @property
    def free_bits(self) -> float: ...


class LatentVariableSegmenter(Segmenter):
    """A conditional variational autoencoder of masks. A method of this kind defines `encode`, `drawn`, `explained` and
    `weighed`; where its loss is not `evidence_loss` with the plain cross-entropy, `loss` too.

    Attributes:
        geco: the multiplier of a constraint on the cross-entropy, where the loss has one.
        part_weights: of the parts of the divergence ``(L,)``, where they differ.
    """

    settings: LatentVariableSettings

    def __init__(self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: Any) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        self.geco: Geco | None = None
        self.part_weights: tuple[float, ...] | None = None

    @abstractmethod
    def encode(self, images: Tensor) -> Any:
        """What all samples of images share; computed once, whatever the number of samples."""

    @abstractmethod
    def drawn(self, shared: Any, samples: int, generator: torch.Generator | None) -> Iterator[Tensor]:
        """Logits of samples of the prior, a few of them at a time: ``(B, k, C, H, W)`` float32 each, ``samples`` in all.

        All random numbers come from `ambiseg.distributions.noise.standard_normal`, and do not depend on the parts.
        """

    @abstractmethod
    def explained(
        self, shared: Any, images: Tensor, masks: Tensor, mean: bool = False
    ) -> tuple[Tensor, Tensor]:
        """What the posterior makes of label maps ``(B, H, W)``: logits ``(B, C, H, W)`` of one sample of its latents (of
        their mean if ``mean``), and the divergence KL(Q || P) in nats, ``(B, L)`` in parts that may have free bits of
        their own."""

    @abstractmethod
    def weighed(
        self, shared: Any, images: Tensor, masks: Tensor, samples: int, generator: torch.Generator | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits ``(B, k, C, H, W)`` of samples of the posterior, a few at a time, and ``log P(z|X) - log Q(z|X, Y)`` of
        each in nats, ``(B, k)``."""

    # -- training --------------------------------------------------------------------------------------------

    @property
    def beta(self) -> float:
        """Weight of the KL at this point of the training: it rises from 0 over the share ``kl_warmup``."""
        rise = self.settings.kl_warmup
        return self.settings.beta * (min(1.0, self.progress / rise) if rise > 0 else 1.0)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """The evidence bound in nats per pixel that is not void; its parts in nats per image (`evidence_loss`)."""
        masks = annotations.sample_one().masks[:, 0]
        logits, divergence = self.explained(self.encode(images), images, masks)
        with torch.autocast(images.device.type, enabled=False):
            nats, counted = self.misfit(logits, masks)
            return self.bound(nats, divergence, masks, counted)

    def misfit(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the loss counts of the cross-entropy, in nats of each image ``(B,)``, and over how many pixels each ``(B,)``;
        None: all that are not void."""
        return cross_entropy(logits, masks, self.labels), None

    def bound(
        self, nats: Tensor, divergence: Tensor, masks: Tensor, counted: Tensor | None = None
    ) -> dict[str, Tensor]:
        """`evidence_loss` with the weights of the settings: of nats ``(B,)`` over ``counted`` pixels, and divergences
        ``(B, L)``, of label maps."""
        pixels = self.labels.valid(masks).flatten(1).sum(1)
        s = self.settings
        return evidence_loss(
            nats, divergence, pixels, self.beta, s.free_bits, self.geco, self.part_weights, counted
        )

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of equal weight; ``settings.samples`` of them unless asked otherwise."""
        logits = self.drawn(self.encode(images), samples or self.settings.samples, generator)
        parts = [self.labels.probabilities(part, dim=2) for part in logits]
        return MaskSet.from_probabilities(torch.cat(parts, 1), self.labels)

    @torch.no_grad()
    def mode_probabilities(
        self,
        images: Tensor,
        modes: MaskSet,
        samples: int = 1000,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Probability of given modes: the share of the samples that are nearest to each
        (`assignment_counts`).

        Args:
            images: ``(B, C, H, W)`` normalised.
            modes: ``(B, M, H, W)``; weight 0 marks those that are not there.
            samples: how many to draw; they are not kept.
            generator: source of randomness.

        Returns:
            ``(B, M)`` float64, sum 1.

        Raises:
            AmbisegError: no samples, or modes of another number or size than the images.

        Example:
            >>> from ambiseg import LabelSpace, build
            >>> model = build("probabilistic-unet", 3, backbone={"width": 8, "depth": 2})
            >>> modes = MaskSet.uniform(torch.zeros(1, 1, 6, 6, dtype=torch.uint8), LabelSpace.binary())
            >>> model.mode_probabilities(torch.zeros(1, 3, 6, 6), modes, samples=10)
            tensor([[1.]], dtype=torch.float64)
        """
        check_count("samples", samples)
        counts = []
        for logits in self.drawn(self.encode(images), samples, generator):
            masks = self.labels.decide(self.labels.probabilities(logits, dim=2), dim=2)
            found = assignment_counts(MaskSet.uniform(masks, self.labels), modes)
            counts.append(found * (masks.shape[1] / samples))
        return torch.stack(counts).sum(0)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, masks: Tensor) -> MaskSet:
        """What the posterior's mean decodes to, one mask per image: how much of label maps ``(B, H, W)``
        passes the latent."""
        logits, _ = self.explained(self.encode(images), images, masks, mean=True)
        return MaskSet.from_probabilities(self.labels.probabilities(logits)[:, None], self.labels)

    @torch.no_grad()
    def reconstruction_iou(self, images: Tensor, annotations: MaskSet) -> Tensor:
        """Mean IoU of each annotation and its `reconstruct`, by the weights of the annotations, ``(B,)`` in [0, 1]: how much
        of masks the latents can express (Kohl et al. 2019; two empty masks count 1).

        Example:
            >>> from ambiseg import LabelSpace, build
            >>> model = build("probabilistic-unet", 3, backbone={"width": 8, "depth": 2})
            >>> masks = MaskSet.uniform(torch.zeros(2, 4, 6, 6, dtype=torch.uint8), LabelSpace.binary())
            >>> model.reconstruction_iou(torch.zeros(2, 3, 6, 6), masks).shape
            torch.Size([2])
        """
        shared, found = self.encode(images), []
        for masks in annotations.masks.unbind(1):
            logits, _ = self.explained(shared, images, masks, mean=True)
            made = self.labels.decide(self.labels.probabilities(logits))[:, None]
            found.append(pairwise_overlap(made, masks[:, None], annotations.labels).iou()[:, 0, 0])
        return (torch.stack(found, 1) * annotations.weights).sum(1)

    # -- likelihood ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def log_prob(
        self,
        images: Tensor,
        masks: Tensor,
        samples: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Lower bound of the log-likelihood in nats of label maps ``(B, H, W)``, ``(B,)``, by importance
        sampling.

            log 1/K sum_k P(Y|X, z_k) P(z_k|X) / Q(z_k|X, Y),    z_k ~ Q(.|X, Y)

        Its expectation rises with K to ``log p(Y|X)`` (Burda, Grosse and Salakhutdinov 2016); for K = 1 it is the
        evidence bound. Void pixels do not count.

        Args:
            images: ``(B, C, H, W)`` normalised.
            masks: label maps ``(B, H, W)``.
            samples: K; ``settings.likelihood_samples`` unless given.
            generator: source of randomness.

        Raises:
            AmbisegError: no samples.
        """
        count = self.settings.likelihood_samples if samples is None else samples
        check_count("samples", count)
        weights = []
        for logits, ratio in self.weighed(self.encode(images), images, masks, count, generator):
            repeated = masks.repeat_interleave(logits.shape[1], 0)
            nats = cross_entropy(logits.flatten(0, 1), repeated, self.labels)
            weights.append(ratio - nats.view(logits.shape[:2]))
        bound: Tensor = torch.cat(weights, 1).logsumexp(1) - math.log(count)
        return bound


def check_count(name: str, value: int) -> None:
    """Raise `AmbisegError` unless a setting is 1 or more."""
    if value < 1:
        raise AmbisegError(f"{name} is 1 or more, received {value}")


def check_weights(settings: LatentVariableSettings) -> None:
    """Raise `AmbisegError` where a setting that these methods share is out of its range."""
    for name in ("samples", "likelihood_samples"):
        check_count(name, getattr(settings, name))
    for name in ("beta", "free_bits"):
        if not getattr(settings, name) >= 0:
            raise AmbisegError(f"{name} is 0 or more, received {getattr(settings, name)}")
    if not 0 <= settings.kl_warmup <= 1:
        raise AmbisegError(f"kl_warmup is a share of the training, 0 to 1, received {settings.kl_warmup}")
