"""Probabilities of given modes out of a generative flow, without sampling: velocity decomposition.

Gerard and Sullivan, "Deterministic Mode Proposals", section 3.2. Notation as there: modes ``m_i`` with
probabilities ``p_i``, noise ``z_0 ~ N(0, 1)``, ``z_t = alpha_t y + sigma_t z_0`` (16), velocity v. If
``p(y|x) = sum_i p_i [y = m_i]`` (18), the best prediction of the mask at time t is

    D(z, t) = E[y | z_t = z, x] = sum_i w_i(z, t) m_i,    w_i = p_i p_t(z|m_i) / sum_j p_j p_t(z|m_j),            (19)
    D(z, 0) = v(z, 0) + z = sum_i p_i m_i             on the linear path alpha = t, sigma = 1 - t,                (20)
    min_p sum_s || v(z_s, 0 | x) + z_s - sum_i p_i m_i ||^2    subject to p >= 0, sum p = 1.                      (22)

In (22) only the mean over s matters, so it is least squares over the simplex with ``G = M^T M`` and ``b = M^T
mean_s D(z_s, 0)`` (`decompose_mean`), as good for the pixel-wise mean of any other model. Where several p
have the same mean, as for independent class flips, t = 0 cannot tell them apart; times t > 0 can
(`ambiseg.mode_probabilities.posterior_decomposition`, beyond the paper). With ``robust`` the mean is replaced
by its `area_medians` first (beyond the paper as well).

Masks are one-hot channels scaled to [-1, 1] (`encode`); a flow is anything with a `posterior_mean` in that
scale (`Denoiser`). It may have two channels (-m, m) for masks m of one (`FlowChannels`). What happens at the
edges: one mode has probability 1; identical modes share theirs evenly (and ``unique`` is False); empty masks
are modes like others; places of weight 0 in a set of modes are not there and get probability 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ambiseg.defaults import LEAST_PROBABILITY
from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.flows.paths import Path
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.mode_probabilities.areas import area_medians
from ambiseg.mode_probabilities.simplex_least_squares import least_squares_on_simplex
from ambiseg.overlap import pairwise_overlap

DRAWS = 64
"""Noise draws per image (the paper's number, table 11)."""


class Denoiser(Protocol):
    """A generative flow as velocity decomposition sees it."""

    @property
    def path(self) -> Path:
        """How masks and noise are mixed."""
        ...

    @property
    def start(self) -> float:
        """The time of pure noise: 0, or the least time that it was trained for."""
        ...

    def posterior_mean(self, images: Tensor, z: Tensor, t: Tensor, /) -> Tensor:
        """Estimate of ``E[y | z_t = z, x]``, ``(B, C, *S)`` in [-1, 1], for z ``(B, C, *S)`` and times t
        ``(B,)``."""
        ...


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Probabilities of the modes of each image, on the CPU.

    Attributes:
        probabilities: ``(B, M)`` float64, sum 1; 0 for modes that are not there.
        residual: ``(B,)`` how far the conditions of an optimum are from being met, relative to the gradient's
            parts.
        unique: ``(B,)`` bool, whether the data determine the probabilities.
        misfit: ``(B,)`` root of the mean squared difference, over channels and pixels, between what was to be
            explained and its explanation by the modes.
    """

    probabilities: Tensor
    residual: Tensor
    unique: Tensor
    misfit: Tensor


def encode(masks: Tensor, labels: LabelSpace) -> Tensor:
    """Label maps ``(B, K, *S)`` as one-hot channels scaled to [-1, 1], ``(B, K, C, *S)`` float32; void is -1
    in each channel.

    Example:
        >>> encode(torch.tensor([[[0, 1, 255]]]), LabelSpace.binary()).tolist()
        [[[[-1.0, 1.0, -1.0]]]]
    """
    return labels.one_hot(masks, dim=2) * 2 - 1


@dataclass(frozen=True)
class FlowChannels:
    """The channels of a flow beside those of the modes: the same, or two ``(-m, m)`` where binary modes have one,
    m.

    A field f of two channels is explained as well as half its difference:

        |f_0 + m|^2 + |f_1 - m|^2 = 2 |(f_1 - f_0) / 2 - m|^2 + |f_0 + f_1|^2 / 2

    Attributes:
        count: channels of the flow.
        each: how many of them one channel of the modes has.
    """

    count: int
    each: int

    @classmethod
    def of(cls, flow: Denoiser, modes: MaskSet) -> FlowChannels:
        """Those of the label space of a flow; of one without any, those of the modes."""
        ours = modes.labels.channels
        count = getattr(flow, "labels", modes.labels).channels
        return cls(count, 2 if (ours, count) == (1, 2) else 1)

    def of_modes(self, encoded: Tensor, dim: int) -> Tensor:
        """Encoded masks in the channels of the flow."""
        return torch.cat([-encoded, encoded], dim) if self.each == 2 else encoded

    def as_modes(self, field: Tensor, dim: int) -> Tensor:
        """A field of the flow in the channels of the modes."""
        if self.each == 1:
            return field
        below, above = field.chunk(2, dim)
        return (above - below) / 2


def with_probabilities(modes: MaskSet, probabilities: Tensor, least: float = LEAST_PROBABILITY) -> MaskSet:
    """The modes with ``probabilities (B, M)`` as weights; modes that are there keep at least ``least``.

    Example:
        >>> modes = MaskSet.uniform(torch.tensor([[[1, 0], [0, 0]]]), LabelSpace.binary())
        >>> with_probabilities(modes, torch.tensor([[0.8, 0.2]])).weights
        tensor([[0.8000, 0.2000]])
    """
    floored = probabilities.to(modes.weights).clamp(min=least) * modes.present
    return replace(modes, weights=floored).normalised()


@torch.no_grad()
def estimate_mean(
    flow: Denoiser,
    images: Tensor,
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
    channels: int = 1,
) -> Tensor:
    """The pixel-wise mean of the masks that a flow has learned, from its start alone.

        1/S sum_s D(z_s, 0) = 1/S sum_s v(z_s, 0 | x) + z_s,    z_s ~ N(0, 1)          (mode proposals, 20 to 22)

    A flow that starts at a later time t is asked there, ``z_s ~ N(0, sigma_t^2)``, as its sampler does.

    Args:
        flow: the flow.
        images: ``(B, *, *S)`` normalised.
        draws: S.
        generator: source of the noise.
        channels: channels C of the masks (`LabelSpace.channels`).

    Returns:
        ``(B, C, *S)`` float64 in the scale of `encode`.

    Raises:
        AmbisegError: no draws.
    """
    check_draws(draws)
    shape = (len(images), channels, *images.shape[2:])
    start = torch.full((len(images),), flow.start, device=images.device)
    scale = float(flow.path.sigma(torch.tensor(flow.start)))
    total = exactly(torch.zeros(shape, device=images.device))
    for _ in range(draws):
        noise = scale * standard_normal(shape, images.device, generator)
        total += exactly(flow.posterior_mean(images, noise, start))
    return total / draws


def decompose_mean(modes: MaskSet, mean: Tensor, robust: bool = False) -> Decomposition:
    """Probabilities with which the modes mix to a pixel-wise mean.

        min_p || mean - sum_i p_i m_i ||^2    subject to p >= 0, sum p = 1                     (mode proposals, 22)

    Where several p explain the mean equally well, the one of least norm is given: the most even.

    Args:
        modes: ``(B, M, *S)``; their weights say only which are there.
        mean: ``(B, C, *S)`` in the scale of `encode`: of probabilities, ``2 p - 1``.
        robust: explain its `area_medians`.

    Raises:
        AmbisegError: the mean has another shape than the modes, or is not finite.

    Example:
        >>> modes = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 1, 1]]]), LabelSpace.binary())
        >>> decompose_mean(modes, 2 * torch.tensor([[[0.7, 1.0, 0.3]]]) - 1).probabilities
        tensor([[0.7000, 0.3000]], dtype=torch.float64)
    """
    _check_fields(modes, mean[:, None])
    field = area_medians(modes, mean[:, None]) if robust else mean[:, None]
    gram, products, squares = mean_products(modes, field)
    found = least_squares_on_simplex(gram, products[:, 0], modes.present)
    p = found.weights
    left = squares[:, 0] - 2 * (p * products[:, 0]).sum(1) + torch.einsum("bi,bij,bj->b", p, gram, p)
    return Decomposition(p, found.residual, found.unique, left.clamp(min=0).sqrt())


def velocity_decomposition(
    flow: Denoiser,
    images: Tensor,
    modes: MaskSet,
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
    *,
    robust: bool = False,
) -> Decomposition:
    """Probabilities of modes from the velocities of a flow at t = 0 (mode proposals, section 3.2):
    `decompose_mean` of `estimate_mean`.

    Args:
        flow: a flow trained on these images.
        images: ``(B, *, *S)`` normalised.
        modes: ``(B, M, *S)`` annotations, or proposals, best filtered first.
        draws: noise draws S per image, one evaluation of the flow each.
        generator: source of the noise.
        robust: as in `decompose_mean`.

    Raises:
        AmbisegError: images and modes differ in number or size, or there are no draws.

    Example:
        >>> from types import SimpleNamespace
        >>> modes = MaskSet.uniform(torch.tensor([[[[1, 0]], [[0, 0]]]]), LabelSpace.binary())
        >>> from ambiseg.flows.paths import Linear
        >>> flow = SimpleNamespace(path=Linear(), start=0.0)
        >>> flow.posterior_mean = lambda x, z, t: torch.tensor([[[[0.5, -1.0]]]])
        >>> velocity_decomposition(flow, torch.zeros(1, 3, 1, 2), modes).probabilities
        tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    check_images(images, modes)
    return decompose_mean(modes, mean_of_masks(flow, images, modes, draws, generator), robust)


def mean_of_masks(
    flow: Denoiser, images: Tensor, modes: MaskSet, draws: int, generator: torch.Generator | None
) -> Tensor:
    """`estimate_mean` in the channels of the modes."""
    channels = FlowChannels.of(flow, modes)
    return channels.as_modes(estimate_mean(flow, images, draws, generator, channels.count), 1)


def assignment_counts(samples: MaskSet, modes: MaskSet) -> Tensor:
    """Probabilities by counting: the share of the samples that are nearest to each mode.

        p_i = sum_s u_s [i = argmax_j IoU(y_s, m_j)],    ties share evenly

    What velocity decomposition replaces (mode proposals, section 3.2): it takes many samples to see a rare
    mode.

    Args:
        samples: ``(B, S, *S)`` with weights u.
        modes: ``(B, M, *S)``.

    Returns:
        ``(B, M)`` float64, sum 1; 0 for modes that are not there.

    Example:
        >>> modes = MaskSet.uniform(torch.tensor([[[1, 1, 0], [0, 0, 1]]]), LabelSpace.binary())
        >>> samples = MaskSet.uniform(torch.tensor([[[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]]]), LabelSpace.binary())
        >>> assignment_counts(samples, modes)  # the empty sample is as far from either
        tensor([[0.6250, 0.3750]], dtype=torch.float64)
    """
    iou = pairwise_overlap(samples.masks, modes.masks, modes.labels).iou()
    iou = iou.masked_fill(~modes.present[:, None], -1.0)
    nearest = exactly(iou == iou.amax(2, keepdim=True))
    shares = exactly(samples.weights)[:, :, None].to(nearest.device)
    counts = (shares * nearest / nearest.sum(2, keepdim=True)).sum(1)
    return counts / counts.sum(1, keepdim=True)


def mean_products(
    modes: MaskSet, fields: Tensor | None, with_gram: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Means over channels and pixels of all products, float64 on the CPU.

    Args:
        modes: ``(B, M, *S)``.
        fields: ``(B, F, C, *S)``, or None.
        with_gram: whether the first is wanted.

    Returns:
        Modes with modes ``(B, M, M)``, fields with modes ``(B, F, M)``, fields with themselves ``(B, F)``.
    """
    batch, count = modes.weights.shape
    width = 0 if fields is None else fields.shape[1]
    gram = torch.zeros(batch, count, count, dtype=torch.float64)
    products = torch.zeros(batch, width, count, dtype=torch.float64)
    squares = torch.zeros(batch, width, dtype=torch.float64)
    elements = elements_of(modes)
    for b in range(batch):
        m = exactly(encode(modes.masks[b : b + 1], modes.labels)[0].flatten(1))
        if with_gram:
            gram[b] = (m @ m.T / elements).cpu()
        if fields is not None:
            f = fields[b].flatten(1).to(m)
            products[b] = (f @ m.T / elements).cpu()
            squares[b] = (f.square().sum(1) / elements).cpu()
    return gram, products, squares


def _check_fields(modes: MaskSet, fields: Tensor) -> None:
    shape = (len(modes), modes.labels.channels, *modes.masks.shape[2:])
    if (fields.shape[0], *fields.shape[2:]) != shape:
        raise AmbisegError(
            f"a mean of shape {(fields.shape[0], *fields.shape[2:])} cannot be a mixture of modes of shape {shape}:"
            " batch, channels and image size must agree"
        )


def elements_of(modes: MaskSet) -> int:
    """Channels times pixels of a mask."""
    return modes.labels.channels * int(np.prod(modes.masks.shape[2:]))


def exactly(value: Tensor) -> Tensor:
    """In float64: where it is, or on the CPU where its device has none."""
    return (value.cpu() if value.device.type == "mps" else value).double()


def check_draws(draws: int) -> None:
    """Raise `AmbisegError` where there is nothing to average."""
    if draws < 1:
        raise AmbisegError(f"draws is at least 1, received {draws}")


def check_images(images: Tensor, modes: MaskSet) -> None:
    """Raise `AmbisegError` where images and modes do not belong together."""
    if (len(images), *images.shape[2:]) != (len(modes), *modes.masks.shape[2:]):
        raise AmbisegError(
            f"images of shape {tuple(images.shape)} and modes of shape {tuple(modes.masks.shape)} do not belong together:"
            " number and size must agree"
        )
