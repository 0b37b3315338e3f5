"""Images to look at: predictions, a split of annotated images, both, or what a run predicts for a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.batches import annotations_of
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import read_image
from ambiseg.data.listing import stays_inside
from ambiseg.data.source import list_splits
from ambiseg.data.split import Split
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.slices import read_slice
from ambiseg.data.volumes.volume import open_volume
from ambiseg.errors import AmbisegError
from ambiseg.exchange.images import predicted_folders
from ambiseg.json_files import read_json_lines
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.predictions import (
    Predictions,
    Samples,
    WrittenPrediction,
    labels_of,
    read_masks,
    read_slice_masks,
    read_written,
    slice_names,
    written_volume,
)
from ambiseg.predictions.index import INDEX, id_of
from ambiseg.predictions.written import PREDICTION


@dataclass(frozen=True)
class Case:
    """One image to look at.

    Attributes:
        image: ``(C, H, W)``, None where it cannot be read.
        predictions: ``(1, M, H, W)``, None where there are none.
        annotations: ``(1, N, H, W)``, None where there are none.
        annotators: ``N`` names.
        remark: what a reader should know, such as why the image is not shown.
    """

    image: NDArray[np.generic] | None
    predictions: MaskSet | None = None
    annotations: MaskSet | None = None
    annotators: tuple[str, ...] = ()
    remark: str = ""


class Gallery(ABC):
    """Images that are read one at a time.

    Attributes:
        title: what they are.
        names: of the images; they may be anything.
        channels: names of the channels of the images.
        inputs: what is read.
    """

    title: str
    names: tuple[str, ...]
    channels: tuple[str, ...] = ()
    inputs: tuple[Path, ...]

    @abstractmethod
    def read(self, index: int) -> Case:
        """Read one image; `AmbisegError` if its files are wrong."""
        ...


def is_predicted(path: Path) -> bool:
    """Whether a folder was written by `ambiseg predict`, or is that of a single image."""
    return path.is_dir() and (
        (path / PREDICTION).is_file()
        or (path / INDEX).is_file()
        or any((one / PREDICTION).is_file() for one in path.iterdir())
    )


class PredictedGallery(Gallery):
    """What `ambiseg predict` wrote.

    Args:
        path: the folder.
        images: folder of the images; if None they are read from where they were predicted.

    Raises:
        AmbisegError: it holds no prediction.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        if images is not None and not images.is_dir():
            raise AmbisegError(f"--images {images} is no folder: name the folder of the images")
        lines = [line for line in read_json_lines(path / INDEX) if isinstance(line, dict) and "image" in line]
        order = {str(line["folder"]): id_of(line) for line in lines if line.get("folder")}
        found = {one.name: one for one in predicted_folders(path)}
        ranked = [name for name in order if name in found] + [name for name in found if name not in order]
        self.places: list[tuple[Path, int | None]] = []
        names: list[str] = []
        for name in ranked:
            title, volume = order.get(name, name), written_volume(found[name])
            own = [title] if volume is None else slice_names(title, volume)
            self.places += [(found[name], None if volume is None else index) for index in range(len(own))]
            names += own
        self.names = tuple(names)
        self.title, self.images = path.resolve().name, images
        self.inputs = (path,) if images is None else (path, images)

    def read(self, index: int) -> Case:
        """The masks of an image, on the image if that is there."""
        folder, place = self.places[index]
        written = read_written(folder)
        labels = labels_of(written)
        weights = np.array([mask.probability for mask in written.masks])
        scores = [mask.score for mask in written.masks]
        known = None if None in scores else np.array(scores, np.float64)
        rules = MaskRules.of(labels)
        masks = (
            read_masks(written, rules, labels)
            if place is None
            else read_slice_masks(written, place, rules, labels)
        )
        predictions = _as_set(Samples(masks, weights, None, known), labels, str(written.folder))
        try:
            image = self._image(written, place)
            check_size(predictions, image)
        except AmbisegError as error:
            moved = self.images is None and not Path(written.path).exists()
            hint = "; --images FOLDER names where the images lie now" if moved else ""
            return Case(None, predictions, remark=f"The image is not shown: {error}{hint}")
        return Case(image, predictions)

    def _image(self, written: WrittenPrediction, index: int | None) -> NDArray[np.generic]:
        place = Path(written.path)
        if self.images is not None:
            place = self.images / written.image
            if Path(written.image).name != written.image or not stays_inside(place, self.images):
                raise AmbisegError(f"its name {written.image!r} leads out of {self.images}")
        if written.volume is None or index is None:
            return read_image(place)
        volume, axis = open_volume(place), written.volume.axis
        if volume.shape[volume.axis(axis)] != written.volume.slices:
            raise AmbisegError(f"{place} has other slices than its prediction: predict it again")
        return read_slice(volume, SliceSettings(axis), index)


class SplitGallery(Gallery):
    """The annotated images of a split, alone or beside the predictions of any program.

    Args:
        split: the images.
        title: what they are.
        inputs: what is read.
        predictions: of some or all of the images; only images with predictions are shown then.

    Raises:
        AmbisegError: no image to show.
    """

    def __init__(
        self, split: Split, title: str, inputs: Sequence[Path], predictions: Predictions | None = None
    ) -> None:
        own = None if predictions is None else set(predictions.ids)
        self.rows = [i for i, name in enumerate(split.ids) if own is None or name in own]
        if not self.rows:
            reason = "no prediction is of an image of it" if split.ids else "it holds no image"
            raise AmbisegError(f"{title}: {reason}; name another split (--split)")
        self.split, self.predictions, self.title = split, predictions, title
        self.names = tuple(split.ids[i] for i in self.rows)
        self.channels, self.inputs = split.info.channels, tuple(inputs)

    def read(self, index: int) -> Case:
        """An image with its annotations, and its predictions if there are any."""
        sample = self.split[self.rows[index]]
        labels = self.split.info.labels
        annotations, predictions = annotations_of(sample, labels), None
        if self.predictions is not None:
            samples = self.predictions.read(sample.id, self.split.info.mask_rules, labels)
            predictions = _as_set(samples, labels, f"{self.predictions.path}, image {sample.id!r}")
            check_size(predictions, sample.image)
        return Case(sample.image, predictions, annotations, sample.annotators)


def chosen_split(data: Path, wanted: str = "") -> str:
    """The split to show: the one that was asked for, else ``test``, else ``val``, else the first.

    Raises:
        AmbisegError: there is no data set, or it has no split.
    """
    names = list_splits(data)
    if not wanted and not names:
        raise AmbisegError(f"{data} holds no split: name a data set, a run or a folder of predictions")
    return wanted or next((name for name in ("test", "val") if name in names), names[0])


def check_size(masks: MaskSet, image: NDArray[np.generic]) -> None:
    """Raise `AmbisegError` where masks do not have the size of their image."""
    ours, theirs = tuple(masks.masks.shape[2:]), image.shape[1:]
    if ours != theirs:
        raise AmbisegError(
            f"its masks have {ours[0]}x{ours[1]} pixels, the image has {theirs[0]}x{theirs[1]}: predict it again"
        )


def _as_set(samples: Samples, labels: LabelSpace, where: str) -> MaskSet:
    try:
        return samples.as_set(labels).sort()
    except AmbisegError as error:
        raise AmbisegError(f"{where}: the weights are no probabilities ({error})") from error
