"""Log lines as logrus writes them, and the two ways in which the program ends by itself."""

from __future__ import annotations

import datetime


class Fatal(Exception):
    """A start-up error: one ``level=fatal`` line, exit 1."""


class Shutdown(Exception):
    """An error after start-up: one ``Shutdown request received`` line, exit 0."""


class Died(Exception):
    """A part of the program has ended all of it; its own last line is in the journal already."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Stopped(Exception):
    """SIGTERM came: the process does nothing more and says nothing more."""


def line(now: float, level: str, message: str) -> str:
    """``time="2026-11-24T02:57:25Z" level=info msg="…"``. ``now`` is Unix time in seconds."""
    stamp = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    escaped = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'time="{stamp}" level={level} msg="{escaped}"'
