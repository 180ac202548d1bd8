"""The API of servers behind a jump host: what goes in at loopback comes out there, both ways, and ends as it ended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from k3s_operator import done, existing, left, load

from funoffshore import errors
from funoffshore.clock import WallClock
from funoffshore.lab import lab
from funoffshore.reading import Present
from funoffshore.world.routes import Routes
from funoffshore.world.ssh import forwards
from funoffshore.world.supervisor import Supervisor
from funoffshore.world.world import open_world

SERVER = "192.0.2.11"


@contextmanager
def echo() -> Iterator[tuple[str, int]]:
    """Answers everything that it heard once the other side has said all."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with one:
                heard = b""
                while data := one.recv(65536):
                    heard += data
                one.sendall(b"heard " + heard)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def asked(place: tuple[str, int], text: bytes) -> bytes:
    with socket.create_connection(place, timeout=5) as one:
        one.sendall(text)
        one.shutdown(socket.SHUT_WR)
        heard = b""
        while data := one.recv(65536):
            heard += data
        return heard


def test_both_directions_and_both_ends() -> None:
    gone_to: list[tuple[str, int]] = []
    with echo() as place:

        def way(address: str, port: int) -> socket.socket:
            gone_to.append((address, port))
            return socket.create_connection(place, timeout=5)

        routes = forwards.Forwards(Routes(), [SERVER], way)
        local = routes.resolve(SERVER, 6443)
        assert local == routes.resolve(SERVER, 6443)
        assert local[0] == "127.0.0.1"
        large = b"x" * 3_000_000
        assert asked(local, b"hello") == b"heard hello"
        assert asked(local, large) == b"heard " + large
        assert gone_to == [(SERVER, 6443)] * 2
        routes.close()
        with pytest.raises(OSError, match="refused"):
            asked(local, b"hello")


def test_only_the_api_of_the_cluster_goes_that_way() -> None:
    routes = forwards.Forwards(Routes(), [SERVER], lambda address, port: pytest.fail("it was opened"))
    assert routes.resolve(SERVER, 22) == (SERVER, 22)
    assert routes.resolve("192.0.2.12", 6443) == ("192.0.2.12", 6443)


def test_a_server_that_is_not_reached_is_a_connection_that_ends() -> None:
    def way(address: str, port: int) -> socket.socket:
        raise errors.UnreachableError("nobody is there")

    routes = forwards.Forwards(Routes(), [SERVER], way)
    assert asked(routes.resolve(SERVER, 6443), b"") == b""
    routes.close()


def test_a_cluster_behind_a_jump_host(tmp_path: Path) -> None:
    home = existing(tmp_path / "home", CONTROLLERS=1, WORKERS=1, VIP="")
    jump = load(home).node("lab-w1").address
    keys = done(home, "lab", "hosts", "keys").splitlines()
    (key,) = [line.partition(" ")[2] for line in keys if line.startswith(f"[{jump}]")]
    home.set("SSH_JUMP", f"fo@{jump}:2222")
    home.set("SSH_JUMP_HOST_KEY", f'"{key}"')
    done(home, "bootstrap", "--until", "k3s")
    assert left(home) == []
    cluster = load(home)
    with lab.running(cluster):
        world = open_world(cluster, WallClock(), tmp_path / "cache")
        assert isinstance(world.routes, forwards.Forwards)
        address = str(cluster.controllers[0].address)
        assert world.routes.resolve(address, 6443)[0] == "127.0.0.1"
        assert isinstance(Supervisor(cluster, world.routes).ping(address), Present)
        assert isinstance(world.kube.list("v1/Node"), Present)
        world.close()
