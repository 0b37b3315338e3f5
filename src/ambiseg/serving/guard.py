"""What surrounds every request: an id, a time limit for sending, counting, and an end to refused uploads."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER = 2.0
"""Seconds in which the rest of a refused body is read and dropped: a client that still sends would not see the answer."""

_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_ID_HEADER = b"x-request-id"
_SAFE = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_LOG = logging.getLogger("ambiseg.serving")


class Guard:
    """ASGI middleware.

    Args:
        app: what answers.
        count: called with path, status and seconds of each request.
        timeout: seconds in which a client must take a part of the answer.
        hosts: names by which the service may be called; any if empty. A page of another site could reach a service
            on this machine by a name of its own.
    """

    def __init__(
        self,
        app: ASGIApp,
        count: Callable[[str, int, float], None],
        timeout: float,
        hosts: Collection[str] = (),
    ) -> None:
        self._app, self._count, self._timeout, self._hosts = app, count, timeout, hosts

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
                headers += [(_ID_HEADER, request_id), *_SAFE]
            elif closing and unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _drop_rest(receiving, lambda: unread)
                message = {"type": "http.response.body"}
            async with asyncio.timeout(self._timeout):
                await send(message)

        try:
            host = _host_of(scope)
            if self._hosts and host and host not in self._hosts:
                names = ", ".join(sorted(self._hosts))
                sentence = f"this service is called by another name than {names}: use one of these addresses"
                answer = JSONResponse(problem(sentence, request_id), 421, {"connection": "close"})
                await answer(scope, receiving, sending)
                return
            await self._app(scope, receiving, sending)
        except Exception:
            _LOG.exception("request %s", request_id.decode())
        finally:
            self._count(scope["path"], status, time.perf_counter() - began)


def problem(sentence: str, request_id: bytes) -> dict[str, str]:
    """What every answer says that is no success."""
    return {"error": sentence, "request_id": request_id.decode()}


def bad_request(sentence: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the answer to what is no HTTP, which reaches no application."""
    request_id = new_id()
    body = json.dumps(problem(sentence, request_id)).encode("ascii")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return [*headers, (b"connection", b"close"), (_ID_HEADER, request_id), *_SAFE], body


def new_id() -> bytes:
    """An id for a request that brings none."""
    return uuid.uuid4().hex.encode()


async def _drop_rest(receive: Receive, unread: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(LINGER):
            while unread():
                await receive()
    except TimeoutError:
        return


def _id_of(scope: Scope) -> bytes:
    """The id that the client gave, if it is harmless; else a new one."""
    given = _header(scope, _ID_HEADER)
    return given if _ID.fullmatch(given) else new_id()


def _host_of(scope: Scope) -> str:
    """The name by which the client calls the service, without the port; empty where there is none."""
    return re.sub(r":\d*$", "", _header(scope, b"host").decode("latin-1").lower())


def _header(scope: Scope, wanted: bytes) -> bytes:
    headers: Any = scope["headers"]
    return next((value for name, value in headers if name == wanted), b"")
