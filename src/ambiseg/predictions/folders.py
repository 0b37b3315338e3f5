"""Predictions in folders: what `ambiseg predict` writes, and a folder of masks for each image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ambiseg.data.files.limits import MAX_VALUES, check_size
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import (
    MASK_SUFFIXES,
    NIFTI_SUFFIXES,
    read_array,
    read_image,
    read_mask,
    suffix_of,
)
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.listing import read_weights, scan_folder
from ambiseg.errors import AmbisegError, counted
from ambiseg.json_files import read_json_lines
from ambiseg.labels import LabelSpace
from ambiseg.owned_files import several
from ambiseg.predictions.archives import Archive
from ambiseg.predictions.index import INDEX, id_of
from ambiseg.predictions.samples import Predictions, Samples, UnfitError, require_classes, understood
from ambiseg.predictions.volumes import read_slice_masks, slice_names, written_volume
from ambiseg.predictions.written import AGAIN, PREDICTION, WrittenPrediction, json_of, read_written

_LOSSY = (".jpg", ".jpeg")
WEIGHT_HEADER = ("id", "sample", "weight")


class PredictedFolder(Predictions):
    """What `ambiseg predict` wrote; an image is named by its file without the suffix, and slices of a volume as in data
    sets of volumes.

    Scores are read where no filter dropped masks (``--all``): else nothing is left to select.

    Raises:
        AmbisegError: two images have one name.
    """

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        self.path = path
        index = [line for line in read_json_lines(path / INDEX) if isinstance(line, dict) and "image" in line]
        names = {str(line["folder"]): id_of(line) for line in index if line.get("folder")}
        volumes = {str(line["folder"]) for line in index if line.get("slices")}
        self.folders: dict[str, Path] = {}
        self.slices: dict[str, tuple[Path, int]] = {}
        for folder, place in folders.items():
            if (place / PREDICTION).is_file():
                name = names.get(folder, folder)
                if name in self.folders:
                    raise AmbisegError(
                        f"{path} holds two predictions of an image {name!r}: predict the images of one split only"
                    )
                self.folders[name] = place
                written = written_volume(place) if folder in volumes else None
                if written is not None:
                    own = slice_names(name, written)
                    self.slices |= {one: (place, position) for position, one in enumerate(own)}
        whole = {place for place, _ in self.slices.values()}
        self.ids = (*(name for name, place in self.folders.items() if place not in whole), *self.slices)

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks that the file ``prediction.json`` names, with their probabilities and scores."""
        folder, index = self.slices.get(sample_id, (self.folders.get(sample_id), None))
        assert folder is not None
        found = read_written(folder)
        weights = np.array([mask.probability for mask in found.masks])
        scores = [None if found.filtered else mask.score for mask in found.masks]
        known = None if None in scores else np.array(scores, np.float64)
        if index is not None:
            return Samples(read_slice_masks(found, index, rules, labels), weights, None, known)
        masks = read_masks(found, rules, labels)
        probabilities = None
        if found.probabilities is not None:
            with Archive(found.probabilities) as archive:
                probabilities = archive.small("probabilities", MAX_VALUES * 4).astype(np.float32)
            wanted = (len(masks), labels.channels, *masks.shape[1:])
            if probabilities.shape != wanted:
                raise FileProblem(
                    found.probabilities, f"the array has shape {probabilities.shape}, not {wanted}", AGAIN
                )
        return Samples(masks, weights, probabilities, known)


class MaskFolders(Predictions):
    """A folder for each image, with a file for each mask. Files of other suffixes are ignored.

    Raises:
        AmbisegError: weights that cannot be read.
    """

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        self.path, self.folders, self.ids = path, dict(folders), tuple(folders)
        table, plain = path / "weights.csv", path / "weights.json"
        if table.exists() and plain.exists():
            raise AmbisegError(f"{path} holds weights.csv and weights.json: keep one of them")
        self.stated: dict[str, dict[str, float]] = {}
        self.table: Path | None = None
        self.ignored: list[str] = []
        self.unweighted: list[str] = []
        if plain.exists():
            self.table, self.stated = plain, _json_weights(plain)
        elif table.exists():
            self.table = table
            self.stated, problems = read_weights(table, path, WEIGHT_HEADER)
            if problems:
                raise _first_of(problems)

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks of the folder of an image, in the order of their names."""
        folder = self.folders[sample_id]
        files, problems = scan_folder(folder, self.path, MASK_SUFFIXES, "mask")
        others = [one for one in problems if _is_other(Path(one.file))]
        if wrong := [one for one in problems if one not in others]:
            raise wrong[0]
        if not files and any(suffix_of(Path(one.file)) in _LOSSY for one in others):
            raise UnfitError("lossy", counted(len(others), "file"))
        if not files:
            raise UnfitError("empty", str(folder))
        self.ignored += [str(Path(one.file).relative_to(self.path)) for one in others]
        masks, probabilities = [], []
        for file in files.values():
            mask, share = _read_file(file, rules, labels)
            masks.append(mask)
            probabilities.append(share)
        if any(share is not None for share in probabilities):
            probabilities = [
                _sure(mask, labels) if share is None else share
                for mask, share in zip(masks, probabilities, strict=True)
            ]
        stack, shares = _stacked(masks, folder, probabilities)
        return Samples(stack, self._weights(sample_id, tuple(files)), shares)

    def _weights(self, sample_id: str, names: tuple[str, ...]) -> NDArray[np.float64] | None:
        if self.table is None:
            return None
        stated = self.stated.get(sample_id)
        if stated is None:
            self.unweighted.append(sample_id)
            return None
        if extra := [name for name in stated if name not in names]:
            raise UnfitError("weighted masks", f"a weight for {extra[0]!r} and no mask")
        if lost := [name for name in names if name not in stated]:
            raise UnfitError("weighted masks", f"no weight for {lost[0]!r}")
        return np.array([stated[name] for name in names])

    def take_notes(self) -> dict[str, list[str]]:
        """Files that are no masks, and images without weights."""
        found = {"ignored": self.ignored, "unweighted": self.unweighted}
        self.ignored, self.unweighted = [], []
        return found

    def add_notes(self, notes: dict[str, list[str]]) -> None:
        """Add those that another reader found."""
        self.ignored += notes["ignored"]
        self.unweighted += notes["unweighted"]

    def remarks(self) -> list[str]:
        """Files that are no masks, and weights that are missing or too many."""
        found = []
        if self.ignored:
            found.append(
                f"{self.path}: {counted(len(self.ignored), 'file')} of other suffixes than masks have"
                f" ({', '.join(MASK_SUFFIXES)}) ignored, {several(self.ignored)}"
            )
        if self.unweighted:
            found.append(
                f"{self.table} names no weights of {counted(len(self.unweighted), 'image')},"
                f" {several(self.unweighted)}: their masks are equally probable"
            )
        if unknown := [name for name in self.stated if name not in self.folders]:
            found.append(
                f"{self.table} names weights of {counted(len(unknown), 'image')} without masks, ignored, {several(unknown)}"
            )
        return found


def _first_of(problems: Sequence[FileProblem]) -> FileProblem:
    """The first problem of a table, which says how many rows follow it."""
    first, more = problems[0], len(problems) - 1
    also = f", and {counted(more, 'row')} more {'is' if more == 1 else 'are'} wrong" if more else ""
    return FileProblem(first.file, first.problem + also, first.remedy)


def _is_other(path: Path) -> bool:
    """Whether a file of an image is none of its masks, such as notes beside them."""
    return suffix_of(path) not in MASK_SUFFIXES and path.is_file() and not path.is_symlink()


def labels_of(found: WrittenPrediction) -> LabelSpace:
    """Classes of a prediction by name, in the colours of its first mask; `AmbisegError` if they are none."""
    if not found.classes:
        raise FileProblem(found.folder / PREDICTION, "it does not name the classes", AGAIN)
    try:
        labels = LabelSpace(found.classes)
    except AmbisegError as error:
        raise FileProblem(found.folder / PREDICTION, str(error), AGAIN) from error
    return replace(labels, colors=_palette(found.masks[0].file, labels.classes) or labels.colors)


def _palette(mask: Path, count: int) -> tuple[tuple[int, int, int], ...]:
    """The first colours of a PNG's palette; none where it has none, or cannot be opened."""
    if suffix_of(mask) != ".png":
        return ()
    try:
        with Image.open(mask, formats=("PNG",)) as picture:
            values = picture.getpalette("RGB") or []
    except Exception:  # reading the mask says what is wrong
        return ()
    if len(values) < 3 * count:
        return ()
    return tuple((values[3 * i], values[3 * i + 1], values[3 * i + 2]) for i in range(count))


def read_masks(found: WrittenPrediction, rules: MaskRules, labels: LabelSpace) -> NDArray[np.uint8]:
    """The masks ``(K, H, W)`` that a ``prediction.json`` names; `AmbisegError` if they do not fit each other, or the
    classes, or one is gone, or if they are volumes."""
    if found.volume is not None:
        raise FileProblem(
            found.folder,
            "it is the prediction of a volume, where an image is expected",
            "read it with ambiseg.predictions.read_volume_prediction, or its NIfTI or NRRD files with any program",
        )
    for mask in found.masks:
        if not os.path.exists(mask.file):
            raise FileProblem(mask.file, "there is no such file", AGAIN)
    return _stacked([_read_file(mask.file, rules, labels)[0] for mask in found.masks], found.folder)[0]


def _read_file(
    path: Path, rules: MaskRules, labels: LabelSpace
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """One mask ``(H, W)``, and its probabilities ``(channels, H, W)`` if it holds these."""
    if suffix_of(path) == ".npy":
        numbers = read_array(path)
        if numbers.shape[2] == 1 and len(numbers) != labels.classes:
            numbers = numbers[None, ..., 0]
        masks, probabilities = understood(
            numbers if len(numbers) == 1 else numbers[None], rules, labels, str(path)
        )
        return masks[0], None if probabilities is None else probabilities[0]
    if labels.is_binary and suffix_of(path) in NIFTI_SUFFIXES:
        values = read_image(path)
        if values.dtype == np.float32 and len(values) == 1:
            masks, probabilities = understood(values, rules, labels, str(path))
            return masks[0], None if probabilities is None else probabilities[0]
    mask = read_mask(path, rules)
    require_classes(mask, labels)
    return mask, None


def _stacked(
    masks: Sequence[NDArray[np.uint8]], folder: Path, probabilities: Sequence[NDArray[np.float32] | None] = ()
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    sizes = {mask.shape for mask in masks}
    if len(sizes) > 1:
        sizes_text = " and ".join(f"{h}x{w}" for h, w in sorted(sizes)[:2])
        raise FileProblem(
            folder, f"its masks have the sizes {sizes_text}", "save them at the size of the image"
        )
    check_size(folder, (len(masks), *masks[0].shape))
    shares = [share for share in probabilities if share is not None]
    return np.stack(masks), np.stack(shares) if shares else None


def _sure(mask: NDArray[np.uint8], labels: LabelSpace) -> NDArray[np.float32]:
    """Probabilities ``(channels, H, W)`` of a label map: 0 and 1."""
    classes = np.arange(labels.classes)[-labels.channels :, None, None]
    return np.equal(mask, classes).astype(np.float32)


def _json_weights(path: Path) -> dict[str, dict[str, float]]:
    """Weights by id and sample, ``{id: {sample: weight}}``."""
    content = json_of(path)
    try:
        return {
            str(name): {str(sample): float(weight) for sample, weight in own.items()}
            for name, own in content.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise FileProblem(
            path, "it is no mapping of numbers", 'write {"id": {"sample": weight}}, the sample without suffix'
        ) from error
