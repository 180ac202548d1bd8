"""Certificates on a host: which there are, ``k3s certificate check`` and ``rotate``, and what a start renews.

Files, subjects, services, words: K3s repository, ``pkg/util/services``, ``pkg/daemons/control/deps``, ``pkg/cli/cert``.
"""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import yaml

from funoffshore.lab.hosts.api import Machine, Result
from funoffshore.lab.k3s import files, log, pki, words
from funoffshore.lab.k3s.plane import Plane

TLS = f"{files.SERVER}/tls"
RENEW = datetime.timedelta(days=120)
"""A start renews what is good for less than this; ``check`` warns of it (``CertificateRenewDays``)."""
REGENERATE = f"{TLS}/dynamic-cert-regenerate"
AGED = "k3s-aged"
_BOTH = ("server", "client")
_CLIENT = ("client",)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate that K3s makes for one of its parts."""

    service: str
    base: str
    """Path without ``.crt`` and ``.key``."""
    authority: str
    common_name: str
    organization: str = ""
    uses: tuple[str, ...] = _CLIENT


def of_server() -> tuple[Leaf, ...]:
    """Those below ``server/tls``, but the one that port 6443 shows, which grows with its names."""
    masters = "system:masters"
    return (
        Leaf("admin", f"{TLS}/client-admin", "client-ca", "system:admin", masters),
        Leaf("api-server", f"{TLS}/client-kube-apiserver", "client-ca", "system:apiserver", masters),
        Leaf("auth-proxy", f"{TLS}/client-auth-proxy", "request-header-ca", "system:auth-proxy"),
        Leaf("cloud-controller", f"{TLS}/client-k3s-cloud-controller", "client-ca", "k3s-cloud-controller-manager"),
        Leaf("controller-manager", f"{TLS}/client-controller", "client-ca", "system:kube-controller-manager"),
        Leaf("etcd", f"{TLS}/etcd/client", "etcd/server-ca", "etcd-client"),
        Leaf("etcd", f"{TLS}/etcd/server-client", "etcd/server-ca", "etcd-server", "", _BOTH),
        Leaf("etcd", f"{TLS}/etcd/peer-server-client", "etcd/peer-ca", "etcd-peer", "", _BOTH),
        Leaf("k3s-controller", f"{TLS}/client-k3s-controller", "client-ca", "system:k3s-controller"),
        Leaf("kube-proxy", f"{TLS}/client-kube-proxy", "client-ca", "system:kube-proxy"),
        Leaf("scheduler", f"{TLS}/client-scheduler", "client-ca", "system:kube-scheduler"),
        Leaf("supervisor", f"{TLS}/client-supervisor", "client-ca", "system:k3s-supervisor", masters),
    )


def of_agent(node: str) -> tuple[Leaf, ...]:
    """Those below ``agent/``."""
    agent = files.AGENT
    return (
        Leaf("k3s-controller", f"{agent}/client-k3s-controller", "client-ca", "system:k3s-controller"),
        Leaf("kube-proxy", f"{agent}/client-kube-proxy", "client-ca", "system:kube-proxy"),
        Leaf("kubelet", f"{agent}/client-kubelet", "client-ca", f"system:node:{node}", "system:nodes"),
        Leaf("kubelet", f"{agent}/serving-kubelet", "server-ca", node, "", ("server",)),
    )


SERVING = Leaf("api-server", f"{TLS}/serving-kube-apiserver", "server-ca", "k3s", "k3s", ("server",))
_AUTHORITIES = tuple(
    [Leaf("certificate-authority", f"{TLS}/{name}", name, "") for name in pki.AUTHORITIES]
    + [Leaf("certificate-authority", f"{files.AGENT}/{name}", name, "") for name in ("client-ca", "server-ca")]
)
AGENT_SERVICES = ("kube-proxy", "kubelet", "k3s-controller")
SERVER_SERVICES = (
    "admin", "api-server", "auth-proxy", "cloud-controller", "controller-manager", "etcd", "scheduler", "supervisor",
    "k3s-server",
)  # fmt: skip
EVERY = (*SERVER_SERVICES, *AGENT_SERVICES, "certificate-authority")


def ensure(machine: Machine, plane: Plane, leaves: Iterable[Leaf]) -> None:
    """Makes what is not there, and anew what is about to end."""
    for leaf in leaves:
        kept = pair(machine, leaf)
        if kept is None or pki.read(kept.certificate).left < RENEW:
            _write(machine, leaf, _issue(plane, leaf))


def pair(machine: Machine, leaf: Leaf) -> pki.Pair | None:
    """The certificate and its key, or None unless both lie on the host."""
    certificate, key = machine.path(leaf.base + ".crt"), machine.path(leaf.base + ".key")
    if not (certificate.is_file() and key.is_file()):
        return None
    return pki.Pair(certificate.read_bytes(), key.read_bytes())


def serving(machine: Machine, plane: Plane, names: list[str]) -> pki.Pair:
    """What port 6443 shows: kept while it is good for ``names``, not about to end, and nobody asked for another."""
    kept = pair(machine, SERVING)
    asked = machine.path(REGENERATE)
    if kept is not None and not asked.exists():
        seen = pki.read(kept.certificate)
        if pki.names_in(kept.certificate) >= set(names) and seen.left >= RENEW:
            return kept
    fresh = _issue(plane, SERVING, names)
    _write(machine, SERVING, fresh)
    asked.unlink(missing_ok=True)
    return fresh


def _issue(plane: Plane, leaf: Leaf, names: Iterable[str] = (), left: datetime.timedelta | None = None) -> pki.Pair:
    authority = plane.authority(leaf.authority)
    return pki.leaf(
        authority, leaf.common_name, uses=leaf.uses, organization=leaf.organization, names=names, left=left
    )  # fmt: skip


def _write(machine: Machine, leaf: Leaf, made: pki.Pair) -> None:
    files.write(machine, leaf.base + ".crt", made.certificate, 0o600 if leaf.base.startswith(files.AGENT) else 0o644)
    files.write(machine, leaf.base + ".key", made.key, 0o600)


def age(machine: Machine, plane: Plane, node: str) -> None:
    """Fault ``certificates-old``: once per host, every leaf is as if it had been made long ago."""
    kit, key = machine.kit, str(machine.vmid)
    if not kit.faults.value("certificates-old", "days", "20", node=machine.name):
        kit.store.delete(AGED, key)
        return
    if kit.store.get(AGED, key) is not None:
        return
    kit.store.put(AGED, key, {"node": node})
    left = datetime.timedelta(days=int(kit.faults.value("certificates-old", "days", "20", node=machine.name)))
    for leaf in (*of_server(), *of_agent(node), SERVING):
        kept = pair(machine, leaf)
        if kept is not None:
            names = sorted(pki.names_in(kept.certificate))
            _write(machine, leaf, _issue(plane, leaf, names, left))


def check(machine: Machine, argv: list[str]) -> Result:
    """``k3s certificate check [--output text|table|json|yaml] [--service NAME]``."""
    now = machine.kit.clock.now()
    form = words.option(argv, "output", words.option(argv, "o", "text"))
    said, services = _services(machine, argv, "checking", now)
    found = [(leaf, pki.read(machine.path(leaf.base + ".crt").read_bytes())) for leaf in _on(machine, services)]
    if form == "text":
        lines = [log.line(now, *_verdict(leaf, seen)) for leaf, seen in found]
        return Result(0, b"", "".join(f"{line}\n" for line in (*said, *lines)).encode())
    head = "".join(f"{line}\n" for line in said).encode()
    if form == "table":
        rows = [_row(leaf, seen) for leaf, seen in found]
        names = ("FILENAME", "SUBJECT", "USAGES", "EXPIRES", "RESIDUAL TIME", "STATUS")
        return Result(0, words.table([names, tuple("-" * len(n) for n in names), *rows], "   "), head)
    if form in ("json", "yaml"):
        document = {"Certificates": [_document(leaf, seen) for leaf, seen in found]}
        lower = {"certificates": [{k.lower(): v for k, v in c.items()} for c in document["Certificates"]]}
        text = json.dumps(document) + "\n" if form == "json" else yaml.safe_dump(lower, sort_keys=False)
        return Result(0, text.encode(), head)
    raise log.Fatal(f"Error: invalid output format {form}")


def rotate(machine: Machine, argv: list[str]) -> Result:
    """``k3s certificate rotate [--service NAME]``: old ones go aside; the next start makes new ones."""
    now = machine.kit.clock.now()
    said, services = _services(machine, argv, "rotating", now)
    leaves = [leaf for leaf in _on(machine, services) if leaf.service != "certificate-authority"]
    server = machine.path(TLS).is_dir()
    folder = f"{files.SERVER if server else files.AGENT}/tls-{int(now)}"
    real = machine.path(folder)
    if server:
        shutil.copytree(machine.path(TLS), real, dirs_exist_ok=True)
    real.mkdir(mode=0o700, exist_ok=True)
    for leaf in leaves:
        if leaf.base.startswith(files.AGENT):
            shutil.copy(machine.path(leaf.base + ".crt"), real)
            shutil.copy(machine.path(leaf.base + ".key"), real)
    if "k3s-server" in services:
        files.write(machine, REGENERATE, b"", 0o600)
        said.append(log.line(now, "info", "Rotating dynamic listener certificate"))
    said += [log.line(now, "info", f"Rotating certificates for {service}") for service in services]
    for leaf in leaves:
        machine.path(leaf.base + ".crt").unlink()
        machine.path(leaf.base + ".key").unlink(missing_ok=True)
    done = f"Successfully backed up certificates to {folder}, please restart k3s server or agent to rotate certificates"
    said.append(log.line(now, "info", done))
    return Result(0, b"", "".join(f"{line}\n" for line in said).encode())


def _services(machine: Machine, argv: list[str], doing: str, now: float) -> tuple[list[str], list[str]]:
    """What is said first, and the services that are meant. Raises Fatal for one that there is not."""
    asked = words.options(argv, "service") + words.options(argv, "s")
    named = [name for text in asked for name in text.split(",") if name]
    for name in named:
        if name not in EVERY:
            raise log.Fatal(f"Error: service {name} is not recognized")
    if named:
        return [], named
    server = machine.path(files.SERVER).is_dir()
    text = "Server detected, {} agent and server certificates" if server else "Agent detected, {} agent certificates"
    extra = ["certificate-authority"] if doing == "checking" else []
    services = [*(SERVER_SERVICES if server else ()), *AGENT_SERVICES, *extra]
    return [log.line(now, "info", text.format(doing))], services


def _on(machine: Machine, services: list[str]) -> Iterator[Leaf]:
    for leaf in (*of_server(), SERVING, *of_agent(""), *_AUTHORITIES):
        if leaf.service in services and machine.path(leaf.base + ".crt").is_file():
            yield leaf


def _file(leaf: Leaf) -> str:
    return leaf.base.rpartition("/")[2] + ".crt"


def _status(seen: pki.Certificate) -> str:
    if seen.begin > datetime.datetime.now(datetime.UTC):
        return "NOT YET VALID"
    if seen.left <= datetime.timedelta():
        return "EXPIRED"
    return "WARNING" if seen.left < RENEW else "OK"


def _verdict(leaf: Leaf, seen: pki.Certificate) -> tuple[str, str]:
    """Level and text of one line."""
    until = seen.end.strftime("%Y-%m-%dT%H:%M:%SZ")
    whose = f"{_file(leaf)}: certificate {seen.subject} ({','.join(seen.uses)})"
    return {
        "OK": ("info", f"{whose} is ok, expires at {until}"),
        "WARNING": ("warning", f"{whose} will expire within {RENEW.days} days at {until}"),
        "EXPIRED": ("error", f"{whose} expired at {until}"),
        "NOT YET VALID": ("error", f"{whose} is not valid before {seen.begin.strftime('%Y-%m-%dT%H:%M:%SZ')}"),
    }[_status(seen)]


def _row(leaf: Leaf, seen: pki.Certificate) -> tuple[str, ...]:
    days = seen.left.days
    left = f"{days // 365} years" if days >= 730 else "1 year" if days >= 365 else f"{days // 30} months"
    until = seen.end.strftime("%b %d, %Y %H:%M UTC")
    return _file(leaf), seen.subject, ",".join(seen.uses), until, left if days >= 60 else f"{days} days", _status(seen)


def _document(leaf: Leaf, seen: pki.Certificate) -> dict[str, object]:
    return {
        "Filename": _file(leaf),
        "Subject": seen.subject,
        "Issuer": seen.issuer,
        "Usages": list(seen.uses),
        "ExpiryTime": seen.end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ResidualTime": int(seen.left.total_seconds() * 1e9),
        "Status": _status(seen),
    }
