"""What other people's tools look at besides machines. Facts from pve-storage ``PVE/API2/Storage/Config.pm``."""

from __future__ import annotations

import hashlib
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve import jobs, vzdump
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.refusal import die, invalid_fields
from funoffshore.lab.pve.volumes import Storage

_NEEDS = {
    "dir": ("path",),
    "nfs": ("server", "export"),
    "lvmthin": ("vgname", "thinpool"),
    "pbs": ("server", "datastore"),
}
"""The types of storage that can be made, and what each of them has to be told."""
_TOLD = ("username", "namespace", "fingerprint", "prune-backups", "options")
_CONTENT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("dir", "nfs", "lvmthin"), ("images", "rootdir")),
    "pbs": ("backup",),
}


def nothing(_: Call) -> list[Any]:
    """Any list that is empty in the lab: containers, security groups, aliases."""
    return []


def no_device(_: Call) -> dict[str, Any]:
    """GET /cluster/config/qdevice: nothing outside the cluster has a vote in it."""
    return {}


def storages(call: Call) -> list[dict[str, Any]]:
    """GET /storage: the configuration of those that the caller may see."""
    digest = _digest(call)
    return [
        {**_row(call, storage), "digest": digest}
        for storage in call.house.volumes.storages()
        if call.text("type", storage.type) == storage.type
        and call.may(f"/storage/{storage.name}", "Datastore.Audit", "Datastore.AllocateSpace")
    ]


def storage(call: Call) -> dict[str, Any]:
    """GET /storage/{storage}."""
    return {**_row(call, call.house.volumes.storage(call.text("storage"))), "digest": _digest(call)}


def add_storage(call: Call) -> dict[str, Any]:
    """POST /storage, of the types that the lab has. Nobody looks whether there is such a server."""
    name, kind = call.text("storage"), call.text("type")
    if kind not in _NEEDS:
        raise die(f"create storage failed: the lab has no storage of type '{kind}', only {', '.join(_NEEDS)}")
    missing = [option for option in _NEEDS[kind] if option not in call.values]
    if missing:
        raise invalid_fields(dict.fromkeys(missing, "property is missing and it is not optional"))
    if call.house.volumes.find(name) is not None:
        raise die(f"create storage failed: storage ID '{name}' already defined")
    content = tuple(pveapi.split_list(call.text("content"))) or _CONTENT[kind]
    nodes, shared = tuple(pveapi.split_list(call.text("nodes"))), kind in ("nfs", "pbs") or call.flag("shared")
    call.house.volumes.add(name, kind, content, nodes=nodes, shared=shared)
    told = {key: call.text(key) for key in (*_TOLD, *_NEEDS[kind]) if key in call.values}
    call.house.shelf("storage-told").put(name, told)
    return {"storage": name, "type": kind}


def delete_storage(call: Call) -> None:
    """DELETE /storage/{storage}: what lies on it stays there."""
    name = call.text("storage")
    if call.house.volumes.find(name) is None:
        raise die(f"delete storage failed: storage '{name}' does not exist")
    call.house.volumes.remove(name)
    call.house.shelf("storage-told").delete(name)


def _row(call: Call, storage: Storage) -> dict[str, Any]:
    row: dict[str, Any] = {"storage": storage.name, "type": storage.type, "content": ",".join(storage.content)}
    if storage.type in ("dir", "nfs"):
        row["path"] = storage.path
    if storage.type == "lvmthin":
        row |= {"vgname": "pve", "thinpool": "data"}
    if storage.nodes:
        row["nodes"] = ",".join(storage.nodes)
    shared = {"shared": 1} if storage.shared and storage.type == "dir" else {}
    return {**row, **shared, **(call.house.shelf("storage-told").get(storage.name) or {})}


def _digest(call: Call) -> str:
    text = str([_row(call, storage) for storage in call.house.volumes.storages()])
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def subscription(call: Call) -> dict[str, Any]:
    """GET …/subscription: there is none."""
    text = "There is no subscription key"
    return {"status": "notfound", "message": text, "serverid": call.house.fingerprint[:32].upper()}


def not_backed_up(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/backup-info/not-backed-up: the guests that no job is of."""
    house, covered = call.house, set()
    for body in house.shelf(jobs.JOBS).all().values():
        for node in house.nodes:
            covered |= set(vzdump.chosen(house, node, body)) if body.get("node") in (None, node) else set()
    left = (m for m in house.machines.all() if m.vmid not in covered and call.may(f"/vms/{m.vmid}", "VM.Audit"))
    return [{"vmid": machine.vmid, "name": machine.name, "type": "qemu"} for machine in left]
