"""Kinds of values whose grammar is Kubernetes' or K3s': labels, taints, schedules of etcd snapshots, S3, registries.

Sources: Kubernetes' API machinery (``validation.go``: label keys and values), the kubelet's ``kubelet_node_labels``
(which labels it may set), ``k8s.io/kubernetes/pkg/util/taints``, robfig/cron v3 ``ParseStandard``, S3's bucket rules.
"""

from __future__ import annotations

import re

from funoffshore.config.kinds import LABEL, Kind, listed, pattern, url

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
KEEPS_AWAY = ("NoSchedule", "NoExecute")
"""Effects that keep every pod away that does not tolerate them."""

_ALLOWED_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_ALLOWED_LABELS = frozenset(
    ("beta.kubernetes.io/instance-type", "failure-domain.beta.kubernetes.io/region",
     "failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/region", "topology.kubernetes.io/zone")
)  # fmt: skip
"""Of kubernetes.io and k8s.io; with any other the kubelet refuses to start. Those that it sets itself are left out."""


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or not _is_key(key) or not _is_value(value):
            raise ValueError
        if key in found:
            raise ValueError("sets a label twice")
        _refuse_reserved(key)
        found[key] = value
    return tuple(found.items())


def _refuse_reserved(key: str) -> None:
    domain = key.rpartition("/")[0]
    if _below(domain, "funoffshore.io") or _below(domain, "k3s.io"):
        raise ValueError("sets a label of funoffshore.io or k3s.io; those are fo's and K3s' own")
    if key == "node.kubernetes.io/instance-type":
        raise ValueError("sets node.kubernetes.io/instance-type, which K3s sets itself")
    if not (_below(domain, "kubernetes.io") or _below(domain, "k8s.io")) or key in _ALLOWED_LABELS:
        return
    if not any(_below(domain, allowed) for allowed in _ALLOWED_DOMAINS):
        raise ValueError(
            "sets a label of kubernetes.io or k8s.io with which the kubelet would not start; allowed are "
            "topology.kubernetes.io/region and /zone and those below node.kubernetes.io and kubelet.kubernetes.io"
        )


def _taints(text: str) -> tuple[str, ...]:
    seen: set[tuple[str, str]] = set()
    found = tuple(text.split(","))
    for part in found:
        front, _, effect = part.rpartition(":")
        key, equals, value = front.partition("=")
        if effect not in EFFECTS or not _is_key(key) or not _is_value(value) or (equals and not value):
            raise ValueError
        if (key, effect) in seen:
            raise ValueError("sets a taint twice")
        if _below(key.rpartition("/")[0], "funoffshore.io"):
            raise ValueError("sets a taint of funoffshore.io; those are fo's own")
        seen.add((key, effect))
    return found


def _is_key(text: str) -> bool:
    domain, slash, name = text.rpartition("/")
    if slash and not (0 < len(domain) <= 253 and all(LABEL.fullmatch(part) for part in domain.split("."))):
        return False
    return _NAME.fullmatch(name) is not None


def _is_value(text: str) -> bool:
    return not text or _NAME.fullmatch(text) is not None


def _below(domain: str, above: str) -> bool:
    return domain == above or domain.endswith(f".{above}")


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, ("", *_MONTHS)), (0, 6, _DAYS),
)  # fmt: skip
"""Minute, hour, day of the month, month, day of the week: lowest, highest, and names at the place of their numbers."""
_WORDS = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def cron_fields(text: str) -> tuple[set[int], ...]:
    """What the five fields of a schedule mean: minutes, hours, days of the month, months, days of the week (0 is
    Sunday). Takes ``@daily`` and its like. Raises ValueError."""
    fields = _WORDS.get(text, text).split(" ")
    if len(fields) != len(_FIELDS):
        raise ValueError
    return tuple(_times(field, *of) for field, of in zip(fields, _FIELDS, strict=True))


def _cron(text: str) -> str:
    _, _, days, months, weekdays = cron_fields(text)
    if len(weekdays) == len(_DAYS) and min(days) > max(_LENGTHS[month - 1] for month in months):
        raise ValueError("names a day that none of its months has")
    return text


def _times(field: str, low: int, high: int, names: tuple[str, ...]) -> set[int]:
    """Every time that a field of a schedule means. Raises ValueError."""
    found: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"([*?]|[0-9a-z]{1,3})(?:-([0-9a-z]{1,3}))?(?:/([0-9]{1,2}))?", part.lower())
        if match is None or (match[1] in "*?" and match[2]):
            raise ValueError
        step = int(match[3]) if match[3] else 1
        first = low if match[1] in "*?" else _time(match[1], names)
        last = _time(match[2], names) if match[2] else high if match[1] in "*?" or match[3] else first
        if not (low <= first <= last <= high and step):
            raise ValueError
        found |= set(range(first, last + 1, step))
    return found


def _time(text: str, names: tuple[str, ...]) -> int:
    if text.isdigit():
        return int(text)
    if text not in names:
        raise ValueError
    return names.index(text)


_MIRROR = url("https", "http")


def _mirrors(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for part in text.split(";"):
        registry, equals, mirror = part.partition("=")
        if not equals or not (registry == "*" or is_endpoint(registry)):
            raise ValueError
        if registry in found:
            raise ValueError("names a registry twice")
        found[registry] = _MIRROR.parse(mirror)
    return tuple(found.items())


def is_endpoint(text: str) -> bool:
    """Whether ``text`` is a host name in lower case or an IPv4 address, with or without a port."""
    if "/" in text or "@" in text:
        return False
    try:
        _MIRROR.parse(f"https://{text}")
    except ValueError:
        return False
    return not text.endswith(":")


def _endpoint(text: str) -> str:
    if "://" in text:
        raise ValueError("is a URL; give the host alone, https is always spoken to it")
    if not is_endpoint(text):
        raise ValueError
    return text


def _nfs(text: str) -> str:
    server, colon, folder = text.partition(":")
    if not colon or not is_endpoint(server) or not re.fullmatch(r"(?:/[A-Za-z0-9._-]+)+/?", folder):
        raise ValueError
    return text


def _extra(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in text.split(";"):
        match = re.fullmatch(r"([a-z][a-z0-9-]*)=(.+)", part)
        if match is None:
            raise ValueError
        if match[1] in OWNED or match[1].startswith("etcd-s3"):
            known = match[1] if match[1] in OWNED else "a key of etcd-s3"
            raise ValueError(f"sets {known}, which fo sets itself{OWNED.get(match[1], '')}")
        if match[1] in pairs:
            raise ValueError("sets a key twice")
        pairs[match[1]] = match[2]
    return pairs


OWNED: dict[str, str] = {
    **dict.fromkeys(
        ("agent-token-file", "bind-address", "cluster-dns", "cluster-init", "cluster-reset",
         "cluster-reset-restore-path", "config", "data-dir", "datastore-endpoint", "disable-agent",
         "disable-apiserver", "disable-controller-manager", "disable-etcd", "disable-scheduler", "etcd-snapshot-dir",
         "etcd-snapshot-name", "https-listen-port", "node-ip", "node-name", "rootless", "server", "tls-san",
         "token-file", "with-node-id", "write-kubeconfig", "write-kubeconfig-mode"), ""
    ),
    "agent-token": " (K3S_AGENT_TOKEN)",
    "cluster-cidr": " (CLUSTER_CIDR)",
    "disable": " (K3S_DISABLE)",
    "embedded-registry": " (EMBEDDED_REGISTRY)",
    "etcd-disable-snapshots": " (ETCD_SNAPSHOT_SCHEDULE)",
    "etcd-snapshot-retention": " (ETCD_SNAPSHOT_KEEP)",
    "etcd-snapshot-schedule-cron": " (ETCD_SNAPSHOT_SCHEDULE)",
    "node-label": " (NODE_C1_LABELS)",
    "node-taint": " (NODE_C1_TAINTS, CONTROLLER_TAINTS)",
    "private-registry": " (REGISTRY_MIRRORS)",
    "protect-kernel-defaults": " (K3S_PROTECT_KERNEL)",
    "secrets-encryption": " (SECRETS_ENCRYPTION)",
    "service-cidr": " (SERVICE_CIDR)",
    "token": " (K3S_TOKEN)",
}  # fmt: skip
"""Keys of K3s' config.yaml that follow from other keys here, or would break what fo promises; behind each, the key
that it follows from."""

LABELS = Kind('Kubernetes labels, like "disk=ssd,zone=attic"', _labels, empty=())
TAINTS = Kind('Kubernetes taints, like "gpu=true:NoSchedule", with commas between them', _taints, empty=())
CRON = Kind('a schedule of cron with five fields, like "0 */6 * * *"', _cron, empty="")
MIRRORS = Kind(
    'registries and their mirrors, like "docker.io=https://mirror.lan;ghcr.io=https://mirror.lan"', _mirrors, empty=(),
    echo=False,
)  # fmt: skip
ENDPOINT = Kind("a host name in lower case or an IPv4 address, with or without :port", _endpoint, empty="", echo=False)
REGION = pattern("an S3 region, like eu-central-1", r"[A-Za-z0-9-]{1,63}")
BUCKET = pattern(
    "the name of an S3 bucket",
    r"(?!.*\.\.)(?![0-9.]+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
    reasons={"/": "holds more than the bucket; the folder belongs in ETCD_S3_FOLDER"},
)
S3_FOLDER = pattern(
    "a folder in the bucket, like k3s/home",
    r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9._-]{1,100}(?:/[A-Za-z0-9._-]{1,100})*",
)
NFS = Kind("an NFS export, like nas.lan:/backup/etcd", _nfs, empty="")
EXTRA = Kind('key=value pairs with ";" between them', _extra, empty={}, echo=False)
PART = pattern("a part of K3s", "coredns|servicelb|traefik|local-storage|metrics-server")
PARTS = listed(
    PART, "parts out of coredns, servicelb, traefik, local-storage, metrics-server, with commas between them"
)
