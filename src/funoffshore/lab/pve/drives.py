"""Drives and network devices of a machine: who may set them, and how they are stored.

Facts from qemu-server ``PVE/API2/Qemu.pm`` (``check_storage_access``, ``create_disks``) and
``PVE/QemuServer/Drive.pm``; order of the checks and texts recorded from a real 8.4 API.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve.calls import Call, House, parts
from funoffshore.lab.pve.refusal import RefusalError, die, forbidden, invalid_fields
from funoffshore.lab.pve.tasks import Task, TaskError
from funoffshore.lab.pve.volumes import Storage, Volume, image_size, parse_size, print_size, split

NEW_DISK = re.compile(r"(?:([^/:\s]+):)?(\d+(?:\.\d+)?)\Z")
CLOUD_INIT_SIZE = 4 << 20
EFI_SIZE = 528 << 10
_ROOT_PATH = "Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 569."
_BOOT_DISKS = ("scsi", "virtio", "sata", "ide")


def is_cdrom(drive: Mapping[str, str]) -> bool:
    """Whether a parsed drive is a CD-ROM, the cloud-init drive included."""
    return drive.get("media") == "cdrom" or is_cloud_init(drive)


def is_cloud_init(drive: Mapping[str, str]) -> bool:
    """Whether a parsed drive is, or is to become, the cloud-init drive."""
    file = drive["file"]
    return file.endswith(":cloudinit") or re.search(r"[:/]vm-\d+-cloudinit(\.\w+)?\Z", file) is not None


def printed(drive: Mapping[str, str]) -> str:
    """As the configuration stores a drive: volume first, then options by name."""
    hidden = ("file", "import-from", "format")
    return ",".join([drive["file"], *(f"{k}={drive[k]}" for k in sorted(drive) if k not in hidden)])


def printed_net(net: Mapping[str, str]) -> str:
    """As the configuration stores a network device; makes an address where none was given."""
    mac = net.get("macaddr") or f"BC:24:11:{':'.join(f'{b:02X}' for b in secrets.token_bytes(3))}"
    rest = (f"{key}={net[key]}" for key in sorted(net) if key not in ("model", "macaddr"))
    return ",".join([f"{net['model']}={mac}", *rest])


def check_storage_access(call: Call, vmid: int, settings: Mapping[str, str]) -> None:
    """Refuses drives whose storage or volume the caller may not use, or that are impossible."""
    for option in sorted(settings):
        if not pveapi.privileges.is_drive(option):
            continue
        drive = parts(call.house.release, option, settings[option])
        file, cdrom = drive["file"], is_cdrom(drive)
        if file == "none" or is_cloud_init(drive):
            pass
        elif cdrom and file == "cdrom":
            call.need("/", "Sys.Console")
        elif not cdrom and (fresh := NEW_DISK.match(file)):
            _check_new(call, fresh[1] or call.text("storage"))
        else:
            _check_volume(call, vmid, file)
            if split(file) and call.house.volumes.parse(file).kind not in ("images", "iso"):
                raise invalid_fields({option: "content type needs to be 'images' or 'iso'"})
        if "import-from" in drive:
            _check_source(call, vmid, option, drive["import-from"])
    if "vmstatestorage" in settings:
        call.need(f"/storage/{settings['vmstatestorage']}", "Datastore.AllocateSpace")


def _check_new(call: Call, storage: str) -> None:
    if not storage:
        raise die("no storage ID specified (and no default storage)")
    call.need(f"/storage/{storage}", "Datastore.AllocateSpace")
    if "images" not in call.house.volumes.storage(storage).content:
        raise invalid_fields({"storage": f"storage '{storage}' does not support vm images"})


def _check_volume(call: Call, vmid: int, volid: str) -> None:
    if split(volid) is None:
        raise die(_ROOT_PATH)
    volume = call.house.volumes.parse(volid)
    if volume.kind in ("iso", "vztmpl", "import"):
        call.need(f"/storage/{volume.storage.name}", "Datastore.AllocateSpace", "Datastore.Audit")
    elif volume.kind == "images" and volume.owner == vmid:
        return
    elif volume.kind == "images":
        call.need(f"/storage/{volume.storage.name}", "Datastore.Audit")
        call.need(f"/vms/{volume.owner}", "VM.Config.Disk")
    elif not call.may(f"/storage/{volume.storage.name}", "Datastore.Allocate"):
        raise die(f"missing privileges to access {volid}")


def _check_source(call: Call, vmid: int, option: str, source: str) -> None:
    if split(source) is None:
        raise die(_ROOT_PATH)
    volume = call.house.volumes.parse(source)
    if volume.kind not in ("images", "import"):
        text = f"{source} has wrong type '{volume.kind}' - needs to be 'images' or 'import'"
        raise invalid_fields({option: text})
    if volume.owner is not None:
        call.need(f"/vms/{volume.owner}", "VM.Clone")
    else:
        _check_volume(call, vmid, source)


def check_import_syntax(call: Call, settings: Mapping[str, str]) -> None:
    """Refuses ``import-from`` behind anything but ``<storage>:0``."""
    for option in sorted(settings):
        if not pveapi.privileges.is_drive(option):
            continue
        drive = parts(call.house.release, option, settings[option])
        fresh = NEW_DISK.match(drive["file"])
        if "import-from" in drive and (fresh is None or float(fresh[2]) != 0):
            text = "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"
            raise invalid_fields({option: text})


def check_option_privileges(call: Call, vmid: int, pool: str, options: Iterable[str]) -> None:
    """Refuses options that the caller may not set: 403, or 500 for those that only root@pam may."""
    for option in options:
        wanted = pveapi.privileges.of_option(option)
        if wanted is None and call.caller.is_root:
            continue
        if wanted is None:
            raise die(f"only root can set '{option}' config")
        if wanted and not (pool and call.may(f"/pool/{pool}", *wanted)):
            call.need(f"/vms/{vmid}", *wanted)
        if option == "startup":
            call.need("/", "Sys.Modify")


def check_devices(call: Call, vmid: int, pool: str, settings: Mapping[str, str]) -> None:
    """Refuses host devices, which only root@pam may pass through, and bridges without SDN.Use."""
    for option, value in sorted(settings.items()):
        kind = option.rstrip("0123456789")
        real = kind == "serial" and value != "socket"
        real = real or (kind == "usb" and "spice" not in value.lower() and "mapping=" not in value)
        if call.caller.is_root:
            continue
        if real:
            raise die(f"only root can set '{option}' config for real devices")
        if kind == "hostpci" and "mapping=" not in value:
            raise die(f"only root can set '{option}' config for non-mapped devices")
        mapped = re.search(r"(?:^|,)mapping=([^,]+)", value) if kind in ("usb", "hostpci") else None
        if mapped is not None:
            call.need(f"/mapping/{'pci' if kind == 'hostpci' else 'usb'}/{mapped[1]}", "Mapping.Use")
        if kind in ("serial", "usb", "hostpci") and not (pool and call.may(f"/pool/{pool}", "VM.Config.HWType")):
            call.need(f"/vms/{vmid}", "VM.Config.HWType")
    for option, value in sorted(settings.items()):
        if re.match(r"net\d+\Z", option):
            check_bridge(call, parts(call.house.release, option, value))


def check_bridge(call: Call, net: Mapping[str, str]) -> None:
    """Refuses a network device whose bridge the caller may not use."""
    bridge = net.get("bridge")
    if not bridge:
        raise die("no sdn vnet ID specified")
    path = f"/sdn/zones/localnetwork/{bridge}"
    if "tag" in net and call.may(f"{path}/{net['tag']}", "SDN.Use"):
        return
    if not call.may(path, "SDN.Use"):
        raise forbidden(f"{path}, SDN.Use")


@dataclass(slots=True)
class Workshop:
    """Where new disks are made, for whom, and which were."""

    house: House
    node: str
    vmid: int
    task: Task | None
    default: str = ""
    """Storage for disks that name none."""
    made: list[str] = field(default_factory=list)

    def say(self, *lines: str) -> None:
        """Into the task's log, if there is a task."""
        if self.task is not None:
            self.task.log(*lines)

    def allocate(self, storage: Storage, size: int, form: str, name: str = "") -> str:
        """A new disk; returns its volume ID."""
        volid = self.house.volumes.allocate(self.node, storage, self.vmid, size, form, name)
        self.made.append(volid)
        self.say(_formatting(self.house, volid, size))
        return volid


def realise(shop: Workshop, settings: dict[str, str]) -> str:
    """Allocates every new disk in ``settings`` and replaces it by what is stored; returns the image imported from.

    Raises TaskError; without a task, a refusal with the same text.
    """
    origin, task = "", shop.task
    try:
        for option in sorted(settings):
            if pveapi.privileges.is_drive(option):
                drive = parts(shop.house.release, option, settings[option])
                source = drive.get("import-from", "")
                settings[option] = _realised(shop, option, drive)
                origin = source if source and (not origin or option == "scsi0") else origin
    except RefusalError as why:
        raise (TaskError(why.text) if task is not None else why) from None
    except TaskError as why:
        raise (why if task is not None else die(str(why))) from None
    return origin


def _realised(shop: Workshop, option: str, drive: dict[str, str]) -> str:
    volumes = shop.house.volumes
    fresh = NEW_DISK.match(drive["file"])
    drive.pop("size", None)
    if drive["file"] in ("none", "cdrom"):
        return printed(drive)
    if drive["file"].endswith(":cloudinit"):
        storage = volumes.storage(drive["file"].split(":")[0])
        drive["file"] = shop.allocate(storage, CLOUD_INIT_SIZE, "qcow2", "cloudinit")
        drive["media"] = "cdrom"
    elif fresh and not is_cdrom(drive):
        storage = volumes.storage(fresh[1] or shop.default)
        if "import-from" in drive:
            size = _import(shop, drive, storage)
        else:
            size = EFI_SIZE if option == "efidisk0" else int(float(fresh[2]) * 1024**3)
            drive["file"] = shop.allocate(storage, size, drive.get("format", "raw"))
            if option == "efidisk0":
                shop.say(*(_progress(done, size) for done in (0, size, size)))
        drive["size"] = print_size(size)
    else:
        found = volumes.size(shop.node, drive["file"])
        if found is None:
            raise TaskError(f"volume '{drive['file']}' does not exist")
        if not is_cloud_init(drive):
            drive["size"] = print_size(found)
        return printed(drive)
    shop.say(f"{option}: successfully created disk '{printed(drive)}'")
    return printed(drive)


def _import(shop: Workshop, drive: dict[str, str], storage: Storage) -> int:
    """Copies an image into a new disk; returns its virtual size."""
    house, task = shop.house, shop.task
    source = house.volumes.parse(drive["import-from"])
    shown = house.volumes.shown_path(source)
    if source.kind == "images":
        found = house.volumes.size(shop.node, source.volid)
        if found is None:
            raise TaskError(f"failed to stat '{shown}'")
        size, form = found, "raw" if source.volid.rpartition(".")[2] not in ("qcow2", "vmdk") else "qcow2"
    else:
        size, form = _stat(shop, house.volumes.file(shop.node, source), shown)
    shop.say(f"create full clone of drive ({drive['import-from']})")
    drive["file"] = shop.allocate(storage, size, form)
    if task is not None:
        target = house.volumes.shown_path(house.volumes.parse(drive["file"]))
        command = f"-f {form} -O {form} {shown} zeroinit:{target}"
        _copy(house, task, size, drive["import-from"], command, room=_room(shop, storage, source))
    return size


def _room(shop: Workshop, storage: Storage, source: Volume) -> int | None:
    """Bytes that a copy gets to write before its storage is full; None when it will not be."""
    volumes = shop.house.volumes
    need = volumes.size(shop.node, source.volid) or 0
    room = volumes.room(shop.node, storage)
    full = shop.house.kit.faults.hits("storage-full", storage=storage.name, vmid=str(shop.vmid))
    return min(need, room) // 2 if full else room if source.kind != "images" and need > room else None


def _stat(shop: Workshop, path: Path, shown: str) -> tuple[int, str]:
    if not path.is_file():
        raise TaskError(f"failed to stat '{shown}'")
    try:
        size, form = image_size(path, shown, may_have_backing=False)
    except ValueError as why:
        if "qemu-img" in str(why):
            shop.say(f"command '/usr/bin/qemu-img info '--output=json' {shown} -f qcow2' failed: exit code 1")
        raise TaskError(str(why)) from None
    return size, form


def _copy(house: House, task: Task, size: int, source: str, command: str, *, room: int | None) -> None:
    """The time that copying takes, with the progress that qemu-img prints."""
    seconds = house.kit.latencies.create
    told = [_progress(size * step // 10, size) for step in (*range(11), 10)]
    task.log(told[0])
    try:
        if room is not None:
            task.pause(0)
            raise TaskError("no space")
        for line in told[1:] if seconds > 0 else ["\n".join(told[1:])]:
            task.pause(seconds / 11)
            task.log(line)
    except TaskError as why:
        reason = "received interrupt" if task.stopping else "exit code 1"
        if not task.stopping:
            task.log(f"qemu-img: error while writing at byte {room or 0}: No space left on device")
        text = f"cannot import from '{source}' - copy failed: command '/usr/bin/qemu-img convert -p -n {command}'"
        raise TaskError(f"{text} failed: {reason}") from why


def _progress(done: int, size: int) -> str:
    return f"transferred {_human(done)} of {_human(size)} ({100 * done / size if size else 100:.2f}%)"


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _formatting(house: House, volid: str, size: int) -> str:
    volume = house.volumes.parse(volid)
    if volume.storage.type == "lvmthin":
        return f'  Logical volume "{volume.file}" created.'
    shown = house.volumes.shown_path(volume)
    if shown.endswith(".qcow2"):
        options = "extended_l2=off preallocation=metadata compression_type=zlib"
        tail = f"size={size} lazy_refcounts=off refcount_bits=16"
        return f"Formatting '{shown}', fmt=qcow2 cluster_size=65536 {options} {tail}"
    return f"Formatting '{shown}', fmt=raw size={size} preallocation=off"


def disk_size(drive: Mapping[str, str]) -> int:
    """Bytes that a stored drive says it has."""
    try:
        return parse_size(drive.get("size", "0"))
    except ValueError:
        return 0


def default_boot(config: Mapping[str, Any]) -> str:
    """``order=scsi0;ide2;net0``: first disk, first CD-ROM, first network device; a space when nothing boots."""
    drives = sorted((k for k in config if pveapi.privileges.is_drive(k) and k != "efidisk0"), key=_boot_rank)
    disk = next((k for k in drives if "media=cdrom" not in str(config[k])), None)
    cdrom = next((k for k in drives if "media=cdrom" in str(config[k])), None)
    net = next((k for k in sorted(config) if re.match(r"net\d+\Z", k)), None)
    found = [device for device in (disk, cdrom, net) if device]
    return f"order={';'.join(found)}" if found else " "


def _boot_rank(option: str) -> tuple[int, int]:
    kind = option.rstrip("0123456789")
    return (_BOOT_DISKS.index(kind) if kind in _BOOT_DISKS else 9, int(option[len(kind) :] or 0))
