"""Flux's install.yaml, composed the way that flux2's release workflow does it, but without its downloads.

The release runs ``kustomize build manifests/install``, whose bases fetch ``config/crd`` and ``config/manager`` of each
controller as release files. Here the same folders come from the controllers' Go modules, and the components that the
bench has no program for are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench import build, home, paths

COMPONENTS = ("source-controller", "kustomize-controller", "helm-controller", "notification-controller")
"""What ``flux install`` installs when it is not asked for more."""
FLUX2 = "github.com/fluxcd/flux2/v2"
SUMS: Mapping[str, str] = {"v2.9.4": "h1:/o9IdC9YZVFEsnuJawjEn5tpU8gpnxGftsG85Ubw+bI="}
"""Go's checksum of flux2's module by version, as a go.sum would have it."""
PARTS = ("bases", "install", "policies", "rbac")


class InstallError(RuntimeError):
    """The manifest cannot be composed; the text says why."""


def install_manifest(*, version_label: bool = False) -> Path:
    """The manifest's file, composed if it is missing. Raises build.MissingError, build.BuildError, InstallError.

    Like the release's file it has no label ``app.kubernetes.io/version``; ``version_label`` adds what ``flux install``
    would.
    """
    name = f"install-{home.FLUX_VERSION}-{_key(version_label)}.yaml"
    target = paths.cache() / "flux" / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as folder:
            fresh = Path(folder) / name
            fresh.write_text(_compose(Path(folder) / "manifests", version_label))
            fresh.replace(target)
        for old in target.parent.glob("install-*.yaml"):
            if old != target and _other_version_of(old, version_label):
                old.unlink()
    return target


def _key(version_label: bool) -> str:
    """Over what it is composed of: this file, the controllers as they are built, and the form that is asked for."""
    built = [build.binary(name).parent.name for name in (*COMPONENTS, "kube")]
    text = Path(__file__).read_bytes()
    digest = hashlib.sha256(repr((built, home.FLUX_VERSION, SUMS.get(home.FLUX_VERSION))).encode() + text).hexdigest()
    return f"{digest[:16]}-{'labelled' if version_label else 'release'}"


def _other_version_of(file: Path, version_label: bool) -> bool:
    return file.stem.endswith("-labelled" if version_label else "-release")


def _compose(folder: Path, version_label: bool) -> str:
    source = _flux2() / "manifests"
    folder.mkdir()
    for part in PARTS:
        _copy(source / part, folder / part)
    for name in COMPONENTS:
        _localise(folder / "bases" / name, name)
    _only_ours(folder / "install" / "kustomization.yaml")
    if version_label:
        labels = folder / "install" / "labels.yaml"
        transformer = yaml.safe_load(labels.read_text())
        transformer["labels"]["app.kubernetes.io/version"] = home.FLUX_VERSION
        labels.write_text(yaml.safe_dump(transformer, sort_keys=False))
    done = subprocess.run(
        [build.binary("kube"), "kubectl", "kustomize", str(folder / "install")],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise InstallError(f"kubectl kustomize ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return f"# Flux {home.FLUX_VERSION}, composed for a test bench: {', '.join(COMPONENTS)}\n{done.stdout}"


def _localise(base: Path, name: str) -> None:
    """Puts the controller's own folders where its base would fetch release files of the same content."""
    file = base / "kustomization.yaml"
    kustomization: dict[str, Any] = yaml.safe_load(file.read_text())
    kustomization["resources"] = [_local(base, name, resource) for resource in kustomization["resources"]]
    file.write_text(yaml.safe_dump(kustomization, sort_keys=False))


def _local(base: Path, name: str, resource: str) -> str:
    found = re.fullmatch(rf"https://\S+/download/(v[^/]+)/{name}\.(crds|deployment)\.yaml", resource)
    if not found:
        return resource
    wanted, built = found[1], build.Module(build.MODULES / name, build.RECIPES[name]).version
    if wanted != built:
        raise InstallError(f"Flux {home.FLUX_VERSION} has {name} {wanted}, but bench/go/{name} builds {built}")
    part = {"crds": "crd", "deployment": "manager"}[found[2]]
    _copy(build.binary(name).parent / part, base / part)
    return part


def _only_ours(file: Path) -> None:
    kustomization: dict[str, Any] = yaml.safe_load(file.read_text())
    kustomization["resources"] = [
        resource
        for resource in kustomization["resources"]
        if not resource.startswith("../bases/") or resource.removeprefix("../bases/") in COMPONENTS
    ]
    file.write_text(yaml.safe_dump(kustomization, sort_keys=False))


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        folder.chmod(0o755)  # Go's module cache is read-only


def _flux2() -> Path:
    """The folder of flux2's module. Raises InstallError when it is not what it was."""
    wanted = SUMS.get(home.FLUX_VERSION)
    told: dict[str, str] = json.loads(
        build.go(paths.cache(), "mod", "download", "-json", f"{FLUX2}@{home.FLUX_VERSION}")
    )
    if told["Sum"] != wanted:
        raise InstallError(f"{FLUX2} {home.FLUX_VERSION} has the checksum {told['Sum']}, not {wanted}")
    return Path(told["Dir"])
