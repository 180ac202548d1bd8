"""One VM: its configuration, its power, its making and its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from funoffshore import errors
from funoffshore.world.proxmox import answers, refusals, shapes
from funoffshore.world.proxmox.base import Base


def _vm(node: str, vmid: int) -> str:
    return f"/nodes/{node}/qemu/{vmid}"


def _changes(changes: Mapping[str, Any], delete: Iterable[str], digest: str) -> dict[str, Any]:
    body = dict(changes)
    if unset := ",".join(delete):
        body["delete"] = unset
    return body | ({"digest": digest} if digest else {})


class Machines(Base):
    """Looks at VMs and changes them. Writes that return a string return the UPID of the task they began."""

    def vms(self, node: str) -> list[shapes.VmRow]:
        """VMs on one node, with their status as it is now."""
        return self._door.read(answers.each(lambda row: answers.parse_vm_row(row, node)), f"/nodes/{node}/qemu")

    def config(self, node: str, vmid: int) -> shapes.VmConfig | None:
        """The VM's configuration, None when there is no such VM on that node."""
        try:
            found = self._door.read(answers.parse_config, f"{_vm(node, vmid)}/config")
        except errors.RefusedError as why:
            if refusals.is_missing(why):
                return None
            raise
        self._read[node, vmid] = found
        return found

    def last_config(self, node: str, vmid: int) -> shapes.VmConfig | None:
        """What ``config`` last showed, without asking again. A write that carries its digest is refused by Proxmox
        once that is no longer the VM's configuration, so it proves as much as another look; nothing else does."""
        return self._read.get((node, vmid))

    def pending(self, node: str, vmid: int) -> dict[str, tuple[str | None, str | None]]:
        """Every option → its value now, and its value after the next restart; None where it is not set. The two
        differ only where a change waits for a restart."""
        return self._door.read(answers.parse_pending, f"{_vm(node, vmid)}/pending")

    def running(self, node: str, vmid: int) -> bool:
        """Whether the VM has power now."""
        return self._door.read(lambda answer: bool(answer["status"] == "running"), f"{_vm(node, vmid)}/status/current")

    def guest_addresses(self, node: str, vmid: int) -> list[str]:
        """``name: address`` for every interface, as the guest agent sees them. Raises RefusedError without one."""
        return self._door.read(answers.parse_interfaces, f"{_vm(node, vmid)}/agent/network-get-interfaces")

    def agent_file(self, node: str, vmid: int, path: str) -> bytes:
        """A file of the guest, read by its agent. Raises RefusedError without one, or when it cannot read it."""
        return self._door.read(answers.parse_file, f"{_vm(node, vmid)}/agent/file-read", file=path)

    def create_vm(self, node: str, body: Mapping[str, Any]) -> str:
        """Raises RefusedError (``already_exists``) when the VMID is taken; nothing happened then."""
        return self._task(self._door.post(f"/nodes/{node}/qemu", body))

    def clone(self, node: str, template_vmid: int, body: Mapping[str, Any]) -> str:
        """Makes a VM from a template on that node; ``body`` holds ``newid``."""
        return self._task(self._door.post(f"{_vm(node, template_vmid)}/clone", body))

    def change(
        self, node: str, vmid: int, changes: Mapping[str, Any], delete: Iterable[str] = (), digest: str = ""
    ) -> str:
        """Sets and unsets options as a task, so that a busy storage cannot time the call out.

        With ``digest`` it is refused (``has_changed``) once somebody else has changed the configuration.
        """
        return self._task(self._door.post(f"{_vm(node, vmid)}/config", _changes(changes, delete, digest)))

    def change_now(
        self, node: str, vmid: int, changes: Mapping[str, Any], delete: Iterable[str] = (), digest: str = ""
    ) -> None:
        """As ``change``, done when it returns: for what needs no work on a disk.

        A refusal with status 400 may leave the change pending (recorded): look at ``pending`` after it.
        """
        self._door.put(f"{_vm(node, vmid)}/config", _changes(changes, delete, digest))

    def resize(self, node: str, vmid: int, disk: str, size_gib: int, digest: str = "") -> str:
        """Sets the absolute size; Proxmox refuses to shrink, and takes an equal size as done."""
        body = {"disk": disk, "size": f"{size_gib}G"}
        return self._task(self._door.put(f"{_vm(node, vmid)}/resize", _changes(body, (), digest)))

    def move_disk(self, node: str, vmid: int, disk: str, target_vmid: int, target_disk: str) -> str:
        """Gives a disk, with what is on it, to another VM on the same node."""
        body = {"disk": disk, "target-vmid": target_vmid, "target-disk": target_disk}
        return self._task(self._door.post(f"{_vm(node, vmid)}/move_disk", body))

    def start(self, node: str, vmid: int) -> str:
        return self._task(self._door.post(f"{_vm(node, vmid)}/status/start", {}))

    def stop(self, node: str, vmid: int) -> str:
        """Pulls the plug."""
        return self._task(self._door.post(f"{_vm(node, vmid)}/status/stop", {}))

    def shutdown(self, node: str, vmid: int, timeout: int = 60) -> str:
        """Asks the guest, and pulls the plug after ``timeout`` seconds."""
        body = {"timeout": timeout, "forceStop": True}
        return self._task(self._door.post(f"{_vm(node, vmid)}/status/shutdown", body))

    def reboot(self, node: str, vmid: int, timeout: int = 60) -> str:
        """Asks the guest to shut down and starts it again, with every pending change. The task fails when the guest
        has not obeyed after ``timeout`` seconds."""
        return self._task(self._door.post(f"{_vm(node, vmid)}/status/reboot", {"timeout": timeout}))

    def delete(self, node: str, vmid: int) -> str:
        """Removes the VM with its disks and every reference to its id, and nothing that is not its own."""
        how = {"purge": True, "destroy-unreferenced-disks": False}
        return self._task(self._door.delete(_vm(node, vmid), **how))

    def firewall_options(self, node: str, vmid: int) -> dict[str, str]:
        """The VM's own firewall settings that differ from Proxmox' defaults."""
        return self._door.read(
            lambda answer: {k: v for k, v in answers.flat(answer).items() if k != "digest"},
            f"{_vm(node, vmid)}/firewall/options",
        )

    def firewall_rules(self, node: str, vmid: int) -> list[dict[str, str]]:
        """The VM's own rules in their order; each with its ``pos``."""
        return self._door.read(answers.each(answers.flat), f"{_vm(node, vmid)}/firewall/rules")

    def set_firewall_options(self, node: str, vmid: int, options: Mapping[str, Any]) -> None:
        self._door.put(f"{_vm(node, vmid)}/firewall/options", options)

    def add_firewall_rule(self, node: str, vmid: int, rule: Mapping[str, Any]) -> None:
        """Puts the rule first, at position 0. It is in force only with ``enable`` 1 (recorded)."""
        self._door.post(f"{_vm(node, vmid)}/firewall/rules", rule)

    def delete_firewall_rule(self, node: str, vmid: int, pos: int) -> None:
        """Later rules move up, so delete from the end."""
        self._door.delete(f"{_vm(node, vmid)}/firewall/rules/{pos}")
