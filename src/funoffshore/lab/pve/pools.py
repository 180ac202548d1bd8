"""Pools made, changed and deleted. Facts from pve-manager ``PVE/API2/Pool.pm``; recorded from a real 8.4 API."""

from __future__ import annotations

from funoffshore import pveapi
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.refusal import die


def create(call: Call) -> None:
    pool, pools = call.text("poolid"), call.house.machines.pools
    if pool in pools:
        raise die(f"create pool failed: pool '{pool}' already exists")
    pools[pool] = {"comment": call.text("comment"), "vms": [], "storage": []}
    call.house.machines.save_pool(pool)


def update(call: Call) -> None:
    """Unknown machine IDs are taken without a word, and never show."""
    pool, machines = call.text("poolid"), call.house.machines
    if pool not in machines.pools:
        raise die(f"update pools failed: pool '{pool}' does not exist")
    if "comment" in call.values:
        machines.pools[pool]["comment"] = call.text("comment")
    for vmid in (int(part) for part in pveapi.split_list(call.text("vms"))):
        call.need(f"/vms/{vmid}", "VM.Allocate")
        now = machines.pool_of(vmid)
        if call.flag("delete"):
            if now != pool:
                raise die(f"update pools failed: VM {vmid} is not a pool member")
            machines.leave_pool(vmid)
        elif now not in (None, pool) and not call.flag("allow-move"):
            text = f"VM {vmid} belongs already to pool '{now}' and 'allow-move' is not set"
            raise die(f"update pools failed: {text}")
        else:
            machines.leave_pool(vmid)
            machines.join_pool(pool, vmid)
    for storage in pveapi.split_list(call.text("storage")):
        _update_storage(call, pool, storage)
    machines.save_pool(pool)


def _update_storage(call: Call, pool: str, storage: str) -> None:
    """A storage may be in many pools."""
    call.need(f"/storage/{storage}", "Datastore.Allocate")
    kept = call.house.machines.pools[pool]["storage"]
    if call.flag("delete") and storage not in kept:
        raise die(f"update pools failed: Storage '{storage}' is not a pool member")
    if not call.flag("delete") and storage in kept:
        raise die(f"update pools failed: Storage '{storage}' is already a pool member")
    call.house.machines.pools[pool]["storage"] = sorted(
        {*kept, storage} - ({storage} if call.flag("delete") else set())
    )


def delete(call: Call) -> None:
    pool, pools = call.text("poolid"), call.house.machines.pools
    if pool not in pools:
        raise die(f"delete pool failed: pool '{pool}' does not exist")
    real = [vmid for vmid in pools[pool]["vms"] if call.house.machines.find(vmid) is not None]
    if real:
        raise die(f"delete pool failed: pool '{pool}' is not empty (contains VM {real[0]})")
    if pools[pool]["storage"]:
        raise die(f"delete pool failed: pool '{pool}' is not empty (contains storage {pools[pool]['storage'][0]})")
    for vmid in list(pools[pool]["vms"]):
        call.house.machines.leave_pool(vmid)
    del pools[pool]
    call.house.machines.save_pool(pool)
