"""Ambiguity-aware truncated flow matching: a normal distribution of logits, and a flow that turns each of its
samples into a mask.

Li, Li, Su, Qiu, Dong, Wang, Wang, Luo and Li (2026), "Ambiguity-aware truncated flow matching for ambiguous
medical image segmentation". Notation as there: image X, masks ``y_i`` of N annotators, M draws, time t from 0
(truncation point) to 1 (mask).

Stage one, Gaussian truncation representation (GTR): a stochastic segmentation network, whose distribution is
where the flow begins.

    X_trunc ~ N(mu(X), Sigma(X)),    Sigma = D D^T + L                                          (3, 4)
    L_prior = - log int p(Y | X_trunc) p(X_trunc | X) dX_trunc                                  (5)

(5) is printed with the mean of ``-log p(Y | X_trunc)`` over the draws as its estimate. That is above it, and
smallest where all samples are one, so the logarithm of the mean is taken, as in `SSN`, unless
``estimator="mean-log"``.

Stage two, segmentation flow matching (SFM, algorithm 1), the distribution frozen: straight lines from ``x_0 =
sigmoid(X_trunc)`` (softmax for several classes) to the one-hot mask ``x_1 = y_i``; a network g, which also
sees the image, learns their directions.

    x_t = t x_1 + (1 - t) x_0,    x_1t = x_t + (1 - t) g(x_t)                                   (lines 2, 3)
    L_SF = |g(x_t) - (x_1 - x_0)|^2 + alpha (1 - Dice(x_1t, y_i))                               (lines 4, 5)

The squared error is a mean over the pixels that are not void, and L_SF the mean over all annotations of an
image by their probability: they share one draw of ``x_0`` and t. A sample is ``dx/dt = g(x)`` from ``x_0`` to
t = 1.

Both stages are one training: `prior_share` says how much of it is the first. With ``start="noise"`` there is
no distribution and ``x_0 ~ N(0, I)``: what the paper calls SFM without the truncation.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ambiseg.distributions.low_rank import LowRankNormal
from ambiseg.distributions.monte_carlo import draw_sizes, expected_nats, marginal, pairwise_cross_entropy
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.flows.solvers import ADAPTIVE, integrate
from ambiseg.labels import LabelSpace
from ambiseg.losses.by_parts import losses_by_parts
from ambiseg.losses.mask_losses import DICE_SMOOTHING
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import NETWORK_ELEMENTS, part_sizes
from ambiseg.methods.atfm import ATFMSettings
from ambiseg.methods.base import Segmenter
from ambiseg.methods.ssn import SSNSettings
from ambiseg.methods.ssn.model import SSN
from ambiseg.networks.backbone import build_backbone, takes_time
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.unet import check_channels

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in a grey image."""
VALUES_ON_CPU = 2**20
"""Values of one layer of the flow's network that a CPU computes together in training."""
LEAST_LINES = 4
"""Lines that pass through it together anyhow, since what each pass does with the weights takes time too."""


class ATFM(Segmenter):
    """Truncated flow matching from the samples of a stochastic segmentation network (Li et al. 2026).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: network of the prior, and of the flow where the settings ask for no other. Of a kind that
            accepts no time, such as phiseg, the prior is that network, and the flow a unet of its size.
        settings: stages, prior, flow, sampler.

    Raises:
        AmbisegError: settings that are out of range.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = ATFM(3, LabelSpace.binary(), small, ATFMSettings(rank=4, steps=2))
        >>> model.predict(torch.zeros(2, 3, 17, 23), samples=5).masks.shape
        torch.Size([2, 5, 17, 23])
    """

    settings: ATFMSettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: ATFMSettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        _check(settings)
        self.prior: SSN | None = None
        if settings.start == "prior":
            self.prior = SSN(
                in_channels, labels, self.backbone, SSNSettings(rank=settings.rank, draws=settings.draws)
            )
        if settings.grey and in_channels != len(GREY):
            raise AmbisegError(
                f"grey is made of {len(GREY)} channels, the images have {in_channels}: leave --set grey out"
            )
        seen = 1 if settings.grey else in_channels
        self.g = build_backbone(seen + labels.channels, _flow_backbone(self.backbone, settings), time=True)
        self.h = self.g.head(labels.channels, 3)
        # A new flow leaves the samples of the prior as they are.
        nn.init.zeros_(self.h.weight)
        nn.init.zeros_(self.h.bias)  # type: ignore[arg-type]

    @property
    def export_obstacle(self) -> str:
        if self.settings.sampler == ADAPTIVE:
            return f"the solver {ADAPTIVE} chooses its steps while it runs (settings: sampler), a graph has fixed ones"
        return ""

    # -- where the flow begins -------------------------------------------------------------------------------

    @torch.no_grad()
    def truncation(self, images: Tensor) -> LowRankNormal | None:
        """The distribution at the truncation point (4) of images ``(B, C, H, W)``, without gradients; None
        where the start is noise."""
        check_channels(images, self.in_channels)
        return None if self.prior is None else self.prior.distribution(images)

    @torch.no_grad()
    def draw(
        self,
        images: Tensor,
        distribution: LowRankNormal | None,
        count: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """``x_0``: so many draws of `truncation` of each image, or of noise, ``(B, count, C, H, W)``, without
        gradients."""
        shape = (images.shape[0], count, self.labels.channels, *images.shape[2:])
        if distribution is None:
            return standard_normal(shape, images.device, generator)
        logits = distribution.sample(count, generator).view(shape)
        return logits if self.settings.source == "logits" else self.labels.probabilities(logits, dim=2)

    # -- training --------------------------------------------------------------------------------------------

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """L_prior (5) in the first stage, L_SF (algorithm 1) in the second, by `progress`; in evaluation mode
        their sum.

        The stage that is not trained gets no gradient at all, so an optimiser leaves its weights as they are.
        """
        first = self.progress < self.settings.prior_share
        if self.prior is not None:
            self.prior.train(self.training and first)
            if self.training and first:
                return self._prior_loss(self.prior, images, annotations)
        found = self._flow_loss(images, annotations)
        if self.prior is None or self.training:
            return found
        prior = self._prior_loss(self.prior, images, annotations)
        return {**found, "prior": prior["prior"], "loss": found["loss"] + prior["loss"]}

    def _prior_loss(self, prior: SSN, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Nats per pixel, the mean over annotations by their probability (5)."""
        count = self.settings.draws
        logits = prior.distribution(images).sample(count)
        shape = (images.shape[0], count, self.labels.channels, *images.shape[2:])
        pairs = pairwise_cross_entropy(logits.view(shape), annotations.masks, self.labels)
        nats = marginal(pairs) if self.settings.estimator == "log-mean" else pairs.mean(1)
        loss = expected_nats(nats, annotations).mean()
        return {"loss": loss, "prior": loss.detach()}

    def _flow_loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """L_SF of all annotations that are there, as many lines together as fit."""
        start = self.draw(images, self.truncation(images), 1)[:, 0]
        times = torch.rand(images.shape[0], device=images.device)
        image, annotator = torch.nonzero(annotations.present, as_tuple=True)

        def part(image: Tensor, annotator: Tensor) -> dict[str, Tensor]:
            masks = annotations.masks[image, annotator]
            share = annotations.weights[image, annotator] / images.shape[0]
            return self._lines_loss(images[image], start[image], times[image], masks, share)

        sizes = self._line_sizes(images, len(image))
        pairs = zip(torch.split(image, sizes), torch.split(annotator, sizes), strict=True)
        weights = [*self.g.parameters(), *self.h.parameters()]
        return losses_by_parts([partial(part, *pair) for pair in pairs], weights, images)

    def _line_sizes(self, images: Tensor, lines: int) -> list[int]:
        """How many lines pass through the network together; all where it normalises batches."""
        if any(isinstance(layer, _BatchNorm) for layer in self.g.modules()):
            return [lines]
        most = NETWORK_ELEMENTS if images.device.type != "cpu" else VALUES_ON_CPU
        return part_sizes(lines, images[0, 0].numel() * self.g.out_channels, most, multiple=LEAST_LINES)

    def _lines_loss(
        self, images: Tensor, x0: Tensor, times: Tensor, masks: Tensor, share: Tensor
    ) -> dict[str, Tensor]:
        """L_SF of N lines to masks ``(N, H, W)``, their sum by ``share (N,)``."""
        x1, valid = self.labels.one_hot(masks, dim=1), self.labels.valid(masks)[:, None]
        # A void pixel has no label to go to: it stays as it was drawn.
        t = times[:, None, None, None] * valid
        state = t * x1 + (1 - t) * x0
        velocity = self.velocity(images, state, times)
        error = ((velocity - (x1 - x0)).square() * valid).flatten(1).sum(1)
        pixels = valid.flatten(1).sum(1).clamp(min=1) * self.labels.channels
        flow = (share * error / pixels).sum()
        end = state + (1 - t) * velocity
        dice = dice_loss(end, x1, valid, self.labels, hard=self.settings.dice == "hard")
        consistency = (share * dice).sum()
        loss = flow + self.settings.alpha * consistency
        return {"loss": loss, "flow": flow.detach(), "dice": consistency.detach()}

    def velocity(self, images: Tensor, state: Tensor, time: Tensor) -> Tensor:
        """``g(x_t)`` of states ``(N, C, H, W)`` at times ``(N,)`` beside their images, float32."""
        check_channels(images, self.in_channels)
        if self.settings.grey:
            images = torch.einsum("bchw,c->bhw", images, images.new_tensor(GREY))[:, None]
        out: Tensor = self.h(self.g(torch.cat([images, state.to(images.dtype)], 1), time)).float()
        return out

    @property
    def needs_init(self) -> str:
        untrained = self.prior is not None and self.settings.prior_share == 0
        return "prior_share=0 trains no prior" if untrained else ""

    @torch.no_grad()
    def start_from(self, other: Segmenter) -> None:
        """Another model of this method, or a trained SSN, which becomes the prior.

        Raises:
            AmbisegError: an SSN of other channels, classes, network or rank, or no prior here that it could
                be.
        """
        if not isinstance(other, SSN):
            super().start_from(other)
            return
        if self.prior is None:
            raise AmbisegError(
                "a flow that starts from noise has no prior that an SSN could be: leave --start noise or --init out"
            )
        for what, ours, theirs in (
            ("channels", self.in_channels, other.in_channels),
            ("classes", self.labels.names, other.labels.names),
            ("channels of masks", self.labels.channels, other.labels.channels),
            ("network", self.backbone, other.backbone),
            ("rank", self.settings.rank, other.settings.rank),
        ):
            if ours != theirs:
                raise AmbisegError(
                    f"an SSN of other {what} ({theirs}) than these ({ours}) cannot be the prior: give one that agrees"
                )
        self.prior.load_state_dict(other.state_dict())

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Independent samples of equal weight, ``settings.samples`` unless asked otherwise; the prior runs
        once."""
        count, distribution = samples or self.settings.samples, self.truncation(images)
        values = images[:, 0].numel() * self.labels.channels * self.g.out_channels
        found = [
            self._integrate(images, self.draw(images, distribution, n, generator))
            for n in draw_sizes(count, values)
        ]
        share = self.labels.normalized(torch.cat(found, 1), dim=2)
        return MaskSet.from_probabilities(share, self.labels)

    def _integrate(self, images: Tensor, x0: Tensor) -> Tensor:
        """Where the flow from ``x_0 (B, K, C, H, W)`` ends, same shape."""
        s, count = self.settings, x0.shape[1]
        repeated = images.repeat_interleave(count, 0)

        def field(state: Tensor, time: Tensor) -> Tensor:
            flat = self.velocity(repeated, state.flatten(0, 1), time.repeat_interleave(count))
            return flat.view(state.shape)

        return integrate(field, x0, s.steps, s.sampler)


def dice_loss(end: Tensor, x1: Tensor, valid: Tensor, labels: LabelSpace, hard: bool = False) -> Tensor:
    """``1 - Dice`` of the predicted ends of paths and the masks they lead to, the mean over channels
    (algorithm 1, line 4).

        1 - mean_c (2 <a_c, y_c> + 1) / (|a_c| + |y_c| + 1),    a = x_1t cut to [0, 1], or decided if hard

    A decided mask passes no gradient.

    Args:
        end: ``x_1t (N, C, *S)``.
        x1: one-hot masks ``(N, C, *S)``.
        valid: pixels that count ``(N, 1, *S)``.
        labels: the label space.
        hard: decide every pixel before.

    Returns:
        ``(N,)``.

    Example:
        >>> end, mask = torch.tensor([[[[0.6, 0.0, 0.2]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
        >>> valid = torch.ones(1, 1, 1, 3, dtype=torch.bool)
        >>> [round(float(dice_loss(end, mask, valid, LabelSpace.binary(), hard)), 3) for hard in (False, True)]
        [0.421, 0.25]
    """
    shown = labels.one_hot(labels.decide(end), dim=1) if hard else end.clamp(0, 1)
    both = (shown * x1).flatten(2).sum(2)
    size = ((shown + x1) * valid).flatten(2).sum(2)
    return 1 - ((2 * both + DICE_SMOOTHING) / (size + DICE_SMOOTHING)).mean(1)


def _flow_backbone(backbone: UNetSettings, s: ATFMSettings) -> UNetSettings:
    """The network of the flow: one of its own; or the backbone, or a unet where that accepts no time, but for
    the sizes that the settings name."""
    if s.flow_network is not None:
        return s.flow_network
    timed = takes_time(backbone.kind)
    return replace(
        backbone if timed else UNetSettings(dropout=backbone.dropout),
        width=s.flow_width or backbone.width,
        depth=s.flow_depth or backbone.depth,
        max_width=s.flow_max_width or backbone.max_width,
    )


def _check(s: ATFMSettings) -> None:
    """Raise `AmbisegError` for settings that are out of range."""
    for name in ("rank", "draws", "steps", "samples", "flow_width", "flow_depth", "flow_max_width"):
        value = getattr(s, name)
        if value is not None and value < 1:
            raise AmbisegError(f"{name} is 1 or more, received {value}")
    if s.flow_network is not None:
        for name in ("flow_width", "flow_depth", "flow_max_width"):
            if getattr(s, name) is not None:
                raise AmbisegError(f"flow_network has a size of its own: leave {name} out")
    if not 0 <= s.alpha < math.inf:
        raise AmbisegError(f"alpha is 0 or more, received {s.alpha}")
    if not 0 <= s.prior_share < 1:
        raise AmbisegError(
            f"prior_share is a share from 0 to below 1, received {s.prior_share}: without a flow this is an ssn"
        )
