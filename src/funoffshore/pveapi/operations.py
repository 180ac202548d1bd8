"""The operations of the Proxmox VE API that fo uses, for each release.

Facts from the public API description of Proxmox VE 8.0, 8.4 and 9.1 (pve-docs ``api-viewer/apidata.js``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache

from funoffshore.pveapi import datacenter, options, others
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
_TEMPLATE: Tree = ("perm", "/storage/{storage}", ["Datastore.AllocateTemplate"])
_WHOLE: Tree = ("perm", "/", ["Sys.Audit", "Sys.Modify"])
_DOWNLOAD: Tree = ("and", _TEMPLATE, ("or", _WHOLE, ("perm", "/nodes/{node}", ["Sys.AccessNetwork"])))
_DOWNLOAD_OLD: Tree = ("and", _TEMPLATE, _WHOLE)
_CLONE: Tree = (
    "and",
    ("perm", "/vms/{vmid}", ["VM.Clone"]),
    ("or", ("perm", "/vms/{newid}", ["VM.Allocate"]), ("perm", "/pool/{pool}", ["VM.Allocate"])),
)

_LIMIT = Parameter("integer", minimum=0)
_SKIPLOCK = {"skiplock": FLAG}
_TIMEOUT = {"timeout": Parameter("integer", minimum=0)}
_UPLOADED = Parameter(optional=False, enum=("iso", "vztmpl", "import"), format="pve-storage-content")
_UPLOADED_OLD = Parameter(optional=False, enum=("iso", "vztmpl"), format="pve-storage-content")
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
}
_FETCHED = {
    "filename": Parameter(optional=False, max_length=255),
    "url": Parameter(optional=False, pattern="https?://.*"),
    "verify-certificates": FLAG,
    "compression": Parameter(since="8.4"),
    **_CHECKSUM,
}
_SENT = {
    "filename": Parameter(optional=False, max_length=255),
    "tmpfilename": Parameter(pattern="/var/tmp/pveupload-[0-9a-f]+"),  # noqa: S108 - matched, never opened
    **_CHECKSUM,
}
_ASKED_URL = {"url": _FETCHED["url"], "verify-certificates": FLAG}
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
_LATER = {
    "background_delay": Parameter("integer", minimum=1, maximum=30),
    "import-working-storage": Parameter(format="pve-storage-id", since="8.4"),
}
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
_UNUSED = tuple(f"unused{n}" for n in range(256))
_MOVED = {
    "disk": Parameter(optional=False, enum=(*DISKS, *_UNUSED)),
    "bwlimit": Parameter("integer", minimum=0),
    "delete": FLAG,
    "digest": Parameter(max_length=40),
    "format": Parameter(enum=("raw", "qcow2", "vmdk")),
    "storage": STORAGE,
    "target-digest": Parameter(max_length=40),
    "target-disk": Parameter(enum=(*DISKS, *_UNUSED)),
    "target-vmid": options.ANY_VMID,
}
_GONE = {"purge": FLAG, "destroy-unreferenced-disks": FLAG, **_SKIPLOCK}


@lru_cache(maxsize=len(RELEASES))
def table(release: str) -> Mapping[tuple[str, str], Operation]:
    """Every operation of ``release`` by method and path template. Raises ValueError for a release not known."""
    if release not in RELEASES:
        raise ValueError(f"no table for Proxmox VE {release}; there is {', '.join(RELEASES)}")
    found = [
        *_cluster(release),
        *_nodes(release),
        *_storage(release),
        *_machines(release),
        *_power(release),
        *_agent(release),
    ]
    found += [*_kept(release), *_tasks(), *datacenter.operations(release), *others.operations(release)]
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


def _cluster(release: str) -> list[Operation]:
    pools = {
        "comment": TEXT,
        "allow-move": Parameter("boolean", since="8.4"),
        "delete": FLAG,
        "storage": Parameter(format="pve-storage-id-list"),
        "vms": Parameter(format="pve-vmid-list"),
    }
    kinds = Parameter(enum=("qemu", "lxc", "storage"))
    asked = {
        "poolid": Parameter(format="pve-poolid", since="8.4"),
        "type": Parameter(enum=kinds.enum, requires="poolid", since="8.4"),
    }
    written = ("/pools/{poolid}",) if release < "8.4" else ("/pools/{poolid}", "/pools")
    return [
        Operation("GET", "/version"),
        Operation("GET", "/access/permissions", {"path": TEXT, "userid": Parameter(pattern=_USERID)}),
        Operation("GET", "/cluster/status", {}, "array", ("perm", "/", ["Sys.Audit"]), True),
        Operation("GET", "/cluster/resources", {"type": Parameter(enum=("vm", "storage", "node", "sdn"))}, "array"),
        Operation("GET", "/cluster/nextid", {"vmid": options.ANY_VMID}, "integer"),
        Operation("GET", "/cluster/tasks", {}, "array"),
        Operation("GET", "/nodes", {}, "array"),
        Operation("GET", "/pools", asked, "array"),
        Operation("POST", "/pools", {**_POOL, "comment": TEXT}, "null", _POOLS, True),
        Operation(
            "GET", "/pools/{poolid}", {**_POOL, "type": kinds}, "object", ("perm", "/pool/{poolid}", ["Pool.Audit"])
        ),
        *(Operation("PUT", path, {**_POOL, **pools}, "null", _POOLS, True) for path in written),
        *(Operation("DELETE", path, _POOL, "null", _POOLS, True) for path in written),
    ]


def _nodes(release: str) -> list[Operation]:
    newer = release >= "9"
    kinds = (
        "bridge", "bond", "eth", "alias", "vlan", *(("fabric",) if newer else ()), "OVSBridge", "OVSBond", "OVSPort",
        "OVSIntPort", *(("vnet",) if release >= "8.4" else ()), "any_bridge", "any_local_bridge",
        *(("include_sdn",) if newer else ()),
    )  # fmt: skip
    audit: Tree = ("perm", "/nodes/{node}", ["Sys.Audit"])
    fetch: Tree = _WHOLE
    if release >= "8.4":
        fetch = ("or", _WHOLE, ("perm", "/nodes/{node}", ["Sys.AccessNetwork"]))
    arch = {"arch": Parameter(enum=("x86_64", "aarch64"), since="9.1")}
    return [
        Operation("GET", "/nodes/{node}/status", _NODE, "object", audit),
        Operation("GET", "/nodes/{node}/time", _NODE, "object", audit),
        Operation("GET", "/nodes/{node}/network", {**_NODE, "type": Parameter(enum=kinds)}, "array"),
        Operation("GET", "/nodes/{node}/query-url-metadata", {**_NODE, **_ASKED_URL}, "object", fetch),
        Operation("GET", "/nodes/{node}/capabilities/qemu/cpu", {**_NODE, **arch}, "array"),
    ]


def _storage(release: str) -> list[Operation]:
    one, old = _S + "/content/{volume}", release < "8.4"
    sent = {"content": _UPLOADED_OLD if old else _UPLOADED}
    forms = ("raw", "qcow2", "subvol") if old else ("raw", "qcow2", "subvol", "vmdk")
    fresh = {**_STORE, **_FRESH, "format": Parameter(enum=forms, requires="size")}
    may_fetch = _DOWNLOAD_OLD if old else _DOWNLOAD
    allocate: Tree = ("perm", "/storage/{storage}", ["Datastore.AllocateSpace"])
    return [
        Operation("GET", "/nodes/{node}/storage", {**_NODE, **_STORAGES}, "array", (), True),
        Operation("GET", _S + "/status", _STORE, "object", _SEE_STORE, True),
        Operation("GET", _S + "/content", {**_STORE, **_VOLUMES}, "array", _SEE_STORE, True),
        Operation("POST", _S + "/content", fresh, "string", allocate, True),
        Operation("GET", one, _VOLUME, "object", (), True),
        Operation("PUT", one, {**_VOLUME, "notes": TEXT, "protected": FLAG}, "null", (), True),
        Operation("DELETE", one, {**_VOLUME, **_DELAY}, "string", (), True),
        Operation("POST", _S + "/download-url", {**_STORE, **_FETCHED, **sent}, "string", may_fetch, True),
        Operation("POST", _S + "/upload", {**_STORE, **_SENT, **sent}, "string", _TEMPLATE, True),
    ]


def _machines(release: str) -> list[Operation]:
    create = {
        **options.options(release),
        **_VM,
        "archive": Parameter(max_length=255),
        "bwlimit": Parameter("integer", minimum=0),
        "force": Parameter("boolean", requires="archive"),
        "ha-managed": Parameter("boolean", since="9.1"),
        "import-working-storage": Parameter(format="pve-storage-id", since="8.4"),
        "live-restore": Parameter("boolean", requires="archive" if release < "8.4" else ""),
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
        Operation("POST", _Q + "/move_disk", {**_VM, **_MOVED}, "string", disk, True),
        Operation("POST", _Q + "/clone", {**_VM, **_COPY}, "string", _CLONE, True),
    ]


def _power(release: str) -> list[Operation]:
    start = {
        **_SKIPLOCK,
        **_TIMEOUT,
        "force-cpu": TEXT,
        "machine": options.machine(release),
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
        "overrule-shutdown": Parameter("boolean", since="8.4"),
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
    def may(*rights: str) -> Tree:
        if release < "9":
            return ("perm", "/vms/{vmid}", ["VM.Monitor"])
        names = [f"VM.GuestAgent.{right}" for right in rights]
        return ("perm", "/vms/{vmid}", names, "any") if len(names) > 1 else ("perm", "/vms/{vmid}", names)

    ask, run = may("Audit", "Unrestricted"), may("Unrestricted")
    part = {
        "count": Parameter("integer", minimum=1, maximum=16 << 20, since="9.1"),
        "decode": Parameter("boolean", since="9.1"),
        "offset": Parameter("integer", minimum=0, since="9.1"),
    }
    file = {**_VM, "file": Parameter(optional=False), **part}
    command = {**_VM, "command": Parameter("array", False), "input-data": Parameter(max_length=65536)}
    return [
        Operation("GET", _Q + "/agent/network-get-interfaces", _VM, "object", ask, True),
        Operation("GET", _Q + "/agent/get-host-name", _VM, "object", ask, True),
        Operation("GET", _Q + "/agent/get-osinfo", _VM, "object", ask, True),
        Operation("POST", _Q + "/agent/ping", _VM, "object", ask, True),
        Operation("GET", _Q + "/agent/file-read", file, "object", may("FileRead", "Unrestricted"), True),
        Operation("POST", _Q + "/agent/exec", command, "object", run, True),
        Operation("GET", _Q + "/agent/exec-status", {**_VM, "pid": Parameter("integer", False)}, "object", run, True),
    ]


def _kept(release: str) -> list[Operation]:
    """Snapshots, templates, and the cloud-init drive."""
    name = {"snapname": Parameter(optional=False, max_length=40, format="pve-configid")}
    snap: Tree = ("perm", "/vms/{vmid}", ["VM.Snapshot"])
    back: Tree = ("perm", "/vms/{vmid}", ["VM.Snapshot", "VM.Snapshot.Rollback"], "any")
    fresh = {**_VM, **name, "vmstate": FLAG, "description": TEXT}
    dump = {**_VM, "type": Parameter(optional=False, enum=("user", "network", "meta"))}
    found = [
        Operation("GET", _Q + "/snapshot", _VM, "array", _AUDIT_VM, True),
        Operation("POST", _Q + "/snapshot", fresh, "string", snap, True),
        Operation("DELETE", _Q + "/snapshot/{snapname}", {**_VM, **name, "force": FLAG}, "string", snap, True),
        Operation("POST", _Q + "/snapshot/{snapname}/rollback", {**_VM, **name, "start": FLAG}, "string", back, True),
        Operation(
            "POST",
            _Q + "/template",
            {**_VM, "disk": Parameter(enum=DISKS)},
            "string",
            ("perm", "/vms/{vmid}", ["VM.Allocate"]),
            True,
        ),
        Operation("GET", _Q + "/cloudinit", _VM, "array", _AUDIT_VM),
        Operation("GET", _Q + "/cloudinit/dump", dump, "string", _AUDIT_VM),
    ]
    if release >= "8.4":
        allowed: Tree = ("perm", "/vms/{vmid}", ["VM.Config.Cloudinit"])
        found.append(Operation("PUT", _Q + "/cloudinit", _VM, "null", allowed, True))
    return found


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
