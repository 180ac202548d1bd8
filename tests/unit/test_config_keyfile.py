"""SSH_AUTH=file: the key file is read with the config, and everything that is wrong with it is said then."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
from pathlib import Path

import paramiko
import pytest
from config_samples import ROOT, edit, existing, expect, problems
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from funoffshore import config, hostkeys
from funoffshore.config import sshkey

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PASSPHRASE = "correct horse"


def _pem(passphrase: str = "", key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey = KEY) -> str:
    form = serialization.PrivateFormat.OpenSSH
    lock: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        lock = form.encryption_builder().kdf_rounds(1).build(passphrase.encode())
    return key.private_bytes(serialization.Encoding.PEM, form, lock).decode()


def _file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "id_ed25519"
    path.write_text(text)
    path.chmod(mode)
    return path


def _text(path: Path, passphrase: str = "") -> str:
    quoted = f'"{passphrase}"' if passphrase else ""
    more = {"SSH_AUTH": "file", "SSH_PRIVATE_KEY": "", "SSH_KEY_FILE": str(path), "SSH_KEY_PASSPHRASE": quoted}
    return edit(existing(), more)


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_the_file_s_key_is_the_one_to_log_in_with(tmp_path: Path, passphrase: str) -> None:
    path = _file(tmp_path, _pem(passphrase))
    found = config.parse(_text(path, passphrase), "home", ROOT).ssh
    assert (found.auth, found.key_file) == ("file", path)
    assert found.private_key.get_secret_value() == path.read_text()
    assert found.public_key() == hostkeys.openssh_public(KEY)
    assert (found.passphrase.get_secret_value() if found.passphrase else "") == passphrase
    assert PASSPHRASE not in repr(found)


def test_the_file_is_needed() -> None:
    text = edit(existing(), {"SSH_AUTH": "file", "SSH_PRIVATE_KEY": ""})
    expect(text, "SSH_KEY_FILE: is empty, and required")


def test_passphrases_fit(tmp_path: Path) -> None:
    path = _file(tmp_path, _pem(PASSPHRASE))
    expect(_text(path), "SSH_KEY_PASSPHRASE: is required, as SSH_KEY_FILE has one; or use SSH_AUTH=agent")
    wrong = _text(path, "geheim")
    expect(wrong, "SSH_KEY_FILE: does not open with SSH_KEY_PASSPHRASE, or is damaged")
    assert "geheim" not in str(problems(wrong))
    _file(tmp_path, _pem())
    expect(_text(path, "geheim"), "SSH_KEY_PASSPHRASE: is given, and SSH_KEY_FILE has none")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH client here")
@pytest.mark.parametrize(
    ("cipher", "taken"),
    [
        ("aes256-ctr", True),
        ("aes256-cbc", True),
        ("aes256-gcm@openssh.com", False),
        ("chacha20-poly1305@openssh.com", False),
        ("3des-cbc", False),
    ],
)
def test_only_what_can_be_deciphered_later_is_taken(tmp_path: Path, cipher: str, taken: bool) -> None:
    """By ssh-keygen itself; what is taken, the SSH client opens."""
    path = tmp_path / "id_ed25519"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-Z", cipher, "-a", "1", "-f", str(path)]
    subprocess.run(argv, check=True)
    if taken:
        assert problems(_text(path, PASSPHRASE)) == []
        opened = paramiko.Ed25519Key.from_private_key(io.StringIO(path.read_text()), password=PASSPHRASE)
        assert sshkey.public(path.read_text()) == f"ssh-ed25519 {opened.get_base64()}"
        return
    said = "has its key enciphered as no SSH client of fo's can read it (ssh-keygen -p -Z aes256-ctr)"
    expect(_text(path, PASSPHRASE), f"SSH_KEY_FILE: {said}")


def test_a_file_that_asks_for_years_of_work_is_refused_at_once(tmp_path: Path) -> None:
    """The rounds of bcrypt stand in clear text behind the salt; trying them out would never end."""
    head, *lines, tail = _pem(PASSPHRASE).strip().splitlines()
    raw = base64.b64decode("".join(lines))
    at = raw.index(b"bcrypt") + len(b"bcrypt") + 4 + 4 + 16
    assert raw[at : at + 4] == (1).to_bytes(4, "big")
    raw = raw[:at] + (2**31).to_bytes(4, "big") + raw[at + 4 :]
    path = _file(tmp_path, "\n".join((head, base64.b64encode(raw).decode(), tail, "")))
    said = "SSH_KEY_FILE: asks for too many rounds of bcrypt (ssh-keygen -p -a 100 makes them fewer)"
    expect(_text(path, PASSPHRASE), said)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o700])
def test_others_may_not_look(tmp_path: Path, mode: int) -> None:
    said = f"SSH_KEY_FILE: has mode {mode:04o}; a private key must have 0600 (chmod 600)"
    expect(_text(_file(tmp_path, _pem(), mode)), said)


def test_only_a_file_is_read(tmp_path: Path) -> None:
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(_file(tmp_path, _pem()))
    os.mkfifo(fifo, 0o600)
    expect(_text(link), "SSH_KEY_FILE: is a symlink; the file itself must stand there")
    expect(_text(fifo), "SSH_KEY_FILE: is a FIFO, not a regular file")
    expect(_text(tmp_path), "SSH_KEY_FILE: is a folder, not a regular file")
    expect(_text(tmp_path / "none"), "SSH_KEY_FILE: cannot be opened: No such file or directory")
    expect(_text(_file(tmp_path, "x" * 20_000)), "SSH_KEY_FILE: is larger than 16 KiB")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_somebody_else_s_file(tmp_path: Path) -> None:
    path = _file(tmp_path, _pem())
    os.chown(path, 4242, -1)
    expect(_text(path), "SSH_KEY_FILE: belongs to uid 4242, and fo runs as uid 0")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not an OpenSSH private key file (ssh-keygen -t ed25519 makes one)"),
        (hostkeys.openssh_public(KEY), "is not an OpenSSH private key file (ssh-keygen -t ed25519 makes one)"),
        ("schlüssel", "is not an OpenSSH private key file"),
        (
            _pem(key=ec.generate_private_key(ec.SECP256R1())),
            "is not an ed25519 key (ssh-keygen -t ed25519 makes one)",
        ),
        (_pem()[:-60] + _pem()[-40:], "is an OpenSSH private key file whose inside is not base64"),
    ],
)
def test_what_is_no_key(tmp_path: Path, text: str, problem: str) -> None:
    said = problems(_text(_file(tmp_path, text)))
    assert len(said) == 1
    assert "SSH_KEY_FILE: is " in said[0]
    if "base64" not in problem:
        assert said[0].endswith(f"SSH_KEY_FILE: {problem}")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 430), st.sampled_from("Aa0+/=\n-"), st.booleans())
def test_a_damaged_file_is_refused_or_is_the_same_key(tmp_path: Path, at: int, char: str, protected: bool) -> None:
    """Never an error that nobody expects, and never another key than the one that would log in."""
    pem = _pem(PASSPHRASE if protected else "")
    text = pem[:at] + char + pem[at + 1 :]
    path = _file(tmp_path, text)
    if problems(_text(path, PASSPHRASE if protected else "")):
        return
    loaded = serialization.load_ssh_private_key(text.encode(), PASSPHRASE.encode() if protected else None)
    assert isinstance(loaded, Ed25519PrivateKey)
    assert sshkey.public(text) == hostkeys.openssh_public(loaded)
