"""Image2Image VAE: the bound and its divergence, what the posterior sees, and latents that reach the
masks."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ambiseg.distributions.latent import Gaussian
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.losses.mask_losses import cross_entropy
from ambiseg.maskset import MaskSet
from ambiseg.methods.image2image_vae import Image2ImageVAESettings
from ambiseg.methods.image2image_vae.model import Image2ImageVAE
from ambiseg.networks.settings import UNetSettings
from model_helpers import train, two_masks_each

BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(4)


def make(labels=BINARY, kind="unet", depth=2, **settings):
    torch.manual_seed(0)
    backbone = UNetSettings(width=8, depth=depth, kind=kind)
    return Image2ImageVAE(3, labels, backbone, Image2ImageVAESettings(**settings))


def random_masks(labels, count=2):
    return torch.randint(0, labels.classes, (count, 8, 8), dtype=torch.uint8)


def test_divergence_is_that_of_torch():
    mean, log_variance = 3 * torch.randn(5, 6), 3 * torch.randn(5, 6)
    prior = Normal(torch.zeros(6), torch.ones(6))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), prior).sum(1)
    torch.testing.assert_close(
        Gaussian(mean, log_variance).kl(Gaussian.standard(mean)).sum(1), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("labels", [BINARY, MULTI], ids=["binary", "multi-class"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_the_loss_is_the_bound_over_the_pixels_that_count(labels, beta):
    model, images, masks = make(labels, beta=beta), torch.randn(2, 3, 8, 8), random_masks(labels)
    masks[0, 2:] = 255
    torch.manual_seed(3)
    found = model.loss(images, MaskSet.uniform(masks[:, None], labels))
    torch.manual_seed(3)
    torch.multinomial(torch.ones(2, 1), 1)
    q = model.posterior(masks)
    mean, posterior = q.mean, Normal(q.mean, (q.log_variance / 2).exp())
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    nats = cross_entropy(model(images, mean + posterior.scale * torch.randn(2, 6)), masks, labels)
    torch.testing.assert_close(found["loss"], (nats + beta * divergence).sum() / (16 + 64))
    torch.testing.assert_close(found["kl"], divergence.mean())


def test_the_bound_is_below_the_likelihood():
    """The likelihood of a small model, by 2000 latents of the prior: never below the mean of the bound."""
    model, images, masks = (
        make(latent_size=1),
        torch.randn(1, 3, 4, 4),
        torch.zeros(1, 4, 4, dtype=torch.uint8),
    )
    torch.nn.init.normal_(model.g.stem.weight, std=1.0)
    y = MaskSet.uniform(masks[:, None], BINARY)
    with torch.no_grad():
        z = torch.randn(2000, 1)
        nats = cross_entropy(model(images.expand(2000, -1, -1, -1), z), masks.expand(2000, -1, -1), BINARY)
        likelihood = torch.logsumexp(-nats, 0) - torch.tensor(2000.0).log()
        bound = -16 * torch.stack([model.loss(images, y)["loss"] for _ in range(100)]).mean()
        found = model.log_prob(images, masks, 2000)
    assert float(bound) < float(likelihood) + 0.05
    assert float(found) == pytest.approx(float(likelihood), abs=0.1)


def test_the_posterior_sees_the_mask_alone_and_not_what_is_void():
    model, masks = make(MULTI), random_masks(MULTI)
    before = model.posterior(masks)
    changed = masks.clone()
    changed[0, 4, 4] = (changed[0, 4, 4] + 1) % 4
    after = model.posterior(changed)
    assert not torch.equal(before.mean[0], after.mean[0]) and torch.equal(before.mean[1], after.mean[1])
    seen = []
    model.q.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    changed[0, :4] = 255
    model.posterior(changed)
    assert set(seen[0].unique().tolist()) == {-0.5, 0.0, 0.5} and bool((seen[0][0, :, :4] == 0).all())


def test_log_variances_stay_in_their_bound():
    model = make(log_variance_bound=2.0)
    torch.nn.init.normal_(model.q.out.weight, std=1e4)
    log_variance = model.posterior(random_masks(BINARY)).log_variance
    assert float(log_variance.detach().abs().max()) <= 2.0


@pytest.mark.parametrize("kind", ["unet", "ncsnpp"])
def test_the_latent_reaches_the_masks(kind):
    model, images = make(kind=kind, latent_size=2).eval(), torch.randn(1, 3, 8, 8)
    z = torch.randn(1, 2, requires_grad=True)
    model(images, z).sum().backward()
    assert bool((z.grad != 0).all())
    shares = model.predict(images, 5, torch.Generator().manual_seed(0)).probabilities
    assert shares[0].unique(dim=0).shape[0] == 5


def test_samples_are_passes_of_latents_of_the_generator():
    """Also where there are more than are computed together; the global random numbers stay where they are."""
    model, images = make().eval(), torch.randn(3, 3, 8, 8)
    state = torch.get_rng_state()
    found = model.predict(images, 50, torch.Generator().manual_seed(7)).probabilities
    assert torch.equal(state, torch.get_rng_state())
    z = torch.randn(3, 50, 6, generator=torch.Generator().manual_seed(7))
    for k in (0, 20, 21, 49):
        torch.testing.assert_close(found[:, k], model(images, z[:, k]).sigmoid())


def test_two_masks_of_an_image_are_both_sampled():
    model, (images, annotations) = make(latent_size=2, depth=1), two_masks_each()
    found = train(model, images, annotations, 160).predict(images, 64, torch.Generator().manual_seed(0)).masks
    near = [
        (found == annotations.masks[:, k : k + 1]).flatten(2).float().mean(2).ge(0.95).float().mean(1)
        for k in range(2)
    ]
    assert float(torch.stack(near).min()) > 0.2


def test_all_but_last_is_frozen_with_the_posterior():
    model = make()
    model.freeze("all-but-last")
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"h.weight", "h.bias"}


@pytest.mark.parametrize("settings", [{"latent_size": 0}, {"beta": -1.0}, {"log_variance_bound": 0.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(AmbisegError, match="received"):
        make(**settings)
