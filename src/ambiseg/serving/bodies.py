"""Bodies of requests: read within limits of time and size, told apart by their first bytes, decoded within bounds.

A body goes to a temporary file as it arrives, so that a slow or large one holds no memory.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import IO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ambiseg.atomic_write import readable
from ambiseg.data.files.limits import lower_limits
from ambiseg.data.files.reading import read_image
from ambiseg.data.files.validation import FileProblem
from ambiseg.engine.postprocess import Image
from ambiseg.errors import AmbisegError
from ambiseg.serving.patience import CUT_OFF

CLOSE = {"connection": "close"}
FORM_FIELD = "image"

_STARTS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"II+\0": ".tif",
    b"MM\0+": ".tif",
    b"\x93NUMPY": ".npy",
}
_HEAD_BYTES = 540
_NIFTI_MAGIC = {344: b"n+1\0", 4: b"n+2\0"}


async def receive(request: Request, path: Path, most: int, seconds: float) -> None:
    """Write the image of a request to a file: the body, or the field ``image`` of a form.

    Args:
        request: its body is read here.
        path: of the file, which the caller removes.
        most: bytes of the body.
        seconds: in which the body must have arrived.

    Raises:
        HTTPException: 400 no body or a damaged form, 408 too slow, 413 too large, 499 cut off.
    """
    try:
        async with asyncio.timeout(seconds):
            with open(path, "wb") as file:
                await _write(request, file, most)
    except TimeoutError:
        raise HTTPException(
            408,
            f"the body did not arrive within {seconds:g} s: send it faster or send a smaller image",
            CLOSE,
        ) from None
    except ClientDisconnect:
        raise HTTPException(CUT_OFF, "the request was cut off") from None
    if not path.stat().st_size:
        raise HTTPException(400, "the body is empty: send the bytes of an image")


async def _write(request: Request, file: IO[bytes], most: int) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    async with aclosing(_limited(request, most)) as stream:
        if kind != "multipart/form-data":
            async for part in stream:
                file.write(part)
            return
        try:
            form = await MultiPartParser(request.headers, stream, max_files=1, max_fields=4).parse()
        except (MultiPartException, KeyError) as error:
            said = getattr(error, "message", "no boundary")
            raise HTTPException(400, f"the form cannot be read ({said}): send it again", CLOSE) from None
    upload = form.get(FORM_FIELD)
    if not isinstance(upload, UploadFile):
        raise HTTPException(400, f"the form has no file {FORM_FIELD!r}: send the image under this name")
    while part := await upload.read(1 << 16):
        file.write(part)
    await form.close()


async def _limited(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The parts of a body, while they are not too many bytes."""
    refusal = f"more than the limit of {readable(most)}: send a smaller image"
    declared = int(request.headers.get("content-length", 0))
    if declared > most:
        raise HTTPException(413, f"the body has {readable(declared)}, {refusal}", CLOSE)
    length = 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise HTTPException(413, f"the body has {refusal}", CLOSE)
        yield part


def decode(path: Path, pixels: int, values: int) -> Image:
    """The image ``(C, H, W)`` in a file without a suffix, which is removed.

    Args:
        path: the file; its content tells the format.
        pixels: most height times width.
        values: most channels times height times width.

    Raises:
        HTTPException: 415 no format that is read, 422 damaged, too large or no image.
    """
    suffix = kind_of(path)
    if suffix is None:
        raise HTTPException(
            415, "the body is no image that can be read: send PNG, JPEG, TIFF, NumPy (.npy) or NIfTI"
        )
    named = path.rename(path.with_suffix(suffix))
    try:
        with lower_limits(pixels, values):
            return read_image(named)
    except FileProblem as error:
        raise HTTPException(422, f"the image: {error.problem}: {error.remedy}") from error
    except AmbisegError as error:
        raise HTTPException(422, str(error).replace(str(named), "the image")) from error
    finally:
        named.unlink(missing_ok=True)


def kind_of(path: Path) -> str | None:
    """The suffix that the first bytes of a file ask for; None where it is nothing that is read."""
    with open(path, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
    for start, suffix in _STARTS.items():
        if head.startswith(start):
            return suffix
    if head.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path, "rb") as stream:
                head = stream.read(_HEAD_BYTES)
        except (OSError, EOFError, zlib.error):
            return None
        return ".nii.gz" if _is_nifti(head) else None
    return ".nii" if _is_nifti(head) else None


def _is_nifti(head: bytes) -> bool:
    return any(head[place:].startswith(magic) for place, magic in _NIFTI_MAGIC.items())
