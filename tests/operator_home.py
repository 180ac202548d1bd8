"""An operator's repository in a folder of its own, with a lab cluster in a subnet of its own, and ``fo`` to run."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
_NUMBERS = itertools.count()


def subnet() -> str:
    """A /24 of loopback that no other test of this machine uses: process number and a counter make it."""
    number = os.getpid() * 7 + next(_NUMBERS)
    return f"127.{100 + number // 250 % 120}.{number % 250 + 1}.0/24"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Operator:
    """A clone of the project as an operator has it."""

    def __init__(self, folder: Path, name: str = "lab", **values: object) -> None:
        self.folder, self.name = folder, name
        (folder / "config" / "env").mkdir(parents=True)
        shutil.copytree(PROJECT / "infra", folder / "infra")
        (folder / ".gitignore").write_text(".lab/\nconfig/env/*\nai/\n")
        self.git("init", "-q", "-b", "main")
        self.commit("The tree")
        settings = {"SUBNET": subnet(), **values}
        ended = self.fo("init", name, "--lab", *(a for k, v in settings.items() for a in ("--set", f"{k}={v}")))
        assert ended.code == 0, ended.err

    @property
    def env_file(self) -> Path:
        return self.folder / "config" / "env" / f"{self.name}.env"

    @property
    def lab(self) -> Path:
        return self.folder / ".lab" / self.name

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("FO_", "GIT_", "PYTHON"))}
        return kept | {"HOME": str(self.folder), "NO_COLOR": "1", "COLUMNS": "200"}

    def git(self, *argv: str) -> str:
        who = ["-c", "user.name=op", "-c", "user.email=op@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *who, *argv], cwd=self.folder, env=self.environment(), capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def command(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "funoffshore", *argv]

    def fo(
        self, *argv: str, timeout: float = 120, stdin: str | None = None, variables: dict[str, str] | None = None
    ) -> Ended:
        """Runs ``fo`` to its end. The cluster is the only one there is, so no ``-c`` is needed."""
        done = subprocess.run(
            self.command(*argv), cwd=self.folder, env={**self.environment(), **(variables or {})}, capture_output=True,
            text=True, timeout=timeout, check=False, input=stdin if stdin is not None else "",
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Starts ``fo`` and leaves it running; whoever asked ends it."""
        return subprocess.Popen(
            self.command(*argv), cwd=self.folder, env=self.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def set(self, key: str, value: str) -> None:
        """Changes a value of the env file in place, or adds it."""
        before = self.env_file.read_text().split("\n")
        lines = [f"{key}={value}" if line.startswith(f"{key}=") else line for line in before]
        if lines == before and f"{key}={value}" not in before:
            lines.append(f"{key}={value}\n")
        self.env_file.write_text("\n".join(lines))

    def value(self, key: str) -> str:
        return next(
            line.partition("=")[2].strip("'\"")
            for line in self.env_file.read_text().split("\n")
            if line.startswith(f"{key}=")
        )

    def ledger(self) -> list[str]:
        """Every call that changed something, door first."""
        from funoffshore.lab.base import Ledger, Store

        store = Store(self.lab / "lab.sqlite")
        try:
            return [f"{entry['door']} {entry['what']}" for entry in Ledger(store).entries()]
        finally:
            store.close()

    def mutations(self) -> int:
        return int(self.fo("lab", "status", "-c", self.name, "--json").json["mutating_calls"])

    def touch(self, namespace: str, name: str) -> None:
        """Restarts a Deployment, as kubectl rollout restart does."""
        import os
        import time

        from kubernetes import client
        from kubernetes import config as kubeconfig

        made = kubeconfig.new_client_from_config(str(self.lab / "lab.kubeconfig"))  # type: ignore[no-untyped-call]
        api = client.AppsV1Api(made)
        stamp = {"kubectl.kubernetes.io/restartedAt": f"{time.time()}-{os.getpid()}"}
        api.patch_namespaced_deployment(name, namespace, {"spec": {"template": {"metadata": {"annotations": stamp}}}})
