"""Properties of coverage and of expected draws: independent versions, closed forms, invariances, simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Case, Plain, cases, properties, table
from scipy.integrate import quad

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.coverage import (
    coverage,
    covered_mass,
    draws_of,
    expected_draws,
    modes_hit,
    precision_at,
)

BINARY = LabelSpace.binary()
FULL, HALF, EMPTY = [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]
METRICS = (coverage, covered_mass, modes_hit, precision_at, expected_draws)
taus = st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.6, 0.75, 1.0])


def uniform(*masks: list[int]) -> MaskSet:
    return MaskSet.uniform(torch.tensor([masks], dtype=torch.uint8), BINARY)


def reaches(value: float, tau: float) -> bool:
    """An IoU of float64 against tau, both sides rounding alike."""
    return value > tau - 1e-7


def shown(p: Plain, a: Plain, labels: LabelSpace, tau: float) -> dict[int, float]:
    """Probability that a draw shows each mode: the first of the nearest, if near enough."""
    modes = a.merged()
    chance = dict.fromkeys(range(len(modes.masks)), 0.0)
    for row, u in zip(table(p, modes, labels), p.weights, strict=True):
        nearest = next(j for j, value in enumerate(row) if value > max(row) - 1e-7)
        if reaches(row[nearest], tau):
            chance[nearest] += u
    return chance


def inclusion_exclusion(q: list[float]) -> float:
    """``sum over non-empty S of (-1)^(|S| + 1) / q(S)``."""
    if min(q) <= 0:
        return math.inf
    subsets = itertools.chain.from_iterable(itertools.combinations(q, size) for size in range(1, len(q) + 1))
    return math.fsum((-1) ** (len(s) + 1) / math.fsum(s) for s in subsets)


def expected(case: Case, value: torch.Tensor, function: Callable[[Plain, Plain], float]) -> None:
    assert value.shape == (len(case.images),) and value.dtype == torch.float32
    np.testing.assert_allclose(value.numpy(), [function(p, a) for p, a in case.images], rtol=1e-6, atol=1e-6)


@properties
@given(cases(), taus)
def test_coverage_against_loops(case: Case, tau: float) -> None:
    def by_mode(p: Plain, a: Plain) -> list[tuple[float, bool]]:
        modes = a.merged()
        best = table(p, modes, case.labels).max(0)
        return [(v, reaches(value, tau)) for v, value in zip(modes.weights, best, strict=True)]

    def precise(p: Plain, a: Plain) -> float:
        best = table(p, a, case.labels).max(1)
        return sum(u for u, value in zip(p.weights, best, strict=True) if reaches(value, tau))

    pair = Comparison(case.predictions, case.annotations)
    expected(case, coverage(pair, tau=tau), lambda p, a: float(np.mean([hit for _, hit in by_mode(p, a)])))
    expected(case, covered_mass(pair, tau=tau), lambda p, a: sum(v for v, hit in by_mode(p, a) if hit))
    expected(case, precision_at(pair, tau=tau), precise)


@properties
@given(cases(), taus)
def test_modes_and_draws_against_loops(case: Case, tau: float) -> None:
    pair = Comparison(case.predictions, case.annotations)
    expected(
        case,
        modes_hit(pair, tau=tau),
        lambda p, a: sum(q > 0 for q in shown(p, a, case.labels, tau).values()),
    )
    expected(
        case,
        expected_draws(pair, tau=tau),
        lambda p, a: inclusion_exclusion(list(shown(p, a, case.labels, tau).values())),
    )


@properties
@given(cases())
def test_bounds_and_relations(case: Case) -> None:
    pair = Comparison(case.predictions, case.annotations)
    count = pair.modes.count.float()
    for tau in (0.0, 0.4, 0.8, 1.0):
        for metric in (coverage, covered_mass, precision_at):
            value = metric(pair, tau=tau)
            assert bool(((value >= 0) & (value <= 1 + 1e-6)).all())
        hit, draws = modes_hit(pair, tau=tau), expected_draws(pair, tau=tau)
        assert bool((hit <= coverage(pair, tau=tau) * count + 1e-5).all())
        assert bool((hit <= pair.predictions.count).all())
        assert bool((draws >= count - 1e-4).all()), "at least one draw for each mode"
        assert torch.equal(draws.isinf(), hit < count)
    for metric in (coverage, covered_mass, precision_at):
        torch.testing.assert_close(metric(pair, tau=0), torch.ones(len(count)))


@properties
@given(cases())
def test_everything_falls_with_tau(case: Case) -> None:
    pair = Comparison(case.predictions, case.annotations)
    levels = torch.linspace(0, 1, 9).tolist()
    for metric in METRICS:
        sign = -1 if metric is expected_draws else 1
        values = sign * torch.stack([metric(pair, tau=tau) for tau in levels])
        assert bool((values[1:] <= values[:-1] + 1e-5).all()), metric


@properties
@given(cases(void=False))
def test_the_truth_reaches_itself(case: Case) -> None:
    pair = Comparison(case.annotations, case.annotations)
    for metric in (coverage, covered_mass, precision_at):
        torch.testing.assert_close(metric(pair, tau=1), torch.ones(len(case.images)))
    # Without void pixels, distinct masks have IoU below 1.
    torch.testing.assert_close(modes_hit(pair, tau=1), pair.modes.count.float())
    expected(case, expected_draws(pair, tau=1), lambda p, a: inclusion_exclusion(a.merged().weights.tolist()))


@properties
@given(cases(), taus)
def test_duplicates_count_once(case: Case, tau: float) -> None:
    again = torch.tensor([[0, *range(case.annotations.masks.shape[1])]] * len(case.images))
    twice = case.annotations.gather(again).normalised()
    for metric in (coverage, modes_hit, precision_at, expected_draws):
        torch.testing.assert_close(
            metric(case.predictions, twice, tau), metric(case.predictions, case.annotations, tau)
        )
    merged = case.predictions.merge_identical()
    for metric in METRICS:
        torch.testing.assert_close(
            metric(merged, case.annotations, tau),
            metric(case.predictions, case.annotations, tau),
            atol=1e-6,
            rtol=1e-5,
        )


@properties
@given(cases(), taus)
def test_order_does_not_matter(case: Case, tau: float) -> None:
    def shuffled(given: MaskSet) -> MaskSet:
        order = torch.randperm(given.masks.shape[1], generator=torch.Generator().manual_seed(1))
        return given.gather(order.repeat(len(given), 1))

    for metric in METRICS:
        torch.testing.assert_close(
            metric(shuffled(case.predictions), case.annotations, tau),
            metric(case.predictions, case.annotations, tau),
            atol=1e-6,
            rtol=1e-5,
        )
    for metric in (coverage, covered_mass, precision_at):  # the others break ties by order
        torch.testing.assert_close(
            metric(case.predictions, shuffled(case.annotations), tau),
            metric(case.predictions, case.annotations, tau),
        )


@properties
@given(cases())
def test_padding_is_not_there(case: Case) -> None:
    wide = case.predictions.padded(9), case.annotations.padded(11)
    for metric in METRICS:
        for tau in (0.0, 0.5):
            torch.testing.assert_close(
                metric(*wide, tau=tau), metric(case.predictions, case.annotations, tau)
            )


def test_closed_forms() -> None:
    truth = uniform(FULL, FULL, FULL, EMPTY)
    half = uniform(HALF)
    assert coverage(half, truth).item() == 0.5, "an IoU equal to tau reaches"
    assert coverage(half, truth, 0.51).item() == 0
    assert covered_mass(half, truth).item() == 0.75
    assert modes_hit(half, truth).item() == 1
    assert precision_at(uniform(HALF, EMPTY, [0, 0, 0, 1]), truth).item() == pytest.approx(2 / 3)
    assert expected_draws(uniform(FULL, EMPTY), truth).item() == pytest.approx(3)
    assert expected_draws(uniform(FULL, EMPTY, [0, 0, 0, 1]), truth).item() == pytest.approx(4.5)
    assert expected_draws(half, truth).item() == math.inf


def test_a_prediction_between_two_modes_belongs_to_the_first() -> None:
    three, other = [1, 1, 1, 0], [0, 1, 1, 1]
    between = uniform([0, 1, 1, 0])
    assert coverage(between, uniform(three, other)).item() == 1
    assert modes_hit(between, uniform(three, other)).item() == 1
    both = uniform([0, 1, 1, 0], three)
    assert modes_hit(both, uniform(three, other)).item() == 1
    assert modes_hit(both, uniform(other, three)).item() == 2


def test_means_over_classes_reach_tau_despite_rounding() -> None:
    labels = LabelSpace.of_classes(4)
    a = torch.tensor([[[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3]]], dtype=torch.uint8)
    b = torch.tensor([[[1, 0, 0, 2, 2, 0, 3, 3, 3, 0, 0, 0, 0]]], dtype=torch.uint8)
    sets = MaskSet.uniform(b, labels), MaskSet.uniform(a, labels)
    exact = (1 / 3 + 2 / 3 + 3 / 7) / 3
    assert coverage(*sets, tau=exact).item() == modes_hit(*sets, tau=exact).item() == 1
    assert coverage(*sets, tau=exact + 1e-4).item() == 0


def test_planted_faults_show() -> None:
    truth = uniform(FULL, HALF, EMPTY)
    hedged = uniform(FULL, HALF, EMPTY, [0, 0, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0])
    collapsed = uniform(FULL, FULL, FULL)
    rare = replace(uniform(FULL, HALF, EMPTY), weights=torch.tensor([[0.98, 0.01, 0.01]]))
    assert coverage(hedged, truth, 0.9).item() == 1 and precision_at(hedged, truth, 0.9).item() == 0.5
    assert coverage(collapsed, truth, 0.9).item() < 0.5 and precision_at(collapsed, truth, 0.9).item() == 1
    assert expected_draws(rare, truth, 0.9).item() > 100 > expected_draws(truth, truth, 0.9).item()
    assert expected_draws(hedged, truth, 0.9).item() == pytest.approx(11)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100, 500])
def test_uniform_collector_takes_n_harmonic_n(n: int) -> None:
    wanted = n * math.fsum(1 / k for k in range(1, n + 1))
    assert draws_of(torch.full((1, n), 1 / n, dtype=torch.float64)).item() == pytest.approx(wanted, rel=1e-9)
    # Half of the draws show nothing: twice as many are needed.
    half = torch.full((1, n), 0.5 / n, dtype=torch.float64)
    assert draws_of(half).item() == pytest.approx(2 * wanted, rel=1e-9)


@properties
@given(st.floats(1e-6, 0.5), st.floats(1e-6, 0.5))
def test_two_things(a: float, b: float) -> None:
    q = torch.tensor([[a, b]], dtype=torch.float64)
    assert draws_of(q).item() == pytest.approx(1 / a + 1 / b - 1 / (a + b), rel=1e-9)


@properties
@given(st.lists(st.floats(-6, 0), min_size=1, max_size=8), st.floats(0.1, 1))
def test_collector_against_inclusion_exclusion(logs: list[float], total: float) -> None:
    q = np.power(10.0, logs)
    q *= total / max(q.sum(), 1)
    value = draws_of(torch.from_numpy(q)[None]).item()
    assert value == pytest.approx(inclusion_exclusion(q.tolist()), rel=1e-8)
    assert value >= max(1 / q.min(), len(q)) * (1 - 1e-9)


def test_collector_of_many_uneven_things_against_adaptive_quadrature() -> None:
    rng = np.random.default_rng(0)
    for n in (50, 300):
        q = 10 ** rng.uniform(-6, 0, n)
        q /= q.sum()

        def missing(t: float, q: np.ndarray = q) -> float:
            return float(-np.expm1(np.log1p(-np.exp(-q * t)).sum()))

        edges = [1e-3, *np.logspace(-2, 9.5, 47)]
        parts = [quad(missing, *ends, epsabs=0, epsrel=1e-10)[0] for ends in itertools.pairwise(edges)]
        value = draws_of(torch.from_numpy(q)[None]).item()
        assert value == pytest.approx(1e-3 + math.fsum(parts), rel=1e-7)


def test_collector_against_simulation() -> None:
    rng = np.random.default_rng(0)
    q = [0.4, 0.2, 0.1]
    counts = []
    for _ in range(4000):
        seen: set[int] = set()
        count = 0
        while not {0, 1, 2} <= seen:
            seen.add(int(rng.choice(4, p=[*q, 0.3])))
            count += 1
        counts.append(count)
    error = np.std(counts) / math.sqrt(len(counts))
    assert abs(np.mean(counts) - draws_of(torch.tensor([q])).item()) < 4 * error


def test_collector_of_rare_things() -> None:
    assert draws_of(torch.tensor([[1e-30]], dtype=torch.float64)).item() == pytest.approx(1e30, rel=1e-9)
    assert draws_of(torch.tensor([[1.0]])).item() == pytest.approx(1)
    assert draws_of(torch.tensor([[1.0, 0.0]])).item() == math.inf
    q = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    there = torch.tensor([[True, False], [True, True]])
    torch.testing.assert_close(draws_of(q, there), torch.tensor([1.0, 3.0]))
    assert draws_of(q, ~there).tolist()[1] == 0
    assert draws_of(q.double()).dtype == torch.float64 and draws_of(q.long()).dtype == torch.float32


@pytest.mark.parametrize("tau", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("metric", METRICS)
def test_tau_is_an_iou(metric: Callable[..., torch.Tensor], tau: float) -> None:
    with pytest.raises(AmbisegError, match="tau is an IoU"):
        metric(uniform(FULL), uniform(FULL), tau)


@pytest.mark.parametrize(
    "q",
    [
        torch.tensor([[-0.1, 0.5]]),
        torch.tensor([[1.5]]),
        torch.tensor([[math.nan]]),
        torch.tensor([[0.7, 0.7]]),
        torch.tensor([0.5, 0.5]),
    ],
)
def test_probabilities_are_checked(q: torch.Tensor) -> None:
    with pytest.raises(AmbisegError, match="^q "):
        draws_of(q)
