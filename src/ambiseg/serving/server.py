"""The socket, and the server that listens on it until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ambiseg.errors import AmbisegError
from ambiseg.serving.guard import bad_request
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


def names_of(*hosts: str) -> frozenset[str]:
    """How a service that only this machine reaches may be called in the header ``Host``.

    Example:
        >>> sorted(names_of("::1"))
        ['127.0.0.1', '[::1]', 'localhost']
    """
    given = {f"[{host}]" if ":" in host else host.lower() for host in hosts}
    return frozenset({"127.0.0.1", "localhost", "[::1]"} | given)


HEAD_SECONDS = 10.0
"""Seconds in which the head of a request must have arrived, if the timeout is longer."""
SPARE_FILES = 100
"""File descriptors that are left for anything but connections."""
ACCEPTED = 20
"""Connections accepted at once, before those that are too many are ended."""
WAITING = 2048
"""Connections that the system keeps until they are accepted."""


class _Protocol(H11Protocol):
    """Ends connections that ask for nothing or do not take their answer in time, and those that are too many."""

    timeout = ServeSettings.timeout
    most = ServeSettings.connections

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.most:
            idle = [other for other in self.connections if isinstance(other, _Protocol) and not other._busy()]
            oldest = min(idle, key=lambda other: other._idle_since)
            self.connections.discard(oldest)  # it is told later that it is lost
            oldest.transport.abort()
            if oldest is self:
                return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What `H11Protocol` says as text, as the service says it."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        headers, body = bad_request("this is no valid HTTP request: send it again")
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing()

    def _watch(self) -> None:
        head = min(self.timeout, HEAD_SECONDS)
        if not self._busy():
            allowed = self.timeout if self.transport.get_write_buffer_size() else head
            if self.loop.time() - self._idle_since >= allowed:
                self.transport.abort()
                return
        self._timer = self.loop.call_later(head / 4, self._watch)


def most_connections(wanted: int) -> int:
    """So many as are wanted, or as the file descriptors of this process allow.

    Example:
        >>> most_connections(2)
        2
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if allowed == resource.RLIM_INFINITY else min(wanted, max(1, allowed - SPARE_FILES))


class _Server(uvicorn.Server):
    """Says when it listens, and ends without an exception after SIGINT and SIGTERM."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[uvicorn.Server], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for bound in sockets or []:
            bound.listen(WAITING)  # asyncio took ACCEPTED for both
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
    for name in ("uvicorn.error", "python_multipart"):  # they tell of damage what answers tell here
        logging.getLogger(name).setLevel(logging.CRITICAL)
    limits = {"timeout": settings.timeout, "most": most_connections(settings.connections)}
    protocol = type("_Protocol", (_Protocol,), limits)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=ACCEPTED,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )
    asyncio.run(_Server(config, ready).serve([bound]))
