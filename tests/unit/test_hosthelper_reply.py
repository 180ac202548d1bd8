"""``ssh.parse``: the helper's reply as facts, and any other bytes as one clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world import ssh
from funoffshore.world.ssh.facts import cloud_init

FACTS = {
    "hostname": "home-c1", "arch": "x86_64", "kernel": "6.1.0", "os": "debian", "os_version": "12", "boot_id": "b",
    "uuid": "AB-1", "clock": 1000.5, "clock_synced": True, "memory_kib": 4088000, "swap_kib": 0, "cpus": 2,
    "cgroup2": True, "default_route": "10.0.0.1", "listening": [22, 6443], "memory_cgroup": True, "systemd": True,
    "addresses": ["10.0.0.11", "2001:db8::11"], "sysctls": {"kernel.panic": "10"},
}  # fmt: skip
REPLY: dict[str, Any] = {
    "helper": 1,
    "changes": {},
    "read": {
        "facts": FACTS,
        "files": {
            "/a": {"state": "present", "kind": "file", "mode": "0600", "owner": "0:0", "size": 2, "sha256": "ff",
                   "content": "aGk="},
            "/b": {"state": "absent"},
            "/c": {"state": "unreadable", "kind": "os", "error": "/c: Input/output error"},
            "/d": {"state": "present", "kind": "directory", "mode": "0755", "owner": "0:0", "size": 4096},
            "/e": {"state": "present", "kind": "file", "mode": "0600", "owner": "0:0", "size": 1, "content": "/w=="},
        },
        "units": {
            "k3s.service": {
                "state": "present", "LoadState": "loaded", "ActiveState": "active", "SubState": "running",
                "UnitFileState": "enabled", "Result": "success", "ExecMainStatus": "0", "NRestarts": "3",
                "journal": ["up"],
            },
            "k3s-agent.service": {"state": "absent"},
            "x.service": {"result": "failed", "state": "unreadable", "kind": "unit", "error": "no systemd"},
        },
        "commands": {
            "k3s-version": {"state": "present", "code": 0, "out": "k3s version v1.36.4+k3s1 (ab)\ngo version go1\n"},
            "cloud-init": {"state": "present", "code": 0, "out": "{\"status\": \"done\", \"errors\": []}"},
            "certificates": {"state": "present", "code": 0, "out": "o", "err": "e"},
            "encryption": {"state": "unreadable", "kind": "timeout", "error": "too slow"},
        },
        "modes": {
            "/k": {"state": "present", "kind": "file", "mode": "0600", "owner": "0:0", "size": 3, "mtime": 5.5},
            "/none*": {"state": "absent"},
        },
        "connect": {
            "10.0.0.12:2379": {"state": "present", "open": True, "said": ""},
            "10.0.0.12:2380": {"state": "present", "open": False, "said": "timed out"},
        },
        "space": {"/": {"state": "present", "bytes": 5, "inodes": 6}},
        "file_systems": {
            "/": {"state": "present", "type": "ext4", "bytes": 20 << 30, "device": "sda1", "device_bytes": 20 << 30,
                  "disk": "sda", "disk_bytes": 40 << 30, "partition": 1, "tail": 19 << 30, "ids": []},
            "/var/lib/rancher": {"state": "absent"},
            "/x": {"result": "failed", "state": "unreadable", "kind": "disk", "error": "no"},
        },
    },
}  # fmt: skip


def changed(**parts: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(REPLY))
    copy["read"].update(parts)
    return copy


def test_a_whole_reply() -> None:
    facts = ssh.parse(REPLY, 1000.0)
    assert (facts.hostname, facts.uuid, facts.os) == ("home-c1", "ab-1", "debian 12")
    assert (facts.clock_skew, facts.memory_mib, facts.cpus) == (0.5, 3992, 2)
    assert facts.listening == {22, 6443}
    assert (facts.cloud_init, facts.k3s_version) == ("done", "v1.36.4+k3s1")
    assert (facts.memory_cgroup, facts.systemd, facts.architecture) == (True, True, "amd64")
    assert (facts.addresses, facts.sysctls) == (("10.0.0.11", "2001:db8::11"), {"kernel.panic": "10"})
    assert facts.commands["certificates"] == Present(ssh.CommandFact(0, "o", "e"))
    assert facts.commands["encryption"] == Unreadable("too slow")
    assert facts.modes == {"/k": Present(ssh.ModeFact("file", 0o600, "0:0", 3, 5.5)), "/none*": Absent()}
    assert facts.connect["10.0.0.12:2379"] == Present(ssh.ConnectFact(True, ""))
    assert facts.connect["10.0.0.12:2380"] == Present(ssh.ConnectFact(False, "timed out"))
    seen = facts.file("/a")
    assert isinstance(seen, Present)
    assert (seen.value.mode, seen.value.kind) == (0o600, "file")
    assert seen.value.content is not None
    assert seen.value.content.get_secret_value() == "hi"
    assert facts.file("/b") == Absent()
    assert facts.file("/c") == Unreadable("/c: Input/output error")
    binary = facts.file("/e")
    assert isinstance(binary, Present)
    assert binary.value.content is None
    assert facts.unit("k3s.service") == Present(ssh.UnitFact("active", "running", "enabled", "success", 0, 3, ("up",)))
    assert facts.unit("k3s-agent.service") == Absent()
    assert facts.unit("x.service") == Unreadable("no systemd")
    assert facts.space["/"] == Present(ssh.Space(5, 6))
    assert facts.file_systems == {
        "/": Present(ssh.FileSystem("ext4", 20 << 30, "sda1", 20 << 30, "sda", 40 << 30, 19 << 30)),
        "/var/lib/rancher": Absent(),
        "/x": Unreadable("no"),
    }


@pytest.mark.parametrize(
    ("size", "device", "tail", "unused"),
    [
        (20 << 30, 20 << 30, 0, 0),
        ((20 << 30) - (2 << 20), 20 << 30, 1 << 20, 0),  # alignment, and a last group that is too small
        (20 << 30, 20 << 30, 20 << 30, 20 << 30),
        (10 << 30, 20 << 30, 0, 10 << 30),
        (0, 20 << 30, 20 << 30, 0),  # of a kind whose size nobody can tell
    ],
)
def test_what_a_file_system_leaves_of_its_disk(size: int, device: int, tail: int, unused: int) -> None:
    assert ssh.FileSystem("ext4", size, "sda1", device, "sda", 40 << 30, tail).unused == unused


@pytest.mark.parametrize(("arch", "name"), [("x86_64", "amd64"), ("aarch64", "arm64"), ("riscv64", ""), ("", "")])
def test_architectures_as_k3s_names_them(arch: str, name: str) -> None:
    assert ssh.parse(changed(facts={**FACTS, "arch": arch})).architecture == name


@pytest.mark.parametrize(
    ("code", "out", "state"),
    [
        (0, '{"status": "done"}', "done"),
        (2, '{"status": "done", "recoverable_errors": {"WARNING": ["w"]}}', "degraded"),
        (0, '{"status": "degraded done"}', "degraded"),
        (1, '{"status": "error", "errors": ["e"]}', "error"),
        (0, '{"status": "running"}', "running"),
        (0, '{"status": "not started"}', "running"),
        (0, '{"status": "disabled"}', "disabled"),
        (0, "status: done\n", "done"),
        (2, "status: done\n", "degraded"),
        (1, "status: error\ndetail:\nerror: x\n", "error"),
        (0, "status: not run\n", "running"),
        (0, "", "unknown"),
        (0, "{", "unknown"),
        (127, "sh: no", "unknown"),
    ],
)
def test_what_cloud_init_means(code: int, out: str, state: str) -> None:
    assert cloud_init({"state": "present", "code": code, "out": out})[0] == state


def test_cloud_init_that_is_not_there_and_one_that_was_not_asked() -> None:
    assert cloud_init({"state": "absent"}) == ("absent", ())
    assert cloud_init({}) == ("unknown", ())


def test_what_cloud_init_complains_about_is_kept() -> None:
    out = '{"status": "error", "errors": ["e"], "recoverable_errors": {"WARNING": ["w"]}}'
    assert cloud_init({"state": "present", "code": 1, "out": out}) == ("error", ("e", "WARNING: w"))


def test_a_k3s_that_does_not_run_has_no_version() -> None:
    command = {"k3s-version": {"state": "present", "code": 126, "out": ""}}
    assert ssh.parse(changed(commands=command)).k3s_version is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_other_document_is_a_reply_error(reply: object) -> None:
    with pytest.raises(ssh.ReplyError):
        ssh.parse(reply)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value of the document."""
    found = [path] if path else []
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        found += places(value, (*path, key))
    return found


@given(st.sampled_from(places(REPLY["read"])), JSON)
def test_one_hostile_value_is_facts_or_a_reply_error(place: tuple[Any, ...], value: object) -> None:
    reply = changed()
    spot = reply["read"]
    for key in place[:-1]:
        spot = spot[key]
    spot[place[-1]] = value
    try:
        facts = ssh.parse(reply, 0.0)
    except ssh.ReplyError:
        return
    assert isinstance(facts.hostname, str)
    assert all(isinstance(reading, Present | Absent | Unreadable) for reading in facts.files.values())


@given(JSON)
def test_a_reading_without_a_known_state_is_never_absent(value: object) -> None:
    if isinstance(value, dict) and value.get("state") == "absent":
        return
    try:
        facts = ssh.parse(changed(files={"/x": value}))
    except ssh.ReplyError:
        return
    assert facts.file("/x") != Absent()
