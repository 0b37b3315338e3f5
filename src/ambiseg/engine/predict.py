"""Prediction of files: folders of images in, folders of masks out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ambiseg.data.files.reading import IMAGE_SUFFIXES, read_affine, read_image, stem_of, suffix_of, write_mask
from ambiseg.engine.postprocess import Image, LoadedModel, PredictSettings
from ambiseg.engine.run import Run
from ambiseg.engine.run_folder import write_json
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet


@dataclass(frozen=True)
class FileResult:
    """What became of one image: its folder of masks, or the error.

    ``determined`` is False where its probabilities are one choice of several (`Postprocessed`).
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
    flow: LoadedModel | None = None,
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
        settings: filters, probabilities and number of samples.
        flow: a run of flow-matching, where ``settings.estimate`` needs one.
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
    settings = (settings or PredictSettings()).for_run(run)
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
            found = run.predict_batch([images[i] for i in rows], settings, generator, flow)
            for row, i in enumerate(rows):
                one, determined = found.masks[row].compact(), found.determined[row]
                how = {
                    "settings": settings.record(),
                    "estimate": {**settings.estimate.record(flow), "determined": determined},
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
