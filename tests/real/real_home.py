"""An operator's repository for the bench: ``fo`` runs unchanged in the bench's network, against servers not ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from operator_home import PROJECT, Ended, Operator

from bench import control, enter, home, paths
from bench.hosts import names
from bench.internet.tls import Authority

NAME = "bench"


class RealOperator(Operator):
    """As ``Operator``, with a cluster that is not in the embedded lab."""

    def __init__(self, folder: Path, controllers: int = 3, workers: int = 2, **changed: str | None) -> None:
        """``changed`` are answers for ``fo init`` other than the bench's; None leaves a key out."""
        self.folder, self.name = folder, NAME
        (folder / "config" / "env").mkdir(parents=True)
        shutil.copytree(PROJECT / "infra", folder / "infra")
        (folder / ".gitignore").write_text("config/env/*\nconfig/kube/\nai/\n")
        self.git("init", "-q", "-b", "main")
        self.commit("The tree")
        self.git("remote", "add", "origin", home.GIT_URL)
        answers = {k: v for k, v in {**home.answers(controllers, workers), **changed}.items() if v is not None}
        ended = self.fo("init", NAME, *(a for k, v in answers.items() for a in ("--set", f"{k}={v}")))
        assert ended.code == 0, ended.err
        self.push()

    def environment(self) -> dict[str, str]:
        return super().environment() | home.environment(Authority(paths.cache()).bundle())

    def command(self, *argv: str) -> list[str]:
        return control.inside([sys.executable, "-m", "funoffshore", *argv])

    def drop(self, key: str) -> None:
        """Takes a key out of the env file."""
        lines = self.env_file.read_text().split("\n")
        self.env_file.write_text("\n".join(line for line in lines if not line.startswith(f"{key}=")))

    def push(self) -> str:
        """Git holds what the folder holds. Returns the commit."""
        done = subprocess.run(
            control.inside(["git", "push", "-q", "--force", "origin", "main"]), cwd=self.folder, env=self.environment(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return self.git("rev-parse", "HEAD")

    def kubectl(self, *argv: str, timeout: float = 60) -> Ended:
        """The real kubectl with the operator's kubeconfig."""
        from bench.build import binary

        kubeconfig = self.folder / "config" / "kube" / f"{self.name}.kubeconfig"
        done = subprocess.run(
            control.inside([str(binary("kube")), "kubectl", f"--kubeconfig={kubeconfig}", *argv]),
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def ssh(self, address: str, command: str, timeout: float = 60) -> Ended:
        """The real ssh with the operator's key."""
        key = self.folder / "id"
        if not key.exists():
            import base64

            key.touch(mode=0o600)
            key.write_bytes(base64.b64decode(self.value("SSH_PRIVATE_KEY")))
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        done = subprocess.run(
            control.inside(["ssh", "-i", str(key), *options, f"fo@{address}", command]),
            capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def get(self, *argv: str) -> Any:
        """``kubectl get … -o json``."""
        ended = self.kubectl("get", *argv, "-o", "json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    def power_cycle(self, vmid: int) -> None:
        """Pulls the plug of a machine and puts it back, through Proxmox' API."""
        with proxmox() as node:
            for power in (node.qemu(vmid).status.stop, node.qemu(vmid).status.start):
                task_ended(node, power.post())

    def status(self) -> dict[str, Any]:
        """What was proven last."""
        body: dict[str, Any] = json.loads((self.folder / "ai" / "state" / "status.json").read_text())
        return body

    def proxmox_writes(self) -> int:
        """Mutating calls that the Proxmox in front of the machines has seen."""
        from funoffshore.lab.base import Ledger, Store

        store = Store(paths.run() / "proxmox" / "lab.sqlite")
        try:
            return Ledger(store).count()
        finally:
            store.close()


@contextmanager
def proxmox() -> Iterator[Any]:
    """The node's API, with the operator's token."""
    from proxmoxer import ProxmoxAPI

    with enter.network():
        yield ProxmoxAPI(
            names.PROXMOX, user="fo@pve", token_name="fo", token_value=home.TOKEN_SECRET, verify_ssl=False
        ).nodes("pve")


def task_ended(node: Any, upid: str) -> None:
    """Waits for a task that must end well."""
    task = node.tasks(upid)
    ended = eventually("the task to end", lambda: task.status.get().get("exitstatus"), 60)
    assert ended == "OK", [line["t"] for line in task.log.get()]


def eventually(what: str, probe: Callable[[], Any], within: float = 120.0) -> Any:
    """What ``probe`` returns once it is true. Fails after ``within`` seconds."""
    give_up = time.monotonic() + within
    while not (found := probe()):
        assert time.monotonic() < give_up, f"{what}: not within {within:.0f} s"
        time.sleep(0.5)
    return found
