"""Operations of the table that concern the whole datacenter: firewall, high availability, backups, mappings, access.

Facts from the public API description of Proxmox VE 8.0, 8.4 and 9.1 (pve-docs ``api-viewer/apidata.js``).
"""

from __future__ import annotations

from funoffshore.pveapi.options import FLAG, NODE, STORAGE, TEXT, VMID
from funoffshore.pveapi.schema import Operation, Parameter, Tree

_VM = {"node": NODE, "vmid": VMID}
_F = "/nodes/{node}/qemu/{vmid}/firewall"
_SEE: Tree = ("perm", "/", ["Sys.Audit"])
_CHANGE: Tree = ("perm", "/", ["Sys.Modify"])
_STEER: Tree = ("perm", "/", ["Sys.Console"])
_AUDIT_VM: Tree = ("perm", "/vms/{vmid}", ["VM.Audit"])
_NETWORK: Tree = ("perm", "/vms/{vmid}", ["VM.Config.Network"])
_DELETE = {"delete": Parameter(format="pve-configid-list")}
_DELETE_SHORT = {"delete": Parameter(format="pve-configid-list", max_length=4096)}
_COMMENT = {"comment": Parameter(max_length=4096)}
_LOG_LEVEL = Parameter(enum=("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug", "nolog"))
_POLICY = Parameter(enum=("ACCEPT", "REJECT", "DROP"))
_COUNT = Parameter("integer", minimum=0)
_ID = Parameter(optional=False, format="pve-configid")
_VOLUME = Parameter(optional=False)


def digest(release: str) -> dict[str, Parameter]:
    """The digest parameter of everything that is not a machine."""
    return {"digest": Parameter(max_length=40 if release < "8.4" else 64)}


def operations(release: str) -> list[Operation]:
    """All of them, for ``release``."""
    groups = (_firewall(release), _resources(release), _groups(release), _rules(release), _backups(release))
    return [operation for group in (*groups, _mappings(release), _access()) for operation in group]


def _firewall(release: str) -> list[Operation]:
    options = {
        **dict.fromkeys(("dhcp", "enable", "ipfilter", "macfilter", "ndp", "radv"), FLAG),
        **dict.fromkeys(("log_level_in", "log_level_out"), _LOG_LEVEL),
        **dict.fromkeys(("policy_in", "policy_out"), _POLICY),
    }
    ratelimit = {
        "burst": _COUNT,
        "enable": Parameter("boolean", False, default_key=True),
        "rate": Parameter(pattern=r"[1-9][0-9]*\/(second|minute|hour|day)"),
    }
    everywhere = {
        "ebtables": FLAG,
        "enable": _COUNT,
        "log_ratelimit": Parameter(parts=ratelimit),
        "policy_forward": Parameter(enum=("ACCEPT", "DROP"), since="8.4"),
        **dict.fromkeys(("policy_in", "policy_out"), _POLICY),
    }
    stale, place = digest(release), {"pos": _COUNT}
    rule = _rule(release)
    kind, action = rule["type"], rule["action"]
    fresh = {**rule, "type": _required(kind), "action": _required(action)}
    at = _F + "/rules/{pos}"
    return [
        Operation("GET", "/cluster/firewall/options", {}, "object", _SEE),
        Operation("PUT", "/cluster/firewall/options", {**everywhere, **_DELETE, **stale}, "null", _CHANGE, True),
        Operation("GET", _F + "/options", _VM, "object", _AUDIT_VM),
        Operation("PUT", _F + "/options", {**_VM, **options, **_DELETE, **stale}, "null", _NETWORK, True),
        Operation("GET", _F + "/rules", _VM, "array", _AUDIT_VM),
        Operation("POST", _F + "/rules", {**_VM, **fresh, **place, **stale}, "null", _NETWORK, True),
        Operation("GET", at, {**_VM, **place}, "object", _AUDIT_VM),
        Operation("PUT", at, {**_VM, **rule, **place, "moveto": _COUNT, **_DELETE, **stale}, "null", _NETWORK, True),
        Operation("DELETE", at, {**_VM, **place, **stale}, "null", _NETWORK, True),
    ]


def _rule(release: str) -> dict[str, Parameter]:
    address = Parameter(format="pve-fw-addr-spec", max_length=512)
    kinds = ("in", "out", "group") if release < "8.4" else ("in", "out", "forward", "group")
    return {
        "action": Parameter(max_length=20, pattern=r"[A-Za-z][A-Za-z0-9\-\_]+"),
        "comment": TEXT,
        "dest": address,
        "source": address,
        "dport": Parameter(format="pve-fw-dport-spec"),
        "sport": Parameter(format="pve-fw-sport-spec"),
        "enable": _COUNT,
        "icmp-type": Parameter(format="pve-fw-icmp-type-spec"),
        "iface": Parameter(format="pve-iface", max_length=20),
        "log": _LOG_LEVEL,
        "macro": Parameter(max_length=128),
        "proto": Parameter(format="pve-fw-protocol-spec"),
        "type": Parameter(enum=kinds),
    }


def _required(parameter: Parameter) -> Parameter:
    return Parameter(optional=False, enum=parameter.enum, pattern=parameter.pattern, max_length=parameter.max_length)


def _resources(release: str) -> list[Operation]:
    path, one = "/cluster/ha/resources", "/cluster/ha/resources/{sid}"
    sid = {"sid": Parameter(optional=False, format="pve-ha-resource-or-vm-id")}
    kind = {"type": Parameter(enum=("ct", "vm"))}
    how = {
        **_COMMENT,
        "failback": Parameter("boolean", since="9.1"),
        "group": Parameter(format="pve-configid"),
        "max_relocate": _COUNT,
        "max_restart": _COUNT,
        "state": Parameter(enum=("started", "stopped", "enabled", "disabled", "ignored")),
    }
    change = {**sid, **how, **_DELETE_SHORT, **digest(release)}
    return [
        Operation("GET", path, kind, "array", _SEE),
        Operation("POST", path, {**sid, **how, **kind}, "null", _STEER, True),
        Operation("GET", one, sid, "object", _SEE),
        Operation("PUT", one, change, "null", _STEER, True),
        Operation("DELETE", one, {**sid, "purge": Parameter("boolean", since="9.1")}, "null", _STEER, True),
        Operation("GET", "/cluster/ha/status/current", {}, "array", _SEE),
    ]


def _groups(release: str) -> list[Operation]:
    path, one = "/cluster/ha/groups", "/cluster/ha/groups/{group}"
    nodes = "pve-ha-group-node-list" if release < "9" else "pve-ha-node-list"
    group = {"group": _ID}
    how = {**_COMMENT, "nofailback": FLAG, "restricted": FLAG}
    fresh = {**group, **how, "nodes": Parameter(optional=False, format=nodes), "type": Parameter(enum=("group",))}
    change = {**group, **how, "nodes": Parameter(format=nodes), **_DELETE_SHORT, **digest(release)}
    return [
        Operation("GET", path, {}, "array", _SEE),
        Operation("POST", path, fresh, "null", _STEER, True),
        Operation("GET", one, group, "", _SEE),
        Operation("PUT", one, change, "null", _STEER, True),
        Operation("DELETE", one, group, "null", _STEER, True),
    ]


def _rules(release: str) -> list[Operation]:
    if release < "9":
        return []
    path, one = "/cluster/ha/rules", "/cluster/ha/rules/{rule}"
    kinds = ("node-affinity", "resource-affinity")
    rule = {"rule": _ID, "type": Parameter(optional=False, enum=kinds)}
    how = {
        **_COMMENT,
        "affinity": Parameter(enum=("positive", "negative")),
        "disable": FLAG,
        "nodes": Parameter(format="pve-ha-node-list"),
        "strict": FLAG,
    }
    members = "pve-ha-resource-id-list"
    fresh = {**rule, **how, "resources": Parameter(optional=False, format=members)}
    change = {**rule, **how, "resources": Parameter(format=members), **_DELETE_SHORT, **digest(release)}
    return [
        Operation("GET", path, {"resource": TEXT, "type": Parameter(enum=kinds)}, "array", _SEE),
        Operation("POST", path, fresh, "null", _STEER, True),
        Operation("GET", one, {"rule": _ID}, "object", _SEE),
        Operation("PUT", one, change, "null", _STEER, True),
        Operation("DELETE", one, {"rule": _ID}, "null", _STEER, True),
    ]


_DUMP: dict[str, Parameter] = {
    **dict.fromkeys(("all", "quiet", "remove", "stdexcludes", "stop"), FLAG),
    **dict.fromkeys(("dumpdir", "pool", "script", "tmpdir"), TEXT),
    **dict.fromkeys(("bwlimit", "lockwait", "stopwait"), _COUNT),
    "compress": Parameter(enum=("0", "1", "gzip", "lzo", "zstd")),
    "exclude": Parameter(format="pve-vmid-list"),
    "exclude-path": Parameter("array"),
    "fleecing": Parameter(format="backup-fleecing", since="8.4"),
    "ionice": Parameter("integer", minimum=0, maximum=8),
    "mailnotification": Parameter(enum=("always", "failure")),
    "mailto": Parameter(format="email-or-username-list"),
    "maxfiles": Parameter("integer", minimum=1),
    "mode": Parameter(enum=("snapshot", "suspend", "stop")),
    "notes-template": Parameter(max_length=1024, requires="storage"),
    "notification-mode": Parameter(enum=("auto", "legacy-sendmail", "notification-system"), since="8.4"),
    "notification-policy": Parameter(enum=("always", "failure", "never"), since="8.4", until="8.4"),
    "notification-target": Parameter(format="pve-configid", since="8.4", until="8.4"),
    "pbs-change-detection-mode": Parameter(enum=("legacy", "data", "metadata"), since="8.4"),
    "performance": Parameter(format="backup-performance"),
    "pigz": Parameter("integer"),
    "protected": Parameter("boolean", requires="storage"),
    "prune-backups": Parameter(format="prune-backups"),
    "storage": STORAGE,
    "vmid": Parameter(format="pve-vmid-list"),
    "zstd": Parameter("integer"),
}


def _backups(release: str) -> list[Operation]:
    path, one = "/cluster/backup", "/cluster/backup/{id}"
    known = {"id": Parameter(optional=False, max_length=50, pattern="" if release < "8.4" else r"\S+")}
    node = {"node": Parameter(format="pve-node")}
    job = {
        **_DUMP,
        **node,
        "comment": Parameter(max_length=512),
        "dow": Parameter(requires="starttime", format="pve-day-of-week-list"),
        "enabled": FLAG,
        "repeat-missed": FLAG,
        "schedule": Parameter(max_length=128, format="pve-calendar-event"),
        "starttime": Parameter(pattern=r"\d{1,2}:\d{1,2}"),
    }
    at_once = {
        **_DUMP,
        **node,
        "job-id": Parameter(max_length=50, pattern=r"\S+", since="8.4"),
        "stdout": FLAG,
    }
    return [
        Operation("GET", path, {}, "array", _SEE),
        Operation("POST", path, {**job, "id": Parameter(format="pve-configid")}, "null", _CHANGE, True),
        Operation("GET", one, known, "object", _SEE),
        Operation("PUT", one, {**job, **known, **_DELETE}, "null", _CHANGE, True),
        Operation("DELETE", one, known, "null", _CHANGE, True),
        Operation("POST", "/nodes/{node}/vzdump", at_once, "string", (), True),
        Operation("GET", "/nodes/{node}/vzdump/extractconfig", {"node": NODE, "volume": _VOLUME}, "string", (), True),
    ]


def _mappings(release: str) -> list[Operation]:
    found = []
    asked, devices = {"check-node": Parameter(format="pve-node")}, {"map": Parameter("array", False)}
    for kind in ("pci", "usb"):
        path = f"/cluster/mapping/{kind}"
        modify: Tree = ("perm", f"/mapping/{kind}", ["Mapping.Modify"])
        fresh = {"id": _ID, "description": TEXT, **devices}
        if kind == "pci":
            fresh |= {"mdev": FLAG, "live-migration-capable": Parameter("boolean", since="8.4")}
        found += [
            Operation("GET", path, asked, "array"),
            Operation("POST", path, fresh, "null", modify, True),
            Operation("DELETE", path + "/{id}", {"id": _ID}, "null", modify, True),
        ]
    return found


def _access() -> list[Operation]:
    login = {
        "new-format": FLAG,
        "otp": TEXT,
        "password": Parameter(optional=False),
        "path": Parameter(max_length=64, requires="privs"),
        "privs": Parameter(max_length=64, requires="path", format="pve-priv-list"),
        "realm": Parameter(max_length=32, format="pve-realm"),
        "tfa-challenge": TEXT,
        "username": Parameter(optional=False, max_length=64),
    }
    return [
        Operation("POST", "/access/ticket", login, "object", (), True),
        Operation("GET", "/access/acl", {}, "array"),
        Operation("GET", "/access/roles", {}, "array"),
    ]
