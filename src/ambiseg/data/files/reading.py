"""Single images and masks on disk, as strangers wrote them.

Everything is checked before it is believed: the size is read from the header before any pixel is decoded,
pickles are never loaded, and whatever a decoder stumbles over becomes one sentence with the file name.
Images come out as ``(C, H, W)``, masks as ``(H, W)``, turned as a viewer shows them. The first axis of a NIfTI
array is the height.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ambiseg.data.files.limits import MAX_PIXELS as MAX_PIXELS
from ambiseg.data.files.limits import MAX_VALUES as MAX_VALUES
from ambiseg.data.files.limits import check_size as check_size
from ambiseg.data.files.limits import npy_header
from ambiseg.data.files.mask_rules import Color, MaskRules
from ambiseg.data.files.nifti import read_header, read_values
from ambiseg.data.files.orientation import upright
from ambiseg.data.files.palette import from_colors, from_palette
from ambiseg.data.files.pictures import read_picture
from ambiseg.data.files.pixels import Pixels
from ambiseg.data.files.tiff import read_tiff
from ambiseg.data.files.validation import FileProblem, canonical_image, canonical_mask
from ambiseg.errors import AmbisegError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES)
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".npy", *VOLUME_SUFFIXES)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".webp", *MASK_SUFFIXES)

_SLICES = "add 'slices: {axis: axial}' to dataset.yaml to read volumes, or save one slice per file"
_EXPORT_AGAIN = "it may be truncated or of another format; copy or export it again"


def suffix_of(path: str | PathLike[str]) -> str:
    """The suffix in lower case, ``.nii.gz`` as one.

    Example:
        >>> suffix_of("a/Scan.NII.GZ")
        '.nii.gz'
    """
    name = os.path.basename(path).lower()
    suffix = os.path.splitext(name)[1]
    return ".nii.gz" if name.endswith(".nii.gz") else suffix if suffix != "." else ""


def stem_of(path: str | PathLike[str]) -> str:
    """The file name without its suffix.

    Example:
        >>> stem_of("a/scan.1.nii.gz")
        'scan.1'
    """
    name = os.path.basename(path)
    return name[: len(name) - len(suffix_of(path))]


def read_image(path: str | PathLike[str]) -> NDArray[np.generic]:
    """Read an image as ``(C, H, W)`` in its own number type: uint8, uint16, int16, or float32 for any other.

    PNG, JPEG, BMP, WebP, TIFF, NumPy (``(H, W)`` or ``(C, H, W)``) and NIfTI. It is turned as a viewer shows it, palettes
    and inks become RGB, alpha is dropped.

    Raises:
        AmbisegError: missing, unreadable, too large, not one 2-d image, with NaN or infinite values, or with
            numbers far outside of the others that the file declares to be no measurement.
    """
    found = decode(Path(path), False)
    image = canonical_image(found.shown(), path)
    if found.nodata is not None and math.isfinite(found.nodata):
        _require_measured(image, found.nodata, path)
    return image


def read_array(path: str | PathLike[str]) -> NDArray[Any]:
    """The numbers of a NumPy file as they are, ``(C, H, W)``, of ``(H, W)`` with C = 1.

    Raises:
        AmbisegError: missing, unreadable, too large, or of another shape.
    """
    return decode(Path(path), False).values


def read_opaque(path: str | PathLike[str]) -> NDArray[np.generic]:
    """The same as `read_image`, for a picture of a mask: transparent pixels are refused."""
    found = decode(Path(path), False)
    _require_opaque(found, path)
    return canonical_image(found.shown(), path)


@dataclass(frozen=True)
class LabelMap:
    """A mask as it was read.

    Attributes:
        mask: ``(H, W)`` uint8.
        colors: colour of each index that it holds, where the indices of a palette were taken for the classes.
    """

    mask: NDArray[np.uint8]
    colors: dict[int, Color] | None = None


def read_mask(path: str | PathLike[str], rules: MaskRules | None = None) -> NDArray[np.uint8]:
    """Read a label map as ``(H, W)`` uint8, turned as a viewer shows it.

    Args:
        path: PNG, BMP, TIFF, NumPy or NIfTI. Numbers are classes; of two classes, black is 0 and white is 1. Colours
            are those of the classes; of a palette with many others the index is the class.
        rules: classes, their colours, and the number to leave out; unless that is 255, a mask of 0 and 255
            becomes 0 and 1.

    Raises:
        AmbisegError: missing, unreadable, too large, not opaque, or with numbers or colours that are no
            classes.
    """
    return read_label_map(path, rules or MaskRules()).mask


def read_label_map(path: str | PathLike[str], rules: MaskRules) -> LabelMap:
    """The same as `read_mask`, with the colours whose indices were taken."""
    return label_map_of(decode(Path(path), True), path, rules)


def label_map_of(found: Pixels, path: str | PathLike[str], rules: MaskRules) -> LabelMap:
    """The label map of pixels that were decoded; ``path`` is their name in messages."""
    values, colors = found.values, None
    if found.lossy:
        raise FileProblem(path, "the content is JPEG or WebP, which alters class numbers", "save it as PNG")
    _require_opaque(found, path)
    if found.palette is not None:
        numbers, colors = from_palette(values[0], found.palette, rules, path)
    elif found.rgb:
        numbers = from_colors(values, rules, path)
    elif len(values) > 1 and values.shape[2] == 1:
        numbers = values[..., 0]
    elif len(values) == 1:
        numbers = values[0]
    else:
        raise FileProblem(
            path, f"the mask has {len(values)} channels", "save class numbers, as a grey or palette image"
        )
    mask = canonical_mask(numbers, path, rules)
    nodata = found.nodata
    if nodata and nodata != rules.ignore_value and 0 < nodata < 256 and bool((numbers == nodata).any()):
        raise FileProblem(
            path,
            f"it holds {nodata:g}, which it declares to be no data",
            f"add 'ignore_value: {nodata:g}' to dataset.yaml, or remove the declaration (tag GDAL_NODATA)",
        )
    return LabelMap(upright(mask, found.orientation), colors)


def _require_opaque(found: Pixels, path: str | PathLike[str]) -> None:
    if found.alpha is not None and not found.alpha.all():
        share = 1 - found.alpha.mean()
        raise FileProblem(
            path,
            f"{share:.1%} of its pixels are transparent, so its numbers are not what a viewer shows",
            "save it without transparency",
        )


def _require_measured(image: NDArray[np.generic], nodata: float, path: str | PathLike[str]) -> None:
    """Refuse numbers that are no measurement, unless they lie among the others, such as 0 in uint8."""
    missing = image == image.dtype.type(nodata) if _holds(image.dtype, nodata) else np.zeros((1,), bool)
    count = int(missing.sum())
    if not count:
        return
    rest = image[~missing].astype(np.float64)
    low, high = (rest.min(), rest.max()) if rest.size else (0.0, 0.0)
    if not 2 * low - high <= nodata <= 2 * high - low:
        raise FileProblem(
            path,
            f"{count} values are {nodata:g}, which it declares to be no data; the others are {low:g} to {high:g}",
            f"replace them by a number from {low:g} to {high:g}, and mark these pixels with ignore_value in the"
            " masks",
        )


def _holds(dtype: np.dtype[Any], number: float) -> bool:
    """Whether a number type has this number."""
    if dtype.kind == "f":
        return True
    info = np.iinfo(dtype)
    return info.min <= number <= info.max and number == int(number)


def read_affine(path: str | PathLike[str]) -> NDArray[np.float64] | None:
    """The ``(4, 4)`` voxel-to-world matrix of a NIfTI file; None for every other format."""
    if suffix_of(path) not in NIFTI_SUFFIXES:
        return None
    _check_file(Path(path))
    import nibabel

    try:
        return np.asarray(nibabel.load(path).affine, dtype=np.float64)
    except Exception as error:
        raise FileProblem(path, f"no NIfTI header ({one_line(error)})", _EXPORT_AGAIN) from error


def write_mask(
    partial: Path,
    mask: NDArray[np.integer[Any]],
    affine: NDArray[np.float64] | None = None,
    colors: Sequence[tuple[int, int, int]] = (),
) -> None:
    """Write a label map ``(H, W)`` as PNG or NIfTI, by the suffix, into a folder that is being prepared.

    Args:
        partial: in such a folder (`ambiseg.atomic_write`); ends with .png, .nii or .nii.gz.
        mask: integers 0..255.
        affine: ``(4, 4)`` voxel-to-world matrix, NIfTI only; the identity if None.
        colors: of the classes, PNG only: the integers stay, and a viewer shows them in these colours.

    Raises:
        AmbisegError: another suffix, another shape, values outside 0..255, or the system refuses the write.
    """
    suffix = suffix_of(partial)
    values = canonical_mask(np.asarray(mask), partial, MaskRules(ignore_value=255))
    if suffix not in (".png", *NIFTI_SUFFIXES):
        raise FileProblem(partial, f"masks are not written as {suffix!r}", "use .png, .nii or .nii.gz")
    if suffix == ".png":
        partial.write_bytes(mask_png(values, colors))
    else:
        import nibabel

        nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), partial)


def mask_png(mask: NDArray[np.uint8], colors: Sequence[tuple[int, int, int]] = ()) -> bytes:
    """A label map ``(H, W)`` as the bytes of a PNG; colours as of `write_mask`."""
    picture, stream = Image.fromarray(mask), io.BytesIO()
    if colors:
        picture.putpalette([part for color in colors for part in color])
    picture.save(stream, "png")
    return stream.getvalue()


def one_line(error: BaseException) -> str:
    """What a decoder said, without line breaks and addresses in memory; its kind if it said nothing."""
    said = re.sub(r":? ?<[\w.]+ object at 0x[0-9a-f]+>", "", str(error))
    return " ".join(said.split())[:200] or type(error).__name__


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileProblem(path, "there is no such file", "correct the path")
    if not path.is_file():
        raise FileProblem(path, "this is not a file", "name a single image or mask")
    if path.stat().st_size == 0:
        raise FileProblem(path, "the file is empty (0 bytes)", "copy or export it again")


def decode(path: Path, as_mask: bool) -> Pixels:
    """The numbers of a file as they are stored; whatever goes wrong becomes a `FileProblem`."""
    suffix = suffix_of(path)
    known = MASK_SUFFIXES if as_mask else IMAGE_SUFFIXES
    if suffix not in known:
        what, why = ("mask", " (JPEG and WebP alter class numbers)") if as_mask else ("image", "")
        raise FileProblem(path, f"{suffix!r} is no {what} format{why}", f"use one of {', '.join(known)}")
    try:
        _check_file(path)
        found = _READERS.get(suffix, read_picture)(path)
        if found.palette is not None and not 0 <= found.values.min() <= found.values.max() < len(
            found.palette
        ):
            raise ValueError(f"it uses other indices than the {len(found.palette)} of its palette")
        return found
    except AmbisegError:
        raise
    except Exception as error:
        kind = suffix.lstrip(".")
        raise FileProblem(path, f"cannot be read as {kind} ({one_line(error)})", _EXPORT_AGAIN) from error


def _read_numpy(path: Path) -> Pixels:
    with open(path, "rb") as stream:
        shape, _ = npy_header(stream, path)
    if not 2 <= len(shape) <= 4 or 0 in shape:
        raise FileProblem(
            path, f"the array has shape {shape}", "save it as (height, width) or (channels, ...)"
        )
    check_size(path, shape)
    values: NDArray[Any] = np.load(path, allow_pickle=False)
    while values.ndim > 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    return Pixels(values[None] if values.ndim == 2 else values)


def _read_nifti(path: Path) -> Pixels:
    header = read_header(path)
    shape = header.shape
    if len(shape) < 2 or any(n != 1 for n in shape[2:]):
        raise FileProblem(path, f"the array has shape {shape}, a volume", _SLICES)
    values = read_values(header, lambda shape: check_size(path, shape[:2]))
    return Pixels(values.reshape(1, *shape[:2]))


def _read_nrrd(path: Path) -> Pixels:
    raise FileProblem(path, "NRRD files are volumes", _SLICES)


_READERS: dict[str, Callable[[Path], Pixels]] = {
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".npy": _read_numpy,
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
    ".nrrd": _read_nrrd,
    ".nhdr": _read_nrrd,
}
