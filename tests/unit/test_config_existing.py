"""Machines that are there already: what their clusters need, what they do not, and how fo gets in."""

from __future__ import annotations

import base64
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from config_samples import EXISTING, ROOT, edit, existing, expect, home, lab, problems
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from funoffshore import config, errors, hostkeys
from funoffshore.config import ClusterConfig, loader, new

KEY = hostkeys.openssh_public(Ed25519PrivateKey.from_private_bytes(b"k" * 32))
OTHER = hostkeys.openssh_public(Ed25519PrivateKey.from_private_bytes(b"o" * 32))
KNOWN = f"192.168.7.41 {KEY};192.168.7.5? {KEY};home-w2,10.9.8.7 {OTHER} w2"


def _parse(text: str) -> ClusterConfig:
    return config.parse(text, "home", ROOT)


def _quoted(text: str) -> str:
    return f'"{text}"'


def test_nothing_of_proxmox_is_needed() -> None:
    assert not [line for line in existing().splitlines() if line.startswith(("PROXMOX_", "IMAGE_", "VM_BACKUP_"))]
    found = _parse(existing())
    assert found.made == ()
    assert [(n.name, str(n.address), n.made) for n in found.nodes] == [
        ("home-c1", "192.168.7.41", False),
        ("home-w1", "192.168.7.51", False),
        ("home-w2", "10.9.8.7", False),
    ]
    assert {(n.vmid, n.cores, n.memory_mib, n.disk_gib, n.data_disk_gib) for n in found.nodes} == {(0, 0, 0, 0, 0)}
    assert (found.proxmox.url, found.proxmox.token_secret.get_secret_value()) == ("", "")
    assert found.network.subnet == IPv4Network("0.0.0.0/32")
    assert found.network.gateway.is_unspecified
    assert found.network.dns == ()


def test_one_controller_needs_no_virtual_address() -> None:
    found = _parse(existing())
    assert found.api == found.network.vip == IPv4Address("192.168.7.41")
    assert found.virtual is False
    assert found.settings["VIP"] == found.settings["TRAEFIK_LB_ADDRESS"] == "192.168.7.41"
    assert _parse(edit(existing(), {"VIP": "192.168.7.41"})).virtual is False
    assert _parse(edit(existing(), {"VIP": "192.168.7.40"})).virtual is True
    assert _parse(edit(home(), {"CONTROLLERS": "1", "VIP": ""})).virtual is False


def test_root_may_log_in_where_fo_makes_no_machine() -> None:
    assert _parse(edit(existing(), {"SSH_USER": "root"})).ssh.user == "root"
    mixed = edit(home(), {"NODE_W1_MACHINE": "existing", "SSH_USER": "root"})
    expect(mixed, "SSH_USER: is root; on machines that it makes fo logs in as a user with sudo")


def test_more_controllers_need_one() -> None:
    three = {"CONTROLLERS": "3", "NODE_C2_IP": "192.168.7.42", "NODE_C3_IP": "192.168.7.43"}
    expect(edit(existing(), three), "VIP: is empty, and required")
    assert _parse(edit(existing(), {**three, "VIP": "192.168.7.40"})).virtual is True
    expect(edit(existing(), {**three, "VIP": None}), "VIP: is required and missing")


def test_a_controller_without_an_address() -> None:
    expect(edit(existing(), {"NODE_C1_IP": None}), "CONTROLLER_FIRST_IP: is empty, and required")


def test_a_mixed_cluster_needs_proxmox_and_takes_far_addresses() -> None:
    text = edit(home(), {"NODE_W2_MACHINE": "existing", "NODE_W2_IP": "10.9.8.7"})
    found = _parse(text)
    assert [n.name for n in found.nodes if not n.made] == ["home-w2"]
    assert [n.name for n in found.made] == ["home-c1", "home-c2", "home-c3", "home-w1"]
    assert found.of_made().nodes == found.made
    assert found.of_made().network == found.network
    assert [found.ssh.trust_of(n) for n in found.nodes] == ["seed"] * 4 + ["first-use"]
    said = problems(edit(existing(), {"NODE_W1_MACHINE": "proxmox"}))
    missing = {line.split(": ")[-2] for line in said if "is required and missing" in line or "required" in line}
    assert {"PROXMOX_URL", "PROXMOX_TOKEN_ID", "PROXMOX_TOKEN_SECRET", "PROXMOX_FINGERPRINT"} <= missing
    assert {"SUBNET", "GATEWAY", "DNS_SERVERS", "HOST_KEY_SEED"} <= missing


def test_a_made_machine_stays_inside_the_subnet_beside_existing_ones() -> None:
    text = edit(home(), {"NODE_W2_MACHINE": "existing", "NODE_W2_IP": "10.9.8.7", "NODE_W1_IP": "10.9.8.8"})
    expect(text, "NODE_W1_IP: home-w1 would have 10.9.8.8, which is outside SUBNET 192.168.7.0/24")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("NODE_W2_IP", "192.168.7.51", "home-w2 would have 192.168.7.51, which home-w1 has already (NODE_W1_IP)"),
        ("NODE_W2_IP", "224.0.0.1", "home-w2 would have 224.0.0.1, which no machine can have"),
        ("NODE_W2_IP", "0.0.0.0", "home-w2 would have 0.0.0.0, which no machine can have"),  # noqa: S104
        ("NODE_W2_IP", "10.42.1.2", "home-w2 would have 10.42.1.2, which is in CLUSTER_CIDR 10.42.0.0/16"),
        ("NODE_W2_IP", "127.0.0.2", "home-w2 (127.0.0.2) is on loopback, which is only for LAB=embedded"),
        ("NODE_W1_VMID", "500", "is for machines that fo makes, and home-w1 is an existing one"),
        ("NODE_W1_PCI", "gpu", "is for machines that fo makes, and home-w1 is an existing one"),
        ("NODE_W3_MACHINE", "existing", "there is no worker 3, as WORKERS is 2"),
        ("NODE_W1_MACHINE", "vm", '"vm" is not "proxmox" or "existing"'),
        ("MACHINES", "bare", '"bare" is not "proxmox" or "existing"'),
        (
            "VM_BACKUP_STORAGE",
            "pbs",
            "is given, and fo makes no machine here, and fo backs up no existing machine",
        ),
        ("SSH_TRUST", "seed", "is seed, and existing machines have no seed of fo's; give known, or first-use"),
        (
            "SSH_TRUST",
            "agent",
            "is agent, and existing machines have no guest agent that fo could ask; give known, or first-use",
        ),
        ("SSH_KNOWN_HOSTS", _quoted(f"10.9.8.7 {KEY};10.9.8.8 {KEY}"), ""),
        (
            "SSH_KNOWN_HOSTS",
            _quoted("10.9.8.7 ssh-ed25519 AAAA"),
            ('the value is not lines as in known_hosts (address, type, key), with ";" between them'),
        ),
        (
            "SSH_PUBLIC_KEY",
            _quoted(KEY.replace("AAAA", "AAAB", 1)),
            ("the value is not an ed25519 public key on one line, like ssh-ed25519 AAAA…"),
        ),
        ("SSH_KEY_FILE", "/home/you/.ssh/id", "is given, and SSH_AUTH is key; it goes with file"),
        ("SSH_KEY_PASSPHRASE", "geheim", "is given, and SSH_AUTH is key; it goes with file"),
        ("SSH_JUMP", "ops@jump.lan", ""),
        ("SSH_JUMP", "jump.lan", "the value is not a jump host, like ops@jump.lan:22"),
        ("SSH_JUMP", "ops@jump.lan:", "the value is not a jump host, like ops@jump.lan:22"),
        ("SSH_JUMP", "ops@jump.lan:99999", "the value is not a jump host, like ops@jump.lan:22"),
        ("SSH_JUMP", "-oProxyCommand=id@jump", "the value is not a jump host, like ops@jump.lan:22"),
        ("SSH_JUMP_HOST_KEY", _quoted(KEY), "is given without SSH_JUMP"),
    ],
)
def test_one_wrong_value(name: str, value: str, problem: str) -> None:
    text = edit(existing(), {name: value})
    if name == "SSH_KNOWN_HOSTS" and not problem:
        expect(
            text,
            f"{name}: has no ed25519 key for home-c1 (192.168.7.41)",
            f"{name}: has no ed25519 key for home-w1 (192.168.7.51)",
        )
    elif name == "SSH_JUMP" and not problem:
        expect(text, "SSH_JUMP_HOST_KEY: is required with SSH_JUMP")
    else:
        expect(text, f"{name}: {problem}")
    assert "geheim" not in str(problems(text))


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("~/.ssh/id", "starts with ~, which nobody expands; give the whole path"),
        (".ssh/id", "the value is not an absolute path on this computer"),
        ("/home/../etc/id", "the value is not an absolute path on this computer"),
    ],
)
def test_a_path_is_whole(path: str, problem: str) -> None:
    text = edit(existing(), {"SSH_AUTH": "file", "SSH_PRIVATE_KEY": "", "SSH_KEY_FILE": path})
    expect(text, f"SSH_KEY_FILE: {problem}")


def test_what_would_do_nothing_is_refused() -> None:
    text = new.generate("home", {**EXISTING, "FIREWALL": "true", "HIGH_AVAILABILITY": "true"}, lab=False)
    expect(
        text,
        "FIREWALL: is given, and fo makes no machine here, and the firewall of existing machines is their owner's",
        "HIGH_AVAILABILITY: is given, and fo makes no machine here, and existing machines are nothing that Proxmox "
        "could restart",
    )


# Host keys


def test_known_hosts_decide_how_existing_machines_are_trusted() -> None:
    found = _parse(edit(existing(), {"SSH_KNOWN_HOSTS": _quoted(KNOWN)}))
    assert found.ssh.trust == "known"
    assert [found.ssh.trust_of(n) for n in found.nodes] == ["known"] * 3
    assert _parse(existing()).ssh.trust == "first-use"
    assert [_parse(existing()).ssh.trust_of(n) for n in found.nodes] == ["first-use"] * 3


def test_a_port_of_one_s_own_is_part_of_the_name() -> None:
    text = edit(existing(), {"SSH_KNOWN_HOSTS": _quoted(KNOWN), "SSH_PORT": "2222"})
    addresses = {"home-c1": "192.168.7.41", "home-w1": "192.168.7.51", "home-w2": "10.9.8.7"}
    expect(text, *(f"SSH_KNOWN_HOSTS: has no ed25519 key for {n} ([{a}]:2222)" for n, a in addresses.items()))
    bracketed = ";".join(f"[{address}]:2222 {KEY}" for address in addresses.values())
    assert problems(edit(text, {"SSH_KNOWN_HOSTS": _quoted(bracketed)})) == []


def test_only_an_ed25519_key_counts() -> None:
    raw = rsa.generate_private_key(65537, 2048).public_key()
    line = raw.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    known = KNOWN.replace(f"192.168.7.41 {KEY}", f"192.168.7.41 {line};@revoked 192.168.7.41 {KEY}")
    text = edit(existing(), {"SSH_KNOWN_HOSTS": _quoted(known)})
    expect(text, "SSH_KNOWN_HOSTS: has no ed25519 key for home-c1 (192.168.7.41)")
    found = _parse(edit(existing(), {"SSH_KNOWN_HOSTS": _quoted(f"{KNOWN};home-c1 {line} c1")}))
    assert found.ssh.known_hosts.splitlines() == [
        f"192.168.7.41 {KEY}",
        f"192.168.7.5? {KEY}",
        f"home-w2,10.9.8.7 {OTHER}",
        f"home-c1 {line}",
    ]


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH client here")
def test_hashed_names_are_understood(tmp_path: Path) -> None:
    """As ssh-keygen -H writes them."""
    path = tmp_path / "known_hosts"
    path.write_text("".join(f"{host} {KEY}\n" for host in ("192.168.7.41", "192.168.7.51", "home-w2")))
    subprocess.run(["ssh-keygen", "-H", "-f", path], check=True, capture_output=True)
    hashed = path.read_text().strip().splitlines()
    assert all(line.startswith("|1|") for line in hashed)
    assert problems(edit(existing(), {"SSH_KNOWN_HOSTS": _quoted(";".join(hashed))})) == []
    expect(
        edit(existing(), {"SSH_KNOWN_HOSTS": _quoted(";".join(hashed[1:]))}),
        "SSH_KNOWN_HOSTS: has no ed25519 key for home-c1 (192.168.7.41)",
    )


def test_trust_of_a_mixed_cluster_is_said_for_each() -> None:
    mixed = {"NODE_W2_MACHINE": "existing"}
    text = edit(home(), {**mixed, "SSH_TRUST": "agent", "SSH_KNOWN_HOSTS": _quoted(f"192.168.7.52 {KEY}")})
    found = _parse(text)
    assert [found.ssh.trust_of(n) for n in found.nodes] == ["agent"] * 4 + ["known"]
    expect(
        edit(text, {"SSH_TRUST": "known"}),
        "SSH_TRUST: is known, and home-c1 is made by fo; SSH_TRUST speaks of those, SSH_KNOWN_HOSTS of existing ones",
    )


def test_trust_and_known_hosts_agree() -> None:
    expect(edit(existing(), {"SSH_TRUST": "known"}), "SSH_KNOWN_HOSTS: is required with SSH_TRUST=known")
    both = {"SSH_TRUST": "first-use", "SSH_KNOWN_HOSTS": _quoted(KNOWN)}
    expect(edit(existing(), both), "SSH_KNOWN_HOSTS: is given, and SSH_TRUST is first-use; give one of them")
    expect(
        edit(home(), {"SSH_KNOWN_HOSTS": _quoted(KNOWN)}),
        "SSH_KNOWN_HOSTS: is given, and no machine is an existing one",
    )


# Keys to log in with


def test_an_agent_is_told_by_its_public_key() -> None:
    text = edit(existing(), {"SSH_AUTH": "agent", "SSH_PRIVATE_KEY": "", "SSH_PUBLIC_KEY": _quoted(f"{KEY} you@home")})
    found = _parse(text)
    assert found.ssh.auth == "agent"
    assert found.ssh.public_key() == KEY
    assert found.ssh.private_key.get_secret_value() == ""
    expect(edit(text, {"SSH_PUBLIC_KEY": ""}), "SSH_PUBLIC_KEY: is empty, and required")
    expect(
        edit(existing(), {"SSH_AUTH": "agent", "SSH_PUBLIC_KEY": _quoted(KEY)}),
        "SSH_PRIVATE_KEY: is given, and SSH_AUTH is agent; it goes with key",
    )


def test_the_key_in_the_file_tells_its_public_half() -> None:
    pem = base64.b64decode(new.secret("SSH_PRIVATE_KEY"))
    found = _parse(edit(existing(), {"SSH_PRIVATE_KEY": base64.b64encode(pem).decode()}))
    key = serialization.load_ssh_private_key(pem, None)
    assert isinstance(key, Ed25519PrivateKey)
    assert found.ssh.public_key() == hostkeys.openssh_public(key)
    expect(edit(existing(), {"SSH_PRIVATE_KEY": ""}), "SSH_PRIVATE_KEY: is empty, and required")


def test_sudo_and_jump_are_read() -> None:
    more = {"SSH_SUDO_PASSWORD": "geheim", "SSH_JUMP": "ops@jump.lan:2200", "SSH_JUMP_HOST_KEY": _quoted(KEY)}
    found = _parse(edit(existing(), more))
    assert found.ssh.sudo_password is not None
    assert found.ssh.sudo_password.get_secret_value() == "geheim"
    assert found.ssh.jump == config.Jump("ops", "jump.lan", 2200, KEY)
    assert str(found.ssh.jump) == "ops@jump.lan:2200"
    assert "geheim" not in repr(found)
    expect(
        edit(home(), {"SSH_SUDO_PASSWORD": "geheim"}),
        "SSH_SUDO_PASSWORD: is given, and fo makes all machines; their sudo asks for none",
    )


def test_a_new_file_holds_no_key_that_it_does_not_need() -> None:
    text = new.generate("home", {**EXISTING, "SSH_AUTH": "agent", "SSH_PUBLIC_KEY": KEY}, lab=False)
    assert problems(text) == []
    assert "\nSSH_PRIVATE_KEY=\n" in text
    assert "\nHOST_KEY_SEED=\n" in text
    assert problems(lab(), "lab") == []


# What is locked


def test_a_cluster_without_machines_of_its_own_locks_no_image(tmp_path: Path) -> None:
    for text, wanted in ((existing(), "existing"), (home(), None)):
        path = tmp_path / "config" / "env" / "home.env"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
        assert loader.wanted(path, tmp_path).get("MACHINES") == wanted


def test_arm64_alone_needs_no_other_digest() -> None:
    arm = {"K3S_SHA256": "", "K3S_SHA256_ARM64": "5" * 64}
    found = _parse(edit(existing(), arm))
    assert (found.k3s.digest("arm64"), found.k3s.digest("amd64"), found.k3s.digest("riscv64")) == ("5" * 64, "", "")
    with pytest.raises(errors.ConfigError):
        _parse(edit(home(), arm))


def test_the_lock_file_holds_the_digest_of_arm64() -> None:
    locked = f"k3s:\n  version: v1.36.4+k3s1\n  sha256:\n    amd64: '{'1' * 64}'\n    arm64: '{'5' * 64}'\n"
    text = edit(existing(), {"K3S_SHA256": ""})
    assert config.parse(text, "home", ROOT, locked).k3s.digest("arm64") == "5" * 64
    with pytest.raises(errors.ConfigError) as caught:
        config.parse(edit(text, {"K3S_SHA256_ARM64": "6" * 64}), "home", ROOT, locked)
    [said] = caught.value.evidence
    assert "K3S_SHA256_ARM64: differs from k3s.sha256.arm64 in config/lock/home.yaml" in said
