"""COCO annotations of several annotators: polygons and run lengths become label maps, one per annotator.

::

    images/<file_name>
    annotations/<annotator>.json        a COCO file each: images, annotations, categories

or one file ``annotations/*.json`` whose annotations carry ``"annotator": NAME``. An image that an annotator's
file lists without annotations is an empty mask, if anybody else annotated it; one that it does not list has
no mask of that annotator. Class 0 is background, then come the categories by id; where shapes overlap, the
later annotation is on top.

Each annotation is compared with what its file says of itself (`coco_frames`). An image with one that
contradicts itself is left out, since its mask would lack a shape.

Reference: Lin et al. (2014), Microsoft COCO: common objects in context; the data format on the pages of the
data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from os.path import exists
from pathlib import Path
from posixpath import splitext

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import IMAGE_SUFFIXES, read_image, suffix_of
from ambiseg.data.files.validation import FileProblem, check_name
from ambiseg.data.importers.base import Facts, Imported, count
from ambiseg.data.importers.coco_file import CocoFiles, Drawing, plain_file_name, read_coco_files
from ambiseg.data.importers.coco_frames import Frame, drawn, exif_orientation, frame_of
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nothing_found,
    own_file,
    splits_of,
    uniform_sample,
)
from ambiseg.data.importers.settings import CocoSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace


def read_coco(source: Path, settings: CocoSettings) -> Imported:
    """Open images and annotation files; an image with a wrong annotation or file is left out and noted.

    Raises:
        AmbisegError: no annotation file, one that is no COCO file, categories that differ, an unknown
            category.
    """
    files = found_files(source, "annotations/*.json")
    if not files:
        raise nothing_found(source, "annotations/<annotator>.json with images/")
    folder = source / "images"
    found = read_coco_files(files, lambda name: _below(folder, name))
    return imported_drawings(source, folder, found, settings, "COCO annotations")


def imported_drawings(
    source: Path, folder: Path, found: CocoFiles, settings: CocoSettings, origin: str
) -> Imported:
    """The samples of drawings that were read from files of any tool.

    Args:
        source: the data set.
        folder: of the images.
        found: categories and drawings.
        settings: of the splits, of images that nobody annotated, and of rotated photographs.
        origin: for the field ``source`` of the data set.

    Raises:
        AmbisegError: a split file that is wrong, or a class that is twice there.
    """
    numbers = {category: i for i, category in enumerate(sorted(found.categories), 1)}
    names = ("background", *(found.categories[category] for category in numbers))
    info = DatasetInfo(source.name, LabelSpace(names), origin)
    listed, facts = set(found.drawings), Facts()
    others = [path for path in found_files(folder, "**/*") if suffix_of(path) in IMAGE_SUFFIXES]
    unlisted = sum(path.relative_to(folder).as_posix() not in listed for path in others)
    if unlisted:
        facts["images that no annotation file lists"] = unlisted
    _take_unannotated(found, folder, settings.empty, facts)
    ids = _ids(found, folder)
    splits, how = splits_of(ids, settings, "image")

    def read(name: str) -> Sample | None:
        if name in found.spoiled:
            return None
        path = own_file(folder, folder / name)
        image, masks, wrong = read_image(path), {}, list[FileProblem]()
        shown, orientation = (image.shape[1], image.shape[2]), exif_orientation(path)
        for annotator, drawing in found.drawings[name].items():
            frame = frame_of(drawing.size, shown, orientation, settings.rotated, path)
            masks[annotator] = frame.shown(_label_map(drawing, numbers, frame, wrong))
            if masks[annotator].shape != shown:
                raise FileProblem(path, "its EXIF tag was not followed", "save it upright")
            if frame.stated != frame.size:
                count(facts, "masks scaled to the size of their image")
        found.problems.extend(wrong)
        return None if wrong else uniform_sample(ids[name], image, masks)

    lazy = {split: collected(names, read, found.problems) for split, names in splits.items()}
    return Imported(info, lazy, how, found.problems, facts)


def _below(folder: Path, name: str) -> str:
    """The name of an image below the folder of images, where many files say ``images/`` once more."""
    plain = plain_file_name(name)
    rest = plain.removeprefix(f"{folder.name}/")
    return plain if exists(folder / plain) else rest


def _take_unannotated(found: CocoFiles, folder: Path, keep: bool, facts: Facts) -> None:
    """Leave out and name the images in which nobody drew anything, or keep them with empty masks."""
    everybody = {annotator for drawings in found.drawings.values() for annotator in drawings}
    empty = [
        name
        for name, drawings in found.drawings.items()
        if name not in found.spoiled and not any(drawing.annotations for drawing in drawings.values())
    ]
    for name in empty:
        if keep:
            drawings = found.drawings[name]
            found.drawings[name] = drawings or {annotator: Drawing(None) for annotator in sorted(everybody)}
        else:
            del found.drawings[name]
            found.problems.append(
                FileProblem(folder / name, "nobody annotated it", "ask for --empty if it shows nothing")
            )
    if keep and empty:
        facts["images that nobody annotated"] = len(empty)


def _ids(found: CocoFiles, folder: Path) -> dict[str, str]:
    """Id of each image by its file name; an image whose id cannot be used is spoiled."""
    ids = {name: splitext(name)[0].strip("/.").replace("/", "-") for name in found.drawings}
    first: dict[str, str] = {}
    for name, sample_id in ids.items():
        if name in found.spoiled:
            continue
        try:
            check_name(sample_id, "id")
            if sample_id in first:
                said = f"it would have the id {sample_id!r} of {first[sample_id]!r}"
                raise FileProblem(folder / name, said, "rename one of the two")
            first[sample_id] = name
        except AmbisegError as error:
            found.spoiled.add(name)
            problem = (
                error
                if isinstance(error, FileProblem)
                else FileProblem(folder / name, str(error), "rename it")
            )
            found.problems.append(problem)
    return ids


def _label_map(
    drawing: Drawing, numbers: Mapping[int, int], frame: Frame, wrong: list[FileProblem]
) -> NDArray[np.uint8]:
    """One annotator's classes in the frame; what cannot be drawn is added to ``wrong``."""
    label_map = np.zeros(frame.size, np.uint8)
    for annotation in drawing.annotations:
        try:
            label_map[drawn(annotation, frame)] = numbers[annotation.category]
        except FileProblem as problem:
            wrong.append(problem)
    return label_map
