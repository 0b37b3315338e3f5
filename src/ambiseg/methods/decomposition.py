"""Probabilities of given modes out of a generative flow, without sampling: velocity decomposition.

Gerard and Sullivan, "Deterministic Mode Proposals", section 3.2. Notation as there: modes ``m_i`` with probabilities ``p_i``,
noise ``z_0 ~ N(0, 1)``, ``z_t = alpha_t y + sigma_t z_0`` (16), velocity v. If ``p(y|x) = sum_i p_i [y = m_i]`` (18), the best
prediction of the mask at time t is

    D(z, t) = E[y | z_t = z, x] = sum_i w_i(z, t) m_i,    w_i = p_i p_t(z|m_i) / sum_j p_j p_t(z|m_j),            (19)
    D(z, 0) = v(z, 0) + z = sum_i p_i m_i             on the linear path alpha = t, sigma = 1 - t,                (20)
    min_p sum_s || v(z_s, 0 | x) + z_s - sum_i p_i m_i ||^2    subject to p >= 0, sum p = 1.                      (22)

In (22) only the mean over s matters, so it is least squares over the simplex with ``G = M^T M`` and ``b = M^T mean_s D(z_s, 0)``
(`decompose_mean`), as good for the pixel-wise mean of any other model. Where several p have the same mean, as for independent
class flips, t = 0 cannot tell them apart. Times t > 0 can, because there the weights depend on the noise
(`posterior_decomposition`, beyond the paper): with q_s = M^T D_s and log-likelihoods from M^T z_s,

    min_p sum_s || D_s - sum_i w_is m_i ||^2 = sum_s D_s.D_s - 2 w_s.q_s + w_s^T G w_s,
    w_is = softmax_i(log p_i - || z_s - alpha m_i ||^2 / (2 sigma^2)),

so after those products the cost depends on the number of modes and draws only, not on the size of the image. With ``robust``
the fields that are explained, the mean and D_s, are replaced by their `area_medians` first (beyond the paper as well).

Masks are one-hot channels scaled to [-1, 1] (`encode`); a flow is anything with a `posterior_mean` in that scale (`Denoiser`).
What happens at the edges: one mode has probability 1; identical modes share theirs evenly (and ``unique`` is False);
empty masks are modes like others; places of weight 0 in a set of modes are not there and get probability 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from ambiseg.defaults import DUPLICATE_IOU, SCORE_THRESHOLD
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.areas import area_medians
from ambiseg.methods.mode_proposals import LEAST_PROBABILITY
from ambiseg.methods.noise import standard_normal
from ambiseg.methods.paths import Path
from ambiseg.methods.simplex import least_squares_on_simplex
from ambiseg.overlap import pairwise_overlap

DRAWS = 64
"""Noise draws per image (the paper's number, table 11)."""
RESOLUTIONS = (1.5, 2.0)
"""Times of `posterior_decomposition`: how many standard deviations of the noise lie between two typical modes."""
SHARE_OF_UNIFORM = 0.5
"""How much of the uniform distribution is mixed into the start of `posterior_decomposition`."""
AT_ONCE = 16
"""Draws whose products with the modes are taken together."""
HALVINGS = 60
"""Steps of the search for a time."""

Array = NDArray[np.float64]


class Denoiser(Protocol):
    """A generative flow as velocity decomposition sees it."""

    @property
    def path(self) -> Path:
        """How masks and noise are mixed."""
        ...

    def posterior_mean(self, images: Tensor, z: Tensor, t: Tensor, /) -> Tensor:
        """Estimate of ``E[y | z_t = z, x]``, ``(B, C, *S)`` in [-1, 1], for z ``(B, C, *S)`` and times t ``(B,)``."""
        ...


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Probabilities of the modes of each image, on the CPU.

    Attributes:
        probabilities: ``(B, M)`` float64, sum 1; 0 for modes that are not there.
        residual: ``(B,)`` how far the conditions of an optimum are from being met, relative to the gradient's parts.
        unique: ``(B,)`` bool, whether the data determine the probabilities.
        misfit: ``(B,)`` root of the mean squared difference, over channels and pixels, between what was to be explained
            and its explanation by the modes.
    """

    probabilities: Tensor
    residual: Tensor
    unique: Tensor
    misfit: Tensor

    def weigh(self, modes: MaskSet, least: float = LEAST_PROBABILITY) -> MaskSet:
        """The same modes with these probabilities as weights, none of them below ``least`` (weight 0 means not there)."""
        return with_probabilities(modes, self.probabilities, least)


def encode(masks: Tensor, labels: LabelSpace) -> Tensor:
    """Label maps ``(B, K, *S)`` as one-hot channels scaled to [-1, 1], ``(B, K, C, *S)`` float32; void is -1 in each channel.

    Example:
        >>> encode(torch.tensor([[[0, 1, 255]]]), LabelSpace.binary()).tolist()
        [[[[-1.0, 1.0, -1.0]]]]
    """
    return labels.one_hot(masks, dim=2) * 2 - 1


def with_probabilities(modes: MaskSet, probabilities: Tensor, least: float = LEAST_PROBABILITY) -> MaskSet:
    """The modes with ``probabilities (B, M)`` as weights; modes that are there keep at least ``least``.

    Example:
        >>> modes = MaskSet.uniform(torch.tensor([[[1, 0], [0, 0]]]), LabelSpace.binary())
        >>> with_probabilities(modes, torch.tensor([[0.8, 0.2]])).weights
        tensor([[0.8000, 0.2000]])
    """
    floored = probabilities.to(modes.weights).clamp(min=least) * modes.present
    return replace(modes, weights=floored).normalised()


def filtered(
    modes: MaskSet,
    score_threshold: float | None = SCORE_THRESHOLD,
    duplicate_iou: float | None = DUPLICATE_IOU,
) -> MaskSet:
    """Proposals fit to be decomposed: low scores left out, then near-duplicates (mode proposals, table 5).

    Args:
        modes: ``(B, M, *S)`` proposals, with scores or without.
        score_threshold: least selection score, or None to keep all; where nothing passes, the best proposal stays.
        duplicate_iou: masks with a higher IoU with a better one are dropped, or None to keep all.

    Example:
        >>> masks = torch.tensor([[[1, 0], [1, 0], [0, 1]]])
        >>> proposals = MaskSet(masks, torch.ones(1, 3) / 3, LabelSpace.binary(), scores=torch.tensor([[0.9, 0.8, 0.1]]))
        >>> filtered(proposals).masks.tolist(), filtered(proposals, score_threshold=None).count.tolist()
        ([[[1, 0]]], [2])
    """
    kept = modes if score_threshold is None else modes.filter_scores(score_threshold)
    return kept if duplicate_iou is None else kept.drop_near_duplicates(duplicate_iou)


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
    _check_draws(draws)
    shape = (len(images), channels, *images.shape[2:])
    start = torch.zeros(len(images), device=images.device)
    total = _exactly(torch.zeros(shape, device=images.device))
    for _ in range(draws):
        total += _exactly(
            flow.posterior_mean(images, standard_normal(shape, images.device, generator), start)
        )
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
    gram, products, squares = _products(modes, field)
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
    """Probabilities of modes from the velocities of a flow at t = 0 (mode proposals, section 3.2): `decompose_mean` of
    `estimate_mean`.

    Args:
        flow: a flow trained on these images.
        images: ``(B, *, *S)`` normalised.
        modes: ``(B, M, *S)`` annotations, or proposals best `filtered` first.
        draws: noise draws S per image, one evaluation of the flow each.
        generator: source of the noise.
        robust: as in `decompose_mean`.

    Raises:
        AmbisegError: images and modes differ in number or size, or there are no draws.

    Example:
        >>> from types import SimpleNamespace
        >>> modes = MaskSet.uniform(torch.tensor([[[[1, 0]], [[0, 0]]]]), LabelSpace.binary())
        >>> flow = SimpleNamespace(path=None, posterior_mean=lambda x, z, t: torch.tensor([[[[0.5, -1.0]]]]))
        >>> velocity_decomposition(flow, torch.zeros(1, 3, 1, 2), modes).probabilities
        tensor([[0.7500, 0.2500]], dtype=torch.float64)
    """
    _check_images(images, modes)
    return decompose_mean(modes, estimate_mean(flow, images, draws, generator, modes.labels.channels), robust)


@torch.no_grad()
def posterior_decomposition(
    flow: Denoiser,
    images: Tensor,
    modes: MaskSet,
    times: Sequence[float] | None = None,
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
    *,
    resolutions: Sequence[float] = RESOLUTIONS,
    centres: str = "modes",
    robust: bool = False,
) -> Decomposition:
    """Probabilities of modes from a flow at t > 0, where the weights of equation (19) tell modes with equal mean apart.

        min_p sum_s || D(z_s, t_s) - sum_i w_i(z_s, t_s; p) m_i ||^2,    z_s = alpha m_j(s) + sigma e_s,  e_s ~ N(0, 1)

    over log p by L-BFGS, for each image, starting from the solution at t = 0 mixed with the uniform distribution; the draws at
    t = 0 take part in the sum. Times are such that modes are resolved in part: at t near 0 every z looks the same, near 1
    each z tells its mode whatever p is. With d the median distance ``|| m_i - m_j ||`` of the distinct modes of an image, t
    solves ``alpha_t / sigma_t = c / d``, so that two typical modes lie c standard deviations of the noise apart. That is early:
    d grows with the root of the number of pixels, and two modes that differ in 1000 pixels are resolved at about t = 0.03.

    Beyond the paper. The weights are as sharp as the likelihoods, so this asks more of a flow than t = 0 does: it must have
    learned how the posterior follows z, and the modes must be those that it has learned.

    Args:
        flow: a flow trained on these images.
        images: ``(B, *, *S)`` normalised.
        modes: ``(B, M, *S)``.
        times: times in (0, 1) for all images, or None for those of ``resolutions``.
        draws: noise draws at each time, t = 0 included.
        generator: source of the noise.
        resolutions: values of c.
        centres: the mode j(s) of a draw: ``modes``, each equally often, or ``estimate``, by the solution at t = 0.
        robust: explain the `area_medians` of D_s.

    Returns:
        As `decompose_mean`; ``unique`` says whether the sum curves in every direction that keeps ``sum p``.

    Raises:
        AmbisegError: as `velocity_decomposition`, or times outside (0, 1), resolutions not above 0, an unknown ``centres``.

    Example:
        >>> from types import SimpleNamespace
        >>> modes = MaskSet.uniform(torch.tensor([[[[1, 0]], [[0, 1]]]]), LabelSpace.binary())
        >>> path = SimpleNamespace(alpha=lambda t: t, sigma=lambda t: 1 - t)
        >>> def exact(x, z, t):  # of modes +-(1, -1) with probabilities 0.8 and 0.2
        ...     log_odds = 1.3863 + 2 * (t / (1 - t) ** 2).view(-1, 1, 1, 1) * (z[..., :1] - z[..., 1:])
        ...     return (log_odds / 2).tanh() * torch.tensor([1.0, -1.0])
        >>> flow = SimpleNamespace(path=path, posterior_mean=exact)
        >>> posterior_decomposition(flow, torch.zeros(1, 3, 1, 2), modes).probabilities.round(decimals=3)
        tensor([[0.8000, 0.2000]], dtype=torch.float64)
    """
    _check_images(images, modes)
    _check_draws(draws)
    if centres not in ("modes", "estimate"):
        raise AmbisegError(f"centres is 'modes' or 'estimate', received {centres!r}")
    gram, _, _ = _products(modes, None)
    chosen = _times(flow.path, modes, gram, times, resolutions)
    first = decompose_mean(
        modes, estimate_mean(flow, images, draws, generator, modes.labels.channels), robust
    )
    by = first.probabilities if centres == "estimate" else None
    q, d, log = _gather(flow, images, modes, chosen, (draws, by), generator, robust)
    p = np.zeros(modes.weights.shape)
    residual, unique, misfit = np.zeros(len(p)), np.ones(len(p), dtype=bool), np.zeros(len(p))
    for b, there in enumerate(modes.present.cpu().numpy()):
        c = np.flatnonzero(there)
        fit = _Fit(gram[b].numpy()[np.ix_(c, c)], q[b][:, c], d[b], log[b][:, c])
        p[b, c] = fit.solve(first.probabilities[b].numpy()[c])
        residual[b], unique[b], misfit[b] = (
            fit.residual(p[b, c]),
            fit.determines(p[b, c]),
            fit.misfit(p[b, c]),
        )
    return Decomposition(*(torch.from_numpy(v) for v in (p, residual, unique, misfit)))


def _gather(
    flow: Denoiser,
    images: Tensor,
    modes: MaskSet,
    times: Sequence[Tensor],
    turns: tuple[int, Tensor | None],
    generator: torch.Generator | None,
    robust: bool,
) -> tuple[Array, Array, Array]:
    """What `_Fit` needs of the flow's answers at t = 0 and at ``times``, each ``(B,)``.

    Args:
        turns: draws at each time, and the probabilities by which their modes are drawn (None: all in turn).

    Returns:
        Products of answers and modes ``(B, S, M)``, squares of the answers ``(B, S)``, log-likelihoods of the noisy masks given
        each mode, up to a constant ``(B, S, M)``.
    """
    channels, elements = modes.labels.channels, _elements(modes)
    shape, device = (len(images), channels, *images.shape[2:]), images.device
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for when in [torch.zeros(len(images), dtype=torch.float64), *times]:
        t = when.to(device, torch.float32)
        alpha, sigma = _column(flow.path.alpha(t), shape), _column(flow.path.sigma(t), shape)
        # Of the log-likelihoods only alpha m.z / sigma^2 differs between modes: all encoded masks have the same norm.
        a, s = (v.flatten().cpu().double()[:, None, None] for v in (alpha, sigma))
        for turn in torch.split(_order(modes, *turns, generator), AT_ONCE, 1):
            centres_of = encode(modes.take(turn).masks, modes.labels).to(device)
            noisy = [
                alpha * y + sigma * standard_normal(shape, device, generator) for y in centres_of.unbind(1)
            ]
            answers = torch.stack([flow.posterior_mean(images, z, t) for z in noisy], 1)
            answers = area_medians(modes, answers) if robust else answers
            fields = torch.cat([answers, torch.stack(noisy, 1)], 1)
            _, products, squares = _products(modes, fields, with_gram=False)
            of_answers, of_noisy = products.chunk(2, 1)
            likelihoods = a * of_noisy / s.square() * elements
            parts.append((of_answers, squares.chunk(2, 1)[0], likelihoods))
    q, d, log = (torch.cat(list(v), 1).numpy() for v in zip(*parts, strict=True))
    if not (np.isfinite(q).all() and np.isfinite(log).all()):
        raise AmbisegError("the flow's posterior mean holds nan or infinity: look at how it was trained")
    return q, d, log


def assignment_counts(samples: MaskSet, modes: MaskSet) -> Tensor:
    """Probabilities by counting: the share of the samples that are nearest to each mode.

        p_i = sum_s u_s [i = argmax_j IoU(y_s, m_j)],    ties share evenly

    What velocity decomposition replaces (mode proposals, section 3.2): it takes many samples to see a rare mode.

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
    nearest = _exactly(iou == iou.amax(2, keepdim=True))
    shares = _exactly(samples.weights)[:, :, None].to(nearest.device)
    counts = (shares * nearest / nearest.sum(2, keepdim=True)).sum(1)
    return counts / counts.sum(1, keepdim=True)


class _Fit:
    """The sum of `posterior_decomposition` for one image, as a function of ``theta = log p`` up to a constant.

    Everything is per channel and pixel: ``gram (M, M)``, ``q (S, M)`` products of the modes with D_s, ``d (S,)`` squares of D_s;
    ``log (S, M)`` are the log-likelihoods of z_s given each mode, up to a constant of s.
    """

    def __init__(self, gram: Array, q: Array, d: Array, log: Array) -> None:
        self.gram, self.q, self.d, self.log = gram, q, d, log

    def weights(self, theta: Array) -> Array:
        """``w_is``, ``(S, M)``."""
        logits = self.log + theta
        weights: Array = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        return weights

    def value(self, theta: Array) -> tuple[float, Array]:
        """The mean over s, and its gradient."""
        w = self.weights(theta)
        product = w @ self.gram
        value = (self.d - 2 * (w * self.q).sum(1) + (w * product).sum(1)).mean()
        slope = 2 * (product - self.q)
        gradient: Array = (w * (slope - (w * slope).sum(1, keepdims=True))).mean(0)
        return float(value), gradient

    def solve(self, start: Array) -> Array:
        """Probabilities ``(M,)``."""
        count = len(start)
        if count == 1:
            return np.ones(1)
        theta = np.log((1 - SHARE_OF_UNIFORM) * start + SHARE_OF_UNIFORM / count)
        # The scale brings the values, differences of nearly explained means, to about 1.
        scale = 1.0 / max(self.value(theta)[0], 1e-12)

        def scaled(theta: Array) -> tuple[float, Array]:
            value, gradient = self.value(theta)
            return scale * value, scale * gradient

        options = {"maxiter": 2000, "maxfun": 4000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-10}
        found = minimize(scaled, theta, jac=True, method="L-BFGS-B", options=options).x
        p: Array = np.exp(found - logsumexp(found))
        return p

    def residual(self, p: Array) -> float:
        """Largest entry of the gradient, relative to its parts."""
        theta = np.log(np.maximum(p, 1e-300))
        return float(np.abs(self.value(theta)[1]).max() / max(np.abs(self.q).max(), 1e-300))

    def misfit(self, p: Array) -> float:
        """Root of the mean squared difference that is left."""
        return float(np.sqrt(max(self.value(np.log(np.maximum(p, 1e-300)))[0], 0.0)))

    def determines(self, p: Array) -> bool:
        """Whether ``sum_s J_s^T G J_s``, J_s the Jacobian of w_s in p, has no direction without curvature but p itself."""
        p = np.maximum(p, 1e-12)
        w = self.weights(np.log(p))
        # dw_i / dp_j = ([i = j] - w_i) w_j / p_j
        jacobian = (np.eye(len(p)) - w[:, :, None]) * (w / p)[:, None, :]
        curvature = (jacobian.swapaxes(1, 2) @ (self.gram @ jacobian)).mean(0)
        unit = p / np.linalg.norm(p)
        values = np.linalg.eigvalsh(curvature / max(np.trace(curvature), 1e-300) + np.outer(unit, unit))
        return bool(values[0] > 1e-9)


def _products(modes: MaskSet, fields: Tensor | None, with_gram: bool = True) -> tuple[Tensor, Tensor, Tensor]:
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
    elements = _elements(modes)
    for b in range(batch):
        m = _exactly(encode(modes.masks[b : b + 1], modes.labels)[0].flatten(1))
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


def _elements(modes: MaskSet) -> int:
    """Channels times pixels of a mask."""
    return modes.labels.channels * int(np.prod(modes.masks.shape[2:]))


def _times(
    path: Path, modes: MaskSet, gram: Tensor, times: Sequence[float] | None, resolutions: Sequence[float]
) -> list[Tensor]:
    """The times of each image, a list of ``(B,)`` float64."""
    batch = len(gram)
    if times is not None:
        if not times or not all(0 < t < 1 for t in times):
            raise AmbisegError(f"times lie strictly between 0 and 1, received {list(times)}")
        return [torch.full((batch,), float(t), dtype=torch.float64) for t in times]
    if not resolutions or not all(0 < c < float("inf") for c in resolutions):
        raise AmbisegError(f"resolutions are positive numbers, received {list(resolutions)}")
    square = gram.diagonal(dim1=1, dim2=2)
    distance = (square[:, :, None] + square[:, None, :] - 2 * gram).clamp(min=0) * _elements(modes)
    there = modes.present.cpu()
    typical = torch.ones(batch, dtype=torch.float64)
    for b in range(batch):
        between = distance[b][there[b]][:, there[b]].sqrt()
        apart = between[between > 1e-6]
        if len(apart):
            typical[b] = apart.median()
    return [_when(path, c / typical) for c in resolutions]


def _when(path: Path, ratio: Tensor) -> Tensor:
    """The time at which ``alpha / sigma`` reaches ``ratio (B,)``, by halving."""
    low, high = torch.zeros_like(ratio), torch.ones_like(ratio)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        early = path.alpha(middle) < ratio * path.sigma(middle)
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return (low + high) / 2


def _order(modes: MaskSet, draws: int, by: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Which mode each draw starts from, ``(B, draws)``: all in turn, in a random order, or drawn by ``by``."""
    device = "cpu" if generator is None else generator.device
    if by is not None:
        index = torch.multinomial(by.to(device), draws, replacement=True, generator=generator)
        return index.to(modes.masks.device)
    rows = []
    for there in modes.present:
        entries = torch.nonzero(there)[:, 0]
        rounds = -(-draws // len(entries))
        turns = [
            entries[torch.randperm(len(entries), generator=generator, device=device).to(entries.device)]
            for _ in range(rounds)
        ]
        rows.append(torch.cat(turns)[:draws])
    return torch.stack(rows)


def _exactly(value: Tensor) -> Tensor:
    """In float64: where it is, or on the CPU where its device has none."""
    return (value.cpu() if value.device.type == "mps" else value).double()


def _column(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``(B,)`` as ``(B, 1, ..., 1)``."""
    return value.view(-1, *[1] * (len(shape) - 1))


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise AmbisegError(f"draws is at least 1, received {draws}")


def _check_images(images: Tensor, modes: MaskSet) -> None:
    if (len(images), *images.shape[2:]) != (len(modes), *modes.masks.shape[2:]):
        raise AmbisegError(
            f"images of shape {tuple(images.shape)} and modes of shape {tuple(modes.masks.shape)} do not belong together:"
            " number and size must agree"
        )
