"""What surrounds every request: an id, a time limit for sending, counting, and an end to refused uploads."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER = 2.0
"""Seconds in which the rest of a refused body is read and dropped: a client that still sends would not see the answer."""

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_ID_HEADER = b"x-request-id"
_LOG = logging.getLogger("ambiseg.serving")


class Guard:
    """ASGI middleware.

    Args:
        app: what answers.
        count: called with path, status and seconds of each request.
        timeout: seconds in which a client must take a part of the answer.
    """

    def __init__(self, app: ASGIApp, count: Callable[[str, int, float], None], timeout: float) -> None:
        self._app, self._count, self._timeout = app, count, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500
        request_id = _id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        unread, closing = True, False

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal status, closing
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                closing = (b"connection", b"close") in headers
                headers += [(_ID_HEADER, request_id), (b"x-content-type-options", b"nosniff")]
                headers += [(b"cache-control", b"no-store")]
            elif closing and unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _drop_rest(receiving, lambda: unread)
                message = {"type": "http.response.body"}
            async with asyncio.timeout(self._timeout):
                await send(message)

        try:
            await self._app(scope, receiving, sending)
        except Exception:
            _LOG.exception("request %s", request_id.decode())
        finally:
            self._count(scope["path"], status, time.perf_counter() - began)


async def _drop_rest(receive: Receive, unread: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(LINGER):
            while unread():
                await receive()
    except TimeoutError:
        return


def _id_of(scope: Scope) -> bytes:
    """The id that the client gave, if it is harmless; else a new one."""
    headers: Any = scope["headers"]
    given = next((value for name, value in headers if name == _ID_HEADER), b"")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex.encode()
