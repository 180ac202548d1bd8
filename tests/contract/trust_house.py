"""A homelab with one machine to come, whose host key fo has to learn; and what tests do to that machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import machines_house
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from machines_house import House, Step

from funoffshore import hostkeys
from funoffshore.lab.hosts.hosts import Hosts as LabHosts
from funoffshore.lab.hosts.machine import Host
from funoffshore.lab.web import offers
from funoffshore.plan import Plan
from funoffshore.reading import Present
from funoffshore.stages import machines
from funoffshore.stages.machines import shape
from funoffshore.world import routes, ssh
from funoffshore.world.ssh import known

PUBLIC = "/etc/ssh/ssh_host_ed25519_key.pub"


@contextlib.contextmanager
def house(tmp: Path, way: str, *, seed: str = "drive", agent: bool = True, data: int = 0) -> Iterator[House]:
    """A homelab with one machine to come, whose image lies ready."""
    with machines_house.built(tmp) as made:
        config = made.config
        name = "debian-13-agent" if agent else "debian-13"
        config = replace(
            config,
            nodes=(replace(config.nodes[0], data_disk_gib=data),),
            image=replace(config.image, url=f"https://example.test/{name}.qcow2"),
            ssh=replace(config.ssh, trust=way),
            proxmox=replace(config.proxmox, seed=seed),
        )
        made.config = config
        made.grant()
        made.api.volume_file("pve", shape.image_volume(config)).write_bytes(offers.image())
        made.doors.hosts.close()
        ways = routes.Routes(tmp / "routes.json")
        made.doors = replace(made.doors, hosts=ssh.Hosts(config, ways, made.kit.clock))
        yield made


def up(made: House) -> None:
    """The machine made and switched on, and nobody has looked at it yet."""
    actions = made.plan().actions.items()
    made.run(Plan({key: action for key, action in actions if not key.startswith(("host/", "seed/"))}))


def facts(made: House) -> ssh.HostFacts:
    seen = made.doors.hosts.observe(made.config.nodes[0])
    assert isinstance(seen, Present), seen
    return seen.value


def settle(made: House) -> Step:
    action, step = made.plan().actions["host/lab-c1"], Step()
    machines.apply(made.world, made.config, action, step)
    return step


def guests(made: House) -> LabHosts:
    """What runs the machines."""
    found: Any = made.api._house.guests
    return cast(LabHosts, getattr(found, "_guests", found))


def guest(made: House) -> Host:
    found = guests(made).host("lab-c1")
    assert found is not None
    return found


def lines(made: House) -> list[str]:
    file = known.path(made.config)
    return file.read_text().splitlines() if file.exists() else []


def other_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def replace_key(made: House, key: Ed25519PrivateKey, *, public: bool = True) -> None:
    """Gives the machine another host key, as an attacker in its place would show."""
    files = guest(made).files
    files.write("/etc/ssh/ssh_host_ed25519_key", hostkeys.openssh_private(key), 0o600)
    if public:
        files.write(PUBLIC, hostkeys.openssh_public(key) + "\n")
    guest(made).run(["systemctl", "restart", "ssh"])
    made.doors.hosts.close()
