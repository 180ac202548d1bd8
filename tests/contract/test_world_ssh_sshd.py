"""The SSH door against OpenSSH's own server: cuts, silence, full and read-only disks, jump host, agent, passphrase."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr
from ssh_servers import POSSIBLE, Server, cut_first, mounted, proxy, sshd, write_key

from funoffshore import errors, hostkeys
from funoffshore.config import model
from funoffshore.reading import Present, Unreadable
from funoffshore.world import ssh
from funoffshore.world.ssh import hosts as ssh_hosts
from funoffshore.world.ssh import streams

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="no OpenSSH server that this user may run")
RESTART = {"units": [{"name": "thing.service", "action": "restart"}]}
MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with sshd(tmp_path_factory.mktemp("sshd")) as made:
        yield made


def restarts(server: Server) -> int:
    return server.actions.count("restart thing.service")


def test_a_look_and_a_change_are_one_round_trip_each(server: Server, tmp_path: Path) -> None:
    hosts = server.hosts()
    seen = hosts.observe(server.node)
    assert isinstance(seen, Present)
    assert (seen.value.hostname, seen.value.architecture) == (os.uname().nodename, {"x86_64": "amd64"}[seen.value.arch])
    assert str(server.node.address).startswith("127.")
    assert "127.0.0.1" not in seen.value.addresses
    assert set(seen.value.sysctls) == {
        "vm.panic_on_oom", "vm.overcommit_memory", "kernel.panic", "kernel.panic_on_oops",
    }  # fmt: skip
    assert hosts.write(server.node, [ssh.FileWrite(f"{tmp_path}/x", b"x")]) == {f"{tmp_path}/x"}
    assert hosts.round_trips == 2
    hosts.close()


def sweep(server: Server, upward: bool) -> list[int]:
    """Where to cut: spread over all bytes of a whole conversation, and dense where it begins and ends."""
    with proxy(server, lambda *_: 1 << 30) as made:
        hosts = server.hosts(made.port)
        hosts.change(server.node, RESTART)
        hosts.close()
        total = made.passed[upward]
    ends = [1, 25, total - 200, total - 100, total - 60, total - 36, total - 1]
    return sorted({*ends, *range(700, total, total // 9)})


@pytest.mark.parametrize("upward", [True, False], ids=["what-we-send", "what-we-hear"])
def test_wherever_a_connection_is_cut_a_change_is_made_once_or_not_at_all(server: Server, upward: bool) -> None:
    outcomes = set()
    for after in sweep(server, upward):
        before = restarts(server)
        with proxy(server, cut_first(upward, after)) as made:
            hosts = server.hosts(made.port)
            said = attempt(hosts, server)
            outcomes.add("made" if said == "done" else "not begun")
            if said != "done":
                # Before the command was begun there is nothing to come back for.
                assert "broke off" in said or "is gone" in said or "does not speak SSH" in said
                assert restarts(server) == before, after
                assert attempt(hosts, server) == "done"
            assert restarts(server) == before + 1, after
            assert made.connections <= 2
            hosts.close()
    assert outcomes == {"made", "not begun"}


def attempt(hosts: ssh.Hosts, server: Server) -> str:
    """The outcome of a change, or what the error said."""
    try:
        return str(hosts.change(server.node, RESTART)["changes"]["units"][0]["result"])
    except errors.UnreachableError as why:
        return why.message


def test_a_connection_that_dies_without_a_word_is_noticed_and_made_anew(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Measured without pulses: on a busy machine their bytes would count, and a cut at 98 of 100 never come.
    with proxy(server, lambda *_: 1 << 30) as made:
        hosts = server.hosts(made.port)
        hosts.change(server.node, RESTART)
        hosts.close()
        sizes = dict(made.passed)
    monkeypatch.setattr(streams, "PULSE", 0.2)
    monkeypatch.setattr(streams, "PATIENCE", 0.4)
    for upward, share in ((True, 0.5), (True, 0.99), (False, 0.9), (False, 0.98)):
        before = restarts(server)
        with proxy(server, cut_first(upward, int(sizes[upward] * share)), silent=True) as made:
            hosts = server.hosts(made.port)
            assert hosts.change(server.node, RESTART)["changes"]["units"][0]["result"] == "done"
            assert (restarts(server), made.connections) == (before + 1, 2)
            hosts.close()


def test_a_slow_command_is_not_taken_for_a_dead_one(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PULSE", 0.05)
    slow = server.folder / "bin" / "sysctl"
    slow.write_text("#!/bin/sh\nexec sleep 0.6\n")
    slow.chmod(0o755)
    with proxy(server, lambda *_: 1 << 30) as made:
        hosts = server.hosts(made.port)
        answer = hosts.change(server.node, {"sysctl": [{"path": "/x"}]})
        assert answer["changes"]["sysctl"] == [{"on": "/x", "result": "done"}]
        assert made.connections == 1
        hosts.close()


def test_a_host_that_stays_away_is_an_error_that_says_what_is_not_known(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy(server, lambda number, upward, total: 0 if number else 60_000 - total if upward else 1 << 30) as made:
        hosts = server.hosts(made.port)
        with pytest.raises(errors.UnreachableError, match=r"dropped while it was working.*; since then: ") as caught:
            hosts.change(server.node, {**RESTART, "write": [{"path": "/x", "content": "A" * 200_000}]}, deadline=1)
        assert "run it again" in caught.value.fix
        assert made.connections > 2
        hosts.close()


def test_what_is_kept_for_a_second_call_holds_no_content(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    hosts = server.hosts()
    asked = {
        "id": secrets.token_hex(16),
        "write": [ssh.FileWrite(str(path), SecretStr("token: s3cret\n"), 0o600).request()],
        "read": {"files": [{"path": str(path), "content": True}]},
    }
    for _ in range(2):
        answer = hosts.call(server.node, asked)
        assert answer["changes"]["write"] == [{"on": str(path), "result": "changed"}]
        assert answer["read"]["files"][str(path)]["content"] == "dG9rZW46IHMzY3JldAo="
    kept = Path("/run/funoffshore") / str(asked["id"])
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert b"s3cret" not in kept.read_bytes()
    assert b"dG9rZW4" not in kept.read_bytes()
    hosts.close()


def test_another_host_key_is_refused_before_anybody_logs_in(tmp_path: Path) -> None:
    with sshd(tmp_path) as made:
        hosts = made.hosts(host_key_seed=SecretStr("11" * 32))
        with pytest.raises(errors.TrustError, match=r"has another host key: expected SHA256:.*, seen SHA256:"):
            hosts.observe(made.node)
        assert "userauth-request" not in made.log


def test_a_host_without_python3_says_what_to_install(tmp_path: Path) -> None:
    with sshd(tmp_path, path="/nonexistent") as made:
        with pytest.raises(errors.RefusedError, match="lab-c1 did not run the helper: exit 127") as caught:
            made.hosts().call(made.node, {})
        assert caught.value.fix == "install python3 on the host"


def test_a_full_disk_is_told_with_what_is_needed_and_nothing_is_left_half(server: Server, tmp_path: Path) -> None:
    full, hosts = tmp_path / "full", server.hosts()
    big = tmp_path / "big"
    big.write_bytes(os.urandom(200_000))
    sha256 = hashlib.sha256(big.read_bytes()).hexdigest()
    fetched = {"url": big.as_uri(), "path": f"{full}/fetched", "sha256": sha256}
    asked: list[Any] = [
        lambda: hosts.write(server.node, [ssh.FileWrite(f"{full}/written", big.read_bytes())]),
        lambda: hosts.change(server.node, {"download": [fetched]}),
        lambda: hosts.push(server.node, f"{full}/pushed", big, sha256, 0o644),
    ]
    with mounted(full, "-o", "size=64k"):
        hosts.write(server.node, [ssh.FileWrite(f"{full}/small", b"s" * 5000)])
        for work in asked:
            with pytest.raises(errors.PreflightError) as caught:
                work()
            said = caught.value.message
            assert said.startswith(f"lab-c1: {full}/")
            assert f"no space on the file system of {full}: 200000 bytes are needed, 57344 are free" in said
            assert "bigger disk" in caught.value.fix
            assert os.listdir(full) == ["small"]
        subprocess.run(["mount", "-o", "remount,size=2m", str(full)], check=True)
        for work in asked:
            work()
        found = {name: (full / name).read_bytes() == big.read_bytes() for name in os.listdir(full)}
        assert found == {"small": False, "written": True, "fetched": True, "pushed": True}
    hosts.close()


def test_a_disk_without_inodes_is_told_as_that(server: Server, tmp_path: Path) -> None:
    hosts = server.hosts()
    with mounted(tmp_path / "full", "-o", "nr_inodes=2"):
        hosts.write(server.node, [ssh.FileWrite(f"{tmp_path}/full/x", b"x")])
        with pytest.raises(errors.PreflightError, match=f"no inode is free on the file system of {tmp_path}/full"):
            hosts.write(server.node, [ssh.FileWrite(f"{tmp_path}/full/y", b"y")])
    hosts.close()


def test_a_read_only_file_system_is_told_with_where_to_look(server: Server, tmp_path: Path) -> None:
    hosts, folder = server.hosts(), tmp_path / "read"
    with mounted(folder, "-o", "ro"):
        for request in (
            {"write": [ssh.FileWrite(f"{folder}/x", b"x").request()]},
            {"write": [ssh.FileWrite(f"{folder}/below/x", b"x").request()]},
            {"download": [{"url": "file:///etc/hosts", "path": f"{folder}/x", "sha256": "0" * 64}]},
        ):
            with pytest.raises(errors.RefusedError, match=f"lab-c1: {folder}/.*is mounted read-only") as caught:
                hosts.change(server.node, request)
            assert "dmesg" in caught.value.fix
            assert "fsck" in caught.value.fix
    hosts.close()


def test_a_push_that_is_cut_goes_on_where_it_was(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_hosts, "PUSHED", MIB)
    monkeypatch.setattr(ssh_hosts, "PUSHING", 3.0)
    source = tmp_path / "k3s"
    source.write_bytes(os.urandom(4 * MIB + 17))
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    target = f"{tmp_path}/bin/k3s"
    with proxy(server, lambda number, up, total: 0 if number else 3_400_000 - total if up else 1 << 30) as made:
        hosts = server.hosts(made.port)
        with pytest.raises(errors.UnreachableError):
            hosts.push(server.node, target, source, sha256)
        hosts.close()
    [staged] = os.listdir(tmp_path / "bin")
    assert staged != "k3s"
    assert (tmp_path / "bin" / staged).stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(ssh_hosts, "PUSHING", 60.0)
    with proxy(server, cut_first(True, 1_000_000)) as made:
        hosts, said = server.hosts(made.port), list[str]()
        hosts.push(server.node, target, source, sha256, say=said.append)
        assert said[0].startswith(f"{target}: 2 of 4 MiB are on lab-c1")
        assert made.connections == 2
        hosts.push(server.node, target, source, sha256, say=said.append)
        assert hosts.round_trips < 8
        hosts.close()
    assert os.listdir(tmp_path / "bin") == ["k3s"]
    assert Path(target).read_bytes() == source.read_bytes()
    assert Path(target).stat().st_mode & 0o777 == 0o755


def test_what_is_not_the_pinned_file_is_not_pushed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "k3s").write_bytes(b"other")
    hosts = server.hosts()
    with pytest.raises(errors.DigestError, match=f"{tmp_path}/k3s is not what was pinned"):
        hosts.push(server.node, f"{tmp_path}/there", tmp_path / "k3s", "0" * 64)
    with pytest.raises(errors.StateError, match="cannot be read: No such file"):
        hosts.push(server.node, f"{tmp_path}/there", tmp_path / "none", "0" * 64)
    assert hosts.round_trips == 0


@pytest.fixture(scope="module")
def jump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with sshd(tmp_path_factory.mktemp("jump")) as made:
        yield made


def over(jump: Server, host_key: str = "") -> model.Jump:
    return model.Jump("root", str(jump.node.address), jump.port, host_key or jump.host_key())


def test_a_host_is_reached_through_the_jump_host_alone(server: Server, jump: Server) -> None:
    (jump.folder / "keys").write_text(server.config.ssh.public_key() + "\n")
    hosts = server.hosts(jump=over(jump))
    for _ in range(2):
        assert isinstance(hosts.observe(server.node), Present)
    assert hosts.answers(server.node.address)
    assert hosts.shown_key(server.node).line == server.host_key()
    assert jump.log.count("Accepted publickey for root") == 1
    assert f"server_request_direct_tcpip: originator 127.0.0.1 port 0, target {server.node.address}" in jump.log
    assert "auth-agent" not in jump.log
    dead = server.hosts(9, jump=over(jump))
    assert not dead.answers(server.node.address)
    gone = dead.observe(server.node)
    assert isinstance(gone, Unreadable)
    assert f"does not answer over SSH through the jump host (root@{jump.node.address}" in gone.why
    # One host that does not answer is no reason to lose the others.
    hosts._way.open(str(server.node.address), server.port, "it").close()
    for door in (hosts, dead):
        door.close()
    assert jump.log.count("Accepted publickey for root") == 2


def test_a_jump_connection_that_died_is_made_anew(server: Server, jump: Server) -> None:
    (jump.folder / "keys").write_text(server.config.ssh.public_key() + "\n")
    with proxy(jump, lambda *_: 1 << 30) as made:
        hosts = server.hosts(jump=model.Jump("root", str(jump.node.address), made.port, jump.host_key()))
        assert isinstance(hosts.observe(server.node), Present)
        for end in made._open:
            end.close()
        made._open.clear()
        assert isinstance(hosts.observe(server.node), Present)
        hosts.close()


def test_a_jump_host_with_another_key_or_without_forwarding_is_told(server: Server, tmp_path: Path) -> None:
    with sshd(tmp_path, "AllowTcpForwarding no") as made:
        (made.folder / "keys").write_text(server.config.ssh.public_key() + "\n")
        with pytest.raises(errors.TrustError, match=r"the jump host .* has another host key") as caught:
            server.hosts(jump=over(made, server.host_key()[:-8] + "AAAAAAAA")).observe(server.node)
        assert "SSH_JUMP_HOST_KEY" in caught.value.fix
        assert "userauth-request" not in made.log
        seen = server.hosts(jump=over(made)).observe(server.node)
        assert isinstance(seen, Unreadable)
        assert "through the jump host" in seen.why
        (made.folder / "keys").write_text("")
        seen = server.hosts(jump=over(made)).observe(server.node)
        assert isinstance(seen, Unreadable)
        assert "the jump host" in seen.why
        assert "does not let root in" in seen.why


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A real ssh-agent with a key that nobody asked for; the folder of its socket."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
    write_key(tmp_path / "other", Ed25519PrivateKey.generate())
    try:
        while subprocess.run(["ssh-add", "-q", str(tmp_path / "other")], capture_output=True).returncode == 2:
            pass
        yield tmp_path
    finally:
        process.terminate()
        process.wait(10)


def test_an_agent_signs_with_the_named_key_and_offers_no_other(server: Server, agent: Path) -> None:
    public = server.config.ssh.public_key()
    settings: dict[str, Any] = {"auth": "agent", "private_key": SecretStr(""), "public_key_line": public}
    with pytest.raises(errors.PreflightError, match="no SSH agent here holds the key SHA256:") as caught:
        server.hosts(**settings).observe(server.node)
    assert "ssh-add" in caught.value.fix
    (agent / "mine").touch(mode=0o600)
    (agent / "mine").write_text(server.config.ssh.private_key.get_secret_value())
    subprocess.run(["ssh-add", "-q", str(agent / "mine")], check=True)
    before = server.log
    hosts = server.hosts(**settings)
    assert isinstance(hosts.observe(server.node), Present)
    hosts.close()
    offered = [line for line in server.log[len(before) :].splitlines() if "userauth_pubkey" in line or "Failed" in line]
    assert not any("Failed" in line for line in offered)
    assert server.log[len(before) :].count("Accepted publickey") == 1


def test_a_key_file_opens_with_its_passphrase(server: Server) -> None:
    secret = server.config.ssh.private_key.get_secret_value().encode()
    key = serialization.load_ssh_private_key(secret, None)
    assert isinstance(key, Ed25519PrivateKey)
    closed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.BestAvailableEncryption(b"open sesame"),
    ).decode()
    settings: dict[str, Any] = {"auth": "file", "private_key": SecretStr(closed)}
    hosts = server.hosts(**settings, passphrase=SecretStr("open sesame"))
    assert isinstance(hosts.observe(server.node), Present)
    hosts.close()
    for passphrase, said in ((SecretStr("wrong"), "cannot be opened with SSH_KEY_PASSPHRASE"), (None, "is protected")):
        with pytest.raises(errors.ConfigError, match=said) as caught:
            server.hosts(**settings, passphrase=passphrase).observe(server.node)
        assert "wrong" not in str(caught.value)


def test_a_key_that_is_not_let_in_is_told_with_the_line_to_add(server: Server) -> None:
    stranger = Ed25519PrivateKey.generate()
    hosts = server.hosts(private_key=SecretStr(hostkeys.openssh_private(stranger)))
    with pytest.raises(errors.RefusedError, match="does not let root in") as caught:
        hosts.call(server.node, {})
    assert hostkeys.openssh_public(stranger) in caught.value.fix
