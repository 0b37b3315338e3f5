"""QUBIQ, quantification of uncertainties in biomedical images: folders of cases with several tasks and
raters.

::

    <data set>/Training/case01/image.nii.gz
                               task01_seg01.nii.gz ... task01_seg07.nii.gz, task02_seg01.nii.gz ...
    <data set>/Validation/...

The source is one data set, such as ``brain-growth``, and one of its tasks is imported. Images have two axes,
or a third of channels (the tumour set has four). Validation becomes test; train and val are drawn from
Training by case.

Reference: Li et al. (2024), QUBIQ: uncertainty quantification for biomedical image segmentation challenge.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.nifti import Header
from ambiseg.data.files.validation import FileProblem, canonical_image
from ambiseg.data.importers.base import Facts, Imported
from ambiseg.data.importers.nifti import placed_labels, read_volume
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nothing_found,
    require_size,
    uniform_sample,
)
from ambiseg.data.importers.settings import QubiqSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.data.splits.assignment import split_groups
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

TRAIN_AND_VAL = {"train": 0.8, "val": 0.2}
_MASK = re.compile(r"task(\d+)_seg(\d+)\.nii(?:\.gz)?", re.IGNORECASE)


def read_qubiq(source: Path, settings: QubiqSettings) -> Imported:
    """Open one data set of QUBIQ; a case with an unreadable file is left out and noted.

    Raises:
        AmbisegError: no cases, or none with that task.
    """
    cases = {
        split: sorted({path.parent for path in found_files(source, f"{folder}/*/image.nii*")})
        for split, folder in (("train", "Training"), ("test", "Validation"))
    }
    if not cases["train"]:
        raise nothing_found(source, "Training/<case>/image.nii.gz")
    tasks = {
        int(m[1]) for path in found_files(source, "Training/*/task*") if (m := _MASK.fullmatch(path.name))
    }
    if settings.task not in tasks:
        raise AmbisegError(f"{source} has no task {settings.task}: --task is one of {sorted(tasks)}")
    split_of = split_groups([case.name for case in cases["train"]], TRAIN_AND_VAL, settings.seed)
    splits: dict[str, list[Path]] = {"train": [], "val": [], "test": cases["test"]}
    for case in cases["train"]:
        splits[split_of[case.name]].append(case)
    info = DatasetInfo(
        f"qubiq-{source.name}-task{settings.task}", LabelSpace.binary(), "QUBIQ (Li et al. 2024)"
    )
    problems: list[FileProblem] = []
    facts: Facts = {}
    read = partial(_case, settings=settings, labels=info.labels, facts=facts)
    return Imported(
        info,
        {split: collected(folders, read, problems) for split, folders in splits.items() if folders},
        f"Training by case 80/20, seed {settings.seed}; Validation as test",
        problems,
        facts,
    )


def _case(folder: Path, settings: QubiqSettings, labels: LabelSpace, facts: Facts) -> Sample:
    path = found_files(folder, "image.nii*")[0]
    values, header = read_volume(path)
    pixels = values.squeeze()
    if pixels.ndim not in (2, 3):
        raise FileProblem(path, f"the array has shape {values.shape}", "save height, width and channels")
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, -1, 0)
    image = canonical_image(pixels[None] if pixels.ndim == 2 else pixels, path)
    plane: Header = replace(header, shape=image.shape[1:])
    masks: dict[str, NDArray[Any]] = {}
    for file in found_files(folder, "task*"):
        match = _MASK.fullmatch(file.name)
        if match and int(match[1]) == settings.task:
            mask = placed_labels(file, plane, labels, settings.other_grid, facts).squeeze()
            require_size(mask, image, file)
            masks[f"rater-{int(match[2]):02}"] = mask
    if not masks:
        said = f"the case has no mask of task {settings.task}"
        raise FileProblem(folder, said, "unpack the whole distribution")
    return uniform_sample(folder.name, image, masks)
