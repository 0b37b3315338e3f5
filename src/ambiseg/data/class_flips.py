"""Any semantic data set as an ambiguous one: some of its classes are switched on and off, each with its own
probability.

The labels are stored once; ``dataset.yaml`` says which classes flip. A stored label map y and the flip states
``b in {0, 1}^k`` of k classes give the mode

    m_b(x) = on_c  if y(x) = c flips and b_c = 1,  else off_y(x),        p_b = prod_c q_c^b_c (1 - q_c)^(1 - b_c)

with two kinds of output:

- ``binary``: on is foreground, off is background, and so is every class that never flips (Gerard and
  Sullivan, WSS);
- ``twins``: off is the class itself, on its twin, a new class (Kohl et al. 2018, section 4.2; 19 classes and
  5 twins).

A class that an image does not show leaves its masks as they are, so the modes that differ only there are one
mode and the mass of both is its own: the product over the classes that are there. Void stays void. Modes are
made when they are asked for, all of them or one draw; the 2^k label maps of an image are never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.labels import TWIN, VOID, LabelSpace

OUTPUTS = ("binary", "twins")
"""What a class that is switched on becomes: foreground, or its twin."""
MAX_FLIPS = 8
"""Classes that can flip: one bit of a byte each, 256 modes at most."""


@dataclass(frozen=True)
class ClassFlips:
    """Which classes of a data set flip, how often, and into what.

    Attributes:
        probabilities: class to the probability that it is on; at most `MAX_FLIPS` classes.
        output: ``binary`` or ``twins``.

    Raises:
        AmbisegError: no class or too many, a probability outside 0..1, an unknown output.

    Reference: Kohl et al. (2018), "A Probabilistic U-Net for Segmentation of Ambiguous Images", section 4.2
    (twins).

    Example:
        >>> flips = ClassFlips({"road": 0.25, "car": 0.5}, "twins")
        >>> flips.output_labels(LabelSpace(("sky", "road", "car"))).names
        ('sky', 'road', 'car', 'road-twin', 'car-twin')
    """

    probabilities: Mapping[str, float]
    output: str = "binary"

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise UnknownNameError("output of flips", str(self.output), OUTPUTS)
        if not 1 <= len(self.probabilities) <= MAX_FLIPS:
            raise AmbisegError(f"flips name 1 to {MAX_FLIPS} classes, received {len(self.probabilities)}")
        for name, value in self.probabilities.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise AmbisegError(f"flips: {name} has a probability of 0 to 1, received {value!r}")

    def output_labels(self, labels: LabelSpace) -> LabelSpace:
        """What the integers of the modes mean, where ``labels`` are the classes that are stored.

        Raises:
            UnknownNameError: a class flips that is not among ``labels``.
        """
        for name in self.probabilities:
            if name not in labels.names:
                raise UnknownNameError("class that flips", name, labels.names)
        ignore = None if labels.ignore_value is None else VOID
        if self.output == "binary":
            return LabelSpace.binary(ignore_value=ignore)
        colors = [labels.colors[labels.names.index(name)] for name in self.probabilities]
        lighter = tuple(((r + 255) // 2, (g + 255) // 2, (b + 255) // 2) for r, g, b in colors)
        twins = tuple(f"{name}{TWIN}" for name in self.probabilities)
        return LabelSpace(labels.names + twins, labels.colors + lighter, ignore, labels.background)


class FlipModes:
    """The modes of any label map of one data set.

    Args:
        flips: which classes flip.
        labels: the classes of the label maps.

    Attributes:
        labels: the classes of the modes.

    Raises:
        UnknownNameError: a class flips that is not among ``labels``.

    Example:
        >>> modes = FlipModes(ClassFlips({"road": 0.25, "car": 0.5}), LabelSpace(("sky", "road", "car")))
        >>> masks, weights, names = modes.all(np.array([[0, 1, 1]], np.uint8))
        >>> masks.tolist(), weights.tolist(), names
        ([[[0, 0, 0]], [[0, 1, 1]]], [0.75, 0.25], ('flip-0x', 'flip-1x'))
    """

    def __init__(self, flips: ClassFlips, labels: LabelSpace) -> None:
        self.labels = flips.output_labels(labels)
        classes, count = labels.classes, len(flips.probabilities)
        flipped = [labels.names.index(name) for name in flips.probabilities]
        self._chances = np.array(list(flips.probabilities.values()), np.float64)
        self._bits = np.zeros(256, np.uint8)
        self._bits[flipped] = 1 << np.arange(count)
        self._off = np.full(256, VOID, np.uint8)
        self._off[:classes] = 0 if flips.output == "binary" else np.arange(classes)
        on = 1 if flips.output == "binary" else classes + np.arange(count)
        self._step = np.zeros(256, np.uint8)
        self._step[flipped] = on - self._off[flipped].astype(int)

    def all(
        self, label_map: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64], tuple[str, ...]]:
        """The different modes of a label map ``(H, W)`` that have a probability above 0.

        Returns:
            Masks ``(M, H, W)`` in the lexicographic order of the states, weights ``(M,)`` of sum 1, and names such as
            ``flip-01x``: off, on, and a class that is not in the image.
        """
        bits = self._bits.take(label_map)
        there = int(np.bitwise_or.reduce(bits, axis=None))
        present = [i for i in range(len(self._chances)) if there >> i & 1]
        states = np.indices((2,) * len(present)).reshape(len(present), 2 ** len(present)).T
        chances = self._chances[present]
        weights = np.where(states, chances, 1 - chances).prod(1)
        states, weights = states[weights > 0], weights[weights > 0]
        codes = (states << np.array(present, int)).sum(1).astype(np.uint8)
        on = (bits & codes[:, None, None]) != 0
        masks = on.view(np.uint8)
        masks *= self._step.take(label_map)
        masks += self._off.take(label_map)
        return masks, weights, tuple(self._name(state, present) for state in states.tolist())

    def draw(self, label_map: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """One mode ``(H, W)`` with its probability, without making the others."""
        on = rng.random(len(self._chances)) < self._chances
        code = np.uint8((on << np.arange(len(on))).sum())
        table = self._off + self._step * ((self._bits & code) != 0)
        return np.asarray(table.take(label_map), np.uint8)

    def _name(self, state: list[int], present: list[int]) -> str:
        letters = ["x"] * len(self._chances)
        for i, on in zip(present, state, strict=True):
            letters[i] = str(on)
        return "flip-" + "".join(letters)
