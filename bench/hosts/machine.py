"""One machine: real systemd as PID 1 in a container of systemd-nspawn, in its own namespaces and cgroups."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from bench.hosts import cgroup, names, network, seed
from bench.hosts.agent import Agent
from bench.hosts.disk import DataDisk, Disk
from funoffshore.lab.guests import Hardware

REBOOT = 133
"""How nspawn ends when the machine asked for a reboot."""
_ENTER = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
_POWER_OFF = signal.SIGRTMIN + 4
"""systemd(1): what makes it power off."""
_ENVIRONMENT = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}


@dataclass(frozen=True, slots=True)
class Shared:
    """What all machines see: each folder at its path inside."""

    binaries: Path
    """Folder at /opt/bench/bin: what the stand-in of K3s runs."""
    nfs: Path
    """Folder at /srv/nfs, in place of an NFS server."""


class Machine:
    """A machine with power. ``folder`` keeps its disk while it has none."""

    def __init__(self, folder: Path, hardware: Hardware, shared: Shared) -> None:
        self.hardware = hardware
        self.agent = Agent(folder / "qga" / "qga.sock")
        self._folder = folder
        self._shared = shared
        self._disk = Disk(folder)
        self._data = DataDisk(folder)
        self._data_device = ""
        self._gone = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._live, name=f"machine-{hardware.vmid}", daemon=True)

    @property
    def on(self) -> bool:
        return self._thread.is_alive()

    def power_on(self, lower: Path) -> None:
        """Mounts, cables, and the first process. Raises ValueError, CommandError."""
        hardware = self.hardware
        self._disk.attach(lower, hardware.disk_gib)
        seed.insert(self._disk.root, hardware.seed)
        network.plug_in(hardware.vmid, hardware.macs[0] if hardware.macs else "02:00:00:00:00:01")
        board = self._folder / "board"
        for folder in (board, self._folder / "qga"):
            folder.mkdir(exist_ok=True)
        (board / "product_uuid").write_text(hardware.uuid + "\n")
        self._data_device = self._data.attach(hardware.data_disk_gib) if hardware.data_disk_gib else ""
        (board / "data_disk").write_text(self._data_device)
        self._thread.start()

    def _live(self) -> None:
        """Runs until the machine powers off by itself or somebody pulls the plug; a reboot is a new beginning."""
        with (self._folder / "console.log").open("ab") as console:
            while not self._gone.is_set():
                groups = [str(folder) for folder in cgroup.create(self.hardware.vmid)]
                self._process = subprocess.Popen(
                    ["sh", "-c", _ENTER, "sh", *groups, "--", *self._argv()],
                    stdin=subprocess.DEVNULL, stdout=console, stderr=console, env={**os.environ, **_ENVIRONMENT},
                    start_new_session=True,
                )  # fmt: skip
                if self._process.wait() != REBOOT:
                    break
                cgroup.kill(str(self.hardware.vmid))
        if not self._gone.is_set():
            self._clear()

    def _argv(self) -> list[str]:
        hardware, disk, shared = self.hardware, self._disk, self._shared
        binds: dict[str | Path, str] = {
            "/dev/kmsg": "/dev/kmsg",
            disk.mount / "kubelet": "/var/lib/kubelet",
            disk.mount / "containerd": "/var/lib/containerd",
            shared.nfs: "/srv/nfs",
            self._folder / "qga": "/run/qga",
        }
        if self._data_device:
            device = Path("/dev") / self._data_device
            binds[device] = str(device)
        else:
            binds[disk.mount / "rancher"] = "/var/lib/rancher"
        read_only = {shared.binaries: "/opt/bench/bin", self._folder / "board": "/run/bench"}
        return [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--boot", "--notify-ready=no",
            f"--directory={disk.root}", f"--machine={hardware.name}", f"--uuid={hardware.uuid.replace('-', '')}",
            f"--network-namespace-path={names.NETNS / names.namespace(hardware.vmid)}",
            "--capability=all", "--system-call-filter=add_key keyctl bpf @keyring syslog", "--resolv-conf=off",
            *(f"--bind={outside}:{inside}" for outside, inside in binds.items()),
            *(f"--bind-ro={outside}:{inside}" for outside, inside in read_only.items()),
        ]  # fmt: skip

    def power_off(self) -> None:
        """Pulls the plug. Nothing of the machine runs when this returns; its disk stays."""
        self._gone.set()
        cgroup.kill(str(self.hardware.vmid))
        if self._thread.ident is not None:
            self._thread.join(timeout=cgroup.PATIENCE)
        self._clear()

    def _clear(self) -> None:
        cgroup.kill(str(self.hardware.vmid))
        self._disk.detach()
        self._data.detach()
        network.unplug(self.hardware.vmid)

    def press_button(self) -> None:
        """Asks systemd inside to power off; a machine that is still booting may not hear it."""
        process = self._process
        if process is None:
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError, ProcessLookupError):
            for pid in children.read_text().split():
                os.kill(int(pid), _POWER_OFF)

    def destroy(self) -> None:
        """Removes the disk. The machine must be off."""
        shutil.rmtree(self._folder)
