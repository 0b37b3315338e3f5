"""Conditioned stochastic segmentation networks: a joint normal distribution of all logits for each label style.

Zepf, Petersen, Frellsen and Feragen (2023), "That label's got style: handling label style bias for uncertain image
segmentation"; the distribution is that of `ambiseg.methods.ssn.model`. Image x, label map y, style s as a one-hot
vector e_s, features f of the network, F of them at each pixel.

    h(x, s) = W [f(x); V e_s],    V and W 1x1 convolutions to F channels                          (1)
    p(eta | x, s) = N(mu(h), D(h) + P(h) P(h)^T)                                                  (2)
    L = - log p(y | x, s),    by S draws of eta                                                   (3)

The heads mu, d and P are those of the SSN, on h in place of f. Nothing stands between V, W and the heads that is not
linear, as in the public code: a style adds one vector to the features of all pixels. The network runs once per image
for all styles. Masks of an unknown annotator count by ``- log sum_s p(s) p(y | x, s)`` in place of (3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ambiseg.distributions.monte_carlo import expected_nats
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.c_ssn import ConditionedSSNSettings
from ambiseg.methods.label_styles import Allotment, StyledSegmenter, check_styles
from ambiseg.methods.ssn.model import SSN
from ambiseg.networks.settings import UNetSettings


class ConditionedSSN(StyledSegmenter, SSN):
    """An SSN conditioned on label styles (Zepf et al. 2023).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: size of the shared network.
        settings: those of the SSN, and the styles.

    Raises:
        AmbisegError: settings out of their range.

    Example:
        >>> settings = ConditionedSSNSettings(rank=4, annotators=("anna", "ben"))
        >>> model = ConditionedSSN(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), settings)
        >>> model.predict(torch.zeros(1, 3, 17, 23), samples=4).annotators
        tensor([[0, 0, 1, 1]])
        >>> model.of_annotator("ben").predict(torch.zeros(1, 3, 17, 23), samples=4).annotators
        tensor([[1, 1, 1, 1]])
    """

    settings: ConditionedSSNSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: ConditionedSSNSettings
    ) -> None:
        check_styles(settings)
        super().__init__(in_channels, labels, backbone, settings)
        features = self.g.out_channels
        self.style = nn.Conv2d(len(self.names), features, 1)
        self.join = nn.Conv2d(2 * features, features, 1)

    def styled(self, features: Tensor, styles: Tensor) -> Tensor:
        """``h`` of features ``(P, F, H, W)`` and styles ``(P,)``, same shape (1)."""
        vectors: Tensor = self.style(self.one_hot(styles, features)[..., None, None])
        joined: Tensor = self.join(torch.cat([features, vectors.to(features.dtype).expand_as(features)], 1))
        return joined

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Negative Monte-Carlo log-likelihood in nats per pixel, of each mask under the style of its annotator; the mean
        over annotations by their probability."""
        self._check_rank(images)
        given = self.styles_given(annotations)
        wanted = (given * annotations.weights[..., None] > 0).any(1)
        image, style = torch.nonzero(wanted, as_tuple=True)
        distribution = self._normal(self.styled(self.g(images)[image], style))
        nats = self._training_nats(distribution, annotations.masks[image])
        of_styles = nats.new_zeros(*wanted.shape, nats.shape[1]).index_put((image, style), nats)
        nats = -(given.mT.log() - of_styles).logsumexp(1)
        return {"loss": expected_nats(nats, annotations).mean()}

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of every style, by weight as often as in training, or of the chosen one; the network runs once."""
        self._check_rank(images)
        features, allotment = (
            self.g(images),
            Allotment.of(self.shares, samples or self.settings.samples, generator),
        )
        parts = []
        for style, count in allotment.counts.items():
            styles = torch.full((images.shape[0],), style, device=images.device)
            normal = self._normal(self.styled(features, styles))
            parts.append(self._sampled(normal, count, images.shape[2:], generator))
        return self.sampled_set(torch.cat(parts, 1), allotment)

    @torch.no_grad()
    def log_prob(self, images: Tensor, masks: Tensor) -> Tensor:
        """``log sum_s p(s) p(y | x, s)`` in nats of the whole label map, or ``log p(y | x, s)`` of the chosen style; a
        Monte-Carlo estimate, see `SSN.log_prob`.

        Args:
            images: ``(B, C, H, W)``.
            masks: label maps ``(B, H, W)``.

        Returns:
            ``(B,)`` float32.
        """
        self._check_rank(images)
        features, terms = self.g(images), []
        for style, share in enumerate(self.shares):
            if share > 0:
                styles = torch.full((images.shape[0],), style, device=images.device)
                normal = self._normal(self.styled(features, styles))
                terms.append(torch.tensor(share).log() + self._log_prob(normal, masks))
        return torch.stack(terms).logsumexp(0)
