"""What a server's port 6443 answers besides the Kubernetes API. Statuses and bodies recorded from a real run."""

from __future__ import annotations

import base64
import ipaddress
import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from funoffshore.lab.k3s import apiserver
from funoffshore.lab.kube.api import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from funoffshore.lab.k3s.server import Server

_FOR_NODES = ("/v1-k3s/readyz", "/v1-k3s/config", "/v1-k3s/apiservers", "/v1-k3s/server-ca.crt")
_FOR_SERVERS = ("/v1-k3s/server-bootstrap", "/v1-k3s/token")
_HEALTH = ("/readyz", "/livez", "/healthz")
_FAILED = b"""[+]ping ok
[+]log ok
[-]etcd failed: reason withheld
[-]etcd-readiness failed: reason withheld
readyz check failed
"""


def answerer(server: Server) -> Callable[[HttpRequest], HttpResponse | None]:
    """The function that sees every request to ``server`` first."""

    def answer(request: HttpRequest) -> HttpResponse | None:
        path = request.path.partition("?")[0]
        if server.stage == "starting":
            return status(503, "ServiceUnavailable", "starting")
        if path == "/ping":
            return HttpResponse(200, b"pong")
        if path == "/cacerts":
            return HttpResponse(200, server.plane.ca)
        if path.startswith("/static/"):
            return HttpResponse(200, b"<pre>\n</pre>\n", "text/html; charset=utf-8")
        if path.startswith("/v1-k3s/"):
            return _supervise(server, path, request)
        return _guard(server, path, request)

    return answer


def _supervise(server: Server, path: str, request: HttpRequest) -> HttpResponse | None:
    role = _role(server, request)
    if role == "unauthorized":
        return status(401, "Unauthorized", "not authorized")
    wanted = "node" if path in _FOR_NODES else "server" if path in _FOR_SERVERS else ""
    if not wanted:
        return status(404, "NotFound", "404 page not found") if role else status(403, "Forbidden", "forbidden")
    if role != wanted:
        return status(403, "Forbidden", "forbidden")
    if path == "/v1-k3s/readyz":
        if server.stage != "ready":
            return status(503, "ServiceUnavailable", "runtime core not ready")
        return HttpResponse(200, b"ok")
    if path == "/v1-k3s/config":
        return HttpResponse(200, json.dumps(control_config(server)).encode(), "application/json")
    if path == "/v1-k3s/apiservers":
        return HttpResponse(200, json.dumps(server.plane.addresses()).encode(), "application/json")
    if path == "/v1-k3s/server-ca.crt":
        return HttpResponse(200, server.plane.ca)
    if path == "/v1-k3s/token":
        return rotate_token(server, request)
    return HttpResponse(200, json.dumps(bootstrap_data(server)).encode(), "application/json")


def rotate_token(server: Server, request: HttpRequest) -> HttpResponse:
    """``PUT {"newToken": "…"}``; answers recorded in K3s' source, ``pkg/server/handlers/token.go``."""
    if request.method != "PUT":
        return status(405, "MethodNotAllowed", "method not allowed")
    try:
        asked = json.loads(request.body or b"{}")
        fresh = asked["newToken"] if isinstance(asked, dict) else None
    except ValueError as why:
        return status(400, "BadRequest", f"invalid character in request: {why}")
    except KeyError:
        fresh = None
    if not isinstance(fresh, str):
        return status(400, "BadRequest", "json: cannot unmarshal into Go value of type handlers.TokenRotateRequest")
    server.rotate(fresh or secrets.token_hex(16))
    return HttpResponse(200, content_type="")


def control_config(server: Server) -> dict[str, object]:
    """The settings that joiners compare."""
    kept = server.plane.settings
    return {
        "ClusterIPRange": _ranges(kept["cluster-cidr"])[0],
        "ClusterIPRanges": _ranges(kept["cluster-cidr"]),
        "ServiceIPRange": _ranges(kept["service-cidr"])[0],
        "ServiceIPRanges": _ranges(kept["service-cidr"]),
        "ClusterDNS": kept["cluster-dns"],
        "ClusterDomain": kept["cluster-domain"],
        "FlannelBackend": kept["flannel-backend"],
        "EgressSelectorMode": kept["egress-selector-mode"],
        "DisableNPC": kept["disable-network-policy"] == "true",
        "DisableCCM": kept["disable-cloud-controller"] == "true",
        "DisableHelmController": kept["disable-helm-controller"] == "true",
        "DisableServiceLB": kept["disable-servicelb"] == "true",
        "EmbeddedRegistry": kept.get("embedded-registry") == "true",
        "FlannelIPv6Masq": kept.get("flannel-ipv6-masq") == "true",
        "EncryptSecrets": kept["secrets-encryption"] == "true",
    }


def _ranges(cidrs: str) -> list[dict[str, str]]:
    """As Go's JSON has a net.IPNet: the mask is base64."""
    networks = [ipaddress.ip_network(cidr.strip(), strict=False) for cidr in cidrs.split(",")]
    return [
        {"IP": str(network.network_address), "Mask": base64.b64encode(network.netmask.packed).decode()}
        for network in networks
    ]


def bootstrap_data(server: Server) -> dict[str, str]:
    """All keys of the cluster, base64: what a server needs to join."""
    plane = server.plane
    names = {
        "ServerCA": "server-ca", "ClientCA": "client-ca", "RequestHeaderCA": "request-header-ca",
        "ETCDServerCA": "etcd/server-ca", "ETCDPeerCA": "etcd/peer-ca",
    }  # fmt: skip
    found = {"PasswdFile": plane.passwords().encode()}
    for name, authority in names.items():
        pair = plane.authority(authority)
        found[name], found[name + "Key"] = pair.certificate, pair.key
    return {name: base64.b64encode(content).decode() for name, content in found.items()}


def _guard(server: Server, path: str, request: HttpRequest) -> HttpResponse | None:
    """Lets a request pass to the Kubernetes API, or refuses it as an API server without quorum or core would."""
    if server.stage != "ready":
        return status(503, "ServiceUnavailable", "apiserver not ready")
    if not request.peer and not request.headers.get("authorization", "").startswith("Bearer "):
        return status(401, "Unauthorized", "Unauthorized")
    if path.startswith(_HEALTH):
        if server.plane.quorate():
            return None
        return HttpResponse(500, _FAILED)
    if path != "/version" and not server.plane.quorate():
        return status(500, "InternalError", "etcdserver: request timed out")
    apiserver.audit(server, request)
    return apiserver.refusal(server, request)


def _role(server: Server, request: HttpRequest) -> str:
    header = request.headers.get("authorization", "")
    if request.peer or not header:
        return "admin" if request.peer else ""
    scheme, _, value = header.partition(" ")
    if scheme == "Bearer":
        user, _, password = value.partition(".")
    else:
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:
            return "unauthorized"
    return server.role_of(user, password) or "unauthorized"


def status(code: int, reason: str, message: str) -> HttpResponse:
    """A metav1.Status as JSON."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return HttpResponse(code, json.dumps(body).encode(), "application/json")
