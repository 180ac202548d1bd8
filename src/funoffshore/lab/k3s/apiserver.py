"""What a server's own settings add to its API: the audit log, and Pod Security where it is configured.

Events and rules: Kubernetes ``audit.k8s.io/v1``; levels, checks and words: ``pod-security-admission/policy``. Only what
comes over HTTPS is judged; the lab's own controllers are not.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from funoffshore.lab.k3s import nodes
from funoffshore.lab.kube.api import HttpRequest, HttpResponse, Object

if TYPE_CHECKING:
    from funoffshore.lab.k3s.server import Server

_LEVELS = ("None", "Metadata", "Request", "RequestResponse")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}
_DEFAULT_CAPABILITIES = """
AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT
"""
_ENFORCE = "pod-security.kubernetes.io/enforce"


def argument(server: Server, name: str) -> str:
    """The value of a ``kube-apiserver-arg``."""
    words = (word.lstrip("-").partition("=") for word in server.settings.many("kube-apiserver-arg"))
    return next((value for key, _, value in words if key == name), "")


def _document(server: Server, path: str) -> dict[str, Any]:
    """A YAML file as it was when the server began to run."""
    kept: dict[str, dict[str, Any]] = server.__dict__.setdefault("apiserver_files", {})
    if path not in kept:
        real = server.machine.path(path)
        kept[path] = (yaml.safe_load(real.read_text()) if real.is_file() else None) or {}
    return kept[path]


def target(request: HttpRequest) -> dict[str, str]:
    """What an ``objectRef`` says: resource, subresource, namespace, name, apiGroup, apiVersion."""
    parts = request.path.partition("?")[0].strip("/").split("/")
    if parts[:1] == ["api"] and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return {}
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    names = ("resource", "name", "subresource")
    found = {**dict(zip(names, rest, strict=False)), "namespace": namespace, "apiGroup": group, "apiVersion": version}
    if request.method == "POST" and not found.get("name"):
        found["name"] = str((_body(request).get("metadata") or {}).get("name", ""))
    return {key: value for key, value in found.items() if value}


def _body(request: HttpRequest) -> Object:
    try:
        body = json.loads(request.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _verb(request: HttpRequest, ref: dict[str, str]) -> str:
    if request.method == "DELETE":
        return "delete" if ref.get("name") else "deletecollection"
    if request.method in _VERBS:
        return _VERBS[request.method]
    if "watch=true" in request.path or "watch=1" in request.path:
        return "watch"
    return "get" if ref.get("name") or not ref else "list"


def audit(server: Server, request: HttpRequest) -> None:
    """One line in the audit log where there is one and the policy wants it."""
    log, policy = argument(server, "audit-log-path"), argument(server, "audit-policy-file")
    if not (log and policy):
        return
    ref = target(request)
    verb, user = _verb(request, ref), request.peer or "system:serviceaccount"
    rules = _document(server, policy).get("rules") or []
    level = next((str(rule["level"]) for rule in rules if _fits(rule, ref, verb, user)), "None")
    if level == "None" or level not in _LEVELS:
        return
    now = nodes.stamp(server.kit.clock.now())
    event: Object = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level, "auditID": str(uuid.uuid4()),
        "stage": "ResponseComplete", "requestURI": request.path, "verb": verb,
        "user": {"username": user, "groups": ["system:authenticated"]}, "sourceIPs": [server.address],
        "userAgent": request.headers.get("user-agent", ""), "objectRef": ref, "requestReceivedTimestamp": now,
        "stageTimestamp": now,
    }  # fmt: skip
    if level in _LEVELS[2:] and request.body:
        event["requestObject"] = _body(request)
    if log == "-":
        server.machine.journal(server.unit, json.dumps(event))
        return
    real = server.machine.path(log)
    real.parent.mkdir(parents=True, exist_ok=True)
    with real.open("a") as stream:
        stream.write(json.dumps(event) + "\n")
    real.chmod(0o600)


def _fits(rule: Object, ref: dict[str, str], verb: str, user: str) -> bool:
    """Whether a rule of the policy is about the request; the first that fits decides."""
    if rule.get("verbs") and verb not in rule["verbs"]:
        return False
    if rule.get("users") and user not in rule["users"]:
        return False
    if rule.get("namespaces") and ref.get("namespace", "") not in rule["namespaces"]:
        return False
    if rule.get("nonResourceURLs"):
        return not ref
    groups = rule.get("resources") or []
    return not groups or any(_is_of(group, ref) for group in groups)


def _is_of(group: Object, ref: dict[str, str]) -> bool:
    if not ref or group.get("group", "") != ref.get("apiGroup", ""):
        return False
    names = group.get("resources") or []
    whole = "/".join(filter(None, (ref.get("resource", ""), ref.get("subresource", ""))))
    return not names or bool({whole, "*", f"{ref.get('resource')}/*"} & set(names))


def refusal(server: Server, request: HttpRequest) -> HttpResponse | None:
    """403 for a pod that Pod Security forbids in its namespace; None for anything else."""
    path = argument(server, "admission-control-config-file")
    ref = target(request) if path and request.method == "POST" else {}
    if ref.get("resource") != "pods" or ref.get("subresource") or ref.get("apiGroup"):
        return None
    plugins = {p.get("name"): p.get("configuration") or {} for p in _document(server, path).get("plugins") or []}
    told = plugins.get("PodSecurity") or {}
    namespace = ref.get("namespace", "")
    if namespace in ((told.get("exemptions") or {}).get("namespaces") or []):
        return None
    defaults = told.get("defaults") or {}
    labels = ((server.plane.kube.get("v1/Namespace", "", namespace) or {}).get("metadata") or {}).get("labels") or {}
    level = str(labels.get(_ENFORCE) or defaults.get("enforce") or "privileged")
    version = str(labels.get(f"{_ENFORCE}-version") or defaults.get("enforce-version") or "latest")
    wrong = list(violations(_body(request).get("spec") or {}, level))
    if not wrong:
        return None
    name = ref.get("name", "")
    text = f'pods "{name}" is forbidden: violates PodSecurity "{level}:{version}": {", ".join(wrong)}'
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": text,
        "reason": "Forbidden", "details": {"name": name, "kind": "pods"}, "code": 403,
    }  # fmt: skip
    return HttpResponse(403, json.dumps(body).encode(), "application/json")


def violations(spec: Object, level: str) -> Iterator[str]:
    """What ``baseline`` or ``restricted`` has against a pod; nothing for ``privileged``."""
    if level not in ("baseline", "restricted"):
        return
    containers = [c for key in ("initContainers", "containers") for c in spec.get(key) or []]
    yield from _baseline(spec, containers)
    if level == "restricted":
        yield from _restricted(spec, containers)


def _context(container: Object) -> Object:
    return container.get("securityContext") or {}


def _baseline(spec: Object, containers: list[Object]) -> Iterator[str]:
    spaces = [f"{key}=true" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    if spaces:
        yield f"host namespaces ({', '.join(spaces)})"
    for container in containers:
        who = f'container "{container.get("name", "")}"'
        if _context(container).get("privileged"):
            yield f"privileged ({who} must not set securityContext.privileged=true)"
        extra = set((_context(container).get("capabilities") or {}).get("add") or []) - set(
            _DEFAULT_CAPABILITIES.split()
        )
        if extra:
            listed = ", ".join(f'"{name}"' for name in sorted(extra))
            yield f"non-default capabilities ({who} must not include {listed} in securityContext.capabilities.add)"
        ports = [str(p["hostPort"]) for p in container.get("ports") or [] if p.get("hostPort")]
        if ports:
            yield f"hostPort ({who} uses hostPort {', '.join(ports)})"
    for volume in spec.get("volumes") or []:
        if "hostPath" in volume:
            yield f'hostPath volumes (volume "{volume.get("name", "")}")'


def _restricted(spec: Object, containers: list[Object]) -> Iterator[str]:
    pod = spec.get("securityContext") or {}
    for container in containers:
        mine, who = _context(container), f'container "{container.get("name", "")}"'
        if mine.get("allowPrivilegeEscalation") is not False:
            text = "must set securityContext.allowPrivilegeEscalation=false"
            yield f"allowPrivilegeEscalation != false ({who} {text})"
        if "ALL" not in ((mine.get("capabilities") or {}).get("drop") or []):
            yield f'unrestricted capabilities ({who} must set securityContext.capabilities.drop=["ALL"])'
        if not mine.get("runAsNonRoot", pod.get("runAsNonRoot")):
            yield f"runAsNonRoot != true (pod or {who} must set securityContext.runAsNonRoot=true)"
        profile = (mine.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            text = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
            yield f"seccompProfile (pod or {who} {text})"
