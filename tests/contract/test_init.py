"""``fo init``: from a terminal, from flags, and what it refuses."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest
from operator_home import Operator


@pytest.fixture
def home(tmp_path: Path) -> Operator:
    """A repository with a lab cluster; a second cluster is made beside it."""
    return Operator(tmp_path / "home")


def test_at_a_terminal_it_asks_and_writes_a_private_file(home: Operator) -> None:
    master, slave = pty.openpty()
    argv = home.command("init", "home", "--no-pin")
    with subprocess.Popen(argv, cwd=home.folder, env=home.environment(), stdin=slave, stdout=slave, stderr=slave) as fo:
        os.close(slave)
        shown, answered = b"", 0
        answers = {
            b"DOMAIN": b"example.org",
            b"SUBNET": b"192.168.7.0/24",
            b"PROXMOX_TOKEN_SECRET": b"0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        }
        try:
            while chunk := os.read(master, 65536):
                shown += chunk
                while (asked := shown[answered:].find(b": ", max(0, len(shown[answered:]) - 2))) >= 0:
                    key = shown.rsplit(b"\n", 1)[-1].split(b" ")[0].rstrip(b":")
                    os.write(master, answers.get(key, b"") + b"\n")
                    answered += asked + 2
        except OSError:  # EIO: the other end is closed
            pass
        code = fo.wait(timeout=30)
    os.close(master)
    assert code == 0, shown.decode()
    path = home.folder / "config" / "env" / "home.env"
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "DOMAIN=example.org" in text
    assert "SUBNET=192.168.7.0/24" in text
    assert "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0" in text
    assert b"0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0" not in shown
    assert b"still to be filled in" in shown


def test_from_flags_it_generates_the_rest(home: Operator) -> None:
    ended = home.fo("init", "home", "--no-pin", "--set", "DOMAIN=example.org", "--set", "SUBNET=192.168.7.0/24")
    assert ended.code == 0, ended.err
    text = (home.folder / "config" / "env" / "home.env").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    for key in ("SSH_PRIVATE_KEY", "HOST_KEY_SEED", "K3S_TOKEN", "K3S_AGENT_TOKEN", "EVIDENCE_KEY", "SOPS_AGE_KEY"):
        assert len(values[key]) >= 32, key
        assert values[key] not in ended.err + ended.out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("lab",), "is there already"),
        (("Bad_Name",), "DNS label"),
        (("home", "--set", "NOPE=1", "--no-pin"), "no such key"),
        (("home", "--set", "DOMAIN", "--no-pin"), "KEY=VALUE"),
        (("two", "--lab", "--set", "SUBNET=abc"), "IPv4 network"),
        (("two", "--lab", "--set", "CONTROLLERS=2"), "CONTROLLERS"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(home: Operator, argv: tuple[str, ...], says: str) -> None:
    before = sorted((home.folder / "config" / "env").iterdir())
    ended = home.fo("init", *argv)
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert sorted((home.folder / "config" / "env").iterdir()) == before
