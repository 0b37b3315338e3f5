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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.causes import Cause, Problem, Severity, by_cause
from ambiseg.data.check_volumes import VolumesSeen
from ambiseg.data.class_flip_view import several_label_maps
from ambiseg.data.files.geometry import on_image
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import read_label_map
from ambiseg.data.files.validation import (
    FileProblem,
    channel_problem,
    mask_problems,
    weight_problems,
)
from ambiseg.data.folder import Progress, no_splits, read_channels, read_info, split_advice
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SPLITS, SplitFiles
from ambiseg.data.mask_oddities import SINGLE
from ambiseg.data.packed import PackedSplit, packed_splits
from ambiseg.data.pattern_files import PatternLayout
from ambiseg.data.patterns import FilePatterns
from ambiseg.data.seen import PalettesSeen, SplitSeen, Summary
from ambiseg.data.source import existing
from ambiseg.data.splits.leakage import shared
from ambiseg.data.standard_files import StandardFiles, standard_splits
from ambiseg.data.statistics import STRAY_REMEDY, stray_words
from ambiseg.data.volumes.grid import orientation
from ambiseg.data.volumes.settings import volume_of
from ambiseg.errors import AmbisegError, counted
from ambiseg.labels import LabelSpace

SMALLEST = 8
"""Images with a side shorter than this are warned about."""


@dataclass(frozen=True)
class CheckReport:
    """Problems of a data set, a summary of each split, advice that is no problem, and the problems by cause."""

    problems: tuple[Problem, ...]
    summaries: tuple[Summary, ...]
    remarks: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()

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
        self.layout: PatternLayout | None = None

    def note(self, found: Iterable[AmbisegError]) -> None:
        for problem in found:
            if isinstance(problem, FileProblem):
                self.problems.append(
                    Problem(problem.file, problem.problem, problem.remedy, values=problem.values)
                )
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
        names = self.info.channels if self.info else ()
        if self.info and self.info.slices and names:
            names = self.info.slices.channel_names(names, image.shape[0] // self.info.slices.planes)
        if names and len(names) != image.shape[0]:
            self.note([channel_problem(where, image.shape[0], names)])

    def folder(self) -> list[SplitSeen]:
        self.info = self.attempt(lambda: read_info(self.path))
        info = self.info or DatasetInfo()
        if info.files is not None:
            return self.located(info.files)
        for name in SPLITS:
            if (self.path / name).is_dir() and not (self.path / name / "images").is_dir():
                self.note(
                    [FileProblem(self.path / name, "there is no images folder in it", "put images there")]
                )
        volumes = info.slices is not None
        names = self.some(standard_splits(self.path))
        return [self.folder_split(name, StandardFiles(self.path, name, volumes)) for name in names]

    def located(self, files: FilePatterns) -> list[SplitSeen]:
        """The splits of data that lie elsewhere; what is wrong with all of them is noted once."""
        volumes = self.info is not None and self.info.slices is not None
        layout = self.attempt(lambda: PatternLayout(self.path, files, volumes))
        if layout is None:
            return []
        self.layout = layout
        found = {name: layout.split(name) for name in layout.splits}
        noted = dict.fromkeys(map(str, layout.problems))
        self.note(layout.problems)
        if not layout.found.images:
            return []
        self.some(list(found))
        if found:
            for stray in next(iter(found.values())).strays():
                self.warn(stray.file, stray.problem, stray.remedy)
        for some in found.values():
            some.problems = [problem for problem in some.problems if str(problem) not in noted]
            noted |= dict.fromkeys(map(str, some.problems))
        return [self.folder_split(name, some) for name, some in found.items()]

    def some(self, splits: list[str]) -> list[str]:
        """The names of the splits, of which there should be one at least."""
        if not splits:
            self.note([no_splits(self.path)])
        return splits

    def folder_split(self, split: str, files: SplitFiles) -> SplitSeen:
        seen = SplitSeen(split, str(self.path / split) if self.layout is None else f"{self.path}, {split}")
        self.note(files.problems)
        if self.info is not None and self.info.slices is not None:
            self.volumes(seen, files, VolumesSeen(files, self.info, self.path, self.note))
            return seen
        seen.ids, seen.read = tuple(files.images), lambda sample_id: read_channels(files.images[sample_id])
        bare = []
        for done, sample_id in enumerate(files.images, 1):
            if not self.folder_sample(seen, files, sample_id):
                bare.append(sample_id)
            self.tell(seen, done)
        self.note(files.without_masks(bare))
        if self.layout is None:
            self.note(files.strays())
        return seen

    def volumes(self, seen: SplitSeen, files: SplitFiles, found: VolumesSeen) -> None:
        """Read every slice of the volumes, and the images that were cut before."""
        slices = list(found.slices())
        places = {name: (case, index) for case, name, index in slices}

        def read(sample_id: str) -> NDArray[Any] | None:
            if sample_id not in places:
                return read_channels(files.images[sample_id])
            image, _ = found.read(*places[sample_id])
            return image

        seen.ids, seen.read = tuple(sorted([*places, *found.single])), read
        seen.volumes = len({*map(volume_of, found.single)} - found.cases.keys())
        for volume_id, case in found.cases.items():
            seen.volume(volume_id, orientation(case.channels[0]))
        for done, (case, name, index) in enumerate(slices, 1):
            image, masks = found.read(case, index)
            if image is not None:
                self.image(seen, name, image, str(case.channels[0].path))
            for mask in masks.values():
                seen.mask(mask)
            seen.count(len(masks))
            if index == 0 and self.info and self.info.flips and len(masks) > 1:
                self.note([several_label_maps(len(masks), str(case.channels[0].path))])
            seen.take(name, masks, self.info.labels if self.info else None)
            self.tell(seen, done)
        bare = [name for name in found.single if not self.folder_sample(seen, files, name)]
        self.note(files.without_masks(bare))
        found.finish()
        if self.layout is None:
            self.note(files.strays())

    def folder_sample(self, seen: SplitSeen, files: SplitFiles, sample_id: str) -> bool:
        """Read one image; whether it has masks, or something is in their place."""
        path = files.images[sample_id][0]
        image = self.attempt(lambda: read_channels(files.images[sample_id]))
        if image is not None:
            self.image(seen, sample_id, image, str(path))
        masks, problems = files.masks(sample_id)
        self.note(problems)
        labels = self.info.labels if self.info else None
        rules = self.info.mask_rules if self.info else MaskRules()
        read: dict[str, NDArray[np.uint8]] = {}
        for name, file in masks.items():
            found = self.attempt(partial(read_label_map, file, rules))
            mask = found.mask if found is not None else None
            if mask is not None and image is not None:
                mask = self.attempt(partial(on_image, mask, file, path))
            if found is not None and mask is not None:
                read[name] = mask
                seen.mask(mask)
                self.palettes.add(file, found.colors)
                self.note(mask_problems(mask, image.shape[1:] if image is not None else None, labels, file))
        seen.count(len(masks))
        seen.take(sample_id, read, labels)
        if self.info and self.info.flips and len(masks) > 1:
            self.note([several_label_maps(len(masks), files.masks_place(sample_id))])
        self.note(
            weight_problems(files.weights.get(sample_id, {}), tuple(masks), files.weights_file, sample_id)
        )
        return bool(masks or problems)

    def packed(self) -> list[SplitSeen]:
        names = self.attempt(lambda: packed_splits(self.path)) or ()
        sources = [self.attempt(partial(PackedSplit, self.path, name)) for name in names]
        return [self.packed_split(source) for source in sources if source is not None]

    def packed_split(self, source: PackedSplit) -> SplitSeen:
        places = {sample_id: i for i, sample_id in enumerate(source.ids)}

        def read(sample_id: str) -> NDArray[Any]:
            return source.inspect(places[sample_id])[0].image

        seen = SplitSeen(source.split, f"{self.path}, {source.split}", source.ids, read)
        self.info = source.info
        seen.volumes = len(set((source.groups or {}).values()))
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
                f"{counted(self.palettes.count, 'mask')} with a palette of many colours: the index was taken for the class",
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
        self._mixed(splits, [seen.orientations for seen in splits], "orientations of volumes", "warning")
        for one, other in combinations(splits, 2):
            self._leak(one, other)

    def _mixed(self, splits: list[SplitSeen], counts: list[Any], what: str, severity: Severity) -> None:
        places: dict[Any, str] = {}
        total: Counter[Any] = Counter()
        for seen, count in zip(splits, counts, strict=True):
            total.update(count)
            for value in count:
                places.setdefault(value, f"{seen.split}/{seen.examples[value]}")
        if len(total) > 1:
            parts = [
                f"{counted(n, 'image')} with {value}, such as {places[value]}"
                for value, n in total.most_common()
            ]
            problem = f"different {what}: {', '.join(parts)}"
            self.problems.append(Problem(str(self.path), problem, "convert all to one", severity))

    def _leak(self, one: SplitSeen, other: SplitSeen) -> None:
        place = f"{self.path}, {one.split} and {other.split}"
        common = sorted(set(one.ids) & set(other.ids))
        if common:
            names = ", ".join(common[:5])
            self.warn(place, f"{counted(len(common), 'id')} in both: {names}", "give every image its own id")
        twins = shared(one.prints, other.prints, one.read, other.read)
        if self.info is not None and self.info.slices is not None:  # slices of air are alike in all patients
            twins = [twin for twin in twins if twin.identical and not _constant(one.read(twin.one))]
        for what, some in (
            ("identical", [twin for twin in twins if twin.identical]),
            ("near-identical", [twin for twin in twins if not twin.identical]),
        ):
            if some:
                pairs = ", ".join(map(str, some[:5])) + (", ..." if len(some) > 5 else "")
                self.warn(
                    place, f"{counted(len(some), f'{what} image')}, a leak: {pairs}", "keep each in one split"
                )


def _constant(image: NDArray[Any] | None) -> bool:
    return image is None or bool((image == image[:, :1, :1]).all())


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
    remarks: tuple[str, ...] = (SINGLE,) if most == [1] and not (check.info and check.info.flips) else ()
    if check.layout is not None and check.layout.left_out:
        count = counted(len(check.layout.left_out), "image")
        remarks += (f"{count} not read, since {check.layout.files.splits} does not name them",)
    if check.layout is not None and check.layout.files.root != ".":
        remarks += (f"images and masks are read from {check.layout.base}",)
    labels = check.info.labels if check.info else LabelSpace.binary()
    causes = by_cause(check.problems, labels.names, labels.ignore_value)
    summaries = tuple(seen.summary(check.info) for seen in splits)
    return CheckReport(tuple(check.problems), summaries, remarks, tuple(causes))
