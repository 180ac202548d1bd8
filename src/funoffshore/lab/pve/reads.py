"""What can only be looked at: the datacenter, nodes, lists of machines, pools and permissions.

Facts from pve-manager ``PVE/API2Tools.pm``, ``PVE/API2/Cluster.pm``, ``PVE/API2/Pool.pm``; recorded from a real 8.4
API.
"""

from __future__ import annotations

import re
from typing import Any

from funoffshore import pveapi
from funoffshore.lab.pve import availability, snapshots
from funoffshore.lab.pve.calls import Call, House
from funoffshore.lab.pve.drives import disk_size
from funoffshore.lab.pve.machines import Machine
from funoffshore.lab.pve.refusal import die, invalid
from funoffshore.lab.pve.volumes import TOTAL

BROADCAST_SECONDS = 10.0
"""How often the status daemon tells the cluster of its machines."""
NODE_CORES = 64
_VERSIONS = {
    "8.0": ("8.0.4", "d258a813cfa6b390", "6.2.16-10-pve"),
    "8.4": ("8.4.1", "2a5fa54a8503f96d", "6.8.12-9-pve"),
    "9.1": ("9.1.4", "5ac30304265fbd8e", "6.17.4-1-pve"),
}
_MEMBER = (
    "name", "status", "maxcpu", "cpu", "maxmem", "mem", "maxdisk", "disk", "uptime", "netin", "netout", "diskread",
    "diskwrite", "template", "tags", "lock",
)  # fmt: skip
_IDLE = dict.fromkeys(("cpu", "mem", "disk", "netin", "netout", "diskread", "diskwrite", "uptime"), 0)


def version(call: Call) -> dict[str, str]:
    number, repoid, _ = _VERSIONS[call.house.release]
    return {"version": number, "release": call.house.release, "repoid": repoid}


def permissions(call: Call) -> dict[str, dict[str, int]]:
    """What the caller holds: at one path, or where anything is granted."""
    access, caller = call.house.access, call.caller
    asked = call.text("userid")
    if asked and asked != caller.token_id:
        if asked != caller.user:
            call.need("/access", "Sys.Audit")
        if not access.exists(asked):
            raise die(f"no such user ('{asked}')")
        caller = type(caller)(asked)
    if "path" in call.values:
        return {call.text("path"): access.held(caller, call.text("path"))}
    pooled = [f"/vms/{m.vmid}" for m in call.house.machines.all() if call.house.machines.pool_of(m.vmid)]
    found = {path: access.held(caller, path) for path in [*access.known_paths(caller), *pooled]}
    return {path: held for path, held in found.items() if held}


def cluster_status(call: Call) -> list[dict[str, Any]]:
    cluster, nodes = call.house.cluster, call.house.nodes
    found: list[dict[str, Any]] = []
    if len(nodes) > 1:
        quorum = {"quorate": int(cluster.quorate), "nodes": len(nodes), "version": len(nodes)}
        found.append({"type": "cluster", "id": "cluster", "name": "lab", **quorum})
    for number, node in enumerate(nodes):
        base: dict[str, Any] = {"id": f"node/{node}", "name": node, "type": "node", "ip": call.house.address}
        base |= {"level": "", "online": int(cluster.online(node))}
        found.append({**base, "nodeid": number + 1 if len(nodes) > 1 else 0, "local": int(number == 0)})
    return found


def nodes(call: Call) -> list[dict[str, Any]]:
    fingerprint = ":".join(call.house.fingerprint[i : i + 2] for i in range(0, 64, 2)).upper()
    found = []
    for node in call.house.nodes:
        base = {"node": node, "id": f"node/{node}", "type": "node", "ssl_fingerprint": fingerprint}
        if not call.house.cluster.online(node):
            found.append({**base, "status": "offline"})
        elif call.may(f"/nodes/{node}", "Sys.Audit"):
            found.append({**base, "level": "", **_node(call.house, node)})
        else:
            found.append({**base, "status": "unknown"})
    return found


def node_status(call: Call) -> dict[str, Any]:
    number, repoid, kernel = _VERSIONS[call.house.release]
    node = _node(call.house, call.node)
    free = node["maxmem"] - node["mem"]
    return {
        "uptime": node["uptime"],
        "cpu": node["cpu"],
        "wait": 0,
        "loadavg": ["0.10", "0.08", "0.05"],
        "pveversion": f"pve-manager/{number}/{repoid}",
        "kversion": f"Linux {kernel}",
        "boot-info": {"mode": "efi", "secureboot": 0},
        "cpuinfo": {"cpus": NODE_CORES, "cores": NODE_CORES // 2, "sockets": 1, "model": "Lab CPU", "mhz": "2445.404"},
        "current-kernel": {"sysname": "Linux", "machine": "x86_64", "release": kernel, "version": f"#1 PMX {kernel}"},
        "memory": {"total": node["maxmem"], "used": node["mem"], **dict.fromkeys(("free", "available"), free)},
        "rootfs": {"total": TOTAL, "used": node["disk"], "free": TOTAL - node["disk"], "avail": TOTAL - node["disk"]},
        "swap": {"total": 0, "used": 0, "free": 0},
    }


def cpu_models(call: Call) -> list[dict[str, Any]]:
    """GET …/capabilities/qemu/cpu."""
    return [{"name": name, "vendor": _vendor(name), "custom": 0} for name in pveapi.CPU_MODELS]


def _vendor(name: str) -> str:
    if name in ("host", "max", "kvm32", "kvm64", "qemu32", "qemu64") or name.startswith("x86-64-"):
        return "default"
    return "AuthenticAMD" if re.match(r"EPYC|Opteron|athlon|phenom", name) else "GenuineIntel"


def clock(call: Call) -> dict[str, Any]:
    """GET …/time. The lab's nodes are in UTC."""
    now = int(call.house.kit.clock.now())
    return {"time": now, "localtime": now, "timezone": "UTC"}


def _node(house: House, node: str) -> dict[str, Any]:
    on = [m for m in house.machines.all() if m.node == node and house.machines.is_on(m)]
    memory, used = house.cluster.memory(node, sum(_used_memory(m) for m in on))
    return {
        "status": "online",
        "cpu": round(0.01 * len(on) / NODE_CORES, 6),
        "maxcpu": NODE_CORES,
        "mem": used,
        "maxmem": memory,
        "disk": 4 << 30,
        "maxdisk": TOTAL,
        "uptime": int(house.kit.clock.monotonic()) + 86400,
    }


def network(call: Call) -> list[dict[str, Any]]:
    """Bridges hide from whoever holds nothing on them, nor on one of their VLANs."""
    kind = call.text("type")
    base = {"method6": "manual", "families": ["inet"]}
    found: list[dict[str, Any]] = [{**base, "iface": "eno1", "type": "eth", "method": "manual", "priority": 3}]
    for number, bridge in enumerate(call.house.bridges):
        top = f"/sdn/zones/localnetwork/{bridge}"
        below = (path for path in call.house.access.known_paths(call.caller) if path.startswith(f"{top}/"))
        if any(call.may(path, "SDN.Use", "SDN.Audit", "SDN.Allocate") for path in (top, *below)):
            port = "eno1" if not number else ""
            ports = {"bridge_ports": port, "bridge_stp": "off", "bridge_fd": "0", "autostart": 1, "active": 1}
            gateway = call.house.address.rpartition(".")[0] + ".1"
            address = {"address": call.house.address, "netmask": "24", "cidr": f"{call.house.address}/24"}
            address["gateway"] = gateway
            how = {"method": "static", **address} if not number else {"method": "manual"}
            found.append({**base, **ports, **how, "iface": bridge, "type": "bridge", "priority": 4 + number})
    wanted = {"any_bridge": {"bridge"}, "any_local_bridge": {"bridge"}, "include_sdn": {"bridge", "eth"}}
    return [row for row in found if not kind or row["type"] in wanted.get(kind, {kind})]


def next_id(call: Call) -> str:
    """The lowest free ID, as a string; reserves nothing."""
    taken = {machine.vmid for machine in call.house.machines.all()}
    if "vmid" in call.values:
        if call.vmid in taken:
            raise invalid(vmid=f"VM {call.vmid} already exists")
        return str(call.vmid)
    return str(next(number for number in range(100, 1_000_000) if number not in taken))


def resources(call: Call) -> list[dict[str, Any]]:
    """Everything the caller may see, as last broadcast: a machine just made shows no name yet."""
    kind = call.text("type")
    found: list[dict[str, Any]] = []
    if not kind:
        pools_seen = (pool for pool in sorted(call.house.machines.pools) if call.may(f"/pool/{pool}", "Pool.Audit"))
        found += [{"id": f"/pool/{pool}", "pool": pool, "type": "pool"} for pool in pools_seen]
    if kind in ("", "vm"):
        seen = (m for m in call.house.machines.all() if call.may(f"/vms/{m.vmid}", "VM.Audit"))
        found += [_resource(call.house, machine) for machine in seen]
    if kind in ("", "node"):
        for row in nodes(call):
            row.pop("ssl_fingerprint")
            found.append(row)
    if kind in ("", "storage"):
        found += _storage_resources(call)
    if kind in ("", "sdn") and call.may("/sdn/zones/localnetwork", "SDN.Audit", "SDN.Use", "SDN.Allocate"):
        for node in call.house.nodes:
            zone = {"id": f"sdn/{node}/localnetwork", "sdn": "localnetwork", "type": "sdn"}
            found.append({**zone, "node": node, "status": "ok"})
    return found


def _storage_resources(call: Call) -> list[dict[str, Any]]:
    found = []
    for node in call.house.nodes:
        for storage in call.house.volumes.storages(node):
            if not call.may(f"/storage/{storage.name}", "Datastore.Audit", "Datastore.AllocateSpace"):
                continue
            base: dict[str, Any] = {"id": f"storage/{node}/{storage.name}", "storage": storage.name, "node": node}
            base["type"] = "storage"
            base |= {"plugintype": storage.type, "content": ",".join(storage.content), "shared": int(storage.shared)}
            if call.house.cluster.online(node):
                used = call.house.volumes.used(node, storage)
                found.append({**base, "status": "available", "disk": used, "maxdisk": storage.size})
            else:
                found.append({**base, "status": "unknown"})
    return found


def _resource(house: House, machine: Machine) -> dict[str, Any]:
    base = {"id": f"qemu/{machine.vmid}", "vmid": machine.vmid, "node": machine.node, "type": "qemu"}
    state = availability.state(house, machine.vmid)
    managed = {"hastate": state} if state else {}
    if not house.cluster.online(machine.node):
        known = {key: machine.config[key] for key in ("tags", "lock") if machine.config.get(key)}
        return {**base, "status": "unknown", **known, **_pool(house, machine), **managed}
    now = house.kit.clock.now()
    if house.kit.latencies.api > 0 and now // BROADCAST_SECONDS == machine.born // BROADCAST_SECONDS:
        return {**base, "status": "unknown"}
    return {**base, **member(house, machine), **_pool(house, machine), **managed}


def _pool(house: House, machine: Machine) -> dict[str, str]:
    pool = house.machines.pool_of(machine.vmid)
    return {"pool": pool} if pool else {}


def member(house: House, machine: Machine) -> dict[str, Any]:
    """A machine as cluster-wide lists show it."""
    row = machine_row(house, machine)
    row["maxcpu"] = row.pop("cpus")
    row["template"] = int(machine.config.get("template", 0))
    return {
        "id": f"qemu/{machine.vmid}",
        "vmid": machine.vmid,
        "node": machine.node,
        "type": "qemu",
        **{key: row[key] for key in _MEMBER if key in row},
    }


def machine_row(house: House, machine: Machine) -> dict[str, Any]:
    """A machine as its node's list shows it."""
    on = house.machines.is_on(machine)
    boot = machine.boot_disk
    size = disk_size(machine.parts(boot)) if boot else 0
    row: dict[str, Any] = {
        **_IDLE,
        "vmid": machine.vmid,
        "name": machine.name,
        "status": "running" if on else "stopped",
        "cpus": machine.cores,
        "maxmem": machine.memory << 20,
        "maxdisk": size,
    }
    row |= {key: machine.config[key] for key in ("tags", "lock", "template") if machine.config.get(key)}
    if any(option.startswith("serial") for option in machine.config):
        row["serial"] = 1
    if machine.config.get("balloon"):
        row |= {"balloon_min": int(machine.config["balloon"]) << 20, "shares": 1000}
    if on:
        row["uptime"] = max(0, int(house.kit.clock.now() - machine.started))
        row |= {"cpu": 0.01, "mem": _used_memory(machine), "pid": machine.pid, "netin": 110}
    return row


def _used_memory(machine: Machine) -> int:
    return int((machine.memory << 20) * 0.4)


def machines(call: Call) -> list[dict[str, Any]]:
    """GET …/qemu."""
    seen = (m for m in call.house.machines.all() if m.node == call.node and call.may(f"/vms/{m.vmid}", "VM.Audit"))
    return [machine_row(call.house, machine) for machine in seen]


def machine_status(call: Call) -> dict[str, Any]:
    """GET …/status/current."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    row = machine_row(call.house, machine)
    row |= {"qmpstatus": row["status"], "ha": availability.shown(call.house, machine.vmid)}
    if machine.agent:
        row["agent"] = 1
    if "vga" in machine.config:
        row["clipboard"] = None
    if row["status"] == "running":
        kind = "pc-q35" if str(machine.config.get("machine", "")).startswith("q35") else "pc-i440fx"
        major = call.house.qemu.rpartition(".")[0]
        row |= {"running-qemu": call.house.qemu, "running-machine": f"{kind}-{major}+pve0", "proxmox-support": {}}
        nets = (option[3:] for option in machine.config if option.startswith("net"))
        row["nics"] = {f"tap{machine.vmid}i{number}": {"netin": 110, "netout": 0} for number in nets}
        row["blockstat"] = {option: {} for option in machine.config if pveapi.privileges.is_drive(option)}
    return row


def config(call: Call) -> dict[str, Any]:
    """GET …/config."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    if "snapshot" in call.values:
        kept = snapshots.config_of(call.house, machine.vmid, call.text("snapshot"))
        if kept is None:
            raise die(f"snapshot '{call.text('snapshot')}' does not exist")
        return {**kept, "digest": machine.digest}
    return machine.shown(current=call.flag("current"))


def pending(call: Call) -> list[dict[str, Any]]:
    """GET …/pending."""
    machine = call.house.machines.on_node(call.node, call.vmid)
    found = []
    for key, value in machine.shown(current=True).items():
        row: dict[str, Any] = {"key": key, "value": value}
        if key in machine.pending:
            row |= {"delete": 1} if machine.pending[key] is None else {"pending": machine.pending[key]}
        found.append(row)
    fresh = ((k, v) for k, v in machine.pending.items() if k not in machine.config and v is not None)
    return found + [{"key": key, "pending": value} for key, value in fresh]


def pools(call: Call) -> list[dict[str, Any]]:
    """GET /pools, all or one with its members."""
    known = call.house.machines.pools
    if "poolid" not in call.values:
        seen = (pool for pool in sorted(known) if call.may(f"/pool/{pool}", "Pool.Audit"))
        return [_pool_row(pool, known[pool]) for pool in seen]
    call.need(f"/pool/{call.text('poolid')}", "Pool.Audit")
    return [pool(call)]


def pool(call: Call) -> dict[str, Any]:
    """GET /pools/{poolid}: one with its members, which show neither tags nor locks."""
    name, known = call.text("poolid"), call.house.machines.pools
    if name not in known:
        raise die(f"pool '{name}' does not exist")
    found = [call.house.machines.find(vmid) for vmid in known[name]["vms"]]
    kind = call.text("type")
    members = [member(call.house, machine) for machine in found if machine is not None and kind in ("", "qemu")]
    for row in members:
        row.pop("tags", None)
        row.pop("lock", None)
    if kind in ("", "storage"):
        members += [row for row in _storage_resources(call) if row["storage"] in known[name]["storage"]]
    return {**_pool_row(name, known[name]), "members": members}


def _pool_row(pool: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"poolid": pool, **({"comment": body["comment"]} if body.get("comment") else {})}
