"""An operator whose ``fo`` is killed again and again while it makes, scales, mends and destroys a cluster's machines,
beside strangers whose VMs lie in the cluster's VMID range."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from operator_home import Operator

from funoffshore import config as configs
from funoffshore.clock import WallClock
from funoffshore.config import identity
from funoffshore.world.proxmox import Proxmox
from funoffshore.world.routes import Routes

WORKERS = 3
"""As many as the cluster ever has."""


@contextmanager
def served(home: Operator, speed: int = 60) -> Iterator[None]:
    """The lab in a process of its own, slow enough that kills hit what is under way."""
    with home.start("lab", "serve", "--latency", "realistic", "--speed", str(speed)) as lab:
        try:
            while not (home.lab / "running.json").exists():
                time.sleep(0.05)
            yield
        finally:
            lab.terminate()
            lab.communicate()


@dataclass
class Chaos:
    """One home, its strangers, and the chance that decides."""

    home: Operator
    chance: random.Random
    strangers: dict[int, str] = field(default_factory=dict)
    """VMID → digest of everything that Proxmox keeps of it."""
    killed: int = 0
    ended: int = 0

    @property
    def proxmox(self) -> Proxmox:
        """The hypervisor's API, with the operator's own token."""
        config = configs.load(configs.find(self.home.folder, "lab", {}), root=self.home.folder)
        return Proxmox(config.proxmox, Routes(self.home.lab / "routes.json"), WallClock())

    def settle_in(self) -> None:
        """Strangers where the first controller and the second worker would go, each with a disk."""
        proxmox = self.proxmox
        first = int(self.home.value("VMID_FIRST"))
        for vmid, name in ((first, "nas"), (first + 11, "pbx"), (first + 40, "lab-like")):
            body = {"vmid": vmid, "name": name, "scsi0": "local-lvm:1", "tags": "family", "memory": 512}
            upid = proxmox.create_vm("pve", body)
            while proxmox.task(upid).running:
                time.sleep(0.02)
            self.strangers[vmid] = self.fingerprint(vmid)

    def fingerprint(self, vmid: int) -> str:
        """Of a VM's configuration, digest included, and of its disks."""
        seen = self.proxmox.config("pve", vmid)
        assert seen is not None, f"VM {vmid} is gone"
        whole = hashlib.sha256(json.dumps([dict(seen.options), seen.digest], sort_keys=True).encode())
        disks = [volume for volume in self.proxmox.content("pve", "local-lvm") if f"vm-{vmid}-" in volume.volid]
        assert disks, f"the disk of VM {vmid} is gone"
        whole.update(repr(sorted(disks, key=lambda volume: volume.volid)).encode())
        return whole.hexdigest()

    def step(self) -> None:
        """Something an operator does, killed at a moment that chance chooses."""
        self._change()
        command = self.chance.choice(
            (
                ("bootstrap", "--until", "machines"),
                ("bootstrap", "--until", "machines"),
                ("bootstrap", "--until", "machines", *self._removals()),
                ("destroy", "--confirm", "lab"),
            )
        )
        with self.home.start(*command) as fo:
            try:
                fo.wait(timeout=self.chance.uniform(0.3, 2.5))
                self.ended += 1
            except subprocess.TimeoutExpired:
                fo.kill()
                self.killed += 1
            _, talk = fo.communicate()
        assert "Traceback" not in talk
        self.compare()

    def _change(self) -> None:
        """The env file, or a machine, differs from what it was."""
        if self.chance.random() < 0.4:
            self.home.set("WORKERS", str(self.chance.randint(1, WORKERS)))
        elif self.chance.random() < 0.4:
            ours = [row for row in self.proxmox.guests() if row.vmid not in self.strangers]
            if ours:
                drift: Any = {"onboot": 0, "name": "renamed-by-hand"}
                self.proxmox.change_now("pve", self.chance.choice(ours).vmid, drift)

    def _removals(self) -> tuple[str, ...]:
        named = int(self.home.value("WORKERS"))
        return tuple(word for n in range(named + 1, WORKERS + 1) for word in ("--remove", f"lab-w{n}"))

    def compare(self) -> None:
        """Raises AssertionError once a stranger is not what it was."""
        for vmid, before in self.strangers.items():
            assert self.fingerprint(vmid) == before, f"the stranger's VM {vmid} was touched"

    def identities(self) -> list[str]:
        """Of every VM that is not a stranger's."""
        proxmox = self.proxmox
        rows = [row for row in proxmox.guests() if row.vmid not in self.strangers]
        found = [proxmox.config(row.node, row.vmid) for row in rows]
        return sorted(config.identity for config in found if config is not None)

    def finish(self) -> None:
        """Left alone, it gets where it was to get; and then everything of ours goes."""
        self.home.set("WORKERS", "2")
        removals = self._removals()
        ended = self.home.fo("bootstrap", "--until", "machines", *removals, timeout=300)
        assert ended.code == 0, ended.err
        names = ("lab-c1", "lab-w1", "lab-w2")
        assert self.identities() == sorted(str(identity("lab", name)) for name in names)
        self.compare()
        ended = self.home.fo("destroy", "--confirm", "lab", timeout=300)
        assert ended.code == 0, ended.err
        assert self.identities() == []
        self.compare()


def chaos(folder: Path, kills: int, seed: int) -> Chaos:
    """Goes on until ``fo`` was killed that often, then lets it finish."""
    home = Operator(folder / "home", CONTROLLERS=1, WORKERS=2)
    made = Chaos(home, random.Random(seed))  # noqa: S311 - chooses moments, guards nothing
    with served(home):
        made.settle_in()
        while made.killed < kills:
            made.step()
        made.finish()
    return made
