"""Storages looked at, volumes listed, made and deleted.

Facts from pve-storage ``PVE/API2/Storage/Content.pm``, ``Status.pm``; recorded from a real 8.4 API.
"""

from __future__ import annotations

import threading
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve import archives
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.refusal import die, invalid, invalid_fields
from funoffshore.lab.pve.tasks import Task, TaskError
from funoffshore.lab.pve.volumes import Storage, Volume, parse_size


def storages(call: Call) -> list[dict[str, Any]]:
    """GET …/storage: those the caller may see."""
    wanted = set(pveapi.split_list(call.text("content")))
    found = []
    for storage in call.house.volumes.storages(call.node):
        if call.text("storage", storage.name) != storage.name or (wanted and not wanted & set(storage.content)):
            continue
        if call.may(f"/storage/{storage.name}", "Datastore.Audit", "Datastore.AllocateSpace"):
            row = {"storage": storage.name, **_usage(call, storage)}
            found.append({**row, "used_fraction": row["used"] / row["total"]})
    return found


def status(call: Call) -> dict[str, Any]:
    """GET …/storage/{storage}/status."""
    storage = call.house.volumes.find(call.text("storage"))
    if storage is None or not storage.on(call.node):
        raise invalid(storage="No such storage.")
    return _usage(call, storage)


def _usage(call: Call, storage: Storage) -> dict[str, Any]:
    used = call.house.volumes.used(call.node, storage)
    flags = {"active": 1, "enabled": 1, "shared": int(storage.shared)}
    sizes = {"total": storage.size, "used": used, "avail": max(0, storage.size - used)}
    return {"type": storage.type, "content": ",".join(storage.content), **flags, **sizes}


def volumes(call: Call) -> list[dict[str, Any]]:
    """GET …/content; ``vmid`` filters disks only, as on the real one."""
    storage = call.house.volumes.usable(call.text("storage"), call.node)
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
    archive = archives.of(call.house.volumes.file(call.node, volume)) if volume.kind == "backup" else None
    if archive is not None:
        kept = {"notes": archive.notes} if archive.notes else {}
        return {**shown, **kept, "format": archive.form, "protected": int(archive.protected)}
    return {**shown, "format": volume.file.rpartition(".")[2] if volume.file.endswith("qcow2") else "raw"}


def _need_deletion(call: Call, volume: Volume) -> None:
    store = f"/storage/{volume.storage.name}"
    owned = {"images": "VM.Config.Disk", "backup": "VM.Backup"}.get(volume.kind)
    if owned and volume.owner is not None:
        if not call.may(store, "Datastore.Allocate"):
            call.need(store, "Datastore.AllocateSpace")
            call.need(f"/vms/{volume.owner}", owned)
    else:
        call.need(store, "Datastore.Allocate")


def _clear_archive(house: House, node: str, volume: Volume) -> None:
    """What lies beside an archive goes first; a protected one stays."""
    path = house.volumes.file(node, volume)
    if archives.beside(path, ".protected").is_file():
        raise TaskError(f"cannot remove protected archive '{house.volumes.shown_path(volume)}'")
    for suffix in (".notes", ".disks"):
        archives.beside(path, suffix).unlink(missing_ok=True)


def delete(call: Call) -> str | None:
    """DELETE …/content/{volume}: ends well even where there is nothing. With ``delay`` waits, then None."""
    volume = _volume(call)
    _need_deletion(call, volume)
    house, node, gone = call.house, call.node, threading.Event()
    ident = f"{volume.owner}@{volume.storage.name}" if volume.owner is not None else volume.storage.name

    def work(task: Task) -> None:
        task.pause(house.kit.latencies.task)
        if volume.kind == "backup":
            _clear_archive(house, node, volume)
        if not house.volumes.delete(node, volume.volid):
            task.log(f"disk image '{house.volumes.shown_path(volume)}' does not exist")
        task.log(f"Removed volume '{volume.volid}'")

    upid = call.begin("imgdel", ident, work, gone.set)
    if "delay" in call.values and gone.wait(call.number("delay") / house.kit.clock.speed):
        return None
    return upid


def annotate(call: Call) -> None:
    """PUT …/content/{volume}: notes and protection of a backup."""
    volume = _volume(call)
    call.need(f"/storage/{volume.storage.name}", "Datastore.Allocate", "Datastore.AllocateSpace")
    path = call.house.volumes.file(call.node, volume) if volume.kind != "images" else None
    if path is None or volume.kind != "backup":
        raise die(f"volume '{volume.volid}' does not support updating attribute 'notes'")
    if not path.is_file():
        raise die(f"volume '{volume.volid}' does not exist")
    if "notes" in call.values:
        archives.beside(path, ".notes").write_text(call.text("notes"))
    if call.flag("protected"):
        archives.beside(path, ".protected").touch()
    elif "protected" in call.values:
        archives.beside(path, ".protected").unlink(missing_ok=True)
