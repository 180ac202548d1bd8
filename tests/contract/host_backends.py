"""The same machine twice: a host of the embedded lab, and a real Debian on the bench."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ssh_machines import Bench, config_of, hardware_of, kit_of, subnet, until

from funoffshore import hostkeys
from funoffshore.config import model
from funoffshore.lab.base import Kit
from funoffshore.lab.guests import AgentSilentError, Guests
from funoffshore.lab.hosts.hosts import Hosts
from funoffshore.reading import Present
from funoffshore.world import routes, ssh

PORTS = {"lab": 2222, "real": 2222}


class Host(Protocol):
    """A machine that fo's own seed has set up, and both doors to it."""

    kind: str
    config: model.ClusterConfig
    node: model.Node
    hosts: ssh.Hosts
    guests: Guests

    def power_on(self) -> None: ...


@dataclasses.dataclass
class Machine:
    """Either backend; they differ in what runs behind ``guests``."""

    kind: str
    config: model.ClusterConfig
    kit: Kit
    guests: Guests

    def __post_init__(self) -> None:
        self.node = self.config.nodes[0]
        self.hosts = ssh.Hosts(self.config, routes.Routes(self.config.root / "routes.json"), self.kit.clock)

    def power_on(self) -> None:
        """Returns once cloud-init is done and sshd lets fo in. The seed does not know of its data disk."""
        hardware = hardware_of(self.config, self.node)
        self.guests.power_on(dataclasses.replace(hardware, image=_image(self.kind), data_disk_gib=2.0))
        until(self._settled, 60)

    def _settled(self) -> bool:
        """cloud-init restarts sshd after the first login is possible, as real clouds do: a cut is no failure here."""
        seen = self.hosts.observe(self.node)
        return isinstance(seen, Present) and seen.value.cloud_init == "done"

    def agent(self, command: str) -> object:
        """The guest agent's answer, or None while it is silent."""
        with contextlib.suppress(AgentSilentError):
            return self.guests.agent(self.node.vmid, command, {})
        return None

    def shell(self, command: str, stdin: bytes = b"", key_of: str = "") -> subprocess.CompletedProcess[bytes]:
        """OpenSSH's own client, trusting the host key of node ``key_of`` (this one's, unless told otherwise)."""
        identity, known = self.config.root / "id", self.config.root / "known_hosts"
        if not identity.exists():
            identity.touch(mode=0o600)
            identity.write_text(self.config.ssh.private_key.get_secret_value())
        seed = self.config.ssh.host_key_seed.get_secret_value()
        public = hostkeys.openssh_public(hostkeys.private(seed, key_of or self.node.name))
        known.write_text(f"[{self.node.address}]:{self.config.ssh.port} {public}\n")
        options = [
            "-F", "/dev/null", "-i", str(identity), "-p", str(self.config.ssh.port), "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes",
            "-o", "GlobalKnownHostsFile=/dev/null",
        ]  # fmt: skip
        argv = ["ssh", *options, f"{self.config.ssh.user}@{self.node.address}", command]
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=60)

    def close(self) -> None:
        self.hosts.close()
        self.guests.power_off(self.node.vmid)
        self.guests.destroy(self.node.vmid)
        self.kit.clock.stop()
        self.kit.store.close()


def _image(kind: str) -> str:
    return "local:import/x.qcow2" if kind == "lab" else "bench"


@contextlib.contextmanager
def machine(kind: str, tmp: Path) -> Iterator[Machine]:
    """A machine of the backend, up. Whoever asks for a real one holds the right to the bench."""
    with _lab(tmp) if kind == "lab" else _real(tmp) as made:
        made.power_on()
        yield made


@contextlib.contextmanager
def _lab(tmp: Path) -> Iterator[Machine]:
    kit = kit_of(tmp)
    lab = Hosts(kit)
    made = Machine("lab", config_of(tmp, subnet()), kit, lab)
    try:
        yield made
    finally:
        lab.stop()
        made.close()


@contextlib.contextmanager
def _real(tmp: Path) -> Iterator[Machine]:
    from bench import control, enter, paths
    from bench.hosts import names, network
    from bench.hosts.guests import RealGuests
    from bench.hosts.machine import Shared
    from bench.image import build
    from bench.internet.tls import Authority

    image = build.path(Authority(paths.cache()).certificate())
    control.down()
    folder = paths.run()
    for name in ("bin", "nfs", "machines"):
        (folder / name).mkdir(parents=True)
    network.create()
    guests = RealGuests(folder / "machines", Shared(folder / "bin", folder / "nfs"), lambda _: image)
    config = config_of(tmp, ipaddress.IPv4Network(names.SUBNET))
    try:
        with enter.network():
            made = Machine("real", config, kit_of(tmp), guests)
            try:
                yield made
            finally:
                made.close()
    finally:
        guests.stop()
        control.down()


def have_ssh() -> bool:
    return shutil.which("ssh") is not None


__all__ = ["Bench", "Host", "Machine", "have_ssh", "machine"]
