"""Solvers of the flow ``dz/dt = v(z, t)`` from noise (t = 0) to mask (t = 1) (Gerard and Sullivan, equation
13).

An explicit Runge-Kutta method is its Butcher tableau: nodes c, rows a, weights b (Hairer, Norsett and Wanner
1993, II.1).

    k_i = v(z + h sum_{j<i} a_ij k_j, t + c_i h),     z(t + h) = z + h sum_i b_i k_i

`TABLEAUS` lists ours; ``dopri5`` is the adaptive one of the package torchdiffeq. Ten Heun steps are what mode
proposals is compared with.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._higher_order_ops import while_loop

from ambiseg.errors import AmbisegError, UnknownNameError

Velocity = Callable[[Tensor, Tensor], Tensor]
"""``v(z, t)``: states ``(B, ...)`` and times ``(B,)`` to velocities of the states' shape."""
Push = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Of a state, its velocity and times ``(B,)``: the velocity that leads to the other stages of a step, and the
one that counts in their sum."""


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method.

    Attributes:
        order: the error of a whole integration falls like ``h^order``.
        nodes: ``c_i``, one for each evaluation.
        rows: ``a_ij`` for j < i.
        weights: ``b_i``.
    """

    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


TABLEAUS: dict[str, Tableau] = {
    "euler": Tableau(1, (0.0,), ((),), (1.0,)),
    "midpoint": Tableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    "heun": Tableau(2, (0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
    "rk4": Tableau(
        4,
        (0.0, 0.5, 0.5, 1.0),
        ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}
"""Methods of fixed steps by name."""
ADAPTIVE = "dopri5"
"""The method that chooses its own steps: Dormand and Prince 1980."""
ORDER: dict[str, int] = {name: tableau.order for name, tableau in TABLEAUS.items()} | {ADAPTIVE: 5}
"""Order of convergence of every method."""
EVALUATIONS: dict[str, int] = {name: len(tableau.nodes) for name, tableau in TABLEAUS.items()} | {ADAPTIVE: 6}
"""Evaluations of the velocity in one step of every method; dopri5 reuses its last, so 6 of its 7 stages are
new."""


def noise_levels(steps: int, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """The noise levels of a sampler of Karras et al. (2022, equation 5), ``(steps + 1,)`` float64.

        sigma_i = (sigma_max^(1/rho) + i/(N - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,    sigma_N = 0

    With rho = 1 they are equally far apart; as rho grows, so are their logarithms. They are the grid of
    `integrate` on the path `ambiseg.flows.paths.VarianceExploding`.

    Raises:
        AmbisegError: fewer than one step, rho not above 0, or not ``0 < sigma_min < sigma_max``.

    Example:
        >>> noise_levels(3, rho=1.0, sigma_min=1.0, sigma_max=7.0).tolist()
        [7.0, 4.0, 1.0, 0.0]
    """
    return torch.tensor(level_values(steps, rho, sigma_min, sigma_max), dtype=torch.float64)


def level_values(steps: int, rho: float, sigma_min: float, sigma_max: float) -> list[float]:
    """`noise_levels` as numbers, which an exported model holds as constants; same errors."""
    if steps < 1:
        raise AmbisegError(f"noise levels: {steps} steps; at least 1 is needed")
    if not (rho > 0 and 0 < sigma_min < sigma_max < math.inf):
        raise AmbisegError(
            f"noise levels: rho {rho}, sigma_min {sigma_min}, sigma_max {sigma_max};"
            " give rho above 0 and 0 < sigma_min < sigma_max"
        )
    levels = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps) ** rho
    return [*levels.tolist(), 0.0]


def integrate(
    velocity: Velocity,
    z: Tensor,
    steps: int = 10,
    method: str = "heun",
    t0: float = 0.0,
    t1: float = 1.0,
    grid: Tensor | Sequence[float] | None = None,
    *,
    last: str | None = None,
    push: Push | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """The state at t1 of the flow ``dz/dt = v(z, t)`` that is at z at t0 (Gerard and Sullivan, equation 13).

    Gradients flow through all steps unless they are switched off. t1 may be smaller than t0: the flow runs
    backwards. The velocity is asked at times between t0 and t1 only, both included.

    Args:
        velocity: ``v(z, t)``, states ``(B, ...)`` and times ``(B,)`` of the state's type and device to ``(B,
            ...)``.
        z: the state at t0, ``(B, ...)``, float32 or float64.
        steps: number of steps of equal size; dopri5 does not look at it.
        method: ``euler``, ``midpoint``, ``heun``, ``rk4`` or ``dopri5``.
        t0: where the flow begins.
        t1: where it ends.
        grid: times ``(N + 1,)``, rising or falling, in place of ``steps``, t0 and t1; dopri5 uses the first
            and the last.
        last: method of the last step, the chosen one by default. ``euler`` where the velocity comes from a
            posterior mean: that has none at t = 1, and on the linear path an Euler step ends exactly in the
            posterior mean (Karras et al. 2022, algorithm 1).
        push: what becomes of the velocity at the start of each step, and only there: guidance as in the public
            code of Gerard and Sullivan.
        rtol: relative tolerance of dopri5, for one step: errors of the whole may be ten times as large.
        atol: absolute tolerance of dopri5. Its step is one for the whole batch, so images share their errors.

    Returns:
        ``(B, ...)``.

    Raises:
        UnknownNameError: no such method.
        AmbisegError: fewer than one step, times that do not rise or fall, a velocity of another shape, a
            tolerance that is not above 0, dopri5 with ``last`` or ``push`` or without torchdiffeq, a velocity
            that dopri5 cannot follow, or a state that is not finite: the message names the step and the place
            in the batch.

    Example:
        >>> growth = lambda z, t: z
        >>> integrate(growth, torch.ones(1), steps=100, method="rk4")
        tensor([2.7183])
    """
    times = _times(steps, t0, t1, grid)
    methods = _methods(method, len(times) - 1, last)
    if methods is None:
        if push is not None:
            raise AmbisegError(f"integrate: push with {ADAPTIVE}, which chooses its own steps; leave it out")
        return _adaptive(velocity, z, times[0], times[-1], rtol, atol)
    if torch.compiler.is_exporting():
        return _looped(velocity, z, times, methods)
    for step, (tableau, (t, t_next)) in enumerate(zip(methods, pairwise(times), strict=True), 1):
        z = _stepped(velocity, z, tableau, t, t_next, push)
        _check_finite(z, f"after step {step} of {len(methods)} (t = {t_next:.4g})")
    return z


def _stepped(
    velocity: Velocity, z: Tensor, tableau: Tableau, t: Any, t_next: Any, push: Push | None = None
) -> Tensor:
    """The state after one step from t to t_next."""
    slopes: list[Tensor] = []
    for node, row in zip(tableau.nodes, tableau.rows, strict=True):
        between = t_next if node == 1 else t + node * (t_next - t)
        slopes.append(_evaluate(velocity, _advance(z, t_next - t, row, slopes), between))
        if push is not None and len(slopes) == 1:
            slopes[0], counted = push(z, slopes[0], _time(t, z))
    slopes[0] = slopes[0] if push is None else counted
    return _advance(z, t_next - t, tableau.weights, slopes)


def _looped(velocity: Velocity, z: Tensor, times: list[float], methods: list[Tableau]) -> Tensor:
    """`integrate` for an exported model: a loop of its graph, which so holds the network once for each stage of a step,
    and a last step of its own where that is by another method."""
    alike = sum(method is methods[0] for method in methods)
    grid = torch.tensor(times, dtype=torch.float64, device=z.device)

    def unfinished(step: Tensor, state: Tensor) -> Tensor:
        return step < alike

    def following(step: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        t, t_next = grid.gather(0, torch.stack([step, step + 1])).unbind()
        return step + 1, _stepped(velocity, state, methods[0], t, t_next)

    start = torch.zeros((), dtype=torch.int64, device=z.device)
    _, z = while_loop(unfinished, following, (start, z.clone()))  # type: ignore[no-untyped-call]
    for place in range(alike, len(methods)):
        z = _stepped(velocity, z, methods[place], times[place], times[place + 1])
    return z


def _check_finite(z: Tensor, where: str) -> None:
    """Raise `AmbisegError` with the first image of the batch whose state holds nan or infinity;
    nothing while a model is exported."""
    if torch.compiler.is_exporting():
        return
    finite = z.detach().isfinite().reshape(z.shape[0], -1).all(1)
    if not bool(finite.all()):
        image = int(finite.int().argmin())
        raise AmbisegError(
            f"integrate: the state of image {image} of the batch is not finite {where}: the network gives nan or"
            " infinity; train again with a lower learning rate or in float32, or check the image"
        )


def _advance(z: Tensor, h: float | Tensor, coefficients: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """``z + h sum_j coefficient_j k_j``."""
    for coefficient, slope in zip(coefficients, slopes, strict=True):
        if coefficient:
            z = z + (h * coefficient) * slope
    return z


def _evaluate(velocity: Velocity, z: Tensor, t: float | Tensor) -> Tensor:
    v = velocity(z, _time(t, z))
    if v.shape != z.shape:
        raise AmbisegError(
            f"integrate: the velocity has shape {tuple(v.shape)}, the state {tuple(z.shape)}; they must agree"
        )
    return v


def _time(t: float | Tensor, z: Tensor) -> Tensor:
    """A time for each image of the batch."""
    return torch.as_tensor(t, dtype=_time_type(z), device=z.device).expand(z.shape[0])


def _time_type(z: Tensor) -> torch.dtype:
    return torch.float64 if z.dtype == torch.float64 else torch.float32


def _times(steps: int, t0: float, t1: float, grid: Tensor | Sequence[float] | None) -> list[float]:
    if grid is None:
        if steps < 1:
            raise AmbisegError(f"integrate: {steps} steps; at least 1 is needed")
        times = [t0 + (t1 - t0) * n / steps for n in range(steps)] + [t1]
    else:
        if isinstance(grid, Tensor) and grid.dim() != 1:
            raise AmbisegError(f"integrate: grid has shape {tuple(grid.shape)}; give one axis of times")
        times = [float(t) for t in (grid.tolist() if isinstance(grid, Tensor) else grid)]
    gaps = [after - before for before, after in pairwise(times)]
    if not gaps or not (all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)):
        raise AmbisegError(
            f"integrate: times {times[:4]}{' ...' if len(times) > 4 else ''}; give two or more that all rise or all fall"
        )
    return times


def _methods(method: str, steps: int, last: str | None) -> list[Tableau] | None:
    """The tableau of every step; None for the adaptive method."""
    if method not in ORDER:
        raise UnknownNameError("method of integration", method, ORDER)
    if last is not None and last not in TABLEAUS:
        raise UnknownNameError("method of the last step", last, TABLEAUS)
    if steps < 1:
        raise AmbisegError(f"integrate: {steps} steps; at least 1 is needed")
    if method == ADAPTIVE:
        if last is not None:
            raise AmbisegError(
                f"integrate: last={last!r} with {ADAPTIVE}, which has no fixed last step; leave it out"
            )
        return None
    return [TABLEAUS[method]] * (steps - 1) + [TABLEAUS[last or method]]


def _adaptive(velocity: Velocity, z: Tensor, t0: float, t1: float, rtol: float, atol: float) -> Tensor:
    try:
        torchdiffeq: Any = importlib.import_module("torchdiffeq")
    except ImportError as missing:
        raise AmbisegError(
            f"integrate: method {ADAPTIVE!r} needs the package torchdiffeq, which is not installed; "
            "pip install torchdiffeq, or choose heun or rk4"
        ) from missing
    if not (rtol > 0 and atol > 0):
        raise AmbisegError(f"integrate: tolerances are above 0, received rtol {rtol} and atol {atol}")
    times = torch.tensor([t0, t1], dtype=_time_type(z), device=z.device)
    low, high = float(times.min()), float(times.max())

    def inside(t: Tensor, state: Tensor) -> Tensor:
        _check_finite(state, f"at t = {float(t.detach()):.4g}")
        return _evaluate(velocity, state, t.clamp(low, high))

    # Without step_t the solver steps past t1 and interpolates: a velocity has no value there.
    options = {"step_t": times[1:], "dtype": times.dtype}
    try:
        states: Tensor = torchdiffeq.odeint(
            inside, z, times, rtol=rtol, atol=atol, method=ADAPTIVE, options=options
        )
    except AssertionError as failed:
        raise AmbisegError(
            f"integrate: {ADAPTIVE} cannot follow this velocity ({failed}); "
            "raise rtol and atol, end before t = 1, or choose heun or rk4"
        ) from failed
    return states[-1]
