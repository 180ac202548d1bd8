"""The deploy controller: what lies in ``server/manifests`` is applied, at the start and every 15 seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from funoffshore.lab.hosts.api import Machine
from funoffshore.lab.k3s import files, packaged
from funoffshore.lab.k3s.settings import Settings
from funoffshore.lab.kube.api import ApiError

if TYPE_CHECKING:
    from funoffshore.lab.k3s.server import Server

FOLDER = f"{files.SERVER}/manifests"


def write_packaged(machine: Machine, settings: Settings) -> None:
    """Writes the manifests that K3s brings along; those of disabled parts are removed."""
    disabled = set(settings.many("disable"))
    for name, text in packaged.MANIFESTS.items():
        real = machine.path(FOLDER) / name
        if name.removesuffix(".yaml") in disabled:
            real.unlink(missing_ok=True)
        else:
            files.write(machine, f"{FOLDER}/{name}", text, 0o600)


def apply(server: Server) -> None:
    """Applies every file that is new or changed since this server's last look."""
    seen: dict[str, tuple[int, int]] = server.__dict__.setdefault("manifests_seen", {})
    folder = server.machine.path(FOLDER)
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        stat = path.stat()
        version = (stat.st_mtime_ns, stat.st_size)
        if seen.get(str(path)) == version or path.with_name(path.name + ".skip").exists():
            continue
        if _apply_file(server, path.read_text(encoding="utf-8", errors="replace"), f"{FOLDER}/{path.name}"):
            seen[str(path)] = version
    for name in set(server.settings.many("disable")) & {n.removesuffix(".yaml") for n in packaged.MANIFESTS}:
        if seen.get(name) is None:
            seen[name] = (0, 0)
            _remove(server, packaged.MANIFESTS[f"{name}.yaml"])


def _apply_file(server: Server, text: str, name: str) -> bool:
    try:
        documents = [d for d in yaml.safe_load_all(text) if d]
    except yaml.YAMLError as why:
        server.say("error", f"Failed to process config: failed to process {name}: {str(why).splitlines()[0]}")
        return False
    good = True
    for document in documents:
        try:
            server.plane.kube.apply(document, f"deploy@{server.node}")
        except (ApiError, KeyError, TypeError, AttributeError) as why:
            server.say("error", f"Failed to process config: failed to process {name}: {why}")
            good = False
    return good


def _remove(server: Server, text: str) -> None:
    for document in yaml.safe_load_all(text):
        api: dict[str, Any] = document
        metadata = api["metadata"]
        kind = f"{api['apiVersion']}/{api['kind']}"
        server.plane.kube.delete(kind, metadata.get("namespace", ""), metadata["name"])
