"""Machines of the lab that no Proxmox made: they keep their disks, and an installation makes another one of each."""

from __future__ import annotations

import base64
import contextlib
import io
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import paramiko
import pytest
from k3s_machines import eventually
from operator_home import Operator
from pydantic import SecretStr
from ssh_machines import config_of, subnet

from funoffshore.config import ClusterConfig
from funoffshore.config.access import Ssh
from funoffshore.lab import bare, lab


@pytest.fixture
def config(tmp_path: Path) -> ClusterConfig:
    """Two nodes, of which fo makes none; no Proxmox at all."""
    network = subnet()
    base = config_of(tmp_path, network, nodes=2)
    nodes = tuple(replace(node, made=False) for node in base.nodes)
    proxmox = replace(base.proxmox, url="", nodes=())
    url = f"http://{network[3]}:8088"
    (tmp_path / ".lab").mkdir()
    return replace(
        base, nodes=nodes, proxmox=proxmox, lab=replace(lab.of(base), directory=tmp_path / ".lab", web_url=url)
    )


@contextlib.contextmanager
def logged_in(config: ClusterConfig, number: int = 0) -> Iterator[paramiko.SSHClient]:
    """An operator's own client, which knows the host's key from ``fo lab hosts keys``."""
    ssh: Ssh = config.ssh
    with lab.store_of(config) as store:
        lines = list(bare.known_hosts(lab.of(config).directory, store, ssh.port))
    client = paramiko.SSHClient()
    for line in lines:
        at, kind, key = line.split()
        client.get_host_keys().add(at, kind, paramiko.PKey.from_type_string(kind, base64.b64decode(key)))
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    private = paramiko.Ed25519Key.from_private_key(io.StringIO(ssh.private_key.get_secret_value()))
    client.connect(
        str(config.nodes[number].address), ssh.port, ssh.user, pkey=private, timeout=10, allow_agent=False,
        look_for_keys=False,
    )  # fmt: skip
    try:
        yield client
    finally:
        client.close()


def run(client: paramiko.SSHClient, command: str) -> tuple[int, str]:
    _, out, err = client.exec_command(command, timeout=20)
    text = out.read().decode() + err.read().decode()
    return out.channel.recv_exit_status(), text.strip()


def answer(config: ClusterConfig, command: str) -> tuple[int, str]:
    """What the first machine says; (-1, "") while nobody gets in."""
    try:
        with logged_in(config) as client:
            return run(client, command)
    except (OSError, EOFError, paramiko.SSHException):
        return -1, ""


def is_up(config: ClusterConfig) -> bool:
    return answer(config, "true") == (0, "")


def test_they_have_power_at_once_and_nothing_of_fo_on_them(config: ClusterConfig) -> None:
    with lab.running(config):
        eventually(lambda: is_up(config))
        with logged_in(config) as client:
            assert run(client, "hostname") == (0, "lab-c1")
            assert run(client, "sudo -n id -u") == (0, "0")
            assert run(client, "uname -m") == (0, "x86_64")
            code, found = run(client, "sudo -n cat /sys/class/dmi/id/product_uuid")
            assert code == 0
            assert found != str(config.nodes[0].identity)
            assert "inactive" in run(client, "systemctl is-active k3s")[1]


def test_they_keep_their_disks_and_their_keys_between_runs(config: ClusterConfig) -> None:
    with lab.running(config):
        eventually(lambda: is_up(config))
        with logged_in(config) as client:
            assert run(client, "sudo -n tee /etc/mine < /etc/hostname")[0] == 0
            before = run(client, "cat /etc/ssh/ssh_host_ed25519_key.pub")
    with lab.running(config):
        eventually(lambda: is_up(config))
        with logged_in(config) as client:
            assert run(client, "cat /etc/mine") == (0, "lab-c1")
            assert run(client, "cat /etc/ssh/ssh_host_ed25519_key.pub") == before


def test_an_installation_makes_another_machine_in_a_lab_that_runs(config: ClusterConfig) -> None:
    with lab.running(config), lab.store_of(config) as store:
        eventually(lambda: is_up(config))
        with logged_in(config) as client:
            run(client, "sudo -n tee /etc/mine < /etc/hostname")
            key = run(client, "cat /etc/ssh/ssh_host_ed25519_key.pub")
            uuid = run(client, "sudo -n cat /sys/class/dmi/id/product_uuid")
        bare.put(store, config, config.nodes[0], architecture="arm64")

        eventually(lambda: answer(config, "uname -m") == (0, "aarch64"))
        with logged_in(config) as client:
            assert run(client, "cat /etc/mine")[0] == 1
            assert run(client, "cat /etc/ssh/ssh_host_ed25519_key.pub") != key
            assert run(client, "sudo -n cat /sys/class/dmi/id/product_uuid") == uuid


def test_power_is_cut_and_given_from_outside(config: ClusterConfig) -> None:
    with lab.running(config), lab.store_of(config) as store:
        eventually(lambda: is_up(config))
        bare.change(store, "lab-c1", on=False)
        eventually(lambda: not is_up(config))
        bare.change(store, "lab-c1", on=True)
        eventually(lambda: is_up(config))


def test_a_binary_of_another_architecture_does_not_run_there(config: ClusterConfig) -> None:
    with lab.store_of(config) as store:
        bare.put(store, config, config.nodes[0], architecture="arm64")
    with lab.running(config):
        eventually(lambda: is_up(config))
        base = f"{lab.of(config).web_url}/k3s/{config.k3s.version.replace('+', '%2B')}"
        for name, said in (("k3s", "Exec format error"), ("k3s-arm64", f"k3s version {config.k3s.version}")):
            with urllib.request.urlopen(f"{base}/{name}", timeout=10) as response:  # noqa: S310  # the lab's own
                content = base64.b64encode(response.read()).decode()
            with logged_in(config) as client:
                stdin, out, _ = client.exec_command("base64 -d | sudo -n install -m 755 /dev/stdin /usr/local/bin/k3s")
                stdin.write(content)
                stdin.channel.shutdown_write()
                assert out.channel.recv_exit_status() == 0
                assert said in run(client, "k3s --version")[1]


def test_a_host_without_python_has_none(config: ClusterConfig) -> None:
    with lab.serving(config) as homelab:
        eventually(lambda: is_up(config))
        assert answer(config, "python3 --version")[0] == 0
        homelab.kit.faults.on("no-python3", node="lab-c1")
        assert answer(config, "python3 --version")[0] == 127


def test_sudo_asks_where_it_shall(config: ClusterConfig) -> None:
    asking = replace(config, ssh=replace(config.ssh, sudo_password=SecretStr("let me")))
    with lab.store_of(asking) as store:
        bare.put(store, asking, asking.nodes[0], sudo_password="let me")
    with lab.running(asking):
        eventually(lambda: is_up(asking))
        with logged_in(asking) as client:
            code, said = run(client, "sudo -n true")
            assert (code, "a password is required" in said) == (1, True)


def test_a_disk_that_is_lost_takes_k3s_data_and_leaves_its_configuration(config: ClusterConfig) -> None:
    with lab.serving(config) as homelab:
        eventually(lambda: is_up(config))
        with logged_in(config) as client:
            assert run(client, "sudo -n mkdir /var/lib/rancher /etc/rancher") == (0, "")
            boot = run(client, "cat /proc/sys/kernel/random/boot_id")
        homelab.kit.faults.on("data-lost", node="lab-c1")
        eventually(lambda: "data-lost" not in homelab.kit.faults.all())
        eventually(lambda: is_up(config))
        with logged_in(config) as client:
            assert run(client, "test -e /var/lib/rancher")[0] == 1
            assert run(client, "test -e /etc/rancher")[0] == 0
            assert run(client, "cat /proc/sys/kernel/random/boot_id") != boot


def test_the_subnet_may_be_unknown(config: ClusterConfig) -> None:
    """Where fo makes no machine, nobody has to say which network it is."""
    network = replace(config.network, subnet=IPv4Network("0.0.0.0/32"), dns=())
    with lab.running(replace(config, network=network)):
        eventually(lambda: is_up(config))


def test_what_the_command_refuses(tmp_path: Path) -> None:
    home = Operator(tmp_path / "home")
    ended = home.fo("lab", "hosts", "power-off", "lab-w9")
    assert ended.code != 0
    assert "the lab has no machine lab-w9 of its own" in ended.err
    ended = home.fo("lab", "hosts", "add", "lab-w1")
    assert "lab-w1 is no existing machine of lab" in ended.err
    ended = home.fo("lab", "faults", "--on", "clock-off,minutes=ten")
    assert "minutes is no whole number" in ended.err
    assert home.fo("lab", "hosts", "list", "--json").json == []
