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
    pve-redirect (method=GET), ssh-cut (node=lab-c1), node-no-join (node=lab-w1),
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
