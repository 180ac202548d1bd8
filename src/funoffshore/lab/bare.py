"""Machines of the lab that no Proxmox made: they stand there with a system on them, as an operator's own would.

What they shall be is in the store, so that a command can change it while another process runs the lab.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv4Address
from typing import Any

import yaml

from funoffshore import errors
from funoffshore.config import ClusterConfig, Node
from funoffshore.lab.base import Faults, Kit, Store
from funoffshore.lab.guests import Hardware
from funoffshore.lab.hosts import blocks, cloudinit, programs, skeleton
from funoffshore.lab.hosts.hosts import Hosts
from funoffshore.lab.hosts.machine import Host

BUCKET = "bare"
FIRST = 1_000_000_000
"""Beyond every VMID that Proxmox gives."""
LOOK = 0.25
"""Real seconds between two looks at what is wanted."""
PASSWORDS = "/etc/lab-passwords"  # where the lab's sudo finds them
LOST = ("/var/lib/rancher", "/var/lib/kubelet", "/run/k3s", "/run/flannel")
"""What is gone with the disk that K3s' data lies on; its configuration is on the system's."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as it shall be."""

    name: str
    address: str
    vmid: int
    uuid: str
    """Its own system UUID, lower case."""
    architecture: str = "amd64"
    cores: int = 4
    memory_mib: int = 8192
    disk_gib: int = 64
    sudo_password: str = ""
    """Empty: sudo asks for nothing."""
    on: bool = True
    life: int = 1
    """Counts installations: a machine whose number has grown gets a fresh system with other host keys."""

    @property
    def hardware(self) -> Hardware:
        mac = ":".join(f"{byte:02x}" for byte in (2, *self.vmid.to_bytes(5, "big")))
        return Hardware(
            vmid=self.vmid, name=self.name, uuid=self.uuid, cores=self.cores, memory_mib=self.memory_mib,
            disk_gib=self.disk_gib, image="", seed=None, macs=(mac,), agent=False, architecture=self.architecture,
        )  # fmt: skip


def all_of(store: Store) -> list[Machine]:
    """Every machine that there is or shall be, by name."""
    return [Machine(**body) for _, body in store.scan(BUCKET)]


def ensure(store: Store, config: ClusterConfig) -> None:
    """One machine for every node that fo does not make."""
    for node in config.nodes:
        if not node.made and store.get(BUCKET, node.name) is None:
            put(store, config, node)


def put(store: Store, config: ClusterConfig, node: Node, **wanted: Any) -> Machine:
    """Adds the machine of ``node``, or changes it; whatever is said of it means a fresh system."""
    kept = store.get(BUCKET, node.name)
    taken = {machine.vmid for machine in all_of(store)}
    fresh: dict[str, Any] = {
        "name": node.name,
        "address": str(node.address),
        "vmid": next(n for n in range(FIRST, FIRST + 10_000) if n not in taken),
        "uuid": str(uuid.uuid4()),
    }
    before = Machine(**kept) if kept else Machine(**fresh)
    machine = replace(before, **wanted, life=before.life + (1 if kept else 0), address=str(node.address))
    store.put(BUCKET, node.name, asdict(machine))
    return machine


def change(store: Store, name: str, **wanted: Any) -> Machine:
    """Raises ConfigError for a machine that there is not."""
    kept = store.get(BUCKET, name)
    if kept is None:
        known = ", ".join(machine.name for machine in all_of(store)) or "none"
        raise errors.ConfigError(f"the lab has no machine {name} of its own", fix=f"there are: {known}")
    machine = replace(Machine(**kept), **wanted)
    store.put(BUCKET, name, asdict(machine))
    return machine


def wipe(store: Store, name: str) -> Machine:
    """A fresh system at the next look. Raises ConfigError for a machine that there is not."""
    kept = store.get(BUCKET, name)
    return change(store, name, life=int(kept["life"]) + 1 if kept else 1)


def known_hosts(kit_directory: Any, store: Store, port: int) -> Iterator[str]:
    """Lines for SSH_KNOWN_HOSTS of all machines that have a system."""
    for machine in all_of(store):
        file = kit_directory / "hosts" / str(machine.vmid) / "root" / (cloudinit.HOST_KEY[1:] + ".pub")
        if file.is_file():
            at = machine.address if port == 22 else f"[{machine.address}]:{port}"
            yield f"{at} {' '.join(file.read_text().split()[:2])}"


class Bare:
    """Keeps the machines as they shall be, from ``start`` to ``stop``; also plays the fault ``data-lost``."""

    def __init__(self, kit: Kit, hosts: Hosts, config: ClusterConfig) -> None:
        self._kit = kit
        self._hosts = hosts
        self._config = config
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lab-bare", daemon=True)

    def start(self) -> None:
        """Every machine that shall have power has it when this returns; it boots meanwhile."""
        ensure(self._kit.store, self._config)
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Nothing is changed any more; the machines are the hosts' to end."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            self._look()
            self._lose()

    def _look(self) -> None:
        for machine in all_of(self._kit.store):
            if self._life(machine) != machine.life:
                self._install(machine)
            on = self._hosts.is_on(machine.vmid)
            if machine.on and not on:
                self._hosts.power_on(machine.hardware)
            elif on and not machine.on:
                self._hosts.power_off(machine.vmid)

    def _life(self, machine: Machine) -> int:
        """Which installation lies on the disk; 0 for none."""
        kept = self._kit.store.get("bare-installed", str(machine.vmid)) or {}
        return int(kept.get("life", 0))

    def _install(self, machine: Machine) -> None:
        self._hosts.destroy(machine.vmid)
        self._hosts.prepare(machine.hardware, lambda host: _lay(host, machine, self._config))
        self._kit.store.put("bare-installed", str(machine.vmid), {"life": machine.life})

    def _lose(self) -> None:
        """Fault ``data-lost``: the machine stops, and comes back without its K3s; once for each time it is on."""
        faults: Faults = self._kit.faults
        if "data-lost" not in faults.all():
            return
        hit = [host for host in self._hosts.running() if faults.hits("data-lost", node=host.name)]
        for host in hit:
            self._hosts.power_off(host.vmid)
            for folder in LOST:
                shutil.rmtree(host.path(folder), ignore_errors=True)
            self._hosts.power_on(host.hardware)
        if hit:
            faults.off("data-lost")


def _lay(host: Host, machine: Machine, config: ClusterConfig) -> None:
    """A system as an operator would have installed it: address, user with key and sudo, a host key of its own."""
    files, user = host.files, config.ssh.user
    skeleton.lay(files, list(programs.PROGRAMS))
    files.write("/etc/hostname", f"{machine.name}\n")
    files.write("/etc/hosts", f"127.0.1.1 {machine.name}\n127.0.0.1 localhost\n")
    files.write(cloudinit.DISABLED, "")
    files.write(cloudinit.NETPLAN, yaml.safe_dump({"network": _network(machine, config)}), 0o600)
    files.write("/etc/resolv.conf", "".join(f"nameserver {at}\n" for at in config.network.dns))
    keys = [f"{config.ssh.public_key()} {user}"]
    cloudinit.add_user(host, {"name": user, "shell": "/bin/bash", "ssh_authorized_keys": keys})
    rule = "ALL=(ALL) ALL" if machine.sudo_password else "ALL=(ALL) NOPASSWD:ALL"
    files.write("/etc/sudoers.d/90-operator", f"{user} {rule}\n", 0o440)
    if machine.sudo_password:
        files.write(PASSWORDS, f"{user}:{machine.sudo_password}\n", 0o600)
    cloudinit.generate_host_key(host)
    size = (machine.disk_gib << 30) // blocks.SECTOR - blocks.START - blocks.TAIL
    files.write("/dev/sda", json.dumps({"start": blocks.START, "size": size}), 0o660)
    blocks.format_ext4(files, "/dev/sda1", size * blocks.SECTOR, "")


def _network(machine: Machine, config: ClusterConfig) -> dict[str, Any]:
    node = next((n for n in config.nodes if n.name == machine.name), None)
    address, gateway = IPv4Address(machine.address), config.network.gateway
    prefix = config.network.subnet.prefixlen if address in config.network.subnet else 24
    via = str(gateway) if not gateway.is_unspecified else re.sub(r"\d+$", "1", machine.address)
    face: dict[str, Any] = {
        "addresses": [f"{machine.address}/{prefix}"], "routes": [{"to": "default", "via": via}],
    }  # fmt: skip
    if node is not None and node.address_v6 is not None:
        face["addresses"].append(f"{node.address_v6}/64")
    return {"version": 2, "ethernets": {"eth0": face}}
