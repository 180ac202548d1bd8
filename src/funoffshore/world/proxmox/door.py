"""The wire to the Proxmox API: pinned TLS, token, and the one map from foreign exceptions to ours."""

from __future__ import annotations

import io
import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import proxmoxer
import requests
import urllib3
from requests.adapters import HTTPAdapter

from funoffshore import errors
from funoffshore.clock import Clock
from funoffshore.config import model
from funoffshore.world.proxmox import answers, refusals, requirements, shapes
from funoffshore.world.routes import Routes

T = TypeVar("T")
CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 35.0
"""Seconds; pveproxy itself gives up on a busy pvedaemon after 30 s with 596 (pve-http-server AnyEvent.pm)."""
READ_ATTEMPTS = 3
LOCK_PAUSES = (2.0, 4.0, 8.0, 12.0)
LOCK_PATIENCE = 60.0
"""Seconds after which a write that Proxmox had no lock for is not sent again; each attempt waits 10 s there."""

for _name in ("proxmoxer", "proxmoxer.core", "proxmoxer.backends", "proxmoxer.backends.https"):
    # proxmoxer logs request bodies at INFO and answers at DEBUG.
    logging.getLogger(_name).disabled = True


class _PinnedAdapter(HTTPAdapter):
    """Accepts exactly one certificate. urllib3 compares it when the handshake ends, before a byte of HTTP is sent."""

    def __init__(self, fingerprint: str, context: ssl.SSLContext) -> None:
        self._pinned: dict[str, Any] = {"assert_fingerprint": fingerprint, "ssl_context": context}
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **(kwargs | self._pinned))


class _NamedBytes(io.BytesIO):
    """Bytes that proxmoxer sends as a file of that name."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


@dataclass(frozen=True, slots=True)
class File:
    """A file to be uploaded."""

    name: str
    content: bytes


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
        self.url = config.url
        self._config = config
        self._routes = routes
        self._clock = clock
        self._context = _context()
        self._local = threading.local()
        self._release: shapes.Version | None = None
        self._asking = threading.Lock()
        self._counting = threading.Lock()
        self.calls = 0
        self.quickest = float("inf")
        """Seconds that the fastest write so far took. A real one forks a worker, 30 to 340 ms (recorded from 8.4)."""
        """Requests sent so far, repeated ones included."""
        parts = urlsplit(config.url)
        self._host, self._port = parts.hostname or "", parts.port or 8006

    def version(self) -> shapes.Version:
        """The release of the API server; requests are checked against its table from now on."""
        self._release = self.read(answers.parse_version, "/version")
        return self._release

    def known_version(self) -> shapes.Version:
        """As ``version``, but asks only once."""
        with self._asking:
            return self._release or self.version()

    def read(self, parse: Callable[[Any], T], path: str, /, **params: Any) -> T:
        """What ``parse`` makes of the answer. Asks again, a few times, when nobody answers.

        Raises what ``_foreign`` lists; RefusedError, too, for an answer that ``parse`` cannot read.
        """
        for attempt in range(1, READ_ATTEMPTS):
            try:
                return self.read_once(parse, path, **params)
            except errors.UnreachableError:
                self._clock.sleep(attempt)
        return self.read_once(parse, path, **params)

    def read_once(self, parse: Callable[[Any], T], path: str, /, **params: Any) -> T:
        """As ``read``, for somebody who asks again anyhow."""
        self._check("GET", path, params)
        answer = self._call("GET", path, params)
        try:
            return parse(answer)
        except answers.MALFORMED as why:
            raise errors.RefusedError(
                f"{self.url} answered GET {path} with something unexpected: {_shorten(f'{type(why).__name__} {why}')}"
            ) from None

    def post(self, path: str, data: Mapping[str, Any]) -> Any:
        """Sent once: after UnreachableError the outcome is unknown and has to be looked up."""
        return self._write("POST", path, data)

    def put(self, path: str, data: Mapping[str, Any]) -> Any:
        """Sent once: after UnreachableError the outcome is unknown and has to be looked up."""
        return self._write("PUT", path, data)

    def delete(self, path: str, /, **params: Any) -> Any:
        """Sent once. Parameters travel in the query, as a body is answered with 501."""
        return self._write("DELETE", path, params)

    def _write(self, method: str, path: str, data: Mapping[str, Any]) -> Any:
        """One write. It is sent again only while Proxmox has not got the lock that it needs, and so did nothing."""
        self.known_version()
        self._check(method, path, data)
        begun = self._clock.monotonic()
        for pause in LOCK_PAUSES:
            try:
                return self._call(method, path, data)
            except errors.RefusedError as why:
                if not refusals.is_unchanged(why) or self._clock.monotonic() + pause - begun > LOCK_PATIENCE:
                    raise
            self._clock.sleep(pause)
        return self._call(method, path, data)

    def _check(self, method: str, path: str, data: Mapping[str, Any]) -> None:
        """Refuses what the connected release would refuse, before it is sent."""
        if self._release is None:
            return
        wire = {name: value.name if isinstance(value, File) else _on_the_wire(value) for name, value in data.items()}
        requirements.check(self._release, method, path, {k: v for k, v in wire.items() if v is not None})

    def _call(self, method: str, path: str, data: Mapping[str, Any]) -> Any:
        wire = {name: _on_the_wire(value) for name, value in data.items()}
        with self._counting:
            self.calls += 1
        with self._foreign(method, path):
            call: Callable[..., Any] = getattr(self._client()(path.strip("/")), method.lower())
            begun = self._clock.monotonic()
            answer = call(**wire)
        if method != "GET":
            self.quickest = min(self.quickest, self._clock.monotonic() - begun)
        if isinstance(answer, dict) and isinstance(answer.get("errors"), bytes):
            raise errors.RefusedError(
                f"{self.url} answered {method} {path} with something that is not the Proxmox API's JSON",
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
        session.hooks["response"] = [_inspect]
        session.adapters.clear()  # without an adapter for http:// nothing can carry the token off TLS
        session.mount("https://", _PinnedAdapter(self._config.fingerprint, self._context))
        return client

    @contextmanager
    def _foreign(self, method: str, path: str) -> Iterator[None]:
        """Raises TrustError, UnreachableError, PreflightError (401, 403) or RefusedError instead of theirs."""
        asked = refusals.Context(self.url, self._config.token_id, method, path)
        try:
            yield
        except refusals.AnswerError as why:
            raise refusals.refusal(asked, why) from None
        except requests.exceptions.SSLError as why:
            raise self._distrust(asked, str(why)) from None
        except requests.exceptions.ConnectTimeout:
            raise refusals.silence(asked, f"no connection within {CONNECT_TIMEOUT:.0f} s") from None
        except requests.exceptions.Timeout:
            raise refusals.silence(asked, f"no answer within {READ_TIMEOUT:.0f} s") from None
        except requests.exceptions.TooManyRedirects:
            raise refusals.silence(asked, "it redirects elsewhere, which Proxmox never does") from None
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError) as why:
            raise refusals.silence(asked, _reason(why)) from None
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
            raise errors.RefusedError(f"{self.url} answered {method} {path} with JSON that has no data") from None

    def _distrust(self, asked: refusals.Context, text: str) -> errors.FoError:
        seen = re.search(r'got "([0-9a-fA-F:]+)"', text)
        if not seen:
            return refusals.silence(asked, f"the TLS handshake failed: {_shorten(text)}")
        return errors.TrustError(
            f"Proxmox at {self.url} shows a certificate that is not the pinned one: expected SHA-256 "
            f"{self._config.fingerprint}, seen {seen[1].replace(':', '').lower()}. The token was not sent.",
            fix="If the certificate was renewed on purpose, read its fingerprint on the Proxmox host itself with "
            "`openssl x509 -in /etc/pve/local/pve-ssl.pem -noout -fingerprint -sha256` (or pveproxy-ssl.pem, where "
            "there is one) and set PROXMOX_FINGERPRINT to it.",
        )


def _inspect(response: requests.Response, *_: Any, **__: Any) -> None:
    """Looks at every answer before requests or proxmoxer do: the one would follow a redirect, the other take it for
    an answer without data, and lose all of a refusal but the first line of its reason phrase."""
    if 300 <= response.status_code < 400:
        response.close()
        raise requests.exceptions.TooManyRedirects
    if response.status_code < 400:
        return
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    told = body if isinstance(body, dict) else {}
    message, fields = told.get("message"), told.get("errors")
    text = message if isinstance(message, str) and message.strip() else _decoded(response.reason or "")
    raise refusals.AnswerError(response.status_code, text.strip(), fields if isinstance(fields, dict) else {})


def _decoded(reason: str) -> str:
    """A reason phrase is read as Latin-1, and Proxmox writes UTF-8."""
    try:
        return reason.encode("latin-1").decode()
    except UnicodeError:
        return reason


def _on_the_wire(value: Any) -> Any:
    """Booleans travel as 0 and 1: ``True`` fails Proxmox's type check. A file is read from its beginning."""
    if isinstance(value, File):
        return _NamedBytes(value.name, value.content)
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
