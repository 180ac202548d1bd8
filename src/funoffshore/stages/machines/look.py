"""Looks at the hypervisors: the lists first, in three calls; the rest only where something is to be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from funoffshore.config import ClusterConfig
from funoffshore.errors import FoError
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import backups, guards, privileges, records, shape
from funoffshore.stages.machines.facts import Hypervisor, Machine, MachineFacts
from funoffshore.stages.machines.survey import Survey, blind, survey, with_pending
from funoffshore.world.proxmox import Grants, Resources, Volume

if TYPE_CHECKING:
    from funoffshore.world.world import World

Answers = Mapping[tuple[str, str], Any]
"""What each call gave: its result, or the FoError it raised."""


def observe(world: World, config: ClusterConfig, *, thorough: bool = True) -> MachineFacts:
    """One look at the hypervisors. Never changes anything there and never raises FoError: what could not be read
    says so.

    ``thorough`` reads the configuration of every VM that may be ours, and what every Proxmox node has to give;
    otherwise configurations read within the last hour count while the lists show their VM unchanged, and the nodes
    are only asked when a machine has to be made.
    """
    try:
        release = world.proxmox.version().release
    except FoError as why:
        return _blind(config, why)
    known = records.read(config.state)
    calls: dict[str, Callable[[], Any]] = {"grants": world.proxmox.grants, "resources": world.proxmox.resources}
    first: Mapping[str, Any] = world.proxmox.gather(calls)
    resources, granted = first["resources"], first["grants"]
    trusted = records.Records(numbers=known.numbers) if thorough else known
    found = _survey(world, config, resources, granted, trusted)
    _remember(config, found, known)
    machines = with_pending(world.proxmox, found.machines) if thorough else found.machines
    facts = MachineFacts(
        release=Present(release),
        missing=privileges.missing(config, granted, release) if isinstance(granted, Grants) else (),
        machines=machines,
        former=found.former,
        doubles=tuple(found.doubles),
        half_made=tuple(found.half_made),
        guests=found.guests,
        numbers=known.numbers,
        seeds={name: Absent() for name in found.machines},
    )
    facts = _surroundings(world, config, facts, trusted, thorough)
    return _details(world, config, facts, resources, known, thorough)


def _surroundings(
    world: World, config: ClusterConfig, facts: MachineFacts, known: records.Records, thorough: bool
) -> MachineFacts:
    """Firewalls, HA manager and backup job, as far as the env file asks for them; all of it when ``thorough``."""
    proxmox = world.proxmox
    now = world.clock.now()
    facts = replace(facts, firewalls=guards.observe_firewalls(proxmox, config, facts, known, now))
    guards.remember(config, facts, now)
    if (config.proxmox.high_availability or thorough) and isinstance(facts.release, Present):
        facts = replace(facts, availability=guards.observe_availability(proxmox, facts.release.value))
    # Always: a job that is no longer wanted has to go as well.
    return replace(facts, backup_job=backups.observe(world, config))


def _blind(config: ClusterConfig, why: FoError) -> MachineFacts:
    unseen = Unreadable(why.message)
    return MachineFacts(
        door=why,
        release=unseen,
        machines={node.name: unseen for node in config.nodes},
        pool=unseen,
        images=dict.fromkeys(config.proxmox.nodes, unseen),
        seeds={node.name: unseen for node in config.nodes},
        hypervisors=dict.fromkeys(config.proxmox.nodes, unseen),
    )


def _survey(
    world: World,
    config: ClusterConfig,
    resources: Resources | FoError,
    granted: Grants | FoError,
    known: records.Records,
) -> Survey:
    if isinstance(resources, FoError):
        return blind(config, resources.message)
    if isinstance(granted, FoError):
        return blind(config, granted.message)
    if "VM.Audit" not in granted.at("/vms"):
        # Lists leave out silently what the token may not see.
        return blind(config, "the token has no VM.Audit on /vms")
    return survey(world.proxmox, config, resources.guests, known, world.clock.now())


def _remember(config: ClusterConfig, found: Survey, known: records.Records) -> None:
    if found.read == known.configs:
        return

    def change(kept: records.Records) -> None:
        kept.configs = dict(found.read)

    records.update(config.state, change)


def _details(
    world: World,
    config: ClusterConfig,
    facts: MachineFacts,
    resources: Resources | FoError,
    known: records.Records,
    thorough: bool,
) -> MachineFacts:
    """What only matters when a machine is to be made, or a seed may be left."""
    fresh = [node for node in config.nodes if isinstance(facts.machine(node.name), Absent)]
    unsure = [
        node.name
        for node in config.nodes
        if isinstance(facts.machine(node.name), Present) and (thorough or str(node.identity) not in known.seedless)
    ]
    if isinstance(resources, FoError) or not (fresh or unsure or thorough):
        return facts
    answers = world.proxmox.gather(_calls(world, config, bool(fresh) or thorough))
    facts = replace(facts, seeds=_seeds(config, facts, answers))
    _remember_seeds(config, facts, known)
    if not (fresh or thorough):
        return facts
    return replace(
        facts,
        pool=_pool(config, answers),
        images={name: _image(config, answers, name) for name in config.proxmox.nodes},
        hypervisors={name: _hypervisor(world, resources, answers, name) for name in config.proxmox.nodes},
        mappings=_mappings(answers),
        quorate=_quorate(answers),
        answering=_answering(world, config, facts.machines),
    )


def _remember_seeds(config: ClusterConfig, facts: MachineFacts, known: records.Records) -> None:
    """Whose seed was seen to be gone is not looked for again; whose was seen to be there, at every look."""
    made = [node for node in config.nodes if isinstance(facts.machine(node.name), Present)]
    gone = {str(node.identity) for node in made if isinstance(facts.seed(node.name), Absent)}
    there = {str(node.identity) for node in config.nodes if isinstance(facts.seed(node.name), Present)}
    if gone - known.seedless or there & known.seedless:

        def change(kept: records.Records) -> None:
            kept.seedless = (kept.seedless | gone) - there

        records.update(config.state, change)


def _calls(world: World, config: ClusterConfig, everything: bool) -> dict[tuple[str, str], Callable[[], Any]]:
    calls: dict[tuple[str, str], Callable[[], Any]] = {}
    proxmox = world.proxmox
    store = config.proxmox.image_storage
    for name in config.proxmox.nodes:
        calls["content", name] = partial(proxmox.content, name, store)
        if everything:
            calls["bridges", name] = partial(proxmox.bridges, name)
            calls["models", name] = partial(proxmox.cpu_models, name)
            calls["time", name] = partial(_skew, world, name)
    if any(node.pci or node.usb for node in config.nodes):
        calls["mappings", "pci"] = partial(proxmox.mappings, "pci")
        calls["mappings", "usb"] = partial(proxmox.mappings, "usb")
    if everything:
        calls["pools", ""] = proxmox.pools
        calls["quorum", ""] = proxmox.cluster_status
    return calls


def _skew(world: World, name: str) -> float:
    """Seconds that the node's clock is ahead of ours, half of the call counted as the way there."""
    before = world.clock.now()
    there = world.proxmox.time(name)
    return there - (before + world.clock.now()) / 2


def _pool(config: ClusterConfig, answers: Answers) -> Reading[str]:
    name, found = config.proxmox.pool, answers["pools", ""]
    if isinstance(found, FoError):
        return Unreadable(found.message)
    return Present(name) if name in found else Absent()


def _image(config: ClusterConfig, answers: Answers, name: str) -> Reading[str]:
    volumes, wanted = answers["content", name], shape.image_volume(config)
    if isinstance(volumes, FoError):
        return Unreadable(volumes.message)
    return Present(wanted) if any(volume.volid == wanted for volume in volumes) else Absent()


def _seeds(config: ClusterConfig, facts: MachineFacts, answers: Answers) -> dict[str, Reading[str]]:
    """By node name: the Proxmox node on whose image storage the seed lies. It may be another than the machine's."""
    listed: dict[str, list[Volume]] = {}
    unseen = ""
    for name in config.proxmox.nodes:
        answer = answers["content", name]
        if isinstance(answer, FoError):
            unseen = answer.message
        else:
            listed[name] = answer
    seeds: dict[str, Reading[str]] = {}
    for node in config.nodes:
        volid = shape.seed_volume(config, node)
        where = next((name for name, rows in listed.items() if any(row.volid == volid for row in rows)), "")
        seeds[node.name] = Present(where) if where else Unreadable(unseen) if unseen else Absent()
    return seeds


def _hypervisor(world: World, resources: Resources, answers: Answers, name: str) -> Reading[Hypervisor]:
    status = next((node for node in resources.nodes if node.name == name), None)
    if status is None:
        return Absent()
    bridges, models, skew = (answers[kind, name] for kind in ("bridges", "models", "time"))
    if not status.online:
        return Present(Hypervisor(False, 0, 0, 0, 0, {}, frozenset()))
    if isinstance(bridges, FoError):
        return Unreadable(bridges.message)
    powered = [row for row in resources.guests if row.node == name and row.running]
    return Present(
        Hypervisor(
            online=True,
            memory_total=status.memory_total,
            memory_free=status.memory_free,
            cpus=status.cpus,
            promised=sum(row.memory for row in powered),
            storages={row.name: row for row in resources.storages if row.node == name},
            bridges=bridges,
            cpu_models=Unreadable(models.message) if isinstance(models, FoError) else Present(models),
            clock_skew=Unreadable(skew.message) if isinstance(skew, FoError) else Present(skew),
        )
    )


def _mappings(answers: Answers) -> Reading[Mapping[str, frozenset[str]]]:
    found: dict[str, frozenset[str]] = {}
    for (kind, _), answer in answers.items():
        if kind == "mappings" and isinstance(answer, FoError):
            return Unreadable(answer.message)
        if kind == "mappings":
            found |= answer
    return Present(found)


def _quorate(answers: Answers) -> Reading[bool]:
    status = answers["quorum", ""]
    return Unreadable(status.message) if isinstance(status, FoError) else Present(status.quorate)


def _answering(world: World, config: ClusterConfig, machines: Mapping[str, Reading[Machine]]) -> tuple[str, ...]:
    """Who answers on an address that nobody of ours can have yet."""
    waiting = {n.name: str(n.address) for n in config.nodes if isinstance(machines[n.name], Absent)}
    if all(node.name in waiting for node in config.controllers):
        waiting["VIP"] = str(config.network.vip)
    if not waiting:
        return ()
    heard = world.reach.answering(waiting.values())
    return tuple(name for name, address in waiting.items() if address in heard)
