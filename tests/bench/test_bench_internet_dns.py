"""The bench's name server, by its answers and on the wire."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.internet.dns import NameServer

A, NS, PTR, AAAA = 1, 2, 12, 28
NOERROR, FORMERR, NXDOMAIN, NOTIMP = 0, 1, 3, 4


def server(port: int = 53) -> NameServer:
    return NameServer(
        "127.0.0.1", internet="10.77.0.1", nowhere=("home.example.org",), hosts={"pve.bench": "10.77.0.2"}, port=port
    )


def query(name: str, kind: int = A, ident: int = 7, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.strip(".").split(".") if p)
    return struct.pack("!HHHHHH", ident, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def parsed(reply: bytes | None) -> tuple[int, list[str]]:
    """Code and addresses of a reply to a query of this module."""
    assert reply is not None
    ident, flags, _, answers, _, _ = struct.unpack_from("!HHHHHH", reply)
    assert ident == 7
    assert flags & 0x8100 == 0x8100  # a reply, and "recursion desired" came back
    return flags & 15, [str(ipaddress.IPv4Address(reply[-4:]))] if answers else []


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        ("ghcr.io", A, NOERROR, ["10.77.0.1"]),
        ("Registry-1.Docker.IO.", A, NOERROR, ["10.77.0.1"]),
        ("pve.bench", A, NOERROR, ["10.77.0.2"]),
        ("ghcr.io", AAAA, NOERROR, []),
        ("ghcr.io", NS, NOERROR, []),
        ("ghcr.io.home.example.org", A, NXDOMAIN, []),
        ("home.example.org", AAAA, NXDOMAIN, []),
        ("notmyhome.example.org", A, NOERROR, ["10.77.0.1"]),
        ("kubernetes.default.svc.cluster.local", A, NXDOMAIN, []),
        ("localhost", A, NXDOMAIN, []),
        ("1.0.77.10.in-addr.arpa", PTR, NXDOMAIN, []),
    ],
)
def test_which_names_exist(name: str, kind: int, code: int, addresses: list[str]) -> None:
    assert parsed(server().answer(query(name, kind))) == (code, addresses)


def test_what_is_no_query_gets_no_answer() -> None:
    assert server().answer(b"short") is None
    assert server().answer(query("ghcr.io", flags=0x8100)) is None


def test_what_is_not_a_plain_question_is_refused() -> None:
    assert parsed(server().answer(query("ghcr.io", flags=0x0100 | 4 << 11)))[0] == NOTIMP
    assert parsed(server().answer(query("ghcr.io")[:-3]))[0] == FORMERR


@given(st.binary(max_size=600))
def test_garbage_is_survived(message: bytes) -> None:
    reply = server().answer(message)
    assert reply is None or (len(reply) >= 12 and reply[:2] == message[:2])


@given(st.binary(max_size=300))
def test_garbage_behind_a_good_header_is_survived(rest: bytes) -> None:
    reply = server().answer(struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + rest)
    assert parsed(reply)[0] in (NOERROR, FORMERR, NXDOMAIN)


@pytest.fixture
def running() -> Iterator[NameServer]:
    made = server(port=0)
    made.start()
    yield made
    made.stop()


def test_both_transports(running: NameServer) -> None:
    where = ("127.0.0.1", running.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        udp.sendto(b"garbage", where)
        udp.sendto(query("ghcr.io"), where)
        assert parsed(udp.recv(512)) == (NOERROR, ["10.77.0.1"])
    with socket.create_connection(where, timeout=5) as tcp:
        for _ in range(2):  # more than one question may be asked
            message = query("quay.io")
            tcp.sendall(len(message).to_bytes(2, "big") + message)
            size = int.from_bytes(tcp.recv(2), "big")
            assert parsed(tcp.recv(size)) == (NOERROR, ["10.77.0.1"])


def test_it_stops_and_starts_again(running: NameServer) -> None:
    port = running.port
    running.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    running.start()
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
