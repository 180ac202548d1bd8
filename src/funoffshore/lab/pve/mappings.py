"""Mapped host devices: one name for a device that every node has at a place of its own.

Facts from pve-manager ``PVE/API2/Cluster/Mapping/PCI.pm``, ``USB.pm`` and qemu-server ``PVE/QemuServer/PCI.pm``,
``USB.pm``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die, invalid_fields
from funoffshore.lab.pve.tasks import TaskError

_HEX = "[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}"
_PCI = r"(?:[a-f0-9]{4,}:[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?;?)+"
_KEYS = {
    "pci": {"node": r"[\w-]+", "id": _HEX, "path": _PCI, "iommugroup": r"\d+", "subsystem-id": _HEX},
    "usb": {"node": r"[\w-]+", "id": _HEX, "path": r"\d+-\d+(?:\.\d+)*"},
}
_NEEDED = {"pci": ("id", "node", "path"), "usb": ("id", "node")}


def listed(kind: str) -> Callable[[Call], list[dict[str, Any]]]:
    """The handler of GET /cluster/mapping/{kind}: those that the caller may use, see or change."""

    def show(call: Call) -> list[dict[str, Any]]:
        found = []
        for name, body in call.house.shelf(f"mapping-{kind}").all().items():
            if call.may(f"/mapping/{kind}/{name}", "Mapping.Modify", "Mapping.Use", "Mapping.Audit"):
                found.append({**body, "id": name, **_checked(call, body)})
        return found

    return show


def _checked(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    node = call.text("check-node")
    if not node:
        return {}
    here = [entry for entry in body["map"] if _parsed(entry).get("node") == node]
    trouble = {"severity": "warning", "message": f"No mapping for node {node}."}
    return {"checks": [] if here else [trouble]}


def add(kind: str) -> Callable[[Call], None]:
    """The handler of POST /cluster/mapping/{kind}."""

    def make(call: Call) -> None:
        shelf, name = call.house.shelf(f"mapping-{kind}"), call.text("id")
        entries = call.list("map")
        for number, entry in enumerate(entries):
            _check(kind, number, entry)
        body: dict[str, Any] = {"map": entries, "type": kind}
        body |= {key: call.text(key) for key in ("description",) if key in call.values}
        body |= {key: call.number(key) for key in ("mdev", "live-migration-capable") if key in call.values}
        with shelf.guard:
            if shelf.get(name) is not None:
                raise die(f"create hardware mapping failed: {kind} ID '{name}' already defined")
            shelf.put(name, body)

    return make


def _check(kind: str, number: int, entry: str) -> None:
    parts, keys = _parsed(entry), _KEYS[kind]
    for key in (*_NEEDED[kind], *parts):
        why = ""
        if key not in keys:
            why = "property is not defined in schema and the schema does not allow additional properties"
        elif key not in parts:
            why = "property is missing and it is not optional"
        elif not re.fullmatch(keys[key], parts[key]):
            why = "value does not match the regex pattern"
        if why:
            text = f"invalid format - format error\nmap[{number}].{key}: {why}\n"
            raise invalid_fields({f"map[{number}]": text})


def _parsed(entry: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in entry.split(","))


def delete(kind: str) -> Callable[[Call], None]:
    """The handler of DELETE /cluster/mapping/{kind}/{id}."""

    def remove(call: Call) -> None:
        call.house.shelf(f"mapping-{kind}").delete(call.text("id"))

    return remove


def check_start(house: House, machine: Machine) -> None:
    """Raises TaskError for a device whose mapping has nothing on the machine's node."""
    for option in sorted(machine.config):
        kind = {"hostpci": "pci", "usb": "usb"}.get(option.rstrip("0123456789"))
        name = machine.parts(option).get("mapping") if kind else None
        if kind is None or name is None:
            continue
        body = house.shelf(f"mapping-{kind}").get(name) or {"map": []}
        here = [entry for entry in body["map"] if _parsed(entry).get("node") == machine.node]
        if not here:
            raise TaskError(f"{kind.upper()} device mapping not found for '{name}'")
        if kind == "usb" and len(here) > 1:
            raise TaskError("More than one USB mapping per host not supported")
