"""The record of host keys: written whole, read strictly, and never changed from one key to another."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from ssh_machines import config_of, node_of, subnet

from funoffshore import errors, hostkeys
from funoffshore.config import ClusterConfig
from funoffshore.world.ssh import HostKey, known


def key() -> HostKey:
    return known.parse(hostkeys.openssh_public(Ed25519PrivateKey.generate()))


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    return config_of(tmp_path, subnet(), 3)


def record(config: ClusterConfig, line: str) -> Path:
    file = known.path(config)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(0o600)
    file.write_text(line)
    return file


def test_a_key_is_found_by_identity_and_by_nothing_else(config: ClusterConfig) -> None:
    one, two, three = config.nodes
    first, second = key(), key()
    known.record(config, one, first, "read through the guest agent")
    known.record(config, two, second, "accepted on first use")
    known.record(config, one, first, "once more")
    assert known.find(config, one.identity) == first
    assert known.find(config, two.identity) == second
    assert known.find(config, three.identity) is None
    moved = replace(three, name=one.name, address=one.address)
    assert known.find(config, moved.identity) is None
    assert len(known.path(config).read_text().splitlines()) == 2
    assert known.path(config).stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(config.state)) == [".known_hosts.lock", "known_hosts"]


def test_another_key_is_never_recorded_instead(config: ClusterConfig) -> None:
    node, first, second = config.nodes[0], key(), key()
    known.record(config, node, first, "x")
    with pytest.raises(errors.TrustError, match="lab-c1 is known by host key SHA256:") as caught:
        known.record(config, node, second, "x")
    assert first.fingerprint in caught.value.message
    assert str(node.identity) in caught.value.fix
    assert known.find(config, node.identity) == first
    known.forget(config, node.identity)
    known.record(config, node, second, "x")
    assert known.find(config, node.identity) == second


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    network = subnet()
    config = config_of(tmp_path, network)
    nodes = [node_of(network, number) for number in range(1, 21)]
    threads = [threading.Thread(target=known.record, args=(config, node, key(), "x")) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(known.find(config, node.identity) for node in nodes)


def test_other_peoples_lines_stay_and_prove_nothing(config: ClusterConfig) -> None:
    node = config.nodes[0]
    theirs = f"# fo-identity={node.identity}\n\n{node.address} {key().line} mine\n|1|abc=|def= ssh-rsa AAAA\n"
    file = record(config, theirs)
    assert known.find(config, node.identity) is None
    known.record(config, node, key(), "x")
    known.forget(config, node.identity)
    assert file.read_text() == theirs


@pytest.mark.parametrize("broken", ["ssh-ed25519 !!", "ssh-rsa AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", ""])
def test_a_line_that_is_broken_is_an_error_and_not_an_unknown_key(config: ClusterConfig, broken: str) -> None:
    record(config, f"lab-c1 {broken} fo-identity={config.nodes[0].identity} x\n")
    with pytest.raises(errors.StateError, match="known_hosts, line 1") as caught:
        known.find(config, config.nodes[0].identity)
    assert caught.value.fix
    # The way out that it names works.
    known.forget(config, config.nodes[0].identity)
    assert known.find(config, config.nodes[0].identity) is None


def test_a_file_that_others_can_write_or_with_two_keys_for_one_machine_is_not_believed(config: ClusterConfig) -> None:
    node = config.nodes[0]
    known.record(config, node, key(), "x")
    file = known.path(config)
    file.chmod(0o666)
    with pytest.raises(errors.StateError, match="can be written by others"):
        known.find(config, node.identity)
    file.chmod(0o600)
    file.write_text(file.read_text() + f"x {key().line} fo-identity={node.identity}\n")
    with pytest.raises(errors.StateError, match="two host keys for one machine"):
        known.find(config, node.identity)


def test_a_file_that_cannot_be_read_is_an_error(config: ClusterConfig) -> None:
    known.path(config).mkdir(parents=True)
    with pytest.raises(errors.StateError, match="cannot be read"):
        known.find(config, config.nodes[0].identity)
    assert not list(known.path(config).iterdir())


@given(st.text(max_size=200))
def test_whatever_is_read_is_a_whole_key_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert len(known.parse(text).blob) == 51


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")
def test_ssh_keygen_finds_the_line_and_prints_the_same_fingerprint(config: ClusterConfig) -> None:
    node, mine = config.nodes[0], key()
    known.record(config, node, mine, "read through the guest agent")
    for name in (f"[{node.address}]:2222", node.name):
        argv = ["ssh-keygen", "-l", "-F", name, "-f", str(known.path(config))]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
        assert mine.fingerprint in done.stdout
