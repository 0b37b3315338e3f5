"""Single images and masks on disk, as strangers wrote them.

Everything is checked before it is believed: the size is read from the header before any pixel is decoded,
pickles are never loaded, and whatever a decoder stumbles over becomes one sentence with the file name.
Images come out as
``(C, H, W)``, masks as ``(H, W)``. The first axis of a NIfTI array is the height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ambiseg.data.files.nifti import nibabel_of, read_header, read_values
from ambiseg.data.files.validation import FileProblem, canonical_image, canonical_mask
from ambiseg.errors import AmbisegError

MAX_PIXELS = 100_000_000
"""Largest height times width that is decoded."""

MAX_VALUES = 4 * MAX_PIXELS
"""Largest channels times height times width that is decoded."""

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".npy", *NIFTI_SUFFIXES)
IMAGE_SUFFIXES = (".jpg", ".jpeg", *MASK_SUFFIXES)

_PLAIN_MODES = ("1", "L", "LA", "I;16", "I;16B", "I", "F", "RGB", "RGBA")
_EXPORT_AGAIN = "it may be truncated or of another format; copy or export it again"


def suffix_of(path: str | PathLike[str]) -> str:
    """The suffix in lower case, ``.nii.gz`` as one.

    Example:
        >>> suffix_of("a/Scan.NII.GZ")
        '.nii.gz'
    """
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def stem_of(path: str | PathLike[str]) -> str:
    """The file name without its suffix.

    Example:
        >>> stem_of("a/scan.1.nii.gz")
        'scan.1'
    """
    name = Path(path).name
    return name[: len(name) - len(suffix_of(path))]


def read_image(path: str | PathLike[str]) -> NDArray[np.generic]:
    """Read an image as ``(C, H, W)`` in its own number type: uint8, uint16, int16, or float32 for any other.

    PNG, JPEG, TIFF, NumPy (``(H, W)`` or ``(C, H, W)``) and NIfTI; palettes become RGB, alpha is dropped.

    Raises:
        AmbisegError: missing, unreadable, too large, not one 2-d image, or with NaN or infinite values.
    """
    return canonical_image(_decode(Path(path), False), path)


def read_mask(path: str | PathLike[str], ignore_value: int | None = None) -> NDArray[np.uint8]:
    """Read a label map as ``(H, W)`` uint8.

    Args:
        path: PNG (a palette gives its indices), TIFF, NumPy or NIfTI.
        ignore_value: value of pixels to leave out; unless it is 255, a mask of 0 and 255 becomes 0 and 1.

    Raises:
        AmbisegError: missing, unreadable, too large, in colour, or with values that are no class numbers.
    """
    layers = _decode(Path(path), True)
    if len(layers) != 1:
        raise FileProblem(
            path, f"the mask has {len(layers)} channels", "save class numbers, as a grey or palette image"
        )
    return canonical_mask(layers[0], path, ignore_value)


def read_affine(path: str | PathLike[str]) -> NDArray[np.float64] | None:
    """The ``(4, 4)`` voxel-to-world matrix of a NIfTI file; None for every other format."""
    if suffix_of(path) not in NIFTI_SUFFIXES:
        return None
    _check_file(Path(path))
    nibabel = nibabel_of(path)
    try:
        return np.asarray(nibabel.load(path).affine, dtype=np.float64)
    except Exception as error:
        raise FileProblem(path, f"no NIfTI header ({_one_line(error)})", _EXPORT_AGAIN) from error


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
    values = canonical_mask(np.asarray(mask), partial, 255)
    if suffix not in (".png", *NIFTI_SUFFIXES):
        raise FileProblem(partial, f"masks are not written as {suffix!r}", "use .png, .nii or .nii.gz")
    if suffix == ".png":
        picture = Image.fromarray(values)
        if colors:
            picture.putpalette([part for color in colors for part in color])
        picture.save(partial)
    else:
        nibabel = nibabel_of(partial)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), partial)


def check_size(file: str | PathLike[str], shape: tuple[int, ...]) -> None:
    """Raise `FileProblem` if an array of ``(..., H, W)`` exceeds `MAX_PIXELS` or `MAX_VALUES`."""
    height, width = int(shape[-2]), int(shape[-1])
    values = height * width
    for extent in shape[:-2]:
        values *= int(extent)
    if height * width > MAX_PIXELS or values > MAX_VALUES:
        raise FileProblem(
            file,
            f"{height}x{width} pixels ({values} values) are more than the limit of {MAX_PIXELS} pixels"
            f" ({MAX_VALUES} values)",
            "cut it into tiles or scale it down",
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_file(path: Path) -> None:
    if not path.exists():
        raise FileProblem(path, "there is no such file", "correct the path")
    if not path.is_file():
        raise FileProblem(path, "this is not a file", "name a single image or mask")
    if path.stat().st_size == 0:
        raise FileProblem(path, "the file is empty (0 bytes)", "copy or export it again")


def _decode(path: Path, as_mask: bool) -> NDArray[Any]:
    """Pixels as ``(C, H, W)``; whatever goes wrong becomes a `FileProblem`."""
    suffix = suffix_of(path)
    known = MASK_SUFFIXES if as_mask else IMAGE_SUFFIXES
    if suffix not in known:
        what, why = ("mask", " (JPEG alters class numbers)") if as_mask else ("image", "")
        raise FileProblem(path, f"{suffix!r} is no {what} format{why}", f"use one of {', '.join(known)}")
    try:
        _check_file(path)
        return _READERS.get(suffix, _read_picture)(path, as_mask)
    except AmbisegError:
        raise
    except Exception as error:
        kind = suffix.lstrip(".")
        raise FileProblem(path, f"cannot be read as {kind} ({_one_line(error)})", _EXPORT_AGAIN) from error


def _open_picture(path: Path) -> ImageFile:
    """Open by content, since suffixes lie; ``Image.open`` would warn of sizes that are refused here."""
    for kind in (PngImageFile, JpegImageFile):
        try:
            return kind(path)
        except SyntaxError:
            continue
    return TiffImageFile(path)


def _read_picture(path: Path, as_mask: bool) -> NDArray[Any]:
    """PNG and JPEG, and those TIFF compressions that only Pillow decodes."""
    with _open_picture(path) as opened:
        check_size(path, (len(opened.getbands()), opened.height, opened.width))
        raw = str(opened.tile[0].args) if isinstance(opened, PngImageFile) else ""
        picture: Image.Image = opened
        if isinstance(opened, JpegImageFile):
            if as_mask:
                raise FileProblem(path, "the content is JPEG, which alters class numbers", "save it as PNG")
            picture = ImageOps.exif_transpose(opened)
        if raw == "LA;16B":
            raise FileProblem(path, "16-bit grey with alpha is not read", "save it without alpha or as TIFF")
        if raw in ("RGB;16B", "RGBA;16B"):
            return _deep_colors(path, raw)
        mode = picture.mode
        if mode == "1" and not as_mask:
            picture = picture.convert("L")
        elif mode not in _PLAIN_MODES and not (as_mask and mode == "P"):
            picture = picture.convert("RGB")
        values: NDArray[Any] = np.asarray(picture)
        if as_mask and raw in ("L;2", "L;4"):
            values = values // (85 if raw == "L;2" else 17)
    if values.ndim == 2:
        return values[None]
    return values[..., : 1 if picture.mode == "LA" else 3].transpose(2, 0, 1)


def _deep_colors(path: Path, raw: str) -> NDArray[np.uint16]:
    """PNG with 16 bits per colour: Pillow hands out 8 of them at a time, the high byte or the low one."""
    halves: list[NDArray[np.uint16]] = []
    for order in (raw, raw.replace("16B", "16L")):
        with PngImageFile(path) as picture:
            picture.tile = [picture.tile[0]._replace(args=order)]
            halves.append(np.asarray(picture)[..., :3].astype(np.uint16))
    return (halves[0] * np.uint16(256) + halves[1]).transpose(2, 0, 1)


def _read_tiff(path: Path, as_mask: bool) -> NDArray[Any]:
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.series) != 1:
            raise FileProblem(path, f"it holds {len(tiff.series)} image series", "save one image per file")
        series = tiff.series[0]
        page, axes, shape = series.keyframe, series.axes, series.shape
        y, x = axes.find("Y"), axes.find("X")
        others = [i for i in range(len(shape)) if i not in (y, x)]
        if y < 0 or x < 0 or sum(shape[i] > 1 for i in others) > 1:
            raise FileProblem(path, f"axes {axes} of shape {shape} are not an image", "save one per file")
        check_size(path, tuple(shape[i] for i in (*others, y, x)))
        try:
            values = series.asarray()
        except ValueError as error:
            plain = page.bitspersample == 8 or (page.samplesperpixel == 1 and page.bitspersample == 16)
            if "imagecodecs" not in str(error):
                raise
            if len(tiff.pages) > 1 or not plain:
                raise FileProblem(
                    path, f"it cannot be decoded ({error})", "pip install imagecodecs"
                ) from error
            return _read_picture(path, as_mask)
        values = values.transpose([*others, y, x]).reshape(-1, shape[y], shape[x])
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype.kind in "bu":
            values = ~values
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not as_mask:
            return (np.asarray(page.colormap)[:, values[0]] >> 8).astype(np.uint8)
        if values.dtype.kind == "b" and not as_mask:
            return values.astype(np.uint8) * 255
        alpha = page.extrasamples and int(page.extrasamples[-1]) in (1, 2)
        return values[:-1] if alpha and len(values) == page.samplesperpixel > 1 else values


def _read_numpy(path: Path, as_mask: bool) -> NDArray[Any]:
    del as_mask
    with open(path, "rb") as stream:
        old = np.lib.format.read_magic(stream) == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    if dtype.kind not in "buif":
        raise FileProblem(path, f"values of type {dtype} are not pixels", "save integers or floats")
    if len(shape) not in (2, 3) or 0 in shape:
        raise FileProblem(
            path, f"the array has shape {shape}", "save it as (height, width) or (channels, ...)"
        )
    check_size(path, shape)
    values: NDArray[Any] = np.load(path, allow_pickle=False)
    return values[None] if values.ndim == 2 else values


def _read_nifti(path: Path, as_mask: bool) -> NDArray[Any]:
    del as_mask
    header = read_header(path)
    shape = header.shape
    if len(shape) < 2 or any(n != 1 for n in shape[2:]):
        raise FileProblem(path, f"the array has shape {shape}, a volume", "save one slice per file")
    values = read_values(header, lambda shape: check_size(path, shape[:2]))
    return values.reshape(1, *shape[:2])


_READERS: dict[str, Callable[[Path, bool], NDArray[Any]]] = {
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".npy": _read_numpy,
    ".nii": _read_nifti,
    ".nii.gz": _read_nifti,
}
