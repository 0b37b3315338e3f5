"""Selection of proposals: the head that scores all of them at once, and the risk that trains it with single
labels.

Gerard and Sullivan, sections 3.1 and 3.1.2, equations (4), (7) and (9-11).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.labels import LabelSpace
from ambiseg.methods.mode_proposals import SelectionSettings
from ambiseg.networks.discriminator import Discriminator
from ambiseg.overlap import pairwise_overlap

SMALLEST_DIFFERENCE = 0.01
"""Masks that differ by less than about this in IoU look the same to the head (epsilon of `_closeness`)."""
LARGEST_WEIGHT = 10.0
"""Bound of the inverse-propensity weight of a winner."""


class SelectionHead(nn.Module):
    """``sel(g(x), m)``: numbers for every proposal from features, all masks and, by default, the image (4).

    Its loss changes neither network nor masks unless ``settings.reaches_network``.

    Args:
        features, in_channels: channels of the features and of the image.
        labels: the label space.
        proposals: number of proposals M.
        heads: numbers for each proposal.
        settings: width and cues.
    """

    def __init__(
        self,
        features: int,
        in_channels: int,
        labels: LabelSpace,
        proposals: int,
        heads: int,
        settings: SelectionSettings,
    ) -> None:
        super().__init__()
        self.labels, self.image_cue, self.reaches_network = (
            labels,
            settings.image_cue,
            settings.reaches_network,
        )
        channels = features + proposals * labels.channels + (in_channels if settings.image_cue else 0)
        self.sel = Discriminator(channels, settings.head_width, heads * proposals)
        cue = settings.duplicate_cue and proposals > 1
        self.duplicates = _DuplicateLayer(proposals, heads * proposals) if cue else None

    def forward(self, features: Tensor, masks: Tensor, images: Tensor) -> Tensor:
        """Features ``(B, F, H, W)``, mask probabilities ``(B, M, C, H, W)``, images: to ``(B, heads M)``
        float32."""
        if not self.reaches_network:
            features, masks = features.detach(), masks.detach()
        inputs = [features, masks.flatten(1, 2), *([images] if self.image_cue else [])]
        output: Tensor = self.sel(torch.cat([part.to(features.dtype) for part in inputs], 1)).float()
        return output if self.duplicates is None else output + self.duplicates(self._closeness(masks))

    @torch.no_grad()
    def _closeness(self, masks: Tensor) -> Tensor:
        """How alike every two decided proposals are, ``log(1 - IoU + eps) / log eps`` in about [0, 1], ``(B,
        M, M)``."""
        decided = self.labels.decide(masks, dim=2)
        iou = pairwise_overlap(decided, decided, self.labels).iou()
        return (1 - iou + SMALLEST_DIFFERENCE).log() / math.log(SMALLEST_DIFFERENCE)


def positive_unlabelled_risk(
    scores: Tensor, won: Tensor, settings: SelectionSettings, propensities: Tensor | None = None
) -> Tensor:
    """Non-negative positive-unlabelled risk of scores (9-11; Kiryo et al. 2017).

        L_PU = pi R_p(+) + max(0, R_u(-) - pi R_p(-))

    ``R_p(+/-)`` is the mean BCE of the winners against 1 / 0, ``R_u(-)`` that of all others against 0. This
    assumes that winners are a uniform draw of all ``pi M`` positives, which they are not where modes differ
    in probability. With propensities e they are weighted by ``1 / (e pi M)``, the unbiased mean over positives
    (Bekker, Robberechts and Davis 2019), up to LARGEST_WEIGHT (Ionides 2008).

    Args:
        scores: logits ``(B, M)``.
        won: 1 for the winner of each image, else 0, ``(B, M)``.
        settings: expected modes ``pi M``, and what happens where the negative risk falls below 0.
        propensities: ``(B, 1)`` or None.

    Returns:
        A scalar.
    """
    proposals = scores.shape[1]
    modes = proposals / 2 if settings.expected_modes is None else min(settings.expected_modes, proposals)
    pi = modes / proposals
    as_positive, as_negative = functional.softplus(-scores), functional.softplus(scores)
    weight = won / won.sum()
    if propensities is not None:
        weight = weight * (1 / (propensities * modes)).clamp(max=LARGEST_WEIGHT)
    positive_risk = pi * (weight * as_positive).sum()
    unlabelled = ((1 - won) * as_negative).sum() / (1 - won).sum().clamp(min=1)
    negative_risk = unlabelled - pi * (weight * as_negative).sum()
    if settings.gradient == "kiryo":
        return torch.where(negative_risk < 0, -negative_risk, positive_risk + negative_risk)
    return positive_risk + negative_risk.clamp(min=0)


class _DuplicateLayer(nn.Module):
    """Two layers from the closeness of all pairs of proposals ``(B, M, M)`` to ``outputs`` numbers per image,
    so that the head can keep one of near-duplicates."""

    def __init__(self, proposals: int, outputs: int, width: int = 128) -> None:
        super().__init__()
        self.rows, self.columns = torch.triu_indices(proposals, proposals, 1).unbind(0)
        self.hidden = nn.Linear(len(self.rows), width)
        self.out = nn.Linear(width, outputs)

    def forward(self, closeness: Tensor) -> Tensor:
        pairs = closeness[:, self.rows, self.columns]
        out: Tensor = self.out(functional.leaky_relu(self.hidden(pairs), 0.2)).float()
        return out
