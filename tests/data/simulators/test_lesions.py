"""Properties of the lesions: four nested readers, probabilities by contrast, the same for the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from ambiseg.data.simulators.lesions import (
    READERS,
    reader_probabilities,
    simulate_lesion,
    simulate_lesions,
)
from ambiseg.errors import AmbisegError


@pytest.mark.parametrize("size", [16, 32, 45])
def test_masks_are_nested_and_all_differ(size: int) -> None:
    for sample in simulate_lesions(40, size=size, seed=5):
        strict, generous, every, none = sample.masks.astype(bool)
        assert sample.image.shape == (1, size, size) and sample.image.dtype == np.float32
        assert not (strict & ~generous).any() and not (generous & ~every).any() and not none.any()
        assert 0 < strict.sum() < generous.sum() < every.sum() < size * size / 2
        assert sample.annotators == READERS


def test_probabilities_fall_with_contrast_and_sum_to_one() -> None:
    table = np.array([reader_probabilities(c) for c in np.linspace(0, 1, 21)])
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-15)
    assert (table > 0).all() and (np.diff(table[:, 3]) <= 0).all()
    np.testing.assert_allclose(table[:, :3] / table[:, :3].sum(1, keepdims=True), [[0.4, 0.35, 0.25]] * 21)


def test_the_contrast_can_be_seen() -> None:
    samples = list(simulate_lesions(200))
    inside = np.array([float(s.image[0][s.masks[0] == 1].mean()) for s in samples])
    nothing = np.array([s.weights[3] for s in samples])
    assert np.corrcoef(inside, nothing)[0, 1] < -0.9


def test_a_sample_depends_on_its_numbers_alone() -> None:
    first, again = simulate_lesion(3, 11), list(simulate_lesions(5, seed=3, start=8))[3]
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert first.id == again.id == "lesion-00011"
    assert not np.array_equal(first.image, simulate_lesion(4, 11).image)


@pytest.mark.parametrize("words", [{"size": 15}, {"seed": -1}, {"start": -1}, {"count": -1}])
def test_senseless_numbers_are_refused_at_the_call(words: dict[str, int]) -> None:
    with pytest.raises(AmbisegError, match="received -1" if "size" not in words else "too small"):
        simulate_lesions(**{"count": 1, **words})
