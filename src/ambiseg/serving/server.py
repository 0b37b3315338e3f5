"""The socket, and the server that listens on it until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ambiseg.errors import AmbisegError
from ambiseg.serving.settings import ServeSettings


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; who connects waits until the server begins.

    Raises:
        AmbisegError: a port in use, one that needs more rights, or an address that is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise AmbisegError(f"--port is 0 to 65535, received {port}: 0 takes a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise AmbisegError(f"--host {host} is no address ({error}): use 127.0.0.1") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError as error:
        found.close()
        raise AmbisegError(
            f"cannot listen on {host}, port {port} ({error.strerror}): use another --port, 0 for a free one"
        ) from error
    return found


def address_of(bound: socket.socket) -> str:
    """Where a socket is reached, such as ``http://127.0.0.1:8000``."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Protocol(H11Protocol):
    """Ends connections that neither ask for anything nor take their answer within the timeout of the service."""

    timeout = ServeSettings.timeout

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._seen: object = self
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing()
        if not busy and self._seen is self.cycle:
            self.transport.abort()
            return
        self._seen = self if busy else self.cycle
        self._timer = self.loop.call_later(self.timeout, self._watch)


class _Server(uvicorn.Server):
    """Says when it listens, and ends without an exception after SIGINT and SIGTERM."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[uvicorn.Server], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready(self)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(
    app: Any,
    bound: socket.socket,
    settings: ServeSettings,
    ready: Callable[[uvicorn.Server], None],
) -> None:
    """Serve until SIGINT or SIGTERM; requests in progress are answered first.

    Args:
        app: of `ambiseg.serving.app.create_app`.
        bound: of `bind`.
        settings: limits.
        ready: called when clients can connect; ``should_exit`` of what it is given ends the server.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    protocol = type("_Protocol", (_Protocol,), {"timeout": settings.timeout})
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=settings.connections,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )
    asyncio.run(_Server(config, ready).serve([bound]))
