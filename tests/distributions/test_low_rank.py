"""The low-rank normal distribution agrees with dense ones, draws what it says and can be fitted; effective rank has
its closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from ambiseg.distributions.low_rank import LowRankNormal, effective_rank
from ambiseg.errors import AmbisegError

SIZE = 6


def make(rank, size=SIZE, batch=2, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    mean, diagonal, factor = (
        torch.randn(batch, *shape, generator=g, dtype=dtype) for shape in ((size,), (size,), (size, rank))
    )
    return LowRankNormal(mean, diagonal.exp(), factor)


@pytest.mark.parametrize("rank", [1, 3, SIZE])
def test_density_and_entropy_are_those_of_torch(rank):
    normal = make(rank)
    low = LowRankMultivariateNormal(normal.mean, normal.factor, normal.diagonal)
    dense = MultivariateNormal(normal.mean, normal.covariance())
    x = torch.randn(2, 5, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for other in (low, dense):
        torch.testing.assert_close(normal.log_prob(x), other.log_prob(x.transpose(0, 1)).T)
        torch.testing.assert_close(normal.entropy(), other.entropy())
    torch.testing.assert_close(normal.log_prob(x[:, 0]), normal.log_prob(x)[:, 0])


def test_full_rank_is_any_covariance():
    """What the diagonal leaves of a covariance goes into a square factor."""
    root = torch.randn(1, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    covariance = root @ root.mT + 0.1 * torch.eye(SIZE)
    diagonal = torch.full((1, SIZE), 0.05, dtype=torch.float64)
    normal = LowRankNormal(
        torch.zeros(1, SIZE, dtype=torch.float64),
        diagonal,
        torch.linalg.cholesky(covariance - torch.diag_embed(diagonal)),
    )
    torch.testing.assert_close(normal.covariance(), covariance)
    x = torch.randn(1, SIZE, dtype=torch.float64)
    torch.testing.assert_close(
        normal.log_prob(x), MultivariateNormal(normal.mean, covariance).log_prob(x), rtol=1e-9, atol=0
    )


def test_gradients_of_the_density_are_right():
    normal = make(3, size=4, batch=1)
    x = torch.randn(1, 4, dtype=torch.float64)
    parameters = [value.clone().requires_grad_() for value in (normal.mean, normal.diagonal, normal.factor)]
    assert torch.autograd.gradcheck(lambda *p: LowRankNormal(*p).log_prob(x), parameters)


def test_huge_dependent_columns_keep_an_exact_density():
    """Three equal columns are one of sqrt(3) times the length; the product ``I + W^T W`` has lost its
    definiteness here."""
    size, ones = 500, torch.ones(1, 500, 1, dtype=torch.float64)
    mean, diagonal = (
        torch.zeros(1, size, dtype=torch.float64),
        torch.full((1, size), 1e-5, dtype=torch.float64),
    )
    three = LowRankNormal(mean, diagonal, 1e6 * ones.expand(-1, -1, 3))
    one = LowRankNormal(mean, diagonal, 1e6 * math.sqrt(3) * ones)
    w = (three.factor / diagonal.sqrt()[..., None])[0]
    assert torch.linalg.cholesky_ex(torch.eye(3) + w.T @ w).info > 0
    x = 1e-3 * torch.randn(1, 4, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(three.log_prob(x), one.log_prob(x), rtol=1e-6, atol=0)
    closed = size * math.log(1e-5) + math.log1p(3e12 * size / 1e-5) + size * (1 + math.log(2 * math.pi))
    assert float(three.entropy()) == pytest.approx(closed / 2, rel=1e-9)


def test_many_variables_need_no_square_matrix():
    normal = make(4, size=100_000, batch=1, dtype=torch.float32)
    assert normal.sample(2).shape == (1, 2, 100_000)
    assert torch.isfinite(normal.log_prob(normal.sample(2))).all() and torch.isfinite(normal.entropy()).all()


def test_samples_have_the_mean_and_covariance():
    normal, count = make(2), 200_000
    draws = normal.sample(count, torch.Generator().manual_seed(0))
    scale = normal.covariance().diagonal(dim1=1, dim2=2).sqrt()
    assert ((draws.mean(1) - normal.mean) / scale).abs().max() < 5 / count**0.5
    for b in range(2):
        error = (torch.cov(draws[b].T) - normal.covariance()[b]) / torch.outer(scale[b], scale[b])
        assert error.abs().max() < 8 / count**0.5
    # the entropy is the mean of minus the log-density
    torch.testing.assert_close(-normal.log_prob(draws).mean(1), normal.entropy(), rtol=0.01, atol=0)


def test_antithetic_draws_cancel_and_follow_the_same_law():
    normal = make(2)
    draws = normal.sample(100_000, torch.Generator().manual_seed(0), antithetic=True)
    torch.testing.assert_close(draws.mean(1), normal.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(draws[:, 0] + draws[:, 50_000], 2 * normal.mean)
    expected = normal.covariance()[0]
    torch.testing.assert_close(
        torch.cov(draws[0].T), expected, rtol=0, atol=0.03 * float(expected.diagonal().max())
    )
    assert normal.sample(5, antithetic=True).shape == (2, 5, SIZE)


def test_temperature_scales_the_deviation_alone():
    normal = make(3)
    one, cool, none = (
        normal.sample(4, torch.Generator().manual_seed(0), temperature=t) - normal.mean[:, None]
        for t in (1, 0.5, 0)
    )
    torch.testing.assert_close(cool, one / 2)
    assert bool((none == 0).all())


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_cut_rank_is_that_of_the_singular_values(rank):
    normal = make(5)
    u, s, v = torch.linalg.svd(normal.factor, full_matrices=False)
    best = (u[..., :rank] * s[:, None, :rank]) @ v[:, :rank]
    torch.testing.assert_close(normal.truncated(rank).factor, best)
    same = [
        other.sample(3, torch.Generator().manual_seed(0), rank=k)
        for other, k in ((normal, rank), (LowRankNormal(normal.mean, normal.diagonal, best), None))
    ]
    torch.testing.assert_close(*same)
    if rank == 5:
        assert torch.equal(same[0], normal.sample(3, torch.Generator().manual_seed(0)))


def test_a_known_law_is_fitted_from_its_draws():
    """Gradient descent on `log_prob` recovers covariance and likelihood of a rank-2 distribution of 12 variables from
    3000 draws."""
    true = make(2, size=12, batch=1, seed=3)
    train, fresh = (true.sample(n, torch.Generator().manual_seed(n)) for n in (3000, 20_000))
    g = torch.Generator().manual_seed(0)
    mean, log_diagonal, factor = (
        (0.1 * torch.randn(1, 12, *shape, generator=g, dtype=torch.float64)).requires_grad_()
        for shape in ((), (), (2,))
    )
    optimiser = torch.optim.Adam([mean, log_diagonal, factor], 0.1)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimiser.zero_grad()
        (-LowRankNormal(mean, log_diagonal.exp(), factor).log_prob(train).mean()).backward()
        optimiser.step()
    fitted = LowRankNormal(*(v.detach() for v in (mean, log_diagonal.exp(), factor)))
    gap = float(true.log_prob(fresh).mean() - fitted.log_prob(fresh).mean())
    assert abs(gap) < 0.01 * abs(float(true.log_prob(fresh).mean()))
    error = torch.linalg.matrix_norm(fitted.covariance() - true.covariance())
    assert float(error / torch.linalg.matrix_norm(true.covariance())) < 0.1


def test_effective_rank_of_known_spectra():
    assert float(effective_rank(torch.eye(7))) == pytest.approx(7)
    assert float(effective_rank(torch.outer(torch.ones(5), torch.arange(5.0)))) == pytest.approx(1)
    assert float(effective_rank(torch.zeros(3, 3))) == 0
    halves = 0.5 ** torch.arange(1, 60, dtype=torch.float64)
    assert float(effective_rank(halves)) == pytest.approx(
        4
    )  # entropy of the geometric distribution of 1/2: 2 log 2 nats


def test_effective_rank_is_invariant_and_below_the_rank():
    normal = make(3)
    parts = normal.factor @ normal.factor.mT
    found = effective_rank(parts)
    torch.testing.assert_close(found, normal.effective_rank())
    torch.testing.assert_close(
        found, torch.stack([effective_rank(torch.linalg.eigvalsh(m).abs()) for m in parts])
    )
    turn = torch.linalg.qr(torch.randn(SIZE, SIZE, dtype=torch.float64)).Q
    torch.testing.assert_close(found, effective_rank(3 * turn @ parts @ turn.T))
    assert bool((found >= 1).all()) and bool((found <= 3).all())


def test_mistakes_are_named():
    normal = make(3)
    with pytest.raises(AmbisegError, match="rank 7 does not fit 6 variables"):
        make(7)
    with pytest.raises(AmbisegError, match="rank 0 does not fit"):
        make(0)
    with pytest.raises(AmbisegError, match="do not fit: pass"):
        LowRankNormal(normal.mean, normal.diagonal[:, :3], normal.factor)
    for words, wrong in (
        ("at least one draw, received 0", lambda: normal.sample(0)),
        ("temperature is 0 or more, received -1", lambda: normal.sample(2, temperature=-1)),
        ("rank 3 cannot be cut to rank 4", lambda: normal.sample(2, rank=4)),
        ("cannot be cut to rank 0", lambda: normal.truncated(0)),
        ("0 or more, received -1", lambda: effective_rank(torch.tensor([1.0, -1.0]))),
        ("finite", lambda: effective_rank(torch.tensor([[math.nan]]))),
    ):
        with pytest.raises(AmbisegError, match=words):
            wrong()
