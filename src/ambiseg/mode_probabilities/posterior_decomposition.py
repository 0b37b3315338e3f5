"""Probabilities of modes from a flow at times t > 0, where the noise tells modes with equal means apart.

Beyond Gerard and Sullivan, "Deterministic Mode Proposals", section 3.2, in its notation
(`ambiseg.mode_probabilities.velocity_decomposition`). Their equation (22) looks at t = 0, where a flow knows
the pixel-wise mean alone. At t > 0 the weights of equation (19) depend on the noise: with q_s = M^T D_s and
log-likelihoods from M^T z_s,

    min_p sum_s || D_s - sum_i w_is m_i ||^2 = sum_s D_s.D_s - 2 w_s.q_s + w_s^T G w_s,
    w_is = softmax_i(log p_i - || z_s - alpha m_i ||^2 / (2 sigma^2)),

so after those products the cost depends on the number of modes and draws only, not on the size of the image.
With ``robust`` D_s is replaced by its `area_medians` first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from ambiseg.distributions.noise import standard_normal
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.memory_budget import part_sizes
from ambiseg.mode_probabilities.areas import area_medians
from ambiseg.mode_probabilities.velocity_decomposition import (
    DRAWS,
    Decomposition,
    Denoiser,
    FlowChannels,
    check_draws,
    check_images,
    decompose_mean,
    elements_of,
    encode,
    mean_of_masks,
    mean_products,
)

RESOLUTIONS = (1.5, 2.0)
"""Times: how many standard deviations of the noise lie between two typical modes."""
SHARE_OF_UNIFORM = 0.5
"""How much of the uniform distribution is mixed into the start."""
ROUNDING = 1e-6
"""Curvature that is smaller in proportion to the Gram matrix is judged by this share of it."""

Array = NDArray[np.float64]


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
    """Probabilities of modes from a flow at t > 0, where the weights of equation (19) tell modes with equal
    mean apart.

        min_p sum_s || D(z_s, t_s) - sum_i w_i(z_s, t_s; p) m_i ||^2,    z_s = alpha m_j(s) + sigma e_s,  e_s ~ N(0, 1)

    over log p by L-BFGS, for each image, starting from the solution at t = 0 mixed with the uniform
    distribution; the draws at t = 0 take part in the sum. Times are such that modes are resolved in part: at
    t near 0 every z looks the same, near 1 each z tells its mode whatever p is. With d the median distance
    ``|| m_i - m_j ||`` of the distinct modes of an image, t solves ``alpha_t / sigma_t = c / d``, so that two
    typical modes lie c standard deviations of the noise apart. That is early: d grows with the root of the
    number of pixels, and two modes that differ in 1000 pixels are resolved at about t = 0.03.

    The weights are as sharp as the likelihoods, so this asks more of a flow than t = 0 does: it must have
    learned how the posterior follows z, and the modes must be those that it has learned.

    Args:
        flow: a flow trained on these images.
        images: ``(B, *, *S)`` normalised.
        modes: ``(B, M, *S)``.
        times: times in (0, 1) for all images, or None for those of ``resolutions``.
        draws: noise draws at each time, t = 0 included.
        generator: source of the noise.
        resolutions: values of c.
        centres: the mode j(s) of a draw: ``modes``, each equally often, or ``estimate``, by the solution at t
            = 0.
        robust: explain the `area_medians` of D_s.

    Returns:
        As `decompose_mean`; ``unique`` says whether the sum curves in every direction that keeps ``sum p``.

    Raises:
        AmbisegError: as `velocity_decomposition`, or times outside (0, 1), resolutions not above 0, an
            unknown ``centres``.

    Example:
        >>> from types import SimpleNamespace
        >>> from ambiseg.labels import LabelSpace
        >>> modes = MaskSet.uniform(torch.tensor([[[[1, 0]], [[0, 1]]]]), LabelSpace.binary())
        >>> from ambiseg.flows.paths import Linear
        >>> def exact(x, z, t):  # of modes +-(1, -1) with probabilities 0.8 and 0.2
        ...     log_odds = 1.3863 + 2 * (t / (1 - t) ** 2).view(-1, 1, 1, 1) * (z[..., :1] - z[..., 1:])
        ...     return (log_odds / 2).tanh() * torch.tensor([1.0, -1.0])
        >>> flow = SimpleNamespace(path=Linear(), start=0.0, posterior_mean=exact)
        >>> posterior_decomposition(flow, torch.zeros(1, 3, 1, 2), modes).probabilities.round(decimals=3)
        tensor([[0.8000, 0.2000]], dtype=torch.float64)
    """
    check_images(images, modes)
    check_draws(draws)
    if centres not in ("modes", "estimate"):
        raise AmbisegError(f"centres is 'modes' or 'estimate', received {centres!r}")
    gram, _, _ = mean_products(modes, None)
    elements = elements_of(modes) * FlowChannels.of(flow, modes).each
    chosen = _times(flow, modes, gram * elements, times, resolutions)
    first = decompose_mean(modes, mean_of_masks(flow, images, modes, draws, generator), robust)
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
    channels = FlowChannels.of(flow, modes)
    elements = elements_of(modes) * channels.each
    shape, device = (len(images), channels.count, *images.shape[2:]), images.device
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for when in [torch.full((len(images),), flow.start, dtype=torch.float64), *times]:
        t = when.to(device, torch.float32)
        alpha, sigma = _column(flow.path.alpha(t), shape), _column(flow.path.sigma(t), shape)
        # Of the log-likelihoods only alpha m.z / sigma^2 differs between modes: all encoded masks have the
        # same norm.
        a, s = (v.flatten().cpu().double()[:, None, None] for v in (alpha, sigma))
        order = _order(modes, *turns, generator)
        # Noisy masks and the flow's answers are held together.
        for turn in torch.split(order, part_sizes(order.shape[1], 2 * math.prod(shape)), 1):
            centres_of = channels.of_modes(encode(modes.gather(turn).masks, modes.labels), 2).to(device)
            noisy = [
                alpha * y + sigma * standard_normal(shape, device, generator) for y in centres_of.unbind(1)
            ]
            answers = torch.stack([flow.posterior_mean(images, z, t) for z in noisy], 1)
            answers = channels.as_modes(answers, 2)
            answers = area_medians(modes, answers) if robust else answers
            fields = torch.cat([answers, channels.as_modes(torch.stack(noisy, 1), 2)], 1)
            _, products, squares = mean_products(modes, fields, with_gram=False)
            of_answers, of_noisy = products.chunk(2, 1)
            likelihoods = a * of_noisy / s.square() * elements
            parts.append((of_answers, squares.chunk(2, 1)[0], likelihoods))
    q, d, log = (torch.cat(list(v), 1).numpy() for v in zip(*parts, strict=True))
    if not (np.isfinite(q).all() and np.isfinite(log).all()):
        raise AmbisegError("the flow's posterior mean holds nan or infinity: look at how it was trained")
    return q, d, log


class _Fit:
    """The sum of `posterior_decomposition` for one image, as a function of ``theta = log p`` up to a
    constant.

    Everything is per channel and pixel: ``gram (M, M)``, ``q (S, M)`` products of the modes with D_s, ``d
    (S,)`` squares of D_s; ``log (S, M)`` are the log-likelihoods of z_s given each mode, up to a constant of
    s.
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
        """Whether ``sum_s J_s^T G J_s``, J_s the Jacobian of w_s in p, has no direction without curvature but
        p itself."""
        p = np.maximum(p, 1e-12)
        w = self.weights(np.log(p))
        # dw_i / dp_j = ([i = j] - w_i) w_j / p_j
        jacobian = (np.eye(len(p)) - w[:, :, None]) * (w / p)[:, None, :]
        curvature = (jacobian.swapaxes(1, 2) @ (self.gram @ jacobian)).mean(0)
        unit = p / np.linalg.norm(p)
        # Of identical modes all curvature is rounding: it must not be its own measure.
        scale = max(np.trace(curvature), ROUNDING * np.trace(self.gram), 1e-300)
        values = np.linalg.eigvalsh(curvature / scale + np.outer(unit, unit))
        return bool(values[0] > 1e-9)


def _times(
    flow: Denoiser, modes: MaskSet, gram: Tensor, times: Sequence[float] | None, resolutions: Sequence[float]
) -> list[Tensor]:
    """The times of each image from the products of its modes, a list of ``(B,)`` float64."""
    batch = len(gram)
    if times is not None:
        if not times or not all(0 < t < 1 for t in times):
            raise AmbisegError(f"times lie strictly between 0 and 1, received {list(times)}")
        return [torch.full((batch,), float(t), dtype=torch.float64) for t in times]
    if not resolutions or not all(0 < c < float("inf") for c in resolutions):
        raise AmbisegError(f"resolutions are positive numbers, received {list(resolutions)}")
    square = gram.diagonal(dim1=1, dim2=2)
    distance = (square[:, :, None] + square[:, None, :] - 2 * gram).clamp(min=0)
    there = modes.present.cpu()
    typical = torch.ones(batch, dtype=torch.float64)
    for b in range(batch):
        between = distance[b][there[b]][:, there[b]].sqrt()
        apart = between[between > 1e-6]
        if len(apart):
            typical[b] = apart.median()
    return [flow.path.time(typical / c).clamp(min=flow.start) for c in resolutions]


def _order(modes: MaskSet, draws: int, by: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """Which mode each draw starts from, ``(B, draws)``: all in turn, in a random order, or drawn by
    ``by``."""
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


def _column(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``(B,)`` as ``(B, 1, ..., 1)``."""
    return value.view(-1, *[1] * (len(shape) - 1))
