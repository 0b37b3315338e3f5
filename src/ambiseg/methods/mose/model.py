"""Mixture of stochastic experts: each draws masks of one kind, and a gating network says how probable each
kind is.

Gao, Chen, Zhang and He (2023), "Modeling multimodal aleatoric uncertainty in segmentation with mixture of
stochastic experts". Notation as there: image x, annotations y_j with frequencies v_j, K experts with S
samples each, N = K S samples s_i of weights u_i, gating probabilities pi, latents z of L dimensions.

    k ~ G(pi(x)),  z_k ~ N(m_k, sigma_k I),  s = F(x, z_k)                                  the standard representation (2)
    mu(y | x) = sum_k pi_k(x) / S sum_i delta(s_k^i)                                         the compact one             (3)

The priors do not see the image. All experts share encoder and decoder: the last features u_d of the U-Net are
shifted and scaled by linear maps of the latent, ``(u_d + w_1 z) * (w_2 z)``, and three 1x1 convolutions give
the mask; pi(x) comes from a three-layer network on the mean of the bottleneck u_g. So the U-Net runs once,
and all samples of all experts are one batch through the last layers.

    L = sum_ij P*_ij C_ij + beta KL(sum_j P*_ij || u_i)                                                              (6)
    P* = argmin <P, C>  subject to  P >= 0,  sum_j P_ij <= gamma,  sum_i P_ij = v_j          `ambiseg.losses.transport`

C_ij is one minus the soft IoU of sample and annotation, or their cross-entropy per pixel; all pairs come from
one product. P* is taken as given, so the first term draws a sample to the annotations it was coupled with,
and the second makes pi predict how much each expert received. gamma rises to 1, where every annotation is
left to its nearest sample.

With ``u_i = pi_k / S`` only the total of an expert has a gradient in (6): the KL here is that of the totals
of experts, smaller by a number on which no parameter has an influence. Experts that give the same mask
compete for the same annotations by chance; algorithm 2 averages gradients over groups of such experts, which
is the gradient of the KL of the totals of groups.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ambiseg.distributions.monte_carlo import pairwise_cross_entropy
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.energy_score import trained_score
from ambiseg.losses.transport import capped_coupling, exact_coupling, merge_groups
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import part_sizes
from ambiseg.methods.base import ByExpert, Segmenter
from ambiseg.methods.mose import MoSESettings, NormalisedHead
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.base import Encoded
from ambiseg.networks.phiseg import BatchNorm
from ambiseg.networks.settings import BatchNormSettings, UNetSettings
from ambiseg.overlap import pairwise_overlap
from ambiseg.ranking import descending

VALUES_IN_CACHE = 2**21
"""Values of one layer that a CPU computes together in training; more would go through main memory at every
step."""
SMOOTHING = 1.0
"""Added to intersection and union of the soft IoU, in pixels: two empty masks agree."""
START_SIGMA = 1 / 8
"""Standard deviation that the experts' priors start with."""
LOG_OF_ZERO = -1e30
"""Logarithm of the probability of a group without experts."""


class Experts(nn.Module):
    """The layers that see the latent: shift and scale of features, and three 1x1 convolutions at the end.

    Args:
        channels: F of the features that the latent is fused with.
        width: F_2 of the features that the convolutions see; the same unless the latent is fused inside the
            decoder.
        size: dimensions L of the latent.
        outputs: channels C of the logits.
    """

    def __init__(self, channels: int, width: int, size: int, outputs: int) -> None:
        super().__init__()
        self.shift, self.scale = nn.Linear(size, channels), nn.Linear(size, channels)
        # With z = 0 the features pass as they are; a scale of 0 would hide them from an expert whose mean is
        # 0.
        nn.init.ones_(self.scale.bias)
        self.first = nn.Conv2d(width, width, 1)
        self.rest = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, outputs, 1)
        )

    def fuse(self, u: Tensor, z: Tensor) -> Tensor:
        """``(u + w_1 z) * (w_2 z)`` of features ``(B, F, H, W)`` and latents ``(B, N, L)``: ``(B N, F, H,
        W)``."""
        shifted = u[:, None] + self.shift(z)[..., None, None]
        fused: Tensor = (shifted * self.scale(z)[..., None, None]).flatten(0, 1)
        return fused

    def head(self, fused: Tensor) -> Tensor:
        """The convolutions at the end."""
        out: Tensor = self.rest(self.first(fused))
        return out

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """``head(fuse(u, z))``, the first convolution with the latents in its weights, so that nothing is
        fused pixel by pixel.

        W (u + a) * b + c = (W diag b) u + (W diag b) a + c

        On a CPU a few images are computed together, so that a layer stays in its cache.
        """
        values = z.shape[1] * self.first.out_channels * u[0, 0].numel()
        sizes = part_sizes(u.shape[0], values, VALUES_IN_CACHE) if u.device.type == "cpu" else [u.shape[0]]
        parts = zip(torch.split(u, sizes), torch.split(z, sizes), strict=True)
        return torch.cat([self._forward(*part) for part in parts])

    def _forward(self, u: Tensor, z: Tensor) -> Tensor:
        """Pixels are rows, ``(B, H W, N, F)``: a 1x1 convolution is a product of matrices then, and the order
        in memory stays."""
        weight = self.first.weight[:, :, 0, 0] * self.scale(z)[:, :, None]
        moved = torch.einsum("bnof,bnf->bno", weight, self.shift(z)) + cast(Tensor, self.first.bias)
        x = torch.baddbmm(moved.flatten(1, 2)[:, None], u.flatten(2).mT, weight.flatten(1, 2).mT)
        x = x.view(*x.shape[:2], *weight.shape[1:3])
        for layer in cast("list[nn.Conv2d]", self.rest[1::2]):
            x = functional.linear(x.relu(), layer.weight[:, :, 0, 0], layer.bias)
        return x.permute(0, 2, 3, 1).reshape(-1, x.shape[3], *u.shape[2:])


class NormalisedExperts(Experts):
    """The same with the layers of the authors' code behind the fusion (`NormalisedHead`).

    Args:
        channels, width, size, outputs: as of `Experts`.
        norm: the batch normalisation.
    """

    def __init__(self, channels: int, width: int, size: int, outputs: int, norm: BatchNormSettings) -> None:
        super().__init__(channels, width, size, outputs)
        widths = [width + size, width, width, width]
        self.first, layers = nn.Conv2d(width, widths[0], 1), list[nn.Module]()
        for inputs, w in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(inputs, w, 1), BatchNorm(w, norm), nn.ReLU()]
        self.rest = nn.Sequential(*layers, nn.Conv2d(width, outputs, 1))

    def forward(self, u: Tensor, z: Tensor) -> Tensor:
        """All images together: in training they share the statistics of the normalisation."""
        return self.head(self.fuse(u, z))


class MoSE(Segmenter):
    """Mixture of stochastic experts (Gao et al. 2023).

    Args:
        in_channels: channels of the images.
        labels: binary or multi-class.
        backbone: the shared network; the paper's is ``kind="phiseg", depth=7``.
        settings: experts, coupling, cost, schedules, representation.

    Attributes:
        m: means of the experts' priors ``(K, L)``.
        log_sigma: logarithms of their standard deviations ``(K, 1)``.

    Raises:
        AmbisegError: settings out of their range.

    Example:
        >>> small = UNetSettings(width=8, depth=2)
        >>> model = MoSE(3, LabelSpace.binary(), small, MoSESettings())
        >>> found = model.predict(torch.zeros(2, 3, 17, 23), samples=6)
        >>> found.masks.shape, found.weights.shape
        (torch.Size([2, 6, 17, 23]), torch.Size([2, 6]))
    """

    settings: MoSESettings

    def __init__(
        self, in_channels: int, labels: LabelSpace, backbone: UNetSettings, settings: MoSESettings
    ) -> None:
        super().__init__(in_channels, labels, backbone, settings)
        s = settings
        self.cost = s.cost if s.cost != "auto" else "iou" if labels.is_binary else "cross-entropy"
        self.g = build_backbone(in_channels, self.backbone)
        _check(s, self.g.depth)
        last = self.g.depth - 1
        self.gating_level = last if s.gating_layer is None else s.gating_layer
        self.noise_layer = None if s.noise_layer in (None, last) else s.noise_layer
        channels = (
            self.g.out_channels if self.noise_layer is None else self.g.up_widths[last - self.noise_layer]
        )
        sizes = (channels, self.g.out_channels, s.latent_size, labels.channels)
        self.experts = (
            NormalisedExperts(*sizes, s.head.norm) if isinstance(s.head, NormalisedHead) else Experts(*sizes)
        )
        self.m = nn.Parameter(codes(s.experts, s.latent_size))
        self.log_sigma = nn.Parameter(torch.full((s.experts, 1), math.log(START_SIGMA)))
        self.log_sigma.requires_grad_(s.stochastic)
        self.gating: nn.Sequential | None = None
        if s.expert_weights == "gated":
            self.gating = nn.Sequential(
                nn.Linear(self.g.widths[self.gating_level], s.gating_width),
                nn.ReLU(),
                nn.Linear(s.gating_width, s.gating_width),
                nn.ReLU(),
                nn.Linear(s.gating_width, s.experts, bias=s.gating_bias),
            )

    # -- the networks ----------------------------------------------------------------------------------------

    def _encoded(self, images: Tensor) -> tuple[Encoded, Tensor, Tensor]:
        """What all samples of an image share: its encoding, the features that latents are fused with, and
        ``log pi (B, K)``."""
        encoded = self.g.encode(images)
        return encoded, self.g.decode(encoded, last=self.noise_layer), self._log_pi(encoded)

    def _log_pi(self, encoded: Encoded) -> Tensor:
        u_g = encoded.levels[self.gating_level]
        with torch.autocast(u_g.device.type, enabled=False):
            if self.gating is None:
                count = self.settings.experts
                return torch.full((u_g.shape[0], count), -math.log(count), device=u_g.device)
            log_pi: Tensor = self.gating(u_g.float().mean((2, 3))).log_softmax(1)
            return log_pi

    def _logits(self, encoded: Encoded, u: Tensor, z: Tensor) -> Tensor:
        """Logits ``(B, N, C, H, W)`` float32 of latents ``(B, N, L)``, one batch through the layers behind
        the fusion."""
        if self.noise_layer is None:
            out = self.experts(u, z)
        else:
            out = self.experts.head(self.g.decode(encoded, self.experts.fuse(u, z), self.noise_layer))
        logits: Tensor = out.float().view(*z.shape[:2], *out.shape[1:])
        return logits

    def latents(self, expert: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``z ~ N(m_k, sigma_k I)`` for experts k ``(B, N)``, ``(B, N, L)``; ``m_k`` itself of deterministic
        experts."""
        mean = self.m[expert]
        if not self.settings.stochastic:
            return mean
        return mean + self.log_sigma.exp()[expert] * standard_normal(
            tuple(mean.shape), mean.device, generator
        )

    @torch.no_grad()
    def expert_probabilities(self, images: Tensor) -> Tensor:
        """pi(x), ``(B, K)``: how probable it is that the annotation is of each expert's kind.

        Example:
            >>> model = MoSE(3, LabelSpace.binary(), UNetSettings(width=8, depth=2), MoSESettings())
            >>> model.expert_probabilities(torch.zeros(2, 3, 6, 6)).shape
            torch.Size([2, 4])
        """
        return self._log_pi(self.g.encode(images)).exp()

    @property
    def export_obstacle(self) -> str:
        if self.settings.representation == "standard":
            return "it draws experts at random by their probabilities (settings: representation=standard)"
        return ""

    # -- training --------------------------------------------------------------------------------------------

    @property
    def cap(self) -> float:
        """gamma at this point of the training: from its start to 1 over the share ``cap_until``, in a
        straight line."""
        start, rise = self.settings.cap, self.settings.cap_until
        return start + (1 - start) * (min(1.0, self.progress / rise) if rise > 0 else 1.0)

    @property
    def merge_threshold(self) -> float:
        """G_0 at this point of the training: from 1 to its end in a straight line."""
        return 1 - (1 - self.settings.merge_threshold) * self.progress

    @property
    def draws(self) -> int:
        """S, samples of each expert in training; one where experts are deterministic."""
        return self.settings.draws if self.settings.stochastic else 1

    def drawn(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the loss sees: logits ``(B, K S, C, H, W)`` of S samples of each expert, in turn, or of experts
        drawn by ``gumbel_temperature``; and ``log pi (B, K)``."""
        encoded, u_d, log_pi = self._encoded(images)
        tau = self.settings.gumbel_temperature
        if tau is not None:
            return self._logits(encoded, u_d, self._gumbel_latents(log_pi, tau)), log_pi
        expert = torch.arange(self.settings.experts, device=images.device).repeat_interleave(self.draws)
        return self._logits(encoded, u_d, self.latents(expert.expand(images.shape[0], -1))), log_pi

    def _gumbel_latents(self, log_pi: Tensor, tau: float) -> Tensor:
        """Latents ``(B, K S, L)`` of experts drawn from pi, through which the gating network learns: the draw is one
        expert, its gradient that of ``softmax((log pi + g) / tau)`` with Gumbel noise g (Jang et al. 2016)."""
        count = self.settings.experts * self.draws
        expert = functional.gumbel_softmax(log_pi[:, None].expand(-1, count, -1), tau, hard=True)
        mean = expert @ self.m
        if not self.settings.stochastic:
            return mean
        return mean + expert @ self.log_sigma.exp() * standard_normal(tuple(mean.shape), mean.device, None)

    def loss(self, images: Tensor, annotations: MaskSet) -> dict[str, Tensor]:
        """Equation (6), all annotations with their weights, the mean over the images that have a pixel that
        is not void."""
        s, draws = self.settings, self.draws
        logits, log_pi = self.drawn(images)
        with torch.autocast(images.device.type, enabled=False):
            v, counted = self._marginals(annotations)
            cost = pairwise_cost(self.cost, logits, annotations.masks, self.labels)
            kl = torch.zeros_like(log_pi[:, 0])
            drawn = s.gumbel_temperature is not None
            if s.coupling == "independent":
                weights = log_pi.exp() / draws if not drawn else torch.full_like(log_pi, 1 / logits.shape[1])
                share = weights.repeat_interleave(draws, 1)
                fit = torch.einsum("bn,bnm,bm->b", share, cost, v)
            else:
                couple = exact_coupling if s.coupling == "exact" else capped_coupling
                coupling = couple(cost, v, self.cap)
                fit = (coupling * cost).sum((1, 2))
            # Samples that were drawn have equal weights u, so the divergence of (6) has no gradient.
            if s.coupling != "independent" and not drawn:
                received = coupling.sum(2).view(images.shape[0], s.experts, draws).sum(2)
                kl = divergence(received, log_pi, self._groups(logits, draws))
                if s.gating_loss == "mean":
                    kl = kl / logits.shape[1]
            images_seen = counted.sum().clamp(min=1)
            fit, kl = ((part * counted).sum() / images_seen for part in (fit, kl))
            parts = {"cost": fit, "kl": kl}
            total = fit + s.beta * kl if self.gating is not None else fit
            if s.energy is not None:
                weights = (log_pi.exp() / draws).repeat_interleave(draws, 1)
                masks = self.labels.probabilities(logits, dim=2)
                score = trained_score(
                    masks, weights, weights, annotations, kernel=s.energy.kernel, draws=draws
                )
                parts["energy"] = score.mean()
                total = total + s.energy.weight * parts["energy"]
        return {"loss": total, **{name: value.detach() for name, value in parts.items()}}

    def _marginals(self, annotations: MaskSet) -> tuple[Tensor, Tensor]:
        """v ``(B, M)`` over the annotations that are not void alone, from uniform to their own; and which
        images have any."""
        seen = annotations.labels.valid(annotations.masks).flatten(2).any(2)
        v = annotations.weights.float() * seen
        there, total = (v > 0).float(), v.sum(1, keepdim=True)
        uniform = there / there.sum(1, keepdim=True).clamp(min=1)
        until = self.settings.uniform_until
        own = min(1.0, self.progress / until) if until > 0 else 1.0
        return own * v / total.clamp(min=1e-30) + (1 - own) * uniform, total[:, 0] > 0

    @torch.no_grad()
    def _groups(self, logits: Tensor, draws: int) -> Tensor | None:
        """Groups of experts ``(B, K)`` whose mean masks overlap by G_0 or more; None where none are
        merged."""
        if self.settings.merge_threshold >= 1:
            return None
        drawn = self.labels.probabilities(logits, dim=2)
        mean = drawn.view(len(drawn), -1, draws, *drawn.shape[2:]).mean(2)
        masks = self.labels.decide(mean, dim=2)
        return merge_groups(pairwise_overlap(masks, masks, self.labels).iou(), self.merge_threshold)

    # -- sampling --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(
        self, images: Tensor, samples: int | None = None, generator: torch.Generator | None = None
    ) -> MaskSet:
        """Samples of every expert with the weights of (3), or of drawn experts with equal weights (2).

        The compact representation spreads the samples evenly, those of the first expert first: those of an
        expert share its probability, and where they do not divide evenly the more probable experts have one
        more. Fewer samples than experts are of the most probable ones, and the weights are renormalised.

        Args:
            images: ``(B, C, H, W)`` normalised.
            samples: how many in all; ``settings.samples`` unless given.
            generator: source of randomness.
        """
        encoded, u_d, log_pi = self._encoded(images)
        expert, weights = self._chosen(log_pi.exp(), samples or self.settings.samples, generator)
        values = images.shape[0] * self.g.out_channels * images.shape[2] * images.shape[3]
        parts = torch.split(self.latents(expert, generator), part_sizes(expert.shape[1], values), 1)
        found = [self.labels.probabilities(self._logits(encoded, u_d, z), dim=2) for z in parts]
        return MaskSet.from_probabilities(torch.cat(found, 1), self.labels, weights)

    def by_expert(self) -> ByExpert:
        """The same weights with the compact representation."""
        compact = copy(self)
        compact.settings = replace(self.settings, representation="compact")
        return ByExpert(compact, self.settings.experts, self.settings.stochastic)

    def _chosen(self, pi: Tensor, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Which expert gives each sample, and its weight, ``(B, N)`` each."""
        if self.settings.representation == "standard":
            made_on = pi.device if generator is None else generator.device
            drawn = torch.multinomial(pi.to(made_on), count, replacement=True, generator=generator)
            return drawn.to(pi.device), torch.full(drawn.shape, 1 / count, device=pi.device)
        each, more = divmod(count, pi.shape[1])
        ranked = descending(pi)
        everyone = torch.arange(pi.shape[1], device=pi.device).repeat_interleave(each).expand(pi.shape[0], -1)
        expert = torch.cat([everyone, ranked[:, :more]], 1)
        samples = torch.zeros_like(pi).scatter_add_(1, expert, torch.ones_like(expert, dtype=pi.dtype))
        weights = pi.gather(1, expert) / samples.gather(1, expert)
        return expert, weights / weights.sum(1, keepdim=True)


def codes(experts: int, size: int) -> Tensor:
    """Where the means of the priors start: K different points of a grid in the unit cube, ``(K, L)``.

    The digits of 0 .. K - 1 to the least base that has enough of them, over the greatest digit: binary codes
    where ``K <= 2^L``.

    Example:
        >>> codes(4, 2).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
        >>> codes(5, 1)[:, 0].tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    base = 2
    while base**size < experts:
        base += 1
    powers = base ** torch.arange(size - 1, -1, -1)
    digits = torch.arange(experts)[:, None] // powers % base
    return digits / (base - 1)


def pairwise_cost(kind: str, logits: Tensor, masks: Tensor, labels: LabelSpace) -> Tensor:
    """Cost C of every sample against every annotation, void pixels of the annotation left out.

        iou:            1 - mean_c (I_c + 1) / (U_c + 1),  I, U soft intersection and union in pixels; c the evaluated classes
        cross-entropy:  the mean over pixels

    Args:
        kind: ``iou`` or ``cross-entropy``.
        logits: ``(B, N, C, *S)``.
        masks: label maps ``(B, M, *S)``.
        labels: the label space.

    Returns:
        ``(B, N, M)`` float32; 0 against an annotation of nothing but void.

    Example:
        >>> z = torch.tensor([[[[9.0, -9.0]], [[-9.0, -9.0]]]])
        >>> pairwise_cost("iou", z, torch.tensor([[[1, 0]]]), LabelSpace.binary()).round(decimals=2)
        tensor([[[0.0000],
                 [0.5000]]])
    """
    y, valid = masks.flatten(2), labels.valid(masks.flatten(2))
    if kind == "cross-entropy":
        return pairwise_cross_entropy(logits, masks, labels) / valid.sum(2).clamp(min=1)[:, None]
    logits, labels = labels.in_one_channel(logits, dim=2)
    m = labels.probabilities(logits.flatten(3), dim=2)
    one_hot = labels.one_hot(y, dim=2)
    if labels.channels > 1:
        chosen = list(labels.evaluated)
        m, one_hot = m[:, :, chosen], one_hot[:, :, chosen]
    m = m.transpose(1, 2)
    area = m.sum(3, keepdim=True) if bool(valid.all()) else m @ valid.float().mT[:, None]
    both = m @ one_hot.permute(0, 2, 3, 1)
    union = area + one_hot.sum(3).transpose(1, 2)[:, :, None] - both
    return 1 - ((both + SMOOTHING) / (union + SMOOTHING)).mean(1)


def divergence(received: Tensor, log_pi: Tensor, groups: Tensor | None = None) -> Tensor:
    """``KL(o || pi)`` in nats of what experts received and their probabilities, or of the totals of groups of
    experts.

    Args:
        received: o, ``(B, K)``, rows sum to 1.
        log_pi: ``log pi``, ``(B, K)``.
        groups: for every expert the number of its group ``(B, K)`` (`ambiseg.losses.transport.merge_groups`).

    Returns:
        ``(B,)``.

    Example:
        >>> divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]).log())
        tensor([0.6931])
        >>> divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0, 0]]))
        tensor([0.])
    """
    if groups is not None:
        member = groups[:, None] == torch.arange(groups.shape[1], device=groups.device)[:, None]
        received = (received[:, None] * member).sum(2)
        log_pi = log_pi[:, None].masked_fill(~member, LOG_OF_ZERO).logsumexp(2)
    return (torch.xlogy(received, received) - received * log_pi).sum(1)


def _check(s: MoSESettings, depth: int) -> None:
    """Raise `AmbisegError` where a setting is out of its range."""
    for name in ("experts", "latent_size", "draws", "samples", "gating_width"):
        if getattr(s, name) < 1:
            raise AmbisegError(f"{name} is 1 or more, received {getattr(s, name)}")
    samples = s.experts * (s.draws if s.stochastic else 1)
    if s.coupling != "independent" and not 1 / samples <= s.cap <= 1:
        raise AmbisegError(
            f"cap is from 1/{samples} (one over the samples of an image in training) to 1, received {s.cap:g}"
        )
    for name in ("cap_until", "uniform_until", "merge_threshold"):
        if not 0 <= getattr(s, name) <= 1:
            raise AmbisegError(f"{name} is from 0 to 1, received {getattr(s, name)}")
    if s.gumbel_temperature is not None:
        if not 0 < s.gumbel_temperature < math.inf:
            raise AmbisegError(f"gumbel_temperature is above 0, received {s.gumbel_temperature}")
        if s.expert_weights != "gated" or s.merge_threshold != 1 or s.energy is not None:
            raise AmbisegError(
                "gumbel_temperature trains the gating network by drawn experts: leave expert_weights, merge_threshold and"
                " energy as they are, or leave it out"
            )
    if not s.beta >= 0:
        raise AmbisegError(f"beta is 0 or more, received {s.beta}")
    for name in ("noise_layer", "gating_layer"):
        value = getattr(s, name)
        if value is not None and not 1 <= value < depth:
            raise AmbisegError(
                f"{name} counts from 1 to {depth - 1} in a network of {depth} resolutions, received {value}"
            )
