"""What is in the image: packages, and what is changed in a fresh tree. Pure data and file work in a folder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

RELEASE = "bookworm"
TREE = Path(__file__).parent / "tree"
PACKAGES = (
    "ca-certificates", "cloud-init", "conntrack", "containernetworking-plugins", "curl", "dbus", "ethtool",
    "iproute2", "iptables", "iputils-ping", "kmod", "less", "netbase", "nfs-common", "nftables", "openssh-server",
    "procps", "python3-minimal", "qemu-guest-agent", "runc", "socat", "sudo", "systemd", "systemd-sysv", "tzdata",
    "udev",
)  # fmt: skip
MASKED = (
    "apt-daily-upgrade.timer", "apt-daily.timer", "cloud-init-hotplugd.socket", "dev-hugepages.mount",
    "dev-mqueue.mount", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "getty-static.service", "getty@tty1.service", "ldconfig.service", "modprobe@drm.service",
    "modprobe@efi_pstore.service", "modprobe@fuse.service", "networking.service", "nfs-blkmap.service",
    "nfs-client.target", "remote-fs.target", "rpcbind.service", "rpcbind.socket", "serial-getty@hvc0.service",
    "serial-getty@ttyS0.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-firstboot.service",
    "systemd-fsck-root.service", "systemd-hwdb-update.service", "systemd-journal-catalog-update.service",
    "systemd-machine-id-commit.service", "systemd-networkd-wait-online.service", "systemd-pstore.service",
    "systemd-random-seed.service", "systemd-timesyncd.service", "systemd-udev-settle.service",
    "systemd-update-done.service", "systemd-update-utmp-runlevel.service", "systemd-update-utmp.service",
)  # fmt: skip
"""Units that a container cannot run, or that only cost time."""
WANTED = {
    "systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
    "qemu-guest-agent.service": "/etc/systemd/system/qemu-guest-agent.service",
}
_DROPPED = (
    "boot", "etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/apt.conf.d/99mmdebstrap", "usr/share/doc",
    "usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists", "var/log/apt", "var/log/dpkg.log",
    "etc/resolv.conf", "etc/hostname",
)  # fmt: skip
_FOLDERS = (
    "boot", "etc/apt/sources.list.d", "opt/bench/bin", "run/bench", "srv/nfs", "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial", "var/lib/containerd", "var/lib/kubelet", "var/lib/rancher",
)  # fmt: skip


def finish(root: Path, authority: bytes) -> None:
    """Makes an unpacked Debian into the bench's image. ``authority``: the bench's CA in PEM, to be trusted."""
    for name in _DROPPED:
        _drop(root / name)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree(TREE, root, dirs_exist_ok=True, symlinks=True)
    (root / "etc/fstab").write_text("")
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text("machine\n")
    (root / "etc/resolv.conf").write_text("nameserver 10.77.0.1\n")
    _units(root)
    trusted = root / "usr/local/share/ca-certificates/bench.crt"
    trusted.parent.mkdir(parents=True, exist_ok=True)
    trusted.write_bytes(authority)
    _inside(root, "update-ca-certificates")
    _inside(root, "ldconfig")
    _inside(root, "systemd-hwdb", "update")
    for stamp in ("etc/.updated", "var/.updated"):
        (root / stamp).touch()


def _units(root: Path) -> None:
    units = root / "etc/systemd/system"
    for name in MASKED:
        _link(units / name, "/dev/null")
    for name, target in WANTED.items():
        _link(units / "multi-user.target.wants" / name, target)
    _link(units / "sysinit.target.wants/bench-machine.service", "/etc/systemd/system/bench-machine.service")
    _link(units / "default.target", "/lib/systemd/system/multi-user.target")


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _drop(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _inside(root: Path, *argv: str) -> None:
    subprocess.run(["chroot", root, *argv], check=True, capture_output=True)
