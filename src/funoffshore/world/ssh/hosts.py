"""The hosts of one cluster: looked at, written to and changed, each in one round trip."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from funoffshore import errors
from funoffshore.clock import Clock
from funoffshore.config import model
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.routes import Routes
from funoffshore.world.ssh import connection as ssh_connection
from funoffshore.world.ssh import facts, forwards, known, login, way, wire
from funoffshore.world.ssh.look import FileLook, FileWrite, Look
from funoffshore.world.ssh.program import script
from funoffshore.world.ssh.replies import failure, nonsense, refusal
from funoffshore.world.ssh.streams import Command, Ended

AGAIN = 0.25
"""Wall seconds before the second attempt to get a dropped command's answer; the first is made at once, and each later
one waits longer, up to ``LONGEST``."""
LONGEST = 5.0
SIDE_BY_SIDE = 64
"""Hosts that are looked at at once."""
UNSEEN = (errors.UnreachableError, errors.RefusedError, errors.DeadlineError, ssh_connection.UnknownKeyError)
"""Why a host could not be looked at; anything else is an alarm."""
DONE = ("changed", "same", "kept", "removed", "absent", "done", "staged")
"""Results of changes that went well."""


PUSHED = 8 << 20
"""Bytes of a file that are sent in one call."""
PUSHING = 600.0
"""Wall seconds for one of these calls: a slow link has 14 kB/s then."""


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
        self._clock = clock
        self._login = login.Login(config.ssh)
        self._way = way.Way(config.ssh, routes, self._login)
        self._lock = threading.Lock()
        self._lines: dict[str, ssh_connection.Line] = {}
        self._round_trips = Counter()
        self._closings = 0
        self._forwards: forwards.Forwards | None = None

    def routes(self, beyond: Routes) -> Routes:
        """The way to the cluster's API: as ``beyond`` says, or through the jump host where there is one."""
        if self._config.ssh.jump is None:
            return beyond
        if self._forwards is None:
            places = {str(self._config.network.vip), *(str(node.address) for node in self._config.nodes)}
            self._forwards = forwards.Forwards(beyond, places, self._to_api)
        return self._forwards

    def _to_api(self, address: str, port: int) -> way.Stream:
        return self._way.open(address, port, f"{address} port {port}")

    @property
    def round_trips(self) -> int:
        """Commands run on hosts so far."""
        return self._round_trips.value

    def answers(self, address: object) -> bool:
        """Whether something takes TCP connections at ``address`` on the SSH port, within a second. Raises what logging
        in at the jump host raises, where there is one; one that does not answer is no answer."""
        try:
            self._way.open(str(address), self._config.ssh.port, str(address), 1.0).close()
        except errors.UnreachableError:
            return False
        return True

    def known_key(self, node: model.Node) -> known.HostKey | None:
        """The host key that the node must show; None while none is known. Raises StateError."""
        return ssh_connection.known_key(self._config, node)

    def shown_key(self, node: model.Node) -> known.HostKey:
        """The key that whoever answers at the node's address proves to hold, which proves nothing about who that is.

        Only keys are exchanged: no user name, no login. Raises UnreachableError, TrustError without such a key.
        """
        return ssh_connection.shown_key(self._config, self._way, node)

    def call(self, node: model.Node, request: Mapping[str, Any], deadline: float = 60) -> dict[str, Any]:
        """The helper's answer to ``request`` (see ``world/hosthelper.py``): one command on the host.

        When the connection drops meanwhile it is made anew. A request that changes something has an id, by which the
        host does it at most once (in one boot) and only tells the answer again; one that only looks is repeated once.

        Raises TrustError before any authentication when the host key differs or is not known yet (then nothing is
        sent at all), StateError when the record of keys is unusable, UnreachableError when the host
        cannot be reached, or not again (what was done is unknown then), DeadlineError after
        ``deadline`` wall seconds, RefusedError when the host says no or talks nonsense.
        """
        asked, resumes = dict(request), bool(set(request) - {"read", "id"})
        if resumes:
            asked.setdefault("id", secrets.token_hex(16))
        ended = self._run(node, script(asked), deadline, resumes=resumes)
        if ended.code:
            raise refusal(node, self._config.ssh, ended)
        try:
            answer = json.loads(ended.out)
            if wire.table(answer, "reply").get("helper") != 1:
                raise wire.ReplyError("it is no helper's reply")
        except (ValueError, RecursionError) as why:
            raise nonsense(node, why) from None
        return dict(answer)

    def _run(self, node: model.Node, stdin: bytes, deadline: float, *, resumes: bool) -> Ended:
        """The same command again over a new connection when one drops: up to the deadline where the request has an
        id, so that the host does it once; one time where it only looks."""
        end, tries, closings = time.monotonic() + deadline, 0, self._closings
        dropped: errors.UnreachableError | None = None
        while True:
            try:
                return self._attempt(node, stdin, max(end - time.monotonic(), 0.01))
            except ssh_connection.DroppedError as why:
                dropped = why
            except errors.UnreachableError as why:
                if dropped is None:
                    raise
                dropped = ssh_connection.DroppedError(
                    f"{dropped.message.partition('; since then')[0]}; since then: {why.message}", fix=dropped.fix
                )
            left = end - time.monotonic()
            tries += 1
            if left <= 0 or (tries > 1 and not resumes) or closings != self._closings:
                raise dropped
            time.sleep(min(AGAIN * (2 ** min(tries - 1, 10) - 1), LONGEST, left))

    def _attempt(self, node: model.Node, stdin: bytes, deadline: float) -> Ended:
        with self._lock:
            line = self._lines.setdefault(node.name, ssh_connection.Line())
        with line.sessions:
            live, channel = self._channel(line, node)
            self._round_trips.up()
            ssh = self._config.ssh
            return live.run(channel, Command(ssh.user, None if node.made else ssh.sudo_password), stdin, deadline)

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
            line.connection = ssh_connection.connect(self._config, self._way, self._login, node)
            return line.connection, line.connection.open()

    def observe(self, node: model.Node, look: Look | None = None) -> Reading[facts.HostFacts]:
        """One look at one host. Unreadable when it cannot be looked at, say because its host key is not known yet;
        raises TrustError for a wrong host key."""
        try:
            before = self._clock.now()
            answer = self.call(node, {"read": (look or Look()).request()})
            middle = (before + self._clock.now()) / 2
            return Present(facts.parse(answer, middle))
        except wire.ReplyError as why:
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
        the host cannot fetch it, PreflightError when the disk is full, TaskFailedError when systemd or K3s say no,
        RefusedError for anything else. Changes before the failed one were made, later ones were not.
        """
        answer = self.call(node, request, deadline)
        try:
            changes = wire.table(answer.get("changes", {}), "changes")
            outcomes = [wire.table(item, "outcome") for items in changes.values() for item in items]
        except (wire.ReplyError, TypeError) as why:
            raise nonsense(node, why) from None
        for outcome in outcomes:
            if outcome.get("result") not in DONE:
                raise failure(node, outcome)
        return answer

    def push(
        self,
        node: model.Node,
        path: str,
        source: Path,
        sha256: str,
        mode: int = 0o755,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """The file ``source`` of this computer is at ``path`` on the host when this returns, owned by root.

        Sent in chunks, going on with what an earlier call left there. ``say`` hears how far it is. Raises StateError
        when ``source`` cannot be read, DigestError when it or what arrived is not ``sha256`` (64 hex digits), and
        what ``change`` raises.
        """
        size = verified_size(source, sha256)
        have = self._push(node, path, sha256, size, mode, 0, b"")
        with source.open("rb") as stream:
            while have < size:
                say(f"{path}: {have >> 20} of {size >> 20} MiB are on {node.name}")
                stream.seek(have)
                have = self._push(node, path, sha256, size, mode, have, stream.read(PUSHED))

    def _push(self, node: model.Node, path: str, sha256: str, size: int, mode: int, offset: int, data: bytes) -> int:
        """One chunk; the bytes that are there now."""
        item = {
            "path": path, "sha256": sha256, "size": size, "mode": f"{mode:04o}", "offset": offset,
            "data": base64.b64encode(data).decode(),
        }  # fmt: skip
        answer = self.change(node, {"push": [item]}, PUSHING)
        try:
            return int(wire.number(wire.table(answer["changes"]["push"][0], "push"), "have"))
        except (LookupError, TypeError, wire.ReplyError):
            raise nonsense(node, wire.ReplyError("push has no have")) from None

    def read_file(self, node: model.Node, path: str) -> Reading[bytes]:
        """The bytes of a file of at most 1 MiB, secret or not: the caller knows what it asked for."""
        asked = Look((FileLook(path, content=True),), units=(), commands=(), space=(), file_systems=()).request()
        try:
            answer = wire.table(self.call(node, {"read": asked}).get("read"), "read")
            item = wire.table(wire.table(answer.get("files"), "files").get(path), "file")
            match wire.reading(item, wire.bytes_of):
                case Present(None):
                    return Unreadable(f"{path} on {node.name} is not a regular file")
                case Present(bytes(content)):
                    return Present(content)
                case Unreadable(why=why):
                    return Unreadable(why)
            return Absent()
        except wire.ReplyError as why_not:
            return Unreadable(nonsense(node, why_not).message)
        except UNSEEN as why_not:
            return Unreadable(why_not.message)

    def close(self) -> None:
        """Drops every connection; the next call makes new ones, and what runs now ends with UnreachableError."""
        with self._lock:
            self._closings += 1
            lines, self._lines = list(self._lines.values()), {}
        for line in lines:
            if line.connection is not None:
                line.connection.close()
        if self._forwards is not None:
            self._forwards.close()
        self._way.close()


def verified_size(source: Path, sha256: str) -> int:
    """Bytes. Raises StateError when the file cannot be read, DigestError when it is not what was pinned."""
    try:
        with source.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except OSError as why:
        raise errors.StateError(f"{source} cannot be read: {why.strerror or why}") from None
    if found != sha256.lower():
        raise errors.DigestError(
            f"{source} is not what was pinned: its SHA-256 is {found}, expected {sha256}",
            fix="delete it, or put the right release there",
        )
    return size
