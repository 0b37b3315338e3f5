"""The energy score of all proposals with their probabilities (not in the paper)."""

from __future__ import annotations

import torch
from torch import Tensor

from ambiseg.losses.energy_score import trained_score
from ambiseg.maskset import MaskSet
from ambiseg.methods.mode_proposals import EnergySettings


def energy_loss(
    masks: Tensor, annotations: MaskSet, probability: Tensor | None, settings: EnergySettings
) -> Tensor:
    """The mean energy score; without a probability head all proposals are equally probable.

    Masks learn at the probabilities (1 - u) p + u / M, u being ``uniform_share``. With u = 1 they become the best
    equally weighted masks (support points; Mak and Joseph 2018).

    Args:
        masks: probabilities of pixels, ``(B, M, C, H, W)``.
        annotations: the masks of each image with their probabilities.
        probability: logits ``(B, M)``, or None.
        settings: kernel, uniform share, and what is trained.

    Returns:
        A scalar.
    """
    if probability is None:
        probability = torch.zeros_like(masks[:, :, 0, 0, 0])
    weights = probability.float().softmax(1)
    count = settings.reserved_proposals or masks.shape[1]
    trained = torch.cat([masks[:, :-count].detach(), masks[:, -count:]], 1)
    shares = weights.detach() * (1 - settings.uniform_share)
    shares[:, -count:] += settings.uniform_share / count
    score = trained_score(
        trained.detach() if settings.trains == "probabilities" else trained,
        weights.detach() if settings.trains == "masks" else weights,
        shares,
        annotations,
        kernel=settings.kernel,
    )
    return score.mean()
