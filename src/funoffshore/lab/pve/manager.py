"""The HA managers at work: machines get the state that somebody asked for, by tasks of root@pam.

What ``ha-manager`` does without the peers: starts, stops, tries again, gives up (``PVE/HA/Manager.pm``,
``PVE/HA/LRM.pm``). Machines of a node that is gone for long enough are recovered on another one that the rules allow,
and stay in recovery where there is none; nothing else is moved to satisfy a rule.
"""

from __future__ import annotations

from typing import Any

from funoffshore.lab.pve import availability, power
from funoffshore.lab.pve.access import Caller
from funoffshore.lab.pve.calls import House
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.tasks import Task, TaskError

ROOT = Caller("root@pam")
FENCING = 120.0
"""Lab seconds after which a node that does not answer counts as dead."""


def look(house: House) -> None:
    """One turn: every resource whose machine is not as wanted gets a task. Looks again after a cycle."""
    resources = house.shelf(availability.RESOURCES).all()
    for sid, body in resources.items():
        machine = house.machines.find(int(sid.partition(":")[2]))
        if machine is None or not house.cluster.quorate:
            continue
        if house.cluster.online(machine.node):
            _note(house, sid, lost=0.0)
            _settle(house, sid, body, machine)
        else:
            _recover(house, sid, body, machine)
    if resources:
        house.timers.wake("ha", availability.CYCLE)


def _settle(house: House, sid: str, body: dict[str, Any], machine: Machine) -> None:
    now = house.shelf(availability.STATES).get(sid) or {}
    wanted = body.get("state", "started")
    on = house.machines.is_on(machine)
    if now.get("busy"):
        return
    if wanted == "ignored":
        _note(house, sid, state="ignored", tries=0)
    elif wanted in ("started", "enabled"):
        if on:
            _note(house, sid, state="started", tries=0)
        elif now.get("tries", 0) > int(body.get("max_restart", 1)):
            _note(house, sid, state="error")
        else:
            _note(house, sid, state="starting", busy=True)
            _begin(house, machine, "qmstart")
    elif on:
        _note(house, sid, state="request_stop", busy=True)
        _begin(house, machine, "qmstop" if now.get("timeout") == 0 else "qmshutdown")
    else:
        _note(house, sid, state="stopped", tries=0)


def _recover(house: House, sid: str, body: dict[str, Any], machine: Machine) -> None:
    """First the node has to be known dead, which takes as long as its watchdog needs; then any other node will do."""
    now = house.kit.clock.now()
    lost = float((house.shelf(availability.STATES).get(sid) or {}).get("lost") or now)
    if house.kit.latencies.api > 0 and now - lost < FENCING:
        _note(house, sid, state="fence", lost=lost, busy=False)
        return
    if body.get("state", "started") not in ("started", "enabled"):
        return
    free = [node for node in house.nodes if house.cluster.online(node) and _allowed(house, sid, body, node)]
    if not free:
        _note(house, sid, state="recovery", lost=lost, busy=False)
        return
    machine.node = min(free, key=lambda node: sum(other.node == node for other in house.machines.all()))
    house.machines.save(machine)
    _note(house, sid, state="starting", lost=0.0, tries=0, busy=False)
    availability.wake(house)


def _allowed(house: House, sid: str, body: dict[str, Any], node: str) -> bool:
    """Whether group and rules let the resource run there."""
    group = house.shelf(availability.GROUPS).get(str(body.get("group", "")))
    if group and group.get("restricted") and node not in availability.manager_nodes(str(group["nodes"])):
        return False
    for rule in house.shelf(availability.RULES).all().values():
        if sid not in rule["resources"] or rule.get("disable"):
            continue
        if (
            rule["type"] == "node-affinity"
            and rule.get("strict")
            and node not in availability.manager_nodes(str(rule["nodes"]))
        ):
            return False
        others = (house.machines.find(int(other.partition(":")[2])) for other in rule["resources"] if other != sid)
        if rule.get("affinity") == "negative" and node in [other.node for other in others if other is not None]:
            return False
    return True


def _note(house: House, sid: str, **what: Any) -> None:
    shelf = house.shelf(availability.STATES)
    with shelf.guard:
        if house.shelf(availability.RESOURCES).get(sid) is not None:
            shelf.put(sid, {**(shelf.get(sid) or {}), **what})


def _begin(house: House, machine: Machine, kind: str) -> None:
    sid, vmid, node = f"vm:{machine.vmid}", machine.vmid, machine.node

    def work(task: Task) -> None:
        try:
            with house.machines.locked(vmid, task):
                if kind == "qmstart" and not house.machines.is_on(house.machines.in_task(node, vmid)):
                    power.start(house, node, vmid, task)
                elif kind != "qmstart":
                    _stop(house, node, vmid, task, kind)
        except TaskError:
            tries = (house.shelf(availability.STATES).get(sid) or {}).get("tries", 0)
            _note(house, sid, tries=tries + 1)
            raise

    def done() -> None:
        _note(house, sid, busy=False)
        availability.wake(house)

    house.tasks.start(node, kind, str(vmid), ROOT, work, done)


def _stop(house: House, node: str, vmid: int, task: Task, kind: str) -> None:
    machine = house.machines.in_task(node, vmid)
    power.check_lock(machine)
    task.pause(house.kit.latencies.task)
    if kind == "qmshutdown" and house.machines.is_on(machine):
        power.shut_down(house, machine, task, power.SHUTDOWN_SECONDS)
    power.switch_off(house, machine)
