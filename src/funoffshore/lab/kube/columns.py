"""What a v1.36 API server prints of each kind, and what the printer columns of CRDs say."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from funoffshore.lab.kube.api import Object

_NONE, _UNSET = "<none>", "<unset>"
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``read`` gives the cell, from the object and the time (Unix)."""

    title: str
    read: Callable[[Object, float], Any]
    type: str = "string"
    format: str = ""
    wide: bool = False
    """Shown only when more is asked for."""
    age: bool = False
    """The cell is a time, shown as an age."""


def _born(obj: Object, _: float) -> Any:
    return obj["metadata"].get("creationTimestamp")


AGE = Column("Age", _born, age=True)
_CREATED = Column("Created At", _born, "date")


def _spec(obj: Object, key: str, default: Any = None) -> Any:
    value = (obj.get("spec") or {}).get(key)
    return default if value is None else value


def _status(obj: Object, key: str, default: Any = 0) -> Any:
    value = (obj.get("status") or {}).get(key)
    return default if value is None else value


def _condition(obj: Object, type_: str) -> Object:
    found = [c for c in _status(obj, "conditions", []) if c.get("type") == type_]
    return found[0] if found else {}


def _pairs(labels: Any) -> str:
    """A selector as text."""
    selector = labels.get("matchLabels") if isinstance(labels, dict) and "matchLabels" in labels else labels
    if not isinstance(selector, dict) or not selector:
        return _NONE
    return ",".join(f"{k}={v}" for k, v in sorted(selector.items()))


def _containers(obj: Object, key: str) -> str:
    spec = ((_spec(obj, "jobTemplate") or obj).get("spec") or {}).get("template") or {}
    return ",".join(str(c.get(key, "")) for c in (spec.get("spec") or {}).get("containers") or [])


_RUNS = [
    Column("Containers", lambda o, _: _containers(o, "name"), wide=True),
    Column("Images", lambda o, _: _containers(o, "image"), wide=True),
]
_SELECTOR = Column("Selector", lambda o, _: _pairs(_spec(o, "selector")), wide=True)


def _counted(title: str, key: str, type_: str = "integer") -> Column:
    return Column(title, lambda o, _: _status(o, key), type_)


def _specified(title: str, key: str, default: Any = "", type_: str = "string", *, wide: bool = False) -> Column:
    return Column(title, lambda o, _: _spec(o, key, default), type_, wide=wide)


def _replicas(obj: Object, _: float) -> str:
    return f"{_status(obj, 'readyReplicas')}/{_spec(obj, 'replicas', 1)}"


# Pods and nodes


def _pod_ready(obj: Object, _: float) -> str:
    shown = _status(obj, "containerStatuses", [])
    return f"{sum(bool(c.get('ready')) for c in shown)}/{len(_spec(obj, 'containers', []))}"


def _pod_status(obj: Object, _: float) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for container in _status(obj, "containerStatuses", []):
        for state in (container.get("state") or {}).values():
            if isinstance(state, dict) and state.get("reason"):
                return str(state["reason"])
    return str(_status(obj, "reason", "") or _status(obj, "phase", "Pending"))


def _restarts(obj: Object, _: float) -> str:
    return str(sum(int(c.get("restartCount", 0)) for c in _status(obj, "containerStatuses", [])))


def _roles(obj: Object, _: float) -> str:
    mark = "node-role.kubernetes.io/"
    roles = [k.removeprefix(mark) for k in obj["metadata"].get("labels") or {} if k.startswith(mark)]
    return ",".join(sorted(roles)) or _NONE


def _node_status(obj: Object, _: float) -> str:
    ready = _condition(obj, "Ready")
    state = {"True": "Ready"}.get(ready.get("status", ""), "NotReady") if ready else "Unknown"
    return state + (",SchedulingDisabled" if _spec(obj, "unschedulable") else "")


def _address(sort: str) -> Callable[[Object, float], str]:
    def read(obj: Object, _: float) -> str:
        return next((a["address"] for a in _status(obj, "addresses", []) if a.get("type") == sort), _NONE)

    return read


def _info(title: str, key: str, default: str = "<unknown>", *, wide: bool = True) -> Column:
    def read(obj: Object, _: float) -> str:
        return str((_status(obj, "nodeInfo", {}) or {}).get(key) or default)

    return Column(title, read, wide=wide)


# Network and storage


def _external(obj: Object, _: float) -> str:
    kind = _spec(obj, "type")
    if kind == "ExternalName":
        return str(_spec(obj, "externalName", ""))
    if kind != "LoadBalancer":
        return ",".join(_spec(obj, "externalIPs", [])) or _NONE
    given = (_status(obj, "loadBalancer", {}) or {}).get("ingress") or []
    return ",".join(str(i.get("ip") or i.get("hostname")) for i in given) or "<pending>"


def _ports(obj: Object, _: float) -> str:
    texts = []
    for port in _spec(obj, "ports", []):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(texts) or _NONE


def _hosts(obj: Object, _: float) -> str:
    return ",".join(rule.get("host") or "*" for rule in _spec(obj, "rules", [])) or "*"


def _ingress_address(obj: Object, _: float) -> str:
    given = (_status(obj, "loadBalancer", {}) or {}).get("ingress") or []
    return ",".join(str(i.get("ip") or i.get("hostname")) for i in given)


def _modes(modes: Any) -> str:
    return ",".join(_MODES.get(m, m) for m in modes or [])


def _volume_claim(obj: Object, _: float) -> str:
    ref = _spec(obj, "claimRef") or {}
    return f"{ref.get('namespace')}/{ref.get('name')}" if ref else ""


# Jobs and events


def _job_status(obj: Object, _: float) -> str:
    for type_ in ("Complete", "Failed", "Suspended"):
        if _condition(obj, type_).get("status") == "True":
            return type_
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else "Running"


def _job_duration(obj: Object, now: float) -> str:
    from funoffshore.lab.kube.tables import duration

    began, ended = _status(obj, "startTime", ""), _status(obj, "completionTime", "")
    if not began:
        return ""
    end = datetime.datetime.fromisoformat(ended).timestamp() if ended else now
    return duration(max(int(end - datetime.datetime.fromisoformat(began).timestamp()), 0))


def _event_object(obj: Object, _: float) -> str:
    involved = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


def _event_time(obj: Object, _: float) -> Any:
    return obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")


def _subjects(sort: str) -> Callable[[Object, float], str]:
    def read(obj: Object, _: float) -> str:
        found = [s for s in obj.get("subjects") or [] if s.get("kind") == sort]
        return ", ".join(f"{s['namespace']}/{s['name']}" if s.get("namespace") else s["name"] for s in found)

    return read


def _role(obj: Object, _: float) -> str:
    ref = obj.get("roleRef") or {}
    return f"{ref.get('kind')}/{ref.get('name')}"


def _amount(value: Any) -> str:
    return "N/A" if value is None else str(value)


_BINDING = [
    Column("Role", _role), AGE, Column("Users", _subjects("User"), wide=True),
    Column("Groups", _subjects("Group"), wide=True), Column("ServiceAccounts", _subjects("ServiceAccount"), wide=True),
]  # fmt: skip
_PHASE = Column("Status", lambda o, _: _status(o, "phase", ""))
_DATA = Column("Data", lambda o, _: len(o.get("data") or {}) + len(o.get("binaryData") or {}))
_CLASS = Column("StorageClass", lambda o, _: _spec(o, "storageClassName", ""))
_ATTRIBUTES = Column("VolumeAttributesClass", lambda o, _: _spec(o, "volumeAttributesClassName", _UNSET))
_ACCESS = Column("Access Modes", lambda o, _: _modes(_spec(o, "accessModes")))
_COLUMNS: dict[str, list[Column]] = {
    "Namespace": [_PHASE, AGE],
    "Node": [
        Column("Status", _node_status), Column("Roles", _roles), AGE,
        _info("Version", "kubeletVersion", "", wide=False), Column("Internal-IP", _address("InternalIP"), wide=True),
        Column("External-IP", _address("ExternalIP"), wide=True), _info("OS-Image", "osImage"),
        _info("Kernel-Version", "kernelVersion"), _info("Container-Runtime", "containerRuntimeVersion"),
    ],
    "Pod": [
        Column("Ready", _pod_ready), Column("Status", _pod_status), Column("Restarts", _restarts), AGE,
        Column("IP", lambda o, _: _status(o, "podIP", _NONE), wide=True),
        _specified("Node", "nodeName", _NONE, wide=True),
        Column("Nominated Node", lambda o, _: _status(o, "nominatedNodeName", _NONE), wide=True),
        Column("Readiness Gates", lambda o, _: _NONE, wide=True),
    ],
    "Service": [
        _specified("Type", "type"), _specified("Cluster-IP", "clusterIP", _NONE), Column("External-IP", _external),
        Column("Port(s)", _ports), AGE, _SELECTOR,
    ],
    "Secret": [Column("Type", lambda o, _: o.get("type", "")), _DATA, AGE],
    "ConfigMap": [_DATA, AGE],
    "PersistentVolumeClaim": [
        _PHASE, _specified("Volume", "volumeName"),
        Column("Capacity", lambda o, _: (_status(o, "capacity", {}) or {}).get("storage", "")),
        Column("Access Modes", lambda o, _: _modes(_status(o, "accessModes", []))), _CLASS, _ATTRIBUTES, AGE,
        _specified("VolumeMode", "volumeMode", wide=True),
    ],
    "PersistentVolume": [
        Column("Capacity", lambda o, _: (_spec(o, "capacity", {}) or {}).get("storage", "")), _ACCESS,
        _specified("Reclaim Policy", "persistentVolumeReclaimPolicy"), _PHASE, Column("Claim", _volume_claim), _CLASS,
        _ATTRIBUTES, Column("Reason", lambda o, _: _status(o, "reason", "")), AGE,
        _specified("VolumeMode", "volumeMode", wide=True),
    ],
    "Event": [
        Column("Last Seen", _event_time, age=True), Column("Type", lambda o, _: o.get("type", "")),
        Column("Reason", lambda o, _: o.get("reason", "")), Column("Object", _event_object),
        Column("Message", lambda o, _: str(o.get("message", "")).strip()),
        Column("Count", lambda o, _: o.get("count", 1), wide=True),
        Column("Name", lambda o, _: o["metadata"]["name"], format="name", wide=True),
    ],
    "Deployment.apps": [
        Column("Ready", _replicas), _counted("Up-to-date", "updatedReplicas", "string"),
        _counted("Available", "availableReplicas", "string"), AGE, *_RUNS, _SELECTOR,
    ],
    "ReplicaSet.apps": [
        _specified("Desired", "replicas", 0, "integer"), _counted("Current", "replicas"),
        _counted("Ready", "readyReplicas"), AGE, *_RUNS, _SELECTOR,
    ],
    "StatefulSet.apps": [Column("Ready", _replicas), AGE, *_RUNS],
    "DaemonSet.apps": [
        _counted("Desired", "desiredNumberScheduled"), _counted("Current", "currentNumberScheduled"),
        _counted("Ready", "numberReady"), _counted("Up-to-date", "updatedNumberScheduled"),
        _counted("Available", "numberAvailable"),
        Column("Node Selector", lambda o, _: _pairs((_spec(o, "template", {}).get("spec") or {}).get("nodeSelector"))),
        AGE, *_RUNS, _SELECTOR,
    ],
    "Job.batch": [
        Column("Status", _job_status),
        Column("Completions", lambda o, _: f"{_status(o, 'succeeded')}/{_spec(o, 'completions', 1)}"),
        Column("Duration", _job_duration), AGE, *_RUNS, _SELECTOR,
    ],
    "CronJob.batch": [
        _specified("Schedule", "schedule"), _specified("Timezone", "timeZone", _NONE),
        Column("Suspend", lambda o, _: str(bool(_spec(o, "suspend"))), "boolean"),
        Column("Active", lambda o, _: len(_status(o, "active", [])), "integer"),
        Column("Last Schedule", lambda o, _: _NONE), AGE, *_RUNS,
    ],
    "Ingress.networking.k8s.io": [
        _specified("Class", "ingressClassName", _NONE), Column("Hosts", _hosts), Column("Address", _ingress_address),
        Column("Ports", lambda o, _: "80, 443" if _spec(o, "tls") else "80"), AGE,
    ],
    "NetworkPolicy.networking.k8s.io": [Column("Pod-Selector", lambda o, _: _pairs(_spec(o, "podSelector"))), AGE],
    "Role.rbac.authorization.k8s.io": [_CREATED],
    "ClusterRole.rbac.authorization.k8s.io": [_CREATED],
    "RoleBinding.rbac.authorization.k8s.io": _BINDING,
    "ClusterRoleBinding.rbac.authorization.k8s.io": _BINDING,
    "CustomResourceDefinition.apiextensions.k8s.io": [_CREATED],
    "PodDisruptionBudget.policy": [
        Column("Min Available", lambda o, _: _amount(_spec(o, "minAvailable"))),
        Column("Max Unavailable", lambda o, _: _amount(_spec(o, "maxUnavailable"))),
        _counted("Allowed Disruptions", "disruptionsAllowed"), AGE,
    ],
    "StorageClass.storage.k8s.io": [
        Column("Provisioner", lambda o, _: o.get("provisioner", "")),
        Column("ReclaimPolicy", lambda o, _: o.get("reclaimPolicy", "Delete")),
        Column("VolumeBindingMode", lambda o, _: o.get("volumeBindingMode", "Immediate")),
        Column("AllowVolumeExpansion", lambda o, _: bool(o.get("allowVolumeExpansion"))), AGE,
    ],
    "Lease.coordination.k8s.io": [_specified("Holder", "holderIdentity"), AGE],
    "PriorityClass.scheduling.k8s.io": [
        Column("Value", lambda o, _: o.get("value", 0), "integer"),
        Column("Global-Default", lambda o, _: bool(o.get("globalDefault")), "boolean"), AGE,
        Column("PreemptionPolicy", lambda o, _: o.get("preemptionPolicy", "")),
    ],
}  # fmt: skip


def of(bucket: str) -> list[Column]:
    """The columns after the name; for kinds without any of their own, the age."""
    return _COLUMNS.get(bucket, [AGE])


# Custom resources


def custom(columns: Sequence[Object]) -> list[Column]:
    """The printer columns of a CRD's version."""
    if not columns:
        return [AGE]
    return [
        Column(str(c.get("name", "")), _at(str(c.get("jsonPath", ""))), str(c.get("type", "string")),
               str(c.get("format", "")), bool(c.get("priority")), c.get("type") == "date")
        for c in columns
    ]  # fmt: skip


_STEP = re.compile(r"\.([\w-]+)|\['([^']+)'\]|\[(\d+)\]|\[\?\(@\.([\w.-]+)\s*==\s*[\"']([^\"']*)[\"']\)\]")


def _at(path: str) -> Callable[[Object, float], Any]:
    """A reader for the simple JSON paths that CRDs use; what is not there is None."""
    steps = _STEP.findall(path.replace("\\.", "\0"))

    def read(obj: Object, _: float) -> Any:
        value: Any = obj
        for name, quoted, index, key, wanted in steps:
            value = _step(value, (name or quoted).replace("\0", "."), index, key, wanted)
        return value

    return read


def _step(value: Any, name: str, index: str, key: str, wanted: str) -> Any:
    if name:
        return value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    if index:
        return value[int(index)] if int(index) < len(value) else None
    return next((item for item in value if isinstance(item, dict) and str(item.get(key)) == wanted), None)
