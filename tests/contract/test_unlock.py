"""The human's mark: typed at a terminal, after the evidence was shown; it opens the gate and can be taken back."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from operator_home import Operator


def _at_a_terminal(home: Operator, *argv: str, typed: str) -> tuple[int, str]:
    """Runs ``fo`` at a pseudo-terminal and types one line once it asks."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        home.command(*argv), cwd=home.folder, env=home.environment(), stdin=slave, stdout=slave, stderr=slave
    ) as fo:
        os.close(slave)
        shown = b""
        while b"to unlock Stage 2:" not in shown:
            shown += os.read(master, 4096)
        os.write(master, typed.encode() + b"\n")
        try:
            while chunk := os.read(master, 4096):
                shown += chunk
        except OSError:  # EIO: the other end is closed
            pass
        code = fo.wait(timeout=30)
    os.close(master)
    return code, shown.decode()


def test_a_human_unlocks_and_locks_stage_2(tmp_path: Path) -> None:
    home = Operator(tmp_path / "home", CONTROLLERS=1, WORKERS=1)
    assert home.fo("bootstrap").code == 0
    code, shown = _at_a_terminal(home, "gate", "unlock", typed="wrong")
    assert code == 2
    assert "FO-API-001" in shown
    assert home.fo("gate", "show", "--json").json["open"] is False
    code, _ = _at_a_terminal(home, "gate", "unlock", typed="lab")
    assert code == 0
    assert home.fo("gate", "show", "--json").json == {"open": True, "reasons": []}
    assert home.fo("postcheck").code == 0
    assert home.fo("gate", "show", "--json").json["open"] is True
    assert home.fo("gate", "lock").code == 0
    assert home.fo("gate", "show", "--json").json["open"] is False
