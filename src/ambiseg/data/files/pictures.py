"""PNG, JPEG, BMP and WebP, and those TIFF compressions that only Pillow decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import PREFIXES, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ambiseg.data.files.limits import check_chunks, check_markers, check_scans, check_size
from ambiseg.data.files.orientation import TAG
from ambiseg.data.files.pixels import Pixels, colors_of
from ambiseg.data.files.validation import FileProblem

_PLAIN_MODES = ("1", "L", "LA", "P", "I;16", "I;16B", "I", "F", "RGB", "RGBA")
NODATA = 42113
"""TIFF tag in which GDAL writes the number that is no measurement."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _COLOR_MAP = 258, 262, 320


def read_picture(path: Path) -> Pixels:
    """Decode a file with Pillow, which looks at its content and not at its suffix.

    Raises:
        FileProblem: too large, several frames, or 16-bit grey with alpha.
    """
    size = _webp_size(path)
    if size is not None:
        check_size(path, (3, *size))
    with _opened(path) as picture:
        check_size(path, (len(picture.getbands()), picture.height, picture.width))
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise FileProblem(path, f"it holds {frames} pictures", "save one per file")
        if isinstance(picture, TiffImageFile):
            return _tiff(picture)
        if isinstance(picture, PngImageFile):
            return _png(path, picture)
        if isinstance(picture, BmpImageFile):
            return _bmp(picture)
        values, _ = _planes(picture)
        return Pixels(values, rgb=len(values) == 3, orientation=_orientation(picture), lossy=True)


def pixels_of(picture: Image.Image) -> Pixels:
    """The numbers of a picture that somebody else opened or made."""
    values, alpha = _planes(picture)
    palette = None
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    clear = picture.info.get("transparency")
    if clear is not None:
        alpha = _alpha_of(values, clear, palette)
    lossy = isinstance(picture, (JpegImageFile, WebPImageFile))
    bits = 1 if picture.mode == "1" else 8
    return Pixels(values, palette, len(values) == 3, alpha, bits, _orientation(picture), lossy=lossy)


def _opened(path: Path) -> ImageFile:
    """By its first bytes; ``Image.open`` would warn of sizes that are refused here."""
    with open(path, "rb") as stream:
        start = stream.read(12)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        check_chunks(path)
        return PngImageFile(path)
    if start.startswith(b"\xff\xd8"):
        check_markers(path)
        check_scans(path)
        return JpegImageFile(path)
    if start.startswith(b"BM"):
        return BmpImageFile(path)
    if start.startswith(b"RIFF") and start.endswith(b"WEBP"):
        return WebPImageFile(path)
    if not start.startswith(tuple(PREFIXES)):
        raise ValueError("its content is damaged or no picture")
    picture = TiffImageFile(path)
    check_scans(path, len(picture.tile))
    return picture


def _orientation(picture: Image.Image) -> int:
    tag = picture.getexif().get(TAG, 1)
    return tag if isinstance(tag, int) else 1


def _planes(picture: Image.Image) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Colours or indices ``(C, H, W)``, and where they are opaque, if there is alpha."""
    if picture.mode not in _PLAIN_MODES:
        picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
    values: NDArray[Any] = np.asarray(picture)
    if values.ndim == 2:
        return values[None].astype(np.uint8) if picture.mode == "1" else values[None], None
    values = values.transpose(2, 0, 1)
    return (values[:-1], values[-1] == 255) if picture.mode in ("LA", "RGBA") else (values, None)


def _png(path: Path, picture: PngImageFile) -> Pixels:
    raw, bits, palette = str(picture.tile[0].args), 8, None
    if raw == "LA;16B":
        raise FileProblem(path, "16-bit grey with alpha is not read", "save it without alpha or as TIFF")
    if raw in ("RGB;16B", "RGBA;16B"):
        values, alpha = _deep_colors(path, raw)
    else:
        values, alpha = _planes(picture)
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    elif picture.mode == "1" or raw in ("L;2", "L;4"):
        bits = {"L;2": 2, "L;4": 4}.get(raw, 1)
        values = values // (85 if bits == 2 else 17 if bits == 4 else 1)
    clear = picture.info.get("transparency")
    if clear is not None:
        alpha = _alpha_of(values, clear, palette)
    return Pixels(values, palette, len(values) == 3, alpha, bits, _orientation(picture))


def _bmp(picture: BmpImageFile) -> Pixels:
    values, alpha = _planes(picture)
    palette = None
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return Pixels(values, palette, len(values) == 3, alpha, 1 if picture.mode == "1" else 8)


def _webp_size(path: Path) -> tuple[int, int] | None:
    """Height and width in the header of a WebP file, whose decoder makes room for them when it is opened."""
    with open(path, "rb") as stream:
        head = stream.read(30)
    if len(head) < 30 or head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    return int.from_bytes(head[28:30], "little") & 0x3FFF, int.from_bytes(head[26:28], "little") & 0x3FFF


def _alpha_of(values: NDArray[Any], clear: Any, palette: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
    """Where a PNG is opaque: ``clear`` is one transparent number or colour, or the alpha of each index."""
    if palette is not None and isinstance(clear, bytes):
        alphas = np.full(256, 255, np.uint8)
        alphas[: len(clear)] = np.frombuffer(clear, np.uint8)
        opaque: NDArray[np.bool_] = alphas[values[0]] == 255
        return opaque
    color = np.asarray(clear).reshape(-1, 1, 1)
    different: NDArray[np.bool_] = (values != color).any(0)
    return different


def _deep_colors(path: Path, raw: str) -> tuple[NDArray[np.uint16], NDArray[np.bool_] | None]:
    """PNG with 16 bits per colour: Pillow hands out 8 of them at a time, the high byte or the low one."""
    halves: list[NDArray[np.uint16]] = []
    for order in (raw, raw.replace("16B", "16L")):
        with PngImageFile(path) as picture:
            picture.tile = [picture.tile[0]._replace(args=order)]
            halves.append(np.asarray(picture).astype(np.uint16))
    values = (halves[0] * np.uint16(256) + halves[1]).transpose(2, 0, 1)
    return values[:3], values[3] == 65535 if len(values) == 4 else None


def _tiff(picture: TiffImageFile) -> Pixels:
    """What libtiff decodes; Pillow turns it upright while it loads."""
    tags: Any = picture.tag_v2
    bits = int(tags.get(_BITS_PER_SAMPLE, (1,))[0])
    inverted = tags.get(_PHOTOMETRIC) == 0
    palette = colors_of(tags[_COLOR_MAP]) if picture.mode == "P" else None
    nodata = number_of(tags.get(NODATA))
    values, alpha = _planes(picture)
    if picture.mode == "L" and bits in (2, 4):
        values = values // (255 // (2**bits - 1))
    if inverted and values.dtype == np.uint16:
        values = ~values
    bits = bits if palette is None else 8
    return Pixels(values, palette, len(values) == 3, alpha, bits, nodata=nodata)


def number_of(text: Any) -> float | None:
    """The number in the text of a tag; None where there is none.

    Example:
        >>> number_of("-9999 "), number_of(None), number_of("none")
        (-9999.0, None, None)
    """
    try:
        return None if text is None else float(str(text).strip().strip("\0"))
    except ValueError:
        return None
