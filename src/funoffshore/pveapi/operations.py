"""The operations of the Proxmox VE API that fo uses, for each release.

Facts from the public API description of Proxmox VE 8.4 and 9.1 (pve-docs ``api-viewer/apidata.js``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache

from funoffshore.pveapi import options
from funoffshore.pveapi.options import FLAG, NODE, STORAGE, TEXT, VMID
from funoffshore.pveapi.schema import RELEASES, Operation, Parameter, Tree

_NODE = {"node": NODE}
_VM = {"node": NODE, "vmid": VMID}
_STORE = {"node": NODE, "storage": Parameter(optional=False, format="pve-storage-id")}
_TASK = {"node": NODE, "upid": Parameter(optional=False)}
_Q = "/nodes/{node}/qemu/{vmid}"
_S = "/nodes/{node}/storage/{storage}"
_T = "/nodes/{node}/tasks/{upid}"
_POOL = {"poolid": Parameter(optional=False, format="pve-poolid")}

_AUDIT_VM: Tree = ("perm", "/vms/{vmid}", ["VM.Audit"])
_POWER: Tree = ("perm", "/vms/{vmid}", ["VM.PowerMgmt"])
_SEE_STORE: Tree = ("perm", "/storage/{storage}", ["Datastore.Audit", "Datastore.AllocateSpace"], "any")
_POOLS: Tree = ("perm", "/pool/{poolid}", ["Pool.Allocate"])
CONFIG_PRIVILEGES: tuple[str, ...] = (
    "VM.Config.Disk", "VM.Config.CDROM", "VM.Config.CPU", "VM.Config.Memory", "VM.Config.Network",
    "VM.Config.HWType", "VM.Config.Options", "VM.Config.Cloudinit",
)  # fmt: skip
_CONFIGURE: Tree = ("perm", "/vms/{vmid}", list(CONFIG_PRIVILEGES), "any")
_DOWNLOAD: Tree = (
    "and",
    ("perm", "/storage/{storage}", ["Datastore.AllocateTemplate"]),
    ("or", ("perm", "/", ["Sys.Audit", "Sys.Modify"]), ("perm", "/nodes/{node}", ["Sys.AccessNetwork"])),
)
_CLONE: Tree = (
    "and",
    ("perm", "/vms/{vmid}", ["VM.Clone"]),
    ("or", ("perm", "/vms/{newid}", ["VM.Allocate"]), ("perm", "/pool/{pool}", ["VM.Allocate"])),
)

_LIMIT = Parameter("integer", minimum=0)
_SKIPLOCK = {"skiplock": FLAG}
_TIMEOUT = {"timeout": Parameter("integer", minimum=0)}
_UPLOADED = Parameter(optional=False, enum=("iso", "vztmpl", "import"), format="pve-storage-content")
_CHECKSUM = {
    "checksum": Parameter(requires="checksum-algorithm"),
    "checksum-algorithm": Parameter(enum=("md5", "sha1", "sha224", "sha256", "sha384", "sha512"), requires="checksum"),
}
_USERID = r"(?^:^(?^:[^\s:/]+)\@(?^:[A-Za-z][A-Za-z0-9\.\-_]+)(?:!(?^:[A-Za-z][A-Za-z0-9\.\-_]+))?$)"
_STORAGES = {
    "content": Parameter(format="pve-storage-content-list"),
    "enabled": FLAG,
    "format": FLAG,
    "storage": STORAGE,
    "target": Parameter(format="pve-node"),
}
_VOLUMES = {"content": Parameter(format="pve-storage-content"), "vmid": options.ANY_VMID}
_FRESH = {
    "vmid": VMID,
    "filename": Parameter(optional=False),
    "size": Parameter(optional=False, pattern=r"\d+[MG]?"),
    "format": Parameter(enum=("raw", "qcow2", "subvol", "vmdk"), requires="size"),
}
_FETCHED = {
    "content": _UPLOADED,
    "filename": Parameter(optional=False, max_length=255),
    "url": Parameter(optional=False, pattern="https?://.*"),
    "verify-certificates": FLAG,
    "compression": TEXT,
    **_CHECKSUM,
}
_SENT = {
    "content": _UPLOADED,
    "filename": Parameter(optional=False, max_length=255),
    "tmpfilename": Parameter(pattern="/var/tmp/pveupload-[0-9a-f]+"),  # noqa: S108 - matched, never opened
    **_CHECKSUM,
}
_VOLUME = {"node": NODE, "storage": STORAGE, "volume": Parameter(optional=False)}
_DELAY = {"delay": Parameter("integer", minimum=1, maximum=30)}
DISKS: tuple[str, ...] = (
    *(f"ide{n}" for n in range(4)),
    *(f"scsi{n}" for n in range(31)),
    *(f"virtio{n}" for n in range(16)),
    *(f"sata{n}" for n in range(6)),
    "efidisk0",
    "tpmstate0",
)
_LATER = {"background_delay": Parameter("integer", minimum=1, maximum=30), "import-working-storage": STORAGE}
_VIEW = {"current": FLAG, "snapshot": Parameter(max_length=40, format="pve-configid")}
_RESIZE = {
    "disk": Parameter(optional=False, enum=DISKS),
    "size": Parameter(optional=False, pattern=r"\+?\d+(\.\d+)?[KMGT]?"),
    "digest": Parameter(max_length=40),
}
_COPY = {
    "newid": VMID,
    "bwlimit": Parameter("integer", minimum=0),
    "format": Parameter(enum=("raw", "qcow2", "vmdk")),
    "full": FLAG,
    "name": Parameter(format="dns-name"),
    "description": TEXT,
    "pool": Parameter(format="pve-poolid"),
    "snapname": Parameter(max_length=40, format="pve-configid"),
    "storage": STORAGE,
    "target": Parameter(format="pve-node"),
}
_GONE = {"purge": FLAG, "destroy-unreferenced-disks": FLAG, **_SKIPLOCK}


@lru_cache(maxsize=len(RELEASES))
def table(release: str) -> Mapping[tuple[str, str], Operation]:
    """Every operation of ``release`` by method and path template. Raises ValueError for a release not known."""
    if release not in RELEASES:
        raise ValueError(f"no table for Proxmox VE {release}; there is {', '.join(RELEASES)}")
    found = [*_datacenter(release), *_storage(), *_machines(release), *_power(), *_agent(release), *_tasks()]
    return {(o.method, o.path): _of_release(o, release) for o in found}


def _of_release(operation: Operation, release: str) -> Operation:
    """The operation without what ``release`` does not have, in parameters and inside property strings."""

    def prune(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
        return {name: _pruned(p, prune) for name, p in parameters.items() if p.exists(release)}

    return Operation(
        operation.method,
        operation.path,
        prune(operation.parameters),
        operation.returns,
        operation.allowed,
        operation.protected,
    )


def _pruned(parameter: Parameter, prune: Callable[[Mapping[str, Parameter]], dict[str, Parameter]]) -> Parameter:
    return parameter if parameter.parts is None else dataclasses.replace(parameter, parts=prune(parameter.parts))


def _datacenter(release: str) -> list[Operation]:
    newer = release != "8.4"
    kinds = (
        "bridge", "bond", "eth", "alias", "vlan", *(("fabric",) if newer else ()), "OVSBridge", "OVSBond", "OVSPort",
        "OVSIntPort", "vnet", "any_bridge", "any_local_bridge", *(("include_sdn",) if newer else ()),
    )  # fmt: skip
    pools = {
        "comment": TEXT,
        "allow-move": FLAG,
        "delete": FLAG,
        "storage": Parameter(format="pve-storage-id-list"),
        "vms": Parameter(format="pve-vmid-list"),
    }
    asked = {
        "poolid": Parameter(format="pve-poolid"),
        "type": Parameter(enum=("qemu", "lxc", "storage"), requires="poolid"),
    }
    return [
        Operation("GET", "/version"),
        Operation("GET", "/access/permissions", {"path": TEXT, "userid": Parameter(pattern=_USERID)}),
        Operation("GET", "/cluster/status", {}, "array", ("perm", "/", ["Sys.Audit"]), True),
        Operation("GET", "/cluster/resources", {"type": Parameter(enum=("vm", "storage", "node", "sdn"))}, "array"),
        Operation("GET", "/cluster/nextid", {"vmid": options.ANY_VMID}, "integer"),
        Operation("GET", "/nodes", {}, "array"),
        Operation("GET", "/nodes/{node}/status", _NODE, "object", ("perm", "/nodes/{node}", ["Sys.Audit"])),
        Operation("GET", "/nodes/{node}/network", {**_NODE, "type": Parameter(enum=kinds)}, "array"),
        Operation("GET", "/pools", asked, "array"),
        Operation("POST", "/pools", {**_POOL, "comment": TEXT}, "null", _POOLS, True),
        Operation("PUT", "/pools", {**_POOL, **pools}, "null", _POOLS, True),
        Operation("DELETE", "/pools", _POOL, "null", _POOLS, True),
    ]


def _storage() -> list[Operation]:
    one = _S + "/content/{volume}"
    template: Tree = ("perm", "/storage/{storage}", ["Datastore.AllocateTemplate"])
    allocate: Tree = ("perm", "/storage/{storage}", ["Datastore.AllocateSpace"])
    return [
        Operation("GET", "/nodes/{node}/storage", {**_NODE, **_STORAGES}, "array", (), True),
        Operation("GET", _S + "/status", _STORE, "object", _SEE_STORE, True),
        Operation("GET", _S + "/content", {**_STORE, **_VOLUMES}, "array", _SEE_STORE, True),
        Operation("POST", _S + "/content", {**_STORE, **_FRESH}, "string", allocate, True),
        Operation("GET", one, _VOLUME, "object", (), True),
        Operation("DELETE", one, {**_VOLUME, **_DELAY}, "string", (), True),
        Operation("POST", _S + "/download-url", {**_STORE, **_FETCHED}, "string", _DOWNLOAD, True),
        Operation("POST", _S + "/upload", {**_STORE, **_SENT}, "string", template, True),
    ]


def _machines(release: str) -> list[Operation]:
    create = {
        **options.options(release),
        **_VM,
        "archive": Parameter(max_length=255),
        "bwlimit": Parameter("integer", minimum=0),
        "force": Parameter("boolean", requires="archive"),
        "ha-managed": Parameter("boolean", since="9.1"),
        "import-working-storage": STORAGE,
        "live-restore": FLAG,
        "pool": Parameter(format="pve-poolid"),
        "start": FLAG,
        "storage": STORAGE,
        "unique": Parameter("boolean", requires="archive"),
    }
    change = {
        **options.options(release),
        **_VM,
        **_SKIPLOCK,
        "delete": Parameter(format="pve-configid-list"),
        "digest": Parameter(max_length=40),
        "force": Parameter("boolean", requires="delete"),
        "revert": Parameter(format="pve-configid-list"),
    }
    disk: Tree = ("perm", "/vms/{vmid}", ["VM.Config.Disk"])
    allocate: Tree = ("perm", "/vms/{vmid}", ["VM.Allocate"])
    return [
        Operation("GET", "/nodes/{node}/qemu", {**_NODE, "full": FLAG}, "array", (), True),
        Operation("POST", "/nodes/{node}/qemu", create, "string", (), True),
        Operation("DELETE", _Q, {**_VM, **_GONE}, "string", allocate, True),
        Operation("GET", _Q + "/config", {**_VM, **_VIEW}, "object", _AUDIT_VM),
        Operation("PUT", _Q + "/config", change, "null", _CONFIGURE, True),
        Operation("POST", _Q + "/config", {**change, **_LATER}, "string", _CONFIGURE, True),
        Operation("GET", _Q + "/pending", _VM, "array", _AUDIT_VM),
        Operation("PUT", _Q + "/resize", {**_VM, **_RESIZE, **_SKIPLOCK}, "string", disk, True),
        Operation("POST", _Q + "/clone", {**_VM, **_COPY}, "string", _CLONE, True),
    ]


def _power() -> list[Operation]:
    start = {
        **_SKIPLOCK,
        **_TIMEOUT,
        "force-cpu": TEXT,
        "machine": options.MACHINE,
        "migratedfrom": Parameter(format="pve-node"),
        "migration_network": Parameter(format="CIDR"),
        "migration_type": Parameter(enum=("secure", "insecure")),
        "nets-host-mtu": Parameter(pattern=r"net\d+=\d+(,net\d+=\d+)*", since="9.1"),
        "stateuri": Parameter(max_length=128),
        "targetstorage": Parameter(format="storage-pair-list"),
        "with-conntrack-state": Parameter("boolean", since="9.1"),
    }
    stop = {
        **_SKIPLOCK,
        **_TIMEOUT,
        "keepActive": FLAG,
        "migratedfrom": Parameter(format="pve-node"),
        "overrule-shutdown": FLAG,
    }
    shutdown = {**_SKIPLOCK, **_TIMEOUT, "forceStop": FLAG, "keepActive": FLAG}
    return [
        Operation("GET", _Q + "/status/current", _VM, "object", _AUDIT_VM, True),
        Operation("POST", _Q + "/status/start", {**_VM, **start}, "string", _POWER, True),
        Operation("POST", _Q + "/status/stop", {**_VM, **stop}, "string", _POWER, True),
        Operation("POST", _Q + "/status/shutdown", {**_VM, **shutdown}, "string", _POWER, True),
        Operation("POST", _Q + "/status/reset", {**_VM, **_SKIPLOCK}, "string", _POWER, True),
        Operation("POST", _Q + "/status/reboot", {**_VM, **_TIMEOUT}, "string", _POWER, True),
    ]


def _agent(release: str) -> list[Operation]:
    ask: Tree = ("perm", "/vms/{vmid}", ["VM.GuestAgent.Audit", "VM.GuestAgent.Unrestricted"], "any")
    if release == "8.4":
        ask = ("perm", "/vms/{vmid}", ["VM.Monitor"])
    return [
        Operation("GET", _Q + "/agent/network-get-interfaces", _VM, "object", ask, True),
        Operation("GET", _Q + "/agent/get-host-name", _VM, "object", ask, True),
        Operation("POST", _Q + "/agent/ping", _VM, "object", ask, True),
    ]


def _tasks() -> list[Operation]:
    listing = {
        "errors": FLAG,
        "limit": _LIMIT,
        "since": Parameter("integer"),
        "source": Parameter(enum=("archive", "active", "all")),
        "start": _LIMIT,
        "statusfilter": Parameter(format="pve-task-status-type-list"),
        "typefilter": TEXT,
        "until": Parameter("integer"),
        "userfilter": TEXT,
        "vmid": options.ANY_VMID,
    }
    page = {"download": FLAG, "limit": _LIMIT, "start": _LIMIT}
    return [
        Operation("GET", "/nodes/{node}/tasks", {**_NODE, **listing}, "array"),
        Operation("GET", _T + "/status", _TASK, "object", (), True),
        Operation("GET", _T + "/log", {**_TASK, **page}, "array", (), True),
        Operation("DELETE", _T, _TASK, "null", (), True),
    ]
