"""Waiting for a thread on behalf of a request, no longer than its client waits."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from ambiseg.engine.machine.memory import NotEnoughMemoryError
from ambiseg.errors import AmbisegError

T = TypeVar("T")

CUT_OFF = 499
"""Status, in the metrics, of a request whose client went away."""


class Patience:
    """The time that is left for a request whose body has been read.

    Args:
        request: is watched for the end of its connection.
        seconds: for all that is waited for together.
    """

    def __init__(self, request: Request, seconds: float) -> None:
        self._request, self._seconds = request, seconds
        self._deadline = asyncio.get_running_loop().time() + seconds

    async def wait(self, future: Future[T]) -> T:
        """The result of a thread. What has not begun when the wait ends is cancelled.

        Raises:
            HTTPException: 413 it needs more memory than there is, 422 another mistake of the user, 499 the client is
                gone, 504 the time is over.
        """
        result, gone = asyncio.wrap_future(future), asyncio.ensure_future(_disconnection(self._request))
        left = max(0.0, self._deadline - asyncio.get_running_loop().time())
        try:
            both: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
        except NotEnoughMemoryError as error:
            raise HTTPException(413, str(error)) from error
        except AmbisegError as error:
            raise HTTPException(422, str(error)) from error
        finally:
            result.cancel()
            gone.cancel()
        if gone.done():
            raise HTTPException(CUT_OFF, "the client went away")
        raise HTTPException(
            504, f"no answer within {self._seconds:g} s: send a smaller image, or send it again later"
        )


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
