"""Who has an address: what the kernel and the wire say, read without believing more than they say."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.world import reach
from funoffshore.world.routes import Routes

NET = f"127.{90 + os.getpid() % 9}.{os.getpid() // 9 % 250 + 1}"
NOWHERE = Path("/nonexistent")
TABLE = """IP address       HW type     Flags       HW address            Mask     Device
192.0.2.1        0x1         0x2         02:fc:00:00:00:05     *        eth0
192.0.2.7        0x1         0x0         00:00:00:00:00:00     *        eth0
192.0.2.8        0x1         0x6         02:fc:00:00:00:08     *        eth0
192.0.2.9        0x1         0x2         00:00:00:00:00:00     *        eth0
"""


def listener(address: str) -> socket.socket:
    return socket.create_server((address, 0))


def test_on_loopback_only_tcp_counts() -> None:
    with listener(f"{NET}.1") as server:
        port = server.getsockname()[1]
        asked = reach.Reach((port, 1), Routes(), NOWHERE).answering([f"{NET}.1", f"{NET}.2", f"{NET}.1"])
    assert asked == {f"{NET}.1": f"takes connections on port {port}"}


def test_a_detour_is_followed(tmp_path: Path) -> None:
    with listener("127.0.0.1") as server:
        where = ["127.0.0.1", server.getsockname()[1]]
        (tmp_path / "routes.json").write_text(json.dumps({f"{NET}.3:22": where}))
        asked = reach.Reach((22,), Routes(tmp_path / "routes.json"), NOWHERE).answering([f"{NET}.3"])
    assert asked == {f"{NET}.3": "takes connections on port 22"}


def test_nobody_is_asked_for_nothing() -> None:
    assert reach.Reach((22,), Routes(), NOWHERE).answering([]) == {}


def test_neighbours_are_those_whose_card_is_known(tmp_path: Path) -> None:
    (tmp_path / "arp").write_text(TABLE)
    assert reach.neighbours(tmp_path / "arp") == {"192.0.2.1": "02:fc:00:00:00:05", "192.0.2.8": "02:fc:00:00:00:08"}
    assert reach.neighbours(NOWHERE) == {}


@given(st.binary(max_size=300))
def test_a_strange_neighbour_table_is_an_empty_one(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "arp"
    path.write_bytes(data)
    assert all(isinstance(mac, str) for mac in reach.neighbours(path).values())


@given(st.binary(max_size=64))
def test_a_packet_with_its_checksum_sums_up_to_nothing(data: bytes) -> None:
    whole = data + b"\0" * (len(data) % 2)
    assert reach.checksum(whole + struct.pack("!H", reach.checksum(whole))) == 0


ECHO = b"\x08\x00\x00\x00\x00\x00\x00\x01"
REPLY = b"\x00\x00\x00\x00\x00\x00\x00\x01"
HEADER = b"\x45" + bytes(19)


@pytest.mark.parametrize(
    ("data", "is_reply"),
    [(REPLY, True), (HEADER + REPLY, True), (ECHO, False), (HEADER + ECHO, False), (b"", False), (b"\x45", False)],
)
def test_only_an_echo_reply_is_an_answer(data: bytes, is_reply: bool) -> None:
    assert reach.is_reply(data) is is_reply


@given(st.binary(max_size=80))
def test_no_packet_breaks_it(data: bytes) -> None:
    assert reach.is_reply(data) in (True, False)


def test_a_ping_that_nobody_waits_for() -> None:
    assert reach.ping([f"{NET}.4"], 0.0) == set()


def test_the_kernel_answers_for_all_of_loopback() -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except OSError:
        pytest.skip("nobody may ping here without privilege (net.ipv4.ping_group_range)")
    assert reach.ping([f"{NET}.5", f"{NET}.6"], 5.0) == {f"{NET}.5", f"{NET}.6"}
