"""The machines of the lab: from power-on through cloud-init to a host that answers over SSH."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.guests import AgentSilentError, Hardware
from funoffshore.lab.hosts import agent, blocks, cloudinit, disks, kernel, skeleton, sshd
from funoffshore.lab.hosts import programs as image
from funoffshore.lab.hosts.api import Machine, Program, Service
from funoffshore.lab.hosts.files import Files
from funoffshore.lab.hosts.machine import Host
from funoffshore.lab.hosts.systemd import Units

BUCKET = "hosts"
BOOTING, EARLY, DONE = "booting", "early", "done"


class GuestAgent:
    """Service ``qemu-ga``: being active is all it does; ``Hosts.agent`` answers for it."""

    def start(self, machine: Machine, argv: list[str], ready: Callable[[], None], ended: Callable[[int], None]) -> None:
        ready()

    def stop(self, machine: Machine) -> None:
        """Nothing to end."""


class Hosts:
    """Runs the lab's virtual machines; what a hypervisor needs is ``guests.Guests``.

    The disks are folders below ``hosts/`` of the lab. A machine that had power when the lab's process ended comes
    back at its next ``power_on`` as it was: same boot, no waiting. The guest agent answers where cloud-init installed
    it, and on machines whose image has ``agent`` in its file name, which stands for one that was built with it.
    """

    def __init__(
        self,
        kit: Kit,
        ssh_port_default: int = 22,
        *,
        programs: dict[str, Program] | None = None,
        services: dict[str, Service] | None = None,
    ) -> None:
        self._kit = kit
        self._door = sshd.Door()
        self._programs: dict[str, Program] = {**image.PROGRAMS, **kernel.PROGRAMS, **(programs or {})}
        self._services: dict[str, Service] = {
            "sshd": sshd.Sshd(self._door, ssh_port_default),
            "qemu-ga": GuestAgent(),
            **(services or {}),
        }
        self._hosts: dict[int, Host] = {}
        self._lock = threading.RLock()
        self._boots = ThreadPoolExecutor(4, thread_name_prefix="lab-boot")
        self._closed = False

    def register_program(self, name: str, program: Program) -> None:
        """What files that begin with ``#!funoffshore-lab <name>`` do when they are run."""
        self._programs[name] = program

    def register_service(self, name: str, service: Service) -> None:
        """What such a file does as a unit's ExecStart."""
        self._services[name] = service

    def host(self, name: str) -> Host | None:
        """The running machine with that hostname."""
        with self._lock:
            return next((host for host in self._hosts.values() if host.up and host.name == name), None)

    def at(self, address: str) -> Host | None:
        """The running machine with that address."""
        return next((host for host in self.running() if host.address == address), None)

    def running(self) -> list[Host]:
        """Every machine whose user land runs."""
        with self._lock:
            return [host for host in self._hosts.values() if host.up]

    def prepare(self, hardware: Hardware, lay: Callable[[Host], None]) -> None:
        """Lets ``lay`` write on the disk of a machine that is off."""
        lay(self._new(hardware))

    def power_on(self, hardware: Hardware) -> None:
        """Does nothing for a machine that is on."""
        with self._lock:
            if self._closed or hardware.vmid in self._hosts:
                return
            kept = self._kit.store.get(BUCKET, str(hardware.vmid)) or {}
            host = self._new(hardware)
            self._hosts[hardware.vmid] = host
        phase = kept.get("phase", BOOTING) if kept.get("on") else BOOTING
        self._keep(host, phase)
        if phase == BOOTING:
            self._later(host, self._kit.latencies.boot, self._boot)
        else:
            self._resume(host, phase)

    def _new(self, hardware: Hardware) -> Host:
        root = self._kit.directory / "hosts" / str(hardware.vmid) / "root"
        root.mkdir(parents=True, exist_ok=True)
        host = Host(self._kit, hardware, root, self._programs, self._services)
        host.units = Units(host)
        host.neighbours = self.at
        host.power_cycle = lambda: self._later(host, 0, self._reboot)
        return host

    def _keep(self, host: Host, phase: str, *, on: bool = True) -> None:
        kept: dict[str, Any] = {"on": on, "phase": phase, "hardware": asdict(host.hardware)}
        kept["hardware"]["seed"] = str(host.hardware.seed or "")
        self._kit.store.put(BUCKET, str(host.vmid), kept)

    def _later(self, host: Host, delay: float, work: Callable[[Host], None]) -> None:
        """``work`` on a thread of its own after ``delay`` lab seconds, unless the power is gone by then."""

        def hand_over() -> None:
            if not self._closed and not host.gone.is_set():
                with contextlib.suppress(RuntimeError):  # the lab is being stopped at this very moment
                    self._boots.submit(self._guarded, host, work)

        if delay:
            self._kit.clock.after(delay, hand_over)
        else:
            hand_over()

    def _guarded(self, host: Host, work: Callable[[Host], None]) -> None:
        if self._closed or host.gone.is_set():
            return
        try:
            work(host)
        except Exception as why:  # a boot that fails leaves a machine that does not answer, and says so on its disk
            host.files.write("/var/log/lab-panic.log", f"{type(why).__name__}: {why}\n")
            raise

    def _boot(self, host: Host) -> None:
        if not host.files.exists("/etc/os-release"):
            skeleton.lay(host.files, list(image.PROGRAMS))
            if "agent" in host.hardware.image.rpartition("/")[2]:
                cloudinit.bring_agent(host)
        skeleton.start_kernel(host.files, host.hardware)
        blocks.boot(host)
        host.write_ports()
        more = cloudinit.early(host)
        if more:
            self._keep(host, EARLY)
        self._go_up(host)
        if more:
            self._later(host, self._kit.latencies.cloud_init, self._finish)
        elif not host.gone.is_set():
            self._keep(host, DONE)

    def _finish(self, host: Host) -> None:
        cloudinit.late(host)
        if not host.gone.is_set():
            self._keep(host, DONE)

    def _resume(self, host: Host, phase: str) -> None:
        """The same boot goes on after the lab's process was gone for a while."""
        host.write_ports()
        blocks.show(host)
        cloudinit.raise_network(host)
        self._go_up(host)
        if phase == EARLY:
            self._later(host, self._kit.latencies.cloud_init, self._finish)

    def _go_up(self, host: Host) -> None:
        if not host.gone.is_set():
            host.up = True
            host.units.start_enabled()

    def power_off(self, vmid: int) -> None:
        """Nothing of the machine answers any more when this returns."""
        with self._lock:
            host = self._hosts.pop(vmid, None)
        if host is None:
            return
        self._halt(host)
        self._keep(host, BOOTING, on=False)

    def _halt(self, host: Host) -> None:
        host.up = False
        host.gone.set()
        host.units.stop_all()
        for cut in list(host.sessions):
            cut()

    def shut_down(self, vmid: int) -> None:
        """A machine that is still booting has nobody to hear the button."""
        with self._lock:
            host = self._hosts.get(vmid)
        if host is not None and host.up:
            self._later(host, self._kit.latencies.task, lambda host: self.power_off(host.vmid))

    def _reboot(self, host: Host) -> None:
        self.power_off(host.vmid)
        self.power_on(host.hardware)

    def resize(self, vmid: int, disk_gib: float, data_disk_gib: float = 0.0) -> None:
        """Larger disks under a running guest, which sees them at once. Does nothing for a machine that is off."""
        with self._lock:
            host = self._hosts.get(vmid)
        if host is not None:
            host.hardware = replace(host.hardware, disk_gib=disk_gib, data_disk_gib=data_disk_gib)
            kept = self._kit.store.get(BUCKET, str(vmid)) or {}
            self._keep(host, kept.get("phase", BOOTING))
            if host.up:
                blocks.show(host)

    def is_on(self, vmid: int) -> bool:
        with self._lock:
            return vmid in self._hosts

    def destroy(self, vmid: int) -> None:
        self.power_off(vmid)
        shutil.rmtree(self._kit.directory / "hosts" / str(vmid), ignore_errors=True)
        self._kit.store.delete(BUCKET, str(vmid))
        self._kit.store.delete("host-owners", str(vmid))

    def save_disks(self, vmid: int, target: Path) -> None:
        """The content of the machine's disks into one file, whether it is on or off."""
        root = self._kit.directory / "hosts" / str(vmid) / "root"
        if root.is_dir():
            disks.save(Files(root, self._kit.store, vmid), target)

    def load_disks(self, vmid: int, source: Path) -> None:
        """The content back onto the disks of a machine that is off. Does nothing where there is no such file."""
        if source.is_file():
            disks.load(self._kit.directory / "hosts" / str(vmid) / "root", self._kit.store, vmid, source)

    def agent(self, vmid: int, command: str, arguments: dict[str, Any]) -> object:
        """The guest agent's own answer, without the ``result`` that Proxmox wraps around it."""
        with self._lock:
            host = self._hosts.get(vmid)
        if host is None or not host.up or not host.hardware.agent:
            raise AgentSilentError("QEMU guest agent is not running")
        if host.units.unit("qemu-guest-agent").active != "active":
            raise AgentSilentError("QEMU guest agent is not running")
        return agent.answer(host, command, arguments)

    def stop(self) -> None:
        """Nothing listens any more. What had power has it again at the next ``power_on``."""
        with self._lock:
            self._closed = True
            hosts, self._hosts = list(self._hosts.values()), {}
        for host in hosts:
            self._halt(host)
        self._door.close()
        self._boots.shutdown(wait=True, cancel_futures=True)

    close = stop
