"""OpenSSH's own client against a lab host: what a person would type."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_machines import Bench, bench

from funoffshore import hostkeys

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client here")


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        made.boot()
        yield made


def ssh(made: Bench, command: str, stdin: bytes = b"", name: str = "lab-c1") -> subprocess.CompletedProcess[bytes]:
    """Runs ``command`` on the host with a known_hosts file that holds the key of node ``name``."""
    key = made.config.root / "id"
    key.write_text(made.config.ssh.private_key.get_secret_value())
    key.chmod(0o600)
    public = hostkeys.openssh_public(hostkeys.private(made.config.ssh.host_key_seed.get_secret_value(), name))
    known = made.config.root / "known_hosts"
    known.write_text(f"[{made.node.address}]:2222 {public}\n")
    options = [
        "-F", "/dev/null", "-i", str(key), "-p", "2222", "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "GlobalKnownHostsFile=/dev/null",
    ]  # fmt: skip
    argv = ["ssh", *options, f"ops@{made.node.address}", command]
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=20)


def test_commands_run_with_their_exit_status_and_streams(one: Bench) -> None:
    done = ssh(one, "uname -m && hostname; id -un; nosuch; false || echo 'a  b' | sha256sum")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[:3] == ["x86_64", "lab-c1", "ops"]
    assert done.stderr == b"sh: 1: nosuch: not found\n"
    assert ssh(one, "exit 7").returncode == 7
    assert ssh(one, "nosuch").returncode == 127
    assert ssh(one, "cat /etc/hostname").stdout == b"lab-c1\n"
    assert ssh(one, "cat > /home/ops/x && cat /home/ops/x", b"typed").stdout == b"typed"


def test_only_root_reads_what_is_roots(one: Bench) -> None:
    assert ssh(one, "cat /etc/ssh/ssh_host_ed25519_key").stderr.endswith(b"Permission denied\n")
    assert ssh(one, "sudo -n cat /etc/ssh/ssh_host_ed25519_key").stdout.startswith(b"-----BEGIN OPENSSH")
    assert ssh(one, "echo x > /etc/x").returncode == 2
    assert ssh(one, "systemctl stop ssh").returncode == 1


def test_python_runs_there_on_the_hosts_files(one: Bench) -> None:
    program = b"import os, sys\nprint(os.geteuid(), open('/etc/hostname').read(), end='')\nsys.exit(4)\n"
    done = ssh(one, "sudo -n python3 -", program)
    assert (done.returncode, done.stdout) == (4, b"0 lab-c1\n")
    done = ssh(one, "python3 -", b"import ctypes\n")
    assert done.returncode == 1
    assert b"No module named 'ctypes'" in done.stderr
    assert ssh(one, "python3 -", b"def x(:\n").returncode == 1


def test_cloud_init_and_systemd_answer(one: Bench) -> None:
    assert ssh(one, "cloud-init status --wait").stdout == b"status: done\n"
    assert ssh(one, "systemctl is-active ssh qemu-guest-agent nosuch").stdout == b"active\nactive\ninactive\n"
    assert ssh(one, "systemctl is-enabled qemu-guest-agent").returncode == 0
    assert b"Accepted publickey for ops" in ssh(one, "sudo journalctl -u ssh -n 1 -o cat").stdout


def test_another_host_key_is_refused(one: Bench) -> None:
    done = ssh(one, "true", name="lab-c2")
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr
