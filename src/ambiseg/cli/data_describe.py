"""``ambiseg data describe``: what a data set holds and how ambiguous it is, as tables, a page, or JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from ambiseg.cli.console import Grid, command, next_commands, progress, say, show, show_grid, show_json, warn
from ambiseg.cli.parsing import parse
from ambiseg.errors import AmbisegError

if TYPE_CHECKING:
    from ambiseg.engine.describe import Description, SplitDescription
    from ambiseg.report.data_page import Example, TextTable

DISAGREEMENT = {
    "pairwise_iou": "pairwise IoU",
    "pairwise_dice": "pairwise Dice",
    "spread": "d(Y, Y)",
    "ged_leave_one_out": "GED² of one against the others",
    "fleiss_kappa": "Fleiss' kappa",
    "unanimous": "unanimous pixels",
    "empty": "empty masks",
    "modes": "distinct masks per image",
    "mode_entropy": "entropy of their probabilities (nats)",
    "area": "foreground",
}
"""How the numbers of `SplitDescription.disagreement` are printed, in this order."""


@dataclass(frozen=True)
class DescribeArguments:
    """Say what a data set holds, how far its annotators disagree, and what numbers are within reach."""

    path: Positional[Path]
    """Data set: a folder or a packed file."""
    split: str = ""
    """Which split of it; all if left out."""
    out: Path | None = None
    """Page to write (HTML), with pictures of the most and least ambiguous images."""
    samples: tuple[int, ...] = (1, 4, 16)
    """Numbers of samples of the annotation oracle, which draws from the annotations themselves."""
    images: int | None = None
    """Measure disagreement and metrics on so many images of each split, drawn by the seed; on all if left
    out."""
    seed: int = 0
    """Seed of all draws."""
    json: bool = False
    """Print everything as JSON."""


def run(args: list[str]) -> int:
    """Describe, print, and write the page."""
    arguments = parse(DescribeArguments, args, "ambiseg data describe")
    if arguments.seed < 0:
        raise AmbisegError(f"--seed must not be negative, received {arguments.seed}")
    from ambiseg.engine.describe import describe

    with progress("describing", not arguments.json) as update:
        found = describe(
            arguments.path,
            arguments.split or None,
            samples=arguments.samples,
            images=arguments.images,
            seed=arguments.seed,
            progress=lambda what, done, total: update(done, total),
        )
    again = _again(arguments)
    if arguments.out is not None:
        write_page(found, arguments.out, again)
    for warning in found.warnings:
        warn(f"{warning.file}: {warning.problem}: {warning.remedy}")
    if arguments.json:
        show_json(found.to_dict())
        return 0
    for name, value in _facts(found):
        show(f"{name}: {value}")
    for table in tables(found):
        _print(table)
    if arguments.out is not None:
        say(f"written: {arguments.out}")
    else:
        next_commands((f"{again} --out PAGE.html", "the same with pictures"))
    return 0


def _again(arguments: DescribeArguments) -> str:
    """The command line without ``--out`` and ``--json``."""
    words: list[object] = ["ambiseg", "data", "describe", arguments.path]
    words += ["--split", arguments.split] if arguments.split else []
    words += ["--samples", *arguments.samples] if arguments.samples != DescribeArguments.samples else []
    words += ["--images", arguments.images] if arguments.images is not None else []
    words += ["--seed", arguments.seed] if arguments.seed else []
    return command(*words)


def _facts(found: Description) -> list[tuple[str, str]]:
    """What the data set says about itself, as far as it does."""
    info = found.info
    facts = [
        ("data set", f"{info.name}, {found.path}"),
        ("classes", ", ".join(info.labels.names)),
        ("channels", ", ".join(info.channels)),
        ("licence", info.licence or "not stated"),
        ("source", info.source or "not stated"),
    ]
    return [(name, value) for name, value in facts if value]


def tables(found: Description) -> list[TextTable]:
    """What was counted, how annotators disagree, and what is within reach in each split, as texts."""
    from ambiseg.report.data_page import TextTable

    names = [split.summary.split for split in found.splits]
    disagreement = [
        [title, *(_number(split.disagreement.get(key, math.nan)) for split in found.splits)]
        for key, title in DISAGREEMENT.items()
    ]
    measured = ", ".join(_measured(split) for split in found.splits)
    single = [split.summary.split for split in found.splits if split.measured and not split.one_annotator]
    unknown = f" One annotation per image in {', '.join(single)}: agreement unknown." if single else ""
    return [
        TextTable("Counts", ["", *names], _counts(found.splits)),
        TextTable(
            "Disagreement", ["mean over images", *names], disagreement, f"Measured on {measured}.{unknown}"
        ),
        *(_within_reach(split) for split in found.splits if split.measured),
    ]


def _measured(split: SplitDescription) -> str:
    total = split.summary.images
    some = f"{split.measured}" if split.measured == total else f"{split.measured} (drawn) of {total}"
    return f"{some} image{'s' * (total != 1)} of {split.summary.split}"


def _counts(splits: Sequence[SplitDescription]) -> list[list[str]]:
    columns = []
    volumes = any(split.summary.volumes for split in splits)
    for split in splits:
        s = split.summary
        sizes = [f"{h}x{w}" for h, w in sorted(s.sizes, key=lambda size: -s.sizes[size])]
        columns.append(
            {
                **({"volumes": str(s.volumes)} if volumes else {}),
                "slices" if volumes else "images": str(s.images),
                "masks": str(s.annotations),
                "masks per image": str(s.most)
                if s.fewest == s.most
                else f"{s.fewest} to {s.most}, mean {s.mean:.2f}",
                "sizes": ", ".join(sizes[:3]) + (f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""),
                "image channels": ", ".join(map(str, s.channels)),
                "number types": ", ".join(s.dtypes),
                "share of classes": " ".join(f"{share:.3f}" for share in s.class_frequencies),
                "digest": split.digest[:12],
            }
        )
    return [[name, *(column[name] for column in columns)] for name in (columns[0] if columns else ())]


def _within_reach(split: SplitDescription) -> TextTable:
    from ambiseg.engine.tally import ORACLE_DRAWS
    from ambiseg.metrics.tables import metric_rows
    from ambiseg.report.data_page import TextTable

    columns = {f"{n} sample{'s' if n > 1 else ''}": values for n, values in split.oracle.items()}
    if split.one_annotator:
        columns["one annotator"] = split.one_annotator
    note = (
        f"Means over {_measured(split)}, {ORACLE_DRAWS} draws of each. The annotation oracle draws its samples from the"
        " annotations themselves: floor where lower is better, ceiling where higher is."
        " One annotator: one annotation against the others."
    )
    rows = [[row.title, row.arrow, *row.texts] for row in metric_rows(columns)]
    header = ["metric", "better", *columns]
    return TextTable(f"Within reach: {split.summary.split}", header, rows, note, folded=True)


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _print(table: TextTable) -> None:
    drawn = Grid(table.title)
    for i, title in enumerate(table.header):
        drawn.column(title, right=i > 0)
    for row in table.rows:
        drawn.row(*row)
    show_grid(drawn)
    if table.note:
        show(table.note)


def write_page(found: Description, out: Path, again: str) -> None:
    """Write the page about a data set."""
    from ambiseg import __version__
    from ambiseg.report.data_page import write_data_page

    write_data_page(
        out,
        found.info.name,
        facts=_facts(found),
        warnings=[f"{w.file}: {w.problem}: {w.remedy}" for w in found.warnings],
        tables=tables(found),
        examples=[group for split in found.splits for group in _examples(found, split)],
        channels=found.info.channels,
        command=f"{again} --out {command(out)}",
        footer=f"ambiseg {__version__}",
    )


def _examples(found: Description, split: SplitDescription) -> list[tuple[str, list[Example]]]:
    """The most and the least ambiguous images of a split, none twice."""
    from ambiseg.data.batches import annotations_of
    from ambiseg.data.source import open_split
    from ambiseg.report.data_page import Example

    source, name = open_split(found.path, split.summary.split), split.summary.split
    places = {sample_id: i for i, sample_id in enumerate(source.ids)}
    least = [sample_id for sample_id in split.least_ambiguous if sample_id not in split.most_ambiguous]
    groups = []
    for title, ids in (("Most", split.most_ambiguous), ("Least", least)):
        samples = [source[places[sample_id]] for sample_id in ids]
        examples = [
            Example(s.id, s.image, annotations_of(s, source.info.labels).merge_identical()) for s in samples
        ]
        groups.append((f"{title} ambiguous: {name}", examples))
    return groups
