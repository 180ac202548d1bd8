"""From facts to actions. Pure: this module has no world in reach, so it cannot act."""

from __future__ import annotations

from collections.abc import Mapping

from funoffshore.config import ClusterConfig, Node
from funoffshore.plan import Action, Verb
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import hardware
from funoffshore.stages.machines.facts import Machine, MachineFacts
from funoffshore.world.ssh import HostFacts

STAGE = "machines"
CLOUD_INIT_OFF = "/etc/cloud/cloud-init.disabled"
"""While this file exists cloud-init does nothing at boot (cloud-init, ds-identify)."""


def plan(config: ClusterConfig, facts: MachineFacts, hosts: Mapping[str, Reading[HostFacts]]) -> list[Action]:
    """Everything between nothing and reachable hosts. Foreign machines get no action; ``problems`` names them."""
    fresh = [node for node in config.nodes if isinstance(facts.machine(node.name), Absent)]
    actions = _common(config, facts, fresh)
    for node in config.nodes:
        actions += _machine(config, facts, node)
        if _may_be_ours(facts.machine(node.name), node):
            actions += _host(facts, node, hosts.get(node.name, Absent()))
            actions += _seed(config, facts, node)
    return actions


def is_ours(machine: Machine, node: Node) -> bool:
    """Ours is what carries the node's identity, and nothing else: not the VMID, the name or a tag."""
    return is_ours_by(machine.identity, node)


def is_ours_by(identity: str, node: Node) -> bool:
    """The same from the SMBIOS UUID alone."""
    return identity == str(node.identity)


def is_being_created(machine: Machine) -> bool:
    """Whether a creation that this token began is at work on it; until it ends nothing shows an identity."""
    return machine.lock == "create" and bool(machine.creating)


def differences(machine: Machine, node: Node) -> list[str]:
    """What is not as the config wants it, as clauses. A disk that is too large is no difference: none shrinks."""
    found = []
    if machine.cores != node.cores:
        found.append(f"it has {machine.cores} cores, not {node.cores}")
    if machine.memory_mib != node.memory_mib:
        found.append(f"it has {machine.memory_mib} MiB of memory, not {node.memory_mib}")
    if machine.disk_gib < node.disk_gib:
        found.append(f"its disk has {machine.disk_gib:.3g} GiB, not {node.disk_gib}")
    return found


def _may_be_ours(reading: Reading[Machine], node: Node) -> bool:
    if not isinstance(reading, Present):
        return True
    return is_ours(reading.value, node) or is_being_created(reading.value)


def _common(config: ClusterConfig, facts: MachineFacts, fresh: list[Node]) -> list[Action]:
    """What new machines need first; nothing when there are none."""
    if not fresh:
        return []
    actions = []
    lent = config.proxmox
    if lent.pool and not isinstance(facts.pool, Present):
        verb, reason = _absence(facts.pool, "it is absent")
        actions.append(Action(verb, f"pool/{lent.pool}", reason, stage=STAGE))
    readings = {name: facts.images.get(name, Absent()) for name in dict.fromkeys(n.hypervisor for n in fresh)}
    lacking = [name for name, reading in readings.items() if not isinstance(reading, Present)]
    if lacking:
        verb, reason = _absence(readings[lacking[0]], f"it is absent on {', '.join(lacking)}")
        key = f"image/{lent.image_storage}/{config.image.filename}"
        actions.append(Action(verb, key, reason, lane="storage", stage=STAGE))
    return actions


def _absence(reading: Reading[str], reason: str) -> tuple[Verb, str]:
    """Creating is for what was seen to be absent; what was not seen is looked at again first."""
    if isinstance(reading, Unreadable):
        return Verb.WAIT, f"Proxmox did not show whether it exists ({reading.why})"
    return Verb.CREATE, reason


def _machine(config: ClusterConfig, facts: MachineFacts, node: Node) -> list[Action]:
    key, reading = f"machine/{node.name}", facts.machine(node.name)
    power = f"power/{node.name}"
    start = Action(Verb.CHANGE, power, "a new machine is off", frozenset({key}), stage=STAGE, on=node.name)
    match reading:
        case Unreadable(why):
            reason = f"Proxmox did not show whether it exists ({why})"
            return [Action(Verb.WAIT, key, reason, stage=STAGE, on=node.name)]
        case Absent():
            first = {f"image/{config.proxmox.image_storage}/{config.image.filename}"}
            first |= {f"pool/{config.proxmox.pool}"} if config.proxmox.pool else set()
            reason = f"there is no VM {node.vmid} on {node.hypervisor}"
            create = Action(Verb.CREATE, key, reason, frozenset(first), lane="storage", stage=STAGE, on=node.name)
            return [create, start]
        case Present(machine) if is_being_created(machine):
            reason = f"its creation is under way ({machine.creating})"
            return [Action(Verb.WAIT, key, reason, lane="storage", stage=STAGE, on=node.name), start]
        case Present(machine) if is_ours(machine, node):
            return _change(node, machine)
    return []


def _change(node: Node, machine: Machine) -> list[Action]:
    key = f"machine/{node.name}"
    actions = []
    if wrong := differences(machine, node):
        resized = machine.cores != node.cores or machine.memory_mib != node.memory_mib
        later = " (the guest sees it after its next restart)" if machine.running and resized else ""
        reason = ", ".join(wrong) + later
        actions.append(Action(Verb.CHANGE, key, reason, lane="storage", stage=STAGE, on=node.name))
    if not machine.running:
        after = frozenset({key})
        actions.append(Action(Verb.CHANGE, f"power/{node.name}", "it is off", after, stage=STAGE, on=node.name))
    return actions


def _host(facts: MachineFacts, node: Node, host: Reading[HostFacts]) -> list[Action]:
    reason = _host_reason(facts.machine(node.name), host)
    if not reason:
        return []
    after = frozenset({f"machine/{node.name}", f"power/{node.name}"})
    return [Action(Verb.WAIT, f"host/{node.name}", reason, after, stage=STAGE, on=node.name)]


def _host_reason(machine: Reading[Machine], host: Reading[HostFacts]) -> str:
    """Why the host is not as it shall be; empty when it is."""
    match host:
        case Unreadable(why):
            return f"it does not answer ({why})"
        case Absent():
            return "it has not been reached" if _is_on(machine) else "it has not booted"
        case Present(found):
            return "" if is_settled(found) else _unsettled(found)


def _unsettled(host: HostFacts) -> str:
    if host.cloud_init in {"done", "degraded"}:
        return "cloud-init has ended but would run again at the next boot"
    return "cloud-init ended with an error" if host.cloud_init == "error" else f"cloud-init says {host.cloud_init}"


def is_settled(host: HostFacts) -> bool:
    """Whether cloud-init has done its work, or is not there, and will not run again."""
    if host.cloud_init in {"disabled", "absent"}:
        return True
    # Written by fo only after a good end; written by hand it is the operator's word that an error was mended.
    return host.cloud_init != "running" and isinstance(host.file(CLOUD_INIT_OFF), Present)


def _is_on(machine: Reading[Machine]) -> bool:
    return isinstance(machine, Present) and machine.value.running


def _seed(config: ClusterConfig, facts: MachineFacts, node: Node) -> list[Action]:
    key, after = f"seed/{node.name}", frozenset({f"host/{node.name}"})
    machine, seed = facts.machine(node.name), facts.seed(node.name)
    if isinstance(machine, Absent):
        reason = "it holds the host key, and has done its work once the host is reached"
    elif isinstance(seed, Present):
        reason = f"{seed.value} holds the host key, and the machine needs it no more"
    elif isinstance(machine, Present) and machine.value.cdrom == hardware.seed_volume(config, node):
        reason = "it is still in the CD-ROM drive"
    elif isinstance(seed, Unreadable) and not isinstance(machine, Unreadable):
        reason = f"Proxmox did not show whether it is gone ({seed.why})"
        return [Action(Verb.WAIT, key, reason, after, stage=STAGE, on=node.name)]
    else:
        return []
    return [Action(Verb.DELETE, key, reason, after, stage=STAGE, on=node.name)]
