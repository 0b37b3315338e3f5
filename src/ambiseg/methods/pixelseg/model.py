"""PixelSeg: a small mask is drawn pixel after pixel, and a network brings it to full resolution.

Zhang, Zhang, Huang, Lu and Wang (2022), "PixelSeg: pixel-by-pixel stochastic semantic segmentation for ambiguous
medical images". The equations are those of their public code; the notation is ours: image x, label map y, small label
map s, features f of the image at its resolution and f' at that of the image.

    s = down(y):  the most frequent class of r x r pixels, the lowest of several; void where all of them are
    p(s | x) = prod_i p(s_i | s_1, ..., s_i-1, f)    in raster order, by a PixelCNN         (1)
    p(y | s, x) = prod_j p(y_j | s, f')                                                      (2)
    L = - 1/n sum_i w(s_i) log p(s_i | s_<i, f)  -  1/N sum_j log p(y_j | s, f')             (3)

The sums run over pixels that are not void, n is the sum of their weights w and N their number. A U-Net gives f and f',
and runs once per image. A sample draws the pixels of s one after another by (1), then y by (2).

log p(s | x) is exact. The sum over s in ``p(y | x) = sum_s p(s | x) p(y | s, x)`` has too many terms; its term
``s = down(y)`` bounds it from below. With r = 1, y is s, and that is exact too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import part_sizes
from ambiseg.methods.base import Segmenter
from ambiseg.methods.pixelseg import PixelSegSettings
from ambiseg.methods.pixelseg.resolution import FromFeatures, FromLogits, reduced, smoothed
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.pixelcnn import GatedPixelCNN, PlainPixelCNN
from ambiseg.networks.settings import UNetSettings

MOST_REDUCTION = 64
"""Greatest reduction: masks are extended to a multiple of it."""
LEAST = 1e-6
"""Smallest sum of weights by which a loss is divided."""


class PixelSeg(Segmenter):
    """A PixelCNN over small masks, and their way to full resolution (Zhang et al. 2022).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: the U-Net; in the public code ``kind="double", width=32, depth=5, factors=(1, 2, 4, 6)``.
        settings: size of small masks and of the PixelCNN, how samples are made.

    Attributes:
        seen: the label space of the channel form in which the PixelCNN sees small masks.

    Raises:
        AmbisegError: a setting out of its range.

    Example:
        >>> model = PixelSeg(3, LabelSpace.binary(), UNetSettings(width=8, depth=3), PixelSegSettings(width=8))
        >>> model.eval().predict(torch.zeros(2, 3, 17, 23), samples=5).masks.shape
        torch.Size([2, 5, 17, 23])
        >>> bool(model.log_prob(torch.zeros(1, 3, 8, 8), torch.zeros(1, 8, 8)) < 0)
        True
    """

    settings: PixelSegSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: PixelSegSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        _check(settings)
        self.g = build_backbone(in_channels, self.backbone)
        s, plain = settings, settings.network == "plain"
        self.level = min(s.reduction.bit_length() - 1, self.g.depth - 1)
        last = self.g.widths[-1] if self.level == self.g.depth - 1 else self.g.up_widths[self.level]
        features = last if self.level else self.g.out_channels
        self.seen = labels.one_channel
        if labels.is_binary and not plain:
            self.seen = labels.with_binary_channels(2)
        network = PlainPixelCNN if plain else GatedPixelCNN
        self.pixelcnn = network(self.seen.channels, features, labels.channels, s.width, s.layers, s.kernel)
        self.refine: FromFeatures | FromLogits | None = None
        if s.reduction > 1 and s.refinement == "logits":
            self.refine = FromLogits(s.reduction, self.g.out_channels, labels.channels)
        elif s.reduction > 1:
            self.refine = FromFeatures(s.reduction, self.g.out_channels, self.seen.channels, labels.channels)

    @property
    def export_obstacle(self) -> str:
        return "it draws pixels one after another, as many as an image has"

    # -- the networks ----------------------------------------------------------------------------------------

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """f ``(B, F, h, w)`` with ``h = ceil(H / r)``, and f' ``(B, F', H, W)``, of images ``(B, C, H, W)``.

        f is the output of the decoder at that resolution, or the mean over pixels where the U-Net has no such
        resolution.
        """
        encoded, layer = self.g.encode(images), self.g.depth - 1 - self.level
        if not self.level:
            low = full = self.g.decode(encoded)
        else:
            low = self.g.decode(encoded, last=layer)
            full = self.g.decode(encoded, low, layer)
            low = low[..., : _parts(images.shape[2], 2**self.level), : _parts(images.shape[3], 2**self.level)]
        rest = self.settings.reduction // 2**self.level
        return (functional.avg_pool2d(low, rest, ceil_mode=True) if rest > 1 else low), full

    def reduced(self, masks: Tensor) -> Tensor:
        """``down(y)`` ``(N, h, w)`` of label maps ``(N, H, W)``."""
        return reduced(masks, self.settings.reduction, self.labels)

    def _small_logits(self, small: Tensor, features: Tensor) -> Tensor:
        """Logits of (1) for small masks ``(N, h, w)`` and features ``(N, F, h, w)``."""
        logits: Tensor = self.pixelcnn(self.seen.one_hot(small, dim=1), features)
        return logits

    # -- training --------------------------------------------------------------------------------------------

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Equation (3), in nats per pixel; its two terms beside it.

        A model in evaluation mode always takes all annotations.
        """
        one = self.training and self.settings.annotations == "one"
        chosen = annotations.sample_one() if one else annotations
        image, which = chosen.present.nonzero(as_tuple=True)
        masks, shares = chosen.masks[image, which], chosen.weights[image, which]
        low, full = self.features(images)
        small = self.reduced(masks)
        logits = self._small_logits(small, low[image])
        weights = self.labels.valid(small) * shares[:, None, None]
        if self.labels.background is not None:
            weights = torch.where(
                small == self.labels.background, weights, self.settings.foreground_weight * weights
            )
        with torch.autocast(images.device.type, enabled=False):
            nats = self.labels.cross_entropy(logits, small)
            drawn = (nats * weights).sum() / weights.sum().clamp(min=LEAST)
        if self.refine is None:
            return {"loss": drawn}
        fine = self.refine(full, image, self.seen.one_hot(small, dim=1), logits).float()
        with torch.autocast(images.device.type, enabled=False):
            pixels = self.labels.valid(masks).flatten(1).sum(1) * shares
            fine_nats = (cross_entropy(fine, masks, self.labels) * shares).sum()
            refined = fine_nats / pixels.sum().clamp(min=LEAST)
        return {"loss": drawn + refined, "small": drawn.detach(), "refined": refined.detach()}

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Independent samples of equal weight, ``settings.samples`` unless asked otherwise.

        The small masks of all images are drawn side by side, as many as the memory budget holds.
        """
        count, batch = samples or self.settings.samples, images.shape[0]
        low, full = self.features(images)
        drawn = [
            self._drawn(low, part, generator) for part in part_sizes(count, batch * self._values_of(low))
        ]
        small, logits = (torch.cat(parts, 1) for parts in zip(*drawn, strict=True))
        if self.refine is None:
            return self._set_of(small)
        sizes, found = part_sizes(count, 2 * full.numel()), []
        for masks, scores in zip(torch.split(small, sizes, 1), torch.split(logits, sizes, 1), strict=True):
            image = torch.arange(batch, device=images.device).repeat_interleave(masks.shape[1])
            seen = self.seen.one_hot(masks.flatten(0, 1), dim=1)
            fine = self.refine(full, image, seen, scores.flatten(0, 1))
            found.append(self.labels.probabilities(fine).view(*masks.shape[:2], *fine.shape[1:]))
        chances = torch.cat(found, 1)
        if self.settings.decision == "sample":
            shape = (batch, count, *images.shape[2:])
            return self._set_of(self._chosen(chances, _uniform(shape, images.device, generator), dim=2))
        if self.settings.smoothing:
            return self._set_of(self.labels.decide(chances, dim=2))
        return MaskSet.from_probabilities(chances, self.labels)

    def _set_of(self, masks: Tensor) -> MaskSet:
        """Masks of equal weight, smoothed where the settings say so."""
        return MaskSet.uniform(
            smoothed(masks, self.labels) if self.settings.smoothing else masks, self.labels
        )

    def _values_of(self, features: Tensor) -> int:
        """About how many numbers one sample holds while it is drawn, of features ``(B, F, h, w)``."""
        s = self.settings
        channels, pixels = 2 * features.shape[1] + self.seen.channels, features[0, 0].numel()
        return channels * pixels + s.layers * s.width * (s.kernel + 3) * features.shape[3]

    def _drawn(
        self, features: Tensor, count: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Small masks ``(B, count, h, w)`` by (1), and their logits ``(B, count, C, h, w)``."""
        shape = (features.shape[0], count, *features.shape[2:])
        noise = _uniform(shape, features.device, generator).flatten(0, 1)
        small = torch.zeros(noise.shape, dtype=torch.uint8, device=features.device)

        def choose(logits: Tensor, row: int, column: int) -> Tensor:
            chances = self.labels.probabilities(logits)
            small[:, row, column] = self._chosen(chances, noise[:, row, column], dim=1)
            return self.seen.one_hot(small[:, row, column], dim=1)

        _, logits = self.pixelcnn.sample(features.repeat_interleave(count, 0), choose)
        return small.view(shape), logits.view(*shape[:2], *logits.shape[1:])

    def _chosen(self, chances: Tensor, noise: Tensor, dim: int) -> Tensor:
        """Classes drawn from probabilities with axis ``dim``, by numbers in [0, 1) of the same shape without it."""
        below = self.labels.all_classes(chances, dim).cumsum(dim).narrow(dim, 0, self.labels.classes - 1)
        return (noise.unsqueeze(dim) >= below).sum(dim).to(torch.uint8)

    # -- likelihood ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def log_prob(self, images: Tensor, masks: Tensor) -> Tensor:
        """``log p(s | x) + log p(y | s, x)`` with ``s = down(y)``, in nats of the whole label map, ``(B,)``.

        A lower bound of ``log p(y | x)``; exact with ``reduction=1``. Void pixels do not count. It is of pixels that
        are drawn (``decision="sample"``), before any smoothing.

        Args:
            images: ``(B, C, H, W)``.
            masks: label maps ``(B, H, W)``.
        """
        low, full = self.features(images)
        small = self.reduced(masks)
        logits = self._small_logits(small, low)
        nats = cross_entropy(logits, small, self.labels)
        if self.refine is not None:
            image = torch.arange(len(images), device=images.device)
            fine = self.refine(full, image, self.seen.one_hot(small, dim=1), logits)
            nats = nats + cross_entropy(fine, masks, self.labels)
        return -nats

    @torch.no_grad()
    def log_prob_of_small(self, images: Tensor, small: Tensor) -> Tensor:
        """``log p(s | x)`` in nats of small label maps ``(B, h, w)``, exact, ``(B,)``; void pixels do not count.

        Example:
            >>> model = PixelSeg(3, LabelSpace.binary(), UNetSettings(width=8, depth=3), PixelSegSettings(width=8))
            >>> model.log_prob_of_small(torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 2)).div(0.6931472)
            tensor([-4.])
        """
        low, _ = self.features(images)
        return -cross_entropy(self._small_logits(small, low), small, self.labels)


def _parts(size: int, each: int) -> int:
    return (size + each - 1) // each


def _uniform(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
    made_on = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=made_on).to(device)


def _check(s: PixelSegSettings) -> None:
    """Raise `AmbisegError` where a setting is out of its range."""
    if s.samples < 1:
        raise AmbisegError(f"samples is 1 or more, received {s.samples}")
    if not 1 <= s.reduction <= MOST_REDUCTION or s.reduction & (s.reduction - 1):
        raise AmbisegError(f"reduction is a power of 2 from 1 to {MOST_REDUCTION}, received {s.reduction}")
    if not 0 < s.foreground_weight < float("inf"):
        raise AmbisegError(f"foreground_weight is above 0, received {s.foreground_weight}")
