"""``ambiseg data``: simulate a data set, find everything that is wrong with one, pack one into one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from ambiseg.cli.console import Grid, command, next_commands, progress, say, show, show_grid, show_json
from ambiseg.cli.dispatch import Menu, Verb
from ambiseg.cli.parsing import parse
from ambiseg.errors import AmbisegError, counted

if TYPE_CHECKING:
    from ambiseg.data.causes import Cause
    from ambiseg.data.check import CheckReport
    from ambiseg.data.folder import Progress
    from ambiseg.data.seen import Summary

EXAMPLES = 3
"""Files that are shown of one cause."""
MOST_CAUSES = 12
"""Causes that are shown; one screen is enough."""
Scene = Literal["wildfire", "markov-shapes", "lesions"]
SCENARIOS_PER_WORKER = 50
"""Another process is started for so many scenarios; for fewer it would not pay."""


@dataclass(frozen=True)
class SimulateArguments:
    """Simulate a data set whose images have several right answers of known probability."""

    scene: Positional[Scene]
    """What to simulate. wildfire: a landscape on fire, and where it burns next under eight winds;
    markov-shapes: a toy whose 256 masks have exactly known probabilities, covariance and entropy, behind an
    image that tells nothing; lesions: a small lesion that four readers mark in four ways, learnt in a minute."""
    out: Path
    """Data set to make: a folder, or one packed file if the name ends with .h5."""
    scenarios: int | None = None
    """Number of images: 80 % in train, 10 % in val, 10 % in test; 1500 of wildfire, 40 of markov-shapes (all
    the same), 500 of lesions if left out."""
    size: int | None = None
    """Height and width. wildfire: 16 cells or more, 64 if left out; markov-shapes: a multiple of 10 pixels,
    10 if left out; lesions: 16 pixels or more, 32 if left out."""
    seed: int = 0
    """Seed: the same one gives the same data. Nothing is random in markov-shapes."""
    probabilities: Literal["skewed", "uniform", "prevailing"] = "skewed"
    """Of the eight outcomes of wildfire: 2^j / 255, all alike, or told by an eighth channel."""
    workers: int | None = None
    """Processes that simulate wildfire; as many as there are cores if left out."""
    overwrite: bool = False
    """Replace an existing data set."""


@dataclass(frozen=True)
class CheckArguments:
    """Read a whole data set and report every problem at once; exit status 2 if it cannot be trained on."""

    path: Positional[Path]
    """Data set: a folder or a packed file."""
    json: bool = False
    """Print the findings as JSON."""


@dataclass(frozen=True)
class PackArguments:
    """Pack a folder into one file that is faster to read."""

    folder: Positional[Path]
    """Data set to pack."""
    out: Positional[Path]
    """File to make; its name ends with .h5."""
    overwrite: bool = False
    """Replace an existing file."""


MENU = Menu(
    "ambiseg data",
    "Simulate, check and pack data sets.",
    (
        Verb("simulate", "make a data set with known probabilities", "ambiseg.cli.data:simulate"),
        Verb("init", "find images and masks in any folder of yours", "ambiseg.cli.data_init:run"),
        Verb("import", "read a published data set as it is distributed", "ambiseg.cli.data_import:run"),
        Verb("check", "find everything that is wrong with a data set", "ambiseg.cli.data:check"),
        Verb("describe", "counts, disagreement, numbers within reach", "ambiseg.cli.data_describe:run"),
        Verb("split", "draw other splits: by group, stratified, in folds", "ambiseg.cli.data_split:run"),
        Verb("pack", "pack a folder into one file", "ambiseg.cli.data:pack"),
    ),
    outro="'ambiseg data COMMAND --help' tells more.",
)


def run(args: list[str]) -> int:
    """Choose among the verbs of ``ambiseg data``."""
    return MENU.run(args)


def simulate(args: list[str]) -> int:
    """Simulate wildfires or MarkovShapes into a data set."""
    arguments = parse(SimulateArguments, args, "ambiseg data simulate")
    show(f"{write_simulation(arguments)} scenarios in {arguments.out}")
    train = command("ambiseg", "train", "mode-proposals", "--data", arguments.out)
    next_commands((f"{train} --out RUN --minutes 10", "train on it"))
    return 0


def write_simulation(arguments: SimulateArguments) -> int:
    """Simulate what the arguments ask for; how many scenarios that are.

    Raises:
        AmbisegError: senseless numbers, or an existing ``out``.
    """
    from ambiseg.data.simulators.dataset import DEFAULTS

    count = DEFAULTS[arguments.scene][0] if arguments.scenarios is None else arguments.scenarios
    write_scenes(
        arguments.scene,
        arguments.out,
        count,
        arguments.workers,
        size=arguments.size,
        seed=arguments.seed,
        probabilities=arguments.probabilities,
        overwrite=arguments.overwrite,
    )
    return count


def write_scenes(scene: Scene, out: Path, scenarios: int, workers: int | None = None, **options: Any) -> None:
    """`ambiseg.data.simulators.dataset.simulate` with a progress bar, and by default on all cores."""
    from ambiseg.data.simulators.dataset import simulate as make

    if workers is None:
        workers = max(1, min(_cores(), scenarios // SCENARIOS_PER_WORKER)) if scene == "wildfire" else 1
    done: dict[str, int] = {}
    with progress("simulating") as update:

        def tell(split: str, count: int, _: int | None) -> None:
            done[split] = count
            update(sum(done.values()), scenarios)

        make(scene, out, scenarios, workers=workers, progress=tell, **options)


def check(args: list[str]) -> int:
    """Print summaries and problems; 2 if there is an error among them."""
    arguments = parse(CheckArguments, args, "ambiseg data check")
    from ambiseg.data.check import check_dataset

    with progress("checking", not arguments.json) as update:
        report = check_dataset(arguments.path, _by_split(update))
    if arguments.json:
        show_json(_plain(report))
    else:
        _print_report(report, arguments.path)
    return 0 if report.ok else 2


def pack(args: list[str]) -> int:
    """Pack a folder."""
    arguments = parse(PackArguments, args, "ambiseg data pack")
    from ambiseg.data.packed import PACKED_SUFFIXES
    from ambiseg.data.packed import pack as pack_folder

    if arguments.out.suffix.lower() not in PACKED_SUFFIXES:
        raise AmbisegError(f"{arguments.out}: a packed data set is named {' or '.join(PACKED_SUFFIXES)}")
    with progress("packing") as update:
        pack_folder(arguments.folder, arguments.out, arguments.overwrite, _by_split(update))
    show(f"{arguments.folder} packed into {arguments.out}")
    next_commands(
        (command("ambiseg", "train", "METHOD", "--data", arguments.out, "--out", "RUN"), "train on it")
    )
    return 0


def _by_split(update: Any) -> Progress:
    """A bar that starts anew with every split."""
    return lambda split, done, total: update(done, total)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plain(report: CheckReport) -> dict[str, Any]:
    """The report as plain values for JSON."""
    summaries = []
    for summary in report.summaries:
        entries = asdict(summary)
        entries["sizes"] = {f"{height}x{width}": n for (height, width), n in summary.sizes.items()}
        summaries.append(entries)
    return {
        "ok": report.ok,
        "problems": [asdict(p) for p in report.problems],
        "causes": [asdict(cause) for cause in report.causes],
        "remarks": list(report.remarks),
        "splits": summaries,
    }


def _print_report(report: CheckReport, path: Path) -> None:
    if report.summaries:
        show_grid(_summary_table(report.summaries))
    if report.causes:
        show_grid(_cause_table(report.causes[:MOST_CAUSES], path))
    if len(report.causes) > MOST_CAUSES:
        show(f"and {counted(len(report.causes) - MOST_CAUSES, 'more cause')}, which --json lists")
    told = f"{counted(len(report.errors), 'error')}, {counted(len(report.warnings), 'warning')}"
    verdict = "ready to train on" if report.ok else "cannot be trained on"
    show(*report.remarks, f"{path}: {told}: {verdict}")
    if report.ok:
        say("next:", f"  {command('ambiseg', 'train', 'METHOD', '--data', path)} --out RUN")


def _cause_table(causes: Sequence[Cause], path: Path) -> Grid:
    """A row for each cause, with a few of its files."""
    table = Grid()
    for title in ("", "where", "what is wrong", "what to do"):
        table.column(title)
    for cause in causes:
        files = [name.removeprefix(f"{path}{os.sep}") for name in cause.files]
        more = [f"and {len(files) - EXAMPLES} more"] if len(files) > EXAMPLES else []
        style = "red" if cause.severity == "error" else "yellow"
        table.row(cause.severity, [*files[:EXAMPLES], *more], cause.problem, cause.remedy, style=style)
    return table


def _summary_table(summaries: tuple[Summary, ...]) -> Grid:
    table = Grid()
    volumes = any(summary.volumes for summary in summaries)
    counts = ("volumes", "slices", "masks") if volumes else ("images", "masks")
    for title in ("split", *counts, "per image", "sizes", "channels", "types", "share of classes"):
        table.column(title, right=title in counts)
    for s in summaries:
        sizes = [f"{h}x{w}" for h, w in sorted(s.sizes, key=lambda size: -s.sizes[size])]
        many = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
        table.row(
            s.split,
            *([str(s.volumes)] if volumes else []),
            str(s.images),
            str(s.annotations),
            str(s.most) if s.fewest == s.most else f"{s.fewest} to {s.most}, mean {s.mean:.2f}",
            ", ".join(sizes[:3]) + many,
            ", ".join(map(str, s.channels)),
            ", ".join(s.dtypes),
            " ".join(f"{share:.3f}" for share in s.class_frequencies),
        )
    return table
