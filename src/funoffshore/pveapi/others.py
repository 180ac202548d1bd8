"""Operations of the table that fo does not need, but that other people's tools begin with: users, roles, storages.

Facts from the public API description of Proxmox VE 8.0, 8.4 and 9.1 (pve-docs ``api-viewer/apidata.js``).
"""

from __future__ import annotations

from funoffshore.pveapi.options import ANY_VMID, FLAG, NODE, TEXT, VMID
from funoffshore.pveapi.schema import Operation, Parameter, Tree

_VM = {"node": NODE, "vmid": VMID}
_NODE = {"node": NODE}
_Q = "/nodes/{node}/qemu/{vmid}"
_SEE: Tree = ("perm", "/", ["Sys.Audit"])
_ALLOCATE: Tree = ("perm", "/storage", ["Datastore.Allocate"])
_SELF: Tree = ("or", ("userid-param", "self"), ("userid-group", ["User.Modify"]))
_OF_REALM: Tree = ("and", ("userid-param", "Realm.AllocateUser"), ("userid-group", ["User.Modify"]))
_USER = {"userid": Parameter(optional=False, format="pve-userid", max_length=64)}
_ROLE = {"roleid": Parameter(optional=False, format="pve-roleid")}
_GROUP = {"groupid": Parameter(optional=False, format="pve-groupid")}
_TOKEN = {**_USER, "tokenid": Parameter(optional=False, pattern=r"(?^:[A-Za-z][A-Za-z0-9\.\-_]+)")}
_EXPIRE = {"expire": Parameter("integer", minimum=0)}


def operations(release: str) -> list[Operation]:
    """All of them, for ``release``."""
    groups = (_users(release), _tokens(), _groups(), _roles(), _storages(release), _looks(), _machines())
    return [operation for group in groups for operation in group]


def _users(release: str) -> list[Operation]:
    path, one, new = "/access/users", "/access/users/{userid}", release >= "8.4"
    name = Parameter(max_length=1024 if new else None)
    how = {
        **_EXPIRE,
        "comment": Parameter(max_length=2048 if new else None),
        "email": Parameter(format="email-opt", max_length=254 if new else None),
        "enable": FLAG,
        "firstname": name,
        "groups": Parameter(format="pve-groupid-list"),
        "keys": Parameter(pattern="[0-9a-zA-Z!=]{0,4096}" if new else ""),
        "lastname": name,
    }
    password = Parameter(optional=False, max_length=64)
    fresh: Tree = ("userid-group", ["User.Modify"], "groups_param", "create")
    changed: Tree = ("userid-group", ["User.Modify"], "groups_param", "update")
    again = {"confirmation-password": Parameter(max_length=64)} if release >= "8.4" else {}
    allowed: Tree = ("and", ("userid-param", "Realm.AllocateUser"), fresh)
    append = {"append": Parameter("boolean", requires="groups")}
    return [
        Operation("GET", path, {"enabled": FLAG, "full": FLAG}, "array", (), True),
        Operation("POST", path, {**_USER, **how, "password": Parameter(max_length=64)}, "null", allowed, True),
        Operation("GET", one, _USER, "object", ("userid-group", ["User.Modify", "Sys.Audit"])),
        Operation("PUT", one, {**_USER, **how, **append}, "null", changed, True),
        Operation("DELETE", one, _USER, "null", _OF_REALM, True),
        Operation(
            "PUT",
            "/access/password",
            {**_USER, "password": password, **again},
            "null",
            ("or", ("userid-param", "self"), _OF_REALM),
            True,
        ),
    ]


def _tokens() -> list[Operation]:
    path = "/access/users/{userid}/token"
    return [
        Operation("GET", path, _USER, "array", _SELF),
        Operation("GET", path + "/{tokenid}", _TOKEN, "object", _SELF),
        Operation(
            "POST",
            path + "/{tokenid}",
            {**_TOKEN, **_EXPIRE, "comment": TEXT, "privsep": FLAG},
            "object",
            _SELF,
            True,
        ),
        Operation("DELETE", path + "/{tokenid}", _TOKEN, "null", _SELF, True),
    ]


def _groups() -> list[Operation]:
    path, one = "/access/groups", "/access/groups/{groupid}"
    may: Tree = ("perm", "/access/groups", ["Group.Allocate"])
    see: Tree = ("perm", "/access/groups", ["Sys.Audit", "Group.Allocate"], "any")
    realm = {"realm": Parameter(optional=False, max_length=32, format="pve-realm")}
    see_realm: Tree = ("perm", "/access/realm", ["Realm.Allocate", "Sys.Audit"], "any")
    return [
        Operation("GET", path, {}, "array"),
        Operation("POST", path, {**_GROUP, "comment": TEXT}, "null", may, True),
        Operation("GET", one, _GROUP, "object", see),
        Operation("PUT", one, {**_GROUP, "comment": TEXT}, "null", may, True),
        Operation("DELETE", one, _GROUP, "null", may, True),
        Operation("GET", "/access/domains", {}, "array"),
        Operation("GET", "/access/domains/{realm}", realm, "", see_realm),
    ]


def _roles() -> list[Operation]:
    path, one = "/access/roles", "/access/roles/{roleid}"
    may: Tree = ("perm", "/access", ["Sys.Modify"])
    privileges = {"privs": Parameter(format="pve-priv-list")}
    rights = {
        "delete": FLAG,
        "groups": Parameter(format="pve-groupid-list"),
        "path": Parameter(optional=False),
        "propagate": FLAG,
        "roles": Parameter(optional=False, format="pve-roleid-list"),
        "tokens": Parameter(format="pve-tokenid-list"),
        "users": Parameter(format="pve-userid-list"),
    }
    append = {"append": Parameter("boolean", requires="privs")}
    return [
        Operation("POST", path, {**_ROLE, **privileges}, "null", may, True),
        Operation("GET", one, _ROLE, "object"),
        Operation("PUT", one, {**_ROLE, **privileges, **append}, "null", may, True),
        Operation("DELETE", one, _ROLE, "null", may, True),
        Operation("PUT", "/access/acl", rights, "null", ("perm-modify", "{path}"), True),
    ]


def _storages(release: str) -> list[Operation]:
    kinds = (
        "btrfs", "cephfs", "cifs", "dir", *(("esxi",) if release >= "8.4" else ()),
        *(("glusterfs",) if release < "9" else ()), "iscsi", "iscsidirect", "lvm", "lvmthin", "nfs", "pbs", "rbd",
        "zfs", "zfspool",
    )  # fmt: skip
    name = {"storage": Parameter(optional=False, format="pve-storage-id")}
    of_type: dict[str, Parameter] = {
        **dict.fromkeys(("datastore", "namespace", "username"), TEXT),
        **dict.fromkeys(("export", "path", "subdir"), Parameter(format="pve-storage-path")),
        **dict.fromkeys(("thinpool", "vgname"), Parameter(format="pve-storage-vgname")),
        "fingerprint": Parameter(pattern="([A-Fa-f0-9]{2}:){31}[A-Fa-f0-9]{2}"),
        "options": Parameter(format="pve-storage-options"),
        "password": Parameter(max_length=256),
        "server": Parameter(format="pve-storage-server"),
    }
    fresh = {
        **name,
        **of_type,
        **dict.fromkeys(("disable", "mkdir", "shared"), FLAG),
        "content": Parameter(format="pve-storage-content-list"),
        "nodes": Parameter(format="pve-node-list"),
        "prune-backups": Parameter(format="prune-backups"),
        "type": Parameter(optional=False, enum=kinds),
    }
    return [
        Operation("POST", "/storage", fresh, "object", _ALLOCATE, True),
        Operation("DELETE", "/storage/{storage}", name, "null", _ALLOCATE, True),
        Operation("GET", "/storage", {"type": Parameter(enum=kinds)}, "array"),
        Operation("GET", "/storage/{storage}", name, "object", ("perm", "/storage/{storage}", ["Datastore.Allocate"])),
    ]


def _looks() -> list[Operation]:
    """What the lab has none of, or says little about."""
    firewall = _Q + "/firewall"
    audit: Tree = ("perm", "/vms/{vmid}", ["VM.Audit"])
    return [
        Operation("GET", "/nodes/{node}/lxc", _NODE, "array", (), True),
        Operation("GET", "/nodes/{node}/replication", {**_NODE, "guest": ANY_VMID}, "array", (), True),
        Operation("GET", "/cluster/config/qdevice", {}, "object", _SEE, True),
        Operation("GET", "/cluster/backup-info/not-backed-up", {}, "array", _SEE, True),
        Operation("GET", "/nodes/{node}/version", _NODE),
        Operation("GET", "/nodes/{node}/subscription", _NODE),
        Operation("GET", "/cluster/firewall/groups", {}, "array"),
        *(Operation("GET", f"/cluster/firewall/{what}", {}, "array", _SEE) for what in ("aliases", "ipset", "rules")),
        *(Operation("GET", f"{firewall}/{what}", _VM, "array", audit) for what in ("aliases", "ipset")),
    ]


def _machines() -> list[Operation]:
    disk: Tree = ("perm", "/vms/{vmid}", ["VM.Config.Disk"])
    may: Tree = ("perm", "/vms/{vmid}", ["VM.Migrate"])
    way = {
        "target": Parameter(optional=False, format="pve-node"),
        "bwlimit": Parameter("integer", minimum=0),
        "force": FLAG,
        "migration_network": Parameter(format="CIDR"),
        "migration_type": Parameter(enum=("secure", "insecure")),
        "online": FLAG,
        "targetstorage": Parameter(format="storage-pair-list"),
        "with-conntrack-state": Parameter("boolean", since="9.1"),
        "with-local-disks": FLAG,
    }
    gone = {"idlist": Parameter(optional=False, format="pve-configid-list"), "force": FLAG}
    asked = {"target": Parameter(format="pve-node")}
    return [
        Operation("PUT", _Q + "/unlink", {**_VM, **gone}, "null", disk, True),
        Operation("GET", _Q + "/migrate", {**_VM, **asked}, "object", may, True),
        Operation("POST", _Q + "/migrate", {**_VM, **way}, "string", may, True),
    ]
