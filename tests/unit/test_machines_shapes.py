"""Proxmox's answers as values: recorded ones are read right, and no answer whatever breaks the reader."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funoffshore.errors import RefusedError
from funoffshore.world.proxmox import shapes, tasks

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    "node", "vmid", "storage", "volid", "upid", "version", "maxmem", "avail", "scsi0", "memory", "smbios1", "cores",
    "ide2", "tags", "status", "exitstatus", "result", "t", "active", "protection",
)  # fmt: skip
ROW = st.dictionaries(st.sampled_from(KEYS), ANYTHING)
PARSERS: list[Any] = [
    shapes.parse_version, shapes.parse_node, shapes.parse_storage, shapes.parse_vm_row, shapes.parse_config,
    shapes.parse_task, shapes.parse_task_row, shapes.parse_volume, shapes.parse_interfaces, tasks.parse_log,
    shapes.each(shapes.parse_vm_row),
]  # fmt: skip


@given(st.sampled_from(PARSERS), ROW | ANYTHING | st.lists(ROW, max_size=2))
def test_no_answer_breaks_a_parser(parse: Any, answer: Any) -> None:
    with contextlib.suppress(*shapes.MALFORMED):
        parse(answer)


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
    seen = shapes.parse_config(RECORDED)
    assert (seen.name, seen.cores, seen.memory_mib, seen.cdrom) == ("web", 2, 2048, "local:iso/seed.iso")
    assert seen.identity == "6b1a3d0e-1111-4222-8333-444455556666"
    assert seen.disk_gib == pytest.approx(300 / 1024)


def test_a_configuration_while_it_is_created() -> None:
    seen = shapes.parse_config({"lock": "create", "digest": "0" * 40})
    assert (seen.lock, seen.identity, seen.disk_gib) == ("create", "", 0)


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
    assert getattr(shapes.parse_config({**RECORDED, **changed}), field) == value


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
    state = shapes.parse_task(answer)
    assert (state.running, state.succeeded) == (running, good)


def test_both_forms_of_a_tasks_user() -> None:
    row = {"upid": "UPID:x", "type": "qmcreate", "id": "100"}
    assert shapes.parse_task_row({**row, "user": "fo@pve!t1"}).user == "fo@pve!t1"
    assert shapes.parse_task_row({**row, "user": "fo@pve", "tokenid": "t1"}).user == "fo@pve!t1"


def test_the_node_of_a_task() -> None:
    assert shapes.task_node("UPID:pve2:00000B88:0006E38A:6B05104E:qmcreate:900:fo@pve!t1:") == "pve2"
    with pytest.raises(RefusedError):
        shapes.task_node("None")


def test_a_log_without_output_is_empty() -> None:
    assert tasks.parse_log([{"n": 1, "t": "no content"}]) == []
    assert tasks.parse_log([{"n": 1, "t": "a"}, {"n": 2, "t": "TASK OK"}]) == ["a", "TASK OK"]
