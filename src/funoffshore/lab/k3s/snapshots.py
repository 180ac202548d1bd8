"""Snapshots of etcd: files on a server, the API's objects that follow them, the schedule.

Names, labels, annotations, what follows what: K3s repository, ``pkg/etcd/snapshot.go`` and ``pkg/etcd/snapshot``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from funoffshore.lab.hosts import circumstances
from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.k3s import cron, files, nodes, sealed, settings
from funoffshore.lab.kube.api import ApiError, Object

if TYPE_CHECKING:
    from funoffshore.lab.k3s.server import Server

KIND = "k3s.cattle.io/v1/ETCDSnapshotFile"
FOLDER = f"{files.SERVER}/db/snapshots"
SCHEDULE = "0 */12 * * *"
KEEP = 5
STORAGE = "etcd.k3s.cattle.io/snapshot-storage-node"
TOKEN = "etcd.k3s.cattle.io/snapshot-token-hash"  # noqa: S105  # the annotation's name
RECONCILED = "etcd.k3s.cattle.io/local-snapshots-timestamp"
S3_FLAGS = ("etcd-s3-endpoint", "etcd-s3-region", "etcd-s3-bucket", "etcd-s3-folder")


@dataclass(frozen=True, slots=True)
class File:
    """A snapshot on a server."""

    name: str
    size: int
    made: int
    """Unix time, from the file's name."""
    folder: str

    @property
    def location(self) -> str:
        return f"file://{self.folder}/{self.name}"


def folder_of(told: settings.Settings) -> str:
    return told.text("etcd-snapshot-dir") or FOLDER


def keep_of(told: settings.Settings) -> int:
    return int(told.text("etcd-snapshot-retention") or KEEP)


def on(machine: Machine, folder: str) -> list[File]:
    """The snapshots in the folder, oldest first."""
    real = machine.path(folder)
    found = []
    for path in real.iterdir() if real.is_dir() else ():
        if path.is_file() and not path.name.endswith(".tmp"):
            seen = path.stat()
            number = path.name.removesuffix(".zip").rpartition("-")[2]
            found.append(
                File(path.name, seen.st_size, int(number) if number.isdecimal() else int(seen.st_mtime), folder)
            )
    return sorted(found, key=lambda file: (file.made, file.name))


def save(server: Server, name: str) -> File:
    """A new one, in the folder and in the API. Raises OSError where nothing can be written."""
    folder = folder_of(server.settings)
    if folder == FOLDER:
        files.folder(server.machine, FOLDER, 0o700)
    whole = f"{name}-{server.node}-{int(server.kit.clock.now())}"
    server.say("info", f"Saving etcd snapshot to {folder}/{whole}")
    content = sealed.write(server.plane.state())
    if server.settings.flag("etcd-snapshot-compress"):
        content, whole = sealed.compress(content, whole), f"{whole}.zip"
    circumstances.check_write(server.machine, f"{folder}/{whole}")
    files.write(server.machine, f"{folder}/{whole}", content, 0o600)
    [made] = [file for file in on(server.machine, folder) if file.name == whole]
    reconcile(server)
    return made


def prune(server: Server, prefix: str, keep: int) -> list[File]:
    """Removes the oldest of those that begin with ``prefix``; 0 keeps all."""
    found = [f for f in on(server.machine, folder_of(server.settings)) if f.name.startswith(prefix)]
    gone = found[: max(len(found) - keep, 0)] if keep >= 1 else []
    for file in gone:
        server.machine.path(f"{file.folder}/{file.name}").unlink(missing_ok=True)
    reconcile(server)
    return gone


def delete(server: Server, name: str) -> bool:
    """False when there is no such file."""
    real = server.machine.path(f"{folder_of(server.settings)}/{name}")
    there = real.is_file()
    real.unlink(missing_ok=True)
    reconcile(server)
    return there


def scheduled(server: Server) -> None:
    """Takes the snapshot that has become due since the last look, and removes what is too many."""
    told, now = server.settings, server.kit.clock.now()
    since = float(server.__dict__.setdefault("snapshots_seen", now))
    server.__dict__["snapshots_seen"] = now
    if not server.plane.etcd or told.flag("etcd-disable-snapshots") or not server.plane.quorate():
        return
    try:
        if not cron.is_due(told.text("etcd-snapshot-schedule-cron") or SCHEDULE, since, now):
            return
        name = told.text("etcd-snapshot-name") or "etcd-snapshot"
        made = save(server, name)
        prune(server, name, keep_of(told))
        if told.flag("etcd-s3"):
            _fail_s3(server, made)
    except (OSError, ValueError, ApiError) as why:
        server.say("error", f"Failed to take scheduled snapshot: {why}")


def pace(told: settings.Settings) -> float:
    """Seconds between two looks at the schedule."""
    every = cron.interval(told.text("etcd-snapshot-schedule-cron"))
    return max(every / 3, 0.2) if every else 15.0


def s3_problem(told: settings.Settings) -> str:
    """What K3s says of a bucket that it cannot reach; nobody in the lab plays S3."""
    host, bucket = told.text("etcd-s3-endpoint") or "s3.amazonaws.com", told.text("etcd-s3-bucket")
    if not bucket:
        return "failed to initialize S3 client: s3 bucket name was not set"
    at = host if ":" in host else f"{host}:443"
    get = f'Get "https://{host}/{bucket}/?location=": dial tcp {at}: connect: connection refused'
    return f"failed to initialize S3 client: failed to test for existence of bucket {bucket}: {get}"


def reconcile(server: Server) -> None:
    """The API's objects of this server's files follow the files."""
    kube, node = server.plane.kube, server.node
    if not kube.known(KIND):
        return
    kept = {_object_name(file, node): file for file in on(server.machine, folder_of(server.settings))}
    members = set(server.plane.members)
    for seen in kube.list(KIND):
        store, name = seen["metadata"].get("labels", {}).get(STORAGE, ""), seen["metadata"]["name"]
        if store != "s3" and ((store == node and name not in kept) or store not in {*members, node}):
            kube.delete(KIND, "", name)
    for name, file in kept.items():
        if kube.get(KIND, "", name) is None:
            kube.create(described(file, node, name, sealed.token_hash(server.plane.password)), "k3s")
    now = nodes.stamp(server.kit.clock.now())
    kube.change_metadata(
        nodes.NODE, "", node, lambda meta: meta.setdefault("annotations", {}).update({RECONCILED: now})
    )


def described(file: File, node: str, name: str = "", token: str = "") -> Object:
    """The object as the API has it; without ``name``, as ``ls -o json`` prints it."""
    metadata: Object = {"name": name or f"local-{_safe(file.name)}", "labels": {STORAGE: node}}
    if token:
        metadata["annotations"] = {TOKEN: token}
    return {
        "apiVersion": "k3s.cattle.io/v1",
        "kind": "ETCDSnapshotFile",
        "metadata": metadata,
        "spec": {"snapshotName": file.name, "nodeName": node, "location": file.location},
        "status": {"readyToUse": True, "size": str(file.size), "creationTime": nodes.stamp(file.made)},
    }


def _fail_s3(server: Server, made: File) -> None:
    """The object of a copy that did not get to its bucket."""
    told, why = server.settings, s3_problem(server.settings)
    server.say("warning", f"Unable to initialize S3 client: {why.partition(': ')[2]}")
    keys = {flag.removeprefix("etcd-s3-"): told.text(flag) for flag in S3_FLAGS if told.text(flag)}
    keys["prefix"] = keys.pop("folder", "")
    digest = hashlib.sha256(b"s3").hexdigest()[:6]
    body = described(made, "s3", f"s3-{made.name.lower()}-{digest}")
    del body["spec"]["location"]
    body["spec"]["s3"] = {key: value for key, value in keys.items() if value}
    when = nodes.stamp(made.made)
    body["status"] = {"readyToUse": False, "size": "0", "creationTime": when, "error": {"time": when, "message": why}}
    server.plane.kube.create(body, "k3s")


def _object_name(file: File, node: str) -> str:
    digest = hashlib.sha256(f"{node}{file.location}".encode()).hexdigest()[:6]
    name = file.name.lower()
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) or len(name) + 13 > 253:
        name = f"etcd-snapshot-{node.split('.')[0]}-{file.made}"
    return f"local-{name}-{digest}"


def _safe(name: str) -> str:
    return re.sub(r"[^-._a-zA-Z0-9]", "_", name)


def _column(name: str, path: str, kind: str = "string") -> Object:
    return {"name": name, "jsonPath": path, "type": kind}


def definitions() -> Iterator[Object]:
    """The CRDs that K3s makes at its start and that anybody here asks for."""
    text: Object = {"type": "string"}
    status = {
        "type": "object",
        "properties": {
            "creationTime": {"type": "string", "format": "date-time"},
            "readyToUse": {"type": "boolean"},
            "size": {"x-kubernetes-int-or-string": True},
            "error": {"type": "object", "properties": {"message": text, "time": {**text, "format": "date-time"}}},
        },
    }
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {
        "type": "object",
        "properties": {
            "location": text, "nodeName": text, "snapshotName": text,
            "metadata": {"type": "object", "additionalProperties": text}, "s3": loose,
        },
    }  # fmt: skip
    columns = [
        _column("SnapshotName", ".spec.snapshotName"), _column("Node", ".spec.nodeName"),
        _column("Location", ".spec.location"), _column("Size", ".status.size"),
        _column("CreationTime", ".status.creationTime", "date"),
    ]  # fmt: skip
    yield _definition("ETCDSnapshotFile", "etcdsnapshotfiles", "Cluster", {"spec": spec, "status": status}, columns)
    addon = [_column("Source", ".spec.source"), _column("Checksum", ".spec.checksum")]
    yield _definition("Addon", "addons", "Namespaced", {"spec": loose, "status": loose}, addon)


def _definition(kind: str, plural: str, scope: str, properties: Object, columns: list[Object]) -> Object:
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    schema = {"type": "object", "properties": properties}
    version: Object = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
    }  # fmt: skip
    if kind == "ETCDSnapshotFile":
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.k3s.cattle.io"},
        "spec": {"group": "k3s.cattle.io", "names": names, "scope": scope, "versions": [version]},
    }
