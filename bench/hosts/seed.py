"""Hands a seed to a machine. The kernel here has no iso9660, so its files are put where cloud-init's NoCloud looks
first; they are read from the very ISO that was uploaded and attached, or are those of Proxmox' cloud-init drive."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

PLACE = "var/lib/cloud/seed/nocloud"


def insert(root: Path, source: Path | None) -> None:
    """The CD-ROM as the machine finds it at power-on: an ISO, or the folder of a cloud-init drive's files.

    Raises ValueError for a file that is no ISO.
    """
    folder = root / PLACE
    shutil.rmtree(folder, ignore_errors=True)
    if source is None:
        return
    folder.mkdir(parents=True)
    for name, content in (_files(source) if source.is_dir() else read(source)).items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def read(iso: Path) -> dict[str, bytes]:
    """The files at the top of an ISO by their Joliet names, or no file when its label is not cidata."""
    import pycdlib
    from pycdlib.pycdlibexception import PyCdlibException

    image: Any = pycdlib.PyCdlib()
    try:
        image.open(str(iso))
    except PyCdlibException as why:
        raise ValueError(f"{iso.name} is no ISO 9660 image: {why}") from why
    try:
        if image.pvd.volume_identifier.decode().strip().lower() != "cidata":
            return {}
        found = {}
        for record in image.list_children(joliet_path="/"):
            if record.is_file():
                name = record.file_identifier().decode("utf-16_be")
                content = io.BytesIO()
                image.get_file_from_iso_fp(content, joliet_path=f"/{name}")
                found[name] = content.getvalue()
        return found
    finally:
        image.close()
