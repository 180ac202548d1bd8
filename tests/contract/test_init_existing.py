"""``fo init`` and ``fo lock`` for machines that are there already: nothing of Proxmox is asked, written or locked."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from operator_home import Operator
from test_init import _publisher, _sums

ONE = ("MACHINES=existing", "CONTROLLERS=1", "WORKERS=0", "CONTROLLER_FIRST_IP=192.168.7.20")
OTHERS = (
    "DOMAIN=example.org",
    "GIT_URL=https://git.example.org/you/homelab",
    "NFS_SERVER=192.168.7.6",
    "ACME_EMAIL=you@example.org",
    "CLOUDFLARED_ENABLED=false",
    "TAILSCALE_ENABLED=false",
    "CF_API_TOKEN=a-token-of-mine",
    "CF_ORIGIN_CA_TOKEN=another-token-of-mine",
)


@pytest.fixture
def home(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "home")


def _set(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def _values(home: Operator) -> dict[str, str]:
    lines = (home.folder / "config" / "env" / "home.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_one_machine_needs_its_address_and_nothing_of_proxmox(home: Operator) -> None:
    ended = home.fo("init", "home", "--no-pin", *_set(*ONE, *OTHERS, "K3S_SHA256=" + "1" * 64))
    assert ended.code == 0, ended.err
    left = re.findall(r"^  (?:line [0-9]+: )?([A-Z0-9_]+): ", ended.err, re.MULTILINE)
    assert left == ["FLUX_INSTALL_SHA256"], ended.err
    values = _values(home)
    assert not [key for key in values if key.startswith(("PROXMOX_", "IMAGE_", "STORAGE_", "VM_BACKUP_"))]
    assert (values["SUBNET"], values["GATEWAY"], values["VIP"], values["HOST_KEY_SEED"]) == ("", "", "", "")
    [line] = re.findall(r"^  (ssh-ed25519 \S+ fo@home)$", ended.err, re.MULTILINE)
    assert "~fo/.ssh/authorized_keys on home-c1" in ended.err
    assert "SSH_KNOWN_HOSTS in the env file is safer" in ended.err
    assert values["SSH_PRIVATE_KEY"] not in ended.err
    assert len(line) > 80


def test_an_agent_s_key_is_not_generated(home: Operator) -> None:
    more = ("SSH_AUTH=agent", "SSH_PUBLIC_KEY=ssh-ed25519 AAAA")
    ended = home.fo("init", "home", "--no-pin", *_set(*ONE, *more))
    assert ended.code == 0, ended.err
    assert "SSH_PUBLIC_KEY: the value is not an ed25519 public key" in ended.err
    assert _values(home)["SSH_PRIVATE_KEY"] == ""
    assert "authorized_keys" not in ended.err


def test_at_a_terminal_no_question_is_about_proxmox(home: Operator) -> None:
    asked = _asked(home, {"MACHINES": "existing", "CONTROLLERS": "1", "CONTROLLER_FIRST_IP": "192.168.7.20"})
    assert not [
        key for key in asked if key.startswith(("PROXMOX_", "IMAGE_", "STORAGE_", "BRIDGE", "SUBNET", "GATEWAY"))
    ]
    assert {"MACHINES", "CONTROLLERS", "CONTROLLER_FIRST_IP", "SSH_USER", "SSH_KNOWN_HOSTS", "DOMAIN"} <= set(asked)
    values = _values(home)
    assert (values["MACHINES"], values["CONTROLLERS"]) == ("existing", "1")


def test_at_a_terminal_proxmox_is_what_is_meant_otherwise(home: Operator) -> None:
    asked = _asked(home, {})
    assert {"MACHINES", "PROXMOX_URL", "PROXMOX_TOKEN_ID", "SUBNET", "STORAGE_DISK"} <= set(asked)
    assert not {"SSH_USER", "SSH_KNOWN_HOSTS", "SSH_KEY_FILE", "SSH_PUBLIC_KEY"} & set(asked)


def test_no_image_is_locked(home: Operator) -> None:
    with _publisher(_sums("v1.36.4%2Bk3s1", b"k3s")) as base:
        assert home.fo("init", "home", "--no-pin", *_set(*ONE, f"K3S_DOWNLOAD_URL={base}")).code == 0
        ended = home.fo("lock", "update", "--k3s", "-c", "home")
        assert ended.code == 0, ended.err
        refused = home.fo("lock", "update", "--image", "-c", "home")
    assert refused.code == 2
    assert "fo makes no machine of home, so there is no image to lock" in refused.err
    text = (home.folder / "config" / "lock" / "home.yaml").read_text()
    assert "image:" not in text
    assert "arm64:" in text


def _asked(home: Operator, answers: dict[str, str]) -> list[str]:
    """The keys that ``fo init`` asks for at a terminal, where ``answers`` are given and nothing else."""
    master, slave = pty.openpty()
    argv, keys, line = home.command("init", "home", "--no-pin"), [], b""
    with subprocess.Popen(argv, cwd=home.folder, env=home.environment(), stdin=slave, stdout=slave, stderr=slave) as fo:
        os.close(slave)
        try:
            while chunk := os.read(master, 1):
                line = b"" if chunk == b"\n" else line + chunk
                if match := re.fullmatch(rb"([A-Z][A-Z0-9_]+)(?: \[[^\n]*\])?: ", line):
                    keys.append(match[1].decode())
                    os.write(master, answers.get(keys[-1], "").encode() + b"\n")
                    line = b""
        except OSError:  # EIO: the other end is closed
            pass
        code = fo.wait(timeout=30)
    os.close(master)
    assert code == 0
    return keys


def test_the_command_of_the_guide_works(home: Operator) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "config.md").read_text()
    [command] = re.findall(r"^fo (init home --set MACHINES=existing .*?)^```", guide, re.MULTILINE | re.DOTALL)
    ended = home.fo(*shlex.split(command.replace("\\\n", " ")), "--no-pin", *_set(*OTHERS, "K3S_SHA256=" + "1" * 64))
    assert ended.code == 0, ended.err
    left = re.findall(r"^  (?:line [0-9]+: )?([A-Z0-9_]+): ", ended.err, re.MULTILINE)
    assert left == ["FLUX_INSTALL_SHA256"], ended.err
    assert "~ops/.ssh/authorized_keys on home-c1, home-w1, home-w2" in ended.err
