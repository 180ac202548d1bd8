"""Facts of the machine stage for tests without a world: a config of one controller and one worker, all as desired."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from funoffshore.config import ClusterConfig, Node, loader, new
from funoffshore.plan import Action
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.stages.machines import Hypervisor, Machine, MachineFacts, shape
from funoffshore.world.proxmox import Storage, VmConfig
from funoffshore.world.ssh import FileFact, HostFacts

DIGEST = "a" * 64
PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), DIGEST)
GIB = 2**30
UNSEEN = Unreadable("the door is shut")
RELEASE = (9, 1)


@cache
def config() -> ClusterConfig:
    """One controller, one worker."""
    whole = loader.parse(new.generate("lab", PINS, lab=True), "lab", Path("/nowhere"))
    return replace(whole, nodes=(whole.node("lab-c1"), whole.node("lab-w1")))


def options(node: Node, **changed: str) -> dict[str, str]:
    """The configuration of ``node`` as Proxmox stores it when all is as desired; an empty value is not set."""
    wanted = dict(shape.wanted(config(), node, RELEASE))
    disk = f"local-lvm:vm-{node.vmid}-disk-0,discard=on,iothread=1,size={node.disk_gib}G,ssd=1"
    stored = {
        **wanted,
        "scsi0": disk,
        "name": node.name,
        "smbios1": f"uuid={node.identity}",
        "description": shape.description(config(), node),
        **changed,
    }
    if stored.get("ide2") == "seed":
        stored["ide2"] = f"{shape.seed_volume(config(), node)},media=cdrom"
    return {option: value for option, value in stored.items() if value}


def machine(node: Node, said: dict[str, Any] | None = None) -> Machine:
    """The machine of ``node`` on pve, with what ``said`` says otherwise; ``options`` are changed one by one."""
    said = dict(said or {})
    stored = {} if said.get("lock") == "create" else options(node, **said.pop("options", {}))
    if lock := said.pop("lock", ""):
        stored["lock"] = lock
    ours = Machine("pve", node.vmid, node.name, VmConfig(stored, "d"), running=True, pool="fo-lab")
    return replace(ours, **said)


def reading(word: str, value: str) -> Reading[str]:
    if word == "absent":
        return Absent()
    return UNSEEN if word == "unreadable" else Present(value)


def host(word: str) -> Reading[HostFacts]:
    if word in {"absent", "unreadable"}:
        return Absent() if word == "absent" else UNSEEN
    settled = word == "disabled"
    marker: Reading[FileFact] = Present(FileFact("file", 0o644, "0:0", 1)) if settled else Absent()
    return Present(
        HostFacts(
            hostname="", uuid="", boot_id="", arch="x86_64", os="debian 13", kernel="", clock_skew=0.0,
            clock_synced=True, cloud_init=word, memory_mib=1, swap_mib=0, cpus=1, cgroup2=True, default_route="",  # type: ignore[arg-type]
            listening=frozenset(), files={"/etc/cloud/cloud-init.disabled": marker},
        )
    )  # fmt: skip


def hypervisor(**changed: Any) -> Hypervisor:
    storages = {
        "local-lvm": Storage("local-lvm", frozenset({"images"}), 500 * GIB, True, False, node="pve"),
        "local": Storage("local", frozenset({"import", "iso"}), 50 * GIB, True, False, node="pve"),
    }
    whole = Hypervisor(
        online=True, memory_total=64 * GIB, memory_free=60 * GIB, cpus=16, promised=0, storages=storages,
        bridges=frozenset({"vmbr0"}), cpu_models=Present(frozenset({"x86-64-v2-AES"})), clock_skew=Present(0.1),
    )  # fmt: skip
    return replace(whole, **changed)


def facts(case: dict[str, Any], **changed: Any) -> MachineFacts:
    """``machines``: by name "absent", "unreadable" or what differs; ``seeds``, ``pool``, ``image`` likewise."""
    seen: dict[str, Reading[Machine]] = {}
    for node in config().nodes:
        said = case["machines"].get(node.name, "absent")
        seen[node.name] = (
            Present(machine(node, said)) if isinstance(said, dict) else Absent() if said == "absent" else UNSEEN
        )
    whole = MachineFacts(
        release=Present(RELEASE),
        machines=seen,
        pool=reading(case.get("pool", "present"), "fo-lab"),
        images={"pve": reading(case.get("image", "present"), "x")},
        seeds={n.name: reading(case.get("seeds", {}).get(n.name, "absent"), "pve") for n in config().nodes},
        hypervisors={"pve": Present(hypervisor())},
        quorate=Present(True),
    )
    return replace(whole, **changed)


def line(action: Action) -> str:
    after = f" after {' '.join(sorted(action.after))}" if action.after else ""
    return f"{action.verb} {action.key}{after}{f' [{action.lane}]' if action.lane else ''}"
