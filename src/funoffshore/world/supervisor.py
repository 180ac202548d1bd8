"""The door to a K3s server before anybody can log in: whether it is up, and which authority it claims to be.

Nothing secret is sent, and nothing is believed before the authority's hash was compared with a K10 token's.
Endpoints and answers: K3s ``pkg/server/handlers``, recorded from a real run.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import ssl

from funoffshore.config import ClusterConfig
from funoffshore.reading import Absent, Present, Reading, Unreadable
from funoffshore.world.routes import Routes

PORT = 6443
TIMEOUT = 5.0
"""Wall seconds for one answer."""
MAX_BYTES = 64 * 1024


class Supervisor:
    """Asks ``https://<address>:6443`` without logging in. Thread safe; keeps no connection."""

    def __init__(self, config: ClusterConfig) -> None:
        self._routes = Routes(config.lab.directory / "routes.json" if config.lab else None)

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
