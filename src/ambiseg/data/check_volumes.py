"""The check of a split whose images are volumes: each volume and mask once, then every slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.validation import FileProblem, mask_problems, weight_problems
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SplitFiles
from ambiseg.data.volumes.cases import Case, holds_volume
from ambiseg.errors import AmbisegError

Note = Callable[[list[AmbisegError]], None]
_Read = TypeVar("_Read")


class VolumesSeen:
    """The volumes of one split while they are checked.

    Args:
        files: of the split.
        info: of the data set, with ``slices``.
        home: its folder.
        note: takes what is wrong.

    Attributes:
        cases: those that can be opened, by their ids; masks that cannot are left out.
        without_masks: ids of images that have none.
        single: ids of images that are no volumes.
    """

    def __init__(self, files: SplitFiles, info: DatasetInfo, home: Path, note: Note) -> None:
        self.files, self.info, self.home, self.note = files, info, home, note
        self.cases: dict[str, Case] = {}
        self.without_masks: list[str] = []
        self._broken: set[str] = set()
        self._wrong: dict[str, FileProblem] = {}
        self.single: list[str] = []
        for image_id, paths in files.images.items():
            if holds_volume(paths[0]):
                self._open(image_id, paths)
            else:
                self.single.append(image_id)

    def _open(self, image_id: str, paths: tuple[Path, ...]) -> None:
        masks, problems = self.files.masks(image_id)
        self.note([*problems])
        if not masks and not problems:
            self.without_masks.append(image_id)
        stated = self.files.weights.get(image_id, {})
        self.note([*weight_problems(stated, tuple(masks), self.files.weights_file, image_id)])
        case = self._attempt(partial(Case.open, image_id, paths, masks, self.info, self.home))
        if case is None:
            return
        whole = {name: path for name, path in masks.items() if self._attempt(partial(case.placed, name))}
        self.cases[image_id] = Case(image_id, case.channels, whole, self.info, case.slices)

    def slices(self) -> Iterator[tuple[Case, str, int]]:
        """All slices that training would read."""
        for case in self.cases.values():
            for name, index in (self._attempt(case.ids) or {}).items():
                yield case, name, index

    def read(self, case: Case, index: int) -> tuple[NDArray[Any] | None, dict[str, NDArray[np.uint8]]]:
        """Image and masks of a slice, as far as they can be read; a damaged file is not read again."""
        image = None if case.id in self._broken else self._attempt(partial(case.image, index), case.id)
        found = {}
        for name, path in case.masks.items():
            if str(path) in self._broken:
                continue
            mask = self._attempt(partial(case.mask, name, index), str(path))
            if mask is not None:
                found[name] = mask
                self._take(mask_problems(mask, None, self.info.labels, path))
        return image, found

    def finish(self) -> None:
        """Note what is wrong with the numbers of masks, once for each of them, and images without masks."""
        self.note([*self._wrong.values()])
        self.note([*self.files.without_masks(self.without_masks)])

    def _take(self, problems: list[FileProblem]) -> None:
        for problem in problems:
            known = self._wrong.setdefault(problem.file, problem)
            known.values = tuple(sorted({*known.values, *problem.values}))

    def _attempt(self, read: Callable[[], _Read], what: str = "") -> _Read | None:
        """The value of ``read``; None after noting why there is none, and that ``what`` is broken."""
        try:
            return read()
        except AmbisegError as error:
            self.note([error])
            self._broken.add(what)
            return None
