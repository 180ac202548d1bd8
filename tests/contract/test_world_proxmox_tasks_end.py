"""How waiting for a task of Proxmox ends: well, badly, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from door_bench import Step, data, refused, silent
from door_clockwork import Clockwork, clockwork

from funoffshore import errors
from funoffshore.lab.pve.wire import Reply
from funoffshore.world import proxmox

TITLE = "lab-c1 to be created"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Clockwork, proxmox.Proxmox]]:
    with clockwork(tmp_path) as found:
        yield found


def create(client: proxmox.Proxmox) -> str:
    return client.create_vm("pve", {"vmid": 901})


def test_a_task_that_ends_badly_shows_why(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    exit_text = "unable to create VM 901 - cannot import - copy failed: command 'qemu-img convert' failed: exit code 1"
    log = [
        (0.0, "create full clone of drive"),
        (2.0, "qemu-img: error while writing at byte 0: No space left on device"),
    ]
    task = node.add(seconds=3, exit=exit_text, log=log)
    with pytest.raises(errors.TaskFailedError) as failed:
        client.wait_task(task.upid, Step(), TITLE)
    assert failed.value.message.startswith(f"{TITLE} failed: unable to create VM 901")
    assert "No space left on device" in failed.value.message
    assert failed.value.evidence == (task.upid, log[0][1], log[1][1], f"TASK ERROR: {exit_text}")


def test_a_very_long_exit_text_is_cut(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(
        "qmstart", 1.0, exit="start failed: command '/usr/bin/kvm " + "-device x " * 400 + "' failed: got timeout"
    )
    with pytest.raises(errors.TaskFailedError) as failed:
        client.wait_task(task.upid, Step(), TITLE)
    assert len(failed.value.message) < 400
    assert not proxmox.is_busy(failed.value)


def test_a_task_that_had_no_lock_is_busy(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add("resize", 1.0, exit="can't lock file '/var/lock/qemu-server/lock-901.conf' - got timeout")
    with pytest.raises(errors.TaskFailedError) as failed:
        client.wait_task(task.upid, Step(), TITLE)
    assert proxmox.is_busy(failed.value)


@pytest.mark.parametrize("listed", [True, False])
def test_a_worker_that_was_killed(made: tuple[Clockwork, proxmox.Proxmox], listed: bool) -> None:
    node, client = made
    task = node.add(seconds=3, lost=True, listed=listed, log=[(0, "create full clone of drive")])
    with pytest.raises(errors.TaskFailedError, match="its worker died") as failed:
        client.wait_task(task.upid, Step(), TITLE)
    assert node.clock.at - task.begun < 60, "no list is believed for ever"
    assert failed.value.evidence == (task.upid, "create full clone of drive")


def test_a_list_that_lags_behind_the_log(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(seconds=14, lost=True)
    node.clock.at += 15
    task.log = [(0, "TASK ERROR: broken pipe")]
    client._watch.begun(task.upid)
    with pytest.raises(errors.TaskFailedError):
        client.wait_task(task.upid, Step(), TITLE)
    assert node.clock.at - task.begun < 15 + 29, "before the task itself would be asked anyhow"


def test_a_task_that_the_list_leaves_out(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(seconds=10, listed=False)
    client.wait_task(task.upid, Step(), TITLE)
    assert node.asked.count("status") >= 2


def test_a_list_that_cannot_be_read(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    node.always = [Reply(body=b"<html>")]
    client.wait_task(node.add(seconds=0).upid, Step(), TITLE)
    assert node.asked == ["tasks", "status"]


def test_a_proxmox_that_is_out_of_sorts_is_waited_for(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    node.always = [refused(500, "unable to open file '/var/log/pve/tasks/active'")] * 4
    step = Step()
    client.wait_task(node.add(seconds=3).upid, step, TITLE)
    assert node.asked == ["tasks", "status"] * 2 + ["tasks"]
    assert any("unable to open file" in said for said in step.said)


def test_a_task_in_both_halves_of_the_list(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(seconds=0)
    ended = node._row(task)
    running = {k: v for k, v in ended.items() if k != "endtime"} | {"status": "RUNNING"}
    node.always = [data([running, ended])]
    client.wait_task(task.upid, Step(), TITLE)
    assert node.asked == ["tasks"]
    for rows in ([running, ended], [ended, running]):
        node.always = [data(rows)]
        assert [row.exitstatus for row in client.tasks("pve", 0)] == ["OK"]


def test_a_stall_is_an_error_with_evidence(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add(seconds=5000, log=[(float(n), f"transferred {n}.0 GiB of 90.0 GiB ({n}.00%)") for n in range(60)])
    with pytest.raises(errors.DeadlineError, match=r"has not said anything for 3\d\d s") as stalled:
        client.wait_task(task.upid, Step(), TITLE)
    assert "59.0 GiB of 90.0 GiB" in stalled.value.message
    assert stalled.value.evidence[0] == task.upid
    assert "59.0 GiB" in stalled.value.evidence[-1]
    assert 355 < node.clock.at - task.begun < 400


def test_a_slow_task_that_goes_on_talking_is_no_stall(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add("vzdump", 850, log=[(n * 100.0, f"INFO: {n}%") for n in range(9)])
    client.wait_task(task.upid, Step(), TITLE, stall=150)


def test_how_long_is_a_stall_is_the_callers_word(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    task = node.add("qmshutdown", 400)
    client.wait_task(task.upid, Step(), TITLE, stall=900)
    with pytest.raises(errors.DeadlineError, match="no output yet"):
        client.wait_task(node.add("qmshutdown", 400).upid, Step(), TITLE, stall=60)


def test_a_silent_proxmox_is_waited_for(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    node.always = [silent(596, "Connection timed out")] * 3
    step = Step()
    client.wait_task(node.add(seconds=3).upid, step, TITLE)
    assert any("596" in said for said in step.said)


def test_a_proxmox_that_stays_silent(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    node.always = [silent(595, "No route to host")] * 900
    with pytest.raises(errors.DeadlineError, match="Proxmox node pve did not answer"):
        client.wait_task(node.add(seconds=3).upid, Step(), TITLE, deadline=120)


def test_a_log_that_cannot_be_read_is_no_stall(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    node.secretive = True
    client.wait_task(node.add(seconds=800).upid, Step(), TITLE, stall=100)
    assert node.asked.count("log") > 10


@pytest.mark.parametrize("upid", ["", "None", "UPID:pve:x", "UPID:pve:1:2:NOHEX:qmstart:900:fo@pve!t1:", "x" * 500])
def test_what_is_no_task_id(made: tuple[Clockwork, proxmox.Proxmox], upid: str) -> None:
    node, client = made
    with pytest.raises(errors.TaskFailedError, match="Proxmox does not know the task of"):
        client.wait_task(upid, Step(), TITLE)
    assert node.asked == []


def test_a_task_that_proxmox_has_forgotten(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    gone = "UPID:pve:00000B88:0006E38A:6B05104E:qmcreate:9000:fo@pve!fo:"
    with pytest.raises(errors.TaskFailedError, match="no such task"):
        client.wait_task(gone, Step(), TITLE)
    assert node.asked == ["tasks", "status"]


def test_a_token_that_is_taken_away_meanwhile(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made
    node.always = [silent(401, "token 't1' access expired")]
    with pytest.raises(errors.PreflightError, match="expired"):
        client.wait_task(node.add(seconds=3).upid, Step(), TITLE)


def test_ctrl_c_is_heard_between_two_looks(made: tuple[Clockwork, proxmox.Proxmox]) -> None:
    node, client = made

    class Stopping(Step):
        def checkpoint(self) -> None:
            if node.clock.at > began + 2:
                raise errors.InterruptedRunError("stopped")

    began = node.clock.at
    with pytest.raises(errors.InterruptedRunError):
        client.wait_task(create(client), Stopping(), TITLE)
    assert node.clock.at - began < 4
    assert node.asked == []
    with pytest.raises(errors.InterruptedRunError):
        client.wait_task(node.add().upid, Step(stop_after=0), TITLE)
