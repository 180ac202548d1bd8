"""What the helper does at most once, in parts, or not at all: real python3, its text and the request on stdin."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from funoffshore.world.ssh import program

ROOT = pytest.mark.skipif(os.getuid() != 0, reason="files are given to root here")
ID = "0123456789abcdef0123456789abcdef"


def text(request: dict[str, Any], tmp: Path) -> bytes:
    """The program, with its notes and K3s below ``tmp``."""
    return (
        program.script(request)
        .replace(b'"/run/funoffshore"', json.dumps(f"{tmp}/notes").encode())
        .replace(b'"/usr/local/bin/k3s"', json.dumps(f"{tmp}/k3s").encode())
    )


def start(request: dict[str, Any], tmp: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PATH": f"{tmp}/bin:{os.environ['PATH']}"}
    argv = [sys.executable, "-I", "-"]
    process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(text(request, tmp))
    process.stdin.close()
    process.stdin = None
    return process


def answer(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    found: dict[str, Any] = json.loads(out)
    return found


def ask(request: dict[str, Any], tmp: Path) -> dict[str, Any]:
    return answer(start(request, tmp))


def give(tmp: Path, name: str, script: str) -> None:
    """A program on the PATH of the helper."""
    (tmp / "bin").mkdir(exist_ok=True)
    file = tmp / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


UNIT = {"units": [{"name": "x.service", "action": "restart"}]}


@pytest.fixture
def systemctl(tmp_path: Path) -> Path:
    """A systemctl that waits for ``go`` when it is to restart; the file where it writes down what it did."""
    (tmp_path / "go").touch()
    give(tmp_path, "systemctl", f'while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo "$@" >> {tmp_path}/log')
    return tmp_path / "log"


def test_a_second_call_with_the_same_id_waits_and_gets_the_first_ones_answer(tmp_path: Path, systemctl: Path) -> None:
    (tmp_path / "go").unlink()
    running = [start({**UNIT, "id": ID, "read": {"space": ["/"]}}, tmp_path) for _ in range(4)]
    while not all(has_open(process.pid, tmp_path / "notes" / ID) for process in running):
        assert all(process.poll() is None for process in running)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    answers = [answer(process) for process in running]
    assert all(found["changes"] == answers[0]["changes"] for found in answers)
    assert all(found["read"]["space"]["/"]["state"] == "present" for found in answers)
    assert systemctl.read_text().splitlines() == ["daemon-reload", "restart x.service"]
    ask({**UNIT, "id": ID[::-1]}, tmp_path)
    assert systemctl.read_text().count("restart") == 2


def has_open(pid: int, file: Path) -> bool:
    """Whether the process has opened it, as proc(5) tells."""
    with contextlib.suppress(OSError):
        return any(os.readlink(link) == str(file) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_a_hang_up_ends_nothing(tmp_path: Path, systemctl: Path) -> None:
    (tmp_path / "go").unlink()
    process = start({**UNIT, "id": ID}, tmp_path)
    while not (tmp_path / "notes" / ID).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").touch()
    assert answer(process)["changes"]["units"] == [{"on": "x.service", "result": "done"}]


def test_one_that_was_killed_in_the_middle_is_lost_and_not_repeated(tmp_path: Path, systemctl: Path) -> None:
    (tmp_path / "go").unlink()
    process = start({**UNIT, "id": ID}, tmp_path)
    while not (tmp_path / "notes" / ID).exists() or not (tmp_path / "notes" / ID).read_text():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    (tmp_path / "go").touch()
    [lost] = ask({**UNIT, "id": ID}, tmp_path)["changes"]["once"]
    assert (lost["result"], lost["kind"]) == ("failed", "lost")
    assert "restart" not in (systemctl.read_text() if systemctl.exists() else "")


def test_notes_are_kept_for_an_hour(tmp_path: Path, systemctl: Path) -> None:
    ask({**UNIT, "id": ID}, tmp_path)
    ask({**UNIT, "id": ID[::-1]}, tmp_path)
    assert sorted(os.listdir(tmp_path / "notes")) == sorted([ID, ID[::-1]])
    old = time.time() - 3700
    os.utime(tmp_path / "notes" / ID, (old, old))
    ask({**UNIT, "id": "f" * 32}, tmp_path)
    assert sorted(os.listdir(tmp_path / "notes")) == sorted([ID[::-1], "f" * 32])


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "short", "g/" * 16])
def test_an_id_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    [refused] = ask({"id": name, "remove": [f"{tmp_path}/x"]}, tmp_path)["changes"]["once"]
    assert (refused["result"], refused["kind"]) == ("failed", "request")


def chunk(path: Path, whole: bytes, offset: int, end: int) -> dict[str, Any]:
    data = base64.b64encode(whole[offset:end]).decode()
    sha256 = hashlib.sha256(whole).hexdigest()
    return {"path": str(path), "sha256": sha256, "size": len(whole), "offset": offset, "data": data, "mode": "0755"}


def push(tmp: Path, item: dict[str, Any]) -> dict[str, Any]:
    [outcome] = ask({"push": [item]}, tmp)["changes"]["push"]
    return {key: outcome.get(key) for key in ("result", "have", "kind") if key in outcome}


@ROOT
def test_a_file_that_comes_in_parts_appears_when_it_is_whole(tmp_path: Path) -> None:
    whole, path = os.urandom(1000), tmp_path / "new" / "k3s"
    assert push(tmp_path, chunk(path, whole, 0, 0)) == {"result": "staged", "have": 0}
    assert push(tmp_path, chunk(path, whole, 0, 400)) == {"result": "staged", "have": 400}
    assert push(tmp_path, chunk(path, whole, 0, 400)) == {"result": "staged", "have": 400}  # a repeated one
    assert push(tmp_path, chunk(path, whole, 700, 1000)) == {"result": "staged", "have": 400}  # one too early
    assert not path.exists()
    assert push(tmp_path, chunk(path, whole, 400, 1000)) == {"result": "changed", "have": 1000}
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (whole, 0o755)
    assert os.listdir(path.parent) == ["k3s"]
    assert push(tmp_path, chunk(path, whole, 0, 0)) == {"result": "same", "have": 1000}
    path.chmod(0o600)
    assert push(tmp_path, chunk(path, whole, 0, 0)) == {"result": "changed", "have": 1000}
    assert path.stat().st_mode & 0o777 == 0o755


@ROOT
def test_parts_that_do_not_make_the_pinned_file_leave_nothing(tmp_path: Path) -> None:
    whole, path = os.urandom(1000), tmp_path / "k3s"
    path.write_bytes(b"the old one")
    wrong = {**chunk(path, whole, 0, 1000), "sha256": "0" * 64}
    assert push(tmp_path, wrong) == {"result": "failed", "kind": "digest"}
    assert path.read_bytes() == b"the old one"
    assert sorted(os.listdir(tmp_path)) == ["k3s"]


class Cut(http.server.BaseHTTPRequestHandler):
    """Gives at most ``piece`` bytes a time; knows ranges unless ``plain``."""

    whole = b""
    piece = 0
    plain = False
    asked: list[str] = []  # noqa: RUF012  # set anew by every test

    def do_GET(self) -> None:
        begin = self.headers.get("Range", "")
        self.asked.append(begin)
        at = int(begin.removeprefix("bytes=").rstrip("-")) if begin and not self.plain else 0
        if at >= len(self.whole):
            self.send_error(416)
            return
        self.send_response(206 if at else 200)
        if at:
            self.send_header("Content-Range", f"bytes {at}-{len(self.whole) - 1}/{len(self.whole)}")
        self.send_header("Content-Length", str(len(self.whole) - at))
        self.end_headers()
        self.wfile.write(self.whole[at : at + self.piece])

    def log_message(self, *words: Any) -> None:
        pass


@contextlib.contextmanager
def offering(whole: bytes, piece: int, *, plain: bool = False) -> Iterator[tuple[str, list[str]]]:
    """The URL, and the ranges that were asked for."""
    handler = type("Handler", (Cut,), {"whole": whole, "piece": piece, "plain": plain, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/k3s", handler.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


def download(tmp: Path, url: str, whole: bytes) -> dict[str, Any]:
    item = {"url": url, "path": f"{tmp}/there/k3s", "sha256": hashlib.sha256(whole).hexdigest(), "mode": "0755"}
    [outcome] = ask({"download": [item]}, tmp)["changes"]["download"]
    return dict(outcome)


@ROOT
def test_a_download_that_is_cut_goes_on_by_range(tmp_path: Path) -> None:
    whole = os.urandom(100_000)
    with offering(whole, 30_000) as (url, asked):
        assert download(tmp_path, url, whole)["result"] == "changed"
        assert asked == ["", "bytes=30000-", "bytes=60000-", "bytes=90000-"]
    assert (tmp_path / "there" / "k3s").read_bytes() == whole
    assert os.listdir(tmp_path / "there") == ["k3s"]


@ROOT
def test_a_download_that_fails_is_gone_on_with_by_the_next_run(tmp_path: Path) -> None:
    whole = os.urandom(100_000)
    with offering(whole, 15_000) as (url, asked):
        failed = download(tmp_path, url, whole)
        assert (failed["kind"], failed["error"]) == ("network", f"{url}: cut off after 75000 of 100000 bytes")
        assert not (tmp_path / "there" / "k3s").exists()
        asked.clear()
        assert download(tmp_path, url, whole)["result"] == "changed"
        assert asked == ["bytes=75000-", "bytes=90000-"]
    assert (tmp_path / "there" / "k3s").read_bytes() == whole


@ROOT
def test_a_server_without_ranges_gives_the_whole_file_again(tmp_path: Path) -> None:
    whole = os.urandom(100_000)
    with offering(whole, 60_000, plain=True) as (url, _):
        assert download(tmp_path, url, whole)["kind"] == "network"
    with offering(whole, 100_000, plain=True) as (url, asked):
        assert download(tmp_path, url, whole)["result"] == "changed"
        assert asked == ["bytes=60000-"]
    assert (tmp_path / "there" / "k3s").read_bytes() == whole


@ROOT
@pytest.mark.parametrize("left", [b"x" * 40_000, b"x" * 100_000, b"x" * 200_000])
def test_what_an_earlier_run_left_of_another_file_does_no_harm(tmp_path: Path, left: bytes) -> None:
    whole = os.urandom(100_000)
    staged = tmp_path / "there" / f".k3s.{hashlib.sha256(whole).hexdigest()[:16]}.fo-part"
    staged.parent.mkdir()
    staged.write_bytes(left)
    with offering(whole, 100_000) as (url, _):
        assert download(tmp_path, url, whole)["result"] == "changed"
    assert (tmp_path / "there" / "k3s").read_bytes() == whole
    assert os.listdir(tmp_path / "there") == ["k3s"]


def test_what_is_not_k3s_own_is_never_wiped(tmp_path: Path) -> None:
    give(tmp_path, "systemctl", "echo ActiveState=inactive")
    for path in ("/", "/etc", "/var/lib", "/var/lib/rancher-other", "/var/lib/rancher/../x", "/var/lib/rancher/", ""):
        [outcome] = ask({"wipe": [path]}, tmp_path)["changes"]["wipe"]
        assert (outcome["result"], outcome["kind"]) == ("failed", "request"), path
        assert "nothing that fo removes" in outcome["error"]


@pytest.mark.parametrize("state", ["ActiveState=active", "ActiveState=activating", "ActiveState=deactivating", ""])
def test_nothing_is_wiped_unless_k3s_is_stopped(tmp_path: Path, state: str) -> None:
    give(tmp_path, "systemctl", f'case "$3" in k3s-agent*) echo {state};; *) echo ActiveState=inactive;; esac')
    [outcome] = ask({"wipe": ["/var/lib/rancher/none"]}, tmp_path)["changes"]["wipe"]
    assert (outcome["result"], outcome["kind"]) == ("failed", "unit")
    assert "k3s-agent.service is not stopped" in outcome["error"]


SAID = """echo 'token K10aaaabbbbccccdddd::server:verysecret given' >&2
echo 'joined with abcdef.0123456789abcdef'
echo 'level=fatal msg="Error: no K10aaaabbbbccccdddd::server:verysecret"' >&2
exit $1
"""


def test_k3s_is_run_and_what_it_says_when_it_fails_holds_no_token(tmp_path: Path) -> None:
    (tmp_path / "k3s").write_text(f"#!/bin/sh\n{SAID}")
    (tmp_path / "k3s").chmod(0o755)
    [good] = ask({"k3s": [{"argv": ["0"], "label": "save"}]}, tmp_path)["changes"]["k3s"]
    assert (good["on"], good["result"], good["code"]) == ("save", "done", 0)
    assert good["out"] == "joined with abcdef.0123456789abcdef\n"
    answered = ask({"k3s": [{"argv": ["3"]}], "grow": [{"path": "/nowhere"}]}, tmp_path)["changes"]
    [bad] = answered["k3s"]
    assert (bad["on"], bad["result"], bad["kind"], bad["code"]) == ("k3s 3", "failed", "k3s", 3)
    assert bad["error"] == 'k3s 3: exit 3: level=fatal msg="Error: no K10***"'
    assert "verysecret" not in json.dumps(answered)
    assert "0123456789abcdef" not in json.dumps(answered)
    assert answered["grow"][0]["result"] == "skipped"


def test_k3s_that_hangs_runs_into_its_timeout(tmp_path: Path) -> None:
    (tmp_path / "k3s").write_text("#!/bin/sh\nexec sleep 20\n")
    (tmp_path / "k3s").chmod(0o755)
    [outcome] = ask({"k3s": [{"argv": ["etcd-snapshot", "save"], "timeout": 0.2}]}, tmp_path)["changes"]["k3s"]
    assert (outcome["result"], outcome["kind"]) == ("failed", "timeout")


def test_changes_come_in_their_order_and_stop_at_the_first_failure(tmp_path: Path, systemctl: Path) -> None:
    give(tmp_path, "sysctl", f'echo "sysctl $@" >> {tmp_path}/log')
    request = {
        **UNIT,
        "before": [{"name": "x.service", "action": "stop"}],
        "sysctl": [{"path": "/etc/sysctl.d/90-kubelet.conf"}],
        "k3s": [{"argv": ["etcd-snapshot", "save"]}],
        "grow": [{"path": "/nowhere"}],
    }
    changes = ask(request, tmp_path)["changes"]
    assert list(changes) == ["before", "sysctl", "reload", "units", "k3s", "grow"]
    assert systemctl.read_text().splitlines() == [
        "stop x.service", "sysctl -p /etc/sysctl.d/90-kubelet.conf", "daemon-reload", "restart x.service",
    ]  # fmt: skip
    assert [changes[name][0]["result"] for name in ("units", "k3s", "grow")] == ["done", "failed", "skipped"]
    give(tmp_path, "sysctl", "echo 'cannot stat /proc/sys/x: No such file or directory' >&2; exit 1")
    failed = ask(request, tmp_path)["changes"]
    assert (failed["sysctl"][0]["kind"], failed["units"][0]["result"]) == ("sysctl", "skipped")
    assert "cannot stat /proc/sys/x" in failed["sysctl"][0]["error"]


def test_modes_of_what_a_pattern_stands_for(tmp_path: Path) -> None:
    for name in ("a.key", "b.key", ".hidden.key", "c.crt"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "link.key").symlink_to("/etc")
    request = {"read": {"modes": [f"{tmp_path}/*.key", f"{tmp_path}/none*", str(tmp_path), f"{tmp_path}/no"]}}
    modes = ask(request, tmp_path)["read"]["modes"]
    found = {os.path.basename(path): item for path, item in modes.items()}
    assert sorted(found) == sorted(["a.key", "b.key", "link.key", "none*", tmp_path.name, "no"])
    assert (found["a.key"]["mode"], found["a.key"]["kind"], found["a.key"]["size"]) == ("0600", "file", 1)
    assert found["a.key"]["owner"] == f"{os.getuid()}:{os.getgid()}"
    assert abs(found["a.key"]["mtime"] - time.time()) < 3600
    assert (found["link.key"]["kind"], found[tmp_path.name]["kind"]) == ("other", "directory")
    assert found["none*"] == found["no"] == {"state": "absent"}


def test_a_piece_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(tmp_path / "x")

    def piece(name: str, offset: int, length: int) -> dict[str, Any]:
        item = {"path": f"{tmp_path}/{name}", "offset": offset, "length": length}
        found: dict[str, Any] = ask({"read": {"fetch": [item]}}, tmp_path)["read"]["fetch"][item["path"]]
        return found

    assert piece("x", 4, 3) == {"state": "present", "size": 10, "data": base64.b64encode(b"456").decode()}
    assert piece("x", 8, 3)["data"] == base64.b64encode(b"89").decode()
    assert piece("none", 0, 1) == {"state": "absent"}
    for name, length in (("link", 1), ("", 1), ("x", 9 << 20)):
        assert piece(name, 0, length)["state"] == "unreadable"


def test_neighbours_are_asked_side_by_side(tmp_path: Path) -> None:
    with offering(b"x", 1) as (url, _):
        port = int(url.split(":")[2].split("/")[0])
        asked = [{"host": "127.0.0.1", "port": port}, {"host": "127.0.0.1", "port": 1}]
        found = ask({"read": {"connect": asked}}, tmp_path)["read"]["connect"]
    assert found[f"127.0.0.1:{port}"] == {"state": "present", "open": True, "said": ""}
    assert found["127.0.0.1:1"] == {"state": "present", "open": False, "said": "Connection refused"}


def test_facts_that_k3s_depends_on(tmp_path: Path) -> None:
    facts = ask({"read": {}}, tmp_path)["read"]["facts"]
    assert facts["systemd"] is os.path.isdir("/run/systemd/system")
    assert isinstance(facts["memory_cgroup"], bool)
    with open("/proc/sys/vm/overcommit_memory") as stream:
        assert facts["sysctls"]["vm.overcommit_memory"] == stream.read().strip()
    assert facts["addresses"] == sorted(facts["addresses"])
    assert not any(address.startswith("fe80") for address in facts["addresses"])
    assert not {"127.0.0.1", "::1"} & set(facts["addresses"])
