"""Properties of MarkovShapes: the chain of equation (20), its entropy, the covariance of the pixels, what is
possible."""

from __future__ import annotations

import numpy as np
import pytest

from ambiseg.data.files.validation import check_name
from ambiseg.data.simulators.markov_shapes import (
    STATES,
    TRANSITIONS,
    markov_shapes_covariance,
    markov_shapes_entropy,
    markov_shapes_masks,
    markov_shapes_probabilities,
    possible,
    simulate_markov_shapes,
)

DIGITS = np.array([[int(digit) for digit in np.base_repr(k, 4).zfill(4)] for k in range(256)])
ONE_HOT = np.eye(4)[DIGITS]  # (256, quadrants, states)


def test_the_matrix_is_the_papers_and_doubly_stochastic() -> None:
    np.testing.assert_array_equal(TRANSITIONS[1], [1 / 4, 3 / 40, 27 / 80, 27 / 80])
    np.testing.assert_array_equal(TRANSITIONS, TRANSITIONS.T)
    np.testing.assert_allclose(TRANSITIONS.sum(axis=0), 1, atol=1e-15)
    np.testing.assert_array_equal(TRANSITIONS[0], 1 / 4)
    np.testing.assert_array_equal(np.diag(TRANSITIONS)[1:], 3 / 40)


def test_probabilities_are_those_of_a_stationary_markov_chain() -> None:
    """They sum to 1, every quadrant is uniform, and of two quadrants the later depends on the earlier by
    powers of T."""
    probabilities = markov_shapes_probabilities()
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-14)
    np.testing.assert_allclose(np.einsum("k,kqs->qs", probabilities, ONE_HOT), 1 / 4, atol=1e-15)
    pairs = np.einsum("k,kai,kbj->abij", probabilities, ONE_HOT, ONE_HOT)
    for earlier in range(4):
        for later in range(earlier, 4):
            joint = np.linalg.matrix_power(TRANSITIONS, later - earlier) / 4
            np.testing.assert_allclose(pairs[earlier, later], joint, atol=1e-15)
    of_three = np.einsum("k,kh,ki,kj->hij", probabilities, *ONE_HOT[:, :3].transpose(1, 0, 2))
    np.testing.assert_allclose(of_three, np.einsum("hi,ij->hij", TRANSITIONS, TRANSITIONS) / 4, atol=1e-15)


def test_entropy_of_the_chain_is_that_of_the_images() -> None:
    probabilities = markov_shapes_probabilities()
    assert markov_shapes_entropy() == pytest.approx(
        -(probabilities * np.log2(probabilities)).sum(), abs=1e-12
    )
    assert markov_shapes_entropy() == pytest.approx(7.6356, abs=5e-5)


@pytest.mark.parametrize("size", [10, 20])
def test_masks_are_the_shapes_of_their_digits(size: int) -> None:
    """All differ; a quadrant depends on its own digit alone and covers 0, 9, 5 or 1 of its 25 cells."""
    masks = markov_shapes_masks(size)
    assert masks.shape == (256, size, size) and masks.dtype == np.uint8 and set(np.unique(masks)) == {0, 1}
    assert len(np.unique(masks.reshape(256, -1), axis=0)) == 256
    half = size // 2
    for quadrant in range(4):
        top, left = half * (quadrant // 2), half * (quadrant % 2)
        part = masks[:, top : top + half, left : left + half]
        for state, cells in enumerate((0, 9, 5, 1)):
            alike = part[DIGITS[:, quadrant] == state]
            assert (alike == alike[0]).all() and alike[0].sum() == cells * (size // 10) ** 2
            for mirrored in (alike[0].T, alike[0][::-1], alike[0][:, ::-1]):
                np.testing.assert_array_equal(mirrored, alike[0])


def test_scale_repeats_pixels() -> None:
    np.testing.assert_array_equal(
        markov_shapes_masks(20), np.kron(markov_shapes_masks(10), np.ones((1, 2, 2), np.uint8))
    )


@pytest.mark.parametrize("size", [10, 20])
def test_covariance_and_its_rank(size: int) -> None:
    """Sum of weighted outer products; the distribution of two quadrants between their stencils; the rank of the
    paper."""
    covariance, probabilities = markov_shapes_covariance(size), markov_shapes_probabilities()
    pixels = markov_shapes_masks(size).reshape(256, -1).astype(float)
    mean = probabilities @ pixels
    moment = sum(p * np.outer(y, y) for p, y in zip(probabilities, pixels, strict=True))
    np.testing.assert_allclose(covariance, moment - np.outer(mean, mean), atol=1e-13)
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.linalg.matrix_rank(covariance) == 12

    half = size // 2
    stencils = markov_shapes_masks(size)[[0, 64, 128, 192], :half, :half].reshape(4, -1)
    grid = covariance.reshape(2, half, 2, half, 2, half, 2, half)
    for earlier in range(4):
        for later in range(earlier, 4):
            joint = np.linalg.matrix_power(TRANSITIONS, later - earlier) / 4 - 1 / 16
            block = grid[earlier // 2, :, earlier % 2, :, later // 2, :, later % 2].reshape(half**2, half**2)
            np.testing.assert_allclose(block, stencils.T @ joint @ stencils, atol=1e-14)


@pytest.mark.parametrize("size", [10, 20])
def test_possible_inverts_the_masks(size: int) -> None:
    masks = markov_shapes_masks(size)
    np.testing.assert_array_equal(possible(masks), np.arange(256))
    np.testing.assert_array_equal(possible(masks.reshape(16, 16, size, size)), np.arange(256).reshape(16, 16))
    np.testing.assert_array_equal(possible(masks.astype(np.int64)), np.arange(256))
    assert possible(masks[7]) == 7 and possible(masks[7]).shape == ()
    assert possible(masks[:0]).shape == (0,)


@pytest.mark.parametrize("size", [10, 20])
def test_impossible_masks_are_found(size: int) -> None:
    """Flipped pixels (but one of 10 x 10 can be a dot that comes or goes), shapes that moved, values that are
    no class."""
    masks = markov_shapes_masks(size)
    flips = np.eye(size * size, dtype=np.uint8).reshape(-1, size, size)
    chosen = [0, 27, 114, 170, 255]
    flipped = masks[chosen, None] ^ flips
    states = (flipped.reshape(5, -1, 1, size * size) == masks.reshape(256, -1)).all(axis=-1)
    expected = np.where(states.any(axis=-1), states.argmax(axis=-1), -1)
    np.testing.assert_array_equal(possible(flipped), expected)
    empty_or_dot = (DIGITS[chosen] % 3 == 0).sum()
    assert (expected >= 0).sum() == (empty_or_dot if size == 10 else 0)
    for shift, axis in ((1, 1), (-1, 1), (1, 2), (-1, 2)):
        assert (possible(np.roll(masks[1:], shift, axis)) == -1).all()
    assert (possible(np.where(masks[1:] == 1, 255, 0)) == -1).all()


def test_samples_tell_the_place_and_all_masks() -> None:
    samples = list(simulate_markov_shapes(3, size=20, start=4))
    assert [sample.id for sample in samples] == ["shapes-00004", "shapes-00005", "shapes-00006"]
    for sample in samples:
        assert sample.image.shape == (2, 20, 20) and sample.image.dtype == np.float32
        rows, columns = sample.image
        np.testing.assert_array_equal(rows, columns.T)
        np.testing.assert_allclose(rows[:, 3], np.linspace(-1, 1, 20), atol=1e-7)
        np.testing.assert_array_equal(possible(sample.masks), np.arange(256))
        np.testing.assert_array_equal(sample.weights, markov_shapes_probabilities())
        assert sample.annotators[27] == "empty-square-plus-dot" and len(set(sample.annotators)) == 256
        for name, digits in zip(sample.annotators, DIGITS, strict=True):
            check_name(name, "annotator")
            assert name.split("-") == [STATES[digit] for digit in digits]
    samples[0].masks[:] = 9
    assert next(simulate_markov_shapes(1, size=20)).masks.max() == 1


@pytest.mark.parametrize("size", [0, -10, 15, 9])
def test_mistakes_name_the_size(size: int) -> None:
    for call in (
        markov_shapes_masks,
        markov_shapes_covariance,
        lambda size: simulate_markov_shapes(1, size=size),
    ):
        with pytest.raises(ValueError, match=f"multiple of 10, received {size}: ask for"):
            call(size)


def test_mistakes_name_what_was_received() -> None:
    with pytest.raises(ValueError, match="count must not be negative, received -1"):
        simulate_markov_shapes(-1)
    with pytest.raises(ValueError, match=r"H = W, received \(3, 10, 20\)"):
        possible(np.zeros((3, 10, 20)))
    with pytest.raises(ValueError, match="multiple of 10, received 12"):
        possible(np.zeros((12, 12)))
