"""REFUGE with seven annotators: fundus photographs in which every rater has outlined the optic cup and the
optic disc.

::

    Training-400/.../<case>/<case>.jpg
                            <case>_seg_cup_1.png ... <case>_seg_cup_7.png
                            <case>_seg_disc_1.png ... <case>_seg_disc_7.png
    Validation-400/... Test-400/...

Case folders may lie at any depth below the folder of their split. Photographs are scaled bilinearly, masks at
the nearest pixel, to 256x256 (De Sousa Ribeiro et al. 2025).

Reference: Fang et al. (2022), REFUGE2 challenge: a treasure trove for multi-dimension analysis and evaluation
in glaucoma screening.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ambiseg.data.files.reading import read_image
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nearest,
    nothing_found,
    own_file,
    read_binary,
    require_size,
    smooth,
    target_size,
    uniform_sample,
)
from ambiseg.data.importers.settings import RefugeSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.labels import LabelSpace

RATERS = 7
FOLDERS = {"train": "Training*", "val": "Validation*", "test": "Test*"}


def read_refuge(source: Path, settings: RefugeSettings) -> Imported:
    """Open the three folders; a case with an unreadable file, or without all seven masks, is left out and
    noted.

    Raises:
        AmbisegError: no such folders.
    """
    size = target_size(settings.size)
    problems: list[FileProblem] = []
    splits = {}
    for split, folder in FOLDERS.items():
        cases = sorted(
            {path.parent for path in found_files(source, f"{folder}/**/*_seg_{settings.structure}_*.png")}
        )
        if cases:
            splits[split] = collected(
                cases, partial(_case, structure=settings.structure, size=size), problems
            )
    if not splits:
        raise nothing_found(source, f"Training*/.../<case>/<case>_seg_{settings.structure}_1.png")
    info = DatasetInfo(
        f"refuge-{settings.structure}",
        LabelSpace.binary(settings.structure),
        "REFUGE, seven annotators (Fang et al. 2022)",
        augment={"flip": True, "rotate": True, "scale": True, "intensity": True},
    )
    return Imported(info, splits, "official 400/400/400", problems)


def _case(folder: Path, structure: str, size: tuple[int, int] | None) -> Sample:
    name = folder.name
    image, masks = read_image(own_file(folder, folder / f"{name}.jpg")), {}
    for rater in range(1, RATERS + 1):
        path = folder / f"{name}_seg_{structure}_{rater}.png"
        mask = read_binary(own_file(folder, path))
        require_size(mask, image, path)
        masks[f"rater-{rater}"] = nearest(mask, size)
    return uniform_sample(name, smooth(image, size), masks)
