"""``ambiseg methods`` and ``ambiseg cite``: what can be trained, and whom to cite for it."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.table import Table
from tyro.conf import Positional

from ambiseg.cli.console import show, show_json
from ambiseg.cli.parsing import parse
from ambiseg.methods import METHODS, method_info


@dataclass(frozen=True)
class MethodsArguments:
    """List the methods that can be trained."""

    json: bool = False
    """Print JSON."""


def run(args: list[str]) -> int:
    """Print the list of methods."""
    if parse(MethodsArguments, args, "ambiseg methods").json:
        show_json([{"name": method.name, "summary": method.summary} for method in METHODS.values()])
        return 0
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    table.add_column("what it is")
    for method in METHODS.values():
        table.add_row(method.name, method.summary)
    show(table)
    return 0


@dataclass(frozen=True)
class CiteArguments:
    """Print the reference of a method as BibTeX."""

    method: Positional[str]
    """Name of the method."""


def cite(args: list[str]) -> int:
    """Print BibTeX."""
    print(method_info(parse(CiteArguments, args, "ambiseg cite").method).citation)
    return 0
