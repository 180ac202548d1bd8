"""Waiting for tasks of Proxmox: how often it looks, what it says meanwhile, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import door_bench
import pytest
from door_bench import House, Leaping, Step, scripted, silent, times
from door_clockwork import Clockwork, Task, clockwork

from funoffshore import errors
from funoffshore.lab.base import Latencies
from funoffshore.world import proxmox

TITLE = "lab-c1 to be created"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Clockwork, proxmox.Proxmox]]:
    with clockwork(tmp_path) as found:
        yield found


def create(client: proxmox.Proxmox) -> str:
    return client.create_vm("pve", {"vmid": 901})


# How often it looks


def test_one_creation_costs_two_looks(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    began = node.clock.at
    client.wait_task(create(client), Step(), TITLE)
    assert node.asked == ["tasks"] * 2
    assert node.clock.at - began == pytest.approx(15.0)


def test_the_second_one_is_looked_at_when_the_first_had_ended(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    client.wait_task(create(client), Step(), TITLE)
    node.asked.clear()
    began, step = node.clock.at, Step()
    client.wait_task(create(client), step, TITLE)
    assert node.asked == ["tasks"]
    assert node.clock.at - began <= 14 * 1.05
    assert step.said == [f"waiting for {TITLE}, which took 14 s before"]


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.0, 2.0, 5.0])
def test_short_tasks_are_seen_soon(made: tuple[Clockwork, proxmox.Proxmox], seconds: float) -> None:
    node, client = made
    for round_number in range(3):
        node.asked.clear()
        task = node.add("qmstart", seconds)
        client._watch.begun(task.upid)
        client.wait_task(task.upid, Step(), TITLE)
        late = node.clock.at - task.begun - seconds
        assert late <= (2.1 if round_number == 0 else 1.0)
        assert len(node.asked) <= (3 if round_number == 0 else 2)


def test_a_task_of_an_earlier_run_is_looked_at_at_once(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(seconds=3)
    node.clock.at += 100
    began = node.clock.at
    client.wait_task(task.upid, Step(), TITLE)
    assert node.clock.at == began
    assert node.asked == ["tasks"]


def test_the_caller_may_know_better(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    began = node.clock.at
    client.wait_task(create(client), Step(), TITLE, first=14.0)
    assert node.asked == ["tasks"]
    assert node.clock.at - began == pytest.approx(14.0)


def test_the_list_reaches_back_just_as_far_as_it_must(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(seconds=3)
    client.wait_task(task.upid, Step(), TITLE)
    query = node.queries[0]
    assert query == {"source": ["all"], "since": [str(int(task.begun))], "limit": ["500"]}


def test_a_deadline_shorter_than_the_first_look(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    began = node.clock.at
    with pytest.raises(errors.DeadlineError, match="gave up waiting for lab-c1 to be created after 2 s") as gone:
        client.wait_task(create(client), Step(), TITLE, deadline=2.0)
    assert node.clock.at - began == pytest.approx(2.0)
    assert gone.value.evidence[0] in node.tasks
    assert "goes on from there" in gone.value.fix


def test_many_who_wait_share_the_looks(tmp_path: Path) -> None:
    with door_bench.house(tmp_path, latencies=Latencies(create=14.0), speed=20) as house:

        def one(vmid: int) -> None:
            body = {"vmid": vmid, "scsi0": "vmstore:0,import-from=local:import/deb.qcow2"}
            house.client.wait_task(house.client.create_vm("pve", body), Step(), f"vm {vmid}")

        with ThreadPoolExecutor(24) as pool:
            list(pool.map(one, range(901, 925)))
        # A log that was read just as its task ended has the task itself asked, too.
        looks = sum(call == "GET /nodes/pve/tasks" or call.endswith("/status") for call in house.calls())
        assert house.counted("POST /nodes/pve/qemu") == 24
        assert looks <= 24, "24 machines together may not cost what each alone would"


def test_every_node_has_a_list_of_its_own(tmp_path: Path) -> None:
    clock = Leaping()
    mine = Clockwork(clock)
    with scripted(tmp_path, mine.answer, clock) as (client, heard):
        one = mine.add(seconds=3)
        other = Task(one.upid.replace(":pve:", ":pve2:"), one.begun, 3)
        mine.tasks[other.upid] = other
        client.wait_task(one.upid, Step(), TITLE)
        client.wait_task(other.upid, Step(), TITLE)
        assert {r.target.split("/")[4] for r in heard if "/tasks?" in r.target} == {"pve", "pve2"}


# What it says meanwhile


def test_progress_becomes_the_sentence(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    lines = [(n * 2.0, f"transferred {n}.0 GiB of 40.0 GiB ({n * 2.5:.2f}%)") for n in range(1, 41)]
    task = node.add(seconds=80, log=lines)
    step = Step()
    client.wait_task(task.upid, step, TITLE)
    shown = [said for said in step.said if "GiB of 40.0 GiB, " in said]
    assert len(shown) >= 4
    assert shown[0].startswith(f"waiting for {TITLE}, ")
    reads = node.asked.count("log")
    assert reads <= 8, "the log is read every eight seconds or so"


def test_a_log_is_read_on_from_where_it_was_left(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(seconds=30, exit="it broke", log=[(float(n) / 50, f"line {n}") for n in range(1200)])
    with pytest.raises(errors.TaskFailedError) as failed:
        client.wait_task(task.upid, Step(), TITLE)
    assert failed.value.evidence[-1] == "TASK ERROR: it broke"
    assert failed.value.evidence[-2] == "line 1199"
    starts = [int(q["start"][0]) for what, q in zip(node.asked, node.queries, strict=True) if what == "log"]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert len(set(starts)) >= len(starts) - 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("transferred 30.0 MiB of 300.0 MiB (10.00%)", "30.0 MiB of 300.0 MiB, 10 %"),
        (" 51200K .......... .......... .......... 35% 12.3M 4s", "35 % fetched"),
        ("INFO:  12% (1.2 GiB of 10.0 GiB) in 3s, read: 410.0 MiB/s", "INFO:  12% (1.2 GiB of 10.0 GiB) in 3s, read"),
        ("x" * 2000, "x" * 297 + "…"),
    ],
)
def test_lines_of_progress(made: tuple[Clockwork, proxmox.Proxmox], line: str, sentence: str) -> None:
    node, client = made
    step = Step()
    client.wait_task(node.add(seconds=40, log=[(0, line)]).upid, step, TITLE)
    assert any(f"last said: {sentence}" in said for said in step.said)


def test_warnings_are_success_and_told(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    warning = "WARN: no efidisk configured! Using temporary efivars disk."
    step = Step()
    task = node.add("qmstart", 1.0, exit="WARNINGS: 1", log=[(0, "generating"), (0, warning)])
    client.wait_task(task.upid, step, TITLE)
    assert f"warning: {warning}" in step.said
    assert node.asked.count("log") == 1


def test_warnings_without_a_log_are_told_too(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    step = Step()
    client.wait_task(node.add("qmstart", 1.0, exit="WARNINGS: 3").upid, step, TITLE)
    assert "warning: WARNINGS: 3" in step.said


def test_a_task_that_ends_well_and_soon_costs_no_log(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    client.wait_task(node.add("qmstart", 2.0, log=[(0, "hello")]).upid, Step(), TITLE)
    assert "log" not in node.asked


# Against the lab, whose tasks are Proxmox' own


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with door_bench.house(tmp_path) as found:
        yield found


def test_tasks_of_the_lab(house: House) -> None:
    client, step = house.client, Step()
    client.wait_task(client.create_vm("pve", {"vmid": 901, "scsi0": "vmstore:1"}), step, "it")
    client.wait_task(client.start("pve", 901), step, "it")
    with pytest.raises(errors.TaskFailedError, match="already running"):
        client.wait_task(client.start("pve", 901), step, "it")
    kinds = [(row.type, row.ended, row.exitstatus) for row in client.tasks("pve", 0)]
    assert kinds == [("qmstart", True, "VM 901 already running"), ("qmstart", True, "OK"), ("qmcreate", True, "OK")]
    assert all(row.started > 0 and row.finished >= row.started for row in client.tasks("pve", 0))
    assert [row.type for row in client.tasks("pve", 0, "qmcreate")] == ["qmcreate"]
    assert client.tasks("pve", house.bench.kit.clock.now() + 100) == []


@pytest.mark.parametrize(
    ("fault", "error"), [("task-fail", errors.TaskFailedError), ("task-lost", errors.TaskFailedError)]
)
def test_faults_of_the_lab(house: House, fault: str, error: type[errors.FoError]) -> None:
    house.bench.kit.faults.on(fault, type="qmcreate")
    with pytest.raises(error) as failed:
        house.client.wait_task(house.client.create_vm("pve", {"vmid": 901}), Step(), "it")
    assert failed.value.evidence[0].startswith("UPID:pve:")


def test_a_task_that_hangs_in_the_lab(house: House) -> None:
    house.bench.kit.faults.on("task-hang", type="qmcreate")
    upid = house.client.create_vm("pve", {"vmid": 901})
    with pytest.raises(errors.DeadlineError) as gone:
        house.client.wait_task(upid, Step(), "it", deadline=30.0)
    assert gone.value.evidence[0] == upid
    assert [row.upid for row in house.client.running_tasks("pve", 901)] == [upid]
    house.bench.kit.faults.off("task-hang")


def test_a_lost_reply_of_a_write_is_no_second_write(house: House) -> None:
    house.client.version()
    lost = times(1, "POST", "/qemu", silent(596, "Connection timed out"), after=house.bench.api.answer)
    house.mishaps.append(lost)
    with pytest.raises(errors.UnreachableError, match="may still be done"):
        house.client.create_vm("pve", {"vmid": 901})
    assert house.counted("POST /nodes/pve/qemu") == 1
    (row,) = house.client.tasks("pve", 0, "qmcreate")
    house.client.wait_task(row.upid, Step(), "it")
    assert house.client.config("pve", 901) is not None
    assert json.dumps(house.calls()).count("POST") == 1


def test_a_proxmox_that_takes_no_time_is_looked_at_at_once(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    """As the lab without latencies does, whose tasks are over before anybody could look."""
    node, client = made
    upid = create(client)
    assert not client._watch.is_quick
    client._door.quickest = 0.004
    assert client._watch.is_quick
    began = node.clock.at
    with pytest.raises(errors.DeadlineError):
        client.wait_task(upid, Step(), TITLE, deadline=1.0)
    assert node.clock.at - began == pytest.approx(1.0, abs=0.3)
    assert len(node.asked) >= 2
