"""Images with their hypotheses, one at a time: predictions in a folder, or the annotations of a split."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import IMAGE_SUFFIXES, read_affine, read_image, stem_of, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.folder import FolderSplit, folder_splits
from ambiseg.data.packed import PACKED_SUFFIXES
from ambiseg.data.split import Split
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.predictions import UnfitError, WrittenPrediction, labels_of, read_masks, read_written
from ambiseg.predictions.samples import TOLERANCE
from ambiseg.predictions.written import AGAIN, PREDICTION


@dataclass(frozen=True)
class Hypotheses:
    """One image with its masks: what a model predicts, or what annotators drew.

    Attributes:
        name: unique among the images, and the name of a file.
        image: name of the image's file; texts of strangers.
        path: where the image lies, as far as is known; it may be gone.
        masks: ``(K, H, W)`` uint8 label maps.
        probabilities: ``K`` numbers.
        annotators: ``K`` names: the annotators, or the stems of the files of predicted masks.
        scores: ``K`` numbers, None where a method has none.
        affine: ``(4, 4)`` voxel-to-world matrix, None where nothing tells it.
        pixels: the image ``(C, H, W)`` where it is at hand; see `read_pixels`.

    Example:
        >>> masks = np.zeros((2, 3, 4), np.uint8)
        >>> one = Hypotheses("a", "a.png", None, masks, (0.7, 0.3), ("mask-01", "mask-02"))
        >>> one.size
        (3, 4)
    """

    name: str
    image: str
    path: Path | None
    masks: NDArray[np.uint8]
    probabilities: tuple[float, ...]
    annotators: tuple[str, ...]
    scores: tuple[float | None, ...] = ()
    affine: NDArray[np.float64] | None = None
    pixels: NDArray[Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.masks.shape[1:]
        return int(height), int(width)

    @property
    def file(self) -> Path | None:
        """The image's file if it is there."""
        return self.path if self.path is not None and os.path.isfile(self.path) else None

    def facts(self, k: int) -> dict[str, Any]:
        """Number from 1, annotator and probability of a mask, and its score (``mask_score``) if it has one:
        other programs take ``score`` for the probability."""
        score = self.scores[k] if self.scores else None
        return {
            "hypothesis": k + 1,
            "annotator": self.annotators[k],
            "probability": self.probabilities[k],
            **({} if score is None else {"mask_score": score}),
        }

    def read_pixels(self) -> NDArray[Any] | None:
        """The image ``(C, H, W)``; None where its file is gone.

        Raises:
            AmbisegError: it cannot be read, or has another size than the masks.
        """
        if self.pixels is not None:
            return self.pixels
        if self.file is None:
            return None
        pixels = read_image(self.file)
        check_size_of(self, self.file, pixels.shape[1:])
        return pixels


def check_size_of(one: Hypotheses, path: Path, size: tuple[int, ...]) -> None:
    """Raise `AmbisegError` if the image has another size than its masks."""
    if tuple(size) != one.size:
        raise FileProblem(
            path,
            f"the image is {size[0]} high, {size[1]} wide, but its masks {one.size[0]} x {one.size[1]}",
            "name the images that were predicted (--images)",
        )


class Images(Protocol):
    """Images of which each pass reads one at a time.

    Attributes:
        place: where they lie, for messages.
        inputs: files and folders that are read.
        labels: their classes.
    """

    place: Path
    inputs: tuple[Path, ...]
    labels: LabelSpace

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Hypotheses]: ...


class PredictedImages(Images):
    """What `ambiseg predict` wrote: its folder, or the folder of a single image.

    Args:
        folder: as `ambiseg predict --out`.
        images: folder of the images, where they are no longer at the paths of the predictions.

    Raises:
        AmbisegError: no such folder, nothing predicted in it, or a damaged file.
    """

    def __init__(self, folder: str | Path, images: str | Path | None = None) -> None:
        self.place, self.images = Path(folder), _existing(images)
        self.inputs = (self.place,) if self.images is None else (self.place, self.images)
        self.folders = predicted_folders(self.place)
        self.labels = labels_of(read_written(self.folders[0]))

    def __len__(self) -> int:
        return len(self.folders)

    def __iter__(self) -> Iterator[Hypotheses]:
        for folder in self.folders:
            found = read_written(folder)
            labels = labels_of(found)
            if labels.names != self.labels.names:
                ours, first = list(labels.names), list(self.labels.names)
                raise FileProblem(
                    folder / PREDICTION,
                    f"its classes are {ours}, those of the first image {first}",
                    "convert the predictions of each run on their own",
                )
            yield self._one(found, labels)

    def _one(self, found: WrittenPrediction, labels: LabelSpace) -> Hypotheses:
        try:
            masks = read_masks(found, MaskRules.of(labels), labels)
        except UnfitError as error:
            raise FileProblem(found.folder, str(error), AGAIN) from error
        probabilities = tuple(mask.probability for mask in found.masks)
        if (least := min(probabilities)) < 0:
            raise FileProblem(found.folder / PREDICTION, f"it states the probability {least}", AGAIN)
        if abs((total := sum(probabilities)) - 1) > TOLERANCE:
            raise FileProblem(
                found.folder / PREDICTION,
                f"its probabilities have the sum {total:.6g}, not 1",
                f"divide them by their sum, or {AGAIN}",
            )
        return Hypotheses(
            self.place.resolve().name if found.folder == self.place else found.folder.name,
            found.image,
            self._path(found),
            masks,
            probabilities,
            tuple(stem_of(mask.file) for mask in found.masks),
            tuple(mask.score for mask in found.masks),
            read_affine(found.masks[0].file),
        )

    def _path(self, found: WrittenPrediction) -> Path | None:
        if self.images is not None:
            return self.images / found.image if Path(found.image).name == found.image else None
        return Path(found.path) if found.path else None


def _existing(folder: str | Path | None) -> Path | None:
    if folder is not None and not Path(folder).is_dir():
        raise AmbisegError(f"{folder} is no folder of images: correct the path (--images)")
    return None if folder is None else Path(folder)


def predicted_folders(place: Path) -> list[Path]:
    """The folders of images in a folder of `ambiseg predict`, or that folder itself if it is one.

    Raises:
        AmbisegError: there are none.
    """
    if not place.is_dir():
        raise AmbisegError(f"{place} is no folder of predictions: {_remedy(place)}")
    if (place / PREDICTION).is_file():
        return [place]
    inside = sorted(one for one in place.iterdir() if not one.name.startswith("."))
    found = [one for one in inside if (one / PREDICTION).is_file()]
    if not found:
        raise AmbisegError(f"{place} holds no prediction: {_remedy(place)}")
    return found


def _remedy(place: Path) -> str:
    is_data = folder_splits(place) if place.is_dir() else suffix_of(place) in PACKED_SUFFIXES
    return f"for a data set, give --data {place}" if is_data else "name what 'ambiseg predict --out' wrote"


class AnnotatedImages(Images):
    """The annotations of a split, each with its weight as probability and its annotator's name.

    Args:
        place: the data set, for messages.
        split: as `ambiseg.open_split` gives it.
        images: folder of the images, of a packed data set.
    """

    def __init__(self, place: str | Path, split: Split, images: str | Path | None = None) -> None:
        self.place, self.split, self.images = Path(place), split, _existing(images)
        self.inputs = (self.place,) if self.images is None else (self.place, self.images)
        self.files: dict[str, Path] = {}
        if self.images is not None:
            inside = sorted(self.images.iterdir(), reverse=True)
            self.files = {stem_of(one): one for one in inside if suffix_of(one) in IMAGE_SUFFIXES}
        self.labels = split.info.labels
        if not len(split):
            raise AmbisegError(f"{self.place} has no image in this split: name another one (--split)")

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[Hypotheses]:
        for sample in self.split:
            path = self._path(sample.id)
            yield Hypotheses(
                sample.id,
                sample.id if path is None else path.name,
                path,
                sample.masks,
                tuple(float(weight) for weight in sample.weights),
                sample.annotators,
                affine=None if path is None else read_affine(path),
                pixels=sample.image,
            )

    def _path(self, sample_id: str) -> Path | None:
        if self.images is not None:
            return self.files.get(sample_id)
        stored = self.split.stored
        return stored.image_path(sample_id) if isinstance(stored, FolderSplit) else None
