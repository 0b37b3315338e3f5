"""The layouts that are known, as a table of patterns.

In the table ``@I`` and ``@M`` stand for the names of folders of images and masks that are there (`IMAGES`, `MASKS`),
``@N`` for such a word at the start of a name, ``@i`` for one of `IMAGE_NAMES`, and ``@-`` for one of
`SEPARATORS`. Folders of splits and of patients may stand before or after ``@I`` and ``@M``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from ambiseg.data.files.reading import IMAGE_SUFFIXES, stem_of, suffix_of
from ambiseg.data.listing import SPLITS
from ambiseg.data.patterns import FilePatterns, Pattern, split_word
from ambiseg.errors import AmbisegError

IMAGES = (
    *("images", "image", "imgs", "img", "jpegimages", "photos", "photo", "pictures", "scans", "scan"),
    *(
        "inputs",
        "input",
        "originals",
        "original",
        "raw",
        "x",
        "volumes",
        "volume",
        "dicom",
        "dcm",
        "ct",
        "mri",
        "mr",
    ),
)
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation"),
    *("segs", "seg", "segmentationclass", "gt", "gts", "ground_truth", "ground-truth", "groundtruth"),
    *("targets", "target", "manual", "raters", "readers", "annotators", "experts", "y"),
)
IMAGE_NAMES = (
    *(
        "image",
        "img",
        "scan",
        "photo",
        "volume",
        "dicom",
        "dcm",
        "ct",
        "mri",
        "mr",
        "t1",
        "t1w",
        "t2",
        "t2w",
        "flair",
    ),
    *("dwi", "adc", "pet"),
)
"""Names of the image in a folder of its own."""
SEPARATORS = ("_", "-", ".", " ")
_MASKS_OF = re.compile(rf"({'|'.join(MASKS)})[{re.escape(''.join(SEPARATORS))}]", re.IGNORECASE)
PER_FOLDER = 50
"""Files, and folders, of one folder that are compared with a pattern before all files are."""


class Layout(NamedTuple):
    """One way in which people lay out images and masks."""

    title: str
    images: str
    masks: tuple[str, ...]


LAYOUTS = (
    Layout("a folder of masks for each image", "@I/{id}.*", ("@M/{id}/{annotator}.*",)),
    Layout("a folder of masks for each annotator", "@I/{id}.*", ("@M/{annotator}/{id}.*",)),
    Layout("the annotator at the end of the mask's name", "@I/{id}.*", ("@M/{id}@-{annotator}.*",)),
    Layout("the annotator at the start of the mask's name", "@I/{id}.*", ("@M/{annotator}@-{id}.*",)),
    Layout("folders of masks named by annotator", "@I/{id}.*", ("@N@-{annotator}/{id}.*",)),
    Layout("one mask for each image", "@I/{id}.*", ("@M/{id}.*",)),
    Layout(
        "a numbered copy for each further annotator", "@I/{id}.*", ("@M/{id}.*", "@M/{id}@-{annotator}.*")
    ),
    Layout("a folder for each annotator beside the images", "@I/{id}.*", ("{annotator}/{id}.*",)),
    Layout("a folder with masks for each annotator", "@I/{id}.*", ("{annotator}/@M/{id}.*",)),
    Layout("a folder for each image", "{id}/@i.*", ("{id}/{annotator}.*",)),
    Layout("a folder for each image, with one of masks", "{id}/@i.*", ("{id}/@M/{annotator}.*",)),
    Layout("the annotator at the end, images named as such", "@I/{id}@-@i.*", ("@M/{id}@-{annotator}.*",)),
    Layout("the annotator at the start, images named as such", "@I/@i@-{id}.*", ("@M/{annotator}@-{id}.*",)),
    Layout("images and masks in one folder", "{id}.*", ("{id}@-{annotator}.*",)),
    Layout("images and masks in one folder, named as such", "{id}@-@i.*", ("{id}@-{annotator}.*",)),
)
"""In the order of preference, where two mean the same."""

SERIES = (
    Layout("a DICOM series for each image, with masks in its folder", "{id}", ("{id}/{annotator}.*",)),
    Layout("a DICOM series for each image, with a folder of masks", "{id}", ("{id}/@M/{annotator}.*",)),
)
"""Layouts where files of a DICOM series lie in the folder of the image itself."""

NNUNET = (
    Layout(
        "nnU-Net with the rater at the end", "images@S/{id}_{channel}.*", ("labels@S/{id}_{annotator}.*",)
    ),
    Layout(
        "nnU-Net with copies", "images@S/{id}_{channel}.*", ("labels@S/{id}.*", "labels@S/{id}_{annotator}.*")
    ),
    Layout(
        "nnU-Net with a folder for each rater", "images@S/{id}_{channel}.*", ("labels@S/{annotator}/{id}.*",)
    ),
    Layout(
        "nnU-Net with label folders for each rater",
        "images@S/{id}_{channel}.*",
        ("labels@S_{annotator}/{id}.*",),
    ),
    Layout("nnU-Net", "images@S/{id}_{channel}.*", ("labels@S/{id}.*",)),
    Layout("nnU-Net without channels", "images@S/{id}.*", ("labels@S/{id}_{annotator}.*",)),
    Layout("nnU-Net without channels, one label", "images@S/{id}.*", ("labels@S/{id}.*",)),
)
"""``@S`` is Tr and Ts. A channel is four digits."""


class Candidate(NamedTuple):
    """A layout with the names that are there."""

    title: str
    files: FilePatterns


def candidates(paths: Sequence[str], images_like: Iterable[str] = ()) -> Iterator[Candidate]:
    """All layouts whose folders are there, most preferred first.

    Args:
        paths: files, relative, with ``/`` between their parts.
        images_like: names of folders that hold images, though their names do not say it.
    """
    some = _some(paths)
    for title, images, masks in (
        *_bids(paths),
        *_nnunet(paths),
        *_same_name(paths),
        *_plain(paths, images_like),
    ):
        try:
            files = FilePatterns((Pattern(images),), tuple(map(Pattern, masks)))
        except AmbisegError:  # braces or stars in the names of folders
            continue
        if all(any(pattern.match(path) for path in some) for pattern in (*files.images, files.masks[0])):
            yield Candidate(title, files)


def _some(paths: Iterable[str]) -> list[str]:
    """Files of every kind of folder: `PER_FOLDER` at most of each folder, and of so many folders of each folder."""
    members: dict[str, list[str]] = {}
    folders: dict[str, set[str]] = {}
    for path in paths:
        folder = path.rpartition("/")[0]
        siblings = folders.setdefault(folder.rpartition("/")[0], set())
        if folder in siblings or len(siblings) < PER_FOLDER:
            siblings.add(folder)
            members.setdefault(folder, []).append(path)
    return [path for some in members.values() for path in some[:: len(some) // PER_FOLDER + 1]]


def _plain(paths: Sequence[str], images_like: Iterable[str]) -> Iterator[Layout]:
    parts = {part for path in paths for part in path.split("/")[:-1]}
    stems = {stem_of(path).lower() for path in paths}
    words = {"@I": _named(parts, IMAGES) or sorted(images_like), "@M": _named(parts, MASKS)}
    words["@N"] = sorted({part[: len(m[0]) - 1] for part in parts if (m := _MASKS_OF.match(part))})
    words["@i"] = [word for word in IMAGE_NAMES if any(word in stem for stem in stems)]
    words["@-"] = list(SEPARATORS)
    splits = sorted(part for part in parts if split_word(part) in SPLITS)
    split = f"{{split:{'|'.join(splits)}}}/" if splits else ""
    around = ["", *([split] if split else []), "{group}/", *([f"{split}{{group}}/"] if split else [])]
    for layout in LAYOUTS if not _series(paths) else (*LAYOUTS, *SERIES):
        for before, after in product(around, around):
            named = "@I" in layout.images or "@M" in layout.masks[0]
            if ("{split" in before and "{split" in after) or ("{group" in before and "{group" in after):
                continue
            if after and not named:
                continue
            yield from _filled(layout, before, after, words)


def _series(paths: Iterable[str]) -> bool:
    """Whether a path is that of a DICOM series, a folder."""
    return any(suffix_of(path) not in IMAGE_SUFFIXES for path in paths)


def _filled(layout: Layout, before: str, after: str, words: dict[str, list[str]]) -> Iterator[Layout]:
    """A layout with every choice of its words, between folders of splits or groups."""
    texts = [layout.images, *layout.masks]
    tokens = [token for token in words if any(token in text for text in texts)]
    for place in (_behind_first, _before_last) if after else (_behind_first,):
        placed = [place(text, after) for text in texts]
        for values in product(*(words[token] for token in tokens)):
            made = placed
            for token, value in zip(tokens, values, strict=True):
                made = [text.replace(token, value) for text in made]
            yield Layout(layout.title, before + made[0], tuple(before + text for text in made[1:]))


def _behind_first(text: str, after: str) -> str:
    folder, slash, rest = text.partition("/")
    return f"{folder}{slash}{after}{rest}" if slash and re.search("@I|@M|@N|annotator", folder) else text


def _before_last(text: str, after: str) -> str:
    """The same where an annotator has folders of splits or groups: ``masks/anna/p1/scan.png``."""
    folder, slash, rest = text.rpartition("/")
    return f"{folder}{slash}{after}{rest}" if slash and "{id}" in rest else _behind_first(text, after)


def _named(parts: Iterable[str], words: Sequence[str]) -> list[str]:
    return sorted(
        (part for part in parts if part.lower() in words), key=lambda part: words.index(part.lower())
    )


def _nnunet(paths: Sequence[str]) -> Iterator[Layout]:
    found = sorted({match[1] for path in paths if (match := re.match(r"images(Tr|Ts|Val)/", path))})
    labelled = [split for split in found if any(path.startswith(f"labels{split}") for path in paths)]
    channels = {match[1] for path in paths if (match := re.match(r"images[^/]+/.*_(\d{4})\.[^/]+$", path))}
    for title, images, masks in NNUNET if labelled else ():
        if "{channel}" in images and not channels:
            continue
        one, other = f"{{split:{'|'.join(labelled)}}}", f"{{channel:{'|'.join(sorted(channels))}}}"
        texts = [text.replace("@S", one).replace("{channel}", other) for text in (images, *masks)]
        yield Layout(title, texts[0], tuple(texts[1:]))


def _bids(paths: Sequence[str]) -> Iterator[Layout]:
    raw = [path for path in paths if re.match(r"sub-[^/]+/", path)]
    derived = [path for path in paths if re.match(r"derivatives/.*sub-", path)]
    tails = sorted({stem_of(path).rpartition("_")[2] for path in raw})
    for tail in tails if derived else ():
        images = f"sub-*/**/{{id}}_{tail}.*"
        for entity in ("rater", "annotator", "desc"):
            names = sorted(
                {m[1] for path in derived if (m := re.search(rf"_{entity}-([A-Za-z0-9+]+)_", path))}
            )
            if names:
                who = f"{{annotator:{'|'.join(names)}}}"
                yield Layout(f"BIDS with {entity}", images, (f"derivatives/**/{{id}}_*{entity}-{who}_*.*",))
        for last in sorted({stem_of(path).rpartition("_")[2] for path in derived}):
            each = (f"derivatives/{{annotator}}/**/{{id}}_*{last}.*",)
            yield Layout("BIDS with a derivative of each annotator", images, each)


def _same_name(paths: Sequence[str]) -> Iterator[Layout]:
    """Images and masks that differ in their suffix only."""
    suffixes = {suffix_of(path) for path in paths}
    for one in (".jpg", ".jpeg", ".webp", ".bmp"):
        for other in (".png", ".bmp", ".tif"):
            if one != other and {one, other} <= suffixes:
                yield Layout(
                    "a mask beside each image, of another format", f"{{id}}{one}", (f"{{id}}{other}",)
                )
