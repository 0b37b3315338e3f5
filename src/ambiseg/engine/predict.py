"""Prediction of files: folders of images in, folders of masks out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ambiseg import owned_files
from ambiseg.atomic_write import DiskFullError, replacing_folder, working_in
from ambiseg.data.files.reading import IMAGE_SUFFIXES, read_affine, read_image, suffix_of, write_mask
from ambiseg.engine.machine.memory import NotEnoughMemoryError
from ambiseg.engine.parallel.pieces import Engine, SharedRun, share
from ambiseg.engine.parallel.threads import Threads
from ambiseg.engine.postprocess import Image, LoadedModel, PredictSettings
from ambiseg.engine.run import Run, warn_of_range
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.predictions.index import PREDICT, PredictionIndex, folder_names, start

PATIENCE = 5.0
"""Seconds for a prediction that was killed to end, before the next one begins."""


@dataclass(frozen=True)
class FileResult:
    """What became of one image: its folder of masks, or the error.

    ``determined`` is False where its probabilities are one choice of several (`Postprocessed`); ``kept`` is True
    where an earlier call made it.
    """

    path: Path
    folder: Path | None
    masks: int
    error: str | None = None
    determined: bool = True
    kept: bool = False


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
    flow: LoadedModel | None = None,
    pixel_probabilities: bool = False,
    batch_size: int = 16,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    picture: Callable[[Image, MaskSet, Path], None] | None = None,
    overlays: Callable[[Image, MaskSet, list[Path]], None] | None = None,
    engine: Engine | Threads | None = None,
) -> Generator[FileResult, None, None]:
    """Predict image files one batch at a time, each into a folder of its own in ``out``.

    A folder holds ``mask-01.png`` ... (label maps; NIfTI for NIfTI images, with their affine),
    ``prediction.json`` with the image's path, probability, score, area and file of each mask, the settings and
    how probabilities were made, and whatever ``picture`` and ``overlays`` draw. It appears when it is complete,
    and ``predictions.jsonl`` in ``out`` names it then (`ambiseg.predictions.index`). Folders are named
    after their images (`folder_names`).

    Args:
        run: a loaded run.
        paths: images.
        out: folder to write to.
        settings: filters, probabilities and number of samples.
        flow: a run of flow-matching, where ``settings.estimate`` needs one.
        pixel_probabilities: also write ``probabilities.npz``, per-pixel probabilities before the decision.
        batch_size: images in one pass, where their sizes agree.
        seed: of sampling methods; each batch has random numbers of its own, so that going on gives what an
            uninterrupted prediction gives.
        overwrite: remove earlier predictions first.
        resume: keep earlier predictions and go on with the rest.
        picture: called with image, prediction and a path to write a picture to; in threads, several at a time.
        overlays: called with image, prediction and a path for each mask, to write a picture of each to; in threads.
        engine: where batches are predicted; in this process, with threads that read and write, if None. The files are
            the same.

    Yields:
        One `FileResult` per image; an image that cannot be read, that is too large for the memory, or whose
        prediction cannot be written, is reported and the rest goes on.

    Raises:
        AmbisegError: ``out`` holds predictions already and neither ``overwrite`` nor ``resume`` is given, or
            it was not made by `predict_files`; the disk is full.
    """
    paths = list(dict.fromkeys(paths))
    settings = (settings or PredictSettings()).for_run(run)
    start(out, paths, overwrite, resume)
    names, remarks = folder_names(paths), list[str]()
    recipe = recipe_of(run, settings, flow, seed) | {"batch size": batch_size}
    with open_index(out, recipe, overwrite) as index:
        new = (name for name in names if not (out / name).exists())
        owned_files.add(out, [f"{name}/" for name in new])

        def batches() -> Iterator[_Batch]:
            for first in range(0, len(paths), batch_size):
                chunk = range(first, min(first + batch_size, len(paths)))
                done = [index.done(paths[i], names[i]) for i in chunk]
                yield _Batch(first, [paths[i] for i in chunk], [out / names[i] for i in chunk], done)

        def record(found: _Found) -> None:
            place, result, _ = found
            if result.folder is None:
                index.add(result.path, None, error=result.error)
            elif not result.kept:
                index.add(result.path, names[place], masks=result.masks, determined=result.determined)

        def keep(found: _Found) -> None:
            with suppress(
                OSError
            ):  # such as a full disk, whose error ended the work: the image is predicted again
                record(found)

        job = _Job(SharedRun(run), share(flow), settings, seed, pixel_probabilities, picture, overlays)
        with closing((engine or Threads()).map(job, batches(), keep)) as results:
            for found in results:
                record(found)
                remarks += [found[2]] if found[2] else []
                yield found[1]
    warn_of_range(remarks, len(paths))


def recipe_of(run: Run, settings: PredictSettings, flow: LoadedModel | None, seed: int) -> dict[str, Any]:
    """What predictions depend on: going on with others is refused."""
    return {
        "run": run.digest(),
        "settings": settings.record(),
        "estimate": settings.estimate.record(flow),
        "seed": seed,
    }


@contextmanager
def open_index(out: Path, recipe: dict[str, Any], overwrite: bool) -> Iterator[PredictionIndex]:
    """The index of the folder ``out``, in which no other process works meanwhile.

    Raises:
        AmbisegError: another process works there, or what is there was predicted otherwise.
    """
    with working_in(out, "the folder", wait=PATIENCE):
        if overwrite:
            owned_files.remove(out, keep_folder=True)
            owned_files.begin(out, PREDICT)
        index = PredictionIndex(out)
        index.begin(recipe)
        yield index


@dataclass(frozen=True)
class _Batch:
    """Images that are predicted together, their folders, and what the index says of those that are done."""

    first: int
    paths: list[Path]
    folders: list[Path]
    done: list[dict[str, Any] | None]


_Found = tuple[int, FileResult, str]
"""The place of an image among all, its result, and a remark on its values, empty if there is none."""


@dataclass(frozen=True)
class _Images:
    """The images of a batch, by their places in it, with remarks and errors."""

    batch: _Batch
    images: dict[int, Image] = field(default_factory=dict)
    remarks: dict[int, str] = field(default_factory=dict)
    errors: dict[int, AmbisegError] = field(default_factory=dict)

    def found(self, i: int, result: FileResult) -> _Found:
        """The result of the image at a place of the batch."""
        remark = self.remarks.get(i)
        return self.batch.first + i, result, f"{result.path}: {remark}" if remark else ""


@dataclass(frozen=True)
class _Prediction:
    """What is written of an image."""

    images: _Images
    place: int
    masks: MaskSet
    determined: bool


@dataclass(frozen=True)
class _Job:
    """What is done with each batch (`ambiseg.engine.parallel.threads.Stages`)."""

    run: SharedRun
    flow: SharedRun | None
    settings: PredictSettings
    seed: int
    pixel_probabilities: bool
    picture: Callable[[Image, MaskSet, Path], None] | None
    overlays: Callable[[Image, MaskSet, list[Path]], None] | None

    def __call__(self, batch: _Batch) -> Iterator[_Found]:
        """Predict and write the images of a batch that are not done."""
        for item in self.compute(self.read(batch)):
            yield self.write(item)

    def read(self, batch: _Batch) -> _Images:
        """The images of a batch. Those that are done are predicted beside the others: random numbers are those of the whole
        batch."""
        found = _Images(batch)
        for i, path in enumerate(batch.paths if None in batch.done else ()):
            try:
                image = read_image(path)
                found.remarks[i] = self.run.run.difference(image)
                found.images[i] = image
            except AmbisegError as error:
                found.errors[i] = error
        return found

    def compute(self, content: _Images) -> Iterator[_Found | _Prediction]:
        """Results that are known, and the predictions of the other images of a batch."""
        batch, images = content.batch, content.images
        for i, entry in enumerate(batch.done):
            if entry is not None:
                count, determined = int(entry["masks"]), bool(entry["determined"])
                result = FileResult(batch.paths[i], batch.folders[i], count, None, determined, True)
                yield batch.first + i, result, ""
        for i, error in content.errors.items():
            if batch.done[i] is None:
                yield batch.first + i, _failed(batch.paths[i], error), ""
        run, flow = self.run.run, None if self.flow is None else self.flow.run
        generator = torch.Generator(run.hardware.device).manual_seed(_mixed(self.seed, batch.first))
        for shape in dict.fromkeys(image.shape for image in images.values()):
            rows = [i for i, image in images.items() if image.shape == shape]
            new = [i for i in rows if batch.done[i] is None]
            try:
                found = run.predict_batch([images[i] for i in rows], self.settings, generator, flow)
            except NotEnoughMemoryError as problem:
                yield from ((batch.first + i, _failed(batch.paths[i], problem), "") for i in new)
                continue
            masks = found.masks if self._uses_probabilities else replace(found.masks, probabilities=None)
            for i in new:
                row = rows.index(i)
                yield _Prediction(content, i, masks[row].compact(), found.determined[row])

    @property
    def _uses_probabilities(self) -> bool:
        return self.pixel_probabilities or self.picture is not None or self.overlays is not None

    def write(self, item: _Found | _Prediction) -> _Found:
        """Write a prediction; a result that is known stays."""
        if not isinstance(item, _Prediction):
            return item
        batch, i = item.images.batch, item.place
        flow = None if self.flow is None else self.flow.run
        how = {
            "settings": self.settings.record(),
            "estimate": {**self.settings.estimate.record(flow), "determined": item.determined},
        }
        path, image = batch.paths[i], item.images.images[i]
        try:
            with replacing_folder(batch.folders[i], True, PREDICT, durable=False) as partial:
                _write_prediction(
                    *(partial, path, image, item.masks, how),
                    *(self.pixel_probabilities, self.picture, self.overlays),
                    self.run.run.model.annotators,
                )
        except DiskFullError:
            raise
        except AmbisegError as error:
            return item.images.found(i, _failed(path, error))
        result = FileResult(path, batch.folders[i], int(item.masks.count[0]), determined=item.determined)
        return item.images.found(i, result)


def _failed(path: Path, error: AmbisegError) -> FileResult:
    return FileResult(path, None, 0, str(error) if str(path) in str(error) else f"{path}: {error}")


def failed(index: PredictionIndex, path: Path, error: AmbisegError) -> FileResult:
    """The result of an image with an error, which the index takes."""
    result = _failed(path, error)
    index.add(path, None, error=result.error)
    return result


def _mixed(seed: int, batch: int) -> int:
    """A seed for a batch: others give other random numbers."""
    return int.from_bytes(hashlib.sha256(f"{seed}, {batch}".encode()).digest()[:8]) >> 1


def _write_prediction(
    partial: Path,
    source: Path,
    image: Image,
    prediction: MaskSet,
    how: dict[str, Any],
    probabilities: bool,
    picture: Callable[[Image, MaskSet, Path], None] | None,
    overlays: Callable[[Image, MaskSet, list[Path]], None] | None,
    annotators: Sequence[str],
) -> None:
    nifti = suffix_of(source) in (".nii", ".nii.gz")
    suffix, affine = (".nii.gz", read_affine(source)) if nifti else (".png", None)
    names = [f"mask-{k + 1:02}{suffix}" for k in range(int(prediction.count[0]))]
    for name, mask in zip(names, prediction.masks[0].numpy(), strict=False):
        write_mask(partial / name, mask, affine, prediction.labels.colors)
    entries = mask_entries(prediction, names, annotators)
    content: dict[str, Any] = {
        "image": source.name,
        "path": str(source),
        "size": list(image.shape[1:]),
        "classes": list(prediction.labels.names),
        "masks": entries,
        **how,
    }
    if probabilities and prediction.probabilities is not None:
        np.savez_compressed(partial / "probabilities.npz", probabilities=_numpy(prediction.probabilities[0]))
        content["probabilities"] = "probabilities.npz"
    if overlays is not None:
        names = [f"overlay-{k + 1:02}.jpg" for k in range(len(entries))]
        overlays(image, prediction, [partial / name for name in names])
        for entry, name in zip(entries, names, strict=True):
            entry["overlay"] = name
    if picture is not None:
        picture(image, prediction, partial / "picture.png")
        content["picture"] = "picture.png"
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    (partial / "prediction.json").write_text(text, encoding="utf-8")


def mask_entries(
    prediction: MaskSet, names: Sequence[str], annotators: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """What ``prediction.json`` says of the masks of one image, in files of these names, and in whose style they are,
    where the model tells annotators apart."""
    areas, scores, styles = prediction.areas(), prediction.scores, prediction.annotators
    return [
        {
            "file": name,
            "probability": _shortest(prediction.weights[0, k]),
            "score": None if scores is None else _shortest(scores[0, k]),
            "area": round(float(areas[0, k]), 6),
        }
        | ({} if styles is None or not annotators else {"annotator": annotators[int(styles[0, k])]})
        for k, name in enumerate(names)
    ]


def _shortest(value: Tensor) -> float:
    """A number of 32 bits in the fewest digits that are read back as the same one."""
    return float(str(value.float().numpy()))


def _numpy(value: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.float().numpy()
    return array
