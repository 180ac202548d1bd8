"""The lab hosts' sh, systemd and python3, on a bare machine without network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from funoffshore.lab.base import Faults, Kit, LabClock, Latencies, Ledger, Routes, Store
from funoffshore.lab.guests import Hardware
from funoffshore.lab.hosts import programs, seed, shell, skeleton, systemd
from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.hosts.machine import Host, Session


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    store = Store(tmp_path / "lab.sqlite")
    kit = Kit(tmp_path, LabClock(50), store, Latencies(), Faults(store), Ledger(store), Routes(tmp_path))
    hardware = Hardware(901, "x", "u-1", 2, 2048, 8, "", None, (), agent=False)
    root = tmp_path / "root"
    root.mkdir()
    made = Host(kit, hardware, root, dict(programs.PROGRAMS), {})
    made.units = systemd.Units(made)
    skeleton.lay(made.files, list(programs.PROGRAMS))
    skeleton.start_kernel(made.files, hardware)
    yield made
    made.gone.set()
    kit.clock.stop()
    store.close()


def sh(host: Host, text: str, stdin: bytes = b"") -> tuple[int, str, str]:
    result = shell.run(host.session("root", 0), text, lambda: stdin)
    return result.code, result.out.decode(), result.err.decode()


@pytest.mark.parametrize(
    ("text", "code", "out"),
    [
        ("true", 0, ""),
        ("false", 1, ""),
        ("! false", 0, ""),
        ("! true", 1, ""),
        ("false && echo no; echo yes", 0, "yes\n"),
        ("false || echo yes", 0, "yes\n"),
        ("true || echo no", 0, ""),
        ("false && echo a || echo b", 0, "b\n"),
        ("echo 'a;  b' \"c $USER\" d\\ e", 0, "a;  b c root d e\n"),
        ("echo '$USER' $HOME", 0, "$USER /root\n"),
        ("echo one | cat | tail -n 1", 0, "one\n"),
        ("echo x > /tmp/x; echo y >> /tmp/x; cat /tmp/x", 0, "x\ny\n"),
        ("cat < /etc/hostname", 0, "localhost\n"),
        ("nosuch 2>/dev/null", 127, ""),
        ("nosuch 2>&1 | grep -q 'not found'", 0, ""),
        ("test -f /etc/os-release && [ ! -d /nowhere ] && echo ok", 0, "ok\n"),
        ("sh -c 'exit 3'", 3, ""),
        ("exit 4; echo no", 4, ""),
        ("echo a # b", 0, "a\n"),
        ("A=1 echo b", 0, "b\n"),
        ("", 0, ""),
        ("stat -c '%a %U' /root", 0, "700 root\n"),
        ("/bin/sh -c 'echo \"in\"'", 0, "in\n"),
        ("id -u", 0, "0\n"),
        ("install -m 600 /dev/stdin /opt/s && stat -c %a /opt/s", 0, "600\n"),
        ("printf", 127, ""),
        ("sudo -n nosuch", 1, ""),
    ],
)
def test_sh(host: Host, text: str, code: int, out: str) -> None:
    assert sh(host, text, b"typed")[:2] == (code, out)


@pytest.mark.parametrize("text", ["echo 'open", 'echo "open', "echo $(id)", "echo >", "(true)", "&& true", "sleep 1 &"])
def test_what_sh_does_not_know_is_a_syntax_error(host: Host, text: str) -> None:
    code, out, err = sh(host, text)
    assert (code, out) == (2, "")
    assert "Syntax error" in err


def test_files_that_are_no_programs_cannot_be_run(host: Host) -> None:
    host.files.write("/usr/local/bin/x", "ELF", 0o755)
    assert sh(host, "x")[0] == 126
    host.files.write("/usr/local/bin/x", "#!funoffshore-lab true\n", 0o644)
    assert sh(host, "x") == (126, "", "sh: 1: x: Permission denied\n")
    host.path("/usr/local/bin/x").chmod(0o755)
    assert sh(host, "x")[0] == 0


def test_a_user_is_kept_out_by_modes(host: Host) -> None:
    host.files.write("/etc/secret", "s", 0o600)
    someone = host.session("nobody", 65534)
    assert shell.run(someone, "cat /etc/secret").code == 1
    assert shell.run(someone, "cat /etc/hostname").code == 0
    assert shell.run(someone, "python3 -c 'open(\"/etc/secret\")'").code == 1
    assert shell.run(someone, "cat /root/x").code == 1
    assert shell.run(someone, "sudo -n cat /etc/secret").err == b"sudo: a password is required\n"


class Process:
    """A service whose life the test directs."""

    def __init__(self) -> None:
        self.lives: list[tuple[Callable[[], None], Callable[[int], None]]] = []
        self.stops = 0

    def start(self, machine: Machine, argv: list[str], ready: Any, ended: Any) -> None:
        self.lives.append((ready, ended))

    def stop(self, machine: Machine) -> None:
        self.stops += 1


def unit(host: Host, *lines: str) -> Process:
    host.files.write("/etc/systemd/system/t.service", "\n".join(["[Service]", "ExecStart=/opt/t \\\n  run", *lines]))
    host.files.write("/opt/t", "#!funoffshore-lab t\n", 0o755)
    host.services["t"] = process = Process()
    return process


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_notify_is_active_when_it_says_so(host: Host) -> None:
    process = unit(host, "Type=notify")
    assert sh(host, "systemctl start --no-block t")[0] == 0
    assert sh(host, "systemctl is-active t") == (3, "activating\n", "")
    process.lives[0][0]()
    assert sh(host, "systemctl is-active t") == (0, "active\n", "")
    assert sh(host, "systemctl start t")[0] == 0
    assert len(process.lives) == 1
    assert sh(host, "systemctl stop t; systemctl is-active t")[1] == "inactive\n"
    assert process.stops == 1
    process.lives[0][1](1)
    assert host.units.unit("t").active == "inactive"


def test_a_blocking_start_waits_and_reports_failure(host: Host) -> None:
    process = unit(host, "Type=notify")
    results: list[tuple[int, str, str]] = []
    waiter = threading.Thread(target=lambda: results.append(sh(host, "systemctl start t")))
    waiter.start()
    until(lambda: process.lives)
    assert results == []
    process.lives[0][1](1)
    waiter.join(5)
    assert results[0][0] == 1
    assert "control process exited with error code" in results[0][2]


def test_restart_comes_back_on_the_labs_clock_and_counts(host: Host) -> None:
    process = unit(host, "Type=notify", "Restart=always", "RestartSec=5s")
    host.units.start("t")
    begun = host.kit.clock.now()
    process.lives[0][1](0)
    assert (host.units.unit("t").active, host.units.unit("t").sub) == ("activating", "auto-restart")
    until(lambda: len(process.lives) == 2)
    assert host.kit.clock.now() - begun >= 5
    process.lives[1][0]()
    shown = sh(host, "systemctl show -p NRestarts,ActiveState --property=ExecMainStatus t")[1]
    assert sorted(shown.split()) == ["ActiveState=active", "ExecMainStatus=0", "NRestarts=1"]


def test_stopping_while_it_waits_ends_the_restarts(host: Host) -> None:
    process = unit(host, "Restart=always", "RestartSec=1s")
    host.units.start("t")
    process.lives[0][1](1)
    host.units.stop("t")
    host.kit.clock.sleep(2)
    assert len(process.lives) == 1


def test_too_many_restarts_are_the_end(host: Host) -> None:
    process = unit(host, "Type=notify", "Restart=always", "RestartSec=100ms")
    host.units.start("t")
    for count in range(1, 6):
        until(lambda count=count: len(process.lives) == count)  # type: ignore[misc]
        process.lives[-1][1](1)
    until(lambda: host.units.unit("t").active == "failed")
    assert host.units.show("t")["Result"] == "start-limit-hit"


@pytest.mark.parametrize(
    ("policy", "code", "state"), [("no", 0, "inactive"), ("no", 1, "failed"), ("on-failure", 0, "inactive")]
)
def test_how_a_unit_ends(host: Host, policy: str, code: int, state: str) -> None:
    process = unit(host, f"Restart={policy}")
    host.units.start("t")
    process.lives[0][1](code)
    assert host.units.unit("t").active == state


def test_a_missing_or_unmarked_program_is_203(host: Host) -> None:
    unit(host)
    host.path("/opt/t").unlink()
    host.units.start("t")
    assert host.units.show("t")["ExecMainStatus"] == systemd.EXEC_FAILED
    assert "No such file" in " ".join(host.journal_lines("t", 10))


def test_a_changed_unit_file_counts_after_daemon_reload(host: Host) -> None:
    unit(host, "Type=notify")
    assert host.units.show("t")["Type"] == "notify"
    unit(host, "Type=simple")
    assert host.units.show("t")["Type"] == "notify"
    sh(host, "systemctl daemon-reload")
    assert host.units.show("t")["Type"] == "simple"


def test_pre_commands_and_oneshots_run(host: Host) -> None:
    process = unit(host, "ExecStartPre=-/usr/bin/false", "ExecStartPre=/usr/bin/sh -c 'echo x > /opt/pre'")
    host.units.start("t")
    assert len(process.lives) == 1
    assert host.files.exists("/opt/pre")
    host.files.write(
        "/etc/systemd/system/once.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/mkdir /opt/once\n"
    )
    assert sh(host, "systemctl start once")[0] == 0
    assert host.files.exists("/opt/once")


def test_python_cannot_leave_the_host(host: Host) -> None:
    session = Session(host, "root", 0, outside=True)
    for text in (
        "import socket; socket.socket()", "import socket; socket.socketpair()", "import socket; socket.getaddrinfo",
        "import socket; socket.create_connection(('192.0.2.1', 80), 0.1)", "import fcntl; fcntl.ioctl",
        "import socket; socket.create_connection(('example.com', 80), 0.1)", "import signal; signal.raise_signal",
        "import http.client; http.client.HTTPConnection", "import threading; threading._os", "import pathlib",
        "import ctypes", "open('/../../../etc/shadow2')", "import importlib", "import os; os.system('x')",
        "import os; os.fork", "import subprocess; subprocess.run(['/usr/bin/env'])",
    ):  # fmt: skip
        assert session.run(["python3", "-c", text]).code == 1, text
    assert host.kit.ledger.entries() == []
    session.run(["python3", "-c", "import os; os.makedirs('/opt/a/b'); open('/opt/a/b/c', 'w').write('x')"])
    assert host.files.read("/opt/a/b/c") == "x"
    assert [entry["what"] for entry in host.kit.ledger.entries()] == ["localhost write /opt/a/b/c"]


def test_a_seed_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(b"not an image" * 10000)
    assert seed.read(tmp_path / "x.iso") is None
    assert seed.read(tmp_path / "gone.iso") is None
