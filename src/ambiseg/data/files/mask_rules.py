"""`MaskRules`: what the numbers and colours of a mask mean, one set of rules for every way into the library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from ambiseg.labels import LabelSpace

Color = tuple[int, int, int]
"""Red, green, blue, 0..255."""


@dataclass(frozen=True)
class MaskRules:
    """What the numbers and colours of a mask mean.

    Attributes:
        classes: number of classes; None where they are not known, as of a single file.
        ignore_value: number of pixels to leave out.
        colors: class of each colour; colours that two classes share are left out.
        threshold: numbers above it are foreground, for masks of two classes with smoothed borders.

    Example:
        >>> MaskRules.of(LabelSpace.binary()).colors[(0, 0, 0)]
        0
    """

    classes: int | None = None
    ignore_value: int | None = None
    colors: Mapping[Color, int] = field(default_factory=dict)
    threshold: float | None = None

    @classmethod
    def of(cls, labels: LabelSpace, threshold: float | None = None) -> MaskRules:
        """The rules of a label space."""
        counts = Counter(labels.colors)
        colors = {color: i for i, color in enumerate(labels.colors) if counts[color] == 1}
        return cls(labels.classes, labels.ignore_value, colors, threshold)

    @property
    def two_classes(self) -> bool:
        """Whether black and white may mean background and foreground."""
        return self.classes in (None, 2)

    @property
    def greys(self) -> dict[int, int]:
        """Class of each grey level among the colours."""
        return {red: i for (red, green, blue), i in self.colors.items() if red == green == blue}

    def is_class(self, value: int) -> bool:
        """Whether a number is a class or the one to leave out; any is where classes are not known."""
        return self.classes is None or value < self.classes or value == self.ignore_value
