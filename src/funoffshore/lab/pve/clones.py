"""Machines made into templates, and copied: whole, or linked to the template's disks.

Facts from qemu-server ``PVE/API2/Qemu.pm`` (``clone_vm``, ``template``) and pve-storage ``PVE/Storage/Plugin.pm``
(``create_base``, ``clone_image``); recorded from a real 8.4 API.
"""

from __future__ import annotations

import re
import secrets
import uuid

from funoffshore import pveapi
from funoffshore.lab.guests import Keeps
from funoffshore.lab.pve import drives, mishaps, power, snapshots
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import RefusalError, die, forbidden
from funoffshore.lab.pve.tasks import Task, TaskError


def template(call: Call) -> str:
    """POST …/template: the disks become base volumes, and the machine never starts again."""
    house, node, vmid = call.house, call.node, call.vmid
    machine = house.machines.on_node(node, vmid)
    if "lock" in machine.config:
        raise die(f"VM is locked ({machine.config['lock']})")
    if snapshots.names(house, vmid):
        raise die("unable to create template, because VM contains snapshots")
    if machine.config.get("template") and "disk" not in call.values:
        raise die("you can't convert a template to a template")
    if house.machines.is_on(machine):
        raise die("you can't convert a VM to template if VM is running")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            power.check_lock(machine)
            task.pause(house.kit.latencies.task)
            machine.config["template"] = 1
            for option in [o for o in machine.config if pveapi.privileges.is_drive(o)]:
                if call.text("disk", option) == option:
                    _to_base(house, machine, option)
            house.machines.save(machine)

    return call.begin("qmtemplate", str(vmid), work)


def _to_base(house: House, machine: Machine, option: str) -> None:
    volid, comma, rest = str(machine.config[option]).partition(",")
    if not drives.is_cdrom(machine.parts(option)) and house.volumes.parse(volid).file.startswith("vm-"):
        machine.config[option] = f"{house.volumes.to_base(machine.node, volid)}{comma}{rest}"


def clone(call: Call) -> str:
    """POST …/clone: a full copy, or a linked one of a template."""
    house, node, newid, pool = call.house, call.node, call.number("newid"), call.text("pool")
    source = _clonable(call)
    try:
        mishaps.take_the_id(call, newid)
        target = house.machines.reserve(call.text("target", node), newid, house.kit.clock.now(), "clone")
    except RefusalError:
        raise die(f"unable to create VM {newid}: config file already exists") from None

    def work(task: Task) -> None:
        made: list[str] = []
        try:
            task.pause(house.kit.latencies.create if _full(call, source) else house.kit.latencies.task)
            _copy(call, source, target, task, made)
        except TaskError as why:
            for volid in made:
                house.volumes.delete(target.node, volid)
            house.machines.forget(newid)
            raise TaskError(f"clone failed: {why}") from why
        if pool:
            house.machines.join_pool(pool, newid)

    return call.begin("qmclone", str(call.vmid), work, lambda: house.machines.release(newid))


def _full(call: Call, source: Machine) -> bool:
    """Whether the disks are copied; a template's are only linked to unless told otherwise."""
    return call.flag("full") if "full" in call.values else not source.config.get("template")


def _clonable(call: Call) -> Machine:
    """The machine to clone, everything that can be refused at once refused."""
    house, node, pool = call.house, call.node, call.text("pool")
    source = house.machines.find(call.vmid)
    if source is None or source.node != node:
        raise die(f"unable to find configuration file for VM {call.vmid} on node '{node}'")
    if pool and pool not in house.machines.pools:
        raise forbidden(f"pool '{pool}' does not exist")
    if call.text("storage"):
        call.need(f"/storage/{call.text('storage')}", "Datastore.AllocateSpace")
        house.volumes.storage(call.text("storage"))
    if call.text("target", node) not in house.nodes:
        raise die(f"no such cluster node '{call.text('target')}'")
    if "lock" in source.config:
        raise die(f"VM is locked ({source.config['lock']})")
    if "snapname" in call.values and call.text("snapname") not in snapshots.names(house, source.vmid):
        raise die(f"snapshot '{call.text('snapname')}' does not exist")
    if not _full(call, source) and call.text("storage"):
        raise die("parameter 'storage' not allowed for linked clones")
    _check_devices(call, source)
    return source


def _check_devices(call: Call, source: Machine) -> None:
    """The caller's rights on what the copy will use."""
    for option in sorted(source.config):
        parts = source.parts(option)
        if re.match(r"net\d+\Z", option):
            drives.check_bridge(call, parts)
        elif pveapi.privileges.is_drive(option) and not drives.is_cdrom(parts):
            volume = call.house.volumes.parse(parts["file"])
            if not call.text("storage"):
                call.need(f"/storage/{volume.storage.name}", "Datastore.AllocateSpace")
            if not _full(call, source) and not volume.file.startswith("base-"):
                raise die(f"Linked clone feature is not supported for drive '{option}'")


def _copy(call: Call, source: Machine, target: Machine, task: Task, made: list[str]) -> None:
    house = call.house
    before = snapshots.config_of(house, source.vmid, call.text("snapname")) or source.config
    config = {k: v for k, v in before.items() if k not in ("lock", "template", "parent", "digest")}
    config["name"] = call.text("name") or f"Copy-of-VM-{before.get('name', source.vmid)}"
    config["vmgenid"] = str(uuid.uuid4())
    config["smbios1"] = re.sub(r"uuid=[0-9a-fA-F-]+", f"uuid={uuid.uuid4()}", str(config.get("smbios1", "uuid=0")))
    if call.text("description"):
        config["description"] = call.text("description").rstrip("\n")
    for option, value in list(config.items()):
        if re.match(r"net\d+\Z", option):
            tail = ":".join(f"{b:02X}" for b in secrets.token_bytes(3))
            config[option] = re.sub(r"=(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", f"=BC:24:11:{tail}", str(value), count=1)
        elif pveapi.privileges.is_drive(option):
            config[option] = _copy_disk(call, source, target, option, str(value), task, made)
    _copy_content(house, source.vmid, target.vmid)
    target.config, target.origin = config, source.origin
    house.machines.save(target)


def _copy_content(house: House, source: int, target: int) -> None:
    """What is on the disks, where machines have any."""
    if isinstance(house.guests, Keeps):
        passing = house.kit.directory / "pve" / f"clone-{source}-{target}.disks"
        house.guests.save_disks(source, passing)
        house.guests.load_disks(target, passing)
        passing.unlink(missing_ok=True)


def _copy_disk(
    call: Call, source: Machine, target: Machine, option: str, value: str, task: Task, made: list[str]
) -> str:
    volid, comma, rest = value.partition(",")
    if volid == "none" or ":iso/" in volid:
        return value
    volumes = call.house.volumes
    volume = volumes.parse(volid)
    size = volumes.size(source.node, volid)
    if size is None:
        raise TaskError(f"volume '{volid}' does not exist")
    if not _full(call, source) and not drives.is_cloud_init({"file": volid}):
        fresh = volumes.link(source.node, volid, target.vmid)
        task.log(f"create linked clone of drive {option} ({volid})", *_linking(call.house, volid, fresh, size))
    else:
        storage = volumes.find(call.text("storage")) or volume.storage
        form = call.text("format") or (volid.rpartition(".")[2] if re.search(r"\.(qcow2|raw|vmdk)\Z", volid) else "raw")
        name = "cloudinit" if "cloudinit" in volume.file else ""
        task.log(f"create full clone of drive {option} ({volid})")
        shop = drives.Workshop(call.house, target.node, target.vmid, task)
        fresh = shop.allocate(storage, size, form, name)
    made.append(fresh)
    return f"{fresh}{comma}{rest}"


def _linking(house: House, base: str, fresh: str, size: int) -> list[str]:
    storage, source, target = house.volumes.parse(base).storage, base.split(":", 1)[1], house.volumes.parse(fresh)
    if storage.type == "lvmthin":
        return [f'  Logical volume "{target.file}" created.']
    below = f"clone {source}: images, {target.file}, {target.owner} to {target.file} (base=../{source})"
    form = source.rpartition(".")[2]
    shown = f"Formatting '{house.volumes.shown_path(target)}', fmt=qcow2 cluster_size=65536 extended_l2=off"
    backing = f"backing_file=../{source} backing_fmt={form} lazy_refcounts=off refcount_bits=16"
    return [below, f"{shown} compression_type=zlib size={size} {backing}"]


def refuse_bases_in_use(house: House, machine: Machine) -> None:
    """Raises TaskError for a template whose disks others are linked to."""
    for option in sorted(machine.config):
        volid = machine.parts(option)["file"] if pveapi.privileges.is_drive(option) else "none"
        if ":" in volid and house.volumes.links_to(machine.node, volid):
            raise TaskError(f"base volume '{volid}' is still in use by linked cloned")
