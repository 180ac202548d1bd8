"""Network namespaces on one bridge, each with a program in it that believes to be alone on its machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import build

PREFIX = "fo-k3s"
NETNS = Path("/run/netns")
PROGRAMS = ("etcd", "kube", "containerd", "containerd-shim-runc-v2", "ctr", "k3s")
TUNABLES = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)  # fmt: skip
"""Written by the kubelet; the whole machine shares them, so each room writes into a copy."""
ENTER = """\
set -e
for name in $TUNABLES; do mount --bind "$ROOM/sysctl/$name" "/proc/sys/$name"; done
echo "$NAME" > /proc/sys/kernel/hostname
mount --bind "$ROOM/var" /var
mount -t tmpfs tmpfs /run
exec "$@"
"""
_CLONE_NEWNET = 0x40000000


def obstacles() -> list[str]:
    """Why this machine cannot run the real servers; empty when it can."""
    if os.geteuid() != 0:
        return ["it needs root"]
    found = [
        f"there is no {name}" for name in ("ip", "nsenter", "unshare", "setpriv", "go") if shutil.which(name) is None
    ]
    if not found:
        try:
            for name in PROGRAMS:
                build.binary(name)
            ip("netns", "add", f"{PREFIX}-{os.getpid()}-0")
        except (build.BuildError, subprocess.CalledProcessError) as why:
            return [str(getattr(why, "stderr", "") or why).strip()]
        ip("netns", "del", f"{PREFIX}-{os.getpid()}-0")
    return found


def ip(*words: str) -> None:
    """Raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """One bridge with rooms on it. One at a time in a process, as the names hold only its id."""

    net = "10.78.0."

    def __init__(self) -> None:
        _sweep()
        self.hub = f"{PREFIX}-{os.getpid()}-0"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-"))
        self._rooms: list[Room] = []

    def make(self) -> None:
        """The bridge, and the folder of programs that K3s starts."""
        ip("netns", "add", self.hub)
        for words in (
            "link set lo up",
            "link add br0 type bridge",
            "link set br0 up",
            f"addr add {self.net}1/24 dev br0",
        ):
            ip("-n", self.hub, *words.split())
        (self.folder / "bin").mkdir()
        for name in PROGRAMS:
            (self.folder / "bin" / name).symlink_to(build.binary(name))

    def room(self, name: str, number: int) -> Room:
        """A new namespace with the address ``number``, and an empty folder for it."""
        namespace = f"{PREFIX}-{os.getpid()}-{number}"
        ip("netns", "add", namespace)
        made = Room(namespace, name, self.folder / str(number), self.folder / "bin")
        self._rooms.append(made)
        ip("-n", self.hub, *f"link add p{number} type veth peer name eth0 netns {namespace}".split())
        ip("-n", self.hub, *f"link set p{number} master br0 up".split())
        for words in (
            "link set lo up", "link set eth0 up", f"addr add {self.net}{number}/24 dev eth0",
            f"route add default via {self.net}1",
        ):  # fmt: skip
            ip("-n", namespace, *words.split())
        return made

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Within the body, this thread and what it starts are on the bridge."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(NETNS / self.hub, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(there)
            os.close(before)

    def close(self) -> None:
        """Ends every program and leaves nothing behind."""
        for room in self._rooms:
            room.close()
        _remove(self.hub)
        shutil.rmtree(self.folder, ignore_errors=True)


class Room:
    """One namespace, and the one program that runs in it for long."""

    def __init__(self, namespace: str, name: str, root: Path, bin_: Path) -> None:
        self.namespace, self.name, self.root, self.bin = namespace, name, root, bin_
        for folder in ("var/lib/kubelet", "var/lib/rancher/k3s", "var/log/pods", "var/tmp", "etc/rancher/k3s"):
            (root / folder).mkdir(parents=True)
        for tunable in TUNABLES:
            copy = root / "sysctl" / tunable
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text((Path("/proc/sys") / tunable).read_text())
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._ready = False
        self._begun = 0

    def start(self, words: list[str]) -> None:
        """``k3s words``, at low priority, as a unit of Type=notify would be. The kernel kills it when we die."""
        assert self._process is None or self._process.poll() is not None
        self._listen()
        log = self.root / "log"
        self._begun = log.stat().st_size if log.exists() else 0
        environment = {
            **self._environment(), "NOTIFY_SOCKET": str(self.root / "notify"), "TUNABLES": " ".join(TUNABLES),
            "ROOM": str(self.root), "NAME": self.name,
        }  # fmt: skip
        argv = [
            "setpriv", "--pdeathsig", "SIGKILL", "nice", "nsenter", f"--net={NETNS / self.namespace}",
            "unshare", "--mount", "--uts", "sh", "-c", ENTER, "sh", str(self.bin / "k3s"), *words,
        ]  # fmt: skip
        with log.open("ab") as journal:
            self._process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=journal, stderr=journal
            )

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not obey within ten seconds."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, words: list[str], extra: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """A command beside it, to its end."""
        argv = ["nsenter", f"--net={NETNS / self.namespace}", str(self.bin / words[0]), *words[1:]]
        environment = {**self._environment(), **extra}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)

    def notified(self) -> bool:
        """Whether the program said READY=1 since its start."""
        if self._door is not None and not self._ready:
            with contextlib.suppress(BlockingIOError):
                self._ready = b"READY=1" in self._door.recv(4096)
        return self._ready

    def code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def log(self) -> str:
        """What it has said since its start."""
        with (self.root / "log").open("rb") as file:
            file.seek(self._begun)
            return file.read().decode(errors="replace")

    def close(self) -> None:
        """Ends everything in it."""
        with contextlib.suppress(OSError):
            self.stop()
        if self._door is not None:
            self._door.close()
        _remove(self.namespace)

    def _listen(self) -> None:
        if self._door is not None:
            self._door.close()
        (self.root / "notify").unlink(missing_ok=True)
        self._ready = False
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._door.bind(str(self.root / "notify"))
        self._door.setblocking(False)

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("K3S_") and key != "KUBECONFIG"}
        return {**kept, "K3S_BENCH_ROOT": str(self.root), "K3S_BENCH_BIN": str(self.bin)}


def _enter(descriptor: int) -> None:
    """setns(2); Python 3.12 brings it along as ``os.setns``."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _remove(namespace: str) -> None:
    """The namespace and whatever still runs in it."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in done.stdout.split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def _lives(pid: str) -> bool:
    """Whether the process runs; what nobody has asked for its exit code yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _sweep() -> None:
    """Removes what killed runs of these tests left."""
    for folder, where in ((NETNS, None), (Path(tempfile.gettempdir()), shutil.rmtree)):
        for left in folder.glob(f"{PREFIX}-*") if folder.is_dir() else []:
            found = re.fullmatch(rf"{PREFIX}-(\d+)-.+", left.name)
            if not found or _lives(found[1]):
                continue
            if where is None:
                _remove(left.name)
            else:
                where(left, ignore_errors=True)
