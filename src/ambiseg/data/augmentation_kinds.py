"""The kinds of augmentation with their ranges: plain values, importable without torch.

A setting is a list of them. A word stands for a kind with its defaults, a mapping for one with other values:

    augment: [flip, {kind: rotate, degrees: 10, probability: 0.5}]

What each of them does to image and masks is in `ambiseg.data.augmentation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args


@dataclass(frozen=True)
class Flip:
    """Left-right flip of half of the samples."""

    kind: Literal["flip"] = "flip"
    """Left-right flip of half of the samples."""


@dataclass(frozen=True)
class FlipVertical:
    """Up-down flip of half of the samples."""

    kind: Literal["flip-vertical"] = "flip-vertical"
    """Up-down flip of half of the samples."""


@dataclass(frozen=True)
class QuarterTurns:
    """Rotation by 0, 90, 180 or 270 degrees; by 0 or 180 where images are not square."""

    kind: Literal["quarter-turns"] = "quarter-turns"
    """Rotation by 0, 90, 180 or 270 degrees; by 0 or 180 where images are not square."""


@dataclass(frozen=True)
class Rotate:
    """Rotation about the centre by any angle in a range."""

    degrees: float = 180.0
    """Largest angle; angles are drawn uniformly from minus this to this."""
    probability: float = 1.0
    """Share of the samples that are rotated."""
    kind: Literal["rotate"] = "rotate"
    """Rotation about the centre."""


@dataclass(frozen=True)
class Scale:
    """Enlargement about the centre; the size of the image stays."""

    low: float = 0.8
    """Smallest factor."""
    high: float = 1.25
    """Largest factor; factors are drawn log-uniformly."""
    probability: float = 1.0
    """Share of the samples that are scaled."""
    kind: Literal["scale"] = "scale"
    """Enlargement about the centre."""


@dataclass(frozen=True)
class Shear:
    """Horizontal shear: rows are shifted in proportion to their distance from the middle row."""

    degrees: float = 10.0
    """Largest angle of the columns against the vertical; drawn uniformly from minus this to this."""
    probability: float = 1.0
    """Share of the samples that are sheared."""
    kind: Literal["shear"] = "shear"
    """Horizontal shear."""


@dataclass(frozen=True)
class Elastic:
    """Elastic deformation: each pixel is displaced by a smooth random field."""

    strength: float = 3.0
    """Largest standard deviation of a displacement, in pixels; drawn uniformly from 0 to this."""
    smoothness: float = 15.0
    """Standard deviation of the Gaussian that smooths the displacements, in pixels."""
    probability: float = 1.0
    """Share of the samples that are deformed."""
    kind: Literal["elastic"] = "elastic"
    """Elastic deformation."""


@dataclass(frozen=True)
class Crop:
    """A region of fixed size at a random place; smaller images are extended by void."""

    height: int
    """Rows of the region."""
    width: int
    """Columns of the region."""
    kind: Literal["crop"] = "crop"
    """A region of fixed size."""


@dataclass(frozen=True)
class ResizedCrop:
    """A region at a random place, resized to a fixed size."""

    height: int
    """Rows after resizing."""
    width: int
    """Columns after resizing."""
    low: float = 0.8
    """Smallest side of the region, as a share of the largest region of this form that the image holds."""
    high: float = 1.0
    """Largest side of it; drawn uniformly."""
    kind: Literal["resized-crop"] = "resized-crop"
    """A region, resized."""


@dataclass(frozen=True)
class Intensity:
    """A gain and an offset for each channel of the normalised image."""

    range: float = 0.1
    """Gains are drawn from 1 minus this to 1 plus this, offsets from minus this to this, in standard
    deviations."""
    probability: float = 1.0
    """Share of the samples that are changed."""
    kind: Literal["intensity"] = "intensity"
    """A gain and an offset for each channel."""


@dataclass(frozen=True)
class Gamma:
    """A power of each channel between its least and greatest value; its mean and standard deviation stay."""

    low: float = 0.7
    """Smallest exponent."""
    high: float = 1.5
    """Largest exponent; exponents are drawn log-uniformly."""
    probability: float = 1.0
    """Share of the samples that are changed."""
    kind: Literal["gamma"] = "gamma"
    """A power of each channel."""


Kind = (
    Flip
    | FlipVertical
    | QuarterTurns
    | Rotate
    | Scale
    | Shear
    | Elastic
    | Crop
    | ResizedCrop
    | Intensity
    | Gamma
)
"""One kind of augmentation."""

KINDS: Mapping[str, type[Kind]] = {part.kind: part for part in get_args(Kind)}
"""Kinds by their names, in the order in which they are done."""
TESTED: tuple[Kind, ...] = (Flip(), QuarterTurns(), Scale(), Intensity())
"""Those among which training chooses where neither settings nor data set decide."""

NONE: Mapping[str, bool] = {"flip": False, "rotate": False, "scale": False, "intensity": False}
"""What a data set says that forbids the tested kinds, and those that follow them (`allowed`). It says nothing of crops,
shears and elastic deformations."""
TURNS: Mapping[str, bool] = {"flip": True, "rotate": True}
"""What a data set says whose images have no upper side: flips both ways and any turn are allowed."""

_RANGES: Mapping[str, tuple[float, float]] = {
    "probability": (0, 1),
    "rotate.degrees": (0, 180),
    "shear.degrees": (0, 80),
    "scale.low": (0.1, 10),
    "scale.high": (0.1, 10),
    "gamma.low": (0.1, 10),
    "gamma.high": (0.1, 10),
    "resized-crop.low": (0.01, 1),
    "resized-crop.high": (0.01, 1),
    "strength": (0, 1000),
    "smoothness": (1, 1000),
    "height": (1, 65536),
    "width": (1, 65536),
    "range": (0, 1),
}
"""Least and greatest values that make sense."""


def allowed(said: Mapping[str, bool], name: str) -> bool | None:
    """Whether a data set that says this allows a kind; None where it does not speak of it.

    Quarter turns follow `rotate` where the data set does not name them, gamma follows `intensity`, and an
    up-down flip, which is a left-right flip and a half turn, follows these two.

    Example:
        >>> allowed({"flip": True, "rotate": True}, "flip-vertical"), allowed({"rotate": False}, "quarter-turns")
        (True, False)
    """
    if name in said:
        return said[name]
    if name == "quarter-turns":
        return said.get("rotate")
    if name == "gamma":
        return said.get("intensity")
    if name == "flip-vertical":
        flip = said.get("flip")
        return flip if not flip or allowed(said, "quarter-turns") else None
    return None


def described(kind: Kind) -> str:
    """The name of a kind and the values that are not its defaults.

    Example:
        >>> described(Flip()), described(Rotate(degrees=10))
        ('flip', 'rotate degrees=10')
    """
    told = [
        f"{field.name}={getattr(kind, field.name):g}"
        for field in fields(kind)
        if field.name != "kind" and getattr(kind, field.name) != field.default
    ]
    return " ".join([kind.kind, *told])


def problems(kinds: Sequence[Kind]) -> list[str]:
    """Kinds that contradict one another and values that make no sense, one sentence each.

    Example:
        >>> problems([Flip(), Flip(), Rotate(degrees=200)])
        ['flip is named twice', 'rotate: degrees is 0 to 180, received 200']
    """
    foreign = [kind for kind in kinds if not isinstance(kind, Kind)]
    if foreign:
        return [f"{foreign[0]!r} is no kind: give objects such as Flip() or Rotate(degrees=10)"]
    names: list[str] = [kind.kind for kind in kinds]
    found = [f"{name} is named twice" for name in KINDS if names.count(name) > 1]
    if {"crop", "resized-crop"} <= set(names):
        found.append("crop and resized-crop exclude each other: give one of them")
    for kind in kinds:
        for field in fields(kind):
            least, most = _RANGES.get(f"{kind.kind}.{field.name}", _RANGES.get(field.name, (None, None)))
            value = getattr(kind, field.name)
            if least is not None and most is not None and not least <= value <= most:
                found.append(f"{kind.kind}: {field.name} is {least:g} to {most:g}, received {value:g}")
        if isinstance(kind, Scale | Gamma | ResizedCrop) and kind.low > kind.high:
            found.append(
                f"{kind.kind}: low must be at most high, received low={kind.low:g} and high={kind.high:g}"
            )
        if isinstance(kind, Elastic) and kind.strength > kind.smoothness / 3:
            found.append(
                f"elastic: strength must be at most a third of smoothness, or images fold over themselves,"
                f" received strength={kind.strength:g} and smoothness={kind.smoothness:g}"
            )
    return found
