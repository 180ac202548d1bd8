"""The seed in the CD-ROM drive: an ISO 9660 image with the label ``cidata`` (cloud-init, datasource NoCloud).

A folder stands for the cloud-init drive of Proxmox, which is such an image with the same files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycdlib
import yaml


@dataclass(frozen=True, slots=True)
class Seed:
    """What cloud-init finds in it, parsed. Trouble it complains about is in ``complaints``."""

    instance: str
    meta: Mapping[str, Any]
    user: Mapping[str, Any]
    network: Mapping[str, Any]
    complaints: tuple[str, ...] = ()


def read(iso: Path) -> Seed | None:
    """None when there is no such file, or it is not a seed; cloud-init finds no datasource then."""
    try:
        texts = contents(iso)
    except (OSError, pycdlib.pycdlibexception.PyCdlibException):
        return None
    if "meta-data" not in texts or "user-data" not in texts:
        return None
    complaints: list[str] = []
    meta = mapping(texts["meta-data"], "meta-data", complaints)
    network = mapping(texts.get("network-config", b""), "network-config", complaints)
    user: Mapping[str, Any] = {}
    if not texts["user-data"].startswith(b"#cloud-config"):
        complaints.append("user-data: Unhandled non-multipart (text/x-not-multipart) userdata")
    else:
        user = mapping(texts["user-data"], "user-data", complaints)
    instance = str(meta.get("instance-id") or "iid-nocloud")
    return Seed(instance, meta, user, network.get("network", network), tuple(complaints))


def contents(iso: Path) -> dict[str, bytes]:
    """File name → bytes of the root folder, by Rock Ridge or Joliet name."""
    if iso.is_dir():
        return {path.name: path.read_bytes() for path in iso.iterdir() if path.is_file()}
    image = pycdlib.PyCdlib()
    image.open(str(iso))
    try:
        if image.pvd.volume_identifier.decode("ascii", "replace").strip().lower() != "cidata":
            return {}
        by = "joliet_path" if image.has_joliet() else "rr_path" if image.has_rock_ridge() else "iso_path"
        found = {}
        for child in image.list_children(**{by: "/"}):
            if child is None or child.is_dir():
                continue
            name = image.full_path_from_dirrecord(child, rockridge=by == "rr_path")
            stream = io.BytesIO()
            image.get_file_from_iso_fp(stream, **{by: name})
            found[name.lstrip("/").removesuffix(";1").rstrip(".").lower()] = stream.getvalue()
        return found
    finally:
        image.close()


def mapping(text: bytes, name: str, complaints: list[str]) -> Mapping[str, Any]:
    """The YAML mapping, or nothing and a complaint."""
    try:
        loaded = yaml.safe_load(text) if text.strip() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as why:
        complaints.append(f"{name}: Failed loading yaml blob. {type(why).__name__}")
        return {}
    if not isinstance(loaded, dict):
        complaints.append(f"{name}: Failed loading yaml blob. Yaml load allows (<class 'dict'>,) root types")
        return {}
    return loaded
