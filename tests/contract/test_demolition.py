"""The end of a cluster on hosts that were there before: they stay, without K3s."""

from __future__ import annotations

from pathlib import Path

import pytest
from k3s_operator import disk, done, existing, load

LEFT = ("var/lib/rancher/k3s", "etc/rancher/k3s/config.yaml", "etc/rancher/node", "etc/systemd/system/k3s.service",
        "etc/systemd/system/k3s-agent.service")  # fmt: skip


def test_destroy_wipes_them_and_they_can_become_a_cluster_again(tmp_path: Path) -> None:
    home = existing(tmp_path / "home", CONTROLLERS=1, WORKERS=1, VIP="")
    done(home, "bootstrap", "--until", "k3s")
    ended = home.fo("destroy")
    assert ended.code == 2
    assert "--confirm lab" in ended.err
    assert "2 deletions" in done(home, "destroy", "--confirm", "lab")
    for node in load(home).nodes:
        assert [path for path in LEFT if (disk(home, node) / path).exists()] == []
    assert "nothing to do" in done(home, "destroy", "--confirm", "lab")
    done(home, "bootstrap", "--until", "k3s")


def test_a_host_that_is_off_is_told_and_keeps_what_it_has(tmp_path: Path) -> None:
    home = existing(tmp_path / "home", CONTROLLERS=1, WORKERS=1, VIP="")
    done(home, "bootstrap", "--until", "k3s")
    done(home, "lab", "hosts", "power-off", "lab-w1")
    said = done(home, "destroy", "--confirm", "lab")
    assert "left: whatever K3s has on lab-w1, which cannot be read" in said
    assert (disk(home, load(home).node("lab-w1")) / LEFT[1]).exists()


@pytest.mark.parametrize("name", ["lab-w1"])
def test_a_mixed_cluster_ends_in_both_ways(tmp_path: Path, name: str) -> None:
    home = existing(tmp_path / "home", known=False, CONTROLLERS=1, WORKERS=2)
    home.set("MACHINES", "proxmox")
    home.set("NODE_W2_MACHINE", "existing")
    done(home, "bootstrap", "--until", "k3s")
    ended = done(home, "destroy", "--confirm", "lab")
    assert f"delete machine/{name}" in ended
    assert "delete wipe/lab-w2" in ended
    assert "wipe/lab-w1" not in ended
