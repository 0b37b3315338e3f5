"""Who drew which mask, for methods that are conditioned on it: names of annotators as places in a list of styles.

Zepf, Petersen, Frellsen and Feragen (2023), "That label's got style: handling label style bias for uncertain image
segmentation", call *style* what masks of one tool or one person have in common. A style is an annotator, or what the
names of several annotators share. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ambiseg.errors import AmbisegError


def style_of(annotator: str, part: int = 0) -> str:
    """The style that the name of an annotator stands for: the name, or its part-th piece between underscores.

    Args:
        annotator: the name.
        part: 0 for the whole name, 1 for its first piece, 2 for the second one.

    Raises:
        AmbisegError: the name has fewer pieces.

    Example:
        >>> style_of("A02_T3_S1_57c0"), style_of("A02_T3_S1_57c0", 2)
        ('A02_T3_S1_57c0', 'T3')
    """
    pieces = annotator.split("_")
    if not 0 <= part <= len(pieces):
        raise AmbisegError(
            f"name_part={part} asks for a piece between underscores that the annotator {annotator!r} does not have:"
            f" choose 1 to {len(pieces)}, or 0 for the whole name"
        )
    return pieces[part - 1] if part else annotator


@dataclass(frozen=True)
class Styles:
    """The styles that a model knows.

    Attributes:
        names: of the styles.
        part: what of an annotator's name is the style, see `style_of`.

    Example:
        >>> Styles(("anna", "ben")).places(("ben", "carl", "anna"))
        [1, -1, 0]
    """

    names: tuple[str, ...]
    part: int = 0

    def places(self, annotators: tuple[str, ...]) -> list[int]:
        """The place of the style of each annotator; -1 where the model does not know it."""
        known = {name: place for place, name in enumerate(self.names)}
        return [known.get(style_of(name, self.part), -1) for name in annotators]


def shares_of_styles(annotators: Mapping[str, float], part: int = 0) -> dict[str, float]:
    """Shares of the styles, sorted by name, from those of annotators.

    Example:
        >>> shares_of_styles({"T2_b": 0.25, "T1_a": 0.25, "T2_c": 0.5}, 1)
        {'T1': 0.25, 'T2': 0.75}
    """
    total: dict[str, float] = {}
    for name, share in annotators.items():
        style = style_of(name, part)
        total[style] = total.get(style, 0.0) + share
    return dict(sorted(total.items()))
