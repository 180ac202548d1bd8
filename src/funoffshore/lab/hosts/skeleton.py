"""What the cloud image brings along: a small Debian-like tree, and the parts of /proc and /sys that a boot makes."""

from __future__ import annotations

import uuid

from funoffshore.lab.guests import Hardware
from funoffshore.lab.hosts import kernel
from funoffshore.lab.hosts.files import Files

FOLDERS = (
    "/boot", "/dev", "/etc/cloud/cloud.cfg.d", "/etc/ssh/sshd_config.d", "/etc/sudoers.d", "/etc/sysctl.d",
    "/etc/modules-load.d", "/etc/systemd/system/multi-user.target.wants", "/etc/netplan", "/home", "/mnt", "/opt",
    "/usr/bin", "/usr/sbin", "/usr/lib/systemd/system", "/usr/local/bin", "/usr/local/sbin", "/usr/share", "/srv",
    "/var/cache", "/var/lib/cloud", "/var/log",
)  # fmt: skip
LINKS = {"/bin": "usr/bin", "/sbin": "usr/sbin", "/lib": "usr/lib"}

OS_RELEASE = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
"""
SSH_UNIT = """[Unit]
Description=OpenBSD Secure Shell server
After=network.target

[Service]
ExecStart=/usr/sbin/sshd -D
KillMode=process
Restart=on-failure
RestartPreventExitStatus=255
Type=notify

[Install]
WantedBy=multi-user.target
Alias=sshd.service
"""
AGENT_UNIT = """[Unit]
Description=QEMU Guest Agent

[Service]
ExecStart=/usr/sbin/qemu-ga
Restart=always
RestartSec=0

[Install]
WantedBy=multi-user.target
"""
KERNEL = "6.1.0-37-cloud-amd64"


def lay(files: Files, programs: list[str]) -> None:
    """A fresh disk from the image; ``programs`` get a file each in /usr/bin."""
    for folder in FOLDERS:
        files.make_folders(folder)
    for link, target in LINKS.items():
        files.root.joinpath(link[1:]).symlink_to(target)
    files.make_folders("/root", 0o700)
    files.make_folders("/tmp", 0o1777)  # noqa: S108  # the simulated host's own
    files.write("/etc/os-release", OS_RELEASE)
    files.write("/etc/debian_version", "12.11\n")
    files.write("/etc/hostname", "localhost\n")
    files.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n")
    files.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n")
    files.write("/etc/group", "root:x:0:\nsudo:x:27:\nadm:x:4:\nnogroup:x:65534:\n")
    files.write("/etc/shadow", "root:*:20000:0:99999:7:::\n", 0o640)
    files.write("/etc/sudoers", "@includedir /etc/sudoers.d\n", 0o440)
    files.write("/etc/ssh/sshd_config", "Include /etc/ssh/sshd_config.d/*.conf\nPasswordAuthentication no\n")
    files.write("/etc/fstab", "PARTUUID=lab / ext4 rw,discard,errors=remount-ro 0 1\n")
    files.write("/usr/lib/systemd/system/ssh.service", SSH_UNIT)
    for name in programs:
        files.write(f"/usr/bin/{name}", f"#!funoffshore-lab {name}\n", 0o755)
    files.write("/usr/sbin/sshd", "#!funoffshore-lab sshd\n", 0o755)
    files.path("/etc/systemd/system/multi-user.target.wants").joinpath("ssh.service").symlink_to(
        "/usr/lib/systemd/system/ssh.service"
    )


def start_kernel(files: Files, hardware: Hardware) -> None:
    """/proc, /sys and an empty /run, as a boot leaves them."""
    files.remove_tree("/run")
    files.make_folders("/run/systemd/timesync")
    files.write("/run/systemd/timesync/synchronized", "")
    if not files.read("/etc/machine-id").strip():
        files.write("/etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
    total = hardware.memory_mib * 1024
    files.write(
        "/proc/meminfo",
        f"MemTotal:       {total - total // 40} kB\nMemFree:        {total * 3 // 4} kB\n"
        f"MemAvailable:   {total * 4 // 5} kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n",
        0o444,
    )
    cpus = "".join(f"processor\t: {n}\nmodel name\t: QEMU Virtual CPU\n\n" for n in range(hardware.cores))
    files.write("/proc/cpuinfo", cpus, 0o444)
    files.write("/proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n", 0o444)
    files.write("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n", 0o444)
    files.write("/proc/modules", "virtio_net 81920 0 - Live\n", 0o444)
    files.write("/proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-{KERNEL} root=/dev/sda1 ro\n", 0o444)
    kernel.boot(files)
    files.write("/sys/class/dmi/id/product_uuid", f"{hardware.uuid}\n", 0o400)
    files.write("/sys/class/dmi/id/sys_vendor", "QEMU\n", 0o444)
    files.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n", 0o444)


def route(files: Files, gateway: str) -> None:
    """``/proc/net/route`` with the default route; proc(5): addresses in hex, host byte order."""
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    row = ""
    if gateway:
        encoded = bytes(int(part) for part in reversed(gateway.split("."))).hex().upper()
        row = f"eth0\t00000000\t{encoded}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
    files.write("/proc/net/route", head + row, 0o444)
