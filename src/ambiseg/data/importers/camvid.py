"""CamVid, street scenes of Cambridge, as class flips: the labels are stored once, modes are made when they
are read.

Three layouts are read, told apart by what lies in the source:

- ``train/`` with ``train_labels/`` (``*_L.png`` in the 32 colours of the authors), ``val`` and ``test``
  alike;
- ``train/`` with ``trainannot/`` (class numbers, 0 to 11), ``val`` and ``test`` alike;
- ``camvid-*-<split>.npz`` with ``images`` (n, H, W, 3) and ``labels`` (n, H, W).

The 32 colours become the eleven classes in use since Badrinarayanan et al. (2017). Without a class (11,
unlabelled) a pixel is void among the twins and background in binary masks, as in the binary ambiguous
Cityscapes.

References: Brostow, Fauqueur, Cipolla (2009), Semantic object classes in video; Badrinarayanan, Kendall,
Cipolla (2017), SegNet.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.class_flips import ClassFlips
from ambiseg.data.files.mask_rules import MaskRules
from ambiseg.data.files.reading import read_image, read_mask
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported, Lazy
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nearest,
    nothing_found,
    npz_array,
    own_file,
    require_classes,
    require_size,
    smooth,
    target_size,
)
from ambiseg.data.importers.settings import CamvidSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SPLITS
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist",
    "unlabelled",
)  # fmt: skip
"""Classes by number; the last is no class."""
COLORS = {
    (128, 128, 128): 0,
    (128, 0, 0): 1, (0, 128, 64): 1, (64, 192, 0): 1, (64, 0, 64): 1, (192, 0, 128): 1,
    (192, 192, 128): 2, (0, 0, 64): 2,
    (128, 64, 128): 3, (128, 0, 192): 3, (192, 0, 64): 3,
    (0, 0, 192): 4, (64, 192, 128): 4, (128, 128, 192): 4,
    (128, 128, 0): 5, (192, 192, 0): 5,
    (192, 128, 128): 6, (128, 128, 64): 6, (0, 64, 64): 6,
    (64, 64, 128): 7,
    (64, 0, 128): 8, (64, 128, 192): 8, (192, 128, 192): 8, (192, 64, 128): 8, (128, 64, 64): 8,
    (64, 64, 0): 9, (192, 128, 64): 9, (64, 0, 192): 9, (64, 128, 64): 9,
    (0, 128, 192): 10, (192, 0, 192): 10,
    (0, 0, 0): 11,
}  # fmt: skip
"""The 32 colours: sky; building, bridge, wall, tunnel, archway; column, cone; road, markings; sidewalk,
parking, shoulder; tree, other vegetation; sign, text, traffic light; fence; car, pickup, truck or bus, train,
other; pedestrian, child, pram, animal; bicyclist, motorcycle; void."""
FLIPS = {
    "binary": {"road": 0.05, "pavement": 0.25, "tree": 0.75, "car": 0.95},
    "twins": {"pavement": 8 / 17, "pedestrian": 7 / 17, "car": 6 / 17, "tree": 5 / 17, "road": 4 / 17},
}
"""The flips of the ambiguous Cityscapes, by CamVid's names of the classes."""


def street_info(
    name: str,
    classes: tuple[str, ...],
    colors: tuple[tuple[int, int, int], ...],
    flips: ClassFlips,
    source: str,
) -> DatasetInfo:
    """Description of street scenes whose last class is no class: void among twins, an ordinary one in binary
    masks."""
    if flips.output == "binary":
        labels = LabelSpace(classes, colors, background=None)
    else:
        labels = LabelSpace(classes[:-1], colors[:-1], ignore_value=len(classes) - 1, background=None)
    augment = {"flip": True, "flip-vertical": False, "quarter-turns": False, "scale": True, "intensity": True}
    return DatasetInfo(name, labels, source, augment=augment, flips=flips)


def read_camvid(source: Path, settings: CamvidSettings) -> Imported:
    """Open CamVid in any of its layouts.

    Raises:
        AmbisegError: none of the layouts, or a label that is no class.
    """
    size = target_size(settings.size)
    colors: dict[int, tuple[int, int, int]] = {}
    for color, number in COLORS.items():
        colors.setdefault(number, color)
    flips = ClassFlips(FLIPS[settings.output], settings.output)
    palette = tuple(colors[i] for i in range(len(CLASSES)))
    info = street_info(f"camvid-{settings.output}", CLASSES, palette, flips, "CamVid (Brostow et al. 2009)")
    problems: list[FileProblem] = []
    splits: dict[str, Lazy] = {}
    for split in SPLITS:
        arrays = found_files(source, f"*-{split}.npz") if source.is_dir() else []
        folders = [source / f"{split}{ending}" for ending in ("_labels", "annot")]
        labels = next((folder for folder in folders if folder.is_dir()), None)
        if arrays:
            splits[split] = _from_arrays(arrays[0], split, info.labels, size, problems)
        elif labels is not None:
            frames = found_files(source / split, "*.png") + found_files(source / split, "*.jpg")
            read = partial(_frame, folder=labels, labels=info.labels, size=size)
            splits[split] = collected(frames, read, problems)
    if not any(len(samples) for samples in splits.values()):
        raise nothing_found(source, "train/ with train_labels/ or trainannot/, nor *-train.npz")
    return Imported(info, splits, "official 367/101/233 as distributed", problems)


def _frame(path: Path, folder: Path, labels: LabelSpace, size: tuple[int, int] | None) -> Sample:
    known = (folder / f"{path.stem}_L.png", folder / f"{path.stem}.png")
    file = next((file for file in known if file.is_file()), None)
    if file is None:
        raise FileProblem(path, f"there is no label file for it in {folder}", "add it or remove the image")
    image, label_map = read_image(path), _label_map(own_file(folder, file))
    require_size(label_map, image, file)
    require_classes(label_map, labels, file)
    label_map = nearest(label_map, size)
    return Sample(path.stem, smooth(image, size), label_map[None], np.ones(1), ("labels",))


def _label_map(path: Path) -> NDArray[np.uint8]:
    """Class numbers from an image of them, or of the 32 colours."""
    layers = (
        read_image(path)
        if path.name.endswith("_L.png")
        else read_mask(path, MaskRules(ignore_value=255))[None]
    )
    if len(layers) == 1:
        return np.asarray(layers[0], np.uint8)
    codes = layers.astype(np.int64)
    codes = (codes[0] << 16) + (codes[1] << 8) + codes[2]
    table = {(r << 16) + (g << 8) + b: number for (r, g, b), number in COLORS.items()}
    values, places = np.unique(codes, return_inverse=True)
    unknown = [divmod(value >> 8, 256) + (value & 255,) for value in values.tolist() if value not in table]
    if unknown:
        raise AmbisegError(
            f"{path}: the color(s) {unknown[:5]} are none of CamVid's 32: this may be another data set"
        )
    return np.array([table[value] for value in values.tolist()], np.uint8)[places].reshape(codes.shape)


def _from_arrays(
    path: Path, split: str, labels: LabelSpace, size: tuple[int, int] | None, problems: list[FileProblem]
) -> Lazy:
    """Frames of one file, whose arrays must belong together: nothing could be said of a single frame."""
    images: NDArray[Any] = npz_array(path, "images")
    label_maps: NDArray[Any] = npz_array(path, "labels")
    if images.shape != (*label_maps.shape, 3) or images.dtype != np.uint8 or label_maps.dtype != np.uint8:
        raise FileProblem(
            path, f"images {images.shape} and labels {label_maps.shape} do not fit", "copy it again"
        )

    def read(i: int) -> Sample:
        require_classes(label_maps[i], labels, f"{path}, frame {i}")
        image, label_map = images[i].transpose(2, 0, 1), nearest(label_maps[i], size)
        return Sample(f"{split}-{i:04}", smooth(image, size), label_map[None], np.ones(1), ("labels",))

    return collected(range(len(images)), read, problems)
