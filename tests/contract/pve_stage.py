"""What the recorded requests found when they came: tokens, files, and what root did on a shell in between.

Also the requests of which only a name was recorded, put into words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pve_bench
from pve_bench import Bench, qcow2, sha256
from pve_replay import Player
from pve_transcripts import Exchange

SEED = b"s" * 65536
IMAGE = qcow2(300 << 20).ljust(21299200, b"\0")
_PRIVILEGES = (
    "Allocate Audit PowerMgmt Monitor Config.CPU Config.Memory Config.Disk Config.Network Config.HWType Config.Options "
    "Config.Cloudinit Config.CDROM"
)
_ROLE = [*(f"VM.{name}" for name in _PRIVILEGES.split()), "Pool.Audit"]
_ACL = {
    "/pool/fo": _ROLE,
    "/sdn/zones/localnetwork/vmbr0": ["SDN.Use"],
    "/nodes": ["Sys.AccessNetwork", "Sys.Audit"],
    "/storage/local": ["Datastore.AllocateTemplate", "Datastore.Audit"],
    "/storage/vmstore": ["Datastore.AllocateSpace", "Datastore.Audit"],
    "/vms/900": _ROLE,
}
_FILES = {
    "import/deb.qcow2": IMAGE,
    "import/backed.qcow2": qcow2(1 << 20, backing=4096).ljust(196616, b"\0"),
    "import/big.qcow2": qcow2(3 << 30).ljust(196656, b"\0"),
    "import/fake.qcow2": b"hello\n",
    "iso/a.iso": b"x",
}


def prepare(bench: Bench) -> None:
    """Tokens, storages, the pool and files as before the first request."""
    bench.api.add_token("root@pam!full", pve_bench.SECRET)
    bench.api.add_token("fo@pve!t1", pve_bench.SECRET, _ACL)
    bench.api.add_token("fo@pve!old", pve_bench.SECRET, {}, expires=1.0)
    bench.api.add_token("fo@pve!sep", pve_bench.SECRET, {})
    bench.api.add_token("weak@pve!t1", pve_bench.SECRET, {})
    bench.api.add_storage("local", "dir", ("iso", "vztmpl", "import", "backup", "snippets"))
    bench.api.add_storage("vmstore", "dir", ("images", "rootdir"))
    bench.api.remove_storage("local-lvm")
    for name, content in _FILES.items():
        bench.put_file(name, content)


def renamed(bench: Bench, url: str) -> dict[str, str]:
    """Addresses and digests of the recording, and what stands for them here."""
    pin = bench.api.fingerprint.upper()
    recorded = "23:CA:3F:28:E7:B2:CE:F6:C5:19:6C:76:28:F9:01:6C:DB:D8:E3:A0:AC:57:35:1F:FE:C7:CC:C4:78:B6:AF:32"
    return {
        "127.0.0.1:8099": url.removeprefix("http://"),
        "127.0.0.1:8006": f"{bench.address}:8006",
        "'127.0.0.1'": f"'{bench.address}'",
        "192.0.2.10": bench.address,
        "192.0.2.1": bench.address.rpartition(".")[0] + ".1",
        "=SECRET": f"={pve_bench.SECRET}",
        recorded: ":".join(pin[n : n + 2] for n in range(0, 64, 2)),
        "47cd09d13ecc53d3b32121737959b43cc21dc4555771bef7203dc6ad14dbfe73": sha256(IMAGE),
        "f1fe604a170de2dead819552797cd6931d062b3f40705669d091221d79c2ea3b0": sha256(SEED)[1:] + "0",
        "81fe604a170de2dead819552797cd6931d062b3f40705669d091221d79c2ea3b": sha256(SEED),
    }


def web_files() -> dict[str, bytes]:
    """What the recording's web server had."""
    return {"img.qcow2": IMAGE, "img.img": IMAGE, "page.qcow2": b"hello"}


Move = Callable[[Player], object]


def _fault(name: str, **how: str) -> Move:
    return lambda player: player.bench.kit.faults.on(name, **how)


def _no_fault(name: str) -> Move:
    return lambda player: player.bench.kit.faults.off(name)


def _edit(vmid: int, **options: Any) -> Move:
    return lambda player: player.bench.api.edit(vmid, **options)


def _destroyed(vmid: int, more: Move = lambda _: None) -> Move:
    def move(player: Player) -> None:
        player.bench.api.edit(vmid, protection=None, lock=None)
        assert player.bench.done("DELETE", f"/nodes/pve/qemu/{vmid}") == "OK"
        more(player)

    return move


def _storage_tiny(player: Player) -> None:
    player.bench.api.add_storage("tiny", "dir", ("images",), size=40 << 20)


def _fat(player: Player) -> None:
    player.bench.put_file("import/fat.qcow2", qcow2(100 << 20).ljust(73728000, b"\0"))


def _deaf(vmid: int) -> Move:
    return lambda player: player.bench.guests.deaf.add(vmid)


def _killed(line_of: str) -> Move:
    def move(player: Player) -> None:
        upid = next(ours for theirs, ours in player.upids.items() if line_of in theirs)
        player.bench.api.kill_worker(upid)
        player.bench.status(upid)
        player.bench.kit.faults.off("task-hang")

    return move


def _both(*moves: Move) -> Move:
    def move(player: Player) -> None:
        for one in moves:
            one(player)

    return move


def _template(player: Player) -> None:
    player.bench.call("POST", "/nodes/pve/qemu/170/template")


def _release_soon(player: Player) -> None:
    player.bench.kit.clock.after(1.0, lambda: player.bench.kit.faults.off("task-hang"))


BEFORE: dict[int, Move] = {
    446: _storage_tiny,
    500: _fault("task-fail", type="qmcreate", times="1"),
    583: _fault("task-hang", type="qmcreate"),
    599: _release_soon,
    648: _fat,
    929: _fault("lock-timeout", vmid="120", times="1"),
    932: _both(_edit(120, cores=2), lambda player: player.bench.api.hold_lock(120, 2.0)),
    937: _edit(126, lock="backup"),
    964: _edit(126, lock="create"),
    991: _edit(126, lock="clone"),
    1018: _edit(126, lock=None),
    1166: _deaf(130),
    1870: _fault("task-hang", type="qmcreate"),
    1891: _fault("lock-timeout", vmid="142", times="1"),
    1897: _killed(":qmcreate:142:"),
    1920: _fault("task-hang", type="qmcreate"),
    1946: _no_fault("task-hang"),
    1976: _destroyed(150),
    2018: _destroyed(150),
    2021: _destroyed(150),
    2105: _fault("task-fail", type="qmstart", times="1"),
    2165: _fault("task-hang", type="qmcreate"),
    2192: _no_fault("task-hang"),
    2210: _fault("task-hang", type="qmcreate"),
    2219: _killed(":qmcreate:153:"),
    2227: _both(_destroyed(153), _edit(142, lock=None)),
    2411: _template,
    2501: lambda player: player.bench.guests.power_off(115),
}
"""By line of the recording: what happened before that request, past the API."""

RUNNING = frozenset((583, 1870, 1894, 1920, 2165, 2210))
"""Requests whose tasks the next ones find running."""

UNCOMPARED: Mapping[int, str] = {2105: "the recording machine could not make cloud-init ISOs"}
"""Requests that are sent because later ones show their traces, but whose answers say nothing."""


def multipart(parts: list[tuple[str, str | None, bytes]], *, length: int = 40) -> dict[str, Any]:
    """Headers and body of an upload as curl writes it: name, file name (None for a field), content."""
    boundary = "-" * 24 + "0123456789abcdef"[: length - 24]
    body = b""
    for name, filename, content in parts:
        tail = "" if filename is None else f'; filename="{filename}"'
        kind = "" if filename is None else "Content-Type: application/octet-stream\r\n"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{tail}\r\n{kind}\r\n'
        body += head.encode() + content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return {"data": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


def _upload(
    *fields: str, name: str = "seed.iso", content: bytes = SEED, part: str = "filename", storage: str = "local"
) -> tuple[str, str, dict[str, Any]]:
    parts: list[tuple[str, str | None, bytes]] = []
    for field in fields:
        if field == "FILE":
            parts.append((part, name, content))
        else:
            key, _, value = field.partition("=")
            parts.append((key, None, value.encode()))
    return "POST", f"/nodes/pve/storage/{storage}/upload", multipart(parts)


_ISO, _ALGORITHM, _SUM = "content=iso", "checksum-algorithm=sha256", f"checksum={sha256(SEED)}"
_WRONG = "checksum=920f715b281ef3efbe92a6638a8de7a42e173c405181677ae1a2332e8ad3fb4c"
UPLOADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "content=iso,file": _upload(_ISO, "FILE"),
    "again, same file (overwrite?)": _upload(_ISO, "FILE"),
    "content,checksum ok": _upload(_ISO, _ALGORITHM, _SUM, "FILE", name="seed2.iso"),
    "checksum wrong": _upload(_ISO, _ALGORITHM, f"checksum={sha256(SEED)[1:]}0", "FILE", name="seed3.iso"),
    "checksum wrong valid": _upload(_ISO, _ALGORITHM, _WRONG, "FILE", name="seed3.iso"),
    "checksum without algorithm": _upload(_ISO, _SUM, "FILE", name="seed3.iso"),
    "file first": _upload("FILE", _ISO),
    "file between": _upload(_ISO, "FILE", _ALGORITHM, _SUM, name="seed4.iso"),
    "field named file": _upload(_ISO, "FILE", part="file"),
    "bad ext": _upload(_ISO, "FILE", name="seed.txt"),
    "img ext as iso": _upload(_ISO, "FILE", name="seed.img"),
    "odd name": _upload(_ISO, "FILE", name="se ed(1).iso"),
    "path name": _upload(_ISO, "FILE", name="../../x.iso"),
    "import qcow2": _upload("content=import", "FILE", name="up.qcow2", content=IMAGE),
    "import fake qcow2": _upload("content=import", "FILE", name="up2.qcow2", content=b"hello"),
    "import img": _upload("content=import", "FILE", name="up.img"),
    "snippets": _upload("content=snippets", "FILE"),
    "images": _upload("content=images", "FILE"),
    "no file": _upload(_ISO),
    "unknown field": _upload(_ISO, "bogus=1", "FILE"),
    "storage lacks content type": _upload(_ISO, "FILE", storage="vmstore"),
    "no storage": _upload(_ISO, "FILE", storage="nosuch"),
    "weak": _upload(_ISO, "FILE"),
    "fo": _upload(_ISO, "FILE", name="fo.iso"),
    "content,checksum,checksum-algorithm,file": _upload(_ISO, _SUM, _ALGORITHM, "FILE"),
    "checksum-algorithm,checksum,content,file": _upload(_ALGORITHM, _SUM, _ISO, "FILE"),
    "no checksum alg order: content, checksum-algorithm only": _upload(_ISO, _ALGORITHM, "FILE"),
    "quoted filename uppercase ISO": _upload(_ISO, "FILE", name="O4.ISO"),
    "content-type iso part": _upload(_ISO, "FILE", name="o5.iso"),
    "expect": _upload(_ISO, "FILE", name="o7.iso"),
    "empty": _upload(_ISO, "FILE", name="empty.iso", content=b""),
}

_900 = "/nodes/pve/qemu/900/config"
_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_LOGIN = "/access/ticket"
NAMED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "login wrong": ("POST", _LOGIN, {"data": {"username": "fo@pve", "password": "wrong"}}),
    "login unknown realm": ("POST", _LOGIN, {"data": {"username": "fo@nope", "password": "secret123"}}),
    "login no user": ("POST", _LOGIN, {"data": {"username": "nobody@pve", "password": "secret123"}}),
    "login disabled user": ("POST", _LOGIN, {"data": {"username": "off@pve", "password": "secret123"}}),
    "login without realm": ("POST", _LOGIN, {"data": {"username": "fo", "password": "secret123"}}),
    "cookie and token both (bad cookie)": ("GET", "/version", {"headers": {"Cookie": "PVEAuthCookie=PVE:x:1::y"}}),
    "gzip big": ("GET", "/access/permissions", {"headers": {"Accept-Encoding": "gzip"}}),
    "gzip small": ("GET", "/version", {"headers": {"Accept-Encoding": "gzip"}}),
    "gzip error": ("GET", "/cluster/nextid?vmid=5", {"headers": {"Accept-Encoding": "gzip"}}),
    "chunked": ("PUT", _900, {"data": iter([b"cores=1"])}),
    "json body": ("PUT", _900, {"json": {"cores": 2, "description": "ü"}}),
    "json bool": ("PUT", _900, {"json": {"onboot": True}}),
    "json false": ("PUT", _900, {"json": {"onboot": False}}),
    "json null": ("PUT", _900, {"json": {"onboot": None}}),
    "json list": ("PUT", _900, {"json": {"delete": ["agent", "onboot"]}}),
    "json charset": (
        "PUT",
        _900,
        {"data": '{"cores":3}', "headers": {"Content-Type": "application/json; charset=utf-8"}},
    ),
    "json broken": ("PUT", _900, {"data": '{"cores":', "headers": _JSON}),
    "text/plain body": ("PUT", _900, {"data": "cores=1", "headers": {"Content-Type": "text/plain"}}),
    "no content type": ("PUT", _900, {"data": b"memory=512"}),
    "repeated key": ("PUT", _900, {"data": [("cores", 1), ("cores", 2)]}),
    "repeated delete": ("PUT", _900, {"data": [("delete", "cores"), ("delete", "memory")]}),
    "semicolon raw": ("PUT", _900, {"data": "tags=a;b", "headers": _FORM}),
    "equals raw": ("PUT", _900, {"data": "net0=virtio,bridge=vmbr0", "headers": _FORM}),
    "config now": ("GET", _900, {}),
    "param in query of POST": ("PUT", f"{_900}?cores=4", {}),
    "query+body": ("PUT", f"{_900}?cores=2", {"data": {"memory": 512}}),
    "GET with body": ("GET", "/version", {"data": {"a": 1}}),
    "GET unknown param": ("GET", "/version?foo=1", {}),
    "over 512K": ("PUT", _900, {"data": {"description": "x" * 600_000}}),
    "desc 9000": ("PUT", _900, {"data": {"description": "x" * 9000}}),
    "long URL": ("GET", f"/version?x={'a' * 8000}", {}),
    "PATCH": ("PATCH", "/version", {}),
    "OPTIONS": ("OPTIONS", "/version", {}),
    "trailing slash": ("GET", "/version/", {}),
    "double slash": ("GET", "//version", {}),
    "expect 100": ("PUT", _900, {"data": {"cores": 1}, "headers": {"Expect": "100-continue"}}),
    "bad percent": ("GET", "/cluster/nextid?vmid=%25zz", {}),
    "method not on path": ("DELETE", "/nodes", {}),
    "POST on GET path": ("POST", "/cluster/nextid", {}),
    "empty POST": ("POST", "/nodes/pve/qemu/900/status/current", {}),
    **{f"UPLOAD {name}": request for name, request in UPLOADS.items()},
}
"""Requests of which the recording has only the name."""

_DOWNLOAD = "/nodes/pve/storage/local/download-url"
REPAIRED: dict[int, tuple[str, dict[str, str]]] = {
    1529: (_DOWNLOAD, {"content": "import", "url": "URL/img.qcow2", "filename": "dl.qcow2"}),
    1549: (_DOWNLOAD, {"content": "import", "url": "URL/none.qcow2", "filename": "dl3.qcow2"}),
    1559: (_DOWNLOAD, {"content": "import", "url": "URL/img.img", "filename": "dl3.img"}),
}
"""Requests whose own line was cut off, completed from what their tasks say."""


def complete(recorded: Exchange, url: str) -> None:
    """Gives a request that is only named, or cut off, what it needs to be sent."""
    if recorded.line in REPAIRED:
        recorded.path, sent = REPAIRED[recorded.line]
        recorded.method = "POST"
        recorded.sent = [(name, value.replace("URL", url)) for name, value in sent.items()]
    if recorded.text.endswith("[Token…"):
        recorded.sent[-1] = ("filename", recorded.sent[-1][1].split()[0])
    recorded.sent = [(name, _mended(value)) for name, value in recorded.sent]
    if not recorded.who and (recorded.named or recorded.line in REPAIRED or recorded.text.endswith("[Token…")):
        recorded.who = "" if recorded.text.startswith("login") else "root@pam"


def _mended(value: str) -> str:
    """A value whose dots or carriage return the recording lost."""
    return value.replace("line…", "line one").replace("crlf\nx", "crlf\r\nx")


LEFT_OUT: tuple[tuple[int, int, str], ...] = (
    (37, 37, "the recording machine lacked the web interface's files"),
    (43, 43, "a request without words"),
    (45, 45, "indexes: fo asks for none"),
    (87, 87, "the status daemon had not told anything yet"),
    (93, 93, "the status daemon had not told anything yet"),
    (111, 111, "hardware of the recording machine"),
    (476, 476, "wording of another QEMU; a full storage is at 648"),
    (504, 504, "how far a task was at that moment"),
    (630, 630, "the recording machine had two CPUs, and no machine shows more"),
    (655, 655, "the recording machine lacked the firmware's files"),
    (1023, 1073, "the recording machine could not start guests yet"),
    (1079, 1079, "how far a task was at that moment"),
    (1192, 1192, "suspend: fo does not do it"),
    (1348, 1348, "a count of failed tasks: 34, six of them of requests that are left out"),
    (1628, 1629, "the recording of PUT /access/password is garbled"),
    (1633, 1637, "tickets: fo has tokens only"),
    (1661, 1683, "tickets: fo has tokens only"),
    (1690, 1694, "tickets: fo has tokens only"),
    (1807, 1807, "HTTP/1.0: no client of ours speaks it"),
    (1879, 1879, "how far a copy was at that moment"),
    (1900, 1900, "how far a copy was at that moment"),
    (2150, 2150, "/cluster/options: fo does not ask for it"),
    (2268, 2268, "chunked: at 1709 already"),
    (2276, 2276, "200 MB: an upload is an upload"),
    (2366, 2366, "qemu-img's words about a disk that is gone"),
    (2377, 2377, "qemu-img's words about a disk that is gone"),
    (2478, 2481, "the recording machine had no HA manager at work"),
    (2487, 2487, "the recording machine had no HA manager at work"),
    (2495, 2498, "the recording machine lacked the folder of jobs"),
    (2595, 2599, "a daemon that hangs: see the faults"),
    (2602, 2602, "printed twice"),
    (2608, 2640, "without pmxcfs: the lab's never stops"),
)
"""Lines of requests that are not sent, and why."""


def left_out(line: int) -> bool:
    """Whether the request at that line is not sent."""
    return any(first <= line <= last for first, last, _ in LEFT_OUT)
