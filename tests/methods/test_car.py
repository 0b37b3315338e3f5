"""CAR: three losses from one backward pass, what each network sees, pauses of the discriminator, and the networks of
the public code."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional

from ambiseg.engine.encoder_rate import FACTOR, parameter_groups
from ambiseg.engine.settings import AdamW, TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import METHODS, build
from ambiseg.methods.car import CARSettings
from ambiseg.methods.car.losses import LEAST, divergence, expected, log_all_classes, squared_gradient
from ambiseg.methods.car.model import CAR
from ambiseg.methods.car.published import PublishedDiscriminator, SegNet
from ambiseg.methods.unet_ensemble import UNetEnsembleSettings
from ambiseg.networks.settings import UNetSettings

SMALL = UNetSettings(width=8, depth=2)
BINARY, MULTI = LabelSpace.binary(), LabelSpace.of_classes(3)
SPACES = pytest.mark.parametrize(
    "labels", [BINARY, LabelSpace(softmax=True), MULTI], ids=["binary", "two-channel", "multi"]
)


def make(labels=BINARY, channels=2, backbone=SMALL, **settings):
    torch.manual_seed(0)
    values = {"discriminator_width": 4, "train_samples": 2, **settings}
    return CAR(channels, labels, backbone, CARSettings(**values))


def data(labels=BINARY, size=8, masks=1, channels=2):
    g = torch.Generator().manual_seed(1)
    images = torch.randn(3, channels, size, size, generator=g)
    drawn = torch.randint(0, labels.classes, (3, masks, size, size), generator=g).to(torch.uint8)
    drawn[0, :, :3] = 255
    return images, MaskSet.uniform(drawn, labels)


def gradients(model):
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def plain_losses(model, images, y):
    """L_ce, L_G and L_D by loops over images and samples, each of them a graph of its own."""
    s, labels = model.settings, model.labels
    logits = model.f(images)
    z = torch.randn(len(images), s.train_samples, s.latent_size)
    fake = model.refined(images, logits, z)
    entropy, calibration, adversarial, critic = [], [], [], []
    for b, image in enumerate(images):
        valid = labels.valid(y[b])
        shares = labels.all_classes(labels.probabilities(logits[b : b + 1]), 1)[0]
        right = shares.gather(0, y[b].long().masked_fill(~valid, 0)[None])[0]
        entropy.append(-right.log()[valid].mean())
        p = labels.all_classes(fake[b].mean(0)[None], 1)[0]
        q = shares.detach()
        calibration.append((p * (p / q).log()).sum(0)[valid].mean())

        def score(mask, image=image, valid=valid):
            return model.d(torch.cat([image, (mask - 0.5) * valid])[None])[0, 0]

        adversarial.append(torch.stack([functional.softplus(-score(sample)) for sample in fake[b]]).mean())
        real = torch.cat([image, (labels.one_hot(y[b : b + 1], 1)[0] - 0.5) * valid]).requires_grad_()
        of_real = model.d(real[None])[0, 0]
        (slope,) = torch.autograd.grad(of_real, real, create_graph=True)
        of_fake = functional.softplus(score(fake[b, 0].detach()))
        critic.append(functional.softplus(-of_real) + of_fake + s.gradient_penalty * slope.square().sum())
    ce, kl, adv, d = (torch.stack(part).mean() for part in (entropy, calibration, adversarial, critic))
    return ce, s.adversarial_weight * adv + s.calibration_weight * kl, d, kl


@SPACES
def test_one_backward_pass_gives_each_network_the_gradient_of_its_own_loss(labels):
    model, (images, annotations) = make(labels).train(), data(labels)
    torch.manual_seed(3)
    found = model.loss(images, annotations)
    found["loss"].backward()
    ours = gradients(model)
    torch.manual_seed(3)
    torch.multinomial(torch.ones(3, 1), 1)
    ce, generator, critic, kl = plain_losses(model, images, annotations.masks[:, 0])
    for part, loss in (("f.", ce), ("g.", generator), ("d.", critic)):
        model.zero_grad()
        loss.backward(retain_graph=True)
        for name, gradient in gradients(model).items():
            if name.startswith(part):
                torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found["loss"], ce + model.settings.calibration_weight * kl)


def test_one_optimiser_takes_the_step_of_three():
    rates = {"discriminator_rate": 0.05, "calibration_rate": 2.5}
    model, (images, annotations) = make(**rates).train(), data()
    train = TrainSettings(optimiser=AdamW(betas=(0.5, 0.99)))
    groups = parameter_groups(model, train)
    owners = {id(p): name[0] for name, p in model.named_parameters()}
    for group in groups:
        assert len({owners[id(p)] for p in group["params"]}) <= 1
        expected_rate = {"f": 2.5, "g": 1.0, "d": 0.05}[owners[id(group["params"][0])]]
        assert group.get(FACTOR, 1.0) == expected_rate
    assert sum(len(group["params"]) for group in groups) == len(owners)
    assert [group for group in parameter_groups(make(), train) if FACTOR in group] == []
    model.loss(images, annotations)["loss"].backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for group in groups:
        group.update(lr=1e-3 * group.get(FACTOR, 1.0), weight_decay=0.0)
    torch.optim.Adam(groups).step()
    for name, p in model.named_parameters():
        rate = 1e-3 * {"f": 2.5, "g": 1.0, "d": 0.05}[name[0]]
        step = -rate * p.grad / (p.grad.abs() + 1e-8)
        torch.testing.assert_close(p.detach() - before[name], step, rtol=1e-3, atol=2e-7)


@SPACES
def test_divergence_is_that_of_torch_and_zero_for_equal_means(labels):
    logits = 2 * torch.randn(2, labels.channels, 3, 4)
    log_q = log_all_classes(logits, labels)
    p = torch.rand(2, labels.classes, 3, 4).softmax(1)
    q, other = Categorical(log_q.exp().movedim(1, -1)), Categorical(p.movedim(1, -1))
    torch.testing.assert_close(divergence(p, log_q), kl_divergence(other, q), rtol=1e-4, atol=1e-5)
    assert float(divergence(log_q.exp(), log_q).abs().max()) < 1e-5
    sure = functional.one_hot(torch.zeros(1, 1, 1).long(), 2).movedim(-1, 1).float()
    assert float(divergence(sure, (1 - sure).log())) == pytest.approx(-math.log(LEAST), rel=1e-4)


def test_the_penalty_of_a_linear_score_is_the_square_of_its_weights():
    w, x = torch.randn(5), torch.randn(4, 5, requires_grad=True)
    torch.testing.assert_close(squared_gradient(x @ w, x), w.square().sum().expand(4))


def test_expected_is_the_weighted_sum_of_masks():
    _, annotations = data(MULTI, masks=3)
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]])
    target, mass = expected(MaskSet(annotations.masks, weights, MULTI))
    plain = torch.zeros_like(target)
    for b in range(3):
        for k in range(3):
            for c in range(3):
                plain[b, c] += weights[b, k] * (annotations.masks[b, k] == c)
    torch.testing.assert_close(target, plain)
    assert float(mass[0, :3].max()) == 0 and torch.allclose(mass[1], torch.ones(()))


def test_the_discriminator_sees_nothing_where_an_annotation_is_void():
    model, (images, annotations) = make(MULTI).train(), data(MULTI)
    seen = []
    model.d.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    model.loss(images, annotations)
    fakes, real, fake = seen
    assert fakes.shape[0] == 6 and torch.equal(fakes[:3], fake)
    for maps in (fake, real):
        assert bool((maps[0, 2:, :3] == 0).all()) and torch.equal(maps[:, :2], images)
    assert set(real[0, 2:, 3:].unique().tolist()) == {-0.5, 0.5}


def test_without_its_loss_the_discriminator_has_no_say():
    images, annotations = data()
    found = []
    for spread in (0.0, 1.0):
        model = make(adversarial_weight=0.0).train()
        with torch.no_grad():
            model.d.out.weight.add_(spread)
        torch.manual_seed(2)
        model.loss(images, annotations)["loss"].backward()
        found.append(gradients(model))
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0] if n[0] in "fg")


def test_the_discriminator_pauses():
    model, (images, annotations) = make(discriminator_updates=1, discriminator_pause=2).train(), data()
    learnt = []
    for _ in range(4):
        model.zero_grad()
        model.loss(images, annotations)["loss"].backward()
        learnt.append(model.d.out.weight.grad is not None)
        assert model.g.inject[-1].last.weight.grad is not None
    assert learnt == [True, False, False, True] and int(model.steps) == 4
    with torch.no_grad():
        model.loss(images, annotations)
    model.eval().loss(images, annotations)
    assert int(model.steps) == 4


def test_a_discriminator_that_is_always_right_does_not_learn():
    images, annotations = data()
    for bias, learns in ((0.0, False), (50.0, True)):
        model = make(accuracy_cap=0.6).train()
        model.d = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 1))
        with torch.no_grad():
            model.d[1].weight.zero_()
            model.d[1].bias.fill_(bias)
            # The sum of squares of a mask of -1/2 and 1/2 is the same for all: a bias alone has accuracy 1/2.
            if not learns:
                model.d[1].weight[0, 128:] = 1.0
                annotations = MaskSet.uniform(torch.ones_like(annotations.masks), BINARY)
                model.d[1].bias.fill_(-31.0)
        model.loss(images, annotations)["loss"].backward()
        assert (model.d[1].weight.grad is not None) == learns


def test_a_black_box_is_seen_by_the_calibration_network_alone():
    model = make(channels=4, black_box_channels=1).eval()
    images, z = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8)
    other = images.clone()
    other[:, 3] += 1
    logits = model.calibration(images)
    assert not torch.equal(logits, model.calibration(other))
    assert torch.equal(model.refined(images, logits, z), model.refined(other, logits, z))
    assert model.d.layers[0].in_channels == 3 + 1


def test_a_frozen_calibration_network_comes_from_a_unet():
    unet = build("unet-ensemble", 2, BINARY, SMALL, UNetEnsembleSettings(members=1)).eval()
    model = make(train_calibration=False)
    assert model.needs_init and not make().needs_init
    model.start_from(unet)
    images, annotations = data()
    model.train().loss(images, annotations)["loss"].backward()
    assert {name[0] for name, p in model.named_parameters() if p.grad is not None} == {"g", "d"}
    shares = unet.predict(images).probabilities[:, 0]
    torch.testing.assert_close(model.pixel_probabilities(images), shares)
    assert METHODS["car"].starts_from["unet-ensemble"](model.settings, unet.settings) is model.settings
    with pytest.raises(AmbisegError, match="calibration network where channels"):
        make(MULTI).start_from(unet)


def test_all_but_last_is_frozen_in_both_networks():
    model = make()
    model.freeze("all-but-last")
    parts = {n.split(".")[0] + n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad}
    assert parts == {"fh", "ginject", "dlayers", "dout"}
    with pytest.raises(AmbisegError, match="no encoder to freeze"):
        make(calibration="small", refinement="published").freeze("encoder")


@pytest.mark.parametrize("layers", [1, 3])
def test_samples_share_one_encoding_and_do_not_depend_on_their_parts(layers):
    model = make(backbone=UNetSettings(width=4, depth=4), noise_layers=layers).eval()
    images, calls = torch.randn(2, 2, 16, 16), []
    model.g.network.stem.register_forward_hook(lambda *_: calls.append(1))
    found = model.predict(images, 5, torch.Generator().manual_seed(0)).probabilities
    assert len(calls) == 1
    z = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    alone = model.refined(images, model.calibration(images), z[:, 3:4]).detach()
    torch.testing.assert_close(found[:, 3], alone[:, 0], rtol=1e-4, atol=1e-5)
    assert found[0].unique(dim=0).shape[0] == 5


# -- the networks of the public code -------------------------------------------------------------------------


def convolution(inputs, outputs, kernel=3, bias=True):
    return kernel**2 * inputs * outputs + outputs * bias


def normed(inputs, outputs, kernel=3):
    return convolution(inputs, outputs, kernel) + 2 * outputs


def segnet(channels, classes):
    """VGG-19 with batch normalisation; a decoder stage repeats one convolution, which counts once."""
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    down = sum(normed(*pair) for pair in zip([channels, *widths], widths, strict=False))
    stages = ((512, 512), (1024, 512, 512, 256), (512, 256, 256, 128), (256, 128, 64), (128, 64, classes))
    up = sum(
        convolution(s[0], s[0], 2) + sum(normed(*pair) for pair in zip(s, s[1:], strict=False))
        for s in stages
    )
    return down + up + convolution(classes, classes)


def five_convolutions(channels, classes):
    return normed(channels, 64) + 3 * normed(64, 64) + convolution(64, classes)


def refinement(channels, classes, size):
    down = sum(normed(*pair) for pair in zip((channels, 32, 64, 128), (32, 64, 128, 256), strict=True))
    up = sum(normed(*pair, 2) for pair in ((256, 128), (256, 64), (128, 32), (64, 32)))
    noise = sum(2 * (size + 1) * w + convolution(w, o, 1) for w, o in ((64, 64), (32, 32), (32, classes)))
    return down + up + noise


def discriminator(channels, side=128):
    first = convolution(channels, 64) + 2 * convolution(64, 64) + convolution(64, 64, 4)
    widths = (64, 128, 256, 512)
    doubled = sum(convolution(*pair, 4, bias=False) for pair in zip(widths, widths[1:], strict=False))
    return first + doubled + convolution(512, 64, 4) + 64 * (side // 8 - 2) ** 2 + 1


@pytest.mark.parametrize(
    ("preset", "channels", "labels", "calibration", "seen", "size"),
    [
        ("lidc", 1, LabelSpace(softmax=True), segnet(1, 2), 1, 8),
        ("cityscapes", 4, LabelSpace.of_classes(24), five_convolutions(4, 24), 3, 32),
    ],
)
def test_the_networks_are_those_of_the_public_code(preset, channels, labels, calibration, seen, size):
    settings = CARSettings(**METHODS["car"].preset(preset).settings)
    with torch.device("meta"):
        model = build("car", channels, labels, UNetSettings(), settings)
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    inputs = seen + labels.channels
    assert found == {
        "f": calibration,
        "g": refinement(inputs, labels.channels, size),
        "d": discriminator(inputs),
    }


def test_published_networks_keep_sizes():
    with torch.device("meta"):
        assert SegNet(1, 2).eval()(torch.zeros(2, 1, 33, 20)).shape == (2, 2, 33, 20)
        critic = PublishedDiscriminator(2, 64)
        assert critic.layers(torch.zeros(1, 2, 128, 128)).shape == (1, 64, 14, 14)


@pytest.mark.parametrize("size", [(9, 5), (1, 1)])
def test_published_networks_train_and_predict(size):
    model = make(MULTI, calibration="small", refinement="published", discriminator="published").train()
    images = torch.randn(2, 2, *size)
    masks = MaskSet.uniform(torch.randint(3, (2, 2, *size)).to(torch.uint8), MULTI)
    loss = model.loss(images, masks)["loss"]
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    assert model.eval().predict(images, 3).masks.shape == (2, 3, *size)


@pytest.mark.parametrize(
    "settings",
    [
        {"latent_size": 0},
        {"train_samples": 0},
        {"adversarial_weight": -1.0},
        {"discriminator_rate": 0.0},
        {"accuracy_cap": 0.2},
        {"black_box_channels": 2},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(AmbisegError, match="received"):
        make(**settings)
