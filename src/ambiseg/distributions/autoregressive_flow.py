"""Affine autoregressive flows: invertible maps of a field with a triangular Jacobian, hence an exact
log-determinant.

De Sousa Ribeiro et al. (2025), "Flow stochastic segmentation networks", section 5.1. Notation as there: base
variable u, logits eta. m and s are mean and log-scale of an autoregressive network
(`ambiseg.networks.autoregressive`). One map serves two flows,

    y_i = m_i(x_<i) + exp(s_i(x_<i)) x_i,    log |det dy/dx| = sum_i s_i(x_<i).

x to y is one pass of the network; y to x goes variable after variable, as ``x_i = (y_i - m_i(x_<i))
exp(-s_i(x_<i))`` needs the earlier ones first (footnote 3 and figure 2 there). Which of them is u decides
what is fast:

- Inverse autoregressive flow (Kingma et al. 2016): x = u, y = eta. Sampling, and scoring its own samples, is
  one pass; scoring other logits is sequential.

      eta = phi(u),    log p(eta | x) = log p(u | x) - sum_i s_i(u_<i)                   (13)

- Masked autoregressive flow (Papamakarios, Pavlakou and Murray 2017): x = eta, y = u. Scoring is one pass,
  sampling is sequential. Its usual form ``eta_i = mu_i(eta_<i) + sigma_i(eta_<i) u_i`` is the same family:
  sigma = exp(-s), mu = -m exp(-s).

      u = phi(eta),    log p(eta | x) = log p(u | x) + sum_i s_i(eta_<i)

With constant s and linear m a Gaussian of diagonal covariance becomes one of any full covariance (proposition
5.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.networks.autoregressive import AutoregressiveNetwork, full_precision

LOG_SCALE_BOUND = 5.0
"""Bound b of log-scales, which are ``b tanh(raw / b)``: no scale leaves [1/148, 148] and none can overflow.
Near 0 that is the raw value itself, and unlike a hard limit it never stops the gradient altogether."""

LARGEST_VALUE = 1e12
"""Limit of values that have not converged yet while `AffineAutoregressive.inverse` iterates; they can grow
without bound."""


class AffineAutoregressive(nn.Module):
    """The map ``y_i = m_i(x_<i) + exp(s_i(x_<i)) x_i`` with its inverse and log-determinants (section 5.1).

    ``forward`` is eta of an inverse autoregressive flow at u, and u of a masked one at eta; ``inverse`` is
    the other way.

    Args:
        bodies: networks that give m and s; of several, the first is applied first to x. The paper uses one.

    Raises:
        AmbisegError: no network.

    Example:
        >>> from ambiseg.networks.autoregressive import CausalTransformer
        >>> flow = AffineAutoregressive([CausalTransformer(2, strip=(1, 4), width=8)])
        >>> u = torch.randn(3, 2, 5, 6)
        >>> eta, log_det = flow(u)
        >>> again, minus = flow.inverse(eta)
        >>> log_det.shape, torch.allclose(again, u), torch.allclose(minus, -log_det)
        (torch.Size([3]), True, True)
    """

    def __init__(self, bodies: Sequence[AutoregressiveNetwork]) -> None:
        super().__init__()
        if not bodies:
            raise AmbisegError("an autoregressive flow needs at least one network, received none")
        self.bodies = nn.ModuleList(bodies)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``y (N, C, H, W)`` and ``log |det dy/dx| (N,)`` at ``x (N, C, H, W)``, one pass, float32."""
        y, log_scales = self.with_log_scales(x)
        return y, log_scales.flatten(1).sum(1)

    def with_log_scales(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` and ``log dy_i/dx_i`` of every variable at ``x``, all ``(N, C, H, W)``, float32."""
        y = full_precision(x)
        log_scales = torch.zeros_like(y)
        for body in cast(Iterable[AutoregressiveNetwork], self.bodies):
            mean, log_scale = _moments(body, y)
            y = mean + log_scale.exp() * y
            log_scales = log_scales + log_scale
        return y, log_scales

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``x (N, C, H, W)`` and ``log |det dx/dy| (N,)`` at ``y (N, C, H, W)``, float32.

        Iterates ``x <- (y - m(x)) exp(-s(x))`` on all variables at once. Each pass makes at least the next
        variable (or strip) exact, so that ``body.steps`` passes suffice: D passes of a masked linear layer, as many
        as there are strips of a transformer. Without gradients it stops as soon as a pass changes
        nothing, often much earlier.
        """
        x = full_precision(y)
        log_det = x.new_zeros(x.shape[0])
        for body in cast(Sequence[AutoregressiveNetwork], self.bodies)[::-1]:
            x, log_scale = _solve(body, x)
            log_det = log_det - log_scale.flatten(1).sum(1)
        return x, log_det


def _moments(body: AutoregressiveNetwork, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and bounded log-scale."""
    mean, raw = body(x)
    return mean, LOG_SCALE_BOUND * torch.tanh(raw / LOG_SCALE_BOUND)


def _solve(body: AutoregressiveNetwork, y: Tensor) -> tuple[Tensor, Tensor]:
    """The ``x`` with ``m(x) + exp(s(x)) x = y``, and ``s(x)``."""
    x = log_scale = torch.zeros_like(y)
    for _ in range(body.steps(*y.shape[2:])):
        mean, log_scale = _moments(body, x)
        before, x = x, ((y - mean) * (-log_scale).exp()).clamp(-LARGEST_VALUE, LARGEST_VALUE)
        # With gradients all passes are needed: a value can be right before its derivative is.
        if not x.requires_grad and torch.equal(x, before):
            break
    return x, log_scale
