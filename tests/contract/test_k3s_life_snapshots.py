"""Snapshots of etcd on the lab's servers: seen, taken, copied off-box with their escrow, pruned."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest
from life_kit import KEY, Life
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.config import age
from funoffshore.stages.k3s import escrow, offbox, snapshots
from funoffshore.world.ssh import FileWrite


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    life = Life(tmp_path_factory.mktemp("snapshots"), 2)
    yield life
    life.close()


def copy_all(life: Life) -> None:
    life.carry(snapshots.plan_copies(life.config, life.stored()), snapshots.apply, snapshots.RUN)


def on_host(life: Life, node: str, name: str) -> Path:
    return Path(life.lab.host(node).path(f"{offbox.FOLDER}/{name}"))


def test_a_saved_one_lies_on_a_server_and_off_box_byte_for_byte(life: Life) -> None:
    name = life.save("first")
    assert name.startswith("first-lab-c1-")
    kept = offbox.folder(life.config) / name
    assert kept.read_bytes() == on_host(life, "lab-c1", name).read_bytes()
    seen = life.stored().find(name)
    assert seen is not None
    assert set(seen.places) == {"lab-c1", "off-box"}
    assert seen.at == snapshots.taken_at(name) > 0


def test_copies_are_private_and_whole_or_not_there(life: Life) -> None:
    name = life.save("private")
    folder = offbox.folder(life.config)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.name for path in folder.iterdir() if name in path.name} == {name, name + escrow.SUFFIX}


def test_the_escrow_opens_with_the_age_key_alone(life: Life) -> None:
    name = life.save("escrowed")
    kept = offbox.folder(life.config) / name
    sealed = escrow.beside(kept).read_bytes()
    token = life.config.k3s.token.get_secret_value()
    assert sealed.startswith(b"age-encryption.org/v1")
    assert token.encode() not in sealed
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sealed, [pyrage.x25519.Identity.generate()])
    body = json.loads(pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(KEY)]))
    assert body["token"] == token
    assert body["sha256"] == hashlib.sha256(kept.read_bytes()).hexdigest()
    assert (body["cluster"], body["nodes"]) == ("lab", ["lab-c1", "lab-c2"])
    assert {body["ca_hash"]} == life.authorities()
    assert body["version"] == life.config.k3s.version
    other = dataclasses.replace(life.config, sops_age_key=SecretStr(age.identity(bytes(32))))
    with pytest.raises(errors.StateError, match="SOPS_AGE_KEY"):
        escrow.read(other, kept)


def test_an_escrow_of_something_else_is_refused(life: Life) -> None:
    name, other = life.save("one"), life.save("other")
    folder = offbox.folder(life.config)
    escrow.beside(folder / "moved").write_bytes(escrow.beside(folder / name).read_bytes())
    with pytest.raises(errors.ForeignError, match=name):
        escrow.read(life.config, folder / "moved")
    escrow.beside(folder / "moved").write_bytes(b"no escrow at all")
    with pytest.raises(errors.StateError):
        escrow.read(life.config, folder / "moved")
    escrow.beside(folder / "moved").unlink()
    assert escrow.read(life.config, folder / other).snapshot == other


def test_without_an_age_key_nothing_leaves_the_servers(life: Life) -> None:
    keyless = dataclasses.replace(life.config, sops_age_key=None)
    before = life.stored()
    with pytest.raises(errors.PreflightError, match="key to encrypt") as caught:
        snapshots.plan_save(life.world, keyless, "hand")
    assert "SOPS_AGE_KEY" in caught.value.fix
    with pytest.raises(errors.PreflightError):
        snapshots.plan_copies(keyless, before)
    assert life.stored() == before


def test_one_that_lies_on_a_server_alone_is_copied_once(life: Life) -> None:
    said = snapshots.run_k3s(life.world, life.node("lab-c2"), ["etcd-snapshot", "save", "--name", "alone"], 60)
    assert "saved" in said
    (wanted,) = snapshots.plan_copies(life.config, life.stored())
    assert (wanted.on, wanted.values["name"].startswith("alone-lab-c2-")) == ("lab-c2", True)
    copy_all(life)
    assert snapshots.plan_copies(life.config, life.stored()) == []
    seen = life.stored().find(wanted.values["name"])
    assert seen is not None
    assert set(seen.places) == {"lab-c2", "off-box"}


def test_a_copy_goes_on_where_it_was_cut_off(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offbox, "CHUNK", 10_000)
    said = snapshots.run_k3s(life.world, life.node("lab-c1"), ["etcd-snapshot", "save", "--name", "cut"], 60)
    name = snapshots._SAVED.findall(said)[0]
    whole = on_host(life, "lab-c1", name).read_bytes()
    digest = hashlib.sha256(whole).hexdigest()
    folder = offbox.prepare(life.config)
    part = folder / f".{name}.{digest[:16]}.part"
    part.write_bytes(whole[:25_000])
    trips = life.world.hosts.round_trips
    copy_all(life)
    assert (folder / name).read_bytes() == whole
    assert not part.exists()
    assert life.world.hosts.round_trips - trips < len(whole) // 10_000 + 5


def test_bytes_that_are_not_the_servers_are_thrown_away(life: Life) -> None:
    said = snapshots.run_k3s(life.world, life.node("lab-c1"), ["etcd-snapshot", "save", "--name", "rotten"], 60)
    name = snapshots._SAVED.findall(said)[0]
    whole = on_host(life, "lab-c1", name).read_bytes()
    folder = offbox.prepare(life.config)
    part = folder / f".{name}.{hashlib.sha256(whole).hexdigest()[:16]}.part"
    part.write_bytes(b"x" * 100)
    with pytest.raises(errors.DigestError):
        copy_all(life)
    assert not (folder / name).exists()
    assert not part.exists()
    copy_all(life)
    assert (folder / name).read_bytes() == whole


def test_one_of_another_token_is_not_escrowed_with_this_one(life: Life) -> None:
    said = snapshots.run_k3s(life.world, life.node("lab-c1"), ["etcd-snapshot", "save", "--name", "older"], 60)
    name = snapshots._SAVED.findall(said)[0]
    stored = life.stored()
    assert stored.token_hashes[name] == snapshots.token_hash(life.config.k3s.token.get_secret_value())
    wrong = dataclasses.replace(stored, token_hashes={name: "0" * 12})
    assert snapshots.left_behind(life.config, wrong) == [name]
    assert snapshots.left_behind(life.config, stored) == []
    assert [action.values["name"] for action in snapshots.plan_copies(life.config, wrong)] == []
    with pytest.raises(errors.RefusedError, match="another server token"):
        snapshots.copy(life.world, life.config, life.node("lab-c1"), name, life.lab.voice, "0" * 12)
    assert not (offbox.folder(life.config) / name).exists()
    copy_all(life)


@pytest.mark.parametrize("name", ["", "-rf", "a b", "../etc", "a/b", "x" * 300, "a\nb"])
def test_a_name_that_k3s_would_not_take_is_refused(life: Life, name: str) -> None:
    with pytest.raises(errors.ConfigError):
        snapshots.plan_save(life.world, life.config, name)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("on-demand-home-c1-1795492695", 1795492695),
        ("etcd-snapshot-home-c1-1795492695.zip", 1795492695),
        ("made-by-hand", 0),
        ("home-c1", 0),
        ("1795492695", 1795492695),
        ("x-²", 0),
        ("x-" + "9" * 40, 0),
        ("", 0),
    ],
)
def test_the_name_says_when(name: str, at: float) -> None:
    assert snapshots.taken_at(name) == at


def test_pruning_keeps_the_newest_at_each_place_and_never_none(life: Life) -> None:
    for _ in range(3):
        life.save("many")
    stored = life.stored()
    newest = [one.name for one in stored.at("lab-c1")][:2]
    with pytest.raises(errors.ConfigError, match="--keep"):
        snapshots.plan_prune(life.config, stored, 0)
    life.carry(snapshots.plan_prune(life.config, stored, 2), snapshots.apply, snapshots.RUN)
    left = life.stored()
    assert [one.name for one in left.at("lab-c1")] == newest
    assert len(left.at(snapshots.OFF_BOX)) == 2
    kept = {path.name for path in offbox.folder(life.config).iterdir() if not path.name.startswith(".")}
    assert len(kept) == 4  # two copies, each with its escrow
    assert snapshots.plan_prune(life.config, left, 2) == []
    assert snapshots.plan_prune(life.config, left, 1)


def test_what_has_no_date_is_never_pruned(life: Life) -> None:
    (offbox.prepare(life.config) / "by-hand").write_bytes(b"somebody's")
    wanted = snapshots.plan_prune(life.config, life.stored(), 1)
    assert not [action for action in wanted if "by-hand" in action.values["names"].split()]
    (offbox.folder(life.config) / "by-hand").unlink()


def test_a_restart_finds_a_snapshot_of_the_last_hour(life: Life) -> None:
    before = len(life.stored().snapshots)
    snapshots.ensure_fresh(life.world, life.config, life.lab.voice)
    assert len(life.stored().snapshots) == before  # those of the cases above are fresh enough
    names = [one.name for one in life.stored().at("lab-c2")]
    if names:
        snapshots.run_k3s(life.world, life.node("lab-c2"), ["etcd-snapshot", "delete", *names], 60)
    names = [one.name for one in life.stored().at("lab-c1")]
    snapshots.run_k3s(life.world, life.node("lab-c1"), ["etcd-snapshot", "delete", *names], 60)
    snapshots.ensure_fresh(life.world, life.config, life.lab.voice)
    assert [one.name.startswith("before-restart-") for one in life.stored().at("lab-c1")] == [True]
    snapshots.ensure_fresh(life.world, life.config, life.lab.voice)
    assert len(life.stored().at("lab-c1")) == 1


def test_a_server_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    life = Life(tmp_path, 2)
    try:
        name = life.save()
        life.lab.machines.power_off(life.node("lab-c2").vmid)
        seen = life.stored()
        assert [line.split(":")[0] for line in seen.unread][:1] == ["lab-c2"]
        assert seen.find(name)
    finally:
        life.close()


def test_a_file_that_is_no_snapshot_of_k3s_is_shown_with_its_own_date(life: Life) -> None:
    life.world.hosts.write(life.node("lab-c1"), [FileWrite(f"{offbox.FOLDER}/by-hand", b"somebody's", 0o600)])
    seen = life.stored().find("by-hand")
    assert seen is not None
    assert seen.at > 1_700_000_000
    assert seen.places == {"lab-c1": len(b"somebody's")}
