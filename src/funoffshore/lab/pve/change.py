"""Configurations changed, and disks grown.

Facts from qemu-server ``PVE/API2/Qemu.pm`` (``update_vm_api``, ``resize_vm``); recorded from a real 8.4 API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve import create, drives, hotplug, power
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import RefusalError, die, forbidden, invalid
from funoffshore.lab.pve.tasks import Task, TaskError
from funoffshore.lab.pve.volumes import parse_size, print_size

_NOT_OPTIONS = frozenset(
    ("node", "vmid", "delete", "digest", "revert", "force", "skiplock", "background_delay", "import-working-storage")
)
_STALE = "checksum mismatch (file change by other user?)"


def put_config(call: Call) -> None:
    """PUT …/config: everything before the answer."""
    change = _Change(call)
    with call.house.machines.locked(call.vmid):
        change.check_state()
        change.apply(None)


def post_config(call: Call) -> str:
    """POST …/config: the same as a task."""
    change = _Change(call)
    with call.house.machines.locked(call.vmid):
        change.check_state()

    def work(task: Task) -> None:
        task.log(f"update VM {call.vmid}: {change.told()}")
        with call.house.machines.locked(call.vmid, task):
            task.pause(call.house.kit.latencies.task)
            try:
                change.apply(task)
            except RefusalError as why:
                texts = "".join(f"{key}: {text}\n" for key, text in (why.errors or {}).items())
                raise TaskError(f"{why.text}\n{texts}".rstrip("\n") if texts else why.text) from why

    return call.begin("qmconfig", str(call.vmid), work)


def unlink(call: Call) -> None:
    """PUT …/unlink: a disk stays as unused, unless ``force``, which deletes what is unused at once."""
    call.values["delete"] = call.text("idlist")
    del call.values["idlist"]
    put_config(call)


class _Change:
    """One change of a configuration, checked on construction in Proxmox's order."""

    def __init__(self, call: Call) -> None:
        self.call = call
        call.refuse_skiplock()
        self.settings = {key: call.text(key) for key in call.values if key not in _NOT_OPTIONS}
        create.check_keys(self.settings)
        self.delete = pveapi.split_list(call.text("delete"))
        self.revert = pveapi.split_list(call.text("revert"))
        if not self.settings and not self.delete and not self.revert:
            raise die("no options specified")
        if "cdrom" in self.settings:
            self.settings["ide2"] = self.settings.pop("cdrom") + ",media=cdrom"
        self.delete = ["ide2" if option == "cdrom" else option for option in self.delete]
        self._check_names()
        self._check_privileges()

    def told(self) -> str:
        """The options as the task's log prints them."""
        given = dict(self.settings)
        for name in ("delete", "revert"):
            if name in self.call.values:
                given[name] = self.call.text(name)
        return " ".join(f"-{k} {'<hidden>' if k == 'cipassword' else given[k]}" for k in sorted(given))

    def _check_names(self) -> None:
        known = pveapi.table(self.call.house.release)["PUT", "/nodes/{node}/qemu/{vmid}/config"]
        extra = ("digest", "meta", "parent", "snaptime", "vmstate")
        for option in self.revert:
            if known.parameter(option) is None:
                raise invalid(revert=f"unknown option '{option}'")
        for option in self.delete:
            if option in self.settings:
                raise invalid(delete=f"you can't use '-{option}' and -delete {option}' at the same time")
            if known.parameter(option) is None and option not in extra:
                raise invalid(delete=f"unknown option '{option}'")

    def _check_privileges(self) -> None:
        call, vmid = self.call, self.call.vmid
        drives.check_option_privileges(call, vmid, "", [*self.delete, *self.settings])
        for option in [*self.delete, *self.settings]:
            if pveapi.privileges.is_drive(option):
                cdrom = "media=cdrom" in self.settings.get(option, self._now(option))
                call.need(f"/vms/{vmid}", "VM.Config.CDROM" if cdrom else "VM.Config.Disk")
            elif option.startswith("unused"):
                call.need(f"/vms/{vmid}", "VM.Config.Disk")
            elif option == "tags":
                call.need(f"/vms/{vmid}", "VM.Config.Options")
        drives.check_storage_access(call, vmid, self.settings)
        drives.check_devices(call, vmid, "", self.settings)
        drives.check_import_syntax(call, self.settings)

    def _now(self, option: str) -> str:
        machine = self.call.house.machines.find(self.call.vmid)
        return str(machine.config.get(option, "")) if machine else ""

    def check_state(self) -> None:
        """Refuses what only the configuration itself shows: absent, stale, locked."""
        machine = self.call.house.machines.on_node(self.call.node, self.call.vmid)
        digest = self.call.text("digest")
        if digest and digest != machine.digest:
            raise die(_STALE)
        if "lock" in machine.config and not self.call.flag("skiplock"):
            raise die(f"VM is locked ({machine.config['lock']})")

    def apply(self, task: Task | None) -> None:
        """Makes the change. On a running machine some of it stays pending, even where the answer is a refusal."""
        house = self.call.house
        machine = house.machines.on_node(self.call.node, self.call.vmid)
        before = dict(machine.config)
        drives.realise(drives.Workshop(house, machine.node, machine.vmid, task), self.settings)
        stored: dict[str, Any] = {option: self._stored(option, value) for option, value in self.settings.items()}
        for option in self.revert:
            machine.pending.pop(option, None)
        for option in self.delete:
            stored[option] = None
            _forget_boot(machine, option)
        trouble: dict[str, str] = {}
        running = house.machines.is_on(machine)
        for option, value in stored.items():
            machine.pending[option] = value
            why = hotplug.plug(machine, option, value, given=self.settings.get(option, "")) if running else ""
            if why:
                trouble[option] = f"hotplug problem - {why}\n"
        self._remove_unused(machine)
        if not running:
            power.apply_pending(machine)
        if self.call.flag("force"):
            self._destroy_detached(machine, before)
        house.machines.save(machine)
        if running and any(pveapi.privileges.is_drive(option) for option in stored):
            power.show_disks(house, machine)
        if trouble:
            raise invalid(**trouble)

    def _stored(self, option: str, value: str) -> Any:
        if option == "tags":
            return ";".join(sorted({tag.lower() for tag in pveapi.split_list(value)})) or " "
        if option == "cipassword" and not value.startswith(("$5$", "$6$")):
            return f"$5${'*' * 8}${len(value)}"  # masked in every answer; nobody can log in with it
        return create.stored_value(self.call.house, option, value)

    def _remove_unused(self, machine: Machine) -> None:
        for option in self.delete:
            if option.startswith("unused") and option in machine.config:
                self.call.house.volumes.delete(machine.node, str(machine.config.pop(option)))
                machine.pending.pop(option, None)

    def _destroy_detached(self, machine: Machine, before: Mapping[str, Any]) -> None:
        """With ``force`` a disk that was taken out does not stay as unused."""
        gone = {str(before[option]).split(",")[0] for option in self.delete if option in before}
        for option, volid in list(machine.config.items()):
            if option.startswith("unused") and volid in gone:
                self.call.house.volumes.delete(machine.node, str(machine.config.pop(option)))


def _forget_boot(machine: Machine, option: str) -> None:
    """A device that goes is taken out of the boot order, which may be all that comes of a refused change."""
    now = str(machine.pending.get("boot") or machine.config.get("boot", ""))
    order = now.removeprefix("order=").split(";")
    if option in order:
        rest = ";".join(device for device in order if device != option)
        machine.pending["boot"] = f"order={rest}" if rest else " "


def resize(call: Call) -> str:
    """PUT …/resize: whatever passes the schema becomes a task, even for a machine that is not there."""
    call.refuse_skiplock()
    house, node, vmid, disk = call.house, call.node, call.vmid, call.text("disk")

    def work(task: Task) -> None:
        with house.machines.locked(vmid, task):
            machine = house.machines.in_task(node, vmid)
            if call.text("digest") not in ("", machine.digest):
                raise TaskError(_STALE)
            power.check_lock(machine)
            if disk not in machine.config:
                raise TaskError(f"disk '{disk}' does not exist")
            drive = machine.parts(disk)
            if drives.is_cdrom(drive):
                raise TaskError("you can't resize a cdrom")
            _grow(call, machine, disk, drive, task)

    return call.begin("resize", str(vmid), work)


def _grow(call: Call, machine: Machine, disk: str, drive: dict[str, str], task: Task) -> None:
    storage = call.house.volumes.parse(drive["file"]).storage.name
    if not call.may(f"/storage/{storage}", "Datastore.AllocateSpace"):
        raise TaskError(forbidden(f"/storage/{storage}, Datastore.AllocateSpace").text)
    old = call.house.volumes.size(machine.node, drive["file"])
    if old is None:
        raise TaskError(f"volume '{drive['file']}' does not exist")
    text = call.text("size")
    new = parse_size(text.removeprefix("+")) + (old if text.startswith("+") else 0)
    if new < old:
        raise TaskError("shrinking disks is not supported")
    task.pause(call.house.kit.latencies.task)
    if new == old:
        return
    call.house.volumes.resize(machine.node, drive["file"], new)
    drive["size"] = print_size(new)
    machine.config[disk] = drives.printed(drive)
    call.house.machines.save(machine)
    if not call.house.machines.is_on(machine):
        task.log("Image resized.")
    else:
        power.show_disks(call.house, machine)
