"""Errors that are the user's to mend.

Everything in the library that a user can get wrong raises an `AmbisegError`: one sentence that says what was
wrong, where (file, row, argument), what was received and what to do. The command line prints it and exits
with status 2; a traceback is shown with ``--debug`` only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def listed(values: Iterable[object]) -> str:
    """Values with commas, and *and* before the last one.

    Example:
        >>> listed([2]), listed([2, 3, 7])
        ('2', '2, 3 and 7')
    """
    words = [str(value) for value in values]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


class AmbisegError(ValueError):
    """A mistake in the user's input: the message names the place, what was received and the remedy."""


class DataWarning(UserWarning):
    """Something in the user's data that is legal and seldom meant; the command line prints it."""


class TrainingWarning(UserWarning):
    """A training that is too short for its network, or goes without what it was asked for; the command line
    prints it."""


class PluginWarning(UserWarning):
    """Something that another package offers and that is left out; the command line prints it."""


class UnknownNameError(AmbisegError):
    """A name that is not among the known ones, with the nearest known name as a suggestion.

    Upper and lower case are the same for the suggestion.

    Example:
        >>> str(UnknownNameError("method", "mode-proposal", ["mode-proposals", "ssn"]))
        "unknown method 'mode-proposal': did you mean 'mode-proposals'? (known: mode-proposals, ssn)"
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        lower = {one.lower(): one for one in names}
        near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
        hint = f": did you mean {lower[near[0]]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")


def counted(count: int, what: str) -> str:
    """A number of things in words.

    Example:
        >>> counted(1, "image"), counted(2, "image")
        ('1 image', '2 images')
    """
    return f"{count} {what}{'s' * (count != 1)}"
