"""The solver agrees with an enumeration of all supports, meets its conditions at M = 128, and shares mass
among equals."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ambiseg.errors import AmbisegError
from ambiseg.mode_probabilities.simplex_least_squares import least_squares_on_simplex


def solve(gram, moment, present=None):
    gram, moment = torch.tensor(np.array(gram)).double(), torch.tensor(np.array(moment)).double()
    present = torch.ones(moment.shape, dtype=torch.bool) if present is None else torch.as_tensor(present)
    return least_squares_on_simplex(gram, moment, present)


def problem(seed, modes, pixels, kind="random", batch=1):
    """Modes (B, M, P) and means (B, P): anywhere, inside the hull, or of few distinct modes."""
    r = np.random.default_rng(seed)
    m = r.integers(0, 2, (batch, modes, pixels)).astype(float)
    if kind == "repeated":
        m = m[:, r.integers(0, max(1, modes // 2), modes)]
    p = r.dirichlet(np.full(modes, 0.5), batch)
    y = np.einsum("bm,bmp->bp", p, m)
    if kind != "inside":
        y = y + 0.5 * r.standard_normal(y.shape)
    return m, y


def normal(m, y):
    return m @ m.swapaxes(1, 2), np.einsum("bmp,bp->bm", m, y)


def value(gram, moment, p):
    return 0.5 * p @ gram @ p - moment @ p


def enumerated(gram, moment):
    """The least value over all supports: on each, the equations of the sum constraint by pseudo-inverse."""
    count, best = len(moment), np.inf
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            c = list(chosen)
            system = np.ones((size + 1, size + 1))
            system[:size, :size], system[size, size] = gram[np.ix_(c, c)], 0
            p = np.linalg.lstsq(system, np.append(moment[c], 1.0), rcond=1e-11)[0][:size]
            if p.min() >= -1e-9 and abs(p.sum() - 1) < 1e-8:
                full = np.zeros(count)
                full[c] = p
                best = min(best, value(gram, moment, full))
    return best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    modes=st.integers(1, 7),
    pixels=st.integers(1, 12),
    kind=st.sampled_from(["random", "inside", "repeated"]),
)
def test_no_support_gives_less(seed, modes, pixels, kind):
    gram, moment = normal(*problem(seed, modes, pixels, kind))
    found = solve(gram, moment)
    assert float(found.residual[0]) <= 1e-9
    p = found.weights[0].numpy()
    assert p.min() >= 0 and abs(p.sum() - 1) <= 1e-12
    scale = 1 + np.abs(gram).max()
    assert abs(value(gram[0], moment[0], p) - enumerated(gram[0], moment[0])) <= 1e-9 * scale


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), modes=st.integers(2, 8), kind=st.sampled_from(["random", "repeated"]))
def test_least_norm_among_the_best(seed, modes, kind):
    """A general solver, from several starts, finds no shorter weights with the same mean."""
    m, y = problem(seed, modes, 4, kind)
    found = solve(*normal(m, y))
    p, m = found.weights[0].numpy(), m[0]
    r = np.random.default_rng(seed)
    best, best_p, spread = p @ p, p, 0.0
    for _ in range(4):
        goal = r.dirichlet(np.ones(modes))
        constraints = [
            {"type": "eq", "fun": lambda x: (x - p) @ m, "jac": lambda x: m.T},
            {"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(modes)},
        ]
        for target in (np.zeros(modes), goal * 3):
            out = minimize(
                lambda x, t=target: ((x - t) ** 2).sum(),
                p,
                jac=lambda x, t=target: 2 * (x - t),
                bounds=[(0, None)] * modes,
                constraints=_independent(constraints, m, modes),
                method="SLSQP",
                options={"ftol": 1e-14, "maxiter": 300},
            )
            if np.abs((out.x - p) @ m).max() < 1e-9 and abs(out.x.sum() - 1) < 1e-9 and out.x.min() > -1e-12:
                spread = max(spread, np.abs(out.x - p).max())
                if out.x @ out.x < best - 1e-9:
                    best, best_p = out.x @ out.x, out.x
    assert best >= p @ p - 1e-7, (p, best_p)
    if bool(found.unique[0]):
        assert spread < 1e-5


def _independent(constraints, m, modes):
    """The same affine subspace by orthonormal equations: SLSQP cannot work with dependent ones."""
    rows = np.concatenate([m.T, np.ones((1, modes))])
    _, s, vt = np.linalg.svd(rows, full_matrices=False)
    basis = vt[s > 1e-9 * s.max()]
    at = constraints[0]["fun"]

    def fun(x):
        # (x - p) through both equations, seen in the basis of their rows
        return basis @ np.linalg.lstsq(rows, np.append(at(x), x.sum() - 1), rcond=1e-10)[0]

    return [{"type": "eq", "fun": fun, "jac": lambda x: basis}]


@pytest.mark.parametrize("kind", ["random", "inside", "repeated"])
@pytest.mark.parametrize("pixels", [60, 500])
def test_conditions_hold_for_128_modes(kind, pixels):
    gram, moment = normal(*problem(3, 128, pixels, kind, batch=3))
    found = solve(gram, moment)
    assert float(found.residual.max()) <= 1e-6
    # computed again by hand
    p = found.weights.numpy()
    g = np.einsum("bij,bj->bi", gram, p) - moment
    mu = (p * g).sum(1, keepdims=True)
    assert ((mu - g) / np.abs(moment).max(1, keepdims=True)).max() <= 1e-6
    assert np.abs(p * (g - mu)).max() / np.abs(moment).max() <= 1e-6
    assert found.unique.tolist() == [kind != "repeated" and (pixels > 128 or kind == "random")] * 3


def test_probabilities_inside_the_simplex_are_recovered():
    m, _ = problem(0, 16, 400)
    p = np.random.default_rng(1).dirichlet(np.ones(16), 1)
    found = solve(*normal(m, np.einsum("bm,bmp->bp", p, m)))
    assert np.abs(found.weights.numpy() - p).max() < 1e-12 and bool(found.unique[0])


def test_vertex_and_projection_in_closed_form():
    """With G = 1 the solution is the Euclidean projection of b onto the simplex (sort and threshold)."""
    b = torch.tensor([[5.0, 0.0, 1.0], [0.5, 0.2, 0.1], [0.4, 0.4, -9.0]]).double()
    found = solve(torch.eye(3).expand(3, 3, 3), b)
    expected = torch.tensor([[1, 0, 0], [0.5 + 1 / 15, 0.2 + 1 / 15, 0.1 + 1 / 15], [0.5, 0.5, 0]]).double()
    assert torch.allclose(found.weights, expected, atol=1e-12)
    r = np.random.default_rng(0)
    b = r.standard_normal((50, 20))
    top = -np.sort(-b, 1)
    theta = ((top.cumsum(1) - 1) / np.arange(1, 21)).max(1, keepdims=True)
    assert np.allclose(
        solve(np.broadcast_to(np.eye(20), (50, 20, 20)), b).weights, np.maximum(b - theta, 0), atol=1e-12
    )


def test_identical_entries_share_evenly():
    m, y = problem(5, 5, 60, "inside")
    wide = m[:, [0, 1, 2, 3, 4, 2, 2, 0]]
    one, many = solve(*normal(m, y)), solve(*normal(wide, y))
    p, q = one.weights[0], many.weights[0]
    assert bool(one.unique[0]) and not bool(many.unique[0])
    expected = torch.stack([p[0] / 2, p[1], p[2] / 3, p[3], p[4], p[2] / 3, p[2] / 3, p[0] / 2])
    assert torch.allclose(q, expected, atol=1e-8)


def test_only_what_can_change_is_ambiguous():
    """Two equal entries outside the support leave the solution unique; an empty problem is shared evenly."""
    m = np.array([[[1.0, 0, 0], [0, 1, 1], [0, 1, 1]]])
    found = solve(*normal(m, np.array([[3.0, -1, -1]])))
    assert found.weights[0].tolist() == [1, 0, 0] and bool(found.unique[0])
    nothing = solve(np.zeros((1, 4, 4)), np.zeros((1, 4)))
    assert torch.allclose(nothing.weights, torch.full((1, 4), 0.25).double()) and not bool(nothing.unique[0])


def test_ambiguous_although_the_support_is_not():
    """The solution of least norm may be a corner of the solutions: the direction leaves it by raising a
    zero."""
    # m1 lies between m0 and m2: (0.8 + s, 0.2 - 2 s, s) are all as good, and s = 0 is the shortest
    m = np.array([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]])
    found = solve(*normal(m, np.array([[0.8, 0.2, 0.0]]) @ m[0]))
    assert found.weights[0].tolist() == pytest.approx([0.8, 0.2, 0], abs=1e-9)
    assert not bool(found.unique[0])
    # (1 - s, s / 3, s / 3, s / 3): the shortest is inside
    m = np.concatenate([np.eye(3).mean(0)[None], np.eye(3)])[None]
    found = solve(*normal(m, m[:, 0]))
    assert found.weights[0].tolist() == pytest.approx([0.25] * 4, abs=1e-9) and not bool(found.unique[0])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), modes=st.integers(1, 20), pixels=st.integers(2, 40))
def test_order_does_not_matter(seed, modes, pixels):
    gram, moment = normal(*problem(seed, modes, pixels, "repeated" if seed % 2 else "random"))
    order = np.random.default_rng(seed).permutation(modes)
    one, other = solve(gram, moment), solve(gram[:, order][:, :, order], moment[:, order])
    assert torch.allclose(one.weights[:, order], other.weights, atol=1e-6)
    assert torch.equal(one.unique, other.unique)


def test_a_batch_is_its_images_and_padding_is_nothing():
    gram, moment = normal(*problem(7, 12, 9, "random", batch=10))
    present = np.random.default_rng(0).random((10, 12)) < 0.7
    present[:, 3] = True
    together = solve(gram, moment, present)
    for b in range(10):
        c = np.flatnonzero(present[b])
        alone = solve(gram[b : b + 1, c][:, :, c], moment[b : b + 1, c])
        assert torch.allclose(together.weights[b, c], alone.weights[0], atol=1e-9)
        assert bool(together.unique[b]) == bool(alone.unique[0])
    assert bool((together.weights[torch.from_numpy(~present)] == 0).all())


def test_scale_does_not_matter():
    gram, moment = normal(*problem(8, 10, 30, "random"))
    for scale in (1e-12, 1e12):
        assert torch.allclose(
            solve(gram, moment).weights, solve(gram * scale, moment * scale).weights, atol=1e-9
        )


def test_moments_that_no_mean_has():
    """b outside the range of G: the slope is followed to the border of the simplex."""
    found = solve(np.zeros((1, 3, 3)), np.array([[0.0, 1.0, 0.5]]))
    assert found.weights[0].tolist() == [0, 1, 0] and float(found.residual[0]) == 0
    r = np.random.default_rng(0)
    factor = r.standard_normal((20, 9, 3))
    found = solve(factor @ factor.swapaxes(1, 2), r.standard_normal((20, 9)))
    assert float(found.residual.max()) <= 1e-6


def test_one_entry_and_mistakes():
    one = solve([[[4.0]]], [[-3.0]])
    assert one.weights.tolist() == [[1.0]] and one.unique.tolist() == [True] and one.residual.tolist() == [0]
    with pytest.raises(AmbisegError, match="image 1 has no entry"):
        solve(torch.eye(2).expand(2, 2, 2), torch.zeros(2, 2), [[True, True], [False, False]])
    with pytest.raises(AmbisegError, match="finite"):
        solve(torch.eye(2)[None], torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(AmbisegError, match="finite"):
        solve(torch.eye(2)[None] * float("inf"), torch.zeros(1, 2))
    with pytest.raises(AmbisegError, match="do not fit"):
        solve(torch.eye(2)[None], torch.zeros(1, 3))
    hidden = solve([[[1.0, float("nan")], [float("nan"), 1.0]]], [[0.0, float("nan")]], [[True, False]])
    assert hidden.weights.tolist() == [[1.0, 0.0]]


def test_a_hundred_problems_take_less_than_a_second():
    gram, moment = normal(*problem(9, 32, 300, "random", batch=100))
    start = time.perf_counter()
    solve(gram, moment)
    assert time.perf_counter() - start < 1
