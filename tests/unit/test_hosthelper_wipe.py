"""Wiping what K3s left, with volumes still mounted and containers still running: in namespaces of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from funoffshore.world.ssh import program

APART = ("unshare", "--fork", "--pid", "--mount-proc", "--mount", "--propagation", "private")
"""Mounts and processes that are gone with the test, and no others to be seen."""


def possible() -> bool:
    return shutil.which("unshare") is not None and not subprocess.run([*APART, "true"], capture_output=True).returncode


pytestmark = pytest.mark.skipif(not possible(), reason="no namespaces of its own for this user")


def wiped(tmp: Path, before: str, after: str = "") -> tuple[dict[str, Any], list[str]]:
    """The outcome of wiping ``rancher`` below ``tmp`` as if it were K3s' own folder, and what ``after`` printed."""
    (tmp / "bin").mkdir()
    (tmp / "bin" / "systemctl").write_text("#!/bin/sh\necho ActiveState=inactive\n")
    (tmp / "bin" / "systemctl").chmod(0o755)
    place = str(tmp / "rancher")
    text = program.script({"wipe": [place]}).replace(b'"/var/lib/rancher"', json.dumps(place).encode())
    (tmp / "program").write_bytes(text)
    script = f"set -e; cd {tmp}; PATH={tmp}/bin:$PATH\n{before}\n{sys.executable} -I - < program > answer\n{after}\n"
    done = subprocess.run([*APART, "bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    [outcome] = json.loads((tmp / "answer").read_text())["changes"]["wipe"]
    return outcome, done.stdout.split()


VOLUME = "mkdir -p rancher/k3s/agent/vol precious; echo data > precious/x; mount --bind precious rancher/k3s/agent/vol"


def test_what_is_mounted_in_the_tree_is_unmounted_and_kept(tmp_path: Path) -> None:
    outcome, said = wiped(tmp_path, VOLUME, "ls; cat precious/x")
    assert outcome["result"] == "removed"
    assert "rancher" not in said
    assert said[-1] == "data"


def test_a_mount_that_is_in_use_keeps_the_whole_tree(tmp_path: Path) -> None:
    outcome, said = wiped(tmp_path, f"{VOLUME}; exec 9< rancher/k3s/agent/vol/x", "cat rancher/k3s/agent/vol/x")
    assert (outcome["result"], outcome["kind"]) == ("failed", "os")
    assert f"{tmp_path}/rancher/k3s/agent/vol is mounted and stays so" in outcome["error"]
    assert said == ["data"]


def test_a_disk_of_its_own_stays_mounted_and_empty(tmp_path: Path) -> None:
    outcome, said = wiped(
        tmp_path,
        "mkdir rancher; mount -t tmpfs tmpfs rancher; mkdir -p rancher/k3s/db; touch rancher/k3s/db/x",
        "ls -A rancher; mountpoint -q rancher && echo mounted",
    )
    assert (outcome["result"], said) == ("removed", ["mounted"])


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outcome, said = wiped(
        tmp_path, "mkdir -p rancher/k3s other; touch other/x; ln -s $PWD/other rancher/k3s/l", "ls other"
    )
    assert (outcome["result"], said) == ("removed", ["x"])


def test_containers_that_k3s_left_running_are_ended_with_their_children_and_no_others(tmp_path: Path) -> None:
    shim = "/var/lib/rancher/k3s/data/abc/bin/containerd-shim-runc-v2"
    before = f"""mkdir -p rancher/k3s
    (exec -a {shim} bash -c 'sleep 1000 & wait') & shim=$!
    (exec -a /usr/bin/containerd-shim-runc-v2 sleep 1000) & other=$!
    until pgrep -P $shim > child && grep -q containerd-shim /proc/$other/cmdline; do :; done"""
    after = """for pid in $shim $(cat child) $other; do
        case $(cut -d ' ' -f 3 /proc/$pid/stat 2> /dev/null) in ''|Z) echo gone;; *) echo there;; esac
    done"""
    outcome, said = wiped(tmp_path, before, after)
    assert (outcome["result"], said) == ("removed", ["gone", "gone", "there"])
