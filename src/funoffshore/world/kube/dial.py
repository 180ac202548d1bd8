"""HTTPS to one API server with the credentials of a kubeconfig, on the official client's REST transport.

The certificate is checked against the kubeconfig's CA and the host of its ``server``, wherever the routes lead.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
import ssl
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client
from kubernetes.client import rest
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool

from funoffshore import errors
from funoffshore.world.routes import Routes

_CONNECT, _READ = 5.0, 30.0
"""Seconds until a connection, until an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


@dataclass(frozen=True)
class Access:
    """What a kubeconfig with one cluster and one user says."""

    server: str
    ca: str
    """PEM."""
    certificate: bytes = b""
    """Client certificate and key, PEM, or empty."""
    token: str = field(default="", repr=False)


def read(path: Path) -> Access:
    """The access of the current context. Runs no helper programs. Raises StateError for an unusable file."""
    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document, "contexts", document["current-context"])["context"]
        cluster = _named(document, "clusters", context["cluster"])["cluster"]
        user = _named(document, "users", context["user"])["user"]
        ca = _pem(path, cluster, "certificate-authority")
        certificate = _pem(path, user, "client-certificate")
        key = _pem(path, user, "client-key")
        server = str(cluster["server"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as why:
        # The text of a YAML error quotes the file, which holds keys.
        raise errors.StateError(
            f"the kubeconfig {path} cannot be read: {type(why).__name__}", fix="delete it and run fo bootstrap"
        ) from None
    if not server.startswith("https://") or not ca:
        raise errors.StateError(f"the kubeconfig {path} names no https server with a CA", fix="fo bootstrap")
    pair = certificate.rstrip() + b"\n" + key if certificate and key else b""
    return Access(server.rstrip("/"), ca.decode(), pair, str(user.get("token") or ""))


def _named(document: Any, section: str, name: str) -> Any:
    found = next((item for item in document[section] if item["name"] == name), None)
    if found is None:
        raise LookupError(section)
    return found


def _pem(path: Path, part: dict[str, Any], key: str) -> bytes:
    if part.get(f"{key}-data"):
        try:
            return base64.b64decode(part[f"{key}-data"], validate=True)
        except binascii.Error as why:
            raise ValueError("not base64") from why
    return (path.parent / part[key]).read_bytes() if part.get(key) else b""


def _context(access: Access) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=access.ca)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if access.certificate:
        handle, name = tempfile.mkstemp()  # 0600 and gone at once: the ssl module reads keys from files only
        try:
            os.write(handle, access.certificate)
            made.load_cert_chain(name)
        finally:
            os.close(handle)
            os.unlink(name)
    return made


class Dial:
    """Safe for several threads. ``request`` makes one call and raises UnreachableError or TrustError."""

    def __init__(self, access: Access, routes: Routes) -> None:
        self.server = access.server
        self._token = access.token
        try:
            tls = _context(access)
        except (ssl.SSLError, ValueError):
            raise errors.StateError("the kubeconfig's certificates are no PEM", fix="fo bootstrap") from None
        configuration = client.Configuration()
        configuration.host = access.server
        configuration.proxy = None
        self._client: Any = rest.RESTClientObject(configuration)
        # Only this pool knows the routes and keeps the key off the disk.
        self._client.pool_manager = _pool(tls, routes)
        self._lock = threading.Lock()
        self.calls = 0

    def close(self) -> None:
        self._client.pool_manager.clear()

    def request(
        self, method: str, path: str, query: dict[str, str], body: Any = None, content_type: str = "application/json",
        *, wait: float = _READ,
    ) -> Answer:  # fmt: skip
        """``body``: a mapping for JSON types, text for others. ``wait``: seconds until an answer."""
        headers = {"Accept": "application/json", "User-Agent": "fo", "Content-Type": content_type}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        url = self.server + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        with self._lock:
            self.calls += 1
        try:
            response = self._client.request(method, url, headers=headers, body=body, _request_timeout=(_CONNECT, wait))
            return Answer(int(response.status), bytes(response.read() or b""))
        except client.ApiException as why:
            if why.status:
                return Answer(int(why.status), (why.body or b"") if isinstance(why.body, bytes) else b"")
            raise self._foreign(why.__context__ or why) from None
        except (urllib3.exceptions.HTTPError, OSError) as why:
            raise self._foreign(why) from None

    def _foreign(self, why: BaseException) -> errors.FoError:
        """Ours for a transport's exception."""
        reason: Any = why
        while (inner := getattr(reason, "reason", None)) is not None and isinstance(inner, BaseException):
            reason = inner
        causes = [reason, reason.__cause__, reason.__context__, *reason.args]
        if any(isinstance(c, ssl.SSLCertVerificationError) for c in causes):
            text = next(c.verify_message for c in causes if isinstance(c, ssl.SSLCertVerificationError))
            return errors.TrustError(
                f"{self.server} shows a certificate that the kubeconfig's CA does not vouch for: {text}",
                fix="find out who answers there; for a rebuilt cluster, delete the kubeconfig and run fo bootstrap",
            )
        if any(isinstance(c, ssl.SSLError) and "ALERT" in str(c).upper().replace("_", " ") for c in causes):
            return errors.TrustError(
                f"{self.server} does not take the kubeconfig's client certificate",
                fix="delete the kubeconfig and run fo bootstrap",
            )
        return errors.UnreachableError(f"{self.server} does not answer: {_plain(reason)}")


def _plain(reason: BaseException) -> str:
    """Without the reprs of pool objects that urllib3 puts in front."""
    text = re.sub(r"^\w+\(host=.*?\): |\s*\(_ssl\.c:\d+\)", "", str(reason))
    return text or type(reason).__name__


def _pool(tls: ssl.SSLContext, routes: Routes) -> urllib3.PoolManager:
    class Connection(HTTPSConnection):
        """Dials where the routes say; every check still uses the host of the URL."""

        def _new_conn(self) -> socket.socket:
            host, port = self.host, self.port
            where = routes.resolve(host, port or 443)
            if where == (host, port):
                return super()._new_conn()
            try:
                return socket.create_connection(where, timeout=_CONNECT)
            except OSError as why:
                raise urllib3.exceptions.NewConnectionError(
                    self, f"Failed to establish a new connection: {why}"
                ) from why

    class Pool(HTTPSConnectionPool):
        ConnectionCls = Connection

    # A kept connection that the server has closed meanwhile is worth a second try where nothing is changed.
    retries = urllib3.Retry(total=1, connect=0, read=1, redirect=0, status=0, other=0, allowed_methods={"GET"})
    made = urllib3.PoolManager(ssl_context=tls, maxsize=16, retries=retries, cert_reqs="CERT_REQUIRED")
    made.pool_classes_by_scheme = {"https": Pool}
    return made
