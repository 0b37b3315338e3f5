"""A real server on the loopback: requests that are cut off, slow, huge or no HTTP harm nobody else."""

from __future__ import annotations

import json
import queue
import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest

from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run
from ambiseg.errors import AmbisegError
from ambiseg.serving import guard
from ambiseg.serving.app import create_app
from ambiseg.serving.model import Served
from ambiseg.serving.server import address_of, bind, listen
from ambiseg.serving.settings import ServeSettings

TIMEOUT = 3.0
"""Seconds of patience of the server that slow clients try."""


@contextmanager
def listening(served, settings):
    """A server in a thread: its port, and the server itself."""
    bound, servers = bind("127.0.0.1", 0), queue.Queue()
    number = bound.getsockname()[1]
    thread = threading.Thread(
        target=listen, args=(create_app(served, settings), bound, settings, servers.put)
    )
    thread.start()
    server = servers.get(timeout=60)
    yield number, server
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive() and bound.fileno() == -1


@pytest.fixture(scope="module")
def port(served):
    """Of a server that listens while the tests of this file run."""
    with listening(served, ServeSettings(body_bytes=1 << 20)) as (number, _):
        yield number


@pytest.fixture(scope="module")
def hasty_port(served):
    """Of one with less patience."""
    with listening(served, ServeSettings(timeout=TIMEOUT)) as (number, _):
        yield number


@pytest.fixture
def connect(port):
    """``connect()``: a connection to the server, or to that of another port."""
    with ExitStack() as made:

        def open_one(number=port):
            return made.enter_context(socket.create_connection(("127.0.0.1", number), timeout=60))

        yield open_one


@pytest.fixture(scope="module")
def body(images, npy):
    return npy(images[0])


def head(length, more=""):
    return f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def answer(connection):
    """Status and text of the next answer; 0 where the connection ends without one."""
    stream = connection.makefile("rb")
    first = stream.readline()
    if not first:
        return 0, ""
    headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(stream.readline, b"\r\n"))
    length = int(headers.get("content-length", -1))  # to the end of the connection
    return int(first.split()[1]), stream.read(length).decode()


def counted(connection, status):
    """How many predictions ended with a status."""
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    _, text = answer(connection)
    start = f'ambiseg_requests_total{{path="/predict",status="{status}"}} '
    return next((float(line[len(start) :]) for line in text.splitlines() if line.startswith(start)), 0.0)


def assert_served(connection, body):
    connection.sendall(head(len(body)) + body)
    status, text = answer(connection)
    assert status == 200 and '"probability"' in text


def assert_ended(connection):
    try:
        assert connection.recv(1) == b""
    except ConnectionResetError:
        return


def test_a_connection_answers_several_requests(connect, body):
    connection = connect()
    for _ in range(3):
        assert_served(connection, body)


def test_requests_that_are_cut_off_are_counted_and_others_are_answered(connect, body):
    other = connect()
    before = counted(other, 499)
    for share in (0.0, 0.5, 0.99):
        broken = connect()
        broken.sendall(head(len(body)) + body[: int(share * len(body))])
        broken.close()
        assert_served(other, body)
    while counted(other, 499) < before + 3:
        assert_served(other, body)
    half = connect()
    half.sendall(head(len(body))[:40])
    half.close()
    assert_served(other, body)


def test_slow_bodies_are_408_and_others_are_answered(connect, hasty_port, body, monkeypatch):
    monkeypatch.setattr(guard, "LINGER", 0.1)
    slow, other = connect(hasty_port), connect(hasty_port)
    slow.sendall(head(len(body)) + body[:100])
    assert_served(other, body)
    status, text = answer(slow)
    assert status == 408 and f"did not arrive within {TIMEOUT:g} s" in text
    assert slow.recv(1) == b""  # the connection has ended


def test_slow_heads_end_without_an_answer(connect, hasty_port, body):
    slow, silent, other = (connect(hasty_port) for _ in range(3))
    assert_served(other, body)
    slow.sendall(b"POST /pre")
    for connection in (slow, silent):
        assert_ended(connection)


def test_the_oldest_idle_connection_ends_for_a_new_one(connect, served, body):
    with listening(served, ServeSettings(connections=3)) as (number, _):
        answered, *idle = (connect(number) for _ in range(3))
        for connection in (answered, *idle):
            connection.sendall(head(len(body)) + body)
            assert answer(connection)[0] == 200
        idle[1].sendall(b"POST /pre")  # half a head is idle, too
        assert_served(answered, body)
        assert_served(connect(number), body)
        assert_ended(idle[0])
        assert_served(connect(number), body)
        assert_ended(idle[1])
        assert_served(answered, body)


def test_huge_bodies_are_refused_before_and_while_they_come(connect, body, monkeypatch):
    monkeypatch.setattr(guard, "LINGER", 0.1)
    declared, chunked, other = connect(), connect(), connect()
    declared.sendall(head(10**12, "Expect: 100-continue\r\n"))
    status, text = answer(declared)
    assert status == 413 and "send a smaller image" in text
    start = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b"80000\r\n" + b"\0" * 0x80000 + b"\r\n"
    chunked.sendall(start + 3 * part)
    status, text = answer(chunked)
    assert status == 413 and "more than the limit of 1.0 MiB" in text
    assert_served(other, body)


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\0 hello TLS\r\n\r\n",
        b"GET / SPDY/9.9\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 70_000,
    ],
)
def test_what_is_no_request_is_400(connect, body, content):
    bad, other = connect(), connect()
    bad.sendall(content)
    status, text = answer(bad)
    assert status == 400 and set(json.loads(text)) == {"error", "request_id"}
    assert_served(other, body)


def test_a_websocket_is_not_opened(connect, body):
    connection = connect()
    upgrade = b"GET /predict HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    connection.sendall(upgrade)
    assert answer(connection)[0] == 405
    assert_served(connection, body)


def test_a_client_that_leaves_while_it_waits_is_no_error(connect, body, caplog):
    other = connect()
    before = counted(other, 200) + counted(other, 499)
    for _ in range(5):
        impatient = connect()
        impatient.sendall(head(len(body)) + body)
        impatient.close()
    while counted(other, 200) + counted(other, 499) < before + 5:
        pass
    assert not caplog.records


def test_what_has_begun_is_answered_before_the_end(run, body):
    class Blocked(Run):
        def predict_batch(self, *args, **options):
            begun.set()
            assert go.wait(60)
            return super().predict_batch(*args, **options)

    begun, go = threading.Event(), threading.Event()
    served = Served(Blocked(run.config, run.model, run.hardware), PredictSettings())
    with listening(served, ServeSettings()) as (number, server):
        with socket.create_connection(("127.0.0.1", number), timeout=60) as connection:
            connection.sendall(head(len(body)) + body)
            assert begun.wait(60)
            server.should_exit = True
            while server.servers[0].is_serving():
                pass
            go.set()
            status, text = answer(connection)
        assert status == 200 and '"probability"' in text


def test_addresses_that_cannot_be_used_are_one_sentence():
    with bind("127.0.0.1", 0) as taken:
        number = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{number}"
        with pytest.raises(
            AmbisegError, match=f"port {number} \\(Address already in use\\): use another --port"
        ):
            bind("127.0.0.1", number)
    for host, port, sentence in (
        ("127.0.0.1", 70_000, "--port is 0 to 65535, received 70000"),
        ("..", 0, r"--host \.\. is no address"),
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1"),
    ):
        with pytest.raises(AmbisegError, match=sentence):
            bind(host, port)
