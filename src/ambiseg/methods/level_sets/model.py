"""Level sets of one probability map: a U-Net, and noise that all pixels of a sample share.

Notation: image x, network g, logits ``eta = h(g(x))`` (one channel for binary labels, else one for each class c).

    L = E_y[ cross-entropy(eta, y) ]                                          (1)
    y_k = [eta > e_k],            e_k ~ Logistic(0, 1)      binary            (2)
    y_k = argmax_c eta_c + e_kc,  e_kc ~ Gumbel(0, 1)       several classes   (3)

Each pixel has the right class with the probability that (1) teaches, but a sample is as smooth as the map itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.level_sets import LevelSetsSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings


class LevelSets(Segmenter):
    """Nested masks from one pass of a U-Net."""

    settings: LevelSetsSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: LevelSetsSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        self.g = build_backbone(in_channels, backbone)
        self.h = nn.Conv2d(self.g.out_channels, labels.channels, 1)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Equation (1), the mean over all annotations by their weights."""
        logits, masks = self.h(self.g(images)).float(), annotations.masks
        pairs = [self.labels.cross_entropy(logits, mask).flatten(1).mean(1) for mask in masks.unbind(1)]
        return {"loss": (annotations.weights * torch.stack(pairs, 1)).sum(1).mean()}

    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Equations (2) and (3): samples of equal weight."""
        logits = self.h(self.g(images)).float()[:, None]
        shape = (len(images), samples or self.settings.samples, self.labels.channels, 1, 1)
        device = images.device if generator is None else generator.device
        uniform = (
            torch.rand(shape, generator=generator, device=device).to(images.device).clamp(1e-6, 1 - 1e-6)
        )
        noise = torch.logit(uniform) if self.labels.is_binary else -torch.log(-torch.log(uniform))
        chosen = (logits + noise)[:, :, 0] > 0 if self.labels.is_binary else (logits + noise).argmax(2)
        return MaskSet.uniform(chosen.to(torch.uint8), self.labels)
