"""Where an image and its mask lie in the world: whether the voxels of one are those of the other.

A NIfTI file says with an affine where its voxels lie, in millimetres. The same outline, stored from right to
left in one file and from left to right in another, is the same place in another voxel order: it is put in the
order of the image. A mask on another grid is refused, or resampled where that is asked for. A slice of a
folder and a volume of an importer are compared alike.
"""

from __future__ import annotations

import itertools
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.nifti import Header, read_header
from ambiseg.data.files.reading import NIFTI_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem

TOLERANCE = 0.1
"""How far the voxels of two grids may lie apart, in voxels of the image: less than rounding of affines, and
too little to matter for a label."""

OtherGrid = Literal["refuse", "resample", "voxels"]
"""What becomes of a mask that lies on another grid than its image: it is refused, resampled at the nearest
voxel, or believed to be stored voxel by voxel like the image, whatever its affine says."""

Placed = Literal["same", "reordered", "resampled"]
"""What had to be done with a mask."""

_Orientation = NDArray[Any]


def on_image(
    mask: NDArray[np.uint8], path: str | PathLike[str], image: str | PathLike[str]
) -> NDArray[np.uint8]:
    """A mask ``(H, W)`` in the voxel order of its image, where both are NIfTI files; unchanged otherwise.

    Args:
        mask: as it was read from ``path``.
        path: file of the mask.
        image: file of its image.

    Raises:
        FileProblem: the mask lies elsewhere than its image.
    """
    if suffix_of(path) not in NIFTI_SUFFIXES or suffix_of(image) not in NIFTI_SUFFIXES:
        return mask
    ours, theirs = header_of(Path(path)), header_of(Path(image))
    placed, _ = on_grid(mask.reshape(ours.grid), ours, theirs)
    return np.ascontiguousarray(placed.reshape(theirs.grid[:2]))


def header_of(path: Path) -> Header:
    """`read_header`, with whatever goes wrong as a `FileProblem`."""
    try:
        return read_header(path)
    except FileProblem:
        raise
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise FileProblem(
            path, f"cannot be read as NIfTI ({line})", "it may be truncated; copy it again"
        ) from error


def on_grid(
    labels: NDArray[np.uint8], mask: Header, image: Header, other_grid: OtherGrid = "refuse"
) -> tuple[NDArray[np.uint8], Placed]:
    """Labels of a mask at the voxels of its image.

    Args:
        labels: ``(X, Y, Z, ...)`` as stored.
        mask: header of the file that they come from.
        image: header of the image.
        other_grid: what becomes of a mask on another grid; what lies outside of the mask becomes 0.

    Returns:
        Labels in the shape of the image (and what follows Z), and what had to be done.

    Raises:
        FileProblem: another grid; no affine in one of the files only; an sform and a qform that would place
            the mask differently.
    """
    if other_grid == "voxels" or not (_forms(mask) or _forms(image)):
        if mask.grid != image.grid:
            raise _other_shape(mask, image)
        return labels, "same"
    for one, other in ((mask, image), (image, mask)):
        if not _forms(one):
            raise FileProblem(
                one.path,
                f"its header has no affine (sform and qform have code 0), but that of {other.path.name} has one",
                "save it with the affine of the scan",
            )
    pairs = _pairs(mask, image)
    found = [voxel_order(inside, mask.grid, image.grid) for inside in pairs]
    if any(str(orientation) != str(found[0]) for orientation in found):
        twofold = mask if len(_forms(mask)) > 1 else image
        raise FileProblem(
            twofold.path,
            "its sform and its qform place it differently",
            "set both to the affine of the scan",
        )
    if found[0] is not None:
        from nibabel import orientations

        placed = orientations.apply_orientation(labels, found[0])
        turned = not np.array_equal(found[0], [[0, 1], [1, 1], [2, 1]])
        return placed, "reordered" if turned else "same"
    if other_grid == "refuse":
        raise _other_grid(pairs[0], mask, image)
    if len(pairs) > 1:
        raise FileProblem(mask.path, "a second affine forbids to resample it", "set sform and qform alike")
    return _resampled(labels, mask, image), "resampled"


def _forms(header: Header) -> list[NDArray[np.float64]]:
    """The affines of a header: one where sform and qform agree, as they should."""
    forms = [form for form in (header.sform, header.qform) if form is not None]
    if len(forms) == 2 and distance(np.linalg.inv(forms[0]) @ forms[1], header.grid) <= TOLERANCE:
        return forms[:1]
    return forms


def _pairs(mask: Header, image: Header) -> list[NDArray[np.float64]]:
    """Matrices from voxels of the mask to voxels of the image, for each affine that a file has."""
    ours, theirs = _forms(mask), _forms(image)
    count = max(len(ours), len(theirs))
    return [
        np.linalg.inv(theirs[min(i, len(theirs) - 1)]) @ ours[min(i, len(ours) - 1)] for i in range(count)
    ]


def voxel_order(
    inside: NDArray[np.float64], grid: tuple[int, int, int], target: tuple[int, int, int]
) -> _Orientation | None:
    """The axes and directions in which a mask must be taken to lie voxel by voxel on its image.

    Args:
        inside: ``(4, 4)``, from voxels of the mask to voxels of the image.
        grid: extents of the mask.
        target: extents of the image.

    Returns:
        For each axis of the mask, the axis of the image and 1 or -1, as in nibabel; None if it lies elsewhere.
    """
    from nibabel import orientations

    axes: _Orientation = orientations.io_orientation(inside)
    if np.isnan(axes).any():
        return None
    sides = [0, 0, 0]
    for side, (axis, _) in zip(grid, axes, strict=True):
        sides[int(axis)] = side
    if tuple(sides) != target:
        return None
    rest = inside @ orientations.inv_ornt_aff(axes, grid)
    return axes if distance(rest, target) <= TOLERANCE else None


def distance(inside: NDArray[np.float64], grid: tuple[int, int, int]) -> float:
    """How far a matrix moves a corner of the grid, in voxels."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in grid))]).T
    return float(np.abs(inside @ corners - corners).max())


def _other_shape(mask: Header, image: Header) -> FileProblem:
    return FileProblem(
        mask.path,
        f"the mask has shape {mask.shape} but its image {image.shape}",
        "resample it on the grid of its image",
    )


def _other_grid(inside: NDArray[np.float64], mask: Header, image: Header) -> FileProblem:
    if sorted(mask.grid) != sorted(image.grid):
        return _other_shape(mask, image)
    first = (inside @ [0, 0, 0, 1])[:3].round(2).tolist()
    return FileProblem(
        mask.path,
        f"its affine places it elsewhere than its image: its first voxel is voxel {tuple(first)} there",
        "resample it on the grid of its image, or correct the affine",
    )


def _resampled(labels: NDArray[np.uint8], mask: Header, image: Header) -> NDArray[np.uint8]:
    """The label of the nearest voxel, for each voxel of the image."""
    import nibabel
    import nibabel.processing as processing

    resample: Any = processing.resample_from_to
    as_image = nibabel.Nifti1Image
    target, extra = (image.grid, _forms(image)[0]), labels.reshape(*mask.grid, -1)
    layers = [
        np.asarray(resample(as_image(layer, _forms(mask)[0]), target, order=0, mode="grid-constant").dataobj)
        for layer in np.moveaxis(extra, -1, 0)
    ]
    placed = np.stack(layers, axis=-1).reshape(*image.grid, *labels.shape[3:]).astype(np.uint8)
    if labels.any() and not placed.any():
        raise FileProblem(mask.path, "all that it marks lies outside of its image", "correct its affine")
    return placed
