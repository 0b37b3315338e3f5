"""Tables of verbs: from a word on the command line to the function behind it, which is imported only then."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ambiseg.errors import UnknownNameError


@dataclass(frozen=True)
class Verb:
    """A word of the command line.

    Attributes:
        name: the word.
        help: one line.
        location: ``module:function``; the function takes the words that follow and returns the exit status.
    """

    name: str
    help: str
    location: str

    def run(self, args: Sequence[str]) -> int:
        """Import the function and call it."""
        module, function = self.location.split(":")
        status: int = getattr(importlib.import_module(module), function)(list(args))
        return status


@dataclass(frozen=True)
class Menu:
    """A choice of verbs: ``ambiseg`` itself, or a verb with verbs of its own.

    Attributes:
        prog: the words before the verb.
        intro: what is said above the list.
        verbs: the choice.
        outro: what is said below it.
        options: options that stand in place of a verb.
    """

    prog: str
    intro: str
    verbs: tuple[Verb, ...]
    outro: str = ""
    options: tuple[str, ...] = ("--help",)

    def overview(self) -> str:
        """The help page."""
        width = max(len(verb.name) for verb in self.verbs)
        lines = [f"  {verb.name:<{width}}  {verb.help}" for verb in self.verbs]
        parts = [f"usage: {self.prog} COMMAND ...", self.intro, "\n".join(lines), self.outro]
        return "\n\n".join(part for part in parts if part)

    def run(self, args: Sequence[str]) -> int:
        """Run the verb that ``args`` name first.

        Raises:
            UnknownNameError: there is no such verb.
        """
        if not args:
            print(self.overview(), file=sys.stderr)
            return 2
        if args[0] in ("-h", "--help"):
            print(self.overview())
            return 0
        for verb in self.verbs:
            if verb.name == args[0]:
                return verb.run(args[1:])
        raise UnknownNameError("command", args[0], [*(verb.name for verb in self.verbs), *self.options])
