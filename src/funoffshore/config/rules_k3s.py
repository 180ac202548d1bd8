"""What must hold between the values about K3s. Each rule looks only at values that are right by themselves."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from funoffshore.config import kubernetes, machines
from funoffshore.config.files import Problem
from funoffshore.config.values import Values

_S3_ALL = ("ETCD_S3_ENDPOINT", "ETCD_S3_BUCKET", "ETCD_S3_ACCESS_KEY", "ETCD_S3_SECRET_KEY")
_S3_MORE = ("ETCD_S3_REGION", "ETCD_S3_FOLDER")


def _folder(values: Values) -> Iterator[Problem]:
    """The folder is there and holds K3s. What it holds is verified when it is used."""
    folder: Path | None = values.get("K3S_FOLDER")
    if folder is None:
        return
    try:
        is_folder = stat.S_ISDIR(folder.stat().st_mode)
    except (OSError, ValueError) as why:
        said = why.strerror if isinstance(why, OSError) else "it is no path"
        yield values.problem("K3S_FOLDER", f"cannot be looked at: {said}")
        return
    if not is_folder:
        yield values.problem("K3S_FOLDER", "is not a folder")
    elif not any(_is_readable(folder / name) for name in ("k3s", "k3s-arm64")):
        text = "holds no file k3s that can be read; put the binary of K3S_VERSION there (k3s, k3s-arm64)"
        yield values.problem("K3S_FOLDER", text)


def _is_readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _s3(values: Values) -> Iterator[Problem]:
    if not values.has(*_S3_ALL, *_S3_MORE):
        return
    given = [key for key in (*_S3_ALL, *_S3_MORE) if values[key]]
    for key in _S3_ALL:
        if given and not values[key]:
            yield values.problem(key, f"is required beside {given[0]}")


def _taints(values: Values) -> Iterator[Problem]:
    """Some machine takes what asks for nothing special."""
    drafts = machines.drafts(values)
    if not drafts or not values.has("CONTROLLER_TAINTS"):
        return
    for draft in drafts:
        own = f"NODE_{draft.label}_TAINTS"
        if own in values.lines and not values.has(own):
            return
        default = values["CONTROLLER_TAINTS"] if draft.label.startswith("C") else ()
        taints = values.get(own) or default
        if not any(taint.endswith(f":{effect}") for taint in taints for effect in kubernetes.KEEPS_AWAY):
            return
    key = "CONTROLLER_TAINTS" if "CONTROLLER_TAINTS" in values.given else f"NODE_{drafts[-1].label}_TAINTS"
    yield values.problem(key, "leaves no machine without a taint, so that no application could run anywhere")


def _cis(values: Values) -> Iterator[Problem]:
    if not values.get("K3S_CIS"):
        return
    for key in ("K3S_PROTECT_KERNEL", "SECRETS_ENCRYPTION"):
        if values.has(key) and not values[key]:
            yield values.problem(key, "is false, and the CIS profile (K3S_CIS) asks for it")


RULES: tuple[Callable[[Values], Iterator[Problem]], ...] = (_folder, _s3, _taints, _cis)
