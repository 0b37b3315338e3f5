"""Volumes in millilitres as random numbers: what a prediction says of them against what annotators measured.

A prediction gives volumes ``x_1..x_M`` with probabilities u, the annotators ``y_1..y_N`` with weights v. F and G are the
two distribution functions, X and Y random numbers of these distributions. The continuous ranked probability score of F
for one observed volume y is

    CRPS(F, y) = integral (F(t) - [t >= y])^2 dt = E|X - y| - E|X - X'| / 2

(Gneiting and Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007, equations 20 and 21). All
values are in the unit of the volumes; overlaps of whole volumes are the metrics of images, of masks ``(B, K, X, Y, Z)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.ranking import first_largest


def crps(
    predicted: ArrayLike,
    observed: ArrayLike,
    weights: ArrayLike | None = None,
    observed_weights: ArrayLike | None = None,
) -> float:
    """Expected continuous ranked probability score ``sum_j v_j CRPS(F, y_j)``, lower is better.

    Args:
        predicted: volumes ``(M,)``.
        observed: of the annotators ``(N,)``.
        weights: of the predicted volumes, sum 1; equal if None.
        observed_weights: likewise of the annotators.

    Trap: annotators who disagree keep it above 0 whatever is predicted: the true distribution reaches
    ``E|Y - Y'| / 2``. What is above that is `cramer_distance`.

    Raises:
        AmbisegError: no volumes, or weights that are no distribution.

    Example:
        >>> crps([2.0, 4.0], [3.0]), crps([3.0], [3.0])
        (0.5, 0.0)
    """
    x, u = _distribution(predicted, weights, "predicted")
    y, v = _distribution(observed, observed_weights, "observed")
    return _expected_distance(x, u, y, v) - _expected_distance(x, u, x, u) / 2


def cramer_distance(
    predicted: ArrayLike,
    observed: ArrayLike,
    weights: ArrayLike | None = None,
    observed_weights: ArrayLike | None = None,
) -> float:
    """Distance of the two distributions ``integral (F - G)^2 dt = E|X - Y| - E|X - X'|/2 - E|Y - Y'|/2``, lower is better.

    It is `crps` less what the true distribution reaches, so 0 for equal distributions. Arguments and errors as there.

    Example:
        >>> cramer_distance([2.0, 4.0], [2.0, 4.0]), cramer_distance([3.0], [2.0, 4.0])
        (0.0, 0.5)
    """
    y, v = _distribution(observed, observed_weights, "observed")
    return max(0.0, crps(predicted, observed, weights, observed_weights) - _expected_distance(y, v, y, v) / 2)


def crps_curvas(predicted: float, observed: ArrayLike, observed_weights: ArrayLike | None = None) -> float:
    """The CRPS of the CURVAS challenge: one predicted volume against a normal distribution of those of the annotators.

    ``integral (Phi((t - m) / s) - [t >= x])^2 dt = s (z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi))`` with ``z = (x - m) / s``
    and m, s mean and deviation of the observed volumes (Riera-Marin et al., "Calibration and Uncertainty for multiRater
    Volume Assessment in multiorgan Segmentation (CURVAS) challenge results", 2025); ``|x - m|`` where all are equal. The
    challenge takes the sum of the predicted probabilities of voxels for x.

    Trap: the code of the challenge integrates from m - 3s to m + 3s, over a distribution function that is 0 below the 1 %
    quantile and 1 above the 99 % quantile. Here the integral is over all volumes, so predictions that are far off cost more.

    Example:
        >>> round(crps_curvas(10.0, [9.0, 11.0]), 4), crps_curvas(10.0, [9.0, 9.0])
        (0.2337, 1.0)
    """
    y, v = _distribution(observed, observed_weights, "observed")
    mean = float(v @ y)
    deviation = math.sqrt(float(v @ (y - mean) ** 2))
    if deviation == 0:
        return abs(predicted - mean)
    z = (predicted - mean) / deviation
    above = math.erf(z / math.sqrt(2))  # 2 Phi(z) - 1
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return deviation * (z * above + 2 * density - 1 / math.sqrt(math.pi))


def quantiles(values: ArrayLike, weights: ArrayLike | None, levels: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles of weighted values: the least value below or at which there is at least that probability.

    Example:
        >>> quantiles([3.0, 1.0, 2.0], [0.2, 0.5, 0.3], [0.05, 0.5, 0.95]).tolist()
        [1.0, 1.0, 3.0]
    """
    x, w = _distribution(values, weights, "")
    order = np.argsort(x, kind="stable")
    places = np.searchsorted(np.cumsum(w[order]), np.asarray(levels) - 1e-9)
    return x[order][np.minimum(places, len(x) - 1)]


@dataclass(frozen=True)
class VolumeErrors:
    """How predicted volumes of one class compare with those of the annotators, in the unit of the volumes.

    Attributes:
        predicted: expected volume of the prediction.
        observed: mean volume of the annotators.
        crps: `crps`.
        distance: `cramer_distance`.
        crps_curvas: `crps_curvas` of the expected volume.
    """

    predicted: float
    observed: float
    crps: float
    distance: float
    crps_curvas: float

    @property
    def bias(self) -> float:
        """Predicted less observed."""
        return self.predicted - self.observed

    @property
    def relative_bias(self) -> float:
        """The bias as a share of the observed volume; nan where that is 0."""
        return self.bias / self.observed if self.observed else math.nan


def volume_errors(
    predicted: ArrayLike,
    observed: ArrayLike,
    weights: ArrayLike | None = None,
    observed_weights: ArrayLike | None = None,
) -> VolumeErrors:
    """`VolumeErrors` of the volumes of one class; arguments and errors as of `crps`.

    Example:
        >>> found = volume_errors([2.0, 4.0], [2.0, 2.0])
        >>> found.bias, found.relative_bias, found.crps
        (1.0, 0.5, 0.5)
    """
    x, u = _distribution(predicted, weights, "predicted")
    y, v = _distribution(observed, observed_weights, "observed")
    mean = float(u @ x)
    return VolumeErrors(
        mean, float(v @ y), crps(x, y, u, v), cramer_distance(x, y, u, v), crps_curvas(mean, y, v)
    )


def dice_of_most_probable(predictions: MaskSet | Comparison, annotations: MaskSet | None = None) -> Tensor:
    """Expected Dice of the most probable prediction against one drawn annotation: ``sum_j v_j Dice(s_1, y_j)``.

    What a user gets who looks at the first mask only, judged by a random annotator.

    Returns:
        ``(B,)`` in [0, 1], higher is better; 1 where both are empty.

    Trap: says nothing of the other predictions. Of equally probable ones the first counts.

    Example:
        >>> from ambiseg.labels import LabelSpace
        >>> truth = MaskSet.uniform(torch.tensor([[[1, 1], [0, 1]]]), LabelSpace.binary())
        >>> dice_of_most_probable(truth.top(1), truth)
        tensor([0.8333])
    """
    pair = Comparison.of(predictions, annotations)
    first = first_largest(pair.predictions.weights, 1)
    dice = pair.cross.dice(pair.dialect.consensus).double()
    of_first = dice[torch.arange(len(first), device=first.device), first]
    return (of_first * pair.annotations.weights.double()).sum(1).float()


def _distribution(
    values: ArrayLike, weights: ArrayLike | None, what: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.atleast_1d(np.asarray(values, np.float64))
    w = np.full(len(x), 1 / max(1, len(x))) if weights is None else np.asarray(weights, np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise AmbisegError(f"{what} volumes are finite numbers (N,), received {x.shape}: give at least one")
    if w.shape != x.shape or not (w >= 0).all() or not abs(w.sum() - 1) < 1e-3:
        raise AmbisegError(
            f"weights of {what} volumes are {len(x)} numbers from 0 of sum 1, received {w.shape} of sum {w.sum():.4g}:"
            " divide them by their sum"
        )
    return x, w / w.sum()


def _expected_distance(
    x: NDArray[np.float64], u: NDArray[np.float64], y: NDArray[np.float64], v: NDArray[np.float64]
) -> float:
    """``E|X - Y|`` of two independent numbers."""
    return float(u @ np.abs(x[:, None] - y) @ v)
