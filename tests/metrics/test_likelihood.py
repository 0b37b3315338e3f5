"""Likelihood and bits per dimension: against sums pixel by pixel, torch's mixtures, closed forms, errors."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import Case, Plain, cases, properties
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily

from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.metrics.comparison import Comparison
from ambiseg.metrics.likelihood import bits_of, bits_per_dimension, log_likelihood

BINARY = LabelSpace.binary()
VOID = LabelSpace.binary(ignore_value=255)


def uniform(*masks: list[int], labels: LabelSpace = BINARY) -> MaskSet:
    return MaskSet.uniform(torch.tensor([masks], dtype=torch.uint8), labels)


def random_probabilities(shape: torch.Size, labels: LabelSpace, seed: int, sure: bool = True) -> Tensor:
    """``(B, M, C, *S)``, some of them 0 and 1 if ``sure``."""
    generator = torch.Generator().manual_seed(seed)
    wide = (*shape[:2], labels.classes, *shape[2:])
    value = torch.rand(wide, generator=generator, dtype=torch.float64) + 0.05
    if sure:
        value = torch.where(torch.rand(wide, generator=generator) < 0.1, 1e12, value)
    value = value / value.sum(2, keepdim=True)
    return (value[:, :, 1:] if labels.is_binary else value).float()


def softened(case: Case, seed: int, sure: bool = True) -> MaskSet:
    given = case.predictions
    return replace(given, probabilities=random_probabilities(given.masks.shape, case.labels, seed, sure))


def plain_log_likelihood(case: Case, predictions: MaskSet, b: int) -> list[float]:
    """Pixel by pixel, prediction by prediction."""
    p, a = case.images[b]
    assert predictions.probabilities is not None
    table = predictions.probabilities[b].double().numpy()
    values = []
    for mask in a.masks:
        joint = []
        for i, weight in enumerate(p.weights):
            total = math.log(weight)
            for at in np.ndindex(*mask.shape):
                if mask[at] == 255:
                    continue
                share = table[(i, slice(None), *at)]
                share = np.array([1 - share[0], share[0]]) if case.labels.is_binary else share
                share = np.clip(share, 1e-6, 1 - 1e-6)
                total += math.log(share[mask[at]] / share.sum())
            joint.append(total)
        most = max(joint)
        values.append(most + math.log(sum(math.exp(j - most) for j in joint)))
    return values


def plain_bits(a: Plain, values: list[float]) -> float:
    total = mass = 0.0
    for mask, weight, value in zip(a.masks, a.weights, values, strict=True):
        pixels = int((mask != 255).sum())
        if pixels:
            total -= weight * value / (pixels * math.log(2))
            mass += weight
    return total / mass if mass else math.nan


@properties
@given(cases(), st.integers(0, 1000), st.booleans())
def test_log_likelihood_agrees_with_sums_pixel_by_pixel(case: Case, seed: int, sure: bool) -> None:
    predictions = softened(case, seed, sure)
    value = log_likelihood(predictions, case.annotations)
    bits = bits_per_dimension(predictions, case.annotations)
    assert value.shape == case.annotations.weights.shape and value.dtype == torch.float64
    assert bits.dtype == torch.float32
    assert torch.equal(value.isnan(), ~case.annotations.present)
    for b, (_, a) in enumerate(case.images):
        wanted = plain_log_likelihood(case, predictions, b)
        np.testing.assert_allclose(value[b, : len(wanted)].numpy(), wanted, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(bits[b].numpy(), plain_bits(a, wanted), rtol=1e-6, atol=1e-6)


@properties
@given(cases(), st.integers(0, 1000))
def test_bits_of_agrees_with_bits_per_dimension(case: Case, seed: int) -> None:
    pair = Comparison(softened(case, seed), case.annotations)
    value = log_likelihood(pair)
    torch.testing.assert_close(bits_of(value, case.annotations), bits_per_dimension(pair), equal_nan=True)
    scrambled = value.masked_fill(~case.annotations.present, math.inf)
    torch.testing.assert_close(bits_of(scrambled, case.annotations), bits_per_dimension(pair), equal_nan=True)
    assert bool((value[case.annotations.present] <= 1e-9).all())


@properties
@given(cases(), st.integers(0, 1000))
def test_order_and_duplicates_of_predictions_do_not_matter(case: Case, seed: int) -> None:
    predictions = softened(case, seed)
    count = predictions.masks.shape[1]
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    value = log_likelihood(predictions, case.annotations)
    for index in (order, torch.arange(count).repeat(2)):
        other = predictions.gather(index.repeat(len(predictions), 1)).normalised()
        torch.testing.assert_close(
            log_likelihood(other, case.annotations), value, atol=1e-5, rtol=1e-6, equal_nan=True
        )


@properties
@given(cases(void=False), st.integers(0, 1000))
def test_mixtures_agree_with_torch(case: Case, seed: int) -> None:
    predictions = softened(case, seed, sure=False)
    value = log_likelihood(predictions, case.annotations)
    assert predictions.probabilities is not None
    for b, (p, a) in enumerate(case.images):
        table = predictions.probabilities[b, : len(p.masks)].double().flatten(2)
        parts: Bernoulli | Categorical
        if case.labels.is_binary:
            parts, y = Bernoulli(table[:, 0]), torch.from_numpy(a.masks).flatten(1).double()
        else:
            parts, y = Categorical(table.mT), torch.from_numpy(a.masks).flatten(1).long()
        mixture = MixtureSameFamily(Categorical(torch.from_numpy(p.weights)), Independent(parts, 1))
        torch.testing.assert_close(value[b, : len(y)], mixture.log_prob(y), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_all_label_maps_together_have_probability_one(classes: int) -> None:
    labels = LabelSpace.of_classes(classes)
    maps = torch.tensor(list(itertools.product(range(classes), repeat=4)), dtype=torch.uint8)[None]
    for seed in range(3):
        probabilities = random_probabilities(torch.Size((1, 3, 4)), labels, seed)
        weights = torch.tensor([[0.5, 0.3, 0.2]])
        predictions = MaskSet.from_probabilities(probabilities, labels, weights)
        total = log_likelihood(predictions, MaskSet.uniform(maps, labels)).logsumexp(1)
        assert total.item() == pytest.approx(0, abs=1e-9)


def test_one_factorised_prediction_is_the_sum_of_its_logs() -> None:
    p = torch.tensor([0.9, 0.2, 0.6, 0.5])
    y = torch.tensor([1, 0, 0, 1])
    one = MaskSet.from_probabilities(p.view(1, 1, 1, 4), BINARY)
    value = log_likelihood(one, uniform(y.tolist()))
    assert value.item() == pytest.approx(Bernoulli(p).log_prob(y.float()).sum().item(), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_guessing_costs_the_logarithm_of_the_classes(classes: int) -> None:
    labels = LabelSpace.of_classes(classes)
    guess = torch.full((1, 2, labels.channels, 5, 3), 1 / classes)
    masks = torch.randint(0, classes, (1, 4, 5, 3), generator=torch.Generator().manual_seed(0))
    truth = MaskSet.uniform(masks.to(torch.uint8), labels)
    value = bits_per_dimension(MaskSet.from_probabilities(guess, labels), truth)
    assert value.item() == pytest.approx(math.log2(classes), abs=1e-6)


def test_the_clamp_bounds_what_a_sure_mistake_costs() -> None:
    for labels in (BINARY, LabelSpace.of_classes(3)):
        truth = uniform([1, 0, 1, 0], labels=labels)
        right = labels.one_hot(truth.masks, dim=2)
        wrong = labels.one_hot(1 - truth.masks, dim=2)
        good = bits_per_dimension(MaskSet.from_probabilities(right, labels), truth).item()
        bad = bits_per_dimension(MaskSet.from_probabilities(wrong, labels), truth).item()
        assert 0 <= good < 1e-5
        assert bad == pytest.approx(-math.log2(1e-6), abs=1e-4)
        half = MaskSet.from_probabilities(torch.cat([right, wrong], 1), labels)
        assert log_likelihood(half, truth).item() == pytest.approx(-math.log(2), abs=1e-4)


def test_weights_of_both_sides_count() -> None:
    probabilities = torch.tensor([[[[0.75]], [[0.25]]]])
    mix = MaskSet.from_probabilities(probabilities, BINARY, torch.tensor([[0.25, 0.75]]))
    truth = MaskSet(torch.tensor([[[1], [0]]], dtype=torch.uint8), torch.tensor([[0.9, 0.1]]), BINARY)
    chance = 0.25 * 0.75 + 0.75 * 0.25
    np.testing.assert_allclose(log_likelihood(mix, truth).exp().numpy(), [[chance, 1 - chance]], rtol=1e-6)
    bits = -0.9 * math.log2(chance) - 0.1 * math.log2(1 - chance)
    assert bits_per_dimension(mix, truth).item() == pytest.approx(bits, abs=1e-6)


def test_void_pixels_contribute_nothing() -> None:
    p = torch.tensor([[[[0.9, 0.2, 0.7]]]])
    some, all_void = [1, 255, 255], [255, 255, 255]
    predictions = MaskSet.from_probabilities(p, VOID)
    value = log_likelihood(predictions, uniform(some, all_void, labels=VOID))
    np.testing.assert_allclose(value.numpy(), [[math.log(0.9), 0]], atol=1e-6)
    bits = bits_per_dimension(predictions, uniform(some, all_void, labels=VOID))
    assert bits.item() == pytest.approx(-math.log2(0.9), abs=1e-6)
    assert bool(bits_per_dimension(predictions, uniform(all_void, labels=VOID)).isnan().all())


def test_padding_is_not_there() -> None:
    p = torch.tensor([[[[0.5, 0.5]], [[math.nan, math.nan]]]])
    masks = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.uint8)
    predictions = MaskSet(masks, torch.tensor([[1.0, 0.0]]), BINARY, None, p)
    value = log_likelihood(predictions, uniform([1, 0]).padded(2))
    np.testing.assert_allclose(value.numpy(), [[-2 * math.log(2), math.nan]])
    assert bits_per_dimension(predictions, uniform([1, 0]).padded(2)).item() == 1


def test_values_are_exact_inside_autocast() -> None:
    generator = torch.Generator().manual_seed(0)
    predictions = MaskSet.from_probabilities(torch.rand(2, 3, 1, 500, generator=generator), BINARY)
    truth = MaskSet.uniform((torch.rand(2, 2, 500, generator=generator) > 0.5).to(torch.uint8), BINARY)
    outside = log_likelihood(predictions, truth)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(log_likelihood(predictions, truth), outside)


def test_wrong_arguments_are_refused() -> None:
    one = uniform([1, 0])
    for metric in (log_likelihood, bits_per_dimension):
        with pytest.raises(AmbisegError, match="predictions keep no per-pixel probabilities.*from_prob"):
            metric(one, one)
        with pytest.raises(AmbisegError, match="pass both"):
            metric(one)
    with pytest.raises(AmbisegError, match=r"log_likelihood of shape \(1,\) does not fit the annotations"):
        bits_of(torch.zeros(1), one)
