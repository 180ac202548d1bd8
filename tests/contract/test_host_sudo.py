"""Becoming root on an existing machine, where sudo wants a password: on the embedded lab and on a real Debian."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_backends import Machine, machine
from pydantic import SecretStr
from ssh_servers import Proxy, cut_first

from funoffshore import errors, hostkeys
from funoffshore.reading import Present, Unreadable
from funoffshore.world import routes, ssh

RULES = "/etc/sudoers.d/90-cloud-init-users"
PASSWORD = 'it\'s a "right" one: $HOME %h \\n #'  # of a machine that lives for a minute
ASKED, FREE = "ops ALL=(ALL:ALL) ALL\n", "ops ALL=(ALL) NOPASSWD:ALL\n"


@pytest.fixture(scope="module", params=["lab", pytest.param("real", marks=pytest.mark.real)])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if request.param == "real":
        request.getfixturevalue("right_to_the_bench")
    with machine(request.param, tmp_path_factory.mktemp(f"sudo-{request.param}")) as made:
        set_ = made.shell("sudo -n chpasswd", f"ops:{PASSWORD}\n".encode())
        assert set_.returncode == 0, set_.stderr
        yield made


def door(host: Machine, password: str | None, rules: str = ASKED) -> ssh.Hosts:
    """fo's way to the machine as to one that it did not make, under these sudoers rules."""
    right = as_existing(host, PASSWORD)
    file = ssh.FileWrite(RULES, rules.encode(), 0o440)
    right.write(right._config.nodes[0], [file])
    right.close()
    return as_existing(host, password)


def as_existing(host: Machine, password: str | None, detour: Path | None = None) -> ssh.Hosts:
    key = hostkeys.openssh_public(hostkeys.private(host.config.ssh.host_key_seed.get_secret_value(), host.node.name))
    settings = dataclasses.replace(
        host.config.ssh,
        known_hosts=f"[{host.node.address}]:{host.config.ssh.port} {key}\n",
        sudo_password=None if password is None else SecretStr(password),
    )
    nodes = (dataclasses.replace(host.node, made=False),)
    config = dataclasses.replace(host.config, ssh=settings, nodes=nodes)
    return ssh.Hosts(config, routes.Routes(detour or host.config.root / "routes.json"), host.kit.clock)


def node(hosts: ssh.Hosts) -> Any:
    return hosts._config.nodes[0]


@pytest.mark.parametrize("rules", [ASKED, FREE], ids=["asked", "not asked"])
def test_the_password_opens_sudo_whether_or_not_it_asks(host: Machine, rules: str) -> None:
    hosts = door(host, PASSWORD, rules)
    before = hosts.round_trips
    assert isinstance(hosts.observe(node(hosts)), Present)
    for content in (b"one", b"two" * 500_000):
        assert hosts.write(node(hosts), [ssh.FileWrite("/opt/sudo", content, 0o600)]) == {"/opt/sudo"}
    assert hosts.round_trips == before + 3
    assert host.shell("cat /opt/sudo").stderr.endswith(b"Permission denied\n")
    hosts.close()


def test_a_wrong_password_is_one_clear_error(host: Machine) -> None:
    hosts = door(host, "n0t-the-right-one")
    with pytest.raises(errors.RefusedError, match="lab-c1: sudo does not take the password of ops") as caught:
        hosts.call(node(hosts), {"write": [ssh.FileWrite("/opt/secret", b"s3cret").request()]})
    assert "SSH_SUDO_PASSWORD" in caught.value.fix
    shown = repr((caught.value.message, caught.value.fix, caught.value.evidence))
    assert "n0t-the-right-one" not in shown
    # What came next was not tried as another password.
    assert caught.value.evidence[-1] == "sudo: 1 incorrect password attempt"
    assert "czNjcmV0" not in shown
    seen = hosts.observe(node(hosts))
    assert isinstance(seen, Unreadable)
    assert "SSH_SUDO_PASSWORD" in seen.why
    hosts.close()


def test_a_missing_password_is_told_with_both_ways_out(host: Machine) -> None:
    hosts = door(host, None)
    with pytest.raises(errors.RefusedError, match="a password is required") as caught:
        hosts.call(node(hosts), {})
    assert "SSH_SUDO_PASSWORD" in caught.value.fix
    assert "NOPASSWD" in caught.value.fix
    hosts.close()


def through(host: Machine, proxy: Proxy, tmp: Path) -> ssh.Hosts:
    """The door with the password, by way of a proxy."""
    detour = tmp / "detour.json"
    place = f"{host.node.address}:{host.config.ssh.port}"
    detour.write_text(json.dumps({place: ["127.0.0.1", proxy.port]}))
    return as_existing(host, PASSWORD, detour)


def test_a_cut_connection_is_made_anew_past_sudo_too(host: Machine, tmp_path: Path) -> None:
    door(host, PASSWORD).close()
    target = (str(host.node.address), host.config.ssh.port)

    def write(content: bytes, fail: Any) -> tuple[frozenset[str], Proxy]:
        proxy = Proxy("127.0.0.1", target, fail)
        hosts = through(host, proxy, tmp_path)
        try:
            return hosts.write(node(hosts), [ssh.FileWrite("/opt/cut", content)]), proxy
        finally:
            hosts.close()
            proxy.close()

    _, whole = write(b"whole", lambda *_: 1 << 30)
    again = 0
    for upward, left in ((True, 30_000), (True, 10_000), (True, 500), (False, 160), (False, 100), (False, 60)):
        # Done twice, the second would have found it as it shall be.
        done, proxy = write(f"{upward} {left}".encode(), cut_first(upward, whole.passed[upward] - left))
        assert done == {"/opt/cut"}
        again += proxy.connections - 1
    assert 4 <= again <= 6


def test_a_user_who_may_not_use_sudo_is_told(host: Machine) -> None:
    hosts = door(host, PASSWORD, "# nobody\n")
    with pytest.raises(errors.RefusedError, match="lab-c1: ops may not use sudo") as caught:
        hosts.call(node(hosts), {})
    assert "adduser ops sudo" in caught.value.fix
    hosts.close()
