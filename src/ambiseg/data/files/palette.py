"""What colours of a mask mean: the colours of the classes, grey levels, two colours, or the table's indices.

A mask means what a viewer shows. Only where a palette is a table of many colours, as in VOC, do its indices
count; they must begin with black, and they must not contradict the colours of the classes.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import Color, MaskRules
from ambiseg.data.files.validation import FileProblem

BLACK: Color = (0, 0, 0)

COLORS_IN_YAML = "(classes: [{name: road, color: [128, 64, 128]}, ...])"
_GIVE_COLORS = (
    f"give every class its color in dataset.yaml {COLORS_IN_YAML}, or save class numbers as a grey image"
)


def from_palette(
    indices: NDArray[Any], palette: NDArray[np.uint8], rules: MaskRules, file: str | PathLike[str]
) -> tuple[NDArray[Any], dict[int, Color] | None]:
    """Numbers ``(H, W)`` of a palette mask; and colour by index, where the indices are the classes.

    Raises:
        FileProblem: colours whose class nothing tells.
    """
    used = [int(i) for i in np.unique(indices)]
    whole: list[Color] = [(int(r), int(g), int(b)) for r, g, b in palette]
    colors = {i: whole[i] for i in used}
    table = np.zeros(len(palette), np.uint8)
    if all(color in rules.colors or i == rules.ignore_value for i, color in colors.items()):
        table[used] = [rules.colors.get(color, i) for i, color in colors.items()]
        return table[indices], None
    if all(r == g == b for r, g, b in whole):
        return palette[indices, 0], None
    if len(set(whole)) == 2:
        if BLACK not in whole:
            raise FileProblem(
                file, f"its two colours {_named(set(whole))} do not tell the background", _GIVE_COLORS
            )
        if not rules.two_classes:
            raise FileProblem(
                file,
                f"its palette has two colours, {_named(set(whole))}, but there are {rules.classes} classes",
                _GIVE_COLORS,
            )
        return np.any(palette != 0, 1).astype(np.uint8)[indices], None
    if whole[0] != BLACK:
        raise FileProblem(
            file, f"index 0 of its palette is {whole[0]}, not black, so 0 may not be class 0", _GIVE_COLORS
        )
    for i, color in colors.items():
        if rules.colors.get(color, i) != i:
            raise FileProblem(
                file,
                f"index {i} of its palette is {color}, which dataset.yaml gives to class {rules.colors[color]}",
                _GIVE_COLORS,
            )
    return indices, colors


def from_colors(values: NDArray[Any], rules: MaskRules, file: str | PathLike[str]) -> NDArray[Any]:
    """Numbers ``(H, W)`` of a mask in red, green and blue ``(3, H, W)``.

    Raises:
        FileProblem: colours that belong to no class.
    """
    grey = bool((values == values[:1]).all())
    if values.dtype == np.uint8:
        red, green, blue = values.astype(np.uint32)
        codes, places = np.unique((red << 16) + (green << 8) + blue, return_inverse=True)
        colors: list[Color] = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in codes]
        unknown = {color for color in colors if color not in rules.colors}
        if not unknown:
            table = np.array([rules.colors[color] for color in colors], np.uint8)
            classes: NDArray[np.uint8] = table[places].reshape(red.shape)
            return classes
        if not grey:
            raise FileProblem(
                file, f"no class has the colour(s) {_named(unknown)}, {len(colors)} in all", _GIVE_COLORS
            )
    if not grey:
        raise FileProblem(file, "the mask is in colours of 16 bits", "save class numbers as a grey image")
    return np.asarray(values[0])


def _named(colors: set[Color]) -> str:
    return ", ".join(map(str, sorted(colors)[:3])) + (", ..." if len(colors) > 3 else "")
