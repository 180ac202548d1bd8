"""Machine configurations: kept in the store, guarded by the locks that Proxmox has, shown as it shows them.

Facts from qemu-server ``PVE/QemuConfig.pm``, ``PVE/QemuServer.pm`` and guest-common ``PVE/AbstractConfig.pm``; texts
recorded from a real 8.4 API.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.base import Kit
from funoffshore.lab.guests import Guests
from funoffshore.lab.pve.refusal import absent_config, die
from funoffshore.lab.pve.tasks import Task, TaskError

_BUCKET = "pve/vm"
_POOLS = "pve/pool"
FLOCK_SECONDS = 10.0
"""How long Proxmox waits for a machine's lock file."""


class Machine:
    """One machine's configuration and state. Change it only while holding its lock, then ``save`` it."""

    def __init__(self, vmid: int, node: str, born: float, config: dict[str, Any]) -> None:
        self.vmid = vmid
        self.node = node
        self.born = born
        self.config = config
        self.pending: dict[str, Any] = {}
        """Values that take effect at the next start; None means delete."""
        self.on = False
        self.started = 0.0
        self.pid = 0
        self.origin = ""
        """Volume that the boot disk was imported from."""
        self.digest = ""

    def document(self) -> dict[str, Any]:
        """As it lies in the store."""
        return dict(self.__dict__)

    @classmethod
    def of(cls, body: dict[str, Any]) -> Machine:
        machine = cls(body["vmid"], body["node"], body["born"], body["config"])
        machine.__dict__.update(body)
        return machine

    def shown(self, *, current: bool = False) -> dict[str, Any]:
        """The configuration with pending values as if set, or the live one; the password masked."""
        body = dict(self.config)
        if not current:
            for key, value in self.pending.items():
                if value is None:
                    body.pop(key, None)
                else:
                    body[key] = value
        if "cipassword" in body:
            body["cipassword"] = "**********"
        body["digest"] = self.digest
        return body

    @property
    def name(self) -> str:
        return str(self.config.get("name", f"VM {self.vmid}"))

    def parts(self, option: str) -> dict[str, str]:
        """The property string behind ``option``, parsed; empty when it is not set or broken."""
        return self.read(option, str(self.config[option])) if option in self.config else {}

    @staticmethod
    def read(option: str, text: str) -> dict[str, str]:
        """A property string that ``option`` could hold, parsed; empty when it is broken."""
        return dict(_parsed(option, text))

    @property
    def cores(self) -> int:
        return int(self.config.get("cores", 1)) * int(self.config.get("sockets", 1))

    @property
    def memory(self) -> int:
        """MiB."""
        return int(self.parts("memory").get("current", "512"))

    @property
    def agent(self) -> bool:
        """Whether the guest agent's channel is configured."""
        return self.parts("agent").get("enabled") == "1"

    @property
    def boot_disk(self) -> str:
        """The first disk in the boot order, or the first there is where none was set; empty when there is none."""
        order = str(self.config.get("boot", "scsi0;virtio0;sata0;ide0")).removeprefix("order=").split(";")
        disks = (device for device in order if device in self.config and pveapi.privileges.is_drive(device))
        return next((device for device in disks if "media=cdrom" not in str(self.config[device])), "")

    def seal(self) -> None:
        """Computes the digest anew."""
        text = json.dumps([self.config, self.pending], sort_keys=True)
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Machines:
    """Every machine of the cluster, and the pools they are in."""

    def __init__(self, kit: Kit, guests: Guests) -> None:
        self._kit = kit
        self._guests = guests
        self._guard = threading.RLock()
        self._flocks: dict[int, threading.Lock] = {}
        self._machines = {int(key): Machine.of(body) for key, body in kit.store.scan(_BUCKET)}
        self.pools: dict[str, dict[str, Any]] = dict(kit.store.scan(_POOLS))
        self._pool_of = {int(vmid): pool for pool, body in self.pools.items() for vmid in body["vms"]}

    def all(self) -> list[Machine]:
        """By ID."""
        with self._guard:
            return [machine for _, machine in sorted(self._machines.items())]

    def find(self, vmid: int) -> Machine | None:
        return self._machines.get(vmid)

    def on_node(self, node: str, vmid: int) -> Machine:
        """Refuses with 500 when there is none on that node."""
        machine = self._machines.get(vmid)
        if machine is None or machine.node != node:
            raise die(absent_config(node, vmid))
        return machine

    def in_task(self, node: str, vmid: int, absent: str = "") -> Machine:
        """As ``on_node``, from inside a task."""
        machine = self._machines.get(vmid)
        if machine is None or machine.node != node:
            raise TaskError(absent or absent_config(node, vmid))
        return machine

    def reserve(self, node: str, vmid: int, born: float, what: str = "create") -> Machine:
        """A new machine that is nothing but locked, its lock file held by the caller.

        Refuses with 500 when the ID is taken: this is where the race between two creations is decided.
        """
        with self._guard:
            taken = self._machines.get(vmid)
            if taken is not None:
                raise die(f"unable to create VM {vmid} - VM {vmid} already exists on node '{taken.node}'")
            machine = Machine(vmid, node, born, {"lock": what})
            self._machines[vmid] = machine
        if self._is_stuck(vmid) or not self._flock(vmid).acquire(timeout=FLOCK_SECONDS / self._kit.clock.speed):
            self.forget(vmid)
            raise die(f"unable to create VM {vmid} - {_flock_text(vmid)}")
        self.save(machine)
        return machine

    def hold(self, vmid: int) -> None:
        """Takes a machine's lock file until ``release``; a 500 when that does not succeed in time."""
        if not self._flock(vmid).acquire(timeout=FLOCK_SECONDS / self._kit.clock.speed):
            raise die(_flock_text(vmid))

    def save(self, machine: Machine) -> None:
        """Writes it to the store, digest renewed."""
        machine.seal()
        self._kit.store.put(_BUCKET, str(machine.vmid), machine.document())

    def forget(self, vmid: int) -> None:
        """Removes a configuration and the machine's pool membership."""
        with self._guard:
            self._machines.pop(vmid, None)
            self._kit.store.delete(_BUCKET, str(vmid))
            self.leave_pool(vmid)

    def release(self, vmid: int) -> None:
        """Lets go of the lock file that ``reserve`` took."""
        self._flock(vmid).release()

    @contextlib.contextmanager
    def locked(self, vmid: int, task: Task | None = None) -> Iterator[None]:
        """Holds the machine's lock file. After 10 lab seconds of waiting a 500, or a TaskError in a task."""
        flock, stuck = self._flock(vmid), self._is_stuck(vmid)
        if stuck or not flock.acquire(blocking=False):
            if task is not None:
                task.log("trying to acquire lock...")
            if stuck or not flock.acquire(timeout=FLOCK_SECONDS / self._kit.clock.speed):
                if task is not None:
                    raise TaskError(_flock_text(vmid))
                raise die(_flock_text(vmid))
            if task is not None:
                task.log(" OK")
        try:
            yield
        finally:
            flock.release()

    def is_on(self, machine: Machine) -> bool:
        """Whether it has power; a guest that powered itself off is noted."""
        if machine.on and not self._guests.is_on(machine.vmid):
            machine.on = False
            self.save(machine)
        return machine.on

    def pool_of(self, vmid: int) -> str | None:
        return self._pool_of.get(vmid)

    def join_pool(self, pool: str, vmid: int) -> None:
        """A pool that has vanished meanwhile is left alone."""
        with self._guard:
            if pool in self.pools:
                self._pool_of[vmid] = pool
                self.pools[pool]["vms"] = sorted({*self.pools[pool]["vms"], vmid})
                self.save_pool(pool)

    def leave_pool(self, vmid: int) -> None:
        with self._guard:
            pool = self._pool_of.pop(vmid, None)
            if pool is not None:
                self.pools[pool]["vms"] = [other for other in self.pools[pool]["vms"] if other != vmid]
                self.save_pool(pool)

    def save_pool(self, pool: str) -> None:
        """Writes a pool to the store, or removes it there when it is gone."""
        if pool in self.pools:
            self._kit.store.put(_POOLS, pool, self.pools[pool])
        else:
            self._kit.store.delete(_POOLS, pool)

    def _is_stuck(self, vmid: int) -> bool:
        """By fault, as if somebody held the lock file all the time."""
        return self._kit.faults.hits("lock-timeout", vmid=str(vmid), storage="")

    def _flock(self, vmid: int) -> threading.Lock:
        with self._guard:
            return self._flocks.setdefault(vmid, threading.Lock())


@lru_cache(maxsize=4096)
def _parsed(option: str, text: str) -> dict[str, str]:
    """A stored property string, read as whichever release takes it; empty when none does."""
    for release in pveapi.RELEASES:
        known = pveapi.table(release)["POST", "/nodes/{node}/qemu"].parameter(option)
        parts = pveapi.parts_of(known) if known else None
        with contextlib.suppress(pveapi.FormatError):
            if parts is not None:
                return pveapi.parse(parts, text)
    return {}


def _flock_text(vmid: int) -> str:
    return f"can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout"
