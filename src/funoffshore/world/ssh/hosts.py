"""The hosts of one cluster: looked at, written to and changed, each in one round trip."""

from __future__ import annotations

import base64
import functools
import importlib.resources
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import SecretStr

from funoffshore import errors
from funoffshore.clock import Clock
from funoffshore.config import model
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.routes import Routes
from funoffshore.world.ssh import connection as ssh_connection
from funoffshore.world.ssh import facts, known

COMMAND = "sudo -n python3 -"
SIDE_BY_SIDE = 64
"""Hosts that are looked at at once."""
UNSEEN = (errors.UnreachableError, errors.RefusedError, errors.DeadlineError, ssh_connection.UnknownKeyError)
"""Why a host could not be looked at; anything else is an alarm."""


@dataclass(frozen=True, slots=True)
class FileLook:
    """A path to look at. ``content`` asks for the bytes too (at most 1 MiB)."""

    path: str
    content: bool = False


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A file as it shall be. Missing folders are made with ``folder_mode``."""

    path: str
    content: bytes | SecretStr
    mode: int = 0o644
    owner: str = "root:root"
    only_if_absent: bool = False
    folder_mode: int = 0o755

    def request(self) -> dict[str, Any]:
        """The helper's ``write`` item. Holds the content, so it is never logged."""
        raw = self.content if isinstance(self.content, bytes) else self.content.get_secret_value().encode()
        return {
            "path": self.path,
            "content": base64.b64encode(raw).decode(),
            "mode": f"{self.mode:04o}",
            "owner": self.owner,
            "only_if_absent": self.only_if_absent,
            "folder_mode": f"{self.folder_mode:04o}",
        }


OBSERVED_FILES = (
    FileLook("/etc/rancher/k3s/config.yaml", content=True),
    FileLook("/etc/rancher/k3s/k3s.yaml"),
    FileLook("/etc/rancher/node/password"),
    FileLook("/etc/systemd/system/k3s.service", content=True),
    FileLook("/etc/systemd/system/k3s-agent.service", content=True),
    FileLook("/usr/local/bin/k3s"),
    FileLook("/var/lib/rancher/k3s/server/token"),
    FileLook("/var/lib/rancher/k3s/server/db/etcd/member"),
    FileLook("/var/lib/rancher/k3s/agent/kubelet.kubeconfig"),
    FileLook("/etc/cloud/cloud-init.disabled"),
)
"""What every look at a host includes. Contents come back as SecretStr: config.yaml holds the tokens."""

OBSERVED_UNITS = ("k3s.service", "k3s-agent.service")
DATA = "/var/lib/rancher"
"""Where the data disk is mounted, on machines that have one: everything K3s keeps lies below."""


@dataclass(frozen=True, slots=True)
class Look:
    """What to look at in one go. The default is what planning needs."""

    files: tuple[FileLook, ...] = OBSERVED_FILES
    units: tuple[str, ...] = OBSERVED_UNITS
    journal: int = 0
    """Lines of each unit's journal."""
    commands: tuple[str, ...] = ("k3s-version", "cloud-init")
    space: tuple[str, ...] = ("/", "/var/lib/rancher/k3s")
    file_systems: tuple[str, ...] = ("/", DATA)
    """Folders where one may be mounted, each looked at with its device and disk."""

    def also(self, *files: FileLook) -> Look:
        """The same look with more files; a path asked for twice is asked for as the later one says."""
        merged = {look.path: look for look in (*self.files, *files)}
        return replace(self, files=tuple(merged.values()))

    def request(self) -> dict[str, Any]:
        return {
            "files": [{"path": look.path, "content": look.content} for look in self.files],
            "units": [{"name": name, "journal": self.journal} for name in self.units],
            "commands": list(self.commands),
            "space": list(self.space),
            "file_systems": list(self.file_systems),
        }


@functools.cache
def helper() -> str:
    """What runs on the host: the texts of ``world/hostdisks.py`` and ``world/hosthelper.py``, as one program."""
    folder = importlib.resources.files("funoffshore.world")
    disks, rest = (folder.joinpath(name).read_text("utf-8") for name in ("hostdisks.py", "hosthelper.py"))
    # Python takes it at the very beginning only.
    return disks + rest.replace("from __future__ import annotations\n", "", 1)


def script(request: Mapping[str, Any]) -> bytes:
    """Program and request for ``python3 -``, which parses its whole stdin before it runs."""
    encoded = base64.b64encode(json.dumps(request).encode()).decode()
    return f'{helper()}\nmain("{encoded}", DISKS)\n'.encode()


@dataclass
class Counter:
    """Counts from several threads."""

    value: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def up(self) -> None:
        with self.lock:
            self.value += 1


class Hosts:
    """Every host of one cluster. Thread safe; keeps one connection per node until ``close``.

    Waits on the network are wall seconds, as no lab can speed up a handshake.
    """

    def __init__(self, config: model.ClusterConfig, routes: Routes, clock: Clock) -> None:
        self._config = config
        self._routes = routes
        self._clock = clock
        self._lock = threading.Lock()
        self._lines: dict[str, ssh_connection.Line] = {}
        self._round_trips = Counter()

    @property
    def round_trips(self) -> int:
        """Commands run on hosts so far."""
        return self._round_trips.value

    def answers(self, address: object) -> bool:
        """Whether something takes TCP connections at ``address`` on the SSH port, within a second."""
        try:
            ssh_connection.dial(self._routes, str(address), self._config.ssh.port, 1.0).close()
        except OSError:
            return False
        return True

    def known_key(self, node: model.Node) -> known.HostKey | None:
        """The host key that the node must show; None while none is known. Raises StateError."""
        return ssh_connection.known_key(self._config, node)

    def shown_key(self, node: model.Node) -> known.HostKey:
        """The key that whoever answers at the node's address proves to hold, which proves nothing about who that is.

        Only keys are exchanged: no user name, no login. Raises UnreachableError, TrustError without such a key.
        """
        return ssh_connection.shown_key(self._config, self._routes, node)

    def call(self, node: model.Node, request: Mapping[str, Any], deadline: float = 60) -> dict[str, Any]:
        """The helper's answer to ``request`` (see ``world/hosthelper.py``): one command on the host, never two.

        Raises TrustError before any authentication when the host key differs or is not known yet (then nothing is
        sent at all), StateError when the record of keys is unusable, UnreachableError when the host
        cannot be reached or the connection drops (what was done is unknown then), DeadlineError after
        ``deadline`` wall seconds, RefusedError when the host says no or talks nonsense.
        """
        ended = self._run(node, script(request), deadline)
        if ended.code:
            raise refusal(node, ended)
        try:
            answer = json.loads(ended.out)
            if facts.table(answer, "reply").get("helper") != 1:
                raise facts.ReplyError("it is no helper's reply")
        except (ValueError, RecursionError) as why:
            raise nonsense(node, why) from None
        return dict(answer)

    def _run(self, node: model.Node, stdin: bytes, deadline: float) -> ssh_connection.Ended:
        with self._lock:
            line = self._lines.setdefault(node.name, ssh_connection.Line())
        with line.sessions:
            live, channel = self._channel(line, node)
            self._round_trips.up()
            return live.run(channel, COMMAND, stdin, deadline)

    def _channel(self, line: ssh_connection.Line, node: model.Node) -> tuple[ssh_connection.Connection, Any]:
        """A fresh channel, over a fresh connection where the kept one turns out to be dead (a rebooted host)."""
        with line.lock:
            if line.connection is not None and line.connection.alive():
                try:
                    return line.connection, line.connection.open()
                except errors.UnreachableError:
                    pass
            if line.connection is not None:
                line.connection.close()
                line.connection = None
            line.connection = ssh_connection.connect(self._config, self._routes, node)
            return line.connection, line.connection.open()

    def observe(self, node: model.Node, look: Look | None = None) -> Reading[facts.HostFacts]:
        """One look at one host. Unreadable when it cannot be looked at, say because its host key is not known yet;
        raises TrustError for a wrong host key."""
        try:
            before = self._clock.now()
            answer = self.call(node, {"read": (look or Look()).request()})
            middle = (before + self._clock.now()) / 2
            return Present(facts.parse(answer, middle))
        except facts.ReplyError as why:
            return Unreadable(nonsense(node, why).message)
        except UNSEEN as why:
            return Unreadable(why.message)

    def observe_all(self, nodes: Iterable[model.Node], look: Look | None = None) -> dict[str, Reading[facts.HostFacts]]:
        """One look at each host, all at once, by node name. Raises TrustError when any host key is wrong."""
        asked = list(nodes)
        if not asked:
            return {}
        with ThreadPoolExecutor(min(len(asked), SIDE_BY_SIDE), thread_name_prefix="observe") as pool:
            seen = pool.map(lambda node: self.observe(node, look), asked)
            return dict(zip((node.name for node in asked), seen, strict=True))

    def write(self, node: model.Node, files: Sequence[FileWrite], deadline: float = 60) -> frozenset[str]:
        """Paths that were not as asked and now are. All or nothing per file; raises as ``change``."""
        answer = self.change(node, {"write": [file.request() for file in files]}, deadline)
        return frozenset(item["on"] for item in answer["changes"]["write"] if item["result"] == "changed")

    def change(self, node: model.Node, request: Mapping[str, Any], deadline: float = 120) -> dict[str, Any]:
        """``call``, and every change in ``request`` was made when this returns.

        Raises what ``call`` raises; DigestError when a download is not what was pinned, UnreachableError when
        the host cannot fetch it, PreflightError when the disk is full, TaskFailedError when systemd says no,
        RefusedError for anything else. Changes before the failed one were made, later ones were not.
        """
        answer = self.call(node, request, deadline)
        try:
            changes = facts.table(answer.get("changes", {}), "changes")
            outcomes = [facts.table(item, "outcome") for items in changes.values() for item in items]
        except (facts.ReplyError, TypeError) as why:
            raise nonsense(node, why) from None
        for outcome in outcomes:
            if outcome.get("result") not in ("changed", "same", "kept", "removed", "absent", "done"):
                raise failure(node, outcome)
        return answer

    def read_file(self, node: model.Node, path: str) -> Reading[bytes]:
        """The bytes of a file of at most 1 MiB, secret or not: the caller knows what it asked for."""
        asked = Look((FileLook(path, content=True),), units=(), commands=(), space=(), file_systems=()).request()
        try:
            answer = facts.table(self.call(node, {"read": asked}).get("read"), "read")
            item = facts.table(facts.table(answer.get("files"), "files").get(path), "file")
            match facts.reading(item, facts.bytes_of):
                case Present(None):
                    return Unreadable(f"{path} on {node.name} is not a regular file")
                case Present(bytes(content)):
                    return Present(content)
                case Unreadable(why=why):
                    return Unreadable(why)
            return Absent()
        except facts.ReplyError as why_not:
            return Unreadable(nonsense(node, why_not).message)
        except UNSEEN as why_not:
            return Unreadable(why_not.message)

    def close(self) -> None:
        """Drops every connection; the next call makes new ones."""
        with self._lock:
            lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            if line.connection is not None:
                line.connection.close()


def nonsense(node: model.Node, why: Exception) -> errors.RefusedError:
    kind = str(why) if isinstance(why, facts.ReplyError) else "not JSON"
    return errors.RefusedError(
        f"{node.name} answered over SSH, but not with the reply that was asked for ({kind})",
        fix="a shell profile or a wrapper around sudo or python3 prints into the answer: make it silent",
    )


def refusal(node: model.Node, ended: ssh_connection.Ended) -> errors.RefusedError:
    """Only stderr is quoted, without any line of it that shows the program: the request stands in there."""
    said = (line.strip()[:300] for line in ended.err.decode("utf-8", "replace").splitlines())
    lines = tuple(line for line in said if line and "main(" not in line)[-5:]
    last = lines[-1] if lines else "no word"
    fix = ""
    if "sudo" in last:
        fix = "the user needs passwordless sudo (ALL=(ALL) NOPASSWD:ALL)"
    elif ended.code == 127 or "python3" in last:
        fix = "install python3 on the host"
    return errors.RefusedError(
        f"{node.name} did not run the helper: exit {ended.code}, {last}", fix=fix, evidence=lines
    )


def failure(node: model.Node, outcome: Mapping[str, Any]) -> errors.FoError:
    """The error of a change that failed, as its kind asks for."""
    message = f"{node.name}: {outcome.get('on')}: {outcome.get('error', 'not done')}"
    match outcome.get("kind"):
        case "digest":
            return errors.DigestError(message, fix="check version and sha256 in the env file against the release")
        case "network":
            return errors.UnreachableError(message, fix="can the host reach that address? (route, DNS, proxy)")
        case "space":
            return errors.PreflightError(message, fix="free space on the host, or give the machine a bigger disk")
        case "unit" | "timeout" | "disk":
            return errors.TaskFailedError(message)
    return errors.RefusedError(message)
