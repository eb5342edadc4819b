"""Clients that send or read nothing do not keep the server."""

import contextlib
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette", reason="requirements-serve.txt")

from rlp.evaluation.generation.requests import Response
from rlp.run import serve
from rlp.serving import app, server
from rlp.serving.engine import Finished
from rlp.serving.service import Service
from tests.support import served
from tests.support.scripted import scripted_model


class Endless:
    """An engine with long texts."""

    running, texts = True, 0

    def __init__(self):
        self.submitted = threading.Event()

    def submit(self, job):
        for at in range(len(job.requests)):
            job.notify(Finished(at, Response((97,), "x" * 2**20, (0.0,), "length"), None))
        self.submitted.set()


@contextlib.contextmanager
def serving(engine):
    """Serve a scripted model until the end of the context, and close all connections then."""
    ready = threading.Event()
    service = Service(scripted_model("tiny"), context=64, queue=128)
    running = server.Server(app.build_app(service, engine, 2**20), ready.set)
    with contextlib.closing(server.listening_socket("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]})
        thread.start()
        assert ready.wait(30)
        try:
            yield running, bound.getsockname(), thread
        finally:
            running.end()
            running.abort()
            thread.join(30)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_does_not_read_is_left(stream):
    engine = Endless()
    with serving(engine) as (running, address, thread), socket.create_connection(address) as client:
        body = json.dumps({"prompt": "a", "n": 16, "stream": stream}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % len(body) + body)
        assert engine.submitted.wait(30)
        time.sleep(0.2)  # until the buffers of the connection are full
        running.end()
        thread.join(0.3)
        assert thread.is_alive()  # else this test cannot fail
        running.abort()
        thread.join(10)
        assert not thread.is_alive()
    running.abort()  # does nothing


def test_a_connection_without_a_request_is_closed(monkeypatch):
    monkeypatch.setattr(server, "SILENT", 0.2)
    with serving(Endless()) as (_, address, _), contextlib.ExitStack() as opened:
        connect = lambda: opened.enter_context(socket.create_connection(address, timeout=10))
        silent, slow, busy = connect(), connect(), connect()
        slow.sendall(b"GET /health HTTP/1.1\r\nHost:")
        busy.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n")
        for client in (silent, slow):
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
        time.sleep(0.5)
        busy.sendall(b'{"prompt": "a"}')
        assert busy.recv(15) == b"HTTP/1.1 200 OK"


def test_a_signal_ends_the_server_though_a_body_never_arrives(model, monkeypatch):
    monkeypatch.setattr(serve, "LAST_SECONDS", 0.1)
    with contextlib.ExitStack() as opened:
        with served.served(model, grace=0.0) as running:
            address = urlsplit(running.url)
            client = socket.create_connection((address.hostname, address.port), timeout=10)
            opened.enter_context(client)
            client.sendall(b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n")
            time.sleep(0.2)
            began = time.monotonic()
        assert time.monotonic() - began < 10
