"""Guidance pushes apart by the gradient or the radius that it declares, whatever the order of the
particles."""

from __future__ import annotations

import math

import pytest
import torch

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.flows.guidance import POTENTIALS, MeanMaskGuidance, ParticleGuidance, Spell, guided
from ambiseg.flows.paths import PATHS, Linear, VarianceExploding, edm_sigma
from ambiseg.flows.solvers import integrate

T = torch.tensor([0.3, 0.8], dtype=torch.float64)
KINDS = [
    ParticleGuidance(Linear()),
    ParticleGuidance(Linear(), potential="log-sum", particles="posterior-mean"),
    Spell(radius=8.0),
    Spell(radius=8.0, strength=0.5),
    Spell(radius=8.0, noise_of=Linear()),
]


def particles(count=5, seed=0):
    """States and posterior means ``(2, count, 1, 3, 4)``."""
    g = torch.Generator().manual_seed(seed)
    z, mean = torch.randn(2, 2, count, 1, 3, 4, generator=g, dtype=torch.float64)
    return z, mean


def separation(x):
    return torch.cdist(x.flatten(2), x.flatten(2))


@pytest.mark.parametrize("guidance", KINDS)
def test_the_order_of_particles_does_not_matter(guidance):
    z, mean = particles()
    order = torch.tensor([3, 0, 4, 1, 2])
    correction = guidance(z, mean, T)
    assert correction.shape == z.shape and (correction != 0).any()
    torch.testing.assert_close(guidance(z[:, order], mean[:, order], T), correction[:, order])


@pytest.mark.parametrize("guidance", KINDS)
def test_images_do_not_see_each_other_and_forces_cancel(guidance):
    z, mean = particles()
    correction = guidance(z, mean, T)
    torch.testing.assert_close(guidance(z[1:], mean[1:], T[1:]), correction[1:])
    torch.testing.assert_close(correction.sum(1), torch.zeros_like(z[:, 0]))


@pytest.mark.parametrize("guidance", KINDS)
def test_one_particle_is_left_alone(guidance):
    z, mean = particles(1)
    assert not guidance(z, mean, T).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("guidance", KINDS)
def test_identical_particles(guidance, dtype):
    """No force between copies, and no copy is lost to a number that is none; the third particle is pushed as
    usual."""
    z, mean = (v.to(dtype) for v in particles(4))
    same = z[:, :1].expand_as(z)
    assert not guidance(same, same, T).any()
    z, mean = (torch.cat([v[:, :1], v[:, :1], v[:, 2:]], 1) for v in (z, mean))
    correction = guidance(z, mean, T)
    assert torch.isfinite(correction).all() and correction.dtype == dtype
    assert torch.equal(correction[:, 0], correction[:, 1]) and (correction[:, 2:] != 0).any()
    mostly = torch.cat([same[:, :3], mean[:, 3:]], 1)
    assert torch.isfinite(guidance(mostly, mostly, T)).all()


@pytest.mark.parametrize("particle", ["state", "posterior-mean"])
@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("path", PATHS)
def test_particle_guidance_is_the_gradient_of_its_potential(path, potential, particle):
    z, mean = particles()
    x = (z if particle == "state" else mean).clone().requires_grad_()
    distance = (x.flatten(2)[:, :, None] - x.flatten(2)[:, None]).square().sum(-1)
    rows, columns = torch.triu_indices(5, 5, 1)
    h = distance[:, rows, columns].sqrt().median(1).values.detach().square() / math.log(5)
    total = torch.exp(-distance / h[:, None, None]).sum((1, 2))
    log_phi = -total / 2 if potential == "sum" else -total.log()
    (gradient,) = torch.autograd.grad(log_phi.sum(), x)
    guidance = ParticleGuidance(PATHS[path], strength=3.0, potential=potential, particles=particle)
    factor = PATHS[path].sigma(T).square() / PATHS[path].alpha(T)
    expected = 3 * factor[:, None, None, None, None] * gradient
    torch.testing.assert_close(guidance(z, mean, T), expected)


@pytest.mark.parametrize("path", PATHS)
def test_a_correction_of_the_score_as_one_of_the_velocity(path):
    """v = (alpha'/alpha) z + ((alpha'/alpha) sigma^2 - sigma sigma') score, at two scores that differ by
    g."""
    path = PATHS[path]
    z, mean = particles()
    g = particles(seed=1)[0]
    a, s, da, ds = (
        f(T)[:, None, None, None, None] for f in (path.alpha, path.sigma, path.d_alpha, path.d_sigma)
    )
    score = (a * mean - z) / s**2
    by_score = da / a * z + (da / a * s**2 - s * ds) * (score + g)
    torch.testing.assert_close(path.velocity(z, mean + s**2 / a * g, T), by_score)


def test_no_particle_guidance_where_the_state_is_noise():
    z, mean = particles()
    start = torch.zeros(2, dtype=torch.float64)
    assert not ParticleGuidance(PATHS["linear"])(z, mean, start).any()
    assert not ParticleGuidance(PATHS["cosine"])(z, mean, start).any()


def test_spell_leaves_particles_alone_that_are_apart():
    z, mean = particles()
    nearest = (separation(mean) + 1e9 * torch.eye(5)).min()
    assert not Spell(radius=0.999 * float(nearest))(z, mean, T).any()
    assert Spell(radius=1.001 * float(nearest))(z, mean, T).any()


@pytest.mark.parametrize("closeness", [1.0, 0.1, 1e-4])
def test_two_particles_end_apart_by_the_radius(closeness):
    """Half the force each: exactly r apart. As published: 2r - |d|, as each moves as if the other stood
    still."""
    z, mean = particles(2)
    mean = mean.mean(1, keepdim=True) + closeness * (mean - mean.mean(1, keepdim=True))
    before, radius = separation(mean)[:, 0, 1], 20.0
    half = mean + Spell(radius, strength=0.5)(z, mean, T)
    torch.testing.assert_close(separation(half)[:, 0, 1], torch.full_like(before, radius))
    torch.testing.assert_close(half.mean(1), mean.mean(1))
    whole = mean + Spell(radius)(z, mean, T)
    torch.testing.assert_close(separation(whole)[:, 0, 1], 2 * radius - before)


def test_one_particle_leaves_the_shield_of_another():
    """As published: D_i + correction lies on the sphere of radius r around the D_j that it was too close
    to."""
    z, mean = particles(2)
    moved = mean + Spell(20.0)(z, mean, T)
    distance = (moved[:, 0] - mean[:, 1]).flatten(1).norm(dim=1)
    torch.testing.assert_close(distance, torch.full_like(distance, 20.0))


@pytest.mark.parametrize("path", PATHS)
def test_guided_velocity_is_that_of_the_corrected_mean(path):
    path = PATHS[path]
    z, mean = particles()
    both = KINDS[1], KINDS[2]
    expected = path.velocity(z, mean + both[0](z, mean, T) + both[1](z, mean, T), T)
    velocity = guided(lambda z, t: path.velocity(z, mean, t), path, *both)
    torch.testing.assert_close(velocity(z, T), expected)
    assert torch.equal(guided(lambda z, t: 2 * z, path)(z, T), 2 * z)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["particle", "spell"])
def test_guidance_of_the_mean_is_the_same_on_every_path(path, kind):
    """The states of one noise level, on a path and as ``x = z/alpha`` of Karras et al.: one correction."""
    path, exploding = PATHS[path], VarianceExploding()
    x, mean = particles()
    level = torch.tensor([60.0, 0.7], dtype=torch.float64)
    t = path.time(level)
    z = path.alpha(t)[:, None, None, None, None] * x

    def push(p):
        return ParticleGuidance(p, 3.0) if kind == "particle" else Spell(8.0, noise_of=p)

    torch.testing.assert_close(push(path)(z, mean, t), push(exploding)(x, mean, level))


@pytest.mark.parametrize(
    "guidance", [ParticleGuidance(Linear(), particles="posterior-mean"), Spell(radius=3.0)]
)
def test_planted_particles_and_the_window(guidance):
    """Two that are near and two far away. The near ones are pushed apart, within the window alone; SPELL leaves
    those alone that are beyond its radius."""
    mean = torch.zeros(1, 4, 1, 3, 4, dtype=torch.float64)
    mean[0, 0, 0, 0, 0], mean[0, 1, 0, 0, 0] = 0.5, -0.5
    mean[0, 2], mean[0, 3] = 10.0, -10.0
    path, z = Linear(), particles(4)[0][:1]
    field = guided(lambda z, t: path.velocity(z, mean, t), path, guidance, least_noise=70.0)
    inside, outside = path.time(torch.tensor([[80.0], [69.0]], dtype=torch.float64))
    assert torch.equal(field(z, outside), path.velocity(z, mean, outside))
    pushed = path.posterior_mean(z, field(z, inside), inside) - mean
    assert float(pushed[0, 0, 0, 0, 0]) > 0 and float(pushed[0, 1, 0, 0, 0]) < 0
    if isinstance(guidance, Spell):
        torch.testing.assert_close(pushed[0, 2:], torch.zeros_like(pushed[0, 2:]))
        assert float(pushed[0, 0, 0, 0, 0]) == pytest.approx(3 / 1 - 1)


def test_the_window_is_that_of_each_image():
    z, mean = particles()
    path, spell = Linear(), Spell(8.0)
    t = path.time(torch.tensor([80.0, 5.0], dtype=torch.float64))
    field = guided(lambda z, t: path.velocity(z, mean, t), path, spell, least_noise=40.0)
    change = field(z, t) - path.velocity(z, mean, t)
    assert change[0].any() and not change[1].any()


def test_guidance_of_mean_masks_is_the_gradient_of_its_kernel():
    """Through a denoiser that is not linear, for images of different medians; the other particle is fixed."""
    x, _ = particles()
    x[1] *= 3
    level = torch.tensor([80.0, 75.0], dtype=torch.float64)
    a = torch.randn(12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def denoise(x, level):
        return torch.tanh(x.flatten(2) @ a.T).reshape(x.shape)

    slope = torch.ones_like(x)
    ahead, counted = MeanMaskGuidance(denoise, 25.0, least_noise=70.0)(x, slope, level)
    assert torch.equal(counted, slope) and not ahead.requires_grad
    for image in range(2):
        at = x[image].clone().requires_grad_()
        masks = (denoise(at[None], None)[0].flatten(1) + 1) / 2
        distance = (masks[:, None] - masks.detach()[None]).square().sum(-1)
        distance = torch.where(distance > 0, distance, torch.ones_like(distance)).sqrt() * (distance > 0)
        h = distance.detach().flatten().sort().values[12] ** 2 / math.log(5)
        (gradient,) = torch.autograd.grad(torch.exp(-distance / h).sum(), at)
        torch.testing.assert_close(ahead[image], slope[image] - 25.0 * level[image] * gradient)
    one, same = MeanMaskGuidance(denoise), x[:, :1].expand_as(x)
    assert torch.equal(one(x[:, :1], slope[:, :1], level)[0], slope[:, :1])
    assert torch.equal(one(same, slope, level)[0], slope)
    mixed = MeanMaskGuidance(denoise, least_noise=78.0)(x, slope, level)[0]
    assert torch.equal(mixed[1], slope[1]) and not torch.equal(mixed[0], slope[0])


def test_spell_by_the_noise_level():
    z, mean = particles()
    plain, scaled = Spell(8.0)(z, mean, T), Spell(8.0, noise_of=Linear())(z, mean, T)
    torch.testing.assert_close(scaled, edm_sigma(T, Linear())[:, None, None, None, None] * plain)


@pytest.mark.parametrize(
    "guidance", [(ParticleGuidance(Linear(), 2.0),), (Spell(2.0),)], ids=["particles", "spell"]
)
def test_guided_samples_find_the_rare_mode(guidance):
    """Masks 1 (95 %) and -1 (5 %): six samples that see each other cover both more often than six that do
    not."""
    path = Linear()

    def velocity(z, t):
        a, s = path.alpha(t)[:, None, None, None], path.sigma(t)[:, None, None, None].clamp(min=1e-3)
        return path.velocity(z, torch.tanh((a * z) / s**2 + math.log(0.95 / 0.05) / 2), t)

    z = torch.randn(300, 6, 1, 1, generator=torch.Generator().manual_seed(0))
    alone = integrate(velocity, z, 20, "heun", last="euler")
    together = integrate(guided(velocity, path, *guidance), z, 20, "heun", last="euler")
    found = [float(((x > 0).any(1) & (x < 0).any(1)).float().mean()) for x in (alone, together)]
    assert found[0] == pytest.approx(1 - 0.95**6, abs=0.06) and found[1] > found[0] + 0.1


def test_mistakes_are_named():
    with pytest.raises(UnknownNameError, match="potential"):
        ParticleGuidance(Linear(), potential="logsum")
    with pytest.raises(UnknownNameError, match="particles"):
        ParticleGuidance(Linear(), particles="states")
    for radius in (0.0, -1.0, math.nan):
        with pytest.raises(AmbisegError, match="radius"):
            Spell(radius)
