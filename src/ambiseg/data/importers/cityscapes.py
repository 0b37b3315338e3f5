"""Cityscapes as class flips, from the official folders ``leftImg8bit`` and ``gtFine``: labels are stored
once.

::

    leftImg8bit/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit.png
    gtFine/<split>/<city>/<city>_<sequence>_<frame>_gtFine_labelIds.png

- ``binary``: road .05, sidewalk .25, vegetation .75, car .95 are foreground, every other pixel background,
  void included; 16 modes (Gerard and Sullivan 2025, 64x128, nearest pixel).
- ``twins``: sidewalk 8/17, person 7/17, car 6/17, vegetation 5/17, road 4/17 become a class of their own: 24
  classes, 32 modes (Kohl et al. 2018, section 4.2); void is ignored.

The test set of the benchmark has no public labels, so the official validation set is used for testing.
``official-val-as-test`` holds out 500 random training images for validation (Gerard and Sullivan,
"Deterministic Mode Proposals", appendix A.1.2); ``plain`` keeps train and val.

Reference: Cordts et al. (2016), The Cityscapes dataset for semantic urban scene understanding.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import read_image, read_mask
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.camvid import street_info
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nearest,
    nothing_found,
    own_file,
    require_size,
    target_size,
)
from ambiseg.data.importers.settings import CityscapesSettings
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError

CLASSES = {
    "road": (7, (128, 64, 128)), "sidewalk": (8, (244, 35, 232)), "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)), "fence": (13, (190, 153, 153)), "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)), "traffic sign": (20, (220, 220, 0)), "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)), "sky": (23, (70, 130, 180)), "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)), "car": (26, (0, 0, 142)), "truck": (27, (0, 0, 70)), "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)), "motorcycle": (32, (0, 0, 230)), "bicycle": (33, (119, 11, 32)),
}  # fmt: skip
"""The 19 classes of the benchmark in its order: number in ``labelIds`` files and colour. The other numbers
are void."""
LARGEST = 33
"""The last number in ``labelIds`` files."""
FLIPS = {
    "binary": {"road": 0.05, "sidewalk": 0.25, "vegetation": 0.75, "car": 0.95},
    "twins": {"sidewalk": 8 / 17, "person": 7 / 17, "car": 6 / 17, "vegetation": 5 / 17, "road": 4 / 17},
}


def read_cityscapes(source: Path, settings: CityscapesSettings) -> Imported:
    """Open the official folders.

    Raises:
        AmbisegError: no such folders, too few images to hold out, or a label that is not in the class list.
    """
    size = target_size(settings.size)
    official = {
        split: found_files(source, f"leftImg8bit/{split}/*/*_leftImg8bit.png") for split in ("train", "val")
    }
    if not official["train"] or not official["val"]:
        raise nothing_found(source, "leftImg8bit/{train,val}/<city>/*_leftImg8bit.png")
    splits, how = _splits(official, settings)
    flips = ClassFlips(FLIPS[settings.output], settings.output)
    names, colors = (*CLASSES, "void"), (*(color for _, color in CLASSES.values()), (0, 0, 0))
    info = street_info(
        f"cityscapes-{settings.output}", names, colors, flips, "Cityscapes, gtFine (Cordts et al. 2016)"
    )
    numbers = np.full(256, len(CLASSES), np.uint8)
    numbers[[number for number, _ in CLASSES.values()]] = np.arange(len(CLASSES))
    problems: list[FileProblem] = []
    read = partial(_frame, source=source, numbers=numbers, size=size)
    return Imported(
        info, {split: collected(paths, read, problems) for split, paths in splits.items()}, how, problems
    )


def _splits(
    official: dict[str, list[Path]], settings: CityscapesSettings
) -> tuple[dict[str, list[Path]], str]:
    if settings.split == "plain":
        return official, "official train and val"
    train = official["train"]
    if not 0 < settings.held_out < len(train):
        raise AmbisegError(
            f"--held-out must be 1 to {len(train) - 1}, as there are {len(train)} training images,"
            f" received {settings.held_out}"
        )
    order = np.random.Generator(np.random.PCG64(settings.seed)).permutation(len(train))
    held = set(order[: settings.held_out].tolist())
    splits = {
        "train": [path for i, path in enumerate(train) if i not in held],
        "val": [path for i, path in enumerate(train) if i in held],
        "test": official["val"],
    }
    return splits, f"official val as test, {settings.held_out} of train as val, seed {settings.seed}"


def _frame(path: Path, source: Path, numbers: NDArray[np.uint8], size: tuple[int, int] | None) -> Sample:
    name = path.name.removesuffix("_leftImg8bit.png")
    file = source / "gtFine" / path.parent.parent.name / path.parent.name / f"{name}_gtFine_labelIds.png"
    image, ids = read_image(path), read_mask(own_file(source, file), MaskRules(ignore_value=255))
    require_size(ids, image, file)
    if ids.max() > LARGEST:
        wrong = np.unique(ids[ids > LARGEST])[:5].tolist()
        raise AmbisegError(
            f"{file}: the label(s) {wrong} are not in the class list 0..{LARGEST}: use the gtFine labelIds files"
        )
    label_map = numbers[nearest(ids, size)]
    return Sample(name, nearest(image, size), label_map[None], np.ones(1), ("gtFine",))
