"""The relay that makes loopback slow."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import delay
from funoffshore.world.routes import Routes


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that says everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while piece := connection.recv(4096):
                    connection.sendall(piece)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()
    listener.close()


def test_what_is_dialled_is_reached_later_and_whole(echo: tuple[str, int], tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text(json.dumps({"10.0.0.2:22": ["127.0.0.1", 1]}))
    routes = Routes(file)
    with delay.slow(file, {("10.0.0.1", 22): echo}, 0.05):
        assert routes.resolve("10.0.0.2", 22) == ("127.0.0.1", 1)
        began = time.monotonic()
        with socket.create_connection(routes.resolve("10.0.0.1", 22), timeout=10) as door:
            door.sendall(b"a" * 100_000)
            door.shutdown(socket.SHUT_WR)
            back = b"".join(iter(lambda: door.recv(1 << 16), b""))
        assert back == b"a" * 100_000
        assert time.monotonic() - began >= 0.1  # one round trip to connect, one to and fro: never less
    assert routes.resolve("10.0.0.1", 22) == ("10.0.0.1", 22)
    assert json.loads(file.read_text()) == {"10.0.0.2:22": ["127.0.0.1", 1]}


def test_a_door_that_nobody_opens_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = free.getsockname()
    with (
        delay.slow(file, {("10.0.0.1", 22): nowhere}, 0.0),
        socket.create_connection(Routes(file).resolve("10.0.0.1", 22), timeout=10) as door,
    ):
        assert door.recv(10) == b""
    assert not file.exists()
