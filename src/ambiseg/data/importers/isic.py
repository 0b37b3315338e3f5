"""Skin lesions of the ISIC archive with several segmentations per image, such as the subset with exactly
three.

::

    images/ISIC_<7 digits>.jpg
    segs/ISIC_<7 digits>_<annotator>.png      such as ISIC_0010183_A02_T3_S1_57c0.png of ISIC MultiAnnot++

Everything after the number names the annotator. The consensus masks of ISIC MultiAnnot++ (``ST_ST_ST_ST``,
``MV_MV_MV_MV``) are made from the others and left out. Zepf et al. (2023) use 300 images with exactly three
masks; which 300 could not be verified, so the numbers of images by number of masks are reported as facts, and
a split file can name any choice.

References: Codella et al. (2019), Skin lesion analysis toward melanoma detection 2018; Zepf et al. (2023),
Label style and its effects; Abhishek, Kawahara, Hamarneh (2025), IMA++.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from ambiseg.data.files.reading import read_image
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nearest,
    nothing_found,
    read_binary,
    require_size,
    smooth,
    splits_of,
    target_size,
    uniform_sample,
)
from ambiseg.data.importers.settings import IsicSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

_NAME = re.compile(r"(ISIC_\d{7})_(.+)", re.IGNORECASE)
_CONSENSUS = ("ST_ST_ST_ST", "MV_MV_MV_MV")


def read_isic(source: Path, settings: IsicSettings) -> Imported:
    """Open images and segmentations; an image with an unreadable file is left out and noted.

    Raises:
        AmbisegError: no such folders, no image with so many masks, or a wrong split file.
    """
    size = target_size(settings.size)
    images = {
        path.stem.upper(): path
        for path in found_files(source, "images/*")
        if path.suffix.lower() in (".jpg", ".png")
    }
    masks: dict[str, dict[str, Path]] = {}
    for path in found_files(source, "segs/*.png"):
        match = _NAME.fullmatch(path.stem)
        if match and match[2] not in _CONSENSUS:
            masks.setdefault(match[1].upper(), {})[match[2]] = path
    if not images or not masks:
        raise nothing_found(source, "images/ISIC_<number>.jpg with segs/ISIC_<number>_<annotator>.png")
    counts = Counter(len(files) for files in masks.values())
    chosen = [
        name
        for name, files in masks.items()
        if (len(files) == settings.masks if settings.masks else len(files) > 1)
    ]
    if not chosen:
        there = ", ".join(f"{n} images with {k}" for k, n in sorted(counts.items()))
        raise AmbisegError(
            f"{source}: no image has {settings.masks or 'two or more'} segmentations: there are {there}"
        )
    problems = [
        FileProblem(
            source / "images" / f"{name}.jpg", "there is no such file", "download it or remove its masks"
        )
        for name in sorted(chosen)
        if name not in images
    ]
    splits, how = splits_of({name: name for name in chosen if name in images}, settings, "image")

    def read(name: str) -> Sample:
        image, found = read_image(images[name]), {}
        for annotator, path in masks[name].items():
            mask = read_binary(path)
            require_size(mask, image, path)
            found[annotator] = nearest(mask, size)
        return uniform_sample(name, smooth(image, size), found)

    info = DatasetInfo(
        "isic",
        LabelSpace.binary("lesion"),
        "ISIC archive, images with several segmentations",
        augment={"flip": True, "rotate": True, "scale": True, "intensity": True},
    )
    facts = {f"images with {k} segmentations": n for k, n in sorted(counts.items())}
    return Imported(
        info,
        {split: collected(names, read, problems) for split, names in splits.items()},
        how,
        problems,
        facts,
    )
