"""BSDS500, natural images that about five people each have cut into regions: the region around one point, as
each sees it.

::

    data/images/{train,val,test}/<id>.jpg
    data/groundTruth/{train,val,test}/<id>.mat     groundTruth: a cell per annotator, with Segmentation (H, W) from 1

The mask of an annotator is the region of its Segmentation that holds the point.

Reference: Arbelaez, Maire, Fowlkes, Malik (2011), Contour detection and hierarchical image segmentation.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from ambiseg.data.files.reading import read_image
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.importers.base import Imported
from ambiseg.data.importers.reading import (
    collected,
    found_files,
    nothing_found,
    own_file,
    require_size,
    uniform_sample,
)
from ambiseg.data.importers.settings import BsdsSettings
from ambiseg.data.info import DatasetInfo
from ambiseg.data.listing import SPLITS
from ambiseg.data.sample import Sample
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace

MAX_BYTES = 2_000_000
"""Largest ``.mat`` file that is opened; those of BSDS500 are far smaller."""
MAX_UNPACKED_BYTES = 1 << 26
"""How much the compressed parts of such a file may unpack to; those of BSDS500 come to about 3 MB."""

_HEADER, _COMPRESSED = 128, 15


def read_bsds(source: Path, settings: BsdsSettings) -> Imported:
    """Open the folder ``data`` of the distribution, or one that holds it.

    Raises:
        AmbisegError: no such folders, or a point outside the image.
    """
    if not all(0 <= share < 1 for share in settings.point):
        raise AmbisegError(
            f"--point is two shares of 0 to below 1, such as 0.5 0.5, received {settings.point}"
        )
    root = next(
        (r for r in (source, source / "data", source / "BSDS500" / "data") if (r / "groundTruth").is_dir()),
        None,
    )
    if root is None:
        raise nothing_found(source, "data/images and data/groundTruth")
    problems: list[FileProblem] = []

    def read(path: Path) -> Sample:
        file = root / "groundTruth" / path.parent.name / f"{path.stem}.mat"
        image, masks = read_image(path), {}
        row, column = (int(s * n) for s, n in zip(settings.point, image.shape[1:], strict=True))
        for i, regions in enumerate(read_segmentations(own_file(root, file)), 1):
            require_size(regions.astype(np.uint8), image, file)
            masks[f"person-{i:02}"] = (regions == regions[row, column]).astype(np.uint8)
        return uniform_sample(path.stem, image, masks)

    splits = {split: found_files(root, f"images/{split}/*.jpg") for split in SPLITS}
    if not any(splits.values()):
        raise nothing_found(source, "images/{train,val,test}/<id>.jpg")
    info = DatasetInfo(
        "bsds500",
        LabelSpace.binary("region"),
        "BSDS500 (Arbelaez et al. 2011)",
        augment=dict.fromkeys(("rotate", "scale"), False),
    )
    found = {split: collected(paths, read, problems) for split, paths in splits.items() if paths}
    return Imported(info, found, "official 200/100/200", problems)


def read_segmentations(path: Path) -> list[NDArray[Any]]:
    """Region numbers ``(H, W)`` of every annotator of a ``groundTruth`` file.

    Raises:
        FileProblem: missing, too large, truncated, or another kind of MATLAB file.
    """
    if not path.is_file():
        raise FileProblem(path, "there is no such file", "unpack the whole distribution")
    if path.stat().st_size > MAX_BYTES:
        raise FileProblem(path, f"it is larger than {MAX_BYTES} bytes", "copy it again")
    try:
        _check_unpacked(path)
        cells = loadmat(path, variable_names=["groundTruth"])["groundTruth"].ravel()
        found = [np.asarray(cell["Segmentation"][0, 0]) for cell in cells]
    except FileProblem:
        raise
    except Exception as error:
        line = " ".join(str(error).split())
        raise FileProblem(
            path, f"no groundTruth can be read ({line})", "it may be truncated; copy it again"
        ) from error
    if not found or any(regions.ndim != 2 or regions.dtype.kind not in "ui" for regions in found):
        raise FileProblem(path, "groundTruth holds no Segmentation of whole numbers", "copy it again")
    return found


def _check_unpacked(path: Path) -> None:
    """Unpack every part of a MATLAB 5 file, as far as `MAX_UNPACKED_BYTES`, and keep nothing: scipy would
    unpack whatever there is."""
    content = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    if order is None:
        raise ValueError("it is no MATLAB 5 file")
    place, left = _HEADER, MAX_UNPACKED_BYTES
    while place + 8 <= len(content):
        kind, length = struct.unpack(f"{order}II", content[place : place + 8])
        if kind == _COMPRESSED:
            unpacking = zlib.decompressobj()
            left -= len(unpacking.decompress(content[place + 8 : place + 8 + length], left + 1))
            if left < 0:
                said = f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes"
                raise FileProblem(path, said, "copy it again")
        place += 8 + length
