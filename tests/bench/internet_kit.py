"""What several tests of the bench's internet need: a small tree, programs, and a client that trusts the bench."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.internet.server import Internet

INFRA = Path(__file__).resolve().parents[2] / "infra" / "k8s"
ADDRESS = "127.0.0.1"
GIT_HOST = "git.example.net"


def programs(folder: Path) -> dict[str, Path]:
    """Files that stand for built programs, by name."""
    folder.mkdir(exist_ok=True)
    made = {}
    for name in ("standin", "coredns", "source-controller", "helm-controller"):
        made[name] = folder / name
        if not made[name].exists():
            made[name].write_bytes(b"#!" + name.encode() * 1000)
    return made


@dataclass(frozen=True, slots=True)
class Answer:
    """What the internet said."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Asks one Internet by any host name, and keeps one connection for each."""

    def __init__(self, internet: Internet, address: str, authority: bytes) -> None:
        self._where = (address, internet.ports[0])
        self._trust = ssl.create_default_context(cadata=authority.decode())
        self._open: dict[str, http.client.HTTPConnection] = {}

    def get(self, url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """``url`` without scheme. Raises OSError, ssl.SSLError."""
        host, _, path = url.partition("/")
        if host not in self._open:
            raw = socket.create_connection(self._where, timeout=10)
            connection = http.client.HTTPConnection(host)
            connection.sock = self._trust.wrap_socket(raw, server_hostname=host)
            self._open[host] = connection
        self._open[host].request(method, f"/{path}", body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = self._open[host].getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def close(self) -> None:
        """Ends all connections."""
        for connection in self._open.values():
            connection.close()
