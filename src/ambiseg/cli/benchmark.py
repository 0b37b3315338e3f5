"""``ambiseg benchmark``: every method on every data set under one protocol, as tables, pictures and one page.

Whatever is there is kept: an interrupted benchmark goes on where it stopped, and one that gets another method
or data set trains only what is new.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from ambiseg import owned_files
from ambiseg.atomic_write import working_in
from ambiseg.cli.console import command, finite, next_commands, say, show, show_json, warn
from ambiseg.cli.data import SimulateArguments, write_simulation
from ambiseg.cli.engines import Spreading
from ambiseg.cli.parsing import at_least_one, parse
from ambiseg.data.layouts import LAYOUTS, Layout
from ambiseg.engine.smoke import NOTE
from ambiseg.engine.suite import DataEntry, Suite, load_suite, suite_names
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.nested_settings import from_values
from ambiseg.version import __version__

if TYPE_CHECKING:
    from ambiseg.engine.benchmark import Cell
    from ambiseg.report.text_tables import Table

PAGE, RESULTS = "index.html", "results.json"


@dataclass(frozen=True)
class BenchmarkArguments:
    """Run every method of a suite on every data set, and write tables; what is there is kept."""

    suite: Positional[str] = ""
    """Name of a suite (--list shows them), or a YAML file of your own."""
    methods: tuple[str, ...] = ()
    """Train only these methods of the suite; all if left out. The tables show all that is there."""
    data: tuple[str, ...] = ()
    """Train only on these data sets of the suite."""
    seeds: int | None = None
    """How many seeds; those of the suite if left out."""
    out: Path | None = None
    """Folder for data, runs, tables and the page; if left out benchmark-SUITE, or benchmark-SUITE-smoke."""
    data_root: Path = Path("data")
    """Folder of the data sets that are not simulated; those that are not there are skipped."""
    smoke: bool = False
    """Try the suite in seconds: a few steps of small networks, on tiny simulated data of the same layout in
    place of imported ones; the figures mean nothing."""
    jobs: int = 1
    """Runs at a time, each in a process of its own with its share of the cores; 0: one after the other in
    this process."""
    spreading: OmitArgPrefixes[Spreading] = field(default_factory=Spreading)
    json: bool = False
    """Print the results as JSON."""
    list: bool = False
    """Show what there is to run, and run nothing."""


def run(args: list[str]) -> int:
    """Run a suite; 2 if a run failed."""
    arguments = parse(BenchmarkArguments, args, "ambiseg benchmark")
    at_least_one(seeds=arguments.seeds)
    if arguments.jobs < 0:
        raise AmbisegError(f"--jobs must not be negative, received {arguments.jobs}")
    if arguments.jobs != 1 and arguments.spreading.engine == "ray":
        raise AmbisegError(
            f"--jobs {arguments.jobs} is of the local engine: with --engine ray give --ray-workers"
        )
    if not arguments.suite:
        if not arguments.list:
            raise AmbisegError(
                f"name a suite: ambiseg benchmark SUITE ({', '.join(suite_names())}, FILE.yaml)"
            )
        width = max(map(len, suite_names())) + 2
        for name in suite_names():
            show(f"{name:<{width}}{load_suite(name).title}")
        return 0
    suite = load_suite(arguments.suite)
    suite = suite.for_smoke() if arguments.smoke else suite
    for kind, names, known in (
        ("method", arguments.methods, suite.methods),
        ("data set", arguments.data, suite.data),
    ):
        for name in names:
            if name not in known:
                raise UnknownNameError(f"{kind} of {suite.name}", name, known)
    if arguments.list:
        show(*_contents(suite))
        return 0
    return _run(arguments, suite, command("ambiseg", "benchmark", *args))


def _contents(suite: Suite) -> list[str]:
    """What a suite holds, in lines."""
    lines = [suite.title]
    for name, entry in suite.data.items():
        verbs = ("simulate ", "", "import ", f"{entry.train_share:g} of ")
        how = next(verb + way for verb, way in zip(verbs, entry.ways, strict=True) if way)
        images = f"{entry.images} images" if entry.images else "all images"
        classes = entry.classes or suite.protocol.classes
        lines += ["", f"{name} ({how}), evaluated on {images} of {entry.split or suite.protocol.split}"]
        dialect = suite.dialect(name)
        lines[-1] += f", dialect {dialect}" if dialect != "ambiseg" else ""
        lines[-1] += f", classes {', '.join(map(str, classes))}" if classes else ""
        for method in suite.methods_on(name):
            train = suite.resolved(name, method)[0]
            length = next(
                (f"{getattr(train, n)} {n}" for n in ("updates", "epochs", "minutes") if getattr(train, n)),
                "100 epochs",
            )
            lines.append(
                f"  {method}: {length}, batches of {train.batch_size}, {train.labels} labels,"
                f" {suite.masks(name, method)} masks"
            )
    return lines


def _run(arguments: BenchmarkArguments, suite: Suite, again: str) -> int:
    out = arguments.out or Path(f"benchmark-{suite.name}{'-smoke' if suite.smoke else ''}")
    owned_files.enter(out, "benchmark")
    with working_in(out, "the benchmark", wait=5):
        return _run_in(out, arguments, suite, again)


def _run_in(out: Path, arguments: BenchmarkArguments, suite: Suite, again: str) -> int:
    from ambiseg.engine.benchmark import carry_out, plan

    sources, skipped = _sources(arguments, suite, out)
    cells = plan(suite, sources, out, arguments.seeds)
    methods = {one for name in arguments.methods or suite.methods for one in suite.lineage(name)}
    chosen = [c for c in cells if c.method in methods and c.data in (arguments.data or suite.data)]
    try:
        with arguments.spreading.opened() as engine:
            carry_out(chosen, arguments.jobs, say, engine)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"'{again}' goes on where this stopped") from None
    finally:
        results = _write(suite, cells, skipped, out, again)
    if arguments.json:
        show_json(results)
    else:
        for path in sorted((out / "tables").glob("*.md")):
            show(*path.read_text(encoding="utf-8").splitlines())
        if results["runs"]:
            next_commands(*_reports(results["runs"], out))
    for failure in results["failures"]:
        warn(failure)
    say(f"written: {out / PAGE}, {out / RESULTS}, {out / 'tables'}")
    return 2 if results["failures"] else 0


def _reports(runs: list[dict[str, Any]], out: Path) -> list[tuple[str, str]]:
    """The command that draws a page about a run, for each split that was evaluated; many data sets have no
    test split."""
    folders: dict[str, list[str]] = {}
    for run in runs:
        found, folder = folders.setdefault(run["split"], []), str(out / "runs" / run["data"])
        found += [folder] if folder not in found else []
    return [
        (
            command("ambiseg", "report", "RUN", *(["--split", split] if split != "test" else [])),
            f"one page about a run below {', '.join(found)}",
        )
        for split, found in folders.items()
    ]


def _sources(
    arguments: BenchmarkArguments, suite: Suite, out: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """Where the data sets are, made if need be, and why others are skipped."""
    sources, skipped = {}, {}
    for name, entry in suite.data.items():
        asked = not arguments.data or name in arguments.data
        try:
            find = _smoke_source if suite.smoke else _source
            sources[name] = find(name, suite, out, arguments.data_root, asked)
            if entry.importer and sources[name] == arguments.data_root / f"{name}.h5":
                source = arguments.data_root / entry.source
                say(f"{name}: {sources[name]} stands in for the import of {source}")
        except AmbisegError as error:
            if asked and entry.simulate:
                raise
            skipped[name] = str(error)
            if asked:
                warn(f"{name} is skipped: {error}")
    if not sources:
        raise AmbisegError(
            f"none of the data sets of {suite.name} is there: name their folder with --data-root"
        )
    return sources, skipped


def _source(name: str, suite: Suite, out: Path, root: Path, make: bool) -> Path:
    """A data set of a suite. One that is made is named after its recipe, so that another recipe makes another
    file.

    Raises:
        AmbisegError: it is not there, or cannot be made.
    """
    entry = suite.data[name]
    if not entry.part_of:
        return _whole(name, entry, out, root, make)
    return _part(name, _source(entry.part_of, suite, out, root, make), entry.train_share, out, make)


def _part(name: str, whole: Path, share: float, out: Path, make: bool) -> Path:
    """A copy of a data set with some of its training images; the digest of the whole is in its name."""
    from ambiseg.data.source import SpreadSplit, list_splits, open_split, write_dataset

    splits = {split: open_split(whole, split) for split in list_splits(whole)}
    digest = hashlib.sha256(json.dumps([split.digest() for split in splits.values()]).encode()).hexdigest()
    target = out / "data" / f"{share:g}-of-{whole.stem}-{digest[:8]}.h5"
    if _to_make(name, target, make):
        stored = {split: found.stored for split, found in splits.items()}
        count = max(1, round(share * len(stored["train"])))
        write_dataset(target, stored | {"train": SpreadSplit(stored["train"], count)}, stored["train"].info)
    return target


def _to_make(name: str, target: Path, make: bool) -> bool:
    """Whether a data set is to be made.

    Raises:
        AmbisegError: it is not there and must not be made.
    """
    if not target.exists() and not make:
        raise AmbisegError(f"{target} has not been made yet: leave --data out, or add {name} to it")
    return not target.exists()


def _whole(name: str, entry: DataEntry, out: Path, root: Path, make: bool) -> Path:
    """A data set that is simulated, imported, or there already, perhaps as NAME.h5 from an import by hand."""
    from ambiseg.data.source import existing

    layout, kept = LAYOUTS.get(entry.layout), root / (entry.path or f"{name}.h5")
    if entry.path or (entry.importer and kept.exists()):
        if layout is None:
            return existing(kept)
        _check_layout(kept, layout)
        return kept
    recipe = json.dumps([entry.simulate, entry.importer, entry.source, entry.options], sort_keys=True)
    target = out / "data" / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}.h5"
    if not _to_make(name, target, make):
        return target
    if entry.simulate:
        words = [
            w for key, value in entry.options.items() for w in (f"--{key.replace('_', '-')}", str(value))
        ]
        say(f"simulating {name}")
        write_simulation(
            parse(SimulateArguments, [entry.simulate, "--out", str(target), *words], f"options of {name}")
        )
    else:
        from ambiseg.data.importers import import_dataset, importer

        settings = from_values(importer(entry.importer).settings_class(), entry.options, f"options of {name}")
        source = root / entry.source
        if layout is not None and not source.exists():
            raise layout.missing(kept)
        existing(source)
        say(f"importing {name}")
        import_dataset(entry.importer, source, target, settings)
    return target


def _check_layout(path: Path, layout: Layout) -> None:
    """Refuse a data set that is not in the layout that a suite names.

    Raises:
        AmbisegError: it is not there, or has other classes or channels.
    """
    from ambiseg.data.source import open_split

    if not path.exists():
        raise layout.missing(path)
    split = open_split(path, "train")
    found = split.info.labels.classes, len(split[0].image)
    if found != (layout.classes, layout.channels):
        raise AmbisegError(
            f"{path} has {found[0]} classes and {found[1]} channels, but the layout {layout.name} has"
            f" {layout.classes} and {layout.channels}: rename it, then {layout.how_to_get(path)}"
        )


def _smoke_source(name: str, suite: Suite, out: Path, root: Path, make: bool) -> Path:
    """A tiny data set in place of one of a suite.

    Raises:
        AmbisegError: the suite does not say what it looks like.
    """
    from ambiseg.data.simulators.layouts import SIDE, simulate_layout

    entry = suite.data[name]
    if entry.simulate:
        options = entry.options | {"scenarios": 10, "size": min(SIDE, entry.options.get("size", SIDE))}
        return _whole(name, replace(entry, options=options), out, root, make)
    if not entry.layout:
        raise AmbisegError(f"{name}: say its layout, one of {', '.join(LAYOUTS)}, to simulate it")
    return simulate_layout(LAYOUTS[entry.layout], out / "data" / f"smoke-{entry.layout}.h5")


def _not_run(missing: list[Cell], cells: list[Cell]) -> list[str]:
    """What is left to run, a line for all methods of a data set that lack the same seeds."""
    seeds: dict[tuple[str, str], list[int]] = {}
    for cell in missing:
        seeds.setdefault((cell.data, cell.method), []).append(cell.seed)
    groups: dict[tuple[str, str], list[str]] = {}
    for (data, method), numbers in seeds.items():
        groups.setdefault((data, ", ".join(map(str, numbers))), []).append(method)
    lines = []
    for (data, lacking), methods in groups.items():
        every = set(methods) == {cell.method for cell in cells if cell.data == data}
        lines.append(
            f"not run yet: {data}, seed {lacking}: {'every method' if every else ', '.join(methods)}"
        )
    return lines


def _write(suite: Suite, cells: list[Cell], skipped: dict[str, str], out: Path, again: str) -> dict[str, Any]:
    """Tables, page and JSON of all that is there."""
    from ambiseg.atomic_write import write_json
    from ambiseg.report.benchmark_page import DataSection, write_benchmark_page
    from ambiseg.report.benchmark_tables import Measured, Printed, data_table

    runs = [Measured(c.data, c.method, c.seed, **found) for c in cells if (found := c.result()) is not None]
    papers = [Printed(**asdict(paper)) for paper in suite.papers]
    sections, metrics = [], suite.protocol.metrics
    for data in suite.data:
        own = [run for run in runs if run.data == data]
        if own:
            printed = [paper for paper in papers if paper.data == data]
            table = data_table(own, metrics, printed, suite.differs(data), NOTE if suite.smoke else "")
            sections.append(DataSection(data, table, own, metrics[0]))
            _write_table(table, out / "tables", data)
    failures = [f"{c.title}: {c.entries()['error']}" for c in cells if "error" in c.entries()]
    missing = [c for c in cells if c.result() is None and "error" not in c.entries()]
    remarks = [NOTE] if suite.smoke else []
    remarks += [f"{name} is skipped: {why}" for name, why in skipped.items()]
    remarks += [f"failed: {failure}" for failure in failures] + _not_run(missing, cells)
    summaries = [
        {k: v for k, v in asdict(run).items() if k not in ("per_image", "estimated", "true")} for run in runs
    ]
    results = {
        "suite": suite.name,
        "smoke": suite.smoke,
        "ambiseg": __version__,
        "protocol": asdict(suite.protocol),
        "digests": {cell.data: cell.order["evaluation"]["digest"] for cell in cells},
        "runs": summaries,
        "tables": [asdict(section.table) for section in sections],
        "failures": failures,
        "missing": [cell.title for cell in missing],
        "skipped": skipped,
    }
    write_json(out / RESULTS, finite(results))
    write_benchmark_page(
        out / PAGE,
        suite.title,
        sections,
        facts=[
            *((key, getattr(suite.protocol, key)) for key in ("samples", "labels", "split")),
            ("dialect", ", ".join(dict.fromkeys(map(suite.dialect, suite.data)))),
        ],
        remarks=remarks,
        command=again,
        footer=f"ambiseg {__version__}",
    )
    return results


def _write_table(table: Table, folder: Path, name: str) -> None:
    from ambiseg.atomic_write import write_text

    for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
        write_text(folder / f"{name}.{suffix}", text)
