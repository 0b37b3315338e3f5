"""All that is wrong with a data set, found in one reading before any training starts, and what it holds.

Nothing stops the check: every problem is noted with its file and remedy. An *error* must be mended before
training; a *warning* is something that a person should look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.class_flip_view import several_label_maps
from ambiseg.data.files.geometry import on_image
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import IMAGE_SUFFIXES, MASK_SUFFIXES, read_image, read_label_map, suffix_of
from ambiseg.data.files.validation import (
    FileProblem,
    channel_problem,
    mask_problems,
    weight_problems,
)
from ambiseg.data.folder import (
    SPLITS,
    Progress,
    folder_splits,
    images_without_split,
    read_info,
    read_weights,
    scan_folder,
    split_advice,
    unknown_ids,
)
from ambiseg.data.info import DatasetInfo
from ambiseg.data.mask_names import Cause, MaskNames
from ambiseg.data.mask_oddities import SINGLE
from ambiseg.data.packed import PackedSplit, packed_splits
from ambiseg.data.seen import PalettesSeen, SplitSeen, Summary
from ambiseg.data.source import existing
from ambiseg.data.splits.leakage import shared
from ambiseg.data.statistics import STRAY_REMEDY, stray_words
from ambiseg.errors import AmbisegError

SMALLEST = 8
"""Images with a side shorter than this are warned about."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where, what, what to do, and whether it forbids training."""

    file: str
    problem: str
    remedy: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        return f"{self.severity}: {self.file}: {self.problem}: {self.remedy}"


@dataclass(frozen=True)
class CheckReport:
    """Problems of a data set, a summary of each split, and advice that is no problem."""

    problems: tuple[Problem, ...]
    summaries: tuple[Summary, ...]
    remarks: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Those that must be mended."""
        return tuple(p for p in self.problems if p.severity == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """Those that only a person can judge."""
        return tuple(p for p in self.problems if p.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether training can start: no error."""
        return not self.errors


class _Check:
    """The walk over a data set; gathers problems."""

    def __init__(self, path: Path, progress: Progress | None) -> None:
        self.path, self.progress = path, progress
        self.problems: list[Problem] = []
        self.info: DatasetInfo | None = None
        self.palettes = PalettesSeen()

    def note(self, found: Iterable[AmbisegError]) -> None:
        for problem in found:
            if isinstance(problem, FileProblem):
                self.problems.append(Problem(problem.file, problem.problem, problem.remedy))
            else:
                file, _, rest = str(problem).partition(": ")
                what, _, remedy = rest.rpartition(": ")
                self.problems.append(Problem(file, what or rest, remedy if what else "correct it"))

    def warn(self, file: str, problem: str, remedy: str) -> None:
        self.problems.append(Problem(file, problem, remedy, "warning"))

    def attempt(self, read: Callable[[], Any]) -> Any:
        """The value of ``read``, or None after noting why there is none."""
        try:
            return read()
        except AmbisegError as error:
            self.note([error])
            return None

    def tell(self, seen: SplitSeen, done: int) -> None:
        if self.progress is not None:
            self.progress(seen.split, done, len(seen.ids))

    def image(self, seen: SplitSeen, sample_id: str, image: NDArray[Any], where: str) -> None:
        """Note what is wrong with one image that could be read, and remember it."""
        seen.image(sample_id, image)
        if min(image.shape[1:]) < SMALLEST:
            size = f"{image.shape[1]}x{image.shape[2]}"
            self.warn(
                where, f"the image is only {size} pixels", f"{SMALLEST}x{SMALLEST} or more are expected"
            )
        if self.info and self.info.channels and len(self.info.channels) != image.shape[0]:
            self.note([channel_problem(where, image.shape[0], self.info.channels)])

    def folder(self) -> list[SplitSeen]:
        self.info = self.attempt(lambda: read_info(self.path))
        for name in SPLITS:
            if (self.path / name).is_dir() and not (self.path / name / "images").is_dir():
                self.note(
                    [FileProblem(self.path / name, "there is no images folder in it", "put images there")]
                )
        return [self.folder_split(name) for name in self.some(folder_splits(self.path))]

    def some(self, splits: list[str]) -> list[str]:
        """The names of the splits, of which there should be one at least."""
        if not splits:
            remedy = "put images in train/images, masks in train/masks/<id>"
            misplaced = images_without_split(self.path) if self.path.is_dir() else None
            self.note([misplaced or FileProblem(self.path, "there is no split", remedy)])
        return splits

    def folder_split(self, split: str) -> SplitSeen:
        folder = self.path / split
        seen = SplitSeen(split, str(folder))
        files, problems = scan_folder(folder / "images", self.path, IMAGE_SUFFIXES, "image")
        table = folder / "weights.csv"
        weights, wrong = read_weights(table, self.path)
        self.note([*problems, *wrong, *unknown_ids(weights, files, table)])
        seen.ids, seen.read = tuple(files), lambda sample_id: read_image(files[sample_id])
        lost = {Path(p.file).name for p in problems}
        names, missing = MaskNames(folder / "masks"), dict[str, list[Cause]]()
        for done, (sample_id, path) in enumerate(files.items(), 1):
            cause = None if (folder / "masks" / sample_id).is_dir() else names.cause(sample_id)
            if cause is not None:
                missing.setdefault(cause.problem, []).append(cause)
            self.folder_sample(seen, folder, sample_id, path, weights.get(sample_id, {}), cause is None)
            self.tell(seen, done)
        for causes in missing.values():
            found, problem, remedy = causes[0]
            more = f" (and so for {len(causes) - 1} other images)" if len(causes) > 1 else ""
            self.note([FileProblem(found, problem + more, remedy)])
        explained = {
            part
            for causes in missing.values()
            for cause in causes
            for part in (cause.found, cause.found.parent)
        }
        masks = (folder / "masks").iterdir() if (folder / "masks").is_dir() else ()
        strays = (path for path in masks if path.name not in files and not path.name.startswith("."))
        self.note(self._stray(path, lost) for path in sorted(strays) if path not in explained)
        return seen

    @staticmethod
    def _stray(masks: Path, lost: set[str]) -> FileProblem:
        if not masks.is_dir():
            place = f"masks/<id>/<annotator>{suffix_of(masks) or '.png'}"
            return FileProblem(masks, "the mask belongs to no image", f"move it to {place}")
        unread = next((name for name in lost if name.startswith(f"{masks.name}.")), None)
        why = f" (images/{unread} cannot be read)" if unread else ""
        return FileProblem(
            masks, f"masks without an image{why}", "add the image, or give the folder the name of its image"
        )

    def folder_sample(
        self,
        seen: SplitSeen,
        folder: Path,
        sample_id: str,
        path: Path,
        weights: dict[str, float],
        say_missing: bool,
    ) -> None:
        image = self.attempt(lambda: read_image(path))
        if image is not None:
            self.image(seen, sample_id, image, str(path))
        masks = folder / "masks" / sample_id
        files, problems = scan_folder(masks, self.path, MASK_SUFFIXES, "mask")
        self.note(problems)
        if not masks.is_dir() and not say_missing:
            return
        if not masks.is_dir():
            remedy = f"add masks/{sample_id}/<annotator>.png"
            self.note([FileProblem(path, "the image has no masks folder", remedy)])
        elif not files and not problems:
            self.note([MaskNames(masks.parent).missing(sample_id)])
        labels = self.info.labels if self.info else None
        rules = self.info.mask_rules if self.info else MaskRules()
        read: dict[str, NDArray[np.uint8]] = {}
        for name, file in files.items():
            found = self.attempt(partial(read_label_map, file, rules))
            mask = found.mask if found is not None else None
            if mask is not None and image is not None:
                mask = self.attempt(partial(on_image, mask, file, path))
            if found is not None and mask is not None:
                read[name] = mask
                seen.mask(mask)
                self.palettes.add(file, found.colors)
                self.note(mask_problems(mask, image.shape[1:] if image is not None else None, labels, file))
        seen.count(len(files))
        seen.take(sample_id, read, labels)
        if self.info and self.info.flips and len(files) > 1:
            self.note([several_label_maps(len(files), str(masks))])
        self.note(weight_problems(weights, tuple(files), folder / "weights.csv", sample_id))

    def packed(self) -> list[SplitSeen]:
        names = self.attempt(lambda: self.some(packed_splits(self.path))) or ()
        sources = [self.attempt(partial(PackedSplit, self.path, name)) for name in names]
        return [self.packed_split(source) for source in sources if source is not None]

    def packed_split(self, source: PackedSplit) -> SplitSeen:
        places = {sample_id: i for i, sample_id in enumerate(source.ids)}

        def read(sample_id: str) -> NDArray[Any]:
            return source.inspect(places[sample_id])[0].image

        seen = SplitSeen(source.split, f"{self.path}, {source.split}", source.ids, read)
        self.info = source.info
        for index, sample_id in enumerate(source.ids):
            found = self.attempt(partial(source.inspect, index))
            if found is not None:
                sample, problems = found
                self.note(problems)
                self.image(seen, sample_id, sample.image, f"{seen.place}, id {sample_id!r}")
                seen.mask(sample.masks)
                seen.take(
                    sample_id, dict(zip(sample.annotators, sample.masks, strict=True)), self.info.labels
                )
                seen.count(len(sample.masks))
                if self.info.flips and len(sample.masks) > 1:
                    self.note([several_label_maps(len(sample.masks), f"{seen.place}, id {sample_id!r}")])
            self.tell(seen, index + 1)
        return seen

    def whole(self, splits: list[SplitSeen]) -> None:
        """What only shows when all splits are seen together."""
        if self.palettes.clash is not None:
            self.note([self.palettes.clash])
        elif self.palettes.count:
            self.warn(
                self.palettes.first,
                f"{self.palettes.count} mask(s) have a palette of many colours: the index was taken for the class",
                "look whether the classes are right, or give every class its color in dataset.yaml",
            )
        background = (self.info.labels.background if self.info else 0) or 0
        for seen in splits:
            if not seen.ids:
                self.note([FileProblem(seen.place, "the split is empty", "add images or remove the split")])
            void = self.info.labels.void if self.info else 255
            if seen.values.any() and not np.delete(seen.values, [background, void]).any():
                self.warn(seen.place, "no mask marks anything", "check that the class numbers were saved")
            for problem, remedy in seen.oddities.remarks() if seen.oddities else ():
                self.warn(seen.place, problem, remedy)
            stray = seen.range.crushed()
            if stray is not None and seen.split == "train":
                problem = f"{stray}, so all images would be constant for training"
                self.note([FileProblem(seen.place, problem, STRAY_REMEDY)])
            elif seen.range.strays:
                self.warn(seen.place, stray_words(seen.range), STRAY_REMEDY)
        self._mixed(splits, [seen.channels for seen in splits], "numbers of channels", "error")
        self._mixed(splits, [seen.dtypes for seen in splits], "number types", "warning")
        for one, other in combinations(splits, 2):
            self._leak(one, other)

    def _mixed(
        self, splits: list[SplitSeen], counts: list[Any], what: str, severity: Literal["error", "warning"]
    ) -> None:
        places: dict[Any, str] = {}
        total: Counter[Any] = Counter()
        for seen, count in zip(splits, counts, strict=True):
            total.update(count)
            for value in count:
                places.setdefault(value, f"{seen.split}/{seen.examples[value]}")
        if len(total) > 1:
            parts = [
                f"{n} image(s) with {value}, such as {places[value]}" for value, n in total.most_common()
            ]
            problem = f"different {what}: {', '.join(parts)}"
            self.problems.append(Problem(str(self.path), problem, "convert all to one", severity))

    def _leak(self, one: SplitSeen, other: SplitSeen) -> None:
        place = f"{self.path}, {one.split} and {other.split}"
        common = sorted(set(one.ids) & set(other.ids))
        if common:
            names = ", ".join(common[:5])
            self.warn(place, f"{len(common)} id(s) in both: {names}", "give every image its own id")
        twins = shared(one.prints, other.prints, one.read, other.read)
        for what, some in (
            ("identical", [twin for twin in twins if twin.identical]),
            ("near-identical", [twin for twin in twins if not twin.identical]),
        ):
            if some:
                pairs = ", ".join(map(str, some[:5])) + (", ..." if len(some) > 5 else "")
                self.warn(place, f"{len(some)} {what} image(s), a leak: {pairs}", "keep each in one split")


def check_dataset(
    path: str | PathLike[str], progress: Progress | None = None, to_train: bool = True
) -> CheckReport:
    """Read a whole data set, folder or packed, and report every problem at once.

    Args:
        path: the data set.
        progress: called after every image.
        to_train: report as errors that there is no split ``train`` or ``val``.

    Raises:
        AmbisegError: there is nothing at ``path``.
    """
    found = existing(path)
    check = _Check(found, progress)
    splits = check.folder() if found.is_dir() else check.packed()
    check.whole(splits)
    missing = [name for name in ("train", "val") if name not in {seen.split for seen in splits}]
    if to_train and splits and missing:
        remedy = f"make splits with {split_advice(found)}"
        check.note([FileProblem(found, f"there is no split {' and no split '.join(missing)}", remedy)])
    most = [seen.most for seen in splits if seen.split == "train"]
    remarks = (SINGLE,) if most == [1] and not (check.info and check.info.flips) else ()
    return CheckReport(tuple(check.problems), tuple(seen.summary(check.info) for seen in splits), remarks)
