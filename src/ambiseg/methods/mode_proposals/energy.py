"""The energy score of all proposals with their probabilities (not in the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

from ambiseg.labels import LabelSpace
from ambiseg.losses.energy_score import trained_score
from ambiseg.maskset import MaskSet
from ambiseg.methods.mode_proposals import EnergySettings


def energy_loss(
    logits: Tensor,
    annotations: MaskSet,
    probability: Tensor | None,
    labels: LabelSpace,
    settings: EnergySettings,
) -> Tensor:
    """The mean energy score; without a probability head all proposals are equally probable.

    Masks learn at the probabilities (1 - floor) p + floor / M. With floor 1 they become the best equally
    weighted masks (support points; Mak and Joseph 2018).

    Args:
        logits: of the masks, ``(B, M, C, H, W)``.
        annotations: the masks of each image with their probabilities.
        probability: logits ``(B, M)``, or None.
        labels: the label space.
        settings: kernel, floor, and what is trained.

    Returns:
        A scalar.
    """
    chance = torch.zeros_like(logits[:, :, 0, 0, 0]) if probability is None else probability
    weights, masks = chance.float().softmax(1), labels.probabilities(logits, dim=2)
    count = settings.proposals or logits.shape[1]
    trained = torch.cat([masks[:, :-count].detach(), masks[:, -count:]], 1)
    shares = weights.detach() * (1 - settings.floor)
    shares[:, -count:] += settings.floor / count
    score = trained_score(
        trained.detach() if settings.trains == "probabilities" else trained,
        weights.detach() if settings.trains == "masks" else weights,
        shares,
        annotations,
        kernel=settings.kernel,
    )
    return score.mean()
