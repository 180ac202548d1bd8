"""K3s on machines that stand there already: real Debians that fo is told the addresses of, and no Proxmox."""

from __future__ import annotations

from pathlib import Path

import pytest
from operator_home import Ended
from real_home import RealOperator, eventually

from bench import home
from funoffshore import config as configs

pytestmark = pytest.mark.real
MINUTES = 60
NODES = {"bench-c1": "10.77.0.11", "bench-c2": "10.77.0.12", "bench-c3": "10.77.0.13", "bench-w1": "10.77.0.21"}
IDENTITY = "cat /etc/machine-id; sudo cat /sys/class/dmi/id/product_uuid"


@pytest.fixture(scope="module")
def owner(operator: RealOperator, tmp_path_factory: pytest.TempPathFactory) -> RealOperator:
    """Has four machines, made by somebody else's fo, and what it takes to log in there; nothing of Proxmox."""
    operator.set("WORKERS", "1")
    operator.drop("NODE_W2_DATA_DISK_GIB")
    made = operator.fo("bootstrap", "--until", "machines", timeout=10 * MINUTES)
    assert made.code == 0, made.err[-4000:]
    keys = []
    for address in NODES.values():
        shown = operator.ssh(address, "sudo cat /etc/ssh/ssh_host_ed25519_key.pub")
        assert shown.code == 0, shown.err
        keys.append(f"{address} {' '.join(shown.out.split()[:2])}")
    proxmox = {key: None for key in home.answers() if key.startswith(("PROXMOX_", "IMAGE_"))}
    own = {
        "MACHINES": "existing",
        "SSH_PRIVATE_KEY": operator.value("SSH_PRIVATE_KEY"),
        "SSH_KNOWN_HOSTS": ";".join(keys),
    }
    return RealOperator(tmp_path_factory.mktemp("owner") / "home", 3, 1, **proxmox, **own)


def did(owner: RealOperator, *argv: str, minutes: float = 15) -> str:
    """``fo`` to its good end; what it said."""
    ended: Ended = owner.fo(*argv, timeout=minutes * MINUTES)
    assert ended.code == 0, ended.err[-6000:]
    return ended.err


def are_ready(owner: RealOperator) -> bool:
    found = owner.get("nodes")["items"]
    return {node["metadata"]["name"] for node in found} == NODES.keys() and all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]) for node in found
    )


def test_they_become_a_cluster_and_keep_who_they_are(owner: RealOperator) -> None:
    before = {name: owner.ssh(address, IDENTITY).out for name, address in NODES.items()}
    did(owner, "bootstrap", "--until", "k3s")
    eventually("all of them to be Ready", lambda: are_ready(owner), 2 * MINUTES)
    assert {name: owner.ssh(address, IDENTITY).out for name, address in NODES.items()} == before
    config = configs.load(owner.env_file, owner.folder)
    assert not config.made


def test_a_second_run_finds_nothing_to_do(owner: RealOperator) -> None:
    assert "nothing to do" in did(owner, "bootstrap", "--until", "k3s")


@pytest.mark.parametrize("name", ["bench-w1", "bench-c2"])
def test_one_is_wiped_of_k3s_and_joins_again(owner: RealOperator, name: str) -> None:
    address = NODES[name]
    before = owner.get("node", name)["metadata"]["uid"]
    marker = "/var/lib/rancher/k3s/of-before"
    told = owner.ssh(address, f"sudo touch {marker}; cat /proc/sys/kernel/random/boot_id")
    assert told.code == 0, told.err
    did(owner, "k3s", "replace", name, "--yes")
    eventually(f"{name} to be Ready", lambda: are_ready(owner), 2 * MINUTES)
    assert owner.get("node", name)["metadata"]["uid"] != before
    after = owner.ssh(
        address, f"ls {marker}; cat /proc/sys/kernel/random/boot_id; mount | grep -c /var/lib/kubelet/pods"
    )
    assert marker not in after.out
    assert told.out.strip() in after.out, "its machine was not restarted"
    assert "nothing to do" in did(owner, "bootstrap", "--until", "k3s")


def test_destroy_leaves_the_machines_and_takes_k3s(owner: RealOperator, tmp_path: Path) -> None:
    did(owner, "destroy", "--confirm", owner.name)
    for address in NODES.values():
        told = owner.ssh(
            address, "ls -d /var/lib/rancher/k3s /etc/rancher/k3s/config.yaml; systemctl is-active k3s k3s-agent"
        )
        assert "/var/lib/rancher/k3s\n" not in told.out
        assert "config.yaml\n" not in told.out
        assert "\nactive" not in "\n" + told.out
