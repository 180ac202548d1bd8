"""OpenSSH's own server on loopback, and a TCP proxy in front of it that fails as networks do."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ssh_machines import config_of, subnet, until

from funoffshore import hostkeys
from funoffshore.clock import WallClock
from funoffshore.config import model
from funoffshore.world import routes, ssh

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
POSSIBLE = os.path.exists(SSHD) and os.getuid() == 0 and shutil.which("ssh-keygen") is not None
SYSTEMCTL = '#!/bin/sh\necho "$@" >> {log}\ncase $1 in show) echo ActiveState=inactive;; esac\n'


class Reachable(Protocol):
    """Whatever takes SSH connections."""

    @property
    def node(self) -> model.Node: ...

    port: int


@dataclass
class Server:
    """A real sshd, reached as ``config``'s first node; root logs in with the key of the config."""

    config: model.ClusterConfig
    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def node(self) -> model.Node:
        return self.config.nodes[0]

    @property
    def log(self) -> str:
        return (self.folder / "sshd.log").read_text()

    @property
    def actions(self) -> list[str]:
        """What systemctl was told so far, apart from questions."""
        file = self.folder / "systemctl.log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if not line.startswith("show")]

    def hosts(self, port: int = 0, **changes: object) -> ssh.Hosts:
        """A fresh door; by way of ``port``, with ``changes`` to the config's ssh."""
        settings = replace(self.config.ssh, port=port or self.port, **changes)  # type: ignore[arg-type]
        return ssh.Hosts(replace(self.config, ssh=settings), routes.Routes(), WallClock())

    def host_key(self) -> str:
        return (self.folder / "host_key.pub").read_text().strip()


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listener:
        return int(listener.getsockname()[1])


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_text(hostkeys.openssh_private(key))
    path.with_suffix(".pub").write_text(hostkeys.openssh_public(key) + "\n")


@contextlib.contextmanager
def sshd(tmp: Path, *settings: str, path: str = "") -> Iterator[Server]:
    """``settings`` are further lines of its configuration; ``path`` is the PATH of its sessions, by default with a
    systemctl that writes down what it is told."""
    config = config_of(tmp, subnet())
    config = replace(config, ssh=replace(config.ssh, user="root"))
    node, folder = config.nodes[0], tmp / "sshd"
    (folder / "bin").mkdir(parents=True)
    stand_in = folder / "bin" / "systemctl"
    stand_in.write_text(SYSTEMCTL.format(log=folder / "systemctl.log"))
    stand_in.chmod(0o755)
    write_key(folder / "host_key", hostkeys.private(config.ssh.host_key_seed.get_secret_value(), node.name))
    (folder / "keys").write_text(config.ssh.public_key() + "\n")
    port, path = free_port(str(node.address)), path or f"{folder}/bin:{os.environ['PATH']}"
    lines = [
        f"ListenAddress {node.address}:{port}", f"HostKey {folder}/host_key", f"AuthorizedKeysFile {folder}/keys",
        "PermitRootLogin prohibit-password", "PasswordAuthentication no", "UsePAM no", "StrictModes no",
        "LogLevel DEBUG1", "PidFile none", f"SetEnv PATH={path}", *settings,
    ]  # fmt: skip
    (folder / "config").write_text("".join(f"{line}\n" for line in lines))
    Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation folder
    argv = [SSHD, "-D", "-f", str(folder / "config"), "-E", str(folder / "sshd.log")]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    made = Server(config, folder, port, process)
    try:
        door = made.hosts(port)
        until(lambda: door.answers(node.address) or process.poll() is not None)
        assert process.poll() is None, made.log
        yield made
    finally:
        process.terminate()
        process.wait(10)


class Proxy:
    """Passes TCP on to ``target``, except for what ``fail`` does to the first connections.

    ``fail(number, upward, total)`` is asked before bytes go on: ``number`` counts connections from 0, ``upward`` is
    towards the server, ``total`` are the bytes of that direction so far. It answers how many more may pass; what
    exceeds them is cut with the connection, or swallowed for ever where ``silent``.
    """

    def __init__(
        self, address: str, target: tuple[str, int], fail: Callable[[int, bool, int], int], *, silent: bool = False
    ) -> None:
        self._target = target
        self._fail = fail
        self._silent = silent
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.passed = {True: 0, False: 0}
        """Bytes of the first connection, by direction."""
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                number, self.connections = self.connections, self.connections + 1
                server = socket.create_connection(self._target)
                self._open += [client, server]
                quiet = threading.Event()
                for upward, pair in ((True, (client, server)), (False, (server, client))):
                    threading.Thread(target=self._pump, args=(number, upward, pair, quiet), daemon=True).start()

    def _pump(
        self, number: int, upward: bool, pair: tuple[socket.socket, socket.socket], quiet: threading.Event
    ) -> None:
        source, target = pair
        total = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                may = self._fail(number, upward, total)
                total += len(data)
                if number == 0:
                    self.passed[upward] = total
                if quiet.is_set():
                    continue
                target.sendall(data[: max(may, 0)])
                if len(data) > may:
                    if self._silent:
                        quiet.set()
                        continue
                    break
        if not quiet.is_set():
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in (self._listener, *self._open):
            end.close()


@contextlib.contextmanager
def proxy(server: Reachable, fail: Callable[[int, bool, int], int], *, silent: bool = False) -> Iterator[Proxy]:
    address = str(server.node.address)
    made = Proxy(address, (address, server.port), fail, silent=silent)
    try:
        yield made
    finally:
        made.close()


def cut_first(upward: bool, after: int) -> Callable[[int, bool, int], int]:
    """The first connection is cut once ``after`` bytes have gone in that direction."""

    def fail(number: int, direction: bool, total: int) -> int:
        return after - total if number == 0 and direction is upward else 1 << 30

    return fail


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A tmpfs; skips where nothing can be mounted."""
    import pytest

    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
