"""SSH_KNOWN_HOSTS is read as OpenSSH reads known_hosts; its own ssh-keygen makes the hashed lines."""

from __future__ import annotations

import re
import shutil
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from funoffshore import errors, hostkeys
from funoffshore.config import model
from funoffshore.world.ssh import known, listed

KEY, OTHER = (hostkeys.openssh_public(hostkeys.private("ab" * 32, name)) for name in ("one", "two"))
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7"
ADDRESS = "192.0.2.11"


def found(lines: str, port: int = 22) -> str | None:
    """The key that the lines have for the node, as its line."""
    node = model.Node(
        "home-c1", model.Role.CONTROLLER, 1, IPv4Address(ADDRESS), "", 2, 4096, 20, model.identity("home", "home-c1")
    )
    key = listed.find(_settings(lines, port), node)
    return key.line if key else None


def _settings(lines: str, port: int) -> model.Ssh:
    return model.Ssh("ops", port, SecretStr(""), SecretStr(""), trust="known", known_hosts=lines)


@pytest.mark.parametrize(
    "hosts",
    [
        ADDRESS, "home-c1", f"other,{ADDRESS}", "192.0.2.*", "home-c?", "HOME-C1", "*,!home-c2", f"home-c1,{ADDRESS}",
    ],
)  # fmt: skip
def test_lines_about_the_node(hosts: str) -> None:
    assert found(f"{hosts} {KEY} a comment\n") == KEY
    assert found(f"# {hosts} {OTHER}\n\n  {hosts}\t{KEY}\n") == KEY


@pytest.mark.parametrize(
    "hosts",
    [
        "192.0.2.12", "home-c2", "home-c10", f"!{ADDRESS},192.0.2.*", f"[{ADDRESS}]:2222", "192.0.2.1[1]", "|1|x|y",
        "|1|", "192.0.2", "",
    ],
)  # fmt: skip
def test_lines_about_others(hosts: str) -> None:
    assert found(f"{hosts} {KEY}\n") is None


def test_another_port_is_in_the_name() -> None:
    assert found(f"[{ADDRESS}]:2222 {KEY}\n", 2222) == KEY
    assert found(f"[home-c1]:2222 {KEY}\n", 2222) == KEY
    assert found(f"[192.0.2.*]:2222 {KEY}\n", 2222) == KEY
    assert found(f"{ADDRESS} {KEY}\n[{ADDRESS}]:22 {KEY}\n", 2222) is None


def test_keys_of_other_kinds_and_authorities_prove_nothing() -> None:
    assert found(f"{ADDRESS} {RSA}\n@cert-authority * {OTHER}\n{ADDRESS} {KEY}\n") == KEY
    assert found(f"{ADDRESS} {RSA}\n@cert-authority * {OTHER}\n") is None


def test_a_revoked_key_is_refused_whoever_it_is_listed_for() -> None:
    for revoked in ("*", ADDRESS):
        with pytest.raises(
            errors.TrustError, match=f"home-c1, {re.escape(known.parse(KEY).fingerprint)}, is marked @revoked"
        ):
            found(f"{ADDRESS} {KEY}\n@revoked {revoked} {KEY}\n")
    assert found(f"{ADDRESS} {KEY}\n@revoked * {OTHER}\n@revoked 192.0.2.12 {KEY}\n") == KEY
    assert found(f"@revoked * {KEY}\n") is None


def test_two_different_keys_are_one_too_many() -> None:
    assert found(f"{ADDRESS} {KEY}\nhome-c1 {KEY}\n") == KEY
    with pytest.raises(errors.ConfigError, match="2 different ed25519 keys for home-c1"):
        found(f"{ADDRESS} {KEY}\nhome-c1 {OTHER}\n")
    with pytest.raises(errors.ConfigError, match="not base64 for home-c1"):
        found(f"{ADDRESS} ssh-ed25519 ****\n")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
@pytest.mark.parametrize(("name", "port"), [(ADDRESS, 22), ("home-c1", 22), (f"[{ADDRESS}]:2222", 2222)])
def test_hashed_names_as_ssh_keygen_makes_them(tmp_path: Path, name: str, port: int) -> None:
    file = tmp_path / "known_hosts"
    stranger = hostkeys.openssh_public(Ed25519PrivateKey.generate())
    file.write_text(f"{name} {KEY}\n198.51.100.1 {stranger}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    lines = file.read_text()
    assert name not in lines
    assert lines.count("|1|") == 2
    assert found(lines, port) == KEY
    assert found(lines, 2022) is None
