"""``fo lab``: the simulated homelab, for itself."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from typing import Annotated

import typer

from funoffshore import errors
from funoffshore.cli import common

app = typer.Typer(help="The simulated homelab on loopback. Example: fo lab serve", no_args_is_help=True)

hosts = typer.Typer(
    help="Machines of the lab that no Proxmox made (MACHINES=existing). Example: fo lab hosts list",
    no_args_is_help=True,
)
app.add_typer(hosts, name="hosts")

LabCluster = Annotated[
    str, typer.Option("--cluster", "-c", envvar="FO_CLUSTER", metavar="NAME", help="Cluster whose lab is meant.")
]


@app.command()
def serve(
    cluster: LabCluster = "lab",
    latency: Annotated[str | None, typer.Option(help="none, or realistic. Kept for later runs.")] = None,
    speed: Annotated[float | None, typer.Option(min=0.1, max=1000, help="Lab seconds per real second. Kept.")] = None,
    release: Annotated[str | None, typer.Option(help="Proxmox VE release to play: 9.1, 8.4 or 8.0. Kept.")] = None,
) -> None:
    """Run the lab alone until Ctrl-C, so that fo, curl, ssh or kubectl can be pointed at it.

    Example: fo lab serve --latency realistic --speed 10
    """
    from funoffshore.lab import lab

    config = common.load(cluster)
    _configure(lab.of(config).directory, latency, speed, release)
    with lab.serving(config) as homelab:
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        common.say(f"the lab of {config.name} is up, process {os.getpid()}; Ctrl-C ends it")
        for line in homelab.addresses():
            common.say(f"  {line}")
        ended.wait()
    common.say("the lab is down; its state is kept")


def _configure(directory: os.PathLike[str], latency: str | None, speed: float | None, release: str | None) -> None:
    from pathlib import Path

    from funoffshore.lab import lab

    if latency not in (None, "none", "realistic"):
        raise errors.ConfigError(f"--latency {latency} is unknown", fix="say none or realistic")
    if release not in (None, "8.0", "8.4", "9.1"):
        raise errors.ConfigError(f"--release {release} is unknown", fix="say 8.0, 8.4 or 9.1")
    now = lab.settings(Path(directory))
    wanted = replace(
        now, latency=latency or now.latency, speed=now.speed if speed is None else speed, release=release or now.release
    )
    if wanted != now:
        lab.write_settings(Path(directory), wanted)


@app.command()
def reset(
    cluster: LabCluster = "lab",
    yes: Annotated[bool, typer.Option("--yes", help="Yes, delete the simulated homelab and its state.")] = False,
) -> None:
    """Delete the simulated homelab: an empty Proxmox is left.

    Example: fo lab reset --yes
    """
    from funoffshore.lab import lab

    config = common.load(cluster)
    directory = lab.of(config).directory
    if not yes:
        raise errors.ConfigError(f"this deletes everything below {directory}", fix="add --yes")
    lab.reset(directory)
    common.say(f"the lab of {config.name} is an empty Proxmox again")


@app.command()
def status(cluster: LabCluster = "lab", json: common.Json = False) -> None:
    """Say whether the lab is served, how it behaves, and how many changes it has seen.

    Example: fo lab status --json
    """
    from dataclasses import asdict

    from funoffshore.lab import lab
    from funoffshore.lab.base import Faults, Ledger, Store

    config = common.load(cluster)
    directory = lab.of(config).directory
    exists = (directory / "lab.sqlite").exists()
    body = {
        "cluster": config.name,
        "served": lab.is_running(directory),
        "settings": asdict(lab.settings(directory)),
        "mutating_calls": 0,
        "faults": {},
    }
    if exists:
        store = Store(directory / "lab.sqlite")
        body["mutating_calls"], body["faults"] = Ledger(store).count(), Faults(store).all()
        store.close()
    if json:
        common.data(body)
        return
    for name, value in body.items():
        print(f"{name:15} {value}")


@app.command()
def faults(
    cluster: LabCluster = "lab",
    on: Annotated[str | None, typer.Option(metavar="NAME[,KEY=VALUE…]", help="Switch a fault on.")] = None,
    off: Annotated[str | None, typer.Option(metavar="NAME", help="Switch a fault off, or all of them.")] = None,
) -> None:
    """Switch faults on and off, and list those that are on.

    Known: task-fail, task-hang, task-lost, task-warnings, no-worker (type=qmcreate,vmid=901,times=1),
    vmid-race (vmid=901), lock-timeout (vmid=901 or storage=local-lvm), storage-full (storage=local-lvm),
    image-corrupt (filename=*.qcow2), agent-silent (vmid=901), pve-596, pve-cut (method=POST,vmid=901), pve-html,
    pve-redirect (method=GET), ssh-cut (node=lab-c1), node-no-join, join-hang, learner-stuck, dns-broken, disk-full,
    disk-read-only, no-python3, data-lost (node=lab-w1), clock-off (node=lab-w1,minutes=10), image-pull
    (node=lab-c1,image=*kube-vip*), port-blocked (from=lab-c2,to=127.77.0.11,port=2380), certificates-old
    (node=lab-c1,days=20),
    component-unready (namespace=traefik,name=traefik), git-unreachable. What each does is told in the guide of the lab.

    Example: fo lab faults --on task-fail,type=qmstart,times=1
    """
    from funoffshore.lab import lab
    from funoffshore.lab.base import Faults, Store

    config = common.load(cluster)
    store = Store(lab.of(config).directory / "lab.sqlite")
    switches = Faults(store)
    if on:
        name, parameters = _spelt(on)
        switches.on(name, **parameters)
    for name in list(switches.all()) if off == "all" else [off] if off else []:
        switches.off(name)
    for name, parameters in switches.all().items():
        print(name, *(f"{k}={v}" for k, v in parameters.items()))
    store.close()


def _spelt(text: str) -> tuple[str, dict[str, str]]:
    """Name and parameters of ``NAME[,KEY=VALUE…]``. Raises ConfigError that says what there is."""
    from funoffshore.lab.base import Faults

    name, *pairs = text.split(",")
    if any("=" not in pair for pair in pairs):
        raise errors.ConfigError(f"--on {text} is not NAME[,KEY=VALUE…]", fix=f"known: {', '.join(Faults.KNOWN)}")
    parameters = dict(pair.split("=", 1) for pair in pairs)
    problem = Faults.problem(name, parameters)
    if problem:
        known = ", ".join(Faults.KNOWN.get(name, ())) or "none"
        fix = f"{name} takes: {known}" if name in Faults.KNOWN else f"known: {', '.join(Faults.KNOWN)}"
        raise errors.ConfigError(f"--on {text}: {problem}", fix=fix)
    return name, parameters


HostName = Annotated[str, typer.Argument(metavar="NODE", help="Name of the node, e.g. lab-w2.")]


@hosts.command("list")
def list_hosts(cluster: LabCluster = "lab", json: common.Json = False) -> None:
    """List the machines that stand in the lab by themselves, one for each node that fo does not make.

    Example: fo lab hosts list
    """
    from dataclasses import asdict

    from funoffshore.lab import bare, lab

    config = common.load(cluster)
    with lab.running(config), lab.store_of(config) as store:
        found = bare.all_of(store)
    if json:
        secret = ("sudo_password", "life")
        common.data([{k: v for k, v in asdict(machine).items() if k not in secret} for machine in found])
        return
    for machine in found:
        sudo = "sudo with a password" if machine.sudo_password else "sudo"
        power = "on" if machine.on else "off"
        print(f"{machine.name:20} {machine.address:15} {machine.architecture} {power:3} {machine.uuid} {sudo}")


@hosts.command()
def keys(
    cluster: LabCluster = "lab",
    env: Annotated[bool, typer.Option("--env", help="As the line of the env file.")] = False,
) -> None:
    """Print the host keys of those machines as lines of known_hosts, for SSH_KNOWN_HOSTS.

    Example: fo lab hosts keys --env
    """
    from funoffshore.lab import bare, lab

    config = common.load(cluster)
    with lab.running(config), lab.store_of(config) as store:
        lines = list(bare.known_hosts(lab.of(config).directory, store, config.ssh.port))
    print(f'SSH_KNOWN_HOSTS="{";".join(lines)}"' if env else "\n".join(lines))


@hosts.command()
def add(
    name: HostName,
    cluster: LabCluster = "lab",
    architecture: Annotated[str, typer.Option(help="amd64 or arm64.")] = "amd64",
    cores: Annotated[int, typer.Option(min=1, max=256)] = 4,
    memory: Annotated[int, typer.Option(min=512, help="MiB.")] = 8192,
    disk: Annotated[int, typer.Option(min=4, help="GiB.")] = 64,
    sudo_asks: Annotated[bool, typer.Option("--sudo-asks", help="sudo wants a password: SSH_SUDO_PASSWORD.")] = False,
) -> None:
    """Put a machine for a node there, or another in its place: a fresh system with host keys of its own.

    Example: fo lab hosts add lab-w2 --architecture arm64
    """
    from funoffshore.lab import bare, lab

    config = common.load(cluster)
    node = next((n for n in config.nodes if n.name == name and not n.made), None)
    if node is None:
        raise errors.ConfigError(f"{name} is no existing machine of {config.name}", fix="say NODE_…_MACHINE=existing")
    if architecture not in ("amd64", "arm64"):
        raise errors.ConfigError(f"--architecture {architecture} is unknown", fix="say amd64 or arm64")
    password = config.ssh.sudo_password
    if sudo_asks and password is None:
        raise errors.ConfigError("--sudo-asks needs a password that fo knows", fix="set SSH_SUDO_PASSWORD")
    with lab.store_of(config) as store:
        bare.put(
            store, config, node, architecture=architecture, cores=cores, memory_mib=memory, disk_gib=disk,
            sudo_password=password.get_secret_value() if sudo_asks and password else "", on=True,
        )  # fmt: skip
    common.say(f"{name} is a fresh {architecture} machine; its host key is another one now: fo lab hosts keys")


@hosts.command()
def wipe(name: HostName, cluster: LabCluster = "lab") -> None:
    """Install the machine anew: everything on its disk is gone, and its host key is another one.

    Example: fo lab hosts wipe lab-w2
    """
    from funoffshore.lab import bare, lab

    config = common.load(cluster)
    with lab.store_of(config) as store:
        bare.wipe(store, name)
    common.say(f"{name} has a fresh system")


@hosts.command("power-off")
def power_off(name: HostName, cluster: LabCluster = "lab") -> None:
    """Cut the machine's power. It stays off until power-on.

    Example: fo lab hosts power-off lab-w2
    """
    _power(cluster, name, on=False)


@hosts.command("power-on")
def power_on(name: HostName, cluster: LabCluster = "lab") -> None:
    """Give the machine power again.

    Example: fo lab hosts power-on lab-w2
    """
    _power(cluster, name, on=True)


def _power(cluster: str, name: str, *, on: bool) -> None:
    from funoffshore.lab import bare, lab

    config = common.load(cluster)
    with lab.store_of(config) as store:
        bare.change(store, name, on=on)
    common.say(f"{name} is {'on' if on else 'off'}, or will be as soon as the lab runs")
