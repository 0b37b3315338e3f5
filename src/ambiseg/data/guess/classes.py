"""The classes of masks that nobody described: from all numbers and colours that they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ambiseg.data.files.mask_rules import Color
from ambiseg.data.files.pixels import Pixels
from ambiseg.data.files.reading import decode
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.guess.volumes import maybe_volume, numbers_of
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

MOST_CLASSES = 64
"""More numbers or colours than this are no classes."""
BLACK: Color = (0, 0, 0)
_VOID = 255


@dataclass
class MaskValues:
    """What masks hold.

    Attributes:
        files: masks that were read.
        numbers: in how many grey masks each number occurs.
        colors: in how many coloured masks each colour occurs.
        palette: colour of each index of masks with a palette; None where two files disagree.
        fractions: whether numbers lie between the integers.
        void: whether one mask holds 255 beside numbers other than 0.
        problems: masks that cannot be read.
    """

    files: int = 0
    numbers: Counter[int] = field(default_factory=Counter)
    colors: Counter[Color] = field(default_factory=Counter)
    palette: dict[int, Color] | None = field(default_factory=dict)
    indexed: Counter[int] = field(default_factory=Counter)
    fractions: bool = False
    void: bool = False
    smooth: int = 0
    highest: float = 0
    problems: list[FileProblem] = field(default_factory=list)

    @classmethod
    def of(cls, paths: Iterable[Path], progress: Callable[[int], None] = lambda done: None) -> MaskValues:
        """Read all masks."""
        found = cls()
        for done, path in enumerate(paths, 1):
            try:
                if maybe_volume(path):
                    found.files += 1
                    found._add_counts(*numbers_of(path))
                else:
                    found.add(decode(path, True), path)
            except AmbisegError as error:
                found.problems.append(_problem(error, path))
            progress(done)
        return found

    def add(self, pixels: Pixels, path: Path) -> None:
        """Take one mask; `FileProblem` if it cannot be one."""
        if pixels.lossy:
            raise FileProblem(
                path, "the content is JPEG or WebP, which alters class numbers", "save it as PNG"
            )
        if pixels.alpha is not None and not pixels.alpha.all():
            raise FileProblem(path, "some of its pixels are transparent", "save it without transparency")
        values = pixels.values
        if not np.isfinite(values).all():
            raise FileProblem(path, "the mask holds NaN or infinite numbers", "replace them by 0 or a class")
        self.files += 1
        if pixels.palette is not None and bool((pixels.palette == pixels.palette[:, :1]).all()):
            self._add_numbers(pixels.palette[values[0], 0])
        elif pixels.palette is not None and len({tuple(color) for color in pixels.palette.tolist()}) > 2:
            self._add_indices(values, pixels.palette)
        elif pixels.palette is not None:
            self._add_colors(pixels.palette[values[0]].transpose(2, 0, 1))
        elif pixels.rgb and bool((values != values[:1]).any()):
            self._add_colors(values)
        else:
            self._add_numbers(values[0] if pixels.rgb else values)

    def _add_indices(self, values: np.ndarray, palette: np.ndarray) -> None:
        for index in np.unique(values).tolist():
            color = (int(palette[index][0]), int(palette[index][1]), int(palette[index][2]))
            self.indexed[index] += 1
            if self.palette is not None and self.palette.setdefault(index, color) != color:
                self.palette = None

    def _add_colors(self, values: np.ndarray) -> None:
        red, green, blue = values.astype(np.uint32)
        codes = np.unique((red << 16) + (green << 8) + blue)
        self.colors.update((int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in codes[:1000])

    def _add_numbers(self, values: np.ndarray) -> None:
        self._add_counts(*np.unique(values, return_counts=True))

    def _add_counts(self, own: np.ndarray, counts: np.ndarray) -> None:
        self.highest = max(self.highest, float(own[-1]))
        if own.dtype.kind == "f" and bool((np.abs(own - np.round(own)) > 1e-3).any()):
            self.fractions = True
            return
        between = counts[1:-1].sum() if own[0] == 0 else counts.sum()
        self.smooth += len(own) > 8 and between < counts[0] + counts[-1]
        self.void |= _VOID in own and bool(((own > 0) & (own < _VOID)).any())
        self.numbers.update(int(value) for value in np.round(own[:1000]))


@dataclass(frozen=True)
class Classes:
    """Classes that suit the masks.

    Attributes:
        labels: names, colours, number to ignore.
        colored: whether the colours are those of the masks.
        threshold: above it numbers are foreground.
        remarks: what was assumed, a sentence each.
    """

    labels: LabelSpace
    colored: bool = False
    threshold: float | None = None
    remarks: tuple[str, ...] = ()


def classes_of(found: MaskValues) -> Classes:
    """The classes that explain all masks.

    Raises:
        AmbisegError: no mask could be read, or they are no label maps.
    """
    if not found.files:
        raise (
            found.problems[0] if found.problems else AmbisegError("there is no mask: name some with --masks")
        )
    if found.colors:
        return _of_colors(found)
    if found.indexed:
        return _of_indices(found)
    if found.fractions or 2 * found.smooth > found.files:
        threshold = 0.5 if found.highest <= 1 else found.highest // 2
        remark = f"masks have smooth borders or probabilities: numbers above {threshold:g} are foreground"
        return Classes(LabelSpace.binary(), threshold=threshold, remarks=(remark,))
    return _of_numbers(found)


def _of_numbers(found: MaskValues) -> Classes:
    numbers = sorted(found.numbers)
    if len(numbers) > MOST_CLASSES or numbers[0] < 0:
        raise AmbisegError(
            f"masks hold {len(numbers)} numbers from {numbers[0]} to {numbers[-1]}, which are no classes: name the"
            " folder of label maps with --masks"
        )
    if set(numbers) <= {0, 1, 255, 65535} and not found.void:
        return Classes(LabelSpace.binary())
    void = _VOID if _VOID in numbers and found.void else None
    rest = [number for number in numbers if number != void]
    remarks = () if void is None else ("255 was taken for pixels to ignore (ignore_value)",)
    if rest[-1] + 1 > 2 * len(numbers) + 2 and numbers[-1] <= 255:
        levels = numbers if numbers[0] == 0 else [0, *numbers]
        names = ("background", *(f"grey-{level}" for level in levels[1:]))
        return Classes(LabelSpace(names, tuple((n, n, n) for n in levels)), True)
    if rest[-1] > 254:
        raise AmbisegError(f"masks hold numbers up to {rest[-1]}: number the classes 0 to 254")
    return Classes(LabelSpace(_names(rest[-1] + 1), ignore_value=void), remarks=remarks)


def _names(count: int) -> tuple[str, ...]:
    if count <= 2:
        return LabelSpace.binary().names
    return ("background", *(f"class-{i}" for i in range(1, count)))


def _of_colors(found: MaskValues) -> Classes:
    """A class for each colour: black, else the most frequent one, is the background."""
    for number in found.numbers:
        if 0 <= number <= 255:
            found.colors[number, number, number] += found.numbers[number]
    if len(found.colors) > MOST_CLASSES:
        raise AmbisegError(
            f"masks hold {len(found.colors)} colours or more, which are no classes: save them without smoothing, as PNG"
        )
    first = BLACK if BLACK in found.colors else found.colors.most_common(1)[0][0]
    colors = [first, *sorted(color for color in found.colors if color != first)]
    if len(colors) == 1:
        colors.append((255, 255, 255) if first != (255, 255, 255) else BLACK)
    remarks = () if first == BLACK else (f"the most frequent colour {first} was taken for the background",)
    return Classes(LabelSpace(_names(len(colors)), tuple(colors)), True, remarks=remarks)


def _of_indices(found: MaskValues) -> Classes:
    """The indices of a palette are the classes."""
    numbers = sorted({*found.indexed, *found.numbers})
    void = _VOID if numbers[-1] == _VOID and len(numbers) > 2 else None
    rest = [number for number in numbers if number != void]
    count = max(2, rest[-1] + 1)
    if count > 255:
        raise AmbisegError(f"masks hold palette indices up to {rest[-1]}: number the classes 0 to 254")
    colors = [found.palette.get(i) for i in range(count)] if found.palette else []
    given = tuple(color for color in colors if color is not None)
    known = len(given) == count == len(set(given))
    remarks = () if void is None else ("255 was taken for pixels to ignore (ignore_value)",)
    return Classes(LabelSpace(_names(count), given if known else (), void), known, remarks=remarks)


def _problem(error: AmbisegError, path: Path) -> FileProblem:
    return error if isinstance(error, FileProblem) else FileProblem(path, str(error), "correct the file")
