"""Whether anybody has an address: asked by ICMP, by ARP, and by TCP where neither can tell. Needs no privilege.

An answer proves that the address is taken; silence proves nothing, as a host may be off or not want to answer.
Formats: ICMP echo (RFC 792), ``/proc/net/arp`` (proc(5)).
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address
from pathlib import Path

from funoffshore.config import ClusterConfig
from funoffshore.world.routes import Routes

PATIENCE = 1.0
"""Wall seconds in which an answer counts; in one Ethernet it takes a thousandth of that."""
API_PORT = 6443
_SIDE_BY_SIDE = 128
_DISCARD = 9
_NEIGHBOURS = Path("/proc/net/arp")
_COMPLETE = 0x2
_ECHO, _REPLY = 8, 0


class Reach:
    """Asks addresses whether anybody has them."""

    def __init__(self, ports: tuple[int, ...], routes: Routes, neighbours: Path = _NEIGHBOURS) -> None:
        self._ports = ports
        self._routes = routes
        self._neighbours = neighbours

    def answering(self, addresses: Iterable[object]) -> dict[str, str]:
        """Those that answer, and how: a clause like "answers ping". Never raises; all at once, within some seconds."""
        wanted = list(dict.fromkeys(str(address) for address in addresses))
        if not wanted:
            return {}
        # The kernel itself answers ping for all of loopback, so there only TCP can tell.
        outside = [address for address in wanted if not IPv4Address(address).is_loopback]
        found = self._asked(outside) if outside else {}
        doors = [(address, port) for address in wanted if address not in found for port in self._ports]
        if doors:
            with ThreadPoolExecutor(min(_SIDE_BY_SIDE, len(doors)), thread_name_prefix="reach") as pool:
                for (address, _), how in zip(doors, pool.map(self._by_tcp, doors), strict=True):
                    if how:
                        found.setdefault(address, how)
        return {address: found[address] for address in wanted if address in found}

    def _asked(self, addresses: list[str]) -> dict[str, str]:
        before = neighbours(self._neighbours)
        pings = ping(addresses, PATIENCE)
        after = neighbours(self._neighbours)
        found = {
            address: f"has a network card that answers ARP ({mac})"
            for address, mac in after.items()
            # What was known before may be the memory of a host that has gone since.
            if address in addresses and address not in before
        }
        return found | dict.fromkeys(pings, "answers ping")

    def _by_tcp(self, door: tuple[str, int]) -> str:
        host, port = self._routes.resolve(*door)
        try:
            socket.create_connection((host, port), PATIENCE).close()
        except ConnectionRefusedError:
            # On loopback the kernel refuses for nobody's addresses as well.
            return "" if IPv4Address(host).is_loopback else f"refuses connections to port {door[1]}"
        except OSError:
            return ""
        return f"takes connections on port {door[1]}"


def of(config: ClusterConfig) -> Reach:
    """For the addresses of the cluster: what its machines would listen on is the SSH port and the API's."""
    routes = Routes(config.lab.directory / "routes.json" if config.lab else None)
    return Reach((config.ssh.port, API_PORT), routes)


def neighbours(path: Path = _NEIGHBOURS) -> dict[str, str]:
    """The network cards that this computer has learned by ARP, by address; none where the kernel does not tell."""
    try:
        lines = path.read_text("ascii", "replace").splitlines()[1:]
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        words = line.split()
        with suppress(ValueError, IndexError):
            if int(words[2], 16) & _COMPLETE and words[3] != "00:00:00:00:00:00":
                found[words[0]] = words[3]
    return found


def ping(addresses: Iterable[str], patience: float, clock: Callable[[], float] = time.monotonic) -> set[str]:
    """Those of ``addresses`` that send an echo back. Where the kernel lets nobody ping without privilege, a datagram
    is sent instead, which makes it look for their network cards, and nobody is known to answer."""
    waiting = set(addresses)
    with ExitStack() as stack:
        try:
            line = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP))
            packet: Callable[[int], bytes] = _echo
            port = 0
        except OSError:
            line = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            packet, port = (lambda number: b""), _DISCARD
        line.setblocking(False)
        for number, address in enumerate(waiting):
            with suppress(OSError):
                line.sendto(packet(number), (address, port))
        return _replies(line, waiting, clock() + patience, clock)


def _replies(line: socket.socket, wanted: set[str], until: float, clock: Callable[[], float]) -> set[str]:
    found: set[str] = set()
    while found < wanted and (left := until - clock()) > 0:
        if not select.select([line], [], [], left)[0]:
            break
        try:
            data, (address, _) = line.recvfrom(1500)
        except OSError:
            # Somebody is unreachable, or a port is closed; others may still answer.
            continue
        if address in wanted and is_reply(data):
            found.add(address)
    return found


def _echo(number: int) -> bytes:
    """An ICMP echo request; a datagram socket sets the identifier itself."""
    body = struct.pack("!BBHHH", _ECHO, 0, 0, 0, number & 0xFFFF) + b"funoffshore"
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def is_reply(data: bytes) -> bool:
    """Linux gives the ICMP message alone, macOS the IP header before it."""
    if data[:1] and data[0] >> 4 == 4:
        data = data[(data[0] & 0xF) * 4 :]
    return data[:2] == bytes([_REPLY, 0])
