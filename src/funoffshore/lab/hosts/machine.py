"""A host that has power: its files, its units, its programs, and who is logged in."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from funoffshore.lab.base import Kit
from funoffshore.lab.guests import Hardware
from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Program, Result, Service
from funoffshore.lab.hosts.files import Files

if TYPE_CHECKING:
    from funoffshore.lab.hosts.systemd import Units

SEARCH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")
MARK = b"#!funoffshore-lab "
CHANGING_VERBS = ("start", "stop", "restart", "try-restart", "reload", "enable", "disable", "mask", "unmask", "kill")


class Host:
    """One machine, from power-on to power-off. Satisfies ``api.Machine`` as root on its console."""

    units: Units
    """Set once systemd runs."""

    def __init__(
        self, kit: Kit, hardware: Hardware, root: Path, programs: dict[str, Program], services: dict[str, Service]
    ) -> None:
        self.kit = kit
        self.hardware = hardware
        self.vmid = hardware.vmid
        self.uuid = hardware.uuid
        self.root = root
        self.files = Files(root, kit.store, hardware.vmid)
        self.programs = programs
        self.services = services
        self.address = ""
        self.prefix = 24
        self.uid = 0
        self.user = "root"
        self.outside = False
        self.up = False
        """Whether user land runs: services, sshd, the guest agent."""
        self.gone = threading.Event()
        """Set when the power goes."""
        self.power_cycle: Callable[[], None] = lambda: None
        self.neighbours: Callable[[str], Host | None] = lambda address: None
        """The running machine at an address, as the network knows it."""
        self.sessions: set[Callable[[], None]] = set()
        """Calls that cut an SSH connection each."""
        self.opened: dict[int, io.BytesIO] = {}
        """Files that the guest agent holds open, by handle."""
        self.executed: list[dict[str, Any]] = []
        """Outcomes of what the guest agent was told to run since the machine has power."""
        self._ports: set[int] = set()
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        return self.files.read("/etc/hostname").strip() or "localhost"

    def path(self, absolute: str) -> Path:
        return self.files.path(absolute)

    def journal(self, unit: str, line: str) -> None:
        with self._lock:
            file = self.path(f"/var/log/journal-lab/{unit.removesuffix('.service')}.log")
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as stream:
                stream.writelines(f"{self.kit.clock.now():.3f} {part}\n" for part in line.splitlines() or [""])

    def journal_lines(self, unit: str, count: int) -> list[str]:
        return [line for _, line in self.stamped_lines(unit, count)]

    def stamped_lines(self, unit: str, count: int) -> list[tuple[float, str]]:
        """The journal with lab times."""
        lines = self.files.read(f"/var/log/journal-lab/{unit.removesuffix('.service')}.log").splitlines()
        pairs = (line.partition(" ") for line in (lines[-count:] if count > 0 else []))
        return [(float(stamp), text) for stamp, _, text in pairs]

    def listen_port(self, port: int) -> None:
        with self._lock:
            self._ports.add(port)
            self.write_ports()

    def unlisten_port(self, port: int) -> None:
        with self._lock:
            self._ports.discard(port)
            self.write_ports()

    @property
    def ports(self) -> frozenset[int]:
        """Where something on the host listens."""
        with self._lock:
            return frozenset(self._ports)

    def write_ports(self) -> None:
        """``/proc/net/tcp`` as proc(5) has it, state 0A for LISTEN; the host's own addresses beside it."""
        head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        rows = [
            f"{n:4d}: 00000000:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 {9000 + n} 1\n"  # noqa: E501
            for n, port in enumerate(sorted(self._ports))
        ]
        self.files.write("/proc/net/tcp", head + "".join(rows), 0o444)
        # As net/ipv4/fib_trie.c writes it: a leaf for each address of the host.
        leaves = [f"  |-- {one}\n     /32 host LOCAL\n" for one in ("127.0.0.1", self.address) if one]
        self.files.write("/proc/net/fib_trie", "Local:\n  +-- 0.0.0.0/0 3 0 5\n" + "".join(leaves), 0o444)

    def session(self, user: str, uid: int) -> Session:
        """What somebody who logged in as ``user`` works with."""
        return Session(self, user, uid, outside=True)

    def find(self, command: str) -> str | None:
        """The program's path, from PATH unless ``command`` has a slash."""
        places = [command] if "/" in command else [f"{folder}/{command}" for folder in SEARCH]
        return next((p for p in places if self.files.exists(p) and not circumstances.missing(self, p)), None)

    def entry(self, place: str) -> list[str] | None:
        """The words of a runnable file's first line (``k3s v1.36.4+k3s1``); None for anything else."""
        try:
            with self.path(place).open("rb") as stream:
                line = stream.readline(4096)
        except OSError:
            return None
        return line[len(MARK) :].decode("utf-8", "replace").split() if line.startswith(MARK) else None

    def run(self, argv: list[str], stdin: bytes = b"") -> Result:
        """Runs a program as root from the console."""
        return Session(self, "root", 0, outside=False).run(argv, stdin)


class Session:
    """A host as one user sees it. What comes from ``outside`` and changes something goes into the ledger."""

    def __init__(self, host: Host, user: str, uid: int, *, outside: bool) -> None:
        self.host = host
        self.user = user
        self.uid = uid
        self.outside = outside
        self.kit = host.kit
        self.vmid = host.vmid
        self.uuid = host.uuid
        self.root = host.root
        self.files = host.files

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def address(self) -> str:
        return self.host.address

    def path(self, absolute: str) -> Path:
        return self.host.path(absolute)

    def journal(self, unit: str, line: str) -> None:
        self.host.journal(unit, line)

    def journal_lines(self, unit: str, count: int) -> list[str]:
        return self.host.journal_lines(unit, count)

    def listen_port(self, port: int) -> None:
        self.host.listen_port(port)

    def unlisten_port(self, port: int) -> None:
        self.host.unlisten_port(port)

    def as_root(self) -> Session:
        """What ``sudo`` gives."""
        return Session(self.host, "root", 0, outside=self.outside)

    def changed(self, what: str) -> None:
        """Enters a change (``write /etc/x``) in the ledger when it came from outside."""
        if self.outside:
            self.kit.ledger.add("ssh", f"{self.name} {what}")

    def run(self, argv: list[str], stdin: bytes = b"") -> Result:
        """127 for what is not there, 126 for what cannot be run, like sh."""
        place = self.host.find(argv[0])
        if place is None:
            return Result(127, b"", f"sh: 1: {argv[0]}: not found\n".encode())
        words = self.host.entry(place)
        if not self.files.stat(place).st_mode & 0o111:
            return Result(126, b"", f"sh: 1: {argv[0]}: Permission denied\n".encode())
        if circumstances.foreign(self.host, words):
            return Result(126, b"", f"sh: 1: {argv[0]}: Exec format error\n".encode())
        program = self.host.programs.get(words[0]) if words else None
        if program is None:
            return Result(126, b"", f"sh: 1: {argv[0]}: Exec format error\n".encode())
        verb = next((word for word in argv[1:] if not word.startswith("-")), "")
        if place.endswith("/systemctl") and verb in CHANGING_VERBS:
            self.changed(" ".join(["systemctl", *(word for word in argv[1:] if not word.startswith("-"))]))
        return program(self, argv, stdin)

    def run_within(self, argv: list[str], stdin: bytes, timeout: float) -> Result | None:
        """The same, or None when it lasts longer than ``timeout`` lab seconds; it goes on by itself then."""
        results: list[Result] = []
        worker = threading.Thread(target=lambda: results.append(self.run(argv, stdin)), daemon=True)
        worker.start()
        end = time.monotonic() + timeout / self.kit.clock.speed
        while worker.is_alive() and time.monotonic() < end and not self.host.gone.is_set():
            worker.join(min(0.5, max(end - time.monotonic(), 0.001)))
        return results[0] if results else None
