"""The create request: what is in it, and that each release of Proxmox would take it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import machines_samples as kit
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore import pveapi, seed
from funoffshore.config import ClusterConfig
from funoffshore.stages.machines import shape, stored
from funoffshore.stages.machines.placing import Place
from funoffshore.world.proxmox import VmConfig

PLACE = Place("pve2", 9042, "there is room")
FULL: dict[str, Any] = {
    "nodes": {"lab-c1": {"data_disk_gib": 64, "pci": ("gpu", "nic"), "usb": ("stick",)}},
    "shape": {"uefi": True, "firewall": True, "startup": "order=2,up=30", "watchdog": True, "tags": ("Zoo", "alpha")},
}


def body(config: ClusterConfig, release: tuple[int, int] = kit.NEW) -> dict[str, Any]:
    return shape.body(config, config.node("lab-c1"), PLACE, release)


def test_the_plain_machine() -> None:
    config = kit.config(proxmox={"disk_storage": "fast", "image_storage": "local", "bridge": "vmbr0", "vlan": None})
    node = config.node("lab-c1")
    assert body(config) == {
        "vmid": 9042,
        "description": f"Made by funoffshore: controller lab-c1 of cluster lab.\n\nfo-identity: {node.identity}",
        "name": "lab-c1",
        "tags": "fo;fo-lab",
        "ostype": "l26",
        "machine": "q35",
        "bios": "seabios",
        "cpu": "x86-64-v2-AES",
        "sockets": 1,
        "cores": 2,
        "numa": 0,
        "memory": 4096,
        "balloon": 0,
        "scsihw": "virtio-scsi-single",
        "scsi0": f"fast:0,import-from={shape.image_volume(config)},discard=on,iothread=1,ssd=1",
        "ide2": f"{shape.seed_volume(config, node)},media=cdrom",
        "boot": "order=scsi0",
        "serial0": "socket",
        "vga": "serial0",
        "net0": f"virtio={seed.mac(node.identity)},bridge=vmbr0",
        "agent": "enabled=1",
        "onboot": 1,
        "smbios1": f"uuid={node.identity}",
        "pool": config.proxmox.pool,
    }


def test_everything_that_can_be_asked_for() -> None:
    config = kit.config(**FULL, proxmox={"disk_storage": "fast", "bridge": "vmbr1", "vlan": 30, "pool": ""})
    made = body(config)
    mac = seed.mac(config.node("lab-c1").identity)
    assert {key: made.get(key) for key in ("bios", "efidisk0", "scsi1", "net0", "startup", "watchdog", "tags")} == {
        "bios": "ovmf",
        "efidisk0": "fast:1,efitype=4m,pre-enrolled-keys=0",
        "scsi1": "fast:64,discard=on,iothread=1,serial=fo-data,ssd=1",
        "net0": f"virtio={mac},bridge=vmbr1,firewall=1,tag=30",
        "startup": "order=2,up=30",
        "watchdog": "model=i6300esb,action=reset",
        "tags": "alpha;fo;fo-lab;zoo",
    }
    assert (made["hostpci0"], made["hostpci1"], made["usb0"]) == (
        "mapping=gpu,pcie=1",
        "mapping=nic,pcie=1",
        "mapping=stick",
    )
    assert "pool" not in made


def test_the_cloud_init_drive_of_proxmox() -> None:
    config = kit.config(proxmox={"seed": "drive", "disk_storage": "fast"})
    made = body(config)
    network, node = config.network, config.node("lab-c1")
    assert made["ide2"] == "fast:cloudinit"
    assert made["ipconfig0"] == f"ip={node.address}/{network.subnet.prefixlen},gw={network.gateway}"
    assert (made["ciuser"], made["ciupgrade"], made["searchdomain"]) == (config.ssh.user, 0, config.domain)
    assert made["nameserver"] == " ".join(map(str, network.dns))
    assert " " not in made["sshkeys"]
    assert "+" not in made["sshkeys"]
    assert unquote(made["sshkeys"]) == seed.authorized_key(config)


CONFIGS = st.builds(
    lambda uefi, firewall, vlan, cloud, data, extra: kit.config(
        shape={"uefi": uefi, "firewall": firewall, "watchdog": extra, "startup": "order=3" if extra else ""},
        proxmox={"vlan": vlan, "seed": cloud},
        nodes={"lab-c1": {"data_disk_gib": data, "pci": ("gpu",) if extra else (), "usb": ("stick",) if extra else ()}},
    ),
    st.booleans(), st.booleans(), st.none() | st.integers(1, 4094), st.sampled_from(["iso", "drive"]),
    st.sampled_from([0, 10]), st.booleans(),
)  # fmt: skip


@given(CONFIGS, st.sampled_from([kit.OLD, kit.NEW]))
def test_every_release_takes_every_request(config: ClusterConfig, release: tuple[int, int]) -> None:
    version = f"{release[0]}.{release[1]}"
    assert pveapi.check(version, "POST", "/nodes/pve2/qemu", body(config, release)) == {}
    node = config.node("lab-c1")
    cloned = VmConfig({"scsi0": "fast:vm-1-disk-0,size=2G,cache=none"})
    changes = shape.after_clone(config, node, PLACE, release, cloned)
    assert pveapi.check(version, "POST", "/nodes/pve2/qemu/9042/config", changes) == {}
    assert pveapi.check(version, "POST", "/nodes/pve2/qemu/8000/clone", shape.clone_body(config, node, PLACE)) == {}


@given(CONFIGS, st.sampled_from([kit.OLD, kit.NEW]))
def test_what_fo_vouches_for_is_what_it_asked_for(config: ClusterConfig, release: tuple[int, int]) -> None:
    wanted, asked = shape.wanted(config, config.node("lab-c1"), release), body(config, release)
    assert wanted.keys() <= asked.keys()
    for option in wanted.keys() - {"description"}:
        assert stored.changed(release, option, wanted[option], str(asked[option])) == set(), option
    never = {
        "smbios1",
        "ide2",
        "vmid",
        "pool",
        "ciuser",
        "sshkeys",
        "ipconfig0",
        "nameserver",
        "searchdomain",
        "ciupgrade",
    }
    assert not wanted.keys() & never


def test_a_clone_gets_everything_but_another_boot_disk() -> None:
    config = kit.config(**FULL, image={"template": "debian-13"})
    node = config.node("lab-c1")
    cloned = VmConfig(
        {"scsi0": "fast:vm-9042-disk-1,size=2G,ssd=1,cache=none", "efidisk0": "fast:vm-9042-disk-0,size=4M"}
    )
    changes = shape.after_clone(config, node, PLACE, kit.NEW, cloned)
    assert changes["scsi0"] == "fast:vm-9042-disk-1,cache=none,discard=on,iothread=1,size=2G,ssd=1"
    assert changes["smbios1"] == f"uuid={node.identity}"
    assert changes["scsi1"].startswith(f"{config.proxmox.disk_storage}:64,")
    assert {"efidisk0", "vmid", "pool"}.isdisjoint(changes)
    assert "scsi0" not in shape.after_clone(config, node, PLACE, kit.NEW)
    copy = shape.clone_body(config, node, PLACE)
    assert (copy["newid"], copy["full"], copy["target"]) == (9042, 1, "pve2")
    assert str(node.identity) in copy["description"]


@pytest.mark.parametrize(
    ("option", "begins"), [("scsi1", "fast:64,"), ("efidisk0", "fast:1,"), ("scsi0", ""), ("ide2", "")]
)
def test_a_disk_that_can_be_made_anew(option: str, begins: str) -> None:
    config = kit.config(**FULL, proxmox={"disk_storage": "fast"})
    made = shape.fresh_disk(config, config.node("lab-c1"), option)
    assert made.startswith(begins)
    assert bool(made) == bool(begins)
