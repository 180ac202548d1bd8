"""The driver between the lab's Proxmox and real machines (``funoffshore.lab.guests.Guests``)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.hosts.commands import CommandError
from bench.hosts.disk import Images
from bench.hosts.machine import Machine, Shared
from funoffshore.lab.guests import AgentSilentError, Hardware


class RealGuests:
    """Makes and runs machines below ``folder``. ``find`` tells the file of a volume like ``local:import/x.qcow2``.

    A disk that grows is larger at the machine's next start; the running one does not notice.
    """

    def __init__(self, folder: Path, shared: Shared, find: Callable[[str], Path]) -> None:
        self._folder = folder
        self._shared = shared
        self._find = find
        self._images = Images(folder / "images")
        self._machines: dict[int, Machine] = {}
        self._lock = threading.RLock()

    def power_on(self, hardware: Hardware) -> None:
        """Raises ValueError with a message for the task log when the machine cannot start."""
        with self._lock:
            if self.is_on(hardware.vmid):
                return
            if not hardware.image:
                raise ValueError("the boot disk is empty: nothing was imported to it")
            machine = Machine(self._folder / str(hardware.vmid), hardware, self._shared)
            try:
                machine.power_on(self._images.mounted(self._find(hardware.image)))
            except (CommandError, OSError) as why:
                machine.power_off()
                raise ValueError(str(why)) from why
            self._machines[hardware.vmid] = machine

    def power_off(self, vmid: int) -> None:
        """Pulls the plug. Does nothing for a machine that is off."""
        with self._lock:
            machine = self._machines.pop(vmid, None)
        if machine is not None:
            machine.power_off()

    def shut_down(self, vmid: int) -> None:
        """Presses the button."""
        with self._lock:
            machine = self._machines.get(vmid)
        if machine is not None:
            machine.press_button()

    def is_on(self, vmid: int) -> bool:
        with self._lock:
            machine = self._machines.get(vmid)
            return machine is not None and machine.on

    def destroy(self, vmid: int) -> None:
        """Removes the machine's disks with all that is on them."""
        import shutil

        self.power_off(vmid)
        shutil.rmtree(self._folder / str(vmid), ignore_errors=True)

    def agent(self, vmid: int, command: str, arguments: dict[str, Any]) -> object:
        """What the real agent in the machine answers. Raises AgentSilentError, AgentError."""
        with self._lock:
            machine = self._machines.get(vmid)
        if machine is None or not machine.on or not machine.hardware.agent:
            raise AgentSilentError("QEMU guest agent is not running")
        return machine.agent.ask(command, arguments)

    def stop(self) -> None:
        """Pulls every plug."""
        with self._lock:
            running = list(self._machines)
        for vmid in running:
            self.power_off(vmid)
