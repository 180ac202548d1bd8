"""Each call of the Proxmox door against the lab's Proxmox: what it asks for, and what comes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import door_bench
import pve_bench
import pytest
from door_bench import UPID, House, Step, data, scripted, versioned
from pve_bench import FO, SECRET

from funoffshore import errors
from funoffshore.lab.pve.wire import Reply, Request
from funoffshore.world import proxmox

DISK = "vmstore:0,import-from=local:import/deb.qcow2,discard=on"


@pytest.fixture(params=["8.4", "9.1"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with door_bench.house(tmp_path, release=request.param) as made:
        yield made


@pytest.fixture
def newest(tmp_path: Path) -> Iterator[House]:
    with door_bench.house(tmp_path) as made:
        yield made


@pytest.fixture
def root(newest: House) -> proxmox.Proxmox:
    """A client that may do everything."""
    return newest.another(token_id=pve_bench.ROOT)


def done(house: House, upid: str) -> None:
    assert upid.startswith("UPID:pve:")
    house.client.wait_task(upid, Step(), "it")


def test_the_life_of_a_machine(house: House) -> None:
    client = house.client
    assert client.config("pve", 900) is None
    client.create_pool("fo")
    body: dict[str, Any] = {
        "vmid": 900,
        "name": "web",
        "memory": 2048,
        "cores": 2,
        "scsi0": DISK,
        "smbios1": "uuid=6B1A3D0E-1111-4222-8333-444455556666",
        "onboot": True,
        "pool": "fo",
        "agent": "enabled=1",
        "tags": "fo;web",
    }
    done(house, client.create_vm("pve", body))
    made = client.config("pve", 900)
    assert made is not None
    assert (made.name, made.cores, made.memory_mib, made.options["onboot"]) == ("web", 2, 2048, "1")
    assert made.identity == "6b1a3d0e-1111-4222-8333-444455556666"
    done(house, client.resize("pve", 900, "scsi0", 40, made.digest))
    done(house, client.start("pve", 900))
    assert client.running("pve", 900)
    (row,) = client.vms("pve")
    assert (row.vmid, row.node, row.name, row.running, row.memory, row.cpus) == (900, "pve", "web", True, 2 << 30, 2)
    assert client.guests() == client.resources().guests
    assert client.guests()[0].pool == "fo"
    with pytest.raises(errors.RefusedError, match="running") as refusal:
        client.delete("pve", 900)
    assert not proxmox.is_missing(refusal.value)
    done(house, client.shutdown("pve", 900, 30))
    assert not client.running("pve", 900)
    done(house, client.start("pve", 900))
    done(house, client.stop("pve", 900))
    done(house, client.delete("pve", 900))
    assert client.config("pve", 900) is None
    assert client.guests() == []
    client.delete_pool("fo")
    client.delete_pool("fo")
    assert client.pools() == frozenset()


def test_a_vmid_that_is_taken(newest: House) -> None:
    newest.make(900)
    with pytest.raises(errors.RefusedError) as refusal:
        newest.client.create_vm("pve", {"vmid": 900})
    assert proxmox.already_exists(refusal.value)
    assert not proxmox.is_busy(refusal.value)


def test_changes_set_and_unset(newest: House) -> None:
    client = newest.client
    newest.make(900, description="x", cores=2)
    before = client.config("pve", 900)
    assert before is not None
    done(newest, client.change("pve", 900, {"cores": 4, "onboot": True}, ("description",), before.digest))
    found = client.config("pve", 900)
    assert found is not None
    assert (found.cores, found.options["onboot"], "description" in found.options) == (4, "1", False)
    client.change_now("pve", 900, {}, ("onboot",), found.digest)
    client.change_now("pve", 900, {"name": "other"})
    again = client.config("pve", 900)
    assert again is not None
    assert (again.name, "onboot" in again.options) == ("other", False)


def test_a_configuration_that_somebody_else_has_changed(newest: House) -> None:
    newest.make(900)
    before = newest.client.config("pve", 900)
    assert before is not None
    newest.client.change_now("pve", 900, {"description": "somebody else"})
    for write in (newest.client.change, newest.client.change_now):
        with pytest.raises(errors.RefusedError) as refusal:
            write("pve", 900, {"cores": 4}, digest=before.digest)
        assert proxmox.has_changed(refusal.value)
    with pytest.raises(errors.TaskFailedError) as failed:
        newest.client.wait_task(newest.client.resize("pve", 900, "scsi0", 9, before.digest), Step(), "it")
    assert proxmox.has_changed(failed.value)


def test_what_waits_for_a_restart(newest: House) -> None:
    client = newest.client
    newest.make(900, cores=2, memory=1024)
    done(newest, client.start("pve", 900))
    done(newest, client.change("pve", 900, {"cores": 4}))
    seen = client.pending("pve", 900)
    assert seen["cores"] == ("2", "4")
    assert seen["name"] == ("vm-900", "vm-900")
    assert "digest" not in seen
    shown = client.config("pve", 900)
    assert shown is not None
    assert shown.cores == 4
    done(newest, client.reboot("pve", 900, 60))
    assert client.pending("pve", 900)["cores"] == ("4", "4")


def test_files_on_storages(newest: House) -> None:
    client, content = newest.client, b"seed" * 5000
    done(newest, client.upload_iso("pve", "local", "seed.iso", content, hashlib.sha256(content).hexdigest()))
    assert newest.bench.api.volume_file("pve", "local:iso/seed.iso").read_bytes() == content
    (found,) = [volume for volume in client.content("pve", "local", "iso") if "seed" in volume.volid]
    assert (found.volid, found.content, found.size) == ("local:iso/seed.iso", "iso", len(content))
    assert {volume.content for volume in client.content("pve", "local")} >= {"iso", "import"}
    with pytest.raises(errors.TaskFailedError, match="checksum mismatch"):
        client.wait_task(client.upload_iso("pve", "local", "bad.iso", b"x", "0" * 64), Step(), "it")
    for _ in range(2):
        if upid := client.delete_volume("pve", "local", "local:iso/seed.iso"):
            done(newest, upid)
    assert client.content("pve", "local", "iso") == [
        v for v in client.content("pve", "local", "iso") if "a.iso" in v.volid
    ]


def test_an_image_is_fetched_once(newest: House) -> None:
    client, image = newest.client, pve_bench.qcow2(1 << 20)
    good = ("sha256", hashlib.sha256(image).hexdigest())
    with pve_bench.web({"x.qcow2": image}) as base:
        for _ in range(2):
            done(newest, client.download_url("pve", "local", f"{base}/x.qcow2", "x.qcow2", good))
        with pytest.raises(errors.TaskFailedError, match="checksum mismatch"):
            client.wait_task(
                client.download_url("pve", "local", f"{base}/x.qcow2", "y.qcow2", ("sha256", "0" * 64)), Step(), "it"
            )
    assert [v.volid for v in client.content("pve", "local", "import") if v.volid.endswith("x.qcow2")] == [
        "local:import/x.qcow2"
    ]


def test_a_disk_goes_to_another_machine(tmp_path: Path) -> None:
    with scripted(tmp_path, versioned(lambda request: data(UPID))) as (client, heard):
        assert client.move_disk("pve", 900, "scsi1", 901, "scsi2") == UPID
    assert heard[-1].target == "/api2/json/nodes/pve/qemu/900/move_disk"
    assert parse_qs(heard[-1].body.decode()) == {"disk": ["scsi1"], "target-vmid": ["901"], "target-disk": ["scsi2"]}


def test_a_copy_of_a_template(newest: House) -> None:
    client = newest.client
    newest.make(800, scsi0=DISK)
    done(newest, client.change("pve", 800, {"template": True}))
    done(newest, client.clone("pve", 800, {"newid": 900, "name": "web", "full": True}))
    copy = client.config("pve", 900)
    assert copy is not None
    assert copy.name == "web"
    assert {row.vmid for row in client.vms("pve") if row.template} == {800}


def test_what_is_around_the_machines(house: House) -> None:
    client = house.client
    assert client.bridges("pve") == {"vmbr0"}
    (node,) = client.nodes()
    assert (node.name, node.online) == ("pve", True)
    assert node.cpus > 0
    assert 0 < node.memory_free < node.memory_total
    own = {storage.name: storage for storage in client.storages("pve")}
    assert own["local"].content >= {"iso", "import"}
    seen = client.resources()
    assert seen.nodes[0].memory_total == node.memory_total
    assert {(s.name, s.node, s.kind) for s in seen.storages} == {(s.name, "pve", s.kind) for s in own.values()}
    assert {s.name: s.available for s in seen.storages} == {s.name: s.available for s in own.values()}
    assert client.cluster_status() == proxmox.ClusterStatus("", True, {"pve": True})
    assert client.release() == proxmox.release_of(client) == client.version().release
    assert house.counted("GET /version") == 2


def test_more_that_is_around_the_machines(newest: House) -> None:
    client = newest.client
    assert "x86-64-v2-AES" in client.cpu_models("pve")
    assert abs(client.time("pve") - newest.bench.kit.clock.now()) < 60
    assert client.mappings("pci") == {}
    assert client.mappings("usb") == {}


def test_the_whole_list_of_grants_says_what_each_question_says(house: House) -> None:
    house.bench.api.add_token(
        "some@pve!t1",
        SECRET,
        {"/vms": ["VM.Audit"], "/nodes/pve": ["Sys.Audit"], "/pool/fo": ["VM.Allocate", "Pool.Audit"]},
    )
    house.make(900)
    for token in (FO, pve_bench.ROOT, "weak@pve!t1", "some@pve!t1"):
        client = house.another(token_id=token)
        dump = client.grants()
        for path in ("/", "/vms", "/vms/900", "/vms/901", "/nodes/pve", "/nodes/other", "/storage/local", "/pool/fo",
                     "/sdn/zones/localnetwork/vmbr0", "/access", "/mapping/pci/gpu"):  # fmt: skip
            assert dump.at(path) == client.permissions(path), (token, path)


def test_members_of_a_pool_are_listed(house: House) -> None:
    house.bench.api.add_token("some@pve!t1", SECRET, {"/pool/fo": ["VM.Audit"]})
    house.client.create_pool("fo")
    house.make(900, pool="fo")
    house.make(901)
    held = house.another(token_id="some@pve!t1").grants()
    assert held.at("/vms/900") == {"VM.Audit"}
    assert held.at("/vms/901") == frozenset()


def test_the_agent(house: House) -> None:
    house.make(900, agent="enabled=1")
    with pytest.raises(errors.RefusedError, match="not running"):
        house.client.guest_addresses("pve", 900)
    house.bench.guests.talking.add(900)
    done(house, house.client.start("pve", 900))
    assert house.client.guest_addresses("pve", 900) == []


def test_a_file_in_the_guest(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return data({"content": "ssh-ed25519 AAAA gr\u00c3\u00bcn\n"})

    with scripted(tmp_path, answer) as (client, heard):
        assert client.agent_file("pve", 900, "/etc/ssh/key.pub").decode() == "ssh-ed25519 AAAA grün\n"
    assert heard[0].target.endswith("/nodes/pve/qemu/900/agent/file-read?file=%2Fetc%2Fssh%2Fkey.pub")


def test_a_firewall(newest: House, root: proxmox.Proxmox) -> None:
    client = newest.client
    newest.make(900)
    assert not root.firewall_enabled()
    client.set_firewall_options("pve", 900, {"enable": True, "policy_in": "DROP"})
    options = client.firewall_options("pve", 900)
    assert (options["enable"], options["policy_in"], "digest" in options) == ("1", "DROP", False)
    rule = {"type": "in", "action": "ACCEPT", "proto": "tcp", "dport": "6443", "enable": 1}
    client.add_firewall_rule("pve", 900, rule)
    client.add_firewall_rule("pve", 900, {**rule, "dport": "22"})
    assert [(r["pos"], r["dport"], r["enable"]) for r in client.firewall_rules("pve", 900)] == [
        ("0", "22", "1"), ("1", "6443", "1")
    ]  # fmt: skip
    client.delete_firewall_rule("pve", 900, 1)
    assert [r["dport"] for r in client.firewall_rules("pve", 900)] == ["22"]


def test_high_availability(newest: House, root: proxmox.Proxmox) -> None:
    for vmid in (900, 901):
        newest.make(vmid)
        root.add_ha_resource(vmid, {"state": "stopped"})
    assert root.ha_resources() == {900, 901}
    root.change_ha_resource(900, {"comment": "x"})
    rule = {"rule": "fo-home", "type": "resource-affinity", "affinity": "positive", "resources": "vm:900,vm:901"}
    root.create_ha_rule(rule)
    seen = root.ha_rules()["fo-home"]
    assert (seen["affinity"], set(seen["resources"].split(","))) == ("positive", {"vm:900", "vm:901"})
    root.change_ha_rule("fo-home", {"type": "resource-affinity", "comment": "y"})
    assert root.ha_rules()["fo-home"]["comment"] == "y"
    root.delete_ha_rule("fo-home")
    assert root.ha_rules() == {}
    root.remove_ha_resource(900)
    assert root.ha_resources() == {901}


def test_groups_of_the_older_release(tmp_path: Path) -> None:
    with door_bench.house(tmp_path, release="8.4") as older:
        client = older.another(token_id=pve_bench.ROOT)
        client.create_ha_group({"group": "fo", "nodes": "pve"})
        assert client.ha_groups()["fo"]["nodes"] == "pve"
        client.change_ha_group("fo", {"comment": "x"})
        assert client.ha_groups()["fo"]["comment"] == "x"
        client.delete_ha_group("fo")
        assert client.ha_groups() == {}


def test_backups_and_their_job(newest: House, root: proxmox.Proxmox) -> None:
    root.create_pool("fo")
    newest.make(900, scsi0=DISK, pool="fo")
    job = {"id": "fo-home", "pool": "fo", "storage": "local", "schedule": "02:30", "mode": "snapshot",
           "compress": "zstd", "prune-backups": "keep-last=3,keep-daily=7", "enabled": True}  # fmt: skip
    root.create_backup_job(job)
    seen = root.backup_jobs()["fo-home"]
    assert (seen["pool"], seen["schedule"], seen["prune-backups"]) == ("fo", "02:30", "keep-daily=7,keep-last=3")
    root.change_backup_job("fo-home", {"schedule": "03:30"})
    assert root.backup_jobs()["fo-home"]["schedule"] == "03:30"
    assert root.backups("pve", "local") == []
    upid = root.vzdump("pve", {"pool": "fo", "storage": "local", "mode": "snapshot", "compress": "zstd"})
    root.wait_task(upid, Step(), "the backup")
    (made,) = root.backups("pve", "local")
    assert made == root.backups("pve", "local", 900)[0]
    assert root.backups("pve", "local", 901) == []
    assert (made.vmid, made.protected, made.verified) == (900, False, "")
    saved, now = root.backup_config("pve", made.volid), root.config("pve", 900)
    assert now is not None
    assert (saved.name, saved.identity, saved.memory_mib) == (now.name, now.identity, now.memory_mib)
    root.delete_backup_job("fo-home")
    assert root.backup_jobs() == {}


def test_a_backup_of_nothing_is_no_task(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return data({"version": "9.1.4"} if request.method == "GET" else "OK")

    with scripted(tmp_path, answer) as (client, _):
        assert client.vzdump("pve", {"vmid": "900", "storage": "local"}) == ""


def test_devices_by_name(tmp_path: Path) -> None:
    rows = [{"id": "gpu", "map": ["node=pve,path=0000:01:00.0,id=10de:1b80"], "checks": []}]
    with scripted(tmp_path, lambda request: data(rows)) as (client, heard):
        assert client.mappings("pci") == {"gpu": {"pve"}}
    assert heard[0].target == "/api2/json/cluster/mapping/pci"


def test_what_a_web_server_says(tmp_path: Path) -> None:
    with scripted(tmp_path, lambda request: data({"filename": "x.img", "mimetype": "x/y", "size": 7})) as (
        client,
        heard,
    ):
        assert client.url_metadata("pve", "https://example.org/x.img").size == 7
    assert heard[0].target.endswith("?url=https%3A%2F%2Fexample.org%2Fx.img&verify-certificates=1")


def test_a_backup_is_known_before_it_is_restored(tmp_path: Path) -> None:
    text = "#made by fo\nmemory: 2048\nname: web\nsmbios1: uuid=6b1a3d0e-1111-4222-8333-444455556666\n"
    with scripted(tmp_path, lambda request: data(text)) as (client, heard):
        seen = client.backup_config("pve", "local:backup/vzdump-qemu-900-2026_11_24-02_30_00.vma.zst")
    assert (seen.name, seen.identity) == ("web", "6b1a3d0e-1111-4222-8333-444455556666")
    assert "/nodes/pve/vzdump/extractconfig?volume=local%3Abackup%2Fvzdump-qemu-900" in heard[0].target
