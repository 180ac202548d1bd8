"""The seed ISO, read back the way a booting machine would."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pycdlib
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from funoffshore import hostkeys, seed
from funoffshore.config import ClusterConfig, loader, new

PINS = dict.fromkeys(("PROXMOX_FINGERPRINT", "IMAGE_SHA256", "K3S_SHA256", "FLUX_INSTALL_SHA256"), "a" * 64)


@cache
def config() -> ClusterConfig:
    return loader.parse(new.generate("lab", PINS, lab=True), "lab", Path("/nowhere"))


def files(image: bytes, path: str = "rr_path") -> dict[str, str]:
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(image))
    read = {}
    for name in ("user-data", "meta-data", "network-config"):
        out = io.BytesIO()
        disc.get_file_from_iso_fp(out, **{path: f"/{name}"})
        read[name] = out.getvalue().decode()
    disc.close()
    return read


def user_data(config: ClusterConfig) -> Any:
    return yaml.safe_load(files(seed.iso(config, config.node("lab-c1")))["user-data"])


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another zone and another day."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 10**7)
    yield
    monkeypatch.undo()
    os.environ.pop("TZ", None)
    time.tzset()


def test_volume_and_names() -> None:
    image = seed.iso(config(), config().node("lab-c1"))
    assert image[16 * 2048 + 40 :].startswith(b"cidata ")
    assert files(image, "rr_path") == files(image, "joliet_path")


FIRST = seed.iso(config(), config().node("lab-c1"))


@pytest.mark.usefixtures("elsewhere")
def test_equal_seeds_have_equal_bytes() -> None:
    assert seed.iso(config(), config().node("lab-c1")) == FIRST


def test_other_nodes_have_other_seeds() -> None:
    assert seed.iso(config(), config().node("lab-c2")) != FIRST


def test_meta_data_carries_the_identity() -> None:
    node = config().node("lab-c1")
    assert yaml.safe_load(files(FIRST)["meta-data"]) == {
        "instance-id": str(node.identity),
        "local-hostname": "lab-c1",
    }


def test_network_is_static_and_found_by_mac() -> None:
    node = config().node("lab-w1")
    wanted = yaml.safe_load(files(seed.iso(config(), node))["network-config"])
    assert wanted["version"] == 2
    (face,) = wanted["ethernets"].values()
    assert face["match"] == {"macaddress": seed.mac(node.identity).lower()}
    assert face["addresses"] == [f"{node.address}/24"]
    assert face["routes"] == [{"to": "0.0.0.0/0", "via": str(config().network.gateway)}]
    assert face["dhcp4"] is False


SIX = {
    "CLUSTER_CIDR_V6": "fd00:42::/56",
    "SERVICE_CIDR_V6": "fd00:43::/112",
    "SUBNET_V6": "fd00:7::/64",
}


@pytest.mark.parametrize("gateway", ["", "fe80::1"])
def test_a_dual_stack_machine_has_an_address_of_each_family(gateway: str) -> None:
    """Without a gateway its route comes from the router, to whose advertisements a host that forwards is deaf."""
    whole = loader.parse(new.generate("lab", {**PINS, **SIX, "GATEWAY_V6": gateway}, lab=True), "lab", Path("/nowhere"))
    node = whole.node("lab-w1")
    (face,) = seed.network_config(whole, node)["ethernets"].values()
    assert face["addresses"] == [f"{node.address}/24", f"{node.address_v6}/64"]
    first, *more = face["routes"]
    assert first == {"to": "0.0.0.0/0", "via": str(whole.network.gateway)}
    assert more == ([{"to": "::/0", "via": "fe80::1"}] if gateway else [])
    assert (face["dhcp6"], face["accept-ra"]) == (False, not gateway)
    assert "net.ipv6.conf.all.forwarding = 1\n" in seed.files(whole)["/etc/sysctl.d/90-fo.conf"]
    assert "ipv6" not in str(seed.files(config()))


def test_the_key_of_an_agent_is_let_in() -> None:
    public = hostkeys.openssh_public(Ed25519PrivateKey.from_private_bytes(b"a" * 32))
    answers = {**PINS, "SSH_AUTH": "agent", "SSH_PUBLIC_KEY": f"{public} you@laptop"}
    whole = loader.parse(new.generate("lab", answers, lab=True), "lab", Path("/nowhere"))
    (user,) = user_data(whole)["users"]
    assert user["ssh_authorized_keys"] == [f"{public} fo@lab"]


def test_mac_is_locally_administered_and_unicast() -> None:
    macs = {seed.mac(node.identity) for node in config().nodes}
    assert len(macs) == len(config().nodes)
    assert all(mac.startswith("02:") and len(mac) == 17 for mac in macs)


def test_the_user_has_a_key_and_no_password() -> None:
    (user,) = user_data(config())["users"]
    key = serialization.load_ssh_private_key(config().ssh.private_key.get_secret_value().encode(), None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert user["ssh_authorized_keys"][0].split()[:2] == public.decode().split()
    assert user["lock_passwd"] is True
    assert user["sudo"] == "ALL=(ALL) NOPASSWD:ALL"
    assert "PRIVATE KEY" not in str(user)


def test_the_host_key_is_the_one_that_will_be_expected() -> None:
    data = user_data(config())
    key = hostkeys.private(config().ssh.host_key_seed.get_secret_value(), "lab-c1")
    born = serialization.load_ssh_private_key(data["ssh_keys"]["ed25519_private"].encode(), None)
    raw = serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    assert isinstance(born, Ed25519PrivateKey)
    assert born.private_bytes(*raw) == key.private_bytes(*raw)
    assert data["ssh_keys"]["ed25519_public"] == hostkeys.openssh_public(key)
    assert data["ssh_deletekeys"] is True


def test_no_other_secret_is_on_it() -> None:
    text = "".join(files(FIRST).values())
    whole = config()
    for value in (
        whole.ssh.private_key,
        whole.ssh.host_key_seed,
        whole.proxmox.token_secret,
        whole.k3s.token,
        whole.k3s.agent_token,
        whole.evidence_key,
        *whole.app_secrets.values(),
    ):
        assert value.get_secret_value().strip() not in text


def test_packages_without_an_upgrade() -> None:
    data = user_data(config())
    assert data["packages"] == ["qemu-guest-agent", "nfs-common"]
    assert data["package_upgrade"] is False


def test_nothing_is_upgraded_at_the_first_boot() -> None:
    [command] = user_data(config())["bootcmd"]
    assert command == ["systemctl", "mask", "--runtime", "apt-daily.service", "apt-daily-upgrade.service"]
    assert "apt-daily" not in str(user_data(config())["write_files"])


def test_the_guest_agent_is_enabled_and_started() -> None:
    commands = user_data(config())["runcmd"]
    assert [word for word in commands if "qemu-guest-agent.service" in word] == [
        ["systemctl", "enable", "qemu-guest-agent.service"],
        ["systemctl", "start", "qemu-guest-agent.service"],
    ]


@pytest.mark.parametrize("way", ["agent", "first-use"])
def test_a_machine_that_makes_its_own_host_key_is_given_none(way: str) -> None:
    data = user_data(replace(config(), ssh=replace(config().ssh, trust=way)))
    assert "ssh_keys" not in data
    assert "PRIVATE KEY" not in str(data)


def test_a_data_disk_is_found_by_its_serial_and_formatted_only_when_blank() -> None:
    whole = config()
    node = replace(whole.node("lab-c1"), data_disk_gib=50)
    data = yaml.safe_load(files(seed.iso(whole, node))["user-data"])
    device = "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_fo-data"
    [system] = data["fs_setup"]
    assert (system["device"], system["filesystem"], system["overwrite"]) == (device, "ext4", False)
    assert system["partition"] == "any", "any other choice formats over what is there"
    [mount] = data["mounts"]
    assert mount[:3] == [device, "/var/lib/rancher", "ext4"]
    assert {"nofail", "x-systemd.device-timeout=30s"} <= set(mount[3].split(","))
    assert "disk_setup" not in data
    assert "fs_setup" not in user_data(whole)


def test_files_for_k3s() -> None:
    written = {file["path"]: file["content"] for file in user_data(config())["write_files"]}
    assert "br_netfilter\n" in written["/etc/modules-load.d/90-fo.conf"]
    assert "net.ipv4.ip_forward = 1\n" in written["/etc/sysctl.d/90-fo.conf"]
    assert "vm.overcommit_memory = 1\n" in written["/etc/sysctl.d/90-fo.conf"]


@pytest.mark.parametrize(("port", "named"), [(22, False), (2222, True)])
def test_the_ssh_port_is_named_only_where_it_differs(port: int, named: bool) -> None:
    data = user_data(replace(config(), ssh=replace(config().ssh, port=port)))
    written = {file["path"]: file["content"] for file in data["write_files"]}
    assert ("Port " in written[seed.SSHD_DROP_IN]) is named
    assert "PasswordAuthentication no\n" in written[seed.SSHD_DROP_IN]
    assert ("ssh.socket" in str(data["runcmd"])) is named


def test_the_file_is_named_after_cluster_node_and_identity() -> None:
    node = config().node("lab-c1")
    assert seed.filename(config(), node) == f"lab-lab-c1-{node.identity.hex[:12]}.iso"
