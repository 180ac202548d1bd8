"""Copies of the etcd snapshots on NFS: units of systemd on every server. Pure.

K3s itself writes to the local disk only: a snapshot folder on NFS would hang its datastore whenever the NAS does. So a
timer copies what is new; a NAS that is away fails the copy and nothing else (systemd.mount(5), systemd.timer(5)).
"""

from __future__ import annotations

from funoffshore.config import ClusterConfig

MOUNT = "/mnt/fosnapshots"
SNAPSHOTS = "/var/lib/rancher/k3s/server/db/snapshots"
MOUNT_UNIT = "mnt-fosnapshots.mount"
SERVICE = "fo-etcd-copies.service"
TIMER = "fo-etcd-copies.timer"
HELPER = "/sbin/mount.nfs"
"""What mount(8) calls; Debian's package nfs-common brings it."""
_FOLDER = "/etc/systemd/system"


def units(config: ClusterConfig) -> dict[str, str]:
    """Path → text of the units; empty when no NFS export is named."""
    export = config.k3s.snapshots.nfs
    if not export:
        return {}
    return {
        f"{_FOLDER}/{MOUNT_UNIT}": _mount(export),
        f"{_FOLDER}/{SERVICE}": _service(config),
        f"{_FOLDER}/{TIMER}": _timer(),
    }


def _mount(export: str) -> str:
    return f"""\
# Written by fo.
[Unit]
Description=NFS export for copies of etcd snapshots

[Mount]
What={export}
Where={MOUNT}
Type=nfs
Options=soft,timeo=100,retrans=2,nosuid,nodev,noexec
TimeoutSec=60
"""


def _service(config: ClusterConfig) -> str:
    target = f"{MOUNT}/{config.name}"
    keep = config.k3s.snapshots.keep * max(1, len(config.controllers))
    copy = f"umask 077 && mkdir -p {target} && cp --update --preserve=timestamps {SNAPSHOTS}/. {target}/ -R"
    prune = f"ls -1t {target} | tail -n +{keep + 1} | while read -r old; do rm -f -- {target}/$old; done"
    return f"""\
# Written by fo.
[Unit]
Description=Copy etcd snapshots to NFS
RequiresMountsFor={MOUNT}
ConditionPathExists={SNAPSHOTS}

[Service]
Type=oneshot
ExecStart=/bin/sh -c '{copy}'
ExecStart=/bin/sh -c '{prune.replace("$", "$$")}'
"""


def _timer() -> str:
    return f"""\
# Written by fo.
[Unit]
Description=Copy etcd snapshots to NFS every half hour

[Timer]
OnCalendar=*:0/30
RandomizedDelaySec=120
Persistent=true
Unit={SERVICE}

[Install]
WantedBy=timers.target
"""
