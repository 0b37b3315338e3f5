"""M-heads: M masks from one U-Net, trained so that the best of them explains each annotation.

Rupprecht, Laina, DiPietro, Baust, Tombari, Navab and Hager (2017), "Learning in an uncertain world:
representing ambiguity through multiple hypotheses", as the baseline of Kohl et al. (2018), "A probabilistic
U-Net for segmentation of ambiguous images", section 3.2. Notation: image x, mask y, U-Net features g(x),
heads ``h_m``.

    z_m = h_m(g(x)),  m = 1..M
    l_m = - log P_c(y | z_m)                                      cross-entropy, per pixel
    L(y, x) = (1 - epsilon) l_m* + epsilon / (M - 1) sum_{m != m*} l_m,    m* = argmin_m l_m

The small weight of the others keeps all heads learning. With M = 1 the loss is ``l_1``. Of several
annotations of an image one is drawn by its probability each time it is seen. The heads are 1x1 convolutions
on the last features, each initialised on its own: heads that started as equals and never won would stay
equal. How often a head wins is not learnt: all are equally probable.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy_per_pixel
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.m_heads import MHeadsSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings


class MHeads(Segmenter):
    """M heads on one U-Net with the relaxed oracle loss (Rupprecht et al. 2017; Kohl et al. 2018, section
    3.2).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the U-Net g.
        settings: number of heads and epsilon.

    Raises:
        AmbisegError: no head, or an epsilon outside [0, 1].

    Example:
        >>> model = MHeads(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), MHeadsSettings(heads=4))
        >>> model.predict(torch.zeros(2, 3, 17, 23)).masks.shape
        torch.Size([2, 4, 17, 23])
    """

    settings: MHeadsSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: MHeadsSettings
    ) -> None:
        if settings.heads < 1:
            raise AmbisegError(f"there is at least one head, received {settings.heads}")
        if not 0 <= settings.relaxation <= 1:
            raise AmbisegError(f"relaxation is a weight from 0 to 1, received {settings.relaxation}")
        super().__init__(in_channels, labels, backbone, settings)
        self.g = build_backbone(in_channels, self.backbone)
        self.h = nn.Conv2d(self.g.out_channels, settings.heads * labels.channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of every head ``(B, M, C, H, W)``."""
        logits: Tensor = self.h(self.g(images))
        return logits.reshape(images.shape[0], self.settings.heads, self.labels.channels, *images.shape[2:])

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Oracle loss of the heads in nats per pixel that is not void, each mask drawn by its probability."""
        y, logits = annotations.sample_one().masks[:, 0], self(images)
        repeated = y.repeat_interleave(self.settings.heads, 0)
        nats = cross_entropy_per_pixel(logits.flatten(0, 1), repeated, self.labels).view(logits.shape[:2])
        return {"loss": oracle_loss(nats, self.settings.relaxation).mean()}

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """One mask of each head, of equal weight; the first ``samples`` of them where fewer are asked for."""
        logits = self(images)[:, : samples or None]
        return MaskSet.from_probabilities(self.labels.probabilities(logits, dim=2), self.labels)


def oracle_loss(losses: Tensor, relaxation: float) -> Tensor:
    """The loss of the best head with weight 1 - epsilon, those of the others with ``epsilon / (M - 1)`` each.

    epsilon = 0 is winner-takes-all, epsilon = (M - 1) / M the mean of all heads (Rupprecht et al. 2017; Kohl
    et al. 2018, 3.2).

    Args:
        losses: of every head, ``(B, M)``.
        relaxation: epsilon; a single head has weight 1 whatever it is.

    Returns:
        ``(B,)``.

    Example:
        >>> oracle_loss(torch.tensor([[4.0, 1.0, 2.0]]), 0.5)
        tensor([2.])
    """
    count = losses.shape[1]
    if count == 1:
        return losses[:, 0]
    weights = torch.full_like(losses, relaxation / (count - 1))
    weights.scatter_(1, losses.argmin(1, keepdim=True), 1 - relaxation)
    return (weights * losses).sum(1)
