"""The cloud-init drive: what Proxmox writes onto it from the configuration, when, and how that is shown.

Facts from qemu-server ``PVE/QemuServer/Cloudinit.pm`` and ``PVE/API2/Qemu.pm``; texts recorded from a real 8.4 API. The
drive is a folder with the three files, which the lab's hosts read as they read an ISO.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from funoffshore import pveapi
from funoffshore.lab.pve import drives
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import RefusalError
from funoffshore.lab.pve.tasks import TaskError

_WRITTEN = "cloudinit"
_OPTIONS = ("cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys")
_FILES = {"user": "user-data", "network": "network-config", "meta": "meta-data", "vendor": "vendor-data"}


def has_drive(machine: Machine) -> bool:
    """Whether the machine has a cloud-init drive."""
    options = (option for option in machine.config if pveapi.privileges.is_drive(option))
    return any(drives.is_cloud_init(machine.parts(option)) for option in options)


def folder(house: House, machine: Machine) -> Path:
    """What is on the drive, written now if it never was."""
    path = house.kit.directory / "pve" / "cloudinit" / str(machine.vmid)
    if not path.is_dir():
        write(house, machine)
    return path


def write(house: House, machine: Machine) -> None:
    """Writes the drive anew, as every cold start does. Raises TaskError for a snippet that is not there."""
    path = house.kit.directory / "pve" / "cloudinit" / str(machine.vmid)
    path.mkdir(parents=True, exist_ok=True)
    for kind, text in texts(house, machine).items():
        (path / _FILES[kind]).write_text(text)
    shown = {key: machine.config[key] for key in _OPTIONS if key in machine.config}
    house.shelf(_WRITTEN).put(str(machine.vmid), shown)


def forget(house: House, vmid: int) -> None:
    """The machine is gone, and so is its drive."""
    shutil.rmtree(house.kit.directory / "pve" / "cloudinit" / str(vmid), ignore_errors=True)
    house.shelf(_WRITTEN).delete(str(vmid))


def texts(house: House, machine: Machine) -> dict[str, str]:
    """The files by kind; those that ``cicustom`` names instead of the generated ones."""
    found = {"user": user_data(machine.config, machine.vmid), "network": network_config(machine)}
    custom = {kind: _snippet(house, machine, volid) for kind, volid in machine.parts("cicustom").items()}
    found |= custom
    text = found["user"] + found["network"]
    found.setdefault("meta", f"instance-id: {hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()}\n")
    return found


def _snippet(house: House, machine: Machine, volid: str) -> str:
    try:
        path = house.volumes.file(machine.node, house.volumes.parse(volid))
    except RefusalError as why:
        raise TaskError(why.text) from None
    if not path.is_file():
        raise TaskError(f"volume '{volid}' does not exist")
    return path.read_text()


def user_data(config: Mapping[str, Any], vmid: int) -> str:
    """As Proxmox prints it."""
    name = str(config.get("name", f"VM{vmid}"))
    host, dot, _ = name.partition(".")
    full = name if dot else f"{name}.{config['searchdomain']}" if config.get("searchdomain") else ""
    user = config.get("ciuser")
    lines = ["#cloud-config", f"hostname: {host}", "manage_etc_hosts: true", *([f"fqdn: {full}"] if full else [])]
    lines += [f"user: {user}"] if user else []
    lines += ["disable_root: False"] if user == "root" else []
    lines += [f"password: {config['cipassword']}"] if "cipassword" in config else []
    if "sshkeys" in config:
        keys = [key for key in unquote(str(config["sshkeys"])).split("\n") if key.strip()]
        lines += ["ssh_authorized_keys:", *(f"  - {key}" for key in keys)]
    lines += ["chpasswd:", "  expire: False"]
    lines += ["users:", "  - default"] if user != "root" else []
    lines += ["package_upgrade: true"] if str(config.get("ciupgrade", 1)) != "0" else []
    return "\n".join(lines) + "\n"


def network_config(machine: Machine) -> str:
    """Version 1, as Proxmox prints it: every network device that has an address."""
    config, lines = machine.config, ["version: 1", "config:"]
    for option in sorted((o for o in config if re.match(r"net\d+\Z", o)), key=lambda option: int(option[3:])):
        number = option[3:]
        mac = machine.parts(option).get("macaddr", "").lower()
        lines += ["    - type: physical", f"      name: eth{number}", f"      mac_address: '{mac}'", "      subnets:"]
        lines += _subnets(machine.parts(f"ipconfig{number}"))
    servers = pveapi.split_list(str(config.get("nameserver", "")))
    domains = pveapi.split_list(str(config.get("searchdomain", "")))
    if servers or domains:
        lines += ["    - type: nameserver"]
        lines += ["      address:", *(f"      - '{server}'" for server in servers)] if servers else []
        lines += ["      search:", *(f"      - '{domain}'" for domain in domains)] if domains else []
    return "\n".join(lines) + "\n"


def _subnets(parts: Mapping[str, str]) -> list[str]:
    lines = []
    if parts.get("ip") == "dhcp":
        lines += ["      - type: dhcp4"]
    elif "ip" in parts:
        face = ipaddress.ip_interface(parts["ip"])
        lines += ["      - type: static", f"        address: '{face.ip}'", f"        netmask: '{face.netmask}'"]
        lines += [f"        gateway: '{parts['gw']}'"] if "gw" in parts else []
    if parts.get("ip6") in ("dhcp", "auto"):
        lines += ["      - type: dhcp6"]
    elif "ip6" in parts:
        lines += ["      - type: static6", f"        address: '{parts['ip6']}'"]
        lines += [f"        gateway: '{parts['gw6']}'"] if "gw6" in parts else []
    return lines


def pending(call: Call) -> list[dict[str, Any]]:
    """GET …/cloudinit: what is set, and what of it the drive does not have yet."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    now = machine.shown()
    written = call.house.shelf(_WRITTEN).get(str(machine.vmid))
    old = now if written is None else {**written, **({"cipassword": "**********"} if "cipassword" in written else {})}
    found: list[dict[str, Any]] = []
    for key in _OPTIONS:
        before, after = old.get(key), now.get(key)
        if after and before is None:
            found.append({"key": key, "pending": after})
        elif after:
            found.append({"key": key, "value": before, **({"pending": after} if before != after else {})})
        elif before:
            found.append({"key": key, "value": before, "delete": 1})
    return found


def regenerate(call: Call) -> None:
    """PUT …/cloudinit: writes the drive now, where there is one."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    with call.house.machines.locked(call.vmid):
        if has_drive(machine):
            write(call.house, machine)


def dump(call: Call) -> str:
    """GET …/cloudinit/dump: what the drive would hold."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    return texts(call.house, machine)[call.text("type")]
