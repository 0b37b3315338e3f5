"""``ambiseg data split``: other splits of an existing data set, by patient, stratified, in folds, or as a
list says."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from ambiseg.cli.console import command, next_commands, progress, show, warn
from ambiseg.cli.parsing import parse
from ambiseg.errors import AmbisegError, counted
from ambiseg.escaping import csv_cell

if TYPE_CHECKING:
    from ambiseg.data.splits.resplit import Pool


@dataclass(frozen=True)
class SplitArguments:
    """Draw new splits of all images of a data set, and write them as a data set or as a list."""

    path: Positional[Path]
    """Data set: a folder or a packed file."""
    out: Path
    """What to write: a folder, one packed file if the name ends with .h5, or only the list of splits if it
    ends with .csv."""
    groups: Path | None = None
    """CSV with the columns id and group: a group (a patient, a scene) is never split. Without it and
    --prefix, each image stands alone, and each volume whose slices are read."""
    prefix: str = ""
    """Regular expression for the start of an id that names its group, such as "[^_]+" for patient_slice; of
    its first parenthesis, if it has one."""
    fractions: tuple[str, ...] = ("train=0.6", "val=0.2", "test=0.2")
    """Share of the images in each split; their sum is 1."""
    folds: int | None = None
    """Draw so many folds instead. A list then tells the fold of each image, unless --fold chooses one."""
    fold: int | None = None
    """The fold that tests; the next one validates, the others train."""
    stratify: str = ""
    """What all splits should have alike: area (mean share of foreground), modes (number of distinct masks),
    or a column of the CSV of --groups."""
    list: Path | None = None
    """CSV with the columns id and split to follow instead of drawing; images that it does not name are left
    out."""
    seed: int = 0
    """Seed: the same one gives the same splits."""
    overwrite: bool = False
    """Replace what is there."""


def run(args: list[str]) -> int:
    """Draw or read splits and write them."""
    arguments = parse(SplitArguments, args, "ambiseg data split")
    _check(arguments)
    from ambiseg.data.source import list_splits, open_split
    from ambiseg.data.splits.resplit import Pool

    pool, listing = Pool(arguments.path), arguments.out.suffix.lower() == ".csv"
    splits, groups = _splits(arguments, pool)
    if listing:
        folds = arguments.folds is not None and arguments.fold is None
        _write_list(arguments.out, splits, "fold" if folds else "split", arguments.overwrite)
        show(f"{counted(len(splits), 'image')} listed in {arguments.out}")
        _tell_groups(arguments, splits, groups)
        return 0
    with progress("writing") as update:
        pool.write(arguments.out, splits, lambda split, done, total: update(done, total), arguments.overwrite)
    for name in list_splits(arguments.out):
        split = open_split(arguments.out, name)
        show(f"{arguments.out}, {name}: {counted(len(split), 'image')}, digest {split.digest()[:12]}")
    _tell_groups(arguments, splits, groups)
    if len(splits) < len(pool.ids):
        show(f"left out, as the list does not name them: {counted(len(pool.ids) - len(splits), 'image')}")
    next_commands((command("ambiseg", "data", "check", arguments.out), "look for what two splits share"))
    return 0


def _check(arguments: SplitArguments) -> None:
    """Raise `AmbisegError` for options that contradict each other."""
    if arguments.seed < 0:
        raise AmbisegError(f"--seed must not be negative, received {arguments.seed}")
    if arguments.groups is not None and arguments.prefix:
        raise AmbisegError("--groups and --prefix both say what a group is: give one of them")
    if arguments.fold is not None and arguments.folds is None:
        raise AmbisegError("--fold is of use with --folds only: say how many there are")
    drawn = (arguments.groups, arguments.prefix, arguments.folds, arguments.stratify)
    if arguments.list is not None and any(drawn):
        raise AmbisegError(
            "--list says where each image belongs: leave out --groups, --prefix, --folds, --stratify"
        )
    if arguments.folds is not None and arguments.fold is None and arguments.out.suffix.lower() != ".csv":
        raise AmbisegError(
            "--folds without --fold gives a list: name a file that ends with .csv, or choose --fold"
        )


def _splits(arguments: SplitArguments, pool: Pool) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Split (or fold) of each image, and its group."""
    from ambiseg.data.listing import read_columns
    from ambiseg.data.splits.assignment import fold_images, groups_by_pattern, split_images, splits_of_fold
    from ambiseg.data.volumes.settings import by_volume, of_slices

    volumes = by_volume(pool.ids) if pool.info.slices is not None else None
    if arguments.list is not None:
        rows = read_columns(arguments.list, "split")
        rows = rows if volumes is None else of_slices(rows, pool.ids)
        pool.check_known(rows, str(arguments.list))
        return {name: row["split"] for name, row in rows.items()}, {}
    groups, fractions = volumes or {name: name for name in pool.ids}, fractions_of(arguments.fractions)
    table: dict[str, dict[str, str]] = {}
    if arguments.groups is not None:
        table = read_columns(arguments.groups, "group")
        table = table if volumes is None else of_slices(table, pool.ids)
        _check_table(arguments.groups, table, pool.ids, arguments.path)
        groups = {name: row["group"] for name, row in table.items()}
    elif arguments.prefix:
        groups = groups_by_pattern(pool.ids, arguments.prefix)
    if volumes is not None:
        check_whole(volumes, groups)
    if arguments.folds is None and sum(share > 0 for share in fractions.values()) > 1:
        check_groups(groups)
    values = _values(arguments.stratify, table, pool)
    if arguments.folds is None:
        return split_images(groups, fractions, arguments.seed, values), groups
    folds = fold_images(groups, arguments.folds, arguments.seed, values)
    if arguments.fold is None:
        return {name: str(fold) for name, fold in folds.items()}, groups
    return splits_of_fold(folds, arguments.fold), groups


def _tell_groups(arguments: SplitArguments, splits: Mapping[str, str], groups: Mapping[str, str]) -> None:
    """What the groups were, and which splits they left empty."""
    if arguments.list is not None:
        return
    show(groups_found(groups))
    shares = fractions_of(arguments.fractions)
    empty = [name for name, share in shares.items() if share > 0 and name not in splits.values()]
    if empty and arguments.folds is None:
        warn(f"no image in {', '.join(empty)}: the groups are too few or too large for these shares")


def check_groups(groups: Mapping[str, str]) -> None:
    """Raise `AmbisegError` if all images are in one group."""
    names = set(groups.values())
    if len(groups) > 1 and len(names) == 1:
        raise AmbisegError(
            f"all {len(groups)} images are in one group, {names.pop()!r}, which is never split: correct --prefix or"
            " --groups, so that each patient or scene has a group of its own"
        )


def check_whole(volumes: Mapping[str, str], groups: Mapping[str, str]) -> None:
    """Raise `AmbisegError` if slices of one volume are in two groups."""
    first: dict[str, str] = {}
    for name, volume in volumes.items():
        if first.setdefault(volume, groups[name]) != groups[name]:
            raise AmbisegError(
                f"slices of the volume {volume!r} are in the groups {first[volume]!r} and {groups[name]!r}: give all"
                " slices of a volume one group"
            )


def groups_found(groups: Mapping[str, str]) -> str:
    """How many groups there are, with an example.

    Example:
        >>> groups_found({"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"})
        '2 groups, such as p1 (2 images)'
        >>> groups_found({"a": "a", "b": "b"})
        'every image is a group of its own'
    """
    sizes = Counter(groups.values())
    if len(sizes) == len(groups):
        return "every image is a group of its own"
    name = min(sizes)
    return f"{len(sizes)} groups, such as {name} ({sizes[name]} image{'s' if sizes[name] > 1 else ''})"


def groups_of_table(path: Path, ids: Sequence[str], where: Path) -> dict[str, str]:
    """Group of each id from a CSV; `AmbisegError` if it names other ids, or not all."""
    from ambiseg.data.listing import read_columns

    table = read_columns(path, "group")
    _check_table(path, table, ids, where)
    return {name: table[name]["group"] for name in ids}


def _check_table(path: Path, table: Mapping[str, object], ids: Sequence[str], where: Path) -> None:
    from ambiseg.data.splits.assignment import named

    unknown, missing = table.keys() - set(ids), set(ids) - table.keys()
    if unknown:
        raise AmbisegError(
            f"{path} names {named(unknown)} of which {where} has no image: correct or remove them"
        )
    if missing:
        raise AmbisegError(f"{path} names no group of {named(missing)}: add their rows")


def _values(
    stratify: str, table: Mapping[str, Mapping[str, str]], pool: Pool
) -> Mapping[str, float | str] | None:
    """What to stratify by, for each image: a column of the table, else what is measured."""
    if not stratify:
        return None
    columns = next(iter(table.values()), {})
    if stratify in columns:
        return {name: row[stratify] for name, row in table.items()}
    with progress("measuring") as update:
        return pool.measure(stratify, update)


def fractions_of(words: tuple[str, ...]) -> dict[str, float]:
    """Shares by split from words such as ``train=0.6``."""
    found: dict[str, float] = {}
    for word in words:
        name, _, share = word.partition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name or name in found or not value >= 0:
            raise AmbisegError(
                f"--fractions are pairs such as train=0.6 test=0.4, each name once, received {word!r}"
            )
        found[name] = value
    return found


def _write_list(out: Path, splits: Mapping[str, str], column: str, overwrite: bool) -> None:
    from ambiseg.atomic_write import replacing_file

    with (
        replacing_file(out, overwrite, ours=lambda path: False) as partial,
        open(partial, "w", newline="", encoding="utf-8") as stream,
    ):
        rows = [("id", column), *sorted(splits.items())]
        csv.writer(stream).writerows([*map(csv_cell, row)] for row in rows)
