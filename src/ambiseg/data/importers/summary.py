"""What an import left out, by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ambiseg.data.files.validation import FileProblem

_DETAILS = re.compile(
    r"""\((?:[^()]|\([^()]*\))*\)  # in parentheses, what a decoder said
    | '[^']*' | "[^"]*" | \[[^\]]*\]  # names and values
    | \S*[/\\]\S*  # paths
    | -?\d[\w.+-]*  # numbers, also of series and sizes
    """,
    re.VERBOSE,
)


def reason(problem: FileProblem) -> str:
    """What is wrong without the details that differ from file to file.

    Example:
        >>> reason(FileProblem("a.png", "the mask is 3 high, 4 wide but its image 10 x 12", "draw it again"))
        'the mask is … high, … wide but its image … x …'
    """
    return _DETAILS.sub("…", problem.problem)


def by_reason(problems: Iterable[FileProblem]) -> dict[str, list[FileProblem]]:
    """Problems of each reason, the most frequent reason first.

    Example:
        >>> found = [FileProblem(f"{i}.png", f"it has {i} bytes", "copy it again") for i in range(3)]
        >>> {said: len(some) for said, some in by_reason(found).items()}
        {'it has … bytes': 3}
    """
    found: dict[str, list[FileProblem]] = {}
    for problem in problems:
        found.setdefault(reason(problem), []).append(problem)
    return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))
