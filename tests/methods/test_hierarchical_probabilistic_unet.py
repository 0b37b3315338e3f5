"""Hierarchical probabilistic U-Net: drawn pixels, divergences and likelihoods agree with plain versions, latents act
where they should, and the multiplier of the constraint follows its closed form."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ambiseg import memory_budget
from ambiseg.errors import AmbisegError, TrainingWarning
from ambiseg.labels import LabelSpace
from ambiseg.losses.evidence import MOST_MULTIPLIER, UPDATES_BETWEEN_LOOKS, Geco, evidence_loss
from ambiseg.losses.hard_pixels import hard_pixels
from ambiseg.losses.mask_losses import cross_entropy, pixel_cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.hierarchical_probabilistic_unet import HierarchicalProbabilisticUNetSettings
from ambiseg.methods.hierarchical_probabilistic_unet.model import HierarchicalProbabilisticUNet
from ambiseg.networks.backbone import build_backbone
from ambiseg.networks.hpunet import HPUNet
from ambiseg.networks.settings import UNetSettings
from ambiseg.networks.truncated import truncated
from ambiseg.overlap import pairwise_overlap

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)
SMALL = UNetSettings(width=4, depth=3, max_width=8)
PLAIN = UNetSettings(kind="hpunet", width=4, depth=3, max_width=8)
KINDS = pytest.mark.parametrize("backbone", [SMALL, PLAIN], ids=["unet", "hpunet"])


def make(labels=BINARY, backbone=SMALL, seed=0, **settings):
    torch.manual_seed(seed)
    chosen = HierarchicalProbabilisticUNetSettings(**{"latents": (2, 1), **settings})
    return HierarchicalProbabilisticUNet(3, labels, backbone, chosen).eval()


def batch(labels=BINARY, count=2, size=(8, 12), masks=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, labels.classes, (count, masks, *size), dtype=torch.uint8, generator=g)
    return torch.randn(count, 3, *size, generator=g), MaskSet.uniform(drawn, labels)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def value(model, images, annotations, seed=0):
    torch.manual_seed(seed)
    return model.loss(images, annotations)


# -- pixels that count ---------------------------------------------------------------------------------------


def test_all_pixels_give_the_plain_cross_entropy():
    images, annotations = batch(MULTI)
    annotations.masks[0, 0, :3] = 255
    plain, drawn = (make(MULTI, constraint="beta", top_k=share) for share in (1.0, 0.1))
    logits, masks = torch.randn(2, 4, 8, 12), annotations.masks[:, 0]
    nats, counted = plain.misfit(logits, masks)
    torch.testing.assert_close(nats, cross_entropy(logits, masks, MULTI))
    assert counted.tolist() == [5 * 12, 8 * 12]
    losses = value(plain, images, annotations)
    expected = (2 * losses["cross_entropy"] + 2 * losses["kl"]) / (13 * 12)
    torch.testing.assert_close(losses["loss"].detach(), expected)
    nats, counted = drawn.misfit(logits, masks)
    assert int(counted.sum()) == math.floor(0.1 * 13 * 12)


def test_the_worst_pixels_are_those_of_a_sorted_list():
    nats, valid = torch.rand(3, 5, 7, generator=seeded()), torch.rand(3, 5, 7, generator=seeded(1)) < 0.6
    found = hard_pixels(nats, valid, 0.2, stochastic=False)
    best = sorted(nats[valid].tolist(), reverse=True)[: int(0.2 * int(valid.sum()))]
    assert sorted(nats[found].tolist(), reverse=True) == best
    assert not bool((found & ~valid).any())


def test_pixels_are_drawn_in_proportion_to_their_nats():
    """One of four pixels, many times at once: each image is a batch of its own in a plain loop."""
    torch.manual_seed(0)
    nats, valid = torch.tensor([[1.0, 2.0, 5.0, 9.0]]), torch.tensor([[True, True, True, False]])
    counts = sum(hard_pixels(nats, valid, 0.34).float() for _ in range(2000))[0] / 2000
    torch.testing.assert_close(counts, torch.tensor([1, 2, 5, 0]) / 8, atol=0.04, rtol=0)


@pytest.mark.parametrize("share", [1e-6, 0.02, 1.0])
def test_edges_of_the_draw(share):
    """At least one pixel counts; void never does; pixels without loss are drawn where there are no others."""
    nats = torch.zeros(1, 4, 4)
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    assert int(hard_pixels(nats, valid, share).sum()) == 0
    valid[0, 1, 2] = True
    assert torch.equal(hard_pixels(nats, valid, share), valid)
    assert int(hard_pixels(nats, ~valid, share).sum()) == max(1, int(share * 15))


def test_an_image_without_a_drawn_pixel_keeps_its_divergence():
    """Only images that are nothing but void have no part in it."""
    nats, kl = torch.tensor([6.0, 0.0, 0.0]), torch.tensor([[1.0, 2.0], [3.0, 0.0], [50.0, 50.0]])
    found = evidence_loss(nats, kl, torch.tensor([9, 9, 0]), counted=torch.tensor([2, 0, 0]))
    assert float(found["loss"]) == pytest.approx((6 + 3 + 3) / 2)
    assert float(found["kl"]) == pytest.approx(3)


# -- the hierarchy -------------------------------------------------------------------------------------------


def plain_decoder(model, network, scales, images, latents):
    """Distributions and features of one sample of one image, scale by scale; ``latents`` maps scale and torch's normal
    distribution to the latent."""
    encoded, found = network.encode(images), []
    x = encoded.levels[-1]
    for i in range(len(model.latents)):
        x = network.decode(encoded, x, i - 1, i) if i else x
        mean, log_sigma = scales.out[i](x).chunk(2, 1)
        bound = model.settings.log_variance_bound
        log_sigma = bound * torch.tanh(2 * log_sigma / bound) / 2
        found.append(Normal(mean, log_sigma.exp()))
        z = latents(i, found[-1])
        if i < len(scales.join):
            x = torch.cat([z, x], 1) if scales.concatenated else x + scales.join[i](z)
    return found, encoded, x


@KINDS
def test_the_divergence_is_that_of_plain_loops(backbone):
    """Also the latents of the posterior, which enter the decoder of the prior."""
    model, (images, annotations) = make(backbone=backbone), batch()
    mask = annotations.masks[:, 0]
    with torch.no_grad():
        torch.manual_seed(3)
        logits, divergence = model.explained(model.encode(images), images, mask)
        torch.manual_seed(3)
        noise = [torch.randn(2, 1, n, *size)[:, 0] for n, size in [(2, (2, 3)), (1, (4, 6))]]
        seen = torch.cat([images, mask[:, None].float() - 0.5], 1)
        z = []

        def placed(i, q):
            z.append(q.loc + q.scale * noise[i])
            return z[-1]

        q, _, _ = plain_decoder(model, model.posterior, model.posterior_scales, seen, placed)
        p, encoded, x = plain_decoder(model, model.g, model.prior_scales, images, lambda i, _: z[i])
        expected = torch.stack([kl_divergence(*pair).flatten(1).sum(1) for pair in zip(q, p, strict=True)], 1)
        torch.testing.assert_close(divergence, expected)
        torch.testing.assert_close(logits, model.head(model.g.decode(encoded, x, 1)))


@KINDS
def test_samples_are_those_of_plain_loops(backbone, monkeypatch):
    """Each with noise of its own at every scale, whatever the parts; the way down runs once."""
    model, (images, _) = make(MULTI, backbone), batch(MULTI)
    encodes = []
    original = model.g.encode
    monkeypatch.setattr(model.g, "encode", lambda x: (encodes.append(1), original(x))[1])
    whole = model.predict(images, 5, seeded()).probabilities
    monkeypatch.setattr(memory_budget, "MASKS", 4)
    torch.testing.assert_close(model.predict(images, 5, seeded()).probabilities, whole)
    assert len(encodes) == 2
    g = seeded()
    noise = [torch.randn(2, 5, n, *size, generator=g) for n, size in [(2, (2, 3)), (1, (4, 6))]]
    with torch.no_grad():
        for k in (0, 4):
            _, encoded, x = plain_decoder(
                model, model.g, model.prior_scales, images, lambda i, p, k=k: p.loc + p.scale * noise[i][:, k]
            )
            logits = model.head(model.g.decode(encoded, x, 1))
            torch.testing.assert_close(whole[:, k], MULTI.probabilities(logits), atol=1e-5, rtol=1e-4)


def test_scales_that_are_not_drawn_are_at_their_mean():
    model, (images, _) = make(), batch()
    with torch.no_grad():
        for join in model.prior_scales.join:
            join.weight.mul_(30)
    still = model.predict_scales(images, [], 3, seeded()).probabilities
    assert torch.equal(still[:, 0], still[:, 1])
    every = model.predict_scales(images, [0, 1], 3, seeded()).probabilities
    torch.testing.assert_close(every, model.predict(images, 3, seeded()).probabilities)
    for scale in (0, 1):
        some = model.predict_scales(images, [scale], 3, seeded()).probabilities
        assert not torch.allclose(some[:, 0], some[:, 1], atol=1e-4)
    with pytest.raises(AmbisegError, match="from 0, the coarsest, to 1, received 2"):
        model.predict_scales(images, [2])


@KINDS
def test_a_posterior_that_is_the_prior_has_no_divergence(backbone):
    """The bound of the likelihood is then the mean likelihood of samples."""
    model, (images, annotations) = make(backbone=backbone), batch()
    mask = annotations.masks[:, 0]
    with torch.no_grad():
        for scales in (model.prior_scales, model.posterior_scales):
            for layer in scales.out:
                layer.weight.zero_(), layer.bias.fill_(0.3)
    _, divergence = model.explained(model.encode(images), images, mask)
    assert float(divergence.detach().abs().max()) == 0
    logits = torch.cat(list(model.drawn(model.encode(images), 6, seeded())), 1).detach()
    nats = torch.stack([cross_entropy(logits[:, k], mask, BINARY) for k in range(6)], 1)
    expected = (-nats).logsumexp(1) - math.log(6)
    torch.testing.assert_close(model.log_prob(images, mask, 6, seeded()), expected, atol=1e-3, rtol=1e-4)


def test_one_sample_of_the_bound_is_its_terms():
    """log P(Y|X, z) + log P(z|X) - log Q(z|X, Y) with densities of torch."""
    model, (images, annotations) = make(seed=1), batch(seed=1)
    mask = annotations.masks[:, 0]
    found = model.log_prob(images, mask, 1, seeded())
    g = seeded()
    noise = [torch.randn(2, 1, n, *size, generator=g)[:, 0] for n, size in [(2, (2, 3)), (1, (4, 6))]]
    z = []
    with torch.no_grad():
        seen = torch.cat([images, mask[:, None].float() - 0.5], 1)

        def placed(i, q):
            z.append(q.loc + q.scale * noise[i])
            return z[-1]

        q, _, _ = plain_decoder(model, model.posterior, model.posterior_scales, seen, placed)
        p, encoded, x = plain_decoder(model, model.g, model.prior_scales, images, lambda i, _: z[i])
        logits = model.head(model.g.decode(encoded, x, 1))
        expected = -cross_entropy(logits, mask, BINARY)
        for one, sign in ((p, 1), (q, -1)):
            for i, d in enumerate(one):
                expected = expected + sign * d.log_prob(z[i]).flatten(1).sum(1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_the_posterior_ends_at_its_last_latent():
    """A network without the layers behind it computes the same; the others learn."""
    torch.manual_seed(0)
    whole = build_backbone(3, SMALL)
    images = torch.randn(1, 3, 8, 8)
    expected = whole.decode(whole.encode(images), last=1)
    count = sum(p.numel() for p in whole.parameters())
    kept = truncated(whole, 1)
    assert torch.equal(kept.decode(kept.encode(images), last=1), expected)
    assert sum(p.numel() for p in kept.parameters()) < count
    assert kept.training and all(part.training for part in kept.modules())


def test_a_concatenated_latent_is_seen_by_the_block_below():
    """``hpunet`` has room for it in the first block of a layer, and nowhere else."""
    with torch.device("meta"):
        plain, joined = HPUNet(3, PLAIN), HPUNet(3, PLAIN, latents=(2,))
    inner, outputs = 4, 8
    more = sum(p.numel() for p in joined.parameters()) - sum(p.numel() for p in plain.parameters())
    assert more == 2 * (9 * inner + outputs)


@pytest.mark.parametrize(("labels", "masks"), [(BINARY, 2), (MULTI, 3)])
def test_the_iou_of_reconstructions_is_that_of_pairs(labels, masks):
    model, (images, annotations) = make(labels), batch(labels, masks=masks)
    annotations.masks[0, 0, :2] = 255
    annotations.weights[:] = torch.tensor([0.5, 0.3, 0.2])[:masks]
    expected = torch.zeros(2)
    for k in range(masks):
        mask = annotations.masks[:, k]
        made = model.reconstruct(images, mask).masks
        expected += annotations.weights[:, k] * pairwise_overlap(made, mask[:, None], labels).iou()[:, 0, 0]
    torch.testing.assert_close(model.reconstruction_iou(images, annotations), expected)


# -- the constraint ------------------------------------------------------------------------------------------


def test_the_multiplier_is_the_closed_form_of_a_constant_constraint():
    """The running mean after t steps is c (1 - m^t), so log lambda = eta c sum_t (1 - m^t)."""
    geco, m, eta, c = Geco(0.5, speed=0.02, memory=0.9), 0.9, 0.02, 0.4
    terms = [float(geco(torch.tensor(0.5 * (1 + c)))) for _ in range(30)]
    log = [eta * c * sum(1 - m**s for s in range(1, t + 1)) for t in range(30)]
    assert terms == pytest.approx([0.2 * math.exp(one) for one in log], rel=1e-4)
    geco.eval()(torch.tensor(9.0))
    assert float(geco.violation) == pytest.approx(c * (1 - m**30), rel=1e-4)


def test_a_bound_out_of_reach_is_said_once():
    geco = Geco(0.1, speed=1.0, memory=0.0)
    with pytest.warns(TrainingWarning, match=r"above its bound of 0\.1 nats.*raise geco_target") as caught:
        for _ in range(3 * UPDATES_BETWEEN_LOOKS):
            geco(torch.tensor(5.0))
    assert len(caught) == 1
    assert float(geco.multiplier) == MOST_MULTIPLIER
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = Geco(0.1, speed=1.0, memory=0.0)
        for _ in range(2 * UPDATES_BETWEEN_LOOKS):
            kept(torch.tensor(0.05))
    assert float(kept.multiplier) == pytest.approx(1 / MOST_MULTIPLIER)


def test_the_loss_is_that_of_the_constraint_per_drawn_pixel():
    model, (images, annotations) = make(geco_target=0.2, top_k=0.25), batch()
    losses = value(model, images, annotations)
    drawn = int(0.25 * annotations.masks.numel())
    rest = 2 * losses["cross_entropy"] / drawn - 0.2
    torch.testing.assert_close(losses["loss"].detach(), 2 * losses["kl"] / drawn + rest)
    model.train()
    for _ in range(3):
        value(model, images, annotations)
    assert float(model.geco.multiplier) > 1


@KINDS
@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_extremes_stay_finite(backbone, labels, half):
    """Empty, full and one-pixel masks, with log-variances driven apart as far as they go."""
    masks = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    masks[1], masks[2, 0, 3, 4] = 1, 1
    model, images = make(labels, backbone, top_k=0.1).train(), torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        for scales, extreme in ((model.prior_scales, 1e3), (model.posterior_scales, -1e3)):
            for layer, channels in zip(scales.out, model.latents, strict=True):
                layer.bias[channels:] += extreme
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        losses = value(model, images, MaskSet.uniform(masks, labels))
    losses["loss"].backward()
    assert all(bool(v.isfinite()) and v.dtype == torch.float32 for v in losses.values())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unet", "hpunet"])
def test_more_scales_than_resolutions_are_refused(kind):
    backbone = UNetSettings(kind=kind, width=4, depth=3)
    with pytest.raises(AmbisegError, match=r"latents has 3 scales.*3 resolutions has room for 2.*depth=4"):
        make(backbone=backbone, latents=(1, 1, 1))
    with pytest.raises(AmbisegError, match="one resolution and no room for a latent"):
        make(backbone=UNetSettings(kind=kind, width=4, depth=1), latents=())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("latents", (0, 1)),
        ("beta", -1.0),
        ("log_variance_bound", -1.0),
        ("geco_target", 0.0),
        ("geco_speed", -0.1),
        ("geco_memory", 1.0),
        ("top_k", 0.0),
        ("top_k", 1.5),
    ],
)
def test_settings_out_of_range_are_refused(name, wrong):
    with pytest.raises(AmbisegError, match=f"{name} (is|are) .*received"):
        make(**{name: wrong})


def test_pixels_sum_to_the_cross_entropy():
    logits, masks = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 3, 5))
    masks[0, 0] = 255
    pixels = pixel_cross_entropy(logits, masks, MULTI)
    expected = -logits.log_softmax(1).gather(1, masks.clamp(max=3)[:, None])[:, 0] * (masks < 255)
    torch.testing.assert_close(pixels, expected)
