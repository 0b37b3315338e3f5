"""Prediction of files of volumes: a folder for each, with a file for each hypothesis in the format of the volume."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ambiseg import owned_files
from ambiseg.atomic_write import DiskFullError, replacing_folder
from ambiseg.data.files.reading import IMAGE_SUFFIXES, VOLUME_SUFFIXES, stem_of, suffix_of
from ambiseg.data.volumes.grid import together
from ambiseg.data.volumes.settings import SliceSettings
from ambiseg.data.volumes.slices import slice_count
from ambiseg.data.volumes.volume import is_volume, open_volume
from ambiseg.data.volumes.writing import suffix_for, write_values
from ambiseg.engine.postprocess import Image, LoadedModel, PredictSettings
from ambiseg.engine.predict import FileResult, failed, mask_entries, open_index, recipe_of
from ambiseg.engine.run import Run, warn_of_range
from ambiseg.engine.volumes import VolumePrediction, predict_volume, shown_slices, slice_settings
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.metrics.volumes import quantiles
from ambiseg.predictions.index import PREDICT, folder_names, start

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_NNUNET = ("imagesTr", "imagesTs", "imagesVal")
LEVEL = 0.9
"""Probability of the interval of a volume."""
SHOWN = 6
"""Slices of a picture."""

Picture = Callable[[list[tuple[int, Image, MaskSet]], Path], None]


def find_volumes(inputs: Iterable[str | Path]) -> list[Path]:
    """Volumes that are named directly, or lie in named folders (not deeper), in order; none if there are only images.

    Beside a volume each NIfTI file is one, also with a single slice or damaged: prediction reports what it cannot read.

    Raises:
        AmbisegError: volumes and images together, in the inputs or in one folder.

    Example:
        >>> find_volumes(["image.png"])
        []
    """
    paths = [Path(path) for path in inputs]
    found = [_volumes_at(path) for path in paths]
    if any(found):
        for path, own in zip(paths, found, strict=True):
            if not own and _is_named_like_one(path):
                own.append(path)
            if not own and not path.exists():
                raise AmbisegError(f"{path} does not exist: check the path")
            if not own:
                raise AmbisegError(
                    f"{path} is no volume, and other inputs are volumes: predict images and volumes in two calls"
                )
    return [path for own in found for path in own]


def _volumes_at(path: Path) -> list[Path]:
    if is_volume(path) or not path.is_dir():
        return [path] if is_volume(path) else []
    inside = [one for one in sorted(path.iterdir()) if not one.name.startswith(".")]
    found = [one for one in inside if is_volume(one)]
    found = [one for one in inside if one in found or _is_named_like_one(one)] if found else []
    others = [one.name for one in inside if one not in found and suffix_of(one) in IMAGE_SUFFIXES]
    if found and others:
        raise AmbisegError(
            f"{path} holds volumes, such as {found[0].name!r}, and images, such as {others[0]!r}: name the files of one kind"
        )
    return found


def channel_files(paths: Sequence[Path], channels: int) -> dict[Path, tuple[Path, ...]]:
    """The files of each volume by the first of them. Files ``_0000``, ``_0001`` ... of one name, as of nnU-Net, hold the
    channels of one volume, where there are as many as it has channels and each file holds one.

    Example:
        >>> paths = [Path(f"case_{i:04}.nrrd") for i in range(2)]
        >>> list(channel_files(paths, 1).values()) == [(path,) for path in paths]
        True
    """
    members: dict[tuple[Path, str], list[Path]] = {}
    for path in sorted(paths):
        found = _CHANNEL.fullmatch(stem_of(path))
        if found is not None and int(found[2]) == len(members.setdefault((path.parent, found[1]), [])):
            members[path.parent, found[1]].append(path)
    groups = {
        some[0]: tuple(some) for some in members.values() if len(some) == channels > 1 and _single(some)
    }
    others = {path for some in groups.values() for path in some[1:]}
    return {path: groups.get(path, (path,)) for path in paths if path not in others}


def _single(paths: Sequence[Path]) -> bool:
    try:
        return all(open_volume(path).channels == 1 for path in paths)
    except AmbisegError:
        return False  # reported for each file


def _named(files: Mapping[Path, tuple[Path, ...]]) -> list[Path]:
    """Volumes as their ids name them: without the number of a channel, as in the ids of `ambiseg data init`."""
    bare = all(path.parent.name in _NNUNET and stem_of(path).endswith("_0000") for path in files)
    return [
        path.with_name(stem_of(path)[:-5] + suffix_of(path)) if bare or len(some) > 1 else path
        for path, some in files.items()
    ]


def _is_named_like_one(path: Path) -> bool:
    return path.is_file() and suffix_of(path) in VOLUME_SUFFIXES


def predict_volumes(
    run: Run,
    paths: Sequence[Path],
    out: Path,
    settings: PredictSettings | None = None,
    *,
    slices: SliceSettings | None = None,
    flow: LoadedModel | None = None,
    pixel_probabilities: bool = False,
    batch_size: int = 16,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    picture: Picture | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[FileResult]:
    """Predict files of volumes one after the other, each into a folder of its own in ``out``.

    A folder holds ``mask-01.nii.gz`` ... (label maps at the voxels of the volume, NRRD for NRRD volumes, with its
    geometry as it is), ``prediction.json`` with probability and millilitres of each hypothesis, and what ``picture``
    draws. It appears when it is complete; the index is that of images (`ambiseg.predictions.index`).

    Args:
        run: a loaded run.
        paths: files of volumes, or folders with a DICOM series; files of one channel each are put together
            (`channel_files`).
        out: folder to write to.
        settings: filters, probabilities and number of samples.
        slices: axis and neighbours; those of the training if None.
        flow: a run of flow-matching, where ``settings.estimate`` needs one.
        pixel_probabilities: also write the expected probability of every voxel.
        batch_size: slices in one pass.
        seed: of sampling methods.
        overwrite: remove earlier predictions first.
        resume: keep earlier predictions and go on with the rest.
        picture: called with some slices (index, image, masks) and a path to write a picture to.
        progress: called with slices done and in all, of the volume at hand.

    Yields:
        One `FileResult` per volume; one that cannot be read, or does not fit in memory, is reported and the rest goes on.

    Raises:
        AmbisegError: ``out`` holds predictions already and neither ``overwrite`` nor ``resume`` is given, or it was
            not made by ``predict``; the disk is full.
    """
    paths = list(dict.fromkeys(paths))
    settings = (settings or PredictSettings()).for_run(run)
    start(out, paths, overwrite, resume)
    slices = slices or slice_settings(run)
    files = channel_files(paths, run.config.in_channels // slices.planes)
    called = _named(files)
    names, remarks = folder_names(called), list[str]()
    recipe = recipe_of(run, settings, flow, seed) | {"slices": [slices.axis, slices.neighbours]}
    with open_index(out, recipe, overwrite) as index:
        for (path, channels), one, name in zip(files.items(), called, names, strict=True):
            entry = index.done(path, name)
            if entry is not None:
                yield FileResult(
                    path, out / name, int(entry["masks"]), None, bool(entry["determined"]), kept=True
                )
                continue
            try:
                found = predict_volume(
                    run,
                    together(tuple(open_volume(file) for file in channels)),
                    settings,
                    slices=slices,
                    flow=flow,
                    pixel_probabilities=pixel_probabilities,
                    batch_size=batch_size,
                    seed=seed,
                    progress=progress,
                )
                if found.remark:
                    remarks.append(f"{path}: {found.remark}")
                owned_files.add(out, [f"{name}/"])
                estimate = {**settings.estimate.record(flow), "determined": found.determined}
                how = {"settings": settings.record(), "estimate": estimate}
                with replacing_folder(out / name, True, PREDICT, durable=False) as partial:
                    _write(partial, found, how, picture)
            except DiskFullError:
                raise
            except AmbisegError as error:
                yield failed(index, path, error)
                continue
            masks = int(found.masks.count[0])
            slices_of = slice_count(found.volume, found.slices)
            own = {} if one == path else {"id": stem_of(one)}
            index.add(path, name, masks=masks, determined=found.determined, slices=slices_of, **own)
            yield FileResult(path, out / name, masks, determined=found.determined)
    warn_of_range(remarks, len(files), "volumes")


def _write(partial: Path, found: VolumePrediction, how: dict[str, Any], picture: Picture | None) -> None:
    volume, suffix = found.volume, suffix_for(found.volume)
    names = [f"mask-{k + 1:02}{suffix}" for k in range(int(found.masks.count[0]))]
    for k, name in enumerate(names):
        write_values(partial / name, found.whole(k), volume)
    content: dict[str, Any] = {
        "image": volume.path.name,
        "path": str(volume.path),
        "size": list(volume.shape),
        "classes": list(found.masks.labels.names),
        "masks": _entries(found, names),
        "volume": {
            "spacing": list(volume.spacing),
            "affine": volume.affine.tolist(),
            "axis": volume.axis_names[volume.axis(found.slices.axis)],
            "slices": slice_count(volume, found.slices),
            "neighbours": found.slices.neighbours,
            "millilitres": _summary(found),
        },
        **how,
    }
    if found.mean is not None:
        name = f"probability{suffix}"
        values = np.moveaxis(found.mean, 0, -1).astype(np.float32)
        write_values(partial / name, values[..., 0] if values.shape[-1] == 1 else values, volume)
        content["expected"] = name
    if picture is not None:
        picture(list(shown_slices(found, SHOWN)), partial / "picture.png")
        content["picture"] = "picture.png"
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    (partial / "prediction.json").write_text(text, encoding="utf-8")


def _foreground(found: VolumePrediction) -> list[int]:
    labels = found.masks.labels
    return [c for c in range(labels.classes) if c != labels.background]


def _entries(found: VolumePrediction, names: Sequence[str]) -> list[dict[str, Any]]:
    """What ``prediction.json`` says of each hypothesis; its area is the share of all voxels."""
    volumes, share = found.millilitres(), _share(found)
    entries = [  # one after the other, for counting takes many bytes for each voxel
        mask_entries(found.masks.gather(torch.tensor([[k]])), [name])[0] for k, name in enumerate(names)
    ]
    for k, entry in enumerate(entries):
        entry["area"] = round(entry["area"] * share, 9)
        entry["millilitres"] = {
            found.masks.labels.names[c]: round(float(volumes[k, c]), 6) for c in _foreground(found)
        }
    return entries


def _share(found: VolumePrediction) -> float:
    """Share of the voxels that lie within the box."""
    return found.masks.masks[0, 0].numel() / float(np.prod(found.volume.shape))


def _summary(found: VolumePrediction) -> dict[str, Any]:
    """Expected volume and interval of each class, in millilitres."""
    weights, volumes = found.masks.weights[0].double().numpy(), found.millilitres()
    return {
        found.masks.labels.names[c]: {
            "mean": round(float(weights @ volumes[:, c]), 6),
            "interval": _interval(volumes[:, c], weights),
            "level": LEVEL,
        }
        for c in _foreground(found)
    }


def _interval(values: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
    ends = quantiles(values, weights, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [round(float(end), 6) for end in ends]
