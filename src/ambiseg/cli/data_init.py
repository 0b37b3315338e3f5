"""``ambiseg data init``: from a stranger's folder to a data set that every command reads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from ambiseg.cli.console import command, next_commands, progress, say, show, show_json, warn
from ambiseg.cli.data_split import check_groups, fractions_of, groups_found, groups_of_table
from ambiseg.cli.parsing import parse
from ambiseg.errors import AmbisegError, counted

if TYPE_CHECKING:
    from ambiseg.data.guess.setup import Groups, Plan

EXAMPLES = 3
MOST_NAMES = 12
"""Annotators and classes that are listed by name."""


@dataclass(frozen=True)
class InitArguments:
    """Find images and masks in a folder, and write dataset.yaml and splits.csv; nothing is copied."""

    folder: Positional[Path]
    """Folder of your images and masks."""
    images: tuple[str, ...] = ()
    """Where the images lie, if it is not found out: paths below the folder with {id}, such as 'scans/{id}.*'."""
    masks: tuple[str, ...] = ()
    """Where the masks lie: paths with {id} and {annotator}, such as 'masks/{id}_{annotator}.*'."""
    out: Path | None = None
    """New folder for the two files, which then name the data by their absolute path. Without it they are written
    into the folder itself."""
    groups: Path | None = None
    """CSV with the columns id and group: a group (a patient, a scene) is never split."""
    prefix: str = ""
    """Regular expression for the start of an id that names its group, such as "[^_]+" for patient_slice."""
    alone: bool = False
    """Draw every image alone, even where names look like those of patients."""
    fractions: tuple[str, ...] = ("train=0.6", "val=0.2", "test=0.2")
    """Share of the images in each split, where the folders do not say it; their sum is 1."""
    seed: int = 0
    """Seed: the same one gives the same splits."""
    overwrite: bool = False
    """Replace what an earlier 'ambiseg data init' wrote."""
    dry_run: bool = False
    """Report what would be written, and write nothing."""
    json: bool = False
    """Print the report as JSON."""


def run(args: list[str]) -> int:
    """Look, report, write."""
    arguments = parse(InitArguments, args, "ambiseg data init")
    _check(arguments)
    from ambiseg.data.guess.setup import check_free, plan, write

    if arguments.out is None and not arguments.dry_run:
        check_free(arguments.folder, arguments.overwrite)
    with progress("reading masks", not arguments.json) as update:
        made = plan(
            arguments.folder,
            arguments.images,
            arguments.masks,
            groups=_groups(arguments),
            fractions=fractions_of(arguments.fractions),
            seed=arguments.seed,
            progress=update,
        )
    written = [] if arguments.dry_run else write(made, arguments.out, arguments.overwrite)
    if arguments.json:
        show_json(_plain(made, written))
        return 0
    _tell(made)
    _warn(made)
    if arguments.dry_run:
        from ambiseg.data.guess.setup import yaml_of

        show("dataset.yaml would be:", *yaml_of(made).splitlines())
        return 0
    show(f"written: {', '.join(map(str, written))}")
    single = ("--labels", "single") if made.guess.found.masks and _most(made) == 1 else ()
    data = arguments.out or arguments.folder
    next_commands(
        (
            command("ambiseg", "train", "mode-proposals", "--data", data, *single, "--out", "RUN"),
            "train on it",
        ),
        (command("ambiseg", "data", "check", data), "read every file"),
    )
    return 0


def _check(arguments: InitArguments) -> None:
    """Raise `AmbisegError` for options that contradict each other."""
    if arguments.seed < 0:
        raise AmbisegError(f"--seed must not be negative, received {arguments.seed}")
    ways = [name for name in ("groups", "prefix", "alone") if getattr(arguments, name)]
    if len(ways) > 1:
        raise AmbisegError(f"--{ways[0]} and --{ways[1]} both say what a group is: give one of them")


def _groups(arguments: InitArguments) -> Groups | None:
    if arguments.alone:
        return lambda ids: {name: name for name in ids}
    if arguments.groups is None and not arguments.prefix:
        return None

    def groups(ids: Sequence[str]) -> Mapping[str, str]:
        from ambiseg.data.splits.assignment import groups_by_pattern

        if arguments.groups is not None:
            found: Mapping[str, str] = groups_of_table(arguments.groups, ids, arguments.folder)
        else:
            found = groups_by_pattern(ids, arguments.prefix)
        check_groups(found)
        return found

    return groups


def _most(made: Plan) -> int:
    return max(map(len, made.guess.found.masks.values()))


def _tell(made: Plan) -> None:
    """What was understood, a line for each thing."""
    found, labels = made.guess, made.classes.labels
    counts = [len(masks) for masks in found.found.masks.values()]
    per_image = str(max(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    who = [f"{name} ({count})" for name, count in sorted(found.annotators.items())]
    splits = Counter(made.splits.values())
    from ambiseg.data.listing import ordered_splits

    drawn = "as the folders say" if made.on_disk else groups_found(made.groups)
    show(
        f"{made.folder}: {found.title}",
        f"  images      {_texts(found.files.images)}: {len(found.found.images)}{_kind(made)}",
        f"  masks       {_texts(found.files.masks)}: {sum(counts)}, {per_image} for each image",
        f"  annotators  {_some(who)}",
        f"  classes     {_some(list(labels.names))}; {_numbers(made)}",
        f"  splits      {', '.join(f'{name} {splits[name]}' for name in ordered_splits(splits))}; {drawn}",
    )


def _kind(made: Plan) -> str:
    slices = made.info.slices
    return "" if slices is None else f" volumes, read as {slices.axis} slices"


def _texts(patterns: Sequence[Any]) -> str:
    return ", ".join(pattern.text for pattern in patterns)


def _some(names: Sequence[str], most: int = MOST_NAMES) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _numbers(made: Plan) -> str:
    """What the masks hold, in words."""
    values = made.values
    parts = []
    if values.numbers:
        parts.append(f"numbers {_some([str(number) for number in sorted(values.numbers)])}")
    if values.indexed:
        parts.append(f"palette indices {_some([str(number) for number in sorted(values.indexed)])}")
    if values.colors:
        parts.append(f"colours {_some([str(color) for color in sorted(values.colors)], 4)}")
    return f"masks hold {' and '.join(parts) or 'fractions'}"


def _warn(made: Plan) -> None:
    from ambiseg.data.importers.summary import by_reason

    for remark in made.remarks:
        warn(remark)
    bare = made.without_masks
    if bare:
        warn(f"{counted(len(bare), 'image')} without a mask left out: {_some(bare, EXAMPLES)}")
    strays = made.guess.found.strays
    if strays:
        warn(f"{counted(len(strays), 'mask')} without an image not used: {_some(strays, EXAMPLES)}")
    unused = [path for path in made.guess.unused if path not in set(strays)]
    if unused:
        say(f"not used: {counted(len(unused), 'other file')}: {_some(unused, EXAMPLES)}")
    for reason, some in by_reason(made.problems).items():
        names = [os.path.relpath(problem.file, made.folder) for problem in some]
        said = reason if len(some) > 1 else some[0].problem
        warn(f"{counted(len(some), 'mask')}: {said}: {some[0].remedy} ({_some(names, EXAMPLES)})")
    empty = [name for name in ("train", "val") if name not in made.splits.values()]
    if empty:
        warn(f"no image in {', '.join(empty)}: the groups are too few or too large for these shares")


def _plain(made: Plan, written: Sequence[Path]) -> dict[str, Any]:
    """The report as plain values for JSON."""
    found, labels = made.guess, made.classes.labels
    return {
        "folder": made.folder,
        "layout": found.title,
        "images": [pattern.text for pattern in found.files.images],
        "masks": [pattern.text for pattern in found.files.masks],
        "counts": {"images": len(found.found.images), "masks": len(found.mask_paths)},
        "annotators": dict(sorted(found.annotators.items())),
        "classes": list(labels.names),
        "ignore_value": labels.ignore_value,
        "mask_threshold": made.classes.threshold,
        "slices": None if made.info.slices is None else made.info.slices.entries(),
        "values": {
            "numbers": {str(number): count for number, count in sorted(made.values.numbers.items())},
            "palette": {str(number): count for number, count in sorted(made.values.indexed.items())},
            "colors": [list(color) for color in sorted(made.values.colors)],
        },
        "splits": dict(Counter(made.splits.values())),
        "groups": len(set(made.groups.values())),
        "on_disk": made.on_disk,
        "remarks": list(made.remarks),
        "without_masks": made.without_masks,
        "masks_without_image": found.found.strays,
        "unused": list(found.unused),
        "problems": [{"file": p.file, "problem": p.problem, "remedy": p.remedy} for p in made.problems],
        "written": [str(path) for path in written],
    }
