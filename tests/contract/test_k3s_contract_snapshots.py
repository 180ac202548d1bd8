"""Snapshots and their restore, on the embedded lab's K3s and on the bench's stand-in with real etcd and kube-apiserver.
The cases of this module are one story and follow each other: what is saved, lost, and brought back."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from k3s_backends import (
    SECRET,
    SERVER,
    Machine,
    Place,
    Ran,
    ask,
    await_end,
    await_ready,
    cause_of,
    place,
    read,
    settings,
    tail,
    thing,
    things,
    token,
    until,
)

OBJECTS = "/apis/k3s.cattle.io/v1/etcdsnapshotfiles"
FOLDER = f"{SERVER}/db/snapshots"
FLAG = f"{SERVER}/db/reset-flag"
MAPS = "namespaces/default/configmaps"
DONE = (
    "Managed etcd cluster membership has been reset, restart without --cluster-reset flag now. Backup and delete "
    "${datadir}/server/db on each peer etcd server and rejoin the nodes"
)


@dataclass
class Scene:
    """Two servers without kubelets, and a bare machine."""

    place: Place
    first: Machine
    second: Machine
    bare: Machine
    saved: str = ""
    """The snapshot that will be restored."""
    authority: str = ""

    def configure(self, machine: Machine, **more: object) -> None:
        told = settings(machine, token=SECRET, **{"disable-agent": True, "etcd-snapshot-retention": 2})
        machine.configure(**{**told, **more})

    def join(self) -> None:
        self.configure(self.second, server=f"https://{self.first.address}:6443", token=token(self.first))
        self.second.start()
        await_ready(self.second)

    def reset(self, machine: Machine, *argv: str) -> None:
        """``k3s server --cluster-reset`` to its end."""
        machine.start("server", "--cluster-reset", *argv)
        await_end(machine)


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with place(request.param, tmp_path_factory.mktemp(f"k3s-{request.param}")) as made:
        first, second, bare = (made.machine(*m) for m in (("lab-c1", 11), ("lab-c2", 12), ("lab-c3", 13)))
        scene = Scene(made, first, second, bare)
        scene.configure(scene.first, **{"cluster-init": True})
        scene.first.start()
        await_ready(scene.first)
        scene.authority = read(scene.first, f"{SERVER}/tls/server-ca.crt")
        yield scene


def snapshot(machine: Machine, *argv: str) -> Ran:
    return machine.run("etcd-snapshot", *argv)


def save(machine: Machine, name: str) -> str:
    """The file's name."""
    ran = snapshot(machine, "save", "--name", name)
    assert ran.code == 0, ran.err
    found = re.search(rf'level=info msg="Snapshot ({name}-{machine.name}-\d+) saved\."', ran.err)
    assert found, ran.err
    return found[1]


def listed(machine: Machine) -> list[dict[str, Any]]:
    ran = snapshot(machine, "ls", "-o", "json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    assert (found["kind"], found["apiVersion"]) == ("List", "v1")
    items: list[dict[str, Any]] = found["items"]
    return items


def names(machine: Machine) -> list[str]:
    return [item["spec"]["snapshotName"] for item in listed(machine)]


def shown(scene: Scene) -> dict[str, dict[str, Any]]:
    """ETCDSnapshotFiles of the API by the names of their files."""
    return {item["spec"]["snapshotName"]: item for item in things(scene.first, OBJECTS)}


def note(machine: Machine, name: str) -> None:
    """Makes a ConfigMap by which the past can be told from the present."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    until(lambda: thing(machine, "namespaces/default") is not None)
    answer = ask(machine.address, f"/api/v1/{MAPS}", admin=machine, method="POST", body=body)
    assert answer.status == 201, answer


def fatal(machine: Machine) -> str:
    assert machine.code() == 1, tail(machine)
    [line] = [line for line in machine.lines() if "level=fatal" in line]
    return line


def test_a_snapshot_by_hand_is_a_file_and_an_object(scene: Scene) -> None:
    first = scene.first
    note(first, "before")
    scene.saved = save(first, "hand")
    file = first.path(f"{FOLDER}/{scene.saved}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    [item] = listed(first)
    location = f"file://{first.data}/server/db/snapshots/{scene.saved}"
    assert item["spec"] == {"snapshotName": scene.saved, "nodeName": "lab-c1", "location": location}
    assert (item["apiVersion"], item["kind"]) == ("k3s.cattle.io/v1", "ETCDSnapshotFile")
    assert item["metadata"]["name"] == f"local-{scene.saved}"
    assert item["status"]["readyToUse"] is True
    assert int(item["status"]["size"]) == file.stat().st_size > 0
    until(lambda: scene.saved in shown(scene))
    there = shown(scene)[scene.saved]
    digest = hashlib.sha256(f"lab-c1{location}".encode()).hexdigest()[:6]
    assert there["metadata"]["name"] == f"local-{scene.saved}-{digest}"
    assert there["metadata"]["labels"]["etcd.k3s.cattle.io/snapshot-storage-node"] == "lab-c1"
    assert (there["spec"], there["status"]["readyToUse"]) == (item["spec"], True)
    assert SECRET not in json.dumps(there)


def test_the_table_of_snapshots(scene: Scene) -> None:
    ran = snapshot(scene.first, "ls")
    head, row = ran.out.splitlines()
    assert head.split() == ["Name", "Location", "Size", "Created"]
    name, location, size, created = row.split()
    assert name == scene.saved
    assert location.endswith(f"/server/db/snapshots/{scene.saved}")
    assert int(size) > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+", created)


def test_saving_never_prunes_and_pruning_keeps_the_newest_of_one_name(scene: Scene) -> None:
    first = scene.first
    more = [save(first, f"more-{n}") for n in range(3)]
    assert sorted(names(first)) == sorted([scene.saved, *more])
    ran = snapshot(first, "prune", "--name", "more", "--snapshot-retention", "1")
    assert ran.code == 0, ran.err
    deleted = re.findall(r'msg="Snapshot (\S+) deleted\."', ran.err)
    assert len(deleted) == 2
    assert set(deleted) < set(more)
    assert sorted([*deleted, *names(first)]) == sorted([scene.saved, *more])
    until(lambda: set(shown(scene)) == set(names(first)), said=lambda: shown(scene).keys())


def test_config_yaml_says_how_many_are_kept(scene: Scene) -> None:
    first = scene.first
    made = [save(first, f"kept-{n}") for n in range(3)]
    ran = snapshot(first, "prune", "--name", "kept")
    assert ran.code == 0, ran.err
    assert len([name for name in names(first) if name in made]) == 2
    ran = snapshot(first, "prune", "--name", "kept", "--snapshot-retention", "0")
    assert (ran.code, "deleted" in ran.err) == (0, False)


def test_deleting_what_is_there_and_what_is_not(scene: Scene) -> None:
    first = scene.first
    others = [name for name in names(first) if name != scene.saved]
    ran = snapshot(first, "delete", *others, "no-such")
    assert ran.code == 0, ran.err
    assert re.findall(r'msg="Snapshot (\S+) deleted\."', ran.err) == others
    assert 'level=warning msg="Snapshot no-such not found."' in ran.err
    assert names(first) == [scene.saved]
    until(lambda: set(shown(scene)) == {scene.saved}, said=lambda: shown(scene).keys())
    ran = snapshot(first, "delete")
    assert (ran.code, "no snapshots given for removal" in ran.err) == (1, True)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("ls", "-o", "xml"), "invalid output format: xml"),
        (("save", "a-word"), "this command does not take any arguments"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_a_mistake_is_exit_1_and_one_line(scene: Scene, argv: tuple[str, ...], said: str) -> None:
    ran = snapshot(scene.first, *argv)
    assert ran.code == 1
    [line] = [line for line in ran.err.splitlines() if "level=fatal" in line]
    assert said in line


def test_a_second_server_has_snapshots_of_its_own(scene: Scene) -> None:
    scene.join()
    assert names(scene.second) == []
    own = save(scene.second, "hand")
    assert names(scene.second) == [own]
    assert names(scene.first) == [scene.saved]
    until(lambda: set(shown(scene)) == {own, scene.saved}, said=lambda: shown(scene).keys())


def test_what_is_made_after_the_snapshot_is_not_in_it(scene: Scene) -> None:
    note(scene.second, "after")
    assert thing(scene.first, f"{MAPS}/after") is not None
    for machine in (scene.second, scene.first):
        machine.stop()
    ran = snapshot(scene.first, "ls")
    assert ran.code == 1
    assert "connection refused" in ran.err


def test_a_reset_that_cannot_be_changes_nothing(scene: Scene) -> None:
    first = scene.first
    name = read(first, f"{SERVER}/db/etcd/name")
    first.start("server", "--cluster-reset-restore-path=/nowhere")
    assert await_end(first) == 1
    assert "invalid flag use; --cluster-reset required with --cluster-reset-restore-path" in fatal(first)
    scene.reset(first, "--cluster-reset-restore-path=/nowhere")
    assert "etcd: snapshot path does not exist: /nowhere" in fatal(first)
    folder = f"{first.data}/server/db"
    scene.reset(first, f"--cluster-reset-restore-path={folder}")
    assert f"etcd: snapshot path must be a file, not a directory: {folder}" in fatal(first)
    assert read(first, f"{SERVER}/db/etcd/name") == name
    assert not first.path(FLAG).exists()


def test_a_reset_without_a_snapshot_leaves_one_member(scene: Scene) -> None:
    first = scene.first
    name = read(first, f"{SERVER}/db/etcd/name")
    scene.reset(first)
    assert first.code() == 0, tail(first)
    assert f'level=info msg="{DONE}"' in first.lines()[-1]
    assert stat.S_IMODE(first.path(FLAG).stat().st_mode) == 0o600
    assert first.path(FLAG).stat().st_size == 0
    assert re.fullmatch(r"lab-c1-[0-9a-f]{8}", read(first, f"{SERVER}/db/etcd/name").strip())
    assert read(first, f"{SERVER}/db/etcd/name") != name
    [aside] = first.path(SERVER).glob("tls-*")
    assert (aside / "server-ca.crt").read_text() == scene.authority == read(first, f"{SERVER}/tls/server-ca.crt")


def test_a_second_reset_is_refused_until_the_flag_is_gone(scene: Scene) -> None:
    scene.reset(scene.first)
    said = fatal(scene.first)
    assert "Managed etcd cluster membership was previously reset, please remove the cluster-reset flag" in said
    assert f"you must first manually delete the file at {scene.first.data}/server/db/reset-flag" in said


def test_the_lone_server_has_everything_that_was_there_last(scene: Scene) -> None:
    first = scene.first
    first.start()
    await_ready(first)
    assert not first.path(FLAG).exists()
    assert thing(first, f"{MAPS}/before") is not None
    assert thing(first, f"{MAPS}/after") is not None
    assert token(first).endswith(f"::server:{SECRET}")


def test_a_peer_with_its_old_data_does_not_get_in(scene: Scene) -> None:
    scene.second.start()
    await_end(scene.second)
    cause = cause_of(scene.second)
    assert cause is not None, tail(scene.second)
    assert cause.says == "it was removed from the cluster while its old data is still on its disk"
    assert ask(scene.first.address, "/readyz", admin=scene.first).body == "ok"
    scene.first.stop()


def test_a_snapshot_does_not_open_with_another_token(scene: Scene) -> None:
    """The line is what counts: K3s notices it so late that its exit code says nothing."""
    first = scene.first
    scene.configure(first, token="another", **{"cluster-init": True})
    scene.reset(first, f"--cluster-reset-restore-path={first.data}/server/db/snapshots/{scene.saved}")
    assert "bootstrap data already found and encrypted with different token" in tail(first)
    assert DONE not in tail(first)


def test_a_restore_brings_back_what_the_snapshot_has_and_nothing_else(scene: Scene) -> None:
    first = scene.first
    scene.configure(first, **{"cluster-init": True})
    scene.reset(first, f"--cluster-reset-restore-path={first.data}/server/db/snapshots/{scene.saved}")
    assert first.code() == 0, tail(first)
    assert f'level=info msg="{DONE}"' in first.lines()[-1]
    assert list(first.path(f"{SERVER}/db").glob("etcd-old-*"))
    assert first.path(FLAG).exists()
    first.start()
    await_ready(first)
    assert not first.path(FLAG).exists()
    assert thing(first, f"{MAPS}/before") is not None
    assert thing(first, f"{MAPS}/after") is None
    assert read(first, f"{SERVER}/tls/server-ca.crt") == scene.authority
    assert names(first) == [scene.saved]


def test_a_peer_comes_back_once_its_old_data_is_gone(scene: Scene) -> None:
    before = read(scene.second, f"{SERVER}/db/etcd/name")
    db = scene.second.path(f"{SERVER}/db")
    db.rename(db.with_name("db-aside"))
    scene.join()
    assert read(scene.second, f"{SERVER}/db/etcd/name") != before
    assert "to etcd cluster [" in "\n".join(scene.second.lines())
    assert thing(scene.second, f"{MAPS}/before") is not None
    assert thing(scene.second, f"{MAPS}/after") is None
    scene.second.stop()
    scene.first.stop()


def test_a_bare_machine_becomes_the_cluster_from_a_file_and_the_token(scene: Scene) -> None:
    bare = scene.bare
    file = bare.path("/var/lib/rancher/copy-of-a-snapshot")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(scene.first.path(f"{FOLDER}/{scene.saved}").read_bytes())
    where = file if bare.kind == "real" else "/var/lib/rancher/copy-of-a-snapshot"
    scene.configure(bare, **{"cluster-init": True})
    scene.reset(bare, f"--cluster-reset-restore-path={where}")
    assert bare.code() == 0, tail(bare)
    assert DONE in bare.lines()[-1]
    bare.start()
    await_ready(bare)
    assert read(bare, f"{SERVER}/tls/server-ca.crt") == scene.authority
    assert token(bare) == token(scene.first)
    assert thing(bare, f"{MAPS}/before") is not None
    assert thing(bare, f"{MAPS}/after") is None
