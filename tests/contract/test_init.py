"""``fo init``: from a terminal, from flags, and what it refuses."""

from __future__ import annotations

import hashlib
import http.server
import os
import pty
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from operator_home import Operator


@pytest.fixture
def home(tmp_path: Path) -> Operator:
    """A repository with a lab cluster; a second cluster is made beside it."""
    return Operator(tmp_path / "home")


def test_at_a_terminal_it_asks_and_writes_a_private_file(home: Operator) -> None:
    master, slave = pty.openpty()
    argv = home.command("init", "home", "--no-pin")
    with subprocess.Popen(argv, cwd=home.folder, env=home.environment(), stdin=slave, stdout=slave, stderr=slave) as fo:
        os.close(slave)
        shown, answered = b"", 0
        answers = {
            b"DOMAIN": b"example.org",
            b"SUBNET": b"192.168.7.0/24",
            b"PROXMOX_TOKEN_SECRET": b"0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        }
        try:
            while chunk := os.read(master, 65536):
                shown += chunk
                while (asked := shown[answered:].find(b": ", max(0, len(shown[answered:]) - 2))) >= 0:
                    key = shown.rsplit(b"\n", 1)[-1].split(b" ")[0].rstrip(b":")
                    os.write(master, answers.get(key, b"") + b"\n")
                    answered += asked + 2
        except OSError:  # EIO: the other end is closed
            pass
        code = fo.wait(timeout=30)
    os.close(master)
    assert code == 0, shown.decode()
    path = home.folder / "config" / "env" / "home.env"
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert "DOMAIN=example.org" in text
    assert "SUBNET=192.168.7.0/24" in text
    assert "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0" in text
    assert b"0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0" not in shown
    assert b"still to be filled in" in shown


def test_from_flags_it_generates_the_rest(home: Operator) -> None:
    ended = home.fo("init", "home", "--no-pin", "--set", "DOMAIN=example.org", "--set", "SUBNET=192.168.7.0/24")
    assert ended.code == 0, ended.err
    text = (home.folder / "config" / "env" / "home.env").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    for key in ("SSH_PRIVATE_KEY", "HOST_KEY_SEED", "K3S_TOKEN", "K3S_AGENT_TOKEN", "EVIDENCE_KEY", "SOPS_AGE_KEY"):
        assert len(values[key]) >= 32, key
        assert values[key] not in ended.err + ended.out


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("lab",), "is there already"),
        (("Bad_Name",), "DNS label"),
        (("home", "--set", "NOPE=1", "--no-pin"), "no such key"),
        (("home", "--set", "DOMAIN", "--no-pin"), "KEY=VALUE"),
        (("two", "--lab", "--set", "SUBNET=abc"), "IPv4 network"),
        (("two", "--lab", "--set", "CONTROLLERS=2"), "CONTROLLERS"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(home: Operator, argv: tuple[str, ...], says: str) -> None:
    before = sorted((home.folder / "config" / "env").iterdir())
    ended = home.fo("init", *argv)
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert sorted((home.folder / "config" / "env").iterdir()) == before


# The lock file

_LOCKED = (
    "# by hand\n"
    "image:\n  url: https://cloud.debian.org/images/cloud/trixie/20260101-1/a.qcow2\n  sha512: '" + "b" * 128 + "'\n"
    "k3s:\n  version: v1.35.1+k3s1\n  sha256:\n    amd64: '" + "1" * 64 + "'\n"
    "flux:\n  version: v2.8.1\n  url: https://github.com/fluxcd/flux2/releases/download/v2.8.1/install.yaml\n"
    "  sha256: '" + "2" * 64 + "'\n"
)


def _lock_file(home: Operator, text: str) -> Path:
    path = home.folder / "config" / "lock" / "home.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@contextmanager
def _publisher(pages: Mapping[str, bytes]) -> Iterator[str]:
    """Serves ``pages`` by path on loopback, and yields the URL before them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _sums(release: str, body: bytes) -> dict[str, bytes]:
    digest = hashlib.sha256(body).hexdigest().encode()
    return {
        f"/{release}/sha256sum-amd64.txt": digest + b"  k3s\n",
        f"/{release}/sha256sum-arm64.txt": digest + b"  k3s-arm64\n",
    }


def test_a_lock_file_that_came_with_the_clone_is_kept(home: Operator) -> None:
    path = _lock_file(home, _LOCKED)
    ended = home.fo("init", "home", "--set", "DOMAIN=example.org", "--set", "SUBNET=192.168.7.0/24")
    assert ended.code == 0, ended.err
    assert "config/lock/home.yaml is there and stays as it is" in ended.err
    assert path.read_text() == _LOCKED
    text = (home.folder / "config" / "env" / "home.env").read_text()
    for line in ("IMAGE_URL=", "K3S_VERSION=v1.35.1+k3s1", "FLUX_VERSION=v2.8.1", "K3S_SHA256=", "IMAGE_SHA512="):
        assert f"\n{line}\n" in text
    missing = [line for line in ended.err.splitlines() if "is empty, and required" in line]
    assert missing
    assert not [line for line in missing if "SHA" in line or "IMAGE" in line]


def test_a_damaged_lock_file_stops_init_before_anything_is_written(home: Operator) -> None:
    _lock_file(home, _LOCKED + "x: y\n")
    ended = home.fo("init", "home")
    assert ended.code == 2
    assert "x: there is no such entry" in ended.err
    assert "restore it from Git" in ended.err
    assert not (home.folder / "config" / "env" / "home.env").exists()


def test_a_lock_is_shown_and_renewed_in_parts(home: Operator) -> None:
    path = _lock_file(home, _LOCKED)
    with _publisher(_sums("v1.35.2%2Bk3s1", b"new")) as base:
        settings = ("K3S_VERSION=v1.35.2+k3s1", f"K3S_DOWNLOAD_URL={base}", "DOMAIN=example.org")
        assert home.fo("init", "home", *(word for one in settings for word in ("--set", one))).code == 0
        shown = home.fo("lock", "show", "-c", "home", "--json")
        assert shown.json["k3s.version"] == "v1.35.1+k3s1"
        ended = home.fo("lock", "update", "--k3s", "-c", "home")
        digest = hashlib.sha256(b"new").hexdigest()
        assert ended.out.splitlines() == [
            "k3s.version: v1.35.1+k3s1 -> v1.35.2+k3s1",
            f"k3s.sha256.amd64: {'1' * 64} -> {digest}",
            f"k3s.sha256.arm64: nothing -> {digest}",
        ], ended.err
        assert "warning" not in ended.err
        again = home.fo("lock", "update", "--k3s", "-c", "home")
        assert (again.code, again.out) == (0, "")
        assert "nothing changed" in again.err
    assert path.stat().st_mode & 0o777 == 0o644
    shown = home.fo("lock", "show", "-c", "home")
    assert f"k3s.sha256.amd64: {digest}" in shown.out
    assert "flux.version: v2.8.1" in shown.out
    assert "config/lock/home.yaml" in home.git("status", "--porcelain", "--untracked-files=all")
    with _publisher(_sums("v1.35.2%2Bk3s1", b"other")) as base:
        env = home.folder / "config" / "env" / "home.env"
        env.write_text("\n".join(
            f"K3S_DOWNLOAD_URL={base}" if line.startswith("K3S_DOWNLOAD_URL=") else line
            for line in env.read_text().split("\n")
        ))  # fmt: skip
        assert "k3s has another digest and is the same release" in home.fo("lock", "update", "--k3s", "-c", "home").err


def test_a_publisher_that_fails_leaves_the_lock_as_it_was(home: Operator) -> None:
    path = _lock_file(home, _LOCKED)
    with _publisher({}) as base:
        assert home.fo("init", "home", "--set", f"K3S_DOWNLOAD_URL={base}").code == 0
        ended = home.fo("lock", "update", "--k3s", "-c", "home")
    assert ended.code == 6
    assert path.read_text() == _LOCKED


def test_what_cannot_be_locked(home: Operator) -> None:
    ended = home.fo("lock", "update", "-c", "lab")
    assert ended.code == 2
    assert "lab is a lab, whose digests come with fo" in ended.err
    ended = home.fo("lock", "show", "-c", "lab")
    assert "there is no config/lock/lab.yaml" in ended.err
    assert home.fo("init", "home", "--no-pin").code == 0
    _lock_file(home, "k3s: [")
    ended = home.fo("lock", "update", "--k3s", "-c", "home")
    assert ended.code == 2
    assert "cannot be trusted" in ended.err
