"""High availability as it is configured: resources, groups, rules, and what the manager says of them.

Facts from ha-manager ``PVE/API2/HA/Resources.pm``, ``Groups.pm``, ``Rules.pm``, ``Status.pm`` and ``PVE/HA/Config.pm``;
recorded from a real 8.4 API, rules from the source of 9.1. Who carries it out is ``manager``.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.refusal import RefusalError, die, invalid, invalid_fields
from funoffshore.lab.pve.shelf import Shelf

RESOURCES, STATES, GROUPS, RULES = "ha", "ha-state", "ha-group", "ha-rule"
CYCLE = 10.0
"""Lab seconds between two looks of the managers."""
_STALE = "detected modified configuration - file changed by other user? Try again."
_NOT_FIELDS = frozenset(("sid", "rule", "delete", "digest", "purge"))
_MIGRATED = "ha groups have been migrated to rules"


def managed(house: House, vmid: int) -> bool:
    """Whether power calls for the machine go to the manager."""
    found = house.shelf(RESOURCES).get(f"vm:{vmid}")
    return found is not None and found.get("state") != "ignored"


def wants_on(house: House, vmid: int) -> bool:
    """Whether the manager keeps the machine running."""
    found = house.shelf(RESOURCES).get(f"vm:{vmid}")
    return found is not None and found.get("state", "started") in ("started", "enabled")


def configured(house: House, vmid: int) -> bool:
    """Whether there is a resource for the machine, ignored or not."""
    return house.shelf(RESOURCES).get(f"vm:{vmid}") is not None


def shown(house: House, vmid: int) -> dict[str, Any]:
    """The ``ha`` of a machine's status."""
    found = house.shelf(RESOURCES).get(f"vm:{vmid}")
    if found is None:
        return {"managed": 0}
    old = {"group": found.get("group")} if house.release < "9" else {}
    return {"managed": 1, "state": state(house, vmid), **old}


def state(house: House, vmid: int) -> str | None:
    """What the manager last made of the machine; None before it looked, or when it is not configured."""
    if not configured(house, vmid):
        return None
    found = house.shelf(STATES).get(f"vm:{vmid}")
    return str(found["state"]) if found else None


def request(house: House, vmid: int, wanted: str, timeout: int | None = None) -> None:
    """Somebody asks for another state; the manager acts on it later. ``timeout`` 0 pulls the plug."""
    shelf = house.shelf(RESOURCES)
    with shelf.guard:
        found = shelf.get(f"vm:{vmid}")
        if found is not None:
            shelf.put(f"vm:{vmid}", {**found, "state": wanted})
    states = house.shelf(STATES)
    with states.guard:
        states.put(f"vm:{vmid}", {"state": "queued", **(states.get(f"vm:{vmid}") or {}), "timeout": timeout})
    wake(house)


def wake(house: House) -> None:
    """The managers look at the next turn of their cycle; at once where nothing takes time."""
    house.timers.wake("ha", CYCLE if house.kit.latencies.api > 0 else 0.0)


def remove(house: House, vmid: int) -> bool:
    """Takes a machine out of resources and rules; whether it was there."""
    sid = f"vm:{vmid}"
    for name, body in house.shelf(RULES).all().items():
        left = [other for other in body["resources"] if other != sid]
        if not left:
            house.shelf(RULES).delete(name)
        elif left != body["resources"]:
            house.shelf(RULES).put(name, {**body, "resources": left})
    house.shelf(STATES).delete(sid)
    return house.shelf(RESOURCES).delete(sid)


def _digest(shelf: Shelf) -> str:
    text = json.dumps(shelf.all(), sort_keys=True)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _change(call: Call, shelf: Shelf, name: str, absent: RefusalError) -> dict[str, Any]:
    """The document as the call leaves it."""
    found = shelf.get(name)
    if found is None:
        raise absent
    if call.text("digest") not in ("", _digest(shelf)):
        raise die(_STALE)
    for option in pveapi.split_list(call.text("delete")):
        found.pop(option, None)
    return {**found, **_fields(call)}


def _fields(call: Call) -> dict[str, Any]:
    numbers = ("max_restart", "max_relocate", "failback", "nofailback", "restricted", "strict", "disable")
    return {k: call.number(k) if k in numbers else call.text(k) for k in call.values if k not in _NOT_FIELDS}


def _sid(call: Call) -> str:
    return f"vm:{call.text('sid')}" if call.text("sid").isdigit() else call.text("sid")


def resources(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/resources; one in a group that is not there says so."""
    shelf, groups = call.house.shelf(RESOURCES), call.house.shelf(GROUPS).all()
    found = []
    for sid, body in shelf.all().items() if call.text("type", "vm") == "vm" else ():
        row = {"sid": sid, **body, "digest": _digest(shelf)}
        if body.get("group") and body["group"] not in groups:
            row["errors"] = {"group": f"group '{body['group']}' does not exist"}
        found.append(row)
    return found


def resource(call: Call) -> dict[str, Any]:
    """GET /cluster/ha/resources/{sid}."""
    shelf, sid = call.house.shelf(RESOURCES), _sid(call)
    found = shelf.get(sid)
    if found is None:
        raise die(f"no such resource '{sid}'")
    return {"sid": sid, **found, "digest": _digest(shelf)}


def add_resource(call: Call) -> None:
    """POST /cluster/ha/resources."""
    house, sid = call.house, _sid(call)
    kind, _, name = sid.partition(":")
    if call.text("type", kind) != kind:
        raise invalid(type="parameter does not match resource type")
    if kind != "vm" or not name.isdigit() or house.machines.find(int(name)) is None:
        raise die(f"resource '{sid}' does not exist in cluster")
    _refuse_group(call)
    shelf = house.shelf(RESOURCES)
    with shelf.guard:
        if shelf.get(sid) is not None:
            raise die(f"create resource failed: resource ID '{sid}' already defined")
        shelf.put(sid, {"type": kind, **_fields(call)})
    wake(house)


def _refuse_group(call: Call) -> None:
    if call.text("group") and call.house.release >= "9":
        raise die(f"invalid parameter 'group': {_MIGRATED}")


def in_error(house: House, vmid: int) -> str:
    """Why the manager takes no other state for the machine than ``disabled``; empty when it does."""
    text = f"service 'vm:{vmid}' in error state, must be disabled and fixed first"
    return text if managed(house, vmid) and state(house, vmid) == "error" else ""


def change_resource(call: Call) -> None:
    """PUT /cluster/ha/resources/{sid}."""
    shelf, sid, group = call.house.shelf(RESOURCES), _sid(call), call.text("group")
    _refuse_group(call)
    if group and call.house.shelf(GROUPS).get(group) is None:
        raise die(f"HA group '{group}' does not exist")
    trouble = in_error(call.house, int(sid.partition(":")[2])) if sid.startswith("vm:") else ""
    if trouble and call.text("state") != "disabled":
        raise die(trouble)
    with shelf.guard:
        shelf.put(sid, _change(call, shelf, sid, die(f"update resource failed: no such resource '{sid}'")))
    wake(call.house)


def delete_resource(call: Call) -> None:
    """DELETE /cluster/ha/resources/{sid}: out of the rules as well; the machine stays as it is."""
    kind, _, name = _sid(call).partition(":")
    if kind != "vm" or not name.isdigit() or not remove(call.house, int(name)):
        raise die(f"cannot delete service '{_sid(call)}', not HA managed!")


def groups(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/groups; from 9.0 on there are none any more."""
    _refuse_groups(call, "index groups")
    shelf = call.house.shelf(GROUPS)
    return [{"group": name, **body, "digest": _digest(shelf)} for name, body in shelf.all().items()]


def _refuse_groups(call: Call, what: str) -> None:
    if call.house.release >= "9":
        raise die(f"cannot {what}: {_MIGRATED}")


def group(call: Call) -> dict[str, Any]:
    """GET /cluster/ha/groups/{group}."""
    _refuse_groups(call, "read group")
    shelf, name = call.house.shelf(GROUPS), call.text("group")
    found = shelf.get(name)
    if found is None:
        raise die(f"no such ha group '{name}'")
    return {"group": name, **found, "digest": _digest(shelf)}


def add_group(call: Call) -> None:
    """POST /cluster/ha/groups."""
    _refuse_groups(call, "create group")
    shelf, name = call.house.shelf(GROUPS), call.text("group")
    with shelf.guard:
        if shelf.get(name) is not None:
            raise die(f"create ha group failed: ha group ID '{name}' already defined")
        body = {key: value for key, value in _fields(call).items() if key != "group"}
        shelf.put(name, {**body, "type": "group"})


def change_group(call: Call) -> None:
    """PUT /cluster/ha/groups/{group}."""
    _refuse_groups(call, "update group")
    shelf, name = call.house.shelf(GROUPS), call.text("group")
    with shelf.guard:
        changed = _change(call, shelf, name, die(f"update ha group failed: no such ha group '{name}'"))
        changed.pop("group", None)
        shelf.put(name, changed)


def delete_group(call: Call) -> None:
    """DELETE /cluster/ha/groups/{group}: not while a resource names it."""
    _refuse_groups(call, "delete group")
    name = call.text("group")
    user = next((sid for sid, body in call.house.shelf(RESOURCES).all().items() if body.get("group") == name), "")
    if user:
        raise die(f"delete ha group failed: ha group '{name}' is used by service '{user}'")
    call.house.shelf(GROUPS).delete(name)


def rules(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/rules."""
    found = call.house.shelf(RULES).all()
    kind, member = call.text("type"), call.text("resource")
    names = [
        name
        for name, body in found.items()
        if kind in ("", body["type"]) and (not member or member in body["resources"])
    ]
    return [_rule(call.house, name) for name in names]


def _rule(house: House, name: str) -> dict[str, Any]:
    body = house.shelf(RULES).get(name)
    if body is None:
        raise die(f"no such ha rule '{name}'")
    order = list(house.shelf(RULES).all()).index(name) + 1
    joined = {"resources": ",".join(body["resources"]), "digest": _digest(house.shelf(RULES)), "order": order}
    return {**body, "rule": name, **joined}


def rule(call: Call) -> dict[str, Any]:
    """GET /cluster/ha/rules/{rule}."""
    return _rule(call.house, call.text("rule"))


def add_rule(call: Call) -> None:
    """POST /cluster/ha/rules."""
    shelf, name = call.house.shelf(RULES), call.text("rule")
    with shelf.guard:
        if shelf.get(name) is not None:
            raise die(f"create ha rule failed: HA rule '{name}' already defined")
        body = {**_fields(call), "resources": sorted(set(pveapi.split_list(call.text("resources"))))}
        _check_rule(call.house, name, body, "create ha rule failed")
        shelf.put(name, body)
    wake(call.house)


def change_rule(call: Call) -> None:
    """PUT /cluster/ha/rules/{rule}."""
    shelf, name = call.house.shelf(RULES), call.text("rule")
    with shelf.guard:
        body = _change(call, shelf, name, die(f"update HA rules failed: HA rule '{name}' does not exist"))
        if isinstance(body["resources"], str):
            body["resources"] = sorted(set(pveapi.split_list(body["resources"])))
        _check_rule(call.house, name, body, "update HA rules failed")
        shelf.put(name, body)
    wake(call.house)


def delete_rule(call: Call) -> None:
    """DELETE /cluster/ha/rules/{rule}: one that is not there is as good as gone."""
    call.house.shelf(RULES).delete(call.text("rule"))


def _check_rule(house: House, name: str, body: dict[str, Any], doing: str) -> None:
    kind = body["type"]
    needed = {"resource-affinity": "affinity", "node-affinity": "nodes"}[kind]
    if needed not in body:
        raise invalid_fields({needed: "property is missing and it is not optional"})
    strangers = [sid for sid in body["resources"] if house.shelf(RESOURCES).get(sid) is None]
    if strangers:
        raise die(f"{doing}: cannot use unmanaged resource(s) {', '.join(strangers)}.")
    unknown = [node for node in manager_nodes(str(body.get("nodes", ""))) if node not in house.nodes]
    if unknown:
        raise die(f"{doing}: cannot use non-existant node(s) {', '.join(unknown)}.")
    why = ""
    if kind == "resource-affinity" and len(body["resources"]) < 2:
        why = "rule is ineffective as there are less than two resources"
    elif kind == "resource-affinity" and body["affinity"] == "negative" and len(body["resources"]) > len(house.nodes):
        why = "rule defines more resources than available nodes"
    if why:
        raise die(f"{doing}: 400 Rule '{name}' is invalid.\nresources: {why}")


def manager_nodes(nodes: str) -> list[str]:
    """Node names of ``pve1:2,pve2``, which says with which priority."""
    return sorted(part.partition(":")[0] for part in pveapi.split_list(nodes))


def status(call: Call) -> list[dict[str, Any]]:
    """GET /cluster/ha/status/current: quorum, then manager and nodes once they have something to do."""
    house = call.house
    quorate = house.cluster.quorate
    quorum = {"id": "quorum", "type": "quorum", "node": house.nodes[0], "quorate": int(quorate)}
    found: list[dict[str, Any]] = [{**quorum, "status": "OK" if quorate else "No quorum on node!"}]
    states = house.shelf(STATES).all()
    if states:
        found += _managers(house)
    for sid, body in house.shelf(RESOURCES).all().items():
        machine = house.machines.find(int(sid.partition(":")[2]))
        node = machine.node if machine else house.nodes[0]
        now = states.get(sid, {}).get("state", "queued")
        wanted = {"enabled": "started", "disabled": "stopped"}.get(body.get("state", ""), body.get("state", "started"))
        limits = {"max_restart": body.get("max_restart", 1), "max_relocate": body.get("max_relocate", 1)}
        row = {"id": f"service:{sid}", "sid": sid, "type": "service", "node": node, "state": now, **limits}
        crm = {"crm_state": now} if sid in states else {}
        found.append({**row, **crm, "request_state": wanted, "status": f"{sid} ({node}, {now})"})
    return found


def _managers(house: House) -> list[dict[str, Any]]:
    now = int(house.kit.clock.now())
    at = time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(now))
    master = {"id": "master", "type": "master", "node": house.nodes[0], "status": f"{house.nodes[0]} (active, {at})"}
    found: list[dict[str, Any]] = [{**master, "timestamp": now}]
    for node in house.nodes:
        word = "active" if house.cluster.online(node) else "old timestamp - dead?"
        lrm = {"id": f"lrm:{node}", "type": "lrm", "node": node, "timestamp": now}
        found.append({**lrm, "status": f"{node} ({word}, {at})"})
    return found
