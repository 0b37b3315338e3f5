"""``ambiseg methods`` and ``ambiseg cite``: what can be trained, and whom to cite for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tyro.conf import Positional

from ambiseg.cli.console import Grid, show_grid, show_json
from ambiseg.cli.parsing import parse
from ambiseg.methods import METHODS, method_info
from ambiseg.methods.spec import MethodSpec
from ambiseg.nested_settings import shown


@dataclass(frozen=True)
class MethodsArguments:
    """List the methods that can be trained, or the presets of one."""

    method: Positional[str] = ""
    """Name of a method: list its presets."""
    json: bool = False
    """Print JSON."""


def run(args: list[str]) -> int:
    """Print the list of methods, or the presets of one."""
    arguments = parse(MethodsArguments, args, "ambiseg methods")
    if arguments.method:
        return _presets(method_info(arguments.method), arguments.json)
    if arguments.json:
        show_json([{"name": method.name, "summary": method.summary} for method in METHODS.values()])
        return 0
    table = Grid()
    table.column("method", whole=True)
    table.column("what it is")
    for method in METHODS.values():
        table.row(method.name, method.summary)
    show_grid(table)
    return 0


def _presets(spec: MethodSpec, as_json: bool) -> int:
    """Print the presets of a method: what they set, parameters of every network, where that comes from, and
    what still differs from there."""
    from ambiseg.engine.parameters import parameters

    counts = {name: parameters(spec, name) for name in spec.all_presets}
    if as_json:
        show_json(
            {
                name: dataclasses.asdict(preset)
                | {"data": preset.data.name if preset.data else "", "parameters": counts[name]}
                for name, preset in spec.all_presets.items()
            }
        )
        return 0
    table = Grid(f"{spec.name}: {spec.summary}")
    for column in ("preset", "sets", "parameters", "source", "differs from it"):
        table.column(column, whole=column == "preset")
    for name, preset in spec.all_presets.items():
        parts = {"train": preset.train, "backbone": preset.backbone, "": preset.settings}
        lines = [
            f"{path}={shown(value)}" for part, values in parts.items() for path, value in _flat(values, part)
        ]
        lines += [f"single labels: {path}={shown(value)}" for path, value in _flat(preset.single)]
        own = counts[name]
        count = [f"{sum(own.values()):,}", *(f"{part} {number:,}" for part, number in own.items())]
        table.row(name, lines or "the defaults", count, preset.source, preset.differs or "nothing")
    show_grid(table)
    return 0


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        else:
            yield path, value


@dataclass(frozen=True)
class CiteArguments:
    """Print the reference of a method as BibTeX."""

    method: Positional[str]
    """Name of the method."""


def cite(args: list[str]) -> int:
    """Print BibTeX."""
    print(method_info(parse(CiteArguments, args, "ambiseg cite").method).citation)
    return 0
