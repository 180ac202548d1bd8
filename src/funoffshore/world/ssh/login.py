"""Logging in with the one key that the config names, whoever holds it. Passwords are never offered."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator

import paramiko

from funoffshore import errors
from funoffshore.config import model
from funoffshore.world.ssh import handshake, known


class Login:
    """The key of one config, read once. Thread safe. Nothing is forwarded to any host."""

    def __init__(self, settings: model.Ssh) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._key: paramiko.PKey | None = None

    def log_in(self, transport: paramiko.Transport, where: str, user: str) -> None:
        """Raises RefusedError when the host does not take our key, UnreachableError when the connection drops,
        PreflightError when an agent does not hold it, ConfigError for a key that cannot be used."""
        transport.auth_timeout = handshake.HANDSHAKE_TIMEOUT
        with self._usable() as key:
            try:
                left = transport.auth_publickey(user, key)
            except paramiko.AuthenticationException as why:
                if "saw EOF" in str(why) or "timeout" in str(why):  # its word for a connection that was lost meanwhile
                    raise errors.UnreachableError(f"{where} broke off the SSH login: {handshake.said(why)}") from None
                raise errors.RefusedError(
                    f"{where} does not let {user} in with our key: {handshake.said(why)}", fix=self._fix(user)
                ) from None
            except (paramiko.SSHException, EOFError, OSError) as why:
                raise errors.UnreachableError(f"{where} broke off the SSH login: {handshake.said(why)}") from None
        if left:
            raise errors.RefusedError(f"{where} asks {user} for more than a key: {', '.join(left)}")

    @contextlib.contextmanager
    def _usable(self) -> Iterator[paramiko.PKey]:
        if self._settings.auth == "agent":
            with _from_agent(self._settings.public_key()) as key:
                yield key
            return
        with self._lock:  # a passphrase is made slow to try on purpose: once is enough
            if self._key is None:
                self._key = self._read()
        yield self._key

    def _read(self) -> paramiko.PKey:
        text, secret = self._settings.private_key.get_secret_value(), self._settings.passphrase
        try:
            return paramiko.Ed25519Key.from_private_key(
                io.StringIO(text), secret.get_secret_value() if secret else None
            )
        except paramiko.PasswordRequiredException:
            raise errors.ConfigError(
                "the SSH key file is protected by a passphrase", fix="set SSH_KEY_PASSPHRASE, or use SSH_AUTH=agent"
            ) from None
        except (paramiko.SSHException, ValueError):
            what = "cannot be opened with SSH_KEY_PASSPHRASE, or " if secret else ""
            raise errors.ConfigError(
                f"the SSH private key of the config {what}is not an ed25519 key in OpenSSH form"
            ) from None

    def _fix(self, user: str) -> str:
        return (
            f"on a machine that fo made, cloud-init did not make {user} (see its console), or the key in the env file "
            f"was changed; on any other, add to {user}'s ~/.ssh/authorized_keys: {self._settings.public_key()}"
        )


@contextlib.contextmanager
def _from_agent(line: str) -> Iterator[paramiko.PKey]:
    """The agent's key of that public key line, for one login; its other keys are not offered to anybody."""
    wanted = known.parse(line)
    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError) as why:
        raise errors.PreflightError(f"the SSH agent does not answer: {handshake.said(why)}") from None
    try:
        key = next((key for key in agent.get_keys() if key.asbytes() == wanted.blob), None)
        if key is None:
            raise errors.PreflightError(
                f"no SSH agent here holds the key {wanted.fingerprint} (SSH_AUTH=agent)",
                fix="start one (SSH_AUTH_SOCK says where it is) and give it the key of SSH_PUBLIC_KEY: ssh-add FILE",
            )
        yield key
    finally:
        agent.close()
