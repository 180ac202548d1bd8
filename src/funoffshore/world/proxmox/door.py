"""The wire to the Proxmox API: pinned TLS, token, and the one map from foreign exceptions to ours."""

from __future__ import annotations

import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import proxmoxer
import requests
from requests.adapters import HTTPAdapter

from funoffshore import errors
from funoffshore.clock import Clock
from funoffshore.config import model
from funoffshore.world.proxmox import shapes
from funoffshore.world.routes import Routes

T = TypeVar("T")
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 35.0
"""Seconds; pveproxy itself gives up on a busy pvedaemon after 30 s with 596 (pve-http-server AnyEvent.pm)."""
READ_ATTEMPTS = 3
_GATEWAY = frozenset({595, 596, 597, 598, 599, 502, 503, 504})

for _name in ("proxmoxer.core", "proxmoxer.backends.https"):
    # proxmoxer logs request bodies at INFO and answers at DEBUG.
    logging.getLogger(_name).disabled = True


class _PinnedAdapter(HTTPAdapter):
    """Accepts exactly one certificate. urllib3 compares it when the handshake ends, before a byte of HTTP is sent."""

    def __init__(self, fingerprint: str, context: ssl.SSLContext) -> None:
        self._pinned: dict[str, Any] = {"assert_fingerprint": fingerprint, "ssl_context": context}
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **(kwargs | self._pinned))


def _context() -> ssl.SSLContext:
    """TLS without a list of CAs: the pin decides alone, and reading the list costs more than a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Door:
    """Sends single calls. Every thread has its own connection, as requests' sessions cannot be shared."""

    def __init__(self, config: model.Proxmox, routes: Routes, clock: Clock) -> None:
        self._config = config
        self._routes = routes
        self._clock = clock
        self._context = _context()
        self._local = threading.local()
        parts = urlsplit(config.url)
        self._host, self._port = parts.hostname or "", parts.port or 8006

    def read(self, parse: Callable[[Any], T], path: str, /, **params: Any) -> T:
        """What ``parse`` makes of the answer. Raises RefusedError, too, for an answer that it cannot read."""
        answer = self.get(path, **params)
        try:
            return parse(answer)
        except shapes.MALFORMED as why:
            raise errors.RefusedError(
                f"{self._config.url} answered GET {path} with something unexpected: {type(why).__name__} {why}"
            ) from None

    def get(self, path: str, /, **params: Any) -> Any:
        """The answer's data. Asks again, a few times, when nobody answers. Raises what ``_foreign`` lists."""
        for attempt in range(1, READ_ATTEMPTS):
            try:
                return self._call("GET", path, params)
            except errors.UnreachableError:
                self._clock.sleep(attempt)
        return self._call("GET", path, params)

    def post(self, path: str, data: Mapping[str, Any]) -> Any:
        """Sent once: after UnreachableError the outcome is unknown and has to be looked up."""
        return self._call("POST", path, data)

    def put(self, path: str, data: Mapping[str, Any]) -> Any:
        """Sent once: after UnreachableError the outcome is unknown and has to be looked up."""
        return self._call("PUT", path, data)

    def delete(self, path: str, /, **params: Any) -> Any:
        """Sent once. Parameters travel in the query, as a body is answered with 501."""
        return self._call("DELETE", path, params)

    def _call(self, method: str, path: str, data: Mapping[str, Any]) -> Any:
        wire = {name: _on_the_wire(value) for name, value in data.items()}
        with self._foreign(method, path):
            call: Callable[..., Any] = getattr(self._client()(path.strip("/")), method.lower())
            answer = call(**wire)
        if isinstance(answer, dict) and isinstance(answer.get("errors"), bytes):
            raise errors.RefusedError(
                f"{self._config.url} answered {method} {path} with something that is not the Proxmox API's JSON",
                fix="Check PROXMOX_URL: it must be the address of Proxmox itself, not of a proxy's login page.",
            )
        return answer

    def _client(self) -> Any:
        target = self._routes.resolve(self._host, self._port)
        known: tuple[tuple[str, int], Any] | None = getattr(self._local, "client", None)
        if known is not None and known[0] == target:
            return known[1]
        client = self._connect(*target)
        self._local.client = (target, client)
        return client

    def _connect(self, host: str, port: int) -> Any:
        user, _, token = self._config.token_id.partition("!")
        client = proxmoxer.ProxmoxAPI(
            host,
            port=port,
            user=user,
            token_name=token,
            token_value=self._config.token_secret.get_secret_value(),
            verify_ssl=False,  # the pin decides alone; a name or a CA would add nothing to it
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
        )
        session: requests.Session = client._store["session"]
        session.trust_env = False
        session.adapters.clear()  # without an adapter for http:// no redirect can carry the token off TLS
        session.mount("https://", _PinnedAdapter(self._config.fingerprint, self._context))
        return client

    @contextmanager
    def _foreign(self, method: str, path: str) -> Iterator[None]:
        """Raises TrustError, UnreachableError, PreflightError (401, 403) or RefusedError instead of theirs."""
        try:
            yield
        except proxmoxer.ResourceException as why:
            raise self._refusal(method, path, why) from None
        except requests.exceptions.SSLError as why:
            raise self._distrust(str(why)) from None
        except requests.exceptions.Timeout:
            raise self._silence(method, path, f"no answer within {READ_TIMEOUT:.0f} s") from None
        except (requests.exceptions.TooManyRedirects, requests.exceptions.InvalidSchema):
            raise self._silence(method, path, "it redirects elsewhere, which Proxmox never does") from None
        except (requests.exceptions.RequestException, OSError) as why:
            raise self._silence(method, path, _reason(why)) from None
        except (KeyError, TypeError, ValueError):
            raise errors.RefusedError(
                f"{self._config.url} answered {method} {path} with JSON that has no data"
            ) from None

    def _silence(self, method: str, path: str, why: str) -> errors.UnreachableError:
        return errors.UnreachableError(
            f"Proxmox at {self._config.url} did not answer {method} {path}: {why}",
            fix="Check PROXMOX_URL, that the host is up, and that port 8006 can be reached from here.",
        )

    def _distrust(self, text: str) -> errors.FoError:
        seen = re.search(r'got "([0-9a-fA-F:]+)"', text)
        if not seen:
            return self._silence("", "the TLS handshake", _shorten(text))
        return errors.TrustError(
            f"Proxmox at {self._config.url} shows a certificate that is not the pinned one: expected SHA-256 "
            f"{self._config.fingerprint}, seen {seen[1].replace(':', '').lower()}. The token was not sent.",
            fix="If the certificate was renewed on purpose, read its fingerprint on the Proxmox host itself with "
            "`openssl x509 -in /etc/pve/local/pve-ssl.pem -noout -fingerprint -sha256` (or pveproxy-ssl.pem, where "
            "there is one) and set PROXMOX_FINGERPRINT to it.",
        )

    def _refusal(self, method: str, path: str, why: Any) -> errors.FoError:
        status, text = int(why.status_code), str(why.content).strip()
        if status in _GATEWAY:
            return self._silence(method, path, f"{status} {text}".strip())
        if status == 401:
            return errors.PreflightError(
                f"Proxmox at {self._config.url} does not accept the token: {text}",
                fix="Check PROXMOX_TOKEN_ID (user@realm!name) and PROXMOX_TOKEN_SECRET; "
                "`pveum user token list <user@realm>` on the Proxmox host shows what exists.",
            )
        if status == 403:
            return self._forbidden(method, path, text)
        fields = why.errors if isinstance(why.errors, dict) else {}
        evidence = tuple(f"{name}: {' '.join(str(said).split())}" for name, said in sorted(fields.items()))
        return errors.RefusedError(
            f"Proxmox refused {method} {path}: {text or status}" + (f" ({'; '.join(evidence)})" if evidence else ""),
            status=status,
            evidence=evidence,
        )

    def _forbidden(self, method: str, path: str, text: str) -> errors.PreflightError:
        named = re.search(r"\((/[^,]*), ([^)]+)\)", text)
        acl_path, privileges = (named[1], named[2]) if named else ("/vms", "VM.Allocate")
        return errors.PreflightError(
            f"the Proxmox token lacks a privilege for {method} {path}: {privileges} on {acl_path}",
            fix="On the Proxmox host: "
            + grant_line(self._config.token_id, acl_path, privileges.split("|")[:1], "fo-extra"),
            evidence=(text,),
        )


def grant_line(token_id: str, path: str, privileges: list[str], role: str) -> str:
    """The shell line for the Proxmox host that grants ``privileges`` on ``path`` to the token and to its user.

    Both are named because a token with separated privileges has only what its user has too (pve-access-control).
    """
    user = token_id.partition("!")[0]
    privs = ",".join(sorted(privileges))
    return (
        f"pveum role add {role} --privs '{privs}' && "
        f"pveum acl modify {path} --users '{user}' --tokens '{token_id}' --roles {role}"
    )


def _on_the_wire(value: Any) -> Any:
    """Booleans travel as 0 and 1: ``True`` fails Proxmox's type check."""
    return int(value) if isinstance(value, bool) else value


def _reason(why: BaseException) -> str:
    """The innermost cause in a few words: "Connection refused" rather than three wrapped representations."""
    text = str(why)
    for known in ("Connection refused", "No route to host", "Network is unreachable", "Name or service not known",
                  "Remote end closed connection", "Connection reset by peer", "timed out"):  # fmt: skip
        if known in text:
            return known
    return _shorten(text)


def _shorten(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "…"
