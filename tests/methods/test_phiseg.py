"""PHiSeg: its loss by plain loops, the hierarchy of latents, residual masks, and limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from ambiseg import memory_budget
from ambiseg.distributions.latent import Gaussian, hierarchy_kl
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.phiseg import PHiSegSettings
from ambiseg.methods.phiseg.model import PHiSeg
from ambiseg.networks.settings import UNetSettings
from model_helpers import perturbed

BINARY, MULTI = LabelSpace.binary(ignore_value=255), LabelSpace.of_classes(3, ignore_value=255)
SMALL = UNetSettings(width=4, depth=3, max_width=8)


def make(labels=BINARY, backbone=SMALL, **settings):
    torch.manual_seed(0)
    chosen = PHiSegSettings(**{"latent_levels": 2, **settings})
    return perturbed(PHiSeg(2, labels, backbone, chosen), 0.1).eval()


def batch(labels=BINARY, height=11, width=6):
    g = torch.Generator().manual_seed(1)
    images = torch.randn(2, 2, height, width, generator=g)
    masks = torch.randint(0, labels.classes, (2, height, width), generator=g).to(torch.uint8)
    masks[0, :2, 3:] = 255
    return images, masks


def plain_kl(mean, log_variance, other_mean, other_log_variance):
    total, values = 0.0, [t.flatten().tolist() for t in (mean, log_variance, other_mean, other_log_variance)]
    for m, s, n, t in zip(*values, strict=True):
        total += 0.5 * (math.exp(s - t) + (n - m) ** 2 / math.exp(t) + t - s - 1)
    return total


def test_the_divergence_of_a_hierarchy_is_that_of_plain_loops():
    g = torch.Generator().manual_seed(0)
    levels = [
        [Gaussian(*torch.randn(2, 3, 2, *size, generator=g)) for size in ((4, 3), (2, 2))] for _ in range(2)
    ]
    found = hierarchy_kl(*levels)
    for b in range(3):
        for level, (q, p) in enumerate(zip(*levels, strict=True)):
            wanted = plain_kl(q.mean[b], q.log_variance[b], p.mean[b], p.log_variance[b])
            assert found[b, level].item() == pytest.approx(wanted, rel=1e-5)


def test_spatial_latents_have_the_density_of_a_vector():
    g = torch.Generator().manual_seed(0)
    mean, spread, z = (torch.randn(2, *k, 3, 2, 2, generator=g) for k in ((), (), (4,)))
    spatial = Gaussian(mean, spread)
    flat = Gaussian(mean.flatten(1), spread.flatten(1))
    torch.testing.assert_close(spatial.log_prob(z), flat.log_prob(z.flatten(2)))
    torch.testing.assert_close(spatial.place(z).flatten(2), flat.place(z.flatten(2)))


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
@pytest.mark.parametrize("settings", [{}, {"deep_supervision": False, "beta": 0.5, "level_factor": 1.0}])
def test_the_loss_is_that_of_plain_loops(labels, settings):
    model, (images, masks) = make(labels, **settings), batch(labels)
    torch.manual_seed(7)
    with torch.no_grad():
        annotations = MaskSet.uniform(masks[:, None], labels)
        found = model.loss(images, annotations)
        torch.manual_seed(7)
        annotations.sample_one()  # then the coarsest latent is drawn, then the next one
        maps, seen = model.encode(images).maps, model._seen_with(images, masks)
        latents, kl = [], []
        for level in (1, 0):
            nets = [(model.posterior, seen), (model.prior, maps)]
            inputs = [m[level + 1] for _, m in nets]
            if latents:
                up = functional.interpolate(latents[0], scale_factor=2.0, mode="bilinear")
                inputs = [n.merge[0](torch.cat([m[1], n.up[0](up)], 1)) for n, m in nets]
            moments = [
                (n.mean[level](x), 2 * (functional.softplus(n.spread[level](x)) + 1e-5).log())
                for (n, _), x in zip(nets, inputs, strict=True)
            ]
            mean, spread = moments[0]
            latents.insert(0, mean + (spread / 2).exp() * torch.randn_like(mean))
            kl.insert(0, sum(plain_kl(*(t[b] for pair in moments for t in pair)) for b in range(2)))
        logits = model._logits(latents, (11, 6), all_levels=True)
    pixels = [(b, y, x) for b in range(2) for y in range(11) for x in range(6) if masks[b, y, x] != 255]
    nats = 0.0
    for s in logits if model.settings.deep_supervision else logits[:1]:
        chance = labels.all_classes(labels.probabilities(s), dim=1)
        nats -= sum(math.log(chance[b, int(masks[b, y, x]), y, x]) for b, y, x in pixels)
    factor = model.settings.level_factor
    wanted = (nats + model.settings.beta * (kl[0] + factor * kl[1])) / len(pixels)
    assert found["loss"].item() == pytest.approx(wanted, rel=1e-4)
    assert found["cross_entropy"].item() == pytest.approx(nats / 2, rel=1e-4)
    assert found["kl"].item() == pytest.approx(sum(kl) / 2, rel=1e-4)


def test_a_latent_depends_on_coarser_ones_only():
    model = make(backbone=UNetSettings(width=4, depth=4, max_width=8), latent_levels=3)
    maps = model.encode(torch.randn(1, 2, 16, 16)).maps
    noise = [torch.randn(1, 1, 2, side, side) for side in (8, 4, 2)]

    def distributions(changed):
        def place(level, given):
            z = given.place(noise[level])[:, 0]
            return z + 1 if level == changed else z

        return model.prior(maps, place)[1]

    with torch.no_grad():
        before = distributions(None)
        for changed in range(3):
            after = distributions(changed)
            same = [torch.equal(a.mean, b.mean) for a, b in zip(after, before, strict=True)]
            # One of the next coarser level is enough: that of level 0 sees level 2 through level 1.
            assert same == [level >= changed for level in range(3)]


def test_masks_are_sums_of_what_the_levels_add():
    model, (images, _) = make(), batch()
    shared = model.encode(images)
    latents, _ = model.prior(shared.maps, lambda level, given: given.mean)
    with torch.no_grad():
        whole = model._logits(latents, shared.size, all_levels=True)
        for level in range(2):  # without what finer levels add
            bare = make()
            for finer in range(level):
                torch.nn.init.zeros_(bare.likelihood.out[finer].weight)
                torch.nn.init.zeros_(bare.likelihood.out[finer].bias)
            torch.testing.assert_close(bare._logits(latents, shared.size)[0], whole[level])
    blocks = functional.max_pool2d(whole[1][..., :10, :], 2) + functional.max_pool2d(
        -whole[1][..., :10, :], 2
    )
    assert float(blocks.abs().max()) == 0.0  # level 1 is constant in blocks of 2x2


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_one_level_is_a_plain_variational_autoencoder(depth):
    model = make(latent_levels=1, backbone=UNetSettings(width=4, depth=depth, max_width=8), level_factor=9.0)
    images, masks = batch()
    logits, divergence = model.explained(model.encode(images), images, masks)
    assert divergence.shape == (2, 1) and model.part_weights == (1.0,)
    assert logits.shape == (2, 1, 11, 6)


def test_the_likelihood_is_a_mean_where_the_posterior_is_the_prior(monkeypatch):
    model, (images, masks) = make(MULTI), batch(MULTI)
    monkeypatch.setattr(model, "_seen_with", lambda images, masks: model.encode(images).maps)
    model.posterior = model.prior
    found = model.log_prob(images, masks, 5, torch.Generator().manual_seed(2))
    with torch.no_grad():
        drawn = model.predict(images, 5, torch.Generator().manual_seed(2)).probabilities
    chance = drawn.gather(2, masks[:, None, None].long().clamp(max=2).expand(-1, 5, 1, -1, -1))[:, :, 0]
    each = (chance.log() * (masks != 255)[:, None]).flatten(2).sum(2)
    torch.testing.assert_close(found, each.logsumexp(1) - math.log(5), atol=1e-3, rtol=1e-4)


def test_samples_do_not_depend_on_the_parts_and_the_image_is_encoded_once(monkeypatch):
    model, (images, masks) = make(), batch()
    calls = []
    model.g.register_forward_hook(lambda *_: calls.append(1))
    encode = model.g.encode
    monkeypatch.setattr(model.g, "encode", lambda *a: calls.append(1) or encode(*a))
    whole = [
        model.predict(images, 7, torch.Generator().manual_seed(0)).probabilities,
        model.log_prob(images, masks, 7, torch.Generator().manual_seed(0)),
    ]
    assert len(calls) == 2
    monkeypatch.setattr(memory_budget, "ELEMENTS", 1)
    parts = [
        model.predict(images, 7, torch.Generator().manual_seed(0)).probabilities,
        model.log_prob(images, masks, 7, torch.Generator().manual_seed(0)),
    ]
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-5)
    assert whole[0].flatten(2).std(1).max() > 1e-3


def test_extreme_masks_have_finite_losses_and_gradients():
    model, images = make(MULTI).train(), torch.zeros(4, 2, 8, 8)
    masks = torch.stack([torch.full((8, 8), value) for value in (0, 2, 255, 0)]).to(torch.uint8)
    masks[3, 4, 4] = 1
    model.loss(images, MaskSet.uniform(masks[:, None], MULTI))["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    void = model.loss(images[2:3], MaskSet.uniform(masks[2:3, None], MULTI))
    assert {value.item() for value in void.values()} == {0.0}


def test_more_latent_levels_than_resolutions_are_refused():
    with pytest.raises(
        AmbisegError,
        match=r"latent_levels 4 is above the 3 resolutions of the network: choose --set latent_levels=3",
    ):
        make(latent_levels=4)


def test_a_network_whose_levels_cannot_be_had_alone_is_refused():
    with pytest.raises(
        AmbisegError, match="NCSNpp does not give its levels alone.*backbone.kind=unet or phiseg"
    ):
        make(backbone=UNetSettings(kind="ncsnpp", width=8, depth=2))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("latent_levels", -1),
        ("latent_channels", 0),
        ("level_factor", 0.0),
        ("level_factor", math.nan),
        ("beta", -1.0),
    ],
)
def test_settings_out_of_range_are_refused(name, wrong):
    with pytest.raises(AmbisegError, match=f"{name} is .*received {wrong}"):
        make(**{name: wrong})
