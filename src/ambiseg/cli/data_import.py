"""``ambiseg data import``: a published data set, as it is distributed, becomes a folder or one packed
file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg.cli.console import Grid, command, next_commands, progress, say, show, show_grid, show_json
from ambiseg.cli.parsing import parse
from ambiseg.data.importers import IMPORTERS, ImportReport, import_dataset, importer
from ambiseg.data.importers.summary import by_reason
from ambiseg.errors import counted

S = TypeVar("S")

EXAMPLES = 3
"""How many of those that were left out for one reason are shown; --json has all."""


@dataclass(frozen=True)
class Places:
    """Where the data are and where they go."""

    source: Positional[Path]
    """Folder or file of the distribution."""
    out: Path
    """Data set to make: a folder, or one packed file if the name ends with .h5."""
    overwrite: bool = False
    """Replace an existing data set."""
    json: bool = False
    """Print the outcome as JSON, with all problems."""


@dataclass(frozen=True)
class ImportArguments(Generic[S]):
    """Read a published data set as it is distributed; exit status 2 if something had to be left out."""

    places: OmitArgPrefixes[Places]
    importer: OmitArgPrefixes[S]


def run(args: list[str]) -> int:
    """Import; exit status 2 if something had to be left out."""
    if not args or args[0] in ("-h", "--help"):
        print(overview())
        return 0 if args else 2
    name, rest = args[0], args[1:]
    chosen = importer(name)
    if {"-h", "--help"} & set(rest):
        print(
            f"{chosen.title}\n\nsource:   {chosen.source}\nlicence:  {chosen.licence}\ncitation: {chosen.citation}\n"
        )
    kind: Any = ImportArguments[chosen.settings_class()]  # type: ignore[misc]
    arguments: ImportArguments[Any] = parse(kind, rest, f"ambiseg data import {name}")
    places = arguments.places
    with progress("importing", not places.json) as update:
        report = import_dataset(
            name,
            places.source,
            places.out,
            arguments.importer,
            lambda split, done, total: update(done, total),
            places.overwrite,
        )
    if places.json:
        problems = [{"file": p.file, "problem": p.problem, "remedy": p.remedy} for p in report.problems]
        reasons = {reason: len(some) for reason, some in by_reason(report.problems).items()}
        show_json(
            {
                **asdict(report),
                "reasons": reasons,
                "problems": problems,
                "licence": chosen.licence,
                "citation": chosen.citation,
            }
        )
    else:
        _print(report)
    return 2 if report.problems else 0


def overview() -> str:
    """The help page without a data set."""
    width = max(map(len, IMPORTERS))
    lines = "\n".join(f"  {name:<{width}}  {entry.title}" for name, entry in IMPORTERS.items())
    return (
        "usage: ambiseg data import NAME SOURCE --out DIR [OPTIONS]\n\n"
        "Read a published data set as it is distributed into a folder, or one packed file if DIR ends with .h5.\n\n"
        f"data sets:\n{lines}\n\n"
        "'ambiseg data import NAME --help' tells what SOURCE is and shows the options."
    )


def _print(report: ImportReport) -> None:
    table = Grid()
    table.column("split")
    table.column("images", right=True)
    table.column("SHA-256", whole=True)
    for split, images in report.images.items():
        table.row(split, str(images), report.digests[split])
    show_grid(table)
    show(f"split: {report.split_name}")
    for what, number in report.facts.items():
        show(f"{what}: {number}")
    show(f"{counted(sum(report.images.values()), 'image')} in {report.path}")
    for reason, some in by_reason(report.problems).items():
        say(f"ambiseg: left out ({len(some)}): {reason}")
        for problem in some[:EXAMPLES]:
            say(f"  {problem}")
        if len(some) > EXAMPLES:
            say(f"  and {len(some) - EXAMPLES} more, which --json lists")
    train = command("ambiseg", "train", "METHOD", "--data", report.path)
    next_commands(
        (command("ambiseg", "data", "check", report.path), "see what it holds"),
        (f"{train} --out RUN", "train on it"),
    )
