"""What somebody with a root shell on the hypervisors does, past the API: tokens, storages, outages, strangers.

Tests and the lab itself call it; nothing of it can be reached over the wire.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from funoffshore.lab.pve import availability, create, power
from funoffshore.lab.pve.calls import House
from funoffshore.lab.pve.refusal import RefusalError
from funoffshore.lab.pve.tasks import TaskError
from funoffshore.lab.pve.volumes import print_size


class Operator:
    """The hands of an operator, without any permission check."""

    _house: House

    def volume_file(self, node: str, volid: str) -> Path:
        """The file of a volume that lies in a directory storage, like ``local:import/x.qcow2``."""
        volumes = self._house.volumes
        return volumes.file(node, volumes.parse(volid))

    def add_token(
        self, token_id: str, secret: str, acl: Mapping[str, Iterable[str]] | None = None, *, expires: float = 0
    ) -> None:
        """Makes or replaces ``user@realm!name``. ``acl`` maps paths to privileges, all inherited downwards.

        None means the role that fo needs, for a token of root@pam everything. ``expires`` is Unix time, 0 never.
        """
        self._house.access.add(token_id, secret, acl, expires)

    def add_user(self, name: str, password: str, acl: Mapping[str, Iterable[str]] | None = None) -> None:
        """Makes or replaces ``user@realm``, who can log in. ``acl`` as for a token, everything for root@pam."""
        rights = {"/": self._house.access.everything()} if acl is None and name == "root@pam" else acl
        self._house.access.add(name, password, rights, 0)

    def ensure_token(self, token_id: str, secret: str) -> None:
        """The token works with ``secret``; one that is there keeps its rights, a new one gets the role fo needs."""
        self._house.access.ensure(token_id, secret)

    def set_privileges(self, token_id: str, path: str, privileges: Iterable[str]) -> None:
        """Replaces what the token has at ``path``. Raises KeyError for an unknown token."""
        self._house.access.set(token_id, path, privileges)

    def remove_privilege(self, token_id: str, privilege: str) -> None:
        """Takes one privilege from the token, at every path. Raises KeyError for an unknown token."""
        self._house.access.remove(token_id, privilege)

    def add_storage(
        self,
        name: str,
        kind: str,
        content: tuple[str, ...],
        *,
        nodes: tuple[str, ...] = (),
        shared: bool = False,
        size: int | None = None,
    ) -> None:
        """Makes or replaces a storage of type ``dir``, ``nfs`` or ``lvmthin``.

        ``nodes``: where it can be used, all when empty. A shared one holds one set of volumes, any other one for each
        node. ``size`` in bytes; None is plenty.
        """
        self._house.volumes.add(name, kind, content, nodes=nodes, shared=shared, size=size)

    def remove_storage(self, name: str) -> None:
        """Takes a storage out of the configuration; what lies on it stays there."""
        self._house.volumes.remove(name)

    def add_stranger(self, vmid: int, name: str, node: str = "pve") -> None:
        """A machine that somebody else made. Raises RefusalError when the ID is taken."""
        machine = self._house.machines.reserve(node, vmid, 0.0)
        machine.config = create.configuration(self._house, {"name": name, "memory": "2048", "cores": "2"})
        self._house.machines.save(machine)
        self._house.machines.release(vmid)

    def add_template(
        self,
        vmid: int,
        name: str,
        node: str = "pve",
        disk_gib: float = 2,
        *,
        storage: str = "local-lvm",
        image: str = "local:import/cloud.qcow2",
    ) -> None:
        """A template that somebody made of a cloud image; a clone boots as what was imported from ``image`` does.

        Raises RefusalError when the ID is taken or there is no such storage on that node.
        """
        house = self._house
        machine = house.machines.reserve(node, vmid, 0.0)
        try:
            kept = house.volumes.usable(storage, node)
            volid = house.volumes.allocate(node, kept, vmid, int(disk_gib * 1024**3), "qcow2")
            disk = f"{house.volumes.to_base(node, volid)},size={print_size(int(disk_gib * 1024**3))}"
            settings = {"name": name, "memory": "2048", "cores": "2", "scsihw": "virtio-scsi-single", "agent": "1"}
            wired = {"net0": f"virtio,bridge={house.bridges[0]}", "boot": "order=scsi0", "ostype": "l26"}
            machine.config = create.configuration(house, {**settings, **wired, "scsi0": disk, "template": "1"})
            machine.origin = image
            house.machines.save(machine)
        except RefusalError:
            house.machines.forget(vmid)
            raise
        finally:
            house.machines.release(vmid)

    def edit(self, vmid: int, **options: Any) -> None:
        """Writes a machine's configuration file: values as they are stored, None removes one; ``_`` stands for ``-``.

        Raises KeyError for an unknown machine.
        """
        machine = self._house.machines.find(vmid)
        if machine is None:
            raise KeyError(vmid)
        for name, value in options.items():
            machine.config.pop(name.replace("_", "-"), None)
            if value is not None:
                machine.config[name.replace("_", "-")] = value
        self._house.machines.save(machine)

    def hold_lock(self, vmid: int, seconds: float) -> None:
        """Somebody else holds the machine's lock file for that many lab seconds."""
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with self._house.machines.locked(vmid):
                held.set()
                over.wait()

        threading.Thread(target=hold, name=f"pve-hold-{vmid}", daemon=True).start()
        held.wait(10)
        self._house.kit.clock.after(seconds, over.set)

    def kill_worker(self, upid: str) -> None:
        """Kills a task's process: nothing is cleaned up. Raises KeyError for an unknown task."""
        task = self._house.tasks.find(upid)
        if task is None:
            raise KeyError(upid)
        task.kill()

    def move(self, vmid: int, node: str) -> None:
        """Migrates a machine, running or not; its disks on storages that are not shared go along.

        A CD-ROM that the target cannot see is ejected first, as it would hold up a migration. Raises KeyError for an
        unknown machine and ValueError for an unknown node.
        """
        house = self._house
        machine = house.machines.find(vmid)
        if machine is None:
            raise KeyError(vmid)
        if node not in house.nodes:
            raise ValueError(f"no node {node}")
        for option, value in list(machine.config.items()):
            volid = str(value).split(",")[0]
            if ":iso/" in volid and not house.volumes.parse(volid).storage.shared:
                machine.config[option] = "none,media=cdrom"
        house.volumes.carry(vmid, machine.node, node)
        machine.node = node
        house.machines.save(machine)

    def take_down(self, node: str, why: str = "No route to host") -> None:
        """A node loses power: its machines and tasks are gone, calls for it end with 595 and ``why``.

        Raises ValueError for an unknown node and for the first one, which answers.
        """
        house = self._house
        house.cluster.take_down(node, why)
        for machine in house.machines.all():
            if machine.node == node and house.machines.is_on(machine):
                house.guests.power_off(machine.vmid)
                house.machines.is_on(machine)
        for task in house.tasks.all():
            if task.node == node and task.exit is None:
                task.kill()
        availability.wake(house)

    def bring_up(self, node: str) -> None:
        """A node is back, and starts its machines that have ``onboot``. Raises ValueError for an unknown one."""
        house = self._house
        house.cluster.bring_up(node)
        for machine in house.machines.all():
            if machine.node == node and machine.config.get("onboot") and not house.machines.is_on(machine):
                with contextlib.suppress(TaskError):
                    power.switch_on(house, machine)

    def set_memory(self, node: str, total: int, used: int | None = None) -> None:
        """Bytes that a node has and uses; ``used`` None: what its machines use. Raises ValueError."""
        self._house.cluster.set_memory(node, total, used)
