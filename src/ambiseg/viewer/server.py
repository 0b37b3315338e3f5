"""A web server for one person: it hands out the page and reads an image when the browser asks for it.

It listens on this computer only. Addresses begin with a random word, so other accounts of the computer and other
pages in the browser cannot guess them, and an address holds numbers of images, never names of files.
"""

from __future__ import annotations

import re
import secrets
import sys
import threading
from collections import OrderedDict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ambiseg.errors import AmbisegError
from ambiseg.viewer.gallery import Gallery
from ambiseg.viewer.site import ASSETS, PICTURE, SCRIPT, ImageFiles, asset, image_files, list_script

HOST = "127.0.0.1"
KEPT = 16
"""Images that are kept in memory once they have been read."""
_IMAGE = re.compile(r"images/(0|[1-9][0-9]{0,8})\.(js|png)")
_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """The server of a gallery; ``serve_forever`` runs it.

    Args:
        gallery: what it shows.
        port: where it listens; a free port if 0.

    Attributes:
        url: address of the page.

    Raises:
        AmbisegError: the port is taken or not allowed.
    """

    daemon_threads = True
    allow_reuse_address = sys.platform != "win32"  # there it lets two programs share a port

    def __init__(self, gallery: Gallery, port: int = 0) -> None:
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "it is no port"
            raise AmbisegError(
                f"port {port} cannot be used ({reason}): choose another --port, or leave it out for a free one"
            ) from error
        self.gallery, self.prefix = gallery, f"/{secrets.token_urlsafe(9)}/"
        self.url = f"http://{HOST}:{self.server_port}{self.prefix}"
        self._kept: OrderedDict[int, ImageFiles] = OrderedDict()
        self._lock = threading.Lock()

    def image(self, index: int) -> ImageFiles:
        """The files of an image, read at most once while they are kept."""
        with self._lock:
            if index not in self._kept:
                self._kept[index] = image_files(self.gallery, index)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(index)
            return self._kept[index]

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing where the browser has gone away; else what Python prints of an error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Type and content of what lies at an address below `prefix`; None if nothing does."""
        name = path or "index.html"
        if name in ASSETS:
            return ASSETS[name], asset(name)
        if name == "list.js":
            return SCRIPT, list_script(self.gallery)
        found = _IMAGE.fullmatch(name)
        if found is None or int(found[1]) >= len(self.gallery.names):
            return None
        image = self.image(int(found[1]))
        if found[2] == "js":
            return SCRIPT, image.script
        return None if image.picture is None else (PICTURE, image.picture)


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    server_version, sys_version = "ambiseg", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Hand out a file of the page."""
        host = self.headers.get("Host", "").lower()
        if host.rsplit(":", 1)[0] not in _HOSTS and host not in _HOSTS:
            return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"Open this page as 127.0.0.1.\n")
        if not self._is_wanted():
            return self._send(HTTPStatus.FORBIDDEN, "text/plain", b"Another page may not read this one.\n")
        path = self.path.split("?", 1)[0].split("#", 1)[0]
        found = self.server.answer(path.removeprefix(self.server.prefix)) if self._is_known(path) else None
        if found is None:
            return self._send(HTTPStatus.NOT_FOUND, "text/plain", b"There is no such file.\n")
        self._send(HTTPStatus.OK, *found)

    do_HEAD = do_GET

    def _is_wanted(self) -> bool:
        """Whether the page itself asks, or a person who opens it; not another page that would read it."""
        if self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
            return True
        return (
            self.headers.get("Sec-Fetch-Mode") == "navigate"
            and self.headers.get("Sec-Fetch-Dest") == "document"
        )

    def _is_known(self, path: str) -> bool:
        prefix = self.server.prefix
        return secrets.compare_digest(path[: len(prefix)].encode("utf-8", "replace"), prefix.encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a terminal is for the user."""
