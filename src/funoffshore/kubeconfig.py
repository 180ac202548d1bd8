"""The administrator's kubeconfig: rewritten from the server's own as a structure, never as text; kept 0600.

Format: Kubernetes ``client-go/tools/clientcmd/api/v1``; what K3s writes: every name ``default``, server 127.0.0.1.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from funoffshore import errors
from funoffshore.reading import Absent, Present, Reading, Unreadable

MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """A kubeconfig with one cluster, one user and one context."""

    name: str
    """What cluster, context and user are called; empty when they differ."""
    server: str
    """``https://address:6443``."""
    ca_hash: str
    """SHA-256 of the embedded CA (PEM bytes), lower-case hex: the hash in a ``K10…`` token."""
    mode: int = 0o600
    """Permission bits of the file it was read from."""


def rewritten(text: str, *, name: str, server: str) -> SecretStr:
    """``text`` (a server's k3s.yaml) with ``server`` and every name replaced.

    Raises RefusedError when it is not a kubeconfig with exactly one cluster, user and context, or lacks
    embedded certificates.
    """
    document = _document(text)
    for section in ("clusters", "users", "contexts"):
        document[section][0]["name"] = name
    document["clusters"][0]["cluster"]["server"] = server
    document["contexts"][0]["context"].update(cluster=name, user=name)
    document["current-context"] = name
    return SecretStr(yaml.safe_dump(document, sort_keys=False))


def parse(text: str, mode: int = 0o600) -> Kubeconfig:
    """Raises RefusedError for anything but one cluster, user and context with embedded certificates."""
    document = _document(text)
    context = document["contexts"][0]
    names = {
        str(document["clusters"][0]["name"]), str(document["users"][0]["name"]), str(context["name"]),
        str(context["context"].get("cluster")), str(context["context"].get("user")),
        str(document.get("current-context")),
    }  # fmt: skip
    cluster = document["clusters"][0]["cluster"]
    return Kubeconfig(
        name=names.pop() if len(names) == 1 else "",
        server=str(cluster["server"]),
        ca_hash=hashlib.sha256(_decoded(cluster, "certificate-authority-data")).hexdigest(),
        mode=mode,
    )


def read(path: Path) -> Reading[Kubeconfig]:
    """The kubeconfig at ``path``. A file that is no kubeconfig of ours is Unreadable, not Absent."""
    try:
        # O_NONBLOCK: a FIFO in its place must not hang fo.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return Absent()
    except OSError as why:
        return Unreadable(f"{path}: {why.strerror}")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Unreadable(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    try:
        if len(data) > MAX_BYTES:
            return Unreadable(f"{path} is larger than a kubeconfig can be")
        return Present(parse(data.decode(), stat.S_IMODE(status.st_mode)))
    except UnicodeDecodeError:
        return Unreadable(f"{path} is not UTF-8")
    except errors.RefusedError as why:
        return Unreadable(f"{path}: {why.message}")


def merge(path: Path, target: Path) -> None:
    """Puts the one cluster, user and context of ``path`` into the kubeconfig ``target``, in the place of those that
    bear the same name; everything else stays, and so does its current context where it has one.

    Raises StateError when ``target`` is no kubeconfig, or cannot be written; it is as it was then.
    """
    ours = _document(path.read_text("utf-8"))
    theirs = _theirs(target)
    for section in ("clusters", "users", "contexts"):
        mine = ours[section][0]
        others = theirs.get(section) or []
        kept = [one for one in others if one.get("name") != mine["name"]]
        theirs[section] = [*kept, mine]
    if not theirs.get("current-context"):
        theirs["current-context"] = ours["current-context"]
    # Through a link, as dotfiles are often kept elsewhere.
    write(target.resolve(), SecretStr(yaml.safe_dump(theirs, sort_keys=False)))


def _theirs(target: Path) -> dict[str, Any]:
    """The operator's own kubeconfig; an empty one where there is none."""
    fix = "look at that file, or choose another one with KUBECONFIG"
    try:
        text = target.read_text("utf-8")
    except FileNotFoundError:
        return {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    except (OSError, UnicodeDecodeError):
        raise errors.StateError(f"{target} cannot be read", fix=fix) from None
    try:
        document = yaml.load(text, Loader=_PlainLoader) or {"apiVersion": "v1", "kind": "Config"}  # noqa: S506  # safe
    except (yaml.YAMLError, RecursionError):
        # The cause is not chained: it may quote a private key.
        raise errors.StateError(f"{target} is no YAML", fix=fix) from None
    sections = (
        [document.get(name) or [] for name in ("clusters", "users", "contexts")] if isinstance(document, dict) else [0]
    )
    if not all(isinstance(section, list) and all(isinstance(one, dict) for one in section) for section in sections):
        raise errors.StateError(f"{target} is not a kubeconfig", fix=fix)
    return dict(document)


def write(path: Path, text: SecretStr) -> None:
    """Replaces ``path`` atomically by a 0600 file. Raises StateError when the disk says no."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text.get_secret_value())
                file.flush()
                os.fchmod(file.fileno(), 0o600)
                os.fsync(file.fileno())
            os.replace(fresh, path)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
    except OSError as why:
        raise errors.StateError(
            f"the kubeconfig {path} cannot be written: {why.strerror}", fix="make its folder writable"
        ) from None


def _document(text: str) -> dict[str, Any]:
    """A kubeconfig whose parts are known to be there."""
    try:
        document = yaml.load(text, Loader=_PlainLoader)  # noqa: S506  # a SafeLoader that knows no aliases
        for section, inner in (("clusters", "cluster"), ("users", "user"), ("contexts", "context")):
            items = document[section]
            if len(items) != 1 or not isinstance(items[0][inner], dict) or not isinstance(items[0]["name"], str):
                raise ValueError(section)
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        if not str(cluster["server"]).startswith("https://"):
            raise ValueError("server")
        _decoded(cluster, "certificate-authority-data")
        _decoded(user, "client-certificate-data")
        _decoded(user, "client-key-data")
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # The cause is not chained: it may quote a private key.
        raise errors.RefusedError(
            "it is not a kubeconfig with one cluster, one user and embedded certificates"
        ) from None
    return dict(document)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases: no kubeconfig of K3s has any, and bombs are made of them."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are refused")
        return super().compose_node(parent, index)


def _decoded(table: dict[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(table[key], validate=True)
    except binascii.Error:
        raise ValueError(key) from None
