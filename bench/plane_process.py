"""Programs that run beside the process that started them, and never longer."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import build


class PlaneError(RuntimeError):
    """A server did not start, or ended; the text has the last words of its log."""


def program(name: str) -> Path:
    """A program's file: of the folder ``FO_BENCH_BIN`` when that has it, else what the bench built.

    Raises build.MissingError.
    """
    given = os.environ.get("FO_BENCH_BIN")
    if given and (Path(given) / name).exists():
        return Path(given) / name
    return build.binary(name)


def free_ports(count: int) -> list[int]:
    """Ports on 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Processes:
    """Children that the kernel kills when the thread that started them ends, so that a SIGKILL leaves nothing.

    Each writes to ``folder``/<name>.log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[object], environment: Mapping[str, str] | None = None) -> None:
        """Starts a program that gets SIGKILL when the calling thread ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{name}.log").open("ab") as sink:
            self._running[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *map(str, argv)],
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, cwd=self._folder, start_new_session=True,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def stop(self, *names: str) -> None:
        """Kills these, or all, the youngest first; their data is thrown away anyway."""
        for name in names or reversed(list(self._running)):
            process = self._running.pop(name, None)
            if process:
                process.kill()
                process.wait()

    def pids(self) -> dict[str, int]:
        """Process number of each that was started and not stopped."""
        return {name: process.pid for name, process in self._running.items()}

    def rss(self) -> dict[str, int]:
        """Resident bytes of each that runs."""
        found = {}
        for name, process in self._running.items():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                found[name] = next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS")), 0)
        return found

    def log(self, name: str, lines: int = 12) -> str:
        """The last lines that it wrote."""
        try:
            text = (self._folder / f"{name}.log").read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def wait(self, name: str, what: str, look: Callable[[], bool], seconds: float) -> None:
        """Returns once ``look`` is true. Raises PlaneError when ``name`` ends or time is up.

        A ``look`` that raises OSError only says: not yet.
        """
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if look():
                    return
            ended = self._running[name].poll()
            if ended is not None:
                raise PlaneError(f"{name} ended with {ended}:\n{self.log(name)}")
            if time.monotonic() > end:
                raise PlaneError(f"{what} did not come in {seconds:.0f} s:\n{self.log(name)}")
            time.sleep(0.05)
