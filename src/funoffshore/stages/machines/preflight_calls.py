"""Every kind of call that fo makes of Proxmox, and what each needs of the token. Pure.

The checks come from the project's table of the API (``pveapi``); what the API does in code beyond its description
comes from qemu-server ``PVE/API2/Qemu.pm``, pve-storage ``PVE/Storage.pm`` (``check_volume_access``), pve-manager
``PVE/API2/Backup.pm`` and ``PVE/API2/VZDump.pm``, and is recorded from a real 8.4 API where one could be asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from funoffshore import pveapi
from funoffshore.config import ClusterConfig, Node
from funoffshore.pveapi import Tree
from funoffshore.stages.machines import shape
from funoffshore.stages.machines.placing import Place

Right = tuple[str, str]
"""Path and privilege."""
Way = frozenset[Right]
"""What is enough together."""
_NODE, _VM = "/nodes/{node}", "/nodes/{node}/qemu/{vmid}"
_STORE = "/nodes/{node}/storage/{storage}"


@dataclass(frozen=True, slots=True)
class Need:
    """What one kind of call needs."""

    ways: tuple[Way, ...]
    """Any one of them is enough."""
    purpose: str
    """Completes "needed to …"."""


def needs(config: ClusterConfig, release: tuple[int, int]) -> list[Need]:
    """One for every kind of call that fo makes for this config.

    Rights on machines are wanted on ``/vms`` and not on the pool: a machine joins its pool only when its creation
    ends, so a token with rights on the pool alone can neither see nor remove what an interrupted creation leaves
    (recorded from a real 8.4 API). Rights on Proxmox nodes are wanted on ``/nodes``, which passes them on.
    """
    table = _Table(release)
    return [
        *_looking(config, table),
        *_bringing(config, table),
        *_making(config, release),
        *_keeping(config, table),
        *_backing_up(config, table),
        *_guarding(config, table),
    ]


class _Table:
    """The operations of the release nearest to the one that was seen."""

    def __init__(self, release: tuple[int, int]) -> None:
        known = [tuple(int(part) for part in name.split(".")) for name in pveapi.RELEASES]
        at = max((n for n, one in enumerate(known) if one <= release), default=0)
        self.is_old = release < (9, 0)
        self._operations = pveapi.table(pveapi.RELEASES[at])

    def call(self, method: str, path: str, purpose: str, /, **parameters: str) -> Need:
        """What the permission check of one operation asks for."""
        return Need(_ways(self._operations[method, path].allowed, parameters), purpose)


def _ways(allowed: Tree, parameters: Mapping[str, str]) -> tuple[Way, ...]:
    """A permission check as alternatives. One that needs a parameter that is not sent is none."""
    if not allowed:
        return (frozenset(),)
    if allowed[0] == "perm":
        path = _path(cast(str, allowed[1]), parameters)
        rights = [(path, privilege) for privilege in cast(Sequence[str], allowed[2])] if path else []
        if "any" in allowed[3:]:
            return tuple(frozenset({right}) for right in rights)
        return (frozenset(rights),) if rights else ()
    branches = [_ways(cast(Tree, branch), parameters) for branch in allowed[1:]]
    if allowed[0] == "or":
        return tuple(itertools.chain.from_iterable(branches))
    return tuple(frozenset().union(*ways) for ways in itertools.product(*branches))


def _path(template: str, parameters: Mapping[str, str]) -> str:
    """The path to ask for; of a machine or a Proxmox node the folder, as fo chooses which only later."""
    path = template.replace("/{vmid}", "").replace("/{newid}", "").replace("/{node}", "")
    for name, value in parameters.items():
        path = path.replace(f"{{{name}}}", value)
    return "" if "{" in path else path


def _all(path: str, purpose: str, *privileges: str) -> Need:
    return Need((frozenset((path, privilege) for privilege in privileges),), purpose)


def _any(path: str, purpose: str, *privileges: str) -> Need:
    return Need(tuple(frozenset({(path, privilege)}) for privilege in privileges), purpose)


def _looking(config: ClusterConfig, table: _Table) -> Iterator[Need]:
    """Lists leave out what the token may not see, without a word, so that has to be asked for beforehand."""
    lent = config.proxmox
    yield table.call("GET", f"{_VM}/config", "see which machine is whose")
    yield table.call("GET", "/cluster/status", "see whether Proxmox has its quorum")
    yield table.call("GET", f"{_NODE}/time", "see the memory, the clock and the tasks of the Proxmox nodes")
    for storage in sorted(_storages(config)):
        yield table.call("GET", f"{_STORE}/content", "see what is there, and the room that is left", storage=storage)
    if lent.pool:
        yield _all(f"/pool/{lent.pool}", "see whether the pool exists", "Pool.Audit")
    if config.shape.cpu.startswith("custom-"):
        # Without it the list of CPU types lacks those that the operator made (qemu-server, CPUConfig.pm).
        yield _all("/nodes", f"see whether there is a CPU type {config.shape.cpu}", "Sys.Audit")


def _storages(config: ClusterConfig) -> set[str]:
    backup = {config.backup.storage} if config.backup else set()
    return {config.proxmox.disk_storage} | backup | ({config.proxmox.image_storage} if _uses_images(config) else set())


def _uses_images(config: ClusterConfig) -> bool:
    return config.proxmox.seed == "iso" or not config.image.template


def _bringing(config: ClusterConfig, table: _Table) -> Iterator[Need]:
    """The pool, the image and the seeds."""
    lent = config.proxmox
    if lent.pool:
        yield table.call("POST", "/pools", "create the pool", poolid=lent.pool)
    if not config.image.template:
        purpose = "have the Proxmox node download the image"
        yield table.call("POST", f"{_STORE}/download-url", purpose, storage=lent.image_storage)
        yield table.call("GET", f"{_NODE}/query-url-metadata", "ask for the size of the image")
    if lent.seed == "iso":
        yield table.call("POST", f"{_STORE}/upload", "put the seeds there", storage=lent.image_storage)
        purpose = "delete the seeds, which hold host keys"
        yield _all(f"/storage/{lent.image_storage}", purpose, "Datastore.Allocate")


def _making(config: ClusterConfig, release: tuple[int, int]) -> Iterator[Need]:
    lent, table = config.proxmox, _Table(release)
    if config.image.template:
        purpose = "make machines from the template"
        yield table.call("POST", f"{_VM}/clone", purpose, pool=lent.pool)
        yield table.call("POST", f"{_VM}/config", "give a copy of the template its settings")
    yield _all("/vms", "create machines", "VM.Allocate")
    yield _all(f"/storage/{lent.disk_storage}", "make disks", "Datastore.AllocateSpace")
    tag = f"/{lent.vlan}" if lent.vlan is not None else ""
    yield _all(f"/sdn/zones/localnetwork/{lent.bridge}{tag}", "attach machines to the bridge", "SDN.Use")
    for option, value in _options(config, release).items():
        yield from _option(option, value)


def _options(config: ClusterConfig, release: tuple[int, int]) -> dict[str, str]:
    """Every option that fo sets on some machine of the config."""
    found: dict[str, str] = {}
    kinds: dict[object, Node] = {(bool(n.data_disk_gib), n.pci, n.usb): n for n in config.nodes}
    for node in kinds.values():
        for option, value in shape.body(config, node, Place("", node.vmid, ""), release).items():
            kept = found.get(option, "")
            found[option] = f"{kept} {value}" if kept and "mapping=" in str(value) else str(value)
    return {option: value for option, value in found.items() if option not in ("vmid", "pool")}


_WHY = {
    "VM.Config.CPU": "set their cores",
    "VM.Config.Memory": "set their memory",
    "VM.Config.Disk": "grow their disks",
    "VM.Config.Network": "give them their network",
    "VM.Config.HWType": "give them their identity and hardware",
    "VM.Config.Options": "name, describe and tag them",
}


def _option(option: str, value: str) -> Iterator[Need]:
    wanted = pveapi.privileges.of_option(option)
    if wanted:
        yield _any("/vms", _WHY.get(wanted[-1], f"set their {option}"), *wanted)
    elif option == "tags":
        yield _all("/vms", _WHY["VM.Config.Options"], "VM.Config.Options")
    elif option.startswith(("hostpci", "usb", "serial")):
        yield _all("/vms", _WHY["VM.Config.HWType"], "VM.Config.HWType")
    if option == "startup":
        yield _all("/", "set the order in which machines start (STARTUP_ORDER)", "Sys.Modify")
    kind = "pci" if option.startswith("hostpci") else "usb"
    for part in value.replace(" ", ",").split(","):
        if part.startswith("mapping="):
            name = part.removeprefix("mapping=")
            yield _all(f"/mapping/{kind}/{name}", f"give machines the device {name}", "Mapping.Use")


def _keeping(config: ClusterConfig, table: _Table) -> Iterator[Need]:
    """What is done to machines that are there."""
    yield table.call("POST", f"{_VM}/status/start", "start, stop and restart machines")
    yield table.call("PUT", f"{_VM}/resize", "grow their disks")
    yield table.call("DELETE", _VM, "delete machines")
    if config.proxmox.seed == "iso":
        yield _all("/vms", "take the seed out of the drive", "VM.Config.CDROM")
    purpose = "see the addresses of a machine that does not answer"
    yield table.call("GET", f"{_VM}/agent/network-get-interfaces", purpose)
    if config.ssh.trust == "agent":
        yield table.call("GET", f"{_VM}/agent/file-read", "read host keys through the guest agent (SSH_TRUST=agent)")


def _backing_up(config: ClusterConfig, table: _Table) -> Iterator[Need]:
    if config.backup is None:
        return
    yield table.call("GET", "/cluster/backup", "see the backup job")
    yield table.call("POST", "/cluster/backup", "make the backup job")
    storage = f"/storage/{config.backup.storage}"
    # Asked for in code only (pve-manager, API2/Backup.pm): a job prunes what is on the storage.
    yield _all(storage, "let the backup job use it", "Datastore.Allocate")
    yield _all(storage, "back machines up there", "Datastore.AllocateSpace")
    yield _all("/vms", "back machines up", "VM.Backup")


def _guarding(config: ClusterConfig, table: _Table) -> Iterator[Need]:
    """High availability and the firewall."""
    if config.proxmox.high_availability:
        yield table.call("GET", "/cluster/ha/resources", "see what is highly available")
        yield table.call("POST", "/cluster/ha/resources", "make machines highly available (HIGH_AVAILABILITY)")
        path = "/cluster/ha/groups" if table.is_old else "/cluster/ha/rules"
        yield table.call("POST", path, "keep the controllers apart (HIGH_AVAILABILITY)")
    if config.shape.firewall:
        yield table.call("GET", "/cluster/firewall/options", "see whether the firewall is on")
        yield table.call("PUT", f"{_VM}/firewall/options", "set the firewall of the machines (FIREWALL)")
        yield table.call("POST", f"{_VM}/firewall/rules", "set the firewall of the machines (FIREWALL)")
