"""What the pixels of a label map mean: `LabelSpace`.

Two cases cover the field. *Binary*: classes 0 and 1, one logit channel, sigmoid. *Multi-class*: C > 2
classes, C logit channels, softmax. A model of two classes may also have two channels and a softmax
(``softmax=True``), as much public code has. Its label space differs from that of the data, and its mask sets
have the one channel of all others (`one_channel`). The label space owns every step between logits,
probabilities, one-hot form and label map, so that no method, metric or picture asks how many classes there
are.

Shapes: a label map is ``(*batch, *space)`` of integers; its channel form (logits, probabilities, one-hot) has
one axis more, at position ``dim``: 1 in ``(B, C, H, W)``, 2 in ``(B, K, C, H, W)``. Space may have any number
of axes.
"""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ambiseg.defaults import FOREGROUND_THRESHOLD
from ambiseg.errors import AmbisegError, UnknownNameError

TWIN = "-twin"
"""What follows the name of a class that flips in the name of the class that it becomes."""
VOID = 255
"""The value of pixels that no loss and no metric may look at, where a label space names no
``ignore_value``."""
LEAST = 1e-6
"""Added to every class by `LabelSpace.normalized`, so that some class has a probability where none has a
value."""


@dataclass(frozen=True)
class LabelSpace:
    """Classes of a segmentation task: names, colours and the value to ignore.

    Attributes:
        names: one name per class; class ``i`` is the integer ``i`` of a label map. Two names make a binary
            space.
        colors: one ``(red, green, blue)`` per class, 0..255; chosen evenly around the colour circle if left
            empty.
        ignore_value: integer of pixels to leave out (void), or None; it must not be a class.
        background: class that metrics leave out unless asked for, or None to evaluate all.
        softmax: two channels and a softmax for the logits of two classes; more classes always have a softmax.
        only: the classes that metrics look at, see `restricted`; all but the background if empty.

    Raises:
        AmbisegError: fewer than two names, more than 255, doubled names, an ignore value that is a class, or
            ``softmax`` of more than two classes.

    Example:
        >>> space = LabelSpace.binary()
        >>> space.channels, space.evaluated
        (1, (1,))
        >>> space.decide(space.probabilities(torch.tensor([[[[-1.0, 2.0]]]])))
        tensor([[[0, 1]]], dtype=torch.uint8)
    """

    names: tuple[str, ...] = ("background", "foreground")
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore_value: int | None = None
    background: int | None = 0
    softmax: bool = False
    only: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.names)
        if not 2 <= count <= 255:
            raise AmbisegError(f"a label space has 2 to 255 classes, received {count}: name each class once")
        if len(set(self.names)) != count:
            raise AmbisegError(f"class names must differ, received {list(self.names)}")
        if self.ignore_value is not None and not count <= self.ignore_value <= 255:
            raise AmbisegError(
                f"ignore_value {self.ignore_value} must lie outside the classes 0..{count - 1} and within 255"
            )
        if not self.colors:
            object.__setattr__(self, "colors", _even_colors(count))
        if len(self.colors) != count:
            raise AmbisegError(f"{count} classes need {count} colors, received {len(self.colors)}")
        if self.softmax and not self.is_binary:
            raise AmbisegError(
                f"softmax=True is for two classes, received {count}: leave it out, more classes always have one"
            )
        if not all(0 <= one < count for one in self.only):
            raise AmbisegError(f"only names classes of 0..{count - 1}, received {list(self.only)}")

    @classmethod
    def binary(cls, foreground: str = "foreground", ignore_value: int | None = None) -> LabelSpace:
        """The two-class space: background 0 and one foreground class 1."""
        return cls(("background", foreground), ignore_value=ignore_value)

    @classmethod
    def of_classes(cls, count: int, ignore_value: int | None = None) -> LabelSpace:
        """A space of ``count`` classes without names of their own."""
        if count == 2:
            return cls.binary(ignore_value=ignore_value)
        return cls(tuple(f"class {i}" for i in range(count)), ignore_value=ignore_value)

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> LabelSpace:
        """The inverse of `to_dict`."""
        return cls(
            names=tuple(str(name) for name in description["names"]),
            colors=tuple(tuple(int(v) for v in color) for color in description.get("colors") or ()),  # type: ignore[misc]
            ignore_value=description.get("ignore_value"),
            background=description.get("background", 0),
            softmax=bool(description.get("softmax", False)),
            only=tuple(description.get("only") or ()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for YAML and JSON."""
        return {
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "ignore_value": self.ignore_value,
            "background": self.background,
            **({"softmax": True} if self.softmax else {}),
            **({"only": list(self.only)} if self.only else {}),
        }

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.names)

    @property
    def is_binary(self) -> bool:
        """Whether there are two classes, in one channel or in two."""
        return self.classes == 2

    @property
    def channels(self) -> int:
        """Channels of logits and probabilities: 1 if binary without ``softmax``, else C."""
        return 1 if self.is_binary and not self.softmax else self.classes

    @cached_property
    def one_channel(self) -> LabelSpace:
        """The same space without ``softmax``: that of data and mask sets.

        Example:
            >>> LabelSpace(softmax=True).one_channel == LabelSpace.binary()
            True
        """
        return replace(self, softmax=False) if self.softmax else self

    def with_binary_channels(self, count: int) -> LabelSpace:
        """The space of a model for these data: with 1 or 2 channels for two classes (``train.binary_channels``).

        Raises:
            AmbisegError: 2, and more classes than two.

        Example:
            >>> LabelSpace.binary().with_binary_channels(2).channels
            2
        """
        if count == 2 and not self.is_binary:
            raise AmbisegError(
                f"train.binary_channels=2 is for masks of two classes, these have {self.classes}, with a channel each:"
                " set train.binary_channels=1"
            )
        return replace(self, softmax=count == 2)

    @property
    def void(self) -> int:
        """The integer of pixels to leave out; `VOID` where the space names none (padding uses it)."""
        return VOID if self.ignore_value is None else self.ignore_value

    @cached_property
    def evaluated(self) -> tuple[int, ...]:
        """Classes that metrics look at: all but the background, or `only` some."""
        return self.only or tuple(c for c in range(self.classes) if c != self.background)

    @property
    def switchable(self) -> tuple[int, ...]:
        """Classes that flip, and their twins (``car`` and ``car-twin``), in the order of the classes.

        Example:
            >>> LabelSpace(("sky", "car", "road", "car-twin")).switchable
            (1, 3)
        """
        stems = {name.removesuffix(TWIN) for name in self.names if name.endswith(TWIN)} & set(self.names)
        return tuple(i for i, name in enumerate(self.names) if name.removesuffix(TWIN) in stems)

    def restricted(self, classes: Iterable[str | int]) -> LabelSpace:
        """The same space, of which metrics look at some classes only.

        Args:
            classes: names or ids, or a single name; a word of digits is an id where no class has that name.

        Raises:
            AmbisegError: no class, or an id that there is not.
            UnknownNameError: a name that there is not.

        Example:
            >>> LabelSpace(("sky", "car", "road")).restricted(["road", 0]).evaluated
            (0, 2)
        """
        chosen = {self._id(one) for one in ([classes] if isinstance(classes, str) else classes)}
        if not chosen:
            raise AmbisegError(f"no class to evaluate: name some of {', '.join(self.names)}")
        return replace(self, only=tuple(sorted(chosen)))

    def _id(self, one: str | int) -> int:
        if isinstance(one, str) and one in self.names:
            return self.names.index(one)
        try:
            number = int(one)
        except ValueError:
            raise UnknownNameError("class", str(one), self.names) from None
        if not 0 <= number < self.classes:
            raise AmbisegError(f"there is no class {number}: the ids are 0..{self.classes - 1}")
        return number

    def without_others(self, masks: Tensor) -> Tensor:
        """Label maps in which all classes that are not evaluated are one; the same where metrics are not
        `restricted`.

        Example:
            >>> LabelSpace.of_classes(4).restricted([1]).without_others(torch.tensor([0, 1, 2, 3, 255]))
            tensor([  0,   1,   0,   0, 255])
        """
        others = [c for c in range(self.classes) if c not in self.evaluated]
        if not self.only or len(others) < 2:
            return masks
        table = torch.arange(256, device=masks.device, dtype=masks.dtype)
        table[others] = self.background if self.background in others else others[0]
        return table[masks.long()]

    def valid(self, masks: Tensor) -> Tensor:
        """Where a label map counts: True off the void value. Same shape, bool."""
        return masks != self.void

    def one_hot(self, masks: Tensor, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Channel form of label maps: ``y_c = [mask = c]`` at axis ``dim``; void pixels are 0 in every
        channel.

        Spaces of one channel give ``[mask = 1]``.

        Example:
            >>> LabelSpace.of_classes(3).one_hot(torch.tensor([[0, 2, 255]]), dim=1).tolist()
            [[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
        """
        first = self.classes - self.channels
        ids = torch.arange(first, self.classes, device=masks.device, dtype=torch.uint8)
        shape = [1] * (masks.dim() + 1)
        shape[dim] = len(ids)
        return (masks.unsqueeze(dim) == ids.view(shape)).to(dtype)

    def probabilities(self, logits: Tensor, dim: int = 1) -> Tensor:
        """Sigmoid (one channel) or softmax over axis ``dim``; same shape as ``logits``, float32."""
        logits = logits.float()
        return logits.sigmoid() if self.channels == 1 else logits.softmax(dim)

    def log_probabilities(self, logits: Tensor, dim: int = 1) -> Tensor:
        """Logarithm of `probabilities`, exact where these are near 0."""
        logits = logits.float()
        return functional.logsigmoid(logits) if self.channels == 1 else logits.log_softmax(dim)

    def in_one_channel(self, logits: Tensor, dim: int = 1) -> tuple[Tensor, LabelSpace]:
        """Logits of the same probabilities in `one_channel`, and that space: of two channels their difference.

            softmax(z_0, z_1)_1 = sigmoid(z_1 - z_0)

        A loss of logits takes them in this form, so that it is the same for one channel and for two.

        Example:
            >>> logits, labels = LabelSpace(softmax=True).in_one_channel(torch.tensor([[0.5, 2.0]]))
            >>> logits, labels.channels
            (tensor([[1.5000]]), 1)
        """
        if self.softmax:
            below, above = logits.float().chunk(2, dim)
            logits = above - below
        return logits, self.one_channel

    def normalized(self, values: Tensor, dim: int = 1) -> Tensor:
        """Probabilities from values near them, such as the end of a flow: cut to [0, 1] and, of several
        channels, of sum 1.

        Example:
            >>> LabelSpace.of_classes(3).normalized(torch.tensor([[1.5, 1.0, -0.2]])).round(decimals=2)
            tensor([[0.5000, 0.5000, 0.0000]])
        """
        share = values.clamp(0, 1)
        if self.channels == 1:
            return share
        share = share + LEAST
        return share / share.sum(dim, keepdim=True)

    def decide(self, probabilities: Tensor, dim: int = 1, threshold: float = FOREGROUND_THRESHOLD) -> Tensor:
        """Label map of the most probable class (binary: foreground probability > threshold); uint8, without
        axis ``dim``."""
        if self.is_binary:
            return (probabilities.select(dim, -1) > threshold).to(torch.uint8)
        return probabilities.argmax(dim).to(torch.uint8)

    def all_classes(self, probabilities: Tensor, dim: int) -> Tensor:
        """Probabilities of all C classes at axis ``dim``: ``(1 - p, p)`` of one channel, else unchanged."""
        return torch.cat([1 - probabilities, probabilities], dim) if self.channels == 1 else probabilities

    def cross_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Per-pixel cross-entropy in nats of logits ``(B, C, *S)`` against label maps ``(B, *S)``; 0 on void
        pixels.

        Example:
            >>> LabelSpace.binary().cross_entropy(torch.zeros(1, 1, 2), torch.tensor([[1, 255]]))
            tensor([[0.6931, 0.0000]])
        """
        if self.channels == 1:
            target = (masks == 1).to(logits.dtype)
            loss = functional.binary_cross_entropy_with_logits(logits.squeeze(1), target, reduction="none")
            return loss * self.valid(masks)
        return functional.cross_entropy(logits, masks.long(), ignore_index=self.void, reduction="none")

    def check(self, masks: Tensor, what: str) -> None:
        """Raise `AmbisegError` if ``masks`` holds an integer that is neither a class nor void."""
        wrong = (masks >= self.classes) & self.valid(masks) | (masks < 0)
        if bool(wrong.any()):
            found: Sequence[int] = sorted({int(v) for v in masks[wrong].tolist()})[:5]
            raise AmbisegError(
                f"{what} holds the value(s) {found}, but the classes are 0..{self.classes - 1}"
                f" and the value to ignore is {self.ignore_value}: correct the masks or name the classes"
            )


def _even_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """Black for class 0, then hues evenly around the circle."""
    hues = [colorsys.hsv_to_rgb(i / max(1, count - 1), 0.75, 0.95) for i in range(count - 1)]
    return ((0, 0, 0), *((round(r * 255), round(g * 255), round(b * 255)) for r, g, b in hues))
