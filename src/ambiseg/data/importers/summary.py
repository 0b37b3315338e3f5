"""What an import left out, by reason."""

from __future__ import annotations

from collections.abc import Iterable

from ambiseg.data.causes import without_details
from ambiseg.data.files.validation import FileProblem


def by_reason(problems: Iterable[FileProblem]) -> dict[str, list[FileProblem]]:
    """Problems of each reason, the most frequent reason first.

    Example:
        >>> found = [FileProblem(f"{i}.png", f"it has {i} bytes", "copy it again") for i in range(3)]
        >>> {said: len(some) for said, some in by_reason(found).items()}
        {'it has … bytes': 3}
    """
    found: dict[str, list[FileProblem]] = {}
    for problem in problems:
        found.setdefault(without_details(problem.problem), []).append(problem)
    return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))
