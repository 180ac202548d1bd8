"""cloud-init on a host: once per instance id, in the two halves that matter to who waits outside.

``early`` ends before sshd starts: network, host keys, users, files. ``late`` ends it all: packages, commands.
Module names, files and the answers of ``cloud-init status`` are those of cloud-init 22 to 25.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from funoffshore.lab.hosts import blocks, seed, shell, skeleton
from funoffshore.lab.hosts.machine import Host, Session

DISABLED = "/etc/cloud/cloud-init.disabled"
INSTANCE = "/var/lib/cloud/data/instance-id"
NETPLAN = "/etc/netplan/50-cloud-init.yaml"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
USER_DATA = "/var/lib/cloud/instance/user-data.json"
"""Keeps the parsed user-data between the halves, so that a lab that was killed in between can go on."""
KNOWN = frozenset({
    "hostname", "fqdn", "prefer_fqdn_over_hostname", "preserve_hostname", "manage_etc_hosts", "timezone", "locale",
    "users", "groups", "ssh_keys", "ssh_authorized_keys", "ssh_deletekeys", "ssh_genkeytypes", "ssh_pwauth",
    "disable_root", "package_update", "package_upgrade", "packages", "write_files", "runcmd", "bootcmd", "growpart",
    "resize_rootfs", "ntp", "final_message", "power_state", "chpasswd", "package_reboot_if_required", "swap",
    "user", "password", "manage_resolv_conf", "resolv_conf", "keyboard", "no_ssh_fingerprints", "ssh",
    "disk_setup", "fs_setup", "mounts",
})  # fmt: skip


def report(host: Host, *, stage: str | None, errors: Iterable[str], done: bool) -> None:
    """``/run/cloud-init``: status.json all along, result.json at the end."""
    found = list(errors)
    host.files.write("/run/cloud-init/status.json", json.dumps({"v1": {"stage": stage, "errors": found}}))
    if done:
        result = {"v1": {"datasource": "DataSourceNoCloud [seed=/dev/sr0]", "errors": found}}
        host.files.write("/run/cloud-init/result.json", json.dumps(result))
        host.files.write("/var/lib/cloud/instance/boot-finished", f"{host.kit.clock.now():.0f}\n")


def status(host: Host) -> dict[str, Any]:
    """What ``cloud-init status --format json`` prints."""
    state, detail, errors = "not started", "", list[str]()
    begun = host.files.read("/run/cloud-init/status.json")
    if host.files.exists(DISABLED):
        state, detail = "disabled", f"Cloud-init disabled by {DISABLED}"
    elif host.files.exists("/run/cloud-init/disabled"):
        state, detail = "disabled", "Cloud-init disabled by cloud-init-generator"
    elif begun:
        errors = json.loads(begun)["v1"]["errors"]
        finished = host.files.exists("/run/cloud-init/result.json")
        state = "error" if errors else "done" if finished else "running"
        detail = "DataSourceNoCloud [seed=/dev/sr0]" if finished else "Running in stage: modules-final"
    return {
        "status": state,
        "extended_status": state,
        "detail": detail,
        "errors": errors,
        "recoverable_errors": {},
        "datasource": "nocloud" if begun else "",
        "boot_status_code": "disabled-by-marker-file" if host.files.exists(DISABLED) else "enabled-by-generator",
    }


def early(host: Host) -> bool:
    """Whether ``late`` has to follow. Reads the seed; does nothing for an instance that was set up before."""
    found = None if host.files.exists(DISABLED) or host.hardware.seed is None else seed.read(host.hardware.seed)
    if found is None:
        # ds-identify turns cloud-init off where no datasource is found.
        host.files.write("/run/cloud-init/disabled", "")
    elif host.files.read(INSTANCE).strip() == found.instance:
        report(host, stage=None, errors=[], done=True)
        found = None
    else:
        set_up(host, found)
    if not host.files.exists("/run/cloud-init/disabled") and not host.files.exists(DISABLED):
        blocks.fill_root(host)
    if not host.files.exists(HOST_KEY):
        generate_host_key(host)
    raise_network(host)
    return found is not None


def set_up(host: Host, found: seed.Seed) -> None:
    """Everything of a new instance that sshd needs to find."""
    errors = list(found.complaints)
    user = found.user
    report(host, stage="init", errors=errors, done=False)
    host.files.write(NETPLAN, yaml.safe_dump({"network": dict(found.network)}), 0o600)
    resolvers(host, found.network)
    name = str(user.get("hostname") or user.get("fqdn") or found.meta.get("local-hostname") or "localhost")
    host.files.write("/etc/hostname", name.split(".")[0] + "\n")
    if user.get("manage_etc_hosts"):
        host.files.write("/etc/hosts", f"127.0.1.1 {user.get('fqdn', name)} {name}\n127.0.0.1 localhost\n")
    for step in (disk_setup, host_keys, users, write_files, timezone):
        try:
            step(host, user)
        except (ValueError, TypeError, AttributeError, KeyError, OSError) as why:
            errors.append(f"('{step.__name__}', {type(why).__name__}('{why}'))")
    unknown = sorted(set(user) - KNOWN)
    log = "".join(f"[WARNING]: Unhandled key {key} in cloud-config\n" for key in unknown)
    host.files.write("/var/log/cloud-init.log", log + "".join(f"[ERROR]: {line}\n" for line in errors))
    kept = {"instance": found.instance, "user": dict(user), "errors": errors}
    host.files.write(USER_DATA, json.dumps(kept, default=str), 0o600)
    report(host, stage="modules-config", errors=errors, done=False)


def disk_setup(host: Host, user: Mapping[str, Any]) -> None:
    """cc_disk_setup and cc_mounts: whole disks, of which ``partition: any`` formats only a blank one."""
    for wanted in user.get("fs_setup") or []:
        device = f"/dev/{blocks.device_name(host, wanted['device'])}"
        if device == "/dev/":
            raise ValueError(f"Device {wanted['device']} did not exist and was not created with a udevadm settle.")
        partition = str(wanted.get("partition", "any"))
        blank = not host.files.path(device).read_bytes().strip(b"\0")
        if blank or partition == "none" or wanted.get("overwrite"):
            result = host.run([f"mkfs.{wanted['filesystem']}", "-F", "-L", str(wanted.get("label", "")), device])
            if result.code:
                raise ValueError(f"Failed to exec of mkfs: {result.err.decode()}")
    lines = [[str(field) for field in fields] for fields in user.get("mounts") or []]
    if lines:
        new = "".join("\t".join([*f[:3], f"{f[3]},comment=cloudconfig", *f[4:]]) + "\n" for f in lines)
        host.files.write("/etc/fstab", host.files.read("/etc/fstab") + new)
        host.run(["mount", "-a"])


def host_keys(host: Host, user: Mapping[str, Any]) -> None:
    """cc_ssh: given keys are written as they are, and then no other is generated."""
    given = user.get("ssh_keys") or {}
    if user.get("ssh_deletekeys", True):
        for old in list(host.path("/etc/ssh").glob("ssh_host_*key*")):
            old.unlink()
    for key, text in given.items():
        kind, _, part = str(key).rpartition("_")
        suffix, mode = (".pub", 0o644) if part == "public" else ("", 0o600)
        host.files.write(f"/etc/ssh/ssh_host_{kind}_key{suffix}", str(text).rstrip("\n") + "\n", mode)


def generate_host_key(host: Host) -> None:
    """What ``ssh-keygen -A`` makes, of which only ed25519 is offered here."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    host.files.write(HOST_KEY, private, 0o600)
    host.files.write(HOST_KEY + ".pub", public + b"\n", 0o644)


def users(host: Host, user: Mapping[str, Any]) -> None:
    """cc_users_groups: without ``users`` there is the distribution's default user, who gets the top-level keys.

    ``user`` gives that one another name.
    """
    keys = [str(key) for key in user.get("ssh_authorized_keys") or []]
    for wanted in user.get("users") or ["default"]:
        if wanted == "default":
            named = user.get("user") or "debian"
            default = {
                **(named if isinstance(named, dict) else {"name": named}),
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "shell": "/bin/bash",
            }
            add_user(host, {**default, "ssh_authorized_keys": keys})
        else:
            own = [*(wanted.get("ssh_authorized_keys") or []), *(wanted.get("ssh-authorized-keys") or [])]
            add_user(host, {**wanted, "ssh_authorized_keys": own})


def add_user(host: Host, wanted: Mapping[str, Any]) -> None:
    files, name = host.files, str(wanted["name"])
    lines = files.read("/etc/passwd").splitlines()
    if name not in [line.split(":")[0] for line in lines]:
        uid = 1000 + sum(1000 <= int(line.split(":")[2]) < 60000 for line in lines)
        home = str(wanted.get("homedir") or f"/home/{name}")
        shell_ = wanted.get("shell", "/bin/sh")
        entry = f"{name}:x:{uid}:{uid}:{wanted.get('gecos', '')}:{home}:{shell_}\n"
        files.write("/etc/passwd", files.read("/etc/passwd") + entry)
        files.write("/etc/group", files.read("/etc/group") + f"{name}:x:{uid}:\n")
        files.make_folders(home)
        files.chown(files.path(home), uid, uid)
    entry = next(line for line in files.read("/etc/passwd").splitlines() if line.split(":")[0] == name)
    uid, home = int(entry.split(":")[2]), entry.split(":")[5]
    sudo = wanted.get("sudo")
    if sudo:
        rules = [sudo] if isinstance(sudo, str) else [str(rule) for rule in sudo]
        old = files.read("/etc/sudoers.d/90-cloud-init-users")
        text = old + "".join(f"{name} {rule}\n" for rule in rules)
        files.write("/etc/sudoers.d/90-cloud-init-users", text, 0o440)
    if wanted["ssh_authorized_keys"]:
        files.make_folders(f"{home}/.ssh", 0o700)
        files.chown(files.path(f"{home}/.ssh"), uid, uid)
        keys = "".join(f"{str(key).strip()}\n" for key in wanted["ssh_authorized_keys"])
        files.write(f"{home}/.ssh/authorized_keys", keys, 0o600, uid, uid)


def write_files(host: Host, user: Mapping[str, Any]) -> None:
    for item in user.get("write_files") or []:
        mode = item.get("permissions", "0644")
        content = decoded(item)
        if item.get("append"):
            content = host.files.read(item["path"]).encode() + content
        host.files.write(item["path"], content, mode if isinstance(mode, int) else int(str(mode), 8))


def decoded(item: Mapping[str, Any]) -> bytes:
    """Encodings of cc_write_files; raises ValueError for one that is not what it says."""
    content = item.get("content", "")
    raw = content if isinstance(content, bytes) else str(content).encode()
    encoding = str(item.get("encoding", "text/plain")).lower()
    try:
        if "b64" in encoding or "base64" in encoding:
            raw = base64.b64decode(raw)
        return gzip.decompress(raw) if encoding.startswith("gz") else raw
    except (binascii.Error, OSError) as why:
        raise ValueError(str(why)) from None


def timezone(host: Host, user: Mapping[str, Any]) -> None:
    if user.get("timezone"):
        host.files.write("/etc/timezone", f"{user['timezone']}\n")


def raise_network(host: Host) -> None:
    """The first static IPv4 address of an interface whose MAC is ours, from the netplan of the first boot."""
    loaded = yaml.safe_load(host.files.read(NETPLAN) or "{}") or {}
    for address, prefix, gateway in addresses(loaded.get("network") or {}, host.hardware.macs):
        host.address, host.prefix = address, prefix
        skeleton.route(host.files, gateway)
        return
    host.address = ""
    skeleton.route(host.files, "")


def resolvers(host: Host, network: Mapping[str, Any]) -> None:
    """``/etc/resolv.conf`` from versions 2 and 1 of the network configuration."""
    found: dict[str, list[str]] = {"addresses": [], "search": []}
    told = [face.get("nameservers") or {} for face in (network.get("ethernets") or {}).values()]
    for item in network.get("config") or []:
        if item.get("type") == "nameserver":
            told.append({"addresses": item.get("address"), "search": item.get("search")})
    for part in told:
        for key, known in found.items():
            known += [str(value) for value in part.get(key) or [] if str(value) not in known]
    lines = [f"nameserver {address}" for address in found["addresses"]]
    lines += [f"search {' '.join(found['search'])}"] if found["search"] else []
    host.files.write("/etc/resolv.conf", "".join(f"{line}\n" for line in lines))


def addresses(network: Mapping[str, Any], macs: tuple[str, ...]) -> Iterable[tuple[str, int, str]]:
    """(address, prefix, gateway) of versions 2 and 1 of the network configuration."""
    ours = {mac.lower() for mac in macs}
    for face in (network.get("ethernets") or {}).values():
        wanted = str((face.get("match") or {}).get("macaddress") or "").lower()
        if wanted and wanted not in ours:
            continue
        routes = face.get("routes") or []
        gateways = [r.get("via", "") for r in routes if r.get("to") in ("default", "0.0.0.0/0")]
        for address in face.get("addresses") or []:
            yield *split(str(address)), str(face.get("gateway4") or (gateways or [""])[0])
    for face in network.get("config") or []:
        if str(face.get("mac_address", "")).lower() in ("", *ours):
            for net in face.get("subnets") or []:
                if net.get("type") in ("static", "static4") and "address" in net:
                    address = f"{net['address']}/{net['netmask']}" if "netmask" in net else str(net["address"])
                    yield *split(address), str(net.get("gateway", ""))


def split(address: str) -> tuple[str, int]:
    """``10.0.0.3/24`` or ``10.0.0.3/255.255.255.0``; a bare address is taken for one of a /24."""
    face = ipaddress.ip_interface(address if "/" in address else f"{address}/24")
    return str(face.ip), face.network.prefixlen


def late(host: Host) -> None:
    """Packages and commands, then the end of it; a power cut before that makes the next boot begin anew."""
    kept = json.loads(host.files.read(USER_DATA))
    user, errors = kept["user"], list(kept["errors"])
    for package in user.get("packages") or []:
        add_package(host, package if isinstance(package, str) else str(package[0]))
    console = Session(host, "root", 0, outside=False)
    said = ""
    for command in [*(user.get("bootcmd") or []), *(user.get("runcmd") or [])]:
        if isinstance(command, list):
            result = console.run([str(word) for word in command])
        else:
            result = shell.run(console, str(command))
        said += (result.out + result.err).decode("utf-8", "replace")
        failed = result.code
    if (user.get("runcmd") or user.get("bootcmd")) and failed:
        # The script of all commands ends as its last one does (cc_scripts_user).
        errors.append("('scripts_user', RuntimeError('Runparts: 1 failures (runcmd) in 1 attempted commands'))")
    host.files.write("/var/log/cloud-init-output.log", said)
    if not host.gone.is_set():
        host.files.write(INSTANCE, f"{kept['instance']}\n")
        report(host, stage=None, errors=errors, done=True)


def add_package(host: Host, name: str) -> None:
    """Only the guest agent brings something along that anybody here would miss."""
    host.files.write(f"/var/lib/dpkg/info/{name}.list", "")
    if name == "qemu-guest-agent":
        bring_agent(host)
        host.units.start("qemu-guest-agent")


def bring_agent(host: Host) -> None:
    """The guest agent's files; it starts with the next boot."""
    host.files.write("/var/lib/dpkg/info/qemu-guest-agent.list", "")
    host.files.write("/usr/sbin/qemu-ga", "#!funoffshore-lab qemu-ga\n", 0o755)
    host.files.write("/usr/lib/systemd/system/qemu-guest-agent.service", skeleton.AGENT_UNIT)
    host.units.reload()
    host.units.enable("qemu-guest-agent")
