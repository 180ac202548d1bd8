"""What fo relies on in a host, as cases that run on the embedded lab and on a real Debian: sshd, sudo, python3,
systemd, cloud-init, guest agent. A difference is a bug in the lab."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_backends import Machine, have_ssh, machine
from pydantic import SecretStr
from ssh_machines import offering, until

from funoffshore import errors, seed
from funoffshore.lab.guests import AgentError
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world import routes, ssh


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if request.param == "real":
        request.getfixturevalue("right_to_the_bench")
    with machine(request.param, tmp_path_factory.mktemp(f"host-{request.param}")) as made:
        yield made


def facts_of(made: Machine, look: ssh.Look | None = None) -> ssh.HostFacts:
    seen = made.hosts.observe(made.node, look)
    assert isinstance(seen, Present), seen
    return seen.value


def link(made: Machine, **links: str) -> None:
    """Makes symbolic links in /opt, as root."""
    program = "import os\n" + "".join(f"os.symlink({to!r}, '/opt/{name}')\n" for name, to in links.items())
    done = made.shell("sudo -n python3 -", program.encode())
    assert done.returncode == 0, done.stderr


def test_one_look_shows_who_and_what_the_machine_is(host: Machine) -> None:
    facts = facts_of(host)
    assert (facts.hostname, facts.uuid) == ("lab-c1", str(host.node.identity))
    assert (facts.cloud_init, facts.cloud_init_said) == ("done", ())
    assert (facts.os, facts.arch) == ("debian 12", "x86_64")
    assert facts.cpus > 0
    assert facts.memory_mib > 1024
    assert 2222 in facts.listening
    assert facts.default_route == str(host.config.network.gateway)
    assert abs(facts.clock_skew) < 2
    assert len(facts.boot_id) == 36
    assert facts.k3s_version is None
    assert (facts.systemd, facts.memory_cgroup, facts.architecture) == (True, True, "amd64")
    assert str(host.node.address) in facts.addresses
    assert "127.0.0.1" not in facts.addresses
    assert set(facts.sysctls) == {
        "vm.panic_on_oom", "vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops",
    }  # fmt: skip
    assert facts.file("/etc/rancher/k3s/config.yaml") == Absent()
    assert facts.unit("k3s.service") == Absent()
    space = facts.space["/var/lib/rancher/k3s"]
    assert isinstance(space, Present)
    assert space.value.bytes > 1 << 30


def test_files_are_written_whole_once_and_with_their_mode(host: Machine) -> None:
    path = "/etc/rancher/contract/config.yaml"
    file = ssh.FileWrite(path, SecretStr("token: s3cret\n"), 0o600)
    assert host.hosts.write(host.node, [file]) == {path}
    assert host.hosts.write(host.node, [file]) == frozenset()
    fact = facts_of(host, ssh.Look(files=(ssh.FileLook(path, content=True),))).file(path)
    assert isinstance(fact, Present)
    assert (fact.value.mode, fact.value.owner, fact.value.size) == (0o600, "0:0", 14)
    assert fact.value.sha256 == hashlib.sha256(b"token: s3cret\n").hexdigest()
    assert "s3cret" not in repr(fact)
    assert host.hosts.read_file(host.node, path) == Present(b"token: s3cret\n")
    assert host.shell(f"cat {path}").stderr.endswith(b"Permission denied\n")


def test_mode_and_owner_alone_are_a_change(host: Machine) -> None:
    for file in (
        ssh.FileWrite("/opt/x", b"x", 0o600),
        ssh.FileWrite("/opt/x", b"x", 0o000),
        ssh.FileWrite("/opt/x", b"x", 0o000, owner="ops:ops"),
        ssh.FileWrite("/opt/x", b"x", 0o4711, owner="0:1000"),
    ):
        assert host.hosts.write(host.node, [file]) == {"/opt/x"}
        assert host.hosts.write(host.node, [file]) == frozenset()


def test_absent_unreadable_and_other_things_are_told_apart(host: Machine) -> None:
    link(host, loop="loop", nowhere="/gone", link="/etc/hostname")
    assert host.hosts.read_file(host.node, "/opt/none") == Absent()
    assert host.hosts.read_file(host.node, "/etc/hostname/below") == Absent()
    assert host.hosts.read_file(host.node, "/opt/nowhere") == Absent()
    assert isinstance(host.hosts.read_file(host.node, "/opt/loop"), Unreadable)
    assert isinstance(host.hosts.read_file(host.node, "/opt"), Unreadable)
    assert host.hosts.read_file(host.node, "/opt/link") == Present(b"lab-c1\n")


@pytest.fixture
def offers(host: Machine) -> Iterator[str]:
    """A web server that the machine reaches, with one file, ``/k3s``."""
    address = "127.0.0.1" if host.kind == "lab" else str(host.config.network.gateway)
    with offering(address, "/k3s", b"a program\n") as url:
        yield url


def test_downloads_are_verified_before_they_appear(host: Machine, offers: str) -> None:
    right = hashlib.sha256(b"a program\n").hexdigest()
    wanted = {"url": f"{offers}/k3s", "path": "/opt/contract/k3s", "mode": "0755", "sha256": "0" * 64}
    with pytest.raises(errors.DigestError, match=f"lab-c1.*expected sha256 {'0' * 64}, got {right}"):
        host.hosts.change(host.node, {"download": [wanted]})
    assert host.hosts.read_file(host.node, "/opt/contract/k3s") == Absent()
    wanted["sha256"] = right
    for result in ("changed", "same"):
        answer = host.hosts.change(host.node, {"download": [wanted]})
        assert answer["changes"]["download"] == [{"on": "/opt/contract/k3s", "result": result}]
    with pytest.raises(errors.UnreachableError, match="Not Found"):
        host.hosts.change(host.node, {"download": [{**wanted, "url": f"{offers}/nothing", "path": "/opt/y"}]})


def test_modes_neighbours_and_pieces_of_files_are_looked_at(host: Machine) -> None:
    host.hosts.write(host.node, [ssh.FileWrite("/opt/modes/a.key", b"0123456789", 0o600)])
    link(host, **{"modes/b.key": "/etc/hostname"})
    own = str(host.node.address)
    look = ssh.Look(files=(), units=(), modes=("/opt/modes/*.key", "/opt/none*"), connect=((own, 2222), (own, 9)))
    facts = facts_of(host, look)
    shown = {path: seen.value for path, seen in facts.modes.items() if isinstance(seen, Present)}
    key = shown["/opt/modes/a.key"]
    assert (key.kind, key.mode, key.owner, key.size) == ("file", 0o600, "0:0", 10)
    assert shown["/opt/modes/b.key"].kind == "other"
    assert facts.modes["/opt/none*"] == Absent()
    assert facts.connect[f"{own}:2222"] == Present(ssh.ConnectFact(True, ""))
    assert facts.connect[f"{own}:9"] == Present(ssh.ConnectFact(False, "Connection refused"))
    piece = {"path": "/opt/modes/a.key", "offset": 4, "length": 3}
    answer = host.hosts.call(host.node, {"read": {"fetch": [piece]}})["read"]["fetch"]["/opt/modes/a.key"]
    assert answer == {"state": "present", "size": 10, "data": base64.b64encode(b"456").decode()}


def test_a_file_is_pushed_once_and_a_second_call_with_an_id_changes_nothing(host: Machine, tmp_path: Path) -> None:
    source = tmp_path / "k3s"
    source.write_bytes(bytes(range(256)) * 4000)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    before = host.hosts.round_trips
    for _ in range(2):
        host.hosts.push(host.node, "/opt/pushed/k3s", source, sha256)
    assert host.hosts.round_trips == before + 3
    fact = facts_of(host, ssh.Look(files=(ssh.FileLook("/opt/pushed/k3s"),))).file("/opt/pushed/k3s")
    assert isinstance(fact, Present)
    assert (fact.value.sha256, fact.value.mode, fact.value.owner) == (sha256, 0o755, "0:0")
    request = {"id": "ab" * 16, "remove": ["/opt/pushed/k3s"]}
    for _ in range(2):
        answer = host.hosts.change(host.node, request)
        assert answer["changes"]["remove"] == [{"on": "/opt/pushed/k3s", "result": "removed"}]


def test_wiping_keeps_what_is_not_k3s_own(host: Machine) -> None:
    host.hosts.write(host.node, [ssh.FileWrite("/var/lib/cni/networks/x", b"x")])
    for result in ("removed", "absent"):
        answer = host.hosts.change(host.node, {"wipe": ["/var/lib/cni"]})
        assert answer["changes"]["wipe"] == [{"on": "/var/lib/cni", "result": result}]
    with pytest.raises(errors.RefusedError, match="nothing that fo removes"):
        host.hosts.change(host.node, {"wipe": ["/etc/ssh"]})


def test_the_first_failure_ends_the_changes(host: Machine) -> None:
    request = {
        "write": [{"path": "/etc/hostname/x", "content": ""}, {"path": "/opt/later", "content": ""}],
        "units": [{"name": "none.service", "action": "start"}],
    }
    with pytest.raises(errors.RefusedError, match=r"lab-c1: /etc/hostname/x: /etc/hostname: "):
        host.hosts.change(host.node, request)
    assert host.hosts.read_file(host.node, "/opt/later") == Absent()
    with pytest.raises(errors.TaskFailedError, match=r"systemctl start none.service: exit 5: .*not found"):
        host.hosts.change(host.node, {"units": [{"name": "none.service", "action": "start"}]})


def test_a_unit_is_stopped_started_and_looked_at(host: Machine) -> None:
    name = "qemu-guest-agent.service"
    look = ssh.Look(files=(), units=(name, "none.service"), journal=5)

    def active() -> str:
        unit = facts_of(host, look).unit(name)
        assert isinstance(unit, Present)
        return unit.value.active

    assert active() == "active"
    assert facts_of(host, look).unit("none.service") == Absent()
    host.hosts.change(host.node, {"units": [{"name": name, "action": "stop"}]})
    assert active() == "inactive"
    assert host.agent("ping") is None
    host.hosts.change(host.node, {"units": [{"name": name, "action": "start"}]})
    assert active() == "active"
    until(lambda: host.agent("ping") is not None)


def test_the_guest_agent_knows_name_and_addresses(host: Machine) -> None:
    until(lambda: host.agent("get-host-name") == {"host-name": "lab-c1"})
    faces = host.agent("network-get-interfaces")
    assert isinstance(faces, list)
    [eth0] = [face for face in faces if face["name"] == "eth0"]
    assert eth0["hardware-address"].lower() == "02" + eth0["hardware-address"].lower()[2:]
    found = {(a["ip-address-type"], a["ip-address"], a["prefix"]) for a in eth0["ip-addresses"]}
    assert ("ipv4", str(host.node.address), 24) in found


def told(host: Machine, command: str, /, **arguments: Any) -> Any:
    """What the guest agent answers. Raises as it does."""
    return host.guests.agent(host.node.vmid, command, arguments)


def test_the_guest_agent_reads_files_as_root(host: Machine) -> None:
    host.hosts.write(host.node, [ssh.FileWrite("/opt/agent/secret", b"for root\n" * 3, 0o600)])
    until(lambda: host.agent("ping") is not None)
    handle = told(host, "file-open", path="/opt/agent/secret", mode="r")
    parts = [told(host, "file-read", handle=handle, count=count) for count in (9, 100)]
    assert [base64.b64decode(part["buf-b64"]) for part in parts] == [b"for root\n", b"for root\n" * 2]
    assert [(part["count"], part["eof"]) for part in parts] == [(9, False), (18, True)]
    assert told(host, "file-close", handle=handle) == {}
    with pytest.raises(AgentError, match=f"handle '{handle}' has not been found"):
        told(host, "file-read", handle=handle, count=1)
    with pytest.raises(AgentError, match=r"failed to open file '/opt/none' \(mode: 'r'\): No such file or directory"):
        told(host, "file-open", path="/opt/none", mode="r")


def test_the_guest_agent_runs_programs(host: Machine) -> None:
    until(lambda: host.agent("ping") is not None)
    pid = told(host, "exec", command=json.dumps(["cat", "-", "/opt/none"]), input="typed\n")["pid"]
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(told(host, "exec-status", pid=str(pid)))
        return bool(found["exited"])

    until(ended)
    assert (found["exitcode"], found["out-data"]) == (1, "typed\n")
    assert "/opt/none: No such file or directory" in found["err-data"]


def test_a_blank_data_disk_is_formatted_once_and_mounted_at_every_boot(host: Machine) -> None:
    wanted = {
        "device": seed.DATA_DEVICE, "path": seed.DATA_FOLDER, "type": seed.DATA_TYPE, "label": seed.DATA_LABEL,
        "options": seed.DATA_OPTIONS,
    }  # fmt: skip
    for result in ({"result": "changed", "formatted": True}, {"result": "same"}):
        [answer] = host.hosts.change(host.node, {"prepare": [wanted]})["changes"]["prepare"]
        assert answer.items() >= result.items()
    host.hosts.write(host.node, [ssh.FileWrite(f"{seed.DATA_FOLDER}/kept", b"kept")])
    for _ in range(2):
        found = facts_of(host).file_systems[seed.DATA_FOLDER]
        assert isinstance(found, Present)
        assert seed.DATA_ID in found.value.ids
        assert (found.value.type, found.value.unused) == ("ext4", 0)
        assert found.value.disk_bytes == 2 << 30
        assert host.hosts.read_file(host.node, f"{seed.DATA_FOLDER}/kept") == Present(b"kept")
        host.guests.power_off(host.node.vmid)
        host.power_on()


@pytest.mark.skipif(not have_ssh(), reason="no OpenSSH client here")
def test_another_host_key_is_refused_by_fo_and_by_openssh(host: Machine) -> None:
    other = dataclasses.replace(
        host.config, ssh=dataclasses.replace(host.config.ssh, host_key_seed=SecretStr("11" * 32))
    )
    hosts = ssh.Hosts(other, routes.Routes(other.root / "routes.json"), host.kit.clock)
    with pytest.raises(errors.TrustError) as caught:
        hosts.observe(host.node)
    assert f"lab-c1 ({host.node.address} port 2222) has another host key" in caught.value.message
    hosts.close()
    done = host.shell("true", key_of="lab-c2")
    assert done.returncode == 255
    assert b"Host key verification failed" in done.stderr


@pytest.mark.skipif(not have_ssh(), reason="no OpenSSH client here")
def test_openssh_gets_streams_and_exit_codes(host: Machine) -> None:
    assert host.shell("exit 7").returncode == 7
    assert host.shell("nosuch").returncode == 127
    assert host.shell("cat", b"typed").stdout == b"typed"
    assert host.shell("hostname; id -un").stdout == b"lab-c1\nops\n"
    assert host.shell("cloud-init status --wait").stdout.endswith(b"status: done\n")
    program = b"import os, sys\nprint(os.geteuid(), end='')\nsys.exit(4)\n"
    done = host.shell("sudo -n python3 -", program)
    assert (done.returncode, done.stdout) == (4, b"0")


def test_many_threads_share_one_connection(host: Machine) -> None:
    seen: list[object] = []
    threads = [threading.Thread(target=lambda: seen.append(host.hosts.observe(host.node))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(item, Present) for item in seen), seen


def test_power_off_and_on_is_another_boot_of_the_same_machine(host: Machine) -> None:
    before = facts_of(host)
    host.hosts.write(host.node, [ssh.FileWrite("/opt/kept", b"kept")])
    host.guests.power_off(host.node.vmid)
    assert not host.guests.is_on(host.node.vmid)
    gone = host.hosts.observe(host.node)
    assert isinstance(gone, Unreadable)
    assert not host.hosts.answers(host.node.address)
    assert host.agent("ping") is None
    host.power_on()
    after = facts_of(host)
    assert after.boot_id != before.boot_id
    assert (after.hostname, after.uuid) == (before.hostname, before.uuid)
    assert host.hosts.read_file(host.node, "/opt/kept") == Present(b"kept")


def test_the_button_turns_it_off(host: Machine) -> None:
    host.guests.shut_down(host.node.vmid)
    until(lambda: not host.guests.is_on(host.node.vmid), 60)
    host.power_on()
    assert json.loads(json.dumps(host.agent("ping"))) in ({}, None)


@pytest.mark.skipif(not have_ssh(), reason="no OpenSSH client here")
def test_one_connection_carries_ten_sessions_and_refuses_the_next(host: Machine) -> None:
    from funoffshore.world.ssh import connection

    live = connection.connect(host.config, host.hosts._way, host.hosts._login, host.node)
    try:
        channels = [live.open() for _ in range(10)]
        with pytest.raises(errors.UnreachableError):
            live.open()
        channels[0].close()
        assert live.alive()
    finally:
        live.close()
