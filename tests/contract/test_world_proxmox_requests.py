"""What is asked of Proxmox: checked before it is sent, sent again only where that does no harm, never logged."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import door_bench
import pytest
from door_bench import UPID, House, Leaping, data, refused, scripted, times, versioned
from pve_bench import FO, SECRET
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.lab.pve.wire import Reply, Request
from funoffshore.world import proxmox
from funoffshore.world.proxmox import requirements

LOCKED = "can't lock file '/var/lock/qemu-server/lock-120.conf' - got timeout"
CFS = "cfs-lock 'storage-vmstore' error: got lock request timeout"
NO_WORKER = "got no worker upid - start worker failed"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with door_bench.house(tmp_path) as made:
        yield made


# Requests are checked before they are sent


def test_a_slip_never_reaches_proxmox(house: House) -> None:
    house.client.version()
    before = len(house.asked)
    body = {"vmid": 901, "name": "under_score", "net0": "virtio,brige=vmbr0", "onboot": "yes", "coers": 2}
    with pytest.raises(errors.RefusedError, match="was not sent") as refusal:
        house.client.create_vm("pve", body)
    assert len(house.asked) == before
    assert refusal.value.status == 400
    fields = [line.partition(":")[0] for line in refusal.value.evidence]
    assert fields == ["coers", "name", "net0", "onboot"]
    assert "name: invalid format - value does not look like a valid DNS name" in refusal.value.evidence[1]
    assert "net0.brige: property is not defined" in refusal.value.evidence[2]


def test_the_release_is_asked_for_before_the_first_write_only(house: House) -> None:
    house.client.guests()
    assert house.calls() == ["GET /cluster/resources"]
    house.client.create_pool("fo")
    house.client.create_pool("fo2")
    assert house.calls()[1:] == ["GET /version", "POST /pools", "POST /pools"]


@pytest.mark.parametrize(
    ("release", "table"),
    [("7.4", "8.0"), ("8.0", "8.0"), ("8.3", "8.0"), ("8.4", "8.4"), ("9.0", "8.4"), ("9.1", "9.1"), ("10.0", "9.1")],
)
def test_the_newest_table_that_is_not_newer_than_proxmox(tmp_path: Path, release: str, table: str) -> None:
    def answer(request: Request) -> Reply:
        return data({"version": f"{release}.1", "release": release} if "version" in request.target else UPID)

    assert requirements.table_of(proxmox.Version((int(release.split(".")[0]), int(release.split(".")[1])), "")) == table
    with scripted(tmp_path, answer) as (client, heard):
        body = {"vmid": 901, "allow-ksm": True}  # an option that 9.1 brought
        if table == "9.1":
            assert client.create_vm("pve", body) == UPID
        else:
            with pytest.raises(errors.RefusedError, match="allow-ksm: property is not defined"):
                client.create_vm("pve", body)
        assert len(heard) == (2 if table == "9.1" else 1)


def test_reads_are_checked_too(house: House) -> None:
    house.client.version()
    with pytest.raises(errors.RefusedError, match="content: "):
        house.client.content("pve", "local", "nonsense kind")
    assert house.calls() == ["GET /version"]


GIVEN: dict[str, Any] = {
    "node": "pve", "vmid": 900, "storage": "local", "path": "/etc/hostname", "kind": "pci", "since": 0.0, "upid": UPID,
    "changes": {"cores": 2}, "disk": "scsi0", "size_gib": 40, "name": "fo", "content": b"x", "sha256": "0" * 64,
    "url": "https://example.org/x.qcow2", "filename": "x.qcow2", "digest": ("sha256", "0" * 64), "pos": 0,
    "volid": "local:iso/x.iso", "options": {"enable": 1}, "template_vmid": 100, "target_vmid": 901,
    "target_disk": "scsi1", "rule": {"type": "in", "action": "ACCEPT"},
}  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "create_vm": {"vmid": 900},
    "clone": {"newid": 900},
    "add_ha_resource": {"state": "started"},
    "change_ha_resource": {"state": "stopped"},
    "create_ha_rule": {"rule": "fo", "type": "resource-affinity", "affinity": "negative", "resources": "vm:900,vm:901"},
    "change_ha_rule": {"type": "resource-affinity", "resources": "vm:900"},
    "create_ha_group": {"group": "fo", "nodes": "pve"},
    "change_ha_group": {"nodes": "pve"},
    "create_backup_job": {
        "id": "fo",
        "pool": "fo",
        "storage": "nas",
        "schedule": "02:30",
        "prune-backups": "keep-last=3",
    },
    "change_backup_job": {"schedule": "03:30"},
    "vzdump": {"vmid": "900", "storage": "nas", "mode": "snapshot"},
}
ASK_NOTHING_THEMSELVES = ("gather", "wait_task", "release", "last_config")
METHODS = sorted(
    name
    for name, _ in inspect.getmembers(proxmox.Proxmox, inspect.isfunction)
    if not name.startswith("_") and name not in ASK_NOTHING_THEMSELVES
)


@pytest.mark.parametrize("release", ["8.4", "9.1"])
def test_every_call_is_one_that_the_table_knows(tmp_path: Path, release: str) -> None:
    def answer(request: Request) -> Reply:
        return data({"version": f"{release}.1"} if request.target.endswith("/version") else UPID)

    kept_back: dict[str, errors.FoError] = {}
    with scripted(tmp_path, answer) as (client, heard):
        client.version()
        for name in METHODS:
            wanted = inspect.signature(getattr(client, name)).parameters.values()
            needed = [p.name for p in wanted if p.default is inspect.Parameter.empty]
            given = {parameter: GIVEN.get(parameter, BODIES.get(name)) for parameter in needed}
            before = len(heard)
            try:
                getattr(client, name)(**given)
            except errors.FoError as why:
                if len(heard) == before:
                    kept_back[name] = why
            else:
                assert len(heard) == before + 1, name
    assert {name: why.message for name, why in kept_back.items()} == {}


def test_a_release_between_two_tables_may_have_what_the_newer_one_has(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        return data({"version": "9.0.8"} if request.target.endswith("/version") else [])

    with scripted(tmp_path, answer) as (client, heard):
        client.version()
        assert client.ha_rules() == {}
        with pytest.raises(errors.RefusedError, match="affinity: value 'opposite'"):
            client.create_ha_rule({**BODIES["create_ha_rule"], "affinity": "opposite"})
        assert len(heard) == 2


def test_what_an_older_release_has_not_it_says_itself(tmp_path: Path) -> None:
    with door_bench.house(tmp_path, release="8.4") as older, pytest.raises(errors.RefusedError) as refusal:
        older.client.ha_rules()
    assert refusal.value.status == 501


def test_a_call_that_no_release_knows_is_a_bug(house: House) -> None:
    house.client.version()
    with pytest.raises(errors.FoError, match="a bug in fo") as bug:
        house.client._door.post("/nodes/pve/qemu/900/config/no-such-thing", {})
    assert type(bug.value) is errors.FoError
    assert house.calls() == ["GET /version"]


# Locks


@pytest.mark.parametrize("text", [LOCKED, CFS])
def test_a_lock_that_was_not_to_be_had_is_asked_for_again(house: House, text: str) -> None:
    house.make(120)
    house.mishaps.append(times(3, "PUT", "/config", refused(500, text)))
    house.client.change_now("pve", 120, {"description": "x"})
    assert house.counted("PUT /nodes/pve/qemu/120/config") == 4
    assert house.client.pending("pve", 120)["description"] == ("x", "x")


def test_a_lock_that_is_never_to_be_had(tmp_path: Path) -> None:
    clock = Leaping()
    with (
        scripted(tmp_path, versioned(lambda request: refused(500, LOCKED)), clock) as (client, heard),
        pytest.raises(errors.RefusedError, match="got timeout") as refusal,
    ):
        client.start("pve", 120)
    assert len(heard) == 1 + 5
    assert clock.slept == sorted(clock.slept)
    assert sum(clock.slept) <= 60
    assert proxmox.is_busy(refusal.value)


def test_a_lock_that_keeps_everybody_waiting_is_given_up_after_a_minute(tmp_path: Path) -> None:
    clock = Leaping()

    def answer(request: Request) -> Reply:
        clock.at += 25  # so long does the other side wait itself
        return refused(500, LOCKED)

    with scripted(tmp_path, versioned(answer), clock) as (client, heard), pytest.raises(errors.RefusedError):
        client.start("pve", 120)
    assert len(heard) == 1 + 3


def test_an_upload_is_sent_again_whole(house: House) -> None:
    content = bytes(range(256)) * 1024
    house.mishaps.append(times(1, "POST", "/upload", refused(500, CFS)))
    upid = house.client.upload_iso("pve", "local", "seed.iso", content, hashlib.sha256(content).hexdigest())
    house.client.wait_task(upid, door_bench.Step(), "the seed to be stored")
    assert house.bench.api.volume_file("pve", "local:iso/seed.iso").read_bytes() == content
    first, second = [r.body for r in house.asked if r.method == "POST"]
    assert len(first) == len(second)


@pytest.mark.parametrize(
    "text",
    [
        NO_WORKER,
        "VM is locked (backup)",
        "cfs-lock 'file-user_cfg' error: no quorum!",
        "VM quit/powerdown failed - got timeout",
    ],
)
def test_what_may_have_begun_is_never_sent_again(tmp_path: Path, text: str) -> None:
    with scripted(tmp_path, versioned(lambda request: refused(500, text))) as (client, heard):
        with pytest.raises(errors.RefusedError):
            client.start("pve", 120)
        assert len(heard) == 2


@pytest.mark.parametrize(
    ("error", "busy"),
    [
        (errors.RefusedError(LOCKED, status=500), True),
        (errors.RefusedError(CFS, status=500), True),
        (errors.RefusedError(NO_WORKER, status=500), True),
        (errors.RefusedError("no worker upid"), True),
        (errors.TaskFailedError(f"web to start failed: {LOCKED}"), True),
        (errors.TaskFailedError(f"web to be created failed: unable to create VM 900 - {CFS}"), True),
        (errors.TaskFailedError("web to stop failed: VM quit/powerdown failed - got timeout"), False),
        (errors.RefusedError("VM is locked (backup)", status=500), True),
        (errors.RefusedError("VM is locked (snapshot)", status=500), True),
        (errors.RefusedError("VM is locked (create)", status=500), False),
        (errors.RefusedError("cfs-lock 'file-user_cfg' error: no quorum!", status=500), False),
        (errors.UnreachableError(LOCKED), False),
        (errors.PreflightError("no worker upid"), False),
    ],
)
def test_what_is_busy(error: errors.FoError, busy: bool) -> None:
    assert proxmox.is_busy(error) is busy


# Nothing secret anywhere, threads, compression


class Capture(logging.Handler):
    def __init__(self) -> None:
        super().__init__(0)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {record.getMessage()} {record.args!r} {record.exc_info!r}")


def test_no_secret_and_no_body_is_in_any_log(house: House) -> None:
    capture, root = Capture(), logging.getLogger()
    before = root.level
    root.addHandler(capture)
    root.setLevel(logging.DEBUG)
    logging.getLogger("proxmoxer").setLevel(logging.DEBUG)
    logging.getLogger("proxmoxer.core").setLevel(logging.DEBUG)
    try:
        task = house.client.create_vm("pve", {"vmid": 700, "cipassword": "hunter2", "description": "bodytext"})
        house.client.wait_task(task, door_bench.Step(), "it")
        assert house.client.config("pve", 700) is not None
        with pytest.raises(errors.RefusedError):
            house.client.create_vm("pve", {"vmid": 700, "cipassword": "hunter2"})
    finally:
        root.removeHandler(capture)
        root.setLevel(before)
    text = "\n".join(capture.lines)
    assert "urllib3" in text, "the handler hears what is said"
    for word in (SECRET, "hunter2", "bodytext", "PVEAPIToken"):
        assert word not in text


def test_every_thread_has_its_own_client(house: House) -> None:
    together = threading.Barrier(8)
    seen: list[int] = []

    def ask() -> None:
        together.wait(10)
        house.client.version()
        seen.append(id(house.client._door._client()))
        assert house.client._door._client() is house.client._door._client()
        together.wait(10)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(ask) for _ in range(8)]:
            future.result()
    assert len(set(seen)) == 8


def test_long_answers_travel_compressed(tmp_path: Path) -> None:
    rows = [{"id": f"qemu/{n}", "type": "qemu", "vmid": n, "node": "pve"} for n in range(100, 400)]
    body = json.dumps({"data": rows}).encode()

    def answer(request: Request) -> Reply:
        assert "gzip" in request.headers["accept-encoding"]
        return Reply(body=gzip.compress(body), extra=[("Content-Encoding", "gzip")])

    # The server of the lab compresses by itself; here it is told not to, so that its own is the one that counts.
    def plain(request: Request) -> Reply:
        reply = answer(request)
        request.headers["accept-encoding"] = ""
        return reply

    with scripted(tmp_path, plain) as (client, _):
        assert len(client.guests()) == 300


def test_the_environment_has_no_say(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    monkeypatch.setenv("NETRC", "/nonexistent")
    assert house.client.version().release == (9, 1)
    assert house.asked[0].headers["authorization"] == f"PVEAPIToken={FO}={SECRET}"
    assert "cookie" not in house.asked[0].headers


def test_reads_side_by_side_keep_their_own_errors(house: House) -> None:
    client = house.client
    found = client.gather({"good": client.version, "bad": lambda: client.running("pve", 1000)})
    assert isinstance(found["good"], proxmox.Version)
    assert isinstance(found["bad"], errors.RefusedError)


def test_a_secret_is_never_shown(house: House) -> None:
    assert SECRET not in repr(door_bench.lent("127.0.0.1", "a" * 64))
    assert SECRET not in repr(SecretStr(SECRET))
