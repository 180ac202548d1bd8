"""The bench's network: one namespace with a bridge, and one namespace for each machine."""

from __future__ import annotations

from bench.hosts import names
from bench.hosts.commands import run


def create() -> None:
    """Makes namespace and bridge, with the addresses of gateway and Proxmox on it."""
    space = names.NAMESPACE
    run("ip", "netns", "add", space)
    run("ip", "-n", space, "link", "set", "lo", "up")
    run("ip", "-n", space, "link", "add", names.BRIDGE, "type", "bridge")
    for address in (names.GATEWAY, names.PROXMOX):
        run("ip", "-n", space, "addr", "add", f"{address}/{names.PREFIX}", "dev", names.BRIDGE)
    run("ip", "-n", space, "link", "set", names.BRIDGE, "up")
    names.RESOLV.mkdir(parents=True, exist_ok=True)
    (names.RESOLV / "resolv.conf").write_text(f"nameserver {names.GATEWAY}\n")


def plug_in(vmid: int, mac: str) -> None:
    """Gives a machine its namespace and a cable to the bridge. Its card is ``eth0``."""
    space, port = names.namespace(vmid), f"tap{vmid}"
    unplug(vmid)
    run("ip", "netns", "add", space)
    run("ip", "-n", space, "link", "set", "lo", "up")
    run(
        "ip", "link", "add", port, "netns", names.NAMESPACE, "type", "veth",
        "peer", "name", "eth0", "netns", space, "address", mac.lower(),
    )  # fmt: skip
    run("ip", "-n", names.NAMESPACE, "link", "set", port, "master", names.BRIDGE, "up")


def unplug(vmid: int) -> None:
    """Removes the machine's namespace, and the cable with it."""
    if (names.NETNS / names.namespace(vmid)).exists():
        run("ip", "netns", "del", names.namespace(vmid))
