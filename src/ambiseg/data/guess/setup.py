"""From a stranger's folder to a data set: the layout, the classes and the splits, planned and then written as two
small files. No image is copied."""

from __future__ import annotations

import csv
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unicodedata import normalize

import yaml

from ambiseg.atomic_write import replacing_folder, write_text
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.folder import DATA
from ambiseg.data.guess.classes import Classes, MaskValues, classes_of
from ambiseg.data.guess.guess import Guess, guess
from ambiseg.data.guess.volumes import any_volume, check_mask
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SPLITS
from ambiseg.data.pattern_matching import Key
from ambiseg.data.patterns import FilePatterns, split_word
from ambiseg.data.splits.assignment import FRACTIONS, split_images
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.escaping import csv_cell
from ambiseg.plain_yaml import plain_values

HEADER = (
    "# Written by 'ambiseg data init'. Names of classes, patterns and the table of splits may be changed.\n"
)
TABLE = "splits.csv"
FEWEST_GROUPS = 5
"""Names are taken for those of groups, such as patients, where there are at least so many."""
_TRIED = 20
"""Masks that are read with the classes that were found."""
_BETWEEN = "_-. "
_PART = re.compile(rf"[^{re.escape(_BETWEEN)}]+[{re.escape(_BETWEEN)}]*|[{re.escape(_BETWEEN)}]+")

Groups = Callable[[Sequence[str]], Mapping[str, str]]
"""Group of each id."""


@dataclass(frozen=True)
class Plan:
    """A data set that can be written.

    Attributes:
        folder: where the data lie.
        guess: images and masks.
        values: what the masks hold.
        classes: the classes that explain them.
        splits: split of each image with masks.
        groups: group of each of them.
        on_disk: whether the folders say the split of each image.
        info: the content of ``dataset.yaml``, for one that lies in ``folder``.
        problems: masks that cannot be read.
        remarks: what a person should look at.
    """

    folder: Path
    guess: Guess
    values: MaskValues
    classes: Classes
    splits: Mapping[str, str]
    groups: Mapping[str, str]
    on_disk: bool
    info: DatasetInfo
    problems: Sequence[FileProblem] = ()
    remarks: Sequence[str] = field(default_factory=list)

    @property
    def without_masks(self) -> list[str]:
        """Ids of images that have no mask."""
        return sorted(key.name for key in self.guess.found.images.keys() - set(self.guess.with_masks))


def plan(
    folder: Path,
    images: Sequence[str] = (),
    masks: Sequence[str] = (),
    *,
    groups: Groups | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Look at a folder and say what its data set would be.

    Args:
        folder: where the data lie.
        images: patterns of the images, see `guess`.
        masks: patterns of the masks.
        groups: of images that must be in one split; names that look like patients are groups if None.
        fractions: share of each split, where the folders do not say it.
        seed: of the splits.
        progress: called with masks read and in all.

    Raises:
        AmbisegError: no layout fits or two do, masks that are no label maps, too few images.
    """
    found = guess(folder, images, masks)
    paths = found.mask_paths
    values = MaskValues.of((folder / path for path in paths), lambda done: progress(done, len(paths)))
    classes = classes_of(values)
    keys = found.with_masks
    _refuse_repeated_ids(folder, keys, found.files)
    split_of, group_of = _splits(folder, keys, groups, fractions, seed)
    on_disk = all(key.split == split_of[key.name] for key in found.found.images if key.name in split_of)
    on_disk &= len(keys) == len(found.found.images) and {"train", "val"} <= set(split_of.values())
    files = replace(found.files, splits="" if on_disk else TABLE)
    info = replace(_info(folder, found, classes), files=files)
    unread = {problem.file for problem in values.problems}
    readable = [folder / path for path in paths if str(folder / path) not in unread]
    problems = [*values.problems, *_still_wrong(readable, info.mask_rules)]
    return Plan(
        folder, found, values, classes, split_of, group_of, on_disk, info, problems, _remarks(found, classes)
    )


def _refuse_repeated_ids(folder: Path, keys: Sequence[Key], files: FilePatterns) -> None:
    """Refuse two images of one id, and say the patterns that tell them apart."""
    twice = [name for name, count in Counter(key.name for key in keys).items() if count > 1]
    if not twice:
        return
    remedy = "write {group} in --images and --masks where the folders differ"
    if all(pattern.fields & {"split", "group"} == {"split"} for pattern in (*files.images, *files.masks)):
        images, masks = (
            shlex.join(pattern.text.replace("{split", "{group") for pattern in some)
            for some in (files.images, files.masks)
        )
        remedy = f"pass --images {images} --masks {masks}, which puts the split before each id"
    raise FileProblem(folder, f"{len(twice)} ids occur in several folders, such as {twice[0]}", remedy)


def _splits(
    folder: Path, keys: Sequence[Key], groups: Groups | None, fractions: Mapping[str, float], seed: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Split and group of each id; those that folders name stay, but for a part of train where val is missing."""
    names = {key.name for key in keys}
    if len(names) < 2:
        raise FileProblem(folder, f"it holds {len(names)} image with masks", "training needs 2 or more")
    group_of = dict(groups(sorted(names)) if groups is not None else _groups(keys))
    words = {split_word(key.group) for key in keys}
    by_group = {"train"} <= words <= set(SPLITS)
    named = {key.name: split_word(key.group) if by_group else key.split for key in keys}
    there = set(named.values())
    if {"train", "val"} <= there:
        return named, group_of
    if "train" not in there:
        return _drawn(group_of, fractions, seed), group_of
    shares = {name: fractions.get(name, 0.0) for name in ("train", "val")}
    total = sum(shares.values()) or 1.0
    train = {name: group for name, group in group_of.items() if named[name] == "train"}
    return named | _drawn(train, {name: share / total for name, share in shares.items()}, seed), group_of


def _drawn(group_of: Mapping[str, str], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Splits at random; where there are so few groups that train or val is empty, equal shares."""
    drawn = split_images(group_of, fractions, seed)
    if {"train", "val"} <= set(drawn.values()) or len(set(group_of.values())) < 2:
        return drawn
    names = [name for name in fractions if name in SPLITS][: len(set(group_of.values()))]
    return split_images(group_of, {name: 1 / len(names) for name in names}, seed)


def _groups(keys: Iterable[Key]) -> dict[str, str]:
    """Folders of groups; else the first parts of the names, as few of them as give several groups."""
    folders = {key.name: key.group or key.name for key in keys}
    parts = {name: _PART.findall(name) for name in folders}
    counts = range(1, max(map(len, parts.values()), default=1))
    for groups in (folders, *({name: "".join(own[:n]) for name, own in parts.items()} for n in counts)):
        if FEWEST_GROUPS <= len(set(groups.values())) < len(groups):
            return {name: group.rstrip(_BETWEEN) for name, group in groups.items()}
    return {name: name for name in folders}


def _remarks(found: Guess, classes: Classes) -> list[str]:
    told = list(classes.remarks)
    folded: dict[str, str] = {}
    for name in sorted(found.annotators):
        plain = normalize("NFKC", name)
        other = folded.setdefault(plain.casefold(), name)
        if other != name:
            what = "the encoding of accents" if normalize("NFKC", other) == plain else "capital letters"
            told.append(
                f"annotators {other!r} and {name!r} differ in {what} only: rename one if they are one person"
            )
    return told


def _still_wrong(paths: Sequence[Path], rules: MaskRules) -> list[FileProblem]:
    """Those of some masks that cannot be read with the classes found."""
    wrong = []
    for path in paths[:: max(1, len(paths) // _TRIED)]:
        try:
            check_mask(path, rules)
        except FileProblem as problem:
            wrong.append(problem)
    return wrong


def is_written(path: Path) -> bool:
    """Whether a ``dataset.yaml`` was written by `write`."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline() == HEADER
    except (OSError, UnicodeDecodeError):
        return False


def write(made: Plan, out: Path | None = None, overwrite: bool = False) -> list[Path]:
    """Write ``dataset.yaml`` and, unless the folders say it, the table of splits.

    Args:
        made: what to write.
        out: another folder for both, which names the data by their absolute path; their own folder if None.
        overwrite: replace what an earlier call wrote.

    Returns:
        The files.

    Raises:
        AmbisegError: a file of somebody else is there, or the system refuses the write.
    """
    texts = {} if made.on_disk else {TABLE: table_text(made.splits)}
    if out is not None:
        texts["dataset.yaml"] = yaml_of(made, str(made.folder.resolve()))
        with replacing_folder(out, overwrite, DATA, inputs=[made.folder]) as partial:
            for name, text in texts.items():
                (partial / name).write_text(text, encoding="utf-8", newline="\n")
        return [out / name for name in texts]
    texts["dataset.yaml"] = yaml_of(made)
    check_free(made.folder, overwrite)
    for name, text in texts.items():
        write_text(made.folder / name, text)
    return [made.folder / name for name in texts]


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise `AmbisegError` if files of somebody else, or without ``overwrite`` ours, are where `write` writes."""
    path = folder / "dataset.yaml"
    if path.exists() and not is_written(path):
        raise FileProblem(
            path,
            "it exists, and 'ambiseg data init' did not write it",
            "keep it, or write to another folder with --out",
        )
    if path.exists() and not overwrite:
        raise FileProblem(
            path, "it exists already", "pass --overwrite to write it anew, or choose another --out"
        )
    if (folder / TABLE).exists() and not path.exists():
        raise FileProblem(
            folder / TABLE,
            "it exists, and 'ambiseg data init' did not write it",
            "rename it, or write to another --out",
        )


def yaml_of(made: Plan, root: str = ".") -> str:
    """The text of ``dataset.yaml``."""
    files = made.info.files
    info = replace(made.info, files=replace(files, root=root) if files is not None else None)
    entries: dict[str, Any] = plain_values(info.to_yaml())
    if not made.classes.colored:
        entries["classes"] = list(info.labels.names)
    if info.labels.ignore_value is None:
        del entries["ignore_value"]
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    return HEADER + str(text)


def table_text(splits: Mapping[str, str]) -> str:
    """The table of splits as CSV."""
    stream = StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerows([("id", "split"), *((csv_cell(name), split) for name, split in sorted(splits.items()))])
    return stream.getvalue()


def guessed_info(folder: Path) -> DatasetInfo:
    """What a folder without splits holds, as one split.

    Raises:
        AmbisegError: see `plan`.
    """
    found = guess(folder)
    return _info(folder, found, classes_of(MaskValues.of(folder / path for path in found.mask_paths)))


def _info(folder: Path, found: Guess, classes: Classes) -> DatasetInfo:
    """The content of ``dataset.yaml``; volumes are read slice by slice."""
    images = (folder / path for some in found.found.images.values() for path in some.values())
    return DatasetInfo(
        folder.resolve().name,
        classes.labels,
        mask_threshold=classes.threshold,
        files=found.files,
        slices=SliceSettings() if any_volume(images) else None,
    )
