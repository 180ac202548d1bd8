"""Every name and address that the bench takes on this machine; cleaning up needs nothing but these."""

from __future__ import annotations

from pathlib import Path

NAMESPACE = "fo-bench"
"""Network namespace of the bench; each machine has ``fo-bench-<vmid>``."""
BRIDGE = "br0"
CGROUP = "fo-bench"
"""Below the root of every cgroup hierarchy."""
PREFIX = 24
GATEWAY = "10.77.0.1"
"""Gateway, name server and the whole internet of the machines."""
PROXMOX = "10.77.0.2"
SUBNET = "10.77.0.0/24"
CGROUPS = Path("/sys/fs/cgroup")
NETNS = Path("/run/netns")
RESOLV = Path("/etc/netns") / NAMESPACE
"""What ``ip netns exec`` puts over files of /etc."""


def namespace(vmid: int) -> str:
    return f"{NAMESPACE}-{vmid}"
