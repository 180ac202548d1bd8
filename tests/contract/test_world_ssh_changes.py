"""Changes and looks that K3s' life needs, on lab hosts: the very helper text, on files and programs of the lab."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_machines import Bench, bench, offering
from ssh_servers import Proxy, cut_first, proxy

from funoffshore import errors, hostkeys
from funoffshore.config import model
from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.reading import Absent, Present, Unreadable
from funoffshore.world import routes, ssh

K3S = ssh.FileWrite("/usr/local/bin/k3s", b"#!funoffshore-lab k3s\n", 0o755)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        made.boot()
        yield made


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, nodes=2) as made:
        made.boot()
        yield made


def facts_of(made: Bench, look: ssh.Look) -> ssh.HostFacts:
    seen = made.hosts.observe(made.node, look)
    assert isinstance(seen, Present), seen
    return seen.value


def said(made: Bench) -> list[str]:
    return [entry["what"].removeprefix("lab-c1 ") for entry in made.kit.ledger.entries()]


def test_facts_that_k3s_depends_on(one: Bench) -> None:
    facts = facts_of(one, ssh.Look())
    assert facts.addresses == (str(one.node.address),)
    assert (facts.systemd, facts.memory_cgroup, facts.architecture) == (True, True, "amd64")
    assert set(facts.sysctls) == {"vm.panic_on_oom", "vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops"}
    assert facts.sysctls["vm.panic_on_oom"] == "0"
    assert facts.commands["k3s-version"] == Absent()


def test_kernel_settings_are_written_and_in_force_at_once_and_after_a_boot(one: Bench) -> None:
    path = "/etc/sysctl.d/90-kubelet.conf"
    text = b"vm.panic_on_oom=0\nvm.overcommit_memory=1\nkernel.panic=10\nkernel.panic_on_oops=1\n"
    request = {"write": [ssh.FileWrite(path, text).request()], "sysctl": [{"path": path}]}
    one.hosts.change(one.node, {**request, "read": ssh.Look().request()})
    assert one.hosts.round_trips == 1
    wanted = {
        "vm.panic_on_oom": "0", "vm.overcommit_memory": "1", "kernel.panic": "10", "kernel.panic_on_oops": "1",
    }  # fmt: skip
    assert facts_of(one, ssh.Look()).sysctls == wanted
    one.lab.power_off(one.node.vmid)
    one.boot()
    assert facts_of(one, ssh.Look()).sysctls == wanted
    with pytest.raises(errors.TaskFailedError, match=r"sysctl -p /etc/none.conf: exit 1: .*No such file"):
        one.hosts.change(one.node, {"sysctl": [{"path": "/etc/none.conf"}]})


class K3s:
    """Says what a test wants, and remembers what it was asked."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.result = Result(code, out, err)
        self.asked: list[list[str]] = []

    def __call__(self, machine: Machine, argv: list[str], stdin: bytes) -> Result:
        self.asked.append(argv[1:])
        return self.result


def test_k3s_commands_are_run_and_their_failures_hold_no_token(one: Bench) -> None:
    program = K3s(0, b"saved\n", b"")
    one.lab.register_program("k3s", program)
    one.hosts.write(one.node, [K3S])
    request = {"k3s": [{"argv": ["etcd-snapshot", "save", "--name", "x"], "label": "save"}]}
    answer = one.hosts.change(one.node, request)
    assert answer["changes"]["k3s"] == [{"on": "save", "result": "done", "code": 0, "out": "saved\n", "err": ""}]
    assert program.asked == [["etcd-snapshot", "save", "--name", "x"]]
    program.result = Result(
        1, b"", b'trying abcdef.0123456789abcdef\nlevel=fatal msg="K10aabbccddeeff::server:pass not valid"\n'
    )
    with pytest.raises(errors.TaskFailedError, match="lab-c1: save: k3s etcd-snapshot: exit 1: level=fatal") as caught:
        one.hosts.change(one.node, request)
    assert caught.value.evidence == ("trying ***.***", 'level=fatal msg="K10*** not valid"')
    assert "pass" not in caught.value.message


def test_what_k3s_says_of_certificates_encryption_and_snapshots(one: Bench) -> None:
    program = K3s(0, b"Encryption Status: Enabled\n", b"client-admin.crt: is ok\n")
    one.lab.register_program("k3s", program)
    look = ssh.Look(files=(), units=(), commands=("certificates", "encryption", "snapshots"))
    assert set(facts_of(one, look).commands.values()) == {Absent()}
    one.hosts.write(one.node, [K3S])
    commands = facts_of(one, look).commands
    shown = Present(ssh.CommandFact(0, "Encryption Status: Enabled\n", "client-admin.crt: is ok\n"))
    assert dict(commands) == dict.fromkeys(look.commands, shown)
    assert program.asked == [
        ["certificate", "check"],
        ["secrets-encrypt", "status"],
        ["etcd-snapshot", "ls", "-o", "json"],
    ]


def test_a_stopped_k3s_is_wiped_and_nothing_else(one: Bench) -> None:
    root = one.root()
    (root / "var/lib/rancher/k3s/server/db").mkdir(parents=True)
    (root / "var/lib/rancher/k3s/server/db/x").write_text("x")
    (root / "var/lib/rancher/k3s/kept").symlink_to("/etc")
    answer = one.hosts.change(one.node, {"wipe": ["/var/lib/rancher/k3s", "/run/k3s"]})
    assert [item["result"] for item in answer["changes"]["wipe"]] == ["removed", "absent"]
    assert not (root / "var/lib/rancher/k3s").exists()
    assert (root / "etc/hostname").exists()
    with pytest.raises(errors.RefusedError, match="nothing that fo removes"):
        one.hosts.change(one.node, {"wipe": ["/etc/ssh"]})


def test_stops_come_first_and_in_the_same_round_trip(one: Bench) -> None:
    name = "qemu-guest-agent.service"
    request = {
        "before": [{"name": name, "action": "stop"}],
        "write": [ssh.FileWrite("/opt/x", b"x").request()],
        "units": [{"name": name, "action": "start"}],
    }
    one.hosts.change(one.node, request)
    assert said(one) == [f"systemctl stop {name}", "write /opt/x", f"systemctl start {name}"]
    assert one.hosts.round_trips == 1


def test_modes_and_neighbours(two: Bench) -> None:
    other = two.config.nodes[1]
    look = ssh.Look(
        files=(), units=(), modes=("/etc/ssh/*_key", "/etc/none*"),
        connect=((str(other.address), 2222), (str(other.address), 6443)),
    )  # fmt: skip
    facts = facts_of(two, look)
    shown = facts.modes["/etc/ssh/ssh_host_ed25519_key"]
    assert isinstance(shown, Present)
    assert (shown.value.mode, shown.value.owner, shown.value.kind) == (0o600, "0:0", "file")
    assert facts.modes["/etc/none*"] == Absent()
    assert facts.connect[f"{other.address}:2222"] == Present(ssh.ConnectFact(True, ""))
    assert facts.connect[f"{other.address}:6443"] == Present(ssh.ConnectFact(False, "Connection refused"))
    two.kit.faults.on("port-blocked", **{"from": "lab-c1", "to": str(other.address), "port": "2222"})
    facts = facts_of(two, look)
    assert facts.connect[f"{other.address}:2222"] == Present(ssh.ConnectFact(False, "timed out"))


def test_a_binary_is_pushed_once(one: Bench, tmp_path: Path) -> None:
    source = tmp_path / "k3s"
    source.write_bytes(b"#!funoffshore-lab k3s v1\n" + os.urandom(100_000))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    for _ in range(2):
        one.hosts.push(one.node, "/usr/local/bin/k3s", source, sha256)
    assert one.hosts.round_trips == 3
    shown = facts_of(one, ssh.Look()).file("/usr/local/bin/k3s")
    assert isinstance(shown, Present)
    assert (shown.value.sha256, shown.value.mode, shown.value.owner) == (sha256, 0o755, "0:0")
    assert said(one) == ["write /usr/local/bin/k3s"]


def test_full_and_read_only_disks_are_told_and_a_rerun_converges(one: Bench) -> None:
    file = ssh.FileWrite("/var/lib/rancher/k3s/big", b"x" * 100_000)
    (one.root() / "var/lib/rancher").mkdir()
    one.kit.faults.on("disk-full", node="lab-c1")
    with pytest.raises(
        errors.PreflightError, match=r"no space on the file system of .*: 100000 bytes are needed, 65536"
    ):
        one.hosts.write(one.node, [file])
    one.kit.faults.off("disk-full")
    one.kit.faults.on("disk-read-only", node="lab-c1")
    with pytest.raises(errors.RefusedError, match="is mounted read-only") as caught:
        one.hosts.write(one.node, [file])
    assert "fsck" in caught.value.fix
    one.kit.faults.off("disk-read-only")
    assert one.hosts.write(one.node, [file]) == {file.path}


def test_a_host_without_python3_says_what_to_install(one: Bench) -> None:
    one.kit.faults.on("no-python3", node="lab-c1")
    with pytest.raises(errors.RefusedError, match=r"python3: command not found") as caught:
        one.hosts.call(one.node, {})
    assert caught.value.fix == "install python3 on the host"


def test_a_clock_that_is_off_is_seen(one: Bench) -> None:
    one.kit.faults.on("clock-off", node="lab-c1", minutes="5")
    assert abs(facts_of(one, ssh.Look()).clock_skew - 300) < 30


def test_dns_that_is_broken_is_told_as_the_network(one: Bench) -> None:
    one.kit.faults.on("dns-broken", node="lab-c1")
    wanted = {"url": "http://github.example/k3s", "path": "/opt/k3s", "sha256": "0" * 64}
    with pytest.raises(errors.UnreachableError, match=r"github.example/k3s: .*Temporary failure in name resolution"):
        one.hosts.change(one.node, {"download": [wanted]})


def test_a_download_lands_on_the_host(one: Bench) -> None:
    content = os.urandom(300_000)
    with offering("127.0.0.1", "/k3s", content) as url:
        wanted = {"url": f"{url}/k3s", "path": "/opt/k3s", "sha256": hashlib.sha256(content).hexdigest()}
        assert one.hosts.change(one.node, {"download": [wanted]})["changes"]["download"][0]["result"] == "changed"
    assert (one.root() / "opt/k3s").read_bytes() == content
    assert said(one) == ["write /opt/k3s"]


@dataclasses.dataclass
class Target:
    """The first lab host, as a proxy needs it."""

    node: model.Node
    port: int = 2222


@pytest.mark.parametrize("upward", [True, False], ids=["what-we-send", "what-we-hear"])
def test_wherever_a_connection_is_cut_a_change_is_made_once_or_not_at_all(one: Bench, upward: bool) -> None:
    program = K3s(0, b"saved\n", b"")
    one.lab.register_program("k3s", program)
    one.hosts.write(one.node, [K3S])
    request = {"k3s": [{"argv": ["etcd-snapshot", "save"]}]}

    def ask(cut: int) -> tuple[str, Proxy]:
        """The outcome, or what the error said."""
        with proxy(Target(one.node), cut_first(upward, cut)) as made:
            settings = dataclasses.replace(one.config.ssh, port=made.port)
            hosts = ssh.Hosts(dataclasses.replace(one.config, ssh=settings), routes.Routes(), one.kit.clock)
            try:
                return str(hosts.change(one.node, request)["changes"]["k3s"][0]["result"]), made
            except errors.UnreachableError as why:
                return why.message, made
            finally:
                hosts.close()

    said_, whole = ask(1 << 40)
    assert said_ == "done"
    total = whole.passed[upward]
    outcomes = set()
    for cut in sorted({1, 30, total - 120, total - 60, total - 1, *range(500, total, total // 12)}):
        before = len(program.asked)
        said_, _ = ask(cut)
        assert said_ == "done" or "broke off" in said_ or "is gone" in said_ or "does not speak SSH" in said_
        outcomes.add(said_ == "done")
        assert len(program.asked) == before + (said_ == "done"), cut
    assert outcomes == {True, False}


def test_one_lab_host_is_the_way_to_another(two: Bench) -> None:
    first, second = two.config.nodes
    seed = two.config.ssh.host_key_seed.get_secret_value()
    key = hostkeys.openssh_public(hostkeys.private(seed, first.name))
    jump = model.Jump("ops", str(first.address), 2222, key)
    config = dataclasses.replace(two.config, ssh=dataclasses.replace(two.config.ssh, jump=jump))
    hosts = ssh.Hosts(config, routes.Routes(config.root / "routes.json"), two.kit.clock)
    for _ in range(2):
        seen = hosts.observe(second)
        assert isinstance(seen, Present)
        assert seen.value.hostname == "lab-c2"
    assert hosts.answers(second.address)
    journal = (two.root() / "var/log/journal-lab/ssh.log").read_text()
    assert len(re.findall("Accepted publickey", journal)) == 1
    two.lab.power_off(second.vmid)
    assert not hosts.answers(second.address)
    gone = hosts.observe(second)
    assert isinstance(gone, Unreadable)
    assert f"lab-c2 ({second.address} port 2222) does not answer over SSH through the jump host" in gone.why
    hosts.close()


def test_existing_machines_are_known_by_what_the_operator_lists(one: Bench) -> None:
    seed = one.config.ssh.host_key_seed.get_secret_value()
    node = dataclasses.replace(one.node, made=False)
    key, other = (hostkeys.openssh_public(hostkeys.private(seed, name)) for name in ("lab-c1", "lab-c9"))

    def door(lines: str) -> ssh.Hosts:
        settings = dataclasses.replace(one.config.ssh, known_hosts=lines)
        config = dataclasses.replace(one.config, ssh=settings, nodes=(node,))
        return ssh.Hosts(config, routes.Routes(config.root / "routes.json"), one.kit.clock)

    assert isinstance(door(f"[{node.address}]:2222 {key}\n").observe(node), Present)
    with pytest.raises(errors.TrustError, match="has another host key: expected SHA256") as caught:
        door(f"[lab-c1]:2222 {other}\n").observe(node)
    assert "SSH_KNOWN_HOSTS" in caught.value.fix
    with pytest.raises(errors.TrustError, match="@revoked"):
        door(f"[lab-c1]:2222 {key}\n@revoked * {key}\n").observe(node)
    with pytest.raises(ssh.UnknownKeyError, match="is not known yet") as unknown:
        door(f"lab-c1 {key}\n").call(node, {})
    assert f"ssh-keyscan -t ed25519 -p 2222 {node.address}" in unknown.value.fix
