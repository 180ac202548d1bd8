"""One winner; the loser learns who holds the lock; the lock dies with its holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from funoffshore import errors, lock

HOLD = """
import sys, pathlib
from funoffshore import lock
with lock.hold(pathlib.Path(sys.argv[1]), "fo bootstrap"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_loser_is_told_who_holds_it_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.LockedError, match=f"fo bootstrap, process {holder.pid}"), lock.hold(tmp_path, "x"):
            pass
        holder.kill()
        holder.wait()
    with lock.hold(tmp_path, "fo plan"):
        assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()
