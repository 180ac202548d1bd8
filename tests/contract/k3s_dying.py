"""``fo`` that dies by SIGKILL: ``k3s_dying.py POINT SECONDS ARGUMENT…`` runs ``fo ARGUMENT…`` and kills itself SECONDS
after the POINT-th line of its journal is on disk, with whatever its threads are at by then."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from funoffshore import journal


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: int, seconds: float) -> None:
    """The journal itself stays what it is; this only watches its writes."""
    write, lines = journal.Journal.write, [0]

    def watched(self: journal.Journal, event: str, key: str, *, sync: bool, **data: Any) -> None:
        write(self, event, key, sync=sync, **data)
        lines[0] += 1
        if lines[0] == point:
            threading.Timer(seconds, die).start() if seconds else die()

    journal.Journal.write = watched  # type: ignore[method-assign]


if __name__ == "__main__":
    arm(int(sys.argv[1]), float(sys.argv[2]))
    from funoffshore.cli import main

    sys.argv = ["fo", *sys.argv[3:]]
    main()
