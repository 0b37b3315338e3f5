"""Which annotated masks the predictions reach at all, and how many draws it takes to see them.

HM IoU* and the energy distances grade every mask a little. The numbers here ask yes or no: does some
prediction come within IoU ``tau`` of this mode? They are the recall of a generative model (`coverage`,
`covered_mass`, `modes_hit`) and its precision (`precision_at`), with masks for points and a ball of IoU
``tau`` for their neighbourhoods (Kynkäänniemi et al. 2019 take the distance to the k-th neighbour). A set of
samples reaches its modes in the end; `expected_draws` says when.

Notation: predictions ``s_1..s_M`` of weights u; the modes ``y*_1..y*_N*`` are the distinct annotations, of
weights v. IoU is that of `ambiseg.overlap`: mean over the evaluated classes present in either mask, 1 where
both are empty, void pixels left out. Entries of weight 0 are padding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.ranking import ROUNDING, first_largest, reaches

STEP = 1 / 32
"""Step of the integral of `draws_of` in ``log t``; the error falls with exp(-const / step)."""


def coverage(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, tau: float = 0.5
) -> Tensor:
    """Share of the distinct annotations that some prediction reaches.

    ``1/N* sum_j [max_i IoU(s_i, y*_j) >= tau]``. The recall of generative models (Kynkäänniemi et al. 2019)
    with a ball of IoU tau around each mode; weights only say which entries are there.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Raises:
        AmbisegError: tau outside [0, 1], or the sets do not belong together.

    Trap: one prediction may reach several modes that resemble each other (`modes_hit` counts it once), and
    extra predictions cost nothing: print `precision_at` and M beside it.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 1], [1, 1, 1], [0, 0, 0]]]), LabelSpace.binary())
        >>> coverage(MaskSet.uniform(torch.tensor([[[1, 1, 0]]]), LabelSpace.binary()), truth)
        tensor([0.5000])
    """
    pair = Comparison.of(predictions, annotations)
    return _reached(pair, tau).any(1).sum(1) / pair.modes.count


def covered_mass(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, tau: float = 0.5
) -> Tensor:
    """Probability that a mask drawn from the annotations is one that some prediction reaches.

    ``sum_j v_j [max_i IoU(s_i, y*_j) >= tau]``: `coverage` with every mode counted by its probability; the
    weights of the predictions only say which entries are there.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Raises:
        AmbisegError: tau outside [0, 1], or the sets do not belong together.

    Trap: high as soon as the frequent modes are reached, so it hides the rare ones for which a set of masks
    is wanted; read it beside `coverage`.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 1], [1, 1, 1], [0, 0, 0]]]), LabelSpace.binary())
        >>> covered_mass(MaskSet.uniform(torch.tensor([[[1, 1, 0]]]), LabelSpace.binary()), truth)
        tensor([0.6667])
    """
    pair = Comparison.of(predictions, annotations)
    return (_reached(pair, tau).any(1) * pair.modes.weights.float()).sum(1)


def modes_hit(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, tau: float = 0.5
) -> Tensor:
    """Number of distinct annotations to which at least one prediction belongs.

    ``|{j : some i has j = argmax_l IoU(s_i, y*_l) and IoU(s_i, y*_j) >= tau}|``: a prediction belongs to its
    nearest mode (the first of equally near ones), if that is near enough. The count of recovered modes usual
    for generative models on known mixtures.

    Returns:
        ``(B,)`` float32, whole numbers from 0 to min(M, N*), higher is better; at most ``N* coverage``.

    Raises:
        AmbisegError: tau outside [0, 1], or the sets do not belong together.

    Trap: a prediction exactly between two modes goes to the one that is annotated first, so the order of the
    annotations can matter; annotations that differ in void pixels only are equally near to everything. The
    mean over images mixes images of few and of many modes.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 1], [1, 1, 0], [0, 0, 0]]]), LabelSpace.binary())
        >>> guess = MaskSet.uniform(torch.tensor([[[1, 1, 1]]]), LabelSpace.binary())
        >>> modes_hit(guess, truth), coverage(guess, truth)
        (tensor([1.]), tensor([0.6667]))
    """
    return _members(Comparison.of(predictions, annotations), tau).any(1).sum(1).float()


def precision_at(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, tau: float = 0.5
) -> Tensor:
    """Probability that a mask drawn from the predictions is near some annotation: the price of hedging.

    ``sum_i u_i [max_j IoU(s_i, y*_j) >= tau]``. The precision of generative models (Kynkäänniemi et al. 2019)
    with a ball of IoU tau around each mode.

    Returns:
        ``(B,)`` in [0, 1], higher is better.

    Raises:
        AmbisegError: tau outside [0, 1], or the sets do not belong together.

    Trap: a model that repeats one good mask gets 1; read it beside `coverage`. The annotations must name all
    modes: a right mask that nobody drew counts as wrong.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 1], [1, 1, 0]]]), LabelSpace.binary())
        >>> precision_at(MaskSet.uniform(torch.tensor([[[1, 1, 1], [0, 0, 0]]]), LabelSpace.binary()), truth)
        tensor([0.5000])
    """
    pair = Comparison.of(predictions, annotations)
    return (_reached(pair, tau).any(2) * pair.predictions.weights.float()).sum(1)


def expected_draws(
    predictions: MaskSet | Comparison, annotations: MaskSet | None = None, tau: float = 0.5
) -> Tensor:
    """Expected number of masks to draw from the predictions until every distinct annotation has been seen.

    Draws are independent, by the weights u; a draw shows its nearest mode (the first of equally near ones) if
    ``IoU >= tau``, else nothing. With ``q_j`` the probability of showing mode j this is the coupon collector
    with unequal probabilities, ``int_0^inf 1 - prod_j (1 - exp(-q_j t)) dt`` (Flajolet, Gardy and Thimonier
    1992); see `draws_of`.

    Returns:
        ``(B,)`` at least N*, lower is better; inf where some mode is never shown.

    Raises:
        AmbisegError: tau outside [0, 1], or the sets do not belong together.

    Trap: one image with a missed mode makes the mean over images infinite: report the median, or the share
    of finite values beside their mean. A set of M samples stands for the model here, so a mode it shows with
    probability below 1/M looks unreachable.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1, 1], [0, 0, 0]]]), LabelSpace.binary())
        >>> skewed = MaskSet(truth.masks, torch.tensor([[0.75, 0.25]]), LabelSpace.binary())
        >>> expected_draws(truth, truth), expected_draws(skewed, truth), expected_draws(truth.top(1), truth)
        (tensor([3.]), tensor([4.3333]), tensor([inf]))
    """
    pair = Comparison.of(predictions, annotations)
    u = pair.predictions.weights.double()
    shown = (_members(pair, tau) * (u / u.sum(1, keepdim=True))[..., None]).sum(1)
    return draws_of(shown, pair.modes.present).float()


def draws_of(q: Tensor, there: Tensor | None = None) -> Tensor:
    """Expected number of independent draws until each of N things has been drawn, thing j with probability
    q_j.

    ``E = int_0^inf 1 - prod_j (1 - exp(-q_j t)) dt`` (Flajolet, Gardy and Thimonier 1992). Probabilities that
    sum to less than 1 leave draws that show nothing. Integrated over ``log t`` by the trapezoidal rule, which
    converges exponentially here: relative error below 1e-9 in double precision, whatever the probabilities.

    Args:
        q: ``(B, N)`` in [0, 1], sum at most 1.
        there: which things there are, ``(B, N)`` bool; all of them if left out.

    Returns:
        ``(B,)`` in the precision of ``q``; inf where a probability is 0; 0 where there is nothing to draw.

    Raises:
        AmbisegError: ``q`` is not ``(B, N)``, has entries outside [0, 1], or sums above 1.

    Example:
        >>> draws_of(torch.full((1, 4), 1 / 4))  # 4 (1 + 1/2 + 1/3 + 1/4)
        tensor([8.3333])
        >>> draws_of(torch.tensor([[0.5, 0.25]]))  # 2 + 4 - 1 / 0.75
        tensor([4.6667])
    """
    there = torch.ones_like(q, dtype=torch.bool) if there is None else there
    if q.dim() != 2 or q.shape != there.shape:
        raise AmbisegError(
            f"q of shape {tuple(q.shape)} and there of shape {tuple(there.shape)}: both are (B, N)"
        )
    wide = q.double() * there
    if not bool(((wide >= 0) & (wide <= 1 + ROUNDING)).all()) or bool((wide.sum(1) > 1.001).any()):
        raise AmbisegError("q must hold probabilities: each in [0, 1], and each row of sum at most 1")
    values = [_collect(row[real]) for row, real in zip(wide.cpu(), there.cpu(), strict=True)]
    kind = q.dtype if q.is_floating_point() else torch.float32
    return torch.tensor(values, dtype=kind, device=q.device)


def _collect(q: Tensor) -> float:
    """`draws_of` for one row ``(N,)`` of double precision."""
    if not len(q):
        return 0.0
    least = float(q.min())
    if least <= 0:
        return math.inf
    # The integrand is 1 below the first point (E >= 1, so what is left of it is nothing) and less than
    # N exp(-45) beyond the last.
    first, last = math.log(1e-12), math.log((45 + math.log(len(q))) / least)
    t = torch.arange(first, last + STEP, STEP, dtype=torch.float64).exp()
    exponent = t[:, None] * q
    missing = torch.where(
        exponent < 1, torch.log(-torch.expm1(-exponent)), torch.log1p(-torch.exp(-exponent))
    )
    return float((-torch.expm1(missing.sum(1)) * t).sum() * STEP)


def _near(pair: Comparison, tau: float) -> Tensor:
    """IoU of predictions with modes ``(B, M, N*)``, -1 where either is padding; ``tau`` is checked."""
    if not 0 <= tau <= 1:
        raise AmbisegError(f"tau is an IoU in [0, 1], received {tau}")
    real = pair.predictions.present[:, :, None] & pair.modes.present[:, None, :]
    return pair.to_modes.iou().masked_fill(~real, -1)


def _reached(pair: Comparison, tau: float) -> Tensor:
    """Which predictions come within ``tau`` of which modes, ``(B, M, N*)`` bool."""
    return reaches(_near(pair, tau), tau)


def _members(pair: Comparison, tau: float) -> Tensor:
    """Which prediction belongs to which mode, at most one each, ``(B, M, N*)`` bool."""
    iou = _near(pair, tau)
    nearest = first_largest(iou, 2)[..., None]
    return torch.zeros_like(iou, dtype=torch.bool).scatter(2, nearest, True) & reaches(iou, tau)
