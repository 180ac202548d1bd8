"""The SSH door against lab hosts: real paramiko on both sides, one round trip per look or change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from pydantic import SecretStr
from ssh_machines import Bench, bench, hardware_of, offering, until

from funoffshore import errors
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world import routes, ssh
from funoffshore.world.ssh import connection


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        made.boot()
        yield made


def facts_of(made: Bench, look: ssh.Look | None = None) -> ssh.HostFacts:
    seen = made.hosts.observe(made.node, look)
    assert isinstance(seen, Present), seen
    return seen.value


def test_one_look_is_one_round_trip_and_shows_the_machine(one: Bench) -> None:
    facts = facts_of(one)
    assert one.hosts.round_trips == 1
    assert (facts.hostname, facts.uuid) == ("lab-c1", str(one.node.identity))
    assert (facts.cloud_init, facts.cloud_init_said) == ("done", ())
    assert (facts.os, facts.arch, facts.cpus, facts.cgroup2) == ("debian 12", "x86_64", 2, True)
    assert 3500 < facts.memory_mib < 4096
    assert facts.listening == {2222}
    assert facts.default_route == str(one.config.network.gateway)
    assert abs(facts.clock_skew) < 1
    assert facts.k3s_version is None
    assert facts.file("/etc/rancher/k3s/config.yaml") == Absent()
    assert facts.unit("k3s.service") == Absent()
    assert isinstance(facts.space["/var/lib/rancher/k3s"], Present)
    assert isinstance(facts.file("/never/asked"), Unreadable)
    assert one.kit.ledger.entries() == []


def test_writing_is_atomic_idempotent_and_entered_in_the_ledger(one: Bench) -> None:
    path = "/etc/rancher/k3s/config.yaml"
    file = ssh.FileWrite(path, SecretStr("token: s3cret\n"), 0o600)
    assert one.hosts.write(one.node, [file]) == {path}
    assert one.hosts.write(one.node, [file]) == frozenset()
    fact = facts_of(one).file(path)
    assert isinstance(fact, Present)
    assert (fact.value.mode, fact.value.owner, fact.value.size) == (0o600, "0:0", 14)
    assert fact.value.sha256 == hashlib.sha256(b"token: s3cret\n").hexdigest()
    assert fact.value.content is not None
    assert fact.value.content.get_secret_value() == "token: s3cret\n"
    assert "s3cret" not in repr(fact)
    assert one.hosts.read_file(one.node, path) == Present(b"token: s3cret\n")
    said = [entry["what"] for entry in one.kit.ledger.entries()]
    assert said == ["lab-c1 mkdir /etc/rancher", "lab-c1 mkdir /etc/rancher/k3s", f"lab-c1 write {path}"]
    assert "s3cret" not in json.dumps(one.kit.ledger.entries())


def test_a_changed_mode_or_owner_alone_is_a_change(one: Bench) -> None:
    for file in (
        ssh.FileWrite("/opt/x", b"x", 0o600),
        ssh.FileWrite("/opt/x", b"x", 0o000),
        ssh.FileWrite("/opt/x", b"x", 0o000, owner="ops:ops"),
        ssh.FileWrite("/opt/x", b"x", 0o4711, owner="0:1000"),
    ):
        assert one.hosts.write(one.node, [file]) == {"/opt/x"}
        assert one.hosts.write(one.node, [file]) == frozenset()
    look = ssh.Look(files=(ssh.FileLook("/opt/x"),))
    assert facts_of(one, look).file("/opt/x") == Present(
        ssh.FileFact("file", 0o4711, "0:1000", 1, hashlib.sha256(b"x").hexdigest())
    )


def test_only_if_absent_keeps_what_is_there(one: Bench) -> None:
    one.hosts.write(one.node, [ssh.FileWrite("/opt/x", b"first", only_if_absent=True)])
    one.hosts.write(one.node, [ssh.FileWrite("/opt/x", b"second", only_if_absent=True)])
    assert one.hosts.read_file(one.node, "/opt/x") == Present(b"first")


def test_absent_unreadable_and_other_things_are_told_apart(one: Bench) -> None:
    root = one.root()
    (root / "opt/loop").symlink_to("loop")
    (root / "opt/nowhere").symlink_to("/gone")
    (root / "opt/outside").symlink_to("/../../../../../../etc/hostname")
    (root / "opt/big").write_bytes(b"x" * (2 << 20))
    assert one.hosts.read_file(one.node, "/opt/none") == Absent()
    assert one.hosts.read_file(one.node, "/etc/hostname/below") == Absent()
    assert one.hosts.read_file(one.node, "/opt/nowhere") == Absent()
    assert isinstance(one.hosts.read_file(one.node, "/opt/loop"), Unreadable)
    assert isinstance(one.hosts.read_file(one.node, "/opt"), Unreadable)
    assert isinstance(one.hosts.read_file(one.node, "/opt/big"), Unreadable)
    assert one.hosts.read_file(one.node, "/opt/outside") == Present(b"lab-c1\n")


def test_a_big_file_is_hashed_once_and_that_is_no_change(one: Bench) -> None:
    big = one.root() / "opt/big"
    big.write_bytes(b"x" * (2 << 20))
    look = ssh.Look(files=(ssh.FileLook("/opt/big"),))
    first = facts_of(one, look).file("/opt/big")
    kept = json.loads((one.root() / "var/lib/funoffshore/digests.json").read_text())
    assert isinstance(first, Present)
    assert kept["/opt/big"][1] == first.value.sha256 == hashlib.sha256(big.read_bytes()).hexdigest()
    assert facts_of(one, look).file("/opt/big") == first
    big.write_bytes(b"y" * (2 << 20))
    changed = facts_of(one, look).file("/opt/big")
    assert isinstance(changed, Present)
    assert changed.value.sha256 == hashlib.sha256(big.read_bytes()).hexdigest()
    assert one.kit.ledger.entries() == []


@pytest.fixture
def offers() -> Iterator[str]:
    """A web server with one file, ``/k3s``."""
    with offering("127.0.0.1", "/k3s", b"#!funoffshore-lab thing v1\n") as url:
        yield url


def test_download_is_verified_before_it_appears(one: Bench, offers: str) -> None:
    right = hashlib.sha256(b"#!funoffshore-lab thing v1\n").hexdigest()
    wanted = {"url": f"{offers}/k3s", "path": "/usr/local/bin/k3s", "mode": "0755", "sha256": "0" * 64}
    with pytest.raises(errors.DigestError, match=f"lab-c1.*expected sha256 {'0' * 64}, got {right}"):
        one.hosts.change(one.node, {"download": [wanted], "units": [{"name": "x", "action": "start"}]})
    assert list((one.root() / "usr/local/bin").iterdir()) == []
    wanted["sha256"] = right
    answer = one.hosts.change(one.node, {"download": [wanted]})
    assert answer["changes"]["download"] == [{"on": "/usr/local/bin/k3s", "result": "changed"}]
    answer = one.hosts.change(one.node, {"download": [wanted]})
    assert answer["changes"]["download"] == [{"on": "/usr/local/bin/k3s", "result": "same"}]
    with pytest.raises(errors.UnreachableError, match="Not Found"):
        one.hosts.change(one.node, {"download": [{**wanted, "url": f"{offers}/nothing", "path": "/opt/x"}]})
    with pytest.raises(errors.UnreachableError, match="refused"):
        one.hosts.change(one.node, {"download": [{**wanted, "url": "http://127.0.0.1:1/", "path": "/opt/x"}]})


def test_the_first_failure_ends_the_changes_and_names_the_host(one: Bench) -> None:
    request = {
        "write": [{"path": "/etc/hostname/x", "content": ""}, {"path": "/opt/later", "content": ""}],
        "remove": ["/etc/hosts"],
    }
    with pytest.raises(errors.RefusedError, match=r"lab-c1: /etc/hostname/x: /etc/hostname: "):
        one.hosts.change(one.node, request)
    assert one.hosts.read_file(one.node, "/opt/later") == Absent()
    assert isinstance(one.hosts.read_file(one.node, "/etc/hosts"), Present)
    one.hosts.change(one.node, {"remove": ["/etc/hosts", "/etc/none"]})
    assert one.hosts.read_file(one.node, "/etc/hosts") == Absent()
    with pytest.raises(errors.TaskFailedError, match=r"systemctl start none.service: exit 5: .*not found"):
        one.hosts.change(one.node, {"units": [{"name": "none.service", "action": "start"}]})


UNIT = (
    "[Service]\nType=notify\nExecStart=/opt/thing run\nRestart=always\nRestartSec=60s\n"
    "[Install]\nWantedBy=multi-user.target\n"
)


class Thing:
    """A service that becomes ready, or exits with a code."""

    def __init__(self, code: int | None = None) -> None:
        self.code = code

    def start(self, machine: Machine, argv: list[str], ready: Any, ended: Any) -> None:
        machine.journal("thing", f"{argv} at work")
        ready() if self.code is None else ended(self.code)

    def stop(self, machine: Machine) -> None:
        machine.journal("thing", "bye")


@pytest.mark.parametrize(("code", "active"), [(None, "active"), (3, "activating")])
def test_units_are_written_started_and_looked_at_in_one_round_trip(one: Bench, code: int | None, active: str) -> None:
    one.lab.register_service("thing", Thing(code))
    files = [
        ssh.FileWrite("/etc/systemd/system/thing.service", UNIT.encode()),
        ssh.FileWrite("/opt/thing", b"#!funoffshore-lab thing\n", 0o755),
    ]
    request = {
        "write": [file.request() for file in files],
        "units": [
            {"name": "thing.service", "action": "enable"},
            {"name": "thing.service", "action": "start", "no_block": True},
        ],
        "read": ssh.Look(files=(), units=("thing.service",), journal=20).request(),
    }
    facts = ssh.parse(one.hosts.change(one.node, request))
    assert one.hosts.round_trips == 1
    unit = facts.unit("thing.service")
    assert isinstance(unit, Present)
    assert (unit.value.active, unit.value.enabled, unit.value.exit_status) == (active, "enabled", code or 0)
    assert "['/opt/thing', 'run'] at work" in unit.value.journal
    said = [entry["what"] for entry in one.kit.ledger.entries()]
    assert said[-2:] == ["lab-c1 systemctl enable thing.service", "lab-c1 systemctl start thing.service"]


def test_k3s_version_is_read_from_the_program(one: Bench) -> None:
    said = b"k3s version v1.36.4+k3s1 (abcdef12)\ngo version go1.26.8\n"
    one.lab.register_program("k3s", lambda machine, argv, stdin: Result(0, said))
    one.hosts.write(one.node, [ssh.FileWrite("/usr/local/bin/k3s", b"#!funoffshore-lab k3s\n", 0o755)])
    assert facts_of(one).k3s_version == "v1.36.4+k3s1"


def test_another_host_key_is_refused_before_anybody_logs_in(one: Bench) -> None:
    other = dataclasses.replace(one.config, ssh=dataclasses.replace(one.config.ssh, host_key_seed=SecretStr("11" * 32)))
    hosts = ssh.Hosts(other, routes.Routes(), one.kit.clock)
    with pytest.raises(errors.TrustError) as caught:
        hosts.observe(one.node)
    expected = connection.pinned_key(other, one.node).fingerprint
    seen = connection.pinned_key(one.config, one.node).fingerprint
    assert f"lab-c1 ({one.node.address} port 2222) has another host key" in caught.value.message
    assert f"expected {expected}, seen {seen}" in caught.value.message
    assert caught.value.fix
    with pytest.raises(errors.TrustError):
        hosts.observe_all([one.node])
    assert not any(
        "publickey" in line for line in (one.root() / "var/log/journal-lab/ssh.log").read_text().splitlines()
    )


def test_a_host_without_an_ed25519_key_is_not_trusted(one: Bench) -> None:
    folder = one.root() / "etc/ssh"
    (folder / "ssh_host_ed25519_key").unlink()
    paramiko.ECDSAKey.generate().write_private_key_file(str(folder / "ssh_host_ecdsa_key"))
    host = one.lab.host("lab-c1")
    assert host is not None
    host.run(["systemctl", "restart", "ssh"])
    with pytest.raises(errors.TrustError, match="cannot prove who it is"):
        one.hosts.observe(one.node)


def test_a_key_that_is_not_known_is_refused(one: Bench) -> None:
    (one.root() / "home/ops/.ssh/authorized_keys").write_text("")
    seen = one.hosts.observe(one.node)
    assert isinstance(seen, Unreadable)
    assert "does not let ops in" in seen.why


def test_sudo_with_a_password_is_refused_with_the_way_out(one: Bench) -> None:
    (one.root() / "etc/sudoers.d/90-cloud-init-users").unlink()
    with pytest.raises(errors.RefusedError, match="a password is required") as caught:
        one.hosts.call(one.node, {})
    assert "NOPASSWD" in caught.value.fix


def test_a_cut_connection_is_made_anew_and_what_was_done_is_not_done_twice(one: Bench) -> None:
    one.kit.faults.on("ssh-cut", node="lab-c1", times="3")
    assert one.hosts.write(one.node, [ssh.FileWrite("/opt/x", b"x")]) == {"/opt/x"}
    assert one.hosts.round_trips == 4
    assert [entry["what"] for entry in one.kit.ledger.entries()] == ["lab-c1 write /opt/x"]
    one.kit.faults.on("ssh-cut", node="lab-c1", times="1")
    assert isinstance(one.hosts.observe(one.node), Present)
    one.kit.faults.on("ssh-cut", node="lab-c1", times="2")
    gone = one.hosts.observe(one.node)
    assert isinstance(gone, Unreadable)
    assert "dropped while it was working" in gone.why
    assert isinstance(one.hosts.observe(one.node), Present)


def test_a_rebooted_host_is_reached_again_over_a_fresh_connection(one: Bench) -> None:
    before = facts_of(one).boot_id
    one.lab.power_off(one.node.vmid)
    gone = one.hosts.observe(one.node)
    assert isinstance(gone, Unreadable)
    assert "does not answer over SSH" in gone.why
    assert not one.hosts.answers(one.node.address)
    one.boot()
    until(lambda: one.hosts.answers(one.node.address))
    assert facts_of(one).boot_id != before


def test_nothing_but_ssh_is_unreadable(one: Bench) -> None:
    one.lab.power_off(one.node.vmid)
    listener = one.kit.routes.listen(str(one.node.address), 2222)
    threading.Thread(target=lambda: listener.accept()[0].sendall(b"HTTP/1.1 400 Bad\r\n" * 200), daemon=True).start()
    assert isinstance(one.hosts.observe(one.node), Unreadable)
    listener.close()


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (Result(0, b"hello\n"), "not JSON"),
        (Result(0, b'{"helper": 2}'), "no helper's reply"),
        (Result(0, b"[" * 100000), "not JSON"),
        (Result(3, b"", b"oops\nmain('secret')\n"), "exit 3, oops"),
        (Result(0, b'{"helper": 1, "read": 5}'), "read is not a table"),
    ],
)
def test_whatever_python3_prints_a_bad_reply_is_unreadable(one: Bench, program: Result, why: str) -> None:
    one.lab.register_program("python3", lambda machine, argv, stdin: program)
    seen = one.hosts.observe(one.node)
    assert isinstance(seen, Unreadable)
    assert why in seen.why


def test_both_streams_are_drained_however_much_comes(one: Bench) -> None:
    reply = json.dumps({"helper": 1, "changes": {}, "pad": "x" * (5 << 20)}).encode()
    one.lab.register_program("python3", lambda machine, argv, stdin: Result(0, reply, b"e" * (5 << 20)))
    assert len(one.hosts.call(one.node, {})["pad"]) == 5 << 20


def test_a_host_that_hangs_runs_into_our_own_deadline(one: Bench) -> None:
    going = threading.Event()
    one.lab.register_program("python3", lambda machine, argv, stdin: Result(int(going.wait(10))))
    start = time.monotonic()
    with pytest.raises(errors.DeadlineError, match="did not answer over SSH within"):
        one.hosts.call(one.node, {}, deadline=0.3)
    assert time.monotonic() - start < 2
    going.set()


def test_closing_the_door_ends_what_runs_and_does_not_begin_it_anew(one: Bench) -> None:
    begun, going = threading.Event(), threading.Event()

    def program(machine: Machine, argv: list[str], stdin: bytes) -> Result:
        begun.set()
        return Result(int(not going.wait(10)))

    one.lab.register_program("python3", program)
    caught: list[str] = []

    def work() -> None:
        try:
            one.hosts.change(one.node, {"remove": ["/opt/x"]})
        except errors.UnreachableError as why:
            caught.append(why.message)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(10)
    one.hosts.close()
    thread.join(10)
    going.set()
    assert one.hosts.round_trips == 1
    assert "dropped while it was working" in caught[0]


def test_many_threads_share_one_connection(one: Bench) -> None:
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(one.hosts.observe(one.node))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(item, Present) for item in seen)
    log = (one.root() / "var/log/journal-lab/ssh.log").read_text()
    assert log.count("Accepted publickey") == 1


def test_all_hosts_at_once(tmp_path: Path) -> None:
    with bench(tmp_path, nodes=12) as made:
        made.boot()
        seen = made.hosts.observe_all(made.config.nodes)
        assert [type(item) for item in seen.values()] == [Present] * 12
        assert list(seen) == [node.name for node in made.config.nodes]
        assert made.hosts.round_trips == 12
        made.lab.power_off(made.config.nodes[3].vmid)
        again = made.hosts.observe_all(made.config.nodes)
        assert isinstance(again["lab-c4"], Unreadable)
        assert sum(isinstance(item, Present) for item in again.values()) == 11
        assert made.hosts.observe_all([]) == {}


def test_a_machine_without_a_seed_answers_nowhere(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.lab.power_on(hardware_of(made.config, made.node, blank=True))
        made.settle(made.node)
        assert not made.hosts.answers(made.node.address)


def test_fifty_five_hosts_are_looked_at_within_seconds(tmp_path: Path) -> None:
    with bench(tmp_path, nodes=55) as made:
        made.boot()
        start = time.monotonic()
        seen = made.hosts.observe_all(made.config.nodes)
        assert all(isinstance(item, Present) for item in seen.values())
        assert made.hosts.round_trips == 55
        # On an idle pair of cores 0.6 s; the margin is for a busy one.
        assert time.monotonic() - start < 10
