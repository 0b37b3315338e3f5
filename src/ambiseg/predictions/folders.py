"""Predictions in folders: what `ambiseg predict` writes, and a folder of masks for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.limits import MAX_VALUES, check_size
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import (
    MASK_SUFFIXES,
    NIFTI_SUFFIXES,
    read_image,
    read_mask,
    stem_of,
    suffix_of,
)
from ambiseg.data.files.validation import FileProblem, mask_problems, weight_problems
from ambiseg.data.folder import read_weights, scan_folder
from ambiseg.errors import AmbisegError
from ambiseg.json_files import read_json_lines
from ambiseg.labels import LabelSpace
from ambiseg.predictions.archives import Archive
from ambiseg.predictions.index import INDEX
from ambiseg.predictions.samples import Predictions, Samples, UnfitError, understood
from ambiseg.predictions.written import AGAIN, PREDICTION, WrittenPrediction, json_of, read_written

WEIGHT_HEADER = ("id", "sample", "weight")


class PredictedFolder(Predictions):
    """What `ambiseg predict` wrote; an image is named by its file without the suffix.

    Scores are read where no filter dropped masks (``--all``): else nothing is left to select.

    Raises:
        AmbisegError: two images have one name.
    """

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        self.path = path
        index = [line for line in read_json_lines(path / INDEX) if isinstance(line, dict) and "image" in line]
        names = {str(line["folder"]): stem_of(str(line["image"])) for line in index if line.get("folder")}
        self.folders: dict[str, Path] = {}
        for folder, place in folders.items():
            if (place / PREDICTION).is_file():
                name = names.get(folder, folder)
                if name in self.folders:
                    raise AmbisegError(
                        f"{path} holds two predictions of an image {name!r}: predict the images of one split only"
                    )
                self.folders[name] = place
        self.ids = tuple(self.folders)

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks that the file ``prediction.json`` names, with their probabilities and scores."""
        folder = self.folders[sample_id]
        found = read_written(folder)
        weights = np.array([mask.probability for mask in found.masks])
        scores = [None if found.filtered else mask.score for mask in found.masks]
        known = None if None in scores else np.array(scores, np.float64)
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
    """A folder for each image, with a file for each mask.

    Raises:
        AmbisegError: weights that cannot be read.
    """

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        self.path, self.folders, self.ids = path, dict(folders), tuple(folders)
        table, plain = path / "weights.csv", path / "weights.json"
        if table.exists() and plain.exists():
            raise AmbisegError(f"{path} holds weights.csv and weights.json: keep one of them")
        self.stated, self.table = {}, table
        if plain.exists():
            self.stated, self.table = _json_weights(plain), plain
        elif table.exists():
            self.stated, problems = read_weights(table, path, WEIGHT_HEADER)
            if problems:
                raise problems[0]

    def read(self, sample_id: str, rules: MaskRules, labels: LabelSpace) -> Samples:
        """The masks of the folder of an image, in the order of their names."""
        folder = self.folders[sample_id]
        files, problems = scan_folder(folder, self.path, MASK_SUFFIXES, "mask")
        if problems:
            raise problems[0]
        if not files:
            raise FileProblem(folder, "the folder holds no mask", "add masks, or remove the folder")
        masks, probabilities = [], []
        for file in files.values():
            mask, share = _read_file(file, rules, labels)
            masks.append(mask)
            probabilities.append(share)
        stack, shares = _stacked(masks, folder, probabilities)
        return Samples(stack, self._weights(sample_id, tuple(files)), shares)

    def _weights(self, sample_id: str, names: tuple[str, ...]) -> NDArray[np.float64] | None:
        stated = self.stated.get(sample_id)
        if stated is None:
            return None
        for problem in weight_problems(stated, names, self.table, sample_id):
            if "sum to" not in problem.problem:
                raise UnfitError("weights", problem.problem)
        return np.array([stated[name] for name in names])


def read_masks(found: WrittenPrediction, rules: MaskRules, labels: LabelSpace) -> NDArray[np.uint8]:
    """The masks ``(K, H, W)`` that a ``prediction.json`` names; `AmbisegError` if they do not fit each other, or the
    classes."""
    return _stacked([_read_file(mask.file, rules, labels)[0] for mask in found.masks], found.folder)[0]


def _read_file(
    path: Path, rules: MaskRules, labels: LabelSpace
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """One mask ``(H, W)``, and its probabilities ``(1, H, W)`` if it holds fractions."""
    if labels.is_binary and suffix_of(path) in (".npy", *NIFTI_SUFFIXES):
        values = read_image(path)
        if values.dtype == np.float32 and len(values) == 1:
            masks, probabilities = understood(values, rules, labels, str(path))
            return masks[0], None if probabilities is None else probabilities[0]
    mask = read_mask(path, rules)
    if problems := mask_problems(mask, None, labels, path):
        raise UnfitError("classes", problems[0].problem)
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
    if all(share is None for share in probabilities):
        return np.stack(masks), None
    shares = [
        mask[None].astype(np.float32) if share is None else share
        for mask, share in zip(masks, probabilities, strict=True)
    ]
    return np.stack(masks), np.stack(shares)


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
