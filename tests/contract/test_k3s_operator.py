"""K3s as an operator changes it, command by command: settings, releases, lost nodes, the way in, the end."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from k3s_homelab import Voice
from operator_home import Operator
from ssh_machines import until

from funoffshore import config as configs
from funoffshore import kubeconfig
from funoffshore.config import ClusterConfig
from funoffshore.lab import lab
from funoffshore.lab.k3s import digest
from funoffshore.lab.web.offers import k3s_asset
from funoffshore.reading import Present
from funoffshore.stages import machines
from funoffshore.world.world import World, open_world

NEXT = "v1.36.5+k3s1"


@pytest.fixture
def home(tmp_path: Path) -> Operator:
    """Three controllers and two workers, as far as K3s goes."""
    made = Operator(tmp_path / "home", CONTROLLERS=3, WORKERS=2)
    done(made, "bootstrap", "--until", "k3s")
    return made


def done(home: Operator, *argv: str) -> str:
    """A command that must end well; what it said."""
    ended = home.fo(*argv)
    assert ended.code == 0, ended.err + ended.out
    return f"{ended.out}{ended.err}"


def planned(home: Operator) -> dict[str, str]:
    """Key → reason of what is left to do to machines and K3s, and of what is held back."""
    ended = home.fo("plan", "--json")
    assert ended.code == 0, ended.err
    body = ended.json
    ours = [action for action in body["actions"] if action["stage"] in ("machines", "k3s")]
    return {one["key"]: one["reason"] for one in [*ours, *body["held"]]}


@contextmanager
def world_of(home: Operator) -> Iterator[tuple[ClusterConfig, World]]:
    """The lab and its doors, for somebody who is not fo."""
    cluster = configs.load(home.env_file, root=home.folder)
    with lab.running(cluster) as clock:
        world = open_world(cluster, clock, home.folder / "cache")
        yield cluster, world
        world.close()


def proxmox_waits(world: World, upid: str) -> None:
    world.proxmox.wait_task(upid, Voice(), "the task")


def node(home: Operator, name: str) -> dict[str, Any]:
    """The Node as the API shows it."""
    with world_of(home) as (_, world):
        reading = world.kube.get("v1/Node", "", name)
    assert isinstance(reading, Present)
    return dict(reading.value)


def test_an_upgrade_from_the_command_to_what_the_kubelets_say(home: Operator) -> None:
    before = kubeconfig.read(home.lab / "lab.kubeconfig")
    shown = done(home, "k3s", "upgrade", NEXT, "--dry-run")
    assert "16 actions" in shown
    assert home.value("K3S_VERSION") == "v1.36.4+k3s1"
    said = done(home, "k3s", "upgrade", NEXT)
    assert re.findall(rf"^(lab-\S+) +{re.escape(NEXT)}$", said, flags=re.MULTILINE) == [
        "lab-c1", "lab-c2", "lab-c3", "lab-w1", "lab-w2",
    ]  # fmt: skip
    assert home.value("K3S_VERSION") == NEXT
    assert planned(home) == {}
    assert kubeconfig.read(home.lab / "lab.kubeconfig") == before
    (kept, _) = sorted((home.lab / "snapshots").iterdir())
    assert kept.name.startswith("before-v1.36.5-k3s1-lab-c")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "s last time)" in done(home, "k3s", "upgrade", "v1.36.6+k3s1", "--dry-run")
    assert not node(home, "lab-w1").get("spec", {}).get("unschedulable")


def test_an_upgrade_that_cannot_be_changes_nothing(home: Operator) -> None:
    before, mutations = home.env_file.read_bytes(), home.mutations()
    for version, said, code in (("v1.38.0+k3s1", "skip a minor", 3), ("v1.35.0+k3s1", "cannot go back", 3),
                                ("stable", "is no release", 2), ("v1.36.4", "is no release", 2)):  # fmt: skip
        ended = home.fo("k3s", "upgrade", version)
        assert (ended.code, said in ended.err) == (code, True), ended.err
    assert (home.env_file.read_bytes(), home.mutations()) == (before, mutations)


def test_a_newer_release_in_the_env_file_is_held_back_until_the_word(home: Operator) -> None:
    home.set("K3S_VERSION", NEXT)
    home.set("K3S_SHA256", digest(NEXT))
    assert list(planned(home)) == ["k3s/upgrade"]
    mutations = home.mutations()
    assert "→ fo k3s upgrade" in done(home, "bootstrap", "--until", "k3s")
    assert home.mutations() == mutations
    done(home, "k3s", "upgrade")
    assert planned(home) == {}


def test_labels_and_taints_come_and_go_without_a_restart(home: Operator) -> None:
    home.set("NODE_W1_LABELS", "disk=fast,zone=a")
    home.set("NODE_W1_TAINTS", "gpu=true:NoSchedule")
    assert list(planned(home)) == ["k3s/lab-w1"]
    done(home, "bootstrap", "--until", "k3s")
    assert planned(home) == {}
    seen = node(home, "lab-w1")
    assert seen["metadata"]["labels"]["disk"] == "fast"
    assert {"key": "gpu", "value": "true", "effect": "NoSchedule"} in seen["spec"]["taints"]
    home.set("NODE_W1_LABELS", "zone=b")
    lines = home.env_file.read_text().splitlines(keepends=True)
    home.env_file.write_text("".join(line for line in lines if not line.startswith("NODE_W1_TAINTS=")))
    done(home, "bootstrap", "--until", "k3s")
    seen = node(home, "lab-w1")
    labels = seen["metadata"]["labels"]
    assert ("disk" in labels, labels["zone"]) == (False, "b")
    assert not seen["spec"].get("taints")
    assert planned(home) == {}


def test_a_setting_of_k3s_rolls_through_and_one_that_breaks_it_is_refused(home: Operator) -> None:
    home.set("K3S_AUDIT", "true")
    home.set("REGISTRY_MIRRORS", '"docker.io=https://127.0.0.9:5000"')
    assert set(planned(home)) == {f"k3s/lab-{name}" for name in ("c1", "c2", "c3", "w1", "w2")}
    done(home, "bootstrap", "--until", "k3s")
    assert planned(home) == {}
    home.set("SERVICE_CIDR", "10.55.0.0/16")
    ended = home.fo("bootstrap", "--until", "k3s")
    assert ended.code == 3
    assert "service-cidr cannot be changed on a living cluster" in ended.err


@pytest.mark.parametrize(("name", "deleted"), [("lab-c2", False), ("lab-c3", True), ("lab-w1", True)])
def test_a_node_that_is_lost_comes_back_with_one_command(home: Operator, name: str, deleted: bool) -> None:
    with world_of(home) as (cluster, world):
        seen = machines.observe(world, cluster).machine(name)
        assert isinstance(seen, Present)
        lost = seen.value
        proxmox_waits(world, world.proxmox.stop(lost.hypervisor, lost.vmid))
        if deleted:
            proxmox_waits(world, world.proxmox.delete(lost.hypervisor, lost.vmid))
    before = kubeconfig.read(home.lab / "lab.kubeconfig")
    done(home, "k3s", "replace", name, "--yes")
    assert planned(home) == {}
    assert kubeconfig.read(home.lab / "lab.kubeconfig") == before


def test_a_founder_that_lost_its_disk_joins_and_never_begins_a_second_cluster(home: Operator) -> None:
    before = kubeconfig.read(home.lab / "lab.kubeconfig")
    done(home, "lab", "faults", "--on", "data-lost,node=lab-c1")
    until(lambda: "k3s/lab-c1" in planned(home), 60)
    done(home, "lab", "faults", "--off", "all")
    ended = home.fo("bootstrap", "--until", "k3s")
    if ended.code:  # its unit had started by itself, and etcd knows its name
        assert "etcd already has a member of that name" in ended.err
        assert "fo k3s replace" in ended.err
        done(home, "k3s", "replace", "lab-c1", "--yes")
    assert planned(home) == {}
    assert kubeconfig.read(home.lab / "lab.kubeconfig") == before
    with world_of(home) as (_, world):
        nodes = world.kube.list("v1/Node")
    assert isinstance(nodes, Present)
    assert len(nodes.value) == 5


def test_replacing_asks_and_names_what_there_is(home: Operator) -> None:
    ended = home.fo("k3s", "replace", "lab-c9", "--yes")
    assert (ended.code, "there is no node lab-c9" in ended.err) == (2, True)
    ended = home.fo("k3s", "replace", "lab-w1")
    assert ended.code == 2
    assert "add --yes" in ended.err
    assert "machine/lab-w1" in ended.out
    assert planned(home) == {}


def test_the_only_controller_is_never_replaced(tmp_path: Path) -> None:
    alone = Operator(tmp_path / "home", CONTROLLERS=1, WORKERS=0, VIP="")
    done(alone, "bootstrap", "--until", "k3s")
    ended = alone.fo("k3s", "replace", "lab-c1", "--yes")
    assert ended.code == 3
    assert "Add controllers first" in ended.err
    assert planned(alone) == {}
    (document,) = [yaml.safe_load((alone.lab / "lab.kubeconfig").read_text())]
    assert document["clusters"][0]["cluster"]["server"] == f"https://{alone.value('CONTROLLER_FIRST_IP')}:6443"


def test_the_way_in_is_fetched_proven_and_merged(home: Operator, tmp_path: Path) -> None:
    (home.lab / "lab.kubeconfig").unlink()
    ended = home.fo("kubeconfig")
    assert ended.out.strip() == str(home.lab / "lab.kubeconfig")
    own = tmp_path / "own" / "config"
    own.parent.mkdir()
    own.write_text("apiVersion: v1\nkind: Config\ncurrent-context: work\nclusters: []\nusers: []\ncontexts: []\n")
    ended = home.fo("kubeconfig", "--merge", variables={"KUBECONFIG": str(own)})
    assert ended.code == 0, ended.err
    merged = yaml.safe_load(own.read_text())
    assert merged["current-context"] == "work"
    assert [one["name"] for one in merged["contexts"]] == ["lab"]
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert home.fo("kubeconfig", "--merge", variables={"KUBECONFIG": "relative"}).code == 2


@pytest.mark.parametrize("source", ["push", "folder"])
def test_without_a_download_on_the_hosts(tmp_path: Path, source: str) -> None:
    values: dict[str, Any] = {"CONTROLLERS": 1, "WORKERS": 1, "K3S_SOURCE": "push"}
    if source == "folder":
        folder = tmp_path / "airgap"
        folder.mkdir()
        for name in ("k3s", "k3s-arm64", "sha256sum-amd64.txt", "sha256sum-arm64.txt",
                     "k3s-airgap-images-amd64.tar.zst"):  # fmt: skip
            content = k3s_asset("v1.36.4+k3s1", name)
            assert content is not None
            (folder / name).write_bytes(content)
        values = {"CONTROLLERS": 1, "WORKERS": 1, "K3S_FOLDER": str(folder)}
    home = Operator(tmp_path / "home", **values)
    done(home, "bootstrap", "--until", "k3s")
    assert planned(home) == {}
    if source == "folder":
        (folder / "k3s").write_bytes(b"another")
        done(home, "bootstrap", "--until", "k3s")  # nothing has to be brought
        ended = home.fo("k3s", "replace", "lab-w1", "--yes")
        assert ended.code == 7 or "is not what is pinned" in ended.err, ended.err
