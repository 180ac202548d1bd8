"""Proxmox's answers as values: recorded ones are read right, and no answer whatever breaks the reader."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.errors import RefusedError
from funoffshore.world.proxmox import Grants, answers, grants, shapes

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "node", "vmid", "storage", "volid", "upid", "version", "maxmem", "avail", "scsi0", "memory", "smbios1", "cores",
    "ide2", "tags", "status", "exitstatus", "result", "t", "active", "protection", "type", "name", "online", "quorate",
    "key", "value", "pending", "delete", "id", "map", "content", "truncated", "ctime", "size", "notes", "protected",
    "verification", "prune-backups", "endtime", "starttime", "user", "tokenid", "shared", "disk", "maxdisk",
    "template", "cpu", "maxcpu", "filename", "rule", "group", "data",
)  # fmt: skip
TELLING = st.sampled_from(
    [
        "qemu",
        "lxc",
        "node",
        "storage",
        "cluster",
        "running",
        "0",
        "1",
        "",
        "pve",
        "node=pve,id=1:2",
        "uuid=x",
        "9" * 400,
    ]
)
ROW = st.dictionaries(st.sampled_from(KEYS), TELLING | ANYTHING)
ROW_PARSERS: list[Any] = [
    answers.parse_version, answers.parse_node, answers.parse_storage, answers.parse_vm_row, answers.parse_config,
    answers.parse_task, answers.parse_task_row, answers.parse_volume, answers.parse_interfaces, answers.parse_backup,
    answers.parse_file, answers.parse_metadata, answers.parse_config_text, answers.flat, grants.parse_grants,
]  # fmt: skip
LIST_PARSERS: list[Any] = [
    answers.parse_log, answers.parse_resources, answers.parse_cluster_status, answers.parse_pending,
    answers.parse_mapping, answers.keyed("id"), *(answers.each(parse) for parse in ROW_PARSERS),
]  # fmt: skip


def tried(parse: Any, answer: Any) -> Any:
    """What it makes of the answer; None where it takes it for malformed. Whatever else it raises fails the test."""
    with contextlib.suppress(*answers.MALFORMED):
        return parse(answer)
    return None


@given(st.sampled_from(ROW_PARSERS), ROW | ANYTHING)
def test_no_answer_breaks_a_parser_of_a_row(parse: Any, answer: Any) -> None:
    tried(parse, answer)


@given(st.sampled_from(LIST_PARSERS), st.lists(ROW, max_size=3) | ANYTHING)
def test_no_answer_breaks_a_parser_of_a_list(parse: Any, answer: Any) -> None:
    tried(parse, answer)


@given(ROW)
def test_what_was_read_as_a_configuration_can_be_asked_for_anything(answer: Any) -> None:
    seen = tried(answers.parse_config, answer)
    if seen is not None:
        assert isinstance(seen.cores * seen.memory_mib, int)
        assert seen.disk_gib() >= 0
        assert seen.disk_gib("ide2") >= 0
        assert isinstance((seen.name, seen.identity, seen.lock, seen.cdrom, seen.protected), tuple)


@given(st.text() | st.from_regex(r"[0-9]{0,400}\.?[0-9]{0,400}[KMGT]?", fullmatch=True))
def test_every_text_is_a_size_or_none(text: str) -> None:
    assert shapes.size_bytes(text) >= 0


@given(st.integers(0, 2**40), st.sampled_from("KMGT"))
def test_sizes_are_read_exactly(number: int, unit: str) -> None:
    if number * shapes.size_bytes(f"1{unit}") < 2**53:
        assert shapes.size_bytes(f"{number}{unit}") == number * shapes.size_bytes(f"1{unit}")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("300M", 300 << 20),
        ("1.5G", 3 << 29),
        ("2T", 2 << 40),
        ("7", 7),
        ("368K", 368 << 10),
        ("", 0),
        ("-1G", 0),
        ("1P", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert shapes.size_bytes(text) == size


FIELD = st.text(st.characters(exclude_characters=",=", exclude_categories=["Cs"]), min_size=1).map(str.strip)


@given(st.text())
def test_every_text_is_a_property_string(text: str) -> None:
    assert all(isinstance(key, str) for key in shapes.properties(text, "file"))


@given(st.dictionaries(FIELD.filter(bool), FIELD), st.randoms(use_true_random=False))
def test_the_order_of_a_property_string_means_nothing(fields: dict[str, str], chance: Any) -> None:
    parts = [f"{key}={value}" for key, value in fields.items()]
    chance.shuffle(parts)
    assert shapes.properties(",".join(parts)) == fields


@given(FIELD.filter(bool), st.dictionaries(FIELD.filter(bool), FIELD, max_size=4))
def test_a_part_without_a_key_is_the_default_ones(bare: str, fields: dict[str, str]) -> None:
    text = ",".join([bare, *(f"{key}={value}" for key, value in fields.items() if key != "file")])
    assert shapes.properties(text, "file")["file"] == bare


RECORDED = {
    "scsi0": "vmstore:120/vm-120-disk-0.qcow2,discard=on,iothread=1,size=300M,ssd=1",
    "ide2": "local:iso/seed.iso,media=cdrom,size=368K",
    "smbios1": "uuid=6B1A3D0E-1111-4222-8333-444455556666",
    "memory": "2048",
    "cores": 2,
    "name": "web",
    "digest": "0" * 40,
}


def test_a_recorded_configuration() -> None:
    seen = answers.parse_config(RECORDED)
    assert (seen.name, seen.cores, seen.memory_mib, seen.cdrom) == ("web", 2, 2048, "local:iso/seed.iso")
    assert seen.identity == "6b1a3d0e-1111-4222-8333-444455556666"
    assert seen.disk_gib() == pytest.approx(300 / 1024)


def test_a_configuration_while_it_is_created() -> None:
    seen = answers.parse_config({"lock": "create", "digest": "0" * 40})
    assert (seen.lock, seen.identity, seen.disk_gib()) == ("create", "", 0)


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({"memory": "current=4096"}, "memory_mib", 4096),
        ({"sockets": 2}, "cores", 4),
        ({"ide2": "none,media=cdrom"}, "cdrom", ""),
        ({"scsi0": "a:b,size=1.5T"}, "disk_gib", 1536),
        ({"protection": 1}, "protected", True),
        ({"smbios1": "uuid=AB,base64=1"}, "identity", "ab"),
    ],
)
def test_other_forms(changed: dict[str, Any], field: str, value: object) -> None:
    found = getattr(answers.parse_config({**RECORDED, **changed}), field)
    assert (found() if callable(found) else found) == value


@pytest.mark.parametrize(
    ("answer", "running", "good"),
    [
        ({"status": "running"}, True, False),
        ({"status": "stopped", "exitstatus": "OK"}, False, True),
        ({"status": "stopped", "exitstatus": "WARNINGS: 1"}, False, True),
        ({"status": "stopped", "exitstatus": "unexpected status"}, False, False),
        ({"status": "stopped", "exitstatus": "OK, but no"}, False, False),
        ({"status": "stopped"}, False, False),
    ],
)
def test_a_task_is_judged_by_its_exit_status(answer: dict[str, Any], running: bool, good: bool) -> None:
    state = answers.parse_task(answer)
    assert (state.running, state.succeeded) == (running, good)


def test_both_forms_of_a_tasks_user() -> None:
    row = {"upid": "UPID:x", "type": "qmcreate", "id": "100"}
    assert answers.parse_task_row({**row, "user": "fo@pve!t1"}).user == "fo@pve!t1"
    assert answers.parse_task_row({**row, "user": "fo@pve", "tokenid": "t1"}).user == "fo@pve!t1"


def test_the_node_of_a_task() -> None:
    assert shapes.task_node("UPID:pve2:00000B88:0006E38A:6B05104E:qmcreate:900:fo@pve!t1:") == "pve2"
    with pytest.raises(RefusedError):
        shapes.task_node("None")


def test_a_log_without_output_is_empty() -> None:
    assert answers.parse_log([{"n": 1, "t": "no content"}]) == []
    assert answers.parse_log([{"n": 1, "t": "a"}, {"n": 2, "t": "TASK OK"}]) == ["a", "TASK OK"]


def test_the_whole_cluster_in_one_answer() -> None:
    seen = answers.parse_resources(
        [
            {"id": "qemu/900", "type": "qemu", "vmid": 900, "node": "pve", "name": "web", "status": "running",
             "maxcpu": 4, "maxmem": 8 << 30, "maxdisk": 40 << 30, "pool": "fo", "tags": "fo;web", "template": 0,
             "hastate": "started", "lock": "backup"},
            {"id": "qemu/901", "type": "qemu", "vmid": 901, "node": "pve", "status": "unknown"},
            {"id": "lxc/100", "type": "lxc", "vmid": 100, "node": "pve", "status": "stopped", "template": 1},
            {"id": "node/pve", "type": "node", "node": "pve", "status": "online", "maxcpu": 16, "maxmem": 64 << 30,
             "mem": 1 << 30, "cpu": 0.25},
            {"id": "node/pve2", "type": "node", "node": "pve2", "status": "offline"},
            {"id": "storage/pve/local", "type": "storage", "storage": "local", "node": "pve", "status": "available",
             "disk": 10, "maxdisk": 30, "content": "iso,import", "shared": 0, "plugintype": "dir"},
            {"id": "storage/pve/nas", "type": "storage", "storage": "nas", "node": "pve", "status": "unknown",
             "shared": 1, "plugintype": "nfs", "content": "backup"},
            {"id": "sdn/pve/localnetwork", "type": "sdn", "sdn": "localnetwork", "node": "pve", "status": "ok"},
            {"id": "/pool/fo", "type": "pool", "pool": "fo"},
            {"id": "network/pve/zone", "type": "network"},
        ]
    )  # fmt: skip
    web, fresh, container = seen.guests
    assert (web.vmid, web.running, web.memory, web.cpus, web.disk) == (900, True, 8 << 30, 4, 40 << 30)
    assert (web.pool, web.tags, web.ha, web.lock) == ("fo", frozenset({"fo", "web"}), "started", "backup")
    assert (fresh.name, fresh.status, fresh.running) == ("", "unknown", False)
    assert (container.kind, container.template) == ("lxc", True)
    assert [(node.name, node.online, node.memory_free, node.cpus) for node in seen.nodes] == [
        ("pve", True, 63 << 30, 16), ("pve2", False, 0, 0)
    ]  # fmt: skip
    local, nas = seen.storages
    assert (local.node, local.available, local.total, local.active, local.kind) == ("pve", 20, 30, True, "dir")
    assert local.content == {"iso", "import"}
    assert (nas.active, nas.shared) == (False, True)


def test_a_cluster_and_a_single_node() -> None:
    nodes: list[dict[str, Any]] = [
        {"type": "node", "name": "a", "online": 1},
        {"type": "node", "name": "b", "online": 0},
    ]
    head = {"type": "cluster", "name": "home", "quorate": 0}
    assert answers.parse_cluster_status([head, *nodes]) == shapes.ClusterStatus("home", False, {"a": True, "b": False})
    assert answers.parse_cluster_status(nodes[:1]) == shapes.ClusterStatus("", True, {"a": True})


def test_what_waits_for_a_restart() -> None:
    rows: list[dict[str, Any]] = [
        {"key": "name", "value": "web"},
        {"key": "cores", "value": 2, "pending": 4},
        {"key": "scsi1", "pending": "vmstore:1"},
        {"key": "watchdog", "value": "i6300esb", "delete": 1},
        {"key": "usb0", "value": "spice", "delete": 2},
        {"key": "digest", "value": "0" * 40},
    ]
    assert answers.parse_pending(rows) == {
        "name": ("web", "web"),
        "cores": ("2", "4"),
        "scsi1": (None, "vmstore:1"),
        "watchdog": ("i6300esb", None),
        "usb0": ("spice", None),
    }


def test_jobs_are_texts_however_proxmox_takes_them_apart() -> None:
    job = {
        "id": "fo-home",
        "type": "vzdump",
        "enabled": 1,
        "pool": "fo",
        "prune-backups": {"keep-last": "3", "keep-daily": 7},
    }
    assert answers.keyed("id")([{**job, "digest": "x"}]) == {
        "fo-home": {"type": "vzdump", "enabled": "1", "pool": "fo", "prune-backups": "keep-daily=7,keep-last=3"}
    }


def test_devices_and_who_has_them() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "gpu", "map": ["node=pve,path=0000:01:00.0,id=10de:1b80", "node=pve2,path=0000:02:00.0,id=10de:1b80"]},
        {"id": "stick", "map": ["id=1234:5678,node=pve"]},
        {"id": "none"},
    ]
    assert answers.parse_mapping(rows) == {"gpu": {"pve", "pve2"}, "stick": {"pve"}, "none": frozenset()}


@given(st.binary())
def test_a_file_read_by_the_agent_keeps_every_byte(content: bytes) -> None:
    assert answers.parse_file({"content": content.decode("latin-1")}) == content


def test_a_file_that_was_cut_off_is_no_file() -> None:
    with pytest.raises(ValueError, match="cut off"):
        answers.parse_file({"content": "abc", "truncated": 1})


def test_a_backup() -> None:
    row = {"volid": "nas:backup/vzdump-qemu-900.vma.zst", "vmid": 900, "ctime": 1764000000, "size": 7, "protected": 1}
    seen = answers.parse_backup({**row, "notes": "web", "verification": {"state": "ok", "upid": "x"}})
    assert (seen.vmid, seen.at, seen.size, seen.notes, seen.protected, seen.verified) == (
        900,
        1764000000,
        7,
        "web",
        True,
        "ok",
    )
    assert answers.parse_backup(row).verified == ""


def test_a_configuration_out_of_a_backup() -> None:
    text = (
        "#line one%3A\n#line two\nagent: enabled=1\ncores: 2\nmemory: 2048\nname: web\n"
        "scsi0: vmstore:vm-900-disk-0,size=40G\nsmbios1: uuid=6B1A3D0E-1111-4222-8333-444455556666\n"
        "#qmdump#map:scsi0:drive-scsi0:vmstore:raw:\n\n[before]\nname: old\nmemory: 1\n"
    )
    seen = answers.parse_config_text(text)
    assert (seen.name, seen.memory_mib, seen.cores, seen.disk_gib()) == ("web", 2048, 2, 40)
    assert seen.identity == "6b1a3d0e-1111-4222-8333-444455556666"
    assert seen.options["description"] == "line one:\nline two"


# Privileges. Numbers say whether they reach further down; on its own path, listed is granted.

DUMP = {
    "/": {"Sys.Audit": 1, "Sys.Modify": 0},
    "/access": {"Sys.Audit": 1},
    "/access/groups": {"Sys.Audit": 1},
    "/nodes": {"Sys.Audit": 1},
    "/nodes/pve": {"Sys.Audit": 1, "Sys.AccessNetwork": 1},
    "/pool": {"Sys.Audit": 1},
    "/pool/fo": {"VM.Allocate": 1, "Pool.Audit": 1},
    "/sdn": {"Sys.Audit": 1},
    "/storage": {"Datastore.Audit": 0},
    "/vms/900": {"VM.Allocate": 0, "VM.Audit": 0},
}


@pytest.mark.parametrize(
    ("path", "held"),
    [
        ("/", {"Sys.Audit", "Sys.Modify"}),
        ("/nodes", {"Sys.Audit"}),
        ("/nodes/pve", {"Sys.Audit", "Sys.AccessNetwork"}),
        ("/nodes/pve2", {"Sys.Audit"}),  # from /nodes
        ("/vms/900", {"VM.Allocate", "VM.Audit"}),  # a member of a pool: 0, and granted all the same
        ("/vms/901", set()),  # /vms is always looked at, so its absence is a no
        ("/vms", set()),
        ("/storage", {"Datastore.Audit"}),
        ("/storage/local", {"Sys.Audit"}),  # the rule on /storage stays there, so that on / is in force
        ("/sdn/zones/localnetwork/vmbr0/10", {"Sys.Audit"}),  # from /sdn, over paths that no rule names
        ("/mapping/pci/gpu", {"Sys.Audit"}),  # no root of its own: from /, and only what reaches down
        ("/pool/fo", {"VM.Allocate", "Pool.Audit"}),
        ("/pool/other", {"Sys.Audit"}),
    ],
)
def test_what_a_token_may_do(path: str, held: set[str]) -> None:
    assert grants.parse_grants(DUMP).at(path) == held


def test_a_token_without_any_right() -> None:
    empty: dict[str, dict[str, int]] = {}
    for nothing in (empty, None):
        seen = grants.parse_grants(nothing)
        assert {path: seen.at(path) for path in ("/", "/vms", "/vms/900", "/mapping/pci")} == {
            "/": frozenset(), "/vms": frozenset(), "/vms/900": frozenset(), "/mapping/pci": frozenset()
        }  # fmt: skip


PATHS = st.lists(st.sampled_from(["vms", "storage", "sdn", "900", "a", "b"]), max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)


@given(st.dictionaries(PATHS, st.dictionaries(st.sampled_from(["A", "B", "C"]), st.booleans(), max_size=3)), PATHS)
def test_nothing_is_granted_that_is_not_on_the_way(dump: dict[str, dict[str, bool]], path: str) -> None:
    on_the_way = [above for above in dump if path == above or path.startswith(above.rstrip("/") + "/")]
    allowed = {name for above in on_the_way for name, reaches in dump[above].items() if reaches or above == path}
    assert Grants(dump).at(path) <= allowed
