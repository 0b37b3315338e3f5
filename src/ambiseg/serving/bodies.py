"""Bodies of requests: read within limits of time and size, told apart by their first bytes, decoded within bounds.

A body goes to a temporary file as it arrives, so that a slow or large one holds no memory.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import logging
import re
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
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
FIELD_BYTES = 1 << 16
"""Largest field of a form that is no file."""

_BOUNDARY = re.compile(r"[A-Za-z0-9'()+_,./:=? -]{1,200}")
_LOG = logging.getLogger("ambiseg.serving")

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


@dataclass
class Stored:
    """A body in a temporary file.

    Attributes:
        path: of the file.
        size: bytes of the request that have arrived.
    """

    path: Path
    size: int = 0


class Store:
    """The folder in which bodies are kept while they are read and decoded.

    Args:
        folder: is made again where somebody removed it.
        most: bytes of all bodies together.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._numbers = itertools.count()
        self._held = 0

    @contextmanager
    def place(self) -> Iterator[Stored]:
        """A name for one body; whatever bears it is removed at the end."""
        stored = Stored(self._folder / str(next(self._numbers)))
        try:
            yield stored
        finally:
            self._held -= stored.size
            stored.path.unlink(missing_ok=True)
            for named in self._folder.glob(f"{stored.path.name}.*"):  # by `decode`, which may still run
                named.unlink(missing_ok=True)

    async def receive(self, request: Request, stored: Stored, most: int, seconds: float) -> None:
        """Write the image of a request to its file: the body, or the field ``image`` of a form.

        Args:
            request: its body is read here.
            stored: of `place`.
            most: bytes of the body.
            seconds: in which the body must have arrived.

        Raises:
            HTTPException: 400 no body or a damaged form, 408 too slow, 413 too large, 499 cut off, 503 too many
                bodies at once, 507 the disk is full.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._write(request, stored, most)
        except TimeoutError:
            raise HTTPException(
                408,
                f"the body did not arrive within {seconds:g} s: send it faster or send a smaller image",
                CLOSE,
            ) from None
        except ClientDisconnect:
            raise HTTPException(CUT_OFF, "the request was cut off") from None
        except OSError as error:
            _LOG.error("a body cannot be stored in %s: %s", self._folder, error)
            raise HTTPException(
                507, f"the service cannot store the body ({error.strerror}): tell who runs it", CLOSE
            ) from None
        if not stored.path.stat().st_size:
            raise HTTPException(400, "the body is empty: send the bytes of an image")

    async def _write(self, request: Request, stored: Stored, most: int) -> None:
        form = _form_headers(request)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(stored.path, "wb") as file:
            async with aclosing(self._limited(request, stored, most)) as stream:
                if form is None:
                    async for part in stream:
                        file.write(part)
                    return
                parser = MultiPartParser(form, stream, max_files=1, max_fields=4, max_part_size=FIELD_BYTES)
                try:
                    fields = await parser.parse()
                except MultiPartException as error:
                    raise HTTPException(
                        400, f"the form cannot be read ({error.message}): send it again", CLOSE
                    ) from None
            upload = fields.get(FORM_FIELD)
            try:
                if not isinstance(upload, UploadFile):
                    raise HTTPException(
                        400, f"the form has no file {FORM_FIELD!r}: send the image under this name"
                    )
                while part := await upload.read(1 << 16):
                    file.write(part)
            finally:
                await fields.close()

    async def _limited(self, request: Request, stored: Stored, most: int) -> AsyncGenerator[bytes, None]:
        """The parts of a body, while they are not too many bytes."""
        refusal = f"more than the limit of {readable(most)}: send a smaller image"
        declared = int(request.headers.get("content-length", 0))
        if declared > most:
            raise HTTPException(413, f"the body has {readable(declared)}, {refusal}", CLOSE)
        async for part in request.stream():
            stored.size += len(part)
            self._held += len(part)
            if stored.size > most:
                raise HTTPException(413, f"the body has {refusal}", CLOSE)
            if self._held > self._most:
                raise HTTPException(
                    503,
                    "too many bodies arrive at once: send this one again later",
                    {**CLOSE, "retry-after": "1"},
                )
            yield part


def _form_headers(request: Request) -> Headers | None:
    """What the parser of a form needs, with no other parameter than the boundary; None where the body is no form.

    The parser would decode fields by the ``charset`` that the client names, and some take very long.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        return None
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not _BOUNDARY.fullmatch(boundary):
        raise HTTPException(
            400, "the form cannot be read (its Content-Type has no valid boundary): send it again", CLOSE
        )
    return Headers({"content-type": f'multipart/form-data; boundary="{boundary}"'})


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
