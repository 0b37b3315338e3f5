"""Problems of a data set by cause: what is wrong in 165 files for one reason is one thing to mend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ambiseg.data.files.validation import wrong_values
from ambiseg.errors import counted

Severity = Literal["error", "warning"]

_DETAILS = re.compile(
    r"""\((?:[^()]|\([^()]*\))*\)  # in parentheses, what a decoder said
    | '[^']*' | "[^"]*" | \[[^\]]*\]  # names and values
    | \S*[/\\]\S*  # paths
    | -?\d[\w.+-]*  # numbers, also of series and sizes
    """,
    re.VERBOSE,
)


def without_details(sentence: str) -> str:
    """What is wrong without the details that differ from file to file.

    Example:
        >>> without_details("the mask is 3 high, 4 wide but its image 10 x 12")
        'the mask is … high, … wide but its image … x …'
    """
    return _DETAILS.sub("…", sentence)


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where, what, what to do, and whether it forbids training.

    Attributes:
        file: where.
        problem: what.
        remedy: what to do.
        severity: an *error* must be mended before training, a *warning* is something to look at.
        values: numbers of a mask that are no classes, if that is the problem.
    """

    file: str
    problem: str
    remedy: str
    severity: Severity = "error"
    values: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.problem}: {self.remedy}"


@dataclass(frozen=True)
class Cause:
    """Problems of one cause.

    Attributes:
        files: where, in the order in which they were found.
        problem: what is wrong; where it differs from file to file, what is wrong with the first one.
        remedy: what to do.
        severity: see `Problem`.
    """

    files: tuple[str, ...]
    problem: str
    remedy: str
    severity: Severity = "error"


def by_cause(
    problems: Iterable[Problem], names: Sequence[str], ignore_value: int | None = None
) -> list[Cause]:
    """Problems of each cause, errors first, then in the order in which they were found.

    Args:
        problems: of a data set.
        names: its classes.
        ignore_value: the number that its masks may hold beside them.

    Example:
        >>> found = [Problem(f"{i}.png", "the mask holds ...", "...", values=(i,)) for i in (2, 3)]
        >>> [cause.problem for cause in by_cause(found, ["background", "nodule"])]
        ['2 masks hold 2 and 3, but the classes are 0..1 (background, nodule)']
    """
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        said = without_details(problem.problem) if not problem.values else "values"
        groups.setdefault((problem.severity, said), []).append(problem)
    causes = [_joined(some, names, ignore_value) for some in groups.values()]
    return sorted(causes, key=lambda cause: cause.severity != "error")


def _joined(some: Sequence[Problem], names: Sequence[str], ignore_value: int | None) -> Cause:
    first, files = some[0], tuple(dict.fromkeys(problem.file for problem in some))
    if first.values:
        values = sorted({value for problem in some for value in problem.values})
        who = f"{counted(len(some), 'mask')} hold" if len(some) > 1 else "the mask holds"
        return Cause(files, *wrong_values(who, values, names, ignore_value), first.severity)
    alike = len({problem.problem for problem in some}) == 1
    return Cause(files, first.problem + ("" if alike else "; the others alike"), first.remedy, first.severity)
