"""One running k3s process on one machine: a thread that starts up, waits, and ends as the real one would."""

from __future__ import annotations

import threading
import urllib.parse
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.k3s import executable, log, settings

if TYPE_CHECKING:
    from funoffshore.lab.k3s.plane import Doors
    from funoffshore.lab.k3s.server import Server
    from funoffshore.lab.k3s.service import Planes

RUNNING = "k3s-running"


class Process(ABC):
    """What servers and agents have in common. ``stop`` may come at any moment, from any thread."""

    unit = "k3s"

    def __init__(
        self,
        planes: Planes,
        machine: Machine,
        argv: list[str],
        ready: Callable[[], None],
        ended: Callable[[int], None],
    ) -> None:
        self.kit = planes.kit
        self.planes = planes
        self.doors: Doors = planes.doors
        self.machine = machine
        self.argv = argv
        self.node = machine.name
        self.address = machine.address
        self.addresses = [machine.address]
        """All of ``node-ip``: two where the cluster is dual stack."""
        self.stopped = threading.Event()
        self.up = threading.Event()
        """Set once it runs."""
        self.resumed = planes.kit.store.get(RUNNING, str(machine.vmid)) is not None
        """The lab's process was restarted under a process that ran: it goes on without starting up again."""
        self.version = executable.version_of(machine.path(argv[0] if argv[0].startswith("/") else "/usr/local/bin/k3s"))
        self.settings: settings.Settings
        self.pulled: set[str] = set()
        """Images that are on its disk."""
        self._ready = ready
        self._ended = ended

    def begin(self) -> None:
        """Returns at once."""
        threading.Thread(target=self._run, name=f"k3s-{self.node}", daemon=True).start()

    def stop(self, *, forget: bool = True) -> None:
        """SIGTERM. With ``forget`` False the lab itself ends, and the process goes on when the lab comes back."""
        self.stopped.set()
        if forget:
            self.kit.store.delete(RUNNING, str(self.machine.vmid))
        self.gone()

    def say(self, level: str, message: str) -> None:
        if not self.stopped.is_set():
            self.machine.journal(self.unit, log.line(self.kit.clock.now(), level, message))

    def pause(self, seconds: float) -> None:
        """Waits lab seconds. Raises Stopped as soon as the process is."""
        if self.stopped.wait(seconds / self.kit.clock.speed):
            raise log.Stopped

    def start_up(self, seconds: float) -> None:
        """A part of starting that takes time, except when the process merely goes on."""
        self.pause(0 if self.resumed else seconds)

    @abstractmethod
    def live(self) -> None:
        """From exec to the end; returns when nothing is left to do but to run. Raises Fatal, Shutdown, Stopped."""

    @abstractmethod
    def gone(self) -> None:
        """Takes back everything that others can see of the process."""

    def running(self) -> None:
        """Tells systemd, and the store, that the process is up."""
        if self.stopped.is_set():
            raise log.Stopped
        self.kit.store.put(RUNNING, str(self.machine.vmid), {"plane": self.plane_identity(), "node": self.node})
        self._ready()
        self.up.set()

    @abstractmethod
    def plane_identity(self) -> str:
        """Identity of the cluster it belongs to."""

    def end(self, code: int) -> None:
        """The process exits by itself."""
        if self.stopped.is_set():
            return
        self.stop()
        self._ended(code)

    def is_blocked(self, url: str) -> bool:
        """Whether packets to ``https://host:port`` get lost on the way."""
        parts = urllib.parse.urlsplit(url)
        return circumstances.blocked(self.machine, parts.hostname or "", parts.port or 443)

    def dial(self, url: str) -> Server | None:
        """The server behind ``https://host:port``, or None: connection refused."""
        parts = urllib.parse.urlsplit(url)
        return self.doors.behind(parts.hostname or "", parts.port or 443)

    def _run(self) -> None:
        try:
            self.settings = settings.read(self.machine.path, self.argv)
            self.node = self.settings.text("node-name") or self.machine.name
            self.addresses = self.settings.many("node-ip") or [self.machine.address]
            self.address = self.addresses[0]
            self.live()
        except log.Stopped:
            return
        except log.Fatal as why:
            self._pause_quietly(0.2)
            self.say("fatal", str(why))
            self.end(1)
        except log.Died as why:
            self.end(why.code)
        except log.Shutdown as why:
            self.say("error", f'Shutdown request received: "{why}"')
            self.end(0)
        except Exception as why:
            # The machine's disk and the lab's store may vanish under a process that is being destroyed.
            if not self.stopped.is_set():
                self.say("fatal", f"Error: {type(why).__name__}: {why}")
                self.end(1)

    def _pause_quietly(self, seconds: float) -> None:
        if self.kit.latencies.k3s_first:
            self.stopped.wait(seconds / self.kit.clock.speed)
