"""Storages looked at, volumes listed, made and deleted.

Facts from pve-storage ``PVE/API2/Storage/Content.pm``, ``Status.pm``; recorded from a real 8.4 API.
"""

from __future__ import annotations

import threading
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.refusal import die, invalid, invalid_fields
from funoffshore.lab.pve.tasks import Task
from funoffshore.lab.pve.volumes import TOTAL, Storage, Volume, parse_size


def storages(call: Call) -> list[dict[str, Any]]:
    """GET …/storage: those the caller may see."""
    wanted = set(pveapi.split_list(call.text("content")))
    found = []
    for storage in call.house.volumes.storages():
        if call.text("storage", storage.name) != storage.name or (wanted and not wanted & set(storage.content)):
            continue
        if call.may(f"/storage/{storage.name}", "Datastore.Audit", "Datastore.AllocateSpace"):
            row = {"storage": storage.name, **_usage(call, storage)}
            found.append({**row, "used_fraction": row["used"] / row["total"]})
    return found


def status(call: Call) -> dict[str, Any]:
    """GET …/storage/{storage}/status."""
    storage = call.house.volumes.find(call.text("storage"))
    if storage is None:
        raise invalid(storage="No such storage.")
    return _usage(call, storage)


def _usage(call: Call, storage: Storage) -> dict[str, Any]:
    used = call.house.volumes.used(call.node, storage)
    flags = {"active": 1, "enabled": 1, "shared": 0}
    sizes = {"total": TOTAL, "used": used, "avail": TOTAL - used}
    return {"type": storage.type, "content": ",".join(storage.content), **flags, **sizes}


def volumes(call: Call) -> list[dict[str, Any]]:
    """GET …/content; ``vmid`` filters disks only, as on the real one."""
    storage = call.house.volumes.storage(call.text("storage"))
    kinds = [call.text("content")] if "content" in call.values else storage.content
    return call.house.volumes.rows(call.node, storage, kinds, call.vmid if "vmid" in call.values else None)


def allocate(call: Call) -> str:
    """POST …/content: an empty disk, at once. Returns its volume ID."""
    storage = call.house.volumes.storage(call.text("storage"))
    if "images" not in storage.content:
        raise die(f"storage '{storage.name}' does not support vm images")
    stem, dot, suffix = call.text("filename").rpartition(".")
    form = call.text("format") or (suffix if dot else "raw")
    name = (stem if dot else suffix).removeprefix(f"vm-{call.vmid}-")
    if not (stem if dot else suffix).startswith(f"vm-{call.vmid}-") or not name or "/" in name:
        raise die(f"illegal name '{call.text('filename')}' - should be 'vm-{call.vmid}-*'")
    size = call.text("size")
    amount = parse_size(size) if size[-1:] in "MG" else int(size) * 1024
    return call.house.volumes.allocate(call.node, storage, call.vmid, amount, form, name)


def _volume(call: Call) -> Volume:
    volid = call.text("volume")
    if ":" not in volid:
        volid = f"{call.text('storage')}:{volid}"
    volume = call.house.volumes.parse(volid)
    if "storage" in call.values and volume.storage.name != call.text("storage"):
        raise invalid_fields({"volume": "storage ID missmatch"})
    return volume


def show(call: Call) -> dict[str, Any]:
    """GET …/content/{volume}."""
    volume = _volume(call)
    store = f"/storage/{volume.storage.name}"
    if volume.owner is not None and call.may(f"/vms/{volume.owner}", "VM.Config.Disk"):
        call.need(store, "Datastore.Audit")
    else:
        call.need(store, "Datastore.AllocateSpace", "Datastore.Audit")
    size = call.house.volumes.size(call.node, volume.volid)
    if size is None:
        raise die(f"volume_size_info on '{volume.volid}' failed - no format")
    shown = {"path": call.house.volumes.shown_path(volume), "size": size, "used": size}
    return {**shown, "format": volume.file.rpartition(".")[2] if volume.file.endswith("qcow2") else "raw"}


def delete(call: Call) -> str | None:
    """DELETE …/content/{volume}: ends well even where there is nothing. With ``delay`` waits, then None."""
    volume = _volume(call)
    store = f"/storage/{volume.storage.name}"
    if volume.kind == "images":
        if not call.may(store, "Datastore.Allocate"):
            call.need(store, "Datastore.AllocateSpace")
            call.need(f"/vms/{volume.owner}", "VM.Config.Disk")
    else:
        call.need(store, "Datastore.Allocate")
    house, node, gone = call.house, call.node, threading.Event()
    ident = f"{volume.owner}@{volume.storage.name}" if volume.owner is not None else volume.storage.name

    def work(task: Task) -> None:
        task.pause(house.kit.latencies.task)
        if not house.volumes.delete(node, volume.volid):
            task.log(f"disk image '{house.volumes.shown_path(volume)}' does not exist")
        task.log(f"Removed volume '{volume.volid}'")

    upid = call.begin("imgdel", ident, work, gone.set)
    if "delay" in call.values and gone.wait(call.number("delay") / house.kit.clock.speed):
        return None
    return upid
