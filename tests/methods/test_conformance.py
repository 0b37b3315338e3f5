"""Laws of every method: valid sets for any image, a loss that trains every parameter and sees what counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conformance import (
    BACKBONE,
    CHANNELS,
    KINDS,
    SIZE,
    SPACES,
    case_of,
    equal,
    make,
    name_of,
    prediction,
    problem,
    steps,
    total,
)
from torch.nn import functional

from ambiseg.data.batches import Normalization
from ambiseg.engine.run import RunConfig, load_weights, save_weights
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics import hm_iou_unique

MODES = ["full", "single"]


@pytest.fixture(params=KINDS)
def method(request):
    return request.param


@pytest.fixture(params=SPACES)
def labels(request):
    return SPACES[request.param]


def test_predictions_are_valid_sets(method, labels):
    images, annotations = problem(labels)
    found = prediction(make(method, labels), images).validate()
    assert found.masks.dtype == torch.uint8 and found.weights.dtype == torch.float32
    assert found.masks.shape[0] == len(images) and found.masks.shape[2:] == images.shape[2:]
    assert found.masks.max() < labels.classes
    assert found.labels == labels and found.weights.sum(1).allclose(torch.ones(len(images)))
    if found.scores is not None:
        assert found.scores.min() >= 0 and found.scores.max() <= 1
    if found.probabilities is not None:
        assert found.probabilities.min() >= 0 and found.probabilities.max() <= 1
        assert torch.equal(labels.decide(found.probabilities, dim=2), found.masks)
        everything = labels.all_classes(found.probabilities, dim=2).sum(2)
        assert everything.allclose(torch.ones_like(everything))


@pytest.mark.parametrize("mode", MODES)
def test_losses_are_finite_scalars(method, labels, mode):
    losses = make(method, labels).loss(*problem(labels, mode))
    assert losses["loss"].requires_grad
    for name, value in losses.items():
        assert value.dim() == 0 and torch.isfinite(value), name


def test_gradient_reaches_every_parameter(method, labels):
    """Over a few steps of both label modes and of the whole schedule, since some layers start at zero."""
    model = make(method, labels)
    optimiser, reached = torch.optim.Adam(model.parameters(), 1e-2), set()
    for step in range(8):
        model.progress = step / 8
        optimiser.zero_grad()
        model.loss(*problem(labels, MODES[step % 2], seed=step))["loss"].backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                reached.add(name)
        optimiser.step()
    unused = case_of(method).unused
    missed = [
        n for n, _ in model.named_parameters() if n not in reached and not n.startswith(unused or ("\0",))
    ]
    assert not missed


@pytest.mark.parametrize("mode", MODES)
def test_one_batch_is_learnt(method, labels, mode, seed):
    images, modes = problem(labels)
    model = make(method, labels, seed)
    before = total(model, images, modes), hm_iou_unique(prediction(model, images), modes).mean()
    model.train()
    steps(model, labels, mode, *case_of(method).learning)
    after = total(model, images, modes), hm_iou_unique(prediction(model, images), modes).mean()
    assert after[0] < 0.6 * before[0]
    assert after[1] > before[1] + case_of(method).gain


@pytest.mark.parametrize("mode", MODES)
def test_the_seed_decides_everything(method, labels, mode):
    def trained(seed):
        model = make(method, labels, seed)
        torch.manual_seed(seed)
        steps(model, labels, mode, 2)
        return model

    images = problem(labels)[0]
    one, same, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert equal(prediction(one, images), prediction(same, images))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_run_folder_gives_the_model_back(method, labels, tmp_path):
    model = make(method, labels)
    steps(model, labels, "full", 2)
    normalization = Normalization((0.0,) * CHANNELS, (1.0,) * CHANNELS)
    config = RunConfig(
        name_of(method), CHANNELS, labels, normalization, BACKBONE, model.settings, TrainSettings()
    )
    config.save(tmp_path)
    save_weights(tmp_path, model)
    loaded = load_weights(tmp_path, RunConfig.load(tmp_path))
    images = problem(labels)[0]
    assert not loaded.training
    assert equal(prediction(loaded, images), prediction(model, images))


def test_state_dict_round_trip(method, labels):
    one, other = make(method, labels, 1), make(method, labels, 2)
    other.load_state_dict(one.state_dict())
    images, annotations = problem(labels)
    assert equal(prediction(one, images), prediction(other, images))
    assert total(one, images, annotations) == total(other, images, annotations)


@pytest.mark.parametrize("size", [(17, 23), (1, 1), (1, 19)])
def test_any_image_size(method, labels, size):
    model, images = make(method, labels), torch.randn(2, CHANNELS, *size)
    found = prediction(model, images).validate()
    assert found.masks.shape[2:] == size
    loss = model.train().loss(images, found.hard())["loss"]
    assert torch.isfinite(loss)


def test_repeated_borders_change_nothing_inside(method, labels):
    """An image extended by its edge pixels to the next size that divides evenly has the same masks.

    The last row and column are left out: there a 3x3 head sees zeros or repeated pixels.
    """
    if not case_of(method).deterministic:
        pytest.skip("draws depend on the image size")
    model, images = make(method, labels), torch.randn(2, CHANNELS, 15, 13)
    small = prediction(model, images)
    large = prediction(model, functional.pad(images, (0, 1, 0, 1), mode="replicate"))
    assert small.probabilities is not None and large.probabilities is not None
    torch.testing.assert_close(large.probabilities[..., :14, :12], small.probabilities[..., :14, :12])


def test_images_of_a_batch_do_not_see_each_other(method, labels):
    if not case_of(method).deterministic:
        pytest.skip("draws depend on the place in the batch")
    model, images = make(method, labels), problem(labels)[0]
    together = prediction(model, images)
    for b in range(len(images)):
        alone = prediction(model, images[b : b + 1])
        torch.testing.assert_close(alone.weights, together.weights[b : b + 1])
        torch.testing.assert_close(alone.probabilities, together.probabilities[b : b + 1])


@pytest.mark.parametrize("mode", MODES)
def test_bfloat16_stays_near(method, labels, mode):
    model, (images, annotations) = make(method, labels), problem(labels, mode)
    full = total(model, images, annotations)
    with torch.autocast("cpu", torch.bfloat16):
        half = total(model, images, annotations)
        found = prediction(model, images).validate()
    assert half == pytest.approx(full, rel=0.03)
    exact = prediction(model, images)
    assert found.weights.dtype == torch.float32
    torch.testing.assert_close(found.weights, exact.weights, atol=0.02, rtol=0)
    torch.testing.assert_close(found.mean(), exact.mean(), atol=0.02, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_void_is_only_a_mark(method, labels, mode):
    """Which integer marks void makes no difference, and an annotation of nothing but void does no harm."""
    images, annotations = problem(labels, mode)
    hidden = torch.rand(annotations.masks.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    losses = []
    for void in (200, 255):
        space = replace(labels, ignore_value=void)
        marked = MaskSet(annotations.masks.masked_fill(hidden, void), annotations.weights, space)
        losses.append(total(make(method, space), images, marked))
    assert losses[0] == losses[1]
    nothing = replace(annotations, masks=torch.full_like(annotations.masks, labels.void))
    assert torch.isfinite(torch.tensor(total(make(method, labels), images, nothing)))


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_extreme_masks_and_images_give_finite_gradients(method, labels, bf16):
    """Masks that are empty, full, one pixel, or void alone; images a thousand times larger than normalised ones."""
    masks = torch.zeros(4, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[1], masks[2, 0, 3, 3], masks[3] = labels.classes - 1, 1, labels.void
    model, images = make(method, labels), 1e3 * torch.randn(4, CHANNELS, SIZE, SIZE)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model.loss(images, MaskSet.uniform(masks, labels))["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_absent_masks_have_no_influence(method, labels):
    model, (images, annotations) = make(method, labels), problem(labels)
    other = annotations.masks.clone()
    other[-1, -1] = labels.classes - 1
    assert not torch.equal(other, annotations.masks)
    assert total(model, images, replace(annotations, masks=other)) == total(model, images, annotations)


def test_the_loss_is_a_mean_over_images(method, labels):
    """Also where sets differ in size: padding an image's set, or comparing it alone, changes nothing."""
    if not case_of(method).deterministic:
        pytest.skip("draws depend on the place in the batch")
    mode = "single" if case_of(method).draws_labels else "full"
    model, (images, annotations) = make(method, labels), problem(labels, mode)
    alone = [total(model, images[b : b + 1], annotations[b].compact()) for b in range(len(images))]
    assert annotations[-1].compact().masks.shape[1] == (3 if mode == "full" else 1)
    assert total(model, images, annotations) == pytest.approx(sum(alone) / len(alone), rel=1e-5)


@pytest.mark.parametrize("samples", [1, 3, 40])
def test_number_of_samples(method, labels, samples):
    """As many as asked for; a method with a fixed number of masks gives at most those it has."""
    model, images = make(method, labels), problem(labels)[0]
    found, own = prediction(model, images, samples).validate(), prediction(model, images).masks.shape[1]
    expected = min(samples, own) if case_of(method).deterministic else samples
    assert found.masks.shape == (len(images), expected, SIZE, SIZE)


def test_another_number_of_channels_is_refused(method, labels):
    model, (images, annotations) = make(method, labels), problem(labels)
    wrong = torch.zeros(len(images), CHANNELS + 2, SIZE, SIZE)
    with pytest.raises(AmbisegError, match=f"{CHANNELS + 2} channel.*{CHANNELS}"):
        prediction(model, wrong)
    with pytest.raises(AmbisegError, match="channel"):
        model.loss(wrong, annotations)
