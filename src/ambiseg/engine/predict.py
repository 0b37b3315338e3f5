"""Prediction: a trained run turns images into weighted mask sets, and folders of images into folders of
masks."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ambiseg.data.files.reading import IMAGE_SUFFIXES, read_affine, read_image, stem_of, suffix_of, write_mask
from ambiseg.defaults import DUPLICATE_IOU, FOREGROUND_THRESHOLD, SCORE_THRESHOLD
from ambiseg.engine.hardware import Hardware
from ambiseg.engine.probabilities import HeadProbabilities
from ambiseg.engine.run import RunConfig, load_weights, write_json
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.methods.base import Segmenter

Image = NDArray[np.generic]


@dataclass(frozen=True)
class PredictSettings:
    """What is kept of a prediction.

    Attributes:
        score_threshold: proposals with a lower selection score are dropped and leave their probability to
            those most like them; None keeps all.
        duplicate_iou: of proposals more alike than this, the best stays and takes their probability; 1 for
            identical ones, None keeps all. "auto": 1 where scores reject copies
            (`Segmenter.full_labels_reject_copies`) and low ones are dropped, else .95.
        samples: masks asked of the model; None for the method's own number.
        top: at most this many masks, the most probable ones; None for all.
        foreground_threshold: pixels with a higher probability are foreground (binary labels).
        estimate: gives the kept masks their probabilities: the method's own, class flips, or those of a flow
            model.
    """

    score_threshold: float | None = SCORE_THRESHOLD
    duplicate_iou: float | Literal["auto"] | None = "auto"
    samples: int | None = None
    top: int | None = None
    estimate: HeadProbabilities = field(default_factory=HeadProbabilities)
    foreground_threshold: float = FOREGROUND_THRESHOLD

    def resolved(self, run: Run) -> PredictSettings:
        """The same for a run, without "auto"."""
        if self.duplicate_iou != "auto":
            return self
        taught = run.model.full_labels_reject_copies and run.config.train.labels == "full"
        return replace(self, duplicate_iou=1.0 if taught and self.score_threshold else DUPLICATE_IOU)

    def record(self) -> dict[str, Any]:
        """The settings as plain values, for ``prediction.json`` and ``metrics.json``; `estimate` records
        itself."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "estimate"}

    def apply(
        self,
        predictions: MaskSet,
        images: Sequence[Image] = (),
        generator: torch.Generator | None = None,
    ) -> MaskSet:
        """Near-duplicates first, then scores: what is dropped leaves its probability to what is like it.
        Sorted by probability.

        The images are needed where probabilities are estimated anew. Settings that are not `resolved` merge
        above .95.
        """
        iou = DUPLICATE_IOU if self.duplicate_iou == "auto" else self.duplicate_iou
        if iou is not None:
            predictions = predictions.drop_near_duplicates(iou)
        if self.score_threshold is not None:
            predictions = predictions.filter_scores(self.score_threshold)
        predictions = self.estimate(images, predictions, generator)
        return predictions.sort() if self.top is None else predictions.top(self.top)


class Run:
    """A trained model with all it needs to predict: what `load` returns.

    Attributes:
        config: what the run was made of.
        model: the segmenter, in evaluation mode.
        hardware: device and number format.
        folder: where it was loaded from, if it was.
        seconds: time spent in the model since loading; with `images`, the time per image.
        images: images predicted since loading.

    Example:
        >>> run = load("runs/fires")                                                        # doctest: +SKIP
        >>> proposals = run.predict("scene.npy")                                            # doctest: +SKIP
        >>> proposals.masks.shape, proposals.weights                                        # doctest: +SKIP
    """

    def __init__(
        self, config: RunConfig, model: Segmenter, hardware: Hardware, folder: Path | None = None
    ) -> None:
        self.config, self.hardware, self.folder = config, hardware, folder
        self.model = model.eval()
        hardware.place(model)
        self.seconds, self.images = 0.0, 0

    def predict(
        self,
        image: str | Path | Image,
        settings: PredictSettings | None = None,
        generator: torch.Generator | None = None,
    ) -> MaskSet:
        """Masks with probabilities of one image, sorted by probability.

        Args:
            image: a path, or an array ``(C, H, W)`` (or ``(H, W)``) with values like those of training, not
                normalised.
            settings: filters and number of samples.
            generator: randomness of sampling methods.

        Returns:
            A `MaskSet` of one image, on the CPU.

        Raises:
            AmbisegError: an unreadable file or another number of channels.
        """
        array = read_image(image) if isinstance(image, (str, Path)) else np.asarray(image)
        return self.predict_batch([array[None] if array.ndim == 2 else array], settings, generator)

    def predict_batch(
        self,
        images: Sequence[Image],
        settings: PredictSettings | None = None,
        generator: torch.Generator | None = None,
    ) -> MaskSet:
        """Masks with probabilities of several images of one size, in one pass; raw proposals go through
        ``settings``."""
        settings = (settings or PredictSettings()).resolved(self)
        proposals = self.propose(images, settings.samples, generator, settings.foreground_threshold)
        return settings.apply(proposals, images, generator)

    @torch.no_grad()
    def propose(
        self,
        images: Sequence[Image],
        samples: int | None = None,
        generator: torch.Generator | None = None,
        foreground_threshold: float = FOREGROUND_THRESHOLD,
    ) -> MaskSet:
        """All that the model predicts for images of one size, unfiltered, on the CPU."""
        batch = torch.stack([self.config.normalization(image) for image in images])
        began = time.perf_counter()
        with self.hardware.autocast():
            predictions: MaskSet = self.model.predict(self.hardware.images(batch), samples, generator)
        predictions = predictions.to("cpu")
        if foreground_threshold != FOREGROUND_THRESHOLD:
            predictions = predictions.rethreshold(foreground_threshold)
        self.seconds += time.perf_counter() - began
        self.images += len(images)
        return predictions


def load(run: str | Path, precision: str = "auto", device: str | None = None) -> Run:
    """Load a trained run.

    Args:
        run: the run folder.
        precision: ``auto``, ``32`` or ``bf16``.
        device: ``cuda``, ``mps`` or ``cpu``; the best one there is if None.

    Raises:
        AmbisegError: not a run folder, or no weights that fit it.
    """
    config = RunConfig.load(run)
    return Run(config, load_weights(run, config), Hardware.choose(precision, device=device), Path(run))


@dataclass(frozen=True)
class FileResult:
    """What became of one image: its folder of masks, or the error.

    ``determined`` is False where its probabilities are one choice of several (`HeadProbabilities`).
    """

    path: Path
    folder: Path | None
    masks: int
    error: str | None = None
    determined: bool = True


def find_images(inputs: Iterable[str | Path]) -> list[Path]:
    """Image files named directly or lying in named folders (not deeper), in order.

    Raises:
        AmbisegError: a path that does not exist, or no image at all.
    """
    found: list[Path] = []
    for path in map(Path, inputs):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and suffix_of(p) in IMAGE_SUFFIXES)
            if not inside:
                raise AmbisegError(
                    f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)}): name a folder of images"
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise AmbisegError(f"{path} does not exist: check the path")
    if not found:
        raise AmbisegError("no image to predict: name images or a folder of them")
    return found


def predict_files(
    run: Run,
    paths: Sequence[Path],
    out: Path,
    settings: PredictSettings | None = None,
    *,
    pixel_probabilities: bool = False,
    batch_size: int = 16,
    seed: int = 0,
    overwrite: bool = False,
    picture: Callable[[Image, MaskSet, Path], None] | None = None,
) -> Iterator[FileResult]:
    """Predict image files one batch at a time, each into a folder ``out/<name>`` of its own.

    A folder holds ``mask-01.png`` ... (label maps; NIfTI for NIfTI images, with their affine),
    ``prediction.json`` with probability, score, area and file of each mask, the settings and how
    probabilities were made, and whatever ``picture`` draws. It appears when it is complete.

    Args:
        run: a loaded run.
        paths: images.
        out: folder to write to.
        settings: filters and number of samples.
        pixel_probabilities: also write ``probabilities.npz``, per-pixel probabilities before the decision.
        batch_size: images in one pass, where their sizes agree.
        seed: of sampling methods.
        overwrite: replace folders that exist.
        picture: called with image, prediction and a path to write a picture to.

    Yields:
        One `FileResult` per image; an image that cannot be read is reported and the rest goes on.

    Raises:
        AmbisegError: ``out`` holds predictions already and ``overwrite`` is False.
    """
    if out.exists() and not out.is_dir():
        raise AmbisegError(f"{out} is a file: choose another --out")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise AmbisegError(
            f"{out} exists and is not empty: choose another --out, or replace it with --overwrite"
        )
    out.mkdir(parents=True, exist_ok=True)
    settings = (settings or PredictSettings()).resolved(run)
    generator = torch.Generator(run.hardware.device).manual_seed(seed)
    names = _names(paths)
    for first in range(0, len(paths), batch_size):
        chunk = range(first, min(first + batch_size, len(paths)))
        images: dict[int, Image] = {}
        for i in chunk:
            try:
                images[i] = read_image(paths[i])
                run.config.normalization(images[i])
            except AmbisegError as error:
                images.pop(i, None)
                message = str(error)
                yield FileResult(
                    paths[i], None, 0, message if str(paths[i]) in message else f"{paths[i]}: {message}"
                )
        for shape in dict.fromkeys(image.shape for image in images.values()):
            rows = [i for i, image in images.items() if image.shape == shape]
            predictions = run.predict_batch([images[i] for i in rows], settings, generator)
            for row, i in enumerate(rows):
                one = predictions[row].compact()
                determined = settings.estimate.determined[row]
                how = {
                    "settings": settings.record(),
                    "estimate": {**settings.estimate.record(), "determined": determined},
                }
                _write_prediction(out / names[i], paths[i], images[i], one, how, pixel_probabilities, picture)
                yield FileResult(paths[i], out / names[i], int(one.count[0]), determined=determined)


def _names(paths: Sequence[Path]) -> list[str]:
    """A folder name for each image: its stem, numbered where stems repeat."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        stem = stem_of(path)
        seen[stem] = seen.get(stem, 0) + 1
        names.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return names


def _write_prediction(
    folder: Path,
    source: Path,
    image: Image,
    prediction: MaskSet,
    how: dict[str, Any],
    probabilities: bool,
    picture: Callable[[Image, MaskSet, Path], None] | None,
) -> None:
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        nifti = suffix_of(source) in (".nii", ".nii.gz")
        suffix, affine = (".nii.gz", read_affine(source)) if nifti else (".png", None)
        entries = []
        for k in range(int(prediction.count[0])):
            name = f"mask-{k + 1:02}{suffix}"
            write_mask(partial / name, prediction.masks[0, k].numpy(), affine, prediction.labels.colors)
            entries.append(_entry(prediction, k, name))
        content: dict[str, Any] = {
            "image": source.name,
            "size": list(image.shape[1:]),
            "classes": list(prediction.labels.names),
            "masks": entries,
            **how,
        }
        if probabilities and prediction.probabilities is not None:
            np.savez_compressed(
                partial / "probabilities.npz", probabilities=_numpy(prediction.probabilities[0])
            )
            content["probabilities"] = "probabilities.npz"
        if picture is not None:
            picture(image, prediction, partial / "picture.png")
            content["picture"] = "picture.png"
        write_json(partial / "prediction.json", content)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except OSError as error:
        raise AmbisegError(
            f"{folder} cannot be written ({error.strerror or error}): free space, or another --out"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _entry(prediction: MaskSet, k: int, name: str) -> dict[str, Any]:
    return {
        "file": name,
        "probability": round(float(prediction.weights[0, k]), 6),
        "score": None if prediction.scores is None else round(float(prediction.scores[0, k]), 6),
        "area": round(float(prediction.areas()[0, k]), 6),
    }


def _numpy(value: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.float().numpy()
    return array
