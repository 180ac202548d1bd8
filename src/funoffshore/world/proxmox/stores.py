"""What lies on storages and in the datacenter: images, seeds, pools, backups and their jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from funoffshore import errors
from funoffshore.world.proxmox import answers, shapes
from funoffshore.world.proxmox.base import Base
from funoffshore.world.proxmox.door import File

DELAY = 5
"""Seconds that Proxmox may take over a deletion before it answers with a task instead."""


class Stores(Base):
    """Volumes, pools and backups. Writes that return a string return the UPID of the task they began."""

    def upload_iso(self, node: str, storage: str, name: str, content: bytes, sha256: str) -> str:
        """Silently replaces an ISO of that name. ``sha256`` is checked on the other side."""
        form = {
            # Proxmox reads the parts in exactly this order and swallows whatever follows the file.
            "content": "iso",
            "checksum-algorithm": "sha256",
            "checksum": sha256,
            "filename": File(name, content),
        }
        return self._task(self._door.post(f"/nodes/{node}/storage/{storage}/upload", form))

    def download_url(self, node: str, storage: str, url: str, filename: str, digest: tuple[str, str]) -> str:
        """Has Proxmox fetch a disk image as ``import`` content. A file that is already there and right is success.

        ``digest`` is algorithm (``sha256``, ``sha512``) and hex digits.
        """
        body = {
            "content": "import",
            "url": url,
            "filename": filename,
            "checksum": digest[1],
            "checksum-algorithm": digest[0],
            "verify-certificates": True,
        }
        return self._task(self._door.post(f"/nodes/{node}/storage/{storage}/download-url", body))

    def delete_volume(self, node: str, storage: str, volid: str) -> str:
        """Empty when it was done at once. A volume that is missing counts as removed."""
        answer = self._door.delete(f"/nodes/{node}/storage/{storage}/content/{volid}", delay=DELAY)
        return self._task(answer) if answer else ""

    def create_pool(self, name: str) -> None:
        self._door.post("/pools", {"poolid": name, "comment": "Machines made by funoffshore"})

    def delete_pool(self, name: str) -> None:
        """A pool that is gone already counts as deleted. Raises RefusedError for one that is not empty."""
        try:
            if self._door.known_version().release < (8, 1):
                self._door.delete(f"/pools/{name}")
            else:
                self._door.delete("/pools", poolid=name)
        except (errors.RefusedError, errors.PreflightError) as why:
            # A pool that is not there may also be a question of privileges (recorded).
            if f"pool '{name}' does not exist" not in " ".join((why.message, *why.evidence)):
                raise

    def backups(self, node: str, storage: str, vmid: int | None = None) -> list[shapes.VmBackup]:
        """Backups on the storage that the token may see, of all guests or of one."""
        path = f"/nodes/{node}/storage/{storage}/content"
        only = {} if vmid is None else {"vmid": vmid}
        return self._door.read(answers.each(answers.parse_backup), path, content="backup", **only)

    def vzdump(self, node: str, body: Mapping[str, Any]) -> str:
        """Backs up guests on ``node``. Empty when it has none of those asked for."""
        answer = self._door.post(f"/nodes/{node}/vzdump", body)
        return "" if answer == "OK" else self._task(answer)

    def backup_config(self, node: str, volid: str) -> shapes.VmConfig:
        """The configuration of the VM in a backup, by which it is known before it is restored."""
        path = f"/nodes/{node}/vzdump/extractconfig"
        return self._door.read(answers.parse_config_text, path, volume=volid)

    def backup_jobs(self) -> dict[str, dict[str, str]]:
        """Job → its settings as texts; what Proxmox shows in parts (``prune-backups``) is one text again."""
        return self._door.read(answers.keyed("id"), "/cluster/backup")

    def create_backup_job(self, body: Mapping[str, Any]) -> None:
        self._door.post("/cluster/backup", body)

    def change_backup_job(self, name: str, body: Mapping[str, Any]) -> None:
        self._door.put(f"/cluster/backup/{name}", body)

    def delete_backup_job(self, name: str) -> None:
        self._door.delete(f"/cluster/backup/{name}")
