r"""MarkovShapes: 256 images whose probabilities, pixel covariance and entropy are known exactly.

Each quadrant of an image holds one of four states: it is empty, or a square, a plus or a dot stands in its
middle. In reading order (top left, top right, bottom left, bottom right) the states :math:`X_1, \dots, X_4`
are a Markov chain with the doubly stochastic matrix :math:`\mathbf T` of equation (20) of the paper,
:math:`\mathbf T_{ij} = P(X_{t+1} = j \mid X_t = i)`:

.. math:: P(x_1, x_2, x_3, x_4) = \pi_{x_1} \mathbf T_{x_1 x_2} \mathbf T_{x_2 x_3} \mathbf T_{x_3 x_4}

The three shapes are linearly independent and every sequence of states is possible, so the covariance of the
pixels has rank :math:`r_{\text{true}} = 4 \cdot 3 = 12`: what a low-rank normal distribution has to reach.
The entropy of :math:`P` over the number of pixels is the least bits per dimension that any model can reach.

What the paper does not print, and is chosen here:

* the first quadrant follows the stationary distribution of :math:`\mathbf T`, which is uniform because the matrix is doubly
  stochastic: :math:`\pi_i = 1/4`;
* a quadrant has 5 x 5 cells, and in its middle 3 x 3 a square covers 9 of them, a plus 5, a dot 1; cells are
  squares of pixels, so that the size of an image is a multiple of 10.

There is no input image in the paper. Here it tells each pixel where it is and nothing else, the same for all.

Reference: De Sousa Ribeiro et al. (2025), Flow stochastic segmentation networks, section 6.1.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError

Array = NDArray[np.float64]

STATES: tuple[str, ...] = ("empty", "square", "plus", "dot")
CHANNELS: tuple[str, ...] = ("row", "column")
TRANSITIONS: Array = np.array([[20, 20, 20, 20], [20, 6, 27, 27], [20, 27, 6, 27], [20, 27, 27, 6]]) / 80.0
"""Equation (20): from each of `STATES` (rows) to the one of the next quadrant (columns)."""

_CELLS = 10  # along a side of the image
_INITIAL = np.full(4, 0.25)
_SHAPES = np.array(
    [
        [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    ],
    np.uint8,
)
_SEQUENCES = np.indices((4, 4, 4, 4)).reshape(4, 256).T  # states of the four quadrants of each image


def markov_shapes_masks(size: int = 10) -> NDArray[np.uint8]:
    """All possible label maps, 0 background and 1 shape.

    Returns:
        ``(256, size, size)``; the states of the quadrants in reading order are the digits of the index, base 4.

    Raises:
        AmbisegError: ``size`` is no positive multiple of 10.

    Example:
        >>> for row in markov_shapes_masks()[int("0123", base=4)]:
        ...     print(*row, sep="")
        0000000000
        0000001110
        0000001110
        0000001110
        0000000000
        0000000000
        0010000000
        0111000100
        0010000000
        0000000000
    """
    scale = _scale(size)
    stencils = np.pad(_SHAPES, ((0, 0), (1, 1), (1, 1))).repeat(scale, axis=1).repeat(scale, axis=2)
    quadrants = stencils[_SEQUENCES].reshape(256, 2, 2, size // 2, size // 2)
    return quadrants.transpose(0, 1, 3, 2, 4).reshape(256, size, size)


def markov_shapes_probabilities() -> Array:
    r"""Probability :math:`P` of each of the 256 label maps in the order of `markov_shapes_masks`, ``(256,)``.

    Example:
        >>> markov_shapes_probabilities()[:2]  # three times empty, then empty or square
        array([0.00390625, 0.00390625])
    """
    first, second, third, fourth = _SEQUENCES.T
    steps = TRANSITIONS[first, second] * TRANSITIONS[second, third] * TRANSITIONS[third, fourth]
    return np.asarray(_INITIAL[first] * steps, np.float64)


def markov_shapes_entropy() -> float:
    r"""Bits per image, :math:`H(\pi) + 3 \sum_i \pi_i H(\mathbf T_{i \cdot})`: the chain is stationary.

    Over the number of pixels it is the floor of bits per dimension.

    Example:
        >>> round(markov_shapes_entropy(), 4), round(markov_shapes_entropy() / 10**2, 4)
        (7.6356, 0.0764)
    """
    steps = -(TRANSITIONS * np.log2(TRANSITIONS)).sum(axis=1)
    return float(-(_INITIAL * np.log2(_INITIAL)).sum() + 3.0 * _INITIAL @ steps)


def markov_shapes_covariance(size: int = 10) -> Array:
    r"""Exact covariance of the pixels, :math:`\sum_k P_k (y_k - \bar y)(y_k - \bar y)^\top`; its rank is 12.

    Returns:
        ``(D, D)`` with the D = size^2 pixels in reading order.

    Raises:
        AmbisegError: ``size`` is no positive multiple of 10.

    Example:
        >>> covariance = markov_shapes_covariance()
        >>> covariance.shape, float(covariance[22, 22].round(4))  # covered with probability 3/4
        ((100, 100), 0.1875)
    """
    probabilities = markov_shapes_probabilities()
    pixels = markov_shapes_masks(size).reshape(256, -1).astype(np.float64)
    factor = np.sqrt(probabilities)[:, None] * (pixels - probabilities @ pixels)
    return np.asarray(factor.T @ factor, np.float64)


def possible(masks: ArrayLike) -> NDArray[np.int64]:
    """Which of the possible label maps each given one is, or none: a sampling error in the words of the
    paper.

    Three pixels of a quadrant (in the dot, in plus but not dot, in square but not plus) tell the only state
    that can be there; the label map of these states must then agree in every pixel.

    Args:
        masks: label maps ``(..., H, W)`` with 0 background and 1 shape.

    Returns:
        Index 0 to 255 into `markov_shapes_masks`, -1 where a label map is not among them, ``(...)``.

    Raises:
        AmbisegError: the label maps are not square or their side is no positive multiple of 10.

    Example:
        >>> masks = markov_shapes_masks()[[0, 27, 255]]
        >>> masks[2, 0, 0] = 1  # a pixel outside of all shapes
        >>> possible(masks).tolist()
        [0, 27, -1]
    """
    given = np.asarray(masks)
    if given.ndim < 2 or given.shape[-1] != given.shape[-2]:
        raise AmbisegError(
            f"label maps of MarkovShapes have shape (..., H, W) with H = W, received {given.shape}: give square ones"
        )
    size = given.shape[-1]
    scale = _scale(size)
    corners = scale * np.array([0, _CELLS // 2])
    row, column = (offset.ravel() for offset in np.meshgrid(corners, corners, indexing="ij"))
    covered = np.zeros((*given.shape[:-2], 4), np.int64)
    for down, right in ((2, 2), (1, 2), (1, 1)):  # in dot, plus, square; in plus, square; in square
        covered += given[..., row + scale * down, column + scale * right] == 1
    states = np.array([0, STATES.index("dot"), STATES.index("plus"), STATES.index("square")])[covered]
    index = np.asarray(states @ np.array([64, 16, 4, 1]), np.int64)
    agree = (markov_shapes_masks(size)[index] == given).all(axis=(-2, -1))
    return np.where(agree, index, -1)


def simulate_markov_shapes(count: int, *, size: int = 10, start: int = 0) -> Iterator[Sample]:
    """Samples ``start`` to ``start + count - 1``, which differ in their ids alone.

    There is no seed, since nothing is random: each sample carries all 256 label maps and their exact
    probabilities.

    Args:
        count: number of samples.
        size: height and width, a multiple of 10.
        start: number of the first.

    Returns:
        Samples of image (2, size, size) float32, the row and the column of each pixel from -1 to 1, masks
        (256, size, size) in the order of `markov_shapes_masks`, and annotators named by the states.

    Raises:
        AmbisegError: at the call, if ``size`` is no positive multiple of 10 or a number is negative.

    Example:
        >>> sample = next(simulate_markov_shapes(1))
        >>> sample.id, sample.masks.shape, sample.annotators[27], float(sample.weights[27].round(5))
        ('shapes-00000', (256, 10, 10), 'empty-square-plus-dot', 0.00712)
    """
    _scale(size)
    for name, value in (("count", count), ("start", start)):
        if value < 0:
            raise AmbisegError(f"{name} must not be negative, received {value}")
    return map(functools.partial(_sample, size), range(start, start + count))


def _sample(size: int, index: int) -> Sample:
    place = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    image = np.stack(np.meshgrid(place, place, indexing="ij"))
    names = tuple("-".join(STATES[state] for state in states) for states in _SEQUENCES)
    return Sample(
        f"shapes-{index:05d}", image, markov_shapes_masks(size), markov_shapes_probabilities(), names
    )


def _scale(size: int) -> int:
    """Pixels along a side of a cell."""
    if size < _CELLS or size % _CELLS:
        raise AmbisegError(
            f"markov-shapes size must be a positive multiple of {_CELLS}, received {size}: ask for 10 or 20"
        )
    return size // _CELLS
