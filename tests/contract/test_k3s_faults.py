"""Hosts and networks that are not as they should be, while K3s is founded, joined or started: each ends in a named
cause or, once the fault is over, in the cluster that was wanted; never in a second one."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from k3s_homelab import Homelab, Voice
from k3s_trouble import (
    clusters,
    fails,
    holds_nothing,
    members,
    only,
    ready_nodes,
    settle,
    short,
    told,
    unharmed,
    untouched,
    without,
    world_of,
)
from ssh_machines import until

from funoffshore import errors
from funoffshore.lab.hosts import cloudinit
from funoffshore.plan import Action, Verb
from funoffshore.stages import k3s
from funoffshore.stages.k3s import facts, files, graph
from funoffshore.world.world import World

ALL = {"lab-c1", "lab-c2", "lab-w1"}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Homelab]:
    """Two controllers and a worker, booted and without K3s."""
    lab = Homelab(tmp_path, 2, 1)
    lab.boot()
    yield lab
    lab.close()


@pytest.fixture
def founded(empty: Homelab) -> Homelab:
    """The first controller is up; the others have still to come in."""
    empty.carry_out(without(empty.plan(), "k3s/lab-c2", "k3s/lab-w1"))
    return empty


@contextmanager
def fault(lab: Homelab, name: str, **parameters: str) -> Iterator[None]:
    lab.kit.faults.on(name, **parameters)
    try:
        yield
    finally:
        lab.kit.faults.off(name)


def comes_in(lab: Homelab) -> None:
    """With nothing in the way any more, the next run ends with the one cluster that was wanted."""
    before = clusters(lab)
    settle(lab)
    assert ready_nodes(lab) == ALL
    assert clusters(lab) >= before
    assert list(members(lab).values()) == [{"lab-c1", "lab-c2"}]


# ------------------------------------------------------------------------------------- clocks and disks of the hosts


@pytest.mark.parametrize("minutes", ["10", "-10"])
@pytest.mark.parametrize("name", ["lab-c2", "lab-w1"])
def test_a_clock_ten_minutes_off_is_refused_before_anything_is_written(
    founded: Homelab, name: str, minutes: str
) -> None:
    with fault(founded, "clock-off", node=name, minutes=minutes), untouched(founded):
        why = fails(founded, only(founded.plan(), f"k3s/{name}"))
    assert isinstance(why, errors.PreflightError)
    assert f"the clock of {name} is" in why.message
    assert "NTP" in why.fix
    assert holds_nothing(founded, name)
    comes_in(founded)


def test_nobody_founds_a_cluster_with_a_wrong_clock(empty: Homelab) -> None:
    with fault(empty, "clock-off", node="lab-c1"), untouched(empty):
        assert "the clock of lab-c1 is" in fails(empty).message
    assert clusters(empty) == set()
    comes_in(empty)


@pytest.mark.parametrize("name", ["lab-c2", "lab-w1"])
def test_64_kib_free_are_refused_before_anything_is_written(founded: Homelab, name: str) -> None:
    founded.host(name).path("/var/lib/rancher").mkdir()  # where a disk for K3s alone is mounted
    with fault(founded, "disk-full", node=name), untouched(founded):
        why = fails(founded, only(founded.plan(), f"k3s/{name}"))
    assert f"{name} has 0 MiB free for K3s" in why.message
    assert holds_nothing(founded, name)
    comes_in(founded)


def test_a_disk_that_filled_up_is_named_when_its_server_starts(founded: Homelab) -> None:
    comes_in(founded)
    founded.host("lab-c2").units.stop("k3s")
    with fault(founded, "disk-full", node="lab-c2"), unharmed(founded), short():
        why = fails(founded, only(founded.plan(), "k3s/lab-c2"))
    assert "MiB free" in told(why) or "its disk is full" in told(why)
    comes_in(founded)


@pytest.mark.parametrize("name", ["lab-c1", "lab-c2", "lab-w1"])
def test_a_read_only_disk_is_named(empty: Homelab, name: str) -> None:
    if name != "lab-c1":
        empty.carry_out(only(empty.plan(), "k3s/lab-c1"))
    with fault(empty, "disk-read-only", node=name), unharmed(empty):
        why = fails(empty, only(empty.plan(), f"k3s/{name}"))
    assert "ead-only" in told(why)
    assert name in why.message
    assert holds_nothing(empty, name)
    comes_in(empty)


def test_a_read_only_disk_of_a_server_that_starts_is_named(founded: Homelab) -> None:
    comes_in(founded)
    founded.host("lab-c2").units.stop("k3s")
    with fault(founded, "disk-read-only", node="lab-c2"), unharmed(founded), short():
        assert "ead-only" in told(fails(founded, only(founded.plan(), "k3s/lab-c2")))
    comes_in(founded)


# ---------------------------------------------------------------------------------------------- between the hosts


class Dropping:
    """The API for a client whose first ``many`` writes of each kind are lost on the way, with their connection."""

    def __init__(self, kube: Any, many: int) -> None:
        self._kube, self._left = kube, {"delete": many, "patch": many}

    def __getattr__(self, name: str) -> Any:
        if self._left.get(name, 0):
            self._left[name] -= 1
            return self._lost
        return getattr(self._kube, name)

    @staticmethod
    def _lost(*args: Any) -> None:
        raise errors.UnreachableError("https://vip:6443 does not answer: Remote end closed connection")


@pytest.mark.parametrize("kind", ["drain", "leave"])
def test_an_api_that_moves_on_to_another_server_is_waited_for(founded: Homelab, kind: str) -> None:
    """A server that goes takes the VIP with it for a moment."""
    founded.converge()
    kube: Any = Dropping(founded.world.kube, 2)
    action = Action(Verb.CHANGE, f"{kind}/lab-w1", "it is to leave", frozenset(), stage="k3s", on="lab-w1")
    k3s.apply(replace(founded.world, kube=kube), founded.config, action, founded.voice)
    seen = founded.facts().node("lab-w1")
    assert seen is None if kind == "leave" else seen is not None and seen.drained


@pytest.mark.parametrize(
    ("name", "port"), [("lab-c2", "6443"), ("lab-c2", "2380"), ("lab-c2", "2379"), ("lab-w1", "6443")]
)
def test_a_port_that_is_blocked_is_named_with_both_ends(founded: Homelab, name: str, port: str) -> None:
    """6443 is blocked to the server and to the VIP, where a joiner knocks."""
    address = "*" if port == "6443" else str(founded.config.node("lab-c1").address)
    with (
        fault(founded, "port-blocked", **{"from": name, "to": address, "port": port}),
        unharmed(founded, joins=name),
        short(),
    ):
        why = fails(founded, only(founded.plan(), f"k3s/{name}"))
    assert f"{name} cannot reach lab-c1 on TCP {port}" in told(why)
    assert "firewall" in told(why)
    comes_in(founded)


def test_a_learner_that_stays_one_is_named(founded: Homelab) -> None:
    with fault(founded, "learner-stuck", node="lab-c2"), unharmed(founded, joins="lab-c2"), short():
        why = fails(founded, only(founded.plan(), "k3s/lab-c2"))
    assert "lab-c2" in why.message
    assert "learner" in told(why) or "still copying" in told(why)
    comes_in(founded)


def test_a_join_that_hangs_ends_with_the_journal(founded: Homelab) -> None:
    with fault(founded, "join-hang", node="lab-c2"), unharmed(founded, joins="lab-c2"), short():
        why = fails(founded, only(founded.plan(), "k3s/lab-c2"))
    assert isinstance(why, errors.DeadlineError)
    assert "lab-c2" in why.message
    assert why.evidence
    comes_in(founded)


def test_two_servers_that_join_at_once_wait_for_one_another(tmp_path: Path) -> None:
    """etcd takes one learner at a time; K3s refuses the second one, and that is no reason to give up."""
    lab = Homelab(tmp_path, 3)
    lab.boot()
    try:
        lab.carry_out(only(lab.plan(), "k3s/lab-c1"))
        joins = {
            key: replace(a, after=frozenset(), lane="")
            for key, a in lab.plan().actions.items()
            if key.startswith("k3s")
        }
        lab.carry_out(replace(lab.plan(), actions=joins))
        lab.converge()
        assert list(members(lab).values()) == [{"lab-c1", "lab-c2", "lab-c3"}]
    finally:
        lab.close()


def test_an_image_that_cannot_be_pulled_is_named(empty: Homelab) -> None:
    with fault(empty, "image-pull", image="*kube-vip*"), short():
        why = fails(empty, only(empty.plan(), "k3s/lab-c1"))
    assert "the VIP" in why.message
    assert f"the image {empty.config.k3s.kube_vip_image} of kube-vip" in why.message
    assert "cannot be pulled" in why.message
    assert len(clusters(empty)) == 1
    comes_in(empty)


def test_names_that_are_not_resolved_are_named(founded: Homelab) -> None:
    """The host fetches K3s from a name."""
    url = founded.config.k3s.download_url.replace(str(founded.config.network.subnet[3]), "mirror.example.org")
    config = replace(founded.config, k3s=replace(founded.config.k3s, download_url=url))
    with fault(founded, "dns-broken", node="lab-w1"), unharmed(founded):
        why = fails(founded, only(founded.plan(config), "k3s/lab-w1"), config)
    assert "name resolution" in told(why)
    assert "lab-w1" in why.message
    comes_in(founded)


# ------------------------------------------------------------------------------------------------------ who is who


def test_a_host_key_that_changed_keeps_everybody_from_founding(empty: Homelab) -> None:
    """Whether that controller holds a cluster cannot be told, so there may be one."""
    before = empty.plan().actions["k3s/lab-c1"]
    assert before.reason == graph.FOUNDS
    _change_host_key(empty, "lab-c2")
    with untouched(empty), short():
        with pytest.raises(errors.TrustError, match=r"lab-c2 .* has another host key"):
            empty.plan()
        with pytest.raises(errors.TrustError, match=r"lab-c2 .* has another host key"):
            k3s.apply(empty.world, empty.config, before, empty.voice)
    assert clusters(empty) == set()


def test_a_host_key_that_changed_keeps_that_host_out(founded: Homelab) -> None:
    plan = only(founded.plan(), "k3s/lab-w1")
    _change_host_key(founded, "lab-w1")
    with untouched(founded):
        assert "lab-w1" in told(why := fails(founded, plan))
        assert isinstance(why, errors.TrustError)
        assert "another host key" in why.message


def _change_host_key(lab: Homelab, name: str) -> None:
    host = lab.host(name)
    lab.machines.power_off(host.vmid)
    cloudinit.generate_host_key(host)
    lab.world.hosts.close()
    lab.machines.power_on(host.hardware)
    until(lambda: lab.world.hosts.answers(host.address))


class Prompt(Voice):
    """Tells when it is waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Event()

    def say(self, sentence: str) -> None:
        super().say(sentence)
        if "waiting for" in sentence:
            self.waits.set()


def test_two_computers_that_bootstrap_at_once_found_one_cluster(empty: Homelab, tmp_path: Path) -> None:
    """The lock is a computer's own; what keeps them from two clusters is that only one host ever founds one."""
    empty.kit.faults.on("image-pull", image="*kube-vip*")  # so that the first one is still waiting
    action = empty.plan().actions["k3s/lab-c1"]
    assert action.reason == graph.FOUNDS
    first = Prompt()
    ended: list[object] = []

    def found(world: World, voice: Voice) -> None:
        try:
            k3s.apply(world, empty.config, action, voice)
            ended.append(None)
        except errors.FoError as why:
            ended.append(why)

    with world_of(empty, empty.config, tmp_path / "second") as second:
        threads = [threading.Thread(target=found, args=who) for who in ((empty.world, first), (second, Prompt()))]
        threads[0].start()
        assert first.waits.wait(30)
        until(lambda: (empty.host("lab-c1").path(facts.TOKEN)).exists())
        threads[1].start()
        empty.kit.faults.off("image-pull")
        for thread in threads:
            thread.join(60)
    assert len(ended) == 2
    assert len(clusters(empty)) == 1
    comes_in(empty)


def test_a_second_host_of_the_same_name_is_told_apart(empty: Homelab) -> None:
    """Two systems that call themselves alike are two Nodes: the name in the cluster is the env file's."""
    for name in ("lab-c2", "lab-w1"):
        empty.host(name).path("/etc/hostname").write_text("debian\n")
    comes_in(empty)


def test_another_machine_under_a_name_that_is_taken_is_refused(founded: Homelab) -> None:
    founded.converge()
    worker = founded.config.node("lab-w1")
    founded.machines.power_off(worker.vmid)
    stranger = replace(worker, vmid=worker.vmid + 50, identity=uuid.UUID(int=7))
    config = replace(founded.config, nodes=(*founded.config.controllers, stranger))
    founded.config = config
    founded.boot(stranger)
    with untouched(founded):
        why = fails(founded, only(founded.plan(config), "k3s/lab-w1"), config)
    assert isinstance(why, errors.ForeignError)
    assert "is another machine" in why.message
    assert "fo k3s replace lab-w1" in why.fix
    assert not founded.host("lab-w1").path(files.CONFIG).exists()
