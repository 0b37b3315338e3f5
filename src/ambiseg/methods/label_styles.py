"""What methods that are conditioned on label styles share.

Zepf, Petersen, Frellsen and Feragen (2023), "That label's got style: handling label style bias for uncertain image
segmentation". Image x, label map y, style s: who drew y, or with which tool. A model gives p(y | x, s). With the share
p(s) of each style in the masks of training,

    p(y | x) = sum_s p(s) p(y | x, s)                                                             (1)

is what it says without a style: masks whose annotator is unknown count in training by (1), and samples for all styles
have weights by which each style has its share.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.style_settings import MOST_STYLES, StyleSettings


@dataclass(frozen=True)
class Allotment:
    """How many samples each style gets.

    Attributes:
        styles: style of each sample, in ascending order.
        weights: of each sample, sum 1.
    """

    styles: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def counts(self) -> dict[int, int]:
        """Samples by style, those of no sample left out."""
        return {style: self.styles.count(style) for style in dict.fromkeys(self.styles)}

    @classmethod
    def of(cls, shares: tuple[float, ...], count: int, generator: torch.Generator | None = None) -> Allotment:
        """Samples in proportion to the shares, at least one for each style, whose weights sum to its share.

        Fewer samples than styles are styles drawn at random, by systematic sampling: each is there with its share
        times the number of samples on average, and all weigh alike.

        Example:
            >>> Allotment.of((0.75, 0.25), 4)
            Allotment(styles=(0, 0, 0, 1), weights=(0.25, 0.25, 0.25, 0.25))
            >>> Allotment.of((0.9, 0.1), 2)
            Allotment(styles=(0, 1), weights=(0.9, 0.1))
        """
        there = [style for style, share in enumerate(shares) if share > 0]
        if count < len(there):
            device = None if generator is None else generator.device
            first = float(torch.rand((), generator=generator, device=device))
            styles, total, drawn = [], 0.0, 0
            for style in there:
                total += shares[style]
                while drawn < count and first + drawn < total * count:
                    styles.append(style)
                    drawn += 1
            styles += [there[-1]] * (count - drawn)  # where rounding leaves the sum of the shares below 1
            return cls(tuple(styles), (1 / count,) * count)
        counts = dict.fromkeys(there, 1)
        for _ in range(count - len(there)):  # the style whose samples would weigh most gets the next one
            counts[max(there, key=lambda style: shares[style] / counts[style])] += 1
        pairs = [(style, shares[style] / number) for style, number in counts.items() for _ in range(number)]
        return cls(tuple(style for style, _ in pairs), tuple(weight for _, weight in pairs))


class StyledSegmenter(Segmenter):
    """A method with a distribution of masks for each style; a mixin in front of the method that has one for all.

    Attributes:
        names: of the styles; one without a name where the settings name none.
        shares: p(s) of each style.
        chosen: the style that `predict` and `log_prob` are of; None for all by (1).
    """

    settings: StyleSettings
    chosen: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.settings.annotators or ("",)

    @property
    def annotators(self) -> tuple[str, ...]:
        return self.settings.annotators

    @property
    def shares(self) -> tuple[float, ...]:
        """p(s), with a chosen style 1 for that and 0 for the others."""
        if self.chosen is not None:
            return tuple(float(style == self.chosen) for style in range(len(self.names)))
        return self.settings.shares or (1 / len(self.names),) * len(self.names)

    @property
    def export_obstacle(self) -> str:
        samples, styles = getattr(self.settings, "samples", 1), sum(share > 0 for share in self.shares)
        if samples < styles:
            return f"it draws {samples} of {styles} styles at random (settings: samples)"
        return super().export_obstacle

    def of_annotator(self, name: str) -> Self:
        """The same weights, as a model of one style.

        Raises:
            AmbisegError: training saw no such annotator; the message names the known ones.
        """
        if name not in self.annotators:
            raise UnknownNameError("annotator", name, self.annotators)
        one = copy(self)
        one.chosen = self.names.index(name)
        return one

    def one_hot(self, styles: Tensor, like: Tensor) -> Tensor:
        """Styles ``(P,)`` as vectors ``(P, S)`` in the number type of ``like``."""
        return functional.one_hot(styles, len(self.names)).to(like.dtype)

    def sampled_set(self, probabilities: Tensor, allotment: Allotment) -> MaskSet:
        """Pixel probabilities ``(B, K, C, H, W)`` of samples in the order of an allotment, with weights and styles."""
        device, shape = probabilities.device, probabilities.shape[:2]
        weights = torch.tensor(allotment.weights, device=device).expand(shape)
        styles = torch.tensor(allotment.styles, device=device).expand(shape)
        return replace(
            MaskSet.from_probabilities(probabilities, self.labels, weights.contiguous()),
            annotators=styles.contiguous(),
        )

    def styles_given(self, annotations: MaskSet) -> Tensor:
        """``q(s)`` of each mask ``(B, K, S)``: 1 for its own style; p(s) where that is unknown.

        Raises:
            AmbisegError: a place that is beyond the list of names.
        """
        shares = torch.tensor(self.shares, device=annotations.masks.device)
        places = annotations.annotators
        if places is None:
            return shares.expand(*annotations.masks.shape[:2], -1)
        if bool((places >= len(self.names)).any()):
            raise AmbisegError(
                f"annotators of masks are places in the {len(self.names)} names of the model, received"
                f" {int(places.max())}: give 0 to {len(self.names) - 1}, or -1 where it is unknown"
            )
        own = functional.one_hot(places.clamp(min=0), len(self.names)).float()
        return torch.where((places < 0)[..., None], shares, own)


def check_styles(s: StyleSettings) -> None:
    """Raise `AmbisegError` where names or shares of styles make no sense."""
    if len(set(s.annotators)) != len(s.annotators) or len(s.annotators) > MOST_STYLES:
        raise AmbisegError(
            f"annotators are at most {MOST_STYLES} different names, received {list(s.annotators)!r:.80}"
        )
    fits = len(s.shares) == len(s.annotators) and all(0 <= share <= 1 for share in s.shares)
    if s.shares and not (fits and math.isclose(sum(s.shares), 1, abs_tol=1e-3)):
        raise AmbisegError(
            f"shares are a number from 0 to 1 for each of the {len(s.annotators)} annotators, of sum 1, received"
            f" {list(s.shares)!r:.80}"
        )
