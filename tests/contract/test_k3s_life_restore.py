"""The lab's cluster back from a snapshot of etcd, whatever dies on the way; never a second cluster."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from life_kit import Killed, Life, dying
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.reading import Present
from funoffshore.stages.k3s import escrow, offbox, restore, restoring, snapshots
from funoffshore.world.ssh import FileWrite

NEWER = "v1.37.1+k3s1"
FOREVER = 60
"""More changes of hosts than any restore makes."""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    life = Life(tmp_path_factory.mktemp("restore"), 3, 1)
    yield life
    life.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Two servers, for what is done many times."""
    life = Life(tmp_path_factory.mktemp("pair"), 2)
    yield life
    life.close()


def nothing_is_left_to_do(life: Life) -> None:
    assert not life.lab.plan()
    assert life.members() == {node.name for node in life.config.controllers}
    assert len(life.authorities()) == 1
    assert restore.problem(life.config.state) is None


def test_what_came_after_the_snapshot_is_gone_and_all_nodes_are_back(life: Life) -> None:
    authority = life.authorities()
    life.mark("before")
    name = life.save()
    life.mark("after")
    life.restore(name)
    assert "before" in life.marks()
    assert "after" not in life.marks()
    assert life.authorities() == authority
    nothing_is_left_to_do(life)


def test_it_says_what_would_be_lost(life: Life) -> None:
    name = life.save()
    stored = life.stored().find(name)
    assert stored is not None
    life.mark("newer-one")
    lost = restore.lost(life.world, stored.at - 1)
    assert "ConfigMap default/newer-one" in lost.newer
    assert lost.unread == ()
    assert restore.lost(life.world, life.world.clock.now() + 10) == restore.Lost((), ())
    life.world.kube.delete("v1/ConfigMap", "default", "newer-one")


def test_killed_around_every_change_it_goes_on_and_ends_in_one_cluster(pair: Life) -> None:
    """The computer dies before, or right after, the first change of a host, the second one, and so on."""
    authority = pair.authorities()
    pair.mark("kept")
    name = pair.save()
    deaths = 0
    for at, made in itertools.product(range(1, FOREVER), (False, True)):
        pair.mark("late")
        try:
            pair.restore(name, world=dying(pair, at, made=made))
            break
        except Killed:
            deaths += 1
        begun = restore.unfinished(pair.config.state)
        if begun and begun.reset:
            problem = restore.problem(pair.config.state)
            assert problem is not None
            assert name in problem.fix
        pair.restore(name)
        nothing_is_left_to_do(pair)
        assert pair.authorities() == authority
        assert "kept" in pair.marks()
        assert "late" not in pair.marks()
    assert deaths > 10
    nothing_is_left_to_do(pair)


def test_killed_again_and_again_it_still_ends_well(pair: Life) -> None:
    """Three changes, then two for each attempt: until etcd is reset it begins again, from there it goes on."""
    name = pair.save()
    pair.mark("late-too")
    for attempt in range(FOREVER):
        try:
            pair.restore(name, world=dying(pair, 3 if attempt else 4, made=False))
            break
        except Killed:
            continue
    else:
        pytest.fail("it never ended")
    assert "late-too" not in pair.marks()
    nothing_is_left_to_do(pair)


def test_a_worker_that_joined_after_the_snapshot_joins_again(life: Life) -> None:
    life.world.kube.delete("v1/Node", "", "lab-w1")
    name = life.save("without-w1")
    life.lab.converge()
    assert {"lab-w1"} <= _nodes(life)
    life.restore(name)
    assert {"lab-w1"} <= _nodes(life)
    nothing_is_left_to_do(life)


@pytest.mark.parametrize("name", ["lab-c2", "lab-w1"])
def test_a_machine_that_was_made_anew_since_the_snapshot_is_let_in(life: Life, name: str) -> None:
    """The snapshot remembers the node password of the machine before it."""
    snapshot = life.save("older-than-the-machine")
    node = life.node(name)
    life.lab.machines.destroy(node.vmid)
    if name.startswith("lab-c"):
        life.world.kube.delete("v1/Node", "", name)
    life.lab.boot(node)
    life.lab.converge()
    life.restore(snapshot)
    unit = "k3s" if name.startswith("lab-c") else "k3s-agent"
    life.world.hosts.change(node, {"units": [{"name": f"{unit}.service", "action": "restart", "timeout": 60}]})
    life.lab.converge()
    nothing_is_left_to_do(life)


def test_another_snapshot_may_be_chosen_after_one_that_went_wrong(life: Life) -> None:
    first, second = life.save("first"), life.save("second")
    with pytest.raises(Killed):
        life.restore(first, world=dying(life, 5, made=True))
    life.restore(second)
    nothing_is_left_to_do(life)


def test_a_server_that_cannot_be_read_stops_it_before_anything_is_changed(life: Life) -> None:
    name = life.save()
    vmid = life.node("lab-c3").vmid
    life.lab.machines.power_off(vmid)
    try:
        with pytest.raises(errors.UnreachableError, match="lab-c3"):
            life.restore(name)
        assert restore.unfinished(life.config.state) is None
    finally:
        life.lab.boot(life.node("lab-c3"))
    life.lab.converge()
    nothing_is_left_to_do(life)


def test_another_token_than_the_snapshots_is_refused_with_what_to_do(life: Life) -> None:
    name = life.save()
    other = dataclasses.replace(
        life.config, k3s=dataclasses.replace(life.config.k3s, token=SecretStr("00112233445566778899aabbccddeeff"))
    )
    with pytest.raises(errors.RefusedError, match="another server token") as caught:
        restore.choose(life.world, other, name)
    assert "--escrowed-token" in caught.value.fix
    offbox.forget(life.config, name)
    with pytest.raises(errors.RefusedError, match="in no escrow"):
        restore.choose(life.world, other, name)


def test_a_copy_that_rotted_and_is_nowhere_else_is_refused(life: Life) -> None:
    name = life.save("rotten")
    server = next(place for place in _places(life, name) if place != snapshots.OFF_BOX)
    snapshots.run_k3s(life.world, life.node(server), ["etcd-snapshot", "delete", name], 60)
    path = offbox.folder(life.config) / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(errors.DigestError, match="not what was copied"):
        restore.choose(life.world, life.config, name)
    offbox.forget(life.config, name)


def test_a_rotten_copy_is_not_preferred_to_the_servers_own(life: Life) -> None:
    """A copy whose escrow names other bytes than the server's means that one of them rotted: the escrow decides."""
    name = life.save("rotten-there")
    server = next(place for place in _places(life, name) if place != snapshots.OFF_BOX)
    life.world.hosts.write(life.node(server), [FileWrite(f"{offbox.FOLDER}/{name}", b"rotten", 0o600)])
    choice = restore.choose(life.world, life.config, name)
    assert choice.source == offbox.folder(life.config) / name
    life.restore(name)
    nothing_is_left_to_do(life)


def test_a_snapshot_of_another_cluster_is_refused(life: Life) -> None:
    name = life.save("foreign")
    kept = offbox.folder(life.config) / name
    content = dataclasses.replace(escrow.read(life.config, kept), ca_hash="ab" * 32)
    escrow.beside(kept).write_bytes(escrow.seal(life.config, content))
    with pytest.raises(errors.ForeignError, match="not of one cluster"):
        restore.choose(life.world, life.config, name)
    offbox.forget(life.config, name)


def test_a_name_that_there_is_not(life: Life) -> None:
    with pytest.raises(errors.PreflightError, match="no snapshot nowhere"):
        restore.choose(life.world, life.config, "nowhere")


def test_a_server_without_a_database_is_never_started_as_the_first(life: Life) -> None:
    """It has cluster-init in its config.yaml, so a start would found another cluster."""
    name = life.save()
    choice = restore.choose(life.world, life.config, name)
    actions = restore.plan(life.config, choice)
    start = next(action for action in actions if action.key.startswith("restore/start/"))
    stops = [action for action in actions if action.key.startswith(("restore/snapshot", "restore/stop/"))]
    life.carry(stops, restoring.apply, restore.RUN)
    node = choice.server
    life.world.hosts.change(node, {"wipe": [restoring.DATABASE]})
    with pytest.raises(errors.TaskFailedError, match="no database"):
        life.carry([start], restoring.apply, restore.RUN)
    assert life.lab.host(node.name).units.unit("k3s").active == "inactive"
    life.restore(name)
    nothing_is_left_to_do(life)


def test_a_reboot_in_between_brings_no_old_server_back(life: Life) -> None:
    name = life.save()
    choice = restore.choose(life.world, life.config, name)
    actions = restore.plan(life.config, choice)
    first = ("restore/snapshot", "restore/stop", restore.RESET)
    until_reset = [action for action in actions if action.key.startswith(first)]
    life.carry(until_reset, restoring.apply, restore.RUN)
    for node in life.config.controllers:
        life.lab.machines.power_off(node.vmid)
    life.lab.boot(*life.config.controllers)
    assert {life.lab.host(node.name).units.unit("k3s").active for node in life.config.controllers} == {"inactive"}
    life.restore(name)
    nothing_is_left_to_do(life)


def test_etcd_is_not_reset_beside_a_server_that_runs(life: Life) -> None:
    name = life.save()
    choice = restore.choose(life.world, life.config, name)
    reset = [action for action in restore.plan(life.config, choice) if action.key == restore.RESET]
    with pytest.raises(errors.PreflightError, match="is active"):
        life.carry(reset, restoring.apply, restore.RUN)
    nothing_is_left_to_do(life)


def test_a_broken_snapshot_is_told_and_the_next_one_brings_the_cluster_back(life: Life) -> None:
    good = life.save("good")
    life.world.hosts.write(life.node("lab-c1"), [FileWrite(f"{offbox.FOLDER}/broken", b"no etcd at all", 0o600)])
    with pytest.raises(errors.TaskFailedError, match="did not begin etcd anew"):
        life.restore("broken")
    problem = restore.problem(life.config.state)
    assert problem is not None
    assert "broken" in problem.fix
    life.restore(good)
    nothing_is_left_to_do(life)


@pytest.mark.parametrize("controllers", [1, 3])
def test_a_whole_cluster_of_new_machines_comes_back_from_the_copy(tmp_path: Path, controllers: int) -> None:
    life = Life(tmp_path, controllers, 1)
    try:
        authority = life.authorities()
        life.mark("survivor")
        name = life.save()
        for node in life.config.nodes:
            life.lab.machines.destroy(node.vmid)
        life.lab.boot()
        assert life.stored().at("lab-c1") == []
        choice = restore.choose(life.world, life.config, name)
        assert choice.source is not None
        assert choice.empty == {node.name for node in life.config.controllers}
        with pytest.raises(Killed):
            life.restore(name, world=dying(life, 2, made=True))
        life.restore(name)
        assert life.authorities() == authority
        assert "survivor" in life.marks()
        assert _nodes(life) == {node.name for node in life.config.nodes}
        nothing_is_left_to_do(life)
    finally:
        life.close()


def test_a_release_that_was_a_mistake_is_taken_back_with_the_snapshot_from_before(tmp_path: Path) -> None:
    """etcd's data cannot go back, so nothing but a restore can: it brings servers and agents to the snapshot's."""
    life = Life(tmp_path, 2, 1)
    try:
        before = life.config.k3s
        name = life.save("before-the-mistake")
        life.upgrade(NEWER)
        assert life.versions() == {NEWER}
        back = dataclasses.replace(life.config, k3s=before)
        life.restore(name, config=back)
        assert life.versions() == {before.version}
        assert not life.lab.plan(back)
        assert life.members() == {"lab-c1", "lab-c2"}
    finally:
        life.close()


def test_a_snapshot_of_a_newer_release_than_the_servers_is_refused(life: Life) -> None:
    name = life.save("from-the-future")
    kept = offbox.folder(life.config) / name
    content = dataclasses.replace(escrow.read(life.config, kept), version=NEWER)
    escrow.beside(kept).write_bytes(escrow.seal(life.config, content))
    with pytest.raises(errors.RefusedError, match="is of K3s") as caught:
        restore.choose(life.world, life.config, name)
    assert NEWER in caught.value.fix
    offbox.forget(life.config, name)


def test_without_the_escrow_new_machines_are_refused(tmp_path: Path) -> None:
    life = Life(tmp_path, 1)
    try:
        name = life.save()
        escrow.beside(offbox.folder(life.config) / name).unlink()
        life.lab.machines.destroy(life.node("lab-c1").vmid)
        life.lab.boot()
        with pytest.raises(errors.PreflightError, match="which authority"):
            restore.choose(life.world, life.config, name)
    finally:
        life.close()


def test_a_foreign_machine_is_left_alone(life: Life) -> None:
    name = life.save()
    other = tuple(dataclasses.replace(node, identity=life.config.nodes[-1].identity) for node in life.config.nodes)
    with pytest.raises(errors.ForeignError):
        restore.choose(life.world, dataclasses.replace(life.config, nodes=other), name)


def _nodes(life: Life) -> set[str]:
    facts = life.lab.facts()
    assert isinstance(facts.nodes, Present)
    return {name for name, node in facts.nodes.value.items() if node.ready}


def _places(life: Life, name: str) -> set[str]:
    found = life.stored().find(name)
    assert found is not None
    return set(found.places)
