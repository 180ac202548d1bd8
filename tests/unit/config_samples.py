"""Env files for tests: complete ones, made once, and ways to change them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import pytest

from funoffshore import config, errors
from funoffshore.config import keys, new

ROOT = Path("/homelab")
DIGESTS = {
    "PROXMOX_FINGERPRINT": "AB:" * 31 + "AB",
    "K3S_SHA256": "1" * 64,
    "FLUX_INSTALL_SHA256": "2" * 64,
}
HOME = {
    **DIGESTS,
    "SUBNET": "192.168.7.0/24",
    "DOMAIN": "home.example.org",
    "PROXMOX_URL": "https://192.168.7.5:8006",
    "PROXMOX_TOKEN_ID": "fo@pve!fo",
    "PROXMOX_TOKEN_SECRET": "6f1d2c3b-0a1b-4c2d-8e3f-001122334455",
    "IMAGE_SHA512": "3" * 128,
    "GIT_URL": "https://git.example.org/you/homelab",
    "NFS_SERVER": "192.168.7.6",
    "ACME_EMAIL": "you@example.org",
    "CF_TUNNEL_TOKEN": "canary-cf-tunnel-0123456789",
    "CF_API_TOKEN": "canary-cf-api-0123456789",
    "CF_ORIGIN_CA_TOKEN": "canary-cf-origin-0123456789",
    "TAILSCALE_CLIENT_ID": "canary-ts-id-0123456789",
    "TAILSCALE_CLIENT_SECRET": "canary-ts-secret-0123456789",
}
EXISTING = {
    **{key: text for key, text in HOME.items() if not key.startswith(("PROXMOX_", "IMAGE_", "SUBNET"))},
    "MACHINES": "existing",
    "CONTROLLERS": "1",
    "WORKERS": "2",
    "NODE_C1_IP": "192.168.7.41",
    "NODE_W1_IP": "192.168.7.51",
    "NODE_W2_IP": "10.9.8.7",
}
LAB = {**DIGESTS, "IMAGE_SHA256": "4" * 64}


@functools.cache
def home() -> str:
    """A right file for real hardware."""
    return new.generate("home", HOME, lab=False)


@functools.cache
def existing() -> str:
    """A right file for machines that are there already; nothing in it is of Proxmox."""
    return new.generate("home", EXISTING, lab=False)


@functools.cache
def lab() -> str:
    return new.generate("lab", LAB, lab=True)


def edit(text: str, changes: Mapping[str, str | None]) -> str:
    """``text`` with other values, as they shall stand behind the ``=``. None takes the line out; new keys go last."""
    lines = text.splitlines()
    for name, value in changes.items():
        at = next((n for n, line in enumerate(lines) if line.startswith(f"{name}=")), None)
        if at is None:
            lines.append(f"{name}={value}")
        elif value is None:
            del lines[at]
        else:
            lines[at] = f"{name}={value}"
    return "\n".join(lines) + "\n"


def line_of(text: str, name: str) -> int:
    """From 1; 0 when the key is not in the file."""
    return next((n for n, line in enumerate(text.splitlines(), 1) if line.startswith(f"{name}=")), 0)


def problems(text: str, name: str = "home") -> list[str]:
    """What is said about ``text``; nothing when it is right."""
    try:
        config.parse(text, name, ROOT)
    except errors.ConfigError as why:
        return list(why.evidence)
    return []


def expect(text: str, *wanted: str, name: str = "home") -> None:
    """Exactly these problems, each with its key's line put in front."""
    lines = [(line_of(text, problem.split(":")[0]), problem) for problem in wanted]
    assert problems(text, name) == [f"line {n}: {p}" if n else p for n, p in sorted(lines, key=lambda x: x[0] or 9999)]


def secrets_of(text: str) -> list[str]:
    """Every value of a secret key in ``text``."""
    table = keys.known().keys
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return [value for name, value in pairs if value and name in table and table[name].secret]


def private(path: Path, data: bytes) -> Path:
    """An env file on disk as it should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def refuse(path: Path) -> errors.ConfigError:
    """The error of reading ``path``."""
    with pytest.raises(errors.ConfigError) as caught:
        config.load(path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return caught.value
