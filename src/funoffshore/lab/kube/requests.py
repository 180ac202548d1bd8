"""From an HTTP request to a verb on objects, and back to JSON."""

from __future__ import annotations

import json
import logging
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from funoffshore.lab.kube import answers, decode, discovery, openapi, reads, refusals, writes
from funoffshore.lab.kube.api import ApiError, HttpRequest, HttpResponse, Object
from funoffshore.lab.kube.kinds import Kind

if TYPE_CHECKING:
    from funoffshore.lab.kube.cluster import KubeCluster

_log = logging.getLogger(__name__)
_HEALTH = ("/readyz", "/livez", "/healthz")
Answer = HttpResponse | Iterator[bytes]


class Raw(Protocol):
    """What a connection received."""

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Door(Protocol):
    """The listener behind the connection."""

    @property
    def closed(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Call:
    """A request for objects, taken apart."""

    cluster: KubeCluster
    kind: Kind
    namespace: str | None
    """None: all namespaces."""
    name: str
    """Empty: the collection."""
    sub: str
    """Subresource, or empty."""
    method: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    door: Door
    rule: decode.Rule
    """What becomes of fields that nobody knows."""

    @property
    def manager(self) -> str:
        """Who changes fields: ``fieldManager``, else the first word of the User-Agent."""
        agent = self.headers.get("user-agent", "unknown").split("/")[0]
        return self.query.get("fieldManager") or agent or "unknown"

    @property
    def dry(self) -> bool:
        return self.query.get("dryRun", "") == "All"

    @property
    def home(self) -> str:
        """Namespace of one object: empty for cluster-scoped kinds."""
        return self.namespace or ""


def answer(
    cluster: KubeCluster, extra: Callable[[HttpRequest], HttpResponse | None], raw: Raw, peer: str, door: Door
) -> Answer:
    """Never raises: what goes wrong becomes a Status."""
    try:
        path, _, query_text = raw.target.partition("?")
        path = urllib.parse.unquote(path)
        special = extra(HttpRequest(raw.method, path, raw.headers, peer, raw.body))
        if special is not None:
            return special
        who = peer or _token_user(cluster, raw.headers)
        if not who:
            return answers.as_json(401, answers.failure(401, "Unauthorized"))
        query = {k: v[-1] for k, v in urllib.parse.parse_qs(query_text, keep_blank_values=True).items()}
        return _route(cluster, raw, path, query, door, who)
    except ApiError as why:
        return answers.as_json(why.code, answers.of_error(why))
    except Exception:
        _log.exception("%s %s failed", raw.method, raw.target)
        return answers.as_json(500, answers.failure(500, "an error on the server has prevented the request"))


def _token_user(cluster: KubeCluster, headers: dict[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return cluster.user_of(token.strip()) if scheme.lower() == "bearer" else None


def _route(cluster: KubeCluster, raw: Raw, path: str, query: dict[str, str], door: Door, peer: str) -> Answer:
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) > 2 and parts[1] == "v1":
        return _objects(cluster, raw, "", "v1", parts[2:], query, door, peer)
    if parts[:1] == ["apis"] and len(parts) > 3:
        return _objects(cluster, raw, parts[1], parts[2], parts[3:], query, door, peer)
    if raw.method not in ("GET", "HEAD"):
        raise refusals.no_method()
    return _about(cluster, path, parts, query, raw.headers)


def _about(
    cluster: KubeCluster, path: str, parts: list[str], query: dict[str, str], headers: dict[str, str]
) -> HttpResponse:
    if path in _HEALTH or (len(parts) == 2 and f"/{parts[0]}" in _HEALTH):
        return HttpResponse(200, discovery.health(f"/{parts[0]}", verbose="verbose" in query).encode())
    if parts in (["api"], ["apis"]) and discovery.AGGREGATED in headers.get("accept", ""):
        whole = discovery.aggregated(cluster.core.kinds, core=parts == ["api"])
        return replace(answers.as_json(200, whole), content_type=discovery.AGGREGATED)
    if parts == ["openapi", "v2"] and openapi.wants_protobuf(headers):
        return HttpResponse(200, openapi.old_protobuf(cluster.version), openapi.OLD_PROTOBUF)
    found = _document(cluster, parts)
    if found is None:
        return HttpResponse(404, b"404 page not found\n", "text/plain; charset=utf-8")
    return answers.as_json(200, found)


def _document(cluster: KubeCluster, parts: list[str]) -> Object | None:
    kinds = cluster.core.kinds
    whole: dict[str, Callable[[], Object]] = {
        "": lambda: {"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/readyz", "/version"]},
        "version": lambda: discovery.version(cluster.version),
        "api": lambda: {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "apis": lambda: discovery.groups(kinds),
        "openapi/v2": lambda: openapi.old(cluster.version),
        "openapi/v3": lambda: openapi.index(kinds),
    }
    if make := whole.get("/".join(parts)):
        return make()
    if parts == ["api", "v1"]:
        return discovery.resources(kinds, "", "v1")
    if parts[:2] == ["openapi", "v3"] and len(parts) > 3:
        return openapi.document(kinds, parts[2:])
    if parts[0] == "apis" and len(parts) == 2:
        return discovery.group(kinds, parts[1])
    if parts[0] == "apis" and len(parts) == 3:
        return discovery.resources(kinds, parts[1], parts[2])
    return None


def _objects(
    cluster: KubeCluster,
    raw: Raw,
    group: str,
    version: str,
    parts: list[str],
    query: dict[str, str],
    door: Door,
    peer: str,
) -> Answer:
    virtual = writes.review(group, version, parts, raw, peer)
    if virtual is not None:
        return answers.as_json(201, virtual)
    namespace: str | None = None
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
        namespace, parts = parts[1], parts[2:]
    kind = cluster.core.kinds.at(group, version, parts[0])
    if kind is None or len(parts) > 3 or (namespace is not None and not kind.namespaced):
        if group and not any(k.group == group for k in cluster.core.kinds.all()):
            return HttpResponse(404, b"404 page not found\n", "text/plain; charset=utf-8")
        raise refusals.no_resource()
    name, sub = [*parts[1:], "", ""][:2]
    rule = decode.Rule(query.get("fieldValidation") or "Warn")
    call = Call(cluster, kind, namespace, name, sub, raw.method, query, raw.headers, raw.body, door, rule)
    found = _perform(call)
    if isinstance(found, HttpResponse) and rule.warnings:
        quoted = [f"299 - {json.dumps(text)}" for text in dict.fromkeys(rule.warnings)]
        found = replace(found, headers={**found.headers, "Warning": ", ".join(quoted)})
    return found


_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions", "DELETE": "DeleteOptions"}


def _check_options(call: Call) -> None:
    """Raises ApiError 422 for parameters with values that they cannot have."""
    kind = _OPTIONS.get(call.method)
    if kind is None:
        return
    if call.query.get("dryRun", "All") not in ("All", ""):
        raise refusals.option(kind, "dryRun", f'Unsupported value: ["{call.query["dryRun"]}"]: supported values: "All"')
    if call.rule.mode not in ("Ignore", "Strict", "Warn"):
        known = '"", "Ignore", "Strict", "Warn"'
        raise refusals.option(
            kind, "fieldValidation", f'Unsupported value: "{call.rule.mode}": supported values: {known}'
        )


def _perform(call: Call) -> Answer:
    if call.kind.namespaced and call.name and call.namespace is None:
        raise refusals.no_resource()
    _check_options(call)
    if call.method in ("GET", "HEAD"):
        return reads.read(call)
    answer_ = writes.write(call)
    if not call.dry and answer_.status < 300:
        sub = f"/{call.sub}" if call.sub else ""
        where = "/".join(filter(None, (call.namespace, call.name)))
        call.cluster.kit.ledger.add("kube", f"{call.method} {call.kind.key}{sub} {where}".rstrip())
    return answer_
