"""What came of writing a format, and the remarks that formats share."""

from __future__ import annotations

from dataclasses import dataclass

from ambiseg.errors import counted


@dataclass(frozen=True)
class Outcome:
    """What came of writing a format.

    Attributes:
        remarks: what a user should know, a sentence each.
        left_out: number of hypotheses that its files do not hold.
    """

    remarks: tuple[str, ...] = ()
    left_out: int = 0


def without_foreground(count: int, lost: str) -> Outcome:
    """The outcome where this many hypotheses have no foreground, so that the file holds no objects of them.

    Example:
        >>> without_foreground(2, "shape")
        Outcome(remarks=('2 masks have no foreground, so no shape',), left_out=2)
        >>> without_foreground(0, "shape")
        Outcome(remarks=(), left_out=0)
    """
    have = "has" if count == 1 else "have"
    remark = f"{counted(count, 'mask')} {have} no foreground, so no {lost}"
    return Outcome((remark,), count) if count else Outcome()


def images_without(count: int, total: int, lost: str) -> Outcome:
    """The outcome where this many of all images lack something.

    Example:
        >>> images_without(1, 5, "affine").remarks
        ('1 of 5 images has no affine',)
    """
    have = "has" if count == 1 else "have"
    return Outcome((f"{count} of {total} images {have} no {lost}",)) if count else Outcome()
