"""Machines that stand there already (MACHINES=existing), as an operator walks the road with them: ``fo`` as a command,
Proxmox never asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from k3s_operator import authorities, bare, clusters, disk, done, existing, know, left, load, members
from operator_home import Operator

from funoffshore.config import identity
from funoffshore.lab.k3s import digest

ARM = digest("v1.36.4+k3s1", "arm64")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Three controllers and two workers with K3s on them. Tests leave it as they found it."""
    home = existing(tmp_path_factory.mktemp("existing") / "home", CONTROLLERS=3, WORKERS=2)
    done(home, "bootstrap", "--until", "k3s")
    return home


def k3s_of(home: Operator, name: str) -> set[str]:
    """What of K3s lies on the disk of ``name``."""
    root = disk(home, load(home).node(name))
    return {path for path in ("var/lib/rancher/k3s", "etc/rancher/k3s/config.yaml", "etc/rancher/node/password",
                              "etc/systemd/system/k3s-agent.service") if (root / path).exists()}  # fmt: skip


def test_bare_hosts_become_a_cluster_and_nothing_is_left_to_do(finished: Operator) -> None:
    assert left(finished) == []
    assert len(clusters(finished)) == len(authorities(finished)) == 1
    assert members(finished) == {"lab-c1", "lab-c2", "lab-c3"}
    before = finished.mutations()
    assert "nothing to do" in done(finished, "bootstrap", "--until", "k3s")
    assert finished.mutations() == before


def test_proxmox_is_not_asked(finished: Operator) -> None:
    """With a pin and a token that no Proxmox has, whatever asked one would fail; nothing does."""
    kept = finished.env_file.read_text()
    finished.set("PROXMOX_FINGERPRINT", "ab" * 32)
    finished.set("PROXMOX_TOKEN_SECRET", "00000000-0000-0000-0000-000000000000")
    try:
        assert "wipe/lab-w2" in done(finished, "k3s", "replace", "lab-w2", "--yes")
        assert left(finished) == []
        findings = finished.fo("doctor", "--json").json["findings"]
        assert not [f for f in findings if f["outcome"] in ("fail", "unknown")]
    finally:
        finished.env_file.write_text(kept)
    assert {entry.split()[0] for entry in finished.ledger()} <= {"ssh", "kube"}


def test_they_keep_the_identity_that_they_came_with(finished: Operator) -> None:
    """fo cannot give a host its system UUID, so its own is the one that counts."""
    own = bare(finished, "lab-w1").uuid
    assert own != str(identity("lab", "lab-w1"))
    shown = finished.fo("lab", "hosts", "list", "--json").json
    assert own in {machine["uuid"] for machine in shown}


def test_a_worker_is_wiped_and_joins_again(finished: Operator) -> None:
    root = disk(finished, load(finished).node("lab-w1"))
    password = (root / "etc/rancher/node/password").read_text()
    marker = root / "var/lib/rancher/k3s/agent/of-before"
    marker.write_text("old\n")
    said = done(finished, "k3s", "replace", "lab-w1", "--yes")
    assert "wipe/lab-w1" in said
    assert not marker.exists()
    assert (root / "etc/rancher/node/password").read_text() != password
    assert left(finished) == []
    assert len(clusters(finished)) == 1


def test_a_controller_is_wiped_and_joins_again_as_a_member(finished: Operator) -> None:
    before = clusters(finished)
    done(finished, "k3s", "replace", "lab-c1", "--yes")
    assert left(finished) == []
    assert members(finished) == {"lab-c1", "lab-c2", "lab-c3"}
    assert clusters(finished) == before
    joined = (disk(finished, load(finished).node("lab-c1")) / "etc/rancher/k3s/config.yaml").read_text()
    assert "cluster-init" not in joined


def test_a_worker_that_leaves_the_env_file_is_held_and_then_wiped(tmp_path: Path) -> None:
    home = existing(tmp_path / "home", CONTROLLERS=1, WORKERS=2)
    done(home, "bootstrap", "--until", "k3s")
    root = disk(home, load(home).node("lab-w2"))
    home.set("WORKERS", "1")
    assert left(home) == ["leave/lab-w2"]
    assert "nothing to do" in done(home, "bootstrap", "--until", "k3s")
    done(home, "bootstrap", "--until", "k3s", "--remove", "lab-w2")
    assert not (root / "var/lib/rancher/k3s").exists()
    assert not (root / "etc/rancher/k3s/config.yaml").exists()
    assert left(home) == []
    home.set("WORKERS", "2")
    done(home, "bootstrap", "--until", "k3s")
    assert left(home) == []


def test_one_machine_without_a_virtual_address_is_a_finished_homelab(tmp_path: Path) -> None:
    home = existing(tmp_path / "home", CONTROLLERS=1, WORKERS=0, VIP="")
    done(home, "bootstrap")
    config = load(home)
    assert config.network.vip == config.controllers[0].address
    assert f"server: https://{config.controllers[0].address}:6443" in config.kubeconfig.read_text()
    assert not list((disk(home, config.nodes[0]) / "var/lib/rancher/k3s/server/manifests").glob("*kube-vip*"))
    assert home.fo("plan", "--json").json == {"actions": [], "held": []}


def test_a_cluster_of_both_kinds_and_both_architectures(tmp_path: Path) -> None:
    home = Operator(tmp_path / "home", CONTROLLERS=1, WORKERS=2, NODE_W2_MACHINE="existing", K3S_SHA256_ARM64=ARM)
    done(home, "lab", "hosts", "add", "lab-w2", "--architecture", "arm64")
    know(home)
    done(home, "bootstrap", "--until", "k3s")
    assert left(home) == []
    machines = [e for e in home.ledger() if "POST /nodes/pve/qemu " in e]
    assert len(machines) == 2
    binary = disk(home, load(home).node("lab-w2")) / "usr/local/bin/k3s"
    assert binary.read_bytes().split(b"\n")[0].endswith(b"aarch64") or b"arm64" in binary.read_bytes()[:200]
    done(home, "k3s", "replace", "lab-w2", "--yes")
    assert left(home) == []
    assert [e for e in home.ledger() if "POST /nodes/pve/qemu " in e] == machines


def test_a_machine_installed_anew_is_refused_until_its_new_key_is_told(tmp_path: Path) -> None:
    home = existing(tmp_path / "home", CONTROLLERS=1, WORKERS=1)
    done(home, "bootstrap", "--until", "k3s")
    done(home, "lab", "hosts", "wipe", "lab-w1")
    before = home.mutations()
    refused = home.fo("bootstrap", "--until", "k3s")
    assert refused.code != 0
    assert "host key" in refused.err
    assert home.mutations() == before
    know(home)
    done(home, "k3s", "replace", "lab-w1", "--yes")
    assert left(home) == []
    assert len(clusters(home)) == 1
    assert k3s_of(home, "lab-w1") >= {"var/lib/rancher/k3s", "etc/rancher/k3s/config.yaml"}


def test_hosts_whose_keys_nobody_gave_are_believed_once(tmp_path: Path) -> None:
    """SSH_TRUST=first-use: told, recorded, and another key is refused until the operator says that it is a new one."""
    home = existing(tmp_path / "home", known=False, CONTROLLERS=1, WORKERS=1)
    assert [line for line in left(home) if "trust/lab-w1" in line]
    said = done(home, "bootstrap", "--until", "k3s")
    assert "host key of lab-w1 with fingerprint SHA256:" in said
    assert "accepted on first use" in said
    assert left(home) == []
    done(home, "lab", "hosts", "wipe", "lab-w1")
    before = home.mutations()
    refused = home.fo("k3s", "replace", "lab-w1", "--yes")
    assert refused.code != 0
    assert "host key" in refused.err
    assert home.mutations() == before
    done(home, "k3s", "replace", "lab-w1", "--yes", "--new-host-key")
    assert left(home) == []
    assert len(clusters(home)) == 1
