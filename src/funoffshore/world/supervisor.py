"""The door to a K3s server before anybody can log in: whether it is up, and which authority it claims to be.

Nothing is believed before the authority's hash was compared with a K10 token's, and no secret is sent over a
connection that this very authority has not vouched for. Endpoints and answers: K3s ``pkg/server/handlers``, recorded
from a real run.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import ssl
from typing import TYPE_CHECKING

from funoffshore import errors
from funoffshore.config import ClusterConfig
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.routes import Routes

if TYPE_CHECKING:
    from pydantic import SecretStr

PORT = 6443
TIMEOUT = 5.0
"""Wall seconds for one answer."""
PATIENCE = 60.0
"""Wall seconds for the answer to a change: K3s seals its keys anew in etcd before it gives one."""
MAX_BYTES = 64 * 1024


class Supervisor:
    """Asks ``https://<address>:6443``. Thread safe; keeps no connection."""

    def __init__(self, config: ClusterConfig, routes: Routes | None = None) -> None:
        self._routes = routes or Routes(config.lab.directory / "routes.json" if config.lab else None)

    def ping(self, address: str) -> Reading[str]:
        """Present(``pong``) once a supervisor is up; Absent when the port is closed."""
        return self._get(address, "/ping")

    def ca_hash(self, address: str) -> Reading[str]:
        """SHA-256 of the authority that the server claims, 64 hex digits. A claim, not a proof of identity."""
        match self._get(address, "/cacerts"):
            case Present(text):
                return Present(hashlib.sha256(text.encode()).hexdigest())
            case other:
                return other

    def accepts(self, address: str, ca_hash: str, password: SecretStr) -> Reading[bool]:
        """Whether the server takes ``password`` as its server token. Raises TrustError, and then nothing was sent.

        Only nodes may ask ``/v1-k3s/readyz``, so a server's password is answered 403 and a wrong one 401.
        """
        try:
            status = self._as_server(address, ca_hash, password, "GET", "/v1-k3s/readyz")
        except errors.UnreachableError as why:
            return Unreadable(why.message)
        if status in (401, 403):
            return Present(status == 403)
        return Unreadable(f"https://{address}:{PORT}/v1-k3s/readyz answers {status}")

    def rotate_token(self, address: str, ca_hash: str, old: SecretStr, new: SecretStr) -> None:
        """Gives the cluster the server token ``new``; the others learn it at their restart.

        Raises TrustError, and then nothing was sent; UnreachableError when no answer came, and then nobody knows
        whether it was done; RefusedError when the server says no.
        """
        body = json.dumps({"newToken": new.get_secret_value()}).encode()
        status = self._as_server(address, ca_hash, old, "PUT", "/v1-k3s/token", body)
        if status != 200:
            raise errors.RefusedError(
                f"https://{address}:{PORT}/v1-k3s/token answers {status}",
                status=status,
                fix="read the journal of k3s.service on that server",
            )

    def _as_server(
        self, address: str, ca_hash: str, password: SecretStr, method: str, path: str, body: bytes = b""
    ) -> int:
        """Status of the answer. The authority is proven by ``ca_hash``, the connection by the authority."""
        login = base64.b64encode(f"server:{password.get_secret_value()}".encode()).decode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {address}:{PORT}\r\nConnection: close\r\n"
            f"Authorization: Basic {login}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        context = self._proven(address, ca_hash)
        try:
            raw = socket.create_connection(self._routes.resolve(address, PORT), timeout=PATIENCE)
            with raw, context.wrap_socket(raw, server_hostname=address) as secure:
                secure.sendall(head.encode() + body)
                response = http.client.HTTPResponse(secure)
                response.begin()
                return response.status
        except ssl.SSLCertVerificationError as why:
            raise errors.TrustError(
                f"{address}:{PORT} has no certificate of the cluster's authority ({why.verify_message})",
                fix="another server answers on that address; find it before anything else",
            ) from None
        except (OSError, http.client.HTTPException) as why:
            raise errors.UnreachableError(f"{address}:{PORT} broke off ({type(why).__name__})") from None

    def _proven(self, address: str, ca_hash: str) -> ssl.SSLContext:
        """Trusts the authority with that hash and no other. Raises TrustError, UnreachableError."""
        match self._get(address, "/cacerts"):
            case Present(text):
                claimed = hashlib.sha256(text.encode()).hexdigest()
            case Unreadable(why):
                raise errors.UnreachableError(why)
            case Absent():
                raise errors.UnreachableError(f"{address}:{PORT} is closed")
        if claimed != ca_hash:
            raise errors.TrustError(
                f"{address}:{PORT} claims another authority ({claimed[:12]}…) than the cluster's ({ca_hash[:12]}…)",
                fix="another cluster answers on that address; find it before anything else",
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=text)
        return context

    def _get(self, address: str, path: str) -> Reading[str]:
        try:
            raw = socket.create_connection(self._routes.resolve(address, PORT), timeout=TIMEOUT)
        except ConnectionRefusedError:
            return Absent()
        except OSError as why:
            return Unreadable(f"{address}:{PORT} does not answer ({why.strerror or why})")
        try:
            with raw, _unproven().wrap_socket(raw) as secure:
                secure.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}:{PORT}\r\nConnection: close\r\n\r\n".encode())
                response = http.client.HTTPResponse(secure)
                response.begin()
                body = response.read(MAX_BYTES).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as why:
            return Unreadable(f"{address}:{PORT} broke off ({type(why).__name__})")
        if response.status != 200:
            return Unreadable(f"https://{address}:{PORT}{path} answers {response.status}")
        return Present(body)


def _unproven() -> ssl.SSLContext:
    """What comes back is compared with the hash in the token; the certificate itself proves nothing yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
