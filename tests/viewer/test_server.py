"""What the server hands out, and what it refuses."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest

from ambiseg.errors import AmbisegError
from ambiseg.viewer.gallery import PredictedGallery
from ambiseg.viewer.server import KEPT, ViewServer


@pytest.fixture
def server(hostile):
    with ViewServer(PredictedGallery(hostile)) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(server, path, method="GET", **headers):
    """Status, headers and content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def test_the_page_and_an_image_are_handed_out(server):
    for name, start in (
        ("", b"<!doctype html>"),
        ("viewer.css", b":root"),
        ("list.js", b"ambiseg.list("),
        ("images/0.js", b"ambiseg.image(0,"),
        ("images/0.png", b"\x89PNG"),
    ):
        status, headers, content = ask(server, server.prefix + name)
        assert status == 200 and content.startswith(start), name
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert ask(server, server.prefix, "HEAD")[2] == b""


@pytest.mark.parametrize(
    "name",
    [
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "images/../../prediction.json",
        "images/1.png",
        "images/2.js",
        "images/-1.js",
        "images/00.js",
        "images/9999999999999999999.js",
        "images/0.js%00",
        "images/a/mask-01.png",
        "//etc/passwd",
        "record.py",
    ],
)
def test_all_else_is_not_found(server, name):
    status, _, content = ask(server, server.prefix + name)
    assert status == 404 and content == b"There is no such file.\n"


def test_who_does_not_know_the_address_gets_nothing(server):
    for path in ("/", "/list.js", "/wrong-word/", "/images/0.js", server.prefix.rstrip("/")):
        assert ask(server, path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "", "localhost.evil"])
def test_other_names_of_this_computer_are_refused(server, host):
    assert ask(server, server.prefix, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:9", "[::1]:9"])
def test_forwarded_ports_are_served(server, host):
    assert ask(server, server.prefix, Host=host)[0] == 200


def test_other_pages_in_the_browser_are_refused(server):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert ask(server, server.prefix + "images/0.js", Sec_Fetch_Site=site)[0] == status
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    for kind, status in (("document", 200), ("iframe", 403)):
        assert ask(server, server.prefix, Sec_Fetch_Dest=kind, **link)[0] == status
    assert ask(server, server.prefix, "POST")[0] in (405, 501)


def test_a_port_in_use_is_told(server, hostile):
    with pytest.raises(AmbisegError, match=f"port {server.server_port} cannot be used"):
        ViewServer(PredictedGallery(hostile), server.server_port)


def test_it_listens_on_this_computer_only(server):
    assert server.socket.family == socket.AF_INET and server.server_address[0] == "127.0.0.1"


class Counting(PredictedGallery):
    """Counts what is read."""

    def read(self, index):
        self.count = getattr(self, "count", 0) + 1
        return super().read(0)


def test_an_image_is_read_once_while_it_is_kept(hostile):
    gallery = Counting(hostile)
    gallery.names = ("a",) * (KEPT + 1)
    with ViewServer(gallery) as server:
        for _ in range(3):
            server.answer("images/0.js"), server.answer("images/0.png")
        assert gallery.count == 1
        for index in range(KEPT + 1):
            server.answer(f"images/{index}.js")
        server.answer("images/0.js")
        assert gallery.count == KEPT + 2
