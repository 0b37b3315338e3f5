"""`check_method`: what every method must satisfy, tried on a small ambiguous problem; `check_metric`, likewise.

The methods of this library pass these checks in its own tests; a method of another package runs the same
ones:

>>> import pytest
>>> from ambiseg.methods import METHODS
>>> from ambiseg.testing import CHECKS, check_method
>>> check_method(METHODS["unet-ensemble"], checks=["valid_predictions", "finite_losses"])

A metric of yours is checked in the same way:

>>> from ambiseg.metrics import METRICS
>>> from ambiseg.testing import check_metric
>>> check_metric(METRICS["ged"])

A check raises `AssertionError` with one sentence. Checks that a method is exempt from by its `TestCase`
(those of equal draws, for a method that draws at random) do nothing. All draw their random numbers from
``seed`` and hold for every seed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.data.batches import Normalization
from ambiseg.engine.run_folder import RunConfig, load_weights, save_weights
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter
from ambiseg.methods.spec import MethodSpec, TestCase
from ambiseg.metrics import Comparison, MetricInfo, m_iou
from ambiseg.nested_settings import merged, replaced
from ambiseg.networks.settings import UNetSettings

BACKBONE = UNetSettings(width=8, depth=2)
SPACES = {"binary": LabelSpace.binary(), "multi-class": LabelSpace.of_classes(4)}
CHANNELS, SIZE = 3, 16
LABEL_MODES = ("full", "single")


def problem(labels: LabelSpace, mode: str = "full", seed: int = 0, count: int = 3) -> tuple[Tensor, MaskSet]:
    """Images of two patches on noise; each patch is annotated or not, independently: up to 4 modes per image.

    The last image has one mode fewer than the others. Single labels draw one of the modes.

    Example:
        >>> images, modes = problem(LabelSpace.binary())
        >>> images.shape, modes.count
        (torch.Size([3, 3, 16, 16]), tensor([4, 4, 3]))
    """
    g = torch.Generator().manual_seed(seed)
    classes = torch.arange(count * 2).view(count, 2) % (labels.classes - 1) + 1
    images = 0.3 * torch.randn(count, CHANNELS, SIZE, SIZE, generator=g)
    masks = torch.zeros(count, 4, SIZE, SIZE, dtype=torch.uint8)
    for b in range(count):
        for patch, where in enumerate([(slice(1, 7), slice(1 + b, 10)), (slice(9, 15), slice(3, 12 + b))]):
            images[b, patch % CHANNELS, where[0], where[1]] += 2.0 + float(classes[b, patch])
            masks[b, patch + 1, where[0], where[1]] = classes[b, patch].to(torch.uint8)
            masks[b, 3, where[0], where[1]] = classes[b, patch].to(torch.uint8)
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).repeat(count, 1)
    weights[-1] = torch.tensor([0.2, 0.3, 0.5, 0.0])
    modes = MaskSet(masks, weights, labels)
    return images, modes if mode == "full" else modes.sample_one(g)


@dataclass(frozen=True)
class Trial:
    """One test case of a method on one label space, with its seed."""

    spec: MethodSpec
    case: TestCase
    labels: LabelSpace
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def model(self, seed: int | None = None, labels: LabelSpace | None = None) -> Segmenter:
        """A small model with new weights."""
        torch.manual_seed(self.seed if seed is None else seed)
        values = merged(self.case.settings, self.settings)
        chosen = replaced(self.spec.settings(), values, "settings")
        return self.spec.model_class()(CHANNELS, labels or self.labels, BACKBONE, chosen)

    def problem(self, mode: str = "full", seed: int = 0) -> tuple[Tensor, MaskSet]:
        """See `problem`."""
        return problem(self.labels, mode, seed)


def train_on_problem(model: Segmenter, labels: LabelSpace, mode: str, steps: int, rate: float = 1e-2) -> None:
    """Train on the one problem, the rate falling to 0 along half a cosine; single labels are drawn anew at
    every step."""
    optimiser = torch.optim.Adam(model.parameters(), rate)
    images, modes = problem(labels)
    model.train()
    for step in range(steps):
        model.progress = step / steps
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        shown = modes if mode == "full" else modes.sample_one(torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        torch.autograd.backward(model.loss(images, shown)["loss"])
        optimiser.step()


def loss_of(model: Segmenter, images: Tensor, annotations: MaskSet, seed: int = 0) -> float:
    """The loss, with the same random numbers for every call."""
    torch.manual_seed(seed)
    with torch.no_grad():
        return float(model.loss(images, annotations)["loss"])


def prediction_of(model: Segmenter, images: Tensor, samples: int | None = None, seed: int = 0) -> MaskSet:
    """The prediction, with the same random numbers for every call."""
    with torch.no_grad():
        found: MaskSet = model.eval().predict(images, samples, torch.Generator().manual_seed(seed))
    return found


def equal(one: MaskSet, other: MaskSet) -> bool:
    """Whether two predictions agree in every bit."""
    pairs = [(getattr(one, n), getattr(other, n)) for n in ("masks", "weights", "scores", "probabilities")]
    return all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


def _agree(
    one: Tensor, other: Tensor, sentence: str, atol: float | None = None, rtol: float | None = None
) -> None:
    """Raise `AssertionError` with one sentence where two tensors differ in shape, type or values; nan equals nan."""
    try:
        torch.testing.assert_close(one, other, atol=atol, rtol=rtol, equal_nan=True)
    except AssertionError as error:
        if one.shape != other.shape or one.dtype != other.dtype:
            found = " and ".join(f"{tuple(value.shape)} {value.dtype}" for value in (one, other))
        elif one.numel() <= 8:
            found = f"{one.tolist()} and {other.tolist()}"
        else:
            found = f"by up to {float((one - other).abs().nan_to_num(math.inf).max()):.3g}"
        raise AssertionError(f"{sentence}: {found}") from error


# -- the checks ----------------------------------------------------------------------------------------------


def valid_predictions(trial: Trial) -> None:
    """Predictions are distributions of label maps, with scores and probabilities in [0, 1] where there are
    some."""
    labels, (images, _) = trial.labels.one_channel, trial.problem()
    found = prediction_of(trial.model(), images).validate()
    assert found.masks.dtype == torch.uint8, f"masks are uint8, received {found.masks.dtype}"
    assert found.weights.dtype == torch.float32, f"weights are float32, received {found.weights.dtype}"
    shape = (len(images), *images.shape[2:])
    assert (found.masks.shape[0], *found.masks.shape[2:]) == shape, (
        f"masks of {shape[0]} images of {shape[1]}x{shape[2]} have shape (B, K, H, W), received {tuple(found.masks.shape)}"
    )
    assert found.labels == labels, "a prediction carries the label space of the data"
    assert found.weights.sum(1).allclose(torch.ones(len(images))), "weights of an image sum to 1"
    for name in ("scores", "probabilities"):
        value = getattr(found, name)
        assert value is None or (value.min() >= 0 and value.max() <= 1), f"{name} lie in [0, 1]"
    if found.probabilities is not None:
        decided = labels.decide(found.probabilities, dim=2)
        assert torch.equal(decided, found.masks), (
            "masks are decided from the per-pixel probabilities beside them"
        )
        everything = labels.all_classes(found.probabilities, dim=2).sum(2)
        assert everything.allclose(torch.ones_like(everything)), "probabilities of a pixel's classes sum to 1"


def finite_losses(trial: Trial) -> None:
    """The loss is a finite scalar that can be differentiated, its named parts finite scalars, with both kinds
    of labels."""
    for mode in LABEL_MODES:
        losses = trial.model().loss(*trial.problem(mode))
        assert "loss" in losses, f"loss returns a dictionary with the key 'loss', received {list(losses)}"
        assert losses["loss"].requires_grad, "the loss has a gradient"
        for name, value in losses.items():
            assert value.dim() == 0 and bool(torch.isfinite(value)), (
                f"{name} is a finite scalar, received {value}"
            )


def gradients_reach_every_parameter(trial: Trial) -> None:
    """Over a few steps of both kinds of labels and of the whole schedule, since some layers start at zero."""
    model = trial.model()
    optimiser, reached = torch.optim.Adam(model.parameters(), 1e-2), set()
    for step in range(8):
        model.progress = step / 8
        optimiser.zero_grad()
        torch.autograd.backward(model.loss(*trial.problem(LABEL_MODES[step % 2], seed=step))["loss"])
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and bool(parameter.grad.ne(0).any()):
                reached.add(name)
        optimiser.step()
    unused = trial.case.unused
    missed = [
        n for n, _ in model.named_parameters() if n not in reached and not any(map(n.startswith, unused))
    ]
    assert not missed, f"no gradient ever reached {', '.join(missed)}"


def learns_one_batch(trial: Trial) -> None:
    """In `TestCase.steps` the loss of one batch falls below .6 of its first value, and M-IoU rises by
    `TestCase.gain`."""
    for mode in LABEL_MODES:
        images, modes = trial.problem()
        model, case = trial.model(), trial.case
        before = loss_of(model, images, modes), float(m_iou(prediction_of(model, images), modes).mean())
        train_on_problem(model, trial.labels, mode, case.steps, case.rate)
        after = loss_of(model, images, modes), float(m_iou(prediction_of(model, images), modes).mean())
        assert after[0] < 0.6 * before[0], (
            f"{mode} labels: the loss went from {before[0]:.3g} to {after[0]:.3g}"
        )
        assert after[1] > before[1] + case.gain, (
            f"{mode} labels: M-IoU went from {before[1]:.3g} to {after[1]:.3g}"
        )


def the_seed_decides_everything(trial: Trial) -> None:
    """Training and prediction follow from the seed, to the last bit."""

    def trained(mode: str, seed: int) -> Segmenter:
        model = trial.model(seed)
        torch.manual_seed(seed)
        train_on_problem(model, trial.labels, mode, 2)
        return model

    images = trial.problem()[0]
    for mode in LABEL_MODES:
        one, same, other = trained(mode, 1), trained(mode, 1), trained(mode, 2)
        pairs = list(zip(one.parameters(), same.parameters(), strict=True))
        assert all(torch.equal(a, b) for a, b in pairs), "one seed gave two trainings"
        assert equal(prediction_of(one, images), prediction_of(same, images)), "one seed gave two predictions"
        pairs = list(zip(one.parameters(), other.parameters(), strict=True))
        assert not all(torch.equal(a, b) for a, b in pairs), "two seeds gave one training"


def a_run_folder_gives_the_model_back(trial: Trial) -> None:
    """Saved and loaded, a model predicts the same, to the last bit."""
    model = trial.model()
    train_on_problem(model, trial.labels, "full", 2)
    plain = Normalization((0.0,) * CHANNELS, (1.0,) * CHANNELS)
    config = RunConfig(
        trial.spec.name, CHANNELS, trial.labels, plain, BACKBONE, model.settings, TrainSettings()
    )
    with tempfile.TemporaryDirectory() as folder:
        config.save(Path(folder))
        save_weights(Path(folder), model)
        loaded = load_weights(folder, RunConfig.load(folder))
    images = trial.problem()[0]
    assert not loaded.training, "a loaded model is in evaluation mode"
    assert equal(prediction_of(loaded, images), prediction_of(model, images)), (
        "the loaded model predicts otherwise"
    )


def the_state_is_the_model(trial: Trial) -> None:
    """Two models with the same ``state_dict`` have the same loss and the same prediction."""
    one, other = trial.model(1), trial.model(2)
    other.load_state_dict(one.state_dict())
    images, annotations = trial.problem()
    assert equal(prediction_of(one, images), prediction_of(other, images)), (
        "predictions of equal weights differ"
    )
    losses = loss_of(one, images, annotations), loss_of(other, images, annotations)
    assert losses[0] == losses[1], f"losses of equal weights differ: {losses}"


def any_image_size(trial: Trial) -> None:
    """Images of any size can be predicted and learnt from, down to one pixel."""
    for size in ((17, 23), (1, 1), (1, 19)):
        model, images = trial.model(), torch.randn(2, CHANNELS, *size)
        found = prediction_of(model, images).validate()
        assert found.masks.shape[2:] == size, (
            f"masks of {size} images have size {tuple(found.masks.shape[2:])}"
        )
        loss = model.train().loss(images, found.hard())["loss"]
        assert bool(torch.isfinite(loss)), f"the loss of {size} images is {float(loss)}"


def repeated_borders_change_nothing_inside(trial: Trial) -> None:
    """An image extended by its edge pixels to the next size that divides evenly has the same masks.

    The last row and column are left out: there a 3x3 head sees zeros or repeated pixels.
    """
    if not trial.case.deterministic:
        return
    model, images = trial.model(), torch.randn(2, CHANNELS, 15, 13)
    small = prediction_of(model, images).probabilities
    large = prediction_of(model, functional.pad(images, (0, 1, 0, 1), mode="replicate")).probabilities
    if small is None or large is None:
        return
    _agree(large[..., :14, :12], small[..., :14, :12], "repeated borders change the probabilities inside")


def images_of_a_batch_do_not_see_each_other(trial: Trial) -> None:
    """The prediction of an image is the same alone and in a batch."""
    if not trial.case.deterministic:
        return
    model, images = trial.model(), trial.problem()[0]
    together = prediction_of(model, images)
    for b in range(len(images)):
        alone = prediction_of(model, images[b : b + 1])
        _agree(alone.weights, together.weights[b : b + 1], "weights of an image alone and in a batch differ")
        _agree(alone.mean(), together.mean()[b : b + 1], "means of an image alone and in a batch differ")


def bfloat16_stays_near(trial: Trial) -> None:
    """Under autocast the loss stays within 3 %, weights and means within `TestCase.tolerance`."""
    tolerance = trial.case.tolerance
    for mode in LABEL_MODES:
        model, (images, annotations) = trial.model(), trial.problem(mode)
        full = loss_of(model, images, annotations)
        with torch.autocast("cpu", torch.bfloat16):
            half = loss_of(model, images, annotations)
            found = prediction_of(model, images).validate()
        assert abs(half - full) <= 0.03 * abs(full), (
            f"{mode} labels: the loss is {half} in bf16, {full} in float32"
        )
        exact = prediction_of(model, images)
        assert found.weights.dtype == torch.float32, "weights are float32 under autocast, too"
        where = f"{mode} labels: bf16 and float32 differ in their"
        _agree(found.weights, exact.weights, f"{where} weights", atol=tolerance, rtol=0)
        _agree(found.mean(), exact.mean(), f"{where} means", atol=tolerance, rtol=0)


def void_is_only_a_mark(trial: Trial) -> None:
    """Which integer marks void makes no difference, and an annotation of nothing but void does no harm."""
    labels = trial.labels
    for mode in LABEL_MODES:
        images, annotations = trial.problem(mode)
        hidden = torch.rand(annotations.masks.shape, generator=torch.Generator().manual_seed(5)) < 0.3
        losses = []
        for void in (200, 255):
            space = replace(labels, ignore_value=void)
            marked = MaskSet(annotations.masks.masked_fill(hidden, void), annotations.weights, space)
            losses.append(loss_of(trial.model(labels=space), images, marked))
        assert losses[0] == losses[1], (
            f"{mode} labels: the loss depends on the number that marks void: {losses}"
        )
        nothing = replace(annotations, masks=torch.full_like(annotations.masks, labels.void))
        assert math.isfinite(loss_of(trial.model(), images, nothing)), (
            f"{mode} labels: the loss of void is not finite"
        )


def extreme_inputs_give_finite_gradients(trial: Trial) -> None:
    """Masks that are empty, full, one pixel, or void alone; images a thousand times larger than normalised
    ones."""
    for bf16 in (False, True):
        masks = torch.zeros(4, 1, SIZE, SIZE, dtype=torch.uint8)
        masks[1], masks[2, 0, 3, 3], masks[3] = trial.labels.classes - 1, 1, trial.labels.void
        model, images = trial.model(), 1e3 * torch.randn(4, CHANNELS, SIZE, SIZE)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model.loss(images, MaskSet.uniform(masks, trial.labels))["loss"]
        torch.autograd.backward(loss)
        how = "bf16" if bf16 else "float32"
        assert bool(torch.isfinite(loss)), f"the loss in {how} is {float(loss)}"
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or bool(parameter.grad.isfinite().all()), (
                f"the gradient of {name} in {how} is not finite"
            )


def extreme_data_can_be_trained_on(trial: Trial) -> None:
    """Some updates on masks that are empty, full, one pixel, without the last class, or void alone, and on
    images without contrast, leave losses and weights finite and predictions valid."""
    last, void = trial.labels.classes - 1, trial.labels.void
    pixel = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
    pixel[3, 5] = last
    cases: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
        "empty masks": lambda images, masks: (images, masks * 0),
        "full masks": lambda images, masks: (images, torch.full_like(masks, last)),
        "masks of one pixel": lambda images, masks: (images, pixel.expand_as(masks)),
        "masks without the last class": lambda images, masks: (images, masks.masked_fill(masks == last, 0)),
        "void": lambda images, masks: (images, torch.full_like(masks, void)),
        "images without contrast": lambda images, masks: (images * 0, masks),
    }
    for name, change in cases.items():
        model = trial.model().train()
        optimiser = torch.optim.Adam(model.parameters(), trial.case.rate)
        for step in range(4):
            model.progress = step / 4
            images, annotations = trial.problem(LABEL_MODES[step % 2], seed=step)
            images, masks = change(images, annotations.masks)
            loss = model.loss(images, replace(annotations, masks=masks))["loss"]
            assert bool(torch.isfinite(loss)), f"{name}: the loss is {loss.item()} after {step} updates"
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        lost = [n for n, value in model.state_dict().items() if not bool(value.isfinite().all())]
        assert not lost, f"{name}: {', '.join(lost)} is not finite after 4 updates"
        prediction_of(model, images, samples=2).validate()


def absent_masks_have_no_influence(trial: Trial) -> None:
    """A mask of weight 0 is not there."""
    model, (images, annotations) = trial.model(), trial.problem()
    other = annotations.masks.clone()
    other[-1, -1] = trial.labels.classes - 1
    losses = loss_of(model, images, annotations), loss_of(model, images, replace(annotations, masks=other))
    assert losses[0] == losses[1], f"a mask of weight 0 changed the loss: {losses}"


def the_loss_is_a_mean_over_images(trial: Trial) -> None:
    """Also where sets differ in size: padding an image's set, or comparing it alone, changes nothing."""
    if not trial.case.deterministic:
        return
    mode = "single" if trial.case.draws_labels else "full"
    model, (images, annotations) = trial.model(), trial.problem(mode)
    alone = [loss_of(model, images[b : b + 1], annotations[b].compact()) for b in range(len(images))]
    together, mean = loss_of(model, images, annotations), sum(alone) / len(alone)
    assert abs(together - mean) <= 1e-5 * abs(mean), (
        f"the loss of a batch is {together}, the mean of its images {mean}"
    )


def as_many_masks_as_asked_for(trial: Trial) -> None:
    """A method with a fixed number of masks gives at most those it has."""
    model, images = trial.model(), trial.problem()[0]
    own = prediction_of(model, images).masks.shape[1]
    for samples in (1, 3, 40):
        found = prediction_of(model, images, samples).validate()
        expected = min(samples, own) if trial.case.deterministic else samples
        assert found.masks.shape == (len(images), expected, SIZE, SIZE), (
            f"asked for {samples} masks, received shape {tuple(found.masks.shape)}"
        )


def other_channels_are_refused(trial: Trial) -> None:
    """Images with another number of channels raise one sentence with both numbers."""
    model, (images, annotations) = trial.model(), trial.problem()
    wrong = torch.zeros(len(images), CHANNELS + 2, SIZE, SIZE)
    for action in (lambda: prediction_of(model, wrong), lambda: model.loss(wrong, annotations)):
        try:
            action()
        except AmbisegError as error:
            text = str(error)
            assert f"{CHANNELS + 2} channel" in text and str(CHANNELS) in text, (
                f"the error names no channels: {text}"
            )
        else:
            raise AssertionError("images with other channels were not refused")


CHECKS: dict[str, Callable[[Trial], None]] = {
    check.__name__: check
    for check in (
        valid_predictions,
        finite_losses,
        gradients_reach_every_parameter,
        learns_one_batch,
        the_seed_decides_everything,
        a_run_folder_gives_the_model_back,
        the_state_is_the_model,
        any_image_size,
        repeated_borders_change_nothing_inside,
        images_of_a_batch_do_not_see_each_other,
        bfloat16_stays_near,
        void_is_only_a_mark,
        extreme_inputs_give_finite_gradients,
        extreme_data_can_be_trained_on,
        absent_masks_have_no_influence,
        the_loss_is_a_mean_over_images,
        as_many_masks_as_asked_for,
        other_channels_are_refused,
    )
}
"""Every check by its name."""


def trials(
    spec: MethodSpec, seed: int = 0, spaces: Mapping[str, LabelSpace] | None = None
) -> dict[str, Trial]:
    """The trials of a method: each of its test cases on a binary and on a multi-class problem, or in other label
    spaces.

    Example:
        >>> from ambiseg.methods import METHODS
        >>> list(trials(METHODS["ssn"]))
        ['ssn-binary', 'ssn-multi-class']
    """
    cases = {spec.name: spec.test, **{f"{spec.name}+{name}": case for name, case in spec.variants.items()}}
    return {
        f"{name}-{space}": Trial(spec, case, labels, seed)
        for name, case in cases.items()
        for space, labels in (SPACES if spaces is None else spaces).items()
    }


def _chosen(names: Iterable[str], known: Collection[str]) -> list[str]:
    """The checks of these names; all if none is named."""
    chosen = list(names) or list(known)
    for name in chosen:
        if name not in known:
            raise UnknownNameError("check", name, known)
    return chosen


def check_method(spec: MethodSpec, checks: Iterable[str] = (), seed: int = 0) -> None:
    """Try a method on a small ambiguous problem, binary and multi-class, with full and single labels.

    Args:
        spec: the method. It must be registered for the check of its run folder.
        checks: names of `CHECKS`; all if left out.
        seed: of the random numbers.

    Raises:
        AssertionError: the first check that failed, its name and one sentence.
        UnknownNameError: no such check.
    """
    chosen = _chosen(checks, CHECKS)
    for place, trial in trials(spec, seed).items():
        for name in chosen:
            torch.manual_seed(seed)
            try:
                CHECKS[name](trial)
            except AssertionError as error:
                raise AssertionError(f"{place}: {name}: {error}") from error


# -- the checks of metrics -----------------------------------------------------------------------------------


def predictions_of(labels: LabelSpace, seed: int = 0, count: int = 3) -> MaskSet:
    """Masks of random pixels for the images of `problem`, with weights, scores and per-pixel probabilities.

    The last image has one mask fewer than the others.
    """
    g = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 5, labels.channels, SIZE, SIZE, generator=g)
    weights = torch.rand(count, 5, generator=g) + 0.1
    weights[-1, -1] = 0
    chances = noise if labels.channels == 1 else noise / noise.sum(2, keepdim=True)
    scores = torch.rand(count, 5, generator=g)
    return MaskSet.from_probabilities(chances, labels, weights / weights.sum(1, keepdim=True), scores)


@dataclass(frozen=True)
class MetricTrial:
    """A metric with random predictions of a small ambiguous problem."""

    info: MetricInfo
    predictions: MaskSet
    annotations: MaskSet

    def values(self, predictions: MaskSet | None = None, annotations: MaskSet | None = None) -> Tensor:
        """The metric of these sets, or of others."""
        found: Tensor = self.info.function(predictions or self.predictions, annotations or self.annotations)
        return found


def one_value_for_each_image(trial: MetricTrial) -> None:
    """A metric returns one float for each image, nan where it is not defined."""
    found, images = trial.values(), len(trial.predictions)
    assert isinstance(found, Tensor) and found.shape == (images,), (
        f"the values of {images} images have shape ({images},), received"
        f" {tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__}"
    )
    assert found.is_floating_point(), f"values are floats, received {found.dtype}"


def a_comparison_gives_the_same(trial: MetricTrial) -> None:
    """One `Comparison` in place of two sets, as ``evaluate`` calls a metric."""
    try:
        together = trial.info.function(Comparison(trial.predictions, trial.annotations))
    except (AttributeError, TypeError) as error:
        raise AssertionError(
            "the function fails for one Comparison in place of two sets: give 'annotations' the default None and begin"
            f" with 'pair = Comparison.of(predictions, annotations)' ({error})"
        ) from error
    _agree(together, trial.values(), "one Comparison and its two sets have different values")


def values_lie_in_their_bounds(trial: MetricTrial) -> None:
    """Of random masks, and of the annotations themselves as predictions."""
    low, high = trial.info.lower_bound, trial.info.upper_bound
    for predictions in (trial.predictions, _perfect(trial)):
        found = trial.values(predictions)
        inside = found.isnan() | (found >= low - 1e-5) & (found <= high + 1e-5)
        assert bool(inside.all()), f"{found.tolist()} are not all between {low} and {high}"


def perfect_is_not_worse(trial: MetricTrial) -> None:
    """The annotations themselves are no worse predictions than random masks, in the direction of the metric."""
    if trial.info.higher_is_better is None or "scores" in trial.info.needs:
        return
    perfect, random = trial.values(_perfect(trial)), trial.values()
    gain = perfect - random if trial.info.higher_is_better else random - perfect
    assert not bool((gain < -1e-5).any()), (
        f"the annotations themselves have {perfect.tolist()}, random masks {random.tolist()}: look at higher_is_better"
    )


def images_are_independent(trial: MetricTrial) -> None:
    """An image has the same value alone, without padding, and in a batch."""
    together = trial.values()
    for b in range(len(trial.predictions)):
        alone = trial.values(trial.predictions[b].compact(), trial.annotations[b].compact())
        _agree(alone, together[b : b + 1], f"image {b} alone and in a batch differ", atol=1e-5, rtol=1e-5)


def padding_changes_nothing(trial: MetricTrial) -> None:
    """An image has the same value beside a larger one, for which it is extended by void (`MaskSet.stack`).

    Such a batch keeps no per-pixel probabilities, so metrics that need them are not tried.
    """
    if "probabilities" in trial.info.needs:
        return
    blank = torch.zeros(1, 1, SIZE + 5, SIZE + 3, dtype=torch.uint8)
    larger = replace(MaskSet.uniform(blank, trial.annotations.labels), scores=torch.ones(1, 1))
    sets = trial.predictions.hard(), trial.annotations
    alone = trial.values(*sets)
    padded = trial.values(*(MaskSet.stack([given, larger]) for given in sets))[:-1]
    _agree(
        padded, alone, "the values change beside a larger image, by padding with void", atol=1e-5, rtol=1e-5
    )


def masks_of_weight_0_are_not_there(trial: MetricTrial) -> None:
    """What stands in a mask of weight 0 makes no difference, on either side."""

    def changed(given: MaskSet) -> MaskSet:
        masks, absent = given.masks.clone(), ~given.present
        masks[absent] = 1 - masks[absent].clamp(max=1)
        return replace(given, masks=masks)

    found = trial.values(changed(trial.predictions), changed(trial.annotations))
    _agree(found, trial.values(), "the values change with masks of weight 0")


def the_number_of_void_does_not_matter(trial: MetricTrial) -> None:
    """Which integer marks void makes no difference."""
    labels = trial.annotations.labels
    hidden = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(5)) < 0.3
    values = []
    for void in (200, 255):
        space = replace(labels, ignore_value=void)
        masks = trial.annotations.masks.masked_fill(hidden, void)
        predictions = replace(trial.predictions, labels=space)
        values.append(trial.values(predictions, MaskSet(masks, trial.annotations.weights, space)))
    _agree(values[0], values[1], "the values change with the number that marks void")


def pixels_of_void_do_not_count(trial: MetricTrial) -> None:
    """What a prediction says where all annotations are void makes no difference.

    It is a single one, since distances among predictions count these pixels.
    """
    space = replace(trial.annotations.labels, ignore_value=255)
    hidden = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(5)) < 0.3
    masks = trial.annotations.masks.masked_fill(hidden, space.void)
    annotations = replace(trial.annotations, masks=masks, labels=space)
    first = torch.zeros(len(trial.predictions), 1, dtype=torch.int64)
    one = replace(trial.predictions, labels=space).gather(first).normalised()
    assert one.probabilities is not None
    shifted = 1 - one.probabilities if space.is_binary else one.probabilities.roll(1, dims=2)
    other = replace(
        one,
        masks=torch.where(hidden, (one.masks + 1) % space.classes, one.masks),
        probabilities=torch.where(hidden, shifted, one.probabilities),
    )
    found = trial.values(other, annotations), trial.values(one, annotations)
    _agree(
        *found, "the values change with predictions where the annotations are void, so leave these pixels out"
    )


def _perfect(trial: MetricTrial) -> MaskSet:
    """The annotations as predictions, with scores and nearly certain probabilities."""
    annotations = trial.annotations
    chances = annotations.labels.one_hot(annotations.masks, dim=2, dtype=torch.float32)
    chances = chances.clamp(1e-3, 1 - 1e-3)
    chances = chances if annotations.labels.channels == 1 else chances / chances.sum(2, keepdim=True)
    return replace(annotations, scores=torch.ones_like(annotations.weights), probabilities=chances)


METRIC_CHECKS: dict[str, Callable[[MetricTrial], None]] = {
    check.__name__: check
    for check in (
        one_value_for_each_image,
        a_comparison_gives_the_same,
        values_lie_in_their_bounds,
        perfect_is_not_worse,
        images_are_independent,
        padding_changes_nothing,
        masks_of_weight_0_are_not_there,
        the_number_of_void_does_not_matter,
        pixels_of_void_do_not_count,
    )
}
"""Every check of a metric by its name."""


def check_metric(info: MetricInfo, checks: Iterable[str] = (), seed: int = 0) -> None:
    """Try a metric on random predictions of a small ambiguous problem, binary and multi-class.

    Args:
        info: the metric, registered or not.
        checks: names of `METRIC_CHECKS`; all if left out.
        seed: of the random numbers.

    Raises:
        AssertionError: the first check that failed, its name and one sentence.
        UnknownNameError: no such check.
    """
    chosen = _chosen(checks, METRIC_CHECKS)
    for place, labels in SPACES.items():
        trial = MetricTrial(info, predictions_of(labels, seed), problem(labels, seed=seed)[1])
        for name in chosen:
            try:
                METRIC_CHECKS[name](trial)
            except AssertionError as error:
                raise AssertionError(f"{info.name}-{place}: {name}: {error}") from error
