"""U-Net ensemble: several independent U-Nets, one mask from each.

Lakshminarayanan, Pritzel and Blundell (2017), "Simple and scalable predictive uncertainty estimation using
deep ensembles", as the baseline of Kohl et al. (2018), "A probabilistic U-Net for segmentation of ambiguous
images", section 3.2. Notation: image x, M U-Nets ``f_m`` with weights ``theta_m``, annotations ``y_i`` with
probabilities ``p_i``.

    y^(m) ~ p,  m = 1..M                                          every member draws an annotation of its own
    L = 1/M sum_m - log P_c(y^(m) | f_m(x; theta_m))              cross-entropy, per pixel
    p(y | x) = 1/M sum_m [y = argmax_c P_c(. | f_m(x; theta_m))]

The members share neither weights nor gradients. They are trained side by side in one run, which resumes as
one. With M = 1 it is the plain, deterministic U-Net.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.by_parts import losses_by_parts
from ambiseg.losses.mask_losses import cross_entropy_per_pixel
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.unet_ensemble import UNetEnsembleSettings
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.settings import UNetSettings


class UNetEnsemble(Segmenter):
    """Independent U-Nets, each of which gives one mask (Lakshminarayanan et al. 2017; Kohl et al. 2018,
    section 3.2).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of every member.
        settings: number of members.

    Raises:
        AmbisegError: no member.

    Example:
        >>> model = UNetEnsemble(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), UNetEnsembleSettings(members=3))
        >>> model.predict(torch.zeros(2, 3, 17, 23)).masks.shape
        torch.Size([2, 3, 17, 23])
    """

    settings: UNetEnsembleSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: UNetEnsembleSettings
    ) -> None:
        if settings.members < 1:
            raise AmbisegError(f"an ensemble has at least one member, received {settings.members}")
        super().__init__(in_channels, labels, backbone, settings)
        self.members = nn.ModuleList(
            _Member(in_channels, labels, self.backbone, settings) for _ in range(settings.members)
        )

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Mean over the members of the cross-entropy in nats per pixel, each with a draw of the annotations
        of its own, computed one after the other."""

        def part(member: _Member) -> dict[str, Tensor]:
            return {"loss": member.loss(images, annotations)["loss"] / len(self.members)}

        parts = [partial(part, member) for member in self._members()]
        return losses_by_parts(parts, self.parameters(), images)

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """One mask of each member, of equal weight; the first ``samples`` of them where fewer are asked
        for."""
        sets = [member.predict(images) for member in self._members()[: samples or None]]
        probabilities = [s.probabilities for s in sets if s.probabilities is not None]
        return MaskSet.from_probabilities(torch.cat(probabilities, 1), self.labels)

    def freeze(self, part: str) -> None:
        """Freeze that part of every member."""
        for member in self._members():
            member.freeze(part)

    def _members(self) -> list[_Member]:
        return [member for member in self.members if isinstance(member, _Member)]


class _Member(Segmenter):
    """A plain U-Net: the mask in which every pixel has its most probable class."""

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: UNetEnsembleSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        self.g = build_backbone(in_channels, backbone)
        self.h = nn.Conv2d(self.g.out_channels, labels.channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, C, H, W)``."""
        logits: Tensor = self.h(self.g(images))
        return logits

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        y = annotations.sample_one().masks[:, 0]
        return {"loss": cross_entropy_per_pixel(self(images), y, self.labels).mean()}

    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        return MaskSet.from_probabilities(self.labels.probabilities(self(images))[:, None], self.labels)
