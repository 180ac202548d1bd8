"""Storages and volumes: names, sizes, files.

Disks of machines are entries in the store; images and ISOs are files below the lab's folder, laid out as in a directory
storage. Names and texts from pve-storage ``PVE/Storage.pm``, ``PVE/Storage/Plugin.pm``, ``PVE/Storage/LVMPlugin.pm``,
recorded from a real 8.4 API where it has directory storages.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.pve import archives
from funoffshore.lab.pve.refusal import die

_STORAGES = "pve/storage"
_VOLUMES = "pve/volume"
TOTAL = 16 << 40
"""Bytes that a storage has unless told otherwise."""
SHARED = "*"
"""Stands for the node in the key of a volume on a shared storage."""
_FOLDERS = {
    "iso": "template/iso",
    "vztmpl": "template/cache",
    "import": "import",
    "backup": "dump",
    "snippets": "snippets",
}
_DIR_NAMES = (
    (re.compile(r"iso/([^/\0.][^/\0]*\.(?:iso|img))\Z", re.I), "iso"),
    (re.compile(r"vztmpl/([^/\0.][^/\0]*\.tar\.(?:gz|xz|zst|bz2))\Z"), "vztmpl"),
    (re.compile(r"import/([a-zA-Z0-9_\-][a-zA-Z0-9_.\-]*\.(?:ova|ovf|qcow2|raw|vmdk))\Z"), "import"),
    (re.compile(r"backup/([^/\0.][^/\0]*\.(?:tar|tgz|vma)(?:\.(?:gz|lzo|zst))?)\Z"), "backup"),
    (re.compile(r"snippets/([^/\0.][^/\0]*)\Z"), "snippets"),
)
_DIR_IMAGE = re.compile(r"(?:(\d+)/[^/]+/)?(\d+)/((?:vm|base)-\d+-[^/\s]+\.(?:raw|qcow2|vmdk|subvol))\Z")
_LVM_IMAGE = re.compile(r"((?:vm|base)-(\d+)-\S+)\Z")
_VOLID = re.compile(r"([a-zA-Z][a-zA-Z0-9\-_.]*[a-zA-Z0-9]):(.+)\Z", re.S)


@dataclass(frozen=True, slots=True)
class Storage:
    """One storage of the cluster."""

    name: str
    type: str
    """``lvmthin``, or one that lays files out like ``dir``: ``nfs``, say."""
    content: tuple[str, ...]
    nodes: tuple[str, ...] = ()
    """Where it can be used; everywhere when empty."""
    shared: bool = False
    """Whether all nodes see one set of volumes; else every node has its own."""
    size: int = TOTAL

    def on(self, node: str) -> bool:
        """Whether it can be used there."""
        return not self.nodes or node in self.nodes

    def place(self, node: str) -> str:
        """Where its volumes are kept that ``node`` sees."""
        return SHARED if self.shared else node

    @property
    def path(self) -> str:
        """Where it would lie on a real host; appears in task logs."""
        return "/var/lib/vz" if self.name == "local" else f"/srv/{self.name}"


@dataclass(frozen=True, slots=True)
class Volume:
    """What a volume's name says."""

    storage: Storage
    volid: str
    kind: str
    """``images``, ``iso``, ``import``, …"""
    file: str
    owner: int | None


def split(volid: str) -> tuple[str, str] | None:
    """Storage and name within it, or None for what is no volume (``none``, a path)."""
    found = _VOLID.match(volid)
    return (found[1], found[2]) if found else None


def print_size(size: int) -> str:
    """``1536M``, ``300M``, ``0T``: as drives carry it (pve-common ``format_size``)."""
    for unit in ("", "K", "M", "G"):
        if size % 1024:
            return f"{size}{unit}"
        size //= 1024
    return f"{size}T"


def parse_size(text: str) -> int:
    """Bytes of ``1.5G``. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if found is None:
        raise ValueError(text)
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))


class Volumes:
    """Every storage and every volume, kept in the store and in files."""

    def __init__(self, kit: Kit, nodes: tuple[str, ...], release: str = "9.1") -> None:
        self._kit = kit
        self._nodes = nodes
        self._unknown = ("import",) if release < "8.4" else ()
        self._guard = threading.RLock()
        self._storages = {name: self._known(_stored(name, body)) for name, body in kit.store.scan(_STORAGES)}
        self._disks: dict[str, dict[str, Any]] = dict(kit.store.scan(_VOLUMES))
        if not self._storages:
            self.add("local", "dir", ("iso", "vztmpl", "import", "backup"))
            self.add("local-lvm", "lvmthin", ("images", "rootdir"))

    def add(
        self,
        name: str,
        kind: str,
        content: tuple[str, ...],
        *,
        nodes: tuple[str, ...] = (),
        shared: bool = False,
        size: int | None = None,
    ) -> None:
        """Makes or replaces a storage."""
        made = Storage(name, kind, content, nodes, shared, TOTAL if size is None else size)
        self._kit.store.put(_STORAGES, name, asdict(made))
        made = self._known(made)
        self._storages[name] = made

    def _known(self, storage: Storage) -> Storage:
        """The storage as the release sees it, which may not know every content."""
        return replace(storage, content=tuple(kind for kind in storage.content if kind not in self._unknown))

    def remove(self, name: str) -> None:
        """Forgets a storage, not what lies on it."""
        self._storages.pop(name, None)
        self._kit.store.delete(_STORAGES, name)

    def storages(self, node: str = "") -> list[Storage]:
        """By name: all, or those that can be used on ``node``."""
        found = sorted(self._storages.values(), key=lambda storage: storage.name)
        return [storage for storage in found if not node or storage.on(node)]

    def find(self, name: str) -> Storage | None:
        return self._storages.get(name)

    def storage(self, name: str) -> Storage:
        """Refuses an unknown one with 500."""
        found = self._storages.get(name)
        if found is None:
            raise die(f"storage '{name}' does not exist")
        return found

    def usable(self, name: str, node: str) -> Storage:
        """Refuses an unknown one, and one that ``node`` does not have, with 500."""
        found = self.storage(name)
        if not found.on(node):
            raise die(f"storage '{name}' is not available on node '{node}'")
        return found

    def parse(self, volid: str) -> Volume:
        """What the volume's name says. Refuses unknown storages and malformed names with 500."""
        parts = split(volid)
        if parts is None:
            raise die(f"unable to parse volume ID '{volid}'")
        storage = self.storage(parts[0])
        if storage.type == "lvmthin":
            found = _LVM_IMAGE.match(parts[1])
            if found is None:
                raise die(f"unable to parse lvm volume name '{parts[1]}'")
            return Volume(storage, volid, "images", found[1], int(found[2]))
        if storage.type == "pbs":
            file = archives.pbs_file(parts[1])
            if file is None:
                raise die(f"unable to parse PBS volume name '{parts[1]}'")
            return Volume(storage, volid, "backup", file, archives.owner(file))
        if image := _DIR_IMAGE.match(parts[1]):
            return Volume(storage, volid, "images", image[3], int(image[2]))
        for pattern, kind in _DIR_NAMES:
            if kind not in self._unknown and (named := pattern.match(parts[1])):
                return Volume(storage, volid, kind, named[1], archives.owner(named[1]) if kind == "backup" else None)
        raise die(f"unable to parse directory volume name '{parts[1]}'")

    def folder(self, node: str, storage: Storage, kind: str) -> Path:
        """Where files of that content lie; made if need be."""
        own = storage.name if storage.shared or node == self._nodes[0] else f"{storage.name}.{node}"
        path = self._kit.directory / "pve" / "storage" / own / _FOLDERS[kind]
        path.mkdir(parents=True, exist_ok=True)
        return path

    def file(self, node: str, volume: Volume) -> Path:
        """The file of an ISO or image, there or not."""
        return self.folder(node, volume.storage, volume.kind) / volume.file

    def shown_path(self, volume: Volume) -> str:
        """The path that a real host would name in a log."""
        if volume.kind in _FOLDERS:
            return f"{volume.storage.path}/{_FOLDERS[volume.kind]}/{volume.file}"
        if volume.storage.type == "lvmthin":
            return f"/dev/pve/{volume.file}"
        return f"{volume.storage.path}/images/{volume.owner}/{volume.file}"

    def size(self, node: str, volid: str) -> int | None:
        """Bytes of a volume, virtual ones for a disk; None when it does not exist."""
        volume = self.parse(volid)
        if volume.kind == "images":
            disk = self._disks.get(_key(node, volume))
            return int(disk["size"]) if disk else None
        path = self.file(node, volume)
        return path.stat().st_size if path.is_file() else None

    def allocate(self, node: str, storage: Storage, vmid: int, size: int, form: str, name: str = "") -> str:
        """A new disk; the first free ``disk-<n>`` unless ``name`` is given. Returns its volume ID."""
        self.usable(storage.name, node)
        self._lock(storage, vmid)
        node = storage.place(node)
        with self._guard:
            for index in range(1000):
                stem = f"vm-{vmid}-{name or f'disk-{index}'}"
                volid = f"{storage.name}:" + (stem if storage.type == "lvmthin" else f"{vmid}/{stem}.{form}")
                clashes = {f"{storage.name}:{vmid}/{stem}.{other}" for other in ("raw", "qcow2", "vmdk")} | {volid}
                linked = (key for key in self._disks if key.endswith(f"/{vmid}/{stem}.qcow2"))
                if not any(f"{node} {other}" in self._disks for other in (*clashes, *_volids(linked))):
                    break
                if name:
                    raise die(f"disk image '{self.shown_path(self.parse(volid))}' already exists")
            form = "raw" if storage.type == "lvmthin" else form
            self._put(node, volid, {"vmid": vmid, "size": size, "format": form, "ctime": int(self._kit.clock.now())})
        return volid

    def _lock(self, storage: Storage, vmid: int) -> None:
        """By fault: the cluster's lock on a storage is not to be had. Refuses with 500."""
        if self._kit.faults.hits("lock-timeout", storage=storage.name, vmid=str(vmid)):
            raise die(f"cfs-lock 'storage-{storage.name}' error: got lock request timeout")

    def room(self, node: str, storage: Storage) -> int:
        """Bytes that are free on a storage."""
        return max(0, storage.size - self.used(node, storage))

    def resize(self, node: str, volid: str, size: int) -> None:
        place = self.parse(volid).storage.place(node)
        with self._guard:
            self._put(place, volid, {**self._disks[f"{place} {volid}"], "size": size})

    def to_base(self, node: str, volid: str) -> str:
        """A template's disk: ``vm-…`` becomes ``base-…``, which no start may write to. Returns its new volume ID."""
        place, fresh = self.parse(volid).storage.place(node), re.sub(r"([:/])vm-(\d+-[^/]*)\Z", r"\1base-\2", volid)
        with self._guard:
            disk = self._disks.pop(f"{place} {volid}")
            self._kit.store.delete(_VOLUMES, f"{place} {volid}")
            self._put(place, fresh, disk)
        return fresh

    def link(self, node: str, base: str, vmid: int) -> str:
        """A new disk that holds only what differs from ``base``. Returns its volume ID."""
        source = self.parse(base)
        place = source.storage.place(node)
        with self._guard:
            disk = self._disks[f"{place} {base}"]
            fresh = self.allocate(node, source.storage, vmid, int(disk["size"]), "qcow2")
            linked = {**self._disks.pop(f"{place} {fresh}"), "parent": base}
            if source.storage.type != "lvmthin":
                self._kit.store.delete(_VOLUMES, f"{place} {fresh}")
                inner = base.split(":", 1)[1]
                fresh = f"{source.storage.name}:{inner}/{fresh.split(':', 1)[1]}"
            self._put(place, fresh, linked)
        return fresh

    def links_to(self, node: str, base: str) -> list[str]:
        """Disks that were linked to ``base`` and need it."""
        place = self.parse(base).storage.place(node)
        with self._guard:
            found = [key.split(" ", 1)[1] for key, disk in self._disks.items() if disk.get("parent") == base]
            return sorted(volid for volid in found if f"{place} {volid}" in self._disks)

    def delete(self, node: str, volid: str) -> bool:
        """Removes a volume; False when it was not there."""
        volume = self.parse(volid)
        if volume.kind != "images":
            path = self.file(node, volume)
            there = path.is_file()
            path.unlink(missing_ok=True)
            return there
        self._lock(volume.storage, volume.owner or 0)
        with self._guard:
            there = self._disks.pop(_key(node, volume), None) is not None
            self._kit.store.delete(_VOLUMES, _key(node, volume))
        return there

    def carry(self, vmid: int, source: str, target: str) -> None:
        """Takes a machine's disks along to another node, where they are not on a shared storage."""
        with self._guard:
            for key, disk in list(self._disks.items()):
                place, _, volid = key.partition(" ")
                if place == source and disk["vmid"] == vmid:
                    del self._disks[key]
                    self._kit.store.delete(_VOLUMES, key)
                    self._put(target, volid, disk)

    def disks_of(self, node: str, vmid: int) -> list[str]:
        """Volume IDs of all disks that belong to a machine by name."""
        with self._guard:
            return sorted(
                key.split(" ", 1)[1]
                for key, disk in self._disks.items()
                if key.startswith((f"{node} ", f"{SHARED} ")) and disk["vmid"] == vmid
            )

    def rows(self, node: str, storage: Storage, kinds: Iterable[str], vmid: int | None) -> list[dict[str, Any]]:
        """As the content listing shows them.

        With ``vmid`` only its disks and backups, and, as on the real one, every image to import.
        """
        found: list[dict[str, Any]] = []
        for kind in sorted(set(kinds) & set(storage.content)):
            rows = self._files(node, storage, kind) if kind in _FOLDERS else []
            if kind == "import" or vmid is None:
                found += rows
            elif kind == "backup":
                found += [row for row in rows if row.get("vmid") == vmid]
        if "images" in kinds:
            with self._guard:
                disks = sorted(self._disks.items())
            for key, disk in disks:
                volid = key.split(" ", 1)[1]
                if key.startswith(f"{storage.place(node)} {storage.name}:") and vmid in (None, disk["vmid"]):
                    row = {"volid": volid, "content": "images", "used": 0, "parent": disk.get("parent")}
                    found.append({**row, **{k: disk[k] for k in ("vmid", "size", "format", "ctime")}})
        return found

    def used(self, node: str, storage: Storage) -> int:
        """Bytes that files of a storage take."""
        return sum(int(row["size"]) for kind in _FOLDERS for row in self._files(node, storage, kind))

    def _files(self, node: str, storage: Storage, kind: str) -> list[dict[str, Any]]:
        if storage.type == "lvmthin" or kind not in storage.content:
            return []
        found = []
        for path in sorted(self.folder(node, storage, kind).iterdir()):
            archive = archives.of(path) if kind == "backup" else None
            name = archive.volume if archive else f"{kind}/{path.name}"
            if not path.is_file() or (not archive and not any(p.match(name) for p, k in _DIR_NAMES if k == kind)):
                continue
            form = path.suffix[1:] if kind == "import" else {"vztmpl": "t" + path.suffix[1:]}.get(kind, kind)
            stat = path.stat()
            volid = f"{storage.name}:{name}"
            row: dict[str, Any] = {"volid": volid, "content": kind, "format": form, "size": stat.st_size}
            found.append({**row, "ctime": int(stat.st_mtime), **(archive.row() if archive else {})})
        return found

    def _put(self, node: str, volid: str, disk: dict[str, Any]) -> None:
        self._disks[f"{node} {volid}"] = disk
        self._kit.store.put(_VOLUMES, f"{node} {volid}", disk)


def _stored(name: str, body: dict[str, Any]) -> Storage:
    lists = {"content": tuple(body["content"]), "nodes": tuple(body.get("nodes", ()))}
    return Storage(**{**body, **lists, "name": name})


def _volids(keys: Iterable[str]) -> list[str]:
    return [key.split(" ", 1)[1] for key in keys]


def _key(node: str, volume: Volume) -> str:
    """Where the store keeps a disk."""
    return f"{volume.storage.place(node)} {volume.volid}"


def image_size(path: Path, shown: str, *, may_have_backing: bool = True) -> tuple[int, str]:
    """Virtual size and format of an image file, or a ValueError with qemu-img's words.

    Layout of the header: QEMU ``docs/interop/qcow2.rst`` (magic at 0, backing file offset at 8, size at 24).
    """
    if path.suffix != ".qcow2":
        return path.stat().st_size, path.suffix[1:]
    with path.open("rb") as stream:
        head = stream.read(32)
    if len(head) < 32 or head[:4] != b"QFI\xfb":
        raise ValueError(f"qemu-img: Could not open '{shown}': Image is not in qcow2 format")
    if int.from_bytes(head[8:16], "big") and not may_have_backing:
        raise ValueError(f"backing file not allowed for untrusted image '{shown}'!")
    return int.from_bytes(head[24:32], "big"), "qcow2"
