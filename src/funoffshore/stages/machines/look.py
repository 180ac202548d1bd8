"""Reads the hypervisor: lists first and side by side, then only what the lists cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from funoffshore.config import ClusterConfig
from funoffshore.errors import FoError, PreflightError
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import hardware, privileges
from funoffshore.stages.machines.facts import Hypervisor, Machine, MachineFacts
from funoffshore.world.proxmox import NodeStatus, Proxmox, TaskRow, VmConfig, VmRow

if TYPE_CHECKING:
    from funoffshore.world.world import World

Answers = Mapping[tuple[str, str], Any]
"""What each call gave: its result, or the FoError it raised."""


def observe(world: World, config: ClusterConfig) -> MachineFacts:
    """One look at the hypervisor. Never changes anything and never raises FoError: what could not be read says so."""
    try:
        release = world.proxmox.version().release
    except FoError as why:
        return _blind(config, why)
    answers = world.proxmox.gather(_first_calls(world.proxmox, config))
    granted = {path: a for path in privileges.needed(config) if not isinstance(a := answers["acl", path], FoError)}
    machines, strays = _machines(world.proxmox, config, answers)
    return MachineFacts(
        release=Present(release),
        missing=privileges.missing(config, granted),
        machines=machines,
        strays=strays,
        pool=_pool(config, answers),
        images={name: _volume(answers, name, hardware.image_volume(config)) for name in config.proxmox.nodes},
        seeds={n.name: _volume(answers, n.hypervisor, hardware.seed_volume(config, n)) for n in config.nodes},
        hypervisors={name: _hypervisor(answers, name) for name in config.proxmox.nodes},
        answering=_answering(world, config, machines),
    )


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


def _first_calls(proxmox: Proxmox, config: ClusterConfig) -> dict[tuple[str, str], Callable[[], Any]]:
    calls: dict[tuple[str, str], Callable[[], Any]] = {("nodes", ""): proxmox.nodes, ("guests", ""): proxmox.guests}
    if config.proxmox.pool:
        calls["pools", ""] = proxmox.pools
    for path in privileges.needed(config):
        calls["acl", path] = partial(proxmox.permissions, path)
    for name in config.proxmox.nodes:
        calls["vms", name] = partial(proxmox.vms, name)
        calls["storages", name] = partial(proxmox.storages, name)
        calls["bridges", name] = partial(proxmox.bridges, name)
        calls["content", name] = partial(proxmox.content, name, config.proxmox.image_storage)
    return calls


def _machines(
    proxmox: Proxmox, config: ClusterConfig, answers: Answers
) -> tuple[dict[str, Reading[Machine]], dict[str, Machine]]:
    """The guests in our VMIDs by node name, and those that carry one of our identities elsewhere."""
    unseen, rows = _unseen(answers), _rows(config, answers)
    ours = {node.vmid: node for node in config.nodes}
    names, tag = {node.name for node in config.nodes}, hardware.tags(config)[1]
    suspects = [r for r in rows.values() if r.vmid not in ours and (r.name in names or tag in r.tags)]
    looked = [*(rows[vmid] for vmid in ours if vmid in rows), *suspects]
    found = _details(proxmox, config, [row for row in looked if row.kind == "qemu"])
    machines: dict[str, Reading[Machine]] = {}
    for vmid, node in ours.items():
        row = rows.get(vmid)
        if row is None:
            machines[node.name] = Unreadable(unseen) if unseen else Absent()
        elif row.kind != "qemu":
            machines[node.name] = Present(Machine(row.node, vmid, row.name, ""))
        else:
            machines[node.name] = found[vmid]
    identities = {str(node.identity): node.name for node in config.nodes}
    strays = [r.value for row in suspects if isinstance(r := found.get(row.vmid), Present)]
    return machines, {identities[m.identity]: m for m in strays if m.identity in identities}


def _unseen(answers: Answers) -> str:
    """Why the lists of guests do not show everything; empty when they do."""
    for (kind, _), answer in answers.items():
        if kind in {"vms", "guests"} and isinstance(answer, FoError):
            return answer.message
    granted = answers["acl", "/vms"]
    if isinstance(granted, FoError):
        return granted.message
    # Lists leave out silently what the token may not see.
    return "" if "VM.Audit" in granted else "the token has no VM.Audit on /vms"


def _rows(config: ClusterConfig, answers: Answers) -> dict[int, VmRow]:
    """By VMID; a node's own list is fresher than the cluster's, which in turn also knows other nodes and containers."""
    own = {name: a for name in config.proxmox.nodes if not isinstance(a := answers["vms", name], FoError)}
    everywhere = answers["guests", ""]
    rows = {row.vmid: row for row in ([] if isinstance(everywhere, FoError) else everywhere)}
    # The cluster's list may still name what has just been removed from a node whose own list is at hand.
    rows = {vmid: row for vmid, row in rows.items() if row.kind != "qemu" or row.node not in own}
    for listed in own.values():
        rows |= {row.vmid: row for row in listed}
    return rows


def _details(proxmox: Proxmox, config: ClusterConfig, rows: list[VmRow]) -> dict[int, Reading[Machine]]:
    configs = proxmox.gather({row.vmid: partial(proxmox.config, row.node, row.vmid) for row in rows})
    locked = [row for row in rows if isinstance(c := configs[row.vmid], VmConfig) and c.lock == "create"]
    tasks = proxmox.gather({row.vmid: partial(_creating, proxmox, config, row) for row in locked})
    # A creation may have ended between the two looks; only a second look may call the lock a leftover.
    again = [row for row in locked if tasks[row.vmid] == ""]
    configs |= proxmox.gather({row.vmid: partial(proxmox.config, row.node, row.vmid) for row in again})
    return {row.vmid: _machine(row, configs[row.vmid], tasks.get(row.vmid, "")) for row in rows}


def _machine(row: VmRow, seen: VmConfig | FoError | None, creating: str | FoError) -> Reading[Machine]:
    if isinstance(seen, FoError):
        return Unreadable(seen.message)
    if seen is None:
        return Absent()
    if isinstance(creating, FoError):
        return Unreadable(creating.message)
    return Present(
        Machine(
            hypervisor=row.node,
            vmid=row.vmid,
            name=seen.name or row.name,
            identity=seen.identity,
            lock=seen.lock,
            running=row.running,
            cores=seen.cores,
            memory_mib=seen.memory_mib,
            disk_gib=seen.disk_gib,
            cdrom=seen.cdrom,
            protected=seen.protected,
            creating=creating,
        )
    )


def _creating(proxmox: Proxmox, config: ClusterConfig, row: VmRow) -> str:
    task = creating_task(proxmox.running_tasks(row.node, row.vmid), config.proxmox.token_id)
    return task.upid if task else ""


def creating_task(rows: list[TaskRow], token_id: str) -> TaskRow | None:
    """The running creation that this token began, if there is one."""
    return next((row for row in rows if row.type == "qmcreate" and row.user == token_id), None)


def _pool(config: ClusterConfig, answers: Answers) -> Reading[str]:
    name = config.proxmox.pool
    if not name:
        return Absent()
    found, granted = answers["pools", ""], answers["acl", f"/pool/{name}"]
    for answer in (found, granted):
        if isinstance(answer, FoError):
            return Unreadable(answer.message)
    if name in found:
        return Present(name)
    return Absent() if "Pool.Audit" in granted else Unreadable(f"the token has no Pool.Audit on /pool/{name}")


def _volume(answers: Answers, hypervisor: str, volid: str) -> Reading[str]:
    volumes = answers.get(("content", hypervisor), PreflightError("its Proxmox node is not in PROXMOX_NODES"))
    if isinstance(volumes, FoError):
        return Unreadable(volumes.message)
    return Present(volid) if any(volume.volid == volid for volume in volumes) else Absent()


def _hypervisor(answers: Answers, name: str) -> Reading[Hypervisor]:
    nodes, storages, bridges = answers["nodes", ""], answers["storages", name], answers["bridges", name]
    if isinstance(nodes, FoError):
        return Unreadable(nodes.message)
    status: NodeStatus | None = next((node for node in nodes if node.name == name), None)
    if status is None:
        return Absent()
    for answer in (storages, bridges):
        if isinstance(answer, FoError):
            return Unreadable(answer.message)
    return Present(Hypervisor(status.online, status.memory_free, {s.name: s for s in storages}, bridges))


def _answering(world: World, config: ClusterConfig, machines: Mapping[str, Reading[Machine]]) -> tuple[str, ...]:
    """Who answers on an address that nobody of ours can have yet."""
    waiting = {n.name: str(n.address) for n in config.nodes if isinstance(machines[n.name], Absent)}
    if all(node.name in waiting for node in config.controllers):
        waiting["VIP"] = str(config.network.vip)
    if not waiting:
        return ()
    with ThreadPoolExecutor(min(64, len(waiting)), thread_name_prefix="answers") as pool:
        answers = list(pool.map(world.hosts.answers, waiting.values()))
    return tuple(name for name, answer in zip(waiting, answers, strict=True) if answer)
