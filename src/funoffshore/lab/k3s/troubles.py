"""What stops a K3s on a host that is not as it should be, in the words of K3s, kubelet, API server and etcd.

Words: Kubernetes ``pkg/kubelet/cm/container_manager_linux.go``, ``cmd/kubelet/app/options``, ``apiserver/pkg/server/
options/audit.go``; etcd ``server/etcdserver/api/rafthttp`` and ``server/storage/wal``; K3s ``cmd/k3s/main.go``.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.k3s import files, log

if TYPE_CHECKING:
    from funoffshore.lab.k3s.plane import Plane
    from funoffshore.lab.k3s.process import Process
    from funoffshore.lab.k3s.settings import Settings

REGISTRIES = "/etc/rancher/k3s/registries.yaml"
_SYSCTLS = (("vm/overcommit_memory", 1), ("vm/panic_on_oom", 0), ("kernel/panic", 10), ("kernel/panic_on_oops", 1),
            ("kernel/keys/root_maxkeys", 1000000), ("kernel/keys/root_maxbytes", 25000000))  # fmt: skip
_OWN_LABELS = re.compile(
    r"^(kubelet|node)\.kubernetes\.io/|^kubernetes\.io/(arch|hostname|os)$|^beta\.kubernetes\.io/(arch|os|instance-type)$"
    r"|^topology\.kubernetes\.io/(region|zone)$|^failure-domain\.beta\.kubernetes\.io/(region|zone)$"
)
_PREFIXES = "kubelet.kubernetes.io, node.kubernetes.io"
_ALLOWED = (
    "beta.kubernetes.io/arch, beta.kubernetes.io/instance-type, beta.kubernetes.io/os, "
    "failure-domain.beta.kubernetes.io/region, failure-domain.beta.kubernetes.io/zone, kubernetes.io/arch, "
    "kubernetes.io/hostname, kubernetes.io/os, node.kubernetes.io/instance-type, topology.kubernetes.io/region, "
    "topology.kubernetes.io/zone"
)


def klog(now: float, source: str, text: str, level: str = "E") -> str:
    """A line as Kubernetes' parts write it."""
    when = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%m%d %H:%M:%S.%f")
    return f"{level}{when}    2130 {source}] {text}"


def zap(now: float, level: str, caller: str, message: str, **fields: str) -> str:
    """A line as etcd writes it."""
    when = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps({"level": level, "ts": when, "caller": caller, "msg": message, **fields}, separators=(",", ":"))


def disk(process: Process) -> None:
    """Raises Fatal where the program cannot be unpacked, or etcd cannot write. Only a first start unpacks."""
    machine, now = process.machine, process.kit.clock.now()
    data = f"{files.DATA}/data"
    unpacked = machine.path(f"{data}/current").is_symlink()
    if circumstances.is_read_only(machine, data):
        what = f"{files.SERVER}/db/etcd: read-only file system" if unpacked else f"{data}/.lock: read-only file system"
        raise log.Fatal(f"Error: open {what}" if unpacked else f"extracting data: open {what}")
    if not circumstances.is_full(machine, data):
        return
    if not unpacked:
        raise log.Fatal(f"extracting data: write {data}/current-tmp/bin/k3s: no space left on device")
    if process.unit == "k3s":
        wal = f"write {files.SERVER}/db/etcd/member/wal/0.tmp: no space left on device"
        machine.journal(process.unit, zap(now, "fatal", "etcdserver/raft.go", "failed to create WAL", error=wal))
        raise log.Died(1)
    raise log.Fatal(f"Error: write {files.AGENT}/etc/containerd/config.toml: no space left on device")


def clock(process: Process, plane: Plane, url: str) -> str:
    """Why a joiner does not take the cluster's certificates: its clock is before they begin. Empty: it does."""
    skew = circumstances.skew(process.machine)
    mine = process.kit.clock.now() + skew
    if skew >= 0 or mine >= plane.created:
        return ""
    current, begin = (
        datetime.datetime.fromtimestamp(t, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for t in (mine, plane.created)
    )
    why = f"x509: certificate has expired or is not yet valid: current time {current} is before {begin}"
    return f'failed to get CA certs: Get "{url}/cacerts": tls: failed to verify certificate: {why}'


def drift(process: Process, peer: str) -> Iterator[str]:
    """What etcd says of a member whose clock is not the others'."""
    skew = circumstances.skew(process.machine)
    if abs(skew) > 1:
        yield zap(
            process.kit.clock.now(), "warn", "rafthttp/probing_status.go:82", "prober found high clock drift",
            **{"round-tripper-name": "ROUND_TRIPPER_RAFT_MESSAGE", "remote-peer-id": peer,
               "clock-drift": f"{abs(skew):.6f}s", "rtt": "412.3µs"},
        )  # fmt: skip


def unreachable(process: Process, address: str, peer: str) -> str:
    """What etcd says of a peer whose port 2380 does not answer."""
    return zap(
        process.kit.clock.now(), "warn", "rafthttp/probing_status.go:68", "prober detected unhealthy status",
        **{"round-tripper-name": "ROUND_TRIPPER_RAFT_MESSAGE", "remote-peer-id": peer, "rtt": "0s",
           "error": f"dial tcp {address}:2380: i/o timeout"},
    )  # fmt: skip


def apiserver(told: Settings, machine: Machine) -> None:
    """Raises Shutdown for a file that the API server is told to read and that is not there."""
    for word in told.many("kube-apiserver-arg"):
        name, _, path = word.lstrip("-").partition("=")
        gone = f"open {path}: no such file or directory"
        if name == "audit-policy-file" and not machine.path(path).is_file():
            raise log.Shutdown(
                f'apiserver exited: loading audit policy file: failed to read file path "{path}": {gone}'
            )
        if name == "admission-control-config-file" and not machine.path(path).is_file():
            raise log.Shutdown(
                f"apiserver exited: failed to read plugin config: unable to read admission control configuration from "
                f'"{path}" [{gone}]'
            )
        if name == "audit-log-path" and path != "-" and circumstances.is_read_only(machine, path):
            raise log.Shutdown(f"apiserver exited: ensureLogFile: open {path}: read-only file system")


def kubelet(process: Process) -> None:
    """Raises Shutdown for settings that the kubelet does not start with."""
    told = process.settings
    strange = [key for key, _, _ in (label.partition("=") for label in told.many("node-label")) if _foreign(key)]
    if strange:
        raise log.Shutdown(
            "kubelet exited: failed to validate kubelet flags: unknown 'kubernetes.io' or 'k8s.io' labels specified "
            f"with --node-labels: [{' '.join(sorted(strange))}]\n--node-labels in the 'kubernetes.io' namespace must "
            f"begin with an allowed prefix ({_PREFIXES}) or be in the specifically allowed set ({_ALLOWED})"
        )
    if not told.flag("protect-kernel-defaults"):
        return
    wrong = []
    for name, value in _SYSCTLS:
        real = process.machine.path(f"/proc/sys/{name}")
        actual = real.read_text().strip() if real.is_file() else str(value)
        if actual != str(value):
            wrong.append(f"invalid kernel flag: {name}, expected value: {value}, actual value: {actual}")
    if wrong:
        why = f"[{', '.join(wrong)}]" if len(wrong) > 1 else wrong[0]
        text = f'"Failed to start ContainerManager" err="{why}"'
        process.machine.journal(process.unit, klog(process.kit.clock.now(), "kubelet.go:1703", text))
        raise log.Shutdown(f"kubelet exited: failed to start ContainerManager: {why}")


def _foreign(key: str) -> bool:
    space = key.partition("/")[0] if "/" in key else ""
    belongs = space in ("kubernetes.io", "k8s.io") or space.endswith((".kubernetes.io", ".k8s.io"))
    return belongs and not _OWN_LABELS.match(key)


def pull(process: Process, image: str) -> str:
    """What the kubelet says of an image that does not come, or empty."""
    machine, faults = process.machine, process.kit.faults
    registry = image.partition("/")[0] if "." in image.partition("/")[0] else "registry-1.docker.io"
    name, _, tag = image.removeprefix(f"{registry}/").partition(":")
    where = f"https://{registry}/v2/{name}/manifests/{tag or 'latest'}"
    if faults.hits("dns-broken", node=machine.name):
        why = f'failed to do request: Head "{where}": dial tcp: lookup {registry}: Temporary failure in name resolution'
    elif faults.hits("image-pull", node=machine.name, image=image):
        why = f"unexpected status from HEAD request to {where}: 403 Forbidden"
    else:
        return ""
    text = f'failed to pull and unpack image "{image}": failed to resolve reference "{image}": {why}'
    error = f"rpc error: code = Unknown desc = {text}".replace('"', '\\"')
    line = f'"PullImage from image service failed" err="{error}" image="{image}"'
    machine.journal(process.unit, klog(process.kit.clock.now(), "log.go:32", line))
    return text


def registries(machine: Machine) -> dict[str, Any]:
    """``registries.yaml``, or nothing. Raises ValueError with the words of its reader."""
    real = machine.path(REGISTRIES)
    if not real.is_file():
        return {}
    try:
        document = yaml.safe_load(real.read_text(encoding="utf-8", errors="replace"))
    except yaml.YAMLError as why:
        mark = getattr(why, "problem_mark", None)
        where = f"yaml: line {mark.line + 1 if mark else 1}: {getattr(why, 'problem', why)}"
        raise ValueError(f"failed to read private registries from {REGISTRIES}: {where}") from None
    if document is not None and not isinstance(document, dict):
        raise ValueError(
            f"failed to read private registries from {REGISTRIES}: yaml: cannot unmarshal into registries.Registry"
        )
    return document or {}


def write_hosts(machine: Machine, document: dict[str, Any]) -> None:
    """containerd's ``certs.d``: a folder per mirrored registry with the endpoints that are asked first."""
    for registry, mirror in (document.get("mirrors") or {}).items():
        folder = f"{files.AGENT}/etc/containerd/certs.d/{'_default' if registry == '*' else registry}"
        machine.path(folder).mkdir(parents=True, exist_ok=True)
        server = "registry-1.docker.io" if registry == "docker.io" else registry
        text = f'# File generated by k3s. DO NOT EDIT.\n\nserver = "https://{server}/v2"\n'
        text += 'capabilities = ["pull", "resolve", "push"]\n'
        for endpoint in (mirror or {}).get("endpoint") or []:
            url = endpoint if "://" in endpoint else f"https://{endpoint}"
            url += "" if "/v2" in url else "/v2"
            text += f'\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\n'
        files.write(machine, f"{folder}/hosts.toml", text, 0o600)
