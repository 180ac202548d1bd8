"""Files that come in: uploaded, or fetched by the hypervisor itself.

Facts from pve-storage ``PVE/API2/Storage/Status.pm`` and pve-common ``PVE/Tools.pm`` (``download_file_from_url``);
recorded from a real 8.4 API.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from funoffshore.lab.base import Kit
from funoffshore.lab.pve.calls import Call
from funoffshore.lab.pve.refusal import die, invalid
from funoffshore.lab.pve.tasks import Task, TaskError
from funoffshore.lab.pve.volumes import Volume, image_size

_NAMES = {
    "iso": re.compile(r".+\.(?:iso|img)", re.IGNORECASE),
    "vztmpl": re.compile(r".+\.tar\.(?:gz|xz|zst|bz2)"),
    "import": re.compile(r".+\.(?:ova|qcow2|raw|vmdk)"),
}
_TIMEOUT = 30.0
_SPOOL = "/var/tmp/pveupload-0123456789abcdef"  # noqa: S108 - a path in a log, never opened


def _target(call: Call, filename: str) -> Volume:
    """Where the file goes. Refuses wrong contents and extensions; unsafe characters become ``_``."""
    storage, kind = call.house.volumes.storage(call.text("storage")), call.text("content")
    if kind not in storage.content:
        raise die(f"storage '{storage.name}' does not support '{kind}' content")
    name = re.sub(r"[^-a-zA-Z0-9_.]", "_", re.split(r"[/\\]", filename)[-1])
    if not _NAMES[kind].fullmatch(name):
        text = "invalid filename or wrong extension" if kind == "import" else "wrong file extension"
        raise invalid(filename=text)
    return Volume(storage, f"{storage.name}:{kind}/{name}", kind, name, None)


def upload(call: Call) -> str:
    """POST …/upload: the file is stored by a task; one that is there is overwritten without a word."""
    house, data = call.house, call.upload
    target = _target(call, call.text("filename"))
    path, shown = house.volumes.file(call.node, target), house.volumes.shown_path(target)
    algorithm, checksum = call.text("checksum-algorithm"), call.text("checksum")
    if _is_corrupt(house.kit, target):
        data = data[:-1] + bytes(byte ^ 255 for byte in data[-1:])

    def work(task: Task) -> None:
        task.log(f"starting file import from: {_SPOOL}")
        if target.kind == "import":
            _verify_import(task, data, path.suffix, path.parent)
        if checksum:
            _compare(task, hashlib.new(algorithm, data).hexdigest(), checksum)
        task.log(f"target node: {call.node}", f"target file: {shown}", f"file size is: {len(data)}")
        task.log(f"command: cp -- {_SPOOL} {shown}")
        task.pause(house.kit.latencies.task)
        fresh = path.with_name(f".{path.name}.{task.pid}")
        fresh.write_bytes(data)
        fresh.replace(path)
        task.log("finished file import successfully")

    return call.begin("imgcopy", "", work)


def _is_corrupt(kit: Kit, target: Volume) -> bool:
    """By fault: the file loses some of its bytes on the way."""
    return kit.faults.hits("image-corrupt", storage=target.storage.name, filename=target.file)


def _verify_import(task: Task, data: bytes, suffix: str, folder: Path) -> None:
    probe = folder / f".probe.{task.pid}{suffix}"
    probe.write_bytes(data)
    try:
        image_size(probe, _SPOOL)
    except ValueError as why:
        task.log(f"command '/usr/bin/qemu-img info '--output=json' {_SPOOL} -f qcow2' failed: exit code 1")
        raise TaskError(str(why)) from None
    finally:
        probe.unlink(missing_ok=True)


def _compare(task: Task, got: str, expected: str, tail: str = "") -> None:
    if got.lower() != expected.lower():
        task.log("calculating checksum...")
        raise TaskError(f"checksum mismatch: got '{got}' != expect '{expected}'{tail}")
    task.log("calculating checksum...OK, checksum verified")


def download(call: Call) -> str:
    """POST …/download-url: the file is fetched by a task."""
    house, url = call.house, call.text("url")
    target = _target(call, call.text("filename"))
    path, shown = house.volumes.file(call.node, target), house.volumes.shown_path(target)
    checks = (call.text("checksum-algorithm"), call.text("checksum"))
    trusting = call.text("verify-certificates") == "0"

    def work(task: Task) -> None:
        if call.text("compression"):
            raise TaskError(f"decompression not supported for {target.kind}")
        task.log(f"downloading {url} to {shown}")
        if path.exists():
            _keep_existing(task, path, shown, *checks)
            return
        part = path.with_name(f".{path.name}.tmp_dwnl.{task.pid}{path.suffix}")
        try:
            _fetch(house.kit, task, url, part, f"{shown}.tmp_dwnl.{task.pid}", trusting)
            task.pause(house.kit.latencies.download)
            if _is_corrupt(house.kit, target):
                content = part.read_bytes()
                part.write_bytes(content[:-1] + bytes(byte ^ 255 for byte in content[-1:]))
            if checks[1]:
                _compare(task, _digest(part, checks[0]), checks[1])
            _verify_download(task, target, part, f"{shown}.tmp_dwnl.{task.pid}")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        task.log(f"download of '{url}' to '{shown}' finished")

    return call.begin("download", target.file, work)


def _keep_existing(task: Task, path: Path, shown: str, algorithm: str, checksum: str) -> None:
    if not checksum:
        raise TaskError(f"refusing to override existing file '{shown}'")
    got = _digest(path, algorithm)
    if got.lower() != checksum.lower():
        task.log("calculating checksum of existing file...")
        raise TaskError(f"checksum mismatch: got '{got}' != expect '{checksum}', aborting")
    task.log("calculating checksum of existing file...OK, got correct file already, no need to download")


def _verify_download(task: Task, target: Volume, part: Path, shown: str) -> None:
    if target.kind == "import":
        try:
            image_size(part, shown)
        except ValueError as why:
            if "qemu-img" in str(why):
                task.log(f"command '/usr/bin/qemu-img info '--output=json' {shown} -f qcow2' failed: exit code 1")
            raise TaskError(f"failed to verify file: {why}") from None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _fetch(kit: Kit, task: Task, url: str, part: Path, shown: str, trusting: bool) -> None:
    """Raises TaskError in wget's words, whose lines the task's log has."""
    where = urllib.parse.urlsplit(url)
    host, port = where.hostname or "", where.port or (443 if where.scheme == "https" else 80)
    task.log(f"--{_stamp(kit)}--  {url}")
    if trusting and where.scheme == "https":
        about = f"WARNING: The certificate of '{host}'"
        task.log(f"Connecting to {host}:{port}... connected.", f"{about} is not trusted.")
        task.log(f"{about} doesn't have a known issuer.")
    try:
        with _open(kit, url, host, port, trusting) as reply, part.open("wb") as sink:
            if not (trusting and where.scheme == "https"):
                task.log(f"Connecting to {host}:{port}... connected.")
            task.log(f"HTTP request sent, awaiting response... {reply.status} {reply.reason}")
            task.log(_length(reply.headers), f"Saving to: '{shown}'")
            while chunk := reply.read(1 << 20):
                sink.write(chunk)
                if task.stopping:
                    raise TaskError("download failed: received interrupt")
        size = part.stat().st_size
        task.log(f"     0K ........ ........ ........             100%  {max(1, size >> 20)}M=0.05s")
        task.log(f"{_stamp(kit)} ({max(1, size >> 20)} MB/s) - '{shown}' saved [{size}/{size}]")
    except urllib.error.HTTPError as why:
        why.close()
        _refused(kit, task, why, f"Connecting to {host}:{port}... connected.")
        raise TaskError("download failed: exit code 8") from None
    except urllib.error.URLError as why:
        raise TaskError(f"download failed: {_wget(task, why.reason, host, port)}") from None
    except (OSError, ValueError) as why:
        raise TaskError(f"download failed: {_wget(task, why, host, port)}") from None


def _stamp(kit: Kit) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(kit.clock.now()))


def _refused(kit: Kit, task: Task, why: urllib.error.HTTPError, connected: str) -> None:
    if connected not in task.lines:
        task.log(connected)
    task.log(f"HTTP request sent, awaiting response... {why.code} {why.reason}")
    task.log(f"{_stamp(kit)} ERROR {why.code}: {why.reason}.")


def _length(headers: Any) -> str:
    """wget's line about how much is to come."""
    kind = headers.get("Content-Type") or "application/octet-stream"
    size = headers.get("Content-Length")
    if size is None:
        return f"Length: unspecified [{kind}]"
    human = f" ({int(size) / (1 << 20):.0f}M)" if int(size) >= 1 << 20 else ""
    return f"Length: {size}{human} [{kind}]"


def _wget(task: Task, why: object, host: str, port: int) -> str:
    """The last line of wget, which becomes the task's end; what it says before goes into the log."""
    import socket

    if isinstance(why, socket.gaierror):
        task.log(f"Resolving {host} ({host})... failed: Temporary failure in name resolution.")
        return f"wget: unable to resolve host address '{host}'"
    if isinstance(why, ssl.SSLError):
        task.log(f"Connecting to {host}:{port}... connected.", f"ERROR: The certificate of '{host}' is not trusted.")
        return f"ERROR: The certificate of '{host}' doesn't have a known issuer."
    if isinstance(why, ConnectionRefusedError):
        return f"Connecting to {host}:{port}... failed: Connection refused."
    return "exit code 4"


def _open(kit: Kit, url: str, host: str, port: int, trusting: bool) -> Any:
    """Opens the URL, past any proxy of the operator's: a hypervisor would not use it either."""
    request = urllib.request.Request(url)  # noqa: S310 - the table lets only http and https through
    moved = _detour(kit, host, port)
    if moved is not None:
        request.add_header("Host", f"{host}:{port}")
        parts = urllib.parse.urlsplit(url)
        request.full_url = parts._replace(netloc=f"{moved[0]}:{moved[1]}").geturl()
    tls = ssl.create_default_context()
    if trusting:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=tls)]
    if host.startswith("127.") or host == "localhost":
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT)


def _detour(kit: Kit, host: str, port: int) -> tuple[str, int] | None:
    """Where the lab's listener stands in reality, if it had to move."""
    try:
        moved = json.loads((kit.directory / "routes.json").read_text()).get(f"{host}:{port}")
    except (OSError, ValueError):
        return None
    return (str(moved[0]), int(moved[1])) if moved else None


def metadata(call: Call) -> dict[str, Any]:
    """GET …/query-url-metadata: what the node would get there."""
    url = call.text("url")
    where = urllib.parse.urlsplit(url)
    host, port = where.hostname or "", where.port or (443 if where.scheme == "https" else 80)
    try:
        with _open(call.house.kit, url, host, port, call.text("verify-certificates") == "0") as reply:
            kind = reply.headers.get("Content-Type") or "application/octet-stream"
            size, named = reply.headers.get("Content-Length"), reply.headers.get_filename()
    except urllib.error.HTTPError as why:
        why.close()
        raise die(f"invalid server response: '{why.code} {why.reason}'") from None
    except (OSError, ValueError) as why:
        reason = getattr(why, "reason", why)
        told = getattr(reason, "strerror", None) or str(reason)
        raise die(f"invalid server response: '500 Can't connect to {host}:{port} ({told})'") from None
    name = re.sub(r"[^-a-zA-Z0-9_.]", "_", named or where.path.rpartition("/")[2])
    found: dict[str, Any] = {"mimetype": kind.split(";")[0], **({"filename": name} if name else {})}
    return {**found, **({"size": int(size)} if size else {})}
